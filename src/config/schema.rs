//! The JSON Schema (draft 2020-12) of the configuration and of an owner's file, from the same table that the checker walks.

use serde_json::{Map, Value, json};

use super::shape::{COMBINE, Key, Kind, Need, SELECTORS, Shape};
use super::signals::{self, FACT, HEADER, SIGNALS, SignalKind};
use super::{shapes, units};
use crate::policy::draft::WireField;

/// Text that is not blank.
const TEXT: &str = "\\S";

/// The schema, pretty-printed, with a line end. It accepts the main file, and an owner's file: a file that has `owner` at its top.
pub fn schema() -> String {
    let mut defs: Map<String, Value> = shapes::ALL.iter().map(|shape| (shape.name.to_owned(), object(shape))).collect();
    defs.insert("condition".to_owned(), condition());
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Vestibule configuration",
        "description": "The main file, or an owner's file in its policy_dir.",
        "if": {"required": ["owner"]},
        "then": {"$ref": format!("#/$defs/{}", shapes::OWNER_FILE.name)},
        "else": {"$ref": format!("#/$defs/{}", shapes::ROOT.name)},
        "$defs": defs,
    });
    serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n"
}

fn object(shape: &Shape) -> Value {
    let properties: Map<String, Value> = shape.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<&str> = shape.keys.iter().filter(|key| matches!(key.need, Need::Required)).map(|key| key.name).collect();
    let mut object = json!({"type": "object", "properties": properties, "additionalProperties": false});
    add(&mut object, "description", (!shape.doc.is_empty()).then(|| json!(shape.doc)));
    add(&mut object, "required", (!required.is_empty()).then(|| json!(required)));
    object
}

fn property(key: &Key) -> Value {
    let mut schema = kind(&key.kind);
    let doc = match key.need {
        Need::Absent(means) => format!("{} Absent: {means}.", key.doc),
        _ => key.doc.to_owned(),
    };
    add(&mut schema, "description", Some(json!(doc)));
    if let Need::Default(text) = key.need {
        let value = match key.kind {
            Kind::Flag => json!(text == "true"),
            Kind::Count { .. } => text.parse::<u64>().map_or(Value::Null, Value::from),
            _ => json!(text),
        };
        add(&mut schema, "default", Some(value));
    }
    schema
}

fn add(schema: &mut Value, key: &str, value: Option<Value>) {
    if let (Some(object), Some(value)) = (schema.as_object_mut(), value) {
        object.insert(key.to_owned(), value);
    }
}

fn kind(kind: &Kind) -> Value {
    match kind {
        Kind::Text(_) => json!({"type": "string", "pattern": TEXT}),
        Kind::Name => json!({"type": "string", "pattern": units::NAME}),
        Kind::Word(words) => json!({"enum": words}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Count { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
        Kind::CountOr(word, min, max) => json!({"anyOf": [{"const": word}, {"type": "integer", "minimum": min, "maximum": max}]}),
        Kind::Duration(..) => json!({"type": "string", "pattern": units::DURATION}),
        Kind::Size(..) => json!({"anyOf": [{"type": "string", "pattern": units::SIZE}, {"type": "integer", "minimum": 1}]}),
        Kind::Rate => json!({"type": "string", "pattern": units::RATE}),
        Kind::Bandwidth(..) => json!({"type": "string", "pattern": units::BANDWIDTH}),
        Kind::Date => json!({"type": "string", "pattern": units::DATE}),
        Kind::Fact => json!({"type": "string", "pattern": format!("^(?!age$){FACT}$")}),
        Kind::OneOrMore(of) => json!({"anyOf": [self::kind(of), {"type": "array", "items": self::kind(of), "minItems": 1}]}),
        Kind::Given => given(),
        Kind::Some(of) => json!({"type": "array", "items": self::kind(of), "minItems": 1}),
        Kind::List(of) => json!({"type": "array", "items": self::kind(of)}),
        Kind::Map(of) => json!({"type": "object", "patternProperties": {units::NAME: self::kind(of)}, "additionalProperties": false}),
        Kind::Shape(shape) => json!({"$ref": format!("#/$defs/{}", shape.name)}),
        Kind::Either(list, shape) => json!({"anyOf": [self::kind(list), {"$ref": format!("#/$defs/{}", shape.name)}]}),
        Kind::Condition => json!({"$ref": "#/$defs/condition"}),
        Kind::Apps => {
            let name = json!({"type": "string", "pattern": units::NAME});
            let selector = |(key, doc): &(&str, &str)| {
                let properties = json!({*key: {"type": "string", "pattern": units::NAME, "description": doc}});
                json!({"type": "object", "properties": properties, "required": [key], "additionalProperties": false})
            };
            let mut ways = vec![json!({"type": "array", "items": name, "minItems": 1})];
            ways.extend(SELECTORS.iter().map(selector));
            json!({"anyOf": ways})
        }
    }
}

fn condition() -> Value {
    let mut properties = Map::new();
    for (name, doc) in COMBINE {
        let of = Kind::Condition;
        let mut schema = if name == "not" { kind(&of) } else { kind(&Kind::Some(&Kind::Condition)) };
        add(&mut schema, "description", Some(json!(doc)));
        properties.insert(name.to_owned(), schema);
    }
    signals(properties, "All entries must hold; a list means any of.", wanted)
}

/// A situation: any text can be given, and whether a signal can be that is found out when the test is run.
fn given() -> Value {
    let one = || json!({"type": ["string", "number", "boolean"]});
    let value = |_| json!({"anyOf": [one(), {"type": "array", "items": one(), "minItems": 1}]});
    let mut now = json!({"type": "string", "pattern": units::DATE});
    add(&mut now, "description", Some(json!("The moment of the request.")));
    let properties = Map::from_iter([(signals::NOW.to_owned(), now)]);
    signals(properties, "Signals and their values.", value)
}

/// A map of signals to what `value` says of each, besides `properties`.
fn signals(mut properties: Map<String, Value>, doc: &str, value: impl Fn(SignalKind) -> Value) -> Value {
    let mut patterns = Map::new();
    for signal in SIGNALS {
        let mut schema = value(signal.kind);
        add(&mut schema, "description", Some(json!(signal.doc)));
        match signal.name {
            // A fact cannot be named `age`: `posture.age` is a signal of its own, `posture.age.age` none.
            "posture.<fact>" => patterns.insert(format!("^posture\\.(?!age$){FACT}$"), schema),
            "posture.<fact>.age" => patterns.insert(format!("^posture\\.(?!age\\.){FACT}\\.age$"), schema),
            "http.header.<name>" => patterns.insert(format!("^http\\.header\\.{HEADER}$"), schema),
            name => properties.insert(name.to_owned(), schema),
        };
    }
    json!({
        "type": "object",
        "description": doc,
        "properties": properties,
        "patternProperties": patterns,
        "additionalProperties": false,
    })
}

fn wanted(signal: SignalKind) -> Value {
    let words = signals::words(signal);
    let one = match signal {
        SignalKind::Wire(WireField::Intercepted | WireField::Drift) => json!({"type": "boolean"}),
        SignalKind::OnNet => json!({"enum": [true, false, "none"]}),
        SignalKind::Fact | SignalKind::KeyProof | SignalKind::Weekday => json!({"enum": words}),
        _ if words.is_empty() => json!({"type": "string", "minLength": 1}),
        // Any text is let through, since globs are: the words help an editor to complete.
        _ => json!({"anyOf": [{"enum": words}, {"type": "string", "minLength": 1}]}),
    };
    json!({"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]})
}
