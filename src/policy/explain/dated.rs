//! What goes by the calendar: ladders, exceptions and what owners may replace.

use jiff::Timestamp;
use jiff::civil::Time;

use super::{Excepted, Step, Teller, Verdict};
use crate::model::{Effect, Mode};
use crate::policy::decide::{Ending, Scope, Tally, owners_rules};
use crate::policy::draft::{self, Lifts};
use crate::policy::ladders::Ladder;
use crate::policy::scene::Record;
use crate::policy::tables::{AppTable, LayerOwner};
use crate::policy::truth::Truth;
use crate::policy::{AppId, Decision, RuleRef};

impl<'a> Teller<'a, '_> {
    pub fn ladders(&self, app: &AppTable) -> Vec<Step<'a>> {
        let owner = self.policy.owner(self.scene.tables.keeper(app)).name.as_str();
        let each = self.scene.tables.ladders_of(app).map(|(index, ladder)| {
            let told = self.policy.ladder(index);
            let (come, to_come) = ladder.split(self.scene.inputs.now);
            let truth = self.scene.ladder_truth(ladder);
            let verdict = match come.last() {
                None => Verdict::NotReached,
                Some((_, draft::Step::Report | draft::Step::Warn)) => Verdict::PassedOver(truth),
                Some(_) => Verdict::of(truth),
            };
            let now = come.last().map(|(since, step)| format!("{} since {}", self.step(told, *step), self.date(*since)));
            let then = [now, self.to_come(told, to_come)].into_iter().flatten().collect::<Vec<_>>().join(", ");
            let test = (verdict != Verdict::NotReached).then(|| self.ladder_test(ladder, truth));
            Step { name: &told.name, then, owner: Some(owner), verdict, test }
        });
        each.collect()
    }

    fn ladder_test(&self, ladder: &Ladder, truth: Truth) -> super::Tested {
        let inner: Vec<_> = [Some(self.test(&ladder.lacking)), self.tested(&ladder.when)].into_iter().flatten().collect();
        super::Tested::Several { how: "all of", truth, inner }
    }

    /// `restrict with read-only from 2027-01-01, block from 2027-02-01`.
    fn to_come(&self, ladder: &draft::Ladder, steps: &[(Timestamp, draft::Step)]) -> Option<String> {
        let each = steps.iter().map(|(from, step)| format!("{} from {}", self.step(ladder, *step), self.date(*from)));
        (!steps.is_empty()).then(|| each.collect::<Vec<_>>().join(", "))
    }

    fn step(&self, ladder: &draft::Ladder, step: draft::Step) -> String {
        match step {
            draft::Step::Restrict => {
                let with: Vec<&str> = ladder.with.iter().map(|id| self.policy.restriction(*id).name.as_str()).collect();
                format!("restrict with {}", with.join(", "))
            }
            step => step.as_str().to_owned(),
        }
    }

    /// In the policy's time zone; without the time where a day begins.
    fn date(&self, moment: Timestamp) -> String {
        let zone = &self.scene.tables.time_zone;
        let local = zone.to_datetime(moment);
        match local.time() == Time::midnight() {
            true => local.date().to_string(),
            false => format!("{:.0}", moment.display_with_offset(zone.to_offset(moment))),
        }
    }

    pub fn notices(&self, decision: &Decision) -> Vec<(&'a str, String)> {
        let each = decision.notices.iter().map(|index| {
            let ladder = self.policy.ladder(index);
            let steps = self.policy.ladder_steps_to_come(index, self.scene.inputs.now);
            (ladder.name.as_str(), self.to_come(ladder, steps).unwrap_or_default())
        });
        each.collect()
    }

    pub fn exceptions(&self, decision: &Decision) -> Vec<Excepted<'a>> {
        let Record::Known { device, .. } = self.scene.record else { return Vec::new() };
        let each = self.scene.exceptions_of(device).into_iter().map(|(index, in_force)| {
            let exception = self.policy.exception(index);
            Excepted {
                name: &exception.name,
                what: match &exception.lifts {
                    Lifts::Checks(facts) if facts.len() == 1 => format!("{} counts as ok", facts.join(", ")),
                    Lifts::Checks(facts) => format!("{} count as ok", facts.join(", ")),
                    Lifts::Everything => "glass is broken: an approved device is forwarded".to_owned(),
                },
                from: exception.from.map(|from| self.date(from)),
                until: self.date(exception.until),
                by: &exception.by,
                ticket: &exception.ticket,
                in_force,
                used: decision.exceptions.as_slice().contains(&index),
            }
        });
        each.collect()
    }

    /// Which rule of an owner's file replaces the app's own. In an app in report mode it is told as if its rules were in force.
    pub fn replaced(&self, id: AppId, app: &AppTable) -> Option<String> {
        let replacing = app.owners.iter().find_map(|group| {
            let mut tally = Tally::new(app.owner);
            let scope = if app.mode == Mode::Report { Scope::Everything } else { Scope::Enforced };
            let ending = owners_rules(self.scene, app, group, scope, &mut tally);
            (ending == Ending::Replaces).then_some((group, scope))
        });
        let (group, scope) = replacing?;
        let matched = self.matched(app, group, scope)?;
        let owner = &self.policy.owner(group.owner).name;
        let name = self.policy.rule_name(id, RuleRef::Layer(matched));
        Some(format!("rule {name} of {owner} replaces them: {}", self.leave(id, group, self.effect(app, matched))))
    }

    fn matched(&self, app: &AppTable, group: &LayerOwner, scope: Scope) -> Option<u32> {
        let matches = |place: &u32| {
            let line = self.scene.tables.layer(app, *place);
            line.is_some_and(|line| !scope.passes_over(line.mode) && self.scene.truth(&line.when) == Truth::Yes)
        };
        group.lines.iter().copied().find(matches)
    }

    fn effect(&self, app: &AppTable, place: u32) -> Effect {
        self.scene.tables.layer(app, place).map_or(Effect::Block, |line| line.then)
    }

    /// By what leave an owner may have the effect for the app.
    fn leave(&self, id: AppId, group: &LayerOwner, effect: Effect) -> String {
        let grants = self.policy.draft().delegations.iter();
        let fitting = grants.filter(|grant| {
            let concerns = grant.owner == group.owner && grant.apps.contains(&id) && grant.may.contains(&effect);
            concerns && self.scene.tier_now() >= grant.min_tier
        });
        let words = fitting.map(|grant| {
            let may: Vec<&str> = grant.may.iter().map(|effect| effect.as_str()).collect();
            format!("it may {} for devices of tier {} and above", may.join(" and "), self.policy.tier_name(grant.min_tier))
        });
        words.collect::<Vec<_>>().join(", ")
    }
}
