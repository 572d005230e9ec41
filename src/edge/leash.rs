//! Time limits of connections without a timer for each: every connection notes what it is doing, and once in a while one look at all of them
//! finds those that take too long.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::chatter::{Broken, Chatter};
use super::first::First;
use crate::request::framing;

/// How often the worker looks. A limit is kept to within this.
pub const LOOK: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing asked, nothing under way.
    Waiting,
    /// Bytes of a request's head came, but not yet all.
    Head,
    Busy,
}

/// How long a connection that has only just come may take, when all are to end, until its first request: what a client sent before it could
/// know is answered.
pub const GRACE: Duration = Duration::from_secs(1);

/// What the connection's task is told; never less than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    Go,
    /// Finish what runs, take nothing new.
    Drain,
    Cut,
}

/// Why a connection was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    SlowHead,
    SlowRead,
}

impl Cut {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SlowHead => "slow_head",
            Self::SlowRead => "slow_read",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub idle: Duration,
    pub head: Duration,
}

/// One connection's notes.
#[derive(Debug)]
pub struct Leash {
    listener: Arc<str>,
    now: Rc<Cell<Instant>>,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    /// Requests under way; more than one over HTTP/2.
    running: Cell<u32>,
    /// The peer does not take what was written.
    blocked: Cell<Option<Instant>>,
    order: Cell<Order>,
    /// No request yet, and it may be waited for.
    fresh: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// Over HTTP/2 bytes come that belong to no head, and a peer that takes nothing shows in no socket.
    multiplexed: Cell<bool>,
    /// Answers whose next part the connection could have and has not asked for.
    offers: RefCell<Offers>,
    /// A request is here, whole: the client has nothing more to send before its answer.
    whole: Cell<bool>,
    /// What is written from now on is the connection's last.
    parts: Cell<bool>,
    /// Over HTTP/2: what the peer's frames end the connection for.
    broken: Cell<Option<Broken>>,
    /// Who says whose connection it is.
    balancer: Cell<Option<IpAddr>>,
    /// Nobody looked between which ends the connection is.
    untold: Cell<bool>,
}

impl Leash {
    fn new(listener: Arc<str>, now: Rc<Cell<Instant>>) -> Self {
        let since = now.get();
        Self {
            listener,
            now,
            phase: Cell::new(Phase::Waiting),
            since: Cell::new(since),
            running: Cell::new(0),
            blocked: Cell::new(None),
            order: Cell::new(Order::Go),
            fresh: Cell::new(true),
            waker: RefCell::default(),
            multiplexed: Cell::new(false),
            offers: RefCell::default(),
            whole: Cell::new(false),
            parts: Cell::new(false),
            broken: Cell::new(None),
            balancer: Cell::new(None),
            untold: Cell::new(false),
        }
    }

    pub fn listener(&self) -> &str {
        &self.listener
    }

    pub fn comes_by(&self, balancer: IpAddr) {
        self.balancer.set(Some(balancer));
    }

    pub fn balancer(&self) -> Option<IpAddr> {
        self.balancer.get()
    }

    pub fn is_of_untold_ends(&self, untold: bool) {
        self.untold.set(untold);
    }

    pub fn is_untold(&self) -> bool {
        self.untold.get()
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.now.get());
    }

    fn bytes_came(&self) {
        if self.phase.get() == Phase::Waiting && !self.multiplexed.get() {
            self.enter(Phase::Head);
        }
    }

    /// A request is complete in its head and under way until the guard is dropped.
    pub fn busy(self: &Rc<Self>) -> Busy {
        self.running.set(self.running.get() + 1);
        self.fresh.set(false);
        self.enter(Phase::Busy);
        Busy { leash: Rc::clone(self), offer: None }
    }

    /// No request has come yet, and it may be waited for.
    pub fn is_fresh(&self) -> bool {
        self.fresh.get()
    }

    /// The request under way has no body.
    pub fn asked_whole(&self) {
        self.whole.set(true);
    }

    fn is_asked(&self) -> bool {
        self.whole.get()
    }

    /// An answer's last part goes out, and then the connection ends: for whoever knows both.
    pub fn part(&self) {
        self.parts.set(true);
    }

    pub fn parts(&self) -> bool {
        self.parts.get()
    }

    /// What the peer's frames, and not hyper, ended the connection for.
    pub fn broken(&self) -> Option<Broken> {
        self.broken.get()
    }

    /// Over HTTP/2, where a window that stays shut holds an answer back. What others of the connection's answers do does not help it.
    fn held_back(&self, patience: Duration) -> HeldBack {
        if !self.multiplexed.get() {
            return HeldBack::No;
        }
        let offers = self.offers.borrow();
        let now = self.now.get();
        let waits = |since: &Instant| now.saturating_duration_since(*since);
        let longest = offers.all().map(waits).max().unwrap_or_default();
        if longest < patience {
            HeldBack::No
        } else if longest >= patience.saturating_mul(2) || offers.all().all(|since| waits(since) >= patience) {
            HeldBack::TooLong
        } else {
            HeldBack::BesideOthers
        }
    }

    /// Requests can come from now on.
    pub fn opened(&self) {
        self.enter(Phase::Waiting);
    }

    /// Whether to wind down now.
    pub fn winds_down(&self) -> bool {
        self.order.get() == Order::Drain && !self.fresh.get()
    }

    pub fn order(&self) -> Order {
        self.order.get()
    }

    /// The connection ends now, whatever runs.
    pub fn cut(&self) {
        self.tell(Order::Cut);
    }

    fn tell(&self, order: Order) {
        // Whoever tells all connections over and over wakes each of them once.
        if order <= self.order.get() {
            return;
        }
        self.order.set(order);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// The task to wake when there is an order.
    pub fn heed(&self, waker: &Waker) {
        let mut held = self.waker.borrow_mut();
        if !held.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *held = Some(waker.clone());
        }
    }

    /// Gives the connection its order when its patience is over, and says why when that is the peer's fault.
    fn look(&self, patience: &Patience) -> Option<Cut> {
        if self.order.get() == Order::Cut {
            return None;
        }
        let now = self.now.get();
        let blocked = self.blocked.get().is_some_and(|since| now.saturating_duration_since(since) >= patience.idle);
        match self.held_back(patience.idle) {
            HeldBack::No if !blocked => {}
            // The others are given as long again, and nothing new comes to share their connection.
            HeldBack::BesideOthers if !blocked => self.tell(Order::Drain),
            _ => {
                self.tell(Order::Cut);
                return Some(Cut::SlowRead);
            }
        }
        let waited = now.saturating_duration_since(self.since.get());
        if waited >= GRACE && self.fresh.replace(false) {
            self.wake();
        }
        match self.phase.get() {
            Phase::Waiting if waited >= patience.idle => match self.order.get() {
                // It was asked to end and did not.
                Order::Drain if waited >= patience.idle.saturating_add(patience.head) => self.tell(Order::Cut),
                Order::Drain | Order::Cut => {}
                Order::Go => self.tell(Order::Drain),
            },
            Phase::Head if waited >= patience.head => {
                self.tell(Order::Cut);
                return Some(Cut::SlowHead);
            }
            Phase::Waiting | Phase::Head | Phase::Busy => {}
        }
        None
    }
}

/// Whether a shut window holds answers back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeldBack {
    No,
    /// Others go on.
    BesideOthers,
    TooLong,
}

/// Since when each offered answer waits for the connection to ask for its next part.
#[derive(Debug, Default)]
struct Offers {
    since: Vec<Option<Instant>>,
    free: Vec<usize>,
}

impl Offers {
    fn all(&self) -> impl Iterator<Item = &Instant> {
        self.since.iter().flatten()
    }

    fn add(&mut self, now: Instant) -> usize {
        let place = self.free.pop().unwrap_or(self.since.len());
        match self.since.get_mut(place) {
            Some(since) => *since = Some(now),
            None => self.since.push(Some(now)),
        }
        place
    }

    fn moved(&mut self, place: usize, now: Option<Instant>) {
        if let Some(since) = self.since.get_mut(place) {
            *since = now;
        }
        if now.is_none() {
            self.free.push(place);
        }
    }
}

/// Held while a request is under way.
#[derive(Debug)]
pub struct Busy {
    leash: Rc<Leash>,
    /// The answer's place among the offers.
    offer: Option<usize>,
}

impl Busy {
    /// The connection has just asked for the answer's next part. `more`: there may be another when it asks again; else it is told when.
    pub fn asked(&mut self, more: bool) {
        // Elsewhere a peer that takes nothing shows in the socket.
        if !self.leash.multiplexed.get() {
            return;
        }
        let now = self.leash.now.get();
        let mut offers = self.leash.offers.borrow_mut();
        self.offer = match self.offer {
            None if more => Some(offers.add(now)),
            None => None,
            Some(place) => {
                offers.moved(place, more.then_some(now));
                more.then_some(place)
            }
        };
    }
}

impl Busy {
    /// This is the last answer, and what is left of it goes out now.
    pub fn part(&self) {
        self.leash.part();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.asked(false);
        let left = self.leash.running.get().saturating_sub(1);
        self.leash.running.set(left);
        if left == 0 {
            self.leash.enter(Phase::Waiting);
        }
    }
}

/// All connections of one worker.
#[derive(Debug)]
pub struct Leashes {
    now: Rc<Cell<Instant>>,
    next: Cell<u64>,
    all: RefCell<HashMap<u64, Rc<Leash>>>,
}

impl Leashes {
    pub fn new() -> Rc<Self> {
        Rc::new(Self { now: Rc::new(Cell::new(Instant::now())), next: Cell::new(0), all: RefCell::default() })
    }

    pub fn add(self: &Rc<Self>, listener: &Arc<str>) -> Held {
        self.now.set(Instant::now());
        let leash = Rc::new(Leash::new(Arc::clone(listener), Rc::clone(&self.now)));
        let id = self.next.get();
        self.next.set(id.wrapping_add(1));
        self.all.borrow_mut().insert(id, Rc::clone(&leash));
        Held { leash, id, all: Rc::clone(self) }
    }

    pub fn len(&self) -> usize {
        self.all.borrow().len()
    }

    pub fn tell_all(&self, order: Order) {
        self.tell_those(order, |_| true);
    }

    pub fn tell_those(&self, order: Order, which: impl Fn(&Leash) -> bool) {
        let all: Vec<Rc<Leash>> = self.all.borrow().values().filter(|leash| which(leash)).cloned().collect();
        all.iter().for_each(|leash| leash.tell(order));
    }

    /// One look at every connection.
    pub fn look(&self, patience: &Patience, mut cut: impl FnMut(Cut)) {
        self.now.set(Instant::now());
        self.all.borrow().values().filter_map(|leash| leash.look(patience)).for_each(&mut cut);
    }
}

/// A connection's place among the others, given up when it ends.
#[derive(Debug)]
pub struct Held {
    pub leash: Rc<Leash>,
    id: u64,
    all: Rc<Leashes>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.all.borrow_mut().remove(&self.id);
    }
}

/// What is looked for in the bytes themselves.
#[derive(Debug)]
pub enum Watch {
    /// HTTP/1: what they show of framing before hyper tidies it up.
    Framing(framing::Watch),
    Chatter(Chatter),
    /// What flows is no HTTP.
    Nothing,
}

/// Whether a read would find nothing; then the task is woken as by the read.
pub type Still<S> = fn(&S, &mut Context<'_>) -> bool;

pin_project_lite::pin_project! {
    /// A stream that notes on its leash what comes and what does not go. Vectored writes pass through: without them each response would cost a
    /// second TLS record and a second write.
    #[derive(Debug)]
    pub struct Watched<S> {
        #[pin]
        inner: S,
        leash: Rc<Leash>,
        watch: Watch,
        // Gone when it has seen enough.
        first: Option<First>,
        // Called once, when the first request lets itself be waited for.
        idle: Option<fn(&S)>,
        still: Option<Still<S>>,
    }
}

impl<S> Watched<S> {
    pub fn http1(inner: S, leash: Rc<Leash>) -> Self {
        Self { inner, leash, watch: Watch::Framing(framing::Watch::default()), first: None, idle: None, still: None }
    }

    pub fn http2(inner: S, leash: Rc<Leash>) -> Self {
        leash.multiplexed.set(true);
        let watch = Watch::Chatter(Chatter::new(leash.now.get()));
        Self { inner, leash, watch, first: None, idle: None, still: None }
    }

    /// The same, and `first` sees what comes first.
    pub fn shown_to(self, first: First) -> Self {
        Self { first: Some(first), ..self }
    }

    /// The same, and `idle` is called when a read finds nothing and no whole request has come yet. Not for HTTP/2, where the server speaks first.
    pub fn waiting(self, idle: Option<fn(&S)>) -> Self {
        Self { idle, ..self }
    }

    /// The same, and reads that would find nothing are not tried: HTTP tries three for each request, and through TLS each costs more than to ask.
    pub fn asking(self, still: Option<Still<S>>) -> Self {
        Self { still, ..self }
    }

    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The same, for bytes that are no HTTP.
    pub fn unwatched(self) -> Self {
        Self { watch: Watch::Nothing, first: None, idle: None, ..self }
    }

    /// The stream itself, where the peer is in the middle of an HTTP/1 request.
    pub fn unfinished(self) -> Option<S> {
        matches!(&self.watch, Watch::Framing(framing) if !framing.is_between()).then_some(self.inner)
    }
}

impl Watch {
    fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        if let (Self::Chatter(chatter), Poll::Ready(Ok(bytes))) = (self, written) {
            chatter.wrote(*bytes);
        }
    }
}

fn noted<T>(leash: &Leash, polled: Poll<T>) -> Poll<T> {
    if polled.is_ready() {
        leash.blocked.set(None);
    } else if leash.blocked.get().is_none() {
        leash.blocked.set(Some(leash.now.get()));
    }
    polled
}

impl<S: AsyncRead> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut this = self.project();
        let before = buf.filled().len();
        let still = this.still.is_some_and(|still| still(this.inner.as_ref().get_ref(), cx));
        let polled = if still { Poll::Pending } else { this.inner.as_mut().poll_read(cx, buf) };
        if polled.is_ready() && buf.filled().len() > before {
            this.leash.bytes_came();
            let new = buf.filled_mut().get_mut(before..).unwrap_or_default();
            if this.first.as_mut().is_some_and(|first| !first.wants_more(new)) {
                *this.first = None;
            }
            match this.watch {
                Watch::Framing(framing) => framing.pass(new),
                Watch::Nothing => {}
                Watch::Chatter(chatter) => {
                    if let Err(broken) = chatter.read(new, this.leash.now.get()) {
                        this.leash.broken.set(Some(broken));
                        return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                    }
                }
            }
        } else if let Some(idle) = this.idle.take_if(|_| polled.is_pending())
            && !this.leash.is_asked()
        {
            idle(this.inner.as_ref().get_ref());
        }
        polled
    }
}

impl<S: AsyncWrite> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.project();
        let written = noted(this.leash, this.inner.poll_write(cx, buf));
        this.watch.wrote(&written);
        written
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.project();
        let written = noted(this.leash, this.inner.poll_write_vectored(cx, bufs));
        this.watch.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        noted(this.leash, this.inner.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
