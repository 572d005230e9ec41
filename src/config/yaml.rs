//! YAML text to one positioned tree. Nothing here knows what the keys mean.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{AliasLimits, DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Location, Spanned};

use super::report::{Findings, Place};

/// Levels of maps and lists. The keys of the configuration need 8; conditions may nest.
const DEEPEST: usize = 32;
/// Maps, lists and scalars in a file, aliases expanded.
const MOST_NODES: usize = 200_000;

#[derive(Clone, Debug)]
pub struct Node {
    pub value: Value,
    pub place: Place,
}

#[derive(Clone, Debug)]
pub enum Value {
    Null,
    Bool(bool),
    /// `written` is the number as it stands in the file.
    Integer {
        value: i128,
        written: String,
    },
    Float {
        written: String,
    },
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    /// Of the key; its node is the value's, so that both have the same key path.
    pub key_place: Place,
    pub value: Node,
}

impl Node {
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    pub fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// What stands there, for "found ...".
    pub fn found(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => format!("`{value}`"),
            Value::Integer { written, .. } | Value::Float { written } => format!("the number {}", short(written)),
            // Where a number or a boolean is expected, what looks like one was quoted.
            Value::Text(text) if text.parse::<f64>().is_ok() || matches!(text.as_str(), "true" | "false") => {
                format!("the text \"{}\"", short(text))
            }
            Value::Text(text) => format!("`{}`", short(text)),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        }
    }

    /// The key's path of a node, `apps[0].rules[2]`: pre-order numbers lead the way down.
    pub fn path_to(&self, node: u32) -> String {
        let mut path = String::new();
        let mut here = self;
        while here.place.node != Some(node) {
            let next = match &here.value {
                Value::List(items) => {
                    let at = items.partition_point(|item| item.place.node <= Some(node)).checked_sub(1);
                    at.and_then(|at| items.get(at).map(|item| (format!("[{at}]"), item)))
                }
                Value::Map(entries) => {
                    let at = entries.partition_point(|entry| entry.value.place.node <= Some(node)).checked_sub(1);
                    at.and_then(|at| entries.get(at)).map(|entry| {
                        let dot = if path.is_empty() { "" } else { "." };
                        (format!("{dot}{}", short(&entry.key)), &entry.value)
                    })
                }
                _ => None,
            };
            let Some((step, child)) = next else { break };
            path.push_str(&step);
            here = child;
        }
        path
    }
}

/// A file's text, cut to what fits in a message, on one line.
pub fn short(text: &str) -> String {
    cut(text, 60)
}

/// The tree of one file. `None`: the file is not YAML that we read, and the one error is in `out`.
pub fn parse(text: &str, file: usize, out: &mut Findings) -> Option<Node> {
    counted(text, file, out).map(|(node, _)| node)
}

/// With the number of its nodes.
pub fn counted(text: &str, file: usize, out: &mut Findings) -> Option<(Node, usize)> {
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options()) {
        Ok(raw) => {
            let mut builder = Builder { text, file, next: 0, out };
            let node = builder.node(raw);
            Some((node, usize::try_from(builder.next).unwrap_or(usize::MAX)))
        }
        Err(error) => {
            let place = error.location().map_or(Place::of_file(file), |at| place(at, file));
            out.syntax(place, explain(text, place, &error));
            None
        }
    }
}

fn options() -> serde_saphyr::Options {
    let mut aliases = AliasLimits::default();
    aliases.max_total_replayed_events = MOST_NODES;
    aliases.max_replay_stack_depth = DEEPEST;
    serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
        reject_unsupported_tags: true,
        emit_comments: false,
        // Both are errors, but ours: they are reported all at once, with both places.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        alias_limits: aliases,
        budget: serde_saphyr::budget! {
            max_depth: DEEPEST,
            flow_nesting_limit: DEEPEST,
            max_nodes: MOST_NODES,
            max_events: 3 * MOST_NODES,
            max_documents: 1,
            max_aliases: 10_000,
            max_anchors: 10_000,
        },
    }
}

fn place(at: Location, file: usize) -> Place {
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).max(1);
    Place { file, node: None, line: number(at.line()), column: number(at.column()), width: usize::try_from(at.span().len()).unwrap_or(0) }
}

/// The parser's own words, or better ones for mistakes that people make often.
fn explain(text: &str, place: Place, error: &serde_saphyr::Error) -> String {
    let line = text.lines().nth(place.line.saturating_sub(1)).unwrap_or_default();
    let indent: String = line.chars().take_while(|c| c.is_whitespace()).collect();
    if indent.contains('\t') {
        return "a tab in the indentation; YAML wants spaces".to_owned();
    }
    if let Some(limit) = limit(error) {
        return limit;
    }
    let message = error.without_snippet().render();
    if message.contains("found a tab") {
        return "found a tab; YAML wants spaces".to_owned();
    }
    // The position is told by us already.
    let message = message.split(" at line ").next().unwrap_or(&message).lines().next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let message = message.strip_prefix(&format!("line {} column {}: ", place.line, place.column)).unwrap_or(message);
    format!("not readable as YAML: {}", cut(message, 300))
}

/// What bounds the work that a hostile file can cause.
fn limit(error: &serde_saphyr::Error) -> Option<String> {
    use serde_saphyr::budget::BudgetBreach as Breach;
    let text = error.without_snippet().render();
    if let serde_saphyr::Error::Budget { breach, .. } = error.without_snippet() {
        return Some(match breach {
            Breach::Documents { .. } => "a second document; a file holds one".to_owned(),
            Breach::Depth { .. } => format!("nested deeper than {DEEPEST} levels"),
            Breach::Nodes { .. } | Breach::Events { .. } => format!("more than {MOST_NODES} values"),
            Breach::Aliases { .. } | Breach::Anchors { .. } | Breach::AliasAnchorRatio { .. } => "too many anchors or aliases".to_owned(),
            _ => "larger than a configuration can be".to_owned(),
        });
    }
    if text.contains("recursion limit") {
        return Some(format!("nested deeper than {DEEPEST} levels"));
    }
    if text.contains("recursive references") {
        return Some("an alias inside its own anchor".to_owned());
    }
    text.contains("alias replay limit").then(|| format!("aliases that come to more than {MOST_NODES} values"))
}

fn cut(text: &str, most: usize) -> String {
    let mut out: String = text.chars().take(most).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(most).is_some() {
        out.push('…');
    }
    out
}

/// What the deserialiser gives: values with places, nothing resolved.
enum Raw {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<Self>, Spanned<Self>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Integer(i128::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Integer(i128::from(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            if items.len() >= MOST_NODES {
                return Err(A::Error::custom("too many items"));
            }
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            if entries.len() >= MOST_NODES {
                return Err(A::Error::custom("too many keys"));
            }
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

struct Builder<'a> {
    text: &'a str,
    file: usize,
    next: u32,
    out: &'a mut Findings,
}

impl Builder<'_> {
    fn node(&mut self, raw: Spanned<Raw>) -> Node {
        let number = self.next;
        self.next = self.next.saturating_add(1);
        // The place of use: for an alias that is where the mistake can be mended, and what the operator looks for.
        let place = Place { node: Some(number), ..place(raw.referenced, self.file) };
        let value = match raw.value {
            Raw::Null => Value::Null,
            Raw::Bool(value) => Value::Bool(value),
            Raw::Integer(value) => Value::Integer { value, written: self.written(raw.defined).unwrap_or_else(|| value.to_string()) },
            Raw::Float(value) => Value::Float { written: self.written(raw.defined).unwrap_or_else(|| value.to_string()) },
            Raw::Text(text) => Value::Text(text),
            Raw::List(items) => Value::List(items.into_iter().map(|item| self.node(item)).collect()),
            Raw::Map(entries) => Value::Map(self.entries(entries)),
        };
        let place = match value {
            Value::List(_) | Value::Map(_) => Place { width: 1, ..place },
            _ => place,
        };
        Node { value, place }
    }

    fn entries(&mut self, raw: Vec<(Spanned<Raw>, Spanned<Raw>)>) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::with_capacity(raw.len());
        let mut seen: HashMap<String, Place> = HashMap::new();
        for (key, value) in raw {
            let key_place = place(key.referenced, self.file);
            let key = match key.value {
                Raw::Text(text) => text,
                Raw::Null => "null".to_owned(),
                Raw::Bool(value) => value.to_string(),
                Raw::Integer(value) => self.written(key.defined).unwrap_or_else(|| value.to_string()),
                Raw::Float(value) => self.written(key.defined).unwrap_or_else(|| value.to_string()),
                Raw::List(_) | Raw::Map(_) => {
                    let place = Place { node: Some(self.next.saturating_sub(1)), width: 1, ..key_place };
                    self.out.shape(place, "found a list or a map as a key, expected text");
                    continue;
                }
            };
            let value = self.node(value);
            let key_place = Place { node: value.place.node, ..key_place };
            match seen.get(&key) {
                Some(first) => self.out.duplicate(key_place, format!("the key `{}` stands twice", short(&key)), *first),
                None => drop(seen.insert(key.clone(), key_place)),
            }
            entries.push(Entry { key, key_place, value });
        }
        entries
    }

    /// The scalar's own characters; not those of a text that a tag makes a number.
    fn written(&self, at: Location) -> Option<String> {
        let start = usize::try_from(at.span().byte_offset()?).ok()?;
        let len = usize::try_from(at.span().byte_len()?).ok()?;
        self.text
            .get(start..start.checked_add(len)?)
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.starts_with(['"', '\'', '|', '>']))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Node {
        parse(text, 0, &mut Findings::default()).expect("YAML")
    }

    #[test]
    fn every_node_knows_its_place_and_its_path() {
        let root = tree("a:\n  - x: 1.10\n    ü: é\n  - [on, true]\nb: {c: ~}\n");
        let place = |node: &Node| (node.place.line, node.place.column, node.place.width);
        let list = root.entry("a").unwrap();
        assert_eq!((list.key_place.line, list.key_place.column), (1, 1));
        let [first, second] = list.value.items() else { panic!() };
        let x = &first.entry("x").unwrap().value;
        assert_eq!((place(x), root.path_to(x.place.node.unwrap()).as_str()), ((2, 8, 4), "a[0].x"));
        assert_eq!(x.found(), "the number 1.10", "as written, not as 1.1");
        let accent = &first.entry("ü").unwrap().value;
        assert_eq!((place(accent), root.path_to(accent.place.node.unwrap()).as_str()), ((3, 8, 1), "a[0].ü"));
        let [on, yes] = second.items() else { panic!() };
        assert_eq!((on.text(), root.path_to(on.place.node.unwrap()).as_str()), (Some("on"), "a[1][0]"));
        assert!(matches!(yes.value, Value::Bool(true)));
        assert!(matches!(root.entry("b").unwrap().value.entry("c").unwrap().value.value, Value::Null));
        assert_eq!(root.path_to(0), "");
    }

    #[test]
    fn an_alias_stands_where_it_is_used() {
        let root = tree("a: &x {k: v}\nb: *x\n");
        let copy = &root.entry("b").unwrap().value;
        let value = &copy.entry("k").unwrap().value;
        assert_eq!((copy.place.line, copy.place.column), (2, 4));
        assert_eq!((value.place.line, root.path_to(value.place.node.unwrap()).as_str()), (2, "b.k"));
    }

    #[test]
    fn every_prefix_of_a_file_is_read_or_refused() {
        let text = "a: [1, {b: 'c', \"d\": |\n  e\n}]\nf: &g h\ni: *g\n? j\n: !!str k\n";
        for end in 0..=text.len() {
            let mut out = Findings::default();
            let node = parse(text.get(..end).unwrap_or_default(), 0, &mut out);
            assert_eq!(node.is_none(), out.errors() > 0, "{end}");
        }
    }

    #[test]
    fn long_and_odd_text_is_cut_for_messages() {
        assert_eq!(short("a\nb\u{1b}[31m"), "a\u{fffd}b\u{fffd}[31m");
        assert_eq!(short(&"x".repeat(1000)).chars().count(), 61);
    }
}
