//! The device store, locked and corrupt.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use rusqlite::Connection;

use super::support::{Lab, Origin, Reply, Run, eventually};
use super::{FIT, config, gauge, get};

#[test]
fn a_store_that_another_process_holds_keeps_nobody_waiting() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin);
    lab.configure(&config);
    let (first, second) = (lab.device("first", FIT), lab.device("second", FIT));
    let proxy = lab.start(&config);
    let holder = Connection::open(lab.path("vestibule.db")).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    // Readers go on, and nobody waits for what is to be written.
    for device in [&first, &second, &first] {
        assert_eq!(get(&proxy, &lab, device).status, 200);
    }
    assert_eq!(gauge(&proxy, "vestibule_store_up"), 1.0);
    // Who changes something is told that it is not changed.
    let set = |user: &str| lab.vestibule(&["devices", "-c", "vestibule.yaml", "set", "first", &format!("user={user}")]);
    set("grace").failed_with(&["vestibule.db", "lock"]);
    holder.execute_batch("ROLLBACK").unwrap();
    set("bob").succeeded();
    let shown = lab.vestibule(&["devices", "-c", "vestibule.yaml", "show", "first"]).succeeded();
    assert!(shown.stdout.contains("bob") && !shown.stdout.contains("grace"), "{}", shown.stdout);
    // What was seen meanwhile is written now.
    eventually("the stacks of both are in the store", || (seen(&lab, "first") && seen(&lab, "second")).then_some(()));
}

fn seen(lab: &Lab, device: &str) -> bool {
    lab.vestibule(&["devices", "-c", "vestibule.yaml", "show", device]).succeeded().stdout.contains("STACK")
}

#[test]
fn a_store_that_is_held_at_the_start_is_an_error_that_names_it() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin);
    lab.configure(&config);
    let laptop = lab.device("laptop", FIT);
    let holder = Connection::open(lab.path("vestibule.db")).unwrap();
    holder.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT; BEGIN EXCLUSIVE").unwrap();
    lab.vestibule(&["run", "-c", "vestibule.yaml"]).failed_with(&["vestibule.db", "lock"]);
    drop(holder);
    let proxy = lab.start(&config);
    assert_eq!(get(&proxy, &lab, &laptop).status, 200);
}

/// Overwrites all of the store but its first page, in place: the process has the file open.
fn overwrite(lab: &Lab) {
    let path = lab.path("vestibule.db");
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    file.write_all_at(&vec![0xa5; usize::try_from(length - 4096).unwrap()], 4096).unwrap();
    file.sync_all().unwrap();
}

/// Everything is in the file itself, nothing in its log.
fn settle(lab: &Lab) {
    eventually("the store's log is empty", || settled(lab).then_some(()));
}

fn settled(lab: &Lab) -> bool {
    let store = Connection::open(lab.path("vestibule.db")).unwrap();
    store.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).map(|left: i64| left == 0).unwrap()
}

#[test]
fn a_store_that_is_overwritten_is_seen_and_one_that_is_put_back_is_taken() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    // The record is due for another look at once, so that the store is really asked.
    let config = config(&origin).set("store", r#"{url: "sqlite://vestibule.db", cache: {ttl: 10ms, negative_ttl: 10ms}}"#);
    lab.configure(&config);
    let (known, other) = (lab.device("known", FIT), lab.device("other", FIT));
    settle(&lab);
    let kept = fs::read(lab.path("vestibule.db")).unwrap();
    let proxy = lab.start(&config);
    assert_eq!(get(&proxy, &lab, &known).status, 200);
    // Held, but not while it reads or writes, so that it sees both at once: the first alone is a change by hand.
    eventually("the store's log is empty", || {
        proxy.signal(libc::SIGSTOP);
        if settled(&lab) {
            return Some(());
        }
        proxy.signal(libc::SIGCONT);
        None
    });
    overwrite(&lab);
    proxy.signal(libc::SIGCONT);
    eventually("the store is down", || {
        assert_eq!(get(&proxy, &lab, &known).status, 200, "who is known keeps what is known");
        (gauge(&proxy, "vestibule_store_up") == 0.0).then_some(())
    });
    let refused = get(&proxy, &lab, &other);
    assert_eq!((refused.status, refused.json()["reasons"][0].as_str()), (503, Some("store.unavailable")));
    assert!(gauge(&proxy, "vestibule_store_lag_seconds") > 0.0);
    // A copy in its place is enough.
    for beside in ["vestibule.db-wal", "vestibule.db-shm"] {
        let _ = fs::remove_file(lab.path(beside));
    }
    fs::write(lab.path("kept"), &kept).unwrap();
    fs::rename(lab.path("kept"), lab.path("vestibule.db")).unwrap();
    proxy.metric_reaches("vestibule_store_up", &[], 1.0);
    eventually("the other device is known again", || (get(&proxy, &lab, &other).status == 200).then_some(()));
    assert_eq!(proxy.admin_get("/livez").0, 200);
}

#[test]
fn a_store_that_is_overwritten_is_refused_at_the_start() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    lab.configure(&config(&origin));
    lab.device("laptop", FIT);
    settle(&lab);
    overwrite(&lab);
    let Run { code, stderr, .. } = lab.vestibule(&["run", "-c", "vestibule.yaml"]);
    assert!(code == Some(1) && stderr.contains("vestibule.db") && !stderr.contains("panicked"), "{code:?} {stderr}");
}
