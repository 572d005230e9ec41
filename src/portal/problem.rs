//! The twins of the page for programs: problem details (RFC 9457) and a gRPC status.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use serde::Serialize;

use super::page::{Kind, Page};

#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: String,
    instance: &'a str,
    reasons: Vec<&'a str>,
    fixes: Vec<Fix<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deadlines: Vec<Deadline<'a>>,
    owner: Option<&'a str>,
    contact: Option<&'a str>,
}

#[derive(Serialize)]
struct Fix<'a> {
    reason: &'a str,
    text: &'a str,
    help: Option<&'a str>,
}

#[derive(Serialize)]
struct Deadline<'a> {
    fact: &'a str,
    step: &'a str,
    at: &'a str,
}

pub(super) fn json(page: &Page<'_>, request_id: &str) -> Vec<u8> {
    let problem = Problem {
        r#type: format!("urn:vestibule:problem:{}", page.kind.name()),
        title: page.kind.title(),
        status: page.kind.status().as_u16(),
        detail: detail(page),
        instance: request_id,
        reasons: page.reasons.iter().map(|why| why.code.as_str()).collect(),
        fixes: page.steps.iter().map(|step| Fix { reason: &step.reason, text: step.text, help: step.help }).collect(),
        deadlines: page.deadlines.iter().map(|line| Deadline { fact: line.fact, step: line.step, at: &line.at }).collect(),
        owner: page.owner.map(|owner| owner.name.as_str()),
        contact: page.owner.map(|owner| owner.contact.as_str()),
    };
    // Nothing but strings and numbers: it cannot fail, and an empty body under the right status would still be an answer.
    let mut text = serde_json::to_vec(&problem).unwrap_or_default();
    text.push(b'\n'); // for the person with curl in a terminal
    text
}

/// Trailers-only: the status stands in the header and there is no body.
pub(super) fn grpc(page: &Page<'_>, request_id: &str, headers: &mut HeaderMap) {
    headers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from(grpc_status(page.kind)));
    let message = percent_encoded(&format!("{} (request {request_id})", detail(page)));
    if let Ok(message) = HeaderValue::from_str(&message) {
        headers.insert(HeaderName::from_static("grpc-message"), message);
    }
}

/// Headline, lead, reasons and dates, all as sentences.
fn detail(page: &Page<'_>) -> String {
    let deadlines = page.deadlines.iter().map(|deadline| deadline.text.as_str());
    page.sentences().chain(deadlines).fold(format!("{}. {}", page.headline, page.lead), |text, sentence| format!("{text} {sentence}."))
}

/// By the meaning of the code, not by the HTTP table of gRPC, which would make every refusal look like a lost connection. A client may repeat
/// what is UNAVAILABLE, hence never a call that the app may have run.
const fn grpc_status(kind: Kind) -> u16 {
    const DEADLINE_EXCEEDED: u16 = 4;
    const PERMISSION_DENIED: u16 = 7;
    const RESOURCE_EXHAUSTED: u16 = 8;
    const UNIMPLEMENTED: u16 = 12;
    const INTERNAL: u16 = 13;
    const UNAVAILABLE: u16 = 14;
    match kind {
        Kind::Blocked | Kind::Method | Kind::Path | Kind::Attachment | Kind::Notice | Kind::Untrusted | Kind::Unenforceable => {
            PERMISSION_DENIED
        }
        Kind::LargeResponse | Kind::TooLarge | Kind::TooMany | Kind::HeadTooLarge => RESOURCE_EXHAUSTED,
        Kind::NoApp | Kind::Upgrade => UNIMPLEMENTED,
        Kind::Unavailable | Kind::UpstreamUnreachable | Kind::LogUnavailable | Kind::AssertionUnavailable | Kind::Misdirected => {
            UNAVAILABLE
        }
        Kind::UpstreamTimeout => DEADLINE_EXCEEDED,
        Kind::Malformed | Kind::UpstreamBroken | Kind::Internal => INTERNAL,
    }
}

/// The gRPC protocol's Percent-Encoded: printable ASCII but `%` stands for itself.
fn percent_encoded(text: &str) -> String {
    encoded(text, |byte| matches!(byte, b' '..=b'~') && byte != b'%')
}

/// For a part of a URI: only unreserved characters stand for themselves (RFC 3986 section 2.3).
pub fn uri_encoded(text: &str) -> String {
    encoded(text, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'))
}

fn encoded(text: &str, stands: fn(u8) -> bool) -> String {
    let hex = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0').to_ascii_uppercase();
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if stands(byte) {
            out.push(char::from(byte));
        } else {
            out.extend(['%', hex(byte >> 4), hex(byte & 15)]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding() {
        assert_eq!(percent_encoded("100% “sure”\r\n~"), "100%25 %E2%80%9Csure%E2%80%9D%0D%0A~");
        assert_eq!(uri_encoded("Team wiki & co. (a-b_c~d)"), "Team%20wiki%20%26%20co.%20%28a-b_c~d%29");
    }
}
