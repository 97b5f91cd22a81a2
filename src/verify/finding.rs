//! Findings of a verification: their kind, place, expected and actual content.

mod kind;

use std::path::PathBuf;

use serde::Serialize;

pub use self::kind::Kind;

use crate::filestorage::Tid;
use crate::slave::paths::{Sibling, SlavePaths};

/// A fault of the slave, or of a file beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Kind of fault.
    pub kind: Kind,
    /// Offset of the record or range, in bytes, in the file of this [kind](Kind::file). 0 for a
    /// blob.
    pub position: u64,
    /// End of the range, in bytes. For a damaged transaction, the offset at which the check
    /// continued.
    pub end: Option<u64>,
    /// The transaction according to its header, if the finding is about one.
    pub tid: Option<Tid>,
    /// The object, if the finding is about one.
    pub oid: Option<u64>,
    /// The path of the file relative to the blob directory, if the finding is about a blob.
    pub blob: Option<PathBuf>,
    /// Expected content, for a person.
    pub expected: String,
    /// Actual content, for a person.
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
            blob: None,
            expected: expected.into(),
            found: found.into(),
        }
    }
}

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// ZODB opens the slave and serves the right data, at most with a warning.
    Blemish,
    /// ZODB fails, or would serve wrong data or none.
    Damage,
}

/// The file that contains the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// `Data.fs`.
    Data,
    /// `Data.fs.index`.
    Index,
    /// `Data.fs.fssync-ledger`.
    Ledger,
    /// A file in the blob directory.
    Blob,
}

impl File {
    /// Its path. A finding about a blob has [the path](Finding::blob) itself; without it, this is
    /// the list of the blobs.
    #[must_use]
    pub fn path(self, paths: &SlavePaths) -> PathBuf {
        match self {
            Self::Data => paths.data().to_owned(),
            Self::Index => paths.sibling(Sibling::ZodbIndex),
            Self::Ledger => paths.sibling(Sibling::Ledger),
            Self::Blob => paths.sibling(Sibling::Blobs),
        }
    }
}
