//! What every store does. A second backend passes the same suite.

use std::time::Duration;

use jiff::Timestamp;

use super::{Absent, Access, Filter, Store, Writing, Written};
use crate::model::{DeviceState, KeyKind, Ownership};
use crate::posture::edit::{Edit, Op, Seen, Voice};
use crate::posture::error::Error;
use crate::posture::record::keys_in;
use crate::posture::values::{By, Terms};

/// Two connections to one empty store, and where it lies while the test runs.
fn sqlite() -> (Store, Store, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("devices.db");
    let open = || Store::open(&path, Access::Create, Duration::from_secs(5)).unwrap();
    (open(), open(), folder)
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    at("2026-11-22T08:00:00Z")
}

fn edit(id: &str, changes: &[(&str, Op, &str)]) -> Edit {
    let terms = Terms { now: now(), sources: None, folder: std::path::Path::new("") };
    let mut edit = Edit::new(id).unwrap();
    let seen = Seen { source: "mdm".to_owned(), observed_at: at("2026-11-22T07:00:00Z"), expires_at: Some(at("2026-11-23T07:00:00Z")) };
    for (field, op, text) in changes {
        match field.strip_prefix("posture.") {
            Some(fact) => edit.fact(fact, text, Some("detail"), &seen).unwrap(),
            None => edit.assign(field, *op, text, &terms).unwrap(),
        }
    }
    edit
}

fn set(id: &str, changes: &[(&str, &str)]) -> Edit {
    edit(id, &changes.iter().map(|(field, text)| (*field, Op::Replace, *text)).collect::<Vec<_>>())
}

fn write(store: &mut Store, edits: &[Edit]) -> Result<Written, Error> {
    write_as(store, edits, Absent::Add)
}

fn write_as(store: &mut Store, edits: &[Edit], absent: Absent) -> Result<Written, Error> {
    store.write(edits, Writing { by: &By::new("ada").unwrap(), now: now(), voice: Voice::Person, absent })
}

fn counts(written: &Written) -> (usize, usize, usize) {
    (written.added, written.updated, written.unchanged)
}

#[test]
fn a_record_comes_back_whole() {
    let (mut store, other, _folder) = sqlite();
    let key = format!("spki_sha256:{};serial:X1;san:a@b", "ab".repeat(32));
    let fields = [
        ("name", "Ada's"),
        ("user", "ada"),
        ("team", "core"),
        ("tags", "x,y"),
        ("ownership", "corporate"),
        ("onnet", "true"),
        ("state", "approved"),
        ("os", "macos"),
        ("os_version", "15.1"),
        ("model", "MacBook"),
        ("keys", &key),
        ("posture.patched", "fail"),
        ("posture.disk_encrypted", "ok"),
    ];
    assert_eq!(counts(&write(&mut store, &[set("laptop-1", &fields)]).unwrap()), (1, 0, 0));
    let device = other.device("laptop-1").unwrap().unwrap();
    assert_eq!((device.name.as_deref(), device.ownership, device.onnet), (Some("Ada's"), Some(Ownership::Corporate), Some(true)));
    assert_eq!((device.tags.len(), device.keys.len(), device.posture.len(), device.seq), (2, 3, 2, 1));
    assert_eq!((device.state, device.state_changed.by.as_str(), device.created_at), (DeviceState::Approved, "ada", now()));
    let seen = &device.fact("patched").unwrap().observations[0];
    assert_eq!((seen.ok, seen.value.as_deref(), seen.expires_at), (false, Some("detail"), Some(at("2026-11-23T07:00:00Z"))));
    assert_eq!(other.by_key(KeyKind::SpkiSha256, &"ab".repeat(32)).unwrap().as_ref(), Some(&device));
    assert_eq!(other.by_key(KeyKind::Serial, "X1").unwrap(), Some(device));
    assert_eq!(other.by_key(KeyKind::San, "X1").unwrap(), None);
    assert_eq!(other.device("laptop-2").unwrap(), None);
}

#[test]
fn what_is_the_same_is_no_change() {
    let (mut store, _, _folder) = sqlite();
    let same = [set("a", &[("user", "ada"), ("posture.patched", "ok"), ("keys", "serial:1")])];
    write(&mut store, &same).unwrap();
    assert_eq!(counts(&write(&mut store, &same).unwrap()), (0, 0, 1));
    assert_eq!(store.head().unwrap().seq, 1);
}

#[test]
fn each_change_is_one_step_of_seq_and_one_row_of_the_trail() {
    let (mut store, other, _folder) = sqlite();
    write(&mut store, &[set("a", &[("keys", "serial:1")]), set("b", &[])]).unwrap();
    write(&mut store, &[set("a", &[("keys", "serial:2")])]).unwrap();
    let (head, changes) = other.changes(1, 10).unwrap();
    assert_eq!((head.seq, changes.len()), (3, 2));
    let last = &changes[1];
    assert_eq!((last.seq, last.by.as_str(), last.device.as_str(), last.at), (3, "ada", "a", now()));
    let keys = |json: &Option<String>| keys_in(json.as_deref().unwrap());
    assert_eq!(keys(&last.before), [("serial".to_owned(), "1".to_owned())]);
    assert_eq!(keys(&last.after), [("serial".to_owned(), "2".to_owned())]);
    assert_eq!(changes[0].before, None);
    assert_eq!(other.changes(0, 1).unwrap().1.len(), 1);
    assert_eq!(other.device("a").unwrap().unwrap().seq, 3);
}

#[test]
fn a_key_belongs_to_one_device() {
    let (mut store, _, _folder) = sqlite();
    write(&mut store, &[set("a", &[("keys", "serial:1")])]).unwrap();
    let error = write(&mut store, &[set("c", &[]), set("b", &[("keys", "serial:2;serial:1")])]).unwrap_err();
    assert_eq!(error.to_string(), "device `b`: the key serial:1 belongs to device `a`; take it from there first");
    assert!(matches!(&error, Error::KeysTaken { taken } if taken[0].edit == 1));
    assert_eq!((store.device("b").unwrap(), store.device("c").unwrap(), store.head().unwrap().seq), (None, None, 1), "nothing half done");
    let error = write(&mut store, &[set("x", &[("keys", "serial:9")]), set("y", &[("keys", "serial:9")])]).unwrap_err();
    assert!(matches!(error, Error::KeysTaken { .. }));
}

#[test]
fn a_key_moves_within_one_write() {
    let (mut store, _, _folder) = sqlite();
    write(&mut store, &[set("a", &[("keys", "serial:1")]), set("b", &[("keys", "serial:2")])]).unwrap();
    write(&mut store, &[set("a", &[("keys", "serial:2")]), set("b", &[("keys", "serial:1")])]).unwrap();
    assert_eq!(store.by_key(KeyKind::Serial, "1").unwrap().unwrap().id, "b");
    assert_eq!(store.by_key(KeyKind::Serial, "2").unwrap().unwrap().id, "a");
}

#[test]
fn several_edits_of_one_device_add_up() {
    let (mut store, _, _folder) = sqlite();
    let edits = [set("a", &[("tags", "x")]), edit("a", &[("tags", Op::Add, "y")]), set("a", &[("user", "ada")])];
    assert_eq!(counts(&write(&mut store, &edits).unwrap()), (1, 0, 0));
    let device = store.device("a").unwrap().unwrap();
    assert_eq!((device.tags.len(), device.user.as_deref(), device.seq), (2, Some("ada"), 1));
}

#[test]
fn an_unknown_device_is_refused_with_the_nearest() {
    let (mut store, _, _folder) = sqlite();
    write(&mut store, &[set("laptop-17", &[])]).unwrap();
    let error = write_as(&mut store, &[set("laptop-17", &[("user", "ada")]), set("labtop-17", &[])], Absent::Refuse).unwrap_err();
    assert_eq!(error.to_string(), "no device `labtop-17`; did you mean `laptop-17`?");
    assert_eq!(store.device("laptop-17").unwrap().unwrap().user, None, "all or nothing");
}

#[test]
fn list_holds_what_matches_every_filter() {
    let (mut store, _, _folder) = sqlite();
    let edits = [
        set("b", &[("user", "ada"), ("state", "approved"), ("tags", "x,y")]),
        set("a", &[("user", "ada"), ("os", "ios"), ("ownership", "personal"), ("team", "core")]),
        set("c", &[("user", "bob"), ("tags", "xy")]),
    ];
    write(&mut store, &edits).unwrap();
    let ids = |filter: Filter| store.list(&filter).unwrap().into_iter().map(|d| d.id).collect::<Vec<_>>().join("");
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(ids(Filter::default()), "abc");
    assert_eq!(ids(Filter { user: text("ada"), ..Filter::default() }), "ab");
    assert_eq!(ids(Filter { user: text("ada"), state: Some(DeviceState::Approved), ..Filter::default() }), "b");
    assert_eq!(ids(Filter { tag: text("x"), ..Filter::default() }), "b");
    assert_eq!(ids(Filter { os: text("ios"), ..Filter::default() }), "a");
    assert_eq!(ids(Filter { team: text("core"), ..Filter::default() }), "a");
    assert_eq!(ids(Filter { ownership: Some(Ownership::Corporate), ..Filter::default() }), "");
}

#[test]
fn the_newest_observation_of_a_source() {
    let (mut store, _, _folder) = sqlite();
    assert_eq!(store.newest("mdm").unwrap(), None);
    write(&mut store, &[set("a", &[("posture.patched", "ok")])]).unwrap();
    assert_eq!(store.newest("mdm").unwrap(), Some(at("2026-11-22T07:00:00Z")));
    assert_eq!(store.newest("edr").unwrap(), None);
}

#[test]
fn the_version_tells_of_others_commits() {
    let (mut store, other, _folder) = sqlite();
    let before = other.version().unwrap();
    assert_eq!(other.version().unwrap(), before);
    write(&mut store, &[set("a", &[])]).unwrap();
    assert_ne!(other.version().unwrap(), before);
}
