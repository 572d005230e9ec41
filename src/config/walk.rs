//! Walks a file's tree against its shape and reports every mistake of form in one run.

use super::report::Findings;
use super::shape::{COMBINE, Key, Kind, Need, SELECTORS, Shape, article, one_of};
use super::signals::{self, SIGNALS, SignalKind};
use super::yaml::{Node, Value, short};
use super::{shapes, units};
use crate::policy::draft::WireField;

/// Names longer than this are not compared with the known ones.
const LONGEST_COMPARED: usize = 64;

pub fn shape(node: &Node, shape: &'static Shape, out: &mut Findings) {
    let Value::Map(entries) = &node.value else {
        out.shape(node.place, format!("found {}, expected a map with the keys of `{}`", node.found(), shape.name));
        return;
    };
    for entry in entries {
        match shape.key(&entry.key) {
            Some(key) => kind(&entry.value, &key.kind, out),
            None => {
                let known = shape.keys.iter().map(|key| key.name);
                let of_main = std::ptr::eq(shape, &shapes::OWNER_FILE) && (shapes::ROOT.key(&entry.key).is_some() || entry.key == "ladder");
                let message = if of_main {
                    let keys: Vec<_> = known.collect();
                    format!("`{}` stands in the main file only; an owner's file has {}", short(&entry.key), keys.join(", "))
                } else {
                    unknown("unknown key", &entry.key, known, out)
                };
                out.shape(entry.key_place, message);
            }
        }
    }
    for Key { name, kind, need, .. } in shape.keys {
        if matches!(need, Need::Required) && node.entry(name).is_none() {
            out.shape(node.place, format!("missing key `{name}`: expected {}", kind.expected()));
        }
    }
}

fn kind(node: &Node, kind: &'static Kind, out: &mut Findings) {
    match kind {
        Kind::Text(what) => {
            let what = article(what);
            if text(node, &what, out).is_some_and(|text| text.trim().is_empty()) {
                out.shape(node.place, format!("found empty text, expected {what}"));
            }
        }
        Kind::Name => {
            if let Some(text) = text(node, "a name", out).filter(|text| !units::name(text)) {
                out.shape(node.place, bad_name(text));
            }
        }
        Kind::Word(words) => {
            if let Some(text) = text(node, &kind.expected(), out).filter(|text| !words.contains(text)) {
                let hint = nearest(text, words.iter().copied()).map(|word| format!("; did you mean `{word}`?")).unwrap_or_default();
                out.shape(node.place, format!("found `{}`, expected {}{hint}", short(text), kind.expected()));
            }
        }
        Kind::Flag => expect(matches!(node.value, Value::Bool(_)), node, kind, out),
        Kind::Count { min, max } => expect(in_range(node, *min, *max), node, kind, out),
        Kind::CountOr(word, min, max) => expect(node.text() == Some(word) || in_range(node, *min, *max), node, kind, out),
        Kind::Duration(min, max) => duration(node, (min, max), kind, out),
        Kind::Size(min, max) => size(node, (min, max), kind, out),
        Kind::Rate => expect(node.text().and_then(units::rate).is_some(), node, kind, out),
        Kind::Bandwidth(min, max) => bandwidth(node, (min, max), kind, out),
        Kind::Date => expect(node.text().is_some_and(units::is_date), node, kind, out),
        Kind::Fact => expect(node.text().is_some_and(|text| signals::fact(text) && text != "age"), node, kind, out),
        Kind::OneOrMore(of) => match &node.value {
            Value::List(_) => list(node, of, &Kind::Some(of), out),
            _ => self::kind(node, of, out),
        },
        Kind::Given => given(node, kind, out),
        Kind::Some(of) | Kind::List(of) => list(node, of, kind, out),
        Kind::Map(of) => map(node, of, kind, out),
        Kind::Shape(of) => shape(node, of, out),
        Kind::Either(other, of) => match (&node.value, other) {
            (Value::Map(_), _) => shape(node, of, out),
            (Value::List(_), Kind::Some(_)) | (Value::Text(_), Kind::Word(_)) => self::kind(node, other, out),
            _ => expect(false, node, kind, out),
        },
        Kind::Condition => condition(node, out),
        Kind::Apps => apps(node, kind, out),
    }
}

fn expect(right: bool, node: &Node, kind: &Kind, out: &mut Findings) {
    if !right {
        out.shape(node.place, format!("found {}, expected {}", node.found(), kind.expected()));
    }
}

fn in_range(node: &Node, min: u64, max: u64) -> bool {
    matches!(node.value, Value::Integer { value, .. } if (i128::from(min)..=i128::from(max)).contains(&value))
}

fn text<'a>(node: &'a Node, what: &str, out: &mut Findings) -> Option<&'a str> {
    match &node.value {
        Value::Text(text) => return Some(text),
        // In quotes it would be none of the words that are listed either.
        _ if what.starts_with('`') => out.shape(node.place, format!("found {}, expected {what}", node.found())),
        Value::Integer { written, .. } | Value::Float { written } => {
            out.shape(node.place, format!("found the number {0}, expected {what}: write \"{0}\" in quotes", short(written)));
        }
        Value::Bool(value) => {
            out.shape(node.place, format!("found `{value}`, expected {what}: write \"{value}\" in quotes if it is meant"));
        }
        _ => out.shape(node.place, format!("found {}, expected {what}", node.found())),
    }
    None
}

fn duration(node: &Node, (min, max): (&str, &str), kind: &Kind, out: &mut Findings) {
    match node.text().and_then(units::duration) {
        None => {
            let hint = match &node.value {
                Value::Integer { written, .. } => format!("; a duration has a unit: `{0}ms`, `{0}s`", short(written)),
                _ => String::new(),
            };
            out.shape(node.place, format!("found {}, expected {}{hint}", node.found(), kind.expected()));
        }
        Some(time) if units::duration(min).is_some_and(|min| time < min) || units::duration(max).is_some_and(|max| time > max) => {
            out.error(node.place, format!("found {}, expected {}", node.found(), kind.expected()));
        }
        Some(_) => {}
    }
}

/// The bytes of a size: text with a unit, or a plain number.
pub fn bytes(node: &Node) -> Option<u64> {
    match &node.value {
        Value::Text(text) => units::size(text),
        Value::Integer { value, .. } => u64::try_from(*value).ok().filter(|bytes| *bytes > 0),
        _ => None,
    }
}

fn size(node: &Node, (min, max): (&str, &str), kind: &Kind, out: &mut Findings) {
    match bytes(node) {
        None => {
            let hint = if node.text().is_some_and(|text| text.contains('B')) { "; units are KiB, MiB and GiB" } else { "" };
            out.shape(node.place, format!("found {}, expected {}{hint}", node.found(), kind.expected()));
        }
        Some(size) if units::size(min).is_some_and(|min| size < min) || units::size(max).is_some_and(|max| size > max) => {
            out.error(node.place, format!("found {}, expected {}", node.found(), kind.expected()));
        }
        Some(_) => {}
    }
}

fn bandwidth(node: &Node, (min, max): (&str, &str), kind: &Kind, out: &mut Findings) {
    match node.text().and_then(units::bandwidth) {
        None => expect(false, node, kind, out),
        Some(rate) if units::bandwidth(min).is_some_and(|min| rate < min) || units::bandwidth(max).is_some_and(|max| rate > max) => {
            out.error(node.place, format!("found {}, expected {}", node.found(), kind.expected()));
        }
        Some(_) => {}
    }
}

/// A situation: signals that there are, each with a scalar or several.
fn given(node: &Node, is: &Kind, out: &mut Findings) {
    let Value::Map(entries) = &node.value else {
        expect(false, node, is, out);
        return;
    };
    for entry in entries {
        if entry.key == signals::NOW {
            kind(&entry.value, &Kind::Date, out);
        } else if signals::find(&entry.key).is_none() {
            let message = unknown_signal(&entry.key, out);
            out.shape(entry.key_place, message);
        } else {
            let items = match &entry.value.value {
                Value::List(items) if items.is_empty() => std::slice::from_ref(&entry.value),
                Value::List(items) => items,
                _ => std::slice::from_ref(&entry.value),
            };
            for item in items.iter().filter(|item| matches!(item.value, Value::Null | Value::List(_) | Value::Map(_))) {
                out.shape(item.place, format!("found {}, expected a value of `{}`", item.found(), short(&entry.key)));
            }
        }
    }
}

fn list(node: &Node, of: &'static Kind, is: &Kind, out: &mut Findings) {
    let Value::List(items) = &node.value else {
        expect(false, node, is, out);
        return;
    };
    if items.is_empty() && matches!(is, Kind::Some(_)) {
        out.shape(node.place, format!("found an empty list, expected {}", is.expected()));
    }
    for item in items {
        kind(item, of, out);
    }
}

fn map(node: &Node, of: &'static Kind, is: &Kind, out: &mut Findings) {
    let Value::Map(entries) = &node.value else {
        expect(false, node, is, out);
        return;
    };
    for entry in entries {
        if !units::name(&entry.key) {
            out.shape(entry.key_place, bad_name(&entry.key));
        }
        kind(&entry.value, of, out);
    }
}

fn bad_name(text: &str) -> String {
    format!("found `{}`, expected a name: letters, digits, `_`, `.`, `-`, at most 64, first a letter or digit", short(text))
}

fn apps(node: &Node, kind: &Kind, out: &mut Findings) {
    match &node.value {
        Value::List(_) => list(node, &Kind::Name, &Kind::Some(&Kind::Name), out),
        Value::Map(entries) => {
            for entry in entries {
                if SELECTORS.iter().any(|(name, _)| *name == entry.key) {
                    self::kind(&entry.value, &Kind::Name, out);
                } else {
                    let message = unknown("unknown key", &entry.key, SELECTORS.iter().map(|(name, _)| *name), out);
                    out.shape(entry.key_place, message);
                }
            }
            if entries.len() != 1 {
                out.shape(node.place, format!("found {} keys, expected `label` or `owner`", entries.len()));
            }
        }
        _ => expect(false, node, kind, out),
    }
}

fn condition(node: &Node, out: &mut Findings) {
    let Value::Map(entries) = &node.value else {
        out.shape(
            node.place,
            format!("found {}, expected a condition: a map of signals, such as `{{device.state: approved}}`", node.found()),
        );
        return;
    };
    for entry in entries {
        match entry.key.as_str() {
            "all" | "any" => list(&entry.value, &Kind::Condition, &Kind::Some(&Kind::Condition), out),
            "not" => condition(&entry.value, out),
            key => match signals::find(key) {
                Some((signal, _)) => wanted(&entry.value, signal.kind, out),
                None => {
                    let message = unknown_signal(key, out);
                    out.shape(entry.key_place, message);
                }
            },
        }
    }
}

/// The value of a signal: one, or a list of which any may match.
fn wanted(node: &Node, signal: SignalKind, out: &mut Findings) {
    let Value::List(items) = &node.value else {
        one(node, signal, out);
        return;
    };
    if items.is_empty() {
        out.shape(node.place, "found an empty list, expected at least one value");
    }
    for item in items {
        one(item, signal, out);
    }
}

fn one(node: &Node, signal: SignalKind, out: &mut Findings) {
    match signal {
        SignalKind::OnNet => {
            let right = matches!(node.value, Value::Bool(_)) || node.text() == Some("none");
            if !right {
                out.shape(node.place, format!("found {}, expected `true`, `false` or `none`", node.found()));
            }
        }
        SignalKind::Wire(WireField::Intercepted | WireField::Drift) => {
            if !matches!(node.value, Value::Bool(_)) {
                out.shape(node.place, format!("found {}, expected `true` or `false`", node.found()));
            }
        }
        SignalKind::Fact | SignalKind::KeyProof | SignalKind::Weekday => {
            let words = signals::words(signal);
            let expected = one_of(&words);
            if let Some(text) = text(node, &expected, out).filter(|text| !words.contains(text)) {
                let hint = nearest(text, words.iter().copied()).map(|word| format!("; did you mean `{word}`?")).unwrap_or_default();
                out.shape(node.place, format!("found `{}`, expected {expected}{hint}", short(text)));
            }
        }
        _ => {
            if text(node, "a value", out).is_some_and(str::is_empty) {
                out.shape(node.place, "found empty text, expected a value");
            }
        }
    }
}

fn unknown_signal(key: &str, out: &Findings) -> String {
    let known = COMBINE.iter().map(|(name, _)| *name).chain(SIGNALS.iter().map(|signal| signal.name)).filter(|name| !name.contains('<'));
    // Facts have free names: a key under `posture.` that is no signal is malformed, not misspelt.
    if !key.starts_with("posture.")
        && let Some(message) = unknown_word("unknown signal", key, known, out)
    {
        return message;
    }
    match key.split_once('.').map(|(room, _)| room) {
        Some("posture") => format!("unknown signal `{}`; expected `posture.<fact>`, `posture.<fact>.age` or `posture.age`", short(key)),
        Some("http") => {
            format!("unknown signal `{}`; expected `http.method`, `http.path`, `http.host` or `http.header.<name>`", short(key))
        }
        Some(room) if SIGNALS.iter().any(|signal| signal.name.starts_with(&format!("{room}."))) => {
            let names: Vec<_> =
                SIGNALS.iter().filter(|signal| signal.name.starts_with(&format!("{room}."))).map(|signal| signal.name).collect();
            format!("unknown signal `{}`; expected one of {}", short(key), names.join(", "))
        }
        _ => format!(
            "unknown signal `{}`; signals begin with `class`, `tier`, `device.`, `posture.`, `wire.`, `claims.`, `net.`, `http.` or `time.`",
            short(key)
        ),
    }
}

/// `unknown key `hots`; did you mean `hosts`?`, or the list of what is known.
fn unknown(what: &str, found: &str, known: impl Iterator<Item = &'static str> + Clone, out: &Findings) -> String {
    unknown_word(what, found, known.clone(), out)
        .unwrap_or_else(|| format!("{what} `{}`; expected one of {}", short(found), known.collect::<Vec<_>>().join(", ")))
}

fn unknown_word(what: &str, found: &str, known: impl Iterator<Item = &'static str>, out: &Findings) -> Option<String> {
    if found == "<<" {
        return Some("merge keys (`<<`) are not read; use an alias for the whole value".to_owned());
    }
    if out.full() {
        return Some(format!("{what} `{}`", short(found)));
    }
    nearest(found, known).map(|name| format!("{what} `{}`; did you mean `{name}`?", short(found)))
}

/// The known name that a person most likely meant.
pub fn nearest<'a>(found: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if found.len() > LONGEST_COMPARED {
        return None;
    }
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let wanted = plain(found);
    let close = known.map(|name| (strsim::damerau_levenshtein(&wanted, &plain(name)), name));
    let longest = (1 + found.chars().count() / 5).min(3);
    close.filter(|(distance, _)| *distance <= longest).min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_close_or_none() {
        let known = ["hosts", "path_prefix", "upstream", "owner"];
        let near = |found| nearest(found, known.into_iter());
        assert_eq!(near("host"), Some("hosts"));
        assert_eq!(near("path-prefix"), Some("path_prefix"));
        assert_eq!(near("Owner"), Some("owner"));
        assert_eq!(near("proxy_protocol"), None);
        assert_eq!(near(&"x".repeat(100_000)), None);
    }
}
