//! How apps with TLS are spoken to: whom the proxy trusts there, and what it presents itself with.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use ::aws_lc_rs::digest;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, Error as RustlsError, RootCertStore};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::{PemError, PemFiles, Protocol, Route, UpstreamTls, end_of};
use crate::model::{Expiry, Lasting};

/// What is wrong with the files that an app's `upstream.tls` names.
#[derive(Debug, thiserror::Error)]
#[error("app `{app}`: upstream.tls.{key}: {what}")]
pub struct Insecure {
    app: String,
    key: &'static str,
    what: What,
}

#[derive(Debug, thiserror::Error)]
enum What {
    #[error(transparent)]
    File(#[from] PemError),
    #[error("{path}: the certificate cannot be used: {why}")]
    Certificate { path: PathBuf, why: String },
    #[error("{path}: the key is of another certificate; expected the key that {cert} was issued for")]
    Pair { cert: PathBuf, path: PathBuf },
    #[error("it is not set, and the system has no CA certificates{why}; name the CA of the app's servers, or install the system's CAs")]
    NoSystem { why: String },
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] RustlsError),
}

/// The set-ups of one configuration, shared by all workers, and with them the sessions that are resumed.
#[derive(Debug, Default)]
pub struct Secure {
    known: HashMap<UpstreamTls, Secured>,
}

#[derive(Debug)]
struct Secured {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    /// Of everything it was made of.
    content: Vec<u8>,
    /// Of each certificate that the operator named.
    expiries: Vec<Expiry>,
}

impl Secure {
    /// Reads every file that the routes name. What was made of the same bytes in `before` is kept, with its sessions and connections.
    ///
    /// # Errors
    /// The operator's fault: a file that is missing, unreadable or not what it should be; a system without CAs.
    pub fn load(routes: &[Route], before: &Self) -> Result<Arc<Self>, Insecure> {
        let mut system = System::default();
        let mut known = HashMap::new();
        for route in secured(routes) {
            let tls = &route.upstream.tls;
            if !known.contains_key(tls) {
                let made = Secured::make(tls, before.known.get(tls), &mut system).map_err(|error| error.of(route))?;
                known.insert(tls.clone(), made);
            }
        }
        Ok(Arc::new(Self { known }))
    }

    /// What `load` would refuse, at most one an app.
    pub fn mistakes(routes: &[Route]) -> Vec<Insecure> {
        let mut system = System::default();
        secured(routes)
            .filter_map(|route| Secured::make(&route.upstream.tls, None, &mut system).err().map(|error| error.of(route)))
            .collect()
    }

    /// Every file whose change calls for a reload.
    pub fn files(routes: &[Route]) -> impl Iterator<Item = PathBuf> {
        secured(routes).flat_map(|route| {
            let UpstreamTls { ca, certificate, .. } = &route.upstream.tls;
            let pair = certificate.iter().flat_map(|pair| [pair.cert.clone(), pair.key.clone()]);
            ca.iter().cloned().chain(pair).collect::<Vec<_>>()
        })
    }

    /// Of each certificate that the operator named.
    pub fn expiries(&self) -> impl Iterator<Item = &Expiry> {
        self.known.values().flat_map(|secured| &secured.expiries)
    }

    pub(super) fn of(&self, tls: &UpstreamTls, protocol: Protocol) -> Option<Arc<ClientConfig>> {
        let secured = self.known.get(tls)?;
        Some(Arc::clone(if protocol == Protocol::Http1 { &secured.http1 } else { &secured.http2 }))
    }
}

/// Those with a server that is `https://`.
fn secured(routes: &[Route]) -> impl Iterator<Item = &Route> {
    routes.iter().filter(|route| route.upstream.servers.iter().any(|server| server.tls))
}

struct Wrong(&'static str, What);

impl Wrong {
    fn of(self, route: &Route) -> Insecure {
        Insecure { app: route.app.to_string(), key: self.0, what: self.1 }
    }
}

impl Secured {
    fn make(tls: &UpstreamTls, before: Option<&Self>, system: &mut System) -> Result<Self, Wrong> {
        let files = read(tls)?;
        let mut content = files.digest();
        if tls.ca.is_empty() {
            content.extend(system.read().digest.as_ref().map(AsRef::as_ref).unwrap_or_default());
        }
        if let Some(before) = before.filter(|before| before.content == content) {
            let Self { http1, http2, content, expiries } = before;
            let (http1, http2) = (Arc::clone(http1), Arc::clone(http2));
            return Ok(Self { http1, http2, content: content.clone(), expiries: expiries.clone() });
        }
        let mut expiries = Vec::new();
        let roots = if tls.ca.is_empty() { system.roots()? } else { Arc::new(authorities(&tls.ca, &files, &mut expiries)?) };
        let setup = |error: RustlsError| Wrong("ca", What::Setup(error));
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(setup)?
            .with_root_certificates(roots);
        let mut http1 = match &tls.certificate {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let wrong = |what| Wrong("certificate", what);
                let chain: Vec<CertificateDer<'static>> =
                    files.items(&pair.cert, "a certificate chain").map_err(|error| wrong(error.into()))?;
                let key = files.private_key(&pair.key).map_err(|error| wrong(error.into()))?;
                expiries.extend(chain.first().and_then(|leaf| Some(Expiry::new(&pair.cert, Lasting::Presented, end_of(leaf)?))));
                builder.with_client_auth_cert(chain, key).map_err(|error| match error {
                    RustlsError::InconsistentKeys(_) => wrong(What::Pair { cert: pair.cert.clone(), path: pair.key.clone() }),
                    other => wrong(What::Certificate { path: pair.cert.clone(), why: other.to_string() }),
                })?
            }
        };
        let mut http2 = http1.clone();
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        http2.alpn_protocols = vec![b"h2".to_vec()];
        // Sessions of their own: what is resumed stays with its protocol.
        http2.resumption = rustls::client::Resumption::default();
        Ok(Self { http1: Arc::new(http1), http2: Arc::new(http2), content, expiries })
    }
}

fn authorities(paths: &[PathBuf], files: &PemFiles, expiries: &mut Vec<Expiry>) -> Result<RootCertStore, Wrong> {
    let mut roots = RootCertStore::empty();
    for path in paths {
        let found: Vec<CertificateDer<'static>> = files.items(path, "a CA certificate").map_err(|error| Wrong("ca", error.into()))?;
        expiries.extend(found.iter().filter_map(|ca| end_of(ca)).min().map(|ends| Expiry::new(path, Lasting::AppAuthority, ends)));
        for certificate in found {
            let unusable = |why: String| Wrong("ca", What::Certificate { path: path.clone(), why });
            if let Some(why) = trusts_nobody(&certificate) {
                return Err(unusable(why.to_owned()));
            }
            roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
        }
    }
    Ok(roots)
}

/// Why no server's certificate could be verified by this one, if so: rustls takes any as a root, without a word. A certificate that issued itself
/// is one server's own.
fn trusts_nobody(certificate: &[u8]) -> Option<&'static str> {
    match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) if parsed.is_ca() || parsed.subject().as_raw() == parsed.issuer().as_raw() => None,
        Ok(_) => Some("it is neither that of an authority (CA:TRUE) nor issued by itself"),
        Err(_) => Some("it is not an X.509 certificate"),
    }
}

/// The system's CAs, read when the first app needs them.
#[derive(Default)]
struct System(Option<SystemCas>);

struct SystemCas {
    roots: Arc<RootCertStore>,
    digest: Option<digest::Digest>,
    why: String,
}

impl System {
    fn read(&mut self) -> &SystemCas {
        self.0.get_or_insert_with(|| {
            let found = rustls_native_certs::load_native_certs();
            let mut all = digest::Context::new(&digest::SHA256);
            found.certs.iter().for_each(|certificate| all.update(certificate));
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(found.certs);
            let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
            SystemCas { roots: Arc::new(roots), digest: Some(all.finish()), why }
        })
    }

    fn roots(&mut self) -> Result<Arc<RootCertStore>, Wrong> {
        let SystemCas { roots, why, .. } = self.read();
        if roots.is_empty() { Err(Wrong("ca", What::NoSystem { why: why.clone() })) } else { Ok(Arc::clone(roots)) }
    }
}

/// Every file that one app names.
fn read(tls: &UpstreamTls) -> Result<PemFiles, Wrong> {
    let pair = tls.certificate.iter().flat_map(|pair| [&pair.cert, &pair.key]);
    let authorities = PemFiles::default().with(&tls.ca).map_err(|error| Wrong("ca", error.into()))?;
    authorities.with(pair).map_err(|error| Wrong("certificate", error.into()))
}
