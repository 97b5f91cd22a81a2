//! Opening a file by its name, as it is now.
//!
//! The directory is opened before the file in it, because an NFS client
//! revalidates what it opens, not what it passes through on the way: tried on
//! NFS 4.2 and 3 (Linux 6.1), a plain open went on giving the old file for 30 s
//! after a pack.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;

use crate::filestorage::DATA_FS;

/// Without NONBLOCK, the open of a FIFO waits for a writer.
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::DIRECTORY);

/// A name, and how far it is trusted.
#[derive(Clone, Debug)]
pub enum Name {
    /// Any path; links are followed.
    Trusted(PathBuf),
    /// A path below a trusted directory, which it must not leave: not by `..`,
    /// and not by a link.
    Beneath {
        /// The directory.
        root: PathBuf,
        /// The path below it.
        below: PathBuf,
    },
}

impl From<PathBuf> for Name {
    /// A path that somebody typed is trusted.
    fn from(path: PathBuf) -> Self {
        Self::Trusted(path)
    }
}

impl Name {
    /// Opens the file for reading, or the `Data.fs` in it where it is a
    /// directory.
    pub fn open(&self) -> io::Result<File> {
        match self {
            Self::Trusted(path) => open_trusted(path),
            Self::Beneath { root, below } => {
                let root = openat(CWD, fs::canonicalize(root)?, DIRECTORY, Mode::empty())?;
                open_beneath(&root, below).map_err(|error| match error {
                    Errno::XDEV | Errno::LOOP => io::Error::new(
                        ErrorKind::PermissionDenied,
                        "leads out of what is served, or through too many links",
                    ),
                    error => error.into(),
                })
            }
        }
    }

    /// What messages call it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Trusted(path) => path.clone(),
            Self::Beneath { root, below } => root.join(below),
        }
    }
}

fn open_trusted(path: &Path) -> io::Result<File> {
    let mut path = fs::canonicalize(path)?;
    if path.is_dir() {
        path = fs::canonicalize(path.join(DATA_FS))?;
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(ErrorKind::IsADirectory.into());
    };
    let directory = openat(CWD, parent, DIRECTORY, Mode::empty())?;
    let file = openat(&directory, name, FILE | OFlags::NOFOLLOW, Mode::empty())?;
    Ok(file.into())
}

fn open_beneath(root: &OwnedFd, below: &Path) -> Result<File, Errno> {
    let open = |path: &Path, flags| {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        openat2(root, path, flags, Mode::empty(), resolve)
    };
    if let Some(parent) = below.parent() {
        open(parent, DIRECTORY)?;
    }
    let found = open(below, FILE)?;
    let is_directory = rustix::fs::FileType::from_raw_mode(fstat(&found)?.st_mode).is_dir();
    if !is_directory {
        return Ok(found.into());
    }
    Ok(open(&below.join(DATA_FS), FILE)?.into())
}
