//! The smallest set of changes that would earn a better effect: exact, not a guess.
//!
//! Sets are tried by their size. At each set that does not suffice stands a *witness*: some comparisons that, as long as they come out as they do,
//! keep the effect from being better, whatever the others come to. Whatever helps must turn one of them, so only changes that do are added.

mod domain;
#[cfg(test)]
mod tests;
mod witness;

use std::collections::HashSet;

use smallvec::SmallVec;

use self::domain::{Candidate, MOST, Signal, Value, World, candidates};
use self::witness::{Bits, Witness};
use super::decide::{self, Scope};
use super::draft::{DeviceField, Fix};
use super::explain::found;
use super::hope::best;
use super::scene::{Record, Scene};
use super::tables::{AppTable, Tables};
use super::{AppId, Decision, FixId, Inputs, Policy, RestrictionSet, wording};
use crate::model::{Effect, Mode, Reason};

/// So many sets are tried: what a hostile policy or device makes of it takes milliseconds, and what is common takes ten.
const NODES: usize = 1024;
/// While a client waits for its page.
const NODES_OF_A_PAGE: usize = 128;

/// What would earn a better effect.
#[derive(Clone, Debug)]
pub struct Mend<'a> {
    pub effect: Effect,
    /// Of that effect.
    pub restrictions: RestrictionSet,
    /// At least one, in the order of the policy.
    pub changes: Vec<Change<'a>>,
    /// The device has no record, and a record could earn that effect; what it has to say is not known.
    pub at_best: bool,
}

/// One signal of the situation with another value.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    /// `posture.patched`, `http.path`.
    pub signal: String,
    pub found: String,
    pub wanted: String,
    /// What a person is told to do.
    pub fix: Option<&'a Fix>,
    /// A person, or IT for them, can do it for this device; else it is another device, place, time or request.
    pub soft: bool,
}

#[derive(Clone, Debug)]
pub enum Search<'a> {
    Mended(Mend<'a>),
    /// The request is forwarded already, or none of the changes that are considered earns a better effect, however many are made.
    Nothing,
    /// There are too many ways to try.
    GaveUp,
}

impl<'a> Search<'a> {
    pub fn mend(&self) -> Option<&Mend<'a>> {
        match self {
            Self::Mended(mend) => Some(mend),
            Self::Nothing | Self::GaveUp => None,
        }
    }
}

impl Policy {
    /// Sets that a person or IT can make true for this device come first, then smaller ones, then the better effect.
    pub fn mend<'a>(&'a self, app: AppId, inputs: &Inputs<'_>) -> Search<'a> {
        mend(self, app, inputs, NODES)
    }

    /// What the person is to mend: what together earns a better effect. Where there are too many ways to try them all, what the reasons name.
    pub fn to_mend(&self, decision: &Decision, inputs: &Inputs<'_>) -> Vec<FixId> {
        let fixes = match mend(self, decision.app, inputs, NODES_OF_A_PAGE) {
            Search::Mended(mend) => mend.changes.into_iter().filter_map(|change| change.fix).collect(),
            Search::Nothing => Vec::new(),
            Search::GaveUp => self.fixes(decision),
        };
        let place = |fix: &Fix| self.draft().fixes.iter().position(|known| known.fact == fix.fact);
        fixes.into_iter().filter_map(|fix| u16::try_from(place(fix)?).ok().map(FixId)).collect()
    }

    pub fn fix(&self, id: FixId) -> Option<&Fix> {
        self.draft().fixes.get(id.index())
    }
}

/// Of a node: indices of candidates, ascending.
type Choice = SmallVec<[u8; 8]>;

/// How a search through some of the candidates ended.
enum Tried {
    Found(Choice, Effect, RestrictionSet),
    Exhausted,
    GaveUp,
}

fn mend<'a>(policy: &'a Policy, id: AppId, inputs: &Inputs<'_>, nodes: usize) -> Search<'a> {
    let tables = policy.tables();
    let Some(app) = tables.apps.get(id.index()) else { return Search::Nothing };
    let decision = decide::decide(tables, id, inputs);
    let effect = decision.done.effect;
    if effect == Effect::Forward {
        return Search::Nothing;
    }
    let scene = Scene::new(tables, id, inputs);
    let scope = if app.mode == Mode::Report { Scope::Guardrails } else { Scope::Enforced };
    let hopeful = best(&scene, app, scope) < effect;
    match scene.record {
        Record::Absent(why) if hopeful => {
            let found = format!("none ({})", Reason::NoRecord(why));
            let wanted = "on record, with a certificate".to_owned();
            let change = Change { signal: "device".to_owned(), found, wanted, fix: None, soft: true };
            let effect = best(&scene, app, scope);
            return Search::Mended(Mend { effect, restrictions: RestrictionSet::EMPTY, changes: vec![change], at_best: true });
        }
        // Nobody can look; that is nothing to mend on the device, and whatever is is not known.
        Record::Unreadable if hopeful => return Search::Nothing,
        _ => {}
    }
    let all = candidates(policy, id, &scene);
    let search = Tries { tables, id, app, scope, inputs, effect, all: &all, nodes };
    let soft = all.iter().take_while(|candidate| candidate.is_soft()).count();
    let tried = match search.run(soft) {
        Tried::Exhausted if soft < all.len() => search.run(all.len()),
        tried => tried,
    };
    match tried {
        Tried::GaveUp => Search::GaveUp,
        Tried::Exhausted => Search::Nothing,
        Tried::Found(choice, effect, restrictions) => {
            let chosen = choice.iter().filter_map(|index| all.get(usize::from(*index)));
            let changes = chosen.map(|candidate| told(policy, &scene, candidate)).collect();
            Search::Mended(Mend { effect, restrictions, changes, at_best: false })
        }
    }
}

struct Tries<'t> {
    tables: &'t Tables,
    id: AppId,
    app: &'t AppTable,
    scope: Scope,
    inputs: &'t Inputs<'t>,
    effect: Effect,
    all: &'t [Candidate<'t>],
    /// How many sets are tried at most.
    nodes: usize,
}

impl Tries<'_> {
    /// Among the first `count` candidates.
    fn run(&self, count: usize) -> Tried {
        let Some(all) = self.all.get(..count).filter(|all| all.len() <= MOST) else { return Tried::GaveUp };
        let worlds: Vec<World<'_>> = all.iter().map(|candidate| self.world([candidate])).collect();
        let inputs: Vec<Inputs<'_>> = worlds.iter().map(World::inputs).collect();
        let scenes: Vec<Scene<'_>> = inputs.iter().map(|inputs| Scene::new(self.tables, self.id, inputs)).collect();
        let witness = Witness::new(self.app, self.scope, self.effect, all, &scenes);
        let mut seen: HashSet<Choice, ahash::RandomState> = HashSet::default();
        let mut nodes = 0;
        let mut edge = vec![Choice::new()];
        while !edge.is_empty() {
            let mut found: Option<(Effect, Choice, RestrictionSet)> = None;
            let mut next = Vec::new();
            for choice in &edge {
                for index in self.ways(&witness, all, choice).iter() {
                    let mut more = choice.clone();
                    let place = more.partition_point(|known| *known < index);
                    more.insert(place, index);
                    if !seen.insert(more.clone()) {
                        continue;
                    }
                    nodes += 1;
                    if nodes > self.nodes {
                        return Tried::GaveUp;
                    }
                    let world = self.world(more.iter().filter_map(|index| all.get(usize::from(*index))));
                    let done = decide::decide(self.tables, self.id, &world.inputs()).done;
                    if done.effect >= self.effect {
                        next.push(more);
                    } else if found.as_ref().is_none_or(|(effect, choice, _)| (done.effect, &more) < (*effect, choice)) {
                        found = Some((done.effect, more, done.restrictions));
                    }
                }
            }
            if let Some((effect, choice, restrictions)) = found {
                return Tried::Found(choice, effect, restrictions);
            }
            edge = next;
        }
        Tried::Exhausted
    }

    /// Of which changes one must be added, if any is to help.
    fn ways(&self, witness: &Witness<'_, '_>, all: &[Candidate<'_>], choice: &[u8]) -> Bits {
        let chosen = || choice.iter().filter_map(|index| all.get(usize::from(*index)));
        let world = self.world(chosen());
        let inputs = world.inputs();
        let mut open = Bits::EMPTY;
        for (index, candidate) in (0..=u8::MAX).zip(all) {
            if chosen().all(|other| other.signal != candidate.signal) {
                open.add(index);
            }
        }
        witness.ways(&Scene::new(self.tables, self.id, &inputs), open)
    }

    fn world<'c>(&self, changes: impl IntoIterator<Item = &'c Candidate<'c>>) -> World<'_> {
        let mut world = World::new(self.tables, self.inputs);
        changes.into_iter().for_each(|candidate| world.change(candidate));
        world
    }
}

/// A change for people.
fn told<'a>(policy: &'a Policy, scene: &Scene<'_>, candidate: &Candidate<'_>) -> Change<'a> {
    let text = |text: &Option<Box<str>>, absent: &str| text.as_deref().unwrap_or(absent).to_owned();
    let signal = match candidate.signal {
        Signal::Fact(fact) => format!("posture.{}", scene.tables.facts.get(fact as usize).map_or("", |name| name)),
        _ => wording::signal(candidate.leaf, scene.tables),
    };
    let is = match (candidate.signal, scene.record) {
        (Signal::Fact(fact), _) => domain::fact_words(scene, fact),
        (Signal::Device(field), Record::Known { device, .. }) if field != DeviceField::Tags => domain::field_words(device, field),
        _ => found(policy, scene, candidate.leaf),
    };
    let wanted = match &candidate.value {
        Value::Anew if is.starts_with("ok") || candidate.signal == Signal::PostureAge => "observed anew".to_owned(),
        Value::Anew => "ok".to_owned(),
        Value::Text(word) if matches!(candidate.signal, Signal::Wire(_) | Signal::Claim(_)) => text(word, "unavailable"),
        Value::Text(word) => text(word, "none"),
        Value::Tags(tags) if tags.is_empty() => "none".to_owned(),
        Value::Tags(tags) => tags.join(", "),
        Value::Version(version) => version.0.iter().map(u64::to_string).collect::<Vec<_>>().join("."),
        Value::Age(age) => wording::duration(age.unsigned_abs()),
        Value::Truth(truth) => truth.to_string(),
        Value::Clear => "none".to_owned(),
        Value::Zone(zone) => zone.map_or("none", |zone| policy.zone_name(zone)).to_owned(),
        Value::Peer(peer) => peer.to_string(),
        Value::Host(host) => host.to_string(),
        Value::Weekday(day) => wording::weekday(*day).to_owned(),
        Value::Hour(hour) => hour.to_string(),
    };
    let fix = match candidate.signal {
        Signal::Fact(_) => signal.strip_prefix("posture.").and_then(|fact| policy.draft().fixes.iter().find(|fix| fix.fact == fact)),
        _ => None,
    };
    Change { signal, found: is, wanted, fix, soft: candidate.is_soft() }
}
