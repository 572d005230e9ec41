//! What apps are told of their clients' connections: the bytes that they receive.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

mod support;

use serde_json::Value;
use support::{Config, Curl, Lab, Origin, Proxy, Received, Reply};

/// Names that only we may say, in spellings that an app may take for them.
const FORGED: [&str; 26] = [
    "X-JA3-Fingerprint",
    "x_ja3_fingerprint",
    "X.JA3.Fingerprint",
    "X-JA4-Fingerprint",
    "X_JA4-Fingerprint",
    "X-JA4-RAW-Fingerprint",
    "X-JA4H-Fingerprint",
    "X-HTTP2-Fingerprint",
    "X_HTTP2_FINGERPRINT",
    "x-tls-ja4",
    "X_TLS_JA4",
    "x-tls-ja4-r",
    "x-tls-ja4-s1",
    "x.tls.ja4.o",
    "x-http2-akamai",
    "x_http2_akamai",
    "x-tcp-p0f",
    "X_TCP_P0F",
    "x-huginn-net-ja4",
    "Vestibule-Ja4",
    "vestibule_ja4_stable",
    "Vestibule-H2",
    "Vestibule.Syn",
    "Vestibule-Stack",
    "Vestibule-Confidence",
    "Vestibule-Contradictions",
];

struct World {
    lab: Lab,
    origin: Origin,
    proxy: Proxy,
    asked: usize,
}

impl World {
    fn new(extra: &[(&str, &str)]) -> Self {
        let origin = Origin::answering(Reply::text("hello"));
        let apps: String = ["none", "vestibule", "fingerproxy", "huginn"]
            .map(|preset| {
                format!(
                    "\n  - {{name: {preset}-app, owner: knowledge, hosts: [{preset}.corp.example], upstream: {{servers: [\"{}\"]}}, \
                     fingerprint_headers: {preset}, rules: [{{name: all, then: forward}}]}}",
                    origin.url()
                )
            })
            .concat();
        let mut config = Config::new(&origin).set("apps", &apps);
        for (key, yaml) in extra {
            config = config.set(key, yaml);
        }
        let lab = Lab::new();
        let proxy = lab.start(&config);
        Self { lab, origin, proxy, asked: 0 }
    }

    /// What the app received, and the decision log's line.
    fn ask(&mut self, curl: Curl, url: &str) -> (Received, Value) {
        let answer = curl.get(url);
        assert_eq!(answer.status, 200, "{}", answer.stderr);
        self.asked += 1;
        let received = self.origin.wait(self.asked)[self.asked - 1].clone();
        (received, self.lab.decisions(self.asked)[self.asked - 1].clone())
    }

    fn curl(&self) -> Curl {
        Curl::to(&self.proxy, &self.lab)
    }
}

fn is_fingerprint(name: &str) -> bool {
    ["x-ja", "x-http2", "x-tls", "x-tcp", "vestibule-ja4", "vestibule-h", "vestibule-s", "vestibule-con"]
        .iter()
        .any(|start| name.starts_with(start))
}

#[track_caller]
fn told(received: &Received, expected: &[(&str, Option<&str>)]) {
    let mut names: Vec<_> = received.header_names().into_iter().filter(|name| is_fingerprint(name)).collect();
    names.sort();
    let mut wanted: Vec<_> = expected.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| (*name).to_owned()).collect();
    wanted.sort();
    assert_eq!(names, wanted, "{}", received.text());
    for (name, value) in expected {
        assert_eq!(received.header(name), value.iter().map(ToString::to_string).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn each_preset_has_its_names_and_the_values_of_the_log() {
    let mut world = World::new(&[]);
    for http in ["--http1.1", "--http2"] {
        for preset in ["none", "vestibule", "fingerproxy", "huginn"] {
            let (received, line) = world.ask(world.curl().arg(http), &format!("https://{preset}.corp.example/"));
            let wire = &line["wire"];
            let text = |name: &str| wire[name].as_str();
            assert_eq!(text("h2").is_some(), http == "--http2", "{wire}");
            assert!(text("ja4").is_some() && text("ja3").is_some() && text("syn").is_some(), "{wire}");
            let stack = match &wire["stack"].as_array().unwrap()[..] {
                [] => "unknown",
                stacks => stacks[0].as_str().unwrap(),
            };
            match preset {
                "vestibule" => told(
                    &received,
                    &[
                        ("vestibule-ja4", text("ja4")),
                        ("vestibule-ja4-stable", text("ja4_stable")),
                        ("vestibule-h2", text("h2")),
                        ("vestibule-header-order", text("header_order")),
                        ("vestibule-syn", text("syn")),
                        ("vestibule-stack", Some(stack)),
                        ("vestibule-confidence", line["confidence"].as_str()),
                    ],
                ),
                "fingerproxy" => told(
                    &received,
                    &[("x-ja3-fingerprint", text("ja3")), ("x-ja4-fingerprint", text("ja4")), ("x-http2-fingerprint", text("h2"))],
                ),
                "huginn" => {
                    let raw = received.header("x-tls-ja4-r").concat();
                    assert_eq!(raw.split('_').count(), 4, "{raw}");
                    assert!(raw.starts_with(&text("ja4").unwrap()[..10]), "{raw}");
                    told(&received, &[("x-tls-ja4", text("ja4")), ("x-tls-ja4-r", Some(&raw)), ("x-http2-akamai", text("h2"))]);
                }
                _ => told(&received, &[]),
            }
        }
    }
}

#[test]
fn nobody_but_we_says_what_a_connection_shows() {
    let mut world = World::new(&[]);
    for http in ["--http1.1", "--http2"] {
        for preset in ["none", "vestibule", "fingerproxy", "huginn"] {
            let curl = FORGED.iter().fold(world.curl().arg(http), |curl, name| curl.header(&format!("{name}: forged")));
            let (received, _) = world.ask(curl, &format!("https://{preset}.corp.example/"));
            assert!(!received.text().contains("forged"), "{http} {preset}: {}", received.text());
        }
    }
    // Naming ours in Connection takes none of them away.
    let curl = world.curl().http1().header("Connection: close, Vestibule-Ja4, vestibule-stack");
    let (received, line) = world.ask(curl, "https://vestibule.corp.example/");
    assert_eq!(received.header("vestibule-ja4"), [line["wire"]["ja4"].as_str().unwrap()]);
    assert_eq!(received.header("vestibule-stack").len(), 1);
}

#[test]
fn a_contradiction_is_told_and_what_is_not_seen_is_not() {
    // Whatever the built-in table says of curl, here it is known.
    let own = "rows:\n  - {name: curl-here, tls: {ja4: [\"t1*\"]}, stack: openssl, browsers: [curl]}\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.yaml");
    std::fs::write(&path, own).unwrap();
    let mut world = World::new(&[("fingerprints", &format!("{{known: \"{}\"}}", path.display()))]);
    let chrome = "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36";
    for (agent, confidence, contradictions) in
        [(chrome, "contradicted", vec!["ua_browser_vs_tls".to_owned()]), ("User-Agent: curl/7.88.1", "corroborated", vec![])]
    {
        let (received, _) = world.ask(world.curl().http1().header(agent), "https://vestibule.corp.example/");
        assert_eq!(received.header("vestibule-stack"), ["openssl"]);
        assert_eq!(received.header("vestibule-confidence"), [confidence]);
        assert_eq!(received.header("vestibule-contradictions"), contradictions);
    }

    // Without TLS there is neither hello nor stack.
    let plain = Curl::at(world.proxy.addr("plain")).http1();
    let (received, line) = world.ask(plain, "http://vestibule.corp.example/");
    told(
        &received,
        &[
            ("vestibule-header-order", line["wire"]["header_order"].as_str()),
            ("vestibule-syn", line["wire"]["syn"].as_str()),
            ("vestibule-confidence", line["confidence"].as_str()),
        ],
    );
}

#[test]
fn ja3_is_computed_only_where_it_is_asked_for() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let proxy = lab.start(&Config::new(&origin));
    Curl::to(&proxy, &lab).get("https://wiki.localhost/");
    let wire = &lab.decisions(1)[0]["wire"];
    assert!(wire["ja4"].is_string() && wire.get("ja3").is_none(), "{wire}");
}
