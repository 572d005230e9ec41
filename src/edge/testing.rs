//! What the room's tests share.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A fault of ours, at a request that asks for one.
pub fn fault(headers: &http::HeaderMap) {
    assert!(!headers.contains_key("x-fault"), "a fault of ours");
}

/// Takes at most so many bytes a write, and each write once it is let; notes them.
#[derive(Default)]
pub struct Sink {
    pub most: usize,
    pub shut: bool,
    pub writes: Vec<Vec<u8>>,
    /// Bytes that it was given to keep until more come.
    pub waits: Cell<usize>,
}

/// Nothing comes.
impl AsyncRead for Sink {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Sink {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, _: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.shut {
            return Poll::Pending;
        }
        let most = self.most;
        let taken: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).take(most).collect();
        let count = taken.len();
        self.writes.push(taken);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
