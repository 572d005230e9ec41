//! Asks servers whether they are well.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use bytes::Buf;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{HeaderValue, Request};
use jiff::Timestamp;
use rustls::ClientConfig;
use tokio::time::timeout;

use super::arriving::Arriving;
use super::fitness::millis;
use super::hygiene;
use super::pool::{Caps, Conn, Server};
use super::servers::{CheckCounts, Place, Pooled, held};
use super::upload::RequestBody;
use crate::config::Health;
use crate::record::Cell;

/// Of a check's answer; a longer one is left unread.
const BODY: usize = 64 * 1024;

/// What checks showed of a server.
#[derive(Debug, Default)]
pub(super) struct Checked {
    verdict: Verdict,
    /// Checks in a row that say otherwise.
    against: u32,
    pub(super) last: Option<Check>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Taken to be well until the first check, which alone decides.
    #[default]
    Unchecked,
    Well,
    Down,
}

/// One check.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) at: Timestamp,
    pub(super) took: Duration,
    /// The status of a server that is well, or why it is not.
    pub(super) result: Result<u16, Unwell>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Unwell {
    #[error("status {0}")]
    Status(u16),
    #[error("no answer in time")]
    Timeout,
    #[error("no connection: {0}")]
    Unreachable(String),
    #[error("no sound answer: {0}")]
    Broken(String),
    /// This process or machine is at its own limits: nothing was learned of the server.
    #[error("the proxy itself cannot connect: {0}")]
    Ours(io::Error),
}

impl CheckCounts {
    fn of(&self, result: &Result<u16, Unwell>) -> &Cell {
        match result {
            Ok(_) => &self.passed,
            Err(Unwell::Ours(_)) => &self.not_made,
            Err(Unwell::Status(_)) => &self.status,
            Err(Unwell::Timeout) => &self.timeout,
            Err(Unwell::Unreachable(_)) => &self.unreachable,
            Err(Unwell::Broken(_)) => &self.broken,
        }
    }
}

impl Checked {
    /// `None`: the verdict stays.
    fn hear(&mut self, well: bool, health: &Health) -> Option<Verdict> {
        let (says, needed) = if well { (Verdict::Well, health.rise) } else { (Verdict::Down, health.fall) };
        if self.verdict == says {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.verdict != Verdict::Unchecked && self.against < needed {
            return None;
        }
        self.against = 0;
        self.verdict = says;
        Some(says)
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.verdict
    }
}

impl Place {
    /// The new verdict, if it changed.
    fn heard(&self, check: Check, health: &Health) -> Option<Verdict> {
        let mut checked = held(&self.checked);
        let verdict = match &check.result {
            Err(Unwell::Ours(_)) => None,
            result => checked.hear(result.is_ok(), health),
        };
        match &check.result {
            Ok(_) => self.fitness.connected(true),
            Err(Unwell::Unreachable(_)) => self.fitness.connected(false),
            Err(_) => {}
        }
        checked.last = Some(check);
        match verdict {
            Some(Verdict::Down) => self.fitness.down(),
            Some(_) => self.fitness.well(millis(Instant::now())),
            None => {}
        }
        verdict
    }

    /// Nobody checks it any more.
    pub(super) fn unchecked(&self) {
        *held(&self.checked) = Checked::default();
        self.fitness.well(millis(Instant::now()));
    }
}

/// What one server is asked, of one configuration.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) app: Arc<str>,
    pub(super) url: Arc<str>,
    pub(super) host: HeaderValue,
    pub(super) health: Health,
    pub(super) counts: CheckCounts,
    /// Of `https://`.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl Question {
    pub(super) fn is(&self, other: &Self) -> bool {
        let tls = |question: &Self| question.tls.as_ref().map(Arc::as_ptr);
        (&self.app, &self.url, &self.host, &self.health, tls(self)) == (&other.app, &other.url, &other.host, &other.health, tls(other))
    }
}

/// Asks again and again; ends with its task. Where `spawn_local` works.
pub(super) async fn check(question: Question, place: Arc<Place>) {
    let Question { app, url, health, counts, .. } = &question;
    // Not all servers in the same moment.
    tokio::time::sleep(health.every.mul_f32(fastrand::f32() / 10.0)).await;
    loop {
        let (at, began) = (Timestamp::now(), Instant::now());
        let result = ask(&place, &question).await;
        counts.of(&result).add(1);
        let why = result.as_ref().err().map(ToString::to_string);
        match (place.heard(Check { at, took: began.elapsed(), result }, health), why) {
            (Some(Verdict::Down), Some(why)) => {
                tracing::warn!(app = &**app, server = &**url, address = %place.reach, why, "server is down");
            }
            (Some(_), _) => tracing::info!(app = &**app, server = &**url, address = %place.reach, "server is well"),
            (None, _) => {}
        }
        // Give or take a tenth, so that proxies do not ask in step.
        tokio::time::sleep(health.every.mul_f32(0.9 + fastrand::f32() / 5.0)).await;
    }
}

/// By a connection of its own, made as those for requests are, so that a server that takes no new ones is found out.
async fn ask(place: &Place, question: &Question) -> Result<u16, Unwell> {
    let health = &question.health;
    let body = timeout(health.timeout, head(place, question)).await.unwrap_or(Err(Unwell::Timeout));
    let (status, mut body, mut conn) = body?;
    // Read, so that the app's log has no broken connection; what is wrong with a body is not the check's matter.
    let mut left = BODY;
    let read = poll_fn(|cx| {
        while let Some(Ok(frame)) = ready!(body.poll_frame(&mut conn, cx)) {
            left = left.saturating_sub(frame.data_ref().map_or(0, Buf::remaining));
            if left == 0 {
                break;
            }
        }
        Poll::Ready(())
    });
    let _ = timeout(health.timeout, read).await;
    Ok(status)
}

/// The answer's status, and what is left of it on its connection.
async fn head(place: &Place, question: &Question) -> Result<(u16, Arriving, Conn), Unwell> {
    let health = &question.health;
    let caps = Caps { idle: 0, open: 1, max_age: Duration::MAX };
    let server = Server::new(place.reach.clone(), caps, Pooled::default(), question.tls.clone());
    // Nobody's: a server that is told whom a connection is for is told that.
    let conn = server.connect(health.timeout, None).await.map_err(|error| match error.kind() {
        _ if is_ours(&error) => Unwell::Ours(error),
        io::ErrorKind::TimedOut => Unwell::Timeout,
        _ => Unwell::Unreachable(error.to_string()),
    })?;
    let mut request = Request::new(RequestBody::Empty);
    if let Ok(path) = health.path.parse() {
        *request.uri_mut() = path;
    }
    let fields = request.headers_mut();
    fields.insert(HOST, question.host.clone());
    fields.insert(USER_AGENT, HeaderValue::from_static(concat!("vestibule/", env!("CARGO_PKG_VERSION"), " (health check)")));
    fields.insert(ACCEPT, HeaderValue::from_static("*/*"));
    let (status, body, conn) =
        if conn.lease().is_some() { over_http2(conn, &request, server.is_secure()).await } else { over_http1(conn, request).await }
            .map_err(|why| Unwell::Broken(why.to_string()))?;
    if health.status.iter().any(|range| range.contains(&status)) { Ok((status, body, conn)) } else { Err(Unwell::Status(status)) }
}

type Head = Result<(u16, Arriving, Conn), Box<dyn Error>>;

async fn over_http1(mut conn: Conn, request: Request<RequestBody>) -> Head {
    let Some((requests, driven)) = conn.parts() else { return Err("the connection is not HTTP/1.1".into()) };
    driven.detach();
    let said = |error: hyper::Error| error.source().map_or_else(|| error.to_string(), ToString::to_string);
    let response = requests.send_request(request).await.map_err(said)?;
    Ok((response.status().as_u16(), Arriving::Http1(response.into_body()), conn))
}

async fn over_http2(conn: Conn, request: &Request<RequestBody>, secure: bool) -> Head {
    let head = hygiene::over_http2(request, secure).ok_or("the Host of checks cannot stand in a request of HTTP/2")?;
    let lease = conn.lease().ok_or("the connection is not HTTP/2")?;
    let mut exchanged = lease.start(head, RequestBody::Empty, conn.pulse()).map_err(|(error, _)| error)?;
    let (head, stream) = poll_fn(|cx| exchanged.poll(cx)).await?.into_parts();
    Ok((head.status.as_u16(), Arriving::Http2(exchanged.receive(stream)), conn))
}

/// This process or machine is at its own limits: no fault of the server.
pub(super) fn is_ours(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(rise: u32, fall: u32) -> Health {
        let second = Duration::from_secs(1);
        Health { path: "/".into(), host: None, every: second, timeout: second, status: vec![200..=399], rise, fall }
    }

    #[test]
    fn the_first_check_decides_and_then_so_many_in_a_row() {
        let health = health(2, 3);
        let mut checked = Checked::default();
        let mut hear = |well| checked.hear(well, &health);
        assert_eq!(hear(true), Some(Verdict::Well));
        assert_eq!([hear(false), hear(false), hear(true), hear(false), hear(false)], [None; 5]);
        assert_eq!([hear(false), hear(false), hear(true), hear(false)], [Some(Verdict::Down), None, None, None]);
        assert_eq!([hear(true), hear(true), hear(true)], [None, Some(Verdict::Well), None]);
        let mut first = Checked::default();
        assert_eq!(first.hear(false, &health), Some(Verdict::Down), "nobody knows it to be well");
    }
}
