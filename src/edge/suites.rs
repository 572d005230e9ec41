//! TLS 1.3's cipher suites: transcript hash and key schedule by RustCrypto's hashes and rustls' HKDF over RustCrypto's HMAC, all else the provider's.
//!
//! The HKDF that comes with the provider extracts anew for each key that it expands, and prepares each secret anew: a third of a handshake's hashes.
//! The one that rustls has for any HMAC prepares each secret once. The provider's hash has a context to be made, copied and cleared, in blocks of its own,
//! each time that the transcript is looked at.

use std::marker::PhantomData;
use std::sync::LazyLock;

use hmac::{Hmac, KeyInit, Mac};
use rustls::crypto::tls13::{Hkdf, HkdfUsingHmac};
use rustls::crypto::{CryptoProvider, aws_lc_rs, hash, hmac as tls};
use rustls::{CipherSuite, CipherSuiteCommon, SupportedCipherSuite, Tls13CipherSuite};
use sha2::{Digest, Sha256, Sha384};

/// The provider of aws-lc-rs, with this key schedule. Its suites stand in the order in which the server prefers them: all are strong, so the
/// fastest comes first.
pub fn provider() -> CryptoProvider {
    let provider = aws_lc_rs::default_provider();
    let suite = |theirs: SupportedCipherSuite| {
        let own = theirs.tls13().and_then(|theirs| SUITES.iter().find(|own| own.common.suite == theirs.common.suite));
        own.map_or(theirs, SupportedCipherSuite::Tls13)
    };
    let mut cipher_suites: Vec<_> = provider.cipher_suites.iter().copied().map(suite).collect();
    // Stable: TLS 1.3 before 1.2, ECDSA before RSA.
    cipher_suites.sort_by_key(|suite| (suite.tls13().is_none(), !is_aes_128(suite.suite())));
    CryptoProvider { cipher_suites, ..provider }
}

const fn is_aes_128(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

/// Each of TLS 1.3's suites whose hash is known here.
static SUITES: LazyLock<Vec<Tls13CipherSuite>> = LazyLock::new(|| {
    let theirs = aws_lc_rs::ALL_CIPHER_SUITES.iter().filter_map(SupportedCipherSuite::tls13);
    let own = theirs.filter_map(|theirs| {
        let (hash_provider, hkdf_provider) = match theirs.common.hash_provider.algorithm() {
            hash::HashAlgorithm::SHA256 => (&TRANSCRIPT256 as &dyn hash::Hash, &SHA256 as &dyn Hkdf),
            hash::HashAlgorithm::SHA384 => (&TRANSCRIPT384 as &dyn hash::Hash, &SHA384 as &dyn Hkdf),
            _ => return None,
        };
        let common =
            CipherSuiteCommon { suite: theirs.common.suite, hash_provider, confidentiality_limit: theirs.common.confidentiality_limit };
        Some(Tls13CipherSuite { common, hkdf_provider, aead_alg: theirs.aead_alg, quic: None })
    });
    own.collect()
});

static SHA256: HkdfUsingHmac<'_> = HkdfUsingHmac(&Hash::<Hmac<Sha256>>(PhantomData));
static SHA384: HkdfUsingHmac<'_> = HkdfUsingHmac(&Hash::<Hmac<Sha384>>(PhantomData));

struct Hash<M>(PhantomData<fn() -> M>);

/// A secret that is ready for use.
struct Key<M>(M);

impl<M: Mac + KeyInit + Clone + Send + Sync + 'static> tls::Hmac for Hash<M> {
    fn with_key(&self, key: &[u8]) -> Box<dyn tls::Key> {
        Box::new(Key::<M>(KeyInit::new_from_slice(key).expect("keys of any length are HMAC's (RFC 2104 section 2)")))
    }

    fn hash_output_len(&self) -> usize {
        M::output_size()
    }
}

impl<M: Mac + Clone + Send + Sync> tls::Key for Key<M> {
    fn sign_concat(&self, first: &[u8], middle: &[&[u8]], last: &[u8]) -> tls::Tag {
        let mut mac = self.0.clone();
        mac.update(first);
        middle.iter().for_each(|part| mac.update(part));
        mac.update(last);
        tls::Tag::new(&mac.finalize().into_bytes())
    }

    fn tag_len(&self) -> usize {
        M::output_size()
    }
}

static TRANSCRIPT256: Transcript<Sha256> = Transcript(hash::HashAlgorithm::SHA256, PhantomData);
static TRANSCRIPT384: Transcript<Sha384> = Transcript(hash::HashAlgorithm::SHA384, PhantomData);

struct Transcript<D>(hash::HashAlgorithm, PhantomData<fn() -> D>);

/// What was hashed so far.
struct SoFar<D>(D);

impl<D: Digest + Clone + Send + Sync + 'static> hash::Hash for Transcript<D> {
    fn start(&self) -> Box<dyn hash::Context> {
        Box::new(SoFar(D::new()))
    }

    fn hash(&self, data: &[u8]) -> hash::Output {
        hash::Output::new(&D::digest(data))
    }

    fn output_len(&self) -> usize {
        <D as Digest>::output_size()
    }

    fn algorithm(&self) -> hash::HashAlgorithm {
        self.0
    }
}

impl<D: Digest + Clone + Send + Sync + 'static> hash::Context for SoFar<D> {
    fn fork_finish(&self) -> hash::Output {
        hash::Output::new(&self.0.clone().finalize())
    }

    fn fork(&self) -> Box<dyn hash::Context> {
        Box::new(Self(self.0.clone()))
    }

    fn finish(self: Box<Self>) -> hash::Output {
        hash::Output::new(&self.0.finalize())
    }

    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::tls13::HkdfExpander;

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn expanded(expander: &dyn HkdfExpander, info: &[&[u8]], length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        expander.expand_slice(info, &mut out).unwrap();
        out
    }

    #[test]
    fn rfc_5869_appendix_a() {
        let salt: Vec<u8> = (0..=0x0c).collect();
        let info: Vec<u8> = (0xf0..=0xf9).collect();
        let one = SHA256.extract_from_secret(Some(&salt), &[0x0b; 22]);
        let okm = bytes("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
        assert_eq!(expanded(&*one, &[&info], 42), okm);
        assert_eq!(expanded(&*one, &[&info[..3], &info[3..]], 42), okm, "the info may come in parts");
        assert_eq!(one.expand_block(&[&info]).as_ref(), &okm[..32]);

        let range = |from: u8, to: u8| (from..=to).collect::<Vec<u8>>();
        let two = SHA256.extract_from_secret(Some(&range(0x60, 0xaf)), &range(0, 0x4f));
        let okm = bytes(concat!(
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09",
            "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"
        ));
        assert_eq!(expanded(&*two, &[&range(0xb0, 0xff)], 82), okm);

        let three = SHA256.extract_from_secret(None, &[0x0b; 22]);
        let okm = bytes("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
        assert_eq!(expanded(&*three, &[], 42), okm);
    }

    /// Whatever is hashed in whatever parts, and looked at on the way.
    fn same_transcript(own: &dyn hash::Hash, theirs: &dyn hash::Hash) {
        assert_eq!((own.algorithm(), own.output_len()), (theirs.algorithm(), theirs.output_len()));
        let (mut one, mut other) = (own.start(), theirs.start());
        let mut all = Vec::new();
        for length in [0, 1, 62, 1, 64, 65, 127, 128, 129, 1000] {
            let part: Vec<u8> = (0..length).map(|at| (at * 31 + length) as u8).collect();
            all.extend_from_slice(&part);
            one.update(&part);
            other.update(&part);
            assert_eq!(one.fork_finish().as_ref(), other.fork_finish().as_ref());
            assert_eq!(own.hash(&all).as_ref(), other.fork_finish().as_ref());
            let mut fork = one.fork();
            fork.update(b"on another way");
            assert_ne!(fork.finish().as_ref(), other.fork_finish().as_ref());
        }
        assert_eq!(one.finish().as_ref(), other.finish().as_ref());
    }

    /// Against rustls' own, which makes the same keys by another way.
    #[test]
    fn every_suite_makes_the_keys_that_rustls_makes() {
        assert_eq!(provider().cipher_suites.len(), aws_lc_rs::default_provider().cipher_suites.len());
        let mut seen = 0;
        for theirs in aws_lc_rs::ALL_CIPHER_SUITES.iter().filter_map(SupportedCipherSuite::tls13) {
            let provider = provider();
            let own =
                provider.cipher_suites.iter().filter_map(SupportedCipherSuite::tls13).find(|own| own.common.suite == theirs.common.suite);
            let (own, theirs) = (own.unwrap(), theirs);
            assert_eq!((own.common.suite, own.common.confidentiality_limit), (theirs.common.suite, theirs.common.confidentiality_limit));
            same_transcript(own.common.hash_provider, theirs.common.hash_provider);
            let (own, theirs) = (own.hkdf_provider, theirs.hkdf_provider);
            assert!(!std::ptr::addr_eq(own, theirs));
            for salt in [None, Some(&b""[..]), Some(&[7; 32])] {
                for (one, other) in [
                    (own.extract_from_zero_ikm(salt), theirs.extract_from_zero_ikm(salt)),
                    (own.extract_from_secret(salt, b"secret"), theirs.extract_from_secret(salt, b"secret")),
                ] {
                    let info: [&[u8]; 2] = [b"in", b"fo"];
                    let (block, same) = (one.expand_block(&info), other.expand_block(&info));
                    assert_eq!(block.as_ref(), same.as_ref());
                    assert_eq!((one.hash_len(), expanded(&*one, &info, 200)), (other.hash_len(), expanded(&*other, &info, 200)));
                    assert_eq!(own.hmac_sign(&block, b"text").as_ref(), theirs.hmac_sign(&same, b"text").as_ref());
                    let (next, other) = (own.expander_for_okm(&block), theirs.expander_for_okm(&same));
                    assert_eq!(expanded(&*next, &info, 12), expanded(&*other, &info, 12));
                }
            }
            seen += 1;
        }
        assert_eq!(seen, 3);
        let mut long = vec![0; 256 * 32];
        assert!(SHA256.extract_from_zero_ikm(None).expand_slice(&[], &mut long).is_err());
    }
}
