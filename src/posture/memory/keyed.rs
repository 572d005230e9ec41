//! Keyed hashes of what connections show. The store has them in place of the texts, so they are the same after a restart, and nobody without the key
//! can make two texts meet.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ahash::RandomState;
use aws_lc_rs::hmac;

/// What is hashed: equal texts of two layers have different hashes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Layer {
    Tls,
    H2,
    Syn,
    Group,
    Peer,
}

/// The store's key, with the hashes that it made of late: most connections show what others showed before them. They are found by the text itself,
/// and go with the key.
#[derive(Debug)]
pub(super) struct Secret {
    key: hmac::Key,
    /// By layer.
    known: [Mutex<Known>; 5],
}

type Known = HashMap<Box<str>, u64, RandomState>;

impl Secret {
    /// Hashes kept of one layer. When so many are there all go: a flood of new texts costs what it would without, and holds no more.
    const MOST: usize = 1024;
    /// Bytes of the longest text that is kept with its hash.
    const LONGEST: usize = 128;

    pub(super) fn new(secret: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret), known: Default::default() }
    }

    /// Never 0.
    pub(super) fn keyed(&self, layer: Layer, text: &str) -> u64 {
        let [tls, h2, syn, group, peer] = &self.known;
        let known = match layer {
            Layer::Tls => tls,
            Layer::H2 => h2,
            Layer::Syn => syn,
            Layer::Group => group,
            Layer::Peer => peer,
        };
        let known = || known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hash) = known().get(text) {
            return *hash;
        }
        let hash = self.hash(layer, text);
        if text.len() <= Self::LONGEST {
            let mut known = known();
            if known.len() >= Self::MOST {
                known.clear();
            }
            known.insert(text.into(), hash);
        }
        hash
    }

    fn hash(&self, layer: Layer, text: &str) -> u64 {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&[layer as u8]);
        context.update(text.as_bytes());
        let tag = context.sign();
        let first = tag.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
        first.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_its_keys_its_layers_and_its_texts() {
        let (one, two) = (Secret::new(&[1; 32]), Secret::new(&[2; 32]));
        for _ in 0..2 {
            assert_eq!(one.keyed(Layer::Tls, "x"), Secret::new(&[1; 32]).keyed(Layer::Tls, "x"));
            assert_ne!(one.keyed(Layer::Tls, "x"), two.keyed(Layer::Tls, "x"));
            assert_ne!(one.keyed(Layer::Tls, "x"), one.keyed(Layer::H2, "x"));
            assert_ne!(one.keyed(Layer::Tls, "x"), one.keyed(Layer::Tls, "y"));
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_says_the_same_as_what_is_not() {
        let secret = Secret::new(&[1; 32]);
        let text = |n: usize| format!("{n:0$}", 1 + n % (2 * Secret::LONGEST));
        for n in 0..3 * Secret::MOST {
            let first = secret.keyed(Layer::Peer, &text(n));
            assert_eq!((first, first), (secret.keyed(Layer::Peer, &text(n)), secret.hash(Layer::Peer, &text(n))), "{n}");
            let known = secret.known[4].lock().unwrap();
            assert!(known.len() <= Secret::MOST && known.keys().all(|text| text.len() <= Secret::LONGEST));
        }
        assert!(!secret.known[4].lock().unwrap().is_empty());
    }
}
