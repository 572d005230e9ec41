//! The table of known signatures as YAML: ours (`fingerprint/known.yaml`) and the operator's own (`fingerprints.known`), one format.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use super::obj::Obj;
use super::report::{Findings, Place, Report};
use super::shape::Kind::{Flag, List, Name, Some as Few, Text, Word};
use super::shape::Need::{Absent, Required};
use super::shape::{Key, Kind, Need, Shape};
use super::yaml::{self, Node, Value, short};
use super::{text, walk};
use crate::fingerprint::Known;
use crate::fingerprint::known::{Codes, Glob, Row, Shows, Tls, example};
use crate::model::{Browser, FormFactor, Meaning, Os, Set, Span};

const BUILTIN: &str = include_str!("../fingerprint/known.yaml");

const fn key(name: &'static str, kind: Kind, need: Need, doc: &'static str) -> Key {
    Key { name, kind, need, doc }
}

static TABLE: Shape = Shape {
    name: "table of known signatures",
    doc: "In each layer the first row that matches speaks. A row of a built-in row's name replaces that one; others come before all built-in rows.",
    keys: &[key("rows", List(&Kind::Shape(&ROW)), Required, "The rows, the more exact before the more general.")],
};

static ROW: Shape = Shape {
    name: "row",
    doc: "Exactly one of `tls`, `h2` and `syn`, and what it stands for. What is left out says nothing: it excludes nobody.",
    keys: &[
        key("name", Name, Required, "Stands in the decision log."),
        key("source", Text("text"), Absent("not said"), "Where this is known from."),
        key("tls", Kind::Shape(&TLS), Absent("not this layer"), "What the ClientHello must show."),
        key("h2", Few(&Text("glob")), Absent("not this layer"), "The HTTP/2 opening is any of these; `*` is any characters, `?` is one."),
        key("syn", Few(&Text("glob")), Absent("not this layer"), "The SYN's signature is any of these; `*` is any characters, `?` is one."),
        key("stack", Text("name of a stack"), Absent("says nothing"), "The TLS or HTTP stack: `a-z`, `0-9`, `_` and `-`, at most 32."),
        key("browsers", Few(&Word(&BROWSERS)), Absent("says nothing"), "Families of programs that send this."),
        key(
            "versions",
            Text("range"),
            Absent("any"),
            "Major versions of the family that the stack is named for, `133+` or `91-132`: Chrome's for all that is built on Chromium.",
        ),
        key(
            "possible",
            Text("range"),
            Absent("any"),
            "Versions outside of it cannot send this, switches and field trials considered: a claim of one is a contradiction.",
        ),
        key("os", Few(&Word(&SYSTEMS)), Absent("says nothing"), "Systems that send this."),
        key("forms", Few(&Word(&FORMS)), Absent("says nothing"), "Kinds of devices that send this."),
    ],
};

static TLS: Shape = Shape {
    name: "tls",
    doc: "All that is given must hold. Codes are four hex digits as in `ja4_r`, separated by spaces. GREASE is in no list.",
    keys: &[
        key("ja4", Few(&Text("glob")), Absent("any"), "`ja4_stable` is any of these; `*` is any characters, `?` is one."),
        key("grease", Flag, Absent("either"), "Whether GREASE is among the cipher suites."),
        key("ciphers", Kind::Shape(&CODES), Absent("any"), "Cipher suites."),
        key("extensions", Kind::Shape(&CODES), Absent("any"), "Extensions."),
        key("groups", Kind::Shape(&CODES), Absent("any"), "Supported groups."),
        key("algorithms", Kind::Shape(&CODES), Absent("any"), "Signature algorithms."),
        key("example", Text("ja4_r"), Absent("never the nearest"), "`ja4_r` of such a client: unknown hellos are compared with it."),
    ],
};

static CODES: Shape = Shape {
    name: "codes",
    doc: "All that is given must hold.",
    keys: &[
        key("has", Text("codes"), Absent("any"), "All of these are there."),
        key("any", Text("codes"), Absent("any"), "At least one of these is there."),
        key("lacks", Text("codes"), Absent("any"), "None of these is there."),
        key("begins", Text("codes"), Absent("any"), "The list begins so."),
        key("order", Text("codes"), Absent("any"), "Nothing but these is there, and in this order; some may be missing."),
        key("only", Text("codes"), Absent("any"), "Nothing but these is there, in any order."),
    ],
};

macro_rules! every_word {
    ($name:ident, $word:ident) => {
        const $name: [&str; $word::ALL.len()] = {
            let mut words = [""; $word::ALL.len()];
            let mut at = 0;
            while at < words.len() {
                words[at] = $word::ALL[at].as_str();
                at += 1;
            }
            words
        };
    };
}
every_word!(BROWSERS, Browser);
every_word!(SYSTEMS, Os);
every_word!(FORMS, FormFactor);

/// Our own table. A test reads it, so it has no errors.
pub fn builtin() -> Vec<Row> {
    read(Path::new("known.yaml"), BUILTIN.as_bytes()).unwrap_or_default()
}

/// Our own table, compiled once for the process.
pub fn builtin_alone() -> Arc<Known> {
    static BUILTIN: LazyLock<Arc<Known>> = LazyLock::new(|| Arc::new(known(Vec::new())));
    Arc::clone(&BUILTIN)
}

/// Our own table, with the operator's rows.
pub fn known(own: Vec<Row>) -> Known {
    Known::new(builtin(), own)
}

/// The rows of a file; `path` is what it is called in messages. Pure.
///
/// # Errors
/// Everything that is wrong.
pub fn read(path: &Path, bytes: &[u8]) -> Result<Vec<Row>, Report> {
    let mut out = Findings::default();
    let text = text::decode(bytes, 0, &mut out);
    let tree = text.as_deref().and_then(|text| yaml::parse(text, 0, &mut out));
    let mut rows = Vec::new();
    if let Some(tree) = &tree {
        walk::shape(tree, &TABLE, &mut out);
        if matches!(tree.value, Value::Map(_)) {
            rows = table(Obj::new(tree, &TABLE), &mut out);
        }
    }
    if out.errors() == 0 {
        return Ok(rows);
    }
    let lines: Vec<&str> = text.as_deref().unwrap_or_default().lines().collect();
    let key = |place: Place| tree.as_ref().zip(place.node).map(|(tree, node)| tree.path_to(node)).unwrap_or_default();
    let line = |place: Place| lines.get(place.line.saturating_sub(1)).map(|line| (*line).to_owned());
    Err(out.report(&[PathBuf::from(path)], key, line))
}

fn table(obj: Obj<'_>, out: &mut Findings) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut names = std::collections::HashMap::new();
    for row in obj.objects("rows", &ROW) {
        if let Some(node) = row.get("name")
            && let Some(name) = node.text()
            && let Some(first) = names.insert(name, node.place)
        {
            out.clash(node.place, format!("a second row named `{}`", short(name)), (first, "first"));
        }
        rows.extend(self::row(row, out));
    }
    rows
}

fn row(obj: Obj<'_>, out: &mut Findings) -> Option<Row> {
    let layers: Vec<&str> = ["tls", "h2", "syn"].into_iter().filter(|layer| obj.get(layer).is_some()).collect();
    let [layer] = layers[..] else {
        out.error(obj.place, format!("found {} of `tls`, `h2` and `syn`, expected exactly one", layers.len()));
        return None;
    };
    let shows = match layer {
        "tls" => Shows::Tls(Box::new(tls(obj.object("tls", &TLS), out))),
        "h2" => Shows::H2(globs(obj, "h2")),
        _ => Shows::Syn(globs(obj, "syn")),
    };
    let stack = obj.get("stack").and_then(|node| stack(node, out));
    let [versions, possible] = ["versions", "possible"].map(|key| obj.get(key).and_then(|node| span(node, out)));
    if let (Some(versions), Some(possible)) = (versions, possible)
        && versions.both(possible) != Some(versions)
    {
        out.error(obj.place_of("possible"), format!("`possible` is narrower than `versions`, `{versions}`"));
    }
    let meaning = Meaning {
        name: obj.text("name")?.into(),
        stacks: stack.into_iter().collect(),
        browsers: words(obj, "browsers", Browser::parse),
        versions,
        possible,
        os: words(obj, "os", Os::parse),
        forms: words(obj, "forms", FormFactor::parse),
    };
    if meaning.stacks.is_empty() && meaning.browsers.is_empty() && meaning.os.is_empty() && meaning.forms.is_empty() {
        out.error(obj.place, "the row stands for nothing: give it `stack`, `browsers`, `os` or `forms`");
    }
    Some(Row { shows, meaning })
}

fn words<T: crate::model::Word>(obj: Obj<'_>, key: &str, parse: fn(&str) -> Option<T>) -> Set<T> {
    obj.items(key).iter().filter_map(|node| parse(node.text()?)).collect()
}

fn globs(obj: Obj<'_>, key: &str) -> Vec<Glob> {
    obj.items(key).iter().filter_map(|node| Some(Glob(node.text()?.into()))).collect()
}

fn stack(node: &Node, out: &mut Findings) -> Option<std::sync::Arc<str>> {
    let text = node.text()?;
    let good = text.len() <= 32 && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'_' | b'-'));
    if !good {
        out.error(node.place, format!("found `{}`, expected `a-z`, `0-9`, `_` and `-`, at most 32", short(text)));
    } else if matches!(text, "unknown" | "unavailable") {
        out.error(node.place, format!("`{text}` is what `wire.stack` says when no row matches"));
    }
    Some(text.into())
}

/// `133+`, `91-132` or `99`.
fn span(node: &Node, out: &mut Findings) -> Option<Span> {
    let text = node.text()?;
    let number = |part: &str| part.trim().parse::<u32>().ok();
    let span = match (text.strip_suffix('+'), text.split_once('-')) {
        (Some(from), _) => number(from).map(|from| Span { from, to: None }),
        (None, Some((from, to))) => number(from).zip(number(to)).map(|(from, to)| Span { from, to: Some(to) }),
        (None, None) => number(text).map(|only| Span { from: only, to: Some(only) }),
    };
    let span = span.filter(|span| span.to.is_none_or(|to| span.from <= to));
    if span.is_none() {
        out.error(node.place, format!("found `{}`, expected a range of versions: `133+`, `91-132` or `99`", short(text)));
    }
    span
}

fn tls(obj: Obj<'_>, out: &mut Findings) -> Tls {
    let mut list = |key: &str| codes(obj.object(key, &CODES), out);
    let [ciphers, extensions, groups, algorithms] = ["ciphers", "extensions", "groups", "algorithms"].map(&mut list);
    let example = obj.get("example").and_then(|node| sample(node, out));
    let grease = obj.get("grease").map(|_| obj.flag("grease"));
    if ["ja4", "grease", "ciphers", "extensions", "groups", "algorithms"].iter().all(|key| obj.get(key).is_none()) {
        out.error(obj.place, "nothing to match: every hello would be this one");
    }
    Tls { ja4: globs(obj, "ja4"), grease, ciphers, extensions, groups, algorithms, example }
}

fn codes(obj: Obj<'_>, out: &mut Findings) -> Codes {
    let mut list = |key: &str| -> Vec<u16> {
        let Some((node, text)) = obj.get(key).and_then(|node| Some((node, node.text()?))) else { return Vec::new() };
        let mut codes = Vec::new();
        for word in text.split_ascii_whitespace() {
            match code(word) {
                Some(code) => codes.push(code),
                None => out.error(node.place, format!("found `{}`, expected four hex digits", short(word))),
            }
        }
        codes
    };
    Codes { has: list("has"), any: list("any"), lacks: list("lacks"), begins: list("begins"), order: list("order"), only: list("only") }
}

fn code(word: &str) -> Option<u16> {
    let hex = word.len() == 4 && word.bytes().all(|c| c.is_ascii_hexdigit());
    hex.then(|| u16::from_str_radix(word, 16).ok()).flatten()
}

/// The second and third part of a `ja4_r`: `t13d..._<ciphers>_<extensions>_<algorithms>`.
fn sample(node: &Node, out: &mut Findings) -> Option<(crate::fingerprint::known::SortedCodes, crate::fingerprint::known::SortedCodes)> {
    let list = |part: &str| part.split(',').filter(|code| !code.is_empty()).map(code).collect::<Option<Vec<u16>>>();
    let parts: Vec<&str> = node.text()?.split('_').collect();
    let sample = match parts[..] {
        [_, ciphers, extensions, ..] => list(ciphers).zip(list(extensions)),
        _ => None,
    };
    if sample.is_none() {
        out.error(node.place, "expected a `ja4_r`: its first part, cipher suites, extensions and signature algorithms, joined by `_`");
    }
    sample.map(|(ciphers, extensions)| example(&ciphers, &extensions))
}
