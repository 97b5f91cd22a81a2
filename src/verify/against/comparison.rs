//! What a comparison of the slave with its master found.

use crate::compare::join::{ListedTransaction, StopReason};
pub use crate::compare::pair::TransactionMetadata;
pub use crate::compare::span::TransactionSpan;
use crate::error::MasterDamage;
use crate::filestorage::Tid;
use crate::plan::outcome::Exit;

/// How many transactions of a kind are told one by one.
pub const MAX_LISTED: usize = 1000;

/// What a comparison of the slave with its master found.
///
/// What is *in the same place* has the same tid, position and length on both ends.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The master's name.
    pub master: String,
    /// Whether the master is the file that the last pass read; `None` where no pass
    /// has noted which one that was.
    pub same_file: Option<bool>,
    /// Up to where the slave was compared, in bytes.
    pub slave_end: u64,
    /// Whether the slave is one that was set aside.
    pub is_set_aside: bool,
    /// The master's size when it was looked at, in bytes.
    pub master_size: u64,
    /// How many bytes are proven equal, those of the magic included.
    pub equal_bytes: u64,
    /// Whether the files do not start with the same magic.
    pub magic_differs: bool,
    /// Transactions in the same place whose bytes differ.
    pub differing: TransactionList,
    /// How many bytes there are in runs of transactions that differ, after
    /// [`MAX_LISTED`] of them were found: in these is not searched any more.
    pub unsearched_bytes: u64,
    /// Transactions that only the slave has.
    pub slave_only: TransactionList,
    /// Transactions that only the master has, older than the slave's last.
    pub master_only: TransactionList,
    /// Transactions of both that lie elsewhere in the master, as after a pack; their
    /// bytes are not compared.
    pub elsewhere: TransactionSpan,
    /// What the master has committed since the slave's last transaction.
    pub ahead: TransactionSpan,
    /// Why the rest was not compared by transactions, if so.
    pub early_stop: Option<EarlyStop>,
    /// What is wrong with the master.
    pub damage: Option<MasterDamage>,
}

/// Some transactions, the first [`MAX_LISTED`] one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionList {
    /// All of them.
    pub all: TransactionSpan,
    /// The first ones.
    pub listed: Vec<TransactionRef>,
}

/// A transaction, for a person to find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionRef {
    /// Where its record starts.
    pub position: u64,
    /// The length of its record in bytes.
    pub len: u64,
    /// Its id.
    pub tid: Tid,
    /// User and description, if the slave has the transaction.
    pub metadata: Option<TransactionMetadata>,
}

/// Where the comparison by transactions stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EarlyStop {
    /// Up to where the slave's transactions were compared.
    pub slave_position: u64,
    /// Up to where the master's were.
    pub master_position: u64,
    /// Why no further.
    pub reason: StopReason,
}

impl Comparison {
    /// Whether the slave has nothing but what the master has in the same place.
    #[must_use]
    pub fn is_prefix(&self) -> bool {
        let found = [&self.differing, &self.slave_only, &self.master_only];
        !self.magic_differs
            && self.early_stop.is_none()
            && self.elsewhere.count == 0
            && found.iter().all(|found| found.all.count == 0)
    }

    /// What probably made the two differ, and what a person can do about it.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        if self.is_prefix() {
            return None;
        }
        let is_only_here = self.slave_only.all.count + self.differing.all.count > 0;
        Some(match self.same_file {
            _ if self.is_set_aside && is_only_here => {
                "this file was set aside, and the master lacks what only this file has: keep \
                 the file until you know that nobody needs those transactions"
            }
            _ if self.is_set_aside => {
                "this file was set aside, and the master has all of its transactions, unless \
                 the comparison ended early"
            }
            Some(false) => {
                "the master is another file than the one that the last pass read, as after a \
                 pack: the next pass copies it, and sets the old slave aside if no pack \
                 explains what the master lacks; if the two have different histories, it \
                 ends with exit code 20"
            }
            _ if self.slave_only.all.count > 0 => {
                "the slave was probably served after a failover, or the master restored from a \
                 backup: decide which of the two goes on; `fssync --full` sets the slave aside"
            }
            _ if self.elsewhere.count > 0 => {
                "the master was probably packed: the next pass copies it"
            }
            _ => {
                "one of the two was damaged where it lies: find out which, with ZODB's fstest \
                 on the master; if it is the slave, replace it with `fssync --full`, and look \
                 for the cause: the disk, or the memory"
            }
        })
    }

    /// The exit code.
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
    /// Counts a transaction in, and tells of it if there is room; `by` is asked then.
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
