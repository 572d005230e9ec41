//! The pages of all refusals that no decision is behind.

use super::page::{Kind, NOT_YOUR_DEVICE, Page, SOON};
use super::words::size;
use crate::model::{Reason, RestrictionKey};

/// Over `limits.body_size`, which holds for everybody.
pub(super) fn too_large<'a>(limit: u64) -> Page<'a> {
    Page::new(
        Kind::TooLarge,
        "That was too large to send",
        format!("At most {} are accepted here at a time. Nothing has been saved.", size(limit)),
    )
    .code(Reason::Restriction(RestrictionKey::MaxBody))
    .next("Send something smaller.")
}

pub(super) fn malformed<'a>(what: &'static str) -> Page<'a> {
    Page::new(Kind::Malformed, "This request could not be understood", format!("What is wrong with it: {what}."))
        .code(Reason::Malformed)
        .next("If you typed or copied the address, check it. If a link brought you here, tell whoever keeps the page with that link.")
}

pub(super) fn head_too_large<'a>() -> Page<'a> {
    Page::new(Kind::HeadTooLarge, "This request is too long", "Its address or its cookies are longer than is accepted here.")
        .code(Reason::Malformed)
        .next("Delete the cookies of this site in your browser, then try again.")
}

pub(super) fn no_app<'a>() -> Page<'a> {
    Page::new(Kind::NoApp, "There is no app at this address", "The address may have a typing error, or the app may have moved.")
        .code(Reason::NoApp)
        .next("Check the address, or ask whoever gave it to you.")
}

pub(super) fn misdirected<'a>() -> Page<'a> {
    Page::new(Kind::Misdirected, "This connection was made for another address", "The address asked for needs a connection of its own.")
        .code(Reason::Misdirected)
        .next("Close this tab, then open the address again in a new one.")
}

pub(super) fn upgrade<'a>() -> Page<'a> {
    Page::new(
        Kind::Upgrade,
        "This kind of connection is not supported here",
        "The app does not permit this kind of connection, or it was not asked for in a way that can be carried.",
    )
    .code(Reason::Upgrade)
    .next("If a part of the app does not work because of this, tell the team that keeps it.")
}

pub(super) fn upstream_unreachable<'a>() -> Page<'a> {
    Page::new(Kind::UpstreamUnreachable, "The app cannot be reached", format!("It seems to be down for the moment. {NOT_YOUR_DEVICE}"))
        .code(Reason::UpstreamUnreachable)
        .next("Try again in a minute. If it lasts, tell the team below.")
        .retry(SOON)
}

pub(super) fn upstream_timeout<'a>() -> Page<'a> {
    Page::new(Kind::UpstreamTimeout, "The app did not answer in time", format!("It may be busy or down. {NOT_YOUR_DEVICE}"))
        .code(Reason::UpstreamTimeout)
        .next("If you sent something, check whether it arrived before you send it again. If it lasts, tell the team below.")
}

pub(super) fn upstream_broken<'a>() -> Page<'a> {
    Page::new(
        Kind::UpstreamBroken,
        "The app gave a broken answer",
        format!("What it sent could not be passed on to you. {NOT_YOUR_DEVICE}"),
    )
    .code(Reason::UpstreamBroken)
    .next("If you sent something, check whether it arrived before you send it again. If it lasts, tell the team below.")
}

pub(super) fn log_unavailable<'a>() -> Page<'a> {
    Page::new(
        Kind::LogUnavailable,
        "Access is paused for the moment",
        format!("Every access has to be recorded here, and just now that does not work. {NOT_YOUR_DEVICE}"),
    )
    .next("Wait a minute, then try again.")
    .retry(SOON)
}

pub(super) fn assertion_unavailable<'a>() -> Page<'a> {
    Page::new(
        Kind::AssertionUnavailable,
        "Access is paused for the moment",
        format!("This app wants to be told who is asking, signed, and just now that cannot be signed. {NOT_YOUR_DEVICE}"),
    )
    .code(Reason::AssertionUnavailable)
    .next("Wait a minute, then try again. If it lasts, tell the team below.")
    .retry(SOON)
}

pub(super) fn untrusted<'a>() -> Page<'a> {
    Page::new(
        Kind::Untrusted,
        "This address is not for browsers",
        "It answers proxies that are listed here, and the one that asked is not.",
    )
    .code(Reason::Untrusted)
    .next("Open the address of the app itself. If you keep the proxy that asked, list its address under `forward_auth.trusted`.")
}

pub(super) fn unenforceable<'a>() -> Page<'a> {
    Page::new(
        Kind::Unenforceable,
        "This device may not use the app this way",
        "It may use the app only within limits, and the server at this address cannot keep them.",
    )
    .code(Reason::Unenforceable)
    .next("Ask the team below whether the app has another address for devices like yours.")
}

pub(super) fn internal<'a>() -> Page<'a> {
    Page::new(Kind::Internal, "Something went wrong on our side", format!("The request could not be completed. {NOT_YOUR_DEVICE}"))
        .code(Reason::Internal)
        .next("Try again. If it happens again, pass on the request ID: it leads to the cause.")
}
