//! The policies that were in force, for whoever asks later why something was decided. Beside the records: no `change`, no `seq`.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Store;
use super::rows::stamp;
use crate::config::Texts;
use crate::posture::error::Error;
use crate::posture::values;

/// So many revisions are kept; the oldest makes room.
pub const REVISIONS_KEPT: u32 = 100;

/// A policy as it came into force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// `policy_rev` of the decision log.
    pub revision: String,
    pub at: Timestamp,
    /// `start`, `signal`, `file` or `api`.
    pub how: String,
    /// Of the proxy that took it.
    pub version: String,
    /// `None`: since whatever was in force before; nothing of it is known.
    pub changed: Option<Vec<String>>,
    pub texts: Texts,
}

impl Store {
    /// Adds a policy, unless it is the one that was in force last. Where `changed` is `None` it is found out from that one.
    pub fn add_revision(&mut self, new: &Revision) -> Result<(), Error> {
        let Self::Sqlite(store) = self;
        store.immediate(|sql| {
            let last = latest(sql, "")?;
            if last.as_ref().is_some_and(|last| last.revision == new.revision) {
                return Ok(());
            }
            let changed = new.changed.clone().or_else(|| last.map(|last| new.texts.changes_since(&last.texts)));
            let changed = changed.map(|lines| serde_json::Value::from(lines).to_string());
            sql.prepare_cached("INSERT INTO policy (revision, at, how, version, changed) VALUES (?1, ?2, ?3, ?4, ?5)")?
                .execute(params![new.revision, stamp(values::to_millisecond(new.at)), new.how, new.version, changed])?;
            let id = sql.last_insert_rowid();
            // Most files of a policy are those of the one before.
            let mut known = sql.prepare_cached("SELECT id FROM policy_text WHERE length(text) = length(?1) AND text = ?1")?;
            let mut write = sql.prepare_cached("INSERT INTO policy_text (text) VALUES (?1)")?;
            let mut link = sql.prepare_cached("INSERT INTO policy_file (policy, place, name, text) VALUES (?1, ?2, ?3, ?4)")?;
            for (place, (name, text)) in (0_i64..).zip(&new.texts.0) {
                let text = match known.query_row([text], |row| row.get::<_, i64>(0)).optional()? {
                    Some(known) => known,
                    None => write.insert([text])?,
                };
                link.execute(params![id, place, name, text])?;
            }
            sql.execute("DELETE FROM policy WHERE id NOT IN (SELECT id FROM policy ORDER BY id DESC LIMIT ?1)", [REVISIONS_KEPT])?;
            sql.execute("DELETE FROM policy_text WHERE id NOT IN (SELECT text FROM policy_file)", [])?;
            Ok(())
        })
    }

    /// Another one whenever a policy was added.
    pub fn newest_revision(&self) -> Result<i64, Error> {
        let Self::Sqlite(store) = self;
        store.run(|sql| sql.prepare_cached("SELECT coalesce(max(id), 0) FROM policy")?.query_row([], |row| row.get(0)))
    }

    /// The newest first, without their texts.
    pub fn revisions(&self, limit: u32) -> Result<Vec<Revision>, Error> {
        let Self::Sqlite(store) = self;
        store.run(|sql| {
            if !is_there(sql)? {
                return Ok(Vec::new());
            }
            let mut rows = sql.prepare_cached("SELECT revision, at, how, version, changed, id FROM policy ORDER BY id DESC LIMIT ?1")?;
            rows.query_map([limit], revision)?.map(|row| row.map(|(_, revision)| revision)).collect()
        })
    }

    /// The newest whose revision begins so, with its texts.
    pub fn revision(&self, prefix: &str) -> Result<Option<Revision>, Error> {
        let Self::Sqlite(store) = self;
        let _one_state = store.snapshot()?;
        store.run(|sql| if is_there(sql)? { latest(sql, prefix) } else { Ok(None) })
    }
}

/// A file of an older version that only reads it has no such table.
fn is_there(sql: &Connection) -> rusqlite::Result<bool> {
    sql.prepare_cached("SELECT 1 FROM sqlite_schema WHERE name = 'policy'")?.exists([])
}

fn latest(sql: &Connection, prefix: &str) -> rusqlite::Result<Option<Revision>> {
    let found = sql
        .prepare_cached(
            "SELECT revision, at, how, version, changed, id FROM policy WHERE substr(revision, 1, length(?1)) = ?1 ORDER BY id DESC LIMIT 1",
        )?
        .query_row([prefix], revision)
        .optional()?;
    let Some((id, revision)) = found else { return Ok(None) };
    let mut files = sql.prepare_cached(
        "SELECT name, policy_text.text FROM policy_file JOIN policy_text ON policy_text.id = policy_file.text WHERE policy = ?1 ORDER BY place",
    )?;
    let texts = files.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    Ok(Some(Revision { texts: Texts(texts), ..revision }))
}

fn revision(row: &Row<'_>) -> rusqlite::Result<(i64, Revision)> {
    let at: String = row.get(1)?;
    let at = values::time("at", &at)
        .map_err(|wrong| rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(wrong)))?;
    let changed: Option<String> = row.get(4)?;
    let changed = changed.map(|json| serde_json::from_str(&json).unwrap_or_default());
    let revision = Revision { revision: row.get(0)?, at, how: row.get(2)?, version: row.get(3)?, changed, texts: Texts::default() };
    Ok((row.get(5)?, revision))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::posture::store::Access;

    fn policy(number: u32, owners: &[(&str, &str)]) -> Revision {
        let main = ("vestibule.yaml".to_owned(), format!("number: {number}\n"));
        let owners = owners.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Revision {
            revision: format!("{number:012x}"),
            at: Timestamp::from_second(1_800_000_000 + i64::from(number)).unwrap(),
            how: "file".to_owned(),
            version: "0.1.0".to_owned(),
            changed: None,
            texts: Texts([main].into_iter().chain(owners).collect()),
        }
    }

    fn stores() -> (Store, Store, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("devices.db");
        let open = || Store::open(&path, Access::Create, Duration::from_secs(5)).unwrap();
        (open(), open(), folder)
    }

    #[test]
    fn a_policy_comes_back_with_its_texts_and_what_changed() {
        let (mut store, other, _folder) = stores();
        assert_eq!((other.revisions(9).unwrap(), other.revision("").unwrap()), (vec![], None));
        let first = policy(1, &[("policy.d/a.yaml", "owner: a")]);
        store.add_revision(&first).unwrap();
        store.add_revision(&first).unwrap();
        assert_eq!(other.revision("0000").unwrap(), Some(first.clone()), "once, and nothing is known of before");
        let second = policy(2, &[("policy.d/a.yaml", "owner: a")]);
        store.add_revision(&second).unwrap();
        store.add_revision(&Revision { changed: Some(vec!["as said".to_owned()]), how: "api".to_owned(), ..first.clone() }).unwrap();
        let told: Vec<_> = other.revisions(9).unwrap().into_iter().map(|one| (one.how, one.changed.unwrap_or_default().concat())).collect();
        assert_eq!(
            told,
            [
                ("api".to_owned(), "as said".to_owned()),
                ("file".to_owned(), "number: 1 -> 2".to_owned()),
                ("file".to_owned(), String::new())
            ]
        );
        assert_eq!(other.revisions(1).unwrap().len(), 1);
        assert_eq!(other.revision(&second.revision).unwrap().unwrap().texts, second.texts);
        assert_eq!(other.revision("").unwrap().unwrap().how, "api", "the newest that fits");
        assert_eq!(other.revision("00000000000%").unwrap(), None);
    }

    #[test]
    fn the_oldest_makes_room_and_texts_are_kept_once() {
        let (mut store, other, folder) = stores();
        let large = "x".repeat(10_000);
        for number in 0..REVISIONS_KEPT + 20 {
            store.add_revision(&policy(number, &[("policy.d/a.yaml", &large)])).unwrap();
        }
        let kept = other.revisions(u32::MAX).unwrap();
        assert_eq!(kept.len(), REVISIONS_KEPT as usize);
        assert_eq!(kept.last().unwrap().revision, policy(20, &[]).revision);
        assert_eq!(other.revision(&policy(19, &[]).revision).unwrap(), None);
        assert_eq!(other.revision(&policy(20, &[]).revision).unwrap().unwrap().texts.0[1].1, large);
        let sql = Connection::open(folder.path().join("devices.db")).unwrap();
        let texts: u32 = sql.query_row("SELECT count(*) FROM policy_text", [], |row| row.get(0)).unwrap();
        assert_eq!(texts, REVISIONS_KEPT + 1, "each main file, and the large one once");
    }

    #[test]
    fn what_texts_held_no_longer_is_not_kept() {
        let (mut store, _, folder) = stores();
        store.add_revision(&policy(1, &[])).unwrap();
        let sql = Connection::open(folder.path().join("devices.db")).unwrap();
        sql.execute_batch("DELETE FROM policy_file; DELETE FROM policy").unwrap();
        store.add_revision(&policy(2, &[])).unwrap();
        let texts: Vec<String> =
            sql.prepare("SELECT text FROM policy_text").unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(texts, ["number: 2\n"]);
    }
}
