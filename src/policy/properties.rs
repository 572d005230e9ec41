//! What holds for every policy and every visit.

mod given;
mod reference;

use http::HeaderMap;
use jiff::Timestamp;
use proptest::prelude::*;

use self::given::*;
pub use self::given::{policies, visits};

use super::draft::{Step, *};
use super::testing::*;
use super::*;
use crate::model::*;

/// What a decision lets pass.
#[derive(Debug, PartialEq)]
struct Access {
    methods: Vec<&'static str>,
    paths: Vec<&'static str>,
    /// Bytes of bodies and responses, seconds of streams.
    most: [u64; 3],
    /// Caches, attachments, pages without a sandbox.
    may: [bool; 3],
    rates: u64,
}

fn access(policy: &Policy, decision: &Decision) -> Access {
    let open = decision.done.effect != Effect::Block;
    let merged = &decision.merged;
    let methods = ["GET", "HEAD", "OPTIONS", "POST", "PUT"].into_iter();
    let paths = ["/", "/a", "/a/b", "/b"].into_iter();
    let size = |most: Option<u64>| if open { most.unwrap_or(u64::MAX) } else { 0 };
    Access {
        methods: methods.filter(|method| open && policy.allows_method(merged, method)).collect(),
        paths: paths.filter(|path| open && !policy.path_refused(decision.done.restrictions, path)).collect(),
        most: [merged.max_body, merged.max_response, merged.max_stream.map(|most| most.as_secs())].map(size),
        may: [!merged.no_store, !merged.no_attachments, !merged.sandbox].map(|may| open && may),
        rates: if open { decision.done.restrictions.0 & 1 << SLOW } else { 1 << SLOW },
    }
}

impl Access {
    fn within(&self, other: &Self) -> bool {
        self.methods.iter().all(|method| other.methods.contains(method))
            && self.paths.iter().all(|path| other.paths.contains(path))
            && self.most.iter().zip(other.most).all(|(one, other)| *one <= other)
            && self.may.iter().zip(other.may).all(|(one, other)| *one <= other)
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
    draft.ladders.iter_mut().for_each(|ladder| ladder.steps.retain(|(_, step)| *step >= Step::Restrict));
    draft
}

/// Nothing of it is in report mode at that moment.
fn enforced(mut draft: Draft, now: Timestamp) -> Draft {
    draft.apps[0].mode = Mode::Enforce;
    draft.apps[0].rules.iter_mut().for_each(|rule| rule.mode = Mode::Enforce);
    draft.layers.iter_mut().for_each(|layer| layer.rule.mode = Mode::Enforce);
    draft.guardrails.iter_mut().for_each(|guardrail| guardrail.mode = Mode::Enforce);
    for ladder in &mut draft.ladders {
        if ladder.steps.iter().any(|(from, _)| *from <= now) {
            ladder.steps.retain(|(_, step)| *step >= Step::Restrict);
            ladder.steps.first_mut().into_iter().for_each(|(from, _)| *from = (*from).min(now));
        }
    }
    draft
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decisions_are_those_of_the_definition(draft in policies(), visit in visits()) {
        let told = reference::answer(&draft, &visit);
        let decision = visit.decide(&Policy::compile(draft));
        prop_assert_eq!((decision.class, decision.tier), (told.class, told.tier));
        let glass = match decision.done.rule { RuleRef::Exception(index) => Some(index), _ => None };
        prop_assert_eq!(glass, told.glass);
        prop_assert_eq!((decision.done.effect, decision.done.restrictions), told.done);
        prop_assert_eq!((decision.would.effect, decision.would.restrictions), told.would);
        prop_assert_eq!(decision.notices.iter().collect::<Vec<_>>(), told.notices);
    }

    /// Guardrails and ladders, whatever owners' files and delegations say.
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
    fn adding_a_key_to_a_restriction_never_adds_access(draft in policies(), visit in visits(), changed in 0..4usize, key in 0..9, size in 0..4u64) {
        let mut more = draft.clone();
        let restriction = &mut more.restrictions[changed];
        match key {
            0 => restriction.methods = restriction.methods.take().or(Some(vec!["PUT".to_owned()])),
            1 => restriction.allowed_paths = restriction.allowed_paths.take().or(Some(vec![Glob("/a*".to_owned())])),
            2 => restriction.denied_paths.push(Glob("*b".to_owned())),
            3 => restriction.max_body = Some(restriction.max_body.unwrap_or(u64::MAX).min(size << 9)),
            4 => restriction.max_response = Some(restriction.max_response.unwrap_or(u64::MAX).min(size)),
            5 => restriction.max_stream = Some(std::time::Duration::from_secs(size)),
            6 => restriction.no_store = true,
            7 => restriction.sandbox = true,
            _ => restriction.no_attachments = true,
        }
        let (before, after) = (Policy::compile(draft), Policy::compile(more));
        let (a, b) = (visit.decide(&before), visit.decide(&after));
        prop_assert_eq!((a.done, a.would), (b.done, b.would));
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
        let enforced = enforced(draft.clone(), visit.now);
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

    #[test]
    fn no_exception_helps_a_device_without_a_record_or_whose_record_cannot_be_read(draft in policies(), visit in requests(), blind: bool) {
        let standing = if blind { Standing::NoRecord(NoRecord::NoProof) } else { Standing::Unreadable };
        let visit = Visit { standing, ..visit };
        let without = Policy::compile(Draft { exceptions: vec![], ..draft.clone() });
        let (with, without) = (visit.decide(&Policy::compile(draft)), visit.decide(&without));
        prop_assert_eq!((with.done.effect, with.done.restrictions, with.done.rule), (without.done.effect, without.done.restrictions, without.done.rule));
        prop_assert!(with.exceptions.as_slice().is_empty());
    }

    /// What exceptions do is what a better record would have done: none of them does more. (Taking one away may open something where a rule is
    /// kinder to a fact that fails.) Where no rule reads an age, which a lifted fact has not.
    #[test]
    fn exceptions_do_what_a_record_whose_facts_are_ok_would_have_done(draft in policies(), visit in requests(), device in devices()) {
        let ages = |test: &Test| matches!(test, Test::FactAge(..) | Test::PostureAge(_));
        let (mut rules, mut derived) = (draft.apps[0].rules.iter().map(|rule| &rule.when).collect::<Vec<_>>(), vec![&draft.tiers[2].require]);
        rules.extend(draft.guardrails.iter().map(|guardrail| &guardrail.when).chain(draft.layers.iter().map(|layer| &layer.rule.when)));
        derived.extend(draft.ladders.iter().map(|ladder| &ladder.when).chain(draft.caps.iter().map(|cap| &cap.when)));
        if rules.into_iter().chain(derived).any(|when| when.reads(&ages)) {
            return Ok(());
        }
        let visit = Visit { standing: Visit::of(device.clone()).standing, ..visit };
        let mut mended = device;
        for fact in reference::lifted(&draft, &visit) {
            mended.posture.retain(|known| *known.name != *fact);
            mended.posture.push(Fact { name: fact.to_string(), observations: vec![observed("mdm", true, 0)] });
        }
        mended.posture.sort_by(|a, b| a.name.cmp(&b.name));
        let mut draft = draft;
        draft.exceptions.retain(|exception| exception.lifts != Lifts::Everything);
        let with = visit.decide(&Policy::compile(draft.clone()));
        let mended = Visit { standing: Visit::of(mended).standing, ..visit }.decide(&Policy::compile(Draft { exceptions: vec![], ..draft }));
        let same = |decision: Decision| Decision { valid_until: None, exceptions: ExceptionList::default(), ..decision };
        prop_assert_eq!(same(with), same(mended));
    }

    #[test]
    fn broken_glass_forwards_and_is_the_only_exception_that_decides(draft in policies(), visit in visits()) {
        let decision = visit.decide(&Policy::compile(draft));
        if let RuleRef::Exception(index) = decision.done.rule {
            prop_assert_eq!((decision.done.effect, decision.mode, decision.would), (Effect::Forward, Mode::Enforce, decision.done));
            prop_assert!(decision.exceptions.as_slice().contains(&index));
            prop_assert_eq!(visit.standing.device().map(|device| device.state), Some(DeviceState::Approved));
        }
    }
}
