//! `vestibule fingerprint --listen`: one line for each client, whatever it does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends where its world breaks")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::{Value, json};
use support::{DEADLINE, Run, eventually, packets, program};

struct Listener {
    child: Child,
    addr: SocketAddr,
    lines: Receiver<String>,
    stderr: BufReader<ChildStderr>,
}

impl Listener {
    fn start(args: &[&str]) -> Self {
        Self::heard_by(args, |stdout, lines| {
            std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).all(|line| lines.send(line).is_ok()));
        })
    }

    fn heard_by(args: &[&str], listener: impl FnOnce(ChildStdout, Sender<String>)) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_vestibule"))
            .args(["fingerprint", "--listen"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, lines) = channel();
        listener(child.stdout.take().unwrap(), send);
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let addr = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).parse().unwrap();
        Self { child, addr, lines, stderr }
    }

    fn line(&self) -> Value {
        let line = self.lines.recv_timeout(DEADLINE).expect("a line in time");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no line of JSON: {line}"))
    }

    fn connect(&self) -> TcpStream {
        support::tcp(self.addr)
    }

    fn curl(&self, args: &[&str], scheme: &str) -> String {
        let mut command = program("curl");
        command.args(["--silent", "--insecure", "--noproxy", "*", "--max-time"]).arg(DEADLINE.as_secs().to_string()).args(args);
        let output = command.arg(format!("{scheme}://{}/", self.addr)).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn end(&mut self, signal: i32) -> ExitStatus {
        let pid = i32::try_from(self.child.id()).unwrap();
        // SAFETY: no memory is involved; the child is ours and not yet waited for, so that the id is still its own.
        #[allow(unsafe_code)]
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0);
        self.ended()
    }

    fn ended(&mut self) -> ExitStatus {
        eventually("it ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let mut said = String::new();
            let _ = self.stderr.read_to_string(&mut said);
            eprintln!("--- it wrote:\n{said}");
        }
    }
}

/// A recorded hello in TLS records, and its JA4.
fn hello(client: &str) -> (Vec<u8>, String) {
    let recordings = include_str!("fixtures/fingerprints/clients.jsonl");
    let mut rows = recordings.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let row = rows.find(|row| row["client"] == client).unwrap();
    let text = row["hello"].as_str().unwrap();
    let message: Vec<u8> =
        text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
    (packets::records(&message, 9999), row["ja4"].as_str().unwrap().to_owned())
}

#[test]
fn a_client_is_printed_at_its_hello_whether_or_not_it_goes_on() {
    let mut listener = Listener::start(&["127.0.0.1:0"]);
    let (bytes, ja4) = hello("curl_cffi-0.16.3/chrome146");
    let mut open = listener.connect();
    open.write_all(&bytes).unwrap();
    // The connection is open and nothing has followed.
    let line = listener.line();
    assert_eq!((&line["ja4"], &line["src"]), (&json!(ja4), &json!(open.local_addr().unwrap().to_string())));
    assert_eq!((&line["dst"], &line["transport"], &line["sni"]), (&json!(listener.addr.to_string()), &json!("tcp"), &json!("localhost")));
    assert_eq!((&line["h2"], &line["claims"], &line["contradictions"]), (&Value::Null, &Value::Null, &json!([])));
    assert!(line["syn"].as_str().unwrap().starts_with("4:64:"), "{line}");

    // In segments of one byte, and gone at once.
    let mut slow = listener.connect();
    for byte in &bytes {
        slow.write_all(&[*byte]).unwrap();
    }
    drop(slow);
    assert_eq!(listener.line()["ja4"], ja4);

    // Who goes on gets its line as an answer, with what it showed since; printed it is once.
    let body = listener.curl(&[], "https");
    let (printed, answered) = (listener.line(), serde_json::from_str::<Value>(&body).unwrap());
    assert_eq!((printed["ja4"].as_str(), &printed["h2"]), (answered["ja4"].as_str(), &Value::Null));
    assert_eq!(answered["claims"]["browser"], "curl");
    assert!(answered["h2"].as_str().unwrap().contains('|'), "{answered}");

    // The next is its own.
    listener.connect().write_all(&bytes).unwrap();
    assert_eq!(listener.line()["ja4"], ja4);
    assert_eq!(listener.end(libc::SIGINT).code(), Some(0));
}

#[test]
fn a_client_is_printed_at_its_first_request_or_when_it_leaves_without_one() {
    let mut listener = Listener::start(&["127.0.0.1:0", "--wait-request"]);
    for (args, scheme, h2, order) in [
        (&["--http2"][..], "https", true, "h2l"),
        (&["--http1.1"], "https", false, "h1t"),
        (&["--http2-prior-knowledge"], "http", true, "h2l"),
        (&["--http1.1"], "http", false, "h1t"),
        (&["--http2", "--tls-max", "1.2"], "https", true, "h2l"),
    ] {
        let answered = listener.curl(args, scheme);
        let line = listener.line();
        assert_eq!(serde_json::from_str::<Value>(&answered).unwrap(), line, "{args:?}");
        assert_eq!((line["ja4"].is_string(), line["h2"].is_string()), (scheme == "https", h2), "{args:?} {line}");
        assert!(line["header_order"].as_str().unwrap().starts_with(order), "{args:?} {line}");
        assert_eq!((&line["claims"]["browser"], &line["claims"]["form_factor"]), (&json!("curl"), &json!("tool")), "{args:?}");
        assert!(line["syn"].is_string(), "{args:?}");
    }
    // Two requests of one connection are one client.
    let url = format!("https://{}/again", listener.addr);
    listener.curl(&[&url], "https");
    assert_eq!(listener.line()["claims"]["browser"], "curl");

    let (bytes, ja4) = hello("gnutls-cli/3.7");
    let mut leaves = listener.connect();
    leaves.write_all(&bytes).unwrap();
    drop(leaves);
    let line = listener.line();
    assert_eq!((&line["ja4"], &line["claims"], &line["h2"]), (&json!(ja4), &Value::Null, &Value::Null));

    // Who is still there when it ends is told of as well.
    let mut stays = listener.connect();
    stays.write_all(&bytes).unwrap();
    // Answered: its hello has been read.
    stays.read_exact(&mut [0; 5]).unwrap();
    assert_eq!(listener.end(libc::SIGTERM).code(), Some(0));
    assert_eq!(listener.line()["ja4"], ja4);
}

#[test]
fn who_says_nothing_or_nonsense_holds_nobody_up_and_is_no_client() {
    let listener = Listener::start(&["127.0.0.1:0", "--wait-request"]);
    let idle: Vec<_> = (0..20).map(|_| listener.connect()).collect();
    drop(listener.connect());
    for nonsense in [&b"SSH-2.0-OpenSSH_9.2\r\n\r\n"[..], b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", b"\x80\x2e\x01\x03\x01", &[0; 100]] {
        let mut stream = listener.connect();
        stream.write_all(nonsense).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
    }
    let mut large = vec![22, 3, 1, 0x40, 0, 1, 0, 0x80, 0, 3, 3];
    large.resize(5 + 0x4000, 0);
    let _ = listener.connect().write_all(&large);
    listener.curl(&[], "https");
    assert_eq!(listener.line()["claims"]["browser"], "curl");
    drop(idle);
}

#[test]
fn both_families_of_addresses_and_signatures_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own.yaml");
    let (bytes, _) = hello("gnutls-cli/3.7");
    std::fs::write(&own, "rows:\n  - {name: ours, tls: {ja4: [\"t13*\"]}, stack: our-agent, os: [linux]}\n").unwrap();
    let listener = Listener::start(&["[::]:0", "--known", own.to_str().unwrap()]);
    for ip in ["127.0.0.1", "[::1]"] {
        let mut stream = support::tcp(format!("{ip}:{}", listener.addr.port()).parse().unwrap());
        stream.write_all(&bytes).unwrap();
        let line = listener.line();
        assert_eq!(line["src"], stream.local_addr().unwrap().to_string());
        assert_eq!((&line["stack"], &line["os"]), (&json!(["our-agent"]), &json!(["linux"])), "{line}");
    }

    std::fs::write(&own, "rows:\n  - {name: ours, tls: {ja5: \"t13*\"}}\n").unwrap();
    ran(&["--listen", "127.0.0.1:0", "--known", own.to_str().unwrap()]).failed_with(&["own.yaml:2:", "ja5"]);
    ran(&["--listen", "127.0.0.1:0", "--known", "/nowhere"]).failed_with(&["/nowhere: No such file"]);
}

#[test]
fn it_ends_when_nobody_reads() {
    let mut listener = Listener::heard_by(&["127.0.0.1:0"], |stdout, _| drop(stdout));
    let (bytes, _) = hello("gnutls-cli/3.7");
    listener.connect().write_all(&bytes).unwrap();
    assert_eq!(listener.ended().code(), Some(0));
}

fn ran(args: &[&str]) -> Run {
    Run::from(Command::new(env!("CARGO_BIN_EXE_vestibule")).arg("fingerprint").args(args).output().unwrap())
}

#[test]
fn what_cannot_be_listened_to_is_said() {
    ran(&["--listen", "nonsense"]).failed_with(&["--listen nonsense: expected an address with a port"]);
    ran(&["--listen", ":70000"]).failed_with(&["--listen :70000: expected"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    ran(&["--listen", &addr]).failed_with(&[&addr, "in use"]);
    for wrong in [&[][..], &["a.pcap", "--listen", ":0"], &["a.pcap", "--wait-request"]] {
        assert_eq!(ran(wrong).code, Some(2), "{wrong:?}");
    }
}
