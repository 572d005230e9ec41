//! The decision log as a reader finds it: every field, every line, also when the disk fails or the process is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends where its world breaks")]

mod support;

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use serde_json::{Value, json};
use support::{Answer, Config, Curl, Lab, Origin, Proxy, RawTls, Reply, eventually, raw};

const FIT: &str = "ownership=corporate state=approved posture.os_supported=ok posture.screen_lock=ok";
const FIREFOX: &str = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

/// What every line has.
const FIELDS: [&str; 33] = [
    "ts",
    "request_id",
    "listener",
    "peer",
    "app",
    "host",
    "method",
    "path",
    "status",
    "effect",
    "mode",
    "would",
    "restrictions",
    "class",
    "tier",
    "rule",
    "owner",
    "reasons",
    "device",
    "standing",
    "posture",
    "as_of",
    "headers",
    "wire",
    "claims",
    "confidence",
    "contradictions",
    "zone",
    "policy_rev",
    "decision_ns",
    "upstream_ms",
    "bytes_in",
    "bytes_out",
];

/// What only those have that have something to say there.
const SOMETIMES: [&str; 6] = ["client_request_id", "error", "record", "notices", "exceptions", "headers_read"];

fn apps(server: &str) -> String {
    format!(
        r#"
  - name: wiki
    owner: knowledge
    hosts: [wiki.corp.example]
    upstream: {{servers: ["{server}"]}}
    rules:
      - {{name: embargo, when: {{http.header.x-embargo: "yes"}}, then: block}}
      - {{name: managed, when: {{class: corporate, tier: ">= healthy"}}, then: forward}}
      - {{name: byod-read, when: {{tier: ">= known"}}, then: restrict, with: [read-only, private]}}
      - {{name: rest, then: block}}
  - name: tried
    owner: knowledge
    mode: report
    hosts: [tried.corp.example]
    upstream: {{servers: ["{server}"]}}
    rules: [{{name: managed, when: {{class: corporate}}, then: forward}}]"#
    )
}

fn config(origin: &Origin) -> Config {
    Config::new(origin).set("apps", &apps(&origin.url())).set("networks", r#"{loop: ["127.0.0.0/8"]}"#)
}

/// The one line of an answer: our own carry its id, of others the app got it.
fn line_of((lab, origin): (&Lab, &Origin), answer: &Answer) -> Value {
    let told = || origin.received().last().and_then(|received| received.header("x-request-id").first().cloned());
    let id = answer.header("x-request-id").map(str::to_owned).or_else(told).expect("the answer's id is known");
    let found = eventually(&format!("a line for {id}"), || lab.decisions(0).into_iter().find(|line| line["request_id"] == id.as_str()));
    let lines = lab.decisions(1);
    assert_eq!(lines.iter().filter(|line| line["request_id"] == id.as_str()).count(), 1, "one line a request");
    whole(&found);
    found
}

#[track_caller]
fn whole(line: &Value) {
    let fields: BTreeSet<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
    let missing: Vec<&str> = FIELDS.iter().copied().filter(|field| !fields.contains(field)).collect();
    assert!(missing.is_empty(), "{missing:?} is not in {line}");
    let more: Vec<&str> = fields.iter().copied().filter(|field| !FIELDS.contains(field) && !SOMETIMES.contains(field)).collect();
    assert!(more.is_empty(), "{more:?} is not documented");
}

/// The fields that are the same on every run.
#[track_caller]
fn has(line: &Value, expected: &Value) {
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&line[field], value, "{field} in {line}");
    }
}

#[test]
fn every_field_has_its_value() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin);
    lab.configure(&config);
    let laptop = lab.device("laptop", FIT);
    let byod = lab.device("byod", "ownership=personal state=approved");
    let proxy = lab.start(&config);
    let curl = || Curl::to(&proxy, &lab);
    let began = jiff::Timestamp::now();

    // A device that is forwarded.
    let asked = curl().device(&laptop).header(FIREFOX).header("X-Request-Id: from-the-client").header("X-Embargo: no");
    let answer = asked.post("https://wiki.corp.example/a/./b%41?secret=1#x", "123456");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let line = line_of((&lab, &origin), &answer);
    has(
        &line,
        &json!({
            "listener": "edge", "peer": "127.0.0.1", "app": "wiki", "host": "wiki.corp.example", "method": "POST", "path": "/a/bA", "status": 200,
            "effect": "forward", "mode": "enforce", "would": "forward", "restrictions": [], "class": "corporate", "tier": "healthy",
            "rule": "managed", "owner": "knowledge", "reasons": ["rule.matched"], "device": "laptop", "headers": {"x-embargo": "no"},
            "zone": "loop", "bytes_in": 6, "bytes_out": 5, "client_request_id": "from-the-client",
        }),
    );
    let at: jiff::Timestamp = line["ts"].as_str().unwrap().parse().unwrap();
    assert!((at - began).abs().total(jiff::Unit::Second).unwrap() < 20.0, "{at}");
    for fact in ["os_supported", "screen_lock"] {
        has(&line["posture"][fact], &json!({"state": "ok", "source": "manual"}));
        assert!(line["posture"][fact]["age"].as_f64().unwrap() < 60.0, "{line}");
    }
    has(&line["claims"], &json!({"os": "linux", "browser": "firefox"}));
    let ja4 = line["wire"]["ja4"].as_str().unwrap();
    assert!(ja4.starts_with("t13d") && ja4.len() == 36, "{ja4}");
    assert!(line["wire"].as_object().unwrap().contains_key("ja4_stable") && line["wire"].as_object().unwrap().contains_key("syn"));
    assert!(line["decision_ns"].as_u64().unwrap() > 0);
    assert!(line["upstream_ms"].as_f64().unwrap() > 0.0);
    let metrics = proxy.metrics();
    let revision = &metrics.0.iter().find(|sample| sample.name == "vestibule_policy_info").unwrap().labels["revision"];
    assert_eq!(line["policy_rev"], revision.as_str());

    // The id is ours, and the same everywhere.
    let id = line["request_id"].as_str().unwrap();
    assert_eq!(origin.wait(1)[0].header("x-request-id"), [id]);
    assert!(id.len() == 32 && id != "from-the-client");
    assert!(!std::fs::read_to_string(lab.path("decisions.jsonl")).unwrap().contains("secret"), "the query is nowhere in the log");

    // Without a device.
    let answer = curl().header("Accept: text/html").get("https://wiki.corp.example/page");
    let line = line_of((&lab, &origin), &answer);
    has(
        &line,
        &json!({
            "app": "wiki", "path": "/page", "status": 403, "effect": "block", "would": "block", "mode": "enforce", "class": "blind", "tier": "none",
            "rule": "rest", "owner": "knowledge", "device": null, "posture": {}, "headers": {}, "upstream_ms": null, "bytes_in": 0,
        }),
    );
    assert_eq!(line["reasons"][0], "device.unknown");
    assert_eq!(line["bytes_out"].as_u64(), Some(answer.body.len() as u64), "{line}");
    assert!(answer.body.contains(line["request_id"].as_str().unwrap()), "the page shows the id");
    assert!(line.get("client_request_id").is_none());
    let problem = curl().get("https://wiki.corp.example/page");
    assert_eq!(problem.json()["instance"], line_of((&lab, &origin), &problem)["request_id"]);

    // Restricted, and refused by a restriction.
    let line = line_of((&lab, &origin), &curl().device(&byod).get("https://wiki.corp.example/"));
    let restricted = json!({
        "effect": "restrict", "would": "restrict", "restrictions": ["read-only", "private"], "class": "personal_offnet", "tier": "known",
        "rule": "byod-read", "device": "byod",
    });
    has(&line, &restricted);
    let line = line_of((&lab, &origin), &curl().device(&byod).post("https://wiki.corp.example/", "x"));
    has(&line, &restricted);
    has(&line, &json!({"status": 403, "upstream_ms": null}));
    assert_eq!(line["reasons"][0], "restrict.methods");

    // An app in report mode: what was done, and what would have been.
    let line = line_of((&lab, &origin), &curl().get("https://tried.corp.example/"));
    has(
        &line,
        &json!({"app": "tried", "status": 200, "effect": "forward", "mode": "report", "would": "block", "class": "blind", "rule": null}),
    );
    assert_eq!(line["reasons"][0], "device.unknown");

    // A header that rules name: several values are a list. What is several is undecided, and the strictest outcome stands.
    let answer = curl().device(&laptop).header("X-Embargo: no").header("X-Embargo: never").get("https://wiki.corp.example/");
    let line = line_of((&lab, &origin), &answer);
    has(&line, &json!({"headers": {"x-embargo": ["no", "never"]}, "status": 403, "effect": "block", "reasons": ["http.header.x-embargo"]}));

    // Answers without a decision have the same fields.
    let line = line_of((&lab, &origin), &curl().device(&laptop).get("https://nothing.corp.example/where"));
    has(
        &line,
        &json!({"app": "none", "status": 404, "effect": "block", "path": "/where", "reasons": ["request.no_app"], "class": null, "device": null}),
    );
    let answer = String::from_utf8(raw(proxy.addr("plain"), b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n")).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let malformed = eventually("the line of the 400", || lab.decisions(1).into_iter().find(|line| line["status"] == 400));
    whole(&malformed);
    has(&malformed, &json!({"listener": "plain", "host": null, "path": null}));
    // The order of `Host` alone.
    has(&malformed["wire"], &json!({"ja4": null, "ja4_stable": null, "h2": null, "header_order": "h1t01_4a823118b9ba"}));

    // Ids are unique.
    let lines = lab.decisions(1);
    let ids: BTreeSet<&str> = lines.iter().map(|line| line["request_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), lines.len());
}

/// A log whose disk is full until `mend`.
struct Full<'a>(&'a Lab);

impl<'a> Full<'a> {
    fn new(lab: &'a Lab) -> Self {
        symlink("/dev/full", lab.path("decisions.jsonl")).unwrap();
        Self(lab)
    }

    fn mend(self) {
        std::fs::remove_file(self.0.path("decisions.jsonl")).unwrap();
    }
}

#[test]
fn a_required_log_that_cannot_be_written_stops_requests_until_it_can() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin).set("decision_log", "{path: decisions.jsonl, required: true}");
    lab.configure(&config);
    let laptop = lab.device("laptop", FIT);
    let full = Full::new(&lab);
    let proxy = lab.start(&config);
    let get = || Curl::to(&proxy, &lab).device(&laptop).get("https://wiki.corp.example/");
    let refused = eventually("requests are refused", || Some(get()).filter(|answer| answer.status != 200));
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.json()["type"], "urn:vestibule:problem:log_unavailable");
    assert_eq!(proxy.admin_get("/readyz").0, 503);
    assert_eq!(proxy.admin_get("/livez").0, 200);
    proxy.metric_reaches("vestibule_decision_log_total", &[("result", "failed")], 1.0);
    let forwarded = origin.received().len();
    assert_eq!(get().status, 503);
    assert_eq!(origin.received().len(), forwarded, "nothing reaches the app without a record");
    full.mend();
    // No request is needed for that: a balancer that asks /readyz sends none.
    eventually("the proxy is ready again", || (proxy.admin_get("/readyz").0 == 200).then_some(()));
    let answer = get();
    assert_eq!(answer.status, 200);
    line_of((&lab, &origin), &answer);
}

#[test]
fn a_log_that_is_not_required_stops_nobody() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin);
    lab.configure(&config);
    let laptop = lab.device("laptop", FIT);
    let full = Full::new(&lab);
    let proxy = lab.start(&config);
    let get = || Curl::to(&proxy, &lab).device(&laptop).get("https://wiki.corp.example/");
    eventually("lines are lost and counted", || {
        assert_eq!(get().status, 200);
        (proxy.metrics().sum("vestibule_decision_log_total", &[("result", "failed")]) >= 1.0).then_some(())
    });
    assert_eq!(proxy.admin_get("/readyz").0, 200);
    assert_eq!(proxy.stderr().matches("the decision log cannot be written").count(), 1, "said once: {}", proxy.stderr());
    full.mend();
    line_of((&lab, &origin), &get());
    assert!(proxy.stderr().contains("the decision log can be written again"));
    // Every line is written, lost or dropped, and is counted as one of them.
    let requests = proxy.metrics().sum("vestibule_requests_total", &[]);
    proxy.metric_reaches("vestibule_decision_log_total", &[], requests);
    assert_eq!(proxy.metrics().sum("vestibule_decision_log_total", &[]), requests);
}

fn get(proxy: &Proxy, lab: &Lab, path: &str) -> Answer {
    Curl::to(proxy, lab).get(&format!("https://wiki.corp.example{path}"))
}

fn paths(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["path"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn reopens_at_a_signal_also_when_its_folder_went() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let proxy = lab.start(&config(&origin).set("decision_log", "{path: logs/decisions.jsonl}"));
    let (log, moved) = (lab.path("logs/decisions.jsonl"), lab.path("decisions.old"));
    let written = |path: &Path, all: &[&str]| eventually(&format!("{all:?} in {}", path.display()), || (paths(path) == all).then_some(()));
    get(&proxy, &lab, "/1");
    written(&log, &["/1"]);
    std::fs::rename(&log, &moved).unwrap();
    get(&proxy, &lab, "/2");
    written(&moved, &["/1", "/2"]);
    proxy.signal(libc::SIGUSR1);
    eventually("the log is there again", || log.exists().then_some(()));
    get(&proxy, &lab, "/3");
    written(&log, &["/3"]);
    std::fs::remove_dir_all(lab.path("logs")).unwrap();
    proxy.signal(libc::SIGUSR1);
    eventually("the log is there again", || log.exists().then_some(()));
    get(&proxy, &lab, "/4");
    written(&log, &["/4"]);
    assert_eq!(paths(&moved), ["/1", "/2"]);
}

#[test]
fn rotates_by_itself_and_loses_no_line() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let proxy = lab.start(&config(&origin).set("decision_log", "{path: decisions.jsonl, rotate: 4KiB}"));
    let old = lab.path("decisions.jsonl.1");
    let mut asked = Vec::new();
    eventually("the log is rotated", || {
        let path = format!("/{}", asked.len());
        let before = asked.len();
        get(&proxy, &lab, &path);
        asked.push(path);
        // One after the other, so that each is a write of its own.
        let lines = || paths(&old).len() + paths(&lab.path("decisions.jsonl")).len();
        eventually("the line is there", || (lines() > before).then_some(()));
        old.exists().then_some(())
    });
    let all = [paths(&old), paths(&lab.path("decisions.jsonl"))].concat();
    assert_eq!(all, asked);
    assert!(std::fs::metadata(&old).unwrap().len() <= 4096);
}

#[test]
fn another_log_by_reload_loses_no_line() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin);
    let proxy = lab.start(&config);
    let (done, edge) = (AtomicBool::new(false), proxy.addr("edge"));
    let asked = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut client = RawTls::with_alpn(edge, &lab, ("wiki.corp.example", "http/1.1"), None);
            let mut asked = 0;
            while !done.load(SeqCst) {
                assert!(client.ask("GET / HTTP/1.1\r\nHost: wiki.corp.example\r\n\r\n").starts_with("HTTP/1.1 403 "));
                asked += 1;
            }
            asked
        });
        for round in 0..8 {
            lab.configure(&config.clone().set("decision_log", &format!("{{path: log.{round}}}")));
            proxy.signal(libc::SIGHUP);
            proxy.metric_reaches("vestibule_config_reload_total", &[], f64::from(round) + 1.0);
        }
        done.store(true, SeqCst);
        client.join().unwrap()
    });
    let lines = || -> usize {
        let logs = std::fs::read_dir(lab.dir()).unwrap().map(|entry| entry.unwrap().path());
        logs.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("log.") || path.ends_with("decisions.jsonl"))
            .map(|path| std::fs::read_to_string(path).unwrap().lines().count())
            .sum()
    };
    eventually(&format!("{asked} lines in all logs"), || (lines() >= asked).then_some(()));
    assert_eq!(lines(), asked);
}

#[test]
fn after_a_kill_at_most_the_last_line_is_cut() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin);
    let file = lab.configure(&config);
    for _ in 0..3 {
        let mut proxy = Proxy::start(lab.dir(), &file);
        let address = proxy.addr("plain");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Until it is killed under our hands.
                let ask = || {
                    std::net::TcpStream::connect(address).and_then(|mut stream| {
                        use std::io::{Read, Write};
                        stream.write_all(b"GET /kill HTTP/1.1\r\nHost: wiki.corp.example\r\nConnection: close\r\n\r\n")?;
                        stream.read_to_end(&mut Vec::new())
                    })
                };
                while ask().is_ok_and(|read| read > 0) {}
            });
            let before = std::fs::metadata(lab.path("decisions.jsonl")).map_or(0, |meta| meta.len());
            eventually("lines are written", || {
                let now = std::fs::metadata(lab.path("decisions.jsonl")).map_or(0, |meta| meta.len());
                (now > before + 20_000).then_some(())
            });
            proxy.signal(libc::SIGKILL);
            assert!(!proxy.ended().success());
        });
    }
    // A line that the kill cut, as the next start finds it.
    let path = lab.path("decisions.jsonl");
    let mut text = std::fs::read_to_string(&path).unwrap();
    let broken = |text: &str| text.lines().filter(|line| serde_json::from_str::<Value>(line).is_err()).count();
    assert!(broken(&text) <= 3, "at most one for each kill");
    text.push_str("{\"ts\":\"20");
    std::fs::write(&path, &text).unwrap();
    let proxy = Proxy::start(lab.dir(), &file);
    let answer = get(&proxy, &lab, "/after");
    let id = answer.header("x-request-id").unwrap();
    let text = eventually("the next line", || Some(std::fs::read_to_string(&path).unwrap()).filter(|text| text.contains(id)));
    let line = text.lines().find(|line| line.contains(id)).unwrap();
    whole(&serde_json::from_str(line).unwrap());
    assert!(broken(&text) <= 4 && text.contains("\n{\"ts\":\"20\n"));
}
