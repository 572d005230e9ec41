//! What is left of a request that is answered already.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http_body::Body as _;
use hyper::body::Incoming;

/// The rest of an HTTP/2 request that is answered already, from its drop on: read and thrown away, so far and so long. Without the rest our RST_STREAM
/// follows the answer at once (RFC 9113 section 8.1), and widespread clients (curl before 8) take that for a failed request.
pub struct Rest {
    /// Gone from its drop on.
    pub(super) incoming: Option<Incoming>,
    http2: bool,
}

impl Rest {
    const BYTES: usize = 256 << 10;
    const TIME: Duration = Duration::from_secs(2);

    /// HTTP/1 has no need of it: there the connection ends, in its own way.
    pub fn of(incoming: Incoming, version: Version) -> Self {
        Self { incoming: Some(incoming), http2: version == Version::HTTP_2 }
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
