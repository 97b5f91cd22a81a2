//! What the last pass left, in `Data.fs.fssync`.
//!
//! A cache and a witness, never the truth: the slave's own bytes are. Losing it
//! may cost time, or a refusal more, but no data; so it is replaced atomically
//! and not synced. It is stored before a batch begins, after one that is followed
//! by another, and when a pass ends.

use std::fs;
use std::io::{self, ErrorKind};
use std::ops::Range;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::index::coverage::IndexCoverage;
use super::index::failure::FailedBuild;
use super::paths::{Sibling, SlavePaths};
use super::small_file::{read_if_exists, replace_small_file};
use crate::error::Error;
use crate::filestorage::Tid;
use crate::filestorage::record::{STATUS_OFFSET, TXN_HEADER_LEN, TxnStatus};
use crate::io::digest::Digest;
use crate::plan::outcome::Action;
use crate::source::FileId;

/// How many bytes at the head of a file tell it from another.
const HEAD_LEN: u64 = 4 * 1024;

/// How many bytes before a position tell whether two files went the same way.
const TAIL_LEN: u64 = 64 * 1024;

/// More than a sidecar has, in bytes.
const MAX_LEN: u64 = 64 * 1024;

/// The sidecar's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Sidecar {
    /// The slave as it was left, once there was one.
    #[serde(rename = "left")]
    pub last_sync: Option<LastSync>,
    /// Up to where the slave was found coherent, if it is not what was left: so
    /// that one that is refused is not read through at every pass.
    #[serde(default, rename = "scanned")]
    pub coherent_up_to: Option<Fingerprint>,
    /// An append that was begun and not finished.
    pub batch: Option<Batch>,
    /// A full copy that was begun and not finished.
    #[serde(default)]
    pub copy: Option<FullCopy>,
    /// ZODB's index, as it was left.
    #[serde(default)]
    pub index: Option<IndexCoverage>,
    /// The last try to store it, if that failed.
    #[serde(default)]
    pub index_failure: Option<FailedBuild>,
    /// Whether a pass found the master damaged, and none was in sync since.
    #[serde(default)]
    pub master_was_damaged: bool,
    /// Whether a pass found that the master is not the slave's successor (exit code 20), and
    /// none was in sync since: a pack of that master proves nothing.
    #[serde(default)]
    pub was_refused: bool,
    /// What was reported once, and need not be again.
    #[serde(default, rename = "noticed")]
    pub reported: Reported,
    /// How the last pass ended.
    pub pass: Option<Pass>,
    /// A time at which the slave had all that the master had committed: when the
    /// last pass that ended well, and was noted, looked at the master.
    #[serde(default)]
    pub in_sync: Option<Timestamp>,
}

/// A full copy under way, of which `Data.fs.fssync-tmp` has what was written so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct FullCopy {
    /// When the last pass began to copy.
    pub since: Timestamp,
    /// From which offset on, in bytes: not 0 if it resumed an earlier copy.
    pub from: u64,
    /// The size of the master, in bytes.
    pub size: u64,
}

/// What passes reported about the master: nobody must read it at each pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Reported {
    /// Other storages in its directory that are not copied.
    pub storages: Vec<String>,
    /// That it has blobs.
    pub blobs: bool,
}

/// The slave as a pass left it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct LastSync {
    /// The file that it was read from.
    pub master: FileId,
    /// The slave.
    pub slave: Fingerprint,
}

/// A file up to a position, by which it is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Fingerprint {
    /// The position in bytes.
    pub position: u64,
    /// The tid of the last transaction before it.
    pub last_tid: Option<Tid>,
    /// The digest of [`head`].
    pub head: Digest,
    /// The digest of [`tail`].
    pub tail: Digest,
}

impl Fingerprint {
    /// The mark of an open file at `position`, just past `last_tid`.
    pub fn of(file: &fs::File, position: u64, last_tid: Option<Tid>) -> io::Result<Self> {
        let digest = |range| -> io::Result<Digest> {
            Digest::of_file(file, range)?.ok_or_else(|| ErrorKind::UnexpectedEof.into())
        };
        Ok(Self {
            position,
            last_tid,
            head: digest(head(position))?,
            tail: digest(tail(position))?,
        })
    }
}

/// The first bytes of a file up to `position`, of which a mark holds a digest.
#[must_use]
pub fn head(position: u64) -> Range<u64> {
    0..position.min(HEAD_LEN)
}

/// The last bytes before `position`, of which a mark holds a digest.
#[must_use]
pub fn tail(position: u64) -> Range<u64> {
    position.saturating_sub(TAIL_LEN)..position
}

/// An append under way: what the slave's tail starts with if it was cut off by
/// a crash.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Batch {
    /// The slave's position before it, in bytes.
    pub from: u64,
    /// The first transaction's header, marked as unfinished.
    header: [u8; TXN_HEADER_LEN],
}

impl Batch {
    /// A batch at `from` whose first transaction has this header.
    #[must_use]
    pub fn new(from: u64, header: [u8; TXN_HEADER_LEN]) -> Self {
        let mut header = header;
        header[STATUS_OFFSET as usize] = TxnStatus::VOTED.0;
        Self { from, header }
    }

    /// The header with the mark of an unfinished transaction.
    #[must_use]
    pub fn header(&self) -> [u8; TXN_HEADER_LEN] {
        self.header
    }

    /// Whether a tail that starts with `bytes` (a header's, or fewer where it
    /// is shorter) is what this batch left at `position`.
    #[must_use]
    pub fn left(&self, position: u64, bytes: &[u8]) -> bool {
        self.header[STATUS_OFFSET as usize] == TxnStatus::VOTED.0
            && self.from == position
            && !bytes.is_empty()
            && self.header.starts_with(bytes)
    }

    /// Whether a finished transaction with this header at `position` is the first
    /// of this batch, finished.
    #[must_use]
    pub fn finished(&self, position: u64, header: [u8; TXN_HEADER_LEN]) -> bool {
        header[STATUS_OFFSET as usize] != TxnStatus::VOTED.0 && *self == Self::new(position, header)
    }
}

/// How a pass ended.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Pass {
    /// When.
    pub time: Timestamp,
    /// What it did.
    pub action: Action,
    /// Its exit code.
    pub exit_code: u8,
    /// Why, in words.
    pub reason: String,
}

impl Pass {
    /// Whether it ended as another did, whenever that was.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        (self.action, self.exit_code, &self.reason)
            == (other.action, other.exit_code, &other.reason)
    }
}

impl Sidecar {
    /// Reads the sidecar at `place`; one that is missing is empty, and so, with
    /// a warning, is one that makes no sense. One that cannot be read is an
    /// error: it must not be replaced by an empty one.
    pub fn load(paths: &SlavePaths) -> Result<Self, Error> {
        let path = paths.sibling(Sibling::Sidecar);
        let Some(text) = read_if_exists(&path, MAX_LEN)? else {
            return Ok(Self::default());
        };
        Ok(serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!("{} is passed over: {error}", path.display());
            Self::default()
        }))
    }

    /// Puts it in its place, with the slave's owner and mode, if the slave's file system
    /// is there.
    pub fn store(&self, paths: &SlavePaths) -> Result<(), Error> {
        paths.check_is_mounted()?;
        let path = paths.sibling(Sibling::Sidecar);
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::io("write", &path)(error.into()))?;
        text.push(b'\n');
        replace_small_file(paths, Sibling::SidecarNew, &path, &text)?;
        Ok(())
    }
}
