//! The embedded store: one SQLite file in WAL mode. Readers never wait for a writer; `synchronous=FULL` has every acknowledged change on
//! the disk before it is acknowledged.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};

use super::rows::{Rows, save, stamp};
use super::schema::{APPLICATION_ID, MIGRATIONS};
use super::{Absent, Access, Change, Filter, Head, Writing, Written};
use crate::model::{Device, DeviceState, KeyKind, Ownership};
use crate::posture::edit::Edit;
use crate::posture::error::{Error, Taken};
use crate::posture::record::Json;
use crate::posture::values::{self, Wrong};

#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    file: FileId,
    /// The log beside the file; it is part of the database.
    log: Option<FileId>,
    sql: Connection,
}

/// A store whose file was removed or replaced, and its log, which may still lie beside the path.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    file: FileId,
    log: FileId,
}

/// One device under the edits of one transaction.
struct Touched {
    before: Option<Device>,
    after: Option<Device>,
    /// The last edit that concerned it.
    edit: usize,
}

/// Which file stands at a path: a connection goes on reading a file that was removed or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl Sqlite {
    pub fn open(path: &Path, access: Access, patience: Duration) -> Result<Self, Error> {
        let owned = || path.to_path_buf();
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => return Err(Error::Directory { path: owned() }),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound && access == Access::Create => create(path)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Error::Missing { path: owned() }),
            Err(source) => return Err(Error::Unopenable { path: owned(), source }),
        }
        let failed = |e| failure(path, e);
        // Without SQLITE_OPEN_URI and CREATE: the path is a file name, whatever it looks like, and it exists.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let sql = Connection::open_with_flags(path, flags).map_err(failed)?;
        sql.busy_timeout(patience).map_err(failed)?;
        if access != Access::Read && sql.is_readonly(rusqlite::MAIN_DB).map_err(failed)? {
            return Err(Error::ReadOnly { path: owned() });
        }
        let file = FileId::of(path).map_err(|source| Error::Unopenable { path: owned(), source })?;
        let mut store = Self { path: owned(), file, log: None, sql };
        store.prepare(access, patience)?;
        store.log = FileId::of(&log_of(path)).ok();
        Ok(store)
    }

    /// What to hand to [`Left::set_aside`] when this store's file is no longer at its path.
    pub fn left(&self) -> Option<Left> {
        self.log.map(|log| Left { file: self.file, log })
    }

    pub fn wait_at_most(&self, patience: Duration) -> Result<(), Error> {
        self.run(|sql| sql.busy_timeout(patience))
    }

    fn prepare(&mut self, access: Access, patience: Duration) -> Result<(), Error> {
        let (application, tables, schema) = {
            // Another process may be creating the store at this moment.
            let _one_state = self.snapshot()?;
            let tables: i64 = self.run(|sql| sql.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)))?;
            (self.pragma("application_id")?, tables, self.pragma("user_version")?)
        };
        let blank = application == 0 && tables == 0;
        let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
        match (application, blank) {
            (APPLICATION_ID, _) if schema > known => return Err(Error::Newer { path: self.path.clone(), found: schema, known }),
            (APPLICATION_ID, _) => {}
            // An empty file becomes a store only for somebody who meant to make one.
            (_, true) if access == Access::Create => {}
            _ => return Err(Error::Foreign { path: self.path.clone() }),
        }
        self.run(|sql| sql.execute_batch("PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF;"))?;
        if access != Access::Read {
            self.write_ahead(patience)?;
            self.migrate()?;
        }
        let verdict: String = self.run(|sql| sql.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)))?;
        if verdict != "ok" {
            return Err(Error::Corrupt { path: self.path.clone(), detail: verdict });
        }
        Ok(())
    }

    /// SQLite does not wait for the lock that a change of the journal mode needs; two processes may create a store at once.
    fn write_ahead(&self, patience: Duration) -> Result<(), Error> {
        let began = Instant::now();
        loop {
            match self.run(|sql| sql.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0))) {
                Ok(mode) if mode == "wal" => return Ok(()),
                Ok(_) => return Err(Error::NoWal { path: self.path.clone() }),
                Err(Error::Busy { .. }) if began.elapsed() < patience => std::thread::sleep(Duration::from_millis(10)),
                Err(e) => return Err(e),
            }
        }
    }

    fn migrate(&mut self) -> Result<(), Error> {
        let path = self.path.clone();
        let failed = |e| failure(&path, e);
        let done = |sql: &Connection| sql.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
        if usize::try_from(done(&self.sql).map_err(failed)?).is_ok_and(|done| done >= MIGRATIONS.len()) {
            return Ok(());
        }
        // Read again under the lock: another process may have just done it.
        let tx = self.sql.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let from = usize::try_from(done(&tx).map_err(failed)?).unwrap_or(0);
        for migration in MIGRATIONS.iter().skip(from) {
            tx.execute_batch(migration).map_err(failed)?;
        }
        tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
        tx.pragma_update(None, "user_version", i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)).map_err(failed)?;
        tx.commit().map_err(failed)
    }

    pub fn device(&self, id: &str) -> Result<Option<Device>, Error> {
        let _one_state = self.snapshot()?;
        self.read(id)
    }

    pub fn by_key(&self, kind: KeyKind, value: &str) -> Result<Option<Device>, Error> {
        let _one_state = self.snapshot()?;
        let id: Option<String> = self.run(|sql| {
            sql.prepare_cached("SELECT device FROM device_key WHERE kind = ?1 AND value = ?2")?
                .query_row(params![kind.as_str(), value], |row| row.get(0))
                .optional()
        })?;
        id.map_or(Ok(None), |id| self.read(&id))
    }

    pub fn list(&self, filter: &Filter) -> Result<Vec<Device>, Error> {
        let _one_state = self.snapshot()?;
        let ids: Vec<String> = self.run(|sql| {
            sql.prepare_cached(
                "SELECT id FROM device WHERE (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR ownership = ?2) AND (?3 IS NULL OR user = ?3)
                 AND (?4 IS NULL OR team = ?4) AND (?5 IS NULL OR ?5 IN (SELECT value FROM json_each(tags))) AND (?6 IS NULL OR os = ?6)
                 ORDER BY id",
            )?
            .query_map(
                params![
                    filter.state.map(DeviceState::as_str),
                    filter.ownership.map(Ownership::as_str),
                    filter.user,
                    filter.team,
                    filter.tag,
                    filter.os
                ],
                |row| row.get(0),
            )?
            .collect()
        })?;
        let read = ids.iter().map(|id| self.read(id));
        read.filter_map(Result::transpose).collect()
    }

    pub fn nearest(&self, id: &str) -> Result<Option<String>, Error> {
        let ids: Vec<String> = self.run(|sql| sql.prepare("SELECT id FROM device")?.query_map([], |row| row.get(0))?.collect())?;
        Ok(values::nearest(id, ids.iter().map(String::as_str)).map(str::to_owned))
    }

    pub fn head(&self) -> Result<Head, Error> {
        self.run(|sql| {
            let mut query = sql.prepare_cached("SELECT epoch, seq FROM head")?;
            query.query_row([], |row| Ok(Head { epoch: row.get(0)?, seq: row.get::<_, i64>(1)?.try_into().unwrap_or(0) }))
        })
    }

    pub fn changes(&self, after: u64, limit: u32) -> Result<(Head, Vec<Change>), Error> {
        let _one_state = self.snapshot()?;
        let head = self.head()?;
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let rows: Vec<(Change, String)> = self.run(|sql| {
            sql.prepare_cached("SELECT seq, at, by, device, before, after FROM change WHERE seq > ?1 ORDER BY seq LIMIT ?2")?
                .query_map(params![after, limit], |row| {
                    let change = Change {
                        seq: row.get::<_, i64>(0)?.try_into().unwrap_or(0),
                        at: Timestamp::UNIX_EPOCH,
                        by: row.get(2)?,
                        device: row.get(3)?,
                        before: row.get(4)?,
                        after: row.get(5)?,
                    };
                    Ok((change, row.get(1)?))
                })?
                .collect()
        })?;
        let timed = rows.into_iter().map(|(change, at)| {
            let at = values::time("at", &at).map_err(|wrong| self.record(&change.device, wrong))?;
            Ok(Change { at, ..change })
        });
        Ok((head, timed.collect::<Result<_, Error>>()?))
    }

    /// Also finds out that the file is no longer the one at the path.
    pub fn version(&self) -> Result<i64, Error> {
        match FileId::of(&self.path) {
            Ok(id) if id == self.file => self.pragma("data_version"),
            _ => Err(Error::Replaced { path: self.path.clone() }),
        }
    }

    pub fn newest(&self, source: &str) -> Result<Option<Timestamp>, Error> {
        let at: Option<String> = self
            .run(|sql| sql.prepare_cached("SELECT max(observed_at) FROM fact WHERE source = ?1")?.query_row([source], |row| row.get(0)))?;
        Ok(at.and_then(|at| at.parse().ok()))
    }

    pub fn write(&mut self, edits: &[Edit], how: Writing<'_>) -> Result<Written, Error> {
        let path = self.path.clone();
        let failed = |e| failure(&path, e);
        let now = values::to_millisecond(how.now);
        // The lock first: a transaction that begins by reading cannot wait for a writer without giving up what it read.
        let tx = Transaction::new_unchecked(&self.sql, TransactionBehavior::Immediate).map_err(failed)?;
        let mut written = Written::default();
        let mut touched: BTreeMap<&str, Touched> = BTreeMap::new();
        for (index, edit) in edits.iter().enumerate() {
            let before = match touched.remove(edit.id()) {
                Some(known) => known,
                None => {
                    let held = self.read(edit.id())?;
                    if held.is_none() && how.absent == Absent::Refuse {
                        return Err(Error::NoDevice { id: edit.id().to_owned(), nearest: self.nearest(edit.id())? });
                    }
                    Touched { after: held.clone(), before: held, edit: index }
                }
            };
            let (after, passed) = edit.applied(before.after.as_ref(), how.voice, how.by, now).map_err(|wrong| Error::Edit {
                edit: index,
                device: edit.id().to_owned(),
                wrong: Box::new(wrong),
            })?;
            written.passed(edit.id(), &passed);
            touched.insert(edit.id(), Touched { after: Some(after), edit: index, ..before });
        }
        touched.retain(|_, device| {
            let same = device.before == device.after;
            written.unchanged += usize::from(same);
            !same
        });
        self.keys_are_free(&touched)?;
        // Keys leave all devices before any key arrives: one file may move a key from one device to another.
        for device in touched.values().filter_map(|device| device.before.as_ref()) {
            tx.prepare_cached("DELETE FROM device_key WHERE device = ?1").and_then(|mut s| s.execute([&device.id])).map_err(failed)?;
        }
        for Touched { before, after, .. } in touched.into_values() {
            let Some(mut after) = after else { continue };
            match before {
                Some(_) => written.updated += 1,
                None => written.added += 1,
            }
            let seq = next_seq(&tx).map_err(failed)?;
            after.seq = seq.try_into().unwrap_or(0);
            after.updated_at = now;
            save(&tx, &after).map_err(failed)?;
            let (before, json) = (before.as_ref().map(|b| Json::of(b).line()), Json::of(&after).line());
            tx.prepare_cached("INSERT INTO change (seq, at, by, device, before, after) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")
                .and_then(|mut s| s.execute(params![seq, stamp(now), how.by.as_str(), after.id, before, json]))
                .map_err(failed)?;
        }
        tx.commit().map_err(failed)?;
        Ok(written)
    }

    fn keys_are_free(&self, touched: &BTreeMap<&str, Touched>) -> Result<(), Error> {
        let mut wanted: HashMap<(KeyKind, &str), &str> = HashMap::new();
        let mut taken = Vec::new();
        for (id, device) in touched {
            for key in device.after.iter().flat_map(|after| &after.keys) {
                let in_store: Option<String> = self.run(|sql| {
                    sql.prepare_cached("SELECT device FROM device_key WHERE kind = ?1 AND value = ?2")?
                        .query_row(params![key.kind.as_str(), key.value], |row| row.get(0))
                        .optional()
                })?;
                let keeps = |owner: &str| {
                    touched
                        .get(owner)
                        .is_none_or(|t| t.after.iter().flat_map(|a| &a.keys).any(|k| k.kind == key.kind && k.value == key.value))
                };
                let in_store = in_store.filter(|owner| owner != id && keeps(owner));
                let here = wanted.insert((key.kind, key.value.as_str()), id).map(str::to_owned);
                if let Some(owner) = in_store.or(here) {
                    let key = format!("{}:{}", key.kind.as_str(), key.value);
                    taken.push(Taken { edit: device.edit, device: (*id).to_owned(), key, owner });
                }
            }
        }
        if taken.is_empty() { Ok(()) } else { Err(Error::KeysTaken { taken }) }
    }

    fn read(&self, id: &str) -> Result<Option<Device>, Error> {
        let rows = self.run(|sql| Rows::read(sql, id))?;
        rows.map(Rows::decode).transpose().map_err(|wrong| self.record(id, wrong))
    }

    /// Everything that is read while it lives is of one commit.
    pub fn snapshot(&self) -> Result<Transaction<'_>, Error> {
        self.sql.unchecked_transaction().map_err(|e| failure(&self.path, e))
    }

    fn pragma(&self, name: &str) -> Result<i64, Error> {
        self.run(|sql| sql.pragma_query_value(None, name, |row| row.get(0)))
    }

    pub fn run<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        work(&self.sql).map_err(|e| failure(&self.path, e))
    }

    /// All or nothing. The lock comes first: a transaction that begins by reading cannot wait for a writer without giving up what it read.
    pub fn immediate<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        let failed = |e| failure(&self.path, e);
        let tx = Transaction::new_unchecked(&self.sql, TransactionBehavior::Immediate).map_err(failed)?;
        let done = work(&tx).map_err(failed)?;
        tx.commit().map_err(failed)?;
        Ok(done)
    }

    fn record(&self, device: &str, wrong: Wrong) -> Error {
        Error::Record { path: self.path.clone(), device: device.to_owned(), wrong: Box::new(wrong) }
    }
}

impl FileId {
    fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|meta| Self { device: meta.dev(), inode: meta.ino() })
    }
}

impl Left {
    /// Renames the log of a file that was replaced. SQLite would take it for the new file's own and write its pages into that one.
    pub fn set_aside(self, path: &Path) {
        let log = log_of(path);
        let replaced = FileId::of(path).is_ok_and(|now| now != self.file);
        if replaced && FileId::of(&log).is_ok_and(|now| now == self.log) {
            let mut aside = log.clone().into_os_string();
            aside.push(format!(".of-replaced-{}", self.file.inode));
            // A failure shows when the store is opened.
            let _ = fs::rename(&log, aside);
        }
    }
}

fn log_of(path: &Path) -> PathBuf {
    let mut log = OsString::from(path);
    log.push("-wal");
    log.into()
}

/// An empty file, which SQLite takes for an empty database. Its log and index get the same mode.
fn create(path: &Path) -> Result<(), Error> {
    let made = (|| {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        // `create`, not `create_new`: another process may create it at the same time.
        OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(drop)
    })();
    made.map_err(|source| Error::Unopenable { path: path.to_path_buf(), source })
}

fn next_seq(sql: &Connection) -> rusqlite::Result<i64> {
    sql.prepare_cached("UPDATE head SET seq = seq + 1 RETURNING seq")?.query_row([], |row| row.get(0))
}

fn failure(path: &Path, error: rusqlite::Error) -> Error {
    let path = path.to_path_buf();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => Error::NotSqlite { path },
        Some(ErrorCode::DatabaseCorrupt) => Error::Corrupt { path, detail: error.to_string() },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::Busy { path },
        Some(ErrorCode::ReadOnly) => Error::ReadOnly { path },
        Some(ErrorCode::DiskFull) => Error::Full { path },
        _ => Error::Sqlite { path, source: error },
    }
}

#[cfg(test)]
mod tests;
