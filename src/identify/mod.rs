//! What a client claims of itself, and what it proves. Pure. Claims are never trusted, only compared; a hint never outranks a proof.

mod compare;
mod families;
mod hints;
mod names;
mod proof;
mod recorded;
mod user_agent;

use http::header::USER_AGENT;
use http::{HeaderMap, HeaderName};

pub use compare::{Path, compare};
pub use families::{Families, Told, Whose};
pub use names::CertificateNames;
pub use proof::{ClientTrust, TrustError, spki_sha256};
pub use recorded::recorded_os;

use crate::model::{Claims, Engine, FormFactor, Os, Side, Sides};

/// The headers that `claims` reads: while they stay the same, so do the claims.
pub static CLAIM_HEADERS: [HeaderName; 5] = [
    USER_AGENT,
    HeaderName::from_static("sec-ch-ua"),
    HeaderName::from_static("sec-ch-ua-mobile"),
    HeaderName::from_static("sec-ch-ua-platform"),
    HeaderName::from_static("sec-ch-ua-platform-version"),
];

/// Whether `claims` reads this field.
pub fn is_claim(name: &HeaderName) -> bool {
    *name == USER_AGENT || (name.as_str().starts_with("sec-ch-ua") && CLAIM_HEADERS.contains(name))
}

/// A longer User-Agent is unavailable, not cut: families stand at its end as often as at its start.
const LONGEST_USER_AGENT: usize = 1024;
const LONGEST_HINT: usize = 512;

/// Reads User-Agent and the client hints Sec-CH-UA, -Mobile, -Platform and -Platform-Version
/// (<https://wicg.github.io/ua-client-hints/>).
///
/// A header that is there more than once, too long or malformed is unavailable. Where both speak, the hint wins, field by field: browsers that
/// send hints freeze their User-Agent. A version always comes from whoever named its browser or system.
///
/// Versions are what the client says, except where it says nothing: a frozen one (`Windows NT 10.0`, `Mac OS X 10_15_7`,
/// `Android 10; K`, `CrOS x86_64 14541.0.0`) is unavailable. Windows versions are 7, 8, 8.1, 10 and 11.
/// A User-Agent of no known family is `other`. iPadOS in its desktop mode says Macintosh, and that is its claim.
pub fn claims(headers: &HeaderMap) -> Claims {
    sides(headers).merged
}

/// As [`claims`], and what each side says by itself: `compare` holds them against each other and against the wire.
pub fn sides(headers: &HeaderMap) -> Sides {
    let user_agent = once(headers, USER_AGENT.as_str(), LONGEST_USER_AGENT).map(user_agent::side).unwrap_or_default();
    let hint = |name| once(headers, name, LONGEST_HINT);
    let said = &user_agent.claims;

    let brands = hint("sec-ch-ua");
    let brand = brands.and_then(hints::brand);
    let (browser, browser_version) = brand.map_or((said.browser, said.browser_version), |(browser, version)| (Some(browser), version));
    let platform = hint("sec-ch-ua-platform").and_then(hints::platform);
    let hinted_version =
        platform.and_then(|os| hint("sec-ch-ua-platform-version").and_then(|version| hints::platform_version(os, version)));
    let (os, os_version) = match platform {
        Some(os) => (Some(os), hinted_version.clone().or_else(|| said.os_version.clone().filter(|_| said.os == Some(os)))),
        None => (said.os, said.os_version.clone()),
    };
    let mobile = hint("sec-ch-ua-mobile").and_then(hints::mobile);
    let form_factor = match mobile {
        Some(true) => Some(FormFactor::Phone),
        Some(false) => not_mobile(os, said.form_factor),
        None if said.os == os => said.form_factor,
        None => desktop(os),
    };
    let hints = Side {
        claims: Claims {
            os: platform,
            os_version: hinted_version,
            browser: brand.map(|(browser, _)| browser),
            browser_version: brand.and_then(|(_, version)| version),
            form_factor: mobile.map(|mobile| if mobile { FormFactor::Phone } else { FormFactor::Other }),
        },
        // Only Chromium sends these hints, and every browser built on it names it.
        engine: brand.map(|_| Engine::Chromium),
        engine_version: brands.and_then(hints::chromium),
    };
    Sides { merged: Claims { os, os_version, browser, browser_version, form_factor }, user_agent, hints }
}

fn once<'a>(headers: &'a HeaderMap, name: &str, longest: usize) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.as_bytes();
    (values.next().is_none() && value.len() <= longest).then_some(value)
}

fn not_mobile(os: Option<Os>, said: Option<FormFactor>) -> Option<FormFactor> {
    match said {
        Some(FormFactor::Phone) | None => desktop(os).or((os == Some(Os::Android)).then_some(FormFactor::Tablet)),
        Some(other) => Some(other),
    }
}

fn desktop(os: Option<Os>) -> Option<FormFactor> {
    matches!(os, Some(Os::Windows | Os::MacOs | Os::Linux | Os::ChromeOs)).then_some(FormFactor::Desktop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Browser;
    use http::HeaderValue;

    fn of(headers: &[(&'static str, &str)]) -> Claims {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        claims(&map)
    }

    const CHROME_ON_WINDOWS: &str =
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
    const CHROME_ON_A_PHONE: &str =
        "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36";

    #[test]
    fn nothing_said_is_nothing_claimed() {
        assert_eq!(of(&[]), Claims::default());
        assert_eq!(of(&[("user-agent", ""), ("sec-ch-ua", "")]), Claims::default());
        assert_eq!(of(&[("user-agent", " ;()"), ("sec-ch-ua-platform", "\"Unknown\"")]), Claims::default());
    }

    #[test]
    fn hints_alone() {
        let claims = of(&[
            ("sec-ch-ua", r#""Not;A=Brand";v="8", "Chromium";v="150", "Google Chrome";v="150""#),
            ("sec-ch-ua-mobile", "?0"),
            ("sec-ch-ua-platform", "\"Windows\""),
            ("sec-ch-ua-platform-version", "\"15.0.0\""),
        ]);
        let expected = Claims {
            os: Some(Os::Windows),
            os_version: Some("11".into()),
            browser: Some(Browser::Chrome),
            browser_version: Some(150),
            form_factor: Some(FormFactor::Desktop),
        };
        assert_eq!(claims, expected);
    }

    #[test]
    fn a_hint_wins_over_the_user_agent_field_by_field() {
        let base = of(&[("user-agent", CHROME_ON_WINDOWS)]);
        assert_eq!((base.os, base.browser, base.browser_version), (Some(Os::Windows), Some(Browser::Chrome), Some(142)));

        let brand = of(&[("user-agent", CHROME_ON_WINDOWS), ("sec-ch-ua", r#""Chromium";v="142", "Microsoft Edge";v="141""#)]);
        assert_eq!(brand, Claims { browser: Some(Browser::Edge), browser_version: Some(141), ..base.clone() });

        let platform = of(&[("user-agent", CHROME_ON_WINDOWS), ("sec-ch-ua-platform", "\"Linux\"")]);
        assert_eq!(platform, Claims { os: Some(Os::Linux), ..base.clone() });

        let unknown = of(&[("user-agent", CHROME_ON_WINDOWS), ("sec-ch-ua-platform", "Windows"), ("sec-ch-ua-mobile", "1")]);
        assert_eq!(unknown, base);
    }

    #[test]
    fn a_version_comes_from_whoever_named_its_subject() {
        let edge =
            ("user-agent", "Mozilla/5.0 (Windows NT 6.1) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/109.0.0.0 Safari/537.36 Edg/109.0");
        assert_eq!(of(&[edge]).os_version.as_deref(), Some("7"));
        assert_eq!(of(&[edge, ("sec-ch-ua-platform", "\"Windows\"")]).os_version.as_deref(), Some("7"));
        assert_eq!(of(&[edge, ("sec-ch-ua-platform", "\"macOS\"")]).os_version, None);
        assert_eq!(of(&[edge, ("sec-ch-ua-platform-version", "\"14.1\"")]).os_version.as_deref(), Some("7"));
        assert_eq!(of(&[edge, ("sec-ch-ua", "\"Chromium\"")]).browser_version, None);
    }

    #[test]
    fn form_factor_from_the_mobile_hint() {
        let form = |agent, mobile| of(&[("user-agent", agent), ("sec-ch-ua-mobile", mobile)]).form_factor;
        assert_eq!(form(CHROME_ON_A_PHONE, "?1"), Some(FormFactor::Phone));
        assert_eq!(form(CHROME_ON_A_PHONE, "?0"), Some(FormFactor::Tablet));
        assert_eq!(form(CHROME_ON_WINDOWS, "?1"), Some(FormFactor::Phone));
        assert_eq!(form(CHROME_ON_WINDOWS, "?0"), Some(FormFactor::Desktop));
        assert_eq!(of(&[("user-agent", CHROME_ON_A_PHONE), ("sec-ch-ua-platform", "\"Linux\"")]).form_factor, Some(FormFactor::Desktop));
    }

    #[test]
    fn a_header_given_twice_or_too_long_is_unavailable() {
        assert_eq!(of(&[("user-agent", CHROME_ON_WINDOWS), ("user-agent", "curl/8.5.0")]), Claims::default());
        assert_eq!(of(&[("sec-ch-ua-platform", "\"Windows\""), ("sec-ch-ua-platform", "\"Windows\"")]), Claims::default());
        let padded = |length: usize| format!("curl/8.5.0 {}", "x".repeat(length - 11));
        assert_eq!(of(&[("user-agent", &padded(LONGEST_USER_AGENT))]).browser, Some(Browser::Curl));
        assert_eq!(of(&[("user-agent", &padded(LONGEST_USER_AGENT + 1))]), Claims::default());
    }

    #[test]
    fn bytes_above_ascii_are_no_obstacle() {
        let mut map = HeaderMap::new();
        map.insert(USER_AGENT, HeaderValue::from_bytes("Größe/1.0 curl/8.5.0".as_bytes()).unwrap());
        assert_eq!(claims(&map).browser, Some(Browser::Curl));
    }
}
