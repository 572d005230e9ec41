//! Which server of an app takes a request.

use std::time::Instant;

use smallvec::SmallVec;

use super::fitness::{Turn, millis};
use super::upstreams::{App, Target};
use super::{Ends, Order};
use crate::config::Balance;

/// Servers that one request is tried on.
pub(super) const TRIES: usize = 8;

/// The servers that a request was tried on, by their places in the app's list.
pub(super) type Tried = SmallVec<[u16; TRIES]>;

/// What makes a server worse than another for a request, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Free,
    /// Its share still grows, and this request is not in it.
    Growing,
    /// All its permitted connections are in use.
    Full,
    Resting,
    Ejected,
}

/// When a request asks, and for whom.
#[derive(Clone, Copy)]
struct Asked<'a> {
    now: Instant,
    whose: &'a dyn Fn() -> Ends,
}

impl App {
    /// As `pick`, for the request of an order.
    pub(super) fn pick_for(&self, order: &Order<'_>, tried: &[u16], now: Instant) -> Option<(u16, &Target, Rank)> {
        self.pick(|| order.key(), || order.client.ends(), tried, now)
    }

    /// The server for a request that was tried on `tried`. `None`: all others are down, or there are none. `key`: whose requests stay together;
    /// `whose` it is, for servers that are told.
    pub(super) fn pick(
        &self,
        key: impl FnOnce() -> u64,
        whose: impl Fn() -> Ends,
        tried: &[u16],
        now: Instant,
    ) -> Option<(u16, &Target, Rank)> {
        let asked = Asked { now, whose: &whose };
        if let ([only], true) = (self.targets.as_slice(), tried.is_empty()) {
            return Some((0, only, self.rank(only, asked, || 1.0)?));
        }
        let at = match self.balance {
            Balance::RoundRobin => self.next_in_turn(tried, asked),
            Balance::LeastRequests => self.less_busy(tried, asked),
            Balance::Hash => self.highest(key(), tried, asked),
        };
        let (at, rank) = at?;
        Some((u16::try_from(at).ok()?, self.targets.get(at)?, rank))
    }

    /// `None`: down. `draw`: from 0 to 1, what decides whether a request is in a share that still grows.
    fn rank(&self, target: &Target, asked: Asked<'_>, draw: impl FnOnce() -> f64) -> Option<Rank> {
        let Asked { now, whose } = asked;
        Some(match target.place.fitness.turn(|| millis(now), self.slow_start) {
            Turn::Down => return None,
            Turn::Ejected(_) => Rank::Ejected,
            Turn::Resting(_) => Rank::Resting,
            _ if !target.server.has_room(whose) => Rank::Full,
            Turn::Whole => Rank::Free,
            Turn::Since(back) => {
                #[allow(clippy::cast_precision_loss)] // at most an hour
                let share = millis(now).saturating_sub(back) as f64 / self.slow_start.max(1) as f64;
                if draw() < share { Rank::Free } else { Rank::Growing }
            }
        })
    }

    fn untried<'a>(&'a self, tried: &'a [u16], asked: Asked<'a>) -> impl Fn(usize) -> Option<(usize, Rank)> + 'a {
        move |at| {
            let target = self.targets.get(at).filter(|_| !tried.iter().any(|tried| usize::from(*tried) == at))?;
            Some((at, self.rank(target, asked, fastrand::f64)?))
        }
    }

    /// The next goes on behind the one that was taken: where one is out, all others share what it would take.
    fn next_in_turn(&self, tried: &[u16], asked: Asked<'_>) -> Option<(usize, Rank)> {
        let count = self.targets.len();
        let start = self.next.get().checked_rem(count)?;
        let ranked = self.untried(tried, asked);
        let mut best: Option<(usize, Rank)> = None;
        for (at, rank) in (start..count).chain(0..start).filter_map(ranked) {
            if best.is_none_or(|(_, than)| rank < than) {
                best = Some((at, rank));
            }
            if rank == Rank::Free {
                break;
            }
        }
        if let Some((at, _)) = best {
            self.next.set((at + 1) % count);
        }
        best
    }

    /// Of two at random the one with fewer requests of this worker running (Mitzenmacher, The Power of Two Choices in Randomized Load Balancing).
    fn less_busy(&self, tried: &[u16], asked: Asked<'_>) -> Option<(usize, Rank)> {
        let mut best: SmallVec<[(usize, Rank); 16]> = SmallVec::new();
        for one in (0..self.targets.len()).filter_map(self.untried(tried, asked)) {
            if best.first().is_some_and(|(_, than)| one.1 < *than) {
                best.clear();
            }
            if best.first().is_none_or(|(_, than)| one.1 == *than) {
                best.push(one);
            }
        }
        let count = best.len();
        let first = *best.get(fastrand::usize(..count.max(1)))?;
        if count == 1 {
            return Some(first);
        }
        let mut rest = best.iter().filter(|one| one.0 != first.0);
        let second = *rest.nth(fastrand::usize(..count - 1))?;
        let running = |(at, _): (usize, Rank)| self.targets.get(at).map(|target| target.running.read());
        Some(if running(second) < running(first) { second } else { first })
    }

    /// Rendezvous hashing (Thaler and Ravishankar, 1998): each server has a number for each key, and the highest takes it. One that leaves moves its own
    /// keys alone, and proxies with the same servers agree without a word. In a share that grows a key stays once it is there.
    fn highest(&self, key: u64, tried: &[u16], asked: Asked<'_>) -> Option<(usize, Rank)> {
        let ranked = self.targets.iter().enumerate().filter(|(at, _)| !tried.iter().any(|tried| usize::from(*tried) == *at));
        let ranked = ranked.filter_map(|(at, target)| {
            let score = mixed(key ^ target.seed);
            Some((self.rank(target, asked, || fraction(mixed(score)))?, std::cmp::Reverse(score), at))
        });
        ranked.min().map(|(rank, _, at)| (at, rank))
    }
}

#[allow(clippy::cast_precision_loss)] // 53 bits fit
fn fraction(number: u64) -> f64 {
    (number >> 11) as f64 / (1u64 << 53) as f64
}

/// The same in every process and version, unlike the standard library's.
pub(super) fn stable_hash(bytes: &[u8]) -> u64 {
    mixed(fnv1a(bytes))
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A step of splitmix64 (Steele, Lea and Flood, 2014): each bit that goes in changes about half of those that come out.
fn mixed(state: u64) -> u64 {
    let mut number = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of the algorithms' authors (isthe.com/chongo/tech/comp/fnv, prng.di.unimi.it): proxies of other builds choose the same servers.
    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!([fnv1a(b""), fnv1a(b"a"), fnv1a(b"foobar")], [0xcbf2_9ce4_8422_2325, 0xaf63_dc4c_8601_ec8c, 0x8594_4171_f739_67e8]);
        assert_eq!(mixed(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mixed(1_234_567), 6_457_827_717_110_365_317);
    }
}
