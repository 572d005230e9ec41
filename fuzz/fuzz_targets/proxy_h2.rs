#![no_main]

mod lab;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use lab::Proxy;
use libfuzzer_sys::fuzz_target;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

static PROXY: LazyLock<Proxy> = LazyLock::new(Proxy::start);
static CONNECTION: Mutex<Option<Connection>> = Mutex::new(None);

// One request over HTTP/2 with fields and a body as no library would send them, through the whole proxy. The input is a list of `name:value`, parted by
// the byte 0x1e; behind an empty one comes the body, and what stands behind the next 0x1e are trailers.
fuzz_target!(|bytes: &[u8]| {
    let mut held = CONNECTION.lock().unwrap();
    let mut connection = held.take().unwrap_or_else(|| Connection::to(&PROXY));
    let answer = connection.ask(bytes);
    if !connection.over && connection.next < 1000 {
        *held = Some(connection);
    }
    PROXY.check(&answer);
});

struct Connection {
    tls: StreamOwned<ClientConnection, TcpStream>,
    got: Vec<u8>,
    next: u32,
    over: bool,
}

impl Connection {
    fn to(proxy: &Proxy) -> Self {
        static CONFIG: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(&PROXY.authority).unwrap()).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
            let mut config = config.with_root_certificates(roots).with_no_client_auth();
            config.alpn_protocols = vec![b"h2".to_vec()];
            Arc::new(config)
        });
        let session = ClientConnection::new(Arc::clone(&CONFIG), ServerName::try_from("wiki.localhost").unwrap()).unwrap();
        let stream = TcpStream::connect(proxy.edge).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut connection = Self { tls: StreamOwned::new(session, stream), got: Vec::new(), next: 1, over: false };
        connection.write(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, b"")[..]].concat());
        connection
    }

    fn write(&mut self, bytes: &[u8]) {
        self.over |= self.tls.write_all(bytes).and_then(|()| self.tls.flush()).is_err();
    }

    /// The body of the answer.
    fn ask(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut parts = bytes.split(|byte| *byte == 0x1e);
        let head: Vec<&[u8]> = parts.by_ref().take_while(|part| !part.is_empty()).collect();
        let body = parts.next().unwrap_or_default();
        let trailers: Vec<&[u8]> = parts.collect();
        let stream = self.next;
        self.next += 2;
        let mut out = frame(HEADERS, END_HEADERS, stream, &block(&head));
        let last = if trailers.is_empty() { END_STREAM } else { 0 };
        out.extend(frame(DATA, last, stream, body));
        if !trailers.is_empty() {
            out.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&trailers)));
        }
        self.write(&out);
        let mut answer = Vec::new();
        while let Some((kind, flags, of, payload)) = self.read() {
            match kind {
                SETTINGS if flags & 1 == 0 => self.write(&frame(SETTINGS, 1, 0, b"")),
                GOAWAY => self.over = true,
                DATA if of == stream => answer.extend(payload),
                _ => {}
            }
            if of == stream && (kind == RST_STREAM || matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0) {
                return answer;
            }
        }
        self.over = true;
        answer
    }

    fn read(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        loop {
            if let [a, b, c, kind, flags, id @ ..] = &self.got[..]
                && let Some(id) = id.first_chunk::<4>()
            {
                let size = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
                let head = (*kind, *flags, u32::from_be_bytes(*id));
                if self.got.len() >= 9 + size {
                    let payload = self.got.drain(..9 + size).skip(9).collect();
                    return Some((head.0, head.1, head.2, payload));
                }
            }
            let mut part = [0; 16 * 1024];
            match self.tls.read(&mut part) {
                Ok(0) => return None,
                Ok(n) => self.got.extend_from_slice(&part[..n]),
                Err(error) => {
                    assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "neither answered nor closed");
                    return None;
                }
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(16 << 10)];
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&size[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Literals without an index. A name may begin with a colon.
fn block(fields: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in fields {
        let end = field.iter().skip(1).position(|byte| *byte == b':').map_or(field.len(), |at| at + 1);
        let (name, value) = field.split_at(end);
        out.push(0);
        text(name, &mut out);
        text(value.get(1..).unwrap_or_default(), &mut out);
    }
    out
}

fn text(bytes: &[u8], out: &mut Vec<u8>) {
    let mut length = bytes.len();
    if length < 127 {
        out.push(length as u8);
    } else {
        out.push(127);
        length -= 127;
        while length >= 128 {
            out.push((length & 0x7f | 0x80) as u8);
            length >>= 7;
        }
        out.push(length as u8);
    }
    out.extend(bytes);
}
