use super::*;
use crate::filestorage::scan::{Cause, Damage, Record};
use crate::source::Reached;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// A queue with these tids and lengths.
fn queue(txns: &[(u64, u64)], end: Tail) -> Queue {
    let start = 4;
    let size: u64 = txns.iter().map(|(_, len)| len).sum();
    let mut queue = Queue::of_master(start, start + size);
    for (tid, len) in txns {
        queue.ready.push_back(ListedTransaction {
            position: queue.known(),
            end: queue.known() + len,
            tid: Tid(*tid),
            status: TxnStatus::COMMITTED,
        });
    }
    queue.end = Some(end);
    queue
}

fn of_100(tids: &[u64]) -> Vec<(u64, u64)> {
    tids.iter().map(|tid| (*tid, 100)).collect()
}

fn damaged() -> Tail {
    Tail::Damaged(Damage {
        record: Record::Transaction,
        position: 0,
        cause: Cause::Status(0xff),
    })
}

/// The steps of a join, to its end.
fn steps(mut slave: Queue, mut master: Queue) -> Vec<(Step, u64)> {
    let mut steps = Vec::new();
    loop {
        let next = step(&slave, &master);
        let tid = |txn: Option<ListedTransaction>| txn.map_or(0, |txn| txn.tid.0);
        let of = match next {
            Step::Same | Step::Elsewhere | Step::Replaced => {
                tid(master.take());
                tid(slave.take())
            }
            Step::Slave => tid(slave.take()),
            Step::Master => tid(master.take()),
            Step::BySlave => {
                let txn = slave.take().unwrap();
                master.skip(&txn);
                txn.tid.0
            }
            Step::ByMaster => {
                let txn = master.take().unwrap();
                slave.skip(&txn);
                txn.tid.0
            }
            Step::End | Step::Stop(_) => {
                steps.push((next, 0));
                return steps;
            }
        };
        steps.push((next, of));
    }
}

/// Two lists, and the steps of their join.
type Row = (Queue, Queue, Vec<(Step, u64)>);

fn assert_steps(table: Vec<Row>) {
    for (slave, master, expected) in table {
        let shown = format!("{slave:?} {master:?}");
        assert_eq!(steps(slave, master), expected, "{shown}");
    }
}

#[test]
fn each_step_is_that_of_the_table() {
    use Step::{Elsewhere, Master, Replaced, Same, Slave, Stop};
    let clean = |tids: &[u64]| queue(&of_100(tids), Tail::Clean);
    let end = (Step::End, 0);
    let table = vec![
        (clean(&[]), clean(&[]), vec![end]),
        (
            clean(&[1, 2]),
            clean(&[1, 2]),
            vec![(Same, 1), (Same, 2), end],
        ),
        (
            clean(&[1]),
            clean(&[1, 2]),
            vec![(Same, 1), (Master, 2), end],
        ),
        (
            clean(&[1, 2]),
            clean(&[1]),
            vec![(Same, 1), (Slave, 2), end],
        ),
        (
            clean(&[1, 3]),
            clean(&[1, 2, 4]),
            vec![(Same, 1), (Master, 2), (Slave, 3), (Master, 4), end],
        ),
        (
            clean(&[1, 2, 3]),
            clean(&[2, 3]),
            vec![(Slave, 1), (Elsewhere, 2), (Elsewhere, 3), end],
        ),
        // A single tid is wrong.
        (
            clean(&[1, 99, 3, 4]),
            clean(&[1, 2, 3, 4]),
            vec![(Same, 1), (Replaced, 99), (Same, 3), (Same, 4), end],
        ),
        (
            clean(&[1, 2, 3]),
            clean(&[1, 0, 3]),
            vec![(Same, 1), (Replaced, 2), (Same, 3), end],
        ),
        (
            clean(&[5, 1]),
            clean(&[5, 6]),
            vec![(Same, 5), (Replaced, 1), end],
        ),
        // Tids that decrease give no order.
        (
            clean(&[1, 9, 8]),
            clean(&[2, 3, 4, 5]),
            vec![(Slave, 1), (Stop(StopReason::SlaveTidsDecrease), 0)],
        ),
        (
            queue(&[(1, 100), (3, 50), (4, 50)], Tail::Clean),
            clean(&[2, 1]),
            vec![(Stop(StopReason::MasterTidsDecrease), 0)],
        ),
        // At the same position, the order of tids does not matter.
        (
            clean(&[7, 2, 3]),
            clean(&[7, 2, 3]),
            vec![(Same, 7), (Same, 2), (Same, 3), end],
        ),
    ];
    assert_steps(table);
}

#[test]
fn the_intact_file_shows_the_boundaries_in_the_damaged_one() {
    use Step::{ByMaster, BySlave, Master, Same, Slave, Stop};
    let clean = |tids: &[u64]| queue(&of_100(tids), Tail::Clean);
    let broken = |tids: &[u64]| queue(&of_100(tids), damaged());
    let larger = |mut queue: Queue| {
        queue.size += 1000;
        queue
    };
    let end = (Step::End, 0);
    assert_steps(vec![
        (
            larger(broken(&[1])),
            clean(&[1, 2, 3]),
            vec![(Same, 1), (ByMaster, 2), (ByMaster, 3), end],
        ),
        (
            broken(&[1]),
            clean(&[1, 2]),
            vec![(Same, 1), (Master, 2), end],
        ),
        (
            clean(&[1, 2, 3]),
            broken(&[1]),
            vec![(Same, 1), (Slave, 2), (Slave, 3), end],
        ),
        (
            clean(&[1, 2]),
            larger(broken(&[1])),
            vec![(Same, 1), (BySlave, 2), end],
        ),
        (
            larger(broken(&[1])),
            clean(&[2, 3]),
            vec![(Slave, 1), (Stop(StopReason::SlaveDamaged), 0)],
        ),
        (
            clean(&[2, 3]),
            larger(broken(&[1])),
            vec![(Master, 1), (Stop(StopReason::MasterDamaged), 0)],
        ),
        (
            Queue {
                may_grow: false,
                ..larger(queue(&of_100(&[1]), Tail::Voted))
            },
            clean(&[1, 2]),
            vec![(Same, 1), (ByMaster, 2), end],
        ),
        (
            broken(&[1]),
            broken(&[1]),
            vec![(Same, 1), (Stop(StopReason::BothDamaged), 0)],
        ),
        (clean(&[1]), broken(&[1]), vec![(Same, 1), end]),
        (
            clean(&[1, 2]),
            queue(&of_100(&[1]), Tail::Voted),
            vec![(Same, 1), (Slave, 2), end],
        ),
    ]);
}

/// Transactions with rising tids, and lengths that are often the same.
fn history() -> impl Strategy<Value = Vec<(u64, u64)>> {
    proptest::collection::btree_map(
        1..40u64,
        prop_oneof![3 => Just(100), 1 => 50..200u64],
        0..20,
    )
    .prop_map(|txns| txns.into_iter().collect())
}

/// The position and length of each transaction.
fn places(txns: &[(u64, u64)]) -> BTreeMap<u64, (u64, u64)> {
    let mut at = 4;
    txns.iter()
        .map(|(tid, len)| {
            at += len;
            (*tid, (at - len, *len))
        })
        .collect()
}

proptest! {
    #[test]
    fn a_join_finds_the_common_transactions(slave in history(), master in history()) {
        let mut found: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        let (mut ours, mut theirs) = (queue(&slave, Tail::Clean), queue(&master, Tail::Clean));
        loop {
            let next = step(&ours, &theirs);
            let mut add = |what, txn: Option<ListedTransaction>| {
                found.entry(what).or_default().insert(txn.unwrap().tid.0)
            };
            match next {
                Step::Same => { add("same", ours.take()); theirs.take(); }
                Step::Elsewhere => { add("elsewhere", ours.take()); theirs.take(); }
                Step::Replaced => { add("slave", ours.take()); add("master", theirs.take()); }
                Step::Slave => { add("slave", ours.take()); }
                Step::Master => { add("master", theirs.take()); }
                Step::End => break,
                other => prop_assert!(false, "{other:?}"),
            }
        }
        let (slave, master) = (places(&slave), places(&master));
        let mut expected: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for (tid, paths) in &slave {
            let what = match master.get(tid) {
                None => "slave",
                Some(other) if other == paths => "same",
                Some(_) => "elsewhere",
            };
            expected.entry(what).or_default().insert(*tid);
        }
        for tid in master.keys().filter(|tid| !slave.contains_key(tid)) {
            expected.entry("master").or_default().insert(*tid);
        }
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn a_part_of_a_list_is_appended_to_the_parts_before() {
    let mut queue = Queue::of_slave(4, 1000);
    for (entries, end) in [(2, None), (0, None), (1, Some(Tail::Clean))] {
        assert_eq!(queue.end(), None);
        queue.add(&Transactions {
            entries: vec![
                crate::source::TransactionEntry {
                    tid: Tid(1),
                    len: 100,
                    status: TxnStatus::COMMITTED,
                };
                entries
            ],
            reached: Reached { offset: 0, end },
        });
    }
    assert_eq!((queue.known(), queue.position()), (304, 4));
    assert!(!queue.wants_more());
}
