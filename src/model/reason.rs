//! Why a request was answered as it was: one closed set for metric labels, log and pages.

use std::fmt;

use super::{DeviceState, FactState, NoRecord};

/// Which restriction refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RestrictionKey {
    Methods,
    Paths,
    Attachments,
    MaxResponse,
    MaxBody,
    Requests,
}

impl RestrictionKey {
    pub const ALL: [Self; 6] = [Self::Methods, Self::Paths, Self::Attachments, Self::MaxResponse, Self::MaxBody, Self::Requests];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Methods => "methods",
            Self::Paths => "paths",
            Self::Attachments => "attachments",
            Self::MaxResponse => "max_response",
            Self::MaxBody => "max_body",
            Self::Requests => "requests",
        }
    }
}

/// A reason. `Display` gives the stable dotted code, for example `posture.disk_encrypted.fail`. Names borrow from the policy or
/// the configuration, never from a request, so the set of codes is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason<'a> {
    /// `rule.matched`: a rule said so and nothing needs mending.
    RuleMatched,
    /// `rule.none`: no rule matched, and what matches none is blocked.
    NoRule,
    /// `app.report`: the app is in report mode and forwards whatever its rules say.
    AppReport,
    /// `exception.<name>`: glass was broken.
    Exception(&'a str),
    /// `notice.shown`: the person was told of what will be asked of the device, and may go on.
    Notice,
    /// `posture.<fact>.fail` or `posture.<fact>.unknown` (or `.ok`, where a rule asks for a failing fact).
    Posture(&'a str, FactState),
    /// `posture.<fact>.age` or `posture.age`.
    PostureAge(Option<&'a str>),
    /// `device.unknown`, `certificate.unknown`, `certificate.expired`, ...
    NoRecord(NoRecord),
    /// `device.state.<state>`.
    DeviceState(DeviceState),
    /// `device.<field>`: another field of the record, by its signal's name.
    Device(&'a str),
    /// `class.<name>`.
    Class(&'a str),
    /// `tier.<name>`: the tier that the device has, when no fact explains it.
    Tier(&'a str),
    /// `cap.<name>`: a cap that lowered the tier.
    Cap(&'a str),
    /// Another signal by its name: `net.zone`, `http.path`, `claims.os`, `wire.ja4`, ...
    Signal(&'a str),
    /// `store.unavailable`.
    StoreUnavailable,
    /// `restrict.<key>`.
    Restriction(RestrictionKey),
    /// `request.malformed` 400, `request.no_app` 404, `request.misdirected` 421, `request.upgrade` 501.
    Malformed,
    NoApp,
    Misdirected,
    Upgrade,
    /// `request.cut`: the client left before its answer began, 499.
    ClientGone,
    /// `request.panic`: our own fault, 500.
    Internal,
    /// `upstream.unreachable`, `upstream.timeout`, `upstream.broken`: the effect stands, the app failed.
    UpstreamUnreachable,
    UpstreamTimeout,
    UpstreamBroken,
    /// `redirect.https`: answered by a redirect listener.
    RedirectHttps,
    /// `log.unavailable`: the decision log is required and cannot be written.
    LogUnavailable,
    /// `assertion.unavailable`: the app takes signed assertions only, and none can be signed, 503.
    AssertionUnavailable,
    /// `assertion.keys`: the public keys of assertions were asked for.
    AssertionKeys,
    /// `request.untrusted`: a question from who is not listed to ask, 403.
    Untrusted,
    /// `restrict.unenforceable`: the decision needs a restriction that only who carries the request could hold, 403.
    Unenforceable,
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RuleMatched => f.write_str("rule.matched"),
            Self::NoRule => f.write_str("rule.none"),
            Self::AppReport => f.write_str("app.report"),
            Self::Exception(name) => write!(f, "exception.{name}"),
            Self::Notice => f.write_str("notice.shown"),
            Self::Posture(fact, state) => write!(f, "posture.{fact}.{}", state.as_str()),
            Self::PostureAge(None) => f.write_str("posture.age"),
            Self::PostureAge(Some(fact)) => write!(f, "posture.{fact}.age"),
            Self::NoRecord(why) => f.write_str(match why {
                NoRecord::NoProof => "device.unknown",
                NoRecord::UnknownCertificate => "certificate.unknown",
                NoRecord::ExpiredCertificate => "certificate.expired",
                NoRecord::FutureCertificate => "certificate.not_yet_valid",
                NoRecord::UntrustedCertificate => "certificate.untrusted",
                NoRecord::RevokedCertificate => "certificate.revoked",
                NoRecord::StaleCrl => "certificate.crl_expired",
            }),
            Self::DeviceState(state) => write!(f, "device.state.{}", state.as_str()),
            Self::Device(field) => write!(f, "device.{field}"),
            Self::Class(name) => write!(f, "class.{name}"),
            Self::Tier(name) => write!(f, "tier.{name}"),
            Self::Cap(name) => write!(f, "cap.{name}"),
            Self::Signal(name) => f.write_str(name),
            Self::StoreUnavailable => f.write_str("store.unavailable"),
            Self::Restriction(key) => write!(f, "restrict.{}", key.as_str()),
            Self::Malformed => f.write_str("request.malformed"),
            Self::NoApp => f.write_str("request.no_app"),
            Self::Misdirected => f.write_str("request.misdirected"),
            Self::Upgrade => f.write_str("request.upgrade"),
            Self::ClientGone => f.write_str("request.cut"),
            Self::Internal => f.write_str("request.panic"),
            Self::UpstreamUnreachable => f.write_str("upstream.unreachable"),
            Self::UpstreamTimeout => f.write_str("upstream.timeout"),
            Self::UpstreamBroken => f.write_str("upstream.broken"),
            Self::RedirectHttps => f.write_str("redirect.https"),
            Self::LogUnavailable => f.write_str("log.unavailable"),
            Self::AssertionUnavailable => f.write_str("assertion.unavailable"),
            Self::AssertionKeys => f.write_str("assertion.keys"),
            Self::Untrusted => f.write_str("request.untrusted"),
            Self::Unenforceable => f.write_str("restrict.unenforceable"),
        }
    }
}
