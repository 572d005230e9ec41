//! Connections that are one client's alone, and those that end as they are asked to leave HTTP.

use std::pin::pin;

use tokio::sync::Notify;

use super::*;
use crate::forward::Ends;
use crate::forward::pool::{Caps, Server as Pool};
use crate::forward::servers::Pooled;
use crate::forward::upload::RequestBody;
use crate::forward::upstreams::Reach;

const LONG: Duration = Duration::from_secs(10);

fn pool(app: &App, proxy_protocol: ProxyProtocol) -> Rc<Pool> {
    let at = At::Tcp { host: app.address.ip().to_string(), port: app.address.port() };
    let reach = Reach { at, address: Some(app.address), tls: None, protocol: Protocol::Http1, proxy_protocol };
    Pool::new(reach, Caps { idle: 4, open: 1, max_age: Duration::MAX }, Pooled::default(), None)
}

#[test]
fn where_all_permitted_connections_are_idle_ones_of_others_the_longest_idle_makes_room() {
    worker(async {
        let (app, _) = App::recording().await;
        let pool = pool(&app, ProxyProtocol::V1);
        let of = |port| Some(Ends { source: ([192, 0, 2, 7], port).into(), destination: ([198, 51, 100, 1], 443).into() });
        pool.connect(LONG, of(1)).await.unwrap().give_back(LONG);
        assert_eq!(pool.count(), (1, 1));
        assert!(pool.has_room());
        let second = pool.connect(LONG, of(2)).await.unwrap();
        assert!(!second.used);
        assert_eq!(pool.count(), (1, 0));
        second.give_back(LONG);
        assert!(pool.reuse(std::time::Instant::now(), of(1)).is_none());
        assert!(pool.reuse(std::time::Instant::now(), of(2)).is_some());
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
        let pool = pool(&app, ProxyProtocol::Off);
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
