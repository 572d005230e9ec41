//! What the store knows of the device behind a connection, without asking the store each time.
//!
//! Workers read the cache; only the store's thread (`feed.rs`) writes it. So what a change made outdated is dropped after it can no longer be
//! put in, and a thread that reads one key after the other looks up a key that many wait for once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::{Duration, Instant};

use moka::future::Cache;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot;

use super::error::Error;
use super::feed::{Ask, Feed};
use super::stats::Stats;
use super::store::{Access, Store};
use crate::config;
use crate::model::{Device, Freshness, NoRecord, Proof, Standing};
use crate::policy::draft::Source;

/// After this an answer that is second best is asked for again.
const RETRY: Duration = Duration::from_secs(1);
/// Look-ups that may wait for the store's thread. Beyond it the store counts as failing.
const WAITING_MAX: usize = 1024;
/// A standing that no store has a say in.
const FOR_GOOD: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long opening waits for another process that is creating the same file.
const OPEN_PATIENCE: Duration = Duration::from_secs(5);

/// The device store behind its cache. Shared by all workers.
#[derive(Debug)]
pub struct Posture {
    shared: Arc<Shared>,
    asks: mpsc::Sender<Ask>,
}

/// A standing and how long a connection may keep it: while [`Posture::generation`] is `generation`, and before `until`.
#[derive(Clone, Debug)]
pub struct Kept {
    pub standing: Standing,
    pub generation: u64,
    pub until: Instant,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub cache: Cache<Arc<str>, Entry>,
    pub generation: AtomicU64,
    pub stats: Stats,
    pub store: config::Store,
}

/// What the store said of one key.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub device: Option<Arc<Device>>,
    pub checked: Instant,
    /// The ttl with its jitter.
    pub fresh_for: Duration,
}

impl Posture {
    /// Opens the store, creating the file and its directory when missing, and starts the thread `vestibule-store`, which ends when the
    /// last `Posture` is dropped. `sources` are those whose age is measured.
    pub fn open(store: &config::Store, sources: Vec<Source>) -> Result<Self, Error> {
        let opened = Store::open(&store.path, Access::Create, OPEN_PATIENCE)?;
        opened.wait_at_most(store.lookup_timeout)?;
        let shared = Arc::new(Shared {
            cache: Cache::new(store.cache.entries),
            generation: AtomicU64::new(0),
            stats: Stats::new(),
            store: store.clone(),
        });
        let (asks, waiting) = mpsc::channel(WAITING_MAX);
        let sources = sources.into_iter().map(|source| source.name).collect();
        Feed::begin(opened, Arc::clone(&shared), sources)?.start(waiting)?;
        Ok(Self { shared, asks })
    }

    /// Changes whenever an answer that somebody keeps may have become another.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Relaxed)
    }

    /// The standing of whoever showed this proof. Ready at once when cached, and never later than the configured `lookup_timeout`.
    pub async fn standing(&self, proof: &Proof) -> Kept {
        // Before the look-up: a change that comes in between makes the answer outdated, not the generation unnoticed.
        let generation = self.shared.generation.load(Acquire);
        let keep = |(standing, until)| Kept { standing, generation, until };
        let (spki, proof_ends) = match proof {
            Proof::None(why) => return keep((Standing::NoRecord(*why), Instant::now() + FOR_GOOD)),
            Proof::Certificate { spki_sha256, not_after } => (spki_sha256, *not_after),
        };
        let Shared { cache, stats, store, .. } = &*self.shared;
        let held = cache.get(spki.as_ref()).await;
        if let Some(entry) = held.as_ref().filter(|entry| entry.fresh(Instant::now())) {
            let count = if entry.device.is_some() { &stats.hit } else { &stats.negative };
            count.fetch_add(1, Relaxed);
            return keep(standing(held.as_ref(), Instant::now(), store.serve_stale, proof_ends));
        }
        let asked = self.ask(spki).await;
        let stale = asked.is_none() && held.as_ref().is_some_and(|entry| entry.device.is_some());
        if stale { &stats.stale } else { &stats.miss }.fetch_add(1, Relaxed);
        // What the store just said is fresh, however short the ttl and late the wake-up.
        let at = asked.as_ref().map_or_else(Instant::now, |entry| entry.checked);
        keep(standing(asked.or(held).as_ref(), at, store.serve_stale, proof_ends))
    }

    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// `None`: the store did not answer.
    async fn ask(&self, key: &Arc<str>) -> Option<Entry> {
        let stats = &self.shared.stats;
        // Nobody waits for a store that is known to be down; its thread tries again all the time.
        if !stats.up() {
            return None;
        }
        let (reply, answer) = oneshot::channel();
        let sent = self.asks.try_send(Ask { key: Arc::clone(key), reply });
        let why = match (sent, tokio::time::timeout(self.shared.store.lookup_timeout, answer).await) {
            (Ok(()), Ok(Ok(entry))) => return entry,
            (Ok(()), Err(_)) => "no answer within the lookup timeout",
            (Err(TrySendError::Full(_)), _) => "too many look-ups wait",
            (Err(TrySendError::Closed(_)), _) | (_, Ok(Err(_))) => "the thread that reads it has ended",
        };
        if stats.fell(why) {
            tracing::warn!(store = %self.shared.store.path.display(), error = why, "device store failed");
        }
        None
    }
}

impl Entry {
    pub fn fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.checked) <= self.fresh_for
    }
}

impl Shared {
    /// An entry of now; the jitter keeps keys that were read together from being read together again.
    pub fn entry(&self, device: Option<Arc<Device>>) -> Entry {
        let ttl = if device.is_some() { self.store.cache.ttl } else { self.store.cache.negative_ttl };
        Entry { device, checked: Instant::now(), fresh_for: jittered(ttl, fastrand::f64()) }
    }

    /// After whatever was outdated is gone from the cache.
    pub fn changed(&self) {
        self.generation.fetch_add(1, Release);
    }
}

/// The ttl with up to a tenth less or more; `dice` is between 0 and 1.
fn jittered(ttl: Duration, dice: f64) -> Duration {
    ttl.mul_f64(0.9 + 0.2 * dice)
}

/// What an entry means, and until when. `None`: nobody could look.
fn standing(entry: Option<&Entry>, now: Instant, serve_stale: Duration, proof_ends: i64) -> (Standing, Instant) {
    let Some(Entry { device, checked, fresh_for }) = entry else { return (Standing::Unreadable, now + RETRY) };
    let freshness = freshness(now.saturating_duration_since(*checked), *fresh_for, serve_stale);
    let until = match freshness {
        Freshness::Fresh => *checked + *fresh_for,
        Freshness::Stale => (*checked + serve_stale).min(now + RETRY),
        Freshness::TooOld => now + RETRY,
    };
    match device {
        Some(device) => (Standing::Known { device: Arc::clone(device), freshness, proof_ends }, until),
        None if freshness == Freshness::Fresh => (Standing::NoRecord(NoRecord::UnknownCertificate), until),
        // Somebody may have enrolled the device since, and nobody can look: it is not blind.
        None => (Standing::Unreadable, now + RETRY),
    }
}

fn freshness(age: Duration, fresh_for: Duration, serve_stale: Duration) -> Freshness {
    if age <= fresh_for {
        Freshness::Fresh
    } else if age <= serve_stale {
        Freshness::Stale
    } else {
        Freshness::TooOld
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Cache as Sizes, Texts};
    use crate::posture::edit::{Edit, Op, Voice};
    use crate::posture::store::memory::{Batch, Remembered};
    use crate::posture::store::{Absent, Revision, Writing};
    use crate::posture::values::{self, By, Terms};

    const SECOND: Duration = Duration::from_secs(1);

    struct Bench {
        posture: Arc<Posture>,
        path: std::path::PathBuf,
        _folder: tempfile::TempDir,
    }

    fn config(path: &Path) -> config::Store {
        let cache = Sizes { entries: 1000, ttl: 60 * SECOND, negative_ttl: 60 * SECOND };
        config::Store { path: path.to_path_buf(), lookup_timeout: 5 * SECOND, cache, serve_stale: 900 * SECOND }
    }

    fn bench(change: impl FnOnce(&mut config::Store)) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/devices.db");
        let mut store = config(&path);
        change(&mut store);
        let sources = vec![Source { name: "mdm".to_owned(), ttl: SECOND }, Source { name: "manual".to_owned(), ttl: SECOND }];
        Bench { posture: Arc::new(Posture::open(&store, sources).unwrap()), path, _folder: folder }
    }

    fn key(n: u8) -> String {
        format!("{n:02x}").repeat(32)
    }

    fn proof(n: u8) -> Proof {
        Proof::Certificate { spki_sha256: key(n).into(), not_after: 42 }
    }

    /// As another process would.
    fn set(path: &Path, id: &str, changes: &[(&str, &str)]) {
        let terms = Terms { now: values::now(), sources: None, folder: Path::new("") };
        let mut edit = Edit::new(id).unwrap();
        for (field, text) in changes {
            edit.assign(field, Op::Replace, text, &terms).unwrap();
        }
        let how = Writing { by: &By::new("ada").unwrap(), now: terms.now, voice: Voice::Person, absent: Absent::Add };
        Store::open(path, Access::Write, 5 * SECOND).unwrap().write(&[edit], how).unwrap();
    }

    fn enrol(path: &Path, id: &str, n: u8) {
        set(path, id, &[("keys", &format!("spki_sha256:{}", key(n)))]);
    }

    fn id(kept: &Kept) -> &str {
        match &kept.standing {
            Standing::NoRecord(NoRecord::UnknownCertificate) => "unknown",
            Standing::Unreadable => "unreadable",
            Standing::Known { device, .. } => &device.id,
            Standing::NoRecord(_) => "other",
        }
    }

    fn freshness_of(kept: &Kept) -> Option<Freshness> {
        match kept.standing {
            Standing::Known { freshness, .. } => Some(freshness),
            _ => None,
        }
    }

    /// The first standing that is as wanted; fails when none comes before the limit.
    async fn within(limit: Duration, posture: &Posture, proof: &Proof, wanted: impl Fn(&Kept) -> bool) -> Kept {
        let began = Instant::now();
        loop {
            let kept = posture.standing(proof).await;
            if wanted(&kept) {
                return kept;
            }
            assert!(began.elapsed() < limit, "still {kept:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn counts(posture: &Posture) -> [u64; 5] {
        let Stats { hit, miss, stale, negative, reads, .. } = posture.stats();
        [hit, miss, stale, negative, reads].map(|count| count.load(Relaxed))
    }

    #[test]
    fn freshness_is_a_matter_of_age() {
        let of = |age| freshness(Duration::from_secs(age), Duration::from_secs(60), Duration::from_secs(900));
        assert_eq!([of(0), of(60), of(61), of(900), of(901)].map(|f| f as u8), [0, 0, 1, 1, 2]);
        assert_eq!(freshness(SECOND, 2 * SECOND, Duration::ZERO), Freshness::Fresh, "a ttl longer than serve_stale");
        assert_eq!([0.0, 0.5, 1.0].map(|dice| jittered(100 * SECOND, dice).as_secs_f64().round()), [90.0, 100.0, 110.0]);
    }

    #[test]
    fn an_answer_is_kept_no_longer_than_it_is_true() {
        let checked = Instant::now();
        let (device, _) = Edit::new("a").unwrap().applied(None, Voice::Person, &By::new("ada").unwrap(), values::now()).unwrap();
        let known = Entry { device: Some(Arc::new(device)), checked, fresh_for: 60 * SECOND };
        let absent = Entry { device: None, ..known.clone() };
        let at = |entry: Option<&Entry>, age: Duration| {
            let (standing, until) = standing(entry, checked + age, 900 * SECOND, 42);
            let text = match standing {
                Standing::Known { freshness, proof_ends: 42, .. } => format!("{freshness:?}"),
                Standing::Known { .. } => unreachable!("the certificate's end is lost"),
                Standing::NoRecord(why) => format!("{why:?}"),
                Standing::Unreadable => "Unreadable".to_owned(),
            };
            (text, until.duration_since(checked).as_millis())
        };
        assert_eq!(at(Some(&known), 10 * SECOND), ("Fresh".to_owned(), 60_000));
        assert_eq!(at(Some(&known), 61 * SECOND), ("Stale".to_owned(), 62_000));
        assert_eq!(at(Some(&known), Duration::from_millis(899_500)), ("Stale".to_owned(), 900_000));
        assert_eq!(at(Some(&known), 1000 * SECOND), ("TooOld".to_owned(), 1_001_000));
        assert_eq!(at(Some(&absent), 10 * SECOND), ("UnknownCertificate".to_owned(), 60_000));
        assert_eq!(at(Some(&absent), 61 * SECOND), ("Unreadable".to_owned(), 62_000));
        assert_eq!(at(None, SECOND), ("Unreadable".to_owned(), 2_000));
    }

    #[tokio::test]
    async fn what_was_read_is_not_read_again() {
        let Bench { posture, path, _folder } = &bench(|_| {});
        enrol(path, "laptop", 1);
        let first = posture.standing(&proof(1)).await;
        assert_eq!((id(&first), freshness_of(&first)), ("laptop", Some(Freshness::Fresh)));
        assert!(first.until > Instant::now() + 50 * SECOND);
        // The feed has taken note of the enrolment; from here on nothing changes.
        within(5 * SECOND, posture, &proof(1), |kept| kept.generation > 0).await;
        let [hit, miss, stale, negative, reads] = counts(posture);
        assert_eq!(id(&posture.standing(&proof(1)).await), "laptop");
        assert_eq!(id(&posture.standing(&proof(2)).await), "unknown");
        assert_eq!(id(&posture.standing(&proof(2)).await), "unknown");
        assert_eq!(counts(posture), [hit + 1, miss + 1, stale, negative + 1, reads + 1]);
    }

    #[tokio::test]
    async fn without_proof_the_store_is_not_asked() {
        let Bench { posture, .. } = &bench(|_| {});
        let kept = posture.standing(&Proof::None(NoRecord::ExpiredCertificate)).await;
        assert!(matches!(kept.standing, Standing::NoRecord(NoRecord::ExpiredCertificate)));
        assert_eq!(counts(posture), [0; 5]);
    }

    #[tokio::test]
    async fn another_process_is_heard_within_a_second() {
        let Bench { posture, path, _folder } = &bench(|_| {});
        assert_eq!(id(&posture.standing(&proof(1)).await), "unknown");
        enrol(path, "laptop", 1);
        let kept = within(SECOND, posture, &proof(1), |kept| id(kept) == "laptop" && kept.generation > 0).await;
        set(path, "laptop", &[("state", "lost")]);
        let lost = |kept: &Kept| kept.standing.device().is_some_and(|d| d.state == crate::model::DeviceState::Lost);
        let after = within(SECOND, posture, &proof(1), |now| lost(now) && now.generation > kept.generation).await;
        assert_eq!(posture.generation(), after.generation, "and then it is quiet");
    }

    #[tokio::test]
    async fn what_proxies_remember_changes_no_record() {
        let Bench { posture, path, _folder } = &bench(|_| {});
        enrol(path, "laptop", 1);
        let kept = within(SECOND, posture, &proof(1), |kept| id(kept) == "laptop" && kept.generation > 0).await;
        let mut proxy = Store::open(path, Access::Write, 5 * SECOND).unwrap();
        let at = values::now();
        let one =
            Remembered { device: "laptop".into(), class: None, seen: at, since: None, epoch: 0, stacks: vec![], gone: vec![], said: None };
        let batch = Batch { devices: vec![one], ..Batch::default() };
        // For longer than the feed pauses between two looks, three times.
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(350) {
            proxy.remember(&batch).unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(posture.generation(), kept.generation);
        set(path, "laptop", &[("state", "lost")]);
        within(SECOND, posture, &proof(1), |now| now.generation > kept.generation).await;
    }

    #[tokio::test]
    async fn a_policy_that_is_kept_changes_no_record() {
        let Bench { posture, path, _folder } = &bench(|_| {});
        enrol(path, "laptop", 1);
        let kept = within(SECOND, posture, &proof(1), |kept| id(kept) == "laptop" && kept.generation > 0).await;
        let mut historian = Store::open(path, Access::Write, 5 * SECOND).unwrap();
        for number in 0..3 {
            let (revision, how, version) = (format!("policy-{number}"), "file".to_owned(), "1".to_owned());
            historian
                .add_revision(&Revision { revision, at: values::now(), how, version, changed: None, texts: Texts::default() })
                .unwrap();
            let written = Instant::now();
            while posture.stats().lag() > written.elapsed() {
                assert!(written.elapsed() < 20 * SECOND, "nobody looks");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        assert_eq!(
            posture.generation(),
            kept.generation,
            "all devices would be looked up anew, and not be known where the store then fails"
        );
        set(path, "laptop", &[("state", "lost")]);
        within(SECOND, posture, &proof(1), |now| now.generation > kept.generation).await;
    }

    #[tokio::test]
    async fn a_key_that_moves_is_dropped_for_both() {
        let Bench { path, _folder, .. } = &bench(|_| {});
        enrol(path, "a", 1);
        enrol(path, "b", 2);
        // Opened after the enrolments: its feed begins with the move.
        let posture = &Posture::open(&config(path), Vec::new()).unwrap();
        assert_eq!((id(&posture.standing(&proof(1)).await), id(&posture.standing(&proof(2)).await)), ("a", "b"));
        enrol(path, "a", 3);
        within(SECOND, posture, &proof(1), |kept| id(kept) == "unknown").await;
        within(SECOND, posture, &proof(3), |kept| id(kept) == "a").await;
        assert_eq!(id(&posture.standing(&proof(2)).await), "b");
    }

    #[test]
    fn many_who_wait_for_one_key_cost_one_read() {
        let Bench { posture, path, _folder } = &bench(|_| {});
        enrol(path, "laptop", 1);
        let visit = async |posture: &Posture| assert_eq!(id(&posture.standing(&proof(1)).await), "laptop");
        let quiet = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        quiet.block_on(within(5 * SECOND, posture, &proof(9), |kept| kept.generation > 0));
        let [.., reads] = counts(posture);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                    runtime.block_on(futures_util::future::join_all((0..50).map(|_| visit(posture))));
                });
            }
        });
        let [hit, miss, .., after] = counts(posture);
        assert_eq!(after - reads, 1);
        assert!(hit + miss >= 200 && miss >= 1);
    }

    #[tokio::test]
    async fn a_store_that_is_gone_leaves_what_was_known() {
        let Bench { posture, path, _folder } = &bench(|store| {
            store.cache.ttl = Duration::from_millis(1);
            store.serve_stale = 4 * SECOND;
        });
        enrol(path, "laptop", 1);
        assert_eq!(id(&posture.standing(&proof(1)).await), "laptop");
        let away = path.with_extension("away");
        std::fs::rename(path, &away).unwrap();
        within(5 * SECOND, posture, &proof(1), |kept| freshness_of(kept) == Some(Freshness::Stale)).await;
        assert!(!posture.stats().up());
        assert!(posture.stats().last_error().unwrap().contains("removed or replaced"));
        let never_seen = posture.standing(&proof(2)).await;
        assert_eq!(id(&never_seen), "unreadable");
        within(9 * SECOND, posture, &proof(1), |kept| freshness_of(kept) == Some(Freshness::TooOld)).await;
        assert!(posture.stats().lag() > 3 * SECOND, "{:?}", posture.stats().lag());
        assert!(!path.exists(), "no empty store in its place");
        let [_, _, stale, ..] = counts(posture);
        assert!(stale > 0);

        std::fs::rename(&away, path).unwrap();
        // Who asks just as it comes back is told again.
        let back = |kept: &Kept| freshness_of(kept) == Some(Freshness::Fresh) && kept.generation > never_seen.generation;
        within(5 * SECOND, posture, &proof(1), back).await;
        assert!(posture.stats().up());
        assert_eq!(id(&posture.standing(&proof(2)).await), "unknown");
        assert!(posture.stats().lag() < 3 * SECOND);
    }

    #[tokio::test]
    async fn a_store_that_was_replaced_is_read_anew() {
        let Bench { posture, path, _folder } = &bench(|_| {});
        let backup = path.with_extension("backup");
        drop(Store::open(&backup, Access::Create, SECOND).unwrap());
        enrol(&backup, "from-backup", 1);
        enrol(path, "laptop", 1);
        within(SECOND, posture, &proof(1), |kept| id(kept) == "laptop").await;
        std::fs::rename(&backup, path).unwrap();
        within(2 * SECOND, posture, &proof(1), |kept| id(kept) == "from-backup").await;
    }

    #[tokio::test]
    async fn history_that_was_rewound_drops_everything() {
        let Bench { posture, path, _folder } = &bench(|_| {});
        enrol(path, "laptop", 1);
        within(SECOND, posture, &proof(1), |kept| id(kept) == "laptop").await;
        let sql = rusqlite::Connection::open(path).unwrap();
        sql.execute_batch("BEGIN; DELETE FROM device_key; DELETE FROM device; DELETE FROM change; UPDATE head SET seq = 0; COMMIT")
            .unwrap();
        within(SECOND, posture, &proof(1), |kept| id(kept) == "unknown").await;
    }

    #[tokio::test]
    async fn an_edit_by_hand_is_heard_too() {
        let Bench { posture, path, _folder } = &bench(|_| {});
        enrol(path, "laptop", 1);
        within(SECOND, posture, &proof(1), |kept| id(kept) == "laptop" && kept.generation > 0).await;
        rusqlite::Connection::open(path).unwrap().execute_batch("UPDATE device SET state = 'lost'").unwrap();
        let lost = |kept: &Kept| kept.standing.device().is_some_and(|d| d.state == crate::model::DeviceState::Lost);
        within(SECOND, posture, &proof(1), lost).await;
    }

    #[tokio::test]
    async fn a_store_that_hangs_is_waited_for_once() {
        let Bench { posture, path, _folder } = &bench(|_| {});
        let (asks, _nobody_answers) = mpsc::channel(1);
        let store = config::Store { lookup_timeout: Duration::from_millis(30), ..config(path) };
        let shared = Shared { cache: Cache::new(9), generation: AtomicU64::new(0), stats: Stats::new(), store };
        let hung = Posture { shared: Arc::new(shared), asks };
        assert!(posture.stats().up());
        let began = Instant::now();
        assert_eq!(id(&hung.standing(&proof(1)).await), "unreadable");
        assert!((30..2000).contains(&began.elapsed().as_millis()));
        assert!(!hung.stats().up());
        let began = Instant::now();
        for _ in 0..100 {
            assert_eq!(id(&hung.standing(&proof(1)).await), "unreadable");
        }
        assert!(began.elapsed() < SECOND, "nobody waits for a store that is known to be down");
    }

    #[tokio::test]
    async fn a_broken_record_is_not_a_broken_store() {
        let Bench { posture, path, _folder } = &bench(|_| {});
        enrol(path, "laptop", 1);
        enrol(path, "phone", 2);
        rusqlite::Connection::open(path).unwrap().execute_batch("UPDATE device SET state = 'x' WHERE id = 'laptop'").unwrap();
        assert_eq!(id(&posture.standing(&proof(1)).await), "unreadable");
        assert_eq!(id(&posture.standing(&proof(2)).await), "phone");
        assert!(posture.stats().up());
    }

    #[tokio::test]
    async fn the_age_of_each_source() {
        let Bench { posture, path, _folder } = &bench(|_| {});
        assert!(posture.stats().ages(values::now()).is_empty());
        let mut edit = Edit::new("a").unwrap();
        let at: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let seen = crate::posture::edit::Seen { source: "mdm".to_owned(), observed_at: at, expires_at: None };
        edit.fact("patched", "ok", None, &seen).unwrap();
        let how = Writing { by: &By::new("ada").unwrap(), now: values::now(), voice: Voice::Person, absent: Absent::Add };
        Store::open(path, Access::Write, SECOND).unwrap().write(&[edit], how).unwrap();
        let began = Instant::now();
        while posture.stats().ages(at).is_empty() {
            assert!(began.elapsed() < SECOND);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(posture.stats().ages(at + 5 * SECOND), [("mdm".to_owned(), 5 * SECOND)]);
        assert_eq!(posture.stats().ages(at - SECOND), [("mdm".to_owned(), Duration::ZERO)], "a clock that jumped back");
    }

    #[tokio::test]
    async fn the_thread_ends_with_the_last_posture() {
        let Bench { posture, .. } = bench(|_| {});
        let shared = Arc::downgrade(&posture.shared);
        drop(posture);
        let began = Instant::now();
        while shared.strong_count() > 0 {
            assert!(began.elapsed() < 5 * SECOND);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
