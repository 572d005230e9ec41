//! Clients and servers that people really use: curl and Python in front, nginx behind, and an app whose received bytes are looked at.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};

use support::{Config, Curl, DEADLINE, Lab, Nginx, Origin, Proxy, Reply, Run, free_port, program};
use vestibule::cli::lab_ca::Issued;

const HEALTHY: &str = "ownership=corporate state=approved posture.os_supported=ok posture.screen_lock=ok";
const PHONE: &str = "ownership=personal onnet=false state=approved";

/// The lab, its devices and the proxy in front of `origin`.
struct World {
    lab: Lab,
    laptop: Issued,
    phone: Issued,
    proxy: Proxy,
}

impl World {
    fn new(config: &Config) -> Self {
        let lab = Lab::new();
        lab.configure(config);
        let (laptop, phone) = (lab.device("laptop", HEALTHY), lab.device("phone", PHONE));
        let proxy = lab.start(config);
        Self { lab, laptop, phone, proxy }
    }

    fn curl(&self) -> Curl {
        Curl::to(&self.proxy, &self.lab)
    }

    /// Of the healthy laptop.
    fn laptop(&self) -> Curl {
        self.curl().device(&self.laptop)
    }

    /// curl itself with the laptop's certificate, for what `Curl` does not do. Where its connections go is missing.
    fn bare_curl(&self) -> Command {
        let mut command = program("curl");
        command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time"]).arg(DEADLINE.as_secs().to_string());
        command.arg("--cacert").arg(self.lab.ca.edge_ca()).arg("--cert").arg(&self.laptop.cert).arg("--key").arg(&self.laptop.key);
        command
    }

    /// For `--connect-to`: everything goes to the edge.
    fn edge(&self) -> String {
        format!("::{}", self.proxy.addr("edge"))
    }
}

/// Letters that repeat only after a long while, the same for the same seed: a body that shows when a piece of it is lost, doubled or moved.
fn letters(length: usize, seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = String::with_capacity(length);
    while text.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let _ = write!(text, "{state:016x}");
    }
    text.truncate(length);
    text
}

/// A chunked body without its framing.
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|w| w == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 2 + size + 2..];
    }
}

#[test]
fn curl_with_every_protocol_with_and_without_a_certificate() {
    let origin = Origin::answering(Reply::status("200 OK", "X-App: yes\r\n", "hello"));
    let world = World::new(&Config::new(&origin));
    let mut forwarded = 0;
    for (http, version, line) in [("--http1.1", "1.1", "HTTP/1.1"), ("--http2", "2", "HTTP/1.1")] {
        for tls in [["--tlsv1.3", "--tls-max", "1.3"], ["--tlsv1.2", "--tls-max", "1.2"]] {
            let curl = || tls.iter().fold(world.curl().arg(http), |curl, arg| curl.arg(arg));
            let what = format!("{http} {tls:?}");

            let curl_of_laptop = curl().device(&world.laptop).arg("--path-as-is").header("X-Mine: 1");
            // Who claims to be more than it is gains nothing, however the name is written.
            let lying =
                curl_of_laptop.header("Vestibule-Tier: trusted").header("vestibule_device_id: boss").header("Vestibule-Device-Id: boss");
            let answer = lying.get("https://wiki.localhost/x/..//a%20page?q=1&r=a%2Fb");
            assert_eq!((answer.exit, answer.status, answer.version.as_str()), (0, 200, version), "{what}: {}", answer.stderr);
            assert_eq!((answer.body.as_str(), answer.header("x-app")), ("hello", Some("yes")), "{what}");
            forwarded += 1;
            let received = &origin.wait(forwarded)[forwarded - 1];
            assert_eq!(received.line(), format!("GET /a%20page?q=1&r=a%2Fb {line}"), "{what}");
            for (name, value) in [
                ("host", "wiki.localhost"),
                ("x-mine", "1"),
                ("vestibule-device-id", "laptop"),
                ("vestibule-device-class", "corporate"),
                ("vestibule-tier", "healthy"),
                ("vestibule-decision", "forward"),
                ("x-forwarded-for", "127.0.0.1"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "wiki.localhost"),
            ] {
                assert_eq!(received.header(name), [value], "{what}: {name}");
            }
            assert_eq!(received.header("vestibule-restrictions").concat(), "", "{what}");
            assert!(!received.header_names().iter().any(|name| name.contains('_')), "{what}: {}", received.text());

            let refused = curl().get("https://wiki.localhost/a%20page");
            assert_eq!((refused.exit, refused.status, refused.version.as_str()), (0, 403, version), "{what}: {}", refused.stderr);
            assert_eq!(refused.header("content-type"), Some("application/problem+json"), "{what}");
            assert_eq!(refused.json()["reasons"][0], "device.unknown", "{what}");

            let page = curl().header("Accept: text/html").get("https://wiki.localhost/");
            assert_eq!((page.status, page.header("content-type")), (403, Some("text/html; charset=utf-8")), "{what}");
            assert!(page.body.contains("Team wiki"), "{what}: {}", page.body);

            let phone = curl().device(&world.phone).get("https://wiki.localhost/");
            assert_eq!((phone.status, phone.header("cache-control")), (200, Some("no-store")), "{what}");
            forwarded += 1;
            let received = &origin.wait(forwarded)[forwarded - 1];
            assert_eq!(received.header("vestibule-restrictions"), ["read-only, private"], "{what}");
            assert_eq!(curl().device(&world.phone).post("https://wiki.localhost/", "x").status, 403, "{what}");
        }
    }
    assert_eq!(origin.received().len(), forwarded, "what is refused never reaches the app");
    // What the client showed of itself, by protocol and TLS version.
    let log = world.lab.decisions(20);
    let of_laptop = log.iter().filter(|line| line["device"] == "laptop" && line["claims"]["browser"] == "curl");
    let mut shown: Vec<String> = of_laptop.map(|line| line["wire"]["ja4"].as_str().unwrap()[..10].to_owned()).collect();
    shown.sort();
    let shown: Vec<(&str, &str)> = shown.iter().map(|ja4| (&ja4[..4], &ja4[8..])).collect();
    assert_eq!(shown, [("t12d", "h1"), ("t12d", "h2"), ("t13d", "h1"), ("t13d", "h2")], "{log:?}");
}

#[test]
fn uploads_arrive_byte_for_byte() {
    let origin = Origin::start(|received| Reply::text(&format!("{} bytes", received.body.len())));
    let world = World::new(&Config::new(&origin));
    let body = letters(5 << 20, 1);
    let file = world.lab.write("upload", &body);
    let file = format!("@{}", file.display());
    let mut number = 0;
    // curl announces a body of this size with `Expect: 100-continue` over HTTP/1.1 and waits a second for the answer.
    for (how, args) in [
        ("a length over HTTP/1.1", &["--http1.1"][..]),
        ("a length over HTTP/2", &["--http2"]),
        ("chunks over HTTP/1.1", &["--http1.1", "--header", "Transfer-Encoding: chunked"]),
        (
            "chunks over HTTP/1.1 without being asked to go on",
            &["--http1.1", "--header", "Transfer-Encoding: chunked", "--header", "Expect:"],
        ),
    ] {
        let answer =
            args.iter().fold(world.laptop(), |curl, arg| curl.arg(arg)).arg("--data-binary").arg(&file).get("https://wiki.localhost/up");
        assert_eq!((answer.exit, answer.status), (0, 200), "{how}: {}", answer.stderr);
        number += 1;
        let received = &origin.wait(number)[number - 1];
        let whole = if received.header("transfer-encoding").is_empty() {
            assert_eq!(received.header("content-length"), [body.len().to_string()], "{how}");
            received.body.clone()
        } else {
            assert!(received.header("content-length").is_empty(), "{how}: both framings");
            unchunked(&received.body)
        };
        assert!(whole == body.as_bytes(), "{how}: {} bytes came, or others", whole.len());
    }
    // From a pipe over HTTP/2: nobody knows the length.
    let mut curl = world
        .bare_curl()
        .args(["--http2", "--connect-to", &world.edge(), "--upload-file", "-", "https://wiki.localhost/pipe"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    curl.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    assert!(curl.wait_with_output().unwrap().status.success());
    let received = &origin.wait(number + 1)[number];
    assert_eq!((received.line(), received.header("transfer-encoding")), ("PUT /pipe HTTP/1.1".to_owned(), vec!["chunked".to_owned()]));
    assert!(unchunked(&received.body) == body.as_bytes());
}

#[test]
fn downloads_arrive_byte_for_byte() {
    let body = letters(16 << 20, 2);
    let sent = body.clone();
    let origin = Origin::start(move |received| {
        let text = received.text();
        match received.line().split(' ').nth(1).unwrap() {
            "/length" => Reply::text(&sent),
            "/chunks" => {
                let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                for (number, piece) in sent.as_bytes().chunks(70_001).enumerate() {
                    let _ = write!(bytes, "{:x};number={number}\r\n", piece.len());
                    bytes.extend_from_slice(piece);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
                Reply::Bytes(bytes)
            }
            "/close" => Reply::Close([b"HTTP/1.1 200 OK\r\n\r\n", sent.as_bytes()].concat()),
            _ => panic!("{text}"),
        }
    });
    let world = World::new(&Config::new(&origin));
    for path in ["length", "chunks", "close"] {
        for http in ["--http1.1", "--http2"] {
            let answer = world.laptop().arg(http).get(&format!("https://wiki.localhost/{path}"));
            assert_eq!((answer.exit, answer.status), (0, 200), "{path} {http}: {}", answer.stderr);
            assert!(answer.body == body, "{path} {http}: {} bytes came, or others", answer.body.len());
        }
    }
}

#[test]
fn head_range_and_conditional_requests_are_the_apps_affair() {
    let origin = Origin::start(|received| {
        if received.line().starts_with("HEAD ") {
            return Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: \"v1\"\r\n\r\n".to_vec());
        }
        if received.header("range") == ["bytes=2-4"] {
            return Reply::status("206 Partial Content", "Content-Range: bytes 2-4/10\r\n", "cde");
        }
        if received.header("if-none-match") == ["\"v1\""] {
            return Reply::Bytes(b"HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n".to_vec());
        }
        Reply::Bytes(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())
    });
    let world = World::new(&Config::new(&origin));
    for http in ["--http1.1", "--http2"] {
        // One call after the other, and each two on one connection: what follows an answer without a body must not be taken for it.
        let twice = |args: &[&str]| {
            let curl = args.iter().fold(world.laptop().arg(http), |curl, arg| curl.arg(arg));
            curl.arg("--url").arg("https://wiki.localhost/1").get("https://wiki.localhost/2")
        };
        let head = twice(&["--head"]);
        assert_eq!(
            (head.exit, head.status, head.header("content-length"), head.header("etag")),
            (0, 200, Some("1000"), Some("\"v1\"")),
            "{http}"
        );
        let range = world.laptop().arg(http).arg("--range").arg("2-4").get("https://wiki.localhost/");
        assert_eq!((range.exit, range.status, range.body.as_str()), (0, 206, "cde"), "{http}");
        assert_eq!(range.header("content-range"), Some("bytes 2-4/10"), "{http}");
        let unchanged = twice(&["--header", "If-None-Match: \"v1\""]);
        assert_eq!((unchanged.exit, unchanged.status, unchanged.body.as_str()), (0, 304, ""), "{http}");
        let empty = twice(&[]);
        assert_eq!((empty.exit, empty.status, empty.body.as_str()), (0, 204, ""), "{http}");
        // A refusal without a body of its own.
        let refused = world.curl().arg(http).arg("--head").arg("--url").arg("https://wiki.localhost/1").get("https://wiki.localhost/2");
        assert_eq!(
            (refused.exit, refused.status, refused.header("content-type")),
            (0, 403, Some("application/problem+json")),
            "{http}: {}",
            refused.stderr
        );
        assert!(refused.header("content-length").is_some_and(|length| length != "0"), "{http}: a HEAD says what a GET would get");
    }
}

#[test]
fn a_hundred_streams_of_one_connection_are_at_the_app_at_once() {
    const STREAMS: usize = 100;
    // Nobody is answered before everybody is there.
    let present = Arc::new((Mutex::new(0), Condvar::new()));
    let origin = {
        let present = Arc::clone(&present);
        Origin::start(move |received| {
            let (count, everybody) = &*present;
            let mut count = count.lock().unwrap();
            *count += 1;
            everybody.notify_all();
            let (_count, waited) = everybody.wait_timeout_while(count, DEADLINE, |count| *count < STREAMS).unwrap();
            let path = received.line().split(' ').nth(1).unwrap().to_owned();
            if waited.timed_out() { Reply::Close(Vec::new()) } else { Reply::text(&path) }
        })
    };
    let world = World::new(&Config::new(&origin));
    let dir = world.lab.path("streams");
    let curl = world
        .bare_curl()
        .args(["--http2", "--parallel", "--parallel-max", "100", "--connect-to", &world.edge()])
        .args(["--create-dirs", "--write-out", "%{http_code} %{http_version}\n", "--output"])
        .arg(dir.join("#1"))
        .arg(format!("https://wiki.localhost/[1-{STREAMS}]"))
        .output()
        .unwrap();
    let run = Run::from(curl).succeeded();
    assert_eq!(run.stdout.lines().filter(|line| *line == "200 2").count(), STREAMS, "{}{}", run.stdout, run.stderr);
    for number in 1..=STREAMS {
        assert_eq!(fs::read_to_string(dir.join(number.to_string())).unwrap(), format!("/{number}"));
    }
    let metrics = world.proxy.metrics();
    assert_eq!(metrics.sum("vestibule_tls_handshakes_total", &[("result", "ok")]), 1.0, "they shared a connection");
    assert_eq!(metrics.sum("vestibule_requests_total", &[("app", "wiki"), ("status", "200")]), 100.0);
}

/// A port that is free now. For what must be known before anything listens.
#[test]
fn the_redirect_listener_leads_to_https() {
    let origin = Origin::answering(Reply::text("hello"));
    let port = free_port();
    let config = Config::new(&origin).replace(
        "  - name: plain\n    bind: [\"127.0.0.1:0\"]",
        "  - name: plain\n    bind: [\"127.0.0.1:0\"]\n    redirect_to_https: true",
    );
    let config = config.replace("- name: edge\n    bind: [\"127.0.0.1:0\"]", &format!("- name: edge\n    bind: [\"127.0.0.1:{port}\"]"));
    let world = World::new(&config);
    let plain = world.proxy.addr("plain");
    let curl = || Curl::at(plain).arg("--cacert").arg(world.lab.ca.edge_ca().to_str().unwrap()).device(&world.laptop);
    let answer = curl().get("http://wiki.localhost/a%20page?q=1");
    assert_eq!((answer.exit, answer.status), (0, 308));
    assert_eq!(answer.header("location"), Some(&*format!("https://wiki.localhost:{port}/a%20page?q=1")));
    assert!(origin.received().is_empty());
    let output = world
        .bare_curl()
        .args(["--location", "--data-binary", "moved along"])
        .args(["--connect-to", &format!("wiki.localhost:80:{plain}")])
        .args(["--connect-to", &format!("wiki.localhost:{port}:127.0.0.1:{port}")])
        .args(["--write-out", " %{http_code} %{num_redirects} %{url_effective}", "http://wiki.localhost/a%20page?q=1"])
        .output()
        .unwrap();
    let run = Run::from(output).succeeded();
    assert_eq!(run.stdout, format!("hello 200 1 https://wiki.localhost:{port}/a%20page?q=1"));
    let [received] = &origin.wait(1)[..] else { panic!("not one request") };
    assert_eq!(
        (received.line().as_str(), received.body.as_slice()),
        ("POST /a%20page?q=1 HTTP/1.1", &b"moved along"[..]),
        "308 keeps the method"
    );
    // Whose host is none of ours is not led anywhere.
    assert_eq!(curl().get("http://elsewhere.example/").status, 404);
}

#[test]
fn python_with_and_without_a_certificate() {
    const SCRIPT: &str = r#"
import http.client, json, socket, ssl, sys, urllib.error, urllib.request

# Not every system's resolver knows that names below localhost are this machine (RFC 6761 section 6.3).
look_up = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **named: look_up("127.0.0.1" if host.endswith(".localhost") else host, *rest, **named)
port, ca, cert, key = int(sys.argv[1]), *sys.argv[2:5]

def context(cert=None):
    made = ssl.create_default_context(cafile=ca)
    if cert:
        made.load_cert_chain(cert, key)
    return made

# http.client: several requests on one connection, with every framing of a body.
link = http.client.HTTPSConnection("wiki.localhost", port, context=context(cert), timeout=20)
link.request("GET", "/one?q=1", headers={"Accept-Encoding": "gzip"})
one = link.getresponse()
assert (one.status, one.read()) == (200, b"hello"), one.status
kept = link.sock
link.request("POST", "/two", body=b"x" * 100_000)
two = link.getresponse()
assert (two.status, two.read()) == (200, b"hello"), two.status
link.request("PUT", "/three", body=iter([b"abc", b"defg"]), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
three = link.getresponse()
assert (three.status, three.read()) == (200, b"hello"), three.status
link.request("HEAD", "/four")
four = link.getresponse()
assert (four.status, four.read(), four.getheader("Content-Length")) == (200, b"", "5"), four.status
assert link.sock is kept, "the connection was not kept"
link.close()

# urllib, as scripts use it; without a certificate the refusal is an HTTPError whose body says why.
url = f"https://wiki.localhost:{port}/five"
with urllib.request.urlopen(url, context=context(cert), timeout=20) as five:
    assert (five.status, five.read()) == (200, b"hello")
try:
    urllib.request.urlopen(url, context=context(), timeout=20)
    sys.exit("a stranger got in")
except urllib.error.HTTPError as refused:
    problem = json.load(refused)
    assert (refused.code, refused.headers["Content-Type"]) == (403, "application/problem+json")
    assert problem["reasons"][0] == "device.unknown" and problem["status"] == 403, problem
    assert problem["instance"] == refused.headers["X-Request-Id"], problem
    print(problem["instance"])
"#;
    let origin = Origin::start(|received| {
        if received.line().starts_with("HEAD ") {
            Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec())
        } else {
            Reply::text("hello")
        }
    });
    let world = World::new(&Config::new(&origin));
    let python = program("python3")
        .args(["-W", "error", "-c", SCRIPT, &world.proxy.addr("edge").port().to_string()])
        .arg(world.lab.ca.edge_ca())
        .arg(&world.laptop.cert)
        .arg(&world.laptop.key)
        .env_remove("PYTHONPATH")
        .output()
        .unwrap();
    let run = Run::from(python).succeeded();
    let received = origin.received();
    let lines: Vec<String> = received.iter().map(support::Received::line).collect();
    assert_eq!(lines, ["GET /one?q=1 HTTP/1.1", "POST /two HTTP/1.1", "PUT /three HTTP/1.1", "HEAD /four HTTP/1.1", "GET /five HTTP/1.1"]);
    assert_eq!(received[0].header("accept-encoding"), ["gzip"]);
    assert_eq!((received[1].body.len(), unchunked(&received[2].body).as_slice()), (100_000, &b"abcdefg"[..]));
    assert_eq!(
        received[0].header("host"),
        [format!("wiki.localhost:{}", world.proxy.addr("edge").port())],
        "the client's own host, port included"
    );
    // The request id that the person reads is the one in the log.
    let log = world.lab.decisions(6);
    assert!(log.iter().any(|line| line["request_id"] == run.stdout.trim() && line["status"] == 403), "{log:?}");
}

#[test]
fn nginx_as_the_app() {
    let lab = Lab::new();
    let page = letters(200_000, 3);
    lab.write("page.txt", &page);
    let dir = lab.dir().display().to_string();
    let nginx = Nginx::start(
        &lab,
        &format!(
            r#"
            root {dir};
            gzip on; gzip_types text/plain; gzip_http_version 1.0; gzip_proxied any;
            add_header X-Connection $connection always; add_header X-Host $http_host always; add_header X-Device $http_vestibule_device_id always;
            location = /old {{ return 301 /page.txt; }}
            location = /relative {{ absolute_redirect off; return 302 /page.txt; }}
            location = /kept {{ return 200 "kept"; }}
            location = /gone {{ return 410; }}
            client_max_body_size 100k;"#
        ),
    );
    let origin = Origin::answering(Reply::text("never asked"));
    let config = Config::new(&origin).set("workers", "1").replace(&origin.url(), &nginx.url());
    lab.configure(&config);
    let laptop = lab.device("laptop", HEALTHY);
    let proxy = lab.start(&config);
    let world = World { phone: laptop.clone(), laptop, proxy, lab };
    let get = |args: &[&str], path: &str| {
        let answer = args.iter().fold(world.laptop(), |curl, arg| curl.arg(arg)).get(&format!("https://wiki.localhost{path}"));
        assert_eq!(answer.exit, 0, "{args:?} {path}: {}", answer.stderr);
        answer
    };
    for http in ["--http1.1", "--http2"] {
        let file = get(&[http], "/page.txt");
        assert_eq!((file.status, file.header("x-host"), file.header("x-device")), (200, Some("wiki.localhost"), Some("laptop")));
        assert!(file.body == page && file.header("content-length") == Some("200000"));
        assert!(file.header("server").is_some_and(|server| server.starts_with("nginx")), "the app's own headers stay");

        let zipped = get(&[http, "--compressed"], "/page.txt");
        assert_eq!((zipped.status, zipped.header("content-encoding"), zipped.header("content-length")), (200, Some("gzip"), None));
        assert!(zipped.body == page);

        let part = get(&[http, "--range", "100000-100004"], "/page.txt");
        assert_eq!((part.status, part.body.as_str()), (206, &page[100_000..100_005]));
        assert_eq!(get(&[http, "--range", "900000-"], "/page.txt").status, 416);

        let etag = file.header("etag").unwrap();
        let unchanged = get(&[http, "--header", &format!("If-None-Match: {etag}")], "/page.txt");
        assert_eq!((unchanged.status, unchanged.body.as_str(), unchanged.header("etag")), (304, "", Some(etag)));

        let moved = get(&[http], "/old");
        assert_eq!((moved.status, moved.header("location")), (301, Some(&*format!("http://wiki.localhost:{}/page.txt", nginx.port))));
        let moved = get(&[http, "--location"], "/relative");
        assert!(moved.status == 200 && moved.body == page, "a relative redirect leads back through the proxy");

        let missing = get(&[http], "/missing");
        assert_eq!((missing.status, missing.header("x-device")), (404, Some("laptop")), "the app's 404, not ours");
        assert_eq!(get(&[http], "/gone").status, 410);
        // nginx answers before it has read the body, and closes.
        assert_eq!(get(&[http, "--data-binary", &format!("@{dir}/page.txt")], "/kept").status, 413);
    }
    // One worker, one client after the other: the connection to the app stays the same.
    let connections: Vec<String> = (0..5).map(|_| get(&[], "/kept").header("x-connection").unwrap().to_owned()).collect();
    assert!(connections.iter().all(|connection| *connection == connections[0]), "{connections:?}");
}
