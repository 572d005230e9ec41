//! Sections 3.4, 4 and 6: the preface, the size and form of frames.

use super::*;

pub fn cases() -> Vec<Case> {
    [preface(), sizes(), data_and_headers(), settings_frames(), control(), windows()].into_iter().flatten().collect()
}

const PING8: &[u8; 8] = b"payload8";
const SIZE: &[u32] = &[FRAME_SIZE_ERROR];
const BAD: &[u32] = &[PROTOCOL_ERROR];
/// Of a frame that is too short for what its flags promise: 4.2 and 6.1, 6.2 name one code each.
const SIZE_OR_BAD: &[u32] = &[FRAME_SIZE_ERROR, PROTOCOL_ERROR];

const UNKNOWN: &str = "4.1: Implementations MUST ignore and discard frames of unknown types";
const PADDING: &str = "6.1: Padding octets that contain no application semantic value. [..] A receiver is not obligated to verify padding";

fn preface() -> Vec<Case> {
    vec![
        case("3.4 preface and empty SETTINGS").opening(&[PREFACE, &settings(&[])].concat()).expect(Goes),
        case("3.4 wrong preface").opening(b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n").expect(Closed),
        case("3.4 HTTP/1.1 as preface").opening(b"GET / HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n").expect(Closed),
        case("3.4 PING before SETTINGS").opening(&[PREFACE, &frame(PING, 0, 0, PING8)].concat()).expect(Closed),
        case("3.4 HEADERS before SETTINGS").opening(&[PREFACE, &asks(1)].concat()).expect(Closed),
        case("3.4 WINDOW_UPDATE before SETTINGS").opening(&[PREFACE, &frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])].concat()).expect(Closed),
        case("3.4 an acknowledgement as first SETTINGS").opening(&[PREFACE, &frame(SETTINGS, ACK, 0, b"")].concat()).expect(Closed),
        case("3.4 an unknown frame before SETTINGS").opening(&[PREFACE, &frame(0xbe, 0, 0, b"x")].concat()).expect(Closed),
    ]
}

fn sizes() -> Vec<Case> {
    let large = vec![0; 16_385];
    let most = vec![b'x'; 16_384];
    vec![
        case("4.1 unknown type on stream 0").send(frame(0xbe, 0, 0, b"unknown")).expect(Goes),
        case("4.1 unknown type on an idle stream").send(frame(0xbe, 0xff, 7, b"unknown")).expect(Goes).disputed(UNKNOWN),
        case("4.1 unknown type on an open stream")
            .send([posts(1), frame(0xbe, 0, 1, b"unknown"), frame(DATA, END_STREAM, 1, b"x")].concat())
            .expect(Answered(200)),
        case("4.1 unknown flags of PING").send(frame(PING, 0xfe, 0, PING8)).expect(Pong),
        case("4.1 unknown flags of SETTINGS").send(frame(SETTINGS, 0xfe, 0, b"")).expect(Goes),
        case("4.1 unknown flags of DATA").send([posts(1), frame(DATA, END_STREAM | 0xf6, 1, b"x")].concat()).expect(Answered(200)),
        case("4.1 unknown flags of WINDOW_UPDATE").send(frame(WINDOW_UPDATE, 0xff, 0, &[0, 0, 0, 1])).expect(Goes),
        case("4.1 reserved bit of PING").send(frame(PING, 0, 1 << 31, PING8)).expect(Pong),
        case("4.1 reserved bit of HEADERS")
            .send(frame(HEADERS, END_HEADERS | END_STREAM, 1 << 31 | 1, &block(&get(HOST, PATH))))
            .expect(Answered(200)),
        case("4.2 DATA of the most bytes").send([posts(1), frame(DATA, END_STREAM, 1, &most)].concat()).expect(Answered(200)),
        case("4.2 DATA too large").send([posts(1), frame(DATA, END_STREAM, 1, &large)].concat()).expect(Stream(1, SIZE)),
        case("4.2 HEADERS too large").send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &large)).expect(Connection(SIZE)),
        case("4.2 CONTINUATION too large")
            .send([frame(HEADERS, END_STREAM, 1, &block(&get(HOST, PATH))), frame(CONTINUATION, END_HEADERS, 1, &large)].concat())
            .expect(Connection(SIZE)),
        case("4.2 SETTINGS too large").send(frame(SETTINGS, 0, 0, &vec![0; 16_386])).expect(Connection(SIZE)),
        case("4.2 an unknown frame too large").send(frame(0xbe, 0, 0, &large)).expect(Connection(SIZE)),
    ]
}

fn data_and_headers() -> Vec<Case> {
    let head = block(&get(HOST, PATH));
    let padded = |length: u8, content: &[u8]| [&[length], content, &vec![0; usize::from(length)]].concat();
    let whole = END_HEADERS | END_STREAM;
    vec![
        case("6.1 DATA on stream 0").send(frame(DATA, 0, 0, b"x")).expect(Connection(BAD)),
        case("6.1 padded DATA")
            .send([posts(1), frame(DATA, END_STREAM | PADDED, 1, &padded(200, b"x"))].concat())
            .expect(Answered(200))
            .disputed(PADDING),
        case("6.1 DATA of padding alone")
            .send([posts(1), frame(DATA, END_STREAM | PADDED, 1, &padded(5, b""))].concat())
            .expect(Answered(200))
            .disputed(PADDING),
        case("6.1 padding of zero bytes").send([posts(1), frame(DATA, END_STREAM | PADDED, 1, &[0, b'x'])].concat()).expect(Answered(200)),
        case("6.1 padding longer than DATA")
            .send([posts(1), frame(DATA, END_STREAM | PADDED, 1, &[9, b'x'])].concat())
            .expect(Connection(BAD)),
        case("6.1 padding as long as DATA")
            .send([posts(1), frame(DATA, END_STREAM | PADDED, 1, &[3, b'x', b'y'])].concat())
            .expect(Connection(BAD)),
        case("6.1 padded DATA without a length")
            .send([posts(1), frame(DATA, END_STREAM | PADDED, 1, b"")].concat())
            .expect(Connection(SIZE_OR_BAD)),
        case("6.1 empty DATA ends a body")
            .send([posts(1), frame(DATA, 0, 1, b"x"), frame(DATA, END_STREAM, 1, b"")].concat())
            .expect(Answered(200)),
        case("6.2 HEADERS on stream 0").send(frame(HEADERS, whole, 0, &head)).expect(Connection(BAD)),
        case("6.2 padded HEADERS").send(frame(HEADERS, whole | PADDED, 1, &padded(99, &head))).expect(Answered(200)),
        case("6.2 HEADERS with priority")
            .send(frame(HEADERS, whole | WITH_PRIORITY, 1, &[&[0, 0, 0, 0, 16], &head[..]].concat()))
            .expect(Answered(200)),
        case("6.2 padded HEADERS with priority")
            .send(frame(HEADERS, whole | WITH_PRIORITY | PADDED, 1, &[&[2, 0, 0, 0, 0, 16], &head[..], &[0, 0]].concat()))
            .expect(Answered(200)),
        case("6.2 padding longer than HEADERS")
            .send(frame(HEADERS, whole | PADDED, 1, &[&[255], &head[..]].concat()))
            .expect(Connection(BAD)),
        case("6.2 padding that leaves no room for the priority")
            .send(frame(HEADERS, whole | PADDED | WITH_PRIORITY, 1, &[3, 0, 0, 0, 0, 16, 0, 0]))
            .expect(Connection(SIZE_OR_BAD)),
        case("6.2 priority cut short").send(frame(HEADERS, whole | WITH_PRIORITY, 1, &[0, 0, 0])).expect(Connection(SIZE_OR_BAD)),
        case("6.2 padded HEADERS without a length").send(frame(HEADERS, whole | PADDED, 1, b"")).expect(Connection(SIZE_OR_BAD)),
    ]
}

fn settings_frames() -> Vec<Case> {
    let bad = |id, value| settings(&[(id, value)]);
    vec![
        case("6.5 SETTINGS on a stream").send(frame(SETTINGS, 0, 1, b"")).expect(Connection(BAD)),
        case("6.5 acknowledgement with a payload").send(frame(SETTINGS, ACK, 0, &[0; 6])).expect(Connection(SIZE)),
        case("6.5 SETTINGS of odd length").send(frame(SETTINGS, 0, 0, &[0, 1, 0])).expect(Connection(SIZE)),
        case("6.5 SETTINGS of seven bytes").send(frame(SETTINGS, 0, 0, &[0; 7])).expect(Connection(SIZE)),
        case("6.5.2 ENABLE_PUSH 2").send(bad(2, 2)).expect(Connection(BAD)),
        case("6.5.2 ENABLE_PUSH 1").send(bad(2, 1)).expect(Goes),
        case("6.5.2 INITIAL_WINDOW_SIZE too large").send(bad(4, 1 << 31)).expect(Connection(&[FLOW_CONTROL_ERROR, PROTOCOL_ERROR])),
        case("6.5.2 INITIAL_WINDOW_SIZE at its largest").send(bad(4, (1 << 31) - 1)).expect(Goes),
        case("6.5.2 MAX_FRAME_SIZE too small").send(bad(5, 16_383)).expect(Connection(BAD)),
        case("6.5.2 MAX_FRAME_SIZE too large").send(bad(5, 1 << 24)).expect(Connection(BAD)),
        case("6.5.2 MAX_FRAME_SIZE at its largest").send(bad(5, (1 << 24) - 1)).expect(Goes),
        case("6.5.2 unknown setting").send(bad(0xbeef, u32::MAX)).expect(Goes),
        case("6.5.2 MAX_CONCURRENT_STREAMS 0").send(bad(3, 0)).expect(Goes),
        case("6.5.2 HEADER_TABLE_SIZE at its largest").send([bad(1, u32::MAX), bad(1, 0)].concat()).expect(Goes),
        case("6.5.2 MAX_HEADER_LIST_SIZE at its largest").send(bad(6, u32::MAX)).expect(Goes),
        case("RFC 8441 ENABLE_CONNECT_PROTOCOL 2")
            .send(bad(8, 2))
            .expect(Connection(BAD))
            .disputed("RFC 8441 section 3: The value of the parameter MUST be 0 or 1"),
        case("6.5.3 the last of several values counts").send([settings(&[(4, 1 << 20), (4, 2)]), asks(1)].concat()).expect(FirstData(2)),
    ]
}

fn control() -> Vec<Case> {
    vec![
        case("6.3 PRIORITY on stream 0").send(frame(PRIORITY, 0, 0, &[0, 0, 0, 3, 16])).expect(Connection(BAD)),
        case("6.3 PRIORITY too short").send([posts(1), frame(PRIORITY, 0, 1, &[0, 0, 0, 3])].concat()).expect(Stream(1, SIZE)),
        case("6.3 PRIORITY too long").send([posts(1), frame(PRIORITY, 0, 1, &[0; 6])].concat()).expect(Stream(1, SIZE)),
        case("6.3 PRIORITY on an idle stream").send([frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 16]), asks(1)].concat()).expect(Answered(200)),
        case("6.4 RST_STREAM on stream 0").send(frame(RST_STREAM, 0, 0, &[0, 0, 0, 8])).expect(Connection(BAD)),
        case("6.4 RST_STREAM on an idle stream").send(frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])).expect(Connection(BAD)),
        case("6.4 RST_STREAM too short").send([posts(1), frame(RST_STREAM, 0, 1, &[0, 0, 8])].concat()).expect(Connection(SIZE)),
        case("6.4 RST_STREAM too long").send([posts(1), frame(RST_STREAM, 0, 1, &[0; 5])].concat()).expect(Connection(SIZE)),
        case("7 RST_STREAM with an unknown code").send([posts(1), frame(RST_STREAM, 0, 1, &[0xff; 4])].concat()).expect(Goes),
        case("6.6 PUSH_PROMISE from a client")
            .send([posts(1), frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2], &block(&get(HOST, PATH))[..]].concat())].concat())
            .expect(Connection(BAD)),
        case("6.7 PING").send(frame(PING, 0, 0, PING8)).expect(Pong),
        case("6.7 acknowledged PING that nobody sent").send(frame(PING, ACK, 0, PING8)).expect(Goes),
        case("6.7 PING on a stream").send(frame(PING, 0, 1, PING8)).expect(Connection(BAD)),
        case("6.7 PING too short").send(frame(PING, 0, 0, b"short")).expect(Connection(SIZE)),
        case("6.7 PING too long").send(frame(PING, 0, 0, b"far too long")).expect(Connection(SIZE)),
        case("6.7 empty acknowledged PING").send(frame(PING, ACK, 0, b"")).expect(Connection(SIZE)),
        case("6.8 GOAWAY on a stream").send(frame(GOAWAY, 0, 1, &[0; 8])).expect(Connection(BAD)),
        case("6.8 GOAWAY too short").send(frame(GOAWAY, 0, 0, &[0; 7])).expect(Connection(SIZE)),
        case("6.8 a request before the client's GOAWAY is answered")
            .send([posts(1), frame(GOAWAY, 0, 0, &[0; 8]), frame(DATA, END_STREAM, 1, b"x")].concat())
            .expect(FirstData(4)),
        case("6.10 CONTINUATION on stream 0").send(frame(CONTINUATION, END_HEADERS, 0, b"")).expect(Connection(BAD)),
        case("6.10 CONTINUATION without HEADERS").send([posts(1), frame(CONTINUATION, END_HEADERS, 1, b"")].concat()).expect(Connection(BAD)),
        case("6.10 CONTINUATION after DATA")
            .send([posts(1), frame(DATA, 0, 1, b"x"), frame(CONTINUATION, END_HEADERS, 1, b"")].concat())
            .expect(Connection(BAD)),
        case("6.10 HEADERS in four parts").send(in_parts(4)).expect(Answered(200)),
        case("6.10 empty HEADERS, then the head")
            .send([frame(HEADERS, END_STREAM, 1, b""), frame(CONTINUATION, END_HEADERS, 1, &block(&get(HOST, PATH)))].concat())
            .expect(Answered(200))
            .disputed("4.2: A frame size error in a frame that could alter the state of the entire connection [..]: no length is too small for HEADERS"),
        case("6.10 the head, then empty CONTINUATION")
            .send([frame(HEADERS, END_STREAM, 1, &block(&get(HOST, PATH))), frame(CONTINUATION, END_HEADERS, 1, b"")].concat())
            .expect(Answered(200)),
    ]
}

fn in_parts(parts: usize) -> Vec<u8> {
    let head = block(&get(HOST, PATH));
    let chunks: Vec<&[u8]> = head.chunks(head.len().div_ceil(parts)).collect();
    let last = chunks.len() - 1;
    let frames = chunks.iter().enumerate().map(|(at, chunk)| {
        let end = if at == last { END_HEADERS } else { 0 };
        if at == 0 { frame(HEADERS, END_STREAM | end, 1, chunk) } else { frame(CONTINUATION, end, 1, chunk) }
    });
    frames.collect::<Vec<_>>().concat()
}

fn windows() -> Vec<Case> {
    let update = |stream, increment: u32| frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
    let largest = (1 << 31) - 1;
    vec![
        case("6.9 WINDOW_UPDATE of 0 on the connection").send(update(0, 0)).expect(Connection(BAD)),
        case("6.9 WINDOW_UPDATE of 0 on a stream").send([posts(1), update(1, 0)].concat()).expect(Stream(1, BAD)),
        case("6.9 WINDOW_UPDATE of 0 with the reserved bit").send(update(0, 1 << 31)).expect(Connection(BAD)).disputed(
            "6.9: the frame payload is one reserved bit plus an unsigned 31-bit integer; 4.1 of such bits: MUST be ignored when receiving",
        ),
        case("6.9 WINDOW_UPDATE too short").send(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1])).expect(Connection(SIZE)),
        case("6.9 WINDOW_UPDATE too long").send([posts(1), frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1, 0])].concat()).expect(Connection(SIZE)),
        case("6.9.1 the connection's window overflows")
            .send([update(0, largest), update(0, largest)].concat())
            .expect(Connection(&[FLOW_CONTROL_ERROR])),
        case("6.9.1 a stream's window overflows")
            .send([posts(1), update(1, largest), update(1, largest)].concat())
            .expect(Stream(1, &[FLOW_CONTROL_ERROR])),
        case("6.9.1 no more is sent than the window has").send([settings(&[(4, 1)]), asks(1)].concat()).expect(FirstData(1)),
        case("6.9.2 a window opened by SETTINGS").send([settings(&[(4, 0)]), asks(1), settings(&[(4, 3)])].concat()).expect(FirstData(3)),
        case("6.9.2 a window opened by WINDOW_UPDATE").send([settings(&[(4, 0)]), asks(1), update(1, 2)].concat()).expect(FirstData(2)),
        case("6.9.2 a negative window")
            .send([settings(&[(4, 3)]), posts(1), settings(&[(4, 0)]), update(1, 1), frame(DATA, END_STREAM, 1, b"x")].concat())
            .expect(FirstData(1)),
        case("6.9.2 SETTINGS make a stream's window overflow")
            .send([posts(1), update(1, largest - 65_535), settings(&[(4, 65_536)])].concat())
            .expect(Connection(&[FLOW_CONTROL_ERROR]))
            .disputed("6.9.2: a change to SETTINGS_INITIAL_WINDOW_SIZE that causes any flow-control window to exceed the maximum size"),
    ]
}
