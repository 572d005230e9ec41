//! Requests that ask to leave HTTP, and answers that agree (RFC 9110 section 7.8, RFC 6455 section 4).

use aws_lc_rs::digest;
use http::header::{CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Version};

const WEBSOCKET: &str = "websocket";

/// What an app is asked to switch to, by one header of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// As the configuration has it, in lower case.
    pub protocol: HeaderValue,
    /// What a WebSocket server answers to the key that the client sent.
    accept: Option<[u8; 28]>,
}

impl Upgrade {
    /// What the request asks for, where that is one of `permitted` and nothing about it is in doubt: one protocol, named by `Connection` too, and no
    /// body, which would be read by whoever is faster. A WebSocket handshake is a GET with one key: by that key the app's answer is known to be one.
    pub fn wished(headers: &HeaderMap, method: &Method, version: Version, permitted: &[String]) -> Option<Self> {
        let mut named = headers.get_all(UPGRADE).iter().filter(|value| !is_h2c(value));
        let (wish, another) = (named.next()?.as_bytes().trim_ascii(), named.next());
        let protocol = permitted.iter().find(|protocol| protocol.as_bytes().eq_ignore_ascii_case(wish))?;
        if another.is_some() || version < Version::HTTP_11 || *method == Method::CONNECT || !lists(headers, &CONNECTION, "upgrade") {
            return None;
        }
        let accept = if protocol == WEBSOCKET {
            let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
            let found = keys.next().filter(|key| is_key(key.as_bytes()))?;
            if keys.next().is_some() || *method != Method::GET {
                return None;
            }
            Some(accept(found.as_bytes()))
        } else {
            None
        };
        Some(Self { protocol: HeaderValue::from_str(protocol).ok()?, accept })
    }

    pub fn is_websocket(&self) -> bool {
        self.accept.is_some()
    }

    /// Whether the fields of an app's 101 say what was asked for and nothing else.
    pub fn is_agreed(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        let mut named = headers.get_all(UPGRADE).iter();
        let ours = named.next().is_some_and(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(self.protocol.as_bytes()));
        if !ours || named.next().is_some() {
            return Err("the app switched to another protocol than was asked for");
        }
        if !lists(headers, &CONNECTION, "upgrade") {
            return Err("the app switched protocols without Connection: upgrade");
        }
        let Some(accept) = &self.accept else { return Ok(()) };
        let mut given = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
        if given.next().is_none_or(|given| given.as_bytes() != accept) || given.next().is_some() {
            return Err("the app's Sec-WebSocket-Accept is not the answer to the key");
        }
        Ok(())
    }
}

/// An offer of nothing but HTTP/2 without TLS.
pub(super) fn is_h2c(value: &HeaderValue) -> bool {
    value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"h2c")
}

fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let mut members = headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    members.any(|member| member.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// 16 bytes in base64.
fn is_key(key: &[u8]) -> bool {
    key.len() == 24 && key.ends_with(b"==") && key.iter().take(22).all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

/// Of random bytes, for a client that has no key of its own: over HTTP/2 it needs none (RFC 8441 section 5).
pub fn key(random: u128) -> HeaderValue {
    HeaderValue::from_bytes(&base64::<24>(&random.to_be_bytes())).unwrap_or(HeaderValue::from_static(""))
}

/// RFC 6455 section 4.2.2.
fn accept(key: &[u8]) -> [u8; 28] {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    base64(hash.finish().as_ref())
}

/// RFC 4648 section 4. `N` is the length of the text.
fn base64<const N: usize>(bytes: &[u8]) -> [u8; N] {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = [b'='; N];
    for (four, three) in text.chunks_mut(4).zip(bytes.chunks(3)) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for (at, digit) in four.iter_mut().enumerate().take(three.len() + 1) {
            let six = bits >> (18 - 6 * at) & 63;
            *digit = usize::try_from(six).ok().and_then(|six| DIGITS.get(six)).copied().unwrap_or(b'=');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).fold(
            HeaderMap::new(),
            |mut map, (name, value)| {
                map.append(name, value);
                map
            },
        )
    }

    fn wished(method: &Method, fields: &[(&'static str, &'static str)]) -> Option<Upgrade> {
        Upgrade::wished(&map(fields), method, Version::HTTP_11, &["websocket".to_owned(), "spdy/3.1".to_owned()])
    }

    #[test]
    fn the_example_of_rfc_6455() {
        assert_eq!(&accept(KEY.as_bytes()), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!((&base64::<4>(b"f"), &base64::<4>(b"fo"), &base64::<4>(b"foo")), (b"Zg==", b"Zm8=", b"Zm9v"));
        assert!(is_key(super::key(u128::MAX).as_bytes()));
        assert_eq!(super::key(0), "AAAAAAAAAAAAAAAAAAAAAA==");
    }

    #[test]
    fn one_protocol_that_is_permitted_and_nothing_in_doubt() {
        let (up, key) = (("connection", "keep-alive, Upgrade"), ("sec-websocket-key", KEY));
        let ws = ("upgrade", "WebSocket");
        assert!(wished(&Method::GET, &[up, ws, key]).is_some_and(|found| found.is_websocket() && found.protocol == "websocket"));
        assert!(wished(&Method::GET, &[up, ("upgrade", "h2c"), ws, key]).is_some(), "an offer of h2c beside it is passed over");
        let spdy = wished(&Method::POST, &[up, ("upgrade", "SPDY/3.1")]).unwrap();
        assert!(!spdy.is_websocket() && spdy.protocol == "spdy/3.1");
        for (method, fields) in [
            (Method::GET, &[ws, key][..]),
            (Method::GET, &[("connection", "upgraded"), ws, key]),
            (Method::POST, &[up, ws, key]),
            (Method::CONNECT, &[up, ws, key]),
            (Method::GET, &[up, ws]),
            (Method::GET, &[up, ws, key, key]),
            (Method::GET, &[up, ws, ("sec-websocket-key", "short")]),
            (Method::GET, &[up, ws, ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ")]),
            (Method::GET, &[up, ws, ws, key]),
            (Method::GET, &[up, ("upgrade", "websocket, spdy/3.1"), key]),
            (Method::GET, &[up, ("upgrade", "h2c, websocket"), key]),
            (Method::GET, &[up, ("upgrade", "websocket2"), key]),
            (Method::GET, &[up, ("upgrade", "")]),
            (Method::GET, &[up, ("upgrade", "h2c")]),
            (Method::GET, &[up]),
        ] {
            assert_eq!(wished(&method, fields), None, "{method} {fields:?}");
        }
        assert_eq!(Upgrade::wished(&map(&[up, ws, key]), &Method::GET, Version::HTTP_10, &["websocket".to_owned()]), None);
        assert_eq!(Upgrade::wished(&map(&[up, ws, key]), &Method::GET, Version::HTTP_11, &[]), None);
    }

    #[test]
    fn an_answer_agrees_to_what_was_asked() {
        let (up, key) = (("connection", "Upgrade"), ("sec-websocket-key", KEY));
        let (ws, accept) = (("upgrade", "websocket"), ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        let asked = wished(&Method::GET, &[up, ws, key]).unwrap();
        assert_eq!(asked.is_agreed(&map(&[up, ("upgrade", "WebSocket"), accept])), Ok(()));
        for bad in [
            &[up, accept][..],
            &[ws, accept],
            &[up, ws],
            &[up, ws, accept, accept],
            &[up, ws, ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOO=")],
            &[up, ("upgrade", "h2c"), accept],
            &[up, ("upgrade", "websocket, h2c"), accept],
            &[up, ws, ws, accept],
        ] {
            assert!(asked.is_agreed(&map(bad)).is_err(), "{bad:?}");
        }
        let other = wished(&Method::GET, &[up, ("upgrade", "spdy/3.1")]).unwrap();
        assert_eq!(other.is_agreed(&map(&[up, ("upgrade", "spdy/3.1")])), Ok(()));
    }
}
