//! An app that records the exact bytes it receives and answers as told.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::eventually;

/// What the app does with one request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// These bytes; then it waits for the next request.
    Bytes(Vec<u8>),
    /// These bytes, none for nothing at all; then it closes.
    Close(Vec<u8>),
    /// These bytes; then it resets the connection.
    Reset(Vec<u8>),
    /// These bytes; then it reads on and answers nothing more until the client leaves.
    Hang(Vec<u8>),
}

impl Reply {
    pub fn text(body: &str) -> Self {
        Self::status("200 OK", "", body)
    }

    /// `headers` are whole lines, each with its line break.
    pub fn status(status: &str, headers: &str, body: &str) -> Self {
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
        Self::Bytes([head.as_bytes(), body.as_bytes()].concat())
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) | Self::Close(bytes) | Self::Reset(bytes) | Self::Hang(bytes) => bytes,
        }
    }
}

/// One request as it came: head with its empty line, body with its framing.
#[derive(Clone, Debug)]
pub struct Received {
    /// Which connection of the app, from 0.
    pub connection: usize,
    pub head: Vec<u8>,
    pub body: Vec<u8>,
}

impl Received {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.head).into_owned()
    }

    /// The first line.
    pub fn line(&self) -> String {
        self.text().lines().next().unwrap_or_default().to_owned()
    }

    /// Every value of a header, in order, whatever its case.
    pub fn header(&self, name: &str) -> Vec<String> {
        let fields = self.text();
        let fields = fields.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).collect()
    }

    /// Every field's name, in order, in lower case.
    pub fn header_names(&self) -> Vec<String> {
        self.text().split("\r\n").skip(1).filter_map(|line| Some(line.split_once(':')?.0.to_ascii_lowercase())).collect()
    }
}

/// A connection as the app serves it: plain, or what a test made of it.
pub trait Wire: Read + Write + Send {
    fn close(&mut self);

    /// So that its end is a reset.
    fn reset(&mut self) {
        self.close();
    }
}

impl Wire for TcpStream {
    fn close(&mut self) {
        let _ = self.shutdown(Shutdown::Both);
    }

    fn reset(&mut self) {
        socket2::SockRef::from(&*self).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

type Script = dyn Fn(&Received) -> Reply + Send + Sync;

/// Listens on a free loopback port until the test ends.
pub struct Origin {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    connections: Arc<AtomicUsize>,
}

impl Origin {
    /// The same answer to everything.
    pub fn answering(reply: Reply) -> Self {
        Self::start(move |_| reply.clone())
    }

    pub fn start(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::through(|stream| Some(Box::new(stream)), script)
    }

    /// Serves what `wrap` makes of each connection, such as one with TLS; nothing where it makes nothing.
    pub fn through(
        wrap: impl Fn(TcpStream) -> Option<Box<dyn Wire>> + Send + Sync + 'static,
        script: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // The library's 128 are few where a test is a flood: who finds no room tries again after a second.
        socket2::SockRef::from(&listener).listen(4096).unwrap();
        let origin = Self { address: listener.local_addr().unwrap(), received: Arc::default(), connections: Arc::default() };
        let (received, connections, script) = (Arc::clone(&origin.received), Arc::clone(&origin.connections), Arc::new(script));
        let wrap = Arc::new(wrap);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let number = connections.fetch_add(1, Ordering::SeqCst);
                let (received, script, wrap) = (Arc::clone(&received), Arc::clone(&script), Arc::clone(&wrap));
                std::thread::spawn(move || {
                    let _ = stream.set_nodelay(true);
                    if let Some(wire) = wrap(stream) {
                        serve(wire, number, &received, &*script);
                    }
                });
            }
        });
        origin
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// For `servers:`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections were opened to it so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// The requests so far, as soon as there are `n`.
    pub fn wait(&self, n: usize) -> Vec<Received> {
        eventually(&format!("{n} requests at the app"), || {
            let received = self.received();
            (received.len() >= n).then_some(received)
        })
    }
}

fn serve(mut stream: Box<dyn Wire>, connection: usize, all: &Mutex<Vec<Received>>, script: &Script) {
    let mut buffer = Vec::new();
    while let Some((head, body)) = request(&mut *stream, &mut buffer) {
        let received = Received { connection, head, body };
        let reply = script(&received);
        all.lock().unwrap().push(received);
        if stream.write_all(reply.bytes()).and_then(|()| stream.flush()).is_err() {
            return;
        }
        match reply {
            Reply::Bytes(_) => {}
            Reply::Close(_) => {
                stream.close();
                return;
            }
            Reply::Reset(_) => {
                stream.reset();
                return;
            }
            Reply::Hang(_) => {
                let _ = stream.read_to_end(&mut Vec::new());
                return;
            }
        }
    }
}

/// The next request; bytes behind it stay in `buffer`. `None`: the client left.
fn request(stream: &mut dyn Wire, buffer: &mut Vec<u8>) -> Option<(Vec<u8>, Vec<u8>)> {
    let end = loop {
        match buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            Some(at) => break at + 4,
            None => more(stream, buffer)?,
        }
    };
    let head: Vec<u8> = buffer.drain(..end).collect();
    let lower = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let field = |name: &str| lower.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
    let length = if field("transfer-encoding").is_some() {
        loop {
            match chunked_end(buffer) {
                Some(end) => break end,
                None => more(stream, buffer)?,
            }
        }
    } else {
        let length: usize = field("content-length").map_or(0, |text| text.parse().unwrap());
        while buffer.len() < length {
            more(stream, buffer)?;
        }
        length
    };
    Some((head, buffer.drain(..length).collect()))
}

fn more(stream: &mut dyn Wire, buffer: &mut Vec<u8>) -> Option<()> {
    let mut part = [0; 16 * 1024];
    match stream.read(&mut part) {
        Ok(0) | Err(_) => None,
        Ok(n) => {
            buffer.extend_from_slice(&part[..n]);
            Some(())
        }
    }
}

/// Where a chunked body ends, trailers included; `None` when it is not all there.
fn chunked_end(bytes: &[u8]) -> Option<usize> {
    let line_end = |from: usize| bytes.get(from..)?.windows(2).position(|w| w == b"\r\n").map(|at| from + at + 2);
    let mut at = 0;
    loop {
        let after = line_end(at)?;
        let size = std::str::from_utf8(&bytes[at..after - 2]).unwrap();
        let size = usize::from_str_radix(size.split(';').next().unwrap().trim(), 16).unwrap();
        if size > 0 {
            at = after + size + 2;
            continue;
        }
        let mut line = after;
        loop {
            let next = line_end(line)?;
            if next == line + 2 {
                return Some(next);
            }
            line = next;
        }
    }
}
