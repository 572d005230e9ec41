//! SIGTERM: what runs may finish, and whoever watches sees it.
#![allow(clippy::unwrap_used, reason = "a test ends where its world breaks")]

mod support;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use support::{Config, Curl, Lab, Origin, Proxy, Reply, eventually};

#[test]
fn a_running_request_finishes_and_the_admin_listener_answers_until_then() {
    let (release, held) = channel();
    let held = Mutex::new(held);
    let origin = Origin::start(move |_| {
        held.lock().unwrap().recv().unwrap();
        Reply::text("finished")
    });
    let lab = Lab::new();
    let config = Config::new(&origin).replace("then: block", "then: forward");
    let mut proxy = lab.start(&config);
    let plain = proxy.addr("plain");
    let client = std::thread::spawn(move || Curl::at(plain).header("Host: wiki.localhost").get(&format!("http://{plain}/held")));
    eventually("the app has the request", || (origin.connections() == 1).then_some(()));
    proxy.signal(libc::SIGTERM);
    eventually("it is no longer ready", || (proxy.admin_get("/readyz").0 == 503).then_some(()));
    eventually("its doors are closed", || std::net::TcpStream::connect(plain).is_err().then_some(()));
    // Longer than the office looks after files, which is when it once took the admin listener with it.
    let end = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < end {
        assert_eq!((proxy.admin_get("/readyz").0, proxy.admin_get("/livez").0), (503, 200));
        assert!(proxy.metrics().has("vestibule_build_info"));
        std::thread::sleep(Duration::from_millis(50));
    }
    release.send(()).unwrap();
    let answer = client.join().unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "finished"));
    assert_eq!(proxy.ended().code(), Some(0));
}

#[test]
fn a_reload_that_hangs_in_a_file_keeps_nobody_from_ending_the_program() {
    ends_while_a_reload_hangs(false);
}

#[test]
fn nor_does_an_upgrade_that_waits_for_such_a_reload() {
    ends_while_a_reload_hangs(true);
}

fn ends_while_a_reload_hangs(upgrade: bool) {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    // The system's CAs are read at each reload, and here they are in a file as on a network file system that goes away.
    let authorities = lab.path("authorities.pem");
    std::fs::copy(lab.ca.edge_ca(), &authorities).unwrap();
    lab.configure(&Config::new(&origin).replace(&origin.url(), "https://127.0.0.1:9"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_vestibule"));
    command.env("SSL_CERT_FILE", &authorities);
    let mut proxy = Proxy::start_by(command, lab.dir(), &lab.path("vestibule.yaml"));
    std::fs::remove_file(&authorities).unwrap();
    assert!(Command::new("mkfifo").arg(&authorities).status().unwrap().success());
    proxy.signal(libc::SIGHUP);
    let _silent =
        eventually("the reload reads it", || OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&authorities).ok());
    assert_eq!(proxy.admin_get("/livez").0, 200);
    if upgrade {
        proxy.signal(libc::SIGUSR2);
        eventually("the upgrade begins", || proxy.stderr().contains("starting the program anew").then_some(()));
    }
    proxy.signal(libc::SIGTERM);
    eventually("it is no longer ready", || (proxy.admin_get("/readyz").0 == 503).then_some(()));
    // One that is meant is not to be taken for an echo of the first.
    let ends = eventually("a second signal ends it", || {
        if proxy.is_running() {
            proxy.signal(libc::SIGTERM);
        }
        (!proxy.is_running()).then(|| proxy.ended())
    });
    assert_eq!(ends.code(), Some(0));
    assert!(std::net::TcpStream::connect(proxy.addr("plain")).is_err(), "no other process has its place");
}
