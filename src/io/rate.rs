//! The speed of a long operation, and the time that it still needs.

use std::time::Duration;

/// The time after which an average is meaningful. It is meaningful earlier if 1 % is done.
const MIN_ELAPSED: Duration = Duration::from_secs(1);

/// The average speed of an operation so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferRate {
    /// Average speed in bytes per second.
    pub bytes_per_second: u64,
    /// Time for the rest at this speed.
    pub remaining: Duration,
}

impl TransferRate {
    /// The rate of an operation that has processed `moved` bytes in `elapsed`, and has `rest`
    /// bytes left. Bytes that an earlier, interrupted operation processed do not count as
    /// moved. Returns `None` while an average is not meaningful.
    #[must_use]
    pub fn of(moved: u64, rest: u64, elapsed: Duration) -> Option<Self> {
        let percent = moved.saturating_add(rest) / 100;
        if moved == 0 || (elapsed < MIN_ELAPSED && moved < percent) {
            return None;
        }
        let micros = elapsed.as_micros().max(1);
        let per_second = u128::from(moved) * 1_000_000 / micros;
        let left = micros.saturating_mul(u128::from(rest)) / u128::from(moved);
        Some(Self {
            bytes_per_second: u64::try_from(per_second).unwrap_or(u64::MAX),
            remaining: Duration::from_micros(u64::try_from(left).unwrap_or(u64::MAX)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remaining_time_follows_from_the_average() {
        let rate = TransferRate::of(2_000, 6_000, Duration::from_secs(4)).unwrap();
        assert_eq!(rate.bytes_per_second, 500);
        assert_eq!(rate.remaining, Duration::from_secs(12));
        let done = TransferRate::of(2_000, 0, Duration::ZERO).unwrap();
        assert_eq!(done.remaining, Duration::ZERO);
        assert!(TransferRate::of(1, u64::MAX, Duration::MAX).is_some());
    }

    #[test]
    fn a_rate_needs_a_second_or_a_percent() {
        let soon = Duration::from_millis(999);
        assert_eq!(TransferRate::of(0, 100, Duration::from_secs(9)), None);
        assert_eq!(TransferRate::of(99, 9_901, soon), None);
        assert!(TransferRate::of(100, 9_900, soon).is_some());
        assert!(TransferRate::of(99, 9_901, Duration::from_secs(1)).is_some());
    }
}
