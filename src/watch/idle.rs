//! Waits between two passes, until there is cause for the next one.

mod follow;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::mem;
use std::time::{Duration, Instant};

use self::follow::Cause;
use super::backoff::Backoff;
use super::wakeups::{WakeReason, Wakeups};
use super::{Observer, REPEAT_EVERY, WatchState};
use crate::error::Error;
use crate::io::file_stat::FileStat;
use crate::io::notify::FileWatcher;
use crate::pass::{Job, PassReport};
use crate::plan::outcome::Exit;
use crate::source::{FileSystem, MasterStat};
use crate::upkeep::IdleWork;

/// How often a waiting watch sends a heartbeat to its observer.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// How long nothing must happen before the watch requests notifications about switches. During
/// activity, the next pass soon reads them anyway, and its own writes in the same directory
/// would cause notifications.
const QUIET_PERIOD: Duration = Duration::from_millis(50);

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
    /// Why the last pass was made.
    cause: Cause,
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
            cause: Cause::Other,
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
        if state != WatchState::Following {
            self.cause = Cause::Other;
        }
        self.index.note(report.index_is_due);
        match state {
            // The next pass goes on fetching blobs of older transactions.
            WatchState::Following if report.blobs_are_due => self.backoff.reset(),
            WatchState::Following => {
                let is_empty = outcome.copied.transactions == 0;
                self.empty_passes = match self.cause {
                    Cause::Master if is_empty => self.empty_passes.saturating_add(1),
                    _ => 0,
                };
                let is_quiet = is_empty && self.cause == Cause::Interval;
                self.cause = self.follow(report.file_system, is_quiet);
            }
            WatchState::Off => self.wait_for_on(&outcome.reason),
            WatchState::Suspended => self.wait_suspended(outcome.exit, elapsed),
            WatchState::Retrying => self.wait_to_retry(outcome.exit),
        }
        // A pass reads the switches itself, and its own writes would cause notifications.
        self.switches = None;
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
