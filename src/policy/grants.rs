//! Leave for an owner's file to replace the app's own rules.

use std::collections::HashMap;

use ahash::RandomState;

use super::condition::{Compiler, Cond, Place};
use super::draft::{Compare, Condition, Draft, Test};
use super::scene::Scene;
use super::truth::Truth;
use super::{AppId, OwnerId};
use crate::model::Effect;

#[derive(Clone, Debug)]
pub struct Grant {
    /// That the device's tier is high enough.
    pub tier: Cond,
    pub may: Box<[Effect]>,
}

/// Each owner's for each app.
pub type Grants = HashMap<(OwnerId, AppId), Vec<Grant>, RandomState>;

pub fn compile(draft: &Draft, names: &mut Compiler) -> Grants {
    let mut grants = Grants::default();
    for delegation in &draft.delegations {
        let tier = names.condition(&Condition::Test(Test::Tier(vec![(Compare::AtLeast, delegation.min_tier)])), Place::Rule);
        for app in &delegation.apps {
            let grant = Grant { tier: tier.clone(), may: delegation.may.as_slice().into() };
            grants.entry((delegation.owner, *app)).or_default().push(grant);
        }
    }
    grants
}

impl Scene<'_> {
    /// Whether any of the grants lets this device have the effect.
    pub fn granted(&self, grants: &[Grant], effect: Effect) -> bool {
        grants.iter().any(|grant| grant.may.contains(&effect) && self.truth(&grant.tier) == Truth::Yes)
    }

    /// Whether any grant surely, and perhaps, lets a device have the effect, whatever its record.
    pub fn grant_span(&self, grants: &[Grant], effect: Effect) -> (bool, bool) {
        let spans = grants.iter().filter(|grant| grant.may.contains(&effect)).map(|grant| self.span(&grant.tier));
        spans.fold((false, false), |(surely, perhaps), (least, most)| (surely || least == Truth::Yes, perhaps || most == Truth::Yes))
    }
}

#[cfg(test)]
mod tests {
    use super::super::draft::{Delegation, DeviceField, Guardrail, Layer, Rule};
    use super::super::testing::*;
    use super::super::{Policy, RuleRef, TierId};
    use super::*;
    use crate::model::{FactState, NoRecord};

    const FORWARD: &[Effect] = &[Effect::Forward];
    const RESTRICT: &[Effect] = &[Effect::Restrict];

    fn grant(min_tier: u8, may: &[Effect]) -> Delegation {
        Delegation { owner: OwnerId(1), apps: vec![AppId(0)], min_tier: TierId(min_tier), may: may.to_vec() }
    }

    /// The app's own rules block; finance's file has `rules`.
    fn granting(delegations: Vec<Delegation>, rules: Vec<Rule>) -> Draft {
        let layers = rules.into_iter().map(|rule| layer(1, rule)).collect();
        Draft { delegations, layers, ..draft(vec![block(always())]) }
    }

    fn decided(draft: Draft, visit: &Visit) -> (Effect, RuleRef) {
        let done = visit.decide(&Policy::compile(draft)).done;
        (done.effect, done.rule)
    }

    fn why(draft: Draft, visit: &Visit) -> Vec<String> {
        let policy = Policy::compile(draft);
        reasons(&policy, &visit.decide(&policy).done)
    }

    fn unlocked() -> Visit {
        Visit::of(without(|device| set_fact(device, "screen_lock", false)))
    }

    #[test]
    fn within_a_grant_an_owners_rule_replaces_the_apps_own() {
        let draft = granting(vec![grant(HEALTHY, FORWARD)], vec![forward(always())]);
        assert_eq!(decided(draft.clone(), &Visit::of(laptop())), (Effect::Forward, RuleRef::Layer(0)));
        assert_eq!(decided(draft, &unlocked()), (Effect::Block, RuleRef::Rule(0)), "the tier is below the grant's");
    }

    #[test]
    fn a_grant_is_for_its_effects_its_apps_and_its_owner() {
        let visit = Visit::of(laptop());
        let restricts = vec![restrict(always(), &[READ_ONLY])];
        assert_eq!(decided(granting(vec![grant(0, FORWARD)], restricts.clone()), &visit), (Effect::Block, RuleRef::Rule(0)));
        assert_eq!(decided(granting(vec![grant(0, RESTRICT)], restricts.clone()), &visit), (Effect::Restrict, RuleRef::Layer(0)));
        for other in [Delegation { apps: vec![AppId(1)], ..grant(0, RESTRICT) }, Delegation { owner: OwnerId(2), ..grant(0, RESTRICT) }] {
            assert_eq!(decided(granting(vec![other], restricts.clone()), &visit), (Effect::Block, RuleRef::Rule(0)));
        }
    }

    #[test]
    fn of_several_grants_any_that_fits_will_do() {
        let grants = vec![grant(TRUSTED, &[Effect::Forward, Effect::Restrict]), grant(KNOWN, RESTRICT)];
        let restricts = vec![restrict(always(), &[READ_ONLY])];
        assert_eq!(decided(granting(grants.clone(), restricts), &unlocked()), (Effect::Restrict, RuleRef::Layer(0)));
        assert_eq!(decided(granting(grants, vec![forward(always())]), &unlocked()), (Effect::Block, RuleRef::Rule(0)));
    }

    #[test]
    fn to_block_is_always_free() {
        let draft = Draft { layers: vec![layer(1, block(always()))], ..draft(vec![forward(always())]) };
        assert_eq!(decided(draft.clone(), &Visit::of(laptop())), (Effect::Block, RuleRef::Layer(0)));
        let draft = Draft { delegations: vec![grant(TRUSTED, FORWARD)], ..draft };
        assert_eq!(decided(draft, &unlocked()), (Effect::Block, RuleRef::Layer(0)));
    }

    #[test]
    fn what_matches_none_of_the_owners_rules_is_left_to_the_apps_own() {
        let draft = granting(vec![grant(KNOWN, FORWARD)], vec![forward(method(&["GET"]))]);
        assert_eq!(decided(draft.clone(), &Visit::of(laptop())).0, Effect::Forward);
        assert_eq!(decided(draft, &Visit::of(laptop()).to("POST", "/")), (Effect::Block, RuleRef::Rule(0)));
    }

    #[test]
    fn guardrails_and_the_rules_of_other_owners_hold_within_a_grant() {
        let open = || granting(vec![grant(KNOWN, FORWARD)], vec![forward(always())]);
        let guarded = Draft { guardrails: vec![guardrail("g", method(&["POST"]))], ..open() };
        assert_eq!(decided(guarded, &Visit::of(laptop()).to("POST", "/")), (Effect::Block, RuleRef::Guardrail(0)));
        let capped = Guardrail { then: Effect::Restrict, with: vec![super::super::RestrictionId(SLOW)], ..guardrail("g", always()) };
        assert_eq!(decided(Draft { guardrails: vec![capped], ..open() }, &Visit::of(laptop())), (Effect::Restrict, RuleRef::Guardrail(0)));
        let mut other = open();
        other.layers.push(Layer { owner: OwnerId(2), ..layer(2, block(path("/x"))) });
        assert_eq!(decided(other.clone(), &Visit::of(laptop())).0, Effect::Forward);
        assert_eq!(decided(other, &Visit::of(laptop()).to("GET", "/x")), (Effect::Block, RuleRef::Layer(1)));
    }

    /// A record that lacks a field must not open what every value of that field would have left closed.
    #[test]
    fn an_undecided_rule_without_a_grant_keeps_those_behind_it_from_replacing_anything() {
        let team = Condition::Test(Test::Device(DeviceField::Team, text(&["guests"])));
        let draft = granting(vec![grant(0, RESTRICT)], vec![forward(team), restrict(always(), &[READ_ONLY])]);
        let teamless = Visit::of(without(|device| device.team = None));
        assert_eq!(decided(draft.clone(), &teamless), (Effect::Block, RuleRef::Rule(0)));
        let granted = Draft { delegations: vec![grant(0, &[Effect::Forward, Effect::Restrict])], ..draft.clone() };
        assert_eq!(decided(granted, &teamless), (Effect::Restrict, RuleRef::Layer(1)));
        assert_eq!(decided(draft, &Visit::of(laptop())), (Effect::Restrict, RuleRef::Layer(1)), "this one is of another team");
    }

    #[test]
    fn an_owners_rule_in_report_mode_replaces_nothing_and_is_recorded_as_replacing() {
        let policy = Policy::compile(granting(vec![grant(KNOWN, FORWARD)], vec![report(forward(always()))]));
        let decision = Visit::of(laptop()).decide(&policy);
        assert_eq!((decision.done.effect, decision.would.effect), (Effect::Block, Effect::Forward));
        assert_eq!((decision.would.rule, decision.mode), (RuleRef::Layer(0), crate::model::Mode::Report));
    }

    #[test]
    fn what_a_rule_of_an_owners_file_lacks_is_the_reason_where_it_is_the_nearest_way_to_a_better_effect() {
        let draft = granting(vec![grant(HEALTHY, FORWARD)], vec![forward(is("disk_encrypted", FactState::Ok))]);
        assert_eq!(why(draft.clone(), &unlocked()), ["posture.screen_lock.fail"], "the grant's tier");
        let unencrypted = Visit::of(without(|device| set_fact(device, "disk_encrypted", false)));
        assert_eq!(why(draft.clone(), &unencrypted), ["posture.disk_encrypted.fail"]);
        let both = Visit::of(without(|device| ["disk_encrypted", "screen_lock"].iter().for_each(|fact| set_fact(device, fact, false))));
        assert_eq!(why(draft.clone(), &both), ["posture.disk_encrypted.fail", "posture.screen_lock.fail"]);
        let without_leave = Draft { delegations: vec![], ..draft.clone() };
        assert_eq!(why(without_leave, &unencrypted), ["rule.matched"], "it would not help");
        let behind = Draft { apps: vec![app("wiki", vec![forward(is("mdm_compliant", FactState::Unknown)), block(always())])], ..draft };
        assert_eq!(why(behind, &unencrypted), ["posture.mdm_compliant.ok"], "of equally near ones the app's own comes first");
    }

    #[test]
    fn a_restricting_rule_that_replaced_the_apps_own_is_left_by_one_that_may_replace_them_too() {
        let layers = || vec![forward(is("disk_encrypted", FactState::Ok)), restrict(always(), &[READ_ONLY])];
        let draft = granting(vec![grant(HEALTHY, FORWARD), grant(KNOWN, RESTRICT)], layers());
        let both = Visit::of(without(|device| ["disk_encrypted", "screen_lock"].iter().for_each(|fact| set_fact(device, fact, false))));
        assert_eq!(decided(draft.clone(), &both), (Effect::Restrict, RuleRef::Layer(1)));
        assert_eq!(why(draft.clone(), &both), ["posture.disk_encrypted.fail", "posture.screen_lock.fail"]);
        // Were the app's own rules better, not to match the owner's would do.
        let kinder = Draft { apps: vec![app("wiki", vec![forward(always())])], ..draft };
        assert_eq!(why(kinder, &both), ["posture.disk_encrypted.fail"]);
    }

    #[test]
    fn a_request_that_only_a_grant_could_have_opened_is_unavailable_while_nobody_can_look() {
        let approved = || forward(state(&["approved"]));
        let open = |delegations, rules| Visit::unreadable().decide(&Policy::compile(granting(delegations, rules))).unavailable;
        assert!(open(vec![grant(KNOWN, FORWARD)], vec![approved()]));
        assert!(!open(vec![], vec![approved()]), "the app's own rules block whatever the record says");
        assert!(!open(vec![grant(KNOWN, RESTRICT)], vec![approved()]));
        assert!(!open(vec![grant(KNOWN, FORWARD)], vec![block(path("/*")), approved()]));
        let blind = granting(vec![grant(KNOWN, FORWARD)], vec![approved()]);
        assert_eq!(why(blind, &Visit::blind(NoRecord::NoProof)), ["device.unknown"]);
    }

    #[test]
    fn an_owners_rule_that_surely_replaces_the_apps_own_leaves_no_hope_for_those() {
        let mut draft = granting(vec![grant(0, RESTRICT)], vec![restrict(path("/x"), &[READ_ONLY])]);
        draft.apps[0].rules = vec![forward(state(&["approved"]))];
        assert_eq!(why(draft.clone(), &Visit::unreadable().to("GET", "/x")), ["rule.matched"]);
        draft.delegations = vec![];
        assert_eq!(why(draft, &Visit::unreadable().to("GET", "/x")), ["store.unavailable"]);
    }

    #[test]
    fn an_explanation_tells_which_rule_replaced_the_apps_own_and_by_what_leave() {
        let policy = Policy::compile(granting(vec![grant(HEALTHY, FORWARD)], vec![forward(always())]));
        let visit = Visit::of(laptop());
        let inputs = visit.inputs();
        let told = policy.explain(AppId(0), &inputs);
        let words = "rule forward of finance replaces them: it may forward for devices of tier healthy and above";
        assert_eq!(told.replaced.as_deref(), Some(words));
        assert!(told.rules.iter().all(|step| step.verdict == super::super::Verdict::NotReached));
        let (visit, low) = (unlocked(), Policy::compile(granting(vec![grant(HEALTHY, FORWARD)], vec![forward(always())])));
        let inputs = visit.inputs();
        let told = low.explain(AppId(0), &inputs);
        assert_eq!((told.replaced, told.rules[0].verdict), (None, super::super::Verdict::Matched));
    }
}
