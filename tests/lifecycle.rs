//! The running program: it stops without cutting anybody off, and takes a new configuration as a whole or not at all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends where its world breaks")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use support::{Config, Curl, DEADLINE, Lab, Origin, Proxy, RawTls, Reply, eventually, tcp};

const FIT: &str = "ownership=corporate state=approved posture.os_supported=ok posture.screen_lock=ok";
const HOST: &str = "wiki.corp.example";
const GET: &str = "GET / HTTP/1.1\r\nHost: wiki.corp.example\r\n\r\n";
const RELOADS: &str = "vestibule_config_reload_total";

/// A door that the app waits behind.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    waiting: AtomicUsize,
}

impl Gate {
    fn pass(&self) {
        self.waiting.fetch_add(1, SeqCst);
        let open = self.open.lock().unwrap();
        drop(self.opened.wait_timeout_while(open, DEADLINE, |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn wait(&self, n: usize) {
        eventually(&format!("{n} requests wait at the app"), || (self.waiting.load(SeqCst) >= n).then_some(()));
    }
}

/// An app whose `/slow` waits for the gate.
fn gated() -> (Origin, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let at = Arc::clone(&gate);
    let origin = Origin::start(move |received| {
        if received.line().starts_with("GET /slow ") {
            at.pass();
        }
        Reply::text("hello")
    });
    (origin, gate)
}

fn config(origin: &Origin) -> Config {
    Config::new(origin).replace("[wiki.localhost]", "[wiki.corp.example]")
}

fn refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}

/// Of HTTP/2: type, flags, stream, payload.
type Frame = (u8, u8, u32, Vec<u8>);

fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut all = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        let Some((payload, after)) = rest.split_at_checked(length) else { break };
        all.push((head[3], head[4], stream, payload.to_vec()));
        bytes = after;
    }
    all
}

const HEADERS: u8 = 1;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// Preface, empty SETTINGS, and a GET of the path on stream 1: HPACK with static names and plain text.
fn h2_get(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x87, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(&[0x01, u8::try_from(HOST.len()).unwrap()]);
    block.extend_from_slice(HOST.as_bytes());
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    bytes.extend_from_slice(&[0, 0, u8::try_from(block.len()).unwrap(), HEADERS, 0x05, 0, 0, 0, 1]);
    bytes.extend_from_slice(&block);
    bytes
}

/// All frames until the connection ends. A PING is answered, as every client does.
fn h2_until_closed(client: &mut RawTls) -> Vec<Frame> {
    let (mut bytes, mut answered) = (Vec::new(), 0);
    loop {
        let more = client.read_more();
        if more.is_empty() {
            return frames(&bytes);
        }
        bytes.extend(more);
        let pings: Vec<_> = frames(&bytes).into_iter().filter(|(kind, flags, ..)| *kind == PING && flags & 1 == 0).collect();
        for (.., payload) in pings.iter().skip(answered) {
            client.send(&[&[0, 0, 8, PING, 1, 0, 0, 0, 0], payload.as_slice()].concat());
        }
        answered = pings.len();
    }
}

#[test]
fn sigterm_finishes_what_runs_and_takes_nothing_new() {
    let (origin, gate) = gated();
    let lab = Lab::new();
    let config = config(&origin);
    lab.configure(&config);
    let laptop = lab.device("laptop", FIT);
    let mut proxy = lab.start(&config);
    let edge = proxy.addr("edge");
    let connect = || RawTls::connect(&proxy, &lab, HOST, Some(&laptop));
    let mut idle = connect();
    assert!(idle.ask(GET).starts_with("HTTP/1.1 200 "));
    let mut running = connect();
    running.send(b"GET /slow HTTP/1.1\r\nHost: wiki.corp.example\r\n\r\n");
    let mut h2 = RawTls::with_alpn(edge, &lab, (HOST, "h2"), Some(&laptop));
    h2.send(&h2_get("/slow"));
    gate.wait(2);

    proxy.signal(libc::SIGTERM);
    assert_eq!(idle.read_all(), "", "an idle connection is closed");
    eventually("new connections are refused", || (refused(edge) && refused(proxy.addr("plain"))).then_some(()));
    let (status, why) = proxy.admin_get("/readyz");
    assert!(status == 503 && why.contains("stopping"), "{status} {why}");
    assert!(proxy.is_running());
    gate.open();
    let answer = running.read_all();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    let all = h2_until_closed(&mut h2);
    let goaway = all.iter().position(|(kind, ..)| *kind == GOAWAY).expect("GOAWAY");
    let head = all.iter().position(|(kind, _, stream, _)| (*kind, *stream) == (HEADERS, 1)).expect("the answer's head");
    assert!(goaway < head, "GOAWAY comes before the answer of what runs: {all:?}");
    assert!(all[head].3.starts_with(&[0x88]), "status 200");
    assert!(
        all.iter().any(|(kind, flags, stream, payload)| (*kind, *stream) == (0, 1) && (flags & 1 == 1 || payload == b"hello")),
        "{all:?}"
    );
    let status = proxy.ended();
    assert_eq!(status.code(), Some(0));
    let log = lab.decisions(3);
    assert!(log.len() == 3 && log.iter().all(|line| line["status"] == 200), "{log:?}");
}

#[test]
fn what_waits_to_be_accepted_is_answered_before_the_end() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let mut proxy = lab.start(&config(&origin).set("workers", "1"));
    let plain = proxy.addr("plain");
    proxy.signal(libc::SIGSTOP);
    let mut waiting: Vec<TcpStream> = (0..600).map(|_| tcp(plain)).collect();
    for client in &mut waiting {
        client.write_all(GET.as_bytes()).unwrap();
    }
    proxy.signal(libc::SIGTERM);
    proxy.signal(libc::SIGCONT);
    for (at, client) in waiting.iter_mut().enumerate() {
        let mut answer = Vec::new();
        let ended = client.read_to_end(&mut answer);
        assert!(answer.starts_with(b"HTTP/1.1 403 "), "connection {at}: {ended:?}");
    }
    assert_eq!(proxy.ended().code(), Some(0));
}

#[test]
fn a_reload_that_takes_long_does_not_silence_the_admin_listener() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin);
    let proxy = lab.start(&config);
    // Another program holds the new store; the reload waits for it.
    let holder = rusqlite::Connection::open(lab.path("next.db")).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    lab.configure(&config.set("store", r#"{url: "sqlite://next.db"}"#));
    eventually("the reload has failed", || {
        let asked = Instant::now();
        assert_eq!(proxy.admin_get("/livez").0, 200);
        assert!(asked.elapsed() < Duration::from_secs(2), "/livez took {:?}", asked.elapsed());
        (proxy.metrics().sum(RELOADS, &[("result", "failure")]) > 0.0).then_some(())
    });
}

#[test]
fn a_second_signal_stops_at_once() {
    let (origin, gate) = gated();
    let lab = Lab::new();
    let config = config(&origin).set("limits", "{drain: 1h}");
    lab.configure(&config);
    let laptop = lab.device("laptop", FIT);
    let mut proxy = lab.start(&config);
    let mut running = RawTls::connect(&proxy, &lab, HOST, Some(&laptop));
    running.send(b"GET /slow HTTP/1.1\r\nHost: wiki.corp.example\r\n\r\n");
    gate.wait(1);
    proxy.signal(libc::SIGTERM);
    eventually("new connections are refused", || refused(proxy.addr("edge")).then_some(()));
    // One that comes too soon after the first is taken for its echo.
    eventually("it ends", || {
        proxy.signal(libc::SIGINT);
        (!proxy.is_running()).then_some(())
    });
    assert_eq!(proxy.ended().code(), Some(0));
    assert!(!running.read_all().contains("200"));
    gate.open();
}

#[test]
fn what_does_not_end_is_cut_at_the_drain_limit() {
    let (origin, gate) = gated();
    let lab = Lab::new();
    let config = config(&origin).set("limits", "{drain: 200ms}");
    lab.configure(&config);
    let laptop = lab.device("laptop", FIT);
    let mut proxy = lab.start(&config);
    let mut running = RawTls::connect(&proxy, &lab, HOST, Some(&laptop));
    running.send(b"GET /slow HTTP/1.1\r\nHost: wiki.corp.example\r\n\r\n");
    gate.wait(1);
    // A connection that never says anything holds nobody up either.
    let _silent = TcpStream::connect(proxy.addr("edge")).unwrap();
    proxy.signal(libc::SIGTERM);
    assert_eq!(proxy.ended().code(), Some(0));
    assert!(proxy.stderr().contains("limits.drain was over"), "{}", proxy.stderr());
    assert_eq!(lab.decisions(1)[0]["status"], 499);
    gate.open();
}

/// Writes a configuration and waits until it is in force or refused.
fn reload(proxy: &Proxy, lab: &Lab, config: &Config, result: &str) {
    let before = proxy.metrics().sum(RELOADS, &[("result", result)]);
    lab.configure(config);
    proxy.metric_reaches(RELOADS, &[("result", result)], before + 1.0);
}

#[test]
fn a_changed_file_or_a_signal_binds_live_connections() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin);
    lab.configure(&config);
    let laptop = lab.device("laptop", FIT);
    let proxy = lab.start(&config);
    let mut live = RawTls::connect(&proxy, &lab, HOST, Some(&laptop));
    assert!(live.ask(GET).starts_with("HTTP/1.1 200 "));
    // The file alone.
    let closed = config.clone().replace("then: forward}", "then: block}");
    reload(&proxy, &lab, &closed, "success");
    assert!(live.ask(GET).starts_with("HTTP/1.1 403 "), "the new policy holds at the next request");
    // The signal alone: a folder that is not watched yet cannot have changed, so the count is the signal's.
    let before = proxy.metrics().sum(RELOADS, &[]);
    proxy.signal(libc::SIGHUP);
    proxy.metric_reaches(RELOADS, &[("result", "success")], before + 1.0);
    assert!(live.ask(GET).starts_with("HTTP/1.1 403 "));
    reload(&proxy, &lab, &config, "success");
    assert!(live.ask(GET).starts_with("HTTP/1.1 200 "));
    let policies: Vec<String> = lab.decisions(4).iter().map(|line| line["policy_rev"].to_string()).collect();
    assert!(policies[0] == policies[3] && policies[1] == policies[2] && policies[0] != policies[1], "{policies:?}");
}

#[test]
fn a_bad_file_leaves_everything_as_it_was() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin);
    lab.configure(&config);
    let laptop = lab.device("laptop", FIT);
    let proxy = lab.start(&config);
    let revision =
        |proxy: &Proxy| proxy.metrics().0.iter().find(|s| s.name == "vestibule_policy_info").unwrap().label("revision").to_owned();
    let loaded = |proxy: &Proxy| proxy.metrics().sum("vestibule_config_last_good_timestamp_seconds", &[]);
    let (good, since) = (revision(&proxy), loaded(&proxy));
    let mut live = RawTls::connect(&proxy, &lab, HOST, Some(&laptop));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let _holds = TcpListener::bind(taken);
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    // Each would also close the app, had any part of it been taken.
    let closed = config.clone().replace("then: forward}", "then: block}");
    let listener = |bind: &str| format!("  - name: more\n    bind: [{bind}]\n  - name: plain\n");
    let bad = [
        (closed.clone().replace("owner: knowledge", "owner: nobody"), ["vestibule.yaml:", "nobody"]),
        (closed.clone().set("limits", "{drian: 1s}"), ["vestibule.yaml:", "drain"]),
        (closed.clone().set("workers", "3"), ["workers", "restart"]),
        (closed.clone().replace("certs/device-crl.pem", "certs/missing.pem"), ["missing.pem", "No such file"]),
        (
            closed.clone().replace("certs/edge.key", "certs/device-ca.key"),
            ["vestibule.yaml:", "device-ca.key: the key is of another certificate"],
        ),
        (
            closed.clone().replace("  - name: plain\n", &listener(&format!("\"127.0.0.1:0\", \"{}\"", held.local_addr().unwrap()))),
            ["more", "cannot listen"],
        ),
        (closed.clone().set("decision_log", "{path: /proc/nowhere/log}"), ["/proc/nowhere/log", "decision_log"]),
        (closed.clone().set("store", "{url: \"sqlite://certs\"}"), ["certs", "directory"]),
    ];
    for (config, words) in &bad {
        let said = proxy.stderr().len();
        reload(&proxy, &lab, config, "failure");
        let said = eventually("the failure is said", || Some(proxy.stderr()[said..].to_owned()).filter(|said| said.contains(words[0])));
        assert!(said.contains(words[1]) && said.contains("the old one stays in force"), "{words:?}: {said}");
        if words[0].ends_with(':') {
            let place = said.split(words[0]).nth(1).unwrap();
            assert!(place.starts_with(|c: char| c.is_ascii_digit()), "the place has a line: {said}");
        }
        assert!(live.ask(GET).starts_with("HTTP/1.1 200 "), "{words:?}");
    }
    assert_eq!((revision(&proxy), loaded(&proxy)), (good, since));
    assert_eq!(proxy.metrics().sum(RELOADS, &[("result", "success")]), 0.0);
    reload(&proxy, &lab, &closed, "success");
    assert!(live.ask(GET).starts_with("HTTP/1.1 403 "), "and a good one is taken afterwards");
}

#[test]
fn listeners_come_and_go_by_reload() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin);
    lab.configure(&config);
    let laptop = lab.device("laptop", FIT);
    let proxy = lab.start(&config);
    let mut live = RawTls::connect(&proxy, &lab, HOST, Some(&laptop));
    assert!(live.ask(GET).starts_with("HTTP/1.1 200 "));
    let more = config.clone().replace("  - name: plain\n", "  - name: more\n    bind: [\"127.0.0.1:0\"]\n  - name: plain\n");
    reload(&proxy, &lab, &more, "success");
    let address: SocketAddr = eventually("the new address is said", || {
        let said = proxy.stderr();
        let line = said.lines().find(|line| line.contains("listening listener=more"))?;
        line.split("addr=").nth(1)?.trim().parse().ok()
    });
    let get = || Curl::at(address).get("http://wiki.corp.example/");
    assert_eq!(get().status, 403);
    assert!(live.ask(GET).starts_with("HTTP/1.1 200 "), "the others stay as they are");
    let mut theirs = tcp(address);
    theirs.write_all(GET.as_bytes()).unwrap();
    let mut first = [0; 12];
    theirs.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 403");
    reload(&proxy, &lab, &config, "success");
    eventually("the address that went refuses", || refused(address).then_some(()));
    theirs.read_to_end(&mut Vec::new()).expect("its connections are closed");
    assert!(live.ask(GET).starts_with("HTTP/1.1 200 "));
    assert_eq!(Curl::at(proxy.addr("plain")).get("http://wiki.corp.example/").status, 403);
}

#[test]
fn an_address_goes_from_one_listener_to_another_by_reload() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let more = |name: &str| {
        let listener = format!("  - name: {name}\n    bind: [\"{free}\"]\n    redirect_to_https: true\n  - name: plain\n");
        config(&origin).replace("  - name: plain\n", &listener)
    };
    let proxy = lab.start(&more("old"));
    let mut live = tcp(free);
    live.write_all(GET.as_bytes()).unwrap();
    live.read_exact(&mut [0; 12]).unwrap();
    reload(&proxy, &lab, &more("new"), "success");
    live.read_to_end(&mut Vec::new()).expect("the old listener's connections are closed");
    let held = tcp(free);
    proxy.metric_reaches("vestibule_connections", &[("listener", "new")], 1.0);
    drop(held);
    assert_eq!(Curl::at(free).get("http://wiki.corp.example/").status, 308);
    reload(&proxy, &lab, &config(&origin), "success");
    eventually("the address that went refuses", || refused(free).then_some(()));
}

#[test]
fn a_certificate_that_is_replaced_is_served_to_new_connections() {
    let origin = Origin::answering(Reply::text("hello"));
    let (lab, next) = (Lab::new(), Lab::new());
    let proxy = lab.start(&config(&origin));
    let mut live = RawTls::connect(&proxy, &lab, HOST, None);
    assert!(live.ask(GET).starts_with("HTTP/1.1 403 "));
    let get = |lab: &Lab| Curl::to(&proxy, lab).get("https://wiki.corp.example/").status;
    assert_eq!((get(&lab), get(&next)), (403, 0));
    for file in ["edge.key", "edge.pem"] {
        std::fs::copy(next.path("certs").join(file), lab.path("certs").join(file)).unwrap();
    }
    eventually("the new certificate is served", || (get(&next) == 403).then_some(()));
    assert_eq!(get(&lab), 0, "the old authority no longer vouches for what is served");
    assert!(live.ask(GET).starts_with("HTTP/1.1 403 "), "a connection that is there stays");
}

#[test]
fn another_process_changes_a_device_within_a_second() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin);
    lab.configure(&config);
    let laptop = lab.device("laptop", FIT);
    let proxy = lab.start(&config);
    let mut live = RawTls::connect(&proxy, &lab, HOST, Some(&laptop));
    assert!(live.ask(GET).starts_with("HTTP/1.1 200 "));
    let mut becomes = |command: &[&str], status: &str| -> (Duration, String) {
        lab.vestibule(&[&["devices", "-c", "vestibule.yaml"], command].concat()).succeeded();
        let acknowledged = Instant::now();
        let answer = eventually(&format!("{status} after {command:?}"), || Some(live.ask(GET)).filter(|answer| answer.contains(status)));
        (acknowledged.elapsed(), answer)
    };
    for (command, status, reason) in [
        (&["revoke", "laptop", "--lost"][..], "HTTP/1.1 403 ", "device.state.lost"),
        (&["set", "laptop", "state=approved"], "HTTP/1.1 200 ", ""),
        (&["set", "laptop", "posture.screen_lock=fail"], "cache-control: no-store", "HTTP/1.1 200 "),
        (&["set", "laptop", "state=suspended"], "HTTP/1.1 403 ", "device.state.suspended"),
    ] {
        let (took, answer) = becomes(command, status);
        assert!(took < Duration::from_secs(1), "{command:?} took {took:?}");
        assert!(answer.contains(reason), "{answer}");
    }
}
