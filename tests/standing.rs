//! What the proxy knows of a device, and what it does when it cannot know: certificates, the store, and its failures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends where its world breaks")]

mod support;

use std::fs;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use support::{Config, Curl, Lab, Origin, Proxy, RawTls, Reply, eventually};
use vestibule::cli::lab_ca::{Issued, Validity};

const FIT: &str = "ownership=corporate state=approved posture.os_supported=ok posture.screen_lock=ok";
const URL: &str = "https://wiki.corp.example/";
const HOST: &str = "wiki.corp.example";
const GET: &str = "GET / HTTP/1.1\r\nHost: wiki.corp.example\r\n\r\n";

fn config(origin: &Origin) -> Config {
    Config::new(origin).replace("[wiki.localhost]", "[wiki.corp.example]")
}

/// Status, first reason (empty when forwarded) and page.
#[track_caller]
fn visit(proxy: &Proxy, lab: &Lab, device: Option<&Issued>) -> (u16, String, String) {
    let curl = || match device {
        Some(device) => Curl::to(proxy, lab).device(device),
        None => Curl::to(proxy, lab),
    };
    let answer = curl().get(URL);
    if answer.status == 200 {
        return (200, String::new(), String::new());
    }
    assert_ne!(answer.status, 0, "{}", answer.stderr);
    let page = curl().header("Accept: text/html").get(URL);
    assert_eq!(page.status, answer.status);
    (answer.status, answer.json()["reasons"][0].as_str().unwrap_or_default().to_owned(), page.body)
}

/// A record for a certificate that there is already.
fn enrol(lab: &Lab, name: &str, issued: &Issued) {
    let key = format!("keys=spki_sha256:{}", issued.spki_sha256);
    let mut args = vec!["devices", "-c", "vestibule.yaml", "set", name, "--create", &key];
    args.extend(FIT.split(' '));
    lab.vestibule(&args).succeeded();
}

fn hours(from: i64, until: i64) -> Validity {
    let at = |hours| Timestamp::now() + SignedDuration::from_hours(hours);
    Validity { from: at(from), until: at(until) }
}

#[test]
fn each_certificate_that_proves_nothing_says_why() {
    let origin = Origin::answering(Reply::text("hello"));
    let (lab, other) = (Lab::new(), Lab::new());
    let config = config(&origin);
    lab.configure(&config);
    let laptop = lab.device("laptop", FIT);
    let stolen = lab.device("stolen", FIT);
    let expired = lab.ca.issue("expired", hours(-48, -24), false).unwrap();
    let early = lab.ca.issue("early", hours(24, 48), false).unwrap();
    enrol(&lab, "expired", &expired);
    enrol(&lab, "early", &early);
    // Another authority's, for a key that the store knows.
    let foreign = other.certificate("foreign");
    enrol(&lab, "foreign", &foreign);
    lab.ca.revoke(Some("stolen"), Validity::days(1)).unwrap();
    let unknown = lab.certificate("unknown");
    let proxy = lab.start(&config);

    assert_eq!(visit(&proxy, &lab, Some(&laptop)).0, 200);
    for (device, reason, says) in [
        (None, "device.unknown", "We do not know this device yet"),
        (Some(&unknown), "certificate.unknown", "We do not know this device yet"),
        (Some(&expired), "certificate.expired", "The certificate of this device has expired"),
        (Some(&early), "certificate.not_yet_valid", "The certificate of this device is not valid yet"),
        (Some(&foreign), "certificate.untrusted", "The certificate of this device is not accepted here"),
        (Some(&stolen), "certificate.revoked", "The certificate of this device has been revoked"),
    ] {
        let (status, why, page) = visit(&proxy, &lab, device);
        assert_eq!((status, why.as_str()), (403, reason));
        assert!(page.contains(says), "{reason}: {page}");
    }
    let lines = lab.decisions(13);
    assert!(lines.iter().all(|line| line["device"].is_null() || line["device"] == "laptop"), "none of them names a device");
    assert_eq!(origin.received().len(), 1);

    // Revoked while it is connected, then the list itself runs out.
    let mut live = RawTls::connect(&proxy, &lab, HOST, Some(&laptop));
    assert!(live.ask(GET).starts_with("HTTP/1.1 200 "));
    lab.ca.revoke(None, hours(-48, -1)).unwrap();
    let answer = eventually("the list is out of date", || Some(live.ask(GET)).filter(|answer| answer.starts_with("HTTP/1.1 403 ")));
    assert!(answer.contains("certificate.crl_expired"), "{answer}");
    let (_, why, page) = visit(&proxy, &lab, Some(&laptop));
    assert!(why == "certificate.crl_expired" && page.contains("cannot be checked just now"), "{page}");
    lab.ca.revoke(Some("laptop"), Validity::days(1)).unwrap();
    let answer = eventually("the new list is read", || Some(live.ask(GET)).filter(|answer| !answer.contains("crl_expired")));
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("certificate.revoked"), "{answer}");
}

#[test]
fn a_certificate_that_ends_while_it_is_connected_ends_its_device() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin);
    lab.configure(&config);
    let until = Timestamp::now() + SignedDuration::from_secs(4);
    let brief = lab.ca.issue("brief", Validity { from: until - SignedDuration::from_hours(1), until }, false).unwrap();
    enrol(&lab, "brief", &brief);
    let proxy = lab.start(&config);
    let mut live = RawTls::connect(&proxy, &lab, HOST, Some(&brief));
    assert!(live.ask(GET).starts_with("HTTP/1.1 200 "));
    let answer = eventually("it has expired", || Some(live.ask(GET)).filter(|answer| answer.starts_with("HTTP/1.1 403 ")));
    assert!(answer.contains("certificate.expired"), "{answer}");
    let late = Timestamp::now().duration_since(until);
    assert!(late < SignedDuration::from_secs(2) && late > SignedDuration::from_secs(-1), "{late:?}");
}

#[test]
fn absence_is_cached_and_ends_when_the_device_is_enrolled() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin).replace("negative_ttl: 1s", "negative_ttl: 1h");
    let proxy = lab.start(&config);
    let phone = lab.certificate("phone");
    let cached = |result: &str| proxy.metrics().sum("vestibule_posture_cache_total", &[("result", result)]);
    let mut live = RawTls::connect(&proxy, &lab, HOST, Some(&phone));
    assert!(live.ask(GET).contains("certificate.unknown"));
    assert_eq!((cached("miss"), cached("negative")), (1.0, 0.0));
    assert_eq!(visit(&proxy, &lab, Some(&phone)).1, "certificate.unknown");
    assert_eq!((cached("miss"), cached("negative")), (1.0, 2.0));
    enrol(&lab, "phone", &phone);
    let enrolled = Instant::now();
    eventually("the phone is let in", || live.ask(GET).starts_with("HTTP/1.1 200 ").then_some(()));
    assert!(enrolled.elapsed() < Duration::from_secs(1), "{:?}", enrolled.elapsed());
}

/// Breaks the store of a running proxy, then mends it.
struct Broken<'a> {
    lab: &'a Lab,
    proxy: &'a Proxy,
}

impl<'a> Broken<'a> {
    fn new(lab: &'a Lab, proxy: &'a Proxy, how: &str) -> Self {
        let store = lab.path("vestibule.db");
        match how {
            "removed" => fs::remove_file(&store).unwrap(),
            "replaced" => fs::rename(lab.write("garbage", "no database"), &store).unwrap(),
            "emptied" => fs::rename(lab.write("garbage", ""), &store).unwrap(),
            _ => panic!("{how}"),
        }
        eventually(&format!("the store is down ({how})"), || (proxy.metrics().sum("vestibule_store_up", &[]) == 0.0).then_some(()));
        Self { lab, proxy }
    }

    /// Puts the copy in its place, as an operator does.
    fn mend(self) {
        fs::copy(self.lab.path("backup.db"), self.lab.path("backup.next")).unwrap();
        fs::rename(self.lab.path("backup.next"), self.lab.path("vestibule.db")).unwrap();
        self.proxy.metric_reaches("vestibule_store_up", &[], 1.0);
    }
}

/// Waits until the proxy has followed all changes so far: a record that changes is no longer cached.
fn followed(proxy: &Proxy) {
    let since = Instant::now();
    eventually("the changes are followed", || {
        let passed = since.elapsed().as_secs_f64() - 0.1; // the look itself
        (proxy.metrics().sum("vestibule_store_lag_seconds", &[]) < passed).then_some(())
    });
}

#[test]
fn a_broken_store_keeps_whom_it_knew_and_refuses_whom_nobody_can_look_up() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    // The record is due for another look at once, so that the store is really asked for while it is down.
    let config = config(&origin).replace("negative_ttl: 1s", "ttl: 10ms, negative_ttl: 10ms");
    lab.configure(&config);
    let laptop = lab.device("laptop", FIT);
    let phones: Vec<Issued> = (0..3).map(|n| lab.device(&format!("phone-{n}"), FIT)).collect();
    let stranger = lab.certificate("stranger");
    // No process has it open, so the file is whole.
    fs::copy(lab.path("vestibule.db"), lab.path("backup.db")).unwrap();
    let proxy = lab.start(&config);
    let mut live = RawTls::connect(&proxy, &lab, HOST, Some(&laptop));
    assert!(live.ask(GET).starts_with("HTTP/1.1 200 "));
    assert_eq!(visit(&proxy, &lab, Some(&stranger)).1, "certificate.unknown");

    for (how, phone) in ["removed", "replaced", "emptied"].into_iter().zip(&phones) {
        let broken = Broken::new(&lab, &proxy, how);
        assert!(live.ask(GET).starts_with("HTTP/1.1 200 "), "{how}: who was known stays");
        assert_eq!(visit(&proxy, &lab, Some(&laptop)).0, 200, "{how}: also on a new connection");
        let answer = Curl::to(&proxy, &lab).device(phone).get(URL);
        assert_eq!((answer.status, answer.json()["reasons"][0].as_str()), (503, Some("store.unavailable")), "{how}: {}", answer.body);
        assert!(answer.header("retry-after").is_some_and(|after| after.parse::<u32>().is_ok_and(|after| after > 0)));
        assert_eq!(answer.json()["type"], "urn:vestibule:problem:unavailable");
        // Absence that is out of date is not blindness either: somebody may have enrolled it since.
        assert_eq!(visit(&proxy, &lab, Some(&stranger)).0, 503, "{how}");
        assert_eq!(visit(&proxy, &lab, None).1, "device.unknown", "{how}: nobody has to look for a client that shows nothing");
        broken.mend();
        eventually(&format!("{how}: the phone is let in again"), || (visit(&proxy, &lab, Some(phone)).0 == 200).then_some(()));
        eventually("and the stranger is a stranger", || (visit(&proxy, &lab, Some(&stranger)).1 == "certificate.unknown").then_some(()));
        assert!(live.ask(GET).starts_with("HTTP/1.1 200 "));
        // And it is written to again.
        lab.vestibule(&["devices", "-c", "vestibule.yaml", "set", "laptop", "state=suspended"]).succeeded();
        eventually("a change is seen", || live.ask(GET).contains("device.state.suspended").then_some(()));
        lab.vestibule(&["devices", "-c", "vestibule.yaml", "set", "laptop", "state=approved"]).succeeded();
        followed(&proxy);
        assert!(live.ask(GET).starts_with("HTTP/1.1 200 "));
    }
    let stale = proxy.metrics().sum("vestibule_posture_cache_total", &[("result", "stale")]);
    assert!(stale >= 3.0, "{stale}");
    assert!(proxy.stderr().contains("device store failed") && proxy.stderr().contains("device store is back"), "{}", proxy.stderr());
}

#[test]
fn past_serve_stale_facts_are_unknown_and_ownership_stays() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin)
        .set("store", r#"{url: "sqlite://vestibule.db", cache: {ttl: 10ms}, when_down: {serve_stale: 1s}}"#)
        .replace("then: restrict, with: [read-only, private]", "then: restrict, with: [private]");
    lab.configure(&config);
    let laptop = lab.device("laptop", FIT);
    fs::copy(lab.path("vestibule.db"), lab.path("backup.db")).unwrap();
    let proxy = lab.start(&config);
    let mut live = RawTls::connect(&proxy, &lab, HOST, Some(&laptop));
    assert!(!live.ask(GET).contains("no-store"));
    let broken = Broken::new(&lab, &proxy, "removed");
    let answer = eventually("the facts are unknown", || Some(live.ask(GET)).filter(|answer| answer.contains("no-store")));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let line = eventually("its line", || lab.decisions(1).pop().filter(|last| last["effect"] == "restrict"));
    assert_eq!(
        (line["class"].as_str(), line["tier"].as_str(), line["device"].as_str()),
        (Some("corporate"), Some("known"), Some("laptop"))
    );
    assert_eq!(line["reasons"][0], "posture.os_supported.unknown");
    broken.mend();
    eventually("the facts are known again", || (!live.ask(GET).contains("no-store")).then_some(()));
}
