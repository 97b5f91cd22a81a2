//! Decides whether a path that was given for the slave is a directory or a file.
//!
//! The difficult case is a path that does not exist. If the slave's file system is not
//! mounted, its directory is missing. A pass that mistook the name of the directory for that
//! of a new file would copy the whole master to the wrong file system.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

use super::{Sibling, found, with_suffix};
use crate::error::Error;
use crate::filestorage::DATA_FS;

/// The kind of a path, and the reason for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathKind {
    /// An existing directory.
    Directory,
    /// An existing file, or one that a sidecar shows to have existed.
    File,
    /// A file that does not exist yet: the name ends in `.fs`.
    NewFile,
    /// A path that does not exist and has the master's file name. It is a file only if the
    /// master is one.
    MasterName,
}

/// Returns the kind of a path; `None` if the path does not exist and only the master can
/// decide.
pub(super) fn path_kind(given: &Path) -> Result<Option<PathKind>, Error> {
    let existing = match fs::metadata(given) {
        // A circle of symbolic links, which is refused later as a symbolic link.
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            return Ok(Some(PathKind::File));
        }
        result => found(given, result)?,
    };
    Ok(match existing {
        Some(found) if found.is_dir() => Some(PathKind::Directory),
        _ if ends_like_a_directory(given) => return Err(not_found(given)),
        Some(_) => Some(PathKind::File),
        None => {
            let link = found(given, fs::symlink_metadata(given))?;
            if link.is_some_and(|link| link.is_symlink()) {
                return Err(Error::Usage(format!(
                    "{} is a symbolic link to a file that does not exist: mount the file system \
                     that it points to, or name the file",
                    given.display()
                )));
            }
            let is_file = given.as_os_str().as_bytes().ends_with(b".fs");
            is_file.then_some(PathKind::NewFile)
        }
    })
}

/// Whether a path can only be that of a directory: it ends in `/`, `/.` or `/..`.
fn ends_like_a_directory(given: &Path) -> bool {
    let last = given
        .as_os_str()
        .as_bytes()
        .rsplit(|&byte| byte == b'/')
        .next();
    matches!(last, Some(b"" | b"." | b"..")) && !given.as_os_str().is_empty()
}

/// The error for a path that is neither a directory nor a file.
pub(super) fn not_found(given: &Path) -> Error {
    let name = given.display();
    let file = given.join(DATA_FS);
    Error::Usage(format!(
        "{name} is not a directory, and its name does not end in .fs: create the directory (or \
         mount its file system), or name a file, such as {}",
        file.display()
    ))
}

/// The usual paths of `Data.fs` in a site, relative to directories that users give by mistake.
const USUAL_PATHS: [&str; 2] = ["filestorage/Data.fs", "var/filestorage/Data.fs"];

/// Refuses a directory that contains the directory of a slave, and no slave itself. Otherwise a
/// pass would create a second copy there, and `fssync off` would not switch the real one off.
pub(super) fn check_is_not_around(directory: &Path) -> Result<(), Error> {
    let own = directory.join(DATA_FS);
    let exists = |path: &Path| path.symlink_metadata().is_ok();
    if exists(&own) || exists(&with_suffix(&own, Sibling::Sidecar.suffix())) {
        return Ok(());
    }
    let mut usual = USUAL_PATHS.iter().map(|path| directory.join(path));
    match usual.find(|path| exists(path)) {
        None => Ok(()),
        Some(file) => {
            let (own, file) = (own.display(), file.display());
            let why = format!("there is no {own}, but {file}: name its directory, or the file");
            Err(Error::Usage(why))
        }
    }
}
