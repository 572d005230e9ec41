//! Bytes by chance: the seed is in the message of a test that fails.

use super::*;

const SOUND: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: wiki.localhost\r\nVestibule-Tier: forged\r\n\r\n",
    "GET /a/../b?q=1 HTTP/1.1\r\nHost: wiki.localhost\r\nvestibule_device_id: forged\r\nConnection: vestibule-tier, close\r\n\r\n",
    "POST /p HTTP/1.1\r\nHost: wiki.localhost\r\nContent-Length: 5\r\nVestibule.Tier: forged\r\n\r\nhello",
    "POST /c HTTP/1.1\r\nHost: wiki.localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nVestibule-Device-Id: forged\r\n\r\n",
    "GET http://wiki.localhost/x HTTP/1.1\r\nHost: wiki.localhost\r\nX-Vestibule-Tier: forged\r\n\r\n",
    "OPTIONS /o HTTP/1.0\r\nHost: wiki.localhost\r\nVestibule-Device-Class: forged\r\n\r\n",
    "GET /u HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nVestibule-Decision: forged\r\n\r\n",
];
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"%2f",
    b"%00",
    b"..",
    b"//",
    b"#",
    b"\x80",
    b"\xff",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Vestibule-Tier: forged\r\n",
    b"vestibule_tier: forged\r\n",
    b"Vestibule-Device-Id : forged\r\n",
    b" Vestibule-Device-Id: forged\r\n",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"GET /in HTTP/1.1\r\nHost: wiki.localhost\r\nVestibule-Tier: forged\r\n\r\n",
];

fn mutated(random: &mut fastrand::Rng) -> Vec<u8> {
    if random.u8(..10) == 0 {
        return (0..random.usize(1..2000)).map(|_| random.u8(..)).collect();
    }
    let mut bytes: Vec<u8> = (0..random.usize(1..4)).flat_map(|_| random.choice(SOUND).unwrap().bytes()).collect();
    for _ in 0..random.usize(0..6) {
        let at = random.usize(..=bytes.len());
        match random.u8(..4) {
            0 => drop(bytes.splice(at..at, random.choice(PIECES).unwrap().iter().copied())),
            1 => drop(bytes.drain(at..(at + random.usize(0..12)).min(bytes.len()))),
            2 if at < bytes.len() => bytes[at] = random.u8(..),
            _ => {
                let piece: Vec<u8> = bytes[at..(at + random.usize(0..40)).min(bytes.len())].to_vec();
                let to = random.usize(..=bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
    bytes
}

#[track_caller]
fn sound(received: &[Received], seed: u64) {
    for request in received {
        let own = |name: &String| {
            let plain: String = name.chars().map(|c| if matches!(c, '_' | '.') { '-' } else { c }).collect();
            !(plain.starts_with("vestibule-") || plain.starts_with("x-vestibule-"))
                || ["vestibule-device-class", "vestibule-tier", "vestibule-decision"].contains(&name.as_str())
        };
        assert!(request.header_names().iter().all(own), "seed {seed}: {}", request.text());
        for name in ["vestibule-device-class", "vestibule-tier", "vestibule-decision", "host", "x-forwarded-for", "x-request-id"] {
            let values = request.header(name);
            assert!(values.len() == 1 && !values[0].contains("forged"), "seed {seed}: {name}: {}", request.text());
        }
        assert!(request.header("content-length").len() + request.header("transfer-encoding").len() <= 1, "seed {seed}: {}", request.text());
        let lines = request.text().split("\r\n").map(str::to_owned).collect::<Vec<_>>();
        assert!(lines.iter().all(|line| !line.contains(['\r', '\n', '\0'])), "seed {seed}: {}", request.text());
        assert!(lines[0].ends_with(" HTTP/1.1") && lines[0].matches(' ').count() == 2, "seed {seed}: {}", lines[0]);
    }
}

#[test]
fn five_hundred_mutated_requests_never_name_a_device() {
    let mut world = World::new("{handshake: 1s, request_head: 300ms, idle: 300ms}");
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for nth in 0..500 {
        let bytes = mutated(&mut random);
        if nth % 2 == 0 {
            let mut stream = world.plain();
            let _ = stream.write_all(&bytes).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
            rest(&mut stream);
        } else {
            let mut tls = world.tls();
            let _ = tls.stream.write_all(&bytes);
            tls.stream.conn.send_close_notify();
            let _ = tls.stream.flush();
            tls.read_all();
        }
    }
    eprintln!("seed {seed}");
    let received = world.origin.received();
    assert!(received.len() > 50, "seed {seed}: only {} requests came through", received.len());
    sound(&received, seed);
    world.alive();
}

#[test]
fn mutated_frames_of_http2_never_name_a_device() {
    let mut world = World::new("{handshake: 1s, request_head: 300ms, idle: 300ms}");
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let head = h2::block(
        &[&h2::post("wiki.localhost", "/p")[..], &[("vestibule-tier", "forged"), ("vestibule_device_id", "forged"), ("cookie", "a")]]
            .concat(),
    );
    for _ in 0..200 {
        let mut bytes = Vec::new();
        for stream in [1, 3, 5] {
            bytes.extend(h2::frame(h2::HEADERS, h2::END_HEADERS, stream, &head));
            bytes.extend(h2::frame(h2::DATA, 0, stream, b"hello"));
            bytes.extend(h2::frame(h2::HEADERS, h2::END_HEADERS | h2::END_STREAM, stream, &h2::block(&[("vestibule-tier", "forged")])));
        }
        for _ in 0..random.usize(0..4) {
            let at = random.usize(..bytes.len());
            match random.u8(..3) {
                0 => bytes[at] = random.u8(..),
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, random.u8(..)),
            }
        }
        let mut h2 = world.h2();
        h2.write(&bytes);
        h2.leave();
    }
    eprintln!("seed {seed}");
    sound(&world.origin.received(), seed);
    world.alive();
}

#[test]
fn random_bytes_to_every_listener() {
    let mut world = World::new("{handshake: 300ms, request_head: 300ms, idle: 300ms}");
    let mut random = fastrand::Rng::with_seed(7);
    for nth in 0..100 {
        let listener = ["edge", "plain", "admin"][nth % 3];
        let mut bytes: Vec<u8> = (0..random.usize(1..600)).map(|_| random.u8(..)).collect();
        if listener == "edge" && random.bool() {
            // Into the fingerprint's reader: a record that says to hold a hello.
            let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
            bytes.splice(0..0, [22, 3, 1, length[0], length[1], 1]);
        }
        let mut stream = tcp(world.proxy.addr(listener));
        let _ = stream.write_all(&bytes).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
        rest(&mut stream);
    }
    assert_eq!(world.origin.received().len(), 0);
    world.alive();
}
