//! Carrying a plan out: bytes from the master, in durable order into the slave.
//!
//! The order within a batch and within a full copy is argued where it is kept,
//! in [`slave::append`](crate::slave::append) and
//! [`slave::replace`](crate::slave::replace). Here the master's pieces are led
//! there, and compared with the master once more before they become visible.

mod append;
mod full_copy;
mod replaced;

use std::fs::File;
use std::ops::Range;
use std::{iter, mem};

use self::replaced::Tense::Planned;
use self::replaced::{Replaced, succession};
use crate::compare::digests::DigestPair;
use crate::error::{Error, MasterDamage};
use crate::filestorage::index::builder::Builder;
use crate::filestorage::{MAGIC_LEN, Tid};
use crate::io::digest::Digest;
use crate::io::progress::Monitor;
use crate::pass::reader::Feed;
use crate::pass::survey::Survey;
use crate::plan::outcome::Copied;
use crate::plan::{OldSlave, Plan, PlannedAction, Policy};
use crate::slave::ledger::{self, LedgerEntry};
use crate::slave::replace::remove_partial_copy;
use crate::slave::sidecar::{Fingerprint, LastSync, Sidecar};
use crate::slave::space;
use crate::slave::step::Slave;
use crate::source::Master;
use crate::upkeep;

/// How much of the end of a batch or a copy is compared with the master again,
/// in bytes. Only what the master wrote while it was read can differ.
const CONFIRM_LEN: u64 = 16 * 1024 * 1024;

/// Sizes that trade memory and latency for throughput.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// How many bytes are read at once, and written in a step; at least a
    /// transaction header's.
    pub chunk_len: usize,
    /// After how many bytes a batch is finished at the next boundary.
    pub batch_len: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            chunk_len: 1024 * 1024,
            batch_len: 128 * 1024 * 1024,
        }
    }
}

/// What a plan is carried out with.
#[derive(Debug)]
pub struct Apply<'a> {
    /// The slave.
    pub slave: &'a Slave,
    /// The master.
    pub master: &'a Master,
    /// What was wanted.
    pub policy: Policy,
    /// Sizes.
    pub tuning: Tuning,
}

impl Apply<'_> {
    /// Carries out `plan`, made from `survey`. What was copied is kept in
    /// `copied`, also where the rest fails.
    pub fn carry_out(
        &self,
        plan: &Plan,
        survey: &mut Survey,
        sidecar: &mut Sidecar,
        copied: &mut Copied,
        monitor: &dyn Monitor,
    ) -> Result<(), Error> {
        if !matches!(plan.action, PlannedAction::FullCopy { .. }) {
            remove_partial_copy(self.slave)?;
            sidecar.copy = None;
            if !survey.is_as_left() {
                // A pass may have put it there, and been killed before its name was durable.
                self.slave.paths.sync_directory()?;
            }
        }
        self.note_proven(survey)?;
        match plan.action {
            PlannedAction::Nothing => self.vouch(survey, sidecar),
            PlannedAction::Append {
                from,
                last_tid,
                trim,
            } => self.append(survey, (from, last_tid, trim), sidecar, copied, monitor),
            PlannedAction::FullCopy { old, required_tid } => self.full_copy(
                survey,
                (old, required_tid, plan.reason),
                sidecar,
                copied,
                monitor,
            ),
        }
    }

    /// Reads what carrying out `plan` would read, checks it, and writes
    /// nothing.
    pub fn rehearse(
        &self,
        plan: &Plan,
        survey: &Survey,
        copied: &mut Copied,
        monitor: &dyn Monitor,
    ) -> Result<(), Error> {
        let (from, last_tid, old) = match plan.action {
            PlannedAction::Nothing => return Ok(()),
            PlannedAction::Append { from, last_tid, .. } => (from, last_tid, None),
            PlannedAction::FullCopy { old, .. } => (MAGIC_LEN, None, Some(old)),
        };
        if old.is_some() {
            space::check_next_copy(self.slave, survey.master_stat.size)?;
        }
        let mut feed = self.feed(survey, from, last_tid);
        if old.is_some() {
            feed.build(Builder::default());
            feed.join(succession(survey));
        }
        while feed.next(false)?.is_some() {
            monitor.progress("reading", feed.position(), feed.size());
        }
        if old.is_none() {
            space::check_append(self.slave, feed.position())?;
        }
        if let Some(damage) = feed.damage()
            && old.is_some_and(|old| !self.may_replace(old))
        {
            return Err(self.damaged(damage));
        }
        if let Some(old) = old {
            let replaced = Replaced::judge(survey, (old, plan.reason), &mut feed)?;
            let name = self.slave.paths.free_aside(survey.last_tid);
            replaced.warn(Planned, self.slave.paths.data(), Some(&name), monitor);
        }
        let start = if old.is_some() { 0 } else { from };
        note(copied, &feed, start);
        feed.damage()
            .map_or(Ok(()), |damage| Err(self.damaged(damage)))
    }

    /// Nothing to copy, but the slave was found to be the master's prefix: the
    /// sidecar may say so.
    fn vouch(&self, survey: &Survey, sidecar: &mut Sidecar) -> Result<(), Error> {
        let (Some(position), Some(file)) = (survey.position, survey.slave_file()) else {
            return Ok(());
        };
        let known = sidecar.last_sync.as_ref().is_some_and(|left| {
            left.slave.position == position && left.master == survey.master_stat.identity
        });
        if known && survey.is_as_left() {
            return Ok(());
        }
        // What was found equal may be somebody's copy, or the batch of a pass that was
        // killed before its last sync.
        file.sync_data()
            .map_err(Error::io("sync", self.slave.paths.data()))?;
        self.leave(survey, file, position, survey.last_tid, sidecar)?;
        sidecar.store(&self.slave.paths)
    }

    /// Notes the digests of what was proven to be equal, which may be somebody's copy, and
    /// not be durable yet.
    fn note_proven(&self, survey: &mut Survey) -> Result<(), Error> {
        let proven = mem::take(&mut survey.proven);
        if let Some(file) = survey.slave_file().filter(|_| !proven.is_empty()) {
            file.sync_data()
                .map_err(Error::io("sync", self.slave.paths.data()))?;
            self.note_digests(file, proven);
        }
        Ok(())
    }

    /// Warns once that there are blobs, which are not copied.
    fn warn_of_blobs(&self, feed: &Feed<'_>, sidecar: &mut Sidecar, monitor: &dyn Monitor) {
        if feed.has_blobs() && !sidecar.reported.blobs {
            sidecar.reported.blobs = true;
            monitor.warn(format!(
                "{} has blobs, and fssync does not copy their files: copy the blob directory \
                 before and after each pass",
                self.master.name()
            ));
        }
    }

    /// Notes what digests committed bytes of the slave's have, which is `file`: all that
    /// the ledger lacks for want of a disk or so is made up for later.
    fn note_digests(&self, file: &File, digests: Vec<LedgerEntry>) {
        let noted = ledger::note(self.slave, file, digests);
        upkeep::ledger::report(noted);
    }

    /// Whether the undamaged start of a damaged master may take the slave's
    /// place.
    fn may_replace(&self, old: OldSlave) -> bool {
        old == OldSlave::None || self.policy.full
    }

    fn feed<'a>(&'a self, survey: &Survey, from: u64, last_tid: Option<Tid>) -> Feed<'a> {
        let chunk_len = self.tuning.chunk_len;
        Feed::new(self.master, &survey.master_stat, from, last_tid, chunk_len)
    }

    /// Compares what was copied, as far as the master may have been writing it
    /// while it was read, with the master as it stands now: the end, and the
    /// start of the last transaction.
    /// The master's answer is waited for by [`confirmed`](Self::confirmed).
    fn ask_to_confirm(
        &self,
        file: &File,
        copied: Range<u64>,
        feed: &Feed<'_>,
    ) -> Result<Vec<DigestPair>, Error> {
        let end = copied.end.saturating_sub(CONFIRM_LEN).max(copied.start);
        let last = feed.last_start().max(copied.start);
        let before = (last < end).then(|| last..end.min(last + CONFIRM_LEN));
        let confirm = |range: Range<u64>| {
            let master = self.master.confirm(range.clone());
            let slave = Digest::of_file(file, range)
                .map_err(Error::io("read back", self.slave.paths.data()))?;
            Ok(DigestPair::new(slave, master))
        };
        iter::once(end..copied.end)
            .chain(before)
            .map(confirm)
            .collect()
    }

    /// Fails unless the master still has what was copied.
    fn confirmed(&self, asked: Vec<DigestPair>) -> Result<(), Error> {
        for digests in asked {
            if digests.common()?.is_none() {
                return Err(self.changed("its last transactions are others than were read"));
            }
        }
        Ok(())
    }

    /// Notes in the sidecar, which is to be stored, what the slave is now.
    fn leave(
        &self,
        survey: &Survey,
        file: &File,
        position: u64,
        last_tid: Option<Tid>,
        sidecar: &mut Sidecar,
    ) -> Result<(), Error> {
        let slave = Fingerprint::of(file, position, last_tid)
            .map_err(Error::io("read back", self.slave.paths.data()))?;
        sidecar.coherent_up_to = None;
        sidecar.last_sync = Some(LastSync {
            master: survey.master_stat.identity.clone(),
            slave,
        });
        Ok(())
    }

    fn damaged(&self, damage: MasterDamage) -> Error {
        Error::MasterDamaged {
            master: self.master.name().to_owned(),
            damage,
        }
    }

    fn changed(&self, what: &'static str) -> Error {
        Error::MasterChanged {
            master: self.master.name().to_owned(),
            what,
        }
    }
}

fn note(copied: &mut Copied, feed: &Feed<'_>, from: u64) {
    *copied = Copied {
        position: Some(feed.position()),
        last_tid: feed.last_tid(),
        transactions: feed.transactions(),
        bytes: feed.position() - from,
    };
}
