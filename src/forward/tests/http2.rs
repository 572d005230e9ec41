//! HTTP/2 to an app: shared connections, refused requests, resets, trailers, both ways' back-pressure.

use std::time::Instant;

use ::h2::server::{Builder, SendResponse};
use ::h2::{Reason, RecvStream};
use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::Notify;

use super::*;

/// One stream at the app.
pub(super) struct Call {
    /// Of its connection, from 0.
    pub(super) connection: usize,
    /// Of all, from 0.
    pub(super) number: usize,
    pub(super) request: Request<RecvStream>,
    pub(super) answer: SendResponse<Bytes>,
    /// Asks for a GOAWAY on its connection.
    pub(super) leave: Rc<Notify>,
}

impl Call {
    /// The request's body and trailers.
    pub(super) async fn read(&mut self) -> (Vec<u8>, HeaderMap) {
        let body = self.request.body_mut();
        let mut all = Vec::new();
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
            all.extend(data);
        }
        (all, body.trailers().await.ok().flatten().unwrap_or_default())
    }

    pub(super) fn reply(&mut self, text: &'static str) {
        let head = Response::builder().header("content-length", text.len()).body(()).unwrap();
        let mut stream = self.answer.send_response(head, false).unwrap();
        let _ = stream.send_data(Bytes::from_static(text.as_bytes()), true);
    }
}

pub(super) async fn app<F: Future<Output = ()> + 'static>(builder: &Builder, serve: impl Fn(Call) -> F + 'static) -> App {
    let serve = Rc::new(serve);
    let builder = builder.clone();
    let calls = Rc::new(Cell::new(0));
    App::start(move |connection, peer| {
        let (serve, builder, calls) = (Rc::clone(&serve), builder.clone(), Rc::clone(&calls));
        async move {
            peer.0.set_nodelay(true).unwrap();
            let leave = Rc::new(Notify::new());
            let Ok(mut connected) = builder.handshake::<_, Bytes>(peer.0).await else { return };
            loop {
                let accepted = tokio::select! {
                    () = leave.notified() => {
                        connected.graceful_shutdown();
                        continue;
                    }
                    accepted = connected.accept() => accepted,
                };
                let Some(Ok((request, answer))) = accepted else { return };
                let number = calls.replace(calls.get() + 1);
                spawn_local(serve(Call { connection, number, request, answer, leave: Rc::clone(&leave) }));
            }
        }
    })
    .await
}

pub(super) fn way(app: &App) -> Setup {
    let mut way = Setup::of(&[app]);
    way.routes[0].upstream.protocol = Protocol::H2c;
    way
}

/// A client of HTTP/2.
pub(super) async fn client(front: &Front) -> ::h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(front.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (client, connection) = ::h2::client::handshake(stream).await.unwrap();
    spawn_local(connection);
    client.ready().await.unwrap()
}

pub(super) fn post() -> Request<()> {
    Request::post("http://wiki/path?q=1").header("content-type", "text/plain").body(()).unwrap()
}

#[test]
fn requests_share_a_connection_and_have_nothing_of_http1() {
    worker(async {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let record = Rc::clone(&seen);
        let app = app(&Builder::new(), move |mut call| {
            let record = Rc::clone(&record);
            async move {
                let (body, _) = call.read().await;
                record.borrow_mut().push((call.request.uri().clone(), call.request.headers().clone(), body));
                call.reply("ok");
            }
        })
        .await;
        let front = way(&app).start().await;
        assert!(front.get().await.ends_with("ok"));
        let answer = front
            .ask(
                "POST /a HTTP/1.1\r\nHost: wiki\r\nConnection: close, x-mine\r\nX-Mine: 1\r\nKeep-Alive: 9\r\nProxy-Connection: x\r\n\
                 TE: trailers, gzip\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            )
            .await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("ok"), "{answer}");
        front.ask("POST /b HTTP/1.1\r\nHost: wiki\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc").await;
        assert_eq!(app.accepted.get(), 1);
        let seen = seen.borrow();
        let uris: Vec<_> = seen.iter().map(|(uri, ..)| uri.to_string()).collect();
        assert_eq!(uris, ["http://wiki/", "http://wiki/a", "http://wiki/b"]);
        for (_, headers, _) in seen.iter() {
            for name in ["connection", "host", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "x-mine"] {
                assert!(!headers.contains_key(name), "{name}");
            }
            assert_eq!(headers["te"], "trailers");
            assert_eq!(headers["vestibule-device-id"], "laptop-7");
        }
        assert_eq!((&seen[1].2[..], seen[1].1.get("content-length")), (&b"abc"[..], None));
        assert_eq!((&seen[2].2[..], &seen[2].1["content-length"]), (&b"abc"[..], &HeaderValue::from_static("3")));
    });
}

#[test]
fn streams_beyond_what_the_app_permits_take_further_connections_or_wait() {
    worker(async {
        let go = Rc::new(Notify::new());
        let (count, gate) = (Rc::new(Cell::new(0)), Rc::clone(&go));
        let running = Rc::clone(&count);
        let mut builder = Builder::new();
        builder.max_concurrent_streams(2);
        let app = app(&builder, move |mut call| {
            running.set(running.get() + 1);
            let gate = Rc::clone(&gate);
            async move {
                gate.notified().await;
                call.reply("ok");
            }
        })
        .await;
        let front = way(&app).start().await;
        let ask = |front: &Front| {
            let front = front.clone();
            spawn_local(async move { front.get().await })
        };
        let asks: Vec<_> = (0..5).map(|_| ask(&front)).collect();
        while count.get() < 5 {
            tokio::task::yield_now().await;
        }
        assert_eq!(app.accepted.get(), 3);
        go.notify_waiters();
        for ask in asks {
            assert!(ask.await.unwrap().ends_with("ok"));
        }
        let mut way = way(&app);
        way.limits.upstream_connections = 1;
        let front = way.start().await;
        let asks: Vec<_> = (0..5).map(|_| ask(&front)).collect();
        for running in [7, 9, 10] {
            while count.get() < running {
                tokio::task::yield_now().await;
            }
            go.notify_waiters();
        }
        for ask in asks {
            assert!(ask.await.unwrap().ends_with("ok"));
        }
        assert_eq!(app.accepted.get(), 4, "the rest waited for a stream");
    });
}

#[test]
fn a_server_that_goes_finishes_what_runs_and_gets_nothing_new() {
    worker(async {
        let go = Rc::new(Notify::new());
        let gate = Rc::clone(&go);
        let connections = Rc::new(RefCell::new(Vec::new()));
        let record = Rc::clone(&connections);
        let app = app(&Builder::new(), move |mut call| {
            record.borrow_mut().push(call.connection);
            let gate = Rc::clone(&gate);
            async move {
                if call.number == 0 {
                    call.leave.notify_one();
                    gate.notified().await;
                }
                call.reply("ok");
            }
        })
        .await;
        let front = way(&app).start().await;
        let (first, asked) = (front.clone(), Rc::clone(&connections));
        let first = spawn_local(async move { first.get().await });
        while asked.borrow().is_empty() {
            tokio::task::yield_now().await;
        }
        // Until the GOAWAY is heard, requests still go there, and are answered or refused without a look.
        while app.accepted.get() < 2 {
            assert!(front.ask("POST / HTTP/1.1\r\nHost: wiki\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi").await.ends_with("ok"));
        }
        go.notify_one();
        assert!(first.await.unwrap().ends_with("ok"));
        assert_eq!(*connections.borrow().last().unwrap(), 1);
    });
}

#[test]
fn what_the_app_refused_without_a_look_is_sent_again_and_nothing_else() {
    worker(async {
        for (reason, status, asked) in [
            (Reason::REFUSED_STREAM, "200", 2),
            (Reason::INTERNAL_ERROR, "502", 1),
            (Reason::CANCEL, "502", 1),
            (Reason::NO_ERROR, "502", 1),
        ] {
            let bodies = Rc::new(RefCell::new(Vec::new()));
            let record = Rc::clone(&bodies);
            let app = app(&Builder::new(), move |mut call| {
                let record = Rc::clone(&record);
                async move {
                    let (body, _) = call.read().await;
                    record.borrow_mut().push(body);
                    match call.number {
                        0 => call.answer.send_reset(reason),
                        _ => call.reply("ok"),
                    }
                }
            })
            .await;
            let front = way(&app).start().await;
            let answer = front.ask("POST / HTTP/1.1\r\nHost: wiki\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello").await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{reason:?}: {answer}");
            assert_eq!(*bodies.borrow(), vec![b"hello".to_vec(); asked], "{reason:?}");
        }
    });
}

#[test]
fn an_app_that_refuses_for_ever_is_unreachable() {
    worker(async {
        let calls = Rc::new(Cell::new(0));
        let count = Rc::clone(&calls);
        let app = app(&Builder::new(), move |mut call| {
            count.set(count.get() + 1);
            async move { call.answer.send_reset(Reason::REFUSED_STREAM) }
        })
        .await;
        let front = way(&app).start().await;
        assert!(front.get().await.starts_with("HTTP/1.1 502"));
        assert!(matches!(front.failures.borrow()[0], Failure::Unreachable(_)));
        assert_eq!(calls.get(), 3);
    });
}

#[test]
fn a_response_that_the_app_resets_is_reset_for_the_client_and_never_looks_whole() {
    worker(async {
        for (theirs, ours) in [
            (Reason::CANCEL, Reason::CANCEL),
            (Reason::INTERNAL_ERROR, Reason::INTERNAL_ERROR),
            (Reason::REFUSED_STREAM, Reason::INTERNAL_ERROR),
            (Reason::NO_ERROR, Reason::INTERNAL_ERROR),
        ] {
            let go = Rc::new(Notify::new());
            let gate = Rc::clone(&go);
            let app = app(&Builder::new(), move |mut call| {
                let gate = Rc::clone(&gate);
                async move {
                    let mut stream = call.answer.send_response(Response::new(()), false).unwrap();
                    stream.send_data("half".into(), false).unwrap();
                    gate.notified().await;
                    stream.send_reset(theirs);
                }
            })
            .await;
            let front = way(&app).start().await;
            let (answer, _) = client(&front).await.send_request(Request::get("http://wiki/").body(()).unwrap(), true).unwrap();
            let mut body = answer.await.unwrap().into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "half");
            go.notify_one();
            let error = body.data().await.unwrap().unwrap_err();
            assert_eq!((error.is_reset(), error.reason()), (true, Some(ours)), "{theirs:?}");

            let mut plain = Peer::to(front.address).await;
            plain.write("GET / HTTP/1.1\r\nHost: wiki\r\n\r\n").await;
            plain.until("half\r\n").await;
            go.notify_one();
            assert_eq!(plain.rest().await, "", "no last chunk: {theirs:?}");
        }
    });
}

#[test]
fn a_client_that_cancels_cancels_at_the_app() {
    worker(async {
        for headed in [false, true] {
            let resets = Rc::new(RefCell::new(Vec::new()));
            let (record, called) = (Rc::clone(&resets), Rc::new(Notify::new()));
            let calls = Rc::clone(&called);
            let app = app(&Builder::new(), move |mut call| {
                let (record, calls) = (Rc::clone(&record), Rc::clone(&calls));
                async move {
                    calls.notify_one();
                    let reset = if headed {
                        let mut stream = call.answer.send_response(Response::new(()), false).unwrap();
                        poll_fn(|cx| stream.poll_reset(cx)).await
                    } else {
                        poll_fn(|cx| call.answer.poll_reset(cx)).await
                    };
                    record.borrow_mut().push(reset.unwrap());
                }
            })
            .await;
            let front = way(&app).start().await;
            let (answer, mut stream) = client(&front).await.send_request(post(), false).unwrap();
            stream.send_data("some".into(), false).unwrap();
            called.notified().await;
            let body = if headed {
                Some(answer.await.unwrap())
            } else {
                drop(answer);
                None
            };
            stream.send_reset(Reason::CANCEL);
            while resets.borrow().is_empty() {
                tokio::task::yield_now().await;
            }
            drop(body);
            assert_eq!(*resets.borrow(), [Reason::CANCEL], "{headed}");
        }
    });
}

#[test]
fn trailers_pass_both_ways_where_they_may() {
    worker(async {
        for allowed in [false, true] {
            let seen = Rc::new(RefCell::new(Vec::new()));
            let record = Rc::clone(&seen);
            let app = app(&Builder::new(), move |mut call| {
                let record = Rc::clone(&record);
                async move {
                    let (_, trailers) = call.read().await;
                    record.borrow_mut().push(trailers);
                    let mut stream = call.answer.send_response(Response::new(()), false).unwrap();
                    stream.send_data("ok".into(), false).unwrap();
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static("0"));
                    trailers.insert("set-cookie", HeaderValue::from_static("a=b"));
                    stream.send_trailers(trailers).unwrap();
                }
            })
            .await;
            let mut way = way(&app);
            way.routes[0].request_trailers = allowed;
            let front = way.start().await;
            let (answer, mut stream) = client(&front).await.send_request(post(), false).unwrap();
            stream.send_data("hello".into(), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from_static("1"));
            trailers.insert("vestibule_device_id", HeaderValue::from_static("spoofed"));
            trailers.insert("x-forwarded-for", HeaderValue::from_static("10.0.0.1"));
            stream.send_trailers(trailers).unwrap();
            let mut body = answer.await.unwrap().into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "ok");
            assert!(body.data().await.is_none());
            let trailers = body.trailers().await.unwrap().unwrap();
            assert_eq!((trailers.len(), &trailers["grpc-status"]), (1, &HeaderValue::from_static("0")));
            let seen = seen.borrow();
            let names: Vec<_> = seen[0].keys().map(|name| name.as_str()).collect();
            assert_eq!(names, if allowed { vec!["x-sum"] } else { vec![] });
        }
    });
}

#[test]
fn a_server_that_speaks_no_http2_gets_no_request() {
    worker(async {
        let got = Rc::new(RefCell::new(String::new()));
        let record = Rc::clone(&got);
        let app = App::start(move |_, mut peer| {
            let record = Rc::clone(&record);
            async move {
                peer.write("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
                *record.borrow_mut() = peer.rest().await;
            }
        })
        .await;
        let front = way(&app).start().await;
        let answer = front.ask("POST /secret HTTP/1.1\r\nHost: wiki\r\nConnection: close\r\nContent-Length: 6\r\n\r\nsecret").await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
        match &front.failures.borrow()[0] {
            Failure::Unreachable(why) => assert!(why.to_string().contains("does not speak HTTP/2"), "{why}"),
            other => panic!("{other:?}"),
        }
        while got.borrow().is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(got.borrow().starts_with("PRI * HTTP/2.0") && !got.borrow().contains("secret"));
    });
}

#[test]
fn who_does_not_read_is_not_sent_more() {
    worker(async {
        const PIECE: usize = 16 << 10;
        let sent = Rc::new(Cell::new(0));
        let count = Rc::clone(&sent);
        let app = app(&Builder::new(), move |mut call| {
            let count = Rc::clone(&count);
            async move {
                let mut stream = call.answer.send_response(Response::new(()), false).unwrap();
                for _ in 0..256 {
                    stream.reserve_capacity(PIECE);
                    while stream.capacity() < PIECE {
                        poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
                    }
                    stream.send_data(vec![b'x'; PIECE].into(), false).unwrap();
                    count.set(count.get() + PIECE);
                }
                stream.send_data(Bytes::new(), true).unwrap();
            }
        })
        .await;
        let front = way(&app).start().await;
        let (answer, _) = client(&front).await.send_request(Request::get("http://wiki/").body(()).unwrap(), true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        // Nothing moves any more when it has stood still for a thousand rounds of everybody.
        let mut still = (0, 0);
        while still.1 < 1000 {
            tokio::task::yield_now().await;
            still = if still.0 == sent.get() { (still.0, still.1 + 1) } else { (sent.get(), 0) };
        }
        assert!(sent.get() < 2 << 20, "{} bytes wait in the proxy", sent.get());
        // Others on the same connection are not held up.
        assert!(sent.get() >= 64 << 10);
        let mut got = 0;
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            got += data.len();
            body.flow_control().release_capacity(data.len()).unwrap();
        }
        assert_eq!(got, 256 * PIECE);
    });
}

#[test]
fn an_upload_goes_at_the_apps_pace_and_arrives_whole() {
    worker(async {
        let (go, size) = (Rc::new(Notify::new()), Rc::new(Cell::new(0)));
        let (gate, count) = (Rc::clone(&go), Rc::clone(&size));
        let app = app(&Builder::new(), move |mut call| {
            let (gate, count) = (Rc::clone(&gate), Rc::clone(&count));
            async move {
                gate.notified().await;
                let (body, _) = call.read().await;
                count.set(body.len());
                call.reply("ok");
            }
        })
        .await;
        let front = way(&app).start().await;
        let (answer, mut stream) = client(&front).await.send_request(post(), false).unwrap();
        let (total, mut sent, mut still) = (8 << 20, 0, 0);
        while still < 1000 {
            stream.reserve_capacity(64 << 10);
            if stream.capacity() > 0 && sent < total {
                let piece = stream.capacity().min(total - sent);
                stream.send_data(vec![b'x'; piece].into(), false).unwrap();
                sent += piece;
                still = 0;
            }
            still += 1;
            tokio::task::yield_now().await;
        }
        assert!(sent < total, "nobody reads");
        go.notify_one();
        while sent < total {
            stream.reserve_capacity(64 << 10);
            if stream.capacity() == 0 {
                poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
                continue;
            }
            let piece = stream.capacity().min(total - sent);
            stream.send_data(vec![b'x'; piece].into(), false).unwrap();
            sent += piece;
        }
        stream.send_data(Bytes::new(), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        assert_eq!(size.get(), total);
    });
}

#[test]
fn no_head_in_time_is_504_and_the_app_hears_of_it() {
    worker(async {
        let resets = Rc::new(RefCell::new(Vec::new()));
        let record = Rc::clone(&resets);
        let app = app(&Builder::new(), move |mut call| {
            let record = Rc::clone(&record);
            async move {
                let reset = poll_fn(|cx| call.answer.poll_reset(cx)).await;
                record.borrow_mut().push(reset.unwrap());
            }
        })
        .await;
        let mut way = way(&app);
        way.timeouts().response = Duration::from_millis(50);
        let front = way.start().await;
        assert!(front.get().await.starts_with("HTTP/1.1 504"));
        while resets.borrow().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(*resets.borrow(), [Reason::CANCEL]);
        front.get().await;
        assert_eq!(app.accepted.get(), 2, "a connection that brought nothing is in doubt");
    });
}

#[test]
fn idle_and_old_connections_end() {
    worker(async {
        let app = app(&Builder::new(), |mut call| async move { call.reply("ok") }).await;
        let mut way = way(&app);
        way.timeouts().idle = Duration::from_secs(3);
        let front = way.start().await;
        front.get().await;
        let server = Rc::clone(front.upstreams.borrow().server("127.0.0.1", app.address.port()));
        server.expire(Instant::now() + Duration::from_secs(2));
        front.get().await;
        assert_eq!((app.accepted.get(), server.count().0), (1, 1));
        server.expire(Instant::now() + Duration::from_secs(4));
        while server.count().0 != 0 {
            tokio::task::yield_now().await;
        }
        front.get().await;
        assert_eq!(app.accepted.get(), 2);
    });
}

#[test]
fn a_get_on_a_connection_that_was_gone_is_sent_once_more_and_a_post_is_not() {
    worker(async {
        for (request, status, seen) in [("GET / HTTP/1.1\r\n", "200", 3), ("POST / HTTP/1.1\r\nContent-Length: 2\r\n", "502", 2)] {
            let calls = Rc::new(Cell::new(0));
            let count = Rc::clone(&calls);
            // By hand: a library would say GOAWAY.
            let app = App::start(move |_, peer| {
                let count = Rc::clone(&count);
                async move {
                    let mut connected = ::h2::server::handshake(peer.0).await.unwrap();
                    while let Some(Ok((_, mut answer))) = connected.accept().await {
                        count.set(count.get() + 1);
                        if count.get() == 2 {
                            return;
                        }
                        let head = Response::builder().header("content-length", 2).body(()).unwrap();
                        let mut stream = answer.send_response(head, false).unwrap();
                        stream.send_data(Bytes::from_static(b"ok"), true).unwrap();
                    }
                }
            })
            .await;
            let front = way(&app).start().await;
            assert!(front.get().await.ends_with("ok"));
            let body = if status == "502" { "hi" } else { "" };
            let answer = front.ask(&format!("{request}Host: wiki\r\nConnection: close\r\n\r\n{body}")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
            assert_eq!(calls.get(), seen);
        }
    });
}
