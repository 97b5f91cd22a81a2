//! Keeps the slave in sync: makes passes until a signal arrives.
//!
//! A watch makes no decisions about the files. Each change is made by an ordinary
//! [`pass`], whose survey costs two digests of some kilobytes at each end. So a
//! pack, a truncated or missing file, a changed slave or a flipped switch is noticed before
//! the next write. The pass lock is held only during a pass, so that other passes can be
//! made while a watch runs.
//!
//! | outcome of the last pass | the next pass |
//! | --- | --- |
//! | in sync | when one of the two may have changed, and regularly |
//! | off | when all switches are on |
//! | the slave diverged, or one of the two is damaged | when one of the two is replaced by another file; if one is written, after a delay with backoff |
//! | any other | after a delay with backoff |
//!
//! A pass is also made at once on SIGHUP. Work on the slave's index is done between passes,
//! and interrupted for the next one. Changes of the master are reported by the
//! [`Source`](crate::source::Source) if its file system supports notifications.
//! Notifications are only hints; polling at every interval does not depend on them.

mod backoff;
mod idle;
mod wakeups;

use std::time::{Duration, Instant};

pub use self::wakeups::{WakeReason, Waker, Wakeups};

use self::idle::Idle;
use crate::io::progress::Monitor;
use crate::pass::{self, Job, PassReport};
use crate::plan::outcome::{Exit, Outcome};
use crate::upkeep;

/// How often a watch repeats the report that it is not syncing.
const REPEAT_EVERY: Duration = Duration::from_secs(30 * 60);

/// Receives the events of a watch.
pub trait Observer {
    /// A pass has ended. `is_news` if its outcome differs from the one before, or if the
    /// report that the watch is not syncing is due again.
    fn passed(&self, report: &PassReport, elapsed: Duration, is_news: bool);

    /// Displays the progress of the next pass.
    fn monitor(&self) -> Box<dyn Monitor + '_>;

    /// A heartbeat, about every second between two passes.
    fn alive(&self);
}

/// Keeps the slave in sync until a signal arrives, and returns the exit code. `interval` is
/// the time between two polls of the master.
pub fn watch(job: &Job, interval: Duration, wakeups: &Wakeups, observer: &dyn Observer) -> Exit {
    let mut idle = Idle::new(job, interval, wakeups, observer);
    let mut filter = ReportFilter::default();
    loop {
        let started = Instant::now();
        let report = pass::run(job, observer.monitor().as_ref());
        let exit = report.outcome.exit;
        if job.slave.is_interrupted() {
            break;
        }
        let elapsed = started.elapsed();
        if let Some(is_news) = filter.take(&report.outcome, Instant::now()) {
            observer.passed(&report, elapsed, is_news);
        }
        if exit == Exit::Usage {
            return exit;
        }
        idle.after(&report, elapsed);
        if job.slave.is_interrupted() {
            break;
        }
    }
    upkeep::index::update_at_end(&job.slave);
    filter.suspended.unwrap_or(Exit::Success)
}

/// Decides which outcomes are reported.
#[derive(Debug, Default)]
struct ReportFilter {
    /// The exit code of the last pass.
    last: Option<Exit>,
    /// The last report: the exit code, and the reason if a person must act, or has acted.
    reported: Option<(Exit, Option<String>)>,
    /// The time of the last report.
    reported_at: Option<Instant>,
    /// The last reported warnings.
    warnings: Vec<String>,
    /// The exit code of the last pass that suspended replication, unless a later one was in
    /// sync or found syncing off.
    suspended: Option<Exit>,
}

impl ReportFilter {
    /// Whether the outcome of a pass that ended now is news. `None` if it is not passed to the
    /// observer at all: the pass met another pass, which will soon be over.
    fn take(&mut self, outcome: &Outcome, now: Instant) -> Option<bool> {
        let exit = outcome.exit;
        let before = self.last.replace(exit);
        if exit == Exit::Busy && before != Some(Exit::Busy) {
            return None;
        }
        let state = WatchState::after(exit);
        match state {
            WatchState::Following | WatchState::Off => self.suspended = None,
            WatchState::Suspended => self.suspended = Some(exit),
            WatchState::Retrying => {}
        }
        let counts = matches!(state, WatchState::Suspended | WatchState::Off);
        let reason = counts.then(|| outcome.reason.clone());
        let reported = Some((exit, reason));
        let warns_anew = !outcome.warnings.is_empty() && self.warnings != outcome.warnings;
        if warns_anew {
            self.warnings.clone_from(&outcome.warnings);
        }
        let is_due = matches!(state, WatchState::Suspended | WatchState::Retrying)
            && (self.reported_at).is_some_and(|at| now.duration_since(at) >= REPEAT_EVERY);
        let is_news = self.reported != reported || warns_anew || is_due;
        self.reported = reported;
        if is_news {
            self.reported_at = Some(now);
        }
        Some(is_news)
    }
}

/// The state of a watch after a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WatchState {
    /// In sync. Wait for changes of the master.
    Following,
    /// Syncing is off. Wait for the switches.
    Off,
    /// A person must decide or repair something. Wait for a change of either file.
    Suspended,
    /// A transient failure. Retry with backoff.
    Retrying,
}

impl WatchState {
    fn after(exit: Exit) -> Self {
        match exit {
            Exit::Success => Self::Following,
            Exit::Off => Self::Off,
            Exit::Diverged | Exit::MasterDamaged | Exit::SlaveDamaged => Self::Suspended,
            Exit::Failure
            | Exit::Usage
            | Exit::Busy
            | Exit::Unreachable
            | Exit::InUse
            | Exit::Stale => Self::Retrying,
        }
    }
}

#[cfg(test)]
mod tests;
