//! Streams that last: decided anew when what let them in changes, and told when the proxy ends.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::support::h2::{self, H2};
use super::*;

/// By path: a tunnel, events of which one comes and no more, a download without end.
fn app() -> App {
    App::start(|head, mut peer| match head.split(' ').nth(1).unwrap_or_default() {
        "/events" => {
            peer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n");
            while peer.more().is_some() {}
        }
        "/download" => {
            peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n");
            while peer.stream.write_all(&[b'x'; 1 << 14]).is_ok() {}
        }
        _ => {
            peer.write(switched(head).as_bytes());
            while let Some(part) = peer.more() {
                peer.write(&part);
            }
        }
    })
}

const FIT: &str = "ownership=corporate state=approved posture.os_supported=ok posture.screen_lock=ok";

/// Reads until the other side ends; when.
fn end_of(mut tls: RawTls) -> std::thread::JoinHandle<Instant> {
    std::thread::spawn(move || {
        while !tls.read_more().is_empty() {}
        Instant::now()
    })
}

fn open(world: &World, path: &str, device: &vestibule::cli::lab_ca::Issued) -> RawTls {
    let mut tls = RawTls::connect(&world.proxy, &world.lab, "wiki.localhost", Some(device));
    tls.send(
        OPEN.replace("/ws?a=b", path)
            .replace(if path == "/ws" { "\0" } else { "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" }, "")
            .as_bytes(),
    );
    let mut got = Vec::new();
    while !got.windows(4).any(|four| four == b"\r\n\r\n") {
        got.extend(tls.read_more());
    }
    let status = if path == "/ws" { "HTTP/1.1 101 " } else { "HTTP/1.1 200 " };
    assert!(got.starts_with(status.as_bytes()), "{}", String::from_utf8_lossy(&got));
    tls
}

#[test]
fn a_device_that_is_suspended_loses_its_open_streams_and_no_other_does() {
    let lab = Lab::new();
    let app = app();
    // Silence alone ends none of them before the device is suspended, however slow the machine is.
    let config = config(&app, "", "{name: fit, when: {tier: \">= healthy\"}, then: forward}, {name: rest, then: block}")
        .replace("idle: 2s", "idle: 60s");
    lab.configure(&config);
    let (lost, kept) = (lab.device("lost", FIT), lab.device("kept", FIT));
    let proxy = lab.start(&config);
    let world = World { app, lab, proxy };
    let stays = [open(&world, "/ws", &kept), open(&world, "/events", &kept)];
    let ends = ["/ws", "/events", "/download"].map(|path| (path, end_of(open(&world, path, &lost))));
    let mut multiplexed = H2::connect(&world.proxy, &world.lab, "wiki.localhost", Some(&lost));
    let events = multiplexed.open(&h2::get("wiki.localhost", "/events"), true);
    let tunnel = multiplexed.open(
        &[(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":authority", "wiki.localhost"), (":path", "/ws")],
        false,
    );
    for _ in 0..2 {
        while multiplexed.read().unwrap().kind != h2::HEADERS {}
    }
    // Young ones are looked after as well.
    std::thread::sleep(Duration::from_millis(300));
    world.lab.vestibule(&["devices", "-c", "vestibule.yaml", "revoke", "lost"]).succeeded();
    let revoked = Instant::now();
    for (path, end) in ends {
        let took = end.join().unwrap().saturating_duration_since(revoked);
        assert!(took < Duration::from_secs(10), "{path}: {took:?}");
    }
    let mut over = Vec::new();
    while over.len() < 2 {
        let frame = multiplexed.read().expect("the connection itself stays");
        let ended = frame.kind == h2::RST_STREAM || (frame.kind == h2::DATA && frame.flags & h2::END_STREAM != 0);
        if ended && !over.contains(&frame.stream) {
            over.push(frame.stream);
        }
    }
    over.sort_unstable();
    assert_eq!(over, [events, tunnel]);
    let lines = world.lab.decisions(5);
    assert!(lines.iter().all(|line| line["error"] == "decision.changed" && line["device"] == "lost"), "{lines:?}");
    world.cut("decision.changed", 5.0);
    let [mut tunnel, _events] = stays;
    tunnel.send(b"still here");
    assert_eq!(tunnel.read_more(), b"still here");
}

#[test]
fn a_reload_ends_what_the_new_rules_would_not_let_in() {
    let world = World::with(app(), "", |config| {
        config.replace("{name: all, then: forward}", "{name: closed, when: {http.path: /none}, then: block}, {name: all, then: forward}")
    });
    let one = |path: &str| {
        let mut client = world.plain();
        client.write(OPEN.replace("/ws?a=b", path).as_bytes());
        assert!(client.head().unwrap().starts_with("HTTP/1.1 101 "));
        client
    };
    let (mut kept, mut closed) = (one("/kept"), one("/closed"));
    let yaml = config(&world.app, "", "{name: closed, when: {http.path: /closed}, then: block}, {name: all, then: forward}");
    let reloaded = Instant::now();
    world.lab.configure(&yaml);
    world.proxy.signal(libc::SIGHUP);
    assert_eq!(closed.rest(), b"");
    assert!(reloaded.elapsed() < Duration::from_secs(5), "{:?}", reloaded.elapsed());
    world.cut("decision.changed", 1.0);
    kept.write(b"still here");
    assert_eq!(kept.take(10), b"still here");
}

#[test]
fn a_reload_that_permits_other_methods_ends_tunnels_that_no_longer_may_be() {
    let rules = "{name: other, when: {http.path: /other}, then: forward}, {name: all, then: restrict, with: [some]}";
    let lab = Lab::new();
    let app = app();
    let with = |methods: &str| config(&app, "", rules).set("restrictions", &format!("{{some: {{methods: [{methods}]}}}}"));
    let yaml = with("GET, POST");
    let proxy = lab.start(&with("GET, CONNECT"));
    let world = World { app, lab, proxy };
    let mut closed = world.tunnel();
    let mut kept = world.plain();
    kept.write(OPEN.replace("/ws?a=b", "/other").as_bytes());
    assert!(kept.head().unwrap().starts_with("HTTP/1.1 101 "));
    world.lab.configure(&yaml);
    world.proxy.signal(libc::SIGHUP);
    assert_eq!(closed.rest(), b"");
    world.cut("decision.changed", 1.0);
    kept.write(b"still here");
    assert_eq!(kept.take(10), b"still here");
    let mut anew = world.plain();
    anew.write(OPEN.as_bytes());
    assert!(anew.head().unwrap().starts_with("HTTP/1.1 403 "), "as it would be if it began now");
}

#[test]
fn whom_a_proxy_spoke_for_loses_its_streams_when_the_proxy_is_believed_no_more() {
    let lab = Lab::new();
    let app = app();
    let config = config(&app, "", "{name: office, when: {net.zone: office}, then: forward}, {name: rest, then: block}")
        .set("networks", "{office: [10.1.0.0/16, 127.0.0.0/8]}")
        .set("listeners", "\n  - {name: plain, bind: [\"127.0.0.1:0\"], forwarded: {trusted: [127.0.0.1]}}");
    let proxy = lab.start(&config);
    let world = World { app, lab, proxy };
    let one = |path: &str, fields: &str| {
        let mut client = world.plain();
        client.write(OPEN.replace("/ws?a=b", path).replace("\r\n\r\n", &format!("\r\n{fields}\r\n")).as_bytes());
        let head = client.head().unwrap();
        assert!(head.starts_with("HTTP/1.1 101 ") || head.starts_with("HTTP/1.1 200 "), "{head}");
        client
    };
    let mut itself = one("/ws", "");
    let mut spoken_for = one("/ws", "X-Forwarded-For: 10.1.2.3\r\n");
    world.lab.configure(&config.replace("trusted: [127.0.0.1]", "trusted: [10.9.0.0/16]"));
    world.proxy.signal(libc::SIGHUP);
    assert_eq!(spoken_for.rest(), b"");
    world.cut("decision.changed", 1.0);
    itself.write(b"still here");
    assert_eq!(itself.take(10), b"still here");
}

#[test]
fn whose_connection_a_balancer_told_loses_its_streams_when_the_balancer_is_believed_no_more() {
    let lab = Lab::new();
    let app = app();
    let config = config(&app, "", "{name: all, then: forward}")
        .set("listeners", "\n  - {name: plain, bind: [\"127.0.0.1:0\"], proxy_protocol: {trusted: [127.0.0.1]}}");
    let proxy = lab.start(&config);
    let world = World { app, lab, proxy };
    let mut client = world.plain();
    client.write(format!("PROXY TCP4 10.1.2.3 10.0.0.1 54321 443\r\n{OPEN}").as_bytes());
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101 "));
    world.lab.configure(&config.replace("trusted: [127.0.0.1]", "trusted: [10.9.0.0/16]"));
    world.proxy.signal(libc::SIGHUP);
    assert_eq!(client.rest(), b"");
    world.cut("decision.changed", 1.0);
}

#[test]
fn websockets_are_told_that_the_proxy_ends() {
    let (half, halves) = channel::<()>();
    let halves = Mutex::new(halves);
    // A frame whose second half waits; then what the client says.
    let app = App::start(move |head, mut peer| {
        peer.write(switched(head).as_bytes());
        if head.starts_with("GET /slow") {
            peer.write(&frame(1, b"two halves")[..5]);
            halves.lock().unwrap().recv().unwrap();
            peer.write(&frame(1, b"two halves")[5..]);
            peer.write(&frame(1, b"too late"));
        }
        // The client's Close comes to the app, which ends the connection.
        assert_eq!(peer.take(8), [0x88, 0x82, 1, 2, 3, 4, 2, 235]);
        peer.write(&frame(8, &[3, 233]));
    });
    // One worker tells all its streams before any goes on.
    let mut world = World::with(app, "", |config| config.set("limits", "{drain: 10s}").set("workers", "1"));
    let mut quiet = world.tunnel();
    let mut slow = world.plain();
    slow.write(OPEN.replace("/ws?a=b", "/slow").as_bytes());
    assert!(slow.head().unwrap().starts_with("HTTP/1.1 101 "));
    assert_eq!(slow.take(5), frame(1, b"two halves")[..5]);
    world.proxy.signal(libc::SIGTERM);
    let close = frame(8, &[3, 233]);
    assert_eq!(quiet.take(4), close);
    half.send(()).unwrap();
    assert_eq!(slow.take(7 + 4), [&frame(1, b"two halves")[5..], &close].concat(), "between two frames");
    for mut client in [quiet, slow] {
        client.write(&[0x88, 0x82, 1, 2, 3, 4, 2, 235]);
        assert_eq!(client.rest(), b"", "behind a Close nothing comes");
    }
    assert_eq!(world.proxy.ended().code(), Some(0));
    let lines = world.lab.decisions(2);
    assert!(lines.iter().all(|line| line["error"].is_null() && line["status"] == 101), "{lines:?}");
}

#[test]
fn a_websocket_that_does_not_heed_is_cut_at_the_limit() {
    let mut world = World::with(App::echo(), "", |config| config.set("limits", "{drain: 1s}"));
    let mut client = world.tunnel();
    let begun = Instant::now();
    world.proxy.signal(libc::SIGTERM);
    assert_eq!(client.rest(), frame(8, &[3, 233]));
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(700), "{took:?}");
    assert_eq!(world.proxy.ended().code(), Some(0));
    assert_eq!(world.lab.decisions(1)[0]["error"], "drain");
}
