//! The gone list, `Data.fs.fssync-blobs-gone`: blobs that the slave's log no longer refers to.
//!
//! After a pack of the master, a full copy replaces the slave's log. The blobs that only the old
//! log refers to remain for a while (`--keep-packed`), and are then removed (`remove`).
//!
//! | offset | size | contents |
//! | --- | --- | --- |
//! | 0 | 8 | oid |
//! | 8 | 8 | tid |
//! | 16 | 8 | time at which the entry was added, in seconds since 1970 |
//! | 24 | 8 | check: the start of the BLAKE3 digest of the first 24 bytes |
//! | 32 | … | more entries |
//!
//! Integers are big-endian. Entries are in the order in which they were added, so the first one is
//! the oldest. Entries with a wrong check are skipped.
//!
//! # Order of writes, and the state after a crash
//!
//! 1. *Add:* append the entries; sync the list and its directory. Only then is the new log renamed
//!    over the old one.
//!
//!    *Crash before the rename:* entries of blobs to which the log still refers. Before a blob is
//!    removed, the log is searched for it, so these blobs remain.
//!
//!    *Crash during an append:* a torn entry, which is skipped. The pass is repeated, and adds
//!    the entries again.
//! 2. *Remove:* see `remove`.

mod remove;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

pub use self::remove::{RemovalLimits, Removed};

use crate::error::Error;
use crate::filestorage::Tid;
use crate::filestorage::blob::BlobKey;
use crate::io::read::read_fully;
use crate::slave::owner::Owner;
use crate::slave::paths::{OpenMode, Sibling, SlavePaths};
use crate::slave::small_file::open_if_exists;
use crate::slave::step::Slave;

const ENTRY_LEN: usize = 32;
const BODY_LEN: usize = 24;

type EncodedEntry = [u8; ENTRY_LEN];

/// How many bytes are read or written at once.
const BLOCK_LEN: usize = 64 * 1024;

/// A blob that the log no longer refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct GoneBlob {
    key: BlobKey,
    /// Time at which it was added, in seconds since 1970.
    since: u64,
}

impl GoneBlob {
    fn encode(&self) -> EncodedEntry {
        let mut entry = [0; ENTRY_LEN];
        entry[..8].copy_from_slice(&self.key.oid.to_be_bytes());
        entry[8..16].copy_from_slice(&self.key.tid.0.to_be_bytes());
        entry[16..BODY_LEN].copy_from_slice(&self.since.to_be_bytes());
        let check = check(&entry[..BODY_LEN]);
        entry[BODY_LEN..].copy_from_slice(&check);
        entry
    }

    /// Decodes an entry; `None` if the check fails.
    fn decode(entry: &EncodedEntry) -> Option<Self> {
        let (body, found) = entry.split_last_chunk()?;
        if *found != check(body) {
            return None;
        }
        let (oid, rest) = body.split_first_chunk()?;
        let (tid, rest) = rest.split_first_chunk()?;
        Some(Self {
            key: BlobKey {
                tid: Tid(u64::from_be_bytes(*tid)),
                oid: u64::from_be_bytes(*oid),
            },
            since: u64::from_be_bytes(*rest.first_chunk()?),
        })
    }

    /// Whether it may be removed at `now`, after it was kept for `keep`.
    fn is_due(&self, now: Timestamp, keep: Duration) -> bool {
        seconds(now) >= self.since.saturating_add(keep.as_secs())
    }
}

fn check(body: &[u8]) -> [u8; ENTRY_LEN - BODY_LEN] {
    let mut check = [0; ENTRY_LEN - BODY_LEN];
    check.copy_from_slice(&blake3::hash(body).as_bytes()[..ENTRY_LEN - BODY_LEN]);
    check
}

fn seconds(time: Timestamp) -> u64 {
    time.as_second().max(0).cast_unsigned()
}

/// The gone list of a slave, for reading.
#[derive(Debug)]
pub struct GoneList {
    file: File,
    path: PathBuf,
    /// Offset of the next entry.
    offset: u64,
    /// Length of the list, without a torn entry at its end.
    end: u64,
}

impl GoneList {
    /// Opens the list of a slave; `None` if there is none.
    pub fn open(paths: &SlavePaths) -> Result<Option<Self>, Error> {
        let path = paths.sibling(Sibling::BlobsGone);
        let Some(file) = open_if_exists(&path, OpenMode::Read)? else {
            return Ok(None);
        };
        let len = file.metadata().map_err(Error::io("stat", &path))?.len();
        Ok(Some(Self {
            file,
            path,
            offset: 0,
            end: len / ENTRY_LEN as u64 * ENTRY_LEN as u64,
        }))
    }

    /// Number of entries that were not read yet. A blob may have several.
    #[must_use]
    pub fn len(&self) -> u64 {
        (self.end - self.offset) / ENTRY_LEN as u64
    }

    /// Whether all entries were read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the keys of the next entries, at most `count`, whether they are due or not. Returns
    /// none after the last one.
    pub fn take(&mut self, count: usize) -> Result<Vec<BlobKey>, Error> {
        self.take_while(count, |_| true)
    }

    /// Reads the keys of entries that are due, at most `count`. Ends at the first entry that is
    /// not due: later ones were added later.
    fn take_due(
        &mut self,
        now: Timestamp,
        keep: Duration,
        count: usize,
    ) -> Result<Vec<BlobKey>, Error> {
        self.take_while(count, |blob| blob.is_due(now, keep))
    }

    /// Reads the keys of the next entries, at most `count`. Ends at the first entry that is not
    /// wanted.
    fn take_while(
        &mut self,
        count: usize,
        is_wanted: impl Fn(&GoneBlob) -> bool,
    ) -> Result<Vec<BlobKey>, Error> {
        let mut keys = Vec::new();
        let mut block = vec![0; BLOCK_LEN];
        while self.offset < self.end && keys.len() < count {
            let len = (self.end - self.offset).min(BLOCK_LEN as u64) as usize;
            let got = read_fully(&self.file, &mut block[..len], self.offset)
                .map_err(Error::io("read", &self.path))?;
            if got < ENTRY_LEN {
                // It was truncated while it was read.
                self.end = self.offset;
                break;
            }
            for entry in block[..got].as_chunks().0 {
                match GoneBlob::decode(entry) {
                    Some(blob) if keys.len() == count || !is_wanted(&blob) => {
                        return Ok(keys);
                    }
                    Some(blob) => keys.push(blob.key),
                    None => {}
                }
                self.offset += ENTRY_LEN as u64;
            }
        }
        Ok(keys)
    }
}

/// Adds entries to the gone list. The list is created for the first entry.
#[derive(Debug)]
pub struct GoneWriter<'a> {
    slave: &'a Slave,
    since: u64,
    path: PathBuf,
    /// The list, and the offset of the next entry, once there is an entry to write.
    file: Option<(File, u64)>,
    /// Entries that were not written yet.
    buffer: Vec<u8>,
}

impl<'a> GoneWriter<'a> {
    /// Begins to add entries, with the time `now`.
    #[must_use]
    pub fn new(slave: &'a Slave, now: Timestamp) -> Self {
        Self {
            path: slave.paths.sibling(Sibling::BlobsGone),
            slave,
            since: seconds(now),
            file: None,
            buffer: Vec::new(),
        }
    }

    /// Adds a blob.
    pub fn add(&mut self, key: BlobKey) -> Result<(), Error> {
        let since = self.since;
        self.buffer.extend(GoneBlob { key, since }.encode());
        if self.buffer.len() >= BLOCK_LEN {
            self.flush()?;
        }
        Ok(())
    }

    /// Makes the added entries durable. They must be durable before the log that no longer refers
    /// to these blobs replaces the old one.
    pub fn finish(&mut self) -> Result<(), Error> {
        self.flush()?;
        let Some((file, _)) = &self.file else {
            return Ok(());
        };
        file.sync_all().map_err(Error::io("sync", &self.path))?;
        self.slave.paths.sync_directory()
    }

    fn flush(&mut self) -> Result<(), Error> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.slave.check_cancelled()?;
        if self.file.is_none() {
            let file = Owner::open_or_create_for(&self.slave.paths, &self.path)?;
            let len = file
                .metadata()
                .map_err(Error::io("stat", &self.path))?
                .len();
            // A torn entry at the end is overwritten.
            self.file = Some((file, len / ENTRY_LEN as u64 * ENTRY_LEN as u64));
        }
        if let Some((file, offset)) = &mut self.file {
            file.write_all_at(&self.buffer, *offset)
                .map_err(Error::io("write", &self.path))?;
            *offset += self.buffer.len() as u64;
        }
        self.buffer.clear();
        Ok(())
    }
}
