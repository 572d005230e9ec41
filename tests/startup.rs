//! `vestibule run` on what cannot be served: it says which file and where, ends with 1, and leaves everything as it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::{Config, Lab, Origin, Reply, Run, eventually, program};
use vestibule::cli::lab_ca::{LabCa, Validity};

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Path and content of every file below a folder; folders too.
fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            all.extend(content(&entry.path()).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
            all.insert(format!("{name}/"), Vec::new());
        } else {
            all.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    all
}

/// Runs the proxy, which must refuse to: exit 1, no address announced, all of `words` said, no panic, and no file made, changed or removed.
#[track_caller]
fn refuses(lab: &Lab, what: &str, words: &[&str]) {
    let before = content(lab.dir());
    let out = tempfile::tempdir().unwrap();
    let (stdout, stderr) = (out.path().join("stdout"), out.path().join("stderr"));
    let child = Command::new(env!("CARGO_BIN_EXE_vestibule"))
        .args(["run", "-c", "vestibule.yaml"])
        .current_dir(lab.dir())
        .stdin(Stdio::null())
        .stdout(fs::File::create(&stdout).unwrap())
        .stderr(fs::File::create(&stderr).unwrap())
        .spawn()
        .unwrap();
    let mut child = Ended(child);
    let status = eventually(&format!("{what}: the proxy ends"), || {
        let started = fs::read_to_string(&stdout).unwrap().contains("ready");
        assert!(!started, "{what}: it started");
        child.0.try_wait().unwrap()
    });
    let read = |path: &Path| String::from_utf8(fs::read(path).unwrap()).unwrap();
    let run = Run { code: status.code(), stdout: read(&stdout), stderr: read(&stderr) };
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{what}: {}", run.stderr);
    assert!(!run.stderr.contains("panicked"), "{what}: {}", run.stderr);
    for word in words {
        assert!(run.stderr.contains(word), "{what}: `{word}` is not in: {}", run.stderr);
    }
    let after = content(lab.dir());
    // What SQLite keeps beside a store that somebody has opened is not ours.
    let ours = |name: &String| !name.ends_with(".db-wal") && !name.ends_with(".db-shm");
    let changed: Vec<&String> =
        after.iter().filter(|(name, bytes)| ours(name) && before.get(*name) != Some(bytes)).map(|(name, _)| name).collect();
    let gone: Vec<&String> = before.keys().filter(|name| ours(name) && !after.contains_key(*name)).collect();
    assert!(changed.is_empty() && gone.is_empty(), "{what}: made or changed {changed:?}, removed {gone:?}");
}

fn config() -> Config {
    Config::new(&Origin::answering(Reply::text("")))
}

#[test]
fn configurations() {
    let lab = Lab::new();
    refuses(&lab, "no file", &["vestibule.yaml", "No such file"]);
    fs::create_dir(lab.path("vestibule.yaml")).unwrap();
    refuses(&lab, "a folder", &["vestibule.yaml", "not a regular file"]);
    fs::remove_dir(lab.path("vestibule.yaml")).unwrap();
    for (what, bytes, words) in [
        ("empty", &b""[..], &["vestibule.yaml:1:1: error"][..]),
        ("no YAML", b"version: [1\napps: {", &["vestibule.yaml:2:", "error"]),
        ("a list", b"- version: 1\n", &["vestibule.yaml:1:1: error"]),
        ("binary", b"\x7fELF\x02\x01\x01\0\0\0\0\0\xff\xfe", &["vestibule.yaml:1:", "error"]),
        ("cut", &config().yaml().as_bytes()[..700], &["vestibule.yaml:", "error"]),
    ] {
        fs::write(lab.path("vestibule.yaml"), bytes).unwrap();
        refuses(&lab, what, words);
    }
    let twice = "\n  - {name: a, owner: knowledge, hosts: [wiki.localhost], upstream: {servers: [\"http://127.0.0.1:1\"]}, rules: [{name: r, then: block}]}\
                 \n  - {name: b, owner: knowledge, hosts: [WIKI.localhost], upstream: {servers: [\"http://127.0.0.1:1\"]}, rules: [{name: r, then: block}]}";
    for (what, config, words) in [
        ("two apps at one place", config().set("apps", twice), &["apps[1].hosts[0]", "`WIKI.localhost`", "first: vestibule.yaml:"][..]),
        (
            "a redirect that speaks TLS",
            config().replace("- name: edge", "- name: edge\n    redirect_to_https: true"),
            &["listeners[0]", "redirect_to_https", "tls"],
        ),
        (
            "one address twice",
            config().replace("[\"127.0.0.1:0\"]\n    tls", "[\"127.0.0.1:7\", \"127.0.0.1:7\"]\n    tls"),
            &["127.0.0.1:7"],
        ),
        ("a rule that restricts by nothing", config().replace(", with: [read-only, private]", ""), &["apps[0].rules[1]", "with"]),
        ("a missing owner", config().replace("owner: knowledge", "owner: knowlege"), &["apps[0].owner", "did you mean `knowledge`?"]),
        ("what comes later", config().set("upgrade", "{}"), &["vestibule.yaml:", "unknown key `upgrade`"]),
        ("admin for everybody", config().set("admin", "{bind: \"0.0.0.0:0\"}"), &["admin.bind", "loopback"]),
        ("a store of another kind", config().set("store", "{url: \"postgres://user@host/db\"}"), &["store.url", "sqlite://"]),
        ("a folder of policies that is not there", config().set("policy_dir", "none.d"), &["policy_dir", "none.d"]),
    ] {
        lab.configure(&config);
        refuses(&lab, what, &[&["vestibule.yaml:", ": error: "], words].concat());
    }
}

/// A PEM file without its last line but one: what a full disk leaves.
fn cut(pem: &str) -> String {
    let lines: Vec<&str> = pem.lines().collect();
    lines[..lines.len() / 2].join("\n")
}

#[test]
fn certificates_and_keys() {
    let lab = Lab::new();
    lab.configure(&config());
    let other = LabCa::create(&lab.path("other"), &["other.example".to_owned()], false).unwrap();
    let device = lab.ca.issue("laptop", Validity::days(1), false).unwrap();
    let text = |name: &str| fs::read_to_string(lab.path(name)).unwrap();
    let (cert, key, ca, crl) = (text("certs/edge.pem"), text("certs/edge.key"), text("certs/device-ca.pem"), text("certs/device-crl.pem"));
    let garbage = "-----BEGIN CERTIFICATE-----\naGVsbG8gd29ybGQ=\n-----END CERTIFICATE-----\n";
    let openssl =
        |args: &str| Run::from(program("openssl").args(args.split_whitespace()).current_dir(lab.dir()).output().unwrap()).succeeded();
    openssl("pkey -in certs/edge.key -aes256 -passout pass:secret -out encrypted.key");
    let encrypted = text("encrypted.key");
    let other_key = text("other/edge.key");
    let other_crl = text("other/device-crl.pem");
    let leaf = fs::read_to_string(&device.cert).unwrap();
    drop(other);
    let cut_crl = cut(&crl);
    let (cut_cert, cut_key) = (cut(&cert), cut(&key));
    for (what, file, bytes, words) in [
        ("an empty certificate", "certs/edge.pem", "", &["edge.pem"][..]),
        ("a text for a certificate", "certs/edge.pem", "hello\n", &["edge.pem", "PEM"]),
        ("a cut certificate", "certs/edge.pem", &cut_cert, &["edge.pem", "PEM"]),
        ("a certificate of noise", "certs/edge.pem", garbage, &["edge.pem", "certificate"]),
        ("a key for a certificate", "certs/edge.pem", &key, &["edge.pem", "certificate"]),
        ("a CRL for a certificate", "certs/edge.pem", &crl, &["edge.pem", "certificate"]),
        ("an empty key", "certs/edge.key", "", &["edge.key", "private key"]),
        ("a cut key", "certs/edge.key", &cut_key, &["edge.key", "private key"]),
        ("a certificate for a key", "certs/edge.key", &cert, &["edge.key", "private key"]),
        ("a key behind a password", "certs/edge.key", &encrypted, &["edge.key", "password"]),
        (
            "a key of another certificate",
            "certs/edge.key",
            &other_key,
            &["vestibule.yaml:", "edge.key: the key is of another certificate", "edge.pem"],
        ),
        ("an empty CA", "certs/device-ca.pem", "", &["device-ca.pem"]),
        ("a CA of noise", "certs/device-ca.pem", garbage, &["device-ca.pem"]),
        ("a CA that is a device", "certs/device-ca.pem", &leaf, &["device-ca.pem"]),
        ("an empty CRL", "certs/device-crl.pem", "", &["device-crl.pem"]),
        ("a cut CRL", "certs/device-crl.pem", &cut_crl, &["device-crl.pem"]),
        ("a certificate for a CRL", "certs/device-crl.pem", &ca, &["device-crl.pem"]),
        ("a CRL of another CA", "certs/device-crl.pem", &other_crl, &["device-crl.pem"]),
    ] {
        let kept = text(file);
        lab.write(file, bytes);
        refuses(&lab, what, &[&["certs/"], words].concat());
        lab.write(file, &kept);
    }
    for file in ["certs/edge.pem", "certs/edge.key", "certs/device-ca.pem", "certs/device-crl.pem"] {
        let kept = text(file);
        fs::remove_file(lab.path(file)).unwrap();
        let place = format!("/{file}: cannot read: No such file");
        refuses(&lab, "a missing file", &["vestibule.yaml:", &place]);
        fs::create_dir(lab.path(file)).unwrap();
        refuses(&lab, "a folder", &[file, "not a regular file"]);
        fs::remove_dir(lab.path(file)).unwrap();
        lab.write(file, &kept);
    }
}

#[test]
fn stores_and_logs() {
    let lab = Lab::new();
    let good = config();
    lab.configure(&good);
    let python = |script: &str| {
        Run::from(program("python3").args(["-c", script]).current_dir(lab.dir()).output().unwrap()).succeeded();
    };
    lab.write(
        "vestibule.db",
        "this is no database, though it is long enough to be taken for one by a careless reader of its first hundred bytes ......",
    );
    refuses(&lab, "a text for a store", &["vestibule.db"]);
    fs::remove_file(lab.path("vestibule.db")).unwrap();
    python("import sqlite3; c = sqlite3.connect('vestibule.db'); c.execute('create table songs (title)'); c.commit()");
    refuses(&lab, "another program's database", &["vestibule.db"]);
    fs::remove_file(lab.path("vestibule.db")).unwrap();
    fs::create_dir(lab.path("vestibule.db")).unwrap();
    refuses(&lab, "a folder for a store", &["vestibule.db"]);
    fs::remove_dir(lab.path("vestibule.db")).unwrap();

    // One of ours that lost its second half.
    for n in 0..3 {
        lab.vestibule(&[
            "devices",
            "-c",
            "vestibule.yaml",
            "set",
            &format!("device-{n}"),
            "--create",
            &format!("user={}", "x".repeat(200)),
        ])
        .succeeded();
    }
    python("import sqlite3; c = sqlite3.connect('vestibule.db'); c.execute('pragma journal_mode=delete'); c.close()");
    let whole = fs::read(lab.path("vestibule.db")).unwrap();
    fs::write(lab.path("vestibule.db"), &whole[..whole.len() / 2 / 4096 * 4096]).unwrap();
    refuses(&lab, "half a store", &["vestibule.db"]);
    fs::remove_file(lab.path("vestibule.db")).unwrap();
    // And one of a later version of this program.
    fs::write(lab.path("vestibule.db"), &whole).unwrap();
    python("import sqlite3; c = sqlite3.connect('vestibule.db'); c.execute('pragma user_version=9999'); c.commit(); c.close()");
    refuses(&lab, "a store of a later version", &["vestibule.db", "9999"]);
    fs::remove_file(lab.path("vestibule.db")).unwrap();

    lab.vestibule(&["devices", "-c", "vestibule.yaml", "set", "a", "--create", "user=ada"]).succeeded();
    lab.configure(&good.clone().set("store", "{url: \"sqlite://certs/edge.pem/devices.db\"}"));
    refuses(&lab, "a store below a file", &["certs/edge.pem/devices.db"]);
    fs::create_dir(lab.path("log")).unwrap();
    lab.configure(&good.clone().set("decision_log", "{path: log}"));
    refuses(&lab, "a folder for a decision log", &["/log", "directory"]);
    lab.configure(&good.clone().set("decision_log", "{path: certs/edge.pem/log}"));
    refuses(&lab, "a log below a file", &["certs/edge.pem/log"]);
}

#[test]
fn ports_in_use() {
    let lab = Lab::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    lab.configure(&config().replace("- name: plain\n    bind: [\"127.0.0.1:0\"]", &format!("- name: plain\n    bind: [\"{address}\"]")));
    refuses(&lab, "a listener's port", &["listener `plain`", &address, "in use"]);
    lab.configure(&config().set("admin", &format!("{{bind: \"{address}\"}}")));
    refuses(&lab, "admin's port", &["admin", &address, "in use"]);
    lab.configure(&config().replace("- name: plain\n    bind: [\"127.0.0.1:0\"]", "- name: plain\n    bind: [\"192.0.2.1:0\"]"));
    refuses(&lab, "an address that this machine does not have", &["listener `plain`", "192.0.2.1:0"]);
}
