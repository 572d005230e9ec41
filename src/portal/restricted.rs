//! The pages of what restrictions refuse, and of what a person is told before anything is refused.

use std::time::Duration;

use super::block::{card, steps};
use super::ladder::{deadlines, noticed};
use super::page::{Kind, Page, Why, reasons};
use super::words::{size, wait};
use super::{By, Notice};
use crate::model::{Reason, RestrictionKey};
use crate::policy::draft::Fix;
use crate::policy::{Decision, Policy};

const HERE: &str = "Use a device that this app trusts more, or ask the team below.";

/// A decision that restricts, by its names instead of the policy's indices.
pub(super) struct Restricted<'a> {
    pub title: &'a str,
    /// Why this device is restricted.
    pub reasons: Vec<Reason<'a>>,
    pub fixes: Vec<&'a Fix>,
    /// The methods that are open, where not all are.
    pub methods: Vec<&'a str>,
}

impl<'a> Restricted<'a> {
    pub(super) fn of(policy: &'a Policy, decision: &Decision, fixes: Vec<&'a Fix>) -> Self {
        Self {
            title: policy.app_title(decision.app),
            reasons: reasons(policy, decision),
            fixes,
            methods: decision.merged.methods.map_or_else(Vec::new, |set| policy.method_names(set)),
        }
    }

    pub(super) fn page(self, by: By) -> Page<'a> {
        let mut page = match by {
            By::Method => self.method(),
            By::Path => Page::new(
                Kind::Path,
                "This part of the app is not open to this device",
                format!("Other parts of {} are open. Nothing has been changed.", self.title),
            )
            .code(key(RestrictionKey::Paths)),
            By::Attachment => Page::new(
                Kind::Attachment,
                "This device may not download files here",
                format!("{} opens on this device to look at and to work in, and its files stay where they are.", self.title),
            )
            .code(key(RestrictionKey::Attachments)),
            By::LargeResponse { limit } => Page::new(
                Kind::LargeResponse,
                "That is too large for this device",
                format!("From {}, this device may receive at most {} at a time.", self.title, size(limit)),
            )
            .code(key(RestrictionKey::MaxResponse)),
            By::LargeBody { limit } => too_large(limit).code(key(RestrictionKey::MaxBody)),
            By::Rate { retry_after } => too_many(retry_after),
        };
        page.app = Some(self.title);
        // Who was too fast is not told what else is wrong: waiting is what helps.
        if matches!(by, By::Rate { .. }) {
            return page;
        }
        page.reasons.extend(self.reasons.iter().map(Why::of));
        page.steps = steps(&self.fixes, &self.reasons);
        if !self.fixes.is_empty() {
            return page.next("Then try again. It can take a while until a change on the device is noticed here.");
        }
        page.next(match by {
            By::Method => "To make changes, use a device that this app trusts more, or ask the team below.",
            By::LargeBody { .. } => "Send something smaller, or use a device that this app trusts more.",
            By::LargeResponse { .. } => "Ask for less at a time, or use a device that this app trusts more.",
            By::Path | By::Attachment | By::Rate { .. } => HERE,
        })
    }

    fn method(&self) -> Page<'a> {
        let (title, allowed) = (self.title, &self.methods);
        let reading = allowed.iter().all(|method| ["GET", "HEAD", "OPTIONS"].contains(method));
        let (headline, lead) = match (allowed.as_slice(), reading) {
            ([], _) => (format!("{title} is not open to this device"), "Nothing can be asked of this app from this device.".to_owned()),
            (_, true) => (
                format!("From this device you can only read {title}"),
                "Saving, sending and deleting are not open to this device. Nothing has been changed.".to_owned(),
            ),
            (_, false) => (
                "This action is not open to this device".to_owned(),
                format!("In {title}, this device may only make these requests: {}. Nothing has been changed.", allowed.join(", ")),
            ),
        };
        let mut page = Page::new(Kind::Method, headline, lead).code(key(RestrictionKey::Methods));
        page.allowed = Some(allowed.clone());
        page
    }
}

const fn key(key: RestrictionKey) -> Reason<'static> {
    Reason::Restriction(key)
}

pub(super) fn too_large<'a>(limit: u64) -> Page<'a> {
    Page::new(
        Kind::TooLarge,
        "That was too large to send",
        format!("From this device, this app accepts at most {} at a time. Nothing has been saved.", size(limit)),
    )
}

pub(super) fn too_many<'a>(retry_after: Duration) -> Page<'a> {
    let seconds = retry_after.as_secs().saturating_add(u64::from(retry_after.subsec_nanos() > 0)).max(1);
    Page::new(
        Kind::TooMany,
        "That was too fast",
        "This device has sent more requests than this app accepts from it in so short a time.".to_owned(),
    )
    .code(key(RestrictionKey::Requests))
    .next(format!("Wait {}, then try again.", wait(seconds)))
    .retry(seconds)
}

/// In place of an app's page that is open.
pub(super) fn notice<'a>(notice: &Notice<'a>) -> Page<'a> {
    let Notice { policy, decision, standing, now, host, action } = *notice;
    let title = policy.app_title(decision.app);
    let concerns = noticed(policy, decision, standing, now);
    let reasons: Vec<Reason<'a>> = concerns.iter().map(|concern| Reason::Posture(&concern.ladder.fact, concern.state)).collect();
    let draft = policy.draft();
    let fixes: Vec<&Fix> = concerns.iter().filter_map(|concern| draft.fixes.iter().find(|fix| *fix.fact == *concern.ladder.fact)).collect();
    let deadlines = deadlines(policy, decision, now);
    let lead = if deadlines.is_empty() {
        format!("{title} is open to you. Please mend what is listed below.")
    } else {
        format!("{title} is open to you today. Mend what is listed below in time, and it stays so.")
    };
    let mut page = Page::new(Kind::Notice, "Something about this device has to be mended soon", lead).code(Reason::Notice);
    page.app = Some(title);
    page.host = Some(host.as_str());
    page.reasons.extend(reasons.iter().map(Why::of));
    page.steps = steps(&fixes, &reasons);
    page.deadlines = deadlines;
    page.device = card(standing, policy.facts(standing, now), &reasons);
    page.action = Some((action, format!("Go on to {title}")));
    let security = draft.owners.iter().find(|owner| owner.name == "security");
    page.owner = Some(security.unwrap_or_else(|| policy.owner(policy.app_owner(decision.app))));
    if fixes.is_empty() {
        page = page.next("Ask the team below how to bring this device up to date.");
    }
    page.next("This notice comes once a day until it is done. It can take a while until a change on the device is noticed here.")
}
