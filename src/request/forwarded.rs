//! What proxies in front say of the client, where they are believed: `X-Forwarded-For` and `-Proto`, `Forwarded` (RFC 7239), and `Client-Cert` with
//! its chain (RFC 9440).
//!
//! What cannot be understood is refused, never passed over: the address that would count in its place is the proxy's own, and rules may well trust that
//! more than anybody who comes through it.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{FORWARDED, HeaderName};
use http::{HeaderMap, HeaderValue};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use smallvec::SmallVec;

use super::Malformed;

static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
static CLIENT_CERT_CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");

/// Proxies on the way from the client to us.
pub type Via = SmallVec<[IpAddr; 2]>;

/// More proxies in a row are a loop.
const HOPS: usize = 32;
/// Elements of a `Forwarded`, those that clients made up included.
const ELEMENTS: usize = 64;
/// Certificates above the device's own.
const CHAIN: usize = 8;

/// The client as those in front name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// Canonical, as all addresses here.
    pub client: IpAddr,
    /// From the client to us: the last is who speaks. Empty when that is the client itself.
    pub via: Via,
    /// Whether the client spoke HTTPS; `None`: nobody said.
    pub https: Option<bool>,
}

/// Who asks, when `peer`, whom `trusted` holds for, speaks for others: the right-most address that is not trusted itself, else the left-most. What stands
/// left of it is of its own making.
///
/// # Errors
/// When the address is not told, or two fields tell two.
pub fn spoken(headers: &HeaderMap, peer: IpAddr, trusted: impl Fn(IpAddr) -> bool) -> Result<Spoken, Malformed> {
    let mut addresses = lines(headers, &FORWARDED_FOR).rev().flat_map(|line| line.rsplit(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let by_for = walk(peer, &trusted, || {
        let text = addresses.find(|text| !text.is_empty())?;
        Some(address(text).ok_or(Malformed("X-Forwarded-For has no address where the proxy in front should have put one")))
    })?;
    let mut elements = elements(headers)?;
    let mut proto = None;
    let by_forwarded = walk(peer, &trusted, || {
        let element = elements.pop()?;
        proto = element.proto;
        Some(element.client.ok_or(Malformed("Forwarded has no address where the proxy in front should have put one")))
    })?;
    let (client, via) = match (by_for, by_forwarded) {
        (Some(one), Some(other)) if one.0 != other.0 => {
            return Err(Malformed("X-Forwarded-For and Forwarded name different clients"));
        }
        (Some(told), _) | (None, Some(told)) => told,
        (None, None) => (peer, Via::new()),
    };
    let https = match (said_proto(headers)?, proto) {
        (Some(one), Some(other)) if one != other => return Err(Malformed("X-Forwarded-Proto and Forwarded disagree")),
        (one, other) => one.or(other),
    };
    Ok(Spoken { client, via, https })
}

/// `next` gives addresses from the right. `None`: there is none.
fn walk(
    peer: IpAddr,
    trusted: impl Fn(IpAddr) -> bool,
    mut next: impl FnMut() -> Option<Result<IpAddr, Malformed>>,
) -> Result<Option<(IpAddr, Via)>, Malformed> {
    let mut via = Via::new();
    let mut last = peer;
    while let Some(address) = next() {
        if via.len() == HOPS {
            return Err(Malformed("the request came through more than 32 proxies"));
        }
        via.push(last);
        last = address?;
        if !trusted(last) {
            break;
        }
    }
    via.reverse();
    Ok((!via.is_empty()).then_some((last, via)))
}

fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl DoubleEndedIterator<Item = &'a [u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes)
}

/// With or without a port, IPv6 with or without brackets: proxies write all of these.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let ip = match text.parse() {
        Ok(ip) => ip,
        Err(_) => node(text)?,
    };
    Some(ip.to_canonical())
}

/// RFC 7239 section 6: an IPv4 address, or an IPv6 address in brackets, and perhaps a port.
fn node(text: &str) -> Option<IpAddr> {
    let (ip, rest) = match text.strip_prefix('[') {
        Some(rest) => {
            let (ip, rest) = rest.split_once(']')?;
            (ip.parse::<Ipv6Addr>().map(IpAddr::V6).ok()?, rest)
        }
        None => {
            let (ip, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            (ip.parse::<Ipv4Addr>().map(IpAddr::V4).ok()?, rest)
        }
    };
    let port = |port: &str| match port.strip_prefix('_') {
        Some(hidden) => !hidden.is_empty() && hidden.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')),
        None => (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit()),
    };
    (rest.is_empty() || rest.strip_prefix(':').is_some_and(port)).then(|| ip.to_canonical())
}

/// `X-Forwarded-Proto`; WebSockets by their own names, as some proxies have it.
fn said_proto(headers: &HeaderMap) -> Result<Option<bool>, Malformed> {
    let mut said = None;
    for text in lines(headers, &FORWARDED_PROTO).flat_map(|line| line.split(|byte| *byte == b',')) {
        let https = scheme(text.trim_ascii()).ok_or(Malformed("X-Forwarded-Proto is not http or https"))?;
        if said.is_some_and(|said| said != https) {
            return Err(Malformed("X-Forwarded-Proto is http and https at once"));
        }
        said = Some(https);
    }
    Ok(said)
}

fn scheme(text: &[u8]) -> Option<bool> {
    let is = |word: &str| text.eq_ignore_ascii_case(word.as_bytes());
    if is("https") || is("wss") { Some(true) } else { (is("http") || is("ws")).then_some(false) }
}

/// What one proxy says of who spoke to it.
#[derive(Debug, Default)]
struct Element {
    /// `None` also where it is hidden: `unknown`, `_secret`.
    client: Option<IpAddr>,
    proto: Option<bool>,
}

/// The elements of all `Forwarded` lines, in order. Read from the left, for a comma may stand in quotes.
fn elements(headers: &HeaderMap) -> Result<Vec<Element>, Malformed> {
    const WRONG: Malformed = Malformed("Forwarded is not well formed");
    let mut all = Vec::new();
    for line in lines(headers, &FORWARDED) {
        let mut rest = line;
        loop {
            let (element, end) = element(rest).ok_or(WRONG)?;
            all.extend(element);
            if all.len() > ELEMENTS {
                return Err(Malformed("Forwarded has more than 64 elements"));
            }
            match end.split_first() {
                Some((b',', behind)) => rest = behind,
                Some(_) => return Err(WRONG),
                None => break,
            }
        }
    }
    Ok(all)
}

/// One element and what stands behind it; no element where a list has an empty one.
fn element(mut rest: &[u8]) -> Option<(Option<Element>, &[u8])> {
    let mut element: Option<Element> = None;
    let (mut client, mut proto) = (false, false);
    loop {
        rest = rest.trim_ascii_start();
        if !matches!(rest.first(), None | Some(b',' | b';')) {
            let (name, behind) = token(rest)?;
            let (value, behind) = value(behind.strip_prefix(b"=")?)?;
            rest = behind.trim_ascii_start();
            let element = element.get_or_insert_default();
            if name.eq_ignore_ascii_case(b"for") {
                element.client = node(std::str::from_utf8(&value).ok()?);
                // Each stands once in an element (RFC 7239 section 4).
                if std::mem::replace(&mut client, true) {
                    return None;
                }
            } else if name.eq_ignore_ascii_case(b"proto") {
                element.proto = Some(scheme(&value)?);
                if std::mem::replace(&mut proto, true) {
                    return None;
                }
            }
        }
        match rest.split_first() {
            Some((b';', behind)) => rest = behind,
            _ => return Some((element, rest)),
        }
    }
}

/// RFC 9110 section 5.6.2.
fn token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let end = text.iter().position(|byte| !is_tchar(byte)).unwrap_or(text.len());
    text.split_at_checked(end).filter(|(token, _)| !token.is_empty())
}

/// A token, or a quoted string (RFC 9110 section 5.6.4).
fn value(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let Some(mut rest) = text.strip_prefix(b"\"") else {
        return token(text).map(|(token, rest)| (Cow::Borrowed(token), rest));
    };
    let mut value = Vec::new();
    loop {
        rest = match rest.split_first()? {
            (b'"', rest) => return Some((Cow::Owned(value), rest)),
            (b'\\', rest) => {
                let (byte, rest) = rest.split_first()?;
                value.push(*byte);
                rest
            }
            (byte, rest) => {
                value.push(*byte);
                rest
            }
        };
    }
}

/// RFC 8941 section 4.2.7: padding may be missing, and what is left of the last byte is nobody's.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent).with_decode_allow_trailing_bits(true),
);

/// The certificates that a proxy in front says the client presented, end entity first, as DER; none where there is no `Client-Cert`, or an empty one, as a
/// proxy sends it that knows no condition.
///
/// # Errors
/// When a field is not what RFC 9440 has, or there are several.
pub fn client_cert(headers: &HeaderMap) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut values = lines(headers, &CLIENT_CERT);
    let Some(value) = values.next() else { return Ok(Vec::new()) };
    if values.next().is_some() {
        return Err(Malformed("there are several Client-Cert fields"));
    }
    let value = value.trim_ascii();
    if matches!(value, b"" | b"::") {
        return Ok(Vec::new());
    }
    let leaf = bytes(value).or_else(|| escaped_pem(value));
    let mut chain = vec![leaf.ok_or(Malformed("Client-Cert is not a byte sequence (RFC 9440)"))?];
    for value in lines(headers, &CLIENT_CERT_CHAIN).flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii) {
        if chain.len() > CHAIN {
            return Err(Malformed("Client-Cert-Chain has more than 8 certificates"));
        }
        chain.push(bytes(value).ok_or(Malformed("Client-Cert-Chain is not a list of byte sequences (RFC 9440)"))?);
    }
    Ok(chain)
}

/// RFC 8941 section 3.3.5.
fn bytes(value: &[u8]) -> Option<Vec<u8>> {
    let text = value.strip_prefix(b":")?.strip_suffix(b":")?;
    BASE64.decode(text).ok().filter(|bytes| !bytes.is_empty())
}

/// A certificate in PEM with escapes, which is all that nginx can make of one (`$ssl_client_escaped_cert`). No byte sequence begins so.
fn escaped_pem(value: &[u8]) -> Option<Vec<u8>> {
    let mut rest = value.strip_prefix(b"-----BEGIN%20CERTIFICATE-----")?;
    let mut pem = b"-----BEGIN CERTIFICATE-----".to_vec();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        pem.push(match byte {
            b'%' => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                u8::from_str_radix(std::str::from_utf8(digits).ok().filter(|digits| !digits.contains('+'))?, 16).ok()?
            }
            plain => plain,
        });
    }
    let pem = pem.trim_ascii_end();
    let one = memchr::memmem::find_iter(pem, b"-----BEGIN").count() == 1 && pem.ends_with(b"-----END CERTIFICATE-----");
    CertificateDer::from_pem_slice(pem).ok().filter(|_| one).map(|certificate| certificate.to_vec())
}

/// The same two fields for an app, of a chain with the end entity first.
pub fn client_cert_fields(chain: &[impl AsRef<[u8]>]) -> Vec<(HeaderName, HeaderValue)> {
    let Some((leaf, above)) = chain.split_first() else { return Vec::new() };
    let item = |certificate: &[u8]| format!(":{}:", BASE64.encode(certificate));
    let list = above.iter().map(|certificate| item(certificate.as_ref())).collect::<Vec<_>>().join(", ");
    let fields = [(&CLIENT_CERT, item(leaf.as_ref())), (&CLIENT_CERT_CHAIN, list)];
    let some = fields.into_iter().filter(|(_, text)| !text.is_empty());
    some.filter_map(|(name, text)| Some((name.clone(), HeaderValue::try_from(text).ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// 10.0.0.0/8 is trusted, and 10.0.0.1 speaks.
    fn told(fields: &[(&str, &str)]) -> Result<Spoken, Malformed> {
        let trusted = |ip: IpAddr| matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 10);
        spoken(&map(fields), ip("10.0.0.1"), trusted)
    }

    fn client(fields: &[(&str, &str)]) -> String {
        let said = told(fields).unwrap_or_else(|error| panic!("{error}: {fields:?}"));
        let via: Vec<String> = said.via.iter().map(ToString::to_string).collect();
        format!("{} {}", said.client, via.join(","))
    }

    #[test]
    fn the_client_is_the_right_most_that_is_not_trusted() {
        let xff = |text| client(&[("x-forwarded-for", text)]);
        assert_eq!(xff("192.0.2.7"), "192.0.2.7 10.0.0.1");
        assert_eq!(xff("192.0.2.7, 10.0.0.2"), "192.0.2.7 10.0.0.2,10.0.0.1");
        assert_eq!(xff("6.6.6.6, 192.0.2.7,10.0.0.2"), "192.0.2.7 10.0.0.2,10.0.0.1");
        assert_eq!(xff("nonsense \u{e9}, 10.9.9.9, 192.0.2.7"), "192.0.2.7 10.0.0.1");
        assert_eq!(xff("10.0.0.9, 10.0.0.2"), "10.0.0.9 10.0.0.2,10.0.0.1", "all are trusted");
        assert_eq!(xff("192.0.2.7:4711"), "192.0.2.7 10.0.0.1");
        assert_eq!(xff("[2001:db8::7]:4711"), "2001:db8::7 10.0.0.1");
        assert_eq!(xff("2001:db8::7"), "2001:db8::7 10.0.0.1");
        assert_eq!(xff("::ffff:192.0.2.7, ::ffff:10.0.0.2"), "192.0.2.7 10.0.0.2,10.0.0.1");
        assert_eq!(xff(", 192.0.2.7 ,, "), "192.0.2.7 10.0.0.1");
        assert_eq!(client(&[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "192.0.2.7")]), "192.0.2.7 10.0.0.1");
        for nobody in
            [&[][..], &[("x-forwarded-for", "")], &[("forwarded", "")], &[("x-real-ip", "6.6.6.6"), ("x_forwarded_for", "6.6.6.6")]]
        {
            assert_eq!(client(nobody), "10.0.0.1 ");
        }
    }

    #[test]
    fn the_same_by_rfc_7239() {
        let forwarded = |text| client(&[("forwarded", text)]);
        assert_eq!(forwarded("for=192.0.2.7"), "192.0.2.7 10.0.0.1");
        assert_eq!(forwarded("For=\"192.0.2.7:4711\";Proto=https;by=_x;host=\"a, b\""), "192.0.2.7 10.0.0.1");
        assert_eq!(forwarded("for=\"[2001:db8::7]:_p\""), "2001:db8::7 10.0.0.1");
        assert_eq!(forwarded("for=\"19\\2.0.2.7\""), "192.0.2.7 10.0.0.1");
        assert_eq!(forwarded("for=\"[::ffff:192.0.2.7]\", for=\"[::ffff:10.0.0.2]:443\""), "192.0.2.7 10.0.0.2,10.0.0.1");
        assert_eq!(client(&[("forwarded", &["for=192.0.2.7"; ELEMENTS].join(","))]), "192.0.2.7 10.0.0.1");
        assert_eq!(forwarded("for=6.6.6.6, for=unknown, for=192.0.2.7;;, ,for=10.0.0.2"), "192.0.2.7 10.0.0.2,10.0.0.1");
        assert_eq!(client(&[("forwarded", "for=_a"), ("forwarded", "for=192.0.2.7")]), "192.0.2.7 10.0.0.1");
        assert_eq!(client(&[("forwarded", "for=192.0.2.7"), ("x-forwarded-for", "1.1.1.1, 192.0.2.7")]), "192.0.2.7 10.0.0.1");
    }

    #[test]
    fn who_hides_or_contradicts_himself_is_refused() {
        for fields in [
            &[("x-forwarded-for", "unknown")][..],
            &[("x-forwarded-for", "192.0.2.7, unknown")],
            &[("x-forwarded-for", "192.0.2.7, nonsense, 10.0.0.2")],
            &[("x-forwarded-for", "192.0.2.7:")],
            &[("x-forwarded-for", "192.0.2.7:x")],
            &[("x-forwarded-for", "[192.0.2.7]")],
            &[("x-forwarded-for", "192.0.2.07")],
            &[("x-forwarded-for", "fe80::1%eth0")],
            &[("x-forwarded-for", "\u{e9}")],
            &[("x-forwarded-for", &["10.0.0.2"; 33].join(","))],
            &[("forwarded", "for=unknown")],
            &[("forwarded", "for=_secret")],
            &[("forwarded", "proto=https")],
            &[("forwarded", "for=192.0.2.7, for=\"_x\", for=10.0.0.2")],
            &[("forwarded", "for=192.0.2.7;for=6.6.6.6")],
            &[("forwarded", "for=192.0.2.7;proto=http;proto=https")],
            &[("forwarded", "for=192.0.2.7;proto=gopher")],
            &[("forwarded", "for=2001:db8::7")],
            &[("forwarded", "for=\"2001:db8::7\"")],
            &[("forwarded", "for=\"192.0.2.7")],
            &[("forwarded", "for=\"192.0.2.7\\")],
            &[("forwarded", "for = 192.0.2.7")],
            &[("forwarded", "for")],
            &[("forwarded", "192.0.2.7")],
            &[("forwarded", "for=\"192.0.2.7\"x")],
            &[("forwarded", &["for=192.0.2.7"; ELEMENTS + 1].join(","))],
            &[("forwarded", "for=192.0.2.7"), ("x-forwarded-for", "192.0.2.8")],
            &[("x-forwarded-proto", "gopher")],
            &[("x-forwarded-proto", "")],
            &[("x-forwarded-proto", "http, https")],
            &[("x-forwarded-proto", "http"), ("x-forwarded-proto", "https")],
            &[("x-forwarded-proto", "http"), ("forwarded", "for=192.0.2.7;proto=https")],
        ] {
            assert!(told(fields).is_err(), "{fields:?}: {:?}", told(fields));
        }
    }

    #[test]
    fn the_protocol_is_what_the_clients_proxy_says() {
        let https = |fields: &[(&str, &str)]| told(fields).unwrap().https;
        assert_eq!(https(&[]), None);
        assert_eq!(https(&[("x-forwarded-proto", "HTTPS")]), Some(true));
        assert_eq!(https(&[("x-forwarded-proto", "wss, https")]), Some(true));
        assert_eq!(https(&[("x-forwarded-proto", "http")]), Some(false));
        // Of the client's own element, not of those of proxies behind it or of what it made up.
        assert_eq!(https(&[("forwarded", "for=6.6.6.6;proto=https, for=192.0.2.7;proto=http, for=10.0.0.2;proto=https")]), Some(false));
        assert_eq!(https(&[("forwarded", "for=6.6.6.6;proto=https, for=192.0.2.7, for=10.0.0.2;proto=https")]), None);
    }

    #[test]
    fn certificates_by_rfc_9440() {
        let read = |fields: &[(&str, &str)]| client_cert(&map(fields));
        assert_eq!(read(&[]), Ok(vec![]));
        assert_eq!(read(&[("client-cert", "::")]), Ok(vec![]));
        assert_eq!(read(&[("client-cert", " ")]), Ok(vec![]));
        assert_eq!(read(&[("client-cert-chain", ":aGk=:")]), Ok(vec![]), "a chain of nobody");
        assert_eq!(read(&[("client-cert", ":aGk=:")]), Ok(vec![b"hi".to_vec()]));
        let nginx = "-----BEGIN%20CERTIFICATE-----%0AaGk%3D%0A-----END%20CERTIFICATE-----%0A";
        assert_eq!(read(&[("client-cert", nginx)]), Ok(vec![b"hi".to_vec()]));
        for len in 1..nginx.len() - 3 {
            assert!(read(&[("client-cert", &nginx[..len])]).is_err(), "{}", &nginx[..len]);
        }
        for (from, to) in [
            ("aGk%3D", "aGk%3"),
            ("aGk%3D", "a%2Gk"),
            ("aGk%3D", "%+1"),
            ("%0AaGk", "%+AaGk"),
            ("%0A-----END", "%0A-----BEGIN%20CERTIFICATE-----%0A-----END"),
        ] {
            assert!(read(&[("client-cert", &nginx.replace(from, to))]).is_err(), "{to}");
        }
        assert_eq!(read(&[("client-cert", ":aGk:")]), Ok(vec![b"hi".to_vec()]), "without padding");
        let whole = [("client-cert", ":aGk=:"), ("client-cert-chain", ":YQ==:, :Yg==:"), ("client-cert-chain", ":Yw==:")];
        assert_eq!(read(&whole), Ok(vec![b"hi".to_vec(), b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]));
        assert_eq!(read(&[("client_cert", ":aGk=:")]), Ok(vec![]), "another field");
        let long = [":YQ==:"; 9].join(",");
        for wrong in [
            &[("client-cert", "aGk=")][..],
            &[("client-cert", ":aGk=")],
            &[("client-cert", ":a*k=:")],
            &[("client-cert", ":aGk=:;a=1")],
            &[("client-cert", ":aGk=:, :aGk=:")],
            &[("client-cert", "-----BEGIN%20CERTIFICATE-----")],
            &[("client-cert", ":")],
            &[("client-cert", ":aGk=:"), ("client-cert", ":aGk=:")],
            &[("client-cert", ":aGk=:"), ("client-cert-chain", "")],
            &[("client-cert", ":aGk=:"), ("client-cert-chain", ":YQ==:,")],
            &[("client-cert", ":aGk=:"), ("client-cert-chain", "::")],
            &[("client-cert", ":aGk=:"), ("client-cert-chain", &long)],
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_told_an_app_reads_back() {
        let chain = [vec![0u8, 255, 62, 63], b"above".to_vec(), b"root".to_vec()];
        for length in 0..=3 {
            let fields: HeaderMap = client_cert_fields(&chain[..length]).into_iter().collect();
            assert_eq!(client_cert(&fields).unwrap(), chain[..length]);
        }
        assert_eq!(client_cert_fields(&chain[..1]).len(), 1);
    }

    proptest! {
        #[test]
        fn any_text(a in "[ -~]{0,60}", b in "[for=10.2;,\" _\\\\:\\[\\]]{0,60}") {
            for fields in [[("x-forwarded-for", a.as_str()), ("forwarded", b.as_str())], [("forwarded", a.as_str()), ("x-forwarded-for", b.as_str())]] {
                if let Ok(said) = told(&fields) {
                    prop_assert_eq!(said.client, said.client.to_canonical());
                    prop_assert!(said.via.len() <= HOPS);
                }
            }
        }
    }
}
