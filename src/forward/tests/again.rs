//! What is sent a second time, and where.

use std::collections::HashSet;

use ::h2::Reason;
use ::h2::server::Builder;
use tokio::sync::Notify;

use super::http2::{app, way};
use super::pool::OK;
use super::*;

/// As servers do that end: each of its connections answers one request, and closes at the next.
async fn ending(name: &'static str, seen: &Rc<RefCell<Vec<(&'static str, String)>>>) -> App {
    let seen = Rc::clone(seen);
    App::start(move |_, mut peer| {
        let seen = Rc::clone(&seen);
        async move {
            for answer in [OK, ""] {
                let head = peer.head().await;
                seen.borrow_mut().push((name, head.lines().next().unwrap_or_default().to_owned()));
                peer.write(answer).await;
            }
        }
    })
    .await
}

#[test]
fn the_second_sending_goes_to_another_server_but_for_who_stays_with_one() {
    worker(async {
        for (balance, stays) in [(Balance::RoundRobin, false), (Balance::LeastRequests, false), (Balance::Hash, true)] {
            let seen = Rc::new(RefCell::new(Vec::new()));
            let (one, two) = (ending("one", &seen).await, ending("two", &seen).await);
            let mut way = Setup::of(&[&one, &two]);
            way.routes[0].upstream.balance = balance;
            let front = way.start().await;
            let mut twice = 0;
            for n in 0..60 {
                let line = format!("GET /{n} HTTP/1.1");
                let answer = front.ask(&format!("{line}\r\nHost: wiki\r\nConnection: close\r\n\r\n")).await;
                assert!(answer.ends_with("ok"), "{balance:?}: {answer}");
                let at: Vec<_> = seen.borrow().iter().filter(|(_, seen)| *seen == line).map(|(name, _)| *name).collect();
                match at[..] {
                    [_] => {}
                    [first, second] => {
                        assert_eq!(first == second, stays, "{balance:?}");
                        twice += 1;
                    }
                    _ => panic!("{balance:?}: {at:?}"),
                }
            }
            assert!(twice >= 20, "{balance:?}: {twice}");
        }
    });
}

#[test]
fn the_second_sending_is_on_a_fresh_connection() {
    worker(async {
        let here = Rc::new(Cell::new(0));
        let count = Rc::clone(&here);
        let app = App::start(move |_, mut peer| {
            let here = Rc::clone(&count);
            async move {
                peer.head().await;
                here.set(here.get() + 1);
                // The first two are here at once, so that each has a connection.
                while here.get() < 2 {
                    tokio::task::yield_now().await;
                }
                peer.write(OK).await;
                peer.head().await;
            }
        })
        .await;
        let front = Setup::of(&[&app]).start().await;
        let asks = [front.clone(), front.clone()].map(|front| spawn_local(async move { front.get().await }));
        for ask in asks {
            assert!(ask.await.unwrap().ends_with("ok"));
        }
        assert_eq!(app.accepted.get(), 2);
        assert!(front.get().await.ends_with("ok"), "the other idle one is as dead");
        assert_eq!(app.accepted.get(), 3);
    });
}

#[test]
fn who_waited_in_vain_for_two_servers_waits_for_no_third() {
    worker(async {
        let mut silent = Vec::new();
        for _ in 0..5 {
            silent.push(App::start(|_, mut peer| async move { drop(peer.rest().await) }).await);
        }
        let mut way = Setup::of(&silent.iter().collect::<Vec<_>>());
        // Such a connection is made when the server has said something.
        way.routes[0].upstream.protocol = Protocol::H2c;
        way.timeouts().connect = Duration::from_millis(50);
        let front = way.start().await;
        assert!(front.get().await.starts_with("HTTP/1.1 502"));
        assert!(matches!(front.failures.borrow()[0], Failure::Unreachable(_)));
        let tried: usize = silent.iter().map(|app| app.accepted.get()).sum();
        assert!((1..=2).contains(&tried), "{tried}");
    });
}

#[test]
fn no_get_is_repeated_where_the_connection_was_fresh_or_the_app_reset_it() {
    worker(async {
        for used in [0, 1] {
            let calls = Rc::new(Cell::new(0));
            let count = Rc::clone(&calls);
            let app = app(&Builder::new(), move |mut call| {
                count.set(count.get() + 1);
                async move {
                    match call.number.cmp(&used) {
                        std::cmp::Ordering::Equal => call.answer.send_reset(Reason::INTERNAL_ERROR),
                        _ => call.reply("ok"),
                    }
                }
            })
            .await;
            let front = way(&app).start().await;
            for _ in 0..used {
                assert!(front.get().await.ends_with("ok"));
            }
            assert!(front.get().await.starts_with("HTTP/1.1 502"));
            assert_eq!(calls.get(), used + 1, "reset");
        }
        let calls = Rc::new(Cell::new(0));
        let count = Rc::clone(&calls);
        let app = App::start(move |_, peer| {
            let count = Rc::clone(&count);
            async move {
                let mut connected = ::h2::server::handshake(peer.0).await.unwrap();
                let _gone = connected.accept().await;
                count.set(count.get() + 1);
            }
        })
        .await;
        let front = way(&app).start().await;
        assert!(front.get().await.starts_with("HTTP/1.1 502"));
        assert_eq!(calls.get(), 1, "a fresh connection that was gone");
    });
}

/// RFC 9113 section 6.8: what is beyond the last stream of a GOAWAY was not looked at. All else may have been.
#[test]
fn only_what_a_goaway_says_was_not_looked_at_is_sent_again() {
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const STATUS_200: &[u8] = &[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88];
    const NOTHING_SEEN: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const SEEN: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    const SEEN_AND_FAILED: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2];
    // DATA of no stream: the connection ends by our own word.
    const NONSENSE: &[u8] = &[0, 0, 1, 0, 0, 0, 0, 0, 0, b'x'];
    worker(async {
        for (says, status, asked) in
            [(NOTHING_SEEN, "200", 2), (SEEN, "502", 1), (SEEN_AND_FAILED, "502", 1), (NONSENSE, "502", 1), (b"", "502", 1)]
        {
            let bodies = Rc::new(Cell::new(0));
            let record = Rc::clone(&bodies);
            let app = App::start(move |nth, mut peer| {
                let record = Rc::clone(&record);
                async move {
                    peer.write(SETTINGS).await;
                    if peer.until("hello").await.ends_with("hello") {
                        record.set(record.get() + 1);
                    }
                    peer.write(if nth == 0 { says } else { STATUS_200 }).await;
                    if nth > 0 {
                        peer.rest().await;
                    }
                }
            })
            .await;
            let front = way(&app).start().await;
            let answer = front.ask("POST / HTTP/1.1\r\nHost: wiki\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello").await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{says:?}: {answer}");
            assert_eq!(bodies.get(), asked, "{says:?}");
        }
    });
}

/// gRPC's own server does so, for reasons of its own.
#[test]
fn where_the_app_refuses_more_than_runs_there_the_others_go_elsewhere() {
    worker(async {
        let (held, running, go) = (RefCell::new(HashSet::new()), Rc::new(Cell::new(0)), Rc::new(Notify::new()));
        let (count, gate) = (Rc::clone(&running), Rc::clone(&go));
        let app = app(&Builder::new(), move |mut call| {
            let alone = held.borrow_mut().insert(call.connection);
            let (count, gate) = (Rc::clone(&count), Rc::clone(&gate));
            async move {
                if !alone {
                    return call.answer.send_reset(Reason::REFUSED_STREAM);
                }
                count.set(count.get() + 1);
                gate.notified().await;
                call.reply("ok");
            }
        })
        .await;
        let front = way(&app).start().await;
        let ask = || {
            let front = front.clone();
            spawn_local(async move { front.get().await })
        };
        let asks: Vec<_> = (0..6).map(|_| ask()).collect();
        while running.get() < 6 && front.failures.borrow().is_empty() {
            tokio::task::yield_now().await;
        }
        go.notify_waiters();
        for ask in asks {
            assert!(ask.await.unwrap().ends_with("ok"));
        }
        assert_eq!(app.accepted.get(), 6);
    });
}
