//! Chromium, headless, driven step by step: the DevTools protocol over a pipe.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use serde_json::{Value, json};

use super::chromium::{Group, edge_key};
use super::{DEADLINE, Lab, eventually, program};

/// One browser with one tab, that has never been used and trusts the lab's edge.
pub struct Browser {
    _group: Group,
    profile: tempfile::TempDir,
    to: File,
    from: Receiver<Value>,
    /// What came while something else was waited for.
    events: VecDeque<Value>,
    next: u64,
    session: String,
}

impl Browser {
    /// `size`: of the window, or of a phone's screen.
    pub fn start(lab: &Lab, size: (u32, u32)) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let (to, from) = (profile.path().join("to"), profile.path().join("from"));
        for pipe in [&to, &from] {
            assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
        }
        std::fs::create_dir(profile.path().join("downloads")).unwrap();
        let _ = program("chromium");
        // Only a shell gives a program its third and fourth file.
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"exec chromium "$@" 3<"$TO" 4>"$FROM""#, "sh", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"])
            .args(["--hide-scrollbars", "--no-proxy-server", "--remote-debugging-pipe", "about:blank"])
            .arg(format!("--window-size={},{}", size.0, size.1))
            .arg(format!("--user-data-dir={}", profile.path().join("profile").display()))
            .arg(format!("--ignore-certificate-errors-spki-list={}", edge_key(lab)))
            .env("TO", &to)
            .env("FROM", &from)
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(profile.path().join("err")).unwrap());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let group = Group(command.spawn().unwrap());
        // Each opening waits for the other side's.
        let to = OpenOptions::new().write(true).open(to).unwrap();
        let read = File::open(from).unwrap();
        let (send, from) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(read).split(0).map_while(Result::ok) {
                if send.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self { _group: group, profile, to, from, events: VecDeque::new(), next: 0, session: String::new() };
        let targets = eventually("the browser has a tab", || {
            let targets = browser.call("Target.getTargets", json!({}))["targetInfos"].as_array().cloned().unwrap();
            targets.iter().find(|target| target["type"] == "page").cloned()
        });
        let attached = browser.call("Target.attachToTarget", json!({"targetId": targets["targetId"], "flatten": true}));
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        // A window is never narrower than a desk's; a phone's screen is.
        let screen = json!({"width": size.0, "height": size.1, "deviceScaleFactor": 1, "mobile": size.0 < 600});
        browser.call("Emulation.setDeviceMetricsOverride", screen);
        let folder = browser.downloads();
        let behaviour = json!({"behavior": "allow", "downloadPath": folder, "eventsEnabled": true});
        browser.call("Browser.setDownloadBehavior", behaviour);
        browser
    }

    /// Where the browser saves files.
    pub fn downloads(&self) -> PathBuf {
        self.profile.path().join("downloads")
    }

    /// A command's result; panics when the browser refuses it.
    #[track_caller]
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        let mut message = json!({"id": id, "method": method, "params": params});
        if !self.session.is_empty() && !method.starts_with("Browser.") && !method.starts_with("Target.") {
            message["sessionId"] = self.session.as_str().into();
        }
        self.to.write_all(message.to_string().as_bytes()).and_then(|()| self.to.write_all(b"\0")).unwrap();
        let end = Instant::now() + DEADLINE * 2;
        loop {
            let message = self.receive(end, method);
            if message["id"] == id {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push_back(message);
        }
    }

    /// The first event of that name, old or to come, that fits. Those before it are forgotten.
    #[track_caller]
    pub fn event(&mut self, method: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + DEADLINE * 2;
        loop {
            let event = self.events.pop_front().unwrap_or_else(|| self.receive(end, method));
            if event["method"] == method && fits(&event["params"]) {
                return event["params"].clone();
            }
        }
    }

    /// Whether such an event has come so far.
    pub fn has(&mut self, method: &str) -> bool {
        self.call("Runtime.evaluate", json!({"expression": "0"})); // what came before is here now
        self.events.iter().any(|event| event["method"] == method)
    }

    fn receive(&self, end: Instant, what: &str) -> Value {
        let left = end.saturating_duration_since(Instant::now());
        let stderr = || std::fs::read_to_string(self.profile.path().join("err")).unwrap_or_default();
        self.from.recv_timeout(left).unwrap_or_else(|e| panic!("{what}: {e}; the browser wrote: {}", stderr()))
    }

    /// Opens a page and waits until it is loaded.
    #[track_caller]
    pub fn open(&mut self, url: &str) {
        self.events.clear();
        let opened = self.call("Page.navigate", json!({"url": url}));
        assert!(opened.get("errorText").is_none(), "{url}: {opened}");
        self.loaded();
    }

    #[track_caller]
    pub fn loaded(&mut self) {
        self.event("Page.loadEventFired", |_| true);
    }

    /// The value of an expression, a promise's when it is settled.
    #[track_caller]
    pub fn eval(&mut self, expression: &str) -> Value {
        let result = self.call("Runtime.evaluate", json!({"expression": expression, "returnByValue": true, "awaitPromise": true}));
        assert!(result.get("exceptionDetails").is_none(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    pub fn text(&mut self) -> String {
        self.eval("document.body.innerText").as_str().unwrap().to_owned()
    }

    /// A real click, by the mouse, in the middle of what the selector finds.
    #[track_caller]
    pub fn click(&mut self, selector: &str) {
        let at = self.eval(&format!(
            "(() => {{ const e = document.querySelector('{selector}'); e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            self.call("Input.dispatchMouseEvent", json!({"type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1}));
        }
    }

    /// The window as it looks, as a PNG in `target/pages`, to look at.
    pub fn picture(&mut self, name: &str) {
        let shot = self.call("Page.captureScreenshot", json!({"captureBeyondViewport": true}));
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/pages");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), bytes(shot["data"].as_str().unwrap())).unwrap();
    }
}

/// From Base64.
fn bytes(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut out = Vec::new();
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = group.iter().fold(0u32, |bits, c| bits << 6 | u32::from(value(*c))) << (6 * (4 - group.len()));
        out.extend(bits.to_be_bytes()[1..group.len()].iter());
    }
    out
}
