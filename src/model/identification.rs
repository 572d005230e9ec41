//! What the layers of a connection say together, and where they disagree with what is claimed or recorded.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use super::claims::words;
use super::{Browser, FormFactor, Os, Set};

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
pub struct Verdict {
    /// All that were found, weak ones included.
    pub contradictions: Set<Contradiction>,
    /// Those of them that no honest path explains: what `wire.contradictions: any` means.
    pub strong: Set<Contradiction>,
    pub confidence: Confidence,
    /// One for each of `contradictions`, in their order.
    pub clashes: SmallVec<[Clash; 1]>,
}

impl Default for Verdict {
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

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to {
            None => write!(f, "{}+", self.from),
            Some(to) if to == self.from => write!(f, "{to}"),
            Some(to) => write!(f, "{}-{to}", self.from),
        }
    }
}

/// What the wire alone leaves possible, by the table of known signatures. Made once per connection and table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identification {
    /// Names of stacks; empty when the layers that were seen are in no row.
    pub stacks: SmallVec<[Arc<str>; 2]>,
    /// Families of programs; empty: unknown.
    pub browsers: Set<Browser>,
    /// Of `browsers`, where the table knows.
    pub versions: Option<Span>,
    /// Systems that the wire does not exclude; empty: it says nothing.
    pub os: Set<Os>,
    /// Empty: it says nothing.
    pub forms: Set<FormFactor>,
    /// For a TLS hello in no row: the name of the nearest row.
    pub nearest: Option<Arc<str>>,
}
