//! What is claimed and what is recorded against what the wire leaves possible. A contradiction is an empty intersection of two
//! sides that both say something; whatever is unknown, unavailable or newer than the table contradicts nothing.

use smallvec::SmallVec;

use crate::model::{
    Browser, Clash, Comparison, Confidence, Contradiction, Engine, FormFactor, Identification, Meaning, Os, Seen, Set, Side, Sides,
};

/// What lies between the client and us, as far as anybody said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// The zone says `syn: direct`: no VPN, proxy or accelerator sends a SYN of its own.
    pub syn_direct: bool,
    /// A middlebox speaks TLS and HTTP/2 in the client's place: neither is held against anybody.
    pub intercepted: bool,
}

/// `record` is the system of the device's record, if there is a record that names one.
pub fn compare(sides: &Sides, wire: &Identification, record: Option<Os>, path: Path) -> Comparison {
    let mut found = Found::default();
    // Either side's claims are what rules read (the hints' first), so both are held against the wire: a User-Agent that names nobody must not hide them.
    let claimants = [&sides.user_agent, &sides.hints];
    for (kind, layer) in [(Contradiction::UaBrowserVsTls, &wire.tls), (Contradiction::UaBrowserVsH2, &wire.h2)] {
        if let Some(meaning) = layer.meaning().filter(|_| !path.intercepted) {
            for said in claimants {
                found.note(browser(said, meaning), kind, true, || (claimed_browser(said), meaning.text()));
            }
        }
    }
    if let Some(meaning) = wire.syn.meaning() {
        for os in claimants.into_iter().filter_map(|said| said.claims.os) {
            found.note(system(os, meaning), Contradiction::UaOsVsSyn, path.syn_direct, || (os.as_str().to_owned(), meaning.text()));
        }
    }
    if let Some((claimed, hinted)) = apart(&sides.user_agent, &sides.hints) {
        found.note(Some(false), Contradiction::UaVsHints, true, || (claimed, hinted));
    }
    if let Some(os) = record {
        for (layer, strong) in [(&wire.tls, true), (&wire.h2, true), (&wire.syn, path.syn_direct)] {
            let silent = path.intercepted && !std::ptr::eq(layer, &raw const wire.syn);
            if let Some(meaning) = layer.meaning().filter(|_| !silent) {
                found.note(system(os, meaning), Contradiction::RecordOsVsWire, strong, || (os.as_str().to_owned(), meaning.text()));
            }
        }
    }
    let one_side = sides.merged != crate::model::Claims::default()
        || [&wire.tls, &wire.h2, &wire.syn].iter().any(|layer| matches!(layer, Seen::Known(_)));
    found.comparison(one_side)
}

#[derive(Default)]
struct Found {
    all: Set<Contradiction>,
    strong: Set<Contradiction>,
    agreed: bool,
    clashes: SmallVec<[Clash; 1]>,
}

impl Found {
    /// `agree`: `None` when one of the sides says nothing.
    fn note(&mut self, agree: Option<bool>, kind: Contradiction, strong: bool, sides: impl FnOnce() -> (String, String)) {
        match agree {
            None => {}
            Some(true) => self.agreed = true,
            Some(false) => {
                let one = Set::from_iter([kind]);
                if strong {
                    self.strong = self.strong.either(one);
                }
                if !self.all.has(kind) {
                    let (claimed, seen) = sides();
                    self.all = self.all.either(one);
                    self.clashes.push(Clash { kind, claimed: claimed.into(), seen: seen.into() });
                }
            }
        }
    }

    fn comparison(self, one_side: bool) -> Comparison {
        let confidence = match () {
            () if !self.strong.is_empty() => Confidence::Contradicted,
            () if self.agreed => Confidence::Corroborated,
            () if one_side => Confidence::Claimed,
            () => Confidence::None,
        };
        Comparison { contradictions: self.all, strong: self.strong, confidence, clashes: self.clashes }
    }
}

/// The words by which the table calls a claimed program; empty: the claim is none that the wire could deny.
fn families(side: &Side) -> Set<Browser> {
    let Some(browser) = side.claims.browser else { return Set::EMPTY };
    let word = match (browser, side.engine) {
        // `other` may be anything, and bots say so to be served, on any stack.
        (Browser::Other | Browser::Bot, _) => return Set::EMPTY,
        (_, Some(Engine::Apple)) => Browser::Safari,
        (_, Some(Engine::Chromium | Engine::Firefox)) => browser,
        // WebKitGTK says a version of Safari's; QtWebKit (wkhtmltopdf, PhantomJS) says its program's instead, over OpenSSL.
        (Browser::Safari, None) if side.claims.os == Some(Os::Linux) && side.claims.browser_version.is_some() => Browser::WebKitGtk,
        // A browser that does not say what it is built on: old, a television, a console.
        (
            Browser::Safari
            | Browser::Chrome
            | Browser::Chromium
            | Browser::Edge
            | Browser::Firefox
            | Browser::Opera
            | Browser::Samsung
            | Browser::WebView,
            None,
        ) => return Set::EMPTY,
        (tool, None) => tool,
    };
    Set::from_iter([word])
}

fn browser(side: &Side, meaning: &Meaning) -> Option<bool> {
    let claimed = families(side);
    if claimed.is_empty() || meaning.browsers.is_empty() {
        return None;
    }
    if claimed.both(meaning.browsers).is_empty() {
        return Some(false);
    }
    match (side.engine_version, meaning.possible) {
        (Some(version), Some(possible)) => Some(possible.holds(version)),
        _ => Some(true),
    }
}

fn system(os: Os, meaning: &Meaning) -> Option<bool> {
    (os != Os::Other && !meaning.os.is_empty()).then(|| meaning.os.has(os))
}

fn claimed_browser(side: &Side) -> String {
    let name = side.claims.browser.map_or("nothing", Browser::as_str);
    let version = side.claims.browser_version.map(|version| format!(" {version}")).unwrap_or_default();
    let os = side.claims.os.map(|os| format!(" on {}", os.as_str())).unwrap_or_default();
    format!("{name}{version}{os}")
}

/// Both sides, where User-Agent and hints cannot both be true.
fn apart(agent: &Side, hints: &Side) -> Option<(String, String)> {
    let browsers = agent.claims.browser.zip(hints.claims.browser);
    if browsers.is_some_and(|(said, hinted)| !same_browser(said, agent, hinted)) || versions_apart(agent, hints) {
        return Some((claimed_browser(agent), claimed_browser(hints)));
    }
    if let Some((said, hinted)) = agent.claims.os.zip(hints.claims.os).filter(|(said, hinted)| !same_system(*said, *hinted)) {
        return Some((said.as_str().to_owned(), hinted.as_str().to_owned()));
    }
    // The other way round is no contradiction: on Android large screens, pages asked for as the desktop's and apps' own User-Agents part the two.
    let mobile = agent.claims.form_factor == Some(FormFactor::Desktop) && hints.claims.form_factor == Some(FormFactor::Phone);
    mobile.then(|| (FormFactor::Desktop.as_str().to_owned(), "mobile".to_owned()))
}

/// Brands that say which browser of Chromium's many it is; the others (`chromium`, `webview`) are said by any of them.
const SPECIFIC: [Browser; 4] = [Browser::Chrome, Browser::Edge, Browser::Opera, Browser::Samsung];

fn same_browser(said: Browser, agent: &Side, hinted: Browser) -> bool {
    match agent.engine {
        // Vivaldi, Brave and others say Chrome, and their own brand beside Chromium's.
        Some(Engine::Chromium) => said == hinted || !SPECIFIC.contains(&said) || !SPECIFIC.contains(&hinted),
        Some(Engine::Firefox | Engine::Apple) => false,
        None => matches!(said, Browser::Other | Browser::Bot),
    }
}

fn versions_apart(agent: &Side, hints: &Side) -> bool {
    match (agent.engine, agent.engine_version, hints.engine_version) {
        // An enterprise policy freezes the User-Agent's at 99.
        (Some(Engine::Chromium), Some(said), Some(hinted)) => said != hinted && said != 99,
        _ => false,
    }
}

fn same_system(said: Os, hinted: Os) -> bool {
    // A phone that asks for the desktop's page says Linux on one side or on both.
    const LINUX: [Os; 3] = [Os::Linux, Os::Android, Os::ChromeOs];
    said == hinted || said == Os::Other || hinted == Os::Other || (LINUX.contains(&said) && LINUX.contains(&hinted))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;
    use crate::identify::sides;
    use crate::model::{Seen, Span};

    const CHROME: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
    const ANDROID: &str = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36";
    const DESKTOP_PAGE: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
    const FIREFOX: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:144.0) Gecko/20100101 Firefox/144.0";
    const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1";
    const BRANDS: &str = r#""Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99""#;

    fn said(agent: &str, hints: [&str; 3]) -> Sides {
        let names = ["user-agent", "sec-ch-ua", "sec-ch-ua-platform", "sec-ch-ua-mobile"];
        let values = [agent, hints[0], hints[1], hints[2]];
        let headers = names.into_iter().zip(values).filter(|(_, value)| !value.is_empty());
        sides(&headers.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect::<HeaderMap>())
    }

    fn hints_clash(agent: &str, hints: [&str; 3]) -> bool {
        let found = compare(&said(agent, hints), &Identification::default(), None, Path::default());
        assert!(found.contradictions == found.strong && found.contradictions.len() < 2);
        found.contradictions.has(Contradiction::UaVsHints)
    }

    #[test]
    fn user_agent_and_hints_that_cannot_both_be_true() {
        let edge = format!("{CHROME} Edg/142.0.0.0");
        for (agent, hints) in [
            (FIREFOX, [BRANDS, "", ""]),
            (IPHONE, [BRANDS, "", ""]),
            ("curl/8.5.0", [BRANDS, "", ""]),
            (CHROME, [r#""Chromium";v="120", "Google Chrome";v="120""#, "", ""]),
            (&edge, [BRANDS, "", ""]),
            (CHROME, [BRANDS, r#""macOS""#, ""]),
            (CHROME, ["", r#""Android""#, ""]),
            (CHROME, [BRANDS, "", "?1"]),
        ] {
            assert!(hints_clash(agent, hints), "{agent} {hints:?}");
        }
    }

    #[test]
    fn user_agent_and_hints_that_differ_honestly() {
        let frozen = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/99.0.142.0 Safari/537.36";
        let bot = "Mozilla/5.0 (compatible; Googlebot/2.1) Chrome/141.0.0.0";
        for (agent, hints) in [
            (CHROME, [BRANDS, r#""Windows""#, "?0"]),
            ("", [BRANDS, r#""Windows""#, "?0"]),
            (CHROME, ["", "", ""]),
            // Brave and others: a brand that we do not list, and Chromium's.
            (CHROME, [r#""Brave";v="142", "Chromium";v="142""#, r#""Windows""#, "?0"]),
            // A page in an app on Windows.
            (CHROME, [r#""Microsoft Edge WebView2";v="142", "Chromium";v="142""#, "", ""]),
            // A policy writes the version where the minor one stood.
            (frozen, [BRANDS, r#""Windows""#, "?0"]),
            // A phone that asks for the page of a desktop; a phone with a large screen.
            (DESKTOP_PAGE, [BRANDS, r#""Android""#, "?0"]),
            (ANDROID, [BRANDS, r#""Android""#, "?0"]),
            (bot, [BRANDS, r#""Linux""#, "?0"]),
            (CHROME, [BRANDS, r#""Unknown""#, "?0"]),
        ] {
            assert!(!hints_clash(agent, hints), "{agent} {hints:?}");
        }
    }

    fn wire(browsers: &[Browser], possible: Option<Span>) -> Identification {
        let meaning = Meaning { browsers: browsers.iter().copied().collect(), possible, ..Meaning::default() };
        Identification { tls: Seen::Known(meaning.into()), ..Identification::default() }
    }

    #[test]
    fn a_version_contradicts_only_where_the_table_is_sure() {
        let claimed = said(CHROME, ["", "", ""]);
        let verdict = |possible| compare(&claimed, &wire(&[Browser::Chrome], possible), None, Path::default()).confidence;
        assert_eq!(verdict(None), Confidence::Corroborated);
        assert_eq!(verdict(Some(Span { from: 100, to: None })), Confidence::Corroborated);
        assert_eq!(verdict(Some(Span { from: 100, to: Some(141) })), Confidence::Contradicted);
        assert_eq!(verdict(Some(Span { from: 143, to: None })), Confidence::Contradicted);
        // Opera counts otherwise: its engine is compared.
        let opera = said(&format!("{CHROME} OPR/126.0.0.0"), ["", "", ""]);
        let possible = Some(Span { from: 130, to: None });
        assert_eq!(compare(&opera, &wire(&[Browser::Opera], possible), None, Path::default()).confidence, Confidence::Corroborated);
    }

    #[test]
    fn who_says_nothing_that_the_wire_could_deny_contradicts_nothing() {
        let to_pdf = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/534.34 (KHTML, like Gecko) wkhtmltopdf Safari/534.34";
        let phantom = "Mozilla/5.0 (Macintosh; Intel Mac OS X) AppleWebKit/538.1 (KHTML, like Gecko) PhantomJS/2.1.1 Safari/538.1";
        let edge_html = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/64.0.3282.140 Safari/537.36 Edge/18.17763";
        let console = "Mozilla/5.0 (PlayStation; PlayStation 5/2.26) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/13.0 Safari/605.1.15";
        for agent in ["", "Expenses/3.2", "Mozilla/5.0 (compatible; Googlebot/2.1)", edge_html, console, to_pdf, phantom] {
            let found = compare(&said(agent, ["", "", ""]), &wire(&[Browser::Go], None), None, Path::default());
            assert!(found.contradictions.is_empty(), "{agent}: {:?}", found.clashes);
        }
    }

    /// A name that nobody knows in the User-Agent does not hide what the hints claim, and `claims.browser` is theirs.
    #[test]
    fn a_claim_in_the_hints_alone_is_held_against_the_wire() {
        for agent in ["", "x", "Mozilla/5.0 (compatible; Googlebot/2.1)", "Mozilla/5.0 (X11; FreeBSD amd64) x/1.0"] {
            let claimed = said(agent, [BRANDS, r#""Windows""#, "?0"]);
            assert_eq!((claimed.merged.browser, claimed.merged.os), (Some(Browser::Chrome), Some(Os::Windows)));
            let found = compare(&claimed, &wire(&[Browser::Curl], None), None, Path::default());
            assert!(found.strong.has(Contradiction::UaBrowserVsTls), "{agent}: {:?}", found.clashes);
            assert_eq!(&*found.clashes[0].claimed, "chrome 142 on windows");
            let linux = Identification {
                syn: Seen::Known(Meaning { os: [Os::Linux].into_iter().collect(), ..Meaning::default() }.into()),
                ..Identification::default()
            };
            let found = compare(&claimed, &linux, None, Path { syn_direct: true, intercepted: false });
            assert!(found.strong.has(Contradiction::UaOsVsSyn), "{agent}: {:?}", found.clashes);
            let honest = compare(&claimed, &wire(&[Browser::Chrome], None), None, Path::default());
            assert_eq!((honest.contradictions, honest.confidence), (Set::EMPTY, Confidence::Corroborated));
        }
    }

    #[test]
    fn confidence_never_says_more_than_two_sides_can() {
        let nothing = compare(&Sides::default(), &Identification::default(), None, Path::default());
        assert_eq!(nothing, Comparison::default());
        let claimed = compare(&said(CHROME, ["", "", ""]), &Identification::default(), None, Path::default());
        assert_eq!(claimed.confidence, Confidence::Claimed);
        let seen = compare(&Sides::default(), &wire(&[Browser::Chrome], None), None, Path::default());
        assert_eq!(seen.confidence, Confidence::Claimed);
    }
}
