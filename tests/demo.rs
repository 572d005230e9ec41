//! `vestibule demo`, as a person runs it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where its world breaks")]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::{Run, eventually};

fn demo(temp: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vestibule"));
    command.arg("demo").args(args).env("TMPDIR", temp);
    command
}

/// Killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn once_makes_the_visits_and_the_counts_agree() {
    let temp = tempfile::tempdir().unwrap();
    let run = Run::from(demo(temp.path(), &["--once"]).output().unwrap()).succeeded();
    let rows: Vec<Vec<&str>> = run.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    let has = |row: &[&str]| assert!(rows.iter().any(|r| r.as_slice() == row), "{row:?} is not in:\n{}", run.stdout);
    has(&["laptop", "GET", "payroll", "corporate", "trusted", "forward", "rule.matched", "200"]);
    has(&["nodisk", "GET", "payroll", "corporate", "healthy", "block", "posture.disk_encrypted.fail", "403"]);
    has(&["stranger", "GET", "wiki", "blind", "none", "block", "device.unknown", "403"]);
    let phone = |method: &str| rows.iter().find(|r| r.get(..3) == Some(&["phone", method, "wiki"])).unwrap();
    assert_eq!((phone("GET")[5], phone("GET").last()), ("restrict", Some(&"200")));
    assert_eq!((phone("POST")[5], phone("POST").last()), ("restrict", Some(&"403")));
    assert!(run.stdout.ends_with("15 visits by 4 devices, each counted once: log, metrics and answers agree\n"), "{}", run.stdout);
    assert!(run.stdout.lines().all(|line| line.len() <= 100), "{}", run.stdout);
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0, "the temporary folder stays");
}

#[test]
fn the_printed_commands_do_what_the_table_says() {
    let temp = tempfile::tempdir().unwrap();
    let mut command = demo(temp.path(), &["--edge-port", "0", "--admin-port", "0"]);
    let mut running = Running(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = Vec::new();
    let mut stdout = BufReader::new(running.0.stdout.take().unwrap());
    while !lines.last().is_some_and(|line: &String| line.contains("Ctrl-C")) {
        let mut line = String::new();
        assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "the demo ended: {lines:?}");
        lines.push(line);
    }
    let mut visits = 0;
    for line in &lines {
        let Some((before, curl)) = line.split_once("curl -K ") else { continue };
        let status = before.split_whitespace().last().unwrap();
        let command = format!("curl -K {} --noproxy '*' -o /dev/null -w '%{{http_code}}'", curl.trim());
        let run = Run::from(Command::new("sh").args(["-c", &command]).output().unwrap()).succeeded();
        assert_eq!(run.stdout, status, "{command}");
        visits += 1;
    }
    assert_eq!(visits, 15);

    // The knobs turn: a fact of the same source replaces the failing one, and the running proxy sees it.
    let alias = lines.iter().find_map(|line| line.split_once("alias devices='")?.1.strip_suffix("'\n")).unwrap();
    let after = |change: &str, curl: &str, expected: &str| {
        let command =
            lines.iter().find_map(|line| line.split_once("  devices ")?.1.trim().strip_prefix(change).map(|rest| [change, rest].concat()));
        let command = format!("{alias} {}", command.unwrap_or_else(|| panic!("no command `{change}` in {lines:?}")));
        Run::from(Command::new("sh").args(["-c", &command]).output().unwrap()).succeeded();
        let curl = lines
            .iter()
            .find_map(|line| Some(["curl -K ", line.split_once("curl -K ").filter(|c| c.1.contains(curl))?.1].concat()))
            .unwrap();
        let curl = format!("{} --noproxy '*' -o /dev/null -w '%{{http_code}}'", curl.trim());
        eventually(&format!("{change} has an effect"), || {
            (Run::from(Command::new("sh").args(["-c", &curl]).output().unwrap()).stdout == expected).then_some(())
        });
    };
    after("set nodisk", "/nodisk https://payroll", "200");
    after("revoke phone", "/phone https://wiki", "403");

    let pid = i32::try_from(running.0.id()).unwrap();
    // SAFETY: no memory is involved; the child is ours and not yet waited for, so that the id is still its own.
    #[allow(unsafe_code)]
    let result = unsafe { libc::kill(pid, libc::SIGINT) };
    assert_eq!(result, 0);
    let status = eventually("the demo ends", || running.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0, "the temporary folder stays");
}

#[test]
fn a_folder_of_ones_own_is_kept_and_never_overwritten() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("mine");
    let named = ["--once", "--dir", dir.to_str().unwrap()];
    Run::from(demo(temp.path(), &named).output().unwrap()).succeeded();
    assert!(dir.join("vestibule.yaml").is_file() && dir.join("certs/edge-ca.pem").is_file());
    Run::from(demo(temp.path(), &named).output().unwrap()).failed_with(&["mine", "not empty"]);
}

#[test]
fn a_port_in_use_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    Run::from(demo(temp.path(), &["--once", "--edge-port", &port]).output().unwrap()).failed_with(&[&port]);
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0, "the temporary folder stays");
}
