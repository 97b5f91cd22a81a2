//! A group of blobs that are received and placed together.
//!
//! [`blobs`](super) describes the order of writes and the state after a crash.

mod place;
mod staged;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::mem;

use rustix::process::{Resource, getrlimit};

pub use self::staged::StagedBlob;

use self::staged::Finished;
use super::directory::BlobDirectory;
use super::tmp::{TmpDirectory, tmp_name};
use super::touched::Touched;
use super::whole_sync::sync_whole;
use crate::error::Error;
use crate::filestorage::blob::BlobKey;
use crate::io::digest::Digest;
use crate::io::read::{AlignedBuf, read_fully};
use crate::slave::step::Slave;
use crate::source::blobs::{BlobStat, ReceivedPrefix};

/// A blob that is in place and durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobRecord {
    /// The blob.
    pub key: BlobKey,
    /// Size in bytes.
    pub size: u64,
    /// Digest of the content, as the master sent or digested it.
    pub digest: Digest,
}

/// Receives blobs and places them. Several blobs may be received at the same time.
///
/// If it is dropped, it removes the temporary files of blobs that were not placed. Large ones
/// remain after a signal, or after [`keep_large`](Self::keep_large), for a later pass to resume.
#[derive(Debug)]
pub struct BlobGroup<'a> {
    directory: &'a BlobDirectory,
    slave: &'a Slave,
    /// Opened for the first blob.
    tmp: Option<TmpDirectory<'a>>,
    /// The blobs that have temporary files.
    staged: BTreeSet<BlobKey>,
    /// Hashers of the received parts that may be resumed.
    resumable: HashMap<BlobKey, Resumable>,
    /// Names of the temporary files of earlier passes, once they were listed.
    earlier: Option<HashSet<String>>,
    finished: Vec<Finished>,
    /// How many of them were synced: the first ones.
    synced: usize,
    /// How many finished files may be open at the same time.
    max_open: usize,
    found: Vec<Found>,
    touched: Touched,
    keeps_large: bool,
}

/// The first bytes of a blob that an earlier pass received.
#[derive(Debug)]
struct Resumable {
    len: u64,
    hasher: blake3::Hasher,
}

/// A blob that was in place before.
#[derive(Debug)]
struct Found {
    key: BlobKey,
    /// The record of a file that was compared by its digest and gets the master's time of
    /// modification.
    adopted: Option<Adopted>,
}

#[derive(Debug)]
struct Adopted {
    modified: (i64, u32),
    record: BlobRecord,
}

impl<'a> BlobGroup<'a> {
    /// An empty group.
    #[must_use]
    pub fn new(directory: &'a BlobDirectory, slave: &'a Slave) -> Self {
        Self {
            directory,
            slave,
            tmp: None,
            staged: BTreeSet::new(),
            resumable: HashMap::new(),
            earlier: None,
            finished: Vec::new(),
            synced: 0,
            max_open: max_open(),
            found: Vec::new(),
            touched: Touched::default(),
            keeps_large: false,
        }
    }

    /// The first bytes of a blob that an earlier pass received, if they are at least 16 MiB. They
    /// are read for the digest.
    pub fn leftover(&mut self, key: BlobKey) -> Result<Option<ReceivedPrefix>, Error> {
        let name = tmp_name(key);
        // Usually there is none, and one list saves a failing call for each blob.
        let earlier = match self.earlier.take() {
            Some(earlier) => earlier,
            None => self.tmp()?.names()?,
        };
        if !self.earlier.insert(earlier).contains(&name) {
            return Ok(None);
        }
        let tmp = self.tmp()?;
        let path = tmp.path(&name);
        let Some(file) = tmp.open_large(&name)? else {
            return Ok(None);
        };
        let len = file.metadata().map_err(Error::io("stat", &path))?.len();
        let mut hasher = blake3::Hasher::new();
        let is_complete = hash(&file, len, &mut hasher, self.slave)?;
        if !is_complete.map_err(Error::io("read", &path))? {
            return Ok(None);
        }
        let digest = Digest::from(hasher.finalize());
        self.resumable.insert(key, Resumable { len, hasher });
        Ok(Some(ReceivedPrefix { len, digest }))
    }

    /// Begins to receive a blob, whose file at the master has the state `stat`. `from` is the
    /// offset of the first byte that the master sends: 0, or the length of the
    /// [`leftover`](Self::leftover), which then remains.
    pub fn stage(
        &mut self,
        key: BlobKey,
        stat: BlobStat,
        from: u64,
    ) -> Result<StagedBlob<'a>, Error> {
        self.slave.check_cancelled()?;
        let resumed = self.resumable.remove(&key).filter(|it| it.len == from);
        let name = tmp_name(key);
        let tmp = self.tmp()?;
        let path = tmp.path(&name);
        let (file, hasher) = match resumed {
            Some(resumed) if from > 0 => {
                let file = tmp.open_large(&name)?.ok_or_else(|| removed(&path))?;
                (file, resumed.hasher)
            }
            _ if from > 0 => return Err(removed(&path)),
            _ => (tmp.create(&name)?, blake3::Hasher::new()),
        };
        self.staged.insert(key);
        Ok(StagedBlob::new(
            self.slave, key, stat, path, file, from, hasher,
        ))
    }

    /// Ends the reception of a blob, which must be complete: it gets its owner, mode and time of
    /// modification.
    pub fn finish(&mut self, blob: StagedBlob<'a>) -> Result<(), Error> {
        let finished = blob.finish(&self.directory.ownership)?;
        self.finished.push(finished);
        // The files remain open until they are synced, so that no error is lost.
        if self.finished.len() - self.synced >= self.max_open {
            self.sync_finished()?;
        }
        Ok(())
    }

    /// Adds a blob that is in place already. It is synced with the others, because the pass that
    /// placed it may have been killed before its sync.
    pub fn found(&mut self, key: BlobKey) {
        self.found.push(Found { key, adopted: None });
    }

    /// Adds a blob that is in place already and has the digest of the master's file, but another
    /// time of modification, which is set to the master's.
    pub fn adopt(&mut self, key: BlobKey, stat: &BlobStat, digest: Digest) {
        let record = BlobRecord {
            key,
            size: stat.size,
            digest,
        };
        let modified = stat.modified;
        let adopted = Some(Adopted { modified, record });
        self.found.push(Found { key, adopted });
    }

    /// The number of blobs that the next [`place`](Self::place) places or syncs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.finished.len() + self.found.len()
    }

    /// Whether there is nothing to place or sync.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps large temporary files when the group is dropped, because a later pass can resume
    /// them: the master is unreachable.
    pub fn keep_large(&mut self) {
        self.keeps_large = true;
    }

    /// Places the received blobs. They, the found ones, and all directories above them are durable
    /// when it returns. The group is empty then. Returns the records of the placed and the adopted
    /// blobs.
    pub fn place(&mut self) -> Result<Vec<BlobRecord>, Error> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        self.sync_finished()?;
        self.rename_finished()?;
        self.sync_found()?;
        let synced = &self.slave.synced_directories;
        self.touched.sync(&self.directory.tree, synced)?;
        let finished = mem::take(&mut self.finished);
        let found = mem::take(&mut self.found);
        self.synced = 0;
        for blob in &finished {
            self.staged.remove(&blob.record.key);
        }
        let adopted = found.into_iter().filter_map(|found| found.adopted);
        let placed = finished.into_iter().map(|blob| blob.record);
        Ok(placed.chain(adopted.map(|it| it.record)).collect())
    }

    /// Makes the content of the finished files durable: phase 3.
    fn sync_finished(&mut self) -> Result<(), Error> {
        let unsynced = &mut self.finished[self.synced..];
        // Their threads may still be writing, or may have failed.
        for blob in unsynced.iter_mut() {
            blob.join()?;
        }
        let whole = sync_whole(&self.directory.tree, unsynced.len());
        for blob in unsynced {
            blob.sync(whole)?;
        }
        self.synced = self.finished.len();
        Ok(())
    }

    /// The directory of temporary files, which is opened at the first call.
    fn tmp(&mut self) -> Result<&TmpDirectory<'a>, Error> {
        match &mut self.tmp {
            Some(tmp) => Ok(tmp),
            none => Ok(none.insert(TmpDirectory::open(self.directory, self.slave)?)),
        }
    }
}

impl Drop for BlobGroup<'_> {
    fn drop(&mut self) {
        let Some(tmp) = &self.tmp else {
            return;
        };
        let keeps_large = self.keeps_large || self.slave.is_interrupted();
        for &key in &self.staged {
            let name = tmp_name(key);
            if keeps_large && tmp.is_large(&name) {
                continue;
            }
            if let Err(error) = tmp.remove(&name) {
                tracing::warn!("{}", error.display_chain());
            }
        }
    }
}

/// The error for a leftover that another program removed.
fn removed(path: &std::path::Path) -> Error {
    Error::SlaveChanged {
        slave: path.to_owned(),
        what: "the part that was received earlier was removed".to_owned(),
    }
}

/// Hashes the first `len` bytes of a file. Returns whether there are so many. The outer result is
/// an error if the pass was cancelled.
fn hash(
    file: &File,
    len: u64,
    hasher: &mut blake3::Hasher,
    slave: &Slave,
) -> Result<std::io::Result<bool>, Error> {
    const READ_LEN: u64 = 1024 * 1024;
    let mut buffer = AlignedBuf::default();
    for at in (0..len).step_by(READ_LEN as usize) {
        slave.check_cancelled()?;
        let piece = (len - at).min(READ_LEN) as usize;
        match read_fully(file, buffer.room(piece, at), at) {
            Ok(got) if got == piece => hasher.update(&buffer[..got]),
            Ok(_) => return Ok(Ok(false)),
            Err(error) => return Ok(Err(error)),
        };
    }
    Ok(Ok(true))
}

/// How many files a group keeps open: half of the process's limit.
fn max_open() -> usize {
    const MIN: u64 = 16;
    const MAX: u64 = 4096;
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(MAX);
    (limit / 2).clamp(MIN, MAX) as usize
}
