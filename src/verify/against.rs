//! Comparing the slave with its master, by digests.
//!
//! ```text
//! pieces of 4 MiB     equal ───▶ the next one, to the end of the shorter file
//!   │
//!   differ
//!   ▼
//! transactions        from the last boundary before the piece on, of both ends,
//!   │                 joined by their tids; runs of those in the same place are
//!   │                 halved until it is known which of them differ
//!   ▼
//! a boundary of both behind the piece ───▶ pieces again
//! ```
//!
//! At the end, what is left of either file is listed in the same way. So what is
//! equal is read once on each end, only digests and short lists of transactions are
//! sent, and no more is held in memory than is told.
//!
//! Nothing is locked or written. The slave is compared up to where its committed
//! transactions ended before the master was looked at.

mod comparison;

use std::mem;

pub use self::comparison::{
    Comparison, EarlyStop, MAX_LISTED, TransactionList, TransactionMetadata, TransactionRef,
    TransactionSpan,
};
pub use crate::compare::join::StopReason;

use super::{SlaveContent, Verified, check_counts};
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

/// Fails unless there is a master to compare a slave with, and it is another file.
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

/// Compares a slave that was verified with its master; `None` if it holds nothing to
/// compare. Starts over where the master changes under it.
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
        return Err(super::changed(slave, "another file lies under its name"));
    }
    let check_cancelled = || slave.check_interrupted();
    // Where nothing was found, all could be read.
    let unreadable = match verified.damages {
        0 => Unreadable::Error(path),
        _ => Unreadable::Zeros,
    };
    let subject = ComparedSlave {
        paths: &slave.paths,
        fields: FieldReader::new(&file, unreadable, &check_cancelled),
        end: verified.end(),
        left: Sidecar::load(&slave.paths)?
            .last_sync
            .map(|left| left.master),
    };
    let compared = subject.compare(master, monitor)?;
    check_counts(slave, seen, subject.end)?;
    Ok(Some(compared))
}

/// The slave that is compared.
struct ComparedSlave<'a> {
    paths: &'a SlavePaths,
    fields: FieldReader<'a>,
    /// Up to where it is compared, in bytes.
    end: u64,
    /// Which file the last pass read, if that is noted.
    left: Option<FileId>,
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

/// A comparison under way.
struct Comparer<'a> {
    pair: FilePair<'a>,
    master_stat: &'a MasterStat,
    monitor: &'a dyn Monitor,
    /// Transactions in the same place that lie one after the other, and are still to
    /// be compared.
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
                    .left
                    .as_ref()
                    .map(|left| *left == master_stat.identity),
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

    /// Compares from a boundary on by pieces, as long as they are equal. Returns the
    /// last boundary up to where they are, and where the first piece that is not
    /// ends.
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

    /// Compares from a boundary of both on by transactions. Returns the next boundary
    /// of both that is at `until` or behind; `None` once there is no more to compare.
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

    /// Takes a step of the join; whether there are more.
    fn take_step(&mut self, ours: &mut Queue, theirs: &mut Queue) -> Result<bool, Error> {
        let step = step(ours, theirs);
        let has_ended = ours.next().is_none();
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
                    theirs.pass_over(&txn);
                    self.add_same(txn, true)?;
                }
            }
            Step::ByMaster => {
                if let Some(txn) = theirs.take() {
                    ours.pass_over(&txn);
                    self.add_same(txn, true)?;
                }
            }
            Step::Elsewhere => {
                if let (Some(txn), Some(_)) = (ours.take(), theirs.take()) {
                    self.comparison.elsewhere.push_back(txn.tid, txn.len());
                }
            }
            Step::Slave => self.add_slave_only(ours)?,
            Step::Master => self.add_master_only(theirs, has_ended)?,
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

    /// Notes what is wrong with the master where its list ends.
    fn note_damage(&mut self, theirs: &Queue) {
        let damage = match theirs.end() {
            Some(Tail::Damaged(damage)) => MasterDamage::Record(damage),
            Some(Tail::Torn) => MasterDamage::Torn(theirs.position()),
            _ => return,
        };
        self.comparison.damage.get_or_insert(damage);
    }

    /// Adds a transaction that is in the same place on both ends; whether its bytes
    /// are the same is to be found out, unless its header says already that they
    /// are not.
    fn add_same(&mut self, txn: ListedTransaction, may_be_equal: bool) -> Result<(), Error> {
        let follows = self.run.last().is_none_or(|last| last.end == txn.position);
        if !follows || !may_be_equal {
            self.compare_run()?;
        }
        if !may_be_equal {
            return self.add_differing(&txn);
        }
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

    /// Finds which transactions of the run differ.
    fn compare_run(&mut self) -> Result<(), Error> {
        let run = mem::take(&mut self.run);
        let len_of =
            |run: &[ListedTransaction]| run.iter().map(ListedTransaction::len).sum::<u64>();
        let mut found = Vec::new();
        let search = Search {
            room: MAX_LISTED - self.comparison.differing.listed.len(),
            is_equal: |range| self.pair.is_equal(range),
            found: |txns: &[ListedTransaction]| found.push((txns[0], txns.len(), len_of(txns))),
        };
        search.run(&run)?;
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

    /// Adds the master's next transaction, which is newer than all of the slave's if
    /// the slave's list `has_ended`.
    fn add_master_only(&mut self, theirs: &mut Queue, has_ended: bool) -> Result<(), Error> {
        let Some(txn) = theirs.take() else {
            return Ok(());
        };
        if has_ended {
            self.comparison.ahead.push_back(txn.tid, txn.len());
            return Ok(());
        }
        self.comparison.master_only.add(&txn, || Ok(None))
    }
}

#[cfg(test)]
mod tests;
