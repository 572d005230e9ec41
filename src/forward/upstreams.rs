//! The servers of all apps, of one worker.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;
use smallvec::SmallVec;

use super::pool::{Caps, Server, UpFlag};
use super::trickle::Floor;
use crate::config::{self, At, HostHeader, Limits, Protocol, ProxyProtocol, Route, Timeouts, UpstreamTls};
use crate::policy::AppId;

/// Whether each server took the last connection that any worker tried, for `vestibule_upstream_up`. One for the process and configuration.
#[derive(Debug)]
pub struct Up {
    flags: HashMap<Reach, Arc<UpFlag>>,
    servers: Vec<(Arc<str>, Arc<str>, Arc<UpFlag>)>,
}

impl Up {
    pub fn new(routes: &[Route]) -> Arc<Self> {
        Self::build(routes, &HashMap::new())
    }

    /// For a new configuration: what is known of servers that stay is kept.
    pub fn next(&self, routes: &[Route]) -> Arc<Self> {
        Self::build(routes, &self.flags)
    }

    /// App, server's URL, and whether it is up; `None` before the first connection.
    pub fn servers(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, Option<bool>)> {
        self.servers.iter().map(|(app, server, flag)| (app, server, flag.get()))
    }

    fn build(routes: &[Route], known: &HashMap<Reach, Arc<UpFlag>>) -> Arc<Self> {
        let mut flags = HashMap::new();
        let mut servers = Vec::new();
        for route in routes {
            for server in &route.upstream.servers {
                let key = Reach::of(route, server);
                let flag = flags.entry(key).or_insert_with_key(|key| known.get(key).cloned().unwrap_or_default());
                servers.push((Arc::clone(&route.app), Arc::clone(&server.url), Arc::clone(flag)));
            }
        }
        Arc::new(Self { flags, servers })
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

/// One for each worker; requests of its runtime only, where `spawn_local` works.
#[derive(Debug)]
pub struct Upstreams {
    /// By `AppId`.
    apps: Vec<App>,
    /// Apps that name the same server share its connections.
    servers: HashMap<Reach, Rc<Server>>,
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
}

/// A server, and the Host that it receives for one app; `None` is the client's own.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) server: Rc<Server>,
    pub(super) host: Option<HeaderValue>,
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
                let up = up.flag(key);
                match known.get(key) {
                    Some(kept) => {
                        kept.renew(caps, up);
                        Rc::clone(kept)
                    }
                    None => Server::new(key.clone(), caps, up),
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
            })
            .collect();
        let floor = Floor { rate: limits.body_rate, grace: limits.idle };
        Self { apps, servers, body_size: limits.body_size, floor }
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
