//! Visits through real TLS connections, as a device would make them.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::cast::Visit;
use crate::cli::failure::Failure;
use crate::cli::lab_ca::Issued;

const DEADLINE: Duration = Duration::from_secs(15);

/// What came back.
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// One device with its certificate, where it has one.
pub struct Visitor {
    tls: TlsConnector,
}

impl Visitor {
    pub fn new(edge_ca: &Path, certificate: Option<&Issued>) -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(edge_ca)?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?.with_root_certificates(roots);
        let mut tls = match certificate {
            Some(issued) => {
                let key = PrivateKeyDer::from_pem_file(&issued.key)?;
                tls.with_client_auth_cert(vec![CertificateDer::from_pem_file(&issued.cert)?], key)?
            }
            None => tls.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: TlsConnector::from(Arc::new(tls)) })
    }

    /// One connection, one request.
    pub async fn visit(&self, edge: SocketAddr, visit: &Visit) -> Result<Answer, Failure> {
        let host = visit.app.host();
        let name = ServerName::try_from(host.clone())?;
        let body = if visit.method == http::Method::POST { "hello from the demo\n" } else { "" };
        let request = Request::builder()
            .method(&visit.method)
            .uri("/")
            .header(HOST, format!("{host}:{}", edge.port()))
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("vestibule-demo/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from_static(body.as_bytes())))?;
        let talk = async {
            let stream = TcpStream::connect(edge).await?;
            stream.set_nodelay(true)?;
            ask(self.tls.connect(name, stream).await?, request).await
        };
        let answer = timeout(DEADLINE, talk).await.map_err(io::Error::from).and_then(|done| done);
        answer.map_err(|e| Failure(format!("{} could not visit https://{host}:{}/: {e}", visit.device.title, edge.port())))
    }
}

/// What `/metrics` of the admin listener says.
pub async fn scrape(admin: SocketAddr) -> Result<String, Failure> {
    let request = Request::get("/metrics").header(HOST, admin.to_string()).body(Full::new(Bytes::new()))?;
    let talk = async { ask(TcpStream::connect(admin).await?, request).await };
    let answer = timeout(DEADLINE, talk).await.map_err(io::Error::from).and_then(|done| done);
    let answer = answer.map_err(|e| Failure(format!("cannot read http://{admin}/metrics: {e}")))?;
    if answer.status == 200 { Ok(answer.body) } else { Err(Failure(format!("http://{admin}/metrics answered {}", answer.status))) }
}

async fn ask<S>(stream: S, request: Request<Full<Bytes>>) -> io::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Errors of the connection reach the request as well.
    tokio::spawn(async move { drop(connection.await) });
    let response: Response<_> = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
}
