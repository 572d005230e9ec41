//! Client-Cert (RFC 9440): a listed proxy's word for a device's certificate, and ours to an app.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use vestibule::cli::lab_ca::{Issued, Validity};
use vestibule::identify::spki_sha256;

use super::support::{Curl, RawTls};
use super::*;

fn item(der: &[u8]) -> String {
    format!(":{}:", STANDARD.encode(der))
}

fn der(issued: &Issued) -> Vec<u8> {
    CertificateDer::from_pem_file(&issued.cert).unwrap().to_vec()
}

/// What a proxy sends that ended this device's TLS at 192.0.2.7.
fn vouched(certificate: &str) -> String {
    get(&format!("X-Forwarded-For: 192.0.2.7\r\nClient-Cert: {certificate}\r\n"))
}

#[test]
fn a_listed_proxys_word_counts_as_the_devices_certificate() {
    let world = World::new();
    let laptop = world.lab.device("laptop", "ownership=corporate state=approved");
    let phone = world.lab.device("phone", "ownership=personal state=approved");
    let stranger = world.lab.certificate("stranger");
    let mut proxy = world.connect("plain");
    for (n, (certificate, status, device, standing)) in (1..).zip([
        (item(&der(&laptop)), 200, Value::from("laptop"), "known"),
        (item(&der(&phone)), 200, Value::from("phone"), "known"),
        (item(&der(&laptop)), 200, Value::from("laptop"), "known"),
        (item(&der(&stranger)), 403, Value::Null, "certificate.unknown"),
        (item(b"no certificate"), 403, Value::Null, "certificate.untrusted"),
        // A proxy that knows no condition.
        ("::".to_owned(), 403, Value::Null, "device.unknown"),
        (String::new(), 403, Value::Null, "device.unknown"),
    ]) {
        assert_eq!(proxy.status(&vouched(&certificate)), status, "{n}");
        let line = world.line(n);
        assert_eq!((&line["device"], &line["peer"]), (&device, &"192.0.2.7".into()), "{n}");
        assert_eq!(line["standing"], standing, "{n}");
    }
    assert_eq!(proxy.status(&from_nobody()), 403, "no device stays behind");
    let received = world.origin.wait(3);
    assert_eq!(received[0].header("vestibule-device-id"), ["laptop"]);
    assert_eq!(received[1].header("vestibule-device-id"), ["phone"]);
    assert_eq!(received[0].header("client-cert"), [item(&der(&laptop))], "the app asks for it");
    // Revoked while the proxy's connection is open.
    world.lab.ca.revoke(Some("laptop"), Validity::days(1)).unwrap();
    world.proxy.signal(libc::SIGHUP);
    world.proxy.metric_reaches("vestibule_config_reload_total", &[("result", "success")], 1.0);
    assert_eq!(proxy.status(&vouched(&item(&der(&laptop)))), 403);
    assert_eq!(proxy.status(&vouched(&item(&der(&phone)))), 200);
}

fn from_nobody() -> String {
    get("X-Forwarded-For: 192.0.2.7\r\n")
}

#[test]
fn what_is_no_certificate_field_names_no_device() {
    let world = World::new();
    let laptop = world.lab.device("laptop", "ownership=corporate state=approved");
    let good = item(&der(&laptop));
    let pem = "-----BEGIN%20CERTIFICATE-----%0A";
    for certificate in [
        format!("{good}\r\nClient-Cert: {good}"),
        format!("{good}, {good}"),
        format!("{good};a=1"),
        pem.to_owned(),
        good.trim_matches(':').to_owned(),
        good.replace('M', "*"),
        format!("{good}\r\nClient-Cert-Chain: x"),
        format!("{good}\r\nClient-Cert-Chain: {}", [good.as_str(); 9].join(", ")),
    ] {
        let answer = world.connect("plain").ask(&vouched(&certificate));
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("Client-Cert"), "{certificate}: {answer}");
    }
    assert!(world.origin.received().is_empty());
    assert!(world.lab.decisions(8).iter().all(|line| line["device"].is_null()));
}

#[test]
fn strangers_name_no_device() {
    let world = World::new();
    let laptop = world.lab.device("laptop", "ownership=corporate state=approved");
    let good = item(&der(&laptop));
    let fields = format!("Client-Cert: {good}\r\nClient_Cert: {good}\r\nClient-Cert-Chain: {good}\r\nclient.cert: {good}\r\n");
    for listener in ["plain", "bare", "both"] {
        let mut stranger = if listener == "both" { world.connect(listener) } else { world.stranger(listener) };
        if listener == "both" {
            // The balancer is trusted to pass on, and its client to nothing.
            stranger.send("PROXY TCP4 192.0.2.7 10.0.0.1 54321 80\r\n");
        }
        assert_eq!(stranger.status(&get(&fields)), 403, "{listener}");
        assert_eq!(stranger.status(&asked("git.localhost", &fields)), 200, "{listener}");
    }
    // Nor do the misspelt ones of a listed proxy.
    assert_eq!(world.connect("plain").status(&get(&format!("X-Forwarded-For: 192.0.2.7\r\nclient_cert: {good}\r\n"))), 403);
    for received in world.origin.wait(3) {
        assert!(!received.text().to_ascii_lowercase().replace(['_', '.'], "-").contains("client-cert"), "{}", received.text());
    }
}

#[test]
fn a_proxys_own_certificate_is_not_its_clients() {
    let world = World::new();
    let proxy = world.lab.device("balancer", "ownership=corporate state=approved");
    let mut tls = RawTls::connect(&world.proxy, &world.lab, "wiki.localhost", Some(&proxy));
    assert!(tls.ask(&get("")).starts_with("HTTP/1.1 200"), "as itself");
    assert!(tls.ask(&get("X-Forwarded-For: 192.0.2.7\r\n")).starts_with("HTTP/1.1 403"), "for another");
    let lines = world.lab.decisions(2);
    assert_eq!((&lines[0]["device"], &lines[1]["device"]), (&"balancer".into(), &Value::Null));
    // For devices whose certificates it saw: the CAs are those of the listener's `tls`.
    let laptop = world.lab.device("laptop", "ownership=corporate state=approved");
    assert!(tls.ask(&vouched(&item(&der(&laptop)))).starts_with("HTTP/1.1 200"));
    assert_eq!(world.line(3)["device"], "laptop");
}

#[test]
fn apps_that_ask_for_it_are_told_the_certificate() {
    let world = World::new();
    let laptop = world.lab.device("laptop", "ownership=corporate state=approved");
    let good = item(&der(&laptop));
    let spoofed = format!("Client-Cert: {}", item(b"evil"));
    for curl in [Curl::to(&world.proxy, &world.lab).http1(), Curl::to(&world.proxy, &world.lab).http2()] {
        // A stranger's own copy goes, whatever stands in place of it: from an address that is not listed.
        let curl = curl.arg("--interface").arg("127.0.0.2").header(&spoofed);
        assert_eq!(curl.clone().device(&laptop).get("https://wiki.localhost/page").status, 200);
        assert_eq!(curl.device(&laptop).get("https://git.localhost/page").status, 200, "which does not ask");
    }
    let received = world.origin.wait(4);
    let told: Vec<Vec<String>> = received.iter().map(|received| received.header("client-cert")).collect();
    assert_eq!(told, [vec![good.clone()], vec![], vec![good], vec![]]);
    assert!(received.iter().all(|received| received.header("client-cert-chain").is_empty()));
}

#[test]
fn only_a_certificate_that_was_verified_is_told() {
    let world = World::new();
    let unknown = world.lab.certificate("unknown");
    let elsewhere = Lab::new();
    let foreign = elsewhere.certificate("foreign");
    let revoked = world.lab.certificate("revoked");
    world.lab.ca.revoke(Some("revoked"), Validity::days(1)).unwrap();
    world.proxy.signal(libc::SIGHUP);
    world.proxy.metric_reaches("vestibule_config_reload_total", &[("result", "success")], 1.0);
    let mut front = world.connect("plain");
    for (n, (device, told)) in [(&unknown, true), (&foreign, false), (&revoked, false)].into_iter().enumerate() {
        let certificate = item(&der(device));
        let curl = Curl::to(&world.proxy, &world.lab).arg("--interface").arg("127.0.0.2").device(device);
        assert_eq!(curl.get("https://docs.corp.example/page").status, 200);
        let vouched = format!("X-Forwarded-For: 192.0.2.7\r\nClient-Cert: {certificate}\r\n");
        assert_eq!(front.status(&asked("docs.corp.example", &vouched)), 200);
        let want: Vec<String> = told.then(|| certificate.clone()).into_iter().collect();
        for received in &world.origin.wait(2 * n + 2)[2 * n..] {
            assert_eq!(received.header("client-cert"), want, "{n}");
        }
    }
}

/// An authority whose devices have an intermediate between, in files of the lab: the root, and the device's own with the intermediate behind it.
pub fn chained(lab: &Lab) -> (Issued, Vec<Vec<u8>>) {
    let authority = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    };
    let root = CertifiedIssuer::self_signed(authority("root"), KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let middle = authority("middle").signed_by(&key, &root).unwrap();
    let issuer = Issuer::new(authority("middle"), key);
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    lab.write("certs/root.pem", &root.pem());
    let spki = spki_sha256(leaf.der()).unwrap();
    let issued = Issued {
        cert: lab.write("certs/chained.pem", &format!("{}{}", leaf.pem(), middle.pem())),
        key: lab.write("certs/chained.key", &key.serialize_pem()),
        spki_sha256: spki.clone(),
        serial: String::new(),
        until: jiff::Timestamp::MAX,
    };
    lab.vestibule(&["devices", "-c", "vestibule.yaml", "set", "tablet", "--create", &format!("keys=spki_sha256:{spki}"), "state=approved"])
        .succeeded();
    (issued, vec![leaf.der().to_vec(), middle.der().to_vec()])
}

pub fn trusting_the_root(config: Config) -> Config {
    config
        .replace("client_ca: [certs/device-ca.pem]", "client_ca: [certs/root.pem]")
        .replace("      client_crl: [certs/device-crl.pem]\n", "")
        .replace(", client_crl: [certs/device-crl.pem]", "")
}

#[test]
fn a_chain_comes_in_and_goes_out() {
    let lab = Lab::new();
    let origin = Origin::answering(Reply::text("ok"));
    let config = World::config(&origin);
    lab.configure(&config);
    let (_, chain) = chained(&lab);
    let proxy = lab.start(&trusting_the_root(config));
    let mut front = Peer::from("127.0.0.1", proxy.addr("plain"));
    let whole = format!("{}\r\nClient-Cert-Chain: {}", item(&chain[0]), item(&chain[1]));
    assert_eq!(front.status(&vouched(&item(&chain[0]))), 403, "nobody knows who issued it");
    assert_eq!(front.status(&vouched(&whole)), 200);
    assert_eq!(front.status(&vouched(&item(&chain[0]))), 403, "what was said of another request is no help");
    let received = origin.wait(1).pop().unwrap();
    assert_eq!(received.header("client-cert"), [item(&chain[0])]);
    assert_eq!(received.header("client-cert-chain"), [item(&chain[1])]);
}

#[test]
fn a_listener_that_takes_no_certificates_does_not_even_read_them() {
    let world = World::new();
    let laptop = world.lab.device("laptop", "ownership=corporate state=approved");
    let said = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n";
    for (n, certificate) in (1..).zip([item(&der(&laptop)), "nonsense".to_owned()]) {
        let fields = format!("{said}Client-Cert: {certificate}\r\n");
        assert_eq!(world.connect("redirect").status(&asked("git.localhost", &fields)), 200, "{certificate}");
        assert_eq!((&world.line(n)["device"], &world.line(n)["standing"]), (&Value::Null, &"device.unknown".into()));
        assert!(world.origin.wait(n)[n - 1].header("client-cert").is_empty());
    }
}
