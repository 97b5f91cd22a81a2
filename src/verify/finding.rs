//! What is wrong with a slave: where, what was expected, and what to do.

use std::path::PathBuf;

use serde::Serialize;

use crate::filestorage::Tid;
use crate::slave::paths::{Sibling, SlavePaths};

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing it is.
    pub kind: Kind,
    /// Where the record starts, or the range, in bytes; in the file that the
    /// [kind](Kind::file) says.
    pub position: u64,
    /// Where the range ends, if it is one; of a transaction that could not be taken,
    /// where the check goes on.
    pub end: Option<u64>,
    /// The transaction, if it is about one, as far as its header tells.
    pub tid: Option<Tid>,
    /// The object, if it is about one.
    pub oid: Option<u64>,
    /// What there should be, in words.
    pub expected: String,
    /// What there is, in words.
    pub found: String,
}

impl Finding {
    /// A finding without a transaction or an object.
    #[must_use]
    pub fn new(
        kind: Kind,
        position: u64,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            position,
            end: None,
            tid: None,
            oid: None,
            expected: expected.into(),
            found: found.into(),
        }
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// ZODB opens the slave and serves what it should, at most with a warning.
    Blemish,
    /// ZODB panics, or would serve wrong data or none.
    Damage,
}

/// The file that a finding is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// `Data.fs`.
    Data,
    /// `Data.fs.index`.
    Index,
    /// `Data.fs.fssync-ledger`.
    Ledger,
}

impl File {
    /// Its path.
    #[must_use]
    pub fn path(self, paths: &SlavePaths) -> PathBuf {
        match self {
            Self::Data => paths.data().to_owned(),
            Self::Index => paths.sibling(Sibling::ZodbIndex),
            Self::Ledger => paths.sibling(Sibling::Ledger),
        }
    }
}

/// The kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The file is no FileStorage.
    Magic,
    /// A transaction's header cannot be.
    TransactionHeader,
    /// A transaction's lengths do not fit.
    TransactionLength,
    /// A transaction is marked as unfinished, and whole ones follow.
    UnfinishedWithin,
    /// A data record does not fit into its transaction.
    DataRecord,
    /// A data record has another tid than its transaction.
    DataTid,
    /// A back pointer leads nowhere.
    BackPointer,
    /// Bytes of the file cannot be read.
    Unreadable,
    /// The previous record of the object is another than the record says.
    PreviousPointer,
    /// A tid that does not rise.
    TidReduction,
    /// A status that ZODB does not give.
    OddStatus,
    /// The file is shorter than the last pass left it.
    Shortened,
    /// Bytes are others than came from the master.
    Digest,
    /// The file ends before bytes that were committed and durable.
    Lost,
    /// The ledger is damaged: some bytes have no digests.
    Ledger,
    /// The index has another position for an object than the file, or one where the
    /// other has none.
    IndexObject,
    /// ZODB would use an index that is of no position of the file, or fail on it.
    IndexPosition,
    /// The index is not in a form that fssync knows; ZODB may know it.
    IndexForm,
}

impl Kind {
    /// How bad it is.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            Self::PreviousPointer
            | Self::TidReduction
            | Self::OddStatus
            | Self::Shortened
            | Self::Ledger
            | Self::IndexForm => Severity::Blemish,
            _ => Severity::Damage,
        }
    }

    /// The file that it is in.
    #[must_use]
    pub fn file(self) -> File {
        match self {
            Self::IndexObject | Self::IndexPosition | Self::IndexForm => File::Index,
            Self::Ledger => File::Ledger,
            _ => File::Data,
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Magic => {
                "see what file this is, and move it away; the next pass then makes a slave"
            }
            Self::TransactionHeader
            | Self::TransactionLength
            | Self::UnfinishedWithin
            | Self::DataRecord
            | Self::DataTid
            | Self::BackPointer => {
                "see whether the master has it too; if not, replace the slave with \
                 `fssync --full`, and look for the cause: the disk, or the memory"
            }
            Self::Digest => {
                "have `fssync verify --against MASTER` report which transactions differ; replace \
                 the slave with `fssync --full`, and look for the cause: the disk, or the memory"
            }
            Self::Lost => {
                "something cut the slave: replace it with `fssync --full`, and look for the cause"
            }
            Self::Ledger => {
                "remove the ledger: the next passes make it anew, by digests of the master's"
            }
            Self::Unreadable => {
                "the disk fails: put the slave on another one, with `fssync --full`"
            }
            Self::PreviousPointer | Self::TidReduction | Self::OddStatus => {
                "nothing, if the master has it too: ZODB opens the file all the same"
            }
            Self::Shortened => {
                "nothing, if ZODB packed the slave; else something cut it, and the next pass \
                 appends what is gone"
            }
            Self::IndexObject | Self::IndexPosition | Self::IndexForm => {
                "remove the index: the next pass makes it anew, and without one ZODB reads the \
                 whole file when it opens it"
            }
        }
    }
}
