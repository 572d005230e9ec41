//! The servers of all apps, of one worker.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;
use smallvec::SmallVec;

use super::pool::{Caps, Server, UpFlag};
use super::secure::Secure;
use super::trickle::Floor;
use super::{Ends, Order};
use crate::config::{self, At, HostHeader, Limits, Protocol, ProxyProtocol, Route, Timeouts, UpstreamTls};
use crate::policy::AppId;

/// Whether each server took the last connection that any worker tried, for `vestibule_upstream_up`. One for the process and configuration.
#[derive(Debug)]
pub struct Up {
    flags: HashMap<Reach, Arc<UpFlag>>,
    servers: Vec<(Arc<str>, Arc<str>, Arc<UpFlag>)>,
    secure: Arc<Secure>,
}

impl Up {
    pub fn new(routes: &[Route], secure: Arc<Secure>) -> Arc<Self> {
        Self::build(routes, &HashMap::new(), secure)
    }

    /// For a new configuration: what is known of servers that stay is kept.
    pub fn next(&self, routes: &[Route], secure: Arc<Secure>) -> Arc<Self> {
        Self::build(routes, &self.flags, secure)
    }

    /// App, server's URL, and whether it is up; `None` before the first connection.
    pub fn servers(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, Option<bool>)> {
        self.servers.iter().map(|(app, server, flag)| (app, server, flag.get()))
    }

    fn build(routes: &[Route], known: &HashMap<Reach, Arc<UpFlag>>, secure: Arc<Secure>) -> Arc<Self> {
        let mut flags = HashMap::new();
        let mut servers = Vec::new();
        for route in routes {
            for server in &route.upstream.servers {
                let key = Reach::of(route, server);
                let flag = flags.entry(key).or_insert_with_key(|key| known.get(key).cloned().unwrap_or_default());
                servers.push((Arc::clone(&route.app), Arc::clone(&server.url), Arc::clone(flag)));
            }
        }
        Arc::new(Self { flags, servers, secure })
    }

    /// How apps with TLS are spoken to.
    pub fn secure(&self) -> &Secure {
        &self.secure
    }

    fn flag(&self, reach: &Reach) -> Arc<UpFlag> {
        self.flags.get(reach).cloned().unwrap_or_default()
    }
}

/// How a server is reached: what shares connections and health. Apps that reach a server in the same way share both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reach {
    pub(super) at: At,
    /// `None`: without TLS.
    pub(super) tls: Option<UpstreamTls>,
    pub(super) protocol: Protocol,
    pub(super) proxy_protocol: ProxyProtocol,
}

impl Reach {
    fn of(route: &Route, server: &config::Server) -> Self {
        let upstream = &route.upstream;
        Self {
            at: server.at.clone(),
            tls: server.tls.then(|| upstream.tls.clone()),
            protocol: upstream.protocol,
            proxy_protocol: upstream.proxy_protocol,
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        match &self.at {
            At::Tcp { host, port } if host.contains(':') => write!(f, "{scheme}://[{host}]:{port}"),
            At::Tcp { host, port } => write!(f, "{scheme}://{host}:{port}"),
            At::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One for each worker; requests of its runtime only, where `spawn_local` works.
#[derive(Debug)]
pub struct Upstreams {
    /// By `AppId`.
    apps: Vec<App>,
    /// Apps that name the same server share its connections.
    servers: HashMap<Reach, Rc<Server>>,
    /// Some server is told whom its connections are for.
    pub tells: bool,
    /// Bytes of a request's body, where the app's restrictions say no less.
    pub(super) body_size: Option<u64>,
    /// How slowly a request's body may come.
    pub(super) floor: Floor,
}

#[derive(Debug)]
pub(super) struct App {
    servers: Vec<Target>,
    next: Cell<usize>,
    pub(super) timeouts: Timeouts,
    pub(super) request_trailers: bool,
}

/// A server, and the Host that it receives for one app; `None` is the client's own.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) server: Rc<Server>,
    pub(super) host: Option<HeaderValue>,
}

impl Target {
    /// Whom the server is told that a connection is for.
    pub(super) fn whose(&self, order: &Order<'_>) -> Option<Ends> {
        self.server.is_told().then(|| order.client.ends())
    }
}

impl Upstreams {
    /// `routes` and `up` are of the same configuration.
    pub fn new(routes: &[Route], limits: &Limits, up: &Up) -> Self {
        Self::build(routes, limits, up, &HashMap::new())
    }

    /// For a new configuration: servers that stay keep their connections.
    pub fn next(&self, routes: &[Route], limits: &Limits, up: &Up) -> Self {
        Self::build(routes, limits, up, &self.servers)
    }

    fn build(routes: &[Route], limits: &Limits, up: &Up, known: &HashMap<Reach, Rc<Server>>) -> Self {
        let caps = Caps { idle: limits.upstream_idle, open: limits.upstream_connections, max_age: limits.upstream_max_age };
        let mut servers: HashMap<Reach, Rc<Server>> = HashMap::new();
        let mut target = |server: &config::Server, route: &Route| {
            let entry = servers.entry(Reach::of(route, server)).or_insert_with_key(|key| {
                let tls = key.tls.as_ref().and_then(|tls| up.secure.of(tls, key.protocol));
                let up = up.flag(key);
                match known.get(key) {
                    Some(kept) => {
                        kept.renew(caps, up, tls);
                        Rc::clone(kept)
                    }
                    None => Server::new(key.clone(), caps, up, tls),
                }
            });
            Target { server: Rc::clone(entry), host: host_field(&route.upstream.host, server) }
        };
        let apps = routes
            .iter()
            .map(|route| App {
                servers: route.upstream.servers.iter().map(|server| target(server, route)).collect(),
                // Workers that all begin with the first server would load it in step.
                next: Cell::new(fastrand::usize(..=0xffff)),
                timeouts: route.upstream.timeouts,
                request_trailers: route.request_trailers,
            })
            .collect();
        let floor = Floor { rate: limits.body_rate, grace: limits.idle };
        let tells = servers.values().any(|server| server.is_told());
        Self { apps, servers, tells, body_size: limits.body_size, floor }
    }

    pub(super) fn app(&self, app: AppId) -> Option<&App> {
        self.apps.get(app.index())
    }

    #[cfg(test)]
    pub(super) fn server(&self, host: &str, port: u16) -> &Rc<Server> {
        let at = At::Tcp { host: host.to_owned(), port };
        self.servers.iter().find(|(reach, _)| reach.at == at).map(|(_, server)| server).unwrap()
    }

    #[cfg(test)]
    pub(super) fn server_ports(&self) -> Vec<u16> {
        let ports = self.servers.keys().filter_map(|reach| match reach.at {
            At::Tcp { port, .. } => Some(port),
            At::Unix(_) => None,
        });
        ports.collect()
    }
}

impl App {
    /// All servers, each once, round robin; those that took no connection a moment ago come last.
    pub(super) fn rotation(&self, now: Instant) -> SmallVec<[&Target; 4]> {
        let start = self.next.get();
        self.next.set(start.wrapping_add(1));
        let count = self.servers.len();
        let mut order: SmallVec<[&Target; 4]> = (0..count).filter_map(|i| self.servers.get(start.wrapping_add(i) % count)).collect();
        if count > 1 {
            order.sort_by_key(|target| target.server.is_cooling(now));
        }
        order
    }
}

fn host_field(host: &HostHeader, server: &config::Server) -> Option<HeaderValue> {
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
