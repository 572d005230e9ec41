//! Proxies in front that speak for clients: one connection of theirs carries the requests of many.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use smallvec::{SmallVec, smallvec};

use super::conn::copied;
use super::{Conn, Door, House};
use crate::identify::ClientTrust;
use crate::model::{Ja4, Opening};
use crate::request::{self, Malformed, Via};

static CERTIFICATE: [HeaderName; 2] = [HeaderName::from_static("client-cert"), HeaderName::from_static("client-cert-chain")];
/// As other proxies name them, and `fingerprint_headers` too.
static JA4: [HeaderName; 2] = [HeaderName::from_static("x-ja4-fingerprint"), HeaderName::from_static("x-tls-ja4")];
static JA3: [HeaderName; 1] = [HeaderName::from_static("x-ja3-fingerprint")];
static H2: [HeaderName; 2] = [HeaderName::from_static("x-http2-fingerprint"), HeaderName::from_static("x-http2-akamai")];
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Whom a listener believes about clients.
#[derive(Debug)]
pub struct Believed {
    pub trusted: Vec<IpNet>,
    /// Who of them may ask whether to carry a request.
    pub askers: Vec<IpNet>,
    /// Who issues the certificates that they may present for devices. `None`: such certificates are not read.
    pub trust: Option<Arc<ClientTrust>>,
}

impl Believed {
    pub fn answers(&self, ip: IpAddr) -> bool {
        self.askers.iter().any(|net| net.contains(&ip))
    }

    pub fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&ip))
    }
}

/// How a client comes to us that is not who is connected to us.
#[derive(Debug, Default)]
pub struct Behind {
    /// From the client to us, balancers that only pass bytes on included.
    pub via: Via,
    /// The balancer that passed the connection on.
    by: Option<IpAddr>,
    /// The balancer's name for the client's connection.
    pub connection: Option<Box<str>>,
    /// Proxies that speak HTTP for it, if any: the certificate is of `Client-Cert`, and what the connection itself shows is the last proxy's.
    pub(super) vouched: Via,
    /// What was said of the client cannot be understood.
    pub(super) fault: Option<Malformed>,
}

impl Behind {
    /// By a balancer that passes bytes on.
    pub fn passed_on(by: IpAddr, connection: Option<Box<str>>) -> Self {
        Self { via: smallvec![by], by: Some(by), connection, ..Self::default() }
    }
}

/// The clients that a trusted proxy spoke for last over one connection, each with all that a connection keeps.
#[derive(Debug, Default)]
pub struct Front {
    /// By the rules that the last request came under.
    trusted: Cell<bool>,
    /// The last asked first.
    clients: RefCell<Vec<(Told, Rc<Conn>)>>,
}

/// What makes one client of a connection another than the next.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    client: IpAddr,
    via: Via,
    https: bool,
    /// `Client-Cert` and its chain, every line as it came.
    certificate: SmallVec<[HeaderValue; 2]>,
    shown: Option<Box<Shown>>,
}

/// Fingerprints that the proxy took of the client's connection. They earn nobody anything, so that what is no fingerprint is passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    ja4: Option<Ja4>,
    ja3: Option<Box<str>>,
    h2: Option<Box<str>>,
}

impl Shown {
    /// Longer openings are hostile.
    const LONGEST: usize = 512;

    fn read(headers: &HeaderMap) -> Option<Box<Self>> {
        let ja4 = only(headers, &JA4).and_then(|text| Ja4::new(text.as_bytes().try_into().ok()?));
        let is_md5 = |text: &&str| text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let is_opening =
            |text: &&str| text.len() <= Self::LONGEST && text.split('|').count() == 4 && text.bytes().all(|byte| byte.is_ascii_graphic());
        let ja3 = only(headers, &JA3).filter(is_md5).map(Into::into);
        let h2 = only(headers, &H2).filter(is_opening).map(Into::into);
        (ja4.is_some() || ja3.is_some() || h2.is_some()).then(|| Box::new(Self { ja4, ja3, h2 }))
    }
}

/// The value of the one field that has any of these names.
fn only<'a>(headers: &'a HeaderMap, names: &[HeaderName]) -> Option<&'a str> {
    let mut values = names.iter().flat_map(|name| headers.get_all(name));
    values.next().filter(|_| values.next().is_none())?.to_str().ok()
}

impl Front {
    /// Each keeps a few KiB. A client beyond these is decided anew, no more.
    const MOST: usize = 16;
}

impl Conn {
    /// The client that a request is of, where a proxy speaks for it. `None`: whoever is connected speaks for itself.
    pub(super) fn spoken_for(&self, house: &House, headers: &HeaderMap) -> Option<Rc<Self>> {
        let front = self.front.as_ref()?;
        let believed = house.rules.believed.get(&self.door.listener).filter(|believed| believed.trusts(self.peer));
        front.trusted.set(believed.is_some());
        let told = match Told::read(headers, self, believed?) {
            Ok(told) if told.is_silent(self) => return None,
            Ok(told) => told,
            Err(fault) => {
                tracing::debug!(proxy = %self.peer, %fault, "a trusted proxy does not tell who its client is");
                return Some(Rc::new(self.behind(self.peer, self.door.https, Behind { fault: Some(fault), ..Behind::default() })));
            }
        };
        let mut clients = front.clients.borrow_mut();
        if let Some(at) = clients.iter().position(|(known, _)| *known == told) {
            clients.get_mut(..=at)?.rotate_right(1);
            return clients.first().map(|(_, conn)| Rc::clone(conn));
        }
        let conn = Rc::new(self.client(&told, headers));
        clients.truncate(Front::MOST - 1);
        clients.insert(0, (Told { certificate: told.certificate.iter().map(copied).collect(), ..told }, Rc::clone(&conn)));
        Some(conn)
    }

    fn client(&self, told: &Told, headers: &HeaderMap) -> Self {
        let (chain, fault) = match &told.certificate[..] {
            [] => (Vec::new(), None),
            _ => match request::client_cert(headers) {
                Ok(chain) => (chain, None),
                Err(fault) => (Vec::new(), Some(fault)),
            },
        };
        let vouched = if told.via.is_empty() { smallvec![self.peer] } else { told.via.clone() };
        let behind = Behind { via: told.via.clone(), vouched, fault, ..Behind::default() };
        let mut conn = self.behind(told.client, told.https, behind);
        conn.chain = chain.into_iter().map(CertificateDer::from).collect();
        if let Some(Shown { ja4, ja3, h2 }) = told.shown.as_deref().cloned() {
            (conn.wire.ja4, conn.wire.ja3) = (ja4, ja3);
            conn.opened(Opening { h2, header_order: None });
        }
        conn
    }

    /// A client of this connection, of which the connection itself shows nothing.
    fn behind(&self, client: IpAddr, https: bool, mut behind: Behind) -> Self {
        let mut conn = Self::through(Rc::clone(&self.core), self.door.towards(https), client, &behind.via);
        // Who asks verified the certificate for its own sake; its client never saw it.
        conn.served = self.served.clone().filter(|_| !self.door.asked);
        if let Some(nearer) = &self.behind {
            behind.via.extend_from_slice(&nearer.via);
            behind.by = nearer.by;
            behind.connection.clone_from(&nearer.connection);
        }
        conn.behind = Some(Box::new(behind));
        conn
    }

    pub(super) fn comes_through_others(&self) -> bool {
        self.behind.as_ref().is_some_and(|behind| !behind.via.is_empty())
    }

    /// Why nobody can tell who asks.
    pub(super) fn fault(&self, house: &House) -> Option<Malformed> {
        let behind = self.behind.as_ref()?;
        if self.is_of_believed_balancer(behind, house) {
            return behind.fault;
        }
        Some(Malformed("the connection is of a balancer that is not believed any more"))
    }

    /// Or of none.
    fn is_of_believed_balancer(&self, behind: &Behind, house: &House) -> bool {
        behind.by.is_none_or(|by| house.rules.believes(&self.door.listener, by))
    }

    /// Whether a proxy's certificate fields, and not TLS, show the device.
    pub(super) fn is_vouched(&self) -> bool {
        self.behind.as_ref().is_some_and(|behind| !behind.vouched.is_empty())
    }

    /// Whether whoever spoke for the client may still do so: requests are asked of whom they are anew, streams that run are not.
    pub(super) fn is_still_vouched(&self, house: &House) -> bool {
        let Some(behind) = &self.behind else { return true };
        let believed = house.rules.believed.get(&self.door.listener);
        let vouched =
            behind.vouched.is_empty() || believed.is_some_and(|believed| behind.vouched.iter().all(|proxy| believed.trusts(*proxy)));
        vouched && self.is_of_believed_balancer(behind, house)
    }

    /// The request's id, where a trusted proxy has given it one that is fit to pass on.
    pub(super) fn request_id<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        if !self.is_vouched() && !self.front.as_ref()?.trusted.get() {
            return None;
        }
        let mut ids = headers.get_all(&REQUEST_ID).iter();
        let id = ids.next().filter(|id| (1..=128).contains(&id.len()))?;
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:+/=@~".contains(byte);
        (ids.next().is_none() && id.as_bytes().iter().all(plain)).then_some(id)
    }
}

impl Told {
    /// The proxy speaks for itself.
    fn is_silent(&self, conn: &Conn) -> bool {
        self.via.is_empty() && self.certificate.is_empty() && self.shown.is_none() && self.https == conn.door.https
    }

    fn read(headers: &HeaderMap, conn: &Conn, believed: &Believed) -> Result<Self, Malformed> {
        let spoken = request::spoken(headers, conn.peer, |ip| believed.trusts(ip))?;
        let certificate = match &believed.trust {
            Some(_) => CERTIFICATE.iter().flat_map(|name| headers.get_all(name)).cloned().collect(),
            None => SmallVec::new(),
        };
        let https = spoken.https.unwrap_or(conn.door.https);
        Ok(Self { client: spoken.client, via: spoken.via, https, certificate, shown: Shown::read(headers) })
    }
}

impl Door {
    /// The same for a client that came to a proxy in front by HTTPS, or without.
    pub fn towards(self: &Arc<Self>, https: bool) -> Arc<Self> {
        if https == self.https {
            return Arc::clone(self);
        }
        let redirect_port = self.redirect_port.filter(|_| !https);
        Arc::new(Self { listener: Arc::clone(&self.listener), https, redirect_port, asked: self.asked })
    }
}
