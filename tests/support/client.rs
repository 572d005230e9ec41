//! Clients: curl, and raw bytes with and without TLS.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use vestibule::cli::lab_ca::Issued;

use super::{DEADLINE, Lab, Proxy, program};

/// A call of curl. Names in URLs need no port: every connection goes to the listener.
#[derive(Clone, Debug)]
pub struct Curl {
    args: Vec<String>,
}

/// What curl got.
#[derive(Clone, Debug)]
pub struct Answer {
    /// curl's exit code; not 0 when the answer was cut, refused or never came.
    pub exit: i32,
    /// 0: no answer.
    pub status: u16,
    /// `1.1`, `2`, ...
    pub version: String,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub stderr: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

impl Curl {
    /// To the listener `edge`, trusting the lab's edge CA.
    pub fn to(proxy: &Proxy, lab: &Lab) -> Self {
        Self::at(proxy.addr("edge")).arg("--cacert").arg(lab.ca.edge_ca().to_str().unwrap())
    }

    pub fn at(address: SocketAddr) -> Self {
        let connect = format!("::{}:{}", address.ip(), address.port());
        let time = DEADLINE.as_secs().to_string();
        let args = ["--silent", "--show-error", "--max-time", &time, "--noproxy", "*", "--connect-to", &connect];
        Self { args: args.iter().map(ToString::to_string).collect() }
    }

    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    #[must_use]
    pub fn header(self, line: &str) -> Self {
        self.arg("--header").arg(line)
    }

    #[must_use]
    pub fn device(self, issued: &Issued) -> Self {
        self.arg("--cert").arg(issued.cert.to_str().unwrap()).arg("--key").arg(issued.key.to_str().unwrap())
    }

    #[must_use]
    pub fn http1(self) -> Self {
        self.arg("--http1.1")
    }

    #[must_use]
    pub fn http2(self) -> Self {
        self.arg("--http2")
    }

    pub fn post(self, url: &str, body: &str) -> Answer {
        self.arg("--data-binary").arg(body).get(url)
    }

    pub fn get(self, url: &str) -> Answer {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| -> PathBuf { dir.path().join(name) };
        let output = program("curl")
            .args(&self.args)
            .arg("--dump-header")
            .arg(file("head"))
            .arg("--output")
            .arg(file("body"))
            .args(["--write-out", "%{http_code} %{http_version}", "--url", url])
            .output()
            .unwrap();
        let words = String::from_utf8(output.stdout).unwrap();
        let (status, version) = words.split_once(' ').unwrap_or_default();
        let head = String::from_utf8_lossy(&std::fs::read(file("head")).unwrap_or_default()).into_owned();
        // Interim answers (100) come first; the last head counts.
        let last = head.trim_end().rsplit("\r\n\r\n").next().unwrap_or_default();
        let headers = last.lines().skip(1).filter_map(|line| line.split_once(':'));
        Answer {
            exit: output.status.code().unwrap_or(-1),
            status: status.parse().unwrap_or(0),
            version: version.to_owned(),
            headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect(),
            body: String::from_utf8_lossy(&std::fs::read(file("body")).unwrap_or_default()).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Sends the bytes and reads until the other side closes, or panics at the deadline.
pub fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = tcp(address);
    // A listener that refuses the bytes may close before it has all of them; what it answered still counts.
    let _ = stream.write_all(bytes);
    read_all(&mut stream)
}

/// Blocking, with the deadline for each read and write.
pub fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn read_all(stream: &mut impl Read) -> Vec<u8> {
    let mut got = Vec::new();
    match stream.read_to_end(&mut got) {
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("the other side neither answered nor closed within {DEADLINE:?}; so far: {}", String::from_utf8_lossy(&got))
        }
        // A reset after the answer, or TLS without its close: what came is what there is.
        Ok(_) | Err(_) => got,
    }
}

/// The client's side of a handshake that has not begun, trusting the lab's edge CA.
pub fn tls_client(lab: &Lab, name: &str, alpn: &[&[u8]], device: Option<&Issued>) -> ClientConnection {
    let config = tls_config(lab, alpn, device);
    ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_owned()).unwrap()).unwrap()
}

/// For a client that trusts the lab's edge CA.
pub fn tls_config(lab: &Lab, alpn: &[&[u8]], device: Option<&Issued>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(lab.ca.edge_ca()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let mut config = match device {
        Some(issued) => config
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(&issued.cert).unwrap()],
                PrivateKeyDer::from_pem_file(&issued.key).unwrap(),
            )
            .unwrap(),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

/// One answer with `Content-Length`, head and body, off a connection that stays open.
pub fn read_answer(stream: &mut impl Read) -> String {
    let mut got = Vec::new();
    let mut part = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&got).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        match stream.read(&mut part) {
            Ok(n) if n > 0 => got.extend_from_slice(&part[..n]),
            end => panic!("no whole answer ({end:?}); so far: {text}"),
        }
    }
}

/// A TLS connection for exact bytes.
pub struct RawTls {
    pub stream: StreamOwned<ClientConnection, TcpStream>,
}

impl RawTls {
    /// HTTP/1.1 to the listener `edge`, asking for `name`.
    pub fn connect(proxy: &Proxy, lab: &Lab, name: &str, device: Option<&Issued>) -> Self {
        Self::with_alpn(proxy.addr("edge"), lab, (name, "http/1.1"), device)
    }

    /// `to` is a name and an ALPN protocol.
    pub fn with_alpn(address: SocketAddr, lab: &Lab, to: (&str, &str), device: Option<&Issued>) -> Self {
        let mut stream = StreamOwned::new(tls_client(lab, to.0, &[to.1.as_bytes()], device), tcp(address));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).expect("the TLS handshake succeeds");
        }
        Self { stream }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    /// Everything until the other side closes.
    pub fn read_all(&mut self) -> String {
        String::from_utf8_lossy(&read_all(&mut self.stream)).into_owned()
    }

    /// What comes next; empty when the other side closed.
    pub fn read_more(&mut self) -> Vec<u8> {
        let mut part = vec![0; 16 * 1024];
        match self.stream.read(&mut part) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => panic!("nothing came within {DEADLINE:?}"),
            Ok(n) => part.truncate(n),
            Err(_) => part.clear(),
        }
        part
    }

    /// One answer with `Content-Length`, head and body; the connection stays open.
    pub fn read_answer(&mut self) -> String {
        read_answer(&mut self.stream)
    }

    /// Sends a request and reads its answer.
    pub fn ask(&mut self, request: &str) -> String {
        self.send(request.as_bytes());
        self.read_answer()
    }

    /// Leaves at once, without a TLS close.
    pub fn reset(self) {
        drop(self.stream.sock);
    }
}
