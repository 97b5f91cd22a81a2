//! The master: where the bytes come from.
//!
//! A [`Source`] is dumb and read-only. It opens what lies under the master's
//! name, reads and digests ranges, and lists transactions; every decision is
//! made by its callers, the same for every transport. Nothing in this folder
//! writes.
//!
//! A pass does not call a source itself but through a [`Master`], which bounds
//! the time that it waits for an answer.

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
use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use file_system::FileSystem;
pub use master::Master;
pub use pending::{Deadline, Heartbeat, Pending};
pub use surroundings::{Stray, Surroundings};
pub use transactions::{MAX_LIST_LEN, Reached, TransactionEntry, Transactions};

use crate::io::digest::Digest;
use crate::io::file_stat::FileStat;

/// What a pass asks of the master's end.
pub trait Source: Send {
    /// Opens afresh what lies under the master's name, and says what it is.
    /// Later calls read that file, whatever the name comes to mean.
    ///
    /// `ranges` are digested on the way; one that reaches past the end of the
    /// file has no digest.
    fn stat(&mut self, ranges: &[Range<u64>]) -> Result<MasterStat, Error>;

    /// Lists the directory that the master's `Data.fs` lies in, or one below it:
    /// in the order of their names, up to [`MAX_ENTRIES`] of what comes `after` a
    /// name.
    fn list(
        &mut self,
        relative_path: &str,
        after: Option<&str>,
    ) -> Result<Vec<DirectoryEntry>, Error>;

    /// Opens a regular file beside the master's `Data.fs`, or below its
    /// directory; returns its size. Later calls read that file, until the next
    /// look.
    fn open_beside(&mut self, relative_path: &str) -> Result<u64, Error>;

    /// Looks around the file that was last looked at.
    fn surroundings(&mut self) -> Result<Surroundings, Error>;

    /// Fills `buffer` from `offset` on. Returns how many bytes there were: fewer
    /// than asked for only at the end of the file.
    fn read(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize, Error>;

    /// Digests a range; `None` if it reaches past the end of the file.
    fn digest(&mut self, range: Range<u64>) -> Result<Option<Digest>, Error>;

    /// Digests a range as it stands now on the master's own disk: nothing that
    /// was cached on the way counts, and, as far as this can be had, what is
    /// digested is durable over there.
    fn confirm(&mut self, range: Range<u64>) -> Result<Option<Digest>, Error>;

    /// Lists the committed transactions from `from` on, where one starts, in a
    /// file of `size` bytes. A list is bounded, so that it comes in time; the next
    /// one goes on where it ends.
    fn transactions(&mut self, from: u64, size: u64) -> Result<Transactions, Error>;

    /// Waits until the file may have changed since it was last looked at; says
    /// whether, or that `timeout` was over first. A hint: on a network file
    /// system no change is ever seen so.
    fn wait(&mut self, timeout: Duration) -> Result<bool, Error>;

    /// Lets go of the file and of the connection to it, until the next look.
    fn close(&mut self);
}

/// The longest that [`Source::wait`] waits, whatever it is told: so the master
/// is free for other questions before long, and a connection is heard of.
pub const MAX_WAIT: Duration = Duration::from_secs(1);

/// What [`Source::stat`] sees.
#[derive(Clone, Debug)]
pub struct MasterStat {
    /// Which file it is.
    pub identity: FileId,
    /// The file, if it is on this machine (or mounted there).
    pub local: Option<FileStat>,
    /// Its size in bytes: nothing beyond is read.
    pub size: u64,
    /// When it was last written, in seconds and nanoseconds.
    pub modified: (i64, u32),
    /// Its permission bits.
    pub mode: u32,
    /// What it lies on, at its end.
    pub file_system: FileSystem,
    /// How the master's name leads to it.
    pub named: Named,
    /// The digests of the ranges asked for.
    pub digests: Vec<Option<Digest>>,
}

/// How a name leads to a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Named {
    /// The name is that of the directory that the file is in.
    pub is_directory: bool,
    /// The file itself is mounted under its name, so that the name leads to this
    /// file for ever, also once another one has replaced it where it comes from.
    pub is_mount: bool,
}

/// The most entries that [`Source::list`] gives at once.
pub const MAX_ENTRIES: usize = 150;

/// What lies beside the master's `Data.fs`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct DirectoryEntry {
    /// Its name in its directory; one that is not UTF-8 is not listed.
    pub name: String,
    /// What it is; a link is not followed.
    pub kind: EntryKind,
    /// Its size in bytes.
    pub size: u64,
}

/// The kinds of [`DirectoryEntry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Something else.
    Other,
}

/// Which file it is: equal as long as nobody replaces it. An inode alone comes
/// back after two packs, and on some file systems it is all there is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct FileId {
    /// The inode number.
    pub inode: u64,
    /// When the file was created, where the file system says so.
    pub birth: Option<Timestamp>,
}

/// Why the master did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation on the master's file failed.
    #[error("cannot {action} {name}")]
    Io {
        /// What was tried, with the position where there is one.
        action: String,
        /// The master's name.
        name: String,
        /// Why it failed.
        source: io::Error,
    },
    /// There is something else under the master's name, or part of it only.
    #[error("{name} {what}")]
    NotFileStorage {
        /// The master's name.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// The file is mounted by itself.
    #[error(
        "{name} is mounted as a single file, so that the file that a pack puts in its \
         paths would never be seen: mount the directory that it is in"
    )]
    Mounted {
        /// The master's name.
        name: String,
    },
    /// The file shrank or changed below us.
    #[error("{name} changed while it was read at {position}")]
    Changed {
        /// The master's name.
        name: String,
        /// The offset that was read.
        position: u64,
    },
    /// No answer came in time.
    #[error("no answer from {name} within {} s", .timeout.as_secs_f32())]
    TimedOut {
        /// The master's name.
        name: String,
        /// How long was waited.
        timeout: Duration,
    },
    /// The other end refused.
    #[error("{name}: {why}")]
    Remote {
        /// The master's name.
        name: String,
        /// What it said.
        why: String,
        /// Whether it said that a moment later it may not.
        is_transient: bool,
    },
    /// The connection to the other end could not be made, or broke.
    #[error("no connection to {name}: {what}")]
    Connection {
        /// The master's name.
        name: String,
        /// What was seen.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// This machine lets the process start no more.
    #[error("cannot start {what}")]
    Start {
        /// What was to be started.
        what: String,
        /// Why it could not be.
        source: io::Error,
    },
    /// The answer was no longer wanted while it was waited for.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// Whether another try within a second may see something else: a pack
    /// renames twice, an NFS server forgets a handle.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Io { .. } | Self::NotFileStorage { .. } | Self::Changed { .. } => true,
            Self::Remote { is_transient, .. } => *is_transient,
            Self::Mounted { .. }
            | Self::TimedOut { .. }
            | Self::Connection { .. }
            | Self::Start { .. }
            | Self::Interrupted => false,
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Connection { hint, .. } => Some(hint),
            _ => None,
        }
    }
}

/// An error with its causes, in one line.
pub(crate) fn display_chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}
