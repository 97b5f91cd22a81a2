//! How fast a long operation is, and how long the rest takes.

use std::time::Duration;

/// From when on an average is worth telling, unless 1 % was done before.
const MIN_ELAPSED: Duration = Duration::from_secs(1);

/// How fast it was so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferRate {
    /// Bytes per second, on average.
    pub bytes_per_second: u64,
    /// How long the rest takes at this rate.
    pub remaining: Duration,
}

impl TransferRate {
    /// The rate at which `moved` bytes were dealt with in `elapsed`, where `rest` bytes are
    /// left. What an earlier operation had done does not count as moved. `None` as long as
    /// there is too little to tell by.
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
    fn the_average_of_what_was_moved_tells_how_long_the_rest_takes() {
        let rate = TransferRate::of(2_000, 6_000, Duration::from_secs(4)).unwrap();
        assert_eq!(rate.bytes_per_second, 500);
        assert_eq!(rate.remaining, Duration::from_secs(12));
        let done = TransferRate::of(2_000, 0, Duration::ZERO).unwrap();
        assert_eq!(done.remaining, Duration::ZERO);
        assert!(TransferRate::of(1, u64::MAX, Duration::MAX).is_some());
    }

    #[test]
    fn too_little_tells_nothing() {
        let soon = Duration::from_millis(999);
        assert_eq!(TransferRate::of(0, 100, Duration::from_secs(9)), None);
        assert_eq!(TransferRate::of(99, 9_901, soon), None);
        assert!(TransferRate::of(100, 9_900, soon).is_some());
        assert!(TransferRate::of(99, 9_901, Duration::from_secs(1)).is_some());
    }
}
