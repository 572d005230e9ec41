//! A request's body, and what is left of it when the request is answered already.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version};
use http_body::{Body as _, SizeHint};
use hyper::body::Incoming;

/// A request's body. What nobody has read of it when it is dropped is, over HTTP/2, read and thrown away, so far and so long: without the rest our
/// RST_STREAM follows the answer at once (RFC 9113 section 8.1), and widespread clients (curl before 8) take that for a failed request.
#[derive(Debug, Default)]
pub struct Rest {
    /// Gone from its drop on.
    pub(super) incoming: Option<Incoming>,
    http2: bool,
}

impl Rest {
    const BYTES: usize = 256 << 10;
    const TIME: Duration = Duration::from_secs(2);

    /// HTTP/1 has no need of it: there the connection ends, in its own way.
    pub fn of(request: Request<Incoming>) -> Request<Self> {
        let http2 = request.version() == Version::HTTP_2;
        request.map(|incoming| Self { incoming: Some(incoming), http2 })
    }

    pub fn is_empty(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map(Incoming::size_hint).unwrap_or_default()
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        let Some(mut incoming) = self.incoming.take().filter(|incoming| self.http2 && !incoming.is_end_stream()) else { return };
        let mut left = Self::BYTES;
        let drained = poll_fn(move |cx| {
            while let Some(Ok(frame)) = ready!(Pin::new(&mut incoming).poll_frame(cx)) {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    break;
                }
            }
            Poll::Ready(())
        });
        tokio::task::spawn_local(tokio::time::timeout(Self::TIME, drained));
    }
}
