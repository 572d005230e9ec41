//! What the proxy remembers of devices: the stacks of those with a record, and the census of those without. Real clients on one certificate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends where its world breaks")]

mod support;

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Config, Curl, Lab, Origin, Proxy, RawTls, Reply, eventually, program};
use vestibule::cli::lab_ca::Issued;
use vestibule::record::names;

const FIT: &str = "ownership=corporate state=approved posture.os_supported=ok posture.screen_lock=ok";
const HOST: &str = "wiki.localhost";
const URL: &str = "https://wiki.localhost/";
const GET: &str = "GET / HTTP/1.1\r\nHost: wiki.localhost\r\n\r\n";

/// One device past whose learning a second stack is a drift, and a drift is trusted with nothing.
fn config(origin: &Origin, learn: &str) -> Config {
    Config::new(origin)
        .set("fingerprints", &format!("{{baseline: {{learn: {learn}}}}}"))
        .set("caps", "\n  - {name: drifts, when: {wire.drift: true}, max_tier: none}")
}

fn curl(proxy: &Proxy, lab: &Lab, device: &Issued) -> u16 {
    Curl::to(proxy, lab).device(device).get(URL).status
}

/// Another program than curl: rustls. Its answer, and the connection.
fn other(proxy: &Proxy, lab: &Lab, device: &Issued) -> (String, RawTls) {
    let mut tls = RawTls::connect(proxy, lab, HOST, Some(device));
    (tls.ask(GET), tls)
}

/// A third one, that speaks no HTTP/2 and TLS 1.2 alone.
fn openssl(proxy: &Proxy, lab: &Lab, device: &Issued) -> String {
    let address = proxy.addr("edge").to_string();
    let mut client = program("openssl")
        .args(["s_client", "-quiet", "-tls1_2", "-servername", HOST, "-connect", &address, "-cert"])
        .arg(&device.cert)
        .arg("-key")
        .arg(&device.key)
        .arg("-CAfile")
        .arg(lab.ca.edge_ca())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    client.stdin.take().unwrap().write_all(b"GET / HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: close\r\n\r\n").unwrap();
    String::from_utf8_lossy(&client.wait_with_output().unwrap().stdout).into_owned()
}

/// What `devices ... --format json` prints.
#[track_caller]
fn told(lab: &Lab, args: &[&str]) -> Value {
    let all = [&["devices", "-c", "vestibule.yaml"], args, &["--format", "json"]].concat();
    serde_json::from_str(&lab.vestibule(&all).succeeded().stdout).unwrap()
}

/// Until a device's learning period, which began at its first visit, has ended.
fn learned(began: Instant, learn: Duration) {
    eventually("the learning period ends", || (began.elapsed() > learn).then_some(()));
}

fn drifts(lab: &Lab, device: &str) -> Vec<bool> {
    let stacks = told(lab, &["baseline", device])["stacks"].as_array().unwrap().clone();
    stacks.iter().map(|stack| !stack["own"].as_bool().unwrap()).collect()
}

#[test]
fn another_program_on_a_devices_certificate_is_a_drift_until_somebody_accepts_it() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin, "1s");
    lab.configure(&config);
    let laptop = lab.device("laptop", FIT);
    let mut proxy = lab.start(&config);
    let began = Instant::now();
    assert_eq!(curl(&proxy, &lab, &laptop), 200);
    learned(began, Duration::from_millis(1200));
    assert_eq!(curl(&proxy, &lab, &laptop), 200);

    let (first, mut live) = other(&proxy, &lab, &laptop);
    assert!(first.starts_with("HTTP/1.1 403 ") && first.contains("cap.drifts"), "its very first request: {first}");
    assert_eq!(curl(&proxy, &lab, &laptop), 200, "the device itself goes on");
    // Each worker writes its own lines when it has some.
    let mut lines = lab.decisions(4);
    lines.sort_by_key(|line| line["ts"].as_str().map(str::to_owned));
    let told: Vec<_> = lines.iter().map(|line| line["wire"]["drift"].clone()).collect();
    assert_eq!(told, [false, false, true, false].map(Value::from));
    proxy.metric_reaches(names::DRIFT.name, &[("event", "raised")], 1.0);
    proxy.metric_reaches(names::DEVICES_DRIFTING.name, &[], 1.0);
    assert!(proxy.stderr().contains("speaks as it never did"), "{}", proxy.stderr());

    eventually("the drift is in the store", || (drifts(&lab, "laptop") == [false, true]).then_some(()));
    let shown = lab.vestibule(&["devices", "-c", "vestibule.yaml", "show", "laptop"]).succeeded().stdout;
    assert!(shown.contains("STACK") && shown.contains("no: drift") && shown.contains("t13d"), "{shown}");
    let list = lab.vestibule(&["devices", "-c", "vestibule.yaml", "baseline"]).succeeded().stdout;
    assert!(list.contains("laptop"), "{list}");
    assert!(
        lab.vestibule(&["devices", "-c", "vestibule.yaml", "baseline", "labtop"]).failed_with(&["did you mean `laptop`"]).code == Some(1)
    );

    // Killed, not stopped: what is known is on the disk, and nothing is learned anew.
    proxy.signal(libc::SIGKILL);
    proxy.ended();
    drop(live);
    let proxy = lab.start(&config);
    assert_eq!(curl(&proxy, &lab, &laptop), 200);
    let (again, stays) = other(&proxy, &lab, &laptop);
    assert!(again.starts_with("HTTP/1.1 403 "), "{again}");
    live = stays;
    let third = openssl(&proxy, &lab, &laptop);
    assert!(third.starts_with("HTTP/1.1 403 ") && third.contains("cap.drifts"), "{third}");

    eventually("the third is in the store", || (drifts(&lab, "laptop") == [false, true, true]).then_some(()));
    let accepted = lab.vestibule(&["devices", "-c", "vestibule.yaml", "--by", "ada", "baseline", "laptop", "--accept"]).succeeded();
    assert!(accepted.stdout.starts_with("laptop: accepted"), "{}", accepted.stdout);
    let answer =
        eventually("it binds the connection that is there", || Some(live.ask(GET)).filter(|answer| answer.starts_with("HTTP/1.1 200 ")));
    assert!(answer.ends_with("hello"));
    assert!(openssl(&proxy, &lab, &laptop).starts_with("HTTP/1.1 200 "));
    proxy.metric_reaches(names::DEVICES_SEEN.name, &[("class", "corporate")], 1.0);
    eventually("nothing drifts any more", || (proxy.metrics().sum(names::DEVICES_DRIFTING.name, &[]) == 0.0).then_some(()));
    let shown = lab.vestibule(&["devices", "-c", "vestibule.yaml", "show", "laptop"]).succeeded().stdout;
    assert!(shown.contains("accepted by ada"), "{shown}");
}

#[test]
fn every_program_of_the_learning_period_is_known() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin, "3s");
    lab.configure(&config);
    let laptop = lab.device("laptop", FIT);
    let proxy = lab.start(&config);
    let began = Instant::now();
    assert_eq!(curl(&proxy, &lab, &laptop), 200);
    assert!(other(&proxy, &lab, &laptop).0.starts_with("HTTP/1.1 200 "));
    assert!(openssl(&proxy, &lab, &laptop).starts_with("HTTP/1.1 200 "));
    learned(began, Duration::from_millis(3200));
    assert_eq!(curl(&proxy, &lab, &laptop), 200);
    assert!(other(&proxy, &lab, &laptop).0.starts_with("HTTP/1.1 200 "));
    assert!(openssl(&proxy, &lab, &laptop).starts_with("HTTP/1.1 200 "));
    assert_eq!(drifts(&lab, "laptop"), [false; 3]);
    assert_eq!(Curl::to(&proxy, &lab).device(&laptop).http1().get(URL).status, 200, "curl over HTTP/1.1 is curl");
    assert_eq!(proxy.metrics().sum(names::DRIFT.name, &[("event", "raised")]), 0.0);
}

#[test]
fn what_much_of_the_fleet_changes_to_is_no_drift() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin, "1s");
    lab.configure(&config);
    let fleet: Vec<Issued> = (0..5).map(|n| lab.device(&format!("laptop-{n}"), FIT)).collect();
    let proxy = lab.start(&config);
    fleet.iter().for_each(|device| assert_eq!(curl(&proxy, &lab, device), 200));
    learned(Instant::now(), Duration::from_millis(1200));
    fleet.iter().for_each(|device| assert_eq!(curl(&proxy, &lab, device), 200));
    let changes = |device: &Issued| other(&proxy, &lab, device).0.starts_with("HTTP/1.1 200 ");
    assert!(!changes(&fleet[0]) && !changes(&fleet[1]), "two of five are no release");
    // The fleet is counted every second.
    eventually("the third device makes it one", || changes(&fleet[2]).then_some(()));
    eventually("those that came first are learned with it", || (changes(&fleet[0]) && changes(&fleet[1])).then_some(()));
    assert!(changes(&fleet[3]) && changes(&fleet[4]));
    proxy.metric_reaches(names::DRIFT.name, &[("event", "fleet")], 3.0);
}

/// A second app beside `wiki`.
fn two_apps(origin: &Origin) -> Config {
    let git = format!(
        "\n  - {{name: git, owner: security, hosts: [git.localhost], upstream: {{servers: [\"{}\"]}}, rules: [{{name: rest, then: block}}]}}",
        origin.url()
    );
    let config = Config::new(origin).set("networks", "{home: [127.0.0.0/8]}").set("fingerprints", "{hash: none, census: {keep: 1d}}");
    let apps = config.get("apps");
    config.set("apps", &(apps + &git))
}

#[test]
fn the_census_of_devices_without_a_record() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = two_apps(&origin).replace("{keep: 1d}", "{keep: 1d, entries: 50}");
    let mut proxy = lab.start(&config);
    let anybody = || Curl::to(&proxy, &lab);
    for url in [URL, URL, "https://git.localhost/"] {
        assert_eq!(anybody().get(url).status, 403);
    }
    // One connection, three requests, two apps.
    assert_eq!(
        anybody().arg("https://git.localhost/a").arg("--output").arg("/dev/null").arg(URL).arg("--output").arg("/dev/null").get(URL).status,
        403
    );
    let stranger = lab.certificate("stranger");
    let (answer, _live) = other(&proxy, &lab, &stranger);
    assert!(answer.contains("certificate.unknown"), "{answer}");

    let api = eventually("all of it is told", || {
        let (status, body) = proxy.admin_get("/api/v1/devices/blind");
        assert_eq!(status, 200);
        let census: Value = serde_json::from_str(&body).unwrap();
        (census["groups"].as_array().unwrap().len() == 2).then_some(body)
    });
    let census: Value = serde_json::from_str(&api).unwrap();
    let curl = &census["groups"][0];
    assert!(curl["stack"] != "unknown" || curl["ja4"].as_str().unwrap().starts_with("t13_"), "{curl}");
    assert_eq!((&curl["zone"], &curl["peers"]), (&"home".into(), &1.into()));
    let apps: Vec<_> = curl["apps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| format!("{} {}", a["app"].as_str().unwrap(), a["owner"].as_str().unwrap()))
        .collect();
    assert_eq!(apps.len(), 2);
    assert!(apps.contains(&"wiki knowledge".to_owned()) && apps.contains(&"git security".to_owned()), "{apps:?}");
    assert_eq!(census["groups"][1]["connections"], 1);
    assert_eq!(census["other"], Value::Null);
    assert!(curl["first_seen"].as_str() <= curl["last_seen"].as_str());

    let print = |format: &str| lab.vestibule(&["devices", "-c", "vestibule.yaml", "blind", "--format", format]).succeeded().stdout;
    assert_eq!(print("json"), api, "the command line says the same");
    let csv = print("csv");
    assert!(csv.starts_with("stack,os,zone,ja4,") && csv.lines().count() == 4, "{csv}");
    let table = print("table");
    assert!(table.starts_with("STACK") && table.contains("home") && table.contains("(knowledge)"), "{table}");
    proxy.metric_reaches(names::DEVICES_SEEN.name, &[("class", "blind")], 2.0);

    proxy.signal(libc::SIGTERM);
    proxy.ended();
    assert_eq!(print("json"), api, "and when the proxy is stopped");
    let proxy = lab.start(&config);
    assert_eq!(Curl::to(&proxy, &lab).get(URL).status, 403);
    eventually("a new start counts on", || {
        let census: Value = serde_json::from_str(&proxy.admin_get("/api/v1/devices/blind").1).unwrap();
        let before = serde_json::from_str::<Value>(&api).unwrap()["groups"][0]["connections"].as_u64().unwrap();
        (census["groups"][0]["connections"].as_u64().unwrap() == before + 1).then_some(())
    });

    let before = proxy.metrics().sum(names::MEMORY_OVERFLOW.name, &[("table", "census")]);
    assert_eq!(before, 0.0);
}

#[test]
fn where_nothing_is_seen_nothing_is_learned() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = two_apps(&origin);
    let proxy = lab.start(&config);
    let answer = support::raw(proxy.addr("plain"), b"GET / HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with(b"HTTP/1.1 403 "));
    let census = eventually("it is counted", || {
        let census: Value = serde_json::from_str(&proxy.admin_get("/api/v1/devices/blind").1).unwrap();
        (!census["groups"].as_array().unwrap().is_empty()).then_some(census)
    });
    let group = &census["groups"][0];
    assert_eq!((&group["stack"], &group["ja4"], &group["connections"]), (&"unknown".into(), &Value::Null, &1.into()));
    assert_eq!(lab.decisions(1)[0]["wire"]["drift"], false);
}

#[test]
fn personal_devices_are_hashed_and_a_reload_changes_that() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = Config::new(&origin);
    lab.configure(&config);
    let byod = lab.device("byod", "ownership=personal state=approved");
    let laptop = lab.device("laptop", FIT);
    let proxy = lab.start(&config);
    assert_eq!((curl(&proxy, &lab, &byod), curl(&proxy, &lab, &laptop)), (200, 200));
    let ja4 = |device: &str| {
        eventually("it is remembered", || told(&lab, &["baseline", device])["stacks"].get(0).map(|stack| stack["ja4_stable"].clone()))
    };
    assert!(ja4("byod").is_null());
    assert!(ja4("laptop").as_str().unwrap().starts_with("t13d"), "{}", ja4("laptop"));
    lab.configure(&config.set("fingerprints", "{hash: all}"));
    eventually("the reload is heard and the text is gone", || ja4("laptop").is_null().then_some(()));
}
