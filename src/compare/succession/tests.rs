//! The rules on histories of a model: objects that refer to others, packs as ZODB makes them, and
//! repairs that drop transactions. What real packs and real repairs do is tested in `tests/all`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::filestorage::index::builder::Builder;
use crate::filestorage::scan::Scanner;
use crate::plan::Loss;
use crate::plan::switch_on::TransactionRun;

/// A transaction: the objects that it writes, and to which others each of them refers.
#[derive(Clone, Debug)]
struct Txn {
    tid: u64,
    status: u8,
    records: Vec<(u64, BTreeSet<u64>)>,
}

fn txn(tid: u64, status: u8, oids: &[u64]) -> Txn {
    let records = oids.iter().map(|&oid| (oid, BTreeSet::new())).collect();
    Txn {
        tid,
        status,
        records,
    }
}

/// The bytes of a FileStorage with these transactions. Back pointers and `prev` are not looked
/// at, so they are 0.
fn file(txns: &[Txn]) -> Vec<u8> {
    let mut bytes = b"FS30".to_vec();
    for txn in txns {
        let tloc = bytes.len() as u64;
        let mut body = Vec::new();
        for (oid, refs) in &txn.records {
            let pickle = format!("{oid} at {} {refs:?}.", txn.tid).into_bytes();
            for field in [*oid, txn.tid, 0, tloc] {
                body.extend(field.to_be_bytes());
            }
            body.extend(0u16.to_be_bytes());
            body.extend((pickle.len() as u64).to_be_bytes());
            body.extend(pickle);
        }
        let tlen = (23 + body.len() as u64).to_be_bytes();
        bytes.extend(txn.tid.to_be_bytes());
        bytes.extend(tlen);
        bytes.push(txn.status);
        bytes.extend([0; 6]);
        bytes.extend(body);
        bytes.extend(tlen);
    }
    bytes
}

/// Joins an old slave with a copy.
fn join(slave: &[Txn], copy: &[Txn]) -> Evidence {
    join_bytes(slave, &file(copy), 50)
}

/// The same of a copy's bytes, which come by in pieces of a length.
fn join_bytes(slave: &[Txn], bytes: &[u8], piece_len: usize) -> Evidence {
    let mut old = tempfile::tempfile().unwrap();
    old.write_all(&file(slave)).unwrap();
    let position = old.metadata().unwrap().len();
    let mut join = Succession::new(&old, position, slave.last().map(|last| Tid(last.tid)));
    let mut scanner = Scanner::new(bytes.len() as u64);
    let mut builder = Builder::default();
    for piece in bytes[4..].chunks(piece_len) {
        let offset = scanner.offset();
        scanner.feed(piece, &mut |event| {
            builder.take(event);
            join.take(event, builder.index());
        });
        join.take_bytes(offset, piece);
    }
    assert_eq!(
        scanner.position(),
        bytes.len() as u64,
        "{:?}",
        scanner.tail()
    );
    join.finish(builder.index())
}

/// The tids that are lost: the first, the last, and how many.
fn lost(slave: &[Txn], copy: &[Txn]) -> Option<(u64, u64, u64)> {
    match join(slave, copy).loss()? {
        Loss::Transactions(TransactionRun { count, first, last }) => Some((first.0, last.0, count)),
        other => panic!("{other:?}"),
    }
}

/// A slave and copies of it: the objects of each transaction, and its status.
#[test]
fn each_rule_decides() {
    let slave = [
        txn(10, b' ', &[0, 1]),
        txn(20, b' ', &[1]),
        txn(30, b' ', &[2]),
        txn(40, b' ', &[0]),
        txn(50, b' ', &[3]),
    ];
    let at = |n: usize, status| Txn {
        status,
        ..slave[n].clone()
    };
    let kept = |n| at(n, b' ');
    let packed = |n| at(n, b'p');
    let table = [
        ("the same", slave.to_vec(), None),
        (
            "a pack of all",
            vec![packed(1), packed(2), packed(3), packed(4)],
            None,
        ),
        (
            "a pack of a part",
            vec![txn(10, b'p', &[0]), packed(1), kept(2), kept(3), kept(4)],
            None,
        ),
        (
            "rule 1: nothing was packed",
            vec![kept(1), kept(2), kept(3), kept(4)],
            Some((10, 10, 1)),
        ),
        (
            "rule 2: one that is newer than the pack",
            vec![txn(10, b'p', &[0]), packed(1), packed(2), kept(3)],
            Some((50, 50, 1)),
        ),
        (
            "rule 2: status p after another one is no pack's",
            vec![kept(0), packed(1), kept(3), kept(4)],
            Some((30, 30, 1)),
        ),
        (
            "rule 3: an older record of an object is kept",
            vec![packed(0), packed(2), packed(3), packed(4)],
            Some((20, 20, 1)),
        ),
        (
            "rule 3: and a newer one, as an undo points to the older one",
            vec![
                packed(0),
                packed(2),
                packed(3),
                packed(4),
                txn(60, b'p', &[1]),
            ],
            None,
        ),
        (
            "rule 3: a newer one above the pack does not count",
            vec![
                packed(0),
                packed(2),
                packed(3),
                packed(4),
                txn(60, b' ', &[1]),
            ],
            Some((20, 20, 1)),
        ),
        (
            "rule 3: the root is never unreachable",
            vec![packed(1), packed(2), kept(3), kept(4)],
            Some((10, 10, 1)),
        ),
        (
            "a part of one above the pack",
            vec![
                txn(10, b'p', &[0]),
                kept(1),
                kept(2),
                kept(3),
                txn(50, b' ', &[]),
            ],
            Some((50, 50, 1)),
        ),
        (
            "the slave lacks one too",
            vec![
                packed(1),
                txn(35, b'p', &[7]),
                packed(2),
                packed(3),
                packed(4),
            ],
            Some((10, 30, 2)),
        ),
        ("none left", vec![], Some((10, 50, 5))),
    ];
    for (name, copy, expected) in table {
        assert_eq!(lost(&slave, &copy), expected, "{name}");
    }
}

#[test]
fn other_data_in_a_common_transaction_is_found_wherever_it_is() {
    let slave = [
        txn(10, b' ', &[0, 1]),
        txn(20, b' ', &[1, 2]),
        txn(30, b' ', &[0]),
    ];
    let packed = [
        txn(10, b'p', &[]),
        txn(20, b'p', &[1, 2]),
        txn(30, b'p', &[0]),
    ];
    for copy in [&slave[..], &packed[1..]] {
        let bytes = file(copy);
        assert_eq!(join(&slave, copy).altered, None);
        let last = copy.last().unwrap();
        let pickle = format!("0 at {} {:?}.", last.tid, last.records[0].1);
        let start = bytes.len() - 8 - pickle.len();
        for at in start..bytes.len() - 8 {
            let mut edited = bytes.clone();
            edited[at] ^= 1;
            for piece_len in [1, 50, 10_000] {
                let evidence = join_bytes(&slave, &edited, piece_len);
                let run = TransactionRun {
                    count: 1,
                    first: Tid(30),
                    last: Tid(30),
                };
                assert_eq!(
                    evidence.loss(),
                    Some(Loss::Altered(run)),
                    "{at} {evidence:?}"
                );
            }
        }
    }
}

#[test]
fn a_transaction_between_the_packed_ones_and_the_others_is_in_doubt() {
    let slave = [
        txn(10, b' ', &[0]),
        txn(20, b' ', &[1]),
        txn(30, b' ', &[2]),
    ];
    let packed = Txn {
        status: b'p',
        ..slave[0].clone()
    };
    let copies = [
        vec![packed.clone(), slave[2].clone()],
        vec![packed, txn(40, b' ', &[2])],
    ];
    for (copy, last, count) in [(&copies[0], 20, 1), (&copies[1], 30, 2)] {
        let run = TransactionRun {
            count,
            first: Tid(20),
            last: Tid(last),
        };
        assert_eq!(join(&slave, copy).loss(), Some(Loss::Doubtful(run)));
    }
}

#[test]
fn what_an_earlier_pack_kept_only_a_later_pack_drops() {
    let slave = [
        txn(10, b'p', &[0]),
        txn(20, b'p', &[1]),
        txn(30, b'p', &[2]),
    ];
    let repaired = [slave[0].clone(), slave[2].clone()];
    assert_eq!(lost(&slave, &repaired), Some((20, 20, 1)));
    let with = |status, refs: &[u64]| {
        let newer = txn(40, status, refs);
        [repaired.to_vec(), vec![newer]].concat()
    };
    assert_eq!(lost(&slave, &with(b'p', &[3])), None);
    assert_eq!(lost(&slave, &with(b' ', &[3])), Some((20, 20, 1)));
}

#[test]
fn a_slave_that_cannot_be_read_may_hold_anything() {
    let history = [txn(10, b' ', &[0]), txn(20, b' ', &[1])];
    let bytes = file(&history);
    for at in [4 + 8, bytes.len() - 8 - 10 - 8 - 42] {
        let mut old = tempfile::tempfile().unwrap();
        let mut spoiled = bytes.clone();
        spoiled[at] ^= 0x80;
        old.write_all(&spoiled).unwrap();
        let join = Succession::new(&old, bytes.len() as u64, Some(Tid(20)));
        let evidence = join.finish(Some(&Index::default()));
        assert!(evidence.loss().is_some(), "{at}: {evidence:?}");
    }
    let old = tempfile::tempfile().unwrap();
    let join = Succession::new(&old, bytes.len() as u64, Some(Tid(20)));
    assert_eq!(join.finish(None).loss(), Some(Loss::Unknown));
}

/// One change to a made-up site; what it is about is picked by numbers.
type Change = (u8, usize, usize);

/// A history in which every object that another refers to exists.
fn history(changes: &[Vec<Change>]) -> Vec<Txn> {
    let mut objects = BTreeMap::from([(0u64, BTreeSet::new())]);
    let mut txns = vec![txn(10, b' ', &[0])];
    for (n, changes) in changes.iter().enumerate() {
        let mut written = BTreeSet::new();
        for &(kind, one, other) in changes {
            let oid = one as u64 % objects.len() as u64;
            let new = objects.len() as u64;
            let refs = objects[&oid].clone();
            match kind % 5 {
                // An object that nothing refers to.
                0 => {
                    objects.insert(new, BTreeSet::new());
                    written.insert(new);
                    continue;
                }
                // A new object in another.
                1 | 2 => {
                    objects.insert(new, BTreeSet::new());
                    written.insert(new);
                    objects.insert(oid, refs.into_iter().chain([new]).collect());
                }
                // An object is taken out of another.
                3 => {
                    let gone = refs.iter().nth(other % refs.len().max(1)).copied();
                    objects.insert(
                        oid,
                        refs.into_iter().filter(|it| Some(*it) != gone).collect(),
                    );
                }
                // Another state.
                _ => {}
            }
            written.insert(oid);
        }
        txns.push(Txn {
            tid: 10 * (n as u64 + 2),
            status: b' ',
            records: written
                .into_iter()
                .map(|oid| (oid, objects[&oid].clone()))
                .collect(),
        });
    }
    txns
}

/// What ZODB's pack makes of a history; `None` where it fails, as an object is missing.
fn pack(txns: &[Txn], time: u64) -> Option<Vec<Txn>> {
    let mut current = BTreeMap::new();
    for txn in txns.iter().filter(|txn| txn.tid <= time) {
        for (oid, refs) in &txn.records {
            current.insert(*oid, (txn.tid, refs));
        }
    }
    let mut reachable = BTreeSet::new();
    let mut left = vec![0];
    while let Some(oid) = left.pop() {
        if reachable.insert(oid) {
            left.extend(current.get(&oid)?.1);
        }
    }
    let keep = |txn: &Txn| {
        if txn.tid > time {
            return Some(txn.clone());
        }
        let is_kept = |(oid, _): &&(u64, _)| current[oid].0 == txn.tid && reachable.contains(oid);
        let records: Vec<_> = txn.records.iter().filter(is_kept).cloned().collect();
        let packed = Txn {
            status: b'p',
            records,
            ..txn.clone()
        };
        (!packed.records.is_empty()).then_some(packed)
    };
    Some(txns.iter().filter_map(keep).collect())
}

/// The data records, each by its object and its transaction.
fn records(txns: &[Txn]) -> BTreeSet<(u64, u64)> {
    let of = |txn: &Txn| {
        let tid = txn.tid;
        txn.records
            .iter()
            .map(move |(oid, _)| (tid, *oid))
            .collect::<Vec<_>>()
    };
    txns.iter().flat_map(of).collect()
}

fn changes() -> impl Strategy<Value = Vec<Vec<Change>>> {
    vec(vec((any::<u8>(), 0..20usize, 0..20usize), 0..4), 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever a pack drops is explained, if the master shows that it was packed.
    #[test]
    fn a_pack_loses_nothing(
        changes in changes(),
        slave_len in 1..15usize,
        time in 1..15u64,
        second in proptest::option::of(1..15u64),
    ) {
        let txns = history(&changes);
        let slave = &txns[..slave_len.min(txns.len())];
        let first = pack(&txns, time * 10).expect("no object is missing");
        let copy = match second {
            Some(second) => pack(&first, (time + second) * 10).expect("no object is missing"),
            None => first,
        };
        let evidence = join(slave, &copy);
        let is_lost = matches!(evidence.loss(), Some(Loss::Transactions(_) | Loss::Unknown));
        prop_assert!(!evidence.is_packed || !is_lost, "{:?}", evidence);
    }

    /// Whatever a repair drops is found out, unless the pack of the intact file drops it too:
    /// also if the repaired file was packed.
    #[test]
    fn a_repair_is_found_out(
        changes in changes(),
        slave_len in 1..15usize,
        dropped in vec(0..15usize, 1..4),
        time in proptest::option::of(0..15u64),
    ) {
        let txns = history(&changes);
        let slave = &txns[..slave_len.min(txns.len())];
        let is_left = |(n, _): &(usize, &Txn)| !dropped.contains(n);
        let repaired: Vec<_> =
            txns.iter().enumerate().filter(is_left).map(|(_, txn)| txn.clone()).collect();
        let time = time.unwrap_or(0) * 10;
        let (Some(copy), Some(intact)) = (
            if time == 0 { Some(repaired) } else { pack(&repaired, time) },
            if time == 0 { Some(txns.clone()) } else { pack(&txns, time) },
        ) else {
            return Ok(());
        };
        let (slaves, copied) = (records(slave), records(&copy));
        let is_lost = records(&intact).iter().any(|it| slaves.contains(it) && !copied.contains(it));
        if is_lost {
            let evidence = join(slave, &copy);
            prop_assert!(evidence.loss().is_some(), "{:?}", evidence);
        }
    }
}
