//! What the metrics say of the store and its cache.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use jiff::Timestamp;

#[derive(Debug)]
pub struct Stats {
    /// Answered from a cached record that is fresh.
    pub hit: AtomicU64,
    /// The store had to be asked, whether or not it answered.
    pub miss: AtomicU64,
    /// Answered from a record that could not be read again in time.
    pub stale: AtomicU64,
    /// Answered from cached absence.
    pub negative: AtomicU64,
    /// Look-ups in the store itself: fewer than `miss` when several people wait for one.
    pub reads: AtomicU64,
    up: AtomicBool,
    began: Instant,
    /// Milliseconds after `began`.
    polled: AtomicU64,
    error: Mutex<Option<String>>,
    newest: Mutex<Vec<(String, Timestamp)>>,
}

impl Stats {
    pub(super) fn new() -> Self {
        Self {
            hit: AtomicU64::new(0),
            miss: AtomicU64::new(0),
            stale: AtomicU64::new(0),
            negative: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            up: AtomicBool::new(true),
            began: Instant::now(),
            polled: AtomicU64::new(0),
            error: Mutex::new(None),
            newest: Mutex::new(Vec::new()),
        }
    }

    /// Whether the store answered when it was last asked.
    pub fn up(&self) -> bool {
        self.up.load(Relaxed)
    }

    /// How long ago it was last known that the cache holds no outdated record.
    pub fn lag(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.polled.load(Relaxed)))
    }

    /// Why the store last failed; also after it recovered.
    pub fn last_error(&self) -> Option<String> {
        self.error.lock().map(|error| error.clone()).unwrap_or_default()
    }

    /// For each source that observed anything, the age of its newest observation, clamped at zero.
    pub fn ages(&self, now: Timestamp) -> Vec<(String, Duration)> {
        let newest = self.newest.lock().map(|newest| newest.clone()).unwrap_or_default();
        let age = |at: Timestamp| Duration::try_from(now.duration_since(at)).unwrap_or_default();
        newest.into_iter().map(|(source, at)| (source, age(at))).collect()
    }

    pub(super) fn polled(&self) {
        self.polled.store(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Whether it was down before.
    pub(super) fn rose(&self) -> bool {
        !self.up.swap(true, Relaxed)
    }

    /// Whether it was up before.
    pub(super) fn fell(&self, why: &str) -> bool {
        if let Ok(mut error) = self.error.lock() {
            *error = Some(why.to_owned());
        }
        self.up.swap(false, Relaxed)
    }

    pub(super) fn observed(&self, newest: Vec<(String, Timestamp)>) {
        if let Ok(mut held) = self.newest.lock() {
            *held = newest;
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn an_age_is_never_negative_however_the_clock_was_set_back() {
        let (stats, now) = (Stats::new(), Timestamp::now());
        let seen = |seconds| now + SignedDuration::from_secs(seconds);
        stats.observed(vec![("mdm".to_owned(), seen(-60)), ("agent".to_owned(), seen(3600))]);
        assert_eq!(stats.ages(now), [("mdm".to_owned(), Duration::from_secs(60)), ("agent".to_owned(), Duration::ZERO)]);
    }
}
