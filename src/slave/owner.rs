//! Whom the files beside the slave belong to.
//!
//! A cron job of root's must not leave files that ZEO's user cannot open: what
//! is made here gets the owner, group, mode and extended attributes of the slave, or,
//! where there is none yet, the owner of its directory and the mode of the master.
//!
//! Who is not root can give files to nobody. If there is no slave yet, its files then
//! belong to whoever makes them: a directory of root's that a group may write is enough. The
//! same applies beside a slave of root's that its group may write: root can open whatever the
//! group makes. A slave of any other user needs files of that user.
//!
//! Who is not root can give files to the groups only that they are in. Another
//! group than the slave's is an error where the slave's mode gives its group more
//! than everybody has; elsewhere it makes no difference.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::attributes::{Attributes, Given};
use super::paths::{OpenMode, SlavePaths};
use super::small_file::{open_if_exists, stat_if_exists};
use crate::error::Error;

/// The owner, group and permission bits of new files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    uid: u32,
    gid: u32,
    mode: u32,
    /// Whether the group must be this one.
    needs_group: bool,
    /// The slave, whose extended attributes the files get; without one, they keep what
    /// their directory gave them, and may stay their maker's.
    model: Option<PathBuf>,
}

/// The permission bits of a file that was not given to its owner yet.
const MODE_AT_FIRST: u32 = 0o600;

/// The permission bits of a slave while neither it nor its master was seen.
const DEFAULT_MODE: u32 = 0o644;

impl Owner {
    /// The slave's. If there is no slave, its directory's, or of whoever is not root,
    /// with the usual mode.
    pub fn of(paths: &SlavePaths) -> Result<Self, Error> {
        let bits = |found: &fs::Metadata| found.permissions().mode() & 0o7777;
        match stat_if_exists(paths.data())? {
            Some(found) => {
                let mode = bits(&found);
                let (group, others) = (mode >> 3 & 0o7, mode & 0o7);
                Ok(Self {
                    uid: found.uid(),
                    gid: found.gid(),
                    mode,
                    needs_group: group & !others != 0,
                    model: Some(paths.data().to_owned()),
                })
            }
            None => {
                let found = fs::metadata(paths.directory())
                    .map_err(Error::io("look at", paths.directory()))?;
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
        }
    }

    /// The same owner with another mode.
    #[must_use]
    pub fn with_mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    /// Creates a file that is not there yet, or fails with
    /// [`ErrorKind::AlreadyExists`]; nothing stays where it cannot be given to
    /// its owner.
    pub fn create_new(&self, path: &Path) -> Result<File, Error> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(MODE_AT_FIRST)
            .open(path)
            .map_err(Error::io("create", path))?;
        match self.own(&file, path) {
            Ok(lost) => {
                for attribute in lost {
                    tracing::debug!("{} does not get {attribute}", path.display());
                }
                Ok(file)
            }
            Err(error) => {
                fs::remove_file(path).map_err(Error::io("remove", path))?;
                Err(error)
            }
        }
    }

    /// Gives an open file, which is at `path`, its owner, mode and extended attributes.
    /// Returns each attribute that it cannot get, and why; without an ACL it grants nobody
    /// more than the slave does.
    pub fn own(&self, file: &File, path: &Path) -> Result<Vec<String>, Error> {
        self.give_to_owner(file).map_err(|source| Error::Owner {
            path: path.to_owned(),
            uid: self.uid,
            gid: self.gid,
            source,
        })?;
        let given = match &self.model {
            None => Given {
                mode: self.mode,
                lost: Vec::new(),
            },
            Some(slave) => Attributes::of(slave)
                .map_err(Error::io("read the extended attributes of", slave))?
                .give(file, self.mode)
                .map_err(Error::io("remove the ACL of", path))?,
        };
        file.set_permissions(fs::Permissions::from_mode(given.mode))
            .map_err(Error::io("set the mode of", path))?;
        let lost =
            |(name, error): (CString, io::Error)| format!("{}: {error}", name.to_string_lossy());
        Ok(given.lost.into_iter().map(lost).collect())
    }

    /// Whether this process runs as this owner.
    #[must_use]
    pub fn is_this_user(&self) -> bool {
        self.uid == rustix::process::geteuid().as_raw()
    }

    /// Whether this owner has a permission (a bit of `rwx`) on what was found, as far as
    /// its permission bits tell. Other groups of the owner's do not count.
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

    /// Opens a file beside the slave for reading and writing; where it is missing,
    /// it is created with the slave's owner and mode.
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
            mend(file, paths, path)?;
        }
        Ok(file)
    }

    /// Opens a file for reading and writing; creates it where it is missing.
    pub fn open_or_create(&self, path: &Path) -> Result<File, Error> {
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
        let is_denied = |error: &io::Error| error.kind() == ErrorKind::PermissionDenied;
        let found = file.metadata()?;
        if found.uid() != self.uid {
            match fchown(file, Some(self.uid), Some(self.gid)) {
                Err(error) if is_denied(&error) && self.may_be_its_makers() => {}
                given => return given,
            }
        }
        if found.gid() != self.gid {
            match fchown(file, None, Some(self.gid)) {
                Err(error) if is_denied(&error) && !self.needs_group => {}
                given => return given,
            }
        }
        Ok(())
    }

    /// Whether a file may stay its maker's, who has no right to give it away.
    fn may_be_its_makers(&self) -> bool {
        const GROUP_READS_AND_WRITES: u32 = 0o060;
        let is_groups = self.mode & GROUP_READS_AND_WRITES == GROUP_READS_AND_WRITES;
        self.model.is_none() || self.uid == 0 && is_groups
    }
}

/// Gives a file to its owner that a crash has kept from its owner: one that is as it was
/// created. Else ZEO's user could not open the lock that root left, for good.
fn mend(file: &File, paths: &SlavePaths, path: &Path) -> Result<(), Error> {
    let found = file.metadata().map_err(Error::io("look at", path))?;
    let is_ours = found.uid() == geteuid().as_raw();
    if !is_ours || found.permissions().mode() & 0o7777 != MODE_AT_FIRST {
        return Ok(());
    }
    let owner = Owner::of(paths)?;
    if (owner.uid, owner.mode) != (found.uid(), MODE_AT_FIRST)
        && let Err(error) = owner.own(file, path)
    {
        tracing::debug!("{}", error.display_chain());
    }
    Ok(())
}
