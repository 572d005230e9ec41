//! `visit`: the life of a request on one screen.

mod answer;
mod ask;
mod assertion;
mod conn;
mod lasting;
mod front;
pub mod memo;
mod middlebox;
mod notice;
mod remember;
mod restrict;
mod sight;
mod verdict;

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::{ArcSwap, Cache};
use http::{HeaderName, Request, Response, StatusCode};
use ipnet::IpNet;

use self::answer::{blocked, page, send, turn_away};
pub use self::ask::{Ask, Unasked};
pub use self::assertion::{Keys, NoKey, Notary, Signer, VALID as ASSERTION_VALID};
use self::conn::Known;
pub use self::conn::{Conn, Door};
pub use self::front::{Behind, Believed, Front};
use self::lasting::Lasting;
use self::memo::{Question, Ruling};
pub use self::middlebox::Middleboxes;
use self::restrict::restrict;
pub use self::verdict::answer as asked;
use crate::config::{Fingerprints, Limits, Route};
use crate::fingerprint::Known as Signatures;
use crate::forward::{Body, Bounds, End, Identity, Rates, Rest, Servers, Turn, Upstreams, fingerprints};
use crate::identify::ClientTrust;
use crate::model::{Mode, Reason, RestrictionKey, Standing};
use crate::policy::{Decision, Given, Http, Inputs, Permit, Policy};
use crate::portal::Told;
use crate::posture::{Memory, Posture};
use crate::record::{Case, Cut, Desk, Labels, Visit, fragment};

static ACCEPT_CH: HeaderName = HeaderName::from_static("accept-ch");

/// One configuration in force, shared by all workers and never changed: a reload makes the next.
#[derive(Debug)]
pub struct Rules {
    /// Counts up with every reload.
    pub serial: u64,
    pub policy: Policy,
    /// By `AppId`.
    pub routes: Vec<Route>,
    pub limits: Limits,
    pub fingerprints: Fingerprints,
    /// What wires are looked up in.
    pub known: Arc<Signatures>,
    pub middleboxes: Arc<Middleboxes>,
    /// By listener.
    pub trust: HashMap<Arc<str>, Arc<ClientTrust>>,
    /// By listener.
    pub believed: HashMap<Arc<str>, Arc<Believed>>,
    /// Who may pass connections on and say whose they are, by listener: all of them have an entry.
    pub balancers: HashMap<Arc<str>, Arc<[IpNet]>>,
    pub posture: Arc<Posture>,
    pub memory: Arc<Memory>,
    pub rates: Arc<Rates>,
    pub servers: Arc<Servers>,
    /// `None`: no app asks for assertions.
    pub notary: Option<Notary>,
}

impl Rules {
    /// Whether a balancer is believed there whose a connection is. At a listener that is no more as before: its connections wind down anyway, and
    /// what was sent before anybody could know is answered.
    pub fn believes(&self, listener: &str, balancer: IpAddr) -> bool {
        self.balancers.get(listener).is_none_or(|trusted| trusted.iter().any(|net| net.contains(&balancer)))
    }
}

/// One worker's hold on the rules in force.
#[derive(Debug)]
pub struct House {
    pub rules: Arc<Rules>,
    pub upstreams: Upstreams,
}

/// What a worker has of its own.
#[derive(Debug)]
pub struct Core {
    pub desk: Rc<Desk>,
    /// Streams that are looked after.
    pub lasting: Lasting,
    rules: RefCell<Cache<Arc<ArcSwap<Rules>>, Arc<Rules>>>,
    house: RefCell<Rc<House>>,
}

impl Core {
    pub fn new(desk: Rc<Desk>, rules: Arc<ArcSwap<Rules>>) -> Rc<Self> {
        let now = rules.load_full();
        let upstreams = Upstreams::new(&now.servers, &now.limits, desk.writer);
        let house = House { upstreams, rules: now };
        Rc::new(Self { desk, lasting: Lasting::default(), rules: RefCell::new(Cache::new(rules)), house: RefCell::new(Rc::new(house)) })
    }

    /// The rules in force now. A request keeps what it got, so that no answer mixes two policies.
    pub fn house(&self) -> Rc<House> {
        let mut cache = self.rules.borrow_mut();
        let latest = cache.load();
        let mut house = self.house.borrow_mut();
        if house.rules.serial != latest.serial || house.upstreams.is_behind(&latest.servers) {
            let upstreams = house.upstreams.next(&latest.servers, &latest.limits, self.desk.writer);
            *house = Rc::new(House { upstreams, rules: Arc::clone(latest) });
        }
        Rc::clone(&house)
    }
}

/// A request from its head to the head of its answer. Nothing is sent to an app but by a permit, and nothing is counted or logged but by `finish`.
pub async fn visit(conn: &Rc<Conn>, request: &mut Request<Rest>) -> Response<Body> {
    let house = conn.core.house(); // per request: a reload binds live connections
    let spoken_for = conn.spoken_for(&house, request.headers()); // per request: a proxy in front speaks for many
    let conn = spoken_for.as_ref().unwrap_or(conn);
    let mut visit = conn.core.desk.begin(); // dropped unfinished: counted as 499
    let mut ruled = None;
    let mut answer = match Ask::read(request, conn, &house, &mut visit) {
        Err(unasked) => turn_away(conn, &house, request, &unasked, &mut visit),
        Ok(ask) => {
            let known = conn.known(&house, visit.began(), visit.started()).await; // ready at once when cached
            let ruling = &*ruled.insert(rule(conn, &house, &ask, request, known, &mut visit)); // pure, memoised, no allocation
            match Permit::of(&ruling.decision) {
                Some(permit) => match restrict(conn, &house, (&ask, ruling), request, &mut visit) {
                    Ok(_) if notice::is_due(conn, ruling, request) => notice::show(conn, &house, (&ask, ruling), request, &mut visit),
                    Ok(upgrade) => send(conn, &house, (permit, &ask, ruling), (request, upgrade), &mut visit).await,
                    Err(refusal) => page(&refusal, request, &visit),
                },
                None => page(&blocked(conn, &house, (&ask, ruling), request, &visit), request, &visit),
            }
        }
    };
    let lasting = ruled.map(|ruling| (Rc::clone(conn), ruling, house.rules.serial));
    ask_hints(&mut answer, conn, &house);
    counted(visit, &mut answer, lasting);
    answer
}

/// Ends a visit with its answer, the only place that counts and logs; an answer that lasts is decided anew by what `lasting` says.
fn counted(visit: Visit, answer: &mut Response<Body>, lasting: Option<(Rc<Conn>, Rc<Ruling>, u64)>) {
    let mut answered = visit.finish(answer.status());
    let switched = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    answer.body_mut().tell(move |turn| match turn {
        Turn::Ended(ended, now) => answered.ended((ended.bytes_in, ended.bytes_out), cut(ended.end), now),
        Turn::Long(fate) => {
            if let Some((conn, ruling, rules)) = &lasting {
                conn.core.lasting.add(fate, conn, (ruling, *rules), (&answered, switched));
            }
        }
    });
}

const fn cut(end: End) -> Option<Cut> {
    Some(match end {
        End::Whole => return None,
        End::Cut => Cut::App,
        End::Large => Cut::MaxResponse,
        End::Late => Cut::MaxStream,
        End::Sent => Cut::MaxBody,
        End::Still => Cut::Tunnel,
        End::Outlawed => Cut::Changed,
        End::Drained => Cut::Drain,
        End::Dropped => Cut::Client,
    })
}

/// Asks the browser for the client hints that the operator wants, unless the app asks for its own. Only HTTPS answers can (RFC 8942 section 3.1).
fn ask_hints(answer: &mut Response<Body>, conn: &Conn, house: &House) {
    if let Some(hints) = house.rules.fingerprints.accept_ch.as_ref().filter(|_| conn.door.https) {
        answer.headers_mut().entry(&ACCEPT_CH).or_insert_with(|| hints.clone());
    }
}

/// Decides, or finds the decision of an earlier request that asked the same.
fn rule(conn: &Rc<Conn>, house: &House, ask: &Ask, request: &Request<Rest>, known: Known, visit: &mut Visit) -> Rc<Ruling> {
    let began = Instant::now();
    let rules = &house.rules;
    let now = visit.now();
    let (claims, claimed) = conn.claims(request.headers());
    let drift = conn.drifts(house, &known, ask.app, (now, began));
    let (sight, sighted) = conn.sight(house, &known, (&claims, claimed), drift, visit.started());
    let Known { standing, serial, zone, certified } = known;
    let question = Question {
        app: ask.app,
        rules: rules.serial,
        standing: serial,
        claims: claimed,
        sight: sighted,
        method: request.method(),
        host: &ask.host,
        path: ask.target.path(),
        headers: request.headers(),
    };
    if let Some(ruling) = conn.state.borrow().memo.find(&question, now, began) {
        visit.decided(Rc::clone(&ruling.case), began, Instant::now());
        return ruling;
    }
    let http = Http { method: question.method.as_str(), host: &ask.host, path: question.path, headers: question.headers };
    let inputs = Inputs {
        now,
        standing: &standing,
        peer: conn.peer,
        zone,
        wire: &conn.wire,
        opening: conn.opening(),
        sight: &sight,
        claims: &claims.merged,
        http,
        given: Given::default(),
    };
    let decision = rules.policy.decide(ask.app, &inputs);
    let decided = Instant::now();
    conn.classed(house, &standing, decision.class);
    let on = conn.told(zone, &claims.merged, &sight);
    let line = fragment(&rules.policy, &decision, &standing, &on, None, now);
    let case = case(&conn.core.desk, &rules.policy, &decision, None, line);
    let mut identity = identity(&rules.policy, &decision, &standing);
    if let Some(route) = rules.routes.get(ask.app.index()) {
        identity.fingerprints = fingerprints(route.fingerprint_headers, &conn.wire, conn.opening(), &sight);
        if route.client_cert && certified {
            identity.certificate = conn.certificate().to_vec();
        }
    }
    let told = Told::of(&rules.policy, &decision, &standing, now);
    let features = decision.done.restrictions.iter().flat_map(|id| &rules.policy.restriction(id).permissions_policy);
    let ruling = Rc::new(Ruling {
        permissions_policy: Bounds::permissions(features.map(String::as_str)),
        decision,
        standing,
        zone,
        claims,
        sight,
        identity,
        case: Rc::clone(&case),
        refused: Default::default(),
        mend: Default::default(),
        assertion: Default::default(),
        told,
        noticed: Default::default(),
        made: began,
    });
    conn.state.borrow_mut().memo.keep(&question, rules.policy.reads(ask.app), Rc::clone(&ruling));
    visit.decided(case, began, decided);
    ruling
}

/// The device as the app is told of it.
fn identity(policy: &Policy, decision: &Decision, standing: &Standing) -> Identity {
    let device = standing.device().map(|device| device.id.as_str());
    let restrictions = decision.done.restrictions.iter().map(|id| policy.restriction(id).name.as_str());
    Identity::new(device, policy.class_name(decision.class), policy.tier_name(decision.tier), decision.done.effect, restrictions)
}

/// The counters and the log line's shared part. `refused`: a reason in place of the decision's.
fn case(desk: &Desk, policy: &Policy, decision: &Decision, refused: Option<&str>, line: Vec<u8>) -> Rc<Case> {
    let decided = if decision.mode == Mode::Report { &decision.would } else { &decision.done };
    let reason = policy.reason(decided.reasons.first()).to_string();
    let labels = Labels {
        app: policy.app_name(decision.app),
        class: policy.class_name(decision.class),
        tier: policy.tier_name(decision.tier),
        reason: refused.unwrap_or(&reason),
        owner: &policy.owner(decided.owner).name,
        mode: decision.mode.as_str(),
        decided: decided.effect,
        done: decision.done.effect,
    };
    let exceptions = decision.exceptions.as_slice().iter().map(|index| policy.exception(*index).name.as_str());
    Case::excepting(desk, &labels, line, exceptions)
}

/// Records that a restriction refused a request that the decision let pass.
fn refused(conn: &Conn, house: &House, ruling: &Ruling, key: RestrictionKey, visit: &mut Visit) {
    instead(conn, house, (ruling, ruling.refused(key)), Reason::Restriction(key), visit);
}

/// Records a request under another reason than its decision's, whose shared part is made once.
fn instead(conn: &Conn, house: &House, (ruling, made): (&Ruling, &OnceCell<Rc<Case>>), reason: Reason<'_>, visit: &mut Visit) {
    let found = made.get_or_init(|| {
        let on = conn.told(ruling.zone, &ruling.claims.merged, &ruling.sight);
        let reason = reason.to_string();
        let line = fragment(&house.rules.policy, &ruling.decision, &ruling.standing, &on, Some(&reason), visit.now());
        case(&conn.core.desk, &house.rules.policy, &ruling.decision, Some(&reason), line)
    });
    visit.refused(Rc::clone(found));
}
