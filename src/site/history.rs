//! Keeping the policies that came into force, off everybody's path: one thread, which a store that cannot be written holds up alone.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::Texts;
use crate::posture::store::{Access, REVISIONS_KEPT, Revision, Store};

/// How a configuration came into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Start,
    /// SIGHUP.
    Signal,
    /// One of its files changed.
    File,
    /// `POST /api/v1/reload`.
    Api,
}

impl How {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Signal => "signal",
            Self::File => "file",
            Self::Api => "api",
        }
    }
}

/// How long a write waits for another process that is writing.
const PATIENCE: Duration = Duration::from_secs(5);
/// What could not be written is tried again after this.
const AGAIN: Duration = Duration::from_secs(60);

/// A revision, and the store that it is for.
type Entry = (PathBuf, Revision);

#[derive(Debug)]
pub struct Historian {
    send: mpsc::Sender<Entry>,
    thread: JoinHandle<()>,
}

impl Historian {
    pub fn start() -> io::Result<Self> {
        let (send, inbox) = mpsc::channel();
        let thread = std::thread::Builder::new().name("vestibule-history".into()).spawn(move || write_all(&inbox))?;
        Ok(Self { send, thread })
    }

    /// `changed` is `None` for a start: the store knows what was in force before.
    pub fn note(&self, store: PathBuf, (revision, how): (&str, How), changed: Option<Vec<String>>, texts: Texts) {
        let (revision, how) = (revision.to_owned(), how.as_str().to_owned());
        let version = env!("CARGO_PKG_VERSION").to_owned();
        // A thread that is gone has told why.
        let _ = self.send.send((store, Revision { revision, at: Timestamp::now(), how, version, changed, texts }));
    }

    /// What was noted is written, or cannot be.
    pub fn stop(self) {
        drop(self.send);
        let _ = self.thread.join();
    }
}

fn write_all(inbox: &mpsc::Receiver<Entry>) {
    let mut unwritten: VecDeque<Entry> = VecDeque::new();
    loop {
        let wait = if unwritten.is_empty() { Duration::MAX } else { AGAIN };
        let (more, last) = match inbox.recv_timeout(wait) {
            Ok(entry) => (Some(entry), false),
            Err(RecvTimeoutError::Timeout) => (None, false),
            Err(RecvTimeoutError::Disconnected) => (None, true),
        };
        unwritten.extend(more);
        // More than the store would keep need not wait for it.
        while unwritten.len() > REVISIONS_KEPT as usize {
            unwritten.pop_front();
        }
        while let Some((path, revision)) = unwritten.front() {
            let written = Store::open(path, Access::Write, PATIENCE).and_then(|mut store| store.add_revision(revision));
            if let Err(error) = written {
                tracing::warn!(revision = revision.revision, %error, "this policy cannot be added to the history; it is in force all the same");
                break;
            }
            unwritten.pop_front();
        }
        if last {
            return;
        }
    }
}
