//! Programs of many families behind one stack: counted for the whole process, told once per connection and change of its claims.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ahash::RandomState;

use crate::identify::{Families, Told, Whose};
use crate::model::{Engine, Ja4};
use crate::policy::ZoneId;

/// Of all workers and all rules: a reload forgets nothing.
#[derive(Debug)]
pub struct Middleboxes {
    families: Mutex<Families>,
    /// How often a verdict turned: what was made of a connection before may be another now.
    turns: AtomicU64,
    /// Of this process alone: nobody outside can make two stacks meet in it.
    secret: RandomState,
    since: Instant,
}

impl Default for Middleboxes {
    fn default() -> Self {
        Self { families: Mutex::default(), turns: AtomicU64::new(0), secret: RandomState::new(), since: Instant::now() }
    }
}

/// A connection as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passer<'a> {
    /// `ja4_stable`.
    pub stack: &'a Ja4,
    pub peer: IpAddr,
    pub zone: Option<ZoneId>,
    /// Of a proven device.
    pub device: Option<&'a str>,
    /// What the User-Agent claims to be built on.
    pub engine: Option<Engine>,
}

impl Middleboxes {
    pub(super) fn turns(&self) -> u64 {
        self.turns.load(Relaxed)
    }

    /// Takes the claim in, and says whether this stack is a middlebox's.
    pub(super) fn intercepted(&self, passer: &Passer<'_>, now: Instant) -> bool {
        let stack = match passer.zone {
            Some(zone) => self.secret.hash_one((passer.stack, zone)),
            None => self.secret.hash_one((passer.stack, prefix(passer.peer, 24, 48))),
        };
        let whose = match (passer.device, passer.zone) {
            (Some(device), _) => Some(Whose::Device(self.secret.hash_one(device))),
            (None, Some(_)) => Some(Whose::Peer(self.secret.hash_one(prefix(passer.peer, 32, 64)))),
            // Addresses outside of the operator's networks are free to rent.
            (None, None) => None,
        };
        let now = now.saturating_duration_since(self.since);
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let before = families.intercepted(stack, now);
        let Some((engine, whose)) = passer.engine.zip(whose) else { return before };
        families.tell(Told { stack, engine, whose }, now);
        let after = families.intercepted(stack, now);
        if before != after {
            self.turns.fetch_add(1, Relaxed);
        }
        after
    }
}

/// An address with all but its first bits taken away.
fn prefix(peer: IpAddr, four: u8, six: u8) -> IpAddr {
    let bits = if peer.is_ipv4() { four } else { six };
    ipnet::IpNet::new(peer, bits).map_or(peer, |net| net.trunc().addr())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passer(stack: &Ja4, peer: [u8; 4], zone: Option<u16>, engine: Engine) -> Passer<'_> {
        Passer { stack, peer: IpAddr::from(peer), zone: zone.map(ZoneId), device: None, engine: Some(engine) }
    }

    #[test]
    fn an_offices_browsers_behind_one_stack_are_intercepted_and_nobody_elsewhere() {
        let boxes = Middleboxes::default();
        let now = Instant::now();
        let stack = Ja4::new(*b"t13d1516h2_8daaf6152771_e5627efa2ab1").unwrap();
        let other = Ja4::new(*b"t13d1516h2_8daaf6152771_000000000000").unwrap();
        for host in 1..=8 {
            for engine in [Engine::Chromium, Engine::Firefox] {
                boxes.intercepted(&passer(&stack, [10, 0, 0, host], Some(0), engine), now);
                // The same, from addresses that anybody can have.
                boxes.intercepted(&passer(&other, [198, 51, 100, host], None, engine), now);
            }
        }
        assert!(boxes.intercepted(&passer(&stack, [10, 0, 0, 99], Some(0), Engine::Chromium), now));
        assert_eq!(boxes.turns(), 1, "connections that are there already look again, once");
        assert!(!boxes.intercepted(&passer(&stack, [10, 0, 0, 99], Some(1), Engine::Chromium), now), "another network");
        assert!(!boxes.intercepted(&passer(&other, [10, 0, 0, 99], Some(0), Engine::Chromium), now), "another stack");
        assert!(!boxes.intercepted(&passer(&other, [198, 51, 100, 99], None, Engine::Chromium), now), "no network of the operator's");
    }

    #[test]
    fn proven_devices_count_wherever_they_are() {
        let boxes = Middleboxes::default();
        let now = Instant::now();
        let stack = Ja4::new(*b"t13d1516h2_8daaf6152771_e5627efa2ab1").unwrap();
        let mut last = false;
        for device in ["a", "b", "c"] {
            for engine in [Engine::Chromium, Engine::Apple] {
                last = boxes.intercepted(&Passer { device: Some(device), ..passer(&stack, [198, 51, 100, 7], None, engine) }, now);
            }
        }
        assert!(last);
    }
}
