//! A decision, the first for a connection and memoised: 20 rules that read tier, posture, wire, method and path, with 10 and with 10,000 apps. `cargo bench --bench decide`
//! prints the time and the allocations of each; decisions and look-ups must show none.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use divan::{AllocProfiler, Bencher, black_box};
use http::{HeaderMap, Method};
use jiff::Timestamp;
use vestibule::forward::Identity;
use vestibule::gate::memo::{Memo, Question, Ruling};
use vestibule::model::{
    Browser, Claims, Device, DeviceState, Effect, Fact, FactState, Freshness, Host, Identification, Mode, NoRecord, Observation, Opening,
    Ownership, Set, Sight, Standing, StateChange, Wire,
};
use vestibule::policy::draft::{
    App, Cap, Class, Compare, Condition, Delegation, DeviceField, Draft, Exception, Glob, Guardrail, HostPattern, KeyProof, Ladder, Layer,
    Lifts, Owner, Restriction, Rule, Source, Step, Test, Tier, Want, Who, WireField,
};
use vestibule::policy::{AppId, ClassId, Given, Http, Inputs, OwnerId, Policy, RestrictionId, TierId};
use vestibule::record::{Case, Desk, Labels, Record, Writer};
use vestibule::request;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const APPS: [u32; 2] = [10, 10_000];
const NOW: i64 = 1_800_000_000;

fn main() {
    divan::main();
}

fn all(inner: Vec<Condition>) -> Condition {
    Condition::All(inner)
}

fn device_is(field: DeviceField, words: &[&str]) -> Condition {
    Condition::Test(Test::Device(field, Want::Text(words.iter().map(|word| Glob((*word).to_owned())).collect())))
}

fn fact(name: &str) -> Condition {
    Condition::Test(Test::Fact(Arc::from(name), vec![FactState::Ok]))
}

fn at_least(tier: u8) -> Condition {
    Condition::Test(Test::Tier(vec![(Compare::AtLeast, TierId(tier))]))
}

fn method(name: &str) -> Condition {
    Condition::Test(Test::Method(vec![Glob(name.to_owned())]))
}

fn wire(field: WireField, words: &[&str]) -> Condition {
    Condition::Test(Test::Wire(field, Want::Text(words.iter().map(|word| Glob((*word).to_owned())).collect())))
}

fn path(glob: &str) -> Condition {
    Condition::Test(Test::Path(vec![Glob(glob.to_owned())]))
}

fn rules() -> Vec<Rule> {
    let rule = |name: String, when, then, with| Rule { name, when, then, with, mode: Mode::Enforce };
    let specific = (0..18).map(|n| {
        let when = match n % 3 {
            0 if n % 2 == 0 => all(vec![wire(WireField::Stack, &["openssl", "go", "unknown"]), path(&format!("/area-{n}/*"))]),
            0 => all(vec![wire(WireField::Os, &["linux"]), wire(WireField::Browser, &["curl", "wget"]), at_least(2)]),
            1 => all(vec![path(&format!("/area-{n}/*")), fact("patched")]),
            _ => all(vec![method("GET"), path(&format!("/area-{n}/*.pdf")), at_least(3)]),
        };
        rule(format!("area-{n}"), when, Effect::Block, vec![])
    });
    let general = [
        rule("managed".to_owned(), all(vec![Condition::Test(Test::Class(vec![ClassId(0)])), at_least(2)]), Effect::Forward, vec![]),
        rule("byod-read".to_owned(), at_least(1), Effect::Restrict, vec![RestrictionId(0)]),
    ];
    specific.chain(general).collect()
}

fn host(app: u32) -> Host {
    request::host(&format!("app-{app}.corp.example")).expect("a host")
}

fn policy(apps: u32) -> Policy {
    Policy::compile(draft(apps, rules))
}

fn draft(apps: u32, rules: impl Fn() -> Vec<Rule>) -> Draft {
    let tier = |name: &str, require| Tier { name: name.to_owned(), require };
    let class = |name: &str, ownership: &str| Class { name: name.to_owned(), when: device_is(DeviceField::Ownership, &[ownership]) };
    let app = |index: u32| App {
        name: format!("app-{index}"),
        title: String::new(),
        owner: OwnerId(0),
        labels: vec![],
        hosts: vec![HostPattern::Exact(host(index))],
        path_prefix: "/".to_owned(),
        mode: Mode::Enforce,
        rules: rules(),
    };
    Draft {
        revision: "0123456789ab".to_owned(),
        time_zone: jiff::tz::TimeZone::UTC,
        owners: vec![Owner { name: "security".to_owned(), contact: String::new() }],
        networks: vec![],
        sources: vec![Source { name: "mdm".to_owned(), ttl: Duration::from_secs(86_400) }],
        fixes: vec![],
        classes: vec![class("corporate", "corporate"), class("personal", "personal")],
        tiers: vec![
            tier("none", all(vec![])),
            tier("known", device_is(DeviceField::State, &["approved"])),
            tier("healthy", all(vec![fact("os_supported"), fact("screen_lock")])),
            tier(
                "trusted",
                all(vec![Condition::Test(Test::KeyProof(vec![KeyProof::Certificate])), fact("mdm_compliant"), fact("disk_encrypted")]),
            ),
        ],
        caps: vec![Cap {
            name: "lying-stack".to_owned(),
            when: Condition::Test(Test::Wire(WireField::Contradictions, Want::Any)),
            max_tier: TierId(1),
        }],
        restrictions: vec![Restriction { name: "read-only".to_owned(), methods: Some(vec!["GET".to_owned()]), ..Restriction::default() }],
        guardrails: vec![Guardrail {
            name: "gone".to_owned(),
            apps: None,
            when: device_is(DeviceField::State, &["suspended", "lost", "retired"]),
            then: Effect::Block,
            with: vec![],
            mode: Mode::Enforce,
        }],
        ladders: vec![],
        delegations: vec![],
        exceptions: vec![],
        apps: (0..apps).map(app).collect(),
        layers: vec![],
    }
}

/// 20 guardrails, of which each second is for a tenth of the apps.
fn guardrails(apps: u32) -> Vec<Guardrail> {
    let guardrail = |n: u32| Guardrail {
        name: format!("guardrail-{n}"),
        apps: (n % 2 == 1).then(|| (0..apps).filter(|app| app % 10 == n / 2).map(AppId).collect()),
        when: match n % 4 {
            0 => device_is(DeviceField::State, &["suspended", "lost", "retired"]),
            1 => all(vec![path("/admin/*"), Condition::Not(Box::new(at_least(3)))]),
            2 => all(vec![wire(WireField::Stack, &["openssl", "go"]), device_is(DeviceField::Team, &[&format!("team-{n}")])]),
            _ => all(vec![Condition::Not(Box::new(fact("patched"))), method("POST")]),
        },
        then: Effect::Block,
        with: vec![],
        mode: Mode::Enforce,
    };
    (0..20).map(guardrail).collect()
}

fn warning(name: &'static str, step: Step) -> Ladder {
    let steps = vec![(moment(-86_400), step), (moment(864_000), Step::Block)];
    Ladder { name: format!("ladder.{name}"), fact: Arc::from(name), apps: None, when: all(vec![]), steps, with: vec![RestrictionId(0)] }
}

/// Each for another device, except those of the names given.
fn exceptions(others: u32, own: &[&'static str]) -> Vec<Exception> {
    let exception = |who: String, fact: &str| Exception {
        name: format!("for-{who}"),
        who: Who::Device(who),
        lifts: Lifts::Checks(vec![Arc::from(fact)]),
        apps: None,
        from: None,
        until: moment(864_000),
        by: String::new(),
        ticket: String::new(),
    };
    let others = (0..others).map(|n| exception(format!("tablet-{n}"), "screen_lock"));
    others.chain(own.iter().map(|fact| exception("laptop-1".to_owned(), fact))).collect()
}

fn moment(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW + seconds).expect("a moment")
}

/// A corporate laptop of ten facts.
fn laptop(healthy: bool) -> Standing {
    let mut facts = [
        "disk_encrypted",
        "edr_healthy",
        "firewall_on",
        "mdm_compliant",
        "mdm_enrolled",
        "not_jailbroken",
        "os_supported",
        "patched",
        "screen_lock",
        "secure_boot",
    ]
    .map(|name| Fact {
        name: name.to_owned(),
        observations: vec![Observation {
            ok: healthy || name != "screen_lock",
            value: None,
            source: "mdm".to_owned(),
            observed_at: moment(-3600),
            expires_at: None,
        }],
    });
    facts.sort_by(|a, b| a.name.cmp(&b.name));
    let device = Device {
        id: "laptop-1".to_owned(),
        name: None,
        user: None,
        team: None,
        tags: vec![],
        ownership: Some(Ownership::Corporate),
        onnet: Some(true),
        state: DeviceState::Approved,
        state_changed: StateChange { by: String::new(), at: moment(-90_000) },
        os: None,
        os_version: None,
        model: None,
        keys: vec![],
        posture: facts.to_vec(),
        created_at: moment(-90_000),
        updated_at: moment(-3600),
        seq: 1,
    };
    Standing::Known { device: Arc::new(device), freshness: Freshness::Fresh, proof_ends: NOW + 90_000 }
}

const PATH: &str = "/area/of/some/depth/page.html";

fn first_decision(bencher: Bencher<'_, '_>, apps: u32, standing: Standing, expected: Effect) {
    decision(bencher, &policy(apps), standing, expected);
}

/// With all that `change` adds to the policy.
fn first_decision_with(bencher: Bencher<'_, '_>, standing: Standing, expected: Effect, change: impl FnOnce(&mut Draft)) {
    let mut draft = draft(10, rules);
    change(&mut draft);
    decision(bencher, &Policy::compile(draft), standing, expected);
}

fn decision(bencher: Bencher<'_, '_>, policy: &Policy, standing: Standing, expected: Effect) {
    let apps = u32::try_from(policy.app_count()).expect("few apps");
    let host = host(apps / 2);
    let app = policy.app_at(&host, PATH).expect("an app");
    with_inputs(&standing, &host, |inputs| {
        assert_eq!((app, policy.decide(app, &inputs).done.effect), (AppId(apps / 2), expected));
        bencher.bench_local(|| policy.decide(black_box(app), black_box(&inputs)));
    });
}

fn with_inputs(standing: &Standing, host: &Host, then: impl FnOnce(Inputs<'_>)) {
    let (wire, opening, claims, headers) = (Wire::default(), Opening::default(), Claims::default(), HeaderMap::new());
    let identification = Identification {
        stacks: ["chromium".into()].into_iter().collect(),
        browsers: [Browser::Chrome, Browser::Edge, Browser::Opera].into_iter().collect(),
        os: Set::all(),
        ..Identification::default()
    };
    let sight = Sight { identification: Arc::new(identification), ..Sight::default() };
    then(Inputs {
        now: moment(0),
        standing,
        peer: IpAddr::from([192, 0, 2, 1]),
        zone: None,
        wire: &wire,
        opening: &opening,
        sight: &sight,
        claims: &claims,
        http: Http { method: "GET", host, path: PATH, headers: &headers },
        given: Given::default(),
    });
}

/// The same decision for a later request of the connection, found by comparing what it read: app, method and path.
#[divan::bench(args = APPS)]
fn memoised(bencher: Bencher<'_, '_>, apps: u32) {
    let policy = policy(apps);
    let (host, standing) = (host(apps / 2), laptop(true));
    let app = policy.app_at(&host, PATH).expect("an app");
    let desk = Desk::new(Arc::new(Record::new().expect("metrics")), Writer(0));
    let labels = Labels {
        app: "app",
        class: "corporate",
        tier: "healthy",
        reason: "rule.matched",
        owner: "security",
        mode: "enforce",
        decided: Effect::Forward,
        done: Effect::Forward,
    };
    let made = Instant::now();
    let headers = HeaderMap::new();
    let question =
        Question { app, rules: 1, standing: 1, claims: 1, sight: 1, method: &Method::GET, host: &host, path: PATH, headers: &headers };
    with_inputs(&standing, &host, |inputs| {
        let decision = policy.decide(app, &inputs);
        let identity = Identity::new(Some("laptop-1"), "corporate", "healthy", Effect::Forward, []);
        let ruling = Ruling {
            decision,
            standing: standing.clone(),
            zone: None,
            claims: Rc::default(),
            sight: Rc::default(),
            identity,
            case: Case::new(&desk, &labels, Vec::new()),
            refused: Default::default(),
            told: None,
            noticed: Default::default(),
            mend: Default::default(),
            assertion: Default::default(),
            permissions_policy: None,
            made,
        };
        let mut memo = Memo::default();
        memo.keep(&question, policy.reads(app), Rc::new(ruling));
        assert_eq!(memo.find(&question, moment(0), made).expect("kept").decision, decision);
        bencher.bench_local(|| memo.find(black_box(&question), moment(0), made));
    });
}

#[divan::bench(args = APPS)]
fn forwarded(bencher: Bencher<'_, '_>, apps: u32) {
    first_decision(bencher, apps, laptop(true), Effect::Forward);
}

/// What would earn more: worked out for the page of a refused request, once for a decision.
#[divan::bench(args = APPS)]
fn mended(bencher: Bencher<'_, '_>, apps: u32) {
    let (policy, standing, host) = (policy(apps), laptop(false), host(apps / 2));
    let app = policy.app_at(&host, PATH).expect("an app");
    with_inputs(&standing, &host, |inputs| {
        let decision = policy.decide(app, &inputs);
        assert_eq!(policy.mend(app, &inputs).mend().map(|mend| mend.effect), Some(Effect::Forward));
        bencher.bench_local(|| policy.to_mend(black_box(&decision), black_box(&inputs)));
    });
}

/// With the reasons why it is not forwarded.
#[divan::bench(args = APPS)]
fn restricted(bencher: Bencher<'_, '_>, apps: u32) {
    first_decision(bencher, apps, laptop(false), Effect::Restrict);
}

#[divan::bench(args = APPS)]
fn blind(bencher: Bencher<'_, '_>, apps: u32) {
    first_decision(bencher, apps, Standing::NoRecord(NoRecord::NoProof), Effect::Block);
}

/// Three ladders: one warns of a fact that fails, two find theirs ok.
#[divan::bench]
fn with_ladders(bencher: Bencher<'_, '_>) {
    first_decision_with(bencher, laptop(false), Effect::Restrict, |draft| {
        draft.ladders = vec![warning("screen_lock", Step::Warn), warning("patched", Step::Block), warning("secure_boot", Step::Restrict)];
    });
}

/// 10,000 exceptions, none of which is for this device.
#[divan::bench]
fn with_exceptions_of_others(bencher: Bencher<'_, '_>) {
    first_decision_with(bencher, laptop(true), Effect::Forward, |draft| draft.exceptions = exceptions(10_000, &[]));
}

/// The same, and one that lifts what keeps the device from being forwarded.
#[divan::bench]
fn with_an_exception(bencher: Bencher<'_, '_>) {
    first_decision_with(bencher, laptop(false), Effect::Forward, |draft| draft.exceptions = exceptions(10_000, &["screen_lock"]));
}

/// A rule in front of all others that reads the hour in Berlin.
#[divan::bench]
fn with_the_hour(bencher: Bencher<'_, '_>) {
    first_decision_with(bencher, laptop(true), Effect::Forward, |draft| {
        draft.time_zone = jiff::tz::TimeZone::get("Europe/Berlin").expect("a zone");
        let hour = Condition::Test(Test::Hour(vec![(Compare::AtLeast, 24)]));
        let night = Rule { name: "night".to_owned(), when: hour, then: Effect::Block, with: vec![], mode: Mode::Enforce };
        draft.apps.iter_mut().for_each(|app| app.rules.insert(0, night.clone()));
    });
}

/// An owner's file forwards by a grant what the app's own rules restrict.
#[divan::bench]
fn with_a_delegation(bencher: Bencher<'_, '_>) {
    first_decision_with(bencher, laptop(false), Effect::Forward, |draft| {
        let apps: Vec<AppId> = (0..10).map(AppId).collect();
        let rule = Rule { name: "ours".to_owned(), when: fact("patched"), then: Effect::Forward, with: vec![], mode: Mode::Enforce };
        draft.delegations = vec![Delegation { owner: OwnerId(0), apps: apps.clone(), min_tier: TierId(1), may: vec![Effect::Forward] }];
        draft.layers = vec![Layer { owner: OwnerId(0), apps, rule }];
    });
}

/// Ten rules for each app, 20 guardrails: 10,000 apps have 100,000 rules.
#[divan::bench(args = APPS)]
fn compile(bencher: Bencher<'_, '_>, apps: u32) {
    let ten = || rules().split_off(10);
    let draft = Draft { guardrails: guardrails(apps), ..draft(apps, ten) };
    assert_eq!(draft.apps.iter().map(|app| app.rules.len()).sum::<usize>(), apps as usize * 10);
    bencher.with_inputs(|| draft.clone()).bench_local_values(Policy::compile);
}

#[divan::bench(args = APPS)]
fn app_of_a_request(bencher: Bencher<'_, '_>, apps: u32) {
    let policy = policy(apps);
    let host = host(apps / 2);
    bencher.bench_local(|| policy.app_at(black_box(&host), black_box(PATH)));
}
