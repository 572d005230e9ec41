//! What is more than a request and its answer: WebSockets and other upgrades, answers that last, and bodies that wait to be asked for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

mod support;

#[path = "upgrades/browser.rs"]
mod browser;
#[path = "upgrades/http2.rs"]
mod http2;
#[path = "upgrades/lasting.rs"]
mod lasting;
#[path = "upgrades/refused.rs"]
mod refused;
#[path = "upgrades/streaming.rs"]
mod streaming;
#[path = "upgrades/suite.rs"]
mod suite;
#[path = "upgrades/tunnels.rs"]
mod tunnels;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use support::{Config, DEADLINE, Lab, Proxy, RawTls, tcp};

/// An app that does with a connection what the test says, byte by byte. Heads are kept.
struct App {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl App {
    /// `serve` gets each connection's first head, and the connection with what came behind it.
    fn start(serve: impl Fn(&str, Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let app = Self { address: listener.local_addr().unwrap(), heads: Arc::default() };
        let (heads, serve) = (Arc::clone(&app.heads), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (heads, serve) = (Arc::clone(&heads), Arc::clone(&serve));
                std::thread::spawn(move || {
                    stream.set_nodelay(true).unwrap();
                    let mut peer = Peer { stream, got: Vec::new() };
                    if let Some(head) = peer.head() {
                        heads.lock().unwrap().push(head.clone());
                        serve(&head, peer);
                    }
                });
            }
        });
        app
    }

    /// Switches, and says each byte back until the client ends.
    fn echo() -> Self {
        Self::start(|head, mut peer| {
            peer.write(switched(head).as_bytes());
            while let Some(part) = peer.more() {
                peer.write(&part);
            }
        })
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// One side of a connection of which every byte counts.
struct Peer {
    stream: TcpStream,
    got: Vec<u8>,
}

impl Peer {
    fn to(address: SocketAddr) -> Self {
        Self { stream: tcp(address), got: Vec::new() }
    }

    fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// `None`: the other side ended.
    fn more(&mut self) -> Option<Vec<u8>> {
        if !self.got.is_empty() {
            return Some(std::mem::take(&mut self.got));
        }
        let mut part = [0; 16 << 10];
        match self.stream.read(&mut part) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => panic!("nothing came within {DEADLINE:?}"),
            Ok(0) | Err(_) => None,
            Ok(n) => Some(part[..n].to_vec()),
        }
    }

    fn head(&mut self) -> Option<String> {
        let mut all = Vec::new();
        loop {
            if let Some(at) = all.windows(4).position(|four| four == b"\r\n\r\n") {
                self.got = all.split_off(at + 4);
                return Some(String::from_utf8_lossy(&all).into_owned());
            }
            all.extend(self.more()?);
        }
    }

    fn take(&mut self, n: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < n {
            let Some(part) = self.more() else { panic!("the other side ended after {:?}", String::from_utf8_lossy(&all)) };
            all.extend(part);
        }
        self.got = all.split_off(n);
        all
    }

    fn rest(&mut self) -> Vec<u8> {
        std::iter::from_fn(|| self.more()).flatten().collect()
    }
}

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const OPEN: &str = "GET /ws?a=b HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat\r\n\r\n";

/// What a sound WebSocket server answers to the head.
fn switched(head: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: chat\r\n\r\n",
        accept(&field(head, "sec-websocket-key").join(", "))
    )
}

fn accept(key: &str) -> String {
    let hash = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes(),
    );
    let digits: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['+', '/']).collect();
    let bits: Vec<u8> = hash.as_ref().iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let six = |six: &[u8]| six.iter().chain([0; 6].iter()).take(6).fold(0, |all, bit| all << 1 | usize::from(*bit));
    let text: String = bits.chunks(6).map(|part| digits[six(part)]).collect();
    text + "="
}

fn field(head: &str, name: &str) -> Vec<String> {
    let fields = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).collect()
}

/// A proxy in front of an app that everybody may use, but for what a test changes.
struct World {
    app: App,
    lab: Lab,
    proxy: Proxy,
}

impl World {
    fn new(app: App) -> Self {
        Self::with(app, "", |config| config)
    }

    /// `keys` are more of the app's, each behind a comma.
    fn with(app: App, keys: &str, change: impl Fn(Config) -> Config) -> Self {
        let lab = Lab::new();
        let proxy = lab.start(&change(config(&app, keys, "{name: all, then: forward}")));
        Self { app, lab, proxy }
    }

    fn plain(&self) -> Peer {
        Peer::to(self.proxy.addr("plain"))
    }

    /// A client behind the app's 101.
    fn tunnel(&self) -> Peer {
        let mut client = self.plain();
        client.write(OPEN.as_bytes());
        let head = client.head().unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        client
    }

    fn tls(&self) -> RawTls {
        RawTls::connect(&self.proxy, &self.lab, "wiki.localhost", None)
    }

    fn cut(&self, reason: &str, times: f64) {
        self.proxy.metric_reaches("vestibule_streams_cut_total", &[("reason", reason)], times);
    }
}

fn config(app: &App, keys: &str, rules: &str) -> Config {
    let origin = support::Origin::answering(support::Reply::text("unused"));
    Config::new(&origin).set(
        "apps",
        &format!(
            "\n  - {{name: wiki, owner: knowledge, hosts: [wiki.localhost], upstream: {{servers: [\"{}\"], timeouts: {{idle: 2s, tunnel: 20s}}}}, rules: [{rules}]{keys}}}",
            app.url()
        ),
    )
}

/// A frame of a server.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    [&[0x80 | opcode, u8::try_from(payload.len()).unwrap()], payload].concat()
}
