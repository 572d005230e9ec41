//! A response's body as it comes, over whichever protocol.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::body::Cut;
use super::http2::Receiving;
use super::hygiene;
use super::pool::Conn;

pub(super) enum Arriving {
    Http1(Incoming),
    Http2(Box<Receiving>),
}

impl Arriving {
    /// `conn` is the connection that it comes over.
    pub(super) fn poll_frame(&mut self, conn: &mut Conn, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let frame = match self {
            Self::Http1(incoming) => {
                let frame = match conn.parts() {
                    Some((_, driven)) => ready!(driven.drive(cx, |cx| Pin::new(&mut *incoming).poll_frame(cx))),
                    None => ready!(Pin::new(incoming).poll_frame(cx)),
                };
                frame.map(|frame| frame.map_err(Cut::App))
            }
            Self::Http2(receiving) => ready!(receiving.poll_frame(cx)),
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) if frame.is_trailers() => {
                let mut trailers: HeaderMap = frame.into_trailers().unwrap_or_default();
                hygiene::trailers(&mut trailers);
                Some(Ok(Frame::trailers(trailers)))
            }
            frame => frame,
        })
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(incoming) => incoming.is_end_stream(),
            Self::Http2(receiving) => receiving.is_end_stream(),
        }
    }

    /// What the connection has yet to bring; over HTTP/2 the head's `Content-Length` alone says it.
    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(incoming) => incoming.size_hint(),
            Self::Http2(receiving) if receiving.is_end_stream() => SizeHint::with_exact(0),
            Self::Http2(_) => SizeHint::default(),
        }
    }
}
