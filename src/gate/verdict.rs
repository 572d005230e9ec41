//! Asked, not carried: the answer to a proxy that stays in place and wants to know whether to carry a request.
//!
//! A pass is 200 with what the app is to be told; everything else is a refusal, with a status that no proxy takes for a pass.

use std::cell::OnceCell;
use std::rc::Rc;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, FORWARDED, HOST, SEC_WEBSOCKET_KEY};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};

use super::answer::{app, asserted, blocked, page, turn_away};
use super::assertion::Signed;
use super::memo::Ruling;
use super::restrict::keep;
use super::{Ask, Conn, House, Unasked, ask, counted, instead, notice, rule};
use crate::forward::{self, Body, Rest};
use crate::model::Reason;
use crate::policy::draft::Restriction;
use crate::policy::{Decision, Permit, Policy};
use crate::portal::Refusal;
use crate::record::Visit;
use crate::request::{self, Malformed, Manner, hop, same_segments};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A question from its head to the head of its answer. It is decided, counted and logged as the request that it is about.
pub async fn answer(asker: &Rc<Conn>, request: &mut Request<Rest>) -> Response<Body> {
    let house = asker.core.house();
    let mut visit = asker.core.desk.begin();
    let method = request.method().clone();
    let manner = Manner::of(request.uri().path()).unwrap_or(Manner::ForwardAuth);
    let mut answer = match read(asker, &house, request, &mut visit) {
        Err(keys @ Unasked::Keys { .. }) => turn_away(asker, &house, request, &keys, &mut visit),
        Err(unasked) => {
            as_asked(request, method);
            refusing(turn_away(asker, &house, request, &unasked, &mut visit), manner)
        }
        Ok((conn, leaves)) => match place(request, &conn, &house, &mut visit) {
            Err(unasked) => {
                as_asked(request, method);
                refusing(turn_away(&conn, &house, request, &unasked, &mut visit), manner)
            }
            Ok(ask) => {
                let known = conn.known(&house, visit.began(), visit.started()).await;
                let ruling = rule(&conn, &house, &ask, request, known, &mut visit);
                match passes(&conn, &house, (&ask, &ruling), (request, leaves), &mut visit) {
                    Ok(assertion) => pass(&ruling, assertion.as_deref(), &visit),
                    Err(refusal) => {
                        as_asked(request, method);
                        refusing(page(&refusal, request, &visit), manner)
                    }
                }
            }
        },
    };
    counted(visit, &mut answer, None);
    answer
}

/// Makes of the question the request that it is about, of the client that it is of, which may want to leave HTTP. Only who is listed may ask.
fn read(asker: &Rc<Conn>, house: &House, request: &mut Request<Rest>, visit: &mut Visit) -> Result<(Rc<Conn>, bool), Unasked> {
    visit.asked(request.method());
    if let Some(keys) = ask::keys(request.method(), request.uri().path(), house) {
        return Err(keys);
    }
    if !house.rules.believed.get(&asker.door.listener).is_some_and(|believed| believed.answers(asker.peer)) {
        return Err(Unasked::Untrusted);
    }
    let asked = request::asked(request.method(), request.uri(), request.headers())?;
    visit.put_by(asked.manner.as_str());
    visit.asked(&asked.method);
    let headers = request.headers_mut();
    // No proxy that asks sets it, so whatever is there is the client's.
    headers.remove(FORWARDED);
    // Without an address of its own a client would have the proxy's, which rules may well trust more.
    let conn = asker.spoken_for(house, headers).filter(|conn| conn.comes_through_others() || conn.fault(house).is_some());
    let conn = conn.ok_or(Malformed("X-Forwarded-For does not say whose request it is"))?;
    if let Some(id) = headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok()) {
        visit.client_request_id(id);
    }
    // An `Upgrade` is the client's wish to the proxy that asks, which carries it or not; the question itself wants none. Many proxies leave it out of
    // their questions, and of a WebSocket only the key.
    let leaves = hop::wants_upgrade(headers, &asked.method) || headers.contains_key(SEC_WEBSOCKET_KEY);
    hop::strip_request(headers, |_| {});
    headers.insert(HOST, asked.host);
    *request.method_mut() = asked.method;
    *request.uri_mut() = Uri::from(asked.target);
    Ok((conn, leaves))
}

/// The app and the place in it. What is ours on every host is no app's, here too, and the proxy that asks has nothing to carry it to.
fn place(request: &Request<Rest>, conn: &Conn, house: &House, visit: &mut Visit) -> Result<Ask, Unasked> {
    let ask = Ask::read(request, conn, house, visit).map_err(|unasked| match unasked {
        Unasked::Noticed(_) | Unasked::Keys { .. } | Unasked::Redirect(_) => Unasked::NoApp,
        unasked => unasked,
    })?;
    if same_segments(request.uri().path(), ask.target.path()) {
        return Ok(ask);
    }
    Err(Malformed("the path has dot segments or empty ones, and the app would get them").into())
}

/// Whether the request may be carried, and what the app is to be told then.
fn passes<'a>(
    conn: &Conn,
    house: &'a House,
    (ask, ruling): (&'a Ask, &'a Ruling),
    (request, leaves): (&Request<Rest>, bool),
    visit: &mut Visit,
) -> Result<Option<Rc<Signed>>, Refusal<'a>> {
    if Permit::of(&ruling.decision).is_none() {
        return Err(blocked(conn, house, (ask, ruling), request, visit));
    }
    if !is_kept_by_asking(&house.rules.policy, &ruling.decision) {
        instead(conn, house, (ruling, &OnceCell::new()), Reason::Unenforceable, visit);
        return Err(Refusal::Unenforceable { app: app(house, ask.app) });
    }
    keep(conn, house, (ask, ruling), (request, leaves), visit)?;
    asserted(conn, house, (ask, ruling), visit)
}

/// Whether all that the decision asks for can be seen to by an answer to a question: methods, paths and rates. To let pass what is to be restricted
/// otherwise would be to loosen it.
fn is_kept_by_asking(policy: &Policy, decision: &Decision) -> bool {
    decision.done.restrictions.iter().map(|id| policy.restriction(id)).all(|restriction| {
        // Whole, so that a new restriction cannot be forgotten here.
        let Restriction {
            name: _,
            methods: _,
            allowed_paths: _,
            denied_paths: _,
            requests: _,
            no_store,
            sandbox,
            permissions_policy,
            no_attachments,
            max_body,
            max_response,
            bandwidth,
            max_stream,
        } = restriction;
        let shown = *no_store || *sandbox || *no_attachments || !permissions_policy.is_empty();
        !shown && max_body.or(*max_response).or(*bandwidth).is_none() && max_stream.is_none()
    })
}

fn pass(ruling: &Ruling, assertion: Option<&Signed>, visit: &Visit) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    let headers = answer.headers_mut();
    *headers = forward::told(&ruling.identity, assertion.map(Signed::value));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(visit.id().as_str()) {
        headers.insert(&REQUEST_ID, id);
    }
    if let Some(told) = &ruling.told {
        headers.insert(&notice::HEADER, told.header.clone());
    }
    answer
}

/// The question again, for its answer: whether that has a body depends on how it was asked, and a refusal in gRPC's form would have the status of a pass.
fn as_asked(request: &mut Request<Rest>, method: Method) {
    *request.method_mut() = method;
    request.headers_mut().remove(CONTENT_TYPE);
}

/// Nothing that comes through here is a pass. nginx takes every status of a refusal but 401 and 403 for a fault of ours, so
/// that it gets another only where there is one.
fn refusing(mut answer: Response<Body>, manner: Manner) -> Response<Body> {
    let status = answer.status();
    let understood = match manner {
        Manner::AuthRequest => status == StatusCode::SERVICE_UNAVAILABLE,
        Manner::ForwardAuth | Manner::ExtAuthz => status.is_client_error() || status.is_server_error(),
    };
    if !understood {
        *answer.status_mut() = StatusCode::FORBIDDEN;
    }
    answer
}
