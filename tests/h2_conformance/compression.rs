//! RFC 7541, as far as RFC 9113 section 4.3 makes it a matter of the connection.

use super::*;

/// Section 4.3 names COMPRESSION_ERROR. h2 says PROTOCOL_ERROR of all that it cannot read; the connection ends either way.
const BROKEN: Expect = Connection(&[COMPRESSION_ERROR, PROTOCOL_ERROR]);

pub fn cases() -> Vec<Case> {
    [broken(), sound()].into_iter().flatten().collect()
}

fn with_block(head: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, head)
}

/// A good head and then these bytes.
fn then(more: &[u8]) -> Vec<u8> {
    with_block(&[&block(&get(HOST, PATH))[..], more].concat())
}

fn broken() -> Vec<Case> {
    let bad = |name, more: &[u8]| case(name).send(then(more)).expect(BROKEN);
    vec![
        bad("HPACK 6.1 index 0", &[0x80]),
        bad("HPACK 2.3.3 index beyond both tables", &[0xff, 0x10]),
        bad("HPACK 2.3.3 index of an empty dynamic table", &[0xbe]),
        bad("HPACK 2.3.3 name at an index beyond both tables", &[0x7f, 0x10, 1, b'y']),
        bad("HPACK 5.1 integer that never ends", &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        bad("HPACK 5.1 integer cut short", &[0xff]),
        bad("HPACK 5.2 string cut short", &[0x40, 1, b'x', 9, b'y']),
        bad("HPACK 5.2 string of 4 GiB", &[0x40, 1, b'x', 0x7f, 0x80, 0xff, 0xff, 0xff, 0x0f]),
        bad("HPACK 5.2 name without a value", &[0x40, 1, b'x']),
        // `a` is 00011, padded with ones to a byte, and a whole byte of padding more.
        bad("HPACK 5.2 padding longer than seven bits", &[0x40, 1, b'x', 0x82, 0x1f, 0xff]),
        bad("HPACK 5.2 padding of zeros", &[0x40, 1, b'x', 0x81, 0x18]),
        bad("HPACK 5.2 EOS in a string", &[0x40, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]),
        bad("HPACK 4.2 size update behind a field", &[0x20]),
        case("HPACK 6.3 size update beyond the setting")
            .send(with_block(&[&[0x3f, 0xe2, 0x1f], &block(&get(HOST, PATH))[..]].concat()))
            .expect(BROKEN),
        case("HPACK 6.3 size update of 4 GiB")
            .send(with_block(&[&[0x3f, 0xe0, 0xff, 0xff, 0xff, 0x0f], &block(&get(HOST, PATH))[..]].concat()))
            .expect(BROKEN),
        // Section 4.2 wants it refused, since it stands behind a field. h2 begins anew with each frame, and both sides have the same table after it.
        case("HPACK 4.2 size update at the start of CONTINUATION")
            .send([frame(HEADERS, END_STREAM, 1, &block(&get(HOST, PATH))), frame(CONTINUATION, END_HEADERS, 1, &[0x20])].concat())
            .expect(Either(&BROKEN, &Answered(200))),
        case("HPACK 4.3 index into a table that was emptied")
            .send([then(&[0x40, 1, b'x', 1, b'y']), frame(HEADERS, END_HEADERS | END_STREAM, 3, &[&[0x20], &block(&get(HOST, PATH))[..], &[0xbe]].concat())].concat())
            .expect(BROKEN)
            .disputed("RFC 7541 section 4.3: entries are evicted from the end of the dynamic table until the size is less than or equal to the maximum"),
    ]
}

fn sound() -> Vec<Case> {
    let head = block(&get(HOST, PATH));
    let good = |name, more: &[u8]| case(name).send(then(more)).expect(Answered(200));
    vec![
        good("HPACK 6.2.1 field into the table, and out of it", &[0x40, 1, b'x', 1, b'y', 0xbe]),
        good("HPACK 6.2.1 name out of the table", &[0x40, 1, b'x', 1, b'y', 0x7e, 1, b'z']),
        good("HPACK 6.2.3 field that is never indexed", &[0x10, 1, b'x', 1, b'y']),
        good("HPACK 5.2 string in Huffman code", &[0x40, 1, b'x', 0x81, 0x1f]),
        good("HPACK 6.1 field of the static table", &[0x90]),
        good("HPACK 4.4 field larger than the table", &[&[0x40, 1, b'x', 0x7f, 0x81, 0x27][..], &[b'y'; 5120]].concat()),
        case("HPACK 6.3 two size updates").send(with_block(&[&[0x20, 0x3f, 0xe1, 0x1f], &head[..]].concat())).expect(Answered(200)),
        case("HPACK 2.3.2 the table outlives the request")
            .send(frame(HEADERS, END_HEADERS | END_STREAM, 3, &[&block(&get(HOST, "/x"))[..], &[0x40, 1, b'x', 1, b'y']].concat()))
            .ended(3)
            .send(frame(HEADERS, END_HEADERS | END_STREAM, 5, &[&head[..], &[0xbe]].concat()))
            .ended(5)
            .expect(Goes),
        // What is dropped as malformed has been decompressed all the same.
        case("4.3 a malformed head fills the table")
            .send(
                [
                    frame(
                        HEADERS,
                        END_HEADERS | END_STREAM,
                        3,
                        &[&block(&[("x", "y"), (":path", "/")])[..], &[0x40, 1, b'x', 1, b'y']].concat(),
                    ),
                    frame(HEADERS, END_HEADERS | END_STREAM, 5, &[&head[..], &[0xbe]].concat()),
                ]
                .concat(),
            )
            .ended(5)
            .expect(Either(&Stream(3, &[PROTOCOL_ERROR]), &Goes)),
    ]
}
