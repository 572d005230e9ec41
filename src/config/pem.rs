//! What certificates, keys and revocation lists are read from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::load::PemError;

/// The content of every file that a set-up names, read once.
#[derive(Debug, Default)]
pub struct PemFiles(pub(super) BTreeMap<PathBuf, Vec<u8>>);

impl PemFiles {
    fn bytes(&self, path: &Path) -> &[u8] {
        self.0.get(path).map(Vec::as_slice).unwrap_or_default()
    }

    /// Of what is in them, in the order of their paths.
    pub fn digest(&self) -> Vec<u8> {
        let mut all = digest::Context::new(&digest::SHA256);
        for bytes in self.0.values() {
            all.update(digest::digest(&digest::SHA256, bytes).as_ref());
        }
        all.finish().as_ref().to_vec()
    }

    /// All items of one kind, at least one.
    ///
    /// # Errors
    /// What is not PEM with at least one.
    pub fn items<T: PemObject>(&self, path: &Path, expected: &'static str) -> Result<Vec<T>, PemError> {
        let wrong = |found: String| PemError::Pem { path: path.to_owned(), expected, found };
        let items = T::pem_slice_iter(self.bytes(path)).collect::<Result<Vec<T>, _>>().map_err(|error| wrong(error.to_string()))?;
        if items.is_empty() { Err(wrong("none".to_owned())) } else { Ok(items) }
    }

    /// # Errors
    /// Where there is none, or one behind a password.
    pub fn private_key(&self, path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
        PrivateKeyDer::from_pem_slice(self.bytes(path)).map_err(|_| PemError::Pem {
            path: path.to_owned(),
            expected: "an unencrypted private key (PKCS#8, PKCS#1 or SEC1)",
            found: "none".to_owned(),
        })
    }
}

/// The end of a certificate's validity, in seconds since the epoch. `None`: it is no X.509 certificate.
pub fn end_of(certificate: &[u8]) -> Option<i64> {
    X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed.validity().not_after.timestamp())
}
