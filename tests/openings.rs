//! What a client's first bytes above TLS show: of recorded clients, of a library's client, and of clients that the real program serves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use rustls::StreamOwned;
use serde::Deserialize;
use serde_json::{Value, json};
use support::h2::{CONTINUATION, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, SETTINGS, WINDOW_UPDATE, block, frame, get};
use support::{Config, Lab, Origin, Proxy, RawTls, Reply, tcp, tls_client};
use tokio::io::AsyncReadExt;
use vestibule::fingerprint::hello::{Hello, Progress};
use vestibule::fingerprint::order::{Names, Version};
use vestibule::fingerprint::{h2, hello, order};

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
    let distinct: BTreeSet<_> = orders.values().collect();
    let by_hash: BTreeSet<_> = distinct.iter().map(|(order, _)| order).collect();
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

/// A proxy whose app is never asked: everybody is blind, and the log tells what the wire showed.
fn start(lab: &Lab) -> Proxy {
    let origin = Origin::answering(Reply::text("hello"));
    lab.start(&Config::new(&origin).set("fingerprints", "{ja3: true}"))
}

/// The `wire` of the newest line, when there are `n`.
fn wire(lab: &Lab, n: usize) -> Value {
    lab.decisions(n).pop().unwrap()["wire"].take()
}

/// Each byte in a TLS record of its own.
fn send_slowly(tls: &mut RawTls, bytes: &[u8]) {
    bytes.iter().for_each(|&byte| tls.send(&[byte]));
}

/// Reads frames until there is one like this.
fn wait_for(tls: &mut RawTls, got: &mut Vec<u8>, wanted: impl Fn(u8, u8) -> bool) {
    loop {
        while got.len() >= 9 {
            let length = usize::from(got[1]) << 8 | usize::from(got[2]);
            if got.len() < 9 + length {
                break;
            }
            let (kind, flags) = (got[3], got[4]);
            got.drain(..9 + length);
            if wanted(kind, flags) {
                return;
            }
        }
        let more = tls.read_more();
        assert!(!more.is_empty(), "the proxy closed");
        got.extend(more);
    }
}

#[test]
fn an_opening_in_slow_pieces_is_in_the_log() {
    let lab = Lab::new();
    let proxy = start(&lab);
    let mut tls = RawTls::with_alpn(proxy.addr("edge"), &lab, ("wiki.localhost", "h2"), None);
    let mut got = Vec::new();
    let setting = |id: u16, value: u32| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let ping = frame(PING, 0, 0, &[7; 8]);
    // What the proxy has answered it has read: the pieces are apart in time, also on a fast machine.
    let settings = [setting(1, 0), setting(0x4a4a, 99), setting(2, 0), setting(4, 131_072)].concat();
    send_slowly(&mut tls, &[PREFACE, &frame(SETTINGS, 0, 0, &settings)].concat());
    wait_for(&mut tls, &mut got, |kind, _| kind == SETTINGS);
    send_slowly(&mut tls, &[frame(SETTINGS, 1, 0, &[]), ping.clone()].concat());
    wait_for(&mut tls, &mut got, |kind, flags| kind == PING && flags == 1);
    send_slowly(&mut tls, &[frame(WINDOW_UPDATE, 0, 0, &12_517_377_u32.to_be_bytes()), ping.clone()].concat());
    wait_for(&mut tls, &mut got, |kind, flags| kind == PING && flags == 1);
    let priorities = [frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 200]), frame(PRIORITY, 0, 5, &[0x80, 0, 0, 3, 0])].concat();
    send_slowly(&mut tls, &[priorities, ping].concat());
    wait_for(&mut tls, &mut got, |kind, flags| kind == PING && flags == 1);
    let fields = [(":method", "GET"), (":path", "/"), (":authority", "wiki.localhost"), (":scheme", "https"), ("te", "trailers")];
    let cookie = [("cookie", "secret=1"), ("accept", "*/*")];
    let head = block(&[&fields[..], &cookie].concat());
    let (first, rest) = head.split_at(20);
    // Padded and prioritised, then continued.
    let begun = [&[2, 0, 0, 0, 0, 41][..], first, &[0, 0]].concat();
    send_slowly(&mut tls, &frame(HEADERS, END_STREAM | 0x08 | 0x20, 7, &begun));
    send_slowly(&mut tls, &frame(CONTINUATION, END_HEADERS, 7, rest));
    wait_for(&mut tls, &mut got, |kind, _| kind == HEADERS);

    let seen = wire(&lab, 1);
    assert_eq!(seen["h2"], "1:0;19018:99;2:0;4:131072|12517377|3:0:0:201,5:1:3:1|m,p,a,s");
    // printf te,accept | sha256sum
    assert_eq!(seen["header_order"], "h2l02_6c3e712b40ec");
    // It is the connection's: later requests and windows change nothing.
    let next = block(&get("wiki.localhost", "/next"));
    tls.send(&[frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 9]), frame(HEADERS, END_HEADERS | END_STREAM, 9, &next)].concat());
    wait_for(&mut tls, &mut got, |kind, _| kind == HEADERS);
    assert_eq!(wire(&lab, 2), seen);
    assert!(!std::fs::read_to_string(lab.path("decisions.jsonl")).unwrap().contains("secret"));
}

/// As the recordings' programs would have opened the proxy's connections.
#[test]
fn recorded_openings_are_seen_live() {
    let lab = Lab::new();
    let proxy = start(&lab);
    let mut lines = 0;
    let mut done = BTreeSet::new();
    for recording in recordings() {
        let (Some(mut frames), Some(expected)) = (recording.h2, recording.akamai_h2) else { continue };
        if !done.insert(expected.clone()) {
            continue;
        }
        let authority = frames.iter_mut().flat_map(|frame| &mut frame.headers).find(|(name, _)| name == ":authority").unwrap();
        authority.1 = "wiki.localhost".to_owned();
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
        let mut tls = RawTls::with_alpn(proxy.addr("edge"), &lab, ("wiki.localhost", "h2"), None);
        tls.send(PREFACE);
        tls.send(&bytes);
        wait_for(&mut tls, &mut Vec::new(), |kind, _| kind == HEADERS);
        lines += 1;
        assert_eq!(wire(&lab, lines)["h2"], expected.as_str(), "{}", recording.client);
    }
    assert!(lines > 10, "{lines}");
}

const HEAD: &str = "GET / HTTP/1.1\r\nHost: wiki.localhost\r\nUser-Agent: curl/8.5.0\r\nCookie: secret\r\nAccept: */*\r\n\r\n";
/// printf Host,User-Agent,Accept | sha256sum
const ORDER: &str = "h1t03_fe444ad14866";

#[test]
fn the_order_of_an_http1_head_is_in_the_log() {
    let lab = Lab::new();
    let proxy = start(&lab);
    let mut tls = RawTls::connect(&proxy, &lab, "wiki.localhost", None);
    send_slowly(&mut tls, &[b"\r\n", HEAD.as_bytes()].concat());
    tls.read_answer();
    let seen = wire(&lab, 1);
    assert_eq!((&seen["h2"], &seen["header_order"]), (&Value::Null, &json!(ORDER)));
    // Another order on the same connection is another request's.
    tls.ask("GET /b HTTP/1.1\r\nAccept: */*\r\nhost: wiki.localhost\r\n\r\n");
    assert_eq!(wire(&lab, 2), seen);

    let mut plain = tcp(proxy.addr("plain"));
    plain.write_all(HEAD.as_bytes()).unwrap();
    assert!(plain.read(&mut [0; 64]).unwrap() > 0);
    let seen = wire(&lab, 3);
    assert_eq!((&seen["ja4"], &seen["header_order"]), (&Value::Null, &json!(ORDER)));

    // More than is looked at, and still a request.
    let mut large = RawTls::connect(&proxy, &lab, "wiki.localhost", None);
    let answer = large.ask(&HEAD.replace("secret", &"a".repeat(16 << 10)));
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert_eq!(wire(&lab, 4)["header_order"], Value::Null);
}

#[test]
fn every_connection_counts_once_in_every_layer() {
    let lab = Lab::new();
    let proxy = start(&lab);
    let connect = |alpn| RawTls::with_alpn(proxy.addr("edge"), &lab, ("wiki.localhost", alpn), None);
    // Two heads, one opening, one that is broken and one that never comes to its head; a handshake that fails; a plain head.
    for request in 0..2 {
        connect("http/1.1").ask(&HEAD.replace("/ ", &format!("/{request} ")));
    }
    let settings = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let mut whole = connect("h2");
    whole.send(&[settings.clone(), frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&get("wiki.localhost", "/")))].concat());
    wait_for(&mut whole, &mut Vec::new(), |kind, _| kind == HEADERS);
    let mut broken = connect("h2");
    broken.send(&[settings.clone(), frame(HEADERS, END_HEADERS, 1, &[0x80])].concat());
    while !broken.read_more().is_empty() {}
    let mut early = connect("h2");
    early.send(&settings);
    wait_for(&mut early, &mut Vec::new(), |kind, _| kind == SETTINGS);
    early.reset();
    support::raw(proxy.addr("edge"), b"GET / HTTP/1.0\r\n\r\n");
    support::raw(proxy.addr("plain"), HEAD.replace("Accept", "Connection: close\r\nAccept").as_bytes());

    const FAMILY: &str = "vestibule_fingerprints_total";
    for (layer, read, unavailable, malformed) in
        [("tls", 5.0, 2.0, 0.0), ("h2", 1.0, 5.0, 1.0), ("headers", 4.0, 2.0, 1.0), ("syn", 7.0, 0.0, 0.0)]
    {
        for (result, count) in [("read", read), ("unavailable", unavailable), ("malformed", malformed)] {
            let metrics = proxy.metric_reaches(FAMILY, &[("layer", layer), ("result", result)], count);
            assert_eq!(metrics.sum(FAMILY, &[("layer", layer), ("result", result)]), count, "{layer} {result}");
        }
    }
}

/// The same client gets the same fingerprint however its hello is cut.
#[test]
fn a_hello_in_pieces_is_the_same_to_the_proxy() {
    let lab = Lab::new();
    let proxy = start(&lab);
    let mut seen = Vec::new();
    for (size, what) in [(usize::MAX, "whole"), (700, "records of 700 bytes"), (1, "records of one byte")] {
        let mut conn = tls_client(&lab, "wiki.localhost", &[b"h2", b"http/1.1"], None);
        let mut bytes = Vec::new();
        conn.write_tls(&mut bytes).unwrap();
        let message = bytes.split_off(5);
        assert!(message.len() > 1200, "a post-quantum hello, {} bytes", message.len());
        let mut socket = tcp(proxy.addr("edge"));
        for (at, fragment) in message.chunks(size.min(1 << 14)).enumerate() {
            let length = u16::try_from(fragment.len()).unwrap().to_be_bytes();
            for byte in [&[22, 3, 1][..], &length, fragment].concat() {
                socket.write_all(&[byte]).unwrap();
            }
            // A question and its answer now and then: time in which the proxy reads what it has so far.
            if at % 400 == 1 {
                proxy.metrics();
            }
        }
        while conn.is_handshaking() {
            conn.complete_io(&mut socket).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        let mut tls = RawTls { stream: StreamOwned::new(conn, socket) };
        let head = block(&get("wiki.localhost", "/"));
        tls.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)].concat());
        wait_for(&mut tls, &mut Vec::new(), |kind, _| kind == HEADERS);
        let wire = wire(&lab, seen.len() + 1);

        let hello = whole(&message);
        for (layer, value) in [("ja4", hello.ja4().to_string()), ("ja4_stable", hello.ja4_stable().to_string())] {
            assert_eq!(wire[layer], value.as_str(), "{what}");
        }
        // rustls permutes its extensions, and JA3 shows it.
        assert_eq!(wire["ja3"], *hello.ja3(), "{what}");
        seen.push([wire["ja4"].clone(), wire["ja4_stable"].clone()]);
    }
    assert!(seen.iter().all(|values| *values == seen[0]), "{seen:?}");
    assert!(seen[0][0].as_str().unwrap().starts_with("t13d"), "{seen:?}");
}

/// The message as one record, as another reader would have it.
fn whole(message: &[u8]) -> Hello {
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    match hello::read(&[&[22, 3, 1][..], &length, message].concat()) {
        Progress::Hello(hello) => hello,
        other => panic!("{other:?}"),
    }
}

#[test]
fn ja3_is_told_only_where_it_is_asked_for() {
    let lab = Lab::new();
    let proxy = lab.start(&Config::new(&Origin::answering(Reply::text("hello"))));
    RawTls::connect(&proxy, &lab, "wiki.localhost", None).ask(HEAD);
    assert!(!wire(&lab, 1).as_object().unwrap().contains_key("ja3"));
}
