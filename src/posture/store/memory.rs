//! What proxies remember of the devices that they saw. Beside the records, not among them: no `change`, no `seq`.
//!
//! Several processes may write to one store. So counts are added, times widened, and what an operator said of a device (its `epoch`) undoes what
//! a proxy had not written yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Store;
use super::rows::stamp;
use crate::config;
use crate::model::{Os, Set, Word};
use crate::posture::baseline::{Spoken, Stack};
use crate::posture::census::{self, Asked, Group, Peers, Pending};
use crate::posture::error::Error;
use crate::posture::values::{self, By};

/// The batch that was written last, and the key of all hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub rev: i64,
    pub key: [u8; 32],
}

/// What is remembered of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    pub device: String,
    pub class: Option<Arc<str>>,
    pub seen: Timestamp,
    /// When learning began; `None`: no stack was seen.
    pub since: Option<Timestamp>,
    /// Counts what operators said of it.
    pub epoch: i64,
    pub stacks: Vec<(Spoken, Texts)>,
    /// To be dropped. Empty when read.
    pub gone: Vec<Stack>,
    /// What an operator said last. Not written with a batch.
    pub said: Option<Said>,
}

/// A stack for people. `None`: kept as its hash alone, or not seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// The stack's name, `unknown` for none.
    pub stack: String,
    pub ja4: Option<String>,
    pub opening: Option<String>,
    pub signature: Option<String>,
}

/// What an operator said of a device's drifts, who, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub what: Saying,
    pub by: String,
    pub at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saying {
    /// Every stack that was seen is the device's own.
    Accepted,
    /// What was learned is dropped, and learning begins anew.
    Forgotten,
}

#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub devices: Vec<Remembered>,
    pub census: census::Batch,
}

/// A group of blind devices as the store has it. Without a group: those that made room.
#[derive(Clone, Debug)]
pub struct Counted {
    pub id: u64,
    pub group: Option<Group>,
    pub seen: Pending,
}

/// The id of those that made room.
const OTHER: u64 = 0;

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty() && self.census.groups.is_empty() && self.census.gone.is_empty() && self.census.other.is_none()
    }
}

impl Saying {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Forgotten => "forgotten",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Accepted, Self::Forgotten].into_iter().find(|said| said.as_str() == word)
    }
}

impl Store {
    /// `None`: nothing is remembered, the file is of an older version that only read it.
    pub fn memory(&self) -> Result<Option<Head>, Error> {
        let Self::Sqlite(store) = self;
        store.run(|sql| {
            if !sql.prepare_cached("SELECT 1 FROM sqlite_schema WHERE name = 'memory'")?.exists([])? {
                return Ok(None);
            }
            let head = |row: &Row<'_>| Ok(Head { rev: row.get(0)?, key: row.get(1)? });
            sql.prepare_cached("SELECT rev, key FROM memory")?.query_row([], head).optional()
        })
    }

    /// What other batches than these changed, up to the newest.
    pub fn remembered(&self, after: i64, until: i64) -> Result<Vec<Remembered>, Error> {
        let Self::Sqlite(store) = self;
        let _one_state = store.snapshot()?;
        store.run(|sql| {
            let mut rows = sql.prepare_cached(
                "SELECT device, class, seen, since, epoch, said, said_by, said_at FROM baseline WHERE rev > ?1 AND rev < ?2",
            )?;
            rows.query_map([after, until], remembered)?.map(|one| stacks(sql, one?)).collect()
        })
    }

    /// What is remembered of one device.
    pub fn remembered_of(&self, device: &str) -> Result<Option<Remembered>, Error> {
        if self.memory()?.is_none() {
            return Ok(None);
        }
        let Self::Sqlite(store) = self;
        let _one_state = store.snapshot()?;
        store.run(|sql| {
            let mut row =
                sql.prepare_cached("SELECT device, class, seen, since, epoch, said, said_by, said_at FROM baseline WHERE device = ?1")?;
            row.query_row([device], remembered).optional()?.map(|one| stacks(sql, one)).transpose()
        })
    }

    /// The devices with a drift that nobody cleared.
    pub fn drifting(&self) -> Result<Vec<String>, Error> {
        if self.memory()?.is_none() {
            return Ok(Vec::new());
        }
        let Self::Sqlite(store) = self;
        store.run(|sql| {
            sql.prepare_cached("SELECT DISTINCT device FROM baseline_stack WHERE own = 0")?.query_map([], |row| row.get(0))?.collect()
        })
    }

    /// Writes a batch and gives its number.
    pub fn remember(&mut self, batch: &Batch) -> Result<i64, Error> {
        let Self::Sqlite(store) = self;
        store.immediate(|sql| {
            let rev = next_rev(sql)?;
            for device in &batch.devices {
                write(sql, device, rev)?;
            }
            for id in &batch.census.gone {
                move_to_other(sql, *id)?;
            }
            for (id, group, seen) in &batch.census.groups {
                count(sql, *id, Some(group), seen)?;
            }
            if let Some(other) = &batch.census.other {
                count(sql, OTHER, None, other)?;
            }
            Ok(rev)
        })
    }

    /// Drops what was not seen for as long as it is kept, and texts that may not be kept (any more).
    pub fn forget(&mut self, limits: &config::Memory, now: Timestamp) -> Result<(), Error> {
        let Self::Sqlite(store) = self;
        let before = |keep: std::time::Duration| now.checked_sub(keep).map_or(String::new(), stamp);
        let (baseline, census) = (before(limits.baseline.keep), before(limits.census.keep));
        const NO_STACK: &str = "NOT EXISTS (SELECT 1 FROM baseline_stack s WHERE s.device = baseline.device)";
        store.immediate(|sql| {
            let mut changed = sql.execute("DELETE FROM baseline_stack WHERE last < ?1", [&baseline])?;
            changed += sql.execute(&format!("DELETE FROM baseline WHERE seen < min(?1, ?2) AND {NO_STACK}"), [&baseline, &census])?;
            changed += sql.execute(&format!("UPDATE baseline SET since = NULL WHERE since < ?1 AND {NO_STACK}"), [&baseline])?;
            changed += sql.execute("DELETE FROM blind WHERE last < ?1", [&census])?;
            let hashed = match limits.hash {
                config::Hash::None => None,
                config::Hash::All => Some("1"),
                config::Hash::Personal => Some("device NOT IN (SELECT id FROM device WHERE ownership = 'corporate')"),
            };
            if let Some(hashed) = hashed {
                let texts = "ja4 = NULL, opening = NULL, signature = NULL WHERE coalesce(ja4, opening, signature) IS NOT NULL";
                changed += sql.execute(&format!("UPDATE baseline_stack SET {texts} AND {hashed}"), [])?;
                changed += sql.execute("UPDATE blind SET ja4 = '#' || printf('%016x', id) WHERE ja4 NOT LIKE '#%'", [])?;
            }
            if changed > 0 {
                next_rev(sql)?;
            }
            Ok(())
        })
    }

    /// Does to a device's baseline what an operator says. `false`: there is none.
    pub fn say(&mut self, device: &str, what: Saying, by: &By, now: Timestamp) -> Result<bool, Error> {
        let Self::Sqlite(store) = self;
        let at = stamp(now);
        store.immediate(|sql| {
            let rev = next_rev(sql)?;
            let known = sql.execute(
                "UPDATE baseline SET said = ?2, said_by = ?3, said_at = ?4, epoch = epoch + 1, rev = ?5 WHERE device = ?1",
                params![device, what.as_str(), by.as_str(), at, rev],
            )?;
            match what {
                Saying::Accepted => sql.execute("UPDATE baseline_stack SET own = 1 WHERE device = ?1", [device])?,
                Saying::Forgotten => {
                    sql.execute("UPDATE baseline SET since = NULL WHERE device = ?1", [device])?;
                    sql.execute("DELETE FROM baseline_stack WHERE device = ?1", [device])?
                }
            };
            Ok(known > 0)
        })
    }

    /// About how many blind devices there are.
    pub fn blind_peers(&self) -> Result<u64, Error> {
        let Self::Sqlite(store) = self;
        store.run(|sql| {
            let mut rows = sql.prepare_cached("SELECT peers FROM blind")?;
            rows.query_map([], |row| Ok(Peers::read(&row.get::<_, Vec<u8>>(0)?).estimate()))?.sum()
        })
    }

    /// The census, the busiest groups first and those that made room last.
    pub fn blind(&self) -> Result<Vec<Counted>, Error> {
        if self.memory()?.is_none() {
            return Ok(Vec::new());
        }
        let Self::Sqlite(store) = self;
        let _one_state = store.snapshot()?;
        store.run(|sql| {
            let mut apps: BTreeMap<i64, Vec<Asked>> = BTreeMap::new();
            let mut rows = sql.prepare_cached(
                "SELECT blind, app, owner, first, last, connections FROM blind_app ORDER BY connections DESC, app, owner",
            )?;
            let mut rows = rows.query([])?;
            while let Some(row) = rows.next()? {
                let asked = Asked {
                    app: row.get::<_, String>(1)?.into(),
                    owner: row.get::<_, String>(2)?.into(),
                    first: time(row, 3)?,
                    last: time(row, 4)?,
                    connections: unsigned(row, 5)?,
                };
                apps.entry(row.get(0)?).or_default().push(asked);
            }
            let mut groups = sql.prepare_cached(
                "SELECT id, stack, os, zone, ja4, first, last, hours, connections, peers FROM blind ORDER BY id = 0, connections DESC, id",
            )?;
            let counted = |row: &Row<'_>| counted(row, apps.remove(&row.get(0)?).unwrap_or_default());
            groups.query_map([], counted)?.collect()
        })
    }
}

fn next_rev(sql: &Connection) -> rusqlite::Result<i64> {
    sql.prepare_cached("UPDATE memory SET rev = rev + 1 RETURNING rev")?.query_row([], |row| row.get(0))
}

fn write(sql: &Connection, device: &Remembered, rev: i64) -> rusqlite::Result<()> {
    let id = &device.device;
    let epoch: Option<i64> =
        sql.prepare_cached("SELECT epoch FROM baseline WHERE device = ?1")?.query_row([id], |row| row.get(0)).optional()?;
    if epoch.is_some_and(|epoch| epoch != device.epoch) {
        return Ok(());
    }
    let mut drop = sql.prepare_cached("DELETE FROM baseline_stack WHERE device = ?1 AND tls = ?2 AND h2 = ?3 AND syn = ?4")?;
    for Stack { tls, h2, syn } in &device.gone {
        drop.execute(params![id, tls.cast_signed(), hash(*h2), hash(*syn)])?;
    }
    // A device of which nothing is left is learned anew: then the old beginning does not count.
    sql.prepare_cached(
        "INSERT INTO baseline (device, class, seen, since, epoch, rev) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (device) DO UPDATE SET class = coalesce(?2, class), seen = max(seen, ?3), rev = ?6,
             since = CASE WHEN EXISTS (SELECT 1 FROM baseline_stack WHERE device = ?1) THEN coalesce(min(since, ?4), since, ?4) ELSE ?4 END",
    )?
    .execute(params![id, device.class, stamp(device.seen), device.since.map(stamp), device.epoch, rev])?;
    let mut upsert = sql.prepare_cached(
        "INSERT INTO baseline_stack (device, tls, h2, syn, own, first, last, steady, news, stack, ja4, opening, signature)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
         ON CONFLICT DO UPDATE SET own = max(own, ?5), first = min(first, ?6), last = max(last, ?7), steady = max(steady, ?8), stack = ?10,
             ja4 = ?11, opening = ?12, signature = ?13",
    )?;
    for (spoken, texts) in &device.stacks {
        let Stack { tls, h2, syn } = spoken.stack;
        upsert.execute(params![
            id,
            tls.cast_signed(),
            hash(h2),
            hash(syn),
            spoken.own,
            stamp(spoken.first),
            stamp(spoken.last),
            stamp(spoken.steady),
            hash(spoken.news),
            texts.stack,
            texts.ja4,
            texts.opening,
            texts.signature
        ])?;
    }
    Ok(())
}

fn count(sql: &Connection, id: u64, group: Option<&Group>, seen: &Pending) -> rusqlite::Result<()> {
    let known: Option<Vec<u8>> =
        sql.prepare_cached("SELECT peers FROM blind WHERE id = ?1")?.query_row([id.cast_signed()], |row| row.get(0)).optional()?;
    let mut peers = seen.peers.clone();
    if let Some(known) = known {
        peers.merge(&Peers::read(&known));
    }
    sql.prepare_cached(
        "INSERT INTO blind (id, stack, os, zone, ja4, first, last, hours, connections, peers) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (id) DO UPDATE SET ja4 = coalesce(?5, ja4), first = min(first, ?6), last = max(last, ?7), hours = hours + ?8, connections = connections + ?9, peers = ?10",
    )?
    .execute(params![
        id.cast_signed(),
        group.map_or("", |group| &group.stack),
        group.map(|group| group.os.iter().map(Os::word).collect::<Vec<_>>().join(" ")).unwrap_or_default(),
        group.and_then(|group| group.zone.as_deref()),
        group.and_then(|group| group.ja4.as_deref()),
        stamp(seen.first),
        stamp(seen.last),
        seen.hours.cast_signed(),
        seen.connections.cast_signed(),
        peers.bytes()
    ])?;
    let mut upsert = sql.prepare_cached(
        "INSERT INTO blind_app (blind, app, owner, first, last, connections) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET first = min(first, ?4), last = max(last, ?5), connections = connections + ?6",
    )?;
    for Asked { app, owner, first, last, connections } in &seen.apps {
        upsert.execute(params![id.cast_signed(), app, owner, stamp(*first), stamp(*last), connections.cast_signed()])?;
    }
    Ok(())
}

/// A group that made room, with its apps. It may be gone already.
fn move_to_other(sql: &Connection, id: u64) -> rusqlite::Result<()> {
    let mut row = sql.prepare_cached("SELECT id, stack, os, zone, ja4, first, last, hours, connections, peers FROM blind WHERE id = ?1")?;
    let mut apps = sql.prepare_cached("SELECT app, owner, first, last, connections FROM blind_app WHERE blind = ?1")?;
    let asked = |row: &Row<'_>| {
        let (app, owner): (String, String) = (row.get(0)?, row.get(1)?);
        Ok(Asked { app: app.into(), owner: owner.into(), first: time(row, 2)?, last: time(row, 3)?, connections: unsigned(row, 4)? })
    };
    let apps = apps.query_map([id.cast_signed()], asked)?.collect::<rusqlite::Result<Vec<_>>>()?;
    let Some(gone) = row.query_row([id.cast_signed()], |row| counted(row, apps)).optional()? else { return Ok(()) };
    count(sql, OTHER, None, &gone.seen)?;
    sql.prepare_cached("DELETE FROM blind WHERE id = ?1")?.execute([id.cast_signed()]).map(drop)
}

fn remembered(row: &Row<'_>) -> rusqlite::Result<Remembered> {
    let said = match (row.get::<_, Option<String>>(5)?.as_deref().and_then(Saying::parse), row.get(6)?, optional_time(row, 7)?) {
        (Some(what), Some(by), Some(at)) => Some(Said { what, by, at }),
        _ => None,
    };
    Ok(Remembered {
        device: row.get(0)?,
        class: row.get::<_, Option<String>>(1)?.map(Into::into),
        seen: time(row, 2)?,
        since: optional_time(row, 3)?,
        epoch: row.get(4)?,
        stacks: Vec::new(),
        gone: Vec::new(),
        said,
    })
}

fn stacks(sql: &Connection, one: Remembered) -> rusqlite::Result<Remembered> {
    let mut rows = sql.prepare_cached(
        "SELECT tls, h2, syn, own, first, last, steady, news, stack, ja4, opening, signature FROM baseline_stack WHERE device = ?1 ORDER BY first, tls",
    )?;
    let read = |row: &Row<'_>| {
        let layer = |at: usize| Ok::<_, rusqlite::Error>(Some(row.get::<_, i64>(at)?.cast_unsigned()).filter(|hash| *hash != 0));
        let stack = Stack { tls: row.get::<_, i64>(0)?.cast_unsigned(), h2: layer(1)?, syn: layer(2)? };
        let (first, last, steady) = (time(row, 4)?, time(row, 5)?, time(row, 6)?);
        let spoken = Spoken { stack, first, last, steady, own: row.get(3)?, news: layer(7)? };
        let texts = Texts { stack: row.get(8)?, ja4: row.get(9)?, opening: row.get(10)?, signature: row.get(11)? };
        Ok((spoken, texts))
    };
    Ok(Remembered { stacks: rows.query_map([&one.device], read)?.collect::<rusqlite::Result<_>>()?, ..one })
}

fn counted(row: &Row<'_>, apps: Vec<Asked>) -> rusqlite::Result<Counted> {
    let id = row.get::<_, i64>(0)?.cast_unsigned();
    let os: String = row.get(2)?;
    let os = os.split(' ').filter_map(|word| Os::ALL.iter().copied().find(|os| os.word() == word)).collect::<Set<Os>>();
    let text = |at: usize| Ok::<_, rusqlite::Error>(row.get::<_, Option<String>>(at)?.map(String::into_boxed_str));
    let group = Group { stack: row.get::<_, String>(1)?.into(), os, zone: text(3)?, ja4: text(4)? };
    let seen = Pending {
        first: time(row, 5)?,
        last: time(row, 6)?,
        hours: unsigned(row, 7)?,
        connections: unsigned(row, 8)?,
        peers: Peers::read(&row.get::<_, Vec<u8>>(9)?),
        apps,
    };
    Ok(Counted { id, group: (id != OTHER).then_some(group), seen })
}

/// A layer that was not seen is 0: columns of a key are never NULL.
fn hash(layer: Option<u64>) -> i64 {
    layer.unwrap_or(0).cast_signed()
}

fn unsigned(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(at)?.try_into().unwrap_or(0))
}

fn time(row: &Row<'_>, at: usize) -> rusqlite::Result<Timestamp> {
    let text: String = row.get(at)?;
    values::time("", &text).map_err(|wrong| rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, Box::new(wrong)))
}

fn optional_time(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Timestamp>> {
    row.get::<_, Option<String>>(at)?.map(|_| time(row, at)).transpose()
}
