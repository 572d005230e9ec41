//! The way to a server: a TCP connection or a Unix socket, the client's name ahead, TLS around it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::proxy_header::{self, Ends};
use super::upstreams::Reach;
use crate::config::{At, Protocol};

/// Nearly all are TCP: what is rare is boxed.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection over which no byte of HTTP has gone yet, ready for the server's protocol. `ends`: for servers that are told whom the connection is
/// for.
pub(super) async fn dial(reach: &Reach, tls: Option<&Arc<ClientConfig>>, ends: Option<Ends>) -> io::Result<Socket> {
    let header = proxy_header::header(reach.proxy_protocol, ends);
    let mut tcp = match (&reach.at, reach.address) {
        (At::Unix(path), _) => {
            let mut stream = UnixStream::connect(path).await?;
            stream.write_all(&header).await?;
            return Ok(Socket::Unix(stream));
        }
        (_, Some(address)) => TcpStream::connect(address).await?,
        // Tries each address of the name in turn.
        (At::Tcp { host, port }, None) => TcpStream::connect((host.as_str(), *port)).await?,
    };
    tcp.set_nodelay(true)?;
    if reach.protocol != Protocol::Http1 {
        keep_alive(&tcp);
    }
    if !header.is_empty() {
        tcp.write_all(&header).await?;
    }
    match &reach.tls {
        None => Ok(Socket::Tcp(tcp)),
        Some(_) => secure(reach, tcp, tls).await,
    }
}

async fn secure(reach: &Reach, tcp: TcpStream, tls: Option<&Arc<ClientConfig>>) -> io::Result<Socket> {
    // Never without: a set-up that is missing is a failed connection.
    let tls = tls.ok_or_else(|| unfit("TLS with the server is not set up".to_owned()))?;
    let name = name_of(reach).ok_or_else(|| unfit("the server's name cannot stand in a certificate".to_owned()))?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await.map_err(|error| {
        let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        match tls {
            Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)) if reach.protocol == Protocol::H2 => {
                unfit("the server does not offer HTTP/2 over TLS (ALPN `h2`)".to_owned())
            }
            Some(error) => unfit(format!("TLS with the server failed: {error}")),
            None => error,
        }
    })?;
    let selected = stream.get_ref().1.alpn_protocol();
    if reach.protocol == Protocol::H2 && selected != Some(b"h2") {
        let selected = selected.map_or_else(|| "nothing".to_owned(), |name| format!("`{}`", String::from_utf8_lossy(name)));
        return Err(unfit(format!("the server did not select HTTP/2: expected ALPN `h2`, found {selected}")));
    }
    Ok(Socket::Tls(Box::new(stream)))
}

/// In SNI and in the certificate; an address is in the certificate alone.
fn name_of(reach: &Reach) -> Option<ServerName<'static>> {
    let named = reach.tls.as_ref().and_then(|tls| tls.server_name.as_ref()).map(|host| host.as_str());
    let host = match (named, &reach.at) {
        (Some(named), _) => named,
        (None, At::Tcp { host, .. }) => host.as_str(),
        (None, At::Unix(_)) => return None,
    };
    ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']').to_owned()).ok()
}

/// The server took the connection and is not what the configuration says: worth an operator's attention.
pub(super) fn unfit(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// A host that vanished is noticed by the kernel though streams stand still for hours; a PING of HTTP/2 would be, to many gRPC servers, one too many.
fn keep_alive(tcp: &TcpStream) {
    use std::time::Duration;
    let probes = socket2::TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10)).with_retries(3);
    if let Err(error) = socket2::SockRef::from(tcp).set_tcp_keepalive(&probes) {
        tracing::debug!(%error, "no keep-alive on a connection to an app");
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Unix(unix) => Pin::new(unix).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Unix(unix) => Pin::new(unix).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.is_write_vectored(),
            Self::Unix(unix) => unix.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }
}
