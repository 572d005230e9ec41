//! Notices: what a person is told before it is asked of the device, in place of the app's page once a day.
//!
//! The cookie that remembers a notice opens nothing: whoever makes one up misses a notice, and is in an app that was open anyway. So it is not signed.

use http::header::{CACHE_CONTROL, COOKIE, LOCATION, ORIGIN, REFERRER_POLICY, SET_COOKIE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use super::answer::ours;
use super::memo::Ruling;
use super::{Ask, Conn, House, Unasked, instead};
use crate::forward::{Body, NOTICE_COOKIES, Rest};
use crate::model::{Host, Reason};
use crate::portal::{self, Form, Notice};
use crate::record::Visit;
use crate::request::{self, Malformed, PathOptions};

pub static HEADER: HeaderName = HeaderName::from_static("vestibule-notice");
static FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
static FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
static FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

const PATH: &str = "/.well-known/vestibule/notice";
/// Longer addresses would make a request too long for us; then the person goes on without the query, or begins at the app's first page.
const LONGEST: usize = 4096;
/// Of several apps behind one host, so that going back and forth between them shows no notice twice.
const REMEMBERED: usize = 4;

/// A browser's top-level navigation, of a device that something is to be told of and was not told today.
pub fn is_due(conn: &Conn, ruling: &Ruling, request: &Request<Rest>) -> bool {
    let Some(told) = &ruling.told else { return false };
    let headers = request.headers();
    request.method() == Method::GET
        && headers.get(&FETCH_MODE).is_some_and(|mode| mode == "navigate")
        && headers.get(&FETCH_DEST).is_none_or(|dest| dest == "document")
        && Form::wanted(headers) == Form::Html
        && !marks(headers, conn.door.https).any(|mark| mark == told.mark)
}

pub fn show(conn: &Conn, house: &House, (ask, ruling): (&Ask, &Ruling), request: &Request<Rest>, visit: &mut Visit) -> Response<Body> {
    instead(conn, house, (ruling, &ruling.noticed), Reason::Notice, visit);
    let mark = ruling.told.as_ref().map_or("", |told| &told.mark);
    let (policy, decision) = (&house.rules.policy, &ruling.decision);
    let first = policy.draft().apps.get(ask.app.index()).map(|app| app.path_prefix.as_str());
    let places = [Some(ask.target.as_str()), Some(ask.target.path()), first];
    let to = places.into_iter().flatten().find(|to| to.len() <= LONGEST && is_local(to)).unwrap_or("/");
    let action = format!("{PATH}?mark={mark}&to={}", portal::uri_encoded(to));
    let notice = Notice { policy, decision, standing: &ruling.standing, now: visit.now(), host: &ask.host, action: &action };
    ours(portal::notice(&notice, visit.id().as_str()).map(Body::full), request)
}

/// The marks of notices that this browser was shown.
fn marks(headers: &HeaderMap, https: bool) -> impl Iterator<Item = &str> {
    let name = name(https);
    let pairs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(';'));
    let values = pairs.filter_map(move |pair| pair.trim().strip_prefix(name)?.strip_prefix('='));
    values.flat_map(|value| value.split('.')).filter(|mark| is_mark(mark)).take(REMEMBERED)
}

const fn name(https: bool) -> &'static str {
    let [over_tls, plain] = NOTICE_COOKIES;
    if https { over_tls } else { plain }
}

fn is_mark(text: &str) -> bool {
    text.len() == portal::MARK && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A notice's button was pressed.
#[derive(Debug)]
pub struct Noticed {
    /// Of the same host.
    to: HeaderValue,
    cookie: HeaderValue,
}

impl Noticed {
    /// What a request for a path of ours comes to. A page elsewhere must not press the button, and must not have us send anybody anywhere.
    pub fn read(request: &Request<Rest>, conn: &Conn, house: &House, (host, port): (&Host, Option<u16>), target: &PathAndQuery) -> Unasked {
        if target.path() != PATH || request.method() != Method::POST {
            return Unasked::NoApp;
        }
        if !is_same_origin(request.headers(), &origin(conn.door.https, host, port)) {
            return Unasked::Malformed(Malformed("this is the button of a notice, and it was pressed on another site"));
        }
        let field = |name: &str| target.query().unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let mark = field("mark").filter(|mark| is_mark(mark));
        let to = field("to").and_then(decoded).filter(|to| is_local(to));
        let (Some(mark), Some(to)) = (mark, to) else {
            return Unasked::Malformed(Malformed("the address of a notice's button is incomplete"));
        };
        let path = to.split(['?', '#']).next().unwrap_or_default();
        let app = request::path(path, &PathOptions::LENIENT).ok().and_then(|path| house.rules.policy.app_at(host, &path));
        let cookie = cookie(mark, request.headers(), conn.door.https);
        match (app, HeaderValue::try_from(to), cookie) {
            (Some(_), Ok(to), Some(cookie)) => Unasked::Noticed(Self { to, cookie }),
            _ => Unasked::NoApp,
        }
    }

    pub fn answer(&self) -> Response<Body> {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::SEE_OTHER;
        let headers = answer.headers_mut();
        headers.insert(LOCATION, self.to.clone());
        headers.insert(SET_COOKIE, self.cookie.clone());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        answer
    }
}

fn origin(https: bool, host: &Host, port: Option<u16>) -> String {
    let scheme = if https { "https" } else { "http" };
    match port {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    }
}

/// By what the browser says of itself, which no page can change. One that says nothing of either is no browser that was shown a notice.
fn is_same_origin(headers: &HeaderMap, own: &str) -> bool {
    match headers.get(&FETCH_SITE) {
        Some(site) => site == "same-origin",
        None => headers.get(ORIGIN).is_some_and(|origin| origin == own),
    }
}

/// Of this host, however a browser reads it: up to a query it takes `\` for `/`, it takes `//` for another host, and passes over tabs and line breaks.
fn is_local(to: &str) -> bool {
    let path = to.split('?').next().unwrap_or_default();
    path.starts_with('/') && !path.starts_with("//") && !path.contains('\\') && to.bytes().all(|byte| matches!(byte, b'!'..=b'~'))
}

/// Escapes taken away, once; `None` where they are broken or hide bytes that are no text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high << 4 | low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

fn cookie(mark: &str, headers: &HeaderMap, https: bool) -> Option<HeaderValue> {
    let others = marks(headers, https).filter(|other| *other != mark).take(REMEMBERED - 1);
    let value: Vec<&str> = [mark].into_iter().chain(others).collect();
    let secure = if https { "; Secure" } else { "" };
    let name = name(https);
    HeaderValue::try_from(format!("{name}={}; Path=/; Max-Age=86400; HttpOnly; SameSite=Lax{secure}", value.join("."))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_leads_to_its_own_host_and_nowhere_else() {
        for (given, to) in
            [("%2F", "/"), ("%2Fa%3Fb%3Dc%26d", "/a?b=c&d"), ("/a/..//b", "/a/..//b"), ("%2F%252F", "/%2F"), ("/a?b=%5C//c", "/a?b=\\//c")]
        {
            assert_eq!(decoded(given).filter(|to| is_local(to)).as_deref(), Some(to), "{given}");
        }
        for evil in [
            "",
            "evil.example",
            "https://evil.example/",
            "//evil.example",
            "%2F%2Fevil.example",
            "/%5Cevil.example",
            "/a/%5Cevil.example?b",
            "%5C%5Cevil.example",
            "/%09/evil.example",
            "%2F%0A%2Fevil.example",
            "%0D%0A/evil",
            "/%0d%0aSet-Cookie:%20a=b",
            "/%",
            "/%zz",
            "/%ff",
            "/%C3%A9",
            "/a%20b",
            "javascript:alert(1)",
        ] {
            assert_eq!(decoded(evil).filter(|to| is_local(to)), None, "{evil}");
        }
    }

    #[test]
    fn cookies_of_both_kinds_of_listener() {
        let (one, two) = ("0123456789abcdef", "fedcba9876543210");
        let mut headers = HeaderMap::new();
        let text = format!("a=b; __Host-vestibule-notice={two}.xyz.{one}; vestibule-notice={one}");
        headers.append(COOKIE, HeaderValue::from_str(&text).unwrap());
        assert_eq!(marks(&headers, true).collect::<Vec<_>>(), [two, one]);
        assert_eq!(marks(&headers, false).collect::<Vec<_>>(), [one]);
        let set = |https| cookie(one, &headers, https).unwrap();
        assert_eq!(set(true), format!("__Host-vestibule-notice={one}.{two}; Path=/; Max-Age=86400; HttpOnly; SameSite=Lax; Secure"));
        assert_eq!(set(false), format!("vestibule-notice={one}; Path=/; Max-Age=86400; HttpOnly; SameSite=Lax"));
        let many = (0..9).map(|n| format!("{n:016x}")).collect::<Vec<_>>().join(".");
        headers.insert(COOKIE, HeaderValue::from_str(&format!("vestibule-notice={many}")).unwrap());
        assert!(cookie(one, &headers, false).unwrap().len() < 160, "it does not grow");
    }

    #[test]
    fn the_same_origin_by_what_browsers_say() {
        let own = "https://wiki.example:8443";
        let said = |fields: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            is_same_origin(&headers, own)
        };
        assert!(said(&[("sec-fetch-site", "same-origin")]));
        assert!(said(&[("origin", "https://wiki.example:8443")]));
        for other in [
            &[][..],
            &[("origin", "null")],
            &[("origin", "https://wiki.example")],
            &[("origin", "https://evil.example")],
            &[("sec-fetch-site", "same-site"), ("origin", "https://wiki.example:8443")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "none")],
        ] {
            assert!(!said(other), "{other:?}");
        }
    }
}
