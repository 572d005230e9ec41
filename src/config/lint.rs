//! What can be read without an error and is most likely not meant. No warning here may be wrong: what cannot be proved is not said.
//!
//! Conditions are compared as unions of boxes (`boxes.rs`) over sets of values (`domain.rs`); `cover.rs` says which earlier lines leave a
//! later one nothing.

mod boxes;
mod cover;
mod domain;
mod loose;
mod peers;

use std::collections::{HashMap, HashSet};

use self::boxes::{Dim, Part, Reading, places};
use self::cover::Earlier;
use self::domain::Domain;
use super::names::Names;
use super::obj::Obj;
use super::report::{Findings, Place};
use super::rules::is_always;
use super::shapes;
use super::yaml::short;
use crate::model::{Effect, Mode};
use crate::policy::AppId;
use crate::policy::draft::{App, Compare, Condition, Draft, Lifts, Rule, Test};

/// The whole configuration, which has no error.
#[derive(Clone, Copy, Debug)]
pub struct Whole<'a> {
    pub main: Obj<'a>,
    /// Owners' files.
    pub owned: &'a [Obj<'a>],
    pub names: &'a Names<'a>,
    pub policy: &'a Draft,
}

pub fn lint(whole: Whole<'_>, out: &mut Findings) {
    let lint = Lint { whole, reading: Reading::new(whole.policy) };
    lint.derivations(out);
    lint.guardrails(out);
    lint.rules(out);
    lint.layers(out);
    names(whole, out);
    loose::loose(whole, out);
    peers::peers(whole, out);
}

struct Lint<'a> {
    whole: Whole<'a>,
    reading: Reading<'a>,
}

/// A rule that something is asked of.
#[derive(Clone, Copy)]
struct Asked<'a> {
    rule: &'a Rule,
    line: &'a Line,
    /// Of its name.
    place: Place,
    /// True of every request of the app.
    known: &'a [(Dim, Domain)],
}

/// A rule, class or guardrail, read.
struct Line {
    /// As it was written. `None`: more than can be looked into.
    parts: Option<Vec<Part>>,
    /// With what else is true where it holds.
    expanded: Vec<Part>,
    /// As `expanded`, of what is certainly decided of it: true also where it is undecided.
    sure: Vec<Part>,
    /// A part that nothing meets may be undecided all the same: then the line counts though no earlier line is asked.
    hollow: bool,
}

/// What a condition that is undecided counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Undecided {
    /// In classes.
    No,
    /// In guardrails, caps and ladders; a rule counts beside those behind it.
    Yes,
}

impl Lint<'_> {
    fn line(&self, when: &Condition, app: Option<&App>) -> Line {
        let parts = self.reading.parts(when);
        let mut line = Line { parts, expanded: Vec::new(), sure: Vec::new(), hollow: false };
        for part in line.parts.iter().flatten() {
            let (expanded, sure) = (self.reading.expand(std::slice::from_ref(part), app), self.sure(part, app));
            let paired = expanded.len() == sure.len();
            let never = |at: usize| if paired { sure.get(at).is_some_and(is_impossible) } else { sure.iter().all(is_impossible) };
            line.hollow |= expanded.iter().enumerate().any(|(at, part)| is_impossible(part) && !never(at));
            line.expanded.extend(expanded);
            line.sure.extend(sure);
        }
        line
    }

    /// A part wherever it is not false. What it asks of signals that its class or tier asks for as well counts: there these are decided.
    fn sure(&self, part: &Part, app: Option<&App>) -> Vec<Part> {
        let mut all = self.reading.expand(&[part.sure()], app);
        for sure in &mut all {
            let decided: Vec<_> = part.dims.iter().filter(|(dim, _)| sure.domain(dim).is_some()).collect();
            decided.into_iter().for_each(|(dim, domain)| sure.add(dim, domain));
        }
        all
    }

    /// Classes and tiers that no device has, caps that never hold.
    fn derivations(&self, out: &mut Findings) {
        let Whole { main, policy, .. } = self.whole;
        let lines: Vec<Line> = policy.classes.iter().map(|class| self.line(&class.when, None)).collect();
        let mut earlier = Earlier::default();
        for (at, (line, obj)) in lines.iter().zip(main.objects("classes", &shapes::CLASS)).enumerate() {
            if never_holds(line, Undecided::No, obj.place_of_key("when"), out) {
                continue;
            }
            if let Some(covering) = line.parts.as_ref().and_then(|_| earlier.cover(&line.expanded, &[])) {
                let first = main.items("classes").get(covering.first().copied().unwrap_or_default());
                let names: Vec<&str> = covering.iter().filter_map(|at| policy.classes.get(*at)).map(|class| class.name.as_str()).collect();
                out.caution(
                    obj.place_of("name"),
                    format!("never reached: every device that it matches is of {} before", listed(&names)),
                    first.map(|node| (node.place, "that class")),
                );
            }
            if let Some(parts) = &line.parts {
                earlier.push(at, parts);
            }
        }
        let mut unreachable = false;
        for (at, obj) in (0..).zip(main.objects("tiers", &shapes::TIER)) {
            let Some(parts) = self.reading.tier(crate::policy::TierId(at)) else { continue };
            let mut parts = self.reading.expand(parts, None);
            parts.iter_mut().for_each(Part::mind_the_record);
            if let Some(dim) = impossible(&parts).filter(|_| !unreachable) {
                unreachable = true;
                out.warn(
                    obj.place_of("name"),
                    format!("no device has this tier: nothing can meet all that it, the lower ones and the caps ask of {dim}"),
                );
            }
        }
        for (cap, obj) in policy.caps.iter().zip(main.objects("caps", &shapes::CAP)) {
            never_holds(&self.line(&cap.when, None), Undecided::Yes, obj.place_of_key("when"), out);
        }
        let ladders = main.object("posture", &shapes::POSTURE).entries("ladder");
        for (ladder, entry) in policy.ladders.iter().zip(ladders) {
            never_holds(&self.line(&ladder.when, None), Undecided::Yes, Obj::new(&entry.value, &shapes::LADDER).place_of_key("when"), out);
        }
    }

    fn guardrails(&self, out: &mut Findings) {
        for (guardrail, obj) in self.whole.policy.guardrails.iter().zip(self.whole.main.objects("guardrails", &shapes::GUARDRAIL)) {
            never_holds(&self.line(&guardrail.when, None), Undecided::Yes, obj.place_of_key("when"), out);
        }
    }

    /// Rules of apps: those that never match, that others match before, or that a guardrail blocks in any case.
    fn rules(&self, out: &mut Findings) {
        let Whole { names, policy, .. } = self.whole;
        let blocking = Blocking::new(self);
        for (number, (app, named)) in policy.apps.iter().zip(&names.app_names).enumerate() {
            let objs: Vec<Obj<'_>> = named.obj.objects("rules", &shapes::RULE).collect();
            let lines: Vec<Line> = app.rules.iter().map(|rule| self.line(&rule.when, Some(app))).collect();
            let known = places(app);
            let guards = u32::try_from(number).map(|number| blocking.of(AppId(number))).unwrap_or_default();
            let mut earlier = Earlier::default();
            for (at, ((rule, line), obj)) in app.rules.iter().zip(&lines).zip(&objs).enumerate() {
                let asked = Asked { rule, line, place: obj.place_of("name"), known: &known };
                let named = |line: usize| Some((app.rules.get(line)?, objs.get(line)?.place_of("name")));
                if !never_holds(line, Undecided::Yes, obj.place_of_key("when"), out) && !self.reached(&asked, &earlier, &named, out) {
                    self.let_through(&asked, &guards, &blocking, out);
                }
                if let Some(parts) = line.parts.as_ref().filter(|_| rule.mode == Mode::Enforce) {
                    earlier.push(at, parts);
                }
            }
        }
    }

    /// As `rules`, for those of owners' files: first match wins among one owner's that concern an app.
    fn layers(&self, out: &mut Findings) {
        let Whole { owned, policy, .. } = self.whole;
        let objs: Vec<Obj<'_>> = owned.iter().flat_map(|file| file.objects("rules", &shapes::OWNER_RULE)).collect();
        let lines: Vec<Line> = policy.layers.iter().map(|layer| self.line(&layer.rule.when, None)).collect();
        // By owner and apps: a rule for other apps leaves a later one something.
        let mut before: HashMap<(u16, &[AppId]), Earlier<'_>> = HashMap::new();
        for (at, ((layer, line), obj)) in policy.layers.iter().zip(&lines).zip(&objs).enumerate() {
            let earlier = before.entry((layer.owner.0, &layer.apps)).or_default();
            let asked = Asked { rule: &layer.rule, line, place: obj.place_of("name"), known: &[] };
            let named = |line: usize| Some((&policy.layers.get(line)?.rule, objs.get(line)?.place_of("name")));
            if !never_holds(line, Undecided::Yes, obj.place_of_key("when"), out) {
                self.reached(&asked, earlier, &named, out);
            }
            if let Some(parts) = line.parts.as_ref().filter(|_| layer.rule.mode == Mode::Enforce) {
                earlier.push(at, parts);
            }
        }
    }

    /// Warns of a rule that earlier ones leave nothing; `named` gives an earlier rule and where it stands. Whether there was something to say.
    fn reached<'a>(
        &self,
        asked: &Asked<'_>,
        earlier: &Earlier<'_>,
        named: &dyn Fn(usize) -> Option<(&'a Rule, Place)>,
        out: &mut Findings,
    ) -> bool {
        let Asked { rule, line, place, known, .. } = *asked;
        if line.parts.is_none() {
            return false;
        }
        let Some(covering) = earlier.cover(&line.expanded, known) else { return false };
        let covering: Vec<(&Rule, Place)> = covering.into_iter().filter_map(named).collect();
        let other = covering.first().map(|(_, place)| (*place, "that rule"));
        let names: Vec<&str> = covering.iter().map(|(rule, _)| rule.name.as_str()).collect();
        // While a comparison is undecided both count, and the stricter decides.
        let milder = covering.iter().any(|(earlier, _)| earlier.then < rule.then);
        let never = !milder && !line.hollow || earlier.cover(&line.sure, known).is_some();
        let what = if never { "never reached" } else { "reached only while a comparison is undecided" };
        out.caution(place, format!("{what}: what it matches is matched before by {}", listed(&names)), other);
        true
    }

    fn let_through(&self, asked: &Asked<'_>, guards: &[usize], blocking: &Blocking, out: &mut Findings) {
        let Asked { rule, line, place, known, .. } = *asked;
        if rule.then == Effect::Block || line.parts.is_none() || line.hollow || rule.mode == Mode::Report {
            return;
        }
        for guard in guards {
            let Some(parts) = blocking.parts.get(guard) else { continue };
            let mut one = Earlier::default();
            one.push(*guard, parts);
            if one.cover(&line.expanded, known).is_some() {
                let policy = self.whole.policy;
                let name = policy.guardrails.get(*guard).map(|guardrail| guardrail.name.as_str()).unwrap_or_default();
                let obj = self.whole.main.objects("guardrails", &shapes::GUARDRAIL).nth(*guard);
                out.caution(
                    place,
                    format!("lets nothing through: the guardrail `{}` blocks whatever it matches", short(name)),
                    obj.map(|obj| (obj.place_of("name"), "that guardrail")),
                );
                return;
            }
        }
    }
}

/// Enforced guardrails that block.
struct Blocking {
    parts: HashMap<usize, Vec<Part>>,
    everywhere: Vec<usize>,
    somewhere: HashMap<AppId, Vec<usize>>,
}

impl Blocking {
    fn new(lint: &Lint<'_>) -> Self {
        let mut blocking = Self { parts: HashMap::new(), everywhere: Vec::new(), somewhere: HashMap::new() };
        for (at, guardrail) in lint.whole.policy.guardrails.iter().enumerate() {
            if guardrail.then != Effect::Block || guardrail.mode != Mode::Enforce {
                continue;
            }
            let Some(parts) = lint.reading.parts(&guardrail.when) else { continue };
            blocking.parts.insert(at, parts);
            match &guardrail.apps {
                None => blocking.everywhere.push(at),
                Some(apps) => apps.iter().for_each(|app| blocking.somewhere.entry(*app).or_default().push(at)),
            }
        }
        blocking
    }

    fn of(&self, app: AppId) -> Vec<usize> {
        self.everywhere.iter().chain(self.somewhere.get(&app).into_iter().flatten()).copied().take(256).collect()
    }
}

/// Warns of a condition that no request meets, or that holds only where a comparison is undecided.
fn never_holds(line: &Line, undecided: Undecided, place: Place, out: &mut Findings) -> bool {
    let Some(parts) = &line.parts else { return false };
    let alone = impossible(parts);
    let Some(dim) = alone.clone().or_else(|| impossible(&line.expanded)) else { return false };
    let also = if alone.is_some() { "" } else { ", with what its class, its tier or its app has of it" };
    let never = undecided == Undecided::No || impossible(&line.sure).is_some();
    let what = if never { "never holds" } else { "holds only while a comparison is undecided" };
    out.warn(place, format!("{what}: nothing can meet all that this asks of {dim}{also}"));
    true
}

fn is_impossible(part: &Part) -> bool {
    part.impossible().is_some()
}

/// The signals that keep every part from holding.
fn impossible(parts: &[Part]) -> Option<String> {
    let dims: Option<Vec<String>> = parts.iter().map(|part| part.impossible().map(Dim::name)).collect();
    let mut seen = HashSet::new();
    let dims: Vec<String> = dims?.into_iter().filter(|dim| seen.insert(dim.clone())).take(4).collect();
    Some(listed(&dims.iter().map(String::as_str).collect::<Vec<_>>()))
}

/// `a`, `b` and `c`.
fn listed(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().take(5).map(|name| format!("`{}`", short(name))).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => "nothing".to_owned(),
    }
}

/// Those that may read the tier.
fn conditions(policy: &Draft) -> impl Iterator<Item = &Condition> {
    let guardrails = policy.guardrails.iter().map(|guardrail| &guardrail.when);
    let rules = policy.apps.iter().flat_map(|app| &app.rules).chain(policy.layers.iter().map(|layer| &layer.rule));
    guardrails.chain(policy.ladders.iter().map(|ladder| &ladder.when)).chain(rules.map(|rule| &rule.when))
}

/// Names that nothing uses.
fn names(whole: Whole<'_>, out: &mut Findings) {
    let Whole { main, names, policy, .. } = whole;
    // What is security's where there is such an owner.
    let keeps = || {
        let breaks_glass = policy.exceptions.iter().any(|exception| exception.lifts == Lifts::Everything);
        breaks_glass || !policy.guardrails.is_empty() || !policy.ladders.is_empty()
    };
    names.owners.warn_unused_but(|name| name == "security" && keeps(), out);
    // A class that no condition names still keeps devices from the later ones; the last ones keep them from nothing. One
    // that takes whatever is left says what else is there.
    for (class, node) in policy.classes.iter().zip(main.items("classes")).rev() {
        let obj = Obj::new(node, &shapes::CLASS);
        if names.classes.is_used(&class.name) {
            break;
        }
        if !is_always(&class.when) {
            out.warn(obj.place_of("name"), format!("no condition names the class `{}`", short(&class.name)));
        }
    }
    // A tier below one that is named is a step to it. Of those above, some comparisons with the highest named one tell the next apart.
    let highest = (0..names.tiers.len()).rev().find(|at| names.tiers.is_used(names.tiers.name(*at))).unwrap_or_default();
    let tells_apart = |compare: Compare| matches!(compare, Compare::Equal | Compare::AtMost | Compare::More);
    let next =
        |test: &Test| matches!(test, Test::Tier(all) if all.iter().any(|(compare, tier)| tier.index() == highest && tells_apart(*compare)));
    let named = if conditions(policy).any(|when| when.reads(&next)) { highest + 1 } else { highest };
    for at in named + 1..names.tiers.len() {
        if let Some(place) = names.tiers.place(at) {
            out.warn(place, format!("no condition, cap or grant names the tier `{}`", short(names.tiers.name(at))));
        }
    }
    if let Some(first) = main.object("posture", &shapes::POSTURE).entries("sources").first().filter(|_| names.reads_posture.get().is_none())
    {
        out.warn(first.key_place, "no condition and no ladder reads a posture fact: no source is asked");
    }
    let facts = names.facts.borrow();
    for entry in main.object("posture", &shapes::POSTURE).entries("fixes").iter().filter(|entry| !facts.contains(&entry.key)) {
        out.warn(entry.key_place, format!("no condition reads the fact `{}`: nobody is told this", short(&entry.key)));
    }
    for (fact, place) in names.lifted.borrow().iter().filter(|(fact, _)| !facts.contains(fact)) {
        out.warn(*place, format!("no condition reads the fact `{}`: this exception lifts nothing", short(fact)));
    }
}
