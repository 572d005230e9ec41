//! `vestibule fingerprint --listen`: a port that tells what each client shows, and tells the client as well.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;

use super::line::{Line, Seen, Table};
use crate::cli::failure::Failure;
use crate::edge::{self, Replayed};
use crate::fingerprint::hello::{self, Arriving, Hello, Progress};
use crate::fingerprint::{h2, syn};
use crate::model::Opening;

/// Clients at once; more wait to be accepted.
const MOST: usize = 512;
const LONGEST_HELLO: usize = 16 << 10;
const HELLO_WITHIN: Duration = Duration::from_secs(10);
const ALL_WITHIN: Duration = Duration::from_secs(60);

/// Listens until a signal ends it. `wait`: print a client when its first request has come, or when it leaves without one; otherwise at its hello.
pub fn listen(at: &str, wait: bool, table: Table, print: Print) -> Result<(), Failure> {
    let addr = address(at)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let socket = {
        let _in_runtime = runtime.enter();
        let sockets = edge::listen(addr, 1).map_err(|error| Failure(format!("--listen {at}: {error}")))?;
        let socket = sockets.into_iter().next().ok_or_else(|| Failure(format!("--listen {at}: no socket")))?;
        TcpListener::from_std(socket)?
    };
    let booth = Rc::new(Booth { wait, table, tls: tls()?, print, deaf: Cell::new(None), gone: Notify::new() });
    let local = LocalSet::new();
    // Said once there are signals to be heeded: a script may end it from then on.
    runtime.block_on(local.run_until(async {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        writeln!(io::stderr(), "listening on {}", socket.local_addr()?)?;
        tokio::select! {
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
            () = Rc::clone(&booth).accept(socket) => Ok(()),
            () = booth.gone.notified() => match booth.deaf.take() {
                Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure(format!("cannot write: {error}"))),
                // Whoever reads the lines has seen enough.
                _ => Ok(()),
            },
        }
    }))
    // Who was still there is printed when its task is dropped with `local`.
}

/// `ADDR:PORT`, `:PORT` for every address, or an address alone: then the system chooses the port.
fn address(text: &str) -> Result<SocketAddr, Failure> {
    let wrong = || Failure(format!("--listen {text}: expected an address with a port, such as 127.0.0.1:8443, [::]:8443 or :8443"));
    if let Some(port) = text.strip_prefix(':') {
        let port = port.parse().map_err(|_| wrong())?;
        return Ok(SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), port));
    }
    let whole = text.parse::<SocketAddr>().ok();
    whole.or_else(|| text.trim_matches(['[', ']']).parse().ok().map(|ip| SocketAddr::new(ip, 0))).ok_or_else(wrong)
}

/// With a certificate of its own making, which no client has reason to trust: `curl -k`.
fn tls() -> Result<TlsAcceptor, Failure> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Where a line goes.
type Print = fn(&Line) -> io::Result<()>;

struct Booth {
    wait: bool,
    table: Table,
    tls: TlsAcceptor,
    print: Print,
    /// Why nobody reads what is printed.
    deaf: Cell<Option<io::Error>>,
    gone: Notify,
}

impl Booth {
    async fn accept(self: Rc<Self>, socket: TcpListener) {
        let places = Arc::new(Semaphore::new(MOST));
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match socket.accept().await {
                Ok((stream, peer)) => {
                    let booth = Rc::clone(&self);
                    tokio::task::spawn_local(async move {
                        // Whatever a client does or leaves undone.
                        let _ = tokio::time::timeout(ALL_WITHIN, booth.visit(stream, peer)).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn visit(self: Rc<Self>, mut stream: TcpStream, peer: SocketAddr) {
        let (time, syn) = (Timestamp::now(), edge::saved_syn(&stream).as_deref().and_then(syn::signature));
        let Ok(own) = stream.local_addr() else { return };
        let mut head = Vec::new();
        let first = match tokio::time::timeout(HELLO_WITHIN, first(&mut stream, &mut head)).await {
            Ok(Ok(first)) => first,
            Ok(Err(why)) => return tracing::warn!(client = %peer, "no fingerprint: {why}"),
            Err(_) => return tracing::warn!(client = %peer, "no fingerprint: no hello within {HELLO_WITHIN:?}"),
        };
        let seen = Seen { time: Some(time), addresses: Some((canonical(peer), canonical(own))), syn, ..Seen::default() };
        match first {
            First::Hello(hello) => {
                let told = Rc::new(Told::new(&self, Seen { hello: Some(*hello), ..seen }));
                if !self.wait {
                    told.tell();
                }
                let mut tls = match self.tls.accept(Replayed::new(head, stream)).await {
                    Ok(tls) => tls,
                    Err(error) => return tracing::debug!(client = %peer, %error, "the handshake failed"),
                };
                tls.get_mut().0.settle(|_| {});
                let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
                serve(tls, h2, told).await;
            }
            // What there is to tell comes with the request.
            First::Plain { h2 } => serve(Replayed::new(head, stream), h2, Rc::new(Told::new(&self, seen))).await,
        }
    }
}

enum First {
    Hello(Box<Hello>),
    Plain { h2: bool },
}

/// Reads until the client has shown what it is. `head` gets all that was read.
async fn first(stream: &mut TcpStream, head: &mut Vec<u8>) -> Result<First, &'static str> {
    let mut arriving = Arriving::default();
    loop {
        match stream.read_buf(head).await {
            Ok(0) | Err(_) if head.is_empty() => return Err("it left without a word"),
            Ok(0) | Err(_) => return Err("it left before its hello was whole"),
            Ok(_) => {}
        }
        if hello::length(head).is_some_and(|length| length > LONGEST_HELLO) {
            return Err("its hello is over 16 KiB");
        }
        match arriving.read(head) {
            Progress::Hello(hello) => return Ok(First::Hello(Box::new(hello))),
            Progress::Malformed(what) => {
                tracing::debug!(what, "malformed hello");
                return Err("its hello is malformed");
            }
            Progress::NeedMore => {}
            Progress::NotTls => match (h2::Arriving::default().read(head), head.len()) {
                (Ok(_), 24..) => return Ok(First::Plain { h2: true }),
                (Ok(_), _) => {}
                (Err(_), _) => return Ok(First::Plain { h2: false }),
            },
        }
    }
}

/// An IPv4 client of a socket for both families is one of IPv4.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// A client of which one line is printed, at the latest when it leaves.
struct Told {
    booth: Rc<Booth>,
    seen: RefCell<Seen>,
    done: Cell<bool>,
}

impl Told {
    fn new(booth: &Rc<Booth>, seen: Seen) -> Self {
        Self { booth: Rc::clone(booth), seen: RefCell::new(seen), done: Cell::new(false) }
    }

    fn tell(&self) {
        if !self.done.replace(true)
            && let Err(error) = (self.booth.print)(&self.booth.table.line(&self.seen.borrow()))
        {
            self.booth.deaf.set(Some(error));
            self.booth.gone.notify_one();
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        // Bytes that are neither TLS nor HTTP are no client to print.
        if self.seen.borrow().hello.is_some() {
            self.tell();
        }
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, h2: bool, told: Rc<Told>) {
    let opening = Rc::new(RefCell::new(Opened::new(h2)));
    let io = TokioIo::new(Overheard { inner: stream, opening: Rc::clone(&opening) });
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(&told, &opening, &request);
        async move { Ok::<_, std::convert::Infallible>(answer) }
    });
    let served = if h2 {
        http2::Builder::new(Here).max_concurrent_streams(16).serve_connection(io, service).await
    } else {
        http1::Builder::new().max_headers(200).serve_connection(io, service).await
    };
    if let Err(error) = served {
        tracing::debug!(%error, "the client's connection ended");
    }
}

/// Tells the client its own line, all that is known by then.
fn answer(told: &Told, opening: &RefCell<Opened>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    {
        let mut seen = told.seen.borrow_mut();
        seen.opening = opening.borrow().facts.clone();
        seen.headers = Some(request.headers().clone());
    }
    told.tell();
    let mut text = serde_json::to_vec(&told.booth.table.line(&told.seen.borrow())).unwrap_or_default();
    text.push(b'\n');
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// What the first bytes inside TLS showed.
struct Opened {
    /// Gone when they have told what they can.
    bytes: Option<edge::FirstBytes>,
    facts: Opening,
}

impl Opened {
    fn new(h2: bool) -> Self {
        let bytes = if h2 { edge::FirstBytes::http2() } else { edge::FirstBytes::http1() };
        Self { bytes: Some(bytes), facts: Opening::default() }
    }

    fn hear(&mut self, new: &[u8]) {
        let Some(seen) = self.bytes.as_mut().and_then(|bytes| bytes.read(new)) else { return };
        self.bytes = None;
        if let edge::FirstSeen::Whole(facts) = seen {
            self.facts = facts;
        }
    }
}

/// A stream whose first bytes are looked at as they pass.
struct Overheard<S> {
    inner: S,
    opening: Rc<RefCell<Opened>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Overheard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.opening.borrow_mut().hear(buf.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Overheard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Runs hyper's HTTP/2 tasks on this thread.
#[derive(Clone)]
struct Here;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}
