//! The socket to an app, as hyper sees it.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Counts reads and writes that moved bytes, so that others can see whether anything moved since they last looked.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    pub(super) reads: Cell<u32>,
    pub(super) writes: Cell<u32>,
}

/// Forwards everything, vectored writes included: without them each head and body would be two writes, or a copy.
#[derive(Debug)]
pub(super) struct Felt<T> {
    io: T,
    pulse: Rc<Pulse>,
}

impl<T> Felt<T> {
    pub(super) fn new(io: T, pulse: Rc<Pulse>) -> Self {
        Self { io, pulse }
    }

    fn wrote(&self, written: usize) -> usize {
        if written > 0 {
            self.pulse.writes.set(self.pulse.writes.get().wrapping_add(1));
        }
        written
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Felt<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.pulse.reads.set(self.pulse.reads.get().wrapping_add(1));
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Felt<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        Poll::Ready(Ok(self.wrote(written)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        // One buffer alone is cheaper sent: the kernel has no list to copy.
        if let [only] = bufs {
            return self.poll_write(cx, only);
        }
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs))?;
        Poll::Ready(Ok(self.wrote(written)))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn vectored_writes_reach_the_socket_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        let pulse = Rc::new(Pulse::default());
        let mut io = TokioIo::new(Felt::new(stream, Rc::clone(&pulse)));
        assert!(hyper::rt::Write::is_write_vectored(&io));
        let bufs = [IoSlice::new(b"head "), IoSlice::new(b"body")];
        let written = std::future::poll_fn(|cx| hyper::rt::Write::poll_write_vectored(Pin::new(&mut io), cx, &bufs)).await.unwrap();
        assert_eq!((written, pulse.writes.get()), (9, 1), "one write took both buffers");
        let mut got = [0; 9];
        peer.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"head body");
    }
}
