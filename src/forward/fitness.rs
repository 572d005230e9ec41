//! Whether a server takes requests, as its requests and checks show: shared by all workers, read with one load by each request.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::config::Ejection;

/// How long a server that took no connection is tried after the others.
const REST: u64 = 1000;
/// No ejection is longer, unless the first one is.
const LONGEST: u64 = 5 * 60 * 1000;

/// Milliseconds of the process' own clock, which never jumps and begins well after 0.
pub(super) fn millis(at: Instant) -> u64 {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let since = at.saturating_duration_since(*BEGUN).as_millis();
    u64::try_from(since).unwrap_or(u64::MAX >> 3) + 1000
}

pub(super) fn millis_of(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX >> 3)
}

/// What a server takes. Times are `millis`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Its whole share.
    Whole,
    /// A share that grows: it came back then.
    Since(u64),
    /// It took no connection a moment ago: what no other takes, until then.
    Resting(u64),
    /// Its requests failed: nothing until then, unless no other is left.
    Ejected(u64),
    /// Its checks failed: nothing.
    Down,
}

#[derive(Debug, Default)]
pub(super) struct Fitness {
    /// 0 is `Whole`. Else a time, and in its lowest two bits what it is of. One word, so that nobody sees half of a change.
    word: AtomicU64,
    /// Requests in a row without a sound answer.
    failures: AtomicU32,
    /// Of the last connection: 0 none yet, 1 not taken, 2 taken.
    connected: AtomicU8,
    /// When the last ejection ends or ended, and how long it was. Written by `eject` alone, whose caller holds the app's lock.
    back: AtomicU64,
    length: AtomicU64,
}

const RESTING: u64 = 1;
const EJECTED: u64 = 2;
const DOWN: u64 = 3;

impl Fitness {
    /// `now` is asked for only when the server is not wholly fit. `slow`: how long its share grows.
    pub(super) fn turn(&self, now: impl FnOnce() -> u64, slow: u64) -> Turn {
        let word = self.word.load(Relaxed);
        if word == 0 {
            return Turn::Whole;
        }
        let (at, now) = (word >> 2, now());
        match word & 3 {
            RESTING if now < at => Turn::Resting(at),
            EJECTED if now < at => Turn::Ejected(at),
            EJECTED if now < at.saturating_add(slow) => Turn::Since(at),
            DOWN => Turn::Down,
            _ => {
                // Over. Where another thread was faster, its word counts.
                let _ = self.word.compare_exchange(word, 0, Relaxed, Relaxed);
                Turn::Whole
            }
        }
    }

    /// An app's answer that is sound HTTP, whatever its status.
    pub(super) fn answered(&self) {
        // Read first: the line stays shared among the workers while nothing changes.
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
    }

    pub(super) fn connected(&self, taken: bool) {
        let now = if taken { 2 } else { 1 };
        if self.connected.load(Relaxed) != now {
            self.connected.store(now, Relaxed);
        }
    }

    /// Whether it took the last connection; `None`: nobody connected yet.
    pub(super) fn took_last(&self) -> Option<bool> {
        match self.connected.load(Relaxed) {
            0 => None,
            state => Some(state == 2),
        }
    }

    /// One more without a sound answer. True: that is enough to eject it.
    pub(super) fn failed(&self, rule: &Ejection) -> bool {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        rule.failures > 0 && failures >= rule.failures
    }

    /// It took no connection.
    pub(super) fn rest(&self, now: u64) {
        let word = self.word.load(Relaxed);
        if word == 0 || word & 3 == RESTING {
            let _ = self.word.compare_exchange(word, ((now + REST) << 2) | RESTING, Relaxed, Relaxed);
        }
    }

    /// Its failures stay counted: when it is back, one more ejects it again, for twice the time; one sound answer makes it start anew. Gives the time,
    /// unless it is out already. The caller holds the app's lock.
    pub(super) fn eject(&self, rule: &Ejection, now: u64) -> Option<u64> {
        let word = self.word.load(Relaxed);
        let out = match word & 3 {
            EJECTED => now < word >> 2,
            kind => kind == DOWN,
        };
        let (first, last) = (millis_of(rule.time), self.length.load(Relaxed));
        // In a row: it was back for less than it was out.
        let again = last > 0 && now < self.back.load(Relaxed).saturating_add(last);
        let length = if again { last.saturating_mul(2).min(LONGEST.max(first)) } else { first };
        let until = now.saturating_add(length);
        if out || self.word.compare_exchange(word, (until << 2) | EJECTED, Relaxed, Relaxed).is_err() {
            return None;
        }
        self.back.store(until, Relaxed);
        self.length.store(length, Relaxed);
        Some(length)
    }

    /// Its checks say so.
    pub(super) fn down(&self) {
        self.word.store(DOWN, Relaxed);
    }

    /// Its checks say so, or nobody checks it any more. One that is ejected stays so.
    pub(super) fn well(&self, now: u64) {
        let word = self.word.load(Relaxed);
        if word & 3 == DOWN {
            let _ = self.word.compare_exchange(word, (now << 2) | EJECTED, Relaxed, Relaxed);
            self.failures.store(0, Relaxed);
        }
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Ejection = Ejection { failures: 3, time: Duration::from_secs(10) };

    /// Fails until it is ejected; how many failures that took, and for how long it is out.
    fn fail(fitness: &Fitness, now: u64) -> (u32, Option<u64>) {
        let failures = (1..).find(|_| fitness.failed(&RULE)).unwrap();
        (failures, fitness.eject(&RULE, now))
    }

    #[test]
    fn failures_in_a_row_eject_and_one_sound_answer_begins_anew() {
        let fitness = Fitness::default();
        assert!(!fitness.failed(&RULE) && !fitness.failed(&RULE));
        fitness.answered();
        assert_eq!(fail(&fitness, 1000), (3, Some(10_000)));
        assert_eq!(fitness.turn(|| 10_999, 0), Turn::Ejected(11_000));
        assert_eq!(fitness.turn(|| 11_000, 0), Turn::Whole);
        let never = Ejection { failures: 0, ..RULE };
        assert!(!(0..1000).any(|_| fitness.failed(&never)));
    }

    #[test]
    fn a_further_failure_after_the_way_back_doubles_up_to_five_minutes_and_staying_well_forgives() {
        let fitness = Fitness::default();
        let mut now = 1000;
        let mut lengths = Vec::new();
        for round in 0..7 {
            let (failures, length) = fail(&fitness, now);
            assert_eq!(failures, if round == 0 { 3 } else { 1 }, "one failure is enough after the way back");
            lengths.push(length.unwrap() / 1000);
            now += length.unwrap();
            assert_eq!(fitness.turn(|| now, 0), Turn::Whole);
        }
        assert_eq!(lengths, [10, 20, 40, 80, 160, 300, 300]);
        fitness.answered();
        assert_eq!(fail(&fitness, now + 299_999), (3, Some(300_000)), "back for less than it was out");
        fitness.answered();
        now += 299_999 + 300_000;
        assert_eq!(fail(&fitness, now + 300_000), (3, Some(10_000)));
    }

    #[test]
    fn who_is_out_is_not_ejected_again_by_what_was_under_way() {
        let fitness = Fitness::default();
        fail(&fitness, 1000);
        assert!(fitness.failed(&RULE));
        assert_eq!(fitness.eject(&RULE, 2000), None);
        fitness.down();
        assert_eq!(fitness.eject(&RULE, 60_000), None);
        assert_eq!(fitness.turn(|| 60_000, 0), Turn::Down);
    }

    #[test]
    fn the_share_grows_from_the_way_back_on() {
        let fitness = Fitness::default();
        fail(&fitness, 1000);
        assert_eq!(fitness.turn(|| 11_000, 5000), Turn::Since(11_000));
        assert_eq!(fitness.turn(|| 15_999, 5000), Turn::Since(11_000));
        assert_eq!(fitness.turn(|| 16_000, 5000), Turn::Whole);
        fitness.down();
        fitness.well(20_000);
        assert_eq!(fitness.turn(|| 20_001, 5000), Turn::Since(20_000));
        assert_eq!(fitness.turn(|| 25_000, 5000), Turn::Whole);
    }

    #[test]
    fn who_took_no_connection_rests_a_second_unless_it_is_out_anyway() {
        let fitness = Fitness::default();
        fitness.rest(5000);
        assert_eq!(fitness.turn(|| 5999, 0), Turn::Resting(6000));
        fitness.rest(5500);
        assert_eq!((fitness.turn(|| 6000, 0), fitness.turn(|| 6500, 0)), (Turn::Resting(6500), Turn::Whole));
        fail(&fitness, 7000);
        fitness.rest(7000);
        assert_eq!(fitness.turn(|| 16_999, 0), Turn::Ejected(17_000));
        fitness.down();
        fitness.rest(17_000);
        assert_eq!(fitness.turn(|| 90_000, 0), Turn::Down);
    }
}
