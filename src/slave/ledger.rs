//! The ledger beside the slave: digests of the bytes that it should have.
//!
//! An entry says what digest a range of the slave's committed bytes has: of what
//! came from the master, before it was written here. So a byte that changed on
//! the way to the disk, or there since, is found by `fssync verify`, with no
//! master at hand.
//!
//! | offset | size | what |
//! | --- | --- | --- |
//! | 0 | 64 | a record that says which file it is of: magic (16), the slave's inode number (8), when it was created, in seconds (8) and nanoseconds (4) or zeros, zeros (12), a check (16) |
//! | 64 | 64 | an entry: start (8), end (8), BLAKE3 digest (32), a check (16) |
//! | 128 | … | more entries, each from where the one before it ends |
//!
//! Integers are big-endian, offsets and lengths in bytes. A check is the start of the
//! BLAKE3 digest of the record before it, and of its number.
//!
//! The first entry starts at 0, and none crosses the border of a segment of
//! [`SEGMENT_LEN`]. A segment that is complete has one entry. Behind the last of
//! those lie the entries of the segment that grows, joined (`join`) as they come in, so
//! that there are never many.
//!
//! # What a crash leaves
//!
//! Entries are written once their bytes are committed and durable, at the end of the
//! ledger or over those that they join, and are not synced. What is cut, torn, or
//! came to the disk in another order fails its check or does not start where
//! the one before it ends: the ledger ends before it. Nothing that is there can be
//! wrong, since committed bytes do not change. A full copy is another file: its
//! ledger is put in the place of the old one, and one that is of another file counts
//! for nothing.
//!
//! Where the ledger ends before the slave does, later passes ask the master for what
//! lacks ([`upkeep`](crate::upkeep)).

mod join;
mod segment_hasher;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

pub use self::segment_hasher::SegmentHasher;

use self::join::join;
use super::owner::Owner;
use super::paths::{self, OpenMode, Sibling, SlavePaths};
use super::step::Slave;
use crate::error::Error;
use crate::io::digest::Digest;
use crate::io::read::read_fully;

/// The length of a segment, in bytes: what verifying tells apart, without a master.
pub const SEGMENT_LEN: u64 = 4 * 1024 * 1024;

const MAGIC: [u8; 16] = *b"fssync ledger 1\n";
const RECORD_LEN: usize = 64;
const CHECK_LEN: usize = 16;
const BODY_LEN: usize = RECORD_LEN - CHECK_LEN;

/// How many records at the end of a ledger are read to extend it: more than a
/// segment that grows has.
const TAIL_RECORDS: u64 = 64;

type Record = [u8; RECORD_LEN];

/// The digest that a range of the slave's bytes has.
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

    /// The entry of a record; `None` if it is none.
    fn decode(record: &Record, number: u64) -> Option<Self> {
        let body = open(record, number)?;
        let (start, rest) = body.split_first_chunk()?;
        let (end, digest) = rest.split_first_chunk()?;
        let range = u64::from_be_bytes(*start)..u64::from_be_bytes(*end);
        let is_one = range.start < range.end && range.end <= segment_end(range.start);
        is_one.then_some(Self {
            range,
            digest: Digest::from(*digest.first_chunk::<{ Digest::LEN }>()?),
        })
    }
}

/// Where the segment ends that the byte at `offset` lies in.
#[must_use]
pub fn segment_end(offset: u64) -> u64 {
    (offset / SEGMENT_LEN + 1).saturating_mul(SEGMENT_LEN)
}

/// Completes a record.
fn seal(body: [u8; BODY_LEN], number: u64) -> Record {
    let mut record = [0; RECORD_LEN];
    record[..BODY_LEN].copy_from_slice(&body);
    record[BODY_LEN..].copy_from_slice(&check(&body, number));
    record
}

/// What a record says; `None` if it is not as it was written.
fn open(record: &Record, number: u64) -> Option<&[u8; BODY_LEN]> {
    let (body, found) = record.split_first_chunk()?;
    (*found == check(body, number)).then_some(body)
}

fn check(body: &[u8; BODY_LEN], number: u64) -> [u8; CHECK_LEN] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(body).update(&number.to_be_bytes());
    let mut check = [0; CHECK_LEN];
    check.copy_from_slice(&hasher.finalize().as_bytes()[..CHECK_LEN]);
    check
}

/// A ledger, open.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    path: PathBuf,
    /// How many records it has, the first one included.
    records: u64,
}

impl Ledger {
    /// The ledger of `data`, which is the slave; `None` if there is none, or it is
    /// another file's.
    pub fn open(paths: &SlavePaths, data: &File, mode: OpenMode) -> Result<Option<Self>, Error> {
        let path = paths.sibling(Sibling::Ledger);
        let file = match paths::open(&path, mode) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(Error::io("open", &path))?,
        };
        let found = file.metadata().map_err(Error::io("look at", &path))?;
        let ledger = Self {
            file,
            path,
            records: found.len() / RECORD_LEN as u64,
        };
        let is_of_it = ledger.read(0, 1)? == [head(paths, data)?];
        Ok(is_of_it.then_some(ledger))
    }

    /// Puts an empty ledger for `data`, which is the slave, in the place of
    /// whatever lies there.
    fn create(paths: &SlavePaths, data: &File) -> Result<Self, Error> {
        let (path, new) = (paths.sibling(Sibling::Ledger), paths.sibling(Sibling::Tmp));
        let head = head(paths, data)?;
        for path in [&new, &path] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Error::io("remove", path)(error));
                }
                _ => {}
            }
        }
        let file = Owner::of(paths)?.create_new(&new)?;
        let stored = file
            .write_all_at(&head, 0)
            .and_then(|()| fs::rename(&new, &path));
        if let Err(error) = stored {
            // The first failure is the one to tell.
            let _ = fs::remove_file(&new);
            return Err(Error::io("write", &new)(error));
        }
        Ok(Self {
            file,
            path,
            records: 1,
        })
    }

    /// Whether it ends at `position`. Reads one record.
    pub fn ends_at(&self, position: u64) -> Result<bool, Error> {
        let Some(last) = self.records.checked_sub(1).filter(|&last| last > 0) else {
            return Ok(position == 0);
        };
        let last = self.read_entries(last, 1)?.pop().flatten();
        Ok(last.is_some_and(|last| last.range.end == position))
    }

    /// Up to where the slave's bytes have digests, from its start, and no further
    /// than `limit`.
    pub fn end(&self, limit: u64) -> Result<u64, Error> {
        Ok(self.tail(limit)?.end())
    }

    /// The entries, in their order; `None` in the place of one that is not as it was
    /// written. No more of them than a slave of `size` bytes can have.
    #[must_use]
    pub fn entries(self, size: u64) -> Entries {
        let segments = size / SEGMENT_LEN + 1;
        Entries {
            ledger: self,
            numbers: 1..1 + segments * TAIL_RECORDS,
            read: Vec::new().into_iter(),
        }
    }

    /// Adds entries, of which each starts where the one before it ends. Nothing is
    /// added where they do not follow what the ledger has. What it has behind their
    /// start is forgotten.
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
        let is_growing = |entry: &LedgerEntry| segment_end(entry.range.start) == segment_end(start);
        let settled = tail.entries.iter().take_while(|it| !is_growing(it)).count();
        let mut grown = tail.entries.split_off(settled);
        grown.extend(entries);
        self.write(tail.number + settled as u64, &join(data, paths, grown)?)
    }

    /// The last entries that follow one another, as far as they reach no further
    /// than `limit`.
    fn tail(&self, limit: u64) -> Result<LedgerTail, Error> {
        let number = self.records.saturating_sub(TAIL_RECORDS).max(1);
        let read = self.read_entries(number, TAIL_RECORDS)?;
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

    /// Has the ledger end with these entries, the first of them in the record of
    /// this number.
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

    /// Up to `count` records.
    fn read(&self, number: u64, count: u64) -> Result<Vec<Record>, Error> {
        let mut bytes = vec![0; count as usize * RECORD_LEN];
        let got = read_fully(&self.file, &mut bytes, number * RECORD_LEN as u64)
            .map_err(Error::io("read", &self.path))?;
        Ok(bytes[..got].as_chunks().0.to_vec())
    }
}

/// The end of a ledger.
struct LedgerTail {
    /// The number of the first entry's record.
    number: u64,
    entries: Vec<LedgerEntry>,
}

impl LedgerTail {
    fn end(&self) -> u64 {
        self.entries.last().map_or(0, |last| last.range.end)
    }
}

/// The entries of a ledger. There are none behind an error.
#[derive(Debug)]
pub struct Entries {
    ledger: Ledger,
    /// Those of the records that are still to be read.
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

/// The first record of the ledger of a slave. An inode number alone comes back after
/// two packs of the slave's.
fn head(paths: &SlavePaths, data: &File) -> Result<Record, Error> {
    let found = data
        .metadata()
        .map_err(Error::io("look at", paths.data()))?;
    let created = found.created().unwrap_or(UNIX_EPOCH);
    let since = created.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut body = [0; BODY_LEN];
    body[..16].copy_from_slice(&MAGIC);
    body[16..24].copy_from_slice(&found.ino().to_be_bytes());
    body[24..32].copy_from_slice(&since.as_secs().to_be_bytes());
    body[32..36].copy_from_slice(&since.subsec_nanos().to_be_bytes());
    Ok(seal(body, 0))
}

/// Opens the slave's ledger, or begins one.
fn open_or_create(slave: &Slave, data: &File) -> Result<Ledger, Error> {
    if let Some(ledger) = Ledger::open(&slave.paths, data, OpenMode::ReadWrite)? {
        return Ok(ledger);
    }
    slave.check_cancelled()?;
    Ledger::create(&slave.paths, data)
}

/// Notes what digests bytes of the slave's have, which is `data`: bytes that are
/// committed and durable. Nothing is noted where the ledger lacks what precedes them;
/// one is begun for bytes that nothing precedes.
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
