//! How connections and the program end: nobody's answer is lost, no line is missing, nothing is held on to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends where its world breaks")]

mod support;

use std::io::Write;

use support::h2::{self, H2};
use support::{Config, Curl, Lab, Origin, Proxy, RawTls, Reply, eventually, tcp};

fn config(origin: &Origin) -> Config {
    let apps = format!(
        r#"
  - name: wiki
    owner: knowledge
    hosts: [wiki.localhost]
    upstream: {{servers: ["{}"]}}
    rules:
      - {{name: closed, when: {{http.path: /closed}}, then: block}}
      - {{name: rest, then: forward}}"#,
        origin.url()
    );
    Config::new(origin).set("apps", &apps)
}

#[test]
fn every_request_that_a_stop_cuts_has_its_line() {
    const PLAIN: usize = 200;
    const STREAMS: usize = 50;
    let origin = Origin::answering(Reply::Hang(Vec::new()));
    let lab = Lab::new();
    let mut proxy = lab.start(&config(&origin).set("limits", "{drain: 100ms}"));
    let ask = || {
        let mut stream = tcp(proxy.addr("plain"));
        stream.write_all(b"GET / HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n").unwrap();
        stream
    };
    let plain: Vec<_> = (0..PLAIN).map(|_| ask()).collect();
    let mut multiplexed = H2::connect(&proxy, &lab, "wiki.localhost", None);
    for _ in 0..STREAMS {
        multiplexed.open(&h2::get("wiki.localhost", "/"), true);
    }
    origin.wait(PLAIN + STREAMS);
    proxy.signal(libc::SIGTERM);
    assert_eq!(proxy.ended().code(), Some(0));
    assert_eq!(lab.decisions(PLAIN + STREAMS).len(), PLAIN + STREAMS);
    drop(plain);
}

#[test]
fn a_refusal_reaches_a_client_that_is_still_sending() {
    let origin = Origin::answering(Reply::text("ok"));
    let lab = Lab::new();
    let proxy = lab.start(&config(&origin));
    let refused = |end: &str| {
        let mut client = RawTls::connect(&proxy, &lab, "wiki.localhost", None);
        let length = 8 << 20;
        client.send(format!("POST /closed HTTP/1.1\r\nHost: wiki.localhost\r\nContent-Length: {length}\r\n\r\n").as_bytes());
        // Everything is sent before anything is read, as simple clients do; a reset shows as a failure to send.
        for _ in 0..length >> 16 {
            client.send(&[b'x'; 1 << 16]);
        }
        assert!(client.read_all().starts_with("HTTP/1.1 403 "), "{end}");
    };
    (0..5).for_each(|nth| refused(&format!("upload {nth}")));
    let whole = Curl::to(&proxy, &lab).http1().post("https://wiki.localhost/closed", "small");
    assert_eq!((whole.exit, whole.status), (0, 403));
    proxy.metric_reaches("vestibule_connections", &[("listener", "edge")], 0.0);
}

#[test]
fn an_open_connection_keeps_no_old_configuration_alive() {
    let origin = Origin::answering(Reply::text("ok"));
    let lab = Lab::new();
    let config = config(&origin);
    let proxy = lab.start(&config);
    let mut open = RawTls::connect(&proxy, &lab, "wiki.localhost", None);
    let mut ask = || assert!(open.ask("GET / HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n").starts_with("HTTP/1.1 200 "));
    ask();
    lab.configure(&config.set("store", r#"{url: "sqlite://other.db"}"#));
    proxy.signal(libc::SIGHUP);
    proxy.metric_reaches("vestibule_config_reload_total", &[("result", "success")], 1.0);
    ask();
    eventually("the old store is closed", || (stores(&proxy) == 1).then_some(()));
    ask();
}

/// How many threads read a device store.
fn stores(proxy: &Proxy) -> usize {
    let threads = std::fs::read_dir(format!("/proc/{}/task", proxy.pid())).unwrap();
    let names = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "vestibule-store").count()
}

#[test]
fn an_early_answer_over_http2_resets_nothing_while_the_rest_comes() {
    const PING: u8 = 6;
    const DATA: u8 = 0;
    const RST_STREAM: u8 = 3;
    let origin = Origin::answering(Reply::text("never asked"));
    let lab = Lab::new();
    let proxy = lab.start(&config(&origin));
    let mut client = H2::connect(&proxy, &lab, "wiki.localhost", None);
    let stream = client.open(&h2::post("wiki.localhost", "/closed"), false);
    let outcome = client.outcome(stream);
    assert_eq!((outcome.status, outcome.whole, outcome.reset), (403, true, None));
    // The pong comes after all that the proxy had to say before.
    client.write(&h2::frame(PING, 0, 0, b"all seen"));
    client.write(&h2::frame(DATA, 1, stream, b"the rest"));
    while let Some(frame) = client.read() {
        assert_ne!((frame.kind, frame.stream), (RST_STREAM, stream));
        if frame.kind == PING {
            break;
        }
    }
}
