//! Bodies on their way to apps that speak HTTP/2, and trailers.

use std::time::Instant;

use ::h2::server::Builder;

use super::http2::{app, client, way};
use super::*;

/// A stream may have to wait for another's end though we count that one as over: whoever waits is woken when it opens.
#[test]
fn a_body_that_waited_for_its_stream_is_sent() {
    worker(async {
        let mut builder = Builder::new();
        builder.max_concurrent_streams(1);
        let app = app(&builder, |mut call| async move {
            let (body, _) = call.read().await;
            assert_eq!(body, b"hello");
            call.reply("ok");
        })
        .await;
        let mut way = way(&app);
        way.limits.upstream_connections = 1;
        let front = way.start().await;
        let asks: Vec<_> = (0..200)
            .map(|_| {
                let front = front.clone();
                spawn_local(async move {
                    front.ask("POST / HTTP/1.1\r\nHost: wiki\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello").await
                })
            })
            .collect();
        for ask in asks {
            assert!(ask.await.unwrap().ends_with("ok"));
        }
        assert_eq!(app.accepted.get(), 1);
    });
}

#[test]
fn trailers_that_a_client_announces_pass_to_an_app_of_http1() {
    worker(async {
        for allowed in [false, true] {
            let seen = Rc::new(RefCell::new(String::new()));
            let record = Rc::clone(&seen);
            let app = App::start(move |_, mut peer| {
                let record = Rc::clone(&record);
                async move {
                    let head = peer.head().await;
                    let body = peer.until("\r\n\r\n").await;
                    *record.borrow_mut() = head.to_ascii_lowercase() + &body.to_ascii_lowercase();
                    peer.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                }
            })
            .await;
            let mut way = Setup::of(&[&app]);
            way.routes[0].request_trailers = allowed;
            let front = way.start().await;
            let answer = front
                .ask(
                    "POST / HTTP/1.1\r\nHost: wiki\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Vestibule-Tier, Cookie\r\n\r\n\
                     5\r\nhello\r\n0\r\nX-Sum: 9\r\nVestibule-Tier: trusted\r\nCookie: a=b\r\nX-Other: 1\r\n\r\n",
                )
                .await;
            assert!(answer.ends_with("ok"), "{answer}");
            let seen = seen.borrow();
            let (head, body) = seen.split_once("\r\n\r\n").unwrap();
            assert_eq!(head.contains("trailer: x-sum\r\n") || head.ends_with("trailer: x-sum"), allowed, "{seen}");
            assert_eq!(body, if allowed { "5\r\nhello\r\n0\r\nx-sum: 9\r\n\r\n" } else { "5\r\nhello\r\n0\r\n\r\n" });
        }
    });
}

#[test]
fn a_client_that_asks_first_sends_its_body_as_soon_as_the_app_wants_it() {
    worker(async {
        let app = app(&Builder::new(), |mut call| async move {
            assert_eq!(call.request.headers()["expect"], "100-continue");
            call.answer.send_informational(Response::builder().status(103).body(()).unwrap()).unwrap();
            call.answer.send_informational(Response::builder().status(100).body(()).unwrap()).unwrap();
            assert_eq!(call.read().await.0, b"hello");
            call.reply("ok");
        })
        .await;
        let front = way(&app).start().await;
        let begun = Instant::now();
        let mut client = Peer::to(front.address).await;
        client.write("POST / HTTP/1.1\r\nHost: wiki\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 100 "));
        client.write("hello").await;
        assert!(client.rest().await.ends_with("ok"));
        // Who says nothing is waited for, a second.
        assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    });
}

/// A client that opens calls and says nothing would take an app's servers out of use, one after the other.
#[test]
fn silence_in_a_grpc_call_whose_turn_nobody_knows_is_no_failure_of_the_server() {
    worker(async {
        let silent = async || app(&Builder::new(), |mut call| async move { drop(poll_fn(|cx| call.answer.poll_reset(cx)).await) }).await;
        let (one, two) = (silent().await, silent().await);
        let mut way = Setup::of(&[&one, &two]);
        let upstream = &mut way.routes[0].upstream;
        (upstream.protocol, upstream.ejection.failures) = (Protocol::H2c, 1);
        (upstream.timeouts.idle, upstream.timeouts.response) = (Duration::from_millis(50), Duration::from_millis(50));
        let front = way.start().await;
        let failures = || {
            let upstreams = front.upstreams.borrow();
            upstreams.app(AppId(0)).unwrap().targets.iter().map(|target| target.place.fitness.failures()).sum::<u32>()
        };
        let call = |whole: bool| {
            let front = &front;
            async move {
                let request = Request::post("http://wiki/").header("content-type", "application/grpc").body(()).unwrap();
                let (answer, _stream) = client(front).await.send_request(request, whole).unwrap();
                answer.await.unwrap().status()
            }
        };
        for _ in 0..4 {
            assert_eq!(call(false).await, 504);
        }
        assert_eq!(failures(), 0);
        assert_eq!(call(true).await, 504);
        assert_eq!(failures(), 1, "it is the app's turn when the request is whole");
    });
}
