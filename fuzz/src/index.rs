//! Any bytes as a `Data.fs.index`: they are rejected as foreign, or written back byte for
//! byte.

use fssync::filestorage::index::Index;
use fssync::filestorage::index::builder::Builder;
use fssync::filestorage::index::pickle::{Reader, read_position};

use super::scene::fixtures;
use super::storage::Scanned;

/// Reads an index and writes it.
///
/// # Panics
///
/// If the bytes differ.
pub fn run(file: &[u8]) {
    let by_form = by_form(file);
    let Ok((index, position)) = Index::read(file, u64::MAX) else {
        return;
    };
    assert_eq!(read_position(file).expect("the position"), position);
    let mut written = Vec::new();
    index.write(position, &mut written).expect("it fits");
    assert_eq!(written, file);
    let by_form = by_form.expect("it is in ZODB's form");
    assert!(
        index.iter().eq(by_form),
        "both readers find the same objects"
    );
    for (oid, at) in index.iter() {
        assert!(at < position);
        assert_eq!(index.get(oid), Some(at));
    }
}

/// The objects in a file that has the format of an index, without further checks.
fn by_form(file: &[u8]) -> Option<Vec<(u64, u64)>> {
    let mut reader = Reader::open(file).ok()?;
    let mut found = Vec::new();
    while let Some(bucket) = reader.next().ok()? {
        for entry in bucket.entries() {
            assert!(entry.offset < file.len() as u64);
            assert!(bucket.holds(entry.oid));
            found.push((entry.oid, entry.position));
        }
    }
    assert_eq!(reader.offset(), file.len() as u64);
    Some(found)
}

/// The indexes of the fixtures, and one with distant oids.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let write = |index: &Index, position| {
        let mut bytes = Vec::new();
        // Writing to memory cannot fail.
        let _ = index.write(position, &mut bytes);
        bytes
    };
    let of_file = |file: &[u8]| {
        let scanned = Scanned::of(file, usize::MAX);
        let mut builder = Builder::default();
        scanned.events.iter().for_each(|&it| builder.take(it));
        Some(write(&builder.finish()?, scanned.position))
    };
    let mut seeds: Vec<_> = fixtures()
        .iter()
        .filter_map(|(_, it)| of_file(it))
        .collect();
    for position in [5000, 70_000, 1 << 31, 1 << 47] {
        let mut index = Index::default();
        for oid in (0..40).chain([1 << 16, 3 << 16 | 5, 1 << 40, u64::MAX]) {
            index.insert(oid, 27 + oid % 1000 * 50);
        }
        seeds.push(write(&index, position));
    }
    seeds
}
