//! Owner, group, mode and extended attributes of the files beside the slave.
//!
//! A cron job of root must not leave files that ZEO's user cannot open. New files therefore
//! get the owner, group, mode and extended attributes of the slave. If there is no slave yet,
//! they get the owner of its directory, and the mode of the master.
//!
//! A process that is not root cannot give files to another user. Its files keep its own user:
//!
//! 1. if there is no slave yet. A directory of root in which the process's group may write is
//!    sufficient;
//! 2. if the slave belongs to root and its group may read and write it. Root can open any file.
//!
//! Otherwise it is an error: the slave's user may need the file.
//!
//! Such a process can give files only to groups of which it is a member. Another group than
//! the slave's is an error if the slave's mode gives the group more than everybody. Otherwise
//! the group makes no difference.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{Stat, fstat};
use rustix::process::geteuid;

use super::attributes::{Applied, Attributes};
use super::paths::{OpenMode, SlavePaths};
use super::small_file::{open_if_exists, stat_if_exists};
use crate::error::Error;

/// The owner, group and permission bits of new files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    uid: u32,
    gid: u32,
    mode: u32,
    /// Whether a file with another group would be an error.
    needs_group: bool,
    /// The slave, whose extended attributes are copied. If there is none, files keep the
    /// attributes that they inherit from the directory, and may keep the user that created
    /// them.
    model: Option<PathBuf>,
}

/// The permission bits of a new file until it has its owner.
const INITIAL_MODE: u32 = 0o600;

/// The permission bits of a new slave while the master's are unknown.
const DEFAULT_MODE: u32 = 0o644;

impl Owner {
    /// The owner, group and mode of the slave. If there is no slave: the group of its
    /// directory, the default mode, and for root the directory's owner, for others their own
    /// user.
    pub fn of(paths: &SlavePaths) -> Result<Self, Error> {
        if let Some(found) = stat_if_exists(paths.data())? {
            let mode = found.permissions().mode() & 0o7777;
            let (group, others) = (mode >> 3 & 0o7, mode & 0o7);
            return Ok(Self {
                uid: found.uid(),
                gid: found.gid(),
                mode,
                needs_group: group & !others != 0,
                model: Some(paths.data().to_owned()),
            });
        }
        let directory = paths.directory();
        let found = fs::metadata(directory).map_err(Error::io("stat", directory))?;
        let user = geteuid();
        Ok(Self {
            uid: if user.is_root() {
                found.uid()
            } else {
                user.as_raw()
            },
            gid: found.gid(),
            mode: DEFAULT_MODE,
            needs_group: false,
            model: None,
        })
    }

    /// The same owner with another mode.
    #[must_use]
    pub fn with_mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    /// Creates a file with this owner. Fails with [`ErrorKind::AlreadyExists`] if the file
    /// exists. If it cannot be given to its owner, it is removed again.
    pub fn create_new(&self, path: &Path) -> Result<File, Error> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(INITIAL_MODE)
            .open(path)
            .map_err(Error::io("create", path))?;
        match self.own(&file, path) {
            Ok(lost) => {
                for attribute in lost {
                    tracing::debug!("{}: cannot copy {attribute}", path.display());
                }
                Ok(file)
            }
            Err(error) => {
                fs::remove_file(path).map_err(Error::io("remove", path))?;
                Err(error)
            }
        }
    }

    /// Gives the open file at `path` its owner, mode and extended attributes. Returns a
    /// message for each attribute that cannot be set. If that is an ACL, the mode is reduced,
    /// so that the file grants nobody more than the slave does.
    pub fn own(&self, file: &File, path: &Path) -> Result<Vec<String>, Error> {
        self.give_to_owner(file).map_err(|source| Error::Owner {
            path: path.to_owned(),
            uid: self.uid,
            gid: self.gid,
            source,
        })?;
        let applied = match &self.model {
            None => Applied {
                mode: self.mode,
                lost: Vec::new(),
            },
            Some(slave) => Attributes::of(slave)
                .map_err(Error::io("read the extended attributes of", slave))?
                .apply(file, self.mode)
                .map_err(Error::io("remove the ACL of", path))?,
        };
        file.set_permissions(fs::Permissions::from_mode(applied.mode))
            .map_err(Error::io("set the mode of", path))?;
        let lost =
            |(name, error): (CString, io::Error)| format!("{}: {error}", name.to_string_lossy());
        Ok(applied.lost.into_iter().map(lost).collect())
    }

    /// Whether this process runs as this owner.
    #[must_use]
    pub fn is_this_user(&self) -> bool {
        self.uid == rustix::process::geteuid().as_raw()
    }

    /// Whether this owner has a permission (a bit of `rwx`) on a file according to its
    /// permission bits. Only the owner's own group is considered.
    #[must_use]
    pub fn can(&self, permission: u32, found: &fs::Metadata) -> bool {
        let mode = found.permissions().mode();
        let bits = if found.uid() == self.uid {
            mode >> 6
        } else if found.gid() == self.gid {
            mode >> 3
        } else {
            mode
        };
        self.uid == 0 || bits & permission != 0
    }

    /// Opens a file beside the slave for reading and writing. If it does not exist, it is
    /// created with the slave's owner and mode.
    pub fn open_or_create_for(paths: &SlavePaths, path: &Path) -> Result<File, Error> {
        match Self::open_for(paths, path)? {
            Some(file) => Ok(file),
            None => Self::of(paths)?.open_or_create(path),
        }
    }

    /// Opens a file beside the slave for reading and writing; `None` if there is none.
    pub fn open_for(paths: &SlavePaths, path: &Path) -> Result<Option<File>, Error> {
        let file = open_if_exists(path, OpenMode::ReadWrite)?;
        if let Some(file) = &file {
            repair_owner(file, paths, path)?;
        }
        Ok(file)
    }

    /// Opens a file for reading and writing, or creates it.
    pub fn open_or_create(&self, path: &Path) -> Result<File, Error> {
        // Another process may create or remove the file between the two calls.
        loop {
            if let Some(file) = open_if_exists(path, OpenMode::ReadWrite)? {
                return Ok(file);
            }
            match self.create_new(path) {
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {}
                result => return result,
            }
        }
    }

    fn give_to_owner(&self, file: &File) -> io::Result<()> {
        let recipient = Recipient {
            uid: self.uid,
            gid: self.gid,
            may_keep_its_user: self.may_keep_its_user(),
            needs_group: self.needs_group,
        };
        recipient.give(file).map(|_| ())
    }

    /// Whether a file may keep the user of this process, which cannot give it away (cases 1
    /// and 2 of the module's description).
    fn may_keep_its_user(&self) -> bool {
        const GROUP_READS_AND_WRITES: u32 = 0o060;
        let group_has_access = self.mode & GROUP_READS_AND_WRITES == GROUP_READS_AND_WRITES;
        self.model.is_none() || self.uid == 0 && group_has_access
    }
}

/// The user and the group that a new file is given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recipient {
    /// The user.
    pub(super) uid: u32,
    /// The group.
    pub(super) gid: u32,
    /// Whether the file may keep its user if this process cannot give it away.
    pub(super) may_keep_its_user: bool,
    /// Whether a file with another group would be an error.
    pub(super) needs_group: bool,
}

impl Recipient {
    /// Gives an open file or directory to the user and the group. Both may remain as they are
    /// if this process cannot change them and the recipient allows it. Returns the state before.
    pub(super) fn give(&self, file: impl AsFd) -> io::Result<Stat> {
        let file = file.as_fd();
        let found = fstat(file)?;
        if found.st_uid != self.uid {
            match fchown(file, Some(self.uid), Some(self.gid)) {
                Err(error) if is_denied(&error) && self.may_keep_its_user => {}
                given => return given.map(|()| found),
            }
        }
        if found.st_gid != self.gid {
            match fchown(file, None, Some(self.gid)) {
                Err(error) if is_denied(&error) && !self.needs_group => {}
                given => return given.map(|()| found),
            }
        }
        Ok(found)
    }
}

fn is_denied(error: &io::Error) -> bool {
    error.kind() == ErrorKind::PermissionDenied
}

/// Gives a file to its owner if a crash prevented that: the file still has the user and mode
/// with which it was created. Otherwise ZEO's user could never open a lock that root left.
fn repair_owner(file: &File, paths: &SlavePaths, path: &Path) -> Result<(), Error> {
    let found = file.metadata().map_err(Error::io("stat", path))?;
    let is_ours = found.uid() == geteuid().as_raw();
    if !is_ours || found.permissions().mode() & 0o7777 != INITIAL_MODE {
        return Ok(());
    }
    let owner = Owner::of(paths)?;
    if (owner.uid, owner.mode) != (found.uid(), INITIAL_MODE)
        && let Err(error) = owner.own(file, path)
    {
        tracing::debug!("{}", error.display_chain());
    }
    Ok(())
}
