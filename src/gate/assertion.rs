//! What an app is told of a request, signed: `Vestibule-Jwt-Assertion`, a JWT (RFC 7519) by ES256 (RFC 7518 section 3.4).
//!
//! The cryptography is aws-lc-rs's, whose fixed ECDSA signatures are JOSE's; here text is put together. A JWT library would take a key apart anew
//! for each signature, which makes it half as dear again.

use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bytes::Bytes;
use http::HeaderValue;
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;

use super::memo::Ruling;
use super::{Conn, House};
use crate::policy::AppId;
use crate::record::Visit;

/// An assertion is valid so long at most.
pub const VALID: SignedDuration = SignedDuration::from_mins(5);

/// A key that signs.
#[derive(Debug)]
pub struct Signer {
    /// The key's thumbprint (RFC 7638).
    kid: String,
    /// Coordinates of the public key.
    x: String,
    y: String,
    /// The JOSE header, encoded, with its dot.
    head: String,
    pair: EcdsaKeyPair,
}

/// What is no key to sign with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a P-256 private key in PEM (PKCS#8, `BEGIN PRIVATE KEY`)")]
pub struct NoKey;

impl Signer {
    pub fn from_pem(pem: &[u8]) -> Result<Self, NoKey> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| NoKey)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der()).map_err(|_| NoKey)?;
        // SEC 1 section 2.3.3: uncompressed, a byte 4 and the two coordinates.
        let Some((&4, point)) = pair.public_key().as_ref().split_first() else { return Err(NoKey) };
        let (Some(x), Some(y), 64) = (point.get(..32), point.get(32..), point.len()) else { return Err(NoKey) };
        let (x, y) = (BASE64.encode(x), BASE64.encode(y));
        let thumbprint = digest(&SHA256, format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#).as_bytes());
        let kid = BASE64.encode(thumbprint);
        let head = format!("{}.", BASE64.encode(format!(r#"{{"alg":"ES256","typ":"JWT","kid":"{kid}"}}"#)));
        Ok(Self { kid, x, y, head, pair })
    }

    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// A JSON Web Signature in its compact form (RFC 7515 section 7.1).
    fn sign(&self, claims: &[u8]) -> Result<HeaderValue, Unspecified> {
        let mut text = String::with_capacity(self.head.len() + claims.len() * 4 / 3 + 96);
        text.push_str(&self.head);
        BASE64.encode_string(claims, &mut text);
        let signature = self.pair.sign(&SystemRandom::new(), text.as_bytes())?;
        text.push('.');
        BASE64.encode_string(signature, &mut text);
        let mut value = HeaderValue::try_from(text).map_err(|_| Unspecified)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// The keys in force: the one that signs, and all that apps are to know.
#[derive(Debug)]
pub struct Keys {
    pub signer: Arc<Signer>,
    /// A JSON Web Key Set (RFC 7517 section 5).
    pub jwks: Bytes,
    /// When the next key is to sign, in seconds; `None` where others look after the keys.
    pub due: Option<i64>,
}

impl Keys {
    pub fn new<'a>(signer: &Arc<Signer>, published: impl IntoIterator<Item = &'a Arc<Signer>>, due: Option<i64>) -> Self {
        #[derive(Serialize)]
        struct Jwk<'a> {
            kty: &'a str,
            crv: &'a str,
            x: &'a str,
            y: &'a str,
            r#use: &'a str,
            alg: &'a str,
            kid: &'a str,
        }
        let jwk = |signer: &'a Arc<Signer>| {
            let Signer { kid, x, y, .. } = &**signer;
            Jwk { kty: "EC", crv: "P-256", x, y, r#use: "sig", alg: "ES256", kid }
        };
        let keys: Vec<Jwk<'_>> = published.into_iter().map(jwk).collect();
        // Nothing but strings: it cannot fail, and without its keys an app believes nobody.
        let jwks = serde_json::to_vec(&serde_json::json!({ "keys": keys })).unwrap_or_default();
        Self { signer: Arc::clone(signer), jwks: jwks.into(), due }
    }
}

/// Who signs, by the rules in force. The keys change while the rules stay.
#[derive(Clone, Debug)]
pub struct Notary {
    /// The claim `iss`.
    pub issuer: Arc<str>,
    pub keys: Arc<ArcSwap<Keys>>,
}

/// No assertion can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsigned;

/// An assertion with what it holds for.
#[derive(Debug)]
pub struct Signed {
    app: AppId,
    /// The claims without times and name.
    said: Box<[u8]>,
    /// Of its key.
    kid: Box<str>,
    made: Timestamp,
    /// Not used at or after it.
    until: Timestamp,
    ends: i64,
    value: HeaderValue,
}

impl Signed {
    pub fn value(&self) -> &HeaderValue {
        &self.value
    }

    /// An assertion by a key that signs no more is not used again: the key may be gone for a reason. Neither is one that is from the future.
    fn holds(&self, keys: &Keys, now: Timestamp, ends: i64) -> bool {
        self.made <= now && now < self.until && self.ends <= ends && *self.kid == *keys.signer.kid
    }
}

/// Of one connection: what was signed for its last few decisions.
#[derive(Debug, Default)]
#[allow(clippy::box_collection, reason = "one word in the connections that need none")]
pub struct Drawer(Option<Box<Vec<Rc<Signed>>>>);

impl Drawer {
    const MOST: usize = 8;

    fn find(&self, app: AppId, said: &[u8], holds: impl Fn(&Signed) -> bool) -> Option<Rc<Signed>> {
        self.0.as_ref()?.iter().find(|signed| signed.app == app && *signed.said == *said && holds(signed)).map(Rc::clone)
    }

    fn keep(&mut self, signed: Rc<Signed>) {
        let all = self.0.get_or_insert_default();
        all.retain(|old| old.app != signed.app || old.said != signed.said);
        if all.len() == Self::MOST {
            all.remove(0);
        }
        all.push(signed);
    }
}

/// What the assertion of this ruling is at the moment: that of an earlier request of this connection where it says the same and less than half of its
/// time is over.
pub fn of(conn: &Conn, house: &House, ruling: &Ruling, visit: &Visit) -> Result<Rc<Signed>, Unsigned> {
    let notary = house.rules.notary.as_ref().ok_or(Unsigned)?;
    let keys = notary.keys.load();
    let now = visit.now();
    let ends = ends(now, ruling.decision.valid_until);
    if let Some(signed) = ruling.assertion.borrow().as_ref().filter(|signed| signed.holds(&keys, now, ends)) {
        return Ok(Rc::clone(signed));
    }
    let app = ruling.decision.app;
    let said = said(conn, house, &notary.issuer, ruling).map_err(|_| Unsigned)?;
    let known = conn.state.borrow().assertions.find(app, &said, |signed| signed.holds(&keys, now, ends));
    let signed = match known {
        Some(signed) => signed,
        None => {
            let made = sign(&keys.signer, (app, said), (now, ends), visit.id().as_str());
            let record = &conn.core.desk.record;
            record.assertions.cell(conn.core.desk.writer, &[if made.is_ok() { "signed" } else { "failed" }]).add(1);
            let made = Rc::new(made?);
            conn.state.borrow_mut().assertions.keep(Rc::clone(&made));
            made
        }
    };
    *ruling.assertion.borrow_mut() = Some(Rc::clone(&signed));
    Ok(signed)
}

/// The claim `exp`. It counts whole seconds, so the one that a decision ends in is rounded up: an app would get an assertion that is over already.
fn ends(now: Timestamp, valid_until: Option<Timestamp>) -> i64 {
    let most = now.as_second().saturating_add(VALID.as_secs());
    let decision = valid_until.map(|until| until.as_second().saturating_add(i64::from(until.subsec_nanosecond() > 0)));
    decision.map_or(most, |until| until.min(most))
}

/// All claims that stay while the decision does, as a JSON object.
fn said(conn: &Conn, house: &House, issuer: &str, ruling: &Ruling) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Said<'a> {
        iss: &'a str,
        aud: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        sub: Option<&'a str>,
        acr: &'a str,
        vst: Vst<'a>,
    }
    #[derive(Serialize)]
    struct Vst<'a> {
        class: &'a str,
        tier: &'a str,
        effect: &'a str,
        restrictions: Vec<&'a str>,
        policy_rev: &'a str,
        ja4: Option<&'a str>,
    }
    let (policy, decision) = (&house.rules.policy, &ruling.decision);
    let tier = policy.tier_name(decision.tier);
    serde_json::to_vec(&Said {
        iss: issuer,
        aud: policy.app_name(decision.app),
        sub: ruling.standing.device().map(|device| device.id.as_str()),
        acr: tier,
        vst: Vst {
            class: policy.class_name(decision.class),
            tier,
            effect: decision.done.effect.as_str(),
            restrictions: decision.done.restrictions.iter().map(|id| policy.restriction(id).name.as_str()).collect(),
            policy_rev: policy.revision(),
            ja4: conn.wire.ja4.as_ref().map(|ja4| ja4.as_str()),
        },
    })
}

fn sign(signer: &Signer, (app, said): (AppId, Vec<u8>), (now, ends): (Timestamp, i64), id: &str) -> Result<Signed, Unsigned> {
    let issued = now.as_second();
    let mut claims = said.clone();
    claims.pop(); // its closing brace
    claims.extend_from_slice(format!(r#","iat":{issued},"nbf":{issued},"exp":{ends},"jti":"{id}"}}"#).as_bytes());
    let value = signer.sign(&claims).map_err(|Unspecified| {
        tracing::error!("an assertion cannot be signed");
        Unsigned
    })?;
    let life = SignedDuration::from_secs(ends.saturating_sub(issued));
    Ok(Signed {
        app,
        said: said.into(),
        kid: signer.kid.as_str().into(),
        made: now,
        until: now.checked_add(life / 2).unwrap_or(now),
        ends,
        value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Arc<Signer> {
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        Arc::new(Signer::from_pem(pem.as_bytes()).unwrap())
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn signed(signer: &Signer, now: Timestamp, until: Option<Timestamp>) -> Signed {
        sign(signer, (AppId(0), br#"{"iss":"x"}"#.to_vec()), (now, ends(now, until)), "id").unwrap()
    }

    #[test]
    fn a_thumbprint_is_that_of_rfc_7638() {
        // By another implementation: `openssl` for the coordinates, RFC 7638 section 3 for the text.
        let signer = signer();
        let keys = Keys::new(&signer, [&signer], None);
        let set: serde_json::Value = serde_json::from_slice(&keys.jwks).unwrap();
        let key = &set["keys"][0];
        let text = format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, key["x"], key["y"]);
        assert_eq!(key["kid"], BASE64.encode(digest(&SHA256, text.as_bytes())));
        assert_eq!(key["x"].as_str().unwrap().len(), 43, "leading zeros stay (RFC 7518 section 6.2.1.2)");
    }

    #[test]
    fn other_keys_sign_nothing() {
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
        let edwards = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
        let good = rcgen::KeyPair::generate().unwrap().serialize_pem();
        for text in ["", "-----BEGIN PRIVATE KEY-----", &p384, &edwards, &good[..good.len() / 2], &good.replace("PRIVATE", "PUBLIC")] {
            assert_eq!(Signer::from_pem(text.as_bytes()).err(), Some(NoKey), "{text}");
        }
    }

    #[test]
    fn an_assertion_is_used_for_half_of_its_time_and_never_beyond_the_decision() {
        let one = signer();
        let keys = Keys::new(&one, [&one], None);
        let now = at("2026-11-22T12:00:00.5Z");
        let holds = |signed: &Signed, at: Timestamp| signed.holds(&keys, at, ends(at, None));
        let whole = signed(&one, now, None);
        assert_eq!(whole.ends, now.as_second() + 300);
        assert!(holds(&whole, now) && holds(&whole, at("2026-11-22T12:02:30.499Z")));
        assert!(!holds(&whole, at("2026-11-22T12:02:30.5Z")), "half of its time is over");
        assert!(!holds(&whole, at("2026-11-22T12:00:00.499Z")), "the clock went back: an app would take it for one of the future");
        let soon = at("2026-11-22T12:01:00Z");
        let short = signed(&one, now, Some(soon));
        assert_eq!(short.ends, soon.as_second());
        assert!(holds(&short, at("2026-11-22T12:00:30.499Z")) && !holds(&short, at("2026-11-22T12:00:30.5Z")));
        assert!(!whole.holds(&keys, now, ends(now, Some(soon))), "a decision that ends sooner needs one of its own");
        assert_eq!(ends(now, Some(at("2026-11-22T12:00:00.7Z"))), now.as_second() + 1, "it is not over when it comes");
        assert_eq!(ends(now, Some(at("2030-01-01T00:00:00Z"))), now.as_second() + 300);
    }

    #[test]
    fn a_key_that_signs_no_more_vouches_for_nothing_new() {
        let (old, new) = (signer(), signer());
        let now = at("2026-11-22T12:00:00Z");
        let made = signed(&old, now, None);
        let after = Keys::new(&new, [&new, &old], None);
        assert!(made.holds(&Keys::new(&old, [&old, &new], None), now, ends(now, None)));
        assert!(!made.holds(&after, now, ends(now, None)));
    }

    #[test]
    fn a_drawer_keeps_the_last_few() {
        let one = signer();
        let now = at("2026-11-22T12:00:00Z");
        let mut drawer = Drawer::default();
        for app in 0..20u32 {
            for _ in 0..2 {
                drawer.keep(Rc::new(Signed { app: AppId(app), ..signed(&one, now, None) }));
            }
        }
        assert_eq!(drawer.0.as_ref().unwrap().len(), Drawer::MOST);
        let find = |app, said: &[u8]| drawer.find(AppId(app), said, |_| true).is_some();
        assert!(find(19, br#"{"iss":"x"}"#) && find(12, br#"{"iss":"x"}"#) && !find(11, br#"{"iss":"x"}"#));
        assert!(!find(19, br#"{"iss":"y"}"#));
    }
}
