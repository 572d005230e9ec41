//! `vestibule check`: all errors and warnings of a configuration, and what is about to change by itself.

use std::path::{Path, PathBuf};

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::failure::Failure;
use super::policy_tests::{self, Failed};
use super::print::print;
use crate::config::{self, Configuration, Diagnostic, Level, Loaded, Report};
use crate::policy::draft::{Exception, Ladder};
use crate::site;

/// Exceptions that end within this are listed.
const SOON_DAYS: i64 = 14;

const HELP: &str = "\
The policy's own `tests` are tried: one that is not met is no mistake of the configuration, and fails the check all the same.

Exceptions, certificates, client CAs and CRLs that have ended are warnings. Exceptions and certificates that end within 14 days, client CAs within 30, \
CRLs within one, and the next step of each posture ladder, are listed.

With --format json standard output is one object: `usable`; `errors`, `warnings` and `not_shown`, counts; `diagnostics`, each with `level` \
(`error` or `warning`), `file`, `line`, `column` (from 1), `key` (the path of the key, empty for a whole file), `message` and `other` (null, or \
`file`, `line`, `column` and `what` of another place that belongs to it); and, when usable, `apps`, `rules`, `revision`, `exceptions` (`name`, \
`until`, `by`, `ticket`), `ends` (`what`, `at`), `ladders` (`fact`, `step`, `at`), `tests`, a count, and `failed` (`at`, `name`, `problems`, `explanation`), those of \
them that are not met.";

/// Print every error and warning of a configuration, with positions
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The configuration's main file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Fail on warnings too
    #[arg(long)]
    strict: bool,
    /// How findings are printed
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    format: String,
    /// Print the configuration in effect instead: a YAML document for each file, with all defaults; warnings go to standard error
    #[arg(long, conflicts_with = "format")]
    print: bool,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let checked = Checked::new(&args.config, Timestamp::now());
    let fails = !checked.usable() || !checked.failed.is_empty() || args.strict && checked.warnings() > 0;
    if args.format == "json" {
        print(&format!("{:#}\n", checked.json()))?;
        // All is said.
        return if fails { Err(Failure(String::new())) } else { Ok(()) };
    }
    match &checked.configuration {
        Some(configuration) if !fails && args.print => {
            let files = config::files(configuration)?;
            if !checked.report.is_empty() {
                tracing::warn!("the configuration has warnings:\n{}", checked.report);
            }
            print(&config::effective(&files))
        }
        Some(configuration) if !fails => {
            let (ended, coming) = (checked.ended_lines(), checked.coming(configuration));
            print(&format!("{}{ended}{coming}{}", checked.report, checked.good(configuration)))
        }
        _ => Err(Failure(format!("{}{}", checked.findings(), checked.bad(args.strict)))),
    }
}

struct Checked<'a> {
    file: &'a Path,
    now: Timestamp,
    /// Errors and warnings that have a place.
    report: Report,
    /// What those find who use the files that it names.
    mistakes: Vec<String>,
    /// Certificates, CAs and CRLs that have ended or soon will.
    endings: Vec<site::Ending>,
    /// Without errors in the report.
    configuration: Option<Configuration>,
    /// Tests that the policy does not meet.
    failed: Vec<Failed>,
}

impl<'a> Checked<'a> {
    fn new(file: &'a Path, now: Timestamp) -> Self {
        match config::load(file) {
            Ok(loaded) => {
                let mistakes = site::mistakes(&loaded.configuration);
                let ended = ended(&loaded, now);
                let failed = if mistakes.is_empty() { policy_tests::run(&loaded.configuration, now) } else { Vec::new() };
                let endings = site::endings(&loaded.configuration, now);
                let (placed, mistakes) = placed(&loaded, &mistakes);
                let report = loaded.warnings.with(ended).with(placed);
                Self { file, now, report, mistakes, endings, configuration: Some(loaded.configuration), failed }
            }
            Err(report) => Self { file, now, report, mistakes: Vec::new(), endings: Vec::new(), configuration: None, failed: Vec::new() },
        }
    }

    fn usable(&self) -> bool {
        self.errors() == 0
    }

    fn errors(&self) -> usize {
        self.report.count(Level::Error) + self.mistakes.len()
    }

    fn warnings(&self) -> usize {
        self.report.count(Level::Warning) + self.ended().count() + if self.usable() { self.report.dropped() } else { 0 }
    }

    /// What of the files has ended: a warning, for it is in force all the same.
    fn ended(&self) -> impl Iterator<Item = &site::Ending> {
        self.endings.iter().filter(|ending| ending.ended)
    }

    fn ended_lines(&self) -> String {
        self.ended().map(|ending| format!("{}: warning: {ending}\n", self.file.display())).collect()
    }

    fn findings(&self) -> String {
        let lines: String = self.mistakes.iter().map(|mistake| format!("{}: error: {mistake}\n", self.file.display())).collect();
        let failed: String = self.failed.iter().map(|failed| format!("{failed}\n")).collect();
        format!("{}{}{lines}{failed}", self.report, self.ended_lines())
    }

    /// What changes by itself: exceptions that end soon, the next step of each ladder.
    fn coming(&self, configuration: &Configuration) -> String {
        let policy = &configuration.policy;
        let zone = &policy.time_zone;
        let mut lines = String::new();
        let soon = self.now.checked_add(SignedDuration::from_hours(24 * SOON_DAYS)).unwrap_or(Timestamp::MAX);
        for exception in policy.exceptions.iter().filter(|exception| exception.until > self.now && exception.until <= soon) {
            let Exception { name, until, by, ticket, .. } = exception;
            lines.push_str(&format!("exception `{name}` ends {} (by {by}, {ticket})\n", end(*until, zone)));
        }
        for (fact, step, at) in self.steps(configuration) {
            lines.push_str(&format!("ladder `{fact}`: {step} from {}\n", said(at, zone)));
        }
        for ending in self.endings.iter().filter(|ending| !ending.ended) {
            lines.push_str(&format!("{ending}\n"));
        }
        lines
    }

    fn steps<'c>(&self, configuration: &'c Configuration) -> Vec<(&'c str, &'static str, Timestamp)> {
        let next = |ladder: &'c Ladder| {
            let (at, step) = ladder.steps.iter().find(|(at, _)| *at > self.now)?;
            Some((&*ladder.fact, step.as_str(), *at))
        };
        configuration.policy.ladders.iter().filter_map(next).collect()
    }

    fn good(&self, configuration: &Configuration) -> String {
        let tests = match configuration.tests.len() {
            0 => String::new(),
            count => format!("{} passed, ", counted(count, "test")),
        };
        format!(
            "{}: ok, {}; {}, {}, {tests}policy revision {}\n",
            self.file.display(),
            counted(self.warnings(), "warning"),
            counted(configuration.policy.apps.len(), "app"),
            counted(rules(configuration), "rule"),
            configuration.policy.revision
        )
    }

    fn bad(&self, strict: bool) -> String {
        let more = if self.report.dropped() > 0 { format!(", {} more not shown", self.report.dropped()) } else { String::new() };
        let (errors, warnings) =
            (counted(self.errors(), "error"), counted(self.report.count(Level::Warning) + self.ended().count(), "warning"));
        if self.usable() && !self.failed.is_empty() {
            let tests = self.configuration.as_ref().map_or(0, |configuration| configuration.tests.len());
            return format!("{}: {} of {} failed, {warnings}{more}", self.file.display(), self.failed.len(), counted(tests, "test"));
        }
        let strict = if strict && self.usable() { "; --strict forbids warnings" } else { "" };
        format!("{}: not usable, {errors}, {warnings}{more}{strict}", self.file.display())
    }

    fn json(&self) -> Value {
        let mistakes = self.mistakes.iter().map(
            |mistake| json!({"level": "error", "file": self.file.display().to_string(), "line": 1, "column": 1, "key": "", "message": mistake, "other": null}),
        );
        let ended = self.ended().map(
            |ending| json!({"level": "warning", "file": self.file.display().to_string(), "line": 1, "column": 1, "key": "", "message": ending.to_string(), "other": null}),
        );
        let diagnostics: Vec<Value> = self.report.diagnostics().iter().map(diagnostic).chain(ended).chain(mistakes).collect();
        let mut object = json!({
            "usable": self.usable(),
            "errors": self.errors(),
            "warnings": self.report.count(Level::Warning) + self.ended().count(),
            "not_shown": self.report.dropped(),
            "diagnostics": diagnostics,
        });
        if let (Some(configuration), Some(more)) = (&self.configuration, object.as_object_mut())
            && self.usable()
        {
            let policy = &configuration.policy;
            let exception = |exception: &Exception| {
                let Exception { name, until, by, ticket, .. } = exception;
                json!({"name": name, "until": until.to_string(), "by": by, "ticket": ticket})
            };
            let step = |(fact, step, at): (&str, &str, Timestamp)| json!({"fact": fact, "step": step, "at": at.to_string()});
            more.insert("apps".to_owned(), json!(policy.apps.len()));
            more.insert("rules".to_owned(), json!(rules(configuration)));
            more.insert("revision".to_owned(), json!(policy.revision));
            more.insert("exceptions".to_owned(), policy.exceptions.iter().map(exception).collect());
            let failed = |failed: &Failed| {
                let Failed { at, name, problems, explanation } = failed;
                json!({"at": at, "name": name, "problems": problems, "explanation": explanation})
            };
            more.insert("tests".to_owned(), json!(configuration.tests.len()));
            more.insert("failed".to_owned(), self.failed.iter().map(failed).collect());
            let coming = self.endings.iter().filter(|ending| !ending.ended);
            more.insert("ends".to_owned(), coming.map(|ending| json!({"what": ending.to_string(), "at": ending.at.to_string()})).collect());
            more.insert("ladders".to_owned(), self.steps(configuration).into_iter().map(step).collect());
        }
        object
    }
}

fn diagnostic(item: &Diagnostic) -> Value {
    let (file, line, column) = item.position();
    let level = match item.level {
        Level::Error => "error",
        Level::Warning => "warning",
    };
    let other = item
        .other()
        .map(|((file, line, column), what)| json!({"file": file.display().to_string(), "line": line, "column": column, "what": what}));
    json!({"level": level, "file": file.display().to_string(), "line": line, "column": column, "key": item.key, "message": item.message, "other": other})
}

/// Exceptions whose end has come, as warnings.
fn ended(loaded: &Loaded, now: Timestamp) -> Vec<Diagnostic> {
    let policy = &loaded.configuration.policy;
    let ended = policy.exceptions.iter().zip(&loaded.exceptions).filter(|(exception, _)| exception.until <= now);
    let message = |exception: &Exception| format!("ended on {}, remove it", end(exception.until, &policy.time_zone));
    ended.map(|(exception, place)| place.saying(message(exception))).collect()
}

/// What is wrong with the keys for assertions, where they are named; all else is said of the file.
fn placed(loaded: &Loaded, mistakes: &[site::Error]) -> (Vec<Diagnostic>, Vec<String>) {
    let (mut placed, mut others) = (Vec::new(), Vec::new());
    for mistake in mistakes {
        match (mistake, &loaded.keys) {
            (site::Error::Keys(error), Some(place)) if place.key == "assertion.keys" => placed.push(place.blaming(error.to_string())),
            (site::Error::Keys(_), Some(place)) => placed.push(place.blaming(mistake.to_string())),
            _ => others.push(mistake.to_string()),
        }
    }
    (placed, others)
}

/// An end at midnight is that of the day before, as people write it.
fn end(until: Timestamp, zone: &TimeZone) -> String {
    let before = until.checked_sub(SignedDuration::from_secs(1)).map_or(until, |before| before);
    if zone.to_datetime(until).time() == Time::midnight() { zone.to_datetime(before).date().to_string() } else { said(until, zone) }
}

/// The day where the moment is its first, else the minute.
fn said(at: Timestamp, zone: &TimeZone) -> String {
    let local = at.to_zoned(zone.clone());
    if local.time() == Time::midnight() { local.date().to_string() } else { local.strftime("%Y-%m-%d %H:%M %Z").to_string() }
}

fn rules(configuration: &Configuration) -> usize {
    let policy = &configuration.policy;
    policy.guardrails.len() + policy.layers.len() + policy.apps.iter().map(|app| app.rules.len()).sum::<usize>()
}

pub fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
version: 1
time_zone: Europe/Berlin
listeners: [{name: edge, bind: ['127.0.0.1:0']}]
store: {url: 'sqlite://data.db'}
decision_log: {path: '-'}
owners: {it: {contact: it}}
posture:
  sources: {mdm: {ttl: 24h}}
  ladder: {patched: {warn: 2026-11-01, block: 2027-02-01}}
classes: [{name: every, when: {}}]
tiers: [{name: none}]
exceptions:
  - {name: old, device: a, check: patched, until: 2026-10-31, by: it, ticket: T-1}
  - {name: soon, device: a, check: patched, until: 2026-11-30, by: it, ticket: T-2}
  - {name: exact, device: a, check: patched, until: 2026-11-30T12:30:00Z, by: it, ticket: T-3}
  - {name: later, device: a, check: patched, until: 2027-01-31, by: it, ticket: T-4}
apps:
  - {name: a, owner: it, hosts: [a.example], upstream: {servers: ['http://127.0.0.1:1']}, rules: [{name: rest, then: block}]}
";

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("v.yaml");
        std::fs::write(&config, text).unwrap();
        (folder, config)
    }

    fn args(config: &Path) -> Args {
        Args { config: config.to_owned(), strict: false, format: "text".to_owned(), print: false }
    }

    #[test]
    fn a_good_file_is_no_failure_and_a_bad_one_ends_with_a_summary() {
        let (_folder, config) = written(GOOD);
        run(args(&config)).unwrap();
        let checked = Checked::new(&config, "2026-01-01T00:00:00Z".parse().unwrap());
        let summary = checked.good(checked.configuration.as_ref().unwrap());
        assert!(summary.contains("v.yaml: ok, 0 warnings; 1 app, 1 rule, policy revision "), "{summary}");

        std::fs::write(&config, GOOD.replace("then: block", "then: blok").replace("decision_log", "decision_logg")).unwrap();
        let Failure(text) = run(args(&config)).unwrap_err();
        assert!(text.contains("v.yaml:5:1: error: decision_logg: unknown key `decision_logg`; did you mean `decision_log`?"), "{text}");
        assert!(text.contains("v.yaml:18:"), "{text}");
        assert!(text.ends_with(&format!("{}: not usable, 2 errors, 1 warning", config.display())), "{text}");
    }

    #[test]
    fn what_has_ended_is_a_warning_and_what_comes_is_listed() {
        let (_folder, config) = written(GOOD);
        let checked = Checked::new(&config, "2026-11-22T12:00:00Z".parse().unwrap());
        let lines = checked.report.lines();
        let said = format!("{}:13:51: warning: exceptions[0].until: ended on 2026-10-31, remove it\n", config.display());
        assert_eq!(lines, said);
        let coming = checked.coming(checked.configuration.as_ref().unwrap());
        let expected = "\
exception `soon` ends 2026-11-30 (by it, T-2)
exception `exact` ends 2026-11-30 13:30 CET (by it, T-3)
ladder `patched`: block from 2027-02-01
";
        assert_eq!(coming, expected);
        let json = checked.json();
        assert_eq!((&json["usable"], &json["errors"], &json["warnings"]), (&json!(true), &json!(0), &json!(1)));
        assert_eq!(json["diagnostics"][0]["line"], 13);
        assert_eq!(json["exceptions"][1]["until"], "2026-11-30T23:00:00Z");
        assert_eq!(json["ladders"], json!([{"fact": "patched", "step": "block", "at": "2027-01-31T23:00:00Z"}]));
        // At the moment of its end it has ended.
        let at_end = Checked::new(&config, "2026-11-30T23:00:00Z".parse().unwrap());
        assert_eq!(at_end.warnings(), 3, "{}", at_end.report.lines());
    }

    #[test]
    fn a_test_that_is_not_met_fails_the_check() {
        let tests = "tests:\n  - {name: met, app: a, expect: block}\n  - {name: not met, app: a, expect: {effect: forward, rule: rest}}\n";
        let (_folder, config) = written(&format!("{GOOD}{tests}"));
        let Failure(text) = run(args(&config)).unwrap_err();
        assert!(text.contains("v.yaml:21:5: error: the test `not met` fails: effect is `block`, expected `forward`"), "{text}");
        assert!(text.contains("v.yaml: 1 of 2 tests failed, "), "{text}");
        let checked = Checked::new(&config, "2026-11-22T12:00:00Z".parse().unwrap());
        let json = checked.json();
        assert_eq!((&json["usable"], &json["tests"], &json["failed"][0]["name"]), (&json!(true), &json!(2), &json!("not met")));
        assert_eq!(json["failed"][0]["problems"], json!(["effect is `block`, expected `forward`"]));
        std::fs::write(&config, format!("{GOOD}{}", tests.replace("effect: forward", "effect: block"))).unwrap();
        run(args(&config)).unwrap();
    }

    #[test]
    fn strict_fails_on_a_warning_and_only_then() {
        let strict = |config: &Path| run(Args { strict: true, ..args(config) });
        let good = GOOD.split_inclusive('\n').filter(|line| !line.contains("{name: old")).collect::<String>().replace("2026-", "2096-");
        let good = good.replace("2027-", "2097-");
        let (_folder, config) = written(&good);
        strict(&config).unwrap();
        std::fs::write(&config, good.replace("decision_log: {path: '-'}\n", "")).unwrap();
        run(args(&config)).unwrap();
        let Failure(text) = strict(&config).unwrap_err();
        assert!(text.ends_with("not usable, 0 errors, 1 warning; --strict forbids warnings"), "{text}");
    }
}
