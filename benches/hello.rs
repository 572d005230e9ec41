//! What a connection's facts cost: `cargo bench --bench hello`. Allocations are counted beside the time. At the end it says what share of a full
//! TLS handshake they are, both measured in the same run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use divan::{AllocProfiler, Bencher, black_box};
use http::{HeaderMap, HeaderValue};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use vestibule::fingerprint::hello::{Arriving, Hello, Progress, read};
use vestibule::fingerprint::order::Version;
use vestibule::fingerprint::{h2, order, syn};
use vestibule::identify::claims;
use vestibule::model::Ja4;

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
    share();
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
fn hello_to_ja3(bencher: Bencher) {
    let bytes = records(&post_quantum(), 1 << 14);
    bencher.bench_local(|| whole(black_box(&bytes)).ja3());
}

/// Chrome 142's first flight of HTTP/2 with 14 compressed fields, by the encoder of the library h2: 377 bytes.
fn chrome_opening() -> Vec<u8> {
    let (client, mut server) = tokio::io::duplex(1 << 16);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut builder = ::h2::client::Builder::new();
        builder.header_table_size(65536).enable_push(false).initial_window_size(6_291_456).max_header_list_size(262_144);
        let (mut send, connection) = builder.initial_connection_window_size(15_728_640).handshake::<_, bytes::Bytes>(client).await.unwrap();
        let running = tokio::spawn(connection);
        let mut request = http::Request::get("https://wiki.corp.example/pages/start?from=mail");
        for (name, value) in CHROME {
            request = request.header(name, value);
        }
        let _answer = send.send_request(request.body(()).unwrap(), true).unwrap();
        let mut bytes = Vec::new();
        while h2::Arriving::default().read(&bytes).unwrap().is_none() {
            tokio::io::AsyncReadExt::read_buf(&mut server, &mut bytes).await.unwrap();
        }
        running.abort();
        bytes
    })
}

const CHROME: [(&str, &str); 14] = [
    ("sec-ch-ua", "\"Chromium\";v=\"142\", \"Google Chrome\";v=\"142\", \"Not_A Brand\";v=\"99\""),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", "\"Windows\""),
    ("upgrade-insecure-requests", "1"),
    ("user-agent", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"),
    ("sec-fetch-site", "none"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-user", "?1"),
    ("sec-fetch-dest", "document"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-US,en;q=0.9"),
    ("cookie", "session=0123456789abcdef0123456789abcdef"),
    ("priority", "u=0, i"),
];

fn opened(bytes: &[u8]) -> (Box<str>, Box<str>) {
    let opened = h2::Arriving::default().read(bytes).unwrap().unwrap();
    let order = opened.names.order(Version::Http2);
    (opened.opening, order)
}

/// Both what the opening says and the order of its fields.
#[divan::bench]
fn h2_opening_and_order(bencher: Bencher) {
    let bytes = chrome_opening();
    bencher.bench_local(|| opened(black_box(&bytes)));
}

#[divan::bench]
fn http1_order(bencher: Bencher) {
    let fields: String = CHROME.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let bytes = format!("GET / HTTP/1.1\r\nHost: wiki.corp.example\r\n{fields}\r\n").into_bytes();
    bencher.bench_local(|| order::Arriving::default().read(black_box(&bytes)).unwrap().unwrap().order(Version::Http1));
}

/// A hostile one: 16 KiB of references to one long name.
#[divan::bench]
fn h2_opening_of_a_hostile_client(bencher: Bencher) {
    let block = [&[0x40, 0x7f, 0x81, 0x0f][..], &[b'a'; 2048], &[0], &[0xbe; 14_000]].concat();
    let length = u32::try_from(block.len()).unwrap().to_be_bytes();
    let bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &length[1..], &[1, 4, 0, 0, 0, 1], &block].concat();
    bencher.bench_local(|| opened(black_box(&bytes)));
}

/// Client and server in memory, with what both prefer: TLS 1.3, X25519MLKEM768, ECDSA over P-256, no client certificate.
struct Ends {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Ends {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["wiki.corp.example".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
        let mut client = client.with_root_certificates(roots).with_no_client_auth();
        client.resumption = rustls::client::Resumption::disabled();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let server = server.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        Self { client: Arc::new(client), server: Arc::new(server) }
    }

    /// How long each end worked: client, server.
    fn handshake(&self) -> (Duration, Duration) {
        let name = ServerName::try_from("wiki.corp.example").unwrap();
        let mut took = (Duration::ZERO, Duration::ZERO);
        let began = Instant::now();
        let mut client = ClientConnection::new(Arc::clone(&self.client), name).unwrap();
        took.0 += began.elapsed();
        let began = Instant::now();
        let mut server = ServerConnection::new(Arc::clone(&self.server)).unwrap();
        took.1 += began.elapsed();
        let mut wire = Vec::new();
        while client.is_handshaking() || server.is_handshaking() {
            wire.clear();
            let began = Instant::now();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            took.0 += began.elapsed();
            let began = Instant::now();
            let mut coming = &wire[..];
            while !coming.is_empty() {
                server.read_tls(&mut coming).unwrap();
                server.process_new_packets().unwrap();
            }
            let mut back = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut back).unwrap();
            }
            took.1 += began.elapsed();
            let began = Instant::now();
            let mut coming = &back[..];
            while !coming.is_empty() {
                client.read_tls(&mut coming).unwrap();
                client.process_new_packets().unwrap();
            }
            took.0 += began.elapsed();
        }
        took
    }
}

/// Both ends together.
#[divan::bench]
fn full_tls_handshake(bencher: Bencher) {
    let ends = Ends::new();
    bencher.bench_local(|| ends.handshake());
}

/// The middle one of many.
fn median(mut measure: impl FnMut() -> Duration) -> Duration {
    let mut all: Vec<Duration> = (0..1001).map(|_| measure()).collect();
    all.sort_unstable();
    all[all.len() / 2]
}

/// Of 100 at once, since one is shorter than the clock is fine.
fn each<T>(mut work: impl FnMut() -> T) -> Duration {
    median(|| {
        let began = Instant::now();
        for _ in 0..100 {
            black_box(work());
        }
        began.elapsed() / 100
    })
}

fn share() {
    let ends = Ends::new();
    let (hello, syn, opening) = (records(&post_quantum(), 1 << 14), field("syn", |_| true), chrome_opening());
    let server = median(|| ends.handshake().1);
    let parts = [
        ("hello to ja4 and ja4_stable", each(|| both(black_box(&hello)))),
        ("SYN to its signature", each(|| syn::signature(black_box(&syn)))),
        ("HTTP/2 opening and header order", each(|| opened(black_box(&opening)))),
    ];
    let all = parts.iter().map(|(_, took)| *took).sum::<Duration>();
    println!("\nthe server's side of a full TLS 1.3 handshake: {server:.1?}, of which");
    for (what, took) in parts.into_iter().chain([("all of them", all)]) {
        println!("{what:>32}: {took:>8.2?} = {:.2} %", took.as_secs_f64() / server.as_secs_f64() * 100.0);
    }
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
