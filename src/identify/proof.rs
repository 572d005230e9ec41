//! A client certificate to the proof of a device.

use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, Error as TlsError};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use crate::model::{NoRecord, Proof};

/// Whom a listener believes about devices: its `client_ca` and `client_crl`.
pub struct ClientTrust {
    verifier: Arc<dyn ClientCertVerifier>,
    /// The nextUpdate of each CRL, seconds since the epoch.
    crl_ends: Vec<i64>,
}

#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("the CA certificate cannot be a trust anchor: {0}")]
    Authority(TlsError),
    #[error("the CRL cannot be used: {0}")]
    Crl(#[from] rustls::server::VerifierBuilderError),
}

impl ClientTrust {
    /// # Errors
    /// When a CA certificate or a CRL cannot be parsed, or there is no CA at all.
    pub fn new(authorities: Vec<CertificateDer<'static>>, crls: Vec<CertificateRevocationListDer<'static>>) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(TrustError::Authority)?;
        }
        let crl_ends = crls.iter().filter_map(|crl| next_update(crl)).collect();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .with_crls(crls)
            .only_check_end_entity_revocation()
            // An authority without a CRL of its own has nothing to be asked; one whose CRL is out of date has.
            .allow_unknown_revocation_status()
            .enforce_revocation_expiration()
            .allow_unauthenticated()
            .build()?;
        Ok(Self { verifier, crl_ends })
    }

    /// The verifier, for the handshake: its hints and signature checks, not its verdict.
    pub fn verifier(&self) -> &Arc<dyn ClientCertVerifier> {
        &self.verifier
    }

    /// What a chain (end entity first) proves at `now`. The proof ends with the certificate or with the next CRL to end, whichever is earlier. A CRL
    /// that has ended is another authority's, or the verifier would have refused: it ends nothing here.
    pub fn proof(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Proof {
        let Some((end_entity, intermediates)) = chain.split_first() else { return Proof::None(NoRecord::NoProof) };
        match self.verifier.verify_client_cert(end_entity, intermediates, now) {
            Ok(_) => match (spki_sha256(end_entity), not_after(end_entity)) {
                (Some(spki), Some(not_after)) => {
                    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
                    let ends = self.crl_ends.iter().copied().filter(|ends| *ends > now).fold(not_after, i64::min);
                    Proof::Certificate { spki_sha256: spki.into(), not_after: ends }
                }
                _ => Proof::None(NoRecord::UntrustedCertificate),
            },
            Err(TlsError::InvalidCertificate(error)) => Proof::None(match error {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => NoRecord::ExpiredCertificate,
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => NoRecord::FutureCertificate,
                CertificateError::Revoked => NoRecord::RevokedCertificate,
                CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => NoRecord::StaleCrl,
                _ => NoRecord::UntrustedCertificate,
            }),
            Err(_) => Proof::None(NoRecord::UntrustedCertificate),
        }
    }
}

impl fmt::Debug for ClientTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTrust").field("crl_ends", &self.crl_ends).finish_non_exhaustive()
    }
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7) in lower-case hex; `None` when it is no certificate.
pub fn spki_sha256(certificate: &[u8]) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, parsed.tbs_certificate.subject_pki.raw);
    Some(digest.as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        for nibble in [byte >> 4, byte & 15] {
            hex.extend(char::from_digit(u32::from(nibble), 16));
        }
        hex
    }))
}

fn not_after(certificate: &[u8]) -> Option<i64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

fn next_update(crl: &[u8]) -> Option<i64> {
    let (_, parsed) = CertificateRevocationList::from_der(crl).ok()?;
    parsed.next_update().map(|time| time.timestamp())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod,
        KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
    };

    use super::*;

    type Issuer = CertifiedIssuer<'static, KeyPair>;

    fn ca() -> Issuer {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn device(ca: &Issuer, purpose: ExtendedKeyUsagePurpose) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![purpose];
        params.serial_number = Some(SerialNumber::from(7));
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2027, 1, 1);
        params.signed_by(&KeyPair::generate().unwrap(), ca).unwrap().der().clone()
    }

    fn crl(ca: &Issuer, serial: u64, end_year: i32) -> CertificateRevocationListDer<'static> {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(end_year, 6, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: date_time_ymd(2026, 1, 2),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(ca).unwrap().der().clone()
    }

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    const MID_2025: u64 = 1_750_000_000;
    const MID_2026: u64 = 1_783_000_000;
    const MID_2027: u64 = 1_815_000_000;

    fn verdict(trust: &ClientTrust, chain: &[CertificateDer<'_>], now: u64) -> NoRecord {
        match trust.proof(chain, at(now)) {
            Proof::None(why) => why,
            Proof::Certificate { .. } => panic!("it proved a device"),
        }
    }

    #[test]
    fn a_valid_certificate_names_its_key_until_it_or_the_crl_ends() {
        let ca = ca();
        let cert = device(&ca, ExtendedKeyUsagePurpose::ClientAuth);
        let trust = ClientTrust::new(vec![ca.der().clone()], vec![]).unwrap();
        let Proof::Certificate { spki_sha256, not_after } = trust.proof(std::slice::from_ref(&cert), at(MID_2026)) else { panic!() };
        assert_eq!(spki_sha256.len(), 64);
        assert_eq!(not_after, date_time_ymd(2027, 1, 1).unix_timestamp());
        let trust = ClientTrust::new(vec![ca.der().clone()], vec![crl(&ca, 9, 2026)]).unwrap();
        let before = date_time_ymd(2026, 5, 1).unix_timestamp();
        let Proof::Certificate { not_after, .. } = trust.proof(&[cert], at(before.try_into().unwrap())) else { panic!() };
        assert_eq!(not_after, date_time_ymd(2026, 6, 1).unix_timestamp());
    }

    #[test]
    fn a_crl_that_ended_ends_nothing_for_another_authority() {
        let (ca, other) = (ca(), ca());
        let cert = device(&ca, ExtendedKeyUsagePurpose::ClientAuth);
        let authorities = || vec![ca.der().clone(), other.der().clone()];
        let trust = ClientTrust::new(authorities(), vec![crl(&ca, 9, 2028), crl(&other, 9, 2026)]).unwrap();
        let Proof::Certificate { not_after, .. } = trust.proof(std::slice::from_ref(&cert), at(MID_2026)) else { panic!() };
        assert_eq!(not_after, date_time_ymd(2027, 1, 1).unix_timestamp());
        let trust = ClientTrust::new(authorities(), vec![crl(&ca, 9, 2026), crl(&other, 9, 2028)]).unwrap();
        assert_eq!(verdict(&trust, &[cert], MID_2026), NoRecord::StaleCrl);
    }

    #[test]
    fn each_defect_has_its_own_reason() {
        let ca = ca();
        let stranger = self::ca();
        let good = device(&ca, ExtendedKeyUsagePurpose::ClientAuth);
        let trust = ClientTrust::new(vec![ca.der().clone()], vec![crl(&ca, 9, 2028)]).unwrap();
        assert_eq!(verdict(&trust, &[], MID_2026), NoRecord::NoProof);
        assert_eq!(verdict(&trust, std::slice::from_ref(&good), MID_2027), NoRecord::ExpiredCertificate);
        assert_eq!(verdict(&trust, std::slice::from_ref(&good), MID_2025), NoRecord::FutureCertificate);
        assert_eq!(verdict(&trust, &[device(&stranger, ExtendedKeyUsagePurpose::ClientAuth)], MID_2026), NoRecord::UntrustedCertificate);
        assert_eq!(verdict(&trust, &[device(&ca, ExtendedKeyUsagePurpose::ServerAuth)], MID_2026), NoRecord::UntrustedCertificate);
        assert_eq!(verdict(&trust, &[CertificateDer::from(vec![1, 2, 3])], MID_2026), NoRecord::UntrustedCertificate);
        let revoking = ClientTrust::new(vec![ca.der().clone()], vec![crl(&ca, 7, 2028)]).unwrap();
        assert_eq!(verdict(&revoking, std::slice::from_ref(&good), MID_2026), NoRecord::RevokedCertificate);
        let stale = ClientTrust::new(vec![ca.der().clone()], vec![crl(&ca, 9, 2026)]).unwrap();
        assert_eq!(verdict(&stale, &[good], MID_2026), NoRecord::StaleCrl);
    }

    #[test]
    fn no_authority_is_an_error_not_open_house() {
        assert!(ClientTrust::new(vec![], vec![]).is_err());
        assert!(ClientTrust::new(vec![CertificateDer::from(vec![0])], vec![]).is_err());
    }
}
