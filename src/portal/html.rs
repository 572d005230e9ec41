//! The page for people: one document without script, pictures or anything from elsewhere, readable on a phone and by a screen reader.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::page::{Card, Kind, Line, Page};
use super::problem::uri_encoded;
use super::words::ago;
use crate::model::FactState;
use crate::policy::draft::Owner;

const STYLE: &str = include_str!("page.css");

/// The hash is of `page.css`; a test computes it anew.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'sha256-Db6Q4aPaW7unFWhRL2ue7IW3pkXlcUgy+Dm1ukauEgA='; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The same for a page whose button leads back to its own host.
pub(super) const WITH_A_BUTTON: &str = "default-src 'none'; style-src 'sha256-Db6Q4aPaW7unFWhRL2ue7IW3pkXlcUgy+Dm1ukauEgA='; \
     base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

pub(super) fn render(page: &Page<'_>, request_id: &str) -> String {
    let tone = Tone::of(page);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (page.headline) }
                style { (PreEscaped(STYLE)) }
            }
            body class=(tone.class()) {
                main {
                    header {
                        div class="mark" { (tone.mark()) }
                        @if let Some(app) = page.app {
                            p class="app" { (app) @if let Some(host) = page.host { " · " (host) } }
                        }
                        h1 { (page.headline) }
                        p class="lead" { (page.lead) }
                    }
                    @if let Some((to, says)) = &page.action {
                        form class="go" method="post" action=(to) { button { (says) } }
                    }
                    (why(page))
                    (when(page))
                    (next(page))
                    @if let Some(card) = &page.device { (device(card)) }
                    (help(page, request_id))
                }
                footer {
                    "Status " (page.kind.status().as_u16())
                    @for (index, why) in page.reasons.iter().enumerate() {
                        @if index == 0 { " · Reason " } @else { ", " }
                        code { (why.code) }
                    }
                }
            }
        }
    }
    .into_string()
}

fn why(page: &Page<'_>) -> Markup {
    let texts: Vec<&str> = page.sentences().collect();
    html! {
        @if !texts.is_empty() {
            section aria-labelledby="why" {
                h2 id="why" { "Why" }
                ul class="why" {
                    @for text in texts { li { (icon(18, &format!("{CIRCLE}M8 4.7v3.8M8 11v.1"))) span { (text) } } }
                }
            }
        }
    }
}

fn when(page: &Page<'_>) -> Markup {
    html! {
        @if !page.deadlines.is_empty() {
            section aria-labelledby="when" {
                h2 id="when" { "When" }
                ul class="why" {
                    @for line in &page.deadlines { li { (icon(18, &format!("{CIRCLE}M8 4.5V8l2.3 1.7"))) span { (line.text) } } }
                }
            }
        }
    }
}

fn next(page: &Page<'_>) -> Markup {
    html! {
        @if !page.steps.is_empty() || !page.next.is_empty() {
            section aria-labelledby="next" {
                h2 id="next" { "What you can do" }
                @if !page.steps.is_empty() {
                    ol class="steps" {
                        @for step in &page.steps {
                            li {
                                strong { (step.text) }
                                @if let Some(help) = step.help {
                                    a href=(help) rel="noreferrer noopener" { "How to do it" span class="hide" { ": " (step.about) } }
                                }
                            }
                        }
                    }
                }
                @for sentence in &page.next { p { (sentence) } }
            }
        }
    }
}

fn device(card: &Card<'_>) -> Markup {
    html! {
        section aria-labelledby="device" {
            h2 id="device" { "This device" }
            p class="name" { (card.name) }
            @if let Some(platform) = &card.platform { p class="soft" { (platform) } }
            @if !card.facts.is_empty() {
                ul class="facts" { @for line in &card.facts { (fact(line)) } }
            }
        }
    }
}

fn fact(line: &Line) -> Markup {
    let (word, path) = match line.state {
        FactState::Ok => ("Good", "M5.2 8.3l2 2L11 6.2"),
        FactState::Fail => ("Needs attention", "M5.8 5.8l4.4 4.4M10.2 5.8l-4.4 4.4"),
        FactState::Unknown => ("Not known", "M6.2 6.3a1.8 1.8 0 1 1 2.6 1.6c-.5.3-.8.6-.8 1.2M8 11.3v.1"),
    };
    html! {
        li {
            span {
                (line.label)
                small {
                    @match line.age {
                        Some(age) => { "last checked " (ago(age)) }
                        None => { "never checked" }
                    }
                }
            }
            span class={ "state " (line.state.as_str()) } { (icon(18, &format!("{CIRCLE}{path}"))) (word) }
        }
    }
}

fn help(page: &Page<'_>, request_id: &str) -> Markup {
    html! {
        section aria-labelledby="help" {
            h2 id="help" { "Who can help" }
            @if let Some(owner) = page.owner {
                p class="contact" { (contact(owner, page, request_id)) }
                p class="soft" { "The team “" (owner.name) "” answers for this. Quote the request ID, so that they can see what happened:" }
            } @else {
                p class="soft" { "Your IT support. Quote the request ID, so that they can see what happened:" }
            }
            code class="id" { (request_id) }
        }
    }
}

/// A contact is whatever the operator wrote: an e-mail address and a web address become links, a chat channel or a telephone number stays text.
fn contact(owner: &Owner, page: &Page<'_>, request_id: &str) -> Markup {
    let text = owner.contact.trim();
    let subject = format!("{} (request {request_id})", page.app.unwrap_or(page.kind.title()));
    html! {
        @if is_email(text) {
            a href={ "mailto:" (text) "?subject=" (uri_encoded(&subject)) } { (text) }
        } @else if super::block::is_web(text) {
            a href=(text) rel="noreferrer noopener" { (text) }
        } @else {
            (text)
        }
    }
}

/// Narrower than RFC 5322 on purpose: nothing that could add a header to the mail, such as `?cc=`.
fn is_email(text: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b));
    text.split_once('@').is_some_and(|(name, domain)| part(name) && part(domain))
}

/// The colour and mark: something to mend, a closed door, or a wait.
#[derive(Clone, Copy)]
enum Tone {
    Mend,
    Stop,
    Wait,
}

impl Tone {
    fn of(page: &Page<'_>) -> Self {
        match page.kind {
            Kind::Blocked if page.shut => Self::Stop,
            Kind::Blocked
            | Kind::Method
            | Kind::Path
            | Kind::Attachment
            | Kind::LargeResponse
            | Kind::TooLarge
            | Kind::Untrusted
            | Kind::Unenforceable
            | Kind::Notice => Self::Mend,
            Kind::Unavailable
            | Kind::TooMany
            | Kind::Malformed
            | Kind::HeadTooLarge
            | Kind::NoApp
            | Kind::Misdirected
            | Kind::Upgrade
            | Kind::UpstreamUnreachable
            | Kind::UpstreamTimeout
            | Kind::UpstreamBroken
            | Kind::LogUnavailable
            | Kind::AssertionUnavailable
            | Kind::Internal => Self::Wait,
        }
    }

    const fn class(self) -> &'static str {
        match self {
            Self::Mend => "mend",
            Self::Stop => "stop",
            Self::Wait => "wait",
        }
    }

    /// A shield with a note, a closed lock, a plain note.
    fn mark(self) -> Markup {
        icon(
            28,
            match self {
                Self::Mend => "M8 1.8l5 1.9v3.9c0 3-2 5.4-5 6.6-3-1.2-5-3.6-5-6.6V3.7zM8 5.2v3M8 10.5v.1",
                Self::Stop => "M4 7.2h8v6H4zM5.7 7.2V5a2.3 2.3 0 0 1 4.6 0v2.2",
                Self::Wait => "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12zM8 4.8v3.4M8 10.9v.1",
            },
        )
    }
}

const CIRCLE: &str = "M8 14.5a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13z";

/// Drawn on a grid of 16 by 16 in the colour of the text; words say the same, so that a screen reader passes it over.
fn icon(size: u8, path: &str) -> Markup {
    html! {
        svg width=(size) height=(size) viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round"
            stroke-linejoin="round" aria-hidden="true" { path d=(path); }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_allows_this_style_and_no_other() {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, STYLE.as_bytes());
        let directive = format!("style-src 'sha256-{}';", base64(digest.as_ref()));
        assert!(CONTENT_SECURITY_POLICY.contains(&directive) && WITH_A_BUTTON.contains(&directive), "page.css has changed: {directive}");
        assert!(!STYLE.contains('<'), "the style ends where the page says so");
    }

    fn base64(bytes: &[u8]) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let group = (0..3).fold(0u32, |group, i| group << 8 | u32::from(chunk.get(i).copied().unwrap_or(0)));
            for i in 0..=3 {
                text.push(if i <= chunk.len() { char::from(ALPHABET[(group >> (18 - 6 * i) & 63) as usize]) } else { '=' });
            }
        }
        text
    }
}
