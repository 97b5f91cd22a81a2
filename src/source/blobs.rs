//! The master's blob files: the types of the requests and of their answers.
//!
//! A request names a blob directory and the keys of blobs. The names of the files follow from
//! the keys and from the `.layout` of the directory, so a request contains no path below it.
//!
//! | module | responsibility |
//! | --- | --- |
//! | `directory` | opens a blob directory |
//! | `find` | finds the blob directory of a master |
//! | `reader`, `readers` | read blob files, in one or several threads |
//! | `problem` | why a blob directory cannot be used |

mod directory;
mod find;
mod problem;
mod reader;
mod readers;

use serde::{Deserialize, Serialize};

pub(super) use self::directory::BlobsFailure;
pub use self::find::usual_directories;
pub(super) use self::find::{describe, find};
pub use self::problem::BlobsProblem;
pub(super) use self::reader::BlobReader;
pub(super) use self::readers::{digest_all, read_all};

use crate::filestorage::blob::{BlobKey, Layout};
use crate::io::digest::Digest;
use crate::source::FileSystem;

/// The maximum number of blobs, or of keys, in one request to `fssync serve`.
pub const MAX_WANTS: usize = 2000;

/// The maximum length of the content of a [`BlobEventKind::Data`], in bytes.
pub const MAX_PIECE_LEN: usize = 256 * 1024;

/// The blob directory of a master.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct BlobRoot {
    /// Its path, to use in later requests.
    pub directory: String,
    /// How it names its files.
    pub layout: Layout,
    /// The content of its file `.fssync/id`, if there is one. A slave's blob directory has
    /// such a file, so the slave recognizes a master that is its own directory.
    pub slave_id: Option<String>,
    /// Its file system on the machine that reads it. `None` if the other end of a connection does
    /// not send it.
    #[serde(default)]
    pub file_system: Option<FileSystem>,
}

impl BlobRoot {
    /// Whether its texts have the lengths of an honest answer.
    pub(super) fn is_bounded(&self) -> bool {
        /// The maximum length of a path, in bytes.
        const PATH_MAX: usize = 4096;
        /// The maximum length of an id, in bytes. Replacement characters may make it longer
        /// than the text in the file.
        const MAX_ID_LEN: usize = 3 * directory::MAX_TEXT_LEN;
        let id_len = self.slave_id.as_ref().map_or(0, String::len);
        self.directory.len() <= PATH_MAX && id_len <= MAX_ID_LEN
    }
}

/// A blob that the slave wants.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct BlobWant {
    /// The blob.
    pub key: BlobKey,
    /// The file that the slave has under this key. It is not sent again if it is the same.
    pub have: Option<HaveBlob>,
    /// The part that the slave received earlier. If it is a prefix of the file, only the rest
    /// is sent.
    pub resume: Option<ReceivedPrefix>,
}

/// A blob file of the slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct HaveBlob {
    /// Size in bytes.
    pub size: u64,
    /// Time of the last modification: seconds since 1970, and nanoseconds. Without it, a file
    /// of the same size is compared by its digest.
    pub modified: Option<(i64, u32)>,
}

/// The first bytes of a blob, which the slave received earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ReceivedPrefix {
    /// Number of bytes.
    pub len: u64,
    /// Digest of these bytes.
    pub digest: Digest,
}

/// The state of a blob file of the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct BlobStat {
    /// Size in bytes.
    pub size: u64,
    /// Time of the last modification: seconds since 1970, and nanoseconds.
    pub modified: (i64, u32),
    /// Permission bits.
    pub mode: u32,
}

/// Something that happened to one of the wanted blobs. The events of several blobs may be
/// interleaved; those of one blob are in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobEvent {
    /// The index of the blob in the request.
    pub index: usize,
    /// The event.
    pub kind: BlobEventKind,
}

/// The kinds of [`BlobEvent`]. Unless the request fails, each wanted blob gets exactly one of
/// the final ones, as its last event.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum BlobEventKind {
    /// Final: the file, or one of its directories below the blob directory, does not exist.
    Absent,
    /// Final: size and time of modification are those of [`BlobWant::have`].
    Same(BlobStat),
    /// Final: the size is that of [`BlobWant::have`]; the time of modification differs or was
    /// not given.
    SameSize {
        /// The state of the file.
        stat: BlobStat,
        /// Digest of its content.
        digest: Digest,
    },
    /// The file is sent: `stat.size - from` bytes follow, as [`Data`](Self::Data).
    File {
        /// The state of the file.
        stat: BlobStat,
        /// Offset of the first byte that is sent: 0, or the length of the prefix that the
        /// slave received earlier, if the file starts with it.
        from: u64,
    },
    /// The next bytes, at least one and at most [`MAX_PIECE_LEN`].
    #[serde(skip)]
    Data(Vec<u8>),
    /// The file is being digested. The event only proves that the master is alive;
    /// the stream of a [`Master`](super::Master) does not return it.
    #[serde(skip)]
    Digesting,
    /// Final: the whole file was sent, and did not change meanwhile.
    Complete,
    /// Final: the file cannot be sent. Bytes that were sent before must not be used.
    Failed {
        /// The kind of failure.
        kind: BlobFailure,
        /// The file and the cause; only the file, if permission is denied.
        why: String,
    },
}

impl BlobEventKind {
    /// Whether this is the last event of its blob.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::File { .. } | Self::Data(_) | Self::Digesting)
    }
}

/// The answer to one key of a request for digests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum BlobDigestAnswer {
    /// The file, or one of its directories below the blob directory, does not exist.
    Absent,
    /// The file was digested.
    Digested(BlobDigest),
    /// The file cannot be digested.
    Failed {
        /// The kind of failure.
        kind: BlobFailure,
        /// The file and the cause; only the file, if permission is denied.
        why: String,
    },
}

/// Why a blob file cannot be sent or digested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum BlobFailure {
    /// The reader may not read it (EACCES, EPERM).
    Denied,
    /// It cannot be read (EIO, for example), or it is not a regular file.
    Unreadable,
    /// It changed while it was read. A new request may succeed.
    Changed,
}

/// The size and the digest of a blob file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct BlobDigest {
    /// Size in bytes.
    pub size: u64,
    /// Digest of the content.
    pub digest: Digest,
}
