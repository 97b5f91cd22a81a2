//! Properties of the checker with generated, consistent histories, and with single bytes of
//! them changed.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::filestorage::record::{BACK_POINTER_LEN, TRAILER_LEN};
use crate::filestorage::scan::{Scanner, Tail};

/// What a transaction does to an object.
#[derive(Clone, Debug)]
enum PlannedAction {
    /// Stores this number of bytes.
    Store(usize),
    /// Points back to an earlier record, chosen by this number.
    Undo(prop::sample::Index),
}

/// A file, and the places in it that are named in the tests.
#[derive(Clone, Debug, Default)]
struct File {
    bytes: Vec<u8>,
    /// Positions of data records.
    records: Vec<u64>,
    /// Offsets of back pointers that are not 0.
    back_pointers: Vec<u64>,
    /// Positions of transactions.
    txns: Vec<u64>,
}

fn history() -> impl Strategy<Value = File> {
    let action = prop_oneof![
        3 => (1_usize..60).prop_map(PlannedAction::Store),
        1 => any::<prop::sample::Index>().prop_map(PlannedAction::Undo),
    ];
    let txn = vec((0_u64..5, action), 0..4);
    vec(txn, 1..8).prop_map(|txns| {
        let mut file = File {
            bytes: b"FS30".to_vec(),
            ..File::default()
        };
        let mut known: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (n, deeds) in txns.iter().enumerate() {
            write(&mut file, 100 + n as u64, deeds, &mut known);
        }
        file
    })
}

/// Appends a transaction; as ZODB, with the index that it began with.
fn write(
    file: &mut File,
    tid: u64,
    deeds: &[(u64, PlannedAction)],
    known: &mut BTreeMap<u64, Vec<u64>>,
) {
    let tloc = file.bytes.len() as u64;
    let mut body = b"me".to_vec();
    let before = known.clone();
    for (oid, action) in deeds {
        let at = tloc + TXN_HEADER_LEN as u64 + body.len() as u64;
        file.records.push(at);
        let earlier = before.get(oid).map_or(&[][..], Vec::as_slice);
        let prev = earlier.last().copied().unwrap_or(0);
        for number in [*oid, tid, prev, tloc] {
            body.extend(number.to_be_bytes());
        }
        body.extend([0; 2]);
        match action {
            PlannedAction::Store(len) => {
                body.extend((*len as u64).to_be_bytes());
                body.extend(vec![7; *len]);
            }
            PlannedAction::Undo(which) => {
                let back = match earlier.len() {
                    0 => 0,
                    len => earlier[which.index(len)],
                };
                if back != 0 {
                    let here = tloc + (TXN_HEADER_LEN + body.len()) as u64 + BACK_POINTER_LEN;
                    file.back_pointers.push(here);
                }
                body.extend([0; 8]);
                body.extend(back.to_be_bytes());
            }
        }
        known.entry(*oid).or_default().push(at);
    }
    let tlen = (TXN_HEADER_LEN + body.len()) as u64;
    file.txns.push(tloc);
    file.bytes.extend(tid.to_be_bytes());
    file.bytes.extend(tlen.to_be_bytes());
    file.bytes.extend([b' ', 0, 2, 0, 0, 0, 0]);
    file.bytes.extend(body);
    file.bytes.extend(tlen.to_be_bytes());
}

/// What a scan stops with, and the flaws.
fn check(bytes: &[u8]) -> (Tail, Vec<Flaw>, Checker) {
    let mut scanner = Scanner::new(bytes.len() as u64);
    let mut checker = Checker::default();
    let mut flaws = Vec::new();
    let mut reader = Bounded(bytes);
    scanner.feed(&bytes[MAGIC_LEN as usize..], &mut |event| {
        checker.take(event, &mut reader, &mut |flaw| flaws.push(flaw));
    });
    (scanner.tail(), flaws, checker)
}

/// Bytes, which end somewhere.
struct Bounded<'a>(&'a [u8]);

impl ReadAt for Bounded<'_> {
    type Error = ();

    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), ()> {
        let found = self.0.get(offset as usize..).ok_or(())?;
        buffer.copy_from_slice(found.get(..buffer.len()).ok_or(())?);
        Ok(())
    }
}

fn put(file: &File, at: u64, number: u64) -> Vec<u8> {
    let mut bytes = file.bytes.clone();
    bytes[at as usize..][..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn number(file: &File, at: u64) -> u64 {
    u64::from_be_bytes(file.bytes[at as usize..][..8].try_into().unwrap())
}

proptest! {
    #[test]
    fn a_consistent_history_has_no_flaw(file in history()) {
        let (tail, flaws, checker) = check(&file.bytes);
        prop_assert_eq!(tail, Tail::Clean);
        prop_assert_eq!(flaws, []);
        prop_assert_eq!(checker.transactions(), file.txns.len() as u64);
        prop_assert_eq!(checker.records(), file.records.len() as u64);
        let index = checker.index().unwrap();
        for (oid, at) in index.iter() {
            prop_assert_eq!(number(&file, at), oid);
        }
    }

    #[test]
    fn a_wrong_tid_in_a_data_record_is_found(
        file in history(),
        which in any::<prop::sample::Index>(),
        change in 1_u64..,
    ) {
        prop_assume!(!file.records.is_empty());
        let record = file.records[which.index(file.records.len())];
        let tid = number(&file, record + 8) ^ change;
        let (_, flaws, _) = check(&put(&file, record + 8, tid));
        prop_assert_eq!(flaws.len(), 1);
        prop_assert_eq!(flaws[0].position, record);
        prop_assert_eq!(flaws[0].kind, FlawKind::DataTid(Tid(tid)));
    }

    #[test]
    fn a_wrong_prev_is_found(
        file in history(),
        which in any::<prop::sample::Index>(),
        found in prop_oneof![Just(0), any::<u64>(), 0_u64..1000],
    ) {
        prop_assume!(!file.records.is_empty());
        let record = file.records[which.index(file.records.len())];
        let expected = number(&file, record + 16);
        prop_assume!(expected != found);
        // If a transaction has the object twice, ZODB accepts the first one as well.
        let is_twin = |other: u64| {
            number(&file, other) == number(&file, record)
                && number(&file, other + 24) == number(&file, record + 24)
        };
        prop_assume!(!file.records.iter().any(|&other| other == found && is_twin(other)));
        let (_, flaws, _) = check(&put(&file, record + 16, found));
        prop_assert!(
            flaws.iter().any(|flaw| flaw.position == record
                && flaw.kind == FlawKind::Prev { expected, found }
                // Where an object comes twice, ZODB compares with the same.
                || matches!(flaw.kind, FlawKind::Prev { expected, .. } if expected == found)),
            "{:?}",
            flaws
        );
    }

    #[test]
    fn a_wrong_back_pointer_is_found(
        file in history(),
        which in any::<prop::sample::Index>(),
        found in prop_oneof![any::<u64>(), 1_u64..1000],
    ) {
        prop_assume!(!file.back_pointers.is_empty());
        let at = file.back_pointers[which.index(file.back_pointers.len())];
        let record = at - DATA_HEADER_LEN as u64;
        let is_other = file.records.iter().any(|&other| {
            other == found && other < record && number(&file, other) == number(&file, record)
        });
        prop_assume!(!is_other);
        let (_, flaws, _) = check(&put(&file, at, found));
        prop_assert_eq!(flaws.len(), 1);
        prop_assert_eq!((flaws[0].position, flaws[0].kind), (record, FlawKind::BackPointer(found)));
    }

    #[test]
    fn a_check_ends_after_any_change(
        file in history(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = file.bytes.clone();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = check(&bytes);
    }
}

/// A transaction that stores one object.
fn store(file: &mut File, tid: u64, oid: u64, known: &mut BTreeMap<u64, Vec<u64>>) {
    write(file, tid, &[(oid, PlannedAction::Store(10))], known);
}

fn three() -> File {
    let mut file = File {
        bytes: b"FS30".to_vec(),
        ..File::default()
    };
    let mut known = BTreeMap::new();
    for (tid, oid) in [(100, 1), (101, 2), (102, 2)] {
        store(&mut file, tid, oid, &mut known);
    }
    file
}

#[test]
fn blemishes_are_reported_with_their_transaction() {
    let file = three();
    let second = file.txns[1];
    let mut bytes = put(&file, second, 100);
    let record = file.records[1];
    bytes[record as usize + 15] = 100;
    let (tail, flaws, _) = check(&bytes);
    assert_eq!(tail, Tail::Clean);
    let [flaw] = flaws[..] else {
        panic!("{flaws:?}");
    };
    assert_eq!(
        (flaw.position, flaw.tid, flaw.oid),
        (second, Tid(100), None)
    );
    assert_eq!(flaw.kind, FlawKind::TidReduction(Tid(100)));
    let mut bytes = file.bytes.clone();
    bytes[second as usize + 16] = b'x';
    let (_, flaws, _) = check(&bytes);
    assert_eq!(flaws[0].kind, FlawKind::OddStatus(TxnStatus(b'x')));
}

#[test]
fn a_prev_into_a_skipped_part_is_accepted_if_the_object_is_there() {
    let file = three();
    let bytes = file.bytes.as_slice();
    let [first, second, third] = file.txns[..] else {
        panic!("three transactions");
    };
    for (prev, is_flaw) in [(file.records[1], false), (file.records[1] - 1, true)] {
        let bytes = put(&file, file.records[2] + 16, prev);
        let mut checker = Checker::default();
        let mut flaws = Vec::new();
        for (from, to) in [(first, second), (third, bytes.len() as u64)] {
            let mut scanner = Scanner::resume(from, None, bytes.len() as u64);
            let mut reader = Bounded(&bytes);
            scanner.feed(&bytes[from as usize..to as usize], &mut |event| {
                checker.take(event, &mut reader, &mut |flaw| flaws.push(flaw));
            });
            checker.skip_transaction();
        }
        assert_eq!(flaws.len(), usize::from(is_flaw), "{flaws:?}");
        assert!(checker.index().is_none());
    }
    assert!(check(bytes).2.index().is_some());
}

#[test]
fn restarting_a_transaction_causes_no_flaws() {
    let file = three();
    let mut checker = Checker::default();
    let mut flaws = Vec::new();
    let mut reader = Bounded(&file.bytes);
    let mut scanner = Scanner::new(file.bytes.len() as u64);
    let cut = file.bytes.len() - TRAILER_LEN as usize;
    let mut take = |event| checker.take(event, &mut reader, &mut |flaw| flaws.push(flaw));
    scanner.feed(&file.bytes[4..cut], &mut take);
    scanner.go_back();
    scanner.feed(&file.bytes[file.txns[2] as usize..], &mut take);
    assert_eq!(flaws, []);
}
