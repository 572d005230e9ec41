//! Counting requests against `requests:` restrictions, one count for the process: the generic cell rate algorithm (ITU-T I.371).

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ahash::RandomState;

use crate::policy::draft::Restriction;

/// Whose requests are counted: the device's, or where there is none the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject<'a> {
    Device(&'a str),
    /// An IPv6 peer counts by its /64, which is what one subscriber has.
    Peer(IpAddr),
}

/// Over the rate; the next request passes after this time, if none passes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryAfter(pub Duration);

/// A table of fixed size. It is cut into small sets, each key belongs to one: a look-up reads a few neighbouring entries and allocates nothing.
///
/// When a set is full of entries that still count, the newcomer takes the place of the one that is closest to unlimited. So a flood of new subjects
/// never frees one that is at its limit, unless as many others of its set are at theirs; the most that is forgotten is the part of a burst.
#[derive(Debug)]
pub struct Rates {
    began: Instant,
    keys: [RandomState; 2],
    shards: Box<[Mutex<Box<[Set]>>]>,
}

const SHARDS: usize = 64;
const WAYS: usize = 8;

type Set = [Entry; WAYS];

/// `full` is the moment, in nanoseconds since `Rates::began`, when the bucket is full again: the theoretical arrival time. In the past: no debt.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    key: (u64, u64),
    full: u64,
}

impl Rates {
    /// `entries` is `limits.rate_entries`: 24 bytes each, rounded up.
    pub fn new(entries: usize) -> Self {
        let sets = entries.div_ceil(SHARDS * WAYS).max(1);
        let shard = || Mutex::new(vec![[Entry::default(); WAYS]; sets].into_boxed_slice());
        Self { began: Instant::now(), keys: [RandomState::new(), RandomState::new()], shards: (0..SHARDS).map(|_| shard()).collect() }
    }

    /// Counts one request against the rates of all `restrictions` that have one, or against none of them where any is exceeded.
    pub fn check<'r, R>(&self, app: &str, subject: Subject<'_>, restrictions: R, now: Instant) -> Result<(), RetryAfter>
    where
        R: Iterator<Item = &'r Restriction> + Clone,
    {
        let rated = restrictions.filter_map(|restriction| restriction.requests.map(|rate| (restriction.name.as_str(), rate)));
        if rated.clone().next().is_none() {
            return Ok(());
        }
        let now = u64::try_from(now.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX);
        // Rates of one subject and app share a shard, so that one lock covers checking all and then counting all.
        let [first, second] = &self.keys;
        let subject = subject.canonical();
        let home = first.hash_one((app, subject));
        let Some(shard) = self.shards.get(home as usize % SHARDS) else { return Ok(()) };
        let mut sets = shard.lock().unwrap_or_else(PoisonError::into_inner);

        let key = |name: &str| (first.hash_one((home, name)), second.hash_one((app, subject, name)));
        let mut wait = 0;
        for (name, rate) in rated.clone() {
            let full = find(&sets, key(name)).map_or(0, |entry| entry.full);
            let (step, burst) = steps(rate);
            let after = full.max(now).saturating_add(step);
            wait = wait.max(after.saturating_sub(now.saturating_add(burst)));
        }
        if wait > 0 {
            return Err(RetryAfter(Duration::from_nanos(wait)));
        }
        for (name, rate) in rated {
            let (step, _) = steps(rate);
            let key = key(name);
            if let Some(entry) = claim(&mut sets, key, now) {
                let full = if entry.key == key { entry.full } else { 0 };
                *entry = Entry { key, full: full.max(now).saturating_add(step) };
            }
        }
        Ok(())
    }
}

/// The time that one request costs, and the time that may be owed at most, in nanoseconds.
fn steps(rate: crate::policy::draft::Rate) -> (u64, u64) {
    let per = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
    let step = (per / u64::from(rate.count.max(1))).max(1);
    (step, step.saturating_mul(u64::from(rate.burst.max(1))))
}

fn set_of(key: (u64, u64), sets: usize) -> usize {
    (key.1 % sets.max(1) as u64) as usize
}

fn find(sets: &[Set], key: (u64, u64)) -> Option<&Entry> {
    sets.get(set_of(key, sets.len()))?.iter().find(|entry| entry.key == key)
}

/// The key's own entry, else one that owes nothing, else the one that owes least.
fn claim(sets: &mut [Set], key: (u64, u64), now: u64) -> Option<&mut Entry> {
    let set = sets.get_mut(set_of(key, sets.len()))?;
    let at = match set.iter().position(|entry| entry.key == key) {
        Some(at) => at,
        None => set.iter().enumerate().min_by_key(|(_, entry)| entry.full.max(now))?.0,
    };
    set.get_mut(at)
}

impl Subject<'_> {
    fn canonical(self) -> Self {
        match self {
            Self::Device(_) => self,
            Self::Peer(peer) => match peer.to_canonical() {
                IpAddr::V6(v6) => Self::Peer(IpAddr::V6((v6.to_bits() >> 64 << 64).into())),
                v4 => Self::Peer(v4),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::draft::Rate;

    fn restriction(name: &str, count: u32, burst: u32) -> Restriction {
        let requests = Some(Rate { count, per: Duration::from_secs(60), burst });
        Restriction { name: name.into(), requests, ..Restriction::default() }
    }

    fn peer(n: u32) -> Subject<'static> {
        Subject::Peer(IpAddr::V4(n.into()))
    }

    #[test]
    fn a_burst_then_the_rate() {
        let rates = Rates::new(1000);
        let slow = restriction("slow", 60, 20);
        let start = Instant::now();
        let check = |at: f64| rates.check("wiki", Subject::Device("a"), [&slow].into_iter(), start + Duration::from_secs_f64(at));
        for _ in 0..20 {
            assert_eq!(check(0.0), Ok(()));
        }
        let RetryAfter(wait) = check(0.0).unwrap_err();
        assert!(wait > Duration::from_millis(990) && wait <= Duration::from_secs(1), "{wait:?}");
        assert!(check(0.5).is_err());
        assert_eq!(check(1.001), Ok(()));
        assert!(check(1.002).is_err());
        for _ in 0..20 {
            assert_eq!(check(100.0), Ok(()));
        }
        assert!(check(100.0).is_err());
    }

    #[test]
    fn counts_apart_by_restriction_app_and_subject() {
        let rates = Rates::new(1000);
        let (one, two) = (restriction("one", 1, 1), restriction("two", 1, 1));
        let now = Instant::now();
        let check = |app: &str, subject, which: &Restriction| rates.check(app, subject, [which].into_iter(), now).is_ok();
        assert!(check("wiki", Subject::Device("a"), &one));
        assert!(!check("wiki", Subject::Device("a"), &one));
        assert!(check("wiki", Subject::Device("a"), &two));
        assert!(check("git", Subject::Device("a"), &one));
        assert!(check("wiki", Subject::Device("b"), &one));
        let v6 = |text: &str| Subject::Peer(text.parse().unwrap());
        assert!(check("wiki", v6("2001:db8::1"), &one));
        assert!(!check("wiki", v6("2001:db8::ffff:2"), &one), "one /64 is one subject");
        assert!(check("wiki", v6("2001:db8:0:1::1"), &one));
        assert!(check("wiki", v6("192.0.2.1"), &one));
        assert!(!check("wiki", v6("::ffff:192.0.2.1"), &one));
    }

    #[test]
    fn of_two_rates_both_apply_and_a_refusal_counts_against_neither() {
        let rates = Rates::new(1000);
        let (wide, narrow) = (restriction("wide", 60, 3), restriction("narrow", 60, 1));
        let start = Instant::now();
        let both = || rates.check("wiki", peer(1), [&wide, &narrow].into_iter(), start);
        assert!(both().is_ok());
        for _ in 0..5 {
            assert!(both().is_err());
        }
        let only_wide = || rates.check("wiki", peer(1), [&wide].into_iter(), start);
        assert!(only_wide().is_ok());
        assert!(only_wide().is_ok());
        assert!(only_wide().is_err());
    }

    #[test]
    fn a_flood_of_new_subjects_does_not_free_a_limited_one() {
        let rates = Rates::new(512);
        let slow = restriction("slow", 60, 20);
        let now = Instant::now();
        let check = |subject| rates.check("wiki", subject, [&slow].into_iter(), now).is_ok();
        while check(peer(0)) {}
        for n in 1..100_000 {
            check(peer(n));
        }
        assert!(!check(peer(0)));
    }

    #[test]
    fn unlimited_restrictions_cost_nothing_and_odd_rates_do_not_panic() {
        let rates = Rates::new(0);
        let now = Instant::now();
        assert!(rates.check("wiki", peer(1), [&Restriction::default()].into_iter(), now).is_ok());
        let odd = Restriction { requests: Some(Rate { count: 0, per: Duration::MAX, burst: u32::MAX }), ..Restriction::default() };
        let _ = rates.check("wiki", peer(1), [&odd].into_iter(), now - Duration::from_secs(1));
        let zero = Restriction {
            name: "zero".into(),
            requests: Some(Rate { count: u32::MAX, per: Duration::ZERO, burst: 0 }),
            ..Restriction::default()
        };
        assert!(rates.check("wiki", peer(1), [&zero].into_iter(), now).is_ok());
    }
}
