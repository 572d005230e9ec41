//! The body of an answer, an app's or our own, on its way to the client.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::arriving::Arriving;
use super::bound::Bound;
use super::fate::{Fate, Say};
use super::pool::Conn;
use super::tunnel::Tunnel;
use super::upload::{Flow, more_by};

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
    /// By us: the request's body, of a tunnel, grew past `max_body`.
    Sent,
    /// By us: nothing moved in a tunnel.
    Still,
    /// By us: the rules or the device's standing changed, and it may no longer run.
    Outlawed,
    /// By us: a tunnel that did not end while the proxy drained.
    Drained,
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
    #[error("the response may no longer run")]
    Outlawed,
}

impl Cut {
    const fn end(&self) -> End {
        match self {
            Self::App(_) | Self::Reset(_) | Self::Still => End::Cut,
            Self::Large => End::Large,
            Self::Late => End::Late,
            Self::Outlawed => End::Outlawed,
        }
    }
}

/// What whoever records an exchange is told of it.
#[derive(Clone, Copy, Debug)]
pub enum Turn<'a> {
    /// It lasts: what is said to `fate` from now on is heard. At most once.
    Long(&'a Rc<Fate>),
    /// Once, and the last. When, as who looked at the clock last has it.
    Ended(Ended, Instant),
}

pub(super) type Hook = Box<dyn FnMut(Turn<'_>)>;

/// The body of every response: an app's, streamed, or one of our own.
pub struct Body {
    kind: Kind,
    bytes_out: u64,
    flow: Option<Rc<Flow>>,
    /// `None` for nearly all.
    bound: Option<Box<Bound>>,
    hook: Option<Hook>,
}

enum Kind {
    Empty,
    Full(Bytes),
    App(Stream),
    /// Behind a head that switches protocols; whoever has the client's connection takes it.
    Tunnel(Box<Tunnel>),
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
    /// Frames that came, to look at the clock now and then.
    frames: u8,
    age: Age,
}

/// Streams that last are looked after, by whoever is told of them.
enum Age {
    /// Since its request came.
    Young(Instant),
    Old(Rc<Fate>),
}

impl Age {
    /// From then on. Nearly all answers are over by then.
    const LONG: Duration = Duration::from_secs(1);

    /// When it is to be told of, if it was not.
    fn due(&self) -> Option<Instant> {
        match self {
            Self::Young(since) => Some(*since + Self::LONG),
            Self::Old(_) => None,
        }
    }

    fn comes(&mut self, hook: Option<&mut Hook>) {
        let fate = Fate::new();
        if let Some(hook) = hook {
            hook(Turn::Long(&fate));
        }
        *self = Self::Old(fate);
    }
}

impl Body {
    pub fn empty() -> Self {
        Self::of(Kind::Empty)
    }

    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::of(if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) })
    }

    pub(super) fn tunnel(tunnel: Tunnel) -> Self {
        Self::of(Kind::Tunnel(Box::new(tunnel)))
    }

    /// Calls `hook` at the body's end, at the latest when it is dropped, and before that when it lasts. A second hook replaces the first.
    pub fn tell(&mut self, hook: impl FnMut(Turn<'_>) + 'static) {
        self.hook = Some(Box::new(hook));
    }

    /// What the head switches to. What is left here is empty.
    pub fn take_tunnel(&mut self) -> Option<Box<Tunnel>> {
        match std::mem::replace(&mut self.kind, Kind::Empty) {
            Kind::Tunnel(mut tunnel) => {
                tunnel.hook = self.hook.take();
                Some(tunnel)
            }
            kind => {
                self.kind = kind;
                None
            }
        }
    }

    pub(super) fn of_app(
        incoming: Arriving,
        mut conn: Conn,
        flow: Option<Rc<Flow>>,
        (idle, bound): (Duration, Option<Box<Bound>>),
        begun: Instant,
    ) -> Self {
        if flow.as_ref().is_some_and(|flow| !flow.ended.get()) {
            // Polled for the response alone, the request would wait for a client that does not read yet.
            conn.detach();
        }
        let writes = conn.pulse().writes.get();
        let whole = incoming.is_end_stream();
        let mut body = Self::of(Kind::App(Stream { incoming, conn, idle, quiet: None, writes, frames: 0, age: Age::Young(begun) }));
        body.flow = flow;
        body.bound = bound;
        if whole {
            body.ends(Kind::Empty, Instant::now());
        }
        body
    }

    fn of(kind: Kind) -> Self {
        Self { kind, bytes_out: 0, flow: None, bound: None, hook: None }
    }

    /// The app's response is over: the connection goes back when the request is over too.
    fn ends(&mut self, last: Kind, now: Instant) {
        let Kind::App(stream) = std::mem::replace(&mut self.kind, last) else { return };
        match &self.flow {
            // An answer before the request's end: the rest of the request interests nobody.
            Some(flow) if !flow.ended.get() => flow.stop(),
            _ => stream.conn.give_back(stream.idle, now),
        }
    }

    fn cut(&mut self, end: End) {
        if let Some(flow) = &self.flow {
            flow.stop();
        }
        self.kind = Kind::Cut;
        self.report(end, None);
    }

    /// The whole of the app's answer has come.
    fn whole(&mut self) {
        let now = Instant::now();
        self.ends(Kind::Empty, now);
        self.report(End::Whole, Some(now));
    }

    fn report(&mut self, end: End, now: Option<Instant>) {
        if let Some(mut hook) = self.hook.take() {
            let bytes_in = self.flow.as_ref().map_or(0, |flow| flow.bytes.get());
            hook(Turn::Ended(Ended { bytes_in, bytes_out: self.bytes_out, end }, now.unwrap_or_else(Instant::now)));
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let end = match &self.kind {
            Kind::Empty => End::Whole,
            Kind::Full(_) | Kind::App(_) | Kind::Tunnel(_) => End::Dropped,
            Kind::Breaking(cut) => cut.end(),
            Kind::Cut => End::Cut,
        };
        if let (Kind::App(_) | Kind::Breaking(_), Some(flow)) = (&self.kind, &self.flow) {
            flow.stop();
        }
        self.report(end, None);
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = &mut *self;
        match &mut this.kind {
            Kind::Empty | Kind::Cut | Kind::Tunnel(_) => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.bytes_out = bytes.len() as u64;
                this.kind = Kind::Empty;
                this.report(End::Whole, None);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Breaking(_) => {
                let Kind::Breaking(cut) = std::mem::replace(&mut this.kind, Kind::Cut) else { return Poll::Ready(None) };
                this.cut(cut.end());
                Poll::Ready(Some(Err(cut)))
            }
            Kind::App(Stream { age: Age::Old(fate), .. }) if fate.heed(cx) == Say::Cut => {
                this.cut(End::Outlawed);
                Poll::Ready(Some(Err(Cut::Outlawed)))
            }
            Kind::App(stream) => match stream.poll_bound(this.bound.as_deref_mut(), cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    stream.quiet = None;
                    stream.frames = stream.frames.wrapping_add(1);
                    if stream.frames.is_multiple_of(Stream::LOOK) && stream.age.due().is_some_and(|due| Instant::now() >= due) {
                        stream.age.comes(this.hook.as_mut());
                    }
                    let whole = stream.incoming.is_end_stream() && this.bound.as_ref().is_none_or(|bound| bound.is_even());
                    this.bytes_out += frame.data_ref().map_or(0, |data| data.len() as u64);
                    if whole {
                        this.whole();
                    }
                    Poll::Ready(Some(Ok(frame)))
                }
                Poll::Ready(None) => {
                    this.whole();
                    Poll::Ready(None)
                }
                Poll::Ready(Some(Err(cut))) => {
                    this.kind = Kind::Breaking(cut);
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Poll::Pending if this.bound.as_ref().is_some_and(|bound| bound.held() > 0) => Poll::Pending,
                Poll::Pending if stream.poll_still(this.flow.as_deref(), this.hook.as_mut(), cx).is_ready() => {
                    this.cut(End::Cut);
                    Poll::Ready(Some(Err(Cut::Still)))
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty | Kind::Tunnel(_) => true,
            Kind::Full(_) | Kind::Breaking(_) | Kind::Cut => false,
            Kind::App(stream) => stream.incoming.is_end_stream() && self.bound.as_ref().is_none_or(|bound| bound.is_even()),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty | Kind::Tunnel(_) => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::App(stream) => more_by(stream.incoming.size_hint(), self.bound.as_ref().map_or(0, |bound| bound.held())),
            Kind::Breaking(_) | Kind::Cut => SizeHint::default(),
        }
    }
}

impl Stream {
    /// Frames between two looks at the clock. An answer that comes faster than the client reads is never waited for.
    const LOOK: u8 = 8;

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
    fn poll_still(&mut self, flow: Option<&Flow>, mut hook: Option<&mut Hook>, cx: &mut Context<'_>) -> Poll<()> {
        let mut since = *self.quiet.get_or_insert_with(Instant::now);
        loop {
            // One timer for both: it moves on once a second at most, however many answers a connection carries.
            let (idle, due) = (since + self.idle, self.age.due());
            ready!(self.conn.timer().poll(cx, due.map_or(idle, |due| due.min(idle))));
            if due.is_some_and(|due| due < idle) {
                self.age.comes(hook.take());
                if let Age::Old(fate) = &self.age {
                    let _ = fate.heed(cx);
                }
                continue;
            }
            let moved = flow.filter(|flow| !flow.ended.get()).map(|flow| flow.last.get()).filter(|last| *last > since);
            let writes = self.conn.pulse().writes.get();
            since = match moved {
                Some(last) => last,
                None if writes != self.writes => Instant::now(),
                None => return Poll::Ready(()),
            };
            self.writes = writes;
            self.quiet = Some(since);
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Empty => "empty",
            Kind::Full(_) => "full",
            Kind::App(_) => "app",
            Kind::Tunnel(_) => "tunnel",
            Kind::Breaking(_) | Kind::Cut => "cut",
        };
        f.debug_struct("Body").field("kind", &kind).field("bytes_out", &self.bytes_out).finish_non_exhaustive()
    }
}
