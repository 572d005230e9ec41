//! WebSockets over HTTP/2: extended CONNECT (RFC 8441) toward us, an upgrade of ours toward the app.

use super::support::h2::{self, H2};
use super::*;

fn connect(path: &str) -> Vec<(&str, &str)> {
    vec![
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":authority", "wiki.localhost"),
        (":path", path),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
        ("origin", "https://wiki.localhost"),
    ]
}

fn h2(world: &World) -> H2 {
    H2::connect(&world.proxy, &world.lab, "wiki.localhost", None)
}

/// The statuses of these streams' heads, in their order.
fn answered<const N: usize>(h2: &mut H2, streams: [u32; N]) -> [u16; N] {
    let mut statuses = [0; N];
    while statuses.contains(&0) {
        let frame = h2.read().expect("an answer");
        if let (h2::HEADERS, Some(at)) = (frame.kind, streams.iter().position(|one| *one == frame.stream)) {
            statuses[at] = h2::status(&frame.payload);
        }
        assert!(frame.kind != h2::RST_STREAM, "{frame:?} {statuses:?}");
    }
    statuses
}

fn data(h2: &mut H2, stream: u32, n: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while got.len() < n {
        let frame = h2.read().expect("data");
        assert!(frame.kind != h2::RST_STREAM, "{frame:?}");
        if frame.kind == h2::DATA && frame.stream == stream {
            got.extend(frame.payload);
        }
    }
    got
}

#[test]
fn browsers_are_told_that_they_may_keep_websockets_on_their_connection() {
    let world = World::new(App::echo());
    let mut client = h2(&world);
    let settings = loop {
        let frame = client.read().unwrap();
        if frame.kind == h2::SETTINGS && !frame.payload.is_empty() {
            break frame.payload;
        }
    };
    // SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 section 3).
    assert!(settings.chunks(6).any(|one| one == [0, 8, 0, 0, 0, 1]), "{settings:?}");
}

#[test]
fn a_websocket_over_http2_is_an_upgrade_to_the_app() {
    let world = World::new(App::echo());
    let mut client = h2(&world);
    let streams = [client.open(&connect("/ws?a=b"), false), client.open(&connect("/ws?a=b"), false)];
    assert_eq!(answered(&mut client, streams), [200, 200]);
    for stream in streams {
        client.write(&h2::frame(h2::DATA, 0, stream, b"\x81\x05hello"));
        assert_eq!(data(&mut client, stream, 7), b"\x81\x05hello");
    }
    // Ordinary requests go beside them.
    assert_eq!(world.app.heads().len(), 2);
    let heads = world.app.heads();
    let keys: Vec<_> = heads.iter().map(|head| field(head, "sec-websocket-key").join(",")).collect();
    assert!(keys[0] != keys[1] && keys.iter().all(|key| key.len() == 24), "{keys:?}");
    for head in &heads {
        assert!(head.starts_with("GET /ws?a=b HTTP/1.1\r\n"), "{head}");
        assert_eq!((field(head, "upgrade"), field(head, "connection")), (vec!["websocket".into()], vec!["upgrade".to_owned()]));
        assert_eq!((field(head, "sec-websocket-version"), field(head, "host")), (vec!["13".into()], vec!["wiki.localhost".to_owned()]));
        assert_eq!(field(head, "origin"), ["https://wiki.localhost"]);
        assert!(!head.contains("protocol:") || field(head, "sec-websocket-protocol") == ["chat"], "{head}");
    }
    client.write(&h2::frame(h2::DATA, h2::END_STREAM, streams[0], b""));
    loop {
        let frame = client.read().unwrap();
        if frame.stream == streams[0] && frame.flags & h2::END_STREAM != 0 && frame.kind == h2::DATA {
            break;
        }
    }
    let line = &world.lab.decisions(1)[0];
    assert_eq!((line["status"].as_u64(), line["method"].as_str(), line["bytes_in"].as_u64()), (Some(101), Some("GET"), Some(7)), "{line}");
    assert!(line["error"].is_null(), "{line}");
    client.write(&h2::frame(h2::RST_STREAM, 0, streams[1], &8_u32.to_be_bytes()));
    world.proxy.metric_reaches("vestibule_requests_total", &[("status", "101"), ("app", "wiki")], 2.0);
}

#[test]
fn nothing_but_an_agreed_websocket_becomes_a_tunnel() {
    let app = App::start(|head, mut peer| {
        let answer = match head.split(' ').nth(1).unwrap_or_default() {
            "/page" => "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\npage",
            "/old" => "HTTP/1.1 426 Upgrade Required\r\nConnection: close\r\nContent-Length: 3\r\n\r\nold",
            _ => {
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
            }
        };
        peer.write(answer.as_bytes());
        assert!(peer.rest().is_empty(), "not a byte of the client's");
    });
    let world = World::new(app);
    let mut client = h2(&world);
    // By a 200 the client would take its WebSocket for open; and our key has another answer than this one.
    for (path, status) in [("/page", 502), ("/old", 426), ("/other-key", 502)] {
        let stream = client.open(&connect(path), false);
        client.write(&h2::frame(h2::DATA, 0, stream, b"GET /smuggled HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n"));
        assert_eq!(client.outcome(stream).status, status, "{path}");
    }
    assert_eq!(world.app.heads().len(), 3);
    for other in ["connect-udp", "webtransport", "h2c", ""] {
        let mut fields = connect("/ws");
        fields[1].1 = other;
        let stream = client.open(&fields, false);
        let outcome = client.outcome(stream);
        assert!(outcome.status == 501 || outcome.reset.is_some(), "{other}: {outcome:?}");
    }
    let stream = client.open(&[(":method", "CONNECT"), (":authority", "wiki.localhost:443")], false);
    assert_eq!(client.outcome(stream).status, 501);
    assert_eq!(world.app.heads().len(), 3);

    let world = World::with(App::echo(), ", upgrades: []", |config| config);
    let mut client = h2(&world);
    let stream = client.open(&connect("/ws"), false);
    client.write(&h2::frame(h2::DATA, 0, stream, b"early"));
    assert_eq!(client.outcome(stream).status, 501);
    assert!(world.app.heads().is_empty());
}

#[test]
fn a_tunnel_ends_with_its_connection() {
    let world = World::new(App::echo());
    let mut client = h2(&world);
    let stream = client.open(&connect("/ws"), false);
    assert_eq!(answered(&mut client, [stream]), [200]);
    drop(client);
    world.proxy.metric_reaches("vestibule_requests_total", &[("status", "101")], 1.0);
    world.proxy.metric_reaches("vestibule_connections", &[("listener", "edge")], 0.0);
}
