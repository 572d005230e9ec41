//! `vestibule replay`: what a policy would have decided about the requests of a decision log.

mod print;
mod read;
mod tally;

use std::path::PathBuf;

use jiff::Timestamp;

use self::tally::Tally;
use super::failure::Failure;
use super::situation;
use crate::config;
use crate::policy::Policy;

const HELP: &str = "\
Every line is decided by the same engine that decides requests, from what was known then: the device's record and facts, the wire, the request \
and its time. Whether a request went beyond a rate is no part of a decision, and restrictions are compared by their names.";

/// Decide the requests of a decision log anew, and show whom the configuration would treat otherwise
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The configuration that is tried.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// A decision log; `-` is standard input. May be repeated.
    #[arg(long = "log", value_name = "FILE", required = true, num_args = 1..)]
    logs: Vec<PathBuf>,
    /// Only requests of so long ago at most, such as `7d`.
    #[arg(long, value_name = "AGE")]
    since: Option<String>,
    /// How to show the result: text, as by default, or json.
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text", hide_possible_values = true, hide_default_value = true)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Text,
    Json,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let loaded = config::load(&args.config)?;
    let policy = Policy::compile(loaded.configuration.policy);
    let since = args.since.as_deref().map(situation::age).transpose()?;
    let since = since.map(|age| Timestamp::now().checked_sub(age).unwrap_or(Timestamp::MIN));
    let tally = read::logs(&args.logs, &|| Tally::new(&policy, since))?;
    super::print::print(&match args.format {
        Format::Text => print::text(&policy, &tally),
        Format::Json => print::json(&policy, &tally),
    })
}
