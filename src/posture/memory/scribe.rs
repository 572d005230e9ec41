//! The thread that keeps the store and the memory of this process one: it writes what workers saw, takes in what other processes wrote, and counts
//! the fleet.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::keyed::Secret;
use super::{Entry, Shard, Shared, held, past};
use crate::config;
use crate::posture::baseline::{Baseline, Fleet, Spoken};
use crate::posture::census::Census;
use crate::posture::error::Error;
use crate::posture::store::memory::{Batch, Counted, Remembered};
use crate::posture::store::{Access, Store};
use crate::posture::values;

/// Between two batches. Another process sees what was counted within two of them.
const BEAT: Duration = Duration::from_secs(1);
/// How long a batch waits for another process that is writing; nobody waits for the batch.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is old is forgotten so often, and the fleet counted at least so often.
const ROUND: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub enum Order {
    Census(oneshot::Sender<Option<Vec<Counted>>>),
    Close,
}

pub struct Scribe {
    shared: Arc<Shared>,
    /// With what its `version` was when it was last looked at. `None`: it failed, and is opened again with the next beat.
    store: Option<(Store, i64)>,
    /// Of the store that the memory is of; `None` before the first.
    secret: Option<[u8; 32]>,
    /// The last batch that is taken in.
    rev: i64,
    /// What could not be written. Meanwhile the memory collects what comes, within its own bounds.
    unwritten: Option<Batch>,
    /// When the store last forgot what is old, and by which limits.
    forgot: Option<(Instant, config::Memory)>,
}

impl Scribe {
    pub fn begin(shared: Arc<Shared>) -> Result<Self, Error> {
        let mut scribe = Self { shared, store: None, secret: None, rev: 0, unwritten: None, forgot: None };
        scribe.keep_up()?;
        Ok(scribe)
    }

    pub fn start(mut self, orders: mpsc::Receiver<Order>) -> Result<JoinHandle<()>, Error> {
        let work = move || {
            let mut next = Instant::now() + BEAT;
            loop {
                match orders.recv_timeout(next.saturating_duration_since(Instant::now())) {
                    Ok(Order::Census(reply)) => {
                        self.beat();
                        let census = self.store.as_ref().and_then(|(store, _)| store.blind().ok());
                        let _ = reply.send(census); // who asked may have left
                        continue;
                    }
                    Ok(Order::Close) | Err(mpsc::RecvTimeoutError::Disconnected) => return self.beat(),
                    Err(mpsc::RecvTimeoutError::Timeout) => self.beat(),
                }
                next = Instant::now() + BEAT;
            }
        };
        let started = std::thread::Builder::new().name("vestibule-memory".to_owned()).spawn(work);
        started.map_err(|source| Error::Thread { source })
    }

    fn beat(&mut self) {
        if let Err(error) = self.keep_up() {
            // The store's own thread says when it is down and when it is back.
            tracing::debug!(%error, "what was seen of devices cannot be written yet");
            if !matches!(error, Error::Busy { .. }) {
                self.store = None;
            }
        }
    }

    fn keep_up(&mut self) -> Result<(), Error> {
        self.open()?;
        self.write()?;
        self.take_in()?;
        let limits = **self.shared.limits.load();
        let often = ROUND.min(limits.baseline.keep / 4).min(limits.census.keep / 4);
        let due = self.forgot.is_none_or(|(when, by)| when.elapsed() >= often || by != limits);
        if due {
            self.forget(limits)?;
        }
        if self.shared.restless.swap(false, Relaxed) || due {
            self.count()?;
        }
        Ok(())
    }

    /// Opens the store when it is not open. One that is not that of before replaces the whole memory: its hashes have another key.
    fn open(&mut self) -> Result<(), Error> {
        if self.store.is_some() {
            return Ok(());
        }
        let store = Store::open(&self.shared.path, Access::Write, PATIENCE)?;
        let version = store.version()?;
        let Some(head) = store.memory()? else { return Ok(()) };
        if self.secret != Some(head.key) || head.rev < self.rev {
            self.unwritten = None;
            self.shared.clear(&head.key);
            let limits = self.shared.limits.load();
            for one in store.remembered(-1, i64::MAX)?.into_iter().take(limits.baseline.entries) {
                self.shared.hear(one);
            }
            let mut census = held(&self.shared.census);
            for Counted { id, group, seen } in store.blind()?.into_iter().take(limits.census.entries) {
                if let Some(group) = group {
                    census.restore(id, group, (seen.last, seen.hours, seen.connections));
                }
            }
            (self.secret, self.rev) = (Some(head.key), head.rev);
        }
        self.store = Some((store, version));
        Ok(())
    }

    fn write(&mut self) -> Result<(), Error> {
        let Some((store, _)) = &mut self.store else { return Ok(()) };
        // Asked for also when there is nothing to write: it fails when the file was replaced, and what is written to the old one is lost.
        store.version()?;
        let batch = self.unwritten.take().unwrap_or_else(|| self.shared.take());
        if batch.is_empty() {
            return Ok(());
        }
        match store.remember(&batch) {
            Ok(rev) => {
                // This batch too: another process may have written of the same devices before it, and whose row it is shows the last writer alone.
                let others = store.remembered(self.rev, rev + 1)?;
                self.rev = rev;
                others.into_iter().for_each(|one| self.shared.hear(one));
                Ok(())
            }
            Err(error) => {
                self.unwritten = Some(batch);
                Err(error)
            }
        }
    }

    /// What other processes wrote: other proxies, and operators.
    fn take_in(&mut self) -> Result<(), Error> {
        let Some((store, version)) = &mut self.store else { return Ok(()) };
        let now = store.version()?;
        if now == *version {
            return Ok(());
        }
        *version = now;
        if let Some(head) = store.memory()?.filter(|head| head.rev > self.rev) {
            let others = store.remembered(self.rev, head.rev.saturating_add(1))?;
            self.rev = head.rev;
            others.into_iter().for_each(|one| self.shared.hear(one));
        }
        Ok(())
    }

    /// Looks through the whole store, and nobody else can write meanwhile: now and then, not whenever something is new.
    fn forget(&mut self, limits: config::Memory) -> Result<(), Error> {
        let Some((store, _)) = &mut self.store else { return Ok(()) };
        store.forget(&limits, values::now())?;
        self.forgot = Some((Instant::now(), limits));
        Ok(())
    }

    fn count(&mut self) -> Result<(), Error> {
        let Some((store, _)) = &mut self.store else { return Ok(()) };
        self.shared.round(values::now(), store.blind_peers()?);
        Ok(())
    }
}

impl Shared {
    fn clear(&self, secret: &[u8; 32]) {
        self.secret.store(Arc::new(Secret::new(secret)));
        for shard in &self.shards {
            *held(shard) = Shard::default();
        }
        self.devices.store(0, Relaxed);
        *held(&self.census) = Census::default();
        self.generation.fetch_add(1, Relaxed);
    }

    /// Takes in what the store has of a device.
    fn hear(&self, one: Remembered) {
        let mut shard = self.shard(&one.device);
        let Shard { devices, dirty } = &mut *shard;
        let stacks = one.stacks.into_iter().map(|(spoken, _)| spoken);
        let id = one.device.into_boxed_str();
        match devices.get_mut(&id) {
            Some(entry) if entry.epoch == one.epoch => {
                entry.seen = entry.seen.max(one.seen);
                entry.class = one.class.or_else(|| entry.class.take());
                let Some(since) = one.since else { return };
                let baseline = entry.baseline.get_or_insert_with(|| Baseline::begin(since));
                baseline.since = baseline.since.min(since);
                // All of them are merged, whatever the first is.
                let news = stacks.filter(|spoken| merge(&mut baseline.stacks, *spoken)).count();
                if news == 0 {
                    return;
                }
            }
            known => {
                let class = one.class.or_else(|| known.as_ref().and_then(|entry| entry.class.clone()));
                if known.is_none() {
                    self.devices.fetch_add(1, Relaxed);
                }
                let baseline = one.since.map(|since| Baseline { since, stacks: stacks.collect() });
                let entry = Entry { seen: one.seen, saved: one.seen, class, baseline, epoch: one.epoch, pending: None };
                devices.insert(id.clone(), entry);
            }
        }
        if let Some(entry) = devices.get_mut(&id) {
            let clean = entry.pending.is_none();
            let gone = entry.baseline.as_mut().map(Baseline::make_room).unwrap_or_default();
            entry.lose(gone);
            if clean && entry.pending.is_some() {
                dirty.push(id);
            }
        }
        self.generation.fetch_add(1, Relaxed);
        self.restless.store(true, Relaxed);
    }

    /// Forgets what is old and counts what there is.
    fn round(&self, now: Timestamp, blind: u64) {
        let limits = self.limits.load();
        let (mut fleet, mut drifting) = (Fleet::default(), 0);
        let mut classes: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        for shard in &self.shards {
            let mut shard = held(shard);
            let before = shard.devices.len();
            shard.devices.retain(|_, entry| {
                // The store drops them by itself.
                entry.baseline.as_mut().map(|baseline| baseline.forget(now, &limits.baseline));
                entry.baseline.take_if(|baseline| baseline.is_over(now, &limits.baseline));
                let recent = past(entry.seen, now) <= limits.census.keep;
                if let Some(baseline) = &entry.baseline {
                    fleet.count(baseline, now, &limits.baseline);
                    drifting += usize::from(baseline.drifts());
                }
                if let Some(class) = entry.class.as_ref().filter(|_| recent) {
                    *classes.entry(Arc::clone(class)).or_default() += 1;
                }
                recent || entry.baseline.is_some() || entry.pending.is_some()
            });
            self.devices.fetch_sub(before - shard.devices.len(), Relaxed);
        }
        held(&self.census).forget(now, &limits.census);
        self.stats.drifting.store(drifting, Relaxed);
        *held(&self.stats.seen) = classes.into_iter().chain([("blind".into(), blind)]).collect();
        self.fleet.store(Arc::new(fleet));
    }
}

/// Whether that may change what is a drift.
fn merge(stacks: &mut Vec<Spoken>, other: Spoken) -> bool {
    match stacks.iter_mut().find(|known| known.stack == other.stack) {
        Some(known) => {
            let news = other.own && !known.own;
            (known.first, known.last) = (known.first.min(other.first), known.last.max(other.last));
            known.own |= other.own;
            news
        }
        None => {
            stacks.push(other);
            true
        }
    }
}
