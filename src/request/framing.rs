//! Where one request ends and the next begins (RFC 9112 section 6).
//!
//! hyper frames soundly by itself: with Transfer-Encoding it drops Content-Length and closes after the answer. But it drops silently, and merges
//! equal Content-Length fields silently, so what it hands over no longer shows that a request was meant to confuse. Hence two checks: `check` for
//! what is still visible in the head, and `Watch` on the bytes below hyper for what is not.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Version};

use super::Malformed;

/// A head's framing fields. An error is answered 400, and the connection closes.
pub fn check(version: Version, headers: &HeaderMap) -> Result<(), Malformed> {
    // RFC 9113 section 8.2.1: over HTTP/1 such space is no part of the value, and an app would read another value than the policy did.
    if version == Version::HTTP_2 && headers.values().any(|value| spaced(value.as_bytes())) {
        return Err(Malformed("a field's value begins or ends with a space or a tab"));
    }
    // Most requests have neither, and one pass to see that is cheaper than two look-ups.
    if !headers.keys().any(|name| *name == TRANSFER_ENCODING || *name == CONTENT_LENGTH) {
        return Ok(());
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    if let Some(coding) = codings.next() {
        if version != Version::HTTP_11 {
            return Err(Malformed("only HTTP/1.1 has Transfer-Encoding"));
        }
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(Malformed("the Transfer-Encoding is not a single `chunked`"));
        }
        if length.is_some() {
            return Err(Malformed("the request has both Content-Length and Transfer-Encoding"));
        }
    }
    if lengths.next().is_some() {
        return Err(Malformed("the request has two Content-Length fields"));
    }
    match length.map(|value| value.as_bytes()) {
        None => Ok(()),
        // 19 digits cannot overflow 64 bits.
        Some(digits) if (1..=19).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) => Ok(()),
        Some(_) => Err(Malformed("the Content-Length is not a number")),
    }
}

fn spaced(value: &[u8]) -> bool {
    matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t'])
}

/// Follows the bytes of one HTTP/1 connection from the client, below hyper, through any number of requests. A second framing field in one head
/// (Content-Length twice, or beside Transfer-Encoding) and a fragment in the target are spoilt in place, so that hyper itself answers 400 and
/// closes: that way order among pipelined requests needs no bookkeeping, and nothing behind the bad head is ever read as a request.
///
/// It never needs to be right about where a head begins for safety, hyper frames by its own reading; both agree on all that hyper accepts.
#[derive(Debug, Default)]
pub struct Watch {
    at: At,
    /// Framing fields of this head.
    length: Option<u64>,
    chunked: bool,
    /// The head asks to leave HTTP. What follows it may be of another protocol and passes as it is; the gate ends a connection that stays with HTTP.
    leaves: bool,
    /// The name of the field being read, as far as a framing field's name goes; of Upgrade, the value.
    name: [u8; NAME],
    named: usize,
}

/// Length of `transfer-encoding`.
const NAME: usize = 17;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// Blank lines before a request line are skipped.
    #[default]
    Start,
    Target,
    /// At the first byte of a field line.
    Line,
    /// `true`: a carriage return has been read at the line's start.
    LineReturn,
    Name,
    Other,
    Length,
    Coding,
    Upgrade,
    Body(u64),
    ChunkSize(u64),
    ChunkExtension(u64),
    Chunk(u64),
    ChunkEnd,
    Trailer {
        /// Nothing but the line's end has been read in this line.
        blank: bool,
        returned: bool,
    },
    /// hyper will refuse what came; nothing is left to watch.
    Lost,
}

/// What a field's name ends in: a byte that no field name may have.
const SPOILT: u8 = 0;

impl Watch {
    /// Looks at bytes just read, each once and in order, and spoils what must not pass.
    pub fn pass(&mut self, bytes: &mut [u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = self.step(rest).clamp(1, rest.len());
            rest = rest.split_at_mut(taken).1;
        }
    }

    /// Whether the last request was whole and no other has begun.
    pub fn is_between(&self) -> bool {
        self.at == At::Start
    }

    /// Reads on from a non-empty `rest`; how many bytes were read.
    fn step(&mut self, rest: &mut [u8]) -> usize {
        let all = rest.len();
        let Some(&first) = rest.first() else { return 0 };
        match self.at {
            At::Start => {
                if !matches!(first, b'\r' | b'\n') {
                    *self = Self { at: At::Target, ..Self::default() };
                    return self.step(rest);
                }
                1
            }
            At::Target => {
                let end = memchr::memchr(b'\n', rest);
                let line = rest.get_mut(..end.unwrap_or(all)).unwrap_or_default();
                // http::Uri drops a fragment silently: the policy would see another target than the client sent.
                if let Some(fragment) = memchr::memchr(b'#', line).and_then(|at| line.get_mut(at)) {
                    *fragment = SPOILT;
                    self.at = At::Lost;
                    return all;
                }
                end.map_or(all, |end| {
                    self.at = At::Line;
                    end + 1
                })
            }
            At::Line => match first {
                b'\n' => self.head_ends(),
                b'\r' => {
                    self.at = At::LineReturn;
                    1
                }
                // Nearly every head has a User-Agent, and that one is none of them.
                b'u' | b'U' if rest.get(1).is_some_and(|second| !matches!(second, b'p' | b'P')) => self.skip_line(rest, At::Line),
                b'c' | b'C' | b't' | b'T' | b'u' | b'U' => {
                    self.named = 0;
                    self.at = At::Name;
                    self.step(rest)
                }
                _ => self.skip_line(rest, At::Line),
            },
            At::LineReturn if first == b'\n' => self.head_ends(),
            At::LineReturn => self.lost(all),
            At::Name => self.name(rest),
            At::Other => self.skip_line(rest, At::Line),
            At::Length => {
                match first {
                    b'0'..=b'9' => {
                        let value = self.length.unwrap_or(0).checked_mul(10).and_then(|v| v.checked_add(u64::from(first - b'0')));
                        match value {
                            Some(value) => self.length = Some(value),
                            None => return self.lost(all),
                        }
                    }
                    b' ' | b'\t' | b'\r' => {}
                    b'\n' => self.at = At::Line,
                    _ => return self.lost(all),
                }
                1
            }
            // hyper refuses a coding that does not end in `chunked`; `check` refuses the rest.
            At::Coding => self.skip_line(rest, At::Line),
            At::Upgrade => {
                match first {
                    b'\n' => {
                        let offer = self.name.get(..self.named).unwrap_or_default().trim_ascii();
                        self.leaves |= !offer.eq_ignore_ascii_case(b"h2c");
                        self.at = At::Line;
                    }
                    byte => match self.name.get_mut(self.named) {
                        Some(slot) => {
                            *slot = byte;
                            self.named += 1;
                        }
                        None => {
                            self.leaves = true;
                            self.at = At::Other;
                        }
                    },
                }
                1
            }
            At::Body(left) => {
                let taken = left.min(all as u64);
                self.at = if taken == left { At::Start } else { At::Body(left - taken) };
                usize::try_from(taken).unwrap_or(all)
            }
            At::ChunkSize(size) => {
                let digit = match first {
                    b'0'..=b'9' => first - b'0',
                    b'a'..=b'f' => first - b'a' + 10,
                    b'A'..=b'F' => first - b'A' + 10,
                    _ => {
                        self.at = At::ChunkExtension(size);
                        return self.step(rest);
                    }
                };
                match size.checked_mul(16).and_then(|size| size.checked_add(u64::from(digit))) {
                    Some(size) => self.at = At::ChunkSize(size),
                    None => return self.lost(all),
                }
                1
            }
            At::ChunkExtension(size) => {
                let next = if size == 0 { At::Trailer { blank: true, returned: false } } else { At::Chunk(size) };
                self.skip_line(rest, next)
            }
            At::Chunk(left) => {
                let taken = left.min(all as u64);
                self.at = if taken == left { At::ChunkEnd } else { At::Chunk(left - taken) };
                usize::try_from(taken).unwrap_or(all)
            }
            At::ChunkEnd => self.skip_line(rest, At::ChunkSize(0)),
            // Strictly by CR LF, as hyper reads trailers.
            At::Trailer { blank, returned } => {
                self.at = match (first, returned) {
                    (b'\n', true) if blank => At::Start,
                    (b'\n', true) => At::Trailer { blank: true, returned: false },
                    (b'\r', _) => At::Trailer { blank, returned: true },
                    _ => At::Trailer { blank: false, returned: false },
                };
                1
            }
            At::Lost => all,
        }
    }

    fn name(&mut self, rest: &mut [u8]) -> usize {
        let mut taken = 0;
        for byte in rest {
            taken += 1;
            match *byte {
                b':' => {
                    let name = self.name.get(..self.named).unwrap_or_default();
                    let (length, coding) = (name == b"content-length", name == b"transfer-encoding");
                    if (length || coding) && (self.length.is_some() || self.chunked) {
                        *byte = SPOILT;
                        self.at = At::Lost;
                    } else if length {
                        self.length = Some(0);
                        self.at = At::Length;
                    } else if coding {
                        self.chunked = true;
                        self.at = At::Coding;
                    } else if name == b"upgrade" {
                        self.named = 0;
                        self.at = At::Upgrade;
                    } else {
                        self.at = At::Other;
                    }
                    return taken;
                }
                // hyper refuses a line without a colon.
                b'\n' => {
                    self.at = At::Line;
                    return taken;
                }
                byte => match self.name.get_mut(self.named) {
                    Some(slot) => {
                        *slot = byte.to_ascii_lowercase();
                        self.named += 1;
                    }
                    None => {
                        self.at = At::Other;
                        return taken;
                    }
                },
            }
        }
        taken
    }

    fn skip_line(&mut self, rest: &[u8], next: At) -> usize {
        match memchr::memchr(b'\n', rest) {
            Some(end) => {
                self.at = next;
                end + 1
            }
            None => {
                if self.at == At::Line {
                    self.at = At::Other;
                }
                rest.len()
            }
        }
    }

    fn head_ends(&mut self) -> usize {
        self.at = match (self.chunked, self.length) {
            _ if self.leaves => At::Lost,
            (true, _) => At::ChunkSize(0),
            (false, Some(length)) if length > 0 => At::Body(length),
            _ => At::Start,
        };
        1
    }

    fn lost(&mut self, all: usize) -> usize {
        self.at = At::Lost;
        all
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn checked(version: Version, fields: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        check(version, &headers).is_ok()
    }

    #[test]
    fn over_http2_no_value_has_space_around_it() {
        for (value, good) in [("a b\tc", true), ("", true), (" a", false), ("a ", false), ("\ta", false), ("a\t", false), (" ", false)] {
            assert_eq!(checked(Version::HTTP_2, &[("x", value)]), good, "{value:?}");
            assert!(checked(Version::HTTP_11, &[("x", value)]), "hyper has trimmed it already");
        }
    }

    #[test]
    fn only_a_single_chunked_or_a_single_number() {
        const TE: &str = "transfer-encoding";
        const CL: &str = "content-length";
        assert!(checked(Version::HTTP_11, &[]));
        assert!(checked(Version::HTTP_11, &[(TE, "Chunked")]));
        assert!(checked(Version::HTTP_11, &[(CL, "0")]));
        assert!(checked(Version::HTTP_2, &[(CL, "12")]));
        for wrong in ["gzip, chunked", "chunked, chunked", "identity", "chunked;q=1", "xchunked", ""] {
            assert!(!checked(Version::HTTP_11, &[(TE, wrong)]), "{wrong}");
        }
        assert!(!checked(Version::HTTP_11, &[(TE, "chunked"), (TE, "chunked")]));
        assert!(!checked(Version::HTTP_10, &[(TE, "chunked")]));
        assert!(!checked(Version::HTTP_2, &[(TE, "chunked")]));
        assert!(!checked(Version::HTTP_11, &[(TE, "chunked"), (CL, "1")]));
        assert!(!checked(Version::HTTP_11, &[(CL, "1"), (CL, "1")]));
        for wrong in ["", "+1", "-1", "1, 1", "0x1", "1 ", "99999999999999999999"] {
            assert!(!checked(Version::HTTP_11, &[(CL, wrong)]), "{wrong:?}");
        }
    }

    /// The bytes after the watch saw them in pieces of `size`.
    fn watched(text: &str, size: usize) -> Vec<u8> {
        let mut watch = Watch::default();
        let mut bytes = text.as_bytes().to_vec();
        for piece in bytes.chunks_mut(size) {
            watch.pass(piece);
        }
        bytes
    }

    #[test]
    fn a_second_framing_field_is_spoilt_however_the_bytes_arrive() {
        for text in [
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding:chunked\r\nCONTENT-LENGTH:5\r\n\r\n",
            "POST / HTTP/1.1\ncontent-length: 5\ncontent-length: 5\n\nhello",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n\n\nPOST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nA;x=y\r\n0\r\n\r\nGET /\r\n0\r\nT: 1\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        ] {
            for size in 1..=text.len() {
                let seen = watched(text, size);
                let spoilt: Vec<usize> =
                    seen.iter().zip(text.bytes()).enumerate().filter(|(_, (a, b))| **a != *b).map(|(at, _)| at).collect();
                let want = text.rfind("Content-Length: 1\r\n\r\n").map(|at| at + 14);
                assert_eq!(spoilt.len(), 1, "{text:?} in {size}");
                assert_eq!(seen[spoilt[0]], SPOILT);
                assert!(want.is_none_or(|want| spoilt == [want]), "{text:?} in {size}: {spoilt:?}");
            }
        }
    }

    #[test]
    fn sound_requests_and_all_bodies_pass_untouched() {
        let body = "Content-Length: 1\r\nContent-Length: 1\r\n\r\n#";
        let text = format!(
            "POST /a HTTP/1.1\r\nCookie: a=#\r\nContent-Type: x\r\nTE: trailers\r\ntraceparent: x\r\nContent-Length: {}\r\n\r\n{body}\
             POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n00;a=b\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            body.len(),
            body.len()
        );
        for size in 1..=text.len() {
            assert_eq!(watched(&text, size), text.as_bytes(), "in {size}");
        }
    }

    #[test]
    fn what_follows_an_upgrade_passes_as_it_is() {
        let behind = "GET /#a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n";
        let head = |fields: &str| format!("GET / HTTP/1.1\r\nuser-agent: a\r\nUpgrade-Insecure-Requests: 1\r\n{fields}\r\n{behind}");
        for leaves in [
            "Upgrade: websocket\r\n",
            "UPGRADE:h2c, websocket\r\n",
            "upgrade:\r\n",
            "upgrade: h2c\r\nupgrade: a-protocol-with-a-long-name\r\n",
        ] {
            let text = head(leaves);
            for size in 1..=text.len() {
                assert_eq!(watched(&text, size), text.as_bytes(), "{leaves:?} in {size}");
            }
        }
        for stays in ["", "Upgrade: h2c\r\n", "upgrade:\tH2C \r\n", "upgraded: websocket\r\n"] {
            let text = head(stays);
            for size in 1..=text.len() {
                assert_ne!(watched(&text, size), text.as_bytes(), "{stays:?} in {size}");
            }
        }
    }

    #[test]
    fn a_line_without_a_colon_is_a_line_however_the_bytes_arrive() {
        for text in ["f\nU@\n\n", "f\nup\n\n", "f\nc\r\n\n"] {
            for size in 1..=text.len() {
                let mut watch = Watch::default();
                text.as_bytes().to_vec().chunks_mut(size).for_each(|piece| watch.pass(piece));
                assert!(watch.is_between(), "{text:?} in {size}");
            }
        }
    }

    #[test]
    fn knows_when_a_request_is_whole() {
        for text in [
            "GET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        ] {
            for end in 0..=text.len() {
                let mut watch = Watch::default();
                watch.pass(&mut text.as_bytes()[..end].to_vec());
                assert_eq!(watch.is_between(), end == 0 || end == text.len(), "{:?}", &text[..end]);
            }
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_every_split_sees_the_same(
            text in "(GET /[#a]? HTTP/1.1\r\n|Content-Length: [0-9]{1,2}\r\n|transfer-encoding: chunked\r\n|[0-9a-f]{1,2}\r\n|\r\n|\n|[a-z:]{1,20}){0,12}",
            size in 1usize..40,
        ) {
            prop_assert_eq!(watched(&text, size), watched(&text, text.len().max(1)));
        }
    }
}
