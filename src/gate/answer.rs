//! What goes back to the client, from a refusal's page to an app's answer.

use std::cell::OnceCell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use tokio::time::timeout_at;

use super::assertion::Signed;
use super::memo::Ruling;
use super::restrict::mend;
use super::{Ask, Conn, House, Unasked, assertion, instead, notice, refused, restrict};
use crate::forward::{self, Body, Broken, Failure, Order, Rest};
use crate::model::{Effect, Reason, RestrictionKey, jwks};
use crate::policy::{AppId, Permit};
use crate::portal::{self, App, By, Form, Refusal};
use crate::record::{Case, Labels, Visit, own};
use crate::request::{Upgrade, wants_upgrade};

/// Answers what is not decided, and records it under no app: the label of what a stranger asks for must not grow with what strangers ask for.
pub fn turn_away(conn: &Conn, house: &House, request: &Request<Rest>, unasked: &Unasked, visit: &mut Visit) -> Response<Body> {
    let reason = unasked.reason().to_string();
    let portal = matches!(unasked, Unasked::Redirect(_) | Unasked::Noticed(_) | Unasked::Keys { .. });
    let (app, effect) = if portal { ("portal", Effect::Forward) } else { ("none", Effect::Block) };
    let labels =
        Labels { app, class: "none", tier: "none", reason: &reason, owner: "none", mode: "enforce", decided: effect, done: effect };
    let (claims, _) = conn.claims(request.headers());
    let zone = house.rules.policy.zone(conn.peer);
    let sight = conn.glance(house);
    let on = conn.told(zone, &claims.merged, &sight);
    let line = own(&labels, &on, zone.map(|zone| house.rules.policy.zone_name(zone)), house.rules.policy.revision());
    visit.refused(Case::new(&conn.core.desk, &labels, line));
    let version = request.version();
    let refusal = match unasked {
        Unasked::Malformed(malformed) => Refusal::Malformed { what: malformed.0 },
        Unasked::HeadTooLarge => Refusal::HeadTooLarge,
        Unasked::Misdirected => Refusal::Misdirected,
        Unasked::NoApp => Refusal::NoApp,
        Unasked::Upgrade => Refusal::Upgrade { app: None },
        Unasked::LogUnavailable => Refusal::LogUnavailable { app: None },
        Unasked::Untrusted => Refusal::Untrusted,
        Unasked::Redirect(to) => return ours(redirect(to), request),
        Unasked::Keys { set, head } => {
            return ours(keys(set, *head), request);
        }
        Unasked::Noticed(noticed) => {
            return ours(noticed.answer(), request);
        }
    };
    let mut answer = page(&refusal, request, visit);
    if matches!(unasked, Unasked::Malformed(_) | Unasked::Upgrade) {
        ends_here(version, &mut answer);
    }
    answer
}

fn keys(set: &Bytes, head: bool) -> Response<Body> {
    let mut answer = Response::new(if head { Body::empty() } else { Body::full(set.clone()) });
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(jwks::TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(jwks::CACHE_CONTROL));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(set.len()));
    answer
}

fn redirect(to: &str) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    match HeaderValue::from_str(to) {
        Ok(to) => {
            *answer.status_mut() = StatusCode::PERMANENT_REDIRECT;
            answer.headers_mut().insert(LOCATION, to);
        }
        Err(_) => *answer.status_mut() = StatusCode::BAD_REQUEST,
    }
    answer
}

/// A page of our own, in the form that the client asked for.
pub fn page(refusal: &Refusal<'_>, request: &Request<Rest>, visit: &Visit) -> Response<Body> {
    let answer = own_page(refusal, visit, (Form::wanted(request.headers()), request.method() == Method::HEAD));
    ours(answer, request)
}

/// `asked`: the form, and whether for a head alone. HTTP/2 is not HTTP/1.1, where hyper leaves a body out by itself: there a client takes a body
/// after HEAD for a broken stream.
fn own_page(refusal: &Refusal<'_>, visit: &Visit, (form, head): (Form, bool)) -> Response<Body> {
    let answer = portal::answer(refusal, visit.id().as_str(), form);
    if !head {
        return answer.map(Body::full);
    }
    let length = answer.body().len();
    let mut answer = answer.map(|_| Body::empty());
    answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    answer
}

pub fn blocked<'a>(
    conn: &Conn,
    house: &'a House,
    (ask, ruling): (&'a Ask, &'a Ruling),
    request: &Request<Rest>,
    visit: &Visit,
) -> Refusal<'a> {
    let now = visit.now();
    let mend = Some(mend(conn, house, (ask, ruling), request, now));
    Refusal::Blocked { policy: &house.rules.policy, decision: &ruling.decision, standing: &ruling.standing, now, host: &ask.host, mend }
}

/// An answer that is not the app's.
pub fn ours(mut answer: Response<Body>, request: &Request<Rest>) -> Response<Body> {
    if wants_upgrade(request.headers(), request.method()) {
        ends_here(request.version(), &mut answer);
    }
    answer
}

/// What follows on this HTTP/1 connection may not be what the client meant to be read as a request: of another protocol, after an upgrade.
fn ends_here(version: Version, answer: &mut Response<Body>) {
    if version < Version::HTTP_2 {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Carries the request to its app and the answer back.
pub async fn send(
    conn: &Conn,
    house: &House,
    (permit, ask, ruling): (Permit, &Ask, &Rc<Ruling>),
    (request, upgrade): (&mut Request<Rest>, Option<Box<Upgrade>>),
    visit: &mut Visit,
) -> Response<Body> {
    let request_id = match conn.request_id(request.headers()) {
        Some(theirs) => theirs.clone(),
        None => visit.id().header(),
    };
    let assertion = match asserted(conn, house, (ask, ruling), visit) {
        Ok(assertion) => assertion,
        Err(refusal) => return page(&refusal, request, visit),
    };
    let bounds = restrict::bounds(conn, house, ruling, visit);
    let order = Order {
        app: ask.app,
        host: &ask.host,
        port: ask.port,
        path: ask.target.path(),
        client: &conn.client,
        request_id: &request_id,
        identity: &ruling.identity,
        assertion: assertion.as_deref().map(Signed::value),
        bounds: &bounds,
        upgrade: upgrade.as_deref(),
        // To make an assertion may take longer than all the rest.
        begun: if assertion.is_some() { Instant::now() } else { visit.decided_at() },
    };
    let version = request.version();
    // The request goes away with its headers, and a refusal's form depends on some of them.
    let asked = (Form::wanted(request.headers()), request.method() == Method::HEAD);
    let mut work = pin!(forward::send(permit, &order, &house.upstreams, request));
    let mut sent = match bounds.ends {
        None => work.await,
        // Boxed, so that connections without such a limit have no room for its timer. What was under way is dropped with the connection to the app.
        Some(ends) => match Box::pin(timeout_at(ends.into(), work.as_mut())).await {
            Ok(sent) => sent,
            Err(_) => {
                visit.late();
                let mut answer = own_page(&Refusal::UpstreamTimeout { app: app(house, ruling.decision.app) }, visit, asked);
                if upgrade.is_some() {
                    ends_here(version, &mut answer);
                }
                return answer;
            }
        },
    };
    if let Ok(answered) = &mut sent {
        visit.upstream(answered.upstream);
        if let Some(told) = &ruling.told {
            answered.response.headers_mut().insert(&notice::HEADER, told.header.clone());
        }
        // Over HTTP/2 such a status would tell the client that its WebSocket is open (RFC 8441 section 5).
        if version == Version::HTTP_2 && upgrade.is_some() && answered.response.status().is_success() {
            sent = Err(Failure::Broken(Broken::Framing("the app answered a WebSocket's opening as an ordinary request")));
        }
    }
    let mut answer = match sent {
        Ok(sent) => sent.response,
        Err(failure) => fail(conn, house, ruling, &failure, asked, visit),
    };
    if upgrade.is_some() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        ends_here(version, &mut answer);
    }
    answer
}

/// The assertion, where the app asks for one: it gets no request without.
pub(super) fn asserted<'a>(
    conn: &Conn,
    house: &'a House,
    (ask, ruling): (&Ask, &Ruling),
    visit: &mut Visit,
) -> Result<Option<Rc<Signed>>, Refusal<'a>> {
    if !house.rules.routes.get(ask.app.index()).is_some_and(|route| route.assertion) {
        return Ok(None);
    }
    assertion::of(conn, house, ruling, visit).map(Some).map_err(|assertion::Unsigned| {
        instead(conn, house, (ruling, &OnceCell::new()), Reason::AssertionUnavailable, visit);
        Refusal::AssertionUnavailable { app: app(house, ask.app) }
    })
}

fn fail(conn: &Conn, house: &House, ruling: &Rc<Ruling>, failure: &Failure, asked: (Form, bool), visit: &mut Visit) -> Response<Body> {
    let app = app(house, ruling.decision.app);
    let restricted = |by, visit: &Visit| Refusal::Restricted {
        policy: app.policy,
        decision: &ruling.decision,
        by,
        now: visit.now(),
        mend: ruling.mend.get().map(Vec::as_slice),
    };
    let (refusal, error) = match failure {
        Failure::Unreachable(_) => (Refusal::UpstreamUnreachable { app }, Some("upstream.unreachable")),
        Failure::Timeout | Failure::Silence => (Refusal::UpstreamTimeout { app }, Some("upstream.timeout")),
        Failure::Broken(_) => (Refusal::UpstreamBroken { app }, Some("upstream.broken")),
        Failure::Restricted { key, upstream } => {
            visit.upstream(*upstream);
            refused(conn, house, ruling, *key, visit);
            let by = match (key, ruling.decision.merged.max_response) {
                (RestrictionKey::MaxResponse, Some(limit)) => By::LargeResponse { limit },
                _ => By::Attachment,
            };
            (restricted(by, visit), None)
        }
        Failure::BodyTooLarge { limit } if ruling.decision.merged.max_body == Some(*limit) => {
            refused(conn, house, ruling, RestrictionKey::MaxBody, visit);
            (restricted(By::LargeBody { limit: *limit }, visit), None)
        }
        Failure::BodyTooLarge { limit } => (Refusal::TooLarge { app, limit: *limit }, None),
        Failure::ClientTimeout => (Refusal::Malformed { what: "the request's body stopped coming" }, Some("request.cut")),
        Failure::ClientGone => (Refusal::Malformed { what: "the request ended before it was whole" }, Some("request.cut")),
    };
    if let Some(error) = error {
        visit.failed(error);
        tracing::debug!(app = app.policy.app_name(app.id), ?failure, "no answer from the app");
    }
    own_page(&refusal, visit, asked)
}

pub(super) fn app(house: &House, app: AppId) -> App<'_> {
    App { policy: &house.rules.policy, id: app }
}
