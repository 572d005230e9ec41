//! Why an effect is not better, in as few changes as may end it.

use std::cell::RefCell;
use std::collections::HashMap;

use super::super::condition::{Cond, Leaf};
use super::super::decide::Scope;
use super::super::draft::DeviceField;
use super::super::grants::Grant;
use super::super::scene::{Record, Scene};
use super::super::tables::{AppTable, Line};
use super::super::truth::Truth;
use super::super::{ClassId, TierId};
use super::domain::{Candidate, Signal};
use crate::model::{DeviceState, Effect};

/// Indices of candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits([u64; 4]);

impl Bits {
    pub const EMPTY: Self = Self([0; 4]);

    pub fn add(&mut self, index: u8) {
        if let Some(word) = self.0.get_mut(usize::from(index / 64)) {
            *word |= 1 << (index % 64);
        }
    }

    fn has(self, index: u8) -> bool {
        self.0.get(usize::from(index / 64)).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    fn or(self, other: Self) -> Self {
        let [a, b, c, d] = self.0;
        let [e, f, g, h] = other.0;
        Self([a | e, b | f, c | g, d | h])
    }

    fn and(self, other: Self) -> Self {
        let [a, b, c, d] = self.0;
        let [e, f, g, h] = other.0;
        Self([a & e, b & f, c & g, d & h])
    }

    fn len(self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(move |index| self.has(*index))
    }
}

/// What a condition is to go on being.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Keep {
    AtLeast(Truth),
    AtMost(Truth),
}

impl Keep {
    /// In force, or adding to the outcome.
    const HOLDING: Self = Self::AtLeast(Truth::Undecided);
    const MET: Self = Self::AtLeast(Truth::Yes);
    const UNMET: Self = Self::AtMost(Truth::Undecided);
    const OUT: Self = Self::AtMost(Truth::No);

    fn allows(self, truth: Truth) -> bool {
        match self {
            Self::AtLeast(least) => truth >= least,
            Self::AtMost(most) => truth <= most,
        }
    }

    fn of_opposite(self) -> Self {
        match self {
            Self::AtLeast(least) => Self::AtMost(!least),
            Self::AtMost(most) => Self::AtLeast(!most),
        }
    }
}

/// Finds witnesses for one app and effect. Every function that gives `Bits` takes for granted that what it is about is so in the scene, and gives
/// changes of which one must be made for it to be otherwise.
pub struct Witness<'w, 's> {
    app: &'w AppTable,
    scope: Scope,
    effect: Effect,
    all: &'w [Candidate<'w>],
    /// With each candidate's change alone.
    scenes: &'w [Scene<'s>],
    /// By the comparison's address: which changes turn it.
    turns: RefCell<HashMap<(usize, Keep), Bits, ahash::RandomState>>,
}

impl<'w, 's> Witness<'w, 's> {
    pub fn new(app: &'w AppTable, scope: Scope, effect: Effect, all: &'w [Candidate<'w>], scenes: &'w [Scene<'s>]) -> Self {
        Self { app, scope, effect, all, scenes, turns: RefCell::default() }
    }

    /// The effect is not better in this scene. `open`: changes that may still be made.
    pub fn ways(&self, scene: &Scene<'_>, open: Bits) -> Bits {
        let here = Here { witness: self, scene, open };
        let mut fewest = Fewest(None);
        let guardrails = self.app.guardrails.iter().filter_map(|index| scene.tables.guardrails.get(*index as usize));
        for line in guardrails.filter(|line| line.then >= self.effect && !self.scope.passes_over(line.mode)) {
            if scene.truth(&line.when) != Truth::No {
                fewest.offer(here.cond(&line.when, Keep::HOLDING));
            }
        }
        for (_, ladder) in scene.tables.ladders_of(self.app) {
            if scene.demand(ladder).is_some_and(|demand| demand.effect >= Some(self.effect) && !self.scope.passes_over(demand.mode)) {
                fewest.offer(here.cond(&ladder.lacking, Keep::HOLDING).or(here.cond(&ladder.when, Keep::HOLDING)));
            }
        }
        if self.scope != Scope::Guardrails {
            here.rules(&mut fewest);
        }
        // An outcome for which nothing stands here may have any cause.
        fewest.0.unwrap_or(open).or(here.glass())
    }
}

/// Of several that each suffice the one that leaves the fewest ways.
struct Fewest(Option<Bits>);

impl Fewest {
    fn offer(&mut self, bits: Bits) {
        if self.0.is_none_or(|least| bits.len() < least.len()) {
            self.0 = Some(bits);
        }
    }
}

#[derive(Clone, Copy)]
struct Here<'h, 'w, 's, 'a> {
    witness: &'h Witness<'w, 's>,
    scene: &'h Scene<'a>,
    open: Bits,
}

impl Here<'_, '_, '_, '_> {
    /// Owners' rules, and the app's own where no owner's rule replaces them.
    fn rules(&self, fewest: &mut Fewest) {
        let app = self.witness.app;
        let lines = |group| self.scene.tables.lines_of_owner(app, group);
        for group in &app.owners {
            self.first_match(lines(group), false, fewest);
        }
        let mut standing = Bits::EMPTY;
        for group in app.owners.iter().filter(|group| !group.grants.is_empty()) {
            let mut ways = Fewest(None);
            self.not_replacing(lines(group), &group.grants, &mut ways);
            match ways.0 {
                Some(ways) => standing = standing.or(ways),
                None => return,
            }
        }
        let mut own = Fewest(None);
        self.first_match(app.rules.iter(), true, &mut own);
        if let Some(own) = own.0 {
            fewest.offer(own.or(standing));
        }
    }

    /// One owner's rules do not replace the app's own: none that has leave matches, or one without leave stands before it, or a block.
    fn not_replacing<'l>(&self, lines: impl Iterator<Item = &'l Line>, grants: &[Grant], fewest: &mut Fewest) {
        let mut before = Bits::EMPTY;
        for line in lines.filter(|line| !self.witness.scope.passes_over(line.mode)) {
            let truth = self.scene.truth(&line.when);
            if line.then == Effect::Block {
                if truth == Truth::Yes {
                    fewest.offer(before.or(self.cond(&line.when, Keep::MET)));
                }
                continue;
            }
            let mut idle = Fewest(None);
            if !self.scene.granted(grants, line.then) {
                let may = grants.iter().filter(|grant| grant.may.contains(&line.then));
                let without = may.fold(Bits::EMPTY, |bits, grant| bits.or(self.cond(&grant.tier, Keep::UNMET)));
                if truth != Truth::No {
                    fewest.offer(before.or(without).or(self.cond(&line.when, Keep::HOLDING)));
                }
                idle.offer(without);
            }
            if truth != Truth::Yes {
                idle.offer(self.cond(&line.when, Keep::UNMET));
            }
            match idle.0 {
                Some(idle) => before = before.or(idle),
                None => return,
            }
        }
        fewest.offer(before);
    }

    /// Nobody breaks glass here: the device is not approved, or is none that may.
    fn glass(&self) -> Bits {
        let Record::Known { device, .. } = self.scene.record else { return Bits::EMPTY };
        if !self.scene.some_glass() {
            return Bits::EMPTY;
        }
        let approved = device.state == DeviceState::Approved;
        let turns = |signal: Signal| match signal {
            Signal::Device(DeviceField::State) => !approved,
            signal => approved && signal.names_device(),
        };
        self.moved_by(turns).and(self.open)
    }

    fn moved_by(&self, turns: impl Fn(Signal) -> bool) -> Bits {
        let mut bits = Bits::EMPTY;
        for (index, candidate) in (0..=u8::MAX).zip(self.witness.all) {
            if turns(candidate.signal) {
                bits.add(index);
            }
        }
        bits
    }

    /// These lines come to an effect that is not better: because of a line that holds, while none before it with a better effect matches; or, where
    /// `blocks` is what none matches comes to, because none with a better effect matches.
    fn first_match<'l>(&self, lines: impl Iterator<Item = &'l Line>, blocks: bool, fewest: &mut Fewest) {
        let mut before = Bits::EMPTY;
        for line in lines.filter(|line| !self.witness.scope.passes_over(line.mode)) {
            let truth = self.scene.truth(&line.when);
            if line.then >= self.witness.effect {
                if truth != Truth::No {
                    fewest.offer(before.or(self.cond(&line.when, Keep::HOLDING)));
                }
            } else if truth == Truth::Yes {
                return;
            } else {
                before = before.or(self.cond(&line.when, Keep::UNMET));
            }
        }
        if blocks {
            fewest.offer(before);
        }
    }

    fn cond(&self, cond: &Cond, keep: Keep) -> Bits {
        match (cond, keep) {
            (Cond::All(inner), Keep::AtLeast(_)) | (Cond::Any(inner), Keep::AtMost(_)) => {
                inner.iter().fold(Bits::EMPTY, |bits, cond| bits.or(self.cond(cond, keep)))
            }
            (Cond::All(inner), Keep::AtMost(_)) | (Cond::Any(inner), Keep::AtLeast(_)) => {
                let mut fewest = Fewest(None);
                for cond in inner.iter().filter(|cond| keep.allows(self.scene.truth(cond))) {
                    fewest.offer(self.cond(cond, keep));
                }
                fewest.0.unwrap_or(self.open)
            }
            (Cond::Not(inner), _) => self.cond(inner, keep.of_opposite()),
            (Cond::Leaf(Leaf::Class(classes)), _) => self.class(classes, matches!(keep, Keep::AtLeast(_))),
            (Cond::Leaf(Leaf::Tier(range)), Keep::AtLeast(_)) => {
                let lower = if range.least > 0 { self.tier_from(range.least) } else { Bits::EMPTY };
                lower.or(self.tier_up_to(range.most))
            }
            (Cond::Leaf(Leaf::Tier(range)), Keep::AtMost(_)) => {
                let TierId(tier) = self.scene.tier_now();
                match () {
                    () if range.least > range.most => Bits::EMPTY,
                    () if tier < range.least => self.tier_up_to(range.least - 1),
                    () => self.tier_from(range.most.saturating_add(1)),
                }
            }
            (Cond::Leaf(leaf), _) => self.leaf(leaf, keep),
        }
    }

    fn leaf(&self, leaf: &Leaf, keep: Keep) -> Bits {
        let key = (std::ptr::from_ref(leaf).addr(), keep);
        let known = self.witness.turns.borrow().get(&key).copied();
        let turns = known.unwrap_or_else(|| {
            let exceptions = !self.scene.tables.exceptions.is_empty();
            let excepted = exceptions && self.witness.all.iter().any(|candidate| candidate.signal.names_device());
            let mut bits = Bits::EMPTY;
            for (index, (candidate, scene)) in (0..=u8::MAX).zip(self.witness.all.iter().zip(self.witness.scenes)) {
                // What two signals move together may turn though neither turns it alone.
                let turns = || !keep.allows(scene.leaf(leaf)) || excepted && matches!(leaf, Leaf::Fact(..) | Leaf::FactAge(..));
                if candidate.signal.moves(leaf, excepted) && turns() {
                    bits.add(index);
                }
            }
            self.witness.turns.borrow_mut().insert(key, bits);
            bits
        });
        turns.and(self.open)
    }

    /// The class is among these, or is not.
    fn class(&self, classes: &[ClassId], among: bool) -> Bits {
        if self.scene.inputs.given.class.is_some() || !matches!(self.scene.record, Record::Known { .. }) {
            return Bits::EMPTY;
        }
        let now = self.scene.class_now();
        let mut bits = Bits::EMPTY;
        for (id, when) in (0..).map(ClassId).zip(&self.scene.tables.classes) {
            if id == now {
                return bits.or(self.cond(when, Keep::MET));
            }
            if classes.contains(&id) != among {
                bits = bits.or(self.cond(when, Keep::UNMET));
            }
        }
        bits
    }

    /// The tier is this one or a higher one.
    fn tier_from(&self, least: u8) -> Bits {
        if self.scene.inputs.given.tier.is_some() || least == 0 {
            return Bits::EMPTY;
        }
        let tables = self.scene.tables;
        let met = tables.tiers.iter().take(usize::from(least) + 1);
        let bits = met.fold(Bits::EMPTY, |bits, require| bits.or(self.cond(require, Keep::MET)));
        let caps = tables.caps.iter().filter(|cap| cap.max_tier.0 < least);
        caps.fold(bits, |bits, cap| bits.or(self.cond(&cap.when, Keep::OUT)))
    }

    /// The tier is this one or a lower one.
    fn tier_up_to(&self, most: u8) -> Bits {
        let tables = self.scene.tables;
        if self.scene.inputs.given.tier.is_some() || usize::from(most) + 1 >= tables.tiers.len() {
            return Bits::EMPTY;
        }
        let mut fewest = Fewest(None);
        for require in tables.tiers.iter().take(usize::from(most) + 2) {
            if self.scene.truth(require) != Truth::Yes {
                fewest.offer(self.cond(require, Keep::UNMET));
            }
        }
        for cap in tables.caps.iter().filter(|cap| cap.max_tier.0 <= most) {
            if self.scene.truth(&cap.when) != Truth::No {
                fewest.offer(self.cond(&cap.when, Keep::HOLDING));
            }
        }
        fewest.0.unwrap_or(self.open)
    }
}
