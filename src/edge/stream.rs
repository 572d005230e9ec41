//! A client's connection to us.

use std::io::{self, IoSlice, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use super::socket;

/// As tokio's, but for this: it waits for room to write only once there was none. Told of both from the start, the kernel reports the room that each
/// new connection has, and the worker looks up for nothing.
#[derive(Debug)]
pub struct Stream {
    /// `None` when it could not be registered anew: the connection is over.
    watched: Option<AsyncFd<TcpStream>>,
    /// Nothing was read yet. What a client sends first has mostly come by the time that its connection is taken.
    fresh: bool,
    /// There was no room once.
    full: bool,
}

impl Stream {
    /// Of a socket that does not block.
    ///
    /// # Errors
    /// When the kernel has no room to watch it.
    pub fn new(socket: TcpStream) -> io::Result<Self> {
        Ok(Self { watched: Some(socket::watch(socket, Interest::READABLE)?), fresh: true, full: false })
    }

    fn watched(&self) -> io::Result<&AsyncFd<TcpStream>> {
        self.watched.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn socket(&self) -> io::Result<&TcpStream> {
        self.watched().map(AsyncFd::get_ref)
    }

    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket()?.peer_addr()
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket()?.local_addr()
    }

    /// See `socket::saved_syn`.
    pub fn saved_syn(&self) -> Option<Vec<u8>> {
        socket::saved_syn(self.socket().ok()?)
    }

    /// See `socket::acknowledge`.
    pub fn acknowledge(&self) {
        let _ = self.socket().map(socket::acknowledge);
    }

    /// See `socket::reset`.
    pub fn reset(&self) {
        let _ = self.socket().map(socket::reset);
    }

    /// See `socket::write_more`.
    pub fn write_more(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        socket::write_more(self.socket()?, bufs)
    }

    /// The next bytes, which stay to be read.
    pub async fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        self.watched()?.async_io(Interest::READABLE, |socket| socket.peek(bytes)).await
    }

    /// Whether a read would find nothing; then the task is woken as by the read.
    pub fn is_still(&self, cx: &mut Context<'_>) -> bool {
        self.watched.as_ref().is_some_and(|watched| watched.poll_read_ready(cx).is_pending())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, send: impl Fn(&TcpStream) -> io::Result<usize>) -> Poll<io::Result<usize>> {
        loop {
            let watched = self.watched()?;
            let sent = if self.full {
                let Ok(sent) = ready!(watched.poll_write_ready(cx))?.try_io(|watched| send(watched.get_ref())) else { continue };
                sent
            } else {
                send(watched.get_ref())
            };
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_for_room(cx)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    fn wait_for_room(&mut self, cx: &Context<'_>) -> io::Result<()> {
        if let Some(watched) = self.watched.take() {
            self.watched = Some(socket::watch(watched.into_inner(), Interest::READABLE | Interest::WRITABLE)?);
        }
        self.full = true;
        // Who waits to read is forgotten with the watch of before: the same task, which looks again.
        cx.waker().wake_by_ref();
        Ok(())
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let fresh = std::mem::take(&mut self.fresh);
        let watched = self.watched()?;
        if fresh {
            match socket::receive(watched.get_ref(), buf) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                read => return Poll::Ready(read.map(drop)),
            }
        }
        loop {
            let mut ready = ready!(watched.poll_read_ready(cx))?;
            let room = buf.remaining();
            match ready.try_io(|watched| socket::receive(watched.get_ref(), buf)) {
                Ok(Ok(count)) => {
                    // That was all there is. The kernel tells of what comes from now on.
                    if 0 < count && count < room {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_nothing_there) => {}
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, |mut socket| socket.write(buf))
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, |mut socket| socket.write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket()?.shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A client, and its connection to us.
    fn pair() -> (TcpStream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, Stream::new(socket::accept(&listener).unwrap().0).unwrap())
    }

    async fn in_time<T>(work: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            // First, or what nobody was woken for would be found when the time is over.
            () = tokio::time::sleep(Duration::from_secs(20)) => panic!("nobody was woken"),
            done = work => done,
        }
    }

    #[tokio::test]
    async fn all_that_comes_is_read_however_it_comes() {
        for room in [1, 7, 4096] {
            let (mut client, mut stream) = pair();
            let mut sent: Vec<u8> = Vec::new();
            let mut read = Vec::<u8>::new();
            for length in [1_usize, 2, 6, 7, 8, 4096, 5000, 70_000] {
                let bytes: Vec<u8> = (0..length).map(|at| (at * 7 + length) as u8).collect();
                client.write_all(&bytes).unwrap();
                sent.extend(bytes);
                while read.len() < sent.len() {
                    let mut part = vec![0; room];
                    let count = in_time(stream.read(&mut part)).await.unwrap();
                    assert!(count > 0);
                    read.extend(&part[..count]);
                }
            }
            assert!(read == sent, "{room}");
            drop(client);
            assert_eq!(in_time(stream.read(&mut [0; 8])).await.unwrap(), 0);
        }
    }

    /// A client that reads nothing says something: who waited for that, and then found no room to write, hears it.
    #[tokio::test]
    async fn who_waits_to_read_is_woken_still_once_there_was_no_room() {
        let (mut client, mut stream) = pair();
        let bytes: Vec<u8> = (0..32_u32 << 20).map(|at| (at >> 8) as u8).collect();
        let expected = bytes.clone();
        let (full, was_full) = std::sync::mpsc::channel();
        let (heard, was_heard) = std::sync::mpsc::channel();
        let peer = std::thread::spawn(move || {
            was_full.recv().unwrap();
            client.write_all(b"done").unwrap();
            was_heard.recv().unwrap();
            let mut received = vec![0; expected.len()];
            client.read_exact(&mut received).unwrap();
            assert!(received == expected);
        });
        let mut sent = 0;
        // One task that does both, as hyper's does.
        let said = in_time(std::future::poll_fn(|cx| {
            let mut room = [0; 8];
            let mut room = ReadBuf::new(&mut room);
            if Pin::new(&mut stream).poll_read(cx, &mut room)?.is_ready() {
                return Poll::Ready(io::Result::Ok(room.filled().to_vec()));
            }
            while let Poll::Ready(count) = Pin::new(&mut stream).poll_write(cx, &bytes[sent..])? {
                sent += count;
            }
            let _ = full.send(());
            Poll::Pending
        }))
        .await;
        assert_eq!(said.unwrap(), b"done");
        assert!((1..bytes.len()).contains(&sent), "{sent}");
        heard.send(()).unwrap();
        in_time(stream.write_all(&bytes[sent..])).await.unwrap();
        peer.join().unwrap();
    }

    #[tokio::test]
    async fn a_reset_is_an_error_and_not_an_end() {
        for waits in [false, true] {
            let (client, mut stream) = pair();
            if waits {
                (&client).write_all(b"x").unwrap();
                assert_eq!(in_time(stream.read_u8()).await.unwrap(), b'x');
            }
            socket::reset(&client);
            drop(client);
            assert_eq!(in_time(stream.read_u8()).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "{waits}");
        }
    }

    #[tokio::test]
    async fn what_was_peeked_at_is_there_to_be_read() {
        let (mut client, mut stream) = pair();
        client.write_all(b"hello").unwrap();
        let mut seen = [0; 8];
        assert_eq!(in_time(stream.peek(&mut seen)).await.unwrap(), 5);
        assert_eq!(in_time(stream.read(&mut seen)).await.unwrap(), 5);
        assert_eq!(&seen[..5], b"hello");
        stream.write_all(b"bye").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut said = String::new();
        client.read_to_string(&mut said).unwrap();
        assert_eq!(said, "bye");
    }
}
