//! The policy's own tests: what it is to decide, and what it decides.

use std::fmt;

use jiff::Timestamp;

use super::explain::print;
use super::failure::Failure;
use super::situation::{Situation, nearest};
use crate::config::{Configuration, Expect, PolicyTest};
use crate::policy::{Explanation, Policy, Step, Verdict};

/// A test that the policy does not meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// `FILE:LINE:COLUMN`.
    pub at: String,
    pub name: String,
    /// What was expected and what was found, or what is wrong with the test itself; one line each.
    pub problems: Vec<String>,
    /// How the policy came to decide, as `explain` tells it, without what does not matter. Empty where nothing was decided.
    pub explanation: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: error: the test `{}` fails: {}", self.at, self.name, self.problems.join("; "))?;
        for line in self.explanation.lines() {
            writeln!(f, "{}", format!("  | {line}").trim_end())?;
        }
        Ok(())
    }
}

/// Runs all tests, each as if its request came at `now`, and gives those that fail.
pub fn run(configuration: &Configuration, now: Timestamp) -> Vec<Failed> {
    if configuration.tests.is_empty() {
        return Vec::new();
    }
    let policy = Policy::compile(configuration.policy.clone());
    configuration.tests.iter().filter_map(|test| failure(configuration, &policy, test, now)).collect()
}

fn failure(configuration: &Configuration, policy: &Policy, test: &PolicyTest, now: Timestamp) -> Option<Failed> {
    let failed = |problems, explanation| Some(Failed { at: test.at.clone(), name: test.name.clone(), problems, explanation });
    let options = configuration.routes.get(test.app.index()).map(|route| route.path);
    let settled = (|| {
        let mut situation = Situation::new(policy, test.app, None, now)?;
        situation.request("GET", None, options)?;
        for (signal, value) in &test.given {
            situation.put(signal, value).map_err(|Failure(why)| Failure(format!("given.{signal}: {why}")))?;
        }
        situation.settle()
    })();
    let settled = match settled {
        Ok(settled) => settled,
        Err(Failure(why)) => return failed(vec![why], String::new()),
    };
    let inputs = settled.inputs();
    let told = policy.explain(test.app, &inputs);
    let mut problems = compare(policy, &told, &test.expect);
    if problems.is_empty() {
        return None;
    }
    if let Some(other) = policy.app_at(&settled.host, &settled.path).filter(|other| *other != test.app) {
        problems.push(format!("note: a request for this host and path goes to the app `{}`", policy.app_name(other)));
    }
    let explanation = print::explanation(policy, &inputs, &shortened(told, &test.expect), &policy.mend(test.app, &inputs));
    failed(problems, explanation)
}

fn compare(policy: &Policy, told: &Explanation<'_>, expect: &Expect) -> Vec<String> {
    let mut problems = Vec::new();
    let decision = &told.decision;
    let mut differs = |what: &str, expected: Option<&str>, found: &str| {
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            problems.push(format!("{what} is `{found}`, expected `{expected}`{}", known(policy, what, expected)));
        }
    };
    differs("effect", expect.effect.map(|effect| effect.as_str()), decision.done.effect.as_str());
    differs("would", expect.would.map(|effect| effect.as_str()), decision.would.effect.as_str());
    differs("rule", expect.rule.as_deref(), policy.rule_name(decision.app, decision.done.rule));
    differs("class", expect.class.as_deref(), told.class);
    differs("tier", expect.tier.as_deref(), told.tier);
    if let Some(expected) = &expect.with {
        let mut found: Vec<&str> = decision.done.restrictions.iter().map(|id| policy.restriction(id).name.as_str()).collect();
        let mut expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        found.sort_unstable();
        expected.sort_unstable();
        expected.dedup();
        if found != expected {
            let odd = expected.iter().map(|name| known(policy, "with", name)).find(|hint| !hint.is_empty()).unwrap_or_default();
            problems.push(format!("with is [{}], expected [{}]{odd}", found.join(", "), expected.join(", ")));
        }
    }
    if let Some(expected) = &expect.reason {
        let reasons: Vec<String> = told.reasons.iter().map(ToString::to_string).collect();
        if !reasons.contains(expected) {
            problems.push(format!("the reasons are [{}], expected `{expected}` among them", reasons.join(", ")));
        }
    }
    problems
}

/// That an expected name is none of the policy's, and which one is near; nothing where it is one.
fn known(policy: &Policy, what: &str, name: &str) -> String {
    let draft = policy.draft();
    let names: Vec<&str> = match what {
        "class" => draft.classes.iter().map(|class| class.name.as_str()).chain(["blind", "unclassified"]).collect(),
        "tier" => draft.tiers.iter().map(|tier| tier.name.as_str()).collect(),
        "with" => draft.restrictions.iter().map(|restriction| restriction.name.as_str()).collect(),
        "rule" => {
            let guardrails = draft.guardrails.iter().map(|guardrail| guardrail.name.as_str());
            let rules = draft.apps.iter().flat_map(|app| app.rules.iter().map(|rule| rule.name.as_str()));
            let layers = draft.layers.iter().map(|layer| layer.rule.name.as_str());
            let ladders = draft.ladders.iter().map(|ladder| ladder.name.as_str());
            let exceptions = draft.exceptions.iter().map(|exception| exception.name.as_str());
            guardrails.chain(rules).chain(layers).chain(ladders).chain(exceptions).chain(["-"]).collect()
        }
        _ => return String::new(),
    };
    if names.contains(&name) { String::new() } else { format!(", which the policy does not have{}", nearest(name, names.into_iter())) }
}

/// Only the steps that made the decision, and that of the rule that was expected to.
fn shortened<'a>(mut told: Explanation<'a>, expect: &Expect) -> Explanation<'a> {
    let mattered = |step: &Step<'_>| {
        let expected = expect.rule.as_deref() == Some(step.name);
        match step.verdict {
            Verdict::Matched | Verdict::Undecided => true,
            Verdict::PassedOver(truth) => expected || truth != crate::policy::Truth::No,
            Verdict::DidNotMatch | Verdict::NotReached => expected,
        }
    };
    // Every rule that could have given what was expected says why it did not.
    let by_effect = |step: &Step<'_>| {
        let word =
            expect.effect.filter(|effect| expect.rule.is_none() && *effect != told.decision.done.effect).map(|effect| effect.as_str());
        step.verdict == Verdict::DidNotMatch && word.is_some_and(|word| step.then.split(' ').next() == Some(word))
    };
    let keep = |step: &Step<'_>| mattered(step) || by_effect(step);
    told.guardrails.retain(keep);
    told.ladders.retain(keep);
    told.layers.retain(keep);
    told.rules.retain(keep);
    told.caps.retain(mattered);
    told.classes.retain(|step| step.verdict != Verdict::NotReached);
    told.tiers.retain(|step| step.verdict != Verdict::NotReached);
    told
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config;
    use crate::model::Effect;

    const YAML: &str = r#"
version: 1
listeners: [{name: plain, bind: ["127.0.0.1:0"]}]
store: {url: sqlite://data/vestibule.db}
owners: {security: {contact: security@corp.example}, knowledge: {contact: wiki@corp.example}}
posture: {sources: {mdm: {ttl: 24h}}}
classes:
  - {name: corporate, when: {device.ownership: corporate}}
tiers:
  - {name: none}
  - {name: known, require: {device.state: approved}}
  - {name: healthy, require: {posture.screen_lock: ok}}
caps:
  - {name: liar, when: {wire.contradictions: any}, max_tier: none}
restrictions:
  read-only: {methods: [GET, HEAD]}
  private: {no_store: true}
guardrails:
  - {name: gone, when: {device.state: [lost, retired]}, then: block}
  - {name: no-bots, when: {claims.browser: bot}, then: block, mode: report}
apps:
  - name: wiki
    owner: knowledge
    hosts: [wiki.corp.example]
    upstream: {servers: ["http://127.0.0.1:7001"]}
    rules:
      - {name: managed, when: {class: corporate, tier: ">= healthy"}, then: forward}
      - {name: reading, when: {tier: ">= known"}, then: restrict, with: [read-only, private]}
      - {name: rest, then: block}
"#;

    fn outcome(given: &[(&str, &str)], expect: Expect) -> Option<Failed> {
        let files = [(PathBuf::from("vestibule.yaml"), YAML.as_bytes().to_vec())];
        let mut configuration = config::parse(&files).unwrap_or_else(|report| panic!("{report}")).configuration;
        let given = given.iter().map(|(signal, value)| ((*signal).to_owned(), (*value).to_owned())).collect();
        let app = crate::policy::AppId(0);
        configuration.tests = vec![PolicyTest { at: "vestibule.yaml:40:5".to_owned(), name: "a".to_owned(), app, given, expect }];
        run(&configuration, "2026-11-22T08:00:00Z".parse().unwrap()).pop()
    }

    fn problems(given: &[(&str, &str)], expect: Expect) -> Vec<String> {
        outcome(given, expect).map(|failed| failed.problems).unwrap_or_default()
    }

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn what_is_met_is_no_failure() {
        let fit = [("device.ownership", "corporate"), ("posture.screen_lock", "ok")];
        let all = Expect {
            effect: Some(Effect::Forward),
            would: Some(Effect::Forward),
            with: Some(vec![]),
            rule: text("managed"),
            class: text("corporate"),
            tier: text("healthy"),
            reason: text("rule.matched"),
        };
        assert_eq!(problems(&fit, all), [""; 0]);
        assert_eq!(
            problems(&[("class", "corporate"), ("tier", "healthy")], Expect { rule: text("managed"), ..Expect::default() }),
            [""; 0]
        );
        let restricted = Expect {
            effect: Some(Effect::Restrict),
            with: Some(vec!["private".to_owned(), "read-only".to_owned()]),
            reason: text("posture.screen_lock.unknown"),
            ..Expect::default()
        };
        assert_eq!(problems(&[("device.ownership", "corporate"), ("http.method", "POST")], restricted), [""; 0], "in any order");
        let blind = Expect { rule: text("rest"), class: text("blind"), reason: text("device.unknown"), ..Expect::default() };
        assert_eq!(problems(&[("device.key", "none")], blind), [""; 0]);
        let reported = Expect { effect: Some(Effect::Forward), would: Some(Effect::Block), ..Expect::default() };
        assert_eq!(problems(&[("class", "corporate"), ("tier", "healthy"), ("claims.browser", "bot")], reported), [""; 0]);
    }

    #[test]
    fn each_expectation_can_fail_and_says_what_was_found() {
        let fit = [("device.ownership", "corporate"), ("posture.screen_lock", "ok")];
        for (expect, problem) in [
            (Expect { effect: Some(Effect::Block), ..Expect::default() }, "effect is `forward`, expected `block`"),
            (Expect { would: Some(Effect::Block), ..Expect::default() }, "would is `forward`, expected `block`"),
            (Expect { rule: text("reading"), ..Expect::default() }, "rule is `managed`, expected `reading`"),
            (
                Expect { rule: text("manged"), ..Expect::default() },
                "rule is `managed`, expected `manged`, which the policy does not have; did you mean `managed`?",
            ),
            (Expect { class: text("blind"), ..Expect::default() }, "class is `corporate`, expected `blind`"),
            (
                Expect { tier: text("helthy"), ..Expect::default() },
                "tier is `healthy`, expected `helthy`, which the policy does not have; did you mean `healthy`?",
            ),
            (Expect { with: Some(vec!["private".to_owned()]), ..Expect::default() }, "with is [], expected [private]"),
            (
                Expect { with: Some(vec!["privat".to_owned()]), ..Expect::default() },
                "with is [], expected [privat], which the policy does not have; did you mean `private`?",
            ),
            (
                Expect { reason: text("device.unknown"), ..Expect::default() },
                "the reasons are [rule.matched], expected `device.unknown` among them",
            ),
        ] {
            assert_eq!(problems(&fit, expect), [problem]);
        }
    }

    #[test]
    fn a_failure_explains_itself_by_what_mattered() {
        let expect = Expect { effect: Some(Effect::Forward), ..Expect::default() };
        let failed = outcome(&[("device.ownership", "corporate"), ("posture.screen_lock", "fail")], expect).unwrap();
        let text = failed.to_string();
        assert!(
            text.starts_with("vestibule.yaml:40:5: error: the test `a` fails: effect is `restrict`, expected `forward`\n  | App      wiki"),
            "{text}"
        );
        assert!(text.contains("did not match  managed: forward") && text.contains("tier is known, wanted >= healthy"), "{text}");
        assert!(text.contains("matched        reading: restrict with read-only, private"), "{text}");
        assert!(!text.contains("rest: block") && !text.contains("gone: block") && !text.contains("no-bots"), "{text}");
        assert!(text.contains("\n  |\n  | Decision: restrict with read-only, private, by rule reading\n"), "{text}");
        assert!(text.ends_with("\n  | Smallest fix, to forward\n  |   posture.screen_lock is fail, wanted ok\n"), "{text}");
    }

    #[test]
    fn what_is_wrong_with_a_test_is_its_failure() {
        for (given, problem) in [
            (("device.stat", "lost"), "given.device.stat: no signal named `device.stat`; did you mean `device.state`?"),
            (
                ("device.state", "lots"),
                "given.device.state: `lots` is not one of pending, approved, suspended, lost, retired; did you mean `lost`?",
            ),
            (("posture.screen_lock.age", "1h"), "posture.screen_lock.age: the fact needs a state too, posture.screen_lock=ok or fail"),
        ] {
            let failed = outcome(&[given], Expect::default()).unwrap();
            assert_eq!((failed.problems, failed.explanation.as_str()), (vec![problem.to_owned()], ""));
        }
    }
}
