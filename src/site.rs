//! The composition root: builds everything from a configuration, swaps it on reload, drains it at the end.

mod api;
mod heap;
mod expiry;
mod gauges;
mod history;
mod keys;
mod made;
mod office;
mod pulse;
mod sockets;
mod supervisor;
mod upgrade;
mod worker;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};

pub use self::expiry::{Ending, endings};
pub use self::heap::Heap;
use self::history::{Historian, How};
use self::keys::{KeyFolder, KeysError};
use self::made::{entrances, files, rules, sources};
use self::office::Office;
use self::sockets::{Bound, adopt, hand_out, open_new, wanted};
use self::supervisor::Supervisor;
use self::upgrade::{Inherited, Predecessor};
pub use self::upgrade::{PATIENCE as UPGRADE_PATIENCE, Program, Serves, Successor, UpgradeError};
use self::worker::{Command, Worker};
use crate::config::{self, Configuration, Report, Texts};
use crate::edge::{Crowd, Entrances, Setup, TlsError, Vouching};
use crate::forward::{Insecure, Rates, Rounds, Secure, Servers};
use crate::gate::Rules;
use crate::posture::{self, Memory, Posture};
use crate::record::{LogError, LogWriter, Record, Writer};

/// Why nothing was started, or why the old configuration stays in force.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Configuration(Report),
    #[error("listener `{listener}`: {source}")]
    Tls { listener: String, source: TlsError },
    #[error(transparent)]
    Insecure(#[from] Insecure),
    #[error("listener `{listener}`: cannot listen on {addr}: {source}")]
    Bind { listener: String, addr: SocketAddr, source: io::Error },
    #[error("admin: cannot listen on {addr}: {source}")]
    Admin { addr: SocketAddr, source: io::Error },
    #[error("assertion.keys: {0}")]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Posture(#[from] posture::Error),
    #[error("{key} changed from {old} to {new}; that takes a restart, and until then the old configuration stays in force")]
    Restart { key: &'static str, old: String, new: String },
    #[error("a socket that was passed to this process cannot be used: {what}")]
    Inherited { what: String },
    #[error(
        "systemd passed a socket for {addr}, and no listener binds that; add it to a listener's `bind`, or take it out of the socket unit"
    )]
    Unclaimed { addr: SocketAddr },
    #[error("the proxy is stopping, or another process is about to take its place; no configuration is taken any more")]
    Leaving,
    #[error("a thread cannot be started: {0}")]
    Thread(io::Error),
    #[error("the metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// A running proxy. Dropping it without `stop` leaves its threads running until the process ends.
#[derive(Debug)]
pub struct Running {
    site: Arc<Site>,
    warnings: Report,
    /// The process whose place this one takes, until it is told that it may end.
    before: Mutex<Option<(Predecessor, Vec<SocketAddr>)>>,
}

pub(crate) struct Site {
    path: PathBuf,
    record: Arc<Record>,
    rules: Arc<ArcSwap<Rules>>,
    entrances: Arc<ArcSwap<Entrances>>,
    workers: Vec<Worker>,
    state: Mutex<State>,
    admin_addr: SocketAddr,
    last_good: AtomicI64,
    /// When the policy in force came into force, in seconds.
    since: AtomicI64,
    draining: AtomicBool,
    /// Another process is starting in this one's place, with the configuration that is in the files.
    succeeding: AtomicBool,
    /// Workers that did not answer when they were last asked.
    stalled: AtomicUsize,
    /// Whether the last reload was taken.
    taken: AtomicBool,
    supervisor: Supervisor,
    office: Mutex<Option<Office>>,
    /// Where the keys of assertions are; `None` while no app wants any.
    keys: ArcSwapOption<KeyFolder>,
    history: Mutex<Option<Historian>>,
    rounds: Mutex<Option<Rounds>>,
}

/// A reload that was taken.
struct Reloaded {
    revision: String,
    previous: String,
    /// As `config::Texts` tells it.
    changed: Vec<String>,
}

/// What only start, reload and stop touch.
struct State {
    configuration: Configuration,
    /// What it was read from.
    texts: Texts,
    log: Option<LogWriter>,
    bound: Vec<Bound>,
    /// A copy of the admin listener's socket, to be passed on.
    admin: TcpListener,
    /// Its files as they were before they were last read.
    looked: office::Stamps,
}

/// Starts the proxy that the file describes. When it returns, every listener accepts.
///
/// # Errors
/// Nothing is left running.
pub fn start(path: &Path) -> Result<Running, Error> {
    let loaded = config::load(path).map_err(Error::Configuration)?;
    let config::Loaded { configuration, warnings, texts, .. } = loaded;
    let record = Arc::new(Record::new()?);
    let entrances = entrances(&configuration, &Entrances::default())?;
    let secure = Secure::load(&configuration.routes, &Secure::default())?;
    let Inherited { bound: mut inherited, before } = upgrade::inherited()?;
    let mut opened = adopt(&configuration, &mut inherited)?;
    let kept: Vec<SocketAddr> = opened.iter().map(|(bound, _)| bound.actual).collect();
    // What leaves a trace on the disk comes last, so that a start that fails leaves none.
    opened.extend(open_new(&configuration, opened.iter().map(|(bound, _)| bound))?);
    let admin = configuration.admin.bind;
    let (admin_socket, admin_copy) = sockets::listen_admin(admin, &mut inherited).map_err(|source| Error::Admin { addr: admin, source })?;
    if let (Some(bound), None) = (inherited.first(), &before) {
        return Err(Error::Unclaimed { addr: bound.actual });
    }
    let admin_addr = admin_socket.local_addr().unwrap_or(admin);
    let posture = Arc::new(Posture::open(&configuration.store, configuration.policy.sources.clone())?);
    let memory = Arc::new(Memory::open(&configuration.store, configuration.fingerprints.memory)?);
    let log = match &configuration.decision_log {
        Some(log) => Some(LogWriter::start(log, configuration.limits.log_queue, &record.decision_log)?),
        None => None,
    };
    let keys = keys::folder(&configuration, None, &record)?;
    let rates = Arc::new(Rates::new(configuration.limits.rate_entries));
    record.log_to(log.as_ref().map(LogWriter::queue));
    let rules = Arc::new(ArcSwap::from_pointee(rules(
        &configuration,
        &entrances,
        (posture, memory, rates, Servers::new(&configuration.routes, secure), Arc::default(), keys.as_deref()),
        1,
    )));
    show_exceptions(&record, &configuration);
    let entrances = Arc::new(ArcSwap::from_pointee(entrances));
    let crowd = Arc::new(Crowd::default());
    let mut workers = Vec::with_capacity(configuration.workers);
    for number in 0..configuration.workers {
        let writer = Writer(u32::try_from(number).unwrap_or(u32::MAX / 2));
        let parts = worker::Parts {
            record: Arc::clone(&record),
            writer,
            rules: Arc::clone(&rules),
            entrances: Arc::clone(&entrances),
            crowd: Arc::clone(&crowd),
        };
        workers.push(Worker::start(parts).map_err(Error::Thread)?);
    }
    let history = Historian::start().map_err(Error::Thread)?;
    history.note(configuration.store.path.clone(), (&configuration.policy.revision, How::Start), None, texts.clone());
    let bound = hand_out(opened, &workers);
    let site = Arc::new(Site {
        path: path.to_owned(),
        rules,
        entrances,
        workers,
        state: Mutex::new(State { looked: office::stamps(files(&configuration)), configuration, texts, log, bound, admin: admin_copy }),
        admin_addr,
        last_good: AtomicI64::new(now()),
        since: AtomicI64::new(now()),
        history: Mutex::new(Some(history)),
        rounds: Mutex::new(None),
        draining: AtomicBool::new(false),
        succeeding: AtomicBool::new(false),
        stalled: AtomicUsize::new(0),
        taken: AtomicBool::new(true),
        supervisor: Supervisor::new(),
        office: Mutex::new(None),
        keys: ArcSwapOption::new(keys),
        record,
    });
    site.measure()?;
    let told = Arc::downgrade(&site);
    let moved = move || {
        if let Some(site) = told.upgrade() {
            site.renew();
        }
    };
    *held(&site.rounds) = Some(Rounds::start(Arc::clone(&site.rules.load().servers), moved).map_err(Error::Thread)?);
    let office = Office::start(&site, admin_socket).map_err(Error::Thread)?;
    *held(&site.office) = Some(office);
    if before.is_some() {
        site.record.upgrades.cell(Writer::OFFICE, &["success"]).add(1);
    }
    let before = before.map(|before| (before, kept));
    Ok(Running { site, warnings, before: Mutex::new(before) })
}

/// What is wrong with the certificates, keys, CAs and CRLs that the configuration names: what `start` would refuse. At most one for a
/// listener, one for whom it believes, one for an app, and one for the keys of assertions.
pub fn mistakes(configuration: &Configuration) -> Vec<Error> {
    let of_listeners = configuration.listeners.iter().flat_map(|listener| {
        let tls = listener.tls.as_ref().and_then(|tls| Setup::load(tls).err());
        let vouching = listener.forwarded.as_ref().and_then(|forwarded| Vouching::load(forwarded).err());
        tls.into_iter().chain(vouching).map(|source| Error::Tls { listener: listener.name.clone(), source })
    });
    let of_apps = Secure::mistakes(&configuration.routes).into_iter().map(Error::Insecure);
    let of_keys = keys::wanted(configuration).then(|| keys::check(&configuration.assertion).err()).flatten().map(Error::Keys);
    of_listeners.chain(of_apps).chain(of_keys).collect()
}

impl Running {
    /// What `check` would say of the configuration that it was started with.
    pub fn warnings(&self) -> &Report {
        &self.warnings
    }

    /// Every bound address with its listener's name, in the configuration's order.
    pub fn listeners(&self) -> Vec<(String, SocketAddr)> {
        held(&self.site.state).bound.iter().map(|bound| (bound.listener.to_string(), bound.actual)).collect()
    }

    /// The first address of a listener.
    pub fn edge_addr(&self, listener: &str) -> Option<SocketAddr> {
        held(&self.site.state).bound.iter().find(|bound| &*bound.listener == listener).map(|bound| bound.actual)
    }

    pub fn admin_addr(&self) -> SocketAddr {
        self.site.admin_addr
    }

    /// Loads the configuration anew. All or nothing: after an error everything is as before.
    ///
    /// # Errors
    /// What is wrong with the new configuration. It is also counted and logged.
    pub fn reload(&self) -> Result<(), Error> {
        self.site.reload(How::Signal).map(drop)
    }

    /// Reopens the decision log's file.
    pub fn reopen_log(&self) {
        if let Some(log) = &held(&self.site.state).log {
            log.queue().reopen();
        }
    }

    /// Every listener accepts: tells the service manager, and the process whose place this one takes.
    pub fn ready(&self) {
        let status = self.site.status("serving");
        self.site.supervisor.ready(&status);
        if let Some((before, kept)) = held(&self.before).take() {
            before.tell(&kept, &status);
        }
    }

    /// Another process is to take this one's place; until that is certain no configuration is taken here.
    pub fn succeeding(&self, succeeding: bool) {
        self.site.succeeding.store(succeeding, Relaxed);
        if succeeding {
            self.site.supervisor.reloading("starting the program anew");
        }
    }

    /// No other process has taken this one's place.
    pub fn not_succeeded(&self) {
        self.succeeding(false);
        self.site.record.upgrades.cell(Writer::OFFICE, &["failure"]).add(1);
        self.site.supervisor.ready(&self.site.status("the upgrade failed; serving"));
    }

    /// From now on `/readyz` says that the proxy is stopping, and no configuration is taken. Gives back how long to go on accepting.
    pub fn leave(&self) -> Duration {
        self.site.draining.store(true, Relaxed);
        self.site.supervisor.stopping("stopping: running requests may finish");
        held(&self.site.state).configuration.limits.drain_delay
    }

    /// Another process serves, with the sockets that it keeps: closes these without a look at who waits there, for that process sees to them.
    /// What runs here may finish, as at `stop`.
    pub fn hand_over(&self, to: u32, serves: &Serves) -> usize {
        self.site.supervisor.handed_over(to, &serves.status);
        if let Some(office) = &*held(&self.site.office) {
            office.close();
        }
        self.site.stop(&serves.kept)
    }

    /// Stops accepting, lets what runs finish up to `limits.drain`, then ends. Gives back how many connections were cut.
    pub fn stop(&self) -> usize {
        self.site.stop(&[])
    }

    /// For cutting what runs while `stop` waits for it.
    pub fn axe(&self) -> Axe {
        Axe(Arc::clone(&self.site))
    }
}

/// Cuts what runs.
#[derive(Debug)]
pub struct Axe(Arc<Site>);

impl Axe {
    /// Every connection ends now. `stop` returns as soon as the log has their lines.
    pub fn fall(&self) {
        self.0.workers.iter().for_each(|worker| worker.tell(Command::Hurry));
    }
}

impl Site {
    fn reload(&self, how: How) -> Result<Reloaded, Error> {
        // One at a time, the counting included: a signal, a changed file and the API come by different threads.
        let mut state = held(&self.state);
        // Asked here, where nobody can begin to stop meanwhile: what would be opened now nobody would empty and close.
        if self.draining.load(Relaxed) || self.succeeding.load(Relaxed) {
            return Err(Error::Leaving);
        }
        let before = office::stamps(files(&state.configuration));
        let previous = state.configuration.policy.revision.clone();
        self.supervisor.reloading("taking the configuration anew");
        let result = self.replace(&mut state).map(|old| {
            let changed = state.texts.changes_since(&old);
            let Configuration { policy, store, .. } = &state.configuration;
            if policy.revision != previous {
                self.since.store(now(), Relaxed);
                if let Some(history) = &*held(&self.history) {
                    history.note(store.path.clone(), (&policy.revision, how), Some(changed.clone()), state.texts.clone());
                }
            }
            Reloaded { revision: policy.revision.clone(), previous, changed }
        });
        // What changed while it was read counts as changed still: only files that are new here are looked at now.
        state.looked = office::stamps(files(&state.configuration));
        for (path, stamp) in before {
            state.looked.entry(path).and_modify(|known| *known = stamp);
        }
        let label = if result.is_ok() { "success" } else { "failure" };
        self.record.config_reload.cell(Writer::OFFICE, &[label]).add(1);
        self.taken.store(result.is_ok(), Relaxed);
        self.supervisor.ready(&self.status(if result.is_ok() {
            "serving"
        } else {
            "the configuration in the files is not taken; serving"
        }));
        match &result {
            Ok(reloaded) => tracing::info!(revision = reloaded.revision, how = how.as_str(), "configuration reloaded"),
            Err(error) => tracing::warn!("the new configuration is not taken, the old one stays in force:\n{error}"),
        }
        result
    }

    /// Gives the texts of the configuration that was in force.
    fn replace(&self, state: &mut State) -> Result<Texts, Error> {
        let config::Loaded { configuration, texts, .. } = config::load(&self.path).map_err(Error::Configuration)?;
        let old = &state.configuration;
        if configuration.workers != old.workers {
            let (old, new) = (old.workers.to_string(), configuration.workers.to_string());
            return Err(Error::Restart { key: "workers", old, new });
        }
        if configuration.admin != old.admin {
            let (old, new) = (old.admin.bind.to_string(), configuration.admin.bind.to_string());
            return Err(Error::Restart { key: "admin.bind", old, new });
        }
        let entrances = entrances(&configuration, &self.entrances.load())?;
        let current = self.rules.load_full();
        let secure = Secure::load(&configuration.routes, current.servers.secure())?;
        let posture = if (&configuration.store, &sources(&configuration)) == (&old.store, &sources(old)) {
            Arc::clone(&current.posture)
        } else {
            Arc::new(Posture::open(&configuration.store, configuration.policy.sources.clone())?)
        };
        let same_memory = configuration.store.path == old.store.path;
        let memory = match same_memory {
            true => Arc::clone(&current.memory),
            false => Arc::new(Memory::open(&configuration.store, configuration.fingerprints.memory)?),
        };
        let same_rates = configuration.limits.rate_entries == old.limits.rate_entries;
        let rates = if same_rates { Arc::clone(&current.rates) } else { Arc::new(Rates::new(configuration.limits.rate_entries)) };
        let same_log = configuration.decision_log == old.decision_log && configuration.limits.log_queue == old.limits.log_queue;
        let log = match &configuration.decision_log {
            Some(log) if !same_log => Some(LogWriter::start(log, configuration.limits.log_queue, &self.record.decision_log)?),
            _ => None,
        };
        let keys = keys::folder(&configuration, self.keys.load_full(), &self.record)?;
        let opened = open_new(&configuration, state.bound.iter())?;
        // Nothing can fail from here on.
        let mut left = std::mem::take(&mut state.bound);
        let known: Vec<(Arc<str>, SocketAddr)> = left.iter().map(|bound| (Arc::clone(&bound.listener), bound.actual)).collect();
        let stays: Vec<Bound> = wanted(&configuration)
            .filter_map(|(listener, addr)| {
                let at = left.iter().position(|bound| bound.serves(listener, addr))?;
                Some(Bound { listener: Arc::from(listener), ..left.remove(at) })
            })
            .collect();
        // Before the workers close theirs, so that theirs are the last.
        drop(left);
        let before = self.entrances.load_full();
        for (listener, actual) in &known {
            let gone = (!entrances.contains_key(listener)).then(|| before.get(listener).cloned()).flatten();
            let keeper = stays.iter().find(|stays| stays.actual == *actual).and_then(|stays| entrances.get(&stays.listener));
            let (listener, addr) = (|| Arc::clone(listener), *actual);
            match keeper {
                Some(keeper) if keeper.door.listener == listener() => {}
                Some(to) => self.workers.iter().for_each(|worker| {
                    worker.tell(Command::Give { listener: listener(), addr, to: Arc::clone(to), gone: gone.is_some() });
                }),
                None => {
                    self.workers.iter().for_each(|worker| worker.tell(Command::Close { listener: listener(), addr, gone: gone.clone() }))
                }
            }
        }
        show_exceptions(&self.record, &configuration);
        let serial = current.serial + 1;
        let servers = current.servers.next(&configuration.routes, secure);
        memory.limit(configuration.fingerprints.memory);
        let lasting = (posture, memory, rates, Arc::clone(&servers), Arc::clone(&current.middleboxes), keys.as_deref());
        let rules = rules(&configuration, &entrances, lasting, serial);
        self.keys.store(keys);
        self.entrances.store(Arc::new(entrances));
        self.rules.store(Arc::new(rules));
        if let Some(rounds) = &*held(&self.rounds) {
            rounds.turn_to(servers);
        }
        self.renew();
        for (Bound { listener, actual, .. }, _) in &opened {
            tracing::info!(%listener, addr = %actual, "listening");
        }
        state.bound = stays.into_iter().chain(hand_out(opened, &self.workers)).collect();
        if !same_memory {
            current.memory.close();
        }
        if !same_log {
            self.record.log_to(log.as_ref().map(LogWriter::queue));
            if let Some(old) = std::mem::replace(&mut state.log, log) {
                old.stop();
            }
        }
        state.configuration = configuration;
        self.last_good.store(now(), Relaxed);
        Ok(std::mem::replace(&mut state.texts, texts))
    }

    /// Workers look at the rules and servers in force now, rather than at the next request: what is gone is closed at once.
    fn renew(&self) {
        self.workers.iter().for_each(|worker| worker.tell(Command::Renew));
    }

    fn stop(&self, kept: &[SocketAddr]) -> usize {
        self.draining.store(true, Relaxed);
        let limit = {
            let mut state = held(&self.state);
            // Before the workers close theirs, so that theirs are the last.
            state.bound.clear();
            state.configuration.limits.drain
        };
        let draining: Vec<_> = self.workers.iter().map(|worker| worker.drain(limit, kept)).collect();
        let cut = draining.into_iter().map(|drained| drained.recv().unwrap_or(0)).sum();
        self.workers.iter().for_each(Worker::join);
        if let Some(rounds) = held(&self.rounds).take() {
            rounds.stop();
        }
        self.rules.load().memory.close();
        if let Some(office) = held(&self.office).take() {
            office.stop();
        }
        if let Some(history) = held(&self.history).take() {
            history.stop();
        }
        if let Some(log) = held(&self.state).log.take() {
            log.stop();
        }
        cut
    }

    /// Why a balancer should send nobody here.
    pub(crate) fn not_ready(&self) -> Vec<String> {
        let mut why = Vec::new();
        if self.draining.load(Relaxed) {
            why.push("the proxy is stopping".to_owned());
        }
        if self.record.log().is_some_and(|log| log.refuses()) {
            why.push("the decision log is required and cannot be written".to_owned());
        }
        why
    }

    /// For the service manager's status line.
    fn status(&self, what: &str) -> String {
        format!("{what} policy {}", self.rules.load().policy.revision())
    }

    /// Whether a file changed since it was read.
    fn changed(&self) -> bool {
        let state = held(&self.state);
        state.looked != office::stamps(files(&state.configuration))
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").field("path", &self.path).field("admin", &self.admin_addr).finish_non_exhaustive()
    }
}

/// Each is counted from 0: a series that began with its first use would have no increase to see.
fn show_exceptions(record: &Record, configuration: &Configuration) {
    for exception in &configuration.policy.exceptions {
        record.exceptions_used.cell(Writer::OFFICE, &[&exception.name]);
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
