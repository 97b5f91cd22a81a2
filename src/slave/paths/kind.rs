//! What a path that was given for the slave is the name of: a directory, or a file.
//!
//! A path that leads to nothing is the difficult case. If the slave's file system is not
//! mounted, its directory is missing, and a pass that took the directory's name for that
//! of a new file would copy the whole master beside the mount point.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

use super::found;
use crate::error::Error;
use crate::filestorage::DATA_FS;

/// What made a path the name of a directory or of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathKind {
    /// It is a directory.
    Directory,
    /// It is a file.
    File,
    /// There is nothing, and the name ends in `.fs`.
    NewFile,
    /// There is nothing, and the name is the master's: a file's only if the master is one.
    MasterName,
}

/// What a path is the name of, if that can be told without the master.
pub(super) fn path_kind(given: &Path) -> Result<Option<PathKind>, Error> {
    let looked = match fs::metadata(given) {
        // Links in a circle, which are refused later.
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            return Ok(Some(PathKind::File));
        }
        looked => found(given, looked)?,
    };
    Ok(match looked {
        Some(found) if found.is_dir() => Some(PathKind::Directory),
        _ if ends_like_a_directory(given) => return Err(not_found(given)),
        Some(_) => Some(PathKind::File),
        None => {
            let link = found(given, fs::symlink_metadata(given))?;
            if link.is_some_and(|link| link.is_symlink()) {
                return Err(Error::Usage(format!(
                    "{} is a symbolic link to nothing: mount the file system that it leads \
                     to, or name the file",
                    given.display()
                )));
            }
            let is_file = given.as_os_str().as_bytes().ends_with(b".fs");
            is_file.then_some(PathKind::NewFile)
        }
    })
}

/// Whether a path can only be a directory's: it ends in `/`, `/.` or `/..`.
fn ends_like_a_directory(given: &Path) -> bool {
    let last = given
        .as_os_str()
        .as_bytes()
        .rsplit(|&byte| byte == b'/')
        .next();
    matches!(last, Some(b"" | b"." | b"..")) && !given.as_os_str().is_empty()
}

pub(super) fn not_found(given: &Path) -> Error {
    let name = given.display();
    let file = given.join(DATA_FS);
    Error::Usage(format!(
        "{name} is not a directory, and not a file's name that ends in .fs: create the \
         directory (mount its file system, if it has one), or name the file, such as {}",
        file.display()
    ))
}
