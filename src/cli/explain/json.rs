//! An explanation for programs.

use serde_json::{Value, json};

use crate::policy::{Explanation, Inputs, Mend, Outcome, Policy, Search};

pub fn explanation(policy: &Policy, inputs: &Inputs<'_>, told: &Explanation<'_>, search: &Search<'_>) -> Value {
    let decision = &told.decision;
    let outcome = |outcome: &Outcome| {
        json!({
            "effect": outcome.effect.as_str(),
            "restrictions": outcome.restrictions.iter().map(|id| policy.restriction(id).name.as_str()).collect::<Vec<_>>(),
            "rule": policy.rule_name(decision.app, outcome.rule),
            "owner": policy.owner(outcome.owner).name,
            "reasons": outcome.reasons.as_slice().iter().map(|id| policy.reason(*id).to_string()).collect::<Vec<_>>(),
        })
    };
    let facts = told.facts.iter().map(|fact| {
        let seconds = fact.age.as_millis() as f64 / 1000.0;
        json!({"name": fact.name, "state": fact.state.as_str(), "source": fact.source, "age": seconds, "value": fact.value})
    });
    json!({
        "policy_rev": policy.revision(),
        "app": told.app,
        "at": inputs.now.to_string(),
        "method": inputs.http.method,
        "host": inputs.http.host.as_str(),
        "path": inputs.http.path,
        "device": told.record,
        "class": told.class,
        "tier": told.tier,
        "mode": decision.mode.as_str(),
        "done": outcome(&decision.done),
        "would": outcome(&decision.would),
        "facts": facts.collect::<Vec<_>>(),
        "valid_until": decision.valid_until.map(|until| until.to_string()),
        "smallest_fix": match search {
            Search::Mended(mend) => mended(policy, mend),
            Search::Nothing | Search::GaveUp => Value::Null,
        },
        "smallest_fix_search": match search {
            Search::Mended(_) => "found",
            Search::Nothing => "nothing",
            Search::GaveUp => "gave_up",
        },
    })
}

fn mended(policy: &Policy, mend: &Mend<'_>) -> Value {
    let changes = mend.changes.iter().map(|change| {
        let (text, help) = change.fix.map(|fix| (fix.text.as_str(), fix.help.as_deref())).unzip();
        json!({
            "signal": change.signal, "found": change.found, "wanted": change.wanted, "on_the_device": change.soft,
            "text": text, "help": help.flatten(),
        })
    });
    json!({
        "effect": mend.effect.as_str(),
        "restrictions": mend.restrictions.iter().map(|id| policy.restriction(id).name.as_str()).collect::<Vec<_>>(),
        "at_best": mend.at_best,
        "changes": changes.collect::<Vec<_>>(),
    })
}
