//! Bodies on their way, in both directions.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::arriving::Arriving;
use super::bound::Bound;
use super::hygiene;
use super::paced::Paced;
use super::pool::Conn;
use super::rates::Lanes;
use super::trickle::Trickle;

/// What both sides of one exchange know of the request's body.
pub(super) struct Flow {
    pub(super) bytes: Cell<u64>,
    /// When the last bytes came, or the end.
    pub(super) last: Cell<Instant>,
    pub(super) ended: Cell<bool>,
    /// The upstream connection would take more, the client has sent nothing.
    pub(super) waiting: Cell<bool>,
    pub(super) fault: Cell<Option<Fault>>,
    pub(super) trickle: Trickle,
    stopped: Cell<bool>,
    /// Whether the app may have the request's.
    trailers: bool,
    /// Those that ended the body, until they are sent.
    trailing: Cell<Option<Box<HeaderMap>>>,
    /// Of the upstream connection, while it waits for the client.
    body: Cell<Option<Waker>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    TooLarge,
    Client,
}

impl Flow {
    fn new(now: Instant, trailers: bool) -> Rc<Self> {
        Rc::new(Self {
            bytes: Cell::new(0),
            last: Cell::new(now),
            ended: Cell::new(false),
            waiting: Cell::new(false),
            fault: Cell::new(None),
            trickle: Trickle::default(),
            stopped: Cell::new(false),
            trailers,
            trailing: Cell::new(None),
            body: Cell::new(None),
        })
    }

    /// The client's next bytes, counted.
    fn poll_client(&self, incoming: &mut Incoming, left: &mut u64, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        let frame = match Pin::new(&mut *incoming).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                self.waiting.set(true);
                self.trickle.waits(Instant::now);
                self.body.set(Some(cx.waker().clone()));
                return Poll::Pending;
            }
        };
        self.waiting.set(false);
        let now = Instant::now();
        self.last.set(now);
        self.trickle.came(now);
        // Anything but data is a trailer, and the end.
        match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => {
                let size = data.len() as u64;
                if size > *left {
                    self.fault.set(Some(Fault::TooLarge));
                    return Poll::Ready(Some(Err(BrokenOff)));
                }
                *left -= size;
                self.bytes.set(self.bytes.get() + size);
                if is_over(incoming) {
                    self.ended.set(true);
                }
                Poll::Ready(Some(Ok(data)))
            }
            Some(Ok(Err(frame))) => {
                self.ended.set(true);
                if let Some(mut trailers) = frame.into_trailers().ok().filter(|_| self.trailers) {
                    hygiene::request_trailers(&mut trailers);
                    self.trailing.set(Some(Box::new(trailers)));
                }
                Poll::Ready(None)
            }
            None => {
                self.ended.set(true);
                Poll::Ready(None)
            }
            Some(Err(_)) => {
                self.fault.set(Some(Fault::Client));
                Poll::Ready(Some(Err(BrokenOff)))
            }
        }
    }

    /// The end of the body: its trailers, where the app may have them.
    fn end(&self) -> Option<Result<Frame<Bytes>, BrokenOff>> {
        self.trailing.take().map(|trailers| Ok(Frame::trailers(*trailers)))
    }

    /// Nobody needs the rest: the upstream connection ends, and lets go of the client's body.
    fn stop(&self) {
        self.stopped.set(true);
        if let Some(waker) = self.body.take() {
            waker.wake();
        }
    }
}

/// The rest of an HTTP/2 request that is answered already, from its drop on: read and thrown away, so far and so long. Without the rest our RST_STREAM
/// follows the answer at once (RFC 9113 section 8.1), and widespread clients (curl before 8) take that for a failed request.
pub struct Rest {
    /// Gone from its drop on.
    incoming: Option<Incoming>,
    http2: bool,
}

impl Rest {
    const BYTES: usize = 256 << 10;
    const TIME: Duration = Duration::from_secs(2);

    /// HTTP/1 has no need of it: there the connection ends, in its own way.
    pub fn of(incoming: Incoming, version: Version) -> Self {
        Self { incoming: Some(incoming), http2: version == Version::HTTP_2 }
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        let Some(mut incoming) = self.incoming.take().filter(|incoming| self.http2 && !incoming.is_end_stream()) else { return };
        let mut left = Self::BYTES;
        let drained = poll_fn(move |cx| {
            while let Some(Ok(frame)) = ready!(Pin::new(&mut incoming).poll_frame(cx)) {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    break;
                }
            }
            Poll::Ready(())
        });
        tokio::task::spawn_local(tokio::time::timeout(Self::TIME, drained));
    }
}

/// The client's body on its way to the app: at most so many bytes, and no trailers but where the app takes them.
pub(super) enum RequestBody {
    Empty,
    /// What was sent once to an app that did not look at it, and then the rest.
    Again {
        sent: VecDeque<Bytes>,
        rest: Box<RequestBody>,
    },
    Incoming {
        rest: Rest,
        left: u64,
        flow: Rc<Flow>,
        paced: Option<Box<Paced>>,
    },
}

/// Why a request's body was broken off; what matters is in the `Flow`.
#[derive(Debug, thiserror::Error)]
#[error("the request's body was broken off")]
pub(super) struct BrokenOff;

impl RequestBody {
    /// The flow is `None` for a body that is empty.
    pub(super) fn new(
        incoming: Incoming,
        version: Version,
        (most, trailers, lanes): (u64, bool, Option<&Lanes>),
        now: Instant,
    ) -> (Self, Option<Rc<Flow>>) {
        if incoming.is_end_stream() {
            return (Self::Empty, None);
        }
        let flow = Flow::new(now, trailers);
        let paced = lanes.map(|lanes| Box::new(Paced::new(lanes.clone())));
        (Self::Incoming { rest: Rest::of(incoming, version), left: most, flow: Rc::clone(&flow), paced }, Some(flow))
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if let Self::Again { sent, rest } = &mut *self {
            return match sent.pop_front() {
                Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
                None => Pin::new(&mut **rest).poll_frame(cx),
            };
        }
        let Self::Incoming { rest: Rest { incoming: Some(incoming), .. }, left, flow, paced } = &mut *self else {
            return Poll::Ready(None);
        };
        if flow.stopped.get() || flow.fault.get().is_some() {
            return Poll::Ready(Some(Err(BrokenOff)));
        }
        let Some(paced) = paced else {
            return match ready!(flow.poll_client(incoming, left, cx)) {
                Some(data) => Poll::Ready(Some(data.map(Frame::data))),
                None => Poll::Ready(flow.end()),
            };
        };
        if paced.held() == 0 {
            match ready!(flow.poll_client(incoming, left, cx)) {
                Some(Ok(data)) => paced.hold(data),
                Some(Err(broken)) => return Poll::Ready(Some(Err(broken))),
                None => return Poll::Ready(flow.end()),
            }
            flow.ended.set(false);
        }
        match paced.poll_piece(cx) {
            Poll::Ready(piece) => {
                flow.last.set(Instant::now());
                if paced.held() == 0 && is_over(incoming) {
                    flow.ended.set(true);
                }
                Poll::Ready(Some(Ok(Frame::data(piece.unwrap_or_default()))))
            }
            Poll::Pending => {
                // Neither side stands still: it is we who wait.
                flow.last.set(paced.due().unwrap_or_else(Instant::now));
                flow.body.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Again { sent, rest } => sent.is_empty() && rest.is_end_stream(),
            Self::Incoming { rest, paced, .. } => {
                paced.as_ref().is_none_or(|paced| paced.held() == 0) && rest.incoming.as_ref().is_none_or(Incoming::is_end_stream)
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            // Over HTTP/2, where the head says the length.
            Self::Again { .. } => SizeHint::default(),
            Self::Incoming { rest, paced, .. } => {
                let hint = rest.incoming.as_ref().map(Incoming::size_hint).unwrap_or_default();
                more_by(hint, paced.as_ref().map_or(0, |paced| paced.held()))
            }
        }
    }
}

/// A declared length ends the body for the app, even where HTTP/2 has yet to say so.
fn is_over(incoming: &Incoming) -> bool {
    incoming.is_end_stream() || incoming.size_hint().exact() == Some(0)
}

fn more_by(mut hint: SizeHint, held: usize) -> SizeHint {
    let held = held as u64;
    if held > 0 {
        let upper = hint.upper().map(|upper| upper.saturating_add(held));
        let lower = hint.lower().saturating_add(held);
        hint = SizeHint::new();
        hint.set_lower(lower);
        if let Some(upper) = upper {
            hint.set_upper(upper);
        }
    }
    hint
}

/// How a response's body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All of it was handed to the client's connection.
    Whole,
    /// The app broke it off, or stood still for too long: the client sees a response that is cut, here and in the next two.
    Cut,
    /// By us: it grew past `max_response`.
    Large,
    /// By us: it lasted past `max_stream`.
    Late,
    /// The client's connection lost interest first.
    Dropped,
}

/// What an exchange came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Of the request's body, as it went to the app.
    pub bytes_in: u64,
    /// Of the response's body.
    pub bytes_out: u64,
    pub end: End,
}

/// A response's body is broken off.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    #[error("the app broke off its response")]
    App(#[source] hyper::Error),
    /// The source says with which code the client's stream is reset in turn.
    #[error("the app reset its response")]
    Reset(#[source] ::h2::Error),
    #[error("the app's response stood still")]
    Still,
    #[error("the response grew past max_response")]
    Large,
    #[error("the response lasted past max_stream")]
    Late,
}

impl Cut {
    const fn end(&self) -> End {
        match self {
            Self::App(_) | Self::Reset(_) | Self::Still => End::Cut,
            Self::Large => End::Large,
            Self::Late => End::Late,
        }
    }
}

/// The body of every response: an app's, streamed, or one of our own.
pub struct Body {
    kind: Kind,
    bytes_out: u64,
    flow: Option<Rc<Flow>>,
    /// `None` for nearly all.
    bound: Option<Box<Bound>>,
    /// Called once, at the end or when dropped.
    hook: Option<Box<dyn FnOnce(Ended)>>,
}

enum Kind {
    Empty,
    Full(Bytes),
    App(Stream),
    /// Broken off; what came before goes out first, for hyper drops what it has not written when a body fails.
    Breaking(Cut),
    /// Nothing more comes; it was cut.
    Cut,
}

struct Stream {
    incoming: Arriving,
    /// Given back at the response's end.
    conn: Conn,
    idle: Duration,
    /// Since when the app has sent nothing.
    quiet: Option<Instant>,
    /// `Pulse::writes` when last looked at.
    writes: u32,
}

impl Body {
    pub fn empty() -> Self {
        Self::of(Kind::Empty)
    }

    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::of(if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) })
    }

    /// Calls `hook` once: at the body's end, at the latest when it is dropped. A second hook replaces the first.
    pub fn on_end(mut self, hook: impl FnOnce(Ended) + 'static) -> Self {
        self.hook = Some(Box::new(hook));
        self
    }

    pub(super) fn of_app(
        incoming: Arriving,
        mut conn: Conn,
        flow: Option<Rc<Flow>>,
        (idle, bound): (Duration, Option<Box<Bound>>),
    ) -> Self {
        if flow.as_ref().is_some_and(|flow| !flow.ended.get()) {
            // Polled for the response alone, the request would wait for a client that does not read yet.
            conn.detach();
        }
        let writes = conn.pulse().writes.get();
        let whole = incoming.is_end_stream();
        let mut body = Self::of(Kind::App(Stream { incoming, conn, idle, quiet: None, writes }));
        body.flow = flow;
        body.bound = bound;
        if whole {
            body.ends(Kind::Empty);
        }
        body
    }

    fn of(kind: Kind) -> Self {
        Self { kind, bytes_out: 0, flow: None, bound: None, hook: None }
    }

    /// The app's response is over: the connection goes back when the request is over too.
    fn ends(&mut self, last: Kind) {
        let Kind::App(stream) = std::mem::replace(&mut self.kind, last) else { return };
        match &self.flow {
            // An answer before the request's end: the rest of the request interests nobody.
            Some(flow) if !flow.ended.get() => flow.stop(),
            _ => stream.conn.give_back(stream.idle),
        }
    }

    fn cut(&mut self, end: End) {
        if let Some(flow) = &self.flow {
            flow.stop();
        }
        self.kind = Kind::Cut;
        self.report(end);
    }

    fn report(&mut self, end: End) {
        if let Some(hook) = self.hook.take() {
            let bytes_in = self.flow.as_ref().map_or(0, |flow| flow.bytes.get());
            hook(Ended { bytes_in, bytes_out: self.bytes_out, end });
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let end = match &self.kind {
            Kind::Empty => End::Whole,
            Kind::Full(_) | Kind::App(_) => End::Dropped,
            Kind::Breaking(cut) => cut.end(),
            Kind::Cut => End::Cut,
        };
        if let (Kind::App(_) | Kind::Breaking(_), Some(flow)) = (&self.kind, &self.flow) {
            flow.stop();
        }
        self.report(end);
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = &mut *self;
        match &mut this.kind {
            Kind::Empty | Kind::Cut => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.bytes_out = bytes.len() as u64;
                this.kind = Kind::Empty;
                this.report(End::Whole);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Breaking(_) => {
                let Kind::Breaking(cut) = std::mem::replace(&mut this.kind, Kind::Cut) else { return Poll::Ready(None) };
                this.cut(cut.end());
                Poll::Ready(Some(Err(cut)))
            }
            Kind::App(stream) => match stream.poll_bound(this.bound.as_deref_mut(), cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    stream.quiet = None;
                    let whole = stream.incoming.is_end_stream() && this.bound.as_ref().is_none_or(|bound| bound.is_even());
                    this.bytes_out += frame.data_ref().map_or(0, |data| data.len() as u64);
                    if whole {
                        this.ends(Kind::Empty);
                        this.report(End::Whole);
                    }
                    Poll::Ready(Some(Ok(frame)))
                }
                Poll::Ready(None) => {
                    this.ends(Kind::Empty);
                    this.report(End::Whole);
                    Poll::Ready(None)
                }
                Poll::Ready(Some(Err(cut))) => {
                    this.kind = Kind::Breaking(cut);
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Poll::Pending if this.bound.as_ref().is_some_and(|bound| bound.held() > 0) => Poll::Pending,
                Poll::Pending if stream.poll_still(this.flow.as_deref(), cx).is_ready() => {
                    this.cut(End::Cut);
                    Poll::Ready(Some(Err(Cut::Still)))
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(_) | Kind::Breaking(_) | Kind::Cut => false,
            Kind::App(stream) => stream.incoming.is_end_stream() && self.bound.as_ref().is_none_or(|bound| bound.is_even()),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::App(stream) => more_by(stream.incoming.size_hint(), self.bound.as_ref().map_or(0, |bound| bound.held())),
            Kind::Breaking(_) | Kind::Cut => SizeHint::default(),
        }
    }
}

impl Stream {
    fn poll_bound(&mut self, bound: Option<&mut Bound>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match bound {
            None => self.poll_frame(cx),
            Some(bound) => bound.poll_next(cx, |cx| self.poll_frame(cx)),
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        self.incoming.poll_frame(&mut self.conn, cx)
    }

    /// Ready when the app has sent nothing for the idle timeout while the request's body did not move either.
    fn poll_still(&mut self, flow: Option<&Flow>, cx: &mut Context<'_>) -> Poll<()> {
        let conn = &mut self.conn;
        let mut since = *self.quiet.get_or_insert_with(Instant::now);
        while conn.timer().poll(cx, since + self.idle).is_ready() {
            let moved = flow.filter(|flow| !flow.ended.get()).map(|flow| flow.last.get()).filter(|last| *last > since);
            let writes = conn.pulse().writes.get();
            since = match moved {
                Some(last) => last,
                None if writes != self.writes => Instant::now(),
                None => return Poll::Ready(()),
            };
            self.writes = writes;
            self.quiet = Some(since);
        }
        Poll::Pending
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Empty => "empty",
            Kind::Full(_) => "full",
            Kind::App(_) => "app",
            Kind::Breaking(_) | Kind::Cut => "cut",
        };
        f.debug_struct("Body").field("kind", &kind).field("bytes_out", &self.bytes_out).finish_non_exhaustive()
    }
}
