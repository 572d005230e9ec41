//! A connection: its facts, and what has been made of them so far.

use std::cell::{OnceCell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use rustls::pki_types::{CertificateDer, UnixTime};

use super::assertion::Drawer;
use super::front::{Behind, Front};
use super::memo::Memo;
use super::remember::Remembered;
use super::sight::Sighted;
use super::{Core, House};
use crate::forward::Client;
use crate::identify;
use crate::model::{Host, NoRecord, Opening, Proof, Sides, Standing, Wire};
use crate::policy::ZoneId;
use crate::posture::Kept;
use crate::request::{self, Malformed};

/// The listener that a connection came through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    pub listener: Arc<str>,
    pub https: bool,
    /// Every request is answered with a redirect to this port.
    pub redirect_port: Option<u16>,
    /// What comes are questions of proxies whether to carry a request.
    pub asked: bool,
}

/// One client connection. What it showed is read once; what depends on the policy in force is bound anew after a reload.
#[derive(Debug)]
pub struct Conn {
    pub core: Rc<Core>,
    pub door: Arc<Door>,
    /// Canonical: an IPv4-mapped IPv6 address is IPv4 here.
    pub peer: IpAddr,
    pub wire: Wire,
    /// What the client presented, end entity first; empty when nothing.
    pub chain: Vec<CertificateDer<'static>>,
    /// The names of the certificate that this connection was served with; `None` without TLS.
    pub served: Option<Arc<identify::CertificateNames>>,
    /// The client was not asked for a certificate, and these are the hosts whose visitors are not.
    pub spared: Option<Arc<[Host]>>,
    /// What apps are told of the connection.
    pub client: Client,
    /// `None`: the client itself is connected to us.
    pub behind: Option<Box<Behind>>,
    /// Of a proxy that may speak for others.
    pub front: Option<Box<Front>>,
    certificate: OnceCell<Box<[(HeaderName, HeaderValue)]>>,
    opening: OnceCell<Opening>,
    pub(super) state: RefCell<State>,
}

#[derive(Debug)]
pub(super) struct State {
    /// The serial of the rules that `proof` and `zone` were made under.
    rules: Option<u64>,
    proof: Proof,
    proof_ends: Option<i64>,
    zone: Option<ZoneId>,
    kept: Option<Kept>,
    /// The serial of `kept`.
    standing: u64,
    /// When `proof` and `zone` were made, counted as standings are.
    bound: u64,
    /// The last serial given to any standing.
    serials: u64,
    /// The fields that `claims` was read from, every line of each.
    said: Vec<(HeaderName, HeaderValue)>,
    claims: Rc<Sides>,
    /// Changes whenever `claims` does.
    claimed: u64,
    pub sighted: Sighted,
    pub remembered: Remembered,
    pub memo: Memo,
    pub assertions: Drawer,
    /// Of the last request: browsers stay with one.
    host: Option<Host>,
}

/// What is known of who asks, by the rules that were in force when the request came.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub standing: Standing,
    /// No other standing of this connection has it.
    pub serial: u64,
    pub zone: Option<ZoneId>,
    /// The device presented a valid certificate, of a record or not.
    pub certified: bool,
}

impl Conn {
    pub fn new(core: Rc<Core>, door: Arc<Door>, peer: IpAddr) -> Self {
        Self::through(core, door, peer, &[])
    }

    /// Of a client that comes through these proxies, from the client to us.
    pub(super) fn through(core: Rc<Core>, door: Arc<Door>, peer: IpAddr, via: &[IpAddr]) -> Self {
        let state = State {
            rules: None,
            proof: Proof::None(NoRecord::NoProof),
            proof_ends: None,
            zone: None,
            kept: None,
            standing: 0,
            bound: 0,
            serials: 0,
            said: Vec::new(),
            claims: Rc::default(),
            claimed: 0,
            sighted: Sighted::default(),
            remembered: Remembered::default(),
            memo: Memo::default(),
            assertions: Drawer::default(),
            host: None,
        };
        let client = Client::new(peer, door.https, via);
        let state = RefCell::new(state);
        let wire = Wire::default();
        Self {
            core,
            door,
            peer,
            wire,
            chain: Vec::new(),
            served: None,
            spared: None,
            client,
            behind: None,
            front: None,
            certificate: OnceCell::new(),
            opening: OnceCell::new(),
            state,
        }
    }

    /// What the first request's bytes showed. Whole before that request comes to the gate, and the same for all that follow: decisions are memoised
    /// without it.
    pub fn opening(&self) -> &Opening {
        self.opening.get_or_init(Opening::default)
    }

    /// Told once, by who reads the connection's bytes; what is told after somebody asked is not heard.
    pub fn opened(&self, opening: Opening) {
        let _ = self.opening.set(opening);
    }

    /// What is known of the device, at once when it was asked before and nothing changed since.
    pub(super) async fn known(&self, house: &House, began: SystemTime, instant: Instant) -> Known {
        let (proof, zone, bound) = {
            let mut state = self.state.borrow_mut();
            self.bind(&mut state, house, began);
            if let Some(kept) = &state.kept
                && kept.generation == house.rules.posture.generation()
                && instant < kept.until
            {
                let certified = matches!(state.proof, Proof::Certificate { .. });
                return Known { standing: kept.standing.clone(), serial: state.standing, zone: state.zone, certified };
            }
            (state.proof.clone(), state.zone, state.bound)
        };
        let kept = house.rules.posture.standing(&proof).await;
        let mut state = self.state.borrow_mut();
        state.serials += 1;
        let certified = matches!(proof, Proof::Certificate { .. });
        let known = Known { standing: kept.standing.clone(), serial: state.serials, zone, certified };
        // Over HTTP/2 another request may have bound new rules or found the proof ended meanwhile: then this answer is for the request that asked alone.
        if state.bound == bound {
            state.kept = Some(kept);
            state.standing = known.serial;
        }
        known
    }

    /// The zone and the proof depend on the rules in force, the proof also on the time.
    fn bind(&self, state: &mut State, house: &House, now: SystemTime) {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        let rules = &house.rules;
        if state.rules == Some(rules.serial) && state.proof_ends.is_none_or(|ends| seconds < ends) {
            return;
        }
        state.rules = Some(rules.serial);
        state.zone = rules.policy.zone(self.peer);
        let trust = match self.is_vouched() {
            true => rules.believed.get(&self.door.listener).and_then(|believed| believed.trust.as_ref()),
            false => rules.trust.get(&self.door.listener),
        };
        state.proof = match trust {
            Some(trust) if !self.chain.is_empty() => trust.proof(&self.chain, UnixTime::since_unix_epoch(since)),
            _ => Proof::None(NoRecord::NoProof),
        };
        state.proof_ends = match &state.proof {
            Proof::Certificate { not_after, .. } => Some(*not_after),
            Proof::None(_) => None,
        };
        state.kept = None;
        state.serials += 1;
        state.bound = state.serials;
    }

    /// The certificate that was presented, for apps that ask for it (RFC 9440).
    pub(super) fn certificate(&self) -> &[(HeaderName, HeaderValue)] {
        self.certificate.get_or_init(|| request::client_cert_fields(&self.chain).into())
    }

    /// Whether requests for this host may come over this connection: the client verified a certificate that covers it, and was asked for its own as
    /// it would be on a connection made for this host. Browsers carry requests for one host over a connection to another wherever the certificate
    /// covers both (RFC 9113 section 9.1.1); without this, who visited the portal first would be nobody to every app.
    pub(super) fn speaks_for(&self, host: &Host) -> bool {
        self.served.as_ref().is_none_or(|names| names.cover(host.as_str())) && self.spared.as_ref().is_none_or(|hosts| hosts.contains(host))
    }

    /// The host and port that a request names, without an allocation when it is the host of the last request.
    pub(super) fn authority(&self, uri: &Uri, headers: &HeaderMap) -> Result<(Host, Option<u16>), Malformed> {
        let mut state = self.state.borrow_mut();
        let authority = request::authority_after(uri, headers, state.host.as_ref())?;
        let host = match &state.host {
            Some(last) if authority.is(last) => last.clone(),
            _ => state.host.insert(authority.to_host()).clone(),
        };
        Ok((host, authority.port))
    }

    /// What this request claims; read anew only when it differs from what the last one said.
    pub(super) fn claims(&self, headers: &HeaderMap) -> (Rc<Sides>, u64) {
        let mut state = self.state.borrow_mut();
        let says = || headers.iter().filter(|(name, _)| identify::is_claim(name));
        if state.claimed == 0 || !says().eq(state.said.iter().map(|(name, value)| (name, value))) {
            state.said = says().map(|(name, value)| (name.clone(), copied(value))).collect();
            let claims = identify::sides(headers);
            if state.claimed == 0 || *state.claims != claims {
                state.claims = Rc::new(claims);
                state.claimed += 1;
            }
        }
        (Rc::clone(&state.claims), state.claimed)
    }
}

/// A value that is kept beyond its request: a clone would keep the whole buffer that it was read into, for as long as the connection lasts.
pub(super) fn copied(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use arc_swap::ArcSwap;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};

    use super::*;
    use crate::config;
    use crate::forward::{Rates, Servers, Upstreams};
    use crate::gate::{Believed, Rules};
    use crate::identify::ClientTrust;
    use crate::policy::Policy;
    use crate::posture::{Memory, Posture};
    use crate::record::{Desk, Record, Writer};

    const YAML: &str = r#"
version: 1
listeners: [{name: edge, bind: ["127.0.0.1:0"]}]
store: {url: "sqlite://devices.db"}
owners: {it: {contact: it@corp.example}}
tiers: [{name: none}]
networks: {NETWORK: ["127.0.0.0/8"]}
apps: [{name: wiki, owner: it, hosts: [wiki.example], upstream: {servers: ["http://127.0.0.1:1"]}, rules: [{name: all, then: forward}]}]
"#;

    fn house(folder: &std::path::Path, serial: u64, posture: Option<&Arc<Posture>>, trust: Option<ClientTrust>) -> House {
        let file = folder.join("vestibule.yaml");
        std::fs::write(&file, YAML.replace("NETWORK", &format!("net-{serial}"))).unwrap();
        let configuration = config::load(&file).unwrap().configuration;
        let posture = posture.cloned().unwrap_or_else(|| Arc::new(Posture::open(&configuration.store, Vec::new()).unwrap()));
        let memory = Arc::new(Memory::open(&configuration.store, configuration.fingerprints.memory).unwrap());
        let servers = Servers::new(&configuration.routes, Arc::default());
        let upstreams = Upstreams::new(&servers, &configuration.limits, Writer(0));
        let rules = Rules {
            serial,
            policy: Policy::compile(configuration.policy),
            routes: configuration.routes,
            limits: configuration.limits,
            fingerprints: configuration.fingerprints,
            known: configuration.known,
            middleboxes: Arc::default(),
            trust: trust.map(|trust| (Arc::from("edge"), Arc::new(trust))).into_iter().collect(),
            believed: HashMap::new(),
            balancers: HashMap::new(),
            memory,
            posture,
            rates: Arc::new(Rates::new(1)),
            servers,
            notary: None,
        };
        House { rules: Arc::new(rules), upstreams }
    }

    /// A certificate authority's trust, and one that issues devices' certificates by it.
    fn trust() -> (ClientTrust, impl Fn() -> CertificateDer<'static>) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let trust = ClientTrust::new(vec![ca.der().clone()], vec![]).unwrap();
        let issue = move || {
            let mut params = CertificateParams::default();
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.signed_by(&KeyPair::generate().unwrap(), &ca).unwrap().der().clone()
        };
        (trust, issue)
    }

    #[tokio::test]
    async fn a_look_up_that_a_reload_overtook_speaks_for_nobody_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let (trust, issue) = trust();
        let before = house(folder.path(), 1, None, Some(trust));
        let after = house(folder.path(), 2, Some(&before.rules.posture), None);
        let desk = Desk::new(Arc::new(Record::new().unwrap()), Writer(0));
        let core = Core::new(desk, Arc::new(ArcSwap::new(Arc::clone(&before.rules))));
        let door = Arc::new(Door { listener: Arc::from("edge"), https: true, redirect_port: None, asked: false });
        let connect = || {
            let mut conn = Conn::new(Rc::clone(&core), Arc::clone(&door), IpAddr::from([127, 0, 0, 1]));
            conn.chain = vec![issue()];
            Rc::new(conn)
        };
        let now = || (SystemTime::now(), Instant::now());
        let zone = |house: &House, known: &Known| house.rules.policy.zone_name(known.zone.unwrap()).to_owned();

        let (began, instant) = now();
        // Now and then the store's thread answers at once.
        let asked = (0..1000).find_map(|_| {
            let conn = connect();
            let mut slow = Box::pin({
                let (conn, before) = (Rc::clone(&conn), &before);
                async move { conn.known(before, began, instant).await }
            });
            slow.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending().then_some((conn, slow))
        });
        let (conn, slow) = asked.expect("a look-up that is on its way");
        let untrusted = |known: &Known| matches!(known.standing, Standing::NoRecord(NoRecord::NoProof));
        let overtaking = conn.known(&after, began, instant).await;
        assert!(untrusted(&overtaking));
        let slow = slow.await;
        assert!(matches!(slow.standing, Standing::NoRecord(NoRecord::UnknownCertificate)), "{slow:?}");
        assert_eq!(zone(&before, &slow), "net-1", "decided by the rules that it came under");

        let (began, instant) = now();
        let later = conn.known(&after, began, instant).await;
        assert!(untrusted(&later), "{later:?}");
        assert_eq!(zone(&after, &later), "net-2");
        assert_ne!(later.serial, slow.serial, "no decision of the one is found for the other");
        let again = pin!(conn.known(&after, began, instant)).as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(again, Poll::Ready(known) if known.serial == later.serial), "kept");
    }

    #[tokio::test]
    async fn an_opening_is_the_same_for_every_request_of_a_connection() {
        let folder = tempfile::tempdir().unwrap();
        let house = house(folder.path(), 1, None, None);
        let core = Core::new(Desk::new(Arc::new(Record::new().unwrap()), Writer(0)), Arc::new(ArcSwap::new(Arc::clone(&house.rules))));
        let door = Arc::new(Door { listener: Arc::from("edge"), https: true, redirect_port: None, asked: false });
        let connect = || Conn::new(Rc::clone(&core), Arc::clone(&door), IpAddr::from([127, 0, 0, 1]));
        let seen = Opening { h2: Some("|00|0|m".into()), header_order: None };
        let (early, late) = (connect(), connect());
        early.opened(seen.clone());
        early.opened(Opening::default());
        assert_eq!(early.opening(), &seen);
        assert_eq!(late.opening(), &Opening::default());
        late.opened(seen);
        assert_eq!(late.opening(), &Opening::default(), "what was decided without it stays so");
    }

    /// Each keeps a few KiB, and a proxy can name as many as it likes.
    #[tokio::test]
    async fn of_the_clients_that_a_proxy_speaks_for_the_last_few_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut house = house(folder.path(), 1, None, None);
        let trusted = vec!["127.0.0.1/32".parse().unwrap()];
        let believed = Arc::new(Believed { trusted, askers: Vec::new(), trust: None });
        Arc::get_mut(&mut house.rules).unwrap().believed.insert(Arc::from("edge"), believed);
        let core = Core::new(Desk::new(Arc::new(Record::new().unwrap()), Writer(0)), Arc::new(ArcSwap::new(Arc::clone(&house.rules))));
        let door = Arc::new(Door { listener: Arc::from("edge"), https: true, redirect_port: None, asked: false });
        let mut conn = Conn::new(core, door, IpAddr::from([127, 0, 0, 1]));
        conn.front = Some(Box::default());
        let client = |n: u8| {
            let said = [(http::HeaderName::from_static("x-forwarded-for"), HeaderValue::try_from(format!("192.0.2.{n}")).unwrap())];
            conn.spoken_for(&house, &HeaderMap::from_iter(said)).unwrap()
        };
        let first = client(0);
        (1..16).for_each(|n| drop(client(n)));
        assert!(Rc::ptr_eq(&first, &client(0)), "one of the last sixteen");
        (1..17).for_each(|n| drop(client(n)));
        assert_eq!(Rc::strong_count(&first), 1, "pushed out by sixteen others");
        assert_eq!(client(0).peer, first.peer);
    }

    #[test]
    fn what_is_kept_beyond_a_request_leaves_its_buffer_free() {
        let head = bytes::Bytes::from(vec![b'x'; 8192]);
        let value = HeaderValue::from_maybe_shared(head.slice(..100)).unwrap();
        let kept = copied(&value);
        assert_eq!(kept, value);
        drop(value);
        assert!(head.is_unique());
    }
}
