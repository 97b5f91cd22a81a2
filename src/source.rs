//! Read-only access to the master.
//!
//! A [`Source`] opens the master's file, reads and digests ranges of it, lists its
//! transactions, and reads its blobs. It makes no decisions: its callers do, in the same way for every
//! transport. Nothing in this directory writes a file.
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`location`] | parses the location of a master |
//! | [`path`], [`open`] | a master on a mounted path, local or NFS |
//! | [`blobs`] | the master's blob files |
//! | [`ssh`] | a master on another machine, through ssh and `fssync serve` |
//! | [`protocol`], [`server`] | the frames between the two, and `fssync serve` itself |
//!
//! A pass does not call a source directly. It calls a [`Master`], which runs the source in
//! a thread of its own and limits the time that a pass waits for it.

pub mod blobs;
mod file_system;
pub mod location;
mod master;
pub mod open;
pub mod path;
mod pending;
pub mod protocol;
pub mod server;
pub mod ssh;
mod surroundings;
mod transactions;

use std::io;
use std::ops::{ControlFlow, Range};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use blobs::{BlobDigestAnswer, BlobEvent, BlobRoot, BlobWant, BlobsProblem};
pub use file_system::FileSystem;
pub use master::{BlobStream, Master};
pub use pending::{Deadline, Heartbeat, Pending};
pub use surroundings::{CoveredNames, Stray, Surroundings};
pub use transactions::{MAX_LIST_LEN, Reached, TransactionEntry, Transactions};

use crate::filestorage::blob::BlobKey;
use crate::io::digest::Digest;
use crate::io::file_stat::FileStat;

/// Operations on the master's file, for any transport.
pub trait Source: Send {
    /// Opens the file that the master's name leads to now, and returns its state. Later
    /// calls read this file, even if another one gets its name.
    ///
    /// Also digests `ranges`. A range that reaches past the end of the file has no digest.
    fn stat(&mut self, ranges: &[Range<u64>]) -> Result<MasterStat, Error>;

    /// Describes what surrounds the file that [`stat`](Self::stat) opened last.
    fn surroundings(&mut self) -> Result<Surroundings, Error>;

    /// Fills `buffer` with the bytes from `offset` on. Returns their number, which is less
    /// than the length of `buffer` only at the end of the file.
    fn read(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize, Error>;

    /// Digests a range; `None` if it reaches past the end of the file.
    fn digest(&mut self, range: Range<u64>) -> Result<Option<Digest>, Error>;

    /// Digests a range as it is now on the master's own disk, without any cache in between.
    /// Where the transport allows it, the digested bytes are also durable there.
    fn confirm(&mut self, range: Range<u64>) -> Result<Option<Digest>, Error>;

    /// Lists the committed transactions of a file of `size` bytes, starting with the one at
    /// `from`. The length of a list is limited, so that it arrives in time; the next call
    /// continues at its end.
    fn transactions(&mut self, from: u64, size: u64) -> Result<Transactions, Error>;

    /// Finds the master's blob directory: the given one, or else the usual one of the file that
    /// [`stat`](Self::stat) opened last.
    fn blob_root(&mut self, given: Option<&str>) -> Result<BlobRoot, Error>;

    /// Sends the events of the wanted blobs to `sink`, until it returns `Break`. Several
    /// threads may call it. Fails with [`BlobsProblem::Vanished`] if the directory is no
    /// longer a blob directory, or has another layout; without its `.layout`, no blob counts
    /// as absent.
    fn blobs(
        &mut self,
        root: &BlobRoot,
        wants: &[BlobWant],
        sink: &(dyn Fn(BlobEvent) -> ControlFlow<()> + Sync),
    ) -> Result<(), Error>;

    /// Digests blobs. Calls `alive` again and again meanwhile, if the source knows only in this
    /// way that the master is alive.
    fn blob_digests(
        &mut self,
        root: &BlobRoot,
        keys: &[BlobKey],
        alive: &(dyn Fn() + Sync),
    ) -> Result<Vec<BlobDigestAnswer>, Error>;

    /// Waits until the file may have changed since the last [`stat`](Self::stat), and
    /// returns true. After `timeout`, returns whether a new stat differs from the last one. This
    /// is only a hint: on a network file system, no change is noticed before the timeout, and two
    /// writes at nearly the same time look like one.
    fn wait(&mut self, timeout: Duration) -> Result<bool, Error>;

    /// Closes the file and the connection to it, until the next [`stat`](Self::stat).
    fn close(&mut self);
}

/// The longest time that [`Source::wait`] waits, whatever its timeout. Other requests thus
/// soon get their turn, and a broken connection is noticed.
pub const MAX_WAIT: Duration = Duration::from_secs(1);

/// The result of [`Source::stat`].
#[derive(Clone, Debug)]
pub struct MasterStat {
    /// Identity of the file.
    pub identity: FileId,
    /// The file, if it is on this machine (or mounted there).
    pub local: Option<FileStat>,
    /// Size in bytes. Nothing beyond it is read.
    pub size: u64,
    /// Time of the last modification, in seconds and nanoseconds.
    pub modified: (i64, u32),
    /// Permission bits.
    pub mode: u32,
    /// File system on the machine that reads the file.
    pub file_system: FileSystem,
    /// How the master's name leads to it.
    pub named: Named,
    /// Digests of the requested ranges.
    pub digests: Vec<Option<Digest>>,
}

/// How a name leads to a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Named {
    /// Whether the name is the name of the file's directory.
    pub is_directory: bool,
    /// Whether the file itself is a mount point. The name then leads to this file for
    /// ever, even after another file has replaced it in its original directory.
    pub is_mount: bool,
}

/// The maximum number of entries in one list.
const MAX_ENTRIES: usize = 150;

/// A file in the directory of the master's `Data.fs`, or below it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct DirectoryEntry {
    /// Name in its directory. Names that are not UTF-8 are not listed.
    pub name: String,
    /// Kind of file. Links are not followed.
    pub kind: EntryKind,
    /// Size in bytes.
    pub size: u64,
}

/// The kinds of [`DirectoryEntry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Something else.
    Other,
}

/// The identity of a file, which stays the same until somebody replaces the file. Two packs
/// can bring an inode number back, so the time of creation is part of it; some file systems
/// do not store that time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct FileId {
    /// Inode number.
    pub inode: u64,
    /// Time of creation, if the file system stores it.
    pub birth: Option<Timestamp>,
}

/// Why a request to the master failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation on the master's file failed.
    #[error("cannot {action} {name}")]
    Io {
        /// The operation, with its position if it has one.
        action: String,
        /// Name of the master.
        name: String,
        /// Cause of the failure.
        source: io::Error,
    },
    /// The file is not a FileStorage.
    #[error("{name} {problem}")]
    NotFileStorage {
        /// Name of the master.
        name: String,
        /// The property that a FileStorage does not have.
        problem: &'static str,
    },
    /// The file itself is a mount point.
    #[error(
        "{name} is mounted as a single file, so the new file of a pack would never become \
         visible: mount the directory that it is in"
    )]
    Mounted {
        /// Name of the master.
        name: String,
    },
    /// The file shrank or changed during a read.
    #[error("{name} changed while it was read at {position}")]
    Changed {
        /// Name of the master.
        name: String,
        /// Offset of the read.
        position: u64,
    },
    /// The master did not answer in time.
    #[error("no answer from {name} within {} s", .timeout.as_secs_f32())]
    TimedOut {
        /// Name of the master.
        name: String,
        /// The time that was waited.
        timeout: Duration,
    },
    /// The other end refused the request.
    #[error("{name}: {why}")]
    Remote {
        /// Name of the master.
        name: String,
        /// The reason that it gave.
        why: String,
        /// Whether a retry may succeed, according to the other end.
        is_transient: bool,
    },
    /// The master's blob directory cannot be used.
    #[error("{name}: {problem}")]
    Blobs {
        /// Name of the master.
        name: String,
        /// The reason.
        problem: BlobsProblem,
    },
    /// The connection could not be established, or it broke.
    #[error("no connection to {name}: {what}")]
    Connection {
        /// Name of the master.
        name: String,
        /// Description of the failure.
        what: String,
        /// Advice for the user.
        hint: &'static str,
    },
    /// A limit of this machine does not allow to start another thread or program.
    #[error("cannot start {what}")]
    Start {
        /// Description of the thread or program.
        what: String,
        /// Cause of the failure.
        source: io::Error,
    },
    /// The pass was interrupted while it waited for the answer.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// Whether a retry within a second may succeed. A pack renames two files, for example,
    /// and an NFS server may drop a file handle.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Io { .. } | Self::NotFileStorage { .. } | Self::Changed { .. } => true,
            Self::Remote { is_transient, .. } => *is_transient,
            Self::Blobs { problem, .. } => matches!(problem, BlobsProblem::Vanished { .. }),
            Self::Mounted { .. }
            | Self::TimedOut { .. }
            | Self::Connection { .. }
            | Self::Start { .. }
            | Self::Interrupted => false,
        }
    }

    /// Advice for the user, if there is any.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Connection { hint, .. } => Some(hint),
            Self::Blobs { problem, .. } => Some(problem.hint()),
            _ => None,
        }
    }
}

/// Formats an error and its causes as one line.
pub(crate) fn display_chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}
