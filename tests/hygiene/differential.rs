//! Thousands of paths and hosts, the same in every run, read by us and by others: nginx, Python and Node. What we accept, none of them may read as
//! something else, or an app behind us could.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, TcpStream};
use std::process::Stdio;

use support::{Nginx, program, tcp};
use vestibule::request::{EncodedSlash, Parameters, PathOptions, Slashes, authority_of, path};

use super::*;

/// Decodes, then tidies up, as `http.server` does: an app that leaves nothing undone.
const PYTHON: &str = r#"
import posixpath, sys, urllib.parse
for line in sys.stdin.buffer:
    kind, text = line.decode().rstrip("\n").split(" ")
    raw = bytes.fromhex(text)
    if kind == "p":
        whole = urllib.parse.unquote_to_bytes(raw)
        words = [word for word in posixpath.normpath(whole).split(b"/") if word]
        print((b"/" + b"/".join(words)).hex())
    else:
        try:
            parts = urllib.parse.urlsplit("http://" + raw.decode() + "/")
            print((parts.hostname or "").encode().hex() + " " + ("" if parts.port is None else str(parts.port)))
        except ValueError:
            print("-")
"#;

/// WHATWG's URL, which browsers and Node's own servers read targets by.
const NODE: &str = r#"
const hex = text => Buffer.from(text, 'utf8').toString('hex');
for (const line of require('fs').readFileSync(0, 'latin1').split('\n').filter(line => line)) {
    const [kind, text] = line.split(' ');
    const raw = Buffer.from(text, 'hex').toString('utf8');
    try {
        if (kind == 'p') console.log(hex(new URL('http://h' + raw).pathname));
        else { const url = new URL('http://' + raw + '/'); console.log(hex(url.hostname) + ' ' + url.port); }
    } catch { console.log('-'); }
}
"#;

/// One line an input, in order. `p` or `h` and the input in hexadecimal digits go in.
fn asked(command: &mut std::process::Command, kind: char, inputs: &[String]) -> Vec<String> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines: String = inputs.iter().map(|input| format!("{kind} {}\n", hex(input.as_bytes()))).collect();
    let mut stdin = child.stdin.take().unwrap();
    let feed = std::thread::spawn(move || stdin.write_all(lines.as_bytes()).unwrap());
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    feed.join().unwrap();
    assert!(child.wait().unwrap().success());
    let answers: Vec<String> = out.lines().map(str::to_owned).collect();
    assert_eq!(answers.len(), inputs.len());
    answers
}

pub fn python(kind: char, inputs: &[String]) -> Vec<String> {
    asked(program("python3").args(["-c", PYTHON]), kind, inputs)
}

pub fn node(kind: char, inputs: &[String]) -> Vec<String> {
    asked(program("node").args(["-e", NODE]), kind, inputs)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap()).collect()
}

/// nginx that says how it read a request. `None`: it refused.
struct Mirror {
    nginx: Nginx,
    connection: Option<BufReader<TcpStream>>,
}

impl Mirror {
    fn start(lab: &Lab) -> Self {
        let server = "keepalive_requests 1000000; large_client_header_buffers 4 16k; underscores_in_headers on; location / { return 200 \"$uri\\n$host\"; }";
        Self { nginx: Nginx::start(lab, server), connection: None }
    }

    fn ask(&mut self, path: &str, host: &str) -> Option<(Vec<u8>, String)> {
        let address = self.nginx.url().strip_prefix("http://").unwrap().parse().unwrap();
        let connection = self.connection.get_or_insert_with(|| BufReader::new(tcp(address)));
        connection.get_mut().write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(connection.read_line(&mut head).unwrap() > 0, "nginx closed: {head}");
        }
        if !head.starts_with("HTTP/1.1 200 ") {
            self.connection = None;
            return None;
        }
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok()).unwrap();
        let mut body = vec![0; length];
        connection.read_exact(&mut body).unwrap();
        let end = body.iter().rposition(|byte| *byte == b'\n').unwrap();
        let host = String::from_utf8(body.split_off(end)).unwrap();
        Some((body, host.trim().to_owned()))
    }
}

/// Every escape, once.
pub fn decoded(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        (rest, _) = match (byte, after) {
            (b'%', [high, low, after @ ..]) => (after, out.extend(unhex(&String::from_utf8_lossy(&[*high, *low])))),
            _ => (after, out.push(byte)),
        };
    }
    out
}

fn merged(path: &[u8]) -> Vec<u8> {
    let mut out = path.to_vec();
    out.dedup_by(|next, byte| *next == b'/' && *byte == b'/');
    out
}

/// Without the slash at its end, which not everybody keeps.
fn bare(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"/").filter(|bare| !bare.is_empty()).unwrap_or(path)
}

/// Pieces that readers of paths are known to differ on, between ordinary ones.
pub fn paths(seed: u64, count: usize) -> Vec<String> {
    const PIECES: &[&str] = &[
        "/",
        "/",
        "/",
        "/",
        "a",
        "b",
        "admin",
        "A",
        ".",
        ".",
        "..",
        "..",
        "/.",
        "/..",
        "/../",
        "/./",
        "//",
        "...",
        "%2e",
        "%2E",
        "%2e%2e",
        ".%2e",
        "%2f",
        "%2F",
        "%5c",
        "%5C",
        "\\",
        ";",
        ";x=1",
        "..;",
        "%3b",
        "%3B",
        "%00",
        "%0a",
        "%25",
        "%252e",
        "%252f",
        "%20",
        "+",
        "%2b",
        "~",
        "%7e",
        "%61",
        "%64min",
        "%41",
        "%c3%a9",
        "%C3%89",
        "\u{e9}",
        "\u{4e2d}",
        "%e9",
        "%ff",
        "%c0%ae",
        "%C0%AF",
        "%c1%a1",
        "%e0%80%af",
        "%u002f",
        "%",
        "%4",
        "%zz",
        "|",
        "{",
        "}",
        "\"",
        "^",
        "`",
        "[",
        "]",
        "<",
        ">",
        "!",
        "$",
        "&",
        "'",
        "(",
        ")",
        "*",
        ",",
        "=",
        ":",
        "@",
        "-",
        "_",
        "#",
        "%23",
        "%3f",
        "%3F",
        "%7f",
        "%80",
        "%ef%bc%8f",
        "\u{ff0f}",
        "\u{2024}",
        "http:",
        "c:",
        "con",
        "%2e%2e%2f",
        "%2525",
    ];
    let mut random = fastrand::Rng::with_seed(seed);
    let one = |random: &mut fastrand::Rng| {
        let pieces = (0..random.usize(0..9)).map(|_| *random.choice(PIECES).unwrap());
        pieces.fold("/".to_owned(), |path, piece| path + piece)
    };
    (0..count).map(|_| one(&mut random)).collect()
}

const KEEP: PathOptions = PathOptions { encoded_slash: EncodedSlash::Keep, parameters: Parameters::Keep, slashes: Slashes::Keep };

#[test]
fn nginx_python_and_node_read_the_path_that_reaches_the_app_as_the_rules_did() {
    let lab = Lab::new();
    let mut nginx = Mirror::start(&lab);
    let raw: Vec<String> = paths(11, 12_000);
    let ours: Vec<(&String, String)> =
        raw.iter().filter_map(|raw| Some((raw, path(raw, &PathOptions::STRICT).ok()?.into_owned()))).collect();
    assert!(ours.len() > 3000, "only {} are accepted", ours.len());
    let sent: Vec<String> = ours.iter().map(|(_, sent)| sent.clone()).collect();
    let as_came: Vec<String> = ours.iter().map(|(raw, _)| (*raw).clone()).collect();
    let (pythons, nodes) = (python('p', &sent), node('p', &sent));
    let (raw_pythons, raw_nodes) = (python('p', &as_came), node('p', &as_came));
    let mut compared = 0;
    for (at, (raw, sent)) in ours.iter().enumerate() {
        let meaning = decoded(sent.as_bytes());
        // As it reaches an app: nobody has anything left to undo.
        assert_eq!(nginx.ask(sent, "h").map(|(uri, _)| uri).as_deref(), Some(&*meaning), "nginx: {raw} as {sent}");
        assert_eq!(unhex(&pythons[at]), bare(&meaning), "Python: {raw} as {sent}");
        assert_eq!(unhex(&nodes[at]), sent.as_bytes(), "Node: {raw} as {sent}");
        // As it came: what they make of it by themselves. Only an empty segment that `..` takes back is one to RFC 3986 and none to who merges first.
        let plain = decoded(raw.as_bytes());
        if plain.windows(2).any(|pair| pair == b"//") && plain.windows(2).any(|pair| pair == b"..") {
            continue;
        }
        // Above the root there is nothing, or an error.
        if let Some((uri, _)) = nginx.ask(raw, "h") {
            assert_eq!(uri, meaning, "nginx: {raw}, to us {sent}");
            compared += 1;
        }
        assert_eq!(unhex(&raw_pythons[at]), bare(&meaning), "Python: {raw}, to us {sent}");
        assert_eq!(merged(&decoded(&unhex(&raw_nodes[at]))), meaning, "Node: {raw}, to us {sent}");
    }
    assert!(compared > 2000, "nginx read only {compared}");
}

#[test]
fn nothing_that_an_app_may_keep_hides_dot_segments() {
    let raw: Vec<String> = paths(12, 12_000);
    let sent: Vec<String> = raw.iter().filter_map(|raw| Some(path(raw, &KEEP).ok()?.into_owned())).collect();
    assert!(
        sent.len() > 4000 && sent.iter().any(|path| path.contains("%2F")) && sent.iter().any(|path| path.contains(';')),
        "{}",
        sent.len()
    );
    // With parameters cut off, as servlets do, and without.
    let cut: Vec<String> =
        sent.iter().map(|path| path.split('/').map(|part| part.split(';').next().unwrap()).collect::<Vec<_>>().join("/")).collect();
    for paths in [&sent, &cut] {
        let (pythons, nodes) = (python('p', paths), node('p', paths));
        for (at, path) in paths.iter().enumerate() {
            assert_eq!(unhex(&pythons[at]), bare(&merged(&decoded(path.as_bytes()))), "Python: {} as {path}", sent[at]);
            assert_eq!(unhex(&nodes[at]), path.as_bytes(), "Node: {} as {path}", sent[at]);
        }
    }
}

fn hosts(seed: u64, count: usize) -> Vec<String> {
    const PIECES: &[&str] = &[
        "a",
        "wiki",
        "WIKI",
        "example",
        "Corp",
        ".",
        ".",
        ".",
        "..",
        "-",
        "_",
        "0",
        "1",
        "127",
        "255",
        "256",
        "0x7f",
        "0X1",
        "017",
        "2130706433",
        "xn--",
        "xn--caf-dma",
        "%2e",
        "%61",
        "@",
        ":",
        ":",
        ":80",
        ":443",
        ":8443",
        ":080",
        ":00443",
        ":65535",
        ":65536",
        ":0",
        ":+1",
        ":-1",
        ": 1",
        "[",
        "]",
        "[::1]",
        "[2001:DB8::1]",
        "[::ffff:127.0.0.1]",
        "[::FFFF:7f00:1]",
        "[0:0:0:0:0:0:0:1]",
        "[fe80::1%25eth0]",
        "[v1.a]",
        "::1",
        "127.0.0.1",
        "127.1",
        "010.0.0.1",
        "1.2.3.4.5",
        "\u{e9}",
        "\u{3002}",
        "\u{ff0e}",
        "\u{2024}",
        "\u{df}",
        "/",
        "\\",
        "?",
        "#",
        ",",
        ";",
        "!",
        "$",
        "&",
        "'",
        "(",
        "*",
        "+",
        "=",
        "~",
        "|",
        "\"",
        "<",
        "^",
        "`",
        "{",
    ];
    let mut random = fastrand::Rng::with_seed(seed);
    (0..count).map(|_| (0..random.usize(1..6)).map(|_| *random.choice(PIECES).unwrap()).collect()).collect()
}

/// Host and port as we read a Host field.
fn our_host(text: &str) -> Option<(String, Option<u16>)> {
    let mut headers = http::HeaderMap::new();
    headers.insert("host", http::HeaderValue::from_bytes(text.as_bytes()).ok()?);
    let uri = http::Uri::from_static("/");
    let authority = authority_of(&uri, &headers).ok()?;
    Some((authority.host.into_owned(), authority.port))
}

/// In one form: lower case is not asked of it, and an address is itself however it is written.
fn host_of(text: &str) -> String {
    let text = text.strip_suffix('.').unwrap_or(text);
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    inner.parse::<Ipv6Addr>().map_or_else(|_| text.to_owned(), |address| address.to_string())
}

fn port_of(digits: &str) -> Option<u16> {
    digits.parse().ok().filter(|port| !matches!(port, 80 | 443))
}

#[test]
fn nginx_python_and_node_read_the_same_host() {
    let lab = Lab::new();
    let mut nginx = Mirror::start(&lab);
    let all = hosts(13, 60_000);
    let ours: Vec<(String, (String, Option<u16>))> = all.into_iter().filter_map(|text| Some((text.clone(), our_host(&text)?))).collect();
    assert!(ours.len() > 2000, "only {} are accepted", ours.len());
    for shape in ["[", "xn--", "_", "127.0.0.1", ":8443", "WIKI"] {
        assert!(ours.iter().any(|(text, _)| text.contains(shape)), "none has {shape}");
    }
    let texts: Vec<String> = ours.iter().map(|(text, _)| text.clone()).collect();
    let (pythons, nodes) = (python('h', &texts), node('h', &texts));
    let mut compared = [0; 3];
    for (at, (text, (host, port))) in ours.iter().enumerate() {
        assert_eq!(our_host(host), Some((host.clone(), None)), "the canonical form of {text} is its own");
        let (theirs, digits) = pythons[at].split_once(' ').unwrap_or_else(|| panic!("Python refuses {text}"));
        assert_eq!((host_of(&String::from_utf8(unhex(theirs)).unwrap()), port_of(digits)), (host_of(host), *port), "Python: {text}");
        compared[0] += 1;
        // Node may refuse what we pass on as bytes, a name that is not sound Punycode; it may not read another.
        if let Some((theirs, digits)) = nodes[at].split_once(' ') {
            assert_eq!((host_of(&String::from_utf8(unhex(theirs)).unwrap()), port_of(digits)), (host_of(host), *port), "Node: {text}");
            compared[1] += 1;
        } else {
            assert!(text.to_lowercase().contains("xn--"), "Node refuses {text}");
        }
        if let Some((_, theirs)) = nginx.ask("/", text) {
            assert_eq!(host_of(&theirs), host_of(host), "nginx: {text}");
            compared[2] += 1;
        }
    }
    assert!(compared.iter().all(|count| *count > 1500), "{compared:?} of {}", ours.len());
}
