//! Real faults: each ends as it is documented, shows in a metric, and is over without a restart once its cause is. What apps do wrong is in
//! src/forward/tests, full descriptors and floods are in tests/hostile, a log on a full device in tests/decision_log.rs, a store that is removed,
//! replaced or emptied in tests/standing.rs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

mod support;

#[path = "faults/clock.rs"]
mod clock;
#[path = "faults/crowd.rs"]
mod crowd;
#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/kill.rs"]
mod kill;
#[path = "faults/log.rs"]
mod log;
#[path = "faults/store.rs"]
mod store;

use support::{Answer, Config, Curl, Lab, Origin, Proxy};
use vestibule::cli::lab_ca::Issued;

const FIT: &str = "ownership=corporate state=approved posture.os_supported=ok posture.screen_lock=ok";
const HOST: &str = "wiki.corp.example";
const URL: &str = "https://wiki.corp.example/";

fn config(origin: &Origin) -> Config {
    Config::new(origin).replace("[wiki.localhost]", "[wiki.corp.example]")
}

fn get(proxy: &Proxy, lab: &Lab, device: &Issued) -> Answer {
    Curl::to(proxy, lab).device(device).get(URL)
}

/// A gauge without labels.
fn gauge(proxy: &Proxy, name: &str) -> f64 {
    let metrics = proxy.metrics();
    assert!(metrics.has(name), "{name}");
    metrics.sum(name, &[])
}
