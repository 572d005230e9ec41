//! An upgraded connection: bytes both ways between a client and an app, which nobody reads but for where WebSocket frames end.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::body::{End, Ended, Hook, Turn};
use super::driven::{Left, Stream};
use super::fate::{Fate, Say};
use super::frames::Frames;
use super::order::Order;
use super::paced::Paced;
use super::pool::Slot;
use super::timer::Timer;
use super::upstreams::Running;
use crate::config::Timeouts;
use crate::policy::Merged;

/// The app's side of a tunnel, with what it must keep to. The client's side is whoever calls `run`; dropped before that, it ends there.
pub struct Tunnel {
    app: Stream,
    _held: (Slot, Option<Running>),
    to_app: Way,
    to_client: Way,
    /// `None`: not a WebSocket.
    frames: Option<Frames>,
    /// When `max_stream` is over.
    ends: Option<Instant>,
    still: Still,
    fate: Rc<Fate>,
    pub(super) hook: Option<Hook>,
}

/// Bytes that stand still.
struct Still {
    /// Both ways.
    tunnel: Duration,
    /// One side has ended, and the other does not.
    half: Duration,
    moved: Instant,
    timer: Timer,
    end: Timer,
}

impl Tunnel {
    /// `running`: the request that became the tunnel, which runs for as long.
    pub(super) fn new((left, running): (Left, Option<Running>), order: &Order<'_>, merged: &Merged, timeouts: &Timeouts) -> Self {
        let Left { stream, behind, slot } = left;
        let bounds = order.bounds;
        let way = |most: Option<u64>| Way { paced: bounds.lanes.clone().map(Paced::new), left: most.unwrap_or(u64::MAX), ..Way::default() };
        let mut to_client = way(merged.max_response);
        let mut frames = order.upgrade.is_some_and(|upgrade| upgrade.is_websocket()).then(Frames::default);
        to_client.take(behind, frames.as_mut());
        Self {
            app: stream,
            _held: (slot, running),
            to_app: way(merged.max_body),
            to_client,
            frames,
            ends: bounds.ends,
            still: Still {
                tunnel: timeouts.tunnel,
                half: timeouts.idle.min(timeouts.tunnel),
                moved: Instant::now(),
                timer: Timer::default(),
                end: Timer::default(),
            },
            fate: Fate::new(),
            hook: None,
        }
    }

    /// Until both sides have ended, or one fails, or it is cut. `early`: what the client sent behind its request.
    pub async fn run(mut self: Box<Self>, mut client: impl AsyncRead + AsyncWrite + Unpin, early: Bytes) {
        if let Some(hook) = &mut self.hook {
            hook(Turn::Long(&self.fate));
        }
        self.still.moved = Instant::now();
        self.to_app.take(early, None);
        let end = poll_fn(|cx| self.poll(&mut client, cx)).await;
        // What has come from one side is not to be lost for its failure; a cut loses all.
        if matches!(end, End::Cut | End::Dropped) {
            let rest = poll_fn(|cx| self.poll_rest(end, &mut client, cx));
            let _ = tokio::time::timeout(Duration::from_secs(1), rest).await;
        }
        self.report(end);
    }

    fn poll(&mut self, mut client: impl AsyncRead + AsyncWrite + Unpin, cx: &mut Context<'_>) -> Poll<End> {
        match self.fate.heed(cx) {
            Say::Cut => return Poll::Ready(End::Outlawed),
            Say::Leave => {
                if let Some(close) = self.frames.as_mut().and_then(Frames::close) {
                    self.to_client.last = close;
                }
            }
            Say::Nothing => {}
        }
        if self.ends.is_some_and(|ends| self.still.end.poll(cx, ends).is_ready()) {
            return Poll::Ready(End::Late);
        }
        let before = self.moved();
        let leaving = self.fate.said() == Say::Leave;
        let up = self.to_app.poll(cx, &mut client, &mut self.app, None);
        let down = self.to_client.poll(cx, &mut self.app, &mut client, self.frames.as_mut().map(|frames| (frames, leaving)));
        match (up, down) {
            // Both have said all; how the one leaves that was waited for is no matter.
            (Poll::Ready(Err(Broken::Reading)), Poll::Ready(Ok(()))) | (Poll::Ready(Ok(())), Poll::Ready(Err(Broken::Reading))) => {
                return Poll::Ready(End::Whole);
            }
            (Poll::Ready(Err(broken)), _) => return Poll::Ready(broken.end(End::Dropped, End::Cut, End::Sent)),
            (_, Poll::Ready(Err(broken))) => return Poll::Ready(broken.end(End::Cut, End::Dropped, End::Large)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(End::Whole),
            _ => {}
        }
        if self.moved() != before || self.to_app.is_held() || self.to_client.is_held() {
            self.still.moved = Instant::now();
        }
        let half = self.to_app.at != At::Open || self.to_client.at != At::Open;
        let patience = if half { self.still.half } else { self.still.tunnel };
        ready!(self.still.timer.poll(cx, self.still.moved + patience));
        // The client has all of the app's; that it stays is no loss.
        Poll::Ready(if self.to_client.at == At::Over { End::Whole } else { End::Still })
    }

    /// The side that is left gets what has come for it, and its end.
    fn poll_rest(&mut self, failed: End, client: impl AsyncRead + AsyncWrite + Unpin, cx: &mut Context<'_>) -> Poll<()> {
        let done = match failed {
            End::Cut => self.to_client.poll_close(cx, client),
            _ => self.to_app.poll_close(cx, &mut self.app),
        };
        done.map(drop)
    }

    fn moved(&self) -> (u64, u64) {
        (self.to_app.bytes, self.to_client.bytes)
    }

    fn report(&mut self, end: End) {
        if let Some(mut hook) = self.hook.take() {
            let (bytes_in, bytes_out) = self.moved();
            hook(Turn::Ended(Ended { bytes_in, bytes_out, end }, Instant::now()));
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.report(if self.fate.said() == Say::Leave { End::Drained } else { End::Dropped });
    }
}

/// One direction. Nothing is read while anything waits to be written, so that whoever sends feels it.
#[derive(Default)]
struct Way {
    /// To be written now.
    out: Bytes,
    /// Bytes that wait for their turn.
    paced: Option<Paced>,
    /// Behind all that; then nothing more goes.
    last: Bytes,
    /// Bytes that may still come.
    left: u64,
    exceeded: bool,
    /// Written and not flushed.
    flushes: bool,
    /// That went.
    bytes: u64,
    at: At,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Open,
    /// The sender has ended; the receiver is to be told.
    Ending,
    Over,
}

/// Why a direction ended before its time.
enum Broken {
    Reading,
    Writing,
    /// More came than may.
    Large,
}

impl Broken {
    fn end(&self, reading: End, writing: End, large: End) -> End {
        match self {
            Self::Reading => reading,
            Self::Writing => writing,
            Self::Large => large,
        }
    }
}

impl Way {
    /// Bytes in one read. Allocated only while there is something to read, and of a size that workers keep.
    const PART: usize = 8 << 10;
    /// Reads in one go, so that one busy tunnel does not starve the worker's other connections.
    const ROUNDS: usize = 16;

    fn is_held(&self) -> bool {
        self.paced.as_ref().is_some_and(|paced| paced.held() > 0)
    }

    /// Takes what came; only when nothing is held.
    fn take(&mut self, mut bytes: Bytes, frames: Option<&mut Frames>) {
        let size = bytes.len() as u64;
        if size > self.left {
            self.exceeded = true;
            bytes.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        }
        self.left = self.left.saturating_sub(size);
        if let Some(frames) = frames {
            frames.pass(&bytes);
        }
        match &mut self.paced {
            Some(paced) => paced.hold(bytes),
            None => self.out = bytes,
        }
    }

    /// `frames`, and whether a Close of our own is to go as soon as one frame ends.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        mut frames: Option<(&mut Frames, bool)>,
    ) -> Poll<Result<(), Broken>> {
        for _ in 0..Self::ROUNDS {
            ready!(self.poll_out(cx, &mut to)).map_err(|_| Broken::Writing)?;
            if self.exceeded {
                return Poll::Ready(Err(Broken::Large));
            }
            match self.at {
                At::Open => {}
                At::Ending => {
                    ready!(Pin::new(&mut to).poll_shutdown(cx)).map_err(|_| Broken::Writing)?;
                    self.at = At::Over;
                    return Poll::Ready(Ok(()));
                }
                At::Over => return Poll::Ready(Ok(())),
            }
            let mut part = BytesMut::with_capacity(Self::PART);
            let read = pin!(from.read_buf(&mut part)).poll_unpin(cx);
            match read {
                Poll::Pending => {
                    ready!(self.poll_flush(cx, &mut to)).map_err(|_| Broken::Writing)?;
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0)) => self.at = At::Ending,
                // TLS without its goodbye.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => self.at = At::Ending,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Reading)),
                Poll::Ready(Ok(_)) => match &mut frames {
                    // Behind our Close nothing may follow.
                    Some((frames, _)) if frames.is_closed_by_us() => {}
                    Some((frames, true)) => {
                        let (whole, close) = frames.until_close(part.freeze());
                        self.take(whole, None);
                        self.last = close.unwrap_or_default();
                    }
                    Some((frames, false)) => self.take(part.freeze(), Some(frames)),
                    None => self.take(part.freeze(), None),
                },
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what waits, and ends.
    fn poll_close(&mut self, cx: &mut Context<'_>, mut to: impl AsyncWrite + Unpin) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx, &mut to))?;
        Pin::new(&mut to).poll_shutdown(cx)
    }

    fn poll_out(&mut self, cx: &mut Context<'_>, mut to: impl AsyncWrite + Unpin) -> Poll<io::Result<()>> {
        loop {
            while !self.out.is_empty() {
                let written = ready!(Pin::new(&mut to).poll_write(cx, &self.out))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.out.advance(written);
                self.bytes += written as u64;
                self.flushes = true;
            }
            // Nobody's buffer is to be kept for as long as a tunnel is silent.
            self.out = Bytes::new();
            if let Some(paced) = &mut self.paced {
                match paced.poll_piece(cx) {
                    Poll::Ready(Some(piece)) => {
                        self.out = piece;
                        continue;
                    }
                    Poll::Ready(None) => {}
                    Poll::Pending => {
                        ready!(self.poll_flush(cx, to))?;
                        return Poll::Pending;
                    }
                }
            }
            if self.last.is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.out = std::mem::take(&mut self.last);
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, mut to: impl AsyncWrite + Unpin) -> Poll<io::Result<()>> {
        if self.flushes {
            ready!(Pin::new(&mut to).poll_flush(cx))?;
            self.flushes = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").field("bytes", &self.moved()).finish_non_exhaustive()
    }
}
