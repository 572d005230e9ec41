//! The tables that a draft is compiled to.

use std::sync::Arc;

use http::HeaderName;
use jiff::tz::TimeZone;

use super::condition::{Compiler, Cond, Place};
use super::draft::{Draft, Rule};
use super::facts::Sources;
use super::hosts::Hosts;
use super::reasons::ReasonBook;
use super::zones::Zones;
use super::{Merged, MethodSet, OwnerId, Reads, RestrictionId, RestrictionSet, TierId};
use crate::model::{Effect, Mode};

#[derive(Debug)]
pub struct Tables {
    /// That any condition reads.
    pub headers: Vec<HeaderName>,
    pub facts: Vec<Arc<str>>,
    pub sources: Sources,
    pub classes: Vec<Cond>,
    pub tiers: Vec<Cond>,
    pub caps: Vec<Cap>,
    pub guardrails: Vec<Line>,
    /// Of all owners' files; an app names those that concern it.
    pub layers: Vec<Line>,
    pub apps: Vec<AppTable>,
    /// Each restriction by itself.
    pub restrictions: Vec<Merged>,
    /// The bit of a method in a `MethodSet` is its place here.
    pub methods: Vec<String>,
    pub hosts: Hosts,
    pub zones: Zones,
    pub time_zone: TimeZone,
    pub reasons: ReasonBook,
    /// The owner named `security`.
    pub security: Option<OwnerId>,
}

#[derive(Debug)]
pub struct Cap {
    pub when: Cond,
    pub max_tier: TierId,
}

/// A rule, layer rule or guardrail.
#[derive(Debug)]
pub struct Line {
    pub when: Cond,
    pub then: Effect,
    pub with: RestrictionSet,
    pub mode: Mode,
}

#[derive(Debug)]
pub struct AppTable {
    pub owner: OwnerId,
    pub mode: Mode,
    /// Those that concern the app, in order: indices into `Tables::guardrails`.
    pub guardrails: Box<[u16]>,
    /// The names of `RuleRef::Layer`: indices into `Tables::layers`, in order.
    pub layers: Box<[usize]>,
    /// `layers` by owner.
    pub owners: Box<[LayerOwner]>,
    pub rules: Box<[Line]>,
    pub reads: Reads,
    /// Whether anything that concerns the app is in report mode.
    pub reports: bool,
}

/// One owner's layer rules for an app.
#[derive(Debug)]
pub struct LayerOwner {
    pub owner: OwnerId,
    /// Places in `AppTable::layers`, in order.
    pub lines: Box<[u16]>,
}

impl Tables {
    pub fn compile(draft: &Draft) -> Self {
        let mut names = Compiler { facts: Vec::new(), headers: Vec::new(), tiers: draft.tiers.len() };
        let classes = draft.classes.iter().map(|class| names.condition(&class.when, Place::Derivation)).collect();
        let tiers = draft.tiers.iter().map(|tier| names.condition(&tier.require, Place::Derivation)).collect();
        let caps = draft.caps.iter();
        let caps = caps.map(|cap| Cap { when: names.condition(&cap.when, Place::Derivation), max_tier: cap.max_tier }).collect();
        let guardrails = draft.guardrails.iter();
        let guardrails =
            guardrails.map(|g| Line { when: names.condition(&g.when, Place::Rule), then: g.then, with: set(&g.with), mode: g.mode });
        let guardrails = guardrails.collect();
        let layers = draft.layers.iter().map(|layer| line(&layer.rule, &mut names)).collect();
        let rules: Vec<Box<[Line]>> = draft.apps.iter().map(|app| app.rules.iter().map(|rule| line(rule, &mut names)).collect()).collect();
        let methods = methods(draft);
        let mut tables = Self {
            facts: names.facts,
            headers: names.headers,
            sources: Sources::new(&draft.sources),
            classes,
            tiers,
            caps,
            guardrails,
            layers,
            apps: Vec::new(),
            restrictions: draft.restrictions.iter().map(|restriction| alone(restriction, &methods)).collect(),
            methods,
            hosts: Hosts::new(&draft.apps),
            zones: Zones::new(&draft.networks),
            time_zone: draft.time_zone.clone(),
            reasons: ReasonBook::default(),
            security: (0..).zip(&draft.owners).find(|(_, owner)| owner.name == "security").map(|(index, _)| OwnerId(index)),
        };
        tables.reasons = ReasonBook::new(draft, &tables.facts, &tables.headers);
        tables.apps = tables.apps(draft, rules);
        tables
    }

    fn apps(&self, draft: &Draft, rules: Vec<Box<[Line]>>) -> Vec<AppTable> {
        let mut derived = Reads::default();
        let caps = self.caps.iter().map(|cap| &cap.when);
        self.classes.iter().chain(&self.tiers).chain(caps).for_each(|cond| cond.note_reads(&self.headers, &mut derived));
        let mut layers_of: Vec<Vec<usize>> = vec![Vec::new(); draft.apps.len()];
        for (index, layer) in draft.layers.iter().enumerate() {
            for app in &layer.apps {
                if let Some(layers) = layers_of.get_mut(app.index())
                    && layers.last() != Some(&index)
                {
                    layers.push(index);
                }
            }
        }
        let everywhere: Vec<bool> = draft.guardrails.iter().map(|guardrail| guardrail.apps.is_none()).collect();
        let mut guardrails_of: Vec<Vec<u16>> = vec![Vec::new(); draft.apps.len()];
        for (index, guardrail) in (0..).zip(&draft.guardrails) {
            for app in guardrail.apps.iter().flatten() {
                if let Some(guardrails) = guardrails_of.get_mut(app.index())
                    && guardrails.last() != Some(&index)
                {
                    guardrails.push(index);
                }
            }
        }
        let each = draft.apps.iter().zip(rules).zip(guardrails_of.into_iter().zip(layers_of));
        let apps = each.map(|((app, rules), (mut guardrails, layers))| {
            guardrails.extend((0..).zip(&everywhere).filter(|(_, all)| **all).map(|(index, _): (u16, _)| index));
            guardrails.sort_unstable();
            let mut table = AppTable {
                owner: app.owner,
                mode: app.mode,
                guardrails: guardrails.into(),
                owners: by_owner(draft, &layers),
                layers: layers.into(),
                rules,
                reads: Reads::default(),
                reports: false,
            };
            let mut reads = derived.clone();
            self.lines_of(&table).for_each(|line| line.when.note_reads(&self.headers, &mut reads));
            table.reads = reads;
            let reports = self.lines_of(&table).any(|line| line.mode == Mode::Report);
            table.reports = reports;
            table
        });
        apps.collect()
    }

    /// All guardrails, layer rules and rules that concern the app.
    fn lines_of<'a>(&'a self, app: &'a AppTable) -> impl Iterator<Item = &'a Line> {
        let guardrails = app.guardrails.iter().filter_map(|index| self.guardrails.get(usize::from(*index)));
        let layers = app.layers.iter().filter_map(|index| self.layers.get(*index));
        guardrails.chain(layers).chain(&app.rules)
    }

    pub fn layer(&self, app: &AppTable, place: u16) -> Option<&Line> {
        self.layers.get(*app.layers.get(usize::from(place))?)
    }

    pub fn merged(&self, set: RestrictionSet) -> Merged {
        let each = set.iter().filter_map(|id| self.restrictions.get(id.index()));
        each.fold(Merged::default(), |all, one| tighter(&all, one))
    }
}

/// The tighter of each: methods intersect, sizes take the smaller.
pub fn tighter(a: &Merged, b: &Merged) -> Merged {
    Merged {
        methods: match (a.methods, b.methods) {
            (Some(MethodSet(a)), Some(MethodSet(b))) => Some(MethodSet(a & b)),
            (one, other) => one.or(other),
        },
        no_store: a.no_store || b.no_store,
        sandbox: a.sandbox || b.sandbox,
        no_attachments: a.no_attachments || b.no_attachments,
        max_body: smaller(a.max_body, b.max_body),
        max_response: smaller(a.max_response, b.max_response),
        max_stream: smaller(a.max_stream, b.max_stream),
    }
}

fn smaller<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

fn line(rule: &Rule, names: &mut Compiler) -> Line {
    Line { when: names.condition(&rule.when, Place::Rule), then: rule.then, with: set(&rule.with), mode: rule.mode }
}

fn set(with: &[RestrictionId]) -> RestrictionSet {
    with.iter().fold(RestrictionSet::EMPTY, |set, id| set.with(*id))
}

fn by_owner(draft: &Draft, layers: &[usize]) -> Box<[LayerOwner]> {
    let mut owners: Vec<(OwnerId, Vec<u16>)> = Vec::new();
    for (place, layer) in (0..).zip(layers.iter().filter_map(|index| draft.layers.get(*index))) {
        match owners.iter_mut().find(|(owner, _)| *owner == layer.owner) {
            Some((_, lines)) => lines.push(place),
            None => owners.push((layer.owner, vec![place])),
        }
    }
    owners.into_iter().map(|(owner, lines)| LayerOwner { owner, lines: lines.into() }).collect()
}

/// The methods that restrictions name, each once. A policy that names more than 64 loses those beyond: they are in no set, so refused where a
/// restriction names methods at all.
fn methods(draft: &Draft) -> Vec<String> {
    let mut methods: Vec<String> = Vec::new();
    for method in draft.restrictions.iter().filter_map(|restriction| restriction.methods.as_ref()).flatten() {
        if !methods.contains(method) && methods.len() < 64 {
            methods.push(method.clone());
        }
    }
    methods
}

fn alone(restriction: &super::draft::Restriction, methods: &[String]) -> Merged {
    let bits = |named: &Vec<String>| {
        let bits = (0..64u8).zip(methods).filter(|(_, method)| named.contains(method));
        MethodSet(bits.fold(0, |set, (bit, _)| set | 1u64 << bit))
    };
    Merged {
        methods: restriction.methods.as_ref().map(bits),
        no_store: restriction.no_store,
        sandbox: restriction.sandbox,
        no_attachments: restriction.no_attachments,
        max_body: restriction.max_body,
        max_response: restriction.max_response,
        max_stream: restriction.max_stream,
    }
}
