//! Follows a master that the slave is in sync with, until there is cause for a pass.

use std::mem;
use std::time::{Duration, Instant};

use super::Idle;
use crate::io::file_stat::FileStat;
use crate::source::{FileSystem, MAX_WAIT};
use crate::watch::wakeups::WakeReason;

/// While nothing happens at a master that reports its changes, this number of polls replaces a
/// pass.
const POLLS_PER_PASS: u32 = 10;

/// How long at most such polls replace a pass, unless the interval is longer.
const MAX_TIME_WITHOUT_PASS: Duration = Duration::from_secs(10);

/// How long the master may take to respond to a poll: it waits for a change for up to
/// [`MAX_WAIT`] itself.
const MAX_SILENCE: Duration = MAX_WAIT.saturating_mul(2);

/// How many notified passes in a row may find nothing before the next one is delayed. A commit
/// causes two notifications, and is not complete at the first.
const EMPTY_PASSES: u32 = 3;

/// The longest delay while notifications lead to passes that find nothing.
const MAX_PAUSE: Duration = Duration::from_millis(20);

/// Why a pass is made while the watch follows the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The master reported a change.
    Master,
    /// The interval is over.
    Interval,
    /// Anything else.
    Other,
}

impl Idle<'_> {
    /// Waits for cause for a pass after one that was in sync. `is_quiet` if that one was made
    /// because the interval was over, and found nothing.
    ///
    /// A master that reports its changes is polled at every interval, by a stat of each end. If
    /// nothing has changed, a pass would find nothing either, with two exceptions; so one is made
    /// after some polls all the same:
    ///
    /// 1. Two writes within the resolution of the file's times, of which the last pass saw only the
    ///    first. Therefore, polls begin only after a quiet pass.
    /// 2. Somebody has changed other files of the slave, or restored the times of a file.
    pub(super) fn follow(&mut self, file_system: Option<FileSystem>, is_quiet: bool) -> Cause {
        self.backoff.reset();
        // The pass has read the master, so older requests no longer matter.
        self.request.1 = false;
        self.log_file_system(file_system);
        let slave = self.slave_stat();
        let mut has_notifications = file_system.is_some_and(|found| !found.is_network());
        let mut next_poll = Instant::now() + self.interval;
        let mut due = next_poll;
        if has_notifications && is_quiet {
            due = Instant::now() + self.time_without_pass();
        }
        self.pause(next_poll);
        let mut is_urgent = self.index.is_urgent();
        while Instant::now() < due {
            if has_notifications {
                self.request_change(due);
            }
            let until = due.min(next_poll);
            let wake = if mem::take(&mut is_urgent) {
                self.work_on_index(until, true)
            } else {
                self.wait_quietly(until)
            };
            match wake {
                Some(WakeReason::Master { changed: true, .. }) => return Cause::Master,
                Some(WakeReason::Master { is_early: true, .. }) => {
                    has_notifications = false;
                    due = until;
                }
                Some(WakeReason::Switch) if !self.is_off() => {}
                Some(WakeReason::Switch | WakeReason::Signal) => return Cause::Other,
                Some(WakeReason::Master { .. }) | None => {}
            }
            if Instant::now() >= next_poll {
                if self.is_off() || self.slave_stat() != slave {
                    return Cause::Other;
                }
                // A pass finds out why the master does not respond.
                if self.job.master.is_late(MAX_SILENCE) {
                    break;
                }
                next_poll = Instant::now() + self.interval;
            }
        }
        Cause::Interval
    }

    /// How long polls without a difference may replace a pass.
    fn time_without_pass(&self) -> Duration {
        let polls = self.interval.saturating_mul(POLLS_PER_PASS);
        polls.min(MAX_TIME_WITHOUT_PASS).max(self.interval)
    }

    /// Delays the next pass if recent notifications led to passes that found nothing.
    fn pause(&mut self, due: Instant) {
        let Some(excess) = self.empty_passes.checked_sub(EMPTY_PASSES) else {
            return;
        };
        let pause = Duration::from_millis(1)
            .saturating_mul(2_u32.saturating_pow(excess))
            .min(MAX_PAUSE);
        let until = due.min(Instant::now() + pause);
        while Instant::now() < until && !matches!(self.wait(until), Some(WakeReason::Signal)) {}
    }

    /// Asks the master to wake the watch when it may have changed, or at `due`. It is polled at every
    /// interval.
    fn request_change(&mut self, due: Instant) {
        if self.request.1 {
            return;
        }
        let question = self.request.0 + 1;
        self.request = (question, true);
        let waker = self.wakeups.waker();
        let now = Instant::now();
        let timeout = due.saturating_duration_since(now);
        let then = move |answer: Result<bool, _>| {
            // The next pass reports errors.
            let changed = answer.unwrap_or(false);
            waker.wake(WakeReason::Master {
                question,
                changed,
                is_early: !changed && now.elapsed() < timeout / 2,
            });
        };
        (self.job.master).when_changed(timeout, self.interval, then);
    }

    /// Logs the file system of the master, and how changes are detected there.
    fn log_file_system(&mut self, found: Option<FileSystem>) {
        let Some(file_system) = found.filter(|_| found != self.logged_file_system) else {
            return;
        };
        self.logged_file_system = found;
        let how = if file_system.is_network() {
            "which does not support change notifications: polling"
        } else {
            "which supports change notifications: polling as well,"
        };
        let (master, secs) = (self.job.master.name(), self.interval.as_secs_f64());
        tracing::info!("{master} is on {file_system}, {how} every {secs} s");
    }

    /// The state of the slave; `None` if it is missing or cannot be found out.
    fn slave_stat(&self) -> Option<FileStat> {
        self.job.slave.stat().ok().flatten()
    }
}
