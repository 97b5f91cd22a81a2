//! An index that could not be stored, and how long it is let be then.
//!
//! To find that the disk is full, the whole slave may have been read. Were that
//! tried again at every pass, there would be no end of reading.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How many bytes a second are read in vain at most, on average.
const RATE: u64 = 10 * 1024 * 1024;

/// A try that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Failure {
    time: Timestamp,
    /// How many bytes of the slave were read for it.
    len: u64,
}

impl Failure {
    /// One at `time`, for which `len` bytes of the slave were read.
    #[must_use]
    pub fn new(time: Timestamp, len: u64) -> Self {
        Self { time, len }
    }

    /// How long after a try that read `len` bytes in vain there is another.
    #[must_use]
    pub fn pause(len: u64) -> Duration {
        Duration::from_secs(len / RATE)
    }

    /// Whether it is too early for another try. Where the clock was set back since,
    /// it is not.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        let age = now.duration_since(self.time);
        !age.is_negative() && age.unsigned_abs() < Self::pause(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_read_much_in_vain_is_let_be_for_long() {
        let time = Timestamp::from_second(1_800_000_000).unwrap();
        let after = |secs: i64| Timestamp::from_second(1_800_000_000 + secs).unwrap();
        let small = Failure::new(time, RATE - 1);
        assert!(!small.is_fresh(time));
        let failure = Failure::new(time, 1000 * RATE);
        assert!(failure.is_fresh(time));
        assert!(failure.is_fresh(after(999)));
        assert!(!failure.is_fresh(after(1000)));
        assert!(!failure.is_fresh(after(-1)), "the clock was set back");
        let endless = Failure::new(time, u64::MAX);
        assert!(endless.is_fresh(after(1_000_000)));
    }
}
