//! `vestibule explain`: the decision for one request, and why.

mod json;
mod past;
pub(super) mod print;

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use super::failure::Failure;
use super::situation::{Situation, nearest};
use crate::config::{self, Configuration};
use crate::model::Device;
use crate::policy::Policy;
use crate::posture;
use crate::posture::store::{Access, Store};
use crate::record::Past;

/// How long the store may be busy with another process.
const PATIENCE: Duration = Duration::from_secs(5);

/// Print the decision for one request, each rule and why it did or did not match, and what would earn more.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
    /// The app that is asked for, by its name.
    #[arg(long, value_name = "NAME", required_unless_present = "request")]
    pub app: Option<String>,
    /// A request that was decided, by its id in the decision log: the configuration decides it anew, from what was known then.
    #[arg(long, value_name = "ID", conflicts_with_all = ["app", "device", "method", "path", "sets"])]
    pub request: Option<String>,
    /// The decision log to find the request in; by default the configuration's, and the one that was rotated away.
    #[arg(long, value_name = "FILE", requires = "request", conflicts_with = "app")]
    pub log: Option<PathBuf>,
    /// The device that asks, by its id in the store, its certificate taken for valid; without it one that nobody knows, unless `--set` describes one.
    #[arg(long, value_name = "ID")]
    pub device: Option<String>,
    /// The request's method.
    #[arg(long, default_value = "GET")]
    pub method: String,
    /// The path that is asked for; by default the app's path prefix.
    #[arg(long)]
    pub path: Option<String>,
    /// Puts a value in place of the real one: `tier=healthy`, `device.state=lost`, `posture.patched=fail`, `posture.patched.age=3d`,
    /// `net.zone=office`, `http.header.x-team=ops`, `time.now=2031-01-15` (facts age until then). An empty value takes a field out of the record. May be repeated.
    #[arg(long = "set", value_name = "SIGNAL=VALUE")]
    pub sets: Vec<String>,
    /// How to show the result: text, as by default, or json.
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text", hide_possible_values = true, hide_default_value = true)]
    pub format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Text,
    Json,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let loaded = config::load(&args.config)?;
    let lookup = |configuration: &Configuration, id: &str| {
        let told = |error: posture::Error| Failure::from(error).0;
        Store::open(&configuration.store.path, Access::Read, PATIENCE).map_err(told)?.device(id).map_err(told)
    };
    let text = match &args.request {
        Some(id) => {
            let line = past::find(id, args.log.as_deref(), &loaded.configuration)?;
            explain_past(&line, &loaded.configuration, args.format)?
        }
        None => explain(&args, &loaded.configuration, lookup, Timestamp::now())?,
    };
    super::print::print(&text)
}

/// A decided request by this configuration, and what was decided then.
fn explain_past(line: &[u8], configuration: &Configuration, format: Format) -> Result<String, Failure> {
    let policy = Policy::compile(configuration.policy.clone());
    let past = Past::parse(line).map_err(|error| Failure(format!("the request's line in the log is damaged: {error}")))?;
    let (app, again) = past::again(&past, &policy)?;
    let inputs = again.inputs(&policy);
    let (told, search) = (policy.explain(app, &inputs), policy.mend(app, &inputs));
    let revision = past.policy_rev.as_deref().unwrap_or("-");
    let by_another = revision != policy.revision();
    if format == Format::Json {
        let mut value = json::explanation(&policy, &inputs, &told, &search);
        value["then"] = serde_json::json!({
            "request_id": &*past.request_id, "policy_rev": revision, "app": &*past.app, "effect": &*past.effect, "mode": &*past.mode,
            "would": &*past.would, "rule": past.rule.as_deref(), "reasons": past.reasons.iter().map(|reason| &**reason).collect::<Vec<_>>(),
        });
        return Ok(format!("{value:#}\n"));
    }
    let shown = |text: &str| text.escape_debug().to_string();
    let rule = past.rule.as_deref().map(|rule| format!(", by {}", shown(rule))).unwrap_or_default();
    let reasons = past.reasons.iter().map(|reason| shown(reason)).collect::<Vec<_>>().join(", ");
    let note = if by_another { format!("\nNow      by policy {}, the configuration's", policy.revision()) } else { String::new() };
    // In report mode rule and reasons are of what would have been done.
    let would = if past.effect == past.would { String::new() } else { format!(" (all enforced: {})", shown(&past.would)) };
    let then = format!(
        "Asked    {} at {}\nThen     {}{would}{rule} ({reasons}), by policy {}{note}\n",
        shown(&past.request_id),
        shown(&past.ts),
        shown(&past.effect),
        shown(revision),
    );
    let mut text = then + &print::explanation(&policy, &inputs, &told, &search);
    if *past.app != *policy.app_name(app) {
        text.push_str(&format!("\nNote: it went to the app {} then.\n", shown(&past.app)));
    }
    Ok(text)
}

/// The text for standard output. `lookup` finds a device in the configuration's store; its error is complete.
pub fn explain(
    args: &Args,
    configuration: &Configuration,
    lookup: impl Fn(&Configuration, &str) -> Result<Option<Device>, String>,
    now: Timestamp,
) -> Result<String, Failure> {
    let policy = Policy::compile(configuration.policy.clone());
    let named = args.app.as_deref().unwrap_or_default();
    let Some(app) = policy.app_named(named) else {
        let names = configuration.policy.apps.iter().map(|app| app.name.as_str());
        return Err(Failure(format!("no app named `{named}`{}", nearest(named, names))));
    };
    let device = match &args.device {
        None => None,
        Some(id) => match lookup(configuration, id).map_err(Failure)? {
            None => return Err(Failure(format!("no device with id `{id}` in the store"))),
            found => found,
        },
    };
    let options = configuration.routes.get(app.index()).map(|route| route.path);
    let mut situation = Situation::new(&policy, app, device, now)?;
    situation.request(&args.method, args.path.as_deref(), options)?;
    for set in &args.sets {
        situation.set(set)?;
    }
    let situation = situation.settle()?;
    let elsewhere = policy.app_at(&situation.host, &situation.path).filter(|other| *other != app);
    let inputs = situation.inputs();
    let (told, search) = (policy.explain(app, &inputs), policy.mend(app, &inputs));
    if args.format == Format::Json {
        return Ok(format!("{:#}\n", json::explanation(&policy, &inputs, &told, &search)));
    }
    let mut text = print::explanation(&policy, &inputs, &told, &search);
    if let Some(other) = elsewhere {
        text.push_str(&format!("\nNote: a request for this host and path goes to the app {}, not to {}.\n", policy.app_name(other), named));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::model::{DeviceState, StateChange};

    const YAML: &str = r##"
version: 1
listeners: [{name: plain, bind: ["127.0.0.1:0"]}]
store: {url: sqlite://data/vestibule.db}
owners: {security: {contact: security@corp.example}, knowledge: {contact: "#wiki-help"}}
networks: {office: {ranges: [10.0.0.0/8], syn: direct}}
posture:
  sources: {mdm: {ttl: 24h}, manual: {ttl: 30d}}
  fixes: {screen_lock: {text: "Set a screen lock", help: "https://help.corp.example/lock"}}
classes:
  - {name: corporate, when: {device.ownership: corporate}}
tiers:
  - {name: none}
  - {name: known, require: {device.state: approved}}
  - {name: healthy, require: {posture.screen_lock: ok, posture.os_supported: ok}}
restrictions:
  read-only: {methods: [GET, HEAD], paths: {deny: ["/drafts/*"]}}
guardrails:
  - {name: gone, when: {device.state: [lost, retired]}, then: block}
  - {name: no-bots, when: {claims.browser: bot}, then: block, mode: report}
apps:
  - name: wiki
    owner: knowledge
    hosts: [wiki.corp.example]
    upstream: {servers: ["http://127.0.0.1:7001"]}
    rules:
      - {name: managed, when: {class: corporate, tier: ">= healthy"}, then: forward}
      - {name: reading, when: {any: [{tier: ">= known"}, {not: {net.zone: none}}]}, then: restrict, with: [read-only]}
      - {name: rest, then: block}
  - name: wiki-admin
    owner: knowledge
    hosts: [wiki.corp.example]
    path_prefix: /admin
    upstream: {servers: ["http://127.0.0.1:7001"]}
    rules: [{name: fresh, when: {posture.screen_lock.age: "< 12h", http.header.x-team: ops}, then: forward}]
  - name: odd
    owner: knowledge
    hosts: [odd.corp.example]
    upstream: {servers: ["http://127.0.0.1:7001"]}
    rules:
      - {name: liar, when: {wire.stack: [openssl, unknown], wire.contradictions: any}, then: block}
      - {name: rest, then: forward}
"##;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).expect("a moment")
    }

    fn laptop() -> Device {
        Device {
            id: "laptop-1".to_owned(),
            name: None,
            user: Some("ada".to_owned()),
            team: None,
            tags: vec![],
            ownership: Some(crate::model::Ownership::Corporate),
            onnet: None,
            state: DeviceState::Approved,
            state_changed: StateChange { by: "it".to_owned(), at: now() },
            os: None,
            os_version: None,
            model: None,
            keys: vec![],
            posture: vec![],
            created_at: now(),
            updated_at: now(),
            seq: 1,
        }
    }

    fn told(options: &[&str]) -> Result<String, String> {
        let fixed = ["explain", "-c", "vestibule.yaml"];
        let line = Line::try_parse_from(fixed.iter().chain(options)).expect("options");
        let files = [(PathBuf::from("vestibule.yaml"), YAML.as_bytes().to_vec())];
        let loaded = config::parse(&files).unwrap_or_else(|report| panic!("{report}"));
        let lookup = |_: &Configuration, id: &str| match id {
            "laptop-1" => Ok(Some(laptop())),
            "broken" => Err("the store is broken".to_owned()),
            _ => Ok(None),
        };
        explain(&line.args, &loaded.configuration, lookup, now()).map_err(|Failure(text)| text)
    }

    fn decision(options: &[&str]) -> String {
        let text = told(options).expect("an explanation");
        text.lines().find_map(|line| line.strip_prefix("Decision: ")).expect("a decision").to_owned()
    }

    #[test]
    fn a_decision_is_told_step_by_step() {
        let text =
            told(&["--app", "wiki", "--device", "laptop-1", "--set", "posture.screen_lock=fail", "--set", "posture.screen_lock.age=2h"]);
        let expected = "\
App      wiki of knowledge
Request  GET wiki.corp.example/
From     192.0.2.1, no named network
Device   laptop-1

Posture facts
  screen_lock  fail     manual, 2h ago

Class: corporate
  matched        corporate
                   yes        device.ownership is corporate, wanted corporate

Tier: known
  matched        none
                   always
  matched        known
                   yes        device.state is approved, wanted approved
  did not match  healthy
                   no         posture.screen_lock is fail, wanted ok
                   no         posture.os_supported is unknown, wanted ok

Guardrails
  did not match  gone: block
                   no         device.state is approved, wanted lost or retired
  passed over    no-bots: block
                   not enforced: it would not have matched
                   no         claims.browser is unavailable, wanted bot

Rules of the app, first match wins
  did not match  managed: forward
                   yes        class is corporate, wanted corporate
                   no         tier is known, wanted >= healthy
  matched        reading: restrict with read-only
                   yes        any of
                     yes        tier is known, wanted >= known
                     no         not
                       yes        net.zone is none, wanted none
  not reached    rest: block

Decision: restrict with read-only, by rule reading
  reasons  posture.screen_lock.fail, posture.os_supported.unknown
  contact  #wiki-help (knowledge)
  holds    until 2027-02-14T06:00:00Z, unless something changes before

Smallest fix, to forward
  posture.screen_lock is fail, wanted ok: Set a screen lock (https://help.corp.example/lock)
  posture.os_supported is unknown, wanted ok
";
        assert_eq!(text.expect("an explanation"), expected);
    }

    #[test]
    fn every_signal_can_be_set() {
        for (set, expected) in [
            (&["tier=healthy", "class=corporate"][..], "forward, by rule managed"),
            (&["class=corporate"], "restrict with read-only, by rule reading"),
            (&["class=blind"], "block, by rule rest"),
            (&["device.state=lost"], "block, by guardrail gone"),
            (&["device.key=certificate"], "restrict with read-only, by rule reading"),
            (&["device.key=none", "net.peer=::ffff:10.0.0.1"], "restrict with read-only, by rule reading"),
            (&["net.zone=office"], "restrict with read-only, by rule reading"),
            (&["net.peer=10.0.0.1", "net.zone=none"], "block, by rule rest"),
            (&["device.ownership=corporate", "posture.screen_lock=ok", "posture.os_supported=ok"], "forward, by rule managed"),
            (
                &["device.ownership=corporate", "posture.screen_lock=ok", "posture.os_supported=ok", "posture.age=40d"],
                "restrict with read-only, by rule reading",
            ),
            (&["device.ownership=corporate", "device.ownership=", "tier=healthy"], "restrict with read-only, by rule reading"),
        ] {
            let options: Vec<&str> = ["--app", "wiki"].into_iter().chain(set.iter().flat_map(|set| ["--set", set])).collect();
            assert_eq!(decision(&options), expected, "{set:?}");
        }
        let fresh = ["--app", "wiki-admin", "--set", "posture.screen_lock=ok", "--set", "http.header.x-team=ops"];
        assert_eq!(decision(&fresh), "forward, by rule fresh");
        let old = [&fresh[..], &["--set", "posture.screen_lock.age=13h"]].concat();
        assert_eq!(decision(&old), "block, since no rule matched");
        let twice = [&fresh[..], &["--set", "http.header.x-team=dev"]].concat();
        assert!(told(&twice).expect("an explanation").contains("undecided  http.header.x-team is 2 values, wanted ops"));
        let bot = told(&["--app", "wiki", "--set", "claims.browser=bot", "--set", "net.zone=office"]).expect("an explanation");
        let draft = told(&["--app", "wiki", "--device", "laptop-1", "--set", "posture.screen_lock=fail", "--path", "/drafts/1"]).unwrap();
        assert!(draft.contains("\n  refused  /drafts/1 is answered 403, restrict.paths\n"), "{draft}");
        assert!(bot.contains("would be block, by guardrail no-bots, were all of it enforced"), "{bot}");
        assert!(bot.contains("because  claims.browser"), "{bot}");
        for harmless in [
            "device.id=x",
            "device.name=x",
            "device.user=x",
            "device.team=x",
            "device.os=macos",
            "device.os_version=14.2",
            "device.model=x",
            "device.tags=a,b",
            "device.onnet=true",
            "device.known_for=3d",
            "wire.ja4=t13d1516h2_8daaf6152771_e5627efa2ab1",
            "wire.ja4_stable=unavailable",
            "wire.h2=1:65536;4:6291456|15663105|0|m,a,s,p",
            "wire.syn=unavailable",
            "wire.stack=chromium",
            "wire.os=windows,macos",
            "wire.browser=chrome, edge",
            "wire.intercepted=true",
            "wire.drift=true",
            "wire.contradictions=ua_browser_vs_tls,ua_os_vs_syn",
            "wire.contradictions=none",
            "claims.os=windows",
            "claims.form_factor=phone",
            "http.method=POST",
            "http.path=/x",
            "http.host=other.example",
            "time.now=2026-11-22",
            "time.weekday=sat,sun",
            "time.hour=>= 8 < 18",
        ] {
            told(&["--app", "wiki", "--set", harmless]).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    #[test]
    fn the_wire_can_be_described() {
        let wire = |sets: &[&str]| {
            let mut options = vec!["--app", "odd"];
            options.extend(sets.iter().flat_map(|set| ["--set", *set]));
            told(&options).expect("an explanation")
        };
        let nothing = wire(&[]);
        assert!(nothing.contains("no         wire.stack is unavailable, wanted openssl or unknown"), "{nothing}");
        let unknown = wire(&["wire.stack=unknown"]);
        assert!(unknown.contains("yes        wire.stack is unknown, wanted openssl or unknown"), "{unknown}");
        let lying = wire(&["wire.stack=gnutls,openssl", "wire.contradictions=ua_os_vs_syn"]);
        assert!(lying.contains("yes        wire.stack is gnutls, openssl, wanted openssl or unknown"), "{lying}");
        assert!(lying.contains("no         wire.contradictions is ua_os_vs_syn (weak), wanted any"), "{lying}");
        let direct = wire(&["wire.stack=openssl", "wire.contradictions=ua_os_vs_syn", "net.zone=office"]);
        assert!(direct.contains("yes        wire.contradictions is ua_os_vs_syn, wanted any"), "{direct}");
        assert!(direct.contains("Decision: block, by rule liar\n  reasons  wire.contradictions\n"), "{direct}");
    }

    #[test]
    fn what_is_wrong_is_named_with_the_nearest_right_name() {
        for (options, expected) in [
            (&["--app", "wikii"][..], "no app named `wikii`; did you mean `wiki`?"),
            (&["--app", "wiki", "--device", "zz"], "no device with id `zz` in the store"),
            (&["--app", "wiki", "--device", "broken"], "the store is broken"),
            (&["--app", "wiki", "--set", "tier"], "`--set tier`: expected SIGNAL=VALUE, such as `device.state=lost`"),
            (
                &["--app", "wiki", "--set", "tier=helthy"],
                "--set tier=helthy: `helthy` is not one of none, known, healthy; did you mean `healthy`?",
            ),
            (
                &["--app", "wiki", "--set", "device.stat=x"],
                "--set device.stat=x: no signal named `device.stat`; did you mean `device.state`?",
            ),
            (
                &["--app", "wiki", "--set", "posture.screen_look=ok"],
                "--set posture.screen_look=ok: no signal named `posture.screen_look`; did you mean `posture.screen_lock`?",
            ),
            (&["--app", "wiki", "--set", "time.hour=33"], "--set time.hour=33: `33` is no hour from 0 to 23, such as 9 or `>= 8 < 18`"),
            (&["--app", "wiki", "--set", "time.month=3"], "--set time.month=3: no signal named `time.month`; did you mean `time.now`?"),
            (
                &["--app", "wiki", "--set", "posture.screen_lock=good"],
                "--set posture.screen_lock=good: `good` is not one of ok, fail, unknown",
            ),
            (
                &["--app", "wiki", "--set", "posture.screen_lock.age=1h"],
                "posture.screen_lock.age: the fact needs a state too, posture.screen_lock=ok or fail",
            ),
            (
                &["--app", "wiki", "--set", "posture.age=soon"],
                "--set posture.age=soon: `soon` is no length of time, such as 90s, 15m, 3h or 30d",
            ),
            (
                &["--app", "wiki", "--set", "wire.ja4=t13d"],
                "--set wire.ja4=t13d: a JA4 fingerprint has 36 characters, such as t13d1516h2_8daaf6152771_e5627efa2ab1",
            ),
            (
                &["--app", "wiki", "--set", "wire.contradictions=ua_vs_hint"],
                "--set wire.contradictions=ua_vs_hint: `ua_vs_hint` is not one of ua_browser_vs_tls, ua_os_vs_syn, ua_browser_vs_h2, ua_vs_hints, record_os_vs_wire; did you mean `ua_vs_hints`?",
            ),
            (&["--app", "wiki", "--set", "wire.stak=go"], "--set wire.stak=go: no signal named `wire.stak`; did you mean `wire.stack`?"),
            (&["--app", "wiki", "--set", "wire.drift=yes"], "--set wire.drift=yes: `yes` is not one of true, false"),
            (&["--app", "wiki", "--set", "net.peer=10"], "--set net.peer=10: `10` is no address"),
            (
                &["--app", "wiki", "--device", "laptop-1", "--set", "device.key=none"],
                "device.key=none is a device without a record: no device, fact, class or tier goes with it",
            ),
            (
                &["--app", "wiki", "--set", "class=blind", "--set", "device.state=approved"],
                "class=blind is a device without a record: no device and no fact goes with it",
            ),
            (
                &["--app", "wiki", "--set", "device.key=none", "--set", "tier=healthy"],
                "device.key=none is a device without a record: no device, fact, class or tier goes with it",
            ),
            (
                &["--app", "wiki", "--set", "class=corporate", "--set", "device.key=none"],
                "device.key=none is a device without a record: no device, fact, class or tier goes with it",
            ),
        ] {
            assert_eq!(told(options).expect_err("a failure"), expected, "{options:?}");
        }
    }

    #[test]
    fn the_path_is_canonical_and_another_apps_path_is_noticed() {
        let text = told(&["--app", "wiki", "--path", "/x/../%61dmin?x=1"]).expect("an explanation");
        assert!(text.contains("Request  GET wiki.corp.example/admin\n"), "{text}");
        assert!(text.ends_with("Note: a request for this host and path goes to the app wiki-admin, not to wiki.\n"), "{text}");
        assert!(told(&["--app", "wiki", "--path", "/%2F"]).is_err());
    }
}
