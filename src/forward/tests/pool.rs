//! Connections: kept, shared, limited, retried.

use std::time::Instant;

use super::*;

/// Answers `answers[nth]` to the nth request of all its connections, then closes the connection where the answer is empty.
async fn scripted(answers: &'static [&'static str]) -> (App, Rc<RefCell<Vec<String>>>) {
    let heads = Rc::new(RefCell::new(Vec::new()));
    let record = Rc::clone(&heads);
    let app = App::start(move |_, mut peer| {
        let record = Rc::clone(&record);
        async move {
            loop {
                let head = peer.head().await;
                if head.is_empty() {
                    return;
                }
                record.borrow_mut().push(head);
                let answer = answers[record.borrow().len() - 1];
                if answer.is_empty() {
                    return;
                }
                peer.write(answer).await;
            }
        }
    })
    .await;
    (app, heads)
}

pub(super) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_connection_is_used_again() {
    worker(async {
        let (app, heads) = App::recording().await;
        let front = Setup::of(&[&app]).start().await;
        for _ in 0..10 {
            assert!(front.get().await.ends_with("ok"));
        }
        assert_eq!((app.accepted.get(), heads.borrow().len()), (1, 10));
        assert_eq!(front.servers.up().map(|(app, _, up)| (app.to_string(), up)).collect::<Vec<_>>(), [("wiki".into(), Some(true))]);
    });
}

#[test]
fn bytes_behind_an_answer_are_never_the_next_ones_answer() {
    worker(async {
        let (app, _) =
            scripted(&["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", OK, OK]).await;
        let front = Setup::of(&[&app]).start().await;
        for _ in 0..3 {
            let answer = front.get().await;
            assert!(answer.ends_with("\r\n\r\nok") && !answer.contains("poison"), "{answer}");
        }
        assert_eq!(app.accepted.get(), 2);
    });
}

#[test]
fn a_connection_that_the_app_closes_is_not_kept() {
    worker(async {
        let (app, _) = scripted(&[
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            OK,
        ])
        .await;
        let front = Setup::of(&[&app]).start().await;
        for _ in 0..3 {
            assert!(front.get().await.ends_with("ok"));
        }
        assert_eq!(app.accepted.get(), 3);
    });
}

#[test]
fn a_get_on_a_stale_connection_is_sent_once_more() {
    worker(async {
        for method in ["GET", "HEAD", "OPTIONS"] {
            let (app, heads) = scripted(&[OK, "", OK]).await;
            let front = Setup::of(&[&app]).start().await;
            assert!(front.get().await.ends_with("ok"));
            let answer = front
                .ask(&format!("{method} /again?q HTTP/1.1\r\nHost: wiki\r\nX-Twice: 1\r\nX-Twice: 2\r\nConnection: close\r\n\r\n"))
                .await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            let heads = heads.borrow();
            assert_eq!((heads.len(), app.accepted.get()), (3, 2));
            assert_eq!(heads[1], heads[2], "the same request");
        }
    });
}

#[test]
fn nothing_is_sent_a_third_time_nor_on_a_fresh_connection_again() {
    worker(async {
        let (app, heads) = scripted(&[OK, "", "", OK]).await;
        let front = Setup::of(&[&app]).start().await;
        assert!(front.get().await.ends_with("ok"));
        assert!(front.get().await.starts_with("HTTP/1.1 502"));
        assert_eq!(heads.borrow().len(), 3);
        let (app, heads) = scripted(&["", OK]).await;
        let front = Setup::of(&[&app]).start().await;
        assert!(front.get().await.starts_with("HTTP/1.1 502"));
        assert_eq!(heads.borrow().len(), 1);
    });
}

#[test]
fn no_get_is_repeated_after_a_byte_of_an_answer() {
    worker(async {
        let app = App::start(|_, mut peer| async move {
            peer.head().await;
            peer.write(OK).await;
            peer.head().await;
            peer.write("H").await;
        })
        .await;
        let front = Setup::of(&[&app]).start().await;
        assert!(front.get().await.ends_with("ok"));
        assert!(front.get().await.starts_with("HTTP/1.1 502"));
        assert_eq!(app.accepted.get(), 1);
    });
}

#[test]
fn a_request_with_a_body_or_an_effect_is_never_sent_twice() {
    worker(async {
        for request in [
            "POST / HTTP/1.1\r\nHost: wiki\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: wiki\r\nConnection: close\r\n\r\n",
            "DELETE / HTTP/1.1\r\nHost: wiki\r\nConnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: wiki\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        ] {
            let (app, heads) = scripted(&[OK, "", OK]).await;
            let front = Setup::of(&[&app]).start().await;
            assert!(front.get().await.ends_with("ok"));
            assert!(front.ask(request).await.starts_with("HTTP/1.1 502"), "{request}");
            assert_eq!(heads.borrow().len(), 2, "{request}");
        }
    });
}

#[test]
fn a_dead_server_is_passed_over_and_a_living_one_answers() {
    worker(async {
        let (app, heads) = App::recording().await;
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let mut way = Setup::of(&[&app]);
        way.routes[0].upstream.servers.insert(0, server(dead));
        let front = way.start().await;
        for _ in 0..4 {
            assert!(front.ask("POST / HTTP/1.1\r\nHost: wiki\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await.ends_with("ok"));
        }
        assert_eq!(heads.borrow().len(), 4);
        let up: Vec<_> = front.servers.up().map(|(_, _, up)| up).collect();
        assert_eq!(up, [Some(false), Some(true)]);
    });
}

#[test]
fn an_app_that_is_down_is_502() {
    worker(async {
        let (app, _) = App::recording().await;
        let mut way = Setup::of(&[&app]);
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        way.routes[0].upstream.servers = vec![server(dead), server(dead)];
        let front = way.start().await;
        assert!(front.get().await.starts_with("HTTP/1.1 502"));
        assert!(matches!(front.failures.borrow()[0], Failure::Unreachable(_)));
    });
}

#[test]
fn servers_take_turns() {
    worker(async {
        let (one, first) = App::recording().await;
        let (two, second) = App::recording().await;
        let front = Setup::of(&[&one, &two]).start().await;
        for _ in 0..10 {
            front.get().await;
        }
        assert_eq!((first.borrow().len(), second.borrow().len()), (5, 5));
    });
}

#[test]
fn a_name_is_resolved() {
    worker(async {
        let (app, _) = App::recording().await;
        let mut way = Setup::of(&[&app]);
        way.routes[0].upstream.servers[0].at = At::Tcp { host: "localhost".into(), port: app.address.port() };
        assert!(way.start().await.get().await.ends_with("ok"));
    });
}

#[test]
fn beyond_its_connections_a_server_makes_requests_wait() {
    worker(async {
        let go = Rc::new(tokio::sync::Notify::new());
        let gone = Rc::clone(&go);
        let app = App::start(move |_, mut peer| {
            let gone = Rc::clone(&gone);
            async move {
                loop {
                    if peer.head().await.is_empty() {
                        return;
                    }
                    gone.notified().await;
                    peer.write(OK).await;
                }
            }
        })
        .await;
        let mut way = Setup::of(&[&app]);
        way.limits.upstream_connections = 1;
        let front = way.start().await;
        let asks: Vec<_> = (0..3)
            .map(|_| {
                let front = front.clone();
                spawn_local(async move { front.get().await })
            })
            .collect();
        for ask in asks {
            go.notify_one();
            assert!(ask.await.unwrap().ends_with("ok"));
        }
        assert_eq!(app.accepted.get(), 1);

        let mut way = Setup::of(&[&app]);
        way.limits.upstream_connections = 1;
        way.timeouts().connect = Duration::from_millis(50);
        let front = way.start().await;
        let mut first = Peer::to(front.address).await;
        first.write("GET / HTTP/1.1\r\nHost: wiki\r\n\r\n").await;
        while app.accepted.get() < 2 {
            tokio::task::yield_now().await;
        }
        assert!(front.get().await.starts_with("HTTP/1.1 502"));
        assert!(matches!(&front.failures.borrow()[0], Failure::Unreachable(why) if why.kind() == std::io::ErrorKind::WouldBlock));
        assert_eq!(front.servers.up().next().unwrap().2, Some(true), "a full server is not down");
    });
}

#[test]
fn idle_connections_end_in_time_and_old_ones_are_not_used() {
    worker(async {
        let (app, _) = App::recording().await;
        let mut way = Setup::of(&[&app]);
        way.timeouts().idle = Duration::from_secs(3);
        let front = way.start().await;
        front.get().await;
        let server = Rc::clone(front.upstreams.borrow().server("127.0.0.1", app.address.port()));
        assert_eq!(server.count(), (1, 1));
        server.expire(Instant::now() + Duration::from_secs(2));
        assert_eq!(server.count().1, 1);
        server.expire(Instant::now() + Duration::from_secs(4));
        assert_eq!(server.count().1, 0);
        while server.count().0 != 0 {
            tokio::task::yield_now().await;
        }

        let (app, _) = App::recording().await;
        let mut way = Setup::of(&[&app]);
        way.limits.upstream_max_age = Duration::ZERO;
        let front = way.start().await;
        for _ in 0..3 {
            front.get().await;
        }
        assert_eq!(app.accepted.get(), 3);
    });
}

#[test]
fn no_more_idle_connections_are_kept_than_permitted() {
    worker(async {
        let (app, _) = App::recording().await;
        let mut way = Setup::of(&[&app]);
        way.limits.upstream_idle = 2;
        let front = way.start().await;
        let asks: Vec<_> = (0..8)
            .map(|_| {
                let front = front.clone();
                spawn_local(async move { front.get().await })
            })
            .collect();
        for ask in asks {
            assert!(ask.await.unwrap().ends_with("ok"));
        }
        let server = Rc::clone(front.upstreams.borrow().server("127.0.0.1", app.address.port()));
        assert!(server.count().1 <= 2);
        while server.count().0 > 2 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_reload_keeps_connections_and_what_is_known_of_servers() {
    worker(async {
        let (app, heads) = App::recording().await;
        let way = Setup::of(&[&app]);
        let (routes, limits) = (way.routes.clone(), way.limits.clone());
        let front = way.start().await;
        front.get().await;
        let servers = front.servers.next(&routes, Arc::default());
        assert_eq!(servers.up().next().unwrap().2, Some(true));
        let next = Rc::new(front.upstreams.borrow().next(&servers, &limits, Writer(0)));
        *front.upstreams.borrow_mut() = next;
        front.get().await;
        assert_eq!((app.accepted.get(), heads.borrow().len()), (1, 2));
    });
}

#[test]
fn a_server_that_takes_no_connection_is_given_up_in_time() {
    worker(async {
        // Its queue has room for hardly any, and nobody takes them out.
        let deaf = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        deaf.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        deaf.listen(0).unwrap();
        let address = deaf.local_addr().unwrap().as_socket().unwrap();
        let queued: Vec<_> =
            std::iter::from_fn(|| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok()).collect();
        assert!(queued.len() < 10, "the queue has an end");
        let (app, heads) = App::recording().await;
        let mut way = Setup::of(&[&app]);
        way.routes[0].upstream.servers = vec![server(address)];
        way.timeouts().connect = Duration::from_millis(100);
        let front = way.start().await;
        assert!(front.get().await.starts_with("HTTP/1.1 502"));
        assert!(matches!(&front.failures.borrow()[0], Failure::Unreachable(error) if error.kind() == std::io::ErrorKind::TimedOut));
        assert!(heads.borrow().is_empty());
    });
}

#[test]
fn of_many_dead_servers_a_request_tries_eight() {
    worker(async {
        let (app, _) = App::recording().await;
        let mut way = Setup::of(&[&app]);
        let listeners: Vec<_> = (0..10).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        way.routes[0].upstream.servers = listeners.iter().map(|listener| server(listener.local_addr().unwrap())).collect();
        drop(listeners);
        let front = way.start().await;
        assert!(front.get().await.starts_with("HTTP/1.1 502"));
        assert_eq!(front.servers.up().filter(|(_, _, up)| *up == Some(false)).count(), 8);
    });
}
