//! Request bodies that come a few bytes at a time (slow POST, R-U-Dead-Yet): each byte starts the timeout of a still body anew, and a small app is
//! soon full of requests that never end.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// What is waited for a client, in all, until its body is whole or the app answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floor {
    /// Bytes that are worth another second. Not 0.
    pub(super) rate: u64,
    pub(super) grace: Duration,
}

/// How long a body was waited for. Time in which the app takes nothing does not count.
#[derive(Debug, Default)]
pub(super) struct Trickle {
    floor: Cell<Option<Floor>>,
    waited: Cell<Duration>,
    since: Cell<Option<Instant>>,
}

impl Trickle {
    pub(super) fn hold_to(&self, floor: Floor) {
        self.floor.set(Some(floor));
    }

    /// Nothing is there. The clock is read for the first look only.
    pub(super) fn waits(&self, now: impl FnOnce() -> Instant) {
        if self.floor.get().is_some() && self.since.get().is_none() {
            self.since.set(Some(now()));
        }
    }

    pub(super) fn came(&self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.waited.set(self.waited.get() + now.saturating_duration_since(since));
        }
    }

    /// When the wait that is under way is too long for a body of which `bytes` came.
    pub(super) fn deadline(&self, bytes: u64) -> Option<Instant> {
        let floor = self.floor.get()?;
        let allowed = floor.grace.saturating_add(Duration::from_secs(bytes / floor.rate.max(1)));
        self.since.get()?.checked_add(allowed.saturating_sub(self.waited.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(rate: u64) -> (Trickle, Instant) {
        let trickle = Trickle::default();
        trickle.hold_to(Floor { rate, grace: Duration::from_secs(60) });
        (trickle, Instant::now())
    }

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn waits_add_up_and_bytes_pay_for_them() {
        let (trickle, start) = held(100);
        assert_eq!(trickle.deadline(0), None, "nobody waits");
        trickle.waits(|| start);
        assert_eq!(trickle.deadline(0), Some(start + seconds(60)));
        trickle.came(start + seconds(50));
        // The app takes nothing for an hour: no fault of the client.
        let later = start + seconds(3600);
        trickle.waits(|| later);
        trickle.waits(|| panic!("one look at the clock for one wait"));
        assert_eq!(trickle.deadline(1), Some(later + seconds(10)));
        assert_eq!(trickle.deadline(5000), Some(later + seconds(60)));
        trickle.came(later + seconds(100));
        trickle.waits(|| later + seconds(200));
        assert_eq!(trickle.deadline(5000), Some(later + seconds(200)), "all is used up");
    }

    #[test]
    fn without_a_floor_there_is_no_deadline() {
        let trickle = Trickle::default();
        trickle.waits(|| panic!("the clock is not read"));
        assert_eq!(trickle.deadline(0), None);
    }
}
