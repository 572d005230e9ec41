//! Session tickets (RFC 5077): what a session needs to be resumed, sealed for the client to keep, by AES-256-GCM under a random nonce.
//!
//! rustls' own ticketer seals by AES-CBC and HMAC, at three times the work.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use rustls::crypto::GetRandomFailed;
use rustls::server::ProducesTickets;
use rustls::{Error, TicketRotator};

/// Seconds under one key; tickets of the key before are taken as well. Random nonces are safe for 2^32 tickets of a key (NIST SP 800-38D section
/// 8.3): 198,000 in each second.
const ROTATION: u32 = 6 * 60 * 60;

/// # Errors
/// When the system gives no random bytes.
pub fn ticketer() -> Result<Arc<dyn ProducesTickets>, Error> {
    Ok(Arc::new(TicketRotator::new(ROTATION, || Ok(Box::new(Sealed::new()?)))?))
}

/// Tickets of one key: the nonce, what is sealed, the tag.
#[derive(Debug)]
struct Sealed(RandomizedNonceKey);

impl Sealed {
    fn new() -> Result<Self, GetRandomFailed> {
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| GetRandomFailed)?;
        RandomizedNonceKey::new(&AES_256_GCM, &key).map(Self).map_err(|_| GetRandomFailed)
    }
}

impl ProducesTickets for Sealed {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        2 * ROTATION
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut ticket = Vec::with_capacity(NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        ticket.resize(NONCE_LEN, 0);
        ticket.extend_from_slice(plain);
        let (room, sealed) = ticket.split_at_mut_checked(NONCE_LEN)?;
        let (nonce, tag) = self.0.seal_in_place_separate_tag(Aad::empty(), sealed).ok()?;
        room.copy_from_slice(nonce.as_ref());
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = ticket.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut plain = sealed.to_vec();
        let length = self.0.open_in_place(nonce, Aad::empty(), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sealed_with_the_key_and_is_whole_is_opened() {
        let (key, other) = (Sealed::new().unwrap(), Sealed::new().unwrap());
        for plain in [&b""[..], b"a session", &[7; 5000]] {
            let ticket = key.encrypt(plain).unwrap();
            assert_eq!(ticket.len(), NONCE_LEN + plain.len() + 16);
            assert_eq!(key.decrypt(&ticket).as_deref(), Some(plain));
            assert_eq!(other.decrypt(&ticket), None);
            for cut in (0..ticket.len()).step_by(plain.len().max(64) / 64) {
                assert_eq!(key.decrypt(&ticket[..cut]), None, "{cut}");
                let mut changed = ticket.clone();
                changed[cut] ^= 1;
                assert_eq!(key.decrypt(&changed), None, "{cut}");
            }
            assert_eq!(key.decrypt(&[&*ticket, b"x"].concat()), None);
        }
    }

    #[test]
    fn no_ticket_is_like_another_and_nothing_of_the_session_shows() {
        let key = Sealed::new().unwrap();
        let plain = [0x5a; 64];
        let tickets: std::collections::BTreeSet<_> = (0..1000).map(|_| key.encrypt(&plain).unwrap()).collect();
        assert_eq!(tickets.len(), 1000);
        let nonces: std::collections::BTreeSet<_> = tickets.iter().map(|ticket| &ticket[..NONCE_LEN]).collect();
        assert_eq!(nonces.len(), 1000);
        assert!(tickets.iter().all(|ticket| !ticket.windows(8).any(|part| part == &plain[..8])));
    }
}
