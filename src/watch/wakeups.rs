//! What wakes a watch.

use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

/// Why it rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
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
pub struct Bell {
    rings: Receiver<Ring>,
    rope: Rope,
}

/// What makes it ring, from any thread.
#[derive(Clone, Debug)]
pub struct Rope(Sender<Ring>);

impl Default for Bell {
    fn default() -> Self {
        let (sender, rings) = mpsc::channel();
        Self {
            rings,
            rope: Rope(sender),
        }
    }
}

impl Bell {
    /// A rope to it.
    #[must_use]
    pub fn rope(&self) -> Rope {
        self.rope.clone()
    }

    /// Waits for a ring; `None` if none came in that time.
    pub(super) fn wait(&self, patience: Duration) -> Option<Ring> {
        self.rings.recv_timeout(patience).ok()
    }
}

impl Rope {
    /// Rings.
    pub fn ring(&self, why: Ring) {
        // Once the bell is gone, nobody needs to be woken.
        let _ = self.0.send(why);
    }
}
