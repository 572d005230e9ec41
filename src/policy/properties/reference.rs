//! The language as it is defined, written once more: slow, from the draft alone, with nothing of the tables.

use std::cmp::Ordering;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::super::draft::{Step, *};
use super::super::testing::Visit;
use super::super::*;
use crate::model::*;

pub type Outcome = (Effect, RestrictionSet);

pub struct Answer {
    pub class: ClassId,
    pub tier: TierId,
    pub done: Outcome,
    pub would: Outcome,
    pub notices: Vec<u16>,
    pub glass: Option<u32>,
}

/// `None`: undecided.
type Kleene = Option<bool>;

struct World<'a> {
    draft: &'a Draft,
    visit: &'a Visit,
    device: Option<&'a Device>,
    unreadable: bool,
    class: ClassId,
    tier: TierId,
}

#[derive(Clone, Copy, PartialEq)]
enum Counts {
    Enforced,
    EnforcedGuardrails,
    All,
}

pub fn answer(draft: &Draft, visit: &Visit) -> Answer {
    let world = world(draft, visit);
    let app = &draft.apps[0];
    let glass = world.glass();
    let forward = (Effect::Forward, RestrictionSet::EMPTY);
    let done = world.outcome(if app.mode == Mode::Report { Counts::EnforcedGuardrails } else { Counts::Enforced });
    let (done, would) = if glass.is_some() { (forward, forward) } else { (done, world.outcome(Counts::All)) };
    let warns = |ladder: &Ladder| world.step(ladder) == Some(Step::Warn);
    let notices = (0..).zip(&draft.ladders).filter(|(_, ladder)| done.0 != Effect::Block && warns(ladder)).map(|(index, _)| index);
    Answer { class: world.class, tier: world.tier, done, would, notices: notices.collect(), glass }
}

/// Facts that exceptions lift.
pub fn lifted(draft: &Draft, visit: &Visit) -> Vec<Arc<str>> {
    let world = world(draft, visit);
    let facts = draft.exceptions.iter().filter(|exception| world.excepts(exception)).filter_map(|exception| match &exception.lifts {
        Lifts::Checks(facts) => Some(facts.clone()),
        Lifts::Everything => None,
    });
    facts.flatten().filter(|fact| world.recorded(fact).0 != FactState::Ok).collect()
}

fn world<'a>(draft: &'a Draft, visit: &'a Visit) -> World<'a> {
    let ended = matches!(visit.standing, Standing::Known { proof_ends, .. } if proof_ends <= visit.now.as_second());
    let device = visit.standing.device().filter(|_| !ended);
    let unreadable = matches!(visit.standing, Standing::Unreadable);
    let mut world = World { draft, visit, device, unreadable, class: ClassId::UNCLASSIFIED, tier: TierId(0) };
    if device.is_some() {
        let first = draft.classes.iter().position(|class| world.holds(&class.when) == Some(true));
        world.class = first.map_or(ClassId::UNCLASSIFIED, |index| ClassId(index as u16));
    } else if !unreadable {
        world.class = ClassId::BLIND;
    }
    let met = draft.tiers.iter().position(|tier| world.holds(&tier.require) != Some(true)).unwrap_or(draft.tiers.len());
    let capped = draft.caps.iter().filter(|cap| world.holds(&cap.when) != Some(false)).map(|cap| cap.max_tier);
    world.tier = capped.chain([TierId(met.saturating_sub(1) as u8)]).min().unwrap_or(TierId(0));
    world
}

impl World<'_> {
    fn here(&self, apps: Option<&Vec<AppId>>) -> bool {
        apps.is_none_or(|apps| apps.contains(&AppId(0)))
    }

    fn excepts(&self, exception: &Exception) -> bool {
        let Some(device) = self.device else { return false };
        let who = match &exception.who {
            Who::Device(id) => device.id == *id,
            Who::Tag(tag) => device.tags.contains(tag),
        };
        let begun = exception.from.is_none_or(|from| self.visit.now >= from);
        who && begun && self.visit.now < exception.until && self.here(exception.apps.as_ref())
    }

    fn glass(&self) -> Option<u32> {
        let breaks = |exception: &Exception| exception.lifts == Lifts::Everything && self.excepts(exception);
        let approved = self.device.is_some_and(|device| device.state == DeviceState::Approved);
        (0..).zip(&self.draft.exceptions).find(|(_, exception)| approved && breaks(exception)).map(|(index, _)| index)
    }

    /// The step of a ladder that holds.
    fn step(&self, ladder: &Ladder) -> Option<Step> {
        let lacking = if self.unreadable { None } else { Some(self.fact(&ladder.fact).0 != FactState::Ok) };
        let holds = lacking != Some(false) && self.holds(&ladder.when) != Some(false) && self.here(ladder.apps.as_ref());
        let come = ladder.steps.iter().rev().find(|(from, _)| *from <= self.visit.now);
        come.filter(|_| holds).map(|(_, step)| *step)
    }

    fn outcome(&self, counts: Counts) -> Outcome {
        let passed_over = |mode: Mode| mode == Mode::Report && counts != Counts::All;
        let mut added: Vec<(Effect, &[RestrictionId])> = Vec::new();
        for guardrail in &self.draft.guardrails {
            if !passed_over(guardrail.mode) && self.here(guardrail.apps.as_ref()) && self.holds(&guardrail.when) != Some(false) {
                added.push((guardrail.then, &guardrail.with));
            }
        }
        for ladder in &self.draft.ladders {
            let enforced = |step: Step| match step {
                Step::Restrict => Some(Effect::Restrict),
                Step::Block => Some(Effect::Block),
                Step::Report | Step::Warn => None,
            };
            let effect = match self.step(ladder) {
                Some(Step::Report | Step::Warn) if counts != Counts::All => None,
                Some(Step::Report | Step::Warn) => ladder.steps.iter().find_map(|(_, step)| enforced(*step)),
                step => step.and_then(enforced),
            };
            added.extend(effect.map(|effect| (effect, ladder.with.as_slice())));
        }
        if counts != Counts::EnforcedGuardrails {
            let mut own = true;
            let mut owners: Vec<OwnerId> = self.draft.layers.iter().map(|layer| layer.owner).collect();
            owners.sort_unstable();
            owners.dedup();
            for owner in owners {
                let layers = self.draft.layers.iter().filter(|layer| layer.owner == owner && layer.apps.contains(&AppId(0)));
                let rules: Vec<&Rule> = layers.map(|layer| &layer.rule).filter(|rule| !passed_over(rule.mode)).collect();
                let (touched, matched) = self.first_match(&rules);
                added.extend(touched.iter().map(|rule| (rule.then, rule.with.as_slice())));
                // All that might have ended the search has leave, and what did end it does not block.
                let leave = |rule: &&&Rule| rule.then == Effect::Block || self.leave(owner, rule.then);
                own &= !(matched.is_some_and(|rule| rule.then != Effect::Block) && touched.iter().all(|rule| leave(&rule)));
            }
            if own {
                let rules: Vec<&Rule> = self.draft.apps[0].rules.iter().filter(|rule| !passed_over(rule.mode)).collect();
                let (touched, matched) = self.first_match(&rules);
                added.extend(touched.iter().map(|rule| (rule.then, rule.with.as_slice())));
                added.extend(matched.is_none().then_some((Effect::Block, &[][..])));
            }
        }
        let effect = added.iter().map(|(effect, _)| *effect).max().unwrap_or(Effect::Forward);
        let restricting = added.iter().filter(|(one, _)| effect == Effect::Restrict && *one == Effect::Restrict);
        (effect, restricting.flat_map(|(_, with)| *with).fold(RestrictionSet::EMPTY, |set, id| set.with(*id)))
    }

    /// Those that add their outcome, and the one of them that matched.
    fn first_match<'r>(&self, rules: &[&'r Rule]) -> (Vec<&'r Rule>, Option<&'r Rule>) {
        let matched = rules.iter().position(|rule| self.holds(&rule.when) == Some(true));
        let asked = rules.iter().take(matched.map_or(rules.len(), |place| place + 1));
        (asked.copied().filter(|rule| self.holds(&rule.when) != Some(false)).collect(), matched.map(|place| rules[place]))
    }

    fn leave(&self, owner: OwnerId, effect: Effect) -> bool {
        let mut grants = self.draft.delegations.iter().filter(|grant| grant.owner == owner && grant.apps.contains(&AppId(0)));
        grants.any(|grant| grant.may.contains(&effect) && self.tier >= grant.min_tier)
    }

    fn holds(&self, condition: &Condition) -> Kleene {
        match condition {
            Condition::Not(inner) => self.holds(inner).map(|holds| !holds),
            Condition::All(inner) => all(inner.iter().map(|condition| self.holds(condition))),
            Condition::Any(inner) => all(inner.iter().map(|condition| self.holds(condition).map(|holds| !holds))).map(|none| !none),
            Condition::Test(test) => self.test(test),
        }
    }

    fn test(&self, test: &Test) -> Kleene {
        let visit = self.visit;
        let truth = |value: bool| if value { "true" } else { "false" };
        let local = self.draft.time_zone.to_datetime(visit.now);
        match test {
            Test::Class(classes) => Some(classes.contains(&self.class)),
            Test::Tier(wanted) => Some(wanted.iter().all(|(how, tier)| compares(*how, self.tier.cmp(tier)))),
            Test::Zone(zones) => Some(zones.contains(&visit.zone)),
            Test::Method(globs) => Some(any(globs, &visit.method)),
            Test::Path(globs) => Some(any(globs, &visit.path)),
            Test::Host(globs) => Some(any(globs, visit.host.as_str())),
            Test::Hour(wanted) => Some(wanted.iter().all(|(how, hour)| compares(*how, (local.hour() as u8).cmp(hour)))),
            Test::Weekday(days) => Some(days.contains(&local.weekday())),
            Test::Header(name, want) => match visit.headers.get_all(name).iter().collect::<Vec<_>>().as_slice() {
                [] => Some(wants(want, None, "none")),
                [one] => one.to_str().ok().map(|value| wants(want, Some(value), "")),
                _ => None,
            },
            Test::Claim(ClaimField::Os, want) => Some(wants(want, visit.claims.os.map(|os| os.as_str()), "unavailable")),
            Test::Wire(WireField::Os, want) => Some(wants(want, None, "unavailable")),
            Test::Wire(WireField::Drift, want) => Some(wants(want, Some(truth(visit.sight.drift)), "")),
            Test::Wire(WireField::Contradictions, want) => {
                let compared = &visit.sight.comparison;
                Some(match want {
                    Want::Any => !compared.strong.is_empty(),
                    Want::None => compared.strong.is_empty(),
                    Want::Text(globs) => compared.contradictions.iter().any(|kind| any(globs, kind.as_str())),
                })
            }
            _ if self.unreadable => None,
            Test::Fact(fact, states) => Some(states.contains(&self.fact(fact).0)),
            Test::KeyProof(proofs) => Some(proofs.contains(if self.device.is_some() { &KeyProof::Certificate } else { &KeyProof::None })),
            Test::Device(field, want) => {
                let Some(device) = self.device else { return Some(wants(want, None, "none")) };
                let text = match field {
                    DeviceField::State => Some(device.state.as_str()),
                    DeviceField::Ownership => device.ownership.map(Ownership::as_str),
                    DeviceField::OnNet => device.onnet.map(truth),
                    DeviceField::Team => device.team.as_deref(),
                    DeviceField::Tags => {
                        return Some(match want {
                            Want::Any => !device.tags.is_empty(),
                            Want::None => device.tags.is_empty(),
                            Want::Text(globs) => device.tags.iter().any(|tag| any(globs, tag)),
                        });
                    }
                    field => panic!("no policy of these tests reads {field:?}"),
                };
                text.map(|text| wants(want, Some(text), ""))
            }
            _ if self.device.is_none() => Some(false),
            Test::FactAge(fact, wanted) => self.aged(self.fact(fact).1, wanted),
            Test::PostureAge(wanted) => {
                let device = self.device.filter(|_| self.facts_count());
                let observations = device.into_iter().flat_map(|device| &device.posture).flat_map(|fact| &fact.observations);
                self.aged(observations.filter(|seen| self.ttl(seen).is_some()).map(|seen| seen.observed_at).max(), wanted)
            }
            Test::KnownFor(wanted) => self.aged(self.device.map(|device| device.created_at), wanted),
            Test::OsVersion(wanted) => {
                let version = self.device?.os_version.as_deref()?;
                let numbers: Vec<u64> = version.split('.').map(|number| number.parse().ok()).collect::<Option<_>>()?;
                let padded = |numbers: &[u64]| (0..8).map(|place| numbers.get(place).copied().unwrap_or(0)).collect::<Vec<u64>>();
                Some(wanted.iter().all(|(how, version)| compares(*how, padded(&numbers).cmp(&padded(&version.0)))))
            }
            test => panic!("no policy of these tests reads {test:?}"),
        }
    }

    fn aged(&self, since: Option<Timestamp>, wanted: &[(Compare, std::time::Duration)]) -> Kleene {
        let age = self.visit.now.duration_since(since?).max(SignedDuration::ZERO);
        Some(wanted.iter().all(|(how, than)| compares(*how, age.cmp(&SignedDuration::try_from(*than).unwrap_or(SignedDuration::MAX)))))
    }

    fn facts_count(&self) -> bool {
        !matches!(self.visit.standing, Standing::Known { freshness: Freshness::TooOld, .. })
    }

    fn ttl(&self, seen: &Observation) -> Option<SignedDuration> {
        let source = self.draft.sources.iter().find(|source| source.name == seen.source)?;
        SignedDuration::try_from(source.ttl).ok()
    }

    fn recorded(&self, name: &str) -> (FactState, Option<Timestamp>) {
        let fact = self.device.filter(|_| self.facts_count()).and_then(|device| device.fact(name));
        let believed = fact.into_iter().flat_map(|fact| &fact.observations).filter(|seen| {
            let own = seen.expires_at.is_none_or(|end| self.visit.now < end);
            own && self.ttl(seen).is_some_and(|ttl| self.visit.now < seen.observed_at + ttl)
        });
        let newest = |ok: bool| believed.clone().filter(|seen| seen.ok == ok).map(|seen| seen.observed_at).max();
        match (newest(false), newest(true)) {
            (None, None) => (FactState::Unknown, None),
            (None, ok) => (FactState::Ok, ok),
            (fail, _) => (FactState::Fail, fail),
        }
    }

    fn fact(&self, name: &str) -> (FactState, Option<Timestamp>) {
        let recorded = self.recorded(name);
        let lifts = |exception: &Exception| matches!(&exception.lifts, Lifts::Checks(facts) if facts.iter().any(|fact| **fact == *name));
        let lifted = self.draft.exceptions.iter().any(|exception| lifts(exception) && self.excepts(exception));
        if recorded.0 != FactState::Ok && lifted { (FactState::Ok, None) } else { recorded }
    }
}

fn all(parts: impl Iterator<Item = Kleene>) -> Kleene {
    let parts: Vec<Kleene> = parts.collect();
    if parts.contains(&Some(false)) { Some(false) } else { parts.into_iter().collect::<Option<Vec<bool>>>().map(|_| true) }
}

fn any(globs: &[Glob], text: &str) -> bool {
    globs.iter().any(|glob| glob.matches(text))
}

fn wants(want: &Want, found: Option<&str>, absent: &str) -> bool {
    match want {
        Want::Any => found.is_some(),
        Want::None => found.is_none(),
        Want::Text(globs) => any(globs, found.unwrap_or(absent)),
    }
}

fn compares(how: Compare, found: Ordering) -> bool {
    match how {
        Compare::Less => found == Ordering::Less,
        Compare::AtMost => found != Ordering::Greater,
        Compare::Equal => found == Ordering::Equal,
        Compare::AtLeast => found != Ordering::Less,
        Compare::More => found == Ordering::Greater,
    }
}
