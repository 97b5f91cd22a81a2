//! Owner, group and mode of the files and directories below a blob directory.
//!
//! New directories get the owner, group and mode of the blob directory. New files get its owner
//! and group, and the mode of the master's file without write and execute permission. In addition,
//! group and others may read a file if they may read the blob directory: ZODB up to 5.1.1 makes
//! files that only their owner may read, which would surprise on a slave with another owner.
//!
//! A process that is not root cannot give files to another user. Its files keep its own user if
//! the blob directory belongs to root, or if the group of the blob directory may write it.
//! Otherwise it is an error, because ZEO could not read or pack such blobs.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, fchmod};
use rustix::process::geteuid;

use crate::error::Error;
use crate::slave::owner::Recipient;
use crate::slave::paths::SlavePaths;

/// The permission bits of a new file or directory until it has its owner.
pub(super) const INITIAL_FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
pub(super) const INITIAL_DIRECTORY_MODE: Mode = Mode::RWXU;

/// Bits of a mode.
const PERMISSIONS: u32 = 0o7777;
const READ: u32 = 0o444;
const OWNER_READS: u32 = 0o400;
const OWNER_WRITES: u32 = 0o200;
const OTHERS_READ: u32 = 0o044;
const GROUP: u32 = 0o070;

/// The owner, group and mode of the blob directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ownership {
    recipient: Recipient,
    /// Permission bits of directories.
    pub(super) directory_mode: u32,
}

impl Ownership {
    /// As of an existing blob directory.
    pub(super) fn of(root: &std::fs::Metadata) -> Self {
        let mode = root.mode() & PERMISSIONS;
        let (group, others) = (mode >> 3 & 0o7, mode & 0o7);
        Self {
            recipient: Recipient {
                uid: root.uid(),
                gid: root.gid(),
                may_keep_its_user: root.uid() == 0 || mode & GROUP == GROUP,
                needs_group: group & !others != 0,
            },
            directory_mode: mode,
        }
    }

    /// For a new blob directory: as of the slave's directory. A process that may not change
    /// owners keeps its own user.
    pub(super) fn of_new_root(paths: &SlavePaths) -> Result<Self, Error> {
        let directory = paths.directory();
        let found = std::fs::metadata(directory).map_err(Error::io("stat", directory))?;
        let mut ownership = Self::of(&found);
        let user = geteuid();
        ownership.recipient.may_keep_its_user = true;
        if !user.is_root() {
            ownership.recipient.uid = user.as_raw();
        }
        Ok(ownership)
    }

    /// Whether new files and directories have the right owner from the start: that of this process.
    pub(super) fn is_this_user(&self) -> bool {
        self.recipient.uid == geteuid().as_raw()
    }

    /// The permission bits of a blob whose file has `master_mode` at the master.
    pub(super) fn blob_mode(&self, master_mode: u32) -> u32 {
        master_mode & READ | OWNER_READS | self.directory_mode & OTHERS_READ
    }

    /// The permission bits of a file that describes the blob directory.
    pub(super) fn marker_mode(&self) -> u32 {
        OWNER_READS | OWNER_WRITES | self.directory_mode & OTHERS_READ
    }

    /// Gives the open file or directory at `path` its owner and mode.
    pub(super) fn own(&self, file: impl AsFd, mode: u32, path: &Path) -> Result<(), Error> {
        let Recipient { uid, gid, .. } = self.recipient;
        let file = file.as_fd();
        let before = self.recipient.give(file).map_err(|source| Error::Owner {
            path: path.to_owned(),
            uid,
            gid,
            source,
        })?;
        // A new owner may have cost bits of the mode.
        let is_owned = (before.st_uid, before.st_gid) == (uid, gid);
        if is_owned && before.st_mode & PERMISSIONS == mode {
            return Ok(());
        }
        fchmod(file, Mode::from_raw_mode(mode))
            .map_err(|error| Error::io("set the mode of", path)(error.into()))
    }
}
