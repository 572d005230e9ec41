//! What restrictions make of a request that the policy let pass.

use http::Request;
use jiff::Timestamp;

use super::memo::Ruling;
use super::{Ask, Conn, House, refused};
use crate::config::Protocol;
use crate::forward::{Bounds, Lanes, Rest, Subject};
use crate::model::RestrictionKey;
use crate::policy::{FixId, Given, Http, Inputs};
use crate::portal::{App, By, Refusal};
use crate::record::Visit;
use crate::request::{Upgrade, wants_upgrade};

/// What refuses a request before anything of it goes to the app: an upgrade that the app does not permit, and the restrictions that need no body.
/// Methods and paths come before rates, so that what is refused for them costs no turn. Records what refuses. Gives the upgrade that is left to ask
/// the app for.
///
/// Where methods are restricted, what follows a switch is none of them. CONNECT stands for it, by which HTTP/2 asks for a WebSocket.
pub fn restrict<'a>(
    conn: &Conn,
    house: &'a House,
    (ask, ruling): (&Ask, &'a Ruling),
    request: &Request<Rest>,
    visit: &mut Visit,
) -> Result<Option<Box<Upgrade>>, Refusal<'a>> {
    let (policy, decision) = (&house.rules.policy, &ruling.decision);
    let upgrade = if wants_upgrade(request.headers(), request.method()) {
        let Some(upgrade) = upgrade(house, ask, request) else {
            visit.failed("request.upgrade");
            return Err(Refusal::Upgrade { app: Some(App { policy, id: decision.app }) });
        };
        Some(Box::new(upgrade))
    } else {
        None
    };
    keep(conn, house, (ask, ruling), (request, upgrade.is_some()), visit)?;
    Ok(upgrade)
}

/// The restrictions that need no body. `leaves`: HTTP, behind an answer that agrees to it.
pub fn keep<'a>(
    conn: &Conn,
    house: &'a House,
    (ask, ruling): (&Ask, &'a Ruling),
    (request, leaves): (&Request<Rest>, bool),
    visit: &mut Visit,
) -> Result<(), Refusal<'a>> {
    let (policy, decision) = (&house.rules.policy, &ruling.decision);
    let restrictions = decision.done.restrictions;
    if restrictions.is_empty() {
        return Ok(());
    }
    let limits = restrictions.iter().map(|id| policy.restriction(id));
    let closed = |method: &str| !policy.allows_method(&decision.merged, method);
    let (key, by) = if closed(request.method().as_str()) || (leaves && closed("CONNECT")) {
        (RestrictionKey::Methods, By::Method)
    } else if policy.path_refused(restrictions, ask.target.path()) {
        (RestrictionKey::Paths, By::Path)
    } else {
        match house.rules.rates.check(policy.app_name(decision.app), subject(conn, ruling), limits, visit.started()) {
            Ok(()) => return Ok(()),
            Err(later) => (RestrictionKey::Requests, By::Rate { retry_after: later.0 }),
        }
    };
    refused(conn, house, ruling, key, visit);
    let mend = Some(mend(conn, house, (ask, ruling), request, visit.now()));
    Err(Refusal::Restricted { policy, decision, by, now: visit.now(), mend })
}

/// `None`: none that the app permits, or none that could be carried. HTTP/2 has no such thing, so there is nothing to ask an app for that speaks it.
fn upgrade(house: &House, ask: &Ask, request: &Request<Rest>) -> Option<Upgrade> {
    let route = house.rules.routes.get(ask.app.index()).filter(|route| route.upstream.protocol == Protocol::Http1)?;
    if !request.body().is_empty() {
        return None;
    }
    Upgrade::wished(request.headers(), request.method(), request.version(), &route.upgrades)
}

/// What would earn more than this ruling.
pub fn mend<'a>(conn: &Conn, house: &House, (ask, ruling): (&Ask, &'a Ruling), request: &Request<Rest>, now: Timestamp) -> &'a [FixId] {
    ruling.mend.get_or_init(|| {
        let http = Http { method: request.method().as_str(), host: &ask.host, path: ask.target.path(), headers: request.headers() };
        let inputs = Inputs {
            now,
            standing: &ruling.standing,
            peer: conn.peer,
            zone: ruling.zone,
            wire: &conn.wire,
            opening: conn.opening(),
            sight: &ruling.sight,
            claims: &ruling.claims.merged,
            http,
            given: Given::default(),
        };
        house.rules.policy.to_mend(&ruling.decision, &inputs)
    })
}

/// What holds for this request from here on.
pub fn bounds(conn: &Conn, house: &House, ruling: &Ruling, visit: &Visit) -> Bounds {
    let (policy, decision) = (&house.rules.policy, &ruling.decision);
    if decision.done.restrictions.is_empty() {
        return Bounds::default();
    }
    let restrictions = decision.done.restrictions.iter().map(|id| policy.restriction(id));
    Bounds {
        permissions_policy: ruling.permissions_policy.clone(),
        ends: decision.merged.max_stream.and_then(|most| visit.started().checked_add(most)),
        lanes: Lanes::new(&house.rules.rates, policy.app_name(decision.app), subject(conn, ruling), restrictions),
    }
}

/// Whom rates and bandwidths count for.
fn subject<'a>(conn: &Conn, ruling: &'a Ruling) -> Subject<'a> {
    match ruling.standing.device() {
        Some(device) => Subject::Device(&device.id),
        None => Subject::Peer(conn.peer),
    }
}
