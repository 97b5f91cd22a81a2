//! Between two passes: what is waited for, and how long.

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

/// How often a resting watch says that it is alive.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// How long nothing may happen before the kernel is asked to tell of flipped
/// switches. Until then a pass is likely to come, which reads them itself, and
/// whose writes in the same directory would be told of, too.
const QUIET_PERIOD: Duration = Duration::from_millis(50);

/// How many passes in a row may find nothing before the next one is put off: a
/// commit is two changes, of which the first is nothing yet.
const EMPTY_PASSES: u32 = 3;

/// The longest that a pass is put off while all that was told came to nothing.
const MAX_PAUSE: Duration = Duration::from_millis(20);

/// A pass that stands still is made again after as many times its own length.
const SUSPENDED_RATIO: u32 = 10;

/// What a watch does between two passes.
pub(super) struct Idle<'a> {
    job: &'a Job,
    interval: Duration,
    wakeups: &'a Wakeups,
    observer: &'a dyn Observer,
    backoff: Backoff,
    /// How many questions the master was asked that ring the bell, and whether
    /// the last one is unanswered.
    asked: (u64, bool),
    /// Whether it was the master that rang for the last pass.
    master_changed: bool,
    /// How many passes in a row for which it rang found nothing.
    empty_passes: u32,
    switches: Option<FileWatcher>,
    /// What the master was last said to lie on.
    logged_file_system: Option<FileSystem>,
    /// What was seen before the last pass, where the one before stood still too.
    last_snapshot: Option<Snapshot>,
    /// The work on the slave's index.
    index: IdleWork,
}

/// The state of both ends at one moment, without reading either.
#[derive(Clone, Debug)]
struct Snapshot {
    slave: Option<FileStat>,
    master: MasterStat,
}

impl Snapshot {
    /// Whether it shows other files: somebody has put one in another's place.
    fn is_of_others(&self, other: &Self) -> bool {
        !FileStat::are_same_file(self.slave, other.slave)
            || self.master.identity != other.master.identity
    }

    /// Whether anything may have changed that counts after a pass that ended so.
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
            asked: (0, false),
            master_changed: false,
            empty_passes: 0,
            switches: None,
            logged_file_system: None,
            last_snapshot: None,
            index: IdleWork::default(),
        }
    }

    /// Rests until there is cause for another pass after one that ended so.
    pub(super) fn after(&mut self, report: &PassReport, elapsed: Duration) {
        let outcome = &report.outcome;
        let state = WatchState::after(outcome.exit);
        if state != WatchState::Suspended {
            self.last_snapshot = None;
        }
        self.index.note(report.index_is_due);
        match state {
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
        // A pass reads the switches itself, and would be told of its own writes.
        self.switches = None;
    }

    fn follow(&mut self, file_system: Option<FileSystem>) {
        self.backoff.reset();
        let due = Instant::now() + self.interval;
        // The pass has looked at the master: what was asked before it is answered.
        self.asked.1 = false;
        let is_told = file_system.is_some_and(|found| !found.is_network());
        self.log_file_system(file_system);
        self.pause(due);
        let mut may_ask = is_told;
        let mut is_urgent = self.index.is_urgent();
        while Instant::now() < due {
            if may_ask {
                self.ask(due);
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
                Some(WakeReason::Master { is_early, .. }) => may_ask = !is_early,
                Some(WakeReason::Switch) if !self.is_off() => {}
                Some(WakeReason::Switch | WakeReason::Signal) => return,
            }
        }
    }

    /// Puts the next pass off where all that was told of late came to nothing.
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

    /// Waits for the bell; of switches it hears only once it was quiet a while.
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
            self.listen_to_switches();
            if self.is_off() {
                return Some(WakeReason::Switch);
            }
        }
        self.wait(due)
    }

    /// Does what is due to the index, until the bell rings, or until `due`.
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

    /// Waits until syncing is on, or off for another reason than the last pass had, which
    /// the next pass reports.
    fn wait_for_on(&mut self, reason: &str) {
        self.backoff.reset();
        self.job.master.close();
        let mut has_waited = false;
        loop {
            // At every tick: the directory of a switch may exist by now.
            self.listen_to_switches();
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
        // That pass finds the same, and has it repeated.
        let repeated = Instant::now() + wait.max(REPEAT_EVERY);
        loop {
            let worked = self.work_on_index(Instant::now() + self.interval, false);
            self.listen_to_switches();
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
            // A mount that is dead may be made anew.
            self.job.master.close();
        }
        let due = Instant::now() + self.backoff.next(chance());
        self.listen_to_switches();
        while Instant::now() < due {
            if self.wait(due) == Some(WakeReason::Signal) || self.is_off() {
                return;
            }
        }
    }

    /// Waits for the bell, until `due` at the latest.
    fn wait(&mut self, due: Instant) -> Option<WakeReason> {
        loop {
            self.observer.alive();
            let left = due.saturating_duration_since(Instant::now());
            let wake = self.wakeups.wait(left.min(HEARTBEAT_INTERVAL));
            match wake {
                // It was asked before a pass that has looked itself.
                Some(WakeReason::Master { question, .. }) if (question, true) != self.asked => {}
                Some(WakeReason::Master { .. }) => {
                    self.asked.1 = false;
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

    /// Has the master ring the bell when it may have changed, or after a while.
    fn ask(&mut self, due: Instant) {
        if self.asked.1 {
            return;
        }
        let question = self.asked.0 + 1;
        self.asked = (question, true);
        let waker = self.wakeups.waker();
        let now = Instant::now();
        let patience = due.saturating_duration_since(now).min(MAX_WAIT);
        self.job.master.when_changed(patience, move |answer| {
            // What is wrong with it is for the pass at the next tick to say.
            let changed = answer.unwrap_or(false);
            waker.wake(WakeReason::Master {
                question,
                changed,
                is_early: !changed && now.elapsed() < patience / 2,
            });
        });
    }

    /// Says what the master lies on, and how its changes are noticed there.
    fn log_file_system(&mut self, found: Option<FileSystem>) {
        let Some(file_system) = found.filter(|_| found != self.logged_file_system) else {
            return;
        };
        self.logged_file_system = found;
        let how = if file_system.is_network() {
            "which does not tell of changes: it is looked at"
        } else {
            "which tells of changes; it is looked at as well"
        };
        let (master, secs) = (self.job.master.name(), self.interval.as_secs_f64());
        tracing::info!("{master} lies on {file_system}, {how} every {secs} s");
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

    /// Has the bell rung where a switch may have been flipped.
    fn listen_to_switches(&mut self) {
        let waker = self.wakeups.waker();
        self.switches = None;
        let mut changes = match FileWatcher::new(move || waker.wake(WakeReason::Switch)) {
            Ok(changes) => changes,
            Err(error) => {
                tracing::debug!("switches are looked at when something else is: {error}");
                return;
            }
        };
        for file in self.job.slave.switches.files() {
            if let Err(error) = changes.add(file) {
                let file = file.display();
                tracing::debug!("nothing tells of changes of {file}: {error}");
            }
        }
        self.switches = Some(changes);
    }
}

/// A number from 0 to 1, another one each time.
fn chance() -> f64 {
    let bits = RandomState::new().build_hasher().finish() as u32;
    f64::from(bits) / f64::from(u32::MAX)
}
