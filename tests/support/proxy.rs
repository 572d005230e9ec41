//! The real program, running.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use vestibule::cli::scrape::{self, Sample};

use super::{DEADLINE, eventually, program, raw};

/// Ended when dropped.
pub struct Proxy {
    child: Child,
    listeners: BTreeMap<String, Vec<SocketAddr>>,
    stderr: PathBuf,
    /// In a mutex so that several threads may look at one proxy.
    lines: Mutex<Receiver<String>>,
}

impl Proxy {
    /// `vestibule run -c FILE` in `dir`; returns when it is ready.
    pub fn start(dir: &Path, file: &Path) -> Self {
        Self::run(Command::new(env!("CARGO_BIN_EXE_vestibule")), dir, file)
    }

    /// The same with at most so many open files.
    pub fn start_with_descriptors(dir: &Path, file: &Path, most: usize) -> Self {
        let mut command = program("prlimit");
        command.arg(format!("--nofile={most}:{most}")).arg(env!("CARGO_BIN_EXE_vestibule"));
        Self::run(command, dir, file)
    }

    /// The same by a command that may have an environment of its own.
    pub fn start_by(command: Command, dir: &Path, file: &Path) -> Self {
        Self::run(command, dir, file)
    }

    fn run(mut command: Command, dir: &Path, file: &Path) -> Self {
        let stderr = dir.join("stderr.log");
        let mut child = command
            .args(["run", "-c"])
            .arg(file)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        let (send, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let mut proxy = Self { child, listeners: BTreeMap::new(), stderr, lines: Mutex::new(lines) };
        proxy.wait_ready();
        proxy
    }

    fn wait_ready(&mut self) {
        let end = Instant::now() + DEADLINE;
        loop {
            let line = match self.lines.get_mut().unwrap().recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => panic!("not ready within {DEADLINE:?}: {}", self.stderr()),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().unwrap();
                    panic!("ended before it was ready, {status}: {}", self.stderr());
                }
            };
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["listening", name, address] => {
                    self.listeners.entry(name.to_owned()).or_default().push(address.parse().unwrap());
                }
                ["ready"] => return,
                _ => {}
            }
        }
    }

    /// The first address of a listener.
    #[track_caller]
    pub fn addr(&self, listener: &str) -> SocketAddr {
        self.addrs(listener)[0]
    }

    /// All addresses of a listener.
    #[track_caller]
    pub fn addrs(&self, listener: &str) -> Vec<SocketAddr> {
        self.listeners.get(listener).cloned().unwrap_or_else(|| panic!("no listener `{listener}` among {:?}", self.listeners))
    }

    pub fn admin(&self) -> SocketAddr {
        self.addr("admin")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// `libc::SIGTERM` and the like.
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).unwrap();
        // SAFETY: no memory is involved; the child is ours and not yet waited for, so that the id is still its own.
        #[allow(unsafe_code)]
        let result = unsafe { libc::kill(pid, signal) };
        assert_eq!(result, 0);
    }

    /// Waits until it ends by itself.
    pub fn ended(&mut self) -> ExitStatus {
        eventually("the proxy ends", || self.child.try_wait().unwrap())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// A path of the admin listener: status and body.
    pub fn admin_get(&self, path: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin());
        let answer = String::from_utf8(raw(self.admin(), request.as_bytes())).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP answer: {answer}"));
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    pub fn metrics(&self) -> Metrics {
        let (status, text) = self.admin_get("/metrics");
        assert_eq!(status, 200);
        Metrics(scrape::read(&text).unwrap_or_else(|line| panic!("not a metric: {line}")))
    }

    /// Scrapes until the samples sum up to `value` or more.
    pub fn metric_reaches(&self, name: &str, labels: &[(&str, &str)], value: f64) -> Metrics {
        eventually(&format!("{name}{labels:?} reaches {value}"), || {
            let metrics = self.metrics();
            (metrics.sum(name, labels) >= value).then_some(metrics)
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the proxy wrote:\n{}", self.stderr());
        }
    }
}

/// A scrape.
#[derive(Clone, Debug)]
pub struct Metrics(pub Vec<Sample>);

impl Metrics {
    /// All samples of that name that carry these labels, added up; 0 where there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |sample: &&Sample| sample.name == name && labels.iter().all(|(label, value)| sample.label(label) == *value);
        self.0.iter().filter(fits).map(|sample| sample.value).sum()
    }

    /// Whether any sample has that name.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|sample| sample.name == name)
    }
}
