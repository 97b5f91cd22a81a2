//! The warnings of a pass.

use std::cell::RefCell;

use crate::io::progress::Monitor;

/// Collects the warnings of a pass, and drops repetitions: several attempts give the same
/// warnings.
pub(super) struct Collector<'a> {
    monitor: &'a dyn Monitor,
    warnings: RefCell<Vec<String>>,
}

impl<'a> Collector<'a> {
    pub(super) fn new(monitor: &'a dyn Monitor) -> Self {
        Self {
            monitor,
            warnings: RefCell::default(),
        }
    }

    pub(super) fn into_warnings(self) -> Vec<String> {
        self.warnings.into_inner()
    }
}

impl Monitor for Collector<'_> {
    fn progress(&self, activity: &'static str, done: u64, total: u64) {
        self.monitor.progress(activity, done, total);
    }

    fn warn(&self, warning: String) {
        let mut warnings = self.warnings.borrow_mut();
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
}
