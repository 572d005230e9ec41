//! A request's body on its way to the app.

use std::cell::Cell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Request, request};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::expect::Expecting;
use super::hygiene;
use super::paced::Paced;
use super::rates::Lanes;
use super::rest::Rest;
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
    pub(super) fn stop(&self) {
        self.stopped.set(true);
        if let Some(waker) = self.body.take() {
            waker.wake();
        }
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
        expecting: Option<Box<Expecting>>,
    },
}

/// Why a request's body was broken off; what matters is in the `Flow`.
#[derive(Debug, thiserror::Error)]
#[error("the request's body was broken off")]
pub(super) struct BrokenOff;

impl RequestBody {
    /// The flow is `None` for a body that is empty.
    pub(super) fn new(rest: Rest, (most, trailers, lanes): (u64, bool, Option<&Lanes>), now: Instant) -> (Self, Option<Rc<Flow>>) {
        if rest.is_empty() {
            return (Self::Empty, None);
        }
        let flow = Flow::new(now, trailers);
        let paced = lanes.map(|lanes| Box::new(Paced::new(lanes.clone())));
        (Self::Incoming { rest, left: most, flow: Rc::clone(&flow), paced, expecting: None }, Some(flow))
    }

    /// While it waits for the app to want it.
    pub(super) fn expecting(&self) -> Option<&Expecting> {
        match self {
            Self::Incoming { expecting, .. } => expecting.as_deref(),
            Self::Empty | Self::Again { .. } => None,
        }
    }

    /// The request with this body, which waits until the app wants it.
    pub(super) fn expect(mut self, asked: Box<Expecting>, head: request::Parts) -> Request<Self> {
        let mut request = Request::from_parts(head, ());
        asked.ask(&mut request);
        if let Self::Incoming { expecting, .. } = &mut self {
            *expecting = Some(asked);
        }
        request.map(|()| self)
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
        let Self::Incoming { rest: Rest { incoming: Some(incoming), .. }, left, flow, paced, expecting } = &mut *self else {
            return Poll::Ready(None);
        };
        if flow.stopped.get() || flow.fault.get().is_some() {
            return Poll::Ready(Some(Err(BrokenOff)));
        }
        if let Some(expected) = expecting {
            if expected.poll(cx).is_pending() {
                flow.body.set(Some(cx.waker().clone()));
                return Poll::Pending;
            }
            *expecting = None;
            flow.last.set(Instant::now());
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
            Self::Incoming { rest, paced, .. } => paced.as_ref().is_none_or(|paced| paced.held() == 0) && rest.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            // Over HTTP/2, where the head says the length.
            Self::Again { .. } => SizeHint::default(),
            Self::Incoming { rest, paced, .. } => more_by(rest.size_hint(), paced.as_ref().map_or(0, |paced| paced.held())),
        }
    }
}

/// A declared length ends the body for the app, even where HTTP/2 has yet to say so.
fn is_over(incoming: &Incoming) -> bool {
    incoming.is_end_stream() || incoming.size_hint().exact() == Some(0)
}

pub(super) fn more_by(mut hint: SizeHint, held: usize) -> SizeHint {
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
