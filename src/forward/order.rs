//! What `send` is asked to do, in values that are ready to go on the wire.

use std::cell::{OnceCell, RefCell};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use http::{HeaderName, HeaderValue};

use super::balance::stable_hash;
use super::{Ends, Lanes};
use crate::model::{Effect, Host, address};
use crate::policy::AppId;
use crate::request::Upgrade;

/// One request's delivery.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    pub app: AppId,
    pub host: &'a Host,
    /// As `request::Authority` gives it: `None` for the default ports.
    pub port: Option<u16>,
    /// Canonical. The query is the request's own, untouched.
    pub path: &'a str,
    pub client: &'a Client,
    pub request_id: &'a HeaderValue,
    pub identity: &'a Identity,
    /// `Vestibule-Jwt-Assertion`, for apps that ask for it.
    pub assertion: Option<&'a HeaderValue>,
    pub bounds: &'a Bounds,
    /// What the app is asked to switch to. `None` for nearly all.
    pub upgrade: Option<&'a Upgrade>,
    /// Since when it is under way.
    pub begun: Instant,
}

impl Order<'_> {
    /// Whose requests stay together where servers are chosen by `hash`: the device's, or the peer address' where there is none.
    pub(super) fn key(&self) -> u64 {
        stable_hash(self.identity.device.as_ref().unwrap_or(self.client.peer()).as_bytes())
    }
}

/// What the restrictions on a request come to beyond its permit.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    /// The features that no page may use, as a field's value: `camera=(), microphone=()`.
    pub permissions_policy: Option<HeaderValue>,
    /// When the response is cut: `max_stream` after the request's head.
    pub ends: Option<Instant>,
    pub lanes: Option<Lanes>,
}

impl Bounds {
    /// `None`: no feature is named. Each stands once, however many restrictions name it.
    pub fn permissions<'a>(features: impl IntoIterator<Item = &'a str>) -> Option<HeaderValue> {
        let mut named: Vec<&str> = Vec::new();
        for feature in features {
            if !named.contains(&feature) {
                named.push(feature);
            }
        }
        let members: Vec<String> = named.iter().map(|feature| format!("{feature}=()")).collect();
        HeaderValue::from_str(&members.join(", ")).ok().filter(|value| !value.is_empty())
    }
}

/// What the app is told of the client's connection. Made once per connection.
#[derive(Debug)]
pub struct Client {
    /// Its port is 0 where nobody said.
    source: SocketAddr,
    ends: OnceCell<Ends>,
    peer: HeaderValue,
    proto: HeaderValue,
    /// `for=...;proto=...;host=`, up to the host.
    forwarded: String,
    /// What stands behind the host: `, for=...` for each proxy in front.
    through: Box<str>,
    /// Of the last request's host: browsers stay with one.
    named: RefCell<Option<(Host, Option<u16>, Named)>>,
}

/// The values that depend on the host.
#[derive(Clone, Debug)]
pub(super) struct Named {
    /// With the port, where it is not a default one.
    pub(super) host: HeaderValue,
    pub(super) forwarded: HeaderValue,
}

impl Client {
    /// `peer` and `via`, the proxies that speak for it, from the client to us, are canonical: an IPv4-mapped IPv6 address is IPv4.
    pub fn new(peer: IpAddr, https: bool, via: &[IpAddr]) -> Self {
        let proto = if https { "https" } else { "http" };
        // RFC 7239 section 6: an IPv6 address stands in brackets, and so in quotes.
        let node = |ip: &IpAddr, text: &str| match ip {
            IpAddr::V4(_) => ["for=", text].concat(),
            IpAddr::V6(_) => ["for=\"[", text, "]\""].concat(),
        };
        let (mut chain, mut through) = (address(peer), String::new());
        let forwarded = [&node(&peer, &chain), ";proto=", proto, ";host="].concat();
        for proxy in via {
            let text = address(*proxy);
            chain.extend([", ", &text]);
            through.extend([", ", &node(proxy, &text)]);
        }
        Self {
            source: SocketAddr::new(peer, 0),
            ends: OnceCell::new(),
            peer: value(&chain),
            proto: HeaderValue::from_static(proto),
            forwarded,
            through: through.into(),
            named: RefCell::new(None),
        }
    }

    /// The port of its own end, which costs nothing to know.
    pub fn comes_from(&mut self, port: u16) {
        self.source.set_port(port);
    }

    /// Told once, where an app wants to know of them: of the client's own connection.
    pub fn between(&self, ends: Ends) {
        let _ = self.ends.set(ends);
    }

    /// Whose connection this is. What nobody told, a port or our own address, is zero.
    pub(super) fn ends(&self) -> Ends {
        let source = self.source;
        let unknown = if source.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
        *self.ends.get_or_init(|| Ends { source, destination: SocketAddr::new(unknown, 0) })
    }

    pub(super) fn peer(&self) -> &HeaderValue {
        &self.peer
    }

    pub(super) fn proto(&self) -> &HeaderValue {
        &self.proto
    }

    pub(super) fn named(&self, host: &Host, port: Option<u16>) -> Named {
        let mut last = self.named.borrow_mut();
        if let Some((last_host, last_port, named)) = last.as_ref()
            && last_host == host
            && *last_port == port
        {
            return named.clone();
        }
        let mut text = host.as_str().to_owned();
        if let Some(port) = port {
            let _ = write!(text, ":{port}");
        }
        let quoted = text.contains([':', '[']);
        let quote = if quoted { "\"" } else { "" };
        let forwarded = [&self.forwarded, quote, &text, quote, &self.through].concat();
        let named = Named { host: value(&text), forwarded: value(&forwarded) };
        *last = Some((host.clone(), port, named.clone()));
        named
    }
}

/// The device as the app is told of it. Made once per decision and kept beside it.
#[derive(Clone, Debug)]
pub struct Identity {
    pub(super) device: Option<HeaderValue>,
    pub(super) class: HeaderValue,
    pub(super) tier: HeaderValue,
    pub(super) decision: HeaderValue,
    pub(super) restrictions: Option<HeaderValue>,
    /// `fingerprints` makes them; empty unless the app asks for them.
    pub fingerprints: Vec<(HeaderName, HeaderValue)>,
    /// The device's certificate (RFC 9440); empty unless the app asks for it.
    pub certificate: Vec<(HeaderName, HeaderValue)>,
}

impl Identity {
    pub fn new<'a>(device: Option<&str>, class: &str, tier: &str, effect: Effect, restrictions: impl IntoIterator<Item = &'a str>) -> Self {
        let mut names = String::new();
        for name in restrictions {
            if !names.is_empty() {
                names.push_str(", ");
            }
            names.push_str(name);
        }
        Self {
            device: device.map(value),
            class: value(class),
            tier: value(tier),
            decision: HeaderValue::from_static(effect.as_str()),
            restrictions: (!names.is_empty()).then(|| value(&names)),
            fingerprints: Vec::new(),
            certificate: Vec::new(),
        }
    }
}

/// A field value of any text: what a field may not hold, and `%`, goes as `%XX`. Ids and names come from sources that need not know HTTP.
pub(super) fn value(text: &str) -> HeaderValue {
    let plain = |b: &u8| matches!(b, b' '..=b'~') && *b != b'%';
    let trimmed = !text.starts_with(' ') && !text.ends_with(' ');
    if trimmed && text.as_bytes().iter().fold(true, |all, b| all & plain(b)) {
        return HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        if plain(&byte) && byte != b' ' {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    HeaderValue::try_from(escaped).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::host;

    #[test]
    fn rfc_7239_quotes_what_has_a_colon() {
        let v6 = Client::new("2001:db8::1".parse().unwrap(), true, &[]);
        assert_eq!(v6.named(&host("wiki").unwrap(), None).forwarded, "for=\"[2001:db8::1]\";proto=https;host=wiki");
        let v4 = Client::new("192.0.2.7".parse().unwrap(), false, &[]);
        assert_eq!(v4.named(&host("wiki").unwrap(), Some(8080)).forwarded, "for=192.0.2.7;proto=http;host=\"wiki:8080\"");
        assert_eq!(v4.named(&host("[::1]").unwrap(), None).forwarded, "for=192.0.2.7;proto=http;host=\"[::1]\"");
        assert_eq!(v4.named(&host("wiki").unwrap(), None).host, "wiki");
        let behind = Client::new("192.0.2.7".parse().unwrap(), true, &["10.0.0.2".parse().unwrap(), "2001:db8::9".parse().unwrap()]);
        assert_eq!(behind.peer(), "192.0.2.7, 10.0.0.2, 2001:db8::9");
        let forwarded = behind.named(&host("wiki").unwrap(), None).forwarded;
        assert_eq!(forwarded, "for=192.0.2.7;proto=https;host=wiki, for=10.0.0.2, for=\"[2001:db8::9]\"");
    }

    #[test]
    fn a_device_id_cannot_break_out_of_its_field() {
        let identity = Identity::new(Some("a\r\nVestibule-Tier: trusted"), "class é", " t ", Effect::Restrict, ["a", "b"]);
        assert_eq!(identity.device.unwrap(), "a%0D%0AVestibule-Tier:%20trusted");
        assert_eq!(identity.class, "class%20%C3%A9");
        assert_eq!(identity.tier, "%20t%20");
        assert_eq!(identity.restrictions.unwrap(), "a, b");
        assert_eq!(Identity::new(Some("laptop 1"), "c", "t", Effect::Forward, []).device.unwrap(), "laptop 1");
    }
}
