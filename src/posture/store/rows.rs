//! Rows to records and back. What is read is checked: people edit databases by hand.

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use crate::model::{Device, DeviceState, Fact, Key, KeyKind, Observation, Ownership, StateChange};
use crate::posture::values::{self, Wrong};

/// A row of `device` with its rows of `device_key` and `fact`, as texts.
pub struct Rows {
    pub device: DeviceRow,
    pub keys: Vec<KeyRow>,
    pub facts: Vec<FactRow>,
}

pub struct DeviceRow {
    id: String,
    name: Option<String>,
    user: Option<String>,
    team: Option<String>,
    tags: String,
    ownership: Option<String>,
    onnet: Option<bool>,
    state: String,
    state_by: String,
    state_at: String,
    os: Option<String>,
    os_version: Option<String>,
    model: Option<String>,
    created_at: String,
    updated_at: String,
    seq: i64,
}

pub struct KeyRow {
    kind: String,
    value: String,
    added: String,
}

pub struct FactRow {
    fact: String,
    source: String,
    state: String,
    value: Option<String>,
    observed_at: String,
    expires_at: Option<String>,
}

impl Rows {
    pub fn read(sql: &Connection, id: &str) -> rusqlite::Result<Option<Self>> {
        let mut device = sql.prepare_cached(
            "SELECT id, name, user, team, tags, ownership, onnet, state, state_by, state_at, os, os_version, model, created_at, updated_at, seq
             FROM device WHERE id = ?1",
        )?;
        let Some(device) = device.query_map([id], DeviceRow::read)?.next().transpose()? else { return Ok(None) };
        let keys = sql
            .prepare_cached("SELECT kind, value, added FROM device_key WHERE device = ?1 ORDER BY kind, value")?
            .query_map([id], |row| Ok(KeyRow { kind: row.get(0)?, value: row.get(1)?, added: row.get(2)? }))?
            .collect::<rusqlite::Result<_>>()?;
        let facts = sql
            .prepare_cached("SELECT fact, source, state, value, observed_at, expires_at FROM fact WHERE device = ?1 ORDER BY fact, source")?
            .query_map([id], FactRow::read)?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Some(Self { device, keys, facts }))
    }

    pub fn decode(self) -> Result<Device, Wrong> {
        let row = self.device;
        let mut keys = self.keys.into_iter().map(KeyRow::decode).collect::<Result<Vec<Key>, _>>()?;
        keys.sort_by(|a, b| (a.kind, &a.value).cmp(&(b.kind, &b.value)));
        Ok(Device {
            name: row.name,
            user: row.user,
            team: row.team,
            tags: serde_json::from_str(&row.tags).map_err(|_| Wrong::new("tags", &row.tags, "a JSON list of texts"))?,
            ownership: row.ownership.map(|o| values::one_of("ownership", &o, &Ownership::ALL, Ownership::as_str)).transpose()?,
            onnet: row.onnet,
            state: values::one_of("state", &row.state, &DeviceState::ALL, DeviceState::as_str)?,
            state_changed: StateChange { by: row.state_by, at: values::time("state_at", &row.state_at)? },
            os: row.os,
            os_version: row.os_version,
            model: row.model,
            keys,
            posture: posture(self.facts)?,
            created_at: values::time("created_at", &row.created_at)?,
            updated_at: values::time("updated_at", &row.updated_at)?,
            seq: row.seq.try_into().unwrap_or(0),
            id: values::id(&row.id)?,
        })
    }
}

impl DeviceRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            name: row.get(1)?,
            user: row.get(2)?,
            team: row.get(3)?,
            tags: row.get(4)?,
            ownership: row.get(5)?,
            onnet: row.get(6)?,
            state: row.get(7)?,
            state_by: row.get(8)?,
            state_at: row.get(9)?,
            os: row.get(10)?,
            os_version: row.get(11)?,
            model: row.get(12)?,
            created_at: row.get(13)?,
            updated_at: row.get(14)?,
            seq: row.get(15)?,
        })
    }
}

impl KeyRow {
    fn decode(self) -> Result<Key, Wrong> {
        let kind = values::one_of("keys", &self.kind, &KeyKind::ALL, KeyKind::as_str)?;
        Ok(Key { kind, value: values::key_value("keys", kind, &self.value)?, added: values::time("keys.added", &self.added)? })
    }
}

impl FactRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            fact: row.get(0)?,
            source: row.get(1)?,
            state: row.get(2)?,
            value: row.get(3)?,
            observed_at: row.get(4)?,
            expires_at: row.get(5)?,
        })
    }

    fn decode(self) -> Result<(String, Observation), Wrong> {
        let field = format!("posture.{}", self.fact);
        let fact = values::word(&field, &self.fact)?;
        let seen = Observation {
            ok: values::one_of(&field, &self.state, &[true, false], |ok| if ok { "ok" } else { "fail" })?,
            value: self.value,
            source: values::word("source", &self.source)?,
            observed_at: values::time("observed_at", &self.observed_at)?,
            expires_at: self.expires_at.map(|at| values::time("expires_at", &at)).transpose()?,
        };
        Ok((fact, seen))
    }
}

/// Rows sorted by fact and source, so that observations of one fact stand together.
fn posture(rows: Vec<FactRow>) -> Result<Vec<Fact>, Wrong> {
    let mut posture: Vec<Fact> = Vec::new();
    for row in rows {
        let (name, seen) = row.decode()?;
        match posture.last_mut() {
            Some(fact) if fact.name == name => fact.observations.push(seen),
            _ => posture.push(Fact { name, observations: vec![seen] }),
        }
    }
    Ok(posture)
}

/// Writes the whole record; its keys are gone from the store already.
pub fn save(sql: &Connection, device: &Device) -> rusqlite::Result<()> {
    sql.prepare_cached(
        "INSERT INTO device (id, name, user, team, tags, ownership, onnet, state, state_by, state_at, os, os_version, model, created_at, updated_at, seq)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
         ON CONFLICT (id) DO UPDATE SET name = ?2, user = ?3, team = ?4, tags = ?5, ownership = ?6, onnet = ?7, state = ?8, state_by = ?9,
             state_at = ?10, os = ?11, os_version = ?12, model = ?13, updated_at = ?15, seq = ?16",
    )?
    .execute(params![
        device.id,
        device.name,
        device.user,
        device.team,
        serde_json::to_string(&device.tags).unwrap_or_default(),
        device.ownership.map(Ownership::as_str),
        device.onnet,
        device.state.as_str(),
        device.state_changed.by,
        stamp(device.state_changed.at),
        device.os,
        device.os_version,
        device.model,
        stamp(device.created_at),
        stamp(device.updated_at),
        i64::try_from(device.seq).unwrap_or(i64::MAX),
    ])?;
    let mut insert = sql.prepare_cached("INSERT INTO device_key (kind, value, device, added) VALUES (?1, ?2, ?3, ?4)")?;
    for key in &device.keys {
        insert.execute(params![key.kind.as_str(), key.value, device.id, stamp(key.added)])?;
    }
    sql.prepare_cached("DELETE FROM fact WHERE device = ?1")?.execute([&device.id])?;
    let mut insert = sql.prepare_cached(
        "INSERT INTO fact (device, fact, source, state, value, observed_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for fact in &device.posture {
        for seen in &fact.observations {
            let state = if seen.ok { "ok" } else { "fail" };
            let ends = seen.expires_at.map(stamp);
            insert.execute(params![device.id, fact.name, seen.source, state, seen.value, stamp(seen.observed_at), ends])?;
        }
    }
    Ok(())
}

/// A time as the store keeps it: one width, so that texts sort as times do.
pub fn stamp(time: Timestamp) -> String {
    format!("{time:.3}")
}
