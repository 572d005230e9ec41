//! Listening sockets: opened here, or passed on by systemd or by the process whose place this one takes. A socket that is passed on stays the very
//! same, with everybody who waits in its queue; one that is opened anew beside it would share the queue's connections and lose them when it closes.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use super::Error;
use super::worker::{Command, Worker};
use crate::config::Configuration;
use crate::edge;

/// One address of one listener, as configured and as bound.
#[derive(Debug)]
pub struct Bound {
    pub listener: Arc<str>,
    pub configured: SocketAddr,
    pub actual: SocketAddr,
    /// What the workers accept from, each socket once: to be passed on. To be closed before theirs are, which empty the queue first.
    pub sockets: Vec<TcpListener>,
}

impl Bound {
    /// Whether its sockets are what this listener wants to bind. An address goes from one listener to another; any free port does not.
    pub fn serves(&self, listener: &str, addr: SocketAddr) -> bool {
        self.configured == addr && (*self.listener == *listener || addr.port() != 0)
    }

    /// What each worker accepts from. With fewer sockets than workers some share one; with more, some workers have several: none is closed, for
    /// the kernel spreads connections over all of them.
    fn dealt(&self, workers: usize) -> io::Result<Vec<TcpListener>> {
        let all = self.sockets.iter().cycle().take(self.sockets.len().max(workers));
        all.map(TcpListener::try_clone).collect()
    }
}

/// A bound address with its sockets, for the workers in turn.
pub type Opened = (Bound, Vec<TcpListener>);

pub fn wanted(configuration: &Configuration) -> impl Iterator<Item = (&str, SocketAddr)> {
    configuration.listeners.iter().flat_map(|listener| listener.bind.iter().map(|addr| (listener.name.as_str(), *addr)))
}

/// Takes from `inherited` what the configuration wants; the rest stays there.
pub fn adopt(configuration: &Configuration, inherited: &mut Vec<Bound>) -> Result<Vec<Opened>, Error> {
    let mut adopted = Vec::new();
    for (listener, addr) in wanted(configuration) {
        let Some(at) = inherited.iter().position(|bound| bound.serves(listener, addr)) else { continue };
        let mut bound = Bound { listener: Arc::from(listener), configured: addr, ..inherited.remove(at) };
        let more = configuration.workers.saturating_sub(bound.sockets.len());
        bound.sockets.extend(edge::join(bound.actual, more));
        let dealt = bound.dealt(configuration.workers).map_err(|source| Error::Bind { listener: listener.to_owned(), addr, source })?;
        adopted.push((bound, dealt));
    }
    Ok(adopted)
}

/// Binds what is not bound yet.
pub fn open_new<'a>(configuration: &Configuration, bound: impl Iterator<Item = &'a Bound> + Clone) -> Result<Vec<Opened>, Error> {
    let new = wanted(configuration).filter(|(listener, addr)| !bound.clone().any(|bound| bound.serves(listener, *addr)));
    new.map(|(listener, addr)| {
        let error = |source| Error::Bind { listener: listener.to_owned(), addr, source };
        let sockets = edge::listen(addr, configuration.workers).map_err(error)?;
        let actual = sockets.first().and_then(|socket| socket.local_addr().ok()).unwrap_or(addr);
        let bound = Bound { listener: Arc::from(listener), configured: addr, actual, sockets };
        let dealt = bound.dealt(configuration.workers).map_err(error)?;
        Ok((bound, dealt))
    })
    .collect()
}

/// Gives the workers their sockets.
pub fn hand_out(opened: Vec<Opened>, workers: &[Worker]) -> Vec<Bound> {
    let hand_out = |(bound, sockets): Opened| {
        for (worker, socket) in workers.iter().cycle().zip(sockets) {
            worker.tell(Command::Listen { listener: Arc::clone(&bound.listener), addr: bound.actual, socket });
        }
        bound
    };
    opened.into_iter().map(hand_out).collect()
}

/// The admin listener's socket, and a copy to pass on.
pub fn listen_admin(addr: SocketAddr, inherited: &mut Vec<Bound>) -> io::Result<(TcpListener, TcpListener)> {
    let known = inherited.iter().position(|bound| bound.serves(ADMIN, addr)).map(|at| inherited.remove(at).sockets);
    let socket = match known.and_then(|sockets| sockets.into_iter().next()) {
        Some(socket) => socket,
        None => TcpListener::bind(addr)?,
    };
    socket.set_nonblocking(true)?;
    let copy = socket.try_clone()?;
    Ok((socket, copy))
}

/// No listener's name: those are words.
pub const ADMIN: &str = "(admin)";
