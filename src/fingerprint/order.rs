//! The order and case of a request's fields: what the program that wrote it has a habit of.
//!
//! One word of 18 characters, of `a-z`, `0-9` and `_` (the notation is ours, the *header order*):
//!
//! ```text
//! h1t03_fe444ad14866
//! | ||  first 12 hex digits of SHA-256 of the names, as sent and in the order sent, joined by commas; no names: twelve zeros
//! | |how many names, two digits; above 99 prints 99
//! | case: `l` all lower, `t` each word of each name begins with the only capital (User-Agent), `m` mixed
//! HTTP/1 or HTTP/2 (where names are lower case by rule, and pseudo-header fields are the opening's)
//! ```
//!
//! Values never enter it. Nor do names that come and go with what one client happens to ask for: credentials, what a body needs,
//! conditions, the page it came from, a reload, and client hints that are sent only where asked for ([`PASSING`]). So one client has few
//! orders, not one: a page, an image and a script differ. The first [`MOST`] names count, and the first [`LONGEST`] bytes of each.

use smallvec::SmallVec;

use super::Malformed;
use super::ja4::{hash, two_digits};

/// Fields that are looked at. The proxy takes 100 by default.
pub const MOST: usize = 100;
/// Bytes of a name that are looked at.
pub const LONGEST: usize = 64;

/// The names that are left out.
pub const PASSING: [&str; 28] = [
    "authorization",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "origin",
    "pragma",
    "proxy-authorization",
    "range",
    "referer",
    "sec-ch-ua-arch",
    "sec-ch-ua-bitness",
    "sec-ch-ua-form-factors",
    "sec-ch-ua-full-version",
    "sec-ch-ua-full-version-list",
    "sec-ch-ua-model",
    "sec-ch-ua-platform-version",
    "sec-ch-ua-wow64",
    "sec-fetch-user",
    "trailer",
    "transfer-encoding",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http1,
    Http2,
}

/// Names of fields in the order in which they came, never more than the caps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    text: SmallVec<[u8; 512]>,
    /// Where each name begins and ends in `text`. Fields that repeat a name share its bytes.
    spans: SmallVec<[(u16, u16); 32]>,
}

impl Names {
    pub(super) fn is_full(&self) -> bool {
        self.spans.len() >= MOST
    }

    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    pub(super) fn begin(&mut self) {
        // `MOST` names of `LONGEST` bytes are far below what 16 bits hold.
        let end = u16::try_from(self.text.len()).unwrap_or(u16::MAX);
        self.spans.push((end, end));
    }

    /// Adds to the name that was begun last.
    pub(super) fn push(&mut self, byte: u8) {
        if let Some((start, end)) = self.spans.last_mut()
            && usize::from(*end - *start) < LONGEST
        {
            self.text.push(byte);
            *end += 1;
        }
    }

    /// Adds a field with the name of an earlier one.
    pub(super) fn repeat(&mut self, field: usize) {
        self.spans.extend(self.spans.get(field).copied());
    }

    /// All of them, pseudo-header fields among them.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.spans.iter().map(|span| self.at(*span))
    }

    fn at(&self, (start, end): (u16, u16)) -> &[u8] {
        self.text.get(usize::from(start)..usize::from(end)).unwrap_or_default()
    }

    fn lasting(&self) -> impl Iterator<Item = &[u8]> {
        self.iter().filter(|name| !name.starts_with(b":") && !PASSING.iter().any(|passing| name.eq_ignore_ascii_case(passing.as_bytes())))
    }

    /// The header order.
    pub fn order(&self, version: Version) -> Box<str> {
        let mut text: SmallVec<[u8; 512]> = SmallVec::new();
        let (mut count, mut lower, mut title) = (0, true, true);
        for name in self.lasting() {
            if count > 0 {
                text.push(b',');
            }
            text.extend_from_slice(name);
            count += 1;
            lower &= !name.iter().any(u8::is_ascii_uppercase);
            title &= is_title(name);
        }
        let mut out = String::with_capacity(18);
        out.push_str(match version {
            Version::Http1 => "h1",
            Version::Http2 => "h2",
        });
        out.push(match (lower, title) {
            (true, _) => 'l',
            (false, true) => 't',
            (false, false) => 'm',
        });
        out.extend(two_digits(count).map(char::from));
        out.push('_');
        out.extend(hash(&text).map(char::from));
        out.into_boxed_str()
    }

    /// What is hashed: it is how people argue about a value. Bytes that no name may have are shown as `?`.
    pub fn order_r(&self) -> String {
        let mut out = String::new();
        for name in self.lasting() {
            if !out.is_empty() {
                out.push(',');
            }
            out.extend(name.iter().map(|&byte| if byte.is_ascii_graphic() { char::from(byte) } else { '?' }));
        }
        out
    }
}

fn is_title(name: &[u8]) -> bool {
    name.split(|&byte| byte == b'-').all(|word| match word.split_first() {
        Some((first, rest)) => !first.is_ascii_lowercase() && !rest.iter().any(u8::is_ascii_uppercase),
        None => true,
    })
}

/// An HTTP/1 head on its way.
#[derive(Debug, Default)]
pub struct Arriving {
    /// Where the line begins whose end has not come.
    line: usize,
    searched: usize,
    /// A line that is not blank has come: the request line.
    begun: bool,
}

impl Arriving {
    /// To be called each time more bytes have come: `bytes` are all of them, from the connection's first on. `None` until the head is whole;
    /// how many bytes may come at most is the caller's limit.
    ///
    /// # Errors
    /// What comes is no head of fields.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<Names>, Malformed> {
        while let Some(length) = memchr::memchr(b'\n', bytes.get(self.searched..).unwrap_or_default()) {
            let end = self.searched + length;
            let blank = matches!(bytes.get(self.line..end), Some([] | [b'\r']));
            (self.line, self.searched) = (end + 1, end + 1);
            // Blank lines before the request line are skipped (RFC 9112 section 2.2).
            if blank && self.begun {
                return names(bytes.get(..end).unwrap_or_default()).map(Some);
            }
            self.begun |= !blank;
        }
        self.searched = bytes.len();
        Ok(None)
    }
}

/// The names in a head up to its last, blank line.
fn names(head: &[u8]) -> Result<Names, Malformed> {
    let mut names = Names::default();
    let mut lines = head.split(|&byte| byte == b'\n').skip_while(|line| matches!(line, [] | [b'\r']));
    // RFC 9112 section 3; the rest of the line is the parser's to judge.
    let request = lines.next().unwrap_or_default();
    if ![&b" HTTP/1.1"[..], b" HTTP/1.0"].iter().any(|end| request.strip_suffix(b"\r").unwrap_or(request).ends_with(end)) {
        return Err(Malformed("request_line"));
    }
    for line in lines.take_while(|line| !matches!(line, [] | [b'\r'])) {
        // A line that goes on with the value before it (RFC 9112 section 5.2).
        if matches!(line, [b' ' | b'\t', ..]) {
            continue;
        }
        let name = memchr::memchr(b':', line).and_then(|colon| line.get(..colon)).filter(|name| !name.is_empty());
        let name = name.ok_or(Malformed("field_name"))?;
        if names.is_full() {
            break;
        }
        names.begin();
        name.iter().for_each(|&byte| names.push(byte));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn read(head: &str) -> Names {
        Arriving::default().read(head.as_bytes()).unwrap().unwrap()
    }

    fn order(head: &str) -> String {
        read(head).order(Version::Http1).into_string()
    }

    /// The digits are those of `printf 'Host,User-Agent,Accept' | sha256sum`.
    #[test]
    fn the_documented_form() {
        let names = read("GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: curl\r\nAccept: */*\r\n\r\n");
        assert_eq!(names.order_r(), "Host,User-Agent,Accept");
        assert_eq!(&*names.order(Version::Http1), "h1t03_fe444ad14866");
        assert_eq!(order("GET / HTTP/1.1\r\n\r\n"), "h1l00_000000000000");
    }

    #[test]
    fn order_and_case_matter_and_values_do_not() {
        let as_sent = order("GET / HTTP/1.1\r\nHost: a\r\nAccept: b\r\n\r\n");
        assert_eq!(order("POST /x HTTP/1.0\nHost:\nAccept:c:d\n\n"), as_sent, "another value, line end and request line");
        assert_eq!(order("\r\n\nGET / HTTP/1.1\r\nHost: a\r\n folded: x\r\nAccept: b\r\n\r\nCookie-Of: a body"), as_sent);
        for other in ["Accept: b\r\nHost: a", "host: a\r\naccept: b", "Host: a\r\naccept: b", "Host: a\r\nAccept: b\r\nDNT: 1"] {
            assert_ne!(order(&format!("GET / HTTP/1.1\r\n{other}\r\n\r\n")), as_sent, "{other}");
        }
        let names = read("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_ne!(names.order(Version::Http1), names.order(Version::Http2));
    }

    #[test]
    fn case_has_a_letter() {
        let letter = |fields: &str| order(&format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n")).as_bytes()[2];
        assert_eq!(letter("host: a\r\nuser-agent: b"), b'l');
        assert_eq!(letter("Host: a\r\nUser-Agent: b\r\nX-2: c"), b't');
        assert_eq!(letter("Host: a\r\nsec-ch-ua: b"), b'm');
        assert_eq!(letter("Host: a\r\nDNT: 1"), b'm');
        assert_eq!(letter("Host: a\r\nUser-agent: b"), b'm');
    }

    #[test]
    fn what_one_client_sends_now_and_then_does_not_count() {
        let without = order("GET / HTTP/1.1\r\nHost: a\r\nAccept: b\r\n\r\n");
        for name in PASSING {
            for name in [name.to_owned(), name.to_ascii_uppercase()] {
                assert_eq!(order(&format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: x\r\nAccept: b\r\n\r\n")), without, "{name}");
            }
        }
        assert!(PASSING.is_sorted());
    }

    #[test]
    fn caps() {
        let head = |fields: usize| {
            let lines: String = (0..fields).map(|at| format!("x-{at}: 1\r\n")).collect();
            order(&format!("GET / HTTP/1.1\r\n{lines}\r\n"))
        };
        assert_ne!(head(MOST), head(MOST - 1));
        assert_eq!(head(MOST), head(MOST + 1));
        assert_eq!(&head(MOST)[..6], "h1l99_");
        let long = |length: usize| order(&format!("GET / HTTP/1.1\r\n{}: 1\r\n\r\n", "a".repeat(length)));
        assert_ne!(long(LONGEST), long(LONGEST - 1));
        assert_eq!(long(LONGEST), long(LONGEST + 1));
    }

    #[test]
    fn what_is_no_head_is_malformed() {
        for fields in ["Host", "Host: a\r\nnonsense", ": a"] {
            let head = format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n");
            assert_eq!(Arriving::default().read(head.as_bytes()), Err(Malformed("field_name")), "{fields}");
        }
        for head in ["GET /\r\nHost: a\r\n\r\n", "PRI * HTTP/2.0\r\n\r\n", "\x16\x03\x01\n\n"] {
            assert_eq!(Arriving::default().read(head.as_bytes()), Err(Malformed("request_line")), "{head:?}");
        }
    }

    #[test]
    fn every_prefix_waits_for_the_rest_however_it_comes() {
        let head = b"\r\n\nGET / HTTP/1.1\r\nHost: a\r\nAccept: b\n\r\n";
        let whole = Arriving::default().read(head).unwrap();
        let mut one_by_one = Arriving::default();
        for end in 0..head.len() {
            assert_eq!(Arriving::default().read(&head[..end]), Ok(None), "{end}");
            assert_eq!(one_by_one.read(&head[..end]), Ok(None), "{end}");
        }
        assert_eq!(one_by_one.read(head).unwrap(), whole);
        assert_eq!(whole.unwrap().len(), 2);
    }
}
