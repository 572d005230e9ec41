//! The device store: what is kept, whichever engine keeps it.

pub mod memory;
mod policies;
mod rows;
mod schema;
mod sqlite;
#[cfg(test)]
mod suite;
#[cfg(test)]
mod suite_memory;

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::edit::{Edit, Passed, Voice};
use super::error::Error;
use super::values::By;
use crate::model::{Device, DeviceState, KeyKind, Ownership};
pub use policies::{REVISIONS_KEPT, Revision};
pub(super) use sqlite::Left;
use sqlite::Sqlite;

/// How a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The file must exist; nothing is written.
    Read,
    /// The file must exist.
    Write,
    /// The file and its parent directories are created when missing, readable by their owner alone.
    Create,
}

/// Every operation is one transaction. A change that was returned from is on the disk.
#[derive(Debug)]
pub enum Store {
    Sqlite(Sqlite),
}

/// The newest change. A different epoch is another history: a cursor of this one means nothing there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub epoch: String,
    pub seq: u64,
}

/// One row of the audit trail; `before` and `after` are records in their JSON form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub seq: u64,
    pub at: Timestamp,
    pub by: String,
    pub device: String,
    /// `None`: the device was added.
    pub before: Option<String>,
    pub after: Option<String>,
}

/// All that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub state: Option<DeviceState>,
    pub ownership: Option<Ownership>,
    pub user: Option<String>,
    pub team: Option<String>,
    pub tag: Option<String>,
    pub os: Option<String>,
}

/// What becomes of an edit of a device that the store does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    Add,
    Refuse,
}

/// In whose name, when, and how edits are written.
#[derive(Clone, Copy, Debug)]
pub struct Writing<'a> {
    pub by: &'a By,
    pub now: Timestamp,
    pub voice: Voice,
    pub absent: Absent,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub added: usize,
    pub updated: usize,
    pub unchanged: usize,
    pub older_facts: usize,
    /// Ids of devices that a file said are in use and that stay revoked.
    pub stay_revoked: Vec<String>,
}

impl Store {
    /// Opens a SQLite file. Waits up to `patience` for locks of other processes, now and in every operation.
    pub fn open(path: &Path, access: Access, patience: Duration) -> Result<Self, Error> {
        Sqlite::open(path, access, patience).map(Self::Sqlite)
    }

    pub fn device(&self, id: &str) -> Result<Option<Device>, Error> {
        let Self::Sqlite(store) = self;
        store.device(id)
    }

    /// `value` in the stored form (`values::key_value`).
    pub fn by_key(&self, kind: KeyKind, value: &str) -> Result<Option<Device>, Error> {
        let Self::Sqlite(store) = self;
        store.by_key(kind, value)
    }

    /// Sorted by id.
    pub fn list(&self, filter: &Filter) -> Result<Vec<Device>, Error> {
        let Self::Sqlite(store) = self;
        store.list(filter)
    }

    /// The id that is nearest to one that the store does not have.
    pub fn nearest(&self, id: &str) -> Result<Option<String>, Error> {
        let Self::Sqlite(store) = self;
        store.nearest(id)
    }

    /// Writes all edits, in order, or none. Several may concern one device. A device that the edits leave as it was is not a change.
    pub fn write(&mut self, edits: &[Edit], how: Writing<'_>) -> Result<Written, Error> {
        let Self::Sqlite(store) = self;
        store.write(edits, how)
    }

    pub fn head(&self) -> Result<Head, Error> {
        let Self::Sqlite(store) = self;
        store.head()
    }

    /// At most `limit` changes after `seq`, oldest first, with the head that they were read under.
    pub fn changes(&self, after: u64, limit: u32) -> Result<(Head, Vec<Change>), Error> {
        let Self::Sqlite(store) = self;
        store.changes(after, limit)
    }

    /// Something that differs whenever another connection committed since the last call. Costs no read of the file.
    pub(super) fn version(&self) -> Result<i64, Error> {
        let Self::Sqlite(store) = self;
        store.version()
    }

    /// From now on operations wait this long for locks of other processes.
    pub(super) fn wait_at_most(&self, patience: Duration) -> Result<(), Error> {
        let Self::Sqlite(store) = self;
        store.wait_at_most(patience)
    }

    /// For opening the store anew when its file was removed or replaced.
    pub(super) fn left(&self) -> Option<Left> {
        let Self::Sqlite(store) = self;
        store.left()
    }

    /// When the newest fact of a source was observed.
    pub(super) fn newest(&self, source: &str) -> Result<Option<Timestamp>, Error> {
        let Self::Sqlite(store) = self;
        store.newest(source)
    }
}

impl Written {
    fn passed(&mut self, id: &str, passed: &Passed) {
        self.older_facts += passed.older_facts;
        if passed.stays_revoked && !self.stay_revoked.iter().any(|known| known == id) {
            self.stay_revoked.push(id.to_owned());
        }
    }
}
