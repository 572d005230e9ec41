//! Hosts.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use http::header::HOST;
use http::{HeaderMap, Uri};

use super::Malformed;
use crate::model::Host;

/// The host and port that a request names, in canonical form, borrowed from the request where it is canonical already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// Lower case, no trailing dot, IPv6 in brackets.
    pub host: Cow<'a, str>,
    /// `None` for the default ports, 80 and 443.
    pub port: Option<u16>,
}

impl Authority<'_> {
    /// Allocates; compare with `is` first where a connection has a host already.
    pub fn to_host(&self) -> Host {
        Host::canonical(&self.host)
    }

    pub fn is(&self, host: &Host) -> bool {
        self.host == host.as_str()
    }
}

/// The canonical form of a host with an optional port, which is dropped.
pub fn host(text: &str) -> Result<Host, Malformed> {
    parse(text, None).map(|authority| authority.to_host())
}

/// The one host that a request names, with its port: absolute-form or `:authority` beats Host and must agree with it. RFC 9112 section 3.2, RFC 9113 section 8.3.1.
pub fn authority_of<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Result<Authority<'a>, Malformed> {
    authority_after(uri, headers, None)
}

/// The same, found sooner where it is that of the request before: most requests of a connection name one host.
pub fn authority_after<'a>(uri: &'a Uri, headers: &'a HeaderMap, last: Option<&Host>) -> Result<Authority<'a>, Malformed> {
    // One pass: in HTTP/2 there is none, in HTTP/1 it stands in front.
    let mut hosts = headers.iter().filter(|(name, _)| **name == HOST).map(|(_, value)| value);
    let field = match hosts.next() {
        Some(value) => Some(parse(value.to_str().map_err(|_| Malformed("the Host field is not a host"))?, last)?),
        None => None,
    };
    if hosts.next().is_some() {
        return Err(Malformed("the request has two Host fields"));
    }
    match uri.authority() {
        None => field.ok_or(Malformed("the request names no host")),
        Some(target) => {
            if !matches!(uri.scheme_str(), None | Some("http" | "https")) {
                return Err(Malformed("the request's target is not an http or https address"));
            }
            let target = parse(target.as_str(), last)?;
            match field {
                Some(field) if field != target => Err(Malformed("the request's target and its Host field name different hosts")),
                _ => Ok(target),
            }
        }
    }
}

fn parse<'a>(text: &'a str, known: Option<&Host>) -> Result<Authority<'a>, Malformed> {
    if text.is_empty() {
        return Err(Malformed("the host is empty"));
    }
    // What is canonical says the same again, whatever follows that can follow a host.
    if let Some((host, rest)) =
        known.and_then(|known| text.split_at_checked(known.as_str().len()).filter(|(host, _)| *host == known.as_str()))
    {
        match rest.strip_prefix(':') {
            Some(digits) => return Ok(Authority { host: Cow::Borrowed(host), port: port(digits)? }),
            None if rest.is_empty() => return Ok(Authority { host: Cow::Borrowed(host), port: None }),
            None => {}
        }
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (inner, rest) = rest.split_once(']').ok_or(Malformed("the host has an open bracket"))?;
        // A zone (`fe80::1%eth0`) names an interface of the client, nothing of ours; `Ipv6Addr` refuses it, and IPvFuture.
        let address: Ipv6Addr = inner.parse().map_err(|_| Malformed("the host is not an IPv6 address"))?;
        let port = match rest.strip_prefix(':') {
            Some(digits) => port(digits)?,
            None if rest.is_empty() => None,
            None => return Err(Malformed("the host has text after its bracket")),
        };
        return Ok(Authority { host: Cow::Owned(format!("[{address}]")), port });
    }
    let (name, port) = match text.split_once(':') {
        Some((name, digits)) => (name, port(digits)?),
        None => (text, None),
    };
    Ok(Authority { host: name_of(name)?, port })
}

fn port(digits: &str) -> Result<Option<u16>, Malformed> {
    const WRONG: Malformed = Malformed("the host's port is not a port");
    if digits.is_empty() {
        return Ok(None);
    }
    // `parse` alone would take a sign.
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(WRONG);
    }
    match digits.parse::<u16>() {
        Ok(80 | 443) => Ok(None),
        Ok(port) => Ok(Some(port)),
        Err(_) => Err(WRONG),
    }
}

/// RFC 1123 section 2.1 with the underscore that real networks use; nothing that needs an escape, so no user information either.
fn name_of(name: &str) -> Result<Cow<'_, str>, Malformed> {
    // CVE-2022-23632: `app.example.` is the same host as `app.example`.
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > 253 {
        return Err(Malformed("the host is empty or longer than 253 characters"));
    }
    let mut upper = false;
    let mut label = 0usize;
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => label += 1,
            b'A'..=b'Z' => {
                upper = true;
                label += 1;
            }
            b'.' if label > 0 => label = 0,
            b'.' => return Err(Malformed("the host has an empty label")),
            b'@' => return Err(Malformed("the host has user information")),
            _ => return Err(Malformed("the host has a character that no host has")),
        }
        if label > 63 {
            return Err(Malformed("the host has a label longer than 63 characters"));
        }
    }
    if label == 0 {
        return Err(Malformed("the host has an empty label"));
    }
    if ends_in_a_number(name) && name.parse::<Ipv4Addr>().is_err() {
        return Err(Malformed("the host is a number, but no IPv4 address"));
    }
    Ok(if upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) })
}

/// What a reader of the old `inet_aton` kind takes for an IPv4 address: `0x7f.1`, `2130706433` and `127.000.0.1` are 127.0.0.1 to some and another
/// host, or none, to others. No name ends like this.
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    hex.map_or(!last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()), |digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> Result<String, Malformed> {
        host(text).map(|h| h.as_str().to_owned())
    }

    fn of(uri: &str, hosts: &[&str]) -> Result<(String, Option<u16>), Malformed> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        authority_of(&uri.parse().unwrap(), &headers).map(|a| (a.host.into_owned(), a.port))
    }

    #[test]
    fn case_trailing_dot_and_port_are_canonical_cve_2022_23632() {
        for text in [
            "wiki.corp.example",
            "WIKI.Corp.Example",
            "wiki.corp.example.",
            "wiki.corp.example:443",
            "Wiki.corp.example.:8443",
            "wiki.corp.example:",
        ] {
            assert_eq!(canonical(text).as_deref(), Ok("wiki.corp.example"), "{text}");
        }
        assert_eq!(canonical("127.0.0.1:80").as_deref(), Ok("127.0.0.1"));
        assert_eq!(canonical("[2001:DB8:0:0::1]:8443").as_deref(), Ok("[2001:db8::1]"));
        assert_eq!(canonical("127.0.0.1.").as_deref(), Ok("127.0.0.1"));
        assert_eq!(canonical("1a.2b.0xg").as_deref(), Ok("1a.2b.0xg"));
        assert_eq!(canonical("[::1]").as_deref(), Ok("[::1]"));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let long = "a".repeat(64);
        let longer = "a.".repeat(127) + "a";
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            ":80",
            "user@wiki",
            "a b",
            "a,b",
            "a/b",
            "a\\b",
            "a%2eb",
            "a?b",
            "a#b",
            "a:b",
            "a:+80",
            "a:65536",
            "a:80:80",
            "[",
            "[]",
            "[::1",
            "[::1]x",
            "[::1]:x",
            "[fe80::1%25eth0]",
            "[v1.x]",
            "::1",
            "127.1",
            "127.0.0.01",
            "0177.0.0.1",
            "0x7f.0.0.1",
            "0x7f000001",
            "a.0x",
            "2130706433",
            "127.0.0.256",
            "127.0.0.1.2",
            "wiki.5",
            "wiki.0X5.",
            "wörter.example",
            "a\u{0}b",
            "a\tb",
            &long,
            &longer,
        ] {
            assert!(canonical(text).is_err(), "{text:?}");
        }
        assert!(canonical(&"a".repeat(63)).is_ok());
    }

    #[test]
    fn two_hosts_are_refused_even_when_equal() {
        assert!(of("/", &["a", "a"]).is_err());
        assert!(of("/", &["a", "b"]).is_err());
        assert!(of("http://a/", &["a", "a"]).is_err());
        assert!(of("/", &[]).is_err());
        assert!(of("/", &[""]).is_err());
        assert_eq!(of("/", &["A:8443"]), Ok(("a".into(), Some(8443))));
    }

    #[test]
    fn the_target_beats_host_and_must_agree() {
        assert_eq!(of("http://wiki/x", &[]), Ok(("wiki".into(), None)));
        assert_eq!(of("http://wiki/x", &["WIKI.:80"]), Ok(("wiki".into(), None)));
        assert_eq!(of("https://wiki:8443/x", &["wiki:8443"]), Ok(("wiki".into(), Some(8443))));
        assert!(of("http://wiki/x", &["payroll"]).is_err());
        assert!(of("http://wiki:8443/x", &["wiki:8444"]).is_err());
        assert!(of("http://user@wiki/x", &["wiki"]).is_err());
        assert!(of("http://user:pass@wiki/x", &[]).is_err());
        assert!(of("ftp://wiki/x", &["wiki"]).is_err());
    }

    #[test]
    fn a_canonical_name_is_borrowed() {
        assert!(matches!(parse("wiki.corp.example:8443", None).map(|a| a.host), Ok(Cow::Borrowed(_))));
        assert!(parse("wiki", None).is_ok_and(|a| a.is(&host("WIKI.").unwrap())));
    }

    #[test]
    fn what_was_asked_before_changes_no_answer() {
        let hosts = ["wiki", "wiki.corp.example", "127.0.0.1", "[::1]", "w"].map(|text| host(text).unwrap());
        let ends = ["", ".", ":", ":80", ":443", ":8443", ":0", ":65536", ":x", ":+1", ":80:80", "x", "/", "@b", "]", ".:80", " ", "é"];
        for known in &hosts {
            for text in hosts.iter().flat_map(|host| ends.map(|end| format!("{host}{end}"))) {
                assert_eq!(parse(&text, Some(known)), parse(&text, None), "{text} after {known}");
            }
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_is_idempotent(text in "\\PC{0,40}") {
            if let Ok(once) = canonical(&text) {
                prop_assert_eq!(canonical(&once), Ok(once));
            }
        }

        #[test]
        fn hosts_survive(text in "([a-zA-Z0-9_-]{1,20}\\.){0,3}[a-wA-W_-][a-zA-Z0-9_-]{0,20}") {
            prop_assert_eq!(canonical(&text), Ok(text.to_ascii_lowercase()));
        }
    }
}
