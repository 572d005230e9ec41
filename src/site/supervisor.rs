//! What is told to whoever started the program, by `sd_notify(3)`: systemd, or another that sets `NOTIFY_SOCKET`. Without it nothing is.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use sd_notify::NotifyState;

#[derive(Debug)]
pub struct Supervisor {
    /// Not after another process has taken this one's place, whose word counts from then on.
    speaks: AtomicBool,
    /// That it stops was said, and a reload that ends only now says nothing more.
    stops: AtomicBool,
}

impl Supervisor {
    pub fn new() -> Self {
        Self { speaks: AtomicBool::new(true), stops: AtomicBool::new(false) }
    }

    /// Every listener accepts.
    pub fn ready(&self, status: &str) {
        if !self.stops.load(Relaxed) {
            self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
        }
    }

    pub fn reloading(&self, status: &str) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now, NotifyState::Status(status)]),
            Err(_) => self.tell(&[NotifyState::Reloading, NotifyState::Status(status)]),
        }
    }

    pub fn stopping(&self, status: &str) {
        self.stops.store(true, Relaxed);
        self.tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
    }

    pub fn alive(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    /// The last word: another process is the service, with this status. What that one said before is lost on a manager that listens to the main
    /// process alone.
    pub fn handed_over(&self, to: u32, status: &str) {
        self.tell(&[NotifyState::MainPid(to), NotifyState::Ready, NotifyState::Status(status)]);
        self.speaks.store(false, Relaxed);
    }

    fn tell(&self, state: &[NotifyState<'_>]) {
        if self.speaks.load(Relaxed)
            && let Err(error) = sd_notify::notify(state)
        {
            tracing::debug!(%error, "the service manager cannot be told");
        }
    }
}
