//! Connections to one server of an app, of one worker.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::body::RequestBody;
use super::driven::Driven;
use super::io::{Felt, Pulse};
use super::timer::Timer;
use super::upstreams::Reach;
use crate::config::At;

/// Of a response's head, status line and all; hyper's own cap on fields is 100.
const RESPONSE_HEAD: usize = 64 * 1024;
/// How often idle connections are looked through for those whose time is over.
const SWEEP: Duration = Duration::from_secs(5);
/// How long a server that took no connection is tried last.
const COOLING: Duration = Duration::from_secs(1);

/// Last connect outcome of a server, of all workers.
#[derive(Debug, Default)]
pub(super) struct UpFlag(AtomicU8);

impl UpFlag {
    pub(super) fn set(&self, up: bool) {
        let now = if up { 2 } else { 1 };
        // Read first: the line stays shared among the workers while nothing changes.
        if self.0.load(Ordering::Relaxed) != now {
            self.0.store(now, Ordering::Relaxed);
        }
    }

    /// `None`: nobody connected yet.
    pub(super) fn get(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            state => Some(state == 2),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caps {
    pub(super) idle: usize,
    pub(super) open: usize,
    pub(super) max_age: Duration,
}

#[derive(Debug)]
pub(super) struct Server {
    reach: Reach,
    /// When its host is an address: no look-up, no thread.
    address: Option<SocketAddr>,
    caps: Cell<Caps>,
    up: RefCell<Arc<UpFlag>>,
    /// The last returned is on top and the first used: the others age until they are not needed.
    idle: RefCell<Vec<Idle>>,
    open: Cell<usize>,
    /// A connection came back or ended.
    freed: Notify,
    failed: Cell<Option<Instant>>,
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
    requests: SendRequest<RequestBody>,
    driven: Driven,
    pulse: Rc<Pulse>,
    timer: Timer,
    born: Instant,
}

/// A connection in use. Dropped without `give_back`, it closes.
#[derive(Debug)]
pub(super) struct Conn {
    lent: Box<Lent>,
    home: Rc<Server>,
    /// It has carried a request before.
    pub(super) used: bool,
}

impl Lent {
    fn is_closed(&self) -> bool {
        self.driven.is_gone() || self.requests.is_closed()
    }
}

impl Conn {
    pub(super) fn parts(&mut self) -> (&mut SendRequest<RequestBody>, &mut Driven) {
        (&mut self.lent.requests, &mut self.lent.driven)
    }

    pub(super) fn pulse(&self) -> &Rc<Pulse> {
        &self.lent.pulse
    }

    pub(super) fn timer(&mut self) -> &mut Timer {
        &mut self.lent.timer
    }

    /// For the next request. The caller vouches that the response was read to its end; hyper notices by itself what else makes a connection unfit
    /// (`Connection: close`, bytes behind the response) and is then never ready.
    pub(super) fn give_back(self, idle: Duration) {
        let Self { lent, home, .. } = self;
        let now = Instant::now();
        let caps = home.caps.get();
        if lent.is_closed() || now.duration_since(lent.born) >= caps.max_age || idle.is_zero() {
            return;
        }
        lent.driven.release();
        let mut stack = home.idle.borrow_mut();
        if stack.len() < caps.idle {
            stack.push(Idle { lent, until: now + idle });
            drop(stack);
            home.freed.notify_one();
        }
    }
}

impl Server {
    pub(super) fn new(reach: Reach, caps: Caps, up: Arc<UpFlag>) -> Rc<Self> {
        let address = match &reach.at {
            At::Tcp { host, port } => host.parse().ok().map(|host| SocketAddr::new(host, *port)),
            At::Unix(_) => None,
        };
        Rc::new(Self {
            reach,
            address,
            caps: Cell::new(caps),
            up: RefCell::new(up),
            idle: RefCell::default(),
            open: Cell::new(0),
            freed: Notify::new(),
            failed: Cell::new(None),
            sweeping: Cell::new(false),
        })
    }

    /// A new configuration for the same server.
    pub(super) fn renew(&self, caps: Caps, up: Arc<UpFlag>) {
        self.caps.set(caps);
        *self.up.borrow_mut() = up;
    }

    /// It took no connection a moment ago.
    pub(super) fn is_cooling(&self, now: Instant) -> bool {
        self.failed.get().is_some_and(|failed| now.duration_since(failed) < COOLING)
    }

    /// An idle connection, the most recently used first.
    pub(super) fn reuse(self: &Rc<Self>, now: Instant) -> Option<Conn> {
        let max_age = self.caps.get().max_age;
        let mut stack = self.idle.borrow_mut();
        let mut at = stack.len();
        while at > 0 {
            at -= 1;
            let Some(Idle { lent, until }) = stack.get_mut(at) else { break };
            lent.driven.rest();
            if lent.is_closed() || *until <= now || now.duration_since(lent.born) >= max_age {
                stack.remove(at);
            } else if lent.requests.is_ready() {
                let Idle { lent, .. } = stack.remove(at);
                return Some(Conn { lent, home: Rc::clone(self), used: true });
            }
        }
        None
    }

    /// A fresh connection within the time; where all permitted ones are in use, the first that is freed.
    pub(super) async fn connect(self: &Rc<Self>, within: Duration) -> io::Result<Conn> {
        let mut dialled = false;
        let result = timeout(within, async {
            while self.open.get() >= self.caps.get().open {
                self.freed.notified().await;
                if let Some(conn) = self.reuse(Instant::now()) {
                    return Ok(conn);
                }
            }
            let slot = Slot::new(self);
            dialled = true;
            let stream = self.dial().await?;
            self.begin(stream, slot).await
        })
        .await;
        let result = match result {
            Ok(result) => result,
            Err(_) if !dialled => Err(io::Error::new(io::ErrorKind::WouldBlock, "all permitted connections to the server are in use")),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the server took no connection in time")),
        };
        if dialled {
            self.up.borrow().set(result.is_ok());
            self.failed.set(result.is_err().then(Instant::now));
        }
        result
    }

    async fn dial(&self) -> io::Result<TcpStream> {
        let stream = match (self.address, &self.reach.at) {
            (Some(address), _) => TcpStream::connect(address).await?,
            // Tries each address of the name in turn.
            (None, At::Tcp { host, port }) => TcpStream::connect((host.as_str(), *port)).await?,
            (None, At::Unix(_)) => return Err(io::Error::from(io::ErrorKind::Unsupported)),
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn begin(self: &Rc<Self>, stream: TcpStream, slot: Slot) -> io::Result<Conn> {
        let pulse = Rc::new(Pulse::default());
        let io = TokioIo::new(Felt::new(stream, Rc::clone(&pulse)));
        let mut builder = http1::Builder::new();
        builder.max_header_size(RESPONSE_HEAD);
        let (requests, connection) = builder.handshake(io).await.map_err(io::Error::other)?;
        self.sweep();
        let lent = Box::new(Lent { requests, driven: Driven::new(connection, slot), pulse, timer: Timer::default(), born: Instant::now() });
        Ok(Conn { lent, home: Rc::clone(self), used: false })
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
        self.idle.borrow_mut().retain_mut(|Idle { lent, until }| {
            lent.driven.rest();
            !lent.is_closed() && *until > now && now.duration_since(lent.born) < max_age
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
        server.open.set(server.open.get() + 1);
        Self(Rc::downgrade(server))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(server) = self.0.upgrade() {
            server.open.set(server.open.get().saturating_sub(1));
            server.freed.notify_one();
        }
    }
}
