//! Requests that are too long, too slow, or never whole.

use super::*;

#[test]
fn a_head_that_never_ends_is_cut_off() {
    let mut world = World::new(SHORT);
    for end in [&b"X-Line: 0123456789\r\n"[..], b"x", b"X: y\r\n z"] {
        let mut stream = world.plain();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: wiki.localhost\r\nX: y").unwrap();
        let block = end.repeat(4096 / end.len());
        let mut sent = 0;
        while sent < 64 << 20 && stream.write_all(&block).is_ok() {
            sent += block.len();
        }
        assert!(sent < 32 << 20, "the proxy took {sent} bytes of one head");
        rest(&mut stream);
    }
    let count = eventually("three heads are counted", || {
        let metrics = world.proxy.metrics();
        let count = metrics.sum("vestibule_rejected_total", &[]);
        (count >= 3.0).then_some(count)
    });
    assert_eq!(count, 3.0);
    assert_eq!(world.origin.received().len(), 0);
    world.alive();
}

#[test]
fn a_head_beyond_its_limits_is_431() {
    let mut world = World::new("{idle: 5s}");
    let get = |lines: &str| {
        let answer = raw(
            world.proxy.addr("plain"),
            format!("GET / HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: close\r\n{lines}\r\n").as_bytes(),
        );
        String::from_utf8_lossy(&answer).into_owned()
    };
    for (lines, fits) in [
        ("X: y\r\n".repeat(98), true),
        ("X: y\r\n".repeat(99), false),
        ("X: y\r\n".repeat(500), false),
        (format!("X: {}\r\n", "y".repeat(30 << 10)), true),
        (format!("X: {}\r\n", "y".repeat(33 << 10)), false),
        (format!("X: {}\r\n", "y".repeat(64 << 10)), false),
        (format!("X: {}\r\n", "y".repeat(1 << 10)).repeat(64), false),
    ] {
        let answer = get(&lines);
        let expected = if fits { "HTTP/1.1 200 " } else { "HTTP/1.1 431 " };
        assert!(answer.starts_with(expected), "{} bytes, {} lines: {answer}", lines.len(), lines.lines().count());
    }
    let long = raw(world.proxy.addr("plain"), format!("GET /{} HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n", "x".repeat(64 << 10)).as_bytes());
    assert!(long.starts_with(b"HTTP/1.1 414 ") || long.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&long));
    world.rejected("head_too_large", 6.0);
    assert_eq!(world.origin.received().len(), 2);
    world.alive();
}

#[test]
fn the_same_limits_hold_over_http2() {
    let mut world = World::new("{idle: 5s}");
    let many = |n: usize| vec![("x", "y"); n];
    let long = "y".repeat(16 << 10);
    let ask = |fields: Vec<(&str, &str)>| {
        let mut h2 = world.h2();
        let block = h2::block(&[h2::get("wiki.localhost", "/"), fields].concat());
        let parts: Vec<&[u8]> = block.chunks(16 << 10).collect();
        for (at, part) in parts.iter().enumerate() {
            let kind = if at == 0 { h2::HEADERS } else { h2::CONTINUATION };
            let first = if at == 0 { h2::END_STREAM } else { 0 };
            let flags = if at + 1 == parts.len() { first | h2::END_HEADERS } else { first };
            h2.write(&h2::frame(kind, flags, 1, part));
        }
        h2.outcome(1)
    };
    assert_eq!(ask(many(99)).status, 200);
    for fields in [many(101), many(600), vec![("x", long.as_str()); 3], vec![("x", long.as_str()); 8]] {
        let outcome = ask(fields.clone());
        assert!(outcome.status == 431 || outcome.goaway.is_some_and(|code| code != 0), "{} fields: {outcome:?}", fields.len());
    }
    assert_eq!(world.origin.received().len(), 1);
    world.alive();
}

#[test]
fn a_slow_head_is_cut_however_steadily_it_drips() {
    let mut world = World::new(SHORT);
    let begun = Instant::now();
    let mut stopped = world.plain();
    stopped.write_all(b"GET / HTTP/1.1\r\nHost: wiki").unwrap();
    let mut secret = world.tls();
    secret.send(b"GET / HTTP/1.1\r\nHost: wiki");
    let mut drip = world.plain();
    drip.write_all(b"GET / HTTP/1.1\r\nHost: wiki.localhost\r\nX: ").unwrap();
    while begun.elapsed() < Duration::from_secs(5) && drip.write_all(b"y").is_ok() {
        std::thread::sleep(Duration::from_millis(20));
    }
    rest(&mut drip);
    rest(&mut stopped);
    secret.read_all();
    within_a_second(begun);
    world.rejected("slow_head", 3.0);
    // The second head of a connection as well as the first.
    let begun = Instant::now();
    let mut second = world.tls();
    second.ask("GET / HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n");
    second.send(b"GET / HT");
    assert_eq!(second.read_all(), "");
    within_a_second(begun);
    world.rejected("slow_head", 4.0);
    world.alive();
}

#[test]
fn a_connection_without_a_request_ends() {
    let mut world = World::new(SHORT);
    let begun = Instant::now();
    let mut silent = world.plain();
    let mut handshaken = world.tls();
    let mut used = world.tls();
    used.ask("GET / HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n");
    let mut h2 = world.h2();
    let mut h2_used = world.h2();
    assert_eq!(h2_used.get("wiki.localhost", "/").status, 200);
    assert_eq!(rest(&mut silent), b"");
    assert_eq!((handshaken.read_all(), used.read_all()), (String::new(), String::new()));
    assert_eq!((h2.until_closed(), h2_used.until_closed()), (Some(0), Some(0)), "GOAWAY without an error");
    within_a_second(begun);
    world.alive();
}

#[test]
fn a_client_that_reads_nothing_is_cut_and_costs_no_memory() {
    let mut world = World::new(SHORT);
    world.flat(|| {
        let request = b"GET /large HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n";
        let mut plain = world.plain();
        plain.write_all(request).unwrap();
        let mut tls = world.tls();
        tls.send(request);
        world.rejected("slow_read", 2.0);
    });
    world.alive();
}

/// A window of zero stops a stream as a full socket stops a connection, and nothing shows in the socket.
#[test]
fn a_stream_whose_window_stays_shut_is_cut() {
    let mut world = World::new(SHORT);
    for path in ["/large", "/good"] {
        // INITIAL_WINDOW_SIZE 0.
        let mut h2 = H2::with_settings(&world.proxy, &world.lab, ("wiki.localhost", None), &[(1, 0), (4, 0)]);
        let begun = Instant::now();
        h2.open(&h2::get("wiki.localhost", path), true);
        h2.until_closed();
        within_a_second(begun);
    }
    world.rejected("slow_read", 2.0);
    eventually("no connection is left", || (world.proxy.metrics().sum("vestibule_connections", &[]) == 0.0).then_some(()));
    world.alive();
}

#[test]
fn a_body_that_stops_coming_is_given_up() {
    let mut world = World::new(SHORT);
    let begun = Instant::now();
    let mut stream = world.plain();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: wiki.localhost\r\nContent-Length: 100\r\n\r\nhalf").unwrap();
    let mut chunked = world.plain();
    chunked.write_all(b"POST / HTTP/1.1\r\nHost: wiki.localhost\r\nTransfer-Encoding: chunked\r\n\r\n4;").unwrap();
    let mut h2 = world.h2();
    let id = h2.open(&h2::post("wiki.localhost", "/"), false);
    h2.write(&h2::frame(h2::DATA, 0, id, b"half"));
    for stream in [&mut stream, &mut chunked] {
        let answer = String::from_utf8(rest(stream)).unwrap();
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let outcome = h2.outcome(id);
    assert!(matches!(outcome.status, 400 | 408), "{outcome:?}");
    within_a_second(begun);
    assert_eq!(world.origin.received().len(), 0, "no half request is a request");
    world.alive();
}

#[test]
fn a_refused_request_does_not_wait_for_its_body() {
    let mut world = World::new(SHORT);
    let begun = Instant::now();
    let mut stream = world.plain();
    stream.write_all(b"POST /.. HTTP/1.1\r\nHost: nobody.localhost\r\nContent-Length: 100000\r\n\r\nhalf").unwrap();
    let answer = String::from_utf8(rest(&mut stream)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(4));
    world.alive();
}
