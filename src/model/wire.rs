//! Connection facts: what a connection shows by itself.

use std::fmt;

use smallvec::SmallVec;

/// The readable form `a_b_c` of a JA4 fingerprint: 36 ASCII characters, always.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ja4([u8; 36]);

impl Ja4 {
    /// `None` when a byte is not printable ASCII.
    pub fn new(text: [u8; 36]) -> Option<Self> {
        text.iter().all(u8::is_ascii_graphic).then_some(Self(text))
    }

    /// For `fingerprint::hello`, whose alphabet is printable by construction: any other byte would become `?`.
    pub(crate) fn printable(mut text: [u8; 36]) -> Self {
        for byte in &mut text {
            if !byte.is_ascii_graphic() {
                *byte = b'?';
            }
        }
        Self(text)
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Ja4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Ja4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The IP and TCP headers of the connection's SYN as the kernel saved them (`TCP_SAVED_SYN`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syn(pub Box<[u8]>);

/// The lists of a ClientHello in wire order, GREASE left out: what JA4 hashes, and what it leaves out. No list is longer than
/// [`Traits::LONGEST`]; what a hostile hello has beyond that is dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// Inline for every browser measured.
    codes: SmallVec<[u16; 64]>,
    /// Where ciphers, extensions and algorithms end; groups end with `codes`.
    ends: [u16; 3],
    /// GREASE (RFC 8701) was among the cipher suites.
    pub grease: bool,
}

impl Traits {
    /// As far as JA4 counts: more than any client that was run sends. What a hostile hello costs to look up is in proportion.
    pub const LONGEST: usize = 99;

    /// Ciphers, extensions, signature algorithms, supported groups.
    pub fn new(lists: [&[u16]; 4], grease: bool) -> Self {
        let mut traits = Self { grease, ..Self::default() };
        let mut ends = traits.ends.iter_mut();
        for list in lists {
            traits.codes.extend(list.iter().copied().take(Self::LONGEST));
            if let Some(end) = ends.next() {
                *end = u16::try_from(traits.codes.len()).unwrap_or(u16::MAX);
            }
        }
        traits
    }

    pub fn ciphers(&self) -> &[u16] {
        self.between(0, usize::from(self.ends[0]))
    }

    pub fn extensions(&self) -> &[u16] {
        self.between(usize::from(self.ends[0]), usize::from(self.ends[1]))
    }

    pub fn algorithms(&self) -> &[u16] {
        self.between(usize::from(self.ends[1]), usize::from(self.ends[2]))
    }

    pub fn groups(&self) -> &[u16] {
        self.between(usize::from(self.ends[2]), self.codes.len())
    }

    fn between(&self, from: usize, to: usize) -> &[u16] {
        self.codes.get(from..to).unwrap_or_default()
    }
}

/// Facts of one connection. `None` is "unavailable", a normal state: a plain listener has no hello, SYN cookies no SYN.
#[derive(Clone, Debug, Default)]
pub struct Wire {
    pub ja4: Option<Ja4>,
    /// JA4 without the extensions that change from one connection of a client to its next.
    pub ja4_stable: Option<Ja4>,
    /// MD5 in lower-case hex, only where the configuration asks for it (`fingerprints.ja3`).
    pub ja3: Option<Box<str>>,
    /// What the table of known signatures reads beside `ja4_stable`; there whenever that is.
    pub traits: Option<Traits>,
    /// The SYN's signature, `fingerprint::syn::signature`.
    pub syn: Option<Box<str>>,
}

impl Wire {
    /// The raw form of `ja4`, as `Hello::ja4_r` gives it; of lists beyond [`Traits::LONGEST`] their beginning. Put together on each call.
    pub fn ja4_r(&self) -> Option<String> {
        const SERVER_NAME: u16 = 0;
        const ALPN: u16 = 16;
        let (ja4, traits) = (self.ja4.as_ref()?, self.traits.as_ref()?);
        let (mut ciphers, mut extensions) = (traits.ciphers().to_vec(), traits.extensions().to_vec());
        ciphers.sort_unstable();
        extensions.retain(|&kind| kind != SERVER_NAME && kind != ALPN);
        extensions.sort_unstable();
        let mut text = ja4.as_str().get(..10)?.to_owned();
        let algorithms = (!traits.algorithms().is_empty()).then(|| traits.algorithms());
        for list in [Some(&*ciphers), Some(&*extensions), algorithms].into_iter().flatten() {
            for (position, code) in list.iter().enumerate() {
                text.push(if position == 0 { '_' } else { ',' });
                text.push_str(&format!("{code:04x}"));
            }
            if list.is_empty() {
                text.push('_');
            }
        }
        Some(text)
    }
}

/// What the first request's bytes show below HTTP: known from the first request on, not before. `None` is "unavailable".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// The HTTP/2 opening `settings|window_update|priorities|pseudo-header order`, `fingerprint::h2`.
    pub h2: Option<Box<str>>,
    /// Our hash of the order and case of the first request's fields, `fingerprint::order`.
    pub header_order: Option<Box<str>>,
}
