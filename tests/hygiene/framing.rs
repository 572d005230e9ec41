//! Where a request ends: two readers of the same bytes must agree, or the bytes go nowhere.

use super::*;

/// A request with these field lines and this body, and another one behind it.
fn smuggling(lines: &str, body: &str) -> Vec<u8> {
    format!("POST /front HTTP/1.1\r\nHost: wiki.localhost\r\n{lines}\r\n{body}GET /smuggled HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: close\r\n\r\n")
        .into_bytes()
}

#[test]
fn a_head_whose_end_can_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_read() {
    let world = World::new();
    for (lines, body) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nX: y\r\nContent-Length: 0\r\n", "0\r\n\r\n"),
        ("Content-Length: 5\r\nContent-Length: 0\r\n", "hello"),
        ("Content-Length: 0\r\nContent-Length: 5\r\n", "hello"),
        ("Content-Length: 5\r\ncontent-length: 5\r\n", "hello"),
        ("Content-Length: 5, 5\r\n", "hello"),
        ("Content-Length: 5,\r\n", "hello"),
        ("Content-Length: +5\r\n", "hello"),
        ("Content-Length: -5\r\n", "hello"),
        ("Content-Length: 0x5\r\n", "hello"),
        ("Content-Length: 5 0\r\n", "hello"),
        ("Content-Length: 5;\r\n", "hello"),
        ("Content-Length: \"5\"\r\n", "hello"),
        ("Content-Length:\r\n", "hello"),
        ("Content-Length: five\r\n", "hello"),
        ("Content-Length: 5\u{b}\r\n", "hello"),
        ("Content-Length: 99999999999999999999\r\n", "hello"),
        ("Content-Length: 18446744073709551621\r\n", "hello"),
        ("Content-Length : 5\r\n", "hello"),
        ("Content-Length\t: 5\r\n", "hello"),
        ("Content-Length\r\n: 5\r\n", "hello"),
        ("Content-Length:\r\n 5\r\n", "hello"),
        ("X: y\r\n Content-Length: 5\r\n", "hello"),
        ("X: y\r\n\tTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("X: y\rContent-Length: 5\r\n", "hello"),
        ("X: y\u{0}\r\nContent-Length: 5\r\n", "hello"),
        ("X\u{0}: y\r\n", ""),
        (": y\r\n", ""),
        ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: identity, chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked,\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: ,chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunkedx\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: identity\r\n", ""),
        ("Transfer-Encoding: gzip\r\n", ""),
        ("Transfer-Encoding:\r\n", ""),
        ("Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: \u{b}chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        ("\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    ] {
        let answer = world.plain(&smuggling(lines, body));
        if lines.starts_with("\r\n") {
            continue; // Only a head that ends early: the rest is a new, broken request, and the app sees no `/smuggled`.
        }
        assert_eq!(status(&answer), 400, "{lines:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "one answer, then the end: {lines:?}: {answer}");
    }
    let lines = world.lines();
    assert!(lines.iter().all(|line| line == "POST /front HTTP/1.1"), "{lines:?}");
    assert!(lines.len() <= 1, "{lines:?}");
}

#[test]
fn old_versions_have_no_transfer_coding_and_odd_versions_are_none() {
    let world = World::new();
    for first in ["POST /front HTTP/1.0", "GET /front HTTP/1.0"] {
        let answer = world.plain(
            format!("{first}\r\nHost: wiki.localhost\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n")
                .as_bytes(),
        );
        assert_eq!(status(&answer), 400, "{answer}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{answer}");
    }
    for first in [
        "GET / HTTP/0.9",
        "GET / HTTP/1.2",
        "GET / HTTP/2.0",
        "GET / HTTP/1.1 x",
        "GET  / HTTP/1.1",
        "GET /",
        "GET",
        "G\u{0}T / HTTP/1.1",
        "GET / HTTP/1.1\u{b}",
        "GET /\u{b}HTTP/1.1",
    ] {
        let answer = world.plain(format!("{first}\r\nHost: wiki.localhost\r\nConnection: close\r\n\r\n").as_bytes());
        assert!(matches!(status(&answer), 400 | 0), "{first:?}: {answer}");
    }
    assert_eq!(world.lines(), Vec::<String>::new());
}

#[test]
fn a_body_broken_in_its_chunks_never_reaches_the_app_whole_nor_what_is_behind_it() {
    let world = World::new();
    for body in [
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\rhello\r0\r\r",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "z\r\nhello\r\n0\r\n\r\n",
        "5\u{0}\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\nGET /smuggled HTTP/1.1\r\n\r\n",
    ] {
        let answer = world.plain(&smuggling("Transfer-Encoding: chunked\r\n", body));
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{body:?}: {answer}");
        assert!(matches!(status(&answer), 400 | 0), "{body:?}: {answer}");
    }
    assert_eq!(world.lines(), Vec::<String>::new(), "the app saw no whole request");
}

#[test]
fn a_sound_body_is_framed_anew_and_its_trailers_and_extensions_end_here() {
    let world = World::new();
    let chunked = "POST /chunked HTTP/1.1\r\nHost: wiki.localhost\r\nTransfer-Encoding: CHUNKED\r\nTrailer: Vestibule-Tier\r\n\r\n\
        5;x=\"y\"\r\nhello\r\n00001\r\n!\r\n0\r\nVestibule-Tier: trusted\r\nVestibule_Device_Id: other\r\nHost: odd.corp.example\r\n\r\n";
    let length = "POST /length HTTP/1.1\r\nHost: wiki.localhost\r\nContent-Length: 0006\r\n\r\nhello!";
    let none = "POST /none HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n";
    let get = "GET /get HTTP/1.1\r\nHost: wiki.localhost\r\nContent-Length: 4\r\n\r\nbody";
    let last = "DELETE /end HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: close\r\n\r\n";
    let answer = world.plain(format!("{chunked}{length}{none}{get}{last}").as_bytes());
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 5, "{answer}");
    let received = world.received();
    let text = |i: usize| {
        (received[i].line(), received[i].header("content-length"), received[i].header("transfer-encoding"), received[i].body.clone())
    };
    assert_eq!(text(0), ("POST /chunked HTTP/1.1".into(), vec![], vec!["chunked".into()], received[0].body.clone()));
    assert_eq!(unchunked(&received[0].body), (b"hello!".to_vec(), String::new()));
    assert_eq!(text(1), ("POST /length HTTP/1.1".into(), vec!["6".into()], vec![], b"hello!".to_vec()));
    assert_eq!(text(2), ("POST /none HTTP/1.1".into(), vec!["0".into()], vec![], vec![]));
    assert_eq!(text(3), ("GET /get HTTP/1.1".into(), vec!["4".into()], vec![], b"body".to_vec()));
    assert_eq!(text(4), ("DELETE /end HTTP/1.1".into(), vec![], vec![], vec![]));
    assert!(received.iter().all(|r| r.header("trailer").is_empty()));
}

#[test]
fn http2_bodies_say_their_length_truly_or_end() {
    let world = World::new();
    let with_length = |length: &'static str| [h2::post("wiki.localhost", "/length"), vec![("content-length", length)]].concat();
    for (length, body) in [("4", "hello"), ("6", "hello"), ("0", "hello"), ("5, 5", "hello"), ("+5", "hello"), ("x", "hello")] {
        let mut h2 = world.h2();
        let stream = h2.open(&with_length(length), false);
        h2.write(&h2::frame(h2::DATA, h2::END_STREAM, stream, body.as_bytes()));
        let outcome = h2.outcome(stream);
        assert!(outcome.status == 400 || outcome.reset.is_some() || outcome.goaway.is_some(), "{length}: {outcome:?}");
    }
    for fields in [
        [("content-length", "5"), ("content-length", "6")],
        [("transfer-encoding", "chunked"), ("x", "y")],
        [("connection", "close"), ("x", "y")],
    ] {
        let mut h2 = world.h2();
        let stream = h2.open(&[&h2::post("wiki.localhost", "/fields")[..], &fields].concat(), false);
        h2.write(&h2::frame(h2::DATA, h2::END_STREAM, stream, b"hello"));
        let outcome = h2.outcome(stream);
        assert!(outcome.status == 400 || outcome.reset.is_some() || outcome.goaway.is_some(), "{fields:?}: {outcome:?}");
    }
    let mut h2 = world.h2();
    let stream = h2.open(&h2::post("wiki.localhost", "/whole"), false);
    h2.write(&h2::frame(h2::DATA, 0, stream, b"hello"));
    h2.write(&h2::frame(h2::HEADERS, h2::END_HEADERS | h2::END_STREAM, stream, &h2::block(&[("vestibule-tier", "trusted"), ("x", "y")])));
    let outcome = h2.outcome(stream);
    assert_eq!((outcome.status, outcome.whole), (200, true));
    let received = world.received();
    assert_eq!(
        received.iter().map(Received::line).collect::<Vec<_>>(),
        ["POST /whole HTTP/1.1"],
        "no request whose length was a lie is whole"
    );
    assert_eq!(unchunked(&received[0].body), (b"hello".to_vec(), String::new()), "trailers end here");
}

#[test]
fn no_field_breaks_out_of_its_line_on_the_way_from_http2_to_http1() {
    let world = World::new();
    for (name, value) in [
        ("x", "y\r\nVestibule-Tier: trusted"),
        ("x", "y\nVestibule-Tier: trusted"),
        ("x", "y\rz"),
        ("x", "y\0"),
        ("x\r\nvestibule-tier", "trusted"),
        ("x: y\r\nvestibule-tier", "trusted"),
        ("X-Upper", "y"),
        ("x y", "z"),
        ("", "y"),
        (":path", "/second"),
        (":status", "200"),
        (":unknown", "y"),
    ] {
        let outcome = world.h2().ask(&[&h2::get("wiki.localhost", "/field")[..], &[(name, value)]].concat());
        assert!(outcome.status == 400 || outcome.reset.is_some() || outcome.goaway.is_some(), "{name:?} {value:?}: {outcome:?}");
    }
    for (method, path) in [
        ("GET /admin HTTP/1.1\r\nX:", "/"),
        ("G ET", "/"),
        ("", "/"),
        ("GET", "/ HTTP/1.1\r\nVestibule-Tier: trusted\r\nX: "),
        ("GET", "/a b"),
        ("GET", ""),
    ] {
        let outcome = world.h2().ask(&[(":method", method), (":scheme", "https"), (":authority", "wiki.localhost"), (":path", path)]);
        assert!(outcome.status == 400 || outcome.reset.is_some() || outcome.goaway.is_some(), "{method:?} {path:?}: {outcome:?}");
    }
    assert_eq!(world.lines(), Vec::<String>::new());
}

/// RFC 9112 section 2.2 lets a reader take a bare line feed for a line's end. Then it must be one everywhere.
#[test]
fn a_bare_line_feed_ends_a_line_for_every_check_or_the_request_is_refused() {
    let world = World::new();
    for lines in [
        "X: y\nContent-Length: 5\nContent-Length: 0\n",
        "X: y\nTransfer-Encoding: chunked\nContent-Length: 5\n",
        "X: y\n Transfer-Encoding: chunked\n",
    ] {
        let request = format!(
            "POST /front HTTP/1.1\nHost: wiki.localhost\n{lines}\nhelloGET /smuggled HTTP/1.1\nHost: wiki.localhost\nConnection: close\n\n"
        );
        let answer = world.plain(request.as_bytes());
        assert_eq!((status(&answer), answer.matches("HTTP/1.1 ").count()), (400, 1), "{lines:?}: {answer}");
    }
    let request = "POST /sound HTTP/1.1\nHost: wiki.localhost\nX: y\nContent-Length: 5\nConnection: close\n\nhello";
    assert_eq!(status(&world.plain(request.as_bytes())), 200);
    let [received] = &world.received()[..] else { panic!("one request") };
    assert!(!received.text().replace("\r\n", "").contains(['\r', '\n']), "{:?}", received.text());
    assert_eq!((received.header("x"), received.body.as_slice()), (vec!["y".into()], &b"hello"[..]));
}
