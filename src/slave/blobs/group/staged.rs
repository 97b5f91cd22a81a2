//! A blob that is being received in a temporary file.

use std::fs::File;
use std::io;
use std::mem;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::fs::{Timespec, Timestamps, UTIME_OMIT, futimens};

use super::BlobRecord;
use crate::error::Error;
use crate::filestorage::blob::BlobKey;
use crate::io::digest::Digest;
use crate::io::flush::Flusher;
use crate::slave::blobs::ownership::Ownership;
use crate::slave::blobs::whole_sync::WholeSync;
use crate::slave::step::Slave;
use crate::source::blobs::BlobStat;

/// A blob that is being received. If it is dropped before it is finished, the group removes its
/// temporary file.
#[derive(Debug)]
pub struct StagedBlob<'a> {
    slave: &'a Slave,
    key: BlobKey,
    stat: BlobStat,
    /// The temporary file.
    path: PathBuf,
    file: File,
    /// Number of bytes received so far.
    received: u64,
    hasher: blake3::Hasher,
    flusher: Flusher,
    /// Whether the switches were read for the next write: when the blob was begun.
    is_checked: bool,
}

impl<'a> StagedBlob<'a> {
    pub(super) fn new(
        slave: &'a Slave,
        key: BlobKey,
        stat: BlobStat,
        path: PathBuf,
        file: File,
        received: u64,
        hasher: blake3::Hasher,
    ) -> Self {
        Self {
            slave,
            key,
            stat,
            path,
            file,
            received,
            hasher,
            flusher: Flusher::default(),
            is_checked: true,
        }
    }

    /// The blob.
    #[must_use]
    pub fn key(&self) -> BlobKey {
        self.key
    }

    /// Number of bytes received so far, including those that an earlier pass received.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Writes the next bytes, unless syncing was switched off or a signal was received. The file is
    /// not in place yet, so this needs no step. The first bytes arrive together with the state of
    /// the file, for which the switches were read: most blobs are small, and reading the switches
    /// takes as long as writing some kilobytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if !mem::take(&mut self.is_checked) {
            self.slave.check_cancelled()?;
        }
        let at = self.received;
        let len = bytes.len() as u64;
        if len > self.stat.size.saturating_sub(at) {
            return Err(self.wrong_len(at.saturating_add(len)));
        }
        self.file
            .write_all_at(bytes, at)
            .map_err(Error::io(format!("write at {at} in"), &self.path))?;
        self.received += len;
        self.hasher.update(bytes);
        self.flusher
            .written(&self.file, len)
            .map_err(Error::io("sync", &self.path))
    }

    /// Sets owner, mode and time of modification of the complete file.
    pub(super) fn finish(mut self, ownership: &Ownership) -> Result<Finished, Error> {
        if self.received != self.stat.size {
            return Err(self.wrong_len(self.received));
        }
        let mode = ownership.blob_mode(self.stat.mode);
        ownership.own(&self.file, mode, &self.path)?;
        // After the last write, which would change the time.
        set_modified(&self.file, self.stat.modified)
            .map_err(Error::io("set the time of", &self.path))?;
        self.flusher.start_to_finish();
        Ok(Finished {
            record: BlobRecord {
                key: self.key,
                size: self.stat.size,
                digest: Digest::from(self.hasher.finalize()),
            },
            unsynced: Some(Unsynced {
                file: self.file,
                flusher: self.flusher,
                path: self.path,
            }),
        })
    }

    fn wrong_len(&self, received: u64) -> Error {
        let expected = self.stat.size;
        let error = io::Error::other(format!(
            "{received} bytes were received, but its size is {expected} bytes"
        ));
        Error::io("complete", &self.path)(error)
    }
}

/// A blob that was received completely.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) record: BlobRecord,
    /// `None` once it is durable.
    unsynced: Option<Unsynced>,
}

#[derive(Debug)]
struct Unsynced {
    file: File,
    flusher: Flusher,
    path: PathBuf,
}

impl Finished {
    /// Waits for the thread that syncs the file, if there is one.
    pub(super) fn join(&mut self) -> Result<(), Error> {
        match &mut self.unsynced {
            None => Ok(()),
            Some(Unsynced { flusher, path, .. }) => flusher.join().map_err(Error::io("sync", path)),
        }
    }

    /// Whether [`sync`](Self::sync) was not called yet.
    pub(super) fn is_unsynced(&self) -> bool {
        self.unsynced.is_some()
    }

    /// Makes the content, the owner, the mode and the time durable, unless the whole file system
    /// was synced, and closes the file.
    pub(super) fn sync(&mut self, whole: WholeSync) -> Result<(), Error> {
        match self.unsynced.take() {
            Some(Unsynced { file, path, .. }) if whole == WholeSync::Insufficient => {
                file.sync_all().map_err(Error::io("sync", &path))
            }
            _ => Ok(()),
        }
    }
}

/// Sets the time of the last modification: seconds since 1970, and nanoseconds.
pub(super) fn set_modified(file: &File, (secs, nanos): (i64, u32)) -> io::Result<()> {
    const NANOS_PER_SEC: u32 = 1_000_000_000;
    let omitted = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT,
    };
    let modified = Timespec {
        tv_sec: secs,
        // A master could send a number with another meaning, such as `UTIME_NOW`.
        tv_nsec: nanos.min(NANOS_PER_SEC - 1).into(),
    };
    let times = Timestamps {
        last_access: omitted,
        last_modification: modified,
    };
    Ok(futimens(file, &times)?)
}
