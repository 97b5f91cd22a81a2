//! Replaces the slave with a full copy, which is first written beside it.
//!
//! # Order of writes, and the state after a crash
//!
//! 1. *Copy:* write the copy to `Data.fs.fssync-tmp`; sync it.
//!
//!    *Crash, signal, or unreachable master:* the old slave, and a partial copy. The next full
//!    copy continues it if its bytes prove to be the master's. A pass that makes no full copy
//!    removes it.
//! 2. *Prepare,* in a step: if the old slave must be kept, link it to a second name; remove its
//!    index. Then sync the directory.
//!
//!    *Crash:* the old slave, perhaps with two names or without an index. ZODB rebuilds the index
//!    by a scan.
//! 3. *Rename,* in a step: remove the index again, because a ZODB may have opened and closed
//!    the slave since, and saved an index; rename the copy to `Data.fs`. Then sync the directory.
//!
//!    *Crash:* the old slave or the new one, complete. `Data.fs` exists at every instant: if it
//!    was missing for a moment, a ZEO with a blob directory would create an empty database and
//!    delete its blobs.
//!
//!    *Killed before the last sync:* the new name is not durable yet. The sidecar does not describe
//!    the new slave, so the next pass syncs the directory first.
//!
//! # Why no transaction is lost (Law 2)
//!
//! Each transaction of the old slave is in the new one, or in the old file under its second name.
//! That name is durable before the first one is taken away: the directory is synced at the end of
//! 2, and 3 does not begin if that fails.
//!
//! # Why no index belongs to another file
//!
//! 1. The old index is durably removed (2) before the new slave appears (3).
//! 2. The new index is stored only when the new slave has its name ([`index`](super::index)).
//! 3. ZODB releases its lock before it saves its index. A ZODB that closes just now may save the
//!    old slave's index after 3. It is not the index that fssync stored, so the next pass removes
//!    it.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::ledger::{LedgerEntry, SegmentHasher};
use super::owner::Owner;
use super::paths::Sibling;
use super::protection;
use super::small_file::remove_if_exists;
use super::space;
use super::step::Slave;
use crate::error::Error;
use crate::filestorage::{MAGIC_LEN, Tid};
use crate::io::file_stat::FileStat;
use crate::io::flush::Flusher;

/// A full copy under way.
#[derive(Debug)]
pub struct Replacement<'a> {
    slave: &'a Slave,
    path: PathBuf,
    file: File,
    /// The length of the copy so far, in bytes.
    written: u64,
    /// Computes the digests of the copied bytes.
    segment_hasher: SegmentHasher,
    flusher: Flusher,
    /// The attributes of the old slave that the copy could not get, with the reasons.
    lost: Vec<String>,
}

impl<'a> Replacement<'a> {
    /// Creates the file for a copy of `size` bytes, or opens the partial copy of an earlier pass.
    /// It gets the owner and mode of the slave. If there is no slave, it gets `master_mode`.
    /// Fails if the disk has no room for the rest.
    pub fn open(slave: &'a Slave, size: u64, master_mode: u32) -> Result<Self, Error> {
        // A step can fail because syncing is off or ZODB has the slave. Find out before hours of
        // copying.
        drop(slave.step()?);
        protection::check_directory(&slave.paths)?;
        let path = slave.paths.sibling(Sibling::Tmp);
        let owner = Owner::of(&slave.paths)?;
        let owner = match slave.stat()? {
            Some(_) => owner,
            // ZODB must be able to write the slave, even if the master is read-only.
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

    /// Sets the owner and attributes, and checks the free space.
    fn prepare(&mut self, owner: &Owner, size: u64) -> Result<(), Error> {
        self.lost = owner.own(&self.file, &self.path)?;
        let found = self.file.metadata();
        self.written = found.map_err(Error::io("stat", &self.path))?.len();
        space::check_copy(&self.slave.paths, size, self.written)
    }

    /// A warning if the copy could not get all extended attributes of the old slave.
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

    /// The length of the copy so far, in bytes.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The temporary path of the copy.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Truncates the copy to `len` bytes.
    pub fn truncate(&mut self, len: u64) -> Result<(), Error> {
        self.file
            .set_len(len)
            .map_err(Error::io(format!("truncate at {len}"), &self.path))?;
        self.written = len;
        Ok(())
    }

    /// Continues after bytes that proved to be the master's, and discards any others.
    pub fn resume(&mut self, proven: Vec<LedgerEntry>) -> Result<(), Error> {
        self.segment_hasher = SegmentHasher::after(proven);
        self.truncate(self.segment_hasher.at())
    }

    /// The digests of the copied bytes.
    pub fn take_digests(&mut self) -> Result<Vec<LedgerEntry>, Error> {
        self.segment_hasher
            .end_at(&self.file, self.written)
            .map_err(Error::io("read back", &self.path))
    }

    /// Deletes the copy. A failure is only logged: the next pass deletes it.
    pub fn discard(self) {
        if let Err(error) = remove_if_exists(&self.path) {
            tracing::warn!("{}", error.display_chain());
        }
    }

    /// The copy, for reading.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes the next bytes, unless syncing was switched off. The copy is not the slave, so this
    /// needs no step.
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

    /// Starts to sync the copy; [`sync`](Self::sync) waits for the end.
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

    /// Replaces the slave, which must be in the state of `old`, with the copy, which must be
    /// [durable](Self::sync). With `keep_as`, the old slave gets a second name. Returns the path
    /// of that name.
    pub fn install(
        &self,
        old: Option<FileStat>,
        keep_as: Option<SecondName>,
    ) -> Result<Option<PathBuf>, Error> {
        let paths = &self.slave.paths;
        let step = self.slave.step()?;
        step.check_unchanged(old)?;
        let kept = match (old, keep_as) {
            (Some(old), Some(name)) => Some(link_old(self.slave, old, name)?),
            _ => None,
        };
        let prepared = remove_if_exists(&paths.sibling(Sibling::ZodbIndex));
        // A sync may take long, and no step may last that long. The rename has its own step.
        drop(step);
        let renamed = prepared
            .and_then(|_| paths.sync_directory())
            .and_then(|()| self.rename(old));
        if let Err(error) = renamed {
            // If the old slave still has its first name, it does not need the second. If another
            // program has put another file there, the second name is all that keeps the old one.
            if let (Some(name), Some(old)) = (&kept, old)
                && is_same_file(paths.data(), old).unwrap_or(false)
            {
                remove_if_exists(name)?;
            }
            return Err(error);
        }
        paths.sync_directory()?;
        Ok(kept)
    }

    /// Renames the copy to the slave's name; 3 in the order of writes.
    fn rename(&self, old: Option<FileStat>) -> Result<(), Error> {
        let paths = &self.slave.paths;
        let step = self.slave.step()?;
        // A ZODB may have written the slave since the old one got its second name.
        step.check_unchanged(old)?;
        remove_if_exists(&paths.sibling(Sibling::ZodbIndex))?;
        let renamed = fs::rename(&self.path, paths.data());
        drop(step);
        renamed.map_err(Error::io("rename", &self.path))
    }
}

/// Puts a slave without transactions in the place of `old`, which is missing or empty: a file that
/// contains only `magic`, with the mode of the master. It is durable when this returns.
///
/// 1. *Crash before the rename:* the old state, and a file that the next call replaces.
/// 2. *Crash after the rename:* the old state or the new one.
pub fn install_empty(
    slave: &Slave,
    old: Option<FileStat>,
    magic: &[u8; MAGIC_LEN as usize],
    master_mode: u32,
) -> Result<(), Error> {
    let paths = &slave.paths;
    protection::check_directory(paths)?;
    let new = paths.sibling(Sibling::EmptyNew);
    remove_if_exists(&new)?;
    let owner = Owner::of(paths)?;
    let owner = match old {
        Some(_) => owner,
        // ZODB must be able to write the slave, even if the master is read-only.
        None => owner.with_mode(master_mode | 0o600),
    };
    let file = owner.create_new(&new)?;
    let synced = file.write_all_at(magic, 0).and_then(|()| file.sync_all());
    synced.map_err(Error::io("write", &new))?;
    let step = slave.step()?;
    step.check_unchanged(old)?;
    let renamed = fs::rename(&new, paths.data());
    drop(step);
    renamed.map_err(Error::io("rename", &new))?;
    paths.sync_directory()
}

/// The second name under which an old slave is kept.
#[derive(Clone, Copy, Debug)]
pub struct SecondName {
    /// The last tid of the old slave, as far as it can be read. It is part of the name.
    pub last_tid: Option<Tid>,
}

/// Removes the partial copy that an earlier pass may have left.
pub fn remove_partial_copy(slave: &Slave) -> Result<(), Error> {
    remove_if_exists(&slave.paths.sibling(Sibling::Tmp))?;
    Ok(())
}

/// Links the slave, which is in the state of `old`, to a second name. Returns its path.
fn link_old(slave: &Slave, old: FileStat, second: SecondName) -> Result<PathBuf, Error> {
    let mut n = 0;
    loop {
        let name = slave.paths.diverged(second.last_tid, n);
        match fs::hard_link(slave.paths.data(), &name) {
            Ok(()) => return Ok(name),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                // A pass that was killed may have linked the same file.
                if is_same_file(&name, old).map_err(Error::io("stat", &name))? {
                    return Ok(name);
                }
                n += 1;
            }
            Err(error) => return Err(Error::io("link the old slave to", &name)(error)),
        }
    }
}

/// Whether `path` is a name of the file of `stat`.
fn is_same_file(path: &Path, stat: FileStat) -> io::Result<bool> {
    let found = fs::symlink_metadata(path)?;
    Ok(FileStat::of(&found).is_same_file(&stat))
}
