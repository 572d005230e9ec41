//! Exceptions: found by the device's id and its tags, so that those of other devices cost a decision nothing.

use std::collections::HashMap;

use ahash::RandomState;
use jiff::Timestamp;

use super::AppId;
use super::condition::{Compiler, FactId};
use super::draft::{self, Lifts, Who};
use super::scene::Scene;
use crate::model::{Device, DeviceState};

type Found = HashMap<Box<str>, Vec<u32>, RandomState>;

#[derive(Debug, Default)]
pub struct Exceptions {
    each: Box<[Exception]>,
    by_device: Found,
    by_tag: Found,
    /// Those that break glass.
    glass: Box<[u32]>,
}

#[derive(Debug)]
pub struct Exception {
    from: Option<Timestamp>,
    until: Timestamp,
    /// Sorted. `None`: every app.
    apps: Option<Box<[AppId]>>,
    /// `None`: everything, glass is broken.
    facts: Option<Box<[FactId]>>,
}

impl Exceptions {
    /// Facts that no condition reads are left out: there is nothing to lift.
    pub fn new(exceptions: &[draft::Exception], names: &Compiler) -> Self {
        let mut all = Self::default();
        for (index, exception) in (0..).zip(exceptions) {
            let list = match &exception.who {
                Who::Device(id) => all.by_device.entry(id.as_str().into()),
                Who::Tag(tag) => all.by_tag.entry(tag.as_str().into()),
            };
            list.or_default().push(index);
        }
        let each = exceptions.iter().map(|exception| Exception {
            from: exception.from,
            until: exception.until,
            apps: exception.apps.as_ref().map(|apps| {
                let mut apps = apps.clone();
                apps.sort_unstable();
                apps.into()
            }),
            facts: match &exception.lifts {
                Lifts::Checks(facts) => Some(facts.iter().filter_map(|fact| names.known_fact(fact)).collect()),
                Lifts::Everything => None,
            },
        });
        all.each = each.collect();
        all.glass = (0..).zip(&all.each).filter(|(_, exception)| exception.facts.is_none()).map(|(index, _)| index).collect();
        all
    }

    /// Those that concern the device and the app, whenever they hold.
    fn of(&self, device: &Device, app: AppId) -> impl Iterator<Item = (u32, &Exception)> {
        let tagged = device.tags.iter().filter(|_| !self.by_tag.is_empty());
        let lists = self.by_device.get(device.id.as_str()).into_iter().chain(tagged.filter_map(|tag| self.by_tag.get(tag.as_str())));
        let found = lists.flatten().filter_map(|index| Some((*index, self.each.get(*index as usize)?)));
        found.filter(move |(_, exception)| exception.concerns(app))
    }

    pub fn is_empty(&self) -> bool {
        self.each.is_empty()
    }
}

impl Exception {
    fn concerns(&self, app: AppId) -> bool {
        self.apps.as_ref().is_none_or(|apps| apps.binary_search(&app).is_ok())
    }

    /// From its beginning on, at its end no more.
    pub fn in_force(&self, now: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= now) && now < self.until
    }

    /// The next moment at which it begins or ends.
    fn turns(&self, now: Timestamp) -> Option<Timestamp> {
        let moments = [self.from.filter(|from| *from < self.until), Some(self.until)];
        moments.into_iter().flatten().find(|moment| now < *moment)
    }
}

/// What exceptions do for a device here and now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Relief {
    /// Some of them lift checks.
    pub checks: bool,
    /// The first that breaks glass.
    pub glass: Option<u32>,
}

impl Scene<'_> {
    /// For a device with a record; notes when any of its exceptions begins or ends.
    pub fn relief(&self, device: &Device) -> Relief {
        let mut relief = Relief::default();
        if self.tables.exceptions.is_empty() {
            return relief;
        }
        for (index, exception) in self.tables.exceptions.of(device, self.app) {
            if let Some(moment) = exception.turns(self.inputs.now) {
                self.note(moment);
            }
            if !exception.in_force(self.inputs.now) {
                continue;
            }
            match exception.facts {
                Some(_) => relief.checks = true,
                None if device.state == DeviceState::Approved => {
                    relief.glass = Some(relief.glass.map_or(index, |first| first.min(index)));
                }
                None => {}
            }
        }
        relief
    }

    /// The first exception in force that lifts the fact for the device.
    pub fn lifted_by(&self, device: &Device, fact: FactId) -> Option<u32> {
        let found = self.tables.exceptions.of(device, self.app);
        let lifting = found.filter(|(_, exception)| {
            exception.facts.as_ref().is_some_and(|facts| facts.contains(&fact)) && exception.in_force(self.inputs.now)
        });
        lifting.map(|(index, _)| index).min()
    }

    /// Whether glass may be broken here for some device. Devices that break it are few and moments short, so all are looked at.
    pub fn some_glass(&self) -> bool {
        let exceptions = &self.tables.exceptions;
        let glass = exceptions.glass.iter().filter_map(|index| exceptions.each.get(*index as usize));
        glass.filter(|exception| exception.concerns(self.app)).fold(false, |some, exception| {
            if let Some(moment) = exception.turns(self.inputs.now) {
                self.note(moment);
            }
            some || exception.in_force(self.inputs.now)
        })
    }

    /// Whether the device breaks glass here once it is approved.
    pub fn glass_awaits(&self, device: &Device) -> bool {
        let mut found = self.tables.exceptions.of(device, self.app);
        found.any(|(_, exception)| exception.facts.is_none() && exception.in_force(self.inputs.now))
    }

    /// Those that concern the device, in the order of the policy, and whether they are in force. For people.
    pub fn exceptions_of(&self, device: &Device) -> Vec<(u32, bool)> {
        let found = self.tables.exceptions.of(device, self.app);
        let mut found: Vec<_> = found.map(|(index, exception)| (index, exception.in_force(self.inputs.now))).collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::super::draft::{Compare, Condition, Draft, Exception as Drafted, Test};
    use super::super::testing::*;
    use super::super::{Decision, Policy, RuleRef};
    use super::*;
    use crate::model::{Effect, FactState, Mode, NoRecord};

    const HOUR: i64 = 3600;

    fn device_1() -> Who {
        Who::Device("laptop-1".to_owned())
    }

    fn lifting(who: Who, facts: &[&str]) -> Drafted {
        Drafted {
            name: "exception".to_owned(),
            who,
            lifts: Lifts::Checks(facts.iter().map(|fact| (*fact).into()).collect()),
            apps: None,
            from: None,
            until: at(10 * HOUR),
            by: "ciso".to_owned(),
            ticket: "SEC-481".to_owned(),
        }
    }

    fn glass(who: Who) -> Drafted {
        Drafted { name: "outage".to_owned(), lifts: Lifts::Everything, from: Some(at(0)), ..lifting(who, &[]) }
    }

    /// The app blocks whoever's disk is not encrypted, and no tier reads a fact.
    fn strict(exceptions: Vec<Drafted>) -> Draft {
        let mut draft = Draft { exceptions, ..draft(vec![forward(always())]) };
        draft.tiers.truncate(2);
        draft.guardrails = vec![guardrail("disk", not(is("disk_encrypted", FactState::Ok)))];
        draft
    }

    fn failing() -> Visit {
        Visit::of(without(|device| set_fact(device, "disk_encrypted", false)))
    }

    fn decided(exceptions: Vec<Drafted>, visit: &Visit) -> Decision {
        visit.decide(&Policy::compile(strict(exceptions)))
    }

    fn seen(exceptions: Vec<Drafted>, visit: &Visit) -> (Effect, Vec<u32>) {
        let decision = decided(exceptions, visit);
        (decision.done.effect, decision.exceptions.as_slice().to_vec())
    }

    #[test]
    fn a_lifted_fact_counts_as_ok_for_the_device_that_is_named_or_tagged() {
        let tag = |tag: &str| Who::Tag(tag.to_owned());
        for who in [device_1(), tag("pilot")] {
            assert_eq!(seen(vec![lifting(who.clone(), &["disk_encrypted"])], &failing()), (Effect::Forward, vec![0]));
            let unobserved = Visit::of(without(|device| device.posture.clear()));
            assert_eq!(seen(vec![lifting(who.clone(), &["disk_encrypted"])], &unobserved), (Effect::Forward, vec![0]));
            assert_eq!(seen(vec![lifting(who, &["screen_lock"])], &failing()), (Effect::Block, vec![]), "another fact");
        }
        for who in [Who::Device("pilot".to_owned()), tag("laptop-1"), Who::Device("laptop-10".to_owned()), tag("pil")] {
            assert_eq!(seen(vec![lifting(who, &["disk_encrypted"])], &failing()), (Effect::Block, vec![]));
        }
    }

    #[test]
    fn an_exception_is_for_its_apps() {
        let for_apps =
            |apps: &[u32]| Drafted { apps: Some(apps.iter().map(|app| AppId(*app)).collect()), ..lifting(device_1(), &["disk_encrypted"]) };
        assert_eq!(seen(vec![for_apps(&[1, 2])], &failing()).0, Effect::Block);
        assert_eq!(seen(vec![for_apps(&[2, 0])], &failing()).0, Effect::Forward);
        assert_eq!(seen(vec![for_apps(&[])], &failing()).0, Effect::Block);
    }

    #[test]
    fn an_exception_begins_and_ends_and_the_decision_with_it() {
        let timed = vec![Drafted { from: Some(at(2 * HOUR)), until: at(4 * HOUR), ..lifting(device_1(), &["disk_encrypted"]) }];
        for (now, effect, until) in [
            (2 * HOUR - 1, Effect::Block, 2 * HOUR),
            (2 * HOUR, Effect::Forward, 4 * HOUR),
            (4 * HOUR - 1, Effect::Forward, 4 * HOUR),
            (4 * HOUR, Effect::Block, 24 * HOUR),
        ] {
            let decision = decided(timed.clone(), &failing().at(now));
            assert_eq!((decision.done.effect, decision.valid_until), (effect, Some(at(until))), "at {now}");
        }
        // The fact that is lifted still expires: then another state is lifted.
        let long = vec![Drafted { until: at(100 * HOUR), ..lifting(device_1(), &["disk_encrypted"]) }];
        assert_eq!(decided(long, &failing()).valid_until, Some(at(24 * HOUR)));
    }

    #[test]
    fn an_exception_never_helps_a_device_without_a_record_or_whose_record_cannot_be_read() {
        for visit in [Visit::blind(NoRecord::NoProof), Visit::unreadable()] {
            for exception in [lifting(device_1(), &["disk_encrypted"]), glass(device_1())] {
                assert_eq!(seen(vec![exception], &visit), (Effect::Block, vec![]));
            }
        }
        let too_old = Visit::too_old(laptop());
        assert_eq!(seen(vec![], &too_old).0, Effect::Block);
        assert_eq!(seen(vec![lifting(device_1(), &["disk_encrypted"])], &too_old), (Effect::Forward, vec![0]), "this one has a record");
    }

    #[test]
    fn only_what_changed_a_fact_that_was_read_is_listed_each_once_in_the_order_of_the_policy() {
        let lift = |facts: &[&str]| lifting(device_1(), facts);
        assert_eq!(seen(vec![lift(&["disk_encrypted"])], &Visit::of(laptop())), (Effect::Forward, vec![]), "the fact is ok by itself");
        let twice = vec![lift(&["screen_lock"]), lift(&["disk_encrypted"]), lift(&["disk_encrypted"])];
        assert_eq!(seen(twice, &failing()), (Effect::Forward, vec![1]), "of two that lift it the first");
        let mut draft = strict(vec![lift(&["disk_encrypted"]), lift(&["screen_lock"])]);
        draft.guardrails.insert(0, guardrail("lock", not(is("screen_lock", FactState::Ok))));
        let visit = Visit::of(without(|device| device.posture.clear()));
        assert_eq!(visit.decide(&Policy::compile(draft)).exceptions.as_slice(), [0, 1]);
    }

    #[test]
    fn a_lifted_fact_has_no_age() {
        let young = Test::FactAge("disk_encrypted".into(), vec![(Compare::Less, std::time::Duration::from_secs(1 << 30))]);
        let mut draft = strict(vec![lifting(device_1(), &["disk_encrypted"])]);
        draft.apps[0].rules = vec![forward(Condition::Test(young)), block(always())];
        assert_eq!(failing().decide(&Policy::compile(draft.clone())).done.effect, Effect::Block, "a comparison with it is undecided");
        assert_eq!(Visit::of(laptop()).decide(&Policy::compile(draft)).done.effect, Effect::Forward, "what is ok by itself keeps its age");
    }

    #[test]
    fn what_exceptions_lift_counts_for_tiers_as_well_and_the_records_own_facts_stay_as_they_are() {
        let mut draft = draft(vec![forward(tier(Compare::AtLeast, TRUSTED))]);
        draft.exceptions = vec![lifting(device_1(), &["disk_encrypted"])];
        let policy = Policy::compile(draft);
        let visit = failing();
        let decision = visit.decide(&policy);
        assert_eq!((decision.tier.0, decision.done.effect, decision.exceptions.as_slice()), (TRUSTED, Effect::Forward, &[0][..]));
        let facts = policy.facts(&visit.standing, visit.now);
        assert_eq!(facts.iter().find(|fact| fact.name == "disk_encrypted").map(|fact| fact.state), Some(FactState::Fail));
    }

    #[test]
    fn broken_glass_forwards_an_approved_device_whatever_guardrails_and_rules_say() {
        let mut draft = strict(vec![lifting(device_1(), &["screen_lock"]), glass(device_1())]);
        draft.apps[0].rules = vec![report(block(always())), block(always())];
        let policy = Policy::compile(draft);
        let decision = failing().decide(&policy);
        assert_eq!((decision.done.effect, decision.done.rule, decision.mode), (Effect::Forward, RuleRef::Exception(1), Mode::Enforce));
        assert_eq!((decision.would, decision.exceptions.as_slice()), (decision.done, &[1][..]));
        assert_eq!(reasons(&policy, &decision.done), ["exception.outage"]);
        assert_eq!(
            (policy.rule_name(AppId(0), decision.done.rule), policy.owner(decision.done.owner).name.as_str()),
            ("outage", "security")
        );
        assert_eq!(decision.valid_until, Some(at(10 * HOUR)));
        assert_eq!(failing().at(10 * HOUR).decide(&policy).done.effect, Effect::Block);
        for state in [DeviceState::Pending, DeviceState::Suspended, DeviceState::Lost, DeviceState::Retired] {
            let visit = Visit::of(without(|device| device.state = state));
            assert_eq!(visit.decide(&policy).done.effect, Effect::Block, "{state:?}");
        }
    }

    #[test]
    fn of_two_that_break_glass_the_first_does() {
        let other = Drafted { name: "first".to_owned(), ..glass(Who::Tag("pilot".to_owned())) };
        let decision = decided(vec![other, glass(device_1())], &failing());
        assert_eq!((decision.done.rule, decision.exceptions.as_slice()), (RuleRef::Exception(0), &[0][..]));
    }

    #[test]
    fn while_glass_may_be_broken_a_device_that_nobody_could_look_up_is_not_refused_for_good() {
        let closed = |exceptions| Policy::compile(Draft { exceptions, ..draft(vec![block(always())]) });
        assert!(!Visit::unreadable().decide(&closed(vec![])).unavailable);
        let glass = Drafted { from: Some(at(2 * HOUR)), ..glass(device_1()) };
        let policy = closed(vec![glass.clone()]);
        let before = Visit::unreadable().decide(&policy);
        assert_eq!((before.unavailable, before.valid_until), (false, Some(at(2 * HOUR))));
        let during = Visit::unreadable().at(2 * HOUR).decide(&policy);
        assert_eq!((during.unavailable, during.valid_until), (true, Some(at(10 * HOUR))));
        assert_eq!(reasons(&policy, &during.done), ["store.unavailable"]);
        let elsewhere = closed(vec![Drafted { apps: Some(vec![AppId(1)]), ..glass }]);
        assert!(!Visit::unreadable().at(2 * HOUR).decide(&elsewhere).unavailable);
    }

    #[test]
    fn an_explanation_lists_the_devices_exceptions() {
        let ended = Drafted { until: at(HOUR), ..lifting(device_1(), &["screen_lock", "disk_encrypted"]) };
        let policy = Policy::compile(strict(vec![
            ended,
            lifting(Who::Tag("pilot".to_owned()), &["disk_encrypted"]),
            glass(Who::Tag("else".to_owned())),
        ]));
        let visit = failing();
        let inputs = visit.inputs();
        let told = policy.explain(AppId(0), &inputs).exceptions;
        let told: Vec<_> =
            told.iter().map(|told| (told.what.as_str(), told.in_force, told.used, told.until.as_str(), told.ticket)).collect();
        assert_eq!(
            told,
            [
                ("screen_lock, disk_encrypted count as ok", false, false, "2027-01-15T09:00:00+00:00", "SEC-481"),
                ("disk_encrypted counts as ok", true, true, "2027-01-15T18:00:00+00:00", "SEC-481")
            ]
        );
        assert_eq!((policy.exception(1).by.as_str(), policy.exception(9).by.as_str()), ("ciso", ""));
    }

    #[test]
    fn a_list_of_exceptions_keeps_its_order_and_the_first_four() {
        let list = |indices: &[u32]| {
            let mut list = super::super::ExceptionList::default();
            indices.iter().for_each(|index| list.push(*index));
            list.as_slice().to_vec()
        };
        assert!(list(&[]).is_empty());
        assert_eq!(list(&[7, 3, 7, 5]), [3, 5, 7]);
        assert_eq!(list(&[7, 3, 9, 5, 1]), [1, 3, 5, 7]);
        assert_eq!(list(&[1, 2, 3, 4, 5]), [1, 2, 3, 4]);
    }
}
