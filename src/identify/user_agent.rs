//! The User-Agent (RFC 9110 section 10.1.5) by a short ordered list of rules. One pass over its words, a second one for versions;
//! what a hostile one can cost is bounded by its length alone.

use crate::model::{Browser, Claims, Engine, FormFactor, Os, Side};

/// A product outside comments (with a version, unless it is the first word), the family it stands for, and the product whose version is the family's. The first rule that holds
/// wins: everybody also says Mozilla and Safari, and everybody built on Chromium says Chrome.
const FAMILIES: [(&[u8], Browser, &[u8]); 41] = [
    // Programs; they say nothing but their own name, and sometimes their library's.
    (b"curl", Browser::Curl, b"curl"),
    (b"wget", Browser::Wget, b"wget"),
    (b"wget2", Browser::Wget, b"wget2"),
    (b"python-requests", Browser::Python, b"python-requests"),
    (b"python-urllib", Browser::Python, b"python-urllib"),
    (b"python-urllib3", Browser::Python, b"python-urllib3"),
    (b"python-httpx", Browser::Python, b"python-httpx"),
    (b"aiohttp", Browser::Python, b"aiohttp"),
    (b"python", Browser::Python, b"python"),
    (b"go-http-client", Browser::Go, b"go-http-client"),
    (b"okhttp", Browser::OkHttp, b"okhttp"),
    (b"apache-httpclient", Browser::Java, b"apache-httpclient"),
    (b"java-http-client", Browser::Java, b"java-http-client"),
    (b"java", Browser::Java, b"java"),
    (b"undici", Browser::Node, b"undici"),
    (b"node-fetch", Browser::Node, b"node-fetch"),
    (b"axios", Browser::Node, b"axios"),
    (b"node.js", Browser::Node, b"node.js"),
    (b"node", Browser::Node, b"node"),
    // Other people's pages inside an app.
    (b"fban", Browser::WebView, b"fbav"),
    (b"fbav", Browser::WebView, b"fbav"),
    (b"line", Browser::WebView, b"line"),
    (b"micromessenger", Browser::WebView, b"micromessenger"),
    (b"gsa", Browser::WebView, b"gsa"),
    // iOS, where every browser is WebKit under another name.
    (b"crios", Browser::Chrome, b"crios"),
    (b"fxios", Browser::Firefox, b"fxios"),
    (b"edgios", Browser::Edge, b"edgios"),
    (b"opios", Browser::Opera, b"opios"),
    (b"opt", Browser::Opera, b"opt"),
    (b"edg", Browser::Edge, b"edg"),
    (b"edga", Browser::Edge, b"edga"),
    (b"edge", Browser::Edge, b"edge"),
    (b"opr", Browser::Opera, b"opr"),
    (b"opera", Browser::Opera, b"opera"),
    (b"samsungbrowser", Browser::Samsung, b"samsungbrowser"),
    (b"electron", Browser::Chromium, b"chrome"),
    (b"chromium", Browser::Chromium, b"chromium"),
    (b"headlesschrome", Browser::Chromium, b"headlesschrome"),
    (b"chrome", Browser::Chrome, b"chrome"),
    (b"firefox", Browser::Firefox, b"firefox"),
    (b"safari", Browser::Safari, b"version"),
];

/// A word anywhere and the system it stands for; the first rule that holds wins. Android also says Linux, and some televisions
/// and phones say whatever sells.
const SYSTEMS: [(&[u8], Os); 28] = [
    (b"tizen", Os::Other),
    (b"kaios", Os::Other),
    (b"openharmony", Os::Other),
    (b"web0s", Os::Other),
    (b"webos", Os::Other),
    (b"playstation", Os::Other),
    (b"nintendo", Os::Other),
    (b"xbox", Os::Other),
    (b"fuchsia", Os::Other),
    (b"haiku", Os::Other),
    (b"freebsd", Os::Other),
    (b"openbsd", Os::Other),
    (b"netbsd", Os::Other),
    (b"dragonfly", Os::Other),
    (b"sunos", Os::Other),
    (b"cros", Os::ChromeOs),
    (b"android", Os::Android),
    (b"iphone", Os::Ios),
    (b"ipad", Os::Ios),
    (b"ipod", Os::Ios),
    (b"ios", Os::Ios),
    (b"macintosh", Os::MacOs),
    (b"macos", Os::MacOs),
    (b"windows", Os::Windows),
    (b"win32", Os::Windows),
    (b"linux", Os::Linux),
    (b"linux-gnu", Os::Linux),
    (b"x11", Os::Linux),
];

/// What a User-Agent claims. One without a single word claims nothing; one of no known family is `other`.
pub(super) fn read(text: &[u8]) -> Claims {
    let Some(seen) = Seen::of(text) else { return Claims::default() };
    let (browser, version_of) = seen.browser();
    let tool = matches!(
        browser,
        Browser::Curl | Browser::Wget | Browser::Python | Browser::Go | Browser::Java | Browser::Node | Browser::OkHttp | Browser::Bot
    );
    Claims {
        os: seen.os,
        os_version: seen.os.and_then(|os| os_version(os, text)),
        browser: Some(browser),
        browser_version: version_of.and_then(|product| product_version(product, text)),
        form_factor: if tool { Some(FormFactor::Tool) } else { seen.form_factor() },
    }
}

/// What a User-Agent claims, and what the program says it is built on.
pub(super) fn side(text: &[u8]) -> Side {
    let claims = read(text);
    let engine = engine(&claims, text);
    let engine_version = engine.and_then(|engine| match engine {
        Engine::Chromium => CHROMIUM.iter().find_map(|product| product_version(product, text)),
        Engine::Firefox => product_version(b"firefox", text),
        // Other browsers on iOS leave Safari's version out, and the system's is frozen since 26.
        Engine::Apple => product_version(b"version", text).filter(|_| claims.browser == Some(Browser::Safari)),
    });
    Side { claims, engine, engine_version }
}

/// The products that carry Chromium's own version.
const CHROMIUM: [&[u8]; 3] = [b"chrome", b"chromium", b"headlesschrome"];

fn engine(claims: &Claims, text: &[u8]) -> Option<Engine> {
    const ON_IOS: [&[u8]; 6] = [b"crios", b"fxios", b"edgios", b"opios", b"opt", b"gsa"];
    use Browser::{Chrome, Chromium, Edge, Firefox, Opera, Safari, Samsung, WebView};
    let says = |product: &[u8]| words(text).any(|word| !word.in_comment && word.is(product));
    match claims.browser? {
        Chrome | Chromium | Edge | Firefox | Opera | Safari | Samsung | WebView => {}
        _ => return None,
    }
    match claims.os {
        Some(Os::Ios) => Some(Engine::Apple),
        // A tablet in desktop mode says Macintosh, and its browser's name on iOS.
        _ if ON_IOS.iter().any(|product| says(product)) => Some(Engine::Apple),
        // Edge before 79 was an engine of its own.
        _ if says(b"edge") => None,
        _ if CHROMIUM.iter().any(|product| says(product)) => Some(Engine::Chromium),
        _ if claims.browser == Some(Firefox) => Some(Engine::Firefox),
        // Elsewhere it is WebKit of another make: WebKitGTK, QtWebKit, a television, a console.
        Some(Os::MacOs) if claims.browser == Some(Safari) && says(b"version") => Some(Engine::Apple),
        _ => None,
    }
}

/// What one pass over the words has shown.
#[derive(Default)]
struct Seen {
    /// Index into FAMILIES.
    family: Option<usize>,
    os: Option<Os>,
    bot: bool,
    /// Android's mark of a page inside an app.
    wv: bool,
    /// AppleWebKit or Gecko: something that shows pages.
    engine: bool,
    version: bool,
    mobile: bool,
    tablet: bool,
    television: bool,
}

impl Seen {
    fn of(text: &[u8]) -> Option<Self> {
        let mut seen = Self::default();
        let mut system: Option<usize> = None;
        let mut windows_phone = false;
        let mut previous: &[u8] = b"";
        for word in words(text) {
            if !word.in_comment && (!word.version.is_empty() || previous.is_empty()) {
                seen.family = best(seen.family, FAMILIES.iter().position(|(product, ..)| word.is(product)));
                seen.engine |= word.is(b"applewebkit") || word.is(b"gecko");
                seen.version |= word.is(b"version");
            }
            system = best(system, SYSTEMS.iter().position(|(name, _)| word.is(name)));
            windows_phone |= word.is(b"phone") && previous.eq_ignore_ascii_case(b"windows");
            seen.bot |= word.is_bot();
            seen.wv |= word.in_comment && word.is(b"wv");
            seen.mobile |= word.is(b"mobile");
            seen.tablet |= word.is(b"tablet") || word.is(b"ipad");
            seen.television |= word.is(b"tv") || word.is(b"smarttv") || word.is(b"smart-tv") || word.is(b"googletv");
            previous = word.name;
        }
        if previous.is_empty() {
            return None;
        }
        let os = system.and_then(|rank| SYSTEMS.get(rank)).map(|(_, os)| *os);
        seen.os = if windows_phone { Some(Os::Other) } else { os };
        Some(seen)
    }

    /// The family, and the product whose version is the family's.
    fn browser(&self) -> (Browser, Option<&'static [u8]>) {
        if self.bot {
            return (Browser::Bot, None);
        }
        let android = self.os == Some(Os::Android);
        match self.family.and_then(|rank| FAMILIES.get(rank)) {
            // Android's pages inside an app: `wv` since 5.0, `Version/4.0 Chrome/..` before.
            Some((_, Browser::Chrome, product)) if android && (self.wv || self.version) => (Browser::WebView, Some(product)),
            // Android's own browser before Chrome.
            Some((_, Browser::Safari, _)) if android => (Browser::Other, None),
            Some((_, browser, product)) => (*browser, Some(product)),
            // Only Safari itself says Safari on iOS; a page inside an app does not.
            None if self.os == Some(Os::Ios) && self.engine => (Browser::WebView, None),
            None => (Browser::Other, None),
        }
    }

    fn form_factor(&self) -> Option<FormFactor> {
        match self.os? {
            _ if self.television => Some(FormFactor::Other),
            Os::Windows | Os::MacOs | Os::Linux | Os::ChromeOs => Some(FormFactor::Desktop),
            Os::Ios if self.tablet => Some(FormFactor::Tablet),
            Os::Ios => Some(FormFactor::Phone),
            Os::Android if self.tablet => Some(FormFactor::Tablet),
            Os::Android if self.mobile => Some(FormFactor::Phone),
            // Browsers leave out `Mobile` on a tablet; apps never say it.
            Os::Android => self.engine.then_some(FormFactor::Tablet),
            Os::Other if self.mobile => Some(FormFactor::Phone),
            Os::Other => Some(FormFactor::Other),
        }
    }
}

fn best(known: Option<usize>, found: Option<usize>) -> Option<usize> {
    match (known, found) {
        (Some(known), Some(found)) => Some(known.min(found)),
        (known, found) => known.or(found),
    }
}

/// `name` or `name/version`.
#[derive(Clone, Copy)]
struct Word<'a> {
    name: &'a [u8],
    version: &'a [u8],
    in_comment: bool,
}

impl Word<'_> {
    fn is(&self, name: &[u8]) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// `Googlebot/2.1`, `AdsBot-Google`, `Baiduspider/2.0`: a part of the name ends so. Cubot makes telephones.
    fn is_bot(&self) -> bool {
        const ENDS: [&[u8]; 4] = [b"bot", b"spider", b"crawler", b"externalhit"];
        let ends_so = |part: &[u8]| ENDS.iter().any(|end| ends_with(part, end)) && !part.eq_ignore_ascii_case(b"cubot");
        self.name.split(|&byte| byte == b'-').any(ends_so)
    }
}

fn ends_with(text: &[u8], end: &[u8]) -> bool {
    text.len().checked_sub(end.len()).and_then(|at| text.get(at..)).is_some_and(|tail| tail.eq_ignore_ascii_case(end))
}

/// The words of a User-Agent, comments included.
fn words(text: &[u8]) -> impl Iterator<Item = Word<'_>> {
    let mut depth = 0_usize;
    let mut left = text;
    std::iter::from_fn(move || {
        loop {
            let (&first, after) = left.split_first()?;
            match first {
                b'(' => depth = depth.saturating_add(1),
                b')' => depth = depth.saturating_sub(1),
                _ if is_separator(first) => {}
                _ => {
                    let end = left.iter().position(|&byte| is_separator(byte)).unwrap_or(left.len());
                    let (word, after) = left.split_at_checked(end)?;
                    left = after;
                    let slash = word.iter().position(|&byte| byte == b'/').unwrap_or(word.len());
                    let (name, version) = word.split_at_checked(slash)?;
                    return Some(Word { name, version: version.get(1..).unwrap_or_default(), in_comment: depth > 0 });
                }
            }
            left = after;
        }
    })
}

const fn is_separator(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b';' | b',' | b'(' | b')' | b'[' | b']' | b'{' | b'}' | b'"')
}

fn product_version(product: &[u8], text: &[u8]) -> Option<u32> {
    words(text).find(|word| !word.in_comment && word.is(product)).and_then(|word| major(word.version))
}

/// The whole number that `version` begins with.
pub(super) fn major(version: &[u8]) -> Option<u32> {
    let end = version.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(version.len());
    std::str::from_utf8(version.get(..end)?).ok()?.parse().ok()
}

/// Digits and dots (or underscores, which Apple writes for dots), at most 24.
pub(super) fn dotted(version: &[u8]) -> Option<String> {
    let plain = (1..=24).contains(&version.len()) && version.iter().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'_'));
    (plain && version.first().is_some_and(u8::is_ascii_digit))
        .then(|| version.iter().map(|&b| if b == b'_' { '.' } else { char::from(b) }).collect())
}

fn os_version(os: Os, text: &[u8]) -> Option<String> {
    match os {
        Os::Ios => after(b"os", text).or_else(|| after(b"ios", text)).and_then(dotted),
        Os::MacOs => match after(b"x", text)? {
            // Frozen: by Chromium and Safari; by Firefox.
            b"10_15_7" | b"10.15" => None,
            version => dotted(version),
        },
        Os::Android => match after(b"android", text)? {
            // Frozen by Chromium, with every model called K.
            b"10" if words(text).any(|word| word.name == b"K") => None,
            version => dotted(version),
        },
        Os::Windows => match after(b"nt", text)? {
            b"6.1" => Some("7".to_owned()),
            b"6.2" => Some("8".to_owned()),
            b"6.3" => Some("8.1".to_owned()),
            // 10.0 is every Windows since 2015.
            _ => None,
        },
        Os::ChromeOs => {
            let mut following = words(text).skip_while(|word| !word.is(b"cros")).skip(2);
            match following.next()?.name {
                b"14541.0.0" => None,
                version => dotted(version),
            }
        }
        Os::Linux | Os::Other => None,
    }
}

/// The first word that follows `name` and begins with a digit.
fn after<'a>(name: &[u8], text: &'a [u8]) -> Option<&'a [u8]> {
    let following = words(text).skip(1);
    words(text)
        .zip(following)
        .find(|(word, next)| word.is(name) && next.name.first().is_some_and(u8::is_ascii_digit))
        .map(|(_, next)| next.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Browser, its version, system, its version, form.
    fn told(text: &str) -> String {
        let claims = read(text.as_bytes());
        let version = claims.browser_version.map_or("-".to_owned(), |version| version.to_string());
        [
            claims.browser.map_or("-", Browser::as_str),
            &version,
            claims.os.map_or("-", Os::as_str),
            claims.os_version.as_deref().unwrap_or("-"),
            claims.form_factor.map_or("-", FormFactor::as_str),
        ]
        .join(" ")
    }

    /// What is claimed, a tab, the User-Agent; `#` is a comment.
    const CASES: &str = include_str!("user_agents.tsv");

    #[test]
    fn families_systems_and_forms() {
        let mut wrong = Vec::new();
        let mut cases = 0;
        for line in CASES.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (expected, agent) = line.split_once('\t').unwrap();
            cases += 1;
            if told(agent) != expected {
                wrong.push(format!("{agent}\n  expected {expected}\n  told     {}", told(agent)));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(cases > 60, "{cases}");
    }

    #[test]
    fn every_prefix_is_read() {
        for line in CASES.lines() {
            for cut in 0..line.len() {
                read(&line.as_bytes()[..cut]);
            }
        }
    }

    #[test]
    fn every_rule_can_win() {
        for (product, browser, _) in FAMILIES {
            let claims = read(&[product, b"/7.5"].concat());
            assert_eq!(claims.browser, Some(browser), "{}", String::from_utf8_lossy(product));
        }
        for (name, os) in SYSTEMS {
            assert_eq!(read(&[b"Mozilla/5.0 (", name, b")"].concat()).os, Some(os), "{}", String::from_utf8_lossy(name));
        }
    }

    #[test]
    fn hostile_text_claims_nothing_much() {
        assert_eq!(read(b""), Claims::default());
        assert_eq!(read(b"()[]{};,\"/ //"), Claims::default());
        assert_eq!(told(&"(".repeat(1024)), "- - - - -");
        assert_eq!(told(&")".repeat(1024)), "- - - - -");
        assert_eq!(told("Chrome/99999999999999999999"), "chrome - - - -");
        assert_eq!(told("Chrome/\u{ff11}"), "chrome - - - -");
        assert_eq!(told(&format!("x (iPhone; CPU OS {} like)", "1_".repeat(300))), "other - ios - phone");
        // A family inside a comment is somebody else's name.
        assert_eq!(told("Mozilla/5.0 (like Chrome/99; curl/8)"), "other - - - -");
    }
}
