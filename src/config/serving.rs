//! Listeners, limits, store and decision log: what the program needs that no rule reads.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http::HeaderValue;
use ipnet::IpNet;

use super::names::Table;
use super::obj::Obj;
use super::report::{Findings, Place};
use super::typed::{
    Admin, AskCertificate, Assertion, Baseline, Cache, Census, CertificateFiles, DecisionLog, Fingerprints, Forwarded, Hash, Limits,
    Listener, LogTarget, Memory, Store, Tls,
};
use super::yaml::{Node, short};
use super::{shapes, units};
use crate::model::Host;
use crate::request;

/// A file that the configuration names: it must be there and hold what its key says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    pub path: PathBuf,
    pub holds: Holds,
    pub place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    Certificates,
    /// What the proxy presents itself with; its key comes right after it.
    Presented,
    PrivateKey,
    RevocationList,
    /// A table of known signatures.
    Known,
}

/// Reads the parts of the main file. `folder` is the file's own: relative paths start there.
#[derive(Debug)]
pub struct Serving<'a> {
    pub main: Obj<'a>,
    pub folder: &'a Path,
    pub files: Vec<NamedFile>,
}

impl<'a> Serving<'a> {
    pub fn listeners(&mut self, out: &mut Findings) -> Vec<Listener> {
        let mut names = Table::new("listener");
        let mut bound: HashMap<SocketAddr, Place> = HashMap::new();
        let mut listeners = Vec::new();
        for obj in self.main.objects("listeners", &shapes::LISTENER) {
            if let Some(name) = obj.need("name", out) {
                names.define(name, obj.place_of("name"), out);
            }
            let bind = obj.items("bind").iter().filter_map(|node| address(node, &mut bound, out)).collect();
            let tls = obj.get("tls").map(|node| self.tls(Obj::new(node, &shapes::TLS), out));
            let redirect_to_https = obj.flag("redirect_to_https");
            if redirect_to_https && tls.is_some() {
                out.clash(
                    obj.place_of_key("redirect_to_https"),
                    "a listener with `tls` cannot redirect to HTTPS: it speaks it",
                    (obj.place_of_key("tls"), "`tls` of the same listener"),
                );
            }
            let name = obj.text("name").unwrap_or_default().to_owned();
            let proxy_protocol = obj.get("proxy_protocol").map(|node| trusted(Obj::new(node, &shapes::PROXY_PROTOCOL), out));
            let forwarded = obj.get("forwarded").map(|node| self.forwarded(Obj::new(node, &shapes::FORWARDED), tls.as_ref(), out));
            let forward_auth = obj.get("forward_auth").map(|node| trusted(Obj::new(node, &shapes::FORWARD_AUTH), out));
            if redirect_to_https && forward_auth.is_some() {
                out.clash(
                    obj.place_of_key("forward_auth"),
                    "a listener that redirects every request answers no questions",
                    (obj.place_of_key("redirect_to_https"), "`redirect_to_https` of the same listener"),
                );
            }
            listeners.push(Listener { name, bind, tls, redirect_to_https, proxy_protocol, forwarded, forward_auth });
        }
        let admin = self.main.object("admin", &shapes::ADMIN);
        if let Some(node) = admin.get("bind") {
            address(node, &mut bound, out);
        }
        listeners
    }

    fn tls(&mut self, obj: Obj<'a>, out: &mut Findings) -> Tls {
        let certificates = obj
            .objects("certificates", &shapes::CERTIFICATE)
            .filter_map(|pair| {
                let cert = self.file(pair.get("cert"), Holds::Certificates, out);
                let key = self.file(pair.get("key"), Holds::PrivateKey, out);
                Some(CertificateFiles { cert: cert?, key: key? })
            })
            .collect();
        let client_ca = self.all(obj, "client_ca", Holds::Certificates, out);
        let client_crl = self.all(obj, "client_crl", Holds::RevocationList, out);
        if client_ca.is_empty() {
            for key in ["client_crl", "ask_certificate"] {
                if obj.get(key).is_some() {
                    out.error(obj.place_of_key(key), format!("`{key}` without a `client_ca`: nobody is asked for a certificate"));
                }
            }
        }
        let except = obj.object("ask_certificate", &shapes::ASK_CERTIFICATE).items("except");
        let except = except.iter().filter_map(|node| host(node, node.text()?, out)).collect();
        Tls { certificates, client_ca, client_crl, ask_certificate: AskCertificate { except } }
    }

    fn forwarded(&mut self, obj: Obj<'a>, tls: Option<&Tls>, out: &mut Findings) -> Forwarded {
        let mut client_ca = self.all(obj, "client_ca", Holds::Certificates, out);
        let mut client_crl = self.all(obj, "client_crl", Holds::RevocationList, out);
        if obj.get("client_ca").is_none() {
            if obj.get("client_crl").is_some() {
                out.error(
                    obj.place_of_key("client_crl"),
                    "`client_crl` without a `client_ca`: the lists belong to CAs that are named with them",
                );
            }
            client_ca = tls.map(|tls| tls.client_ca.clone()).unwrap_or_default();
            client_crl = tls.map(|tls| tls.client_crl.clone()).unwrap_or_default();
        }
        Forwarded { trusted: trusted(obj, out), client_ca, client_crl }
    }

    pub fn assertion(&self) -> Assertion {
        let obj = self.main.object("assertion", &shapes::ASSERTION);
        Assertion {
            issuer: obj.text("issuer").unwrap_or_default().to_owned(),
            keys: self.folder.join(obj.text("keys").unwrap_or_default()),
            rotate: obj.duration("rotate"),
        }
    }

    pub fn all(&mut self, obj: Obj<'a>, key: &str, holds: Holds, out: &mut Findings) -> Vec<PathBuf> {
        obj.items(key).iter().filter_map(|node| self.file(Some(node), holds, out)).collect()
    }

    pub fn file(&mut self, node: Option<&Node>, holds: Holds, out: &mut Findings) -> Option<PathBuf> {
        let Some((node, text)) = node.and_then(|node| Some((node, node.text()?))) else { return out.left_out() };
        let path = self.folder.join(text);
        self.files.push(NamedFile { path: path.clone(), holds, place: node.place });
        Some(path)
    }

    pub fn admin(&self, out: &mut Findings) -> Option<Admin> {
        let obj = self.main.object("admin", &shapes::ADMIN);
        let text = obj.need("bind", out)?;
        let Some(bind) = units::address(text) else {
            // Said where listeners are read.
            return out.left_out();
        };
        if !bind.ip().to_canonical().is_loopback() {
            out.error(
                obj.place_of("bind"),
                format!("found `{}`, expected a loopback address: the admin listener asks nobody who they are", short(text)),
            );
        }
        Some(Admin { bind })
    }

    pub fn limits(&self, out: &mut Findings) -> Limits {
        let obj = self.main.object("limits", &shapes::LIMITS);
        let bytes = |key: &str| obj.size(key).and_then(|size| usize::try_from(size).ok()).unwrap_or_default();
        let limits = Limits {
            handshake: obj.duration("handshake"),
            request_head: obj.duration("request_head"),
            head_size: bytes("head_size"),
            head_fields: obj.count("head_fields"),
            idle: obj.duration("idle"),
            h2_streams: obj.count("h2_streams"),
            connections: obj.count("connections"),
            connections_per_peer: obj.count("connections_per_peer"),
            client_hello: bytes("client_hello"),
            proxy_header: bytes("proxy_header"),
            body_size: obj.size("body_size"),
            body_rate: obj.bandwidth("body_rate"),
            drain_delay: obj.duration("drain_delay"),
            drain: obj.duration("drain"),
            upstream_idle: obj.count("upstream_idle"),
            upstream_connections: obj.count("upstream_connections"),
            upstream_waiting: obj.count("upstream_waiting"),
            upstream_max_age: obj.duration("upstream_max_age"),
            log_queue: obj.count("log_queue"),
            rate_entries: obj.count("rate_entries"),
        };
        if let Some(node) = obj.get("connections_per_peer").filter(|_| limits.connections_per_peer > limits.connections) {
            out.warn(node.place, format!("more than `connections` ({}): one peer can take them all", limits.connections));
        }
        if let Some(node) = obj.get("upstream_idle").filter(|_| limits.upstream_idle > limits.upstream_connections) {
            out.warn(node.place, format!("more than `upstream_connections` ({}): never reached", limits.upstream_connections));
        }
        limits
    }

    pub fn store(&self, out: &mut Findings) -> Option<Store> {
        let obj = self.main.object("store", &shapes::STORE);
        let cache = obj.object("cache", &shapes::CACHE);
        let path = obj.need("url", out).and_then(|url| match sqlite(url) {
            Ok(path) => Some(self.folder.join(path)),
            Err(expected) => {
                out.secret(obj.place_of("url"), expected);
                None
            }
        });
        Some(Store {
            path: path?,
            lookup_timeout: obj.duration("lookup_timeout"),
            cache: Cache { entries: cache.count("entries"), ttl: cache.duration("ttl"), negative_ttl: cache.duration("negative_ttl") },
            serve_stale: obj.object("when_down", &shapes::WHEN_DOWN).duration("serve_stale"),
        })
    }

    pub fn fingerprints(&mut self, out: &mut Findings) -> Fingerprints {
        let obj = self.main.object("fingerprints", &shapes::FINGERPRINTS);
        let known = obj.get("known").and_then(|node| self.file(Some(node), Holds::Known, out));
        let mut hints: Vec<&str> = Vec::new();
        for node in obj.items("accept_ch") {
            match node.text() {
                Some(hint) if hints.contains(&hint) => out.warn(node.place, format!("`{}` stands twice", short(hint))),
                Some(hint) => hints.push(hint),
                None => drop(out.left_out::<()>()),
            }
        }
        let accept_ch = HeaderValue::from_str(&hints.join(", ")).ok().filter(|_| !hints.is_empty());
        Fingerprints { known, ja3: obj.flag("ja3"), accept_ch, memory: memory(obj) }
    }

    pub fn decision_log(&self, out: &mut Findings) -> Option<DecisionLog> {
        let Some(node) = self.main.get("decision_log") else {
            out.warn(self.main.place, "no `decision_log`: nobody can say later why a request was refused");
            return None;
        };
        let obj = Obj::new(node, &shapes::DECISION_LOG);
        let target = match obj.need("path", out)? {
            "-" => LogTarget::StandardOutput,
            path => LogTarget::File(self.folder.join(path)),
        };
        let rotate = obj.size("rotate");
        let asked = rotate != Obj::absent(&shapes::DECISION_LOG).size("rotate");
        if target == LogTarget::StandardOutput && asked {
            out.warn(obj.place_of_key("rotate"), "standard output is not rotated");
        }
        Some(DecisionLog { target, rotate: rotate.unwrap_or_default(), required: obj.flag("required") })
    }
}

fn memory(fingerprints: Obj<'_>) -> Memory {
    let baseline = fingerprints.object("baseline", &shapes::BASELINE);
    let census = fingerprints.object("census", &shapes::CENSUS);
    Memory {
        hash: match fingerprints.text("hash") {
            Some("all") => Hash::All,
            Some("none") => Hash::None,
            _ => Hash::Personal,
        },
        baseline: Baseline {
            learn: baseline.duration("learn"),
            fleet_share: baseline.count("fleet_share"),
            fleet_devices: baseline.count("fleet_devices"),
            fleet_window: baseline.duration("fleet_window"),
            clear_after: baseline.duration("clear_after"),
            keep: baseline.duration("keep"),
            entries: baseline.count("entries"),
        },
        census: Census { entries: census.count("entries"), keep: census.duration("keep") },
    }
}

/// The networks of `trusted`. All of the internet is an error: then anybody could say who they are.
fn trusted(obj: Obj<'_>, out: &mut Findings) -> Vec<IpNet> {
    let mut networks: Vec<IpNet> = Vec::new();
    for node in obj.items("trusted") {
        let Some(text) = node.text() else { return out.left_out().unwrap_or_default() };
        match units::network(text) {
            Ok(network) if network.prefix_len() == 0 => out.error(
                node.place,
                format!("found {}, expected the addresses of proxies that are yours: here anybody could speak for anybody", node.found()),
            ),
            Ok(network) if networks.contains(&network) => out.warn(node.place, format!("{} stands twice", node.found())),
            Ok(network) => networks.push(network),
            Err(why) => out.error(node.place, format!("found {}, {why}", node.found())),
        }
    }
    networks
}

/// An address to listen on; the same one twice cannot work. Port 0 is any free port and can stand more than once.
fn address(node: &Node, bound: &mut HashMap<SocketAddr, Place>, out: &mut Findings) -> Option<SocketAddr> {
    let Some(text) = node.text() else { return out.left_out() };
    let Some(address) = units::address(text) else {
        out.error(node.place, format!("found `{}`, expected an address with port such as `0.0.0.0:8443` or `[::]:8443`", short(text)));
        return None;
    };
    match bound.get(&address).filter(|_| address.port() != 0) {
        Some(first) => out.clash(node.place, format!("`{address}` is bound already"), (*first, "first")),
        None => drop(bound.insert(address, node.place)),
    }
    Some(address)
}

/// A host without a port; `text` is what the node holds, or the part of it that is a host.
pub fn host(node: &Node, text: &str, out: &mut Findings) -> Option<Host> {
    // A port would be dropped without a word.
    if split_port(text).1.is_some() {
        out.error(node.place, format!("found {}, expected a host without a port", node.found()));
        return None;
    }
    match request::host(text) {
        Ok(host) => Some(host),
        Err(why) => {
            out.error(node.place, format!("found {}, expected a host such as `wiki.corp.example`: {why}", node.found()));
            None
        }
    }
}

/// A host and what stands after its colon. An IPv6 address has brackets.
pub fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    }
}

/// The file of `sqlite://PATH`. Another URL may hold a password: the error does not repeat it.
fn sqlite(url: &str) -> Result<&str, &'static str> {
    let path = url.strip_prefix("sqlite://").ok_or("expected `sqlite://` and a file, such as `sqlite://data/vestibule.db`")?;
    if path.is_empty() || path.ends_with('/') || path.contains(":memory:") {
        return Err("expected a file after `sqlite://`");
    }
    if path.contains(['?', '#', '%', '\0']) {
        return Err("expected a plain file after `sqlite://`: no options, no escapes");
    }
    Ok(path)
}
