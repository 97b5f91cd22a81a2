//! Compares the slave with its master: the replica lag, and the outcome of the next pass.

use std::fs::File;

use super::slave::SlaveReader;
use super::{Lag, MasterComparison};
use crate::compare::span::TransactionSpan;
use crate::error::Error;
use crate::error::retry::Retry;
use crate::filestorage::Tid;
use crate::filestorage::backward::ReadAt;
use crate::filestorage::blob::{BlobCandidate, BlobCollector};
use crate::io::progress::Monitor;
use crate::io::read::read_fully;
use crate::pass;
use crate::pass::apply::Tuning;
use crate::pass::reader::{Cut, TransactionReader};
use crate::pass::surroundings;
use crate::pass::survey::Survey;
use crate::plan::outcome::{Copied, Exit, Outcome};
use crate::plan::{AppendPlan, PlannedAction, Policy, SlaveState};
use crate::slave::blobs::BlobDirectory;
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
        is_named: true,
        next_pass,
        lag,
        warnings: surroundings::warnings(&around, reader.slave, master),
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
    let plan = match survey.decide(Policy::default(), slave, master, *monitor) {
        Err(error @ Error::Refused(_)) => {
            return Ok((Outcome::from(&error), None));
        }
        plan => plan?,
    };
    let (lag, damage) = match plan.action {
        PlannedAction::Nothing => {
            let blobs = Some(0);
            let nothing = Lag::of(TransactionSpan::default(), blobs);
            (Some(nothing), None)
        }
        PlannedAction::Append(append) => {
            let (lag, damage) = beyond(&survey, append, master, *monitor)?;
            (Some(lag), damage)
        }
        PlannedAction::Rewind(_) | PlannedAction::FullCopy(_) => match survey.observation.slave {
            SlaveState::Storage(_) => (Some(Lag::of(survey.newer(master)?, None)), None),
            _ => (None, None),
        },
    };
    let copied = Copied {
        position: survey.position,
        last_tid: survey.last_tid,
        transactions: lag.map_or(0, |lag| lag.transactions),
        bytes: lag.map_or(0, |lag| lag.bytes),
        ..Copied::default()
    };
    // A pass that writes nothing does not take ZODB's lock, and succeeds while ZEO runs.
    let is_written = match plan.action {
        PlannedAction::Nothing => false,
        PlannedAction::Append(_) => copied.transactions > 0,
        PlannedAction::Rewind(_) | PlannedAction::FullCopy(_) => true,
    };
    // A pass checks the free space before it could meet the damage.
    let room = match plan.action {
        PlannedAction::Nothing => Ok(()),
        PlannedAction::Append(append) => space::check_append(slave, append.from + copied.bytes),
        PlannedAction::Rewind(rewind) => {
            space::check_set_aside(&slave.paths, rewind.fork.set_aside_len)
        }
        PlannedAction::FullCopy(_) => space::check_next_copy(slave, survey.master_stat.size),
    };
    // A pass opens the slave's blob directory before it takes ZODB's lock.
    let in_the_way = blobs_moved(sidecar).or_else(|| {
        let is_in_use = is_written && zodb_pid.is_some();
        is_in_use.then(|| Error::InUse {
            slave: slave.paths.data().to_owned(),
            pid: zodb_pid,
        })
    });
    let next_pass = match (in_the_way, room.err().or(damage)) {
        (Some(error), _) => Outcome::from(&error),
        (None, None) => pass::succeeded(&plan, copied),
        (None, Some(error)) => pass::failed(&error, Some(plan), copied),
    };
    Ok((next_pass, lag))
}

/// Why a pass could not use the slave's blob directory, if passes copy blobs.
fn blobs_moved(sidecar: &Sidecar) -> Option<Error> {
    let state = sidecar.blobs.as_ref().filter(|state| state.is_on)?;
    BlobDirectory::open(&state.directory, &state.id).err()
}

/// The transactions that the master committed after the slave's position, with the number of
/// their blobs, and the damage that follows them, if any.
fn beyond(
    survey: &Survey,
    plan: AppendPlan,
    master: &Master,
    monitor: &dyn Monitor,
) -> Result<(Lag, Option<Error>), Error> {
    let chunk_len = Tuning::default().chunk_len;
    let AppendPlan { from, last_tid, .. } = plan;
    let mut reader = TransactionReader::new(master, &survey.master_stat, from, last_tid, chunk_len);
    reader.begin_with(survey.take_read_ahead());
    let (mut collector, mut blobs) = (BlobCollector::default(), 0);
    while (reader.next(Cut::Anywhere, &mut collector)?).is_some() {
        blobs += count_blobs(collector.take(), survey, from, master)?;
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
    Ok((Lag::of(ahead, Some(blobs)), damage))
}

/// Number of blobs among the candidates of transactions after the slave's position.
fn count_blobs(
    candidates: Vec<BlobCandidate>,
    survey: &Survey,
    position: u64,
    master: &Master,
) -> Result<u64, Error> {
    let slave = survey.slave_file();
    let mut log = MasterLog {
        slave,
        position,
        master,
    };
    let mut count = 0;
    for candidate in candidates {
        let reference = candidate.resolve(&mut log)?;
        count += u64::from(reference.is_some_and(|it| !it.is_optional));
    }
    Ok(count)
}

/// The master's log. The slave has the same bytes up to its position, and they are read there.
struct MasterLog<'a> {
    slave: Option<&'a File>,
    position: u64,
    master: &'a Master,
}

impl ReadAt for MasterLog<'_> {
    type Error = Error;

    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), Error> {
        let end = offset + buffer.len() as u64;
        if let Some(slave) = self.slave.filter(|_| end <= self.position) {
            // A slave that is truncated meanwhile does not matter: the master has the bytes.
            if read_fully(slave, buffer, offset).is_ok_and(|got| got == buffer.len()) {
                return Ok(());
            }
        }
        let bytes = self.master.read(buffer.len(), offset).wait()?;
        let Some(bytes) = bytes.get(..buffer.len()) else {
            return Err(Error::MasterChanged {
                master: self.master.name().to_owned(),
                what: "it was truncated",
            });
        };
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

impl Lag {
    fn of(ahead: TransactionSpan, blobs: Option<u64>) -> Self {
        Self {
            transactions: ahead.count,
            bytes: ahead.bytes,
            since: ahead.first.and_then(Tid::time),
            blobs,
        }
    }
}
