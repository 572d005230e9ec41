//! Real sockets on both sides: a raw client, hyper's server as the edge has it, and an app that records the bytes it receives.

mod again;
mod balance;
mod bodies;
mod heads;
mod http2;
mod http2_bodies;
mod pool;
mod seams;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use super::{Body, Bounds, Client, Ended, Failure, Identity, Order, Rest, Servers, Turn, Upstreams, send};
use crate::config::FingerprintHeaders;
use crate::config::{At, Balance, Ejection, HostHeader, Limits, Protocol, ProxyProtocol, Route, Server, Timeouts, Upstream, UpstreamTls};
use crate::model::{Effect, Mode};
use crate::policy::{AppId, ClassId, Decision, Merged, Outcome, OwnerId, Permit, ReasonId, ReasonList, RestrictionSet, RuleRef, TierId};
use crate::record::Writer;
use crate::request;

/// Runs a test on one thread as a worker does, within 20 seconds.
fn worker<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { tokio::time::timeout(Duration::from_secs(20), test).await.expect("the test hangs") })
}

/// One connection, raw.
struct Peer(TcpStream);

impl Peer {
    async fn to(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Up to and with what ends in `end`, or to the end of the stream.
    async fn until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            match self.0.read_u8().await {
                Ok(byte) => text.push(byte),
                Err(_) => break,
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    async fn take(&mut self, size: usize) -> String {
        let mut bytes = vec![0; size];
        self.0.read_exact(&mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// All until the other side closes, however it closes.
    async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let _ = self.0.read_to_end(&mut bytes).await;
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// An app: what it does with its nth connection is the test's.
struct App {
    address: SocketAddr,
    accepted: Rc<Cell<usize>>,
}

impl App {
    async fn start<F: Future<Output = ()> + 'static>(serve: impl Fn(usize, Peer) -> F + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Rc::new(Cell::new(0));
        let count = Rc::clone(&accepted);
        spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let nth = count.replace(count.get() + 1);
                spawn_local(serve(nth, Peer(stream)));
            }
        });
        Self { address, accepted }
    }

    /// Answers every request without a body, on kept connections, and records the heads.
    async fn recording() -> (Self, Rc<RefCell<Vec<String>>>) {
        let heads = Rc::new(RefCell::new(Vec::new()));
        let record = Rc::clone(&heads);
        let app = Self::start(move |_, mut peer| {
            let record = Rc::clone(&record);
            async move {
                loop {
                    let head = peer.head().await;
                    if head.is_empty() {
                        return;
                    }
                    record.borrow_mut().push(head);
                    peer.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                }
            }
        })
        .await;
        (app, heads)
    }
}

/// The way of a test from client to app.
struct Setup {
    routes: Vec<Route>,
    limits: Limits,
    merged: Merged,
    bounds: Bounds,
    watched: bool,
}

impl Setup {
    fn of(apps: &[&App]) -> Self {
        let servers = apps.iter().map(|app| server(app.address)).collect();
        let timeouts = Timeouts {
            connect: Duration::from_secs(5),
            response: Duration::from_secs(10),
            idle: Duration::from_secs(10),
            tunnel: Duration::from_secs(10),
        };
        let upstream = Upstream {
            servers,
            protocol: Protocol::Http1,
            tls: UpstreamTls::default(),
            proxy_protocol: ProxyProtocol::Off,
            host: HostHeader::Keep,
            balance: Balance::RoundRobin,
            health: None,
            ejection: Ejection { failures: 0, time: Duration::from_secs(10) },
            slow_start: Duration::ZERO,
            resolve_every: Duration::from_secs(30),
            timeouts,
        };
        Self {
            routes: vec![Route {
                app: "wiki".into(),
                upstream,
                path: request::PathOptions::STRICT,
                fingerprint_headers: FingerprintHeaders::None,
                assertion: false,
                client_cert: false,
                request_trailers: false,
                upgrades: vec!["websocket".into()],
            }],
            limits: limits(),
            merged: Merged::default(),
            bounds: Bounds::default(),
            watched: false,
        }
    }

    fn timeouts(&mut self) -> &mut Timeouts {
        &mut self.routes[0].upstream.timeouts
    }

    async fn start(self) -> Front {
        let servers = Servers::new(&self.routes, Arc::default());
        let upstreams = Rc::new(RefCell::new(Rc::new(Upstreams::new(&servers, &self.limits, Writer(0)))));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let failures = Rc::new(RefCell::new(Vec::new()));
        let ended = Rc::new(RefCell::new(Vec::new()));
        let front = Front { address, upstreams, servers, failures, ended };
        let served = front.clone();
        let bounded = (self.merged, Rc::new(self.bounds));
        let watched = self.watched;
        spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let served = served.clone();
                let bounded = bounded.clone();
                spawn_local(async move {
                    let mut first = [0; 3];
                    stream.peek(&mut first).await.unwrap();
                    let client = Rc::new(Client::new("192.0.2.7".parse().unwrap(), true, &[]));
                    let service = service_fn(move |request| gate(served.clone(), bounded.clone(), Rc::clone(&client), request));
                    if &first == b"PRI" {
                        let io = TokioIo::new(stream);
                        let _ = hyper::server::conn::http2::Builder::new(Local).serve_connection(io, service).await;
                    } else {
                        let io = TokioIo::new(Watched { stream, watch: watched.then(request::framing::Watch::default) });
                        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                    }
                });
            }
        });
        front
    }
}

#[derive(Clone)]
struct Front {
    address: SocketAddr,
    upstreams: Rc<RefCell<Rc<Upstreams>>>,
    servers: Arc<Servers>,
    failures: Rc<RefCell<Vec<Failure>>>,
    ended: Rc<RefCell<Vec<Ended>>>,
}

impl Front {
    /// One request on a connection of its own; the whole answer.
    async fn ask(&self, request: &str) -> String {
        let mut client = Peer::to(self.address).await;
        client.write(request).await;
        client.rest().await
    }

    async fn get(&self) -> String {
        self.ask("GET / HTTP/1.1\r\nHost: wiki\r\nConnection: close\r\n\r\n").await
    }
}

type Bounded = (Merged, Rc<Bounds>);

/// As much of the gate as a delivery needs.
async fn gate(
    front: Front,
    (merged, bounds): Bounded,
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let refused = |status: u16| Response::builder().status(status).body(Body::full("refused")).unwrap();
    let authority = request::authority_of(request.uri(), request.headers()).map(|a| (a.to_host(), a.port));
    let path = request::path(request.uri().path(), &request::PathOptions::STRICT).map(|path| path.into_owned());
    let framing = request::framing::check(request.version(), request.headers());
    let (Ok((host, port)), Ok(path), Ok(())) = (authority, path, framing) else { return Ok(refused(400)) };
    let identity = Identity::new(Some("laptop-7"), "corporate", "healthy", Effect::Forward, []);
    let request_id = HeaderValue::from_static("0190c3a1b2c34d5e8f90a1b2c3d4e5f6");
    let order = Order {
        app: AppId(0),
        host: &host,
        port,
        path: &path,
        client: &client,
        request_id: &request_id,
        identity: &identity,
        assertion: None,
        bounds: &bounds,
        upgrade: None,
        begun: Instant::now(),
    };
    let upstreams = Rc::clone(&front.upstreams.borrow());
    Ok(match send(permit(merged), &order, &upstreams, &mut Rest::of(request)).await {
        Ok(mut sent) => {
            let ended = Rc::clone(&front.ended);
            sent.response.body_mut().tell(move |turn| {
                if let Turn::Ended(how, _) = turn {
                    ended.borrow_mut().push(how);
                }
            });
            sent.response
        }
        Err(failure) => {
            let status = match &failure {
                Failure::Unreachable(_) | Failure::Broken(_) => 502,
                Failure::Timeout | Failure::Silence => 504,
                Failure::Restricted { .. } => 403,
                Failure::BodyTooLarge { .. } => 413,
                Failure::ClientTimeout => 408,
                Failure::ClientGone => 400,
            };
            front.failures.borrow_mut().push(failure);
            refused(status)
        }
    })
}

fn permit(merged: Merged) -> Permit {
    let outcome = Outcome {
        effect: Effect::Forward,
        restrictions: RestrictionSet::EMPTY,
        rule: RuleRef::None,
        owner: OwnerId(0),
        reasons: ReasonList::new(ReasonId(0)),
    };
    let decision = Decision {
        app: AppId(0),
        class: ClassId(0),
        tier: TierId(0),
        done: outcome,
        would: outcome,
        mode: Mode::Enforce,
        merged,
        notices: Default::default(),
        exceptions: Default::default(),
        unavailable: false,
        valid_until: None,
    };
    Permit::of(&decision).unwrap()
}

fn server(address: SocketAddr) -> Server {
    Server { url: format!("http://{address}").into(), tls: false, at: At::Tcp { host: address.ip().to_string(), port: address.port() } }
}

fn limits() -> Limits {
    let long = Duration::from_secs(60);
    Limits {
        handshake: long,
        request_head: long,
        head_size: 32 * 1024,
        head_fields: 100,
        idle: long,
        h2_streams: 100,
        connections: 1000,
        connections_per_peer: 1000,
        client_hello: 16 * 1024,
        proxy_header: 4096,
        body_size: None,
        body_rate: 1,
        drain_delay: Duration::ZERO,
        drain: long,
        upstream_idle: 64,
        upstream_connections: 1024,
        upstream_waiting: 1024,
        upstream_max_age: long,
        log_queue: 1,
        rate_entries: 1,
    }
}

/// The edge's stream in small: the watch over the bytes from the client.
struct Watched {
    stream: TcpStream,
    watch: Option<request::framing::Watch>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if let Some(watch) = &mut self.watch {
            watch.pass(&mut buf.filled_mut()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// hyper's HTTP/2 on a worker.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        spawn_local(async move {
            future.await;
        });
    }
}

/// What a request adds to each connection's memory, for hyper keeps room for its future in every one.
#[test]
fn the_future_and_the_body_stay_small() {
    fn size<F>(_: impl FnOnce(Permit, &'static Order<'static>, &'static Upstreams, &'static mut Request<Rest>) -> F) -> usize {
        size_of::<F>()
    }
    let future = size(|permit, order, upstreams, request| send(permit, order, upstreams, request));
    assert!(future <= 1280, "{future}");
    assert!(size_of::<Body>() <= 192, "{}", size_of::<Body>());
}
