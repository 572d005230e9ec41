//! What holds for every policy and every visit.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use proptest::sample::select;

use super::draft::*;
use super::testing::*;
use super::*;
use crate::model::*;

const FACTS: [&str; 2] = ["disk_encrypted", "screen_lock"];
const HEADERS: [&str; 2] = ["x-a", "x-b"];

fn compare() -> impl Strategy<Value = Compare> {
    select(vec![Compare::Less, Compare::AtMost, Compare::Equal, Compare::AtLeast, Compare::More])
}

fn ages() -> impl Strategy<Value = Vec<(Compare, Duration)>> {
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

fn condition(derived: bool) -> BoxedStrategy<Condition> {
    let tree = leaf(derived).prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            2 => prop::collection::vec(inner.clone(), 0..3).prop_map(Condition::All),
            2 => prop::collection::vec(inner.clone(), 0..3).prop_map(Condition::Any),
            1 => inner.prop_map(|inner| Condition::Not(Box::new(inner))),
        ]
    });
    tree.boxed()
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![3 => Just(Mode::Enforce), 1 => Just(Mode::Report)]
}

fn effect() -> impl Strategy<Value = Effect> {
    select(Effect::ALL.to_vec())
}

/// Names are the index, so that a rule keeps its name when others are taken away.
fn rules(most: usize) -> impl Strategy<Value = Vec<Rule>> {
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

pub fn policies() -> impl Strategy<Value = Draft> {
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
        draft.tiers[2].require = requirement;
        draft.apps[0].mode = mode;
        draft
    })
}

fn devices() -> impl Strategy<Value = Device> {
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

fn requests() -> impl Strategy<Value = Visit> {
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

fn standings() -> impl Strategy<Value = Standing> {
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

/// What a decision lets pass.
#[derive(Debug, PartialEq)]
struct Access {
    methods: Vec<&'static str>,
    max_body: u64,
    may_store: bool,
    rates: u64,
}

fn access(policy: &Policy, decision: &Decision) -> Access {
    let open = decision.done.effect != Effect::Block;
    let methods = ["GET", "HEAD", "OPTIONS", "POST", "PUT"].into_iter();
    Access {
        methods: methods.filter(|method| open && policy.allows_method(&decision.merged, method)).collect(),
        max_body: if open { decision.merged.max_body.unwrap_or(u64::MAX) } else { 0 },
        may_store: open && !decision.merged.no_store,
        rates: if open { decision.done.restrictions.0 & 1 << SLOW } else { 1 << SLOW },
    }
}

impl Access {
    fn within(&self, other: &Self) -> bool {
        self.methods.iter().all(|method| other.methods.contains(method))
            && self.max_body <= other.max_body
            && self.may_store <= other.may_store
            && self.rates & other.rates == other.rates
    }
}

fn at_least_as_strict(a: &Outcome, b: &Outcome) -> bool {
    a.effect > b.effect || a.effect == b.effect && a.restrictions.union(b.restrictions) == a.restrictions
}

fn without_reports(mut draft: Draft) -> Draft {
    draft.guardrails.retain(|guardrail| guardrail.mode == Mode::Enforce);
    draft.layers.retain(|layer| layer.rule.mode == Mode::Enforce);
    draft.apps[0].rules.retain(|rule| rule.mode == Mode::Enforce);
    draft
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn guardrails_always_hold(draft in policies(), visit in visits()) {
        let alone = Draft { layers: vec![], apps: vec![app("wiki", vec![forward(always())])], ..draft.clone() };
        let (full, alone) = (visit.decide(&Policy::compile(draft)), visit.decide(&Policy::compile(alone)));
        prop_assert!(at_least_as_strict(&full.done, &alone.done), "{:?} is looser than {:?}", full.done, alone.done);
        prop_assert!(at_least_as_strict(&full.would, &alone.would), "{:?} is looser than {:?}", full.would, alone.would);
    }

    #[test]
    fn adding_a_restriction_never_adds_access(draft in policies(), visit in visits(), place: prop::sample::Index, added in 0..4u8) {
        let mut more = draft.clone();
        let rules = more.apps[0].rules.iter_mut().chain(more.layers.iter_mut().map(|layer| &mut layer.rule));
        let mut with: Vec<_> = rules.filter(|rule| rule.then == Effect::Restrict).map(|rule| &mut rule.with).collect();
        with.extend(more.guardrails.iter_mut().filter(|guardrail| guardrail.then == Effect::Restrict).map(|guardrail| &mut guardrail.with));
        if with.is_empty() {
            return Ok(());
        }
        let place = place.index(with.len());
        with[place].push(RestrictionId(added));
        let (before, after) = (Policy::compile(draft), Policy::compile(more));
        let (a, b) = (visit.decide(&before), visit.decide(&after));
        prop_assert_eq!(a.done.effect, b.done.effect);
        prop_assert!(access(&after, &b).within(&access(&before, &a)));
    }

    #[test]
    fn adding_a_guardrail_or_an_owners_rule_never_adds_access(draft in policies(), visit in visits(), extra in rules(2), owner in 2..4u16) {
        let mut more = draft.clone();
        let Some(rule) = extra.first().cloned() else { return Ok(()) };
        if rule.then == Effect::Forward {
            more.layers.push(layer(owner, rule));
        } else {
            more.guardrails.push(Guardrail { name: "g".to_owned(), apps: None, when: rule.when, then: rule.then, with: rule.with, mode: rule.mode });
        }
        let (before, after) = (Policy::compile(draft), Policy::compile(more));
        prop_assert!(access(&after, &visit.decide(&after)).within(&access(&before, &visit.decide(&before))));
    }

    #[test]
    fn a_rule_or_guardrail_in_report_mode_never_changes_what_is_done(draft in policies(), visit in visits()) {
        let (full, bare) = (Policy::compile(draft.clone()), Policy::compile(without_reports(draft.clone())));
        let (with, without) = (visit.decide(&full), visit.decide(&bare));
        prop_assert_eq!(with.done.effect, without.done.effect);
        prop_assert_eq!(with.done.restrictions, without.done.restrictions);
        prop_assert_eq!((with.merged, with.unavailable, with.class, with.tier), (without.merged, without.unavailable, without.class, without.tier));
        if draft.apps[0].mode == Mode::Enforce {
            prop_assert_eq!(full.rule_name(AppId(0), with.done.rule), bare.rule_name(AppId(0), without.done.rule));
            prop_assert_eq!(reasons(&full, &with.done), reasons(&bare, &without.done));
            prop_assert_eq!(with.done.owner, without.done.owner);
        }
    }

    #[test]
    fn what_would_be_done_is_what_is_done_were_nothing_in_report_mode(draft in policies(), visit in visits()) {
        let mut enforced = draft.clone();
        enforced.apps[0].mode = Mode::Enforce;
        enforced.apps[0].rules.iter_mut().for_each(|rule| rule.mode = Mode::Enforce);
        enforced.layers.iter_mut().for_each(|layer| layer.rule.mode = Mode::Enforce);
        enforced.guardrails.iter_mut().for_each(|guardrail| guardrail.mode = Mode::Enforce);
        let (report, enforce) = (visit.decide(&Policy::compile(draft)), visit.decide(&Policy::compile(enforced)));
        prop_assert_eq!(report.would.effect, enforce.done.effect);
        prop_assert_eq!(report.would.restrictions, enforce.done.restrictions);
        prop_assert_eq!(enforce.mode, Mode::Enforce);
        if report.mode == Mode::Enforce {
            prop_assert_eq!(report.would, report.done);
        }
    }

    /// Class and tier being what they are, a field that is missing, or a record that cannot be read, is at least as strict as any value.
    /// (Class and tier themselves may fall with a missing field, and a rule may be kinder to a lower class or tier.)
    #[test]
    fn undecided_never_opens(draft in policies(), visit in requests(), device in devices(), class in 0..5u16, tier in 0..4u8, field in 0..4) {
        let class = match class { 3 => ClassId::BLIND, 4 => ClassId::UNCLASSIFIED, class => ClassId(class) };
        let given = Given { class: Some(class), tier: Some(TierId(tier)), ..Given::default() };
        let policy = Policy::compile(draft);
        let mut missing = device.clone();
        match field {
            0 => missing.ownership = None,
            1 => missing.onnet = None,
            2 => missing.team = None,
            _ => missing.os_version = None,
        }
        let at_hand = Visit { given, standing: Visit::of(device).standing, ..visit.clone() }.decide(&policy);
        let missing = Visit { given, standing: Visit::of(missing).standing, ..visit.clone() }.decide(&policy);
        prop_assert!(at_least_as_strict(&missing.done, &at_hand.done), "{:?} is looser than {:?}", missing.done, at_hand.done);
        let unreadable = Visit { given, standing: Standing::Unreadable, ..visit }.decide(&policy);
        prop_assert!(at_least_as_strict(&unreadable.done, &at_hand.done), "{:?} is looser than {:?}", unreadable.done, at_hand.done);
    }

    /// Where tiers and caps do not read the class, which may change as well.
    #[test]
    fn a_missing_field_never_raises_the_tier(draft in policies(), visit in requests(), device in devices()) {
        let policy = Policy::compile(draft);
        let missing = Device { ownership: None, onnet: None, team: None, os_version: None, ..device.clone() };
        let tier = |device| Visit { standing: Visit::of(device).standing, ..visit.clone() }.decide(&policy).tier;
        prop_assert!(tier(missing) <= tier(device));
    }

    #[test]
    fn the_memos_key_holds_every_input_of_the_decision(draft in policies(), visit in visits(), other in visits()) {
        let policy = Policy::compile(draft);
        let reads = policy.reads(AppId(0));
        let mut alike = visit.clone();
        if !reads.method { alike.method = other.method }
        if !reads.path { alike.path = other.path }
        if !reads.host { alike.host = other.host }
        if !reads.claims { alike.claims = other.claims }
        // What the connection's wire is stays the same as long as it lasts.
        if !reads.sight { (alike.sight.comparison, alike.sight.drift) = (other.sight.comparison, other.sight.drift) }
        let named = |headers: &HeaderMap, read: bool| -> Vec<_> {
            let each = headers.iter().filter(|(name, _)| reads.headers.contains(name) == read);
            each.map(|(name, value)| (name.clone(), value.clone())).collect()
        };
        alike.headers = HeaderMap::new();
        for (name, value) in named(&visit.headers, true).into_iter().chain(named(&other.headers, false)) {
            alike.headers.append(name, value);
        }
        prop_assert_eq!(visit.decide(&policy), alike.decide(&policy));
        prop_assert!(reads.headers.iter().all(|name| policy.headers_read().contains(name)));
    }

    #[test]
    fn a_decision_is_the_same_until_the_moment_it_names(draft in policies(), visit in visits(), later: prop::sample::Index) {
        let policy = Policy::compile(draft);
        let decision = visit.decide(&policy);
        let until = decision.valid_until.unwrap_or(at(1_000_000));
        prop_assert!(until > visit.now);
        let span = until.duration_since(visit.now).as_nanos();
        // Somewhere before it, and right before it.
        for step in [(later.index(1 << 20) as i128 * span) >> 20, span - 1] {
            let step = jiff::SignedDuration::try_from_nanos_i128(step).expect("within the span");
            let again = Visit { now: visit.now + step, ..visit.clone() }.decide(&policy);
            prop_assert_eq!(Decision { valid_until: None, ..again }, Decision { valid_until: None, ..decision });
        }
    }

    #[test]
    fn a_request_that_some_record_would_have_opened_is_unavailable_while_nobody_can_look(
        draft in policies(), visit in visits(), device in devices(),
    ) {
        let policy = Policy::compile(draft);
        let unreadable = Visit { standing: Standing::Unreadable, ..visit.clone() }.decide(&policy);
        let opened = Visit { standing: Visit::of(device).standing, ..visit }.decide(&policy).done.effect != Effect::Block;
        if unreadable.done.effect == Effect::Block && opened {
            prop_assert!(unreadable.unavailable);
        }
        if unreadable.unavailable {
            prop_assert_eq!(&*reasons(&policy, &unreadable.done)[0], "store.unavailable");
            prop_assert_eq!(unreadable.done.effect, Effect::Block);
        }
    }

    #[test]
    fn explaining_agrees_with_deciding(draft in policies(), visit in visits()) {
        let policy = Policy::compile(draft);
        let inputs = visit.inputs();
        let explanation = policy.explain(AppId(0), &inputs);
        prop_assert_eq!(explanation.decision, visit.decide(&policy));
        if let RuleRef::Rule(index) = explanation.decision.done.rule {
            let step = &explanation.rules[index as usize];
            prop_assert!(matches!(step.verdict, Verdict::Matched | Verdict::Undecided), "{:?}", step);
        }
        for steps in [&explanation.classes, &explanation.rules] {
            let settled = steps.iter().position(|step| step.verdict == Verdict::Matched).unwrap_or(steps.len());
            prop_assert!(steps.iter().skip(settled + 1).all(|step| step.verdict == Verdict::NotReached));
        }
    }
}
