//! What the proxy remembers of devices that came: the stacks of those with a record (`baseline.rs`) and the census of those without (`census.rs`).
//!
//! A worker asks once per connection, and again when something that the answer depends on changed. It is answered from memory, under a lock that is
//! held for some hundred nanoseconds, so that even the first request from another stack is seen for what it is. The thread `vestibule-memory`
//! writes what is new to the store every second, by a connection of its own: neither requests nor look-ups wait for the disk.

mod keyed;
mod scribe;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use ahash::RandomState;
use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::oneshot;

use self::keyed::{Layer, Secret};
use self::scribe::{Order, Scribe};
use super::baseline::{Baseline, Fleet, Spoken, Stack, Verdict, judge};
use super::census::{Census, Group, Visitor};
use super::error::Error;
use super::store::memory::{Batch, Counted, Remembered, Texts};
use crate::config;
use crate::model::{Device, Identification, Ja4, Opening, Ownership, Standing, Wire, address};

const SHARDS: usize = 16;
/// A stack that is seen again is written down no more often than this.
const TOUCH: Duration = Duration::from_secs(300);

/// What a connection showed, and what is asked for on it.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    pub wire: &'a Wire,
    pub opening: &'a Opening,
    pub identification: &'a Identification,
    /// The SYN is the client's own, as its network says.
    pub syn_is_direct: bool,
    pub zone: Option<&'a str>,
    pub peer: IpAddr,
    pub app: &'a str,
    pub owner: &'a str,
    /// Whether nothing was told of this connection yet.
    pub arrives: bool,
}

/// What the metrics say of it.
#[derive(Debug, Default)]
pub struct Stats {
    /// Drifts that began.
    pub raised: AtomicU64,
    /// Drifts that ended because much of the fleet made the same change.
    pub fleet: AtomicU64,
    /// Drifts that ended because they had been there for `clear_after`.
    pub settled: AtomicU64,
    /// Devices that found no room.
    pub devices_overflowed: AtomicU64,
    /// Groups of the census that made room.
    pub groups_overflowed: AtomicU64,
    /// Devices with a drift that nobody cleared.
    pub drifting: AtomicUsize,
    seen: Mutex<Vec<(Arc<str>, u64)>>,
}

/// Shared by all workers.
#[derive(Debug)]
pub struct Memory {
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    limits: ArcSwap<config::Memory>,
    secret: ArcSwap<Secret>,
    /// Any hasher does: ids of records are no peer's choice.
    spread: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    devices: AtomicUsize,
    fleet: ArcSwap<Fleet>,
    /// What the metrics and the fleet's count say is out of date.
    restless: AtomicBool,
    census: Mutex<Census>,
    generation: AtomicU64,
    stats: Stats,
}

#[derive(Debug, Default)]
struct Shard {
    devices: HashMap<Box<str>, Entry>,
    /// Those with something pending.
    dirty: Vec<Box<str>>,
}

#[derive(Debug)]
struct Entry {
    seen: Timestamp,
    /// When `seen` was last written.
    saved: Timestamp,
    class: Option<Arc<str>>,
    baseline: Option<Baseline>,
    epoch: i64,
    pending: Option<Box<Pending>>,
}

/// No more than the device has in memory and had in the store, however long the store cannot be written.
#[derive(Debug, Default)]
struct Pending {
    stacks: Vec<Untold>,
    gone: Vec<Stack>,
}

/// A stack that the store is to be told of.
#[derive(Debug)]
struct Untold {
    stack: Stack,
    texts: Texts,
    /// The store does not have it.
    new: bool,
}

impl Memory {
    /// Opens the store, which exists, and starts the thread.
    pub fn open(store: &config::Store, limits: config::Memory) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            path: store.path.clone(),
            limits: ArcSwap::from_pointee(limits),
            secret: ArcSwap::from_pointee(Secret::new(&[0; 32])),
            spread: RandomState::new(),
            shards: Default::default(),
            devices: AtomicUsize::new(0),
            fleet: ArcSwap::default(),
            restless: AtomicBool::new(false),
            census: Mutex::default(),
            generation: AtomicU64::new(0),
            stats: Stats::default(),
        });
        let (orders, inbox) = mpsc::channel();
        let thread = Scribe::begin(Arc::clone(&shared))?.start(inbox)?;
        Ok(Self { shared, orders, thread: Mutex::new(Some(thread)) })
    }

    /// From now on these limits hold.
    pub fn limit(&self, limits: config::Memory) {
        self.shared.limits.store(Arc::new(limits));
        self.shared.restless.store(true, Relaxed);
        self.shared.generation.fetch_add(1, Relaxed);
    }

    /// Changes whenever an answer of [`Memory::sight`] may have become another.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Relaxed)
    }

    /// How long an answer holds while the generation stays: a drift may end with time, and what is seen is to be seen as lasting.
    pub const fn holds(drift: bool) -> Duration {
        if drift { Duration::from_secs(5) } else { TOUCH }
    }

    /// Takes in who came and what they showed; whether that is a drift. Devices that could not be looked up are neither.
    pub fn sight(&self, standing: &Standing, sighting: &Sighting<'_>, now: Timestamp) -> bool {
        match standing {
            Standing::Known { device, .. } => self.shared.proven(device, sighting, now),
            Standing::NoRecord(_) => {
                self.shared.blind(sighting, now);
                false
            }
            Standing::Unreadable => false,
        }
    }

    /// Tells the class of a device that was sighted.
    pub fn classed(&self, device: &str, class: &str) {
        let mut shard = self.shared.shard(device);
        let Some(entry) = shard.devices.get_mut(device).filter(|entry| entry.class.as_deref() != Some(class)) else { return };
        entry.class = Some(class.into());
        self.shared.restless.store(true, Relaxed);
        let new = entry.pending.is_none();
        entry.pending.get_or_insert_default();
        if new {
            shard.dirty.push(device.into());
        }
    }

    /// The census as the store has it, with all that was counted until now. `None`: the store cannot be read.
    pub async fn census(&self) -> Option<Vec<Counted>> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(Order::Census(reply)).ok()?;
        answer.await.ok().flatten()
    }

    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Writes what is not written yet and ends the thread.
    pub fn close(&self) {
        let _ = self.orders.send(Order::Close);
        if let Some(thread) = held(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

impl Stats {
    /// Devices seen within the census' retention, by class; of the blind an estimate.
    pub fn seen(&self) -> Vec<(Arc<str>, u64)> {
        held(&self.seen).clone()
    }
}

impl Shared {
    fn shard(&self, device: &str) -> MutexGuard<'_, Shard> {
        let hash = self.spread.hash_one(device);
        let at = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        let [first, ..] = &self.shards;
        held(self.shards.get(at).unwrap_or(first))
    }

    fn proven(&self, device: &Device, sighting: &Sighting<'_>, now: Timestamp) -> bool {
        let limits = self.limits.load();
        let stack = self.stack(sighting);
        let mut shard = self.shard(&device.id);
        let Shard { devices, dirty } = &mut *shard;
        if !devices.contains_key(&*device.id) {
            if self.devices.load(Relaxed) >= limits.baseline.entries {
                self.stats.devices_overflowed.fetch_add(1, Relaxed);
                return false;
            }
            self.devices.fetch_add(1, Relaxed);
            self.restless.store(true, Relaxed);
            devices.insert(device.id.as_str().into(), Entry::begin(now));
        }
        let Some(entry) = devices.get_mut(&*device.id) else { return false };
        let clean = entry.pending.is_none();
        entry.seen = entry.seen.max(now);
        let touch = TOUCH.min(limits.baseline.keep / 10).min(limits.census.keep / 10);
        if past(entry.saved, now) >= touch {
            entry.saved = now;
            entry.pending.get_or_insert_default();
        }
        let verdict = stack.map(|stack| {
            let (verdict, before) = entry.speaks(stack, &self.fleet.load(), now, &limits.baseline);
            let changed = before.is_none_or(|before| before.own == verdict.is_drift());
            if changed || before.is_some_and(|before| past(before.last, now) >= touch) {
                let texts = texts(sighting, is_hashed(limits.hash, device));
                entry.pending.get_or_insert_default().tell(stack, texts, before.is_none());
            }
            (verdict, changed)
        });
        if clean && entry.pending.is_some() {
            dirty.push(device.id.as_str().into());
        }
        drop(shard);
        let Some((verdict, changed)) = verdict else { return false };
        if changed {
            self.tell(verdict, device, sighting);
        }
        verdict.is_drift()
    }

    /// Counts what changed for this device.
    fn tell(&self, verdict: Verdict, device: &Device, sighting: &Sighting<'_>) {
        let count = match verdict {
            Verdict::Learning | Verdict::Known => return,
            Verdict::Fleet => &self.stats.fleet,
            Verdict::Settled => &self.stats.settled,
            Verdict::Drift => &self.stats.raised,
        };
        count.fetch_add(1, Relaxed);
        self.restless.store(true, Relaxed);
        if verdict.is_drift() {
            tracing::warn!(device = device.id, stack = name(sighting.identification), peer = %sighting.peer, "a device speaks as it never did");
        }
    }

    fn blind(&self, sighting: &Sighting<'_>, now: Timestamp) {
        let limits = self.limits.load();
        let secret = self.secret.load();
        let stack = name(sighting.identification);
        let is_known = !sighting.identification.stacks.is_empty();
        let ja4 = sighting.wire.ja4_stable.as_ref().filter(|_| !is_known).and_then(family);
        let tls = ja4.as_deref().map_or(0, |ja4| secret.keyed(Layer::Tls, ja4));
        let os = sighting.identification.os.iter().map(crate::model::Word::word).collect::<Vec<_>>().join(" ");
        let id = secret.keyed(Layer::Group, &format!("{stack}\n{os}\n{}\n{tls:x}", sighting.zone.unwrap_or_default()));
        let group = || Group {
            stack: stack.into(),
            os: sighting.identification.os,
            zone: sighting.zone.map(Into::into),
            ja4: ja4.map(|ja4| if limits.hash == config::Hash::None { ja4.into() } else { format!("#{tls:016x}").into() }),
        };
        let peer = match sighting.peer {
            peer @ IpAddr::V4(_) => address(peer),
            // A household's /64 is one peer, as elsewhere.
            IpAddr::V6(peer) => format!("{:x}", u128::from(peer) >> 64),
        };
        let visitor =
            Visitor { app: sighting.app, owner: sighting.owner, peer: secret.keyed(Layer::Peer, &peer), arrives: sighting.arrives };
        let mut census = held(&self.census);
        let before = census.size();
        census.count(id, group, &visitor, now, &limits.census);
        self.stats.groups_overflowed.store(census.overflowed, Relaxed);
        if census.size() != before {
            self.restless.store(true, Relaxed);
        }
    }

    /// `None`: no hello was seen, behind a balancer for one; then nothing is learned and nothing drifts.
    fn stack(&self, sighting: &Sighting<'_>) -> Option<Stack> {
        let secret = self.secret.load();
        let tls = secret.keyed(Layer::Tls, &family(sighting.wire.ja4_stable.as_ref()?)?);
        let h2 = sighting.opening.h2.as_deref().map(|h2| secret.keyed(Layer::H2, h2));
        let syn = sighting.wire.syn.as_deref().filter(|_| sighting.syn_is_direct).and_then(syn_family);
        Some(Stack { tls, h2, syn: syn.map(|syn| secret.keyed(Layer::Syn, &syn)) })
    }

    /// What the store is to be told of devices.
    fn take(&self) -> Batch {
        let mut devices = Vec::new();
        for shard in &self.shards {
            let mut shard = held(shard);
            let Shard { devices: known, dirty } = &mut *shard;
            devices.extend(dirty.drain(..).filter_map(|id| known.get_mut(&id)?.take(&id)));
        }
        Batch { devices, census: held(&self.census).take() }
    }
}

impl Entry {
    fn begin(now: Timestamp) -> Self {
        Self { seen: now, saved: Timestamp::UNIX_EPOCH, class: None, baseline: None, epoch: 0, pending: None }
    }

    /// What the rule says, and what was known of this stack before.
    fn speaks(&mut self, stack: Stack, fleet: &Fleet, now: Timestamp, limits: &config::Baseline) -> (Verdict, Option<Spoken>) {
        let mut gone = Vec::new();
        if self.baseline.as_ref().is_some_and(|baseline| baseline.is_over(now, limits)) {
            gone.extend(self.baseline.take().into_iter().flat_map(|baseline| baseline.stacks).map(|spoken| spoken.stack));
        }
        let baseline = self.baseline.get_or_insert_with(|| Baseline::begin(now));
        // A clock that was ahead when the device first came would have it learned until then.
        baseline.since = baseline.since.min(now);
        let verdict = judge(baseline, fleet, stack, now, limits);
        let before = baseline.stacks.iter().find(|spoken| spoken.stack == stack).copied();
        gone.append(&mut baseline.note(stack, verdict, now, limits));
        self.lose(gone);
        (verdict, before)
    }

    fn lose(&mut self, gone: Vec<Stack>) {
        if !gone.is_empty() {
            let pending = self.pending.get_or_insert_default();
            gone.into_iter().for_each(|stack| pending.lose(stack));
        }
    }

    fn take(&mut self, id: &str) -> Option<Remembered> {
        let Pending { stacks, gone } = *self.pending.take()?;
        let spoken = |stack: Stack| self.baseline.as_ref()?.stacks.iter().find(|spoken| spoken.stack == stack).copied();
        Some(Remembered {
            device: id.to_owned(),
            class: self.class.clone(),
            seen: self.seen,
            since: self.baseline.as_ref().map(|baseline| baseline.since),
            epoch: self.epoch,
            stacks: stacks.into_iter().filter_map(|untold| Some((spoken(untold.stack)?, untold.texts))).collect(),
            gone,
            said: None,
        })
    }
}

impl Pending {
    fn tell(&mut self, stack: Stack, texts: Texts, new: bool) {
        match self.stacks.iter_mut().find(|untold| untold.stack == stack) {
            Some(untold) => untold.texts = texts,
            None => self.stacks.push(Untold { stack, texts, new }),
        }
    }

    fn lose(&mut self, stack: Stack) {
        let untold = self.stacks.iter().position(|untold| untold.stack == stack).map(|at| self.stacks.swap_remove(at));
        if untold.is_none_or(|untold| !untold.new) {
            self.gone.push(stack);
        }
    }
}

/// What stays of `ja4_stable` for all connections of a program: not whether a name was asked for, nor which protocols, nor the counts that go with
/// them (`t13d1516h2_b_c` becomes `t13_b_c`).
fn family(ja4: &Ja4) -> Option<String> {
    let (first, hashes) = ja4.as_str().split_once('_')?;
    Some(format!("{}_{hashes}", first.get(..3)?))
}

/// The class of the TTL and the order of the options: kernels differ in them, paths do not (`4:64:mss*44:7:mss1460,sok:df` becomes `64:mss,sok`).
fn syn_family(signature: &str) -> Option<String> {
    let mut parts = signature.split(':').skip(1);
    let (ttl, options) = (parts.next()?, parts.nth(2)?);
    let options: Vec<&str> = options.split(',').map(|option| if option.starts_with("mss") { "mss" } else { option }).collect();
    Some(format!("{ttl}:{}", options.join(",")))
}

fn name(identification: &Identification) -> String {
    match identification.stacks.as_slice() {
        [] => "unknown".to_owned(),
        stacks => stacks.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join("|"),
    }
}

/// A record that does not say corporate may be a person's own.
fn is_hashed(hash: config::Hash, device: &Device) -> bool {
    match hash {
        config::Hash::None => false,
        config::Hash::Personal => device.ownership != Some(Ownership::Corporate),
        config::Hash::All => true,
    }
}

fn texts(sighting: &Sighting<'_>, hashed: bool) -> Texts {
    let text = |text: Option<&str>| text.filter(|_| !hashed).map(str::to_owned);
    Texts {
        stack: name(sighting.identification),
        ja4: text(sighting.wire.ja4_stable.as_ref().map(Ja4::as_str)),
        opening: text(sighting.opening.h2.as_deref()),
        signature: text(sighting.wire.syn.as_deref()),
    }
}

/// None when the clock went back.
fn past(at: Timestamp, now: Timestamp) -> Duration {
    now.duration_since(at).try_into().unwrap_or_default()
}

/// A panic elsewhere leaves whole values behind.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
