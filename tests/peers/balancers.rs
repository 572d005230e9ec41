//! PROXY protocol: the client is whom the header names, for everything.

use std::time::{Duration, Instant};

use rustls::StreamOwned;

use super::support::tls_client;
use super::*;

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn line(client: &str) -> String {
    format!("PROXY TCP4 {client} 10.0.0.1 54321 443\r\n")
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

/// Version 2, of TCP over IPv4 from 10.1.2.3.
fn second(tlvs: &[u8]) -> Vec<u8> {
    let block = [&[10, 1, 2, 3, 10, 0, 0, 1, 0xd4, 0x31, 1, 0xbb], tlvs].concat();
    [V2, b"\x21\x11", &u16::try_from(block.len()).unwrap().to_be_bytes(), &block].concat()
}

#[test]
fn the_client_is_whom_the_header_names() {
    let world = World::new();
    // With everything a balancer may add: ALPN, authority, a unique id, padding, TLS.
    let tlvs = [tlv(1, b"http/1.1"), tlv(2, b"wiki.localhost"), tlv(5, b"lb-17"), tlv(4, &[0; 3]), tlv(0x20, &[0, 0, 0, 0, 0])].concat();
    for (n, header) in (1..).zip([line("10.1.2.3").into_bytes(), second(&tlvs), b"PROXY TCP6 ::ffff:10.1.2.3 ::1 1 2\r\n".to_vec()]) {
        let mut peer = world.connect("passed");
        peer.send(&header);
        assert_eq!(peer.status(&get("")), 200, "the office reads");
        let line = world.line(n);
        assert_eq!((&line["peer"], &line["zone"], &line["via"]), (&"10.1.2.3".into(), &"office".into(), &serde_json::json!(["127.0.0.1"])));
        assert_eq!(line["via_id"], if n == 2 { Value::from("lb-17") } else { Value::Null });
        assert_eq!(line["wire"]["syn"], Value::Null, "that is the balancer's");
        assert!(line["wire"]["header_order"].is_string(), "that is the client's");
        let received = world.origin.wait(n).pop().unwrap();
        assert_eq!(received.header("x-forwarded-for"), ["10.1.2.3"]);
        assert_eq!(received.header("forwarded"), ["for=10.1.2.3;proto=http;host=wiki.localhost"]);
    }
    let mut peer = world.connect("passed");
    peer.send(line("10.2.2.3"));
    assert_eq!(peer.status(&get("X-Forwarded-For: 10.1.2.3\r\n")), 403, "another network, whatever it says of itself");
}

/// An app that is told whose each connection is: the line that each of its next `n` connections begins with.
fn told_of(n: usize) -> (World, std::thread::JoinHandle<Vec<String>>) {
    use std::io::{BufRead, BufReader};
    let app = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = app.local_addr().unwrap();
    let heard = std::thread::spawn(move || {
        let hear = |_| {
            let (mut stream, _) = app.accept().unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            assert!(lines.any(|line| line.unwrap().is_empty()), "a request follows");
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").unwrap();
            first
        };
        (0..n).map(hear).collect()
    });
    let apps = format!(
        "\n  - {{name: wiki, owner: knowledge, hosts: [wiki.localhost], rules: [{{name: all, then: forward}}],\n     \
         upstream: {{servers: [\"http://{address}\"], proxy_protocol: v1}}}}"
    );
    (World::with(|config| config.set("apps", &apps)), heard)
}

#[test]
fn an_app_is_told_both_ends_of_the_clients_connection_as_the_balancer_was() {
    let headers = [line("10.2.2.3").into_bytes(), second(&[]), b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n".to_vec()];
    let (world, heard) = told_of(headers.len() + 1);
    for header in headers {
        let mut peer = world.connect("passed");
        peer.send(&header);
        assert_eq!(peer.status(&get("")), 200);
    }
    // Of whom a proxy speaks for, nobody told the ports.
    let mut peer = world.connect("both");
    peer.send(line("10.9.0.1"));
    assert_eq!(peer.status(&get("X-Forwarded-For: 203.0.113.9\r\n")), 200);
    let expected = [
        "PROXY TCP4 10.2.2.3 10.0.0.1 54321 443",
        "PROXY TCP4 10.1.2.3 10.0.0.1 54321 443",
        "PROXY TCP6 2001:db8::7 2001:db8::1 4711 443",
        "PROXY TCP4 203.0.113.9 0.0.0.0 0 0",
    ];
    assert_eq!(heard.join().unwrap(), expected);
}

#[test]
fn a_balancer_that_ended_tls_says_so() {
    let world = World::new();
    let mut peer = world.connect("passed");
    peer.send(second(&tlv(0x20, &[1, 0, 0, 0, 0])));
    assert_eq!(peer.status(&get("")), 200);
    assert_eq!(world.origin.wait(1)[0].header("x-forwarded-proto"), ["https"]);
}

#[test]
fn its_own_connections_are_its_own() {
    let world = World::new();
    let local = [V2, b"\x20\x11\0\x0c", &[10, 1, 2, 3, 10, 0, 0, 1, 0xd4, 0x31, 1, 0xbb]].concat();
    let unspecified = [V2, b"\x21\x00\0\0"].concat();
    for (n, header) in (1..).zip([local, unspecified, b"PROXY UNKNOWN\r\n".to_vec()]) {
        let mut peer = world.connect("passed");
        peer.send(&header);
        assert_eq!(peer.status(&get("")), 403);
        let line = world.line(n);
        assert_eq!((&line["peer"], &line["via"]), (&"127.0.0.1".into(), &Value::Null));
    }
}

#[test]
fn tls_follows_the_header_in_whatever_segments() {
    let world = World::new();
    let laptop = world.lab.device("laptop", "ownership=corporate state=approved");
    for size in [1, 20, 1000] {
        let mut peer = world.connect("passed-tls");
        // The hello right behind the header, in one segment or cut anywhere.
        let mut tls = tls_client(&world.lab, "wiki.localhost", &[b"http/1.1"], Some(&laptop));
        let mut bytes = line("192.0.2.7").into_bytes();
        tls.write_tls(&mut bytes).unwrap();
        bytes.chunks(size).for_each(|part| peer.send(part));
        let mut stream = StreamOwned::new(tls, peer.0);
        stream.write_all(get("Connection: close\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let line = world.line(3);
    assert_eq!((&line["peer"], &line["device"]), (&"192.0.2.7".into(), &"laptop".into()));
    assert!(line["wire"]["ja4"].is_string() && line["wire"]["syn"].is_null(), "{line}");
}

#[test]
fn nobody_else_connects_and_nothing_else_is_taken() {
    let world = World::with(|config| config.set("limits", "{handshake: 500ms, proxy_header: 256}"));
    let mut stranger = world.stranger("passed");
    stranger.send(line("10.1.2.3") + &get(""));
    assert_eq!(stranger.rest(), b"");
    world.rejected("proxy_peer", 1.0);
    let wrong = [
        get("").into_bytes(),
        b"\x16\x03\x01\x00\x05hello".to_vec(),
        b"PROXY TCP4 10.1.2.3 10.0.0.1 1\r\n".to_vec(),
        // Datagrams; a checksum that is wrong; too long, though it is not there yet.
        [V2, b"\x21\x12\0\x0c", &[0; 12]].concat(),
        second(&tlv(3, &[1, 2, 3, 4])),
        second(&tlv(4, &[0; 226])),
        second(&tlv(4, &[0; 226]))[..16].to_vec(),
    ];
    for (n, bytes) in wrong.iter().enumerate() {
        for listener in ["passed", "passed-tls"] {
            let mut peer = world.connect(listener);
            peer.send(bytes);
            assert_eq!(peer.rest(), b"", "{n}: {bytes:?}");
        }
    }
    world.rejected("proxy_header", 14.0);
    let mut allowed = world.connect("passed");
    allowed.send(second(&tlv(4, &[0; 225])));
    assert_eq!(allowed.status(&get("")), 200, "256 bytes");
    // Slow: not within limits.handshake; and one that leaves.
    let mut slow = world.connect("passed-tls");
    slow.send(&line("10.1.2.3")[..10]);
    assert_eq!(slow.rest(), b"");
    world.rejected("proxy_header_timeout", 1.0);
    drop(world.connect("passed"));
    world.rejected("closed", 1.0);
    assert_eq!(world.origin.received().len(), 1);
    assert_eq!(world.lab.decisions(1).len(), 1, "they never became requests");
}

#[test]
fn the_handshakes_time_is_not_given_twice() {
    let world = World::with(|config| config.set("limits", "{handshake: 4s}"));
    let began = Instant::now();
    let mut slow = world.connect("passed-tls");
    let (some, rest) = ("PROXY TCP4 10.1.2.3", " 10.0.0.1 54321 443\r\n\x16");
    slow.send(some);
    std::thread::sleep(Duration::from_secs(3)); // a slow balancer, and then a slow client
    slow.send(rest);
    assert_eq!(slow.rest(), b"");
    world.rejected("handshake_timeout", 1.0);
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}

#[test]
fn a_listener_without_the_key_takes_no_header() {
    let world = World::new();
    let mut peer = world.connect("bare");
    peer.send(line("10.1.2.3") + &get(""));
    assert!(peer.rest().starts_with(b"HTTP/1.1 400"));
    let mut peer = world.connect("plain");
    peer.send([&second(&[])[..], get("").as_bytes()].concat());
    assert!(!peer.rest().windows(4).any(|window| window == b" 200"));
    world.rejected("malformed", 2.0);
    assert!(world.origin.received().is_empty());
}

#[test]
fn each_client_has_its_own_share_of_connections() {
    let world = World::with(|config| config.set("limits", "{connections_per_peer: 2}"));
    let open = |client: &str| {
        let mut peer = world.connect("passed");
        peer.send(line(client));
        peer
    };
    let mut clients: Vec<Peer> = Vec::new();
    for n in 0..5 {
        for _ in 0..2 {
            let mut peer = open(&format!("10.1.0.{n}"));
            assert_eq!(peer.status(&get("")), 200, "client {n}: the balancer's address counts for nobody");
            clients.push(peer);
        }
    }
    let mut third = open("10.1.0.3");
    third.send(get(""));
    assert_eq!(third.rest(), b"");
    world.rejected("connections_per_peer", 1.0);
    // Those that have not said whose they are share the balancer's own.
    let mute = [world.connect("passed"), world.connect("passed")];
    let mut next = open("10.1.0.9");
    next.send(get(""));
    assert_eq!(next.rest(), b"");
    world.rejected("connections_per_peer", 2.0);
    drop(mute);
    eventually("their places are free again", || {
        let mut peer = open("10.1.0.9");
        peer.send(get("Connection: close\r\n"));
        peer.rest().starts_with(b"HTTP/1.1 200").then_some(())
    });
}
