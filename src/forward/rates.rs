//! Counting requests against `requests:` and bytes against `bandwidth:` restrictions, one count for the process: the generic cell rate algorithm
//! (ITU-T I.371).

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ahash::RandomState;
use smallvec::SmallVec;

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
        let now = self.nanos(now);
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

/// What a subject's bytes to and from an app go through: a lane for each `bandwidth:` that applies, each shared with all streams of the same subject
/// and app in the process.
#[derive(Clone, Debug)]
pub struct Lanes {
    rates: Arc<Rates>,
    lanes: SmallVec<[Lane; 1]>,
}

#[derive(Clone, Copy, Debug)]
struct Lane {
    home: u64,
    key: (u64, u64),
    /// Bytes a second, at least 1.
    width: u64,
}

impl Lanes {
    /// How far bytes may run ahead of their time; also how much goes in one piece, so that streams take turns.
    const AHEAD: Duration = Duration::from_millis(100);

    /// `None`: none of the restrictions has a bandwidth.
    pub fn new<'r>(
        rates: &Arc<Rates>,
        app: &str,
        subject: Subject<'_>,
        restrictions: impl Iterator<Item = &'r Restriction>,
    ) -> Option<Self> {
        let [first, second] = &rates.keys;
        let subject = subject.canonical();
        let home = first.hash_one((app, subject));
        let lane = |restriction: &Restriction| {
            let name = ("bandwidth", restriction.name.as_str());
            Some(Lane {
                home,
                key: (first.hash_one((home, name)), second.hash_one((app, subject, name))),
                width: restriction.bandwidth?.max(1),
            })
        };
        let lanes: SmallVec<[Lane; 1]> = restrictions.filter_map(lane).collect();
        (!lanes.is_empty()).then(|| Self { rates: Arc::clone(rates), lanes })
    }

    /// The most bytes to ask a turn for at once.
    pub(super) fn piece(&self) -> usize {
        let narrowest = self.lanes.iter().map(|lane| lane.width).min().unwrap_or(u64::MAX);
        usize::try_from(narrowest / 10).unwrap_or(usize::MAX).max(1)
    }

    /// Takes a turn for so many bytes behind all turns taken before, and says when it comes. Who takes one only when its last has come shares evenly
    /// with everybody else.
    pub(super) fn take(&self, bytes: usize, now: Instant) -> Instant {
        let now = self.rates.nanos(now);
        let after = self.lanes.iter().map(|lane| {
            let cost = lane.cost(bytes);
            self.rates.change(lane, now, |full| full.max(now).saturating_add(cost))
        });
        let due = after.max().unwrap_or(0).saturating_sub(Self::AHEAD.as_nanos() as u64);
        self.rates.began + Duration::from_nanos(due)
    }

    /// Gives a turn back that nobody will use: who opens streams and leaves must not hold up those that stay.
    pub(super) fn give_back(&self, bytes: usize, now: Instant) {
        let now = self.rates.nanos(now);
        for lane in &self.lanes {
            self.rates.change(lane, now, |full| full.saturating_sub(lane.cost(bytes)));
        }
    }
}

impl Lane {
    /// In nanoseconds.
    fn cost(&self, bytes: usize) -> u64 {
        u64::try_from(bytes as u128 * 1_000_000_000 / u128::from(self.width)).unwrap_or(u64::MAX)
    }
}

impl Rates {
    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Gives what the lane's bucket was changed to.
    fn change(&self, lane: &Lane, now: u64, change: impl FnOnce(u64) -> u64) -> u64 {
        let Some(shard) = self.shards.get(lane.home as usize % SHARDS) else { return now };
        let mut sets = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = claim(&mut sets, lane.key, now) else { return now };
        let full = change(if entry.key == lane.key { entry.full } else { 0 });
        *entry = Entry { key: lane.key, full };
        full
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

    fn narrow(name: &str, bandwidth: u64) -> Restriction {
        Restriction { name: name.into(), bandwidth: Some(bandwidth), ..Restriction::default() }
    }

    #[test]
    fn bytes_come_in_turn_and_on_time() {
        let rates = Arc::new(Rates::new(1000));
        let slow = narrow("slow", 1000);
        let lanes = |subject| Lanes::new(&rates, "wiki", subject, [&slow].into_iter()).unwrap();
        let (one, two, other) = (lanes(peer(1)), lanes(peer(1)), lanes(peer(2)));
        assert_eq!(one.piece(), 100);
        let start = rates.began + Duration::from_secs(1);
        let wait = |lanes: &Lanes| lanes.take(100, start).saturating_duration_since(start).as_millis();
        assert_eq!([wait(&one), wait(&two), wait(&one), wait(&two), wait(&other)], [0, 100, 200, 300, 0]);
        two.give_back(100, start);
        assert_eq!(wait(&one), 300, "whose turn was given back is not waited for");
        // All of it in the time that the bandwidth says, less what may run ahead; an idle time earns no more than that.
        let later = start + Duration::from_secs(100);
        let last = (0..10).map(|_| one.take(100, later)).max().unwrap();
        assert_eq!(last - later, Duration::from_millis(900));
    }

    #[test]
    fn of_two_bandwidths_both_apply_and_none_is_no_lane() {
        let rates = Arc::new(Rates::new(1000));
        let (wide, slow) = (narrow("wide", 10_000), narrow("slow", 1000));
        let both = Lanes::new(&rates, "wiki", peer(1), [&wide, &slow].into_iter()).unwrap();
        let start = rates.began;
        assert_eq!(both.piece(), 100);
        assert_eq!((both.take(1000, start) - start).as_millis(), 900);
        let alone = Lanes::new(&rates, "wiki", peer(1), [&wide].into_iter()).unwrap();
        assert_eq!((alone.take(1000, start) - start).as_millis(), 100, "and what went before counts in each");
        assert!(Lanes::new(&rates, "wiki", peer(1), [&restriction("rated", 1, 1)].into_iter()).is_none());
        let zero = Lanes::new(&rates, "wiki", peer(1), [&narrow("zero", 0)].into_iter()).unwrap();
        assert_eq!(zero.piece(), 1);
        let _ = zero.take(usize::MAX, start);
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
