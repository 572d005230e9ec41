//! For tests that drive the real program over sockets. A test file begins with `mod support;`.
//!
//! ```ignore
//! let origin = Origin::answering(Reply::text("hello"));
//! let lab = Lab::new();
//! let laptop = lab.device("laptop", "ownership=corporate state=approved");
//! let proxy = lab.start(&Config::new(&origin));
//! let answer = Curl::to(&proxy, &lab).device(&laptop).get("https://wiki.localhost/page");
//! assert_eq!(answer.status, 200);
//! assert!(origin.wait(1)[0].text().starts_with("GET /page HTTP/1.1\r\n"));
//! assert_eq!(proxy.metrics().sum("vestibule_decisions_total", &[("effect", "forward")]), 1.0);
//! assert_eq!(lab.decisions(1)[0]["class"], "corporate");
//! ```
//!
//! No fixed ports, no waiting by the clock: everything waits for its event with a deadline and says what did not happen.
#![allow(dead_code, unused_imports, reason = "each test program uses a part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends where its world breaks")]

pub mod cdp;
pub mod chromium;
mod client;
mod config;
pub mod firefox;
pub mod h2;
mod lab;
mod nginx;
mod origin;
pub mod packets;
mod proxy;
mod service;
pub mod tun;
pub mod venv;

pub use client::{Answer, Curl, RawTls, raw, read_answer, tcp, tls_client, tls_config};
pub use config::Config;
pub use lab::{Lab, Run};
pub use nginx::{Nginx, free_port};
pub use origin::{Origin, Received, Reply, Wire};
pub use proxy::{Metrics, Proxy};
pub use service::Service;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// A real program that a test drives. Leaves the mark that tests/check.sh looks for: a run that drove no curl is not a run.
#[track_caller]
pub fn program(name: &str) -> Command {
    let found = std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()));
    assert!(found, "{name} is needed; tests/check.sh installs it");
    drives(name);
    Command::new(name)
}

fn drives(name: &str) {
    let marks = Path::new(env!("CARGO_TARGET_TMPDIR")).join("driven");
    std::fs::create_dir_all(&marks).unwrap();
    std::fs::write(marks.join(name), "").unwrap();
}

/// Nothing that should happen takes longer, also on a loaded machine.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Asks until there is an answer; a failing test says `what` did not happen.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(5)); // between two looks, not instead of one
    }
}
