//! Opens the file that a name leads to at this moment.
//!
//! Every directory is opened before a name in it is looked up, also when a symbolic link is
//! followed. The reason is NFS: its client revalidates a directory that is opened, but not
//! one that is only passed on the way. With a plain open on NFS 4.2 and 3 (Linux 6.1), we saw
//! the old file for 30 s after a pack, and a missing file for just as long after it had been
//! missing for an instant.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat,
    statat,
};
use rustix::io::{Errno, retry_on_intr};

use super::{DirectoryEntry, EntryKind, MAX_ENTRIES};
use crate::filestorage::DATA_FS;

/// Flags for a file. Without NONBLOCK, opening a FIFO waits for a writer.
pub(super) const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

/// Flags for a directory.
pub(super) const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::DIRECTORY);

/// The maximum number of symbolic links to follow, the same as in the kernel.
const MAX_LINKS: u32 = 40;

/// The usual paths of `Data.fs` in a site, relative to directories that users give by mistake.
const USUAL_PATHS: [&str; 2] = ["filestorage/Data.fs", "var/filestorage/Data.fs"];

/// The name of a file, and the directories that it may lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// Any path. Symbolic links are followed.
    Trusted(PathBuf),
    /// A path below a trusted directory. It must not leave that directory, neither by `..`
    /// nor by a symbolic link.
    Beneath {
        /// The trusted directory.
        root: PathBuf,
        /// The path relative to it.
        relative_path: PathBuf,
    },
}

impl From<PathBuf> for Name {
    /// Paths from the command line are trusted.
    fn from(path: PathBuf) -> Self {
        Self::Trusted(path)
    }
}

/// A file that was opened by its name.
#[derive(Debug)]
pub struct OpenedFile {
    /// The file, open for reading.
    pub file: File,
    /// Whether the name was the name of a directory, and the file is the `Data.fs` in it.
    pub is_in_directory: bool,
}

impl Name {
    /// Opens the file for reading. If it is a directory, opens the `Data.fs` in it.
    pub fn open(&self) -> io::Result<OpenedFile> {
        match self {
            Self::Trusted(path) => open_trusted(path),
            Self::Beneath {
                root,
                relative_path,
            } => {
                let root = open_in(CWD, fs::canonicalize(root)?, DIRECTORY)?;
                open_beneath(&root, relative_path).map_err(beneath_error)
            }
        }
    }

    /// Opens the directory with this name.
    pub fn open_directory(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Trusted(path) => {
                // Revalidate the parent: see the module's comment. If this fails, so does the
                // next call, with a better error.
                if let Some(parent) = path.parent() {
                    let _ = open_in(CWD, parent, DIRECTORY);
                }
                Ok(open_in(CWD, path, DIRECTORY)?)
            }
            Self::Beneath {
                root,
                relative_path,
            } => {
                let root = open_in(CWD, fs::canonicalize(root)?, DIRECTORY)?;
                open_at(&root, relative_path, DIRECTORY).map_err(beneath_error)
            }
        }
    }

    /// The name of a file in the directory of this file, or below it. Fails if the relative
    /// path contains `..` or is absolute.
    pub fn beside(&self, relative_path: &Path) -> io::Result<Self> {
        let is_plain = |part| matches!(part, Component::Normal(_));
        if !relative_path.components().all(is_plain) {
            return Err(ErrorKind::PermissionDenied.into());
        }
        Ok(match self {
            Self::Trusted(path) => {
                let path = fs::canonicalize(path)?;
                let root = if path.is_dir() {
                    Some(&*path)
                } else {
                    path.parent()
                };
                Self::Beneath {
                    root: root.ok_or(ErrorKind::NotFound)?.to_owned(),
                    relative_path: relative_path.to_owned(),
                }
            }
            Self::Beneath {
                root,
                relative_path: own,
            } => {
                let directory = if root.join(own).is_dir() {
                    Some(&**own)
                } else {
                    own.parent()
                };
                Self::Beneath {
                    root: root.clone(),
                    relative_path: directory.ok_or(ErrorKind::NotFound)?.join(relative_path),
                }
            }
        })
    }

    /// Lists the directory with this name: up to [`MAX_ENTRIES`] entries whose names sort
    /// `after` the given one, in order.
    pub(super) fn list(&self, after: Option<&str>) -> io::Result<Vec<DirectoryEntry>> {
        let Self::Beneath {
            root,
            relative_path,
        } = self
        else {
            return Err(ErrorKind::PermissionDenied.into());
        };
        let root = open_in(CWD, fs::canonicalize(root)?, DIRECTORY)?;
        let directory = open_at(&root, relative_path, DIRECTORY)?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if matches!(name, "." | "..") || after.is_some_and(|after| name <= after) {
                continue;
            }
            // A file that was removed in the meantime is left out.
            if let Ok(found) = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                entries.push(DirectoryEntry {
                    name: name.to_owned(),
                    kind: match FileType::from_raw_mode(found.st_mode) {
                        FileType::RegularFile => EntryKind::File,
                        FileType::Directory => EntryKind::Directory,
                        _ => EntryKind::Other,
                    },
                    size: found.st_size.cast_unsigned(),
                });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries.truncate(MAX_ENTRIES);
        Ok(entries)
    }

    /// The path of the file itself, without symbolic links.
    pub fn resolve(&self) -> io::Result<PathBuf> {
        resolve(&self.path())
    }

    /// Returns the path of the file that could not be opened, which for a directory is the
    /// `Data.fs` in it, and the error. If that `Data.fs` is missing but exists at one of the
    /// usual paths of Plone and Zope, the error mentions that path. Does not search if the
    /// name leads out of the served directory.
    #[must_use]
    pub fn explain(&self, error: io::Error) -> (PathBuf, io::Error) {
        let path = self.path();
        let leads_out = error.raw_os_error().is_none();
        if leads_out || !path.is_dir() {
            return (path, error);
        }
        let mut usual = USUAL_PATHS
            .iter()
            .map(|relative_path| path.join(relative_path));
        let there = usual.find(|file| error.kind() == ErrorKind::NotFound && file.is_file());
        let error = match there {
            Some(file) => {
                let file = file.display();
                let why = format!("{error}; there is {file}: name that as the master");
                io::Error::new(error.kind(), why)
            }
            None => error,
        };
        (path.join(DATA_FS), error)
    }

    /// The path, for messages.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Trusted(path) => path.clone(),
            Self::Beneath {
                root,
                relative_path,
            } => root.join(relative_path),
        }
    }
}

/// The path without symbolic links. For a directory, the path of the `Data.fs` in it.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let path = fs::canonicalize(path)?;
    if path.is_dir() {
        fs::canonicalize(path.join(DATA_FS))
    } else {
        Ok(path)
    }
}

fn open_in(directory: impl AsFd, path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd, Errno> {
    retry_on_intr(|| openat(&directory, path.as_ref(), flags, Mode::empty()))
}

/// Opens a file by any path. Follows symbolic links one by one, so that the directory of each
/// target is opened, and thus revalidated, before the target is looked up.
fn open_trusted(path: &Path) -> io::Result<OpenedFile> {
    let mut path = path.to_owned();
    for _ in 0..=MAX_LINKS {
        let (directory, parent, name) = open_directory_of(&path)?;
        let is_in_directory = parent == path;
        match open_in(&directory, name, FILE | OFlags::NOFOLLOW) {
            Err(Errno::LOOP) => {
                let target = readlinkat(&directory, name, Vec::new())?;
                path = parent.join(OsStr::from_bytes(target.as_bytes()));
            }
            opened => {
                let file = opened?.into();
                return Ok(OpenedFile {
                    file,
                    is_in_directory,
                });
            }
        }
    }
    Err(Errno::LOOP.into())
}

/// Opens the directory of a file. Returns the directory, its path and the name of the file in
/// it. A path that leads to a directory stands for the `Data.fs` in it.
fn open_directory_of(path: &Path) -> Result<(OwnedFd, &Path, &OsStr), Errno> {
    let open = |path| open_in(CWD, path, DIRECTORY);
    match open(path) {
        Ok(directory) => return Ok((directory, path, DATA_FS.as_ref())),
        Err(Errno::NOTDIR | Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    let name = path.file_name().ok_or(Errno::NOENT)?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Ok((open(parent)?, parent, name))
}

/// Opens a file below `root`, or the `Data.fs` in it if it is a directory.
fn open_beneath(root: &OwnedFd, relative_path: &Path) -> Result<OpenedFile, Errno> {
    // Revalidate the directory: see the module's comment.
    if let Some(parent) = relative_path.parent() {
        open_at(root, parent, DIRECTORY)?;
    }
    let found = open_at(root, relative_path, FILE)?;
    let is_in_directory = FileType::from_raw_mode(fstat(&found)?.st_mode).is_dir();
    let file = if is_in_directory {
        open_at(root, &relative_path.join(DATA_FS), FILE)?
    } else {
        found
    };
    Ok(OpenedFile {
        file: file.into(),
        is_in_directory,
    })
}

/// The error of a path below a served directory.
fn beneath_error(error: Errno) -> io::Error {
    match error {
        Errno::XDEV | Errno::LOOP => io::Error::new(
            ErrorKind::PermissionDenied,
            "leads out of the served directory, or through too many symbolic links",
        ),
        error => error.into(),
    }
}

/// Opens a path relative to `root`. The kernel refuses a path that leaves `root`.
fn open_at(root: &OwnedFd, relative_path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let path = if relative_path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        relative_path
    };
    retry_on_intr(|| openat2(root, path, flags, Mode::empty(), resolve))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_leads_to_a_file_or_to_the_data_fs_of_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("site/var")).unwrap();
        fs::write(at("site/var/Data.fs"), "FS30").unwrap();
        symlink("var/Data.fs", at("site/file")).unwrap();
        symlink("../var/../file", at("site/var/up")).unwrap();
        symlink(at("site/var"), at("directory")).unwrap();
        symlink("circle", at("circle")).unwrap();
        for (name, is_directory) in [
            ("site/var", true),
            ("site/var/Data.fs", false),
            ("site/file", false),
            ("site/var/up", false),
            ("directory", true),
        ] {
            let mut text = String::new();
            let mut opened = open_trusted(&at(name)).unwrap();
            opened.file.read_to_string(&mut text).unwrap();
            assert_eq!(
                (&*text, opened.is_in_directory),
                ("FS30", is_directory),
                "{name}"
            );
        }
        let circle = open_trusted(&at("circle")).unwrap_err();
        assert_eq!(circle.raw_os_error(), Some(Errno::LOOP.raw_os_error()));
        for name in ["site", "nothing", "site/var/nothing"] {
            let missing = open_trusted(&at(name)).unwrap_err();
            assert_eq!(missing.kind(), ErrorKind::NotFound, "{name}");
        }
    }
}
