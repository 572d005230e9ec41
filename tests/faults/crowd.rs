//! Ten thousand connections that do nothing.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Instant;

use super::support::{DEADLINE, Lab, Origin, Proxy, RawTls, Reply, eventually, program};
use super::{FIT, HOST, config, gauge, get};

const PLAIN: usize = 9_000;
const TLS: usize = 1_000;

fn memory(proxy: &Proxy) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// From one of a few addresses: one peer may have 4,096.
fn connect(number: usize, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let peer = IpAddr::from([127, 0, 3, u8::try_from(number % 5 + 1).unwrap()]);
    socket.bind(&SocketAddr::new(peer, 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

#[test]
fn ten_thousand_idle_connections_harm_nobody() {
    // This process holds the other end of each.
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit`, and then reads it; it lives here.
    #[allow(unsafe_code)]
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
    assert!(limit.rlim_max >= 11_000, "it takes 11,000 descriptors: ulimit -Hn says {}", limit.rlim_max);
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin).set("limits", "{idle: 10m, connections_per_peer: 4096}");
    let file = lab.configure(&config);
    let laptop = lab.device("laptop", FIT);
    // The program raises its own soft limit, from what service managers start it with.
    let mut command = program("prlimit");
    command.arg(format!("--nofile=1024:{}", limit.rlim_max)).arg(env!("CARGO_BIN_EXE_vestibule"));
    let proxy = Proxy::start_by(command, lab.dir(), &file);
    assert_eq!(get(&proxy, &lab, &laptop).status, 200);
    let (plain, before) = (proxy.addr("plain"), memory(&proxy));
    let ask = |stream: &mut TcpStream| {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: wiki.corp.example\r\n\r\n").unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 403");
    };
    let mut idle: Vec<TcpStream> = (0..PLAIN).map(|number| connect(number, plain)).collect();
    idle.iter_mut().for_each(ask);
    let with_plain = memory(&proxy);
    let secured: Vec<RawTls> = (0..TLS).map(|_| RawTls::connect(&proxy, &lab, HOST, None)).collect();
    let with_all = memory(&proxy);
    let connections = |n: usize| {
        let open = proxy.metrics().sum("vestibule_connections", &[]);
        (open.to_bits() == (n as f64).to_bits()).then_some(())
    };
    eventually("all are there", || connections(PLAIN + TLS));
    // Others are served, and soon.
    let asked = Instant::now();
    for _ in 0..20 {
        assert_eq!(get(&proxy, &lab, &laptop).status, 200);
    }
    let took = asked.elapsed() / 20;
    println!(
        "{} KiB with none; {} bytes for each of {PLAIN} idle connections without TLS, {} for each of {TLS} with it; a visit by curl takes {took:?}",
        before,
        (with_plain.saturating_sub(before)) * 1024 / PLAIN,
        (with_all.saturating_sub(with_plain)) * 1024 / TLS
    );
    assert!(took.as_millis() < 1000, "{took:?}");
    assert!((with_all - before) / 10 < (PLAIN + TLS) * 64 / 10, "more than 64 KiB for each: {before} KiB to {with_all} KiB");
    assert_eq!(gauge(&proxy, "vestibule_stalled_workers"), 0.0);
    // And all of them still work.
    for stream in idle.iter_mut().step_by(100) {
        stream.read_exact(&mut [0; 1]).unwrap();
    }
    drop((idle, secured));
    eventually("none is left", || connections(0));
    assert_eq!(get(&proxy, &lab, &laptop).status, 200);
}
