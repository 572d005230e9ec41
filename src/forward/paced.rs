//! Bytes that wait for their turn in a bandwidth.

use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;

use super::rates::Lanes;
use super::timer::Timer;

/// One direction of one stream. What has come is held and let go piece by piece; while anything is held, nothing more is asked for, so that whoever
/// sends feels it.
#[derive(Debug)]
pub(super) struct Paced {
    lanes: Lanes,
    held: Bytes,
    /// Of the next piece.
    turn: Option<Turn>,
    timer: Timer,
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    bytes: usize,
    due: Instant,
}

impl Paced {
    pub(super) fn new(lanes: Lanes) -> Self {
        Self { lanes, held: Bytes::new(), turn: None, timer: Timer::default() }
    }

    /// Only when nothing is held.
    pub(super) fn hold(&mut self, bytes: Bytes) {
        self.held = bytes;
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// When the next piece may go.
    pub(super) fn due(&self) -> Option<Instant> {
        self.turn.map(|turn| turn.due)
    }

    /// The next piece of what is held, when its turn comes; `None` when nothing is.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.held.is_empty() {
            return Poll::Ready(None);
        }
        let now = Instant::now();
        let turn = match self.turn {
            Some(turn) => turn,
            None => {
                let bytes = self.held.len().min(self.lanes.piece());
                let turn = Turn { bytes, due: self.lanes.take(bytes, now) };
                *self.turn.insert(turn)
            }
        };
        if turn.due > now {
            ready!(self.timer.poll(cx, turn.due));
        }
        self.turn = None;
        Poll::Ready(Some(self.held.split_to(turn.bytes.min(self.held.len()))))
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        if let Some(turn) = self.turn {
            self.lanes.give_back(turn.bytes, Instant::now());
        }
    }
}
