//! Staying and following: pass after pass, each when there is cause.
//!
//! A watch decides nothing about the files. What it does to them is an ordinary
//! [pass](crate::pass), whose survey costs two digests of some kilobytes at each end; so
//! what a pass sees (a pack, a shrunk or vanished file, a changed slave, a
//! flipped switch) is seen here too, before the next write. The pass lock is
//! held in a pass only: others may be made by hand beside a watch.
//!
//! | how the last pass ended | the next one is made |
//! | --- | --- |
//! | in sync | when the master may have changed, and at every tick |
//! | off | when all switches say on |
//! | the slave diverged, or either end is damaged | when another file is in the place of one of the two; when one is written, after a wait that grows |
//! | another way | after a wait that grows with every try |
//!
//! and always at once on SIGHUP. What is due to the slave's index waits until a
//! watch rests, and makes way for a pass. That something changed is told by the
//! [`Source`](crate::source::Source), where it lies on a file system that tells;
//! events are hints, and the tick does not depend on them.

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

/// How often a watch repeats why it does not sync.
const REPEAT_EVERY: Duration = Duration::from_secs(30 * 60);

/// Whom a watch tells how it stands.
pub trait Observer {
    /// A pass has ended: `is_news` if it ended in another way than the one
    /// before, or if it is time to repeat why there is no syncing.
    fn passed(&self, report: &PassReport, elapsed: Duration, is_news: bool);

    /// What shows the progress of the next pass.
    fn monitor(&self) -> Box<dyn Monitor + '_>;

    /// The watch is alive, and rests; told every second.
    fn alive(&self);
}

/// Follows the master until a signal comes: returns what the exit code is to
/// tell. `interval` is the time from one tick to the next.
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

/// What was told of the passes so far.
#[derive(Debug, Default)]
struct ReportFilter {
    /// How the last one ended.
    last: Option<Exit>,
    /// What was last reported: also why, if a person must act on it, or has acted.
    reported: Option<(Exit, Option<String>)>,
    /// When that was.
    reported_at: Option<Instant>,
    /// The warnings that were last reported.
    warnings: Vec<String>,
    /// How the last one ended that stood still, unless one after it was in sync
    /// or found syncing off.
    suspended: Option<Exit>,
}

impl ReportFilter {
    /// Takes note of how a pass ended at this moment: whether that is news, or `None` if it
    /// is not even worth a look: another pass beside the watch is over soon.
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

/// What the way in which a pass ended makes of the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WatchState {
    /// In sync: follow.
    Following,
    /// Syncing is off.
    Off,
    /// A person must decide or mend.
    Suspended,
    /// Something is missing that may come back.
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
