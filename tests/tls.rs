//! What TLS clients see: certificates by SNI, versions, ALPN, resumption, whom the proxy asks for a certificate. By openssl, curl and rustls.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, NamedGroup, ProtocolVersion, RootCertStore};
use support::h2::H2;
use support::{Config, Curl, DEADLINE, Lab, Origin, Proxy, RawTls, Reply, eventually, program};
use vestibule::cli::lab_ca::{Issued, LabCa};

const HEALTHY: &str = "ownership=corporate state=approved posture.os_supported=ok posture.screen_lock=ok";
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: wiki.localhost\r\nConnection: close\r\n\r\n";

/// What `openssl s_client` wrote, standard error included.
struct Said {
    text: String,
    ok: bool,
}

impl Said {
    #[track_caller]
    fn has(&self, words: &str) -> &Self {
        assert!(self.text.contains(words), "`{words}` is not in:\n{}", self.text);
        self
    }

    #[track_caller]
    fn lacks(&self, words: &str) -> &Self {
        assert!(!self.text.contains(words), "`{words}` is in:\n{}", self.text);
        self
    }
}

/// Connects, sends `input`, and reads until the proxy closes; without `input` it leaves after the handshake.
fn s_client(proxy: &Proxy, lab: &Lab, args: &[&str], input: &str) -> Said {
    let mut command = program("openssl");
    command.args(["s_client", "-connect", &proxy.addr("edge").to_string(), "-CAfile"]).arg(lab.ca.edge_ca()).args(args);
    if !input.is_empty() {
        command.arg("-ign_eof");
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may have ended for lack of a handshake.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Said { text, ok: output.status.success() }
}

fn device(issued: &Issued) -> [&str; 4] {
    ["-cert", issued.cert.to_str().unwrap(), "-key", issued.key.to_str().unwrap()]
}

/// A lab whose edge has a second certificate of another CA, for `*.corp.example` and `exact.corp.example`.
fn two_certificates(config: &Config) -> (Lab, PathBuf, Config) {
    let lab = Lab::for_hosts(&["wiki.localhost", "127.0.0.1"]);
    let other = LabCa::create(&lab.path("other"), &["*.corp.example".to_owned()], false).unwrap();
    let third = LabCa::create(&lab.path("third"), &["exact.corp.example".to_owned()], false).unwrap();
    let config = config.clone().replace(
        "[{cert: certs/edge.pem, key: certs/edge.key}]",
        "[{cert: certs/edge.pem, key: certs/edge.key}, {cert: other/edge.pem, key: other/edge.key}, {cert: third/edge.pem, key: third/edge.key}]",
    );
    let both = [lab.ca.edge_ca(), other.edge_ca(), third.edge_ca()].map(|path| std::fs::read_to_string(path).unwrap()).concat();
    let all = lab.write("all-cas.pem", &both);
    (lab, all, config)
}

/// The SHA-256 of the certificate in a PEM file, as openssl prints it.
fn fingerprint(pem: &Path) -> String {
    let output = program("openssl").args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(pem).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_once('=').unwrap().1.trim().to_owned()
}

#[test]
fn the_certificate_is_chosen_by_name_then_by_wildcard_else_it_is_the_first() {
    let origin = Origin::answering(Reply::text("hello"));
    let (lab, all, config) = two_certificates(&Config::new(&origin));
    let proxy = lab.start(&config);
    let served = |args: &[&str]| {
        let said = s_client(&proxy, &lab, args, "");
        let start = said.text.find("-----BEGIN CERTIFICATE-----").unwrap_or_else(|| panic!("no certificate: {}", said.text));
        let end = said.text.find("-----END CERTIFICATE-----").unwrap();
        let pem = lab.write("served.pem", &format!("{}-----END CERTIFICATE-----\n", &said.text[start..end]));
        fingerprint(&pem)
    };
    let [first, wildcard, exact] = ["certs", "other", "third"].map(|dir| fingerprint(&lab.path(dir).join("edge.pem")));
    for (sni, expected, what) in [
        (&["-servername", "wiki.localhost"][..], &first, "an exact name"),
        (&["-servername", "a.corp.example"], &wildcard, "a wildcard"),
        (&["-servername", "A.Corp.EXAMPLE"], &wildcard, "a wildcard, whatever the case"),
        (&["-servername", "exact.corp.example"], &exact, "an exact name before a wildcard that comes first"),
        (&["-servername", "a.b.corp.example"], &first, "a wildcard is one label"),
        (&["-servername", "corp.example"], &first, "a wildcard is a label"),
        (&["-servername", "unknown.example"], &first, "an unknown name"),
        (&["-servername", "127.0.0.1"], &first, "an address is no name"),
        (&["-servername", "exact.corp.example."], &first, "with a dot at its end it is another name"),
        (&["-noservername"], &first, "no name"),
    ] {
        for version in ["-tls1_3", "-tls1_2"] {
            assert_eq!(served(&[sni, &[version]].concat()), *expected, "{what}, {version}");
        }
    }
    // curl verifies the whole chain and the name.
    let curl = |host: &str| Curl::at(proxy.addr("edge")).arg("--cacert").arg(all.to_str().unwrap()).get(&format!("https://{host}/"));
    assert_eq!((curl("wiki.localhost").exit, curl("wiki.localhost").status), (0, 403));
    assert_eq!((curl("a.corp.example").exit, curl("a.corp.example").status), (0, 404), "covered, but no app");
    assert_eq!(curl("unknown.example").exit, 60, "the certificate is another's");
}

#[test]
fn a_host_of_another_certificate_is_misdirected() {
    let origin = Origin::answering(Reply::text("hello"));
    let (lab, all, config) =
        two_certificates(&Config::new(&origin).replace("hosts: [wiki.localhost]", "hosts: [wiki.localhost, a.corp.example]"));
    let proxy = lab.start(&config);
    for http in ["--http1.1", "--http2"] {
        let curl = || Curl::at(proxy.addr("edge")).arg("--cacert").arg(all.to_str().unwrap()).arg(http);
        let answer = curl().header("Host: a.corp.example").get("https://wiki.localhost/");
        assert_eq!((answer.exit, answer.status), (0, 421), "{http}");
        assert_eq!(answer.json()["type"], "urn:vestibule:problem:misdirected");
        assert_eq!(curl().get("https://a.corp.example/").status, 403, "{http}: by its own certificate");
        // Whether there is such an app is not told either.
        assert_eq!(curl().header("Host: b.corp.example").get("https://wiki.localhost/").status, 421, "{http}");
    }
}

#[test]
fn versions_and_protocols() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let proxy = lab.start(&Config::new(&origin));
    let said = |args: &[&str]| s_client(&proxy, &lab, &[&["-servername", "wiki.localhost"], args].concat(), "");
    said(&["-tls1_3"]).has("TLSv1.3").has("Verify return code: 0 (ok)");
    said(&["-tls1_2"]).has("TLSv1.2").has("Verify return code: 0 (ok)").has("Extended master secret: yes");
    for old in ["-tls1_1", "-tls1"] {
        // Without this, openssl itself refuses to speak it.
        let refused = said(&[old, "-cipher", "DEFAULT@SECLEVEL=0"]);
        refused.has("SSL alert number").has("no peer certificate available");
        assert!(!refused.ok);
    }
    said(&["-tls1_2", "-cipher", "AES128-SHA"]).has("alert handshake failure");
    said(&["-alpn", "h2,http/1.1"]).has("ALPN protocol: h2");
    said(&["-alpn", "http/1.1,h2"]).has("ALPN protocol: h2");
    said(&["-alpn", "http/1.1"]).has("ALPN protocol: http/1.1");
    said(&[]).has("No ALPN negotiated");
    said(&["-alpn", "spdy/3"]).has("alert no application protocol");
    // Early data could be sent twice by anybody.
    said(&["-tls1_3"]).has("Early data was not sent").lacks("Max Early Data: 1");
    // A client without ALPN speaks HTTP/1.1.
    s_client(&proxy, &lab, &["-servername", "wiki.localhost", "-quiet"], REQUEST).has("HTTP/1.1 403 Forbidden");
    let metrics = proxy.metrics();
    assert!(metrics.sum("vestibule_tls_handshakes_total", &[("result", "handshake_failed")]) >= 4.0);
    assert_eq!(metrics.sum("vestibule_fingerprints_total", &[("layer", "tls"), ("result", "malformed")]), 0.0);
}

#[test]
fn a_resumed_session_is_as_good_as_a_new_one_and_no_better() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = Config::new(&origin);
    lab.configure(&config);
    let devices = [("-tls1_3", lab.device("one", HEALTHY)), ("-tls1_2", lab.device("two", HEALTHY))];
    let mut proxy = lab.start(&config);
    let session = |version: &str| lab.path(&format!("session{version}"));
    let resume = |proxy: &Proxy, version: &str| {
        let file = session(version);
        s_client(proxy, &lab, &["-servername", "wiki.localhost", version, "-sess_in", file.to_str().unwrap()], REQUEST)
    };
    for (version, issued) in &devices {
        let file = session(version);
        let args = [&["-servername", "wiki.localhost", version, "-sess_out", file.to_str().unwrap()], &device(issued)[..]].concat();
        s_client(&proxy, &lab, &args, REQUEST).has("New, TLSv1").has("HTTP/1.1 200 OK");
        // The certificate is not shown again; the session stands for it.
        resume(&proxy, version).has("Reused, TLSv1").has("HTTP/1.1 200 OK");
    }
    // A reload that leaves the certificates as they are leaves the sessions too.
    proxy.signal(libc::SIGHUP);
    proxy.metric_reaches("vestibule_config_reload_total", &[("result", "success")], 1.0);
    for (version, _) in &devices {
        resume(&proxy, version).has("Reused, TLSv1").has("HTTP/1.1 200 OK");
    }
    // Neither an end of the device ...
    lab.vestibule(&["devices", "-c", "vestibule.yaml", "revoke", "one", "--lost"]).succeeded();
    eventually("the lost device is refused in its old session", || {
        let said = resume(&proxy, "-tls1_3");
        said.has("Reused, TLSv1.3");
        said.text.contains("HTTP/1.1 403 Forbidden").then(|| said.has("device.state.lost").lacks("hello").ok)
    });
    resume(&proxy, "-tls1_2").has("Reused").has("HTTP/1.1 200 OK");
    // ... nor of its certificate is overlooked.
    lab.vestibule(&["certs", "revoke", "two"]).succeeded();
    proxy.signal(libc::SIGHUP);
    eventually("the revoked certificate is refused, in the old session or in a new one", || {
        let said = resume(&proxy, "-tls1_2");
        said.text.contains("HTTP/1.1 403 Forbidden").then(|| said.lacks("hello").ok)
    });
    let again = [&["-servername", "wiki.localhost", "-tls1_2"], &device(&devices[1].1)[..]].concat();
    s_client(&proxy, &lab, &again, REQUEST).has("HTTP/1.1 403 Forbidden").has("certificate.revoked");
    // Tickets do not outlive the program.
    proxy.signal(libc::SIGTERM);
    assert!(proxy.ended().success());
    let proxy = lab.start(&config);
    resume(&proxy, "-tls1_3").has("New, TLSv1.3");
}

#[test]
fn hosts_where_nobody_is_asked_for_a_certificate() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = Config::new(&origin)
        .replace(
            "client_crl: [certs/device-crl.pem]",
            "client_crl: [certs/device-crl.pem]\n      ask_certificate: {except: [open.corp.example]}",
        )
        .replace("hosts: [wiki.localhost]", "hosts: [wiki.localhost, open.corp.example]");
    lab.configure(&config);
    let laptop = lab.device("laptop", HEALTHY);
    let proxy = lab.start(&config);
    for version in ["-tls1_3", "-tls1_2"] {
        let said = |name: &str| s_client(&proxy, &lab, &["-servername", name, version], "");
        said("wiki.localhost").has("Acceptable client certificate CA names").has("Vestibule lab device CA");
        for name in ["open.corp.example", "OPEN.corp.example"] {
            said(name).has("No client certificate CA names sent").lacks("Vestibule lab device CA");
        }
        s_client(&proxy, &lab, &["-noservername", version], "").has("Acceptable client certificate CA names");
    }
    let curl = || Curl::to(&proxy, &lab).device(&laptop);
    assert_eq!(curl().get("https://wiki.localhost/").status, 200);
    let refused = curl().get("https://open.corp.example/");
    assert_eq!((refused.exit, refused.status), (0, 403));
    assert_eq!(refused.json()["reasons"][0], "device.unknown", "who was not asked has shown nothing");

    // A browser that reuses the connection for a host where everybody is asked is sent to make another.
    let mut open = H2::connect(&proxy, &lab, "open.corp.example", Some(&laptop));
    assert_eq!(open.get("wiki.localhost", "/").status, 421);
    assert_eq!(open.get("open.corp.example", "/").status, 403);
    let mut asked = H2::connect(&proxy, &lab, "wiki.localhost", Some(&laptop));
    assert_eq!(asked.get("open.corp.example", "/").status, 200, "asking more than is needed does no harm");

    // A session that began where nobody is asked is not one where everybody is.
    let file = lab.path("session");
    let file = file.to_str().unwrap();
    for version in ["-tls1_3", "-tls1_2"] {
        let request = REQUEST.replace("wiki.localhost", "open.corp.example");
        s_client(&proxy, &lab, &["-servername", "open.corp.example", version, "-sess_out", file], &request).has("HTTP/1.1 403");
        let args = [&["-servername", "wiki.localhost", version, "-sess_in", file], &device(&laptop)[..]].concat();
        s_client(&proxy, &lab, &args, REQUEST).has("New, TLSv1").has("HTTP/1.1 200 OK");
    }
}

#[test]
fn certificates_that_name_no_device_get_a_page_that_says_why() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let config = Config::new(&origin);
    lab.configure(&config);
    let known = lab.device("known", HEALTHY);
    let unknown = lab.certificate("unknown");
    let elsewhere = LabCa::create(&lab.path("elsewhere"), &["x.example".to_owned()], false).unwrap();
    let foreign = elsewhere.issue("known", vestibule::cli::lab_ca::Validity::days(1), false).unwrap();
    lab.vestibule(&["certs", "issue", "old", "--not-before", "2020-01-01", "--not-after", "2021-01-01"]).succeeded();
    let old = Issued { cert: lab.path("certs/devices/old.pem"), key: lab.path("certs/devices/old.key"), ..known.clone() };
    // The edge's own certificate is none for clients.
    let edge = Issued { cert: lab.path("certs/edge.pem"), key: lab.path("certs/edge.key"), ..known.clone() };
    let proxy = lab.start(&config);
    assert_eq!(Curl::to(&proxy, &lab).device(&known).get("https://wiki.localhost/").status, 200);
    for (issued, reason) in [
        (&unknown, "certificate.unknown"),
        (&foreign, "certificate.untrusted"),
        (&old, "certificate.expired"),
        (&edge, "certificate.untrusted"),
    ] {
        for tls in ["1.2", "1.3"] {
            let answer = Curl::to(&proxy, &lab).device(issued).arg("--tls-max").arg(tls).get("https://wiki.localhost/");
            assert_eq!((answer.exit, answer.status), (0, 403), "{reason} {tls}: {}", answer.stderr);
            assert_eq!(answer.json()["reasons"][0], reason, "{tls}");
        }
    }
    // What `openssl x509 -req` makes by default is of X.509 version 1: nothing that proves a device, and nothing to cut a handshake for.
    let (key, request, pem) = (lab.path("v1.key"), lab.path("v1.csr"), lab.path("v1.pem"));
    let path = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let ca = lab.path("certs");
    openssl(&["req", "-newkey", "rsa:2048", "-nodes", "-keyout", &path(&key), "-out", &path(&request), "-subj", "/CN=known"]);
    let signer = [path(&ca.join("device-ca.pem")), path(&ca.join("device-ca.key"))];
    openssl(&["x509", "-req", "-in", &path(&request), "-CA", &signer[0], "-CAkey", &signer[1], "-out", &path(&pem), "-days", "1"]);
    let v1 = Issued { cert: pem, key, ..known.clone() };
    for tls in ["1.2", "1.3"] {
        let answer = Curl::to(&proxy, &lab).device(&v1).arg("--tls-max").arg(tls).get("https://wiki.localhost/");
        assert_eq!((answer.exit, answer.status), (0, 403), "{tls}: {}", answer.stderr);
        assert_eq!(answer.json()["reasons"][0], "certificate.untrusted", "{tls}");
    }
    // A certificate without its key is nothing at all.
    let stolen = lab.path("certs/devices/unknown.key");
    let args = ["-servername", "wiki.localhost", "-cert", known.cert.to_str().unwrap(), "-key", stolen.to_str().unwrap()];
    assert!(!s_client(&proxy, &lab, &args, REQUEST).ok, "openssl refuses a key of another certificate");
    assert_eq!(origin.received().len(), 1);
}

fn openssl(args: &[&str]) {
    let output = std::process::Command::new("openssl").args(args).output().unwrap();
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn clients_that_can_agree_on_a_key_that_no_quantum_computer_finds() {
    let origin = Origin::answering(Reply::text("hello"));
    let lab = Lab::new();
    let proxy = lab.start(&Config::new(&origin));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(lab.ca.edge_ca()).unwrap()).unwrap();
    let connect = |groups: &[NamedGroup]| {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        let all = rustls::crypto::aws_lc_rs::ALL_KX_GROUPS;
        provider.kx_groups = groups.iter().map(|name| *all.iter().find(|group| group.name() == *name).unwrap()).collect();
        let config = ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots.clone()).with_no_client_auth();
        let name = ServerName::try_from("wiki.localhost").unwrap();
        let mut conn = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut socket = TcpStream::connect(proxy.addr("edge")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        while conn.is_handshaking() {
            conn.complete_io(&mut socket).unwrap();
        }
        (conn.protocol_version().unwrap(), conn.negotiated_key_exchange_group().unwrap().name())
    };
    let tls13 = ProtocolVersion::TLSv1_3;
    assert_eq!(connect(&[NamedGroup::X25519MLKEM768, NamedGroup::X25519]), (tls13, NamedGroup::X25519MLKEM768));
    // The client sends a share of its first group only; the server asks for the better one.
    assert_eq!(connect(&[NamedGroup::X25519, NamedGroup::X25519MLKEM768]).0, tls13);
    assert_eq!(connect(&[NamedGroup::X25519MLKEM768]), (tls13, NamedGroup::X25519MLKEM768));
    assert_eq!(connect(&[NamedGroup::X25519]), (tls13, NamedGroup::X25519));
    assert_eq!(connect(&[NamedGroup::secp384r1]), (tls13, NamedGroup::secp384r1));
}

/// A client without `TCP_NODELAY` sends its request only when the handshake's last flight is acknowledged, which the held ticket does not do.
#[test]
fn a_client_that_waits_for_acknowledgements_is_not_kept_waiting() {
    let origin = Origin::answering(Reply::text("ok"));
    let lab = Lab::new();
    let proxy = lab.start(&Config::new(&origin));
    let mut took: Vec<Duration> = (0..15)
        .map(|_| {
            let mut client = RawTls::connect(&proxy, &lab, "wiki.localhost", None);
            client.stream.sock.set_nodelay(false).unwrap();
            let began = Instant::now();
            assert!(client.ask(REQUEST).starts_with("HTTP/1.1 "));
            began.elapsed()
        })
        .collect();
    took.sort();
    assert!(took[7] < Duration::from_millis(30), "{took:?}: the kernel's delayed acknowledgement takes 40 ms");
}
