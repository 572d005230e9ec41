//! Conditions: from the tree to `policy::draft::Condition`.

use std::sync::Arc;

use http::HeaderName;
use jiff::civil::Weekday;

use super::names::Names;
use super::report::{Findings, Place};
use super::shape::one_of;
use super::signals::{self, SignalKind};
use super::units;
use super::walk::nearest;
use super::yaml::{Node, Value, short};
use crate::model::{FactState, WELL_KNOWN_FACTS};
use crate::policy::draft::{Compare, Condition, DeviceField, Glob, KeyProof, Test, Want, WireField};
use crate::policy::{ClassId, TierId, ZoneId, weekdays};
use crate::request;

/// Where the condition stands: a class may read neither class nor tier, a tier and a cap not the tier that they make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Class,
    Tier,
    Cap,
    Rule,
}

/// The whole of a `when` or `require`. Errors are in `out`; what could not be read is left out of the condition.
pub fn condition(node: &Node, reader: Reader, names: &Names<'_>, out: &mut Findings) -> Condition {
    let mut all = Vec::new();
    for entry in node.entries() {
        let part = match entry.key.as_str() {
            "all" => Some(Condition::All(conditions(&entry.value, reader, names, out))),
            "any" => Some(Condition::Any(conditions(&entry.value, reader, names, out))),
            "not" => Some(Condition::Not(Box::new(condition(&entry.value, reader, names, out)))),
            key => match signals::find(key) {
                Some((signal, rest)) => {
                    may_read(signal.kind, reader, entry.key_place, out);
                    test(signal.kind, rest, entry.key_place, &entry.value, names, out)
                }
                None => out.left_out(),
            },
        };
        all.extend(part);
    }
    match (all.len(), all.pop()) {
        (1, Some(only)) => only,
        (_, last) => Condition::All(all.into_iter().chain(last).collect()),
    }
}

fn conditions(node: &Node, reader: Reader, names: &Names<'_>, out: &mut Findings) -> Vec<Condition> {
    node.items().iter().map(|item| condition(item, reader, names, out)).collect()
}

fn may_read(signal: SignalKind, reader: Reader, place: Place, out: &mut Findings) {
    match (signal, reader) {
        (SignalKind::Class, Reader::Class) => out.error(place, "a class cannot read `class`"),
        (SignalKind::Tier, Reader::Class) => out.error(place, "a class cannot read `tier`"),
        (SignalKind::Tier, Reader::Tier) => out.error(place, "a tier cannot read `tier`"),
        (SignalKind::Tier, Reader::Cap) => out.error(place, "a cap cannot read `tier`: it lowers it"),
        _ => {}
    }
}

/// One entry of a condition. `rest` is the free part of the signal's name.
fn test(signal: SignalKind, rest: &str, place: Place, node: &Node, names: &Names<'_>, out: &mut Findings) -> Option<Condition> {
    let values = Values::of(node);
    Some(match signal {
        SignalKind::Class => Condition::Test(Test::Class(values.each(out, |node, out| classes(node, names, out)))),
        SignalKind::Tier => compared(values, out, |list, out| tiers(list, names, out)),
        SignalKind::Device(field) => Condition::Test(Test::Device(field, values.texts(signal, out))),
        SignalKind::OnNet => Condition::Test(Test::Device(DeviceField::OnNet, values.flags(out))),
        SignalKind::Tags => Condition::Test(Test::Device(DeviceField::Tags, values.set(out))),
        SignalKind::KnownFor => compared(values, out, |list, out| durations(list, out).map(Test::KnownFor)),
        SignalKind::OsVersion => compared(values, out, versions),
        SignalKind::KeyProof => Condition::Test(Test::KeyProof(values.map(out, key_proof))),
        SignalKind::Fact => {
            fact(rest, place, names, out);
            let states = values.map(out, |node, out| node.text().and_then(FactState::parse).or_else(|| out.left_out()));
            Condition::Test(Test::Fact(Arc::from(rest), states))
        }
        SignalKind::FactAge => {
            fact(rest, place, names, out);
            compared(values, out, |list, out| durations(list, out).map(|ages| Test::FactAge(Arc::from(rest), ages)))
        }
        SignalKind::PostureAge => {
            names.reads_posture.set(names.reads_posture.get().or(Some(place)));
            compared(values, out, |list, out| durations(list, out).map(Test::PostureAge))
        }
        SignalKind::Wire(field @ (WireField::Intercepted | WireField::Drift)) => Condition::Test(Test::Wire(field, values.flags(out))),
        SignalKind::Wire(WireField::Contradictions) => {
            Condition::Test(Test::Wire(WireField::Contradictions, values.set_of(&signals::words(signal), out)))
        }
        SignalKind::Wire(WireField::Stack) => {
            values.0.iter().for_each(|node| stack(node, names, out));
            Condition::Test(Test::Wire(WireField::Stack, values.texts(signal, out)))
        }
        SignalKind::Wire(field) => Condition::Test(Test::Wire(field, values.texts(signal, out))),
        SignalKind::Claim(field) => Condition::Test(Test::Claim(field, values.texts(signal, out))),
        SignalKind::Peer => Condition::Test(Test::Peer(values.map(out, peer))),
        SignalKind::Zone => Condition::Test(Test::Zone(values.each(out, |node, out| zones(node, names, out)))),
        SignalKind::Method => Condition::Test(Test::Method(values.map(out, methods))),
        SignalKind::Path => Condition::Test(Test::Path(values.map(out, path))),
        SignalKind::Host => Condition::Test(Test::Host(values.map(out, host))),
        SignalKind::Weekday => Condition::Test(Test::Weekday(values.map(out, weekday))),
        SignalKind::Hour => compared(values, out, hours),
        SignalKind::Header => match HeaderName::from_bytes(rest.as_bytes()) {
            Ok(name) => Condition::Test(Test::Header(name, values.set(out))),
            Err(_) => return out.left_out(),
        },
    })
}

/// One value or several of which any may match.
struct Values<'a>(&'a [Node]);

impl<'a> Values<'a> {
    fn of(node: &'a Node) -> Self {
        match &node.value {
            Value::List(items) => Self(items),
            _ => Self(std::slice::from_ref(node)),
        }
    }

    fn map<T>(&self, out: &mut Findings, read: impl Fn(&Node, &mut Findings) -> Option<T>) -> Vec<T> {
        self.0.iter().filter_map(|node| read(node, out)).collect()
    }

    /// As `map`, where one value stands for several.
    fn each<T>(&self, out: &mut Findings, read: impl Fn(&Node, &mut Findings) -> Vec<T>) -> Vec<T> {
        self.0.iter().flat_map(|node| read(node, out)).collect()
    }

    fn texts(&self, signal: SignalKind, out: &mut Findings) -> Want {
        let words = signals::words(signal);
        Want::Text(self.map(out, |node, out| {
            let Some(text) = node.text() else { return out.left_out() };
            one_of_words(text, &words, node.place, out);
            Some(Glob(text.to_owned()))
        }))
    }

    /// Of a set whose members are few and known: `any`, `none`, or some of `words`.
    fn set_of(&self, words: &[&str], out: &mut Findings) -> Want {
        for node in self.0 {
            if let Some(text) = node.text() {
                one_of_words(text, words, node.place, out);
            }
        }
        self.set(out)
    }

    fn flags(&self, out: &mut Findings) -> Want {
        Want::Text(self.map(out, |node, out| match &node.value {
            Value::Bool(value) => Some(Glob(value.to_string())),
            Value::Text(text) => Some(Glob(text.clone())),
            _ => out.left_out(),
        }))
    }

    /// Of a set or header: `any`, `none`, or texts.
    fn set(&self, out: &mut Findings) -> Want {
        if let [only] = self.0 {
            match only.text() {
                Some("any") => return Want::Any,
                Some("none") => return Want::None,
                _ => {}
            }
        }
        Want::Text(self.map(out, |node, out| match node.text() {
            Some(word @ ("any" | "none")) => {
                out.error(node.place, format!("found `{word}` in a list, expected it alone: combine it under `any:`"));
                None
            }
            Some(text) => Some(Glob(text.to_owned())),
            None => out.left_out(),
        }))
    }
}

/// A stack's name, a glob, or one of the words for none.
fn stack(node: &Node, names: &Names<'_>, out: &mut Findings) {
    let Some(text) = node.text().filter(|text| !text.contains('*') && !matches!(*text, "unknown" | "unavailable")) else { return };
    let well_formed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'_' | b'-');
    if text.len() <= 32 && text.bytes().all(well_formed) {
        names.stacks.borrow_mut().push((text.to_owned(), node.place));
    } else {
        out.error(node.place, format!("found `{}`, expected a stack's name: lower-case letters, digits, `_` and `-`", short(text)));
    }
}

/// A text that is none of the words, where these are all that a signal can be, never matches.
fn one_of_words(text: &str, words: &[&str], place: Place, out: &mut Findings) {
    if !words.is_empty() && !text.contains('*') && !words.contains(&text) {
        let hint = nearest(text, words.iter().copied())
            .map_or_else(|| format!("; expected {}", one_of(words)), |word| format!("; did you mean `{word}`?"));
        out.error(place, format!("found `{}`, which it never is{hint}", short(text)));
    }
}

type Compared<'a> = (&'a Node, Vec<(Compare, &'a str)>);

/// Each value is a list of comparisons that all hold; of several values any may.
fn compared(values: Values<'_>, out: &mut Findings, mut test: impl FnMut(Compared<'_>, &mut Findings) -> Option<Test>) -> Condition {
    let mut tests: Vec<Condition> = Vec::new();
    for node in values.0 {
        let Some(text) = node.text() else {
            out.left_out::<()>();
            continue;
        };
        match units::comparisons(text) {
            Some(list) => tests.extend(test((node, list), out).map(Condition::Test)),
            None => out.error(node.place, format!("found `{}`, expected a comparison such as `>= 9` or `>= 9 < 17`", short(text))),
        }
    }
    match (tests.len(), tests.pop()) {
        (1, Some(only)) => only,
        (_, last) => Condition::Any(tests.into_iter().chain(last).collect()),
    }
}

fn tiers((node, list): Compared<'_>, names: &Names<'_>, out: &mut Findings) -> Option<Test> {
    let tier = |(compare, name): (Compare, &str), out: &mut Findings| {
        let at = names.tiers.named(name, node.place, &[], out)?;
        Some((compare, TierId(u8::try_from(at).ok()?)))
    };
    list.into_iter().map(|part| tier(part, out)).collect::<Option<Vec<_>>>().map(Test::Tier)
}

fn durations((node, list): Compared<'_>, out: &mut Findings) -> Option<Vec<(Compare, std::time::Duration)>> {
    let mut read = Vec::with_capacity(list.len());
    for (compare, text) in list {
        match units::duration(text) {
            Some(time) => read.push((compare, time)),
            None => {
                out.error(node.place, format!("found `{}`, expected a duration such as `12h` or `30d`", short(text)));
                return None;
            }
        }
    }
    Some(read)
}

fn versions((node, list): Compared<'_>, out: &mut Findings) -> Option<Test> {
    let mut read = Vec::with_capacity(list.len());
    for (compare, text) in list {
        match units::version(text) {
            Some(version) => read.push((compare, version)),
            None => {
                out.error(node.place, format!("found `{}`, expected a version such as `14.2`", short(text)));
                return None;
            }
        }
    }
    Some(Test::OsVersion(read))
}

fn weekday(node: &Node, out: &mut Findings) -> Option<Weekday> {
    let of = |text: &str| weekdays().find(|(word, _)| *word == text).map(|(_, day)| day);
    node.text().and_then(of).or_else(|| out.left_out())
}

fn hours((node, list): Compared<'_>, out: &mut Findings) -> Option<Test> {
    let mut read = Vec::with_capacity(list.len());
    for (compare, text) in list {
        // Digits only: a parser of numbers also takes `+8`.
        match text.parse::<u8>().ok().filter(|hour| *hour < 24 && text.bytes().all(|c| c.is_ascii_digit())) {
            Some(hour) => read.push((compare, hour)),
            None => {
                out.error(node.place, format!("found `{}`, expected a whole hour from 0 to 23, or hours such as `>= 8 < 18`", short(text)));
                return None;
            }
        }
    }
    let none = (0..24u8).all(|hour| read.iter().any(|(compare, than)| !compare.holds(hour.cmp(than))));
    if none {
        out.warn(node.place, format!("no hour is {}: a span over midnight is a list, [\">= 22\", \"< 6\"]", node.found()));
    }
    Some(Test::Hour(read))
}

/// The classes that a name or glob stands for.
fn classes(node: &Node, names: &Names<'_>, out: &mut Findings) -> Vec<ClassId> {
    const ALWAYS: [(&str, ClassId); 2] = [("blind", ClassId::BLIND), ("unclassified", ClassId::UNCLASSIFIED)];
    let Some(name) = node.text() else { return out.left_out::<ClassId>().into_iter().collect() };
    let of = |at: usize| u16::try_from(at).ok().map(ClassId);
    if name.contains('*') {
        let glob = Glob(name.to_owned());
        let always = ALWAYS.into_iter().filter(|(word, _)| glob.matches(word)).map(|(_, class)| class);
        let found: Vec<ClassId> = names.classes.matching(&glob).filter_map(of).chain(always).collect();
        if found.is_empty() {
            out.error(node.place, format!("no class matches `{}`", short(name)));
        }
        return found;
    }
    let fixed = ALWAYS.into_iter().find(|(word, _)| *word == name).map(|(_, class)| class);
    let class = fixed.or_else(|| of(names.classes.named(name, node.place, &ALWAYS.map(|(word, _)| word), out)?).or_else(|| out.left_out()));
    class.into_iter().collect()
}

fn key_proof(node: &Node, out: &mut Findings) -> Option<KeyProof> {
    match node.text() {
        Some("none") => Some(KeyProof::None),
        Some("browser") => Some(KeyProof::Browser),
        Some("certificate") => Some(KeyProof::Certificate),
        _ => out.left_out(),
    }
}

/// A fact that is nearly a well-known one is most likely that one misspelt.
fn fact(name: &str, place: Place, names: &Names<'_>, out: &mut Findings) {
    names.read_fact(name, place);
    if !WELL_KNOWN_FACTS.contains(&name)
        && let Some(near) = nearest(name, WELL_KNOWN_FACTS.into_iter())
    {
        out.warn(place, format!("`{}` is no well-known fact; did you mean `{near}`?", short(name)));
    }
}

fn peer(node: &Node, out: &mut Findings) -> Option<ipnet::IpNet> {
    let Some(text) = node.text() else { return out.left_out() };
    match units::network(text) {
        Ok(net) => Some(net),
        Err(expected) => {
            out.error(node.place, format!("found `{}`, {expected}", short(text)));
            None
        }
    }
}

/// The networks that a name or glob stands for; `None` is a peer in no named network.
fn zones(node: &Node, names: &Names<'_>, out: &mut Findings) -> Vec<Option<ZoneId>> {
    let Some(name) = node.text() else { return out.left_out::<Option<ZoneId>>().into_iter().collect() };
    let of = |at: usize| u16::try_from(at).ok().map(|at| Some(ZoneId(at)));
    if name == "none" {
        return vec![None];
    }
    if name.contains('*') {
        let glob = Glob(name.to_owned());
        let outside = glob.matches("none").then_some(None);
        let found: Vec<_> = names.networks.matching(&glob).filter_map(of).chain(outside).collect();
        if found.is_empty() {
            out.error(node.place, format!("no network matches `{}`", short(name)));
        }
        return found;
    }
    let zone = names.networks.named(name, node.place, &["none"], out).and_then(|at| of(at).or_else(|| out.left_out()));
    zone.into_iter().collect()
}

/// A method or a glob for methods.
fn methods(node: &Node, out: &mut Findings) -> Option<Glob> {
    upper_case(node, out).map(|text| Glob(text.to_owned()))
}

/// One method.
pub fn method(node: &Node, out: &mut Findings) -> Option<String> {
    let text = upper_case(node, out)?;
    if text.contains('*') {
        out.error(node.place, format!("found `{}`, expected a method such as `GET`", short(text)));
        return None;
    }
    Some(text.to_owned())
}

/// A method as clients send it. Methods are case-sensitive, and those in use are upper case.
fn upper_case<'a>(node: &'a Node, out: &mut Findings) -> Option<&'a str> {
    let Some(text) = node.text() else { return out.left_out() };
    if http::Method::from_bytes(text.as_bytes()).is_err() {
        out.error(node.place, format!("found `{}`, expected a method such as `GET`", short(text)));
        return None;
    }
    if text.bytes().any(|c| c.is_ascii_lowercase()) {
        out.error(
            node.place,
            format!("found `{}`, expected a method in upper case; did you mean `{}`?", short(text), short(&text.to_ascii_uppercase())),
        );
    }
    Some(text)
}

pub fn path(node: &Node, out: &mut Findings) -> Option<Glob> {
    let Some(text) = node.text() else { return out.left_out() };
    if !text.starts_with(['/', '*']) {
        out.error(node.place, format!("found `{}`, expected a path that begins with `/` (or `*`)", short(text)));
    } else if text.contains(['?', '#']) {
        out.error(node.place, format!("found `{}`, expected a path: rules never see a query or fragment", short(text)));
    } else if !text.contains('*')
        && let Ok(canonical) = request::path(text, &request::PathOptions::LENIENT)
        && canonical != text
    {
        out.error(node.place, format!("found `{}`, which no canonical path is; did you mean `{}`?", short(text), short(&canonical)));
    }
    Some(Glob(text.to_owned()))
}

fn host(node: &Node, out: &mut Findings) -> Option<Glob> {
    let Some(text) = node.text() else { return out.left_out() };
    if text.contains('*') {
        if text.bytes().any(|c| c.is_ascii_uppercase()) {
            out.error(node.place, format!("found `{}`, expected lower case: hosts are compared in canonical form", short(text)));
        }
        return Some(Glob(text.to_owned()));
    }
    match request::host(text) {
        Ok(host) => Some(Glob(host.as_str().to_owned())),
        Err(why) => {
            out.error(node.place, format!("found `{}`, expected a host: {why}", short(text)));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::obj::Obj;
    use super::super::{shapes, walk, yaml};
    use super::*;
    use crate::policy::draft::{ClaimField, Version};

    const MAIN: &str = "\
networks: {office: [10.0.0.0/8], desk: [10.1.0.0/16]}
classes: [{name: corporate, when: {}}]
tiers: [{name: none}, {name: known}, {name: healthy}]
";

    fn read(when: &str) -> Condition {
        let mut out = Findings::default();
        let main = yaml::parse(MAIN, 0, &mut out).unwrap();
        let names = Names::collect(Obj::new(&main, &shapes::ROOT), &[], &mut out);
        let file = yaml::parse(&format!("classes: [{{name: a, when: {when}}}]"), 0, &mut out).unwrap();
        let when = &file.entry("classes").unwrap().value.items()[0].entry("when").unwrap().value;
        walk::shape(&file.entry("classes").unwrap().value.items()[0], &shapes::CLASS, &mut out);
        let condition = condition(when, Reader::Rule, &names, &mut out);
        assert_eq!((out.errors(), out.incomplete()), (0, false), "{out:?}");
        condition
    }

    fn globs(texts: &[&str]) -> Vec<Glob> {
        texts.iter().map(|text| Glob((*text).to_owned())).collect()
    }

    #[test]
    fn entries_must_all_hold_and_a_list_means_any_of() {
        assert_eq!(read("{}"), Condition::always());
        assert_eq!(
            read("{class: [corporate, blind, unclassified], device.state: lost}"),
            Condition::All(vec![
                Condition::Test(Test::Class(vec![ClassId(0), ClassId::BLIND, ClassId::UNCLASSIFIED])),
                Condition::Test(Test::Device(DeviceField::State, Want::Text(globs(&["lost"])))),
            ])
        );
        let lost = || Condition::Test(Test::Device(DeviceField::State, Want::Text(globs(&["lost"]))));
        assert_eq!(
            read("{any: [{device.state: lost}, {not: {all: [{device.state: lost}]}}]}"),
            Condition::Any(vec![lost(), Condition::Not(Box::new(Condition::All(vec![lost()])))])
        );
    }

    #[test]
    fn comparisons_in_one_text_all_hold_and_in_a_list_any() {
        let (known, healthy) = (TierId(1), TierId(2));
        assert_eq!(
            read("{tier: '>= known < healthy'}"),
            Condition::Test(Test::Tier(vec![(Compare::AtLeast, known), (Compare::Less, healthy)]))
        );
        assert_eq!(
            read("{tier: [known, '> known']}"),
            Condition::Any(vec![
                Condition::Test(Test::Tier(vec![(Compare::Equal, known)])),
                Condition::Test(Test::Tier(vec![(Compare::More, known)])),
            ])
        );
        assert_eq!(read("{device.os_version: '<= 17.1'}"), Condition::Test(Test::OsVersion(vec![(Compare::AtMost, Version(vec![17, 1]))])));
        let day = Duration::from_secs(86_400);
        assert_eq!(read("{device.known_for: '> 1d'}"), Condition::Test(Test::KnownFor(vec![(Compare::More, day)])));
        assert_eq!(read("{posture.age: '> 1d'}"), Condition::Test(Test::PostureAge(vec![(Compare::More, day)])));
        assert_eq!(read("{posture.patched.age: '> 24h'}"), Condition::Test(Test::FactAge("patched".into(), vec![(Compare::More, day)])));
    }

    #[test]
    fn each_signal_becomes_its_test() {
        let of = |when: &str| match read(when) {
            Condition::Test(test) => test,
            other => panic!("{other:?}"),
        };
        assert_eq!(of("{device.onnet: true}"), Test::Device(DeviceField::OnNet, Want::Text(globs(&["true"]))));
        assert_eq!(of("{device.onnet: [false, none]}"), Test::Device(DeviceField::OnNet, Want::Text(globs(&["false", "none"]))));
        assert_eq!(of("{device.tags: any}"), Test::Device(DeviceField::Tags, Want::Any));
        assert_eq!(of("{device.tags: [none]}"), Test::Device(DeviceField::Tags, Want::None));
        assert_eq!(of("{device.tags: [a, 'b*']}"), Test::Device(DeviceField::Tags, Want::Text(globs(&["a", "b*"]))));
        assert_eq!(of("{device.key: [none, certificate]}"), Test::KeyProof(vec![KeyProof::None, KeyProof::Certificate]));
        assert_eq!(of("{posture.x: [ok, unknown]}"), Test::Fact("x".into(), vec![FactState::Ok, FactState::Unknown]));
        assert_eq!(of("{wire.ja4_stable: unavailable}"), Test::Wire(WireField::Ja4Stable, Want::Text(globs(&["unavailable"]))));
        assert_eq!(of("{claims.form_factor: phone}"), Test::Claim(ClaimField::FormFactor, Want::Text(globs(&["phone"]))));
        assert_eq!(of("{net.zone: [desk, none]}"), Test::Zone(vec![Some(ZoneId(1)), None]));
        assert_eq!(of("{net.peer: 192.0.2.1}"), Test::Peer(vec!["192.0.2.1/32".parse().unwrap()]));
        assert_eq!(of("{time.weekday: [mon, sun]}"), Test::Weekday(vec![Weekday::Monday, Weekday::Sunday]));
        assert_eq!(of("{time.hour: '>= 8 < 18'}"), Test::Hour(vec![(Compare::AtLeast, 8), (Compare::Less, 18)]));
        assert_eq!(of("{http.method: [GET]}"), Test::Method(globs(&["GET"])));
        assert_eq!(of("{http.method: 'P*'}"), Test::Method(globs(&["P*"])));
        assert_eq!(of("{class: '*ified'}"), Test::Class(vec![ClassId::UNCLASSIFIED]));
        assert_eq!(of("{class: ['co*', blind]}"), Test::Class(vec![ClassId(0), ClassId::BLIND]));
        assert_eq!(of("{net.zone: 'd*'}"), Test::Zone(vec![Some(ZoneId(1))]));
        assert_eq!(of("{net.zone: '*'}"), Test::Zone(vec![Some(ZoneId(0)), Some(ZoneId(1)), None]));
        assert_eq!(of("{http.path: '/a/*'}"), Test::Path(globs(&["/a/*"])));
        assert_eq!(of("{http.header.X-Team: none}"), Test::Header(HeaderName::from_static("x-team"), Want::None));
    }
}
