//! Opens files and directories below a blob directory, through a handle of that directory.
//!
//! No name below the blob directory may lead out of it ([`beneath`](crate::io::beneath)). Changes
//! use a handle of the last directory and one name in it, so they cannot be redirected either.
//!
//! The path of the blob directory itself may contain symbolic links: the administrator chose it.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat, fstat, fsync, openat};
use rustix::io::{Errno, retry_on_intr};
use rustix::path::Arg;

use crate::error::Error;
use crate::io::beneath::open_beneath;

/// The blob directory, through which everything below it is opened.
#[derive(Debug)]
pub(super) struct Tree {
    root: File,
    path: PathBuf,
    /// Device and inode number of the root.
    identity: (u64, u64),
    /// Whether a sync of the whole file system has failed since the root was opened.
    pub(super) has_failed_sync: AtomicBool,
}

impl Tree {
    /// Opens the blob directory at `path`. Fails with [`ErrorKind::NotFound`] if it does not
    /// exist, and with [`ErrorKind::NotADirectory`] if it is not a directory.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let root = fs::OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::DIRECTORY.bits().cast_signed())
            .open(path)?;
        let found = root.metadata()?;
        Ok(Self {
            root,
            path: path.to_owned(),
            identity: (found.dev(), found.ino()),
            has_failed_sync: AtomicBool::new(false),
        })
    }

    /// The path of the blob directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The handle of the blob directory.
    pub(super) fn root(&self) -> &File {
        &self.root
    }

    /// Fails if the path of the blob directory no longer leads to the directory that was opened.
    pub(super) fn check_in_place(&self) -> Result<(), Error> {
        let why = match fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == self.identity => return Ok(()),
            Ok(_) => "it was replaced while it was in use",
            Err(error) if error.kind() == ErrorKind::NotFound => {
                "it was moved or removed while it was in use"
            }
            Err(error) => return Err(Error::io("stat", &self.path)(error)),
        };
        Err(self.moved(why))
    }

    /// The error for a directory that is not the one that earlier passes wrote.
    pub(super) fn moved(&self, why: &'static str) -> Error {
        Error::BlobsMoved {
            directory: self.path.clone(),
            why,
        }
    }

    /// Opens something below the blob directory; `None` if it does not exist. `action` is used in
    /// the error.
    pub(super) fn open_if_exists(
        &self,
        relative: &Path,
        flags: OFlags,
        action: &str,
    ) -> Result<Option<OwnedFd>, Error> {
        match open_beneath(&self.root, relative, flags) {
            Ok(opened) => Ok(Some(opened)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.fail(action, relative)(error)),
        }
    }

    /// Opens a directory below the blob directory, for reading, syncing and changes in it; `None`
    /// if it does not exist. An empty path is the blob directory.
    pub(super) fn directory(&self, relative: &Path) -> Result<Option<OwnedFd>, Error> {
        if relative.as_os_str().is_empty() {
            let root = self.root.try_clone();
            return Ok(Some(root.map_err(Error::io("open", &self.path))?.into()));
        }
        self.open_if_exists(relative, OFlags::RDONLY | OFlags::DIRECTORY, "open")
    }

    /// Opens a regular file for reading; `None` if it does not exist.
    pub(super) fn file(&self, relative: &Path) -> Result<Option<File>, Error> {
        // Opening a FIFO must not block.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let Some(opened) = self.open_if_exists(relative, flags, "open")? else {
            return Ok(None);
        };
        self.check_regular(&opened, relative)?;
        Ok(Some(opened.into()))
    }

    /// The state of a regular file, which is not opened for reading; `None` if it does not exist.
    pub(super) fn stat(&self, relative: &Path) -> Result<Option<Stat>, Error> {
        let Some(found) = self.open_if_exists(relative, OFlags::PATH, "stat")? else {
            return Ok(None);
        };
        self.check_regular(&found, relative).map(Some)
    }

    /// The state of an open file. Fails if it is not a regular file.
    fn check_regular(&self, file: &OwnedFd, relative: &Path) -> Result<Stat, Error> {
        let found = fstat(file).map_err(self.fail("stat", relative))?;
        if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile {
            return Ok(found);
        }
        let foreign = io::Error::other("it is not a regular file");
        Err(Error::io("use", &self.path.join(relative))(foreign))
    }

    /// Reads up to `max_len` bytes of a small file; `None` if it does not exist.
    pub(super) fn read(&self, relative: &Path, max_len: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some(file) = self.file(relative)? else {
            return Ok(None);
        };
        let mut content = Vec::new();
        file.take(max_len)
            .read_to_end(&mut content)
            .map_err(Error::io("read", &self.path.join(relative)))?;
        Ok(Some(content))
    }

    /// A failed operation on something below the blob directory.
    pub(super) fn fail(
        &self,
        action: &str,
        relative: &Path,
    ) -> impl FnOnce(Errno) -> Error + use<> {
        let fail = Error::io(action.to_owned(), &self.path.join(relative));
        move |error| {
            fail(match error {
                Errno::LOOP => io::Error::other("a part of the path is a symbolic link"),
                error => error.into(),
            })
        }
    }
}

/// Opens a name in a directory. An interruption by a signal is not an error.
pub(super) fn open_in(
    directory: impl AsFd,
    name: impl Arg + Copy,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    retry_on_intr(|| openat(&directory, name, flags, mode))
}

/// Makes a file or directory durable. An interruption by a signal is not an error.
pub(super) fn sync_handle(handle: impl AsFd) -> rustix::io::Result<()> {
    retry_on_intr(|| fsync(&handle))
}

/// The entries of a directory.
pub(super) fn entries(directory: impl AsFd) -> rustix::io::Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Dir::new(open_in(directory, ".", flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn small_files_below_the_root_are_read() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("a/b")).unwrap();
        fs::write(directory.path().join("a/b/c"), "content").unwrap();
        let tree = Tree::open(directory.path()).unwrap();
        assert_eq!(tree.read(Path::new("a/b/c"), 3).unwrap().unwrap(), b"con");
        assert!(tree.stat(Path::new("a/b/d")).unwrap().is_none());
    }

    #[test]
    fn a_symbolic_link_is_named_in_the_error() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir_all(root.join("a")).unwrap();
        symlink(directory.path(), root.join("a/up")).unwrap();
        symlink("../../secret", root.join("a/file")).unwrap();
        let tree = Tree::open(&root).unwrap();
        for path in ["a/up/secret", "a/file"] {
            let error = tree.stat(Path::new(path)).unwrap_err().display_chain();
            assert!(error.contains(path), "{error}");
        }
    }

    #[test]
    fn only_regular_files_are_used() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("directory")).unwrap();
        let fifo = directory.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let tree = Tree::open(directory.path()).unwrap();
        for name in ["directory", "fifo"] {
            for error in [
                tree.stat(Path::new(name)).unwrap_err(),
                tree.file(Path::new(name)).unwrap_err(),
            ] {
                let error = error.display_chain();
                assert!(error.ends_with("it is not a regular file"), "{error}");
                assert!(error.contains(name), "{error}");
            }
        }
    }

    #[test]
    fn a_directory_that_was_replaced_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir(&root).unwrap();
        let tree = Tree::open(&root).unwrap();
        tree.check_in_place().unwrap();
        fs::rename(&root, directory.path().join("elsewhere")).unwrap();
        assert!(tree.check_in_place().is_err());
        fs::create_dir(&root).unwrap();
        let error = tree.check_in_place().unwrap_err();
        assert!(matches!(error, Error::BlobsMoved { .. }), "{error}");
    }
}
