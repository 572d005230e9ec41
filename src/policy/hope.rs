//! What the best record that a device could have would have earned here.

use super::decide::{Scope, Tally};
use super::grants::Grant;
use super::scene::{Record, Scene};
use super::tables::{AppTable, Line};
use super::truth::Truth;
use crate::model::Effect;

/// Whether the outcome could have been better had there been a record that could be read: then its want is the first reason.
pub fn hopeful(scene: &Scene<'_>, app: &AppTable, scope: Scope, tally: &Tally) -> bool {
    match scene.record {
        _ if tally.effect == Effect::Forward => false,
        Record::Known { .. } => false,
        Record::Absent(_) => best(scene, app, scope) < tally.effect,
        // Whoever breaks glass has a record; a device that nobody could look up may have it.
        Record::Unreadable => best(scene, app, scope) < tally.effect || scene.some_glass(),
    }
}

/// The least strict effect that any record could earn here. Any fact could be ok in a record, so no ladder stands in the way.
pub fn best(scene: &Scene<'_>, app: &AppTable, scope: Scope) -> Effect {
    let tables = scene.tables;
    let guardrails = app.guardrails.iter().filter_map(|index| tables.guardrails.get(*index as usize));
    let sure = guardrails.filter(|line| !scope.passes_over(line.mode) && scene.span(&line.when).0 != Truth::No);
    let guarded = sure.map(|line| line.then).max().unwrap_or(Effect::Forward);
    if scope == Scope::Guardrails {
        return guarded;
    }
    let start = Hope { kept: Effect::Forward, replaced: Effect::Block };
    let owners = app
        .owners
        .iter()
        .fold(start, |so_far, group| so_far.and(scene.hope(scope, tables.lines_of_owner(app, group), &group.grants, Effect::Forward)));
    let rules = scene.hope(scope, app.rules.iter(), &[], Effect::Block).kept;
    guarded.max(owners.replaced.min(owners.kept.max(rules)))
}

/// The best that owners' rules come to while they leave the app's own rules in place, and while they replace them. What cannot be is `Block`: no
/// hope.
#[derive(Clone, Copy, Debug)]
struct Hope {
    kept: Effect,
    replaced: Effect,
}

impl Hope {
    /// With the rules of another owner, whose matches are independent of these.
    fn and(self, other: Self) -> Self {
        let either = other.kept.min(other.replaced);
        Self { kept: self.kept.max(other.kept), replaced: self.replaced.max(either).min(self.kept.max(other.replaced)) }
    }
}

impl Scene<'_> {
    /// `unmatched` is the effect where no line matches.
    fn hope<'a>(&self, scope: Scope, lines: impl Iterator<Item = &'a Line>, grants: &[Grant], unmatched: Effect) -> Hope {
        let mut hope = Hope { kept: Effect::Block, replaced: Effect::Block };
        let mut added = Effect::Forward;
        // An undecided rule without a grant keeps those behind it from replacing anything.
        let mut barred = false;
        for line in lines.filter(|line| !scope.passes_over(line.mode)) {
            let (least, most) = self.span(&line.when);
            let (surely, perhaps) = self.grant_span(grants, line.then);
            if most == Truth::Yes {
                let outcome = added.max(line.then);
                if perhaps && !barred {
                    hope.replaced = hope.replaced.min(outcome);
                }
                if !surely || barred {
                    hope.kept = hope.kept.min(outcome);
                }
            }
            match least {
                Truth::Yes => return hope,
                Truth::Undecided => {
                    added = added.max(line.then);
                    barred |= !perhaps && line.then != Effect::Block;
                }
                Truth::No => {}
            }
        }
        hope.kept = hope.kept.min(added.max(unmatched));
        hope
    }
}

#[cfg(test)]
mod tests {
    use super::super::Policy;
    use super::super::draft::{Compare, Condition, Draft, Guardrail, Rule};
    use super::super::testing::*;
    use super::*;
    use crate::model::NoRecord;

    #[test]
    fn a_request_that_is_blocked_for_that_alone_is_unavailable() {
        let healthy = || vec![forward(tier(Compare::AtLeast, HEALTHY)), block(always())];
        let decision = Visit::unreadable().decide(&policy(healthy()));
        assert_eq!(
            (decision.done.effect, decision.unavailable, decision.class),
            (Effect::Block, true, super::super::ClassId::UNCLASSIFIED)
        );
        assert_eq!(reasons(&policy(healthy()), &decision.done), ["store.unavailable"]);
        // A guardrail on the record as well.
        let gone = guarded(vec![guardrail("gone", state(&["lost"]))], vec![forward(always())]);
        assert!(Visit::unreadable().decide(&gone).unavailable);
        // A blind device is not one that nobody could look up.
        assert!(!Visit::blind(NoRecord::NoProof).decide(&policy(healthy())).unavailable);
    }

    #[test]
    fn a_request_that_every_record_would_have_blocked_is_not_unavailable() {
        let admin = || path("/admin/*");
        let visit = Visit::unreadable().to("GET", "/admin/x");
        let nothing_helps = [
            guarded(vec![guardrail("no-admin", admin())], vec![forward(state(&["approved"]))]),
            policy(vec![block(admin()), forward(state(&["approved"]))]),
            policy(vec![block(always())]),
            policy(vec![forward(all(&[state(&["approved"]), method(&["POST"])]))]),
            layered(vec![layer(1, block(admin()))], vec![forward(state(&["approved"]))]),
            policy(vec![forward(all(&[tier(Compare::AtLeast, HEALTHY), tier(Compare::Less, 0)]))]),
        ];
        for policy in nothing_helps {
            let decision = visit.decide(&policy);
            assert_eq!((decision.done.effect, decision.unavailable), (Effect::Block, false), "{:?}", policy.draft());
            assert_ne!(reasons(&policy, &decision.done)[0], "store.unavailable");
        }
        // A header with two values is undecided whatever the record says, and a guardrail takes that as true.
        let spoofed = guarded(vec![guardrail("role", header("x-role", text(&["x"])))], vec![forward(state(&["approved"]))]);
        assert!(!Visit::unreadable().with_header("x-role", b"a").with_header("x-role", b"b").decide(&spoofed).unavailable);
        assert!(Visit::unreadable().with_header("x-role", b"a").decide(&spoofed).unavailable);
    }

    #[test]
    fn what_is_undecided_whatever_the_record_says_is_no_hope() {
        let twice = Visit::unreadable().with_header("x-role", b"a").with_header("x-role", b"b");
        let policy = policy(vec![block(header("x-role", text(&["x"]))), forward(state(&["approved"]))]);
        assert!(!twice.decide(&policy).unavailable, "the undecided rule would have added its block");
        assert!(Visit::unreadable().decide(&policy).unavailable);
    }

    #[test]
    fn the_tiers_that_a_record_could_have_are_those_that_caps_leave() {
        let with = |when: Condition, guardrails: Vec<Guardrail>, rules: Vec<Rule>| {
            let mut draft = Draft { guardrails, ..draft(rules) };
            draft.tiers.truncate(2);
            draft.tiers[1].require = always();
            draft.caps = vec![super::super::draft::Cap { name: "cap".to_owned(), when, max_tier: super::super::TierId(0) }];
            Visit::unreadable().decide(&Policy::compile(draft)).unavailable
        };
        let known = || tier(Compare::AtLeast, KNOWN);
        assert!(with(team("guests"), vec![], vec![forward(known())]), "a record of another team keeps its tier");
        assert!(!with(always(), vec![], vec![forward(known())]), "no record would");
        // A guest would have been too low for the guardrail.
        assert!(with(team("guests"), vec![guardrail("g", known())], vec![forward(state(&["approved"]))]));
    }

    #[test]
    fn a_tier_or_cap_that_reads_the_tier_ends_as_one_that_nothing_meets() {
        let mut draft = draft(vec![forward(tier(Compare::AtLeast, KNOWN))]);
        draft.tiers[1].require = tier(Compare::AtLeast, 0);
        draft.caps =
            vec![super::super::draft::Cap { name: "cap".to_owned(), when: tier(Compare::AtLeast, 0), max_tier: super::super::TierId(0) }];
        let decision = Visit::unreadable().decide(&Policy::compile(draft));
        assert_eq!((decision.done.effect, decision.unavailable), (Effect::Block, false));
    }

    #[test]
    fn an_unreadable_record_hides_behind_an_app_in_report_mode_only_from_its_rules() {
        let policy = reporting(Draft { guardrails: vec![guardrail("gone", state(&["lost"]))], ..draft(vec![]) });
        let decision = Visit::unreadable().decide(&policy);
        assert_eq!((decision.done.effect, decision.unavailable), (Effect::Block, true));
        let open = reporting(draft(vec![]));
        assert_eq!(Visit::unreadable().decide(&open).done.effect, Effect::Forward);
    }
}
