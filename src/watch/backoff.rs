//! How long to wait before another try.

use std::time::Duration;

/// The first wait at its longest.
const FIRST: Duration = Duration::from_millis(500);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// Waits that double with every try, up to a bound.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// Starts over.
    pub(super) fn reset(&mut self) {
        self.tries = 0;
    }

    /// The next wait. Of its length, `chance` (0 to 1) decides over the half, so
    /// that many who lost the same master do not come back at once.
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
    fn waits_double_up_to_a_bound_and_start_over() {
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
