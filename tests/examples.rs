//! The policies that are shipped, and those of docs/policy.md: they are good, they meet their own tests, they decide what this file says, and between
//! them they use every word of the language.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends where its world breaks")]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};
use support::{Curl, Lab, Proxy};
use vestibule::config;
use vestibule::model::{
    Claims, Contradiction, Device, DeviceState, Fact, Freshness, NoRecord, Observation, Opening, Os, Ownership, Sight, Standing,
    StateChange, Wire,
};
use vestibule::policy::{Given, Http, Inputs, Policy};
use vestibule::request;

const EXAMPLES: [&str; 9] = [
    "observe-first.yaml",
    "four-classes.yaml",
    "contractors.yaml",
    "kiosk-and-scanners.yaml",
    "lost-device.yaml",
    "high-security.yaml",
    "behind-a-balancer.yaml",
    "behind-nginx.yaml",
    "line-of-business/vestibule.yaml",
];

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn files_below(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files_below(&path, ending));
        } else if path.to_str().unwrap().ends_with(ending) {
            all.push(path);
        }
    }
    all.sort();
    all
}

/// A lab whose folder has `config/` as it is shipped beside `certs/`.
fn shipped() -> Lab {
    let lab = Lab::new();
    for path in files_below(&here("config"), ".yaml") {
        let to = lab.path(path.strip_prefix(here("")).unwrap().to_str().unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(path, to).unwrap();
    }
    lab
}

fn tree(text: &str) -> Value {
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn every_example_is_good_and_meets_its_own_tests() {
    let lab = shipped();
    let folder = here("config/examples");
    let listed: BTreeSet<PathBuf> = EXAMPLES.iter().map(|name| folder.join(name)).collect();
    for path in files_below(&folder, ".yaml") {
        let text = std::fs::read_to_string(&path).unwrap();
        let schema = text.lines().next().unwrap().strip_prefix("# yaml-language-server: $schema=").expect("editors find the schema");
        assert!(
            path.parent().unwrap().join(schema).ends_with("vestibule.schema.json") && path.parent().unwrap().join(schema).is_file(),
            "{path:?}"
        );
        assert!(text.lines().filter(|line| line.trim_start().starts_with('#')).count() >= 4, "{path:?} explains itself");
        assert!(listed.contains(&path) || path.to_str().unwrap().contains("policy.d"), "{path:?} is in no test");
    }
    for name in EXAMPLES {
        let told = lab.vestibule(&["check", "--strict", "-c", &format!("config/examples/{name}")]).succeeded().stdout;
        assert!(told.contains(": ok, 0 warnings; ") && told.contains(" tests passed, "), "{name}: {told}");
        let tests = config::load(&lab.path("config/examples").join(name)).unwrap().configuration.tests.len();
        assert!(tests >= 5, "{name} has {tests} tests");
    }
    let sample = lab.vestibule(&["check", "-c", "config/vestibule.yaml"]).succeeded().stdout;
    assert!(sample.contains(" tests passed, "), "{sample}");
}

#[test]
fn a_test_that_an_example_does_not_meet_fails_its_check() {
    let lab = shipped();
    let path = lab.path("config/examples/four-classes.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("net.peer: 10.1.2.3"));
    std::fs::write(&path, text.replace("net.peer: 10.1.2.3", "net.peer: 192.0.2.77")).unwrap();
    lab.vestibule(&["check", "-c", "config/examples/four-classes.yaml"]).failed_with(&[
        "four-classes.yaml:",
        "personal where it must not be",
        "expected `block`",
        "1 of 8 tests failed",
        "matched        readers: restrict with read-only, no-download",
    ]);
}

/// A visit, made without the code that reads tests.
struct Visit {
    device: Option<Device>,
    now: Timestamp,
    peer: &'static str,
    method: &'static str,
    path: &'static str,
    headers: HeaderMap,
    sight: Sight,
    claims: Claims,
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const NOON: &str = "2030-06-05T10:00:00Z"; // a Wednesday

impl Visit {
    fn stranger() -> Self {
        let (sight, claims) = (Sight::default(), Claims::default());
        Self { device: None, now: at(NOON), peer: "192.0.2.1", method: "GET", path: "/", headers: HeaderMap::new(), sight, claims }
    }

    /// An approved device with these facts, observed an hour ago by a source that the policy believes.
    fn of(change: impl FnOnce(&mut Device), source: &str, facts: &[(&str, bool)]) -> Self {
        let now = at(NOON);
        let seen = now - SignedDuration::from_hours(1);
        let fact = |(name, ok): &(&str, bool)| {
            let seen = Observation { ok: *ok, value: None, source: source.to_owned(), observed_at: seen, expires_at: None };
            Fact { name: (*name).to_owned(), observations: vec![seen] }
        };
        let mut device = Device {
            id: "d-1".to_owned(),
            name: None,
            user: None,
            team: None,
            tags: vec![],
            ownership: None,
            onnet: None,
            state: DeviceState::Approved,
            state_changed: StateChange { by: "it".to_owned(), at: now },
            os: None,
            os_version: None,
            model: None,
            keys: vec![],
            posture: facts.iter().map(fact).collect(),
            created_at: now - SignedDuration::from_hours(24 * 60),
            updated_at: now,
            seq: 1,
        };
        change(&mut device);
        Self { device: Some(device), ..Self::stranger() }
    }

    /// Moves the visit, and what was observed with it.
    fn when(mut self, now: &str) -> Self {
        let by = at(now).duration_since(self.now);
        self.now = at(now);
        let observations = self.device.iter_mut().flat_map(|device| &mut device.posture).flat_map(|fact| &mut fact.observations);
        observations.for_each(|seen| seen.observed_at += by);
        self
    }

    /// What the example decides: effect, restrictions by name, rule.
    fn decided(self, example: &str, app: &str) -> String {
        let lab = shipped();
        let loaded = config::load(&lab.path("config/examples").join(example)).unwrap_or_else(|report| panic!("{report}"));
        let policy = Policy::compile(loaded.configuration.policy);
        let id = policy.app_named(app).unwrap();
        let host = request::host("any.corp.example").unwrap();
        let standing = match self.device {
            None => Standing::NoRecord(NoRecord::NoProof),
            Some(device) => Standing::Known { device: Arc::new(device), freshness: Freshness::Fresh, proof_ends: i64::MAX },
        };
        let (wire, opening, peer) = (Wire::default(), Opening::default(), self.peer.parse().unwrap());
        let decision = policy.decide(
            id,
            &Inputs {
                now: self.now,
                standing: &standing,
                peer,
                zone: policy.zone(peer),
                wire: &wire,
                opening: &opening,
                sight: &self.sight,
                claims: &self.claims,
                http: Http { method: self.method, host: &host, path: self.path, headers: &self.headers },
                given: Given::default(),
            },
        );
        let mut with: Vec<&str> = decision.done.restrictions.iter().map(|id| policy.restriction(id).name.as_str()).collect();
        with.sort_unstable();
        let would = if decision.would.effect == decision.done.effect {
            String::new()
        } else {
            format!(", would {}", decision.would.effect.as_str())
        };
        format!("{} [{}]{would}", decision.done.effect.as_str(), with.join(" "))
    }
}

fn corporate(device: &mut Device) {
    device.ownership = Some(Ownership::Corporate);
}

#[test]
fn observe_first_changes_nothing_but_what_is_enforced() {
    let decided = |visit: Visit| visit.decided("observe-first.yaml", "wiki");
    let laptop = |ok| Visit::of(corporate, "mdm", &[("screen_lock", true), ("disk_encrypted", ok)]);
    assert_eq!(decided(Visit::stranger()), "forward [], would block");
    assert_eq!(decided(laptop(true)), "forward []");
    assert_eq!(decided(laptop(false)), "forward []", "before the first step");
    assert_eq!(decided(laptop(false).when("2030-09-15T10:00:00Z")), "forward [], would restrict");
    assert_eq!(decided(laptop(false).when("2030-11-15T10:00:00Z")), "restrict [read-only]");
    assert_eq!(decided(laptop(false).when("2030-12-15T10:00:00Z")), "block []");
    assert_eq!(decided(laptop(true).when("2030-12-15T10:00:00Z")), "forward []");
    let lost = |device: &mut Device| device.state = DeviceState::Lost;
    assert_eq!(decided(Visit::of(lost, "mdm", &[])), "block []");
}

#[test]
fn behind_a_balancer_the_clients_address_counts() {
    let decided = |visit: Visit| visit.decided("behind-a-balancer.yaml", "wiki");
    let phone = || Visit::of(|device| device.ownership = Some(Ownership::Personal), "mdm", &[("screen_lock", true)]);
    assert_eq!(decided(Visit::of(corporate, "mdm", &[("screen_lock", true)])), "forward []");
    assert_eq!(decided(Visit { peer: "10.1.2.3", ..phone() }), "restrict [read-only]");
    assert_eq!(decided(Visit { peer: "10.0.5.2", ..phone() }), "block []", "that of the balancer says nothing");
    assert_eq!(decided(Visit { peer: "10.1.2.3", ..Visit::stranger() }), "block []");
}

#[test]
fn the_four_classes_get_what_their_example_says() {
    let decided = |visit: Visit| visit.decided("four-classes.yaml", "wiki");
    let fit = [("os_supported", true), ("screen_lock", true)];
    let personal = |onnet| move |device: &mut Device| (device.ownership, device.onnet) = (Some(Ownership::Personal), Some(onnet));
    assert_eq!(decided(Visit::of(corporate, "mdm", &fit)), "forward []");
    assert_eq!(decided(Visit::of(corporate, "mdm", &[("os_supported", true)])), "restrict [no-download read-only]");
    assert_eq!(decided(Visit::of(personal(true), "mdm", &fit)), "forward []");
    assert_eq!(decided(Visit::of(personal(false), "mdm", &fit)), "restrict [no-download read-only]");
    assert_eq!(decided(Visit { peer: "10.9.9.9", ..Visit::of(personal(false), "mdm", &fit) }), "block []");
    let phone = Claims { os: Some(Os::Android), ..Claims::default() };
    assert_eq!(decided(Visit { claims: phone.clone(), ..Visit::of(personal(true), "mdm", &fit) }), "restrict [no-download private]");
    assert_eq!(decided(Visit { claims: phone, ..Visit::stranger() }), "block []");
}

#[test]
fn contractors_come_in_working_hours_from_their_offices() {
    let contractor = |device: &mut Device| device.tags = vec!["contract-acme".to_owned()];
    let visit = || Visit { peer: "198.51.100.7", ..Visit::of(contractor, "manual", &[("disk_encrypted", true)]) };
    let decided = |visit: Visit| visit.decided("contractors.yaml", "build");
    let settled = "restrict [build-only office-hours-pace short]";
    assert_eq!(decided(visit()), settled);
    assert_eq!(decided(visit().when("2030-06-08T10:00:00Z")), "block []", "Saturday");
    assert_eq!(decided(visit().when("2030-06-05T17:59:59Z")), settled, "just before eight in Berlin's summer");
    assert_eq!(decided(visit().when("2030-06-05T18:00:00Z")), "block []", "eight");
    assert_eq!(decided(visit().when("2030-11-20T18:30:00Z")), settled, "half past seven in winter");
    assert_eq!(decided(Visit { peer: "10.0.0.1", ..visit() }), "block []", "not their office");
    let new = |device: &mut Device| {
        contractor(device);
        device.created_at = at(NOON) - SignedDuration::from_hours(24);
    };
    let new = || Visit { peer: "192.0.2.1", ..Visit::of(new, "manual", &[("disk_encrypted", true)]) };
    assert_eq!(decided(new()), "restrict [build-only no-download office-hours-pace short]");
    assert_eq!(decided(Visit { method: "POST", ..new() }), "block []");
    // Glass is broken for two days, in Berlin's winter time.
    for (now, then) in [
        ("2031-03-01T04:59:59Z", "block []"),
        ("2031-03-01T05:00:00Z", "forward []"),
        ("2031-03-02T22:59:59Z", "forward []"),
        ("2031-03-02T23:00:00Z", "block []"),
    ] {
        assert_eq!(decided(visit().when(now)), then, "{now}");
    }
}

#[test]
fn kiosks_and_scanners_do_their_one_thing() {
    let kiosk = |device: &mut Device| (device.model, device.team) = (Some("Kiosk-12".to_owned()), Some("reception".to_owned()));
    let visit = || Visit { peer: "10.20.1.9", ..Visit::of(kiosk, "mdm", &[]) };
    assert_eq!(visit().decided("kiosk-and-scanners.yaml", "visitors"), "restrict [check-in counter]");
    assert_eq!(visit().decided("kiosk-and-scanners.yaml", "stock"), "block []");
    assert_eq!(Visit { peer: "10.20.4.9", ..visit() }.decided("kiosk-and-scanners.yaml", "visitors"), "block []");
    assert_eq!(
        Visit { sight: Sight { drift: true, ..Sight::default() }, ..visit() }.decided("kiosk-and-scanners.yaml", "visitors"),
        "block []"
    );
    let scanner = |version: &'static str| {
        let scanner = move |device: &mut Device| {
            (device.name, device.team) = (Some("scan-7".to_owned()), Some("logistics".to_owned()));
            (device.os, device.os_version) = (Some("android".to_owned()), Some(version.to_owned()));
        };
        let headers = [(http::HeaderName::from_static("x-shift"), http::HeaderValue::from_static("early"))].into_iter().collect();
        Visit { peer: "10.20.7.9", headers, ..Visit::of(scanner, "mdm", &[("patched", true)]) }
    };
    let decided = |visit: Visit| visit.decided("kiosk-and-scanners.yaml", "stock");
    assert_eq!(decided(scanner("13.1")), "restrict [stock]");
    assert_eq!(decided(scanner("16")), "block []", "newer than what was tried");
    assert_eq!(decided(scanner("10.9")), "block []");
    assert_eq!(decided(Visit { headers: HeaderMap::new(), ..scanner("13") }), "block []", "not the scanners' app");
}

#[test]
fn a_lost_device_gets_nothing() {
    let decided = |visit: Visit| visit.decided("lost-device.yaml", "wiki");
    let laptop = |state| move |device: &mut Device| (device.ownership, device.state) = (Some(Ownership::Corporate), state);
    assert_eq!(decided(Visit::of(laptop(DeviceState::Approved), "mdm", &[("screen_lock", true)])), "restrict [short]");
    for state in [DeviceState::Lost, DeviceState::Suspended, DeviceState::Retired, DeviceState::Pending] {
        assert_eq!(decided(Visit::of(laptop(state), "mdm", &[("screen_lock", true)])), "block []", "{state:?}");
    }
    let suspected = |device: &mut Device| device.tags = vec!["loan".to_owned(), "suspected".to_owned()];
    assert_eq!(decided(Visit::of(suspected, "mdm", &[])), "restrict [private read-only short]");
}

#[test]
fn behind_nginx_nothing_is_asked_that_nginx_cannot_keep() {
    let decided = |visit: Visit| visit.decided("behind-nginx.yaml", "wiki");
    assert_eq!(decided(Visit::of(corporate, "mdm", &[("screen_lock", true)])), "forward []");
    assert_eq!(decided(Visit::of(corporate, "mdm", &[])), "restrict [pages read-only slow]");
    assert_eq!(decided(Visit::stranger()), "block []");
    assert_eq!(decided(Visit { peer: "10.1.2.3", path: "/help/wifi", ..Visit::stranger() }), "forward []");
    // Over its listener, as nginx asks: what passes there passes whole.
    let lab = shipped();
    let text = std::fs::read_to_string(here("config/examples/behind-nginx.yaml")).unwrap();
    let file = lab.path("config/examples/behind-nginx.yaml");
    std::fs::create_dir_all(lab.path("data")).unwrap();
    std::fs::write(&file, format!("{}\nadmin: {{bind: \"127.0.0.1:0\"}}\n", text.replace("127.0.0.1:9480", "127.0.0.1:0"))).unwrap();
    let proxy = Proxy::start(&lab.path("config/examples"), &file);
    let ask = |client: &str, path: &str| {
        let fields = [("Method", "GET"), ("Uri", path), ("Host", "wiki.corp.example"), ("Proto", "https"), ("For", client)];
        let curl = fields
            .iter()
            .fold(Curl::at(proxy.addr("questions")), |curl, (name, value)| curl.header(&format!("X-Forwarded-{name}: {value}")));
        curl.get("http://127.0.0.1/.well-known/vestibule/auth_request")
    };
    let help = ask("10.1.2.3", "/help/wifi");
    assert_eq!((help.status, help.header("vestibule-device-class")), (200, Some("blind")));
    assert!(help.header("vestibule-jwt-assertion").is_some_and(|assertion| assertion.split('.').count() == 3));
    assert_eq!((ask("10.1.2.3", "/").status, ask("192.0.2.1", "/help/wifi").status), (403, 403));
}

#[test]
fn payroll_leaves_nothing_and_fingerprints_open_nothing() {
    let facts = [("disk_encrypted", true), ("patched", true), ("edr_healthy", true)];
    let laptop = |device: &mut Device| {
        corporate(device);
        (device.os, device.os_version) = (Some("windows".to_owned()), Some("10.0.26100".to_owned()));
    };
    let visit = || Visit { peer: "10.1.2.3", ..Visit::of(laptop, "edr", &facts) };
    let decided = |visit: Visit| visit.decided("high-security.yaml", "payroll");
    let looks = "restrict [brief human-pace leaves-nothing no-admin view-only]";
    assert_eq!(decided(visit()), looks);
    assert_eq!(decided(Visit { peer: "10.2.2.3", ..visit() }), looks, "by VPN");
    assert_eq!(decided(Visit { peer: "203.0.113.3", ..visit() }), "block []");
    let mut lying = Sight::default();
    lying.comparison.contradictions = [Contradiction::UaBrowserVsTls].into_iter().collect();
    lying.comparison.strong = lying.comparison.contradictions;
    assert_eq!(decided(Visit { sight: lying, ..visit() }), "block []");
    for fact in 0..facts.len() {
        let mut facts = facts;
        facts[fact].1 = false;
        assert_eq!(decided(Visit { peer: "10.1.2.3", ..Visit::of(laptop, "edr", &facts) }), "block []", "{}", facts[fact].0);
    }
    let administrator = |device: &mut Device| {
        laptop(device);
        (device.id, device.user) = ("fin-admin-2".to_owned(), Some("grace@corp.example".to_owned()));
    };
    let administrator = || Visit { peer: "10.1.2.3", path: "/admin/users", ..Visit::of(administrator, "edr", &facts) };
    // The example asks for the host as well, and this visit is to another name of the app.
    assert_eq!(decided(administrator()), looks);
    assert_eq!(decided(Visit::stranger()), "block []");
}

#[test]
fn finance_may_do_what_it_was_granted() {
    let of = |ownership, team: &'static str, encrypted| {
        let device = move |device: &mut Device| (device.ownership, device.team) = (Some(ownership), Some(team.to_owned()));
        Visit::of(device, "mdm", &[("disk_encrypted", encrypted)])
    };
    let decided = |visit: Visit, app: &str| visit.decided("line-of-business/vestibule.yaml", app);
    assert_eq!(decided(of(Ownership::Corporate, "finance", true), "reports"), "forward []");
    assert_eq!(decided(of(Ownership::Corporate, "finance", false), "reports"), "restrict [read-only]");
    assert_eq!(decided(of(Ownership::Corporate, "sales", true), "reports"), "restrict [read-only]");
    assert_eq!(decided(of(Ownership::Personal, "finance", true), "reports"), "restrict [private]", "the guardrail holds");
    assert_eq!(decided(of(Ownership::Personal, "finance", false), "reports"), "block []");
    assert_eq!(decided(of(Ownership::Corporate, "finance", true), "payments"), "restrict [private]");
}

#[test]
fn finance_may_not_do_more() {
    let lab = shipped();
    let path = lab.path("config/examples/line-of-business/policy.d/finance.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("then: restrict, with: [read-only]}", "then: forward}")).unwrap();
    lab.vestibule(&["check", "-c", "config/examples/line-of-business/vestibule.yaml"]).failed_with(&[
        "finance.yaml:",
        "more than `finance` was granted",
        "vestibule.yaml:",
        "the grant",
    ]);
}

/// Every word of the language that the shipped files use.
#[derive(Default)]
struct Words {
    signals: BTreeSet<String>,
    forms: BTreeSet<&'static str>,
    keys: BTreeSet<String>,
}

impl Words {
    fn policy(&mut self, node: &Value) {
        match node {
            Value::Object(map) => {
                for (key, value) in map {
                    self.keys.insert(key.clone());
                    match key.as_str() {
                        "when" | "require" => self.condition(value),
                        "tests" => {}
                        _ => self.policy(value),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.policy(item)),
            _ => {}
        }
    }

    fn condition(&mut self, node: &Value) {
        let Value::Object(map) = node else { return };
        if map.is_empty() {
            self.forms.insert("always");
        }
        for (key, value) in map {
            match (key.as_str(), value) {
                ("all" | "any", Value::Array(items)) => {
                    self.forms.insert(if key == "all" { "all" } else { "any" });
                    items.iter().for_each(|item| self.condition(item));
                }
                ("not", inner) => {
                    self.forms.insert("not");
                    self.condition(inner);
                }
                _ => self.test(key, value),
            }
        }
    }

    fn test(&mut self, signal: &str, value: &Value) {
        let name = match signal {
            _ if signal.starts_with("http.header.") => "http.header.<name>".to_owned(),
            "posture.age" => signal.to_owned(),
            _ if signal.starts_with("posture.") && signal.ends_with(".age") => "posture.<fact>.age".to_owned(),
            _ if signal.starts_with("posture.") => "posture.<fact>".to_owned(),
            _ => signal.to_owned(),
        };
        self.signals.insert(name);
        let items = value.as_array();
        if items.is_some() {
            self.forms.insert("list");
        }
        for item in items.map_or(std::slice::from_ref(value), Vec::as_slice) {
            let text = item.as_str().map_or_else(|| item.to_string(), str::to_owned);
            let words: Vec<&str> = text.split(' ').collect();
            self.forms.extend(["<", "<=", "=", ">=", ">"].iter().filter(|compare| words.contains(*compare)));
            if words.iter().filter(|word| word.starts_with(['<', '>'])).count() > 1 {
                self.forms.insert("between");
            }
            match text.as_str() {
                "none" => drop(self.forms.insert("none")),
                "any" => drop(self.forms.insert("any of a set")),
                _ if text.contains('*') => drop(self.forms.insert("glob")),
                _ => {}
            }
        }
    }
}

#[test]
fn every_word_of_the_language_is_used_somewhere() {
    let mut words = Words::default();
    for path in files_below(&here("config"), ".yaml") {
        words.policy(&tree(&std::fs::read_to_string(path).unwrap()));
    }
    // The reference and the schema are made from the tables that the parser reads.
    let reference = config::reference();
    let (_, conditions) = reference.split_once("| signal | meaning |").unwrap();
    let signals = conditions.lines().skip(2).map_while(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name.to_owned()));
    let signals: BTreeSet<String> = signals.collect();
    assert!(signals.len() > 35 && signals.contains("time.hour") && signals.contains("wire.ja4"), "{signals:?}");
    assert_eq!(signals.difference(&words.signals).collect::<Vec<_>>(), Vec::<&String>::new(), "signals that no example reads");
    let forms = ["all", "always", "any", "not", "list", "glob", "between", "<", "<=", "=", ">=", ">", "none", "any of a set"];
    let unused: Vec<_> = forms.iter().filter(|form| !words.forms.contains(*form)).collect();
    assert!(unused.is_empty(), "forms of conditions that no example has: {unused:?}");
    let schema: Value = serde_json::from_str(&config::schema()).unwrap();
    for shape in [
        "restriction",
        "paths",
        "guardrail",
        "ladder",
        "delegation",
        "exception",
        "class",
        "tier",
        "cap",
        "rule",
        "owner_rule",
        "fix",
        "source",
    ] {
        let keys = schema["$defs"][shape]["properties"].as_object().unwrap_or_else(|| panic!("{shape}")).keys();
        let unused: Vec<_> = keys.filter(|key| !words.keys.contains(*key)).collect();
        assert!(unused.is_empty(), "keys of `{shape}` that no example has: {unused:?}");
    }
}

/// The blocks of docs/policy.md with the heading that each stands under.
fn blocks(language: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(here("docs/policy.md")).unwrap();
    let (mut heading, mut open, mut all) = (String::new(), None::<String>, Vec::new());
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some("")) => all.extend(open.take().map(|block| (heading.clone(), block))),
            (Some(block), _) => *block += &format!("{line}\n"),
            (None, Some(opened)) if opened == language => open = Some(String::new()),
            (None, _) => {
                if let Some(title) = line.strip_prefix("## ") {
                    title.clone_into(&mut heading);
                }
            }
        }
    }
    all
}

/// Lists grow, maps merge, anything else is replaced.
fn add(whole: &mut Value, part: Value) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (key, value) in part {
                add(whole.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(whole), Value::Array(part)) => whole.extend(part),
        (whole, part) => *whole = part,
    }
}

/// The configuration that docs/policy.md comes to, its owner's file, and its recipes.
fn documented() -> (Value, Value, Vec<Value>) {
    let (mut whole, mut owner, mut recipes) = (Value::Object(Map::new()), Value::Null, Vec::new());
    for (heading, block) in blocks("yaml") {
        let part = tree(&block);
        match heading.as_str() {
            "Recipes" => recipes.push(part),
            _ if part.get("owner").is_some() => owner = part,
            _ => {
                let keys = part.as_object().unwrap().keys().filter(|key| *key != "posture");
                keys.for_each(|key| assert!(whole.get(key).is_none(), "{heading}: `{key}` stands twice"));
                add(&mut whole, part);
            }
        }
    }
    (whole, owner, recipes)
}

/// A lab with the documented configuration, changed a little.
fn documented_lab(change: impl FnOnce(&mut Value)) -> Lab {
    let lab = Lab::new();
    let (mut whole, owner, _) = documented();
    change(&mut whole);
    // JSON is YAML.
    lab.write("vestibule.yaml", &whole.to_string());
    std::fs::create_dir_all(lab.path("policy.d")).unwrap();
    lab.write("policy.d/knowledge.yaml", &owner.to_string());
    lab
}

#[test]
fn the_policy_that_the_guide_builds_is_good_and_so_is_each_recipe() {
    let check = |lab: &Lab| lab.vestibule(&["check", "--strict", "-c", "vestibule.yaml"]).succeeded().stdout;
    let told = check(&documented_lab(|_| {}));
    assert!(told.contains(": ok, 0 warnings; ") && told.contains("6 tests passed"), "{told}");
    let (_, _, recipes) = documented();
    assert!(recipes.len() >= 6);
    for recipe in recipes {
        let shown = recipe.to_string();
        // A recipe changes what the guide's own tests say.
        let lab = documented_lab(|whole| {
            whole.as_object_mut().unwrap().remove("tests");
            add(whole, recipe);
        });
        let owner = std::fs::read_to_string(lab.path("policy.d/knowledge.yaml")).unwrap();
        let mut owner = tree(&owner);
        owner.as_object_mut().unwrap().remove("tests");
        lab.write("policy.d/knowledge.yaml", &owner.to_string());
        let told = check(&lab);
        assert!(told.contains(": ok, 0 warnings; "), "{shown}: {told}");
    }
}

#[test]
fn every_restriction_and_every_command_of_the_guide_is_there_and_works() {
    let text = std::fs::read_to_string(here("docs/policy.md")).unwrap();
    let schema: Value = serde_json::from_str(&config::schema()).unwrap();
    for key in schema["$defs"]["restriction"]["properties"].as_object().unwrap().keys() {
        assert!(
            text.lines().any(|line| line.starts_with('|') && line.split('|').nth(1).unwrap().contains(&format!("`{key}"))),
            "the table lacks `{key}`"
        );
    }
    let lab = documented_lab(|whole| {
        whole["listeners"][0]["bind"][0] = "127.0.0.1:0".into();
        whole["admin"] = serde_json::json!({"bind": "127.0.0.1:0"});
    });
    let proxy = Proxy::start(lab.dir(), &lab.path("vestibule.yaml"));
    assert_eq!(Curl::to(&proxy, &lab).get("https://wiki.corp.example/").status, 403);
    let policy: Value = serde_json::from_str(&proxy.admin_get("/api/v1/policy").1).unwrap();
    let revision = policy["revision"].as_str().unwrap();
    let admin = format!("http://localhost:{}", proxy.admin().port());
    support::eventually("the history and the log are written", || {
        let shown = lab.vestibule(&["policy", "-c", "vestibule.yaml", "show", revision]);
        let logged = std::fs::read_to_string(lab.path("data/decisions.jsonl")).is_ok_and(|log| log.ends_with('\n'));
        (shown.code == Some(0) && logged).then_some(())
    });
    let log = std::fs::read_to_string(lab.path("data/decisions.jsonl")).unwrap();
    let request: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    let mut run = 0;
    for (_, block) in blocks("sh") {
        for line in block.lines() {
            let line = line
                .replace("REVISION", revision)
                .replace("REQUEST_ID", request["request_id"].as_str().unwrap())
                .replace("http://localhost:9470", &admin);
            let mut words = line.split(' ');
            let output = match words.next() {
                Some("vestibule") => lab.vestibule(&words.collect::<Vec<_>>()).succeeded().stdout,
                Some("curl") => {
                    let output = support::program("curl").args(["-sS", "--fail", "--noproxy", "*"]).args(words).output().unwrap();
                    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
                    String::from_utf8(output.stdout).unwrap()
                }
                other => panic!("{other:?} is no command that this test runs"),
            };
            assert!(!output.is_empty(), "{line}");
            run += 1;
        }
    }
    assert!(run >= 6, "{run} commands");
}

#[test]
fn links_of_the_guides_lead_somewhere() {
    for guide in ["docs/policy.md", "docs/admin.md"] {
        let text = std::fs::read_to_string(here(guide)).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap();
            assert!(here("docs").join(file).exists(), "{guide}: {link}");
        }
    }
}
