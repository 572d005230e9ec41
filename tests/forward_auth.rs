//! Questions of proxies that stay in place: a real nginx, Caddy, Traefik and Envoy with the configurations of docs/forward-auth.md, and questions that no
//! proxy would ask.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

mod support;

#[path = "forward_auth/proxies.rs"]
mod proxies;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use support::{Config, Curl, Lab, Origin, Proxy, Reply, eventually, program, raw, venv};
use vestibule::cli::lab_ca::Issued;

const FIT: &str = "ownership=corporate state=approved posture.os_supported=ok posture.screen_lock=ok";
const HOST: &str = "wiki.corp.example";

fn config(origin: &Origin) -> Config {
    let server = origin.url();
    let base = Config::new(origin);
    let listeners = format!(
        r#"{}
  - name: questions
    bind: ["127.0.0.1:0"]
    forward_auth: {{trusted: ["127.0.0.1"]}}
    forwarded: {{trusted: ["127.0.0.1"], client_ca: [certs/device-ca.pem]}}
  - name: others
    bind: ["127.0.0.1:0"]
    forward_auth: {{trusted: ["192.0.2.1"]}}"#,
        base.get("listeners")
    );
    base.set("listeners", &listeners)
        .set("assertion", "{keys: keys}")
        .set("networks", "{office: [\"198.51.100.0/24\"]}")
        .set(
            "restrictions",
            "
  read-only: {methods: [GET, HEAD, OPTIONS]}
  slow: {requests: 2/h}
  pages: {paths: {deny: [/phone/admin]}}
  no-store: {no_store: true}
  sandbox: {sandbox: true}
  policy: {permissions_policy: [camera]}
  shown: {attachments: block}
  body: {max_body: 1KiB}
  response: {max_response: 1KiB}
  stream: {max_stream: 1m}
  narrow: {bandwidth: 1MiB/s}",
        )
        .set(
            "apps",
            &format!(
                r#"
  - name: wiki
    owner: knowledge
    hosts: [wiki.corp.example]
    assertion: true
    upstream: {{servers: ["{server}"]}}
    rules:
      - {{name: admin, when: {{http.path: [/admin, "/admin/*"]}}, then: block}}
      - {{name: managed, when: {{class: corporate, tier: ">= healthy"}}, then: forward}}
      - {{name: byod, when: {{tier: ">= known"}}, then: restrict, with: [read-only, pages]}}
      - {{name: office, when: {{net.zone: office, http.path: "/lobby*"}}, then: forward}}
      - {{name: slow, when: {{http.path: "/slow"}}, then: restrict, with: [slow]}}
      - {{name: r1, when: {{http.path: "/no-store"}}, then: restrict, with: [no-store]}}
      - {{name: r2, when: {{http.path: "/sandbox"}}, then: restrict, with: [sandbox]}}
      - {{name: r3, when: {{http.path: "/policy"}}, then: restrict, with: [policy]}}
      - {{name: r4, when: {{http.path: "/shown"}}, then: restrict, with: [shown]}}
      - {{name: r5, when: {{http.path: "/body"}}, then: restrict, with: [body]}}
      - {{name: r6, when: {{http.path: "/response"}}, then: restrict, with: [response]}}
      - {{name: r7, when: {{http.path: "/stream"}}, then: restrict, with: [stream]}}
      - {{name: r8, when: {{http.path: "/narrow"}}, then: restrict, with: [read-only, narrow]}}
      - {{name: rest, then: block}}"#
            ),
        )
}

struct World {
    lab: Lab,
    origin: Origin,
    proxy: Proxy,
    laptop: Issued,
    phone: Issued,
}

impl World {
    fn new() -> Self {
        let origin = Origin::answering(Reply::text("the app"));
        let lab = Lab::new();
        let config = config(&origin);
        lab.configure(&config);
        let (laptop, phone) = (lab.device("laptop", FIT), lab.device("phone", "ownership=personal state=approved"));
        let proxy = lab.start(&config);
        Self { lab, origin, proxy, laptop, phone }
    }

    /// Bytes to the listener; what comes back until it closes.
    fn put(&self, text: &str) -> String {
        String::from_utf8(raw(self.proxy.addr("questions"), text.as_bytes())).unwrap()
    }

    /// A question by fields, in this manner, about this; `more` are whole lines.
    fn ask(&self, manner: &str, (method, target): (&str, &str), more: &str) -> String {
        self.put(&format!(
            "GET /.well-known/vestibule/{manner} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nX-Forwarded-Method: {method}\r\nX-Forwarded-Uri: {target}\r\n\
             X-Forwarded-Host: {HOST}\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 203.0.113.7\r\n{more}\r\n"
        ))
    }

    fn last(&self, n: usize) -> Value {
        self.lab.decisions(n)[n - 1].clone()
    }
}

/// The certificate as RFC 9440 has it.
fn client_cert(device: &Issued) -> String {
    format!("Client-Cert: :{}:\r\n", STANDARD.encode(CertificateDer::from_pem_file(&device.cert).unwrap()))
}

fn status(answer: &str) -> u16 {
    answer.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer}"))
}

fn field<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next().unwrap();
    let mut found = head.lines().filter_map(|line| line.split_once(':')).filter(|(field, _)| field.eq_ignore_ascii_case(name));
    let value = found.next()?.1.trim();
    assert!(found.next().is_none(), "{name} twice: {answer}");
    Some(value)
}

fn reasons(answer: &str) -> Value {
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    serde_json::from_str::<Value>(body).unwrap_or_else(|error| panic!("{error}: {answer}"))["reasons"].clone()
}

fn claims(assertion: &str) -> Value {
    let claims = URL_SAFE_NO_PAD.decode(assertion.split('.').nth(1).unwrap_or_else(|| panic!("no assertion: {assertion}"))).unwrap();
    serde_json::from_slice(&claims).unwrap()
}

#[test]
fn a_pass_tells_who_asks_and_a_refusal_why() {
    let world = World::new();
    let laptop = world.ask("forward_auth", ("POST", "/page?x=1"), &client_cert(&world.laptop));
    assert_eq!(status(&laptop), 200, "{laptop}");
    for (name, value) in [
        ("vestibule-device-id", "laptop"),
        ("vestibule-device-class", "corporate"),
        ("vestibule-tier", "healthy"),
        ("vestibule-decision", "forward"),
        ("vestibule-restrictions", ""),
        ("content-length", "0"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(field(&laptop, name), Some(value), "{name}");
    }
    let claims = claims(field(&laptop, "vestibule-jwt-assertion").unwrap());
    assert_eq!((&claims["aud"], &claims["sub"], &claims["vst"]["ja4"]), (&json!("wiki"), &json!("laptop"), &Value::Null));
    let line = world.last(1);
    assert_eq!(field(&laptop, "x-request-id"), line["request_id"].as_str());
    for (name, value) in [
        ("asked", json!("forward_auth")),
        ("listener", json!("questions")),
        ("peer", json!("203.0.113.7")),
        ("host", json!(HOST)),
        ("method", json!("POST")),
        ("path", json!("/page")),
        ("app", json!("wiki")),
        ("device", json!("laptop")),
        ("status", json!(200)),
        ("effect", json!("forward")),
        ("contradictions", json!([])),
        ("upstream_ms", Value::Null),
    ] {
        assert_eq!(line[name], value, "{name}: {line}");
    }
    for layer in ["ja4", "ja4_stable", "syn", "h2", "header_order", "stack", "browser", "os"] {
        assert_eq!(line["wire"][layer], Value::Null, "unavailable: {layer}: {line}");
    }
    let phone = client_cert(&world.phone);
    let reads = world.ask("forward_auth", ("GET", "/page"), &phone);
    assert_eq!((status(&reads), field(&reads, "vestibule-restrictions")), (200, Some("read-only, pages")));
    for (method, target, reason) in [("POST", "/page", "restrict.methods"), ("GET", "/phone/admin", "restrict.paths")] {
        let refused = world.ask("forward_auth", (method, target), &phone);
        assert_eq!(status(&refused), 403);
        assert!(reasons(&refused).as_array().unwrap().contains(&json!(reason)), "{refused}");
        assert_eq!(field(&refused, "vestibule-device-id"), None, "nothing to copy");
        let line = eventually("the refusal's line", || world.lab.decisions(3).into_iter().find(|line| line["reasons"][0] == reason));
        assert_eq!((&line["status"], &line["method"]), (&json!(403), &json!(method)));
    }
    let blind = world.ask("forward_auth", ("GET", "/page"), "Accept: text/html\r\n");
    assert_eq!(status(&blind), 403);
    assert!(blind.contains("<html") && blind.contains("did not show a certificate"), "{blind}");
    // The zone is the client's, not the proxy's.
    assert_eq!(status(&world.ask("forward_auth", ("GET", "/lobby"), "")), 403);
    let office = world.put(&format!(
        "GET /.well-known/vestibule/forward_auth HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Forwarded-Method: GET\r\nX-Forwarded-Uri: /lobby\r\nX-Forwarded-Host: {HOST}\r\n\
         X-Forwarded-For: 10.9.9.9, 198.51.100.4\r\n\r\n"
    ));
    assert_eq!(
        (status(&office), field(&office, "vestibule-device-id"), field(&office, "vestibule-device-class")),
        (200, Some(""), Some("blind"))
    );
    let metrics = world.proxy.metrics();
    assert_eq!(metrics.sum("vestibule_decisions_total", &[("app", "wiki")]), 7.0);
    assert_eq!(metrics.sum("vestibule_requests_total", &[("app", "wiki"), ("status", "200")]), 3.0);
    assert!(world.origin.received().is_empty(), "asked, not carried");
}

#[test]
fn a_restriction_of_methods_holds_for_what_follows_a_switch_of_protocols() {
    let world = World::new();
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    // Proxies differ in what they leave of a client's wish in a question.
    for wish in [key, "Connection: upgrade, close\r\nUpgrade: websocket\r\n", "Upgrade: chat\r\n"] {
        let ask = |device: &str| world.ask("forward_auth", ("GET", "/page"), &format!("{wish}{device}"));
        assert_eq!(status(&ask(&client_cert(&world.laptop))), 200, "{wish}");
        let phone = ask(&client_cert(&world.phone));
        assert_eq!((status(&phone), &reasons(&phone)[0]), (403, &json!("restrict.methods")), "{wish}");
    }
    let offer = world.ask("forward_auth", ("GET", "/page"), &format!("Upgrade: h2c\r\n{}", client_cert(&world.phone)));
    assert_eq!(status(&offer), 200, "no wish, as everywhere");
}

#[test]
fn a_restriction_that_cannot_be_kept_is_refused() {
    let world = World::new();
    for path in ["no-store", "sandbox", "policy", "shown", "body", "response", "stream", "narrow"] {
        for (manner, expected) in [("auth_request", 403), ("forward_auth", 403)] {
            let answer = world.ask(manner, ("GET", &format!("/{path}")), "");
            assert_eq!((status(&answer), reasons(&answer)), (expected, json!(["restrict.unenforceable"])), "{path}");
        }
    }
    let line = world.last(16);
    assert_eq!(
        (&line["reasons"][0], &line["effect"], &line["status"]),
        (&json!("restrict.unenforceable"), &json!("restrict"), &json!(403))
    );
    let slow: Vec<u16> = (0..3).map(|_| status(&world.ask("forward_auth", ("GET", "/slow"), ""))).collect();
    assert_eq!(slow, [200, 200, 429]);
    let late = world.ask("auth_request", ("GET", "/slow"), "");
    assert_eq!((status(&late), reasons(&late)), (403, json!(["restrict.requests"])), "nginx knows no 429");
    assert!(field(&late, "retry-after").is_some());
}

#[test]
fn what_is_not_plain_lets_nobody_in() {
    let world = World::new();
    let cert = client_cert(&world.laptop);
    let fields = [
        "X-Forwarded-Method: GET".to_owned(),
        "X-Forwarded-Uri: /page".to_owned(),
        format!("X-Forwarded-Host: {HOST}"),
        "X-Forwarded-For: 203.0.113.7".to_owned(),
    ];
    let put = |path: &str, lines: &[&str]| {
        world.put(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}\r\n{cert}\r\n", lines.join("\r\n")))
    };
    let all: Vec<&str> = fields.iter().map(String::as_str).collect();
    for manner in ["auth_request", "forward_auth"] {
        let path = format!("/.well-known/vestibule/{manner}");
        let wrong = if manner == "auth_request" { 403 } else { 400 };
        assert_eq!(status(&put(&path, &all)), 200);
        for at in 0..all.len() {
            let mut without = all.clone();
            let gone = without.remove(at);
            assert_ne!(status(&put(&path, &without)) / 100, 2, "{manner} without {gone}");
            let name = gone.split(':').next().unwrap();
            // Of addresses a list is a chain, whose last is the proxy's word.
            if name != "X-Forwarded-For" {
                let twice: Vec<&str> = all.iter().copied().chain([gone]).collect();
                assert_eq!(status(&put(&path, &twice)), wrong, "{manner} with two of {gone}");
            }
            let empty = format!("{name}: ");
            let mut emptied = all.clone();
            emptied[at] = &empty;
            assert_ne!(status(&put(&path, &emptied)) / 100, 2, "{manner} with an empty {gone}");
        }
        for odd in [
            "X-Forwarded-Uri: http://wiki.corp.example/page",
            "X-Forwarded-Uri: *",
            "X-Forwarded-Uri: /x/../page",
            "X-Forwarded-Uri: /x/%2e%2E/page",
            "X-Forwarded-Uri: //page",
            "X-Forwarded-Uri: /page#x",
            "X-Forwarded-Uri: /a%2Fb",
            "X-Forwarded-Uri: /a;b",
            "X-Forwarded-Uri: /a%00",
            "X-Forwarded-Uri: /.well-known/vestibule/jwks.json",
            "X-Forwarded-Uri: /.well-known/vestibule/notice",
            "X-Forwarded-Method: CONNECT",
            "X-Forwarded-Method: GET, GET",
            "X-Forwarded-Host: wiki.corp.example, evil.example",
            "X-Forwarded-Host: nobody.example",
            "X-Forwarded-For: unknown",
            "X-Forwarded-For: 203.0.113.7, ",
            "X-Forwarded-Proto: gopher",
            "Client-Cert: :bm90IGEgY2VydGlmaWNhdGU=:",
            "Client-Cert: no bytes",
        ] {
            let name = odd.split(':').next().unwrap();
            let lines: Vec<&str> = all.iter().copied().filter(|line| !line.starts_with(name)).chain([odd]).collect();
            let answer = put(&path, &lines);
            // A list whose last element is empty has the one before it for its last.
            let expected = if odd == "X-Forwarded-For: 203.0.113.7, " { 2 } else { 4 };
            assert!(matches!(status(&answer) / 100, found if found == expected || found == 5), "{odd}: {answer}");
            if manner == "auth_request" && expected == 4 {
                assert!([403, 503].contains(&status(&answer)), "{odd}: {answer}");
            }
        }
    }
    for path in ["/", "/page", "/.well-known/vestibule/", "/.well-known/vestibule/other", "/.well-known/vestibule/notice"] {
        assert_eq!(status(&put(path, &all)), 400, "{path}");
    }
    assert!(world.origin.received().is_empty());
}

#[test]
fn no_field_of_a_client_makes_a_refusal_look_like_a_pass() {
    let world = World::new();
    // A refusal in gRPC's own form has the status 200.
    for content in ["application/grpc", "application/grpc+proto", "application/grpc-web"] {
        for manner in ["auth_request", "forward_auth"] {
            for target in ["/page", "/x/../page", "/no-store"] {
                let answer = world.ask(manner, ("POST", target), &format!("Content-Type: {content}\r\n"));
                assert!((400..500).contains(&status(&answer)) && field(&answer, "grpc-status").is_none(), "{content} {target}: {answer}");
            }
        }
    }
    // Nor in a question that does not say whose it is.
    let answer = world.put(&format!(
        "POST /.well-known/vestibule/forward_auth HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\nContent-Type: application/grpc\r\n\
         X-Forwarded-Method: POST\r\nX-Forwarded-Uri: /page\r\nX-Forwarded-Host: {HOST}\r\n\r\n"
    ));
    assert!(status(&answer) == 400 && field(&answer, "grpc-status").is_none(), "{answer}");
    // Nor does its wish for another protocol.
    let cert = client_cert(&world.laptop);
    let wish = "Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    assert_eq!(status(&world.ask("auth_request", ("GET", "/socket"), &format!("{wish}{cert}"))), 200, "decided as the GET that it is");
    assert_eq!(status(&world.ask("auth_request", ("GET", "/socket"), wish)), 403);
    // Identity that a client made up is nobody's, and what an answer says replaces it.
    let forged =
        "Vestibule-Device-Id: laptop\r\nVestibule-Tier: trusted\r\nVestibule-Jwt-Assertion: x.y.z\r\nvestibule_device_id: laptop\r\n";
    assert_eq!(status(&world.ask("forward_auth", ("GET", "/page"), forged)), 403);
    // `Forwarded` is the client's own: no proxy that asks sets it.
    let zone = world.ask("forward_auth", ("GET", "/lobby"), "Forwarded: for=198.51.100.4\r\n");
    assert_eq!(status(&zone), 403);
}

#[test]
fn a_head_and_a_kept_connection_stay_in_step() {
    let world = World::new();
    let mut client = support::tcp(world.proxy.addr("questions"));
    let ask = |method: &str, asked: &str, host: &str| {
        format!(
            "{method} /.well-known/vestibule/forward_auth HTTP/1.1\r\nHost: x\r\nX-Forwarded-Method: {asked}\r\nX-Forwarded-Uri: /page\r\nX-Forwarded-Host: {host}\r\n\
             X-Forwarded-For: 203.0.113.9\r\n\r\n"
        )
    };
    // Whether an answer has a body depends on the question's method, never on the one that it is about.
    for (method, asked, host, expected) in [
        ("GET", "HEAD", HOST, 403),
        ("HEAD", "GET", HOST, 403),
        ("GET", "HEAD", "nobody.example", 404),
        ("HEAD", "HEAD", HOST, 403),
        ("GET", "GET", HOST, 403),
    ] {
        use std::io::{Read, Write};
        client.write_all(ask(method, asked, host).as_bytes()).unwrap();
        let mut got = Vec::new();
        let (head, length) = loop {
            let mut part = [0; 4096];
            let n = client.read(&mut part).unwrap();
            assert!(n > 0, "closed: {}", String::from_utf8_lossy(&got));
            got.extend_from_slice(&part[..n]);
            let text = String::from_utf8_lossy(&got).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length: usize = field(&text, "content-length").unwrap().parse().unwrap();
            assert!(length > 0, "a page for whoever can read one: {text}");
            if method == "HEAD" || body.len() >= length {
                break (head.to_owned(), if method == "HEAD" { body.len() } else { body.len() - length });
            }
        };
        assert_eq!((status(&head), length), (expected, 0), "{method} about {asked}: {head}");
    }
}

#[test]
fn only_listed_proxies_are_answered() {
    let world = World::new();
    let question = format!(
        "GET /.well-known/vestibule/forward_auth HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Forwarded-Method: GET\r\nX-Forwarded-Uri: /lobby\r\nX-Forwarded-Host: {HOST}\r\n\
         X-Forwarded-For: 198.51.100.4\r\n\r\n"
    );
    assert_eq!(status(&world.put(&question)), 200);
    let answer = String::from_utf8(raw(world.proxy.addr("others"), question.as_bytes())).unwrap();
    assert_eq!((status(&answer), reasons(&answer)), (403, json!(["request.untrusted"])));
    let line = eventually("its line", || world.lab.decisions(2).into_iter().find(|line| line["listener"] == "others"));
    assert_eq!((&line["app"], &line["peer"], &line["reasons"]), (&json!("none"), &json!("127.0.0.1"), &json!(["request.untrusted"])));
    assert_eq!(world.proxy.metrics().sum("vestibule_decisions_total", &[("reason", "request.untrusted"), ("app", "none")]), 1.0);
    // Nor does a listener that carries answer questions.
    let carried = String::from_utf8(raw(world.proxy.addr("plain"), question.as_bytes())).unwrap();
    assert_eq!(status(&carried), 404);
}

#[test]
fn envoys_questions_in_their_documented_form() {
    let world = World::new();
    let pem = std::fs::read_to_string(&world.laptop.cert).unwrap();
    let escaped = format!(
        "client-cert: {}\r\n",
        pem.replace(' ', "%20").replace('\n', "%0A").replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
    );
    let ask = |method: &str, target: &str, lines: &str| {
        world.put(&format!(
            "{method} /.well-known/vestibule/ext_authz{target} HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 0\r\nx-envoy-internal: true\r\n\
             x-envoy-expected-rq-timeout-ms: 1000\r\nconnection: close\r\n{lines}\r\n"
        ))
    };
    let from = "x-forwarded-for: 203.0.113.7\r\n";
    let passed = ask("DELETE", "/page?x=1", &format!("{from}{escaped}"));
    assert_eq!((status(&passed), field(&passed, "vestibule-device-id")), (200, Some("laptop")));
    let line = world.last(1);
    assert_eq!(
        (&line["asked"], &line["method"], &line["path"], &line["peer"]),
        (&json!("ext_authz"), &json!("DELETE"), &json!("/page"), &json!("203.0.113.7"))
    );
    assert_eq!(status(&ask("GET", "/admin", &format!("{from}{escaped}"))), 403);
    assert_eq!(status(&ask("GET", "/page", from)), 403);
    for (method, target, lines) in [
        ("GET", "/page", escaped.clone()),
        ("GET", "/x/../page", format!("{from}{escaped}")),
        ("GET", "", format!("{from}{escaped}")),
        ("GET", "page", format!("{from}{escaped}")),
        ("GET", "/page", format!("{from}{escaped}x-forwarded-uri: /lobby\r\n")),
        ("GET", "/page", format!("{from}{escaped}x-forwarded-host: {HOST}\r\n")),
        ("GET", "/page", format!("{from}{escaped}{escaped}")),
    ] {
        assert_eq!(status(&ask(method, target, &lines)), 400, "{method} {target} {lines}");
    }
    let head = ask("HEAD", "/page", from);
    assert!(status(&head) == 403 && head.ends_with("\r\n\r\n"), "{head}");
}
