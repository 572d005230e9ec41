//! The commands; thin.

mod ca_files;
mod certs;
mod check;
mod demo;
mod devices;
mod explain;
mod failure;
pub mod fingerprint;
pub mod lab_ca;
mod policy;
mod policy_tests;
mod print;
mod replay;
mod run;
mod schema;
pub mod scrape;
mod situation;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use failure::Failure;

const AFTER: &str = "\
Exit status: 0 done, 1 the input is wrong, 2 wrong usage. Results go to standard output, errors and logs to standard error.

VESTIBULE_LOG=vestibule=debug says more of what happens, debug also what its libraries do;
VESTIBULE_LOG_FORMAT=json says it in JSON lines.";

/// A device-aware access proxy: it recognises the device behind every connection, checks its posture, and forwards, restricts or blocks each
/// request.
#[derive(Debug, Parser)]
#[command(name = "vestibule", version, max_term_width = 100, after_help = AFTER)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Check(check::Args),
    Explain(explain::Args),
    Replay(replay::Args),
    Policy(policy::Args),
    Devices(devices::Args),
    Certs(certs::Args),
    Fingerprint(fingerprint::Args),
    Demo(demo::Args),
    Schema(schema::Args),
}

/// Exit codes: 0 done, 1 the input is wrong, 2 usage (by clap).
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Where the result is for a person to read, only what needs attention stands between it.
    tell_operator(if matches!(cli.command, Command::Run(_)) { "info" } else { "warn" });
    let done = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Check(args) => check::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Policy(args) => policy::run(args),
        Command::Devices(args) => devices::run(args),
        Command::Certs(args) => certs::run(args),
        Command::Fingerprint(args) => fingerprint::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Schema(args) => schema::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(text)) => {
            if !text.is_empty() {
                let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
            }
            ExitCode::from(1)
        }
    }
}

/// Logs for the operator go to standard error, as JSON lines when `VESTIBULE_LOG_FORMAT` is `json`; `VESTIBULE_LOG` sets the level.
fn tell_operator(level: &str) {
    // h2 warns of a peer's mistakes, and a peer may make as many as it likes.
    let filter = tracing_subscriber::EnvFilter::try_from_env("VESTIBULE_LOG").unwrap_or_else(|_| format!("{level},h2=error").into());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    if std::env::var("VESTIBULE_LOG_FORMAT").is_ok_and(|format| format == "json") {
        builder.json().init();
    } else {
        builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init();
    }
}
