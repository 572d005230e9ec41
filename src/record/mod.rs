//! Metrics and the decision log: what happened, counted once and written down once.

mod line;
mod log;
pub mod names;
mod out;
mod past;
#[cfg(test)]
mod past_tests;
mod shard;
mod visit;

use std::cell::{Cell as StdCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use prometheus::Registry;

pub use self::line::{Connection, fragment, own};
pub use self::log::{LogError, LogQueue, LogWriter};
pub use self::past::{Again, Lack, Past};
pub use self::shard::{Cell, Family, Timer, Writer};
pub use self::visit::{Answered, Case, Cut, Labels, RequestId, Visit, header, hex};
use crate::model::{Contradiction, Set};
use names::{Kind, Metric};

/// The registry with every metric, shared by all threads.
#[derive(Debug)]
pub struct Record {
    pub registry: Registry,
    pub requests: Arc<Family>,
    pub decisions: Arc<Family>,
    pub decision_duration: Arc<Family>,
    pub request_duration: Arc<Family>,
    pub upstream_duration: Arc<Family>,
    pub bytes: Arc<Family>,
    pub streams_cut: Arc<Family>,
    pub exceptions_used: Arc<Family>,
    pub connections: Arc<Family>,
    pub accepting_paused: Arc<Family>,
    pub rejected: Arc<Family>,
    pub tls_handshakes: Arc<Family>,
    pub fingerprints: Arc<Family>,
    pub contradictions: Arc<Family>,
    pub config_reload: Arc<Family>,
    pub report_flips: Arc<Family>,
    pub decision_log: Arc<Family>,
    pub assertions: Arc<Family>,
    pub assertion_keys: Arc<Family>,
    pub panics: Arc<Family>,
    pub upgrades: Arc<Family>,
    log: ArcSwapOption<LogQueue>,
}

impl Record {
    /// # Errors
    /// Only when two metrics share a name: our own mistake.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry.register(Box::new(process))?;
        let add = |metric: &'static Metric| -> Result<Arc<Family>, prometheus::Error> {
            let family = Family::new(metric)?;
            registry.register(Box::new(shard::Shared(Arc::clone(&family))))?;
            Ok(family)
        };
        let record = Self {
            requests: add(&names::REQUESTS)?,
            decisions: add(&names::DECISIONS)?,
            decision_duration: add(&names::DECISION_DURATION)?,
            request_duration: add(&names::REQUEST_DURATION)?,
            upstream_duration: add(&names::UPSTREAM_DURATION)?,
            bytes: add(&names::BYTES)?,
            streams_cut: add(&names::STREAMS_CUT)?,
            exceptions_used: add(&names::EXCEPTIONS_USED)?,
            connections: add(&names::CONNECTIONS)?,
            accepting_paused: add(&names::ACCEPTING_PAUSED)?,
            rejected: add(&names::REJECTED)?,
            tls_handshakes: add(&names::TLS_HANDSHAKES)?,
            fingerprints: add(&names::FINGERPRINTS)?,
            contradictions: add(&names::CONTRADICTIONS)?,
            config_reload: add(&names::CONFIG_RELOAD)?,
            report_flips: add(&names::REPORT_FLIPS)?,
            decision_log: add(&names::DECISION_LOG)?,
            assertions: add(&names::ASSERTIONS)?,
            assertion_keys: add(&names::ASSERTION_KEYS)?,
            panics: add(&names::PANICS)?,
            upgrades: add(&names::UPGRADES)?,
            log: ArcSwapOption::empty(),
            registry,
        };
        record.show_zeros();
        Ok(record)
    }

    /// What alerts watch is there from the start: a series that begins with its first event has no increase to see.
    fn show_zeros(&self) {
        for result in ["success", "failure"] {
            self.config_reload.cell(Writer::OFFICE, &[result]);
            self.upgrades.cell(Writer::OFFICE, &[result]);
        }
        for result in ["written", "dropped", "failed"] {
            self.decision_log.cell(Writer::LOG, &[result]);
        }
        for kind in Contradiction::ALL {
            self.contradictions.cell(Writer::OFFICE, &[kind.as_str()]);
        }
        for cut in Cut::COUNTED {
            self.streams_cut.cell(Writer::OFFICE, &[cut.as_str()]);
        }
        for result in ["signed", "failed"] {
            self.assertions.cell(Writer::OFFICE, &[result]);
        }
        for event in ["made", "retired", "failed"] {
            self.assertion_keys.cell(Writer::OFFICE, &[event]);
        }
        self.panics.cell(Writer::OFFICE, &[]);
    }

    /// Adds a metric whose values are computed at each scrape.
    ///
    /// # Errors
    /// When the metric was added before.
    pub fn scraped(
        &self,
        metric: &'static Metric,
        read: impl Fn() -> Vec<(Vec<String>, f64)> + Send + Sync + 'static,
    ) -> Result<(), prometheus::Error> {
        debug_assert!(!matches!(metric.kind, Kind::Histogram(_)));
        let desc = shard::desc(metric)?;
        self.registry.register(Box::new(shard::Scraped { metric, desc, read: Box::new(read) }))
    }

    /// Directs decisions to this log from now on; `None` stops logging.
    pub fn log_to(&self, queue: Option<LogQueue>) {
        self.log.store(queue.map(Arc::new));
    }

    /// The log in use.
    pub fn log(&self) -> Option<Arc<LogQueue>> {
        self.log.load_full()
    }
}

/// One worker's place to record.
#[derive(Debug)]
pub struct Desk {
    pub record: Arc<Record>,
    pub writer: Writer,
    log: RefCell<arc_swap::Cache<LogSlot, Option<Arc<LogQueue>>>>,
    batch: RefCell<log::Lines>,
    flush_due: StdCell<bool>,
    /// One moment by both clocks.
    clocks: StdCell<(Instant, SystemTime)>,
    ids: visit::Ids,
    ledger: RefCell<visit::Ledger>,
    clock: RefCell<line::Clock>,
    decision_duration: Timer,
    dropped: Cell,
}

/// Lets `arc_swap::Cache` reach the slot inside the shared record.
#[derive(Debug)]
struct LogSlot(Arc<Record>);

impl std::ops::Deref for LogSlot {
    type Target = ArcSwapOption<LogQueue>;

    fn deref(&self) -> &Self::Target {
        &self.0.log
    }
}

impl Desk {
    /// So long both clocks are taken to go alike.
    const TOGETHER: Duration = Duration::from_millis(10);
    /// Lines wait this long for company before they go to the writer.
    const FLUSH: Duration = Duration::from_millis(100);
    /// Or until so many bytes are there.
    const BATCH: usize = 256 << 10;
    /// A buffer that has room for more is not kept for other lines. One grows by doubling, so ordinary ones have less.
    const ROOM: usize = 5 * Self::BATCH / 2;

    pub fn new(record: Arc<Record>, writer: Writer) -> Rc<Self> {
        Rc::new(Self {
            writer,
            log: RefCell::new(arc_swap::Cache::new(LogSlot(Arc::clone(&record)))),
            batch: RefCell::new(log::Lines { bytes: Vec::with_capacity(4096), count: 0 }),
            flush_due: StdCell::new(false),
            clocks: StdCell::new((Instant::now(), SystemTime::now())),
            ids: visit::Ids::new(),
            ledger: RefCell::default(),
            clock: RefCell::default(),
            decision_duration: record.decision_duration.timer(writer, &[]),
            dropped: record.decision_log.cell(writer, &["dropped"]),
            record,
        })
    }

    /// Opens the record of one request. Dropped unfinished it counts as 499.
    pub fn begin(self: &Rc<Self>) -> Visit {
        Visit::open(Rc::clone(self))
    }

    /// Now, by one clock, and by the other as often as `TOGETHER` says: a time of day that is set shows that soon.
    fn now(&self) -> (Instant, SystemTime) {
        let now = Instant::now();
        let (then, day) = self.clocks.get();
        let since = now.duration_since(then);
        if since < Self::TOGETHER {
            return (now, day + since);
        }
        let day = SystemTime::now();
        self.clocks.set((now, day));
        (now, day)
    }

    /// Counts those of `found` that are not in `counted` yet: a connection's own account.
    pub fn contradicted(&self, found: Set<Contradiction>, counted: &mut Set<Contradiction>) {
        for kind in found.iter().filter(|kind| !counted.has(*kind)) {
            self.record.contradictions.cell(self.writer, &[kind.as_str()]).add(1);
        }
        *counted = counted.either(found);
    }

    /// Whether requests must be refused because the required log cannot be written.
    pub fn log_refuses(&self) -> bool {
        self.log.borrow_mut().load().as_ref().is_some_and(|log| log.refuses())
    }

    fn logs(&self) -> bool {
        self.log.borrow_mut().load().is_some()
    }

    fn write(self: &Rc<Self>, line: impl FnOnce(&mut Vec<u8>, &mut line::Clock)) {
        let full = {
            let mut batch = self.batch.borrow_mut();
            line(&mut batch.bytes, &mut self.clock.borrow_mut());
            batch.count += 1;
            batch.bytes.len() >= Self::BATCH
        };
        if full {
            self.flush();
        } else if !self.flush_due.replace(true) {
            let desk = Rc::clone(self);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(Self::FLUSH).await;
                desk.flush_due.set(false);
                desk.flush();
            });
        }
    }

    /// Lines wait for `flush` from now on: the worker ends, and with it whatever would flush by itself.
    pub fn close(&self) {
        self.flush_due.set(true);
    }

    /// Hands the waiting lines to the writer: on its own soon after each, and once more when the worker has ended.
    pub fn flush(&self) {
        let lines = {
            let mut batch = self.batch.borrow_mut();
            if batch.count == 0 {
                return;
            }
            log::Lines { bytes: std::mem::take(&mut batch.bytes), count: std::mem::take(&mut batch.count) }
        };
        let lost = match self.log.borrow_mut().load() {
            Some(queue) => {
                self.batch.borrow_mut().bytes = queue.spare();
                queue.push(lines)
            }
            None => 0,
        };
        self.dropped.add(lost as u64);
    }
}
