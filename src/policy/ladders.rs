//! What is asked of a posture fact, more from date to date.

use jiff::Timestamp;

use super::RestrictionSet;
use super::condition::{Compiler, Cond, FactStates, Leaf, Place};
use super::draft::{self, Step};
use super::scene::Scene;
use super::tables::set;
use super::truth::Truth;
use crate::model::{Effect, FactState, Mode};

/// A step with the moment from which on it is in force.
pub type Dated = (Timestamp, Step);

#[derive(Debug)]
pub struct Ladder {
    /// That its fact is not `ok`.
    pub lacking: Cond,
    /// Whom it concerns besides.
    pub when: Cond,
    /// Earlier first.
    steps: Box<[Dated]>,
    /// Of a restricted request.
    pub with: RestrictionSet,
    /// What its first enforced step does. `None`: it never asks for more than attention.
    enforced: Option<Effect>,
}

/// What a ladder that holds comes to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    pub step: Step,
    /// What it does or, before its dates, would do.
    pub effect: Option<Effect>,
    /// `Report`: recorded and passed over.
    pub mode: Mode,
}

impl Ladder {
    pub fn new(ladder: &draft::Ladder, names: &mut Compiler) -> Self {
        let fact = names.fact(&ladder.fact);
        let effect = |step: Step| match step {
            Step::Report | Step::Warn => None,
            Step::Restrict => Some(Effect::Restrict),
            Step::Block => Some(Effect::Block),
        };
        Self {
            lacking: Cond::Leaf(Leaf::Fact(fact, FactStates::new(&[FactState::Fail, FactState::Unknown]))),
            when: names.condition(&ladder.when, Place::Rule),
            steps: ladder.steps.as_slice().into(),
            with: set(&ladder.with),
            enforced: ladder.steps.iter().find_map(|(_, step)| effect(*step)),
        }
    }

    /// Those whose date has come, and those still to come.
    pub fn split(&self, now: Timestamp) -> (&[Dated], &[Dated]) {
        self.steps.split_at(self.steps.partition_point(|(from, _)| *from <= now))
    }

    /// What a step does.
    fn demand(&self, step: Step) -> Demand {
        let (effect, mode) = match step {
            Step::Report | Step::Warn => (self.enforced, Mode::Report),
            Step::Restrict => (Some(Effect::Restrict), Mode::Enforce),
            Step::Block => (Some(Effect::Block), Mode::Enforce),
        };
        Demand { step, effect, mode }
    }
}

impl Scene<'_> {
    /// `None`: the ladder asks for nothing, be it that none of its dates has come or that it does not hold. Undecided counts as true.
    pub fn demand(&self, ladder: &Ladder) -> Option<Demand> {
        let (come, to_come) = ladder.split(self.inputs.now);
        if let Some((next, _)) = to_come.first() {
            self.note(*next);
        }
        let (_, step) = come.last()?;
        (self.ladder_truth(ladder) != Truth::No).then(|| ladder.demand(*step))
    }

    pub fn ladder_truth(&self, ladder: &Ladder) -> Truth {
        match self.truth(&ladder.lacking) {
            Truth::No => Truth::No,
            lacking => lacking.and(self.truth(&ladder.when)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::draft::{Condition, Draft, Exception, Lifts, Who};
    use super::super::testing::*;
    use super::super::{AppId, Decision, Policy, RestrictionId, RuleRef, Verdict};
    use super::*;
    use crate::model::{NoRecord, Reason};

    const DAY: i64 = 86_400;

    fn ladder(steps: &[(i64, Step)]) -> draft::Ladder {
        draft::Ladder {
            name: "ladder.disk_encrypted".to_owned(),
            fact: "disk_encrypted".into(),
            apps: None,
            when: Condition::always(),
            steps: steps.iter().map(|(day, step)| (at(day * DAY), *step)).collect(),
            with: vec![RestrictionId(READ_ONLY)],
        }
    }

    const ALL: [(i64, Step); 4] = [(10, Step::Report), (20, Step::Warn), (30, Step::Restrict), (40, Step::Block)];

    /// The app forwards everybody, and no tier reads a fact.
    fn asking(ladders: Vec<draft::Ladder>) -> Draft {
        let mut draft = Draft { ladders, ..draft(vec![forward(always())]) };
        draft.tiers.truncate(2);
        draft
    }

    /// A device whose disk is not encrypted, as seen this very hour, on a day at noon.
    fn failing(day: i64) -> Visit {
        let now = day * DAY + DAY / 2;
        let device = without(|device| {
            device.posture =
                vec![crate::model::Fact { name: "disk_encrypted".to_owned(), observations: vec![observed("mdm", false, now)] }];
        });
        Visit::of(device).at(now)
    }

    fn decided(ladders: Vec<draft::Ladder>, visit: &Visit) -> Decision {
        visit.decide(&Policy::compile(asking(ladders)))
    }

    #[test]
    fn the_step_in_force_is_the_last_whose_date_has_come() {
        let seen = |day| {
            let decision = decided(vec![ladder(&ALL)], &failing(day));
            (decision.done.effect, decision.would.effect, decision.mode, decision.notices.iter().count())
        };
        use Effect::{Block, Forward, Restrict};
        assert_eq!(seen(9), (Forward, Forward, Mode::Enforce, 0), "before any step it does nothing");
        assert_eq!(seen(10), (Forward, Restrict, Mode::Report, 0), "reported as its first enforced step");
        assert_eq!(seen(20), (Forward, Restrict, Mode::Report, 1), "and the person is told");
        assert_eq!(seen(30), (Restrict, Restrict, Mode::Enforce, 0));
        assert_eq!(seen(40), (Block, Block, Mode::Enforce, 0));
    }

    #[test]
    fn a_ladder_that_never_restricts_reports_a_block_and_one_that_only_warns_reports_nothing() {
        let strict = decided(vec![ladder(&[(10, Step::Warn), (40, Step::Block)])], &failing(20));
        assert_eq!((strict.would.effect, strict.would.rule, strict.mode), (Effect::Block, RuleRef::Ladder(0), Mode::Report));
        let mild = decided(vec![ladder(&[(10, Step::Warn)])], &failing(20));
        assert_eq!((mild.would, mild.mode, mild.notices.iter().collect::<Vec<_>>()), (mild.done, Mode::Enforce, vec![0]));
    }

    #[test]
    fn a_ladder_holds_while_its_fact_is_not_ok() {
        let now = 40 * DAY;
        let blocked = [
            Visit::of(without(|device| device.posture.clear())).at(now),
            Visit::of(laptop()).at(now),
            Visit::too_old(laptop()).at(3600),
            Visit::blind(NoRecord::NoProof).at(now),
            Visit::unreadable().at(now),
        ];
        for visit in blocked {
            let ladder = ladder(&[(0, Step::Block)]);
            let decision = decided(vec![ladder], &visit);
            assert_eq!((decision.done.effect, decision.done.rule), (Effect::Block, RuleRef::Ladder(0)), "{:?}", visit.standing);
        }
        assert_eq!(decided(vec![ladder(&[(0, Step::Block)])], &Visit::of(laptop())).done.effect, Effect::Forward, "the disk is encrypted");
    }

    #[test]
    fn a_ladder_is_for_its_apps_and_for_whom_it_concerns_and_undecided_counts_as_true() {
        let to = |when: Condition| draft::Ladder { when, ..ladder(&ALL) };
        let effect = |ladder, visit: &Visit| decided(vec![ladder], visit).done.effect;
        assert_eq!(effect(to(class(CORPORATE)), &failing(40)), Effect::Block);
        assert_eq!(effect(to(class(OFFNET)), &failing(40)), Effect::Forward);
        let mut teamless = failing(40);
        if let crate::model::Standing::Known { device, .. } = &mut teamless.standing {
            std::sync::Arc::make_mut(device).team = None;
        }
        assert_eq!(effect(to(team("guests")), &failing(40)), Effect::Forward);
        assert_eq!(effect(to(team("guests")), &teamless), Effect::Block);
        let elsewhere = draft::Ladder { apps: Some(vec![AppId(7)]), ..ladder(&ALL) };
        assert_eq!(effect(elsewhere, &failing(40)), Effect::Forward);
        let here = draft::Ladder { apps: Some(vec![AppId(0)]), ..ladder(&ALL) };
        assert_eq!(effect(here, &failing(40)), Effect::Block);
    }

    #[test]
    fn a_ladder_names_its_fact_and_belongs_to_security() {
        let policy = Policy::compile(asking(vec![draft::Ladder { when: class(CORPORATE), ..ladder(&ALL) }]));
        let decision = failing(40).decide(&policy);
        assert_eq!(reasons(&policy, &decision.done), ["posture.disk_encrypted.fail"]);
        assert_eq!(policy.fixes(&decision).len(), 1);
        assert_eq!(
            (policy.owner(decision.done.owner).name.as_str(), policy.rule_name(AppId(0), decision.done.rule)),
            ("security", "ladder.disk_encrypted")
        );
        let unknown = Visit::of(without(|device| device.posture.clear())).at(40 * DAY).decide(&policy);
        assert_eq!(reasons(&policy, &unknown.done), ["posture.disk_encrypted.unknown"]);
        let warned = failing(20).decide(&policy);
        assert_eq!(reasons(&policy, &warned.would), ["posture.disk_encrypted.fail"]);
        let everywhere = Policy::compile(asking(vec![ladder(&ALL)]));
        assert_eq!(reasons(&everywhere, &Visit::blind(NoRecord::NoProof).at(40 * DAY).decide(&everywhere).done), ["device.unknown"]);
        let down = Visit::unreadable().at(40 * DAY).decide(&everywhere);
        assert_eq!(
            (reasons(&everywhere, &down.done), down.unavailable),
            (vec!["store.unavailable".to_owned()], true),
            "a record could have it ok"
        );
    }

    #[test]
    fn all_ladders_and_guardrails_of_the_deciding_effect_are_named_guardrails_first() {
        let mut draft = asking(vec![draft::Ladder { fact: "screen_lock".into(), ..ladder(&ALL) }, ladder(&ALL)]);
        let rule = |draft: Draft| failing(40).decide(&Policy::compile(draft)).done.rule;
        let why = |draft: Draft| {
            let policy = Policy::compile(draft);
            reasons(&policy, &failing(40).decide(&policy).done)
        };
        assert_eq!(why(draft.clone()), ["posture.screen_lock.unknown", "posture.disk_encrypted.fail"]);
        assert_eq!(rule(draft.clone()), RuleRef::Ladder(0));
        draft.guardrails = vec![guardrail("g", path("/*"))];
        assert_eq!(why(draft.clone()), ["http.path", "posture.screen_lock.unknown", "posture.disk_encrypted.fail"]);
        assert_eq!(rule(draft), RuleRef::Guardrail(0));
    }

    #[test]
    fn of_a_ladder_and_a_rule_the_stricter_stands_and_restrictions_merge() {
        let mut draft = asking(vec![ladder(&ALL)]);
        draft.apps[0].rules = vec![restrict(always(), &[SLOW])];
        let decision = failing(30).decide(&Policy::compile(draft.clone()));
        assert_eq!(decision.done.restrictions.iter().map(|id| id.0).collect::<Vec<_>>(), [READ_ONLY, SLOW]);
        draft.apps[0].rules = vec![block(always())];
        assert_eq!(
            failing(20).decide(&Policy::compile(draft.clone())).notices,
            super::super::LadderSet::default(),
            "a blocked person has other worries"
        );
        draft.layers = vec![layer(1, forward(always()))];
        draft.delegations = vec![draft::Delegation {
            owner: super::super::OwnerId(1),
            apps: vec![AppId(0)],
            min_tier: super::super::TierId(0),
            may: vec![Effect::Forward],
        }];
        assert_eq!(failing(9).decide(&Policy::compile(draft.clone())).done.effect, Effect::Forward);
        assert_eq!(failing(40).decide(&Policy::compile(draft)).done.effect, Effect::Block, "no leave loosens a ladder");
    }

    #[test]
    fn an_app_in_report_mode_forwards_unless_a_ladder_is_enforced() {
        let mut draft = asking(vec![ladder(&ALL)]);
        draft.apps[0].mode = Mode::Report;
        let policy = Policy::compile(draft);
        let warned = failing(20).decide(&policy);
        assert_eq!(
            (warned.done.effect, warned.would.effect, warned.mode, warned.notices.is_empty()),
            (Effect::Forward, Effect::Restrict, Mode::Report, false)
        );
        let blocked = failing(40).decide(&policy);
        assert_eq!((blocked.done.rule, blocked.would, blocked.mode), (RuleRef::Ladder(0), blocked.done, Mode::Enforce));
    }

    #[test]
    fn a_decision_ends_with_the_date_of_the_next_step() {
        let until = |day| decided(vec![ladder(&ALL)], &failing(day)).valid_until;
        assert_eq!(until(9), Some(at(10 * DAY)));
        assert_eq!(until(29), Some(at(30 * DAY)));
        assert_eq!(until(39), Some(at(40 * DAY)));
        // Thereafter the fact's expiry is next.
        assert_eq!(until(40), Some(at(41 * DAY + DAY / 2)));
        let policy = Policy::compile(asking(vec![ladder(&ALL)]));
        assert_eq!(policy.ladder_steps_to_come(0, at(20 * DAY)), [(at(30 * DAY), Step::Restrict), (at(40 * DAY), Step::Block)]);
        assert!(policy.ladder_steps_to_come(1, at(0)).is_empty());
        assert_eq!((&*policy.ladder(0).fact, &*policy.ladder(1).fact), ("disk_encrypted", ""));
    }

    #[test]
    fn what_a_ladders_condition_reads_of_the_request_is_in_the_memos_key() {
        let policy = Policy::compile(asking(vec![draft::Ladder { when: method(&["POST"]), ..ladder(&ALL) }]));
        assert!(policy.reads(AppId(0)).method);
    }

    #[test]
    fn an_exception_of_its_fact_lifts_a_ladder() {
        let mut draft = asking(vec![ladder(&ALL)]);
        draft.exceptions = vec![Exception {
            name: "e".to_owned(),
            who: Who::Device("laptop-1".to_owned()),
            lifts: Lifts::Checks(vec!["disk_encrypted".into()]),
            apps: None,
            from: None,
            until: at(50 * DAY),
            by: String::new(),
            ticket: String::new(),
        }];
        let decision = failing(40).decide(&Policy::compile(draft));
        assert_eq!((decision.done.effect, decision.exceptions.as_slice()), (Effect::Forward, &[0][..]));
    }

    #[test]
    fn an_explanation_tells_the_step_in_force_and_those_to_come_with_their_dates() {
        let mut draft = asking(vec![ladder(&ALL)]);
        draft.time_zone = jiff::tz::TimeZone::get("Europe/Berlin").expect("a zone");
        // Midnight of Berlin is one hour before that of UTC in winter; the others begin within the day.
        draft.ladders[0].steps[2].0 = "2027-03-01T00:00:00+01:00".parse().expect("a moment");
        let policy = Policy::compile(draft);
        let (visit, early) = (failing(20), failing(9));
        let inputs = visit.inputs();
        let told = policy.explain(AppId(0), &inputs);
        let words = "warn since 2027-02-04T09:00:00+01:00, restrict with read-only from 2027-03-01, block from 2027-02-24T09:00:00+01:00";
        assert_eq!(
            (told.ladders[0].name, told.ladders[0].then.as_str(), told.ladders[0].owner),
            ("ladder.disk_encrypted", words, Some("security"))
        );
        assert_eq!(told.ladders[0].verdict, Verdict::PassedOver(Truth::Yes));
        let words = "restrict with read-only from 2027-03-01, block from 2027-02-24T09:00:00+01:00";
        assert_eq!(told.notices, [("ladder.disk_encrypted", words.to_owned())]);
        assert_eq!(told.would_reasons, [Reason::Posture("disk_encrypted", FactState::Fail)]);
        let inputs = early.inputs();
        assert_eq!(policy.explain(AppId(0), &inputs).ladders[0].verdict, Verdict::NotReached);
        // Who has nothing to fear is told so as well.
        let visit = Visit::of(laptop());
        let inputs = visit.inputs();
        let told = Policy::compile(asking(vec![ladder(&[(0, Step::Block)])]));
        assert_eq!(told.explain(AppId(0), &inputs).ladders[0].verdict, Verdict::DidNotMatch);
    }
}
