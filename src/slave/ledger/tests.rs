use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A slave with a varied content.
fn slave(len: u64) -> (TempDir, Slave, File) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("Data.fs");
    let bytes: Vec<u8> = (0..len).map(|n| (n * 31 + n / 251) as u8).collect();
    fs::write(&path, bytes).unwrap();
    let paths = SlavePaths::new(&path).unwrap();
    let slave = Slave::new(paths, None);
    let data = File::open(&path).unwrap();
    (directory, slave, data)
}

/// The entries of a range, as an append computes them.
fn entries(data: &File, range: Range<u64>) -> Vec<LedgerEntry> {
    let mut segment_hasher = SegmentHasher::new(range.start);
    let mut bytes = vec![0; (range.end - range.start) as usize];
    data.read_exact_at(&mut bytes, range.start).unwrap();
    for piece in bytes.chunks(100_000) {
        segment_hasher.take(piece);
    }
    segment_hasher.end_at(data, range.end).unwrap()
}

fn all(slave: &Slave, data: &File) -> Vec<Option<LedgerEntry>> {
    let ledger = Ledger::open(&slave.paths, data, OpenMode::Read)
        .unwrap()
        .unwrap();
    let size = data.metadata().unwrap().len();
    ledger.entries(size).map(Result::unwrap).collect()
}

/// Fails unless all bytes up to `end` have correct digests, without a gap.
fn assert_covers(slave: &Slave, data: &File, end: u64) -> usize {
    let found = all(slave, data);
    let mut at = 0;
    for entry in &found {
        let entry = entry.as_ref().unwrap();
        assert_eq!(entry.range.start, at);
        let digest = Digest::of_file(data, entry.range.clone()).unwrap();
        assert_eq!(Some(entry.digest), digest);
        at = entry.range.end;
    }
    assert_eq!(at, end);
    found.len()
}

fn ledger_file(slave: &Slave) -> PathBuf {
    slave.paths.sibling(Sibling::Ledger)
}

const LEN: u64 = 3 * SEGMENT_LEN - 1_000;

#[test]
fn a_complete_segment_has_one_entry() {
    let (_directory, slave, data) = slave(LEN);
    note(&slave, &data, entries(&data, 0..SEGMENT_LEN + 1)).unwrap();
    let mut at = SEGMENT_LEN + 1;
    while at < LEN {
        let next = LEN.min(at + 4_321);
        note(&slave, &data, entries(&data, at..next)).unwrap();
        at = next;
    }
    let found = all(&slave, &data);
    let complete = found
        .iter()
        .flatten()
        .take_while(|entry| entry.range.end == segment_end(entry.range.start));
    assert_eq!(complete.count(), 2);
    // A segment has about 1000 of these commits, a number of 10 bits.
    assert!(assert_covers(&slave, &data, LEN) <= 2 + 12, "{found:?}");
}

#[test]
fn entries_after_a_gap_are_not_added() {
    let (_directory, slave, data) = slave(10_000);
    note(&slave, &data, entries(&data, 4..100)).unwrap();
    assert!(!ledger_file(&slave).exists());
    note(&slave, &data, entries(&data, 0..1_000)).unwrap();
    note(&slave, &data, entries(&data, 1_001..2_000)).unwrap();
    assert_covers(&slave, &data, 1_000);
}

#[test]
fn entries_added_again_drop_the_later_ones() {
    let (_directory, slave, data) = slave(LEN);
    note(&slave, &data, entries(&data, 0..LEN)).unwrap();
    note(&slave, &data, entries(&data, SEGMENT_LEN..SEGMENT_LEN + 5)).unwrap();
    assert_covers(&slave, &data, SEGMENT_LEN + 5);
    note(&slave, &data, entries(&data, 0..7)).unwrap();
    assert_covers(&slave, &data, 7);
}

#[test]
fn the_ledger_of_another_file_is_ignored() {
    let (_directory, slave, data) = slave(10_000);
    note(&slave, &data, entries(&data, 0..10_000)).unwrap();
    let path = slave.paths.data();
    fs::copy(path, path.with_extension("new")).unwrap();
    fs::rename(path.with_extension("new"), path).unwrap();
    let data = File::open(path).unwrap();
    assert!(
        Ledger::open(&slave.paths, &data, OpenMode::Read)
            .unwrap()
            .is_none()
    );
    note(&slave, &data, entries(&data, 5_000..10_000)).unwrap();
    note(&slave, &data, entries(&data, 0..5_000)).unwrap();
    assert_covers(&slave, &data, 5_000);
}

#[test]
fn changed_bytes_keep_their_original_digests() {
    let (_directory, slave, data) = slave(10_000);
    note(&slave, &data, entries(&data, 0..6_000)).unwrap();
    let more = entries(&data, 6_000..10_000);
    let expected: Vec<_> = all(&slave, &data)
        .into_iter()
        .flatten()
        .chain(more.clone())
        .collect();
    let mut bytes = fs::read(slave.paths.data()).unwrap();
    bytes[1_234] ^= 1;
    fs::write(slave.paths.data(), bytes).unwrap();
    note(&slave, &data, more).unwrap();
    let found: Vec<_> = all(&slave, &data).into_iter().flatten().collect();
    assert_eq!(found, expected);
}

#[test]
fn a_hasher_that_goes_back_reads_the_bytes_again() {
    let (directory, _slave, data) = slave(LEN);
    let mut segment_hasher = SegmentHasher::new(10);
    let bytes = fs::read(directory.path().join("Data.fs")).unwrap();
    segment_hasher.take(&bytes[10..]);
    for end in [LEN - 1, SEGMENT_LEN + 1, SEGMENT_LEN, 11] {
        let mut segment_hasher = SegmentHasher::new(10);
        segment_hasher.take(&bytes[10..]);
        let found = segment_hasher.end_at(&data, end).unwrap();
        assert_eq!(found, entries(&data, 10..end), "{end}");
    }
    assert_eq!(segment_hasher.end_at(&data, 10).unwrap(), []);
}

#[test]
fn a_record_decodes_to_the_entry_it_was_encoded_from() {
    let entry = LedgerEntry {
        range: 5..SEGMENT_LEN,
        digest: Digest::of(b"x"),
    };
    let record = entry.encode(3);
    assert_eq!(LedgerEntry::decode(&record, 3), Some(entry));
    assert_eq!(LedgerEntry::decode(&record, 4), None);
    for bit in 0..record.len() * 8 {
        let mut flipped = record;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(LedgerEntry::decode(&flipped, 3), None, "{bit}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a crash leaves of the ledger's last bytes, its valid entries are correct, and it
    /// continues after them.
    #[test]
    fn a_crash_loses_digests_and_makes_none_wrong(
        lens in prop::collection::vec(1..200_000_u64, 1..30),
        damage in prop::collection::vec((0..30_usize, 0..2_000_usize, any::<u8>(), any::<bool>()), 0..4),
    ) {
        let total: u64 = lens.iter().sum();
        let (_directory, slave, data) = slave(total);
        let mut at = 0;
        for (step, len) in lens.iter().enumerate() {
            note(&slave, &data, entries(&data, at..at + len)).unwrap();
            at += len;
            for &(when, back, byte, cut) in &damage {
                if when != step {
                    continue;
                }
                let mut bytes = fs::read(ledger_file(&slave)).unwrap();
                let place = bytes.len() - 1 - back % bytes.len();
                if cut {
                    bytes.truncate(place);
                } else {
                    bytes[place] = byte;
                }
                fs::write(ledger_file(&slave), bytes).unwrap();
            }
            let ledger = Ledger::open(&slave.paths, &data, OpenMode::Read).unwrap();
            let end = ledger.map_or(0, |ledger| ledger.end(u64::MAX).unwrap());
            prop_assert!(end <= at);
            if end < at {
                note(&slave, &data, entries(&data, end..at)).unwrap();
            }
            assert_covers_what_follows(&slave, &data, at);
        }
    }
}

/// Fails unless the valid entries are correct, and the last one ends at the slave's end.
fn assert_covers_what_follows(slave: &Slave, data: &File, end: u64) {
    let found = all(slave, data);
    for entry in found.iter().flatten() {
        let digest = Digest::of_file(data, entry.range.clone()).unwrap();
        assert_eq!(Some(entry.digest), digest);
    }
    let last = found.last().unwrap().as_ref().unwrap();
    assert_eq!(last.range.end, end);
}
