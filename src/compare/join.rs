//! Joining two lists of transactions by their tids; pure.
//!
//! ```text
//! next of both                            step
//! ──────────────────────────────────────  ─────────────────────────────────────
//! same place, length and tid              Same: their bytes remain to be compared
//! same place and length, other tids, and
//! those behind are the same; or there are
//! none, and a tid goes back               Replaced: one takes the other's place
//! a tid goes back                         Stop: no order to join by
//! same tid                                Elsewhere
//! one tid is lower                        that one's side alone has it
//! one side's list is at its end           the other side alone has it
//! one side is damaged just there          the other side tells where the
//!                                         boundaries are
//! one side is damaged, the other is not
//! at the same place                       Stop
//! ```
//!
//! The master's transactions are told from the slave's by their place first: what
//! lies at the same place on both ends needs no order.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::fmt;

use crate::filestorage::scan::Tail;
use crate::filestorage::{Tid, TxnStatus};
use crate::source::Transactions;

/// A transaction at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListedTransaction {
    /// Where its record starts.
    pub(crate) position: u64,
    /// Where the next one starts.
    pub(crate) end: u64,
    /// Its id.
    pub(crate) tid: Tid,
    /// Its status.
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

/// One side's list: what of it is known, and not joined yet.
#[derive(Debug)]
pub(crate) struct Queue {
    /// Just past the last transaction that was joined.
    position: u64,
    /// The tid of that one.
    last: Option<Tid>,
    ready: VecDeque<ListedTransaction>,
    end: Option<Tail>,
    /// The size of the file.
    size: u64,
    /// Whether its end may be unfinished.
    may_grow: bool,
}

/// How many transactions must be known to decide a step.
pub(crate) const LOOKED_AT: usize = 2;

impl Queue {
    /// The slave's, from `position` to where its last transaction ends.
    pub(crate) fn of_slave(position: u64, end: u64) -> Self {
        Self::new(position, end, false)
    }

    /// The master's, from `position` on, in a file of `size` bytes whose end may be
    /// a vote under way.
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

    /// Just past the last transaction that was joined.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Just past the last transaction that is known.
    pub(crate) fn known(&self) -> u64 {
        self.ready.back().map_or(self.position, |last| last.end)
    }

    /// Whether a step needs more of the list.
    pub(crate) fn wants_more(&self) -> bool {
        self.ready.len() < LOOKED_AT && self.end.is_none()
    }

    /// What ended the list, once all of it is known.
    pub(crate) fn end(&self) -> Option<Tail> {
        self.end
    }

    /// Adds what comes next.
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

    /// The transaction that is joined next.
    pub(crate) fn next(&self) -> Option<&ListedTransaction> {
        self.ready.front()
    }

    /// Takes it.
    pub(crate) fn take(&mut self) -> Option<ListedTransaction> {
        let txn = self.ready.pop_front()?;
        self.position = txn.end;
        self.last = Some(txn.tid);
        Some(txn)
    }

    /// Goes on behind a transaction that the other side tells of.
    pub(crate) fn pass_over(&mut self, txn: &ListedTransaction) {
        self.position = txn.end;
    }

    /// Whether the list ends where the committed transactions do, and not at
    /// damage.
    fn is_sound(&self) -> bool {
        match self.end {
            Some(Tail::Clean) => true,
            Some(Tail::Short | Tail::Voted) => self.may_grow,
            _ => false,
        }
    }

    /// Whether the tid of its next transaction is above the one before it, and below
    /// the one behind it: one that is too high would make all that follow look as
    /// if they were missing on the other side.
    fn rises(&self) -> bool {
        let tids = self.ready.iter().take(LOOKED_AT).map(|txn| Some(txn.tid));
        self.last
            .map(Some)
            .into_iter()
            .chain(tids)
            .is_sorted_by(|a, b| a < b)
    }
}

/// What to do with the next transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Both have it, at the same place.
    Same,
    /// Both have it, at other places or of other lengths.
    Elsewhere,
    /// Each has one that the other lacks, at the same place.
    Replaced,
    /// The slave alone has its next one.
    Slave,
    /// The master alone has its next one.
    Master,
    /// The slave has its next one, where the master's record is damaged.
    BySlave,
    /// The master has its next one, where the slave's record is damaged.
    ByMaster,
    /// There are none.
    End,
    /// What is left cannot be joined.
    Stop(StopReason),
}

/// Why two lists cannot be joined to their ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The slave's tids go back.
    SlaveTidsDecrease,
    /// The master's tids go back.
    MasterTidsDecrease,
    /// The slave is damaged, where the master has nothing in the same place.
    SlaveDamaged,
    /// The master is damaged, where the slave has nothing in the same place.
    MasterDamaged,
    /// Both are damaged there.
    BothDamaged,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SlaveTidsDecrease => "the tids of the slave go back there",
            Self::MasterTidsDecrease => "the tids of the master go back there",
            Self::SlaveDamaged => "the slave is damaged there",
            Self::MasterDamaged => "the master is damaged there",
            Self::BothDamaged => "both are damaged there",
        })
    }
}

/// What to do next. Neither side [wants more](Queue::wants_more).
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
        _ if !slave.rises() => Step::Stop(StopReason::SlaveTidsDecrease),
        _ if !master.rises() => Step::Stop(StopReason::MasterTidsDecrease),
        Ordering::Less => Step::Slave,
        Ordering::Equal => Step::Elsewhere,
        Ordering::Greater => Step::Master,
    }
}

/// Whether the other side, which is at its end, has nothing in the place of a
/// transaction.
fn is_alone(txn: &ListedTransaction, other: &Queue) -> bool {
    other.is_sound() || (txn.position >= other.position && txn.end > other.size)
}

#[cfg(test)]
mod tests;
