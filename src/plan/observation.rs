//! The facts that a pass decides by.

use std::fmt;

use crate::filestorage::Tid;
use crate::filestorage::scan::Damage;
use crate::human::count;
use crate::plan::switch_on::TransactionRun;

/// The state of both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The slave.
    pub slave: SlaveState,
    /// The master.
    pub master: MasterState,
    /// The answer to [`Question::Prefix`](super::Question::Prefix), once it was asked.
    pub prefix_equal: Option<bool>,
    /// The answer to [`Question::Compare`](super::Question::Compare), once it was asked.
    pub comparison: Option<ForkComparison>,
    /// The answer to [`Question::Fork`](super::Question::Fork), once it was asked.
    pub common: Option<CommonBytes>,
}

/// Which of the slave's committed bytes the master has at the same place, proven by digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommonBytes {
    /// All: the slave is a prefix of the master.
    All,
    /// Those up to a transaction boundary, after which the slave has transactions of its own.
    UpTo(Fork),
    /// Fewer, or the rest is not a run of transactions that only the slave has.
    NoFork(NoFork),
}

/// The point at which two files with a common prefix fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The last transaction boundary up to which both have the same bytes, in bytes.
    pub position: u64,
    /// The tid of the transaction that ends there.
    pub last_tid: Option<Tid>,
    /// The slave's transactions after it. The master has none of them.
    pub own: TransactionRun,
    /// Their length in bytes.
    pub own_len: u64,
    /// The length in bytes of a FileStorage with only these transactions.
    pub set_aside_len: u64,
}

/// Why a slave has no fork point at which it can be truncated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoFork {
    /// The common prefix is shorter than the rest of the slave.
    ShortPrefix,
    /// The master has some of the transactions after the prefix, too: it was packed, or the slave
    /// is damaged.
    SharedTransactions,
    /// The transactions after the prefix cannot be read or compared: the tids decrease, or a record
    /// is invalid.
    Incoherent,
}

impl fmt::Display for NoFork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ShortPrefix => "less than half of the slave is the same in the master",
            Self::SharedTransactions => {
                "the master has transactions of the slave at other positions, or with other bytes"
            }
            Self::Incoherent => "the transactions after the common prefix cannot be compared",
        })
    }
}

/// The state of the slave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlaveState {
    /// There is no file, or it is empty.
    Missing,
    /// The file is too short for one transaction.
    Short {
        /// Its size in bytes.
        size: u64,
        /// Whether it starts with the magic of a FileStorage.
        magic: bool,
    },
    /// The file is not a FileStorage.
    Foreign,
    /// The file is a FileStorage that ZODB refuses to open.
    Damaged(Damage),
    /// The file is a FileStorage that ZODB opens.
    Storage(Storage),
}

/// A slave that ZODB opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Its position: the end of its last committed transaction, in bytes.
    pub position: u64,
    /// The tid of that transaction.
    pub last_tid: Option<Tid>,
    /// The bytes beyond the position.
    pub tail: SlaveTail,
    /// How it compares with the slave that the last pass left.
    pub continuity: Continuity,
}

/// The bytes beyond the slave's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlaveTail {
    /// There are none.
    None,
    /// A batch that a pass did not finish. Its length in bytes.
    Ours(u64),
    /// A transaction that another program did not finish, or a torn write. Its length in bytes.
    Foreign(u64),
}

/// How the slave compares with the description of it that the last pass stored in the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuity {
    /// There is no description.
    Unknown,
    /// It has the same fingerprint up to this position, where the last pass ended. It may have
    /// grown.
    UpTo(u64),
    /// It differs.
    Changed,
}

/// The state of the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MasterState {
    /// Whether it is the same file that the last pass read.
    pub same_file: bool,
    /// Whether its first bytes, and its last ones before the slave's position, are the same as the
    /// slave's; `None` if it is shorter than that.
    pub matches: Option<bool>,
    /// The record at the slave's position.
    pub next: Next,
    /// Whether a pass found it damaged, and no pass was in sync since.
    pub was_damaged: bool,
    /// Whether a pass refused it as diverged, and no pass was in sync since.
    pub was_refused: bool,
}

/// The master's record at the slave's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// There is none: the file ends.
    End,
    /// A transaction that is not finished.
    Unfinished,
    /// A finished transaction, or damage.
    Finished,
}

/// How the last transactions of slave and master compare, by their tids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForkComparison {
    /// The tid of the master's last committed transaction.
    pub master_last: Option<Tid>,
    /// The slave's transactions that the master lacks, after the last one that both have.
    pub missing: MissingFromMaster,
    /// Whether the two are copies of one database: they have a transaction in common, and all
    /// later ones of the master's are newer than the slave's last.
    pub is_kin: bool,
    /// Whether the master was packed since the slave was copied: it has a packed transaction that
    /// is newer than the slave's last, or the last common one is packed in the master only.
    pub is_packed: bool,
}

/// Transactions that the slave has and the master lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MissingFromMaster {
    /// Number of transactions.
    pub count: u64,
    /// The tid of the first one.
    pub first: Option<Tid>,
    /// The last few of them, the newest one first.
    pub last: Vec<TransactionSummary>,
}

/// The parts of a transaction by which a person recognises it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionSummary {
    /// Its tid, which is also its time.
    pub tid: Tid,
    /// The user who made it.
    pub user: String,
    /// Its description.
    pub description: String,
}

impl fmt::Display for MissingFromMaster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(first), Some(last)) = (self.first, self.last.first()) else {
            return f.write_str(
                "the master has the slave's last transaction, but the bytes before it differ",
            );
        };
        write!(
            f,
            "the slave has {} that the master lacks, first {}, last {}",
            count(self.count, "transaction"),
            first.with_time(),
            last.tid.with_time(),
        )?;
        for summary in &self.last {
            write!(
                f,
                "; {} by {:?}: {:?}",
                summary.tid, summary.user, summary.description
            )?;
        }
        Ok(())
    }
}
