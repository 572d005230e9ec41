//! What a client's first bytes above TLS show: of recorded clients, of a library's client, and of clients that the real program serves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

mod support;

use std::collections::BTreeMap;

use serde::Deserialize;
use support::h2::{block, frame};
use tokio::io::AsyncReadExt;
use vestibule::fingerprint::order::{Names, Version};
use vestibule::fingerprint::{h2, order};

const RECORDINGS: &str = include_str!("fixtures/fingerprints/clients.jsonl");
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The first request of a known client, and what others made of it.
#[derive(Deserialize)]
struct Recording {
    client: String,
    akamai_h2: Option<String>,
    h1: Option<Vec<String>>,
    h2: Option<Vec<Frame>>,
}

/// As it was recorded, taken apart.
#[derive(Deserialize)]
struct Frame {
    t: u8,
    f: u8,
    sid: u32,
    #[serde(default)]
    settings: Vec<(u16, u32)>,
    inc: Option<u32>,
    /// Exclusive, the stream that it depends on, weight.
    prio: Option<(u8, u32, u16)>,
    #[serde(default)]
    headers: Vec<(String, String)>,
}

impl Frame {
    /// Put together again; fields are spelled out where the client may have compressed them.
    fn bytes(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        if let Some((exclusive, on, weight)) = self.prio {
            payload.extend((u32::from(exclusive) << 31 | on).to_be_bytes());
            payload.push(u8::try_from(weight - 1).unwrap());
        }
        payload.extend(self.settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()));
        payload.extend(self.inc.map(u32::to_be_bytes).into_iter().flatten());
        let fields: Vec<(&str, &str)> = self.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        payload.extend(block(&fields));
        frame(self.t, self.f, self.sid, &payload)
    }
}

fn recordings() -> impl Iterator<Item = Recording> {
    RECORDINGS.lines().map(|line| serde_json::from_str(line).unwrap())
}

fn read_h2(bytes: &[u8]) -> h2::Opened {
    h2::Arriving::default().read(bytes).unwrap().unwrap()
}

fn read_h1(bytes: &[u8]) -> Names {
    order::Arriving::default().read(bytes).unwrap().unwrap()
}

#[test]
fn every_recorded_opening_is_reproduced_however_it_is_cut() {
    let mut random = fastrand::Rng::with_seed(0x5eed);
    let mut count = 0;
    for recording in recordings() {
        let Some(frames) = &recording.h2 else { continue };
        let bytes = [PREFACE, &frames.iter().flat_map(Frame::bytes).collect::<Vec<u8>>()].concat();
        let opened = read_h2(&bytes);
        assert_eq!(Some(&*opened.opening), recording.akamai_h2.as_deref(), "{}", recording.client);
        let sent = frames.iter().flat_map(|frame| &frame.headers).map(|(name, _)| &**name);
        let sent: Vec<&str> = sent.filter(|name| !name.starts_with(':') && !order::PASSING.contains(name)).collect();
        assert_eq!(opened.names.order_r(), sent.join(","), "{}", recording.client);
        assert!(opened.names.order(Version::Http2).starts_with("h2l"), "{}", recording.client);

        for _ in 0..10 {
            let (mut have, longest) = (0, random.usize(1..=bytes.len()));
            let mut arriving = h2::Arriving::default();
            let seen = loop {
                have = (have + random.usize(1..=longest)).min(bytes.len());
                if let Some(seen) = arriving.read(&bytes[..have]).unwrap() {
                    break seen;
                }
            };
            assert_eq!(seen, opened, "{}", recording.client);
        }
        count += 1;
    }
    assert_eq!(count, 125);
}

#[test]
fn every_recorded_http1_head_has_its_order() {
    let mut orders: BTreeMap<String, (String, String)> = BTreeMap::new();
    let mut count = 0;
    for recording in recordings() {
        let Some(lines) = &recording.h1 else { continue };
        let head = format!("{}\r\n\r\n", lines.join("\r\n"));
        let names = read_h1(head.as_bytes());
        let sent: Vec<&str> = lines[1..].iter().map(|line| line.split_once(':').unwrap().0).collect();
        assert_eq!(names.order_r(), sent.join(","), "{}", recording.client);
        let order = names.order(Version::Http1).into_string();
        // A program sends the same on each of its connections.
        let first = orders.entry(recording.client.clone()).or_insert_with(|| (order.clone(), names.order_r()));
        assert_eq!(first.0, order, "{}", recording.client);
        count += 1;
    }
    assert_eq!(count, 24);
    // Programs that differ in what they send differ in their order.
    let distinct: std::collections::BTreeSet<_> = orders.values().collect();
    let by_hash: std::collections::BTreeSet<_> = distinct.iter().map(|(order, _)| order).collect();
    assert_eq!(by_hash.len(), distinct.len());
    assert!(distinct.len() > 3, "{distinct:?}");
}

/// The library compresses as real clients do: Huffman code, static and dynamic table.
#[tokio::test]
async fn a_compressed_head_has_the_same_names() {
    let (client, mut server) = tokio::io::duplex(1 << 16);
    let (mut send, connection) = ::h2::client::Builder::new()
        .initial_window_size(99_999)
        .header_table_size(1234)
        .handshake::<_, bytes::Bytes>(client)
        .await
        .unwrap();
    let running = tokio::spawn(connection);
    let agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
    let mut request = http::Request::get("https://wiki.corp.example/a/b?c=d").header("user-agent", agent).header("x-unheard-of", "1");
    for name in ["accept", "accept-language", "x-unheard-of-either", "te"] {
        request = request.header(name, "trailers");
    }
    // Parts of one field, which the table saves from being spelled out again.
    for part in ["a=1", "a=1", "b=2"] {
        request = request.header("x-crumb", part);
    }
    let _answer = send.send_request(request.body(()).unwrap(), true).unwrap();
    let (mut bytes, mut arriving) = (Vec::new(), h2::Arriving::default());
    let opened = loop {
        assert!(server.read_buf(&mut bytes).await.unwrap() > 0);
        if let Some(opened) = arriving.read(&bytes).unwrap() {
            break opened;
        }
    };
    running.abort();
    assert!(opened.opening.starts_with("1:1234;"), "{}", opened.opening);
    assert!(opened.opening.contains(";4:99999"), "{}", opened.opening);
    assert!(opened.opening.ends_with("|m,s,a,p"), "{}", opened.opening);
    let names = ["user-agent", "x-unheard-of", "accept", "accept-language", "x-unheard-of-either", "te", "x-crumb", "x-crumb", "x-crumb"];
    assert_eq!(opened.names.order_r(), names.join(","));
}
