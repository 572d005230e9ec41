//! Requests by chance, from a grammar of what has ever confused a proxy: the same in every run. Each has a number in its query, and only a request
//! whose number and body were meant may reach the app, counted, logged, and with our word on who asks.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use fastrand::Rng;
use support::tcp;

use super::fields::{FORGED, OURS, REWRITES};
use super::*;

/// What may reach the app: a request's number and its body.
type Meant = Mutex<HashMap<usize, Vec<u8>>>;

static NUMBER: AtomicUsize = AtomicUsize::new(1000);

fn pick<'a>(random: &mut Rng, usual: &'a str, odd: &[&'a str]) -> &'a str {
    if random.u8(..12) > 0 { usual } else { random.choice(odd).unwrap() }
}

fn any<'a>(random: &mut Rng, pools: &[&[&'a str]]) -> &'a str {
    let pool: &[&'a str] = random.choice(pools).unwrap();
    random.choice(pool).unwrap()
}

const METHODS: &[&str] = &["POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PROPFIND", "get", "TRACE", "CONNECT", "G ET", "\u{e9}"];
const HOSTS: &[&str] = &[
    "Host: WIKI.localhost.",
    "Host: wiki.localhost:80",
    "Host: wiki.localhost:8443",
    "host:wiki.localhost",
    "Host: elsewhere.example",
    "Host: nobody.localhost",
    "Host: wiki.localhost\r\nHost: wiki.localhost",
    "Host: wiki.localhost, elsewhere.example",
    "Host: forged@wiki.localhost",
    "Host: wiki.localhost/admin",
    "Host : wiki.localhost",
    " Host: wiki.localhost",
    "Host: 127.1",
    "X: y",
];
/// May be refused; else they mean nothing.
const LINES: &[&str] = &[
    "Accept: */*",
    "Connection: keep-alive, X-Hop",
    "Connection: vestibule-tier, host, content-length, transfer-encoding, x-request-id",
    "TE: trailers",
    "Upgrade: h2c",
    "Upgrade: websocket",
    "Expect: 100-continue, x",
    "Expect: y 100-continue",
    "Cookie: a=b; c=d",
    "Content_Length: 77",
    "Transfer_Encoding: chunked",
    "content.length: 77",
    "X: y\r\n folded: x",
    "X : y",
    "X: y\rZ: z",
    "X: \0",
    ": y",
    "no colon",
    "X: \u{b}",
];
/// Each must be the end of its connection.
const AMBIGUOUS: &[&str] = &[
    "Content-Length: 4\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 4",
    "Transfer-Encoding: chunked\r\nX: y\r\ncontent-length: 0",
    "Content-Length: 4\r\nContent-Length: 5",
    "Content-Length: 0\r\nContent-Length: 0",
    "Content-Length: 4, 4",
    "Content-Length: +4",
    "Content-Length: 0x4",
    "Content-Length: 4 0",
    "Content-Length:",
    "Content-Length : 4",
    "Content-Length\t: 4",
    " Content-Length: 4",
    "X: y\r\n\tContent-Length: 4",
    "X: y\rContent-Length: 4",
    "Content-Length\0: 4",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: \u{b}chunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\r\n: chunked",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: chunked;q=1",
];
const SMUGGLED: &str = "GET /smuggled?n=1 HTTP/1.1\r\nHost: wiki.localhost\r\nVestibule-Tier: forged\r\n\r\n";

fn body(random: &mut Rng) -> Vec<u8> {
    match random.u8(..4) {
        0 => Vec::new(),
        1 => (0..random.usize(..200)).map(|_| random.u8(..)).collect(),
        2 => ["0\r\n\r\n", SMUGGLED].concat().into_bytes(),
        _ => SMUGGLED.repeat(random.usize(1..4)).into_bytes(),
    }
}

fn chunked(random: &mut Rng, mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while !body.is_empty() {
        let (chunk, rest) = body.split_at(random.usize(1..=body.len()));
        let size = match random.u8(..4) {
            0 => format!("{:X}", chunk.len()),
            1 => format!("{:012x}", chunk.len()),
            2 => format!("{:x};a=\"b\"", chunk.len()),
            _ => format!("{:x}", chunk.len()),
        };
        out.extend([size.as_bytes(), b"\r\n", chunk, b"\r\n"].concat());
        body = rest;
    }
    out.extend(b"0\r\n");
    out.extend(random.choice(&["", "", "Vestibule-Tier: forged\r\n", "Content-Length: 7\r\n", "Host: forged\r\n"]).unwrap().as_bytes());
    out.extend(b"\r\n");
    out
}

/// One request, and whether nothing that follows on its connection may be read.
fn request(random: &mut Rng, path: &str, meant: &Meant) -> (Vec<u8>, bool) {
    let number = NUMBER.fetch_add(1, Ordering::SeqCst);
    let usual = if random.bool() { "GET" } else { "POST" };
    let method = pick(random, usual, METHODS);
    let target = match random.u8(..12) {
        0 => format!("http://wiki.localhost{path}?n={number}"),
        1 => format!("http://elsewhere.example{path}?n={number}"),
        _ => format!("{path}?n={number}"),
    };
    let version = pick(random, "HTTP/1.1", &["HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "http/1.1", "HTTP/1.1 "]);
    let gap = pick(random, " ", &["  ", "\t", "\u{b}"]);
    let mut lines = vec![pick(random, "Host: wiki.localhost", HOSTS).to_owned()];
    for _ in 0..random.usize(..4) {
        lines.push(any(random, &[LINES, FORGED, REWRITES]).to_owned());
    }
    let mut content = body(random);
    let mut sent = content.clone();
    let mut ends = false;
    match random.u8(..8) {
        0 => {
            lines.push((*random.choice(AMBIGUOUS).unwrap()).to_owned());
            ends = true;
        }
        1 | 2 => lines.push(format!("Content-Length: {}", content.len())),
        3 => lines.push(format!("content-length:\t{:06} ", content.len())),
        4 | 5 => {
            lines.push(random.choice(&["Transfer-Encoding: chunked", "transfer-encoding:CHUNKED"]).unwrap().to_string());
            sent = chunked(random, &content);
        }
        _ => {
            content.clear();
            sent.clear();
        }
    }
    random.shuffle(&mut lines);
    let end = pick(random, "\r\n", &["\n", "\r", "\r\r\n"]);
    let head = lines.iter().fold(format!("{method} {target}{gap}{version}\r\n"), |head, line| head + line + end);
    if !ends {
        meant.lock().unwrap().insert(number, content);
    }
    ([head.as_bytes(), b"\r\n", &sent].concat(), ends)
}

/// A connection's worth of requests, and one at last that closes it.
fn connection(random: &mut Rng, paths: &[String], meant: &Meant) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut goes_on, nobody) = (true, Meant::default());
    for _ in 0..random.usize(1..5) {
        let path = random.choice(paths).unwrap();
        let (bytes, ends) = request(random, path, if goes_on { meant } else { &nobody });
        out.extend(bytes);
        if ends {
            out.extend(SMUGGLED.as_bytes());
            goes_on = false;
        }
    }
    out.extend(b"GET /end?n=0 HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: close\r\n\r\n");
    out
}

fn over_http1(world: &World, random: &mut Rng, paths: &[String], meant: &Meant) {
    let bytes = connection(random, paths, meant);
    let mut stream = tcp(world.proxy.addr("plain"));
    let _ = stream.write_all(&bytes);
    if let Err(error) = stream.read_to_end(&mut Vec::new()) {
        assert!(!matches!(error.kind(), std::io::ErrorKind::WouldBlock), "no end: {:?}", String::from_utf8_lossy(&bytes));
    }
}

fn over_http2(h2: &mut H2, random: &mut Rng, path: &str, meant: &Meant) -> bool {
    let number = NUMBER.fetch_add(1, Ordering::SeqCst);
    let target = format!("{path}?n={number}");
    let method = pick(random, "POST", METHODS);
    let scheme = pick(random, "https", &["http", "ftp", ""]);
    let authority = pick(
        random,
        "wiki.localhost",
        &["WIKI.localhost.:443", "elsewhere.example", "forged@wiki.localhost", "", "wiki.localhost\r\nx: forged"],
    );
    let mut fields = vec![(":method", method), (":scheme", scheme), (":authority", authority), (":path", &*target)];
    let lines: Vec<&str> = (0..random.usize(..4)).map(|_| any(random, &[FORGED, REWRITES])).collect();
    let names: Vec<(String, &str)> =
        lines.iter().filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value)).collect();
    fields.extend(names.iter().map(|(name, value)| (name.as_str(), *value)));
    let content = body(random);
    // Of a length that is too short the app may have all before the rest comes, and shows it to be a lie: then that is the body.
    let length = match random.u8(..6) {
        0 => Some(content.len()),
        1 => Some(content.len() + 1),
        2 => Some(content.len() / 2),
        _ => None,
    };
    let digits = length.map(|length| length.to_string());
    fields.extend(digits.as_deref().map(|digits| ("content-length", digits)));
    if random.u8(..12) == 0 {
        fields.push(
            *random
                .choice(&[
                    ("x", "y\r\nvestibule-tier: forged"),
                    ("transfer-encoding", "chunked"),
                    ("te", "trailers"),
                    (":path", "/admin"),
                    ("X", "y"),
                ])
                .unwrap(),
        );
    }
    if let Some(body) = content.get(..length.unwrap_or(content.len())) {
        meant.lock().unwrap().insert(number, body.to_vec());
    }
    let stream = h2.open(&fields, false);
    let (first, second) = content.split_at(random.usize(..=content.len()));
    h2.write(&h2::frame(h2::DATA, 0, stream, first));
    h2.write(&h2::frame(h2::DATA, h2::END_STREAM, stream, second));
    let outcome = h2.outcome(stream);
    outcome.goaway.is_none() && (outcome.whole || outcome.reset.is_some())
}

#[test]
fn no_request_by_chance_reaches_the_app_as_another_than_was_decided() {
    let origin = Origin::answering(Reply::text("ok"));
    let lab = Lab::new();
    let config = World::config(&origin).set("limits", "{request_head: 2s, idle: 2s}");
    let proxy = lab.start(&config);
    let mut world = World { lab, origin, proxy };
    let meant = Meant::default();
    let paths: Vec<String> = super::differential::paths(17, 3000);
    std::thread::scope(|scope| {
        for seed in [1, 2] {
            let (world, meant, paths) = (&world, &meant, &paths);
            scope.spawn(move || {
                let mut random = Rng::with_seed(seed);
                let mut h2 = world.h2();
                for _ in 0..4000 {
                    // Half of them to a path that is open, or nothing but refusals would come of them.
                    let paths = if random.bool() { paths } else { &["/open".to_owned(), "/open/../also//open".to_owned()][..] };
                    over_http1(world, &mut random, paths, meant);
                    let path = random.choice(paths).unwrap().replace('#', "");
                    if !over_http2(&mut h2, &mut random, &path, meant) {
                        h2 = world.h2();
                    }
                }
            });
        }
    });
    let received: Vec<Received> = world.received().into_iter().filter(|r| !r.line().contains("/end?n=0 ")).collect();
    assert!(received.len() > 5500, "only {} requests came through", received.len());
    as_meant(&received, &meant.into_inner().unwrap());
    no_way_to_admin(&received);
    counted_and_logged(&mut world);
}

fn as_meant(received: &[Received], meant: &HashMap<usize, Vec<u8>>) {
    let mut seen = HashSet::new();
    for request in received {
        let text = request.text();
        let number = request.line().rsplit_once("?n=").and_then(|(_, rest)| rest.split(' ').next()?.parse::<usize>().ok());
        let number = number.unwrap_or_else(|| panic!("nobody meant this: {text}"));
        let body = meant.get(&number).unwrap_or_else(|| panic!("nobody meant this, or not with this body: {text}"));
        assert!(seen.insert(number), "twice: {text}");
        let came = if request.header("transfer-encoding").is_empty() { request.body.clone() } else { unchunked(&request.body).0 };
        assert_eq!(String::from_utf8_lossy(&came), String::from_utf8_lossy(body), "{text}");
        assert!(!text.contains("forged") && !text.contains("root") && !text.replace("\r\n", "").contains(['\r', '\n', '\0']), "{text}");
        assert!(request.header("content-length").len() + request.header("transfer-encoding").len() <= 1, "{text}");
        let host = request.header("host");
        assert!(host == ["wiki.localhost"] || host == ["wiki.localhost:8443"] || host == ["elsewhere.example"], "{text}");
        for ours in OURS {
            assert_eq!(request.header(ours).len(), 1, "{ours}: {text}");
        }
        assert_eq!((request.header("x-forwarded-for"), request.header("x-request-id").len()), (vec!["127.0.0.1".into()], 1), "{text}");
    }
}

/// To any reader: ourselves, one who decodes first, and a browser's.
fn no_way_to_admin(received: &[Received]) {
    let wiki = received.iter().filter(|r| r.header("host")[0].starts_with("wiki"));
    let paths: Vec<String> = wiki.map(|r| r.line().split(' ').nth(1).unwrap().split('?').next().unwrap().to_owned()).collect();
    let read = |text: &String| super::differential::unhex(text);
    let python: Vec<Vec<u8>> = super::differential::python('p', &paths).iter().map(read).collect();
    let node: Vec<Vec<u8>> = super::differential::node('p', &paths).iter().map(|text| super::differential::decoded(&read(text))).collect();
    for (at, path) in paths.iter().enumerate() {
        for read in [&python[at], &node[at]] {
            assert!(!read.starts_with(b"/admin/") && read != b"/admin", "{path}");
        }
    }
    assert!(paths.iter().any(|path| path.contains("admin")) && paths.iter().any(|path| path.contains("%25")));
}

fn counted_and_logged(world: &mut World) {
    assert!(world.proxy.is_running());
    let received = world.origin.received();
    let forwarded = |log: &[serde_json::Value]| log.iter().filter(|line| line["effect"] == "forward" && line["status"] == 200).count();
    let log = eventually("every answer in the log", || {
        let log = world.lab.decisions(received.len());
        let known: HashSet<&str> = log.iter().filter_map(|line| line["request_id"].as_str()).collect();
        received.iter().all(|r| known.contains(r.header("x-request-id")[0].as_str())).then_some(log)
    });
    let told: HashMap<String, &Received> = received.iter().map(|r| (r.header("x-request-id")[0].clone(), r)).collect();
    assert_eq!(told.len(), received.len(), "an id stands for one request");
    let mut found = 0;
    for line in &log {
        let Some(request) = told.get(line["request_id"].as_str().unwrap()) else {
            assert!(line["effect"] != "forward" || line["status"] != 200, "said to be forwarded, and never came: {line}");
            continue;
        };
        found += 1;
        assert_eq!(line["effect"], "forward", "{line}");
        let asked = request.line();
        let mut words = asked.split(' ');
        assert_eq!(line["method"], words.next().unwrap());
        assert_eq!(line["path"], words.next().unwrap().split('?').next().unwrap());
        assert_eq!(request.header("host")[0].split(':').next().unwrap(), line["host"].as_str().unwrap());
    }
    assert_eq!(found, received.len());
    let metrics = world.proxy.metrics();
    let count = |status: &str| metrics.sum("vestibule_requests_total", &[("effect", "forward"), ("status", status)]);
    assert_eq!(count("200"), f64::from(u32::try_from(forwarded(&log)).unwrap()));
    assert_eq!(metrics.sum("vestibule_panics_total", &[]), 0.0);
}
