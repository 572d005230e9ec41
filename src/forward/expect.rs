//! `Expect: 100-continue` (RFC 9110 section 10.1.1): a client that would rather know first whether its body is wanted.
//!
//! hyper tells the client to go on when somebody reads the body. So nobody does before the app, which is asked the same, says that it wants it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use http::header::EXPECT;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version};

use super::timer::Timer;

/// Apps that do not know the field wait for the body, and say nothing before it.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Expecting {
    told: Arc<Told>,
    until: Option<Instant>,
    timer: Timer,
}

/// Shared with hyper's connection to the app, which wants to be able to move between threads.
#[derive(Debug, Default)]
struct Told {
    wanted: AtomicBool,
    waker: AtomicWaker,
}

impl Expecting {
    /// `None`: the client sends its body without asking.
    pub(super) fn of(headers: &HeaderMap, version: Version) -> Option<Box<Self>> {
        let asks =
            version == Version::HTTP_11 && headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        asks.then(|| Box::new(Self { told: Arc::default(), until: None, timer: Timer::default() }))
    }

    /// The app is asked, and its interim answer heard.
    pub(super) fn ask<B>(&self, request: &mut Request<B>) {
        request.headers_mut().insert(EXPECT, HeaderValue::from_static("100-continue"));
        let told = Arc::clone(&self.told);
        hyper::ext::on_informational(request, move |interim| {
            if interim.status() == StatusCode::CONTINUE {
                told.wanted.store(true, Ordering::Release);
                told.waker.wake();
            }
        });
    }

    /// The app's 100, where somebody else hears it: over HTTP/2.
    pub(super) fn wanted(&self) {
        self.told.wanted.store(true, Ordering::Release);
    }

    /// Ready when the body is wanted, or the app has not said so in time.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.told.waker.register(cx.waker());
        if self.told.wanted.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        let until = *self.until.get_or_insert_with(|| Instant::now() + PATIENCE);
        self.timer.poll(cx, until)
    }
}
