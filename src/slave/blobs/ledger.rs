//! The blob ledger, `Data.fs.fssync-blobs`: sizes and digests of the slave's blobs.
//!
//! An entry has the digest of a blob, computed from the bytes that came from the master, before
//! they were written here. `fssync verify` can therefore find a blob that changed on its way to the
//! disk, or on the disk, without the master.
//!
//! | offset | size | contents |
//! | --- | --- | --- |
//! | 0 | 64 | the head: magic (16), id of the blob directory (32 hexadecimal digits) |
//! | 64 | 64 | an entry: oid (8), tid (8), size (8), first 24 bytes of the BLAKE3 digest |
//! | 128 | … | more entries |
//!
//! Integers are big-endian; sizes are in bytes. A blob that the master does not have either has a
//! size of all ones and a digest of zeros. Each record is sealed with its number (`sealed`).
//!
//! Entries have no order. If a blob has several, the last one is valid.
//!
//! An entry of a blob that was removed remains, until the ledger is compacted (`compact`).
//!
//! # Order of writes, and the state after a crash
//!
//! Entries are appended when their blobs are durable. They are not synced.
//!
//! 1. *A crash during a write* can leave entries that are missing or torn. The next append
//!    continues after the last valid entry. Invalid ones before it are skipped by readers; their
//!    blobs have no digest until somebody asks the master for it.
//! 2. *No valid entry is wrong,* because a blob never changes.
//! 3. *Another blob directory* has another id. A ledger with another id is ignored, and the next
//!    append replaces it. It is replaced in place, head first: after a crash, old entries may
//!    follow the new head. They are valid for the same keys, or their blobs do not exist, which
//!    a reader must expect anyway.

mod compact;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::vec;

use super::directory::{BlobDirectory, ID_LEN};
use super::group::BlobRecord;
use crate::error::Error;
use crate::filestorage::Tid;
use crate::filestorage::blob::BlobKey;
use crate::io::digest::Digest;
use crate::io::read::read_fully;
use crate::slave::owner::Owner;
use crate::slave::paths::{OpenMode, Sibling, SlavePaths};
use crate::slave::sealed::{BODY_LEN, RECORD_LEN, Record, seal, unseal};
use crate::slave::small_file::open_if_exists;
use crate::slave::step::Slave;

const MAGIC: [u8; 16] = *b"fssync blobs: 1\n";

/// The size in the entry of a blob that the master does not have.
const ABSENT: u64 = u64::MAX;

/// How many records are read at once.
const BLOCK_RECORDS: u64 = 1024;

/// The first bytes of a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortDigest([u8; Self::LEN]);

impl ShortDigest {
    /// Length in bytes.
    pub const LEN: usize = 24;

    /// Whether these are the first bytes of a digest.
    #[must_use]
    pub fn is_of(&self, digest: &Digest) -> bool {
        digest.as_bytes().starts_with(&self.0)
    }
}

impl From<&Digest> for ShortDigest {
    fn from(digest: &Digest) -> Self {
        let mut short = [0; Self::LEN];
        short.copy_from_slice(&digest.as_bytes()[..Self::LEN]);
        Self(short)
    }
}

/// The state of a blob at the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobState {
    /// The master has it.
    Present {
        /// Size in bytes.
        size: u64,
        /// The start of its digest.
        digest: ShortDigest,
    },
    /// The master does not have it.
    Absent,
}

/// An entry of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobEntry {
    /// The blob.
    pub key: BlobKey,
    /// Its state.
    pub state: BlobState,
}

impl From<&BlobRecord> for BlobEntry {
    fn from(record: &BlobRecord) -> Self {
        Self {
            key: record.key,
            state: BlobState::Present {
                size: record.size,
                digest: (&record.digest).into(),
            },
        }
    }
}

impl BlobEntry {
    fn encode(&self, number: u64) -> Record {
        let (size, digest) = match self.state {
            BlobState::Present { size, digest } => (size, digest.0),
            BlobState::Absent => (ABSENT, [0; ShortDigest::LEN]),
        };
        let mut body = [0; BODY_LEN];
        body[..8].copy_from_slice(&self.key.oid.to_be_bytes());
        body[8..16].copy_from_slice(&self.key.tid.0.to_be_bytes());
        body[16..24].copy_from_slice(&size.to_be_bytes());
        body[24..].copy_from_slice(&digest);
        seal(body, number)
    }

    /// Decodes a record; `None` if the check fails.
    fn decode(record: &Record, number: u64) -> Option<Self> {
        let body = unseal(record, number)?;
        let (oid, rest) = body.split_first_chunk()?;
        let (tid, rest) = rest.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let key = BlobKey {
            tid: Tid(u64::from_be_bytes(*tid)),
            oid: u64::from_be_bytes(*oid),
        };
        let state = match u64::from_be_bytes(*size) {
            ABSENT => BlobState::Absent,
            size => BlobState::Present {
                size,
                digest: ShortDigest(*rest.first_chunk()?),
            },
        };
        Some(Self { key, state })
    }
}

/// An open blob ledger.
#[derive(Debug)]
pub struct BlobLedger {
    file: File,
    path: PathBuf,
    /// Number of records, including the head.
    records: u64,
}

impl BlobLedger {
    /// The id in the head of a slave's blob ledger: that of the blob directory that earlier passes
    /// wrote. `None` if there is no ledger, or its head is invalid.
    pub fn id(paths: &SlavePaths) -> Result<Option<String>, Error> {
        let Some(ledger) = Self::open_any(paths, OpenMode::Read)? else {
            return Ok(None);
        };
        let head = ledger.read(0, 1)?;
        let body = head.first().and_then(|head| unseal(head, 0));
        let id = body.and_then(|body| body.strip_prefix(&MAGIC));
        Ok(id.and_then(|id| String::from_utf8(id.to_owned()).ok()))
    }

    /// Opens the ledger of the blob directory with this id. `None` if there is none, or it belongs
    /// to another directory.
    pub fn open(paths: &SlavePaths, id: &str, mode: OpenMode) -> Result<Option<Self>, Error> {
        let Some(ledger) = Self::open_any(paths, mode)? else {
            return Ok(None);
        };
        let is_of_directory = ledger.read(0, 1)? == [head(id)];
        Ok(is_of_directory.then_some(ledger))
    }

    /// Opens the ledger of a blob directory to append entries. If there is none, or it belongs to
    /// another directory, it becomes an empty one.
    pub fn open_or_create(slave: &Slave, directory: &BlobDirectory) -> Result<Self, Error> {
        let id = directory.id();
        if let Some(mut ledger) = Self::open(&slave.paths, id, OpenMode::ReadWrite)? {
            ledger.skip_torn_end()?;
            return Ok(ledger);
        }
        slave.check_cancelled()?;
        let path = slave.paths.sibling(Sibling::Blobs);
        let file = Owner::open_or_create_for(&slave.paths, &path)?;
        file.set_len(0)
            .and_then(|()| file.write_all_at(&head(id), 0))
            .map_err(Error::io("write", &path))?;
        Ok(Self {
            file,
            path,
            records: 1,
        })
    }

    fn open_any(paths: &SlavePaths, mode: OpenMode) -> Result<Option<Self>, Error> {
        let path = paths.sibling(Sibling::Blobs);
        let Some(file) = open_if_exists(&path, mode)? else {
            return Ok(None);
        };
        let found = file.metadata().map_err(Error::io("stat", &path))?;
        Ok(Some(Self {
            file,
            path,
            records: found.len() / RECORD_LEN as u64,
        }))
    }

    /// Moves the end of the ledger to just after the last valid record.
    fn skip_torn_end(&mut self) -> Result<(), Error> {
        let mut end = self.records;
        // The head is valid, so the loop ends there at the latest.
        while end > 1 {
            let start = end.saturating_sub(BLOCK_RECORDS).max(1);
            let records = self.read(start, end - start)?;
            let mut numbered = records.iter().enumerate();
            let last_valid = numbered
                .rposition(|(n, record)| BlobEntry::decode(record, start + n as u64).is_some());
            if let Some(n) = last_valid {
                end = start + n as u64 + 1;
                break;
            }
            end = start;
        }
        self.records = end;
        Ok(())
    }

    /// Appends entries. The blobs must be durable.
    pub fn append(&mut self, slave: &Slave, entries: &[BlobEntry]) -> Result<(), Error> {
        slave.check_cancelled()?;
        let numbered = (self.records..).zip(entries);
        let records: Vec<u8> = numbered
            .flat_map(|(number, entry)| entry.encode(number))
            .collect();
        self.write(&records, entries.len())
    }

    /// Writes this number of encoded records at the end.
    fn write(&mut self, records: &[u8], count: usize) -> Result<(), Error> {
        let end = (self.records + count as u64) * RECORD_LEN as u64;
        self.file
            .write_all_at(records, self.records * RECORD_LEN as u64)
            // Whatever a crash has left after the new end is invalid.
            .and_then(|()| self.file.set_len(end))
            .map_err(Error::io("write", &self.path))?;
        self.records += count as u64;
        Ok(())
    }

    /// Number of entries. Some may be outdated, or invalid.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.records.saturating_sub(1)
    }

    /// Whether the ledger is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The valid entries, in the order in which they were appended.
    #[must_use]
    pub fn entries(self) -> BlobEntries {
        BlobEntries {
            next: 1,
            read: Vec::new().into_iter(),
            ledger: self,
        }
    }

    /// Reads up to `count` records from `number` on.
    fn read(&self, number: u64, count: u64) -> Result<Vec<Record>, Error> {
        let mut bytes = vec![0; count as usize * RECORD_LEN];
        let got = read_fully(&self.file, &mut bytes, number * RECORD_LEN as u64)
            .map_err(Error::io("read", &self.path))?;
        Ok(bytes[..got].as_chunks().0.to_vec())
    }
}

/// Iterates over the entries of a blob ledger. Ends after an error.
#[derive(Debug)]
pub struct BlobEntries {
    ledger: BlobLedger,
    /// Number of the first record that was not read yet.
    next: u64,
    read: vec::IntoIter<BlobEntry>,
}

impl Iterator for BlobEntries {
    type Item = Result<BlobEntry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.read.next() {
                return Some(Ok(entry));
            }
            let count = (self.ledger.records.checked_sub(self.next)?).min(BLOCK_RECORDS);
            if count == 0 {
                return None;
            }
            let records = match self.ledger.read(self.next, count) {
                Ok(records) => records,
                Err(error) => {
                    self.next = self.ledger.records;
                    return Some(Err(error));
                }
            };
            let numbered = (self.next..).zip(&records);
            let entries = numbered.filter_map(|(number, it)| BlobEntry::decode(it, number));
            self.read = entries.collect::<Vec<_>>().into_iter();
            self.next += count;
        }
    }
}

/// The head of the ledger of a blob directory.
fn head(id: &str) -> Record {
    let mut body = [0; BODY_LEN];
    body[..MAGIC.len()].copy_from_slice(&MAGIC);
    let id = id.as_bytes();
    let len = id.len().min(ID_LEN);
    body[MAGIC.len()..][..len].copy_from_slice(&id[..len]);
    seal(body, 0)
}

#[cfg(test)]
mod tests;
