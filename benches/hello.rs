//! What a connection's facts cost: `cargo bench --bench hello`. Allocations are counted beside the time.

use divan::{AllocProfiler, Bencher, black_box};
use http::{HeaderMap, HeaderValue};
use vestibule::fingerprint::hello::{Arriving, Hello, Progress, read};
use vestibule::fingerprint::syn;
use vestibule::identify::claims;
use vestibule::model::Ja4;

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

const RECORDINGS: &str = include_str!("../tests/fixtures/fingerprints/clients.jsonl");

/// A resumed Chromium with a post-quantum key share: 2,183 bytes of message.
fn post_quantum() -> Vec<u8> {
    field("hello", |recording| recording["client"] == "chromium/156.0.8078.79" && recording["resumed"] == true)
}

fn field(name: &str, wanted: impl Fn(&serde_json::Value) -> bool) -> Vec<u8> {
    let mut recordings = RECORDINGS.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let hex = recordings.find(wanted).unwrap()[name].as_str().unwrap().to_owned();
    hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for fragment in message.chunks(size) {
        out.extend([22, 3, 1]);
        out.extend(u16::try_from(fragment.len()).unwrap().to_be_bytes());
        out.extend(fragment);
    }
    out
}

fn whole(bytes: &[u8]) -> Hello {
    match read(bytes) {
        Progress::Hello(hello) => hello,
        other => panic!("{other:?}"),
    }
}

fn both(bytes: &[u8]) -> (Ja4, Ja4) {
    let hello = whole(bytes);
    (hello.ja4(), hello.ja4_stable())
}

/// Bytes to `ja4` and `ja4_stable`.
#[divan::bench]
fn hello_to_ja4(bencher: Bencher) {
    let bytes = records(&post_quantum(), 1 << 14);
    bencher.bench_local(|| both(black_box(&bytes)));
}

/// The same in records of 512 bytes.
#[divan::bench]
fn hello_over_records_to_ja4(bencher: Bencher) {
    let bytes = records(&post_quantum(), 512);
    bencher.bench_local(|| both(black_box(&bytes)));
}

/// An OpenSSL client with 31 cipher suites and 20 signature algorithms.
#[divan::bench]
fn openssl_hello_to_ja4(bencher: Bencher) {
    let bytes = records(&field("hello", |recording| recording["client"] == "openssl-s_client/3.0.19"), 1 << 14);
    bencher.bench_local(|| both(black_box(&bytes)));
}

/// A hostile one: the same in one-byte records, a call for each byte that comes. All 13,000 calls together.
#[divan::bench]
fn one_byte_at_a_time(bencher: Bencher) {
    let bytes = records(&post_quantum(), 1);
    bencher.bench_local(|| {
        let mut arriving = Arriving::default();
        (1..bytes.len()).filter(|&have| matches!(arriving.read(black_box(&bytes[..have])), Progress::NeedMore)).count()
    });
}

#[divan::bench]
fn syn_signature(bencher: Bencher) {
    let bytes = field("syn", |_| true);
    bencher.bench_local(|| syn::signature(black_box(&bytes)));
}

fn chrome() -> HeaderMap {
    let mut headers = HeaderMap::new();
    let agent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
    headers.insert("user-agent", HeaderValue::from_static(agent));
    headers
}

#[divan::bench]
fn claims_of_chrome(bencher: Bencher) {
    let headers = chrome();
    bencher.bench_local(|| claims(black_box(&headers)));
}

#[divan::bench]
fn claims_of_chrome_with_hints(bencher: Bencher) {
    let mut headers = chrome();
    let brands = r#""Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99""#;
    for (name, value) in [("sec-ch-ua", brands), ("sec-ch-ua-mobile", "?0"), ("sec-ch-ua-platform", "\"Windows\"")] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    bencher.bench_local(|| claims(black_box(&headers)));
}

/// The longest text that is read at all, all of it words.
#[divan::bench]
fn claims_of_a_hostile_client(bencher: Bencher) {
    let mut headers = HeaderMap::new();
    headers.insert("user-agent", HeaderValue::from_str(&"a ".repeat(512)).unwrap());
    bencher.bench_local(|| claims(black_box(&headers)));
}
