//! Bytes before there is TLS.

use support::tls_client;

use super::*;

/// A client and its first flight: one record.
fn hello(world: &World, alpn: &[&[u8]]) -> (rustls::ClientConnection, Vec<u8>) {
    let mut client = tls_client(&world.lab, "wiki.localhost", alpn, None);
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    (client, bytes)
}

/// The same message in records of so many bytes.
fn in_records(flight: &[u8], size: usize) -> Vec<u8> {
    flight[5..].chunks(size).flat_map(|part| [&[22, 3, 1][..], &u16::try_from(part.len()).unwrap().to_be_bytes(), part].concat()).collect()
}

#[test]
fn garbage_instead_of_tls_is_closed_and_counted() {
    let mut world = World::new(SHORT);
    let cases: [&[u8]; 8] = [
        b"GET / HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\0",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        &[0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10], // SSL 2
        &[22, 3, 1, 0, 0],                              // an empty record
        &[22, 3, 1, 0xff, 0xff, 1, 0, 0, 1],            // longer than a record may be
        &[23, 3, 3, 0, 1, 0],                           // data before any handshake
    ];
    for bytes in cases {
        let answer = raw(world.proxy.addr("edge"), bytes);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400 ") || answer[0] == 21, "{bytes:?}: {answer:?}");
    }
    let explained = raw(world.proxy.addr("edge"), cases[0]);
    assert!(String::from_utf8(explained).unwrap().contains("HTTPS"), "a person who typed http:// is told");
    eventually("nine refusals", || {
        let metrics = world.proxy.metrics();
        let refused = metrics.sum("vestibule_rejected_total", &[("reason", "not_tls")])
            + metrics.sum("vestibule_rejected_total", &[("reason", "malformed_hello")]);
        (refused == 9.0).then_some(())
    });
    world.alive();
}

#[test]
fn a_hello_cut_at_any_byte_ends_its_connection_and_nothing_else() {
    let mut world = World::new(SHORT);
    let (_, flight) = hello(&world, &[b"h2"]);
    for cut in 0..flight.len() {
        let mut stream = world.edge();
        stream.write_all(&flight[..cut]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let got = rest(&mut stream);
        assert!(got.is_empty() || got[0] == 21, "an alert at most: {got:?}");
    }
    let count = flight.len() as f64;
    world.rejected("closed", count);
    let metrics = world.proxy.metrics();
    assert_eq!(metrics.sum("vestibule_tls_handshakes_total", &[("result", "closed")]), count);
    assert_eq!(metrics.sum("vestibule_tls_handshakes_total", &[]), count);
    eventually("no connection is left", || (world.proxy.metrics().sum("vestibule_connections", &[]) == 0.0).then_some(()));
    assert_eq!(world.origin.received().len(), 0);
    world.alive();
}

/// CVE-2026-32305: a hello in fragments must be the same hello to the policy.
#[test]
fn a_hello_in_one_byte_records_has_the_same_fingerprint() {
    let world = World::new(SHORT);
    let mut seen = Vec::new();
    for size in [usize::MAX, 1, 7, 300] {
        let (client, flight) = hello(&world, &[b"http/1.1"]);
        let mut stream = world.edge();
        let bytes = if size == usize::MAX { flight } else { in_records(&flight, size) };
        // Also in segments that end nowhere in particular.
        for part in bytes.chunks(if size == 7 { 11 } else { 4096 }) {
            stream.write_all(part).unwrap();
        }
        let mut tls = rustls::StreamOwned::new(client, stream);
        tls.write_all(b"GET / HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        tls.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "records of {size}: {answer}");
        seen.push(world.lab.decisions(seen.len() + 1).pop().unwrap()["wire"].clone());
    }
    let ja4 = seen[0]["ja4"].as_str().unwrap();
    assert!(ja4.starts_with("t13d") && ja4.len() == 36, "{ja4}");
    for wire in &seen {
        assert_eq!((&wire["ja4"], &wire["ja4_stable"]), (&seen[0]["ja4"], &seen[0]["ja4_stable"]));
    }
}

#[test]
fn a_hello_over_the_cap_is_closed_at_once() {
    let mut world = World::new("{client_hello: 4KiB, handshake: 20s}");
    let names: Vec<Vec<u8>> = (0..100).map(|i| vec![b'a' + (i % 26) as u8; 100]).collect();
    let alpn: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    let (_, flight) = hello(&world, &alpn);
    assert!(flight.len() > 10_000);
    for bytes in [flight.clone(), in_records(&flight, 1), flight[..9].to_vec()] {
        let begun = Instant::now();
        let mut stream = world.edge();
        let _ = stream.write_all(&bytes);
        rest(&mut stream);
        assert!(begun.elapsed() < Duration::from_secs(4), "its length is said in the first bytes");
    }
    world.rejected("hello_too_large", 3.0);
    let (_, flight) = hello(&world, &[b"h2"]);
    assert!(flight.len() < 4096);
    world.alive();
}

#[test]
fn a_hello_that_takes_its_time_is_closed_by_the_handshake_limit() {
    let mut world = World::new(SHORT);
    let (_, flight) = hello(&world, &[b"h2"]);
    let begun = Instant::now();
    let mut silent = world.edge();
    let mut half = world.edge();
    half.write_all(&flight[..flight.len() / 2]).unwrap();
    // A whole hello, and then nothing more.
    let mut stopped = world.edge();
    stopped.write_all(&flight).unwrap();
    // A byte now and then does not help.
    let mut drip = world.edge();
    for byte in &flight {
        if drip.write_all(&[*byte]).is_err() || begun.elapsed() > Duration::from_secs(5) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    rest(&mut drip);
    assert!(begun.elapsed() < Duration::from_secs(4), "closed after {:?}", begun.elapsed());
    for stream in [&mut silent, &mut half, &mut stopped] {
        rest(stream);
    }
    within_a_second(begun);
    world.rejected("handshake_timeout", 4.0);
    world.alive();
}

#[test]
fn garbage_after_the_hello_fails_the_handshake() {
    let mut world = World::new(SHORT);
    let (_, flight) = hello(&world, &[b"h2"]);
    let tails: [&[u8]; 4] =
        [b"\xff\xff\xff\xff\xff\xff\xff\xff", b"GET / HTTP/1.1\r\n\r\n", &[23, 3, 3, 0, 1, 0], &[23, 3, 3, 0, 3, 1, 2, 3]];
    for tail in tails {
        let mut stream = world.edge();
        stream.write_all(&flight).unwrap();
        // Its answer has begun to come.
        stream.read_exact(&mut [0; 5]).unwrap();
        stream.write_all(tail).unwrap();
        rest(&mut stream);
    }
    // In one piece with the hello, at the latest the handshake's limit ends it.
    raw(world.proxy.addr("edge"), &[&flight[..], tails[0]].concat());
    // A hello of 1999: sound, and with nothing in common.
    let mut old = [&[22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 1][..], &[7; 32], &[0, 0, 2, 0, 5, 1, 0]].concat();
    let mut stream = world.edge();
    stream.write_all(&old).unwrap();
    assert_eq!(rest(&mut stream).first(), Some(&21), "an alert says so");
    world.rejected("handshake_failed", 5.0);
    // An ALPN that nobody speaks, and one whose lengths lie.
    old[10] = 9;
    raw(world.proxy.addr("edge"), &old);
    raw(world.proxy.addr("edge"), &hello(&world, &[b"spdy/1"]).1);
    world.alive();
}

#[test]
fn a_client_that_leaves_in_its_handshake_is_counted() {
    let mut world = World::new(SHORT);
    for _ in 0..20 {
        let (_, flight) = hello(&world, &[b"h2"]);
        let mut stream = world.edge();
        stream.write_all(&flight).unwrap();
        drop(stream);
    }
    world.proxy.metric_reaches("vestibule_tls_handshakes_total", &[], 20.0);
    eventually("no connection is left", || (world.proxy.metrics().sum("vestibule_connections", &[]) == 0.0).then_some(()));
    world.alive();
}
