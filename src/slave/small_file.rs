//! Files that may be missing, and the atomic replacement of small ones.
//!
//! A small file (the sidecar, the result of a verification, a switch) is replaced in three
//! steps:
//!
//! 1. A file of the same name that an earlier process left is removed.
//! 2. The content is written to a new file, which has the slave's owner and mode.
//! 3. The new file is renamed over the old one.
//!
//! A reader therefore finds the old content or the new content. Nothing is synced: after a
//! power cut the file may have either content, or be empty, so its readers must accept that.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use super::owner::Owner;
use super::paths::{self, OpenMode, Sibling, SlavePaths};
use crate::error::Error;

/// Opens a file as [`paths::open`] does; `None` if there is no such file.
pub fn open_if_exists(path: &Path, mode: OpenMode) -> Result<Option<File>, Error> {
    if_exists(paths::open(path, mode)).map_err(Error::io("open", path))
}

/// Returns the metadata of a file, without following a symbolic link; `None` if there is no
/// such file.
pub fn stat_if_exists(path: &Path) -> Result<Option<Metadata>, Error> {
    if_exists(fs::symlink_metadata(path)).map_err(Error::io("stat", path))
}

/// Removes a file; returns whether there was one.
pub fn remove_if_exists(path: &Path) -> Result<bool, Error> {
    let removed = if_exists(fs::remove_file(path)).map_err(Error::io("remove", path))?;
    Ok(removed.is_some())
}

/// Reads up to `max_len` bytes of a file; `None` if there is no such file.
pub(crate) fn read_if_exists(path: &Path, max_len: u64) -> Result<Option<Vec<u8>>, Error> {
    let read = || -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        let file = paths::open(path, OpenMode::Read)?;
        file.take(max_len).read_to_end(&mut content)?;
        Ok(content)
    };
    if_exists(read()).map_err(Error::io("read", path))
}

/// Replaces the file `to` with one that has this content, through the name `new`. Returns the
/// open file. If it fails, no new file stays.
pub(crate) fn replace_small_file(
    paths: &SlavePaths,
    new: Sibling,
    to: &Path,
    content: &[u8],
) -> Result<File, Error> {
    let new = paths.sibling(new);
    remove_if_exists(&new)?;
    let mut file = Owner::of(paths)?.create_new(&new)?;
    let replaced = file
        .write_all(content)
        .map_err(Error::io("write", &new))
        .and_then(|()| fs::rename(&new, to).map_err(Error::io("rename", &new)));
    if let Err(error) = replaced {
        // A failure to remove the file would hide the first error.
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    Ok(file)
}

/// Turns the error for a missing file into `None`.
fn if_exists<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
