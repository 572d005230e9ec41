//! The servers of all apps, of one worker.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::HeaderValue;
use smallvec::SmallVec;
use tokio::sync::futures::Notified;

use super::balance::{Rank, Tried, stable_hash};
use super::failure::Failure;
use super::fitness::millis;
use super::health::is_ours;
use super::pool::{Caps, Server};
use super::servers::{Counts, Group, Place, Servers, Waits};
use super::trickle::Floor;
use super::{Ends, Order};
use crate::config::{self, At, Balance, HostHeader, Limits, Protocol, ProxyProtocol, Timeouts, Upstream, UpstreamTls};
use crate::policy::AppId;
use crate::record::{self, Writer};

/// How a server is reached: what shares connections. Apps that reach a server in the same way share them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reach {
    /// As written.
    pub(super) at: At,
    /// Of its name, or what is written. `None`: it is not known yet, or is a socket's path.
    pub(super) address: Option<SocketAddr>,
    /// `None`: without TLS.
    pub(super) tls: Option<UpstreamTls>,
    pub(super) protocol: Protocol,
    pub(super) proxy_protocol: ProxyProtocol,
}

impl Reach {
    /// Without an address.
    pub(super) fn of(upstream: &Upstream, server: &config::Server) -> Self {
        Self {
            at: server.at.clone(),
            address: None,
            tls: server.tls.then(|| upstream.tls.clone()),
            protocol: upstream.protocol,
            proxy_protocol: upstream.proxy_protocol,
        }
    }
}

/// Its address, or its name as long as it has none.
impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.address, &self.at) {
            (Some(address), _) => write!(f, "{address}"),
            (None, At::Tcp { host, port }) => write!(f, "{host}:{port}"),
            (None, At::Unix(path)) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One for each worker; requests of its runtime only, where `spawn_local` works.
#[derive(Debug)]
pub struct Upstreams {
    /// By `AppId`.
    apps: Vec<App>,
    /// Apps that name the same server share its connections.
    pools: HashMap<Reach, Rc<Server>>,
    /// `Servers::moves` when this was built.
    moves: u64,
    /// Some server is told whom its connections are for.
    pub tells: bool,
    /// Bytes of a request's body, where the app's restrictions say no less.
    pub(super) body_size: Option<u64>,
    /// How slowly a request's body may come.
    pub(super) floor: Floor,
}

#[derive(Debug)]
pub(super) struct App {
    pub(super) targets: Vec<Target>,
    pub(super) balance: Balance,
    pub(super) slow_start: u64,
    pub(super) next: Cell<usize>,
    pub(super) timeouts: Timeouts,
    pub(super) request_trailers: bool,
    group: Arc<Group>,
    most_waiting: u64,
    waits: Waits,
}

/// An address of a server.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) server: Rc<Server>,
    /// What the app receives; `None` is the client's own.
    pub(super) host: Option<HeaderValue>,
    pub(super) place: Arc<Place>,
    pub(super) counts: Counts,
    /// Requests of this worker.
    pub(super) running: Rc<record::Cell>,
    /// For `hash`.
    pub(super) seed: u64,
    url: Arc<str>,
}

/// One request at a server, until its answer's end.
#[derive(Debug)]
pub(super) struct Running(Rc<record::Cell>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.sub(1);
    }
}

impl Upstreams {
    /// `limits` and `servers` are of the same configuration. `writer`: the worker.
    pub fn new(servers: &Servers, limits: &Limits, writer: Writer) -> Self {
        Self::build(servers, limits, writer, &HashMap::new())
    }

    /// For a new configuration or new addresses: servers that stay keep their connections, and of those that are gone the idle ones close.
    pub fn next(&self, servers: &Servers, limits: &Limits, writer: Writer) -> Self {
        let next = Self::build(servers, limits, writer, &self.pools);
        for (_, gone) in self.pools.iter().filter(|(reach, _)| !next.pools.contains_key(reach)) {
            gone.retire();
        }
        for (app, before) in next.apps.iter().zip(&self.apps) {
            app.next.set(before.next.get());
        }
        next
    }

    /// Whether addresses came or went since this was built.
    pub fn is_behind(&self, servers: &Servers) -> bool {
        self.moves != servers.moves()
    }

    fn build(servers: &Servers, limits: &Limits, writer: Writer, known: &HashMap<Reach, Rc<Server>>) -> Self {
        // First: what moves meanwhile is seen the next time.
        let moves = servers.moves();
        let caps = Caps { idle: limits.upstream_idle, open: limits.upstream_connections, max_age: limits.upstream_max_age };
        let mut pools: HashMap<Reach, Rc<Server>> = HashMap::new();
        let mut pool = |place: &Place| {
            let pool = pools.entry(place.reach.clone()).or_insert_with_key(|reach| {
                let (pooled, tls) = (place.pooled.of(writer), servers.tls(reach));
                match known.get(reach) {
                    Some(kept) => {
                        kept.renew(caps, pooled, tls);
                        Rc::clone(kept)
                    }
                    None => Server::new(reach.clone(), caps, pooled, tls),
                }
            });
            Rc::clone(pool)
        };
        let apps = servers.groups.iter().map(|group| App {
            targets: group
                .places()
                .map(|(entry, place)| Target {
                    server: pool(&place),
                    host: entry.host.clone(),
                    counts: entry.named.counts.of(writer),
                    running: Rc::new(place.running.of(writer)),
                    seed: stable_hash(place.reach.to_string().as_bytes()),
                    url: Arc::clone(&entry.named.url),
                    place,
                })
                .collect(),
            balance: group.balance,
            slow_start: group.slow_start,
            // Workers that all begin with the first server would load it in step.
            next: Cell::new(fastrand::usize(..=0xffff)),
            timeouts: group.timeouts,
            request_trailers: group.request_trailers,
            group: Arc::clone(group),
            most_waiting: u64::try_from(limits.upstream_waiting).unwrap_or(u64::MAX),
            waits: group.waits.of(writer),
        });
        let apps = apps.collect();
        let floor = Floor { rate: limits.body_rate, grace: limits.idle };
        let tells = pools.values().any(|server| server.is_told());
        Self { apps, pools, moves, tells, body_size: limits.body_size, floor }
    }

    pub(super) fn app(&self, app: AppId) -> Option<&App> {
        self.apps.get(app.index())
    }

    #[cfg(test)]
    pub(super) fn server(&self, host: &str, port: u16) -> &Rc<Server> {
        let at = At::Tcp { host: host.to_owned(), port };
        self.pools.iter().find(|(reach, _)| reach.at == at).map(|(_, server)| server).unwrap()
    }

    #[cfg(test)]
    pub(super) fn server_ports(&self) -> Vec<u16> {
        let ports = self.pools.keys().filter_map(|reach| match reach.at {
            At::Tcp { port, .. } => Some(port),
            At::Unix(_) => None,
        });
        ports.collect()
    }
}

impl App {
    /// Not a byte was sent to it.
    pub(super) fn unreached(&self, target: &Target, error: &io::Error) {
        target.counts.unreachable.add(1);
        // No fault of the server: all its connections are in use, or this process is at its own limits.
        if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::QuotaExceeded) || is_ours(error) {
            return;
        }
        let now = Instant::now();
        target.place.fitness.connected(false);
        target.place.fitness.rest(millis(now));
        self.group.failed(&target.url, &target.place, now);
    }

    /// It may have got all of the request.
    pub(super) fn unanswered(&self, target: &Target, failure: &Failure) {
        let count = match failure {
            Failure::Timeout => &target.counts.timeout,
            Failure::Broken(_) => &target.counts.broken,
            // A client that opens calls and says nothing would take servers out of use.
            Failure::Silence => return target.counts.timeout.add(1),
            _ => return target.counts.client.add(1),
        };
        count.add(1);
        self.group.failed(&target.url, &target.place, Instant::now());
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> u64 {
        self.waits.waiting.read()
    }

    /// The first server with room for a request that none had room for.
    pub(super) async fn room(&self, order: &Order<'_>, tried: &Tried, within: Duration) -> io::Result<(u16, &Target)> {
        if self.waits.waiting.read() >= self.most_waiting {
            self.waits.full.add(1);
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "as many requests as may wait for a connection to the app do"));
        }
        self.waits.waiting.add(1);
        let _waiting = Running(Rc::new(self.waits.waiting.clone()));
        let room = async {
            loop {
                // Heard of before looking, so that what is freed in between is not missed.
                let mut freed: SmallVec<[Pin<Box<Notified<'_>>>; 4]> =
                    self.targets.iter().map(|target| Box::pin(target.server.freed().notified())).collect();
                for freed in &mut freed {
                    freed.as_mut().enable();
                }
                match self.pick_for(order, tried, Instant::now()) {
                    Some((at, target, rank)) if rank != Rank::Full => return Some((at, target)),
                    None => return None,
                    Some(_) => {}
                }
                poll_fn(|cx| {
                    let any = freed.iter_mut().any(|freed| freed.as_mut().poll(cx).is_ready());
                    if any { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
            }
        };
        match tokio::time::timeout(within, room).await {
            Ok(Some(found)) => {
                self.waits.served.add(1);
                Ok(found)
            }
            Ok(None) => Err(io::Error::other("all servers of the app are down")),
            Err(_) => {
                self.waits.timeout.add(1);
                Err(io::Error::new(io::ErrorKind::WouldBlock, "all permitted connections to the app's servers are in use"))
            }
        }
    }
}

impl Target {
    /// Whom the server is told that a connection is for.
    pub(super) fn whose(&self, order: &Order<'_>) -> Option<Ends> {
        self.server.is_told().then(|| order.client.ends())
    }

    pub(super) fn running(&self) -> Running {
        self.running.add(1);
        Running(Rc::clone(&self.running))
    }
}

pub(super) fn host_field(host: &HostHeader, server: &config::Server) -> Option<HeaderValue> {
    let text = match (host, &server.at) {
        (HostHeader::Keep, _) => return None,
        (HostHeader::Name(name), _) => name.clone(),
        (HostHeader::Server, At::Unix(_)) => "localhost".to_owned(),
        (HostHeader::Server, At::Tcp { host, port }) => {
            let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            let default = if server.tls { 443 } else { 80 };
            if *port == default { host } else { format!("{host}:{port}") }
        }
    };
    HeaderValue::try_from(text).ok()
}
