//! What somebody wants changed about one device. Only what is stated changes; every value in an edit is well formed.

use jiff::Timestamp;

use super::values::{self, By, Terms, Wrong};
use crate::model::{Device, DeviceState, Fact, Key, KeyKind, Observation, Ownership, StateChange};

/// Fields that a person or a file may state, in the order in which they are written.
pub const FIELDS: [&str; 12] = ["id", "name", "user", "team", "tags", "ownership", "onnet", "state", "os", "os_version", "model", "keys"];

/// Fields that the store keeps by itself. Files that `list` wrote hold them; an import does not use them.
pub const KEPT: [&str; 7] = ["state_by", "state_at", "created_at", "updated_at", "seq", "drift", "stacks"];

/// The source of facts that nobody names a source for.
pub const MANUAL: &str = "manual";

const KEYS_MAX: usize = 32;
const TAGS_MAX: usize = 64;
const FACTS_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `=`
    Replace,
    /// `+=`
    Add,
    /// `-=`
    Remove,
}

/// Where and when facts were seen; one for all facts of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub source: String,
    pub observed_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

/// Who is speaking, which decides what an edit may undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// Somebody who names this device: whatever they state is done.
    Person,
    /// A file about many devices, perhaps older than the store: it does not lift a revocation and does not replace newer facts.
    File,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    id: String,
    changes: Vec<Change>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Name(Option<String>),
    User(Option<String>),
    Team(Option<String>),
    Tags(Op, Vec<String>),
    Ownership(Option<Ownership>),
    OnNet(Option<bool>),
    State(DeviceState),
    Os(Option<String>),
    OsVersion(Option<String>),
    Model(Option<String>),
    Keys(Op, Vec<NewKey>),
    Fact(String, Observation),
    Forget { fact: String, source: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct NewKey {
    kind: KeyKind,
    value: String,
    added: Option<Timestamp>,
}

/// What a file stated and the store did not take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Facts of which the store already holds a newer observation of the same source.
    pub older_facts: usize,
    /// The device is revoked and stays so, whatever the file says.
    pub stays_revoked: bool,
}

impl Edit {
    pub fn new(id: &str) -> Result<Self, Wrong> {
        Ok(Self { id: values::id(id)?, changes: Vec::new() })
    }

    /// For a row of a file whose id is wrong, so that its other mistakes are found too. Such a file is never written.
    pub(super) fn nameless() -> Self {
        Self { id: String::new(), changes: Vec::new() }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn state(&mut self, state: DeviceState) {
        self.changes.push(Change::State(state));
    }

    /// Changes a field from its text; an empty text clears it. `field` is one of [`FIELDS`] but `id`; `+=` and `-=` work on tags and keys.
    pub fn assign(&mut self, field: &str, op: Op, text: &str, terms: &Terms<'_>) -> Result<(), Wrong> {
        if op != Op::Replace && !matches!(field, "tags" | "keys") {
            return Err(Wrong::new(field, if op == Op::Add { "+=" } else { "-=" }, "`=`; only tags and keys are lists"));
        }
        let some = |text: &str| if text.is_empty() { Ok(None) } else { values::text(field, text).map(Some) };
        let change = match field {
            "name" => Change::Name(some(text)?),
            "user" => Change::User(some(text)?),
            "team" => Change::Team(some(text)?),
            "os" => Change::Os(some(text)?),
            "os_version" => Change::OsVersion(some(text)?),
            "model" => Change::Model(some(text)?),
            "ownership" if text.is_empty() => Change::Ownership(None),
            "ownership" => Change::Ownership(Some(values::one_of(field, text, &Ownership::ALL, Ownership::as_str)?)),
            "onnet" if text.is_empty() => Change::OnNet(None),
            "onnet" => Change::OnNet(Some(values::yes(field, text)?)),
            "state" => Change::State(values::one_of(field, text, &DeviceState::ALL, DeviceState::as_str)?),
            "tags" => Change::Tags(op, parts(text, &[',', ';']).map(|tag| values::text(field, tag)).collect::<Result<_, _>>()?),
            "keys" => {
                let keys = parts(text, &[';']).map(|key| values::key(field, key, terms));
                let keys = keys.map(|key| key.map(|(kind, value)| NewKey { kind, value, added: None }));
                Change::Keys(op, keys.collect::<Result<_, _>>()?)
            }
            "id" => return Err(Wrong::new(field, text, "no change of id; retire this device and add another")),
            _ if KEPT.contains(&field) => return Err(Wrong::new(field, text, "nothing: the store keeps this field itself")),
            _ => return Err(unknown(field)),
        };
        self.changes.push(change);
        Ok(())
    }

    /// Adds tags or keys as a list of texts, which may then hold separators that a cell cannot.
    pub fn replace_tags<'t>(&mut self, tags: impl Iterator<Item = &'t str>) -> Result<(), Wrong> {
        let tags = tags.map(|tag| match tag.contains([',', ';']) {
            true => Err(Wrong::new("tags", tag, "a tag without `,` and `;`")),
            false => values::text("tags", tag),
        });
        self.changes.push(Change::Tags(Op::Replace, tags.collect::<Result<_, _>>()?));
        Ok(())
    }

    /// Replaces the keys; `added` is when a key came to the device, where a file knows.
    pub fn replace_keys(&mut self, keys: Vec<(KeyKind, String, Option<Timestamp>)>) {
        let keys = keys.into_iter().map(|(kind, value, added)| NewKey { kind, value, added }).collect();
        self.changes.push(Change::Keys(Op::Replace, keys));
    }

    /// States a fact: `ok`, `fail`, or nothing, which takes back what this source said of it.
    pub fn fact(&mut self, fact: &str, text: &str, value: Option<&str>, seen: &Seen) -> Result<(), Wrong> {
        let field = format!("posture.{fact}");
        let name = values::word(&field, fact)?;
        if text.is_empty() {
            self.changes.push(Change::Forget { fact: name, source: seen.source.clone() });
            return Ok(());
        }
        let ok = values::one_of(&field, text, &[true, false], |ok| if ok { "ok" } else { "fail" })
            .map_err(|wrong| Wrong { expected: "ok, fail or nothing".to_owned(), ..wrong })?;
        let value = value.map(|v| values::text(&format!("{field}.value"), v)).transpose()?;
        let Seen { source, observed_at, expires_at } = seen.clone();
        self.changes.push(Change::Fact(name, Observation { ok, value, source, observed_at, expires_at }));
        Ok(())
    }

    /// The keys that this edit gives to the device, to find two rows that want the same one.
    pub fn keys(&self) -> impl Iterator<Item = (KeyKind, &str)> {
        self.changes
            .iter()
            .flat_map(|change| match change {
                Change::Keys(Op::Replace | Op::Add, keys) => keys.as_slice(),
                _ => &[],
            })
            .map(|key| (key.kind, key.value.as_str()))
    }

    /// The record after the edit, facts and all; the store gives it its `updated_at` and `seq` when it differs.
    pub(super) fn applied(&self, before: Option<&Device>, voice: Voice, by: &By, now: Timestamp) -> Result<(Device, Passed), Wrong> {
        let mut device = before.cloned().unwrap_or_else(|| Device::blank(&self.id, DeviceState::Pending, by.as_str(), now));
        let mut passed = Passed::default();
        for change in &self.changes {
            match change {
                Change::Name(v) => device.name.clone_from(v),
                Change::User(v) => device.user.clone_from(v),
                Change::Team(v) => device.team.clone_from(v),
                Change::Os(v) => device.os.clone_from(v),
                Change::OsVersion(v) => device.os_version.clone_from(v),
                Change::Model(v) => device.model.clone_from(v),
                Change::Ownership(v) => device.ownership = *v,
                Change::OnNet(v) => device.onnet = *v,
                Change::Tags(op, tags) => change_tags(&mut device.tags, *op, tags),
                Change::Keys(op, keys) => change_keys(&mut device.keys, *op, keys, now),
                Change::State(state) if voice == Voice::File && revoked(device.state) && !revoked(*state) => passed.stays_revoked = true,
                Change::State(state) if device.state != *state => {
                    device.state = *state;
                    device.state_changed = StateChange { by: by.as_str().to_owned(), at: now };
                }
                Change::State(_) => {}
                Change::Forget { fact, source } => forget(&mut device.posture, fact, source),
                Change::Fact(name, seen) => passed.older_facts += observe(&mut device.posture, name, seen, voice),
            }
        }
        for (field, count, max) in
            [("tags", device.tags.len(), TAGS_MAX), ("keys", device.keys.len(), KEYS_MAX), ("posture", device.posture.len(), FACTS_MAX)]
        {
            if count > max {
                return Err(Wrong::new(field, &count.to_string(), format!("at most {max} of one device")));
            }
        }
        Ok((device, passed))
    }
}

pub fn unknown(field: &str) -> Wrong {
    let posture = "posture.".to_owned();
    let known = crate::model::WELL_KNOWN_FACTS.iter().map(|fact| posture.clone() + fact).collect::<Vec<_>>();
    let known = FIELDS.into_iter().chain(["source", "observed_at", "expires_at"]).chain(known.iter().map(String::as_str));
    Wrong::new("", field, "a field of a device record").near(field, known)
}

const fn revoked(state: DeviceState) -> bool {
    matches!(state, DeviceState::Suspended | DeviceState::Lost | DeviceState::Retired)
}

fn parts<'t>(text: &'t str, separators: &'t [char]) -> impl Iterator<Item = &'t str> {
    text.split(separators).map(str::trim).filter(|part| !part.is_empty())
}

fn change_tags(tags: &mut Vec<String>, op: Op, stated: &[String]) {
    match op {
        Op::Replace => *tags = stated.to_vec(),
        Op::Add => tags.extend_from_slice(stated),
        Op::Remove => tags.retain(|tag| !stated.contains(tag)),
    }
    tags.sort_unstable();
    tags.dedup();
}

fn change_keys(keys: &mut Vec<Key>, op: Op, stated: &[NewKey], now: Timestamp) {
    let named = |key: &Key| stated.iter().any(|s| s.kind == key.kind && s.value == key.value);
    match op {
        Op::Replace => keys.retain(named),
        Op::Add => {}
        Op::Remove => return keys.retain(|key| !named(key)),
    }
    for new in stated {
        if !keys.iter().any(|key| key.kind == new.kind && key.value == new.value) {
            keys.push(Key { kind: new.kind, value: new.value.clone(), added: new.added.unwrap_or(now) });
        }
    }
    keys.sort_by(|a, b| (a.kind, &a.value).cmp(&(b.kind, &b.value)));
}

fn forget(posture: &mut Vec<Fact>, name: &str, source: &str) {
    for fact in posture.iter_mut().filter(|fact| fact.name == name) {
        fact.observations.retain(|seen| seen.source != source);
    }
    posture.retain(|fact| !fact.observations.is_empty());
}

/// How many observations were passed over: 1 for a file's that is older than what the store holds.
fn observe(posture: &mut Vec<Fact>, name: &str, seen: &Observation, voice: Voice) -> usize {
    let at = match posture.binary_search_by(|fact| fact.name.as_str().cmp(name)) {
        Ok(at) => at,
        Err(at) => {
            posture.insert(at, Fact { name: name.to_owned(), observations: Vec::new() });
            at
        }
    };
    let Some(fact) = posture.get_mut(at) else { return 0 };
    match fact.observations.iter_mut().find(|held| held.source == seen.source) {
        Some(held) if voice == Voice::File && held.observed_at > seen.observed_at => return 1,
        Some(held) => held.clone_from(seen),
        None => fact.observations.push(seen.clone()),
    }
    fact.observations.sort_by(|a, b| a.source.cmp(&b.source));
    0
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T08:00:00Z".parse().unwrap()
    }

    fn terms() -> Terms<'static> {
        Terms { now: now(), sources: None, folder: Path::new(".") }
    }

    fn seen(source: &str, at: &str) -> Seen {
        Seen { source: source.to_owned(), observed_at: at.parse().unwrap(), expires_at: None }
    }

    fn done(before: Option<&Device>, voice: Voice, build: impl FnOnce(&mut Edit)) -> (Device, Passed) {
        let mut edit = Edit::new("laptop-1").unwrap();
        build(&mut edit);
        edit.applied(before, voice, &By::new("ada").unwrap(), now()).unwrap()
    }

    #[test]
    fn only_what_is_stated_changes() {
        let (first, _) = done(None, Voice::Person, |e| {
            e.assign("name", Op::Replace, "Ada's", &terms()).unwrap();
            e.assign("tags", Op::Replace, "b, a;b", &terms()).unwrap();
            e.assign("keys", Op::Replace, "serial:X;san:a@b", &terms()).unwrap();
        });
        assert_eq!((first.state, first.tags.len(), first.keys.len()), (DeviceState::Pending, 2, 2));
        let (second, _) = done(Some(&first), Voice::Person, |e| {
            e.assign("name", Op::Replace, "", &terms()).unwrap();
            e.assign("tags", Op::Add, "c", &terms()).unwrap();
            e.assign("keys", Op::Remove, "serial:X", &terms()).unwrap();
        });
        assert_eq!((second.name, second.tags, second.keys.len()), (None, vec!["a".into(), "b".into(), "c".into()], 1));
    }

    #[test]
    fn a_key_that_stays_keeps_its_date() {
        let (mut first, _) = done(None, Voice::Person, |e| e.assign("keys", Op::Replace, "serial:X", &terms()).unwrap());
        first.keys[0].added = "2020-01-01T00:00:00Z".parse().unwrap();
        let (second, _) = done(Some(&first), Voice::File, |e| e.assign("keys", Op::Replace, "serial:Y;serial:X", &terms()).unwrap());
        assert_eq!((second.keys[0].added, second.keys[1].added), (first.keys[0].added, now()));
    }

    #[test]
    fn a_file_does_not_lift_a_revocation() {
        let (lost, _) = done(None, Voice::Person, |e| e.state(DeviceState::Lost));
        let (after, passed) = done(Some(&lost), Voice::File, |e| e.state(DeviceState::Approved));
        assert_eq!((after.state, passed.stays_revoked), (DeviceState::Lost, true));
        let (after, passed) = done(Some(&lost), Voice::Person, |e| e.state(DeviceState::Approved));
        assert_eq!((after.state, passed.stays_revoked), (DeviceState::Approved, false));
    }

    #[test]
    fn a_file_does_not_replace_newer_facts() {
        let (first, _) = done(None, Voice::Person, |e| e.fact("patched", "fail", None, &seen("mdm", "2026-11-22T07:00:00Z")).unwrap());
        let older = |e: &mut Edit| e.fact("patched", "ok", None, &seen("mdm", "2026-11-21T07:00:00Z")).unwrap();
        let (after, passed) = done(Some(&first), Voice::File, older);
        assert_eq!((after.posture[0].observations[0].ok, passed.older_facts), (false, 1));
        let (after, _) = done(Some(&first), Voice::Person, older);
        assert!(after.posture[0].observations[0].ok);
        let (after, _) = done(Some(&first), Voice::File, |e| e.fact("patched", "ok", None, &seen("edr", "2026-11-21T07:00:00Z")).unwrap());
        assert_eq!(after.posture[0].observations.len(), 2);
        let (after, _) = done(Some(&first), Voice::Person, |e| e.fact("patched", "", None, &seen("mdm", "2026-11-21T07:00:00Z")).unwrap());
        assert!(after.posture.is_empty());
    }

    #[test]
    fn facts_stay_sorted_by_name() {
        let (device, _) = done(None, Voice::Person, |e| {
            for fact in ["screen_lock", "disk_encrypted", "patched"] {
                e.fact(fact, "ok", None, &seen("mdm", "2026-11-21T07:00:00Z")).unwrap();
            }
        });
        let names: Vec<_> = device.posture.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(names, ["disk_encrypted", "patched", "screen_lock"]);
    }

    #[test]
    fn wrong_fields_and_values_are_named() {
        let mut edit = Edit::new("laptop-1").unwrap();
        for (field, op, text, message) in [
            ("ownrship", Op::Replace, "x", "found `ownrship`, expected a field of a device record; did you mean `ownership`?"),
            ("state", Op::Replace, "aproved", "did you mean `approved`?"),
            ("state", Op::Replace, "", "found nothing, expected pending"),
            ("onnet", Op::Replace, "yes", "onnet: found `yes`, expected true or false"),
            ("name", Op::Add, "x", "name: found `+=`, expected `=`"),
            ("id", Op::Replace, "x", "no change of id"),
            ("seq", Op::Replace, "9", "the store keeps this field itself"),
        ] {
            let wrong = edit.assign(field, op, text, &terms()).unwrap_err().to_string();
            assert!(wrong.contains(message), "{wrong}");
        }
        let wrong = edit.fact("patched", "unknown", None, &seen("mdm", "2026-11-21T07:00:00Z")).unwrap_err().to_string();
        assert_eq!(wrong, "posture.patched: found `unknown`, expected ok, fail or nothing");
    }
}
