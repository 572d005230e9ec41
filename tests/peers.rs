//! Whoever stands in front: balancers that pass connections on, proxies that speak for clients, and what apps behind are told of it all. Nobody who is not
//! listed is believed anything, and who is listed is believed no more than that.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends where its world breaks")]

mod support;

#[path = "peers/apps.rs"]
mod apps;
#[path = "peers/balancers.rs"]
mod balancers;
#[path = "peers/believed.rs"]
mod believed;
#[path = "peers/certificates.rs"]
mod certificates;
#[path = "peers/envoy.rs"]
mod envoy;
#[path = "peers/fronts.rs"]
mod fronts;
#[path = "peers/reloads.rs"]
mod reloads;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use support::{Config, DEADLINE, Lab, Origin, Proxy, Reply, eventually, read_answer};

const LISTENERS: &str = r#"
  - name: edge
    bind: ["127.0.0.1:0"]
    tls: &tls
      certificates: [{cert: certs/edge.pem, key: certs/edge.key}]
      client_ca: [certs/device-ca.pem]
      client_crl: [certs/device-crl.pem]
    forwarded: {trusted: [127.0.0.1]}
  - name: plain
    bind: ["127.0.0.1:0"]
    forwarded: {trusted: [127.0.0.1, 10.9.0.0/16], client_ca: [certs/device-ca.pem], client_crl: [certs/device-crl.pem]}
  - name: bare
    bind: ["127.0.0.1:0"]
  - name: passed
    bind: ["127.0.0.1:0"]
    proxy_protocol: {trusted: [127.0.0.1]}
  - name: passed-tls
    bind: ["127.0.0.1:0"]
    tls: *tls
    proxy_protocol: {trusted: [127.0.0.1]}
  - name: both
    bind: ["127.0.0.1:0"]
    proxy_protocol: {trusted: [127.0.0.1]}
    forwarded: {trusted: [10.9.0.0/16], client_ca: [certs/device-ca.pem], client_crl: [certs/device-crl.pem]}
  - name: redirect
    bind: ["127.0.0.1:0"]
    redirect_to_https: true
    forwarded: {trusted: [127.0.0.1]}"#;

/// The office reads the wiki, devices with a record do from anywhere; git is open, and payroll too, once an hour.
const APPS: &str = r#"
  - name: wiki
    owner: knowledge
    hosts: [wiki.localhost]
    upstream: {servers: ["SERVER"]}
    client_cert: true
    rules:
      - {name: office, when: {net.zone: office}, then: forward}
      - {name: devices, when: {device.key: certificate, tier: ">= known"}, then: forward}
      - {name: rest, then: block}
  - name: git
    owner: knowledge
    hosts: [git.localhost]
    upstream: {servers: ["SERVER"]}
    rules: [{name: all, then: forward}]
  - name: docs
    owner: knowledge
    hosts: [docs.corp.example]
    upstream: {servers: ["SERVER"]}
    client_cert: true
    fingerprint_headers: huginn
    rules: [{name: all, then: forward}]
  - name: payroll
    owner: knowledge
    hosts: [payroll.localhost]
    upstream: {servers: ["SERVER"]}
    rules: [{name: all, then: restrict, with: [once]}]"#;

struct World {
    lab: Lab,
    origin: Origin,
    proxy: Proxy,
}

impl World {
    fn new() -> Self {
        Self::with(|config| config)
    }

    fn with(change: impl FnOnce(Config) -> Config) -> Self {
        let lab = Lab::new();
        let origin = Origin::answering(Reply::text("ok"));
        let proxy = lab.start(&change(Self::config(&origin)));
        Self { lab, origin, proxy }
    }

    fn config(origin: &Origin) -> Config {
        Config::new(origin)
            .set("workers", "1")
            .set("store", r#"{url: "sqlite://vestibule.db", cache: {negative_ttl: 1s}, lookup_timeout: 5s}"#)
            .set("listeners", LISTENERS)
            .set("networks", "{office: [10.1.0.0/16]}")
            .set("restrictions", "{once: {requests: 1/h}}")
            .set("apps", &APPS.replace("SERVER", &origin.url()))
    }

    fn connect(&self, listener: &str) -> Peer {
        Peer::from("127.0.0.1", self.proxy.addr(listener))
    }

    /// From an address that nobody trusts.
    fn stranger(&self, listener: &str) -> Peer {
        Peer::from("127.0.0.2", self.proxy.addr(listener))
    }

    /// The lines of the log, as soon as there are `n`: the last one.
    fn line(&self, n: usize) -> Value {
        self.lab.decisions(n).pop().unwrap()
    }

    fn rejected(&self, reason: &str, count: f64) {
        self.proxy.metric_reaches("vestibule_rejected_total", &[("reason", reason)], count);
    }
}

/// A GET of the wiki with these field lines.
fn get(lines: &str) -> String {
    asked("wiki.localhost", lines)
}

fn asked(host: &str, lines: &str) -> String {
    format!("GET /page HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n")
}

/// One connection, for exact bytes.
struct Peer(TcpStream);

impl Peer {
    fn from(source: &str, address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(source.parse().unwrap(), 0).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // A listener that refuses may close before it has all.
        let _ = self.0.write_all(bytes.as_ref());
    }

    /// Sends a request, and reads its answer as far as its `Content-Length`.
    fn ask(&mut self, request: &str) -> String {
        self.send(request);
        read_answer(&mut self.0)
    }

    fn status(&mut self, request: &str) -> u16 {
        self.ask(request)[9..12].parse().unwrap()
    }

    /// All that comes until the other side closes.
    fn rest(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        if let Err(error) = self.0.read_to_end(&mut all) {
            assert!(!matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "it stays open");
        }
        all
    }
}
