//! What is known of the device behind a request.

use std::sync::Arc;

use super::Device;

/// Why no record was even looked for, or none was found. Each is a reason of its own on the block page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoRecord {
    /// The client showed nothing that could name a device.
    NoProof,
    /// A valid certificate whose key no record has.
    UnknownCertificate,
    ExpiredCertificate,
    /// Before its notBefore: its clock or ours is wrong, or it was made for later.
    FutureCertificate,
    /// Not issued by a `client_ca`, not for client authentication, or not well formed.
    UntrustedCertificate,
    RevokedCertificate,
    /// The CRL that must vouch for the certificate is past its nextUpdate.
    StaleCrl,
}

impl NoRecord {
    pub const ALL: [Self; 7] = [
        Self::NoProof,
        Self::UnknownCertificate,
        Self::ExpiredCertificate,
        Self::FutureCertificate,
        Self::UntrustedCertificate,
        Self::RevokedCertificate,
        Self::StaleCrl,
    ];
}

/// What the client proved, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A valid certificate: SHA-256 of its SubjectPublicKeyInfo in lower-case hex, and its notAfter in seconds since the epoch.
    Certificate {
        spki_sha256: Arc<str>,
        not_after: i64,
    },
    None(NoRecord),
}

/// How old the record is by the cache's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Freshness {
    Fresh,
    /// The store could not be asked again, `serve_stale` not yet over: facts keep their state.
    Stale,
    /// Past `serve_stale`: facts are unknown, ownership and state keep their last value.
    TooOld,
}

/// The answer of the store for one proof.
#[derive(Clone, Debug)]
pub enum Standing {
    /// A blind device.
    NoRecord(NoRecord),
    /// Not a blind device: nobody could look.
    Unreadable,
    Known {
        device: Arc<Device>,
        freshness: Freshness,
        /// When the certificate that proved the device ends, seconds since the epoch.
        proof_ends: i64,
    },
}

impl Standing {
    pub fn device(&self) -> Option<&Device> {
        match self {
            Self::Known { device, .. } => Some(device),
            Self::NoRecord(_) | Self::Unreadable => None,
        }
    }
}
