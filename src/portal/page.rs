//! A refusal in words: all that its answer says, in whichever form.

use std::time::Duration;

use http::StatusCode;

use super::block::Block;
use super::ladder::deadlines;
use super::restricted::Restricted;
use super::words::sentence;
use super::{App, Refusal, plain};
use crate::model::{FactState, Reason};
use crate::policy::draft::{Fix, Owner};
use crate::policy::{Decision, FixId, Policy};

/// Seconds after which it is worth trying again when the fault is a passing one of ours or the app's.
pub(super) const SOON: u64 = 5;

/// What the lead says of a passing fault of ours.
pub(super) const NOT_YOUR_DEVICE: &str = "This has nothing to do with your device.";

/// What kind of refusal: decides the status and the problem type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Blocked,
    Unavailable,
    Method,
    Path,
    Attachment,
    LargeResponse,
    /// No refusal: the app is open, and something is to be said before.
    Notice,
    TooLarge,
    TooMany,
    Malformed,
    HeadTooLarge,
    NoApp,
    Misdirected,
    Upgrade,
    UpstreamUnreachable,
    UpstreamTimeout,
    UpstreamBroken,
    LogUnavailable,
    AssertionUnavailable,
    Untrusted,
    Unenforceable,
    Internal,
}

impl Kind {
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::Blocked | Self::Method | Self::Path | Self::Attachment | Self::LargeResponse | Self::Untrusted | Self::Unenforceable => {
                StatusCode::FORBIDDEN
            }
            Self::Notice => StatusCode::OK,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::NoApp => StatusCode::NOT_FOUND,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Upgrade => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable | Self::UpstreamUnreachable | Self::LogUnavailable | Self::AssertionUnavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::UpstreamBroken => StatusCode::BAD_GATEWAY,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The last part of the problem type `urn:vestibule:problem:<name>`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Unavailable => "unavailable",
            Self::Method => "method",
            Self::Path => "path",
            Self::Attachment => "attachment",
            Self::LargeResponse => "large_response",
            Self::Notice => "notice",
            Self::TooLarge => "too_large",
            Self::TooMany => "too_many",
            Self::Malformed => "malformed",
            Self::HeadTooLarge => "head_too_large",
            Self::NoApp => "no_app",
            Self::Misdirected => "misdirected",
            Self::Upgrade => "upgrade",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamBroken => "upstream_broken",
            Self::LogUnavailable => "log_unavailable",
            Self::AssertionUnavailable => "assertion_unavailable",
            Self::Untrusted => "untrusted",
            Self::Unenforceable => "unenforceable",
            Self::Internal => "internal",
        }
    }

    /// The problem's title: the same for every occurrence (RFC 9457 section 3.1.3).
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Blocked => "Access refused",
            Self::Unavailable => "Device could not be checked",
            Self::Method => "Method not open to this device",
            Self::Path => "Path not open to this device",
            Self::Attachment => "Downloads not open to this device",
            Self::LargeResponse => "Response too large for this device",
            Self::Notice => "Something has to be mended soon",
            Self::TooLarge => "Request too large",
            Self::TooMany => "Too many requests",
            Self::Malformed => "Request not understood",
            Self::HeadTooLarge => "Request head too large",
            Self::NoApp => "No such app",
            Self::Misdirected => "Wrong connection for this address",
            Self::Upgrade => "Upgrade not supported",
            Self::UpstreamUnreachable => "App cannot be reached",
            Self::UpstreamTimeout => "App did not answer in time",
            Self::UpstreamBroken => "App gave a broken answer",
            Self::LogUnavailable => "Access cannot be recorded",
            Self::AssertionUnavailable => "Identity cannot be passed on",
            Self::Untrusted => "Not a proxy that may ask",
            Self::Unenforceable => "Limits cannot be kept here",
            Self::Internal => "Internal error",
        }
    }
}

/// What the answer says. Everything is plain text; each form escapes in its own way.
#[derive(Clone, Debug)]
pub(super) struct Page<'a> {
    pub kind: Kind,
    /// What happened, as the heading of the page.
    pub headline: String,
    /// The same in one or two whole sentences.
    pub lead: String,
    /// The app's title.
    pub app: Option<&'a str>,
    pub host: Option<&'a str>,
    /// The deciding one first.
    pub reasons: Vec<Why>,
    /// What the person can mend.
    pub steps: Vec<Step<'a>>,
    /// What to do next, after the steps or in their place: whole sentences.
    pub next: Vec<String>,
    /// What happens when, where a ladder says.
    pub deadlines: Vec<Deadline<'a>>,
    /// A button: where it leads, and what it says.
    pub action: Option<(&'a str, String)>,
    pub device: Option<Card<'a>>,
    /// The device as a whole is out, and nothing on it can be mended.
    pub shut: bool,
    /// Who answers for the app or for the rule that decided.
    pub owner: Option<&'a Owner>,
    /// Seconds.
    pub retry_after: Option<u64>,
    pub allowed: Option<Vec<&'a str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Why {
    /// The stable code.
    pub code: String,
    pub text: String,
}

impl Why {
    pub(super) fn of(reason: &Reason<'_>) -> Self {
        Self { code: reason.to_string(), text: sentence(reason) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step<'a> {
    /// The code of the reason that this mends.
    pub reason: String,
    /// What it is about: the fact's label.
    pub about: String,
    pub text: &'a str,
    /// Always `http://` or `https://`.
    pub help: Option<&'a str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Deadline<'a> {
    pub fact: &'a str,
    /// `restrict` or `block`.
    pub step: &'static str,
    /// RFC 3339, in the policy's time zone.
    pub at: String,
    pub text: String,
}

/// The device as its owner knows it.
#[derive(Clone, Debug)]
pub(super) struct Card<'a> {
    pub name: &'a str,
    /// Model and system, as far as recorded.
    pub platform: Option<String>,
    /// Failing ones first, then unknown, then good.
    pub facts: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub label: String,
    pub state: FactState,
    /// Since the fact was observed; `None`: nobody ever stated it.
    pub age: Option<Duration>,
}

fn to_mend<'a>(policy: &'a Policy, decision: &Decision, mend: Option<&[FixId]>) -> Vec<&'a Fix> {
    mend.map_or_else(|| policy.fixes(decision), |mend| mend.iter().filter_map(|id| policy.fix(*id)).collect())
}

impl<'a> Page<'a> {
    pub(super) fn of(refusal: &Refusal<'a>) -> Self {
        match *refusal {
            Refusal::Blocked { policy, decision, standing, now, host, mend } => {
                let mut page = Block {
                    title: policy.app_title(decision.app),
                    reasons: reasons(policy, decision),
                    fixes: to_mend(policy, decision, mend),
                    facts: policy.facts(standing, now),
                    standing,
                    unavailable: decision.unavailable,
                    poses: policy.is_for_contradictions(decision),
                }
                .page();
                page.owner = Some(policy.owner(decision.done.owner));
                page.host = Some(host.as_str());
                page.deadlines = deadlines(policy, decision, now);
                page
            }
            Refusal::Restricted { policy, decision, by, now, mend } => {
                let mut page = Restricted::of(policy, decision, to_mend(policy, decision, mend)).page(by);
                page.deadlines = deadlines(policy, decision, now);
                page.owner = Some(policy.owner(decision.done.owner));
                page
            }
            Refusal::TooLarge { app, limit } => plain::too_large(limit).for_app(Some(app)),
            Refusal::Malformed { what } => plain::malformed(what),
            Refusal::HeadTooLarge => plain::head_too_large(),
            Refusal::NoApp => plain::no_app(),
            Refusal::Misdirected => plain::misdirected(),
            Refusal::Upgrade { app } => plain::upgrade().for_app(app),
            Refusal::UpstreamUnreachable { app } => plain::upstream_unreachable().for_app(Some(app)),
            Refusal::UpstreamTimeout { app } => plain::upstream_timeout().for_app(Some(app)),
            Refusal::UpstreamBroken { app } => plain::upstream_broken().for_app(Some(app)),
            Refusal::LogUnavailable { app } => plain::log_unavailable().for_app(app),
            Refusal::AssertionUnavailable { app } => plain::assertion_unavailable().for_app(Some(app)),
            Refusal::Untrusted => plain::untrusted(),
            Refusal::Unenforceable { app } => plain::unenforceable().for_app(Some(app)),
            Refusal::Internal { app } => plain::internal().for_app(app),
        }
    }

    /// The reasons, less what the headline says already.
    pub(super) fn sentences(&self) -> impl Iterator<Item = &str> {
        self.reasons.iter().map(|why| why.text.as_str()).filter(|text| !text.is_empty() && *text != self.headline)
    }

    pub(super) fn new(kind: Kind, headline: impl Into<String>, lead: impl Into<String>) -> Self {
        Self {
            kind,
            headline: headline.into(),
            lead: lead.into(),
            app: None,
            host: None,
            reasons: Vec::new(),
            steps: Vec::new(),
            next: Vec::new(),
            deadlines: Vec::new(),
            action: None,
            device: None,
            shut: false,
            owner: None,
            retry_after: None,
            allowed: None,
        }
    }

    /// The page says all that the sentence would: only the code is added.
    pub(super) fn code(mut self, reason: Reason<'_>) -> Self {
        self.reasons.push(Why { code: reason.to_string(), text: String::new() });
        self
    }

    pub(super) fn next(mut self, sentence: impl Into<String>) -> Self {
        self.next.push(sentence.into());
        self
    }

    pub(super) fn retry(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub(super) fn for_app(mut self, app: Option<App<'a>>) -> Self {
        if let Some(App { policy, id }) = app {
            self.app = Some(policy.app_title(id));
            self.owner = Some(policy.owner(policy.app_owner(id)));
        }
        self
    }
}

pub(super) fn reasons<'p>(policy: &'p Policy, decision: &Decision) -> Vec<Reason<'p>> {
    decision.done.reasons.as_slice().iter().map(|id| policy.reason(*id)).collect()
}
