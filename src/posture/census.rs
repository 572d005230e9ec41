//! The census of the blind: devices without a record, grouped by what they show. Here is what a process has in memory of it: which groups there
//! are, what each is worth, and what has not been written to the store yet. The store has the counts; nothing here waits for it.
//!
//! A flood of fingerprints must neither fill the memory nor push out those who come every day. So what is full is thinned out by the number of
//! hours in which a group was seen, which no volume buys: a flood loses its own groups, and they are counted together.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

pub use self::peers::Peers;
use crate::config::Census as Limits;
use crate::model::{Os, Set};

mod peers;

/// Apps counted apart in one group. What is asked for beyond is counted under [`MORE`].
const APPS_MAX: usize = 64;
/// Not the name of an app: those begin with a letter or digit.
const MORE: &str = "(more)";

/// What the devices of a group show alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// Names of stacks, `unknown` for none.
    pub stack: Box<str>,
    /// What the wire leaves possible; empty: it says nothing.
    pub os: Set<Os>,
    pub zone: Option<Box<str>>,
    /// Of an unknown stack: its family of `ja4_stable`, or its hash. `None`: known, or no hello was seen.
    pub ja4: Option<Box<str>>,
}

/// A blind device's visit: a new connection, or the first request for an app on one.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'a> {
    pub app: &'a str,
    pub owner: &'a str,
    /// A keyed hash of the peer's address.
    pub peer: u64,
    /// Whether the connection is new. `false`: it is counted already, this app is not.
    pub arrives: bool,
}

/// What was counted and is not in the store yet.
#[derive(Clone, Debug)]
pub struct Pending {
    pub first: Timestamp,
    pub last: Timestamp,
    pub hours: u64,
    pub connections: u64,
    pub peers: Peers,
    pub apps: Vec<Asked>,
}

/// How often one app was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub app: Arc<str>,
    pub owner: Arc<str>,
    pub first: Timestamp,
    pub last: Timestamp,
    pub connections: u64,
}

/// What the store is to be told. Ids are hashes of groups.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub groups: Vec<(u64, Arc<Group>, Pending)>,
    /// Groups that made room: the store counts them under `other`.
    pub gone: Vec<u64>,
    /// Of groups that made room before they were written.
    pub other: Option<Pending>,
}

#[derive(Debug, Default)]
pub struct Census {
    groups: HashMap<u64, Entry>,
    gone: Vec<u64>,
    other: Option<Pending>,
    /// Groups that made room, since the process began.
    pub overflowed: u64,
}

#[derive(Debug)]
struct Entry {
    group: Arc<Group>,
    last: Timestamp,
    hours: u64,
    connections: u64,
    stored: bool,
    pending: Option<Box<Pending>>,
}

impl Census {
    /// Counts a visit of the group with this id; `group` says which that is when it is new.
    pub fn count(&mut self, id: u64, group: impl FnOnce() -> Group, visitor: &Visitor<'_>, now: Timestamp, limits: &Limits) {
        if limits.entries == 0 {
            return;
        }
        if !self.groups.contains_key(&id) && self.groups.len() >= limits.entries {
            self.thin_out(limits.entries);
        }
        let entry = self.groups.entry(id).or_insert_with(|| Entry {
            group: Arc::new(group()),
            last: Timestamp::UNIX_EPOCH,
            hours: 0,
            connections: 0,
            stored: false,
            pending: None,
        });
        let hours = u64::from(hour(entry.last) != hour(now));
        entry.hours += hours;
        entry.last = now;
        entry.connections += u64::from(visitor.arrives);
        let pending = entry.pending.get_or_insert_with(|| Box::new(Pending::begin(now)));
        pending.hours += hours;
        pending.count(visitor, now);
    }

    /// A group that the store has, as it is there.
    pub fn restore(&mut self, id: u64, group: Group, (last, hours, connections): (Timestamp, u64, u64)) {
        self.groups.insert(id, Entry { group: Arc::new(group), last, hours, connections, stored: true, pending: None });
    }

    /// What is not in the store yet; from now on it counts as stored.
    pub fn take(&mut self) -> Batch {
        let mut groups = Vec::new();
        for (id, entry) in &mut self.groups {
            if let Some(pending) = entry.pending.take() {
                entry.stored = true;
                groups.push((*id, Arc::clone(&entry.group), *pending));
            }
        }
        Batch { groups, gone: std::mem::take(&mut self.gone), other: self.other.take() }
    }

    /// Forgets groups that were not seen for so long. The store forgets them by itself.
    pub fn forget(&mut self, now: Timestamp, limits: &Limits) {
        self.groups.retain(|_, entry| now.duration_since(entry.last) <= limits.keep.try_into().unwrap_or(jiff::SignedDuration::MAX));
    }

    /// How many groups there are.
    pub fn size(&self) -> usize {
        self.groups.len()
    }

    /// Makes room for a quarter more, so that a flood pays for one look over all groups only now and then.
    fn thin_out(&mut self, entries: usize) {
        let mut worth: Vec<_> = self.groups.iter().map(|(id, entry)| (entry.hours, entry.connections, entry.last, *id)).collect();
        let room = (entries / 4).max(1) + self.groups.len().saturating_sub(entries);
        worth.sort_unstable();
        for (.., id) in worth.into_iter().take(room) {
            let Some(entry) = self.groups.remove(&id) else { continue };
            self.overflowed += 1;
            if entry.stored {
                self.gone.push(id);
            }
            if let Some(pending) = entry.pending {
                match &mut self.other {
                    Some(other) => other.merge(*pending),
                    None => self.other = Some(*pending),
                }
            }
        }
    }
}

impl Pending {
    fn begin(now: Timestamp) -> Self {
        Self { first: now, last: now, hours: 0, connections: 0, peers: Peers::default(), apps: Vec::new() }
    }

    fn count(&mut self, visitor: &Visitor<'_>, now: Timestamp) {
        self.last = self.last.max(now);
        self.connections += u64::from(visitor.arrives);
        self.peers.add(visitor.peer);
        let Visitor { app, owner, .. } = *visitor;
        self.asked(Asked { app: app.into(), owner: owner.into(), first: now, last: now, connections: 1 });
    }

    fn merge(&mut self, other: Self) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.hours = self.hours.max(other.hours);
        self.connections += other.connections;
        self.peers.merge(&other.peers);
        other.apps.into_iter().for_each(|asked| self.asked(asked));
    }

    fn asked(&mut self, asked: Asked) {
        if let Some(known) = self.apps.iter_mut().find(|known| known.app == asked.app && known.owner == asked.owner) {
            known.first = known.first.min(asked.first);
            known.last = known.last.max(asked.last);
            known.connections += asked.connections;
        } else if self.apps.len() < APPS_MAX || &*asked.app == MORE {
            self.apps.push(asked);
        } else {
            self.asked(Asked { app: MORE.into(), owner: MORE.into(), ..asked });
        }
    }
}

fn hour(at: Timestamp) -> i64 {
    at.as_second().div_euclid(3600)
}

#[cfg(test)]
mod tests {
    use super::peers::hash;
    use super::*;

    const LIMITS: Limits = Limits { entries: 100, keep: std::time::Duration::from_secs(30 * 24 * 3600) };

    fn at(hours: u32) -> Timestamp {
        "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + std::time::Duration::from_secs(3600) * hours
    }

    fn group(name: &str) -> Group {
        Group { stack: name.into(), os: Set::EMPTY, zone: None, ja4: None }
    }

    const WIKI: Visitor<'static> = Visitor { app: "wiki", owner: "knowledge", peer: 1, arrives: true };

    fn see(census: &mut Census, id: u64, now: Timestamp) {
        census.count(id, || group("chromium"), &Visitor { peer: hash(id), ..WIKI }, now, &LIMITS);
    }

    #[test]
    fn counted_per_group_app_and_owner() {
        let mut census = Census::default();
        let git = Visitor { app: "git", owner: "code", peer: hash(2), arrives: false };
        census.count(1, || group("chromium"), &WIKI, at(0), &LIMITS);
        census.count(1, || group("chromium"), &git, at(0), &LIMITS);
        census.count(1, || group("chromium"), &Visitor { arrives: true, ..git }, at(2), &LIMITS);
        census.count(2, || group("curl"), &WIKI, at(1), &LIMITS);
        let mut batch = census.take();
        batch.groups.sort_by_key(|(id, ..)| *id);
        let (_, of, pending) = &batch.groups[0];
        assert_eq!((&*of.stack, pending.connections, pending.hours, pending.peers.estimate()), ("chromium", 2, 2, 2));
        assert_eq!((pending.first, pending.last), (at(0), at(2)));
        let apps: Vec<_> = pending.apps.iter().map(|a| (&*a.app, &*a.owner, a.connections, a.first, a.last)).collect();
        assert_eq!(apps, [("wiki", "knowledge", 1, at(0), at(0)), ("git", "code", 2, at(0), at(2))]);
        assert_eq!(batch.groups.len(), 2);
        assert!(census.take().groups.is_empty(), "told once");
    }

    #[test]
    fn a_flood_loses_its_own_groups_only() {
        let mut census = Census::default();
        for hour in 0..3 {
            (0..50).for_each(|id| see(&mut census, id, at(hour)));
        }
        drop(census.take());
        // More of each than any honest group has, but in one hour.
        for id in 1000..51_000 {
            (0..4).for_each(|_| see(&mut census, id, at(48)));
            assert!(census.size() <= LIMITS.entries);
        }
        assert!((0..50).all(|id| census.groups.contains_key(&id)), "those who come every day are there");
        let batch = census.take();
        assert!(batch.gone.is_empty(), "nothing that was written has to go");
        let other = batch.other.expect("what did not fit is counted");
        let kept: u64 = batch.groups.iter().map(|(.., pending)| pending.connections).sum();
        assert_eq!(other.connections + kept, 50_000 * 4);
        assert_eq!(census.overflowed, 50_000 - batch.groups.len() as u64);
        assert!((42_000..58_000).contains(&other.peers.estimate()), "{}", other.peers.estimate());
    }

    #[test]
    fn a_newcomer_always_has_its_chance() {
        let mut census = Census::default();
        (0..100).for_each(|id| (0..3).for_each(|hour| see(&mut census, id, at(hour))));
        drop(census.take());
        see(&mut census, 500, at(3));
        assert!(census.groups.contains_key(&500), "full of groups that are worth more");
        assert_eq!(census.take().gone.len(), 25);
    }

    #[test]
    fn apps_of_one_group_are_bounded() {
        let mut census = Census::default();
        for n in 0..200 {
            let app = format!("app-{n}");
            census.count(1, || group("curl"), &Visitor { app: &app, ..WIKI }, at(0), &LIMITS);
        }
        let batch = census.take();
        let apps = &batch.groups[0].2.apps;
        assert_eq!((apps.len(), apps.last().map(|a| (&*a.app, a.connections))), (APPS_MAX + 1, Some((MORE, 136))));
    }

    #[test]
    fn what_is_not_seen_any_more_is_forgotten_and_nothing_is_kept_where_nothing_may_be() {
        let mut census = Census::default();
        see(&mut census, 1, at(0));
        see(&mut census, 2, at(700));
        census.forget(at(721), &LIMITS);
        assert_eq!(census.size(), 1);
        census.count(3, || group("curl"), &WIKI, at(721), &Limits { entries: 0, ..LIMITS });
        assert_eq!(census.size(), 1);
    }
}
