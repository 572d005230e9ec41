//! Many connections, and too few descriptors.

use std::net::{IpAddr, SocketAddr};

use super::*;

/// A connection from an address of its own on loopback.
fn from(peer: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(IpAddr::from(peer), 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    stream
}

const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n";

fn served(stream: &mut TcpStream) -> bool {
    let mut head = [0; 12];
    stream.write_all(ASK).is_ok() && stream.read_exact(&mut head).is_ok() && head == *b"HTTP/1.1 200"
}

#[test]
fn one_peer_cannot_take_all_connections() {
    let mut world = World::new("{connections_per_peer: 3, connections: 5}");
    let plain = world.proxy.addr("plain");
    let mut first: Vec<TcpStream> = (0..3).map(|_| from([127, 0, 0, 2], plain)).collect();
    assert!(first.iter_mut().all(served));
    assert!(!served(&mut from([127, 0, 0, 2], plain)), "the fourth of one peer");
    world.rejected("connections_per_peer", 1.0);
    let mut second: Vec<TcpStream> = (0..2).map(|_| from([127, 0, 0, 3], plain)).collect();
    assert!(second.iter_mut().all(served), "another peer is served");
    assert!(!served(&mut from([127, 0, 0, 4], plain)), "the sixth of all");
    world.rejected("connections", 1.0);
    drop(first.pop());
    eventually("a place is given back", || served(&mut from([127, 0, 0, 2], plain)).then_some(()));
    drop((first, second));
    world.alive();
}

#[test]
fn a_thousand_connections_that_say_nothing_leave_nothing_behind() {
    let mut world = World::new(SHORT);
    world.flat(|| {
        let silent: Vec<TcpStream> = (0..1000)
            .map(|i| from([127, 0, 1, (i % 200 + 1) as u8], world.proxy.addr(if i % 2 == 0 { "plain" } else { "edge" })))
            .collect();
        for mut stream in silent {
            rest(&mut stream);
        }
    });
    eventually("no connection is left", || (world.proxy.metrics().sum("vestibule_connections", &[]) == 0.0).then_some(()));
    world.alive();
}

/// Accepting pauses and goes on, nothing spins, and the admin listener answers all the while.
#[test]
fn out_of_descriptors_accepting_pauses() {
    let origin = Origin::start(app);
    let lab = Lab::new();
    let file = lab.configure(&config(&origin).set("limits", "{idle: 30s, request_head: 30s}"));
    let proxy = Proxy::start_with_descriptors(lab.dir(), &file, 128);
    let mut world = World { lab, origin, proxy };
    let held: Vec<TcpStream> = (0..200).map(|_| world.plain()).collect();
    world.rejected("accept", 1.0);
    assert_eq!(world.proxy.admin_get("/livez").0, 200);
    let before = cpu(&world.proxy);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        assert_eq!(world.proxy.admin_get("/readyz").0, 200, "health answers meanwhile");
        std::thread::sleep(Duration::from_millis(100));
    }
    let spent = cpu(&world.proxy) - before;
    assert!(spent < 50, "{spent} hundredths of a second of CPU time in one second");
    drop(held);
    world.alive();
}

/// User and system time in ticks, of which a second has a hundred.
fn cpu(proxy: &Proxy) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", proxy.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
