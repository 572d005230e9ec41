//! One exchange with an app.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::{MaybeDone, maybe_done};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, request};
use smallvec::smallvec;

use super::arriving::Arriving;
use super::balance::Rank;
use super::body::Body;
use super::bound::Bound;
use super::expect::Expecting;
use super::failure::{Broken, Failure};
use super::http2;
use super::pool::Conn;
use super::rest::Rest;
use super::tunnel::Tunnel;
use super::upload::{Fault, Flow, RequestBody};
use super::upstreams::{App, Target, Upstreams};
use super::{Order, balance, hygiene, response};
use crate::config::Balance;
use crate::policy::Permit;

/// An app's answer.
#[derive(Debug)]
pub struct Sent {
    /// Its head is fit to pass on; its body gives the connection back at its end.
    pub response: Response<Body>,
    /// From taking the order to the response's head.
    pub upstream: Duration,
}

/// Forwards a request and gives the answer once its head is there. Cancelled (dropped), it closes the upstream connection.
///
/// A request is tried on another server only as long as no byte of it was sent, on at most `balance::TRIES` of them, and on no further one once that
/// took twice the connect timeout; and once more, when it is a GET, HEAD or OPTIONS without body and a
/// *reused* connection closed before any byte of a response: then the app most likely closed it before the request came.
pub fn send<'a>(
    permit: Permit,
    order: &'a Order<'a>,
    upstreams: &'a Upstreams,
    request: &mut Request<Rest>,
) -> impl Future<Output = Result<Sent, Failure>> + use<'a> {
    let begun = order.begun;
    // Prepared before the future is, and then changed in place: it lives in each connection's memory, idle ones too, and holds the request once.
    let mut prepared = Exchange::prepare(&permit, order, upstreams, request);
    async move {
        let exchange = match prepared {
            Ok(ref mut exchange) => exchange,
            Err(failure) => return Err(failure),
        };
        loop {
            if exchange.full {
                // Boxed, for it is rare.
                match Box::pin(exchange.app.room(order, &exchange.tried, exchange.patience(begun))).await {
                    Ok((at, target)) => {
                        exchange.full = false;
                        exchange.begun = None;
                        exchange.turn_to(order, at, target);
                    }
                    Err(error) => return Err(Failure::Unreachable(error)),
                }
            }
            let target = exchange.target;
            match exchange.with(order, target).await {
                Tried::Answered(response, conn) => {
                    let (mut head, incoming) = response.into_parts();
                    hygiene::toward_client(&mut head, permit.merged().no_store, order.upgrade)
                        .inspect_err(|why| exchange.app.unanswered(target, why))?;
                    target.place.fitness.answered();
                    target.counts.answered.add(1);
                    let upstream = begun.elapsed();
                    if head.status == StatusCode::SWITCHING_PROTOCOLS {
                        let body = exchange.leave(conn, order, &permit)?;
                        return Ok(Sent { response: Response::from_parts(head, body), upstream });
                    }
                    let refused = response::restrict(&mut head, permit.merged(), order.bounds);
                    let bound = Bound::new(permit.merged(), order.bounds);
                    let body = Body::of_app(incoming, conn, exchange.flow.take(), (exchange.app.timeouts.idle, bound), begun);
                    if let Some(key) = refused {
                        return Err(Failure::Restricted { key, upstream });
                    }
                    return Ok(Sent { response: Response::from_parts(head, body), upstream });
                }
                Tried::Failed(failure) => {
                    exchange.app.unanswered(target, &failure);
                    return Err(failure);
                }
                Tried::Unsent(error) => {
                    exchange.app.unreached(target, &error);
                    if !exchange.next(order) {
                        return Err(Failure::Unreachable(error));
                    }
                    target.counts.elsewhere.add(1);
                }
                Tried::Again => {
                    target.counts.again.add(1);
                    // A server that ends, rather than a connection, would take this one down as well.
                    exchange.next_fit(order);
                    exchange.fresh = true;
                }
            }
        }
    }
}

fn no_servers() -> io::Error {
    io::Error::other("the app has no servers")
}

fn all_down() -> io::Error {
    io::Error::other("all servers of the app are down by their health checks")
}

fn least(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// gRPC, gRPC-Web or what calls itself so.
fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

struct Exchange<'a> {
    /// For the first try, so that the clock is read once.
    begun: Option<Instant>,
    /// `None` while it is on a connection.
    request: Option<Request<RequestBody>>,
    /// `None`: the request has no body.
    flow: Option<Rc<Flow>>,
    /// Present while the request may be sent a second time.
    again: Option<Copied>,
    app: &'a App,
    /// The server whose turn it is.
    target: &'a Target,
    /// With it, unless all are full.
    tried: balance::Tried,
    /// No server has room for now.
    full: bool,
    /// Idle connections are not to be trusted any more.
    fresh: bool,
    limit: Option<u64>,
}

enum Tried {
    Answered(Response<Arriving>, Conn),
    Failed(Failure),
    /// Not a byte of the request was sent, and it is back in its place: another server may have it.
    Unsent(io::Error),
    /// A used connection closed before any byte of an answer, and the request is ready to be sent the second and last time.
    Again,
}

/// How often one server may refuse one request without a look at it before another server is asked: of its own accord, and beside other requests on
/// the same connection, where the next try is on another one or waits for room.
const REFUSALS: [u8; 2] = [2, 16];

/// What came of a stream of HTTP/2.
enum Shared {
    Done(Tried),
    /// The app did not look at the request, which is back in its place. Whether it had others on the same connection.
    Refused(::h2::Error, bool),
    /// A used connection was gone before a byte of the answer, and the request may be sent again.
    Lost,
}

impl<'a> Exchange<'a> {
    fn prepare(permit: &Permit, order: &Order<'_>, upstreams: &'a Upstreams, request: &mut Request<Rest>) -> Result<Self, Failure> {
        let begun = order.begun;
        let app = upstreams.app(order.app).ok_or_else(|| Failure::Unreachable(no_servers()))?;
        let (mut head, rest) = std::mem::take(request).into_parts();
        let empty = rest.is_empty();
        let length = rest.size_hint().exact();
        let limit = least(permit.merged().max_body, upstreams.body_size);
        if let (Some(limit), Some(length)) = (limit, length)
            && length > limit
        {
            return Err(Failure::BodyTooLarge { limit });
        }
        let expecting = if empty { None } else { Expecting::of(&head.headers, head.version) };
        // There the app may be the one whose turn it is.
        let grpc = !empty && is_grpc(&head.headers);
        let (at, target, rank) = app.pick_for(order, &[], begun).ok_or_else(|| Failure::Unreachable(all_down()))?;
        let mut again = (empty && matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS)).then(|| Copied::of(&head));
        // Over HTTP/2 a body that is said to be empty may still turn out a lie: the app learns its end, not its length, and so never takes it for whole.
        let length = length.filter(|length| empty || *length > 0);
        let announced = if app.request_trailers { hygiene::announced(&head.headers) } else { None };
        hygiene::toward_app(&mut head, order, target.host.as_ref(), length);
        if let Some(announced) = announced.filter(|_| length.is_none()) {
            head.headers.insert(http::header::TRAILER, announced);
        }
        if let Some(copied) = &mut again {
            copied.trace = head.headers.get(&hygiene::TRACEPARENT).cloned();
        }
        let bounds = (limit.unwrap_or(u64::MAX), app.request_trailers, order.bounds.lanes.as_ref());
        let (body, flow) = RequestBody::new(rest, bounds, begun);
        if let Some(flow) = &flow
            && !grpc
        {
            flow.trickle.hold_to(upstreams.floor);
        }
        let request = match expecting {
            Some(expecting) => body.expect(expecting, head),
            None => Request::from_parts(head, body),
        };
        Ok(Self {
            begun: Some(begun),
            request: Some(request),
            flow,
            again,
            app,
            target,
            tried: if rank == Rank::Full { smallvec![] } else { smallvec![at] },
            full: rank == Rank::Full,
            fresh: false,
            limit,
        })
    }

    /// Another server for what was not sent. False: no other may be tried.
    fn next(&mut self, order: &Order<'_>) -> bool {
        let now = Instant::now();
        // Who is refused at once loses no time; who waits in vain twice has waited long enough.
        if self.tried.len() >= balance::TRIES || now.duration_since(order.begun) >= self.app.timeouts.connect * 2 {
            return false;
        }
        let Some((at, target, rank)) = self.app.pick_for(order, &self.tried, now) else { return false };
        self.full = rank == Rank::Full;
        if !self.full {
            self.turn_to(order, at, target);
        }
        true
    }

    /// Another server that is quite fit for the second sending, if there is one; who stays with a server by `hash` has reasons to.
    fn next_fit(&mut self, order: &Order<'_>) {
        if self.app.balance != Balance::Hash
            && let Some((at, target, Rank::Free)) = self.app.pick_for(order, &self.tried, order.begun)
        {
            self.turn_to(order, at, target);
        }
    }

    /// How long it may wait for room: the connect timeout, and with what other servers took at most twice that.
    fn patience(&self, begun: Instant) -> Duration {
        let connect = self.app.timeouts.connect;
        connect.min((connect * 2).saturating_sub(begun.elapsed()))
    }

    fn turn_to(&mut self, order: &Order<'_>, at: u16, target: &'a Target) {
        self.tried.push(at);
        if !std::ptr::eq(self.target, target) {
            self.target = target;
            self.set_host(order, target);
        }
    }

    /// The next server may want another Host.
    fn set_host(&mut self, order: &Order<'_>, target: &Target) {
        if let Some(request) = &mut self.request {
            let host = target.host.clone().unwrap_or_else(|| order.client.named(order.host, order.port).host);
            request.headers_mut().insert(http::header::HOST, host);
        }
    }

    async fn with(&mut self, order: &Order<'_>, target: &Target) -> Tried {
        let mut refused = [0u8; 2];
        loop {
            let mut began = self.begun.take().unwrap_or_else(Instant::now);
            let mut conn = match if self.fresh { None } else { target.server.reuse(began, target.whose(order)) } {
                Some(conn) => conn,
                // Boxed, for it is rare and large.
                None => match Box::pin(target.server.connect(self.app.timeouts.connect, target.whose(order))).await {
                    Ok(conn) => {
                        began = Instant::now();
                        target.place.fitness.connected(true);
                        conn
                    }
                    Err(error) => return Tried::Unsent(error),
                },
            };
            conn.running = Some(target.running());
            if conn.lease().is_some() {
                match Box::pin(self.over_http2(conn, target, began)).await {
                    Shared::Done(tried) => return tried,
                    Shared::Refused(error, crowded) => {
                        let how = usize::from(crowded);
                        if refused[how] == REFUSALS[how] {
                            return Tried::Unsent(io::Error::other(error));
                        }
                        refused[how] += 1;
                    }
                    Shared::Lost => {
                        self.request = self.again.take().map(|copied| copied.into_request(order, target));
                        return Tried::Again;
                    }
                }
                continue;
            }
            if order.upgrade.is_some()
                && let Some((_, driven)) = conn.parts()
            {
                driven.may_leave();
            }
            let reads = conn.pulse().reads.get();
            let mut patience = Patience { since: began, writes: conn.pulse().writes.get() };
            let mut sending = pin!(None);
            let answered = poll_fn(|cx| {
                let Some((requests, driven)) = conn.parts() else { return Poll::Pending };
                let answered = driven.drive(cx, |cx| {
                    if let Some(request) = self.request.take() {
                        // Its answer stays in the same place until it is taken: a head is large to be handed on.
                        sending.set(Some(maybe_done(requests.try_send_request(request))));
                    }
                    sending.as_mut().as_pin_mut().map_or(Poll::Pending, |sending| sending.poll(cx))
                });
                match answered {
                    Poll::Ready(()) => Poll::Ready(None),
                    Poll::Pending => self.poll_timeout(&mut conn, &mut patience, cx).map(Some),
                }
            });
            if let Some(failure) = answered.await {
                return Tried::Failed(failure);
            }
            let answer = sending.as_mut().as_pin_mut().and_then(MaybeDone::take_output);
            let mut error = match answer.expect("driven until it came") {
                Ok(response) => {
                    if order.upgrade.is_some()
                        && response.status() != StatusCode::SWITCHING_PROTOCOLS
                        && let Some((_, driven)) = conn.parts()
                    {
                        driven.stays();
                    }
                    return Tried::Answered(response.map(Arriving::Http1), conn);
                }
                Err(error) => error,
            };
            self.request = error.take_message();
            match &self.again {
                // The connection closed under our hands: an idle one is no loss, a fresh one is the server's fault.
                _ if self.request.is_some() && conn.used => {}
                _ if self.request.is_some() => return Tried::Unsent(io::Error::other(error.into_error())),
                // Not a byte of an answer. On a fresh connection now: the other idle ones may be as dead. Where the server is at its limit, `connect` may
                // hand over a used connection after all: not a third time.
                Some(_) if conn.used && conn.pulse().reads.get() == reads => {
                    self.request = self.again.take().map(|copied| copied.into_request(order, target));
                    return Tried::Again;
                }
                _ => return Tried::Failed(self.failed(error.into_error())),
            }
        }
    }

    /// On a place of a connection that others use too.
    async fn over_http2(&mut self, mut conn: Conn, target: &Target, began: Instant) -> Shared {
        let Some(request) = self.request.take() else { return Shared::Done(Tried::Failed(Failure::Unreachable(no_servers()))) };
        let Some(head) = hygiene::over_http2(&request, target.server.is_secure()) else {
            return Shared::Done(Tried::Failed(Failure::Broken(Broken::Framing("the app's `host` cannot stand in a request of HTTP/2"))));
        };
        let (kept, body) = request.into_parts();
        let pulse = Rc::clone(conn.pulse());
        let started = match conn.lease() {
            Some(lease) => lease.start(head, body, &pulse),
            None => return Shared::Done(Tried::Failed(Failure::Unreachable(no_servers()))),
        };
        let mut exchanged = match started {
            Ok(exchanged) => exchanged,
            Err((error, body)) => {
                self.request = Some(Request::from_parts(kept, body));
                return Shared::Refused(error, false);
            }
        };
        let mut patience = Patience { since: began, writes: 0 };
        let answer = poll_fn(|cx| match exchanged.poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Ok(answer)),
            Poll::Pending => self.poll_timeout(&mut conn, &mut patience, cx).map(Err),
        });
        match answer.await {
            Ok(Ok(response)) => {
                let (mut head, stream) = response.into_parts();
                head.version = http::Version::HTTP_11;
                let body = Arriving::Http2(exchanged.receive(stream));
                Shared::Done(Tried::Answered(Response::from_parts(head, body), conn))
            }
            Ok(Err(error)) if http2::is_refused(&error) => match exchanged.into_body() {
                Some(body) => {
                    self.request = Some(Request::from_parts(kept, body));
                    let crowded = error.is_reset() && conn.lease().is_some_and(|lease| lease.refused());
                    Shared::Refused(error, crowded)
                }
                None => Shared::Done(Tried::Failed(Failure::Unreachable(io::Error::other(error)))),
            },
            Ok(Err(error)) if self.again.is_some() && conn.used && http2::is_lost(&error) => Shared::Lost,
            Ok(Err(error)) => Shared::Done(Tried::Failed(self.faulted().unwrap_or(Failure::Broken(Broken::Http2(error))))),
            Err(failure) => {
                if let Some(lease) = conn.lease() {
                    lease.doubt();
                }
                // Of gRPC both sides talk at will: that the client is silent says nothing of whose turn it is.
                let grpc = is_grpc(&kept.headers);
                let failure = if grpc && matches!(failure, Failure::ClientTimeout) { Failure::Silence } else { failure };
                Shared::Done(Tried::Failed(failure))
            }
        }
    }

    /// Ready when the app has had its time for the head, or the request's body stands still.
    fn poll_timeout(&self, conn: &mut Conn, patience: &mut Patience, cx: &mut Context<'_>) -> Poll<Failure> {
        loop {
            let (deadline, sending) = match &self.flow {
                Some(flow) if flow.ended.get() => (flow.last.get().max(patience.since) + self.app.timeouts.response, None),
                Some(flow) => {
                    let still = flow.last.get().max(patience.since) + self.app.timeouts.idle;
                    let trickling = flow.trickle.deadline(flow.bytes.get());
                    (trickling.map_or(still, |end| end.min(still)), Some(flow))
                }
                None => (patience.since + self.app.timeouts.response, None),
            };
            if conn.timer().poll(cx, deadline).is_pending() {
                return Poll::Pending;
            }
            let writes = conn.pulse().writes.get();
            match sending {
                None => return Poll::Ready(Failure::Timeout),
                Some(flow) if flow.waiting.get() => return Poll::Ready(Failure::ClientTimeout),
                // The app reads on, if slowly: what was buffered is still going out.
                Some(_) if writes != patience.writes => *patience = Patience { since: Instant::now(), writes },
                Some(_) => return Poll::Ready(Failure::Timeout),
            }
        }
    }

    /// The app has switched protocols, as it was asked to.
    fn leave(&self, mut conn: Conn, order: &Order<'_>, permit: &Permit) -> Result<Body, Failure> {
        let left = conn.parts().and_then(|(_, driven)| driven.leave());
        let left = left.ok_or(Failure::Broken(Broken::Framing("the app's connection ended as it switched protocols")))?;
        Ok(Body::tunnel(Tunnel::new((left, conn.running.take()), order, permit.merged(), &self.app.timeouts)))
    }

    fn failed(&self, error: hyper::Error) -> Failure {
        self.faulted().unwrap_or(Failure::Broken(Broken::Http(error)))
    }

    /// The client's own fault, if it is one.
    fn faulted(&self) -> Option<Failure> {
        Some(match self.flow.as_ref().and_then(|flow| flow.fault.get())? {
            Fault::TooLarge => Failure::BodyTooLarge { limit: self.limit.unwrap_or(u64::MAX) },
            Fault::Client => Failure::ClientGone,
        })
    }
}

#[derive(Clone, Copy)]
struct Patience {
    since: Instant,
    writes: u32,
}

/// A head that may have to be sent again, as it came: what we set in it is set anew. Fields in a list, which is cheaper to copy than the map.
struct Copied {
    method: Method,
    uri: Uri,
    fields: Vec<(HeaderName, HeaderValue)>,
    /// The one thing that we make up: the second sending belongs to the same trace.
    trace: Option<HeaderValue>,
}

impl Copied {
    fn of(head: &request::Parts) -> Self {
        let mut fields = Vec::with_capacity(head.headers.len());
        fields.extend(head.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        Self { method: head.method.clone(), uri: head.uri.clone(), fields, trace: None }
    }

    fn into_request(self, order: &Order<'_>, target: &Target) -> Request<RequestBody> {
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = self.method;
        head.uri = self.uri;
        for (name, value) in self.fields {
            head.headers.append(name, value);
        }
        if let Some(trace) = self.trace {
            head.headers.insert(&hygiene::TRACEPARENT, trace);
        }
        hygiene::toward_app(&mut head, order, target.host.as_ref(), Some(0));
        Request::from_parts(head, RequestBody::Empty)
    }
}
