//! An explanation as text.

use std::fmt::{Display, Write};

use crate::model::{Effect, Mode, Reason};
use crate::policy::draft::Fix;
use crate::policy::{
    Change, Excepted, Explanation, Inputs, Outcome, Policy, RuleRef, Search, Step, Tested, Truth, Verdict, duration_words,
};

/// Width of the column of verdicts.
const VERDICTS: usize = 14;

pub fn explanation(policy: &Policy, inputs: &Inputs<'_>, told: &Explanation<'_>, search: &Search<'_>) -> String {
    let mut page = Page(String::new());
    let owner = &policy.owner(policy.app_owner(told.decision.app)).name;
    let mode = if told.mode == Mode::Report { ", in report mode" } else { "" };
    page.line(0, format_args!("App      {} of {owner}{mode}", told.app));
    page.line(0, format_args!("Request  {} {}{}", inputs.http.method, inputs.http.host, inputs.http.path));
    let zone = inputs.zone.map_or("no named network", |zone| policy.zone_name(zone));
    page.line(0, format_args!("From     {}, {zone}", inputs.peer));
    page.line(0, format_args!("Device   {}", told.record));

    if !told.facts.is_empty() {
        page.title("Posture facts");
        let width = told.facts.iter().map(|fact| fact.name.len()).max().unwrap_or(0);
        for fact in &told.facts {
            let seen = if fact.source.is_empty() {
                "never observed".to_owned()
            } else {
                format!("{}, {} ago", fact.source, duration_words(fact.age))
            };
            let value = fact.value.map(|value| format!(", value {value}")).unwrap_or_default();
            page.line(1, format_args!("{:width$}  {:7}  {seen}{value}", fact.name, fact.state.as_str()));
        }
    }

    let given = if inputs.given.class.is_some() { " (given)" } else { "" };
    page.title(format_args!("Class: {}{given}", told.class));
    page.steps(&told.classes);
    let tier = match told.earned {
        None => format!("Tier: {} (given)", told.tier),
        Some(earned) if earned == told.tier => format!("Tier: {earned}"),
        Some(earned) => format!("Tier: {}, lowered from {earned}", told.tier),
    };
    page.title(tier);
    page.steps(&told.tiers);
    page.exceptions(&told.exceptions);
    for (title, steps) in [
        ("Caps", &told.caps),
        ("Guardrails", &told.guardrails),
        ("Ladders", &told.ladders),
        ("Rules of owners' files", &told.layers),
        ("Rules of the app, first match wins", &told.rules),
    ] {
        if !steps.is_empty() {
            page.title(title);
            page.steps(steps);
        }
    }
    if let Some(replaced) = &told.replaced {
        page.line(1, replaced);
    }
    page.decision(policy, inputs, told);
    page.fix(policy, told, search);
    page.0
}

struct Page(String);

impl Page {
    fn line(&mut self, depth: usize, text: impl Display) {
        // Writing to a `String` cannot fail.
        let _ = writeln!(self.0, "{:1$}{text}", "", depth * 2);
    }

    fn title(&mut self, text: impl Display) {
        self.0.push('\n');
        self.line(0, text);
    }

    fn steps(&mut self, steps: &[Step<'_>]) {
        for step in steps {
            let verdict = match step.verdict {
                Verdict::Matched => "matched",
                Verdict::DidNotMatch => "did not match",
                Verdict::Undecided => "undecided",
                Verdict::NotReached => "not reached",
                Verdict::PassedOver(_) => "passed over",
            };
            let then = if step.then.is_empty() { String::new() } else { format!(": {}", step.then) };
            self.line(1, format_args!("{verdict:VERDICTS$} {}{then}", step.name));
            if let Verdict::PassedOver(truth) = step.verdict {
                let would = match truth {
                    Truth::Yes => "would have matched",
                    Truth::Undecided => "would have been undecided",
                    Truth::No => "would not have matched",
                };
                self.line(1, format_args!("{:VERDICTS$}   not enforced: it {would}", ""));
            }
            match (&step.test, step.verdict) {
                (Some(Tested::Several { how: "all of", inner, .. }), _) => inner.iter().for_each(|test| self.test(test, 0)),
                (Some(test), _) => self.test(test, 0),
                (None, Verdict::NotReached) => {}
                (None, _) => self.line(1, format_args!("{:VERDICTS$}   always", "")),
            }
        }
    }

    fn exceptions(&mut self, exceptions: &[Excepted<'_>]) {
        if exceptions.is_empty() {
            return;
        }
        self.title("Exceptions for this device");
        for told in exceptions {
            let stands = match (told.in_force, told.used) {
                (true, true) => "used",
                (true, false) => "in force",
                (false, _) => "not in force",
            };
            let from = told.from.as_ref().map(|from| format!("from {from} ")).unwrap_or_default();
            let (name, what, until, by, ticket) = (told.name, &told.what, &told.until, told.by, told.ticket);
            self.line(1, format_args!("{stands:VERDICTS$} {name}: {what} {from}until {until}, by {by}, {ticket}"));
        }
    }

    fn test(&mut self, test: &Tested, depth: usize) {
        let truth = test.truth().as_str();
        let indent = depth * 2;
        match test {
            Tested::One { signal, found, wanted, .. } => {
                self.line(1, format_args!("{:VERDICTS$}   {:indent$}{truth:9}  {signal} is {found}, wanted {wanted}", "", ""));
            }
            Tested::Several { how, inner, .. } => {
                self.line(1, format_args!("{:VERDICTS$}   {:indent$}{truth:9}  {how}", "", ""));
                inner.iter().for_each(|test| self.test(test, depth + 1));
            }
        }
    }

    fn decision(&mut self, policy: &Policy, inputs: &Inputs<'_>, told: &Explanation<'_>) {
        let (decision, method, path) = (&told.decision, inputs.http.method, inputs.http.path);
        self.title(format_args!("Decision: {}", outcome(policy, told, &decision.done)));
        if decision.done.effect == Effect::Restrict
            && let Some(open) = decision.merged.methods
            && !policy.allows_method(&decision.merged, method)
        {
            let open = policy.method_names(open).join(", ");
            self.line(1, format_args!("refused  {method} is answered 403, restrict.methods; open are {open}"));
        } else if policy.path_refused(decision.done.restrictions, path) {
            self.line(1, format_args!("refused  {path} is answered 403, restrict.paths"));
        }
        if decision.unavailable {
            self.line(1, "for no other reason than that the record could not be read: answered 503");
        }
        self.reasons("reasons", &told.reasons);
        for (name, steps) in &told.notices {
            let to_come = if steps.is_empty() { "" } else { ": " };
            self.line(1, format_args!("notice   {name}{to_come}{steps}"));
        }
        if decision.mode == Mode::Report {
            self.line(1, format_args!("would be {}, were all of it enforced", outcome(policy, told, &decision.would)));
            self.reasons("because", &told.would_reasons);
        }
        if decision.done.effect != Effect::Forward {
            let owner = policy.owner(decision.done.owner);
            self.line(1, format_args!("contact  {} ({})", owner.contact, owner.name));
        }
        match decision.valid_until {
            Some(until) => self.line(1, format_args!("holds    until {until:.0}, unless something changes before")),
            None => self.line(1, "holds    until something changes"),
        }
    }

    /// What would earn more, in as few changes as can be.
    fn fix(&mut self, policy: &Policy, told: &Explanation<'_>, search: &Search<'_>) {
        let words = |fix: &Fix| format!("{}{}", fix.text, fix.help.as_deref().map(|help| format!(" ({help})")).unwrap_or_default());
        match search {
            Search::Mended(mend) => {
                let with: Vec<&str> = mend.restrictions.iter().map(|id| policy.restriction(id).name.as_str()).collect();
                let with = if with.is_empty() { String::new() } else { format!(" with {}", with.join(", ")) };
                let best = if mend.at_best { ", if its record is as good as can be" } else { "" };
                self.title(format_args!("Smallest fix, to {}{with}{best}", mend.effect.as_str()));
                if mend.changes.iter().any(|change| !change.soft) {
                    self.line(1, "nothing on the device alone helps");
                }
                for Change { signal, found, wanted, fix, .. } in &mend.changes {
                    let todo = fix.map(|fix| format!(": {}", words(fix))).unwrap_or_default();
                    self.line(1, format_args!("{signal} is {found}, wanted {wanted}{todo}"));
                }
            }
            Search::Nothing if told.decision.done.effect == Effect::Forward => {}
            Search::Nothing => self.title("Smallest fix: none; no change of the device, the place or the request earns more"),
            Search::GaveUp => {
                self.title("Smallest fix: there are too many ways to try them all; the reasons name these");
                told.fixes.iter().for_each(|fix| self.line(1, words(fix)));
            }
        }
    }

    fn reasons(&mut self, title: &str, reasons: &[Reason<'_>]) {
        let codes: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        self.line(1, format_args!("{title}  {}", codes.join(", ")));
    }
}

fn outcome(policy: &Policy, told: &Explanation<'_>, outcome: &Outcome) -> String {
    let with: Vec<&str> = outcome.restrictions.iter().map(|id| policy.restriction(id).name.as_str()).collect();
    let with = if with.is_empty() { String::new() } else { format!(" with {}", with.join(", ")) };
    let name = policy.rule_name(told.decision.app, outcome.rule);
    let by = match outcome.rule {
        RuleRef::Guardrail(_) => format!("by guardrail {name}"),
        RuleRef::Rule(_) => format!("by rule {name}"),
        RuleRef::Layer(_) => format!("by rule {name} of {}", policy.owner(outcome.owner).name),
        RuleRef::Ladder(_) => format!("by {name}"),
        RuleRef::Exception(_) => format!("by exception {name}, which breaks glass"),
        RuleRef::None if outcome.effect == Effect::Block => "since no rule matched".to_owned(),
        RuleRef::None => "since the app is in report mode".to_owned(),
    };
    format!("{}{with}, {by}", outcome.effect.as_str())
}
