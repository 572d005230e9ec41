//! Balancers that pass connections on and say whose they are, before the first byte of the client.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

use super::crowd::Entered;
use super::leash::Leash;
use super::serve::heeding;
use super::stream::Stream;
use super::{Edge, Entrance};
use crate::forward::Ends;
use crate::gate::Behind;
use crate::request::{Malformed, Progress, ProxyHeader, proxy_header};

/// Whose connection it is.
#[derive(Debug)]
pub struct Caller {
    pub peer: IpAddr,
    /// Of its own end; 0 where nobody said.
    pub port: u16,
    /// `None`: it is connected to us itself.
    pub behind: Option<Box<Behind>>,
    /// Of the client's own connection, as the balancer says.
    pub ends: Option<Ends>,
    /// The balancer ended the client's TLS.
    pub tls: bool,
    /// Of the time for the handshake.
    pub spent: Duration,
}

impl Caller {
    pub const fn itself(peer: IpAddr, port: u16) -> Self {
        Self { peer, port, behind: None, ends: None, tls: false, spent: Duration::ZERO }
    }

    fn told(header: ProxyHeader, balancer: IpAddr, spent: Duration) -> Self {
        let Some(client) = header.client else { return Self { spent, ..Self::itself(balancer, 0) } };
        let connection = header.unique_id.map(|id| String::from_utf8_lossy(&id).into());
        let behind = Some(Box::new(Behind::passed_on(balancer, connection)));
        let ends = header.target.map(|target| Ends { source: client, destination: target });
        Self { peer: client.ip(), port: client.port(), behind, ends, tls: header.tls, spent }
    }
}

/// Why nobody knows whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum NoHeader {
    #[error("the balancer closed before its PROXY header was complete")]
    Closed,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the PROXY header was not complete within limits.handshake")]
    Late,
}

impl NoHeader {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Malformed(_) => "proxy_header",
            Self::Late => "proxy_header_timeout",
        }
    }
}

/// Who may connect where PROXY headers are expected.
pub fn admits(edge: &Edge, entrance: &Entrance, peer: IpAddr) -> bool {
    let listed = entrance.balancers.as_ref().is_none_or(|trusted| trusted.iter().any(|net| net.contains(&peer)));
    if !listed {
        edge.counts.rejected("proxy_peer");
        tracing::debug!(%peer, listener = &*entrance.door.listener, "connection refused: not of a balancer in proxy_protocol.trusted");
    }
    listed
}

/// Takes the header off the connection, and its place in the crowd from the balancer to the client. `None`: the connection is over.
pub async fn caller(
    edge: &Edge,
    entrance: &Entrance,
    stream: &mut Stream,
    balancer: IpAddr,
    entered: &mut Entered,
    leash: &Leash,
) -> Option<Caller> {
    let began = Instant::now();
    let (limit, most, of_peer) = {
        let house = edge.core.house();
        let limits = &house.rules.limits;
        (limits.handshake, limits.proxy_header, limits.connections_per_peer)
    };
    let reading = async { tokio::time::timeout(limit, read(stream, most)).await.unwrap_or(Err(NoHeader::Late)) };
    let header = match heeding(leash, std::pin::pin!(reading), |_| {}).await? {
        Ok(header) => header,
        Err(error) => {
            edge.counts.rejected(error.as_str());
            tracing::debug!(%balancer, listener = &*entrance.door.listener, %error, "connection refused");
            return None;
        }
    };
    let caller = Caller::told(header, balancer, began.elapsed());
    if caller.behind.is_some()
        && let Err(full) = entered.moves(caller.peer, entrance.most_of(caller.peer, of_peer))
    {
        edge.counts.rejected(full.as_str());
        tracing::debug!(peer = %caller.peer, limit = full.as_str(), "connection refused: too many");
        return None;
    }
    Some(caller)
}

/// Reads the header and not one byte more: looks first, then takes what is the header's. As long as it is not whole, all that came is.
async fn read(stream: &mut Stream, most: usize) -> Result<ProxyHeader, NoHeader> {
    const LOOK: usize = 256;
    let mut bytes = Vec::with_capacity(LOOK);
    loop {
        let had = bytes.len();
        bytes.resize(had + LOOK, 0);
        let new = match stream.peek(bytes.get_mut(had..).unwrap_or_default()).await {
            Ok(0) | Err(_) => return Err(NoHeader::Closed),
            Ok(new) => new,
        };
        bytes.truncate(had + new);
        let (taken, header) = match proxy_header(&bytes, most)? {
            Progress::NeedMore => (new, None),
            Progress::Whole(header, length) => (length - had, Some(header)),
        };
        stream.read_exact(bytes.get_mut(had..had + taken).unwrap_or_default()).await.map_err(|_| NoHeader::Closed)?;
        if let Some(header) = header {
            return Ok(header);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 54321 443\r\n";

    /// What is read of these pieces, and what is left for the client's own reader.
    async fn left(pieces: &[&[u8]], most: usize) -> (Result<ProxyHeader, NoHeader>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        let mut server = Stream::new(listener.accept().await.unwrap().0.into_std().unwrap()).unwrap();
        let write = async {
            for piece in pieces {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            client.shutdown().await.unwrap();
        };
        let (header, ()) = tokio::join!(read(&mut server, most), write);
        let mut rest = Vec::new();
        if header.is_ok() {
            server.read_to_end(&mut rest).await.unwrap();
        }
        (header, rest)
    }

    fn second(block: usize) -> Vec<u8> {
        let noop = block - 12 - 3;
        let length = u16::try_from(block).unwrap().to_be_bytes();
        let noop_length = u16::try_from(noop).unwrap().to_be_bytes();
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..], &length, &[192, 0, 2, 7, 10, 0, 0, 1, 0xd4, 0x31, 1, 0xbb, 4], &noop_length, &vec![0; noop]]
            .concat()
    }

    #[tokio::test]
    async fn no_byte_behind_the_header_is_taken_however_it_comes() {
        for header in [LINE.to_vec(), second(20), second(2000)] {
            let all = [&header[..], b"\x16\x03\x01 hello"].concat();
            for size in [1, 7, 40, header.len() - 1, header.len(), header.len() + 3, all.len()] {
                let pieces: Vec<&[u8]> = all.chunks(size).collect();
                let (read, rest) = left(&pieces, 4096).await;
                assert_eq!(read.unwrap().client.unwrap().to_string(), "192.0.2.7:54321", "{size}");
                assert_eq!(rest, b"\x16\x03\x01 hello", "{size}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_not_waited_for() {
        assert_eq!(left(&[&LINE[..20]], 4096).await.0, Err(NoHeader::Closed));
        assert_eq!(left(&[], 4096).await.0, Err(NoHeader::Closed));
        assert!(matches!(left(&[b"GET / HTTP/1.1\r\n"], 4096).await.0, Err(NoHeader::Malformed(_))));
        assert!(matches!(left(&[&second(2000)], 2015).await.0, Err(NoHeader::Malformed(_))));
        assert!(left(&[&second(2000)], 2016).await.0.is_ok());
    }
}
