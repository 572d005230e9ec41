//! Answers in parts, bodies that wait to be asked for, and what must pass untouched.

use std::io::BufRead as _;
use std::process::Stdio;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::support::h2::H2;
use super::support::program;
use super::*;

/// Writes the next event only when the client has the last.
fn events() -> (App, Sender<String>) {
    let (next, nexts) = channel::<String>();
    let nexts: Mutex<Receiver<String>> = Mutex::new(nexts);
    let app = App::start(move |_, mut peer| {
        peer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n");
        while let Ok(event) = nexts.lock().unwrap().recv() {
            let data = format!("data: {event}\n\n");
            peer.write(format!("{:x}\r\n{data}\r\n", data.len()).as_bytes());
            if event == "end" {
                peer.write(b"0\r\n\r\n");
                return;
            }
        }
    });
    (app, next)
}

#[test]
fn each_event_is_at_the_client_before_the_next_is_written() {
    for version in ["--http1.1", "--http2"] {
        let (app, next) = events();
        let world = World::new(app);
        let port = world.proxy.addr("edge").port();
        let mut curl = program("curl")
            .args(["--silent", "--no-buffer", "--noproxy", "*", "--max-time", "60", version, "--cacert"])
            .arg(world.lab.ca.edge_ca())
            .args(["--connect-to", &format!("::127.0.0.1:{port}"), "https://wiki.localhost/events"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufReader::new(curl.stdout.take().unwrap()).lines();
        for event in ["one", "two", "three", "end"] {
            next.send(event.to_owned()).unwrap();
            assert_eq!(lines.next().unwrap().unwrap(), format!("data: {event}"), "{version}");
            assert_eq!(lines.next().unwrap().unwrap(), "");
        }
        assert!(lines.next().is_none() && curl.wait().unwrap().success(), "{version}");
    }
}

#[test]
fn parts_of_a_chunked_upload_reach_the_app_as_they_come_and_a_slow_app_holds_the_client_back() {
    let (said, says) = channel::<Vec<u8>>();
    let said = Mutex::new(said);
    let app = App::start(move |head, mut peer| {
        if head.starts_with("POST /parts") {
            for _ in 0..2 {
                said.lock().unwrap().send(peer.take("3\r\nabc\r\n".len())).unwrap();
            }
            peer.take(5);
            peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
        // Else it reads nothing.
        std::thread::park_timeout(Duration::from_secs(8));
    });
    let world = World::new(app);
    let mut client = world.plain();
    client.write(b"POST /parts HTTP/1.1\r\nHost: wiki.localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..2 {
        client.write(b"3\r\nabc\r\n");
        assert_eq!(says.recv_timeout(DEADLINE).unwrap(), b"3\r\nabc\r\n");
    }
    client.write(b"0\r\n\r\n");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 200 "));

    let mut client = world.plain();
    client.write(b"POST /slow HTTP/1.1\r\nHost: wiki.localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = [b"10000\r\n".as_slice(), &[b'x'; 1 << 16], b"\r\n"].concat();
    client.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut sent = 0;
    while client.stream.write_all(&chunk).is_ok() {
        sent += chunk.len();
        assert!(sent < 64 << 20, "nobody holds the client back");
    }
}

#[test]
fn a_refused_request_is_never_asked_for_its_body() {
    let app = App::start(|head, mut peer| {
        assert!(!head.contains("/closed"));
        peer.write(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n");
        assert!(peer.rest().is_empty());
    });
    let world = World::with(app, "", |config| {
        config.replace("{name: all, then: forward}", "{name: closed, when: {http.path: /closed}, then: block}, {name: all, then: forward}")
    });
    for (path, status) in [("/closed", "HTTP/1.1 403 "), ("/open", "HTTP/1.1 417 ")] {
        let mut client = world.plain();
        client.write(
            format!("POST {path} HTTP/1.1\r\nHost: wiki.localhost\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n").as_bytes(),
        );
        let answer = String::from_utf8(client.rest()).unwrap();
        assert!(answer.starts_with(status) && !answer.contains(" 100 "), "{answer}");
    }
    assert_eq!(field(&world.app.heads()[0], "expect"), ["100-continue"]);
}

#[test]
fn an_apps_interim_answers_go_no_further_but_the_one_that_asks_for_the_body() {
    let app = App::start(|head, mut peer| {
        let mut head = head.to_owned();
        loop {
            peer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n");
            if head.contains("100-continue") {
                peer.write(b"HTTP/1.1 100 Continue\r\nX-Odd: 1\r\n\r\n");
                assert_eq!(peer.take(4), b"body");
            }
            peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            let Some(next) = peer.head() else { return };
            head = next;
        }
    });
    let world = World::new(app);
    let mut client = world.plain();
    client.write(b"GET / HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(client.take(2), b"ok");
    client.write(b"PUT / HTTP/1.1\r\nHost: wiki.localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(client.head().unwrap(), "HTTP/1.1 100 Continue\r\n\r\n", "ours, without the app's fields");
    client.write(b"body");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 200 "));
    let mut h2 = H2::connect(&world.proxy, &world.lab, "wiki.localhost", None);
    let outcome = h2.get("wiki.localhost", "/");
    assert_eq!((outcome.status, outcome.body.as_slice()), (200, &b"ok"[..]));
}

#[test]
fn ranges_conditions_and_heads_pass_as_they_are() {
    let app = App::start(|head, mut peer| {
        let mut head = head.to_owned();
        loop {
            let answer: &[u8] = if head.starts_with("HEAD") {
                b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nAccept-Ranges: bytes\r\nETag: W/\"a\"\r\n\r\n"
            } else if head.contains("if-none-match") {
                b"HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\nContent-Length: 10\r\n\r\n"
            } else if head.contains("bytes=90-") {
                b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */10\r\nContent-Length: 0\r\n\r\n"
            } else if head.contains("bytes=0-1,4-5") {
                b"HTTP/1.1 206 Partial Content\r\nContent-Type: multipart/byteranges; boundary=x\r\nContent-Length: 5\r\n\r\n--x--"
            } else {
                b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-4/10\r\nContent-Length: 3\r\nETag: \"v1\"\r\n\r\ncde"
            };
            peer.write(answer);
            let Some(next) = peer.head() else { return };
            head = next;
        }
    });
    let world = World::new(app);
    let mut client = world.plain();
    let mut ask = |method: &str, fields: &str, size: usize| {
        client.write(format!("{method} /file HTTP/1.1\r\nHost: wiki.localhost\r\n{fields}\r\n").as_bytes());
        let head = client.head().unwrap();
        (head, client.take(size))
    };
    let (head, body) = ask("GET", "Range: bytes=2-4\r\nIf-Range: \"v1\"\r\n", 3);
    assert!(head.starts_with("HTTP/1.1 206 ") && body == b"cde", "{head}");
    assert_eq!((field(&head, "content-range"), field(&head, "etag")), (vec!["bytes 2-4/10".into()], vec!["\"v1\"".to_owned()]));
    let sent = &world.app.heads()[0];
    assert_eq!((field(sent, "range"), field(sent, "if-range")), (vec!["bytes=2-4".into()], vec!["\"v1\"".to_owned()]));
    let (head, _) = ask("GET", "Range: bytes=0-1,4-5\r\n", 5);
    assert_eq!(field(&head, "content-type"), ["multipart/byteranges; boundary=x"]);
    let (head, _) = ask("GET", "Range: bytes=90-\r\n", 0);
    assert!(head.starts_with("HTTP/1.1 416 ") && field(&head, "content-range") == ["bytes */10"], "{head}");
    let (head, _) = ask("GET", "If-None-Match: \"v1\"\r\n", 0);
    assert!(head.starts_with("HTTP/1.1 304 "), "{head}");
    let (head, _) = ask("HEAD", "", 0);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!((field(&head, "content-length"), field(&head, "etag")), (vec!["12345".into()], vec!["W/\"a\"".to_owned()]));
    let (head, _) = ask("GET", "Range: bytes=2-4\r\n", 3);
    assert!(head.starts_with("HTTP/1.1 206 "), "nothing of the HEAD's body was waited for: {head}");
}
