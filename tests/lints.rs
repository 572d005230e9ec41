//! What `check` says of a policy that was not meant is true: policies and requests at random, and `Policy::decide` as the judge.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::sample::select;
use vestibule::config;
use vestibule::model::{
    Claims, Device, DeviceState, Effect, Fact, Freshness, NoRecord, Observation, Opening, Os, Ownership, Sight, Standing, Wire,
};
use vestibule::policy::{AppId, Given, Http, Inputs, Policy, RuleRef};
use vestibule::request;

const NOW: i64 = 1_800_000_000;

/// One comparison of what a rule reads; classes and tiers take those without `class` and `tier`.
fn test(rule: bool) -> BoxedStrategy<String> {
    let mut texts = vec![
        "device.ownership: corporate",
        "device.ownership: [corporate, personal]",
        "device.ownership: none",
        "device.state: approved",
        "device.state: [approved, lost]",
        "device.state: none",
        "device.onnet: true",
        "device.onnet: [false, none]",
        "device.team: red",
        "device.team: [red, blue]",
        "device.team: 'b*'",
        "device.key: certificate",
        "device.key: none",
        "device.os_version: '>= 14'",
        "device.os_version: '>= 14.1 < 15'",
        "device.os_version: '< 14'",
        "device.tags: a",
        "device.tags: [a, b]",
        "device.tags: any",
        "device.tags: none",
        "device.tags: 'n*'",
        "device.known_for: '> 10d'",
        "device.known_for: '> 1d'",
        "posture.patched: ok",
        "posture.patched: [ok, unknown]",
        "posture.patched: fail",
        "posture.disk: ok",
        "posture.patched.age: '< 1h'",
        "posture.patched.age: '< 2h'",
        "posture.age: '>= 1h'",
    ];
    if rule {
        texts.extend([
            "class: corporate",
            "class: [corporate, personal]",
            "class: blind",
            "class: unclassified",
            "class: '*'",
            "tier: known",
            "tier: '>= known'",
            "tier: '>= healthy'",
            "tier: '< healthy'",
            "net.zone: office",
            "net.zone: [office, none]",
            "net.peer: 10.0.0.0/8",
            "net.peer: 10.1.0.0/16",
            "http.method: GET",
            "http.method: [GET, POST]",
            "http.path: /a",
            "http.path: '/a*'",
            "http.path: '/a/*'",
            "http.path: [/a, '/b/*']",
            "http.host: wiki.example",
            "http.host: '*.example'",
            "http.header.x-a: one",
            "http.header.x-a: [one, two]",
            "http.header.x-a: none",
            "http.header.x-a: any",
            "claims.os: windows",
            "claims.os: [windows, unavailable]",
            "wire.drift: true",
            "wire.contradictions: any",
            "time.hour: '>= 8'",
            "time.hour: '< 9'",
            "time.weekday: [mon, tue, wed]",
        ]);
    }
    select(texts).prop_map(str::to_owned).boxed()
}

fn condition(rule: bool) -> BoxedStrategy<String> {
    let all = move || proptest::collection::vec(test(rule), 1..4).prop_map(joined);
    prop_oneof![
        6 => all(),
        1 => Just("{}".to_owned()),
        2 => all().prop_map(|one| format!("{{not: {one}}}")),
        2 => (all(), all()).prop_map(|(one, other)| format!("{{any: [{one}, {other}]}}")),
        1 => (all(), all()).prop_map(|(one, other)| format!("{{all: [{one}, {{not: {other}}}]}}")),
    ]
    .boxed()
}

/// A map: of two comparisons of one signal the second goes under `all`.
fn joined(tests: Vec<String>) -> String {
    let mut own: Vec<String> = Vec::new();
    let mut more = Vec::new();
    for test in tests {
        let key = |text: &str| text.split(": ").next().map(str::to_owned);
        if own.iter().any(|other| key(other) == key(&test)) { more.push(format!("{{{test}}}")) } else { own.push(test) }
    }
    if !more.is_empty() {
        own.push(format!("all: [{}]", more.join(", ")));
    }
    format!("{{{}}}", own.join(", "))
}

fn line() -> impl Strategy<Value = String> {
    let then = select(vec!["then: forward", "then: block", "then: restrict, with: [read]"]);
    (condition(true), then, select(vec!["enforce", "enforce", "enforce", "report"]))
        .prop_map(|(when, then, mode)| format!("when: {when}, {then}, mode: {mode}"))
}

/// The main file and an owner's file.
fn policy() -> impl Strategy<Value = (String, String)> {
    let layers = proptest::collection::vec(line(), 0..5);
    let rules = proptest::collection::vec(line(), 1..9);
    let guardrails = proptest::collection::vec(condition(true), 0..3);
    let classes = proptest::collection::vec(condition(false), 0..3);
    let tiers = (condition(false), condition(false));
    let cap = proptest::option::of(condition(false));
    (rules, layers, guardrails, classes, tiers, cap).prop_map(|(rules, layers, guardrails, classes, (known, healthy), cap)| {
        let numbered = |lines: &[String], text: &dyn Fn(usize, &String) -> String| -> String {
            lines.iter().enumerate().map(|(at, line)| text(at, line)).collect()
        };
        let rules = numbered(&rules, &|at, line| format!("      - {{name: r{at}, {line}}}\n"));
        let guardrails = numbered(&guardrails, &|at, when| format!("  - {{name: g{at}, when: {when}, then: block}}\n"));
        let guardrails = if guardrails.is_empty() { String::new() } else { format!("guardrails:\n{guardrails}") };
        let classes = numbered(&classes, &|at, when| format!("  - {{name: c{at}, when: {when}}}\n"));
        let cap = cap.map(|when| format!("caps: [{{name: cap, when: {when}, max_tier: known}}]\n")).unwrap_or_default();
        let layers = numbered(&layers, &|at, line| format!("  - {{name: l{at}, {line}}}\n"));
        let layers = if layers.is_empty() { "rules: []\n".to_owned() } else { format!("rules:\n{layers}") };
        let main = format!(
            "version: 1\n\
             listeners: [{{name: edge, bind: ['127.0.0.1:1']}}]\n\
             store: {{url: 'sqlite://x'}}\n\
             owners: {{it: {{contact: it}}}}\n\
             networks: {{office: [10.0.0.0/8]}}\n\
             posture: {{sources: {{mdm: {{ttl: 24h}}}}}}\n\
             restrictions: {{read: {{methods: [GET]}}}}\n\
             classes:\n{classes}  - {{name: corporate, when: {{device.ownership: corporate}}}}\n  \
               - {{name: personal, when: {{device.ownership: personal}}}}\n\
             tiers: [{{name: none}}, {{name: known, require: {known}}}, {{name: healthy, require: {healthy}}}]\n\
             {cap}{guardrails}apps:\n  \
               - name: wiki\n    owner: it\n    hosts: [wiki.example]\n    upstream: {{servers: ['http://a:1']}}\n    rules:\n{rules}"
        );
        (main, format!("owner: it\n{layers}"))
    })
}

/// A request, by chance.
#[derive(Clone, Debug)]
struct Visit {
    standing: Standing,
    now: Timestamp,
    peer: IpAddr,
    sight: Sight,
    claims: Claims,
    method: &'static str,
    path: &'static str,
    headers: HeaderMap,
    /// Every comparison is decided.
    sure: bool,
}

fn device() -> impl Strategy<Value = Device> {
    let word = |words: &[&'static str]| select(words.iter().map(|word| (!word.is_empty()).then(|| (*word).to_owned())).collect::<Vec<_>>());
    let fact = || proptest::option::of((any::<bool>(), select(vec![0i64, 3_000, 5_000, 90_000])));
    let tags = select(vec![vec![], vec!["a"], vec!["b", "none"], vec!["c"]]);
    let own = (
        select(vec![None, Some(Ownership::Corporate), Some(Ownership::Personal)]),
        select(vec![None, Some(true), Some(false)]),
        select(DeviceState::ALL.to_vec()),
    );
    (own, word(&["", "red", "blue", "none"]), word(&["", "14.1.2", "13", "14", "x"]), tags, fact(), fact(), select(vec![0i64, 2, 20]))
        .prop_map(|((ownership, onnet, state), team, os_version, tags, patched, disk, days)| {
            let now = Timestamp::from_second(NOW).unwrap();
            let mut device = Device::blank("d", state, "it", now - SignedDuration::from_hours(24 * days));
            (device.ownership, device.onnet, device.team, device.os_version) = (ownership, onnet, team, os_version);
            device.tags = tags.into_iter().map(str::to_owned).collect();
            let fact = |name: &str, stated: Option<(bool, i64)>| {
                stated.map(|(ok, age)| Fact {
                    name: name.to_owned(),
                    observations: vec![Observation {
                        ok,
                        value: None,
                        source: "mdm".to_owned(),
                        observed_at: now - SignedDuration::from_secs(age),
                        expires_at: None,
                    }],
                })
            };
            device.posture = [fact("disk", disk), fact("patched", patched)].into_iter().flatten().collect();
            device
        })
}

fn visit() -> impl Strategy<Value = Visit> {
    let known = |freshness| move |device| Standing::Known { device: Arc::new(device), freshness, proof_ends: NOW + 1_000_000 };
    let standing = prop_oneof![
        6 => device().prop_map(known(Freshness::Fresh)),
        1 => device().prop_map(known(Freshness::TooOld)),
        1 => Just(Standing::NoRecord(NoRecord::NoProof)),
        1 => Just(Standing::Unreadable),
    ];
    let headers = select(vec![vec![], vec!["one"], vec!["two"], vec!["none"], vec!["one", "two"]]);
    let http = (select(vec!["GET", "POST", "PUT"]), select(vec!["/", "/a", "/a/b", "/ab", "/b/c"]), headers);
    let rest = (
        0i64..7 * 24,
        select(vec![[10, 1, 0, 1], [10, 2, 0, 1], [192, 0, 2, 1]]),
        any::<bool>(),
        select(vec![None, Some(Os::Windows), Some(Os::Linux)]),
    );
    (standing, http, rest).prop_map(|(standing, (method, path, values), (hours, peer, drift, os))| {
        let mut headers = HeaderMap::new();
        for value in values.iter().copied() {
            headers.append("x-a", HeaderValue::from_static(value));
        }
        let whole = |device: &Device| {
            device.ownership.is_some()
                && device.onnet.is_some()
                && device.team.is_some()
                && device.os_version.as_deref().is_some_and(|version| version != "x")
                && device.posture.len() == 2
                && device
                    .posture
                    .iter()
                    .all(|fact| fact.observations.iter().all(|o| o.observed_at.as_second() + 80_000 > NOW + hours * 3600))
        };
        let sure = values.len() < 2
            && match &standing {
                Standing::Known { device, freshness, .. } => whole(device) && *freshness == Freshness::Fresh,
                Standing::NoRecord(_) => true,
                Standing::Unreadable => false,
            };
        Visit {
            standing,

            now: Timestamp::from_second(NOW).unwrap() + Duration::from_secs(hours.unsigned_abs() * 3600),
            peer: IpAddr::from(peer),
            sight: Sight { drift, ..Sight::default() },
            claims: Claims { os, ..Claims::default() },
            method,
            path,
            headers,
            sure,
        }
    })
}

/// What was said of guardrails, rules, classes and tiers, by their numbers.
#[derive(Debug, Default)]
struct Said {
    /// They decide nothing.
    unreached: Vec<RuleRef>,
    /// They decide nothing where every comparison is decided.
    unmet: Vec<RuleRef>,
    classes: Vec<u32>,
    tiers: Vec<u8>,
}

impl Said {
    fn of(report: &config::Report) -> Self {
        let mut said = Self::default();
        for item in report.diagnostics() {
            let number =
                |list: &str| item.key.split_once(list).and_then(|(_, rest)| rest.split_once(']')).and_then(|(at, _)| at.parse().ok());
            let main = item.position().0 == std::path::Path::new("v.yaml");
            let rule = match (number("guardrails["), number("rules[")) {
                (Some(guardrail), _) => Some(RuleRef::Guardrail(guardrail)),
                (None, Some(rule)) if main => Some(RuleRef::Rule(rule)),
                (None, rule) => rule.map(RuleRef::Layer),
            };
            let says = |words: &str| item.message.starts_with(words);
            let never = says("never reached") || says("never holds");
            match (rule, number("classes["), number("tiers[")) {
                (Some(rule), ..) if never || says("lets nothing through") => said.unreached.push(rule),
                (Some(rule), ..) if says("holds only while") || says("reached only while") => said.unmet.push(rule),
                (_, Some(class), _) if never => said.classes.push(class),
                (.., Some(tier)) if says("no device has this tier") => said.tiers.push(tier as u8),
                _ => {}
            }
        }
        said
    }

    fn something(&self) -> bool {
        !(self.unreached.is_empty() && self.unmet.is_empty() && self.classes.is_empty() && self.tiers.is_empty())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    #[test]
    fn what_is_said_of_a_policy_is_true((text, layers) in policy(), visits in proptest::collection::vec(visit(), 60)) {
        let files = [("v.yaml".into(), text.clone().into_bytes()), ("it.yaml".into(), layers.clone().into_bytes())];
        let loaded = match config::parse(&files) {
            Ok(loaded) => loaded,
            Err(report) => return Err(TestCaseError::fail(format!("{report}\n{text}{layers}"))),
        };
        let said = Said::of(&loaded.warnings);
        if !said.something() {
            return Ok(());
        }
        let policy = Policy::compile(loaded.configuration.policy);
        let host = request::host("wiki.example").unwrap();
        let (wire, opening) = (Wire::default(), Opening::default());
        for visit in visits {
            let inputs = Inputs {
                now: visit.now,
                standing: &visit.standing,
                peer: visit.peer,
                zone: policy.zone(visit.peer),
                wire: &wire,
                opening: &opening,
                sight: &visit.sight,
                claims: &visit.claims,
                http: Http { method: visit.method, host: &host, path: visit.path, headers: &visit.headers },
                given: Given::default(),
            };
            let decision = policy.decide(AppId(0), &inputs);
            let story = || format!("{decision:?}\n{visit:?}\n{}\n{text}{layers}", loaded.warnings.lines());
            let rule = decision.done.rule;
            prop_assert!(!said.unreached.contains(&rule), "{rule:?} decides\n{}", story());
            prop_assert!(!visit.sure || !said.unmet.contains(&rule), "{rule:?} decides and all is decided\n{}", story());
            prop_assert!(!said.classes.contains(&u32::from(decision.class.0)), "a class that nobody has\n{}", story());
            prop_assert!(!said.tiers.iter().any(|tier| decision.tier.0 >= *tier), "a tier that nobody has\n{}", story());
            prop_assert!(decision.done.effect != Effect::Forward || decision.done.rule != RuleRef::None);
        }
    }
}
