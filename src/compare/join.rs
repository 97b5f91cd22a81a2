//! Joins the transactions of slave and master. Both lists are in file order, normally also in
//! the order of their tids. This module is pure: it does no I/O.
//!
//! A step looks at the next transaction of each list. The first row that fits decides.
//!
//! ```text
//! next transactions                                  step
//! ─────────────────────────────────────────────────  ─────────────────────────────────
//! 1. same position, length and tid                   Same: compare their bytes
//! 2. same position and length, other tid; and        Replaced: one of them was written
//!    the transactions after them are the same,       over the other
//!    or there are none and a tid decreases
//! 3. the tids of a list decrease                     Stop: without an order, no join
//! 4. same tid                                        Elsewhere: both have it
//! 5. different tids                                  Slave or Master: only the file with
//!                                                    the lower tid has it
//! 6. one list has ended                              the other file alone has the rest
//! 7. one file is damaged here, the other is intact   BySlave or ByMaster: the intact file
//!    at the same position                            shows the next boundary
//! 8. one file is damaged here, and the other is at   Stop
//!    another position or damaged, too
//! ```
//!
//! Rows 1 and 2 come before the order of tids is checked, because transactions at the same
//! position need no order.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::fmt;

use crate::filestorage::scan::Tail;
use crate::filestorage::{Tid, TxnStatus};
use crate::source::Transactions;

/// A transaction in the list of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListedTransaction {
    /// Offset of its record in the file, in bytes.
    pub(crate) position: u64,
    /// Offset of the next record, in bytes.
    pub(crate) end: u64,
    /// Transaction id.
    pub(crate) tid: Tid,
    /// Status.
    pub(crate) status: TxnStatus,
}

impl ListedTransaction {
    /// The length of its record, in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.end - self.position
    }

    fn is_at_place_of(&self, other: &Self) -> bool {
        (self.position, self.end) == (other.position, other.end)
    }

    fn is(&self, other: &Self) -> bool {
        self.is_at_place_of(other) && self.tid == other.tid
    }
}

/// The transactions of one file that were read and not joined yet.
#[derive(Debug)]
pub(crate) struct Queue {
    /// End of the last transaction that was joined, in bytes.
    position: u64,
    /// Its tid.
    last: Option<Tid>,
    ready: VecDeque<ListedTransaction>,
    end: Option<Tail>,
    /// Size of the file in bytes.
    size: u64,
    /// Whether the file may end with an unfinished transaction.
    may_grow: bool,
}

/// Number of transactions that must be known to decide a step.
pub(crate) const LOOKED_AT: usize = 2;

impl Queue {
    /// The slave's transactions from `position` to `end`, the end of the last one.
    pub(crate) fn of_slave(position: u64, end: u64) -> Self {
        Self::new(position, end, false)
    }

    /// The master's transactions from `position`, in a file of `size` bytes. Its last
    /// transaction may still be a vote in progress.
    pub(crate) fn of_master(position: u64, size: u64) -> Self {
        Self::new(position, size, true)
    }

    fn new(position: u64, size: u64, may_grow: bool) -> Self {
        Self {
            position,
            last: None,
            ready: VecDeque::new(),
            end: None,
            size,
            may_grow,
        }
    }

    /// End of the last transaction that was joined, in bytes.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// End of the last transaction that is known, in bytes.
    pub(crate) fn known(&self) -> u64 {
        self.ready.back().map_or(self.position, |last| last.end)
    }

    /// Whether more of the list must be read before a step can be decided.
    pub(crate) fn wants_more(&self) -> bool {
        self.ready.len() < LOOKED_AT && self.end.is_none()
    }

    /// Why the list ended, once all of it was read.
    pub(crate) fn end(&self) -> Option<Tail> {
        self.end
    }

    /// Appends the next part of the list.
    pub(crate) fn add(&mut self, list: &Transactions) {
        for entry in &list.entries {
            let position = self.known();
            self.ready.push_back(ListedTransaction {
                position,
                end: position.saturating_add(entry.len),
                tid: entry.tid,
                status: entry.status,
            });
        }
        self.end = list.reached.end;
    }

    /// The next transaction to join.
    pub(crate) fn next(&self) -> Option<&ListedTransaction> {
        self.ready.front()
    }

    /// Removes the next transaction from the queue.
    pub(crate) fn take(&mut self) -> Option<ListedTransaction> {
        let txn = self.ready.pop_front()?;
        self.position = txn.end;
        self.last = Some(txn.tid);
        Some(txn)
    }

    /// Skips a damaged transaction, whose end the other file shows.
    pub(crate) fn skip(&mut self, txn: &ListedTransaction) {
        self.position = txn.end;
    }

    /// Whether the list ended with the committed transactions, and not at damage.
    fn is_sound(&self) -> bool {
        match self.end {
            Some(Tail::Clean) => true,
            Some(Tail::Short | Tail::Voted) => self.may_grow,
            _ => false,
        }
    }

    /// Whether the tid of the next transaction is between its neighbours' tids. If it were too
    /// high, all transactions after it would seem to be missing in the other file.
    fn is_ascending(&self) -> bool {
        let tids = self.ready.iter().take(LOOKED_AT).map(|txn| Some(txn.tid));
        self.last
            .map(Some)
            .into_iter()
            .chain(tids)
            .is_sorted_by(|a, b| a < b)
    }
}

/// How the next transactions of both lists belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Both files have it, with the same position and length.
    Same,
    /// Both files have it, at different positions or with different lengths.
    Elsewhere,
    /// Each file has a transaction that the other lacks, with the same position and length.
    Replaced,
    /// Only the slave has its next transaction.
    Slave,
    /// Only the master has its next transaction.
    Master,
    /// The slave's next transaction is at the position of a damaged record of the master.
    BySlave,
    /// The master's next transaction is at the position of a damaged record of the slave.
    ByMaster,
    /// Both lists have ended.
    End,
    /// The rest cannot be joined.
    Stop(StopReason),
}

/// Why two lists could not be joined to their ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The tids of the slave decrease.
    SlaveTidsDecrease,
    /// The tids of the master decrease.
    MasterTidsDecrease,
    /// The slave is damaged, and the master has no transaction at that position.
    SlaveDamaged,
    /// The master is damaged, and the slave has no transaction at that position.
    MasterDamaged,
    /// Both are damaged.
    BothDamaged,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SlaveTidsDecrease => "the tids of the slave decrease there",
            Self::MasterTidsDecrease => "the tids of the master decrease there",
            Self::SlaveDamaged => "the slave is damaged there",
            Self::MasterDamaged => "the master is damaged there",
            Self::BothDamaged => "both are damaged there",
        })
    }
}

/// Decides the next step. Both queues must have been filled: neither [wants
/// more](Queue::wants_more).
pub(crate) fn step(slave: &Queue, master: &Queue) -> Step {
    match (slave.next(), master.next()) {
        (Some(ours), Some(theirs)) => both(slave, ours, master, theirs),
        (Some(ours), None) if is_alone(ours, master) => Step::Slave,
        (None, Some(theirs)) if is_alone(theirs, slave) => Step::Master,
        (Some(ours), None) if ours.position == master.position => Step::BySlave,
        (None, Some(theirs)) if theirs.position == slave.position => Step::ByMaster,
        (Some(_), None) => Step::Stop(StopReason::MasterDamaged),
        (None, Some(_)) => Step::Stop(StopReason::SlaveDamaged),
        (None, None) if slave.is_sound() || master.is_sound() => Step::End,
        (None, None) => Step::Stop(StopReason::BothDamaged),
    }
}

/// Decides a step if neither list has ended: rows 1 to 5 of the table.
fn both(
    slave: &Queue,
    ours: &ListedTransaction,
    master: &Queue,
    theirs: &ListedTransaction,
) -> Step {
    if ours.is(theirs) {
        return Step::Same;
    }
    let is_replaced = || match (slave.ready.get(1), master.ready.get(1)) {
        (Some(ours), Some(theirs)) => ours.is(theirs),
        _ => slave.last >= Some(ours.tid) || master.last >= Some(theirs.tid),
    };
    if ours.is_at_place_of(theirs) && is_replaced() {
        return Step::Replaced;
    }
    match ours.tid.cmp(&theirs.tid) {
        _ if !slave.is_ascending() => Step::Stop(StopReason::SlaveTidsDecrease),
        _ if !master.is_ascending() => Step::Stop(StopReason::MasterTidsDecrease),
        Ordering::Less => Step::Slave,
        Ordering::Equal => Step::Elsewhere,
        Ordering::Greater => Step::Master,
    }
}

/// Whether the other file, whose list has ended, has nothing at the position of a transaction.
fn is_alone(txn: &ListedTransaction, other: &Queue) -> bool {
    other.is_sound() || (txn.position >= other.position && txn.end > other.size)
}

#[cfg(test)]
mod tests;
