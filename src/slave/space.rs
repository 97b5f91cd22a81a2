//! Checks that there is enough disk space for a write. Only reads.
//!
//! A pass does not start a full copy that does not fit. It appends until the disk is full,
//! because each batch is useful by itself; a dry run and `fssync status` predict the failure.

use std::fs;
use std::path::Path;

use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Resource, getrlimit};

use super::paths::{Sibling, SlavePaths};
use super::step::Slave;
use crate::error::Error;

/// Fails unless there is space for a full copy of `size` bytes, of which `written` bytes are
/// written already.
pub fn check_copy(paths: &SlavePaths, size: u64, written: u64) -> Result<(), Error> {
    check_file_size_limit(&paths.sibling(Sibling::Tmp), size)?;
    check_space(
        paths.directory(),
        "a full copy",
        size.saturating_sub(written),
    )
}

/// The same for the next pass, which may resume an unfinished copy.
pub fn check_next_copy(slave: &Slave, size: u64) -> Result<(), Error> {
    let found = fs::symlink_metadata(slave.paths.sibling(Sibling::Tmp));
    let written = found.map_or(0, |found| found.len());
    check_copy(&slave.paths, size, written)
}

/// Fails unless there is space to set transactions aside in a file of `size` bytes.
pub fn check_set_aside(paths: &SlavePaths, size: u64) -> Result<(), Error> {
    check_file_size_limit(&paths.sibling(Sibling::Tmp), size)?;
    check_space(
        paths.directory(),
        "the transactions that are set aside",
        size,
    )
}

/// Fails unless the slave can grow to `end` bytes.
pub fn check_append(slave: &Slave, end: u64) -> Result<(), Error> {
    let size = slave.stat()?.map_or(0, |seen| seen.size);
    if end <= size {
        return Ok(());
    }
    check_file_size_limit(slave.paths.data(), end)?;
    check_space(slave.paths.directory(), "an append", end - size)
}

/// Fails if the limit of this process for the size of a file is below `size` bytes.
fn check_file_size_limit(path: &Path, size: u64) -> Result<(), Error> {
    let limit = getrlimit(Resource::Fsize).current;
    if limit.is_some_and(|limit| limit < size) {
        let action = format!("write {size} bytes to");
        return Err(Error::io(action, path)(Errno::FBIG.into()));
    }
    Ok(())
}

fn check_space(directory: &Path, what: &'static str, needed: u64) -> Result<(), Error> {
    let found = retry_on_intr(|| rustix::fs::statvfs(directory))
        .map_err(|error| Error::io("stat", directory)(error.into()))?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if free < needed {
        return Err(Error::NoSpace {
            directory: directory.to_owned(),
            what,
            free,
            needed,
        });
    }
    Ok(())
}
