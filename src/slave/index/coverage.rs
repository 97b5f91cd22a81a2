//! How much of the slave the index beside it covers, and what was appended since.
//!
//! Kept in the sidecar, so that a pass with nothing new finds out with one look
//! at the directory that the index needs no work: an index of a big site weighs
//! tens of megabytes, too much to be written again, or read, at every pass.

use std::fs;
use std::io::ErrorKind;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{Stored, remove};
use crate::error::Error;
use crate::filestorage::record::MIN_TXN_LEN;
use crate::slave::paths::{Sibling, SlavePaths};
use crate::slave::step::Slave;

/// How many bytes of the slave an index may leave to ZODB's scan: half a second,
/// read from a disk of 130 MB/s.
const MAX_UNCOVERED_LEN: u64 = 64 * 1024 * 1024;

/// How many records of the slave, of transactions and of data: half a second, at
/// the 2.3 to 4.6 µs that ZODB 6.4 takes for one of up to 3 kB on a busy machine.
const MAX_UNCOVERED_RECORDS: u64 = 100_000;

/// What was appended: whole transactions, and their data records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Records {
    /// How many transactions.
    pub transactions: u64,
    /// How many data records.
    pub data: u64,
}

/// The index as it was left, and what was appended since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Coverage {
    /// The index; `None` where ZODB would use none of this position, and none
    /// may lie there.
    stored: Option<Stored>,
    /// The position that one would be of, where there is none.
    position: u64,
    /// Up to where the records behind it are counted.
    counted: u64,
    records: Records,
    /// A position behind it of which ZODB would use none.
    #[serde(default)]
    unusable_at: Option<u64>,
}

impl Coverage {
    /// What [`store`](super::store) has left at `position`.
    #[must_use]
    pub fn of(stored: Option<Stored>, position: u64) -> Self {
        Self {
            stored,
            position,
            counted: position,
            records: Records::default(),
            unusable_at: None,
        }
    }

    /// Takes note that the index stays, as ZODB would use none of `position`.
    pub fn pass_over(&mut self, position: u64) {
        self.unusable_at = Some(position);
    }

    /// Whether ZODB could use an index of `position` instead, as far as is known.
    #[must_use]
    pub fn may_be_renewed_at(&self, position: u64) -> bool {
        self.position() < position && self.unusable_at != Some(position)
    }

    /// The index that was stored, if there is one.
    #[must_use]
    pub fn stored(&self) -> Option<Stored> {
        self.stored
    }

    /// The position that it is of, or would be, in bytes.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.stored.map_or(self.position, |stored| stored.position)
    }

    /// Counts what was appended. What nobody has counted before it, since a pass
    /// was killed, counts as so many records as there may be.
    pub fn count(&mut self, appended: Range<u64>, records: Records) {
        let missed = appended.start.saturating_sub(self.counted) / MIN_TXN_LEN;
        let Records { transactions, data } = &mut self.records;
        for (counted, more) in [(transactions, records.transactions), (data, records.data)] {
            *counted = counted.saturating_add(more).saturating_add(missed);
        }
        self.counted = appended.end;
    }

    /// Whether what was left there lies there still, and was left alone. Reads
    /// nothing.
    pub fn lies_there(&self, paths: &SlavePaths) -> Result<bool, Error> {
        match &self.stored {
            Some(stored) => stored.lies_there(paths),
            None => Ok(!exists(paths)?),
        }
    }

    /// Whether the index is to be stored again for a slave that ends at
    /// `position`: ZODB would have to scan the rest for longer than about a
    /// second, or it could use none before and may now.
    #[must_use]
    pub fn is_due(&self, position: u64) -> bool {
        let mut rest = *self;
        rest.count(position..position, Records::default());
        let Records { transactions, data } = rest.records;
        self.may_be_renewed_at(position)
            && (position - self.position() > MAX_UNCOVERED_LEN
                || transactions.saturating_add(data) > MAX_UNCOVERED_RECORDS
                || self.stored.is_none() && data > 0)
    }

    /// Whether ZODB's scan of so many bytes takes no longer than about half a
    /// second, if the records in them are not small.
    #[must_use]
    pub fn is_little(len: u64) -> bool {
        len <= MAX_UNCOVERED_LEN
    }
}

/// Whether anything lies under the index's name.
pub fn exists(paths: &SlavePaths) -> Result<bool, Error> {
    let path = paths.sibling(Sibling::ZodbIndex);
    match fs::symlink_metadata(&path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("look at", &path)(error)),
    }
}

/// Sees to it, before the slave is written from `position` on, that no index
/// lies beside it but the one that was left there, which is `known`: another may
/// be of another file, or say something of what comes then. A directory of that
/// name is no index for ZODB either, and stays.
pub fn make_way(slave: &Slave, known: Option<&Coverage>, position: u64) -> Result<(), Error> {
    let paths = &slave.paths;
    if let Some(known) = known
        && known.position() <= position
        && known.lies_there(paths)?
    {
        return Ok(());
    }
    let path = paths.sibling(Sibling::ZodbIndex);
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => remove(slave),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("look at", &path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(transactions: u64, data: u64) -> Records {
        Records { transactions, data }
    }

    #[test]
    fn an_index_is_due_when_zodb_would_scan_for_long() {
        let mut coverage = Coverage {
            // What was stored makes no difference here.
            stored: serde_json::from_value(serde_json::json!({
                "position": 1000,
                "digest": "0".repeat(64),
                "stamp": {"inode": 1, "size": 2, "modified": [3, 4]}
            }))
            .ok(),
            ..Coverage::of(None, 1000)
        };
        assert!(coverage.stored.is_some());
        assert!(!coverage.is_due(1000));
        coverage.count(1000..5000, records(1, 99_999));
        assert!(!coverage.is_due(5000));
        coverage.count(5000..5100, records(1, 0));
        assert!(coverage.is_due(5100));
        let mut coverage = Coverage {
            records: records(0, 0),
            counted: 1000,
            ..coverage
        };
        let end = 1000 + MAX_UNCOVERED_LEN;
        coverage.count(1000..end, records(1, 1));
        assert!(!coverage.is_due(end));
        coverage.count(end..end + 50, records(1, 0));
        assert!(coverage.is_due(end + 50));
    }

    #[test]
    fn what_nobody_counted_counts_as_many_small_records() {
        let mut coverage = Coverage::of(None, 1000);
        assert!(!coverage.is_due(1000));
        coverage.stored = None;
        let gap = MAX_UNCOVERED_RECORDS * MIN_TXN_LEN;
        assert!(coverage.is_due(1000 + gap));
        coverage.count(1000 + gap..2000 + gap, records(1, 1));
        let Records { transactions, data } = coverage.records;
        assert_eq!(
            (transactions, data),
            (MAX_UNCOVERED_RECORDS + 1, MAX_UNCOVERED_RECORDS + 1)
        );
    }

    #[test]
    fn where_there_could_be_no_index_the_next_object_is_cause_for_one() {
        let mut coverage = Coverage::of(None, 4);
        coverage.count(4..35, records(1, 0));
        assert!(!coverage.is_due(35));
        coverage.count(35..135, records(1, 1));
        assert!(coverage.is_due(135));
    }
}
