//! The memory on a real store: what it answers at once, what another process finds a moment later, and what a new start knows.

use std::path::Path;
use std::time::Instant;

use super::*;
use crate::model::{DeviceState, Freshness, NoRecord};
use crate::posture::edit::{Edit, Op, Voice};
use crate::posture::store::memory::Saying;
use crate::posture::store::{Absent, Access, Store, Writing};
use crate::posture::values::{self, By, Terms};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn limits() -> config::Memory {
    let baseline = config::Baseline {
        learn: 7 * DAY,
        fleet_share: 10,
        fleet_devices: 3,
        fleet_window: 14 * DAY,
        clear_after: 30 * DAY,
        // The thread has the real clock: it must not forget between two steps what a test said was long ago.
        keep: 900 * DAY,
        entries: 1000,
    };
    config::Memory { hash: config::Hash::Personal, baseline, census: config::Census { entries: 100, keep: 30 * DAY } }
}

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        let mut store = Store::open(&bench.path(), Access::Create, SECOND).unwrap();
        let terms = Terms { now: values::now(), sources: None, folder: Path::new("") };
        let mut edit = Edit::new("laptop").unwrap();
        edit.assign("ownership", Op::Replace, "corporate", &terms).unwrap();
        let how = Writing { by: &By::new("ada").unwrap(), now: terms.now, voice: Voice::Person, absent: Absent::Add };
        store.write(&[edit], how).unwrap();
        bench
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("devices.db")
    }

    fn open(&self) -> Memory {
        self.open_with(limits())
    }

    fn open_with(&self, limits: config::Memory) -> Memory {
        let cache = config::Cache { entries: 1, ttl: SECOND, negative_ttl: SECOND };
        let store = config::Store { path: self.path(), lookup_timeout: SECOND, cache, serve_stale: SECOND };
        Memory::open(&store, limits).unwrap()
    }

    /// As another process would.
    fn store(&self) -> Store {
        Store::open(&self.path(), Access::Write, 5 * SECOND).unwrap()
    }
}

fn known(id: &str, ownership: Ownership) -> Standing {
    let device = Device { ownership: Some(ownership), ..Device::blank(id, DeviceState::Approved, "ada", values::now()) };
    Standing::Known { device: Arc::new(device), freshness: Freshness::Fresh, proof_ends: 0 }
}

fn laptop() -> Standing {
    known("laptop", Ownership::Corporate)
}

/// A wire with this JA4, HTTP/2 opening and SYN.
struct Client(Wire, Opening, Identification);

impl Client {
    fn new(hash: &str) -> Self {
        let ja4 = Ja4::new(format!("t13d1516h2_{hash:0>12}_{hash:0>12}").as_bytes().try_into().unwrap()).unwrap();
        let wire = Wire { ja4_stable: Some(ja4), syn: Some("4:64:mss*44:7:mss1460,sok,ts,nop,ws:df".into()), ..Wire::default() };
        Self(wire, Opening { h2: Some("1:65536|00|0|m,a,s,p".into()), header_order: None }, Identification::default())
    }

    fn sighting(&self) -> Sighting<'_> {
        Sighting {
            wire: &self.0,
            opening: &self.1,
            identification: &self.2,
            syn_is_direct: false,
            zone: Some("office"),
            peer: IpAddr::from([10, 0, 0, 1]),
            app: "wiki",
            owner: "knowledge",
            arrives: true,
        }
    }
}

/// What comes of asking until it is there.
#[track_caller]
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < 10 * SECOND, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

fn day(n: u32) -> Timestamp {
    values::now() - DAY * 100 + DAY * n
}

#[test]
fn the_first_request_from_another_stack_is_a_drift_already() {
    let bench = Bench::new();
    let memory = bench.open();
    let (browser, curl) = (Client::new("a"), Client::new("b"));
    let see = |client: &Client, standing: &Standing, at| memory.sight(standing, &client.sighting(), day(at));
    assert!(!see(&browser, &laptop(), 0));
    assert!(!see(&browser, &laptop(), 80));
    assert!(see(&curl, &laptop(), 81));
    assert!(!see(&browser, &laptop(), 81), "its own stack is not suspect for that");
    assert!(!see(&curl, &known("other", Ownership::Corporate), 81), "another device is learned by itself");
    assert_eq!(memory.stats().raised.load(Relaxed), 1);
    assert!(see(&curl, &laptop(), 82));
    assert_eq!(memory.stats().raised.load(Relaxed), 1, "counted once");
    eventually("drifting devices are counted", || (memory.stats().drifting.load(Relaxed) == 1).then_some(()));
}

#[test]
fn what_does_not_belong_to_the_program_is_no_drift() {
    let bench = Bench::new();
    let memory = bench.open();
    let mut client = Client::new("a");
    assert!(!memory.sight(&laptop(), &client.sighting(), day(0)));
    assert!(!memory.sight(&laptop(), &client.sighting(), day(10)));
    let text = "t13i1515h1_00000000000a_00000000000a";
    client.0.ja4_stable = Ja4::new(text.as_bytes().try_into().unwrap());
    client.1.h2 = None;
    assert!(!memory.sight(&laptop(), &client.sighting(), day(11)), "an address in place of a name, and HTTP/1.1");
    client.0.syn = Some("4:128:8192:8:mss1460,nop,ws,nop,nop,sok:df".into());
    assert!(!memory.sight(&laptop(), &client.sighting(), day(11)), "through a proxy that has another kernel");
    // Where nothing is in between, its SYN counts from when it was first seen.
    let direct = |client: &Client| memory.sight(&laptop(), &Sighting { syn_is_direct: true, ..client.sighting() }, day(12));
    assert!(!direct(&client));
    client.0.syn = Some("4:64:mss*44:7:mss1460,sok,ts,nop,ws:df".into());
    assert!(direct(&client), "Windows became Linux");
    client.0.ja4_stable = None;
    assert!(!direct(&client), "behind a balancer nothing is known");
    assert!(!memory.sight(&Standing::Unreadable, &client.sighting(), day(12)));
}

#[test]
fn a_new_start_knows_what_was_known() {
    let bench = Bench::new();
    let (browser, curl) = (Client::new("a"), Client::new("b"));
    let memory = bench.open();
    memory.sight(&laptop(), &browser.sighting(), day(0));
    memory.sight(&laptop(), &browser.sighting(), day(98));
    memory.classed("laptop", "corporate");
    memory.sight(&laptop(), &curl.sighting(), day(99));
    memory.close();
    let memory = bench.open();
    assert!(!memory.sight(&laptop(), &browser.sighting(), day(100)));
    assert!(memory.sight(&laptop(), &curl.sighting(), day(100)));
    let seen = eventually("classes are counted", || Some(memory.stats().seen()).filter(|seen| seen.len() == 2));
    assert_eq!(seen, [("corporate".into(), 1), ("blind".into(), 0)]);
    assert_eq!(memory.stats().raised.load(Relaxed), 0, "it was raised before");
}

#[test]
fn what_was_seen_is_on_the_disk_soon_though_nobody_closes() {
    let bench = Bench::new();
    let memory = bench.open();
    let client = Client::new("a");
    memory.sight(&laptop(), &client.sighting(), day(99));
    memory.sight(&known("phone", Ownership::Personal), &client.sighting(), day(99));
    memory.sight(&Standing::NoRecord(NoRecord::NoProof), &client.sighting(), day(99));
    let store = bench.store();
    let one = eventually("the laptop is remembered", || store.remembered_of("laptop").unwrap());
    let (spoken, texts) = &one.stacks[0];
    assert!(spoken.own && one.since == Some(values::to_millisecond(spoken.first)));
    assert_eq!((texts.stack.as_str(), texts.ja4.as_deref()), ("unknown", Some("t13d1516h2_00000000000a_00000000000a")));
    let texts = |id: &str| store.remembered_of(id).unwrap().unwrap().stacks[0].1.clone();
    assert_eq!(texts("phone"), Texts { stack: "unknown".to_owned(), ..Texts::default() }, "a personal device's is not written out");
    let census = store.blind().unwrap();
    let group = census[0].group.as_ref().unwrap();
    assert!(group.ja4.as_deref().is_some_and(|ja4| ja4.starts_with('#')), "nor is a blind one's: {group:?}");
    assert_eq!((group.zone.as_deref(), &*census[0].seen.apps[0].app, census[0].seen.connections), (Some("office"), "wiki", 1));

    memory.limit(config::Memory { hash: config::Hash::None, ..limits() });
    memory.sight(&known("tablet", Ownership::Personal), &client.sighting(), day(99));
    let texts = eventually("the tablet is remembered", || store.remembered_of("tablet").unwrap()).stacks[0].1.clone();
    assert!(texts.ja4.is_some() && texts.opening.is_some() && texts.signature.is_some(), "as the operator wants it: {texts:?}");
}

#[test]
fn what_an_operator_says_is_heard() {
    let bench = Bench::new();
    let memory = bench.open();
    let (browser, curl) = (Client::new("a"), Client::new("b"));
    memory.sight(&laptop(), &browser.sighting(), day(0));
    memory.sight(&laptop(), &browser.sighting(), day(80));
    assert!(memory.sight(&laptop(), &curl.sighting(), day(98)));
    let mut store = bench.store();
    eventually("it is written", || store.drifting().unwrap().pop());
    let generation = memory.generation();
    store.say("laptop", Saying::Accepted, &By::new("ada").unwrap(), values::now()).unwrap();
    eventually("live connections ask again", || (memory.generation() != generation).then_some(()));
    assert!(!memory.sight(&laptop(), &curl.sighting(), day(98)));

    let third = Client::new("c");
    assert!(memory.sight(&laptop(), &third.sighting(), day(99)));
    let generation = memory.generation();
    store.say("laptop", Saying::Forgotten, &By::new("ada").unwrap(), values::now()).unwrap();
    eventually("live connections ask again", || (memory.generation() != generation).then_some(()));
    assert!(!memory.sight(&laptop(), &third.sighting(), day(99)), "learned anew");
}

#[test]
fn two_proxies_on_one_store_learn_from_each_other() {
    let bench = Bench::new();
    let (one, two) = (bench.open(), bench.open());
    let (browser, curl) = (Client::new("a"), Client::new("b"));
    one.sight(&laptop(), &browser.sighting(), day(0));
    one.sight(&laptop(), &browser.sighting(), day(80));
    // Until it has heard of the device the other would learn it.
    eventually("the other hears of it", || {
        let shard = two.shared.shard("laptop");
        shard.devices.contains_key("laptop").then_some(())
    });
    assert!(two.sight(&laptop(), &curl.sighting(), day(90)));
    assert!(!two.sight(&laptop(), &browser.sighting(), day(90)));
}

#[test]
fn a_store_that_comes_back_gets_what_was_seen_meanwhile() {
    let bench = Bench::new();
    let memory = bench.open();
    let away = bench.path().with_extension("away");
    std::fs::rename(bench.path(), &away).unwrap();
    let client = Client::new("a");
    assert!(!memory.sight(&laptop(), &client.sighting(), day(98)));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(runtime.block_on(memory.census()).is_none(), "nobody can read it now");
    std::fs::rename(&away, bench.path()).unwrap();
    let store = bench.store();
    eventually("it is written after all", || store.remembered_of("laptop").unwrap());

    // Another store is another memory.
    std::fs::remove_file(bench.path()).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", bench.path().display()));
    }
    drop(Store::open(&bench.path(), Access::Create, SECOND).unwrap());
    eventually("what was known is dropped", || memory.shared.shard("laptop").devices.is_empty().then_some(()));
}

#[test]
fn a_flood_of_fingerprints_stays_within_its_bounds() {
    let bench = Bench::new();
    let memory = bench.open();
    let honest = Client::new("a");
    let blind = Standing::NoRecord(NoRecord::NoProof);
    let hour = Duration::from_secs(3600);
    for n in 0..3u32 {
        memory.sight(&blind, &honest.sighting(), day(99) + hour * n);
    }
    for n in 0..50_000 {
        memory.sight(&blind, &Client::new(&format!("{n:x}")).sighting(), day(99) + hour * 4);
        assert!(held(&memory.shared.census).size() <= limits().census.entries);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let census = runtime.block_on(memory.census()).unwrap();
    assert!(census.len() <= limits().census.entries + 1, "{}", census.len());
    let all: u64 = census.iter().map(|counted| counted.seen.connections).sum();
    assert_eq!(all, 50_003, "every connection is counted somewhere");
    assert!(census.iter().any(|counted| counted.seen.hours == 4 || counted.seen.hours == 3), "who came every hour is there");
    assert!(memory.stats().groups_overflowed.load(Relaxed) > 49_000);

    let few = config::Baseline { entries: 2, ..limits().baseline };
    memory.limit(config::Memory { baseline: few, ..limits() });
    for n in 0..100 {
        assert!(!memory.sight(&known(&format!("device-{n}"), Ownership::Corporate), &honest.sighting(), day(99)));
    }
    assert_eq!((memory.shared.devices.load(Relaxed), memory.stats().devices_overflowed.load(Relaxed)), (2, 98));
}

#[test]
fn a_fleet_that_changes_is_learned_and_counted() {
    let bench = Bench::new();
    let memory = bench.open();
    let (browser, next) = (Client::new("a"), Client::new("b"));
    let device = |n: u32| known(&format!("device-{n}"), Ownership::Corporate);
    for n in 0..20 {
        memory.sight(&device(n), &browser.sighting(), day(0));
        memory.sight(&device(n), &browser.sighting(), day(90));
    }
    eventually("the fleet is counted", || (memory.shared.fleet.load().devices == 20).then_some(()));
    assert!(memory.sight(&device(0), &next.sighting(), day(98)));
    assert!(memory.sight(&device(1), &next.sighting(), day(98)));
    eventually("two of them are counted", || memory.shared.fleet.load().starts.values().any(|count| *count == 2).then_some(()));
    assert!(!memory.sight(&device(2), &next.sighting(), day(98)), "three of twenty are a release");
    eventually("the third is counted", || memory.shared.fleet.load().starts.values().any(|count| *count == 3).then_some(()));
    assert!(!memory.sight(&device(0), &next.sighting(), day(98)), "and the first is learned too");
    assert_eq!((memory.stats().raised.load(Relaxed), memory.stats().fleet.load(Relaxed)), (2, 2));
}

#[test]
fn families_of_layers() {
    let ja4 = |text: &str| family(&Ja4::new(text.as_bytes().try_into().unwrap()).unwrap()).unwrap();
    assert_eq!(ja4("t13d1516h2_8daaf6152771_e5627efa2ab1"), "t13_8daaf6152771_e5627efa2ab1");
    assert_ne!(ja4("q13d1516h3_8daaf6152771_e5627efa2ab1"), ja4("t13d1516h2_8daaf6152771_e5627efa2ab1"));
    assert_eq!(syn_family("4:64:mss*44:7:mss1460,sok,ts,nop,ws:df").unwrap(), "64:mss,sok,ts,nop,ws");
    assert_eq!(syn_family("6:64:65535:7:mss1440,sok,ts,nop,ws:-"), syn_family("4:64:mss*44:7:mss1460,sok,ts,nop,ws:df"));
    assert_eq!(syn_family("nonsense"), None);
}

/// Each of two proxies on one store hears of what the other saw; who shows ever new stacks to one of them fills neither.
#[test]
fn a_flood_of_stacks_of_one_device_fills_no_proxy_and_no_store() {
    let bench = Bench::new();
    let (memory, other) = (bench.open(), bench.open());
    assert!(!memory.sight(&laptop(), &Client::new("a").sighting(), day(0)));
    let held = |memory: &Memory| {
        memory.shared.shard("laptop").devices.get("laptop").map_or(0, |entry| entry.baseline.as_ref().map_or(0, |b| b.stacks.len()))
    };
    eventually("the other hears of the device", || (held(&other) == 1).then_some(()));
    for round in 0..3_u32 {
        for nth in 0..8_u32 {
            assert!(memory.sight(&laptop(), &Client::new(&format!("{:x}", 0xb00 + round * 8 + nth)).sighting(), day(20 + round)));
        }
        let newest = key_of(&memory, round * 8 + 7);
        eventually("the other hears of it", || {
            let shard = other.shared.shard("laptop");
            shard.devices["laptop"].baseline.as_ref().unwrap().stacks.iter().any(|spoken| spoken.stack.tls == newest).then_some(())
        });
    }
    assert!(held(&memory) <= 9 && held(&other) <= 9, "{} {}", held(&memory), held(&other));
    let stored = || bench.store().remembered_of("laptop").unwrap().unwrap().stacks.len();
    eventually("the store has no more", || (stored() <= 9).then_some(()));
}

fn key_of(memory: &Memory, nth: u32) -> u64 {
    memory.shared.stack(&Client::new(&format!("{:x}", 0xb00 + nth)).sighting()).unwrap().tls
}

/// A store that cannot be written for hours, and a device that shows ever new stacks.
#[test]
fn what_waits_for_the_store_is_bounded() {
    let bench = Bench::new();
    let memory = bench.open();
    // Nobody takes what is pending.
    memory.close();
    assert!(!memory.sight(&laptop(), &Client::new("a").sighting(), day(0)));
    for nth in 0..1000_u32 {
        assert!(memory.sight(&laptop(), &Client::new(&format!("{:x}", 0xb00 + nth)).sighting(), day(20)));
    }
    let shard = memory.shared.shard("laptop");
    let pending = shard.devices["laptop"].pending.as_ref().unwrap();
    assert!(pending.stacks.len() <= 40 && pending.gone.len() <= 40, "{} {}", pending.stacks.len(), pending.gone.len());
}

#[test]
fn what_two_proxies_saw_of_one_device_in_the_same_second_is_known_to_both() {
    let bench = Bench::new();
    let memory = bench.open();
    let (browser, curl) = (Client::new("a"), Client::new("b"));
    assert!(!memory.sight(&laptop(), &browser.sighting(), day(0)));
    // Another process, before this one's next batch.
    let stack = memory.shared.stack(&curl.sighting()).unwrap();
    let spoken = Spoken { stack, first: day(0), last: day(0), steady: day(0), own: true, news: None };
    let one = Remembered {
        device: "laptop".into(),
        class: None,
        seen: day(0),
        since: Some(day(0)),
        epoch: 0,
        stacks: vec![(spoken, Texts::default())],
        gone: vec![],
        said: None,
    };
    bench.store().remember(&Batch { devices: vec![one], ..Batch::default() }).unwrap();
    let stacks = || memory.shared.shard("laptop").devices["laptop"].baseline.as_ref().unwrap().stacks.len();
    eventually("both stacks are known", || (stacks() == 2).then_some(()));
    assert!(!memory.sight(&laptop(), &curl.sighting(), day(20)));
}

/// With 100,000 devices a look through the store for what is old takes a tenth of a second, in which nobody else can write: not each time that somebody new
/// comes.
#[test]
fn the_store_is_not_searched_for_what_is_old_whenever_something_is_new() {
    let bench = Bench::new();
    let memory = bench.open();
    assert!(!memory.sight(&laptop(), &Client::new("a").sighting(), day(0)));
    let stored = |id: &str| bench.store().remembered_of(id).unwrap().is_some();
    eventually("the first is stored", || stored("laptop").then_some(()));
    // Too old to be there: only who looks for such finds it.
    let sql = rusqlite::Connection::open(bench.path()).unwrap();
    sql.execute("UPDATE baseline SET seen = '2001-01-01T00:00:00.000Z', since = NULL, rev = 0", []).unwrap();
    sql.execute("DELETE FROM baseline_stack", []).unwrap();
    for n in 0..3 {
        let id = format!("device-{n}");
        assert!(!memory.sight(&known(&id, Ownership::Corporate), &Client::new("a").sighting(), day(0)));
        eventually("the next is stored and counted", || (stored(&id) && !memory.shared.restless.load(Relaxed)).then_some(()));
    }
    assert!(stored("laptop"));
    // Other limits may keep less.
    memory.limit(config::Memory { hash: config::Hash::All, ..limits() });
    eventually("it is dropped", || (!stored("laptop")).then_some(()));
}

#[test]
fn a_clock_that_was_ahead_does_not_put_off_the_end_of_the_learning() {
    let bench = Bench::new();
    let memory = bench.open();
    let (browser, curl) = (Client::new("a"), Client::new("b"));
    assert!(!memory.sight(&laptop(), &browser.sighting(), day(60)));
    assert!(!memory.sight(&laptop(), &browser.sighting(), day(10)));
    assert!(memory.sight(&laptop(), &curl.sighting(), day(18)));
}
