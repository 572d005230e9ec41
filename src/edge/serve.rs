//! One connection, from its first byte to its last.

use std::cell::Cell;
use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::first::First;
use super::gathered::{Turns, gathered};
use super::leash::{Busy, Held, Leash, Order, Still, Watched};
use super::opening::{self, NoHello, Replayed};
use super::proxy_protocol::Caller;
use super::stream::Stream;
use super::{Edge, Entrance, PanicGuard, Setup, canonical};
use crate::fingerprint::syn;
use crate::forward::{Ends, Rest, Tunnel};
use crate::gate::{self, Conn, Rules};
use crate::identify::CertificateNames;
use crate::model::{Host, Wire};
use crate::request::upgrade;

/// Why a TLS handshake came to nothing.
#[derive(Debug, thiserror::Error)]
enum NoTls {
    #[error(transparent)]
    Hello(#[from] NoHello),
    #[error("the handshake failed: {0}")]
    Handshake(io::Error),
    #[error("the handshake was not complete within limits.handshake")]
    Late,
}

impl NoTls {
    /// The label of both `rejected_total` and `tls_handshakes_total`.
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Hello(NoHello::Closed) => "closed",
            Self::Hello(NoHello::NotTls) => "not_tls",
            Self::Hello(NoHello::Malformed(_)) => "malformed_hello",
            Self::Hello(NoHello::TooLarge) => "hello_too_large",
            Self::Handshake(_) => "handshake_failed",
            Self::Late => "handshake_timeout",
        }
    }
}

pub async fn connection(edge: &Rc<Edge>, entrance: Arc<Entrance>, stream: Stream, caller: Caller, held: Held) {
    let Caller { peer, port, behind, ends, tls, spent } = caller;
    // Else it is the balancer's.
    let syn = if behind.is_none() { stream.saved_syn().as_deref().and_then(syn::signature) } else { None };
    if syn.is_some() { &edge.counts.syn.read } else { &edge.counts.syn.unavailable }.add(1);
    // To ask the system costs each connection a call: only where an app is told.
    let tells = behind.is_none() && edge.core.house().upstreams.tells;
    let ends = if tells { ends_of(&stream) } else { ends };
    if ends.is_none() {
        held.leash.is_of_untold_ends(behind.is_none());
    }
    let mut wire = Wire { syn, ..Wire::default() };
    let known = |wire, shown: Shown| {
        let door = if tls { entrance.door.towards(true) } else { Arc::clone(&entrance.door) };
        let mut conn = Conn::new(Rc::clone(&edge.core), door, peer);
        match ends {
            Some(ends) => conn.client.between(ends),
            None => conn.client.comes_from(port),
        }
        conn.wire = wire;
        (conn.chain, conn.served, conn.spared) = (shown.chain, shown.served, shown.spared);
        conn.behind = behind;
        conn.front = entrance.believed.as_ref().filter(|believed| believed.trusts(peer)).map(|_| Box::default());
        Rc::new(conn)
    };
    let Some(setup) = &entrance.tls else {
        edge.counts.tls.unavailable.add(1);
        held.leash.opened();
        return http1(edge, known(wire, Shown::default()), stream, Below::PLAIN, &held.leash).await;
    };
    // The leash leaves a handshake alone: its deadline is the tighter one.
    let secured = {
        let house = edge.core.house();
        let limit = house.rules.limits.handshake.saturating_sub(spent);
        // Boxed: a connection has room for a handshake no longer than it lasts.
        let secured = tokio::time::timeout(limit, Box::pin(secure(setup, stream, &house.rules, &mut wire, &held.leash)));
        heeding(&held.leash, pin!(secured), |_| {}).await
    };
    let Some(secured) = secured else { return };
    let secured = secured.unwrap_or(Err(NoTls::Late));
    count_handshake(edge, &secured, &wire);
    held.leash.opened();
    match secured {
        Ok((tls, shown)) if tls.get_ref().1.alpn_protocol() == Some(b"h2") => http2(edge, known(wire, shown), tls, &held.leash).await,
        Ok((tls, shown)) => http1(edge, known(wire, shown), tls, Below::TLS, &held.leash).await,
        Err(error) => tracing::debug!(%peer, %error, "no TLS"),
    }
}

fn ends_of(stream: &Stream) -> Option<Ends> {
    let plain = |end: SocketAddr| SocketAddr::new(canonical(end.ip()), end.port());
    Some(Ends { source: plain(stream.peer_addr().ok()?), destination: plain(stream.local_addr().ok()?) })
}

fn count_handshake<T>(edge: &Edge, secured: &Result<T, NoTls>, wire: &Wire) {
    let counts = &edge.counts;
    match secured {
        _ if wire.ja4.is_some() => counts.tls.read.add(1),
        Err(NoTls::Hello(NoHello::Malformed(_))) => counts.tls.malformed.add(1),
        _ => counts.tls.unavailable.add(1),
    }
    match secured {
        Ok(_) => counts.handshake_ok.add(1),
        Err(error) => {
            counts.record.tls_handshakes.cell(counts.writer, &[error.as_str()]).add(1);
            counts.rejected(error.as_str());
            counts.h2.unavailable.add(1);
            counts.headers.unavailable.add(1);
        }
    }
}

/// What a handshake showed above its hello.
#[derive(Default)]
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    served: Option<Arc<CertificateNames>>,
    spared: Option<Arc<[Host]>>,
}

/// The handshake; what its hello shows is noted in `wire`.
async fn secure(setup: &Setup, mut stream: Stream, rules: &Rules, wire: &mut Wire, leash: &Rc<Leash>) -> Result<(Secured, Shown), NoTls> {
    let opened = match opening::read(&mut stream, rules.limits.client_hello, rules.fingerprints.ja3, wire).await {
        Ok(opened) => opened,
        Err(NoHello::NotTls) => {
            explain_https(&mut stream).await;
            return Err(NoHello::NotTls.into());
        }
        Err(error) => return Err(error.into()),
    };
    let name = opened.name;
    let Some(chosen) = setup.choose(name.as_deref()) else { return Err(NoTls::Handshake(io::Error::other("no certificate"))) };
    let accepted = TlsAcceptor::from(chosen.config).accept(Replayed::new(opened.bytes, stream)).await;
    let mut tls = Box::new(accepted.map_err(NoTls::Handshake)?);
    // Both have read the same hello. Were they ever to differ, a client might not be asked for the certificate that its host wants.
    if tls.get_ref().1.server_name() != name.as_deref() {
        return Err(NoTls::Handshake(io::Error::other("the server name is ambiguous")));
    }
    tls.get_mut().0.settle(Stream::acknowledge);
    tls.get_mut().0.mind(Rc::clone(leash), Stream::write_more);
    let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
    let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
    Ok((tls, Shown { chain, served: Some(Arc::clone(chosen.names)), spared: chosen.spared }))
}

/// For the person who typed http:// before this port.
async fn explain_https(stream: &mut Stream) {
    const TEXT: &str = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncache-control: no-store\r\nconnection: close\r\n\r\n\
        This port speaks HTTPS. Open the same address with https:// in front.\n";
    let _ = stream.write_all(TEXT.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// Runs `work` unless the connection is cut first. `wind_down` tells it to finish what runs and take nothing new.
pub(super) async fn heeding<F: Future>(leash: &Leash, mut work: Pin<&mut F>, wind_down: impl Fn(Pin<&mut F>)) -> Option<F::Output> {
    let mut draining = false;
    poll_fn(|cx| {
        leash.heed(cx.waker());
        if leash.order() == Order::Cut {
            return Poll::Ready(None);
        }
        // What has come already is taken first.
        let polled = work.as_mut().poll(cx);
        if polled.is_ready() || draining || !leash.winds_down() {
            return polled.map(Some);
        }
        draining = true;
        wind_down(work.as_mut());
        work.as_mut().poll(cx).map(Some)
    })
    .await
}

/// What is asked of the stream below HTTP.
struct Below<S> {
    idle: Option<fn(&S)>,
    still: Option<Still<S>>,
    /// Makes an end look like none; TLS ends without its alert, which is as plain.
    reset: Option<fn(&S)>,
}

impl Below<Stream> {
    const PLAIN: Self = Self { idle: None, still: None, reset: Some(Stream::reset) };
}

impl Below<Secured> {
    const TLS: Self = Self { idle: Some(|tls| tls.get_ref().0.idle()), still: Some(is_still), reset: None };
}

/// Boxed: it is handed on a dozen times, and is more than a kilobyte.
type Secured = Box<TlsStream<Replayed<Stream>>>;

/// Whether there is nothing to read: no bytes that rustls has decrypted, and none that it could decrypt.
fn is_still(tls: &Secured, cx: &mut Context<'_>) -> bool {
    let (io, session) = tls.get_ref();
    session.wants_read() && io.is_still(cx)
}

async fn http1<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    edge: &Rc<Edge>,
    conn: Rc<Conn>,
    stream: S,
    below: Below<S>,
    leash: &Rc<Leash>,
) {
    let io =
        TokioIo::new(Watched::http1(stream, Rc::clone(leash)).waiting(below.idle).asking(below.still).shown_to(First::http1(edge, &conn)));
    // Before HTTP/1.1 a response may have no other end than its connection's.
    let old = Cell::new(false);
    let tunnel = Leaving::default();
    let service = service_fn(|request| {
        old.set(request.version() < Version::HTTP_11);
        answer(&conn, Asked::new(leash, &request), Rest::of(request), Some((&tunnel, leash)))
    });
    let (head_size, head_fields) = head_limits(edge);
    let mut serving = http1::Builder::new()
        .max_headers(head_fields)
        .max_header_size(head_size)
        .max_buf_size(head_size.max(16 << 10))
        .serve_connection(io, service);
    let ended = heeding(leash, Pin::new(&mut serving), |serving| serving.graceful_shutdown()).await;
    let was_cut = ended.is_none();
    let broke_off = matches!(&ended, Some(Err(error)) if error.is_user());
    let over = matches!(ended, Some(Ok(())));
    count_end(edge, ended);
    let http1::Parts { io, read_buf, .. } = serving.into_parts();
    let stream = io.into_inner();
    if let Some(held) = tunnel.take().filter(|_| over) {
        let (tunnel, _busy) = *held;
        let _ = heeding(leash, Box::pin(tunnel.run(stream.unwatched(), read_buf)).as_mut(), |_| {}).await;
        return;
    }
    if let Some(reset) = below.reset.filter(|_| old.get() && (was_cut || broke_off)) {
        return reset(stream.inner());
    }
    if !was_cut && let Some(stream) = stream.unfinished() {
        heeding(leash, Box::pin(tokio::time::timeout(LINGER, linger(stream))).as_mut(), |_| {}).await;
    }
}

/// How long a client may take, and how many bytes it may send, until it sees that its request was answered before it was whole.
const LINGER: Duration = Duration::from_secs(10);
const LINGER_BYTES: u64 = 16 << 20;

/// RFC 9112 section 9.6: a connection that is closed with bytes unread is reset, and the reset destroys the answer on its way to a client that is
/// still sending. So the rest is read, and thrown away.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    if stream.shutdown().await.is_ok() {
        let _ = tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await;
    }
}

async fn http2(edge: &Rc<Edge>, conn: Rc<Conn>, stream: Secured, leash: &Rc<Leash>) {
    let (io, release) = gathered(Watched::http2(stream, Rc::clone(leash)).asking(Some(is_still)).shown_to(First::http2(edge, &conn)));
    let held = (Rc::clone(&conn), Rc::clone(leash), Rc::clone(edge));
    let service = service_fn(move |request| {
        let (conn, leash) = (Rc::clone(&held.0), Rc::clone(&held.1));
        let mut request: Request<Incoming> = request;
        let websocket = if request.method() == Method::CONNECT { websocket(&mut request) } else { None };
        let busy = Asked::new(&leash, &request);
        let edge = Rc::clone(&held.2);
        let request = Rest::of(request);
        async move {
            let mut response = answer(&conn, busy, request, None).await?;
            if let Some(stream) = websocket {
                established(&mut response, stream, (edge, leash));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let streams = edge.core.house().rules.limits.h2_streams;
    let (head_size, _) = head_limits(edge);
    let serving = http2::Builder::new(Here(Rc::clone(edge), Rc::clone(leash)))
        .max_concurrent_streams(streams)
        .max_header_list_size(u32::try_from(head_size).unwrap_or(u32::MAX))
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        // What a client that reads nothing can make us keep, for each of its streams.
        .max_send_buf_size(128 << 10)
        .enable_connect_protocol()
        .serve_connection(TokioIo::new(io), service);
    let mut turns = pin!(Turns::new(serving, release));
    let ended = heeding(leash, turns.as_mut(), |turns| turns.connection().graceful_shutdown()).await;
    let Some(broken) = leash.broken() else { return count_end(edge, ended) };
    edge.counts.rejected(broken.as_str());
    // hyper takes it for a stream that failed, and says nothing.
    let parting = turns.part(broken.goaway());
    heeding(leash, Box::pin(tokio::time::timeout(PARTING, parting)).as_mut(), |_| {}).await;
}

/// A WebSocket over HTTP/2 (RFC 8441), as the gate and apps know one: a GET that asks for an upgrade. The key is ours, for HTTP/2 has none.
fn websocket(request: &mut Request<Incoming>) -> Option<OnUpgrade> {
    request.extensions_mut().remove::<Protocol>().filter(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket"))?;
    let stream = hyper::upgrade::on(&mut *request);
    *request.method_mut() = Method::GET;
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_KEY, upgrade::key(fastrand::u128(..)));
    Some(stream)
}

/// The app's 101 as HTTP/2 says it, and what runs behind it in a task of its own.
fn established(response: &mut Response<Answer>, stream: OnUpgrade, (edge, leash): (Rc<Edge>, Rc<Leash>)) {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    let Some(tunnel) = response.body_mut().body.take_tunnel() else { return };
    *response.status_mut() = StatusCode::OK;
    for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT] {
        response.headers_mut().remove(name);
    }
    let busy = leash.busy();
    tokio::task::spawn_local(async move {
        let _panics = PanicGuard(&edge.counts);
        let _busy = busy;
        if let Ok(stream) = stream.await {
            tunnel.run(TokioIo::new(stream), Bytes::new()).await;
        }
    });
}
/// How long a client that broke the protocol may take to let the reason through.
const PARTING: Duration = Duration::from_secs(1);

/// Bytes and fields. Copied, as every limit here: a connection that held on to the rules of its first day would keep them, their apps' connections
/// and their store alive after a reload.
fn head_limits(edge: &Edge) -> (usize, usize) {
    let house = edge.core.house();
    (house.rules.limits.head_size, house.rules.limits.head_fields)
}

/// Bytes that hyper or h2 refused never became a request; they have answered 400, 431 or GOAWAY themselves.
fn count_end(edge: &Edge, ended: Option<hyper::Result<()>>) {
    let Some(Err(error)) = ended else { return };
    if error.is_parse_too_large() {
        edge.counts.rejected("head_too_large");
    } else if error.is_parse() {
        edge.counts.rejected("malformed");
    } else if error.is_incomplete_message() {
        edge.counts.rejected("incomplete");
    } else if let Some(reason) = error.source().and_then(broken_http2) {
        edge.counts.rejected(reason);
    }
    tracing::debug!(%error, "connection ended");
}

/// What we, not the peer, ended an HTTP/2 connection for.
fn broken_http2(cause: &(dyn Error + 'static)) -> Option<&'static str> {
    let cause = cause.downcast_ref::<h2::Error>().filter(|cause| !cause.is_remote() && !cause.is_io())?;
    match cause.reason() {
        Some(h2::Reason::NO_ERROR) => None,
        Some(h2::Reason::ENHANCE_YOUR_CALM) => Some("h2_flood"),
        _ => Some("malformed"),
    }
}

type Answer = Answered<crate::forward::Body>;

/// A request that is under way, from its head on.
struct Asked {
    busy: Busy,
    /// The connection ends with its answer.
    last: bool,
}

impl Asked {
    fn new(leash: &Rc<Leash>, request: &Request<Incoming>) -> Self {
        // Only of the first: who closes after an answer asks once, and the others need not be looked at.
        let first = leash.is_fresh();
        let busy = leash.busy();
        let whole = request.body().is_end_stream();
        if whole {
            leash.asked_whole();
        }
        Self { busy, last: first && whole && is_last(request) }
    }
}

/// Whether hyper will close the connection as soon as the answer is written. `false` where that is not plain to see.
fn is_last<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_11
        && request.headers().get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// What an HTTP/1 connection becomes when it leaves HTTP.
type Leaving = Cell<Option<Box<(Box<Tunnel>, Busy)>>>;

/// `leaving`: where to put the tunnel that the answer switches to. A future of its own around this one would cost each request a copy of it; so would
/// each place that the request is moved to, and so it stays in this one.
#[allow(clippy::manual_async_fn)] // which would move it once more
fn answer(
    conn: &Rc<Conn>,
    Asked { mut busy, last }: Asked,
    mut request: Request<Rest>,
    leaving: Option<(&Leaving, &Rc<Leash>)>,
) -> impl Future<Output = Result<Response<Answer>, Infallible>> {
    async move {
        #[cfg(test)]
        super::testing::fault(request.headers());
        let mut response = match conn.door.asked {
            false => gate::visit(conn, &mut request).await,
            true => Box::pin(gate::asked(conn, &mut request)).await,
        };
        busy.asked(true);
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some((tunnel, leash)) = leaving
        {
            tunnel.set(response.body_mut().take_tunnel().map(|tunnel| Box::new((tunnel, leash.busy()))));
        }
        Ok(response.map(|body| Answered { body, busy, last }))
    }
}

pin_project_lite::pin_project! {
    /// A response body that keeps its connection from counting as idle.
    struct Answered<B> {
        #[pin]
        body: B,
        busy: Busy,
        last: bool,
    }
}

impl<B: Body<Data = Bytes>> Body for Answered<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let polled = this.body.as_mut().poll_frame(cx);
        this.busy.asked(matches!(polled, Poll::Ready(Some(Ok(_)))));
        if *this.last && polled.is_ready() && this.body.is_end_stream() {
            this.busy.part();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A fault of ours in one stream ends its connection: what it left half done is the connection's.
struct EndsWith<'a>(&'a Leash);

impl Drop for EndsWith<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.cut();
        }
    }
}

/// Runs hyper's HTTP/2 tasks on this worker: one for each stream.
#[derive(Clone, Debug)]
struct Here(Rc<Edge>, Rc<Leash>);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, task: F) {
        let (edge, leash) = (Rc::clone(&self.0), Rc::clone(&self.1));
        tokio::task::spawn_local(async move {
            let _panics = PanicGuard(&edge.counts);
            let _connection = EndsWith(&leash);
            task.await;
        });
    }
}
