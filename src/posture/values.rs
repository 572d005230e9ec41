//! Texts that people and other systems wrote, to the values of a device record. What comes out of here is well formed.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::model::KeyKind;
use crate::policy::draft::Source;

/// A source's clock may be ahead of ours by this much; an observation from later than that is refused.
pub const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// Longest text of a field, in characters.
pub const TEXT_MAX: usize = 256;

/// A value that a field cannot take: what it was and what is wanted instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The field's path, for example `posture.disk_encrypted`; empty when it is the name of the field that is wrong.
    pub field: String,
    pub found: String,
    pub expected: String,
    /// The known name that is nearest to what was found.
    pub nearest: Option<String>,
}

impl Wrong {
    pub fn new(field: impl Into<String>, found: &str, expected: impl Into<String>) -> Self {
        Self { field: field.into(), found: quoted(found), expected: expected.into(), nearest: None }
    }

    pub fn near<'a>(mut self, found: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        self.nearest = nearest(found, known).map(str::to_owned);
        self
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "found {}, expected {}", self.found, self.expected)?;
        self.nearest.iter().try_for_each(|near| write!(f, "; did you mean `{near}`?"))
    }
}

impl std::error::Error for Wrong {}

/// What a value is read under.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    pub now: Timestamp,
    /// The sources whose facts are believed; `None` when no configuration says (`--store`).
    pub sources: Option<&'a [Source]>,
    /// Where relative paths of `cert:PATH` keys begin.
    pub folder: &'a Path,
}

/// Text for an error message: quoted, of bounded length, without control characters.
pub fn quoted(text: &str) -> String {
    if text.is_empty() {
        return "nothing".to_owned();
    }
    let mut shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        shown.push('…');
    }
    format!("`{}`", shown.replace("\\\"", "\"").replace("\\'", "'"))
}

/// The known name that `found` was probably meant to be.
pub fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let found: String = found.chars().take(TEXT_MAX).collect();
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&found.to_ascii_lowercase(), &name.to_ascii_lowercase()), name))
        .filter(|(likeness, _)| *likeness > 0.82)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// A device's id. It travels in a header to the app, so it is visible ASCII without separators.
pub fn id(text: &str) -> Result<String, Wrong> {
    let inner = |c: char| c.is_ascii_alphanumeric() || "._:@/+=-".contains(c);
    match text.chars().next() {
        Some(first) if first.is_ascii_alphanumeric() && text.len() <= 128 && text.chars().all(inner) => Ok(text.to_owned()),
        _ => Err(Wrong::new("id", text, "1 to 128 letters, digits and . _ : @ / + = -, the first a letter or digit")),
    }
}

/// A line of text that a person reads.
pub fn text(field: &str, text: &str) -> Result<String, Wrong> {
    let text = text.trim();
    let long = text.chars().nth(TEXT_MAX).is_some();
    if text.is_empty() || long || text.chars().any(unprintable) {
        return Err(Wrong::new(field, text, format!("one line of at most {TEXT_MAX} characters")));
    }
    Ok(text.to_owned())
}

/// Control characters, and those that reorder or hide the text around them.
fn unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The name of a posture fact or of a source.
pub fn word(field: &str, text: &str) -> Result<String, Wrong> {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if !text.is_empty() && text.len() <= 64 && text.bytes().all(ok) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(field, text, "1 to 64 of the characters a-z, 0-9 and _"))
}

/// The name of a source whose facts are believed.
pub fn source(field: &str, text: &str, terms: &Terms<'_>) -> Result<String, Wrong> {
    let name = word(field, text)?;
    match terms.sources {
        Some(known) if !known.iter().any(|s| s.name == name) => {
            let names: Vec<&str> = known.iter().map(|s| s.name.as_str()).collect();
            let expected = format!("a source that the configuration lists under posture.sources ({})", any_of(&names));
            Err(Wrong::new(field, text, expected).near(text, names))
        }
        _ => Ok(name),
    }
}

/// One word of a closed set.
pub fn one_of<T: Copy>(field: &str, text: &str, all: &[T], name: fn(T) -> &'static str) -> Result<T, Wrong> {
    if let Some(value) = all.iter().copied().find(|v| name(*v) == text) {
        return Ok(value);
    }
    let names: Vec<&str> = all.iter().map(|v| name(*v)).collect();
    Err(Wrong::new(field, text, any_of(&names)).near(text, names))
}

/// `a, b or c`.
pub fn any_of(names: &[&str]) -> String {
    match names {
        [] => "none".to_owned(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

pub fn yes(field: &str, text: &str) -> Result<bool, Wrong> {
    one_of(field, text, &[true, false], |v| if v { "true" } else { "false" })
}

/// A time of any kind, cut to the millisecond that the store keeps.
pub fn time(field: &str, text: &str) -> Result<Timestamp, Wrong> {
    let wrong = || Wrong::new(field, text, "a time with its offset, for example 2026-11-22T07:30:00Z");
    let time: Timestamp = text.trim().parse().map_err(|_| wrong())?;
    // The store keeps times as text of one width; years beyond four digits would not sort.
    if !(0..253_402_300_800).contains(&time.as_second()) {
        return Err(wrong());
    }
    Ok(to_millisecond(time))
}

/// A time at which something was seen: never from the future, but for a clock that runs a little ahead.
pub fn past(field: &str, text: &str, now: Timestamp) -> Result<Timestamp, Wrong> {
    let time = time(field, text)?;
    if time.as_millisecond() > now.as_millisecond().saturating_add(i64::try_from(CLOCK_SKEW.as_millis()).unwrap_or(i64::MAX)) {
        return Err(Wrong::new(field, text, "a time that is not more than 5 minutes in the future"));
    }
    Ok(time)
}

/// The clock, cut to the millisecond that the store keeps.
pub fn now() -> Timestamp {
    to_millisecond(Timestamp::now())
}

pub fn to_millisecond(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

/// `KIND:VALUE`, or `cert:PATH` for the key of a certificate in a PEM file.
pub fn key(field: &str, text: &str, terms: &Terms<'_>) -> Result<(KeyKind, String), Wrong> {
    let text = text.trim();
    let Some((kind, value)) = text.split_once(':') else {
        return Err(Wrong::new(field, text, "KIND:VALUE with a kind of spki_sha256, san, serial or browser, or cert:FILE.pem"));
    };
    if kind == "cert" {
        let path = terms.folder.join(value);
        let digest = super::certificate::spki_sha256(&path).map_err(|e| Wrong::new(field, text, format!("a certificate; {e}")))?;
        return Ok((KeyKind::SpkiSha256, digest));
    }
    let kind = one_of(field, kind, &KeyKind::ALL, KeyKind::as_str)?;
    Ok((kind, key_value(field, kind, value)?))
}

/// A key's value in the one form that is stored and looked up.
pub fn key_value(field: &str, kind: KeyKind, value: &str) -> Result<String, Wrong> {
    if kind == KeyKind::SpkiSha256 {
        let digits: String = value.chars().filter(|c| *c != ':').map(|c| c.to_ascii_lowercase()).collect();
        if digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(digits);
        }
        return Err(Wrong::new(field, value, "64 hex digits, the SHA-256 of a SubjectPublicKeyInfo"));
    }
    let value = text(field, value)?;
    if value.contains(';') {
        return Err(Wrong::new(field, &value, "a value without `;`, which parts keys"));
    }
    Ok(value)
}

/// Who makes a change, for the audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By(String);

impl By {
    pub fn new(name: &str) -> Result<Self, Wrong> {
        text("by", name).map(Self)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-22T08:00:00Z";

    fn terms(sources: Option<&[Source]>) -> Terms<'_> {
        Terms { now: NOW.parse().unwrap(), sources, folder: Path::new(".") }
    }

    #[test]
    fn spki_keys_have_one_form() {
        let upper = "AB:".repeat(31) + "AB";
        let (kind, value) = key("keys", &format!("spki_sha256:{upper}"), &terms(None)).unwrap();
        assert_eq!((kind, value), (KeyKind::SpkiSha256, "ab".repeat(32)));
        for bad in ["spki_sha256:abc", &format!("spki_sha256:{}", "g".repeat(64)), "spki:x", "abc", "serial:", "serial:a;b", "serial:a\nb"]
        {
            assert!(key("keys", bad, &terms(None)).is_err(), "{bad}");
        }
    }

    #[test]
    fn wrong_kind_names_the_nearest() {
        let wrong = key("keys", "spki_sha265:ab", &terms(None)).unwrap_err();
        let text = "keys: found `spki_sha265`, expected spki_sha256, san, serial or browser; did you mean `spki_sha256`?";
        assert_eq!(wrong.to_string(), text);
    }

    #[test]
    fn times_from_the_future_are_refused() {
        let now = NOW.parse().unwrap();
        assert!(past("observed_at", "2026-11-22T08:05:00Z", now).is_ok());
        assert!(past("observed_at", "2026-11-22T08:05:00.001Z", now).is_err());
        assert!(past("observed_at", "2026-11-22T10:00:00+02:00", now).is_ok());
        for bad in ["yesterday", "2026-11-22", "2026-11-22T08:00:00", "", "99999-01-01T00:00:00Z", "-000001-01-01T00:00:00Z"] {
            assert!(time("observed_at", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sources_that_nobody_lists_are_refused() {
        let known = [Source { name: "mdm".to_owned(), ttl: Duration::from_secs(1) }];
        assert!(source("source", "mdm", &terms(Some(&known))).is_ok());
        let wrong = source("source", "mdn", &terms(Some(&known))).unwrap_err();
        assert!(wrong.to_string().contains("posture.sources (mdm); did you mean `mdm`?"), "{wrong}");
        assert!(source("source", "mdn", &terms(None)).is_ok());
        assert!(source("source", "MDM", &terms(None)).is_err());
    }

    #[test]
    fn ids_are_safe_in_a_header() {
        assert!(id("laptop-1").is_ok());
        for bad in ["", "-x", "a b", "a,b", "ä", "a\n", &"x".repeat(129)] {
            assert!(id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn texts_hold_no_control_characters() {
        assert_eq!(text("name", "  Ada's MacBook ").unwrap(), "Ada's MacBook");
        for bad in ["", " ", "a\u{1b}[2J", "a\u{202e}b", "a\nb", &"ä".repeat(257)] {
            assert!(text("name", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn found_text_is_harmless_in_a_terminal() {
        assert_eq!(quoted("a\u{1b}[2J"), "`a\\u{1b}[2J`");
        assert_eq!(quoted(""), "nothing");
        assert_eq!(quoted("it's \"x\""), "`it's \"x\"`");
        assert!(quoted(&"x".repeat(9999)).len() < 80);
    }
}
