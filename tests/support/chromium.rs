//! Chromium, headless.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Instant;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::{DEADLINE, Lab, program};

/// What Chromium made of a page.
pub struct Seen {
    pub dom: String,
    /// One entry a line that a page, or the browser about it, wrote to the console.
    pub console: Vec<String>,
}

/// Ends the whole browser, also when a test fails.
pub(super) struct Group(pub(super) Child);

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: no memory is involved; the group is the child's own and the child is not waited for before, so that the id is still its own.
        #[allow(unsafe_code)]
        let _ = unsafe { libc::kill(-i32::try_from(self.0.id()).unwrap(), libc::SIGKILL) };
        let _ = self.0.wait();
    }
}

/// Opens a page in a browser that has never been used and trusts the lab's edge, and nothing else, beside the system's own CAs.
pub fn open(lab: &Lab, url: &str, args: &[&str]) -> Seen {
    let profile = tempfile::tempdir().unwrap();
    let (out, err) = (profile.path().join("out"), profile.path().join("err"));
    let mut command = program("chromium");
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-proxy-server"])
        .args(["--enable-logging=stderr", "--timeout=15000"])
        .arg(format!("--user-data-dir={}", profile.path().join("profile").display()))
        .arg(format!("--ignore-certificate-errors-spki-list={}", edge_key(lab)))
        .args(args)
        .args(["--dump-dom", url])
        .env("HOME", profile.path())
        .stdin(Stdio::null())
        .stdout(fs::File::create(&out).unwrap())
        .stderr(fs::File::create(&err).unwrap());
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut browser = Group(command.spawn().unwrap());
    let end = Instant::now() + DEADLINE * 3;
    while browser.0.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "the browser does not end: {}", fs::read_to_string(&err).unwrap());
        std::thread::sleep(std::time::Duration::from_millis(20)); // between two looks, not instead of one
    }
    let log = fs::read_to_string(&err).unwrap();
    Seen {
        dom: fs::read_to_string(&out).unwrap(),
        console: log.lines().filter(|line| line.contains("CONSOLE")).map(ToOwned::to_owned).collect(),
    }
}

/// Of the edge's certificate, as Chromium wants it.
pub(super) fn edge_key(lab: &Lab) -> String {
    let certificate = CertificateDer::from_pem_file(lab.path("certs/edge.pem")).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, parsed.tbs_certificate.subject_pki.raw);
    base64(digest.as_ref())
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.chunks(3).map(|chunk| {
        let group = (0..3).fold(0, |group, i| group << 8 | u32::from(chunk.get(i).copied().unwrap_or(0)));
        (0..=3)
            .map(|i| if i <= chunk.len() { char::from(ALPHABET[(group >> (18 - 6 * i) & 63) as usize]) } else { '=' })
            .collect::<String>()
    });
    groups.collect()
}
