//! Policies and visits of all kinds.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use jiff::civil::Weekday;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::super::draft::{Step, *};
use super::super::testing::*;
use super::super::*;
use crate::model::*;

pub const FACTS: [&str; 2] = ["disk_encrypted", "screen_lock"];
const HEADERS: [&str; 2] = ["x-a", "x-b"];

pub fn compare() -> impl Strategy<Value = Compare> {
    select(vec![Compare::Less, Compare::AtMost, Compare::Equal, Compare::AtLeast, Compare::More])
}

pub fn ages() -> impl Strategy<Value = Vec<(Compare, Duration)>> {
    prop::collection::vec((compare(), select(vec![0u64, 1, 2, 24, 30]).prop_map(|hours| Duration::from_secs(hours * 3600))), 1..3)
}

fn want(words: &[&'static str]) -> impl Strategy<Value = Want> + use<> {
    let words = words.to_vec();
    prop_oneof![
        6 => prop::collection::vec(select(words), 1..3).prop_map(|words| text(&words)),
        1 => Just(Want::Any),
        1 => Just(Want::None),
    ]
}

/// Of the record and of the request; `derived` adds class and tier.
fn leaf(derived: bool) -> BoxedStrategy<Condition> {
    let fact = || select(FACTS.to_vec()).prop_map(Arc::<str>::from);
    let states = prop::collection::vec(select(FactState::ALL.to_vec()), 1..3);
    let plain = prop_oneof![
        want(&["approved", "lost", "none"]).prop_map(|want| Test::Device(DeviceField::State, want)),
        want(&["corporate", "personal", "none"]).prop_map(|want| Test::Device(DeviceField::Ownership, want)),
        want(&["true", "false"]).prop_map(|want| Test::Device(DeviceField::OnNet, want)),
        want(&["finance", "f*", "*"]).prop_map(|want| Test::Device(DeviceField::Team, want)),
        want(&["pilot", "*"]).prop_map(|want| Test::Device(DeviceField::Tags, want)),
        (fact(), states).prop_map(|(fact, states)| Test::Fact(fact, states)),
        (fact(), ages()).prop_map(|(fact, ages)| Test::FactAge(fact, ages)),
        ages().prop_map(Test::PostureAge),
        ages().prop_map(Test::KnownFor),
        (compare(), 13..16u64).prop_map(|(compare, version)| Test::OsVersion(vec![(compare, Version(vec![version]))])),
        select(vec![KeyProof::None, KeyProof::Certificate]).prop_map(|proof| Test::KeyProof(vec![proof])),
        want(&["macos", "unavailable"]).prop_map(|want| Test::Claim(ClaimField::Os, want)),
        want(&["ua_vs_hints", "record_os_vs_wire", "*"]).prop_map(|want| Test::Wire(WireField::Contradictions, want)),
        want(&["linux", "unavailable"]).prop_map(|want| Test::Wire(WireField::Os, want)),
        want(&["true", "false"]).prop_map(|want| Test::Wire(WireField::Drift, want)),
        select(vec![None, Some(ZoneId(0))]).prop_map(|zone| Test::Zone(vec![zone])),
        select(vec!["GET", "POST"]).prop_map(|method| Test::Method(vec![Glob(method.to_owned())])),
        prop::collection::vec((compare(), 0..24u8), 1..3).prop_map(Test::Hour),
        select(vec![Weekday::Friday, Weekday::Saturday]).prop_map(|day| Test::Weekday(vec![day])),
        select(vec!["/", "/a/*", "*b"]).prop_map(|glob| Test::Path(vec![Glob(glob.to_owned())])),
        select(vec!["wiki", "*.example"]).prop_map(|glob| Test::Host(vec![Glob(glob.to_owned())])),
        (select(HEADERS.to_vec()), want(&["1", "*", "none"])).prop_map(|(name, want)| Test::Header(HeaderName::from_static(name), want)),
    ];
    let plain = plain.prop_map(Condition::Test);
    if !derived {
        return plain.boxed();
    }
    let classes = select(vec![CORPORATE, ONNET, OFFNET, ClassId::BLIND, ClassId::UNCLASSIFIED]);
    let derived = prop_oneof![
        prop::collection::vec(classes, 1..3).prop_map(Test::Class),
        prop::collection::vec((compare(), (0..4u8).prop_map(TierId)), 1..3).prop_map(Test::Tier),
    ];
    prop_oneof![2 => plain, 1 => derived.prop_map(Condition::Test)].boxed()
}

pub fn condition(derived: bool) -> BoxedStrategy<Condition> {
    let tree = leaf(derived).prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            2 => prop::collection::vec(inner.clone(), 0..3).prop_map(Condition::All),
            2 => prop::collection::vec(inner.clone(), 0..3).prop_map(Condition::Any),
            1 => inner.prop_map(|inner| Condition::Not(Box::new(inner))),
        ]
    });
    tree.boxed()
}

pub fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![3 => Just(Mode::Enforce), 1 => Just(Mode::Report)]
}

pub fn effect() -> impl Strategy<Value = Effect> {
    select(Effect::ALL.to_vec())
}

/// Names are the index, so that a rule keeps its name when others are taken away.
pub fn rules(most: usize) -> impl Strategy<Value = Vec<Rule>> {
    let parts = (condition(true), effect(), 0..4u8, mode());
    let rules = prop::collection::vec(parts, 0..most);
    rules.prop_map(|rules| {
        let each = rules.into_iter().enumerate().map(|(index, (when, then, with, mode))| {
            let with = if then == Effect::Restrict { vec![with] } else { vec![] };
            Rule { mode, ..rule(&format!("r{index}"), when, then, &with) }
        });
        each.collect()
    })
}

fn guardrails() -> impl Strategy<Value = Vec<Guardrail>> {
    rules(4).prop_map(|rules| {
        let strict = rules.into_iter().filter(|rule| rule.then != Effect::Forward);
        let each = strict.map(|rule| Guardrail {
            name: rule.name.replace('r', "g"),
            apps: None,
            when: rule.when,
            then: rule.then,
            with: rule.with,
            mode: rule.mode,
        });
        each.collect()
    })
}

fn apps() -> impl Strategy<Value = Option<Vec<AppId>>> {
    select(vec![None, None, Some(vec![AppId(0)]), Some(vec![AppId(7)])])
}

fn ladders() -> impl Strategy<Value = Vec<Ladder>> {
    let steps = prop::collection::btree_map(-9..9i64, select(vec![Step::Report, Step::Warn, Step::Restrict, Step::Block]), 1..4);
    let ladder = (condition(true), apps(), steps, 0..4u8).prop_map(|(when, apps, steps, with)| {
        // Milder first, none twice.
        let mut kinds: Vec<Step> = steps.values().copied().collect();
        kinds.sort_unstable();
        kinds.dedup();
        let steps = steps.keys().zip(kinds).map(|(hour, step)| (at(hour * 3600), step)).collect();
        Ladder { name: String::new(), fact: Arc::from(""), apps, when, steps, with: vec![RestrictionId(with)] }
    });
    prop::collection::vec(ladder, 0..=FACTS.len()).prop_map(|mut ladders| {
        for (ladder, fact) in ladders.iter_mut().zip(FACTS) {
            (ladder.name, ladder.fact) = (format!("ladder.{fact}"), Arc::from(fact));
        }
        ladders
    })
}

fn exceptions() -> impl Strategy<Value = Vec<Exception>> {
    let who = select(vec![
        Who::Device("laptop-1".to_owned()),
        Who::Device("other".to_owned()),
        Who::Tag("pilot".to_owned()),
        Who::Tag("x".to_owned()),
    ]);
    let facts = subsequence(FACTS.to_vec(), 1..=FACTS.len());
    let facts = facts.prop_map(|facts| Lifts::Checks(facts.into_iter().map(Arc::from).collect()));
    let lifts = prop_oneof![4 => facts, 1 => Just(Lifts::Everything)];
    let parts = (who, lifts, apps(), prop::option::of(-5..5i64), -3..8i64);
    let exception = parts.prop_map(|(who, lifts, apps, from, until)| Exception {
        name: "exception".to_owned(),
        who,
        lifts,
        apps,
        from: from.map(|hours| at(hours * 3600)),
        until: at(until * 3600),
        by: String::new(),
        ticket: String::new(),
    });
    prop::collection::vec(exception, 0..3)
}

/// Of the owners 0 and 1.
fn delegations() -> impl Strategy<Value = Vec<Delegation>> {
    let may = subsequence(vec![Effect::Forward, Effect::Restrict], 1..=2);
    let delegation = (0..2u16, 0..4u8, may).prop_map(|(owner, min_tier, may)| Delegation {
        owner: OwnerId(owner),
        apps: vec![AppId(0)],
        min_tier: TierId(min_tier),
        may,
    });
    prop::collection::vec(delegation, 0..3)
}

/// Those of ladders, exceptions and delegations.
pub fn policies() -> impl Strategy<Value = Draft> {
    let zone = select(vec!["UTC", "Europe/Berlin", "Asia/Kolkata"]);
    (plain_policies(), ladders(), exceptions(), delegations(), zone).prop_map(|(draft, ladders, exceptions, delegations, zone)| Draft {
        ladders,
        exceptions,
        delegations,
        time_zone: jiff::tz::TimeZone::get(zone).expect("a zone"),
        ..draft
    })
}

fn plain_policies() -> impl Strategy<Value = Draft> {
    let caps = prop::collection::vec((condition(false), 0..4u8), 0..2);
    let layers = prop::collection::vec((rules(3), 0..2u16), 0..2);
    (rules(6), guardrails(), layers, caps, condition(false), mode()).prop_map(|(rules, guardrails, layers, caps, requirement, mode)| {
        let mut draft = draft(rules);
        draft.guardrails = guardrails;
        let owned = layers.into_iter().flat_map(|(rules, owner)| rules.into_iter().map(move |rule| layer(owner, rule)));
        draft.layers = owned
            .enumerate()
            .map(|(index, mut layer)| {
                layer.rule.name = format!("l{index}");
                layer
            })
            .collect();
        let caps = caps.into_iter().map(|(when, max_tier)| Cap { name: "cap".to_owned(), when, max_tier: TierId(max_tier) });
        draft.caps = caps.collect();
        // Each of these restricts something else.
        draft.restrictions[usize::from(PRIVATE)].allowed_paths = Some(vec![Glob("/".to_owned()), Glob("/a/*".to_owned())]);
        draft.restrictions[usize::from(SMALL)].denied_paths = vec![Glob("/a/*".to_owned())];
        draft.restrictions[usize::from(SLOW)].max_response = Some(2);
        draft.tiers[2].require = requirement;
        draft.apps[0].mode = mode;
        draft
    })
}

pub fn devices() -> impl Strategy<Value = Device> {
    let facts = prop::collection::vec((select(vec!["mdm", "manual", "rumour"]), proptest::bool::ANY, -30..3i64), 0..3);
    let facts = prop::collection::vec(facts, FACTS.len());
    (
        select(DeviceState::ALL.to_vec()),
        select(vec![None, Some(Ownership::Corporate), Some(Ownership::Personal)]),
        proptest::arbitrary::any::<Option<bool>>(),
        select(vec![None, Some("finance"), Some("sales")]),
        select(vec![None, Some("14.2"), Some("13"), Some("beta")]),
        facts,
    )
        .prop_map(|(state, ownership, onnet, team, version, facts)| Device {
            state,
            ownership,
            onnet,
            team: team.map(str::to_owned),
            os_version: version.map(str::to_owned),
            posture: FACTS
                .iter()
                .zip(facts)
                .map(|(name, observations)| Fact {
                    name: (*name).to_owned(),
                    observations: observations.into_iter().map(|(source, ok, hours)| observed(source, ok, hours * 3600)).collect(),
                })
                .collect(),
            ..laptop()
        })
}

pub fn requests() -> impl Strategy<Value = Visit> {
    let headers = prop::collection::vec((select(HEADERS.to_vec()), select(vec!["1", "2"])), 0..3);
    (
        select(vec!["GET", "POST", "PUT"]),
        select(vec!["/", "/a/b", "/b"]),
        headers,
        proptest::bool::ANY,
        proptest::bool::ANY,
        proptest::bool::ANY,
        select(vec![None, None, Some(Contradiction::UaVsHints), Some(Contradiction::RecordOsVsWire)]),
    )
        .prop_map(|(method, path, headers, office, claims, elsewhere, contradiction)| {
            let mut visit = Visit::of(laptop()).to(method, path);
            visit.headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
            visit.claims.os = claims.then_some(Os::MacOs);
            if let Some(kind) = contradiction {
                visit.sight.comparison.contradictions = [kind].into_iter().collect();
                visit.sight.comparison.strong = visit.sight.comparison.contradictions;
                visit.sight.drift = true;
            }
            if elsewhere {
                visit.host = host("a.example");
            }
            if office { visit.in_office() } else { visit }
        })
}

pub fn standings() -> impl Strategy<Value = Standing> {
    let known = (devices(), select(vec![Freshness::Fresh, Freshness::Stale, Freshness::TooOld]), 1..50i64);
    prop_oneof![
        6 => known.prop_map(|(device, freshness, hours)| Standing::Known {
            device: Arc::new(device),
            freshness,
            proof_ends: at(hours * 3600).as_second(),
        }),
        1 => Just(Standing::NoRecord(NoRecord::NoProof)),
        1 => Just(Standing::Unreadable),
    ]
}

pub fn visits() -> impl Strategy<Value = Visit> {
    (requests(), standings()).prop_map(|(visit, standing)| Visit { standing, ..visit })
}
