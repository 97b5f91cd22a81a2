//! One pass: survey → plan → apply, under the pass lock.

pub mod apply;
pub mod reader;
mod report;
pub(crate) mod surroundings;
pub mod survey;

use std::cell::RefCell;
use std::time::Duration;

use jiff::Timestamp;

pub use self::report::JsonReport;

use self::apply::{Apply, Tuning};
use self::survey::Survey;
use crate::error::Error;
use crate::error::retry::Retry;
use crate::filestorage::MAGIC_LEN;
use crate::io::flock;
use crate::io::progress::Monitor;
use crate::plan::outcome::{Action, Copied, Exit, Outcome};
use crate::plan::{Plan, PlannedAction, Policy, SlaveTail};
use crate::slave::lock;
use crate::slave::paths::Sibling;
use crate::slave::running::busy;
use crate::slave::sidecar::{Pass, Sidecar};
use crate::slave::step::Slave;
use crate::slave::verification::Record;
use crate::source::{FileSystem, Master};
use crate::upkeep;

/// What a pass works on, and how.
#[derive(Debug)]
pub struct Job {
    /// The master.
    pub master: Master,
    /// The slave.
    pub slave: Slave,
    /// What is wanted.
    pub policy: Policy,
    /// Sizes.
    pub tuning: Tuning,
    /// Say what would be done, and touch nothing.
    pub dry_run: bool,
    /// For how long an outcome need not be noted again if it is the same, and
    /// nothing was copied.
    pub note_every: Duration,
    /// Work on the slave's index not in the pass, but when there is time.
    pub index_waits: bool,
}

/// How a pass ended, and what its caller has to do with that.
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
}

impl From<Outcome> for PassReport {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            file_system: None,
            record_error: None,
            index_is_due: false,
        }
    }
}

/// Makes one pass.
#[must_use]
pub fn run(job: &Job, monitor: &dyn Monitor) -> PassReport {
    let Entered {
        lock,
        sidecar: loaded,
        is_checked,
    } = match enter(job) {
        Ok(entered) => entered,
        Err(error) => return Outcome::from(&error).into(),
    };
    let collector = Collector::new(monitor);
    let monitor: &dyn Monitor = &collector;
    let mut attempt = Attempt {
        job,
        monitor,
        sidecar: loaded.clone(),
        copied: Copied::default(),
        plan: None,
        retry: Retry::default(),
        is_checked,
        has_looked_around: false,
        looked_at: None,
        file_system: None,
    };
    let result = attempt.run_with_retries();
    let Attempt {
        mut sidecar,
        copied,
        plan,
        looked_at,
        file_system,
        is_checked,
        ..
    } = attempt;
    let mut report = PassReport {
        file_system,
        ..PassReport::from(match &result {
            Ok(plan) => done(plan, copied),
            Err(error) => stopped(error, plan, copied),
        })
    };
    let left = sidecar.last_sync.as_ref().map(|left| left.slave);
    job.slave.paths.note_left(left);
    let is_noted = match result {
        Err(Error::Off(_) | Error::Interrupted) => false,
        // The file is no slave of this master: nothing is left beside it.
        Err(Error::Swapped { .. } | Error::Usage(_)) => is_checked,
        _ => true,
    };
    if lock.is_some() && is_noted {
        let noted = note(job, &loaded, &mut sidecar, &report.outcome, looked_at);
        let is_noted = noted.is_ok();
        report.record_error = noted.err().map(|error| error.display_chain());
        let is_sound = matches!(result, Ok(_) | Err(Error::MasterDamaged { .. }));
        if is_noted && is_sound {
            keep_ledger(job, copied, monitor);
            report.index_is_due = keep_index(job, sidecar, copied, monitor);
        }
    }
    warn_of_damage(&job.slave, monitor);
    report.outcome.warnings.extend(collector.into_warnings());
    report
}

/// Warns if the slave, as it is after the pass, was found damaged by a verification.
fn warn_of_damage(slave: &Slave, monitor: &dyn Monitor) {
    let Some(record) = Record::load(&slave.paths).filter(Record::is_damaged) else {
        return;
    };
    monitor.warn(format!(
        "{}: `fssync verify` found damage at {:.0}: {}; replace the slave with `fssync --full`, \
         or verify it again",
        slave.paths.data().display(),
        record.time,
        record.verdict
    ));
}

/// Collects the warnings of a pass, each once: a pass that starts over meets the same
/// ones again.
struct Collector<'a> {
    monitor: &'a dyn Monitor,
    warnings: RefCell<Vec<String>>,
}

impl<'a> Collector<'a> {
    fn new(monitor: &'a dyn Monitor) -> Self {
        Self {
            monitor,
            warnings: RefCell::default(),
        }
    }

    fn into_warnings(self) -> Vec<String> {
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

/// Has the ledger catch up with the slave, if it is behind.
fn keep_ledger(job: &Job, copied: Copied, monitor: &dyn Monitor) {
    let budget = if job.index_waits {
        upkeep::ledger::WATCH_BUDGET
    } else {
        upkeep::ledger::PASS_BUDGET
    };
    let Some(position) = copied.position.filter(|&it| it > MAGIC_LEN) else {
        return;
    };
    let caught_up = upkeep::ledger::catch_up(&job.slave, &job.master, position, budget, monitor);
    upkeep::ledger::report(caught_up);
}

/// Does what is due to the slave's index; returns whether it is left to be done.
/// All that was copied is visible and noted by now.
fn keep_index(job: &Job, mut sidecar: Sidecar, copied: Copied, monitor: &dyn Monitor) -> bool {
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

/// Notes in the sidecar what the pass left, and how it ended.
fn note(
    job: &Job,
    loaded: &Sidecar,
    sidecar: &mut Sidecar,
    outcome: &Outcome,
    looked_at: Option<Timestamp>,
) -> Result<(), Error> {
    let pass = Pass {
        time: Timestamp::now(),
        action: outcome.action,
        exit_code: outcome.exit as u8,
        reason: outcome.reason.clone(),
    };
    match outcome.exit {
        Exit::Success => {
            sidecar.master_was_damaged = false;
            sidecar.was_refused = false;
        }
        Exit::MasterDamaged => sidecar.master_was_damaged = true,
        Exit::Diverged => sidecar.was_refused = true,
        _ => {}
    }
    let is_noted = loaded.pass.as_ref().is_some_and(|noted| {
        let age = pass.time.duration_since(noted.time).unsigned_abs();
        noted.says_the_same(&pass) && age < job.note_every
    });
    if is_noted && sidecar == loaded {
        return Ok(());
    }
    sidecar.pass = Some(pass);
    if outcome.exit == Exit::Success {
        sidecar.in_sync = looked_at;
    }
    sidecar.store(&job.slave.paths)
}

/// What a pass begins with.
struct Entered {
    /// The pass lock; a dry run takes none.
    lock: Option<lock::Lock>,
    /// What the last pass left.
    sidecar: Sidecar,
    /// Whether the check of a first pass was made, or is not due.
    is_checked: bool,
}

/// Takes the pass lock, if syncing is on, and reads what the last pass left; a
/// dry run only looks who has the lock.
fn enter(job: &Job) -> Result<Entered, Error> {
    let paths = &job.slave.paths;
    job.slave.check_cancelled()?;
    paths.find_mounted()?;
    check_kind(job)?;
    let mut is_checked = false;
    let mut check = || {
        is_checked = true;
        check_first_pass(job, &Sidecar::load(paths)?)
    };
    let lock = if job.dry_run {
        let pass_lock = paths.sibling(Sibling::PassLock);
        if !pass_lock.exists() {
            check()?;
        } else if flock::holder(&pass_lock).is_some() {
            return Err(busy(&job.slave));
        }
        None
    } else {
        Some(lock::take_pass_after(paths, check)?.ok_or_else(|| busy(&job.slave))?)
    };
    let sidecar = Sidecar::load(paths)?;
    Ok(Entered {
        lock,
        is_checked: is_checked || sidecar.last_sync.is_some(),
        sidecar,
    })
}

fn check_first_pass(job: &Job, sidecar: &Sidecar) -> Result<(), Error> {
    surroundings::check_first_pass(&job.slave, &job.master, job.policy, sidecar)
}

/// Refuses a slave whose name may be a mistake before anything is left beside it, even a
/// lock: what a pass leaves makes the name one that `fssync off` believes.
fn check_kind(job: &Job) -> Result<(), Error> {
    let paths = &job.slave.paths;
    if !paths.may_be_mistaken()? {
        return Ok(());
    }
    match job.master.stat(Vec::new()) {
        Ok(master_stat) => paths.check_kind(master_stat.named.is_directory),
        Err(error) if paths.is_named_like_the_master() => Err(error.into()),
        // The survey looks again, and with more patience.
        Err(_) => Ok(()),
    }
}

/// A pass, which starts over where a file changed under it.
struct Attempt<'a> {
    job: &'a Job,
    monitor: &'a dyn Monitor,
    sidecar: Sidecar,
    copied: Copied,
    retry: Retry,
    /// Whether the check of a first pass was made, or is not due.
    is_checked: bool,
    /// Whether the master's surroundings were asked for.
    has_looked_around: bool,
    /// When the master was last looked at.
    looked_at: Option<Timestamp>,
    /// What it lies on.
    file_system: Option<FileSystem>,
    /// The last plan that was made, also if it could not be carried out.
    plan: Option<Plan>,
}

impl Attempt<'_> {
    fn run_with_retries(&mut self) -> Result<Plan, Error> {
        loop {
            match self.once() {
                // It was a switch that ended a wait; does it still say so?
                Err(error @ Error::Interrupted) => {
                    let slave = &self.job.slave;
                    slave.check_cancelled()?;
                    let why = slave.switches.what_ended_a_wait();
                    self.retry.wait_after(why.map_or(error, Error::Off))?;
                }
                Err(error) => self.retry.wait_if_transient(error)?,
                done => return done,
            }
        }
    }

    fn once(&mut self) -> Result<Plan, Error> {
        let Self { job, monitor, .. } = *self;
        let slave = &job.slave;
        if !self.is_checked {
            check_first_pass(job, &self.sidecar)?;
            self.is_checked = true;
        }
        self.looked_at = Some(Timestamp::now());
        let mut survey = Survey::make(slave, &job.master, &self.sidecar, monitor)?;
        self.retry.master_answered();
        self.file_system = Some(survey.master_stat.file_system);
        if survey.coherent_up_to.is_some() {
            self.sidecar.coherent_up_to = survey.coherent_up_to;
        }
        if !survey.is_as_left() {
            // What lies there may be of a file that was there before.
            self.sidecar.index = None;
        }
        self.copied.position = survey.position;
        self.copied.last_tid = survey.last_tid;
        let plan = survey.decide(job.policy, &job.master, monitor)?;
        tracing::debug!("plan: {plan:?}");
        self.look_around(&survey);
        self.plan = Some(plan);
        let apply = Apply {
            slave,
            master: &job.master,
            policy: job.policy,
            tuning: job.tuning,
        };
        let mut copied = Copied::default();
        let result = if job.dry_run {
            check_not_in_use(slave, &plan)
                .and_then(|()| slave.paths.check_is_writable())
                .and_then(|()| apply.rehearse(&plan, &survey, &mut copied, monitor))
        } else {
            apply.carry_out(&plan, &mut survey, &mut self.sidecar, &mut copied, monitor)
        };
        self.copied.add(copied);
        result.map(|()| plan)
    }

    /// Looks around a master that is another file than at the last pass, and at `--full`.
    fn look_around(&mut self, survey: &Survey) {
        let left = self.sidecar.last_sync.as_ref();
        let is_known = left.is_some_and(|left| left.master == survey.master_stat.identity);
        if self.has_looked_around || (is_known && !self.job.policy.full) {
            return;
        }
        self.has_looked_around = true;
        let Self { job, monitor, .. } = *self;
        surroundings::report(&job.slave, &job.master, &mut self.sidecar.reported, monitor);
    }
}

/// What the first step of a plan that writes would find.
fn check_not_in_use(slave: &Slave, plan: &Plan) -> Result<(), Error> {
    match flock::holder(&slave.paths.sibling(Sibling::ZodbLock)) {
        pid @ Some(_) if plan.action != PlannedAction::Nothing => Err(Error::InUse {
            slave: slave.paths.data().to_owned(),
            pid,
        }),
        _ => Ok(()),
    }
}

fn action(plan: &Plan, copied: Copied) -> Action {
    match plan.action {
        PlannedAction::FullCopy { .. } => Action::FullCopy,
        PlannedAction::Append { trim, .. } if copied.transactions > 0 => match trim {
            SlaveTail::None => Action::Append,
            SlaveTail::Ours(_) | SlaveTail::Foreign(_) => Action::TrimAppend,
        },
        PlannedAction::Append { .. } | PlannedAction::Nothing => Action::UpToDate,
    }
}

/// How a pass ends that did what was planned.
pub(crate) fn done(plan: &Plan, copied: Copied) -> Outcome {
    Outcome {
        action: action(plan, copied),
        exit: Exit::Success,
        reason: plan.reason.to_string(),
        hint: None,
        copied,
        warnings: Vec::new(),
    }
}

/// How a pass ends that stopped; what it had done by then counts.
pub(crate) fn stopped(error: &Error, plan: Option<Plan>, copied: Copied) -> Outcome {
    let outcome = Outcome::from(error);
    Outcome {
        action: match plan {
            Some(plan) if copied.transactions > 0 => action(&plan, copied),
            _ => outcome.action,
        },
        copied,
        ..outcome
    }
}
