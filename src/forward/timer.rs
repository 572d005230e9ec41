//! Deadlines that rarely pass.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::time::Sleep;

/// One sleep for all deadlines of a connection's life. It is set back only when it wakes, not when a deadline moves on: with timeouts much longer
/// than requests, one timer operation serves thousands of requests.
#[derive(Debug, Default)]
pub(super) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready at or after `deadline`; else the task is woken by then.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let wanted = tokio::time::Instant::from_std(deadline);
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(wanted)));
        if sleep.deadline() > wanted {
            sleep.as_mut().reset(wanted);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= wanted {
                // Left as it is, a finished sleep would answer at once for ever; the next deadline is later and sets it back.
                return Poll::Ready(());
            }
            sleep.as_mut().reset(wanted);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_deadline_that_moves_on_or_comes_nearer_is_kept() {
        let mut timer = Timer::default();
        let start = Instant::now();
        let poll_once = |timer: &mut Timer, at: Instant| timer.poll(&mut Context::from_waker(std::task::Waker::noop()), at).is_ready();
        assert!(!poll_once(&mut timer, start + Duration::from_millis(10)));
        assert!(!poll_once(&mut timer, start + Duration::from_millis(60)));
        poll_fn(|cx| timer.poll(cx, start + Duration::from_millis(60))).await;
        assert!(start.elapsed() >= Duration::from_millis(60));
        assert!(!poll_once(&mut timer, start + Duration::from_secs(60)));
        poll_fn(|cx| timer.poll(cx, start + Duration::from_millis(80))).await;
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}
