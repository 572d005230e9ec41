//! The whole proxy in this process, with an app that records what it receives, and what must hold of that.
#![allow(dead_code, reason = "each target uses one listener")]

#[path = "decoded.rs"]
mod decoded;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Mutex;

use decoded::decoded;
use vestibule::cli::lab_ca::LabCa;
use vestibule::request::{PathOptions, path};
use vestibule::site::{self, Running};

const OURS: [&str; 10] = [
    "forwarded",
    "host",
    "traceparent",
    "vestibule-decision",
    "vestibule-device-class",
    "vestibule-tier",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// Requests as the app received them: heads, with their empty line.
static RECEIVED: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

pub struct Proxy {
    running: Running,
    pub plain: SocketAddr,
    pub edge: SocketAddr,
    /// Of the authority that signed the certificate of `edge`.
    pub authority: PathBuf,
    ran: Mutex<u64>,
    received: Mutex<u64>,
}

impl Proxy {
    pub fn start() -> Self {
        let app = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = app.local_addr().unwrap();
        std::thread::spawn(move || app.incoming().flatten().for_each(|stream| drop(std::thread::spawn(move || serve(stream)))));
        let dir = std::env::temp_dir().join(format!("vestibule-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let hosts = ["wiki.localhost".to_owned(), "localhost".to_owned()];
        let ca = LabCa::create(&dir.join("certs"), &hosts, false).unwrap_or_else(|error| panic!("{error}"));
        let file = dir.join("vestibule.yaml");
        std::fs::write(&file, CONFIGURATION.replace("DIR", dir.to_str().unwrap()).replace("APP", &address.to_string())).unwrap();
        let running = site::start(&file).unwrap_or_else(|error| panic!("{error}"));
        let (plain, edge) = (running.edge_addr("plain").unwrap(), running.edge_addr("edge").unwrap());
        let authority = ca.edge_ca().to_owned();
        Self { running, plain, edge, authority, ran: Mutex::default(), received: Mutex::default() }
    }

    /// What the app has received since the last time is sound, and every answer of its own in `answers` belongs to one of these requests.
    pub fn check(&self, answers: &[u8]) {
        let received = std::mem::take(&mut *RECEIVED.lock().unwrap());
        let mut ids = HashSet::new();
        for head in &received {
            assert!(ids.insert(sound(head)), "an id stands for one request");
        }
        for mark in marks(answers) {
            assert!(ids.contains(&mark), "an answer to nobody's request: {}", String::from_utf8_lossy(answers));
        }
        self.count(received.len());
    }

    /// The app never receives what the proxy did not count.
    fn count(&self, more: usize) {
        let mut ran = self.ran.lock().unwrap();
        let mut received = self.received.lock().unwrap();
        *ran += 1;
        *received += more as u64;
        if *ran % 2048 != 0 {
            return;
        }
        let mut admin = TcpStream::connect(self.running.admin_addr()).unwrap();
        admin.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        admin.read_to_string(&mut text).unwrap();
        let of = |name: &str, label: &str| -> f64 {
            let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
            lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
        };
        let counted = of("vestibule_requests_total{", "effect=\"forward\"");
        assert!(counted >= *received as f64, "{counted} of {received}");
        assert!(*received > 0, "nothing comes through, so nothing is tried: fuzz/README.md has requests to begin with");
        assert_eq!(of("vestibule_panics_total", ""), 0.0);
    }
}

/// The request's id. Its head is one that only we could have written.
fn sound(head: &[u8]) -> String {
    let shown = String::from_utf8_lossy(head).into_owned();
    let text = shown.strip_suffix("\r\n\r\n").unwrap();
    let mut lines = text.split("\r\n");
    let words: Vec<&str> = lines.next().unwrap().split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else { panic!("{shown}") };
    assert!(!method.is_empty() && !method.bytes().any(|b| b.is_ascii_control()), "{shown}");
    let asked = target.split('?').next().unwrap();
    assert_eq!(path(asked, &PathOptions::STRICT).as_deref(), Ok(asked), "{shown}");
    let read = tidy(&decoded(asked.as_bytes()));
    assert!(read != b"/admin" && !read.starts_with(b"/admin/"), "{shown}");
    let fields: Vec<(String, &str)> = lines
        .map(|line| line.split_once(": ").or(line.split_once(':')).unwrap_or_else(|| panic!("{shown}")))
        .map(|(name, value)| (name.to_ascii_lowercase().replace(['_', '.'], "-"), value))
        .collect();
    let values = |name: &str| fields.iter().filter(|(field, _)| field == name).map(|(_, value)| *value).collect::<Vec<_>>();
    for ours in OURS {
        assert_eq!(values(ours).len(), 1, "{ours}: {shown}");
    }
    assert!(matches!(values("host")[..], ["wiki.localhost"]) || values("host")[0].starts_with("wiki.localhost:"), "{shown}");
    assert_eq!(
        (values("x-forwarded-for"), values("vestibule-tier"), values("vestibule-device-id")),
        (vec!["127.0.0.1"], vec!["none"], vec![]),
        "{shown}"
    );
    assert!(values("content-length").len() + values("transfer-encoding").len() <= 1, "{shown}");
    for (name, value) in &fields {
        let hop = ["te", "trailer", "keep-alive", "proxy-connection", "http2-settings"];
        let vestibule = name.starts_with("vestibule-") && !OURS.contains(&name.as_str());
        assert!(
            !hop.contains(&name.as_str()) && !vestibule && !name.starts_with("x-original-") && !name.starts_with("x-rewrite-"),
            "{shown}"
        );
        assert!(!value.contains(['\r', '\n', '\0']), "{shown}");
    }
    assert!(values("connection").iter().all(|value| value.eq_ignore_ascii_case("upgrade")), "{shown}");
    assert!(values("expect").iter().all(|value| *value == "100-continue"), "{shown}");
    values("x-request-id")[0].to_owned()
}

/// As an app does that leaves nothing undone: parameters, empty segments and dots, in every segment.
fn tidy(path: &[u8]) -> Vec<u8> {
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in path.split(|b| matches!(b, b'/' | b'\\')) {
        match segment.split(|b| *b == b';').next().unwrap_or_default() {
            b"" | b"." => {}
            b".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    [b"/", &segments.join(&b'/')[..]].concat()
}

/// Of all answers that the app gave: the ids that it put in them.
fn marks(answers: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(answers);
    text.match_indices("mark=").filter_map(|(at, name)| Some(text.get(at + name.len()..)?.split('.').next()?.to_owned())).collect()
}

/// The app: reads as strictly as can be, and answers with the id of the request.
fn serve(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            match buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None if more(&mut stream, &mut buffer) => {}
                None => return,
            }
        };
        let head: Vec<u8> = buffer.drain(..end).collect();
        let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let field = |name: &str| text.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
        let length = if field("transfer-encoding").is_some() {
            loop {
                match chunked_end(&buffer) {
                    Some(end) => break end,
                    None if more(&mut stream, &mut buffer) => {}
                    None => return,
                }
            }
        } else {
            let length = field("content-length").map_or(0, |digits| digits.parse().unwrap());
            while buffer.len() < length {
                if !more(&mut stream, &mut buffer) {
                    return;
                }
            }
            length
        };
        drop(buffer.drain(..length));
        let body = format!("mark={}.", field("x-request-id").unwrap_or("none"));
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        RECEIVED.lock().unwrap().push(head);
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> bool {
    let mut part = [0; 16 * 1024];
    match stream.read(&mut part) {
        Ok(0) | Err(_) => false,
        Ok(n) => {
            buffer.extend_from_slice(&part[..n]);
            true
        }
    }
}

/// Where a chunked body without trailers ends. Ours has nothing else.
fn chunked_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = at + bytes.get(at..)?.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..line]).unwrap(), 16).unwrap();
        at = line + 2 + size + 2;
        let end = bytes.get(at - 2..at)?;
        assert_eq!(end, b"\r\n", "no trailers, and each chunk ends where it says");
        if size == 0 {
            return Some(at);
        }
    }
}

const CONFIGURATION: &str = r##"
version: 1
workers: 1
listeners:
  - {name: plain, bind: ["127.0.0.1:0"]}
  - {name: edge, bind: ["127.0.0.1:0"], tls: {certificates: [{cert: DIR/certs/edge.pem, key: DIR/certs/edge.key}]}}
admin: {bind: "127.0.0.1:0"}
store: {url: "sqlite://DIR/vestibule.db"}
owners: {security: {contact: "security@corp.example"}}
classes: [{name: corporate, when: {device.ownership: corporate}}]
tiers: [{name: none}, {name: known, require: {device.state: approved}}]
apps:
  - name: wiki
    owner: security
    hosts: [wiki.localhost]
    upstream: {servers: ["http://APP"]}
    rules:
      - {name: admin, when: {http.path: [/admin, "/admin/*"]}, then: block}
      - {name: rest, then: forward}
"##;
