//! What identification costs a connection: `cargo bench --bench identify`. Allocations are counted beside the time.

use std::sync::LazyLock;

use divan::{AllocProfiler, Bencher, black_box};
use http::{HeaderMap, HeaderValue};
use vestibule::config::signatures;
use vestibule::fingerprint::hello::{Progress, read};
use vestibule::fingerprint::{Known, syn};
use vestibule::identify::{Path, compare, sides};
use vestibule::model::{Opening, Os, Traits, Wire};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| signatures::known(Vec::new()));

const RECORDINGS: &str = include_str!("../tests/fixtures/fingerprints/clients.jsonl");
const CLIENTS: [&str; 5] = [
    "chromium/156.0.8078.79",
    "curl_cffi-0.16.3/chrome142",
    "curl_cffi-0.16.3/safari260_ios",
    "curl_cffi-0.16.3/firefox147",
    "node-fetch/20.20.2",
];

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn seen(client: &str) -> (Wire, Opening) {
    let recordings = RECORDINGS.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    // The last one of a client has its HTTP/2 opening.
    let recording = recordings.rev().find(|recording| recording["client"] == client).unwrap();
    let message = unhex(recording["hello"].as_str().unwrap());
    let bytes = [&[22, 3, 1], &u16::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat();
    let Progress::Hello(hello) = read(&bytes) else { panic!() };
    let wire = Wire {
        ja4: Some(hello.ja4()),
        ja4_stable: Some(hello.ja4_stable()),
        traits: Some(hello.traits()),
        syn: syn::signature(&unhex(recording["syn"].as_str().unwrap())),
        ..Wire::default()
    };
    (wire, Opening { h2: recording["akamai_h2"].as_str().map(Into::into), ..Opening::default() })
}

#[divan::bench(args = CLIENTS)]
fn identify(bencher: Bencher, client: &str) {
    let (wire, opening) = seen(client);
    bencher.bench_local(|| KNOWN.identify(black_box(&wire), black_box(&opening)));
}

/// No row matches, and the nearest is sought.
#[divan::bench]
fn identify_unknown(bencher: Bencher) {
    let (wire, opening) = seen("node-fetch/20.20.2");
    let old = wire.traits.unwrap();
    let ciphers: Vec<u16> = old.ciphers().iter().rev().copied().collect();
    let extensions: Vec<u16> = old.extensions().iter().rev().copied().collect();
    let wire = Wire { traits: Some(Traits::new([&ciphers, &extensions, old.algorithms(), old.groups()], false)), ..wire };
    assert_eq!(KNOWN.identify(&wire, &opening).stack(), "unknown");
    bencher.bench_local(|| KNOWN.identify(black_box(&wire), black_box(&opening)));
}

/// The longest lists that a hostile hello is remembered by.
#[divan::bench]
fn identify_hostile(bencher: Bencher) {
    let (wire, opening) = seen("node-fetch/20.20.2");
    let list: Vec<u16> = (0x2000..0x3000).collect();
    let wire = Wire { traits: Some(Traits::new([&list; 4], false)), ..wire };
    bencher.bench_local(|| KNOWN.identify(black_box(&wire), black_box(&opening)));
}

const AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    let brands = r#""Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99""#;
    for (name, value) in [("user-agent", AGENT), ("sec-ch-ua", brands), ("sec-ch-ua-mobile", "?0"), ("sec-ch-ua-platform", "\"Windows\"")] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
}

#[divan::bench]
fn compare_an_honest_client(bencher: Bencher) {
    let (wire, opening) = seen("curl_cffi-0.16.3/chrome142");
    let (identification, sides) = (KNOWN.identify(&Wire { syn: None, ..wire }, &opening), sides(&headers()));
    bencher.bench_local(|| compare(black_box(&sides), black_box(&identification), Some(Os::Windows), Path::default()));
}

#[divan::bench]
fn compare_a_liar(bencher: Bencher) {
    let (wire, opening) = seen("node-fetch/20.20.2");
    let (identification, sides) = (KNOWN.identify(&wire, &opening), sides(&headers()));
    bencher.bench_local(|| compare(black_box(&sides), black_box(&identification), Some(Os::Windows), Path::default()));
}

/// All of it: the connection's layers, the first request's claims, and the comparison.
#[divan::bench(args = CLIENTS)]
fn whole(bencher: Bencher, client: &str) {
    let (wire, opening) = seen(client);
    let headers = headers();
    bencher.bench_local(|| {
        let identification = KNOWN.identify(black_box(&wire), black_box(&opening));
        let sides = sides(black_box(&headers));
        compare(&sides, &identification, Some(Os::Windows), Path::default())
    });
}
