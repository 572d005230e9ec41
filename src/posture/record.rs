//! A device record as JSON and as CSV rows. An import reads both back.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::edit::FIELDS;
use crate::model::{Device, Fact, Observation};

/// The JSON form, in field order. The audit trail and the command line write the same.
#[derive(Serialize)]
pub struct Json<'a> {
    id: &'a str,
    name: Option<&'a str>,
    user: Option<&'a str>,
    team: Option<&'a str>,
    tags: &'a [String],
    ownership: Option<&'a str>,
    onnet: Option<bool>,
    state: &'a str,
    state_by: &'a str,
    state_at: Time,
    os: Option<&'a str>,
    os_version: Option<&'a str>,
    model: Option<&'a str>,
    keys: Vec<JsonKey<'a>>,
    posture: BTreeMap<&'a str, JsonFact<'a>>,
    created_at: Time,
    updated_at: Time,
    seq: u64,
}

#[derive(Serialize)]
struct JsonKey<'a> {
    kind: &'a str,
    value: &'a str,
    added: Time,
}

#[derive(Serialize)]
struct JsonFact<'a> {
    state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    source: &'a str,
    observed_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Time>,
    /// What other sources say of the same fact.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    also: Vec<JsonFact<'a>>,
}

/// RFC 3339.
struct Time(Timestamp);

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'a> Json<'a> {
    pub fn of(device: &'a Device) -> Self {
        let key = |key: &'a crate::model::Key| JsonKey { kind: key.kind.as_str(), value: &key.value, added: Time(key.added) };
        Self {
            id: &device.id,
            name: device.name.as_deref(),
            user: device.user.as_deref(),
            team: device.team.as_deref(),
            tags: &device.tags,
            ownership: device.ownership.map(|o| o.as_str()),
            onnet: device.onnet,
            state: device.state.as_str(),
            state_by: &device.state_changed.by,
            state_at: Time(device.state_changed.at),
            os: device.os.as_deref(),
            os_version: device.os_version.as_deref(),
            model: device.model.as_deref(),
            keys: device.keys.iter().map(key).collect(),
            posture: device.posture.iter().map(|fact| (fact.name.as_str(), JsonFact::of(fact))).collect(),
            created_at: Time(device.created_at),
            updated_at: Time(device.updated_at),
            seq: device.seq,
        }
    }

    pub fn line(&self) -> String {
        // A struct of texts, numbers and maps with text keys always has a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl<'a> JsonFact<'a> {
    /// The one that decides first (among equals fail beats ok), the others below it.
    fn of(fact: &'a Fact) -> Self {
        let mut all: Vec<&Observation> = fact.observations.iter().collect();
        all.sort_by_key(|seen| (seen.ok, std::cmp::Reverse(seen.observed_at)));
        let mut all = all.into_iter().map(Self::one);
        let first = all.next();
        Self { also: all.collect(), ..first.unwrap_or(Self::NOTHING) }
    }

    /// The store keeps no fact without an observation.
    const NOTHING: Self =
        Self { state: "unknown", value: None, source: "", observed_at: Time(Timestamp::UNIX_EPOCH), expires_at: None, also: Vec::new() };

    fn one(seen: &'a Observation) -> Self {
        Self {
            state: if seen.ok { "ok" } else { "fail" },
            value: seen.value.as_deref(),
            source: &seen.source,
            observed_at: Time(seen.observed_at),
            expires_at: seen.expires_at.map(Time),
            also: Vec::new(),
        }
    }
}

/// The keys in a record's JSON form, as `(kind, value)`.
pub fn keys_in(json: &str) -> Vec<(String, String)> {
    #[derive(Deserialize)]
    struct Keys {
        keys: Vec<Key>,
    }
    #[derive(Deserialize)]
    struct Key {
        kind: String,
        value: String,
    }
    let keys: Result<Keys, _> = serde_json::from_str(json);
    keys.map(|keys| keys.keys.into_iter().map(|key| (key.kind, key.value)).collect()).unwrap_or_default()
}

/// Devices as CSV, the header first. A device takes one row for each source and time of its facts, at least one.
pub fn csv(devices: &[Device]) -> Result<Vec<u8>, csv::Error> {
    let facts: BTreeSet<&str> = devices.iter().flat_map(|d| &d.posture).map(|fact| fact.name.as_str()).collect();
    let valued: BTreeSet<&str> = devices
        .iter()
        .flat_map(|d| &d.posture)
        .filter(|fact| fact.observations.iter().any(|seen| seen.value.is_some()))
        .map(|fact| fact.name.as_str())
        .collect();
    let mut header: Vec<String> = FIELDS.map(str::to_owned).to_vec();
    header.extend(["source", "observed_at", "expires_at"].map(str::to_owned));
    for fact in &facts {
        header.push(format!("posture.{fact}"));
        if valued.contains(fact) {
            header.push(format!("posture.{fact}.value"));
        }
    }
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record(&header)?;
    for device in devices {
        for row in rows(device) {
            let mut cells = plain(device);
            cells.push(row.map_or(String::new(), |(source, ..)| source.to_owned()));
            cells.push(row.map_or(String::new(), |(_, at, _)| at.to_string()));
            cells.push(row.and_then(|(.., ends)| ends).map_or(String::new(), |ends| ends.to_string()));
            for name in &facts {
                let seen = device.fact(name).and_then(|fact| fact.observations.iter().find(|seen| Some(row_of(seen)) == row));
                cells.push(seen.map_or("", |seen| if seen.ok { "ok" } else { "fail" }).to_owned());
                if valued.contains(name) {
                    cells.push(seen.and_then(|seen| seen.value.clone()).unwrap_or_default());
                }
            }
            out.write_record(&cells)?;
        }
    }
    out.into_inner().map_err(|e| csv::Error::from(std::io::Error::other(e.to_string())))
}

type Row<'a> = (&'a str, Timestamp, Option<Timestamp>);

fn row_of(seen: &Observation) -> Row<'_> {
    (&seen.source, seen.observed_at, seen.expires_at)
}

fn rows(device: &Device) -> Vec<Option<Row<'_>>> {
    let rows: BTreeSet<Row<'_>> = device.posture.iter().flat_map(|fact| &fact.observations).map(row_of).collect();
    if rows.is_empty() { vec![None] } else { rows.into_iter().map(Some).collect() }
}

/// The cells of [`FIELDS`].
fn plain(device: &Device) -> Vec<String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let keys: Vec<String> = device.keys.iter().map(|key| format!("{}:{}", key.kind.as_str(), key.value)).collect();
    vec![
        device.id.clone(),
        text(&device.name),
        text(&device.user),
        text(&device.team),
        device.tags.join(";"),
        device.ownership.map_or("", |o| o.as_str()).to_owned(),
        device.onnet.map_or("", |onnet| if onnet { "true" } else { "false" }).to_owned(),
        device.state.as_str().to_owned(),
        text(&device.os),
        text(&device.os_version),
        text(&device.model),
        keys.join(";"),
    ]
}
