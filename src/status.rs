//! How a slave stands, without side effects: nothing is created, written or
//! locked, not even for a moment, so it can be asked while a pass is made and
//! while ZEO serves the slave.
//!
//! The slave's position is found as a pass finds it, from where the sidecar
//! vouches for it; without a sidecar the whole slave is read. Where a master is
//! named, it is looked at after the slave, so that no transaction counts as
//! lacking that the slave got meanwhile; and what is told of it is what a pass
//! would come to, by the same survey and the same plan.
//!
//! The facts are gathered here; what they mean for a failover is judged apart,
//! in [`judge`].

mod index;
mod judgement;
mod master;
mod report;
mod slave;

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

pub use self::index::IndexStatus;
pub use self::judgement::{Judgement, Verdict, judge};
pub use self::report::JsonReport;

use self::slave::SlaveReader;
use crate::error::Error;
use crate::error::off::OffReason;
use crate::error::running::RunningPass;
use crate::filestorage::Tid;
use crate::io::flock;
use crate::io::progress::Monitor;
use crate::io::rate::TransferRate;
use crate::plan;
use crate::plan::outcome::{Exit, Outcome};
use crate::slave::paths::{Leftover, Sibling, SlavePaths};
use crate::slave::presence::Presence;
use crate::slave::running;
use crate::slave::sidecar::{FullCopy, Pass};
use crate::slave::step::Slave;
use crate::slave::verification::Record;
use crate::source::{Master, Stray};

/// How a slave stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// When it was looked at.
    pub time: Timestamp,
    /// The slave's `Data.fs`.
    pub slave: PathBuf,
    /// Whether a pass was ever made for it.
    pub presence: Presence,
    /// Why syncing is off; `None` if it is on.
    pub off: Option<OffReason>,
    /// How the last pass ended, unless syncing was off, another one at work, or a
    /// signal ended it.
    pub last_pass: Option<Pass>,
    /// When the slave is last known to have had all that the master had.
    pub last_in_sync: Option<Timestamp>,
    /// The pass that is at work, if its process is listed.
    pub pass: Option<RunningPass>,
    /// The process that has ZODB's lock: ZEO, or whatever opened the slave.
    pub zodb_pid: Option<u32>,
    /// A full copy that is under way, or was broken off.
    pub copy: Option<CopyProgress>,
    /// What the slave is.
    pub state: plan::SlaveState,
    /// Its size in bytes, unfinished tail included.
    pub size: u64,
    /// The tid of its last committed transaction, if it has one.
    pub last_tid: Option<Tid>,
    /// What ZODB's index beside it is good for.
    pub index: IndexStatus,
    /// What the last verification of this very file found, if one was noted.
    pub verified: Option<Record>,
    /// Slaves that were set aside.
    pub set_aside: FileTotals,
    /// Tails that were cut and kept.
    pub cut_tails: FileTotals,
    /// How it stands against the master, if that was asked.
    pub comparison: Option<MasterComparison>,
    /// The age of the last time in sync above which the slave is out of date, if one is
    /// given.
    pub max_age: Option<Duration>,
}

/// How far a full copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyProgress {
    /// How many bytes are written.
    pub done: u64,
    /// How many bytes the master had when the copy began.
    pub total: u64,
    /// How long the rest takes at the average speed so far; `None` if no pass is at work, or
    /// there is [too little](TransferRate::of) to tell by.
    pub left: Option<SignedDuration>,
}

impl CopyProgress {
    /// The share that is written, in percent.
    #[must_use]
    pub fn percent(self) -> u64 {
        let done = u128::from(self.done.min(self.total)) * 100;
        (done / u128::from(self.total.max(1))) as u64
    }

    /// The copy that a sidecar notes, if what was written of it is still there.
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

/// Files that pile up beside the slave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileTotals {
    /// How many.
    pub files: u64,
    /// How many bytes they have.
    pub bytes: u64,
}

/// How the slave stands against its master.
#[derive(Clone, Debug)]
pub struct MasterComparison {
    /// The master's name.
    pub master: String,
    /// What a pass would come to if syncing were on and no other pass were running. Of a
    /// full copy it is not read ahead whether the master is sound.
    pub next_pass: Outcome,
    /// What the slave lacks; `None` where the two cannot be compared.
    pub lag: Option<Lag>,
    /// Processes that write to a file which had the master's name before.
    pub strays: Vec<Stray>,
    /// What a person should know of the master's surroundings.
    pub warnings: Vec<String>,
}

/// What the slave lacks of the master.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// How many transactions.
    pub transactions: u64,
    /// How many bytes.
    pub bytes: u64,
    /// When the first of them was committed, by the master's clock.
    pub since: Option<Timestamp>,
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

    /// Whether the slave is out of date: the last time in sync is older than `max_age`, or
    /// nobody noted one. A time further ahead of this machine's clock than that is as bad as
    /// none. A slave that was just compared and lacks nothing is up to date.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        let Some(max_age) = self.max_age else {
            return false;
        };
        let lacks_nothing = self.comparison.as_ref().is_some_and(|comparison| {
            let lag = comparison.lag.map(|lag| lag.transactions);
            comparison.next_pass.exit == Exit::Success && lag == Some(0)
        });
        let is_recent = self
            .last_in_sync
            .is_some_and(|last| self.time.duration_since(last).unsigned_abs() <= max_age);
        !lacks_nothing && !is_recent
    }

    /// The exit code: not 0 where a failover is not possible, or a person must
    /// see to something; what of it needs the master, only if that was asked. A slave that
    /// is out of date comes after all but a master that is unreachable, which may be why.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self.own_exit() {
            Exit::Success | Exit::Unreachable if self.is_stale() => Exit::Stale,
            exit => exit,
        }
    }

    /// The exit code without regard to the age.
    fn own_exit(&self) -> Exit {
        match &self.state {
            plan::SlaveState::Missing | plan::SlaveState::Short { .. } => Exit::Failure,
            plan::SlaveState::Foreign | plan::SlaveState::Damaged(_) => Exit::SlaveDamaged,
            plan::SlaveState::Storage(_) if self.found_damage().is_some() => Exit::SlaveDamaged,
            plan::SlaveState::Storage(_) => match &self.comparison {
                // The slave is served already: nothing is in the way of a failover.
                Some(comparison) if comparison.next_pass.exit == Exit::InUse => Exit::Success,
                // The live site writes where no pass reads.
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

/// Looks at a slave, and at a master if there is one to look at.
///
/// Fails where the slave cannot be looked at, and where the two are one file. A
/// master that does not answer is a fact like others.
pub fn look(
    slave: &Slave,
    master: Option<&Master>,
    monitor: &dyn Monitor,
) -> Result<Status, Error> {
    let paths = &slave.paths;
    let mut reader = SlaveReader::new(slave, monitor);
    let (sidecar, sample) = reader.sample()?;
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
        last_in_sync: sidecar.in_sync,
        pass: pass_pid.map(|pid| running::running_pass(slave, &sidecar, Some(pid), time)),
        // Who takes a step has ZODB's lock too, for some milliseconds.
        zodb_pid: zodb_pid.filter(|_| zodb_pid != step_pid),
        copy: None,
        state: sample.slave.clone(),
        size: sample.seen.map_or(0, |seen| seen.size),
        last_tid: sample.last_tid,
        index: IndexStatus::look(paths, sample.position())?,
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

/// What piles up beside the slave: what was set aside, and what was cut.
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
        // It may be gone by now.
        if let Ok(found) = entry.metadata() {
            file_totals.files += 1;
            file_totals.bytes += found.len();
        }
    }
    Ok((set_aside, cut))
}
