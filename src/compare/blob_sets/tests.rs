use std::cell::Cell;
use std::io::Write;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::filestorage::blob::tests::{BLOB, Data, Log, OTHER, Record};

/// The blobs of each transaction of a log: the tid, and the oids.
type Blobs = Vec<(u64, BTreeSet<u64>)>;

/// Transactions whose tids may decrease or repeat.
fn disordered() -> impl Strategy<Value = Blobs> {
    vec((0_u64..12, btree_set(0_u64..5, 1..4)), 0..10)
}

/// Transactions whose tids increase.
fn ordered() -> impl Strategy<Value = Blobs> {
    disordered().prop_map(|mut blobs| {
        blobs.sort_by_key(|&(tid, _)| tid);
        blobs.dedup_by_key(|&mut (tid, _)| tid);
        blobs
    })
}

fn log(blobs: &Blobs) -> Log {
    let mut log = Log::new();
    for (tid, oids) in blobs {
        let record = |(oid, pickle): (u64, &[u8])| Record {
            oid,
            prev: 0,
            data: Data::Pickle(pickle.to_vec()),
        };
        let blobs = oids.iter().map(|&oid| (oid, BLOB));
        let records: Vec<_> = blobs.chain([(77, OTHER)]).map(record).collect();
        log.append(*tid, b' ', &records);
    }
    log
}

fn references(blobs: &Blobs) -> Vec<BlobReference> {
    let keys = blobs.iter().flat_map(|(tid, oids)| {
        oids.iter().map(|&oid| BlobKey {
            tid: Tid(*tid),
            oid,
        })
    });
    let is_optional = |key: &BlobKey| key.oid == 3;
    keys.map(|key| BlobReference {
        key,
        is_optional: is_optional(&key),
    })
    .collect()
}

/// The result of a comparison.
#[derive(Debug, PartialEq, Eq)]
struct Compared {
    new: Vec<BlobReference>,
    gone: Vec<BlobKey>,
    is_comparable: bool,
}

/// Compares a log with a copy that arrives in two parts. The old log counts up to `position`.
fn compare(old: &Log, position: u64, parts: &[&[BlobReference]]) -> Compared {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&old.bytes).expect("its bytes");
    let mut sets = BlobSets::new(&file, Path::new("Data.fs"), position);
    let mut gone = Vec::new();
    let mut callbacks = Callbacks {
        check_cancelled: &|| Ok(()),
        gone: &mut |key| {
            gone.push(key);
            Ok(())
        },
    };
    let mut new = Vec::new();
    for part in parts {
        new.extend(sets.take(part, &mut callbacks).expect("new blobs"));
    }
    sets.finish(&mut callbacks).expect("the rest");
    Compared {
        new,
        gone,
        is_comparable: sets.is_comparable(),
    }
}

/// The result according to sets of all keys.
fn expected(old: &Blobs, copied: &[BlobReference]) -> Compared {
    let old: BTreeSet<_> = references(old).iter().map(|it| it.key).collect();
    let copied_keys: BTreeSet<_> = copied.iter().map(|it| it.key).collect();
    let new = copied.iter().filter(|it| !old.contains(&it.key));
    Compared {
        new: new.copied().collect(),
        gone: old.difference(&copied_keys).copied().collect(),
        is_comparable: true,
    }
}

/// The parts of a copy up to and after a transaction.
fn parts<'a>(blobs: &Blobs, copied: &'a [BlobReference], cut: Index) -> [&'a [BlobReference]; 2] {
    let transactions = cut.index(blobs.len() + 1);
    let len = references(&blobs[..transactions].to_vec()).len();
    let (first, second) = copied.split_at(len);
    [first, second]
}

fn is_increasing(blobs: &Blobs) -> bool {
    blobs.is_sorted_by(|a, b| a.0 < b.0)
}

proptest! {
    #[test]
    fn new_and_gone_blobs_are_the_differences_of_the_sets(
        old in ordered(),
        copied in ordered(),
        cut in any::<Index>(),
    ) {
        let log = log(&old);
        let references = references(&copied);
        let found = compare(&log, log.position(), &parts(&copied, &references, cut));
        prop_assert_eq!(found, expected(&old, &references));
    }

    #[test]
    fn disorder_never_hides_a_new_blob(
        old in disordered(),
        copied in disordered(),
        cut in any::<Index>(),
    ) {
        let log = log(&old);
        let references = references(&copied);
        let found = compare(&log, log.position(), &parts(&copied, &references, cut));
        let expected = expected(&old, &references);
        for new in &expected.new {
            prop_assert!(found.new.contains(new), "{:?}", new);
        }
        if found.is_comparable {
            // Two transactions with the same tid may report the same blob.
            let gone: BTreeSet<_> = found.gone.into_iter().collect();
            prop_assert_eq!(found.new, expected.new);
            prop_assert_eq!(gone, BTreeSet::from_iter(expected.gone));
        } else {
            prop_assert!(!is_increasing(&old) || !is_increasing(&copied));
        }
    }
}

#[test]
fn decreasing_tids_are_noticed_in_both_logs() {
    let both = |tids: [u64; 3]| tids.map(|tid| (tid, BTreeSet::from([1]))).to_vec();
    let (rising, falling) = (both([1, 2, 3]), both([1, 3, 2]));
    for (old, copied) in [(&rising, &falling), (&falling, &rising)] {
        let log = log(old);
        let found = compare(&log, log.position(), &[&references(copied)]);
        assert!(!found.is_comparable);
    }
}

#[test]
fn an_old_log_that_ends_early_is_not_comparable() {
    let old = vec![(1, BTreeSet::from([1])), (2, BTreeSet::from([2]))];
    let mut log = log(&old);
    let position = log.position();
    // The second transaction is damaged.
    let end = log.bytes.len();
    log.bytes[end - 1] ^= 1;
    let copied = references(&vec![(1, BTreeSet::from([1])), (3, BTreeSet::from([3]))]);
    for position in [position, position + 1, position - 1] {
        let found = compare(&log, position, &[&copied]);
        assert!(!found.is_comparable);
        assert_eq!(found.new.last(), copied.last());
    }
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&log.bytes[..60]).expect("its start");
    let mut sets = BlobSets::new(&file, Path::new("Data.fs"), position);
    let mut callbacks = Callbacks {
        check_cancelled: &|| Ok(()),
        gone: &mut |_| Ok(()),
    };
    let new = sets.take(&copied, &mut callbacks).expect("new blobs");
    assert_eq!((new, sets.is_comparable()), (copied, false));
}

#[test]
fn a_failing_callback_ends_the_comparison() {
    let log = log(&vec![(1, BTreeSet::from([1, 2]))]);
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&log.bytes).expect("its bytes");
    for is_cancelled in [true, false] {
        let mut sets = BlobSets::new(&file, Path::new("Data.fs"), log.position());
        let calls = Cell::new(0);
        let interrupted = |fails: bool| {
            calls.set(calls.get() + 1);
            if fails {
                Err(Error::Interrupted)
            } else {
                Ok(())
            }
        };
        let mut callbacks = Callbacks {
            check_cancelled: &|| interrupted(is_cancelled),
            gone: &mut |_| interrupted(true),
        };
        let finished = sets.finish(&mut callbacks);
        assert!(matches!(finished, Err(Error::Interrupted)));
        assert!(calls.get() > 0);
    }
}
