//! A listener's certificates to TLS configurations: one for each certificate, with and without a request for the client's.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, SignatureVerificationAlgorithm, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, ServerConfig};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{DigitallySignedStruct, DistinguishedName, Error as RustlsError, SignatureScheme};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate, X509Version};

use super::{suites, ticket};
use crate::config::{AskCertificate, Forwarded, PemError, PemFiles, Tls, end_of};
use crate::identify::{CertificateNames, ClientTrust, TrustError};
use crate::model::{Expiry, Host, Lasting};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(transparent)]
    File(#[from] PemError),
    #[error("{key}: the key is of another certificate; expected the key that {cert} was issued for")]
    Pair { cert: PathBuf, key: PathBuf },
    #[error("{path}: the certificate cannot be used: {what}")]
    Certificate { path: PathBuf, what: String },
    #[error(
        "{path}: no certificate of `client_ca` has issued this list, so that it would revoke nothing; name the CA that has, also an intermediate one, in `client_ca`"
    )]
    NobodysList { path: PathBuf },
    #[error("{files}: {source}")]
    Trust { files: String, source: TrustError },
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] RustlsError),
}

/// What one certificate serves with.
#[derive(Debug)]
struct Served {
    names: Arc<CertificateNames>,
    asking: Arc<ServerConfig>,
    silent: Arc<ServerConfig>,
}

/// A TLS listener's set-up.
#[derive(Debug)]
pub struct Setup {
    served: Vec<Served>,
    not_asked: Arc<[Host]>,
    pub trust: Option<Arc<ClientTrust>>,
    /// Of each certificate, client CA and CRL.
    pub expiries: Vec<Expiry>,
    /// What it was made of.
    tls: Tls,
    content: Vec<u8>,
}

impl Setup {
    /// Reads every file that `tls` names.
    ///
    /// # Errors
    /// The operator's fault: a file that is missing, unreadable, not what it should be, or a key of another certificate.
    pub fn load(tls: &Tls) -> Result<Self, TlsError> {
        Self::make(tls, &read(tls)?)
    }

    /// As `load`, or the set-up of before if nothing it was made of has changed: with its ticket keys, clients go on resuming their sessions.
    ///
    /// # Errors
    /// As `load`.
    pub fn after(before: Option<&Arc<Self>>, tls: &Tls) -> Result<Arc<Self>, TlsError> {
        let files = read(tls)?;
        match before {
            Some(before) if before.tls == *tls && before.content == files.digest() => Ok(Arc::clone(before)),
            Some(_) | None => Self::make(tls, &files).map(Arc::new),
        }
    }

    fn make(tls: &Tls, read: &PemFiles) -> Result<Self, TlsError> {
        let mut expiries = Vec::new();
        let trust = load_trust(tls, read, &mut expiries)?;
        let provider = Arc::new(suites::provider());
        let mut served = Vec::with_capacity(tls.certificates.len());
        for files in &tls.certificates {
            let chain: Vec<CertificateDer<'static>> = read.items(&files.cert, "a certificate chain")?;
            let key = read.private_key(&files.key)?;
            let leaf = chain.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()));
            let unusable = || TlsError::Certificate { path: files.cert.clone(), what: "it is not an X.509 certificate".to_owned() };
            let names = CertificateNames::of(&leaf).ok_or_else(unusable)?;
            expiries.push(Expiry::new(&files.cert, Lasting::Certificate, end_of(&leaf).ok_or_else(unusable)?));
            let pair = CertifiedKey::from_der(chain, key, &provider).map_err(|source| match source {
                RustlsError::InconsistentKeys(_) => TlsError::Pair { cert: files.cert.clone(), key: files.key.clone() },
                other => TlsError::Certificate { path: files.cert.clone(), what: other.to_string() },
            })?;
            let pair = Arc::new(SingleCertAndKey::from(pair));
            let silent = server(&provider, &pair, None)?;
            let asking = match &trust {
                Some(trust) => server(&provider, &pair, Some(Arc::clone(trust.verifier())))?,
                None => Arc::clone(&silent),
            };
            served.push(Served { names: Arc::new(names), asking, silent });
        }
        let not_asked = tls.ask_certificate.except.as_slice().into();
        Ok(Self { served, not_asked, trust, expiries, tls: tls.clone(), content: read.digest() })
    }

    /// The certificate for a client that asked for this name, in lower case: an exact match, then a wildcard, else the first.
    pub fn choose(&self, sni: Option<&str>) -> Option<Chosen<'_>> {
        let matching = sni.and_then(|name| {
            let exact = self.served.iter().find(|served| served.names.name(name));
            exact.or_else(|| self.served.iter().find(|served| served.names.cover(name)))
        });
        let served = matching.or_else(|| self.served.first())?;
        let silent = sni.is_some_and(|name| self.not_asked.iter().any(|host| host.as_str() == name));
        let config = Arc::clone(if silent { &served.silent } else { &served.asking });
        let spared = (silent && self.trust.is_some()).then(|| Arc::clone(&self.not_asked));
        Some(Chosen { names: &served.names, config, spared })
    }
}

/// Whose certificates count that proxies in front say were presented to them.
#[derive(Debug)]
pub struct Vouching {
    /// `None`: nobody's.
    pub trust: Option<Arc<ClientTrust>>,
    /// As those of a set-up.
    pub expiries: Vec<Expiry>,
}

impl Vouching {
    /// Reads the files that `forwarded` names.
    ///
    /// # Errors
    /// The operator's fault, as in a listener's `tls`.
    pub fn load(forwarded: &Forwarded) -> Result<Self, TlsError> {
        let (client_ca, client_crl) = (forwarded.client_ca.clone(), forwarded.client_crl.clone());
        let tls = Tls { certificates: Vec::new(), client_ca, client_crl, ask_certificate: AskCertificate::default() };
        let mut expiries = Vec::new();
        let trust = load_trust(&tls, &read(&tls)?, &mut expiries)?;
        Ok(Self { trust, expiries })
    }
}

/// What one connection is served with.
#[derive(Debug)]
pub struct Chosen<'a> {
    pub names: &'a Arc<CertificateNames>,
    pub config: Arc<ServerConfig>,
    /// Where the client is not asked for a certificate though others are: the hosts that this holds for.
    pub spared: Option<Arc<[Host]>>,
}

fn server(
    provider: &Arc<CryptoProvider>,
    pair: &Arc<SingleCertAndKey>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let builder = match verifier {
        Some(inner) => builder.with_client_cert_verifier(Arc::new(Witness(inner))),
        None => builder.with_no_client_auth(),
    };
    let resolver: Arc<dyn rustls::server::ResolvesServerCert> = Arc::<SingleCertAndKey>::clone(pair);
    let mut config = builder.with_cert_resolver(resolver);
    // What every scanner asks for; and no client is made to pay for a slow suite of its own list.
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Stateless tickets whose keys rotate: rustls' own cache holds only 256 sessions. Each configuration has its own keys, so that a session
    // never moves from a host that asks for certificates to one that does not.
    config.ticketer = ticket::ticketer()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

fn load_trust(tls: &Tls, read: &PemFiles, expiries: &mut Vec<Expiry>) -> Result<Option<Arc<ClientTrust>>, TlsError> {
    if tls.client_ca.is_empty() {
        return Ok(None);
    }
    let mut authorities = Vec::new();
    for path in &tls.client_ca {
        let found: Vec<CertificateDer<'static>> = read.items(path, "a CA certificate")?;
        if let Some(what) = found.iter().find_map(|ca| no_authority(ca)) {
            return Err(TlsError::Certificate { path: path.clone(), what: what.to_owned() });
        }
        if let Some(ends) = found.iter().filter_map(|ca| end_of(ca)).min() {
            expiries.push(Expiry::new(path, Lasting::Authority, ends));
        }
        authorities.extend(found);
    }
    let mut crls = Vec::new();
    for path in &tls.client_crl {
        let found: Vec<CertificateRevocationListDer<'static>> = read.items(path, "a certificate revocation list")?;
        if !found.iter().all(|crl| authorities.iter().any(|ca| has_signed(ca, crl))) {
            return Err(TlsError::NobodysList { path: path.clone() });
        }
        if let Some(ends) = found.iter().filter_map(|crl| crl_end(crl)).min() {
            expiries.push(Expiry::new(path, Lasting::Crl, ends));
        }
        crls.extend(found);
    }
    let files = || tls.client_ca.iter().chain(&tls.client_crl).map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
    let trust = ClientTrust::new(authorities, crls).map_err(|source| TlsError::Trust { files: files(), source })?;
    Ok(Some(Arc::new(trust)))
}

/// Why this certificate can issue none, if so. rustls takes any as a root, and would then trust nobody, without a word. A certificate of
/// version 1 cannot say that it is an authority; old roots are of that kind.
fn no_authority(certificate: &[u8]) -> Option<&'static str> {
    match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) if parsed.version == X509Version::V3 && !parsed.is_ca() => Some("it is not that of an authority (CA:TRUE)"),
        Ok(_) => None,
        Err(_) => Some("it is not an X.509 certificate"),
    }
}

/// Whether the list is this authority's. A list of an authority that is not trusted here would never be asked: what it revokes would stay
/// valid, without a word.
fn has_signed(authority: &[u8], crl: &[u8]) -> bool {
    let (Ok((_, ca)), Ok((_, list))) = (X509Certificate::from_der(authority), CertificateRevocationList::from_der(crl)) else {
        return false;
    };
    let key = ca.public_key().subject_public_key.as_ref();
    let signed = |algorithm: &&dyn SignatureVerificationAlgorithm| {
        algorithm.verify_signature(key, list.tbs_cert_list.as_ref(), list.signature_value.as_ref()).is_ok()
    };
    ca.subject().as_raw() == list.issuer().as_raw()
        && aws_lc_rs::default_provider().signature_verification_algorithms.all.iter().any(signed)
}

/// Every file that a listener names.
fn read(tls: &Tls) -> Result<PemFiles, PemError> {
    let pairs = tls.certificates.iter().flat_map(|files| [&files.cert, &files.key]);
    PemFiles::default().with(tls.client_ca.iter().chain(&tls.client_crl).chain(pairs))
}

fn crl_end(crl: &[u8]) -> Option<i64> {
    let (_, parsed) = CertificateRevocationList::from_der(crl).ok()?;
    parsed.next_update().map(|time| time.timestamp())
}

/// Lets every client finish its handshake, whatever its certificate: what it is worth is decided by `ClientTrust::proof`, and a person with an
/// expired certificate gets a page that says so instead of a connection error. That the client holds the certificate's key is still verified.
#[derive(Debug)]
struct Witness(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Witness {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(&self, _: &CertificateDer<'_>, _: &[CertificateDer<'_>], _: UnixTime) -> Result<ClientCertVerified, RustlsError> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        m: &[u8],
        c: &CertificateDer<'_>,
        s: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        readable(c, || self.0.verify_tls12_signature(m, c, s))
    }

    fn verify_tls13_signature(
        &self,
        m: &[u8],
        c: &CertificateDer<'_>,
        s: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        readable(c, || self.0.verify_tls13_signature(m, c, s))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// A certificate that webpki cannot read (X.509 v1, an unknown critical extension) proves nothing in `ClientTrust::proof`, which reads it with
/// webpki too: whether its signature holds does not matter, and its owner gets the page.
fn readable(
    certificate: &CertificateDer<'_>,
    verify: impl FnOnce() -> Result<HandshakeSignatureValid, RustlsError>,
) -> Result<HandshakeSignatureValid, RustlsError> {
    match ParsedCertificate::try_from(certificate) {
        Ok(_) => verify(),
        Err(_) => Ok(HandshakeSignatureValid::assertion()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{AskCertificate, CertificateFiles};

    /// A listener with a new certificate in a folder.
    fn listener(folder: &Path) -> Tls {
        let made = rcgen::generate_simple_self_signed(vec!["wiki.corp.example".to_owned()]).unwrap();
        let (cert, key) = (folder.join("edge.pem"), folder.join("edge.key"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let certificates = vec![CertificateFiles { cert, key }];
        Tls { certificates, client_ca: Vec::new(), client_crl: Vec::new(), ask_certificate: AskCertificate::default() }
    }

    #[test]
    fn a_set_up_lasts_until_its_section_or_what_is_in_its_files_changes() {
        let folder = tempfile::tempdir().unwrap();
        let tls = listener(folder.path());
        let first = Setup::after(None, &tls).unwrap();
        assert!(Arc::ptr_eq(&first, &Setup::after(Some(&first), &tls).unwrap()));
        let twice = Tls { certificates: [tls.certificates.as_slice(), &tls.certificates].concat(), ..tls.clone() };
        assert!(!Arc::ptr_eq(&first, &Setup::after(Some(&first), &twice).unwrap()), "the same files for something else");
        let tls = listener(folder.path());
        let renewed = Setup::after(Some(&first), &tls).unwrap();
        assert!(!Arc::ptr_eq(&first, &renewed), "other content under the same names");
        std::fs::remove_file(&tls.certificates[0].key).unwrap();
        assert!(Setup::after(Some(&renewed), &tls).is_err(), "a file that is gone is a mistake still");
    }
}
