//! Opens a blob directory and reads the small files in it. Its blobs are read by
//! [`BlobReader`](super::reader::BlobReader).

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::{BlobFailure, BlobRoot, BlobsProblem};
use crate::filestorage::blob::names::{FSSYNC_DIRECTORY, ID_FILE};
use crate::filestorage::blob::{LAYOUT_FILE, Layout};
use crate::io::beneath::open_beneath;
use crate::io::read::read_fully;
use crate::source::open::{DIRECTORY, FILE, Name};
use crate::source::{Error, FileSystem, display_chain};

/// The maximum length of the content of a small file, in bytes.
pub(super) const MAX_TEXT_LEN: usize = 200;

/// The maximum length of an unknown layout in a message, in characters.
const MAX_SHOWN_LEN: usize = 40;

/// Why a blob directory, or a file in it, cannot be read.
#[derive(Debug)]
pub(in crate::source) enum BlobsFailure {
    /// The directory cannot be used.
    Problem(BlobsProblem),
    /// An operation failed.
    Io {
        /// The operation.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl BlobsFailure {
    /// The error for the caller of a source, with the name of the master.
    pub(in crate::source) fn of_master(self, name: &str) -> Error {
        match self {
            Self::Problem(problem) => Error::Blobs {
                name: name.to_owned(),
                problem,
            },
            Self::Io {
                action,
                path,
                source,
            } => Error::Io {
                action: action.to_owned(),
                name: path.display().to_string(),
                source,
            },
        }
    }

    /// Whether the directory exists and is not a blob directory, or does not exist.
    pub(super) fn is_not_a_blob_directory(&self) -> bool {
        matches!(
            self,
            Self::Problem(BlobsProblem::Missing { .. } | BlobsProblem::NoLayout { .. })
        )
    }

    /// A failed operation on a file or directory.
    pub(super) fn of(action: &'static str, path: &Path, error: impl Into<io::Error>) -> Self {
        let source: io::Error = error.into();
        // Errors without a number are our own: see `Name::open`.
        let is_denied = Errno::from_io_error(&source).is_some_and(is_denied);
        if is_denied {
            let path = path.display().to_string();
            return Self::Problem(BlobsProblem::Denied { path });
        }
        let path = path.to_owned();
        Self::Io {
            action,
            path,
            source,
        }
    }
}

/// Whether the reader may not read a file.
fn is_denied(error: Errno) -> bool {
    matches!(error, Errno::ACCESS | Errno::PERM)
}

/// The event for a blob file that could not be read, and the cause in words. Fails if the
/// file is not the cause, but a limit of this process or of this machine.
pub(super) fn failure_of_file(
    path: &Path,
    error: io::Error,
) -> Result<(BlobFailure, String), BlobsFailure> {
    let kind = match Errno::from_io_error(&error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => {
            return Err(BlobsFailure::of("open", path, error));
        }
        Some(error) if is_denied(error) => BlobFailure::Denied,
        // An NFS server has removed the file.
        Some(Errno::STALE) => BlobFailure::Changed,
        _ => BlobFailure::Unreadable,
    };
    let path = path.display();
    let why = match kind {
        BlobFailure::Denied => path.to_string(),
        _ => format!("{path}: {}", display_chain(&error)),
    };
    Ok((kind, why))
}

/// An open blob directory.
#[derive(Debug)]
pub(in crate::source) struct BlobDirectory {
    pub(super) path: PathBuf,
    pub(super) root: OwnedFd,
    pub(super) layout: Layout,
}

impl BlobDirectory {
    /// Opens the directory with this name and reads its layout.
    pub(super) fn open(name: &Name) -> Result<Self, BlobsFailure> {
        let path = name.path();
        let directory = path.display().to_string();
        let problem = |problem| Err(BlobsFailure::Problem(problem));
        let root = match name.open_directory() {
            Ok(root) => root,
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT) => return problem(BlobsProblem::Missing { directory }),
                Some(Errno::NOTDIR) => return problem(BlobsProblem::NoLayout { directory }),
                Some(_) => return Err(BlobsFailure::of("open", &path, error)),
                // It leads out of the served directory.
                None => {
                    let directories = vec![directory];
                    return problem(BlobsProblem::NotServed { directories });
                }
            },
        };
        let layout_file = path.join(LAYOUT_FILE);
        let text = read_text(&root, Path::new(LAYOUT_FILE))
            .map_err(|error| BlobsFailure::of("read", &layout_file, error))?;
        let Some(text) = text else {
            return problem(BlobsProblem::NoLayout { directory });
        };
        match Layout::parse(text.as_bytes()) {
            Some(layout) => Ok(Self { path, root, layout }),
            None => problem(BlobsProblem::UnknownLayout {
                directory,
                layout: text.trim().chars().take(MAX_SHOWN_LEN).collect(),
            }),
        }
    }

    /// Opens a directory that had this layout earlier.
    pub(super) fn open_again(name: &Name, layout: Layout) -> Result<Self, BlobsFailure> {
        let directory = name.path().display().to_string();
        let vanished = BlobsFailure::Problem(BlobsProblem::Vanished { directory });
        match Self::open(name) {
            Ok(opened) if opened.layout == layout => Ok(opened),
            Ok(_) | Err(BlobsFailure::Problem(BlobsProblem::UnknownLayout { .. })) => Err(vanished),
            Err(failure) if failure.is_not_a_blob_directory() => Err(vanished),
            Err(failure) => Err(failure),
        }
    }

    /// Describes the directory for the slave.
    pub(super) fn describe(&self) -> Result<BlobRoot, BlobsFailure> {
        let own = self.path.join(FSSYNC_DIRECTORY);
        // The directory is opened first, so that NFS looks it up again: see `source::open`.
        let id = match open_beneath(&self.root, Path::new(FSSYNC_DIRECTORY), DIRECTORY) {
            // A file of this name is not from fssync.
            Err(Errno::NOENT | Errno::NOTDIR) => None,
            Err(error) => return Err(BlobsFailure::of("open", &own, error)),
            Ok(_) => read_text(&self.root, Path::new(ID_FILE))
                .map_err(|error| BlobsFailure::of("read", &self.path.join(ID_FILE), error))?,
        };
        let file_system = FileSystem::of(&self.root)
            .map_err(|error| BlobsFailure::of("stat", &self.path, error))?;
        let directory = self.path.to_str().map(str::to_owned).ok_or_else(|| {
            let why = io::Error::other("its path is not valid UTF-8");
            BlobsFailure::of("use", &self.path, why)
        })?;
        Ok(BlobRoot {
            directory,
            layout: self.layout,
            slave_id: id.map(|id| id.trim().to_owned()),
            file_system: Some(file_system),
        })
    }
}

/// The content of a small regular file, or its start; `None` if there is no such file.
fn read_text(directory: &OwnedFd, name: &Path) -> io::Result<Option<String>> {
    let file: File = match open_beneath(directory, name, FILE) {
        Err(Errno::NOENT) => return Ok(None),
        opened => opened?.into(),
    };
    // Another kind of file, such as a FIFO, is as good as none.
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut text = [0; MAX_TEXT_LEN];
    let len = read_fully(&file, &mut text, 0)?;
    Ok(Some(String::from_utf8_lossy(&text[..len]).into_owned()))
}
