//! The key that a certificate proves.

use std::io::Read;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::identify;

/// A certificate file is a few KiB; more than this is another file by mistake.
const SIZE_MAX: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{} cannot be read: {error}", path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("{} holds no PEM certificate", path.display())]
    NotPem { path: PathBuf },
    #[error("the certificate in {} is malformed", path.display())]
    Malformed { path: PathBuf },
}

/// SHA-256, in lower-case hex, of the SubjectPublicKeyInfo of the first certificate in a PEM file: the value of an `spki_sha256` key.
pub fn spki_sha256(path: &Path) -> Result<String, CertificateError> {
    let path_buf = || path.to_path_buf();
    let unreadable = |error| CertificateError::Unreadable { path: path_buf(), error };
    let mut pem = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(SIZE_MAX).read_to_end(&mut pem)).map_err(unreadable)?;
    let der = CertificateDer::from_pem_slice(&pem).map_err(|_| CertificateError::NotPem { path: path_buf() })?;
    identify::spki_sha256(&der).ok_or_else(|| CertificateError::Malformed { path: path_buf() })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest;

    use super::*;

    #[test]
    fn the_key_of_a_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.pem");
        let signed = rcgen::generate_simple_self_signed(vec!["device".to_owned()]).unwrap();
        std::fs::write(&path, signed.cert.pem()).unwrap();
        let spki = rcgen::PublicKeyData::subject_public_key_info(&signed.signing_key);
        let expected: String = digest::digest(&digest::SHA256, &spki).as_ref().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(spki_sha256(&path).unwrap(), expected);

        std::fs::write(&path, signed.signing_key.serialize_pem()).unwrap();
        assert!(matches!(spki_sha256(&path), Err(CertificateError::NotPem { .. })));
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert!(matches!(spki_sha256(&path), Err(CertificateError::Malformed { .. })));
        assert!(matches!(spki_sha256(folder.path()), Err(CertificateError::Unreadable { .. })));
    }
}
