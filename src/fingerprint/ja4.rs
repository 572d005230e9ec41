//! JA4 of a ClientHello: <https://github.com/FoxIO-LLC/ja4>, `technical_details/JA4.md`. Of the methods published there only JA4
//! itself is free; the others are not used.

use aws_lc_rs::digest::{SHA256, digest};
use smallvec::SmallVec;

use super::hello::{Codes, Hello};
use crate::model::Ja4;

/// Bytes that came as TLS records came over TCP. Never guessed from the hello: extension 57 is there to be forged.
const TRANSPORT: u8 = b't';

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
/// padding, session_ticket, pre_shared_key, early_data, cookie: a client sends them on one connection and not on the next.
const UNSTABLE: [u16; 5] = [21, 35, 41, 42, 44];

impl Hello {
    pub fn ja4(&self) -> Ja4 {
        self.fingerprint(&self.extensions, self.ciphers_hash())
    }

    /// As JA4, without the extensions that change when a session resumes or padding flips. Rules and baselines use this one.
    pub fn ja4_stable(&self) -> Ja4 {
        self.fingerprint(&self.stable_extensions(), self.ciphers_hash())
    }

    /// The raw form of JA4, whose second and third part are lists instead of hashes: it is how people argue about a value.
    pub fn ja4_r(&self) -> String {
        let mut text = Text::new();
        text.extend_from_slice(&self.head(TRANSPORT, self.extensions.len()));
        text.push(b'_');
        push_ciphers(self, &mut text);
        text.push(b'_');
        push_extensions(self, &self.extensions, &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// `ja4` and `ja4_stable` for less than both cost.
    pub fn ja4s(&self) -> (Ja4, Ja4) {
        let ciphers = self.ciphers_hash();
        let ja4 = self.fingerprint(&self.extensions, ciphers);
        let stable = self.stable_extensions();
        let same = stable.len() == self.extensions.len();
        (ja4, if same { ja4 } else { self.fingerprint(&stable, ciphers) })
    }

    fn stable_extensions(&self) -> Codes {
        self.extensions.iter().copied().filter(|kind| !UNSTABLE.contains(kind)).collect()
    }

    fn ciphers_hash(&self) -> [u8; 12] {
        let mut text = Text::new();
        push_ciphers(self, &mut text);
        hash(&text)
    }

    fn fingerprint(&self, extensions: &Codes, ciphers: [u8; 12]) -> Ja4 {
        let mut text = Text::new();
        push_extensions(self, extensions, &mut text);
        let extensions_hash = hash(&text);

        let mut out = [b'_'; 36];
        let parts = self.head(TRANSPORT, extensions.len()).into_iter().chain(*b"_").chain(ciphers).chain(*b"_").chain(extensions_hash);
        for (slot, byte) in out.iter_mut().zip(parts) {
            *slot = byte;
        }
        Ja4::printable(out)
    }

    /// The first part: transport, version, SNI, the two counts, ALPN.
    fn head(&self, transport: u8, extensions: usize) -> [u8; 10] {
        let [major, minor] = version(self.version);
        let sni = if self.has_sni { b'd' } else { b'i' };
        let [cipher_tens, cipher_ones] = two_digits(self.ciphers.len());
        let [extension_tens, extension_ones] = two_digits(extensions);
        let [alpn_first, alpn_last] = self.alpn;
        [transport, major, minor, sni, cipher_tens, cipher_ones, extension_tens, extension_ones, alpn_first, alpn_last]
    }
}

/// The text that is hashed: 5 bytes a code, inline for every browser measured.
type Text = SmallVec<[u8; 512]>;

fn push_ciphers(hello: &Hello, text: &mut Text) {
    let mut ciphers = hello.ciphers.clone();
    ciphers.sort_unstable();
    push_list(&ciphers, text);
}

/// Extensions sorted (browsers permute them), then the signature algorithms in wire order (it is the client's preference).
fn push_extensions(hello: &Hello, extensions: &Codes, text: &mut Text) {
    let mut sorted: Codes = extensions.iter().copied().filter(|&kind| kind != SERVER_NAME && kind != ALPN).collect();
    sorted.sort_unstable();
    push_list(&sorted, text);
    if !hello.algorithms.is_empty() {
        text.push(b'_');
        push_list(&hello.algorithms, text);
    }
}

fn push_list(codes: &[u16], text: &mut Text) {
    let start = text.len();
    // At once, and then filled in: code by code it would cost more than the hash.
    text.resize(start + codes.len() * 5, b',');
    for (slot, code) in text.get_mut(start..).unwrap_or_default().chunks_exact_mut(5).zip(codes) {
        let [high, low] = code.to_be_bytes();
        if let [a, b, c, d, _] = slot {
            (*a, *b, *c, *d) = (hex_digit(high >> 4), hex_digit(high), hex_digit(low >> 4), hex_digit(low));
        }
    }
    if !codes.is_empty() {
        text.pop();
    }
}

/// The first 12 hex digits of SHA-256; an empty list is twelve zeros.
pub(super) fn hash(text: &[u8]) -> [u8; 12] {
    let mut out = [b'0'; 12];
    if text.is_empty() {
        return out;
    }
    let digest = digest(&SHA256, text);
    for (pair, byte) in out.chunks_exact_mut(2).zip(digest.as_ref()) {
        pair.copy_from_slice(&[hex_digit(byte >> 4), hex_digit(*byte)]);
    }
    out
}

const fn version(code: u16) -> [u8; 2] {
    match code {
        0x0304 => *b"13",
        0x0303 => *b"12",
        0x0302 => *b"11",
        0x0301 => *b"10",
        0x0300 => *b"s3",
        0x0002 => *b"s2",
        _ => *b"00",
    }
}

/// Above 99 prints 99.
pub(super) fn two_digits(count: usize) -> [u8; 2] {
    let count = u8::try_from(count).unwrap_or(u8::MAX).min(99);
    [b'0' + count / 10, b'0' + count % 10]
}

/// The low half of `byte` as a lower-case hex digit.
pub(super) const fn hex_digit(byte: u8) -> u8 {
    match byte & 0x0f {
        digit @ 0..=9 => b'0' + digit,
        letter => b'a' - 10 + letter,
    }
}
