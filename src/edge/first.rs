//! The first bytes of a connection above TLS, until they have shown what they can.

use std::rc::Rc;

use super::{Edge, Layer};
use crate::fingerprint::order::{self, Version};
use crate::fingerprint::{Malformed, h2};
use crate::gate::Conn;
use crate::model::Opening;

/// How much of a connection is looked at. Ordinary first requests are far smaller; one that is larger has no opening.
const MOST: usize = 16 << 10;

/// Sees a connection's first request below HTTP, tells the connection what it showed, and counts that once.
#[derive(Debug)]
pub struct First {
    edge: Rc<Edge>,
    conn: Rc<Conn>,
    bytes: Bytes,
    /// `None` until it is known; the connection may end before.
    seen: Option<Seen>,
}

impl First {
    pub fn http1(edge: &Rc<Edge>, conn: &Rc<Conn>) -> Self {
        Self { edge: Rc::clone(edge), conn: Rc::clone(conn), bytes: Bytes::http1(), seen: None }
    }

    pub fn http2(edge: &Rc<Edge>, conn: &Rc<Conn>) -> Self {
        Self { edge: Rc::clone(edge), conn: Rc::clone(conn), bytes: Bytes::http2(), seen: None }
    }

    /// Looks at bytes just read, each once and in order. Whether more are wanted; else this is of no more use.
    #[must_use]
    pub fn wants_more(&mut self, new: &[u8]) -> bool {
        self.seen = self.bytes.read(new);
        if let Some(Seen::Whole(opening)) = &mut self.seen {
            self.conn.opened(std::mem::take(opening));
        }
        self.seen.is_none()
    }
}

impl Drop for First {
    fn drop(&mut self) {
        let count = |layer: &Layer| match self.seen {
            Some(Seen::Whole(_)) => layer.read.add(1),
            Some(Seen::Malformed) => layer.malformed.add(1),
            Some(Seen::TooLarge) | None => layer.unavailable.add(1),
        };
        let counts = &self.edge.counts;
        count(&counts.headers);
        match self.bytes.reader {
            Reader::Http1(_) => counts.h2.unavailable.add(1),
            Reader::Http2(_) => count(&counts.h2),
        }
    }
}

/// What the first bytes came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Whole(Opening),
    Malformed,
    TooLarge,
}

/// A connection's bytes above TLS, from the first on.
#[derive(Debug)]
pub struct Bytes {
    reader: Reader,
    /// All so far, unless the first to come were enough. There are credentials among them: they go as soon as they are read.
    held: Vec<u8>,
}

#[derive(Debug)]
enum Reader {
    Http1(order::Arriving),
    Http2(Box<h2::Arriving>),
}

impl Bytes {
    pub fn http1() -> Self {
        Self { reader: Reader::Http1(order::Arriving::default()), held: Vec::new() }
    }

    pub fn http2() -> Self {
        Self { reader: Reader::Http2(Box::default()), held: Vec::new() }
    }

    /// Looks at bytes just read, each once and in order. `None`: more are wanted; else this is of no more use.
    pub fn read(&mut self, new: &[u8]) -> Option<Seen> {
        let room = MOST.saturating_sub(self.held.len());
        let new = new.get(..room).unwrap_or(new);
        if !self.held.is_empty() {
            self.held.extend_from_slice(new);
        }
        let all = if self.held.is_empty() { new } else { &self.held };
        match self.reader.read(all) {
            Ok(Some(opening)) => Some(Seen::Whole(opening)),
            Ok(None) if all.len() >= MOST => Some(Seen::TooLarge),
            Ok(None) => {
                if self.held.is_empty() {
                    self.held.extend_from_slice(new);
                }
                None
            }
            Err(_) => Some(Seen::Malformed),
        }
    }
}

impl Reader {
    fn read(&mut self, bytes: &[u8]) -> Result<Option<Opening>, Malformed> {
        Ok(match self {
            Self::Http1(head) => head.read(bytes)?.map(|names| Opening { h2: None, header_order: Some(names.order(Version::Http1)) }),
            Self::Http2(frames) => frames.read(bytes)?.map(|opened| {
                let header_order = opened.names.order(Version::Http2);
                Opening { h2: Some(opened.opening), header_order: Some(header_order) }
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    /// Empty SETTINGS, then HEADERS with `:method: GET`.
    const FRAMES: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x05\0\0\0\x01\x82";

    fn read(mut bytes: Bytes, all: &[u8], size: usize) -> Option<Seen> {
        let seen = all.chunks(size).find_map(|part| bytes.read(part));
        assert!(bytes.held.len() <= MOST);
        seen
    }

    #[test]
    fn the_same_is_seen_however_the_bytes_come() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: secret\r\n\r\nbody";
        let frames = [PREFACE, FRAMES, FRAMES].concat();
        let order = read(Bytes::http1(), head, 1000);
        let opening = read(Bytes::http2(), &frames, 1000);
        assert!(matches!(&order, Some(Seen::Whole(Opening { h2: None, header_order: Some(_) }))), "{order:?}");
        assert!(matches!(&opening, Some(Seen::Whole(Opening { h2: Some(h2), .. })) if &**h2 == "|00|0|m"), "{opening:?}");
        for size in 1..60 {
            assert_eq!(read(Bytes::http1(), head, size), order, "{size}");
            assert_eq!(read(Bytes::http2(), &frames, size), opening, "{size}");
        }
        assert_eq!(read(Bytes::http1(), &head[..head.len() - 5], 7), None);
        assert_eq!(read(Bytes::http2(), &frames[..frames.len() - FRAMES.len() - 1], 7), None);
    }

    #[test]
    fn no_more_than_the_most_is_looked_at_or_held() {
        let head = |length: usize| format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(length - 23)).into_bytes();
        let ping = [&b"\0\0\x08\x06\0\0\0\0\0"[..], &[1; 8]].concat();
        let frames = |pings: usize| [PREFACE, &ping.repeat(pings), FRAMES].concat();
        for size in [1, 100, MOST - 1, MOST, 1 << 20] {
            assert_eq!(head(MOST).len(), MOST);
            assert!(matches!(read(Bytes::http1(), &head(MOST), size), Some(Seen::Whole(_))), "{size}");
            assert_eq!(read(Bytes::http1(), &head(MOST + 1), size), Some(Seen::TooLarge), "{size}");
            assert!(matches!(read(Bytes::http2(), &frames(900), size), Some(Seen::Whole(_))), "{size}");
            assert_eq!(read(Bytes::http2(), &frames(1000), size), Some(Seen::TooLarge), "{size}");
        }
    }

    #[test]
    fn what_is_no_request_is_malformed() {
        assert_eq!(read(Bytes::http2(), b"GET / HTTP/1.1\r\n", 3), Some(Seen::Malformed));
        assert_eq!(read(Bytes::http1(), &[PREFACE, FRAMES].concat(), 3), Some(Seen::Malformed));
        assert_eq!(read(Bytes::http1(), b"GET /\r\nnonsense\r\n\r\n", 2), Some(Seen::Malformed));
    }
}
