//! What RFC 9113 (and RFC 7541 below it) demands of a server that receives frames, one case for each sentence, sent as bytes.
//!
//! The same cases run against HAProxy, as a check of what they expect: where it does otherwise, the case has the sentence.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends where its world breaks")]

mod support;

#[path = "h2_conformance/compression.rs"]
mod compression;
#[path = "h2_conformance/frames.rs"]
mod frames;
#[path = "h2_conformance/messages.rs"]
mod messages;
#[path = "h2_conformance/streams.rs"]
mod streams;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::time::Duration;

use support::h2::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, H2, HEADERS, Next, PADDED, PING, PREFACE, PRIORITY, PUSH_PROMISE,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, WITH_PRIORITY, block, frame, get, post, settings,
};
use support::{Config, Lab, Origin, RawTls, Received, Reply, eventually, program};

// RFC 9113 section 7.
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

const HOST: &str = "wiki.localhost";
/// Stands for a path of the case's own.
const PATH: &str = "/case-000";
/// The stream of the request that shows whether the connection is still of use.
const PROBE: u32 = 1001;

/// What must come of a case.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// The connection goes on as if nothing had been: a request on it is served.
    Goes,
    /// The request on stream 1 is answered with this status, and the connection goes on.
    Answered(u16),
    /// A PING is answered in kind.
    Pong,
    /// Section 5.4.1: GOAWAY with one of these codes, and the connection is closed.
    Connection(&'static [u32]),
    /// Section 3.4: the connection is closed; "a GOAWAY frame MAY be omitted".
    Closed,
    /// Section 5.4.2: RST_STREAM with one of these codes, or the same as a connection error, as 5.4.1 allows.
    Stream(u32, &'static [u32]),
    /// Section 8.1.1: a stream error PROTOCOL_ERROR, with or without an answer 400 before it; no app sees the request.
    Malformed,
    /// Either: the RFC leaves it to the server.
    Either(&'static Expect, &'static Expect),
    /// The first DATA of stream 1 has so many bytes.
    FirstData(usize),
}

use Expect::{Answered, Closed, Connection, Either, FirstData, Goes, Malformed, Pong, Stream};

enum Step {
    Send(Vec<u8>),
    /// Until the answer on this stream has come to its end.
    Ended(u32),
}

struct Case {
    name: &'static str,
    /// What comes first; the preface and a SETTINGS frame in most.
    opening: Vec<u8>,
    steps: Vec<Step>,
    expect: Expect,
    /// HAProxy does otherwise, and this sentence is why the expectation stands.
    disputed: Option<&'static str>,
}

/// `name` begins with the section.
fn case(name: &'static str) -> Case {
    // HEADER_TABLE_SIZE 0, so that heads of answers are easy to read.
    Case { name, opening: [PREFACE, &settings(&[(1, 0)])].concat(), steps: Vec::new(), expect: Goes, disputed: None }
}

impl Case {
    fn opening(mut self, bytes: &[u8]) -> Self {
        self.opening = bytes.to_vec();
        self
    }

    fn send(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.steps.push(Step::Send(bytes.as_ref().to_vec()));
        self
    }

    fn ended(mut self, stream: u32) -> Self {
        self.steps.push(Step::Ended(stream));
        self
    }

    fn expect(mut self, expect: Expect) -> Self {
        self.expect = expect;
        self
    }

    /// HAProxy does otherwise; the RFC's sentence.
    fn disputed(mut self, sentence: &'static str) -> Self {
        self.disputed = Some(sentence);
        self
    }
}

/// A whole GET on a stream.
fn asks(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&get(HOST, PATH)))
}

/// A GET that is never answered.
fn hangs(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&get(HOST, "/hang")))
}

/// A POST whose body is still to come.
fn posts(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(&post(HOST, PATH)))
}

/// A whole request on stream 1 with exactly these fields.
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields))
}

/// A good GET with more fields.
fn with(more: &[(&str, &str)]) -> Vec<u8> {
    fields(&[&get(HOST, PATH), more].concat())
}

/// What has come so far.
#[derive(Debug, Default)]
struct Seen {
    goaway: Option<u32>,
    over: Option<&'static str>,
    resets: BTreeMap<u32, u32>,
    statuses: BTreeMap<u32, u16>,
    first_data: BTreeMap<u32, usize>,
    ended: BTreeSet<u32>,
    pongs: Vec<Vec<u8>>,
}

impl Seen {
    fn take(&mut self, next: Next) {
        let frame = match next {
            Next::Closed => return self.over = Some("closed"),
            Next::Silence => return self.over = Some("silence"),
            Next::Frame(frame) => frame,
        };
        match frame.kind {
            GOAWAY => self.goaway = frame.payload.get(4..8).map(h2::code),
            RST_STREAM => drop(self.resets.insert(frame.stream, h2::code(&frame.payload))),
            PING if frame.flags & ACK != 0 => self.pongs.push(frame.payload),
            HEADERS => drop(self.statuses.entry(frame.stream).or_insert_with(|| h2::status(&frame.payload))),
            DATA => drop(self.first_data.entry(frame.stream).or_insert(frame.payload.len())),
            _ => {}
        }
        if matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0 {
            self.ended.insert(frame.stream);
        }
    }

    fn goes_on(&self) -> Option<bool> {
        if self.goaway.is_some_and(|code| code != 0) || self.resets.contains_key(&PROBE) || self.over.is_some() {
            return Some(false);
        }
        self.ended.contains(&PROBE).then(|| self.statuses.get(&PROBE) == Some(&200))
    }

    /// `None`: it is not decided yet.
    fn meets(&self, expect: Expect) -> Option<bool> {
        match expect {
            Goes => self.goes_on().map(|on| on && self.resets.is_empty()),
            Answered(status) => {
                let on = self.goes_on()?;
                if on && !self.ended.contains(&1) && self.resets.is_empty() {
                    return None;
                }
                Some(on && self.statuses.get(&1) == Some(&status))
            }
            Pong => (!self.pongs.is_empty() || self.over.is_some()).then(|| self.pongs == [b"payload8"]),
            Connection(codes) => match self.over {
                Some(over) => Some(over == "closed" && self.goaway.is_some_and(|code| codes.contains(&code))),
                None => self.goes_on().filter(|_| self.goaway.is_none()).map(|_| false),
            },
            Closed => match self.over {
                Some(over) => Some(over == "closed" && self.goaway != Some(0)),
                None => self.goes_on().filter(|_| self.goaway.is_none()).map(|_| false),
            },
            Stream(stream, codes) => match self.resets.get(&stream).copied().or(self.goaway.filter(|code| *code != 0)) {
                Some(code) => Some(codes.contains(&code)),
                None => (self.over.is_some() || self.ended.contains(&stream)).then_some(false),
            },
            Malformed => match (self.resets.get(&1), self.statuses.get(&1)) {
                (Some(code), _) => Some(*code == PROTOCOL_ERROR),
                (None, Some(400)) if self.ended.contains(&1) => Some(true),
                (None, Some(400) | None) if self.over.is_none() && self.goaway.is_none_or(|code| code == 0) => None,
                _ => Some(self.goaway == Some(PROTOCOL_ERROR)),
            },
            Either(one, other) => match (self.meets(*one), self.meets(*other)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            FirstData(length) => match self.first_data.get(&1) {
                Some(first) => Some(*first == length),
                None => self.over.map(|_| false),
            },
        }
    }
}

/// The bytes with the case's own path.
fn own(bytes: &[u8], number: usize) -> Vec<u8> {
    let (from, to) = (PATH.as_bytes(), format!("/case-{number:03}"));
    let mut bytes = bytes.to_vec();
    while let Some(at) = bytes.windows(from.len()).position(|part| part == from) {
        bytes.splice(at..at + from.len(), to.bytes());
    }
    bytes
}

/// What came of a case, and whether that is as it must be.
fn run(case: &Case, number: usize, address: SocketAddr, lab: &Lab) -> (bool, Seen) {
    let mut h2 = H2::over(RawTls::with_alpn(address, lab, (HOST, "h2"), None));
    h2.patience(Duration::from_secs(4));
    let mut seen = Seen::default();
    h2.write(&case.opening);
    for step in &case.steps {
        match step {
            Step::Send(bytes) => drop(h2.write(&own(bytes, number))),
            Step::Ended(stream) => {
                while !seen.ended.contains(stream) && !seen.resets.contains_key(stream) && seen.over.is_none() {
                    seen.take(h2.next());
                }
            }
        }
    }
    h2.write(&frame(HEADERS, END_HEADERS | END_STREAM, PROBE, &block(&get(HOST, "/probe"))));
    loop {
        if let Some(met) = seen.meets(case.expect) {
            return (met, seen);
        }
        seen.take(h2.next());
    }
}

fn cases() -> Vec<Case> {
    let mut cases = frames::cases();
    cases.extend(streams::cases());
    cases.extend(messages::cases());
    cases.extend(compression::cases());
    let names: BTreeSet<_> = cases.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases.len(), "a name stands for two cases");
    cases
}

fn app(received: &Received) -> Reply {
    if received.line().contains("/hang") { Reply::Hang(Vec::new()) } else { Reply::text("good") }
}

/// Whether the app saw a whole request of this case.
fn arrived(origin: &Origin, number: usize) -> bool {
    let path = format!(" /case-{number:03} ");
    origin.received().iter().any(|received| received.line().contains(&path))
}

/// Runs all and gives back what is not as it must be.
fn walk(address: SocketAddr, lab: &Lab, origin: &Origin) -> Vec<(Case, String)> {
    let mut wrong = Vec::new();
    for (number, case) in cases().into_iter().enumerate() {
        let (met, seen) = run(&case, number, address, lab);
        if !met {
            let line = format!("{}: expected {:?}, came {seen:?}", case.name, case.expect);
            wrong.push((case, line));
        } else if matches!(case.expect, Malformed) && arrived(origin, number) {
            let line = format!("{}: the app saw the malformed request", case.name);
            wrong.push((case, line));
        } else if matches!(case.expect, Answered(200)) && !arrived(origin, number) {
            let line = format!("{}: the app did not see the request", case.name);
            wrong.push((case, line));
        }
    }
    wrong
}

#[test]
fn every_demand_of_the_rfc_is_met() {
    let lab = Lab::new();
    let origin = Origin::start(app);
    let apps = format!(
        "\n  - name: wiki\n    owner: knowledge\n    hosts: [{HOST}]\n    upstream: {{servers: [\"{}\"]}}\n    rules: [{{name: all, then: forward}}]",
        origin.url()
    );
    let mut proxy = lab.start(&Config::new(&origin).set("apps", &apps));
    let wrong: Vec<String> = walk(proxy.addr("edge"), &lab, &origin).into_iter().map(|(_, line)| line).collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases().len(), wrong.join("\n"));
    assert!(proxy.is_running() && proxy.metrics().sum("vestibule_panics_total", &[]) == 0.0, "{}", proxy.stderr());
}

/// HAProxy in front of the same app. Ended when dropped.
struct Haproxy(Child, SocketAddr);

impl Haproxy {
    /// It takes over a listening socket as its standard input, so that no port is picked twice.
    fn start(lab: &Lab, origin: &Origin) -> Self {
        let certificate = ["certs/edge.pem", "certs/edge.key"].map(|name| std::fs::read_to_string(lab.path(name)).unwrap()).concat();
        lab.write("haproxy.pem", &certificate);
        let config = lab.write(
            "haproxy.cfg",
            &format!(
                "global\n    maxconn 1000\ndefaults\n    mode http\n    timeout connect 2s\n    timeout client 10s\n    timeout server 10s\n    timeout http-request 10s\n\
                 frontend edge\n    bind fd@0 ssl crt {} alpn h2\n    default_backend app\nbackend app\n    server app {}\n",
                lab.path("haproxy.pem").display(),
                origin.address()
            ),
        );
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let child = program("haproxy")
            .args(["-db", "-f"])
            .arg(config)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(lab.path("haproxy.log")).unwrap())
            .spawn()
            .unwrap();
        let mut haproxy = Self(child, address);
        eventually("HAProxy answers", || {
            let said = std::fs::read_to_string(lab.path("haproxy.log")).unwrap_or_default();
            assert!(haproxy.0.try_wait().unwrap().is_none(), "HAProxy ended: {said}");
            let mut h2 = H2::over(RawTls::with_alpn(address, lab, (HOST, "h2"), None));
            h2.write(&[PREFACE, &settings(&[(1, 0)])].concat());
            (h2.get(HOST, "/").status == 200).then_some(())
        });
        haproxy
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn haproxy_agrees_with_what_is_expected() {
    let lab = Lab::new();
    let origin = Origin::start(app);
    let haproxy = Haproxy::start(&lab, &origin);
    let wrong = walk(haproxy.1, &lab, &origin);
    let undisputed: Vec<&str> = wrong.iter().filter(|(case, _)| case.disputed.is_none()).map(|(_, line)| line.as_str()).collect();
    assert!(undisputed.is_empty(), "{} cases:\n{}", undisputed.len(), undisputed.join("\n"));
    let agreed = cases().into_iter().filter(|case| case.disputed.is_some() && !wrong.iter().any(|(other, _)| other.name == case.name));
    for case in agreed {
        println!("HAProxy agrees by now: {}", case.name);
    }
}
