#![allow(clippy::disallowed_methods, reason = "a test may panic")]

use super::*;
use crate::filestorage::{Tid, TxnStatus};
use crate::io::progress::Silent;
use crate::plan::outcome::Exit;
use crate::source::path::MountedPath;
use crate::source::{Deadline, Heartbeat, Source};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::Range;
use std::thread;
use std::time::Duration;

/// A transaction to be written: its tid, and the length of its only pickle.
type Made = (u64, usize);

/// A file of these transactions, and the range of each.
fn file(transactions: &[Made]) -> (Vec<u8>, BTreeMap<u64, Range<u64>>) {
    let mut bytes = b"FS30".to_vec();
    let mut ranges = BTreeMap::new();
    for &(tid, len) in transactions {
        let start = bytes.len() as u64;
        let tlen = 23 + 3 + 4 + 42 + len as u64;
        bytes.extend(tid.to_be_bytes());
        bytes.extend(tlen.to_be_bytes());
        bytes.extend([TxnStatus::COMMITTED.0, 0, 3, 0, 4, 0, 0]);
        bytes.extend(b"abcpage");
        bytes.extend(tid.to_be_bytes());
        bytes.extend(tid.to_be_bytes());
        bytes.extend(0u64.to_be_bytes());
        bytes.extend(start.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend((len as u64).to_be_bytes());
        bytes.resize(bytes.len() + len, tid as u8);
        bytes.extend(tlen.to_be_bytes());
        ranges.insert(tid, start..bytes.len() as u64);
    }
    (bytes, ranges)
}

/// Compares two files, the slave up to offset `end`.
fn compared_to(slave: &[u8], end: u64, master: &[u8]) -> Comparison {
    let directory = tempfile::tempdir().unwrap();
    let [ours, theirs] = ["slave", "master"].map(|name| directory.path().join(name));
    fs::write(&ours, slave).unwrap();
    fs::write(&theirs, master).unwrap();
    let patience = Deadline::new(Duration::from_secs(60), Heartbeat::default(), || false);
    let open = move || -> Box<dyn Source> { Box::new(MountedPath::new(theirs.clone())) };
    let file = File::open(&ours).unwrap();
    let compared_slave = ComparedSlave {
        paths: &SlavePaths::new(&ours).unwrap(),
        fields: FieldReader::new(&file, Unreadable::Zeros, &|| Ok(())),
        end,
        last_master: None,
    };
    let master = Master::new("m".to_owned(), patience, Box::new(open));
    compared_slave.compare(&master, &Silent).unwrap()
}

/// Compares two files.
fn compared(slave: &[u8], master: &[u8]) -> Comparison {
    compared_to(slave, slave.len() as u64, master)
}

fn tids(found: &TransactionList) -> Vec<u64> {
    assert_eq!(found.all.count, found.listed.len() as u64);
    found.listed.iter().map(|told| told.tid.0).collect()
}

const SMALL: [Made; 5] = [(11, 20), (12, 50), (13, 1), (14, 50), (15, 30)];

#[test]
fn equal_files_are_proven_to_the_last_byte() {
    let (bytes, _) = file(&SMALL);
    let found = compared(&bytes, &bytes);
    assert_eq!(found.equal_bytes, bytes.len() as u64);
    assert!(found.is_prefix());
    assert_eq!(
        (found.ahead, found.exit()),
        (TransactionSpan::default(), Exit::Success)
    );
}

/// The transaction that has a byte.
fn holder(ranges: &BTreeMap<u64, Range<u64>>, at: usize) -> u64 {
    let found = ranges
        .iter()
        .find(|(_, range)| range.contains(&(at as u64)));
    *found.unwrap().0
}

#[test]
fn any_changed_byte_of_the_slave_is_found_in_its_transaction() {
    let (bytes, ranges) = file(&SMALL);
    for at in 4..bytes.len() {
        // Every kind of byte is changed with each of these masks.
        let mask = [1, 0x80, 0xff][at % 3];
        let mut slave = bytes.clone();
        slave[at] ^= mask;
        let found = compared(&slave, &bytes);
        let tid = holder(&ranges, at);
        let range = &ranges[&tid];
        let shown = format!("{at} {mask}: {found:?}");
        let len = range.end - range.start;
        assert_eq!(found.equal_bytes, bytes.len() as u64 - len, "{shown}");
        assert_eq!(found.early_stop, None, "{shown}");
        let is_tid = at as u64 - range.start < 8;
        let replaced = tids(&found.master_only) == [tid] || found.ahead.first == Some(Tid(tid));
        if is_tid {
            assert!(replaced, "{shown}");
            assert_eq!(found.slave_only.listed[0].position, range.start, "{shown}");
            assert_eq!(found.slave_only.all.count, 1, "{shown}");
            assert!(tids(&found.differing).is_empty(), "{shown}");
        } else {
            assert_eq!(tids(&found.differing), [tid], "{shown}");
            assert_eq!(found.slave_only.all.count, 0, "{shown}");
            assert_eq!(
                (found.master_only.all.count, found.ahead.count),
                (0, 0),
                "{shown}"
            );
        }
    }
}

#[test]
fn any_changed_byte_of_the_master_is_found_in_its_transaction() {
    let (bytes, ranges) = file(&SMALL);
    let flip = &|at: usize, mask: u8| {
        let mut master = bytes.clone();
        master[at] ^= mask;
        let found = compared(&bytes, &master);
        let tid = holder(&ranges, at);
        let shown = format!("{at} {mask}: {found:?}");
        let named = found
            .differing
            .listed
            .iter()
            .chain(&found.slave_only.listed);
        assert_eq!(named.clone().next().unwrap().tid, Tid(tid), "{shown}");
        let is_cut = bytes[at] ^ mask == b'c';
        assert!(is_cut || named.count() == 1, "{shown}");
        assert_eq!(found.exit(), Exit::Diverged);
    };
    // Damage is read again several times, with pauses; so this runs in threads.
    let all: Vec<_> = (ranges[&12].start..ranges[&13].end).collect();
    thread::scope(|scope| {
        for some in all.chunks(all.len().div_ceil(8)) {
            scope.spawn(move || {
                for &at in some {
                    flip(at as usize, 0x80 | (at as u8 & 1));
                }
            });
        }
    });
}

#[test]
fn an_unfinished_tail_of_the_slave_is_not_compared() {
    let (bytes, ranges) = file(&SMALL);
    let mut slave = bytes.clone();
    let at = ranges[&15].start;
    slave[at as usize + 16] = TxnStatus::VOTED.0;
    let found = compared_to(&slave, at, &bytes);
    assert!(found.is_prefix());
    assert_eq!((found.equal_bytes, found.ahead.first), (at, Some(Tid(15))));
}

#[test]
fn after_a_thousand_differences_the_search_ends() {
    let many: Vec<Made> = (1..=120_000).map(|tid| (tid, 20)).collect();
    let (bytes, _) = file(&many);
    let mut slave = bytes.clone();
    slave[4..]
        .iter_mut()
        .skip(90)
        .step_by(108)
        .for_each(|byte| *byte ^= 1);
    let found = compared(&slave, &bytes);
    assert!(
        found.differing.all.count >= MAX_LISTED as u64,
        "{}",
        found.differing.all.count
    );
    assert_eq!(found.differing.listed.len(), MAX_LISTED);
    let searched = found.differing.all.bytes;
    assert!(
        found.unsearched_bytes > SEGMENT_LEN,
        "{}",
        found.unsearched_bytes
    );
    assert_eq!(
        found.unsearched_bytes + searched + found.equal_bytes,
        bytes.len() as u64
    );
}

#[test]
fn the_magic_is_compared_separately() {
    let (bytes, _) = file(&SMALL);
    let mut slave = bytes.clone();
    slave[2] = b'2';
    let found = compared(&slave, &bytes);
    assert!(found.magic_differs);
    assert_eq!(found.equal_bytes, bytes.len() as u64 - 4);
    assert!(tids(&found.differing).is_empty());
}

#[test]
fn a_status_that_differs_needs_no_digest() {
    let (bytes, ranges) = file(&SMALL);
    let mut master = bytes.clone();
    for tid in [11, 12, 14] {
        master[ranges[&tid].start as usize + 16] = TxnStatus::PACKED.0;
    }
    let found = compared(&bytes, &master);
    assert_eq!(tids(&found.differing), [11, 12, 14]);
    let metadata = Some(TransactionMetadata {
        user: "abc".to_owned(),
        description: "page".to_owned(),
    });
    assert_eq!(found.differing.listed[1].metadata, metadata);
}

#[test]
fn transactions_of_only_one_file_are_listed() {
    let (slave, ranges) = file(&[(11, 20), (12, 50), (16, 30), (17, 1)]);
    let (master, _) = file(&[
        (11, 20),
        (12, 50),
        (13, 1),
        (14, 50),
        (16, 30),
        (18, 5),
        (19, 5),
    ]);
    let found = compared(&slave, &master);
    assert_eq!(found.equal_bytes, ranges[&12].end);
    assert_eq!(tids(&found.master_only), [13, 14]);
    assert_eq!(tids(&found.slave_only), [17]);
    let elsewhere = (
        found.elsewhere.count,
        found.elsewhere.first,
        found.elsewhere.last,
    );
    assert_eq!(elsewhere, (1, Some(Tid(16)), Some(Tid(16))));
    let ahead = (found.ahead.count, found.ahead.first, found.ahead.last);
    assert_eq!(ahead, (2, Some(Tid(18)), Some(Tid(19))));
}

#[test]
fn damage_of_the_master_after_the_end_of_the_slave_is_reported() {
    let (bytes, ranges) = file(&SMALL);
    let mut master = bytes.clone();
    master[ranges[&14].start as usize + 16] = 0xff;
    let found = compared(&bytes[..ranges[&12].end as usize], &master);
    assert!(found.is_prefix());
    assert_eq!(found.ahead.last, Some(Tid(13)));
    assert_eq!(found.exit(), Exit::MasterDamaged);
}

/// A change of one transaction of the slave.
#[derive(Clone, Debug)]
enum Change {
    Keep,
    Drop,
    /// Changes the byte of its pickle at a part of its length.
    Flip(u16),
    /// Inserts a transaction before it that the master lacks.
    Precede(usize),
}

fn history() -> impl Strategy<Value = Vec<(usize, Change)>> {
    let len =
        prop_oneof![4 => 1..300usize, 2 => 10_000..400_000usize, 1 => 1_000_000..3_000_000usize];
    let change = prop_oneof![
        30 => Just(Change::Keep),
        1 => Just(Change::Drop),
        2 => any::<u16>().prop_map(Change::Flip),
        1 => (1..300usize).prop_map(Change::Precede),
    ];
    proptest::collection::vec((len, change), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The oracle compares the two files directly.
    #[test]
    fn exactly_the_differences_are_reported(history in history(), cut in 0..6usize) {
        let master: Vec<Made> = (1..).zip(&history).map(|(n, (len, _))| (10 * n, *len)).collect();
        let mut slave: Vec<Made> = Vec::new();
        for (&(tid, len), (_, action)) in master.iter().zip(&history) {
            match action {
                Change::Drop => {}
                Change::Precede(own) => slave.extend([(tid - 5, *own), (tid, len)]),
                _ => slave.push((tid, len)),
            }
        }
        slave.truncate(slave.len() - cut.min(slave.len()));
        let (mut bytes, ranges) = file(&slave);
        let (master, theirs) = file(&master);
        for (tid, (_, action)) in (1..).map(|n| 10 * n).zip(&history) {
            if let (Change::Flip(part), Some(range)) = (action, ranges.get(&tid)) {
                let (start, end) = (range.start + 72, range.end - 8);
                let at = start + (((end - start) * u64::from(*part)) >> 16);
                bytes[at as usize] ^= 4;
            }
        }
        let found = compared(&bytes, &master);
        let same: Vec<_> = ranges
            .iter()
            .filter(|(tid, range)| theirs.get(*tid) == Some(range))
            .map(|(tid, range)| (*tid, range.start as usize..range.end as usize))
            .collect();
        let (equal, differing): (Vec<_>, Vec<_>) = same
            .iter()
            .partition(|(_, range)| bytes[range.clone()] == master[range.clone()]);
        let differing: Vec<_> = differing.iter().map(|(tid, _)| *tid).collect();
        let last = ranges.keys().last().copied().unwrap_or(0);
        let slave_only: Vec<_> =
            ranges.keys().filter(|tid| !theirs.contains_key(*tid)).copied().collect();
        let lacking = theirs.keys().filter(|tid| !ranges.contains_key(*tid)).copied();
        let (ahead, master_only): (Vec<_>, Vec<_>) = lacking.partition(|tid| *tid > last);
        prop_assert_eq!(found.early_stop, None);
        prop_assert_eq!(tids(&found.differing), differing);
        prop_assert_eq!(tids(&found.slave_only), slave_only.clone());
        prop_assert_eq!(tids(&found.master_only), master_only);
        prop_assert_eq!(found.ahead.count, ahead.len() as u64);
        let in_place = same.len() + slave_only.len();
        prop_assert_eq!(found.elsewhere.count, (ranges.len() - in_place) as u64);
        let equal: usize = equal.iter().map(|(_, range)| range.len()).sum();
        prop_assert_eq!(found.equal_bytes, equal as u64 + 4);
    }
}
