//! Compares the slave with its master, by digests. Reads both files; locks and writes neither.
//!
//! 1. Compare the digests of segments of 4 MiB, until one differs or the shorter file ends.
//! 2. If a segment differs, list the transactions of both files from the last boundary before it,
//!    and join the lists by tid.
//! 3. Halve runs of transactions that are in the same place, until the transactions that differ
//!    are known.
//! 4. At the first boundary after the segment that both files have in common, go on with step 1.
//! 5. After the shorter file has ended, list the rest of the other one as in step 2.
//!
//! So equal bytes are read once at each end, and only digests and short lists of transactions are
//! sent. Memory is only needed for the transactions that are reported.
//!
//! The slave is compared up to the end of its last committed transaction, as it was before the
//! master was examined. So a pass that appends meanwhile does not disturb the comparison.

mod attempt;
mod comparison;

use std::mem;

pub use self::attempt::Attempt;
pub use self::comparison::{
    Comparison, EarlyStop, MAX_LISTED, TransactionList, TransactionMetadata, TransactionRef,
    TransactionSpan,
};
pub use crate::compare::join::StopReason;

use super::{SlaveContent, Verified, check_still_same};
use crate::compare::digests::{Segment, Segments};
use crate::compare::join::{ListedTransaction, Queue, Step, step};
use crate::compare::lists::{MasterLists, SlaveLists, fill_queue};
use crate::compare::pair::FilePair;
use crate::compare::search::Search;
use crate::error::retry::Retry;
use crate::error::{Error, MasterDamage};
use crate::filestorage::MAGIC_LEN;
use crate::filestorage::scan::{Scanner, Tail};
use crate::io::file_stat::FileStat;
use crate::io::progress::Monitor;
use crate::slave::fields::{FieldReader, Unreadable};
use crate::slave::ledger::SEGMENT_LEN;
use crate::slave::paths::{self, OpenMode, SlavePaths};
use crate::slave::sidecar::Sidecar;
use crate::slave::step::Slave;
use crate::source::{FileId, Master, MasterStat};

/// Fails if the master is missing, or is the slave itself. Retries transient errors.
pub fn check(slave: &Slave, master: &Master) -> Result<(), Error> {
    let mut retry = Retry::default();
    let master_stat = loop {
        match master.stat(Vec::new()) {
            Ok(master_stat) => break master_stat,
            Err(error) => retry.wait_if_transient(error.into())?,
        }
    };
    master.close();
    slave.paths.check_is_not(master_stat.local)
}

/// Compares a slave with its master, after it was verified. Returns `None` if the slave has
/// nothing to compare. Starts again if the master changes during the comparison. Fails if the
/// slave was replaced or truncated since it was verified.
pub fn compare(
    slave: &Slave,
    verified: &Verified,
    master: &Master,
    monitor: &dyn Monitor,
) -> Result<Option<Comparison>, Error> {
    let (Some(seen), SlaveContent::FileStorage | SlaveContent::Foreign) =
        (verified.seen, verified.content)
    else {
        return Ok(None);
    };
    let path = slave.paths.data();
    let file = paths::open(path, OpenMode::Read).map_err(Error::io("open", path))?;
    let found = file.metadata().map_err(Error::io("look at", path))?;
    if !FileStat::of(&found).is_same_file(&seen) {
        return Err(super::changed(slave, "another file has replaced it"));
    }
    let check_cancelled = || slave.check_interrupted();
    // A verification without damage has read every byte. An error would be new, so it ends the
    // comparison; otherwise unreadable sectors were reported already.
    let unreadable = match verified.damages {
        0 => Unreadable::Error(path),
        _ => Unreadable::Zeros,
    };
    let compared_slave = ComparedSlave {
        paths: &slave.paths,
        fields: FieldReader::new(&file, unreadable, &check_cancelled),
        end: verified.end(),
        last_master: Sidecar::load(&slave.paths)?
            .last_sync
            .map(|last| last.master),
    };
    let comparison = compared_slave.compare(master, monitor)?;
    check_still_same(slave, seen, compared_slave.end)?;
    Ok(Some(comparison))
}

/// The slave that is compared.
struct ComparedSlave<'a> {
    paths: &'a SlavePaths,
    fields: FieldReader<'a>,
    /// Offset up to which it is compared, in bytes.
    end: u64,
    /// The file that the last pass read, if it is recorded.
    last_master: Option<FileId>,
}

impl ComparedSlave<'_> {
    fn compare(&self, master: &Master, monitor: &dyn Monitor) -> Result<Comparison, Error> {
        let mut retry = Retry::default();
        loop {
            match self.attempt(master, monitor, &mut retry) {
                Ok(compared) => return Ok(compared),
                Err(error) => retry.wait_if_transient(error)?,
            }
        }
    }

    fn attempt(
        &self,
        master: &Master,
        monitor: &dyn Monitor,
        retry: &mut Retry,
    ) -> Result<Comparison, Error> {
        let master_stat = master.stat(Vec::new())?;
        retry.master_answered();
        self.paths.check_is_not(master_stat.local)?;
        let mut comparer = Comparer::new(self, master, &master_stat, monitor);
        comparer.run()?;
        Ok(comparer.comparison)
    }
}

/// A comparison in progress.
struct Comparer<'a> {
    pair: FilePair<'a>,
    master_stat: &'a MasterStat,
    monitor: &'a dyn Monitor,
    /// Adjacent transactions in the same place, whose bytes are not compared yet.
    run: Vec<ListedTransaction>,
    comparison: Comparison,
}

impl<'a> Comparer<'a> {
    fn new(
        slave: &ComparedSlave<'a>,
        master: &'a Master,
        master_stat: &'a MasterStat,
        monitor: &'a dyn Monitor,
    ) -> Self {
        Self {
            pair: FilePair {
                slave: slave.fields,
                master,
            },
            master_stat,
            monitor,
            run: Vec::new(),
            comparison: Comparison {
                master: master.name().to_owned(),
                same_file: slave
                    .last_master
                    .as_ref()
                    .map(|last| *last == master_stat.identity),
                slave_end: slave.end,
                is_set_aside: slave.paths.is_set_aside(),
                master_size: master_stat.size,
                equal_bytes: 0,
                magic_differs: false,
                differing: TransactionList::default(),
                unsearched_bytes: 0,
                slave_only: TransactionList::default(),
                master_only: TransactionList::default(),
                elsewhere: TransactionSpan::default(),
                ahead: TransactionSpan::default(),
                early_stop: None,
                damage: None,
            },
        }
    }

    fn run(&mut self) -> Result<(), Error> {
        let end = self.comparison.slave_end.min(self.master_stat.size);
        let magic = 0..end.min(MAGIC_LEN);
        if self.pair.is_equal(magic.clone())? {
            self.comparison.equal_bytes = magic.end;
        } else {
            self.comparison.magic_differs = true;
        }
        let mut at = MAGIC_LEN;
        loop {
            let (boundary, until) = self.compare_segments(at, end)?;
            self.comparison.equal_bytes += boundary - at;
            match self.compare_transactions(boundary, until)? {
                Some(common) => at = common,
                None => return Ok(()),
            }
        }
    }

    /// Compares segments from the boundary `from`, as long as they are equal. Returns the last
    /// boundary up to which they are, and the end of the first segment that differs.
    fn compare_segments(&self, from: u64, end: u64) -> Result<(u64, Option<u64>), Error> {
        let mut scanner = Scanner::resume(from, None, self.comparison.slave_end);
        let mut segments = Segments::new(self.pair.master, from..end);
        loop {
            let boundary = scanner.position();
            let mut scan = |bytes: &[u8]| scanner.feed(bytes, &mut |_| {});
            match segments.next(|range| self.pair.slave_digest(range, &mut scan))? {
                None => return Ok((boundary, None)),
                Some(Segment { range, digest }) => match digest {
                    Some(_) => self.monitor.progress("comparing", range.end, end),
                    None => return Ok((boundary, Some(range.end))),
                },
            }
        }
    }

    /// Compares transactions from a boundary that both files have. Returns the next common
    /// boundary at or after `until`; `None` if there is nothing left to compare.
    fn compare_transactions(
        &mut self,
        from: u64,
        until: Option<u64>,
    ) -> Result<Option<u64>, Error> {
        let end = self.comparison.slave_end;
        let mut ours = Queue::of_slave(from, end);
        let mut theirs = Queue::of_master(from, self.master_stat.size);
        let mut our_lists = SlaveLists::new(self.pair, from, end);
        let mut their_lists = MasterLists::new(self.pair, self.master_stat, from);
        loop {
            let at = ours.position();
            if at == theirs.position() && until.is_some_and(|until| at >= until) {
                self.compare_run()?;
                return Ok(Some(at));
            }
            fill_queue(&mut ours, &mut our_lists)?;
            fill_queue(&mut theirs, &mut their_lists)?;
            let done = at.max(theirs.position());
            let total = end.max(self.master_stat.size).max(done);
            self.monitor.progress("comparing transactions", done, total);
            if !self.take_step(&mut ours, &mut theirs)? {
                self.compare_run()?;
                return Ok(None);
            }
        }
    }

    /// Makes a step of the join. Returns whether there are more.
    fn take_step(&mut self, ours: &mut Queue, theirs: &mut Queue) -> Result<bool, Error> {
        let step = step(ours, theirs);
        let slave_has_ended = ours.next().is_none();
        if theirs.next().is_none() {
            self.note_damage(theirs);
        }
        match step {
            Step::Same => {
                if let (Some(ours), Some(theirs)) = (ours.take(), theirs.take()) {
                    self.add_same(ours, ours.status == theirs.status)?;
                }
            }
            Step::BySlave => {
                if let Some(txn) = ours.take() {
                    theirs.skip(&txn);
                    self.add_same(txn, true)?;
                }
            }
            Step::ByMaster => {
                if let Some(txn) = theirs.take() {
                    ours.skip(&txn);
                    self.add_same(txn, true)?;
                }
            }
            Step::Elsewhere => {
                if let (Some(txn), Some(_)) = (ours.take(), theirs.take()) {
                    self.comparison.elsewhere.push_back(txn.tid, txn.len());
                }
            }
            Step::Slave => self.add_slave_only(ours)?,
            Step::Master => self.add_master_only(theirs, slave_has_ended)?,
            Step::Replaced => {
                self.add_slave_only(ours)?;
                self.add_master_only(theirs, false)?;
            }
            Step::End => return Ok(false),
            Step::Stop(reason) => {
                self.comparison.early_stop = Some(EarlyStop {
                    slave_position: ours.position(),
                    master_position: theirs.position(),
                    reason,
                });
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Records damage of the master, if its list ended with it.
    fn note_damage(&mut self, theirs: &Queue) {
        let damage = match theirs.end() {
            Some(Tail::Damaged(damage)) => MasterDamage::Record(damage),
            Some(Tail::Torn) => MasterDamage::Torn(theirs.position()),
            _ => return,
        };
        self.comparison.damage.get_or_insert(damage);
    }

    /// Adds a transaction that is in the same place in both files. Its bytes are compared with
    /// those of the run, unless the headers have shown a difference already.
    fn add_same(&mut self, txn: ListedTransaction, may_be_equal: bool) -> Result<(), Error> {
        let follows = self.run.last().is_none_or(|last| last.end == txn.position);
        if !follows || !may_be_equal {
            self.compare_run()?;
        }
        if !may_be_equal {
            return self.add_differing(&txn);
        }
        // A run is compared once it has the length of a segment: one request for many small
        // transactions.
        self.run.push(txn);
        let len = txn.end
            - self
                .run
                .first()
                .map_or(txn.position, |first| first.position);
        if len >= SEGMENT_LEN {
            self.compare_run()?;
        }
        Ok(())
    }

    /// Finds the transactions of the run that differ, and clears the run.
    fn compare_run(&mut self) -> Result<(), Error> {
        let run = mem::take(&mut self.run);
        let len_of =
            |run: &[ListedTransaction]| run.iter().map(ListedTransaction::len).sum::<u64>();
        let mut found = Vec::new();
        let search = Search {
            limit: MAX_LISTED - self.comparison.differing.listed.len(),
            is_equal: |range| self.pair.is_equal(range),
            found: |txns: &[ListedTransaction]| found.push((txns[0], txns.len(), len_of(txns))),
        };
        search.run(&run)?;
        // All that the search did not find is equal.
        self.comparison.equal_bytes += len_of(&run);
        for (txn, count, len) in found {
            self.comparison.equal_bytes -= len;
            if count == 1 {
                self.add_differing(&txn)?;
            } else {
                self.comparison.unsearched_bytes += len;
            }
        }
        Ok(())
    }

    fn add_differing(&mut self, txn: &ListedTransaction) -> Result<(), Error> {
        let metadata = || self.pair.metadata(txn);
        self.comparison.differing.add(txn, metadata)
    }

    fn add_slave_only(&mut self, ours: &mut Queue) -> Result<(), Error> {
        let Some(txn) = ours.take() else {
            return Ok(());
        };
        let metadata = || self.pair.metadata(&txn);
        self.comparison.slave_only.add(&txn, metadata)
    }

    /// Adds the master's next transaction, which the slave lacks. If the slave's list has ended,
    /// the transaction is newer than all of the slave's.
    fn add_master_only(&mut self, theirs: &mut Queue, slave_has_ended: bool) -> Result<(), Error> {
        let Some(txn) = theirs.take() else {
            return Ok(());
        };
        if slave_has_ended {
            self.comparison.ahead.push_back(txn.tid, txn.len());
            return Ok(());
        }
        self.comparison.master_only.add(&txn, || Ok(None))
    }
}

#[cfg(test)]
mod tests;
