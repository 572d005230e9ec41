//! Reloads that change who is believed and what apps are told, with connections that are there already.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use rustls::StreamOwned;

use super::support::h2::{GOAWAY, H2, PREFACE, get as h2_get, settings};
use super::support::{RawTls, tls_client};
use super::*;

const OF_THE_OFFICE: &str = "PROXY TCP4 10.1.2.3 10.0.0.1 54321 443\r\n";

fn reload(world: &World, config: &Config) {
    world.lab.configure(config);
    world.proxy.signal(libc::SIGHUP);
    world.proxy.metric_reaches("vestibule_config_reload_total", &[("result", "success")], 1.0);
}

/// HTTP/2 over a connection on which nothing but a PROXY header was sent.
fn multiplexing(world: &World, peer: Peer) -> H2 {
    let tls = tls_client(&world.lab, "wiki.localhost", &[b"h2"], None);
    let mut h2 = H2::over(RawTls { stream: StreamOwned::new(tls, peer.0) });
    h2.write(&[PREFACE, &settings(&[(1, 0)])].concat());
    h2
}

fn until_goaway(h2: &mut H2) {
    while h2.read().expect("a GOAWAY comes first").kind != GOAWAY {}
}

#[test]
fn a_balancer_that_is_listed_no_more_speaks_for_nobody_on_connections_that_are_there() {
    let world = World::new();
    let passed = |listener: &str| {
        let mut peer = world.connect(listener);
        peer.send(OF_THE_OFFICE);
        peer
    };
    let mut idle = passed("passed");
    assert_eq!(idle.status(&get("")), 200);
    let mut h2 = multiplexing(&world, passed("passed-tls"));
    assert_eq!(h2.get("wiki.localhost", "/page").status, 200);
    let mut silent = passed("passed");
    reload(
        &world,
        &World::config(&world.origin).set("listeners", &LISTENERS.replace("l: {trusted: [127.0.0.1]}", "l: {trusted: [10.8.0.1]}")),
    );
    assert_eq!(idle.rest(), b"", "it closes");
    until_goaway(&mut h2);
    // Who ignores that is believed no more either, nor who said nothing until now.
    assert_eq!(h2.get("wiki.localhost", "/page").status, 400);
    silent.send(get(""));
    let answer = String::from_utf8(silent.rest()).unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(world.origin.received().len(), 2);
    let line = world.line(3);
    assert_eq!((&line["reasons"], &line["via"]), (&serde_json::json!(["request.malformed"]), &serde_json::json!(["127.0.0.1"])));
}

#[test]
fn what_comes_on_connections_of_a_listener_that_is_no_more_is_answered_until_they_end() {
    let world = World::new();
    let mut peer = world.connect("passed-tls");
    peer.send(OF_THE_OFFICE);
    let mut h2 = multiplexing(&world, peer);
    assert_eq!(h2.get("wiki.localhost", "/page").status, 200);
    reload(&world, &World::config(&world.origin).set("listeners", &LISTENERS.replace("name: passed-tls", "name: another")));
    until_goaway(&mut h2);
    assert_eq!(h2.get("wiki.localhost", "/page").status, 200);
}

/// An app that says with which line each of its connections begins; `/slow` waits until it is let go.
fn app() -> (SocketAddr, Receiver<String>, Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let ((begun, begins), (go, held)) = (channel(), channel());
    let held = Arc::new(Mutex::new(held));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let (begun, held) = (begun.clone(), Arc::clone(&held));
            std::thread::spawn(move || {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let _ = begun.send(head.first().unwrap().clone());
                if head.iter().any(|line| line.starts_with("GET /slow ")) {
                    held.lock().unwrap().recv().unwrap();
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").unwrap();
            });
        }
    });
    (address, begins, go)
}

#[test]
fn an_app_that_is_told_from_a_reload_on_hears_the_truth_of_connections_that_are_there() {
    let (address, begins, go) = app();
    let apps = |told: &str| {
        format!(
            "\n  - {{name: wiki, owner: knowledge, hosts: [wiki.localhost], rules: [{{name: all, then: forward}}],\n     \
             upstream: {{servers: [\"http://{address}\"]{told}}}}}"
        )
    };
    let world = World::with(|config| config.set("apps", &apps("")));
    let begins = || begins.recv_timeout(DEADLINE).unwrap();
    let tls = || RawTls::with_alpn(world.proxy.addr("edge"), &world.lab, ("wiki.localhost", "h2"), None);
    let mut idle = world.connect("bare");
    assert_eq!(idle.status(&get("")), 200);
    assert_eq!(begins(), "GET /page HTTP/1.1");
    let tls_before = tls();
    let port = tls_before.stream.sock.local_addr().unwrap().port();
    let mut h2 = H2::over(tls_before);
    h2.write(&[PREFACE, &settings(&[(1, 0)])].concat());
    let slow = h2.open(&h2_get("wiki.localhost", "/slow"), true);
    assert_eq!(begins(), "GET /slow HTTP/1.1");
    reload(&world, &World::config(&world.origin).set("apps", &apps(", proxy_protocol: v1")));
    assert_eq!(idle.rest(), b"", "the next connection will tell more");
    until_goaway(&mut h2);
    // What comes on it nevertheless: nobody looked at our end of it.
    assert_eq!(h2.get("wiki.localhost", "/page").status, 200);
    assert_eq!(begins(), format!("PROXY TCP4 127.0.0.1 0.0.0.0 {port} 0"));
    go.send(()).unwrap();
    assert_eq!(h2.outcome(slow).status, 200, "what runs finishes");
    let mut anew = world.connect("bare");
    let (ours, theirs) = (anew.0.local_addr().unwrap().port(), world.proxy.addr("bare").port());
    assert_eq!(anew.status(&get("")), 200);
    assert_eq!(begins(), format!("PROXY TCP4 127.0.0.1 127.0.0.1 {ours} {theirs}"));
}
