//! How many connections there are, in all and of each peer address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Shared by all workers; locked once when a connection comes and once when it goes.
#[derive(Debug, Default)]
pub struct Crowd(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    peers: HashMap<IpAddr, usize>,
}

/// Which limit a connection ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    All,
    Peer,
}

impl Full {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "connections",
            Self::Peer => "connections_per_peer",
        }
    }
}

impl Crowd {
    /// # Errors
    /// When `most` connections, or `most_of_peer` of this peer, are there already.
    pub fn enter(self: &Arc<Self>, peer: IpAddr, most: usize, most_of_peer: usize) -> Result<Entered, Full> {
        let peer = subscriber(peer);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.all >= most {
            return Err(Full::All);
        }
        let of_peer = counts.peers.entry(peer).or_default();
        if *of_peer >= most_of_peer {
            return Err(Full::Peer);
        }
        *of_peer += 1;
        counts.all += 1;
        Ok(Entered { crowd: Arc::clone(self), peer })
    }
}

/// An IPv6 peer counts by its /64, which is what one subscriber has.
fn subscriber(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        IpAddr::V4(_) => peer,
    }
}

/// A connection's place, given back when it ends.
#[derive(Debug)]
pub struct Entered {
    crowd: Arc<Crowd>,
    peer: IpAddr,
}

impl Entered {
    /// The place is another's from now on.
    ///
    /// # Errors
    /// When `most` connections of that peer are there already; the place stays where it was.
    pub fn moves(&mut self, peer: IpAddr, most: usize) -> Result<(), Full> {
        let peer = subscriber(peer);
        if peer == self.peer {
            return Ok(());
        }
        let mut counts = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = counts.peers.entry(peer).or_default();
        if *of_peer >= most {
            return Err(Full::Peer);
        }
        *of_peer += 1;
        counts.leave(self.peer);
        self.peer = peer;
        Ok(())
    }
}

impl Counts {
    fn leave(&mut self, peer: IpAddr) {
        if let Some(of_peer) = self.peers.get_mut(&peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                self.peers.remove(&peer);
            }
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut counts = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all = counts.all.saturating_sub(1);
        counts.leave(self.peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_moves_from_the_balancer_to_its_client() {
        let crowd = Arc::new(Crowd::default());
        let (balancer, client) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([192, 0, 2, 7]));
        let mut first = crowd.enter(balancer, 9, 1).unwrap();
        assert_eq!(crowd.enter(balancer, 9, 1).unwrap_err(), Full::Peer, "those that have not said whose they are");
        first.moves(client, 1).unwrap();
        let mut second = crowd.enter(balancer, 9, 1).unwrap();
        assert_eq!(second.moves(client, 1), Err(Full::Peer));
        assert_eq!(second.moves(balancer, 0), Ok(()), "where it is");
        drop(first);
        second.moves(client, 1).unwrap();
        drop(second);
        let counts = crowd.0.lock().unwrap();
        assert!(counts.peers.is_empty() && counts.all == 0);
    }

    #[test]
    fn both_limits_hold_and_places_are_given_back() {
        let crowd = Arc::new(Crowd::default());
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = crowd.enter(a, 2, 1).unwrap();
        assert_eq!(crowd.enter(a, 2, 1).unwrap_err(), Full::Peer);
        let second = crowd.enter(b, 2, 1).unwrap();
        assert_eq!(crowd.enter(b, 2, 9).unwrap_err(), Full::All);
        drop((first, second));
        let of = |ip: &str| crowd.enter(ip.parse().unwrap(), 9, 1);
        let here = of("2001:db8::1").unwrap();
        assert_eq!(of("2001:db8::2").unwrap_err(), Full::Peer, "one subscriber");
        drop((here, of("2001:db8:0:1::2").unwrap()));
        assert!(crowd.enter(a, 1, 1).is_ok());
        assert!(crowd.0.lock().unwrap().peers.is_empty(), "a flood of peers leaves nothing behind");
    }
}
