//! Reads `src/` and holds it to `src/ARCHITECTURE.md`: the order of the rooms, pure rooms, the length of files, and words that have no place.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test ends where its world breaks")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const LONGEST: usize = 600;

/// What no pure room may name: waiting, reading and writing, clocks, the environment.
const IMPURE: [&str; 17] = [
    "async",
    ".await",
    "tokio",
    "std::fs",
    "fs::",
    "std::env",
    "std::process",
    "std::thread",
    "std::io",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "Instant",
    "SystemTime",
    "Timestamp::now",
    "Zoned::now",
    "OffsetDateTime::now",
];

/// Words of unfinished work, wherever they stand in a source file.
const UNFINISHED: [&str; 6] = ["TODO", "FIXME", "XXX", "HACK", "todo!", "unimplemented!"];

/// Names that say nothing, in what a file defines.
const EMPTY_NAMES: [&str; 6] = ["manager", "handler", "helper", "utils", "util", "misc"];

#[test]
fn the_source_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let house = House::read(&fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap());
    let mut findings = house.findings.clone();
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(!files.is_empty());
    for path in files {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        findings.extend(house.inspect(&name, &fs::read_to_string(&path).unwrap()));
    }
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

fn collect(dir: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

/// The table of ARCHITECTURE.md.
struct House {
    /// Room to all rooms that it may use, directly or through another; itself included.
    may_use: BTreeMap<String, BTreeSet<String>>,
    /// Pure rooms, with their files that need not be.
    pure: BTreeMap<String, Vec<String>>,
    findings: Vec<String>,
}

impl House {
    fn read(text: &str) -> Self {
        let mut house = Self { may_use: BTreeMap::new(), pure: BTreeMap::new(), findings: Vec::new() };
        let rows = text.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
        let rows: Vec<_> = rows.filter(|cells| cells.len() == 5 && cells[1].starts_with('`')).collect();
        for cells in &rows {
            let mut may = house.named(cells[1], cells[3]);
            // What a room may use may show it what lies below.
            let below: BTreeSet<String> = may.iter().filter_map(|room| house.may_use.get(room)).flatten().cloned().collect();
            may.extend(below);
            may.insert("model".to_owned());
            for room in rooms_of(cells[1]) {
                may.insert(room.clone());
                if let Some((_, marks)) = cells[1].split_once("**").filter(|(_, marks)| marks.starts_with("pure")) {
                    house.pure.insert(room.clone(), quoted(marks));
                }
                house.may_use.insert(room, may.clone());
            }
        }
        if house.may_use.len() < 2 {
            house.findings.push("ARCHITECTURE.md: no table of rooms".to_owned());
        }
        house
    }

    /// The rooms that a cell of the third column names. A room may name only those that stand above it: that is the order.
    fn named(&mut self, row: &str, cell: &str) -> BTreeSet<String> {
        match cell {
            "" | "nothing" => BTreeSet::new(),
            "everything" | "all above" => self.may_use.keys().cloned().collect(),
            names => {
                let names: BTreeSet<String> = names.split(',').map(|name| name.trim().to_owned()).collect();
                for name in names.iter().filter(|name| !self.may_use.contains_key(*name)) {
                    self.findings.push(format!("ARCHITECTURE.md: {row} may use {name}, which does not stand above it"));
                }
                names
            }
        }
    }

    /// Everything that is wrong with one file; `name` is its path below `src/`.
    fn inspect(&self, name: &str, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        let lines = text.lines().count();
        if lines > LONGEST {
            findings.push(format!("{name}: {lines} lines, more than {LONGEST}: split the room"));
        }
        for (number, line) in text.lines().enumerate() {
            for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
                findings.push(format!("{name}:{}: {word}", number + 1));
            }
        }
        let code = without_comments_and_texts(text);
        findings.extend(empty_names(name, &code));

        let module = module_of(name);
        let Some(room) = module.first().filter(|room| *room != "lib") else { return findings };
        let Some(may) = self.may_use.get(room) else {
            findings.push(format!("{name}: the room `{room}` is not in ARCHITECTURE.md"));
            return findings;
        };
        // What a test uses is no arrow of the house, and it may read files and clocks.
        let code = code.split("#[cfg(test)]").next().unwrap_or_default();
        for (line, used) in rooms_named(code, module.len()) {
            if self.may_use.contains_key(&used) && !may.contains(&used) {
                findings.push(format!("{name}:{line}: {room} may not use {used}"));
            }
        }
        for (number, line) in code.lines().enumerate() {
            if let Some(excepted) = self.pure.get(room)
                && !excepted.iter().any(|file| module.get(1).is_some_and(|m| file.strip_suffix(".rs") == Some(m)))
            {
                for word in IMPURE.iter().filter(|word| has_word(line, word)) {
                    findings.push(format!("{name}:{}: `{word}` in a pure room", number + 1));
                }
            }
        }
        findings
    }
}

/// `cli/` and `main.rs` of "`cli/`, `main.rs`", without what stands behind `**`.
fn rooms_of(cell: &str) -> Vec<String> {
    let names = cell.split("**").next().unwrap_or_default();
    quoted(names).iter().map(|name| name.trim_end_matches('/').trim_end_matches(".rs").to_owned()).collect()
}

fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
}

/// `policy/table.rs` is `[policy, table]`, `policy/mod.rs` and `policy.rs` are `[policy]`.
fn module_of(name: &str) -> Vec<String> {
    let path = name.trim_end_matches(".rs").trim_end_matches("/mod");
    path.split('/').map(ToOwned::to_owned).collect()
}

/// What is named of the crate's root, with its line: `crate::a`, `crate::{a, b::c}`, and `super::a` that climbs out of a room.
fn rooms_named(code: &str, depth: usize) -> Vec<(usize, String)> {
    let mut rooms = Vec::new();
    for root in ["crate::".to_owned(), "super::".repeat(depth)] {
        for (at, _) in code.match_indices(&root) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            let rest = &code[at + root.len()..];
            let names = rest.strip_prefix('{').map_or_else(|| vec![first_word(rest)], group_of);
            rooms.extend(names.into_iter().map(|name| (line, name)));
        }
    }
    rooms
}

/// The first words of the outermost entries of a `{...}` group.
fn group_of(group: &str) -> Vec<String> {
    let (mut depth, mut entry, mut rooms) = (0, String::new(), Vec::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => rooms.push(first_word(std::mem::take(&mut entry).trim())),
            c => entry.push(c),
        }
    }
    rooms.push(first_word(entry.trim()));
    rooms
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn has_word(line: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(is_name) && word.starts_with(is_name);
        let after = line[at + word.len()..].chars().next().is_some_and(is_name) && word.ends_with(is_name);
        !before && !after
    })
}

fn empty_names(name: &str, code: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty()).collect();
        for pair in words.windows(2) {
            let [keyword, defined] = pair else { continue };
            let lower = defined.to_ascii_lowercase();
            let empty = match *keyword {
                "mod" | "struct" | "enum" | "trait" | "type" => EMPTY_NAMES.iter().any(|bad| lower == *bad || lower.ends_with(bad)),
                "fn" => lower.starts_with("get_"),
                _ => false,
            };
            if empty {
                findings.push(format!("{name}:{}: `{keyword} {defined}` says nothing", number + 1));
            }
        }
    }
    findings
}

/// Blanks comments, texts and character literals, and keeps the lines. A lifetime is not a character: no second quote closes it.
fn without_comments_and_texts(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let raw_hashes = (at(i) == 'r').then(|| (1..).take_while(|n| at(i + n) == '#').count()).filter(|n| at(i + 1 + n) == '"');
        let starts_name = out.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        let end = match (at(i), at(i + 1)) {
            ('/', '/') => (i..chars.len()).find(|&j| at(j) == '\n').unwrap_or(chars.len()),
            ('/', '*') => (i + 2..chars.len()).find(|&j| at(j) == '*' && at(j + 1) == '/').map_or(chars.len(), |j| j + 2),
            ('"', _) => closing(&at, i + 1, chars.len(), '"'),
            ('\'', '\\') => closing(&at, i + 1, chars.len(), '\''),
            ('\'', _) if at(i + 2) == '\'' => i + 3,
            ('r', _) if raw_hashes.is_some() && !starts_name || at(i) == 'r' && raw_hashes.is_some() && at(i.wrapping_sub(1)) == 'b' => {
                let hashes = raw_hashes.unwrap_or(0);
                let body = i + 2 + hashes;
                (body..chars.len())
                    .find(|&j| at(j) == '"' && (1..=hashes).all(|n| at(j + n) == '#'))
                    .map_or(chars.len(), |j| j + 1 + hashes)
            }
            _ => {
                out.push(at(i));
                i += 1;
                continue;
            }
        };
        out.extend((i..end).map(|j| if at(j) == '\n' { '\n' } else { ' ' }));
        i = end;
    }
    out
}

fn closing(at: &impl Fn(usize) -> char, mut i: usize, end: usize, quote: char) -> usize {
    while i < end {
        match at(i) {
            '\\' => i += 2,
            c if c == quote => return i + 1,
            _ => i += 1,
        }
    }
    end
}

const SAMPLE: &str = "\
| room | one line | may use |
|---|---|---|
| `model/` | words | nothing |
| `request/` **pure** | | |
| `policy/` **pure** | | |
| `config/` **pure but for `load.rs`** | | policy, request |
| `posture/` | | config |
| `portal/` | | policy |
| `gate.rs` | | all above |
| `edge/` | | gate |
| `site.rs` | | everything |
| `cli/`, `main.rs` | | site |
";

fn findings(name: &str, text: &str) -> Vec<String> {
    House::read(SAMPLE).inspect(name, text)
}

#[test]
fn tidy_finds_what_is_wrong() {
    let long = "\n".repeat(LONGEST + 1);
    let cases = [
        ("policy/table.rs", "use crate::config::Loaded;", "policy may not use config"),
        ("policy/table.rs", "use crate::{model::Host, portal};", "policy may not use portal"),
        ("policy/table.rs", "use crate::{model::{Host, Mode}, portal};", "policy may not use portal"),
        ("policy/table.rs", "fn f() { crate::posture::open() }", "policy may not use posture"),
        ("policy/mod.rs", "use super::config::Loaded;", "policy may not use config"),
        ("policy/table.rs", "use super::super::config::Loaded;", "policy may not use config"),
        ("portal/mod.rs", "use crate::posture::Posture;", "portal may not use posture"),
        ("request/mod.rs", "use crate::policy::Policy;", "request may not use policy"),
        ("gate.rs", "use crate::edge::Conn;", "gate may not use edge"),
        ("gate.rs", "use crate::{\n    policy,\n    edge::Conn,\n};", "gate may not use edge"),
        ("site.rs", "use crate::cli::failure::Failure;", "site may not use cli"),
        ("model/mod.rs", "use crate::policy::Policy;", "model may not use policy"),
        ("attic/mod.rs", "", "`attic` is not in ARCHITECTURE.md"),
        ("policy/table.rs", "async fn f() {}", "`async` in a pure room"),
        ("policy/table.rs", "let x = f().await;", "`.await` in a pure room"),
        ("policy/table.rs", "let now = jiff::Timestamp::now();", "`Timestamp::now` in a pure room"),
        ("policy/table.rs", "use std::time::{Duration, Instant};", "`Instant` in a pure room"),
        ("config/raw.rs", "let t = std::fs::read(p);", "`std::fs` in a pure room"),
        ("config/raw.rs", "let t = fs::read(p);", "`fs::` in a pure room"),
        ("posture/mod.rs", long.as_str(), "split the room"),
        ("posture/mod.rs", "// TODO: later", "TODO"),
        ("posture/mod.rs", "fn f() { todo!() }", "todo!"),
        ("posture/mod.rs", "pub mod utils;", "`mod utils` says nothing"),
        ("posture/mod.rs", "pub struct CacheManager;", "`struct CacheManager` says nothing"),
        ("posture/mod.rs", "fn get_record() {}", "`fn get_record` says nothing"),
    ];
    for (name, text, expected) in cases {
        let found = findings(name, text);
        assert!(found.len() == 1 || text.contains("std::fs"), "{name}: {text}: {found:?}");
        assert!(found.iter().any(|f| f.contains(expected)), "{name}: {text}: {found:?}");
    }
}

#[test]
fn tidy_leaves_alone_what_is_right() {
    let cases = [
        ("config/mod.rs", "use crate::policy::Policy; use crate::model::Host; use crate::config::load;"),
        ("config/load.rs", "let text = std::fs::read_to_string(path)?;"),
        ("posture/mod.rs", "use crate::policy::draft::Source; async fn f() { tokio::time::sleep(d).await }"),
        ("gate.rs", "use crate::{policy, portal, request};"),
        ("site.rs", "use crate::edge;"),
        (
            "policy/table.rs",
            "// std::fs and crate::config in a comment\nlet s = \"async \\\" crate::config\"; let r = r#\"tokio \" \"#; let c = '\"'; /* tokio */",
        ),
        ("policy/table.rs", "fn f<'a>(x: &'a str, y: Instantaneous) { let my_tokio = 1; crate::policy::g(); use super::ids::AppId; }"),
        ("policy/table.rs", "fn f() {}\n#[cfg(test)]\nmod tests { use crate::config::load; use std::fs; }"),
        ("lib.rs", "pub mod anything;"),
    ];
    for (name, text) in cases {
        assert_eq!(findings(name, text), Vec::<String>::new(), "{name}: {text}");
    }
}

#[test]
fn the_table_itself_must_hold() {
    let upwards = SAMPLE.replace("| `posture/` | | config |", "| `posture/` | | gate |");
    assert!(House::read(&upwards).findings.iter().any(|f| f.contains("does not stand above")));
    assert!(!House::read("no table").findings.is_empty());
    assert!(House::read(SAMPLE).findings.is_empty());
}
