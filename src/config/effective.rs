//! The configuration as it is in effect: every file with the defaults of the keys that it leaves out.

use std::fmt::Write;
use std::path::PathBuf;

use super::report::Findings;
use super::shape::{Kind, Need, Shape};
use super::yaml::{Node, Value};
use super::{shapes, text, yaml};

/// What an absent map means whose keys have defaults of their own.
const OF_ITS_KEYS: &str = "the defaults of its keys";

/// One YAML document for each file, the main one first, each owner's after a line with its name. Comments, anchors and the order of keys are
/// not kept; relative paths stand as they were written. What is not read as a configuration is left out.
pub fn effective(files: &[(PathBuf, Vec<u8>)]) -> String {
    let mut printed = String::new();
    for (at, (path, bytes)) in files.iter().enumerate() {
        let mut unread = Findings::default();
        let tree = text::decode(bytes, at, &mut unread).and_then(|text| yaml::parse(&text, at, &mut unread));
        let Some(tree) = tree else { continue };
        let name = path.display().to_string().replace(char::is_control, "\u{fffd}");
        let shape = if at == 0 { &shapes::ROOT } else { &shapes::OWNER_FILE };
        let _ = writeln!(printed, "{}# {name}, with all defaults", if at == 0 { "" } else { "---\n" });
        let mut printer = Printer { out: &mut printed };
        printer.keys(Some(&tree), shape, 0);
    }
    printed
}

struct Printer<'a> {
    out: &'a mut String,
}

impl Printer<'_> {
    /// The keys of a map, each on a line of its own; the first one stands where the line already is, after a `- `.
    fn keys(&mut self, node: Option<&Node>, shape: &'static Shape, depth: usize) {
        let mut first = depth > 0 && self.out.ends_with("- ");
        for key in shape.keys {
            let value = node.and_then(|node| node.entry(key.name)).map(|entry| &entry.value);
            let absent = matches!((&key.need, &key.kind), (Need::Absent(OF_ITS_KEYS), Kind::Shape(_)) | (Need::Default(_), _));
            if value.is_none() && !absent {
                continue;
            }
            if !std::mem::take(&mut first) {
                self.indent(depth);
            }
            let _ = write!(self.out, "{}:", key.name);
            match (value, &key.need) {
                (None, Need::Default(text)) => self.default(text, &key.kind),
                _ => self.value(value, &key.kind, depth),
            }
        }
        if first {
            self.out.push_str("{}\n");
        }
    }

    fn default(&mut self, text: &str, kind: &Kind) {
        let plain = matches!(kind, Kind::Flag | Kind::Count { .. }) || matches!(kind, Kind::CountOr(word, ..) if *word != text);
        let text = if plain { text.to_owned() } else { scalar(text) };
        let _ = writeln!(self.out, " {text}");
    }

    /// After `key:` or `-`.
    fn value(&mut self, node: Option<&Node>, kind: &'static Kind, depth: usize) {
        match (kind, node.map(|node| &node.value)) {
            (Kind::Shape(shape) | Kind::Either(_, shape), Some(Value::Map(_)) | None) => {
                self.out.push('\n');
                let before = self.out.len();
                self.keys(node, shape, depth + 1);
                if self.out.len() == before {
                    self.out.pop();
                    self.out.push_str(" {}\n");
                }
            }
            (Kind::Some(of) | Kind::List(of), Some(Value::List(items))) if matches!(of, Kind::Shape(_)) && !items.is_empty() => {
                self.out.push('\n');
                for item in items {
                    self.indent(depth + 1);
                    self.out.push_str("- ");
                    match of {
                        Kind::Shape(shape) => self.keys(Some(item), shape, depth + 2),
                        _ => self.value(Some(item), of, depth + 1),
                    }
                }
            }
            (Kind::Map(of), Some(Value::Map(entries))) if !entries.is_empty() => {
                self.out.push('\n');
                for entry in entries {
                    self.indent(depth + 1);
                    let _ = write!(self.out, "{}:", scalar(&entry.key));
                    self.value(Some(&entry.value), of, depth + 1);
                }
            }
            (_, Some(_)) => {
                self.out.push(' ');
                node.into_iter().for_each(|node| self.inline(node));
                self.out.push('\n');
            }
            (_, None) => self.out.push_str(" {}\n"),
        }
    }

    fn inline(&mut self, node: &Node) {
        match &node.value {
            Value::Null => self.out.push('~'),
            Value::Bool(value) => self.out.push_str(if *value { "true" } else { "false" }),
            Value::Integer { written, .. } | Value::Float { written } => self.out.push_str(written),
            Value::Text(text) => self.out.push_str(&scalar(&redacted(text))),
            Value::List(items) => self.between(['[', ']'], items, Self::inline),
            Value::Map(entries) => self.between(['{', '}'], entries, |printer, entry| {
                let _ = write!(printer.out, "{}: ", scalar(&entry.key));
                printer.inline(&entry.value);
            }),
        }
    }

    fn between<T>(&mut self, [open, close]: [char; 2], items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.out.push(open);
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                self.out.push_str(", ");
            }
            each(self, item);
        }
        self.out.push(close);
    }

    fn indent(&mut self, depth: usize) {
        (0..depth).for_each(|_| self.out.push_str("  "));
    }
}

/// Plain where nothing could take it for anything but text, else in the quotes of JSON, which YAML reads.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.' | b'/'))
        && !matches!(text.to_ascii_lowercase().as_str(), "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n");
    if plain {
        return text.to_owned();
    }
    let quoted = serde_json::Value::from(text).to_string();
    // What JSON leaves as it is and YAML does not print.
    quoted.chars().map(|c| if c.is_ascii() || c.is_alphanumeric() { c.to_string() } else { escaped(c) }).collect()
}

fn escaped(c: char) -> String {
    format!("\\U{:08X}", u32::from(c))
}

/// Without the password of a URL.
fn redacted(text: &str) -> String {
    let parts = text.split_once("://").and_then(|(scheme, rest)| {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end)?;
        let (user, host) = authority.rsplit_once('@')?;
        let (name, _) = user.split_once(':')?;
        Some(format!("{scheme}://{name}:REDACTED@{host}{path}"))
    });
    parts.unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_not_printed() {
        assert_eq!(redacted("postgres://me:hunter2@db:5432/x?a=b"), "postgres://me:REDACTED@db:5432/x?a=b");
        assert_eq!(redacted("postgres://me@db/x"), "postgres://me@db/x");
        assert_eq!(redacted("http://a:1/x@y:z"), "http://a:1/x@y:z");
        let printed = effective(&[("v.yaml".into(), b"store: {url: 'postgres://me:hunter2@db/x'}".to_vec())]);
        assert!(printed.contains("url: \"postgres://me:REDACTED@db/x\"") && !printed.contains("hunter2"), "{printed}");
    }

    #[test]
    fn any_text_is_read_back() {
        for text in
            ["", "a", "no", "On", "1", "1.0", "~", "null", "a: b", "# a", "é\u{85}\u{2028}\u{feff}\t\n\r\\\"'", "\u{1F600}", "*a", "[", "-"]
        {
            let printed = format!("a: {}\n", scalar(text));
            let tree = yaml::parse(&printed, 0, &mut Findings::default()).unwrap_or_else(|| panic!("{printed}"));
            assert_eq!(tree.entry("a").unwrap().value.text(), Some(text), "{printed}");
        }
    }

    #[test]
    fn a_number_is_read_back_also_where_a_tag_made_it_one() {
        for (written, value) in [("5", 5), ("0x10", 16), ("1_000", 1000), ("!!int \"5\"", 5), ("!!int '7'", 7)] {
            let printed = effective(&[("v.yaml".into(), format!("limits: {{connections: {written}}}").into_bytes())]);
            let tree = yaml::parse(&printed, 0, &mut Findings::default()).expect("YAML");
            let limit = tree.entry("limits").and_then(|limits| limits.value.entry("connections")).expect("a limit");
            assert!(matches!(limit.value.value, Value::Integer { value: found, .. } if found == value), "{written}: {limit:?}");
        }
    }
}
