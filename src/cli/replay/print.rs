//! A replay's result, for people and for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use super::tally::{Flips, Group, Kind, Tally};
use crate::policy::Policy;

/// Groups of one kind that are shown.
const SHOWN: usize = 40;

pub fn text(policy: &Policy, tally: &Tally<'_>) -> String {
    let mut out = String::new();
    // Writing to a `String` cannot fail.
    let _ = writeln!(out, "Policy {}, on {} of {}", policy.revision(), counted(tally.replayed, "decision"), counted(tally.lines, "line"));
    if let Some((first, last)) = &tally.span {
        let _ = writeln!(out, "From {} to {}", clean(first), clean(last));
    }
    let revisions: Vec<String> = tally.revisions.iter().map(|(name, count)| format!("{} ({})", clean(name), grouped(*count))).collect();
    if !revisions.is_empty() {
        let shown = revisions.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
        let more = if revisions.len() > 8 { format!(" and {} more", revisions.len() - 8) } else { String::new() };
        let _ = writeln!(out, "Decided then by policy {shown}{more}");
    }
    out.push('\n');
    for (name, count, note) in [
        ("same", tally.same, ""),
        ("tighter", tally.of(Kind::Tighter), "answered more strictly than they were"),
        ("looser", tally.of(Kind::Looser), "answered more freely than they were"),
        ("other restrictions", tally.of(Kind::Restrictions), "the same effect with other restrictions"),
        ("report mode", tally.of(Kind::Report), "nothing done otherwise, but reported otherwise"),
    ] {
        let line = format!("  {name:18}  {:>12}  {}", grouped(count), if count > 0 { note } else { "" });
        let _ = writeln!(out, "{}", line.trim_end());
    }
    for (kind, title) in
        [(Kind::Tighter, "Tighter"), (Kind::Looser, "Looser"), (Kind::Restrictions, "Other restrictions"), (Kind::Report, "In report mode")]
    {
        groups(&mut out, title, &tally.groups(kind));
    }
    if tally.more_groups > 0 {
        let _ = writeln!(out, "\n{} more are of too many kinds to tell apart.", grouped(tally.more_groups));
    }
    notes(&mut out, tally);
    out
}

fn groups(out: &mut String, title: &str, groups: &[(&Group, &Flips)]) {
    if groups.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{title}");
    let head = ["COUNT", "APP", "CHANGE", "CLASS", "OWNER", "REASON"].map(str::to_owned);
    let rows = groups.iter().take(SHOWN).map(|(group, flips)| {
        let change = format!("{} -> {}", group.before, group.after);
        [grouped(flips.count), group.app.clone(), change, group.class.clone(), group.owner.clone(), group.reason.clone()]
    });
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(rows).map(|row| row.map(|cell| clean(&cell))).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let samples = groups.iter().take(SHOWN).map(|(_, flips)| Some(*flips));
    for ([count, app, change, class, owner, reason], flips) in rows.iter().zip(std::iter::once(None).chain(samples)) {
        let [a, b, c, d, e, _] = widths;
        let _ = writeln!(out, "  {count:>a$}  {app:b$}  {change:c$}  {class:d$}  {owner:e$}  {reason}");
        if let Some(flips) = flips {
            // Two ids fill a line of a terminal.
            let ids: Vec<String> = flips.samples.iter().take(2).map(|(_, id)| clean(id)).collect();
            let _ = writeln!(out, "  {:>a$}  such as {}", "", ids.join(", "));
        }
    }
    if groups.len() > SHOWN {
        let rest: u64 = groups.iter().skip(SHOWN).map(|(_, flips)| flips.count).sum();
        let _ = writeln!(out, "  {} more in {} other groups: --format json shows all", grouped(rest), groups.len() - SHOWN);
    }
}

/// What was not decided anew, and why.
fn notes(out: &mut String, tally: &Tally<'_>) {
    let mut lines = Vec::new();
    for (signal, count) in &tally.lacks {
        lines.push(if signal == "device.*" {
            format!("{} of an older version, which did not log the device's record", counted(*count, "line"))
        } else {
            format!("{} without {}: no rule read it when they were logged", counted(*count, "decision"), clean(signal))
        });
    }
    for (app, count) in &tally.gone {
        let app = clean(app);
        lines
            .push(format!("{} for {app}: no app here has their host and path, so they would be answered 404", counted(*count, "decision")));
    }
    for (app, count) in &tally.new {
        let asked = counted(*count, "request");
        lines.push(format!("{asked} that no app had a place for would go to {}: nobody looked who asked", clean(app)));
    }
    if tally.undecided > 0 {
        lines.push(format!("{} that no policy decided: malformed, redirected or for no app", counted(tally.undecided, "request")));
    }
    if tally.too_old > 0 {
        lines.push(format!("{} from before --since", counted(tally.too_old, "line")));
    }
    if let Some((place, why)) = &tally.first_malformed {
        let first = format!("line {} of log {}: {}", place.line, place.file + 1, clean(why));
        lines.push(format!("{} cut or malformed, the first {first}", counted(tally.malformed, "line")));
    }
    if !lines.is_empty() {
        out.push_str("\nNot decided anew\n");
        lines.iter().for_each(|line| out.push_str(&format!("  {line}\n")));
    }
    out.push_str("\nRates are outside of decisions: who would have gone beyond a limit of requests is not told here.\n");
}

pub fn json(policy: &Policy, tally: &Tally<'_>) -> String {
    let flips = Kind::ALL.into_iter().flat_map(|kind| tally.groups(kind)).map(|(group, flips)| {
        json!({
            "kind": group.kind.as_str(), "app": group.app, "class": group.class, "before": group.before, "after": group.after,
            "owner": group.owner, "reason": group.reason, "count": flips.count,
            "request_ids": flips.samples.iter().map(|(_, id)| id).collect::<Vec<_>>(),
        })
    });
    let flips: Vec<Value> = flips.collect();
    let result = json!({
        "policy_rev": policy.revision(),
        "policy_revs_then": tally.revisions,
        "from": tally.span.as_ref().map(|(first, _)| first),
        "to": tally.span.as_ref().map(|(_, last)| last),
        "lines": tally.lines,
        "replayed": tally.replayed,
        "same": tally.same,
        "tighter": tally.of(Kind::Tighter),
        "looser": tally.of(Kind::Looser),
        "restrictions": tally.of(Kind::Restrictions),
        "report": tally.of(Kind::Report),
        "flips": flips,
        "not_told_apart": tally.more_groups,
        "not_replayed": {
            "undecided": tally.undecided,
            "before_since": tally.too_old,
            "malformed": tally.malformed,
            "without_signal": tally.lacks,
            "app_gone": tally.gone,
        },
        "app_new": tally.new,
    });
    format!("{result:#}\n")
}

fn counted(count: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// 1,234,567
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// What a log holds is not ours: no control character reaches the terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 12, 999, 1000, 1_234_567].map(super::grouped).join(" "), "0 12 999 1,000 1,234,567");
    }
}
