//! What the app and the client see of heads.

use http_body_util::{BodyExt, Empty};

use super::*;

/// The head that the app receives for a request.
async fn received(setup: impl FnOnce(&mut Setup), request: &str) -> String {
    let (app, heads) = App::recording().await;
    let mut way = Setup::of(&[&app]);
    setup(&mut way);
    let front = way.start().await;
    let answer = front.ask(request).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(heads.borrow().len(), 1);
    heads.borrow()[0].clone()
}

fn fields<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    head.lines().filter_map(|line| line.split_once(": ")).filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v).collect()
}

/// The answer that the client receives for an app's answer.
async fn answered(setup: impl FnOnce(&mut Setup), method: &str, answer: &'static str) -> (String, Front) {
    let app = App::start(move |_, mut peer| async move {
        peer.head().await;
        peer.write(answer).await;
        peer.rest().await;
    })
    .await;
    let mut way = Setup::of(&[&app]);
    setup(&mut way);
    let front = way.start().await;
    let got = front.ask(&format!("{method} / HTTP/1.1\r\nHost: wiki\r\nConnection: close\r\n\r\n")).await;
    (got, front)
}

#[test]
fn cve_2024_45410_connection_cannot_strip_identity() {
    worker(async {
        let head = received(
            |_| {},
            "GET / HTTP/1.1\r\nHost: wiki\r\n\
             Connection: close, Vestibule-Device-Id, vestibule-tier, X-Forwarded-For, x-request-id, traceparent, Host\r\n\
             TE: vestibule-decision\r\nVestibule-Device-Id: boss\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n",
        )
        .await;
        for (name, value) in [
            ("vestibule-device-id", "laptop-7"),
            ("vestibule-device-class", "corporate"),
            ("vestibule-tier", "healthy"),
            ("vestibule-decision", "forward"),
            ("x-request-id", "0190c3a1b2c34d5e8f90a1b2c3d4e5f6"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-host", "wiki"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=192.0.2.7;proto=https;host=wiki"),
            ("host", "wiki"),
        ] {
            assert_eq!(fields(&head, name), [value], "{name}");
        }
        assert_eq!(fields(&head, "traceparent").len(), 1);
        assert!(fields(&head, "connection").is_empty() && fields(&head, "te").is_empty(), "{head}");
        assert!(fields(&head, "vestibule-restrictions").is_empty());
    });
}

#[test]
fn no_spelling_of_ours_arrives() {
    worker(async {
        let head = received(
            |_| {},
            "GET / HTTP/1.1\r\nHost: wiki\r\nConnection: close\r\nVESTIBULE_DEVICE_ID: boss\r\nVestibule.Tier: boss\r\nvestibule-jwt-assertion: boss\r\n\
             X_Forwarded_For: boss\r\nForwarded: for=boss\r\nX-Original-URL: /boss\r\nX_Rewrite_URL: /boss\r\nX-Forwarded-Prefix: /boss\r\nClient-Cert: :boss:\r\n\
             X-Real-IP: boss\r\nTrue-Client-IP: boss\r\nX-HTTP-Method-Override: BOSS\r\nContent_Length: boss\r\nX-Api-Key: stays\r\nCookie: stays=1\r\n\r\n",
        )
        .await;
        assert!(!head.to_lowercase().contains("boss"), "{head}");
        assert_eq!(fields(&head, "x-api-key"), ["stays"]);
        assert_eq!(fields(&head, "cookie"), ["stays=1"]);
    });
}

#[test]
fn cve_2025_54576_the_canonical_path_arrives_and_the_query_untouched() {
    worker(async {
        let head = received(|_| {}, "GET /a/../%61dmin//x%c3%a9?q=/../%61;y HTTP/1.1\r\nHost: wiki\r\nConnection: close\r\n\r\n").await;
        assert_eq!(head.lines().next(), Some("GET /admin/x%C3%A9?q=/../%61;y HTTP/1.1"));
        let head = received(|_| {}, "GET https://WIKI.:8443/%7Ea?b HTTP/1.1\r\nHost: wiki:8443\r\nConnection: close\r\n\r\n").await;
        assert_eq!(head.lines().next(), Some("GET /~a?b HTTP/1.1"));
        assert_eq!(fields(&head, "host"), ["wiki:8443"]);
        assert_eq!(fields(&head, "forwarded"), ["for=192.0.2.7;proto=https;host=\"wiki:8443\""]);
    });
}

#[test]
fn the_app_receives_the_host_that_it_asks_for() {
    worker(async {
        const REQUEST: &str = "GET / HTTP/1.1\r\nHost: Wiki.:443\r\nConnection: close\r\n\r\n";
        assert_eq!(fields(&received(|_| {}, REQUEST).await, "host"), ["wiki"]);
        let named = received(|s| s.routes[0].upstream.host = HostHeader::Name("inner.example".into()), REQUEST).await;
        assert_eq!(fields(&named, "host"), ["inner.example"]);
        assert_eq!(fields(&named, "x-forwarded-host"), ["wiki"]);
        let server = received(|s| s.routes[0].upstream.host = HostHeader::Server, REQUEST).await;
        assert!(fields(&server, "host")[0].starts_with("127.0.0.1:"), "{server}");
    });
}

#[test]
fn a_trace_passes_and_junk_is_replaced() {
    worker(async {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let ask =
            |parent: &str| format!("GET / HTTP/1.1\r\nHost: wiki\r\nConnection: close\r\ntraceparent: {parent}\r\ntracestate: a=1\r\n\r\n");
        let head = received(|_| {}, &ask(parent)).await;
        assert_eq!((fields(&head, "traceparent"), fields(&head, "tracestate")), (vec![parent], vec!["a=1"]));
        let head = received(|_| {}, &ask("junk")).await;
        assert_eq!(fields(&head, "traceparent")[0].len(), 55);
        assert!(fields(&head, "tracestate").is_empty());
    });
}

#[test]
fn http2_cookie_crumbs_arrive_as_one_field() {
    worker(async {
        let (app, heads) = App::recording().await;
        let front = Setup::of(&[&app]).start().await;
        let io = TokioIo::new(TcpStream::connect(front.address).await.unwrap());
        let (mut client, connection) = hyper::client::conn::http2::handshake(Local, io).await.unwrap();
        spawn_local(connection);
        let request = Request::get("https://wiki/a").header("cookie", "a=1").header("cookie", "b=2").header("te", "trailers");
        let response = client.send_request(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
        let head = heads.borrow()[0].clone();
        assert_eq!(fields(&head, "cookie"), ["a=1; b=2"]);
        assert_eq!((fields(&head, "host"), fields(&head, "te")), (vec!["wiki"], vec![]));
        assert!(head.starts_with("GET /a HTTP/1.1\r\n"), "{head}");
    });
}

#[test]
fn a_response_loses_the_hop_and_keeps_the_rest() {
    worker(async {
        let answer = "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
                      Cache-Control: max-age=60\r\nExpires: 0\r\nETag: \"x\"\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        let (got, _) = answered(|_| {}, "GET", answer).await;
        for name in ["x-hop", "keep-alive", "upgrade"] {
            assert!(fields(&got, name).is_empty(), "{name}: {got}");
        }
        assert_eq!(fields(&got, "set-cookie"), ["a=1", "b=2"]);
        assert_eq!((fields(&got, "cache-control"), fields(&got, "etag")), (vec!["max-age=60"], vec!["\"x\""]));
        let (got, _) = answered(|s| s.merged.no_store = true, "GET", answer).await;
        assert_eq!((fields(&got, "cache-control"), fields(&got, "expires")), (vec!["no-store"], vec![]));
        assert!(got.ends_with("2\r\nok\r\n0\r\n\r\n"), "{got}");
    });
}

#[test]
fn an_answer_without_a_body_keeps_its_length() {
    worker(async {
        let (got, front) = answered(|_| {}, "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n").await;
        assert_eq!(fields(&got, "content-length"), ["1234"]);
        assert!(got.ends_with("\r\n\r\n"));
        assert_eq!(front.ended.borrow().len(), 1);
        assert_eq!(front.ended.borrow()[0].end, crate::forward::End::Whole);
        let (got, _) = answered(|_| {}, "GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n").await;
        assert!(got.starts_with("HTTP/1.1 304") && got.ends_with("\r\n\r\n"), "{got}");
        let (got, _) = answered(|_| {}, "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok").await;
        assert_eq!(fields(&got, "content-length"), ["2"]);
        let (got, _) = answered(
            |_| {},
            "GET",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        )
        .await;
        assert!(got.starts_with("HTTP/1.1 200") && got.ends_with("ok"), "{got}");
    });
}

#[test]
fn an_unsound_answer_is_502_and_its_connection_not_used_again() {
    worker(async {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nbytes",
            "HTTP/1.1 200 OK\r\nX: 1\r\n folded\r\nContent-Length: 0\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n",
            "\u{0}\u{1}\u{2}\r\n\r\n",
        ] {
            let (got, front) = answered(|_| {}, "GET", answer).await;
            assert!(got.starts_with("HTTP/1.1 502"), "{answer:?}: {got}");
            assert!(matches!(front.failures.borrow()[0], Failure::Broken(_)));
            let port = front.upstreams.borrow().server_ports()[0];
            assert_eq!(front.upstreams.borrow().server("127.0.0.1", port).count().1, 0, "{answer:?}");
        }
        let head: String =
            std::iter::once("HTTP/1.1 200 OK\r\n".to_owned()).chain((0..90).map(|n| format!("X-{n}: {}\r\n", "x".repeat(1000)))).collect();
        let (got, _) = answered(|_| {}, "GET", Box::leak(head.into_boxed_str())).await;
        assert!(got.starts_with("HTTP/1.1 502"), "{got}");
    });
}

#[test]
fn requests_that_hyper_would_read_silently_are_400_under_the_watch() {
    worker(async {
        let both = "POST / HTTP/1.1\r\nHost: wiki\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: wiki\r\n\r\n";
        let twice = "POST / HTTP/1.1\r\nHost: wiki\r\nConnection: close\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n";
        let fragment = "GET /a#b HTTP/1.1\r\nHost: wiki\r\nConnection: close\r\n\r\n";
        for request in [both, twice, fragment] {
            // This is why the watch is there: hyper drops the evidence. When this fails, hyper has learnt to refuse and the watch may go.
            let (app, heads) = App::recording().await;
            let answer = Setup::of(&[&app]).start().await.ask(request).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert!(!heads.borrow().iter().any(|head| head.contains("smuggled")));

            let (app, heads) = App::recording().await;
            let mut way = Setup::of(&[&app]);
            way.watched = true;
            let answer = way.start().await.ask(request).await;
            assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("connection: close"), "{answer}");
            assert_eq!(answer.matches("HTTP/1.1").count(), 1);
            assert!(heads.borrow().is_empty());
        }
    });
}

#[test]
fn odd_framing_is_400_and_never_reaches_the_app() {
    worker(async {
        for framing in [
            "Content-Length: 1\r\nContent-Length: 2",
            "Content-Length: +1",
            "Content-Length: 1, 1",
            "Content-Length: -1",
            "Content-Length: 18446744073709551616",
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding:\r\n chunked",
            "Content-Length : 1",
        ] {
            let (app, heads) = App::recording().await;
            let mut way = Setup::of(&[&app]);
            way.watched = true;
            let front = way.start().await;
            let answer = front.ask(&format!("POST / HTTP/1.1\r\nHost: wiki\r\nConnection: close\r\n{framing}\r\n\r\n0\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 400"), "{framing}: {answer}");
            assert!(heads.borrow().is_empty() && app.accepted.get() == 0);
        }
        let (app, heads) = App::recording().await;
        let answer =
            Setup::of(&[&app]).start().await.ask("POST / HTTP/1.0\r\nHost: wiki\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.0 400"), "{answer}");
        assert!(heads.borrow().is_empty());
    });
}
