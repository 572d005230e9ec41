//! Bodies, both ways.

use super::*;
use crate::forward::End;

#[test]
fn a_body_is_framed_anew_and_its_trailers_dropped() {
    worker(async {
        let app = App::start(|_, mut peer| async move {
            let head = peer.head().await;
            let body = peer.until("0\r\n\r\n").await;
            let echo = format!("{head}|{body}");
            peer.write(format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{echo}", echo.len())).await;
        })
        .await;
        let front = Setup::of(&[&app]).start().await;
        let mut answers = Vec::new();
        for method in ["GET", "POST"] {
            let request = format!(
                "{method} / HTTP/1.1\r\nHost: wiki\r\nConnection: close\r\nTrailer: X-Sum\r\nTransfer-Encoding: Chunked\r\n\r\n3;ext=1\r\nabc\r\n002\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n"
            );
            answers.push(front.ask(&request).await);
        }
        for answer in answers {
            let (head, body) = answer.split_once('|').unwrap_or_else(|| panic!("{answer}"));
            assert_eq!(head.matches("transfer-encoding: chunked").count(), 1, "{head}");
            assert!(!head.to_lowercase().contains("trailer") && !head.contains("ext=1"), "{head}");
            let data: String = body.split("\r\n").skip(1).step_by(2).collect();
            assert_eq!(data, "abcde", "{body}");
            assert!(body.ends_with("0\r\n\r\n") && !body.contains("X-Sum") && !body.contains("x-sum"), "{body}");
        }
        assert!(front.ended.borrow().iter().all(|ended| ended.bytes_in == 5 && ended.end == End::Whole));
    });
}

#[test]
fn a_post_without_body_says_so() {
    worker(async {
        let (app, heads) = App::recording().await;
        let front = Setup::of(&[&app]).start().await;
        front.ask("POST / HTTP/1.1\r\nHost: wiki\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        front.ask("POST / HTTP/1.1\r\nHost: wiki\r\nConnection: close\r\n\r\n").await;
        front.get().await;
        let lengths: Vec<_> = heads.borrow().iter().map(|head| head.contains("content-length: 0\r\n")).collect();
        assert_eq!(lengths, [true, true, false]);
    });
}

#[test]
fn a_body_is_asked_for_when_the_app_wants_it() {
    worker(async {
        let (want, wanted) = tokio::sync::oneshot::channel::<()>();
        let wanted = Rc::new(RefCell::new(Some(wanted)));
        let app = App::start(move |_, mut peer| {
            let wanted = wanted.borrow_mut().take();
            async move {
                let head = peer.head().await;
                assert_eq!(head.to_lowercase().matches("expect: 100-continue").count(), 1, "{head}");
                wanted.unwrap().await.unwrap();
                peer.write("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").await;
                assert_eq!(peer.take(5).await, "hello");
                peer.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                peer.rest().await;
            }
        })
        .await;
        let front = Setup::of(&[&app]).start().await;
        let mut client = Peer::to(front.address).await;
        client.write("POST / HTTP/1.1\r\nHost: wiki\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\n").await;
        let early = tokio::time::timeout(Duration::from_millis(100), client.head()).await;
        assert!(early.is_err(), "{early:?}");
        want.send(()).unwrap();
        assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
        client.write("hello").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
    });
}

#[test]
fn an_app_that_knows_no_expectation_gets_the_body_all_the_same() {
    worker(async {
        let app = App::start(|_, mut peer| async move {
            peer.head().await;
            assert_eq!(peer.take(5).await, "hello");
            peer.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            peer.rest().await;
        })
        .await;
        let front = Setup::of(&[&app]).start().await;
        let mut client = Peer::to(front.address).await;
        client.write("POST / HTTP/1.1\r\nHost: wiki\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 100"));
        client.write("hello").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
    });
}

#[test]
fn an_app_that_does_not_want_the_body_says_so_before_it_is_sent() {
    worker(async {
        let app = App::start(|_, mut peer| async move {
            peer.head().await;
            peer.write("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno").await;
            assert_eq!(peer.rest().await, "", "not a byte of the body");
        })
        .await;
        let front = Setup::of(&[&app]).start().await;
        let mut client = Peer::to(front.address).await;
        client.write("POST / HTTP/1.1\r\nHost: wiki\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 417 ") && answer.ends_with("\r\n\r\nno"), "{answer}");
        assert_eq!(front.ended.borrow()[0].bytes_in, 0);
    });
}

#[test]
fn an_upload_goes_on_while_its_answer_waits_for_the_client() {
    const SIZE: usize = 24 << 20;
    worker(async {
        let app = App::start(|_, mut peer| async move {
            peer.head().await;
            let (mut from, mut to) = peer.0.split();
            to.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes()).await.unwrap();
            let answer = async { to.write_all(&vec![b'a'; SIZE]).await.unwrap() };
            let mut upload = vec![0; SIZE];
            let (_, read) = tokio::join!(answer, from.read_exact(&mut upload));
            read.unwrap();
        })
        .await;
        let front = Setup::of(&[&app]).start().await;
        let mut client = Peer::to(front.address).await;
        client.write(format!("POST / HTTP/1.1\r\nHost: wiki\r\nContent-Length: {SIZE}\r\n\r\n")).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
        client.write(vec![b'u'; SIZE]).await;
        assert_eq!(client.take(SIZE).await.len(), SIZE);
        assert_eq!(front.ended.borrow()[..], [Ended { bytes_in: SIZE as u64, bytes_out: SIZE as u64, end: End::Whole }]);
    });
}

#[test]
fn a_body_that_the_app_cut_short_looks_cut() {
    worker(async {
        for (answer, whole) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this", "only this"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n", "9\r\nonly this\r\n"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\nxyz\r\n", "9\r\nonly this\r\n"),
        ] {
            let app = App::start(move |_, mut peer| async move {
                peer.head().await;
                peer.write(answer).await;
            })
            .await;
            let front = Setup::of(&[&app]).start().await;
            let got = front.ask("GET / HTTP/1.1\r\nHost: wiki\r\n\r\n").await;
            assert!(got.starts_with("HTTP/1.1 200"), "{got}");
            assert!(got.ends_with(&format!("\r\n\r\n{whole}")), "{got:?}");
            assert_eq!(front.ended.borrow()[..], [Ended { bytes_in: 0, bytes_out: 9, end: End::Cut }]);
        }
    });
}

#[test]
fn an_answer_that_stands_still_is_cut() {
    worker(async {
        let app = App::start(|_, mut peer| async move {
            peer.head().await;
            peer.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this").await;
            assert_eq!(peer.rest().await, "");
        })
        .await;
        let mut way = Setup::of(&[&app]);
        way.timeouts().idle = Duration::from_millis(100);
        let front = way.start().await;
        let got = front.ask("GET / HTTP/1.1\r\nHost: wiki\r\n\r\n").await;
        assert!(got.ends_with("only this"), "{got}");
        assert_eq!(front.ended.borrow()[0].end, End::Cut);
    });
}

#[test]
fn slow_is_not_still() {
    worker(async {
        let app = App::start(|_, mut peer| async move {
            peer.head().await;
            peer.write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n").await;
            for _ in 0..6 {
                tokio::time::sleep(Duration::from_millis(60)).await;
                peer.write("x").await;
            }
            peer.rest().await;
        })
        .await;
        let mut way = Setup::of(&[&app]);
        way.timeouts().idle = Duration::from_millis(250);
        let front = way.start().await;
        assert!(front.get().await.ends_with("xxxxxx"));
    });
}

#[test]
fn an_app_that_says_nothing_is_504() {
    worker(async {
        let app = App::start(|_, mut peer| async move {
            assert!(!peer.rest().await.is_empty(), "the request came, and then the connection closed");
        })
        .await;
        let mut way = Setup::of(&[&app]);
        way.timeouts().response = Duration::from_millis(50);
        let front = way.start().await;
        assert!(front.get().await.starts_with("HTTP/1.1 504"));
        assert!(
            front
                .ask("POST / HTTP/1.1\r\nHost: wiki\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                .await
                .starts_with("HTTP/1.1 504")
        );
        assert_eq!(app.accepted.get(), 2, "a timeout is never retried");
    });
}

#[test]
fn the_time_for_an_answer_runs_from_the_end_of_an_http2_upload() {
    worker(async {
        let app = App::start(|_, mut peer| async move {
            assert!(peer.rest().await.contains("content-length: 5\r\n"));
        })
        .await;
        let mut way = Setup::of(&[&app]);
        way.timeouts().response = Duration::from_millis(50);
        way.timeouts().idle = Duration::from_secs(60);
        let front = way.start().await;
        let io = TokioIo::new(TcpStream::connect(front.address).await.unwrap());
        let (mut client, connection) = hyper::client::conn::http2::handshake(Local, io).await.unwrap();
        spawn_local(connection);
        let (sender, mut data) = tokio::sync::mpsc::unbounded_channel::<&str>();
        let frames = futures_util::stream::poll_fn(move |cx| {
            data.poll_recv(cx).map(|data| data.map(|data| Ok::<_, Infallible>(http_body::Frame::data(bytes::Bytes::from(data)))))
        });
        let body = http_body_util::StreamBody::new(frames);
        let request = Request::post("https://wiki/").header("content-length", "5").body(body).unwrap();
        let answer = spawn_local(client.send_request(request));
        sender.send("hel").unwrap();
        while app.accepted.get() == 0 {
            tokio::task::yield_now().await;
        }
        sender.send("lo").unwrap();
        assert_eq!(answer.await.unwrap().unwrap().status(), 504);
    });
}

#[test]
fn a_client_that_stops_sending_is_408_and_the_app_let_go() {
    worker(async {
        let app = App::start(|_, mut peer| async move {
            assert!(peer.rest().await.ends_with("hel"));
        })
        .await;
        let mut way = Setup::of(&[&app]);
        way.timeouts().idle = Duration::from_millis(100);
        way.timeouts().response = Duration::from_millis(10);
        let front = way.start().await;
        assert!(front.ask("POST / HTTP/1.1\r\nHost: wiki\r\nContent-Length: 5\r\n\r\nhel").await.starts_with("HTTP/1.1 408"));
    });
}

#[test]
fn an_app_that_stops_reading_is_504() {
    worker(async {
        let app = App::start(|_, peer| async move {
            let _kept = peer;
            std::future::pending::<()>().await;
        })
        .await;
        let mut way = Setup::of(&[&app]);
        way.timeouts().idle = Duration::from_millis(200);
        let front = way.start().await;
        let (mut reader, mut writer) = TcpStream::connect(front.address).await.unwrap().into_split();
        writer.write_all(b"POST / HTTP/1.1\r\nHost: wiki\r\nContent-Length: 1000000000\r\n\r\n").await.unwrap();
        let sending = spawn_local(async move { while writer.write_all(&[b'x'; 65536]).await.is_ok() {} });
        let mut status = [0; 12];
        reader.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 504");
        sending.abort();
    });
}

#[test]
fn a_client_that_leaves_takes_the_upstream_request_with_it() {
    worker(async {
        let closed = Rc::new(tokio::sync::Notify::new());
        let told = Rc::clone(&closed);
        let app = App::start(move |_, mut peer| {
            let told = Rc::clone(&told);
            async move {
                peer.rest().await;
                told.notify_one();
            }
        })
        .await;
        let front = Setup::of(&[&app]).start().await;
        for request in ["GET / HTTP/1.1\r\nHost: wiki\r\n\r\n", "POST / HTTP/1.1\r\nHost: wiki\r\nContent-Length: 10\r\n\r\nhel"] {
            let mut client = Peer::to(front.address).await;
            client.write(request).await;
            while app.accepted.get() == 0 {
                tokio::task::yield_now().await;
            }
            drop(client);
            closed.notified().await;
        }
    });
}

#[test]
fn max_body_by_its_length_never_reaches_the_app() {
    worker(async {
        let (app, _) = App::recording().await;
        let mut way = Setup::of(&[&app]);
        way.merged.max_body = Some(4);
        let front = way.start().await;
        assert!(
            front
                .ask("POST / HTTP/1.1\r\nHost: wiki\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
                .await
                .starts_with("HTTP/1.1 413")
        );
        assert_eq!(app.accepted.get(), 0);
        assert!(matches!(front.failures.borrow()[0], Failure::BodyTooLarge { limit: 4 }));
    });
}

#[test]
fn max_body_by_its_bytes_cuts_the_app_off() {
    worker(async {
        let app = App::start(|_, mut peer| async move {
            let all = peer.rest().await;
            assert!(!all.ends_with("0\r\n\r\n"), "the app must not take it for whole: {all}");
        })
        .await;
        let mut way = Setup::of(&[&app]);
        way.limits.body_size = Some(4);
        way.merged.max_body = Some(1000);
        let front = way.start().await;
        let answer = front
            .ask(
                "POST / HTTP/1.1\r\nHost: wiki\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n",
            )
            .await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    });
}

#[test]
fn an_answer_before_the_end_of_the_request_passes_and_ends_both() {
    worker(async {
        let app = App::start(|_, mut peer| async move {
            peer.head().await;
            peer.write("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno").await;
            peer.rest().await;
        })
        .await;
        let front = Setup::of(&[&app]).start().await;
        let mut client = Peer::to(front.address).await;
        client.write("POST / HTTP/1.1\r\nHost: wiki\r\nContent-Length: 1000\r\n\r\nsome").await;
        let got = client.rest().await;
        assert!(got.starts_with("HTTP/1.1 401") && got.ends_with("no"), "{got}");
        let port = app.address.port();
        while front.upstreams.borrow().server("127.0.0.1", port).count() != (0, 0) {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn large_bodies_pass_both_ways_byte_for_byte() {
    worker(async {
        const SIZE: usize = 3_000_000;
        let app = App::start(|_, mut peer| async move {
            let head = peer.head().await;
            assert!(head.contains(&format!("content-length: {SIZE}\r\n")), "{head}");
            let mut body = vec![0; SIZE];
            peer.0.read_exact(&mut body).await.unwrap();
            peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            for piece in body.chunks(70_000) {
                peer.write(format!("{:x}\r\n", piece.len())).await;
                peer.write(piece).await;
                peer.write("\r\n").await;
            }
            peer.write("0\r\n\r\n").await;
            peer.rest().await;
        })
        .await;
        let front = Setup::of(&[&app]).start().await;
        let body: Vec<u8> = (0..SIZE).map(|n| (n * 31 % 251) as u8).collect();
        let (mut reader, mut writer) = TcpStream::connect(front.address).await.unwrap().into_split();
        let sent = body.clone();
        spawn_local(async move {
            // HTTP/1.0: the answer comes back without chunks, and ends with the connection.
            writer.write_all(format!("POST / HTTP/1.0\r\nHost: wiki\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes()).await.unwrap();
            writer.write_all(&sent).await.unwrap();
            std::future::pending::<()>().await;
        });
        let mut answer = Vec::new();
        reader.read_to_end(&mut answer).await.unwrap();
        assert!(answer.ends_with(&body), "{} bytes", answer.len());
        assert_eq!(front.ended.borrow()[0], Ended { bytes_in: SIZE as u64, bytes_out: SIZE as u64, end: End::Whole });
    });
}
