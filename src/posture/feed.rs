//! The store's own thread: it answers look-ups, follows the changes that other processes make, and outlives a store that fails.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::cache::{Entry, Shared};
use super::error::Error;
use super::record::keys_in;
use super::store::{Access, Change, Head, Left, Store};
use crate::model::KeyKind;

/// Between two looks at the feed, each a `stat` and a look into shared memory. A change by another process must be seen within a second.
const POLL: Duration = Duration::from_millis(100);
/// More changes than this at once: everything is dropped rather than each key.
const CHANGES_MAX: u32 = 10_000;
const REOPEN_FIRST: Duration = Duration::from_millis(200);
const REOPEN_LONGEST: Duration = Duration::from_secs(2);

/// A look-up. Whoever asked may have gone by the time it is answered.
#[derive(Debug)]
pub struct Ask {
    pub key: Arc<str>,
    /// `None`: the store failed.
    pub reply: oneshot::Sender<Option<Entry>>,
}

pub struct Feed {
    shared: Arc<Shared>,
    sources: Vec<String>,
    state: State,
}

enum State {
    Open {
        store: Store,
        version: Option<i64>,
        cursor: Head,
        beside: Beside,
    },
    /// `left` is what the last file left behind.
    Closed {
        left: Option<Left>,
        again: Instant,
        wait: Duration,
    },
}

impl Feed {
    pub fn begin(store: Store, shared: Arc<Shared>, sources: Vec<String>) -> Result<Self, Error> {
        let state = State::of(store)?;
        let feed = Self { shared, sources, state };
        feed.measure()?;
        Ok(feed)
    }

    pub fn start(mut self, mut asks: mpsc::Receiver<Ask>) -> Result<(), Error> {
        let thread = |source| Error::Thread { source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(thread)?;
        let work = async move {
            let mut poll = tokio::time::interval(POLL);
            poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                // The feed first: no flood of look-ups may keep a revocation waiting.
                tokio::select! { biased;
                    _ = poll.tick() => self.poll().await,
                    ask = asks.recv() => match ask {
                        Some(ask) => self.answer(ask).await,
                        None => return,
                    }
                }
            }
        };
        let started = std::thread::Builder::new().name("vestibule-store".to_owned()).spawn(move || runtime.block_on(work));
        started.map(drop).map_err(thread)
    }

    async fn answer(&mut self, Ask { key, reply }: Ask) {
        if reply.is_closed() {
            return;
        }
        // Somebody else may have waited for the same key.
        let known = self.shared.cache.get(key.as_ref()).await.filter(|entry| entry.fresh(Instant::now()));
        let entry = match known {
            Some(entry) => Some(entry),
            None => self.read(&key).await,
        };
        // An asker that gave up needs no answer.
        let _ = reply.send(entry);
    }

    async fn read(&mut self, key: &Arc<str>) -> Option<Entry> {
        let State::Open { store, .. } = &self.state else { return None };
        self.shared.stats.reads.fetch_add(1, Relaxed);
        match store.by_key(KeyKind::SpkiSha256, key) {
            Ok(device) => {
                let entry = self.shared.entry(device.map(Arc::new));
                self.shared.cache.insert(Arc::clone(key), entry.clone()).await;
                Some(entry)
            }
            // One record is broken, the store is not.
            Err(error @ Error::Record { .. }) => {
                tracing::error!(error = text(&error), "device record cannot be read");
                None
            }
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }

    async fn poll(&mut self) {
        match self.follow().await {
            Ok(true) => {
                self.shared.stats.polled();
                self.rose();
            }
            Ok(false) => {}
            Err(error) => self.failed(&error),
        }
    }

    /// Drops what other processes changed. `false`: the store is closed and it is not yet time to try again.
    async fn follow(&mut self) -> Result<bool, Error> {
        match &mut self.state {
            State::Closed { again, .. } if *again > Instant::now() => return Ok(false),
            State::Closed { left, .. } => {
                let path = &self.shared.store.path;
                if let Some(left) = left {
                    left.set_aside(path);
                }
                // Not `Create`: an empty store in place of a lost one would make every device unknown.
                self.state = State::of(Store::open(path, Access::Write, self.shared.store.lookup_timeout)?)?;
                // Up before the cache is emptied: who finds nothing there shall ask, not give up.
                self.rose();
                self.shared.cache.invalidate_all();
            }
            State::Open { store, version, cursor, beside } => {
                let now = store.version()?;
                if *version == Some(now) {
                    return Ok(true);
                }
                // What is written beside the records is committed too, and changes none of them. An edit by hand that comes between the same two looks
                // is not heard before the ttl ends. First, for what is committed after it is seen at the next look.
                let newest = Beside::of(store)?;
                let (head, changes) = store.changes(cursor.seq, CHANGES_MAX)?;
                *version = Some(now);
                if std::mem::replace(beside, newest) != newest && changes.is_empty() && head == *cursor {
                    return Ok(true);
                }
                if continues(cursor, &head, &changes) {
                    for key in changes.iter().flat_map(keys) {
                        self.shared.cache.invalidate(key.as_str()).await;
                    }
                } else {
                    self.shared.cache.invalidate_all();
                }
                *cursor = head;
            }
        }
        self.shared.changed();
        self.measure()?;
        Ok(true)
    }

    fn rose(&self) {
        if self.shared.stats.rose() {
            // Whoever keeps a stale answer asks again.
            self.shared.changed();
            tracing::info!(store = %self.shared.store.path.display(), "device store is back");
        }
    }

    fn failed(&mut self, error: &Error) {
        let said = text(error);
        if self.shared.stats.fell(&said) {
            tracing::warn!(error = said, "device store failed");
        }
        match &mut self.state {
            // Being locked out for a moment is no reason to doubt the connection.
            State::Open { version, .. } if matches!(error, Error::Busy { .. }) => *version = None,
            State::Open { store, .. } => {
                self.state = State::Closed { left: store.left(), again: Instant::now() + REOPEN_FIRST, wait: REOPEN_FIRST };
            }
            State::Closed { again, wait, .. } => {
                *wait = (*wait * 2).min(REOPEN_LONGEST);
                *again = Instant::now() + *wait;
            }
        }
    }

    fn measure(&self) -> Result<(), Error> {
        let State::Open { store, .. } = &self.state else { return Ok(()) };
        let newest = |source: &String| Ok(store.newest(source)?.map(|at| (source.clone(), at)));
        let newest: Result<Vec<_>, Error> = self.sources.iter().map(newest).collect();
        self.shared.stats.observed(newest?.into_iter().flatten().collect());
        Ok(())
    }
}

impl State {
    fn of(store: Store) -> Result<Self, Error> {
        // The version before the head: what is committed in between is then seen as a change.
        let version = Some(store.version()?);
        let cursor = store.head()?;
        let beside = Beside::of(&store)?;
        Ok(Self::Open { store, version, cursor, beside })
    }
}

/// The newest of what proxies write beside the records: what they remember, once a second, and each policy that comes into force.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Beside {
    batch: i64,
    policy: i64,
}

impl Beside {
    fn of(store: &Store) -> Result<Self, Error> {
        Ok(Self { batch: store.memory()?.map_or(0, |memory| memory.rev), policy: store.newest_revision()? })
    }
}

/// Whether `changes` are all that was committed between the cursor and the head. If not, history was rewritten or is too long, or somebody edited
/// the tables by hand.
fn continues(cursor: &Head, head: &Head, changes: &[Change]) -> bool {
    let between = head.seq.checked_sub(cursor.seq).and_then(|count| usize::try_from(count).ok());
    head.epoch == cursor.epoch && !changes.is_empty() && between == Some(changes.len())
}

/// The cached keys that a change concerns: those that the device had and those that it has.
fn keys(change: &Change) -> impl Iterator<Item = String> {
    let both = [&change.before, &change.after].into_iter().flatten().flat_map(|json| keys_in(json));
    both.filter(|(kind, _)| kind == KeyKind::SpkiSha256.as_str()).map(|(_, value)| value)
}

/// An error with its causes, for one log field.
fn text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unbroken_history_continues() {
        let head = |epoch: &str, seq| Head { epoch: epoch.to_owned(), seq };
        let rows = |count: u64| {
            let row =
                |seq| Change { seq, at: jiff::Timestamp::UNIX_EPOCH, by: String::new(), device: String::new(), before: None, after: None };
            (0..count).map(row).collect::<Vec<_>>()
        };
        let after_five = |now: Head, changes| continues(&head("a", 5), &now, &rows(changes));
        assert!(after_five(head("a", 7), 2));
        assert!(!after_five(head("b", 7), 2), "another history");
        assert!(!after_five(head("a", 4), 0), "rewound");
        assert!(!after_five(head("a", 7), 1), "a gap, or more than fit");
        assert!(!after_five(head("a", 5), 0), "changed by hand");
    }
}
