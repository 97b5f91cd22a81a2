//! Makes one pass: survey → plan → apply, under the pass lock.
//!
//! The pass starts over if a file changes meanwhile. At its end it records the outcome in the
//! sidecar, and updates the ledger and the index of the slave.

pub mod apply;
mod attempts;
pub mod blobs;
mod collector;
pub mod reader;
mod report;
mod start;
pub(crate) mod surroundings;
pub mod survey;

use std::time::Duration;

use jiff::Timestamp;

pub use self::report::JsonReport;

use self::apply::Tuning;
use self::attempts::Attempts;
use self::blobs::{BlobMode, BlobWork, OpenBlobs};
use self::collector::Collector;
use self::start::{PassStart, start_pass};
use crate::blobs::remove;
use crate::error::Error;
use crate::error::retry::Retry;
use crate::filestorage::MAGIC_LEN;
use crate::io::progress::Monitor;
use crate::plan::outcome::{Action, Copied, Exit, Outcome};
use crate::plan::{Plan, PlannedAction, Policy, Reason, SlaveTail};
use crate::slave::sidecar::{Pass, Sidecar, Unrecorded};
use crate::slave::step::Slave;
use crate::slave::verification::Record;
use crate::source::{FileSystem, Master};
use crate::upkeep;

/// The two ends of a pass, and its options.
#[derive(Debug)]
pub struct Job {
    /// The master.
    pub master: Master,
    /// The location of the master, for the sidecar; `None` if it cannot be recorded.
    pub location: Option<String>,
    /// The slave.
    pub slave: Slave,
    /// The options that affect its decisions.
    pub policy: Policy,
    /// The sizes of chunks and batches.
    pub tuning: Tuning,
    /// Whether it copies blobs.
    pub blobs: BlobMode,
    /// Report what the pass would do, and write nothing.
    pub dry_run: bool,
    /// How long the sidecar may keep the time of an earlier pass that had the same outcome and
    /// after which nothing was copied.
    pub note_every: Duration,
    /// Leave work on the slave's index to the caller, who does it when there is time.
    pub index_waits: bool,
    /// Counters of earlier passes that the next pass stores.
    pub unrecorded: Unrecorded,
}

impl Job {
    /// How long a piece of upkeep may take. The next commit waits for the upkeep of a watch.
    fn budget(&self, pass: Duration, watch: Duration) -> Duration {
        if self.index_waits { watch } else { pass }
    }
}

/// The result of a pass for its caller.
#[derive(Clone, Debug)]
pub struct PassReport {
    /// The outcome.
    pub outcome: Outcome,
    /// The file system of the master, if the pass reached the master.
    pub file_system: Option<FileSystem>,
    /// Why the outcome could not be recorded in the sidecar, if that failed.
    pub record_error: Option<String>,
    /// Whether the slave's index needs work that the pass left for later; see
    /// [`Job::index_waits`].
    pub index_is_due: bool,
    /// Whether transactions lack blobs that the next pass can fetch.
    pub blobs_are_due: bool,
}

impl From<Outcome> for PassReport {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            file_system: None,
            record_error: None,
            index_is_due: false,
            blobs_are_due: false,
        }
    }
}

/// Makes one pass.
#[must_use]
pub fn run(job: &Job, monitor: &dyn Monitor) -> PassReport {
    let began = Timestamp::now();
    let PassStart {
        lock,
        sidecar: loaded,
        is_checked,
    } = match start_pass(job) {
        Ok(start) => start,
        Err(error) => {
            let outcome = Outcome::from(&error);
            job.unrecorded.count(&outcome);
            return outcome.into();
        }
    };
    let collector = Collector::new(monitor);
    let monitor: &dyn Monitor = &collector;
    let mut attempts = Attempts {
        job,
        monitor,
        sidecar: loaded.clone(),
        copied: Copied::default(),
        plan: None,
        blobs: BlobWork::of(&job.blobs),
        retry: Retry::default(),
        is_checked,
        has_checked_surroundings: false,
        policy: job.policy,
        surveyed_at: None,
        file_system: None,
    };
    let result = attempts.run_with_retries();
    // An attempt may have changed the sidecar and copied transactions before it failed.
    let Attempts {
        mut sidecar,
        copied,
        plan,
        surveyed_at,
        file_system,
        is_checked,
        blobs,
        ..
    } = attempts;
    let mut report = PassReport {
        file_system,
        blobs_are_due: blobs.are_due,
        ..PassReport::from(match &result {
            Ok(plan) => succeeded(plan, copied.clone()),
            Err(error) => failed(error, plan, copied.clone()),
        })
    };
    // By this fingerprint the slave is recognised if its file system is mounted again.
    let left = sidecar.last_sync.as_ref().map(|left| left.slave);
    job.slave.paths.remember(left);
    // The next pass and `fssync status` need the outcome, unless this pass touched nothing.
    let must_record = match result {
        Err(Error::Off(_) | Error::Interrupted) => false,
        // The file is not a slave of this master, so nothing is written beside it.
        Err(Error::Swapped { .. } | Error::Usage(_)) => is_checked,
        _ => true,
    };
    job.unrecorded.count(&report.outcome);
    if lock.is_some() && must_record {
        let times = Times { began, surveyed_at };
        let recorded = record_outcome(job, &loaded, &mut sidecar, &report.outcome, times);
        let is_recorded = recorded.is_ok();
        report.record_error = recorded.err().map(|error| error.display_chain());
        let is_sound = matches!(result, Ok(_) | Err(Error::MasterDamaged { .. }));
        // The copied transactions are visible and recorded. Ledger and index may follow later.
        if is_recorded && is_sound {
            update_ledger(job, &copied, monitor);
            if let Some(blobs) = &blobs.open {
                upkeep::report_blobs(remove_gone_blobs(job, blobs, &copied, &mut sidecar));
            }
            report.index_is_due = update_index(job, sidecar, &copied, monitor);
        }
    }
    warn_of_damage(&job.slave, monitor);
    report.outcome.warnings.extend(collector.into_warnings());
    report
}

/// Warns if `fssync verify` has found damage in the slave as it is after the pass.
fn warn_of_damage(slave: &Slave, monitor: &dyn Monitor) {
    let Some(record) = Record::load(&slave.paths).filter(Record::is_damaged) else {
        return;
    };
    monitor.warn(format!(
        "{}: `fssync verify` found damage at {:.0}: {}; {}",
        slave.paths.data().display(),
        record.time,
        record.verdict,
        record.remedy()
    ));
}

/// Adds the digests to the ledger that it lacks, for a limited time.
fn update_ledger(job: &Job, copied: &Copied, monitor: &dyn Monitor) {
    let budget = job.budget(upkeep::ledger::PASS_BUDGET, upkeep::ledger::WATCH_BUDGET);
    let Some(position) = copied.position.filter(|&it| it > MAGIC_LEN) else {
        return;
    };
    let caught_up = upkeep::ledger::catch_up(&job.slave, &job.master, position, budget, monitor);
    upkeep::ledger::report(caught_up);
}

/// Removes blobs that a pack of the master has removed long enough ago.
fn remove_gone_blobs(
    job: &Job,
    open: &OpenBlobs,
    copied: &Copied,
    sidecar: &mut Sidecar,
) -> Result<(), Error> {
    let budget = job.budget(remove::PASS_BUDGET, remove::WATCH_BUDGET);
    let Some(position) = copied.position else {
        return Ok(());
    };
    let (slave, keep) = (&job.slave, open.options.keep_packed);
    let removed = remove::remove_gone(slave, &open.directory, position, keep, budget)?;
    if removed.files > 0
        && let Some(state) = &mut sidecar.blobs
    {
        state.subtract(removed.files, removed.bytes);
        let blobs = state.files + state.absent;
        sidecar.store(&slave.paths)?;
        let compacted = remove::compact_ledger(slave, &open.directory, position, blobs);
        upkeep::report_compacted_ledger(compacted);
    }
    Ok(())
}

/// Updates the slave's index if it covers too little. Returns whether that is left to the caller.
/// All that was copied is visible and recorded at this point.
fn update_index(job: &Job, mut sidecar: Sidecar, copied: &Copied, monitor: &dyn Monitor) -> bool {
    let Some(position) = copied.position.filter(|&it| it > MAGIC_LEN) else {
        return false;
    };
    let slave = &job.slave;
    let mut keep = || {
        let is_due = upkeep::index::is_due(slave, &sidecar, position)?;
        if !is_due || job.index_waits {
            return Ok(is_due);
        }
        let budget = upkeep::index::PASS_BUDGET;
        upkeep::index::update(slave, position, budget, &mut sidecar, monitor)?;
        Ok(false)
    };
    keep().unwrap_or_else(|error| {
        upkeep::index::report(Err(error));
        false
    })
}

/// The times of a pass.
#[derive(Clone, Copy)]
struct Times {
    /// When it began.
    began: Timestamp,
    /// When its last survey began.
    surveyed_at: Option<Timestamp>,
}

/// Records the outcome, and the state of the slave, in the sidecar.
fn record_outcome(
    job: &Job,
    loaded: &Sidecar,
    sidecar: &mut Sidecar,
    outcome: &Outcome,
    times: Times,
) -> Result<(), Error> {
    let last = loaded.pass.as_ref();
    let pass = Pass::new(outcome, times.began, Timestamp::now(), last);
    match outcome.exit {
        Exit::Success => {
            sidecar.master_was_damaged = false;
            sidecar.was_refused = false;
        }
        Exit::MasterDamaged => sidecar.master_was_damaged = true,
        Exit::Diverged => sidecar.was_refused = true,
        _ => {}
    }
    // A pass that was refused may have been given the master of another slave.
    if outcome.exit == Exit::Success || sidecar.master.is_none() {
        sidecar.master.clone_from(&job.location);
    }
    // A watch makes many passes: the same outcome is not written again each time.
    let is_recorded = last.is_some_and(|last| {
        let age = pass.time.duration_since(last.time).unsigned_abs();
        last.has_same_result(&pass) && age < job.note_every
    });
    if is_recorded && sidecar == loaded {
        return Ok(());
    }
    sidecar.pass = Some(pass);
    if outcome.exit == Exit::Success {
        sidecar.in_sync = times.surveyed_at;
    }
    sidecar.counters.add(&job.unrecorded.counters());
    sidecar.store(&job.slave.paths)?;
    job.unrecorded.clear();
    Ok(())
}

fn action(plan: &Plan, copied: &Copied) -> Action {
    if copied.own_transactions > 0 {
        return Action::Rewind;
    }
    match plan.action {
        PlannedAction::FullCopy(_) => Action::FullCopy,
        PlannedAction::Append(append) if copied.transactions > 0 => match append.trim {
            SlaveTail::None => Action::Append,
            SlaveTail::Ours(_) | SlaveTail::Foreign(_) => Action::TrimAppend,
        },
        PlannedAction::Rewind(_) => Action::Rewind,
        PlannedAction::Append(_) | PlannedAction::Nothing => Action::UpToDate,
    }
}

/// The outcome of a pass that has carried out its plan.
pub(crate) fn succeeded(plan: &Plan, copied: Copied) -> Outcome {
    // After a rewind, the pass has made another plan.
    let reason = if copied.own_transactions > 0 {
        Reason::Forked
    } else {
        plan.reason
    };
    Outcome {
        action: action(plan, &copied),
        exit: Exit::Success,
        reason: reason.to_string(),
        hint: None,
        copied,
        warnings: Vec::new(),
    }
}

/// The outcome of a pass that an error has ended, perhaps after a part of its plan.
pub(crate) fn failed(error: &Error, plan: Option<Plan>, copied: Copied) -> Outcome {
    let outcome = Outcome::from(error);
    Outcome {
        action: match plan {
            Some(plan) if copied.transactions > 0 || copied.own_transactions > 0 => {
                action(&plan, &copied)
            }
            _ => outcome.action,
        },
        copied,
        ..outcome
    }
}
