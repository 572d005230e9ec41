//! What a response's body must keep to: a size, a time, a pace.

use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body::Frame;

use super::body::Cut;
use super::order::Bounds;
use super::paced::Paced;
use super::timer::Timer;
use crate::policy::Merged;

#[derive(Debug)]
pub(super) struct Bound {
    /// Bytes that may still come from the app.
    left: u64,
    /// More came than may.
    exceeded: bool,
    ends: Option<Instant>,
    timer: Timer,
    paced: Option<Paced>,
}

impl Bound {
    /// `None`: nothing bounds it.
    pub(super) fn new(merged: &Merged, bounds: &Bounds) -> Option<Box<Self>> {
        if merged.max_response.is_none() && bounds.ends.is_none() && bounds.lanes.is_none() {
            return None;
        }
        let paced = bounds.lanes.clone().map(Paced::new);
        let left = merged.max_response.unwrap_or(u64::MAX);
        Some(Box::new(Self { left, exceeded: false, ends: bounds.ends, timer: Timer::default(), paced }))
    }

    /// Bytes that have come from the app and wait here.
    pub(super) fn held(&self) -> usize {
        self.paced.as_ref().map_or(0, Paced::held)
    }

    /// What goes out next, of what `more` brings. Pending with nothing held: the app is waited for.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        mut more: impl FnMut(&mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if let Some(ends) = self.ends
            && self.timer.poll(cx, ends).is_ready()
        {
            return Poll::Ready(Some(Err(Cut::Late)));
        }
        loop {
            if let Some(paced) = &mut self.paced
                && let Some(piece) = ready!(paced.poll_piece(cx))
            {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if self.exceeded {
                return Poll::Ready(Some(Err(Cut::Large)));
            }
            let frame = match ready!(more(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(cut)) => return Poll::Ready(Some(Err(cut))),
                None => return Poll::Ready(None),
            };
            let mut data = match frame.into_data() {
                Ok(data) => data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            };
            let size = data.len() as u64;
            if size > self.left {
                // What fits goes out, so that the client has as much as it may.
                self.exceeded = true;
                data.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            }
            self.left = self.left.saturating_sub(size);
            match &mut self.paced {
                Some(paced) => paced.hold(data),
                None if self.exceeded && data.is_empty() => {}
                None => return Poll::Ready(Some(Ok(Frame::data(data)))),
            }
        }
    }

    /// Nothing is left to go out, or to be cut, but what the app has yet to send.
    pub(super) fn is_even(&self) -> bool {
        self.held() == 0 && !self.exceeded
    }
}
