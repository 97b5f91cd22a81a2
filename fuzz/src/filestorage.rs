//! Any bytes as a `Data.fs`, in memory: the walks, the check of what they come by, the
//! search behind what is damaged, the index, and ZODB's look at it.

use std::convert::Infallible;

use fssync::filestorage::MAGIC_LEN;
use fssync::filestorage::backward::{Backward, Preceding, ReadAt};
use fssync::filestorage::check::Checker;
use fssync::filestorage::index::Index;
use fssync::filestorage::index::builder::Builder;
use fssync::filestorage::index::sanity::witnesses;
use fssync::filestorage::resync::{end_of, search};

use super::scene::fixtures;
use super::storage::Scanned;

/// A file that counts what is read of it.
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

/// All that is done with a file that is held in memory.
///
/// # Panics
///
/// Where two ways to read it do not agree, or one reads too much.
pub fn run(file: &[u8]) {
    let scanned = Scanned::of(file, usize::MAX);
    assert_eq!(scanned, Scanned::of(file, 7), "however it is cut in pieces");
    assert!(scanned.position <= file.len().max(MAGIC_LEN as usize) as u64);
    if file.len() < MAGIC_LEN as usize {
        return;
    }
    let mut bytes = Bytes { file, read: 0 };
    check_index(&scanned, &mut bytes);
    check_backward(&scanned, &mut bytes);
    check_behind(&scanned, &mut bytes);
    let most = 200 * file.len();
    assert!(bytes.read <= most, "{} bytes of {most}", bytes.read);
}

/// The index of what a scan has found is one that ZODB takes for the file's.
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
    assert!(built.iter().eq(theirs.iter()), "both have the same");
    let mut written = Vec::new();
    built
        .write(scanned.position, &mut written)
        .expect("it fits");
    let (read, position) = Index::read(&written[..], len).expect("an index");
    assert_eq!(position, scanned.position);
    assert!(read.iter().eq(built.iter()), "what is written is read");
    let Ok(looked_up) = witnesses(&mut *bytes, len, position);
    for (oid, at) in looked_up {
        // One that has two records in the transaction has the last one's.
        assert!(built.get(oid) >= Some(at), "{oid} at {at}");
    }
}

/// Backwards, from where the scan has come to, the same transactions come by.
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

/// Behind what could not be taken, the search goes on behind it.
fn check_behind(scanned: &Scanned, bytes: &mut Bytes<'_>) {
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
