//! What certificates and keys say of each other, and of the apps' hosts.

use rustls::Error as RustlsError;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::report::{Findings, Place};
use super::serving::{Holds, NamedFile};
use super::yaml::short;
use crate::identify::CertificateNames;
use crate::policy::draft::HostPattern;

/// `files` are what the listeners name, in the order of the configuration: a certificate's key comes right after it.
pub fn check(files: &[(NamedFile, Vec<u8>)], hosts: &[(HostPattern, Place)], out: &mut Findings) {
    let mut served = Vec::new();
    for pair in files.windows(2) {
        let [(cert, chain), (key, secret)] = pair else { continue };
        if !matches!((cert.holds, key.holds), (Holds::Certificates | Holds::Presented, Holds::PrivateKey)) {
            continue;
        }
        if is_of_another(chain, secret) {
            let (cert, found) = (cert.path.display(), key.path.display());
            out.error(key.place, format!("{found}: the key is of another certificate; expected the key that {cert} was issued for"));
        }
        if cert.holds == Holds::Presented {
            continue;
        }
        served.extend(CertificateDer::from_pem_slice(chain).ok().and_then(|leaf| CertificateNames::of(&leaf)));
    }
    if served.is_empty() {
        return;
    }
    for (pattern, place) in hosts {
        let (covered, host) = match pattern {
            HostPattern::Exact(host) => (served.iter().any(|names| names.cover(host.as_str())), host.to_string()),
            HostPattern::Below(host) => (served.iter().any(|names| names.reach_below(host.as_str())), format!("*.{host}")),
        };
        if !covered {
            out.warn(*place, format!("no certificate of any listener covers `{}`: browsers refuse it", short(&host)));
        }
    }
}

/// Whether it is certain that the key is not the certificate's. What else is wrong with them is said by whoever serves with them.
fn is_of_another(chain: &[u8], key: &[u8]) -> bool {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let (Ok(chain), Ok(key)) = (chain, PrivateKeyDer::from_pem_slice(key)) else { return false };
    matches!(CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()), Err(RustlsError::InconsistentKeys(_)))
}
