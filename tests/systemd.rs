//! systemd itself: what it says of the units, the sockets that it passes, and the units as it runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

mod support;

#[path = "systemd/booted.rs"]
mod booted;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use support::{Config, DEADLINE, Lab, Origin, Proxy, Reply, eventually, program, raw};

const GET: &str = "GET / HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n";

/// A unit of config/systemd as a file of the lab's, with the program where it is.
fn unit(lab: &Lab, name: &str) -> PathBuf {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/systemd").join(name)).unwrap();
    lab.write(name, &text.replace("/usr/bin/vestibule", env!("CARGO_BIN_EXE_vestibule")))
}

#[test]
fn the_units_are_sound() {
    let lab = Lab::new();
    let units = ["vestibule.service", "vestibule.socket"].map(|name| unit(&lab, name));
    // It ends with 0 whatever it warns of.
    let verified = program("systemd-analyze").arg("verify").args(&units).output().unwrap();
    let said = String::from_utf8_lossy(&verified.stderr) + String::from_utf8_lossy(&verified.stdout);
    assert!(verified.status.success() && said.is_empty(), "{said}");
    // Of 100, which is no confinement at all.
    let rated =
        program("systemd-analyze").args(["security", "--offline=true", "--no-pager", "--threshold=20"]).arg(&units[0]).output().unwrap();
    assert!(rated.status.success(), "{}", String::from_utf8_lossy(&rated.stdout));
}

/// Sockets that somebody else has opened, by the protocol of sd_listen_fds(3) as systemd speaks it, with names.
#[test]
fn sockets_are_passed_with_names() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    // Free, and of an address where nobody else looks for one.
    let [plain, other, admin] =
        [(); 3].map(|()| TcpListener::bind("127.0.9.1:0").unwrap()).map(|held| held.local_addr().unwrap().to_string());
    let config = Config::new(&origin)
        .replace("- name: plain\n    bind: [\"127.0.0.1:0\"]", &format!("- name: plain\n    bind: [\"{plain}\", \"{other}\"]"))
        .set("admin", &format!("{{bind: \"{admin}\"}}"));
    let file = lab.configure(&config);
    let mut command = program("systemd-socket-activate");
    for address in [&plain, &admin, &other] {
        command.arg(format!("--listen={address}"));
    }
    command.arg("--fdname=plain:admin:other").arg(env!("CARGO_BIN_EXE_vestibule"));
    std::thread::scope(|threads| {
        // The first connection starts the program, and waits for it.
        // A child that another test starts may hold the port that was free for a moment longer: who gets there is reset, and comes again.
        let first = threads.spawn(|| {
            let answer = eventually("an answer to the first connection", || {
                let mut first = TcpStream::connect(&other).ok()?;
                first.set_read_timeout(Some(DEADLINE)).unwrap();
                first.write_all(GET.as_bytes()).ok()?;
                let mut answer = [0; 12];
                first.read_exact(&mut answer).ok().map(|()| answer)
            });
            assert_eq!(&answer, b"HTTP/1.1 403");
        });
        let proxy = Proxy::start_by(command, lab.dir(), &file);
        first.join().unwrap();
        assert_eq!(proxy.addrs("plain").iter().map(ToString::to_string).collect::<Vec<_>>(), [plain, other.clone()]);
        assert_eq!(proxy.admin().to_string(), admin);
        assert_eq!(proxy.admin_get("/readyz").0, 200);
        let answer =
            String::from_utf8(raw(proxy.addr("plain"), GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes())).unwrap();
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        // The program has opened none of them: who listens there is the very process that systemd's tool was.
        let said = proxy.stderr();
        assert!(said.contains(&format!("Listening on {other} as 5.")), "{said}");
    });
}
