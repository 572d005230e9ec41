//! A certificate authority for a lab: the files that `config/vestibule.yaml` names, certificates for devices, and their revocation.
//!
//! Two authorities, so that neither can stand in for the other: one signs the edge's certificate and its key is thrown away at once (people
//! trust this authority in their browsers; a key that does not exist cannot be stolen), the other signs devices and keeps its key here.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, DnsName};
use time::OffsetDateTime;

use super::ca_files::{self, File, Index, Issuance};

pub const EDGE_CERT: &str = "edge.pem";
pub const EDGE_KEY: &str = "edge.key";
pub const EDGE_CA: &str = "edge-ca.pem";
pub const DEVICE_CA: &str = "device-ca.pem";
pub const DEVICE_CA_KEY: &str = "device-ca.key";
pub const DEVICE_CRL: &str = "device-crl.pem";
pub const INDEX: &str = "device-index.json";
pub const DEVICES: &str = "devices";

/// Names that a lab's edge certificate covers unless told otherwise.
pub const DEFAULT_HOSTS: [&str; 8] =
    ["localhost", "wiki.localhost", "payroll.localhost", "git.localhost", "wiki.corp.example", "*.corp.example", "127.0.0.1", "::1"];

const CA_DAYS: i64 = 3650;
/// Apple's systems refuse a server certificate that lives longer than 825 days, also one of a private authority; Mozilla's advice is a year.
const EDGE_DAYS: i64 = 365;
const CRL_DAYS: i64 = 365;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{} exists already and is not overwritten; choose another folder or name, or say --force to replace it", list(.0))]
    Exists(Vec<PathBuf>),
    #[error("cannot read {}{}", .0.display(), hint(.0, .1))]
    Read(PathBuf, #[source] io::Error),
    #[error("cannot write {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
    #[error("{path}: {what}", path = .0.display(), what = .1)]
    Broken(PathBuf, String),
    #[error("`{0}` cannot be a device's name: use 1 to 64 of A-Z a-z 0-9 . _ - and begin with a letter or digit")]
    Name(String),
    #[error("`{0}` is neither a host name nor an address")]
    Host(String),
    #[error("clients refuse `{0}`: a wildcard needs two labels behind it, as in *.corp.example; list the names themselves")]
    Wildcard(String),
    #[error("the certificate would begin at {from} and end at {until}: the end must come later")]
    Backwards { from: Timestamp, until: Timestamp },
    #[error("the certificate would outlive its authority, which ends at {0}")]
    Outlives(Timestamp),
    #[error("no certificate was ever issued to `{name}` by the authority in {}", .dir.display())]
    NeverIssued { name: String, dir: PathBuf },
    #[error("cannot make the certificate")]
    Make(#[from] rcgen::Error),
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn hint(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            let dir = path.parent().unwrap_or(Path::new("."));
            format!(" (`vestibule certs init --dir {}` makes the authority)", dir.display())
        }
        _ => String::new(),
    }
}

/// From when to when a certificate, or a revocation list, is good.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    pub from: Timestamp,
    pub until: Timestamp,
}

impl Validity {
    /// From an hour ago, so that a clock that is a little behind accepts it, until so many days from now.
    pub fn days(days: i64) -> Self {
        let now = Timestamp::now();
        Self { from: earlier(now, 1), until: later(now, days.saturating_mul(24)) }
    }
}

fn earlier(at: Timestamp, hours: i64) -> Timestamp {
    at.checked_sub(SignedDuration::from_hours(hours)).unwrap_or(Timestamp::MIN)
}

fn later(at: Timestamp, hours: i64) -> Timestamp {
    SignedDuration::try_from_hours(hours).and_then(|d| at.checked_add(d).ok()).unwrap_or(Timestamp::MAX)
}

/// A certificate that was issued to a device.
#[derive(Clone, Debug)]
pub struct Issued {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// SHA-256 of the SubjectPublicKeyInfo in lower-case hex: the `spki_sha256` key of the device's record.
    pub spki_sha256: String,
    pub serial: String,
    pub until: Timestamp,
}

/// What revoking did.
#[derive(Clone, Debug)]
pub struct Revoked {
    /// Serials that this call added to the list.
    pub added: Vec<String>,
    /// Serials on the list now.
    pub total: usize,
    pub crl: PathBuf,
    pub number: u64,
    pub next_update: Timestamp,
}

/// The authority that signs devices, with its files in one folder.
pub struct LabCa {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// The authority's own end.
    until: Timestamp,
}

impl LabCa {
    /// Makes both authorities, the edge's certificate for `hosts` and an empty revocation list: all files or none.
    pub fn create(dir: &Path, hosts: &[String], replace: bool) -> Result<Self, Error> {
        let edge_names = hosts.iter().map(|h| edge_name(h)).collect::<Result<Vec<_>, _>>()?;
        ca_files::make_dir(dir)?;
        let _lock = ca_files::lock(dir)?;
        let names = [EDGE_CERT, EDGE_KEY, EDGE_CA, DEVICE_CA, DEVICE_CA_KEY, DEVICE_CRL, INDEX];
        ca_files::refuse_existing(names.iter().map(|n| dir.join(n)), replace)?;

        let edge_ca = authority("Vestibule lab edge CA")?;
        let edge_key = new_key()?;
        let mut edge = leaf("vestibule edge", ExtendedKeyUsagePurpose::ServerAuth, Validity::days(EDGE_DAYS))?;
        edge.subject_alt_names = edge_names;
        let edge = edge.signed_by(&edge_key, &edge_ca)?;

        let device_ca = authority("Vestibule lab device CA")?;
        let index = Index { crl_number: 1, issued: Vec::new() };
        let device_ca_pem = device_ca.pem();
        let until = validity_of(&dir.join(DEVICE_CA), device_ca.der())?;
        let device_ca_key = device_ca.key().serialize_pem();
        let ca = Self { dir: dir.to_owned(), issuer: reissue(&device_ca_pem, &device_ca_key)?, until };
        let crl = ca.revocation_list(&index, Validity::days(CRL_DAYS))?;

        ca_files::write_all(&[
            File::public(dir.join(EDGE_CERT), format!("{}{}", edge.pem(), edge_ca.pem())),
            File::secret(dir.join(EDGE_KEY), edge_key.serialize_pem()),
            File::public(dir.join(EDGE_CA), edge_ca.pem()),
            File::public(dir.join(DEVICE_CA), device_ca_pem),
            File::secret(dir.join(DEVICE_CA_KEY), device_ca_key),
            File::public(dir.join(DEVICE_CRL), crl),
            File::public(dir.join(INDEX), index.to_json()),
        ])?;
        Ok(ca)
    }

    /// The authority that `create` made in `dir`.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let (cert_path, key_path) = (dir.join(DEVICE_CA), dir.join(DEVICE_CA_KEY));
        let cert_pem = ca_files::read(&cert_path)?;
        let key_pem = ca_files::read(&key_path)?;
        Index::read(&dir.join(INDEX))?;
        let der = CertificateDer::from_pem_slice(cert_pem.as_bytes())
            .map_err(|e| Error::Broken(cert_path.clone(), format!("is not a PEM certificate: {e}")))?;
        let until = validity_of(&cert_path, &der)?;
        let key = KeyPair::from_pem(&key_pem)
            .map_err(|e| Error::Broken(key_path.clone(), format!("is not a private key in PKCS #8 PEM: {e}")))?;
        let spki = parse(&cert_path, &der)?.tbs_certificate.subject_pki.raw.to_vec();
        if key.subject_public_key_info() != spki {
            return Err(Error::Broken(key_path, format!("is not the key of {}", cert_path.display())));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|e| Error::Broken(cert_path, format!("cannot sign devices: {e}")))?;
        Ok(Self { dir: dir.to_owned(), issuer, until })
    }

    /// What clients must trust to reach the edge.
    pub fn edge_ca(&self) -> PathBuf {
        self.dir.join(EDGE_CA)
    }

    /// Makes `devices/NAME.pem` and `devices/NAME.key`: a new key, and a certificate for client authentication.
    pub fn issue(&self, name: &str, validity: Validity, replace: bool) -> Result<Issued, Error> {
        check_name(name)?;
        if validity.until <= validity.from {
            return Err(Error::Backwards { from: validity.from, until: validity.until });
        }
        if validity.until > self.until {
            return Err(Error::Outlives(self.until));
        }
        let _lock = ca_files::lock(&self.dir)?;
        let (devices, index_path) = (self.dir.join(DEVICES), self.dir.join(INDEX));
        let mut index = Index::read(&index_path)?;
        let (cert_path, key_path) = (devices.join(format!("{name}.pem")), devices.join(format!("{name}.key")));
        ca_files::make_dir(&devices)?;
        ca_files::refuse_existing([cert_path.clone(), key_path.clone()], replace)?;

        let key = new_key()?;
        let cert = leaf(name, ExtendedKeyUsagePurpose::ClientAuth, validity)?.signed_by(&key, &self.issuer)?;
        let parsed = parse(&cert_path, cert.der())?;
        let issued = Issued {
            spki_sha256: hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, parsed.tbs_certificate.subject_pki.raw).as_ref()),
            serial: hex(parsed.tbs_certificate.raw_serial()),
            until: validity.until,
            cert: cert_path.clone(),
            key: key_path.clone(),
        };
        index.issued.push(Issuance {
            name: name.to_owned(),
            serial: issued.serial.clone(),
            until: validity.until.to_string(),
            revoked: None,
        });
        ca_files::write_all(&[
            File::public(index_path, index.to_json()),
            File::secret(key_path, key.serialize_pem()),
            File::public(cert_path, cert.pem()),
        ])?;
        Ok(issued)
    }

    /// Puts every certificate of `name` on the revocation list and publishes the list anew with the next number. Without a name, or when
    /// they are on it already, the list is only published anew.
    pub fn revoke(&self, name: Option<&str>, validity: Validity) -> Result<Revoked, Error> {
        if validity.until <= validity.from {
            return Err(Error::Backwards { from: validity.from, until: validity.until });
        }
        let _lock = ca_files::lock(&self.dir)?;
        let index_path = self.dir.join(INDEX);
        let mut index = Index::read(&index_path)?;
        let mut added = Vec::new();
        if let Some(name) = name {
            let mut of_name = index.issued.iter_mut().filter(|i| i.name == name).peekable();
            if of_name.peek().is_none() {
                return Err(Error::NeverIssued { name: name.to_owned(), dir: self.dir.clone() });
            }
            for issuance in of_name.filter(|i| i.revoked.is_none()) {
                issuance.revoked = Some(Timestamp::now().to_string());
                added.push(issuance.serial.clone());
            }
        }
        index.crl_number += 1;
        let crl_path = self.dir.join(DEVICE_CRL);
        let crl = self.revocation_list(&index, validity)?;
        ca_files::write_all(&[File::public(index_path, index.to_json()), File::public(crl_path.clone(), crl)])?;
        let total = index.issued.iter().filter(|i| i.revoked.is_some()).count();
        Ok(Revoked { added, total, crl: crl_path, number: index.crl_number, next_update: validity.until })
    }

    fn revocation_list(&self, index: &Index, validity: Validity) -> Result<String, Error> {
        let broken = |what: &str| Error::Broken(self.dir.join(INDEX), what.to_owned());
        let mut revoked_certs = Vec::new();
        for issuance in &index.issued {
            let Some(at) = &issuance.revoked else { continue };
            let at: Timestamp = at.parse().map_err(|_| broken("`revoked` is not a time"))?;
            let serial = unhex(&issuance.serial).ok_or_else(|| broken("`serial` is not hexadecimal"))?;
            revoked_certs.push(RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: calendar(at),
                reason_code: None,
                invalidity_date: None,
            });
        }
        let list = CertificateRevocationListParams {
            this_update: calendar(validity.from),
            next_update: calendar(validity.until),
            crl_number: SerialNumber::from(index.crl_number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }
}

fn new_key() -> Result<KeyPair, Error> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

fn authority(common_name: &str) -> Result<rcgen::CertifiedIssuer<'static, KeyPair>, Error> {
    let mut params = named(common_name, Validity::days(CA_DAYS))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(rcgen::CertifiedIssuer::self_signed(params, new_key()?)?)
}

fn leaf(common_name: &str, usage: ExtendedKeyUsagePurpose, validity: Validity) -> Result<CertificateParams, Error> {
    let mut params = named(common_name, validity)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn named(common_name: &str, validity: Validity) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = calendar(validity.from);
    params.not_after = calendar(validity.until);
    params.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
    Ok(params)
}

/// RFC 5280 section 4.1.2.2: positive, at most 20 octets. A clear first bit keeps it positive, a set second one keeps its length.
fn random_serial() -> Result<[u8; 16], Error> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(bytes)
}

fn reissue(cert_pem: &str, key_pem: &str) -> Result<Issuer<'static, KeyPair>, Error> {
    Ok(Issuer::from_ca_cert_pem(cert_pem, KeyPair::from_pem(key_pem)?)?)
}

fn edge_name(host: &str) -> Result<SanType, Error> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let wrong = || Error::Host(host.to_owned());
    let behind = host.strip_prefix("*.");
    DnsName::try_from(behind.unwrap_or(host)).map_err(|_| wrong())?;
    if behind.is_some_and(|name| !name.trim_end_matches('.').contains('.')) {
        return Err(Error::Wildcard(host.to_owned()));
    }
    Ok(SanType::DnsName(host.to_ascii_lowercase().try_into().map_err(|_| wrong())?))
}

fn check_name(name: &str) -> Result<(), Error> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if first && rest && name.len() <= 64 { Ok(()) } else { Err(Error::Name(name.to_owned())) }
}

fn parse<'a>(path: &Path, der: &'a CertificateDer<'_>) -> Result<x509_parser::certificate::X509Certificate<'a>, Error> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(der).map_err(|e| Error::Broken(path.to_owned(), format!("is not a certificate: {e}")))?;
    Ok(parsed)
}

fn validity_of(path: &Path, der: &CertificateDer<'_>) -> Result<Timestamp, Error> {
    let seconds = parse(path, der)?.validity().not_after.timestamp();
    Timestamp::from_second(seconds).map_err(|e| Error::Broken(path.to_owned(), format!("has no usable end: {e}")))
}

fn calendar(at: Timestamp) -> OffsetDateTime {
    // Certificates know years 1 to 9999 in UTC, and jiff no others.
    OffsetDateTime::from_unix_timestamp(at.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use rustls::RootCertStore;
    use rustls::pki_types::{CertificateRevocationListDer, UnixTime};
    use rustls::server::WebPkiClientVerifier;

    use super::*;

    fn hosts() -> Vec<String> {
        DEFAULT_HOSTS.iter().map(ToString::to_string).collect()
    }

    fn created() -> (tempfile::TempDir, LabCa) {
        let dir = tempfile::tempdir().unwrap();
        let ca = LabCa::create(dir.path(), &hosts(), false).unwrap();
        (dir, ca)
    }

    /// As the edge verifies it.
    fn verify(dir: &Path, cert: &Path) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(dir.join(DEVICE_CA)).unwrap()).unwrap();
        let crl = CertificateRevocationListDer::from_pem_file(dir.join(DEVICE_CRL)).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
            .with_crls([crl])
            .enforce_revocation_expiration()
            .build()
            .unwrap();
        let leaf = CertificateDer::from_pem_file(cert).unwrap();
        verifier.verify_client_cert(&leaf, &[], UnixTime::now()).map(|_| ()).map_err(|e| format!("{e:?}"))
    }

    #[test]
    fn makes_what_the_configuration_names() {
        let (dir, _) = created();
        for name in [EDGE_CERT, EDGE_KEY, EDGE_CA, DEVICE_CA, DEVICE_CA_KEY, DEVICE_CRL, INDEX] {
            let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, if name.ends_with(".key") { 0o600 } else { 0o644 }, "{name}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 7);
    }

    #[test]
    fn the_annotated_configuration_finds_every_file_it_names() {
        let (dir, _) = created();
        let configuration = include_str!("../../config/vestibule.yaml");
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        let named = configuration.match_indices("certs/").map(|(at, folder)| {
            let rest = &configuration[at + folder.len()..];
            &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())]
        });
        let named: Vec<&str> = named.filter(|name| name.ends_with(".pem") || name.ends_with(".key")).collect();
        assert!(named.len() >= 4, "{named:?}");
        for name in named {
            assert!(dir.path().join(name).is_file(), "{name}");
        }
    }

    #[test]
    fn the_edge_certificate_covers_its_hosts_and_chains_to_its_authority() {
        let (dir, ca) = created();
        let chain: Vec<_> = CertificateDer::pem_file_iter(dir.path().join(EDGE_CERT)).unwrap().map(Result::unwrap).collect();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca.edge_ca()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
        let verify = |name: &'static str| {
            let name = rustls::pki_types::ServerName::try_from(name).unwrap();
            rustls::client::danger::ServerCertVerifier::verify_server_cert(&*verifier, &chain[0], &chain[1..], &name, &[], UnixTime::now())
        };
        for name in ["localhost", "wiki.localhost", "payroll.corp.example", "127.0.0.1", "::1"] {
            assert!(verify(name).is_ok(), "{name}");
        }
        assert!(verify("elsewhere.example").is_err());
    }

    #[test]
    fn nothing_is_overwritten_silently() {
        let (dir, ca) = created();
        let before = fs::read(dir.path().join(DEVICE_CA_KEY)).unwrap();
        let error = LabCa::create(dir.path(), &hosts(), false).err().unwrap().to_string();
        assert!(error.contains("device-ca.key") && error.contains("--force"), "{error}");
        assert_eq!(fs::read(dir.path().join(DEVICE_CA_KEY)).unwrap(), before);
        ca.issue("a", Validity::days(1), false).unwrap();
        assert!(matches!(ca.issue("a", Validity::days(1), false), Err(Error::Exists(_))));
        ca.issue("a", Validity::days(1), true).unwrap();
        LabCa::create(dir.path(), &hosts(), true).unwrap();
        assert_ne!(fs::read(dir.path().join(DEVICE_CA_KEY)).unwrap(), before);
    }

    #[test]
    fn one_file_in_the_way_makes_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(DEVICE_CRL), "mine").unwrap();
        assert!(LabCa::create(dir.path(), &hosts(), false).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_issued_certificate_is_valid_until_it_is_revoked() {
        let (dir, _) = created();
        let ca = LabCa::open(dir.path()).unwrap();
        let kept = ca.issue("kept", Validity::days(30), false).unwrap();
        let gone = ca.issue("gone", Validity::days(30), false).unwrap();
        assert_eq!(verify(dir.path(), &kept.cert), Ok(()));
        assert_eq!(verify(dir.path(), &gone.cert), Ok(()));
        let revoked = ca.revoke(Some("gone"), Validity::days(30)).unwrap();
        assert_eq!((revoked.added, revoked.total, revoked.number), (vec![gone.serial], 1, 2));
        assert_eq!(verify(dir.path(), &kept.cert), Ok(()));
        let refused = verify(dir.path(), &gone.cert);
        assert!(refused.as_ref().is_err_and(|e| e.contains("Revoked")), "{refused:?}");
    }

    #[test]
    fn revoking_a_name_revokes_all_that_was_ever_issued_to_it() {
        let (dir, ca) = created();
        let old = ca.issue("a", Validity::days(30), false).unwrap();
        let copy = dir.path().join("old.pem");
        fs::copy(&old.cert, &copy).unwrap();
        ca.issue("a", Validity::days(30), true).unwrap();
        assert_eq!(ca.revoke(Some("a"), Validity::days(30)).unwrap().added.len(), 2);
        assert!(verify(dir.path(), &copy).is_err_and(|e| e.contains("Revoked")));
        assert_eq!(ca.revoke(Some("a"), Validity::days(30)).unwrap().added.len(), 0);
        assert_eq!(ca.revoke(None, Validity::days(30)).unwrap().number, 4);
        assert!(matches!(ca.revoke(Some("nobody"), Validity::days(30)), Err(Error::NeverIssued { .. })));
    }

    #[test]
    fn an_expired_certificate_and_a_stale_list_can_be_made() {
        let (dir, ca) = created();
        let now = Timestamp::now();
        let past = Validity { from: earlier(now, 48), until: earlier(now, 24) };
        let expired = ca.issue("expired", past, false).unwrap();
        assert!(verify(dir.path(), &expired.cert).is_err_and(|e| e.contains("Expired")));
        let good = ca.issue("good", Validity::days(1), false).unwrap();
        ca.revoke(None, past).unwrap();
        assert!(verify(dir.path(), &good.cert).is_err_and(|e| e.contains("ExpiredRevocationList")));
    }

    #[test]
    fn the_printed_key_is_that_of_the_certificate() {
        let (_dir, ca) = created();
        let issued = ca.issue("a", Validity::days(1), false).unwrap();
        let key = KeyPair::from_pem(&fs::read_to_string(&issued.key).unwrap()).unwrap();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &key.subject_public_key_info());
        assert_eq!(issued.spki_sha256, hex(digest.as_ref()));
    }

    #[test]
    fn bad_names_and_times_are_refused() {
        let (dir, ca) = created();
        for name in ["", "../edge", "a/b", ".hidden", "-x", &"a".repeat(65), "a b"] {
            assert!(matches!(ca.issue(name, Validity::days(1), false), Err(Error::Name(_))), "{name}");
        }
        assert!(matches!(ca.issue("a", Validity::days(-1), false), Err(Error::Backwards { .. })));
        assert!(matches!(ca.issue("a", Validity::days(i64::MAX), false), Err(Error::Outlives(_))));
        assert!(!dir.path().join(DEVICES).exists());
        for host in ["", "a b", "*.", "*", "a_b/", "x.*.y"] {
            assert!(matches!(LabCa::create(&dir.path().join("x"), &[host.to_owned()], false), Err(Error::Host(_))), "{host}");
        }
        assert!(matches!(LabCa::create(&dir.path().join("x"), &["*.localhost".to_owned()], false), Err(Error::Wildcard(_))));
    }

    #[test]
    fn broken_files_are_named() {
        let (dir, _) = created();
        let other = created().0;
        let missing = LabCa::open(&dir.path().join("no")).err().unwrap().to_string();
        assert!(missing.contains("certs init"), "{missing}");
        for (name, content) in [(DEVICE_CA, "garbage"), (DEVICE_CA_KEY, "garbage"), (INDEX, "{"), (INDEX, "{}")] {
            let kept = fs::read(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name), content).unwrap();
            let error = LabCa::open(dir.path()).err().unwrap().to_string();
            assert!(error.contains(name), "{error}");
            fs::write(dir.path().join(name), kept).unwrap();
        }
        fs::copy(other.path().join(DEVICE_CA_KEY), dir.path().join(DEVICE_CA_KEY)).unwrap();
        let error = LabCa::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("is not the key of"), "{error}");
    }
}
