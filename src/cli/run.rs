//! `vestibule run`.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;
use crate::site::{self, Running};

/// Run the proxy
///
/// SIGHUP or a changed file reloads the configuration, all or nothing; SIGUSR1 reopens the decision log; SIGTERM or SIGINT lets running
/// requests finish and stops, a second one stops at once.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration.
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    config: PathBuf,
}

pub fn run(args: Args) -> Result<(), Failure> {
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
    runtime.block_on(heed(running, signals));
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
    user: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
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

async fn heed(running: Running, mut signals: Signals) {
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => drop(running.reload()), // said and counted there
            _ = signals.user.recv() => running.reopen_log(),
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
        }
    }
    tracing::info!("stopping: running requests may finish");
    let stopping = tokio::task::spawn_blocking(move || running.stop());
    tokio::select! {
        cut = stopping => match cut.unwrap_or(0) {
            0 => tracing::info!("stopped"),
            cut => tracing::warn!(cut, "stopped; limits.drain was over before all connections had ended"),
        },
        () = signals.again() => {
            tracing::warn!("stopped at once by a second signal");
            std::process::exit(0);
        }
    }
}
