//! One pass: survey → plan → apply, under the pass lock.

use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::apply::{Apply, Tuning};
use crate::monitor::Monitor;
use crate::outcome::{Action, Copied, Exit, Outcome};
use crate::plan::{Decision, Deed, Plan, Policy, Tail, decide};
use crate::slave::lock;
use crate::slave::place::Beside;
use crate::slave::sidecar::{Pass, Sidecar};
use crate::slave::step::Slave;
use crate::source::{FileSystem, Master};
use crate::stop::Stop;
use crate::survey::Survey;

/// How long the master may be missing or half there before it counts as
/// unreachable: ZODB's pack renames twice, and in between there is no
/// `Data.fs`.
const PASSING: Duration = Duration::from_millis(1200);

/// How often it is looked for in that time.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often a pass starts over because one of the files changed under it.
const MAX_SURVEYS: u32 = 5;

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
}

/// Makes one pass.
#[must_use]
pub fn pass(job: &Job, monitor: &dyn Monitor) -> Outcome {
    let (lock, loaded) = match enter(job) {
        Ok(entered) => entered,
        Err(stop) => return Outcome::from(&stop),
    };
    let mut attempt = Attempt {
        job,
        monitor,
        sidecar: loaded.clone(),
        copied: Copied::default(),
        plan: None,
        missing_since: None,
        file_system: None,
    };
    let result = attempt.until_it_lasts();
    let Attempt {
        sidecar,
        copied,
        plan,
        file_system,
        ..
    } = attempt;
    let mut outcome = match &result {
        Ok(plan) => done(plan, copied),
        Err(stop) => stopped(stop, plan, copied),
    };
    outcome.file_system = file_system;
    let is_noted = !matches!(result, Err(Stop::Off(_) | Stop::Interrupted));
    if lock.is_some() && is_noted {
        let noted = note(job, &loaded, sidecar, &outcome);
        outcome.unnoted = noted.err().map(|stop| stop.in_one_line());
    }
    outcome
}

/// Notes in the sidecar what the pass left, and how it ended.
fn note(job: &Job, loaded: &Sidecar, mut sidecar: Sidecar, outcome: &Outcome) -> Result<(), Stop> {
    let pass = Pass {
        time: Timestamp::now(),
        action: outcome.action,
        exit_code: outcome.exit as u8,
        reason: outcome.reason.clone(),
    };
    let is_noted = loaded.pass.as_ref().is_some_and(|noted| {
        let age = pass.time.duration_since(noted.time).unsigned_abs();
        noted.says_the_same(&pass) && age < job.note_every
    });
    if is_noted && sidecar == *loaded {
        return Ok(());
    }
    sidecar.pass = Some(pass);
    sidecar.store(&job.slave.place)
}

/// Takes the pass lock, if syncing is on, and reads what the last pass left; a
/// dry run only looks who has the lock.
fn enter(job: &Job) -> Result<(Option<lock::Lock>, Sidecar), Stop> {
    let place = &job.slave.place;
    job.slave.check_may_go_on()?;
    let lock = if job.dry_run {
        if let pid @ Some(_) = lock::holder(&place.beside(Beside::PassLock)) {
            return Err(Stop::Busy {
                slave: place.data().to_owned(),
                pid,
            });
        }
        None
    } else {
        Some(lock::take_pass(place)?)
    };
    Ok((lock, Sidecar::load(place)?))
}

/// A pass, which starts over where a file changed under it.
struct Attempt<'a> {
    job: &'a Job,
    monitor: &'a dyn Monitor,
    sidecar: Sidecar,
    copied: Copied,
    /// Since when the master does not answer.
    missing_since: Option<Instant>,
    /// What it lies on.
    file_system: Option<FileSystem>,
    /// The last plan that was made, also if it could not be carried out.
    plan: Option<Plan>,
}

impl Attempt<'_> {
    fn until_it_lasts(&mut self) -> Result<Plan, Stop> {
        let mut surveys = 0;
        loop {
            let stop = match self.once() {
                Err(stop) if stop.is_passing() => stop,
                // It was a switch that ended a wait; does it still say so?
                Err(Stop::Interrupted) => {
                    self.job.slave.check_may_go_on()?;
                    Stop::Interrupted
                }
                result => return result,
            };
            if let Stop::Unreachable(_) = stop {
                let since = *self.missing_since.get_or_insert_with(Instant::now);
                if since.elapsed() > PASSING {
                    return Err(stop);
                }
            } else {
                surveys += 1;
                if surveys == MAX_SURVEYS {
                    return Err(stop);
                }
            }
            tracing::debug!("looking again: {}", stop.in_one_line());
            thread::sleep(LOOK_EVERY);
        }
    }

    fn once(&mut self) -> Result<Plan, Stop> {
        let Self { job, monitor, .. } = *self;
        let slave = &job.slave;
        let mut survey = Survey::make(slave, &job.master, &self.sidecar, monitor)?;
        self.missing_since = None;
        self.file_system = Some(survey.sight.file_system);
        if survey.scanned.is_some() {
            self.sidecar.scanned = survey.scanned;
        }
        self.copied.position = survey.position;
        self.copied.last_tid = survey.last_tid;
        let plan = loop {
            match decide(&survey.facts, job.policy) {
                Decision::Do(plan) => break plan,
                Decision::Refuse(refusal) => return Err(Stop::Refused(refusal)),
                Decision::Ask(question) => survey.answer(question, &job.master, monitor)?,
            }
        };
        tracing::debug!("plan: {plan:?}");
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
                .and_then(|()| apply.rehearse(&plan, &survey, &mut copied, monitor))
        } else {
            apply.carry_out(&plan, &survey, &mut self.sidecar, &mut copied, monitor)
        };
        self.copied.add(copied);
        result.map(|()| plan)
    }
}

/// What the first step of a plan that writes would find.
fn check_not_in_use(slave: &Slave, plan: &Plan) -> Result<(), Stop> {
    match lock::holder(&slave.place.beside(Beside::ZodbLock)) {
        pid @ Some(_) if plan.deed != Deed::Nothing => Err(Stop::InUse {
            slave: slave.place.data().to_owned(),
            pid,
        }),
        _ => Ok(()),
    }
}

fn action(plan: &Plan, copied: Copied) -> Action {
    match plan.deed {
        Deed::FullCopy { .. } => Action::FullCopy,
        Deed::Append { trim, .. } if copied.transactions > 0 => match trim {
            Tail::None => Action::Append,
            Tail::Ours(_) | Tail::Foreign(_) => Action::TrimAppend,
        },
        Deed::Append { .. } | Deed::Nothing => Action::UpToDate,
    }
}

fn done(plan: &Plan, copied: Copied) -> Outcome {
    Outcome {
        action: action(plan, copied),
        exit: Exit::Success,
        reason: plan.reason.to_string(),
        hint: None,
        copied,
        file_system: None,
        unnoted: None,
    }
}

/// A pass that stopped; what it had done by then counts.
fn stopped(stop: &Stop, plan: Option<Plan>, copied: Copied) -> Outcome {
    let outcome = Outcome::from(stop);
    Outcome {
        action: match plan {
            Some(plan) if copied.transactions > 0 => action(&plan, copied),
            _ => outcome.action,
        },
        copied,
        ..outcome
    }
}
