//! The delay before a retry.

use std::time::Duration;

/// The maximum of the first delay.
const FIRST: Duration = Duration::from_millis(500);

/// The maximum of all delays.
const LONGEST: Duration = Duration::from_secs(30);

/// Delays that double with every retry, up to a maximum.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// Starts again with the first delay.
    pub(super) fn reset(&mut self) {
        self.tries = 0;
    }

    /// The next delay. `chance` (0 to 1) jitters its second half, so that many slaves that lost
    /// the same master do not return at once.
    pub(super) fn next(&mut self, chance: f64) -> Duration {
        let longest = FIRST
            .saturating_mul(2_u32.saturating_pow(self.tries))
            .min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        longest.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_maximum_and_start_again() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..9).map(|_| backoff.next(1.0).as_secs_f64()).collect();
        assert_eq!(waits, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]);
        for _ in 0..100 {
            assert!(backoff.next(1.0) <= LONGEST);
        }
        backoff.reset();
        assert_eq!(backoff.next(0.0), FIRST / 2);
        assert_eq!(backoff.next(0.5), FIRST.mul_f64(1.5));
    }
}
