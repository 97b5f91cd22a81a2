//! The result of a comparison of the slave with its master.

use crate::compare::join::{ListedTransaction, StopReason};
pub use crate::compare::pair::TransactionMetadata;
pub use crate::compare::span::TransactionSpan;
use crate::error::MasterDamage;
use crate::filestorage::Tid;
use crate::plan::outcome::Exit;

/// Number of transactions of each group that are listed; the others are only counted.
pub const MAX_LISTED: usize = 1000;

/// The result of a comparison of the slave with its master.
///
/// A transaction is *in the same place* if it has the same tid, position and length in both
/// files.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The master, as it was given.
    pub master: String,
    /// Whether the master is the file that the last pass read; `None` if no pass has recorded
    /// which file that was.
    pub same_file: Option<bool>,
    /// Offset up to which the slave was compared, in bytes.
    pub slave_end: u64,
    /// Whether this slave was set aside by a full copy.
    pub is_set_aside: bool,
    /// Size of the master at the start of the comparison, in bytes.
    pub master_size: u64,
    /// Number of bytes that are proven to be equal, including the magic.
    pub equal_bytes: u64,
    /// Whether the files start with different magics.
    pub magic_differs: bool,
    /// Transactions in the same place whose bytes differ.
    pub differing: TransactionList,
    /// Number of bytes in runs that differ, but were not searched, because [`MAX_LISTED`]
    /// transactions that differ had been found before.
    pub unsearched_bytes: u64,
    /// Transactions that only the slave has.
    pub slave_only: TransactionList,
    /// Transactions that only the master has, older than the slave's last.
    pub master_only: TransactionList,
    /// Transactions that are elsewhere in the master, as after a pack. Their bytes are not
    /// compared.
    pub elsewhere: TransactionSpan,
    /// Transactions that the master has committed since the slave's last one.
    pub ahead: TransactionSpan,
    /// Why the rest of the transactions could not be compared; `None` if all of them were.
    pub early_stop: Option<EarlyStop>,
    /// Damage in the master.
    pub damage: Option<MasterDamage>,
}

/// A group of transactions; the first [`MAX_LISTED`] are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionList {
    /// All transactions of the group.
    pub all: TransactionSpan,
    /// The first of them, in file order.
    pub listed: Vec<TransactionRef>,
}

/// A transaction, described for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionRef {
    /// Offset of its record in bytes, in the file that has it.
    pub position: u64,
    /// Length of its record in bytes.
    pub len: u64,
    /// Transaction id.
    pub tid: Tid,
    /// User and description, if the slave has the transaction.
    pub metadata: Option<TransactionMetadata>,
}

/// The point at which the comparison of transactions stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EarlyStop {
    /// Offset up to which the slave's transactions were compared, in bytes.
    pub slave_position: u64,
    /// Offset up to which the master's transactions were compared, in bytes.
    pub master_position: u64,
    /// Reason.
    pub reason: StopReason,
}

impl Comparison {
    /// Whether the slave is a prefix of the master: the master has all of it in the same place.
    #[must_use]
    pub fn is_prefix(&self) -> bool {
        let found = [&self.differing, &self.slave_only, &self.master_only];
        !self.magic_differs
            && self.early_stop.is_none()
            && self.elsewhere.count == 0
            && found.iter().all(|found| found.all.count == 0)
    }

    /// The probable reason for the difference, and the recommended action; `None` if the slave is
    /// a prefix of the master.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        if self.is_prefix() {
            return None;
        }
        let is_only_here = self.slave_only.all.count + self.differing.all.count > 0;
        Some(match self.same_file {
            _ if self.is_set_aside && is_only_here => {
                "this file was set aside, and has transactions that the master lacks: keep the \
                 file until you know that nobody needs them"
            }
            _ if self.is_set_aside => {
                "this file was set aside, and the master has all of its transactions, unless \
                 the comparison ended early"
            }
            Some(false) => {
                "the master is not the file that the last pass read; it was probably packed. \
                 The next pass copies it, and sets the old slave aside if no pack explains why \
                 the master lacks transactions; if the two have different histories, the pass \
                 ends with exit code 20"
            }
            _ if self.slave_only.all.count > 0 => {
                "the slave was probably served after a failover, or the master was restored \
                 from a backup: decide which of the two to keep; `fssync --full` sets the slave \
                 aside and copies the master"
            }
            _ if self.elsewhere.count > 0 => {
                "the master was probably packed: the next pass copies it"
            }
            _ => {
                "one of the two files was damaged on its disk: run ZODB's fstest on the master \
                 to find out which; if it is the slave, replace it with `fssync --full`, and \
                 check the disk and the memory"
            }
        })
    }

    /// The exit code of the comparison alone.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self.damage {
            _ if !self.is_prefix() => Exit::Diverged,
            Some(_) => Exit::MasterDamaged,
            None => Exit::Success,
        }
    }
}

impl TransactionList {
    /// Adds a transaction. If it is to be listed, `metadata` reads user and description.
    pub(super) fn add<E>(
        &mut self,
        txn: &ListedTransaction,
        metadata: impl FnOnce() -> Result<Option<TransactionMetadata>, E>,
    ) -> Result<(), E> {
        self.all.push_back(txn.tid, txn.len());
        if self.listed.len() < MAX_LISTED {
            self.listed.push(TransactionRef {
                position: txn.position,
                len: txn.len(),
                tid: txn.tid,
                metadata: metadata()?,
            });
        }
        Ok(())
    }
}
