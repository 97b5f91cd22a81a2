//! What is decided by.

use std::fmt;

use crate::filestorage::Tid;
use crate::filestorage::scan::Damage;
use crate::human::count;

/// What is seen on both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The slave.
    pub slave: SlaveState,
    /// The master.
    pub master: MasterState,
    /// The answer to [`Question::Prefix`](super::Question::Prefix).
    pub prefix_equal: Option<bool>,
    /// The answer to [`Question::Compare`](super::Question::Compare).
    pub comparison: Option<TailComparison>,
}

/// What lies under the slave's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlaveState {
    /// Nothing, or an empty file.
    Missing,
    /// Fewer bytes than a file with one transaction has, magic included.
    Short {
        /// How many bytes.
        size: u64,
        /// Whether they start with a FileStorage's magic.
        magic: bool,
    },
    /// No FileStorage.
    Foreign,
    /// A FileStorage that ZODB refuses to open.
    Damaged(Damage),
    /// A FileStorage that ZODB opens.
    Storage(Storage),
}

/// A slave that ZODB opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Just past its last committed transaction, in bytes.
    pub position: u64,
    /// That transaction's tid.
    pub last_tid: Option<Tid>,
    /// What lies beyond the position.
    pub tail: SlaveTail,
    /// What the sidecar says about it.
    pub continuity: Continuity,
}

/// What lies beyond the slave's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlaveTail {
    /// Nothing.
    None,
    /// A batch that a pass of ours did not finish; its length in bytes.
    Ours(u64),
    /// An unfinished transaction of somebody else's, or a torn end.
    Foreign(u64),
}

/// Whether the slave is as the last pass left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuity {
    /// No sidecar says.
    Unknown,
    /// Up to this position it is.
    UpTo(u64),
    /// It is not.
    Changed,
}

/// What lies under the master's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MasterState {
    /// Whether it is the file that the last pass read.
    pub same_file: bool,
    /// Whether its head and its tail at the slave's position are the slave's;
    /// `None` if it is shorter than that.
    pub matches: Option<bool>,
    /// What lies at the slave's position.
    pub next: Next,
    /// Whether a pass found it damaged, and none was in sync since.
    pub was_damaged: bool,
    /// Whether a pass found that it is not the slave's successor, and none was in sync since.
    pub was_refused: bool,
}

/// What lies in the master at the slave's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The end of the file.
    End,
    /// A transaction that is not finished.
    Unfinished,
    /// Something that is finished.
    Finished,
}

/// How the last transactions of slave and master relate, by their tids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TailComparison {
    /// The master's last committed transaction.
    pub master_last: Option<Tid>,
    /// The slave's transactions that the master lacks, above the highest one
    /// that both have.
    pub missing: MissingFromMaster,
    /// Whether the two have a transaction in common, and above it the master has nothing but
    /// what is newer than the slave's last.
    pub is_kin: bool,
    /// Whether the master was packed since the slave was copied: it has a packed transaction
    /// above the slave's last, or the newest common one is packed in the master alone.
    pub is_packed: bool,
}

/// Transactions that the slave has and the master lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MissingFromMaster {
    /// How many.
    pub count: u64,
    /// The first one's tid.
    pub first: Option<Tid>,
    /// The last few, the last one first.
    pub last: Vec<TransactionSummary>,
}

/// A transaction, for a person to recognise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionSummary {
    /// Its id, which tells its time.
    pub tid: Tid,
    /// Who made it.
    pub user: String,
    /// What for.
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
