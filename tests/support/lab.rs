//! A folder with a CA, devices and a configuration.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use vestibule::cli::lab_ca::{Issued, LabCa, Validity};

use super::{Config, Proxy, eventually};

/// Gone when dropped.
pub struct Lab {
    dir: tempfile::TempDir,
    pub ca: LabCa,
}

/// How a command of the program ended.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Lab {
    pub fn new() -> Self {
        Self::for_hosts(&["localhost", "wiki.localhost", "payroll.localhost", "git.localhost", "*.corp.example", "127.0.0.1", "::1"])
    }

    /// With an edge certificate for these names.
    pub fn for_hosts(hosts: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let ca = LabCa::create(&dir.path().join("certs"), &hosts, false).unwrap();
        Self { dir, ca }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A certificate that no record has.
    pub fn certificate(&self, name: &str) -> Issued {
        self.ca.issue(name, Validity::days(1), false).unwrap()
    }

    /// A certificate and its record: `fields` as `devices set` takes them, parted by spaces. Needs the configuration, so `configure` or
    /// `start` comes first.
    pub fn device(&self, name: &str, fields: &str) -> Issued {
        let issued = self.certificate(name);
        let key = format!("keys=spki_sha256:{}", issued.spki_sha256);
        let mut args = vec!["devices", "-c", "vestibule.yaml", "set", name, "--create", &key];
        args.extend(fields.split_whitespace());
        self.vestibule(&args).succeeded();
        issued
    }

    /// Writes `vestibule.yaml`, at once: a proxy that watches it never reads half of it.
    pub fn configure(&self, config: &Config) -> PathBuf {
        let path = self.path("vestibule.yaml");
        std::fs::rename(self.write("vestibule.yaml.next", &config.yaml()), &path).unwrap();
        path
    }

    /// Writes `vestibule.yaml` and starts the proxy with it.
    pub fn start(&self, config: &Config) -> Proxy {
        let file = self.configure(config);
        Proxy::start(self.dir(), &file)
    }

    /// Runs a command of the program in the lab's folder.
    pub fn vestibule(&self, args: &[&str]) -> Run {
        let output = Command::new(env!("CARGO_BIN_EXE_vestibule")).args(args).current_dir(self.dir()).output().unwrap();
        Run::from(output)
    }

    /// The first `n` lines of the decision log, as soon as they are there.
    pub fn decisions(&self, n: usize) -> Vec<Value> {
        let path = self.path("decisions.jsonl");
        eventually(&format!("{n} lines in the decision log"), || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let lines: Vec<Value> =
                whole.lines().map(|line| serde_json::from_str(line).expect("a line of the decision log is JSON")).collect();
            (lines.len() >= n).then_some(lines)
        })
    }
}

impl Run {
    /// Exit 0.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }

    /// Exit 1, nothing on standard output, and all of `words` in the message.
    #[track_caller]
    pub fn failed_with(self, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(1), "{}{}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is not in: {}", self.stderr);
        }
        self
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
