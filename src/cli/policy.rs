//! `vestibule policy`: the policies that were in force.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::devices::path_of;
use super::failure::Failure;
use super::print::{print, table};
use crate::config;
use crate::posture::store::{Access, REVISIONS_KEPT, Revision, Store};

/// How long the store may be busy with another process.
const PATIENCE: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
Examples:
  vestibule policy -c vestibule.yaml history
  vestibule policy -c vestibule.yaml show 3f2a90c1d4e8
  vestibule policy --store sqlite://data/vestibule.db show 3f2a > before.yaml

The device store keeps the last 100 policies. A revision is what the decision log has as policy_rev.";

/// Look into the policies that were in force
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The configuration that names the store
    #[arg(short, long, value_name = "FILE", global = true, conflicts_with = "store")]
    config: Option<PathBuf>,

    /// The store itself, sqlite://PATH: also while the configuration has mistakes
    #[arg(long, value_name = "URL", global = true)]
    store: Option<String>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print what was in force, since when, how it came to be, and what changed; the newest first
    History {
        #[arg(long, value_enum, default_value_t = Shape::Table)]
        format: Shape,
        /// So many
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=i64::from(REVISIONS_KEPT)))]
        limit: u32,
    },
    /// Print the files of one revision, passwords in URLs left out
    Show {
        /// Or its first digits
        revision: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shape {
    Table,
    Json,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let path = match (&args.config, &args.store) {
        (Some(file), _) => config::load(file)?.configuration.store.path,
        (None, Some(url)) => path_of(url)?,
        (None, None) => clap::Error::raw(
            clap::error::ErrorKind::MissingRequiredArgument,
            "which store? Give -c FILE (the store of that configuration) or --store sqlite://PATH\n\nFor more information, try '--help'.\n",
        )
        .exit(),
    };
    let store = Store::open(&path, Access::Read, PATIENCE)?;
    match args.command {
        Command::History { format, limit } => {
            let revisions = store.revisions(limit)?;
            match format {
                Shape::Table => print(&history(&revisions)),
                Shape::Json => print(&format!("{:#}\n", Value::from(revisions.iter().map(told).collect::<Vec<_>>()))),
            }
        }
        Command::Show { revision } => match store.revision(&revision)?.filter(|_| !revision.is_empty()) {
            Some(found) => print(&files(&found)),
            None => {
                let kept = store.revisions(REVISIONS_KEPT)?.len();
                Err(Failure(format!("no revision `{revision}` among the {kept} that are kept; `vestibule policy history` lists them")))
            }
        },
    }
}

fn history(revisions: &[Revision]) -> String {
    if revisions.is_empty() {
        return "no policy was recorded yet; a running proxy does\n".to_owned();
    }
    let mut rows = vec![["REVISION", "SINCE", "HOW", "VERSION", "CHANGED"].map(str::to_owned).to_vec()];
    for revision in revisions {
        let lines = match &revision.changed {
            None => vec!["the first that is known".to_owned()],
            Some(lines) if lines.is_empty() => vec!["comments or layout alone".to_owned()],
            Some(lines) => lines.clone(),
        };
        let mut head = vec![revision.revision.clone(), format!("{:.0}", revision.at), revision.how.clone(), revision.version.clone()];
        for line in lines {
            let mut row = std::mem::replace(&mut head, vec![String::new(); 4]);
            row.push(line);
            rows.push(row);
        }
    }
    table(&rows)
}

fn told(revision: &Revision) -> Value {
    let Revision { revision, at, how, version, changed, .. } = revision;
    json!({"revision": revision, "since": at.to_string(), "how": how, "version": version, "changed": changed})
}

/// Each file under its name, which is a comment in YAML.
fn files(revision: &Revision) -> String {
    let part = |(name, text): &(String, String)| {
        let end = if text.ends_with('\n') { "" } else { "\n" };
        format!("# --- {name}, revision {}\n{text}{end}", revision.revision)
    };
    revision.texts.0.iter().map(part).collect()
}
