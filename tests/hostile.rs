//! Peers that mean harm or know no better: whatever they send, or do not, costs little, ends in time, is counted, and hurts nobody else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends where its world breaks")]

mod support;

#[path = "hostile/chance.rs"]
mod chance;
#[path = "hostile/crowds.rs"]
mod crowds;
#[path = "hostile/floods.rs"]
mod floods;
#[path = "hostile/floods_of_requests.rs"]
mod floods_of_requests;
#[path = "hostile/heads.rs"]
mod heads;
#[path = "hostile/hellos.rs"]
mod hellos;
#[path = "hostile/limits.rs"]
mod limits;
#[path = "hostile/records.rs"]
mod records;
#[path = "hostile/slow.rs"]
mod slow;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::h2::{self, H2};
use support::{Config, Lab, Origin, Proxy, RawTls, Received, Reply, eventually, raw, tcp};

/// A proxy in front of an app that everybody may use, with limits short enough to wait for.
struct World {
    lab: Lab,
    origin: Origin,
    proxy: Proxy,
}

const SHORT: &str = "{handshake: 1s, request_head: 1s, idle: 1s}";

impl World {
    fn new(limits: &str) -> Self {
        Self::with(limits, Origin::start(app))
    }

    fn with(limits: &str, origin: Origin) -> Self {
        let lab = Lab::new();
        let proxy = lab.start(&config(&origin).set("limits", limits));
        Self { lab, origin, proxy }
    }

    fn plain(&self) -> TcpStream {
        tcp(self.proxy.addr("plain"))
    }

    fn edge(&self) -> TcpStream {
        tcp(self.proxy.addr("edge"))
    }

    fn tls(&self) -> RawTls {
        RawTls::connect(&self.proxy, &self.lab, "wiki.localhost", None)
    }

    fn h2(&self) -> H2 {
        H2::connect(&self.proxy, &self.lab, "wiki.localhost", None)
    }

    fn rejected(&self, reason: &str, times: f64) {
        self.proxy.metric_reaches("vestibule_rejected_total", &[("reason", reason)], times);
    }

    /// Runs the attack while a client of good manners asks again and again over connections of its own; every answer must come, and soon.
    #[track_caller]
    fn beside<T>(&self, attack: impl FnOnce() -> T) -> T {
        let over = AtomicBool::new(false);
        let answers = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                let mut slowest = Duration::ZERO;
                while !over.load(Ordering::SeqCst) || answers.load(Ordering::SeqCst) == 0 {
                    let mut tls = self.tls();
                    for _ in 0..20 {
                        let begun = Instant::now();
                        let answer = tls.ask("GET /good HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n");
                        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                        slowest = slowest.max(begun.elapsed());
                        answers.fetch_add(1, Ordering::SeqCst);
                    }
                }
                slowest
            });
            // Also when the attack's own checks fail, the client must come to its end.
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(attack));
            over.store(true, Ordering::SeqCst);
            let slowest = client.join().expect("the good client was harmed");
            assert!(slowest < Duration::from_secs(5), "an answer took {slowest:?}");
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The most memory, in KiB, that the proxy had resident since `forget_peak`.
    fn peak(&self) -> u64 {
        self.of_status("VmHWM:")
    }

    fn forget_peak(&self) -> u64 {
        std::fs::write(format!("/proc/{}/clear_refs", self.proxy.pid()), "5").unwrap();
        self.of_status("VmRSS:")
    }

    fn of_status(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.proxy.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Runs the attack beside a good client; memory must not grow with it.
    #[track_caller]
    fn flat<T>(&self, attack: impl FnOnce() -> T) -> T {
        // What is allocated once for all is there after this.
        self.beside(|| ());
        let before = self.forget_peak();
        let result = self.beside(attack);
        let grown = self.peak().saturating_sub(before);
        assert!(grown < FLAT_KIB, "memory grew by {grown} KiB from {before} KiB");
        result
    }

    fn alive(&mut self) {
        assert!(self.proxy.is_running(), "the proxy ended: {}", self.proxy.stderr());
        assert_eq!(self.proxy.metrics().sum("vestibule_panics_total", &[]), 0.0, "{}", self.proxy.stderr());
        self.beside(|| ());
    }
}

/// A few connections' worth of buffers, and what the allocator keeps.
const FLAT_KIB: u64 = 24 * 1024;

fn config(origin: &Origin) -> Config {
    Config::new(origin).set(
        "apps",
        &format!(
            "\n  - name: wiki\n    owner: knowledge\n    hosts: [wiki.localhost]\n    upstream: {{servers: [\"{}\"], timeouts: {{connect: 1s, response: 20s, idle: 1s}}}}\n    rules: [{{name: all, then: forward}}]",
            origin.url()
        ),
    )
}

/// Answers, hangs or floods, as the path asks.
fn app(received: &Received) -> Reply {
    let line = received.line();
    match line.split(' ').nth(1).unwrap_or_default() {
        "/hang" => Reply::Hang(Vec::new()),
        "/large" => Reply::Bytes([b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n".to_vec(), vec![b'x'; 64 << 20]].concat()),
        "/unique" => Reply::status("200 OK", &format!("X-Unique: {}\r\n", unique(received.connection).repeat(1000)), "unique"),
        _ => Reply::text("good"),
    }
}

/// Eight letters that never came before.
fn unique(connection: usize) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("{:04x}{:04x}", connection & 0xffff, COUNT.fetch_add(1, Ordering::SeqCst) & 0xffff)
}

/// Until the other side closes, with or without good manners; what came. Fails at the deadline.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut got = Vec::new();
    match stream.read_to_end(&mut got) {
        Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => panic!("the proxy does not close"),
        _ => got,
    }
}

/// Closed no earlier and not much later than a limit of one second.
#[track_caller]
fn within_a_second(begun: Instant) {
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(700) && took < Duration::from_secs(4), "closed after {took:?}");
}
