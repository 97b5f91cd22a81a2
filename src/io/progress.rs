//! Progress and warnings, for whoever wants to show them.

/// Receives what is worth showing while a pass or another long operation runs.
pub trait Monitor {
    /// `done` of `total` bytes are dealt with, at what `activity` says.
    fn progress(&self, activity: &'static str, done: u64, total: u64);

    /// A person should know this, although the operation goes on: what happened, to
    /// which file, why, and what to do.
    ///
    /// A pass collects its warnings into its
    /// [`Outcome`](crate::plan::outcome::Outcome); any other operation logs them.
    fn warn(&self, warning: String) {
        tracing::warn!("{warning}");
    }
}

/// Shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Monitor for Silent {
    fn progress(&self, _: &'static str, _: u64, _: u64) {}
}
