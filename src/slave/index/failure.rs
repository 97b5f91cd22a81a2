//! The retry delay after an index could not be stored.
//!
//! A build may read the whole slave before it fails, for example because the disk is full. If
//! every pass tried again, the slave would be read all the time.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How many bytes a second failed builds may read on average.
const MAX_RATE: u64 = 10 * 1024 * 1024;

/// A build that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct FailedBuild {
    time: Timestamp,
    /// Number of bytes of the slave that were read for it.
    #[serde(rename = "len")]
    bytes_read: u64,
}

impl FailedBuild {
    /// A build that failed at `time` and had read `bytes_read` bytes of the slave.
    #[must_use]
    pub fn new(time: Timestamp, bytes_read: u64) -> Self {
        Self { time, bytes_read }
    }

    /// The delay before the next attempt.
    #[must_use]
    pub fn retry_delay(bytes_read: u64) -> Duration {
        Duration::from_secs(bytes_read / MAX_RATE)
    }

    /// Whether it is too early for the next attempt. If the clock was set back since the
    /// failure, it is not.
    #[must_use]
    pub fn must_wait(&self, now: Timestamp) -> bool {
        let age = now.duration_since(self.time);
        !age.is_negative() && age.unsigned_abs() < Self::retry_delay(self.bytes_read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_retry_delay_grows_with_the_bytes_that_were_read() {
        let time = Timestamp::from_second(1_800_000_000).unwrap();
        let after = |secs: i64| Timestamp::from_second(1_800_000_000 + secs).unwrap();
        let small = FailedBuild::new(time, MAX_RATE - 1);
        assert!(!small.must_wait(time));
        let failure = FailedBuild::new(time, 1000 * MAX_RATE);
        assert!(failure.must_wait(time));
        assert!(failure.must_wait(after(999)));
        assert!(!failure.must_wait(after(1000)));
        assert!(!failure.must_wait(after(-1)), "the clock was set back");
        let endless = FailedBuild::new(time, u64::MAX);
        assert!(endless.must_wait(after(1_000_000)));
    }
}
