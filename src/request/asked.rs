//! Questions: a proxy that carries requests itself asks whether to carry one. Which one, it says in the fields of the question, or by asking as its client
//! did. Which of the two the question's own path tells, so that no client can choose by what it sends.

use http::header::{HOST, HeaderName};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Uri};

use super::{Malformed, authority_of};

static METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
static TARGET: HeaderName = HeaderName::from_static("x-forwarded-uri");
static AUTHORITY: HeaderName = HeaderName::from_static("x-forwarded-host");

/// How a proxy asks, by the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// nginx: by fields, and of refusals it understands 401 and 403 only.
    AuthRequest,
    /// Traefik, Caddy: by fields.
    ForwardAuth,
    /// Envoy: as the client did, with a path in front of the client's.
    ExtAuthz,
}

impl Manner {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuthRequest => "auth_request",
            Self::ForwardAuth => "forward_auth",
            Self::ExtAuthz => "ext_authz",
        }
    }

    pub fn of(path: &str) -> Option<Self> {
        match path.strip_prefix("/.well-known/vestibule/")? {
            "auth_request" => Some(Self::AuthRequest),
            "forward_auth" => Some(Self::ForwardAuth),
            rest => rest.strip_prefix("ext_authz").filter(|rest| rest.starts_with('/')).map(|_| Self::ExtAuthz),
        }
    }
}

/// The request that a question is about, as the client sent it to the proxy that asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub manner: Manner,
    pub method: Method,
    pub target: PathAndQuery,
    pub host: HeaderValue,
}

/// Reads a question.
///
/// # Errors
/// When it does not say one thing, once.
pub fn asked(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Asked, Malformed> {
    let manner = Manner::of(uri.path()).ok_or(Malformed("this listener answers the questions of proxies, and this is none"))?;
    if manner == Manner::ExtAuthz {
        return itself(method, uri, headers);
    }
    let method = one(headers, &METHOD, "X-Forwarded-Method is missing", "there are several X-Forwarded-Method fields")?;
    let target = one(headers, &TARGET, "X-Forwarded-Uri is missing", "there are several X-Forwarded-Uri fields")?;
    let host = one(headers, &AUTHORITY, "X-Forwarded-Host is missing", "there are several X-Forwarded-Host fields")?;
    Ok(Asked {
        manner,
        method: Method::from_bytes(method.as_bytes()).map_err(|_| Malformed("X-Forwarded-Method is not a method"))?,
        target: target_of(target.as_bytes())?,
        host: host.clone(),
    })
}

fn itself(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Asked, Malformed> {
    if [&METHOD, &TARGET, &AUTHORITY].iter().any(|name| headers.contains_key(*name)) {
        return Err(Malformed("the question names a request in its fields, and asks as one"));
    }
    authority_of(uri, headers)?;
    let host = match uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).map_err(|_| Malformed("the host is not a host"))?,
        None => headers.get(HOST).cloned().ok_or(Malformed("the request names no host"))?,
    };
    let whole = uri.path_and_query().map_or("", PathAndQuery::as_str);
    let target = whole.strip_prefix("/.well-known/vestibule/ext_authz").unwrap_or_default();
    Ok(Asked { manner: Manner::ExtAuthz, method: method.clone(), target: target_of(target.as_bytes())?, host })
}

fn one<'a>(headers: &'a HeaderMap, name: &HeaderName, none: &'static str, several: &'static str) -> Result<&'a HeaderValue, Malformed> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|value| !value.is_empty()).ok_or(Malformed(none))?;
    values.next().map_or(Ok(value), |_| Err(Malformed(several)))
}

/// Origin-form only: what a client asked of the proxy in another form names a host of its own.
fn target_of(bytes: &[u8]) -> Result<PathAndQuery, Malformed> {
    const WRONG: Malformed = Malformed("the target is not a path");
    // `PathAndQuery` would drop a fragment silently, and the proxy carries it.
    if bytes.first() != Some(&b'/') || bytes.contains(&b'#') {
        return Err(WRONG);
    }
    PathAndQuery::try_from(bytes).map_err(|_| WRONG)
}

/// Whether a path names its segments as its canonical form does. A proxy that asks carries the path as it came: with dot segments or empty ones in it,
/// the app could see another place than the rules did.
pub fn same_segments(raw: &str, canonical: &str) -> bool {
    let dots = |segment: &str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    !raw.split('/').any(dots) && raw.split('/').count() == canonical.split('/').count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::request::{PathOptions, path};

    fn read(path: &str, fields: &[(&str, &str)]) -> Result<(String, String, String), Malformed> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let asked = asked(&Method::PUT, &path.parse().unwrap(), &headers)?;
        Ok((asked.method.to_string(), asked.target.to_string(), String::from_utf8_lossy(asked.host.as_bytes()).into_owned()))
    }

    const WHOLE: [(&str, &str); 4] =
        [("x-forwarded-method", "POST"), ("x-forwarded-uri", "/a%2Fb?c=/../d"), ("x-forwarded-host", "Wiki:8443"), ("host", "us")];

    #[test]
    fn by_fields() {
        for path in
            ["/.well-known/vestibule/auth_request", "/.well-known/vestibule/forward_auth", "/.well-known/vestibule/forward_auth?x=/y"]
        {
            assert_eq!(read(path, &WHOLE), Ok(("POST".into(), "/a%2Fb?c=/../d".into(), "Wiki:8443".into())), "{path}");
        }
    }

    #[test]
    fn as_the_client_did() {
        let ask = |path: &str| read(path, &[("host", "wiki")]);
        assert_eq!(ask("/.well-known/vestibule/ext_authz/a?b=/c"), Ok(("PUT".into(), "/a?b=/c".into(), "wiki".into())));
        assert_eq!(ask("/.well-known/vestibule/ext_authz/"), Ok(("PUT".into(), "/".into(), "wiki".into())));
        assert_eq!(ask("/.well-known/vestibule/ext_authz/../x").unwrap().1, "/../x", "nothing is made of it here");
        assert_eq!(read("http://wiki/.well-known/vestibule/ext_authz/a", &[]).unwrap().2, "wiki");
        for wrong in ["http://wiki/.well-known/vestibule/ext_authz/a", "/.well-known/vestibule/ext_authz/a"] {
            assert!(read(wrong, &[("host", "wiki"), ("host", "payroll")]).is_err());
        }
        assert!(read("http://wiki/.well-known/vestibule/ext_authz/a", &[("host", "payroll")]).is_err());
        for field in ["x-forwarded-uri", "x-forwarded-method", "x-forwarded-host"] {
            assert!(read("/.well-known/vestibule/ext_authz/a", &[("host", "wiki"), (field, "/b")]).is_err(), "{field}");
        }
    }

    #[test]
    fn what_is_no_question_or_two_is_refused() {
        for path in [
            "/",
            "/a",
            "/.well-known/vestibule",
            "/.well-known/vestibule/",
            "/.well-known/vestibule/forward_auth/",
            "/.well-known/vestibule/ext_authz",
            "/.well-known/vestibule/ext_authzz/a",
            "/.well-known/vestibule/%66orward_auth",
            "/x/../.well-known/vestibule/forward_auth",
        ] {
            assert!(read(path, &WHOLE).is_err(), "{path}");
        }
        for (name, value) in &WHOLE[..3] {
            let without: Vec<_> = WHOLE.into_iter().filter(|(other, _)| other != name).collect();
            assert!(read("/.well-known/vestibule/forward_auth", &without).is_err(), "{name} missing");
            let twice: Vec<_> = WHOLE.into_iter().chain([(*name, *value)]).collect();
            assert!(read("/.well-known/vestibule/forward_auth", &twice).is_err(), "{name} twice, though the same");
            let empty: Vec<_> = without.into_iter().chain([(*name, "")]).collect();
            assert!(read("/.well-known/vestibule/forward_auth", &empty).is_err(), "{name} empty");
        }
        for (name, value) in [
            ("x-forwarded-uri", "a"),
            ("x-forwarded-uri", "*"),
            ("x-forwarded-uri", "http://payroll/a"),
            ("x-forwarded-uri", "?a"),
            ("x-forwarded-uri", "/a#b"),
            ("x-forwarded-uri", "/a b"),
            ("x-forwarded-method", "GET, POST"),
            ("x-forwarded-method", "GE T"),
        ] {
            let other = WHOLE.into_iter().filter(|(other, _)| *other != name).chain([(name, value)]).collect::<Vec<_>>();
            assert!(read("/.well-known/vestibule/forward_auth", &other).is_err(), "{name}: {value}");
        }
    }

    #[test]
    fn a_path_that_the_app_could_read_otherwise_differs() {
        for (raw, same) in [
            ("/", true),
            ("/a/b/", true),
            ("/%61/%c3%a9", true),
            ("/...", true),
            ("/a/.", false),
            ("/a/..", false),
            ("/a/./b", false),
            ("/x/../a", false),
            ("/x/%2e%2E/a", false),
            ("/.%2e/a", false),
            ("//a", false),
            ("/a//", false),
        ] {
            assert_eq!(same_segments(raw, &path(raw, &PathOptions::STRICT).unwrap()), same, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn what_passes_differs_in_escapes_alone(raw in "/([a./~]|%2[eE]|%6[1a]|%c3%a9){0,16}") {
            let canonical = path(&raw, &PathOptions::STRICT).unwrap().into_owned();
            if same_segments(&raw, &canonical) {
                let plain = |text: &str| {
                    let mut text = text.to_ascii_lowercase();
                    for (escape, letter) in [("%2e", "."), ("%61", "a"), ("%6a", "j")] {
                        text = text.replace(escape, letter);
                    }
                    text
                };
                prop_assert_eq!(plain(&raw), plain(&canonical));
            }
        }

        #[test]
        fn never_panics(path in "/\\.well-known/vestibule/(auth_request|forward_auth|ext_authz/[a-z%/]{0,6})", value in "[ -~]{0,12}") {
            let fields = [("x-forwarded-method", &*value), ("x-forwarded-uri", &*value), ("x-forwarded-host", &*value)];
            if let Ok(uri) = path.parse::<Uri>() {
                drop(read(&uri.to_string(), &fields));
            }
        }
    }
}
