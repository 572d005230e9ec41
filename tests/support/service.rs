//! The program as a service manager sees it: started with a socket to notify, and followed when another process takes its place.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use super::{Config, Lab, eventually};

/// Everything that was started is ended when it is dropped.
pub struct Service {
    child: std::process::Child,
    notify: UnixDatagram,
    /// Every process that was the service's main one, in order.
    pub mains: Vec<u32>,
    heard: Vec<String>,
    stdout: std::path::PathBuf,
    stderr: std::path::PathBuf,
}

impl Service {
    /// Starts `program run -c vestibule.yaml` in the lab's folder. It may not be ready yet. `sockets` are passed as systemd does.
    pub fn start(lab: &Lab, program: &Path, config: &Config, sockets: &[TcpListener], env: &[(&str, &str)]) -> Self {
        lab.configure(config);
        let path = lab.path("notify.sock");
        let _ = std::fs::remove_file(&path);
        let notify = UnixDatagram::bind(&path).unwrap();
        notify.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (stdout, stderr) = (lab.path("stdout.log"), lab.path("stderr.log"));
        // The process' own number, which only itself can know before it runs the program.
        let mut command = Command::new("sh");
        let script = if sockets.is_empty() { "" } else { "LISTEN_PID=$$ " };
        command.args(["-c", &format!("WATCHDOG_PID=$$ {script}exec \"$0\" \"$@\"")]).arg(program).args(["run", "-c", "vestibule.yaml"]);
        command.current_dir(lab.dir()).env("NOTIFY_SOCKET", &path).envs(env.iter().copied()).stdin(Stdio::null());
        command.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
        if !sockets.is_empty() {
            command.env("LISTEN_FDS", sockets.len().to_string());
            // First out of the way of each other, then to where they belong.
            let descriptors: Vec<i32> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
            // SAFETY: between fork and exec only `fcntl` and `dup2` are called, which may be, on descriptors that `sockets` keeps open.
            #[allow(unsafe_code)]
            unsafe {
                command.pre_exec(move || {
                    let mut high = [0; 16];
                    for (at, descriptor) in descriptors.iter().enumerate() {
                        high[at] = libc::fcntl(*descriptor, libc::F_DUPFD_CLOEXEC, 100);
                    }
                    for (target, from) in (3..).zip(&high[..descriptors.len()]) {
                        libc::dup2(*from, target);
                    }
                    Ok(())
                });
            }
        }
        let child = command.spawn().unwrap();
        let mains = vec![child.id()];
        Self { child, notify, mains, heard: Vec::new(), stdout, stderr }
    }

    /// The program's own binary.
    pub fn of(lab: &Lab, config: &Config) -> Self {
        let mut service = Self::start(lab, Path::new(env!("CARGO_BIN_EXE_vestibule")), config, &[], &[]);
        service.hears("READY=1");
        service
    }

    /// Waits for a message with this line; what came up to it is forgotten.
    #[track_caller]
    pub fn hears(&mut self, line: &str) -> String {
        let found = eventually(&format!("the service manager hears {line}"), || {
            self.listen();
            self.heard.iter().position(|message| message.lines().any(|said| said.starts_with(line)))
        });
        self.heard.drain(..=found).next_back().unwrap()
    }

    /// All that was said since.
    pub fn heard(&mut self) -> Vec<String> {
        self.listen();
        std::mem::take(&mut self.heard)
    }

    fn listen(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(length) = self.notify.recv(&mut bytes) {
            let message = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if let Some(pid) = message.lines().find_map(|line| line.strip_prefix("MAINPID=")) {
                self.mains.push(pid.parse().unwrap());
            }
            self.heard.push(message);
        }
    }

    /// The address that the newest process listens on. All of them write to one file.
    #[track_caller]
    pub fn addr(&self, listener: &str) -> SocketAddr {
        let said = std::fs::read_to_string(&self.stdout).unwrap();
        let prefix = format!("listening {listener} ");
        said.lines().rev().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_else(|| panic!("{said}")).parse().unwrap()
    }

    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    pub fn main(&self) -> u32 {
        *self.mains.last().unwrap()
    }

    /// Signals the main process.
    pub fn signal(&self, signal: i32) {
        kill(self.main(), signal);
    }

    pub fn signal_to(&self, pid: u32, signal: i32) {
        kill(pid, signal);
    }

    /// Sends SIGUSR2 and waits until another process is the service.
    #[track_caller]
    pub fn upgrade(&mut self) {
        let before = self.main();
        self.signal(libc::SIGUSR2);
        self.hears("RELOADING=1");
        let said = self.hears("MAINPID=");
        assert!(said.contains("STATUS=serving policy "), "of the new process systemd hears nothing before it is the main one: {said}");
        assert_ne!(self.main(), before);
    }

    /// Waits for the end of a process that was started here; only of the first can it be said how.
    pub fn ended(&mut self, pid: u32) -> Option<ExitStatus> {
        eventually(&format!("process {pid} ends"), || match pid == self.child.id() {
            true => self.child.try_wait().unwrap().map(Some),
            false => (!is_running(pid)).then_some(None),
        })
    }

    /// Whether it is there: `ended` is for waiting.
    pub fn is_running(&self, pid: u32) -> bool {
        is_running(pid)
    }
}

/// Without those that ended and that nobody has asked about.
fn is_running(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with('Z')))
}

fn kill(pid: u32, signal: i32) {
    // SAFETY: no memory is involved; the process is this test's own.
    #[allow(unsafe_code)]
    let result = unsafe { libc::kill(i32::try_from(pid).unwrap(), signal) };
    assert_eq!(result, 0, "process {pid}: {}", std::io::Error::last_os_error());
}

impl Drop for Service {
    fn drop(&mut self) {
        self.listen();
        for pid in self.mains.clone() {
            if is_running(pid) {
                kill(pid, libc::SIGKILL);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the service wrote:\n{}", self.stderr());
        }
    }
}
