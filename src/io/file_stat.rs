//! The state of a file on this machine.
//!
//! Four types answer the question "which file, in what state". They differ in how long their
//! answer holds:
//!
//! | type | contents | recognises | use it |
//! | --- | --- | --- | --- |
//! | [`FileId`](crate::source::FileId) | inode, time of creation | a file, however it has changed | to recognise a file in a later process, or a master on another machine |
//! | [`FileStat`] | device, inode, size, time of modification | a file that nobody has written or replaced | between two steps on this machine, without reading the file |
//! | [`MasterStat`](crate::source::MasterStat) | the result of one stat of the master, with digests | the master at one moment | for the survey of a pass |
//! | [`Fingerprint`](crate::slave::sidecar::Fingerprint) | position, last tid, digests of two ranges | the bytes up to a position, also in a copy of the file | to check whether committed bytes are still the same; it reads up to 68 KiB |

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{Statx, makedev};
use serde::{Deserialize, Serialize};

/// A file of this machine at one moment. Two equal values mean that nobody has written or
/// replaced the file in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct FileStat {
    /// Device number of the file system. It is not stored, because it can change when the
    /// file system is mounted again: see [`without_device`](Self::without_device).
    #[serde(skip)]
    pub device: u64,
    /// Inode number in that file system.
    pub inode: u64,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last modification: seconds since 1970, and nanoseconds.
    pub modified: (i64, i64),
}

impl FileStat {
    /// The state that `statx` returned. Its mask must include the basic fields.
    #[must_use]
    pub fn of_statx(found: &Statx) -> Self {
        Self {
            device: makedev(found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            size: found.stx_size,
            modified: (found.stx_mtime.tv_sec, i64::from(found.stx_mtime.tv_nsec)),
        }
    }

    /// The state that `stat` or `fstat` returned.
    #[must_use]
    pub fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
        }
    }

    /// Whether both are the same file, written since or not.
    #[must_use]
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// The same for two files that may be missing; two missing files are the same.
    #[must_use]
    pub fn are_same_file(one: Option<Self>, other: Option<Self>) -> bool {
        match (one, other) {
            (Some(one), Some(other)) => one.is_same_file(&other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    /// The same state for a comparison with one that was stored, perhaps before a reboot.
    #[must_use]
    pub fn without_device(self) -> Self {
        Self { device: 0, ..self }
    }
}
