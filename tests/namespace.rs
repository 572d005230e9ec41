//! Systems that are not here: their SYNs, written to a TUN device in a network namespace, and a real proxy that they come to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

mod support;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::json;
use support::packets::{ANDROID, APPLE, LINUX, System, WINDOWS};
use support::tun::{HOST4, HOST6, Tun, inside};
use support::{Config, DEADLINE, Lab, Origin, Reply};

const WINDOWS_CHROME: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36";
const MAC_SAFARI: &str =
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15";
const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Mobile/15E148 Safari/604.1";
const PIXEL: &str = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Mobile Safari/537.36";
const LINUX_FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0";

/// A client that never completes its handshake: the hello and the SYN of Chrome on Windows.
#[test]
fn a_port_tells_hello_and_syn_of_who_goes_no_further() {
    inside("a_port_tells_hello_and_syn_of_who_goes_no_further", || {
        let mut tun = Tun::new();
        let mut child = Command::new(env!("CARGO_BIN_EXE_vestibule"))
            .args(["fingerprint", "--listen", &format!("[{HOST6}]:0")])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
        let host: SocketAddr = said.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{said}")).parse().unwrap();
        let recordings = include_str!("fixtures/fingerprints/clients.jsonl");
        let mut rows = recordings.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let hello = rows.find(|row| row["client"] == "curl_cffi-0.16.3/chrome146").unwrap()["hello"].as_str().unwrap().to_owned();
        let message: Vec<u8> = (0..hello.len() / 2).map(|at| u8::from_str_radix(&hello[2 * at..2 * at + 2], 16).unwrap()).collect();
        let from = SocketAddr::new("fd09::77".parse().unwrap(), 40_001);
        tun.connect(from, host, WINDOWS).send(&support::packets::records(&message, 9999));
        let (send, lines) = std::sync::mpsc::channel();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        std::thread::spawn(move || stdout.all(|line| send.send(line).is_ok()));
        let line: serde_json::Value = serde_json::from_str(&lines.recv_timeout(DEADLINE).expect("a line in time")).unwrap();
        assert_eq!((&line["src"], &line["dst"]), (&json!(from.to_string()), &json!(host.to_string())));
        assert_eq!((&line["os"], &line["stack"]), (&json!(["windows"]), &json!(["chromium"])), "{line}");
        assert_eq!(line["syn"], "6:128:mss*44:8:mss1460,nop,ws,nop,nop,sok:-");
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn the_syn_of_every_system_is_recognised_over_ipv4_and_ipv6() {
    inside("the_syn_of_every_system_is_recognised_over_ipv4_and_ipv6", || {
        let mut tun = Tun::new();
        let origin = Origin::answering(Reply::text("hello"));
        let lab = Lab::new();
        let bind = format!("\n  - name: plain\n    bind: [\"{HOST4}:0\", \"[{HOST6}]:0\"]");
        let proxy =
            lab.start(&Config::new(&origin).set("listeners", &bind).set("networks", "{here: {ranges: [\"10.9.1.0/24\"], syn: direct}}"));
        let hosts: [SocketAddr; 2] = proxy.addrs("plain").try_into().unwrap();
        let cases: [(&str, System, &str, &[&str]); 5] = [
            ("windows", WINDOWS, WINDOWS_CHROME, &["windows"]),
            ("macos", APPLE, MAC_SAFARI, &["macos", "ios"]),
            ("ios", APPLE, IPHONE, &["macos", "ios"]),
            ("android", ANDROID, PIXEL, &["android", "linux", "chromeos"]),
            ("linux", LINUX, LINUX_FIREFOX, &["android", "linux", "chromeos"]),
        ];
        let mut asked = 0;
        let mut port = 40_000;
        for (name, system, agent, os) in cases {
            for (host, from) in hosts.iter().zip(["10.9.0.77", "fd09::77"]) {
                port += 1;
                asked += 1;
                let mut peer = tun.connect(SocketAddr::new(from.parse().unwrap(), port), *host, system);
                peer.send(format!("GET / HTTP/1.1\r\nHost: wiki.localhost\r\nUser-Agent: {agent}\r\nConnection: close\r\n\r\n").as_bytes());
                assert!(peer.read_all().starts_with(b"HTTP/1.1 403 "), "{name}");
                let line = &lab.decisions(asked)[asked - 1];
                let mut seen: Vec<_> = line["wire"]["os"].as_array().unwrap().iter().map(|os| os.as_str().unwrap()).collect();
                seen.retain(|seen| !os.contains(seen));
                assert!(seen.is_empty() && !line["wire"]["os"].as_array().unwrap().is_empty(), "{name} {host}: {}", line["wire"]);
                assert_eq!((line["confidence"].as_str(), &line["contradictions"]), (Some("corroborated"), &json!([])), "{name}");
            }
        }
        // Who lies of his system: weakly, unless nothing on the way can have sent the SYN for him.
        for (from, strong, confidence) in [("10.9.0.78", false, "claimed"), ("10.9.1.78", true, "contradicted")] {
            asked += 1;
            let mut peer = tun.connect(SocketAddr::new(from.parse().unwrap(), 50_000), hosts[0], LINUX);
            peer.send(
                format!("GET / HTTP/1.1\r\nHost: wiki.localhost\r\nUser-Agent: {WINDOWS_CHROME}\r\nConnection: close\r\n\r\n").as_bytes(),
            );
            peer.read_all();
            let line = &lab.decisions(asked)[asked - 1];
            assert_eq!(line["confidence"], confidence, "{line}");
            let [found] = &line["contradictions"].as_array().unwrap()[..] else { panic!("{line}") };
            assert_eq!((found["kind"].as_str(), found["strong"].as_bool()), (Some("ua_os_vs_syn"), Some(strong)), "{line}");
        }
    });
}
