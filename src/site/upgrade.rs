//! Another program in this one's place, without a connection lost: the running process starts the new one with the very sockets that it listens on,
//! waits until that one serves, and then lets its own connections end. A new one that does not come up changes nothing.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::Socket;

use super::sockets::{ADMIN, Bound};
use super::{Error, Running, held};
use crate::edge;

/// How the sockets are described to the new process.
const VARIABLE: &str = "VESTIBULE_UPGRADE";
/// How long the new process may take until it serves: it reads its configuration, and may have a store to bring up to date.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Serialize, Deserialize)]
struct Passed {
    /// Who passes them: a variable that some later process finds in its environment is not meant for it.
    from: u32,
    /// Where the new process says that it serves.
    line: RawFd,
    sockets: Vec<PassedSockets>,
}

#[derive(Serialize, Deserialize)]
struct PassedSockets {
    listener: String,
    configured: SocketAddr,
    descriptors: Vec<RawFd>,
}

/// What this process was given when it was started.
#[derive(Debug, Default)]
pub struct Inherited {
    pub bound: Vec<Bound>,
    /// The process whose place this one takes. `None`: there is none, and systemd passed the sockets, if there are any.
    pub before: Option<Predecessor>,
}

/// Waits to hear that this process serves.
#[derive(Debug)]
pub struct Predecessor(UnixStream);

impl Predecessor {
    /// `kept`: the addresses that are taken over. From now on the other process accepts nothing more. `status` is for the service manager, which
    /// takes no word of this process before the other one has named it.
    pub fn tell(mut self, kept: &[SocketAddr], status: &str) {
        let lines: String = kept.iter().map(|addr| format!("keeps {addr}\n")).collect();
        if let Err(error) = self.0.write_all(format!("{lines}status {status}\nready\n").as_bytes()) {
            tracing::error!(%error, "the process that this one replaces cannot be told that it may end");
        }
    }
}

/// Takes what was passed.
pub fn inherited() -> Result<Inherited, Error> {
    let wrong = |what: String| Error::Inherited { what };
    let passed = std::env::var(VARIABLE).ok().map(|text| serde_json::from_str::<Passed>(&text));
    match passed.transpose().map_err(|error| wrong(format!("{VARIABLE}: {error}")))? {
        Some(passed) if passed.from == std::os::unix::process::parent_id() => from_predecessor(passed),
        _ => from_systemd(),
    }
}

fn from_predecessor(passed: Passed) -> Result<Inherited, Error> {
    let mut seen = BTreeSet::from([passed.line]);
    let mut bound = Vec::new();
    let line = edge::owned(passed.line).map_err(|error| Error::Inherited { what: format!("descriptor {}: {error}", passed.line) })?;
    let line = Socket::from(line);
    line.set_cloexec(true).map_err(|error| Error::Inherited { what: error.to_string() })?;
    for PassedSockets { listener, configured, descriptors } in passed.sockets {
        let descriptors = descriptors.into_iter().filter(|descriptor| seen.insert(*descriptor));
        let sockets: Vec<TcpListener> = descriptors.map(listening).collect::<Result<_, _>>()?;
        if let Some(actual) = sockets.first().and_then(|socket| socket.local_addr().ok()) {
            bound.push(Bound { listener: Arc::from(listener), configured, actual, sockets });
        }
    }
    Ok(Inherited { bound, before: Some(Predecessor(UnixStream::from(line))) })
}

/// `LISTEN_FDS` of sd_listen_fds(3), by address: several sockets of one address are one listener's.
fn from_systemd() -> Result<Inherited, Error> {
    let wrong = |error: io::Error| Error::Inherited { what: format!("LISTEN_FDS: {error}") };
    let mut bound: Vec<Bound> = Vec::new();
    for descriptor in sd_notify::listen_fds().map_err(wrong)? {
        let socket = listening(descriptor)?;
        let addr = socket.local_addr().map_err(wrong)?;
        match bound.iter_mut().find(|bound| bound.actual == addr) {
            Some(bound) => bound.sockets.push(socket),
            None => bound.push(Bound { listener: Arc::from(""), configured: addr, actual: addr, sockets: vec![socket] }),
        }
    }
    Ok(Inherited { bound, before: None })
}

fn listening(descriptor: RawFd) -> Result<TcpListener, Error> {
    edge::inherit(descriptor)
        .map_err(|error| Error::Inherited { what: format!("descriptor {descriptor} is {error}; expected a listening TCP socket") })
}

/// How this program was started: what is started in its place. Taken at the start, for the file may be another by the time it is asked for.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// The path as it was called, so that a symbolic link leads to the new version.
    pub fn this() -> io::Result<Self> {
        let mut arguments = std::env::args_os();
        let called = arguments.next().map(PathBuf::from).filter(|path| path.components().count() > 1);
        let path = match called {
            Some(path) => std::path::absolute(path)?,
            None => std::env::current_exe()?,
        };
        Ok(Self { path, arguments: arguments.collect() })
    }
}

/// The new process, on its way.
#[derive(Debug)]
pub struct Successor {
    /// Ended with this, unless it serves.
    child: Option<Child>,
    line: Option<UnixStream>,
}

/// What a new process says when it serves.
#[derive(Debug, Default)]
pub struct Serves {
    /// The addresses that it keeps.
    pub kept: Vec<SocketAddr>,
    /// For the service manager. Empty: an older version told none.
    pub status: String,
}

/// Why there is no new process; this one goes on.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    #[error("{path}: {source}")]
    Start { path: PathBuf, source: io::Error },
    #[error("the new process ended before it served ({how}); standard error says why")]
    Ended { how: String },
    #[error("the proxy is stopping")]
    Leaving,
    #[error("the new process did not serve within {} s", PATIENCE.as_secs())]
    Late,
}

impl Running {
    /// Starts the program that is to take this one's place. Until that serves, all is as before.
    ///
    /// # Errors
    /// When there is no such program, or no descriptor for it, or the proxy has begun to stop meanwhile.
    pub fn succeed(&self, program: &Program) -> Result<Successor, UpgradeError> {
        let failed = |source| UpgradeError::Start { path: program.path.clone(), source };
        let (line, theirs) = UnixStream::pair().map_err(failed)?;
        let theirs = Socket::from(theirs);
        let mut lent = vec![];
        let sockets = {
            // A reload that hangs keeps it for as long.
            let state = held(&self.site.state);
            if self.site.draining.load(Relaxed) {
                return Err(UpgradeError::Leaving);
            }
            let admin = (ADMIN, state.configuration.admin.bind, std::slice::from_ref(&state.admin));
            let listeners = state.bound.iter().map(|bound| (&*bound.listener, bound.configured, bound.sockets.as_slice()));
            let lend = |(listener, configured, sockets): (&str, SocketAddr, &[TcpListener])| {
                let mut descriptors = Vec::with_capacity(sockets.len());
                for socket in sockets {
                    // A copy, so that only this one crosses over.
                    let copy = Socket::from(socket.try_clone()?);
                    copy.set_cloexec(false)?;
                    descriptors.push(copy.as_raw_fd());
                    lent.push(copy);
                }
                Ok(PassedSockets { listener: listener.to_owned(), configured, descriptors })
            };
            std::iter::once(admin).chain(listeners).map(lend).collect::<io::Result<_>>().map_err(failed)?
        };
        theirs.set_cloexec(false).map_err(failed)?;
        let passed = Passed { from: std::process::id(), line: theirs.as_raw_fd(), sockets };
        let text = serde_json::to_string(&passed).map_err(|error| failed(error.into()))?;
        let child = Command::new(&program.path)
            .args(&program.arguments)
            .env(VARIABLE, text)
            // This process' number: with it the new one would take the watchdog for another's. That of LISTEN_PID says so rightly.
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::null())
            .spawn()
            .map_err(failed)?;
        Ok(Successor { child: Some(child), line: Some(line) })
    }
}

impl Successor {
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// What to wait on for the new process to serve. Blocks for at most `PATIENCE`.
    pub fn line(&mut self) -> impl FnOnce() -> Option<Serves> + Send + 'static {
        let line = self.line.take();
        move || {
            let line = line?;
            line.set_read_timeout(Some(PATIENCE)).ok()?;
            let mut serves = Serves::default();
            for said in BufReader::new(line).lines() {
                let said = said.ok()?;
                match said.split_once(' ') {
                    None if said == "ready" => return Some(serves),
                    Some(("keeps", addr)) => serves.kept.extend(addr.parse::<SocketAddr>()),
                    Some(("status", status)) => status.clone_into(&mut serves.status),
                    _ => {}
                }
            }
            None
        }
    }

    /// It will not serve: why not. Nothing of it is left.
    pub fn gone(mut self) -> UpgradeError {
        // It closes the line as it ends, a moment before its end can be seen.
        for _ in 0..100 {
            if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
                return UpgradeError::Ended { how: status.to_string() };
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        UpgradeError::Late
    }

    /// It goes on without this process.
    pub fn serves(mut self) {
        self.child = None;
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
