//! Retries an operation that failed because one of the two files was changing.

use std::mem;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;

/// How long the master may be missing or incomplete before it counts as unreachable. A
/// pack renames two files, and `Data.fs` does not exist in between.
const GRACE_PERIOD: Duration = if cfg!(fuzzing) {
    Duration::ZERO
} else {
    Duration::from_millis(1200)
};

/// The delay between two attempts.
pub(crate) const RETRY_DELAY: Duration = Duration::from_millis(50);

/// The number of attempts if a file changes during each of them, or if the master can be
/// found but not read.
pub(crate) const MAX_ATTEMPTS: u32 = 5;

/// The delays before a defect is read again. ZODB writes a large transaction in several
/// pieces within a short time, so an incomplete one is soon complete.
pub(crate) const REREAD_DELAYS: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(1),
    Duration::from_millis(4),
    Duration::from_millis(20),
    Duration::from_millis(100),
];

/// Sleeps before another attempt. Does nothing under a fuzzer, where files do not change.
pub(crate) fn wait(time: Duration) {
    if !cfg!(fuzzing) {
        thread::sleep(time);
    }
}

/// Counts the attempts of one operation.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    /// When the master was first unreachable.
    missing_since: Option<Instant>,
    /// Whether the master answered during the current attempt.
    has_answered: bool,
    /// The number of attempts that failed for another reason, or after the master had
    /// answered.
    other_failures: u32,
}

impl Retry {
    /// Records that the master answered. If it becomes unreachable later in the same
    /// attempt, that counts against [`MAX_ATTEMPTS`]: a master that can always be opened but
    /// never be read is not waited for.
    pub(crate) fn master_answered(&mut self) {
        self.missing_since = None;
        self.has_answered = true;
    }

    /// Waits before the next attempt. Returns the error if it is permanent, or if there
    /// were enough attempts.
    pub(crate) fn wait_if_transient(&mut self, error: Error) -> Result<(), Error> {
        if error.is_transient() {
            self.wait_after(error)
        } else {
            Err(error)
        }
    }

    /// Waits before the next attempt, whatever the error. Returns the error if there were
    /// enough attempts.
    pub(crate) fn wait_after(&mut self, error: Error) -> Result<(), Error> {
        let has_answered = mem::take(&mut self.has_answered);
        if matches!(error, Error::Unreachable(_)) && !has_answered {
            let since = *self.missing_since.get_or_insert_with(Instant::now);
            if since.elapsed() > GRACE_PERIOD {
                return Err(error);
            }
        } else {
            self.other_failures += 1;
            if self.other_failures == MAX_ATTEMPTS {
                return Err(error);
            }
        }
        tracing::debug!("retrying after: {}", error.display_chain());
        wait(RETRY_DELAY);
        Ok(())
    }
}
