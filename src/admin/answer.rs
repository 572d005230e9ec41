//! The paths of the admin listener.

use std::net::IpAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State as Extract};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use http::uri::Authority;
use http::{HeaderMap, Method, StatusCode, Uri, Version};
use prometheus::{Encoder, TextEncoder};
use tracing::error;

use super::{BODY, State};
use crate::model::jwks;

const PATHS: &str = "/metrics  metrics in the Prometheus text format\n\
                     /livez    200 as long as the program serves\n\
                     /readyz   200 when it is ready for traffic, else 503 and why not\n\
                     /.well-known/vestibule/jwks.json  the public keys of assertions, where an app asks for them\n\
                     /api/v1/devices/blind  devices without a record, grouped by what they show, as JSON\n\
                     /api/v1/policy    the policy in force, as JSON\n\
                     /api/v1/servers   the servers of all apps: which take requests, and what checks said, as JSON\n\
                     /api/v1/reload    POST: takes the configuration anew; 200 and what changed, or 422 and what is wrong, as JSON\n";

/// The one path that changes something.
const RELOAD: &str = "/api/v1/reload";

/// Its paths, for GET and HEAD, one for POST. `local` is the address that the connection came in on: a name that the client may use for it
/// beside loopback.
pub fn router(state: State, local: IpAddr) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(async || text(StatusCode::OK, "ok\n")))
        .route("/readyz", get(ready))
        .route(jwks::PATH, get(keys))
        .route("/api/v1/devices/blind", get(blind))
        .route("/api/v1/policy", get(policy))
        .route("/api/v1/servers", get(servers))
        .route(RELOAD, post(reload))
        .fallback(async || text(StatusCode::NOT_FOUND, format!("nothing here; the paths are:\n{PATHS}")))
        .layer(from_fn(move |request, next| guard(local, request, next)))
        .with_state(state)
}

async fn metrics(Extract(state): Extract<State>) -> Response {
    let mut body = Vec::new();
    match TextEncoder::new().encode(&state.registry.gather(), &mut body) {
        Ok(()) => answer(StatusCode::OK, prometheus::TEXT_FORMAT, body),
        Err(error) => {
            error!(%error, "cannot encode the metrics");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be encoded; the log says why\n")
        }
    }
}

async fn ready(Extract(state): Extract<State>) -> Response {
    let missing = (state.ready)();
    if missing.is_empty() {
        return text(StatusCode::OK, "ok\n");
    }
    text(StatusCode::SERVICE_UNAVAILABLE, missing.iter().fold("not ready:\n".to_owned(), |list, reason| format!("{list}- {reason}\n")))
}

async fn blind(Extract(state): Extract<State>) -> Response {
    match (state.blind)().await {
        Some(census) => answer(StatusCode::OK, "application/json", census),
        None => text(StatusCode::SERVICE_UNAVAILABLE, "the device store cannot be read; the log says why\n"),
    }
}

/// As at the edge: apps on this machine need no way through it.
async fn keys(Extract(state): Extract<State>) -> Response {
    match (state.jwks)() {
        Some(set) => ([(CACHE_CONTROL, jwks::CACHE_CONTROL)], answer(StatusCode::OK, jwks::TYPE, set)).into_response(),
        None => text(StatusCode::NOT_FOUND, "no app asks for assertions\n"),
    }
}

async fn policy(Extract(state): Extract<State>) -> Response {
    (state.policy)().map_or_else(stopping, |policy| answer(StatusCode::OK, "application/json", policy))
}

async fn servers(Extract(state): Extract<State>) -> Response {
    (state.servers)().map_or_else(stopping, |servers| answer(StatusCode::OK, "application/json", servers))
}

async fn reload(Extract(state): Extract<State>, request: Request) -> Response {
    if !is_of_this_site(request.headers()) {
        return text(StatusCode::FORBIDDEN, "a browser sent this for a page from elsewhere\n");
    }
    // Read, so that a client that sends one gets its answer.
    if axum::body::to_bytes(request.into_body(), BODY).await.is_err() {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "this takes no body\n");
    }
    match (state.reload)().await {
        Some(Ok(changed)) => answer(StatusCode::OK, "application/json", changed),
        Some(Err(errors)) => answer(StatusCode::UNPROCESSABLE_ENTITY, "application/json", errors),
        None => stopping(),
    }
}

fn stopping() -> Response {
    text(StatusCode::SERVICE_UNAVAILABLE, "the proxy is stopping\n")
}

/// Every browser says where a POST comes from; other programs say nothing of it.
fn is_of_this_site(headers: &HeaderMap) -> bool {
    let own = headers.get(HOST).and_then(|host| host.to_str().ok()).map(|host| format!("http://{host}"));
    let origin = |field: &HeaderValue| field.to_str().is_ok_and(|origin| own.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(origin)));
    let site = |field: &HeaderValue| ["same-origin", "none"].iter().any(|site| field == site);
    let (mut origins, mut sites) = (headers.get_all(ORIGIN).iter(), headers.get_all("sec-fetch-site").iter());
    let one = |first: Option<&HeaderValue>, second: Option<&HeaderValue>, fits: &dyn Fn(&HeaderValue) -> bool| match (first, second) {
        (first, None) => first.is_none_or(fits),
        _ => false,
    };
    one(origins.next(), origins.next(), &origin) && one(sites.next(), sites.next(), &site)
}

/// What holds for every path, known or not.
async fn guard(local: IpAddr, request: Request, next: Next) -> Response {
    let mut response = match host(request.version(), request.uri(), request.headers()) {
        Err(why) => text(StatusCode::BAD_REQUEST, why),
        Ok(Some(host)) if !is_ours(&host, local) => {
            text(StatusCode::MISDIRECTED_REQUEST, "this listener answers to localhost, to loopback addresses and to its own address only\n")
        }
        Ok(_) if request.uri().path() == RELOAD && request.method() != Method::POST => not_allowed("only POST\n", "POST"),
        Ok(_) if request.uri().path() != RELOAD && ![Method::GET, Method::HEAD].contains(request.method()) => {
            not_allowed("only GET and HEAD\n", "GET, HEAD")
        }
        Ok(_) => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    response
}

fn not_allowed(why: &'static str, allow: &'static str) -> Response {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, why);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// The host that the request names, without port. None only from an HTTP/1.0 client, such as a balancer's health check; no browser is one.
fn host(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<Option<String>, &'static str> {
    let mut fields = headers.get_all(HOST).iter();
    let named = match (fields.next(), fields.next()) {
        (None, _) if version < Version::HTTP_11 => return Ok(uri.authority().map(|authority| authority.host().to_owned())),
        (None, _) => return Err("the Host field is missing\n"),
        (Some(field), None) => Authority::try_from(field.as_bytes()).map_err(|_| "the Host field is malformed\n")?,
        (Some(_), Some(_)) => return Err("there are several Host fields\n"),
    };
    match uri.authority() {
        _ if named.as_str().contains('@') => Err("the Host field is malformed\n"),
        Some(target) if target != &named => Err("the target and the Host field disagree\n"),
        _ => Ok(Some(named.host().to_owned())),
    }
}

fn is_ours(host: &str, local: IpAddr) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse::<IpAddr>();
    match address {
        Ok(address) => address.to_canonical().is_loopback() || address.to_canonical() == local.to_canonical(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

fn text(status: StatusCode, body: impl Into<Body>) -> Response {
    answer(status, "text/plain; charset=utf-8", body)
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    (status, [(CONTENT_TYPE, content_type)], body.into()).into_response()
}

#[cfg(test)]
mod tests {
    /// Names of metrics in a text, without what a histogram appends.
    fn metrics(text: &str) -> impl Iterator<Item = &str> {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| word.starts_with("vestibule_"));
        words.map(|word| ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix)).unwrap_or(word))
    }

    #[test]
    fn alerts_and_examples_use_metrics_of_the_reference() {
        let (reference, alerts) = (include_str!("../../docs/metrics.md"), include_str!("../../docs/alerts.yaml"));
        for metric in metrics(alerts).chain(metrics(reference)) {
            assert!(reference.contains(&format!("| `{metric}` |")), "{metric}");
        }
        for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
            assert!(reference.contains(&format!("`{alert}`")), "{alert}");
        }
    }
}
