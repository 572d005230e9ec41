use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, prop_oneof};
use proptest::sample::select;
use proptest::strategy::ValueTree;

use super::super::draft::{
    Cap, Compare, Condition, Delegation, DeviceField, Draft, Exception, Fix, Ladder, Lifts, Step, Test, Version, Want, Who, WireField,
};
use super::super::properties::{policies, visits};
use super::super::testing::*;
use super::super::{OwnerId, RestrictionId, TierId, decide::decide};
use super::*;
use crate::model::{Contradiction, Device, FactState, NoRecord};

/// Signals and what they are to become.
fn changes(search: &Search<'_>) -> Vec<String> {
    let mend = search.mend().unwrap_or_else(|| panic!("{search:?}"));
    mend.changes.iter().map(|change| format!("{} {} -> {}", change.signal, change.found, change.wanted)).collect()
}

fn mended(draft: Draft, visit: &Visit) -> Vec<String> {
    let policy = Policy::compile(draft);
    changes(&policy.mend(AppId(0), &visit.inputs()))
}

fn trusted() -> Draft {
    let mut draft = draft(vec![forward(tier(Compare::AtLeast, TRUSTED))]);
    draft.fixes.push(Fix { fact: "screen_lock".to_owned(), text: "Set a screen lock".to_owned(), help: None });
    draft
}

fn failing(facts: &[&str]) -> Device {
    without(|device| facts.iter().for_each(|fact| set_fact(device, fact, false)))
}

#[test]
fn all_that_a_tier_lacks_is_named_and_nothing_else() {
    let policy = Policy::compile(trusted());
    let device = failing(&["screen_lock", "disk_encrypted"]);
    let search = policy.mend(AppId(0), &Visit::of(device).inputs());
    assert_eq!(changes(&search), ["posture.screen_lock fail -> ok", "posture.disk_encrypted fail -> ok"]);
    let mend = search.mend().expect("a mend");
    assert_eq!(mend.effect, Effect::Forward);
    let texts: Vec<_> = mend.changes.iter().filter_map(|change| change.fix).map(|fix| fix.text.as_str()).collect();
    assert_eq!(texts, ["Set a screen lock", "Turn on FileVault or BitLocker"]);
}

#[test]
fn of_two_ways_the_shorter_is_told_also_where_the_longer_stands_first() {
    let rules = vec![
        forward(all(&[is("disk_encrypted", FactState::Ok), is("patched", FactState::Ok), is("firewall_on", FactState::Ok)])),
        restrict(is("screen_lock", FactState::Ok), &[READ_ONLY]),
        forward(is("mdm_compliant", FactState::Ok)),
    ];
    let device = failing(&["disk_encrypted", "patched", "firewall_on", "screen_lock", "mdm_compliant"]);
    // Both ways are one change; the better effect stands first.
    assert_eq!(mended(draft(rules), &Visit::of(device)), ["posture.mdm_compliant fail -> ok"]);
}

#[test]
fn one_change_that_serves_twice_is_counted_once() {
    let rules = vec![
        forward(all(&[is("screen_lock", FactState::Ok), is("patched", FactState::Ok)])),
        forward(all(&[is("firewall_on", FactState::Ok), is("edr_healthy", FactState::Ok)])),
    ];
    let mut draft = draft(rules);
    draft.guardrails = vec![guardrail("patch", not(is("patched", FactState::Ok)))];
    let device = failing(&["screen_lock", "patched", "firewall_on", "edr_healthy"]);
    assert_eq!(mended(draft, &Visit::of(device)), ["posture.screen_lock fail -> ok", "posture.patched fail -> ok"]);
}

#[test]
fn what_nobody_can_mend_on_the_device_is_told_only_where_nothing_else_helps() {
    let office = |rules| {
        let mut draft = draft(rules);
        draft.guardrails = vec![guardrail("not-at-home", zone(None))];
        draft
    };
    let visit = Visit::of(failing(&["screen_lock"]));
    assert_eq!(mended(office(vec![forward(always())]), &visit), ["net.zone none -> office"]);
    let either = vec![forward(any(&[zone(Some(0)), all(&[is("screen_lock", FactState::Ok), state(&["approved"])])]))];
    assert_eq!(mended(draft(either), &visit), ["posture.screen_lock fail -> ok"], "a place is no device's fault");
    assert_eq!(
        mended(office(vec![forward(is("screen_lock", FactState::Ok))]), &visit),
        ["posture.screen_lock fail -> ok", "net.zone none -> office"]
    );
}

#[test]
fn versions_ages_state_and_contradictions_can_be_mended() {
    let newer = Condition::Test(Test::OsVersion(vec![(Compare::AtLeast, Version(vec![15, 1]))]));
    assert_eq!(mended(draft(vec![forward(newer)]), &Visit::of(laptop())), ["device.os_version 14.2.1 -> 15.1"]);
    let than = Condition::Test(Test::OsVersion(vec![(Compare::More, Version(vec![15]))]));
    assert_eq!(mended(draft(vec![forward(than)]), &Visit::of(laptop())), ["device.os_version 14.2.1 -> 15.1"]);
    let fresh = Condition::Test(Test::FactAge("screen_lock".into(), vec![(Compare::Less, std::time::Duration::from_secs(1800))]));
    assert_eq!(mended(draft(vec![forward(fresh)]), &Visit::of(laptop())), ["posture.screen_lock ok, observed 1h ago -> observed anew"]);
    let any_fresh = Condition::Test(Test::PostureAge(vec![(Compare::Less, std::time::Duration::from_secs(1800))]));
    assert_eq!(mended(draft(vec![forward(any_fresh)]), &Visit::of(laptop())), ["posture.age 1h -> observed anew"]);
    let pending = without(|device| device.state = crate::model::DeviceState::Pending);
    assert_eq!(mended(draft(vec![forward(tier(Compare::AtLeast, KNOWN))]), &Visit::of(pending)), ["device.state pending -> approved"]);
    let mut capped = draft(vec![forward(tier(Compare::AtLeast, HEALTHY))]);
    let lying = Condition::Test(Test::Wire(WireField::Contradictions, Want::Any));
    capped.caps = vec![Cap { name: "lying-stack".to_owned(), when: lying, max_tier: TierId(KNOWN) }];
    let mut visit = Visit::of(laptop());
    visit.sight.comparison.contradictions = [Contradiction::UaVsHints].into_iter().collect();
    visit.sight.comparison.strong = visit.sight.comparison.contradictions;
    assert_eq!(mended(capped, &visit), ["wire.contradictions ua_vs_hints -> none"]);
}

fn excepting(who: Who, lifts: Lifts) -> Exception {
    let (name, by, ticket) = ("exception".to_owned(), String::new(), String::new());
    Exception { name, who, lifts, apps: None, from: Some(at(0)), until: at(1 << 20), by, ticket }
}

#[test]
fn an_approval_helps_also_where_only_broken_glass_asks_for_it() {
    let pending = || Visit::of(without(|device| device.state = crate::model::DeviceState::Pending));
    let broken = |who| Draft { exceptions: vec![excepting(who, Lifts::Everything)], ..draft(vec![block(always())]) };
    let draft = broken(Who::Tag("pilot".to_owned()));
    assert_eq!(mended(draft.clone(), &pending()), ["device.state pending -> approved"]);
    let helpless = |draft, visit: &Visit| Policy::compile(draft).mend(AppId(0), &visit.inputs()).mend().is_none();
    assert!(helpless(draft, &pending().at(1 << 20)), "the exception has ended");
    assert!(helpless(broken(Who::Device("another".to_owned())), &pending()));
}

#[test]
fn a_cap_that_comes_to_hold_helps_where_a_lower_tier_does() {
    let mut draft = draft(vec![block(tier(Compare::AtLeast, HEALTHY)), forward(always())]);
    draft.caps = vec![Cap { name: "office".to_owned(), when: zone(Some(0)), max_tier: TierId(KNOWN) }];
    assert_eq!(mended(draft, &Visit::of(laptop())), ["net.zone none -> office"]);
}

#[test]
fn another_tag_or_id_has_other_exceptions() {
    let lifts = || Lifts::Checks(vec!["disk_encrypted".into()]);
    let posted = |field, word: &str| guardrail("posted", all(&[method(&["POST"]), device(field, &[word])]));
    let mut lifted = draft(vec![forward(is("disk_encrypted", FactState::Ok))]);
    lifted.guardrails = vec![posted(DeviceField::Tags, "another")];
    lifted.exceptions = vec![excepting(Who::Tag("another".to_owned()), lifts())];
    assert_eq!(mended(lifted, &Visit::too_old(laptop())), ["device.tags pilot -> pilot, another"]);
    // Two lift it: neither change turns the fact alone.
    let mut twice = draft(vec![forward(is("disk_encrypted", FactState::Fail))]);
    twice.guardrails = vec![posted(DeviceField::Tags, "x"), posted(DeviceField::Id, "x")];
    twice.exceptions = vec![excepting(Who::Tag("pilot".to_owned()), lifts()), excepting(Who::Device("laptop-1".to_owned()), lifts())];
    assert_eq!(mended(twice, &Visit::of(failing(&["disk_encrypted"]))), ["device.tags pilot -> none", "device.id laptop-1 -> x"]);
}

#[test]
fn a_device_without_a_record_needs_one_first() {
    let policy = Policy::compile(trusted());
    let search = policy.mend(AppId(0), &Visit::blind(NoRecord::NoProof).inputs());
    assert_eq!(changes(&search), ["device none (device.unknown) -> on record, with a certificate"]);
    assert!(search.mend().is_some_and(|mend| mend.at_best && mend.effect == Effect::Forward));
    assert!(matches!(policy.mend(AppId(0), &Visit::unreadable().inputs()), Search::Nothing), "nobody knows what it lacks");
    let nothing = Policy::compile(draft(vec![]));
    assert!(matches!(nothing.mend(AppId(0), &Visit::blind(NoRecord::NoProof).inputs()), Search::Nothing));
}

#[test]
fn a_policy_made_to_be_costly_is_given_up() {
    // Any of many pairs of each of which both are needed, all at once: the sets to try are as many as there are choices.
    let pair = |n: usize| any(&[is(&format!("a{n}"), FactState::Ok), is(&format!("b{n}"), FactState::Ok)]);
    let hostile = all(&(0..40).map(pair).collect::<Vec<_>>());
    let policy = Policy::compile(draft(vec![forward(hostile)]));
    let visit = Visit::of(laptop());
    assert!(matches!(policy.mend(AppId(0), &visit.inputs()), Search::GaveUp));
    let decision = visit.decide(&policy);
    let facts = |fixes: Vec<&Fix>| fixes.into_iter().map(|fix| fix.fact.clone()).collect::<Vec<_>>();
    let told = policy.to_mend(&decision, &visit.inputs()).into_iter().filter_map(|id| policy.fix(id)).collect();
    assert_eq!(facts(told), facts(policy.fixes(&decision)));
}

/// The smallest choice by trying them all, up to a size and so many: `Err` where they are too many to try.
fn exhaustive(search: &Tries<'_>, count: usize, most: usize, budget: &mut usize) -> Result<Option<(Choice, Effect)>, ()> {
    let all = &search.all[..count];
    let mut level = vec![Choice::new()];
    for _ in 0..most {
        let mut found: Option<(Effect, Choice)> = None;
        let mut next = Vec::new();
        for choice in &level {
            let from = choice.last().map_or(0, |last| usize::from(*last) + 1);
            for index in from..count {
                if choice.iter().any(|other| all[usize::from(*other)].signal == all[index].signal) {
                    continue;
                }
                *budget = budget.checked_sub(1).ok_or(())?;
                let mut more = choice.clone();
                more.push(u8::try_from(index).map_err(|_| ())?);
                let world = search.world(more.iter().map(|index| &all[usize::from(*index)]));
                let effect = decide(search.tables, search.id, &world.inputs()).done.effect;
                if effect < search.effect && found.as_ref().is_none_or(|known| (effect, &more) < (known.0, &known.1)) {
                    found = Some((effect, more.clone()));
                }
                next.push(more);
            }
        }
        if let Some((effect, choice)) = found {
            return Ok(Some((choice, effect)));
        }
        level = next;
    }
    Ok(None)
}

#[derive(Debug, Default)]
struct Counts {
    compared: usize,
    mended: usize,
    several: usize,
    hard: usize,
    too_many: usize,
}

/// Compares one search with all subsets of the same candidates.
fn compare(draft: Draft, visit: &Visit, counts: &mut Counts) {
    let policy = Policy::compile(draft);
    let tables = policy.tables();
    let inputs = visit.inputs();
    let effect = visit.decide(&policy).done.effect;
    let scene = Scene::new(tables, AppId(0), &inputs);
    let all = candidates(&policy, AppId(0), &scene);
    let app = &tables.apps[0];
    let scope = if app.mode == Mode::Report { Scope::Guardrails } else { Scope::Enforced };
    let search = Tries { tables, id: AppId(0), app, scope, inputs: &inputs, effect, all: &all, nodes: NODES };
    if effect == Effect::Forward {
        assert!(matches!(policy.mend(AppId(0), &inputs), Search::Nothing));
        return;
    }
    let soft = all.iter().take_while(|candidate| candidate.is_soft()).count();
    for (count, most) in [(soft, soft), (all.len(), 4)] {
        let tried = search.run(count);
        let size = if let Tried::Found(choice, ..) = &tried { choice.len() } else { most };
        let mut budget = 3000;
        let Ok(expected) = exhaustive(&search, count, size, &mut budget) else {
            counts.too_many += 1;
            continue;
        };
        counts.compared += 1;
        match (tried, expected) {
            (Tried::Found(choice, effect, _), Some(expected)) => {
                assert_eq!((&choice, effect), (&expected.0, expected.1));
                counts.mended += 1;
                counts.several += usize::from(choice.len() > 1);
                counts.hard += usize::from(count > soft);
            }
            (Tried::Exhausted, None) => {}
            (Tried::Found(choice, ..), None) => panic!("{choice:?} does not earn it"),
            (Tried::Exhausted, Some(expected)) => panic!("{expected:?} was not found"),
            (Tried::GaveUp, _) => counts.too_many += 1,
        }
    }
}

/// What people are asked for: facts, ages, a version, an approval, a tier.
fn asked() -> impl Strategy<Value = Condition> {
    let hour = |hours: u64| vec![(Compare::Less, std::time::Duration::from_secs(hours * 3600))];
    let one = select(vec![
        is("disk_encrypted", FactState::Ok),
        is("screen_lock", FactState::Ok),
        not(is("patched", FactState::Unknown)),
        state(&["approved"]),
        tier(Compare::AtLeast, KNOWN),
        tier(Compare::AtLeast, HEALTHY),
        tier(Compare::More, HEALTHY),
        Condition::Test(Test::OsVersion(vec![(Compare::AtLeast, Version(vec![15]))])),
        Condition::Test(Test::FactAge("screen_lock".into(), hour(2))),
        Condition::Test(Test::PostureAge(hour(1))),
        Condition::Test(Test::Wire(WireField::Drift, text(&["false"]))),
        zone(Some(0)),
        path("/a/*"),
        class(CORPORATE),
    ]);
    let several = |least: usize, most: usize| vec(one.clone(), least..most);
    prop_oneof![
        2 => several(1, 4).prop_map(Condition::All),
        1 => (several(2, 3), several(1, 3)).prop_map(|(any, more)| Condition::All([more, vec![Condition::Any(any)]].concat())),
    ]
}

fn ladder() -> impl Strategy<Value = Ladder> {
    let steps = select(vec![Step::Warn, Step::Restrict, Step::Block]);
    (select(vec!["disk_encrypted", "patched"]), prop_oneof![asked().prop_map(not), Just(always())], steps).prop_map(|(fact, when, step)| {
        Ladder {
            name: format!("ladder.{fact}"),
            fact: fact.into(),
            apps: None,
            when,
            steps: std::vec![(at(0), step)],
            with: std::vec![RestrictionId(READ_ONLY)],
        }
    })
}

fn exception() -> impl Strategy<Value = Exception> {
    let who = select(vec![Who::Device("laptop-1".to_owned()), Who::Tag("pilot".to_owned()), Who::Tag("another".to_owned())]);
    let lifts = select(vec![Lifts::Everything, Lifts::Checks(std::vec!["disk_encrypted".into(), "screen_lock".into()])]);
    (who, lifts).prop_map(|(who, lifts)| excepting(who, lifts))
}

fn delegation() -> impl Strategy<Value = Delegation> {
    let may = select(vec![std::vec![Effect::Forward], std::vec![Effect::Restrict], std::vec![Effect::Forward, Effect::Restrict]]);
    (0..2u16, 0..4u8, may).prop_map(|(owner, min_tier, may)| Delegation {
        owner: OwnerId(owner),
        apps: std::vec![AppId(0)],
        min_tier: TierId(min_tier),
        may,
    })
}

/// A random policy with rules that ask for such, and guardrails for those that lack it.
fn mendable() -> impl Strategy<Value = Draft> {
    let rules = vec((asked(), select(vec![Effect::Forward, Effect::Restrict]), 0..4u8), 1..3);
    let parts = (policies(), rules, vec(asked(), 0..2), 0..3usize, vec(ladder(), 0..2), vec(exception(), 0..2), vec(delegation(), 0..3));
    parts.prop_map(|(mut draft, rules, guardrails, kept, ladders, exceptions, delegations)| {
        (draft.ladders, draft.exceptions, draft.delegations) = (ladders, exceptions, delegations);
        draft.apps[0].mode = Mode::Enforce;
        draft.apps[0].rules.truncate(kept);
        draft.guardrails.truncate(kept);
        let rules = rules.into_iter().map(|(when, then, with)| match then {
            Effect::Restrict => restrict(when, &[with]),
            _ => forward(when),
        });
        draft.apps[0].rules.extend(rules);
        draft.guardrails.extend(guardrails.into_iter().map(|when| guardrail("asked", not(when))));
        draft
    })
}

#[test]
fn what_is_found_is_what_trying_every_set_finds() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() });
    let mut counts = Counts::default();
    for _ in 0..1000 {
        let (draft, visit) = (prop_oneof![policies(), mendable()], visits()).new_tree(&mut runner).expect("a case").current();
        compare(draft, &visit, &mut counts);
    }
    // What is compared is worth it.
    assert!(counts.mended > 200 && counts.several > 50 && counts.hard > 50 && counts.compared > 10 * counts.too_many, "{counts:?}");
}

#[test]
fn texts_in_a_record_can_be_other_ones() {
    let teams = device(DeviceField::Team, &["ops-*"]);
    assert_eq!(mended(draft(vec![forward(teams)]), &Visit::of(laptop())), ["device.team finance -> ops-"]);
    let rules = vec![block(path("/admin/*")), forward(always())];
    assert_eq!(mended(draft(rules), &Visit::of(laptop()).to("GET", "/admin/x")), ["http.path /admin/x -> /"]);
}
