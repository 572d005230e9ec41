//! Reloads that change who is believed and what apps are told, with connections that are there already.

use rustls::StreamOwned;

use super::support::h2::{GOAWAY, H2, PREFACE, settings};
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
