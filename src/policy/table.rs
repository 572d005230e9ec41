//! The compiled policy.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use jiff::Timestamp;

use super::decide::decide;
use super::draft::{Condition, Draft, Exception, Fix, Ladder, Lifts, Owner, Restriction, Step, Test, Who, WireField};
use super::explain::{Explanation, explain};
use super::facts::{FactNow, age};
use super::scene::Record;
use super::tables::Tables;
use super::{
    AppId, ClassId, Decision, Inputs, Merged, MethodSet, OwnerId, ReasonId, RestrictionId, RestrictionSet, RuleRef, TierId, ZoneId,
};
use crate::model::{Fact, FactState, Host, Reason, Standing};

/// A policy, compiled once and shared by all. An id of another policy means nothing to it: names are then empty, and nothing is opened.
#[derive(Debug)]
pub struct Policy {
    draft: Draft,
    tables: Tables,
    nobody: Owner,
    nothing: Restriction,
    no_reads: Reads,
    no_ladder: Ladder,
    no_exception: Exception,
}

/// Which request signals the rules, guardrails and caps of one app read: with the app, the policy's revision and the device's
/// generation they are the key under which a decision may be memoised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    pub method: bool,
    pub host: bool,
    pub path: bool,
    pub claims: bool,
    /// What of the connection's sight can change while the connection lasts.
    pub sight: bool,
    pub headers: Vec<HeaderName>,
}

/// One posture fact as it counts now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactView<'a> {
    pub name: &'a str,
    pub state: FactState,
    /// Of the observation that gives the state; for an expired fact, of the newest observation.
    pub value: Option<&'a str>,
    pub source: &'a str,
    pub age: Duration,
}

impl Policy {
    pub fn compile(draft: Draft) -> Self {
        let tables = Tables::compile(&draft);
        let nobody = Owner { name: String::new(), contact: String::new() };
        let no_ladder =
            Ladder { name: String::new(), fact: Arc::from(""), apps: None, when: Condition::always(), steps: Vec::new(), with: Vec::new() };
        let no_exception = Exception {
            name: String::new(),
            who: Who::Device(String::new()),
            lifts: Lifts::Checks(Vec::new()),
            apps: None,
            from: None,
            until: Timestamp::MIN,
            by: String::new(),
            ticket: String::new(),
        };
        Self { draft, tables, nobody, nothing: Restriction::default(), no_reads: Reads::default(), no_ladder, no_exception }
    }

    /// What it was compiled from.
    pub fn draft(&self) -> &Draft {
        &self.draft
    }

    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    pub fn revision(&self) -> &str {
        &self.draft.revision
    }

    /// The app of a request: exact host before the longest wildcard, then the longest path prefix. A host is settled first: a path that no app of an
    /// exact host holds is no app's.
    pub fn app_at(&self, host: &Host, path: &str) -> Option<AppId> {
        self.tables.hosts.app_at(host, path)
    }

    /// Whether a SYN that comes from this zone is the client's own.
    pub fn syn_is_direct(&self, zone: ZoneId) -> bool {
        self.draft.networks.get(zone.index()).is_some_and(|network| network.syn_is_direct)
    }

    /// No clock, no I/O, no allocation.
    pub fn decide(&self, app: AppId, inputs: &Inputs<'_>) -> Decision {
        decide(&self.tables, app, inputs)
    }

    /// The decision with every comparison that led to it, for people.
    pub fn explain<'a>(&'a self, app: AppId, inputs: &'a Inputs<'a>) -> Explanation<'a> {
        explain(self, &self.tables, app, inputs)
    }

    pub fn reads(&self, app: AppId) -> &Reads {
        self.tables.apps.get(app.index()).map_or(&self.no_reads, |app| &app.reads)
    }

    /// Headers that any condition of the policy reads, for the decision log.
    pub fn headers_read(&self) -> &[HeaderName] {
        &self.tables.headers
    }

    /// Posture facts that any condition of the policy reads.
    pub fn facts_read(&self) -> &[Arc<str>] {
        &self.tables.facts
    }

    /// The narrowest named network that holds the address.
    pub fn zone(&self, peer: IpAddr) -> Option<ZoneId> {
        self.tables.zones.zone(peer)
    }

    pub fn zone_name(&self, zone: ZoneId) -> &str {
        self.draft.networks.get(zone.index()).map_or("", |network| &network.name)
    }

    pub fn app_count(&self) -> usize {
        self.draft.apps.len()
    }

    pub fn app_named(&self, name: &str) -> Option<AppId> {
        (0..).zip(&self.draft.apps).find(|(_, app)| app.name == name).map(|(index, _)| AppId(index))
    }

    pub fn app_name(&self, app: AppId) -> &str {
        self.draft.apps.get(app.index()).map_or("", |app| &app.name)
    }

    pub fn app_title(&self, app: AppId) -> &str {
        self.draft.apps.get(app.index()).map_or("", |app| &app.title)
    }

    pub fn app_owner(&self, app: AppId) -> OwnerId {
        self.draft.apps.get(app.index()).map_or(OwnerId(0), |app| app.owner)
    }

    pub fn owner(&self, owner: OwnerId) -> &Owner {
        self.draft.owners.get(owner.index()).unwrap_or(&self.nobody)
    }

    pub fn class_name(&self, class: ClassId) -> &str {
        match class {
            ClassId::BLIND => "blind",
            ClassId::UNCLASSIFIED => "unclassified",
            class => self.draft.classes.get(class.index()).map_or("", |class| &class.name),
        }
    }

    pub fn tier_name(&self, tier: TierId) -> &str {
        self.draft.tiers.get(tier.index()).map_or("", |tier| &tier.name)
    }

    /// `-` for `RuleRef::None`.
    pub fn rule_name(&self, app: AppId, rule: RuleRef) -> &str {
        let name = match rule {
            RuleRef::Guardrail(index) => self.draft.guardrails.get(index as usize).map(|guardrail| &guardrail.name),
            RuleRef::Rule(index) => self.draft.apps.get(app.index()).and_then(|app| app.rules.get(index as usize)).map(|rule| &rule.name),
            RuleRef::Layer(place) => {
                let index = self.tables.apps.get(app.index()).and_then(|app| app.layers.get(place as usize));
                index.and_then(|index| self.draft.layers.get(*index as usize)).map(|layer| &layer.rule.name)
            }
            RuleRef::Ladder(index) => self.draft.ladders.get(usize::from(index)).map(|ladder| &ladder.name),
            RuleRef::Exception(index) => self.draft.exceptions.get(index as usize).map(|exception| &exception.name),
            RuleRef::None => None,
        };
        name.map_or("-", |name| name)
    }

    pub fn ladder(&self, index: u16) -> &Ladder {
        self.draft.ladders.get(usize::from(index)).unwrap_or(&self.no_ladder)
    }

    /// What a ladder will ask for, and from when on.
    pub fn ladder_steps_to_come(&self, index: u16, now: Timestamp) -> &[(Timestamp, Step)] {
        self.tables.ladders.get(usize::from(index)).map_or(&[], |ladder| ladder.split(now).1)
    }

    pub fn exception(&self, index: u32) -> &Exception {
        self.draft.exceptions.get(index as usize).unwrap_or(&self.no_exception)
    }

    pub fn reason(&self, id: ReasonId) -> Reason<'_> {
        self.tables.reasons.reason(id)
    }

    /// Whether the decision is for contradictions, be it that a rule or that a cap among the reasons reads them.
    pub fn is_for_contradictions(&self, decision: &Decision) -> bool {
        let such = |test: &Test| matches!(test, Test::Wire(WireField::Contradictions, _));
        let reads = |name: &str| self.draft.caps.iter().any(|cap| cap.name == name && cap.when.reads(&such));
        decision.done.reasons.as_slice().iter().any(|id| match self.reason(*id) {
            Reason::Cap(name) => reads(name),
            reason => reason == Reason::Signal(WireField::Contradictions.as_str()),
        })
    }

    /// Every reason that a decision of this policy can have.
    pub fn reasons(&self) -> impl Iterator<Item = (ReasonId, Reason<'_>)> {
        let count = u16::try_from(self.tables.reasons.len()).unwrap_or(u16::MAX);
        (0..count).map(|id| (ReasonId(id), self.reason(ReasonId(id))))
    }

    pub fn restriction(&self, id: RestrictionId) -> &Restriction {
        self.draft.restrictions.get(id.index()).unwrap_or(&self.nothing)
    }

    pub fn allows_method(&self, merged: &Merged, method: &str) -> bool {
        merged.methods.is_none_or(|set| self.methods(set).any(|name| name == method))
    }

    /// Whether any of the restrictions refuses the canonical path. No allocation.
    pub fn path_refused(&self, restrictions: RestrictionSet, path: &str) -> bool {
        self.tables.restrictions.path_refused(restrictions, path)
    }

    /// For the `Allow` field of a 403 and its page.
    pub fn method_names(&self, set: MethodSet) -> Vec<&str> {
        self.methods(set).collect()
    }

    fn methods(&self, MethodSet(set): MethodSet) -> impl Iterator<Item = &str> {
        (0..64u8).zip(&self.tables.restrictions.methods).filter(move |(bit, _)| set >> bit & 1 == 1).map(|(_, name)| name.as_str())
    }

    /// What the person could mend, in the order of the decision's reasons.
    pub fn fixes(&self, decision: &Decision) -> Vec<&Fix> {
        let reasons = decision.done.reasons.as_slice().iter().map(|id| self.reason(*id));
        let facts = reasons.filter_map(|reason| match reason {
            Reason::Posture(fact, FactState::Fail | FactState::Unknown) => Some(fact),
            _ => None,
        });
        let mut fixes: Vec<&Fix> = Vec::new();
        for fix in facts.filter_map(|fact| self.draft.fixes.iter().find(|fix| fix.fact == fact)) {
            if !fixes.iter().any(|known| known.fact == fix.fact) {
                fixes.push(fix);
            }
        }
        fixes
    }

    /// Every fact of the device's record as it counts at `now`.
    pub fn facts<'a>(&'a self, standing: &'a Standing, now: Timestamp) -> Vec<FactView<'a>> {
        let Some(device) = standing.device() else { return Vec::new() };
        let too_old = !matches!(Record::of(standing, now), Record::Known { too_old: false, .. });
        device.posture.iter().map(|fact| self.fact_view(fact, too_old, now)).collect()
    }

    fn fact_view<'a>(&self, fact: &'a Fact, too_old: bool, now: Timestamp) -> FactView<'a> {
        let counts = if too_old { FactNow::UNKNOWN } else { self.tables.sources.fact_now(fact, now) };
        let gives = fact.observations.iter().filter(|observation| match counts.state {
            FactState::Unknown => true,
            state => self.tables.sources.counts(observation, now) && observation.ok == (state == FactState::Ok),
        });
        let shown = gives.max_by_key(|observation| observation.observed_at);
        FactView {
            name: &fact.name,
            state: counts.state,
            value: shown.and_then(|observation| observation.value.as_deref()),
            source: shown.map_or("", |observation| &observation.source),
            age: shown.map_or(Duration::ZERO, |observation| age(observation.observed_at, now).unsigned_abs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::draft::{ClaimField, Condition, Guardrail, Test, Want};
    use super::super::testing::*;
    use super::*;
    use crate::model::NoRecord;

    #[test]
    fn the_compiler_knows_which_request_signals_an_apps_rules_caps_and_guardrails_read() {
        let reads = |change: &dyn Fn(&mut Draft)| {
            let mut draft = draft(vec![forward(always())]);
            draft.apps.push(app("payroll", vec![forward(all(&[method(&["GET"]), path("/x"), header("x-b", Want::Any)]))]));
            change(&mut draft);
            Policy::compile(draft)
        };
        let claims = || not(Condition::Test(Test::Claim(ClaimField::Os, text(&["windows"]))));
        let plain = reads(&|_| {});
        assert_eq!(*plain.reads(AppId(0)), Reads::default(), "another app's rules do not count");
        let b = HeaderName::from_static("x-b");
        assert_eq!(*plain.reads(AppId(1)), Reads { method: true, path: true, headers: vec![b], ..Reads::default() });
        let guarded = reads(&|draft| {
            let guardrail = guardrail("g", any(&[header("x-a", Want::Any), Condition::Test(Test::Host(vec![]))]));
            draft.guardrails = vec![Guardrail { apps: Some(vec![AppId(0)]), ..guardrail }];
        });
        let a = HeaderName::from_static("x-a");
        assert_eq!(*guarded.reads(AppId(0)), Reads { host: true, headers: vec![a], ..Reads::default() });
        assert_eq!(guarded.headers_read().len(), 2);
        let layered = reads(&|draft| draft.layers = vec![layer(1, block(path("/y")))]);
        assert!(layered.reads(AppId(0)).path);
        // Class, tier and caps are part of every decision.
        assert!(reads(&|draft| draft.classes[2].when = claims()).reads(AppId(0)).claims);
        assert!(reads(&|draft| draft.tiers[3].require = claims()).reads(AppId(0)).claims);
        let capped = reads(&|draft| {
            draft.caps = vec![super::super::draft::Cap { name: "cap".to_owned(), when: claims(), max_tier: TierId(0) }];
        });
        assert!(capped.reads(AppId(0)).claims);
    }

    #[test]
    fn facts_are_shown_as_they_count_now() {
        let policy = Policy::compile(draft(vec![]));
        let mut device = laptop();
        device.posture = vec![Fact {
            name: "patched".to_owned(),
            observations: vec![
                crate::model::Observation { value: Some("no".to_owned()), ..observed("mdm", false, 0) },
                crate::model::Observation { value: Some("yes".to_owned()), ..observed("manual", true, 1800) },
                observed("rumour", false, 3000),
            ],
        }];
        let view = |visit: &Visit| {
            let facts = policy.facts(&visit.standing, visit.now);
            let fact = &facts[0];
            (fact.state, fact.value.map(str::to_owned), fact.source.to_owned(), fact.age.as_secs())
        };
        let visit = Visit::of(device.clone());
        assert_eq!(view(&visit), (FactState::Fail, Some("no".to_owned()), "mdm".to_owned(), 3600));
        assert_eq!(view(&visit.clone().at(25 * 3600)), (FactState::Ok, Some("yes".to_owned()), "manual".to_owned(), 25 * 3600 - 1800));
        assert_eq!(view(&visit.at(1000 * 3600)).0, FactState::Unknown);
        let (state, _, source, age) = view(&Visit::too_old(device));
        assert_eq!((state, &*source, age), (FactState::Unknown, "rumour", 600), "of what does not count the newest observation is shown");
        assert!(policy.facts(&Standing::NoRecord(NoRecord::NoProof), at(0)).is_empty());
    }

    #[test]
    fn names_of_another_policys_ids_are_empty() {
        let policy = Policy::compile(draft(vec![]));
        assert_eq!(policy.app_named("wiki"), Some(AppId(0)));
        assert_eq!((policy.app_name(AppId(9)), policy.tier_name(TierId(9)), policy.class_name(ClassId(9))), ("", "", ""));
        assert_eq!((policy.owner(OwnerId(9)).name.as_str(), policy.rule_name(AppId(9), RuleRef::Rule(0))), ("", "-"));
        assert_eq!((policy.class_name(ClassId::BLIND), policy.class_name(ClassId::UNCLASSIFIED)), ("blind", "unclassified"));
        assert!(policy.reasons().any(|(_, reason)| reason.to_string() == "class.blind"));
    }
}
