//! The sidecar, `Data.fs.fssync`: the state that the last pass left.
//!
//! The sidecar is a cache and a witness. The slave's own bytes are the truth, and the sidecar
//! is compared with them before it is used. If it is lost, passes take longer or refuse more,
//! but no data is lost. It is therefore replaced atomically and not synced, except before a rewind
//! ([`rewind`](super::rewind)).
//!
//! A pass stores it before a batch begins, after a batch that is followed by another, and when
//! the pass ends.
//!
//! Fields that this version does not know are kept, so that an older fssync does not destroy
//! the history that a newer one has recorded. A version that adds a field must therefore expect
//! that passes which ignored the field have changed the slave since.

mod blob_coverage;
mod history;

use std::fs;
use std::io::{self, ErrorKind};
use std::ops::{Not, Range};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::blob_coverage::BlobCoverage;
pub use self::history::{Counters, Pass, Unrecorded};

use super::index::coverage::IndexCoverage;
use super::index::failure::FailedBuild;
use super::paths::{Sibling, SlavePaths};
use super::small_file::{read_if_exists, replace_small_file};
use crate::error::Error;
use crate::filestorage::Tid;
use crate::filestorage::record::{STATUS_OFFSET, TXN_HEADER_LEN, TxnStatus};
use crate::io::digest::Digest;
use crate::source::FileId;

/// Number of first bytes that a fingerprint digests.
const FIRST_LEN: u64 = 4 * 1024;

/// Number of last bytes before a position that a fingerprint digests.
const LAST_LEN: u64 = 64 * 1024;

/// Upper limit for the size of a sidecar, in bytes.
const MAX_LEN: u64 = 64 * 1024;

/// The sidecar's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Sidecar {
    /// The slave and the master at the end of the last sync; `None` before the first one.
    #[serde(rename = "left")]
    pub last_sync: Option<LastSync>,
    /// The slave up to the position to which it was found coherent, if that differs from the
    /// last sync. It saves later passes from reading a refused slave completely.
    #[serde(default, rename = "scanned")]
    pub coherent_up_to: Option<Fingerprint>,
    /// The batch that an append began and has not finished.
    pub batch: Option<Batch>,
    /// The full copy that was begun and not finished.
    #[serde(default)]
    pub copy: Option<FullCopy>,
    /// The index that the last pass stored or found unchanged.
    #[serde(default)]
    pub index: Option<IndexCoverage>,
    /// The last attempt to store the index, if it failed.
    #[serde(default)]
    pub index_failure: Option<FailedBuild>,
    /// Whether a pass found the master damaged, and no later pass was in sync.
    #[serde(default)]
    pub master_was_damaged: bool,
    /// Whether a pass refused the master because of diverging histories (exit code 20), and no
    /// later pass was in sync. A pack of such a master proves nothing.
    #[serde(default)]
    pub was_refused: bool,
    /// Facts about the master that were reported once and are not repeated.
    #[serde(default, rename = "noticed")]
    pub reported: Reported,
    /// The blobs, if passes copy them or did so once.
    #[serde(default)]
    pub blobs: Option<BlobCoverage>,
    /// The location of the master as it was given to the last pass that reached it, so that
    /// `fssync status` can find the master. A path is absolute.
    #[serde(default)]
    pub master: Option<String>,
    /// How the last pass ended.
    pub pass: Option<Pass>,
    /// How many passes there were, and how much they have copied.
    #[serde(default)]
    pub counters: Counters,
    /// The last time at which the slave is known to have had all committed transactions of the
    /// master: the time at which the last recorded successful pass read the master's size.
    #[serde(default)]
    pub in_sync: Option<Timestamp>,
    /// Fields of later versions.
    #[serde(flatten)]
    unknown: serde_json::Map<String, serde_json::Value>,
}

/// An unfinished full copy. The bytes written so far are in `Data.fs.fssync-tmp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct FullCopy {
    /// Time at which the last pass began to copy.
    pub since: Timestamp,
    /// Offset at which it began, in bytes: not 0 if it resumed an earlier copy.
    pub from: u64,
    /// Size of the master, in bytes.
    pub size: u64,
}

/// Facts about the master that passes report only once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Reported {
    /// Names of other storages in the master's directory, which are not copied.
    pub storages: Vec<String>,
    /// Whether the master has blobs that are not copied.
    pub blobs: bool,
}

/// Both ends at the end of a pass.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct LastSync {
    /// The file that the master was.
    pub master: FileId,
    /// The slave up to its position.
    pub slave: Fingerprint,
}

/// Identifies the content of a file up to a position: digests of its first and its last bytes. It also
/// matches a copy of the file. [`io::file_stat`](crate::io::file_stat) compares it with the
/// other types that identify files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Fingerprint {
    /// Position, in bytes.
    pub position: u64,
    /// Tid of the last transaction before the position.
    pub last_tid: Option<Tid>,
    /// Digest of [`first_bytes`].
    #[serde(rename = "head")]
    pub first: Digest,
    /// Digest of [`last_bytes`].
    #[serde(rename = "tail")]
    pub last: Digest,
}

impl Fingerprint {
    /// Reads the fingerprint of an open file at `position`, which is just past the transaction
    /// `last_tid`. Fails with [`ErrorKind::UnexpectedEof`] if the file is shorter.
    pub fn of(file: &fs::File, position: u64, last_tid: Option<Tid>) -> io::Result<Self> {
        let digest = |range| -> io::Result<Digest> {
            Digest::of_file(file, range)?.ok_or_else(|| ErrorKind::UnexpectedEof.into())
        };
        Ok(Self {
            position,
            last_tid,
            first: digest(first_bytes(position))?,
            last: digest(last_bytes(position))?,
        })
    }
}

/// The range of the first bytes in a fingerprint at `position`.
#[must_use]
pub fn first_bytes(position: u64) -> Range<u64> {
    0..position.min(FIRST_LEN)
}

/// The range of the last bytes in a fingerprint at `position`.
#[must_use]
pub fn last_bytes(position: u64) -> Range<u64> {
    position.saturating_sub(LAST_LEN)..position
}

/// An unfinished append or rewind. If a crash interrupts it, the slave's tail starts with the header
/// of its first transaction.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Batch {
    /// Position of the slave before the append, or after the rewind, in bytes.
    pub from: u64,
    /// The header of its first transaction, with status `c`.
    header: [u8; TXN_HEADER_LEN],
    /// Whether the transactions are the slave's own, which a rewind truncates.
    #[serde(default, skip_serializing_if = "Not::not")]
    rewinds: bool,
}

impl Batch {
    /// A batch at `from` whose first transaction has this header, with any status.
    #[must_use]
    pub fn new(from: u64, header: [u8; TXN_HEADER_LEN]) -> Self {
        let mut header = header;
        header[STATUS_OFFSET as usize] = TxnStatus::VOTED.0;
        Self {
            from,
            header,
            rewinds: false,
        }
    }

    /// The slave's own transactions after `from`, of which the first one has this header, and which
    /// a rewind truncates.
    #[must_use]
    pub fn of_rewind(from: u64, header: [u8; TXN_HEADER_LEN]) -> Self {
        let rewinds = true;
        Self {
            rewinds,
            ..Self::new(from, header)
        }
    }

    /// Whether a rewind truncates these transactions.
    #[must_use]
    pub fn is_rewind(&self) -> bool {
        self.rewinds
    }

    /// The header of its first transaction, with status `c`.
    #[must_use]
    pub fn header(&self) -> [u8; TXN_HEADER_LEN] {
        self.header
    }

    /// Whether this batch wrote the tail at `position`, which starts with `bytes`: a header, or
    /// less if the tail is shorter.
    #[must_use]
    pub fn has_written(&self, position: u64, bytes: &[u8]) -> bool {
        self.header[STATUS_OFFSET as usize] == TxnStatus::VOTED.0
            && self.from == position
            && !bytes.is_empty()
            && self.header.starts_with(bytes)
    }

    /// Whether the finished transaction with this header at `position` is the first of this
    /// batch, so that an append has finished it.
    #[must_use]
    pub fn begins_with(&self, position: u64, header: [u8; TXN_HEADER_LEN]) -> bool {
        header[STATUS_OFFSET as usize] != TxnStatus::VOTED.0 && *self == Self::new(position, header)
    }
}

impl Sidecar {
    /// Reads the sidecar of a slave. A missing sidecar is empty, and so is an invalid one, with
    /// a warning. An unreadable sidecar is an error, so that it is not replaced by an empty
    /// one.
    pub fn load(paths: &SlavePaths) -> Result<Self, Error> {
        let path = paths.sibling(Sibling::Sidecar);
        let Some(text) = read_if_exists(&path, MAX_LEN)? else {
            return Ok(Self::default());
        };
        Ok(serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!("ignoring {}, which is invalid: {error}", path.display());
            Self::default()
        }))
    }

    /// Replaces the sidecar atomically, with the slave's owner and mode. Fails if the slave's
    /// file system is not mounted.
    pub fn store(&self, paths: &SlavePaths) -> Result<(), Error> {
        self.write(paths)?;
        Ok(())
    }

    fn write(&self, paths: &SlavePaths) -> Result<fs::File, Error> {
        paths.check_is_mounted()?;
        let path = paths.sibling(Sibling::Sidecar);
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::io("write", &path)(error.into()))?;
        text.push(b'\n');
        replace_small_file(paths, Sibling::SidecarNew, &path, &text)
    }

    /// Replaces the sidecar as [`store`](Self::store) does, and makes it durable.
    pub fn store_durably(&self, paths: &SlavePaths) -> Result<(), Error> {
        let file = self.write(paths)?;
        let path = paths.sibling(Sibling::Sidecar);
        file.sync_all().map_err(Error::io("sync", &path))?;
        paths.sync_directory()
    }
}
