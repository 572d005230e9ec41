//! What the tests of this room build their policies and inputs with.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;

use super::draft::*;
use super::*;
use crate::model::*;

/// Seconds since the tests' beginning of time.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("a moment")
}

pub fn host(name: &str) -> Host {
    Host::canonical(name)
}

pub fn observed(source: &str, ok: bool, seconds: i64) -> Observation {
    Observation { ok, value: None, source: source.to_owned(), observed_at: at(seconds), expires_at: None }
}

pub fn fact(name: &str, ok: bool) -> Fact {
    Fact { name: name.to_owned(), observations: vec![observed("mdm", ok, 0)] }
}

pub fn app(name: &str, rules: Vec<Rule>) -> App {
    App {
        name: name.to_owned(),
        title: name.to_owned(),
        owner: OwnerId(0),
        labels: vec![],
        hosts: vec![HostPattern::Exact(host(name))],
        path_prefix: "/".to_owned(),
        mode: Mode::Enforce,
        rules,
    }
}

pub fn rule(name: &str, when: Condition, then: Effect, with: &[u8]) -> Rule {
    Rule { name: name.to_owned(), when, then, with: with.iter().map(|id| RestrictionId(*id)).collect(), mode: Mode::Enforce }
}

pub fn forward(when: Condition) -> Rule {
    rule("forward", when, Effect::Forward, &[])
}

pub fn restrict(when: Condition, with: &[u8]) -> Rule {
    rule("restrict", when, Effect::Restrict, with)
}

pub fn block(when: Condition) -> Rule {
    rule("block", when, Effect::Block, &[])
}

pub fn report(rule: Rule) -> Rule {
    Rule { mode: Mode::Report, ..rule }
}

pub fn guardrail(name: &str, when: Condition) -> Guardrail {
    Guardrail { name: name.to_owned(), apps: None, when, then: Effect::Block, with: vec![], mode: Mode::Enforce }
}

pub fn layer(owner: u16, rule: Rule) -> Layer {
    Layer { owner: OwnerId(owner), apps: vec![AppId(0)], rule }
}

pub fn always() -> Condition {
    Condition::always()
}

pub fn never() -> Condition {
    Condition::Any(vec![])
}

pub fn all(inner: &[Condition]) -> Condition {
    Condition::All(inner.to_vec())
}

pub fn any(inner: &[Condition]) -> Condition {
    Condition::Any(inner.to_vec())
}

pub fn not(inner: Condition) -> Condition {
    Condition::Not(Box::new(inner))
}

pub fn text(words: &[&str]) -> Want {
    Want::Text(words.iter().map(|word| Glob((*word).to_owned())).collect())
}

pub fn device(field: DeviceField, words: &[&str]) -> Condition {
    Condition::Test(Test::Device(field, text(words)))
}

pub fn state(words: &[&str]) -> Condition {
    device(DeviceField::State, words)
}

pub fn owned(word: &str) -> Condition {
    device(DeviceField::Ownership, &[word])
}

pub fn is(name: &str, state: FactState) -> Condition {
    Condition::Test(Test::Fact(Arc::from(name), vec![state]))
}

pub fn tier(compare: Compare, tier: u8) -> Condition {
    Condition::Test(Test::Tier(vec![(compare, TierId(tier))]))
}

pub fn class(id: ClassId) -> Condition {
    Condition::Test(Test::Class(vec![id]))
}

pub fn zone(id: Option<u16>) -> Condition {
    Condition::Test(Test::Zone(vec![id.map(ZoneId)]))
}

pub fn method(names: &[&str]) -> Condition {
    Condition::Test(Test::Method(names.iter().map(|name| Glob((*name).to_owned())).collect()))
}

pub fn path(glob: &str) -> Condition {
    Condition::Test(Test::Path(vec![Glob(glob.to_owned())]))
}

pub fn header(name: &'static str, want: Want) -> Condition {
    Condition::Test(Test::Header(HeaderName::from_static(name), want))
}

pub const READ_ONLY: u8 = 0;
pub const PRIVATE: u8 = 1;
pub const SMALL: u8 = 2;
pub const SLOW: u8 = 3;

pub const CORPORATE: ClassId = ClassId(0);
pub const ONNET: ClassId = ClassId(1);
pub const OFFNET: ClassId = ClassId(2);

pub const KNOWN: u8 = 1;
pub const HEALTHY: u8 = 2;
pub const TRUSTED: u8 = 3;

/// The classes, tiers and restrictions of config.md's example, owners `knowledge`, `finance` and `security`, and one app, `wiki`.
pub fn draft(rules: Vec<Rule>) -> Draft {
    let owner = |name: &str| Owner { name: name.to_owned(), contact: format!("{name}@corp.example") };
    let personal = |onnet: &[&str]| all(&[owned("personal"), device(DeviceField::OnNet, onnet)]);
    Draft {
        revision: "0123456789ab".to_owned(),
        time_zone: jiff::tz::TimeZone::UTC,
        owners: vec![owner("knowledge"), owner("finance"), owner("security")],
        networks: vec![Network { name: "office".to_owned(), ranges: vec!["10.0.0.0/8".parse().expect("a range")], syn_is_direct: false }],
        sources: vec![
            Source { name: "mdm".to_owned(), ttl: Duration::from_secs(24 * 3600) },
            Source { name: "manual".to_owned(), ttl: Duration::from_secs(720 * 3600) },
        ],
        fixes: vec![Fix { fact: "disk_encrypted".to_owned(), text: "Turn on FileVault or BitLocker".to_owned(), help: None }],
        classes: vec![
            Class { name: "corporate".to_owned(), when: owned("corporate") },
            Class { name: "personal_onnet".to_owned(), when: personal(&["true"]) },
            Class { name: "personal_offnet".to_owned(), when: owned("personal") },
        ],
        tiers: vec![
            Tier { name: "none".to_owned(), require: always() },
            Tier { name: "known".to_owned(), require: state(&["approved"]) },
            Tier { name: "healthy".to_owned(), require: all(&[is("os_supported", FactState::Ok), is("screen_lock", FactState::Ok)]) },
            Tier {
                name: "trusted".to_owned(),
                require: all(&[
                    Condition::Test(Test::KeyProof(vec![KeyProof::Certificate])),
                    is("mdm_compliant", FactState::Ok),
                    is("disk_encrypted", FactState::Ok),
                ]),
            },
        ],
        caps: vec![],
        restrictions: vec![
            Restriction {
                name: "read-only".to_owned(),
                methods: Some(vec!["GET".to_owned(), "HEAD".to_owned(), "OPTIONS".to_owned()]),
                ..Restriction::default()
            },
            Restriction { name: "private".to_owned(), no_store: true, max_body: Some(1 << 20), ..Restriction::default() },
            Restriction {
                name: "small".to_owned(),
                methods: Some(vec!["GET".to_owned(), "POST".to_owned()]),
                max_body: Some(1 << 10),
                ..Restriction::default()
            },
            Restriction {
                name: "slow".to_owned(),
                requests: Some(Rate { count: 60, per: Duration::from_secs(60), burst: 20 }),
                ..Restriction::default()
            },
        ],
        guardrails: vec![],
        ladders: vec![],
        delegations: vec![],
        exceptions: vec![],
        apps: vec![app("wiki", rules)],
        layers: vec![],
    }
}

pub fn policy(rules: Vec<Rule>) -> Policy {
    Policy::compile(draft(rules))
}

pub fn guarded(guardrails: Vec<Guardrail>, rules: Vec<Rule>) -> Policy {
    Policy::compile(Draft { guardrails, ..draft(rules) })
}

pub fn layered(layers: Vec<Layer>, rules: Vec<Rule>) -> Policy {
    Policy::compile(Draft { layers, ..draft(rules) })
}

pub fn reporting(mut draft: Draft) -> Policy {
    draft.apps[0].mode = Mode::Report;
    Policy::compile(draft)
}

pub fn team(name: &str) -> Condition {
    device(DeviceField::Team, &[name])
}

/// A healthy corporate laptop.
pub fn laptop() -> Device {
    Device {
        id: "laptop-1".to_owned(),
        name: Some("Ada's laptop".to_owned()),
        user: Some("ada".to_owned()),
        team: Some("finance".to_owned()),
        tags: vec!["pilot".to_owned()],
        ownership: Some(Ownership::Corporate),
        onnet: Some(true),
        state: DeviceState::Approved,
        state_changed: StateChange { by: "it".to_owned(), at: at(-1000) },
        os: Some("macos".to_owned()),
        os_version: Some("14.2.1".to_owned()),
        model: Some("Mac14,2".to_owned()),
        keys: vec![],
        posture: ["disk_encrypted", "mdm_compliant", "os_supported", "screen_lock"].map(|name| fact(name, true)).to_vec(),
        created_at: at(-100_000),
        updated_at: at(0),
        seq: 1,
    }
}

/// The laptop, changed.
pub fn without(change: impl FnOnce(&mut Device)) -> Device {
    let mut device = laptop();
    change(&mut device);
    device
}

pub fn set_fact(device: &mut Device, name: &str, ok: bool) {
    device.posture.retain(|fact| fact.name != name);
    device.posture.push(fact(name, ok));
    device.posture.sort_by(|a, b| a.name.cmp(&b.name));
}

pub fn drop_fact(device: &mut Device, name: &str) {
    device.posture.retain(|fact| fact.name != name);
}

/// Inputs that own what `Inputs` borrows.
#[derive(Clone, Debug)]
pub struct Visit {
    pub now: Timestamp,
    pub standing: Standing,
    pub peer: IpAddr,
    pub zone: Option<ZoneId>,
    pub wire: Wire,
    pub opening: Opening,
    pub sight: Sight,
    pub claims: Claims,
    pub method: String,
    pub host: Host,
    pub path: String,
    pub headers: HeaderMap,
    pub given: Given,
}

impl Visit {
    /// A GET of `/` by the device, an hour after the beginning of time.
    pub fn of(device: Device) -> Self {
        let standing = Standing::Known { device: Arc::new(device), freshness: Freshness::Fresh, proof_ends: at(1 << 30).as_second() };
        Self {
            now: at(3600),
            standing,
            peer: IpAddr::from([192, 0, 2, 1]),
            zone: None,
            wire: Wire::default(),
            opening: Opening::default(),
            sight: Sight::default(),
            claims: Claims::default(),
            method: "GET".to_owned(),
            host: host("wiki"),
            path: "/".to_owned(),
            headers: HeaderMap::new(),
            given: Given::default(),
        }
    }

    pub fn blind(why: NoRecord) -> Self {
        Self { standing: Standing::NoRecord(why), ..Self::of(laptop()) }
    }

    pub fn unreadable() -> Self {
        Self { standing: Standing::Unreadable, ..Self::of(laptop()) }
    }

    pub fn too_old(device: Device) -> Self {
        let mut visit = Self::of(device);
        if let Standing::Known { freshness, .. } = &mut visit.standing {
            *freshness = Freshness::TooOld;
        }
        visit
    }

    pub fn at(self, seconds: i64) -> Self {
        Self { now: at(seconds), ..self }
    }

    pub fn to(self, method: &str, path: &str) -> Self {
        Self { method: method.to_owned(), path: path.to_owned(), ..self }
    }

    pub fn in_office(self) -> Self {
        Self { peer: IpAddr::from([10, 0, 0, 1]), zone: Some(ZoneId(0)), ..self }
    }

    pub fn with_header(mut self, name: &'static str, value: &[u8]) -> Self {
        self.headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value).expect("a field value"));
        self
    }

    pub fn inputs(&self) -> Inputs<'_> {
        Inputs {
            now: self.now,
            standing: &self.standing,
            peer: self.peer,
            zone: self.zone,
            wire: &self.wire,
            opening: &self.opening,
            sight: &self.sight,
            claims: &self.claims,
            http: Http { method: &self.method, host: &self.host, path: &self.path, headers: &self.headers },
            given: self.given,
        }
    }

    pub fn decide(&self, policy: &Policy) -> Decision {
        policy.decide(AppId(0), &self.inputs())
    }
}

pub fn reasons(policy: &Policy, outcome: &Outcome) -> Vec<String> {
    outcome.reasons.as_slice().iter().map(|id| policy.reason(*id).to_string()).collect()
}
