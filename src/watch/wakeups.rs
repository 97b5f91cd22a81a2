//! What wakes a watch.

use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

/// Why it rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeReason {
    /// The master was waited for.
    Master {
        /// Which time it was asked.
        question: u64,
        /// Whether it may have changed.
        changed: bool,
        /// Whether it said otherwise, or failed, before it was time.
        is_early: bool,
    },
    /// A switch may have been flipped.
    Switch,
    /// A signal came.
    Signal,
}

/// What is waited for.
#[derive(Debug)]
pub struct Wakeups {
    rings: Receiver<WakeReason>,
    waker: Waker,
}

/// What makes it ring, from any thread.
#[derive(Clone, Debug)]
pub struct Waker(Sender<WakeReason>);

impl Default for Wakeups {
    fn default() -> Self {
        let (sender, rings) = mpsc::channel();
        Self {
            rings,
            waker: Waker(sender),
        }
    }
}

impl Wakeups {
    /// A rope to it.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Waits for a ring; `None` if none came in that time.
    pub(super) fn wait(&self, patience: Duration) -> Option<WakeReason> {
        self.rings.recv_timeout(patience).ok()
    }
}

impl Waker {
    /// Rings.
    pub fn wake(&self, why: WakeReason) {
        // Once the bell is gone, nobody needs to be woken.
        let _ = self.0.send(why);
    }
}
