//! Blobs that are being received, in `.fssync/tmp`.
//!
//! | name | contents |
//! | --- | --- |
//! | `<oid>-<tid>` | the first bytes of a blob, or all of them; 16 hexadecimal digits each |
//! | `directory` | a directory that gets its owner and mode before it is moved into place |
//!
//! ZODB opens none of these names, so they are written and removed without a step.

use std::collections::HashSet;
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, mkdirat, renameat, statat, unlinkat};
use rustix::io::Errno;

use super::directory::{BlobDirectory, TMP};
use super::ownership::{INITIAL_DIRECTORY_MODE, INITIAL_FILE_MODE, Ownership};
use super::tree::{Tree, entries, open_in};
use crate::error::Error;
use crate::filestorage::blob::BlobKey;
use crate::slave::step::Slave;

/// The name of a new directory until it is moved into place.
const NEW_DIRECTORY: &str = "directory";

/// The flags with which a directory is opened.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The length from which on the received part of a blob is kept for the next pass, in bytes.
pub(super) const MIN_RESUMED_LEN: u64 = 16 * 1024 * 1024;

/// Which temporary files are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftovers {
    /// Those that are too short to be resumed: before the first blob of a pass arrives.
    Small,
    /// All: once no blob is wanted any more.
    All,
}

impl BlobDirectory {
    /// Removes temporary files that earlier passes left. Creates `.fssync/tmp` if it is missing.
    pub fn clean_tmp(&self, slave: &Slave, leftovers: Leftovers) -> Result<(), Error> {
        TmpDirectory::open(self, slave)?.clean(slave, leftovers)
    }
}

/// The open directory `.fssync/tmp`.
#[derive(Debug)]
pub(super) struct TmpDirectory<'a> {
    tree: &'a Tree,
    ownership: &'a Ownership,
    pub(super) handle: OwnedFd,
}

impl<'a> TmpDirectory<'a> {
    /// Opens it. It is created if it is missing.
    pub(super) fn open(directory: &'a BlobDirectory, slave: &Slave) -> Result<Self, Error> {
        Ok(Self {
            tree: &directory.tree,
            ownership: &directory.ownership,
            handle: directory.open_or_create_ours(slave, Path::new(TMP))?,
        })
    }

    /// The path of a file in it, for messages.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.tree.path().join(TMP).join(name)
    }

    fn fail(&self, action: &str, name: &str) -> impl FnOnce(Errno) -> Error + use<> {
        self.tree.fail(action, &Path::new(TMP).join(name))
    }

    /// Creates an empty file. An earlier one with the same name is removed.
    pub(super) fn create(&self, name: &str) -> Result<File, Error> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let create = || open_in(&self.handle, name, flags, INITIAL_FILE_MODE);
        let created = match create() {
            Err(Errno::EXIST) => {
                self.remove(name)?;
                create()
            }
            created => created,
        };
        created.map(File::from).map_err(self.fail("create", name))
    }

    /// Opens a file that an earlier pass left and that is long enough to be resumed. Any other file
    /// of this name is not used.
    pub(super) fn open_large(&self, name: &str) -> Result<Option<File>, Error> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = open_in(&self.handle, name, flags, Mode::empty()).map(File::from) else {
            return Ok(None);
        };
        let found = file.metadata();
        let found = found.map_err(Error::io("stat", &self.path(name)))?;
        // With a second name, the file may already be in place: see `rename`.
        let is_ours_alone = found.is_file() && found.nlink() == 1;
        Ok((is_ours_alone && found.len() >= MIN_RESUMED_LEN).then_some(file))
    }

    /// The names of all files in it.
    pub(super) fn names(&self) -> Result<HashSet<String>, Error> {
        let fail = |error: Errno| self.fail("list", "")(error);
        let mut names = HashSet::new();
        for entry in entries(&self.handle).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            // Names that are not UTF-8 are not ours.
            names.extend(entry.file_name().to_str().ok().map(str::to_owned));
        }
        Ok(names)
    }

    /// Removes a file, if there is one.
    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        match unlinkat(&self.handle, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.fail("remove", name)(error)),
        }
    }

    /// Opens a directory below the blob directory, in a step. Creates it and the directories above
    /// it if they are missing.
    pub(super) fn open_or_create_place(&self, relative: &Path) -> Result<OwnedFd, Error> {
        let mut missing = Vec::new();
        let mut opened = None;
        for above in relative.ancestors() {
            opened = self.tree.directory(above)?;
            if opened.is_some() {
                break;
            }
            missing.push(above);
        }
        let root_is_gone = || self.tree.moved("it was removed while it was in use");
        let mut parent = opened.ok_or_else(root_is_gone)?;
        for relative in missing.into_iter().rev() {
            parent = self.create_place(&parent, relative)?;
        }
        Ok(parent)
    }

    /// Creates a directory in `parent`, so that a kill leaves no directory that ZEO's user cannot
    /// use: case 5 in [`super`].
    fn create_place(&self, parent: &OwnedFd, relative: &Path) -> Result<OwnedFd, Error> {
        let fail = |error| self.tree.fail("create", relative)(error);
        if self.ownership.is_this_user() {
            return self.create_in_place(parent, relative);
        }
        match mkdirat(&self.handle, NEW_DIRECTORY, INITIAL_DIRECTORY_MODE) {
            // A pass that was killed may have left it.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(fail(error)),
        }
        let placed = self.place_directory(parent, relative);
        if placed.is_err() {
            // A failure to remove it would hide the first error. The next pass removes it.
            let _ = unlinkat(&self.handle, NEW_DIRECTORY, AtFlags::REMOVEDIR);
        }
        placed
    }

    /// Creates a directory in `parent` that belongs to the right user from the start.
    fn create_in_place(&self, parent: &OwnedFd, relative: &Path) -> Result<OwnedFd, Error> {
        let fail = |error| self.tree.fail("create", relative)(error);
        let name = relative.file_name().unwrap_or_default();
        let mode = self.ownership.directory_mode;
        match mkdirat(parent, name, Mode::from_raw_mode(mode)) {
            Ok(()) => {}
            // Another program has just created it.
            Err(Errno::EXIST) => {
                return open_in(parent, name, DIRECTORY, Mode::empty()).map_err(fail);
            }
            Err(error) => return Err(fail(error)),
        }
        let created = open_in(parent, name, DIRECTORY, Mode::empty()).map_err(fail)?;
        // The process may have another group, or an umask that takes bits of the mode.
        let path = self.tree.path().join(relative);
        let owned = self.ownership.own(&created, mode, &path);
        if owned.is_err() {
            // A failure to remove it would hide the first error. The next pass uses it.
            let _ = unlinkat(parent, name, AtFlags::REMOVEDIR);
        }
        owned.map(|()| created)
    }

    /// Gives the new directory its owner, mode and name.
    fn place_directory(&self, parent: &OwnedFd, relative: &Path) -> Result<OwnedFd, Error> {
        let fail = |error| self.tree.fail("create", relative)(error);
        let created =
            open_in(&self.handle, NEW_DIRECTORY, DIRECTORY, Mode::empty()).map_err(fail)?;
        let path = self.tree.path().join(relative);
        self.ownership
            .own(&created, self.ownership.directory_mode, &path)?;
        // If another program has just created the directory, the rename replaces it if it is
        // empty, and fails otherwise.
        let name = relative.file_name().unwrap_or_default();
        renameat(&self.handle, NEW_DIRECTORY, parent, name).map_err(fail)?;
        Ok(created)
    }

    /// Whether a file is long enough to be resumed by a later pass.
    pub(super) fn is_large(&self, name: &str) -> bool {
        let found = statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW);
        found.is_ok_and(|found| is_resumable(&found))
    }

    fn clean(&self, slave: &Slave, leftovers: Leftovers) -> Result<(), Error> {
        let fail = |error: Errno| self.fail("list", "")(error);
        for entry in entries(&self.handle).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            slave.check_cancelled()?;
            let found = match statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) => found,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(self.fail("stat", &name.to_string_lossy())(error)),
            };
            if leftovers == Leftovers::Small && is_resumable(&found) {
                continue;
            }
            match remove_all(&self.handle, name, &found) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(self.fail("remove", &name.to_string_lossy())(error)),
            }
        }
        Ok(())
    }
}

/// Removes a file, or a directory and all that is in it.
///
/// A new directory is empty until it is renamed out of `.fssync/tmp`. But on a disk without a
/// journal, a power cut may lose that rename and keep the blobs that were placed in the directory
/// afterwards. Their transactions are not visible, because the rename was not yet synced.
fn remove_all(parent: &OwnedFd, name: &CStr, found: &Stat) -> Result<(), Errno> {
    if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
        return unlinkat(parent, name, AtFlags::empty());
    }
    let directory = open_in(parent, name, DIRECTORY, Mode::empty())?;
    for entry in entries(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            let found = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            remove_all(&directory, name, &found)?;
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

fn is_resumable(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::RegularFile
        && found.st_nlink == 1
        && found.st_size.cast_unsigned() >= MIN_RESUMED_LEN
}

/// The name of the temporary file of a blob.
pub(super) fn tmp_name(key: BlobKey) -> String {
    format!("{:016x}-{}", key.oid, key.tid)
}
