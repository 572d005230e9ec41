//! Metrics as a scrape shows them: every answer is counted once, and every metric moves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends where its world breaks")]

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use support::{Config, Curl, DEADLINE, Lab, Metrics, Origin, Proxy, RawTls, Reply, eventually, raw};
use vestibule::cli::lab_ca::Issued;
use vestibule::record::names;

const FIT: &str = "state=approved posture.os_supported=ok posture.screen_lock=ok";

/// A proxy with an app for every way to answer, and three devices.
struct World {
    origin: Origin,
    lab: Lab,
    proxy: Proxy,
    laptop: Issued,
    byod: Issued,
}

impl World {
    fn new() -> Self {
        let origin = Origin::start(|received| match received.line().split(' ').nth(1).unwrap() {
            "/garbage" => Reply::Close(b"what?\r\n\r\n".to_vec()),
            "/hang" => Reply::Hang(Vec::new()),
            "/half" => Reply::Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec()),
            "/cut" => Reply::Close(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec()),
            "/zip" => Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Type: application/zip\r\nContent-Length: 3\r\n\r\nzip".to_vec()),
            "/grows" => Reply::Bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec()),
            _ => Reply::text("hello"),
        });
        let lab = Lab::new();
        // Bound, and closed again at once: nobody listens there.
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let server = origin.url();
        let managed = r#"{name: managed, when: {class: corporate, tier: ">= healthy"}, then: forward}"#;
        let app = |name: &str, server: &str, more: &str, rules: &str| {
            format!(
                "\n  - {{name: {name}, owner: knowledge, hosts: [{name}.corp.example, {name}.localhost], upstream: {{servers: [\"{server}\"], timeouts: {{response: 300ms}}}}, {more} rules: [{rules}]}}"
            )
        };
        let byod = r#"{name: byod-read, when: {tier: ">= known"}, then: restrict, with: [read-only, small]}"#;
        let seldom = "{name: seldom, then: restrict, with: [seldom]}";
        let apps = [
            app("wiki", &server, "", &format!("{managed}, {byod}, {{name: rest, then: block}}")),
            app("tried", &server, "mode: report,", managed),
            app("patient", &server, "", managed).replace("300ms", "20s"),
            app("down", &format!("http://{nobody}"), "", managed),
            app("seldom", &server, "", seldom),
            app("twice", &format!("http://{nobody}\", \"{server}"), "", managed)
                .replace("timeouts:", "ejection: {failures: 1, time: 1h}, timeouts:"),
            app("checked", &format!("http://localhost:{}", origin.address().port()), "", managed)
                .replace("timeouts:", "health: {path: /, every: 100ms}, timeouts:"),
            app("tight", &server, "", "{name: tight, then: restrict, with: [tight]}"),
            app("spare", &server, "assertion: true,", r#"{name: fit, when: {tier: ">= healthy"}, then: forward}"#),
        ];
        let config = Config::new(&origin)
            .set("apps", &apps.concat())
            .set(
                "restrictions",
                "{read-only: {methods: [GET, HEAD, PUT]}, small: {max_body: 8}, seldom: {requests: 1/h}, private: {no_store: true}, \
                 tight: {max_response: 4, attachments: block, paths: {deny: [/closed]}}}",
            )
            .set(
                "exceptions",
                "[{name: spare-phone, device: byod, check: [os_supported, screen_lock], apps: [spare], until: 2098-12-31, by: ops, ticket: T-1}]",
            )
            .set("limits", "{request_head: 1s, body_size: 64}")
            .set("fingerprints", "{baseline: {learn: 1s}, census: {entries: 1}}")
            .replace(
                "  - name: plain\n",
                "  - name: redirect\n    bind: [\"127.0.0.1:0\"]\n    redirect_to_https: true\n  - name: plain\n",
            );
        lab.configure(&config);
        let laptop = lab.device("laptop", &format!("ownership=corporate {FIT}"));
        let byod = lab.device("byod", "ownership=personal state=approved");
        let proxy = lab.start(&config);
        Self { origin, lab, proxy, laptop, byod }
    }

    fn curl(&self) -> Curl {
        Curl::to(&self.proxy, &self.lab)
    }

    fn plain(&self, request: &str) -> String {
        String::from_utf8(raw(self.proxy.addr("plain"), request.as_bytes())).unwrap()
    }
}

const DECISIONS: &str = "vestibule_decisions_total";
const REQUESTS: &str = "vestibule_requests_total";

/// What `act` adds: exactly one decision and one request, with these labels. The word order is `app effect class tier reason owner mode`, then
/// the effect done and the status.
#[track_caller]
fn once(world: &World, what: &str, decision: &str, request: &str, act: impl FnOnce()) {
    let before = world.proxy.metrics();
    act();
    let count = |metrics: &Metrics, name| metrics.sum(name, &[]) - before.sum(name, &[]);
    let after = eventually(&format!("{what} is counted"), || {
        let metrics = world.proxy.metrics();
        (count(&metrics, DECISIONS) >= 1.0 && count(&metrics, REQUESTS) >= 1.0).then_some(metrics)
    });
    assert_eq!((count(&after, DECISIONS), count(&after, REQUESTS)), (1.0, 1.0), "{what}");
    let moved = |name: &str, labels: &[&str]| -> Vec<String> {
        let changed = after.0.iter().filter(|sample| sample.name == name).filter(|sample| {
            let known: Vec<(&str, &str)> = sample.labels.iter().map(|(label, value)| (label.as_str(), value.as_str())).collect();
            sample.value > before.sum(name, &known)
        });
        changed.map(|sample| labels.iter().map(|label| sample.label(label)).collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(moved(DECISIONS, names::DECISIONS.labels), [decision], "{what}");
    assert_eq!(moved(REQUESTS, names::REQUESTS.labels), [request], "{what}");
}

/// Sends a request whose answer never ends, and leaves once the app has it and so much of the answer is there.
fn leave(world: &World, (host, path): (&str, &str), answer: &str) {
    let seen = world.origin.received().len();
    let mut client = RawTls::connect(&world.proxy, &world.lab, host, Some(&world.laptop));
    client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
    world.origin.wait(seen + 1);
    let mut got = String::new();
    while !got.ends_with(answer) {
        got.push_str(&String::from_utf8_lossy(&client.read_more()));
    }
    client.reset();
}

#[test]
fn every_answer_is_counted_once_and_logged_once() {
    let world = World::new();
    let (laptop, byod) = (&world.laptop, &world.byod);
    // The version is told apart by nothing in the counters; both must count the same.
    let twice = |what: &str, decision: &str, request: &str, device: Option<&Issued>, url: &str| {
        let status: u16 = request.rsplit(' ').next().unwrap().parse().unwrap();
        for version in [Curl::http1, Curl::http2] {
            once(&world, what, decision, request, || {
                let curl = version(world.curl());
                let curl = match device {
                    Some(device) => curl.device(device),
                    None => curl,
                };
                let answer = curl.get(url);
                assert_eq!(answer.status, status, "{url}: {}{}", answer.body, answer.stderr);
            });
        }
    };
    let managed = "rule.matched knowledge enforce";
    let forward = |app: &str| format!("{app} forward corporate healthy {managed}");
    twice("a forward", &forward("wiki"), "wiki forward 200", Some(laptop), "https://wiki.corp.example/");
    twice(
        "a restriction",
        "wiki restrict personal_offnet known class.personal_offnet knowledge enforce",
        "wiki restrict 200",
        Some(byod),
        "https://wiki.corp.example/",
    );
    twice("a block", "wiki block blind none device.unknown knowledge enforce", "wiki block 403", None, "https://wiki.corp.example/");
    twice("no such app", "none block none none request.no_app none enforce", "none block 404", None, "https://nothing.corp.example/");
    twice("an app that is down", &forward("down"), "down forward 503", Some(laptop), "https://down.corp.example/");
    twice("an app that is slow", &forward("wiki"), "wiki forward 504", Some(laptop), "https://wiki.corp.example/hang");
    twice("an app that answers garbage", &forward("wiki"), "wiki forward 502", Some(laptop), "https://wiki.corp.example/garbage");
    twice(
        "report mode",
        "tried block blind none device.unknown knowledge report",
        "tried forward 200",
        None,
        "https://tried.corp.example/",
    );

    once(&world, "a refused method", "wiki restrict personal_offnet known restrict.methods knowledge enforce", "wiki restrict 403", || {
        assert_eq!(world.curl().device(byod).post("https://wiki.corp.example/", "x").status, 403);
    });
    once(
        &world,
        "a body over the restriction",
        "wiki restrict personal_offnet known restrict.max_body knowledge enforce",
        "wiki restrict 413",
        || {
            assert_eq!(world.curl().device(byod).arg("-X").arg("PUT").post("https://wiki.corp.example/", "123456789").status, 413);
        },
    );
    once(&world, "a body over the limit", &forward("wiki"), "wiki forward 413", || {
        assert_eq!(world.curl().device(laptop).post("https://wiki.corp.example/", &"x".repeat(65)).status, 413);
    });
    let seldom = "seldom restrict corporate healthy";
    once(&world, "the first of two", &format!("{seldom} rule.matched knowledge enforce"), "seldom restrict 200", || {
        assert_eq!(world.curl().device(laptop).get("https://seldom.corp.example/").status, 200);
    });
    let tight = |reason: &str| format!("tight restrict corporate healthy {reason} knowledge enforce");
    for (path, reason) in [("/closed", "restrict.paths"), ("/zip", "restrict.attachments"), ("/", "restrict.max_response")] {
        once(&world, reason, &tight(reason), "tight restrict 403", || {
            assert_eq!(world.curl().device(laptop).get(&format!("https://tight.corp.example{path}")).status, 403);
        });
    }
    once(&world, "too many", &format!("{seldom} restrict.requests knowledge enforce"), "seldom restrict 429", || {
        assert_eq!(world.curl().device(laptop).get("https://seldom.corp.example/").status, 429);
    });
    once(&world, "an upgrade", &forward("wiki"), "wiki forward 501", || {
        let curl = world.curl().http1().device(laptop).header("Connection: Upgrade").header("Upgrade: websocket");
        assert_eq!(curl.get("https://wiki.corp.example/").status, 501);
    });
    once(&world, "another host than the certificate's", "none block none none request.misdirected none enforce", "none block 421", || {
        let mut client = RawTls::connect(&world.proxy, &world.lab, "localhost", None);
        assert!(client.ask("GET / HTTP/1.1\r\nHost: wiki.elsewhere.example\r\n\r\n").starts_with("HTTP/1.1 421 "));
    });
    once(&world, "two hosts", "none block none none request.malformed none enforce", "none block 400", || {
        assert!(world.plain("GET / HTTP/1.1\r\nHost: wiki.localhost\r\nHost: a\r\n\r\n").starts_with("HTTP/1.1 400 "));
    });
    once(&world, "a redirect", "portal forward none none redirect.https none enforce", "portal forward 308", || {
        let answer = raw(world.proxy.addr("redirect"), b"GET / HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with(b"HTTP/1.1 308 "), "{}", String::from_utf8_lossy(&answer));
    });
    once(&world, "a client that left before the answer", &forward("patient"), "patient forward 499", || {
        leave(&world, ("patient.corp.example", "/hang"), "")
    });
    once(&world, "a client that left before the answer, over HTTP/2", &forward("patient"), "patient forward 499", || {
        let answer = world.curl().http2().device(laptop).arg("--max-time").arg("0.5").get("https://patient.corp.example/hang");
        assert_eq!(answer.status, 0);
    });
    once(&world, "a client that left within the answer", &forward("patient"), "patient forward 200", || {
        leave(&world, ("patient.corp.example", "/half"), "half")
    });
    once(&world, "an answer that the app cut", &forward("wiki"), "wiki forward 200", || {
        assert_eq!(world.curl().device(laptop).get("https://wiki.corp.example/cut").exit, 92);
    });
    once(&world, "a client that left within its request", &forward("patient"), "patient forward 400", || {
        let mut client = RawTls::connect(&world.proxy, &world.lab, "patient.corp.example", Some(laptop));
        client.send(b"POST / HTTP/1.1\r\nHost: patient.corp.example\r\nExpect: 100-continue\r\nContent-Length: 50\r\n\r\n");
        assert!(client.read_more().starts_with(b"HTTP/1.1 100 "));
        client.send(b"half");
        client.reset();
    });

    let metrics = world.proxy.metrics();
    let total = metrics.sum(DECISIONS, &[]);
    assert_eq!(total, metrics.sum(REQUESTS, &[]));
    assert_eq!(total, metrics.sum("vestibule_request_duration_seconds_count", &[]));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    let lines = world.lab.decisions(total as usize);
    assert_eq!(lines.len() as f64, total);
    world.proxy.metric_reaches("vestibule_decision_log_total", &[("result", "written")], total);
}

#[test]
fn what_alerts_watch_is_there_from_the_start() {
    let origin = Origin::answering(Reply::text("ok"));
    let lab = Lab::new();
    let proxy = lab.start(&Config::new(&origin));
    let metrics = proxy.metrics();
    let zero = |name: &str, label: &str, values: &[&str]| {
        for value in values {
            let found: Vec<f64> = metrics.0.iter().filter(|s| s.name == name && s.label(label) == *value).map(|s| s.value).collect();
            assert_eq!(found, [0.0], "{name} {value}");
        }
    };
    zero("vestibule_config_reload_total", "result", &["success", "failure"]);
    zero("vestibule_decision_log_total", "result", &["written", "dropped", "failed"]);
    zero("vestibule_panics_total", "result", &[""]);
    zero("vestibule_accepting_paused", "listener", &["plain", "edge"]);
    zero("vestibule_posture_cache_total", "result", &["hit", "miss", "stale", "negative"]);
    assert_eq!(metrics.sum("vestibule_store_up", &[]), 1.0);
}

/// Which metrics were seen to move.
#[derive(Default)]
struct Exercised(BTreeSet<&'static str>);

impl Exercised {
    /// Waits for samples that add up to `value` or more.
    fn reaches(&mut self, world: &World, metric: &'static names::Metric, labels: &[(&str, &str)], value: f64) -> Metrics {
        let name = match metric.kind {
            names::Kind::Histogram(_) => format!("{}_count", metric.name),
            names::Kind::Counter | names::Kind::Gauge => metric.name.to_owned(),
        };
        let metrics = world.proxy.metric_reaches(&name, labels, value);
        for sample in metrics.0.iter().filter(|sample| sample.name == name) {
            let labels: BTreeSet<&str> = sample.labels.keys().map(String::as_str).collect();
            assert_eq!(labels, metric.labels.iter().copied().collect(), "{name}");
        }
        self.0.insert(metric.name);
        metrics
    }

    /// Waits until the gauge has just this value.
    fn becomes(&mut self, world: &World, metric: &'static names::Metric, labels: &[(&str, &str)], value: f64) {
        eventually(&format!("{}{labels:?} becomes {value}", metric.name), || {
            (world.proxy.metrics().sum(metric.name, labels) == value).then_some(())
        });
        self.0.insert(metric.name);
    }
}

#[test]
fn every_metric_moves() {
    let world = World::new();
    let mut seen = Exercised::default();
    let (laptop, byod) = (&world.laptop, &world.byod);
    let wiki = ("app", "wiki");
    requests(&world, &mut seen);

    // The store: asked once, then cached; absence is cached as well.
    seen.reaches(&world, &names::POSTURE_CACHE, &[("result", "miss")], 2.0);
    assert_eq!(world.curl().device(laptop).get("https://wiki.corp.example/").status, 200);
    seen.reaches(&world, &names::POSTURE_CACHE, &[("result", "hit")], 1.0);
    let stranger = world.lab.certificate("stranger");
    eventually("absence is cached", || {
        assert_eq!(world.curl().device(&stranger).get("https://wiki.corp.example/").status, 403);
        (world.proxy.metrics().sum("vestibule_posture_cache_total", &[("result", "negative")]) >= 1.0).then_some(())
    });
    let age = seen.reaches(&world, &names::POSTURE_AGE, &[("source", "manual")], 0.001);
    assert!(age.sum("vestibule_posture_age_seconds", &[("source", "manual")]) < 60.0);
    seen.reaches(&world, &names::STORE_LAG, &[], 0.000_001);
    assert!(world.proxy.metrics().sum("vestibule_store_lag_seconds", &[]) < 5.0);

    connections(&world, &mut seen);
    memory(&world, &mut seen);

    // An app's server, up and down.
    seen.becomes(&world, &names::UPSTREAM_UP, &[wiki, ("server", &world.origin.url())], 1.0);
    world.curl().device(laptop).get("https://down.corp.example/");
    eventually("a server that refuses is down", || {
        let metrics = world.proxy.metrics();
        metrics.0.iter().find(|s| s.name == "vestibule_upstream_up" && s.label("app") == "down").map(|s| assert_eq!(s.value, 0.0))
    });

    servers(&world, &mut seen);

    // The configuration: loaded, taken anew, refused.
    let now = || jiff::Timestamp::now().as_second() as f64;
    let loaded = seen.reaches(&world, &names::CONFIG_LAST_GOOD, &[], 1.0).sum("vestibule_config_last_good_timestamp_seconds", &[]);
    assert!((now() - loaded).abs() < 60.0, "{loaded}");
    let revision = |metrics: &Metrics| {
        let of: Vec<String> =
            metrics.0.iter().filter(|s| s.name == "vestibule_policy_info").map(|s| s.label("revision").to_owned()).collect();
        assert_eq!(of.len(), 1, "one revision is in force");
        of[0].clone()
    };
    let old = revision(&seen.reaches(&world, &names::POLICY_INFO, &[], 1.0));
    assert_eq!(world.lab.decisions(1)[0]["policy_rev"], old.as_str());
    let yaml = std::fs::read_to_string(world.lab.path("vestibule.yaml")).unwrap();
    world.lab.write("vestibule.yaml", &format!("{yaml}# changed\n"));
    let after = seen.reaches(&world, &names::CONFIG_RELOAD, &[("result", "success")], 1.0);
    seen.becomes(&world, &names::CONFIG_TAKEN, &[], 1.0);
    assert_ne!(revision(&after), old);
    world.lab.write("vestibule.yaml", "version: 2\n");
    seen.reaches(&world, &names::CONFIG_RELOAD, &[("result", "failure")], 1.0);
    seen.becomes(&world, &names::CONFIG_TAKEN, &[], 0.0);
    // Where they move: tests/faults and tests/upgrade.rs.
    seen.becomes(&world, &names::DECISION_LOG_UP, &[], 1.0);
    seen.becomes(&world, &names::STALLED_WORKERS, &[], 0.0);
    seen.becomes(&world, &names::DRAINING, &[], 0.0);
    seen.becomes(&world, &names::UPGRADES, &[("result", "failure")], 0.0);

    // Assertions, and the key that signs them.
    assert_eq!(world.curl().device(laptop).get("https://spare.corp.example/").status, 200);
    seen.reaches(&world, &names::ASSERTIONS, &[("result", "signed")], 1.0);
    seen.reaches(&world, &names::ASSERTION_KEYS, &[("event", "made")], 1.0);
    seen.reaches(&world, &names::ASSERTION_KEYS_UP, &[], 1.0);
    let due = seen.reaches(&world, &names::ASSERTION_KEY_DUE, &[], 1.0).sum(names::ASSERTION_KEY_DUE.name, &[]);
    assert!((due - now() - 30.0 * 86400.0).abs() < 3600.0, "{due}");

    // Certificates and the revocation list, each with its end.
    let metrics = world.proxy.metrics();
    for (file, days) in [("edge.pem", 365.0), ("device-ca.pem", 3650.0), ("device-crl.pem", 365.0)] {
        let end = metrics.sum(names::CERTIFICATE_EXPIRY.name, &[("name", file)]);
        assert!((end - now() - days * 86400.0).abs() < 7200.0, "{file}: {end}");
    }
    seen.0.insert(names::CERTIFICATE_EXPIRY.name);
    seen.reaches(&world, &names::BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    seen.reaches(&world, &names::DECISION_LOG, &[("result", "written")], 5.0);

    // The store, gone: the last thing, since nothing else works then.
    std::fs::remove_file(world.lab.path("vestibule.db")).unwrap();
    seen.becomes(&world, &names::STORE_UP, &[], 0.0);
    let _ = byod;

    // Nothing that comes from outside makes it panic; its counter is tested where a panic can be made: src/edge.
    assert!(world.proxy.metrics().has(names::PANICS.name));
    seen.0.insert(names::PANICS.name);
    // Tested where descriptors run out: tests/hostile/crowds.rs.
    seen.becomes(&world, &names::ACCEPTING_PAUSED, &[], 0.0);
    let missing: Vec<&str> = names::ALL.iter().map(|metric| metric.name).filter(|name| !seen.0.contains(name)).collect();
    assert!(missing.is_empty(), "no test moves {missing:?}");
}

/// Two apps of their own: one with a check and a name, one with a single connection that is in use.
fn servers(world: &World, seen: &mut Exercised) {
    let wiki = [("app", "wiki"), ("server", &*world.origin.url())];
    let with = |label, value| [wiki[0], wiki[1], (label, value)];
    seen.reaches(world, &names::UPSTREAM_REQUESTS, &with("result", "answered"), 2.0);
    seen.reaches(world, &names::UPSTREAM_REQUESTS, &with("result", "timeout"), 0.0);
    seen.reaches(world, &names::UPSTREAM_ADDRESSES, &with("state", "up"), 1.0);
    seen.becomes(world, &names::UPSTREAM_RUNNING, &wiki, 0.0);
    seen.reaches(world, &names::UPSTREAM_CONNECTIONS, &with("state", "idle"), 1.0);
    seen.reaches(world, &names::UPSTREAM_REQUESTS, &[("app", "down"), ("result", "unreachable")], 1.0);
    // One of its servers refuses, and is ejected for it. Which one a worker asks first is its own choice.
    let twice = [("app", "twice")];
    eventually("the server that refuses is asked", || {
        assert_eq!(world.curl().device(&world.laptop).get("https://twice.corp.example/").status, 200);
        (world.proxy.metrics().sum(names::UPSTREAM_RETRIES.name, &twice) >= 1.0).then_some(())
    });
    seen.reaches(world, &names::UPSTREAM_RETRIES, &[twice[0], ("reason", "unsent")], 1.0);
    seen.reaches(world, &names::UPSTREAM_EJECTIONS, &twice, 1.0);
    seen.reaches(world, &names::UPSTREAM_CHECKS, &[("app", "checked"), ("result", "passed")], 1.0);
    seen.reaches(world, &names::UPSTREAM_RESOLVED, &[("app", "checked")], 1.0);
    seen.reaches(world, &names::UPSTREAM_LOOK_UPS, &[("app", "checked"), ("result", "found")], 1.0);
    seen.becomes(world, &names::UPSTREAM_WAITING, &twice, 0.0);
    assert_eq!(world.proxy.metrics().sum(names::UPSTREAM_WAITS.name, &[]), 0.0);
    seen.0.insert(names::UPSTREAM_WAITS.name); // moved by tests/balancing.rs
}

fn requests(world: &World, seen: &mut Exercised) {
    let wiki = ("app", "wiki");
    let big = "123456";
    assert_eq!(world.curl().device(&world.laptop).post("https://wiki.corp.example/", big).status, 200);
    assert_eq!(world.curl().device(&world.byod).get("https://wiki.corp.example/").status, 200);
    assert_eq!(world.curl().get("https://tried.corp.example/").status, 200);
    seen.reaches(world, &names::REQUESTS, &[wiki, ("effect", "forward"), ("status", "200")], 1.0);
    seen.reaches(world, &names::DECISIONS, &[wiki, ("effect", "restrict"), ("class", "personal_offnet")], 1.0);
    assert_eq!(world.curl().device(&world.laptop).get("https://tight.corp.example/grows").body, "hell");
    seen.reaches(world, &names::STREAMS_CUT, &[("reason", "restrict.max_response")], 1.0);
    let spare = [("exception", "spare-phone")];
    let before = world.proxy.metrics();
    assert!(before.has(names::EXCEPTIONS_USED.name) && before.sum(names::EXCEPTIONS_USED.name, &spare) == 0.0);
    assert_eq!(world.curl().device(&world.byod).get("https://spare.corp.example/").status, 200);
    seen.reaches(world, &names::EXCEPTIONS_USED, &spare, 1.0);
    let end: jiff::Timestamp = "2099-01-01T00:00:00Z".parse().unwrap();
    seen.becomes(world, &names::EXCEPTION_EXPIRY, &spare, end.as_second() as f64);
    seen.reaches(world, &names::DECISION_DURATION, &[], 3.0);
    seen.reaches(world, &names::REQUEST_DURATION, &[wiki, ("effect", "forward")], 1.0);
    seen.reaches(world, &names::UPSTREAM_DURATION, &[wiki], 2.0);
    seen.reaches(world, &names::REPORT_FLIPS, &[("app", "tried"), ("from", "forward"), ("to", "block")], 1.0);
    let corporate = ("class", "corporate");
    seen.reaches(world, &names::BYTES, &[wiki, corporate, ("direction", "in")], 6.0);
    let metrics = seen.reaches(world, &names::BYTES, &[wiki, corporate, ("direction", "out")], 5.0);
    assert_eq!(metrics.sum(names::BYTES.name, &[wiki, corporate, ("direction", "in")]), 6.0);
    assert_eq!(metrics.sum(names::BYTES.name, &[wiki, corporate, ("direction", "out")]), 5.0);
    // A bucket holds what is below its bound, and the last one all.
    let all = metrics.sum("vestibule_request_duration_seconds_bucket", &[wiki, ("effect", "forward"), ("le", "+Inf")]);
    assert_eq!(all, metrics.sum("vestibule_request_duration_seconds_count", &[wiki, ("effect", "forward")]));
    assert!(metrics.sum("vestibule_request_duration_seconds_sum", &[wiki]) > 0.0);
}

/// By now the laptop was learned with curl, and there is room for one group of blind devices.
fn memory(world: &World, seen: &mut Exercised) {
    seen.becomes(world, &names::DEVICES_SEEN, &[("class", "corporate")], 1.0);
    seen.becomes(world, &names::DEVICES_SEEN, &[("class", "personal_offnet")], 1.0);
    seen.reaches(world, &names::DEVICES_SEEN, &[("class", "blind")], 1.0);
    // The slow head took longer than the learning.
    let mut client = RawTls::connect(&world.proxy, &world.lab, "wiki.localhost", Some(&world.laptop));
    client.ask("GET / HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n");
    seen.reaches(world, &names::DRIFT, &[("event", "raised")], 1.0);
    seen.becomes(world, &names::DEVICES_DRIFTING, &[], 1.0);
    let mut client = RawTls::connect(&world.proxy, &world.lab, "wiki.localhost", None);
    client.ask("GET / HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n");
    seen.reaches(world, &names::MEMORY_OVERFLOW, &[("table", "census")], 1.0);
    assert_eq!(world.proxy.metrics().sum(names::MEMORY_OVERFLOW.name, &[("table", "baseline")]), 0.0);
}

fn connections(world: &World, seen: &mut Exercised) {
    let plain = [("listener", "plain")];
    seen.becomes(world, &names::CONNECTIONS, &plain, 0.0);
    let mut open = TcpStream::connect(world.proxy.addr("plain")).unwrap();
    seen.becomes(world, &names::CONNECTIONS, &plain, 1.0);
    // A head that never ends is cut after limits.request_head.
    open.write_all(b"GET / HTTP/1.1\r\nHost: wi").unwrap();
    seen.reaches(world, &names::REJECTED, &[("reason", "slow_head")], 1.0);
    open.set_read_timeout(Some(DEADLINE)).unwrap();
    let _ = open.read_to_end(&mut Vec::new());
    seen.becomes(world, &names::CONNECTIONS, &plain, 0.0);
    raw(world.proxy.addr("plain"), b"\x01\x02\x03\r\n\r\n");
    seen.reaches(world, &names::REJECTED, &[("reason", "malformed")], 1.0);

    seen.reaches(world, &names::TLS_HANDSHAKES, &[("result", "ok")], 3.0);
    let answer = raw(world.proxy.addr("edge"), b"GET / HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n");
    assert!(answer.starts_with(b"HTTP/1.1 400 "));
    seen.reaches(world, &names::TLS_HANDSHAKES, &[("result", "not_tls")], 1.0);
    let too_large = [&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff][..], &[0; 20_000]].concat();
    raw(world.proxy.addr("edge"), &too_large);
    seen.reaches(world, &names::TLS_HANDSHAKES, &[("result", "hello_too_large")], 1.0);
    seen.reaches(world, &names::REJECTED, &[("reason", "hello_too_large")], 1.0);

    seen.reaches(world, &names::FINGERPRINTS, &[("layer", "tls"), ("result", "read")], 3.0);
    seen.reaches(world, &names::FINGERPRINTS, &[("layer", "tls"), ("result", "unavailable")], 1.0);
    seen.reaches(world, &names::FINGERPRINTS, &[("layer", "syn")], 3.0);

    // A User-Agent of one system and a hint of another, twice on one connection: curl asks for both addresses on it.
    let firefox = "User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:143.0) Gecko/20100101 Firefox/143.0";
    let kind = [("kind", "ua_vs_hints")];
    assert_eq!(world.proxy.metrics().sum(names::CONTRADICTIONS.name, &[]), 0.0, "no client of these tests contradicted itself so far");
    let url = "https://wiki.corp.example/";
    let answer = world.curl().device(&world.laptop).header(firefox).header("Sec-CH-UA-Platform: \"macOS\"").arg(url).get(url);
    assert_eq!(answer.exit, 0, "{}", answer.stderr);
    seen.reaches(world, &names::CONTRADICTIONS, &kind, 1.0);
    assert_eq!(world.proxy.metrics().sum(names::CONTRADICTIONS.name, &kind), 1.0);
}

#[test]
fn the_reference_names_every_metric() {
    let reference = include_str!("../docs/metrics.md");
    for metric in names::ALL {
        let row = reference.lines().find(|line| line.starts_with(&format!("| `{}` |", metric.name)));
        let row = row.unwrap_or_else(|| panic!("docs/metrics.md has no row for {}", metric.name));
        let labels = metric.labels.join(" ");
        assert!(metric.labels.is_empty() || row.contains(&format!("`{labels}`")), "{row}: expected the labels `{labels}`");
    }
    // And nothing that does not exist.
    for word in reference.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("vestibule_")) {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word);
        assert!(names::ALL.iter().any(|metric| metric.name == word || metric.name == base), "docs/metrics.md names {word}");
    }
}
