//! How much of the slave the stored index covers, and how much was appended since.
//!
//! The sidecar holds this information, so that a pass with nothing new needs one `stat` call to
//! find out that the index needs no work. The index of a large site has tens of megabytes, too
//! much to read or write in every pass.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{StoredIndex, remove};
use crate::error::Error;
use crate::filestorage::record::MIN_TXN_LEN;
use crate::slave::paths::{Sibling, SlavePaths};
use crate::slave::small_file::stat_if_exists;
use crate::slave::step::Slave;

/// How many bytes after the index's position ZODB may have to scan: half a second, read from a
/// disk of 130 MB/s.
const MAX_UNCOVERED_LEN: u64 = 64 * 1024 * 1024;

/// How many transactions and data records after the index's position ZODB may have to scan:
/// half a second, at the 2.3 to 4.6 µs that ZODB 6.4 needs for one of up to 3 kB on a busy
/// machine.
const MAX_UNCOVERED_RECORDS: u64 = 100_000;

/// A number of records of whole transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct RecordCount {
    /// Number of transactions.
    pub transactions: u64,
    /// Number of data records.
    pub data: u64,
}

/// The state of the index when fssync last worked on it, and the number of records that were
/// appended to the slave since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct IndexCoverage {
    /// The index. `None` if ZODB would not use one of this position; then there must be none.
    stored: Option<StoredIndex>,
    /// The position of the index, or the position for which there is none.
    position: u64,
    /// The position up to which the records after the index are counted.
    counted: u64,
    records: RecordCount,
    /// A later position whose index ZODB would not use.
    #[serde(default)]
    unusable_at: Option<u64>,
}

impl IndexCoverage {
    /// The state after [`store`](super::store) for `position`.
    #[must_use]
    pub fn of(stored: Option<StoredIndex>, position: u64) -> Self {
        Self {
            stored,
            position,
            counted: position,
            records: RecordCount::default(),
            unusable_at: None,
        }
    }

    /// Records that ZODB would not use the index of `position`, so that the older one remains.
    pub fn mark_unusable_at(&mut self, position: u64) {
        self.unusable_at = Some(position);
    }

    /// Whether an index of `position` would be newer than this one and, as far as is known,
    /// usable for ZODB.
    #[must_use]
    pub fn can_advance_to(&self, position: u64) -> bool {
        self.position() < position && self.unusable_at != Some(position)
    }

    /// The stored index, if there is one.
    #[must_use]
    pub fn stored(&self) -> Option<StoredIndex> {
        self.stored
    }

    /// The position of the index, or the position for which there is none, in bytes.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.stored.map_or(self.position, |stored| stored.position)
    }

    /// Adds the number of records in the appended range. Bytes before the range that were never
    /// counted, because a pass was killed, count as the largest possible number of records.
    pub fn count(&mut self, appended: Range<u64>, records: RecordCount) {
        let missed = appended.start.saturating_sub(self.counted) / MIN_TXN_LEN;
        let RecordCount { transactions, data } = &mut self.records;
        for (counted, more) in [(transactions, records.transactions), (data, records.data)] {
            *counted = counted.saturating_add(more).saturating_add(missed);
        }
        self.counted = appended.end;
    }

    /// Whether the index, or its absence, is still as fssync left it. Makes one `stat` call.
    pub fn is_unchanged(&self, paths: &SlavePaths) -> Result<bool, Error> {
        match &self.stored {
            Some(stored) => stored.is_unchanged(paths),
            None => Ok(!exists(paths)?),
        }
    }

    /// Whether the index should be stored again for a slave that ends at `position`: ZODB would
    /// scan the rest for longer than about a second, or there was no usable index so far and
    /// there may be one now.
    #[must_use]
    pub fn is_due(&self, position: u64) -> bool {
        let mut rest = *self;
        rest.count(position..position, RecordCount::default());
        let RecordCount { transactions, data } = rest.records;
        self.can_advance_to(position)
            && (position - self.position() > MAX_UNCOVERED_LEN
                || transactions.saturating_add(data) > MAX_UNCOVERED_RECORDS
                || self.stored.is_none() && data > 0)
    }
}

/// Whether ZODB scans `len` bytes in about half a second or less, unless their records are very
/// small.
#[must_use]
pub fn is_short_scan(len: u64) -> bool {
    len <= MAX_UNCOVERED_LEN
}

/// Whether there is a file, or anything else, with the name of the index.
pub fn exists(paths: &SlavePaths) -> Result<bool, Error> {
    let found = stat_if_exists(&paths.sibling(Sibling::ZodbIndex))?;
    Ok(found.is_some())
}

/// Removes an index that could become wrong when the slave is written from `position` on. Only
/// the index that fssync stored, `known`, of that position or an earlier one, may remain. Any
/// other may be of another file, or of a position that the slave has not reached: once the
/// slave has grown past it, ZODB would trust it.
pub fn remove_stale(
    slave: &Slave,
    known: Option<&IndexCoverage>,
    position: u64,
) -> Result<(), Error> {
    let paths = &slave.paths;
    if let Some(known) = known
        && known.position() <= position
        && known.is_unchanged(paths)?
    {
        return Ok(());
    }
    match stat_if_exists(&paths.sibling(Sibling::ZodbIndex))? {
        // ZODB cannot use a directory as an index; it does no harm.
        Some(found) if !found.is_dir() => remove(slave),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(transactions: u64, data: u64) -> RecordCount {
        RecordCount { transactions, data }
    }

    #[test]
    fn an_index_is_due_when_zodb_would_scan_for_long() {
        let mut coverage = IndexCoverage {
            // Any stored index will do.
            stored: serde_json::from_value(serde_json::json!({
                "position": 1000,
                "digest": "0".repeat(64),
                "stamp": {"inode": 1, "size": 2, "modified": [3, 4]}
            }))
            .ok(),
            ..IndexCoverage::of(None, 1000)
        };
        assert!(coverage.stored.is_some());
        assert!(!coverage.is_due(1000));
        coverage.count(1000..5000, records(1, 99_999));
        assert!(!coverage.is_due(5000));
        coverage.count(5000..5100, records(1, 0));
        assert!(coverage.is_due(5100));
        let mut coverage = IndexCoverage {
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
    fn bytes_that_were_not_counted_count_as_many_small_records() {
        let mut coverage = IndexCoverage::of(None, 1000);
        assert!(!coverage.is_due(1000));
        coverage.stored = None;
        let gap = MAX_UNCOVERED_RECORDS * MIN_TXN_LEN;
        assert!(coverage.is_due(1000 + gap));
        coverage.count(1000 + gap..2000 + gap, records(1, 1));
        let RecordCount { transactions, data } = coverage.records;
        assert_eq!(
            (transactions, data),
            (MAX_UNCOVERED_RECORDS + 1, MAX_UNCOVERED_RECORDS + 1)
        );
    }

    #[test]
    fn if_there_was_no_usable_index_the_next_object_makes_one_due() {
        let mut coverage = IndexCoverage::of(None, 4);
        coverage.count(4..35, records(1, 0));
        assert!(!coverage.is_due(35));
        coverage.count(35..135, records(1, 1));
        assert!(coverage.is_due(135));
    }
}
