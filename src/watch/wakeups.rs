//! Wakes a waiting watch.

use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

/// Why a watch was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeReason {
    /// The master answered a request to report its next change.
    Master {
        /// The number of the request.
        question: u64,
        /// Whether the master may have changed.
        changed: bool,
        /// Whether it answered without a change, or failed, long before the timeout.
        is_early: bool,
    },
    /// A switch may have been flipped.
    Switch,
    /// A signal arrived.
    Signal,
}

/// The receiving end of a watch.
#[derive(Debug)]
pub struct Wakeups {
    receiver: Receiver<WakeReason>,
    waker: Waker,
}

/// Wakes the watch from any thread.
#[derive(Clone, Debug)]
pub struct Waker(Sender<WakeReason>);

impl Default for Wakeups {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel();
        Self {
            receiver,
            waker: Waker(sender),
        }
    }
}

impl Wakeups {
    /// A sender for another thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Waits until the watch is woken; `None` after the timeout.
    pub(super) fn wait(&self, timeout: Duration) -> Option<WakeReason> {
        self.receiver.recv_timeout(timeout).ok()
    }
}

impl Waker {
    /// Wakes the watch.
    pub fn wake(&self, reason: WakeReason) {
        // If the watch has ended, nobody needs to be woken.
        let _ = self.0.send(reason);
    }
}
