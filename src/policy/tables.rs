//! The tables that a draft is compiled to.

use std::sync::Arc;

use http::HeaderName;
use jiff::tz::TimeZone;

use super::condition::{Compiler, Cond, Noted, Place};
use super::draft::{Draft, Rule};
use super::exceptions::Exceptions;
use super::facts::Sources;
use super::grants::{self, Grant, Grants};
use super::hosts::Hosts;
use super::ladders::Ladder;
use super::reasons::ReasonBook;
use super::restrictions::Restrictions;
use super::zones::Zones;
use super::{AppId, OwnerId, Reads, RestrictionId, RestrictionSet, TierId};
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
    pub ladders: Vec<Ladder>,
    pub exceptions: Exceptions,
    pub restrictions: Restrictions,
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
    pub guardrails: Box<[u32]>,
    /// As `guardrails`.
    pub ladders: Box<[u16]>,
    /// The names of `RuleRef::Layer`: indices into `Tables::layers`, in order.
    pub layers: Box<[u32]>,
    /// `layers` by owner.
    pub owners: Box<[LayerOwner]>,
    pub rules: Box<[Line]>,
    pub reads: Reads,
    /// Whether any rule or guardrail that concerns the app is in report mode.
    pub reports: bool,
}

/// One owner's layer rules for an app.
#[derive(Debug)]
pub struct LayerOwner {
    pub owner: OwnerId,
    /// Places in `AppTable::layers`, in order.
    pub lines: Box<[u32]>,
    /// Of this owner for this app.
    pub grants: Box<[Grant]>,
}

impl Tables {
    pub fn compile(draft: &Draft) -> Self {
        let mut names = Compiler::new(draft.tiers.len());
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
        let ladders = draft.ladders.iter().map(|ladder| Ladder::new(ladder, &mut names)).collect();
        let grants = grants::compile(draft, &mut names);
        let exceptions = Exceptions::new(&draft.exceptions, &names);
        let mut tables = Self {
            facts: names.facts.names,
            headers: names.headers.names,
            sources: Sources::new(&draft.sources),
            classes,
            tiers,
            caps,
            guardrails,
            layers,
            apps: Vec::new(),
            ladders,
            exceptions,
            restrictions: Restrictions::new(draft),
            hosts: Hosts::new(&draft.apps),
            zones: Zones::new(&draft.networks),
            time_zone: draft.time_zone.clone(),
            reasons: ReasonBook::default(),
            security: (0..).zip(&draft.owners).find(|(_, owner)| owner.name == "security").map(|(index, _)| OwnerId(index)),
        };
        tables.reasons = ReasonBook::new(draft, &tables.facts, &tables.headers);
        tables.apps = tables.apps(draft, rules, &grants);
        tables
    }

    fn apps(&self, draft: &Draft, rules: Vec<Box<[Line]>>, grants: &Grants) -> Vec<AppTable> {
        let mut derived = Noted::default();
        let caps = self.caps.iter().map(|cap| &cap.when);
        self.classes.iter().chain(&self.tiers).chain(caps).for_each(|cond| cond.note_reads(&mut derived));
        let every = draft.apps.len();
        let layers_of = by_app(every, draft.layers.iter().map(|layer| Some(layer.apps.as_slice())));
        let guardrails_of = by_app(every, draft.guardrails.iter().map(|guardrail| guardrail.apps.as_deref()));
        let ladders_of = by_app(every, draft.ladders.iter().map(|ladder| ladder.apps.as_deref()));
        let concern = guardrails_of.into_iter().zip(ladders_of).zip(layers_of);
        let each = (0..).zip(&draft.apps).zip(rules).zip(concern);
        let apps = each.map(|(((id, app), rules), ((guardrails, ladders), layers))| {
            let mut table = AppTable {
                owner: app.owner,
                mode: app.mode,
                guardrails: guardrails.into(),
                ladders: ladders.into_iter().filter_map(|index| u16::try_from(index).ok()).collect(),
                owners: by_owner(draft, &layers, |owner| grants.get(&(owner, AppId(id))).cloned().unwrap_or_default().into()),
                layers: layers.into(),
                rules,
                reads: Reads::default(),
                reports: false,
            };
            let mut noted = derived.clone();
            self.lines_of(&table).for_each(|line| line.when.note_reads(&mut noted));
            self.ladders_of(&table).for_each(|(_, ladder)| ladder.when.note_reads(&mut noted));
            table.reads = noted.reads(&self.headers);
            let reports = self.lines_of(&table).any(|line| line.mode == Mode::Report);
            table.reports = reports;
            table
        });
        apps.collect()
    }

    /// All guardrails, layer rules and rules that concern the app.
    fn lines_of<'a>(&'a self, app: &'a AppTable) -> impl Iterator<Item = &'a Line> {
        let guardrails = app.guardrails.iter().filter_map(|index| self.guardrails.get(*index as usize));
        let layers = app.layers.iter().filter_map(|index| self.layers.get(*index as usize));
        guardrails.chain(layers).chain(&app.rules)
    }

    pub fn layer(&self, app: &AppTable, place: u32) -> Option<&Line> {
        self.layers.get(*app.layers.get(place as usize)? as usize)
    }

    /// In order.
    pub fn lines_of_owner<'a>(&'a self, app: &'a AppTable, group: &'a LayerOwner) -> impl Iterator<Item = &'a Line> + Clone {
        group.lines.iter().filter_map(|place| self.layer(app, *place))
    }

    /// Those that concern the app, with their index.
    pub fn ladders_of<'a>(&'a self, app: &'a AppTable) -> impl Iterator<Item = (u16, &'a Ladder)> {
        app.ladders.iter().filter_map(|index| Some((*index, self.ladders.get(usize::from(*index))?)))
    }

    /// Whom guardrails, ladders and exceptions belong to.
    pub fn keeper(&self, app: &AppTable) -> OwnerId {
        self.security.unwrap_or(app.owner)
    }
}

fn line(rule: &Rule, names: &mut Compiler) -> Line {
    Line { when: names.condition(&rule.when, Place::Rule), then: rule.then, with: set(&rule.with), mode: rule.mode }
}

pub fn set(with: &[RestrictionId]) -> RestrictionSet {
    with.iter().fold(RestrictionSet::EMPTY, |set, id| set.with(*id))
}

/// The indices of those that concern each of `count` apps, in order; `None` concerns every app.
fn by_app<'a>(count: usize, lists: impl Iterator<Item = Option<&'a [AppId]>>) -> Vec<Vec<u32>> {
    let mut of: Vec<Vec<u32>> = vec![Vec::new(); count];
    for (index, apps) in (0..).zip(lists) {
        let mut add = |of: &mut Vec<u32>| {
            if of.last() != Some(&index) {
                of.push(index);
            }
        };
        match apps {
            None => of.iter_mut().for_each(add),
            Some(apps) => apps.iter().for_each(|app| of.get_mut(app.index()).into_iter().for_each(&mut add)),
        }
    }
    of
}

fn by_owner(draft: &Draft, layers: &[u32], grants: impl Fn(OwnerId) -> Box<[Grant]>) -> Box<[LayerOwner]> {
    let mut owners: Vec<(OwnerId, Vec<u32>)> = Vec::new();
    for (place, layer) in (0..).zip(layers.iter().filter_map(|index| draft.layers.get(*index as usize))) {
        match owners.iter_mut().find(|(owner, _)| *owner == layer.owner) {
            Some((_, lines)) => lines.push(place),
            None => owners.push((layer.owner, vec![place])),
        }
    }
    owners.into_iter().map(|(owner, lines)| LayerOwner { owner, lines: lines.into(), grants: grants(owner) }).collect()
}
