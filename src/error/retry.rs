//! Looking again, where one of the two files changed under a look.

use std::mem;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;

/// How long the master may be missing or half there before it counts as
/// unreachable: ZODB's pack renames twice, and in between there is no
/// `Data.fs`.
const PASSING: Duration = if cfg!(fuzzing) {
    Duration::ZERO
} else {
    Duration::from_millis(1200)
};

/// How often it is looked for in that time.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often a look starts over because one of the files changed under it, or because
/// the master, once found, could not be read.
pub(crate) const MAX_LOOKS: u32 = 5;

/// How long to wait before something wrong is looked at again: ZODB writes a large
/// transaction in several pieces, and is done with it in no time.
pub(crate) const LOOK_AGAIN_AFTER: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(1),
    Duration::from_millis(4),
    Duration::from_millis(20),
    Duration::from_millis(100),
];

/// Waits for the moment of another look. Under a fuzzer nothing changes meanwhile, and
/// time is dear.
pub(crate) fn wait(time: Duration) {
    if !cfg!(fuzzing) {
        thread::sleep(time);
    }
}

/// What came of the looks so far.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    /// Since when the master does not answer.
    missing_since: Option<Instant>,
    /// Whether it did in the look that is under way.
    is_found: bool,
    /// How many looks ended for another reason, or once the master had answered.
    others: u32,
}

impl Retry {
    /// The master answered. Should it be lost in what follows, that counts: one that is
    /// there whenever it is looked at, and never lets itself be read, is not waited for.
    pub(crate) fn found_master(&mut self) {
        self.missing_since = None;
        self.is_found = true;
    }

    /// Waits for the moment of another look, after one that ended so; gives back
    /// what lasts.
    pub(crate) fn after(&mut self, error: Error) -> Result<(), Error> {
        if error.is_transient() {
            self.again(error)
        } else {
            Err(error)
        }
    }

    /// The same, after one that ended for a reason that is gone.
    pub(crate) fn again(&mut self, error: Error) -> Result<(), Error> {
        let was_found = mem::take(&mut self.is_found);
        if matches!(error, Error::Unreachable(_)) && !was_found {
            let since = *self.missing_since.get_or_insert_with(Instant::now);
            if since.elapsed() > PASSING {
                return Err(error);
            }
        } else {
            self.others += 1;
            if self.others == MAX_LOOKS {
                return Err(error);
            }
        }
        tracing::debug!("looking again: {}", error.display_chain());
        wait(LOOK_EVERY);
        Ok(())
    }
}
