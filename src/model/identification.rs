//! What the layers of a connection say together, and where they disagree with what is claimed or recorded.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use super::claims::words;
use super::{Browser, FormFactor, Os, Set, Word};

words!(
    /// Two sides that cannot both be true. The log names both.
    Contradiction {
        /// The claimed browser is not one of those whose TLS hello this is.
        UaBrowserVsTls = "ua_browser_vs_tls",
        /// The claimed system is not one of those that send such a SYN. Weak, unless the zone says `syn: direct`.
        UaOsVsSyn = "ua_os_vs_syn",
        /// The claimed browser does not open HTTP/2 like this.
        UaBrowserVsH2 = "ua_browser_vs_h2",
        /// User-Agent and client hints name different browsers, systems or forms.
        UaVsHints = "ua_vs_hints",
        /// The record's system is not one that the wire leaves possible.
        RecordOsVsWire = "record_os_vs_wire",
    }
);

words!(
    /// How far claims and wire agree. Never more than this: passive signals can be forged, so they may lower trust and never raise it.
    Confidence {
        /// Nothing known on the wire, nothing claimed.
        None = "none",
        /// Claimed only, or seen only: there is no second side.
        Claimed = "claimed",
        Corroborated = "corroborated",
        Contradicted = "contradicted",
    }
);

/// A contradiction with both sides as short text, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    pub kind: Contradiction,
    /// Such as `chrome 142`.
    pub claimed: Box<str>,
    /// Such as `openssl: curl, python`.
    pub seen: Box<str>,
}

/// Claims and record compared with the wire: `identify::compare`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// All that were found, weak ones included.
    pub contradictions: Set<Contradiction>,
    /// Those of them that no honest path explains: what `wire.contradictions: any` means.
    pub strong: Set<Contradiction>,
    pub confidence: Confidence,
    /// One for each of `contradictions`, in their order.
    pub clashes: SmallVec<[Clash; 1]>,
}

impl Default for Comparison {
    fn default() -> Self {
        Self { contradictions: Set::EMPTY, strong: Set::EMPTY, confidence: Confidence::None, clashes: SmallVec::new() }
    }
}

/// Major versions, both ends included; `to` is `None` while the newest version still does so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    pub from: u32,
    pub to: Option<u32>,
}

impl Span {
    pub const ANY: Self = Self { from: 0, to: None };

    pub fn holds(self, version: u32) -> bool {
        self.from <= version && self.to.is_none_or(|to| version <= to)
    }

    /// What both allow; `None` when nothing.
    pub fn both(self, other: Self) -> Option<Self> {
        let to = match (self.to, other.to) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let both = Self { from: self.from.max(other.from), to };
        to.is_none_or(|to| both.from <= to).then_some(both)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to {
            None => write!(f, "{}+", self.from),
            Some(to) if to == self.from => write!(f, "{to}"),
            Some(to) => write!(f, "{}-{to}", self.from),
        }
    }
}

/// What one signature of the table stands for. An empty set says nothing: it excludes nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meaning {
    /// The row's.
    pub name: Arc<str>,
    pub stacks: SmallVec<[Arc<str>; 2]>,
    pub browsers: Set<Browser>,
    /// Major versions of the family that the stack is named for: Chrome's for all that is built on Chromium, Safari's for all that is
    /// Apple's. Families that count otherwise (Opera, Samsung Internet) are compared by the engine they name.
    pub versions: Option<Span>,
    /// Nobody outside of this sends it, switches, field trials and versions to come considered: a claim of another version is a
    /// contradiction. Wider than `versions`, which is what the usual program is.
    pub possible: Option<Span>,
    pub os: Set<Os>,
    pub forms: Set<FormFactor>,
}

impl Meaning {
    /// For the log: `chromium 133+: chrome, edge`, `linux, android`.
    pub fn text(&self) -> String {
        let stacks = self.stacks.join(" or ");
        let mut text = match self.versions {
            Some(versions) if !stacks.is_empty() => format!("{stacks} {versions}"),
            _ => stacks,
        };
        let browsers = listed(self.browsers);
        let os = listed(self.os);
        for part in [browsers, os].into_iter().filter(|part| !part.is_empty()) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
        text
    }
}

fn listed<T: Word>(set: Set<T>) -> String {
    set.iter().map(T::word).collect::<Vec<_>>().join(", ")
}

/// What the table says of one layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// Not seen: a normal state.
    #[default]
    Unavailable,
    /// Seen, and in no row.
    Unknown,
    Known(Arc<Meaning>),
}

impl Seen {
    pub fn meaning(&self) -> Option<&Meaning> {
        match self {
            Self::Known(meaning) => Some(meaning),
            Self::Unavailable | Self::Unknown => None,
        }
    }
}

/// What the wire alone leaves possible, by the table of known signatures. Made once per connection and table.
///
/// The first five fields are the layers together, by intersection; a layer that says nothing excludes nothing. Where TLS and HTTP/2 leave no stack or family in
/// common, the set is empty: no known program does both. A SYN that leaves no system in common with TLS is passed over: a VPN sends its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identification {
    /// Names of stacks; empty when the layers that were seen are in no row.
    pub stacks: SmallVec<[Arc<str>; 2]>,
    /// Families of programs; empty: unknown.
    pub browsers: Set<Browser>,
    /// Of the family that the stack is named for, where the table knows.
    pub versions: Option<Span>,
    /// Systems that the wire does not exclude; empty: it says nothing.
    pub os: Set<Os>,
    /// Empty: it says nothing.
    pub forms: Set<FormFactor>,
    /// For a TLS hello in no row: the name of the nearest row.
    pub nearest: Option<Arc<str>>,
    pub tls: Seen,
    pub h2: Seen,
    pub syn: Seen,
}

impl Identification {
    /// Whether a layer was seen that tells programs apart, in the table or not.
    pub const fn saw_program(&self) -> bool {
        !matches!((&self.tls, &self.h2), (Seen::Unavailable, Seen::Unavailable))
    }

    /// Whether a layer was seen that may exclude systems.
    pub const fn saw_system(&self) -> bool {
        self.saw_program() || !matches!(self.syn, Seen::Unavailable)
    }

    /// `wire.stack`: a name, `unknown` or `unavailable`. Of several possible ones the first.
    pub fn stack(&self) -> &str {
        match (self.stacks.first(), &self.tls, &self.h2) {
            (Some(name), ..) => name,
            (None, Seen::Unavailable, Seen::Unavailable) => "unavailable",
            _ => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_meet() {
        let span = |from, to| Span { from, to };
        assert_eq!(span(100, Some(120)).both(span(110, None)), Some(span(110, Some(120))));
        assert_eq!(span(100, Some(120)).both(span(121, None)), None);
        assert_eq!(span(100, None).both(Span::ANY), Some(span(100, None)));
        assert!(span(100, None).holds(100) && !span(100, None).holds(99) && !span(1, Some(2)).holds(3));
        assert_eq!([span(1, None), span(1, Some(2)), span(2, Some(2))].map(|s| s.to_string()), ["1+", "1-2", "2"]);
    }

    #[test]
    fn a_stack_is_a_name_or_why_there_is_none() {
        let mut wire = Identification::default();
        assert_eq!(wire.stack(), "unavailable");
        wire.tls = Seen::Unknown;
        assert_eq!(wire.stack(), "unknown");
        wire.stacks.push("go".into());
        assert_eq!(wire.stack(), "go");
    }
}
