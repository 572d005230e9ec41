//! Certificates, CAs and revocation lists that change while the proxy runs, and those that end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use support::{Config, Curl, Lab, Origin, Reply, eventually, program, tcp};

const FIT: &str = "ownership=corporate state=approved posture.os_supported=ok posture.screen_lock=ok";
const HOST: &str = "wiki.corp.example";
const RELOADS: &str = "vestibule_config_reload_total";

fn config(origin: &Origin) -> Config {
    Config::new(origin).replace("[wiki.localhost]", "[wiki.corp.example]")
}

/// At once, as whoever renews certificates should.
fn replace(lab: &Lab, file: &str, content: &[u8]) {
    let next = lab.path("certs").join("next");
    fs::write(&next, content).unwrap();
    fs::rename(next, lab.path("certs").join(file)).unwrap();
}

/// Ends the clients also when the test fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn what_is_replaced_under_load_fails_no_handshake() {
    const ROUNDS: usize = 20;
    let origin = Origin::answering(Reply::text("hello"));
    let (lab, next) = (Lab::new(), Lab::new());
    let config = config(&origin);
    lab.configure(&config);
    let laptop = lab.device("laptop", FIT);
    let unlucky: Vec<_> = (0..ROUNDS).map(|number| lab.certificate(&format!("unlucky-{number}"))).collect();
    let proxy = lab.start(&config);
    let edge = proxy.addr("edge");
    let read = |lab: &Lab, file: &str| fs::read(lab.path("certs").join(file)).unwrap();
    let pairs = [&lab, &next].map(|lab| (read(lab, "edge.pem"), read(lab, "edge.key")));
    let (ours, theirs) = (read(&lab, "device-ca.pem"), read(&next, "device-ca.pem"));
    // Whoever renewed it, clients trust it.
    let mut roots = RootCertStore::empty();
    for lab in [&lab, &next] {
        roots.add(CertificateDer::from_pem_file(lab.ca.edge_ca()).unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = |resumes: bool| {
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
        let chain = vec![CertificateDer::from_pem_file(&laptop.cert).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&laptop.key).unwrap();
        let mut config = config.with_root_certificates(roots.clone()).with_client_auth_cert(chain, key).unwrap();
        if !resumes {
            config.resumption = rustls::client::Resumption::disabled();
        }
        Arc::new(config)
    };
    let (done, resumed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let handshakes: usize = std::thread::scope(|scope| {
        let _ending = Ending(&done);
        let clients: Vec<_> = [false, true, true]
            .into_iter()
            .map(|resumes| {
                let (config, done, resumed) = (client(resumes), &done, &resumed);
                scope.spawn(move || {
                    let mut count = 0;
                    while !done.load(SeqCst) {
                        let session = ClientConnection::new(Arc::clone(&config), ServerName::try_from(HOST).unwrap()).unwrap();
                        let mut tls = StreamOwned::new(session, tcp(edge));
                        tls.write_all(b"GET / HTTP/1.1\r\nHost: wiki.corp.example\r\nConnection: close\r\n\r\n").expect("a handshake");
                        let mut answer = Vec::new();
                        let ended = tls.read_to_end(&mut answer);
                        let answer = String::from_utf8_lossy(&answer);
                        assert!(answer.starts_with("HTTP/1.1 200 "), "{ended:?} {answer}");
                        if tls.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
                            resumed.fetch_add(1, SeqCst);
                        }
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        for (round, unlucky) in unlucky.iter().enumerate() {
            let (cert, key) = &pairs[(round + 1) % 2];
            // A look between the two finds a key of another certificate, and keeps what is in force.
            replace(&lab, "edge.key", key);
            replace(&lab, "edge.pem", cert);
            let authorities = if round % 2 == 0 { [ours.as_slice(), theirs.as_slice()].concat() } else { ours.clone() };
            replace(&lab, "device-ca.pem", &authorities);
            lab.vestibule(&["certs", "revoke", unlucky.cert.file_stem().unwrap().to_str().unwrap()]).succeeded();
            proxy.signal(libc::SIGHUP);
            eventually("the list is in force", || {
                let refused = Curl::at(edge).device(unlucky).arg("--insecure").get(&format!("https://{HOST}/"));
                assert_eq!(refused.status, 403, "{}", refused.body);
                refused.body.contains("certificate.revoked").then_some(())
            });
        }
        done.store(true, SeqCst);
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    let resumed = resumed.load(SeqCst);
    println!("{ROUNDS} replacements of certificate, CA and CRL: {handshakes} handshakes, none failed, {resumed} of them resumed");
    assert!(resumed > 0);
    assert_eq!(proxy.metrics().sum("vestibule_tls_handshakes_total", &[("result", "handshake_failed")]), 0.0);
}

/// A ticket of before a reload that revokes its certificate is worth nothing after it, in either version of TLS.
#[test]
fn a_ticket_does_not_bring_a_revoked_certificate_back() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin);
    lab.configure(&config);
    let proxy = lab.start(&config);
    for (version, name) in [("-tls1_3", "one"), ("-tls1_2", "two")] {
        let issued = lab.device(name, FIT);
        let session = lab.path(&format!("session{version}"));
        let visit = |more: &[&str]| {
            let mut command = program("openssl");
            command.args(["s_client", "-connect", &proxy.addr("edge").to_string(), "-servername", HOST, version, "-ign_eof"]).args(more);
            command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(b"GET / HTTP/1.1\r\nHost: wiki.corp.example\r\nConnection: close\r\n\r\n").unwrap();
            String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned()
        };
        let session = session.to_str().unwrap();
        let (cert, key) = (issued.cert.to_str().unwrap(), issued.key.to_str().unwrap());
        eventually("the device is let in", || {
            visit(&["-sess_out", session, "-cert", cert, "-key", key]).contains("HTTP/1.1 200 ").then_some(())
        });
        let again = visit(&["-sess_in", session]);
        assert!(again.contains("Reused, ") && again.contains("HTTP/1.1 200 "), "{again}");
        let before = proxy.metrics().sum(RELOADS, &[("result", "success")]);
        lab.vestibule(&["certs", "revoke", name]).succeeded();
        proxy.signal(libc::SIGHUP);
        proxy.metric_reaches(RELOADS, &[("result", "success")], before + 1.0);
        let after = visit(&["-sess_in", session]);
        assert!(after.contains("New, ") && after.contains("HTTP/1.1 403 "), "{after}");
        let shown = visit(&["-sess_in", session, "-cert", cert, "-key", key]);
        assert!(shown.contains("HTTP/1.1 403 ") && shown.contains("certificate.revoked"), "{shown}");
    }
}

#[test]
fn what_ends_soon_is_told_by_check_at_the_start_and_in_a_gauge() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = config(&origin);
    lab.configure(&config);
    let check = |more: &[&str]| lab.vestibule(&[&["check", "-c", "vestibule.yaml"], more].concat());
    let fresh = check(&[]).succeeded();
    let warnings = |said: &str| said.lines().last().unwrap().split("; ").next().unwrap().to_owned();
    assert!(!fresh.stdout.contains("edge.pem") && !fresh.stdout.contains("device-c"), "{}", fresh.stdout);
    // Certificates that somebody else made, with the ends that matter here.
    let make = |days: i64| {
        let mut params = rcgen::CertificateParams::new(vec!["wiki.corp.example".to_owned()]).unwrap();
        let at =
            |days: i64| time::OffsetDateTime::from_unix_timestamp((Timestamp::now() + SignedDuration::from_hours(24 * days)).as_second());
        (params.not_before, params.not_after) = (at(-100).unwrap(), at(days).unwrap());
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        replace(&lab, "edge.key", key.serialize_pem().as_bytes());
        replace(&lab, "edge.pem", cert.pem().as_bytes());
    };
    make(13);
    let said = check(&[]).succeeded().stdout;
    let ends = (Timestamp::now() + SignedDuration::from_hours(24 * 13)).to_string();
    assert!(said.contains(&format!("the certificate `edge.pem` ends {}", &ends[..10])), "{said}");
    assert_eq!(warnings(&said), warnings(&fresh.stdout), "to come is no warning");
    let told: serde_json::Value = serde_json::from_str(&check(&["--format", "json"]).succeeded().stdout).unwrap();
    assert!(told["ends"][0]["at"].as_str().unwrap().starts_with(&ends[..10]), "{}", told["ends"]);
    let proxy = lab.start(&config);
    eventually("the log says it", || proxy.stderr().contains("the certificate `edge.pem` ends").then_some(()));
    let left = proxy.metrics().sum("vestibule_certificate_expiry_timestamp_seconds", &[("name", "edge.pem")])
        - Timestamp::now().as_second() as f64;
    assert!((left - 13.0 * 86400.0).abs() < 600.0, "{left}");
    for name in ["device-ca.pem", "device-crl.pem"] {
        assert!(proxy.metrics().sum("vestibule_certificate_expiry_timestamp_seconds", &[("name", name)]) > 0.0, "{name}");
    }
    drop(proxy);
    make(-1);
    let ended = check(&[]).succeeded();
    assert!(ended.stdout.contains("warning: the certificate `edge.pem` ended"), "{}", ended.stdout);
    check(&["--strict"]).failed_with(&["the certificate `edge.pem` ended", "--strict forbids warnings"]);
    // It is served all the same: a person sees why their browser does not trust it, and others go on.
    let proxy = lab.start(&config);
    eventually("the log says it", || proxy.stderr().contains("the certificate `edge.pem` ended").then_some(()));
    assert_eq!(Curl::to(&proxy, &lab).arg("--insecure").get(&format!("https://{HOST}/")).status, 403);
}
