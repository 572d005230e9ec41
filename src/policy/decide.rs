//! Guardrails, then owners' layers and the app's rules; the strictest outcome stands.

use super::draft::Step;
use super::grants::Grant;
use super::hope::hopeful;
use super::ladders::Demand;
use super::reasons::ReasonBook;
use super::scene::{Record, Scene};
use super::tables::{AppTable, LayerOwner, Line, Tables};
use super::truth::Truth;
use super::{AppId, Decision, Inputs, LadderSet, Outcome, OwnerId, ReasonId, ReasonList, RestrictionSet, RuleRef};
use crate::model::{Effect, Mode};

/// What is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What is in report mode is passed over as if absent.
    Enforced,
    /// An app in report mode: enforced guardrails alone may object.
    Guardrails,
    /// As if nothing were in report mode.
    Everything,
}

impl Scope {
    pub fn passes_over(self, mode: Mode) -> bool {
        mode == Mode::Report && self != Self::Everything
    }
}

/// The strictest outcome so far. Of equally strict ones the first added decides: guardrails come before ladders before layers before rules.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    pub effect: Effect,
    pub restrictions: RestrictionSet,
    pub rule: RuleRef,
    pub owner: OwnerId,
    begun: bool,
}

impl Tally {
    pub const fn new(owner: OwnerId) -> Self {
        Self { effect: Effect::Forward, restrictions: RestrictionSet::EMPTY, rule: RuleRef::None, owner, begun: false }
    }

    fn add(&mut self, effect: Effect, with: RestrictionSet, rule: RuleRef, owner: OwnerId) {
        if !self.begun || effect > self.effect {
            (self.effect, self.rule, self.owner, self.begun) = (effect, rule, owner, true);
        }
        if effect == Effect::Restrict {
            self.restrictions = self.restrictions.union(with);
        }
    }

    /// Restrictions are those of a restricted request alone.
    fn end(mut self) -> Self {
        if self.effect != Effect::Restrict {
            self.restrictions = RestrictionSet::EMPTY;
        }
        self
    }

    fn acts_like(&self, other: &Self) -> bool {
        (self.effect, self.restrictions) == (other.effect, other.restrictions)
    }

    /// The reason where nothing needs mending.
    pub const fn plain_reason(&self) -> ReasonId {
        match self.rule {
            RuleRef::None => ReasonBook::NO_RULE,
            RuleRef::Guardrail(_) | RuleRef::Rule(_) | RuleRef::Layer(_) | RuleRef::Ladder(_) | RuleRef::Exception(_) => {
                ReasonBook::RULE_MATCHED
            }
        }
    }

    const fn outcome(&self, reasons: ReasonList) -> Outcome {
        Outcome { effect: self.effect, restrictions: self.restrictions, rule: self.rule, owner: self.owner, reasons }
    }
}

pub fn decide(tables: &Tables, id: AppId, inputs: &Inputs<'_>) -> Decision {
    let scene = Scene::new(tables, id, inputs);
    let Some(app) = tables.apps.get(id.index()) else { return decision(&scene, blocked(ReasonBook::NO_RULE)) };
    let mut made = match scene.relief.glass {
        Some(exception) => broken_glass(&scene, app, exception),
        None => by_rules(&scene, app),
    };
    if made.done.effect != Effect::Block {
        made.notices = scene.notices(app);
    }
    made.valid_until = scene.valid_until();
    made
}

/// An outcome that stands whatever is in report mode.
fn decision(scene: &Scene<'_>, done: Outcome) -> Decision {
    Decision {
        app: scene.app,
        class: scene.class_now(),
        tier: scene.tier_now(),
        done,
        would: done,
        mode: Mode::Enforce,
        merged: scene.tables.restrictions.merged(done.restrictions),
        notices: LadderSet::default(),
        exceptions: scene.exceptions(),
        unavailable: false,
        valid_until: scene.valid_until(),
    }
}

/// An id of another policy means nothing here, and opens nothing.
fn blocked(reason: ReasonId) -> Outcome {
    let reasons = ReasonList::new(reason);
    Outcome { effect: Effect::Block, restrictions: RestrictionSet::EMPTY, rule: RuleRef::None, owner: OwnerId(0), reasons }
}

fn broken_glass(scene: &Scene<'_>, app: &AppTable, exception: u32) -> Decision {
    let mut tally = Tally::new(scene.tables.keeper(app));
    tally.rule = RuleRef::Exception(exception);
    let mut made = decision(scene, tally.outcome(ReasonList::new(scene.tables.reasons.exception(exception))));
    made.exceptions.push(exception);
    made
}

fn by_rules(scene: &Scene<'_>, app: &AppTable) -> Decision {
    let reporting = app.mode == Mode::Report;
    let scope = if reporting { Scope::Guardrails } else { Scope::Enforced };
    let acts = tally(scene, app, scope);
    let all = (app.reports || reporting || scene.ladder_reports(app)).then(|| tally(scene, app, Scope::Everything));
    // What is read from here on tells why, and changes nothing.
    let exceptions = scene.exceptions();
    let hoped = hopeful(scene, app, scope, &acts);
    let mut made = decision(scene, acts.outcome(scene.reasons(app, scope, &acts, hoped)));
    made.exceptions = exceptions;
    made.unavailable = hoped && acts.effect == Effect::Block && matches!(scene.record, Record::Unreadable);
    let Some(all) = all else { return made };
    let flips = !all.acts_like(&acts);
    // An enforced guardrail that objects is enforced, whatever mode its app is in.
    let only_reports = reporting && acts.effect == Effect::Forward;
    if flips || only_reports {
        made.mode = Mode::Report;
        let hoped = hopeful(scene, app, Scope::Everything, &all);
        made.would = all.outcome(scene.reasons(app, Scope::Everything, &all, hoped));
    }
    if only_reports && flips {
        made.done.reasons = ReasonList::new(ReasonBook::APP_REPORT);
    } else if only_reports {
        made.done = made.would;
    }
    made
}

pub fn tally(scene: &Scene<'_>, app: &AppTable, scope: Scope) -> Tally {
    let tables = scene.tables;
    let mut tally = Tally::new(app.owner);
    for index in &app.guardrails {
        let Some(guardrail) = tables.guardrails.get(*index as usize) else { continue };
        if !scope.passes_over(guardrail.mode) && scene.truth(&guardrail.when) != Truth::No {
            tally.add(guardrail.then, guardrail.with, RuleRef::Guardrail(*index), tables.keeper(app));
        }
    }
    for (index, ladder) in tables.ladders_of(app) {
        if let Some(Demand { effect: Some(effect), mode, .. }) = scene.demand(ladder)
            && !scope.passes_over(mode)
        {
            tally.add(effect, ladder.with, RuleRef::Ladder(index), tables.keeper(app));
        }
    }
    if scope == Scope::Guardrails {
        return tally.end();
    }
    let mut replaced = false;
    for group in &app.owners {
        // What matches none of an owner's layer rules is left to the app's own.
        replaced |= owners_rules(scene, app, group, scope, &mut tally) == Ending::Replaces;
    }
    if !replaced {
        own_rules(scene, app, scope, &mut tally);
    }
    tally.end()
}

pub fn owners_rules(scene: &Scene<'_>, app: &AppTable, group: &LayerOwner, scope: Scope, tally: &mut Tally) -> Ending {
    let lines = group.lines.iter().filter_map(|place| Some((RuleRef::Layer(*place), scene.tables.layer(app, *place)?)));
    first_match(scene, scope, tally, (group.owner, &group.grants), lines)
}

pub fn own_rules(scene: &Scene<'_>, app: &AppTable, scope: Scope, tally: &mut Tally) {
    let rules = (0..).zip(&app.rules).map(|(index, rule)| (RuleRef::Rule(index), rule));
    if first_match(scene, scope, tally, (app.owner, &[]), rules) == Ending::None {
        tally.add(Effect::Block, RestrictionSet::EMPTY, RuleRef::None, app.owner);
    }
}

/// How the search for the first match ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    None,
    Matched,
    /// It matched within a grant: the app's own rules are not asked.
    Replaces,
}

/// The first match ends it; an undecided rule adds its outcome and evaluation goes on. With the owner and its grants.
fn first_match<'a>(
    scene: &Scene<'_>,
    scope: Scope,
    tally: &mut Tally,
    (owner, grants): (OwnerId, &[Grant]),
    lines: impl Iterator<Item = (RuleRef, &'a Line)>,
) -> Ending {
    // Were an undecided rule to match, it would end the search and might not replace anything: then nothing behind it does either.
    let mut granted = !grants.is_empty();
    for (rule, line) in lines {
        if scope.passes_over(line.mode) {
            continue;
        }
        let truth = scene.truth(&line.when);
        if truth != Truth::No {
            tally.add(line.then, line.with, rule, owner);
            granted = granted && (line.then == Effect::Block || scene.granted(grants, line.then));
        }
        if truth == Truth::Yes {
            return if granted && line.then != Effect::Block { Ending::Replaces } else { Ending::Matched };
        }
    }
    Ending::None
}

impl Scene<'_> {
    /// Ladders at the step `warn` that hold.
    fn notices(&self, app: &AppTable) -> LadderSet {
        let warns = |ladder| self.demand(ladder).is_some_and(|demand| demand.step == Step::Warn);
        let warning = self.tables.ladders_of(app).filter(|(_, ladder)| warns(ladder));
        warning.fold(LadderSet::default(), |set, (index, _)| set.with(index))
    }

    /// Whether a ladder would do something that it only reports.
    fn ladder_reports(&self, app: &AppTable) -> bool {
        let demands = self.tables.ladders_of(app).filter_map(|(_, ladder)| self.demand(ladder));
        demands.into_iter().any(|demand| demand.mode == Mode::Report && demand.effect.is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::draft::{Compare, Condition, Draft, Guardrail, Layer, Rule, Test};
    use super::super::testing::*;
    use super::super::{Merged, MethodSet, Policy};
    use super::*;
    use crate::model::{FactState, Mode, NoRecord};

    fn capping(name: &str, when: Condition, with: u8) -> Guardrail {
        Guardrail { then: Effect::Restrict, with: vec![super::super::RestrictionId(with)], ..guardrail(name, when) }
    }

    /// Effect, restrictions as ids, deciding rule.
    fn done(policy: &Policy, visit: &Visit) -> (Effect, Vec<u8>, RuleRef) {
        let done = visit.decide(policy).done;
        (done.effect, done.restrictions.iter().map(|id| id.0).collect(), done.rule)
    }

    /// The team is missing from this record, so that comparing with it is undecided.
    fn teamless() -> Visit {
        Visit::of(without(|device| device.team = None))
    }

    #[test]
    fn the_first_match_wins_among_an_apps_rules() {
        let policy = policy(vec![restrict(method(&["GET"]), &[READ_ONLY]), forward(always()), block(always())]);
        assert_eq!(done(&policy, &Visit::of(laptop())), (Effect::Restrict, vec![READ_ONLY], RuleRef::Rule(0)));
        assert_eq!(done(&policy, &Visit::of(laptop()).to("POST", "/")), (Effect::Forward, vec![], RuleRef::Rule(1)));
    }

    #[test]
    fn what_matches_none_is_blocked() {
        let policy = policy(vec![forward(method(&["GET"]))]);
        let decision = Visit::of(laptop()).to("POST", "/").decide(&policy);
        assert_eq!((decision.done.effect, decision.done.rule, decision.mode), (Effect::Block, RuleRef::None, Mode::Enforce));
        assert_eq!(policy.rule_name(AppId(0), decision.done.rule), "-");
    }

    #[test]
    fn the_strictest_outcome_stands_block_over_restrict_over_forward() {
        let forwards = vec![forward(always())];
        let lost = |then: fn(&str, Condition) -> Guardrail| vec![then("g", state(&["approved"]))];
        let blocked = guarded(lost(guardrail), forwards.clone());
        assert_eq!(done(&blocked, &Visit::of(laptop())), (Effect::Block, vec![], RuleRef::Guardrail(0)));
        let capped = guarded(lost(|name, when| capping(name, when, READ_ONLY)), forwards);
        assert_eq!(done(&capped, &Visit::of(laptop())), (Effect::Restrict, vec![READ_ONLY], RuleRef::Guardrail(0)));
        let stricter = guarded(lost(|name, when| capping(name, when, READ_ONLY)), vec![block(always())]);
        assert_eq!(done(&stricter, &Visit::of(laptop())), (Effect::Block, vec![], RuleRef::Rule(0)));
    }

    #[test]
    fn of_equally_strict_outcomes_a_guardrail_decides_before_a_layer_before_a_rule() {
        let all = Draft {
            guardrails: vec![guardrail("a", method(&["PUT"])), guardrail("b", method(&["POST"])), guardrail("c", always())],
            layers: vec![layer(1, block(always()))],
            ..draft(vec![block(always())])
        };
        let rule = |draft: Draft| done(&Policy::compile(draft), &Visit::of(laptop()).to("POST", "/")).2;
        assert_eq!(rule(all.clone()), RuleRef::Guardrail(1));
        assert_eq!(rule(Draft { guardrails: vec![], ..all.clone() }), RuleRef::Layer(0));
        assert_eq!(rule(Draft { guardrails: vec![], layers: vec![], ..all }), RuleRef::Rule(0));
    }

    #[test]
    fn a_guardrail_holds_for_the_apps_it_names() {
        let mut draft = draft(vec![forward(always())]);
        draft.apps.push(app("payroll", vec![forward(always())]));
        draft.guardrails =
            vec![Guardrail { apps: Some(vec![AppId(1)]), ..guardrail("payroll-floor", always()) }, guardrail("gone", state(&["lost"]))];
        let policy = Policy::compile(draft);
        let visit = Visit::of(laptop());
        assert_eq!(policy.decide(AppId(0), &visit.inputs()).done.effect, Effect::Forward);
        let payroll = policy.decide(AppId(1), &visit.inputs()).done;
        assert_eq!((payroll.effect, payroll.rule), (Effect::Block, RuleRef::Guardrail(0)));
        assert_eq!(policy.rule_name(AppId(1), payroll.rule), "payroll-floor");
    }

    #[test]
    fn undecided_counts_as_true_in_guardrails() {
        let rules = || vec![forward(always())];
        assert_eq!(done(&guarded(vec![guardrail("g", team("guests"))], rules()), &teamless()).0, Effect::Block);
        assert_eq!(done(&guarded(vec![guardrail("g", not(team("finance")))], rules()), &teamless()).0, Effect::Block);
        assert_eq!(done(&guarded(vec![guardrail("g", team("guests"))], rules()), &Visit::of(laptop())).0, Effect::Forward);
    }

    #[test]
    fn an_undecided_rule_adds_its_outcome_to_the_strictest_wins_comparison_and_evaluation_goes_on() {
        for (rules, expected) in [
            // It adds a block, whatever forwards after it.
            (vec![block(team("guests")), forward(always())], (Effect::Block, vec![], RuleRef::Rule(0))),
            // It opens nothing.
            (vec![forward(team("finance")), block(always())], (Effect::Block, vec![], RuleRef::Rule(1))),
            (vec![forward(team("finance"))], (Effect::Block, vec![], RuleRef::None)),
            // Restrictions of all that is added merge.
            (vec![restrict(team("guests"), &[READ_ONLY]), forward(always())], (Effect::Restrict, vec![READ_ONLY], RuleRef::Rule(0))),
            (
                vec![restrict(team("guests"), &[READ_ONLY]), restrict(always(), &[SLOW]), block(always())],
                (Effect::Restrict, vec![READ_ONLY, SLOW], RuleRef::Rule(0)),
            ),
        ] {
            assert_eq!(done(&policy(rules.clone()), &teamless()), expected, "{rules:?}");
        }
    }

    #[test]
    fn outside_a_grant_an_owners_rules_and_the_apps_are_both_evaluated_and_the_stricter_stands() {
        let stricter = layered(vec![layer(1, block(method(&["POST"])))], vec![forward(always())]);
        assert_eq!(done(&stricter, &Visit::of(laptop()).to("POST", "/")).2, RuleRef::Layer(0));
        assert_eq!(done(&stricter, &Visit::of(laptop())).0, Effect::Forward, "what matches none of them is left to the app's own rules");
        let looser = layered(vec![layer(1, forward(always()))], vec![block(always())]);
        assert_eq!(done(&looser, &Visit::of(laptop())), (Effect::Block, vec![], RuleRef::Rule(0)));
        let owner = Visit::of(laptop()).to("POST", "/").decide(&stricter).done.owner;
        assert_eq!(stricter.owner(owner).name, "finance");
    }

    #[test]
    fn the_first_match_wins_among_the_layer_rules_of_one_owner_that_concern_the_app() {
        let other = Layer { apps: vec![AppId(7)], ..layer(1, block(always())) };
        let layers =
            vec![other, layer(1, restrict(always(), &[SLOW])), layer(2, restrict(always(), &[PRIVATE])), layer(1, block(always()))];
        let policy = layered(layers, vec![forward(always())]);
        let (effect, with, rule) = done(&policy, &Visit::of(laptop()));
        assert_eq!((effect, with, rule), (Effect::Restrict, vec![PRIVATE, SLOW], RuleRef::Layer(0)));
        assert_eq!(policy.rule_name(AppId(0), RuleRef::Layer(0)), "restrict");
    }

    #[test]
    fn restrictions_merge_to_the_tighter_of_each() {
        let policy =
            guarded(vec![capping("a", always(), SMALL), capping("b", always(), PRIVATE)], vec![restrict(always(), &[READ_ONLY, SLOW])]);
        let decision = Visit::of(laptop()).decide(&policy);
        assert_eq!(decision.done.restrictions.iter().map(|id| id.0).collect::<Vec<_>>(), [READ_ONLY, PRIVATE, SMALL, SLOW]);
        let merged = decision.merged;
        assert_eq!((merged.no_store, merged.max_body), (true, Some(1 << 10)), "sizes take the smaller");
        assert_eq!(policy.method_names(merged.methods.unwrap_or(MethodSet(0))), ["GET"], "methods intersect");
        assert!(policy.allows_method(&merged, "GET"));
        for refused in ["POST", "HEAD", "get", "PROPFIND"] {
            assert!(!policy.allows_method(&merged, refused), "{refused}");
        }
        assert!(policy.allows_method(&Merged::default(), "PROPFIND"));
    }

    #[test]
    fn restrictions_are_those_of_a_restricted_request_alone() {
        let blocked = Visit::of(laptop()).decide(&guarded(vec![capping("a", always(), SMALL)], vec![block(always())]));
        assert_eq!((blocked.done.restrictions, blocked.merged), (RestrictionSet::EMPTY, Merged::default()));
    }

    #[test]
    fn a_rule_in_report_mode_is_recorded_and_then_passed_over_as_if_absent() {
        let decision = Visit::of(laptop()).decide(&policy(vec![report(block(always())), forward(always())]));
        assert_eq!((decision.done.effect, decision.done.rule), (Effect::Forward, RuleRef::Rule(1)));
        assert_eq!((decision.would.effect, decision.would.rule, decision.mode), (Effect::Block, RuleRef::Rule(0), Mode::Report));
        let looser = Visit::of(laptop()).decide(&policy(vec![report(forward(always())), block(always())]));
        assert_eq!((looser.done.effect, looser.would.effect, looser.mode), (Effect::Block, Effect::Forward, Mode::Report));
    }

    #[test]
    fn a_guardrail_or_layer_in_report_mode_is_recorded_and_then_passed_over_as_if_absent() {
        let watching = Guardrail { mode: Mode::Report, ..guardrail("g", always()) };
        let decision = Visit::of(laptop()).decide(&guarded(vec![watching], vec![forward(always())]));
        assert_eq!((decision.done.effect, decision.would.effect, decision.mode), (Effect::Forward, Effect::Block, Mode::Report));
        let decision = Visit::of(laptop()).decide(&layered(vec![layer(1, report(block(always())))], vec![forward(always())]));
        assert_eq!((decision.done.effect, decision.would.effect, decision.mode), (Effect::Forward, Effect::Block, Mode::Report));
    }

    #[test]
    fn what_is_in_report_mode_and_changes_nothing_leaves_the_decision_enforced() {
        let decision = Visit::of(laptop()).decide(&policy(vec![report(block(never())), report(forward(always())), forward(always())]));
        assert_eq!((decision.mode, decision.would), (Mode::Enforce, decision.done));
        assert_eq!(decision.done.rule, RuleRef::Rule(2));
    }

    #[test]
    fn an_app_in_report_mode_forwards_unless_an_enforced_guardrail_objects() {
        let policy = reporting(draft(vec![block(always())]));
        let decision = Visit::of(laptop()).decide(&policy);
        assert_eq!((decision.done.effect, decision.done.rule), (Effect::Forward, RuleRef::None));
        assert_eq!(reasons(&policy, &decision.done), ["app.report"]);
        assert_eq!((decision.would.effect, decision.would.rule, decision.mode), (Effect::Block, RuleRef::Rule(0), Mode::Report));
        assert_eq!(reasons(&policy, &decision.would), ["rule.matched"]);

        let watching = Guardrail { mode: Mode::Report, ..guardrail("watching", always()) };
        let layers = vec![layer(1, block(always()))];
        let passed = reporting(Draft { guardrails: vec![watching.clone()], layers, ..draft(vec![forward(always())]) });
        assert_eq!(Visit::of(laptop()).decide(&passed).done.effect, Effect::Forward);

        let objects = vec![watching, guardrail("gone", state(&["lost"]))];
        let objects = reporting(Draft { guardrails: objects, ..draft(vec![forward(always())]) });
        let lost = Visit::of(without(|device| device.state = crate::model::DeviceState::Lost)).decide(&objects);
        assert_eq!((lost.done.effect, lost.done.rule), (Effect::Block, RuleRef::Guardrail(1)));
        assert_eq!(reasons(&objects, &lost.done), ["device.state.lost"]);
        assert_eq!((lost.would, lost.mode), (lost.done, Mode::Enforce));
    }

    #[test]
    fn in_an_app_in_report_mode_what_a_guardrail_restricts_is_restricted_and_what_rules_would_do_besides_is_recorded() {
        let draft = Draft { guardrails: vec![capping("soft", always(), SLOW)], ..draft(vec![block(method(&["POST"])), forward(always())]) };
        let policy = reporting(draft);
        let read = Visit::of(laptop()).decide(&policy);
        assert_eq!(
            (read.done.effect, read.done.rule, read.would, read.mode),
            (Effect::Restrict, RuleRef::Guardrail(0), read.done, Mode::Enforce)
        );
        let write = Visit::of(laptop()).to("POST", "/").decide(&policy);
        assert_eq!((write.done.effect, write.done.rule), (Effect::Restrict, RuleRef::Guardrail(0)));
        assert_eq!((write.would.effect, write.would.rule, write.mode), (Effect::Block, RuleRef::Rule(0), Mode::Report));
        assert_eq!(write.merged, read.merged);
    }

    #[test]
    fn a_rule_that_merely_adds_restrictions_flips_nothing_but_those() {
        let policy = policy(vec![report(restrict(always(), &[READ_ONLY, SLOW])), restrict(always(), &[READ_ONLY])]);
        let decision = Visit::of(laptop()).decide(&policy);
        assert_eq!((decision.done.effect, decision.would.effect, decision.mode), (Effect::Restrict, Effect::Restrict, Mode::Report));
        assert_ne!(decision.done.restrictions, decision.would.restrictions);
    }

    #[test]
    fn an_app_in_report_mode_whose_rules_forward_says_which_rule() {
        let policy = reporting(draft(vec![forward(always())]));
        let decision = Visit::of(laptop()).decide(&policy);
        assert_eq!((decision.done.rule, decision.mode, decision.would), (RuleRef::Rule(0), Mode::Report, decision.done));
        assert_eq!(reasons(&policy, &decision.done), ["rule.matched"]);
    }

    #[test]
    fn a_guardrail_belongs_to_security_where_there_is_such_an_owner_else_to_the_apps() {
        let owner = |draft: Draft| {
            let policy = Policy::compile(Draft { guardrails: vec![guardrail("g", always())], ..draft });
            policy.owner(Visit::of(laptop()).decide(&policy).done.owner).name.clone()
        };
        assert_eq!(owner(draft(vec![])), "security");
        let mut nobody = draft(vec![]);
        nobody.owners.truncate(2);
        assert_eq!(owner(nobody), "knowledge");
    }

    #[test]
    fn within_serve_stale_facts_keep_their_state_past_it_they_are_unknown_and_ownership_and_state_keep_their_last_value() {
        let facts = policy(vec![forward(is("disk_encrypted", FactState::Ok)), restrict(class(CORPORATE), &[READ_ONLY])]);
        let stale = {
            let mut visit = Visit::of(laptop());
            if let crate::model::Standing::Known { freshness, .. } = &mut visit.standing {
                *freshness = crate::model::Freshness::Stale;
            }
            visit
        };
        assert_eq!(stale.decide(&facts).done.effect, Effect::Forward);
        let too_old = Visit::too_old(laptop()).decide(&facts);
        assert_eq!((too_old.done.effect, too_old.class, too_old.tier.0), (Effect::Restrict, CORPORATE, KNOWN));
        assert_eq!(reasons(&facts, &too_old.done), ["posture.disk_encrypted.unknown", "store.unavailable"]);
        let missing = Visit::too_old(without(|device| drop_fact(device, "disk_encrypted"))).decide(&facts);
        assert_eq!(reasons(&facts, &missing.done), ["posture.disk_encrypted.unknown"], "the store is not to blame for this one");
    }

    #[test]
    fn a_decision_ends_with_the_earliest_fact_expiry_age_threshold_or_certificate_end_that_it_read() {
        let until = |rules: Vec<Rule>, visit: &Visit| visit.decide(&policy(rules)).valid_until;
        let mut bare = draft(vec![]);
        bare.tiers.truncate(1);
        let without_tiers = |rules: Vec<Rule>| Policy::compile(Draft { apps: vec![app("wiki", rules)], ..bare.clone() });
        let certificate_end = Some(at(1 << 30));
        let visit = Visit::of(laptop());
        assert_eq!(visit.decide(&without_tiers(vec![forward(always())])).valid_until, certificate_end);
        assert_eq!(until(vec![forward(always())], &visit), Some(at(24 * 3600)), "the tier read facts");
        let fact = vec![forward(is("disk_encrypted", FactState::Ok))];
        assert_eq!(visit.decide(&without_tiers(fact.clone())).valid_until, Some(at(24 * 3600)));
        assert_eq!(Visit::blind(NoRecord::NoProof).decide(&without_tiers(fact)).valid_until, None);
        let nanosecond = jiff::SignedDuration::from_nanos(1);
        for (compare, now, end) in [
            (Compare::Less, 3600, at(7200)),
            (Compare::AtMost, 3600, at(7200)),
            (Compare::AtMost, 7200, at(7200) + nanosecond),
            (Compare::More, 7200, at(7200) + nanosecond),
        ] {
            let young = Condition::Test(Test::PostureAge(vec![(compare, Duration::from_secs(7200))]));
            let decision = Visit::of(laptop()).at(now).decide(&without_tiers(vec![forward(young), block(always())]));
            assert_eq!(decision.valid_until, Some(end), "{compare:?} at {now}");
        }
    }

    #[test]
    fn an_app_of_another_policy_is_blocked() {
        let policy = policy(vec![forward(always())]);
        assert_eq!(policy.decide(AppId(9), &Visit::of(laptop()).inputs()).done.effect, Effect::Block);
    }
}
