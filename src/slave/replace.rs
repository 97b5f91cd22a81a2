//! A full copy: written beside the slave, then put in its place.
//!
//! The order, and what a crash leaves:
//!
//! 1. The copy is written to `Data.fs.fssync-tmp` and synced. A crash, a signal, and a
//!    master that gets out of reach leave the old slave and a part of a copy,
//!    which the next full copy takes up if it proves to be the master's, and any
//!    other pass removes.
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
//! No index of ours is ever beside a file that it was not made from: the old one's
//! is durably gone before the new one comes, and the new one's is stored
//! ([`index`](super::index)) once the new one is in its place. ZODB lets its lock go
//! before it saves its index: one that closes just then may put the old one's
//! beside the new slave after 3. It is not the one that was stored, so the next pass
//! removes it. The old slave's transactions are in
//! the new one, or durably under the second name before the first one goes
//! (Law 2).

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::ledger::{LedgerEntry, SegmentHasher};
use super::owner::Owner;
use super::paths::Sibling;
use super::protection;
use super::space;
use super::step::Slave;
use crate::error::Error;
use crate::filestorage::Tid;
use crate::io::file_stat::FileStat;
use crate::io::flush::Flusher;

/// A full copy under way.
#[derive(Debug)]
pub struct Replacement<'a> {
    slave: &'a Slave,
    path: PathBuf,
    file: File,
    written: u64,
    /// The digests of what was written.
    segment_hasher: SegmentHasher,
    flusher: Flusher,
    /// The attributes that it does not get of the slave that it is to replace, and why.
    lost: Vec<String>,
}

impl<'a> Replacement<'a> {
    /// Makes room for a copy of `size` bytes, and begins it, or takes up the one
    /// that an earlier pass left. Where there is no slave to take the mode from,
    /// `master_mode` is the copy's.
    pub fn open(slave: &'a Slave, size: u64, master_mode: u32) -> Result<Self, Error> {
        // Better now than after hours of copying.
        drop(slave.step()?);
        protection::check_directory(&slave.paths)?;
        let path = slave.paths.sibling(Sibling::Tmp);
        let owner = Owner::of(&slave.paths)?;
        let owner = match slave.stat()? {
            Some(_) => owner,
            // ZODB opens it for writing, whatever the master's mode.
            None => owner.with_mode(master_mode | 0o600),
        };
        let file = owner.open_or_create(&path)?;
        let mut copy = Self {
            slave,
            path,
            file,
            written: 0,
            segment_hasher: SegmentHasher::new(0),
            flusher: Flusher::default(),
            lost: Vec::new(),
        };
        match copy.prepare(&owner, size) {
            Ok(()) => Ok(copy),
            Err(error) => {
                copy.discard();
                Err(error)
            }
        }
    }

    /// Takes over what there is of it, if the rest fits beside.
    fn prepare(&mut self, owner: &Owner, size: u64) -> Result<(), Error> {
        self.lost = owner.own(&self.file, &self.path)?;
        let found = self.file.metadata();
        self.written = found.map_err(Error::io("look at", &self.path))?.len();
        space::check_copy(&self.slave.paths, size, self.written)
    }

    /// A warning, if the copy does not get all of the extended attributes that the slave
    /// has which it is to replace.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        if self.lost.is_empty() {
            return None;
        }
        let slave = self.slave.paths.data().display();
        let lost = self.lost.join(", ");
        Some(format!(
            "{slave}: the new file lacks an attribute of the old one ({lost}); it grants \
             nobody more access, but perhaps less: set the attribute again"
        ))
    }

    /// How many bytes there are.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Where the copy lies until it is installed.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Forgets what was written from `len` on.
    pub fn truncate(&mut self, len: u64) -> Result<(), Error> {
        self.file
            .set_len(len)
            .map_err(Error::io(format!("cut at {len}"), &self.path))?;
        self.written = len;
        Ok(())
    }

    /// Goes on behind bytes that proved to be the master's.
    pub fn resume(&mut self, proven: Vec<LedgerEntry>) -> Result<(), Error> {
        self.segment_hasher = SegmentHasher::after(proven);
        self.truncate(self.segment_hasher.at())
    }

    /// The digests of what was written.
    pub fn take_digests(&mut self) -> Result<Vec<LedgerEntry>, Error> {
        self.segment_hasher
            .end_at(&self.file, self.written)
            .map_err(Error::io("read back", &self.path))
    }

    /// Removes the copy.
    pub fn discard(self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!("{}", error.display_chain());
        }
    }

    /// The copy, for reading.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes the next bytes, unless syncing was switched off meanwhile.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.slave.check_cancelled()?;
        let at = self.written;
        self.file
            .write_all_at(bytes, at)
            .map_err(Error::io(format!("write at {at} in"), &self.path))?;
        self.written += bytes.len() as u64;
        self.segment_hasher.take(bytes);
        self.flusher
            .written(&self.file, bytes.len() as u64)
            .map_err(Error::io("sync", &self.path))
    }

    /// Starts to make the copy durable; [`sync`](Self::sync) waits for it.
    pub fn start_sync(&mut self) {
        self.flusher.start_to_finish();
    }

    /// Makes the copy durable.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.flusher
            .finish(&self.file)
            .and_then(|()| self.file.sync_all())
            .map_err(Error::io("sync", &self.path))
    }

    /// Puts the copy, which must be settled, in the place of what was seen
    /// there. With `aside`, that is kept under the name of its last tid; returns
    /// the name.
    pub fn install(
        &self,
        old: Option<FileStat>,
        aside: Option<SecondName>,
    ) -> Result<Option<PathBuf>, Error> {
        let paths = &self.slave.paths;
        let step = self.slave.step()?;
        step.check_unchanged(old)?;
        let kept = match (old, aside) {
            (Some(old), Some(aside)) => Some(link_old(self.slave, old, aside)?),
            _ => None,
        };
        let prepared = remove(&paths.sibling(Sibling::ZodbIndex));
        drop(step);
        let renamed = prepared
            .and_then(|()| paths.sync_directory())
            .and_then(|()| self.rename(old));
        if let Err(error) = renamed {
            // Where the slave keeps its place, it needs no second name; where
            // somebody put another file there, this name is all that holds it.
            if let (Some(name), Some(old)) = (&kept, old)
                && is_same_file(paths.data(), old).unwrap_or(false)
            {
                remove(name)?;
            }
            return Err(error);
        }
        paths.sync_directory()?;
        Ok(kept)
    }

    /// The last step of an installation.
    fn rename(&self, old: Option<FileStat>) -> Result<(), Error> {
        let paths = &self.slave.paths;
        let step = self.slave.step()?;
        step.check_unchanged(old)?;
        remove(&paths.sibling(Sibling::ZodbIndex))?;
        let renamed = fs::rename(&self.path, paths.data());
        drop(step);
        renamed.map_err(Error::io("rename", &self.path))
    }
}

/// What the name says under which a slave is kept.
#[derive(Clone, Copy, Debug)]
pub struct SecondName {
    /// Its last tid, as far as it can be read.
    pub last_tid: Option<Tid>,
}

/// Removes what a full copy left that was killed.
pub fn remove_partial_copy(slave: &Slave) -> Result<(), Error> {
    remove(&slave.paths.sibling(Sibling::Tmp))
}

/// Gives the slave, in a step in which it is what was seen, a second name that
/// says what it is. Returns the name.
fn link_old(slave: &Slave, old: FileStat, aside: SecondName) -> Result<PathBuf, Error> {
    let mut n = 0;
    loop {
        let name = slave.paths.diverged(aside.last_tid, n);
        match fs::hard_link(slave.paths.data(), &name) {
            Ok(()) => return Ok(name),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                // A pass that was killed had linked it.
                if is_same_file(&name, old).map_err(Error::io("look at", &name))? {
                    return Ok(name);
                }
                n += 1;
            }
            Err(error) => return Err(Error::io("set the slave aside as", &name)(error)),
        }
    }
}

/// Whether a name leads to the file that was seen.
fn is_same_file(name: &Path, seen: FileStat) -> io::Result<bool> {
    let found = fs::symlink_metadata(name)?;
    Ok(FileStat::of(&found).is_same_file(&seen))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}
