//! A connection to an app, driven by the task that uses it.
//!
//! hyper's connection is a future of its own. In a task of its own it would be woken for each request and wake for each response, through two
//! queues; polled by the request's task, it costs neither.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::io::Felt;
use super::pool::Slot;
use super::socket::Socket;
use super::upload::RequestBody;

pub(super) type Stream = Felt<Socket>;
type Connection = http1::Connection<TokioIo<Stream>, RequestBody>;

#[derive(Debug)]
pub(super) struct Driven {
    /// `None`: it ended, or a task of its own has it.
    connection: Option<Box<Open>>,
    relay: Arc<Relay>,
    /// Wakes through the relay.
    waker: Waker,
    calls: Arc<Calls>,
    /// The connection's own, which wakes through the calls.
    caller: Waker,
}

#[derive(Debug)]
struct Open {
    connection: Connection,
    slot: Slot,
    /// What is kept of it when it is over.
    keep: Keep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    Nothing,
    /// An upgrade was asked for: the stream below.
    Stream,
    /// It is over, and the stream is there.
    Kept,
}

/// What an app's 101 leaves: the stream below HTTP, the bytes that came behind the head, and the place among the server's connections.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) stream: Stream,
    pub(super) behind: Bytes,
    pub(super) slot: Slot,
}

/// Wakes whoever drives the connection now. What is woken while it is driven is found by the one who drives, without a round through the runtime.
#[derive(Debug, Default)]
struct Relay {
    driving: AtomicBool,
    again: AtomicBool,
    driver: AtomicWaker,
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.again.store(true, Ordering::Release);
        if !self.driving.load(Ordering::Acquire) {
            self.driver.wake();
        }
    }
}

/// Whether the connection itself was called since it was last polled: if not, nothing has happened to it.
#[derive(Debug)]
struct Calls {
    called: AtomicBool,
    relay: Arc<Relay>,
}

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.called.store(true, Ordering::Release);
        self.relay.wake_by_ref();
    }
}

impl Driven {
    /// Rounds in one go, so that a fast app does not starve the worker's other connections.
    const ROUNDS: usize = 16;

    pub(super) fn new(connection: Connection, slot: Slot) -> Self {
        Self::of(Some(Box::new(Open { connection, slot, keep: Keep::Nothing })))
    }

    fn of(connection: Option<Box<Open>>) -> Self {
        let relay = Arc::new(Relay::default());
        let waker = Waker::from(Arc::clone(&relay));
        let calls = Arc::new(Calls { called: AtomicBool::new(false), relay: Arc::clone(&relay) });
        let caller = Waker::from(Arc::clone(&calls));
        Self { connection, relay, waker, calls, caller }
    }

    /// Polls `wanted` and the connection until `wanted` is ready or neither gets any further; then the task is woken when either might.
    pub(super) fn drive<T>(&mut self, cx: &mut Context<'_>, mut wanted: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        self.relay.driver.register(cx.waker());
        self.relay.driving.store(true, Ordering::Release);
        let mut result = Poll::Pending;
        for _ in 0..Self::ROUNDS {
            self.relay.again.store(false, Ordering::Release);
            let called = self.calls.called.load(Ordering::Acquire);
            result = wanted(&mut Context::from_waker(&self.waker));
            // No call from outside: it matters to a connection that is not idle yet, and that is polled before it is used again.
            self.calls.called.store(called, Ordering::Release);
            if result.is_ready() || self.connection.is_none() {
                break;
            }
            // What it told the connection is heard now.
            self.relay.again.store(false, Ordering::Release);
            self.poll();
            if !self.relay.again.load(Ordering::Acquire) {
                break;
            }
        }
        self.relay.driving.store(false, Ordering::Release);
        if result.is_pending() && self.relay.again.load(Ordering::Acquire) {
            cx.waker().wake_by_ref();
        }
        result
    }

    /// The request that is sent next asks for an upgrade.
    pub(super) fn may_leave(&mut self) {
        if let Some(open) = &mut self.connection {
            open.keep = Keep::Stream;
        }
    }

    /// The app stays with HTTP.
    pub(super) fn stays(&mut self) {
        match &mut self.connection {
            Some(open) if open.keep == Keep::Kept => self.connection = None,
            Some(open) => open.keep = Keep::Nothing,
            None => {}
        }
    }

    /// After an app's 101, with whose head the connection is over for HTTP. `None`: it failed at that.
    pub(super) fn leave(&mut self) -> Option<Left> {
        let open = self.connection.take().filter(|open| open.keep == Keep::Kept)?;
        let Open { connection, slot, .. } = *open;
        let http1::Parts { io, read_buf, .. } = connection.into_parts();
        Some(Left { stream: io.into_inner(), behind: read_buf, slot })
    }

    fn poll_connection(connection: &mut Option<Box<Open>>, cx: &mut Context<'_>) {
        if let Some(open) = connection
            && open.keep != Keep::Kept
            && let Poll::Ready(result) = Pin::new(&mut open.connection).poll(cx)
        {
            if open.keep == Keep::Stream && result.is_ok() {
                open.keep = Keep::Kept;
                return;
            }
            // Whom an error concerns learns it from the request or the body that it cut.
            if let Err(error) = result {
                tracing::debug!(%error, "upstream connection ended");
            }
            *connection = None;
        }
    }

    /// Polls the connection: also while nobody uses it, to notice whether the app closed it.
    pub(super) fn poll(&mut self) {
        // Before, so that a call that comes meanwhile is not forgotten.
        self.calls.called.store(false, Ordering::Release);
        Self::poll_connection(&mut self.connection, &mut Context::from_waker(&self.caller));
    }

    /// Whether it has anything to notice.
    pub(super) fn is_called(&self) -> bool {
        self.calls.called.load(Ordering::Acquire)
    }

    /// Nobody uses it from now on: whoever drove it last is let go of.
    pub(super) fn release(&self) {
        self.relay.driver.take();
    }

    /// Hands the connection to a task of its own: for a request that is still being sent while its response comes, each at its own pace.
    pub(super) fn detach(&mut self) {
        let mut connection = self.connection.take();
        tokio::task::spawn_local(poll_fn(move |cx| {
            Self::poll_connection(&mut connection, cx);
            if connection.is_none() { Poll::Ready(()) } else { Poll::Pending }
        }));
    }

    pub(super) fn is_gone(&self) -> bool {
        self.connection.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So does a channel of tokio's whose task has used up its turn; without a connection nothing else wakes the task.
    #[test]
    fn who_puts_itself_off_is_asked_again_though_the_connection_has_ended() {
        #[derive(Default)]
        struct Woken(AtomicBool);
        impl Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let mut driven = Driven::of(None);
        let woken = Arc::new(Woken::default());
        let task = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&task);
        assert!(driven.drive(&mut cx, |_| Poll::<()>::Pending).is_pending());
        assert!(!woken.0.load(Ordering::Relaxed), "no busy waiting");
        let put_off = driven.drive(&mut cx, |cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert!(put_off.is_pending() && woken.0.swap(false, Ordering::Relaxed));
        assert!(driven.drive(&mut cx, |_| Poll::<()>::Pending).is_pending());
        assert!(!woken.0.load(Ordering::Relaxed), "once");
    }
}
