//! Clients that send and read so slowly that they hold what others need.

use super::*;

const SLOW: &str = "{handshake: 1s, request_head: 1s, idle: 1s, body_rate: 1KiB/s}";
/// Fifty bytes a second.
const DRIP: Duration = Duration::from_millis(20);

/// For as long as the proxy takes bytes, and no longer than `most`.
fn drips(most: Duration, mut drip: impl FnMut() -> bool) {
    let begun = Instant::now();
    while begun.elapsed() < most && drip() {
        std::thread::sleep(DRIP);
    }
}

/// R-U-Dead-Yet: every byte is in time, and the body never ends.
#[test]
fn a_body_that_drips_is_given_up() {
    let mut world = World::new(SLOW);
    let begun = Instant::now();
    world.beside(|| {
        std::thread::scope(|scope| {
            for (head, byte) in [("Content-Length: 1000000\r\n", &b"x"[..]), ("Transfer-Encoding: chunked\r\n", b"1\r\nx\r\n")] {
                let mut stream = world.plain();
                scope.spawn(move || {
                    stream.write_all(format!("POST / HTTP/1.1\r\nHost: wiki.localhost\r\n{head}\r\n").as_bytes()).unwrap();
                    let mut answer = stream.try_clone().unwrap();
                    let reader = std::thread::spawn(move || String::from_utf8_lossy(&rest(&mut answer)).into_owned());
                    drips(Duration::from_secs(10), || !reader.is_finished() && stream.write_all(byte).is_ok());
                    let answer = reader.join().unwrap();
                    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
                });
            }
            let mut h2 = world.h2();
            let id = h2.open(&h2::post("wiki.localhost", "/"), false);
            h2.patience(DRIP);
            let mut status = 0;
            drips(Duration::from_secs(10), || {
                h2.write(&h2::frame(h2::DATA, 0, id, b"x"));
                if let h2::Next::Frame(frame) = h2.next()
                    && frame.kind == h2::HEADERS
                {
                    status = h2::status(&frame.payload);
                }
                status == 0
            });
            assert_eq!(status, 400);
        });
    });
    assert!(begun.elapsed() > Duration::from_millis(700) && begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(world.origin.received().iter().all(|received| received.line().contains("/good")), "no half request is a request");
    world.proxy.metric_reaches("vestibule_requests_total", &[("status", "400")], 3.0);
    world.alive();
}

/// Longer than `idle` in all, and with pauses, but never too slow.
#[test]
fn a_body_that_only_takes_long_is_served() {
    let mut world = World::new("{idle: 1s, body_rate: 10/s}");
    let mut stream = world.plain();
    stream.write_all(b"POST /long HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: close\r\nContent-Length: 150\r\n\r\n").unwrap();
    let begun = Instant::now();
    for _ in 0..15 {
        stream.write_all(b"ten bytes!").unwrap();
        std::thread::sleep(Duration::from_millis(150));
    }
    let answer = String::from_utf8_lossy(&rest(&mut stream)).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200 ") && begun.elapsed() > Duration::from_secs(2), "{answer}");
    world.alive();
}

/// The trickle of gRPC is its own business.
#[test]
fn a_grpc_stream_may_drip() {
    let mut world = World::new("{idle: 1s, body_rate: 1KiB/s}");
    let mut h2 = world.h2();
    let id =
        h2.open(&[&h2::post("wiki.localhost", "/call")[..], &[("content-type", "application/grpc"), ("te", "trailers")]].concat(), false);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        h2.write(&h2::frame(h2::DATA, 0, id, b"x"));
        std::thread::sleep(DRIP);
    }
    h2.write(&h2::frame(h2::DATA, h2::END_STREAM, id, b"x"));
    assert_eq!(h2.outcome(id).status, 200);
    world.alive();
}

/// Of the answers on one connection, one that is taken hides none that is not: first a GOAWAY for whoever means well, then the end.
#[test]
fn a_stream_that_moves_hides_none_that_stands() {
    let mut world = World::new(SHORT);
    let mut h2 = H2::with_settings(&world.proxy, &world.lab, ("wiki.localhost", None), &[(1, 0), (4, 0)]);
    h2.open(&h2::get("wiki.localhost", "/large"), true);
    let moves = h2.open(&h2::get("wiki.localhost", "/large"), true);
    let begun = Instant::now();
    h2.patience(Duration::from_millis(50));
    let (mut goaway, mut ended) = (None, None);
    while begun.elapsed() < Duration::from_secs(10) && ended.is_none() {
        let more = 200_000_u32.to_be_bytes();
        h2.write(&[h2::frame(h2::WINDOW_UPDATE, 0, 0, &more), h2::frame(h2::WINDOW_UPDATE, 0, moves, &more)].concat());
        loop {
            match h2.next() {
                h2::Next::Frame(frame) if frame.kind == h2::GOAWAY => drop(goaway.get_or_insert(begun.elapsed())),
                h2::Next::Frame(_) => {}
                h2::Next::Silence => break,
                h2::Next::Closed => {
                    ended = Some(begun.elapsed());
                    break;
                }
            }
        }
    }
    let (goaway, ended) = (goaway.expect("a GOAWAY comes first"), ended.expect("the connection ends"));
    assert!(goaway >= Duration::from_millis(700) && goaway < Duration::from_secs(2), "GOAWAY after {goaway:?}");
    assert!(ended >= Duration::from_millis(1700) && ended < Duration::from_secs(5), "closed after {ended:?}");
    world.rejected("slow_read", 1.0);
    world.alive();
}

/// A reader that takes a few bytes now and then makes room for nothing that could be sent.
#[test]
fn an_answer_that_is_read_in_drips_is_cut() {
    let mut world = World::new(SHORT);
    let mut stream = world.plain();
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n").unwrap();
    let begun = Instant::now();
    let mut read = 0;
    world.beside(|| {
        drips(Duration::from_secs(10), || {
            let mut few = [0; 10];
            let going = world.proxy.metrics().sum("vestibule_rejected_total", &[("reason", "slow_read")]) == 0.0;
            read += stream.read(&mut few).unwrap_or(0);
            going
        });
    });
    world.rejected("slow_read", 1.0);
    assert!(begun.elapsed() < Duration::from_secs(8) && read < 10_000, "{:?}, {read} bytes", begun.elapsed());
    world.alive();
}
