//! Restrictions as a client and the app see them, over HTTP/1.1 and HTTP/2.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

mod support;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use support::h2::{self, H2};
use support::{Answer, Config, Curl, Lab, Origin, Proxy, Received, Reply};

const KIB: usize = 1024;

struct World {
    origin: Origin,
    lab: Lab,
    proxy: Proxy,
}

impl World {
    /// An app for each restriction, at `NAME.corp.example`, and `free.corp.example` without any. Everybody may in.
    fn new(restrictions: &[(&str, &str)], script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(restrictions, script, |config| config)
    }

    fn with(
        restrictions: &[(&str, &str)],
        script: impl Fn(&Received) -> Reply + Send + Sync + 'static,
        change: impl Fn(Config) -> Config,
    ) -> Self {
        let origin = Origin::start(script);
        let server = origin.url();
        let app = |name: &str, rule: &str| {
            format!(
                "\n  - {{name: {name}, owner: knowledge, hosts: [{name}.corp.example], upstream: {{servers: [\"{server}\"], timeouts: {{idle: 300ms}}}}, rules: [{rule}]}}"
            )
        };
        let mut apps = app("free", "{name: all, then: forward}");
        let mut named = String::new();
        for (name, yaml) in restrictions {
            apps += &app(name, &format!("{{name: some, then: restrict, with: [{name}]}}"));
            let _ = write!(named, "\n  {name}: {yaml}");
        }
        let lab = Lab::new();
        let proxy = lab.start(&change(Config::new(&origin).set("restrictions", &named).set("apps", &apps)));
        Self { origin, lab, proxy }
    }

    fn curl(&self, version: &str) -> Curl {
        Curl::to(&self.proxy, &self.lab).arg(version)
    }

    fn get(&self, version: &str, url: &str) -> Answer {
        self.curl(version).get(url)
    }

    fn refused(&self, app: &str, reason: &str) -> f64 {
        self.proxy.metrics().sum("vestibule_decisions_total", &[("app", app), ("reason", reason), ("effect", "restrict")])
    }
}

const BOTH: [&str; 2] = ["--http1.1", "--http2"];

#[track_caller]
fn is_refusal(answer: &Answer, status: u16, reason: &str) {
    assert_eq!((answer.exit, answer.status), (0, status), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    assert_eq!(answer.json()["reasons"][0], reason, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

fn reply(headers: &str, body: &[u8]) -> Reply {
    Reply::Bytes([format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat())
}

fn chunked(size: usize) -> Vec<u8> {
    let mut bytes = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for part in vec![b'x'; size].chunks(10_000) {
        bytes.extend(format!("{:x}\r\n", part.len()).bytes());
        bytes.extend(part);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

fn path(received: &Received) -> String {
    received.line().split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn a_closed_path_never_reaches_the_app_and_costs_no_turn() {
    let part = "{methods: [GET], requests: 1/h, burst: 2, paths: {allow: [/wiki, \"/wiki/*\"], deny: [/wiki/admin, \"/wiki/admin/*\"]}}";
    let world = World::new(&[("part", part), ("again", part)], |_| Reply::text("in"));
    for (version, app) in BOTH.into_iter().zip(["part", "again"]) {
        let url = |path: &str| format!("https://{app}.corp.example{path}");
        let closed = ["/", "/wikis", "/wiki/admin", "/wiki/admin/users?x=/wiki", "/wiki/%61dmin", "/wiki/x/../admin", "//wiki//admin"];
        for path in closed {
            is_refusal(&world.curl(version).arg("--path-as-is").get(&url(path)), 403, "restrict.paths");
        }
        is_refusal(&world.curl(version).post(&url("/wiki/admin"), "x"), 403, "restrict.methods");
        assert!(world.origin.received().iter().all(|received| received.header("host") != [format!("{app}.corp.example")]));
        for open in ["/wiki?admin", "/wiki/a"] {
            assert_eq!(world.get(version, &url(open)).body, "in", "{open}");
        }
        is_refusal(&world.get(version, &url("/wiki/b")), 429, "restrict.requests");
        is_refusal(&world.get(version, &url("/wiki/admin")), 403, "restrict.paths");
        assert_eq!(world.refused(app, "restrict.paths"), closed.len() as f64 + 1.0, "each counted once");
    }
    let log = world.lab.decisions(1);
    let line = log.iter().find(|line| line["reasons"][0] == "restrict.paths").unwrap();
    assert_eq!(
        (line["effect"].as_str(), line["status"].as_u64(), &line["upstream_ms"]),
        (Some("restrict"), Some(403), &serde_json::Value::Null)
    );
    // For a person.
    let page = world.curl("--http2").header("Accept: text/html").get("https://part.corp.example/x");
    assert!(page.body.contains("This part of the app is not open to this device"), "{}", page.body);
}

#[test]
fn files_are_kept_back_and_pages_pass() {
    let world = World::new(&[("look", "{attachments: block}")], |received| {
        match path(received).as_str() {
        "/attached" => reply("Content-Type: text/html\r\nContent-Disposition: ATTACHMENT; filename=a.html\r\n", b"secret"),
        "/second" => reply("Content-Type: text/html\r\nContent-Disposition: inline\r\nContent-Disposition: x-odd\r\n", b"secret"),
        "/archive" => reply("Content-Type: Application/ZIP\r\n", b"secret"),
        // Head and a part, and no more ever: who waits for the rest of a file that is kept back waits for long.
        "/long" => Reply::Hang(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 999999999\r\n\r\nsecret".to_vec()),
        "/head" => Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Type: application/zip\r\nContent-Length: 6\r\n\r\n".to_vec()),
        "/part" => Reply::Bytes(
            b"HTTP/1.1 206 Partial Content\r\nContent-Type: application/zip\r\nContent-Range: bytes 0-5/9\r\nContent-Length: 6\r\n\r\nsecret".to_vec(),
        ),
        "/error" => Reply::Bytes(
            b"HTTP/1.1 500 Oops\r\nContent-Type: text/html\r\nContent-Disposition: attachment\r\nContent-Length: 6\r\n\r\nsecret".to_vec(),
        ),
        "/unchanged" => Reply::Bytes(b"HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\nContent-Disposition: attachment\r\n\r\n".to_vec()),
        "/untyped" => reply("", b"plain"),
        _ => reply("Content-Type: text/html\r\nContent-Disposition: inline; filename=attachment.html\r\n", b"page"),
    }
    });
    for version in BOTH {
        let url = |path: &str| format!("https://look.corp.example{path}");
        for path in ["/attached", "/second", "/archive", "/long", "/error"] {
            let answer = world.get(version, &url(path));
            is_refusal(&answer, 403, "restrict.attachments");
            assert!(!answer.body.contains("secret"));
        }
        is_refusal(&world.curl(version).header("Range: bytes=0-5").get(&url("/part")), 403, "restrict.attachments");
        let head = world.curl(version).arg("--head").get(&url("/head"));
        assert_eq!((head.exit, head.status, head.header("content-type")), (0, 403, Some("application/problem+json")), "{head:?}");
        let page = world.get(version, &url("/page"));
        assert_eq!((page.body.as_str(), page.header("x-content-type-options")), ("page", Some("nosniff")));
        let untyped = world.get(version, &url("/untyped"));
        assert_eq!((untyped.body.as_str(), untyped.header("content-type")), ("plain", Some("text/plain")));
        let unchanged = world.curl(version).header("If-None-Match: \"1\"").get(&url("/unchanged"));
        assert_eq!((unchanged.status, unchanged.header("content-disposition")), (304, Some("attachment")));
        let free = world.get(version, "https://free.corp.example/attached");
        assert_eq!((free.body.as_str(), free.header("x-content-type-options")), ("secret", None));
    }
    assert_eq!(world.refused("look", "restrict.attachments"), 14.0);
    let log = world.lab.decisions(1);
    let line = log.iter().find(|line| line["path"] == "/attached" && line["app"] == "look").unwrap();
    assert_eq!((&line["effect"], &line["reasons"][0]), (&"restrict".into(), &"restrict.attachments".into()));
    assert!(line["upstream_ms"].is_number(), "the app was asked: {line}");
}

#[test]
fn the_rest_of_a_file_that_is_kept_back_is_not_read_and_its_connection_serves_nobody_else() {
    let world = World::new(&[("look", "{attachments: block}")], |received| match path(received).as_str() {
        "/file" => reply("Content-Type: application/zip\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
        _ => Reply::text("good"),
    });
    let mut client = H2::connect(&world.proxy, &world.lab, "look.corp.example", None);
    for round in 1..=3 {
        assert_eq!(client.get("look.corp.example", "/file").status, 403);
        assert_eq!(client.get("look.corp.example", "/page").body, b"good");
        assert_eq!(world.origin.received().len(), 2 * round);
    }
    let connections: Vec<usize> = world.origin.received().iter().map(|received| received.connection).collect();
    assert!(connections.chunks(2).all(|pair| pair[0] != pair[1]), "{connections:?}");
}

#[test]
fn a_response_that_is_too_large_is_refused_by_its_length_or_cut_where_it_grows() {
    let small = 64 * KIB;
    let world = World::new(&[("small", "{max_response: 64KiB}")], move |received| match path(received).as_str() {
        "/exact" => reply("Content-Type: text/plain\r\n", &vec![b'x'; small]),
        "/over" => reply("Content-Type: text/plain\r\n", &vec![b'x'; small + 1]),
        "/head" => Reply::Bytes(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", small + 1).into_bytes()),
        "/part" => {
            Reply::Bytes(b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-4/9999999\r\nContent-Length: 5\r\n\r\nparts".to_vec())
        }
        "/unchanged" => Reply::Bytes(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9999999\r\n\r\n".to_vec()),
        "/grown-exact" => Reply::Bytes(chunked(small)),
        _ => Reply::Bytes(chunked(small + 1)),
    });
    for (version, cut) in BOTH.into_iter().zip([18, 92]) {
        let get = |path: &str| world.get(version, &format!("https://small.corp.example{path}"));
        for path in ["/exact", "/grown-exact"] {
            let whole = get(path);
            assert_eq!((whole.exit, whole.status, whole.body.len()), (0, 200, small), "{path}");
        }
        is_refusal(&get("/over"), 403, "restrict.max_response");
        assert!(get("/over").json()["detail"].as_str().unwrap().contains("64 KiB"));
        let head = world.curl(version).arg("--head").get("https://small.corp.example/head");
        assert_eq!((head.exit, head.status), (0, 403), "as its GET would be");
        assert_eq!(get("/part").body, "parts", "the length of this response counts");
        assert_eq!(world.curl(version).header("If-None-Match: x").get("https://small.corp.example/unchanged").status, 304);
        let grown = get("/grown");
        assert_eq!(
            (grown.exit, grown.status, grown.body.len()),
            (cut, 200, small),
            "all that may pass, and it looks cut: {}",
            grown.stderr
        );
        assert_eq!(world.get(version, "https://free.corp.example/grown").body.len(), small + 1);
    }
    world.proxy.metric_reaches("vestibule_streams_cut_total", &[("reason", "restrict.max_response")], 2.0);
    assert_eq!(world.refused("small", "restrict.max_response"), 6.0);
    // At the last byte as well: reset, not ended.
    // INITIAL_WINDOW_SIZE, and as much for the connection.
    let mut client = H2::with_settings(&world.proxy, &world.lab, ("small.corp.example", None), &[(1, 0), (4, 1 << 20)]);
    client.write(&h2::frame(h2::WINDOW_UPDATE, 0, 0, &(1u32 << 20).to_be_bytes()));
    let outcome = client.get("small.corp.example", "/grown");
    assert_eq!((outcome.status, outcome.body.len(), outcome.whole), (200, small, false));
    assert!(outcome.reset.is_some(), "{:?}", outcome.goaway);
    let metrics = world.proxy.metric_reaches("vestibule_streams_cut_total", &[], 3.0);
    assert_eq!(metrics.sum("vestibule_streams_cut_total", &[]), 3.0);
    let log = support::eventually("the cut is logged", || {
        let cut: Vec<_> = world.lab.decisions(1).into_iter().filter(|line| line["error"] == "restrict.max_response").collect();
        (cut.len() == 3).then_some(cut)
    });
    assert!(log.iter().all(|line| line["bytes_out"] == small && line["status"] == 200 && line["path"] == "/grown"), "{log:?}");
}

/// To a client of HTTP/1.0 the connection's end is the response's: a balancer that speaks it would take what is cut for whole.
#[test]
fn a_response_of_no_length_that_is_cut_ends_with_a_reset() {
    let world = World::new(&[("small", "{max_response: 1KiB}")], |received| match path(received).as_str() {
        "/whole" => Reply::Bytes(chunked(KIB)),
        "/broken" => Reply::Close(chunked(KIB / 2).strip_suffix(b"0\r\n\r\n").unwrap().to_vec()),
        _ => Reply::Bytes(chunked(KIB + 1)),
    });
    let ask = |path: &str| {
        let mut stream = support::tcp(world.proxy.addr("plain"));
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: small.corp.example\r\n\r\n").as_bytes()).unwrap();
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer).map(drop).map_err(|error| error.kind());
        (String::from_utf8(answer).unwrap().split("\r\n\r\n").nth(1).unwrap().len(), end)
    };
    assert_eq!(ask("/whole"), (KIB, Ok(())));
    let cut = Err(std::io::ErrorKind::ConnectionReset);
    assert_eq!(ask("/grown"), (KIB, cut));
    assert_eq!(ask("/broken"), (KIB / 2, cut), "as what the app breaks off");
}

#[test]
fn a_stream_that_lasts_too_long_is_cut_and_looks_cut() {
    // Far less than the app's idle timeout, which would cut as well.
    let patient = |config: Config| config.replace("idle: 300ms", "idle: 20s, response: 20s");
    let world = World::with(
        &[("short", "{max_stream: 1s}")],
        |received| match path(received).as_str() {
            "/silent" => Reply::Hang(Vec::new()),
            "/declared" => Reply::Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun".to_vec()),
            "/chunked" => Reply::Hang(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n".to_vec()),
            _ => Reply::text("quick"),
        },
        patient,
    );
    for (version, cut) in BOTH.into_iter().zip([18, 92]) {
        for path in ["/declared", "/chunked"] {
            let began = Instant::now();
            let answer = world.get(version, &format!("https://short.corp.example{path}"));
            assert_eq!((answer.exit, answer.status, answer.body.as_str()), (cut, 200, "begun"), "{version} {path}: {}", answer.stderr);
            assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
        }
        let began = Instant::now();
        let answer = world.get(version, "https://short.corp.example/silent");
        assert_eq!((answer.exit, answer.status), (0, 504));
        assert!(began.elapsed() >= Duration::from_secs(1) && began.elapsed() < Duration::from_secs(15));
        assert_eq!(world.get(version, "https://short.corp.example/").body, "quick");
    }
    let metrics = world.proxy.metric_reaches("vestibule_streams_cut_total", &[("reason", "restrict.max_stream")], 6.0);
    assert_eq!(metrics.sum("vestibule_streams_cut_total", &[]), 6.0);
    let log = world.lab.decisions(8);
    assert_eq!(log.iter().filter(|line| line["error"] == "restrict.max_stream").count(), 6);
}

#[test]
fn headers_that_close_a_page_stand_beside_the_apps_own() {
    let world = World::new(&[("closed", "{no_store: true, sandbox: true, permissions_policy: [camera, microphone]}")], |_| {
        reply(
            "Content-Type: text/html\r\nContent-Security-Policy: default-src 'self'\r\nPermissions-Policy: camera=*, geolocation=()\r\nCache-Control: public\r\n",
            b"page",
        )
    });
    for version in BOTH {
        let answer = world.get(version, "https://closed.corp.example/");
        let all = |name: &str| answer.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect::<Vec<_>>();
        let sandbox = "sandbox allow-forms allow-modals allow-popups allow-same-origin allow-scripts";
        assert_eq!(all("content-security-policy"), ["default-src 'self'", sandbox]);
        assert_eq!(all("permissions-policy"), ["geolocation=(), camera=(), microphone=()"]);
        assert_eq!(all("cache-control"), ["no-store"]);
        let free = world.get(version, "https://free.corp.example/");
        assert_eq!((free.header("permissions-policy"), free.header("cache-control")), (Some("camera=*, geolocation=()"), Some("public")));
    }
}

const RATE: usize = 256 * KIB;
/// What `2 * RATE` bytes take at least: two seconds, less what may run ahead.
const TWO_SECONDS: Duration = Duration::from_millis(1900);
/// On a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(12);

fn slow(names: &[&str]) -> World {
    paced(names, "{bandwidth: 256KiB/s}")
}

fn paced(names: &[&str], yaml: &str) -> World {
    let restrictions: Vec<(&str, &str)> = names.iter().map(|name| (*name, yaml)).collect();
    World::new(&restrictions, |received| match path(received).strip_prefix("/bytes/") {
        Some(size) => reply("Content-Type: text/plain\r\n", &vec![b'x'; size.parse::<usize>().unwrap()]),
        None if path(received) == "/chunked" => Reply::Bytes(chunked(2 * RATE)),
        None => Reply::text(&received.body.len().to_string()),
    })
}

fn timed(work: impl FnOnce() -> Answer) -> (Answer, Duration) {
    let began = Instant::now();
    (work(), began.elapsed())
}

#[test]
fn a_download_takes_the_time_of_its_bandwidth_and_no_idle_timeout_ends_it() {
    let world = slow(&["one", "two", "three"]);
    for (version, app, what) in
        [("--http1.1", "one", "/bytes/524288"), ("--http2", "two", "/bytes/524288"), ("--http2", "three", "/chunked")]
    {
        let before = processor_time(world.proxy.pid());
        let (answer, took) = timed(|| world.get(version, &format!("https://{app}.corp.example{what}")));
        assert_eq!((answer.exit, answer.body.len()), (0, 2 * RATE), "{}", answer.stderr);
        assert!(took >= TWO_SECONDS && took < PATIENCE, "{version}: {took:?}");
        let worked = processor_time(world.proxy.pid()) - before;
        assert!(worked < Duration::from_secs(1), "it waits, it does not spin: {worked:?} of {took:?}");
    }
    let (answer, took) = timed(|| world.get("--http2", "https://free.corp.example/bytes/524288"));
    assert_eq!(answer.body.len(), 2 * RATE);
    assert!(took < TWO_SECONDS, "nobody limits this one: {took:?}");
}

#[test]
fn uploads_count_as_downloads_do_and_both_together() {
    let world = slow(&["one", "two", "three"]);
    let file = world.lab.write("upload", &"y".repeat(2 * RATE));
    let half = world.lab.write("half", &"y".repeat(RATE));
    let data = |file: &std::path::Path| format!("@{}", file.display());
    for (version, app) in BOTH.into_iter().zip(["one", "two"]) {
        let (answer, took) = timed(|| world.curl(version).post(&format!("https://{app}.corp.example/"), &data(&file)));
        assert_eq!((answer.exit, answer.body.as_str()), (0, "524288"), "all of it came: {}", answer.stderr);
        assert!(took >= TWO_SECONDS && took < PATIENCE, "{version}: {took:?}");
    }
    let (answer, took) = timed(|| world.curl("--http1.1").post("https://three.corp.example/bytes/262144", &data(&half)));
    assert_eq!((answer.exit, answer.body.len()), (0, RATE));
    assert!(took >= TWO_SECONDS && took < PATIENCE, "{took:?}");
    let received = world.origin.received();
    assert_eq!(received.last().unwrap().body, vec![b'y'; RATE]);
    // Of no declared length.
    let chunked = world.curl("--http1.1").header("Transfer-Encoding: chunked");
    let (answer, took) = timed(|| chunked.post("https://one.corp.example/", &data(&half)));
    assert_eq!(answer.exit, 0, "{}", answer.stderr);
    assert!(took >= Duration::from_millis(800), "{took:?}");
}

#[test]
fn streams_of_one_visitor_share_evenly() {
    let world = slow(&["one", "two"]);
    let get = |version: &str, app: &str, size: usize| world.get(version, &format!("https://{app}.corp.example/bytes/{size}"));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| timed(|| get("--http2", "two", RATE)));
        let both = BOTH.map(|version| scope.spawn(move || timed(|| get(version, "one", RATE))));
        for stream in both {
            let (answer, took) = stream.join().unwrap();
            assert_eq!((answer.exit, answer.body.len()), (0, RATE));
            assert!(took >= Duration::from_millis(1500) && took < PATIENCE, "neither ran ahead of the other: {took:?}");
        }
        let (_, took) = other.join().unwrap();
        assert!(took >= Duration::from_millis(900), "{took:?}");
    });
}

#[test]
fn a_turn_that_takes_longer_than_the_apps_idle_timeout_ends_nothing() {
    // Eight at once: each waits for 800 ms between two pieces, and the app's idle timeout is 300 ms.
    let world = slow(&["one", "two"]);
    let file = world.lab.write("upload", &"y".repeat(RATE / 2));
    std::thread::scope(|scope| {
        let (world, file) = (&world, &file);
        let up = (0..8).map(|_| scope.spawn(|| world.curl("--http2").post("https://one.corp.example/", &format!("@{}", file.display()))));
        let down = (0..8).map(|_| scope.spawn(|| world.get("--http1.1", "https://two.corp.example/bytes/131072")));
        let (up, down): (Vec<_>, Vec<_>) = (up.collect(), down.collect());
        for stream in up {
            let answer = stream.join().unwrap();
            assert_eq!((answer.exit, answer.status, answer.body.as_str()), (0, 200, "131072"), "{}", answer.stderr);
        }
        for stream in down {
            let answer = stream.join().unwrap();
            assert_eq!((answer.exit, answer.body.len()), (0, RATE / 2), "{}", answer.stderr);
        }
    });
}

#[test]
fn whoever_leaves_gives_its_turn_back() {
    let world = paced(&["one"], "{bandwidth: 16KiB/s}");
    for _ in 0..3 {
        let mut client = H2::connect(&world.proxy, &world.lab, "one.corp.example", None);
        let streams: Vec<u32> = (0..40).map(|_| client.open(&h2::get("one.corp.example", "/bytes/524288"), true)).collect();
        // Every one of them waits for its turn by the time that the last has its head.
        for _ in &streams {
            while client.read().unwrap().kind != h2::HEADERS {}
        }
        client.leave();
    }
    world.proxy.metric_reaches("vestibule_requests_total", &[("app", "one")], 120.0);
    let (answer, took) = timed(|| world.get("--http1.1", "https://one.corp.example/bytes/1000"));
    assert_eq!((answer.exit, answer.body.len()), (0, 1000));
    assert!(took < Duration::from_secs(6), "120 turns of 100 ms were taken and given back: {took:?}");
}

/// User and system time of a process so far.
fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // 100 ticks a second, as on every Linux that this runs on.
    Duration::from_millis(ticks * 10)
}
