//! Any bytes as a `Data.fs` in memory: the scans in both directions, the check of records, the
//! search after damage, the index, and the objects that ZODB looks up.

use std::convert::Infallible;

use fssync::filestorage::MAGIC_LEN;
use fssync::filestorage::backward::{Backward, Preceding, ReadAt};
use fssync::filestorage::check::Checker;
use fssync::filestorage::index::Index;
use fssync::filestorage::index::builder::Builder;
use fssync::filestorage::index::sanity::{CheckedRecord, checked_records};
use fssync::filestorage::resync::{end_of, search};

use super::scene::fixtures;
use super::storage::Scanned;

/// A file that counts the bytes that are read.
struct Bytes<'a> {
    file: &'a [u8],
    read: usize,
}

impl ReadAt for &mut Bytes<'_> {
    type Error = Infallible;

    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), Infallible> {
        let start = offset as usize;
        buffer.copy_from_slice(&self.file[start..start + buffer.len()]);
        self.read += buffer.len();
        Ok(())
    }
}

/// Reads a file in every way.
///
/// # Panics
///
/// If two ways of reading do not agree, or one reads too much.
pub fn run(file: &[u8]) {
    let scanned = Scanned::of(file, usize::MAX);
    assert_eq!(
        scanned,
        Scanned::of(file, 7),
        "the size of the chunks does not matter"
    );
    assert!(scanned.position <= file.len().max(MAGIC_LEN as usize) as u64);
    if file.len() < MAGIC_LEN as usize {
        return;
    }
    let mut bytes = Bytes { file, read: 0 };
    check_index(&scanned, &mut bytes);
    check_backward(&scanned, &mut bytes);
    check_search(&scanned, &mut bytes);
    let most = 200 * file.len();
    assert!(bytes.read <= most, "{} bytes of {most}", bytes.read);
}

/// The index that is built from a scan must be one that ZODB accepts.
fn check_index(scanned: &Scanned, bytes: &mut Bytes<'_>) {
    let len = bytes.file.len() as u64;
    let mut checker = Checker::default();
    let mut builder = Builder::default();
    for &event in &scanned.events {
        builder.take(event);
        checker.take(event, &mut &mut *bytes, &mut |flaw| {
            assert!(flaw.position < len);
        });
    }
    assert_eq!(checker.transactions(), scanned.transactions().len() as u64);
    assert_eq!(builder.position(), scanned.position);
    let Some(built) = builder.finish() else {
        return;
    };
    let theirs = checker.index().expect("an index");
    assert!(
        built.iter().eq(theirs.iter()),
        "both indexes have the same objects"
    );
    let mut written = Vec::new();
    built
        .write(scanned.position, &mut written)
        .expect("it fits");
    let (read, position) = Index::read(&written[..], len).expect("an index");
    assert_eq!(position, scanned.position);
    assert!(
        read.iter().eq(built.iter()),
        "it is the same after writing and reading"
    );
    let Ok(looked_up) = checked_records(&mut *bytes, len, position);
    for CheckedRecord { oid, position: at } in looked_up {
        // If an object has two records in the transaction, the last one counts.
        assert!(built.get(oid) >= Some(at), "{oid} at {at}");
    }
}

/// A backward scan from the end of the forward scan must find the same transactions.
fn check_backward(scanned: &Scanned, bytes: &mut Bytes<'_>) {
    let mut backward = Backward::new(&mut *bytes, scanned.position);
    for transaction in scanned.transactions().iter().rev() {
        let found = backward.step();
        assert_eq!(found, Ok(Preceding::Transaction(*transaction)));
    }
    assert_eq!(backward.step(), Ok(Preceding::Start));
    let mut end = bytes.file.len() as u64;
    let mut backward = Backward::new(bytes, end);
    while let Ok(Preceding::Transaction(found)) = backward.step() {
        assert!(found.position < end);
        end = found.position;
    }
}

/// The search after the end of the scan must return a later position.
fn check_search(scanned: &Scanned, bytes: &mut Bytes<'_>) {
    let (start, limit) = (scanned.position, bytes.file.len() as u64);
    let last = scanned.transactions().last().map(|it| it.header.tid);
    let Ok(end) = end_of(&mut &mut *bytes, start, limit, last);
    let Ok(found) = search(&mut &mut *bytes, start, start + 1, limit, last);
    for next in [end, found].into_iter().flatten() {
        assert!((start + 1..=limit).contains(&next));
    }
}

/// The fixtures.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    fixtures().into_iter().map(|(_, bytes)| bytes).collect()
}
