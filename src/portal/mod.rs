//! What people see when a request is refused: one page, and its twins for programs and for gRPC.
//!
//! A refusal is first turned into a `Page`, plain words without any policy table, then written in the form that the client
//! asked for. Texts say what happened, why, what to do next and whom to ask; nothing of the request but its host is repeated.

mod block;
mod form;
mod html;
mod ladder;
mod page;
mod plain;
mod problem;
mod restricted;
#[cfg(test)]
mod tests;
mod words;

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY, RETRY_AFTER, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use jiff::Timestamp;

pub use self::form::Form;
pub use self::ladder::{MARK, Told};
use self::page::Page;
pub use self::problem::uri_encoded;
use crate::model::{Host, Standing};
use crate::policy::{AppId, Decision, FixId, Policy};

/// The app that a refused request was for: its title, owner and contact go on the page.
#[derive(Clone, Copy, Debug)]
pub struct App<'a> {
    pub policy: &'a Policy,
    pub id: AppId,
}

/// Why a request gets no answer of an app's. The app is named wherever it is known, since its owner is whom people ask.
#[derive(Clone, Copy, Debug)]
pub enum Refusal<'a> {
    /// The decision blocks. `mend`, here and below: what together would earn more; where it is not known, what the reasons name.
    /// It is answered 403, or 503 with Retry-After when the device's record could not be read.
    Blocked {
        policy: &'a Policy,
        decision: &'a Decision,
        standing: &'a Standing,
        now: Timestamp,
        host: &'a Host,
        mend: Option<&'a [FixId]>,
    },
    /// A restriction refuses.
    Restricted { policy: &'a Policy, decision: &'a Decision, by: By, now: Timestamp, mend: Option<&'a [FixId]> },
    /// Over `limits.body_size`, in bytes: 413.
    TooLarge { app: App<'a>, limit: u64 },
    /// 400. `what` is a sentence fit for a person, without any byte of the request.
    Malformed { what: &'static str },
    /// 431.
    HeadTooLarge,
    /// 404: the host and path are no app's.
    NoApp,
    /// 421: the certificate of this connection does not cover the host.
    Misdirected,
    /// 501: an upgrade that the app does not permit, or a tunnel.
    Upgrade { app: Option<App<'a>> },
    /// 503 with Retry-After: no connection to the app.
    UpstreamUnreachable { app: App<'a> },
    /// 504: the app did not answer in time.
    UpstreamTimeout { app: App<'a> },
    /// 502: what the app answered is not HTTP.
    UpstreamBroken { app: App<'a> },
    /// 503 with Retry-After: the decision log is required and cannot be written.
    LogUnavailable { app: Option<App<'a>> },
    /// 503 with Retry-After: the app takes signed assertions only, and none can be signed.
    AssertionUnavailable { app: App<'a> },
    /// 403: a question from who is not listed to ask.
    Untrusted,
    /// 403: the decision restricts in a way that the proxy that asks would have to hold.
    Unenforceable { app: App<'a> },
    /// 500: our own fault.
    Internal { app: Option<App<'a>> },
}

/// Which restriction refuses. Sizes are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// `restrict.methods`: 403 with Allow.
    Method,
    /// `restrict.paths`: 403, as the next two.
    Path,
    /// `restrict.attachments`.
    Attachment,
    /// `restrict.max_response`, by the declared length.
    LargeResponse { limit: u64 },
    /// `restrict.max_body`: 413.
    LargeBody { limit: u64 },
    /// `restrict.requests`: 429. Retry-After is rounded up to whole seconds, at least one.
    Rate { retry_after: Duration },
}

/// The app is open, and there is something to say before.
#[derive(Clone, Copy, Debug)]
pub struct Notice<'a> {
    pub policy: &'a Policy,
    pub decision: &'a Decision,
    pub standing: &'a Standing,
    pub now: Timestamp,
    pub host: &'a Host,
    /// Where the button that goes on is sent, by POST: a path of the same host.
    pub action: &'a str,
}

/// The page of a notice, for a browser.
pub fn notice(notice: &Notice<'_>, request_id: &str) -> Response<Bytes> {
    let mut response = write(&restricted::notice(notice), request_id, Form::Html);
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(html::WITH_A_BUTTON));
    // Without one, a form's origin is `null`.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// The whole answer. `request_id` stands in every form.
pub fn answer(refusal: &Refusal<'_>, request_id: &str, form: Form) -> Response<Bytes> {
    write(&Page::of(refusal), request_id, form)
}

fn write(page: &Page<'_>, request_id: &str, form: Form) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let (status, content_type) = match form {
        Form::Html => (page.kind.status(), "text/html; charset=utf-8"),
        Form::Problem => (page.kind.status(), "application/problem+json"),
        Form::Grpc => (StatusCode::OK, "application/grpc"),
        Form::GrpcWeb => (StatusCode::OK, "application/grpc-web+proto"),
    };
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.insert(name, value);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    if let Some(seconds) = page.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(allowed) = &page.allowed
        && let Ok(value) = HeaderValue::from_str(&allowed.join(", "))
    {
        headers.insert(ALLOW, value);
    }
    match form {
        Form::Html => *response.body_mut() = html::render(page, request_id).into(),
        Form::Problem => *response.body_mut() = problem::json(page, request_id).into(),
        Form::Grpc | Form::GrpcWeb => problem::grpc(page, request_id, headers),
    }
    response
}

/// An answer about one device at one moment is nobody else's, and nothing on it may load, run or be framed.
const ALWAYS: [(HeaderName, HeaderValue); 5] = [
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (VARY, HeaderValue::from_static("Accept")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static(html::CONTENT_SECURITY_POLICY)),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];
