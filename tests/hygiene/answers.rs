//! What an app answers, or does not, and what the client is told.

use std::time::Instant;

use support::{Curl, RawTls};

use super::*;

/// Answers by what the path asks for.
fn moods(received: &Received) -> Reply {
    let line = received.line();
    let path = line.split(' ').nth(1).unwrap();
    let close = |bytes: &str| Reply::Close(bytes.as_bytes().to_vec());
    let keep = |bytes: &str| Reply::Bytes(bytes.as_bytes().to_vec());
    match path {
        "/garbage" => close("\u{1}\u{2}\u{3} garbage\r\n\r\n"),
        "/garbage-more" => close(&"x".repeat(200_000)),
        "/http09" => close("just text\n"),
        "/version" => close("HTTP/3.7 200 OK\r\nContent-Length: 0\r\n\r\n"),
        "/status" => close("HTTP/1.1 9 OK\r\nContent-Length: 0\r\n\r\n"),
        "/no-colon" => keep("HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 2\r\n\r\nok"),
        "/folded" => keep("HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok"),
        "/nul" => keep("HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok"),
        "/both" => keep("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        "/lengths" => keep("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 20\r\n\r\nok"),
        "/length" => keep("HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok"),
        "/coding" => keep("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        "/gzip" => keep("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        "/endless" => Reply::Hang([b"HTTP/1.1 200 OK\r\n".to_vec(), b"X-Line: 0123456789\r\n".repeat(20_000)].concat()),
        "/many" => keep(&format!("HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\nok", "X: y\r\n".repeat(300))),
        "/switch" => Reply::Hang(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw".to_vec()),
        "/nothing" => Reply::Close(Vec::new()),
        "/reset" => Reply::Reset(Vec::new()),
        "/half-head" => close("HTTP/1.1 200 OK\r\nContent-Le"),
        "/silent" => Reply::Hang(Vec::new()),
        "/slow-head" => Reply::Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n".to_vec()),
        "/reset-length" => Reply::Reset(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec()),
        "/cut-length" => close("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
        "/cut-chunked" => close("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        "/cut-in-chunk" => close("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf"),
        "/bad-chunk" => close("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\nevil\r\n0\r\n\r\n"),
        "/still" => Reply::Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec()),
        "/to-the-end" => close("HTTP/1.1 200 OK\r\n\r\nall of it"),
        "/behind" => keep("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
        "/early" => keep(
            "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        "/no-content" => keep("HTTP/1.1 204 No Content\r\n\r\n"),
        "/not-modified" => keep("HTTP/1.1 304 Not Modified\r\nContent-Length: 50\r\nETag: \"x\"\r\n\r\n"),
        "/hops" => keep(
            "HTTP/1.1 200 OK\r\nConnection: X-Hop, close-not\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nX-End: 2\r\nContent-Length: 2\r\n\r\nok",
        ),
        "/head" => {
            keep("HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Padding: 0123456\r\n\r\nevil")
        }
        "/204-length" => keep("HTTP/1.1 204 No Content\r\nContent-Length: 42\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
        "/204-chunked" => keep("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n"),
        "/205-length" => keep("HTTP/1.1 205 Reset Content\r\nContent-Length: 4\r\n\r\nevil"),
        "/304-body" => keep("HTTP/1.1 304 Not Modified\r\nContent-Length: 42\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
        "/same-lengths" => keep("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok"),
        _ => Reply::text("fine"),
    }
}

const BROKEN: &[&str] = &[
    "/garbage",
    "/garbage-more",
    "/http09",
    "/version",
    "/status",
    "/no-colon",
    "/folded",
    "/nul",
    "/both",
    "/lengths",
    "/length",
    "/coding",
    "/gzip",
    "/endless",
    "/many",
    "/switch",
    "/nothing",
    "/reset",
    "/half-head",
];

#[test]
fn an_answer_that_is_not_sound_is_502_and_its_connection_is_not_used_again() {
    let world = World::with(Origin::start(moods));
    let mut h2 = world.h2();
    for path in BROKEN {
        let answer = world.get(path, "");
        assert_eq!(status(&answer), 502, "{path}: {answer}");
        assert!(answer.contains("cache-control: no-store"), "{answer}");
        let connections = world.origin.connections();
        assert_eq!(h2.get("wiki.localhost", path).status, 502, "{path}");
        assert_eq!(world.origin.connections(), connections + 1, "{path}: the connection of a broken answer was used again");
        assert_eq!(h2.get("wiki.localhost", "/fine").body, b"fine");
    }
}

#[test]
fn bytes_behind_an_answer_are_nobodys_answer() {
    let world = World::with(Origin::start(moods));
    for _ in 0..5 {
        assert_eq!(status(&world.get("/behind", "")), 200);
        let answer = world.get("/fine", "");
        assert!(answer.ends_with("\r\n\r\nfine"), "{answer}");
    }
}

/// HEAD, 204 and 304 have no body, whatever they say of one: an app that sends one all the same must not answer the next request with it.
#[test]
fn a_body_where_there_may_be_none_is_nobodys_answer() {
    let world = World::with(Origin::start(moods));
    let mut h2 = world.h2();
    for (method, path, expected) in [
        ("HEAD", "/head", 200),
        ("GET", "/204-length", 204),
        ("GET", "/204-chunked", 204),
        ("GET", "/304-body", 304),
        ("HEAD", "/304-body", 304),
    ] {
        for _ in 0..5 {
            // The connection stays open, so that what is too much would show before the next answer.
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: wiki.localhost\r\n\r\nGET /fine HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: close\r\n\r\n"
            );
            let answer = world.plain(request.as_bytes());
            let statuses: Vec<u16> = answer.match_indices("HTTP/1.1 ").map(|(at, _)| status(&answer[at..])).collect();
            assert_eq!(statuses, [expected, 200], "{method} {path}: {answer}");
            assert!(answer.ends_with("\r\n\r\nfine") && !answer.contains("evil"), "{method} {path}: {answer}");
            let first = answer.split("\r\n\r\n").next().unwrap().to_lowercase();
            assert!(expected != 204 || !first.contains("content-length") && !first.contains("transfer-encoding"), "{first}");
            let fields = [(":method", method), (":scheme", "https"), (":authority", "wiki.localhost"), (":path", path)];
            let outcome = h2.ask(&fields);
            assert_eq!((outcome.status, outcome.body.len(), outcome.whole), (expected, 0, true), "HTTP/2 {method} {path}: {outcome:?}");
            assert_eq!(h2.get("wiki.localhost", "/fine").body, b"fine");
        }
    }
}

#[test]
fn an_app_that_is_slow_or_hangs_is_504_within_its_time() {
    let world = World::with(Origin::start(moods));
    for path in ["/silent", "/slow-head"] {
        let begun = Instant::now();
        assert_eq!(status(&world.get(path, "")), 504, "{path}");
        assert_eq!(world.h2().get("wiki.localhost", path).status, 504, "{path}");
        assert!(begun.elapsed().as_secs() < 8, "{path}");
    }
    assert_eq!(status(&world.get("/fine", "")), 200);
}

#[test]
fn a_body_that_the_app_cut_short_looks_cut() {
    let world = World::with(Origin::start(moods));
    for path in ["/cut-length", "/reset-length", "/cut-chunked", "/cut-in-chunk", "/bad-chunk", "/still"] {
        let url = format!("https://wiki.localhost{path}");
        let h1 = Curl::to(&world.proxy, &world.lab).http1().get(&url);
        assert_eq!((h1.status, h1.body.as_str()), (200, "half"), "{path}: {}", h1.stderr);
        assert!(matches!(h1.exit, 18 | 56), "HTTP/1.1 {path}: curl takes it for whole: {} {}", h1.exit, h1.stderr);
        let mut h2 = world.h2();
        let outcome = h2.get("wiki.localhost", path);
        assert_eq!((outcome.status, outcome.body.as_slice(), outcome.whole), (200, &b"half"[..], false), "HTTP/2 {path}: {outcome:?}");
        assert!(outcome.reset.is_some_and(|code| code != 0), "HTTP/2 {path}: {outcome:?}");
        assert_eq!(h2.get("wiki.localhost", "/fine").body, b"fine", "the other streams go on");
    }
    world.proxy.metric_reaches("vestibule_streams_cut_total", &[("reason", "upstream.cut")], 12.0);
}

#[test]
fn sound_answers_of_every_shape_pass() {
    let world = World::with(Origin::start(moods));
    let get = |path: &str| world.get(path, "");
    let mut h2 = world.h2();
    for (path, body) in [("/to-the-end", "all of it"), ("/early", "ok"), ("/same-lengths", "ok"), ("/hops", "ok")] {
        let url = format!("https://wiki.localhost{path}");
        let h1 = Curl::to(&world.proxy, &world.lab).http1().get(&url);
        assert_eq!((h1.exit, h1.status, h1.body.as_str()), (0, 200, body), "{path}");
        let outcome = h2.get("wiki.localhost", path);
        assert_eq!((outcome.status, outcome.body.as_slice(), outcome.whole), (200, body.as_bytes(), true), "{path}");
    }
    let answer = get("/same-lengths");
    assert_eq!(answer.matches("ontent-length: 2\r\n").count() + answer.matches("ontent-Length: 2\r\n").count(), 1, "{answer}");
    let answer = get("/hops").to_ascii_lowercase();
    assert!(answer.contains("x-end: 2\r\n"), "{answer}");
    for gone in ["x-hop", "keep-alive", "proxy-connection", "upgrade"] {
        assert!(!answer.contains(gone), "{gone}: {answer}");
    }
    assert_eq!(status(&get("/no-content")), 204);
    assert!(get("/not-modified").starts_with("HTTP/1.1 304 "));
    let head = world.plain(b"HEAD /fine HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: close\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn an_app_that_is_down_is_said_to_be_down() {
    let origin = Origin::answering(Reply::text("ok"));
    // Bound and let go: nobody listens there.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let lab = Lab::new();
    let proxy = lab.start(&World::config(&origin).replace(&origin.url(), &format!("http://{nobody}")));
    let answer = Curl::to(&proxy, &lab).get("https://wiki.localhost/");
    assert_eq!((answer.exit, answer.status), (0, 503), "{}", answer.stderr);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    proxy.metric_reaches("vestibule_requests_total", &[("app", "wiki"), ("status", "503")], 1.0);
    assert_eq!(proxy.metrics().sum("vestibule_upstream_up", &[("app", "wiki")]), 0.0);
}

/// Answers the first request of each connection and closes at the second without a word, as an app does whose keep-alive ran out.
fn tired() -> Origin {
    let seen = std::sync::Mutex::new(std::collections::HashSet::new());
    Origin::start(
        move |received| if seen.lock().unwrap().insert(received.connection) { Reply::text("ok") } else { Reply::Close(Vec::new()) },
    )
}

#[test]
fn a_post_is_never_sent_twice() {
    let world = World::with(tired());
    let mut tls = RawTls::connect(&world.proxy, &world.lab, "wiki.localhost", None);
    let ask = |tls: &mut RawTls, head: &str, body: &str| {
        let answer = tls.ask(&format!("{head} HTTP/1.1\r\nHost: wiki.localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        status(&answer)
    };
    for (method, body) in [("POST", "pay"), ("POST", ""), ("PUT", "x"), ("PATCH", "x"), ("DELETE", ""), ("GET", "body")] {
        assert_eq!(ask(&mut tls, "GET /warm", ""), 200);
        assert_eq!(ask(&mut tls, &format!("{method} /once"), body), 502, "{method} {body}");
    }
    assert_eq!(world.origin.received().iter().filter(|r| r.line().contains("/once")).count(), 6);
    // A request that may be sent again is, once, on a connection of its own.
    for method in ["GET", "OPTIONS"] {
        assert_eq!(ask(&mut tls, "GET /warm", ""), 200);
        assert_eq!(ask(&mut tls, &format!("{method} /twice"), ""), 200, "{method}");
        // That one has been used now.
        assert_eq!(ask(&mut tls, "POST /use-up", ""), 502);
    }
    assert_eq!(world.origin.received().iter().filter(|r| r.line().contains("/twice")).count(), 4);
}

#[test]
fn a_get_that_a_fresh_connection_refuses_is_not_sent_again() {
    let world = World::with(Origin::start(moods));
    assert_eq!(status(&world.get("/nothing", "")), 502);
    assert_eq!(world.origin.received().len(), 1);
}

#[test]
fn a_get_that_began_to_be_answered_is_not_sent_again() {
    let seen = std::sync::atomic::AtomicUsize::new(0);
    let world = World::with(Origin::start(move |_| match seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 => Reply::text("ok"),
        _ => Reply::Close(b"HTTP/1.1 2".to_vec()),
    }));
    assert_eq!(status(&world.get("/first", "")), 200);
    assert_eq!(status(&world.get("/second", "")), 502);
    assert_eq!((world.origin.received().len(), world.origin.connections()), (2, 1));
}
