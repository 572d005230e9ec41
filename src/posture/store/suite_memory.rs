//! What every store does with what proxies remember. A second backend passes the same suite.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::memory::{Batch, Remembered, Saying, Texts};
use super::{Absent, Access, Store, Writing};
use crate::config;
use crate::model::{Os, Set};
use crate::posture::baseline::{Spoken, Stack};
use crate::posture::census::{self, Asked, Group, Peers, Pending};
use crate::posture::edit::{Edit, Voice};
use crate::posture::values::By;

const STACK: Stack = Stack { tls: u64::MAX, h2: Some(7), syn: None };
const OTHER: Stack = Stack { tls: 1, h2: None, syn: Some(3) };
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Two connections to one empty store, and where it lies while the test runs.
fn sqlite() -> (Store, Store, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("devices.db");
    let open = || Store::open(&path, Access::Create, Duration::from_secs(5)).unwrap();
    (open(), open(), folder)
}

fn day(n: u32) -> Timestamp {
    "2026-11-01T00:00:00Z".parse::<Timestamp>().unwrap() + DAY * n
}

fn by() -> By {
    By::new("ada").unwrap()
}

fn spoken(stack: Stack, own: bool, first: u32, last: u32) -> (Spoken, Texts) {
    let texts = Texts { stack: "curl".to_owned(), ja4: Some("t13".to_owned()), opening: Some("1:2".to_owned()), signature: None };
    (Spoken { stack, first: day(first), last: day(last), steady: day(first), own, news: (!own).then_some(9) }, texts)
}

fn device(id: &str, stacks: Vec<(Spoken, Texts)>) -> Remembered {
    Remembered {
        device: id.to_owned(),
        class: Some("corporate".into()),
        seen: day(5),
        since: Some(day(1)),
        epoch: 0,
        stacks,
        gone: Vec::new(),
        said: None,
    }
}

fn devices(devices: Vec<Remembered>) -> Batch {
    Batch { devices, ..Batch::default() }
}

fn seen(first: u32, last: u32, peers: std::ops::Range<u64>, app: &str) -> Pending {
    let mut counted = Peers::default();
    peers.clone().for_each(|peer| counted.add((peer + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let connections = peers.end - peers.start;
    let asked = Asked { app: app.into(), owner: "it".into(), first: day(first), last: day(last), connections };
    Pending { first: day(first), last: day(last), hours: 1, connections, peers: counted, apps: vec![asked] }
}

fn group(name: &str) -> Arc<Group> {
    let os: Set<Os> = [Os::Windows, Os::Linux].into_iter().collect();
    Arc::new(Group { stack: name.into(), os, zone: Some("office".into()), ja4: Some("t13".into()) })
}

fn census(groups: Vec<(u64, Arc<Group>, Pending)>) -> Batch {
    Batch { census: census::Batch { groups, ..census::Batch::default() }, ..Batch::default() }
}

#[test]
fn what_is_remembered_of_a_device_comes_back_whole() {
    let (mut store, other, _folder) = sqlite();
    let written = device("a", vec![spoken(OTHER, false, 2, 5), spoken(STACK, true, 3, 4)]);
    let rev = store.remember(&devices(vec![written.clone()])).unwrap();
    assert_eq!(other.remembered_of("a").unwrap(), Some(written.clone()));
    assert_eq!(other.remembered(-1, i64::MAX).unwrap(), [written]);
    assert_eq!(other.remembered(rev, i64::MAX).unwrap(), [], "nothing newer");
    assert_eq!(other.remembered_of("b").unwrap(), None);
    assert_eq!(other.drifting().unwrap(), ["a"]);
    assert_eq!(other.head().unwrap().seq, 0, "no change of a record");
}

#[test]
fn what_two_proxies_saw_is_one() {
    let (mut store, mut other, _folder) = sqlite();
    store.remember(&devices(vec![device("a", vec![spoken(STACK, true, 3, 4)])])).unwrap();
    let older = Remembered { since: Some(day(0)), seen: day(4), class: None, ..device("a", vec![spoken(STACK, false, 2, 3)]) };
    other.remember(&devices(vec![older])).unwrap();
    let both = store.remembered_of("a").unwrap().unwrap();
    assert_eq!((both.since, both.seen, both.class.as_deref()), (Some(day(0)), day(5), Some("corporate")));
    let (spoken, _) = &both.stacks[0];
    assert_eq!((spoken.first, spoken.last, spoken.own), (day(2), day(4), true), "accepted by one is accepted");
}

#[test]
fn what_an_operator_says_undoes_what_was_not_written_yet() {
    let (mut store, mut proxy, _folder) = sqlite();
    let drift = devices(vec![device("a", vec![spoken(STACK, true, 1, 4), spoken(OTHER, false, 4, 4)])]);
    let rev = proxy.remember(&drift).unwrap();
    assert!(!store.say("b", Saying::Accepted, &by(), day(6)).unwrap());
    assert!(store.say("a", Saying::Accepted, &by(), day(6)).unwrap());
    proxy.remember(&drift).unwrap();
    let heard = proxy.remembered(rev, i64::MAX).unwrap();
    assert_eq!((heard.len(), heard[0].epoch), (1, 1));
    assert!(heard[0].stacks.iter().all(|(spoken, _)| spoken.own));
    let said = heard[0].said.as_ref().unwrap();
    assert_eq!((said.what, said.by.as_str(), said.at), (Saying::Accepted, "ada", day(6)));
    assert!(store.drifting().unwrap().is_empty());

    store.say("a", Saying::Forgotten, &by(), day(7)).unwrap();
    proxy.remember(&devices(vec![Remembered { epoch: 1, ..device("a", vec![spoken(STACK, true, 1, 7)]) }])).unwrap();
    let forgotten = store.remembered_of("a").unwrap().unwrap();
    assert_eq!((forgotten.since, forgotten.stacks.len(), forgotten.epoch), (None, 0, 2));
    let anew = Remembered { epoch: 2, since: Some(day(8)), ..device("a", vec![spoken(OTHER, true, 8, 8)]) };
    proxy.remember(&devices(vec![anew])).unwrap();
    assert_eq!(store.remembered_of("a").unwrap().unwrap().since, Some(day(8)));
}

#[test]
fn a_device_of_which_nothing_is_left_begins_anew() {
    let (mut store, _, _folder) = sqlite();
    store.remember(&devices(vec![device("a", vec![spoken(STACK, true, 1, 4)])])).unwrap();
    let anew = Remembered { since: Some(day(200)), gone: vec![STACK], ..device("a", vec![spoken(OTHER, true, 200, 200)]) };
    store.remember(&devices(vec![anew])).unwrap();
    let known = store.remembered_of("a").unwrap().unwrap();
    assert_eq!((known.since, known.stacks.len(), known.stacks[0].0.stack), (Some(day(200)), 1, OTHER));
}

#[test]
fn the_census_adds_up_whoever_counts() {
    let (mut store, mut other, _folder) = sqlite();
    store.remember(&census(vec![(5, group("curl"), seen(1, 2, 0..3, "wiki")), (u64::MAX, group("go"), seen(1, 1, 0..1, "wiki"))])).unwrap();
    other.remember(&census(vec![(5, group("curl"), seen(2, 3, 2..5, "git"))])).unwrap();
    let counted = store.blind().unwrap();
    assert_eq!(counted.len(), 2);
    let curl = &counted[0];
    assert_eq!((curl.id, curl.group.as_ref(), curl.seen.connections, curl.seen.hours), (5, Some(&*group("curl")), 6, 2));
    assert_eq!((curl.seen.first, curl.seen.last, curl.seen.peers.estimate()), (day(1), day(3), 5));
    let apps: Vec<_> = curl.seen.apps.iter().map(|asked| (&*asked.app, &*asked.owner, asked.connections)).collect();
    assert_eq!(apps, [("git", "it", 3), ("wiki", "it", 3)]);
    assert_eq!(store.blind_peers().unwrap(), 6);
}

#[test]
fn groups_that_made_room_are_counted_together() {
    let (mut store, _, _folder) = sqlite();
    store.remember(&census(vec![(5, group("curl"), seen(1, 2, 0..3, "wiki")), (6, group("go"), seen(1, 1, 0..1, "wiki"))])).unwrap();
    let mut batch = census(Vec::new());
    batch.census.gone = vec![5, 77];
    batch.census.other = Some(seen(0, 3, 10..14, "git"));
    store.remember(&batch).unwrap();
    let counted = store.blind().unwrap();
    assert_eq!(counted.iter().map(|counted| counted.id).collect::<Vec<_>>(), [6, 0], "the others last");
    let other = &counted[1];
    assert!(other.group.is_none());
    assert_eq!((other.seen.connections, other.seen.first, other.seen.last, other.seen.peers.estimate()), (7, day(0), day(3), 7));
    assert_eq!(other.seen.apps.iter().map(|asked| asked.connections).sum::<u64>(), 7);
}

#[test]
fn what_is_old_is_forgotten_and_what_may_not_be_read_is_hashed() {
    let (mut store, other, _folder) = sqlite();
    let mut edits = Vec::new();
    for (id, ownership) in [("work", "corporate"), ("mine", "personal")] {
        let mut edit = Edit::new(id).unwrap();
        let terms = crate::posture::values::Terms { now: day(0), sources: None, folder: std::path::Path::new("") };
        edit.assign("ownership", crate::posture::edit::Op::Replace, ownership, &terms).unwrap();
        edits.push(edit);
    }
    store.write(&edits, Writing { by: &by(), now: day(0), voice: Voice::Person, absent: Absent::Add }).unwrap();
    let stacks = || vec![spoken(STACK, true, 1, 100), spoken(OTHER, true, 1, 2)];
    store
        .remember(&devices(vec![device("work", stacks()), device("mine", stacks()), device("old", vec![spoken(STACK, true, 1, 2)])]))
        .unwrap();
    store.remember(&census(vec![(5, group("curl"), seen(1, 90, 0..3, "wiki")), (6, group("go"), seen(1, 2, 0..1, "wiki"))])).unwrap();

    let mut limits = config::Memory::default();
    (limits.baseline.keep, limits.census.keep) = (DAY * 90, DAY * 30);
    let version = other.version().unwrap();
    store.forget(&config::Memory { hash: config::Hash::None, ..limits }, day(101)).unwrap();
    assert_ne!(other.version().unwrap(), version);
    let batch = other.memory().unwrap().unwrap().rev;
    assert_eq!(batch, 3, "it counts as a batch: no record changed");
    let texts =
        |id: &str| store.remembered_of(id).unwrap().map(|one| one.stacks.iter().map(|(_, texts)| texts.ja4.is_some()).collect::<Vec<_>>());
    assert_eq!((texts("work"), texts("mine"), texts("old")), (Some(vec![true]), Some(vec![true]), None));
    assert_eq!(
        store.blind().unwrap().iter().map(|c| (c.id, c.group.clone().unwrap().ja4.unwrap())).collect::<Vec<_>>(),
        [(5, "t13".into())]
    );

    store.forget(&limits, day(101)).unwrap();
    let texts = |id: &str| store.remembered_of(id).unwrap().map(|one| one.stacks[0].1.clone());
    let hashed = Texts { stack: "curl".to_owned(), ..Texts::default() };
    assert_eq!((texts("work").unwrap().ja4.is_some(), texts("mine")), (true, Some(hashed.clone())));
    assert_eq!(store.blind().unwrap()[0].group.clone().unwrap().ja4.as_deref(), Some("#0000000000000005"));
    store.forget(&config::Memory { hash: config::Hash::All, ..limits }, day(101)).unwrap();
    let rev = store.memory().unwrap().unwrap().rev;
    assert_eq!(store.remembered_of("work").unwrap().unwrap().stacks[0].1, hashed);
    store.forget(&limits, day(101)).unwrap();
    assert_eq!(store.memory().unwrap().unwrap().rev, rev, "nothing to do is no batch");
}
