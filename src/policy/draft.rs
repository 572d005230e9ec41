//! What `config` hands over: every name resolved, every type checked. `Policy::compile` makes tables of it and cannot fail.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;
use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;

use super::{AppId, ClassId, OwnerId, RestrictionId, TierId, ZoneId};
use crate::model::{Effect, FactState, Host, Mode};

#[derive(Clone, Debug)]
pub struct Draft {
    /// Names this policy in metrics and log: the first 12 hex digits of the SHA-256 of all files of the configuration.
    pub revision: String,
    /// In which `time.*` reads the clock.
    pub time_zone: TimeZone,
    pub owners: Vec<Owner>,
    /// Whom guardrails belong to: the owner named `security`, where there is one, else the app's owner.
    pub networks: Vec<Network>,
    pub sources: Vec<Source>,
    pub fixes: Vec<Fix>,
    pub classes: Vec<Class>,
    /// Lowest first, at least one.
    pub tiers: Vec<Tier>,
    pub caps: Vec<Cap>,
    /// At most 64.
    pub restrictions: Vec<Restriction>,
    pub guardrails: Vec<Guardrail>,
    /// One for each posture fact at most, so at most 64.
    pub ladders: Vec<Ladder>,
    pub delegations: Vec<Delegation>,
    pub exceptions: Vec<Exception>,
    pub apps: Vec<App>,
    /// Rules of owners' files, in the order of their files.
    pub layers: Vec<Layer>,
}

#[derive(Clone, Debug)]
pub struct Owner {
    pub name: String,
    pub contact: String,
}

#[derive(Clone, Debug)]
pub struct Network {
    pub name: String,
    pub ranges: Vec<IpNet>,
    /// A SYN from here is the client's own: nothing opens connections for it.
    pub syn_is_direct: bool,
}

/// A source of posture facts; facts of a source that is not listed are refused.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: String,
    pub ttl: Duration,
}

/// What a person is told when a fact fails.
#[derive(Clone, Debug)]
pub struct Fix {
    pub fact: String,
    pub text: String,
    pub help: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Class {
    pub name: String,
    pub when: Condition,
}

#[derive(Clone, Debug)]
pub struct Tier {
    pub name: String,
    /// Its own requirement; those of the lower tiers hold as well.
    pub require: Condition,
}

#[derive(Clone, Debug)]
pub struct Cap {
    pub name: String,
    pub when: Condition,
    pub max_tier: TierId,
}

#[derive(Clone, Debug, Default)]
pub struct Restriction {
    pub name: String,
    /// Upper case as written; `None` is any method.
    pub methods: Option<Vec<String>>,
    /// Of the canonical path. `None`: any.
    pub allowed_paths: Option<Vec<Glob>>,
    pub denied_paths: Vec<Glob>,
    pub no_store: bool,
    /// A CSP `sandbox` that lets pages run and nothing be downloaded.
    pub sandbox: bool,
    /// Features of `Permissions-Policy` that no page may use.
    pub permissions_policy: Vec<String>,
    /// Responses that a browser would save as a file are refused.
    pub no_attachments: bool,
    /// Bytes.
    pub max_body: Option<u64>,
    /// Bytes of a response's body.
    pub max_response: Option<u64>,
    pub requests: Option<Rate>,
    /// Bytes a second, both ways together.
    pub bandwidth: Option<u64>,
    /// A response or upgraded connection ends by then.
    pub max_stream: Option<Duration>,
}

/// `count` requests in `per`, and up to `burst` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    pub count: u32,
    pub per: Duration,
    pub burst: u32,
}

#[derive(Clone, Debug)]
pub struct Guardrail {
    pub name: String,
    /// `None`: every app.
    pub apps: Option<Vec<AppId>>,
    pub when: Condition,
    /// `Restrict` or `Block`.
    pub then: Effect,
    pub with: Vec<RestrictionId>,
    pub mode: Mode,
}

/// What is asked of a posture fact, more from date to date: a guardrail that holds while the fact is not `ok`.
#[derive(Clone, Debug)]
pub struct Ladder {
    /// `ladder.<fact>`, for the log.
    pub name: String,
    pub fact: Arc<str>,
    /// `None`: every app.
    pub apps: Option<Vec<AppId>>,
    /// Whom it concerns, besides that the fact is not `ok`.
    pub when: Condition,
    /// At least one; earlier first, milder first, none twice.
    pub steps: Vec<(Timestamp, Step)>,
    /// Of `Step::Restrict`.
    pub with: Vec<RestrictionId>,
}

/// What a ladder does from a date on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// As a guardrail in report mode: recorded as the first of the two last steps that it has, and passed over.
    Report,
    /// The same, and the person sees a notice and may go on.
    Warn,
    Restrict,
    Block,
}

impl Step {
    /// The word in YAML.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Warn => "warn",
            Self::Restrict => "restrict",
            Self::Block => "block",
        }
    }
}

/// Leave for an owner's file to loosen what the main file says of the owner's apps.
#[derive(Clone, Debug)]
pub struct Delegation {
    pub owner: OwnerId,
    /// Apps of that owner.
    pub apps: Vec<AppId>,
    pub min_tier: TierId,
    /// `Forward`, `Restrict`; to block is always free.
    pub may: Vec<Effect>,
}

/// Something that is overlooked for a while.
#[derive(Clone, Debug)]
pub struct Exception {
    /// Unique.
    pub name: String,
    pub who: Who,
    pub lifts: Lifts,
    /// `None`: every app.
    pub apps: Option<Vec<AppId>>,
    /// `None`: already.
    pub from: Option<Timestamp>,
    /// Not in force at this moment any more.
    pub until: Timestamp,
    /// Who allowed it.
    pub by: String,
    pub ticket: String,
}

/// Devices with a record: an exception is for nobody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    Device(String),
    Tag(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lifts {
    /// These facts count as ok.
    Checks(Vec<Arc<str>>),
    /// Break glass: an approved device is forwarded, whatever guardrails and rules say; that is recorded.
    Everything,
}

#[derive(Clone, Debug)]
pub struct App {
    pub name: String,
    pub title: String,
    pub owner: OwnerId,
    pub labels: Vec<String>,
    pub hosts: Vec<HostPattern>,
    /// Canonical, begins with `/`. Matches whole segments: `/wiki` holds `/wiki` and `/wiki/x`, not `/wikis`.
    pub path_prefix: String,
    pub mode: Mode,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    Exact(Host),
    /// `*.lab.corp.example`, kept as `lab.corp.example`: any name below it, of any depth, not the name itself.
    Below(Host),
}

#[derive(Clone, Debug)]
pub struct Rule {
    pub name: String,
    pub when: Condition,
    pub then: Effect,
    pub with: Vec<RestrictionId>,
    pub mode: Mode,
}

/// Rules of one owner's file for apps of the main file: evaluated beside the app's own, the stricter outcome stands. First match wins among
/// those of one owner that concern the app; what matches none of them is left to the app's own rules.
#[derive(Clone, Debug)]
pub struct Layer {
    pub owner: OwnerId,
    pub apps: Vec<AppId>,
    pub rule: Rule,
}

/// `All` of nothing is true: a rule without `when`.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Test(Test),
}

impl Condition {
    pub const fn always() -> Self {
        Self::All(Vec::new())
    }

    /// Whether any of its comparisons is such a one.
    pub fn reads(&self, such: &impl Fn(&Test) -> bool) -> bool {
        match self {
            Self::All(inner) | Self::Any(inner) => inner.iter().any(|condition| condition.reads(such)),
            Self::Not(inner) => inner.reads(such),
            Self::Test(test) => such(test),
        }
    }
}

/// One comparison. A list in YAML means any of, and stands here as one `Want` with several alternatives.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    Class(Vec<ClassId>),
    /// All must hold.
    Tier(Vec<(Compare, TierId)>),
    Device(DeviceField, Want),
    /// `posture.<fact>`: any of these states.
    Fact(Arc<str>, Vec<FactState>),
    /// `posture.<fact>.age`, since the observation that gives the fact its state.
    FactAge(Arc<str>, Vec<(Compare, Duration)>),
    /// `posture.age`, since the newest observation.
    PostureAge(Vec<(Compare, Duration)>),
    /// `device.known_for`, since the record was made.
    KnownFor(Vec<(Compare, Duration)>),
    /// `device.os_version`, by its dots.
    OsVersion(Vec<(Compare, Version)>),
    /// `device.key`.
    KeyProof(Vec<KeyProof>),
    Wire(WireField, Want),
    Claim(ClaimField, Want),
    Peer(Vec<IpNet>),
    /// `None` is the word `none`: in no named network.
    Zone(Vec<Option<ZoneId>>),
    Method(Vec<Glob>),
    Path(Vec<Glob>),
    Host(Vec<Glob>),
    /// Several values of the header: undecided.
    Header(HeaderName, Want),
    /// `time.weekday`, in the policy's time zone.
    Weekday(Vec<Weekday>),
    /// `time.hour`, 0 to 23, in the policy's time zone. All must hold.
    Hour(Vec<(Compare, u8)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compare {
    Less,
    AtMost,
    Equal,
    AtLeast,
    More,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyProof {
    None,
    Browser,
    Certificate,
}

/// Fields that compare as text, or as a set of texts (`Tags`, where any member may match).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceField {
    Id,
    Name,
    Ownership,
    /// Compares as the text `true` or `false`.
    OnNet,
    State,
    User,
    Team,
    Os,
    Model,
    Tags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WireField {
    Ja4,
    Ja4Stable,
    H2,
    Syn,
    /// A set, as the next two: whatever the wire leaves possible.
    Stack,
    Os,
    Browser,
    /// Compares as the text `true` or `false`, as the next does.
    Intercepted,
    Drift,
    /// A set of kinds, of which `any` and `none` count the strong ones alone.
    Contradictions,
}

impl WireField {
    pub const ALL: [Self; 10] = [
        Self::Ja4,
        Self::Ja4Stable,
        Self::H2,
        Self::Syn,
        Self::Stack,
        Self::Os,
        Self::Browser,
        Self::Intercepted,
        Self::Drift,
        Self::Contradictions,
    ];

    /// The signal's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ja4 => "wire.ja4",
            Self::Ja4Stable => "wire.ja4_stable",
            Self::H2 => "wire.h2",
            Self::Syn => "wire.syn",
            Self::Stack => "wire.stack",
            Self::Os => "wire.os",
            Self::Browser => "wire.browser",
            Self::Intercepted => "wire.intercepted",
            Self::Drift => "wire.drift",
            Self::Contradictions => "wire.contradictions",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClaimField {
    Os,
    Browser,
    FormFactor,
}

/// What a text or a set of texts is compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Want {
    /// Any of these. The words `none` (no record, for `device.*`) and `unavailable` (unseen wire and claims) are ordinary texts here: an
    /// absent value compares as that word.
    Text(Vec<Glob>),
    /// `any`: the set or header has at least one value.
    Any,
    /// `none` on a set or header: it has no value.
    None,
}

/// Anchored and case-sensitive; `*` is any run of characters, `/` included, and there is no other special character.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Glob(pub String);

/// Numbers between dots, compared one by one; a missing one counts as 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(pub Vec<u64>);
