//! A decision with every comparison that led to it. For people: it allocates as it likes.

mod dated;

use super::condition::{Cond, Leaf};
use super::decide::Scope;
use super::draft::{Compare, DeviceField, Fix, KeyProof, WireField};
use super::evaluate::field_text;
use super::facts::age;
use super::scene::{Record, Scene};
use super::tables::{AppTable, Line, Tables};
use super::truth::Truth;
use super::wording::{self, duration};
use super::{AppId, Decision, FactView, Inputs, Policy, RuleRef};
use crate::model::{Freshness, Mode, Reason, Standing};

/// Steps stand in the order in which they are evaluated.
#[derive(Clone, Debug)]
pub struct Explanation<'a> {
    pub app: &'a str,
    pub mode: Mode,
    /// What is known of the device, in a few words.
    pub record: String,
    pub facts: Vec<FactView<'a>>,
    pub classes: Vec<Step<'a>>,
    pub class: &'a str,
    pub tiers: Vec<Step<'a>>,
    /// The tier before caps; `None` when the tier was given.
    pub earned: Option<&'a str>,
    pub caps: Vec<Step<'a>>,
    pub tier: &'a str,
    /// Those that concern the app.
    pub guardrails: Vec<Step<'a>>,
    /// Those that concern the app, with the step in force and those to come.
    pub ladders: Vec<Step<'a>>,
    pub layers: Vec<Step<'a>>,
    /// Which rule of an owner's file replaces the app's own, and by what leave.
    pub replaced: Option<String>,
    pub rules: Vec<Step<'a>>,
    /// Those that concern the device and the app.
    pub exceptions: Vec<Excepted<'a>>,
    /// What the person is told of: names of ladders, and what they will ask for.
    pub notices: Vec<(&'a str, String)>,
    pub decision: Decision,
    /// Of what is done, the deciding one first.
    pub reasons: Vec<Reason<'a>>,
    /// Of what would be done were nothing in report mode.
    pub would_reasons: Vec<Reason<'a>>,
    pub fixes: Vec<&'a Fix>,
}

/// An exception that concerns the device and the app.
#[derive(Clone, Debug)]
pub struct Excepted<'a> {
    pub name: &'a str,
    /// `disk_encrypted counts as ok`, `glass is broken`.
    pub what: String,
    pub from: Option<String>,
    pub until: String,
    pub by: &'a str,
    pub ticket: &'a str,
    pub in_force: bool,
    /// The decision rests on it.
    pub used: bool,
}

/// A class, tier, cap, guardrail, ladder, layer rule or rule.
#[derive(Clone, Debug)]
pub struct Step<'a> {
    pub name: &'a str,
    /// What follows from it: `forward`, `restrict with read-only`, `tier at most known`. Empty for a class and a tier.
    pub then: String,
    /// Of a guardrail, ladder, layer rule or rule.
    pub owner: Option<&'a str>,
    pub verdict: Verdict,
    /// `None`: not evaluated, or it has no condition.
    pub test: Option<Tested>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Matched,
    DidNotMatch,
    Undecided,
    /// Something before it settled the matter.
    NotReached,
    /// In report mode: evaluated, recorded, and passed over as if absent.
    PassedOver(Truth),
}

impl Verdict {
    const fn of(truth: Truth) -> Self {
        match truth {
            Truth::No => Self::DidNotMatch,
            Truth::Undecided => Self::Undecided,
            Truth::Yes => Self::Matched,
        }
    }
}

/// A condition as it came out.
#[derive(Clone, Debug)]
pub enum Tested {
    One {
        /// `device.os_version`, `posture.patched`, `http.path`.
        signal: String,
        found: String,
        wanted: String,
        truth: Truth,
    },
    /// `how` is `all of`, `any of` or `not`.
    Several { how: &'static str, truth: Truth, inner: Vec<Tested> },
}

impl Tested {
    pub const fn truth(&self) -> Truth {
        match self {
            Self::One { truth, .. } | Self::Several { truth, .. } => *truth,
        }
    }
}

pub fn explain<'a>(policy: &'a Policy, tables: &'a Tables, id: AppId, inputs: &'a Inputs<'a>) -> Explanation<'a> {
    let decision = policy.decide(id, inputs);
    let scene = Scene::new(tables, id, inputs);
    let teller = Teller { policy, scene: &scene };
    let app = tables.apps.get(id.index());
    let replaced = app.and_then(|app| teller.replaced(id, app));
    let named = |list: super::ReasonList| list.as_slice().iter().map(|id| policy.reason(*id)).collect();
    Explanation {
        app: policy.app_name(id),
        mode: app.map_or(Mode::Enforce, |app| app.mode),
        record: record(&scene),
        facts: policy.facts(inputs.standing, inputs.now),
        classes: teller.classes(),
        class: policy.class_name(decision.class),
        tiers: teller.tiers(),
        earned: inputs.given.tier.is_none().then(|| policy.tier_name(scene.earned)),
        caps: teller.caps(),
        tier: policy.tier_name(decision.tier),
        guardrails: app.map(|app| teller.guardrails(app)).unwrap_or_default(),
        ladders: app.map(|app| teller.ladders(app)).unwrap_or_default(),
        layers: app.map(|app| teller.layers(id, app)).unwrap_or_default(),
        rules: app.map(|app| teller.rules(id, app, replaced.is_some())).unwrap_or_default(),
        replaced,
        exceptions: teller.exceptions(&decision),
        notices: teller.notices(&decision),
        reasons: named(decision.done.reasons),
        would_reasons: named(decision.would.reasons),
        fixes: policy.fixes(&decision),
        decision,
    }
}

fn record(scene: &Scene<'_>) -> String {
    match scene.record {
        Record::Absent(why) => format!("none ({})", Reason::NoRecord(why)),
        Record::Unreadable => "unreadable: the store cannot be asked, and nothing is cached".to_owned(),
        Record::Known { device, .. } => {
            let freshness = match scene.inputs.standing {
                Standing::Known { freshness: Freshness::Stale, .. } => ", stale: facts keep their state",
                Standing::Known { freshness: Freshness::TooOld, .. } => ", too old: facts are unknown",
                _ => "",
            };
            format!("{}{freshness}", device.id)
        }
    }
}

/// What a comparison reads, in words.
pub fn found(policy: &Policy, scene: &Scene<'_>, leaf: &Leaf) -> String {
    Teller { policy, scene }.found(leaf)
}

struct Teller<'a, 's> {
    policy: &'a Policy,
    scene: &'s Scene<'a>,
}

impl<'a> Teller<'a, '_> {
    fn classes(&self) -> Vec<Step<'a>> {
        let tables = self.scene.tables;
        let mut settled = self.scene.inputs.given.class.is_some() || !matches!(self.scene.record, Record::Known { .. });
        let classes = tables.classes.iter().zip(&self.policy.draft().classes);
        let each = classes.map(|(when, class)| {
            let step = self.derivation(&class.name, String::new(), when, settled);
            settled |= step.verdict == Verdict::Matched;
            step
        });
        each.collect()
    }

    fn tiers(&self) -> Vec<Step<'a>> {
        let mut settled = self.scene.inputs.given.tier.is_some();
        let tiers = self.scene.tables.tiers.iter().zip(&self.policy.draft().tiers);
        let each = tiers.map(|(require, tier)| {
            let step = self.derivation(&tier.name, String::new(), require, settled);
            settled |= step.verdict != Verdict::Matched;
            step
        });
        each.collect()
    }

    fn caps(&self) -> Vec<Step<'a>> {
        let settled = self.scene.inputs.given.tier.is_some();
        let caps = self.scene.tables.caps.iter().zip(&self.policy.draft().caps);
        let each = caps.map(|(cap, named)| {
            let then = format!("tier at most {}", self.policy.tier_name(cap.max_tier));
            self.derivation(&named.name, then, &cap.when, settled)
        });
        each.collect()
    }

    /// A class, tier or cap. They are settled without class or tier, which the scene knows by now: what a cap may not read it does not read.
    fn derivation(&self, name: &'a str, then: String, when: &Cond, settled: bool) -> Step<'a> {
        let verdict = if settled { Verdict::NotReached } else { Verdict::of(self.scene.truth(when)) };
        Step { name, then, owner: None, verdict, test: (!settled).then(|| self.tested(when)).flatten() }
    }

    fn guardrails(&self, app: &AppTable) -> Vec<Step<'a>> {
        let owner = self.scene.tables.keeper(app);
        let lines = app.guardrails.iter().filter_map(|index| {
            let guardrail = self.policy.draft().guardrails.get(*index as usize)?;
            Some((guardrail.name.as_str(), self.scene.tables.guardrails.get(*index as usize)?))
        });
        lines.map(|(name, line)| self.line(name, self.policy.owner(owner).name.as_str(), line, false)).collect()
    }

    fn layers(&self, id: AppId, app: &AppTable) -> Vec<Step<'a>> {
        let mut steps = Vec::new();
        for group in &app.owners {
            let owner = self.policy.owner(group.owner).name.as_str();
            let lines = group
                .lines
                .iter()
                .filter_map(|place| Some((self.policy.rule_name(id, RuleRef::Layer(*place)), self.scene.tables.layer(app, *place)?)));
            steps.extend(self.first_match(owner, app.mode, false, lines));
        }
        steps
    }

    fn rules(&self, id: AppId, app: &AppTable, replaced: bool) -> Vec<Step<'a>> {
        let owner = self.policy.owner(app.owner).name.as_str();
        let lines = (0..).zip(&app.rules).map(|(index, line)| (self.policy.rule_name(id, RuleRef::Rule(index)), line));
        self.first_match(owner, app.mode, replaced, lines)
    }

    /// `settled`: none of them is asked.
    fn first_match<'l>(
        &self,
        owner: &'a str,
        mode: Mode,
        mut settled: bool,
        lines: impl Iterator<Item = (&'a str, &'l Line)>,
    ) -> Vec<Step<'a>> {
        let each = lines.map(|(name, line)| {
            let mut step = self.line(name, owner, line, settled);
            // In an app that reports, all rules only report: what one would do is then told as if it were in force.
            if let (Mode::Report, Verdict::PassedOver(truth)) = (mode, step.verdict) {
                step.verdict = Verdict::of(truth);
            }
            settled |= step.verdict == Verdict::Matched;
            step
        });
        each.collect()
    }

    fn line(&self, name: &'a str, owner: &'a str, line: &Line, settled: bool) -> Step<'a> {
        let verdict = match settled {
            true => Verdict::NotReached,
            false if Scope::Enforced.passes_over(line.mode) => Verdict::PassedOver(self.scene.truth(&line.when)),
            false => Verdict::of(self.scene.truth(&line.when)),
        };
        let with: Vec<&str> = line.with.iter().map(|id| self.policy.restriction(id).name.as_str()).collect();
        let then = if with.is_empty() { line.then.as_str().to_owned() } else { format!("{} with {}", line.then.as_str(), with.join(", ")) };
        Step { name, then, owner: Some(owner), verdict, test: (!settled).then(|| self.tested(&line.when)).flatten() }
    }

    fn tested(&self, cond: &Cond) -> Option<Tested> {
        match cond {
            Cond::All(inner) if inner.is_empty() => None,
            cond => Some(self.test(cond)),
        }
    }

    fn test(&self, cond: &Cond) -> Tested {
        let truth = self.scene.truth(cond);
        let several = |how, inner: &[Cond]| Tested::Several { how, truth, inner: inner.iter().map(|cond| self.test(cond)).collect() };
        match cond {
            Cond::All(inner) => several("all of", inner),
            Cond::Any(inner) => several("any of", inner),
            Cond::Not(inner) => several("not", std::slice::from_ref(inner)),
            Cond::Leaf(leaf) => {
                let signal = wording::signal(leaf, self.scene.tables);
                Tested::One { signal, found: self.found(leaf), wanted: wording::wanted(leaf, self.policy), truth }
            }
        }
    }

    fn found(&self, leaf: &Leaf) -> String {
        let scene = self.scene;
        let http = &scene.inputs.http;
        match leaf {
            Leaf::Class(_) => self.policy.class_name(scene.class_now()).to_owned(),
            Leaf::Tier(_) => self.policy.tier_name(scene.tier_now()).to_owned(),
            Leaf::Wire(test) if test.field == WireField::Contradictions => {
                let compared = &scene.inputs.sight.comparison;
                let weak = |kind| if compared.strong.has(kind) { "" } else { " (weak)" };
                let kinds: Vec<String> = compared.contradictions.iter().map(|kind| format!("{}{}", kind.as_str(), weak(kind))).collect();
                if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") }
            }
            Leaf::Wire(test) => scene.wire(test.field).join(", "),
            Leaf::Claim(field, _) => scene.claim(*field).unwrap_or("unavailable").to_owned(),
            Leaf::Peer(_) => scene.inputs.peer.to_string(),
            Leaf::Zone(_) => scene.inputs.zone.map_or("none", |zone| self.policy.zone_name(zone)).to_owned(),
            Leaf::Weekday(_) => wording::weekday(scene.local_time().weekday()).to_owned(),
            Leaf::Hour(_) => scene.local_time().hour().to_string(),
            Leaf::Method(_) => http.method.to_owned(),
            Leaf::Path(_) => http.path.to_owned(),
            Leaf::Host(_) => http.host.to_string(),
            Leaf::Header(id, _) => {
                let values = scene.tables.headers.get(id.0 as usize).map(|name| http.headers.get_all(name));
                let values: Vec<_> = values.iter().flatten().collect();
                match values.as_slice() {
                    [] => "none".to_owned(),
                    [one] => one.to_str().unwrap_or("a value that is not text").to_owned(),
                    several => format!("{} values", several.len()),
                }
            }
            leaf => self.found_in_record(leaf),
        }
    }

    fn found_in_record(&self, leaf: &Leaf) -> String {
        let scene = self.scene;
        let device = match scene.record {
            Record::Known { device, .. } => device,
            Record::Absent(_) if matches!(leaf, Leaf::Fact(..)) => return "unknown".to_owned(),
            Record::Absent(_) => return "none".to_owned(),
            Record::Unreadable => return "unreadable".to_owned(),
        };
        let missing = || "missing from the record".to_owned();
        let since = |moment: Option<jiff::Timestamp>| match moment {
            Some(moment) => duration(age(moment, scene.inputs.now).unsigned_abs()),
            None => "no observation that counts".to_owned(),
        };
        match leaf {
            Leaf::Device(DeviceField::Tags, _) if device.tags.is_empty() => "none".to_owned(),
            Leaf::Device(DeviceField::Tags, _) => device.tags.join(", "),
            Leaf::Device(field, _) => field_text(device, *field).map_or_else(missing, str::to_owned),
            Leaf::OsVersion(_) => device.os_version.clone().unwrap_or_else(missing),
            Leaf::Key(_) => wording::key(scene.key().unwrap_or(KeyProof::None)).to_owned(),
            Leaf::Fact(fact, _) => scene.fact(*fact).state.as_str().to_owned(),
            Leaf::FactAge(fact, _) => since(scene.fact(*fact).observed_at),
            Leaf::PostureAge(_) => since(scene.newest_observation()),
            Leaf::KnownFor(_) => since(Some(device.created_at)),
            _ => String::new(),
        }
    }
}

impl Compare {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Equal => "=",
            Self::AtLeast => ">=",
            Self::More => ">",
        }
    }
}
