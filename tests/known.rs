//! The table of known signatures against real clients: recorded ones, ones that were run to make the table, and other people's data where it is
//! at hand. Honest clients raise no contradiction; liars raise theirs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use vestibule::cli::fingerprint::{self, line::Table};
use vestibule::config::signatures;
use vestibule::fingerprint::hello::{Progress, read};
use vestibule::fingerprint::{Known, syn};
use vestibule::identify::{Path, compare, sides};
use vestibule::model::{Comparison, Confidence, Contradiction, Identification, Opening, Os, Seen, Sides, Wire};

static KNOWN: LazyLock<Known> = LazyLock::new(|| signatures::known(Vec::new()));

/// A connection of a known client.
struct Client {
    name: String,
    wire: Wire,
    opening: Opening,
    headers: Vec<(String, String)>,
}

impl Client {
    fn identified(&self) -> Identification {
        KNOWN.identify(&self.wire, &self.opening)
    }

    fn sides(&self) -> Sides {
        sides(
            &self
                .headers
                .iter()
                .map(|(name, value)| (HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap()))
                .collect(),
        )
    }

    fn compared(&self) -> Comparison {
        compare(&self.sides(), &self.identified(), None, Path::default())
    }
}

fn wire_of(hello: &[u8]) -> Wire {
    let Progress::Hello(hello) = read(hello) else { panic!("no hello") };
    Wire { ja4: Some(hello.ja4()), ja4_stable: Some(hello.ja4_stable()), traits: Some(hello.traits()), ..Wire::default() }
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// The handshake message in one record.
fn record(message: &[u8]) -> Vec<u8> {
    [&[22, 3, 1], &u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

/// Recorded on one machine, replicas by curl_cffi included, and with SYNs.
fn recorded() -> Vec<Client> {
    #[derive(Deserialize)]
    struct Row {
        client: String,
        hello: String,
        syn: String,
        akamai_h2: Option<String>,
        h1: Option<Vec<String>>,
        h2: Option<Vec<Frame>>,
    }
    #[derive(Deserialize)]
    struct Frame {
        #[serde(default)]
        headers: Vec<(String, String)>,
    }
    let rows = include_str!("fixtures/fingerprints/clients.jsonl").lines().map(|line| serde_json::from_str::<Row>(line).unwrap());
    rows.map(|row| {
        let h1 = row.h1.iter().flatten().filter_map(|line| line.split_once(": "));
        let h1 = h1.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let h2 = row.h2.into_iter().flatten().flat_map(|frame| frame.headers);
        let mut wire = wire_of(&record(&unhex(&row.hello)));
        wire.syn = syn::signature(&unhex(&row.syn));
        Client {
            name: row.client,
            wire,
            opening: Opening { h2: row.akamai_h2.map(Into::into), ..Opening::default() },
            headers: h1.chain(h2).filter(|(name, _)| !name.starts_with(':')).collect(),
        }
    })
    .collect()
}

/// Programs that were installed and run against a server of ours to make the table.
fn run() -> Vec<Client> {
    #[derive(Deserialize)]
    struct Row {
        client: String,
        hello: String,
        h2: Option<String>,
        headers: Vec<(String, String)>,
    }
    let rows = include_str!("fixtures/fingerprints/run-clients.jsonl").lines().map(|line| serde_json::from_str::<Row>(line).unwrap());
    // A library of replicas that plays nobody is no honest client: BoringSSL's plain hello, and Chrome's HTTP/2.
    let rows = rows.filter(|row| row.client != "python-curl_cffi-none");
    rows.map(|row| Client {
        name: row.client,
        wire: wire_of(&record(&unhex(&row.hello))),
        opening: Opening { h2: row.h2.map(Into::into), ..Opening::default() },
        headers: row.headers,
    })
    .collect()
}

/// Stack, family and version that a label stands for.
struct Label {
    stack: &'static str,
    family: &'static str,
    version: Option<u32>,
}

fn label(name: &str) -> Label {
    const KINDS: [(&str, &str, &str); 25] = [
        ("chromium", "chromium", "chromium"),
        ("chrome", "chromium", "chrome"),
        ("edge", "chromium", "edge"),
        ("safari", "apple", "safari"),
        ("firefox", "firefox", "firefox"),
        ("tor", "firefox", "firefox"),
        ("python", "openssl", "python"),
        ("openssl", "openssl", "other"),
        ("gnutls", "gnutls", "other"),
        ("node", "openssl", "node"),
        ("curl", "openssl", "curl"),
        ("git", "gnutls", "curl"),
        ("wget", "gnutls", "wget"),
        ("php", "openssl", "other"),
        ("ruby", "openssl", "other"),
        ("perl", "openssl", "other"),
        ("w3m", "openssl", "other"),
        ("aria2", "gnutls", "other"),
        ("lynx", "gnutls", "other"),
        ("java", "java", "java"),
        ("okhttp", "java", "okhttp"),
        ("go", "go", "go"),
        ("webkitgtk", "gnutls", "webkitgtk"),
        ("reqwest", "rustls", "rust"),
        ("uv", "rustls", "rust"),
    ];
    let (kind, version) = name.split_once('/').unwrap_or((name, ""));
    // A replica counts as what it plays.
    let (kind, version) = if kind.starts_with("curl_cffi") { (version, version) } else { (name, version) };
    let (_, stack, family) = KINDS.into_iter().find(|(start, ..)| kind.starts_with(start)).unwrap();
    let digits: String = version.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    let version = match family {
        "safari" => digits[..2].parse().ok(),
        // Tor Browser counts otherwise than the Firefox that it is.
        "firefox" if kind.starts_with("tor") => Some(128),
        "chrome" | "chromium" | "edge" | "firefox" | "java" | "node" => digits.parse().ok(),
        _ => None,
    };
    Label { stack, family, version }
}

#[track_caller]
fn recognised(clients: &[Client]) {
    let mut wrong = Vec::new();
    for client in clients {
        let expected = label(&client.name);
        let found = client.identified();
        let family = found.browsers.iter().any(|browser| browser.as_str() == expected.family);
        let version = expected.version.is_none_or(|version| found.versions.is_some_and(|span| span.holds(version)));
        if found.stacks.len() != 1 || &*found.stacks[0] != expected.stack || !family || !version || matches!(found.h2, Seen::Unknown) {
            wrong.push(format!(
                "{}: stacks {:?}, {:?}, versions {:?}, tls {:?}, h2 {:?} of {:?}; ja4_stable {:?}",
                client.name,
                found.stacks,
                found.browsers,
                found.versions,
                found.tls.meaning().map(|m| &m.name),
                found.h2.meaning().map(|m| &m.name),
                client.opening.h2,
                client.wire.ja4_stable,
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_table_is_read() {
    if let Err(report) = signatures::read("known.yaml".as_ref(), include_bytes!("../src/fingerprint/known.yaml")) {
        panic!("{report}");
    }
    assert!(signatures::builtin().len() > 60);
}

#[test]
fn every_recording_is_recognised() {
    let clients = recorded();
    assert_eq!(clients.len(), 153);
    recognised(&clients);
}

#[test]
fn every_client_that_was_run_is_recognised() {
    let clients = run();
    assert!(clients.len() > 80, "{}", clients.len());
    recognised(&clients);
}

#[test]
fn honest_clients_raise_nothing_strong() {
    let mut compared = 0;
    for client in recorded().iter().chain(&run()) {
        let found = client.compared();
        assert!(found.strong.is_empty(), "{}: {:?}", client.name, found.clashes);
        compared += u32::from(found.confidence == Confidence::Corroborated);
    }
    assert!(compared > 150, "{compared}");
}

/// Where data that is not this project's own may lie: `VESTIBULE_SHARED_DATA`, else beside the checkout.
fn shared(folder: &str) -> PathBuf {
    let data = std::env::var_os("VESTIBULE_SHARED_DATA").map(PathBuf::from);
    data.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data")).join("fingerprints").join(folder)
}

/// Past the test harness, which keeps what a passing test prints to itself.
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").unwrap();
}

#[test]
fn captures_of_others_are_recognised() {
    let folder = shared("ja4-pcaps");
    let Ok(files) = std::fs::read_dir(&folder) else {
        say(&format!("known: captures absent ({}), used 0 hellos", folder.display()));
        return;
    };
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    let mut unknown = Vec::new();
    let table = Table(KNOWN.clone());
    for file in files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|kind| kind != "tsv")) {
        let (done, _) = fingerprint::read(std::fs::File::open(&file).unwrap(), &table, |line| {
            *found.entry(line.stack.iter().flatten().next().cloned().unwrap_or_else(|| "unknown".to_owned())).or_default() += 1;
            if line.stack.as_ref().is_some_and(Vec::is_empty) {
                unknown.push((file.file_name().unwrap().to_owned(), line.ja4_stable.clone(), line.nearest.clone()));
            }
            Ok(())
        });
        done.unwrap();
    }
    say(&format!("known: captures used {} hellos: {found:?}; unknown: {unknown:?}", found.values().sum::<usize>()));
    assert_eq!(unknown.len(), 0, "{unknown:?}");
}
