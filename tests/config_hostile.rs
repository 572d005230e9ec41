//! Configurations that nobody means well: refused with a place, in bounded time and memory. Each is read by a process of its own that may take 2 GiB.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Generous: CI has two slow cores, and this is no optimised build.
const DEADLINE: Duration = Duration::from_secs(120);
/// Address space, in KiB.
const MOST_MEMORY: u64 = 2 << 20;

const MAIN: &str = "\
version: 1
listeners: [{name: edge, bind: ['127.0.0.1:0']}]
store: {url: 'sqlite://data.db'}
decision_log: {path: '-'}
owners: {it: {contact: it}}
classes: [{name: every, when: {}}]
tiers: [{name: none}]
apps:
  - {name: a, owner: it, hosts: [a.example], upstream: {servers: ['http://127.0.0.1:1']}, rules: [{name: rest, then: block}]}
policy_dir: policy.d
";

/// What `check` says of the file, and whether it is good.
fn check(folder: &Path) -> (String, bool) {
    let start = Instant::now();
    let limited = format!("ulimit -v {MOST_MEMORY}; exec \"$0\" check -c v.yaml");
    let output = Command::new("sh").args(["-c", &limited, env!("CARGO_BIN_EXE_vestibule")]).current_dir(folder).output().unwrap();
    assert!(start.elapsed() < DEADLINE, "{:?}", start.elapsed());
    let said = [output.stdout, output.stderr].concat();
    assert!(said.len() < 1 << 20, "{} bytes of mistakes", said.len());
    let code = output.status.code();
    assert!(matches!(code, Some(0 | 1)), "{code:?}: {}", String::from_utf8_lossy(&said));
    (String::from_utf8(said).expect("text"), code == Some(0))
}

/// `check` of a main file alone.
fn refused(bytes: &[u8], place: &str, what: &str) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("v.yaml"), bytes).unwrap();
    let (said, good) = check(folder.path());
    let short: String = said.chars().take(2000).collect();
    assert!(!good && said.lines().any(|line| line.starts_with(place) && line.contains(what)), "{place} {what}: {short}");
}

#[test]
fn files_that_no_editor_writes_are_refused_with_a_place() {
    refused("[".repeat(1 << 20).as_bytes(), "v.yaml:1:", "");
    refused("{a: ".repeat(1 << 20).as_bytes(), "v.yaml:1:", "");
    refused("a:\n ".repeat(100_000).as_bytes(), "v.yaml:", "");
    refused(format!("{}x", "? ".repeat(1 << 20)).as_bytes(), "v.yaml:1:", "");
    refused(format!("version: 1\nowners: {}", "[x, ".repeat(40)).as_bytes(), "v.yaml:2:", "nested deeper than 32 levels");
    refused(format!("a: [{}]", "1,".repeat(1 << 20)).as_bytes(), "v.yaml:1:", "more than 200000 values");
    refused(format!("a: {}", "x".repeat(15 << 20)).as_bytes(), "v.yaml:1:", "unknown key `a`");
    refused("'".repeat(15 << 20).as_bytes(), "v.yaml:1:", "");
    refused("\u{feff}version: 2\n".as_bytes(), "v.yaml:1:10: ", "expected `1`");
    refused(b"version: 1\nowners: {it: {contact: \xe9}}\n", "v.yaml:2:24: ", "not UTF-8: the byte 0xe9");
    refused(b"version: 1\nowners: \0\n", "v.yaml:2:", "");
    refused(b"\0\0\0v", "v.yaml:1:1: ", "UTF-16 or UTF-32");
    refused(b"version: 1\n\tstore: x\n", "v.yaml:1:10: ", "found a tab; YAML wants spaces");
    refused(b"version: &a [*a]\n", "v.yaml:1:", "alias");
    refused(b"version: *b\n", "v.yaml:1:", "");
    refused(b"version: 1\nversion: 1\n", "v.yaml:2:1: ", "the key `version` stands twice");
}

#[test]
fn anchors_that_multiply_are_refused() {
    let mut text = "a0: &a0 {x: x}\n".to_owned();
    for level in 1..30 {
        let _ = writeln!(text, "a{level}: &a{level} {{x: *a{0}, y: *a{0}}}", level - 1);
    }
    refused(text.as_bytes(), "v.yaml:", "");
    let mut text = format!("a0: &a0 [{}]\n", ["x"; 100].join(","));
    for level in 1..9 {
        let _ = writeln!(text, "a{level}: &a{level} [{}]", vec![format!("*a{}", level - 1); 100].join(","));
    }
    refused(text.as_bytes(), "v.yaml:", "200000 values");
}

#[test]
fn huge_and_odd_files_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("policy.d")).unwrap();
    std::fs::write(path("v.yaml"), MAIN).unwrap();
    // 100 GB that take no room.
    for name in ["one", "two"] {
        std::fs::File::create(path(&format!("policy.d/{name}.yaml"))).unwrap().set_len(100 << 30).unwrap();
    }
    let made = Command::new("mkfifo").arg(path("policy.d/pipe.yaml")).status().unwrap();
    assert!(made.success());
    std::os::unix::fs::symlink("loop.yaml", path("policy.d/loop.yaml")).unwrap();
    let (said, good) = check(folder.path());
    assert!(!good);
    for what in [
        "policy.d/one.yaml: larger than 16 MiB",
        "policy.d/two.yaml: larger",
        "policy.d/pipe.yaml: cannot read: not a regular",
        "policy.d/loop.yaml: cannot read",
    ] {
        assert!(said.lines().any(|line| line.starts_with("v.yaml:10:13: error: policy_dir: ") && line.contains(what)), "{what}: {said}");
    }
}

#[test]
fn many_files_are_bounded_by_their_number_and_their_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("policy.d")).unwrap();
    std::fs::write(path("v.yaml"), MAIN).unwrap();
    for n in 0..10_000 {
        let rule = format!("owner: it\nrules: [{{name: r{n}, when: {{http.path: /{n}}}, then: block}}]\n");
        std::fs::write(path(&format!("policy.d/{n}.yaml")), rule).unwrap();
    }
    let (said, good) = check(folder.path());
    assert!(good && said.contains("10001 rules"), "{said}");
    std::fs::write(path("policy.d/more.yaml"), "owner: it\n").unwrap();
    let (said, good) = check(folder.path());
    assert!(!good && said.contains("v.yaml:10:13: error: policy_dir: ") && said.contains("more than 10000 files"), "{said}");

    std::fs::remove_dir_all(path("policy.d")).unwrap();
    std::fs::create_dir(path("policy.d")).unwrap();
    // Each is small enough.
    let comments = format!("owner: it\n{}", "# nothing\n".repeat(1_600_000));
    for n in 0..10 {
        std::fs::write(path(&format!("policy.d/{n:02}.yaml")), &comments).unwrap();
    }
    let (said, good) = check(folder.path());
    assert!(!good && said.contains("its files come to more than 128 MiB"), "{said}");
}
