//! From a TCP connection to requests at the gate: limits, SYN, ClientHello under a deadline, TLS, HTTP.

mod chatter;
mod crowd;
mod first;
mod gathered;
mod leash;
mod opening;
mod proxy_protocol;
mod serve;
mod socket;
mod stream;
mod suites;
#[cfg(test)]
mod testing;
mod ticket;
mod tls;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

pub use self::crowd::Crowd;
pub use self::first::{Bytes as FirstBytes, Seen as FirstSeen};
use self::leash::{LOOK, Leashes, Order, Patience};
pub use self::opening::Replayed;
use self::proxy_protocol::Caller;
pub use self::socket::{inherit, join, listen, listening, owned, saved_syn};
use self::stream::Stream;
pub use self::tls::{Setup, TlsError, Vouching};
use crate::gate::{Believed, Core, Door};
use crate::model::Expiry;
use crate::record::{Cell, Record, Writer};

/// What a listener does with a connection, by the configuration in force when it comes.
#[derive(Debug)]
pub struct Entrance {
    pub door: Arc<Door>,
    pub tls: Option<Arc<Setup>>,
    /// Who alone may connect, and begins each connection with a PROXY header. `None`: anybody, without one.
    pub balancers: Option<Arc<[IpNet]>>,
    /// Who may speak for clients.
    pub believed: Option<Arc<Believed>>,
    /// When the CAs and CRLs end that they vouch by.
    pub vouching: Vec<Expiry>,
}

impl Entrance {
    /// How many connections this peer may have, of `each`: whoever speaks for many has as many as it needs.
    fn most_of(&self, peer: IpAddr, each: usize) -> usize {
        let speaks = self.believed.as_ref().is_some_and(|believed| believed.trusts(peer));
        if speaks { usize::MAX } else { each }
    }
}

/// All listeners by name.
pub type Entrances = HashMap<Arc<str>, Arc<Entrance>>;

/// Whose connections a socket takes: a reload may give the socket to another listener, whose entrance is told with it until all know it.
#[derive(Debug)]
pub struct Owner {
    pub listener: Arc<str>,
    pub entrance: Option<Arc<Entrance>>,
}

/// One worker's share of the edge.
#[derive(Debug)]
pub struct Edge {
    core: Rc<Core>,
    entrances: Arc<ArcSwap<Entrances>>,
    crowd: Arc<Crowd>,
    leashes: Rc<Leashes>,
    counts: Counts,
    /// How many this process may have open.
    descriptors: u64,
}

/// The counters that connections move before they are requests.
#[derive(Debug)]
struct Counts {
    record: Arc<Record>,
    writer: Writer,
    /// What every ordinary connection moves, looked up once.
    handshake_ok: Cell,
    syn: Layer,
    tls: Layer,
    h2: Layer,
    headers: Layer,
    listeners: RefCell<HashMap<Arc<str>, Cell>>,
}

/// What a layer of a connection showed; each connection moves one of them.
#[derive(Debug)]
struct Layer {
    read: Cell,
    unavailable: Cell,
    malformed: Cell,
}

impl Counts {
    fn new(record: &Arc<Record>, writer: Writer) -> Self {
        let layer = |layer| {
            let cell = |result| record.fingerprints.cell(writer, &[layer, result]);
            Layer { read: cell("read"), unavailable: cell("unavailable"), malformed: cell("malformed") }
        };
        Self {
            handshake_ok: record.tls_handshakes.cell(writer, &["ok"]),
            syn: layer("syn"),
            tls: layer("tls"),
            h2: layer("h2"),
            headers: layer("headers"),
            listeners: RefCell::default(),
            record: Arc::clone(record),
            writer,
        }
    }

    fn rejected(&self, reason: &'static str) {
        self.record.rejected.cell(self.writer, &[reason]).add(1);
    }

    fn connections(&self, listener: &Arc<str>) -> Cell {
        let mut known = self.listeners.borrow_mut();
        if let Some(cell) = known.get(listener) {
            return cell.clone();
        }
        known.entry(Arc::clone(listener)).or_insert_with(|| self.record.connections.cell(self.writer, &[listener])).clone()
    }
}

/// Counts a connection, or a pause, for as long as it is held.
struct Present(Cell);

impl Present {
    fn new(cell: Cell) -> Self {
        cell.add(1);
        Self(cell)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.sub(1);
    }
}

impl Edge {
    pub fn new(core: Rc<Core>, entrances: Arc<ArcSwap<Entrances>>, crowd: Arc<Crowd>) -> Rc<Self> {
        let counts = Counts::new(&core.desk.record, core.desk.writer);
        Rc::new(Self { core, entrances, crowd, leashes: Leashes::new(), counts, descriptors: socket::descriptors() })
    }

    /// Takes connections from one socket until it is to close, and then those that already wait there: to their clients they are open. They
    /// enter where `closing` says, for the listener may be gone by then.
    pub async fn accept(
        self: Rc<Self>,
        owner: Rc<RefCell<Owner>>,
        socket: AsyncFd<TcpListener>,
        closing: oneshot::Receiver<Option<Arc<Entrance>>>,
    ) {
        let entrance = tokio::select! {
            biased;
            entrance = closing => entrance.ok().flatten(),
            () = self.take(&owner, &socket) => None,
        };
        let Some(entrance) = entrance.or_else(|| self.entrance(&owner)) else { return };
        let socket = socket.into_inner();
        for _ in 0..socket::BACKLOG {
            match socket::accept(&socket) {
                Ok((stream, peer)) => {
                    if let Ok(stream) = Stream::new(stream) {
                        self.welcome(&entrance, stream, peer);
                    }
                }
                Err(error) if is_of_connection(&error) => {}
                Err(_) => break,
            }
        }
    }

    fn entrance(&self, owner: &RefCell<Owner>) -> Option<Arc<Entrance>> {
        let mut owner = owner.borrow_mut();
        match self.entrances.load().get(&owner.listener) {
            Some(known) => {
                owner.entrance = None;
                Some(Arc::clone(known))
            }
            None => owner.entrance.clone(),
        }
    }

    async fn take(self: &Rc<Self>, owner: &RefCell<Owner>, socket: &AsyncFd<TcpListener>) {
        // Counted from 0, so that there is something to see before the first pause.
        drop(self.paused(owner));
        loop {
            let accepted = socket.async_io(Interest::READABLE, socket::accept).await;
            match accepted.and_then(|(stream, peer)| Ok((self.is_scarce(stream.as_raw_fd()), Stream::new(stream)?, peer))) {
                Ok((scarce, stream, peer)) => {
                    if let Some(entrance) = self.entrance(owner) {
                        self.welcome(&entrance, stream, peer);
                    }
                    if scarce {
                        self.counts.rejected("accept");
                        tracing::warn!(listener = &*owner.borrow().listener, "few file descriptors are left; accepting pauses");
                        let _paused = self.paused(owner);
                        self.wait_for_descriptors(socket.get_ref()).await;
                    }
                }
                // The connection went away before it was taken: nobody's loss.
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    // Out of descriptors or memory. The waiting connection stays in the queue; what is open may end and make room.
                    self.counts.rejected("accept");
                    tracing::warn!(%error, listener = &*owner.borrow().listener, "cannot accept connections; trying again");
                    let _paused = self.paused(owner);
                    tokio::time::sleep(Self::PAUSE).await;
                }
            }
        }
    }

    /// Nothing is taken from the socket for as long as this is held.
    fn paused(&self, owner: &RefCell<Owner>) -> Present {
        Present::new(self.counts.record.accepting_paused.cell(self.counts.writer, &[&owner.borrow().listener]))
    }

    const PAUSE: Duration = Duration::from_millis(100);

    /// The kernel gives the lowest free number, so this one says how many are in use. What is kept back is for apps, store, log and the admin
    /// listener: without it nobody could ask what is wrong.
    fn is_scarce(&self, descriptor: RawFd) -> bool {
        let keep = (self.descriptors / 16).max(32);
        u64::try_from(descriptor).is_ok_and(|number| number.saturating_add(keep) >= self.descriptors)
    }

    async fn wait_for_descriptors(&self, socket: &TcpListener) {
        loop {
            tokio::time::sleep(Self::PAUSE).await;
            match socket.as_fd().try_clone_to_owned() {
                Ok(next) if !self.is_scarce(next.as_raw_fd()) => return,
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn welcome(self: &Rc<Self>, entrance: &Arc<Entrance>, stream: Stream, peer: SocketAddr) {
        let (port, peer) = (peer.port(), canonical(peer.ip()));
        if entrance.balancers.is_some() && !proxy_protocol::admits(self, entrance, peer) {
            return;
        }
        let (most, of_peer) = {
            let house = self.core.house();
            (house.rules.limits.connections, house.rules.limits.connections_per_peer)
        };
        let mut entered = match self.crowd.enter(peer, most, entrance.most_of(peer, of_peer)) {
            Ok(entered) => entered,
            Err(full) => {
                self.counts.rejected(full.as_str());
                tracing::debug!(%peer, limit = full.as_str(), "connection refused: too many");
                return;
            }
        };
        let listener = &entrance.door.listener;
        let present = Present::new(self.counts.connections(listener));
        let held = self.leashes.add(listener);
        if entrance.balancers.is_some() {
            held.leash.comes_by(peer);
        }
        let (edge, entrance) = (Rc::clone(self), Arc::clone(entrance));
        // Boxed: the runtime moves a task whole when it is made, when it ends and when it is let go, and this one is some 10 KiB.
        tokio::task::spawn_local(Box::pin(async move {
            let _present = present;
            let panics = PanicGuard(&edge.counts);
            let mut stream = stream;
            let caller = match &entrance.balancers {
                None => Some(Caller::itself(peer, port)),
                // Boxed: a connection has room for what only some need no longer than they need it.
                Some(_) => Box::pin(proxy_protocol::caller(&edge, &entrance, &mut stream, peer, &mut entered, &held.leash)).await,
            };
            if let Some(caller) = caller {
                serve::connection(&edge, entrance, stream, caller, held).await;
            }
            drop((panics, entered));
        }));
    }

    /// Looks after slow and idle connections, and streams that last, until the task is aborted.
    pub async fn watch(self: Rc<Self>) {
        let mut every = tokio::time::interval(LOOK);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let patience = {
                let house = self.core.house();
                Patience { idle: house.rules.limits.idle, head: house.rules.limits.request_head }
            };
            self.leashes.look(&patience, |cut| self.counts.rejected(cut.as_str()));
            self.core.look_after_streams();
        }
    }

    /// Takes the rules and servers in force now, rather than at the next request: what is gone is closed at once. Connections that would be taken
    /// otherwise now wind down: of balancers that are believed no more, and those whose ends nobody looked at, where an app is to be told of them.
    pub fn renew(&self) {
        let house = self.core.house();
        self.leashes.tell_those(Order::Drain, |leash| {
            leash.is_untold() && house.upstreams.tells || leash.balancer().is_some_and(|by| !house.rules.believes(leash.listener(), by))
        });
    }

    /// Lets what runs at a listener that is no more finish: nobody there would be known any longer.
    pub fn dismiss(&self, listener: &str) {
        self.core.lasting.leave(Some(listener));
        self.leashes.tell_those(Order::Drain, |leash| leash.listener() == listener);
    }

    /// Lets what runs finish, up to `limit`, and cuts the rest. Gives back how many were cut.
    pub async fn drain(&self, limit: Duration) -> usize {
        let end = tokio::time::Instant::now() + limit;
        self.leashes.tell_all(Order::Drain);
        self.core.lasting.leave(None);
        while self.leashes.len() > 0 && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(10)).await;
            self.leashes.tell_all(Order::Drain);
        }
        let cut = self.leashes.len();
        self.leashes.tell_all(Order::Cut);
        cut
    }
}

/// Counts a connection's end by our own fault; the runtime keeps the panic from going further.
struct PanicGuard<'a>(&'a Counts);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.record.panics.cell(self.0.writer, &[]).add(1);
        }
    }
}

/// An IPv4-mapped IPv6 address is IPv4, before any network is compared with it.
fn canonical(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

fn is_of_connection(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_ipv4_before_any_network_is_asked() {
        assert_eq!(canonical("::ffff:10.1.2.3".parse().unwrap()), "10.1.2.3".parse::<IpAddr>().unwrap());
        assert_eq!(canonical("2001:db8::1".parse().unwrap()), "2001:db8::1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn a_panic_is_counted_and_an_end_is_not() {
        let record = Arc::new(Record::new().unwrap());
        let counts = Counts::new(&record, Writer(0));
        drop(PanicGuard(&counts));
        let panicked = || {
            let all = record.registry.gather();
            let family = all.iter().find(|family| family.name() == "vestibule_panics_total").unwrap();
            family.get_metric()[0].get_counter().get_value()
        };
        assert_eq!(panicked() as u64, 0);
        let fault = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _guard = PanicGuard(&counts);
            panic!("a fault of ours");
        }));
        assert!(fault.is_err());
        assert_eq!(panicked() as u64, 1);
    }
}
