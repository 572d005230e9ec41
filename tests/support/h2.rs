//! HTTP/2 by hand: any frame, also those that no client library would send.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use vestibule::cli::lab_ca::Issued;

use super::{Lab, Proxy, RawTls};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const WITH_PRIORITY: u8 = 0x20;
pub const ACK: u8 = 1;

/// A connection whose preface and settings have been sent.
pub struct H2 {
    tls: RawTls,
    got: Vec<u8>,
    next: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// What comes next from the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Frame(Frame),
    Closed,
    /// Nothing within the time to wait.
    Silence,
}

/// What came of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// 0: no head.
    pub status: u16,
    pub body: Vec<u8>,
    /// The stream ended as it should.
    pub whole: bool,
    /// The code of its RST_STREAM.
    pub reset: Option<u32>,
    /// The code of a GOAWAY that came meanwhile.
    pub goaway: Option<u32>,
}

impl H2 {
    /// To the listener `edge`, asking for `name`. The proxy may not use a dynamic table, so that heads are easy to read.
    pub fn connect(proxy: &Proxy, lab: &Lab, name: &str, device: Option<&Issued>) -> Self {
        // HEADER_TABLE_SIZE 0.
        Self::with_settings(proxy, lab, (name, device), &[(1, 0)])
    }

    pub fn with_settings(proxy: &Proxy, lab: &Lab, (name, device): (&str, Option<&Issued>), settings: &[(u16, u32)]) -> Self {
        let mut h2 = Self::over(RawTls::with_alpn(proxy.addr("edge"), lab, (name, "h2"), device));
        h2.write(&[PREFACE, &self::settings(settings)].concat());
        h2
    }

    /// A connection on which nothing has been sent yet, not even the preface.
    pub fn over(tls: RawTls) -> Self {
        Self { tls, got: Vec::new(), next: 1 }
    }

    /// How long `next` waits for a frame, and `read` before it panics.
    pub fn patience(&self, wait: Duration) {
        self.tls.stream.sock.set_read_timeout(Some(wait)).unwrap();
    }

    /// Whether the proxy still takes bytes.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        self.tls.stream.write_all(bytes).and_then(|()| self.tls.stream.flush()).is_ok()
    }

    /// Opens a stream with a head that may have no end of its stream.
    pub fn open(&mut self, fields: &[(&str, &str)], ends: bool) -> u32 {
        let stream = self.next;
        self.next += 2;
        let flags = if ends { END_HEADERS | END_STREAM } else { END_HEADERS };
        self.write(&frame(HEADERS, flags, stream, &block(fields)));
        stream
    }

    pub fn ask(&mut self, fields: &[(&str, &str)]) -> Outcome {
        let stream = self.open(fields, true);
        self.outcome(stream)
    }

    pub fn get(&mut self, authority: &str, path: &str) -> Outcome {
        self.ask(&get(authority, path))
    }

    /// The next frame; `None`: the proxy closed. Settings are acknowledged.
    pub fn read(&mut self) -> Option<Frame> {
        match self.next() {
            Next::Frame(frame) => Some(frame),
            Next::Closed => None,
            Next::Silence => panic!("the proxy neither answers nor closes"),
        }
    }

    /// What comes next. Settings are acknowledged.
    pub fn next(&mut self) -> Next {
        loop {
            if let Some(frame) = self.parse() {
                if frame.kind == SETTINGS && frame.flags & ACK == 0 {
                    self.write(&self::frame(SETTINGS, ACK, 0, b""));
                }
                return Next::Frame(frame);
            }
            let mut part = [0; 16 * 1024];
            match self.tls.stream.read(&mut part) {
                Ok(0) => return Next::Closed,
                Ok(n) => self.got.extend_from_slice(&part[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Next::Silence,
                Err(_) => return Next::Closed,
            }
        }
    }

    fn parse(&mut self) -> Option<Frame> {
        let head = self.got.get(..9)?;
        let size = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        if self.got.len() < 9 + size {
            return None;
        }
        let payload = self.got.drain(..9 + size).skip(9).collect();
        Some(Frame { kind, flags, stream, payload })
    }

    /// Reads until the stream, or the connection, is over.
    pub fn outcome(&mut self, stream: u32) -> Outcome {
        let mut outcome = Outcome::default();
        while let Some(frame) = self.read() {
            match frame.kind {
                GOAWAY => outcome.goaway = frame.payload.get(4..8).map(code),
                HEADERS if frame.stream == stream && outcome.status < 200 => outcome.status = status(&frame.payload),
                DATA if frame.stream == stream => outcome.body.extend(&frame.payload),
                RST_STREAM if frame.stream == stream => {
                    outcome.reset = Some(code(&frame.payload));
                    return outcome;
                }
                _ => continue,
            }
            if frame.stream == stream && frame.flags & END_STREAM != 0 {
                outcome.whole = true;
                return outcome;
            }
        }
        outcome
    }

    /// Closes this side and reads until the proxy has closed too.
    pub fn leave(&mut self) {
        self.tls.stream.conn.send_close_notify();
        let _ = self.tls.stream.flush();
        while self.read().is_some() {}
    }

    /// Reads until the proxy closes; the code of its GOAWAY.
    pub fn until_closed(&mut self) -> Option<u32> {
        let mut last = None;
        while let Some(frame) = self.read() {
            if frame.kind == GOAWAY {
                last = frame.payload.get(4..8).map(code);
            }
        }
        last
    }
}

pub fn code(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().unwrap())
}

pub fn get<'a>(authority: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![(":method", "GET"), (":scheme", "https"), (":authority", authority), (":path", path)]
}

pub fn post<'a>(authority: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![(":method", "POST"), (":scheme", "https"), (":authority", authority), (":path", path)]
}

/// A SETTINGS frame of these values.
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = values.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(SETTINGS, 0, 0, &payload)
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&size[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// RFC 7541 section 6.2.2: every field a literal with its name, no index, no Huffman code.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        text(name.as_bytes(), &mut out);
        text(value.as_bytes(), &mut out);
    }
    out
}

fn text(bytes: &[u8], out: &mut Vec<u8>) {
    integer(bytes.len(), 127, out);
    out.extend(bytes);
}

/// RFC 7541 section 5.1.
fn integer(mut value: usize, most: u8, out: &mut Vec<u8>) {
    if value < usize::from(most) {
        return out.push(u8::try_from(value).unwrap());
    }
    out.push(most);
    value -= usize::from(most);
    while value >= 128 {
        out.push(u8::try_from(value & 0x7f | 0x80).unwrap());
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}

/// The `:status` of a head, which comes first.
pub fn status(block: &[u8]) -> u16 {
    let mut block = block;
    while let [0x20..=0x3f, rest @ ..] = block {
        block = rest;
    }
    match block {
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        [0x08 | 0x18 | 0x48, 0x03, digits @ ..] => std::str::from_utf8(&digits[..3]).unwrap().parse().unwrap(),
        [0x08 | 0x18 | 0x48, length @ 0x81..=0x84, coded @ ..] => huffman_digits(&coded[..usize::from(length & 0x7f)]),
        other => panic!("not a status: {other:x?}"),
    }
}

/// RFC 7541 appendix B: `0`, `1`, `2` have five bits, 0 to 2; the other digits six, 0x19 to 0x1f.
fn huffman_digits(coded: &[u8]) -> u16 {
    let bits: Vec<u16> = coded.iter().flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1))).collect();
    let mut at = 0;
    let mut take = |n: usize| {
        let value = bits[at..at + n].iter().fold(0, |value, bit| value << 1 | bit);
        at += n;
        value
    };
    let mut number = 0;
    for _ in 0..3 {
        let five = take(5);
        let digit = if five <= 2 { five } else { (five << 1 | take(1)) - 0x19 + 3 };
        number = number * 10 + digit;
    }
    number
}
