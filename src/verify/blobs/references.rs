//! The blobs that the log refers to, in windows.

use std::fs::File;
use std::path::Path;
use std::vec;

use super::Wanted;
use super::ranges::LogRange;
use crate::error::Error;
use crate::slave::scan::blobs::BlobScan;

/// Reads a log and returns the blobs that it refers to.
pub(super) struct References<'a> {
    log: &'a File,
    path: &'a Path,
    /// The ranges that were not begun.
    ranges: vec::IntoIter<LogRange>,
    /// The scan of the current range.
    current: Option<CurrentRange<'a>>,
    position: u64,
    early_stop: Option<String>,
}

struct CurrentRange<'a> {
    scan: BlobScan<'a>,
    to: u64,
    is_due: bool,
}

impl<'a> References<'a> {
    /// Begins to read these ranges of the log at `path`, which must be in file order.
    pub(super) fn new(log: &'a File, path: &'a Path, ranges: Vec<LogRange>) -> Self {
        Self {
            log,
            path,
            position: ranges.first().map_or(0, |first| first.range.start),
            ranges: ranges.into_iter(),
            current: None,
            early_stop: None,
        }
    }

    /// Offset up to which the log was read, in bytes.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Why the rest of the log could not be read; `None` if it was read to its end so far.
    pub(super) fn early_stop(&self) -> Option<&str> {
        self.early_stop.as_deref()
    }

    /// The next blobs, sorted by key, each of them once: about `len`, or fewer at the end of the
    /// log. None follow an empty window. Calls `check` with the position before each read, and
    /// stops if that fails.
    pub(super) fn next_window(
        &mut self,
        len: usize,
        check: &dyn Fn(u64) -> Result<(), Error>,
    ) -> Result<Vec<Wanted>, Error> {
        let mut window: Vec<Wanted> = Vec::new();
        while window.len() < len && self.early_stop.is_none() {
            check(self.position)?;
            let Some(current) = &mut self.current else {
                let Some(LogRange { range, is_due }) = self.ranges.next() else {
                    break;
                };
                self.current = Some(CurrentRange {
                    scan: BlobScan::new(self.log, self.path, range.start, range.end),
                    to: range.end,
                    is_due,
                });
                continue;
            };
            let slice = current.scan.next_slice();
            self.position = current.scan.position();
            match slice {
                Ok(Some(references)) => {
                    let is_due = current.is_due;
                    window.extend(references.into_iter().map(|reference| Wanted {
                        key: reference.key,
                        is_optional: reference.is_optional,
                        is_due,
                        entry: None,
                    }));
                }
                Ok(None) if self.position == current.to => self.current = None,
                // The verification of the log has reported it.
                Ok(None) => {
                    self.early_stop = Some(format!("the log is damaged at {}", self.position));
                }
                Err(error) => self.early_stop = Some(error.display_chain()),
            }
        }
        window.sort_unstable_by_key(|wanted| wanted.key);
        // Only a damaged log has an object twice in the transactions of one tid.
        window.dedup_by(|later, first| {
            let is_same = later.key == first.key;
            if is_same {
                first.is_optional &= later.is_optional;
                first.is_due |= later.is_due;
            }
            is_same
        });
        Ok(window)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::ops::Range;

    use super::*;
    use crate::filestorage::MAGIC_LEN;
    use crate::filestorage::blob::tests::{BLOB, Data, Log, Record};

    /// A log of ten transactions with a blob each, of objects with decreasing oids.
    fn log() -> (Log, File) {
        let mut log = Log::new();
        for n in 1..=10 {
            let record = Record {
                oid: 100 - n,
                prev: 0,
                data: Data::Pickle(BLOB.to_vec()),
            };
            log.append(n, b' ', &[record]);
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&log.bytes).unwrap();
        (log, file)
    }

    fn part(range: Range<u64>, is_due: bool) -> LogRange {
        LogRange { range, is_due }
    }

    #[test]
    fn each_blob_is_returned_once_with_the_range_that_it_is_in() {
        let (log, file) = log();
        let (gap, since, end) = (log.ends[2], log.ends[6], log.position());
        let parts = vec![
            part(MAGIC_LEN..gap, true),
            part(gap..since, false),
            part(since..end, true),
        ];
        let mut references = References::new(&file, Path::new("Data.fs"), parts);
        let mut found = Vec::new();
        loop {
            // A range is the smallest piece of so short a log.
            let window = references.next_window(2, &|_| Ok(())).unwrap();
            if window.is_empty() {
                break;
            }
            found.push(window);
        }
        let lens: Vec<_> = found.iter().map(Vec::len).collect();
        assert_eq!(lens, [3, 4, 3]);
        for (n, wanted) in (1..).zip(found.iter().flatten()) {
            assert_eq!((wanted.key.tid.0, wanted.key.oid), (n, 100 - n));
            assert_eq!(wanted.is_due, n <= 3 || n > 7, "{n}");
        }
        assert_eq!(
            (references.position(), references.early_stop()),
            (end, None)
        );
    }

    #[test]
    fn a_window_ends_at_damage_and_at_an_interruption() {
        let (log, file) = log();
        let parts = || vec![part(MAGIC_LEN..log.position() - 1, true)];
        let mut references = References::new(&file, Path::new("Data.fs"), parts());
        let window = references.next_window(100, &|_| Ok(())).unwrap();
        assert_eq!((window.len(), references.position()), (9, log.ends[8]));
        assert!(references.early_stop().is_some());
        let mut references = References::new(&file, Path::new("Data.fs"), parts());
        let interrupted = references.next_window(100, &|_| Err(Error::Interrupted));
        assert!(matches!(interrupted, Err(Error::Interrupted)));
    }
}
