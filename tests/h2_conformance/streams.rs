//! Section 5: the states and the numbers of streams.

use super::*;

const BAD: &[u32] = &[PROTOCOL_ERROR];
/// Section 5.1 names STREAM_CLOSED. h2 ends the connection with PROTOCOL_ERROR instead, and HAProxy does for some: the frame is refused all the
/// same, and which code a peer that breaks the protocol reads changes nothing.
const CLOSED: &[u32] = &[STREAM_CLOSED, PROTOCOL_ERROR];
/// A frame on a stream that is over: the RFC lets a server call it an error or drop it.
const ERROR_OR_NOTHING: Expect = Either(&Stream(1, CLOSED), &Goes);

pub fn cases() -> Vec<Case> {
    [idle(), half_closed(), closed(), numbers(), unbroken()].into_iter().flatten().collect()
}

fn data(stream: u32) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, b"x")
}

fn update(stream: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 1])
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])
}

fn idle() -> Vec<Case> {
    vec![
        case("5.1 DATA on an idle stream").send(data(1)).expect(Connection(&[PROTOCOL_ERROR, STREAM_CLOSED])),
        case("5.1 WINDOW_UPDATE on an idle stream").send(update(1)).expect(Connection(BAD)),
        case("5.1 RST_STREAM on an idle stream").send(reset(1)).expect(Connection(BAD)),
        case("5.1 CONTINUATION on an idle stream")
            .send(frame(CONTINUATION, END_HEADERS, 1, &block(&get(HOST, PATH))))
            .expect(Connection(BAD)),
        case("5.1 DATA on an idle stream of the server").send(data(2)).expect(Connection(&[PROTOCOL_ERROR, STREAM_CLOSED])),
    ]
}

fn half_closed() -> Vec<Case> {
    vec![
        case("5.1 DATA after END_STREAM").send([hangs(1), data(1)].concat()).expect(Stream(1, CLOSED)),
        case("5.1 HEADERS after END_STREAM").send([hangs(1), asks(1)].concat()).expect(Stream(1, CLOSED)),
        case("5.1 trailers after END_STREAM")
            .send([hangs(1), frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("x", "y")]))].concat())
            .expect(Stream(1, CLOSED)),
        case("5.1 CONTINUATION after END_STREAM")
            .send([hangs(1), frame(CONTINUATION, END_HEADERS, 1, b"")].concat())
            .expect(Connection(BAD)),
        case("5.1 WINDOW_UPDATE after END_STREAM").send([hangs(1), update(1)].concat()).expect(Goes),
        case("5.1 PRIORITY after END_STREAM").send([hangs(1), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])].concat()).expect(Goes),
        case("5.1 RST_STREAM after END_STREAM").send([hangs(1), reset(1)].concat()).expect(Goes),
        case("5.1 DATA after the body's end")
            .send([posts(1), data(1), data(1)].concat())
            .expect(Either(&Stream(1, CLOSED), &Answered(200))),
    ]
}

fn closed() -> Vec<Case> {
    let after_reset = |more: Vec<u8>| [posts(1), reset(1), more].concat();
    let over = |name| case(name).send(asks(1)).ended(1);
    vec![
        case("5.1 DATA after RST_STREAM").send(after_reset(data(1))).expect(ERROR_OR_NOTHING),
        case("5.1 HEADERS after RST_STREAM").send(after_reset(asks(1))).expect(ERROR_OR_NOTHING),
        case("5.1 CONTINUATION after RST_STREAM").send(after_reset(frame(CONTINUATION, END_HEADERS, 1, b""))).expect(Connection(CLOSED)),
        case("5.1 WINDOW_UPDATE after RST_STREAM").send(after_reset(update(1))).expect(ERROR_OR_NOTHING),
        case("5.1 RST_STREAM after RST_STREAM").send(after_reset(reset(1))).expect(ERROR_OR_NOTHING),
        case("5.1 PRIORITY after RST_STREAM").send(after_reset(frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]))).expect(Goes),
        over("5.1 DATA on a stream that is over").send(data(1)).expect(ERROR_OR_NOTHING),
        over("5.1 HEADERS on a stream that is over").send(hangs(1)).expect(Either(&Stream(1, &[STREAM_CLOSED, PROTOCOL_ERROR]), &Goes)),
        over("5.1 CONTINUATION on a stream that is over").send(frame(CONTINUATION, END_HEADERS, 1, b"")).expect(Connection(CLOSED)),
        over("5.1 WINDOW_UPDATE on a stream that is over").send(update(1)).expect(Goes),
        over("5.1 RST_STREAM on a stream that is over").send(reset(1)).expect(Goes),
        over("5.1 PRIORITY on a stream that is over").send(frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])).expect(Goes),
    ]
}

fn numbers() -> Vec<Case> {
    let whole = END_HEADERS | END_STREAM;
    vec![
        case("5.1.1 an even stream").send(frame(HEADERS, whole, 2, &block(&get(HOST, PATH)))).expect(Connection(BAD)),
        case("5.1.1 a stream below the last")
            .send([hangs(5), frame(HEADERS, whole, 3, &block(&get(HOST, PATH)))].concat())
            .expect(Connection(&[PROTOCOL_ERROR, STREAM_CLOSED])),
        case("5.1.1 streams may be left out").send([hangs(7), hangs(99)].concat()).expect(Goes),
        case("5.1.2 more streams than are allowed")
            .send((0..150).flat_map(|nth| hangs(nth * 2 + 1)).collect::<Vec<u8>>())
            .expect(Stream(299, &[PROTOCOL_ERROR, REFUSED_STREAM, ENHANCE_YOUR_CALM])),
        case("5.3.1 PRIORITY of a stream on itself")
            .send([posts(1), frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 16])].concat())
            .expect(Either(&Stream(1, BAD), &Goes)),
        case("5.3.1 HEADERS of a stream on itself")
            .send(frame(HEADERS, whole | WITH_PRIORITY, 1, &[&[0, 0, 0, 1, 16], &block(&get(HOST, PATH))[..]].concat()))
            .expect(Either(&Stream(1, BAD), &Answered(200))),
        case("6.8 a stream above the client's own GOAWAY").send([frame(GOAWAY, 0, 0, &[0; 8]), asks(1)].concat()).expect(FirstData(4)),
    ]
}

/// Sections 4.3 and 6.2: a head is one unbroken row of frames.
fn unbroken() -> Vec<Case> {
    let begun = || frame(HEADERS, END_STREAM, 1, &block(&get(HOST, PATH)));
    let broken =
        |name, by: Vec<u8>| case(name).send([begun(), by, frame(CONTINUATION, END_HEADERS, 1, b"")].concat()).expect(Connection(BAD));
    vec![
        broken("6.2 a head broken by HEADERS of another stream", asks(3)),
        broken("6.2 a head broken by HEADERS of its own", asks(1)),
        broken("6.2 a head broken by DATA", data(1)),
        broken("6.2 a head broken by DATA of another stream", data(3)),
        broken("6.2 a head broken by PRIORITY", frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 1])),
        broken("6.2 a head broken by RST_STREAM", reset(1)),
        broken("6.2 a head broken by SETTINGS", settings(&[])),
        broken("6.2 a head broken by PING", frame(PING, 0, 0, b"payload8")),
        broken("6.2 a head broken by WINDOW_UPDATE", update(0)),
        broken("6.2 a head broken by GOAWAY", frame(GOAWAY, 0, 0, &[0; 8])),
        broken("5.5 a head broken by an unknown frame", frame(0xbe, 0, 1, b"x")),
        broken("6.10 a head continued on another stream", frame(CONTINUATION, END_HEADERS, 3, b"")),
    ]
}
