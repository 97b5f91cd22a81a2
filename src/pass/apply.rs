//! Carries out a plan: copies bytes from the master into the slave.
//!
//! [`slave::append`](crate::slave::append), [`slave::rewind`](crate::slave::rewind) and
//! [`slave::replace`](crate::slave::replace) argue the order of the writes within a batch, a rewind
//! and a full copy, crash by crash. This module
//! reads the master's transactions, passes them on to those, and makes sure that the master
//! confirms them before they become visible.

mod append;
mod blobs;
mod copy_blobs;
mod copy_visitor;
mod dry_run;
mod full_copy;
mod rewind;
mod warnings;

use std::fs::File;
use std::ops::Range;
use std::{iter, mem};

use crate::compare::digests::DigestPair;
use crate::error::{Error, MasterDamage};
use crate::filestorage::Tid;
use crate::io::digest::Digest;
use crate::io::progress::Monitor;
use crate::pass::blobs::OpenBlobs;
use crate::pass::reader::TransactionReader;
use crate::pass::survey::Survey;
use crate::plan::outcome::Copied;
use crate::plan::{Plan, PlannedAction, Policy};
use crate::slave::ledger::{self, LedgerEntry};
use crate::slave::replace::remove_partial_copy;
use crate::slave::sidecar::{Fingerprint, LastSync, Sidecar};
use crate::slave::step::Slave;
use crate::source::Master;
use crate::upkeep;

/// How many bytes at the end of a batch or of a full copy are compared with the master again.
/// Only bytes that the master was writing while they were read can differ.
const CONFIRM_LEN: u64 = 16 * 1024 * 1024;

/// Sizes that trade memory and latency for throughput.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// How many bytes are read at once, and written in one step. There must be room for a
    /// transaction header.
    pub chunk_len: usize,
    /// The length in bytes at which a batch is finished, at the next transaction boundary.
    pub batch_len: u64,
    /// How many received blobs are placed at once while others are being received.
    pub blob_batch_len: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            chunk_len: 1024 * 1024,
            batch_len: 128 * 1024 * 1024,
            blob_batch_len: 512,
        }
    }
}

/// Applies a plan to both ends.
pub struct Apply<'a> {
    /// The slave.
    pub slave: &'a Slave,
    /// The master.
    pub master: &'a Master,
    /// The options of the pass.
    pub policy: Policy,
    /// The sizes of chunks and batches.
    pub tuning: Tuning,
    /// The slave's blob directory, if the pass copies blobs.
    pub blobs: Option<&'a OpenBlobs>,
    /// Whether the user wants only the log to be copied, so that a warning is not due.
    pub declines_blobs: bool,
    /// Gets the progress and the warnings.
    pub monitor: &'a dyn Monitor,
}

impl Apply<'_> {
    /// Carries out `plan`, which was made from `survey`. Counts the copied transactions in
    /// `copied`, even if the rest fails.
    pub fn run(
        &self,
        plan: &Plan,
        survey: &mut Survey,
        sidecar: &mut Sidecar,
        copied: &mut Copied,
    ) -> Result<(), Error> {
        if !matches!(plan.action, PlannedAction::FullCopy(_)) {
            remove_partial_copy(self.slave)?;
            sidecar.copy = None;
            if !survey.has_continuity() {
                // A pass may have renamed a copy to the slave, and been killed before the name
                // was durable.
                self.slave.paths.sync_directory()?;
            }
        }
        // A rewind changes the ledger, so the digests are added after it.
        if !matches!(plan.action, PlannedAction::Rewind(_)) {
            self.record_proven(survey)?;
        }
        match plan.action {
            PlannedAction::Nothing => self.vouch(survey, sidecar),
            PlannedAction::Append(append) => self.append(survey, append, sidecar, copied),
            PlannedAction::Rewind(rewind) => self.rewind(survey, rewind, sidecar, copied),
            PlannedAction::FullCopy(copy) => {
                self.full_copy(survey, copy, plan.reason, sidecar, copied)
            }
        }
    }

    /// Records in the sidecar that the slave is a prefix of this master, if the survey has found
    /// that and the sidecar does not contain it.
    fn vouch(&self, survey: &Survey, sidecar: &mut Sidecar) -> Result<(), Error> {
        let (Some(position), Some(file)) = (survey.position, survey.slave_file()) else {
            return Ok(());
        };
        let known = sidecar.last_sync.as_ref().is_some_and(|left| {
            left.slave.position == position && left.master == survey.master_stat.identity
        });
        if known && survey.has_continuity() {
            return Ok(());
        }
        // The slave may be somebody's copy, or end with the batch of a pass that was killed
        // before its last sync: make it durable first.
        file.sync_data()
            .map_err(Error::io("sync", self.slave.paths.data()))?;
        self.describe_slave(survey, file, position, survey.last_tid, sidecar)?;
        sidecar.store(&self.slave.paths)
    }

    /// Notes in the ledger the digests of the bytes that were proven equal. They may be
    /// somebody's copy that is not durable yet.
    fn record_proven(&self, survey: &mut Survey) -> Result<(), Error> {
        let proven = mem::take(&mut survey.proven);
        if let Some(file) = survey.slave_file().filter(|_| !proven.is_empty()) {
            file.sync_data()
                .map_err(Error::io("sync", self.slave.paths.data()))?;
            self.record_digests(file, proven);
        }
        Ok(())
    }

    /// Notes in the ledger the digests of committed bytes of the slave, which is `file`. If that
    /// fails, for example because the disk is full, a later pass makes up for it.
    fn record_digests(&self, file: &File, digests: Vec<LedgerEntry>) {
        let noted = ledger::note(self.slave, file, digests);
        upkeep::ledger::report(noted);
    }

    fn reader<'a>(
        &'a self,
        survey: &Survey,
        from: u64,
        last_tid: Option<Tid>,
    ) -> TransactionReader<'a> {
        let chunk_len = self.tuning.chunk_len;
        TransactionReader::new(self.master, &survey.master_stat, from, last_tid, chunk_len)
    }

    /// Asks the master to digest the end of the copied bytes and the start of their last
    /// transaction, and digests both here meanwhile. [`confirmed`](Self::confirmed) waits for
    /// the master's answer.
    fn ask_to_confirm(
        &self,
        file: &File,
        copied: Range<u64>,
        reader: &TransactionReader<'_>,
    ) -> Result<Vec<DigestPair>, Error> {
        let end = copied.end.saturating_sub(CONFIRM_LEN).max(copied.start);
        let last = reader.last_start().max(copied.start);
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

    /// Fails unless the master still has the bytes that were copied.
    fn confirmed(&self, asked: Vec<DigestPair>) -> Result<(), Error> {
        for digests in asked {
            if digests.common()?.is_none() {
                return Err(self.changed("its last transactions changed after they were read"));
            }
        }
        Ok(())
    }

    /// Describes the slave in the sidecar, which the caller must store.
    fn describe_slave(
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

    /// Fails if damage in the master ended the reading.
    fn check_undamaged(&self, reader: &TransactionReader<'_>) -> Result<(), Error> {
        reader
            .damage()
            .map_or(Ok(()), |damage| Err(self.damaged(damage)))
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

fn add_up(copied: &mut Copied, reader: &TransactionReader<'_>, from: u64) {
    copied.position = Some(reader.position());
    copied.last_tid = reader.last_tid();
    copied.transactions = reader.transactions();
    copied.bytes = reader.position() - from;
}
