//! The parts of the log whose blobs must be there.
//!
//! The sidecar records two ranges of the log whose blobs have been copied
//! ([`BlobCoverage`]). A missing blob of another transaction is not damage: passes are still
//! fetching older blobs, or another program has appended to the slave.

use std::ops::Range;

use crate::filestorage::MAGIC_LEN;
use crate::slave::sidecar::BlobCoverage;

/// Which blobs must be there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expectation<'a> {
    /// All to which the log refers.
    All,
    /// Those of the transactions that were copied with their blobs.
    Copied(&'a BlobCoverage),
    /// Unknown: the sidecar is lost, or belongs to another file.
    Unknown,
}

/// A part of the log, between two positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogRange {
    /// Offsets in bytes.
    pub(super) range: Range<u64>,
    /// Whether all blobs of its transactions must be there.
    pub(super) is_due: bool,
}

/// Divides a log up to `position`, in file order. No range is empty.
pub(super) fn ranges(position: u64, expectation: Expectation<'_>) -> Vec<LogRange> {
    let (complete, since, until) = match expectation {
        Expectation::All => (position, position, position),
        Expectation::Unknown => (MAGIC_LEN, position, position),
        Expectation::Copied(state) => (state.complete, state.since, state.until),
    };
    let bounds = [
        (complete, true),
        (since, false),
        // If the ranges have been joined, `complete` contains the second one.
        (until, true),
        (position, false),
    ];
    let mut from = MAGIC_LEN;
    let mut ranges = Vec::new();
    for (to, is_due) in bounds {
        let to = to.min(position);
        if to > from {
            let range = from..to;
            ranges.push(LogRange { range, is_due });
            from = to;
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// The ranges of a log that ends at 1000; those that must be complete come first.
    fn of(complete: u64, since: u64, until: u64) -> Vec<(Range<u64>, bool)> {
        let mut state = BlobCoverage::new(PathBuf::new(), String::new(), String::new(), 0);
        (state.complete, state.since, state.until) = (complete, since, until);
        divided(Expectation::Copied(&state))
    }

    fn divided(expectation: Expectation<'_>) -> Vec<(Range<u64>, bool)> {
        let ranges = ranges(1000, expectation).into_iter();
        ranges.map(|it| (it.range, it.is_due)).collect()
    }

    #[test]
    fn a_log_is_divided_at_the_positions_of_the_sidecar() {
        assert_eq!(of(1000, 600, 1000), [(4..1000, true)]);
        assert_eq!(
            of(200, 600, 800),
            [
                (4..200, true),
                (200..600, false),
                (600..800, true),
                (800..1000, false)
            ]
        );
        assert_eq!(of(4, 1000, 1000), [(4..1000, false)]);
        // Another program has truncated the slave.
        assert_eq!(of(2000, 600, 2000), [(4..1000, true)]);
        assert_eq!(of(200, 1500, 2000), [(4..200, true), (200..1000, false)]);
    }

    #[test]
    fn without_a_sidecar_all_blobs_or_none_must_be_there() {
        assert_eq!(divided(Expectation::All), [(4..1000, true)]);
        assert_eq!(divided(Expectation::Unknown), [(4..1000, false)]);
        assert_eq!(ranges(4, Expectation::All), []);
    }
}
