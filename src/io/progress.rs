//! The interface through which the library reports progress and warnings.

/// Receives progress and warnings of a pass or another long operation.
pub trait Monitor {
    /// Reports that `activity` has processed `done` of `total` bytes.
    fn progress(&self, activity: &'static str, done: u64, total: u64);

    /// Reports a problem that does not stop the operation. The text says what happened, to
    /// which file, why, and what to do.
    ///
    /// A pass collects its warnings into its
    /// [`Outcome`](crate::plan::outcome::Outcome); any other operation logs them.
    fn warn(&self, warning: String) {
        tracing::warn!("{warning}");
    }
}

/// Discards progress, and logs warnings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Monitor for Silent {
    fn progress(&self, _: &'static str, _: u64, _: u64) {}
}
