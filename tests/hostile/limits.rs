//! Limits that no other test runs into.

use super::*;

fn post(stream: &mut TcpStream, lines: &str, body: &[u8]) -> String {
    stream.write_all(format!("POST / HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: close\r\n{lines}\r\n").as_bytes()).unwrap();
    let _ = stream.write_all(body);
    String::from_utf8_lossy(&rest(stream)).into_owned()
}

#[test]
fn body_size() {
    let mut world = World::new("{body_size: 1KiB}");
    assert!(post(&mut world.plain(), "Content-Length: 1024\r\n", &[b'x'; 1024]).starts_with("HTTP/1.1 200 "));
    assert!(post(&mut world.plain(), "Content-Length: 1025\r\n", b"").starts_with("HTTP/1.1 413 "), "told before it sends anything");
    let chunk = |size: usize| [format!("{size:x}\r\n").as_bytes(), &vec![b'x'; size], b"\r\n"].concat();
    let body = [chunk(1024), b"0\r\n\r\n".to_vec()].concat();
    assert!(post(&mut world.plain(), "Transfer-Encoding: chunked\r\n", &body).starts_with("HTTP/1.1 200 "));
    let body = [chunk(1024), chunk(1), b"0\r\n\r\n".to_vec()].concat();
    let answer = post(&mut world.plain(), "Transfer-Encoding: chunked\r\n", &body);
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let mut h2 = world.h2();
    let stream = h2.open(&h2::post("wiki.localhost", "/"), false);
    h2.write(&h2::frame(h2::DATA, h2::END_STREAM, stream, &[b'x'; 1025]));
    assert_eq!(h2.outcome(stream).status, 413);
    assert_eq!(world.origin.received().len(), 2);
    world.alive();
}

#[test]
fn drain() {
    let mut world = World::new("{drain: 300ms}");
    let mut stream = world.plain();
    stream.write_all(b"GET /hang HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n").unwrap();
    world.origin.wait(1);
    let begun = Instant::now();
    world.proxy.signal(libc::SIGTERM);
    assert!(world.proxy.ended().success());
    assert!(begun.elapsed() >= Duration::from_millis(300) && begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(rest(&mut stream), b"");
}

#[test]
fn drain_delay() {
    let mut world = World::new("{drain_delay: 300ms}");
    let begun = Instant::now();
    world.proxy.signal(libc::SIGTERM);
    assert!(world.proxy.ended().success());
    assert!(begun.elapsed() >= Duration::from_millis(300) && begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn upstream_connections() {
    let origin = Origin::start(app);
    let lab = Lab::new();
    let proxy = lab.start(&config(&origin).set("workers", "1").set("limits", "{upstream_connections: 2}"));
    let mut world = World { lab, origin, proxy };
    let hang = b"GET /hang HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n";
    let mut held: Vec<TcpStream> = (0..2).map(|_| world.plain()).collect();
    held.iter_mut().for_each(|stream| stream.write_all(hang).unwrap());
    world.origin.wait(2);
    let answer = raw(world.proxy.addr("plain"), b"GET /third HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with(b"HTTP/1.1 503 "), "after the connect timeout: {}", String::from_utf8_lossy(&answer));
    assert_eq!((world.origin.connections(), world.origin.received().len()), (2, 2));
    drop(held);
    world.alive();
}

/// How many connections the app sees when three requests run at once, and then three more.
fn connections_for_two_rounds(limits: &str, pause: Duration) -> usize {
    let barrier = std::sync::Barrier::new(3);
    let lab = Lab::new();
    // All three of a round are at the app before any is answered, so that each has a connection.
    let origin = Origin::start(move |_| {
        barrier.wait();
        Reply::text("ok")
    });
    let proxy = lab.start(&config(&origin).set("workers", "1").set("limits", limits));
    for round in 0..2 {
        if round == 1 {
            std::thread::sleep(pause);
        }
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let answer = raw(proxy.addr("plain"), b"GET / HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: close\r\n\r\n");
                    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
                });
            }
        });
    }
    origin.connections()
}

#[test]
fn upstream_idle() {
    assert_eq!(connections_for_two_rounds("{}", Duration::ZERO), 3);
    assert_eq!(connections_for_two_rounds("{upstream_idle: 1}", Duration::ZERO), 5);
    assert_eq!(connections_for_two_rounds("{upstream_idle: 0}", Duration::ZERO), 6);
}

#[test]
fn upstream_max_age() {
    assert_eq!(connections_for_two_rounds("{upstream_max_age: 100ms}", Duration::from_millis(150)), 6);
}
