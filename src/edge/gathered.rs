//! Writes of an HTTP/2 connection, held together.
//!
//! h2 flushes after nearly every frame, and each flush would be a TLS record, a system call and often a packet of its own. All that one turn of
//! the connection has to say goes out together instead, when the turn is over: nothing waits longer than the turn takes.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// As much as a TLS record holds (RFC 8446 section 5.1).
const MOST: usize = 16 << 10;

#[derive(Debug)]
struct Inner<S> {
    stream: S,
    held: Vec<u8>,
    /// Of `held`, what has been written.
    written: usize,
}

impl<S: AsyncWrite + Unpin> Inner<S> {
    /// Writes what is held.
    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let left @ [_, ..] = self.held.get(self.written..).unwrap_or_default() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                now => self.written += now,
            }
        }
        // Given back: a connection that is silent needs none, and most are.
        self.held = Vec::new();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

/// hyper's side: flushes nothing by itself.
#[derive(Debug)]
pub struct Gathered<S>(Rc<RefCell<Inner<S>>>);

/// The connection's side.
#[derive(Debug)]
pub struct Release<S>(Rc<RefCell<Inner<S>>>);

pub fn gathered<S>(stream: S) -> (Gathered<S>, Release<S>) {
    let inner = Rc::new(RefCell::new(Inner { stream, held: Vec::new(), written: 0 }));
    (Gathered(Rc::clone(&inner)), Release(inner))
}

impl<S: AsyncWrite + Unpin> Release<S> {
    /// Ready when all that was written is out.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_release(cx))?;
        Pin::new(&mut inner.stream).poll_flush(cx)
    }
}

pin_project_lite::pin_project! {
    /// A connection that writes to `Gathered`, turn by turn. Over when all that it wrote is out.
    pub struct Turns<F: Future, S> {
        #[pin]
        connection: F,
        release: Release<S>,
        ended: Option<F::Output>,
    }
}

impl<F: Future, S> Turns<F, S> {
    pub fn new(connection: F, release: Release<S>) -> Self {
        Self { connection, release, ended: None }
    }

    pub fn connection(self: Pin<&mut Self>) -> Pin<&mut F> {
        self.project().connection
    }
}

impl<F: Future, S: AsyncWrite + Unpin> Turns<F, S> {
    /// Writes the last words of a connection that is over, and shuts the stream.
    pub async fn part(self: Pin<&mut Self>, words: [u8; 17]) {
        let release = self.project().release;
        release.0.borrow_mut().held.extend_from_slice(&words);
        let _ = std::future::poll_fn(|cx| {
            ready!(release.poll(cx))?;
            Pin::new(&mut release.0.borrow_mut().stream).poll_shutdown(cx)
        })
        .await;
    }
}

impl<F: Future, S: AsyncWrite + Unpin> Future for Turns<F, S> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if this.ended.is_none()
            && let Poll::Ready(output) = this.connection.poll(cx)
        {
            *this.ended = Some(output);
        }
        // A stream that fails fails the connection's next read as well.
        let released = this.release.poll(cx);
        match this.ended.take() {
            Some(output) if released.is_ready() => Poll::Ready(output),
            ended => {
                *this.ended = ended;
                Poll::Pending
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        let inner = &mut *inner;
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if inner.held.len() + total > MOST {
            ready!(inner.poll_release(cx))?;
            // More than would be held: no copy.
            if total > MOST / 2 {
                return Pin::new(&mut inner.stream).poll_write_vectored(cx, bufs);
            }
        }
        if inner.held.is_empty() {
            inner.held.reserve_exact(MOST);
        }
        for buf in bufs {
            inner.held.extend_from_slice(buf);
        }
        Poll::Ready(Ok(total))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The end of the turn flushes.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_release(cx))?;
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::super::testing::Sink;
    use super::*;

    fn sink(most: usize) -> (Gathered<Sink>, Release<Sink>) {
        gathered(Sink { most, ..Sink::default() })
    }

    fn write(gathered: &mut Gathered<Sink>, bufs: &[&[u8]]) -> Poll<usize> {
        let bufs: Vec<_> = bufs.iter().map(|buf| IoSlice::new(buf)).collect();
        Pin::new(gathered).poll_write_vectored(&mut Context::from_waker(Waker::noop()), &bufs).map(Result::unwrap)
    }

    fn release(release: &Release<Sink>) -> bool {
        release.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn writes(release: &Release<Sink>) -> Vec<usize> {
        release.0.borrow().stream.writes.iter().map(Vec::len).collect()
    }

    #[test]
    fn a_turn_is_one_write() {
        let (mut out, end) = sink(usize::MAX);
        for _ in 0..10 {
            assert_eq!(write(&mut out, &[b"head", b"body"]), Poll::Ready(8));
            assert!(Pin::new(&mut out).poll_flush(&mut Context::from_waker(Waker::noop())).is_ready());
        }
        assert_eq!(writes(&end), [0; 0]);
        assert!(release(&end));
        assert_eq!(writes(&end), [80]);
        assert!(release(&end));
        assert_eq!(writes(&end), [80], "nothing is left to write");
        assert_eq!(end.0.borrow().held.capacity(), 0, "a silent connection holds no buffer");
    }

    #[test]
    fn what_is_large_is_not_copied_and_stays_in_order() {
        let (mut out, end) = sink(usize::MAX);
        assert_eq!(write(&mut out, &[b"head"]), Poll::Ready(4));
        assert_eq!(write(&mut out, &[&[b'x'; MOST]]), Poll::Ready(MOST));
        assert_eq!(write(&mut out, &[b"tail"]), Poll::Ready(4));
        assert!(release(&end));
        assert_eq!(writes(&end), [4, MOST, 4]);
    }

    #[test]
    fn a_stream_that_takes_nothing_holds_the_writer_back() {
        let (mut out, end) = sink(usize::MAX);
        end.0.borrow_mut().stream.shut = true;
        let part = [b'x'; 1000];
        let taken = (0..100).take_while(|_| write(&mut out, &[&part]).is_ready()).count();
        assert_eq!(taken, MOST / part.len());
        assert!(!release(&end));
        end.0.borrow_mut().stream.shut = false;
        assert!(release(&end));
        assert_eq!(writes(&end), [taken * part.len()]);
    }

    #[test]
    fn no_byte_is_lost_or_out_of_order_however_little_the_stream_takes() {
        for most in [1, 7, 1000] {
            let (mut out, end) = sink(most);
            let mut expected = Vec::new();
            for turn in 0..30_u8 {
                for part in 0..3 {
                    let mut left = vec![turn * 3 + part; usize::from(turn) * 300];
                    expected.extend_from_slice(&left);
                    while !left.is_empty() {
                        let Poll::Ready(taken) = write(&mut out, &[&left]) else { panic!("it takes all") };
                        left.drain(..taken);
                    }
                }
                assert!(release(&end));
            }
            assert_eq!(end.0.borrow().stream.writes.concat(), expected);
        }
    }

    #[test]
    fn a_connection_ends_when_its_last_words_are_out() {
        let (mut out, end) = sink(usize::MAX);
        end.0.borrow_mut().stream.shut = true;
        let inner = Rc::clone(&end.0);
        let said = std::future::poll_fn(move |_| write(&mut out, &[b"goaway"]));
        let mut turns = std::pin::pin!(Turns::new(said, end));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(turns.as_mut().poll(&mut cx).is_pending());
        inner.borrow_mut().stream.shut = false;
        assert_eq!(turns.as_mut().poll(&mut cx), Poll::Ready(6));
        assert_eq!(inner.borrow().stream.writes, [b"goaway"]);
    }
}
