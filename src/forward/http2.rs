//! HTTP/2 to an app: connections that many requests share, each in a task of its own, and one request's stream on them.
//!
//! By the `h2` library itself: hyper's client over it takes the body away and tells neither whether the app looked at a request nor its code.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use ::h2::client::{Builder, ResponseFuture, SendRequest};
use ::h2::{Reason, RecvStream, SendStream};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use tokio::task::AbortHandle;

use super::body::Cut;
use super::io::{Felt, Pulse};
use super::pool::{RESPONSE_HEAD, Server, Slot};
use super::proxy_header::Ends;
use super::socket::{Socket, unfit};
use super::upload::RequestBody;

/// Streams of one connection, where the app permits more.
const STREAMS: usize = 100;
/// What an app may send on one stream before anybody reads it. The connection's window has room for all streams' together: one that stands still
/// holds up no other.
const WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = WINDOW * 100;
/// What waits to be written for one stream.
const SEND_BUFFER: usize = 256 << 10;
/// Of a request's body, kept until the app answers: a request that it refused without a look may be sent again.
const KEPT: usize = 64 << 10;

/// A connection. Without `Link`s it ends when its streams have.
pub(super) struct Link {
    /// Never sent by, only copies of it are: the library remembers in a handle the stream that still waits to be opened, and whoever asks the handle
    /// whether it is ready is woken in place of that stream's own task.
    requests: RefCell<SendRequest<Bytes>>,
    running: Cell<usize>,
    /// So many at once it takes, whatever it permits: it refused another beside them, and none of them has ended since.
    full_at: Cell<usize>,
    /// It has carried a request before.
    used: Cell<bool>,
    retired: Cell<bool>,
    pub(super) until: Cell<Instant>,
    pub(super) born: Instant,
    /// Whom the server was told that it is for.
    pub(super) whose: Option<Ends>,
    pulse: Rc<Pulse>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("running", &self.running).field("retired", &self.retired).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Some,
    /// All permitted streams are in use.
    None,
    /// No stream is opened here any more: it ended, or the server said that it is going.
    Gone,
}

impl Link {
    /// Returns when the server has said, by its SETTINGS, that it speaks HTTP/2 and takes streams: what does not is noticed before it has a request.
    pub(super) async fn open(socket: Socket, slot: Slot, whose: Option<Ends>) -> io::Result<Rc<Self>> {
        let pulse = Rc::new(Pulse::default());
        let (requests, mut connection) = Builder::new()
            .initial_max_send_streams(0)
            .initial_window_size(WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(RESPONSE_HEAD)
            .enable_push(false)
            .handshake::<_, Bytes>(Felt::new(socket, Rc::clone(&pulse)))
            .await
            .map_err(no_http2)?;
        poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Err(unfit("the server closed the connection without a word of HTTP/2".to_owned()))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(no_http2(error))),
            Poll::Pending if requests.current_max_send_streams() > 0 => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        // Boxed: the runtime moves a task whole.
        let mut connection = Box::pin(connection);
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.as_mut().await {
                tracing::debug!(%error, "upstream connection ended");
            }
            drop(slot);
        });
        let now = Instant::now();
        Ok(Rc::new(Self {
            requests: RefCell::new(requests),
            running: Cell::new(0),
            full_at: Cell::new(usize::MAX),
            used: Cell::new(false),
            retired: Cell::new(false),
            until: Cell::new(now),
            born: now,
            whose,
            pulse,
        }))
    }

    pub(super) fn room(&self) -> Room {
        if self.retired.get() {
            return Room::Gone;
        }
        let mut requests = self.requests.borrow_mut();
        match requests.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Err(_)) => Room::Gone,
            Poll::Ready(Ok(())) if self.running.get() < requests.current_max_send_streams().min(STREAMS).min(self.full_at.get()) => {
                Room::Some
            }
            Poll::Ready(Ok(())) | Poll::Pending => Room::None,
        }
    }

    /// Requests that it may carry at once.
    pub(super) fn most(&self) -> usize {
        self.requests.borrow().current_max_send_streams().min(STREAMS)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.get() == 0
    }

    /// Takes no further request.
    pub(super) fn retire(&self) {
        self.retired.set(true);
    }
}

fn no_http2(error: ::h2::Error) -> io::Error {
    match error.into_io() {
        Some(error) if error.kind() != io::ErrorKind::InvalidData => error,
        Some(error) => unfit(format!("the server does not speak HTTP/2: {error}")),
        None => unfit("the server does not speak HTTP/2: expected its SETTINGS, found other bytes".to_owned()),
    }
}

/// A stream's place on a connection.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) link: Rc<Link>,
    home: Rc<Server>,
    /// `Pulse::reads` of the whole connection when it was taken.
    reads: u32,
}

impl Lease {
    /// And whether the connection has carried a request before.
    pub(super) fn new(link: &Rc<Link>, home: &Rc<Server>) -> (Self, bool) {
        link.running.set(link.running.get() + 1);
        let used = link.used.replace(true);
        (Self { link: Rc::clone(link), home: Rc::clone(home), reads: link.pulse.reads.get() }, used)
    }

    /// A stream timed out. Where the whole connection brought nothing meanwhile, its other end may have vanished: it gets no further request.
    pub(super) fn doubt(&self) {
        if self.link.pulse.reads.get() == self.reads {
            self.link.retire();
        }
    }

    /// The server refused the stream. Whether it had others here at that time, which explains it.
    pub(super) fn refused(&self) -> bool {
        let others = self.link.running.get().saturating_sub(1);
        if others > 0 {
            self.link.full_at.set(others);
        }
        others > 0
    }

    /// Opens the stream. Where that fails, not a byte was sent, and the body is whole.
    pub(super) fn start(&self, head: Request<()>, body: RequestBody, pulse: &Rc<Pulse>) -> Result<Exchanged, (::h2::Error, RequestBody)> {
        let ends = body.is_end_stream();
        let mut requests = self.link.requests.borrow().clone();
        match requests.send_request(head, ends) {
            Err(error) => Err((error, body)),
            Ok((response, stream)) => {
                let done = Rc::new(Cell::new(ends));
                let sent = (!ends).then(VecDeque::new);
                let pulse = Rc::clone(pulse);
                let outgoing = Outgoing { stream, body, chunk: Bytes::new(), last: false, sent, kept: 0, done, pulse };
                Ok(Exchanged { response, outgoing })
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let left = self.link.running.get().saturating_sub(1);
        self.link.running.set(left);
        if left < self.link.full_at.get() {
            self.link.full_at.set(usize::MAX);
        }
        self.home.left(&self.link);
    }
}

/// One request and its answer. Dropped, it tells the app that nobody waits any more: RST_STREAM with CANCEL.
pub(super) struct Exchanged {
    response: ResponseFuture,
    outgoing: Outgoing,
}

impl Exchanged {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<RecvStream>, ::h2::Error>> {
        if let Some(expecting) = self.outgoing.body.expecting() {
            while let Poll::Ready(Some(Ok(interim))) = self.response.poll_informational(cx) {
                if interim.status() == StatusCode::CONTINUE {
                    expecting.wanted();
                }
            }
        }
        // How the body fares is told by the response, or by the `Flow`.
        let _ = self.outgoing.poll(cx);
        Pin::new(&mut self.response).poll(cx)
    }

    /// The app did not look at the request: the body anew, if all that was sent of it is still here.
    pub(super) fn into_body(self) -> Option<RequestBody> {
        let Outgoing { body, sent, done, .. } = self.outgoing;
        match sent {
            Some(sent) if sent.is_empty() => Some(body),
            Some(sent) => Some(RequestBody::Again { sent, rest: Box::new(body) }),
            None => done.get().then_some(body).filter(|body| matches!(body, RequestBody::Empty)),
        }
    }

    /// The response's body. What is left of the request's goes on in a task of its own, at its own pace.
    pub(super) fn receive(self, stream: RecvStream) -> Box<Receiving> {
        let mut outgoing = self.outgoing;
        outgoing.sent = None;
        let sending = (!outgoing.done.get()).then(|| {
            let task = tokio::task::spawn_local(async move { poll_fn(|cx| outgoing.poll(cx)).await });
            Sending(task.abort_handle())
        });
        Box::new(Receiving { stream, over: false, _sending: sending })
    }
}

/// Whether the app refused a request without a look at it, so that it may be sent again, whatever it is (RFC 9113 section 8.7). A stream gets the
/// server's GOAWAY as its error only when it is beyond the last one that the server looks at.
pub(super) fn is_refused(error: &::h2::Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM))
}

/// The connection went away beneath a stream, rather than the app resetting it.
pub(super) fn is_lost(error: &::h2::Error) -> bool {
    error.is_io()
}

/// A request's body on its way to the app.
struct Outgoing {
    stream: SendStream<Bytes>,
    body: RequestBody,
    /// Waits for the app to read.
    chunk: Bytes,
    /// Nothing comes behind the chunk.
    last: bool,
    /// All that came of the body so far, as long as it is little.
    sent: Option<VecDeque<Bytes>>,
    kept: usize,
    done: Rc<Cell<bool>>,
    pulse: Rc<Pulse>,
}

impl Outgoing {
    /// Ready when all is handed to the connection, or nothing more can be.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.done.get() {
            return Poll::Ready(());
        }
        let result = ready!(self.poll_send(cx));
        self.done.set(true);
        if result.is_err() {
            self.stream.send_reset(Reason::CANCEL);
        }
        Poll::Ready(())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            if !self.chunk.is_empty() {
                self.stream.reserve_capacity(self.chunk.len());
                if self.stream.capacity() == 0 {
                    match ready!(self.stream.poll_capacity(cx)) {
                        Some(Ok(_)) => continue,
                        Some(Err(_)) | None => return Poll::Ready(Err(Broken)),
                    }
                }
                let piece = self.chunk.split_to(self.stream.capacity().min(self.chunk.len()));
                let ends = self.last && self.chunk.is_empty();
                self.stream.send_data(piece, ends).map_err(|_| Broken)?;
                self.pulse.writes.set(self.pulse.writes.get().wrapping_add(1));
                if ends {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            // That the app reset the stream is noticed although the client sends nothing.
            if self.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(Broken));
            }
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(_)) => return Poll::Ready(Err(Broken)),
                None => return Poll::Ready(self.stream.send_data(Bytes::new(), true).map_err(|_| Broken)),
            };
            match frame.into_data() {
                Ok(data) => {
                    self.keep(&data);
                    self.last = self.body.is_end_stream();
                    if data.is_empty() && self.last {
                        return Poll::Ready(self.stream.send_data(data, true).map_err(|_| Broken));
                    }
                    self.chunk = data;
                }
                Err(frame) => {
                    self.sent = None;
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return Poll::Ready(self.stream.send_trailers(trailers).map_err(|_| Broken));
                }
            }
        }
    }

    fn keep(&mut self, data: &Bytes) {
        self.kept += data.len();
        if self.kept > KEPT {
            self.sent = None;
        } else if let Some(sent) = &mut self.sent {
            sent.push_back(data.clone());
        }
    }
}

/// The rest of a request cannot be sent, or nobody sends it.
struct Broken;

/// The task that sends the rest of a request; it ends with the response.
struct Sending(AbortHandle);

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A response's body on its way from the app. Dropped before its end, it tells the app: RST_STREAM with CANCEL.
pub(super) struct Receiving {
    stream: RecvStream,
    over: bool,
    _sending: Option<Sending>,
}

impl Receiving {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Some(data) = ready!(self.stream.poll_data(cx)) {
            return Poll::Ready(Some(match data {
                Ok(data) => {
                    // Asked for when the client's connection has room: only then may the app send more.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    Ok(Frame::data(data))
                }
                Err(error) => Err(cut(&error)),
            }));
        }
        let trailers = ready!(self.stream.poll_trailers(cx));
        self.over = true;
        Poll::Ready(match trailers {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => Some(Err(cut(&error))),
        })
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.over || self.stream.is_end_stream()
    }
}

/// The client's stream is reset with the code that it can make sense of: of the app's own, those that speak of the request alone.
fn cut(error: &::h2::Error) -> Cut {
    let reason = match error.reason() {
        Some(reason @ (Reason::CANCEL | Reason::ENHANCE_YOUR_CALM)) if error.is_reset() && error.is_remote() => reason,
        _ => Reason::INTERNAL_ERROR,
    };
    tracing::debug!(%error, "the app reset its response");
    Cut::Reset(reason.into())
}
