//! The servers of all apps, as the process knows them: where they are, whether they are well, and what was counted of them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use http::HeaderValue;
use jiff::Timestamp;
use rustls::ClientConfig;

use super::fitness::{Fitness, Turn, millis, millis_of};
use super::health::Checked;
use super::secure::Secure;
use super::upstreams::{Reach, host_field};
use crate::config::{At, Balance, Ejection, Health, HostHeader, Route, Timeouts};
use crate::record::{Cell, Writer};

/// Addresses of one name; an answer with more is cut.
const ADDRESSES: usize = 64;

/// One for the process and configuration, shared by all workers.
#[derive(Debug)]
pub struct Servers {
    /// By `AppId`.
    pub(super) groups: Vec<Arc<Group>>,
    secure: Arc<Secure>,
    common: Arc<Common>,
}

/// What all configurations share.
#[derive(Debug, Default)]
struct Common {
    /// Numbers of connections by the way to reach a server, which apps may share.
    pools: Mutex<HashMap<Reach, Weak<Shards<Pooled>>>>,
    /// Counts up when addresses come or go.
    moves: AtomicU64,
}

/// The servers of one app.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) app: Arc<str>,
    pub(super) balance: Balance,
    pub(super) health: Option<Health>,
    pub(super) ejection: Ejection,
    /// Milliseconds.
    pub(super) slow_start: u64,
    pub(super) resolve_every: Duration,
    pub(super) timeouts: Timeouts,
    pub(super) request_trailers: bool,
    pub(super) entries: Vec<Entry>,
    /// Held by who ejects, so that two who eject at once do not take the last two servers.
    pub(super) ejecting: Mutex<()>,
    pub(super) waits: Arc<Shards<Waits>>,
}

/// A server of an app as it is written, in one configuration.
#[derive(Debug)]
pub(super) struct Entry {
    /// The Host that it receives; `None` is the client's own.
    pub(super) host: Option<HeaderValue>,
    /// The Host of its checks.
    pub(super) check_host: HeaderValue,
    pub(super) named: Arc<Named>,
}

/// What outlives a configuration that keeps the server.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) url: Arc<str>,
    /// Without an address.
    reach: Reach,
    /// What is looked up; `None`: its address is written, or it is a socket's path.
    pub(super) name: Option<(String, u16)>,
    places: Mutex<Places>,
    pub(super) counts: Shards<Counts>,
    pub(super) ejections: Arc<AtomicU64>,
    common: Arc<Common>,
}

#[derive(Debug, Default)]
struct Places {
    /// Never empty: a name that has no address yet is looked up by who connects.
    all: Vec<Arc<Place>>,
    looked: Option<Looked>,
    found: u64,
    failed: u64,
}

/// How a name was last looked up.
#[derive(Clone, Debug)]
pub(super) struct Looked {
    pub(super) at: Timestamp,
    /// Why there was no answer; the addresses before it stay.
    pub(super) error: Option<String>,
}

/// One address of a server: what requests are balanced over.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) reach: Reach,
    pub(super) fitness: Fitness,
    /// Of all addresses of the server.
    ejections: Arc<AtomicU64>,
    pub(super) checked: Mutex<Checked>,
    pub(super) running: Shards<Cell>,
    pub(super) pooled: Arc<Shards<Pooled>>,
}

/// Cells of each thread: nobody waits for another's.
#[derive(Debug)]
pub(super) struct Shards<T>(Mutex<HashMap<Writer, T>>);

impl<T> Default for Shards<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone + Default> Shards<T> {
    /// The thread's own. Takes a lock: keep it.
    pub(super) fn of(&self, writer: Writer) -> T {
        held(&self.0).entry(writer).or_default().clone()
    }

    pub(super) fn sum(&self, read: impl Fn(&T) -> &Cell) -> u64 {
        held(&self.0).values().fold(0, |sum: u64, cells| sum.wrapping_add(read(cells).read()))
    }
}

/// What became of requests at a server.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) answered: Cell,
    pub(super) unreachable: Cell,
    pub(super) timeout: Cell,
    pub(super) broken: Cell,
    pub(super) client: Cell,
    /// Went on to another server, nothing of them sent.
    pub(super) elsewhere: Cell,
    /// Sent once more, for the connection had been idle and closed.
    pub(super) again: Cell,
    pub(super) checks: CheckCounts,
}

#[derive(Clone, Debug, Default)]
pub(super) struct CheckCounts {
    pub(super) passed: Cell,
    pub(super) status: Cell,
    pub(super) timeout: Cell,
    pub(super) unreachable: Cell,
    pub(super) broken: Cell,
    pub(super) not_made: Cell,
}

/// Requests that all servers of an app had no connection for.
#[derive(Clone, Debug, Default)]
pub(super) struct Waits {
    pub(super) waiting: Cell,
    pub(super) served: Cell,
    pub(super) timeout: Cell,
    pub(super) full: Cell,
}

/// Connections of one worker.
#[derive(Clone, Debug, Default)]
pub(super) struct Pooled {
    pub(super) open: Cell,
    pub(super) idle: Cell,
}

impl Servers {
    /// `secure` is of the same configuration.
    pub fn new(routes: &[Route], secure: Arc<Secure>) -> Arc<Self> {
        Self::build(routes, secure, None)
    }

    /// For a new configuration: what is known of servers that stay is kept.
    pub fn next(&self, routes: &[Route], secure: Arc<Secure>) -> Arc<Self> {
        Self::build(routes, secure, Some(self))
    }

    /// How apps with TLS are spoken to.
    pub fn secure(&self) -> &Arc<Secure> {
        &self.secure
    }

    pub(super) fn tls(&self, reach: &Reach) -> Option<Arc<ClientConfig>> {
        reach.tls.as_ref().and_then(|tls| self.secure.of(tls, reach.protocol))
    }

    fn build(routes: &[Route], secure: Arc<Secure>, before: Option<&Self>) -> Arc<Self> {
        let common = before.map_or_else(Arc::default, |before| Arc::clone(&before.common));
        let groups = routes.iter().map(|route| {
            let known = before.and_then(|before| before.groups.iter().find(|group| group.app == route.app));
            Arc::new(Group::new(route, known.map(AsRef::as_ref), &common))
        });
        let groups = groups.collect();
        held(&common.pools).retain(|_, pool| pool.strong_count() > 0);
        Arc::new(Self { groups, secure, common })
    }

    /// Changes when addresses come or go.
    pub fn moves(&self) -> u64 {
        self.common.moves.load(Acquire)
    }
}

impl Group {
    fn new(route: &Route, known: Option<&Self>, common: &Arc<Common>) -> Self {
        let upstream = &route.upstream;
        let entries = upstream.servers.iter().map(|server| {
            let reach = Reach::of(upstream, server);
            let kept =
                known.and_then(|known| known.entries.iter().find(|entry| entry.named.url == server.url && entry.named.reach == reach));
            let named = kept.map_or_else(|| Named::new(&server.url, reach, common), |kept| Arc::clone(&kept.named));
            let host = host_field(&upstream.host, server);
            let check = || host_field(&HostHeader::Server, server).unwrap_or(HeaderValue::from_static("localhost"));
            let first = upstream.health.as_ref().and_then(|health| HeaderValue::from_str(health.host.as_deref()?).ok());
            Entry { check_host: host.clone().or(first).unwrap_or_else(check), host, named }
        });
        let group = Self {
            app: Arc::clone(&route.app),
            balance: upstream.balance,
            health: upstream.health.clone(),
            ejection: upstream.ejection,
            slow_start: millis_of(upstream.slow_start),
            resolve_every: upstream.resolve_every,
            timeouts: upstream.timeouts,
            request_trailers: route.request_trailers,
            entries: entries.collect(),
            ejecting: Mutex::default(),
            waits: known.map_or_else(Arc::default, |known| Arc::clone(&known.waits)),
        };
        if group.health.is_none() {
            // Nobody would take back what the last check said.
            group.places().for_each(|(_, place)| place.unchecked());
        }
        group
    }

    pub(super) fn places(&self) -> impl Iterator<Item = (&Entry, Arc<Place>)> {
        self.entries.iter().flat_map(|entry| entry.named.places().into_iter().map(move |place| (entry, place)))
    }

    /// A request got no sound answer from there.
    pub(super) fn failed(&self, url: &str, place: &Place, now: Instant) {
        if !place.fitness.failed(&self.ejection) {
            return;
        }
        let now = millis(now);
        let _one_at_a_time = held(&self.ejecting);
        let takes = |turn| matches!(turn, Turn::Whole | Turn::Since(_) | Turn::Resting(_));
        let others = |other: &Place| !std::ptr::eq(other, place) && takes(other.fitness.turn(|| now, self.slow_start));
        if !self.places().any(|(_, other)| others(&other)) {
            return;
        }
        if let Some(length) = place.fitness.eject(&self.ejection, now) {
            place.ejections.fetch_add(1, Relaxed);
            let (failures, out_ms) = (place.fitness.failures(), length);
            tracing::warn!(app = &*self.app, server = url, address = %place.reach, failures, out_ms, "server ejected");
        }
    }
}

impl Named {
    fn new(url: &Arc<str>, reach: Reach, common: &Arc<Common>) -> Arc<Self> {
        let (name, address) = match &reach.at {
            At::Unix(_) => (None, None),
            At::Tcp { host, port } => match host.parse::<IpAddr>() {
                Ok(address) => (None, Some(SocketAddr::new(address, *port))),
                Err(_) => (Some((host.clone(), *port)), None),
            },
        };
        let named = Self {
            url: Arc::clone(url),
            reach,
            name,
            places: Mutex::default(),
            counts: Shards::default(),
            ejections: Arc::default(),
            common: Arc::clone(common),
        };
        let place = named.place(address);
        held(&named.places).all.push(place);
        Arc::new(named)
    }

    pub(super) fn places(&self) -> Vec<Arc<Place>> {
        held(&self.places).all.clone()
    }

    /// Keeps whoever wants its addresses waiting.
    #[cfg(test)]
    pub(super) fn kept(&self) -> impl Sized + '_ {
        held(&self.places)
    }

    pub(super) fn looked(&self) -> Option<Looked> {
        held(&self.places).looked.clone()
    }

    /// Look-ups that found addresses, and that did not.
    pub(super) fn look_ups(&self) -> (u64, u64) {
        let places = held(&self.places);
        (places.found, places.failed)
    }

    /// What a look-up gave. True: addresses came or went. What is known of those that stay is kept; without an answer all stay.
    pub(super) fn take(&self, answer: Result<Vec<SocketAddr>, String>) -> bool {
        let answer = answer.and_then(|addresses| if addresses.is_empty() { Err("no address".to_owned()) } else { Ok(addresses) });
        let mut places = held(&self.places);
        let failed_before = places.looked.as_ref().is_some_and(|looked| looked.error.is_some());
        places.looked = Some(Looked { at: Timestamp::now(), error: answer.as_ref().err().cloned() });
        let mut addresses = match answer {
            Ok(addresses) => addresses,
            Err(error) => {
                places.failed += 1;
                if !failed_before {
                    tracing::warn!(server = &*self.url, %error, "the server's name cannot be looked up; the addresses known before stay in use");
                }
                return false;
            }
        };
        places.found += 1;
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(ADDRESSES);
        if places.all.iter().map(|place| place.reach.address).eq(addresses.iter().copied().map(Some)) {
            return false;
        }
        let kept = |address| places.all.iter().find(|place| place.reach.address == Some(address)).cloned();
        let all = addresses.iter().map(|address| kept(*address).unwrap_or_else(|| self.place(Some(*address)))).collect();
        places.all = all;
        drop(places);
        held(&self.common.pools).retain(|_, pool| pool.strong_count() > 0);
        self.common.moves.fetch_add(1, Release);
        tracing::info!(server = &*self.url, ?addresses, "the server's addresses changed");
        true
    }

    fn place(&self, address: Option<SocketAddr>) -> Arc<Place> {
        let reach = Reach { address, ..self.reach.clone() };
        let mut pools = held(&self.common.pools);
        let pooled = pools.get(&reach).and_then(Weak::upgrade).unwrap_or_default();
        pools.insert(reach.clone(), Arc::downgrade(&pooled));
        let ejections = Arc::clone(&self.ejections);
        Arc::new(Place { reach, fitness: Fitness::default(), ejections, checked: Mutex::default(), running: Shards::default(), pooled })
    }
}

/// A panic elsewhere leaves whole values behind: go on.
pub(super) fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
