//! JSON: a list of device objects, one object, or one object a line. What an object does not state stays as it is; `null` clears a field.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{DEVICES_MAX, Place, Reading};
use crate::model::KeyKind;
use crate::posture::edit::{Edit, FIELDS, KEPT, Op, Seen, unknown};
use crate::posture::values::{self, Wrong};

pub fn read(bytes: &[u8], reading: &mut Reading<'_>) {
    let mut text = Text { bytes, at: 0, line: 1, column: 1 };
    let list = text.next() == Some(b'[');
    if list {
        text.step();
        if text.next() == Some(b']') {
            text.step();
            return end(&mut text, reading);
        }
    }
    while let Some(byte) = text.next() {
        let place = text.place();
        if reading.edits.len() >= DEVICES_MAX {
            return reading.problem(place, format!("more than {DEVICES_MAX} devices; split the file"));
        }
        if byte != b'{' {
            return reading
                .problem(place, format!("found `{}`, expected `{{`, the beginning of a device", char::from(byte).escape_default()));
        }
        let mut values = serde_json::Deserializer::from_slice(text.rest()).into_iter::<Value>();
        match values.next() {
            Some(Ok(Value::Map(fields))) => device(&fields, place, reading),
            // A value that begins with `{` and is whole is a map.
            Some(Ok(_)) | None => return,
            Some(Err(error)) => {
                reading.problem(text.place_in(&error), message(&error));
                // One object a line: the next line is a new beginning.
                if list || !text.next_line() {
                    return;
                }
                continue;
            }
        }
        text.skip(values.byte_offset());
        match (list, text.next()) {
            (true, Some(b',')) => text.step(),
            (true, Some(b']')) => {
                text.step();
                return end(&mut text, reading);
            }
            (true, _) => return reading.problem(text.place(), "expected `,` or `]` after a device".to_owned()),
            (false, _) => {}
        }
    }
    if list {
        reading.problem(text.place(), "the list does not end; expected another device".to_owned());
    }
}

fn end(text: &mut Text<'_>, reading: &mut Reading<'_>) {
    if text.next().is_some() {
        reading.problem(text.place(), "expected nothing after the list".to_owned());
    }
}

/// serde_json's text without its own position, which counts from the beginning of the object.
fn message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(message, _)| message.to_owned())
}

fn device(fields: &[(String, Value)], place: Place, reading: &mut Reading<'_>) {
    let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    let id = match field("id") {
        Some(Value::Text(id)) => Edit::new(id),
        other => Err(Wrong {
            field: "id".to_owned(),
            found: other.map_or("nothing".to_owned(), Value::shown),
            expected: "a text".to_owned(),
            nearest: None,
        }),
    };
    let mut edit = reading.edit(place, id);
    let seen = Times::of(field);
    for (name, value) in fields {
        let result = match (name.as_str(), value) {
            ("id", _) => Ok(()),
            ("tags", Value::List(tags)) => texts("tags", tags).and_then(|tags| edit.replace_tags(tags.into_iter())),
            ("keys", Value::List(keys)) => {
                keys.iter().map(|k| key(k, reading)).collect::<Result<_, _>>().map(|keys| edit.replace_keys(keys))
            }
            ("posture", Value::Map(facts)) => {
                for (fact, value) in facts {
                    posture(&mut edit, fact, value, (&seen, place), reading);
                }
                Ok(())
            }
            ("posture", _) => Err(wrong("posture", value, "a map of facts")),
            ("tags" | "keys", Value::Null) => edit.assign(name, Op::Replace, "", reading.terms),
            ("tags" | "keys", _) => Err(wrong(name, value, "a list")),
            ("source" | "observed_at" | "expires_at", Value::Text(_) | Value::Null) => Ok(()),
            ("source" | "observed_at" | "expires_at", _) => Err(wrong(name, value, "a text")),
            ("onnet", Value::Bool(onnet)) => edit.assign(name, Op::Replace, if *onnet { "true" } else { "false" }, reading.terms),
            ("onnet", Value::Text(_)) => Err(wrong(name, value, "true or false, without quotes")),
            (name, Value::Text(text)) if FIELDS.contains(&name) => match text.is_empty() {
                true => Err(Wrong::new(name, "", "a text, or null to clear the field")),
                false => edit.assign(name, Op::Replace, text, reading.terms),
            },
            (name, Value::Null) if FIELDS.contains(&name) => edit.assign(name, Op::Replace, "", reading.terms),
            (name, _) if FIELDS.contains(&name) => Err(wrong(name, value, "a text")),
            (name, _) if KEPT.contains(&name) => Ok(()),
            (name, _) => Err(unknown(name)),
        };
        reading.noted(place, result);
    }
    reading.add(place, edit);
}

/// `source`, `observed_at` and `expires_at` of an object; those of a fact stand in for those of its device.
#[derive(Clone, Copy, Default)]
struct Times<'v> {
    source: Option<&'v str>,
    observed_at: Option<&'v str>,
    expires_at: Option<&'v str>,
}

impl<'v> Times<'v> {
    fn of(field: impl Fn(&str) -> Option<&'v Value>) -> Self {
        let text = |name| match field(name) {
            Some(Value::Text(text)) => Some(text.as_str()),
            _ => None,
        };
        Self { source: text("source"), observed_at: text("observed_at"), expires_at: text("expires_at") }
    }

    fn or(self, outer: &Self) -> Self {
        let Self { source, observed_at, expires_at } = self;
        Self {
            source: source.or(outer.source),
            observed_at: observed_at.or(outer.observed_at),
            expires_at: expires_at.or(outer.expires_at),
        }
    }

    fn seen(self, reading: &Reading<'_>) -> Result<Seen, Wrong> {
        reading.seen(self.source, self.observed_at, self.expires_at)
    }
}

/// A fact: `"ok"`, or an object that says more, and under `also` what other sources say.
fn posture(edit: &mut Edit, fact: &str, value: &Value, (outer, place): (&Times<'_>, Place), reading: &mut Reading<'_>) {
    let path = format!("posture.{fact}");
    let result = match value {
        Value::Text(state) if !state.is_empty() => outer.seen(reading).and_then(|seen| edit.fact(fact, state, None, &seen)),
        Value::Map(fields) => {
            let others = fields.iter().filter(|(name, _)| name == "also").map(|(_, value)| value);
            for other in others {
                match other {
                    Value::List(list) => list.iter().for_each(|one| posture(edit, fact, one, (outer, place), reading)),
                    _ => reading.problem(place, wrong(&format!("{path}.also"), other, "a list").to_string()),
                }
            }
            observation(edit, fact, fields, outer, reading)
        }
        _ => Err(wrong(&path, value, "ok, fail, or a map with state, source and observed_at")),
    };
    reading.noted(place, result);
}

fn observation(edit: &mut Edit, fact: &str, fields: &[(String, Value)], outer: &Times<'_>, reading: &Reading<'_>) -> Result<(), Wrong> {
    const KNOWN: [&str; 6] = ["state", "value", "source", "observed_at", "expires_at", "also"];
    let path = |name: &str| format!("posture.{fact}.{name}");
    let (mut state, mut says) = (None, None);
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("state", Value::Text(text)) if !text.is_empty() => state = Some(text),
            ("state", _) => return Err(wrong(&path(name), value, "ok or fail")),
            ("value", Value::Text(text)) => says = Some(text.as_str()),
            ("also", _) | ("value" | "source" | "observed_at" | "expires_at", Value::Null) => {}
            ("source" | "observed_at" | "expires_at", Value::Text(_)) => {}
            (name, _) if KNOWN.contains(&name) => return Err(wrong(&path(name), value, "a text")),
            (name, _) => return Err(Wrong::new(path(name), name, values::any_of(&KNOWN)).near(name, KNOWN)),
        }
    }
    let Some(state) = state else { return Err(Wrong::new(path("state"), "", "ok or fail")) };
    let within = |wrong: Wrong| match wrong.field.as_str() {
        "source" | "observed_at" | "expires_at" => Wrong { field: path(&wrong.field), ..wrong },
        _ => wrong,
    };
    let own = Times::of(|name| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value));
    let seen = own.or(outer).seen(reading).map_err(within)?;
    edit.fact(fact, state, says, &seen)
}

type NewKey = (KeyKind, String, Option<jiff::Timestamp>);

/// `"KIND:VALUE"`, or an object with `kind`, `value` and perhaps `added`.
fn key(value: &Value, reading: &Reading<'_>) -> Result<NewKey, Wrong> {
    let fields = match value {
        Value::Text(text) => return values::key("keys", text, reading.terms).map(|(kind, value)| (kind, value, None)),
        Value::Map(fields) => fields,
        _ => return Err(wrong("keys", value, "KIND:VALUE, or a map with kind and value")),
    };
    let (mut kind, mut text, mut added) = (None, None, None);
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("kind", Value::Text(word)) => kind = Some(values::one_of("keys.kind", word, &KeyKind::ALL, KeyKind::as_str)?),
            ("value", Value::Text(value)) => text = Some(value),
            ("added", Value::Text(at)) => added = Some(values::past("keys.added", at, reading.terms.now)?),
            ("kind" | "value" | "added", _) => return Err(wrong(&format!("keys.{name}"), value, "a text")),
            (name, _) => {
                return Err(Wrong::new(format!("keys.{name}"), name, "kind, value or added").near(name, ["kind", "value", "added"]));
            }
        }
    }
    let kind = kind.ok_or_else(|| Wrong::new("keys.kind", "", values::any_of(&KeyKind::ALL.map(KeyKind::as_str))))?;
    let text = text.ok_or_else(|| Wrong::new("keys.value", "", "a text"))?;
    Ok((kind, values::key_value("keys.value", kind, text)?, added))
}

fn texts<'v>(field: &str, list: &'v [Value]) -> Result<Vec<&'v str>, Wrong> {
    let text = |value: &'v Value| match value {
        Value::Text(text) => Ok(text.as_str()),
        other => Err(wrong(field, other, "a list of texts")),
    };
    list.iter().map(text).collect()
}

fn wrong(field: &str, found: &Value, expected: &str) -> Wrong {
    Wrong { found: found.shown(), ..Wrong::new(field, "", expected) }
}

/// Any JSON value. A name that stands twice in a map is a mistake: readers disagree about which one counts.
#[derive(Debug)]
enum Value {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

impl Value {
    fn shown(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => format!("`{value}`"),
            Self::Number(number) => format!("the number {number}"),
            Self::Text(text) => values::quoted(text),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a map".to_owned(),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map: Vec<(String, Value)> = Vec::new();
        while let Some((name, value)) = entries.next_entry::<String, Value>()? {
            if map.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::custom(format!("{} stands twice", values::quoted(&name))));
            }
            if map.len() >= 1024 {
                return Err(A::Error::custom("more than 1024 names in one map"));
            }
            map.push((name, value));
        }
        Ok(Value::Map(map))
    }
}

/// The file, and where in it we are.
struct Text<'a> {
    bytes: &'a [u8],
    at: usize,
    line: usize,
    column: usize,
}

impl<'a> Text<'a> {
    /// The next byte that is not white space.
    fn next(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.bytes.get(self.at) {
            self.step();
        }
        self.bytes.get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn place(&self) -> Place {
        Place { line: self.line, column: Some(self.column) }
    }

    /// Where an error stands that was found while reading from here.
    fn place_in(&self, error: &serde_json::Error) -> Place {
        match error.line() {
            0 | 1 => Place { line: self.line, column: Some(self.column + error.column().saturating_sub(1)) },
            lines => Place { line: self.line + lines - 1, column: Some(error.column().max(1)) },
        }
    }

    fn step(&mut self) {
        match self.bytes.get(self.at) {
            Some(b'\n') => (self.line, self.column) = (self.line + 1, 1),
            Some(_) => self.column += 1,
            None => return,
        }
        self.at += 1;
    }

    fn skip(&mut self, bytes: usize) {
        (0..bytes).for_each(|_| self.step());
    }

    /// Whether there is one.
    fn next_line(&mut self) -> bool {
        while self.bytes.get(self.at).is_some_and(|byte| *byte != b'\n') {
            self.step();
        }
        self.next().is_some()
    }
}
