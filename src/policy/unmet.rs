//! Why not better: the comparisons that stand between a request and a better effect.

use super::condition::{Cond, Leaf, TierRange};
use super::decide::{Ending, Scope, Tally, own_rules, owners_rules};
use super::draft::{DeviceField, WireField};
use super::grants::Grant;
use super::reasons::ReasonBook;
use super::scene::{Record, Scene};
use super::tables::{AppTable, Line};
use super::truth::Truth;
use super::{ReasonId, ReasonList, RuleRef, TierId};
use crate::model::{Effect, FactState};

/// What it takes to turn a condition, in comparisons.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    /// Those that the person behind the device cannot change: class, ownership, network, path.
    hard: u32,
    /// Those that they can: posture, approval, a certificate, a newer version, a program that does not pose as another.
    soft: u32,
    never: bool,
}

impl Cost {
    const NONE: Self = Self { hard: 0, soft: 0, never: false };
    const HARD: Self = Self { hard: 1, soft: 0, never: false };
    const SOFT: Self = Self { hard: 0, soft: 1, never: false };
    const NEVER: Self = Self { hard: 0, soft: 0, never: true };

    const fn plus(self, other: Self) -> Self {
        Self { hard: self.hard + other.hard, soft: self.soft + other.soft, never: self.never || other.never }
    }

    const fn any(self) -> bool {
        self.hard + self.soft > 0
    }

    /// What can be changed before what cannot, then the fewest.
    const fn order(self) -> (bool, bool, u32) {
        (self.never, self.hard > 0, self.hard + self.soft)
    }
}

/// Reasons as they are found.
#[derive(Default)]
struct Found(Option<ReasonList>);

impl Found {
    fn push(&mut self, id: ReasonId) {
        match &mut self.0 {
            Some(list) => list.push(id),
            None => self.0 = Some(ReasonList::new(id)),
        }
    }
}

/// For something better than `effect`.
#[derive(Clone, Copy)]
struct Search {
    scope: Scope,
    effect: Effect,
}

impl Search {
    fn looks_at(self, line: &Line) -> bool {
        !self.scope.passes_over(line.mode)
    }
}

/// What a line needs besides that it matches.
#[derive(Clone, Copy)]
enum Need<'g> {
    Nothing,
    /// That it may replace the app's own rules.
    Grant(&'g [Grant]),
}

impl<'g> Need<'g> {
    fn grants(self, effect: Effect) -> impl Iterator<Item = &'g Grant> {
        let grants: &'g [Grant] = match self {
            Self::Nothing => &[],
            Self::Grant(grants) => grants,
        };
        grants.iter().filter(move |grant| grant.may.contains(&effect))
    }

    const fn without(self) -> Cost {
        match self {
            Self::Nothing => Cost::NONE,
            Self::Grant(_) => Cost::NEVER,
        }
    }
}

#[derive(Clone, Copy)]
struct Way<'g> {
    cost: Cost,
    /// Of the line; `None`: past all lines.
    place: Option<usize>,
    need: Need<'g>,
    grant: Option<&'g Grant>,
    /// Something has to cease to match before it.
    obstructed: bool,
}

impl Scene<'_> {
    /// `hopeful`: a record that could be read could have earned more, so its want comes first.
    pub fn reasons(&self, app: &AppTable, scope: Scope, tally: &Tally, hopeful: bool) -> ReasonList {
        let mut found = Found::default();
        if let Some(want) = self.want_of_record().filter(|_| hopeful) {
            found.push(want);
        }
        if tally.effect != Effect::Forward {
            match tally.rule {
                RuleRef::Guardrail(_) | RuleRef::Ladder(_) => self.guardrail_reasons(app, scope, tally.effect, &mut found),
                RuleRef::Layer(place) => self.layer_reasons(app, place, Search { scope, effect: tally.effect }, &mut found),
                RuleRef::Rule(_) | RuleRef::None => self.rule_reasons(app, Search { scope, effect: tally.effect }, &mut found),
                RuleRef::Exception(_) => {}
            }
        }
        let list = found.0.unwrap_or_else(|| ReasonList::new(tally.plain_reason()));
        self.in_order(&list, hopeful)
    }

    /// Why there is no record to read.
    fn want_of_record(&self) -> Option<ReasonId> {
        match self.record {
            Record::Absent(why) => Some(self.tables.reasons.no_record(why)),
            Record::Unreadable => Some(ReasonBook::STORE_UNAVAILABLE),
            Record::Known { .. } => None,
        }
    }

    /// A person without a record has to get one before anything else. The store, though, is the first reason only where it alone is to blame.
    fn in_order(&self, list: &ReasonList, hopeful: bool) -> ReasonList {
        let ids = list.as_slice();
        match (self.want_of_record().filter(|want| ids.contains(want)), ids) {
            (Some(want), [first, second, rest @ ..]) if *first == want && !hopeful && want == ReasonBook::STORE_UNAVAILABLE => {
                listed([*second, want].into_iter().chain(rest.iter().copied()), *second)
            }
            (Some(want), _) if want != ReasonBook::STORE_UNAVAILABLE => listed(ids.iter().copied(), want),
            // In the second place an eighth reason does not push it out.
            (None, [first, rest @ ..]) if self.staleness_shows(list) => {
                listed([ReasonBook::STORE_UNAVAILABLE].into_iter().chain(rest.iter().copied()), *first)
            }
            _ => *list,
        }
    }

    /// What made the guardrails and ladders of the deciding effect hold, the deciding one first; of each, what can be changed before what cannot.
    fn guardrail_reasons(&self, app: &AppTable, scope: Scope, effect: Effect, found: &mut Found) {
        let lines = app.guardrails.iter().filter_map(|index| self.tables.guardrails.get(*index as usize));
        for line in lines.filter(|line| line.then == effect && !scope.passes_over(line.mode)) {
            if self.truth(&line.when) != Truth::No {
                for soft in [true, false] {
                    self.held(&line.when, true, soft, found);
                }
            }
        }
        for (_, ladder) in self.tables.ladders_of(app) {
            let demand = self.demand(ladder).filter(|demand| demand.effect == Some(effect));
            if demand.is_some_and(|demand| !scope.passes_over(demand.mode)) {
                self.held(&ladder.lacking, true, true, found);
            }
        }
    }

    fn layer_reasons(&self, app: &AppTable, place: u32, search: Search, found: &mut Found) {
        let Some(group) = app.owners.iter().find(|group| group.lines.contains(&place)) else { return };
        let lines = self.tables.lines_of_owner(app, group);
        let mut others = Tally::new(app.owner);
        if owners_rules(self, app, group, search.scope, &mut others) == Ending::Replaces {
            others = Tally::new(app.owner);
            own_rules(self, app, search.scope, &mut others);
            if others.effect >= search.effect {
                // The app's own rules are no better, so what leads out of these has to replace them as well.
                let way = self.nearest(lines.clone(), search, Need::Grant(&group.grants), Effect::Block);
                return way.iter().for_each(|way| self.walk(lines.clone(), search, way, found));
            }
        }
        let way = self.nearest(lines.clone(), search, Need::Nothing, Effect::Forward);
        way.iter().for_each(|way| self.walk(lines.clone(), search, way, found));
    }

    /// The app's own rules, or those of an owner's file that may replace them.
    fn rule_reasons(&self, app: &AppTable, search: Search, found: &mut Found) {
        let own = self.nearest(app.rules.iter(), search, Need::Nothing, Effect::Block);
        let granted = app.owners.iter().filter(|group| !group.grants.is_empty());
        let granted = granted.filter_map(|group| {
            let way = self.nearest(self.tables.lines_of_owner(app, group), search, Need::Grant(&group.grants), Effect::Block)?;
            Some((way, group))
        });
        match (own, granted.min_by_key(|(way, _)| way.cost.order())) {
            (Some(own), Some((other, _))) if own.cost.order() <= other.cost.order() => self.walk(app.rules.iter(), search, &own, found),
            (_, Some((other, group))) => self.walk(self.tables.lines_of_owner(app, group), search, &other, found),
            (own, None) => own.iter().for_each(|own| self.walk(app.rules.iter(), search, own, found)),
        }
    }

    /// The comparisons by which `cond` is as it is: not false where `truly`, else not true.
    fn held(&self, cond: &Cond, truly: bool, soft: bool, found: &mut Found) {
        match (cond, truly) {
            (Cond::All(inner), true) | (Cond::Any(inner), false) => inner.iter().for_each(|cond| self.held(cond, truly, soft, found)),
            (Cond::Any(inner), true) | (Cond::All(inner), false) => {
                let opposite = if truly { Truth::No } else { Truth::Yes };
                inner.iter().filter(|cond| self.truth(cond) != opposite).for_each(|cond| self.held(cond, truly, soft, found));
            }
            (Cond::Not(inner), _) => self.held(inner, !truly, soft, found),
            (Cond::Leaf(leaf), _) => {
                if (self.leaf_cost(leaf, !truly).hard == 0) == soft {
                    self.name(leaf, !truly, found);
                }
            }
        }
    }

    /// Of the lines with a better effect the one that is nearest, with what must cease to match before it. `unmatched` is the effect where no line
    /// matches, itself a way out where it is better.
    fn nearest<'l, 'g>(&self, lines: impl Iterator<Item = &'l Line>, search: Search, need: Need<'g>, unmatched: Effect) -> Option<Way<'g>> {
        let mut before = Cost::NONE;
        let mut nearest: Option<Way<'g>> = None;
        let mut offer = |way: Way<'g>| {
            if !way.cost.never && nearest.is_none_or(|least| way.cost.order() < least.cost.order()) {
                nearest = Some(way);
            }
        };
        for (place, line) in lines.filter(|line| search.looks_at(line)).enumerate() {
            if line.then < search.effect {
                let grant = need.grants(line.then).min_by_key(|grant| self.cost(&grant.tier, true).order());
                let climb = grant.map_or(need.without(), |grant| self.cost(&grant.tier, true));
                offer(Way {
                    cost: self.cost(&line.when, true).plus(climb).plus(before),
                    place: Some(place),
                    need,
                    grant,
                    obstructed: before.any(),
                });
            }
            if self.stands(line, search, need) {
                before = before.plus(self.cost(&line.when, false));
                if before.never {
                    break;
                }
            }
        }
        if unmatched < search.effect {
            offer(Way { cost: before, place: None, need, grant: None, obstructed: before.any() });
        }
        nearest
    }

    /// Names what a way takes.
    fn walk<'l>(&self, lines: impl Iterator<Item = &'l Line> + Clone, search: Search, way: &Way<'_>, found: &mut Found) {
        let lines = lines.filter(|line| search.looks_at(line));
        if let Some(line) = way.place.and_then(|place| lines.clone().nth(place)) {
            self.gather(&line.when, true, found);
        }
        if let Some(grant) = way.grant {
            self.gather(&grant.tier, true, found);
        }
        if !way.obstructed {
            return;
        }
        for line in lines.take(way.place.unwrap_or(usize::MAX)).filter(|line| self.stands(line, search, way.need)) {
            self.gather(&line.when, false, found);
        }
    }

    /// Whether a line stands before those behind it: it is no better, or would end the search and replace nothing.
    fn stands(&self, line: &Line, search: Search, need: Need<'_>) -> bool {
        let ungranted = || matches!(need, Need::Grant(grants) if !self.granted(grants, line.then));
        (line.then >= search.effect || ungranted()) && self.truth(&line.when) != Truth::No
    }

    fn cost(&self, cond: &Cond, want: bool) -> Cost {
        match (cond, want) {
            (Cond::All(inner), true) | (Cond::Any(inner), false) => {
                inner.iter().fold(Cost::NONE, |sum, cond| sum.plus(self.cost(cond, want)))
            }
            (Cond::All(inner), false) | (Cond::Any(inner), true) => {
                inner.iter().map(|cond| self.cost(cond, want)).min_by_key(|cost| cost.order()).unwrap_or(Cost::NEVER)
            }
            (Cond::Not(inner), _) => self.cost(inner, !want),
            (Cond::Leaf(leaf), _) => self.leaf_cost(leaf, want),
        }
    }

    /// The reasons that `cost` counts.
    fn gather(&self, cond: &Cond, want: bool, found: &mut Found) {
        match (cond, want) {
            (Cond::All(inner), true) | (Cond::Any(inner), false) => inner.iter().for_each(|cond| self.gather(cond, want, found)),
            (Cond::All(inner), false) | (Cond::Any(inner), true) => {
                if let Some(cond) = inner.iter().min_by_key(|cond| self.cost(cond, want).order()) {
                    self.gather(cond, want, found);
                }
            }
            (Cond::Not(inner), _) => self.gather(inner, !want, found),
            (Cond::Leaf(leaf), _) => {
                if !self.met(leaf, want) {
                    self.name(leaf, want, found);
                }
            }
        }
    }

    fn met(&self, leaf: &Leaf, want: bool) -> bool {
        self.leaf(leaf) == Truth::of(want)
    }

    fn leaf_cost(&self, leaf: &Leaf, want: bool) -> Cost {
        if self.met(leaf, want) {
            return Cost::NONE;
        }
        match leaf {
            Leaf::Tier(range) if want && range.least > range.most => Cost::NEVER,
            leaf if self.lacks_record(leaf) => Cost::SOFT,
            Leaf::Tier(range) => self.goal(range, want).map_or(Cost::HARD, |goal| self.climb_cost(goal)),
            Leaf::Fact(..)
            | Leaf::FactAge(..)
            | Leaf::PostureAge(_)
            | Leaf::OsVersion(_)
            | Leaf::Key(_)
            | Leaf::Device(DeviceField::State, _) => Cost::SOFT,
            Leaf::Wire(test) if test.field == WireField::Contradictions => Cost::SOFT,
            Leaf::Class(_)
            | Leaf::Device(..)
            | Leaf::KnownFor(_)
            | Leaf::Wire(..)
            | Leaf::Claim(..)
            | Leaf::Peer(_)
            | Leaf::Zone(_)
            | Leaf::Method(_)
            | Leaf::Path(_)
            | Leaf::Host(_)
            | Leaf::Header(..)
            | Leaf::Weekday(_)
            | Leaf::Hour(_) => Cost::HARD,
        }
    }

    /// It reads a record that is not there or cannot be read: that is the reason, and it is given once.
    fn lacks_record(&self, leaf: &Leaf) -> bool {
        let given = match leaf {
            Leaf::Class(_) => self.inputs.given.class.is_some(),
            Leaf::Tier(_) => self.inputs.given.tier.is_some(),
            _ => false,
        };
        !matches!(self.record, Record::Known { .. }) && leaf.reads_record() && !given
    }

    /// The reason that a comparison is; a tier test is as many as the requirements that the tier lacks.
    fn name(&self, leaf: &Leaf, want: bool, found: &mut Found) {
        if let Some(want) = self.want_of_record().filter(|_| self.lacks_record(leaf)) {
            return found.push(want);
        }
        let reasons = &self.tables.reasons;
        found.push(match leaf {
            Leaf::Tier(range) => match self.goal(range, want) {
                Some(goal) if !self.climb_cost(goal).never => return self.climb(goal, found),
                _ => reasons.tier(self.tier_now()),
            },
            Leaf::Class(_) => reasons.class(self.class_now()),
            Leaf::Fact(fact, _) => reasons.posture(*fact, self.fact(*fact).state),
            Leaf::Device(DeviceField::State, _) => match self.record {
                Record::Known { device, .. } => reasons.device_state(device.state),
                _ => reasons.signal(leaf),
            },
            leaf => reasons.signal(leaf),
        });
    }

    /// The tier to climb to; `None` where climbing does not help.
    fn goal(&self, range: &TierRange, want: bool) -> Option<u8> {
        if self.inputs.given.tier.is_some() {
            return None;
        }
        let TierId(tier) = self.tier_now();
        if want {
            return (tier < range.least && range.least <= range.most).then_some(range.least);
        }
        let above = range.most.checked_add(1)?;
        (range.holds(TierId(tier)) && usize::from(above) < self.tables.tiers.len()).then_some(above)
    }

    fn climb_cost(&self, goal: u8) -> Cost {
        let requirements = self.tables.tiers.iter().take(usize::from(goal) + 1);
        let mut cost = requirements.fold(Cost::NONE, |sum, require| sum.plus(self.cost(require, true)));
        for cap in self.tables.caps.iter().filter(|cap| cap.max_tier.0 < goal && self.truth(&cap.when) != Truth::No) {
            let lift = self.cost(&cap.when, false);
            cost = cost.plus(if lift.hard > 0 || lift.never { Cost::HARD } else { Cost::SOFT });
        }
        cost
    }

    /// What the tiers up to `goal` require and lack, then the caps that hold the device below it.
    fn climb(&self, goal: u8, found: &mut Found) {
        for require in self.tables.tiers.iter().take(usize::from(goal) + 1) {
            self.gather(require, true, found);
        }
        for (index, cap) in self.tables.caps.iter().enumerate() {
            if cap.max_tier.0 < goal && self.truth(&cap.when) != Truth::No {
                found.push(self.tables.reasons.cap(index));
            }
        }
    }

    /// Whether a fact that is named as unknown is so only because the record is too old.
    fn staleness_shows(&self, list: &ReasonList) -> bool {
        let Record::Known { device, too_old: true } = self.record else { return false };
        list.as_slice().iter().any(|id| {
            let newest = *id == ReasonBook::POSTURE_AGE && self.tables.sources.newest(device).is_some();
            let fact = self.tables.reasons.fact_wanting(*id).map(|fact| self.believed(fact));
            if let Some(expires) = fact.and_then(|fact| fact.expires) {
                // Then the store is no longer what keeps it unknown.
                self.note(expires);
            }
            newest || fact.is_some_and(|fact| fact.state != FactState::Unknown)
        })
    }
}

fn listed(ids: impl Iterator<Item = ReasonId>, first: ReasonId) -> ReasonList {
    let mut list = ReasonList::new(first);
    ids.for_each(|id| list.push(id));
    list
}

#[cfg(test)]
mod tests;
