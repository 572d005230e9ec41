//! `vestibule check`: all errors and warnings of a configuration.

use std::io::Write;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::failure::Failure;
use super::policy_tests;
use crate::config::{self, Configuration, Level, Report};
use crate::site;

/// Print every error and warning of a configuration, with positions
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration's main file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
}

pub fn run(args: Args) -> Result<(), Failure> {
    match config::load(&args.config) {
        Ok(loaded) => {
            let mistakes = site::mistakes(&loaded.configuration);
            if !mistakes.is_empty() {
                let lines: String = mistakes.iter().map(|mistake| format!("{}: error: {mistake}\n", args.config.display())).collect();
                let summary = not_usable(&args.config, mistakes.len(), &loaded.warnings);
                return Err(Failure(format!("{}{lines}{summary}", loaded.warnings)));
            }
            let failed = policy_tests::run(&loaded.configuration, Timestamp::now());
            if !failed.is_empty() {
                let lines: String = failed.iter().map(|failed| format!("{failed}\n")).collect();
                let tests = counted(loaded.configuration.tests.len(), "test");
                return Err(Failure(format!("{}{lines}{}: {} of {tests} failed", loaded.warnings, args.config.display(), failed.len())));
            }
            let text = format!("{}{}", loaded.warnings, good(&args.config, &loaded.configuration, &loaded.warnings));
            std::io::stdout().lock().write_all(text.as_bytes())?;
            Ok(())
        }
        Err(report) => Err(Failure(format!("{report}{}", not_usable(&args.config, report.count(Level::Error), &report)))),
    }
}

fn good(file: &Path, configuration: &Configuration, warnings: &Report) -> String {
    let policy = &configuration.policy;
    let rules = policy.guardrails.len() + policy.layers.len() + policy.apps.iter().map(|app| app.rules.len()).sum::<usize>();
    let tests = match configuration.tests.len() {
        0 => String::new(),
        count => format!("{} passed, ", counted(count, "test")),
    };
    format!(
        "{}: ok, {}; {}, {}, {}policy revision {}\n",
        file.display(),
        counted(warnings.count(Level::Warning) + warnings.dropped(), "warning"),
        counted(policy.apps.len(), "app"),
        counted(rules, "rule"),
        tests,
        policy.revision
    )
}

fn not_usable(file: &Path, errors: usize, report: &Report) -> String {
    let more = if report.dropped() > 0 { format!(", {} more not shown", report.dropped()) } else { String::new() };
    format!("{}: not usable, {}, {}{more}", file.display(), counted(errors, "error"), counted(report.count(Level::Warning), "warning"))
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
version: 1
listeners: [{name: edge, bind: ['127.0.0.1:0']}]
store: {url: 'sqlite://data.db'}
decision_log: {path: '-'}
owners: {it: {contact: it}}
classes: [{name: every, when: {}}]
tiers: [{name: none}]
apps:
  - {name: a, owner: it, hosts: [a.example], upstream: {servers: ['http://127.0.0.1:1']}, rules: [{name: rest, then: block}]}
";

    #[test]
    fn a_good_file_is_no_failure_and_a_bad_one_ends_with_a_summary() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("v.yaml");
        std::fs::write(&config, GOOD).unwrap();
        run(Args { config: config.clone() }).unwrap();
        let loaded = config::load(&config).unwrap();
        let summary = good(Path::new("v.yaml"), &loaded.configuration, &loaded.warnings);
        assert!(summary.starts_with("v.yaml: ok, 0 warnings; 1 app, 1 rule, policy revision "), "{summary}");

        std::fs::write(&config, GOOD.replace("then: block", "then: blok").replace("decision_log", "decision_logg")).unwrap();
        let Failure(text) = run(Args { config: config.clone() }).unwrap_err();
        assert!(text.contains("v.yaml:4:1: error: decision_logg: unknown key `decision_logg`; did you mean `decision_log`?"), "{text}");
        assert!(text.contains("v.yaml:9:"), "{text}");
        assert!(text.ends_with(&format!("{}: not usable, 2 errors, 1 warning", config.display())), "{text}");
    }
}
