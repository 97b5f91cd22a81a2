//! A full copy: written beside the slave, then put in its place.
//!
//! The order, and what a crash leaves:
//!
//! 1. The copy is written to `Data.fs.fssync-tmp` and synced. A crash leaves
//!    the old slave and a file that the next full copy removes.
//! 2. In a step: where the old slave must be kept, it is linked to its second
//!    name; the index is unlinked. Then the directory is synced. A crash leaves
//!    the old slave, perhaps under two names and without an index, which ZODB
//!    makes again.
//! 3. In a step: the index is unlinked once more, should a ZODB have come and
//!    gone and saved it; the copy is renamed over the slave. Then the directory
//!    is synced. A crash leaves the old slave or the new one, whole, and never
//!    neither: an instant without `Data.fs` would make a ZEO with a blob
//!    directory delete its blobs.
//!
//! No index is ever beside a file that it was not made from: the old one's is
//! durably gone before the new one comes. The old slave's transactions are in
//! the new one, or durably under the second name before the first one goes
//! (Law 2).

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::place::Beside;
use super::step::{Seen, Slave};
use crate::filestorage::Tid;
use crate::flush::Flusher;
use crate::stop::Stop;

/// A full copy under way. Unless it is [installed](Self::install), it is
/// removed.
#[derive(Debug)]
pub struct Replacement<'a> {
    slave: &'a Slave,
    path: PathBuf,
    file: File,
    written: u64,
    flusher: Flusher,
    installed: bool,
}

impl<'a> Replacement<'a> {
    /// Makes room for a copy of `size` bytes, and begins it. Where there is no
    /// slave to take the mode from, `master_mode` is the copy's.
    pub fn create(slave: &'a Slave, size: u64, master_mode: u32) -> Result<Self, Stop> {
        // Better now than after hours of copying.
        drop(slave.step()?);
        let path = slave.place.beside(Beside::Tmp);
        remove(&path)?;
        check_space(slave.place.directory(), size)?;
        let owner = match slave.seen()? {
            Some(_) => slave.owner,
            None => slave.owner.with_mode(master_mode),
        };
        let file = owner.create_new(&path)?;
        Ok(Self {
            slave,
            path,
            file,
            written: 0,
            flusher: Flusher::default(),
            installed: false,
        })
    }

    /// The copy, for reading.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes the next bytes, unless syncing was switched off meanwhile.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.slave.check_may_go_on()?;
        let at = self.written;
        self.file
            .write_all_at(bytes, at)
            .map_err(Stop::io(format!("write at {at} in"), &self.path))?;
        self.written += bytes.len() as u64;
        self.flusher
            .written(&self.file, bytes.len() as u64)
            .map_err(Stop::io("sync", &self.path))
    }

    /// Ends the copy at `position` and makes it durable.
    pub fn settle(&mut self, position: u64) -> Result<(), Stop> {
        self.file
            .set_len(position)
            .map_err(Stop::io("cut", &self.path))?;
        self.flusher
            .finish(&self.file)
            .and_then(|()| self.file.sync_all())
            .map_err(Stop::io("sync", &self.path))
    }

    /// Puts the copy, which must be settled, in the place of what was seen
    /// there. Returns it, open.
    pub fn install(mut self, old: Option<Seen>) -> Result<File, Stop> {
        let place = &self.slave.place;
        let step = self.slave.step()?;
        step.check_unchanged(old)?;
        remove(&place.beside(Beside::ZodbIndex))?;
        drop(step);
        place.sync_directory()?;
        let step = self.slave.step()?;
        step.check_unchanged(old)?;
        remove(&place.beside(Beside::ZodbIndex))?;
        fs::rename(&self.path, place.data()).map_err(Stop::io("rename", &self.path))?;
        self.installed = true;
        drop(step);
        place.sync_directory()?;
        self.file
            .try_clone()
            .map_err(Stop::io("keep open", place.data()))
    }
}

impl Drop for Replacement<'_> {
    fn drop(&mut self) {
        if !self.installed
            && let Err(stop) = remove(&self.path)
        {
            tracing::warn!("{}", stop.in_one_line());
        }
    }
}

/// Removes what a full copy left that was killed.
pub fn clean_up(slave: &Slave) -> Result<(), Stop> {
    remove(&slave.place.beside(Beside::Tmp))
}

/// Gives the slave, still what was seen, a second name that says what it is.
/// Returns the name.
pub fn set_aside(slave: &Slave, old: Seen, last_tid: Option<Tid>) -> Result<PathBuf, Stop> {
    let step = slave.step()?;
    step.check_unchanged(Some(old))?;
    let mut n = 0;
    loop {
        let name = slave.place.diverged(last_tid, n);
        match fs::hard_link(slave.place.data(), &name) {
            Ok(()) => return Ok(name),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if is_same(&name, old).map_err(Stop::io("look at", &name))? {
                    return Ok(name);
                }
                n += 1;
            }
            Err(error) => return Err(Stop::io("set the slave aside as", &name)(error)),
        }
    }
}

/// Whether a name leads to the file that was seen: a pass that was killed had
/// linked it.
fn is_same(name: &Path, seen: Seen) -> io::Result<bool> {
    let found = fs::symlink_metadata(name)?;
    Ok((found.dev(), found.ino()) == (seen.file.device, seen.file.inode))
}

fn remove(path: &Path) -> Result<(), Stop> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Stop::io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn check_space(directory: &Path, needed: u64) -> Result<(), Stop> {
    let found = rustix::fs::statvfs(directory)
        .map_err(|error| Stop::io("look at", directory)(error.into()))?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if free < needed {
        return Err(Stop::NoSpace {
            directory: directory.to_owned(),
            free,
            needed,
        });
    }
    Ok(())
}
