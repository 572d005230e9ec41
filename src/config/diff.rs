//! What changed from one text of the configuration to the next, by its keys rather than by its lines.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::report::Findings;
use super::text;
use super::yaml::{self, Entry, Node, Value, short};

/// Lines of a difference; the last one says how many more there would be.
pub const MOST_LINES: usize = 50;

/// The texts of a configuration, the main file first, each with its name beside the main file: `vestibule.yaml`, `policy.d/finance.yaml`.
/// Passwords of URLs are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts(pub Vec<(String, String)>);

impl Texts {
    /// Of files by their paths, the main file first.
    pub fn of<'a>(files: impl Iterator<Item = (&'a Path, &'a str)>) -> Self {
        let mut folder = None;
        let named = files.map(|(path, text)| {
            let folder = folder.get_or_insert_with(|| path.parent().unwrap_or_else(|| Path::new("")));
            (path.strip_prefix(folder).unwrap_or(path).display().to_string(), redacted(text))
        });
        Self(named.collect())
    }

    /// One line for each change, `apps.wiki.rules.byod-read.then: restrict -> block`. Lists of things with names are compared by name, so that
    /// one more rule is one line, and one in another place is `moved`. None where nothing but comments or layout changed.
    pub fn changes_since(&self, before: &Self) -> Vec<String> {
        let mut out = Lines::default();
        let main = |texts: &Self| texts.0.first().cloned().unwrap_or_default();
        out.file("", &main(before).1, &main(self).1);
        let others = |texts: &Self| texts.0.iter().skip(1).cloned().collect::<Vec<_>>();
        let (old, new) = (others(before), others(self));
        let known: HashMap<&str, &str> = old.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let kept: HashSet<&str> = new.iter().map(|(name, _)| name.as_str()).collect();
        for (name, _) in old.iter().filter(|(name, _)| !kept.contains(name.as_str())) {
            out.push(|| format!("{}: removed", short(name)));
        }
        for (name, text) in &new {
            match known.get(name.as_str()) {
                None => out.push(|| format!("{}: added", short(name))),
                Some(before) => out.file(&format!("{}: ", short(name)), before, text),
            }
        }
        out.finish()
    }
}

/// The text with `***` for every password in a URL.
fn redacted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | ',' | ']' | '}' | '?' | '#'));
        let authority = end.and_then(|end| after.get(..end)).unwrap_or(after);
        let tail = after.strip_prefix(authority).unwrap_or_default();
        // A password may hold an `@` by mistake: the last one ends it.
        match authority.rsplit_once('@') {
            Some((user, host)) if user.contains(':') => {
                out.push_str(user.split(':').next().unwrap_or_default());
                out.push_str(":***@");
                out.push_str(host);
            }
            _ => out.push_str(authority),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

#[derive(Default)]
struct Lines {
    kept: Vec<String>,
    more: usize,
}

impl Lines {
    fn push(&mut self, line: impl FnOnce() -> String) {
        if self.kept.len() < MOST_LINES { self.kept.push(line()) } else { self.more += 1 }
    }

    fn finish(mut self) -> Vec<String> {
        if self.more > 0 {
            self.kept.pop();
            self.kept.push(format!("and {} more", self.more + 1));
        }
        self.kept
    }

    fn file(&mut self, name: &str, before: &str, after: &str) {
        if before == after {
            return;
        }
        let tree = |text: &str| {
            let mut findings = Findings::default();
            yaml::parse(&text::decode(text.as_bytes(), 0, &mut findings)?, 0, &mut findings)
        };
        match (tree(before), tree(after)) {
            (Some(before), Some(after)) => self.node(name, &before, &after),
            // Both were in force, so both were read.
            _ => self.push(|| format!("{name}changed")),
        }
    }

    fn node(&mut self, path: &str, before: &Node, after: &Node) {
        match (&before.value, &after.value) {
            (Value::Map(old), Value::Map(new)) => self.map(path, old, new),
            (Value::List(old), Value::List(new)) => match (by_name(old), by_name(new)) {
                (Some(old), Some(new)) => self.named(path, &old, &new),
                _ if old.iter().chain(new).any(|item| matches!(item.value, Value::Map(_))) => self.unnamed(path, old, new),
                _ => self.scalar(path, before, after),
            },
            _ => self.scalar(path, before, after),
        }
    }

    fn scalar(&mut self, path: &str, before: &Node, after: &Node) {
        if !same(before, after) {
            self.push(|| format!("{path}: {} -> {}", shown(before), shown(after)));
        }
    }

    fn map(&mut self, path: &str, old: &[Entry], new: &[Entry]) {
        let known: HashMap<&str, &Node> = old.iter().map(|entry| (entry.key.as_str(), &entry.value)).collect();
        let kept: HashSet<&str> = new.iter().map(|entry| entry.key.as_str()).collect();
        for entry in old.iter().filter(|entry| !kept.contains(entry.key.as_str())) {
            self.gone(&join(path, &entry.key), &entry.value);
        }
        for entry in new {
            let path = join(path, &entry.key);
            match known.get(entry.key.as_str()) {
                Some(before) => self.node(&path, before, &entry.value),
                None => self.come(&path, &entry.value),
            }
        }
    }

    fn named(&mut self, path: &str, old: &[(&str, &Node)], new: &[(&str, &Node)]) {
        let places: HashMap<&str, usize> = old.iter().enumerate().map(|(at, (name, _))| (*name, at)).collect();
        let kept: HashSet<&str> = new.iter().map(|(name, _)| *name).collect();
        for (name, node) in old.iter().filter(|(name, _)| !kept.contains(name)) {
            self.gone(&join(path, name), node);
        }
        let stayed: Vec<usize> = new.iter().filter_map(|(name, _)| places.get(name).copied()).collect();
        let in_order: HashSet<usize> = longest_rise(&stayed).into_iter().collect();
        for (at, (name, node)) in new.iter().enumerate() {
            let path = join(path, name);
            let Some(place) = places.get(name) else {
                self.come(&path, node);
                continue;
            };
            if !in_order.contains(place) {
                self.push(|| match at.checked_sub(1).and_then(|before| new.get(before)) {
                    Some((before, _)) => format!("{path}: moved, now after {}", short(before)),
                    None => format!("{path}: moved, now first"),
                });
            }
            if let Some((_, before)) = old.get(*place) {
                self.node(&path, before, node);
            }
        }
    }

    /// What is the same at both ends is left out; the rest is compared one by one.
    fn unnamed(&mut self, path: &str, old: &[Node], new: &[Node]) {
        let head = old.iter().zip(new).take_while(|(a, b)| same(a, b)).count();
        let (old, new) = (old.get(head..).unwrap_or_default(), new.get(head..).unwrap_or_default());
        let tail = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| same(a, b)).count();
        let cut = |items: usize| items.saturating_sub(tail);
        let (old, new) = (old.get(..cut(old.len())).unwrap_or_default(), new.get(..cut(new.len())).unwrap_or_default());
        for at in 0..old.len().max(new.len()) {
            let path = format!("{path}[{}]", head + at);
            match (old.get(at), new.get(at)) {
                (Some(old), Some(new)) => self.node(&path, old, new),
                (Some(old), None) => self.gone(&path, old),
                (None, Some(new)) => self.come(&path, new),
                (None, None) => {}
            }
        }
    }

    fn come(&mut self, path: &str, node: &Node) {
        self.push(|| if is_plain(node) { format!("{path}: added as {}", shown(node)) } else { format!("{path}: added") });
    }

    fn gone(&mut self, path: &str, node: &Node) {
        self.push(|| if is_plain(node) { format!("{path}: removed, was {}", shown(node)) } else { format!("{path}: removed") });
    }
}

fn join(path: &str, key: &str) -> String {
    let dot = if path.is_empty() || path.ends_with(' ') { "" } else { "." };
    format!("{path}{dot}{}", short(key))
}

/// A list of maps that each have a name of their own. An empty list is one, too.
fn by_name(items: &[Node]) -> Option<Vec<(&str, &Node)>> {
    let named: Vec<(&str, &Node)> = items.iter().map(|item| Some((item.entry("name")?.value.text()?, item))).collect::<Option<_>>()?;
    let names: HashSet<&str> = named.iter().map(|(name, _)| *name).collect();
    (names.len() == named.len()).then_some(named)
}

fn is_plain(node: &Node) -> bool {
    match &node.value {
        Value::Map(_) => false,
        Value::List(items) => !items.iter().any(|item| matches!(item.value, Value::Map(_))),
        _ => true,
    }
}

fn shown(node: &Node) -> String {
    match &node.value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Integer { written, .. } | Value::Float { written } => short(written),
        Value::Text(text) => short(text),
        Value::List(items) => {
            let items: Vec<String> = items.iter().take(20).map(shown).collect();
            format!("[{}]", short(&items.join(", ")))
        }
        Value::Map(_) => "a map".to_owned(),
    }
}

fn same(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Text(a), Value::Text(b)) => a == b,
        (
            Value::Integer { written: a, .. } | Value::Float { written: a },
            Value::Integer { written: b, .. } | Value::Float { written: b },
        ) => a == b,
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Map(a), Value::Map(b)) => {
            let known: HashMap<&str, &Node> = a.iter().map(|entry| (entry.key.as_str(), &entry.value)).collect();
            a.len() == b.len() && b.iter().all(|entry| known.get(entry.key.as_str()).is_some_and(|node| same(node, &entry.value)))
        }
        _ => false,
    }
}

/// The longest part of a list of distinct numbers that rises: whoever is not in it moved (patience sorting).
fn longest_rise(list: &[usize]) -> Vec<usize> {
    let mut ends: Vec<usize> = Vec::new(); // by length of a rise: where in `list` the lowest end of one stands
    let mut before: Vec<Option<usize>> = Vec::with_capacity(list.len());
    for (at, value) in list.iter().enumerate() {
        let length = ends.partition_point(|end| list.get(*end).is_some_and(|end| end < value));
        before.push(length.checked_sub(1).and_then(|shorter| ends.get(shorter).copied()));
        match ends.get_mut(length) {
            Some(end) => *end = at,
            None => ends.push(at),
        }
    }
    let mut rise = Vec::with_capacity(ends.len());
    let mut at = ends.last().copied();
    while let Some(here) = at {
        rise.extend(list.get(here));
        at = before.get(here).copied().flatten();
    }
    rise
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(main: &str) -> Texts {
        Texts::of([(Path::new("conf/vestibule.yaml"), main)].into_iter())
    }

    fn changes(before: &str, after: &str) -> Vec<String> {
        texts(after).changes_since(&texts(before))
    }

    const BEFORE: &str = "\
limits: {drain: 30s, idle: 60s}
guardrails:
  - {name: gone, when: {device.state: [lost, retired]}, then: block}
apps:
  - name: wiki
    hosts: [wiki.corp.example]
    rules:
      - {name: managed, when: {tier: '>= healthy'}, then: forward}
      - {name: byod-read, then: restrict, with: [read-only]}
      - {name: rest, then: block}
";

    #[test]
    fn one_line_a_change_by_its_key() {
        let after = BEFORE
            .replace("drain: 30s, ", "")
            .replace("idle: 60s", "idle: 90s, head_size: 64KiB")
            .replace("[lost, retired]", "[lost]")
            .replace("apps:\n", "  - {name: off-net, when: {net.zone: office}, then: block}\napps:\n")
            .replace(">= healthy", ">= trusted")
            .replace("then: restrict, with: [read-only]", "then: block")
            .replace("      - {name: rest, then: block}\n", "");
        assert_eq!(
            changes(BEFORE, &after),
            [
                "limits.drain: removed, was 30s",
                "limits.idle: 60s -> 90s",
                "limits.head_size: added as 64KiB",
                "guardrails.gone.when.device.state: [lost, retired] -> [lost]",
                "guardrails.off-net: added",
                "apps.wiki.rules.rest: removed",
                "apps.wiki.rules.managed.when.tier: >= healthy -> >= trusted",
                "apps.wiki.rules.byod-read.with: removed, was [read-only]",
                "apps.wiki.rules.byod-read.then: restrict -> block",
            ]
        );
    }

    #[test]
    fn comments_and_layout_are_no_change() {
        let flow = BEFORE.replace("limits: {drain: 30s, idle: 60s}", "# why\nlimits:\n  idle: 60s\n  drain: \"30s\"");
        assert_eq!(changes(BEFORE, &flow), [""; 0]);
        assert_eq!(changes(BEFORE, BEFORE), [""; 0]);
    }

    #[test]
    fn a_rule_in_another_place_is_moved_and_its_neighbours_are_not() {
        let list =
            |names: &[&str]| names.iter().fold("rules:\n".to_owned(), |text, name| format!("{text}  - {{name: {name}, then: block}}\n"));
        let moved = |before: &[&str], after: &[&str]| changes(&list(before), &list(after));
        assert_eq!(moved(&["a", "b", "c", "d"], &["d", "a", "b", "c"]), ["rules.d: moved, now first"]);
        assert_eq!(moved(&["a", "b", "c", "d"], &["b", "c", "a", "d"]), ["rules.a: moved, now after c"]);
        assert_eq!(moved(&["a", "b", "c"], &["x", "a", "c"]), ["rules.b: removed", "rules.x: added"], "nothing moved");
        assert_eq!(changes(&list(&["a"]), "rules: []"), ["rules.a: removed"]);
    }

    #[test]
    fn things_without_a_name_are_compared_in_place() {
        let delegate = |items: &[&str]| items.iter().fold("delegate:\n".to_owned(), |text, item| format!("{text}  - {{owner: {item}}}\n"));
        assert_eq!(changes(&delegate(&["a", "b", "c"]), &delegate(&["a", "x", "b", "c"])), ["delegate[1]: added"]);
        assert_eq!(changes(&delegate(&["a", "b", "c"]), &delegate(&["a", "c"])), ["delegate[1]: removed"]);
        assert_eq!(changes(&delegate(&["a", "b"]), &delegate(&["a", "z"])), ["delegate[1].owner: b -> z"]);
        let twice = "rules: [{name: a, then: block}, {name: a, then: forward}]";
        assert_eq!(changes(twice, &twice.replace("forward", "block")), ["rules[1].then: forward -> block"], "names that are not unique");
    }

    #[test]
    fn owners_files_by_their_names() {
        let of = |files: &[(&str, &str)]| {
            let main = ("conf/vestibule.yaml", "a: 1");
            let all: Vec<_> = [main].iter().chain(files).copied().collect();
            Texts::of(all.iter().map(|(name, text)| (Path::new(*name), *text)))
        };
        let before = of(&[("conf/policy.d/a.yaml", "owner: a"), ("conf/policy.d/b.yaml", "owner: b")]);
        let after = of(&[("conf/policy.d/b.yaml", "owner: b\nrules: [{name: r, then: block}]"), ("conf/policy.d/c.yaml", "owner: c")]);
        assert_eq!(after.changes_since(&before), ["policy.d/a.yaml: removed", "policy.d/b.yaml: rules: added", "policy.d/c.yaml: added"]);
        assert_eq!(after.0.first().map(|(name, _)| name.as_str()), Some("vestibule.yaml"));
    }

    #[test]
    fn a_flood_of_changes_is_cut() {
        let many = |value: u32| (0..1000).fold(String::new(), |text, key| format!("{text}k{key}: {value}\n"));
        let lines = changes(&many(1), &many(2));
        assert_eq!((lines.len(), lines.last().map(String::as_str)), (MOST_LINES, Some("and 951 more")));
    }

    #[test]
    fn passwords_are_left_out() {
        let text = "store: {url: 'postgres://me:hunter2@db/x'}\nu: http://a:b@c:1, x: https://plain.example/a@b:c, y: p://u:p@ss@h\n";
        let kept = texts(text).0.remove(0).1;
        assert_eq!(kept, "store: {url: 'postgres://me:***@db/x'}\nu: http://a:***@c:1, x: https://plain.example/a@b:c, y: p://u:***@h\n");
        let store = "store: {url: 'postgres://me:hunter2@db/x'}";
        let told = changes(store, &store.replace("@db", "@db2"));
        assert_eq!(told, ["store.url: postgres://me:***@db/x -> postgres://me:***@db2/x"]);
    }

    #[test]
    fn any_two_texts_have_a_difference_that_ends() {
        for (a, b) in [("", "a: 1"), ("a: [", "a: 1"), ("[1, [2]]", "[{name: x}]"), ("a: ~", "a: {b: ~}"), ("x", "y")] {
            assert!(!changes(a, b).is_empty() && !changes(b, a).is_empty(), "{a} {b}");
        }
    }
}
