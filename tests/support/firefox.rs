//! Firefox, headless, driven by its own remote protocol (Marionette): no driver program is needed.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use super::{DEADLINE, eventually, program};

/// A browser that has never been used and takes any certificate.
pub struct Firefox {
    child: Child,
    stream: TcpStream,
    asked: u64,
    profile: tempfile::TempDir,
}

impl Firefox {
    /// With these preferences: name and value as `user.js` writes it.
    pub fn start(preferences: &[(&str, &str)]) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let quiet = [
            ("marionette.port", "0"),
            ("datareporting.policy.dataSubmissionEnabled", "false"),
            ("app.normandy.enabled", "false"),
            ("browser.safebrowsing.malware.enabled", "false"),
            ("browser.safebrowsing.phishing.enabled", "false"),
            ("network.captive-portal-service.enabled", "false"),
            ("network.connectivity-service.enabled", "false"),
            ("network.proxy.type", "0"),
        ];
        let lines = quiet.iter().chain(preferences).map(|(name, value)| format!("user_pref(\"{name}\", {value});\n"));
        std::fs::write(profile.path().join("user.js"), lines.collect::<String>()).unwrap();
        let log = profile.path().join("log");
        let mut command = program("firefox-esr");
        command
            .args(["--headless", "--marionette", "--no-remote", "--profile"])
            .arg(profile.path())
            .env("HOME", profile.path())
            .env("MOZ_CRASHREPORTER_DISABLE", "1")
            .stdin(Stdio::null())
            .stdout(File::create(&log).unwrap())
            .stderr(File::create(&log).unwrap());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().unwrap();
        let port_file = profile.path().join("MarionetteActivePort");
        let mut try_connect = || {
            assert!(child.try_wait().unwrap().is_none(), "firefox ended: {}", std::fs::read_to_string(&log).unwrap());
            let port: u16 = std::fs::read_to_string(&port_file).ok()?.trim().parse().ok()?;
            TcpStream::connect(("127.0.0.1", port)).ok()
        };
        let stream = eventually("firefox listens", &mut try_connect);
        stream.set_read_timeout(Some(DEADLINE * 3)).unwrap();
        let mut firefox = Self { child, stream, asked: 0, profile };
        let hello = firefox.message();
        assert_eq!(hello["marionetteProtocol"], 3, "{hello}");
        firefox.command("WebDriver:NewSession", &json!({"acceptInsecureCerts": true}));
        firefox
    }

    /// Returns when the page has loaded.
    pub fn open(&mut self, url: &str) {
        self.command("WebDriver:Navigate", &json!({"url": url}));
    }

    fn command(&mut self, name: &str, parameters: &Value) -> Value {
        self.asked += 1;
        let text = json!([0, self.asked, name, parameters]).to_string();
        write!(self.stream, "{}:{text}", text.len()).unwrap();
        let answer = self.message();
        assert_eq!((&answer[1], &answer[2]), (&json!(self.asked), &Value::Null), "{name}: {answer}");
        answer[3].clone()
    }

    /// Length, colon, JSON.
    fn message(&mut self) -> Value {
        let mut length = 0;
        loop {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap_or_else(|e| panic!("{e}: {}", self.log()));
            match byte[0] {
                b':' => break,
                digit => length = length * 10 + usize::from(digit - b'0'),
            }
        }
        let mut text = vec![0; length];
        self.stream.read_exact(&mut text).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.profile.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Firefox {
    fn drop(&mut self) {
        // SAFETY: no memory is involved; the group is the child's own and the child is not waited for before, so that the id is still its own.
        #[allow(unsafe_code)]
        let _ = unsafe { libc::kill(-i32::try_from(self.child.id()).unwrap(), libc::SIGKILL) };
        let _ = self.child.wait();
    }
}
