//! Tries the operations of the slave's file system on which fssync relies: `flock`, hard links
//! and renames over an existing file.
//!
//! The two files of the probe exist for a moment. They are removed even if an operation fails;
//! files that a killed probe has left are removed by the next one. As in a step, nothing is
//! written while syncing is off: the step lock is held, if passes have created it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::paths::Sibling;
use super::small_file::remove_if_exists;
use super::step::Slave;
use crate::error::Error;

/// Probes the file system of a slave. Fails with [`Error::Off`] if syncing is off, and with
/// [`Error::Io`], which names the operation, if one does not work.
pub fn probe(slave: &Slave) -> Result<(), Error> {
    let paths = &slave.paths;
    paths.check_is_mounted()?;
    // To take the lock would create its file, which stays.
    let has_lock = paths.sibling(Sibling::StepLock).exists();
    let _lock = has_lock.then(|| slave.block_steps()).transpose()?;
    slave.switches.check()?;
    let [first, second] = [Sibling::Probe, Sibling::ProbeNew].map(|it| paths.sibling(it));
    let remove = || [&first, &second].map(|path| remove_if_exists(path));
    for removed in remove() {
        removed?;
    }
    let probed = try_operations(&first, &second);
    for removed in remove() {
        removed?;
    }
    probed
}

fn try_operations(first: &Path, second: &Path) -> Result<(), Error> {
    let file = create(first)?;
    lock(&file, first).map_err(Error::io("lock", first))?;
    fs::hard_link(first, second).map_err(Error::io("create a hard link to", first))?;
    fs::remove_file(second).map_err(Error::io("remove", second))?;
    create(second)?;
    fs::rename(second, first).map_err(Error::io("rename a file over", first))
}

fn create(path: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    options.open(path).map_err(Error::io("create", path))
}

/// Locks a file. Fails if a second handle can be locked at the same time.
fn lock(file: &File, path: &Path) -> io::Result<()> {
    flock(file, FlockOperation::NonBlockingLockExclusive)?;
    // NFS grants an exclusive lock only to a handle that can write.
    let other = OpenOptions::new().write(true).open(path)?;
    match flock(&other, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(()) => Err(io::Error::new(
            ErrorKind::Unsupported,
            "two handles can be locked at once",
        )),
    }
}

#[cfg(test)]
mod tests;
