//! One request, one meaning: what reaches the app is what the policy saw, whatever bytes the client sends (and the reverse for answers). Each
//! test is named after what it prevents and looks at the bytes that the app received.
#![allow(clippy::unwrap_used, reason = "a test ends where its world breaks")]

mod support;

#[path = "hygiene/answers.rs"]
mod answers;
#[path = "hygiene/chance.rs"]
mod chance;
#[path = "hygiene/desync.rs"]
mod desync;
#[path = "hygiene/differential.rs"]
mod differential;
#[path = "hygiene/fields.rs"]
mod fields;
#[path = "hygiene/framing.rs"]
mod framing;
#[path = "hygiene/targets.rs"]
mod targets;

use support::h2::{self, H2};
use support::{Config, Lab, Origin, Proxy, Received, Reply, eventually, raw};

/// An app whose `/admin` is closed to everybody and whose rest is open, one that keeps odd paths, and one that the certificate does not cover.
struct World {
    lab: Lab,
    origin: Origin,
    proxy: Proxy,
}

const APPS: &str = r#"
  - name: wiki
    owner: knowledge
    hosts: [wiki.localhost, "*.wiki.corp.example"]
    upstream: {servers: ["SERVER"], timeouts: {response: 1s, idle: 1s}}
    rules:
      - {name: admin, when: {http.path: [/admin, "/admin/*"]}, then: block}
      - {name: query, when: {http.path: "*debug*"}, then: block}
      - {name: rest, then: forward}
  - name: odd
    owner: knowledge
    hosts: [odd.corp.example]
    upstream: {servers: ["SERVER"]}
    path: {encoded_slash: keep, parameters: keep, slashes: keep}
    rules:
      - {name: admin, when: {http.path: [/admin, "/admin/*"]}, then: block}
      - {name: rest, then: forward}
  - name: elsewhere
    owner: knowledge
    hosts: [elsewhere.example]
    upstream: {servers: ["SERVER"]}
    rules: [{name: all, then: forward}]"#;

impl World {
    fn new() -> Self {
        Self::with(Origin::answering(Reply::text("ok")))
    }

    fn with(origin: Origin) -> Self {
        let lab = Lab::new();
        let proxy = lab.start(&Self::config(&origin));
        Self { lab, origin, proxy }
    }

    fn config(origin: &Origin) -> Config {
        // One worker: what is said of one connection toward the app does not depend on chance.
        Config::new(origin).set("workers", "1").set("apps", &APPS.replace("SERVER", &origin.url()))
    }

    /// These bytes to the plain listener; all that comes back.
    fn plain(&self, bytes: &[u8]) -> String {
        String::from_utf8_lossy(&raw(self.proxy.addr("plain"), bytes)).into_owned()
    }

    /// A GET with these field lines to the plain listener.
    fn get(&self, target: &str, lines: &str) -> String {
        self.plain(format!("GET {target} HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: close\r\n{lines}\r\n").as_bytes())
    }

    fn h2(&self) -> H2 {
        H2::connect(&self.proxy, &self.lab, "wiki.localhost", None)
    }

    /// All that the app has received but for the request that shows that nothing else is on its way.
    fn received(&self) -> Vec<Received> {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let last = format!("/last-{}", COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        assert_eq!(status(&self.get(&last, "")), 200);
        let all = eventually("the last request at the app", || {
            let received = self.origin.received();
            received.iter().any(|r| r.line().contains(&last)).then_some(received)
        });
        all.into_iter().filter(|r| !r.line().contains("/last-")).collect()
    }

    fn lines(&self) -> Vec<String> {
        self.received().iter().map(Received::line).collect()
    }
}

/// Of the first answer; 0 when there is none.
fn status(answer: &str) -> u16 {
    let words = answer.strip_prefix("HTTP/1.1 ").or_else(|| answer.strip_prefix("HTTP/1.0 "));
    words.and_then(|rest| rest.get(..3)).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// A chunked body's content, and its trailers.
fn unchunked(mut body: &[u8]) -> (Vec<u8>, String) {
    let mut content = Vec::new();
    loop {
        let end = body.windows(2).position(|w| w == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        body = &body[end + 2..];
        if size == 0 {
            return (content, String::from_utf8(body[..body.len() - 2].to_vec()).unwrap());
        }
        content.extend(&body[..size]);
        body = &body[size + 2..];
    }
}
