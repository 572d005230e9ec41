//! Many connections, and too few descriptors.

use std::net::{IpAddr, SocketAddr};

use super::*;

/// A connection from an address of its own on loopback.
fn from(peer: impl Into<IpAddr>, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(peer.into(), 0).into()).unwrap();
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

/// Whoever has a /64 has as many addresses as there are, and is one peer.
#[test]
fn an_ipv6_subscriber_is_one_peer() {
    support::tun::inside("crowds::an_ipv6_subscriber_is_one_peer", || {
        let address = |text: &str| -> std::net::Ipv6Addr { text.parse().unwrap() };
        let here = ["2001:db8:0:9::1", "2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:1::3", "2001:db8:0:2::1"];
        let set_up = here.map(|one| format!("-6 addr add {one}/128 dev lo nodad"));
        for args in std::iter::once("link set lo up".to_owned()).chain(set_up) {
            assert!(support::program("ip").args(args.split(' ')).status().unwrap().success(), "ip {args}");
        }
        let origin = Origin::start(app);
        let lab = Lab::new();
        let with_ipv6 =
            config(&origin).replace("- name: plain\n    bind: [\"127.0.0.1:0\"]", "- name: plain\n    bind: [\"[2001:db8:0:9::1]:0\"]");
        let proxy = lab.start(&with_ipv6.set("limits", "{connections_per_peer: 2, connections: 9}"));
        let mut world = World { lab, origin, proxy };
        let plain = world.proxy.addr("plain");
        let mut two: Vec<TcpStream> = here[1..3].iter().map(|one| from(address(one), plain)).collect();
        assert!(two.iter_mut().all(served));
        assert!(!served(&mut from(address(here[3]), plain)), "the third of one /64");
        world.rejected("connections_per_peer", 1.0);
        assert!(served(&mut from(address(here[4]), plain)), "the /64 beside it");
        drop(two);
        eventually("places are given back", || served(&mut from(address(here[3]), plain)).then_some(()));
        world.alive();
    });
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
    let paused = || world.proxy.metrics().sum("vestibule_accepting_paused", &[("listener", "plain")]);
    eventually("the gauge says so", || (paused() > 0.0).then_some(()));
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
    eventually("it goes on", || (paused() == 0.0).then_some(()));
    assert!(world.proxy.metrics().has("vestibule_accepting_paused"));
    world.alive();
}

/// User and system time in ticks, of which a second has a hundred.
fn cpu(proxy: &Proxy) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", proxy.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
