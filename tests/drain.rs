//! SIGTERM: what runs may finish, and whoever watches sees it.
#![allow(clippy::unwrap_used, reason = "a test ends where its world breaks")]

mod support;

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use support::{Config, Curl, Lab, Origin, Reply, eventually};

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
