//! Scanners and load tools of others, against a running proxy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends where its world breaks")]

mod support;

use std::process::{Command, Output};

use support::{Config, Lab, Origin, Proxy, Reply, eventually, program, venv};

struct World {
    lab: Lab,
    proxy: Proxy,
    _origin: Origin,
}

impl World {
    fn new(limits: &str) -> Self {
        let origin = Origin::answering(Reply::status("200 OK", "Accept-Ranges: bytes\r\n", &"good ".repeat(200_000)));
        let lab = Lab::new();
        let apps = format!(
            "\n  - name: all\n    owner: knowledge\n    hosts: [localhost, 127.0.0.1]\n    upstream: {{servers: [\"{}\"]}}\n    rules: [{{name: all, then: forward}}]",
            origin.url()
        );
        let proxy = lab.start(&Config::new(&origin).set("limits", limits).set("apps", &apps));
        Self { lab, proxy, _origin: origin }
    }

    fn port(&self) -> u16 {
        self.proxy.addr("edge").port()
    }

    fn alive(&mut self) {
        assert!(self.proxy.is_running(), "{}", self.proxy.stderr());
        assert_eq!(self.proxy.metrics().sum("vestibule_panics_total", &[]), 0.0, "{}", self.proxy.stderr());
    }
}

fn ran(command: &mut Command) -> (Output, String) {
    let output = command.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, said)
}

/// Nothing of MEDIUM or worse, but for what a test's certificate lacks. `--fast` leaves out that each cipher is tried by itself, which sslyze does.
#[test]
fn testssl_finds_nothing() {
    let mut world = World::new("{}");
    let file = world.lab.path("testssl.json");
    let (_, said) = ran(program("testssl")
        .args(["--quiet", "--color", "0", "--nodns", "none", "--warnings", "off", "--fast", "--ip", "127.0.0.1", "--add-ca"])
        .arg(world.lab.ca.edge_ca())
        .arg("--jsonfile")
        .arg(&file)
        .arg(format!("https://localhost:{}/", world.port())));
    let found: Vec<serde_json::Value> =
        serde_json::from_str(&std::fs::read_to_string(&file).unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {said}"));
    let text = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let bad: Vec<String> = found
        .iter()
        .filter(|finding| ["MEDIUM", "HIGH", "CRITICAL", "FATAL"].contains(&text(finding, "severity").as_str()))
        // The lab's CA publishes no revocation and is in no store, and the app sets no header of its own.
        .filter(|finding| !["cert_revocation", "cert_chain_of_trust", "security_headers"].contains(&text(finding, "id").as_str()))
        .map(|finding| format!("{}: {} {}", text(finding, "severity"), text(finding, "id"), text(finding, "finding")))
        .collect();
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    // It looked: a run that breaks off early finds nothing either.
    for (id, severity) in
        [("heartbleed", "OK"), ("ROBOT", "OK"), ("secure_client_renego", "OK"), ("TLS1_3", "OK"), ("SSLv3", "OK"), ("BREACH", "OK")]
    {
        assert!(found.iter().any(|finding| text(finding, "id") == id && text(finding, "severity") == severity), "{id}: {said}");
    }
    world.alive();
}

#[test]
fn sslyze_agrees_that_it_is_intermediate() {
    let mut world = World::new("{}");
    let sslyze = venv::python(&["sslyze==6.3.1"]).with_file_name("sslyze");
    let (output, said) = ran(Command::new(sslyze)
        .args(["--mozilla_config", "intermediate", "--certinfo_ca_file"])
        .arg(world.lab.ca.edge_ca())
        .arg(format!("localhost:{}", world.port())));
    assert!(output.status.success() && said.contains("OK - Compliant"), "{said}");
    world.alive();
}

/// Each attack against limits short enough to wait for: the service stays available, and at the end nothing of the attack is left open.
#[test]
fn slowhttptest_takes_nothing_away() {
    let mut world = World::new("{handshake: 2s, request_head: 2s, idle: 2s, body_rate: 10KiB/s}");
    let url = format!("https://localhost:{}/", world.port());
    let attacks: [(&str, &[&str], &[&str]); 4] = [
        ("headers", &["-H", "-i", "1", "-x", "20"], &["slow_head"][..]),
        ("body", &["-B", "-i", "1", "-s", "8192", "-x", "10"], &[]),
        // Where the window is too small even for the certificate, the handshake takes too long.
        ("read", &["-X", "-w", "10", "-y", "20", "-n", "1", "-z", "5", "-k", "3"], &["slow_read", "handshake_timeout"]),
        ("range", &["-R", "-a", "5", "-b", "2000"], &[]),
    ];
    for (name, arguments, reasons) in attacks {
        let (_, said) = ran(program("slowhttptest").args(["-c", "100", "-r", "100", "-l", "12", "-p", "5", "-u", &url]).args(arguments));
        assert!(said.contains("YES") && !said.contains("service available:   NO"), "{name}: {said}");
        // It may not know yet that it was cut, for it reads no end; the proxy does.
        eventually(&format!("{name}: no connection is left"), || {
            (world.proxy.metrics().sum("vestibule_connections", &[]) == 0.0).then_some(())
        });
        let metrics = world.proxy.metrics();
        let counted: f64 = reasons.iter().map(|reason| metrics.sum("vestibule_rejected_total", &[("reason", reason)])).sum();
        assert!(reasons.is_empty() || counted >= 50.0, "{name}: {counted}, {said}");
    }
    world.proxy.metric_reaches("vestibule_requests_total", &[("status", "400")], 50.0);
    world.alive();
}

#[test]
fn h2load_gets_every_answer() {
    let mut world = World::new("{}");
    let url = format!("https://localhost:{}/", world.port());
    for protocol in [&["-m", "20"][..], &["--h1"]] {
        let (output, said) = ran(program("h2load").args(["-n", "400", "-c", "8", "-t", "1"]).args(protocol).arg(&url));
        assert!(output.status.success() && said.contains("400 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
        assert!(said.contains("status codes: 400 2xx, 0 3xx, 0 4xx, 0 5xx"), "{said}");
    }
    world.alive();
}

/// nghttp speaks all of RFC 9113: padding, priorities, an upload, a window of its own, continued heads.
#[test]
fn nghttp_gets_every_answer() {
    let mut world = World::new("{}");
    let url = format!("https://localhost:{}/", world.port());
    let upload = world.lab.write("upload", &"up ".repeat(100_000));
    let upload = upload.to_str().unwrap();
    for arguments in [&["-b", "64"][..], &["-d", upload], &["-w", "10", "-W", "12"], &["--continuation"], &["-m", "30"], &["--no-dep"]] {
        let (output, said) = ran(program("nghttp").args(["-v", "-n", "-y"]).args(arguments).arg(&url));
        assert!(output.status.success() && said.contains(":status: 200") && !said.contains("RST_STREAM"), "{arguments:?}: {said}");
        assert!(said.contains("END_STREAM"), "{arguments:?}: {said}");
    }
    world.alive();
}
