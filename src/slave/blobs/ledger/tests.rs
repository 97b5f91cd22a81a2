use std::collections::{BTreeMap, HashSet};
use std::fs;

use super::*;
use crate::slave::blobs::test_support::{Site, key};

fn entry(n: u64) -> BlobEntry {
    let state = if n.is_multiple_of(5) {
        BlobState::Absent
    } else {
        BlobState::Present {
            size: n,
            digest: (&Digest::of(&n.to_be_bytes())).into(),
        }
    };
    BlobEntry {
        key: key(n, n + 1),
        state,
    }
}

fn path(site: &Site) -> PathBuf {
    site.slave.paths.sibling(Sibling::Blobs)
}

fn append(site: &Site, directory: &BlobDirectory, numbers: std::ops::Range<u64>) {
    let mut ledger = BlobLedger::open_or_create(&site.slave, directory).unwrap();
    let entries: Vec<_> = numbers.map(entry).collect();
    for some in entries.chunks(7) {
        ledger.append(&site.slave, some).unwrap();
    }
}

fn all(site: &Site, directory: &BlobDirectory) -> Vec<BlobEntry> {
    let opened = BlobLedger::open(&site.slave.paths, directory.id(), OpenMode::Read);
    let entries = opened.unwrap().unwrap().entries();
    entries.map(Result::unwrap).collect()
}

#[test]
fn entries_are_returned_as_they_were_appended() {
    let site = Site::new();
    let directory = site.set_up();
    append(&site, &directory, 0..3000);
    append(&site, &directory, 3000..3001);
    let expected: Vec<_> = (0..3001).map(entry).collect();
    assert_eq!(all(&site, &directory), expected);
    assert_eq!(fs::metadata(path(&site)).unwrap().len(), 64 * 3002);
    let BlobState::Present { digest, .. } = entry(1).state else {
        panic!("entry 1 is present");
    };
    assert!(digest.is_of(&Digest::of(&1u64.to_be_bytes())));
    assert!(!digest.is_of(&Digest::of(b"")));
}

#[test]
fn a_placed_blob_becomes_an_entry() {
    let record = BlobRecord {
        key: key(1, 2),
        size: 3,
        digest: Digest::of(b"abc"),
    };
    let entry = BlobEntry::from(&record);
    let state = BlobState::Present {
        size: 3,
        digest: (&record.digest).into(),
    };
    assert_eq!((entry.key, entry.state), (record.key, state));
    let encoded = entry.encode(9);
    assert_eq!(BlobEntry::decode(&encoded, 9), Some(entry));
    assert_eq!(BlobEntry::decode(&encoded, 8), None);
}

#[test]
fn a_torn_end_is_overwritten() {
    let site = Site::new();
    let directory = site.set_up();
    append(&site, &directory, 0..10);
    let whole = fs::read(path(&site)).unwrap();
    // Any number of bytes is missing, or zeros, as after a power cut.
    for cut in [1, 63, 64, 65, 200, 640] {
        let kept = whole.len() - cut;
        for end in [vec![], vec![0; cut], vec![0xff; cut + 30]] {
            fs::write(path(&site), [&whole[..kept], &end].concat()).unwrap();
            let valid = (kept as u64 / 64) - 1;
            let expected: Vec<_> = (0..valid).map(entry).collect();
            assert_eq!(all(&site, &directory), expected);
            append(&site, &directory, valid..12);
            let expected: Vec<_> = (0..12).map(entry).collect();
            assert_eq!(all(&site, &directory), expected, "{cut}");
            assert_eq!(fs::metadata(path(&site)).unwrap().len(), 64 * 13);
        }
    }
}

#[test]
fn a_damaged_entry_is_skipped() {
    let site = Site::new();
    let directory = site.set_up();
    append(&site, &directory, 0..10);
    let mut bytes = fs::read(path(&site)).unwrap();
    bytes[64 * 4 + 30] ^= 1;
    // An entry in the place of another one.
    bytes.copy_within(64 * 8..64 * 9, 64 * 6);
    fs::write(path(&site), bytes).unwrap();
    append(&site, &directory, 10..11);
    let expected: Vec<_> = (0..11).filter(|n| ![3, 5].contains(n)).map(entry).collect();
    assert_eq!(all(&site, &directory), expected);
}

#[test]
fn the_ledger_of_another_directory_is_replaced() {
    let site = Site::new();
    assert_eq!(BlobLedger::id(&site.slave.paths).unwrap(), None);
    let directory = site.set_up();
    append(&site, &directory, 0..10);
    let id = BlobLedger::id(&site.slave.paths).unwrap();
    assert_eq!(id.as_deref(), Some(directory.id()));
    let other = Site::new().set_up();
    let open = |id| BlobLedger::open(&site.slave.paths, id, OpenMode::Read).unwrap();
    assert!(open(other.id()).is_none());
    append(&site, &other, 20..21);
    assert!(open(directory.id()).is_none());
    assert_eq!(all(&site, &other), [entry(20)]);
    for bytes in [&b""[..], b"fssync", &[0; 64], &[0xff; 640]] {
        fs::write(path(&site), bytes).unwrap();
        assert_eq!(BlobLedger::id(&site.slave.paths).unwrap(), None);
        assert!(open(directory.id()).is_none());
        append(&site, &directory, 3..4);
        assert_eq!(all(&site, &directory), [entry(3)]);
    }
}

#[test]
fn nothing_is_appended_while_syncing_is_off() {
    let site = Site::new();
    let directory = site.set_up();
    let mut ledger = BlobLedger::open_or_create(&site.slave, &directory).unwrap();
    site.switch_off();
    let appended = ledger.append(&site.slave, &[entry(1)]);
    assert!(matches!(appended, Err(Error::Off(_))));
    assert_eq!(fs::metadata(path(&site)).unwrap().len(), 64);
}

/// Compacts the ledger. The log refers to the blobs whose numbers are in `needed`.
fn compact(site: &Site, directory: &BlobDirectory, needed: std::ops::Range<u64>) -> u64 {
    let opened = BlobLedger::open(&site.slave.paths, directory.id(), OpenMode::Read);
    let compacted = opened.unwrap().unwrap().compact(&site.slave, |keys| {
        assert!(keys.is_sorted());
        let is_needed = |key: &&BlobKey| needed.contains(&key.oid);
        Ok(keys.iter().filter(is_needed).copied().collect())
    });
    compacted.unwrap()
}

#[test]
fn a_compacted_ledger_has_the_valid_entry_of_each_needed_blob() {
    let site = Site::new();
    let directory = site.set_up();
    // Another state of the same blobs, which the later entries replace.
    let absent = |n| BlobEntry {
        state: BlobState::Absent,
        ..entry(n)
    };
    let mut ledger = BlobLedger::open_or_create(&site.slave, &directory).unwrap();
    let outdated: Vec<_> = (0..230).map(absent).collect();
    ledger.append(&site.slave, &outdated).unwrap();
    append(&site, &directory, 0..1000);
    // A compaction that was killed left this.
    let new = site.slave.paths.sibling(Sibling::BlobsNew);
    fs::write(&new, "torn").unwrap();
    let remaining = compact(&site, &directory, 100..400);
    assert!(!new.exists());
    assert_eq!(
        fs::metadata(path(&site)).unwrap().len(),
        64 * (remaining + 1)
    );
    // The outdated entries of another window remain until the next compaction.
    assert!((300..=300 + 130).contains(&remaining), "{remaining}");
    let valid: BTreeMap<_, _> = all(&site, &directory)
        .into_iter()
        .map(|it| (it.key, it.state))
        .collect();
    let expected: BTreeMap<_, _> = (100..400).map(entry).map(|it| (it.key, it.state)).collect();
    assert_eq!(valid, expected);
    append(&site, &directory, 400..401);
    assert_eq!(all(&site, &directory).last(), Some(&entry(400)));
}

#[test]
fn a_failed_compaction_leaves_the_ledger_as_it_was() {
    let site = Site::new();
    let directory = site.set_up();
    append(&site, &directory, 0..300);
    let before = fs::read(path(&site)).unwrap();
    let open = || BlobLedger::open(&site.slave.paths, directory.id(), OpenMode::Read).unwrap();
    for is_off in [false, true] {
        // Syncing is switched off while the log is searched.
        let failed = open().unwrap().compact(&site.slave, |_| {
            if is_off {
                site.switch_off();
                return Ok(HashSet::new());
            }
            Err(Error::Interrupted)
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(path(&site)).unwrap(), before);
        assert!(!site.slave.paths.sibling(Sibling::BlobsNew).exists());
    }
    let failed = open()
        .unwrap()
        .compact(&site.slave, |_| panic!("it is off"));
    assert!(matches!(failed, Err(Error::Off(_))));
}
