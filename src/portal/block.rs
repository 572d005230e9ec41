//! The page of a decision that blocks: the story that is most likely to help this person on.

use super::page::{Card, Kind, Line, NOT_YOUR_DEVICE, Page, SOON, Step, Why};
use super::words::label;
use crate::model::{DeviceState, FactState, NoRecord, Reason, Standing};
use crate::policy::FactView;
use crate::policy::draft::Fix;

/// A decision that blocks, by its names instead of the policy's indices.
pub(super) struct Block<'a> {
    pub title: &'a str,
    pub reasons: Vec<Reason<'a>>,
    pub fixes: Vec<&'a Fix>,
    pub facts: Vec<FactView<'a>>,
    pub standing: &'a Standing,
    pub unavailable: bool,
    /// The program says that it is another than it looks like.
    pub poses: bool,
}

impl<'a> Block<'a> {
    pub(super) fn page(self) -> Page<'a> {
        let mut page = self.story();
        page.app = Some(self.title);
        page.reasons = self.reasons.iter().map(Why::of).collect();
        page.steps = steps(&self.fixes, &self.reasons);
        page.device = card(self.standing, self.facts, &self.reasons);
        page
    }

    /// Headline, lead and what to do next. The first that applies: what is most likely to help this person on.
    fn story(&self) -> Page<'a> {
        let title = self.title;
        if self.unavailable {
            return Page::new(
                Kind::Unavailable,
                "Your device could not be checked just now",
                format!("{title} asks for a check of the device first, and the records needed for it cannot be read at the moment. {NOT_YOUR_DEVICE}"),
            )
            .next("Wait a minute, then try again.")
            .retry(SOON);
        }
        let state = self.reasons.iter().find_map(|reason| match reason {
            Reason::DeviceState(state) => Some(*state),
            _ => None,
        });
        match (self.standing, state) {
            (Standing::NoRecord(why), _) if !self.is_about_something_else() => unknown_device(title, *why),
            (_, Some(state)) if state != DeviceState::Approved => stopped_device(title, state),
            _ if self.unmet() > 0 => self.unmet_checks(),
            _ if self.poses => Page::new(
                Kind::Blocked,
                "The program you use does not look like what it says it is",
                format!("{title} opens for programs that are what they say they are. What this one says of itself does not match the way it connects."),
            )
            .next("If you or an extension made it say that it is another browser or system (its User-Agent), undo that, and try again.")
            .next(
                "If you changed nothing, ask the team below and quote the request ID: something on this device or on the network may be connecting in \
                 your browser's place.",
            ),
            _ if matches!(self.reasons.first(), Some(Reason::Signal("time.weekday" | "time.hour"))) => Page::new(
                Kind::Blocked,
                format!("{title} is not open at this time"),
                "The rules for this app look at the time, and do not let this request through now.",
            )
            .next("Try again later. The team below can tell you when."),
            _ => Page::new(
                Kind::Blocked,
                format!("{title} is not open to this device"),
                "The rules for this app do not let this request through.",
            )
            .next("If you need this for your work, ask the team below whether there is a way."),
        }
    }

    /// The network, the path or the like decided, and would have for a device with a record.
    fn is_about_something_else(&self) -> bool {
        matches!(self.reasons.first(), Some(Reason::Signal(_)))
    }

    /// Checks among the reasons that a person or the device's management could mend.
    fn unmet(&self) -> usize {
        self.reasons
            .iter()
            .filter(|reason| matches!(reason, Reason::Posture(_, FactState::Fail | FactState::Unknown) | Reason::PostureAge(_)))
            .count()
    }

    fn unmet_checks(&self) -> Page<'a> {
        let title = self.title;
        let failing = self.reasons.iter().any(|reason| matches!(reason, Reason::Posture(_, FactState::Fail)));
        let (headline, is) = if failing {
            (format!("This device is not ready for {title} yet"), "needs attention")
        } else {
            (format!("This device has to be checked before it can open {title}"), "is not known")
        };
        let lead = match self.unmet() {
            1 => format!("{title} opens for devices that pass its checks. On this device, one of them {is}."),
            2.. => format!("{title} opens for devices that pass its checks. On this device, some of them {}.", plural(is)),
            0 => format!("{title} opens for devices that pass its checks."),
        };
        let page = Page::new(Kind::Blocked, headline, lead);
        if self.fixes.is_empty() {
            page.next("Ask the team below how to bring this device up to date.")
        } else {
            page.next("Then try again. It can take a while until a change on the device is noticed here.")
        }
    }
}

/// What IT knows of the device. Whoever holds a lost device is not told whose it is, and where the device as a whole is out, its checks say
/// nothing.
pub(super) fn card<'a>(standing: &'a Standing, facts: Vec<FactView<'_>>, reasons: &[Reason<'_>]) -> Option<Card<'a>> {
    let device = standing.device()?;
    if device.state == DeviceState::Lost {
        return None;
    }
    let system = [device.os.as_deref(), device.os_version.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(" ");
    let parts = [device.model.as_deref(), Some(system.as_str())].into_iter().flatten().filter(|part| !part.is_empty());
    let platform = parts.collect::<Vec<_>>().join(" · ");
    let shows_facts = matches!(device.state, DeviceState::Approved | DeviceState::Pending);
    Some(Card {
        name: device.name.as_deref().unwrap_or(&device.id),
        platform: (!platform.is_empty()).then_some(platform),
        facts: if shows_facts { lines(&facts, reasons) } else { Vec::new() },
    })
}

fn lines(facts: &[FactView<'_>], reasons: &[Reason<'_>]) -> Vec<Line> {
    let known = facts.iter().map(|fact| Line { label: label(fact.name), state: fact.state, age: Some(fact.age) });
    let missing = reasons.iter().filter_map(|reason| match reason {
        Reason::Posture(name, FactState::Unknown) if facts.iter().all(|fact| fact.name != *name) => {
            Some(Line { label: label(name), state: FactState::Unknown, age: None })
        }
        _ => None,
    });
    let mut lines: Vec<Line> = known.chain(missing).collect();
    lines.sort_by_key(|line| match line.state {
        FactState::Fail => 0,
        FactState::Unknown => 1,
        FactState::Ok => 2,
    });
    lines
}

fn plural(verb: &str) -> &str {
    match verb {
        "needs attention" => "need attention",
        "is not known" => "are not known",
        other => other,
    }
}

fn unknown_device<'a>(title: &str, why: NoRecord) -> Page<'a> {
    let renew = "Ask the team below for a new certificate, and quote the request ID.";
    let (headline, lead, next) = match why {
        NoRecord::NoProof | NoRecord::UnknownCertificate => (
            "We do not know this device yet",
            format!("{title} opens only for devices that IT has a record of, and there is none of this one. You have done nothing wrong."),
            "If you want to use this device for work, tell the team below whose device it is, what kind it is, and the request ID. If it has been set \
             up for work already, its certificate may be missing in this browser, or you may have declined to show it.",
        ),
        NoRecord::ExpiredCertificate => (
            "The certificate of this device has expired",
            format!("{title} opens only for devices that can prove which one they are. This one no longer can."),
            renew,
        ),
        NoRecord::FutureCertificate => (
            "The certificate of this device is not valid yet",
            format!("{title} opens only for devices that can prove which one they are. This one cannot do so yet."),
            "Try again later. If it lasts, tell the team below when the certificate was made, and quote the request ID.",
        ),
        NoRecord::UntrustedCertificate => (
            "The certificate of this device is not accepted here",
            format!(
                "{title} opens only for devices that can prove which one they are, with a certificate that was issued for this purpose."
            ),
            "If your browser offers several certificates, close it, open it again and choose another. Otherwise ask the team below.",
        ),
        NoRecord::RevokedCertificate => (
            "The certificate of this device has been revoked",
            format!("{title} opens only for devices that can prove which one they are. This one no longer can."),
            renew,
        ),
        NoRecord::StaleCrl => (
            "The certificate of this device cannot be checked just now",
            format!("{title} opens only for devices whose certificate is known to be good. {NOT_YOUR_DEVICE}"),
            "Try again later. If it lasts, tell the team below and quote the request ID.",
        ),
    };
    Page::new(Kind::Blocked, headline, lead).next(next)
}

fn stopped_device<'a>(title: &str, state: DeviceState) -> Page<'a> {
    let (headline, lead, next) = match state {
        DeviceState::Pending => (
            "This device is waiting for approval",
            format!("IT has a record of this device, and somebody still has to approve it before it can open {title}."),
            "Nothing to do on the device. If it takes too long, ask the team below and quote the request ID.",
        ),
        DeviceState::Suspended => (
            "This device has been suspended",
            format!("Until that is lifted, it cannot open {title}."),
            "Ask the team below why, and what it takes to lift it.",
        ),
        DeviceState::Lost => (
            "This device has been reported lost",
            "It cannot open any apps here.".to_owned(),
            "If you found it, or if you are its owner and have it back, please tell the team below and quote the request ID.",
        ),
        DeviceState::Retired => (
            "This device has been retired",
            format!("It is no longer in use for work and cannot open {title}."),
            "Use your current device. If this one is still in use, tell the team below.",
        ),
        DeviceState::Approved => ("This app is not open to this device", format!("{title} does not open for it."), "Ask the team below."),
    };
    Page { shut: state != DeviceState::Pending, ..Page::new(Kind::Blocked, headline, lead).next(next) }
}

/// A fix belongs to a fact; the reason that it mends is the one about that fact.
pub(super) fn steps<'a>(fixes: &[&'a Fix], reasons: &[Reason<'_>]) -> Vec<Step<'a>> {
    let code = |fact: &str| {
        let about = reasons.iter().find(|reason| match reason {
            Reason::Posture(name, _) | Reason::PostureAge(Some(name)) => *name == fact,
            _ => false,
        });
        about.copied().unwrap_or(Reason::Posture(fact, FactState::Fail)).to_string()
    };
    fixes
        .iter()
        .map(|fix| Step {
            reason: code(&fix.fact),
            about: label(&fix.fact),
            text: &fix.text,
            help: fix.help.as_deref().filter(|url| is_web(url)),
        })
        .collect()
}

/// The only links that a page may carry: a `javascript:` or `file:` address in a configuration stays out.
pub(super) fn is_web(url: &str) -> bool {
    ["https://", "http://"].iter().any(|scheme| url.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme)))
}
