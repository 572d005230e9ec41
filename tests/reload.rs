//! A new configuration is taken as a whole or not at all, whoever asks for it, and nobody notices but by its effects.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends where its world breaks")]

mod support;

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use rustls::pki_types::ServerName;
use serde_json::Value;
use support::{Answer, Config, Curl, DEADLINE, Lab, Origin, Proxy, RawTls, Reply, eventually, tls_config};
use vestibule::cli::lab_ca::Issued;

const FIT: &str = "ownership=corporate state=approved posture.os_supported=ok posture.screen_lock=ok";
const HOST: &str = "wiki.corp.example";
const GET: &str = "GET / HTTP/1.1\r\nHost: wiki.corp.example\r\n\r\n";
const RELOADS: &str = "vestibule_config_reload_total";

fn config(origin: &Origin) -> Config {
    Config::new(origin).replace("[wiki.localhost]", "[wiki.corp.example]")
}

fn api(proxy: &Proxy) -> Curl {
    Curl::at(proxy.admin())
}

fn ask_reload(proxy: &Proxy) -> Answer {
    api(proxy).post("http://localhost/api/v1/reload", "")
}

fn policy(proxy: &Proxy) -> Value {
    let (status, body) = proxy.admin_get("/api/v1/policy");
    assert_eq!(status, 200);
    serde_json::from_str(&body).unwrap()
}

/// What an app received, as its answer tells: its name, the decision's headers, and the request's id.
fn telling(name: &'static str) -> Origin {
    Origin::start(move |received| {
        let header = |name: &str| received.header(name).concat();
        let told = ["vestibule-decision", "vestibule-restrictions", "vestibule-tier", "x-request-id"].map(header).join("|");
        Reply::text(&format!("{name}|{told}"))
    })
}

/// Which of the two policies made a whole answer, and the request's id.
fn made_by(body: &str, no_store: bool) -> (usize, String) {
    let (told, id) = body.rsplit_once('|').unwrap_or_default();
    match (told, no_store) {
        ("a|forward||healthy", false) => (0, id.to_owned()),
        ("b|restrict|private|fit", true) => (1, id.to_owned()),
        _ => panic!("neither policy answers so: {body}, no-store {no_store}"),
    }
}

/// Asks on one HTTP/1.1 connection, or on a new one each time, until told to stop.
fn h1_client(address: std::net::SocketAddr, (lab, device): (&Lab, &Issued), anew: bool, done: &AtomicBool) -> Vec<(usize, String)> {
    let connect = || RawTls::with_alpn(address, lab, (HOST, "http/1.1"), Some(device));
    let mut client = connect();
    let mut seen = Vec::new();
    while !done.load(SeqCst) {
        if anew {
            client = connect(); // also connections that begin within a reload
        }
        let answer = client.ask(GET);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        seen.push(made_by(answer.rsplit("\r\n").next().unwrap(), answer.contains("\r\ncache-control: no-store\r\n")));
    }
    seen
}

/// Keeps four streams of one HTTP/2 connection busy until told to stop.
fn h2_client(address: std::net::SocketAddr, (lab, device): (&Lab, &Issued), done: &AtomicBool) -> Vec<(usize, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls_config(lab, &[b"h2"], Some(device))));
    runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let tls = connector.connect(ServerName::try_from(HOST).unwrap(), socket).await.unwrap();
        let (send, connection) = h2::client::handshake(tls).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut seen = Vec::new();
        while !done.load(SeqCst) {
            let mut asked = Vec::new();
            for _ in 0..4 {
                let request = http::Request::get(format!("https://{HOST}/")).body(()).unwrap();
                let (answer, _) = send.clone().ready().await.unwrap().send_request(request, true).unwrap();
                asked.push(answer);
            }
            for answer in asked {
                let answer = tokio::time::timeout(DEADLINE, answer).await.expect("an answer").unwrap();
                assert_eq!(answer.status(), 200);
                let no_store = answer.headers().get("cache-control").is_some_and(|value| value == "no-store");
                let mut body = answer.into_body();
                let mut bytes = Vec::new();
                while let Some(part) = body.data().await {
                    bytes.extend(part.unwrap());
                }
                seen.push(made_by(std::str::from_utf8(&bytes).unwrap(), no_store));
            }
        }
        assert!(!connection.is_finished(), "one connection all along");
        seen
    })
}

#[test]
fn a_hundred_reloads_under_load_lose_nothing_and_mix_nothing() {
    let (a, b) = (telling("a"), telling("b"));
    let lab = Lab::new();
    let policies = [config(&a), config(&b).replace("healthy", "fit").replace("then: forward}", "then: restrict, with: [private]}")];
    lab.configure(&policies[0]);
    let laptop = lab.device("laptop", FIT);
    let proxy = lab.start(&policies[0]);
    let edge = proxy.addr("edge");
    let done = AtomicBool::new(false);
    let mut revisions = [policy(&proxy)["revision"].as_str().unwrap().to_owned(), String::new()];
    let seen: Vec<Vec<(usize, String)>> = std::thread::scope(|scope| {
        let (done, whose) = (&done, (&lab, &laptop));
        let mut clients: Vec<_> = (0..3).map(|number| scope.spawn(move || h1_client(edge, whose, number == 2, done))).collect();
        clients.extend((0..2).map(|_| scope.spawn(move || h2_client(edge, whose, done))));
        for round in 1..=100 {
            let before = proxy.metrics().sum(RELOADS, &[]);
            lab.configure(&policies[round % 2]);
            match round % 20 {
                0 => {} // the changed file alone
                n if n % 2 == 0 => proxy.signal(libc::SIGHUP),
                _ => assert_eq!(ask_reload(&proxy).status, 200),
            }
            proxy.metric_reaches(RELOADS, &[("result", "success")], before + 1.0);
            if round == 1 {
                revisions[1] = policy(&proxy)["revision"].as_str().unwrap().to_owned();
            }
        }
        done.store(true, SeqCst);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(proxy.metrics().sum(RELOADS, &[("result", "failure")]), 0.0, "{}", proxy.stderr());
    for (client, seen) in seen.iter().enumerate() {
        assert!([0, 1].iter().all(|policy| seen.iter().any(|(by, _)| by == policy)), "client {client} met both policies");
    }
    let asked: usize = seen.iter().map(Vec::len).sum();
    let log = lab.decisions(asked);
    assert_eq!(log.len(), asked, "every request has its line");
    let lines: HashMap<&str, &Value> = log.iter().map(|line| (line["request_id"].as_str().unwrap(), line)).collect();
    for (by, id) in seen.iter().flatten() {
        let line = lines.get(id.as_str()).unwrap_or_else(|| panic!("no line for {id}"));
        let told = (line["policy_rev"].as_str().unwrap(), line["effect"].as_str().unwrap(), line["tier"].as_str().unwrap());
        let effect = ["forward", "restrict"][*by];
        assert_eq!(told, (revisions[*by].as_str(), effect, ["healthy", "fit"][*by]), "{line}");
        assert_eq!(line["restrictions"].as_array().unwrap().len(), *by, "{line}");
    }
}

#[test]
fn the_api_takes_a_good_file_and_says_what_is_wrong_with_a_bad_one() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let good = config(&origin);
    lab.configure(&good);
    let laptop = lab.device("laptop", FIT);
    let proxy = lab.start(&good);
    let mut live = RawTls::connect(&proxy, &lab, HOST, Some(&laptop));
    assert!(live.ask(GET).starts_with("HTTP/1.1 200 "));
    let first = policy(&proxy);
    let since: jiff::Timestamp = first["since"].as_str().unwrap().parse().unwrap();
    assert!(since <= jiff::Timestamp::now());

    // Each would also close the app, had any part of it been taken.
    let closed = good.clone().replace("then: forward}", "then: block}");
    lab.configure(&closed.clone().replace("then: block}\n", "then: blok}\n").set("limits", "{drian: 1s}"));
    let refused = ask_reload(&proxy);
    assert_eq!(refused.status, 422, "{}", refused.body);
    let told = refused.json();
    assert_eq!(told["revision"], first["revision"]);
    let errors = told["errors"].as_array().unwrap();
    let text = std::fs::read_to_string(lab.path("vestibule.yaml")).unwrap();
    let line_of = |part: &str| text.lines().position(|line| line.contains(part)).unwrap() + 1;
    let find = |key: &str| errors.iter().find(|error| error["key"] == key).unwrap_or_else(|| panic!("{key}: {errors:?}"));
    let unknown = find("limits.drian");
    assert_eq!((unknown["line"].as_u64(), unknown["column"].as_u64()), (Some(line_of("drian") as u64), Some(10)));
    assert!(
        unknown["file"].as_str().unwrap().ends_with("vestibule.yaml") && unknown["message"].as_str().unwrap().contains("`drain`"),
        "{unknown}"
    );
    assert_eq!(find("apps[0].rules[0].then")["line"].as_u64(), Some(line_of("blok") as u64));
    assert_eq!(errors.len(), 2, "{errors:?}");

    lab.configure(&closed.clone().set("workers", "3"));
    let refused = ask_reload(&proxy);
    assert!(refused.status == 422 && refused.json()["errors"][0]["message"].as_str().unwrap().contains("restart"), "{}", refused.body);
    assert_eq!(policy(&proxy), first);
    assert!(live.ask(GET).starts_with("HTTP/1.1 200 "), "the old policy stays");

    // A page in this machine's browser, and whoever asks with another method.
    lab.configure(&closed);
    let elsewhere = api(&proxy).header("Origin: https://evil.example").post("http://localhost/api/v1/reload", "x");
    assert_eq!(elsewhere.status, 403);
    let read = api(&proxy).get("http://localhost/api/v1/reload");
    assert_eq!((read.status, read.header("allow")), (405, Some("POST")));

    let taken = ask_reload(&proxy);
    assert_eq!(taken.status, 200, "{}", taken.body);
    assert!(live.ask(GET).starts_with("HTTP/1.1 403 "), "a connection that is there follows at its next request");
    let now = policy(&proxy);
    assert_eq!(now["revision"], taken.json()["revision"]);
    assert_ne!(now["revision"], first["revision"]);
}

#[test]
fn counts_and_connections_outlive_a_reload() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let first = config(&origin)
        .set("workers", "1")
        .set("restrictions", "{read-only: {methods: [GET]}, private: {no_store: true}, slow: {requests: 2/h, burst: 2}}")
        .replace("then: restrict, with: [read-only, private]}", "then: restrict, with: [slow]}");
    lab.configure(&first);
    let (free, slow) = (lab.device("free", FIT), lab.device("slow", "state=approved"));
    let proxy = lab.start(&first);
    let connect = |device| RawTls::connect(&proxy, &lab, HOST, Some(device));
    let (mut free, mut limited) = (connect(&free), connect(&slow));
    let ask = |client: &mut RawTls| client.ask(GET)[9..12].to_owned();
    assert_eq!([(); 3].map(|()| ask(&mut limited)), ["200", "200", "429"]);
    assert_eq!(ask(&mut free), "200");
    assert_eq!(origin.connections(), 1);

    let before = proxy.metrics().sum(RELOADS, &[]);
    lab.configure(&first.set("guardrails", "[{name: gone, when: {device.state: lost}, then: block}]"));
    proxy.metric_reaches(RELOADS, &[("result", "success")], before + 1.0);
    assert_eq!(ask(&mut limited), "429", "who was at the limit is still");
    assert_eq!(ask(&mut connect(&slow)), "429", "on another connection too");
    assert_eq!(ask(&mut free), "200");
    assert_eq!(origin.connections(), 1, "the idle connection to the app is used again");
    eventually("the new policy decided that", || (lab.decisions(7).last()?["policy_rev"] == policy(&proxy)["revision"]).then_some(()));
}

/// A list of revoked certificates that somebody puts there is to be in force, without a word to the program. Certificates and keys of listeners:
/// tests/lifecycle.rs. What apps are trusted by: tests/upstreams.
#[test]
fn every_file_is_read_again_when_it_changes() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    for kind in ["ca", "crl"] {
        std::fs::copy(lab.path(&format!("certs/device-{kind}.pem")), lab.path(&format!("certs/front-{kind}.pem"))).unwrap();
    }
    lab.write("known.yaml", "rows:\n  - {name: pos, tls: {ja4: [\"t13d1811h1_*\"]}, stack: pos-terminal, forms: [other]}\n");
    std::fs::create_dir(lab.path("policy.d")).unwrap();
    lab.write("policy.d/knowledge.yaml", "owner: knowledge\nrules:\n  - {name: no-admin, when: {http.path: /admin}, then: block}\n");
    let base = config(&origin);
    let listeners = format!(
        "{}\n    forwarded: {{trusted: [\"192.0.2.1\"], client_ca: [certs/front-ca.pem], client_crl: [certs/front-crl.pem]}}",
        base.get("listeners")
    );
    let config = base.set("listeners", &listeners).set("fingerprints", "{known: known.yaml}").set("policy_dir", "policy.d");
    let proxy = lab.start(&config);
    for (file, more) in [
        ("certs/device-ca.pem", "\n"),
        ("certs/device-crl.pem", "\n"),
        ("certs/front-ca.pem", "\n"),
        ("certs/front-crl.pem", "\n"),
        ("known.yaml", "\n"),
        ("policy.d/knowledge.yaml", "\n"),
        ("policy.d/new.yaml", "owner: knowledge\nrules:\n  - {name: no-login, when: {http.path: /login}, then: block}\n"),
    ] {
        let before = proxy.metrics().sum(RELOADS, &[]);
        // Never half of it: a line break behind what is there, or a whole file.
        match std::fs::OpenOptions::new().append(true).open(lab.path(file)) {
            Ok(mut there) => there.write_all(more.as_bytes()).unwrap(),
            Err(_) => std::fs::rename(lab.write("next", more), lab.path(file)).unwrap(),
        }
        eventually(&format!("{file} is read again"), || (proxy.metrics().sum(RELOADS, &[]) > before).then_some(()));
    }
    assert_eq!(proxy.metrics().sum(RELOADS, &[("result", "failure")]), 0.0);
}
