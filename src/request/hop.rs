//! Fields that end at this hop, and fields that only we may set (RFC 9110 section 7.6.1).

use http::header::{CONNECTION, HeaderName, TE, UPGRADE};
use http::{HeaderMap, Method};
use smallvec::SmallVec;

use super::upgrade::is_h2c;

/// Whether a request asks to leave HTTP as we speak it: CONNECT, or an `Upgrade`, whatever `Connection` says of it. An offer of nothing but
/// HTTP/2 without TLS (`curl --http2` makes one) is no such wish: it is passed over and stripped, as RFC 9113 section 3.1 has it.
pub fn wants_upgrade(headers: &HeaderMap, method: &Method) -> bool {
    *method == Method::CONNECT || headers.iter().any(|(name, value)| *name == UPGRADE && !is_h2c(value))
}

/// Removes from a request what `Connection` and `TE` name, the hop-by-hop fields, and every spelling of the fields that only we may set or that
/// make an app see another request than the policy saw. Framing fields go too when misspelt; the proper ones are the forwarder's to rewrite.
///
/// Must run before our own fields are set: else a client strips them by naming them in `Connection` (CVE-2024-45410).
///
/// `see` gets every name on the way, also of fields that go.
pub fn strip_request(headers: &mut HeaderMap, mut see: impl FnMut(&HeaderName)) {
    strip(headers, |name| {
        see(name);
        ends_here(name.as_str()) || is_ours(name.as_str())
    });
}

/// Removes the hop-by-hop fields from a response, and what its `Connection` names.
pub fn strip_response(headers: &mut HeaderMap) {
    strip(headers, |name| {
        matches!(
            name.as_str(),
            "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" | "te" | "http2-settings"
        )
    });
}

/// Whether a field could be one of `names` to an app that takes `-`, `_` and `.` for the same, and is not to a rule: then the app would hear a value
/// that the rule never saw.
pub fn respells(headers: &HeaderMap, names: &[HeaderName]) -> bool {
    let parts = |byte: u8| matches!(byte, b'-' | b'_' | b'.');
    let alike = |name: &str, read: &str| {
        name.len() == read.len()
            && name != read
            && name.bytes().zip(read.bytes()).all(|(one, other)| one == other || parts(one) && parts(other))
    };
    headers.keys().any(|name| names.iter().any(|read| alike(name.as_str(), read.as_str())))
}

/// One pass to see, then the removals: a request of a browser has one or two.
fn strip(headers: &mut HeaderMap, mut doomed: impl FnMut(&HeaderName) -> bool) {
    let mut names: SmallVec<[HeaderName; 8]> = SmallVec::new();
    for name in headers.keys() {
        if doomed(name) {
            names.push(name.clone());
        }
    }
    if names.is_empty() {
        return;
    }
    for list in [CONNECTION, TE] {
        if names.contains(&list) {
            named(headers, &list, &mut names);
        }
    }
    for name in names {
        headers.remove(name);
    }
}

fn named(headers: &HeaderMap, list: &HeaderName, names: &mut SmallVec<[HeaderName; 8]>) {
    // The two that nearly all say name nothing that could be there.
    let plain = |said: &[u8]| said.eq_ignore_ascii_case(b"keep-alive") || said.eq_ignore_ascii_case(b"close");
    for value in headers.get_all(list).iter().filter(|value| !plain(value.as_bytes())) {
        for token in value.as_bytes().split(|b| *b == b',') {
            let token = token.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
            if plain(token) {
                continue;
            }
            if let Ok(name) = HeaderName::from_bytes(token)
                && headers.contains_key(&name)
            {
                names.push(name);
            }
        }
    }
}

/// The hop-by-hop fields of a request. `Expect` is answered by this hop; `Proxy` becomes `HTTP_PROXY` in CGI apps (CVE-2016-5385).
fn ends_here(name: &str) -> bool {
    let bytes = name.as_bytes();
    match bytes.first() {
        Some(b'c') => is(bytes, "connection") || misspelt(bytes, "content-length"),
        Some(b'e') => is(bytes, "expect"),
        Some(b'h') => is(bytes, "http2-settings"),
        Some(b'k') => is(bytes, "keep-alive"),
        Some(b'p') => is(bytes, "proxy") || begins(bytes, "proxy-"),
        Some(b't') => is(bytes, "te") || is(bytes, "trailer") || misspelt(bytes, "transfer-encoding"),
        Some(b'u') => is(bytes, "upgrade"),
        _ => false,
    }
}

/// Fields by which an app knows the client, the device or the true target, so that a client's own must not arrive; in every spelling that an app
/// might not tell apart from ours (CGI and WSGI make `_` of `-`, some frameworks of `.` too).
fn is_ours(name: &str) -> bool {
    let bytes = name.as_bytes();
    match bytes.first() {
        Some(b'v') => begins(bytes, "vestibule-"),
        Some(b'x') => is_our_x(bytes),
        Some(b'f') => is(bytes, "forwarded") || is(bytes, "front-end-https") || is(bytes, "fastly-client-ip"),
        Some(b'c') => begins(bytes, "client-cert") || is(bytes, "client-ip") || is(bytes, "cf-connecting-ip"),
        Some(b't') => is(bytes, "true-client-ip"),
        Some(b'r') => begins(bytes, "remote-"),
        // Gunicorn lets the proxy before it, by default anybody on this machine, set these two of WSGI as fields: another path than was asked for.
        Some(b's') => is(bytes, "script-name") || begins(bytes, "ssl-client"),
        Some(b'p') => is(bytes, "path-info"),
        Some(b'w') => begins(bytes, "wl-proxy-"),
        _ => false,
    }
}

fn is_our_x(bytes: &[u8]) -> bool {
    match bytes.get(2).map(u8::to_ascii_lowercase) {
        // `X-Forward-For` as well.
        Some(b'f') => begins(bytes, "x-forward"),
        Some(b'r') => is(bytes, "x-real-ip") || is(bytes, "x-request-id") || begins(bytes, "x-rewrite-") || begins(bytes, "x-remote-"),
        Some(b'o') => begins(bytes, "x-original-") || begins(bytes, "x-override-") || is(bytes, "x-originating-ip"),
        // Nginx' and Rack's own between proxy and app (CVE-2025-61780), and the users that other proxies name.
        Some(b'a') => {
            begins(bytes, "x-accel-") || begins(bytes, "x-arr-") || begins(bytes, "x-auth-request-") || begins(bytes, "x-authenticated-")
        }
        Some(b'w') => begins(bytes, "x-webauth-"),
        Some(b'p') => is(bytes, "x-path-info"),
        Some(b'h') => {
            is(bytes, "x-host")
                || begins(bytes, "x-http-method")
                || begins(bytes, "x-http-host")
                || begins(bytes, "x-http-destination")
                || is(bytes, "x-http2-fingerprint")
                || is(bytes, "x-http2-akamai")
                || begins(bytes, "x-huginn-")
        }
        // JA3 and JA4 in every form that proxies tell them in.
        Some(b'j') => begins(bytes, "x-ja3") || begins(bytes, "x-ja4"),
        Some(b't') => begins(bytes, "x-tls-ja") || is(bytes, "x-tcp-p0f"),
        // The middle one: CVE-2025-29927.
        Some(b'm') => is(bytes, "x-method-override") || begins(bytes, "x-middleware-") || begins(bytes, "x-ms-client-principal"),
        Some(b'i') => begins(bytes, "x-invoke-"),
        Some(b'c') => begins(bytes, "x-client-ip") || begins(bytes, "x-client-cert") || is(bytes, "x-cluster-client-ip"),
        Some(b's') => begins(bytes, "x-ssl-client") || begins(bytes, "x-sendfile-") || is(bytes, "x-scheme") || is(bytes, "x-script-name"),
        Some(b'e') => begins(bytes, "x-envoy-"),
        Some(b'u') => is(bytes, "x-url-scheme"),
        Some(b'v') => begins(bytes, "x-vestibule-"),
        _ => false,
    }
}

/// Header names in a `HeaderMap` are lower case already; `_` and `.` count as `-`.
fn is(name: &[u8], want: &str) -> bool {
    name.len() == want.len() && begins(name, want)
}

fn misspelt(name: &[u8], want: &str) -> bool {
    is(name, want) && name != want.as_bytes()
}

fn begins(name: &[u8], want: &str) -> bool {
    name.len() >= want.len()
        && name.iter().zip(want.as_bytes()).all(|(byte, want)| byte == want || (*want == b'-' && matches!(byte, b'_' | b'.')))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn left(fields: &[(&str, &str)]) -> Vec<String> {
        let mut headers = map(fields);
        strip_request(&mut headers, |_| {});
        let mut names: Vec<_> = headers.keys().map(|name| name.as_str().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn identity_goes_in_every_spelling() {
        for name in [
            "Vestibule-Device-Id",
            "vestibule_device_id",
            "VESTIBULE.Device_Id",
            "Vestibule-Jwt-Assertion",
            "Vestibule_Tier",
            "vestibule-anything",
            "X-Vestibule-Tier",
            "X-Request-Id",
            "X_Request_Id",
            "x.request.id",
            "X-JA3-Fingerprint",
            "x_ja3.fingerprint",
            "X-JA4-Fingerprint",
            "X-JA4-RAW-Fingerprint",
            "X-HTTP2-Fingerprint",
            "X_HTTP2_Fingerprint",
            "X-TLS-JA4",
            "x-tls-ja4-s1r",
            "x.tls.ja4",
            "X-HTTP2-Akamai",
            "X-TCP-p0f",
            "X-Huginn-Net-Ja4",
            "Vestibule-Ja4",
            "vestibule_h2",
            "X-Forwarded-For",
            "X_Forwarded_For",
            "X-Forwarded",
            "X-Forwarded-Uri",
            "X-Forwarded-Prefix",
            "X-Forwarded-Ssl",
            "X-Forwarded-Client-Cert",
            "Forwarded",
            "Client-Cert",
            "client_cert_chain",
            "Client-Cert-Chain",
            "X-Original-URL",
            "X-Original-URI",
            "X-Original-Host",
            "x_original_url",
            "X-Rewrite-URL",
            "X-Real-IP",
            "x_real_ip",
            "True-Client-IP",
            "X-Client-IP",
            "X-HTTP-Method-Override",
            "X-Method-Override",
            "X-Http-Method",
            "Front-End-Https",
            "Proxy",
            "X-Host",
            "x.forwarded.host",
            "X-Forward-For",
            "Remote-User",
            "REMOTE_USER",
            "remote_groups",
            "X-Remote-User",
            "X-Remote-IP",
            "X-Auth-Request-Email",
            "X-Authenticated-User",
            "X-WEBAUTH-USER",
            "X-MS-CLIENT-PRINCIPAL-NAME",
            "SCRIPT_NAME",
            "Script-Name",
            "PATH_INFO",
            "path.info",
            "X-Script-Name",
            "X-Accel-Mapping",
            "X-Accel-Redirect",
            "X-Sendfile-Type",
            "X-Middleware-Subrequest",
            "x_middleware_rewrite",
            "X-Invoke-Path",
            "X-Override-URL",
            "X-HTTP-Host-Override",
            "X-HTTP-DestinationURL",
            "WL-Proxy-SSL",
            "Ssl-Client-Verify",
            "X-ARR-ClientCert",
        ] {
            assert!(left(&[(name, "x")]).is_empty(), "{name}");
        }
        assert!(left(&[("Content_Length", "1"), ("transfer_encoding", "chunked"), ("Traceparent", "x")]) == ["traceparent"]);
    }

    #[test]
    fn hop_by_hop_goes() {
        let fields = [
            ("Connection", "keep-alive, X-Secret"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "x"),
            ("Proxy-Authorization", "x"),
            ("TE", "trailers"),
            ("Trailer", "X-Sum"),
            ("Upgrade", "h2c"),
            ("HTTP2-Settings", "x"),
            ("Expect", "100-continue"),
            ("X-Secret", "x"),
            ("Accept", "*/*"),
        ];
        assert_eq!(left(&fields), ["accept"]);
    }

    #[test]
    fn what_connection_and_te_name_goes_in_every_line_and_case() {
        assert_eq!(
            left(&[
                ("Connection", "close"),
                ("Connection", " X-A ;q=1,,x-b"),
                ("TE", "x-c"),
                ("X-A", "1"),
                ("X-A", "2"),
                ("X-B", "1"),
                ("X-C", "1"),
                ("X-D", "1")
            ]),
            ["x-d"]
        );
        assert_eq!(left(&[("Connection", "\u{e9}, x y, x-a"), ("x-a", "1")]), [] as [&str; 0]);
    }

    #[test]
    fn everything_else_stays() {
        let names = [
            "accept",
            "accept-encoding",
            "authorization",
            "cache-control",
            "content-encoding",
            "content-length",
            "content-type",
            "cookie",
            "host",
            "if-none-match",
            "origin",
            "range",
            "referer",
            "sec-ch-ua",
            "sec-fetch-site",
            "traceparent",
            "tracestate",
            "transfer-encoding",
            "user-agent",
            "via",
            "remote",
            "x-accelerate",
            "x-ms-client-request-id",
            "x-api-key",
            "x-csrf-token",
            "x-requested-with",
            "x-request-ids",
            "x",
            "x-",
            "vestibule",
        ];
        let fields: Vec<_> = names.iter().map(|name| (*name, "1")).collect();
        let mut want: Vec<_> = names.to_vec();
        want.sort_unstable();
        assert_eq!(left(&fields), want);
    }

    #[test]
    fn a_response_keeps_all_but_the_hop() {
        let mut headers = map(&[
            ("Connection", "close, X-Internal"),
            ("X-Internal", "1"),
            ("Keep-Alive", "x"),
            ("Upgrade", "h2c"),
            ("Transfer-Encoding", "chunked"),
            ("Set-Cookie", "a"),
            ("Set-Cookie", "b"),
            ("Trailer", "x"),
            ("X-Forwarded-For", "kept"),
            ("Content-Length", "1"),
        ]);
        strip_response(&mut headers);
        assert_eq!(headers.keys_len(), 4);
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
    }

    #[test]
    fn a_second_spelling_of_what_a_rule_reads_is_seen() {
        let read = [HeaderName::from_static("x-tenant-id"), HeaderName::from_static("authorization")];
        for (name, seen) in [
            ("X_Tenant_Id", true),
            ("x-tenant_id", true),
            ("x.tenant-id", true),
            ("x-tenant-id", false),
            ("x_tenant", false),
            ("a_b", false),
        ] {
            assert_eq!(respells(&map(&[("accept", "x"), (name, "x")]), &read), seen, "{name}");
        }
        assert!(!respells(&map(&[("x_tenant_id", "x")]), &[]));
        assert!(respells(&map(&[("x-tenant", "x")]), &[HeaderName::from_static("x_tenant")]));
    }

    #[test]
    fn upgrades_are_seen() {
        assert!(wants_upgrade(&map(&[("Upgrade", "websocket"), ("Connection", "upgrade")]), &Method::GET));
        assert!(wants_upgrade(&map(&[("Upgrade", "h2c, websocket")]), &Method::GET));
        assert!(wants_upgrade(&map(&[("Upgrade", "h2c"), ("Upgrade", "websocket")]), &Method::GET));
        assert!(wants_upgrade(&map(&[("Upgrade", "")]), &Method::GET));
        assert!(wants_upgrade(&map(&[("Upgrade", "h2c, h2c")]), &Method::GET), "as the watch over the bytes has it");
        assert!(!wants_upgrade(&map(&[("Upgrade", "h2c"), ("Connection", "upgrade, http2-settings")]), &Method::GET));
        assert!(!wants_upgrade(&map(&[("Upgrade", "H2C")]), &Method::GET));
        assert!(wants_upgrade(&map(&[]), &Method::CONNECT));
        assert!(!wants_upgrade(&map(&[("Connection", "upgrade")]), &Method::GET));
    }

    proptest! {
        #[test]
        fn no_spelling_passes(seps in proptest::collection::vec("[-_.]", 4), upper in any::<u32>()) {
            for want in ["vestibule-device-id", "x-forwarded-for", "x-request-id", "client-cert-chain", "x-original-url", "x-rewrite-url", "x-real-ip", "true-client-ip"] {
                let mut n = 0;
                let spelt: String = want.chars().enumerate().flat_map(|(i, c)| match c {
                    '-' => { n += 1; seps[n - 1].chars().collect::<Vec<_>>() }
                    c if upper >> (i % 32) & 1 == 1 => vec![c.to_ascii_uppercase()],
                    c => vec![c],
                }).collect();
                prop_assert!(left(&[(&spelt, "1")]).is_empty(), "{}", spelt);
            }
        }
    }
}
