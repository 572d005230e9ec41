//! A decision log whose reader does not read: a named pipe.

use std::fs::File;
use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};

use super::support::{Curl, Lab, Origin, Proxy, Reply, eventually};
use super::{HOST, config, gauge};

fn world(required: bool) -> (Lab, Proxy, Origin) {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    assert!(Command::new("mkfifo").arg(lab.path("pipe")).status().unwrap().success());
    let log = format!("{{path: pipe, required: {required}}}");
    let proxy = lab.start(&config(&origin).set("decision_log", &log).set("limits", "{log_queue: 20, drain: 100ms}"));
    (lab, proxy, origin)
}

fn ask(proxy: &Proxy) -> u16 {
    Curl::at(proxy.addr("plain")).get(&format!("http://{HOST}/{}", "x".repeat(2000))).status
}

/// Reads the pipe to the end of the process, so that it is never full again.
fn drain(lab: &Lab) {
    let mut pipe = File::open(lab.path("pipe")).unwrap();
    std::thread::spawn(move || while pipe.read(&mut [0; 1 << 16]).is_ok_and(|read| read > 0) {});
}

#[test]
fn a_log_that_blocks_stops_nobody() {
    let (lab, mut proxy, _origin) = world(false);
    eventually("lines are dropped and counted", || {
        assert_eq!(ask(&proxy), 403);
        (proxy.metrics().sum("vestibule_decision_log_total", &[("result", "dropped")]) >= 3.0).then_some(())
    });
    assert_eq!(gauge(&proxy, "vestibule_decision_log_up"), 0.0);
    assert_eq!(proxy.admin_get("/readyz").0, 200);
    drain(&lab);
    proxy.metric_reaches("vestibule_decision_log_up", &[], 1.0);
    let written = proxy.metrics().sum("vestibule_decision_log_total", &[("result", "written")]);
    assert_eq!(ask(&proxy), 403);
    proxy.metric_reaches("vestibule_decision_log_total", &[("result", "written")], written + 1.0);
    proxy.signal(libc::SIGTERM);
    assert_eq!(proxy.ended().code(), Some(0));
}

#[test]
fn a_required_log_that_blocks_stops_requests_until_it_is_read() {
    let (lab, proxy, origin) = world(true);
    eventually("requests are refused", || (ask(&proxy) == 503).then_some(()));
    assert_eq!(gauge(&proxy, "vestibule_decision_log_up"), 0.0);
    assert_eq!((proxy.admin_get("/readyz").0, proxy.admin_get("/livez").0), (503, 200));
    assert_eq!(proxy.metrics().sum("vestibule_decision_log_total", &[("result", "dropped")]), 0.0, "refused before a line is lost");
    assert!(origin.received().is_empty());
    drain(&lab);
    eventually("it is ready again", || (proxy.admin_get("/readyz").0 == 200).then_some(()));
    assert_eq!(ask(&proxy), 403);
    assert_eq!(gauge(&proxy, "vestibule_decision_log_up"), 1.0);
}

#[test]
fn a_log_that_blocks_does_not_keep_the_program_from_ending() {
    let (_lab, mut proxy, _origin) = world(false);
    eventually("the log is blocked", || {
        ask(&proxy);
        (gauge(&proxy, "vestibule_decision_log_up") == 0.0).then_some(())
    });
    let told = Instant::now();
    proxy.signal(libc::SIGTERM);
    assert_eq!(proxy.ended().code(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
    assert!(proxy.stderr().contains("the decision log is blocked"), "{}", proxy.stderr());
}
