//! `tests:`: what the policy must decide. Read here, run by whoever has the policy.

use std::path::PathBuf;

use super::names::{Names, Table};
use super::obj::Obj;
use super::report::Findings;
use super::signals::{self, SignalKind};
use super::typed::{Expect, PolicyTest};
use super::units::{self, DayEnd};
use super::yaml::{Entry, Node, Value, short};
use super::{rules, shapes};
use crate::policy::AppId;
use crate::policy::draft::{DeviceField, WireField};

/// The tests of one file, in its order.
pub fn tests(file: Obj<'_>, files: &[PathBuf], names: &Names<'_>, out: &mut Findings) -> Vec<PolicyTest> {
    let mut tests = Vec::new();
    for (number, obj) in file.objects("tests", &shapes::TEST).enumerate() {
        let app = obj.get("app").and_then(|node| names.apps.find(node, out)).and_then(|at| u32::try_from(at).ok());
        let given = obj.entries("given").iter().flat_map(|entry| given(entry, out)).collect();
        let expect = obj.get("expect").map(|node| expect(node, names, out)).unwrap_or_default();
        let file = files.get(obj.place.file).map(|file| file.display().to_string()).unwrap_or_default();
        match app {
            Some(app) => tests.push(PolicyTest {
                at: format!("{file}:{}:{}", obj.place.line, obj.place.column),
                name: obj.text("name").map_or_else(|| format!("tests[{number}]"), str::to_owned),
                app: AppId(app),
                given,
                expect,
            }),
            None => drop(out.left_out::<()>()),
        }
    }
    tests
}

/// One signal: a list is several members of a set, or a header that is sent several times.
fn given(entry: &Entry, out: &mut Findings) -> Vec<(String, String)> {
    let pair = |value: String| (entry.key.clone(), value);
    if entry.key == signals::NOW {
        let Some(text) = entry.value.text().filter(|text| units::is_date(text)) else { return out.left_out().into_iter().collect() };
        // In which zone a day begins changes nothing about whether there is one.
        if units::date(text, DayEnd::First, &jiff::tz::TimeZone::UTC).is_none() {
            out.error(entry.value.place, format!("found `{}`, expected a day or moment that there is", short(text)));
        }
        return vec![pair(text.to_owned())];
    }
    let Some((signal, _)) = signals::find(&entry.key) else { return out.left_out().into_iter().collect() };
    let Value::List(items) = &entry.value.value else {
        return scalar(&entry.value, out).map(pair).into_iter().collect();
    };
    let values: Vec<String> = items.iter().filter_map(|node| scalar(node, out)).collect();
    match signal.kind {
        SignalKind::Header => values.into_iter().map(pair).collect(),
        SignalKind::Tags | SignalKind::Wire(WireField::Stack | WireField::Os | WireField::Browser | WireField::Contradictions) => {
            vec![pair(values.join(","))]
        }
        SignalKind::Device(DeviceField::Tags) => vec![pair(values.join(","))],
        _ => {
            out.error(entry.value.place, format!("found a list, expected one value: a situation has one `{}`", short(&entry.key)));
            Vec::new()
        }
    }
}

/// As it was written.
fn scalar(node: &Node, out: &mut Findings) -> Option<String> {
    match &node.value {
        Value::Text(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Integer { written, .. } | Value::Float { written } => Some(written.clone()),
        Value::Null | Value::List(_) | Value::Map(_) => out.left_out(),
    }
}

fn expect(node: &Node, names: &Names<'_>, out: &mut Findings) -> Expect {
    if let Some(word) = node.text() {
        return Expect { effect: rules::effect(word), ..Expect::default() };
    }
    let obj = Obj::new(node, &shapes::EXPECTED);
    if node.entries().is_empty() && matches!(node.value, Value::Map(_)) {
        out.error(node.place, "found an empty map, expected something of the decision: `expect: block`");
    }
    let mut known =
        |key: &str, table: &Table, also: &[&str]| obj.get(key).and_then(|node| table.exists(node, also, out)).map(str::to_owned);
    let class = known("class", &names.classes, &["blind", "unclassified"]);
    let tier = known("tier", &names.tiers, &[]);
    let with = obj.get("with").map(|node| {
        let items = node.items().iter();
        items.filter_map(|item| names.restrictions.exists(item, &[], out)).map(str::to_owned).collect()
    });
    let text = |key: &str| obj.text(key).map(str::to_owned);
    let effect = |key: &str| obj.text(key).and_then(rules::effect);
    Expect { effect: effect("effect"), would: effect("would"), with, rule: text("rule"), class, tier, reason: text("reason") }
}
