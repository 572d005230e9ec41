//! What is said to a stream from outside while it runs.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Say {
    Nothing,
    /// The proxy ends soon, and its clients should come back to another.
    Leave,
    /// It may no longer run.
    Cut,
}

/// Held by a stream and by who looks after streams.
#[derive(Debug)]
pub struct Fate {
    said: Cell<Say>,
    waker: RefCell<Option<Waker>>,
}

impl Fate {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self { said: Cell::new(Say::Nothing), waker: RefCell::default() })
    }

    /// Never less than was said before.
    pub fn say(&self, say: Say) {
        if say > self.said.get() {
            self.said.set(say);
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }

    /// What was said so far; the task is woken when there is more.
    pub(super) fn heed(&self, cx: &Context<'_>) -> Say {
        let mut held = self.waker.borrow_mut();
        if !held.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *held = Some(cx.waker().clone());
        }
        self.said.get()
    }

    pub(super) fn said(&self) -> Say {
        self.said.get()
    }
}
