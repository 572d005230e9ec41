//! Headers by which an app learns what its client's connection shows. Made once for each decision of a connection, and only for apps that ask.
//!
//! What is unavailable has no header: an app can tell "not seen" from every value. A client's own fields of these names never arrive, whatever an
//! app asks for: `request::hop`.

use http::{HeaderName, HeaderValue};

use super::order::value;
use crate::config::FingerprintHeaders;
use crate::model::{Opening, Sight, Wire, Word};

static JA4: HeaderName = HeaderName::from_static("vestibule-ja4");
static JA4_STABLE: HeaderName = HeaderName::from_static("vestibule-ja4-stable");
static H2: HeaderName = HeaderName::from_static("vestibule-h2");
static HEADER_ORDER: HeaderName = HeaderName::from_static("vestibule-header-order");
static SYN: HeaderName = HeaderName::from_static("vestibule-syn");
static STACK: HeaderName = HeaderName::from_static("vestibule-stack");
static CONFIDENCE: HeaderName = HeaderName::from_static("vestibule-confidence");
static CONTRADICTIONS: HeaderName = HeaderName::from_static("vestibule-contradictions");

/// <https://github.com/wi1dcard/fingerproxy>
static FINGERPROXY_JA3: HeaderName = HeaderName::from_static("x-ja3-fingerprint");
static FINGERPROXY_JA4: HeaderName = HeaderName::from_static("x-ja4-fingerprint");
static FINGERPROXY_H2: HeaderName = HeaderName::from_static("x-http2-fingerprint");

/// <https://github.com/biandratti/huginn-proxy>. Its others are of other values than ours: JA4 in the order sent, a stable JA4 that leaves out fewer
/// extensions, the SYN in p0f's notation.
static HUGINN_JA4: HeaderName = HeaderName::from_static("x-tls-ja4");
static HUGINN_JA4_R: HeaderName = HeaderName::from_static("x-tls-ja4-r");
static HUGINN_H2: HeaderName = HeaderName::from_static("x-http2-akamai");

pub fn fingerprints(preset: FingerprintHeaders, wire: &Wire, opening: &Opening, sight: &Sight) -> Vec<(HeaderName, HeaderValue)> {
    let ja4 = wire.ja4.as_ref().map(|ja4| value(ja4.as_str()));
    let h2 = opening.h2.as_deref().map(value);
    let told: Vec<(&HeaderName, Option<HeaderValue>)> = match preset {
        FingerprintHeaders::None => return Vec::new(),
        FingerprintHeaders::Vestibule => {
            let stack = sight.identification.stack();
            let contradictions = sight.comparison.contradictions;
            let named = contradictions.iter().map(Word::word).collect::<Vec<_>>().join(", ");
            vec![
                (&JA4, ja4),
                (&JA4_STABLE, wire.ja4_stable.as_ref().map(|ja4| value(ja4.as_str()))),
                (&H2, h2),
                (&HEADER_ORDER, opening.header_order.as_deref().map(value)),
                (&SYN, wire.syn.as_deref().map(value)),
                (&STACK, (stack != "unavailable").then(|| value(stack))),
                (&CONFIDENCE, Some(HeaderValue::from_static(sight.comparison.confidence.as_str()))),
                (&CONTRADICTIONS, (!contradictions.is_empty()).then(|| value(&named))),
            ]
        }
        FingerprintHeaders::Fingerproxy => {
            vec![(&FINGERPROXY_JA3, wire.ja3.as_deref().map(value)), (&FINGERPROXY_JA4, ja4), (&FINGERPROXY_H2, h2)]
        }
        FingerprintHeaders::Huginn => vec![(&HUGINN_JA4, ja4), (&HUGINN_JA4_R, wire.ja4_r().as_deref().map(value)), (&HUGINN_H2, h2)],
    };
    told.into_iter().filter_map(|(name, value)| Some((name.clone(), value?))).collect()
}
