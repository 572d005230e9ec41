//! WebSockets over HTTP/1.1, on plain sockets and over TLS.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use super::*;

#[test]
fn a_websocket_opens_by_our_own_upgrade_and_carries_bytes_both_ways() {
    let world = World::new(App::echo());
    let mut client = world.plain();
    client.write(OPEN.as_bytes());
    let head = client.head().unwrap();
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert_eq!((field(&head, "upgrade"), field(&head, "connection")), (vec!["websocket".into()], vec!["upgrade".to_owned()]), "{head}");
    assert_eq!(field(&head, "sec-websocket-accept"), ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]);
    assert_eq!(field(&head, "sec-websocket-protocol"), ["chat"]);
    assert!(field(&head, "transfer-encoding").is_empty() && field(&head, "content-length").is_empty(), "{head}");
    // Bytes that would mean something to HTTP mean nothing here.
    let parts = [&b"\x81\x05hello"[..], b"GET /#admin HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", &[0xff; 100_000]];
    for part in parts {
        let mut writer = client.stream.try_clone().unwrap();
        let sent = part.to_vec();
        let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
        assert!(client.take(part.len()) == part);
        writing.join().unwrap();
    }
    let sent = world.app.heads();
    assert_eq!(sent.len(), 1);
    let head = &sent[0];
    assert!(head.starts_with("GET /ws?a=b HTTP/1.1\r\n"), "{head}");
    assert_eq!((field(head, "connection"), field(head, "upgrade")), (vec!["upgrade".into()], vec!["websocket".to_owned()]), "{head}");
    assert_eq!((field(head, "sec-websocket-key"), field(head, "sec-websocket-version")), (vec![KEY.into()], vec!["13".to_owned()]));
    assert_eq!(
        (field(head, "vestibule-decision"), field(head, "sec-websocket-protocol")),
        (vec!["forward".into()], vec!["chat".to_owned()])
    );
    assert!(world.lab.decisions(0).is_empty(), "its line is written when it ends");
    assert_eq!(world.proxy.metrics().sum("vestibule_requests_total", &[]), 0.0);

    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), b"", "the app's end is the client's");
    let line = &world.lab.decisions(1)[0];
    let moved = parts.concat().len() as u64;
    assert_eq!(
        (line["status"].as_u64(), line["bytes_in"].as_u64(), line["bytes_out"].as_u64()),
        (Some(101), Some(moved), Some(moved)),
        "{line}"
    );
    assert!(line["error"].is_null() && line["upstream_ms"].is_number() && line["path"] == "/ws", "{line}");
    let metrics = world.proxy.metric_reaches("vestibule_requests_total", &[("status", "101"), ("app", "wiki")], 1.0);
    assert_eq!(metrics.sum("vestibule_bytes_total", &[("direction", "in")]), moved as f64);
    world.proxy.metric_reaches("vestibule_connections", &[("listener", "plain")], 0.0);
}

#[test]
fn bytes_behind_either_head_belong_to_the_tunnel() {
    let app = App::start(|head, mut peer| {
        // In one write, so that they are read with the head.
        peer.write([switched(head).as_bytes(), b"\x81\x02hi"].concat().as_slice());
        let early = peer.take(15);
        peer.write(&early);
        while peer.more().is_some() {}
    });
    let world = World::new(app);
    let mut client = world.plain();
    client.write([OPEN.as_bytes(), b"#GET / HTTP/1\n\n"].concat().as_slice());
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.take(4), b"\x81\x02hi");
    assert_eq!(client.take(15), b"#GET / HTTP/1\n\n", "untouched");
    let mut tls = world.tls();
    tls.send([OPEN.as_bytes(), b"#GET / HTTP/1\n\n"].concat().as_slice());
    let mut got = Vec::new();
    while !got.ends_with(b"#GET / HTTP/1\n\n") {
        let part = tls.read_more();
        assert!(!part.is_empty(), "{}", String::from_utf8_lossy(&got));
        got.extend(part);
    }
    assert!(got.ends_with(b"\r\n\r\n\x81\x02hi#GET / HTTP/1\n\n"), "{}", String::from_utf8_lossy(&got));
}

#[test]
fn a_tunnel_over_tls_ends_with_tls_own_goodbye() {
    let app = App::start(|head, mut peer| {
        peer.write(switched(head).as_bytes());
        peer.write(&frame(8, &[3, 232]));
    });
    let world = World::new(app);
    let mut tls = world.tls();
    tls.send(OPEN.as_bytes());
    let mut got = Vec::new();
    // An error, not an end, were the goodbye missing.
    tls.stream.read_to_end(&mut got).unwrap();
    assert!(got.ends_with(&frame(8, &[3, 232])));
    drop(tls);
    assert!(world.lab.decisions(1)[0]["error"].is_null());
}

#[test]
fn each_side_may_end_before_the_other() {
    let app = App::start(|head, mut peer| {
        peer.write(switched(head).as_bytes());
        let all = peer.rest();
        peer.write(format!("{} bytes", all.len()).as_bytes());
        peer.stream.shutdown(Shutdown::Both).unwrap();
    });
    let world = World::new(app);
    let mut client = world.tunnel();
    client.write(&[7; 300_000]);
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), b"300000 bytes");
    let line = &world.lab.decisions(1)[0];
    assert_eq!(
        (line["bytes_in"].as_u64(), line["bytes_out"].as_u64(), &line["error"]),
        (Some(300_000), Some(12), &serde_json::Value::Null),
        "{line}"
    );
}

#[test]
fn who_breaks_off_is_named_and_the_other_side_gets_what_had_come() {
    let app = App::start(|head, mut peer| {
        peer.write(switched(head).as_bytes());
        let word = peer.take(3);
        peer.write(b"last words");
        if word == b"app" {
            // A reset: bytes are unread.
            peer.stream.set_nonblocking(true).unwrap();
            reset(&peer.stream);
            drop(peer);
        } else {
            while peer.more().is_some() {}
        }
    });
    let world = World::new(app);
    let mut client = world.tunnel();
    client.write(b"app");
    let got = client.rest();
    assert!(b"last words".starts_with(got.as_slice()), "{got:?}");
    assert_eq!(world.lab.decisions(1)[0]["error"], "upstream.cut");
    let mut client = world.tunnel();
    client.write(b"cli");
    assert_eq!(client.take(10), b"last words");
    reset(&client.stream);
    drop(client);
    assert_eq!(world.lab.decisions(2)[1]["error"], "client.cut");
}

fn reset(stream: &std::net::TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn who_does_not_read_holds_the_other_side_back_and_memory_is_flat() {
    let app = App::start(|head, mut peer| {
        peer.write(switched(head).as_bytes());
        let word = peer.take(4);
        if word == b"send" {
            // As much as goes, until the test has seen enough.
            let part = [1; 1 << 16];
            while peer.stream.write_all(&part).is_ok() {}
        } else {
            // Reads nothing; the client ends it.
            std::thread::park_timeout(DEADLINE);
        }
    });
    let world = World::new(app);
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", world.proxy.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    drop(world.tunnel());
    let before = memory();
    let mut open = Vec::new();
    for word in [b"send", b"keep"].repeat(8) {
        let mut client = world.tunnel();
        client.write(word);
        if word == b"keep" {
            client.stream.set_nonblocking(true).unwrap();
            // Until no more goes: what is taken is in the sockets' buffers, and they are bounded.
            let part = [1; 1 << 16];
            let mut sent = 0;
            let mut still = 0;
            while still < 20 {
                match client.stream.write(&part) {
                    Ok(n) => (sent, still) = (sent + n, 0),
                    Err(_) => {
                        still += 1;
                        std::thread::sleep(Duration::from_millis(10)); // between two looks, not instead of one
                    }
                }
                assert!(sent < 64 << 20, "nobody holds the client back");
            }
        }
        open.push(client);
    }
    let grown = memory().saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB");
}

#[test]
fn a_tunnel_in_which_nothing_moves_ends_and_one_in_which_something_moves_does_not() {
    let world = World::with(App::echo(), "", |config| config.replace("tunnel: 20s", "tunnel: 1s"));
    let (mut quiet, mut busy) = (world.tunnel(), world.tunnel());
    let begun = Instant::now();
    let watched = std::thread::spawn(move || {
        assert_eq!(quiet.rest(), b"");
        begun.elapsed()
    });
    while begun.elapsed() < Duration::from_millis(2500) {
        busy.write(b"x");
        assert_eq!(busy.take(1), b"x");
        std::thread::sleep(Duration::from_millis(100)); // between two words
    }
    let took = watched.join().unwrap();
    assert!(took > Duration::from_millis(700) && took < Duration::from_secs(3), "{took:?}");
    world.cut("tunnel.idle", 1.0);
    assert_eq!(world.lab.decisions(1)[0]["error"], "tunnel.idle");
}

#[test]
fn restrictions_hold_in_a_tunnel() {
    let restrictions = "{short: {max_stream: 1s}, small: {max_response: 1KiB, max_body: 2KiB}, slow: {bandwidth: 64KiB/s}}";
    let start = |with: &str| {
        let app = App::echo();
        let lab = Lab::new();
        let rule = format!("{{name: some, then: restrict, with: [{with}]}}");
        let proxy = lab.start(&config(&app, "", &rule).set("restrictions", restrictions));
        World { app, lab, proxy }
    };
    let world = start("short");
    let mut client = world.tunnel();
    let begun = Instant::now();
    client.write(b"once");
    assert_eq!(client.take(4), b"once");
    client.rest();
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    world.cut("restrict.max_stream", 1.0);
    let line = &world.lab.decisions(1)[0];
    assert_eq!((&line["error"], line["status"].as_u64(), line["bytes_in"].as_u64()), (&"restrict.max_stream".into(), Some(101), Some(4)));
    assert_eq!(field(&world.app.heads()[0], "vestibule-restrictions"), ["short"]);

    let world = start("small");
    let mut client = world.tunnel();
    client.write(&[1; 1500]);
    assert_eq!(client.rest().len(), 1024, "what fits, and no more");
    world.cut("restrict.max_response", 1.0);
    let world = start("small");
    let mut client = world.tunnel();
    for _ in 0..4 {
        client.write(&[1; 800]);
    }
    client.rest();
    assert_eq!(world.proxy.metrics().sum("vestibule_streams_cut_total", &[]), 1.0);

    let world = start("slow");
    let mut client = world.tunnel();
    let begun = Instant::now();
    client.write(&[1; 64 << 10]);
    assert_eq!(client.take(64 << 10).len(), 64 << 10);
    // Both ways together: 128 KiB at 64 KiB/s, of which a tenth may run ahead.
    assert!(begun.elapsed() > Duration::from_millis(1500), "{:?}", begun.elapsed());
}

#[test]
fn a_thousand_tunnels_at_once() {
    let world = World::new(App::echo());
    let mut open: Vec<Peer> = (0..1000).map(|_| world.tunnel()).collect();
    for round in 0..3_u8 {
        for client in &mut open {
            client.write(&[round; 100]);
        }
        for client in &mut open {
            assert_eq!(client.take(100), [round; 100]);
        }
    }
    drop(open);
    world.proxy.metric_reaches("vestibule_requests_total", &[("status", "101")], 1000.0);
    assert_eq!(world.proxy.metrics().sum("vestibule_panics_total", &[]), 0.0);
}
