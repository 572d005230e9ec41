//! The head of a request as the app shall see it, and the head of a response as the client shall.

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, COOKIE, EXPIRES, FORWARDED,
    HOST, HeaderName, LOCATION, PRAGMA, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version, request, response, uri};

use super::failure::{Broken, Failure};
use super::upload::RequestBody;
use super::{Identity, Order, cookies};
use crate::record::{header, hex};
use crate::request::{Upgrade, hop};

static DEVICE_ID: HeaderName = HeaderName::from_static("vestibule-device-id");
static DEVICE_CLASS: HeaderName = HeaderName::from_static("vestibule-device-class");
static TIER: HeaderName = HeaderName::from_static("vestibule-tier");
static DECISION: HeaderName = HeaderName::from_static("vestibule-decision");
static RESTRICTIONS: HeaderName = HeaderName::from_static("vestibule-restrictions");
pub(super) static ASSERTION: HeaderName = HeaderName::from_static("vestibule-jwt-assertion");
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// As many fields as `toward_app` sets at most, fingerprints and certificates left out.
const OURS: usize = 14;

/// Rewrites a request's head in place. `length` is the body's, `None` when only its end will tell. `host` is the Host that the app receives,
/// `None` for the client's own in canonical form.
///
/// The order matters: removal by what `Connection` names, then of our fields, then ours are set, so that none of ours is ever named onwards.
pub(super) fn toward_app(head: &mut request::Parts, order: &Order<'_>, host: Option<&HeaderValue>, length: Option<u64>) {
    head.version = Version::HTTP_11;
    head.uri = target(std::mem::take(&mut head.uri), order.path);
    head.extensions.clear();

    let headers = &mut head.headers;
    // Grows once, not several times.
    headers.reserve(OURS + order.identity.fingerprints.len() + order.identity.certificate.len());
    let (mut framed, mut cookies, mut traced) = (false, false, false);
    hop::strip_request(headers, |name| {
        framed |= *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING;
        cookies |= *name == COOKIE;
        traced |= *name == TRACEPARENT || *name == TRACESTATE;
    });
    frame(headers, &head.method, length, framed);
    if cookies {
        cookies::strip_ours(headers);
        join_cookies(headers);
    }
    if traced {
        trace(headers, order.request_id);
    } else {
        headers.insert(&TRACEPARENT, made_traceparent(order.request_id));
    }

    let named = order.client.named(order.host, order.port);
    headers.insert(HOST, host.unwrap_or(&named.host).clone());
    headers.insert(&FORWARDED_HOST, named.host);
    headers.insert(FORWARDED, named.forwarded);
    headers.insert(&FORWARDED_FOR, order.client.peer().clone());
    headers.insert(&FORWARDED_PROTO, order.client.proto().clone());
    headers.insert(&REQUEST_ID, order.request_id.clone());
    tell(order.identity, order.assertion, headers);
    if let Some(upgrade) = order.upgrade {
        switch(headers, upgrade);
    }
}

/// What an app is told of the device, for a proxy that carries the request itself. Each name is there, empty where there is nothing to say: a proxy that
/// copies what it gets replaces what the client sent.
pub fn told(identity: &Identity, assertion: Option<&HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(OURS);
    for name in [&DEVICE_ID, &RESTRICTIONS, &ASSERTION] {
        headers.insert(name, HeaderValue::from_static(""));
    }
    tell(identity, assertion, &mut headers);
    headers
}

fn tell(identity: &Identity, assertion: Option<&HeaderValue>, headers: &mut HeaderMap) {
    if let Some(device) = &identity.device {
        headers.insert(&DEVICE_ID, device.clone());
    }
    headers.insert(&DEVICE_CLASS, identity.class.clone());
    headers.insert(&TIER, identity.tier.clone());
    headers.insert(&DECISION, identity.decision.clone());
    if let Some(restrictions) = &identity.restrictions {
        headers.insert(&RESTRICTIONS, restrictions.clone());
    }
    if let Some(assertion) = assertion {
        headers.insert(&ASSERTION, assertion.clone());
    }
    for (name, value) in identity.fingerprints.iter().chain(&identity.certificate) {
        headers.insert(name, value.clone());
    }
}

/// Our own fields, in place of those that ended here.
fn switch(headers: &mut HeaderMap, upgrade: &Upgrade) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, upgrade.protocol.clone());
}

/// The head as HTTP/2 has it: what `toward_app` made, less the fields that are of HTTP/1.1's connection alone (RFC 9113 section 8.2.2). `secure`: by
/// TLS to the app. `None`: the Host that the operator named cannot be an authority.
pub(super) fn over_http2(request: &Request<RequestBody>, secure: bool) -> Option<Request<()>> {
    let mut headers = request.headers().clone();
    let host = headers.remove(HOST)?;
    for name in [&TRANSFER_ENCODING, &CONNECTION, &UPGRADE, &TRAILER] {
        headers.remove(name);
    }
    // We take them, and pass them on where the client's protocol has them; gRPC insists.
    headers.insert(TE, HeaderValue::from_static("trailers"));
    let mut target = request.uri().clone().into_parts();
    target.scheme = Some(if secure { uri::Scheme::HTTPS } else { uri::Scheme::HTTP });
    target.authority = Some(uri::Authority::try_from(host.as_bytes()).ok()?);
    let mut made = Request::new(());
    *made.method_mut() = request.method().clone();
    *made.uri_mut() = Uri::from_parts(target).ok()?;
    *made.version_mut() = Version::HTTP_2;
    *made.headers_mut() = headers;
    Some(made)
}

/// The names of a request's trailers that may pass, for an app that is told of them: over HTTP/1.1 no others are sent.
pub(super) fn announced(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut named = HeaderMap::new();
    for name in headers.get_all(&TRAILER).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
        if let Ok(name) = HeaderName::from_bytes(name.trim_ascii()) {
            named.insert(name, HeaderValue::from_static(""));
        }
    }
    request_trailers(&mut named);
    let names: Vec<&str> = named.keys().map(HeaderName::as_str).collect();
    HeaderValue::try_from(names.join(", ")).ok().filter(|value| !value.is_empty())
}

/// A client's trailers, where the app takes them: nothing of framing, and nothing that only we may say.
pub(super) fn request_trailers(trailers: &mut HeaderMap) {
    hop::strip_request(trailers, |_| {});
    self::trailers(trailers);
    trailers.remove(&TRACEPARENT);
    trailers.remove(&TRACESTATE);
}

/// Removes from trailers what only a head may say (RFC 9110 section 6.5.1): framing, routing, cookies, how to read the body.
pub(super) fn trailers(trailers: &mut HeaderMap) {
    for name in [
        &CONNECTION,
        &CONTENT_LENGTH,
        &TRANSFER_ENCODING,
        &TE,
        &TRAILER,
        &UPGRADE,
        &HOST,
        &COOKIE,
        &SET_COOKIE,
        &AUTHORIZATION,
        &CONTENT_ENCODING,
        &CONTENT_TYPE,
        &CONTENT_RANGE,
        &CACHE_CONTROL,
        &LOCATION,
    ] {
        trailers.remove(name);
    }
}

/// Origin-form with the canonical path, which is the request's own in nearly all cases.
fn target(uri: Uri, path: &str) -> Uri {
    let parts = uri.into_parts();
    let own = parts.path_and_query;
    // An empty one calls itself `/` as well, and would be written as nothing.
    if own.as_ref().is_none_or(|own| own.as_str() == "/") && path == "/" {
        return Uri::default();
    }
    if let Some(own) = own.as_ref().filter(|own| own.path() == path) {
        return Uri::from(own.clone());
    }
    let query = own.as_ref().and_then(uri::PathAndQuery::query);
    let text = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    // A canonical path and a query that was in a target already always parse.
    uri::PathAndQuery::from_maybe_shared(bytes::Bytes::from(text)).map(Uri::from).unwrap_or_default()
}

/// Frames anew: what the client said of its framing (`said`: whether it did) never passes on.
fn frame(headers: &mut HeaderMap, method: &Method, length: Option<u64>, said: bool) {
    let had = said && {
        headers.remove(TRANSFER_ENCODING);
        headers.remove(CONTENT_LENGTH).is_some()
    };
    match length {
        None => {
            // Said here, for hyper takes a GET without a length to have no body at all, and the body would be lost.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        Some(0) => {
            // RFC 9110 section 8.6: a method that anticipates content says that there is none; some apps answer 411 otherwise.
            if had || matches!(*method, Method::POST | Method::PUT | Method::PATCH) {
                headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
        }
        Some(length) => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
    }
}

/// RFC 9113 section 8.2.3: HTTP/2 may split a Cookie in crumbs; HTTP/1.1 has one field.
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let mut whole = Vec::new();
    for crumb in headers.get_all(COOKIE) {
        if !whole.is_empty() {
            whole.extend_from_slice(b"; ");
        }
        whole.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(whole) = HeaderValue::from_maybe_shared(bytes::Bytes::from(whole)) {
        headers.insert(COOKIE, whole);
    }
}

/// W3C Trace Context: passed on when well formed, made when not; a state only beside the parent that it belongs to.
fn trace(headers: &mut HeaderMap, request_id: &HeaderValue) {
    let mut parents = headers.get_all(&TRACEPARENT).iter();
    let sound = parents.next().is_some_and(|parent| is_traceparent(parent.as_bytes())) && parents.next().is_none();
    if !sound {
        headers.insert(&TRACEPARENT, made_traceparent(request_id));
        headers.remove(&TRACESTATE);
    } else if headers.contains_key(&TRACESTATE) && !is_tracestate(headers) {
        headers.remove(&TRACESTATE);
    }
}

fn is_traceparent(text: &[u8]) -> bool {
    let zero = |part: &[u8]| part.iter().all(|b| *b == b'0');
    let (Some(version), Some(trace), Some(parent), Some(flags)) = (text.get(..2), text.get(3..35), text.get(36..52), text.get(53..55))
    else {
        return false;
    };
    let dashes = [2, 35, 52].iter().all(|at| text.get(*at) == Some(&b'-'));
    // A later version may say more behind another dash; version 00 may not, and ff is forbidden.
    let ends = match text.get(55) {
        None => true,
        Some(next) => *next == b'-' && version != b"00",
    };
    dashes
        && ends
        && is_hex(version)
        && version != b"ff"
        && is_hex(trace)
        && !zero(trace)
        && is_hex(parent)
        && !zero(parent)
        && is_hex(flags)
}

fn is_hex(text: &[u8]) -> bool {
    text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The trace is named as the request is, so that either leads to the other.
fn made_traceparent(request_id: &HeaderValue) -> HeaderValue {
    // Not sampled: nobody before the app recorded anything. Ids must not be zero.
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    if let Some(trace) = text.get_mut(3..35) {
        let id = request_id.as_bytes();
        match <[u8; 32]>::try_from(id).ok().filter(is_trace_id) {
            Some(id) => trace.copy_from_slice(&id),
            // One that a proxy in front gave need not be of our kind.
            None => trace.chunks_exact_mut(16).for_each(|half| half.copy_from_slice(&hex(fastrand::u64(1..)))),
        }
    }
    if let Some(parent) = text.get_mut(36..52) {
        parent.copy_from_slice(&hex(fastrand::u64(1..)));
    }
    header(text)
}

/// Thirty-two hex digits in lower case that are not all zero. Of every request: folded rather than searched, so that it takes a few steps for all.
fn is_trace_id(id: &[u8; 32]) -> bool {
    let (hex, some) = id.iter().fold((true, 0), |(hex, some), b| (hex & matches!(b, b'0'..=b'9' | b'a'..=b'f'), some | (b ^ b'0')));
    hex && some != 0
}

fn is_tracestate(headers: &HeaderMap) -> bool {
    let mut members = 0;
    let mut size = 0;
    for value in headers.get_all(&TRACESTATE) {
        size += value.len();
        for member in value.as_bytes().split(|b| *b == b',') {
            let member = member.trim_ascii();
            if member.is_empty() {
                continue;
            }
            members += 1;
            let key = member.split(|b| *b == b'=').next().unwrap_or_default();
            let key_sound = key.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@'));
            if key.is_empty() || key.len() >= member.len() - 1 || !key_sound || !member.iter().all(|b| matches!(b, b' '..=b'~')) {
                return false;
            }
        }
    }
    members <= 32 && size <= 2048
}

/// Makes a response's head fit to pass on, or says why it may not: its framing could be read in two ways.
pub(super) fn toward_client(head: &mut response::Parts, no_store: bool, upgrade: Option<&Upgrade>) -> Result<(), Failure> {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return toward_tunnel(&mut head.headers, upgrade).map_err(|why| Failure::Broken(Broken::Framing(why)));
    }
    let headers = &mut head.headers;
    sound(headers).map_err(|why| Failure::Broken(Broken::Framing(why)))?;
    hop::strip_response(headers);
    if no_store {
        headers.remove(EXPIRES);
        headers.remove(PRAGMA);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    Ok(())
}

/// A tunnel that nobody asked for would carry bytes that no policy saw.
fn toward_tunnel(headers: &mut HeaderMap, upgrade: Option<&Upgrade>) -> Result<(), &'static str> {
    let upgrade = upgrade.ok_or("the app switched protocols unasked")?;
    upgrade.is_agreed(headers)?;
    hop::strip_response(headers);
    // RFC 9110 section 8.6: no 1xx has one.
    headers.remove(CONTENT_LENGTH);
    switch(headers, upgrade);
    Ok(())
}

fn sound(headers: &mut HeaderMap) -> Result<(), &'static str> {
    let (mut length, mut coding) = (None::<&HeaderValue>, None);
    let mut repeated = false;
    for (name, value) in &*headers {
        if *name == CONTENT_LENGTH {
            repeated |= length.is_some();
            if length.is_some_and(|length| length != value) {
                return Err("the app sent different Content-Length fields");
            }
            length = Some(value);
        } else if *name == TRANSFER_ENCODING && (coding.replace(value).is_some() || !value.as_bytes().eq_ignore_ascii_case(b"chunked")) {
            return Err("the app sent a Transfer-Encoding that is not a single chunked");
        }
    }
    if length.is_some() && coding.is_some() {
        return Err("the app sent both Content-Length and Transfer-Encoding");
    }
    match length.cloned() {
        Some(length) if !length.as_bytes().iter().all(u8::is_ascii_digit) => Err("the app sent a Content-Length that is not a number"),
        Some(length) if repeated => {
            headers.insert(CONTENT_LENGTH, length);
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0190c3a1b2c34d5e8f90a1b2c3d4e5f6";

    /// hyper would drop one of two by itself; over HTTP/2 nobody would.
    #[test]
    fn whatever_a_client_said_of_its_framing_one_is_left() {
        for said in [&[(CONTENT_LENGTH, "0")][..], &[(CONTENT_LENGTH, "7"), (CONTENT_LENGTH, "7")], &[(TRANSFER_ENCODING, "chunked")]] {
            for (length, left) in [(None, ("", "chunked")), (Some(0), ("0", "")), (Some(5), ("5", ""))] {
                let mut headers = HeaderMap::new();
                for (name, value) in said {
                    headers.append(name, HeaderValue::from_static(value));
                }
                frame(&mut headers, &Method::POST, length, true);
                let all = |name| headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>().join(" and ");
                assert_eq!((&*all(CONTENT_LENGTH), &*all(TRANSFER_ENCODING)), left, "{said:?} {length:?}");
            }
        }
    }

    #[test]
    fn traceparents() {
        for good in
            ["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"]
        {
            assert!(is_traceparent(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(!is_traceparent(bad.as_bytes()), "{bad}");
        }
        let id = HeaderValue::from_static(ID);
        let (one, two) = (made_traceparent(&id), made_traceparent(&id));
        assert!(is_traceparent(one.as_bytes()) && one != two, "{one:?}");
        assert!(one.to_str().unwrap().contains(ID));
        for foreign in ["", "lb-17", "00000000000000000000000000000000", "0190C3A1B2C34D5E8F90A1B2C3D4E5F6"] {
            assert!(is_traceparent(made_traceparent(&HeaderValue::from_static(foreign)).as_bytes()), "{foreign}");
        }
    }

    #[test]
    fn a_trace_state_needs_its_parent() {
        let traced = |parent: &'static str, state: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(&TRACEPARENT, HeaderValue::from_static(parent));
            headers.insert(&TRACESTATE, HeaderValue::from_static(state));
            trace(&mut headers, &HeaderValue::from_static(ID));
            (headers.get(&TRACEPARENT) == Some(&HeaderValue::from_static(parent)), headers.contains_key(&TRACESTATE))
        };
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(traced(parent, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"), (true, true));
        assert_eq!(traced("junk", "rojo=1"), (false, false));
        assert_eq!(traced(parent, "rojo"), (true, false));
        assert_eq!(traced(parent, "=x"), (true, false));
    }

    #[test]
    fn the_query_is_untouched() {
        let uri: Uri = "http://wiki/%61/b?q=%61&x=/../".parse().unwrap();
        assert_eq!(target(uri.clone(), "/a/b"), "/a/b?q=%61&x=/../");
        assert_eq!(target(uri, "/%61/b"), "/%61/b?q=%61&x=/../");
        assert_eq!(target("http://wiki".parse().unwrap(), "/"), "/");
        assert_eq!(target("//x//y".parse().unwrap(), "/x/y"), "/x/y");
    }
}
