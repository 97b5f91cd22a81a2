//! Compares the slave with its master: the replica lag, and the outcome of the next pass.

use super::slave::SlaveReader;
use super::{Lag, MasterComparison};
use crate::compare::span::TransactionSpan;
use crate::error::Error;
use crate::error::retry::Retry;
use crate::filestorage::Tid;
use crate::filestorage::scan::Event;
use crate::io::progress::Monitor;
use crate::pass;
use crate::pass::apply::Tuning;
use crate::pass::reader::{Cut, TransactionReader};
use crate::pass::surroundings;
use crate::pass::survey::Survey;
use crate::plan::outcome::{Copied, Exit, Outcome};
use crate::plan::{AppendPlan, PlannedAction, Policy, SlaveState};
use crate::slave::sidecar::Sidecar;
use crate::slave::snapshot::SlaveSnapshot;
use crate::slave::space;
use crate::source::{Master, Surroundings};

/// Compares a slave, as it was just read, with its master. Reads the slave again if the
/// master changes in between.
pub(super) fn compare(
    mut reader: SlaveReader<'_>,
    first: (Sidecar, SlaveSnapshot),
    master: &Master,
    zodb_pid: Option<u32>,
) -> Result<MasterComparison, Error> {
    let mut retry = Retry::default();
    let mut first = Some(first);
    let (next_pass, lag) = loop {
        let (sidecar, sample) = match first.take() {
            Some(found) => found,
            None => reader.read()?,
        };
        match compare_once(&reader, (&sidecar, sample), master, zodb_pid, &mut retry) {
            Ok(compared) => break compared,
            Err(error) => match retry.wait_if_transient(error) {
                Ok(()) => {}
                Err(error @ (Error::Unreachable(_) | Error::MasterChanged { .. })) => {
                    break (Outcome::from(&error), None);
                }
                Err(error) => return Err(error),
            },
        }
    };
    // The surroundings do not affect the comparison, so errors are ignored.
    let around = match next_pass.exit {
        Exit::Unreachable => Surroundings::default(),
        _ => master.surroundings().unwrap_or_default(),
    };
    Ok(MasterComparison {
        master: master.name().to_owned(),
        next_pass,
        lag,
        warnings: surroundings::warnings(&around, reader.slave, master.name()),
        strays: around.strays,
    })
}

fn compare_once(
    reader: &SlaveReader<'_>,
    (sidecar, sample): (&Sidecar, SlaveSnapshot),
    master: &Master,
    zodb_pid: Option<u32>,
    retry: &mut Retry,
) -> Result<(Outcome, Option<Lag>), Error> {
    let SlaveReader { slave, monitor, .. } = reader;
    let mut survey = Survey::of(sample, &slave.paths, master, sidecar)?;
    retry.master_answered();
    let plan = match survey.decide(Policy::default(), master, *monitor) {
        Err(error @ Error::Refused(_)) => {
            return Ok((Outcome::from(&error), None));
        }
        plan => plan?,
    };
    let (ahead, damage) = match plan.action {
        PlannedAction::Nothing => (Some(TransactionSpan::default()), None),
        PlannedAction::Append(append) => {
            let (ahead, damage) = beyond(&survey, append, master, *monitor)?;
            (Some(ahead), damage)
        }
        PlannedAction::FullCopy(_) => match survey.observation.slave {
            SlaveState::Storage(_) => (Some(survey.newer(master)?), None),
            _ => (None, None),
        },
    };
    let copied = Copied {
        position: survey.position,
        last_tid: survey.last_tid,
        transactions: ahead.map_or(0, |ahead| ahead.count),
        bytes: ahead.map_or(0, |ahead| ahead.bytes),
        ..Copied::default()
    };
    // A pass that writes nothing does not take ZODB's lock, and succeeds while ZEO runs.
    let is_written = match plan.action {
        PlannedAction::Nothing => false,
        PlannedAction::Append(_) => copied.transactions > 0,
        PlannedAction::FullCopy(_) => true,
    };
    // A pass checks the free space before it could meet the damage.
    let room = match plan.action {
        PlannedAction::Nothing => Ok(()),
        PlannedAction::Append(append) => space::check_append(slave, append.from + copied.bytes),
        PlannedAction::FullCopy(_) => space::check_next_copy(slave, survey.master_stat.size),
    };
    let next_pass = match room.err().or(damage) {
        _ if is_written && zodb_pid.is_some() => Outcome::from(&Error::InUse {
            slave: slave.paths.data().to_owned(),
            pid: zodb_pid,
        }),
        None => pass::succeeded(&plan, copied),
        Some(error) => pass::failed(&error, Some(plan), copied),
    };
    Ok((next_pass, ahead.map(Lag::from)))
}

/// The transactions that the master committed after the slave's position, and the damage
/// that follows them, if any.
fn beyond(
    survey: &Survey,
    plan: AppendPlan,
    master: &Master,
    monitor: &dyn Monitor,
) -> Result<(TransactionSpan, Option<Error>), Error> {
    let chunk_len = Tuning::default().chunk_len;
    let AppendPlan { from, last_tid, .. } = plan;
    let mut reader = TransactionReader::new(master, &survey.master_stat, from, last_tid, chunk_len);
    reader.begin_with(survey.take_read_ahead());
    while (reader.next(Cut::Anywhere, &mut |_: Event| {})?).is_some() {
        let (done, total) = (reader.position() - from, reader.size() - from);
        monitor.progress("reading what is new", done, total);
    }
    let ahead = TransactionSpan {
        count: reader.transactions(),
        bytes: reader.position() - from,
        first: reader.first_tid(),
        last: reader.first_tid().and(reader.last_tid()),
    };
    let damage = reader.damage().map(|damage| Error::MasterDamaged {
        master: master.name().to_owned(),
        damage,
    });
    Ok((ahead, damage))
}

impl From<TransactionSpan> for Lag {
    fn from(ahead: TransactionSpan) -> Self {
        Self {
            transactions: ahead.count,
            bytes: ahead.bytes,
            since: ahead.first.and_then(Tid::time),
        }
    }
}
