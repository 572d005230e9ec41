//! Connections that are one client's alone, and those that end as they are asked to leave HTTP.

use std::pin::pin;
use std::time::Instant;

use http_body::Body as _;
use tokio::sync::Notify;

use super::*;
use crate::forward::Ends;
use crate::forward::pool::{Caps, Server as Pool};
use crate::forward::servers::Pooled;
use crate::forward::upload::RequestBody;
use crate::forward::upstreams::Reach;

const LONG: Duration = Duration::from_secs(10);

fn pool(app: &App, protocol: Protocol, proxy_protocol: ProxyProtocol, open: usize) -> Rc<Pool> {
    let at = At::Tcp { host: app.address.ip().to_string(), port: app.address.port() };
    let reach = Reach { at, address: Some(app.address), tls: None, protocol, proxy_protocol };
    Pool::new(reach, Caps { idle: 4, open, max_age: Duration::MAX }, Pooled::default(), None)
}

fn of(port: u16) -> Ends {
    Ends { source: ([192, 0, 2, 7], port).into(), destination: ([198, 51, 100, 1], 443).into() }
}

#[test]
fn where_all_permitted_connections_are_idle_ones_of_others_the_longest_idle_makes_room() {
    worker(async {
        let (app, _) = App::recording().await;
        let pool = pool(&app, Protocol::Http1, ProxyProtocol::V1, 1);
        pool.connect(LONG, Some(of(1))).await.unwrap().give_back(LONG, Instant::now());
        assert_eq!(pool.count(), (1, 1));
        assert!(pool.has_room(|| of(2)));
        let second = pool.connect(LONG, Some(of(2))).await.unwrap();
        assert!(!second.used);
        assert_eq!(pool.count(), (1, 0));
        second.give_back(LONG, Instant::now());
        assert!(pool.reuse(Instant::now(), Some(of(1))).is_none());
        assert!(pool.reuse(Instant::now(), Some(of(2))).is_some());
    });
}

#[test]
fn a_connection_that_ended_before_it_took_an_upgrade_gives_the_request_back_at_once() {
    worker(async {
        let (end, ended) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
        let told = (Rc::clone(&end), Rc::clone(&ended));
        let app = App::start(move |_, peer| {
            let (end, ended) = told.clone();
            async move {
                end.notified().await;
                drop(peer);
                ended.notify_one();
            }
        })
        .await;
        let pool = pool(&app, Protocol::Http1, ProxyProtocol::Off, 1);
        let mut conn = pool.connect(LONG, None).await.unwrap();
        end.notify_one();
        ended.notified().await;
        // Turns in which the runtime hears of the end, and nobody reads it.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        let (requests, driven) = conn.parts().unwrap();
        driven.may_leave();
        let request = Request::get("/").header("host", "wiki").header("connection", "upgrade").header("upgrade", "websocket");
        let mut sending = pin!(requests.try_send_request(request.body(RequestBody::Empty).unwrap()));
        let sent = poll_fn(|cx| driven.drive(cx, |cx| sending.as_mut().poll(cx)));
        let sent = tokio::time::timeout(Duration::from_secs(5), sent).await.expect("it would wait for as long as an answer may take");
        assert!(sent.unwrap_err().take_message().is_some(), "not a byte of it was sent");
        drop(conn);
        assert_eq!(pool.count(), (0, 0));
    });
}

#[test]
fn an_idle_connection_is_polled_again_only_if_something_happened_to_it() {
    worker(async {
        let end = Rc::new(Notify::new());
        let told = Rc::clone(&end);
        let app = App::start(move |_, mut peer| {
            let end = Rc::clone(&told);
            async move {
                peer.until("\r\n\r\n").await;
                peer.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                end.notified().await;
            }
        })
        .await;
        let mut conn = pool(&app, Protocol::Http1, ProxyProtocol::Off, 1).connect(LONG, None).await.unwrap();
        let (requests, driven) = conn.parts().unwrap();
        let request = Request::get("/").header("host", "wiki").body(RequestBody::Empty).unwrap();
        let mut sending = pin!(requests.try_send_request(request));
        let response = poll_fn(|cx| driven.drive(cx, |cx| sending.as_mut().poll(cx))).await;
        let mut body = pin!(response.ok().unwrap().into_body());
        let frame = poll_fn(|cx| driven.drive(cx, |cx| body.as_mut().poll_frame(cx))).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "ok");
        assert!(requests.is_ready() && !driven.is_called(), "that its answer was taken is nothing to it");
        end.notify_one();
        let called = async {
            while !driven.is_called() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, called).await.expect("the app closed it");
        assert!(!driven.is_gone());
        driven.poll();
        assert!(driven.is_gone());
    });
}

/// An app of HTTP/2 that permits two streams, behind a PROXY header; nothing is ever answered.
async fn told_over_http2() -> App {
    App::start(|_, mut peer| async move {
        peer.until("\r\n").await;
        let mut builder = ::h2::server::Builder::new();
        let mut connected = builder.max_concurrent_streams(2).handshake::<_, bytes::Bytes>(peer.0).await.unwrap();
        while connected.accept().await.is_some() {}
    })
    .await
}

#[test]
fn where_connections_are_a_clients_own_room_is_a_matter_of_who_asks() {
    worker(async {
        let pool = pool(&told_over_http2().await, Protocol::H2c, ProxyProtocol::V1, 1);
        let one = pool.connect(LONG, Some(of(1))).await.unwrap();
        assert!(pool.has_room(|| of(1)), "its own connection has a place left");
        assert!(!pool.has_room(|| of(2)), "no place on another's connection is its own, and no further one may be made");
        let two = pool.reuse(Instant::now(), Some(of(1))).unwrap();
        assert!(!pool.has_room(|| of(1)));
        drop((one, two));
        assert!(pool.has_room(|| of(2)), "what nobody uses makes room");
        pool.connect(LONG, Some(of(2))).await.unwrap();
        assert_eq!(pool.count().0, 1);
    });
}

#[test]
fn a_place_that_is_free_on_a_clients_own_connection_is_taken_though_others_wait_longer() {
    worker(async {
        let pool = pool(&told_over_http2().await, Protocol::H2c, ProxyProtocol::V1, 2);
        let mut held = Vec::new();
        for port in [1, 2] {
            held.push(pool.connect(LONG, Some(of(port))).await.unwrap());
            held.push(pool.reuse(Instant::now(), Some(of(port))).unwrap());
        }
        let waits = |port| {
            let pool = Rc::clone(&pool);
            spawn_local(async move { pool.connect(LONG, Some(of(port))).await.map(|conn| conn.used) })
        };
        let (first, second) = (waits(1), waits(2));
        // Turns in which both begin to wait.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        held.pop();
        let served = tokio::time::timeout(Duration::from_secs(5), second).await.expect("its own connection has a place");
        assert!(served.unwrap().unwrap());
        assert!(!first.is_finished());
    });
}

/// Apps that share a server may have more patience or less.
#[test]
fn who_waits_for_a_connection_that_another_makes_in_vain_was_kept_waiting_by_the_server() {
    worker(async {
        // It takes connections, and says nothing.
        let app = App::start(|_, mut peer| async move { drop(peer.rest().await) }).await;
        let pool = pool(&app, Protocol::H2c, ProxyProtocol::Off, 4);
        let patient = Rc::clone(&pool);
        let dials = spawn_local(async move { patient.connect(LONG, None).await.map(drop) });
        while app.accepted.get() == 0 {
            tokio::task::yield_now().await;
        }
        let error = pool.connect(Duration::from_millis(50), None).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
        assert_eq!((app.accepted.get(), pool.count().0, dials.is_finished()), (1, 1, false), "it made none of its own");
    });
}
