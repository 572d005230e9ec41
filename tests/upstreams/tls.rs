//! Apps behind TLS: who is trusted, what is presented, and what a failure looks like.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::support::{Lab, Origin, Received, Reply, Wire, eventually};
use super::{config, get, lines};

/// A certificate authority of the apps'.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn write(&self, lab: &Lab, file: &str) {
        lab.write(file, &self.0.pem());
    }

    fn issue(&self, names: &[&str], adjust: impl FnOnce(&mut CertificateParams)) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        adjust(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    /// A server with a certificate for these names.
    fn server(&self, names: &[&str], adjust: impl FnOnce(&mut CertificateParams)) -> ServerConfig {
        let pair = self.issue(names, adjust);
        serving(pair, ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap().with_no_client_auth())
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn serving(
    (certificate, key): (rcgen::Certificate, KeyPair),
    builder: rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>,
) -> ServerConfig {
    builder.with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into())).unwrap()
}

/// What the app saw of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shook {
    sni: Option<String>,
    alpn: Option<String>,
    resumed: bool,
    certified: bool,
}

struct Tls {
    stream: StreamOwned<ServerConnection, TcpStream>,
    /// Says goodbye before it closes.
    polite: bool,
}

impl Read for Tls {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.stream.read(buf)
    }
}

impl Write for Tls {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.stream.write(buf)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

impl Wire for Tls {
    fn close(&mut self) {
        if self.polite {
            self.stream.conn.send_close_notify();
            let _ = self.stream.flush();
        }
        self.stream.sock.close();
    }
}

/// An app behind TLS.
struct App {
    origin: Origin,
    shook: Arc<Mutex<Vec<Shook>>>,
}

impl App {
    fn start(server: ServerConfig, script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::ending(server, true, script)
    }

    fn ending(server: ServerConfig, polite: bool, script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let shook = Arc::new(Mutex::new(Vec::new()));
        let (all, server) = (Arc::clone(&shook), Arc::new(server));
        let origin = Origin::through(
            move |stream| {
                let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(&server)).unwrap(), stream);
                while tls.conn.is_handshaking() {
                    tls.conn.complete_io(&mut tls.sock).ok()?;
                }
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                all.lock().unwrap().push(Shook {
                    sni: tls.conn.server_name().map(str::to_owned),
                    alpn: tls.conn.alpn_protocol().map(text),
                    resumed: tls.conn.handshake_kind() == Some(HandshakeKind::Resumed),
                    certified: tls.conn.peer_certificates().is_some(),
                });
                Some(Box::new(Tls { stream: tls, polite }))
            },
            script,
        );
        Self { origin, shook }
    }

    fn ok(server: ServerConfig) -> Self {
        Self::start(server, |_| Reply::text("ok"))
    }

    /// `upstream`, with more keys of it.
    fn upstream(&self, more: &str) -> String {
        format!("{{servers: [\"https://{}\"], {more}}}", self.origin.address())
    }

    fn shook(&self) -> Vec<Shook> {
        self.shook.lock().unwrap().clone()
    }
}

fn never(_: &mut CertificateParams) {}

#[test]
fn a_server_is_who_its_certificate_says_and_nobody_else_gets_a_request() {
    let lab = Lab::new();
    let (ca, stranger) = (Authority::new("ours"), Authority::new("another"));
    ca.write(&lab, "apps-ca.pem");
    let by_name = ca.server(&["wiki.internal"], never);
    let mut http1 = ca.server(&["127.0.0.1"], never);
    http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut old = serving(
        ca.issue(&["127.0.0.1"], never),
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS12]).unwrap().with_no_client_auth(),
    );
    old.send_tls13_tickets = 0;
    let expired = ca.server(&["127.0.0.1"], |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let mut clients = RootCertStore::empty();
    clients.add(ca.0.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(clients), provider()).build().unwrap();
    let asking = serving(
        ca.issue(&["127.0.0.1"], never),
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap().with_client_cert_verifier(verifier),
    );
    let (presented, key) = ca.issue(&["proxy.internal"], never);
    lab.write("proxy.pem", &presented.pem());
    lab.write("proxy.key", &key.serialize_pem());

    let trusted = "tls: {ca: [apps-ca.pem]}";
    let (address, named, twelve) = (App::ok(http1.clone()), App::ok(by_name.clone()), App::ok(old));
    let mutual = App::ok(asking.clone());
    let (misnamed, expired, foreign) = (App::ok(by_name.clone()), App::ok(expired), App::ok(stranger.server(&["127.0.0.1"], never)));
    let (anonymous, one) = (App::ok(asking), App::ok(http1));
    let without = App::ok(ca.server(&["127.0.0.1"], never));
    let apps = [
        ("address", address.upstream(trusted)),
        ("named", named.upstream("tls: {ca: [apps-ca.pem], server_name: wiki.internal}")),
        ("twelve", twelve.upstream(trusted)),
        ("mutual", mutual.upstream("tls: {ca: [apps-ca.pem], certificate: {cert: proxy.pem, key: proxy.key}}")),
        ("misnamed", misnamed.upstream(trusted)),
        ("expired", expired.upstream(trusted)),
        ("foreign", foreign.upstream(trusted)),
        ("anonymous", anonymous.upstream(trusted)),
        ("one", one.upstream("protocol: h2, tls: {ca: [apps-ca.pem]}")),
        ("without", without.upstream("protocol: h2, tls: {ca: [apps-ca.pem]}")),
    ];
    let proxy = lab.start(&config(&apps));
    for (name, app, sni, certified) in [
        ("address", &address, None, false),
        ("named", &named, Some("wiki.internal"), false),
        ("twelve", &twelve, None, false),
        ("mutual", &mutual, None, true),
    ] {
        for _ in 0..3 {
            let answer = get(&proxy, name, "/");
            assert_eq!((answer.status, answer.body.as_str()), (200, "ok"), "{name}: {}", proxy.stderr());
        }
        let alpn = (name == "address").then(|| "http/1.1".to_owned());
        assert_eq!(app.shook(), [Shook { sni: sni.map(str::to_owned), alpn, resumed: false, certified }], "{name}: one connection");
    }
    for (name, app, why) in [
        ("misnamed", &misnamed, "not valid for name"),
        ("expired", &expired, "certificate expired"),
        ("foreign", &foreign, "UnknownIssuer"),
        ("one", &one, "does not offer HTTP/2"),
        ("without", &without, "expected ALPN `h2`, found nothing"),
    ] {
        for _ in 0..3 {
            let answer = get(&proxy, name, "/secret");
            assert_eq!(answer.status, 503, "{name}");
            for word in [why, "certificate", "127.0.0.1", "TLS"] {
                assert!(!answer.body.contains(word), "{name}: {word}: {}", answer.body);
            }
        }
        assert_eq!(app.origin.received().len(), 0, "{name}");
        let address = app.origin.address().to_string();
        assert_eq!(lines(&proxy, &["WARN", &address, why]), 1, "{name}: once: {}", proxy.stderr());
    }
    // TLS 1.3: the server refuses after the client's side of the handshake is over.
    assert!(matches!(get(&proxy, "anonymous", "/").status, 502 | 503));
    assert_eq!(anonymous.origin.received().len(), 0);
}

#[test]
fn sessions_are_resumed_and_new_files_apply_to_new_connections() {
    let lab = Lab::new();
    let (ca, next) = (Authority::new("ours"), Authority::new("next"));
    ca.write(&lab, "apps-ca.pem");
    let app = App::start(ca.server(&["127.0.0.1"], never), |received| match received.line().contains("/close") {
        true => Reply::Close(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok".to_vec()),
        false => Reply::text("ok"),
    });
    let proxy = lab.start(&config(&[("wiki", app.upstream("tls: {ca: [apps-ca.pem]}"))]));
    for _ in 0..3 {
        assert_eq!(get(&proxy, "wiki", "/close").status, 200);
    }
    let resumed: Vec<bool> = app.shook().iter().map(|shook| shook.resumed).collect();
    assert_eq!(resumed, [false, true, true]);
    assert_eq!(get(&proxy, "wiki", "/").status, 200);
    assert_eq!(get(&proxy, "wiki", "/").status, 200);
    assert_eq!(app.shook().len(), 4);

    // Another file, no signal: the proxy sees it, and the connection that the old one vouched for is used no more.
    let revision = proxy.metrics().sum("vestibule_config_reload_total", &[("result", "success")]);
    next.write(&lab, "apps-ca.pem");
    proxy.metric_reaches("vestibule_config_reload_total", &[("result", "success")], revision + 1.0);
    assert_eq!(get(&proxy, "wiki", "/").status, 503);
    let revision = proxy.metrics().sum("vestibule_config_reload_total", &[("result", "success")]);
    ca.write(&lab, "apps-ca.pem");
    proxy.metric_reaches("vestibule_config_reload_total", &[("result", "success")], revision + 1.0);
    eventually("the app answers again", || (get(&proxy, "wiki", "/").status == 200).then_some(()));
    assert!(!app.shook().last().unwrap().resumed, "no session of before");
    let metrics = proxy.metrics();
    assert!(metrics.sum("vestibule_certificate_expiry_timestamp_seconds", &[("name", "apps-ca.pem")]) > 0.0);

    // A broken file leaves all as it was, and the connection with it.
    let (before, failed) = (app.shook().len(), [("result", "failure")]);
    let failures = proxy.metrics().sum("vestibule_config_reload_total", &failed);
    lab.write("apps-ca.pem", "not a certificate");
    proxy.metric_reaches("vestibule_config_reload_total", &failed, failures + 1.0);
    assert_eq!(get(&proxy, "wiki", "/").status, 200);
    assert_eq!(app.shook().len(), before);
    assert!(proxy.stderr().contains("upstream.tls.ca[0]: "), "{}", proxy.stderr());
}

#[test]
fn a_trust_that_cannot_be_had_is_an_error_that_names_its_key() {
    let lab = Lab::new();
    let ca = Authority::new("ours");
    ca.write(&lab, "apps-ca.pem");
    let (leaf, key) = ca.issue(&["proxy.internal"], never);
    lab.write("leaf.pem", &leaf.pem());
    lab.write("leaf.key", &key.serialize_pem());
    lab.write("other.key", &KeyPair::generate().unwrap().serialize_pem());
    lab.write("empty.pem", "");
    for (tls, words) in [
        ("{ca: [missing.pem]}", &["upstream.tls.ca", "missing.pem", "cannot read"][..]),
        ("{ca: [empty.pem]}", &["upstream.tls.ca", "empty.pem", "expected a certificate in PEM"]),
        ("{ca: [leaf.pem]}", &["app `wiki`", "upstream.tls.ca", "leaf.pem", "CA:TRUE"]),
        ("{ca: [apps-ca.pem], certificate: {cert: leaf.pem, key: other.key}}", &["upstream.tls.certificate", "other.key"]),
        ("{ca: [apps-ca.pem], certificate: {cert: leaf.pem, key: empty.pem}}", &["upstream.tls.certificate", "empty.pem", "private key"]),
    ] {
        lab.configure(&config(&[("wiki", format!("{{servers: [\"https://127.0.0.1:1\"], tls: {tls}}}"))]));
        for command in [&["check", "-c", "vestibule.yaml"][..], &["run", "-c", "vestibule.yaml"]] {
            lab.vestibule(command).failed_with(words);
        }
    }
    lab.configure(&config(&[("wiki", "{servers: [\"https://127.0.0.1:1\"]}".to_owned())]));
    let none = lab.path("none");
    std::fs::create_dir(&none).unwrap();
    for command in ["check", "run"] {
        let said = without_cas(&lab, &none, command);
        for word in ["app `wiki`", "upstream.tls.ca", "the system has no CA certificates"] {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
}

/// Without a length, TLS's goodbye alone tells the end from a connection that somebody cut.
#[test]
fn a_response_that_ends_without_the_goodbye_of_tls_is_cut() {
    let lab = Lab::new();
    let ca = Authority::new("ours");
    ca.write(&lab, "apps-ca.pem");
    let reply = |_: &Received| Reply::Close(b"HTTP/1.1 200 OK\r\n\r\nall of it?".to_vec());
    let (polite, rude) = (ca.server(&["127.0.0.1"], never), ca.server(&["127.0.0.1"], never));
    let (polite, rude) = (App::ending(polite, true, reply), App::ending(rude, false, reply));
    let trusted = "tls: {ca: [apps-ca.pem]}";
    let proxy = lab.start(&config(&[("polite", polite.upstream(trusted)), ("rude", rude.upstream(trusted))]));
    let whole = get(&proxy, "polite", "/");
    assert_eq!((whole.exit, whole.status, whole.body.as_str()), (0, 200, "all of it?"));
    let cut = get(&proxy, "rude", "/");
    assert!(cut.exit != 0 && cut.status == 200, "{cut:?}");
}

/// On a system without CAs; what it says when it fails.
fn without_cas(lab: &Lab, none: &Path, command: &str) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_vestibule"));
    program.args([command, "-c", "vestibule.yaml"]).current_dir(lab.dir());
    let output = program.env("SSL_CERT_FILE", lab.path("empty.pem")).env("SSL_CERT_DIR", none).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}
