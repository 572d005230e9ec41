//! `vestibule devices` as people and scripts use it: separate processes on one store file.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vestibule::config;
use vestibule::model::{DeviceState, NoRecord, Proof, Standing};
use vestibule::posture::Posture;

const URL: &str = "sqlite://data/devices.db";

fn devices(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vestibule"));
    command.current_dir(folder).args(["devices", "--store", URL, "--by", "ada"]).args(args).output().unwrap()
}

fn done(folder: &Path, args: &[&str]) -> String {
    let output = devices(folder, args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Standard error of a command that exits with 1 and prints no result.
fn refused(folder: &Path, args: &[&str]) -> String {
    let output = devices(folder, args);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), b"".as_slice()), "{args:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_device_from_its_first_day_to_its_last() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    assert_eq!(refused(folder, &["list"]), "device store data/devices.db: there is no such file\n");
    assert!(refused(folder, &["set", "laptop-1", "user=ada"]).contains("there is no such file"));
    assert_eq!(
        done(folder, &["set", "laptop-1", "--create", "name=Ada's laptop", "state=approved", "posture.patched=ok"]),
        "laptop-1: added\n"
    );
    assert_eq!(
        done(folder, &["set", "laptop-1", "tags+=loan", "os=macos", "os_version=15.1", "ownership=corporate"]),
        "laptop-1: updated\n"
    );
    assert_eq!(done(folder, &["set", "laptop-1", "tags=loan"]), "laptop-1: unchanged\n");
    assert_eq!(
        refused(folder, &["set", "labtop-1", "user=x"]),
        "no device `labtop-1`; did you mean `laptop-1`? (a new device is added when it gets a key, or with --create)\n"
    );

    let table = done(folder, &["list"]);
    let (head, row) = table.split_once('\n').unwrap();
    assert_eq!(head, "ID        NAME          USER  OWNERSHIP  STATE     OS          POSTURE  OBSERVED");
    assert!(row.starts_with("laptop-1  Ada's laptop  -     corporate  approved  macos 15.1  1 ok     "), "{row}");
    assert_eq!(done(folder, &["list", "--state", "lost"]), "no devices\n");
    let shown = done(folder, &["show", "laptop-1"]);
    assert!(shown.contains("state      approved, set by ada ") && shown.contains("\npatched  ok     manual  "), "{shown}");

    assert_eq!(done(folder, &["revoke", "laptop-1"]), "laptop-1: suspended\n");
    assert_eq!(done(folder, &["revoke", "laptop-1", "--lost"]), "laptop-1: lost\n");
    assert_eq!(done(folder, &["revoke", "laptop-1", "--lost"]), "laptop-1: lost already\n");
    assert_eq!(refused(folder, &["revoke", "laptop-2", "--retired"]), "no device `laptop-2`; did you mean `laptop-1`?\n");
    assert!(refused(folder, &["show", "laptop-2"]).starts_with("no device `laptop-2`"));
}

#[test]
fn set_names_every_mistake_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    done(folder, &["set", "a", "--create", "keys=serial:1"]);
    let before = done(folder, &["show", "a", "--format", "json"]);
    let text = refused(
        folder,
        &[
            "set",
            "a",
            "user=ada",
            "state=aproved",
            "nam=x",
            "name",
            "posture.x=maybe",
            "posture.y.value=1",
            "source+=x",
            "observed_at=now",
            "expires_at=2020-01-01T00:00:00Z",
        ],
    );
    let lines: Vec<&str> = text.lines().collect();
    let expected = [
        "state: found `aproved`, expected pending, approved, suspended, lost or retired; did you mean `approved`?",
        "found `nam`, expected a field of a device record; did you mean `name`?",
        "set: found `name`, expected FIELD=VALUE",
        "source: found `+=`, expected `=`; only tags and keys are lists",
        "observed_at: found `now`, expected a time with its offset, for example 2026-11-22T07:30:00Z",
        "expires_at: found `2020-01-01T00:00:00Z`, expected a time after observed_at",
        "posture.x: found `maybe`, expected ok, fail or nothing",
        "posture.y.value: found `1`, expected posture.y=ok or fail beside it",
    ];
    assert_eq!(lines, expected);
    assert_eq!(
        refused(folder, &["set", "b", "--create", "keys+=serial:1"]),
        "device `b`: the key serial:1 belongs to device `a`; take it from there first\n"
    );
    assert_eq!(done(folder, &["show", "a", "--format", "json"]), before);
    assert!(refused(folder, &["show", "b"]).starts_with("no device"));
}

#[test]
fn a_certificate_file_gives_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let signed = rcgen::generate_simple_self_signed(vec!["device".to_owned()]).unwrap();
    fs::create_dir(folder.join("certs")).unwrap();
    fs::write(folder.join("certs/device.pem"), signed.cert.pem()).unwrap();
    done(folder, &["set", "a", "--create", "keys+=cert:certs/device.pem"]);
    let expected = vestibule::identify::spki_sha256(signed.cert.der()).unwrap();
    assert!(done(folder, &["show", "a"]).contains(&format!("spki_sha256:{expected}")));
    done(folder, &["set", "a", "keys-=cert:certs/device.pem"]);
    assert!(!done(folder, &["show", "a"]).contains("spki_sha256"));
    // In a file the path begins where the file lies.
    fs::write(folder.join("certs/fleet.csv"), "id,keys\nb,cert:device.pem\n").unwrap();
    assert_eq!(done(folder, &["import", "certs/fleet.csv"]), "added 1, updated 0, unchanged 0\n");
    assert!(refused(folder, &["set", "a", "keys+=cert:none.pem"]).contains("none.pem cannot be read"));
}

#[test]
fn list_and_import_fit_together() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("fleet.csv"), "id,user,state,source,posture.patched\na,ada,approved,mdm,ok\nb,bob,,,\n").unwrap();
    assert_eq!(done(folder, &["import", "fleet.csv"]), "added 2, updated 0, unchanged 0\n");
    for (name, format) in [("out.csv", "csv"), ("out.json", "json")] {
        fs::write(folder.join(name), done(folder, &["list", "--format", format])).unwrap();
        assert_eq!(done(folder, &["import", name]), "added 0, updated 0, unchanged 2\n");
    }
    done(folder, &["revoke", "a", "--lost"]);
    let text = done(folder, &["import", "out.csv"]);
    assert_eq!(text, "added 0, updated 0, unchanged 2\nstay revoked: a (`devices set ID state=approved` brings one back)\n");

    fs::write(folder.join("bad.csv"), "id,user\nc,x\nd e,y\n").unwrap();
    let text = refused(folder, &["import", "bad.csv"]);
    assert!(text.starts_with("bad.csv:3: id: found `d e`") && text.ends_with("1 mistake; nothing was imported\n"), "{text}");
    assert!(refused(folder, &["show", "c"]).starts_with("no device `c`"));
    assert_eq!(refused(folder, &["import", "bad.txt"]), "bad.txt: what format? Give --format csv or --format json\n");
    assert!(refused(folder, &["import", "none.csv"]).starts_with("none.csv: No such file"));
}

#[test]
fn import_reads_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_vestibule"));
    let command = command.current_dir(folder.path()).args(["devices", "--store", URL, "import", "-", "--format", "json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"{\"id\": \"a\"}\n{\"id\": \"b\"}\n").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"added 2, updated 0, unchanged 0\n");
}

#[test]
fn usage_is_another_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_vestibule")).current_dir(folder.path()).arg("devices").args(args).output().unwrap()
    };
    assert_eq!(run(&["list"]).status.code(), Some(2), "which store?");
    assert_eq!(run(&["--store", URL]).status.code(), Some(2), "no command");
    assert_eq!(run(&["--store", URL, "-c", "x.yaml", "list"]).status.code(), Some(2));
    assert_eq!(run(&["--store", URL, "list", "--state", "gone"]).status.code(), Some(2));
    assert_eq!(run(&["--store", "redis://x", "list"]).status.code(), Some(1));
}

#[tokio::test]
async fn a_running_proxy_hears_of_a_change_within_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let cache = config::Cache { entries: 100, ttl: Duration::from_secs(60), negative_ttl: Duration::from_secs(60) };
    let store = config::Store {
        path: folder.join("data/devices.db"),
        lookup_timeout: Duration::from_secs(5),
        cache,
        serve_stale: Duration::from_secs(900),
    };
    let posture = Posture::open(&store, Vec::new()).unwrap();
    let spki: Arc<str> = "ab".repeat(32).into();
    let proof = Proof::Certificate { spki_sha256: Arc::clone(&spki), not_after: 0 };
    assert!(matches!(posture.standing(&proof).await.standing, Standing::NoRecord(NoRecord::UnknownCertificate)));

    done(folder, &["set", "laptop-1", "--create", "state=approved", &format!("keys=spki_sha256:{spki}")]);
    state_within_a_second(&posture, &proof, DeviceState::Approved).await;
    done(folder, &["revoke", "laptop-1", "--lost"]);
    state_within_a_second(&posture, &proof, DeviceState::Lost).await;
}

async fn state_within_a_second(posture: &Posture, proof: &Proof, wanted: DeviceState) {
    let acknowledged = Instant::now();
    while posture.standing(proof).await.standing.device().map(|device| device.state) != Some(wanted) {
        assert!(acknowledged.elapsed() < Duration::from_secs(1), "not {wanted:?} within a second");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Each change that `set` reported is there after the next one was killed at any moment.
#[test]
fn a_kill_loses_no_acknowledged_change() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for n in 0..10_u64 {
        done(folder, &["set", &format!("device-{n}"), "--create", "user=ada"]);
        let mut command = Command::new(env!("CARGO_BIN_EXE_vestibule"));
        let mut killed = command
            .current_dir(folder)
            .args(["devices", "--store", URL, "set", "victim", "--create", &format!("user=u{n}")])
            .spawn()
            .unwrap();
        // Another moment of its life each time; the test holds whichever it is.
        std::thread::sleep(Duration::from_millis(n * 2));
        killed.kill().unwrap();
        killed.wait().unwrap();
    }
    let list = done(folder, &["list", "--user", "ada"]);
    assert_eq!(list.lines().count(), 11, "{list}");
}
