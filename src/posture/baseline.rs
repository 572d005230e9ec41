//! Which stacks a device speaks, and when another one is a drift: a function of what is known of the device, of the fleet, of what was seen,
//! and of the time. `memory.rs` feeds it.
//!
//! Two layers are compared apart. A layer that a connection does not show, or that no known stack of the same TLS family ever showed, says nothing:
//! the same browser opens WebSockets over HTTP/1.1, and a SYN counts only where nothing relays it.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::config::Baseline as Limits;

/// More programs than this no device has; the one that was not seen for longest makes room.
const OWN_MAX: usize = 24;
/// Drifts remembered of one device: whoever shows ever new stacks must not push out what the device speaks, nor fill the memory.
const DRIFTS_MAX: usize = 8;

/// What a connection shows of the program behind it, by keyed hashes: equal hashes are equal texts, and nothing else follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stack {
    /// The family of its `ja4_stable`.
    pub tls: u64,
    /// Its HTTP/2 opening. `None`: HTTP/1, or not seen.
    pub h2: Option<u64>,
    /// The family of its SYN. `None`: not seen, or not the client's own.
    pub syn: Option<u64>,
}

/// A stack that a device spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spoken {
    pub stack: Stack,
    pub first: Timestamp,
    pub last: Timestamp,
    /// Since when it was seen without a pause longer than the learning period.
    pub steady: Timestamp,
    /// One of the device's own. `false`: a drift.
    pub own: bool,
    /// What was new about it when a device past its learning began to speak it: the same for every device that makes the same change.
    pub news: Option<u64>,
}

/// What is known of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// When learning began.
    pub since: Timestamp,
    pub stacks: Vec<Spoken>,
}

/// What became of a sighting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is taken as the device's own.
    Learning,
    Known,
    /// New to this device, and much of the fleet has begun to speak it.
    Fleet,
    /// A drift that was seen all the time for so long that it is taken for the device's own.
    Settled,
    Drift,
}

impl Verdict {
    pub const fn is_drift(self) -> bool {
        matches!(self, Self::Drift)
    }
}

/// How many devices began to speak what, within the window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// Past their learning, and seen within the window.
    pub devices: usize,
    pub starts: HashMap<u64, usize>,
}

/// What a sighting is. Reads only.
pub fn judge(baseline: &Baseline, fleet: &Fleet, stack: Stack, now: Timestamp, limits: &Limits) -> Verdict {
    if baseline.is_learning(now, limits) {
        return Verdict::Learning;
    }
    let Some(news) = baseline.news(stack, now, limits) else { return Verdict::Known };
    let before = baseline.stacks.iter().find(|spoken| !spoken.own && spoken.stack == stack && spoken.is_kept(now, limits));
    let counted = before.is_some_and(|before| before.started_within(now, limits));
    if fleet.moved(news, counted, limits) {
        return Verdict::Fleet;
    }
    let settled = before.is_some_and(|before| {
        // Not for waiting alone: the drift must have been there to be seen, and objected to, all the time.
        since(before.last, now) <= limits.learn && since(before.steady, now) >= limits.clear_after
    });
    if settled { Verdict::Settled } else { Verdict::Drift }
}

impl Baseline {
    /// Of a device that was never seen.
    pub fn begin(now: Timestamp) -> Self {
        Self { since: now, stacks: Vec::new() }
    }

    /// Whether all of it was forgotten: then the device is learned anew.
    pub fn is_over(&self, now: Timestamp, limits: &Limits) -> bool {
        !self.stacks.iter().any(|spoken| spoken.is_kept(now, limits)) && since(self.since, now) > limits.keep
    }

    pub fn is_learning(&self, now: Timestamp, limits: &Limits) -> bool {
        since(self.since, now) < limits.learn
    }

    /// Whether a drift is known that nobody cleared.
    pub fn drifts(&self) -> bool {
        self.stacks.iter().any(|spoken| !spoken.own)
    }

    pub fn last(&self) -> Option<Timestamp> {
        self.stacks.iter().map(|spoken| spoken.last).max()
    }

    /// Takes a sighting in. Gives the stacks that had to make room, never the one that was seen.
    pub fn note(&mut self, stack: Stack, verdict: Verdict, now: Timestamp, limits: &Limits) -> Vec<Stack> {
        let news = match verdict {
            Verdict::Learning | Verdict::Known => None,
            Verdict::Fleet | Verdict::Settled | Verdict::Drift => self.news(stack, now, limits),
        };
        let own = !verdict.is_drift();
        if let Some(spoken) = self.stacks.iter_mut().find(|spoken| spoken.stack == stack) {
            if !spoken.is_kept(now, limits) {
                *spoken = Spoken { stack, first: now, last: now, steady: now, own, news };
            }
            if since(spoken.last, now) > limits.learn {
                spoken.steady = now;
            }
            spoken.last = spoken.last.max(now);
            spoken.own = own;
            return Vec::new();
        }
        let gone = self.thin_out(own, if own { OWN_MAX - 1 } else { DRIFTS_MAX - 1 });
        self.stacks.push(Spoken { stack, first: now, last: now, steady: now, own, news });
        gone
    }

    /// Drops what is more than a process of its own would have let in: for what others saw.
    pub fn make_room(&mut self) -> Vec<Stack> {
        let mut gone = self.thin_out(true, OWN_MAX);
        gone.append(&mut self.thin_out(false, DRIFTS_MAX));
        gone
    }

    fn thin_out(&mut self, own: bool, most: usize) -> Vec<Stack> {
        let mut gone = Vec::new();
        loop {
            let alike = || self.stacks.iter().enumerate().filter(|(_, spoken)| spoken.own == own);
            let oldest = alike().min_by_key(|(_, spoken)| spoken.last).filter(|_| alike().count() > most);
            let Some((oldest, _)) = oldest else { return gone };
            gone.push(self.stacks.swap_remove(oldest).stack);
        }
    }

    /// Drops what was not seen for as long as anything is kept.
    pub fn forget(&mut self, now: Timestamp, limits: &Limits) -> Vec<Stack> {
        self.stacks.extract_if(.., |spoken| !spoken.is_kept(now, limits)).map(|spoken| spoken.stack).collect()
    }

    /// What is new about a stack, by the lowest layer that is; `None`: nothing, it is one of the device's own.
    fn news(&self, stack: Stack, now: Timestamp, limits: &Limits) -> Option<u64> {
        let same = || self.stacks.iter().filter(|spoken| spoken.own && spoken.stack.tls == stack.tls && spoken.is_kept(now, limits));
        if same().next().is_none() {
            return Some(stack.tls);
        }
        let new = |layer: Option<u64>, of: fn(&Stack) -> Option<u64>| {
            let shown = || same().filter_map(|spoken| of(&spoken.stack));
            layer.filter(|layer| shown().next().is_some() && !shown().any(|known| known == *layer))
        };
        // The hashes are of secret key: no two combinations meet but by chance.
        let h2 = new(stack.h2, |stack| stack.h2).map(|h2| stack.tls.rotate_left(1) ^ h2);
        h2.or_else(|| new(stack.syn, |stack| stack.syn).map(|syn| stack.tls.rotate_left(2) ^ syn))
    }
}

impl Spoken {
    fn is_kept(&self, now: Timestamp, limits: &Limits) -> bool {
        since(self.last, now) <= limits.keep
    }

    /// Whether it is one of the fleet's starts within the window.
    pub fn started_within(&self, now: Timestamp, limits: &Limits) -> bool {
        self.news.is_some() && since(self.first, now) <= limits.fleet_window
    }
}

impl Fleet {
    /// Counts a device in.
    pub fn count(&mut self, baseline: &Baseline, now: Timestamp, limits: &Limits) {
        let active = baseline.last().is_some_and(|last| since(last, now) <= limits.fleet_window);
        if !active || baseline.is_learning(now, limits) {
            return;
        }
        self.devices += 1;
        let mut news: Vec<u64> =
            baseline.stacks.iter().filter(|spoken| spoken.started_within(now, limits)).filter_map(|spoken| spoken.news).collect();
        // One device counts once, however many variants it shows of one change.
        news.sort_unstable();
        news.dedup();
        for news in news {
            *self.starts.entry(news).or_default() += 1;
        }
    }

    /// Whether so many devices made this change that one more is no surprise. `counted`: the device itself is in the count already.
    fn moved(&self, news: u64, counted: bool, limits: &Limits) -> bool {
        let started = self.starts.get(&news).copied().unwrap_or(0) + usize::from(!counted);
        let share = (self.devices * limits.fleet_share).div_ceil(100);
        started >= share.max(limits.fleet_devices)
    }
}

/// None when the clock went back.
fn since(at: Timestamp, now: Timestamp) -> std::time::Duration {
    now.duration_since(at).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests;
