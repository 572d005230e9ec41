//! The first bytes of a TLS connection: read under a cap, fingerprinted, then replayed into rustls.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustls::pki_types::DnsName;
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::leash::Leash;
use super::stream::Stream;
use crate::fingerprint::hello::{self, Arriving, Progress};
use crate::model::Wire;

/// Why no ClientHello came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoHello {
    #[error("the peer closed before its ClientHello was complete")]
    Closed,
    #[error("the bytes are not TLS")]
    NotTls,
    #[error("the ClientHello is malformed: {0}")]
    Malformed(&'static str),
    #[error("the ClientHello is larger than limits.client_hello")]
    TooLarge,
}

/// A connection whose ClientHello has come.
pub struct Opened {
    /// All that was read, the hello first.
    pub bytes: Vec<u8>,
    /// The server name (RFC 6066 section 3) in lower case, if it is one.
    pub name: Option<String>,
}

/// Reads until the ClientHello is whole; it may have `most` bytes. The caller keeps the deadline. `wire` gets the fingerprints, JA3 where it is
/// asked for.
pub async fn read<S: AsyncRead + Unpin>(io: &mut S, most: usize, ja3: bool, wire: &mut Wire) -> Result<Opened, NoHello> {
    let mut bytes = Vec::with_capacity(2048);
    let mut hello = Arriving::default();
    loop {
        match io.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return Err(NoHello::Closed),
            Ok(_) => {}
        }
        // Fragments are never empty, so this bounds the records around the hello as well.
        if hello::length(&bytes).is_some_and(|length| length > most) {
            return Err(NoHello::TooLarge);
        }
        match hello.read(&bytes) {
            Progress::NeedMore => {}
            Progress::NotTls => return Err(NoHello::NotTls),
            Progress::Malformed(what) => return Err(NoHello::Malformed(what)),
            Progress::Hello(hello) => {
                let (ja4, stable) = hello.ja4s();
                wire.ja4 = Some(ja4);
                wire.ja4_stable = Some(stable);
                wire.traits = Some(hello.traits());
                wire.ja3 = ja3.then(|| hello.ja3());
                let name = hello.sni().and_then(|name| DnsName::try_from(name).ok());
                return Ok(Opened { bytes, name: name.map(|name| name.as_ref().to_ascii_lowercase()) });
            }
        }
    }
}

/// A stream whose first bytes were read before and are read again. Writes pass through, vectored ones too, but for two that cost neither a system call
/// nor a packet of their own: the session ticket waits for the first answer (RFC 8446 section 4.6.1 lets it come at any time), and the last answer for
/// the alert behind it.
#[derive(Debug)]
pub struct Replayed<S> {
    head: Vec<u8>,
    at: usize,
    inner: S,
    waits: Waits,
    /// What `idle` does; `None` where no ticket was held.
    idle: Option<fn(&S)>,
    minded: Option<Minded<S>>,
}

/// Writes what need not leave before something follows it.
type WriteMore<S> = fn(&S, &[IoSlice<'_>]) -> io::Result<usize>;

/// Who knows what the connection is about.
#[derive(Debug)]
struct Minded<S> {
    leash: Rc<Leash>,
    write_more: WriteMore<S>,
}

/// What is to be sent, and waits for what comes behind it.
#[derive(Debug)]
enum Waits {
    /// Nothing, and the next to be written may be the session ticket.
    Ticket,
    Held {
        bytes: Vec<u8>,
        written: usize,
    },
    Nothing,
}

impl Waits {
    /// What waits is copied. A ticket is a few hundred bytes, and so is many an answer; what is longer is not held.
    const LONGEST: usize = 4096;
    /// A record of application data (RFC 8446 section 5.1). Under TLS 1.3 each of the server's handshake flights begins with a handshake record,
    /// and under TLS 1.2 none has one of these: what begins with it is sent after the handshake.
    const APPLICATION_DATA: u8 = 23;

    fn is_ticket(bufs: &[IoSlice<'_>]) -> bool {
        bufs.iter().find_map(|buf| buf.first()) == Some(&Self::APPLICATION_DATA)
    }
}

impl<S> Replayed<S> {
    pub fn new(head: Vec<u8>, inner: S) -> Self {
        Self { head, at: 0, inner, waits: Waits::Ticket, idle: None, minded: None }
    }

    /// The handshake is over: what is written from now on is an answer, and only the last is held. Not every handshake ends with a ticket.
    ///
    /// Where one is held, the client's last flight is not acknowledged by it, and a client that waits for that before it sends the request (Nagle's
    /// algorithm, RFC 9293 section 3.7.4) would wait for the kernel's delayed acknowledgement, 40 ms. `idle` is to acknowledge at once.
    pub fn settle(&mut self, idle: fn(&S)) {
        match self.waits {
            Waits::Ticket => self.waits = Waits::Nothing,
            Waits::Held { .. } => self.idle = Some(idle),
            Waits::Nothing => {}
        }
    }

    /// The first request lets itself be waited for: acknowledges what came if the ticket has not.
    pub fn idle(&self) {
        if let (Some(idle), Waits::Held { .. }) = (self.idle, &self.waits) {
            idle(&self.inner);
        }
    }

    /// Whether this was put to what waits, or begins to wait.
    fn holds(&mut self, bufs: &[IoSlice<'_>], total: usize) -> bool {
        let (held, waits) = match &self.waits {
            Waits::Ticket => (0, Waits::is_ticket(bufs)),
            Waits::Nothing => (0, self.parts()),
            Waits::Held { bytes, .. } => (bytes.len(), self.parts()),
        };
        if !waits || held + total > Waits::LONGEST {
            return false;
        }
        if held == 0 {
            self.waits = Waits::Held { bytes: Vec::with_capacity(total), written: 0 };
        }
        if let Waits::Held { bytes, .. } = &mut self.waits {
            bufs.iter().for_each(|buf| bytes.extend_from_slice(buf));
        }
        true
    }

    fn parts(&self) -> bool {
        self.minded.as_ref().is_some_and(|minded| minded.leash.parts())
    }

    /// From now on `leash` says when what is written is the connection's last: that goes out by `write_more`.
    pub fn mind(&mut self, leash: Rc<Leash>, write_more: WriteMore<S>) {
        self.minded = Some(Minded { leash, write_more });
    }
}

impl Replayed<Stream> {
    /// Whether a read would find nothing; then the task is woken as by the read.
    pub fn is_still(&self, cx: &mut Context<'_>) -> bool {
        self.head.is_empty() && self.inner.is_still(cx)
    }
}

impl<S: AsyncWrite + Unpin> Replayed<S> {
    /// Writes what is held, with `bufs` behind it; how much of `bufs` was written.
    fn poll_release(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        while let Waits::Held { bytes, written } = &mut self.waits {
            let left = bytes.get(*written..).unwrap_or_default();
            let mut all: SmallVec<[IoSlice<'_>; 16]> = SmallVec::new();
            all.push(IoSlice::new(left));
            all.extend(bufs.iter().copied());
            let now = ready!(send(&mut self.inner, self.minded.as_ref(), cx, &all))?;
            let beyond = now.checked_sub(left.len());
            drop(all);
            match beyond {
                None if now == 0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                None => *written += now,
                Some(beyond) => {
                    self.waits = Waits::Nothing;
                    if beyond > 0 {
                        return Poll::Ready(Ok(beyond));
                    }
                }
            }
        }
        if bufs.is_empty() { Poll::Ready(Ok(0)) } else { send(&mut self.inner, self.minded.as_ref(), cx, bufs) }
    }
}

fn send<S: AsyncWrite + Unpin>(
    inner: &mut S,
    minded: Option<&Minded<S>>,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let Some(Minded { leash, write_more }) = minded
        && leash.parts()
        && let Ok(written) = write_more(inner, bufs)
    {
        // The end of the stream sends it off: the last answer, the alert that says so, and the end itself in one packet.
        return Poll::Ready(Ok(written));
    }
    match bufs {
        // One buffer alone is cheaper sent: the kernel has no list to copy.
        [only] => Pin::new(inner).poll_write(cx, only),
        _ => Pin::new(inner).poll_write_vectored(cx, bufs),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Replayed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if matches!(this.waits, Waits::Held { .. }) && this.parts() {
            // Nobody reads behind the last answer but who lets the client see it first.
            ready!(this.poll_release(cx, &[]))?;
        }
        let left = this.head.get(this.at..).unwrap_or_default();
        if left.is_empty() {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        }
        let now = left.get(..left.len().min(buf.remaining())).unwrap_or_default();
        buf.put_slice(now);
        this.at += now.len();
        if this.at >= this.head.len() {
            this.head = Vec::new();
            this.at = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replayed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if !matches!(this.waits, Waits::Nothing) || this.parts() {
            let total = bufs.iter().map(|buf| buf.len()).sum();
            if this.holds(bufs, total) {
                return Poll::Ready(Ok(total));
            }
        }
        match &this.waits {
            Waits::Nothing => return send(&mut this.inner, this.minded.as_ref(), cx, bufs),
            Waits::Held { .. } => return this.poll_release(cx, bufs),
            Waits::Ticket => {}
        }
        let written = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, bufs))?;
        if written < bufs.iter().map(|buf| buf.len()).sum() {
            // What comes next begins inside a record, where a first byte says nothing.
            this.waits = Waits::Nothing;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_release(cx, &[]))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::super::testing::Sink;
    use super::*;

    async fn written(most: usize, parts: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut stream = Replayed::new(Vec::new(), Sink { most, ..Sink::default() });
        for part in parts {
            stream.write_all(part).await.unwrap();
            stream.flush().await.unwrap();
        }
        stream.shutdown().await.unwrap();
        stream.inner.writes
    }

    const FLIGHT: &[u8] = &[22, 3, 3, 0, 1, 2];
    const TICKET: &[u8] = &[23, 3, 3, 0, 1, 9];
    const ANSWER: &[u8] = &[23, 3, 3, 0, 1, 7];
    const ALERT: &[u8] = &[23, 3, 3, 0, 1, 5];

    #[tokio::test]
    async fn the_ticket_goes_out_with_the_first_answer() {
        assert_eq!(written(100, &[FLIGHT, TICKET, ANSWER]).await, [FLIGHT.to_vec(), [TICKET, ANSWER].concat()]);
    }

    #[tokio::test]
    async fn a_connection_without_an_answer_gets_its_ticket_at_the_end() {
        assert_eq!(written(100, &[FLIGHT, TICKET]).await, [FLIGHT, TICKET]);
    }

    #[tokio::test]
    async fn an_answer_after_a_handshake_without_a_ticket_is_not_held() {
        let mut stream = Replayed::new(Vec::new(), Sink { most: 100, ..Sink::default() });
        stream.write_all(FLIGHT).await.unwrap();
        stream.settle(|_| {});
        stream.write_all(ANSWER).await.unwrap();
        assert_eq!(stream.inner.writes, [FLIGHT, ANSWER]);
    }

    /// As the socket's, which keeps what it is given until more comes.
    fn write_more(sink: &Sink, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let all = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        sink.waits.set(sink.waits.get() + all);
        if sink.shut { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(all) }
    }

    /// The handshake is over, and perhaps a ticket waits.
    async fn settled(ticket: &[u8]) -> (Replayed<Sink>, super::super::leash::Held) {
        let leash = super::super::leash::Leashes::new().add(&"edge".into());
        let mut stream = Replayed::new(Vec::new(), Sink { most: 100, ..Sink::default() });
        stream.write_all(FLIGHT).await.unwrap();
        if !ticket.is_empty() {
            stream.write_all(ticket).await.unwrap();
        }
        stream.settle(|_| {});
        stream.mind(Rc::clone(&leash.leash), write_more);
        (stream, leash)
    }

    #[tokio::test]
    async fn only_what_is_the_connections_last_waits_for_its_end_and_goes_out_with_it() {
        for ticket in [&b""[..], TICKET] {
            let (mut stream, _leash) = settled(ticket).await;
            stream.write_all(ANSWER).await.unwrap();
            assert_eq!((stream.inner.writes.concat(), stream.inner.waits.get()), ([FLIGHT, ticket, ANSWER].concat(), 0));

            let (mut stream, leash) = settled(ticket).await;
            leash.leash.part();
            stream.write_all(ANSWER).await.unwrap();
            stream.flush().await.unwrap();
            stream.write_all(ALERT).await.unwrap();
            assert_eq!((stream.inner.writes.as_slice(), stream.inner.waits.get()), (&[FLIGHT.to_vec()][..], 0));
            stream.shutdown().await.unwrap();
            assert_eq!((stream.inner.writes.len(), stream.inner.waits.get()), (1, ticket.len() + ANSWER.len() + ALERT.len()), "once");
        }
    }

    #[tokio::test]
    async fn a_last_answer_that_is_long_is_not_copied() {
        let (mut stream, leash) = settled(TICKET).await;
        leash.leash.part();
        let long = [ANSWER, &[0; Waits::LONGEST]].concat();
        stream.write_all(&long).await.unwrap();
        assert_eq!(stream.inner.waits.get(), TICKET.len() + long.len());
    }

    #[tokio::test]
    async fn what_the_socket_does_not_take_at_once_is_written_as_everything_is() {
        let (mut stream, leash) = settled(TICKET).await;
        leash.leash.part();
        stream.write_all(ANSWER).await.unwrap();
        stream.inner.shut = true;
        let mut noop = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut stream).poll_shutdown(&mut noop).is_pending());
        assert_eq!(stream.inner.waits.get(), TICKET.len() + ANSWER.len(), "it was tried");
        (stream.inner.shut, stream.inner.most) = (false, 3);
        stream.minded = None;
        stream.shutdown().await.unwrap();
        assert_eq!(stream.inner.writes.concat(), [FLIGHT, TICKET, ANSWER].concat());
    }

    #[tokio::test]
    async fn who_reads_behind_the_last_answer_has_sent_it() {
        let (mut stream, leash) = settled(TICKET).await;
        leash.leash.part();
        stream.write_all(ANSWER).await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
        assert_eq!(stream.inner.waits.get(), TICKET.len() + ANSWER.len());
    }

    #[tokio::test]
    async fn only_one_write_is_ever_held() {
        assert_eq!(written(100, &[FLIGHT, TICKET, ANSWER, ANSWER]).await.last().unwrap(), ANSWER);
    }

    #[tokio::test]
    async fn no_byte_is_lost_or_out_of_order_however_little_the_socket_takes() {
        for most in 1..20 {
            let all = written(most, &[FLIGHT, TICKET, ANSWER, ANSWER]).await.concat();
            assert_eq!(all, [FLIGHT, TICKET, ANSWER, ANSWER].concat(), "{most}");
        }
    }

    #[tokio::test]
    async fn after_a_partial_write_nothing_is_taken_for_a_ticket() {
        // The flight's second half begins with the byte that a ticket begins with.
        let flight: &[u8] = &[22, 3, 3, 0, 23, 1];
        let writes = written(4, &[flight]).await;
        assert_eq!(writes, [&flight[..4], &flight[4..]]);
    }
}
