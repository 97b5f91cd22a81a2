//! Hands the outcomes of passes to the hooks and pings of the configuration file.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fssync::config::{Mode, Site, StorageName};
use fssync::hooks::{Notifier, Run};
use fssync::plan::outcome::Outcome;

use super::storage::Selected;

/// Reports the outcomes of passes. Passes of paths on the command line, and dry runs, are not
/// reported.
#[derive(Debug, Default)]
pub(super) struct Notify {
    /// `None` if there is nothing to report. Another configuration replaces it.
    notifier: Mutex<Option<Arc<Notifier>>>,
    /// Set when the process must end.
    interrupted: Arc<AtomicBool>,
}

impl Notify {
    /// Starts the threads of hooks and pings, if there are any, for a single pass of each storage.
    pub(super) fn once(selected: &Selected, mode: Mode, interrupted: Arc<AtomicBool>) -> Self {
        let notify = Self {
            notifier: Mutex::default(),
            interrupted,
        };
        if let (Selected::Site(site), Mode::Once { dry_run: false, .. }) = (selected, mode) {
            notify.start(Run::Once, site);
        }
        notify
    }

    /// Starts the threads for a watch of this site. Those of an earlier configuration end, and
    /// nobody waits for them.
    pub(super) fn watch(&self, site: &Site) {
        self.start(Run::Watch, site);
    }

    fn start(&self, run: Run, site: &Site) {
        let interrupted = Arc::clone(&self.interrupted);
        let notifier = Notifier::start(run, &site.hooks, &site.pings, &site.storages, interrupted);
        *self.lock() = Some(Arc::new(notifier));
    }

    /// Reports a pass that has released its lock. A pass that a signal has stopped is not
    /// reported.
    pub(super) fn passed(&self, name: Option<&StorageName>, outcome: &Outcome, elapsed: Duration) {
        // Release the lock before the report, so that no storage waits for another one.
        let notifier = self.lock().clone();
        if let (Some(notifier), Some(name)) = (notifier, name)
            && !self.interrupted.load(Ordering::Relaxed)
        {
            notifier.passed(name, outcome, elapsed);
        }
    }

    /// Kills hooks and pings, because a signal ends the process.
    pub(super) fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
    }

    /// Waits for hooks and pings that are due, for a limited time.
    pub(super) fn finish(&self) {
        let notifier = self.lock().take();
        if let Some(notifier) = notifier {
            notifier.finish();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Notifier>>> {
        self.notifier.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
