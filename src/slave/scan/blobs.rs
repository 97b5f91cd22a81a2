//! Finds the blobs that a part of a local file refers to.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::scan_piece;
use crate::error::Error;
use crate::filestorage::Tid;
use crate::filestorage::blob::{BlobCollector, BlobReference};
use crate::filestorage::scan::Scanner;
use crate::io::read::AlignedBuf;

/// Reads the committed transactions of a file between two positions, slice by slice, and returns
/// the blobs that they refer to.
#[derive(Debug)]
pub struct BlobScan<'a> {
    file: &'a File,
    path: PathBuf,
    scanner: Scanner,
    collector: BlobCollector,
    buffer: AlignedBuf,
}

impl<'a> BlobScan<'a> {
    /// Starts at the position `from` of the file, which ends a transaction or is the start of the
    /// first one, and ends at `to`. The file's `path` is used for messages only.
    #[must_use]
    pub fn new(file: &'a File, path: &Path, from: u64, to: u64) -> Self {
        Self {
            file,
            path: path.to_owned(),
            scanner: Scanner::resume(from, None, to),
            collector: BlobCollector::default(),
            buffer: AlignedBuf::default(),
        }
    }

    /// Reads the next mebibyte at most, and returns the blobs of the transactions that end in it,
    /// in log order. All blobs of a transaction are in the same slice. Returns `None` once the
    /// scan has ended. It has reached the end if [`position`](Self::position) is the requested
    /// one; otherwise an unfinished or damaged transaction is there, or the file is shorter.
    pub fn next_slice(&mut self) -> Result<Option<Vec<BlobReference>>, Error> {
        let Self {
            file,
            path,
            scanner,
            collector,
            buffer,
        } = self;
        if !scan_piece(file, path, scanner, buffer, collector)? {
            return Ok(None);
        }
        let mut references = Vec::new();
        for candidate in collector.take() {
            let resolved = candidate.resolve(file).map_err(|error| {
                let reading = format!("read before {} in", candidate.position);
                Error::io(reading, path)(error)
            });
            references.extend(resolved?);
        }
        Ok(Some(references))
    }

    /// The tid of the last transaction that was read.
    #[must_use]
    pub fn last_tid(&self) -> Option<Tid> {
        self.scanner.last_tid()
    }

    /// The end of the last transaction that was read: its blobs, and those of all transactions
    /// before it, were returned.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.scanner.position()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::filestorage::MAGIC_LEN;
    use crate::filestorage::blob::tests::{BLOB, Data, Log, Record, history};

    fn scan(file: &File, from: u64, to: u64) -> (Vec<BlobReference>, u64) {
        let mut scan = BlobScan::new(file, Path::new("Data.fs"), from, to);
        let mut found = Vec::new();
        while let Some(slice) = scan.next_slice().expect("a slice") {
            found.extend(slice);
        }
        (found, scan.position())
    }

    fn stored(log: &Log) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&log.bytes).expect("its bytes");
        file
    }

    proptest! {
        #[test]
        fn two_scans_in_turn_find_all_blobs(history in history(), middle in any::<Index>()) {
            let file = stored(&history.log);
            let end = history.log.position();
            let positions = [&[MAGIC_LEN], &history.log.ends[..]].concat();
            let middle = *middle.get(&positions);
            let (first, at) = scan(&file, MAGIC_LEN, middle);
            prop_assert_eq!(at, middle);
            let (second, at) = scan(&file, middle, end);
            prop_assert_eq!(at, end);
            prop_assert_eq!([first, second].concat(), history.references);
        }
    }

    #[test]
    fn a_slice_is_small_and_has_whole_transactions() {
        const BLOBS: u64 = 1_000;
        let mut log = Log::new();
        for tid in 1..=60 {
            let record = |oid| Record {
                oid,
                prev: 0,
                data: Data::Pickle(BLOB.to_vec()),
            };
            log.append(tid, b' ', &(0..BLOBS).map(record).collect::<Vec<_>>());
        }
        let file = stored(&log);
        let mut scan = BlobScan::new(&file, Path::new("Data.fs"), MAGIC_LEN, log.position());
        let mut sizes = Vec::new();
        while let Some(slice) = scan.next_slice().expect("a slice") {
            sizes.push(slice.len() as u64);
        }
        assert_eq!(sizes.iter().sum::<u64>(), 60 * BLOBS);
        assert!(sizes.iter().all(|it| it % BLOBS == 0), "{sizes:?}");
        assert!(sizes.len() >= 4, "{sizes:?}");
    }

    #[test]
    fn a_scan_ends_before_an_unfinished_transaction() {
        let mut log = Log::new();
        let data = Data::Pickle(BLOB.to_vec());
        let record = Record {
            oid: 1,
            prev: 0,
            data,
        };
        log.append(1, b' ', std::slice::from_ref(&record));
        let position = log.position();
        log.append(2, b'c', &[record]);
        let (found, at) = scan(&stored(&log), MAGIC_LEN, log.position());
        assert_eq!((found.len(), at), (1, position));
        let (found, at) = scan(&stored(&log), MAGIC_LEN, position - 1);
        assert_eq!((found.len(), at), (0, MAGIC_LEN));
    }
}
