//! Reports the state of a slave, without side effects: it creates, writes and locks
//! nothing. So it can run during a pass, and while ZEO serves the slave.
//!
//! It finds the slave's position as a pass does: it scans from the position that the sidecar
//! confirms, or the whole slave if there is no sidecar. If a master is given, it is read after
//! the slave, so that transactions which a pass copies in between do not count as lag. The
//! result of the next pass is predicted with the survey and the plan of a real pass.
//!
//! This module collects the facts. [`judge`] derives the effect of a failover from them.

mod blobs;
mod index;
mod judgement;
mod master;
mod report;
mod slave;
mod state;

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

pub use self::blobs::{BlobGap, BlobStatus, MissingBlobs, ReplicatedBlobs};
pub use self::index::IndexStatus;
pub use self::judgement::{Judgement, Verdict, judge};
pub use self::report::JsonReport;
pub use self::state::{State, StorageState, summary};

use self::slave::SlaveReader;
use crate::error::Error;
use crate::error::off::OffReason;
use crate::error::running::RunningPass;
use crate::filestorage::{MAGIC_LEN, Tid};
use crate::io::flock;
use crate::io::progress::Monitor;
use crate::io::rate::TransferRate;
use crate::plan;
use crate::plan::outcome::{Exit, Outcome};
use crate::slave::paths::{Leftover, Sibling, SlavePaths};
use crate::slave::presence::Presence;
use crate::slave::running;
use crate::slave::sidecar::{Counters, FullCopy, Pass};
use crate::slave::step::Slave;
use crate::slave::verification::Record;
use crate::source::{Master, Stray};

/// The state of a slave.
#[derive(Clone, Debug)]
pub struct Status {
    /// When the state was read.
    pub time: Timestamp,
    /// The slave's `Data.fs`.
    pub slave: PathBuf,
    /// Whether a pass was ever made for this path.
    pub presence: Presence,
    /// Why syncing is off; `None` if it is on.
    pub off: Option<OffReason>,
    /// The outcome of the last pass. Passes that found syncing off or another pass running,
    /// or that a signal stopped, are not recorded.
    pub last_pass: Option<Pass>,
    /// How many passes there were, and how much they have copied.
    pub counters: Counters,
    /// The location of the master that the last passes read, if it is recorded.
    pub recorded_master: Option<String>,
    /// When the slave last had all transactions of the master.
    pub last_in_sync: Option<Timestamp>,
    /// The running pass, if the kernel reports its process.
    pub pass: Option<RunningPass>,
    /// The process that holds ZODB's lock: ZEO, or another program that opened the slave.
    pub zodb_pid: Option<u32>,
    /// A full copy that is running or was interrupted.
    pub copy: Option<CopyProgress>,
    /// The content of the slave.
    pub state: plan::SlaveState,
    /// The size of the slave in bytes, unfinished tail included.
    pub size: u64,
    /// The tid of the last committed transaction, if there is one.
    pub last_tid: Option<Tid>,
    /// The state of ZODB's index beside the slave.
    pub index: IndexStatus,
    /// The blobs.
    pub blobs: BlobStatus,
    /// The recorded result of the last verification of this file.
    pub verified: Option<Record>,
    /// Slaves that were set aside.
    pub set_aside: FileTotals,
    /// Tails that were truncated and saved.
    pub cut_tails: FileTotals,
    /// The comparison with the master, if one was given.
    pub comparison: Option<MasterComparison>,
    /// How long ago the slave may have been in sync before it is out of date; `None` for any
    /// time.
    pub max_age: Option<Duration>,
}

/// The progress of a full copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyProgress {
    /// Number of bytes written.
    pub done: u64,
    /// Size of the master in bytes when the copy began.
    pub total: u64,
    /// Time for the rest at the average speed so far; `None` if no pass is running, or if
    /// [too little](TransferRate::of) was copied for an estimate.
    pub left: Option<SignedDuration>,
}

impl CopyProgress {
    /// The written share in percent.
    #[must_use]
    pub fn percent(self) -> u64 {
        let done = u128::from(self.done.min(self.total)) * 100;
        (done / u128::from(self.total.max(1))) as u64
    }

    /// The copy that the sidecar records, if its file still exists.
    fn look(paths: &SlavePaths, noted: FullCopy, is_running: bool, now: Timestamp) -> Option<Self> {
        let done = fs::symlink_metadata(paths.sibling(Sibling::Tmp))
            .ok()?
            .len();
        let written = done.saturating_sub(noted.from);
        let rest = noted.size.saturating_sub(done);
        let elapsed = Duration::try_from(now.duration_since(noted.since)).ok();
        let average = elapsed.and_then(|elapsed| TransferRate::of(written, rest, elapsed));
        let left = average
            .filter(|_| is_running)
            .map(|rate| SignedDuration::try_from(rate.remaining).unwrap_or(SignedDuration::MAX));
        Some(Self {
            done,
            total: noted.size,
            left,
        })
    }
}

/// Number and total size of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileTotals {
    /// Number of files.
    pub files: u64,
    /// Total size in bytes.
    pub bytes: u64,
}

/// The slave compared with its master.
#[derive(Clone, Debug)]
pub struct MasterComparison {
    /// The master's name.
    pub master: String,
    /// Whether the user named the master. Otherwise its problems do not affect the exit code.
    pub is_named: bool,
    /// The predicted outcome of a pass, if syncing were on and no other pass were running. For
    /// a full copy, the master is not checked for damage in advance.
    pub next_pass: Outcome,
    /// The replica lag; `None` if the two cannot be compared.
    pub lag: Option<Lag>,
    /// Processes that still write to a file that had the master's name before.
    pub strays: Vec<Stray>,
    /// Warnings about the master's surroundings.
    pub warnings: Vec<String>,
}

/// The transactions of the master that the slave lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Number of transactions.
    pub transactions: u64,
    /// Number of bytes.
    pub bytes: u64,
    /// When the first of them was committed, according to its tid.
    pub since: Option<Timestamp>,
    /// Number of blobs to which they refer; `None` if only the tids were compared.
    pub blobs: Option<u64>,
}

impl Status {
    /// The slave's position in bytes, if it has one.
    #[must_use]
    pub fn position(&self) -> Option<u64> {
        match self.state {
            plan::SlaveState::Storage(slave) => Some(slave.position),
            _ => None,
        }
    }

    /// The last verification, if it found the slave damaged.
    #[must_use]
    pub fn found_damage(&self) -> Option<&Record> {
        self.verified.as_ref().filter(|record| record.is_damaged())
    }

    /// Whether the slave is out of date: it was last in sync longer than `max_age` ago, or
    /// that time is not recorded. A recorded time that is more than `max_age` in the future does
    /// not count either. A slave that was just compared with a master that the user named, and lacks
    /// nothing, is up to date.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        let Some(max_age) = self.max_age else {
            return false;
        };
        let lacks_nothing = self.named_comparison().is_some_and(|comparison| {
            let lag = comparison.lag.map(|lag| lag.transactions);
            comparison.next_pass.exit == Exit::Success && lag == Some(0)
        });
        let is_recent = self
            .last_in_sync
            .is_some_and(|last| self.time.duration_since(last).unsigned_abs() <= max_age);
        !lacks_nothing && !is_recent
    }

    /// Why the slave's blob directory cannot be used, if passes copy blobs to it.
    #[must_use]
    pub fn blob_problem(&self) -> Option<&str> {
        self.blobs.replicated()?.problem.as_deref()
    }

    /// The exit code. It is not 0 if a failover is impossible or a person must act; problems
    /// with the master count only if one was given. An out-of-date slave has priority only
    /// over an unreachable master, which may be the cause.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self.own_exit() {
            Exit::Success | Exit::Unreachable if self.is_stale() => Exit::Stale,
            exit => exit,
        }
    }

    /// The comparison with a master that the user named.
    fn named_comparison(&self) -> Option<&MasterComparison> {
        self.comparison.as_ref().filter(|it| it.is_named)
    }

    /// The exit code regardless of `max_age`.
    fn own_exit(&self) -> Exit {
        match &self.state {
            plan::SlaveState::Missing | plan::SlaveState::Short { .. } => Exit::Failure,
            plan::SlaveState::Foreign | plan::SlaveState::Damaged(_) => Exit::SlaveDamaged,
            plan::SlaveState::Storage(_) if self.found_damage().is_some() => Exit::SlaveDamaged,
            plan::SlaveState::Storage(slave) if slave.position == MAGIC_LEN => Exit::Failure,
            plan::SlaveState::Storage(_) if self.blob_problem().is_some() => Exit::Failure,
            plan::SlaveState::Storage(_) => match self.named_comparison() {
                // A program serves the slave already: the failover is done.
                Some(comparison) if comparison.next_pass.exit == Exit::InUse => Exit::Success,
                // The live site writes to a file that no pass reads.
                Some(comparison)
                    if !comparison.strays.is_empty()
                        && comparison.next_pass.exit == Exit::Success =>
                {
                    Exit::Diverged
                }
                Some(comparison) => comparison.next_pass.exit,
                None => Exit::Success,
            },
        }
    }
}

/// Reads the state of a slave, and compares it with a master if one is given.
///
/// Fails if the slave cannot be read, or if the two are the same file. An unreachable master
/// is not an error but part of the status.
pub fn look(
    slave: &Slave,
    master: Option<&Master>,
    monitor: &dyn Monitor,
) -> Result<Status, Error> {
    let paths = &slave.paths;
    let mut reader = SlaveReader::new(slave, monitor);
    let (sidecar, sample) = reader.read()?;
    let [pass, step, zodb] =
        [Sibling::PassLock, Sibling::StepLock, Sibling::ZodbLock].map(|lock| paths.sibling(lock));
    let [pass_pid, step_pid, zodb_pid] = flock::holders([&pass, &step, &zodb]);
    let (set_aside, cut_tails) = kept_files(paths)?;
    let time = Timestamp::now();
    let mut status = Status {
        time,
        slave: paths.data().to_owned(),
        presence: Presence::of(paths),
        off: slave.switches.why_off(),
        last_pass: sidecar.pass.clone(),
        counters: sidecar.counters.clone(),
        recorded_master: sidecar.master.clone(),
        last_in_sync: sidecar.in_sync,
        pass: pass_pid.map(|pid| running::running_pass(slave, &sidecar, Some(pid), time)),
        // A pass holds ZODB's lock too during a step, for some milliseconds.
        zodb_pid: zodb_pid.filter(|_| zodb_pid != step_pid),
        copy: None,
        state: sample.slave.clone(),
        size: sample.seen.map_or(0, |seen| seen.size),
        last_tid: sample.last_tid,
        index: IndexStatus::look(paths, sample.position())?,
        blobs: BlobStatus::look(slave, &sidecar, &sample)?,
        verified: Record::load(paths),
        set_aside,
        cut_tails,
        comparison: None,
        max_age: None,
    };
    let is_running = status.pass.is_some();
    status.copy = sidecar
        .copy
        .and_then(|noted| CopyProgress::look(paths, noted, is_running, status.time));
    if let Some(master) = master {
        status.comparison = Some(master::compare(
            reader,
            (sidecar, sample),
            master,
            status.zodb_pid,
        )?);
        status.time = Timestamp::now();
    }
    Ok(status)
}

/// The files that earlier passes kept beside the slave: slaves that were set aside, and
/// truncated tails.
fn kept_files(paths: &SlavePaths) -> Result<(FileTotals, FileTotals), Error> {
    let fail = || Error::io("list", paths.directory());
    let (mut set_aside, mut cut) = (FileTotals::default(), FileTotals::default());
    let entries = loop {
        match paths.directory().read_dir() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            listed => break listed.map_err(fail())?,
        }
    };
    for entry in entries {
        let entry = entry.map_err(fail())?;
        let file_totals = match paths.leftover(&entry.file_name()) {
            Some(Leftover::SetAside) => &mut set_aside,
            Some(Leftover::CutTail) => &mut cut,
            None => continue,
        };
        // The file may have been removed since it was listed.
        if let Ok(found) = entry.metadata() {
            file_totals.files += 1;
            file_totals.bytes += found.len();
        }
    }
    Ok((set_aside, cut))
}
