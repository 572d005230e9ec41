//! Client hints: structured fields (RFC 9651) with a fixed form. Anything else than that form says nothing.

use crate::model::{Browser, Os};

/// Brands from the most specific on: Edge also says Chromium. A brand not listed is either invented by the browser on purpose or
/// somebody's own Chromium.
const BRANDS: [(&[u8], Browser); 10] = [
    (b"Microsoft Edge WebView2", Browser::WebView),
    (b"Android WebView", Browser::WebView),
    (b"Microsoft Edge", Browser::Edge),
    (b"Opera", Browser::Opera),
    (b"Opera GX", Browser::Opera),
    (b"Opera Mobile", Browser::Opera),
    (b"Samsung Internet", Browser::Samsung),
    (b"Google Chrome", Browser::Chrome),
    (b"HeadlessChrome", Browser::Chromium),
    (b"Chromium", Browser::Chromium),
];

/// Sec-CH-UA: the most specific known brand and its major version.
pub(super) fn brand(value: &[u8]) -> Option<(Browser, Option<u32>)> {
    let mut best: Option<(usize, Browser, Option<u32>)> = None;
    let mut left = value;
    loop {
        let (name, version, after) = item(left)?;
        let rank = BRANDS.iter().position(|(brand, _)| *brand == name);
        if let Some((rank, (_, browser))) = rank.and_then(|rank| Some((rank, BRANDS.get(rank)?)))
            && best.is_none_or(|(known, ..)| rank < known)
        {
            best = Some((rank, *browser, super::user_agent::major(version)));
        }
        match after.trim_ascii_start() {
            [] => return best.map(|(_, browser, version)| (browser, version)),
            [b',', rest @ ..] => left = rest,
            _ => return None,
        }
    }
}

/// Sec-CH-UA: the major version of the engine.
pub(super) fn chromium(value: &[u8]) -> Option<u32> {
    let mut left = value;
    loop {
        let (name, version, after) = item(left)?;
        if name == b"Chromium" {
            return super::user_agent::major(version);
        }
        let [b',', rest @ ..] = after.trim_ascii_start() else { return None };
        left = rest;
    }
}

/// `"name";v="version"` with any parameters: the name, the value of `v` (empty without), and what follows.
fn item(value: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name, mut left) = string(value.trim_ascii_start())?;
    let mut version: &[u8] = b"";
    while let [b';', parameter @ ..] = left {
        let parameter = parameter.trim_ascii_start();
        let end = parameter.iter().position(|&b| !(b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b)));
        let (key, after) = parameter.split_at_checked(end.unwrap_or(parameter.len()))?;
        left = after;
        if let [b'=', content @ ..] = after {
            let (content, after) = string(content)?;
            left = after;
            if key == b"v" {
                version = content;
            }
        }
    }
    Some((name, version, left))
}

/// A quoted string at the start of `value`, and what follows. Escapes stay as they are: no known name has any.
fn string(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let [b'"', inside @ ..] = value else { return None };
    let mut escaped = false;
    for (at, byte) in inside.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => {
                let (content, quote) = inside.split_at_checked(at)?;
                return Some((content, quote.split_first()?.1));
            }
            _ => {}
        }
    }
    None
}

fn only_string(value: &[u8]) -> Option<&[u8]> {
    let (content, after) = string(value.trim_ascii())?;
    after.is_empty().then_some(content)
}

/// Sec-CH-UA-Mobile.
pub(super) fn mobile(value: &[u8]) -> Option<bool> {
    match value.trim_ascii() {
        b"?1" => Some(true),
        b"?0" => Some(false),
        _ => None,
    }
}

/// Sec-CH-UA-Platform.
pub(super) fn platform(value: &[u8]) -> Option<Os> {
    match only_string(value)? {
        b"Windows" => Some(Os::Windows),
        b"macOS" => Some(Os::MacOs),
        b"iOS" => Some(Os::Ios),
        b"Android" => Some(Os::Android),
        b"Linux" => Some(Os::Linux),
        b"Chrome OS" | b"Chromium OS" => Some(Os::ChromeOs),
        b"" | b"Unknown" => None,
        _ => Some(Os::Other),
    }
}

/// Sec-CH-UA-Platform-Version. Windows counts the versions of an API contract: 13 and up is Windows 11
/// (<https://learn.microsoft.com/en-us/microsoft-edge/web-platform/how-to-detect-win11>).
pub(super) fn platform_version(os: Os, value: &[u8]) -> Option<String> {
    let version = only_string(value)?;
    if os != Os::Windows {
        return super::user_agent::dotted(version);
    }
    let name = match (super::user_agent::major(version)?, version) {
        (0, b"0.1" | b"0.1.0") => "7",
        (0, b"0.2" | b"0.2.0") => "8",
        (0, b"0.3" | b"0.3.0") => "8.1",
        (0, _) => return None,
        (1..=12, _) => "10",
        (13.., _) => "11",
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_brand_wins_wherever_it_stands() {
        for (value, expected) in [
            (r#""Chromium";v="124", "Google Chrome";v="124", "Not-A.Brand";v="99""#, Some((Browser::Chrome, Some(124)))),
            (r#"" Not A;Brand";v="99", "Chromium";v="101", "Microsoft Edge";v="102""#, Some((Browser::Edge, Some(102)))),
            (r#""Microsoft Edge";v="120","Microsoft Edge WebView2";v="121", "Chromium";v="120""#, Some((Browser::WebView, Some(121)))),
            (r#""Not(A:Brand";v="24", "Chromium";v="122""#, Some((Browser::Chromium, Some(122)))),
            (r#""Chromium";v="150", "HeadlessChrome";v="150""#, Some((Browser::Chromium, Some(150)))),
            (r#""Opera GX";v="106.0.1""#, Some((Browser::Opera, Some(106)))),
            (r#""Samsung Internet"; v="23.0" , "Chromium";v="115""#, Some((Browser::Samsung, Some(23)))),
            (r#""Android WebView";a="b";v="109";c"#, Some((Browser::WebView, Some(109)))),
            (r#""a\"b, \\";v="1", "Brave";v="2", "Chromium";v="3""#, Some((Browser::Chromium, Some(3)))),
            (r#""Chromium""#, Some((Browser::Chromium, None))),
            (r#""Chromium";v="x""#, Some((Browser::Chromium, None))),
            (r#""Somebody";v="1""#, None),
            ("", None),
            ("Chromium", None),
            (r#""Chromium";v="3""x"#, None),
            (r#""Chromium";v="3","#, None),
            (r#""Chromium";v=3"#, None),
            (r#""Chromium";v="3"#, None),
            (r#""Chromium\"#, None),
        ] {
            assert_eq!(brand(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn every_prefix_is_a_brand_or_nothing() {
        let whole = br#""Chromium";v="124", "Google Chrome";v="124", "Not-A.Brand";v="99""#;
        for cut in 0..whole.len() {
            assert!(brand(&whole[..cut]).is_none_or(|(browser, _)| browser != Browser::Edge), "{cut}");
        }
        assert_eq!(brand(&whole[..18]), Some((Browser::Chromium, Some(124))));
        assert_eq!(brand(&whole[..17]), None);
    }

    #[test]
    fn platforms() {
        for (value, expected) in [
            ("\"Windows\"", Some(Os::Windows)),
            ("\"macOS\"", Some(Os::MacOs)),
            ("\"iOS\"", Some(Os::Ios)),
            ("\"Android\"", Some(Os::Android)),
            (" \"Linux\" ", Some(Os::Linux)),
            ("\"Chrome OS\"", Some(Os::ChromeOs)),
            ("\"Chromium OS\"", Some(Os::ChromeOs)),
            ("\"Fuchsia\"", Some(Os::Other)),
            ("\"Unknown\"", None),
            ("\"\"", None),
            ("Windows", None),
            ("\"Windows\" x", None),
            ("\"Windows", None),
        ] {
            assert_eq!(platform(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn windows_versions_have_their_names() {
        for (value, expected) in [
            ("\"0.1\"", Some("7")),
            ("\"0.3.0\"", Some("8.1")),
            ("\"0.9\"", None),
            ("\"1.0.0\"", Some("10")),
            ("\"10.0.0\"", Some("10")),
            ("\"13.0.0\"", Some("11")),
            ("\"19.0.0\"", Some("11")),
            ("\"\"", None),
        ] {
            assert_eq!(platform_version(Os::Windows, value.as_bytes()).as_deref(), expected, "{value}");
        }
        assert_eq!(platform_version(Os::MacOs, b"\"15.2.0\"").as_deref(), Some("15.2.0"));
        assert_eq!(platform_version(Os::Linux, b"\"\""), None);
        assert_eq!(platform_version(Os::Android, b"\"14; drop\""), None);
    }

    #[test]
    fn mobile_is_a_boolean() {
        assert_eq!(["?0", "?1", "1", "?2", "?1;a"].map(|value| mobile(value.as_bytes())), [Some(false), Some(true), None, None, None]);
    }
}
