//! A decision costs no allocation, whatever it comes to.
#![allow(clippy::unwrap_used, reason = "a test ends where its world breaks")]

#[path = "support/counting.rs"]
mod counting;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use counting::COUNT;
use http::{HeaderMap, HeaderValue};
use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use vestibule::model::{
    Browser, Claims, Comparison, Contradiction, Device, DeviceState, Effect, Fact, Freshness, Identification, Mode, NoRecord, Observation,
    Opening, Os, Ownership, Set, Sight, Standing, StateChange, Wire,
};
use vestibule::policy::draft::{
    Compare, Condition, Delegation, DeviceField, Draft, Exception, Glob, Ladder, Layer, Lifts, Rule, Step, Test, Want, Who,
};
use vestibule::policy::{AppId, Given, Http, Inputs, OwnerId, Policy, RestrictionId, TierId};
use vestibule::{config, request};

const YAML: &str = r#"
version: 1
listeners: [{name: plain, bind: ["127.0.0.1:0"]}]
store: {url: sqlite://data/vestibule.db}
owners: {security: {contact: a}, knowledge: {contact: b}}
networks: {office: [10.0.0.0/8]}
posture: {sources: {mdm: {ttl: 24h}}}
classes: [{name: corporate, when: {device.ownership: corporate}}]
tiers:
  - {name: none}
  - {name: known, require: {device.state: approved}}
  - {name: healthy, require: {posture.screen_lock: ok, posture.os_supported: ok}}
caps:
  - {name: unseen, when: {posture.age: "> 7d"}, max_tier: known}
  - {name: lying-stack, when: {any: [{wire.contradictions: any}, {wire.contradictions: "*_vs_h2"}]}, max_tier: known}
restrictions: {read-only: {methods: [GET, HEAD]}, private: {no_store: true}}
guardrails:
  - {name: gone, when: {device.state: [lost, retired]}, then: block}
  - {name: odd, when: {wire.stack: [unknown, "our-*"], wire.os: windows, wire.browser: [firefox, "*go"], wire.drift: true}, then: block}
  - {name: watched, when: {http.header.x-debug: any}, then: block, mode: report}
apps:
  - name: wiki
    owner: knowledge
    hosts: ["wiki.corp.example", "*.wiki.corp.example"]
    upstream: {servers: ["http://127.0.0.1:7001"]}
    rules:
      - {name: pdf, when: {http.path: "/a*b*.pdf", http.method: GET, claims.os: windows}, then: block}
      - {name: old, when: {device.os_version: "< 14.2", posture.screen_lock.age: "> 1d"}, then: restrict, with: [private]}
      - {name: managed, when: {class: corporate, tier: ">= healthy"}, then: forward}
      - {name: reading, when: {any: [{tier: ">= known"}, {net.zone: office}]}, then: restrict, with: [read-only, private]}
"#;

fn device(now: Timestamp, state: DeviceState, healthy: bool) -> Device {
    let fact = |name: &str| Fact {
        name: name.to_owned(),
        observations: vec![Observation { ok: healthy, value: None, source: "mdm".to_owned(), observed_at: now, expires_at: None }],
    };
    Device {
        id: "laptop-1".to_owned(),
        name: None,
        user: None,
        team: None,
        tags: vec![],
        ownership: Some(Ownership::Corporate),
        onnet: None,
        state,
        state_changed: StateChange { by: String::new(), at: now },
        os: None,
        os_version: Some("14.3".to_owned()),
        model: None,
        keys: vec![],
        posture: vec![fact("os_supported"), fact("screen_lock")],
        created_at: now,
        updated_at: now,
        seq: 1,
    }
}

fn test(test: Test) -> Condition {
    Condition::Test(test)
}

fn id(id: &str) -> Condition {
    test(Test::Device(DeviceField::Id, Want::Text(vec![Glob(id.to_owned())])))
}

/// Ladders, exceptions, delegations and the clock besides.
fn with_everything(mut draft: Draft, now: Timestamp) -> Draft {
    let hours = |hours| now + SignedDuration::from_hours(hours);
    draft.time_zone = TimeZone::get("Europe/Berlin").unwrap();
    let ladder = |fact: &str, steps| Ladder {
        name: format!("ladder.{fact}"),
        fact: Arc::from(fact),
        apps: None,
        when: Condition::Not(Box::new(test(Test::Weekday(vec![Weekday::Monday])))),
        steps,
        with: vec![RestrictionId(0)],
    };
    draft.ladders = vec![
        ladder("screen_lock", vec![(hours(-9), Step::Report), (hours(-5), Step::Warn), (hours(90), Step::Block)]),
        ladder("firewall_on", vec![(hours(-9), Step::Restrict)]),
    ];
    let exception = |who, lifts, until| Exception {
        name: "exception".to_owned(),
        who,
        lifts,
        apps: Some(vec![AppId(0)]),
        from: Some(hours(-1)),
        until: hours(until),
        by: String::new(),
        ticket: String::new(),
    };
    let lifts = || Lifts::Checks(vec!["firewall_on".into()]);
    draft.exceptions = (0..100).map(|n| exception(Who::Device(format!("tablet-{n}")), lifts(), 9)).collect();
    draft.exceptions.extend([
        exception(Who::Device("laptop-1".to_owned()), lifts(), 9),
        exception(Who::Tag("pilot".to_owned()), Lifts::Checks(vec!["firewall_on".into(), "os_supported".into()]), 0),
        exception(Who::Tag("oncall".to_owned()), Lifts::Everything, 9),
    ]);
    let owner = OwnerId(1);
    draft.delegations = vec![
        Delegation { owner, apps: vec![AppId(0)], min_tier: TierId(2), may: vec![Effect::Forward] },
        Delegation { owner, apps: vec![AppId(0)], min_tier: TierId(1), may: vec![Effect::Restrict] },
    ];
    let rule = |name: &str, when, then| Rule { name: name.to_owned(), when, then, with: vec![RestrictionId(1)], mode: Mode::Enforce };
    let night = test(Test::Hour(vec![(Compare::AtLeast, 23)]));
    let layers = [
        rule("night", Condition::All(vec![night, id("laptop-1")]), Effect::Block),
        rule("shared", test(Test::Path(vec![Glob("/shared/*".to_owned())])), Effect::Forward),
        rule("open", test(Test::Path(vec![Glob("/open/*".to_owned())])), Effect::Restrict),
    ];
    draft.layers = layers.into_iter().map(|rule| Layer { owner, apps: vec![AppId(0)], rule }).collect();
    draft
}

#[test]
fn a_decision_allocates_nothing_whatever_it_comes_to() {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let files = [(PathBuf::from("vestibule.yaml"), YAML.as_bytes().to_vec())];
    let draft = config::parse(&files).map_err(|report| report.to_string()).unwrap().configuration.policy;
    let policy = Policy::compile(with_everything(draft, now));
    let host = request::host("x.wiki.corp.example").unwrap();
    let known =
        |state, healthy, freshness| Standing::Known { device: Arc::new(device(now, state, healthy)), freshness, proof_ends: 1_900_000_000 };
    let tagged = |tag: &str| {
        let device = Device { tags: vec![tag.to_owned()], ..device(now, DeviceState::Approved, false) };
        Standing::Known { device: Arc::new(device), freshness: Freshness::Fresh, proof_ends: 1_900_000_000 }
    };
    let claims = Claims { os: Some(Os::Windows), ..Claims::default() };
    let wire = Wire::default();
    let opening = Opening::default();
    let lying: Set<Contradiction> = [Contradiction::UaBrowserVsTls].into_iter().collect();
    let sight = Sight {
        identification: Arc::new(Identification {
            stacks: ["openssl".into(), "our-scanner".into(), "gnutls".into()].into_iter().collect(),
            browsers: Set::<Browser>::all(),
            os: Set::<Os>::all(),
            ..Identification::default()
        }),
        comparison: Comparison { contradictions: lying, ..Comparison::default() },
        ..Sight::default()
    };
    let mut headers = HeaderMap::new();
    headers.insert("x-debug", HeaderValue::from_static("1"));
    for (standing, path, expected) in [
        (known(DeviceState::Approved, true, Freshness::Fresh), "/", Effect::Forward),
        (known(DeviceState::Approved, true, Freshness::TooOld), "/", Effect::Restrict),
        (known(DeviceState::Approved, false, Freshness::Stale), "/", Effect::Restrict),
        (known(DeviceState::Pending, true, Freshness::Fresh), "/", Effect::Block),
        (known(DeviceState::Lost, true, Freshness::Fresh), "/", Effect::Block),
        (known(DeviceState::Approved, true, Freshness::Fresh), "/a/x/b/y.pdf", Effect::Block),
        (known(DeviceState::Approved, true, Freshness::Fresh), "/shared/x", Effect::Forward),
        (known(DeviceState::Approved, false, Freshness::Fresh), "/shared/x", Effect::Restrict),
        (known(DeviceState::Approved, false, Freshness::Fresh), "/open/x", Effect::Restrict),
        (tagged("oncall"), "/", Effect::Forward),
        (tagged("pilot"), "/a/x/b/y.pdf", Effect::Block),
        (Standing::NoRecord(NoRecord::ExpiredCertificate), "/", Effect::Block),
        (Standing::NoRecord(NoRecord::NoProof), "/open/x", Effect::Block),
        (Standing::Unreadable, "/", Effect::Block),
    ] {
        let inputs = Inputs {
            now,
            standing: &standing,
            peer: IpAddr::from([192, 0, 2, 1]),
            zone: None,
            wire: &wire,
            opening: &opening,
            sight: &sight,
            claims: &claims,
            http: Http { method: "GET", host: &host, path, headers: &headers },
            given: Given::default(),
        };
        let before = COUNT.get();
        let app = policy.app_at(&host, path);
        let decision = app.map(|app| policy.decide(app, &inputs));
        let refused = decision.map(|decision| policy.path_refused(decision.done.restrictions, path));
        let after = COUNT.get();
        assert!(refused.is_some());
        assert_eq!(decision.map(|decision| decision.done.effect), Some(expected), "{standing:?} {path}");
        assert_eq!(after - before, 0, "{standing:?} {path}");
    }
    // The allocator does count.
    let before = COUNT.get();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(COUNT.get() - before, 1);
}
