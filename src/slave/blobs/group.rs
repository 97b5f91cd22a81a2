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
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use rustix::process::{Resource, getrlimit};

pub use self::staged::StagedBlob;

use self::place::{Placer, sync_files};
use self::staged::Finished;
use super::directory::BlobDirectory;
use super::tmp::{TmpDirectory, tmp_name};
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
    tmp: Option<Arc<TmpDirectory<'a>>>,
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
    /// How many finished blobs are placed at once while others are being received.
    batch_len: usize,
    /// Leads to the thread that places batches of finished blobs, if there is one.
    batches: Option<SyncSender<Vec<Finished>>>,
    found: Vec<Found>,
    placer: Placer<'a>,
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
            batch_len: usize::MAX,
            batches: None,
            found: Vec::new(),
            placer: Placer::new(directory, slave),
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
        match &self.batches {
            Some(batches) if self.finished.len() >= self.batch_len() => {
                self.synced = 0;
                // Waits until the thread has placed the batch before this one. If the thread has
                // ended, `place_meanwhile` returns its error instead of this one.
                let sent = batches.send(mem::take(&mut self.finished));
                sent.map_err(|_| Error::Interrupted)
            }
            None if self.finished.len() - self.synced >= self.max_open => self.sync_finished(),
            _ => Ok(()),
        }
    }

    /// Sets how many blobs [`place_meanwhile`](Self::place_meanwhile) places at once. Fewer are
    /// placed if the process may not open so many files.
    pub fn place_in_batches(&mut self, batch_len: usize) {
        self.batch_len = batch_len.max(1);
    }

    /// Calls `receive`, which finishes up to `count` blobs, and places them meanwhile in another
    /// thread, batch by batch. [`place`](Self::place) must follow: it places the last ones and
    /// makes the names of all durable.
    pub fn place_meanwhile(
        &mut self,
        count: usize,
        receive: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if count <= self.batch_len() {
            return receive(self);
        }
        let tmp = Arc::clone(self.tmp()?);
        let mut placer = Placer::new(self.directory, self.slave);
        // A batch is handed over once the thread is ready for it. So two batches are open.
        let (sender, batches) = mpsc::sync_channel(0);
        let span = tracing::Span::current();
        let place = move || -> Result<_, Error> {
            let _span = span.entered();
            for batch in batches {
                placer.place(&tmp, batch)?;
            }
            Ok(placer)
        };
        thread::scope(|scope| {
            let named = thread::Builder::new().name("placer".to_owned());
            let Ok(thread) = named.spawn_scoped(scope, place) else {
                // Without another thread, `place` does everything.
                return receive(self);
            };
            self.batches = Some(sender);
            let receiving = Receiving(self);
            let received = receive(receiving.0);
            drop(receiving);
            let ended = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
            self.placer.append(ended?);
            received
        })
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
        self.finished.len() + self.found.len() + self.placer.len()
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
        self.synced = 0;
        let finished = mem::take(&mut self.finished);
        if !finished.is_empty() {
            let tmp = Arc::clone(self.tmp()?);
            self.placer.place(&tmp, finished)?;
        }
        let found = mem::take(&mut self.found);
        self.placer.sync_found(&found)?;
        let mut records = self.placer.sync_names()?;
        for record in &records {
            self.staged.remove(&record.key);
        }
        let adopted = found.into_iter().filter_map(|found| found.adopted);
        records.extend(adopted.map(|it| it.record));
        Ok(records)
    }

    /// Makes the content of the finished files durable before there are too many.
    fn sync_finished(&mut self) -> Result<(), Error> {
        sync_files(self.directory, &mut self.finished)?;
        self.synced = self.finished.len();
        Ok(())
    }

    /// How many blobs are placed at once. Another batch may be open at the same time.
    fn batch_len(&self) -> usize {
        self.batch_len.min(self.max_open / 2)
    }

    /// The directory of temporary files, which is opened at the first call.
    fn tmp(&mut self) -> Result<&Arc<TmpDirectory<'a>>, Error> {
        match &mut self.tmp {
            Some(tmp) => Ok(tmp),
            none => Ok(none.insert(Arc::new(TmpDirectory::open(self.directory, self.slave)?))),
        }
    }
}

/// A group while another thread places its blobs. At its end, also after a panic, the thread ends.
struct Receiving<'g, 'a>(&'g mut BlobGroup<'a>);

impl Drop for Receiving<'_, '_> {
    fn drop(&mut self) {
        self.0.batches = None;
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
