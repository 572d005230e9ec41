//! `vestibule run`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;
use crate::site::{self, Program, Running};

/// Run the proxy
///
/// SIGHUP or a changed file reloads the configuration, all or nothing; SIGUSR1 reopens the decision log; SIGUSR2 starts the program anew, with the
/// sockets of this one, and ends this one when that serves; SIGTERM or SIGINT lets running requests finish and stops, a second one stops at once.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration.
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    config: PathBuf,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let program = Program::this()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anybody is told that it runs: a signal that nobody heeds yet ends the process.
    let signals = {
        let _in_runtime = runtime.enter();
        Signals::new()?
    };
    let running = site::start(&args.config)?;
    if !running.warnings().is_empty() {
        tracing::warn!("the configuration has warnings:\n{}", running.warnings());
    }
    announce(&running)?;
    running.ready();
    runtime.block_on(heed(running, signals, &program));
    Ok(())
}

/// One line for each address, then `ready`: for scripts that start the proxy and wait for it.
fn announce(running: &Running) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for (listener, addr) in running.listeners() {
        writeln!(out, "listening {listener} {addr}")?;
    }
    writeln!(out, "listening admin {}", running.admin_addr())?;
    writeln!(out, "ready")?;
    out.flush()
}

struct Signals {
    hangup: Signal,
    reopen: Signal,
    upgrade: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            upgrade: signal(SignalKind::user_defined2())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// A second signal that somebody meant: `timeout` and some terminals send one signal twice, to the process and to its group.
    async fn again(&mut self) {
        let first = Instant::now();
        loop {
            self.end().await;
            if first.elapsed() >= Self::ECHO {
                return;
            }
        }
    }

    const ECHO: Duration = Duration::from_millis(5);
}

/// Why a running proxy ends.
enum End {
    Told,
    /// Another process serves in this one's place, with the sockets of these addresses.
    Succeeded {
        by: u32,
        kept: Vec<SocketAddr>,
    },
}

async fn heed(running: Running, mut signals: Signals, program: &Program) {
    let end = loop {
        tokio::select! {
            _ = signals.hangup.recv() => drop(running.reload()), // said and counted there
            _ = signals.reopen.recv() => running.reopen_log(),
            _ = signals.upgrade.recv() => match upgrade(&running, &mut signals, program).await {
                Some(end) => break end,
                None => running.not_succeeded(),
            },
            _ = signals.terminate.recv() => break End::Told,
            _ = signals.interrupt.recv() => break End::Told,
        }
    };
    let axe = running.axe();
    let stopping = match end {
        End::Told => {
            let delay = running.leave();
            if !delay.is_zero() {
                tracing::info!(?delay, "not ready any more; accepting until balancers have noticed");
            }
            // A second signal within it ends it, and the connections too.
            let again = tokio::time::timeout(delay, signals.again()).await;
            tracing::info!("stopping: running requests may finish");
            let stopping = tokio::task::spawn_blocking(move || running.stop());
            if again.is_ok() {
                axe.fall();
            }
            stopping
        }
        End::Succeeded { by, kept } => {
            tracing::info!(by, "another process serves; running requests may finish here");
            tokio::task::spawn_blocking(move || running.hand_over(by, &kept))
        }
    };
    let stopped = async {
        match stopping.await.unwrap_or(0) {
            0 => tracing::info!("stopped"),
            cut => tracing::warn!(cut, "stopped; limits.drain was over, or a second signal came, before all connections had ended"),
        }
    };
    let hurried = async {
        signals.again().await;
        tracing::warn!("a second signal: what runs is cut");
        axe.fall();
        // The last lines of the log may wait for a disk that does not answer; nobody waits for that twice.
        tokio::select! {
            () = signals.again() => {}
            () = tokio::time::sleep(LAST_WORDS) => {}
        }
    };
    tokio::select! {
        () = stopped => {}
        () = hurried => {
            tracing::warn!("stopped at once; lines of the decision log may be missing");
            std::process::exit(0);
        }
    }
}

/// How long the last lines of the decision log may take after a second signal.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Has the program that is at this one's path take its place. `None`: it did not, and all is as before.
async fn upgrade(running: &Running, signals: &mut Signals, program: &Program) -> Option<End> {
    tracing::info!("starting the program anew, in this one's place");
    running.succeeding(true);
    let mut successor = match running.succeed(program) {
        Ok(successor) => successor,
        Err(error) => {
            tracing::error!(%error, "the program cannot be started anew; this one goes on");
            return None;
        }
    };
    let by = successor.pid();
    let line = tokio::task::spawn_blocking(successor.line());
    let kept = tokio::select! {
        kept = line => kept.ok().flatten(),
        () = signals.end() => {
            successor.end();
            return Some(End::Told);
        }
    };
    match kept {
        Some(kept) => Some(End::Succeeded { by, kept }),
        None => {
            let error = tokio::task::spawn_blocking(move || successor.gone()).await.ok()?;
            tracing::error!(%error, "the program was not replaced; this one goes on");
            None
        }
    }
}
