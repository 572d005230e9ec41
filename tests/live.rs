//! Real clients, run here and now against a real proxy: each is recognised, and none of the honest ones contradicts itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

mod support;

use std::process::Command;
use std::sync::Mutex;

use serde_json::{Value, json};
use support::firefox::Firefox;
use support::{Config, DEADLINE, Lab, Origin, Proxy, Reply, chromium, program, venv};

/// A proxy with an app for everybody.
struct World {
    lab: Lab,
    proxy: Proxy,
    _origin: Origin,
}

impl World {
    fn new() -> Self {
        let origin = Origin::answering(Reply::text("hello"));
        let apps = format!(
            "\n  - {{name: wiki, owner: knowledge, hosts: [localhost], upstream: {{servers: [\"{}\"]}}, rules: [{{name: all, then: forward}}]}}",
            origin.url()
        );
        let lab = Lab::new();
        let proxy = lab.start(&Config::new(&origin).set("apps", &apps));
        Self { lab, proxy, _origin: origin }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/", self.proxy.addr("edge").port())
    }

    fn ca(&self) -> String {
        self.lab.ca.edge_ca().to_str().unwrap().to_owned()
    }

    /// Runs it; the log's lines of its requests, at least one.
    fn lines(&self, client: &mut Command) -> Vec<Value> {
        let before = self.lab.decisions(0).len();
        let output = client.output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{client:?}: {said}");
        self.lab.decisions(before + 1).split_off(before)
    }

    fn line(&self, client: &mut Command) -> Value {
        self.lines(client).remove(0)
    }

    fn curl(&self, args: &[&str]) -> Command {
        let mut curl = program("curl");
        curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time"]).arg(DEADLINE.as_secs().to_string());
        curl.arg("--cacert").arg(self.ca()).args(args).arg(self.url());
        curl
    }
}

/// What a client is recognised as: its stack, its family, its major version where one is known.
#[track_caller]
fn recognised(line: &Value, what: &str, stack: &str, family: &str, version: Option<u32>) {
    let wire = &line["wire"];
    let has = |name: &str, word: &str| wire[name].as_array().is_some_and(|all| all.iter().any(|one| one == word));
    assert!(has("stack", stack), "{what}: stack is not {stack}: {wire}");
    assert!(has("browser", family), "{what}: family is not {family}: {wire}");
    if let Some(version) = version {
        let versions = wire["versions"].as_str().unwrap_or_else(|| panic!("{what}: no versions: {wire}"));
        assert!(holds(versions, version), "{what}: {version} is not in {versions}: {wire}");
    }
    assert!(has("os", "linux"), "{what}: {wire}");
    assert_eq!(line["contradictions"], json!([]), "{what}: {line}");
    assert_ne!(line["confidence"], "contradicted", "{what}: {line}");
}

/// `133+`, `91-132` or `120`.
fn holds(versions: &str, version: u32) -> bool {
    let number = |text: &str| text.parse::<u32>().unwrap_or_else(|_| panic!("{versions}"));
    match (versions.strip_suffix('+'), versions.split_once('-')) {
        (Some(from), _) => number(from) <= version,
        (None, Some((from, to))) => (number(from)..=number(to)).contains(&version),
        (None, None) => number(versions) == version,
    }
}

/// The contradictions' kinds.
fn kinds(line: &Value) -> Vec<&str> {
    line["contradictions"].as_array().unwrap().iter().map(|found| found["kind"].as_str().unwrap()).collect()
}

/// The first number in what `program --version` says.
fn major(program_name: &str) -> u32 {
    let output = program(program_name).arg("--version").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let digits: String = text.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{program_name}: {text}"))
}

/// A browser is heavy: one at a time.
static BROWSER: Mutex<()> = Mutex::new(());

#[test]
fn curl_wget_and_openssl() {
    let world = World::new();
    for http in ["--http1.1", "--http2"] {
        let line = world.line(&mut world.curl(&[http]));
        recognised(&line, "curl", "openssl", "curl", None);
        assert_eq!(line["confidence"], "corroborated", "{line}");
        // Who does not say what it is claims nothing.
        let silent = world.line(&mut world.curl(&[http, "--user-agent", ""]));
        recognised(&silent, "curl without a User-Agent", "openssl", "curl", None);
    }
    let mut wget = program("wget");
    wget.args(["--no-config", "--no-proxy", "--quiet", "--output-document=-", "--tries=1", "--timeout=20"]);
    let line = world.line(wget.arg(format!("--ca-certificate={}", world.ca())).arg(world.url()));
    recognised(&line, "wget", "gnutls", "wget", None);
}

#[test]
fn python_node_and_java() {
    let world = World::new();
    let url = world.url();
    let script = "import ssl, sys, urllib.request as r; \
         print(r.build_opener(r.ProxyHandler({}), r.HTTPSHandler(context=ssl.create_default_context(cafile=sys.argv[2]))).open(sys.argv[1]).read())";
    recognised(&world.line(program("python3").args(["-c", script, &url, &world.ca()])), "urllib", "openssl", "python", None);

    for (what, script) in [
        ("fetch", "fetch(process.argv[1]).then(r => r.text()).then(console.log)"),
        ("https", "require('https').get(process.argv[1], r => r.resume())"),
        (
            "http2",
            "const c = require('http2').connect(process.argv[1]), s = c.request({':path': '/'}); s.resume(); s.on('end', () => c.close()); s.end()",
        ),
    ] {
        let line = world.line(
            program("node")
                .args(["--dns-result-order=ipv4first", "-e", script, &url])
                .env("NODE_EXTRA_CA_CERTS", world.ca())
                .env_remove("NODE_OPTIONS"),
        );
        recognised(&line, what, "openssl", "node", None);
    }

    let source = world.lab.write("Visit.java", JAVA);
    for way in ["1", "2", "old"] {
        let line = world.line(program("java").arg(&source).args([&url, &world.ca(), way]).env_remove("JAVA_TOOL_OPTIONS"));
        recognised(&line, &format!("java {way}"), "java", "java", None);
    }
}

const JAVA: &str = r#"
import java.io.FileInputStream;
import java.net.*;
import java.net.http.*;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.*;

class Visit {
    public static void main(String[] args) throws Exception {
        KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
        trusted.load(null);
        trusted.setCertificateEntry("lab", CertificateFactory.getInstance("X.509").generateCertificate(new FileInputStream(args[1])));
        TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
        trust.init(trusted);
        SSLContext tls = SSLContext.getInstance("TLS");
        tls.init(null, trust.getTrustManagers(), null);
        if (args[2].equals("old")) {
            HttpsURLConnection connection = (HttpsURLConnection) new URL(args[0]).openConnection(Proxy.NO_PROXY);
            connection.setSSLSocketFactory(tls.getSocketFactory());
            System.out.println(connection.getResponseCode());
            return;
        }
        HttpClient client = HttpClient.newBuilder().sslContext(tls).proxy(HttpClient.Builder.NO_PROXY)
            .version(args[2].equals("1") ? HttpClient.Version.HTTP_1_1 : HttpClient.Version.HTTP_2).build();
        HttpRequest request = HttpRequest.newBuilder(URI.create(args[0])).build();
        System.out.println(client.send(request, HttpResponse.BodyHandlers.ofString()).statusCode());
    }
}
"#;

#[test]
fn chromium_headless() {
    let _alone = BROWSER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let world = World::new();
    let before = world.lab.decisions(0).len();
    chromium::open(&world.lab, &world.url(), &[]);
    let lines = world.lab.decisions(before + 1).split_off(before);
    for line in &lines {
        recognised(line, "chromium", "chromium", "chromium", Some(major("chromium")));
        assert_eq!(line["confidence"], "corroborated", "{line}");
    }
}

#[test]
fn firefox_with_usual_and_with_strict_settings() {
    let _alone = BROWSER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let world = World::new();
    let version = major("firefox-esr");
    let strict: &[(&str, &str)] = &[
        ("privacy.resistFingerprinting", "true"),
        ("privacy.trackingprotection.enabled", "true"),
        ("network.http.referer.XOriginPolicy", "2"),
        ("security.ssl.require_safe_negotiation", "true"),
        ("security.tls.version.min", "4"),
        ("dom.security.https_only_mode", "true"),
    ];
    for preferences in [&[][..], strict] {
        let before = world.lab.decisions(0).len();
        Firefox::start(preferences).open(&world.url());
        for line in world.lab.decisions(before + 1).split_off(before) {
            recognised(&line, "firefox", "firefox", "firefox", Some(version));
            assert_eq!(line["confidence"], "corroborated", "{line}");
        }
    }
}

/// Replicas of browsers that do not run here, and what they say with another's User-Agent.
#[test]
fn replicas_of_safari_on_ios_and_of_chrome_on_android() {
    let world = World::new();
    let python = venv::python(&["curl_cffi==0.16.3"]);
    let ask = |replica: &str, agent: Option<&str>| {
        let script = "import sys\nfrom curl_cffi import requests\n\
             a = {'headers': {'User-Agent': sys.argv[4]}} if len(sys.argv) > 4 else {}\n\
             print(requests.get(sys.argv[1], impersonate=sys.argv[2], verify=sys.argv[3], proxies={}, **a).text)";
        let mut command = Command::new(&python);
        command.args(["-c", script, &world.url(), replica, &world.ca()]).args(agent);
        for name in ["http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"] {
            command.env_remove(name);
        }
        world.line(&mut command)
    };
    for (replica, stack, family, os, version) in [
        ("safari172_ios", "apple", "safari", "ios", 17),
        ("safari180_ios", "apple", "safari", "ios", 18),
        ("safari184_ios", "apple", "safari", "ios", 18),
        ("safari260_ios", "apple", "safari", "ios", 26),
        ("chrome99_android", "chromium", "chrome", "android", 99),
        ("chrome131_android", "chromium", "chrome", "android", 131),
    ] {
        let line = ask(replica, None);
        let wire = &line["wire"];
        let has = |name: &str, word: &str| wire[name].as_array().is_some_and(|all| all.iter().any(|one| one == word));
        assert!(has("stack", stack) && has("browser", family), "{replica}: {wire}");
        let versions = wire["versions"].as_str().unwrap_or_else(|| panic!("{replica}: no versions: {wire}"));
        assert!(holds(versions, version), "{replica}: {version} is not in {versions}");
        assert_eq!(line["claims"]["os"], os, "{replica}");
        // The SYN is this machine's, which is weak: another may have sent it for the client.
        let strong: Vec<_> = line["contradictions"].as_array().unwrap().iter().filter(|found| found["strong"] == true).collect();
        assert_eq!(strong, Vec::<&Value>::new(), "{replica}: {line}");
    }
    for (replica, agent) in [
        ("safari184_ios", PIXEL),
        ("safari260_ios", WINDOWS_CHROME),
        ("safari260_ios", WINDOWS_FIREFOX),
        ("chrome131_android", IPHONE),
        ("chrome131_android", WINDOWS_FIREFOX),
        ("chrome131_android", "curl/8.5.0"),
    ] {
        let line = ask(replica, Some(agent));
        assert!(kinds(&line).contains(&"ua_browser_vs_tls"), "{replica} as {agent}: {line}");
        assert_eq!(line["confidence"], "contradicted", "{replica} as {agent}: {line}");
    }
}

const WINDOWS_CHROME: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36";
const WINDOWS_FIREFOX: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:150.0) Gecko/20100101 Firefox/150.0";
const MAC_SAFARI: &str =
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15";
const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Mobile/15E148 Safari/604.1";
const PIXEL: &str = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Mobile Safari/537.36";

#[test]
fn liars_are_caught() {
    let world = World::new();
    for http in ["--http1.1", "--http2"] {
        for agent in [WINDOWS_CHROME, WINDOWS_FIREFOX, MAC_SAFARI, IPHONE, PIXEL] {
            let line = world.line(&mut world.curl(&[http, "--user-agent", agent]));
            assert!(kinds(&line).contains(&"ua_browser_vs_tls"), "curl as {agent}: {line}");
            assert_eq!(line["confidence"], "contradicted", "{line}");
        }
    }
    let script = "import ssl, sys, urllib.request as r; \
         o = r.build_opener(r.ProxyHandler({}), r.HTTPSHandler(context=ssl.create_default_context(cafile=sys.argv[2]))); \
         o.addheaders = [('User-Agent', sys.argv[3])]; print(o.open(sys.argv[1]).read())";
    let line = world.line(program("python3").args(["-c", script, &world.url(), &world.ca(), MAC_SAFARI]));
    assert!(kinds(&line).contains(&"ua_browser_vs_tls"), "python as Safari: {line}");
    let found = line["contradictions"].as_array().unwrap().iter().find(|found| found["kind"] == "ua_browser_vs_tls").unwrap();
    let (claimed, seen) = (found["claimed"].as_str().unwrap(), found["seen"].as_str().unwrap());
    assert!(claimed.contains("safari") && seen.contains("python"), "both sides stand in the log: {found}");
}
