//! Times that processes can compare, and delays.

use std::time::{Duration, SystemTime};

/// Nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) i64);

impl Moment {
    pub(crate) fn now() -> Self {
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Self(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    /// The time from `other` to this, in nanoseconds; negative if this is earlier.
    pub(crate) fn after(self, other: Self) -> i64 {
        self.0 - other.0
    }
}

/// Many delays, in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Spread(Vec<i64>);

impl Spread {
    pub(crate) fn add(&mut self, times: impl IntoIterator<Item = i64>) {
        self.0.extend(times);
        self.0.sort_unstable();
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// A percentile of the delays, in milliseconds.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0[rank - 1] as f64 / 1e6
    }
}

/// Sleeps until this much time has passed since `start`.
pub(crate) fn sleep_until(start: std::time::Instant, since: Duration) {
    std::thread::sleep(since.saturating_sub(start.elapsed()));
}
