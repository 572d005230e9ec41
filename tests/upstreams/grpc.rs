//! gRPC through the proxy, with grpcio as client and as app.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::config;
use super::support::{Lab, venv};

const GRPCIO: &str = "grpcio==1.76.0";

struct App(Child);

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upstreams").join(name)
}

/// Runs until its standard input ends; the ports that it listens on.
fn start(lab: &Lab) -> (App, Vec<u16>) {
    let mut app = Command::new(venv::python(&[GRPCIO]))
        .arg(script("grpc_app.py"))
        .args([lab.path("certs/edge.pem"), lab.path("certs/edge.key")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(app.stdout.take().unwrap()).lines().map_while(Result::ok);
    let ports = lines.filter_map(|line| line.strip_prefix("port ")?.parse().ok()).take(4).collect();
    (App(app), ports)
}

#[test]
fn every_kind_of_call_passes_with_all_that_belongs_to_it() {
    let lab = Lab::new();
    let (_app, ports) = start(&lab);
    let [plain, tls, aging, few] = ports[..] else { panic!("the app has no ports: {ports:?}") };
    // The app takes its time for a hundred calls at once, on a machine that has other work.
    let patient = "timeouts: {connect: 20s}";
    let h2c = |port: u16| format!("{{servers: [\"http://127.0.0.1:{port}\"], protocol: h2c, {patient}}}");
    let config = config(&[
        ("plain", h2c(plain)),
        ("tls", format!("{{servers: [\"https://127.0.0.1:{tls}\"], protocol: h2, tls: {{ca: [certs/edge-ca.pem]}}}}")),
        ("aging", h2c(aging)),
        ("few", h2c(few)),
        ("down", "{servers: [\"unix:nobody.sock\"], protocol: h2c}".to_owned()),
        ("blocked", h2c(plain)),
    ]);
    let apps = config.get("apps");
    let (before, blocked) = apps.split_at(apps.find("{name: blocked").unwrap());
    let apps = format!("{before}{}", blocked.replace("then: forward", "then: block"));
    let proxy = lab.start(&config.set("apps", &apps).set("limits", "{h2_streams: 200}"));
    let output = Command::new(venv::python(&[GRPCIO]))
        .arg(script("grpc_client.py"))
        .arg(proxy.addr("edge").to_string())
        .arg(lab.ca.edge_ca())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    for app in ["plain", "tls"] {
        for case in ["kinds", "statuses", "deadlines", "cancels", "large", "many"] {
            assert!(said.contains(&format!("ok {case} {app}\n")), "{case} {app}: {said}");
        }
    }
    for case in ["many few", "restarts aging", "refused"] {
        assert!(said.contains(&format!("ok {case}\n")), "{case}: {said}");
    }
}
