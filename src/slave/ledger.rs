//! The ledger, `Data.fs.fssync-ledger`: digests of the slave's bytes.
//!
//! An entry has the digest of a range of committed bytes, computed from the bytes that came from
//! the master, before they were written here. `fssync verify` can therefore find a byte that
//! changed on its way to the disk, or on the disk, without the master.
//!
//! | offset | size | contents |
//! | --- | --- | --- |
//! | 0 | 64 | the head, which identifies the slave: magic (16), inode number (8), time of creation in seconds (8) and nanoseconds (4), or zeros if it is unknown, zeros (12), check (16) |
//! | 64 | 64 | an entry: start (8), end (8), BLAKE3 digest (32), check (16) |
//! | 128 | … | more entries |
//!
//! Integers are big-endian; offsets and lengths are in bytes. Each record is sealed (`sealed`).
//!
//! Invariants:
//!
//! 1. The first entry starts at 0. Each further one starts at the end of the one before it.
//! 2. No entry crosses the end of a segment of [`SEGMENT_LEN`].
//! 3. A complete segment has one entry. The last segment, which still grows, has a few: they are
//!    joined (`join`) as they are added.
//!
//! # Order of writes, and the state after a crash
//!
//! Entries are written when their bytes are committed and durable. They are written at the end of
//! the ledger, or over the entries that they replace, and are not synced.
//!
//! 1. *A crash during a write* can leave entries that are missing, torn, or older than others.
//!    Such an entry fails its check, or does not start at the end of the one before it. The ledger
//!    ends before it.
//! 2. *No valid entry is wrong,* because committed bytes do not change.
//! 3. *After a full copy* the slave is another file. A new ledger replaces the old one. If that
//!    fails, the head does not match the slave, and the old ledger is ignored.
//! 4. *A ledger that ends before the slave does* is completed by later passes, which ask the
//!    master for the missing digests (`upkeep`).

mod join;
mod segment_hasher;

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

pub use self::segment_hasher::SegmentHasher;

use self::join::join;
use super::paths::{OpenMode, Sibling, SlavePaths};
use super::sealed::{BODY_LEN, RECORD_LEN, Record, seal, unseal};
use super::small_file::{open_if_exists, remove_if_exists, replace_small_file};
use super::step::Slave;
use crate::error::Error;
use crate::io::digest::Digest;
use crate::io::read::read_fully;

/// The length of a segment, in bytes. Without a master, `verify` locates damage to one segment.
pub const SEGMENT_LEN: u64 = 4 * 1024 * 1024;

const MAGIC: [u8; 16] = *b"fssync ledger 1\n";

/// How many records at the end of a ledger are read to extend it: more than an incomplete segment
/// has.
const TAIL_RECORDS: u64 = 64;

/// The digest of a range of the slave's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The range, within one segment.
    pub range: Range<u64>,
    /// Its digest.
    pub digest: Digest,
}

impl LedgerEntry {
    fn encode(&self, number: u64) -> Record {
        let mut body = [0; BODY_LEN];
        body[..8].copy_from_slice(&self.range.start.to_be_bytes());
        body[8..16].copy_from_slice(&self.range.end.to_be_bytes());
        body[16..].copy_from_slice(self.digest.as_bytes());
        seal(body, number)
    }

    /// Decodes a record. `None` if the check fails, or the range is not within one segment.
    fn decode(record: &Record, number: u64) -> Option<Self> {
        let body = unseal(record, number)?;
        let (start, rest) = body.split_first_chunk()?;
        let (end, digest) = rest.split_first_chunk()?;
        let range = u64::from_be_bytes(*start)..u64::from_be_bytes(*end);
        let is_valid = range.start < range.end && range.end <= segment_end(range.start);
        is_valid.then_some(Self {
            range,
            digest: Digest::from(*digest.first_chunk::<{ Digest::LEN }>()?),
        })
    }
}

/// The end of the segment that contains the byte at `offset`.
#[must_use]
pub fn segment_end(offset: u64) -> u64 {
    (offset / SEGMENT_LEN + 1).saturating_mul(SEGMENT_LEN)
}

/// An open ledger.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    path: PathBuf,
    /// Number of records, including the head.
    records: u64,
}

impl Ledger {
    /// Opens the ledger of `data`, which is the slave. `None` if there is none, or it belongs to
    /// another file.
    pub fn open(paths: &SlavePaths, data: &File, mode: OpenMode) -> Result<Option<Self>, Error> {
        let path = paths.sibling(Sibling::Ledger);
        let Some(file) = open_if_exists(&path, mode)? else {
            return Ok(None);
        };
        let found = file.metadata().map_err(Error::io("stat", &path))?;
        let ledger = Self {
            file,
            path,
            records: found.len() / RECORD_LEN as u64,
        };
        let is_of_slave = ledger.read(0, 1)? == [head(paths, data)?];
        Ok(is_of_slave.then_some(ledger))
    }

    /// Replaces any ledger with an empty one for `data`, which is the slave.
    fn create(paths: &SlavePaths, data: &File) -> Result<Self, Error> {
        let path = paths.sibling(Sibling::Ledger);
        let head = head(paths, data)?;
        // The old ledger is of another file. It goes first, even if there is no room for a new one.
        remove_if_exists(&path)?;
        let file = replace_small_file(paths, Sibling::Tmp, &path, &head)?;
        Ok(Self {
            file,
            path,
            records: 1,
        })
    }

    /// Whether the last entry ends at `position`. Reads one record.
    pub fn ends_at(&self, position: u64) -> Result<bool, Error> {
        let Some(last) = self.records.checked_sub(1).filter(|&last| last > 0) else {
            return Ok(position == 0);
        };
        let last = self.read_entries(last, 1)?.pop().flatten();
        Ok(last.is_some_and(|last| last.range.end == position))
    }

    /// The offset up to which all bytes of the slave have digests, at most `limit`.
    pub fn end(&self, limit: u64) -> Result<u64, Error> {
        Ok(self.tail(limit)?.end())
    }

    /// The entries in order, with `None` for each one that is invalid. At most as many as a slave
    /// of `size` bytes can have.
    #[must_use]
    pub fn entries(self, size: u64) -> Entries {
        let segments = size / SEGMENT_LEN + 1;
        Entries {
            ledger: self,
            numbers: 1..1 + segments * TAIL_RECORDS,
            read: Vec::new().into_iter(),
        }
    }

    /// Adds consecutive entries. Adds nothing if the ledger has no entry that ends at their start.
    /// Entries of the ledger after their start are dropped.
    fn extend(
        &mut self,
        paths: &SlavePaths,
        data: &File,
        entries: Vec<LedgerEntry>,
    ) -> Result<(), Error> {
        let Some(start) = entries.first().map(|first| first.range.start) else {
            return Ok(());
        };
        let mut tail = self.tail(start)?;
        if tail.end() != start {
            return Ok(());
        }
        // Entries of complete segments stay as they are. Those of the last segment are joined with
        // the new ones, and written over.
        let is_last = |entry: &LedgerEntry| segment_end(entry.range.start) == segment_end(start);
        let complete = tail.entries.iter().take_while(|it| !is_last(it)).count();
        let mut last = tail.entries.split_off(complete);
        last.extend(entries);
        self.write(tail.number + complete as u64, &join(data, paths, last)?)
    }

    /// The last entries, as far as they are consecutive and end at `limit` or before.
    fn tail(&self, limit: u64) -> Result<LedgerTail, Error> {
        let number = self.records.saturating_sub(TAIL_RECORDS).max(1);
        let read = self.read_entries(number, TAIL_RECORDS)?;
        // Invalid entries at the start of this range do not concern the end of the ledger.
        let before = read.iter().take_while(|entry| entry.is_none()).count();
        let mut tail = LedgerTail {
            number: number + before as u64,
            entries: Vec::new(),
        };
        for entry in read.into_iter().skip(before).map_while(|entry| entry) {
            let follows = tail.entries.is_empty() || tail.end() == entry.range.start;
            if !follows || entry.range.end > limit {
                break;
            }
            tail.entries.push(entry);
        }
        if tail.entries.is_empty() {
            tail.number = 1;
        }
        Ok(tail)
    }

    /// Writes entries to the records from `number` on, and truncates the ledger after them.
    fn write(&mut self, number: u64, entries: &[LedgerEntry]) -> Result<(), Error> {
        let records: Vec<u8> = (number..)
            .zip(entries)
            .flat_map(|(number, entry)| entry.encode(number))
            .collect();
        let records_after = number + entries.len() as u64;
        self.file
            .write_all_at(&records, number * RECORD_LEN as u64)
            .and_then(|()| {
                if records_after < self.records {
                    self.file.set_len(records_after * RECORD_LEN as u64)?;
                }
                Ok(())
            })
            .map_err(Error::io("write", &self.path))?;
        self.records = records_after;
        Ok(())
    }

    fn read_entries(&self, number: u64, count: u64) -> Result<Vec<Option<LedgerEntry>>, Error> {
        let records = self.read(number, count)?;
        let entries = (number..).zip(&records);
        Ok(entries
            .map(|(number, record)| LedgerEntry::decode(record, number))
            .collect())
    }

    /// Reads up to `count` records from `number` on.
    fn read(&self, number: u64, count: u64) -> Result<Vec<Record>, Error> {
        let mut bytes = vec![0; count as usize * RECORD_LEN];
        let got = read_fully(&self.file, &mut bytes, number * RECORD_LEN as u64)
            .map_err(Error::io("read", &self.path))?;
        Ok(bytes[..got].as_chunks().0.to_vec())
    }
}

/// The end of a ledger.
struct LedgerTail {
    /// Number of the first entry's record.
    number: u64,
    entries: Vec<LedgerEntry>,
}

impl LedgerTail {
    fn end(&self) -> u64 {
        self.entries.last().map_or(0, |last| last.range.end)
    }
}

/// Iterates over the entries of a ledger. Ends after an error.
#[derive(Debug)]
pub struct Entries {
    ledger: Ledger,
    /// Numbers of the records that were not read yet.
    numbers: Range<u64>,
    read: std::vec::IntoIter<Option<LedgerEntry>>,
}

impl Iterator for Entries {
    type Item = Result<Option<LedgerEntry>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(entry) = self.read.next() {
            return Some(Ok(entry));
        }
        let Range { start, end } = self.numbers;
        let count = (end - start).min(TAIL_RECORDS);
        match self.ledger.read_entries(start, count) {
            Ok(read) => {
                self.numbers.start += read.len() as u64;
                self.read = read.into_iter();
                self.read.next().map(Ok)
            }
            Err(error) => {
                self.numbers.start = end;
                Some(Err(error))
            }
        }
    }
}

/// The head of the slave's ledger. The inode number alone does not identify the slave: the file
/// system may use it again after a second pack.
fn head(paths: &SlavePaths, data: &File) -> Result<Record, Error> {
    let found = data.metadata().map_err(Error::io("stat", paths.data()))?;
    let created = found.created().unwrap_or(UNIX_EPOCH);
    let since = created.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut body = [0; BODY_LEN];
    body[..16].copy_from_slice(&MAGIC);
    body[16..24].copy_from_slice(&found.ino().to_be_bytes());
    body[24..32].copy_from_slice(&since.as_secs().to_be_bytes());
    body[32..36].copy_from_slice(&since.subsec_nanos().to_be_bytes());
    Ok(seal(body, 0))
}

/// Opens the slave's ledger, or creates an empty one.
fn open_or_create(slave: &Slave, data: &File) -> Result<Ledger, Error> {
    if let Some(ledger) = Ledger::open(&slave.paths, data, OpenMode::ReadWrite)? {
        return Ok(ledger);
    }
    slave.check_cancelled()?;
    Ledger::create(&slave.paths, data)
}

/// Adds the digests of bytes of `data`, which is the slave. The bytes must be committed and
/// durable. Entries that start at 0 create a ledger if there is none; others are ignored if the
/// ledger does not reach their start.
pub fn note(slave: &Slave, data: &File, entries: Vec<LedgerEntry>) -> Result<(), Error> {
    let Some(first) = entries.first() else {
        return Ok(());
    };
    let ledger = if first.range.start == 0 {
        Some(open_or_create(slave, data)?)
    } else {
        Ledger::open(&slave.paths, data, OpenMode::ReadWrite)?
    };
    slave.check_cancelled()?;
    match ledger {
        Some(mut ledger) => ledger.extend(&slave.paths, data, entries),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
