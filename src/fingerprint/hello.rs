//! The TLS ClientHello, read from the bytes of a connection as they come (RFC 8446 sections 4.1.2 and 5.1).
//!
//! rustls shows neither the list of extensions nor its order, so the bytes are recorded below it and read here. The same
//! hello gives the same facts however it is cut into segments and records.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::Malformed;
use super::reader::{Reader, u24};
use crate::model::Traits;

/// How far the first bytes of a connection have told what they are.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "moved once per connection; a box would cost an allocation")]
pub enum Progress {
    /// A ClientHello so far, not yet whole. Call again with more bytes; how many may come at most is the caller's limit.
    NeedMore,
    /// The connection's first ClientHello. Bytes after it are not looked at.
    Hello(Hello),
    /// Not TLS: another protocol, an SSLv2 hello, or a TLS record that does not open a handshake.
    NotTls,
    /// TLS whose framing is broken; the name of the field that was being read.
    Malformed(&'static str),
}

/// Reads the first ClientHello from `bytes`, the raw TLS records of a connection from its first byte on. It allocates for the
/// server's name, and to put a hello together that spans records.
pub fn read(bytes: &[u8]) -> Progress {
    Arriving::default().read(bytes)
}

/// A hello on its way: remembers which records were walked already, so that a peer who sends a hello in one-byte records, one byte
/// at a time, costs no more than one look at each.
#[derive(Debug, Default)]
pub struct Arriving {
    /// Where the first record begins that has not come whole.
    next_record: usize,
    /// Bytes of the message in the records before it.
    have: usize,
}

impl Arriving {
    /// As [`read`], to be called each time more bytes have come: `bytes` are all of them, from the connection's first on.
    pub fn read(&mut self, bytes: &[u8]) -> Progress {
        match self.first_message(bytes) {
            Ok(message) => match client_hello(&message) {
                Ok(hello) => Progress::Hello(hello),
                Err(Malformed(field)) => Progress::Malformed(field),
            },
            Err(Stop::NeedMore) => Progress::NeedMore,
            Err(Stop::NotTls) => Progress::NotTls,
            Err(Stop::Malformed(field)) => Progress::Malformed(field),
        }
    }

    /// The first handshake message with its header: borrowed when one record holds it, else put together.
    fn first_message<'a>(&mut self, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, Stop> {
        let length = message_length(bytes)?;
        // Record headers only add to it, so most early calls end here.
        if bytes.len() < RECORD_HEADER + length {
            return Err(Stop::NeedMore);
        }
        let mut fragments = Fragments::new(bytes, self.next_record);
        loop {
            let fragment = fragments.next()?;
            let have = self.have + fragment.bytes.len();
            if have >= length {
                break;
            }
            if !fragment.whole {
                return Err(Stop::NeedMore);
            }
            (self.have, self.next_record) = (have, fragments.at());
        }
        let mut fragments = Fragments::new(bytes, 0);
        let first = fragments.next()?.bytes;
        if let Some(message) = first.get(..length) {
            return Ok(Cow::Borrowed(message));
        }
        let mut message = Vec::with_capacity(length);
        message.extend_from_slice(first);
        while message.len() < length {
            message.extend(fragments.next()?.bytes.iter().take(length - message.len()));
        }
        Ok(Cow::Owned(message))
    }
}

/// How long the hello says it is, in bytes, record headers left out; `None` while that has not come. A caller with a limit need not wait for the rest.
pub fn length(bytes: &[u8]) -> Option<usize> {
    message_length(bytes).ok()
}

/// What JA4 and JA3 need of a ClientHello: GREASE (RFC 8701) left out, everything else in wire order, duplicates kept.
///
/// An extension whose inside cannot be read counts as present and says nothing more: the hello still has a fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The highest of supported_versions, else the hello's legacy version.
    pub(super) version: u16,
    pub(super) legacy_version: u16,
    pub(super) has_sni: bool,
    sni: Option<Box<str>>,
    /// First and last character of the first ALPN value, as JA4 prints them.
    pub(super) alpn: [u8; 2],
    pub(super) ciphers: Codes,
    pub(super) extensions: Codes,
    /// Of extension 13 alone.
    pub(super) algorithms: Codes,
    pub(super) groups: Codes,
    grease: bool,
    pub(super) point_formats: SmallVec<[u8; 8]>,
}

/// Inline for every client measured (Node has 59 cipher suites); longer lists go to the heap.
pub(super) type Codes = SmallVec<[u16; 64]>;

impl Hello {
    /// The server name as sent (RFC 6066 section 3): visible ASCII, at most 255 bytes; `None` when absent or anything else.
    pub fn sni(&self) -> Option<&str> {
        self.sni.as_deref()
    }

    /// What the table of known signatures reads beside the JA4.
    pub fn traits(&self) -> Traits {
        Traits::new([&self.ciphers, &self.extensions, &self.algorithms, &self.groups], self.grease)
    }
}

enum Stop {
    NeedMore,
    NotTls,
    Malformed(&'static str),
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;
/// RFC 8446 section 5.1.
const LONGEST_FRAGMENT: usize = 1 << 14;

/// The length of the first handshake message, its header included, which itself may be spread over records.
fn message_length(bytes: &[u8]) -> Result<usize, Stop> {
    let mut header = [0; MESSAGE_HEADER];
    let mut slots = header.iter_mut();
    let mut fragments = Fragments::new(bytes, 0);
    let mut first = true;
    loop {
        for &byte in fragments.next()?.bytes {
            if first && byte != CLIENT_HELLO {
                return Err(Stop::Malformed("handshake_type"));
            }
            first = false;
            match slots.next() {
                Some(slot) => *slot = byte,
                None => break,
            }
        }
        if slots.len() == 0 {
            let [_, length @ ..] = header;
            return Ok(MESSAGE_HEADER + u24(length));
        }
    }
}

/// The insides of handshake records, one after another.
struct Fragments<'a> {
    all: usize,
    left: Reader<'a>,
}

/// Never empty, but cut (not `whole`) where the record has not come to its end.
struct Fragment<'a> {
    bytes: &'a [u8],
    whole: bool,
}

impl<'a> Fragments<'a> {
    /// From the record on that begins at `at`.
    fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { all: bytes.len(), left: Reader::new(bytes.get(at..).unwrap_or_default()) }
    }

    /// Where the next record begins.
    const fn at(&self) -> usize {
        self.all - self.left.len()
    }

    /// What is not a handshake record is said as early as its first byte shows it.
    fn next(&mut self) -> Result<Fragment<'a>, Stop> {
        let first = self.at() == 0;
        let mut header = Reader::new(self.left.up_to(RECORD_HEADER));
        let kind = header.byte("").map_err(|_| Stop::NeedMore)?;
        if kind != HANDSHAKE {
            return Err(if first { Stop::NotTls } else { Stop::Malformed("record_type") });
        }
        // Only the major version is looked at: the record's version says nothing (RFC 8446 section 5.1).
        let major = header.byte("").map_err(|_| Stop::NeedMore)?;
        if major != 3 {
            return Err(if first { Stop::NotTls } else { Stop::Malformed("record_version") });
        }
        let length = header.byte("").and_then(|_| header.u16("")).map_err(|_| Stop::NeedMore)?;
        let length = usize::from(length);
        // Empty handshake fragments are forbidden; a stream of them would be bytes without progress.
        if length == 0 || length > LONGEST_FRAGMENT {
            return Err(Stop::Malformed("record_length"));
        }
        let bytes = self.left.up_to(length);
        if bytes.is_empty() { Err(Stop::NeedMore) } else { Ok(Fragment { bytes, whole: bytes.len() == length }) }
    }
}

/// RFC 8446 section 4.1.2. The framing must be whole; the insides of extensions need not be.
fn client_hello(message: &[u8]) -> Result<Hello, Malformed> {
    let mut message = Reader::new(message);
    message.byte("handshake_type")?;
    let mut body = message.block_u24("client_hello")?;
    message.end("client_hello")?;

    let legacy_version = body.u16("legacy_version")?;
    body.take(32, "random")?;
    body.block_u8("session_id")?;
    let mut ciphers = body.block_u16("cipher_suites")?;
    let suites = ciphers.len() / 2;
    body.block_u8("compression_methods")?;
    let mut extensions = if body.is_empty() { body } else { body.block_u16("extensions")? };
    body.end("client_hello")?;

    let mut hello = Hello {
        version: legacy_version,
        legacy_version,
        has_sni: false,
        sni: None,
        alpn: *b"00",
        ciphers: codes(&mut ciphers),
        extensions: Codes::new(),
        algorithms: Codes::new(),
        groups: Codes::new(),
        grease: false,
        point_formats: SmallVec::new(),
    };
    hello.grease = hello.ciphers.len() < suites;
    ciphers.end("cipher_suites")?;

    let mut highest = None;
    let mut alpn = None;
    while !extensions.is_empty() {
        let kind = extensions.u16("extension_type")?;
        let mut inside = extensions.block_u16("extension_data")?;
        if is_grease(kind) {
            continue;
        }
        hello.extensions.push(kind);
        match kind {
            0 if !hello.has_sni => {
                hello.has_sni = true;
                hello.sni = server_name(&mut inside).ok().and_then(host_name);
            }
            10 if hello.groups.is_empty() => {
                if let Ok(mut list) = inside.block_u16("named_group_list") {
                    hello.groups = codes(&mut list);
                }
            }
            11 if hello.point_formats.is_empty() => {
                if let Ok(mut list) = inside.block_u8("ec_point_format_list") {
                    hello.point_formats = SmallVec::from_slice(list.rest());
                }
            }
            13 => {
                if let Ok(mut list) = inside.block_u16("supported_signature_algorithms") {
                    hello.algorithms.extend(codes(&mut list));
                }
            }
            16 if alpn.is_none() => alpn = Some(first_protocol(&mut inside).unwrap_or_default()),
            43 => {
                if let Ok(mut list) = inside.block_u8("versions") {
                    highest = highest.max(codes(&mut list).into_iter().max());
                }
            }
            _ => {}
        }
    }
    if let Some(version) = highest {
        hello.version = version;
    }
    if let Some(value) = alpn {
        hello.alpn = alpn_characters(value);
    }
    Ok(hello)
}

/// The two-byte values of a list, GREASE left out. An odd last byte stays in `list`.
fn codes(list: &mut Reader<'_>) -> Codes {
    let mut codes = Codes::with_capacity(list.len() / 2);
    while let Ok(code) = list.u16("code") {
        if !is_grease(code) {
            codes.push(code);
        }
    }
    codes
}

/// One of the 16 values 0x?A?A with equal bytes (RFC 8701 section 2).
fn is_grease(code: u16) -> bool {
    let [high, low] = code.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}

/// RFC 6066 section 3.
fn server_name<'a>(extension: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let mut list = extension.block_u16("server_name_list")?;
    extension.end("server_name_list")?;
    if list.byte("name_type")? != 0 {
        return Err(Malformed("name_type"));
    }
    let name = list.block_u16("host_name")?.rest();
    list.end("server_name_list")?;
    Ok(name)
}

fn host_name(name: &[u8]) -> Option<Box<str>> {
    let fits = (1..=255).contains(&name.len()) && name.iter().all(u8::is_ascii_graphic);
    if fits { std::str::from_utf8(name).ok().map(Box::from) } else { None }
}

/// RFC 7301 section 3.1. The first value only, GREASE or not.
fn first_protocol<'a>(extension: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let mut list = extension.block_u16("protocol_name_list")?;
    Ok(list.block_u8("protocol_name")?.rest())
}

fn alpn_characters(value: &[u8]) -> [u8; 2] {
    match (value.first(), value.last()) {
        (Some(&first), Some(&last)) if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() => [first, last],
        (Some(&first), Some(&last)) => [super::ja4::hex_digit(first >> 4), super::ja4::hex_digit(last)],
        _ => *b"00",
    }
}

#[cfg(test)]
#[path = "hello_tests.rs"]
mod tests;
