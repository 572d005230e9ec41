//! Paths.

use std::borrow::Cow;

use super::Malformed;

/// What an app that needs it may keep; the default rejects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathOptions {
    pub encoded_slash: EncodedSlash,
    pub parameters: Parameters,
    pub slashes: Slashes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodedSlash {
    Reject,
    Keep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameters {
    Reject,
    Keep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slashes {
    Merge,
    Keep,
}

impl PathOptions {
    pub const STRICT: Self = Self { encoded_slash: EncodedSlash::Reject, parameters: Parameters::Reject, slashes: Slashes::Merge };
    /// For finding the app, before its own options are known.
    pub const LENIENT: Self = Self { encoded_slash: EncodedSlash::Keep, parameters: Parameters::Keep, slashes: Slashes::Merge };
}

/// The canonical form of a request's path (no query). Borrows when the path is canonical already.
///
/// Escapes of `A-Z a-z 0-9 - . _ ~` are decoded, once; the others stay, in upper case; what may not stand in a path raw (RFC 3986 section 3.3) is
/// escaped; then dot segments go, then slashes merge. What could mean something else to an app than to a rule is refused, whatever the options:
/// backslashes, control bytes and NUL, raw or escaped, broken escapes, ASCII in overlong UTF-8 (`%C0%AF`), and dot segments hidden behind a
/// parameter or an escaped slash (`/..;/`, `/..%3B/`, `/..%2F`).
pub fn path<'a>(raw: &'a str, options: &PathOptions) -> Result<Cow<'a, str>, Malformed> {
    let bytes = raw.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(Malformed("the path does not begin with a slash"));
    }
    if is_canonical(bytes, options)? { Ok(Cow::Borrowed(raw)) } else { rewritten(bytes, options).map(Cow::Owned) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Slash,
    Dot,
    Percent,
    Semicolon,
    /// Not allowed raw, harmless escaped.
    Escape,
    Refused,
}

const KINDS: [Kind; 256] = {
    let mut kinds = [Kind::Escape; 256];
    let plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_~!$&'()*+,=:@";
    let mut i = 0;
    while i < plain.len() {
        kinds[plain[i] as usize] = Kind::Plain;
        i += 1;
    }
    i = 0;
    while i < 0x20 {
        kinds[i] = Kind::Refused;
        i += 1;
    }
    kinds[0x7f] = Kind::Refused;
    kinds[b'\\' as usize] = Kind::Refused;
    kinds[b'#' as usize] = Kind::Refused;
    kinds[b'?' as usize] = Kind::Refused;
    kinds[b'/' as usize] = Kind::Slash;
    kinds[b'.' as usize] = Kind::Dot;
    kinds[b'%' as usize] = Kind::Percent;
    kinds[b';' as usize] = Kind::Semicolon;
    kinds
};

const PARAMETER: Malformed = Malformed("the path has a parameter (`;`)");

fn kind(byte: u8) -> Kind {
    KINDS.get(usize::from(byte)).copied().unwrap_or(Kind::Refused)
}

/// One scan, no allocation: nearly every path that a browser sends ends here. `false` means "look closer", not "wrong".
fn is_canonical(bytes: &[u8], options: &PathOptions) -> Result<bool, Malformed> {
    let mut after_slash = false;
    for (at, byte) in bytes.iter().enumerate() {
        match kind(*byte) {
            Kind::Plain => after_slash = false,
            Kind::Slash if after_slash && options.slashes == Slashes::Merge => return Ok(false),
            Kind::Slash => after_slash = true,
            Kind::Dot if after_slash && is_dots(bytes.get(at..).unwrap_or_default()) => return Ok(false),
            Kind::Dot => after_slash = false,
            Kind::Semicolon if options.parameters == Parameters::Reject => return Err(PARAMETER),
            Kind::Refused => return Err(Malformed("the path has a character that no path has")),
            Kind::Percent => match bytes.get(at + 1..at + 3) {
                // What an overlong form begins with.
                Some(&[b'C', b'0' | b'1'] | &[b'E' | b'F', b'0'] | &[b'F', b'8' | b'C']) => return Ok(false),
                // Frequent in real paths and canonical already: an escaped space or letter beyond ASCII.
                Some(&[b'2', b'0'] | &[b'8'..=b'9' | b'A'..=b'F', b'0'..=b'9' | b'A'..=b'F']) => after_slash = false,
                _ => return Ok(false),
            },
            Kind::Semicolon | Kind::Escape => return Ok(false),
        }
    }
    Ok(true)
}

/// Whether a path's rest begins with a whole segment `.` or `..`.
fn is_dots(rest: &[u8]) -> bool {
    matches!(rest, [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..])
}

fn rewritten(bytes: &[u8], options: &PathOptions) -> Result<String, Malformed> {
    let mut out = Vec::with_capacity(bytes.len() + 8);
    let mut segments = bytes.split(|b| *b == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        let start = out.len();
        out.push(b'/');
        decode(segment, &mut out, options)?;
        match out.get(start + 1..).unwrap_or_default() {
            b"." => {
                out.truncate(start);
                if last {
                    out.push(b'/');
                }
            }
            b".." => {
                out.truncate(start);
                out.truncate(out.iter().rposition(|b| *b == b'/').unwrap_or(0));
                if last {
                    out.push(b'/');
                }
            }
            segment => hides_dots(segment)?,
        }
    }
    if options.slashes == Slashes::Merge {
        out.dedup_by(|next, byte| *next == b'/' && *byte == b'/');
    }
    if out.is_empty() {
        out.push(b'/');
    }
    if out.windows(6).any(is_overlong) {
        return Err(Malformed("the path has a character in overlong UTF-8"));
    }
    String::from_utf8(out).map_err(|_| Malformed("the path is not text"))
}

fn decode(segment: &[u8], out: &mut Vec<u8>, options: &PathOptions) -> Result<(), Malformed> {
    let mut rest = segment;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match kind(byte) {
            Kind::Plain | Kind::Slash | Kind::Dot => out.push(byte),
            Kind::Semicolon if options.parameters == Parameters::Reject => return Err(PARAMETER),
            Kind::Semicolon => out.push(byte),
            Kind::Refused => return Err(Malformed("the path has a character that no path has")),
            Kind::Escape => escape(byte, out),
            Kind::Percent => {
                let [high, low, after @ ..] = rest else { return Err(Malformed("the path has a broken escape")) };
                let value = hex(*high)? << 4 | hex(*low)?;
                rest = after;
                match value {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(value),
                    b'/' if options.encoded_slash == EncodedSlash::Reject => return Err(Malformed("the path has an escaped slash")),
                    b'\\' => return Err(Malformed("the path has an escaped backslash")),
                    0..=0x1f | 0x7f => return Err(Malformed("the path has an escaped control character")),
                    _ => escape(value, out),
                }
            }
        }
    }
    Ok(())
}

/// An app that drops parameters, or decodes `%2F`, before it removes dot segments would leave the folder that the rules saw.
fn hides_dots(segment: &[u8]) -> Result<(), Malformed> {
    let mut rest = segment;
    loop {
        let end = rest.windows(3).position(|w| w == b"%2F");
        let part = end.and_then(|end| rest.get(..end)).unwrap_or(rest);
        let parameter = part.iter().position(|b| *b == b';');
        // Not a parameter to most, but to who decodes before he cuts.
        let escaped = part.windows(3).position(|w| w == b"%3B");
        let name = parameter.into_iter().chain(escaped).min().and_then(|end| part.get(..end)).unwrap_or(part);
        let whole = name.len() == segment.len();
        if !whole && matches!(name, b"." | b"..") {
            return Err(Malformed("the path hides a dot segment"));
        }
        match end.and_then(|end| rest.get(end + 3..)) {
            Some(after) => rest = after,
            None => return Ok(()),
        }
    }
}

/// Whether two escapes begin an overlong form of an ASCII character (RFC 3629 section 3): to a decoder that does not refuse it, `%C0%AE` is a dot
/// and `%C1%A1` an `a` (CVE-2000-0884, CVE-2008-2938). Letters beyond ASCII are let be: not every app speaks UTF-8.
fn is_overlong(escapes: &[u8]) -> bool {
    let [b'%', high, low, b'%', next_high, next_low] = escapes else { return false };
    matches!(
        ([high, low], [next_high, next_low]),
        ([b'C', b'0' | b'1'], [b'8'..=b'9' | b'A'..=b'B', _]) | ([b'E', b'0'], [b'8', b'0' | b'1']) | ([b'F', b'0' | b'8' | b'C'], [b'8', b'0'])
    )
}

fn hex(digit: u8) -> Result<u8, Malformed> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(Malformed("the path has a broken escape")),
    }
}

fn escape(byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble & 0xf)).copied().unwrap_or(b'0');
    out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte)]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEEP: PathOptions = PathOptions { encoded_slash: EncodedSlash::Keep, parameters: Parameters::Keep, slashes: Slashes::Keep };

    fn strict(raw: &str) -> Result<String, Malformed> {
        path(raw, &PathOptions::STRICT).map(Cow::into_owned)
    }

    fn keep(raw: &str) -> Result<String, Malformed> {
        path(raw, &KEEP).map(Cow::into_owned)
    }

    #[test]
    fn one_meaning() {
        for (raw, canonical) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/", "/a/"),
            ("/%61dmin", "/admin"),
            ("/%41%7e%2D", "/A~-"),
            ("/a%2eb", "/a.b"),
            ("/a%c3%a9", "/a%C3%A9"),
            ("/a%20b", "/a%20b"),
            ("/é", "/%C3%A9"),
            ("/a|b{c}", "/a%7Cb%7Bc%7D"),
            ("/a[1]\"<>^`", "/a%5B1%5D%22%3C%3E%5E%60"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/..a/.b", "/..a/.b"),
            ("/a%3bb/...%3B", "/a%3Bb/...%3B"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/%2e%2e/b", "/b"),
            ("/a/.%2E/b", "/b"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/../../a", "/a"),
            ("/..", "/"),
            ("//a", "/a"),
            ("/a//b///c", "/a/b/c"),
            ("/a//../b", "/a/b"),
            ("/a//", "/a/"),
            ("/a/..//b", "/b"),
            ("/!$&'()*+,=:@", "/!$&'()*+,=:@"),
        ] {
            assert_eq!(strict(raw).as_deref(), Ok(canonical), "{raw}");
        }
    }

    /// Real letters in UTF-8, Latin-1 (`%E9`) and the like have their own bytes and stay.
    #[test]
    fn letters_beyond_ascii_are_no_overlong_forms() {
        for path in ["/%C3%A9%E9", "/%C0", "/%C0/%80", "/%C0a", "/%E0%A4%A8", "/%E2%82%AC", "/%F0%9F%98%80", "/%25C0%AE", "/%F8r"] {
            assert_eq!(strict(path).as_deref(), Ok(path));
        }
    }

    #[test]
    fn decodes_once_never_twice() {
        assert_eq!(strict("/%252e%252e/a").as_deref(), Ok("/%252e%252e/a"));
        assert_eq!(strict("/%252F").as_deref(), Ok("/%252F"));
        assert_eq!(strict("/%2%35").unwrap_err(), Malformed("the path has a broken escape"));
    }

    #[test]
    fn what_an_app_could_read_otherwise_is_refused() {
        for raw in [
            "",
            "a",
            "*",
            "/a\\b",
            "/a%5cb",
            "/a%5C..%5Cb",
            "/a%00",
            "/a\u{0}",
            "/a\u{1}",
            "/a\u{7f}",
            "/a%0d%0aX",
            "/a%7F",
            "/a#b",
            "/a?b",
            "/a%",
            "/a%4",
            "/a%zz",
            "/a%%34",
            "/a%2fb",
            "/a%2Fb",
            "/a;b",
            "/..;/admin",
            "/..%3b/admin",
            "/a/;/b",
            "/%2e%2e%2fadmin",
            "/%u002fadmin",
            "/%u2215",
            "/%c0%ae%c0%ae/admin",
            "/%C0%AFadmin",
            "/%c1%a1dmin",
            "/a%c1%9cb",
            "/%e0%80%af",
            "/%E0%81%A1dmin",
            "/%f0%80%80%af",
            "/%f8%80%80%80%af",
            "/%fc%80%80%80%80%af",
        ] {
            assert!(strict(raw).is_err(), "{raw:?}");
        }
    }

    #[test]
    fn an_app_may_keep_slashes_and_parameters() {
        assert_eq!(keep("/a%2fb").as_deref(), Ok("/a%2Fb"));
        assert_eq!(keep("/a;jsessionid=1/b").as_deref(), Ok("/a;jsessionid=1/b"));
        assert_eq!(keep("/a//b").as_deref(), Ok("/a//b"));
        assert_eq!(keep("/a//../b").as_deref(), Ok("/a/b"));
        assert_eq!(keep("/..a%2Fb..;x").as_deref(), Ok("/..a%2Fb..;x"));
    }

    #[test]
    fn dots_behind_a_parameter_or_an_escaped_slash_stay_refused() {
        for raw in [
            "/..;/admin",
            "/a/..;x=1/b",
            "/.;/a",
            "/a/..%2Fadmin",
            "/a/x%2f..%2fadmin",
            "/a/x%2F..",
            "/%2e%2e;/a",
            "/x%2F..;a/b",
            "/..%3b/a",
            "/a/.%3B",
        ] {
            assert!(keep(raw).is_err(), "{raw}");
        }
        for raw in ["/a\\b", "/a%5cb", "/a%00", "/a#b", "/a%1f"] {
            assert!(keep(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn a_canonical_path_is_borrowed() {
        for raw in ["/", "/assets/app.7f3a.js", "/.well-known/x", "/a%20b/%C3%A9", "/a/b/"] {
            assert!(matches!(path(raw, &PathOptions::STRICT), Ok(Cow::Borrowed(_))), "{raw}");
        }
    }

    /// RFC 3986 section 5.2.4 written down literally, against which the segment walk is compared.
    fn remove_dot_segments(path: &str) -> String {
        let mut input = path.to_owned();
        let mut output = String::new();
        while !input.is_empty() {
            if input.starts_with("/./") {
                input.replace_range(..2, "");
            } else if input == "/." {
                input = "/".into();
            } else if input.starts_with("/../") || input == "/.." {
                input = format!("/{}", input.get(4..).unwrap_or(""));
                output.truncate(output.rfind('/').unwrap_or(0));
            } else {
                let end = input[1..].find('/').map_or(input.len(), |i| i + 1);
                output.push_str(&input[..end]);
                input.replace_range(..end, "");
            }
        }
        output
    }

    proptest! {
        #[test]
        fn never_panics_and_is_idempotent(raw in "/([a-c./;%~\\\\# é]|%2[eEfF5]|%5[cC]|%6[1a]|%[cCeEfF][0-9]|%[89aA][0-9a-f]|\\PC){0,24}") {
            for options in [PathOptions::STRICT, PathOptions::LENIENT, KEEP] {
                if let Ok(once) = path(&raw, &options) {
                    let twice = path(&once, &options).map(Cow::into_owned);
                    prop_assert_eq!(twice.as_deref(), Ok(&*once));
                    prop_assert!(matches!(path(&once, &options), Ok(Cow::Borrowed(_))) || once.contains(['%', ';']));
                }
            }
        }

        #[test]
        fn agrees_with_the_rfc(raw in "(/([ab.]|\\.\\.){0,3}){1,6}") {
            prop_assert_eq!(keep(&raw), Ok(remove_dot_segments(&raw)));
        }

        #[test]
        fn strict_output_holds_nothing_to_misread(raw in "/([a./;%\\\\]|%2[eEfF]|%5[cC]){0,24}") {
            if let Ok(out) = strict(&raw) {
                prop_assert!(!out.contains("//") && !out.contains(['\\', ';']) && !out.contains("%2F") && !out.contains("%5C"));
                prop_assert!(out.split('/').all(|segment| segment != "." && segment != ".."));
            }
        }

        #[test]
        fn strict_is_lenient_first(raw in "/([a./;%]|%2[eEfF]|%C3%A9){0,24}") {
            if let Ok(out) = strict(&raw) {
                let lenient = path(&raw, &PathOptions::LENIENT).map(Cow::into_owned);
                prop_assert_eq!(lenient, Ok(out));
            }
        }
    }
}
