//! The demo's apps: small real HTTP servers that show what reached them.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use maud::{DOCTYPE, html};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::cast::{APPS, App};

/// An upload larger than this is shown as cut.
const MOST_BODY: usize = 1 << 20;

/// All apps, served by one thread until dropped.
pub struct Apps {
    addresses: Vec<SocketAddr>,
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Apps {
    pub fn start() -> io::Result<Self> {
        let mut listeners = Vec::new();
        for app in &APPS {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            listener.set_nonblocking(true)?;
            listeners.push((app, listener));
        }
        let addresses = listeners.iter().map(|(_, l)| l.local_addr()).collect::<io::Result<Vec<_>>>()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<Infallible>();
        let serve = move || {
            runtime.block_on(async {
                for (app, listener) in listeners {
                    if let Ok(listener) = tokio::net::TcpListener::from_std(listener) {
                        tokio::spawn(serve(app, listener));
                    }
                }
                let _ = stopped.await;
            });
        };
        let thread = std::thread::Builder::new().name("demo-apps".to_owned()).spawn(serve)?;
        Ok(Self { addresses, stop: Some(stop), thread: Some(thread) })
    }

    /// In the order of `APPS`.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Drop for Apps {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(app: &'static App, listener: tokio::net::TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors: let others close some.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        tokio::spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new());
            // A client that breaks off is no news here.
            let _ = http.serve_connection(TokioIo::new(stream), service_fn(|request| answer(app, request))).await;
        });
    }
}

async fn answer(app: &App, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body_bytes = Limited::new(body, MOST_BODY).collect().await.map_or(MOST_BODY, |body| body.to_bytes().len());
    let wants_html = head.headers.get_all(ACCEPT).iter().any(|v| v.to_str().is_ok_and(|v| v.contains("text/html")));
    let (kind, text) = if wants_html {
        ("text/html; charset=utf-8", page(app, &head, body_bytes))
    } else {
        ("application/json", data(app, &head, body_bytes))
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    Ok(response)
}

fn data(app: &App, head: &Parts, body_bytes: usize) -> String {
    let headers: Map<String, Value> = received(&head.headers).into_iter().map(|(name, value)| (name, Value::String(value))).collect();
    let shown = json!({
        "app": app.name,
        "received": {"method": head.method.as_str(), "target": head.uri.to_string(), "headers": headers, "body_bytes": body_bytes},
    });
    format!("{shown:#}\n")
}

fn page(app: &App, head: &Parts, body_bytes: usize) -> String {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (app.title) }
                style {
                    "body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem;color:#1c2330;background:#fff}"
                    "td{padding:.2rem .8rem .2rem 0;vertical-align:top;overflow-wrap:anywhere}td:first-child{white-space:nowrap;color:#57606a}"
                    "code{font:14px ui-monospace,monospace}tr.ours td{background:#eef6ee}"
                    "@media(prefers-color-scheme:dark){body{background:#14181f;color:#e6e9ee}td:first-child{color:#9aa4b2}tr.ours td{background:#1d2b20}}"
                }
            }
            body {
                h1 { (app.title) }
                p { (app.about) }
                p { "This request came through the vestibule. What reached the app:" }
                p { code { (head.method) " " (head.uri) } " with a body of " (body_bytes) " bytes" }
                table {
                    @for (name, value) in received(&head.headers) {
                        tr class=[name.starts_with("vestibule-").then_some("ours")] { td { code { (name) } } td { code { (value) } } }
                    }
                }
            }
        }
    };
    markup.into_string()
}

/// A name that came several times has its values joined, so that nothing hides.
fn received(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .keys()
        .map(|name| {
            let values: Vec<_> = headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).collect();
            (name.to_string(), values.join(", "))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn shows_what_it_received() {
        let apps = Apps::start().unwrap();
        let payroll = apps.addresses()[1];
        let json = ask(
            payroll,
            "POST /a?b HTTP/1.1\r\nHost: x\r\nVestibule-Tier: a\r\nVestibule-Tier: b\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
        );
        assert!(json.contains("application/json"), "{json}");
        let body: Value = serde_json::from_str(json.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(body["app"], "payroll");
        assert_eq!(body["received"]["method"], "POST");
        assert_eq!(body["received"]["target"], "/a?b");
        assert_eq!(body["received"]["body_bytes"], 3);
        assert_eq!(body["received"]["headers"]["vestibule-tier"], "a, b");
        let html = ask(payroll, "GET / HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\nX: <b>\r\nConnection: close\r\n\r\n");
        assert!(html.contains("<h1>Payroll</h1>") && html.contains("&lt;b&gt;"), "{html}");
    }

    #[test]
    fn dropping_ends_the_thread() {
        let apps = Apps::start().unwrap();
        let address = apps.addresses()[0];
        drop(apps);
        assert!(TcpStream::connect(address).is_err());
    }
}
