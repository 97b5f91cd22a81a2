//! What is wrong with a slave: where, what was expected, and what to do.

mod kind;

use std::path::PathBuf;

use serde::Serialize;

pub use self::kind::Kind;

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
