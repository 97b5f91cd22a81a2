//! Waits between two passes, until there is cause for the next one.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::mem;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::wakeups::{WakeReason, Wakeups};
use super::{Observer, REPEAT_EVERY, WatchState};
use crate::error::Error;
use crate::io::file_stat::FileStat;
use crate::io::notify::FileWatcher;
use crate::pass::{Job, PassReport};
use crate::plan::outcome::Exit;
use crate::source::{FileSystem, MAX_WAIT, MasterStat};
use crate::upkeep::IdleWork;

/// How often a waiting watch sends a heartbeat to its observer.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// How long nothing must happen before the watch requests notifications about switches. During
/// activity, the next pass soon reads them anyway, and its own writes in the same directory
/// would cause notifications.
const QUIET_PERIOD: Duration = Duration::from_millis(50);

/// How many notified passes in a row may find nothing before the next one is delayed. A commit
/// causes two notifications, and is not complete at the first.
const EMPTY_PASSES: u32 = 3;

/// The longest delay while notifications lead to passes that find nothing.
const MAX_PAUSE: Duration = Duration::from_millis(20);

/// A suspended watch waits at least this many times the duration of its last pass.
const SUSPENDED_RATIO: u32 = 10;

/// The work of a watch between two passes.
pub(super) struct Idle<'a> {
    job: &'a Job,
    interval: Duration,
    wakeups: &'a Wakeups,
    observer: &'a dyn Observer,
    backoff: Backoff,
    /// The number of requests to the master to report its next change, and whether the last
    /// one is unanswered.
    request: (u64, bool),
    /// Whether a notification from the master caused the last pass.
    master_changed: bool,
    /// The number of such passes in a row that found nothing.
    empty_passes: u32,
    switches: Option<FileWatcher>,
    /// The file system of the master that was last logged.
    logged_file_system: Option<FileSystem>,
    /// Both files before the last pass, if the pass before it suspended replication too.
    last_snapshot: Option<Snapshot>,
    /// Pending work on the slave's index.
    index: IdleWork,
}

/// The state of both ends at one moment, without reading either.
#[derive(Clone, Debug)]
struct Snapshot {
    slave: Option<FileStat>,
    master: MasterStat,
}

impl Snapshot {
    /// Whether one of the files was replaced by another one.
    fn is_of_others(&self, other: &Self) -> bool {
        !FileStat::are_same_file(self.slave, other.slave)
            || self.master.identity != other.master.identity
    }

    /// Whether a change may affect the outcome of a pass that ended with this exit code. After
    /// damage in the slave, writes to the master do not.
    fn is_cause(&self, other: &Self, exit: Exit) -> bool {
        let master = |master_stat: &MasterStat| {
            (
                master_stat.identity.clone(),
                master_stat.size,
                master_stat.modified,
            )
        };
        let same_master = master(&self.master) == master(&other.master);
        self.slave != other.slave || !same_master && exit != Exit::SlaveDamaged
    }
}

impl<'a> Idle<'a> {
    pub(super) fn new(
        job: &'a Job,
        interval: Duration,
        wakeups: &'a Wakeups,
        observer: &'a dyn Observer,
    ) -> Self {
        Self {
            job,
            interval,
            wakeups,
            observer,
            backoff: Backoff::default(),
            request: (0, false),
            master_changed: false,
            empty_passes: 0,
            switches: None,
            logged_file_system: None,
            last_snapshot: None,
            index: IdleWork::default(),
        }
    }

    /// Waits until there is cause for another pass.
    pub(super) fn after(&mut self, report: &PassReport, elapsed: Duration) {
        let outcome = &report.outcome;
        let state = WatchState::after(outcome.exit);
        if state != WatchState::Suspended {
            self.last_snapshot = None;
        }
        self.index.note(report.index_is_due);
        match state {
            // The next pass goes on fetching blobs of older transactions.
            WatchState::Following if report.blobs_are_due => self.backoff.reset(),
            WatchState::Following => {
                self.empty_passes = match outcome.copied.transactions {
                    0 if self.master_changed => self.empty_passes.saturating_add(1),
                    _ => 0,
                };
                self.master_changed = false;
                self.follow(report.file_system);
            }
            WatchState::Off => self.wait_for_on(&outcome.reason),
            WatchState::Suspended => self.wait_suspended(outcome.exit, elapsed),
            WatchState::Retrying => self.wait_to_retry(outcome.exit),
        }
        // A pass reads the switches itself, and its own writes would cause notifications.
        self.switches = None;
    }

    fn follow(&mut self, file_system: Option<FileSystem>) {
        self.backoff.reset();
        let due = Instant::now() + self.interval;
        // The pass has read the master, so older requests no longer matter.
        self.request.1 = false;
        let has_notifications = file_system.is_some_and(|found| !found.is_network());
        self.log_file_system(file_system);
        self.pause(due);
        let mut may_request = has_notifications;
        let mut is_urgent = self.index.is_urgent();
        while Instant::now() < due {
            if may_request {
                self.request_change(due);
            }
            let wake = if mem::take(&mut is_urgent) {
                self.work_on_index(due, true)
            } else {
                self.wait_quietly(due)
            };
            match wake {
                None => {}
                Some(WakeReason::Master { changed: true, .. }) => {
                    self.master_changed = true;
                    return;
                }
                Some(WakeReason::Master { is_early, .. }) => may_request = !is_early,
                Some(WakeReason::Switch) if !self.is_off() => {}
                Some(WakeReason::Switch | WakeReason::Signal) => return,
            }
        }
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

    /// Waits to be woken. Requests notifications about switches after a quiet period.
    fn wait_quietly(&mut self, due: Instant) -> Option<WakeReason> {
        if self.switches.is_none() {
            let wake = self.wait(due.min(Instant::now() + QUIET_PERIOD));
            if wake.is_some() || Instant::now() >= due {
                return wake;
            }
            let wake = self.work_on_index(due, false);
            if wake.is_some() {
                return wake;
            }
            self.watch_switches();
            if self.is_off() {
                return Some(WakeReason::Switch);
            }
        }
        self.wait(due)
    }

    /// Works on the index until the watch is woken, or until `due`.
    fn work_on_index(&mut self, due: Instant, is_urgent: bool) -> Option<WakeReason> {
        let mut index = mem::take(&mut self.index);
        let slave = &self.job.slave;
        let monitor = self.observer.monitor();
        let mut wake = None;
        let mut is_called = || {
            wake = self.wait(Instant::now());
            wake.is_some() || Instant::now() >= due
        };
        index.work(slave, is_urgent, &mut is_called, monitor.as_ref());
        self.index = index;
        wake
    }

    /// Waits until syncing is on, or off for a different reason, which the next pass then
    /// reports.
    fn wait_for_on(&mut self, reason: &str) {
        self.backoff.reset();
        self.job.master.close();
        let mut has_waited = false;
        loop {
            // Again each time, since the directory of a switch may have been created.
            self.watch_switches();
            let is_over = match self.job.slave.switches.check() {
                Ok(()) => true,
                Err(error) => has_waited && error.display_chain() != reason,
            };
            if is_over || self.wait(Instant::now() + self.interval) == Some(WakeReason::Signal) {
                return;
            }
            has_waited = true;
        }
    }

    fn wait_suspended(&mut self, exit: Exit, elapsed: Duration) {
        let wait = self.backoff.next(chance());
        let wait = wait.max(elapsed.saturating_mul(SUSPENDED_RATIO));
        let due = Instant::now() + wait;
        // Without any change, a pass is made so that the report is repeated.
        let repeated = Instant::now() + wait.max(REPEAT_EVERY);
        loop {
            let worked = self.work_on_index(Instant::now() + self.interval, false);
            self.watch_switches();
            let wake = worked.or_else(|| self.wait(Instant::now() + self.interval));
            if wake == Some(WakeReason::Signal) || self.is_off() {
                return;
            }
            let Ok(now) = self.snapshot() else {
                continue;
            };
            let is_due = Instant::now() >= due;
            let is_cause = match &self.last_snapshot {
                None => is_due,
                Some(before) => now.is_of_others(before) || is_due && now.is_cause(before, exit),
            };
            if is_cause || Instant::now() >= repeated {
                self.last_snapshot = Some(now);
                return;
            }
        }
    }

    fn wait_to_retry(&mut self, exit: Exit) {
        if exit == Exit::Unreachable {
            // The mount may be dead. The next pass opens the master again.
            self.job.master.close();
        }
        let due = Instant::now() + self.backoff.next(chance());
        self.watch_switches();
        while Instant::now() < due {
            if self.wait(due) == Some(WakeReason::Signal) || self.is_off() {
                return;
            }
        }
    }

    /// Waits to be woken, until `due` at the latest.
    fn wait(&mut self, due: Instant) -> Option<WakeReason> {
        loop {
            self.observer.alive();
            let left = due.saturating_duration_since(Instant::now());
            let wake = self.wakeups.wait(left.min(HEARTBEAT_INTERVAL));
            match wake {
                // The request is older than the last pass, which has read the master.
                Some(WakeReason::Master { question, .. }) if (question, true) != self.request => {}
                Some(WakeReason::Master { .. }) => {
                    self.request.1 = false;
                    return wake;
                }
                Some(_) => return wake,
                None => {}
            }
            if left <= HEARTBEAT_INTERVAL {
                return None;
            }
        }
    }

    /// Asks the master to wake the watch when it may have changed, or after a timeout.
    fn request_change(&mut self, due: Instant) {
        if self.request.1 {
            return;
        }
        let question = self.request.0 + 1;
        self.request = (question, true);
        let waker = self.wakeups.waker();
        let now = Instant::now();
        let timeout = due.saturating_duration_since(now).min(MAX_WAIT);
        self.job.master.when_changed(timeout, move |answer| {
            // The next pass reports errors.
            let changed = answer.unwrap_or(false);
            waker.wake(WakeReason::Master {
                question,
                changed,
                is_early: !changed && now.elapsed() < timeout / 2,
            });
        });
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

    fn is_off(&self) -> bool {
        self.job.slave.switches.check().is_err()
    }

    fn snapshot(&self) -> Result<Snapshot, Error> {
        Ok(Snapshot {
            slave: self.job.slave.stat()?,
            master: self.job.master.stat(Vec::new())?,
        })
    }

    /// Requests notifications about changes of the switches.
    fn watch_switches(&mut self) {
        let waker = self.wakeups.waker();
        self.switches = None;
        let mut changes = match FileWatcher::new(move || waker.wake(WakeReason::Switch)) {
            Ok(changes) => changes,
            Err(error) => {
                tracing::debug!("no notifications about switches: {error}");
                return;
            }
        };
        for file in self.job.slave.switches.files() {
            if let Err(error) = changes.add(file) {
                let file = file.display();
                tracing::debug!("no notifications about {file}: {error}");
            }
        }
        self.switches = Some(changes);
    }
}

/// A random number from 0 to 1.
fn chance() -> f64 {
    let bits = RandomState::new().build_hasher().finish() as u32;
    f64::from(bits) / f64::from(u32::MAX)
}
