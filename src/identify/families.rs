//! `intercepted`: one stack that carries browsers of several makes is a middlebox that speaks TLS for a whole office.
//!
//! A verdict here silences contradictions, so a liar would like to bring it about. What a liar has for free is any User-Agent, as often as he likes;
//! so claims are counted by whom they came from, each make must be claimed by several, and one address is one, whatever it says. Proven devices weigh
//! more than addresses: a record cannot be made up. Addresses count within networks that the operator has named; elsewhere they are free to rent, and the
//! caller tells of devices only.

use std::time::Duration;

use crate::model::Engine;

/// One client's claim on one stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// A keyed hash of `ja4_stable` and of the network that it came from: what a verdict holds for.
    pub stack: u64,
    /// What the client claims to be built on: `Side::engine` of the User-Agent. Tools are not told of: they say anything.
    pub engine: Engine,
    pub whose: Whose,
}

/// Keyed hashes of whom a claim came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A device with a record, proven on this connection.
    Device(u64),
    /// A peer address, its /64 for IPv6.
    Peer(u64),
}

/// Weights: a make counts from `ENOUGH` on. Three proven devices, or eight addresses, or as much of both.
const ENOUGH: u32 = 24;
const DEVICE: u32 = 8;
const PEER: u32 = 3;
/// Makes that must count. An honest stack is of one make; there are three, and offices often have but two.
const MAKES: usize = 2;
/// A claim counts for a working day and a night: long enough that an office is recognised by those of its people who came today.
const COUNTS_FOR: Duration = Duration::from_secs(24 * 3600);
/// Whom one make remembers at most: `ENOUGH / PEER`.
const WHOSE: usize = 8;
/// Buckets by hash, and stacks in each: at most 4096 stacks are watched, in less than 2 MiB.
const BUCKETS: usize = 512;
const IN_BUCKET: usize = 8;

/// Who claimed what on which stack. Bounded whatever is told.
#[derive(Debug)]
pub struct Families {
    buckets: Vec<Vec<Stack>>,
}

#[derive(Debug)]
struct Stack {
    key: u64,
    last: Duration,
    /// By engine.
    makes: [Vec<Claimant>; Engine::ALL.len()],
}

#[derive(Clone, Copy, Debug)]
struct Claimant {
    whose: Whose,
    at: Duration,
}

impl Default for Families {
    fn default() -> Self {
        Self { buckets: std::iter::repeat_with(Vec::new).take(BUCKETS).collect() }
    }
}

impl Families {
    /// `now` counts from any fixed moment, the same for all calls.
    pub fn tell(&mut self, told: Told, now: Duration) {
        let Some(bucket) = bucket(told.stack).and_then(|at| self.buckets.get_mut(at)) else { return };
        let at = bucket.iter().position(|stack| stack.key == told.stack).unwrap_or_else(|| {
            // A flood of stacks pushes out the weakest, never one that many have claimed.
            if bucket.len() >= IN_BUCKET
                && let Some(weakest) = (0..bucket.len()).min_by_key(|at| bucket.get(*at).map(|stack| (stack.weight(now), stack.last)))
            {
                bucket.swap_remove(weakest);
            }
            bucket.push(Stack { key: told.stack, last: now, makes: Default::default() });
            bucket.len() - 1
        });
        if let Some(stack) = bucket.get_mut(at) {
            stack.last = now;
            stack.tell(told, now);
        }
    }

    /// Whether this stack carries browsers of several makes.
    pub fn intercepted(&self, stack: u64, now: Duration) -> bool {
        let bucket = bucket(stack).and_then(|at| self.buckets.get(at));
        bucket.into_iter().flatten().any(|known| known.key == stack && known.intercepted(now))
    }

    /// How many stacks are watched.
    pub fn len(&self) -> usize {
        self.buckets.iter().map(Vec::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn bucket(stack: u64) -> Option<usize> {
    usize::try_from(stack % u64::try_from(BUCKETS).ok()?).ok()
}

impl Stack {
    fn tell(&mut self, told: Told, now: Duration) {
        let Some(make) = Engine::ALL.iter().position(|engine| *engine == told.engine).and_then(|at| self.makes.get_mut(at)) else { return };
        if let Some(known) = make.iter_mut().find(|claimant| claimant.whose == told.whose) {
            known.at = now;
            return;
        }
        let new = Claimant { whose: told.whose, at: now };
        if make.len() < WHOSE {
            make.push(new);
        } else if let Some(place) =
            make.iter_mut().min_by_key(|claimant| (weight(claimant, now), claimant.at)).filter(|old| weight(old, now) <= weight(&new, now))
        {
            *place = new;
        }
    }

    fn intercepted(&self, now: Duration) -> bool {
        self.makes.iter().filter(|make| make.iter().map(|claimant| weight(claimant, now)).sum::<u32>() >= ENOUGH).count() >= MAKES
    }

    fn weight(&self, now: Duration) -> u32 {
        self.makes.iter().flatten().map(|claimant| weight(claimant, now)).sum()
    }
}

fn weight(claimant: &Claimant, now: Duration) -> u32 {
    match claimant.whose {
        _ if now.saturating_sub(claimant.at) > COUNTS_FOR => 0,
        Whose::Device(_) => DEVICE,
        Whose::Peer(_) => PEER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000_000);

    fn told(families: &mut Families, engine: Engine, whose: impl IntoIterator<Item = Whose>) {
        for whose in whose {
            families.tell(Told { stack: 7, engine, whose }, NOW);
        }
    }

    #[test]
    fn an_office_of_two_makes_behind_one_stack() {
        let mut families = Families::default();
        told(&mut families, Engine::Chromium, (0..8).map(Whose::Peer));
        assert!(!families.intercepted(7, NOW));
        told(&mut families, Engine::Firefox, (0..2).map(Whose::Device));
        assert!(!families.intercepted(7, NOW));
        told(&mut families, Engine::Firefox, [Whose::Device(2)]);
        assert!(families.intercepted(7, NOW));
        assert!(!families.intercepted(8, NOW), "another stack");
    }

    #[test]
    fn an_honest_stack_of_many_people_is_of_one_make() {
        let mut families = Families::default();
        told(&mut families, Engine::Chromium, (0..1000).map(Whose::Device));
        assert!(!families.intercepted(7, NOW));
    }

    /// One address says everything, all day.
    #[test]
    fn one_liar_behind_an_address_changes_nothing() {
        let mut families = Families::default();
        told(&mut families, Engine::Chromium, (0..100).map(Whose::Device));
        for _ in 0..10_000 {
            for engine in Engine::ALL {
                told(&mut families, *engine, [Whose::Peer(66)]);
            }
        }
        assert!(!families.intercepted(7, NOW));
    }

    #[test]
    fn addresses_do_not_push_out_devices() {
        let mut families = Families::default();
        told(&mut families, Engine::Chromium, (0..8).map(Whose::Device));
        told(&mut families, Engine::Firefox, (0..3).map(Whose::Device));
        told(&mut families, Engine::Firefox, (0..1000).map(Whose::Peer));
        assert!(families.intercepted(7, NOW));
    }

    #[test]
    fn claims_are_forgotten() {
        let mut families = Families::default();
        told(&mut families, Engine::Chromium, (0..3).map(Whose::Device));
        told(&mut families, Engine::Firefox, (0..3).map(Whose::Device));
        assert!(families.intercepted(7, NOW + COUNTS_FOR));
        assert!(!families.intercepted(7, NOW + COUNTS_FOR + Duration::from_secs(1)));
    }

    #[test]
    fn a_flood_of_stacks_is_bounded_and_pushes_out_no_verdict() {
        let mut families = Families::default();
        told(&mut families, Engine::Chromium, (0..3).map(Whose::Device));
        told(&mut families, Engine::Apple, (0..3).map(Whose::Device));
        for stack in 0..100_000 {
            families.tell(Told { stack, engine: Engine::Firefox, whose: Whose::Peer(stack) }, NOW + Duration::from_secs(1));
        }
        assert!(families.len() <= BUCKETS * IN_BUCKET);
        assert!(families.intercepted(7, NOW));
    }
}
