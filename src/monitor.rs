//! Progress, for whoever wants to show it.

/// Is told how far a pass is.
pub trait Monitor {
    /// `done` of `total` bytes are dealt with, at what `activity` says.
    fn progress(&self, activity: &'static str, done: u64, total: u64);
}

/// Shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Monitor for Silent {
    fn progress(&self, _: &'static str, _: u64, _: u64) {}
}
