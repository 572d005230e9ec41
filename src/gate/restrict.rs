//! What restrictions make of a request that the policy let pass.

use http::Request;
use hyper::body::Incoming;
use jiff::Timestamp;

use super::memo::Ruling;
use super::{Ask, Conn, House, refused};
use crate::forward::{Bounds, Lanes, Subject};
use crate::model::RestrictionKey;
use crate::policy::{FixId, Given, Http, Inputs};
use crate::portal::{App, By, Refusal};
use crate::record::Visit;
use crate::request::wants_upgrade;

/// What refuses a request before anything of it goes to the app: an upgrade, which is not carried, and the restrictions that need no body. Methods and
/// paths come before rates, so that what is refused for them costs no turn. Records what refuses.
pub fn restrict<'a>(
    conn: &Conn,
    house: &'a House,
    (ask, ruling): (&Ask, &'a Ruling),
    request: &Request<Incoming>,
    visit: &mut Visit,
) -> Result<(), Refusal<'a>> {
    let (policy, decision) = (&house.rules.policy, &ruling.decision);
    if wants_upgrade(request.headers(), request.method()) {
        visit.failed("request.upgrade");
        return Err(Refusal::Upgrade { app: Some(App { policy, id: decision.app }) });
    }
    let restrictions = decision.done.restrictions;
    if restrictions.is_empty() {
        return Ok(());
    }
    let limits = restrictions.iter().map(|id| policy.restriction(id));
    let (key, by) = if !policy.allows_method(&decision.merged, request.method().as_str()) {
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

/// What would earn more than this ruling.
pub fn mend<'a>(conn: &Conn, house: &House, (ask, ruling): (&Ask, &'a Ruling), request: &Request<Incoming>, now: Timestamp) -> &'a [FixId] {
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
