//! The table of known signatures against real clients: recorded ones, ones that were run to make the table, and other people's data where it is
//! at hand. Honest clients raise no contradiction; liars raise theirs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::LazyLock;

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use serde::Deserialize;
use vestibule::cli::fingerprint::{self, line::Table};
use vestibule::config::signatures;
use vestibule::fingerprint::hello::{Progress, read};
use vestibule::fingerprint::{Known, syn};
use vestibule::identify::{Path, compare, sides};
use vestibule::model::{Comparison, Confidence, Contradiction, Identification, Opening, Os, Seen, Sides, Traits, Wire};

static KNOWN: LazyLock<Known> = LazyLock::new(|| signatures::known(Vec::new()));
static RECORDED: LazyLock<Vec<Client>> = LazyLock::new(recorded);
static RUN: LazyLock<Vec<Client>> = LazyLock::new(run);

/// A connection of a known client.
#[derive(Clone)]
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
    const KINDS: [(&str, &str, &str); 35] = [
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
        ("curl-nss", "nss", "curl"),
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
        ("none", "rustls", "rust"),
        ("deno", "rustls", "node"),
        ("bun", "boringssl", "node"),
        ("dart", "boringssl", "other"),
        ("mono", "boringssl", "dotnet"),
        ("erlang", "erlang", "other"),
        ("conscrypt", "conscrypt", "okhttp"),
        ("mbedtls", "mbedtls", "other"),
        ("wolfssl", "wolfssl", "other"),
    ];
    let (kind, version) = name.split_once('/').unwrap_or((name, ""));
    // A replica counts as what it plays.
    let replica = ["curl_cffi", "rnet", "tls_client", "primp"].iter().any(|library| kind.starts_with(library));
    let (kind, version) = if replica { (version, version) } else { (name, version) };
    let (_, stack, family) = KINDS.into_iter().find(|(start, ..)| kind.starts_with(start)).unwrap();
    let digits: String = version.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    let version = match family {
        "safari" => digits[..2].parse().ok(),
        // Tor Browser counts otherwise than the Firefox that it is.
        "firefox" if kind.starts_with("tor") => Some(128),
        "node" if !kind.starts_with("node") => None,
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
        let unknown = [&found.tls, &found.h2].iter().any(|layer| matches!(layer, Seen::Unknown));
        if found.stacks.len() != 1 || &*found.stacks[0] != expected.stack || !family || !version || unknown {
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
    assert_eq!(RECORDED.len(), 153);
    recognised(&RECORDED);
}

#[test]
fn every_client_that_was_run_is_recognised() {
    assert!(RUN.len() > 80, "{}", RUN.len());
    recognised(&RUN);
}

#[test]
fn honest_clients_raise_nothing_strong() {
    let mut compared = 0;
    for client in RECORDED.iter().chain(&*RUN) {
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
    let mut out = std::io::stderr();
    writeln!(out, "{line}").unwrap();
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

/// Published signatures: the lists of a hello by name or number, and HTTP/2 frames.
#[test]
fn signatures_of_others_are_recognised() {
    let folder = shared("signatures");
    let Ok(files) = std::fs::read_dir(&folder) else {
        say(&format!("known: signatures absent ({}), used 0", folder.display()));
        return;
    };
    let mut clients = Vec::new();
    for file in files.map(|file| file.unwrap().path()) {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.file_stem().unwrap().to_str().unwrap().replacen('_', "/", 1);
        clients.push(signature(name, &text));
    }
    recognised(&clients);
    for client in &clients {
        let found = client.compared();
        assert!(found.contradictions.is_empty(), "{}: {:?}", client.name, found.clashes);
    }
    say(&format!("known: signatures used {}", clients.len()));
    assert_eq!(clients.len(), 9);
}

/// Reads just these files: what matters stands on lines of its own.
fn signature(name: String, text: &str) -> Client {
    const EXTENSIONS: [(&str, u16); 20] = [
        ("server_name", 0),
        ("status_request", 5),
        ("supported_groups", 10),
        ("ec_point_formats", 11),
        ("signature_algorithms", 13),
        ("application_layer_protocol_negotiation", 16),
        ("signed_certificate_timestamp", 18),
        ("padding", 21),
        ("extended_master_secret", 23),
        ("compress_certificate", 27),
        ("record_size_limit", 28),
        ("delegated_credentials", 34),
        ("session_ticket", 35),
        ("supported_versions", 43),
        ("psk_key_exchange_modes", 45),
        ("keyshare", 51),
        ("application_settings", 0x4469),
        ("application_settings_new", 0x44cd),
        ("encrypted_client_hello", 0xfe0d),
        ("renegotiation_info", 0xff01),
    ];
    let tls = text.find("tls_client_hello:").unwrap();
    let list = |key: &str, last: bool| -> Vec<u16> {
        let places: Vec<usize> = text.match_indices(&format!("{key}:\n")).map(|(at, _)| at + key.len() + 2).collect();
        let found = if last { places.last() } else { places.first() };
        let Some(at) = found else { return Vec::new() };
        let items = text[*at..].lines().map_while(|line| line.trim().strip_prefix("- "));
        items.take_while(|item| !item.contains(':')).filter_map(|item| item.parse().ok()).collect()
    };
    let ciphers = list("ciphersuites", false);
    let types = text[tls..].lines().filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix("type: "));
    let extensions: Vec<u16> = types.filter_map(|kind| EXTENSIONS.iter().find(|(name, _)| *name == kind)).map(|(_, code)| *code).collect();
    let grease = text[tls..].contains("- GREASE");
    let traits = Traits::new([&ciphers, &extensions, &list("sig_hash_algs", true), &list("supported_groups", false)], grease);
    let agent = text.lines().find_map(|line| line.trim().split_once("user-agent: ")).unwrap().1.trim_end_matches(['\'', '"']).to_owned();
    let wire = Wire { ja4_stable: RECORDED[0].wire.ja4_stable, traits: Some(traits), ..Wire::default() };
    Client { name, wire, opening: Opening::default(), headers: vec![("user-agent".to_owned(), agent)] }
}

/// With its HTTP/2 opening, if one was recorded.
fn one(name: &str) -> Client {
    let mut named: Vec<&Client> = RECORDED.iter().chain(&*RUN).filter(|client| client.name == name).collect();
    named.sort_by_key(|client| client.opening.h2.is_none());
    (*named.first().unwrap_or_else(|| panic!("{name}"))).clone()
}

const CHROME: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0";
const SAFARI: &str =
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15";
const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1";
const CHROME_ON_IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_2 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/142.0.6099.119 Mobile/15E148 Safari/604.1";
const CHROME_ON_IPAD: &str =
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/142 Version/11.1.1 Safari/605.1.15";
const GNOME_WEB: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Safari/605.1.15";
const TLS: &str = "ua_browser_vs_tls";
const H2: &str = "ua_browser_vs_h2";

/// What a client raises when it says this, SYN aside: the recordings' is of the machine that they were made on.
fn raised(mut client: Client, headers: &[(&str, &str)]) -> Vec<&'static str> {
    client.wire.syn = None;
    client.headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let found = client.compared();
    assert_eq!(found.contradictions, found.strong);
    found.contradictions.iter().map(Contradiction::as_str).collect()
}

#[test]
fn liars_raise_exactly_theirs() {
    for (client, agent, expected) in [
        ("curl/7.88.1-openssl", CHROME, &[TLS, H2][..]),
        ("curl/7.88.1-openssl-h1", CHROME, &[TLS]),
        ("curl/7.88.1-openssl", IPHONE, &[TLS, H2]),
        ("curl/7.88.1-openssl", FIREFOX, &[TLS, H2]),
        ("python-requests/2.34.2", SAFARI, &[TLS]),
        ("python-requests/2.34.2", GNOME_WEB, &[TLS]),
        ("python-httpx/0.28.1-h2", CHROME, &[TLS, H2]),
        ("curl_cffi-0.16.3/chrome142", IPHONE, &[TLS, H2]),
        ("curl_cffi-0.16.3/chrome142", CHROME_ON_IPHONE, &[TLS, H2]),
        ("curl_cffi-0.16.3/chrome131_android", IPHONE, &[TLS, H2]),
        ("curl_cffi-0.16.3/safari260_ios", CHROME, &[TLS, H2]),
        ("curl_cffi-0.16.3/safari184_ios", FIREFOX, &[TLS, H2]),
        // A replica of an old Chrome that says it is a new one.
        ("curl_cffi-0.16.3/chrome99", CHROME, &[TLS, H2]),
        ("curl_cffi-0.16.3/firefox144", CHROME, &[TLS, H2]),
        ("go-h2/1.25.5", CHROME, &[TLS, H2]),
        ("java-http1/21.0.8.2", CHROME, &[TLS]),
        ("node-fetch/v24.21.0", SAFARI, &[TLS]),
        ("okhttp/3.13.1-jdk17.0.9.2", CHROME, &[TLS, H2]),
        ("reqwest-rustls/0.12.28", FIREFOX, &[TLS, H2]),
        ("wget/1.21.3", CHROME, &[TLS]),
        // The other way round: a browser's stack under a tool's name.
        ("curl_cffi-0.16.3/chrome142", "curl/8.5.0", &[TLS, H2]),
        // The hello is what field trials and switches allow, the opening is not.
        ("rnet-2.4.2/chrome105", CHROME, &[H2]),
        // Who knows every suite of a browser, and not what it does with them.
        ("bun/1.4.5", CHROME, &[TLS]),
        ("deno/2.9.6", CHROME, &[TLS, H2]),
        ("primp-2.0.1/safari26", CHROME, &[TLS, H2]),
        ("tls_client-2.0.0/conscrypt-android9", CHROME, &[TLS, H2]),
        ("tls_client-2.0.0/dart-ios", IPHONE, &[TLS]),
        ("wolfssl/5.5", SAFARI, &[TLS]),
        ("mbedtls/2.28", FIREFOX, &[TLS]),
    ] {
        assert_eq!(raised(one(client), &[("user-agent", agent)]), expected, "{client} as {agent}");
    }
}

#[test]
fn a_wrong_opening_alone_is_its_own_contradiction() {
    let mut client = one("curl_cffi-0.16.3/chrome142");
    client.opening.h2 = one("curl_cffi-0.16.3/firefox144").opening.h2;
    assert!(client.identified().stacks.is_empty(), "no program does both");
    assert_eq!(raised(client, &[("user-agent", CHROME)]), [H2]);
}

#[test]
fn honest_oddities_raise_nothing() {
    let edge = format!("{CHROME} Edg/142.0.0.0");
    let opera =
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 OPR/126.0.0.0";
    let samsung = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/29.0 Chrome/136.0.0.0 Mobile Safari/537.36";
    let facebook = "Mozilla/5.0 (Linux; Android 14; SM-S911B; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/142.0.0.0 Mobile Safari/537.36 [FB_IAB/FB4A;FBAV/442.0.0.44.114;]";
    let bot = "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; Googlebot/2.1; +http://www.google.com/bot.html) Chrome/142.0.0.0 Safari/537.36";
    let headless = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/156.0.0.0 Safari/537.36";
    let next_year = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/199.0.0.0 Safari/537.36";
    let in_app = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_2 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148";
    for (client, agent) in [
        ("curl_cffi-0.16.3/chrome142", CHROME),
        ("curl_cffi-0.16.3/chrome142", &*edge),
        ("curl_cffi-0.16.3/chrome142", opera),
        ("curl_cffi-0.16.3/chrome136", samsung),
        ("curl_cffi-0.16.3/chrome142", facebook),
        ("curl_cffi-0.16.3/chrome150", next_year),
        ("chromium/156.0.8078.79", headless),
        ("chromium-http1/156", headless),
        ("curl_cffi-0.16.3/safari184_ios", CHROME_ON_IPHONE),
        ("curl_cffi-0.16.3/safari184_ios", CHROME_ON_IPAD),
        ("curl_cffi-0.16.3/safari184_ios", in_app),
        ("curl_cffi-0.16.3/safari260_ios", IPHONE),
        // iPadOS says Macintosh.
        ("curl_cffi-0.16.3/safari180_ios", SAFARI),
        ("webkitgtk/minibrowser", GNOME_WEB),
        ("webkitgtk/2.50-epiphany43", GNOME_WEB),
        ("firefox-strict/153.7.0esr", FIREFOX),
        ("curl_cffi-0.16.3/tor145", "Mozilla/5.0 (Windows NT 10.0; rv:128.0) Gecko/20100101 Firefox/128.0"),
        ("git/libcurl-gnutls-7.88.1", "git/2.47.3"),
        ("curl/pycurl", "curl/8.23.0"),
        ("python-requests/2.34.2", bot),
        ("go-h1/1.25.5", "Mozilla/5.0 (compatible; SomeCrawler/1.0)"),
        ("curl/7.88.1-openssl", "Expenses/3.2"),
    ] {
        assert_eq!(raised(one(client), &[("user-agent", agent)]), Vec::<&str>::new(), "{client} as {agent}");
    }
    assert_eq!(raised(one("curl/7.88.1-openssl"), &[]), Vec::<&str>::new(), "curl without a User-Agent");
}

/// What policies, switches and other servers change: no name (an address), no ALPN (WebSocket), no post-quantum group, no ECH, no ALPS, no certificate compression,
/// delegated credentials, a record size limit.
#[test]
fn a_stack_survives_its_switches() {
    for client in RECORDED.iter().chain(&*RUN) {
        let traits = client.wire.traits.as_ref().unwrap();
        let expected = client.identified().tls.meaning().unwrap().stacks.clone();
        let switches: [&[u16]; 8] = [
            &[0],
            &[16, 0x4469, 0x44cd],
            &[16, 0, 0x4469, 0x44cd],
            &[0xfe0d],
            &[0x001b],
            &[0x0023, 0x0029, 0x002d],
            &[0x4469, 0x44cd],
            &[0x0022, 0x0012],
        ];
        for off in switches {
            let extensions: Vec<u16> = traits.extensions().iter().copied().filter(|code| !off.contains(code)).collect();
            let groups: Vec<u16> = traits.groups().iter().copied().filter(|code| ![0x11ec, 0x6399].contains(code)).collect();
            for groups in [traits.groups(), &groups] {
                let changed = Traits::new([traits.ciphers(), &extensions, traits.algorithms(), groups], traits.grease);
                let wire = Wire { traits: Some(changed), ..client.wire.clone() };
                let found = KNOWN.identify(&wire, &Opening::default());
                assert_eq!(found.stacks, expected, "{} without {off:04x?}: {:?}", client.name, found.tls);
                let verdict = compare(&client.sides(), &found, None, Path::default());
                assert!(verdict.strong.is_empty(), "{} without {off:04x?}: {:?}", client.name, verdict.clashes);
            }
        }
    }
}

/// Conscrypt is Android's; whoever brings a BoringSSL of his own runs anywhere.
#[test]
fn a_library_that_runs_anywhere_tells_no_system() {
    for (name, expected) in [
        ("bun/1.4.5", &[][..]),
        ("tls_client-2.0.0/dart-ios", &[]),
        ("mono/6.8", &[]),
        ("tls_client-2.0.0/conscrypt-android7", &[Os::Android]),
        ("tls_client-2.0.0/conscrypt-android11", &[Os::Android]),
        ("rnet-2.4.2/conscrypt-okhttp3.9", &[Os::Android]),
    ] {
        let mut client = one(name);
        client.wire.syn = None;
        let wire = client.identified();
        assert_eq!(wire.os, expected.iter().copied().collect(), "{name}");
        let found = compare(&client.sides(), &wire, Some(Os::Android), Path::default());
        assert!(found.contradictions.is_empty(), "{name}: {:?}", found.clashes);
    }
}

#[test]
fn an_unknown_hello_names_its_nearest_row() {
    let client = one("curl_cffi-0.16.3/firefox144");
    let traits = client.wire.traits.as_ref().unwrap();
    let ciphers = [traits.ciphers(), &[0x1305]].concat();
    let wire =
        Wire { traits: Some(Traits::new([&ciphers, traits.extensions(), traits.algorithms(), traits.groups()], false)), ..client.wire };
    let found = KNOWN.identify(&wire, &Opening::default());
    assert_eq!((found.stack(), found.nearest.as_deref()), ("unknown", Some("firefox-135")));
    assert!(found.browsers.is_empty() && matches!(found.tls, Seen::Unknown));
    assert_eq!(KNOWN.identify(&Wire::default(), &Opening::default()).stack(), "unavailable");
}

#[test]
fn syns_say_families_of_kernels() {
    use Os::{Android, ChromeOs, Ios, Linux, MacOs, Other, Windows};
    for (signature, expected) in [
        ("4:128:mss*44:8:mss1460,nop,ws,nop,nop,sok:df", &[Windows][..]),
        ("4:128:65535:8:mss1386,nop,ws,nop,nop,sok:df,ecn", &[Windows]),
        ("6:128:64800:8:mss1440,nop,ws,nop,nop,sok:-", &[Windows]),
        ("4:128:8192:8:mss1460,nop,ws,sok,ts:df", &[Windows]),
        ("4:64:65535:6:mss1460,nop,ws,nop,nop,ts,sok,eol:df,ecn", &[MacOs, Ios]),
        ("6:64:65535:5:mss1440,nop,ws,nop,nop,ts,sok,eol:-", &[MacOs, Ios]),
        ("4:64:mss*44:7:mss1460,sok,ts,nop,ws:df", &[Android, Linux, ChromeOs]),
        ("4:64:65535:8:mss1460,sok,ts,nop,ws:df", &[Android, Linux, ChromeOs]),
        ("6:64:mss*45:7:mss1440,sok,ts,nop,ws,nop,nop,tfo:-", &[Android, Linux, ChromeOs]),
        ("4:64:mss*44:7:mss1460,nop,nop,sok,nop,ws:df", &[Android, Linux, ChromeOs]),
        ("4:64:65535:6:mss1460,nop,ws,sok,ts:df", &[Other]),
    ] {
        let found = KNOWN.identify(&Wire { syn: Some(signature.into()), ..Wire::default() }, &Opening::default());
        assert_eq!(found.os, expected.iter().copied().collect(), "{signature}");
    }
    let odd = KNOWN.identify(&Wire { syn: Some("4:255:512:-:mss536:-".into()), ..Wire::default() }, &Opening::default());
    assert!(odd.os.is_empty() && matches!(odd.syn, Seen::Unknown));
}

/// A VPN sends its own SYN: weak, unless the zone says that there is none.
#[test]
fn a_systems_contradiction_is_weak_unless_its_syn_is_direct() {
    let client = one("curl_cffi-0.16.3/chrome142");
    let headers = HeaderValue::from_static(CHROME);
    let sides = sides(&[(http::header::USER_AGENT, headers)].into_iter().collect());
    let identified = client.identified();
    let kinds = |set: vestibule::model::Set<Contradiction>| set.iter().map(Contradiction::as_str).collect::<Vec<_>>();
    let through = compare(&sides, &identified, Some(Os::Windows), Path::default());
    assert_eq!(kinds(through.contradictions), ["ua_os_vs_syn", "record_os_vs_wire"]);
    assert!(through.strong.is_empty() && through.confidence == Confidence::Corroborated);
    let direct = compare(&sides, &identified, Some(Os::Windows), Path { syn_direct: true, ..Path::default() });
    assert_eq!(kinds(direct.strong), ["ua_os_vs_syn", "record_os_vs_wire"]);
    assert_eq!(direct.confidence, Confidence::Contradicted);
    assert_eq!((&*direct.clashes[0].claimed, &*direct.clashes[0].seen), ("windows", "android, linux, chromeos"));
}

#[test]
fn an_interception_silences_tls_and_http2_against_claims() {
    let mut client = one("curl/7.88.1-openssl");
    client.headers = vec![("user-agent".to_owned(), CHROME.to_owned())];
    let found = compare(&client.sides(), &client.identified(), Some(Os::Ios), Path { intercepted: true, ..Path::default() });
    assert!(found.contradictions.is_empty(), "{:?}", found.clashes);
    let found = client.compared();
    let sides: Vec<_> = found.clashes.iter().map(|clash| (clash.kind.as_str(), &*clash.claimed, &*clash.seen)).collect();
    assert_eq!(
        sides,
        [(TLS, "chrome 142 on windows", "openssl: curl, wget, python, node, other, dotnet"), (H2, "chrome 142 on windows", "curl, other")]
    );
}

/// A record's system against a stack that only other systems have.
#[test]
fn a_record_contradicts_a_stack_of_other_systems() {
    let found = |client: &str, os| compare(&Sides::default(), &one(client).identified(), Some(os), Path::default());
    let apple = found("curl_cffi-0.16.3/safari180", Os::Windows);
    assert_eq!(apple.strong.iter().collect::<Vec<_>>(), [Contradiction::RecordOsVsWire]);
    for (client, os) in [
        ("curl_cffi-0.16.3/safari180", Os::Ios),
        ("curl_cffi-0.16.3/safari180", Os::MacOs),
        ("curl_cffi-0.16.3/chrome142", Os::Windows),
        ("curl_cffi-0.16.3/safari180", Os::Other),
    ] {
        assert!(found(client, os).strong.is_empty(), "{client} {os:?}");
    }
}

fn row(text: &str) -> Result<Vec<vestibule::fingerprint::known::Row>, String> {
    signatures::read("own.yaml".as_ref(), text.as_bytes()).map_err(|report| report.lines())
}

#[test]
fn an_operator_extends_and_overrides() {
    let own = row(
        "rows:\n  - {name: pos, tls: {ja4: [\"t13d1811h1_*\"]}, stack: pos-terminal, forms: [other]}\n  - {name: go, syn: [\"?:32:*\"], os: [other]}\n",
    );
    let known = signatures::known(own.unwrap());
    let requests = one("python-requests/2.34.2");
    assert_eq!(known.identify(&requests.wire, &requests.opening).stack(), "pos-terminal");
    let go = one("go-h1/1.19.8");
    assert_eq!(KNOWN.identify(&go.wire, &go.opening).stack(), "go");
    let without = known.identify(&go.wire, &go.opening);
    assert!(matches!(without.tls, Seen::Unknown), "the row of that name is another one now: {without:?}");
}

#[test]
fn a_table_with_mistakes_says_where() {
    for (text, expected) in [
        ("rows:\n  - {name: a, stack: go}\n", "own.yaml:2:5: error: rows[0]: found 0 of `tls`, `h2` and `syn`, expected exactly one\n"),
        (
            "rows:\n  - {name: a, h2: [x], syn: [x], stack: go}\n",
            "own.yaml:2:5: error: rows[0]: found 2 of `tls`, `h2` and `syn`, expected exactly one\n",
        ),
        (
            "rows:\n  - {name: a, h2: [x]}\n",
            "own.yaml:2:5: error: rows[0]: the row stands for nothing: give it `stack`, `browsers`, `os` or `forms`\n",
        ),
        (
            "rows:\n  - {name: a, h2: [x], stack: Go!}\n",
            "own.yaml:2:31: error: rows[0].stack: found `Go!`, expected `a-z`, `0-9`, `_` and `-`, at most 32\n",
        ),
        (
            "rows:\n  - {name: a, h2: [x], stack: unknown}\n",
            "own.yaml:2:31: error: rows[0].stack: `unknown` is what `wire.stack` says when no row matches\n",
        ),
        (
            "rows:\n  - {name: a, h2: [x], stack: go, versions: 9-8}\n",
            "own.yaml:2:45: error: rows[0].versions: found `9-8`, expected a range of versions: `133+`, `91-132` or `99`\n",
        ),
        (
            "rows:\n  - {name: a, h2: [x], stack: go, versions: 8+, possible: 9+}\n",
            "own.yaml:2:59: error: rows[0].possible: `possible` is narrower than `versions`, `8+`\n",
        ),
        (
            "rows:\n  - {name: a, tls: {}, stack: go}\n",
            "own.yaml:2:20: error: rows[0].tls: nothing to match: every hello would be this one\n",
        ),
        (
            "rows:\n  - {name: a, tls: {groups: {has: 11zz}}, stack: go}\n",
            "own.yaml:2:35: error: rows[0].tls.groups.has: found `11zz`, expected four hex digits\n",
        ),
        (
            "rows:\n  - {name: a, tls: {grease: true, example: t13}, stack: go}\n",
            "own.yaml:2:44: error: rows[0].tls.example: expected a `ja4_r`: its first part, cipher suites, extensions and signature algorithms, joined by `_`\n",
        ),
        ("rows:\n  - {name: a, h2: [x], browsers: [netscape]}\n", "expected `chrome`"),
        ("rows:\n  - {name: a, h2: [x], os: [windoes]}\n", "did you mean `windows`?"),
        ("rows:\n  - {name: a, h2: [x], stak: go}\n", "did you mean `stack`?"),
        (
            "rows:\n  - {name: a, h2: [x], stack: go}\n  - {name: a, h2: [y], stack: go}\n",
            "own.yaml:3:12: error: rows[1].name: a second row named `a` (first: own.yaml:2:12)\n",
        ),
        ("[]", "expected a map with the keys of"),
    ] {
        let lines = row(text).unwrap_err();
        assert!(lines == expected || (!expected.starts_with("own") && lines.contains(expected)), "{text}\n{lines}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is claimed: unknown and unavailable layers contradict nothing.
    #[test]
    fn the_unknown_never_contradicts(agent in prop_oneof!["\\PC{0,80}", Just(CHROME.to_owned()), Just(IPHONE.to_owned()), Just("curl/8".to_owned())], record in 0..Os::ALL.len(), unknown: bool, direct: bool) {
        let Ok(value) = HeaderValue::from_bytes(agent.as_bytes()) else { return Ok(()) };
        let said = sides(&[(http::header::USER_AGENT, value)].into_iter().collect());
        let layer = || if unknown { Seen::Unknown } else { Seen::Unavailable };
        let wire = Identification { tls: layer(), h2: layer(), syn: layer(), ..Identification::default() };
        let found = compare(&said, &wire, Some(Os::ALL[record]), Path { syn_direct: direct, intercepted: false });
        prop_assert!(found.contradictions.is_empty());
    }

    /// Any row of any codes may be added to the table; any hello may be looked up in it.
    #[test]
    fn adding_a_row_never_panics(
        codes in proptest::collection::vec(proptest::collection::vec(any::<u16>(), 0..6), 6),
        glob in "[t1?*d_]{0,8}",
        hello in proptest::collection::vec(proptest::collection::vec(any::<u16>(), 0..300), 4),
        h2 in "[0-9:;|,masp?*]{0,40}",
    ) {
        let text = |codes: &[u16]| codes.iter().map(|code| format!("{code:04x} ")).collect::<String>();
        let keys = ["has", "any", "lacks", "begins", "order", "only"];
        let lists: String = keys.iter().zip(&codes).filter(|(_, codes)| !codes.is_empty()).map(|(key, codes)| format!("{key}: \"{}\", ", text(codes))).collect();
        let yaml = format!("rows:\n  - {{name: a, tls: {{grease: true, ja4: [\"*{glob}\"], ciphers: {{{lists}}}, extensions: {{{lists}}}}}, stack: x}}\n  - {{name: b, h2: [\"*{h2}\"], stack: y}}\n");
        let known = signatures::known(row(&yaml).unwrap());
        let traits = Traits::new([&hello[0], &hello[1], &hello[2], &hello[3]], true);
        let wire = Wire { ja4_stable: RECORDED[0].wire.ja4_stable, traits: Some(traits), ..Wire::default() };
        let found = known.identify(&wire, &Opening { h2: Some(h2.into()), ..Opening::default() });
        prop_assert!(found.nearest.is_some() || !matches!(found.tls, Seen::Unknown));
    }
}
