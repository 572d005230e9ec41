//! From bytes that arrived to a question that has one meaning.

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Method, Request};

use super::notice::Noticed;
use super::{Conn, House};
use crate::forward::Rest;
use crate::model::{Host, Reason, jwks};
use crate::policy::AppId;
use crate::record::Visit;
use crate::request::{self, Malformed, PathOptions, framing};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What is asked for: an app, and a place in it. Host and path are canonical; policy, log and app see the same.
#[derive(Debug)]
pub struct Ask {
    pub app: AppId,
    pub host: Host,
    /// `None` for the default ports.
    pub port: Option<u16>,
    /// The canonical path with the query as it came.
    pub target: PathAndQuery,
}

/// Why there is nothing to decide.
#[derive(Debug)]
pub enum Unasked {
    Malformed(Malformed),
    /// More fields than `limits.head_fields`. Over HTTP/1 the edge has refused it already.
    HeadTooLarge,
    /// The host needs a connection of its own.
    Misdirected,
    NoApp,
    Upgrade,
    /// To the same host and path over HTTPS.
    Redirect(String),
    /// A path that is ours on every host: somebody has read a notice and goes on.
    Noticed(Noticed),
    /// The public keys of assertions, on every host: whoever verifies one has to have them, and they are no secret. `head`: of them no body.
    Keys {
        set: Bytes,
        head: bool,
    },
    LogUnavailable,
    /// A question from who may not ask.
    Untrusted,
}

impl Unasked {
    pub const fn reason(&self) -> Reason<'static> {
        match self {
            Self::Malformed(_) | Self::HeadTooLarge => Reason::Malformed,
            Self::Misdirected => Reason::Misdirected,
            Self::NoApp => Reason::NoApp,
            Self::Upgrade => Reason::Upgrade,
            Self::Redirect(_) => Reason::RedirectHttps,
            Self::Noticed(_) => Reason::Notice,
            Self::Keys { .. } => Reason::AssertionKeys,
            Self::LogUnavailable => Reason::LogUnavailable,
            Self::Untrusted => Reason::Untrusted,
        }
    }
}

impl From<Malformed> for Unasked {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl Ask {
    /// Syntax comes first, then whether this connection may speak for the host, then whether there is such an app: a certificate for one host never
    /// tells which others exist.
    pub fn read(request: &Request<Rest>, conn: &Conn, house: &House, visit: &mut Visit) -> Result<Self, Unasked> {
        let (headers, uri) = (request.headers(), request.uri());
        if let Some(id) = headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok()) {
            visit.client_request_id(id);
        }
        visit.asked(request.method());
        if conn.core.desk.log_refuses() {
            return Err(Unasked::LogUnavailable);
        }
        framing::check(request.version(), headers)?;
        if let Some(fault) = conn.fault(house) {
            return Err(fault.into());
        }
        if headers.len() > house.rules.limits.head_fields {
            return Err(Unasked::HeadTooLarge);
        }
        let (host, port) = conn.authority(uri, headers)?;
        visit.asked_of(&host);
        // CONNECT names no path, so there is no app to ask the policy about. Every other upgrade is decided first.
        if request.method() == Method::CONNECT {
            return Err(Unasked::Upgrade);
        }
        // An app that echoes its request would show the client what only the app may see: our word on the device, and assertions that others believe.
        if matches!(request.method().as_str(), "TRACE" | "TRACK") {
            return Err(Unasked::Malformed(Malformed("the method is TRACE, which is not carried here")));
        }
        if !conn.speaks_for(&host) {
            return Err(Unasked::Misdirected);
        }
        let path = request::path(uri.path(), &PathOptions::LENIENT)?;
        if is_ours(&path) {
            let target = target(uri, &path)?;
            visit.asked_for(&target);
            return Err(match conn.door.redirect_port {
                Some(port) => Unasked::Redirect(https(&host, port, &target)),
                None => keys(request.method(), &path, house).unwrap_or_else(|| Noticed::read(request, conn, house, (&host, port), &target)),
            });
        }
        let app = house.rules.policy.app_at(&host, &path);
        if app.is_none()
            && let Ok(target) = target(uri, &path)
        {
            visit.asked_for(&target);
        }
        let app = app.ok_or(Unasked::NoApp)?;
        let route = house.rules.routes.get(app.index()).ok_or(Unasked::NoApp)?;
        let path = request::path(uri.path(), &route.path)?;
        let target = target(uri, &path)?;
        visit.asked_for(&target);
        if let Some(port) = conn.door.redirect_port {
            return Err(Unasked::Redirect(https(&host, port, &target)));
        }
        if !house.rules.policy.headers_read().is_empty() {
            if request::hop::respells(headers, house.rules.policy.headers_read()) {
                return Err(Unasked::Malformed(Malformed("a field is another spelling of one that a rule reads")));
            }
            visit.headers(named_headers(headers, house.rules.policy.headers_read()));
        }
        Ok(Self { app, host, port, target })
    }
}

/// Never an app's, whatever the host.
fn is_ours(path: &str) -> bool {
    path.strip_prefix("/.well-known/vestibule").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

pub(super) fn keys(method: &Method, path: &str, house: &House) -> Option<Unasked> {
    let head = *method == Method::HEAD;
    let notary = house.rules.notary.as_ref().filter(|_| path == jwks::PATH && (head || *method == Method::GET))?;
    Some(Unasked::Keys { set: notary.keys.load().jwks.clone(), head })
}

fn target(uri: &http::Uri, path: &str) -> Result<PathAndQuery, Malformed> {
    let given = uri.path_and_query().ok_or(Malformed("there is no path"))?;
    // The library cuts a fragment off `:path`, and of `#x` leaves nothing that still calls itself `/`, and that would be written as nothing.
    if given.as_str() == "/" && *given != PathAndQuery::from_static("/") {
        return Err(Malformed("the path does not begin with a slash"));
    }
    if given.path() == path {
        return Ok(given.clone());
    }
    let text = match given.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    PathAndQuery::try_from(text).map_err(|_| Malformed("the path has bytes that a path cannot have"))
}

fn https(host: &Host, port: u16, target: &PathAndQuery) -> String {
    if port == 443 { format!("https://{host}{target}") } else { format!("https://{host}:{port}{target}") }
}

/// A JSON object of the headers that rules read: a text where there is one value, a list where there are several.
fn named_headers(headers: &HeaderMap, names: &[http::HeaderName]) -> Vec<u8> {
    let mut object = serde_json::Map::new();
    for name in names {
        let mut values: Vec<serde_json::Value> =
            headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned().into()).collect();
        match values.len() {
            0 => {}
            1 => drop(object.insert(name.as_str().to_owned(), values.remove(0))),
            _ => drop(object.insert(name.as_str().to_owned(), values.into())),
        }
    }
    serde_json::to_vec(&object).unwrap_or_default()
}
