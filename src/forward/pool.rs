//! Connections to one server of an app, of one worker.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::driven::Driven;
use super::http2::{Lease, Link, Room};
use super::io::{Felt, Pulse};
use super::proxy_header::Ends;
use super::servers::Pooled;
use super::socket;
use super::timer::Timer;
use super::upload::RequestBody;
use super::upstreams::{Reach, Running};
use crate::config::{Protocol, ProxyProtocol};

/// Of a response's head, status line and all; hyper's own cap on fields is 100.
pub(super) const RESPONSE_HEAD: u32 = 64 * 1024;
/// How often idle connections are looked through for those whose time is over.
const SWEEP: Duration = Duration::from_secs(5);
/// How often a worker's log says that a server is not what the configuration says.
const WARNING: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caps {
    pub(super) idle: usize,
    pub(super) open: usize,
    pub(super) max_age: Duration,
}

#[derive(Debug)]
pub(super) struct Server {
    reach: Reach,
    caps: Cell<Caps>,
    /// `open` and the length of `idle`, for who looks from other threads.
    pooled: RefCell<Pooled>,
    /// Of `https://`.
    tls: RefCell<Option<Arc<ClientConfig>>>,
    /// Counts changes of how the server is reached: a connection of before is not used again.
    generation: Cell<u32>,
    /// Connections that requests share: HTTP/2.
    links: RefCell<Vec<Rc<Link>>>,
    /// Connections that requests will share are being made: as many requests as will find room on them wait for them.
    dialling: Cell<usize>,
    /// Requests that look for a connection and have none.
    waiting: Cell<usize>,
    warned: Cell<Option<Instant>>,
    /// The last returned is on top and the first used: the others age until they are not needed.
    idle: RefCell<Vec<Idle>>,
    open: Cell<usize>,
    /// A connection came back or ended.
    freed: Notify,
    sweeping: Cell<bool>,
}

#[derive(Debug)]
struct Idle {
    lent: Box<Lent>,
    until: Instant,
}

/// What a connection is while nobody uses it.
#[derive(Debug)]
struct Lent {
    wire: Wire,
    /// Of the connection; over HTTP/2, of the stream.
    pulse: Rc<Pulse>,
    timer: Timer,
    born: Instant,
    generation: u32,
    /// Whom the server was told that it is for.
    whose: Option<Ends>,
}

#[derive(Debug)]
enum Wire {
    Http1 { requests: SendRequest<RequestBody>, driven: Driven },
    Http2(Lease),
}

/// What a request without a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// For a connection that another makes, to share it.
    Dial,
    /// For one of the permitted connections.
    Full,
}

/// A connection in use. Dropped without `give_back`, it closes.
#[derive(Debug)]
pub(super) struct Conn {
    lent: Box<Lent>,
    home: Rc<Server>,
    /// It has carried a request before.
    pub(super) used: bool,
    /// The request that it carries now.
    pub(super) running: Option<Running>,
}

impl Lent {
    /// Looked at while nobody uses it.
    fn is_closed(&mut self) -> bool {
        match &mut self.wire {
            Wire::Http1 { requests, driven } => {
                if driven.is_called() || !requests.is_ready() {
                    driven.poll();
                }
                driven.is_gone() || requests.is_closed()
            }
            Wire::Http2(_) => true,
        }
    }

    fn is_ready(&self) -> bool {
        matches!(&self.wire, Wire::Http1 { requests, .. } if requests.is_ready())
    }
}

impl Conn {
    /// Of HTTP/1.1.
    pub(super) fn parts(&mut self) -> Option<(&mut SendRequest<RequestBody>, &mut Driven)> {
        match &mut self.lent.wire {
            Wire::Http1 { requests, driven } => Some((requests, driven)),
            Wire::Http2(_) => None,
        }
    }

    /// Of HTTP/2.
    pub(super) fn lease(&self) -> Option<&Lease> {
        match &self.lent.wire {
            Wire::Http1 { .. } => None,
            Wire::Http2(lease) => Some(lease),
        }
    }

    /// Of a request that goes on while its response comes: each at its own pace.
    pub(super) fn detach(&mut self) {
        if let Some((_, driven)) = self.parts() {
            driven.detach();
        }
    }

    pub(super) fn pulse(&self) -> &Rc<Pulse> {
        &self.lent.pulse
    }

    pub(super) fn timer(&mut self) -> &mut Timer {
        &mut self.lent.timer
    }

    /// For the next request. The caller vouches that the response was read to its end; hyper notices by itself what else makes a connection unfit
    /// (`Connection: close`, bytes behind the response) and is then never ready.
    pub(super) fn give_back(self, idle: Duration, now: Instant) {
        let Self { lent, home, .. } = self;
        let caps = home.caps.get();
        let driven = match &lent.wire {
            Wire::Http1 { driven, requests } if !driven.is_gone() && !requests.is_closed() => driven,
            Wire::Http1 { .. } => return,
            Wire::Http2(lease) => return lease.link.until.set(now + idle),
        };
        if now.duration_since(lent.born) >= caps.max_age || idle.is_zero() || lent.generation != home.generation.get() {
            return;
        }
        driven.release();
        let mut stack = home.idle.borrow_mut();
        // Of a client's own: nobody else will use it, so the one that waited longest makes room.
        let longest = (lent.whose.is_some() && stack.len() >= caps.idle && caps.idle > 0).then(|| stack.remove(0));
        if stack.len() < caps.idle {
            stack.push(Idle { lent, until: now + idle });
            home.tell_idle(stack.len());
            drop(stack);
            home.free();
        }
        drop(longest);
    }
}

impl Server {
    pub(super) fn new(reach: Reach, caps: Caps, pooled: Pooled, tls: Option<Arc<ClientConfig>>) -> Rc<Self> {
        Rc::new(Self {
            reach,
            caps: Cell::new(caps),
            pooled: RefCell::new(pooled),
            tls: RefCell::new(tls),
            generation: Cell::new(0),
            links: RefCell::default(),
            dialling: Cell::new(0),
            waiting: Cell::new(0),
            warned: Cell::new(None),
            idle: RefCell::default(),
            open: Cell::new(0),
            freed: Notify::new(),
            sweeping: Cell::new(false),
        })
    }

    /// A new configuration for the same server. Connections that were made by other files of TLS are used no more.
    pub(super) fn renew(&self, caps: Caps, pooled: Pooled, tls: Option<Arc<ClientConfig>>) {
        self.caps.set(caps);
        self.pooled.replace(pooled);
        let old = self.tls.replace(tls);
        if old.as_ref().map(Arc::as_ptr) != self.tls.borrow().as_ref().map(Arc::as_ptr) {
            self.generation.set(self.generation.get().wrapping_add(1));
            let gone = (self.idle.take(), self.links.take());
            drop(gone);
        }
        self.set_open(self.open.get());
        self.tell_idle(self.idle.borrow().len());
    }

    /// It is told whom each connection is for.
    pub(super) fn is_told(&self) -> bool {
        self.reach.proxy_protocol != ProxyProtocol::Off
    }

    pub(super) fn is_secure(&self) -> bool {
        self.reach.tls.is_some()
    }

    /// No configuration names it any more: what runs finishes, and no connection is kept.
    pub(super) fn retire(&self) {
        self.caps.set(Caps { idle: 0, ..self.caps.get() });
        let gone = (self.idle.take(), self.links.take());
        self.tell_idle(0);
        drop(gone);
    }

    /// Whether a request would find a connection, or may open one. `whose` request it is counts where each client has connections of its own.
    pub(super) fn has_room(&self, whose: impl FnOnce() -> Ends) -> bool {
        if self.open.get() < self.caps.get().open || !self.idle.borrow().is_empty() {
            return true;
        }
        let links = self.links.borrow();
        let whose = if links.is_empty() { return false } else { self.is_told().then(whose) };
        // An idle one of another's makes room, see `wait`.
        links.iter().any(|link| link.whose == whose && link.room() == Room::Some || whose.is_some() && link.is_idle())
    }

    /// Told when a connection comes back, ends, or has come to be of use to others.
    pub(super) fn freed(&self) -> &Notify {
        &self.freed
    }

    /// A connection came back or ended. Where a stream may be of use to one client alone, all who wait look: the first of them may be another's. Over
    /// HTTP/1.1 whoever looks closes another's and opens its own.
    fn free(&self) {
        if self.is_told() && self.reach.protocol != Protocol::Http1 {
            self.freed.notify_waiters();
        } else {
            self.freed.notify_one();
        }
    }

    fn tell_idle(&self, idle: usize) {
        self.pooled.borrow().idle.set(idle as u64);
    }

    fn set_open(&self, open: usize) {
        self.open.set(open);
        self.pooled.borrow().open.set(open as u64);
    }

    /// An idle connection, the most recently used first, or a place on a shared one. `whose`: only one for this client.
    pub(super) fn reuse(self: &Rc<Self>, now: Instant, whose: Option<Ends>) -> Option<Conn> {
        if self.reach.protocol != Protocol::Http1 {
            return self.join(now, whose);
        }
        let max_age = self.caps.get().max_age;
        let mut stack = self.idle.borrow_mut();
        let mut at = stack.len();
        while at > 0 {
            at -= 1;
            let Some(Idle { lent, until }) = stack.get_mut(at) else { break };
            if lent.is_closed() || *until <= now || now.duration_since(lent.born) >= max_age {
                stack.remove(at);
            } else if lent.whose == whose && lent.is_ready() {
                let Idle { lent, .. } = stack.remove(at);
                self.tell_idle(stack.len());
                return Some(Conn { lent, home: Rc::clone(self), used: true, running: None });
            }
        }
        None
    }

    /// The first with room: those behind it age until they are not needed.
    fn join(self: &Rc<Self>, now: Instant, whose: Option<Ends>) -> Option<Conn> {
        let max_age = self.caps.get().max_age;
        let mut links = self.links.borrow_mut();
        links.retain(|link| {
            link.room() != Room::Gone && now.duration_since(link.born) < max_age && !(link.is_idle() && link.until.get() <= now)
        });
        let link = links.iter().find(|link| link.whose == whose && link.room() == Room::Some)?;
        Some(self.lend(link))
    }

    fn lend(self: &Rc<Self>, link: &Rc<Link>) -> Conn {
        let (lease, used) = Lease::new(link, self);
        let (born, whose, generation) = (link.born, link.whose, self.generation.get());
        let lent = Box::new(Lent { wire: Wire::Http2(lease), pulse: Rc::default(), timer: Timer::default(), born, generation, whose });
        Conn { lent, home: Rc::clone(self), used, running: None }
    }

    /// A stream on the connection is over.
    pub(super) fn left(&self, link: &Rc<Link>) {
        let mut links = self.links.borrow_mut();
        let surplus = link.is_idle() && links.iter().filter(|link| link.is_idle()).count() > self.caps.get().idle;
        if surplus {
            links.retain(|one| !Rc::ptr_eq(one, link));
        }
        drop(links);
        self.free();
    }

    /// A fresh connection within the time, or a place on one that others made meanwhile; where all permitted ones are in use, the first that is freed.
    pub(super) async fn connect(self: &Rc<Self>, within: Duration, whose: Option<Ends>) -> io::Result<Conn> {
        // The server was, by this request or by one that it waits for.
        let mut asked = false;
        let result = timeout(within, async {
            let waiting = Counted::new(&self.waiting);
            while let Some(wait) = self.wait(whose) {
                asked = wait == Wait::Dial;
                self.freed.notified().await;
                if let Some(conn) = self.reuse(Instant::now(), whose) {
                    return Ok(conn);
                }
            }
            drop(waiting);
            let slot = Slot::new(self);
            asked = true;
            if self.reach.protocol != Protocol::Http1 {
                return self.begin_shared(slot, whose).await;
            }
            let socket = self.dial(whose).await?;
            self.begin(socket, slot, whose).await
        })
        .await;
        let result = match result {
            Ok(result) => result,
            Err(_) if !asked => Err(io::Error::new(io::ErrorKind::WouldBlock, "all permitted connections to the server are in use")),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the server took no connection in time")),
        };
        if let Err(error) = &result
            && error.kind() == io::ErrorKind::InvalidData
            && self.warns()
        {
            tracing::warn!(server = %self.reach, %error, "no connection to a server of an app");
        }
        result
    }

    /// Whether it is time for a warning: the first at once.
    fn warns(&self) -> bool {
        let now = Instant::now();
        let due = self.warned.get().is_none_or(|warned| now.duration_since(warned) >= WARNING);
        if due {
            self.warned.set(Some(now));
        }
        due
    }

    /// Why no further connection may be made now.
    fn wait(&self, whose: Option<Ends>) -> Option<Wait> {
        // Of a server that was never connected to nobody knows how many streams it permits: one connection will tell.
        let streams = || self.links.borrow().last().map_or(usize::MAX, |link| link.most().max(1));
        if whose.is_none() && self.dialling.get() > 0 && self.waiting.get() <= self.dialling.get().saturating_mul(streams()) {
            return Some(Wait::Dial);
        }
        if self.open.get() < self.caps.get().open {
            return None;
        }
        // Connections of other clients' own wait for nobody who asks here.
        if whose.is_some() {
            let mut stack = self.idle.borrow_mut();
            let longest = (!stack.is_empty()).then(|| stack.remove(0));
            self.tell_idle(stack.len());
            drop(stack);
            drop(longest);
            self.links.borrow_mut().retain(|link| !link.is_idle());
        }
        (self.open.get() >= self.caps.get().open).then_some(Wait::Full)
    }

    async fn dial(&self, whose: Option<Ends>) -> io::Result<socket::Socket> {
        let tls = self.tls.borrow().clone();
        socket::dial(&self.reach, tls.as_ref(), whose).await
    }

    async fn begin(self: &Rc<Self>, socket: socket::Socket, slot: Slot, whose: Option<Ends>) -> io::Result<Conn> {
        let pulse = Rc::new(Pulse::default());
        let io = TokioIo::new(Felt::new(socket, Rc::clone(&pulse)));
        let mut builder = http1::Builder::new();
        builder.max_header_size(RESPONSE_HEAD as usize);
        let generation = self.generation.get();
        let (requests, connection) = builder.handshake(io).await.map_err(io::Error::other)?;
        self.sweep();
        let wire = Wire::Http1 { requests, driven: Driven::new(connection, slot) };
        let lent = Box::new(Lent { wire, pulse, timer: Timer::default(), born: Instant::now(), generation, whose });
        Ok(Conn { lent, home: Rc::clone(self), used: false, running: None })
    }

    /// Others wait for it rather than make their own: one connection carries them all.
    async fn begin_shared(self: &Rc<Self>, slot: Slot, whose: Option<Ends>) -> io::Result<Conn> {
        let _dialling = whose.is_none().then(|| Dialling::new(self));
        let generation = self.generation.get();
        let link = Link::open(self.dial(whose).await?, slot, whose).await?;
        let conn = self.lend(&link);
        if generation == self.generation.get() {
            self.links.borrow_mut().push(link);
            // More of the same client's may wait for room than the one that made it.
            if whose.is_some() {
                self.free();
            }
        }
        self.sweep();
        Ok(conn)
    }

    /// Closes idle connections whose time is over, as long as there are connections.
    fn sweep(self: &Rc<Self>) {
        if self.sweeping.replace(true) {
            return;
        }
        let server: Weak<Self> = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(server) = server.upgrade() else { return };
                server.drop_expired(Instant::now());
                if server.open.get() == 0 {
                    server.sweeping.set(false);
                    return;
                }
            }
        });
    }

    fn drop_expired(&self, now: Instant) {
        let max_age = self.caps.get().max_age;
        let mut idle = self.idle.borrow_mut();
        idle.retain_mut(|Idle { lent, until }| !lent.is_closed() && *until > now && now.duration_since(lent.born) < max_age);
        self.tell_idle(idle.len());
        drop(idle);
        self.links.borrow_mut().retain(|link| {
            let over = link.is_idle() && link.until.get() <= now || now.duration_since(link.born) >= max_age;
            link.room() != Room::Gone && !over
        });
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> (usize, usize) {
        (self.open.get(), self.idle.borrow().len())
    }

    #[cfg(test)]
    pub(super) fn expire(&self, now: Instant) {
        self.drop_expired(now);
    }
}

/// One of the permitted connections: held from before the dial until the connection has ended.
#[derive(Debug)]
pub(super) struct Slot(Weak<Server>);

impl Slot {
    fn new(server: &Rc<Server>) -> Self {
        server.set_open(server.open.get() + 1);
        Self(Rc::downgrade(server))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(server) = self.0.upgrade() {
            server.set_open(server.open.get().saturating_sub(1));
            server.free();
        }
    }
}

/// Ends, however it ends, with those that waited looking anew.
struct Dialling<'a>(&'a Server);

impl<'a> Dialling<'a> {
    fn new(server: &'a Server) -> Self {
        server.dialling.set(server.dialling.get() + 1);
        Self(server)
    }
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        self.0.dialling.set(self.0.dialling.get().saturating_sub(1));
        self.0.freed.notify_waiters();
    }
}

/// One more, for as long as it is held.
struct Counted<'a>(&'a Cell<usize>);

impl<'a> Counted<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
