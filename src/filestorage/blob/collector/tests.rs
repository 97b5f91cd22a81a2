use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::filestorage::Tid;
use crate::filestorage::blob::BlobReference;
use crate::filestorage::blob::tests::{BLOB, Data, Log, OTHER, Record, history};
use crate::filestorage::scan::{Scanner, Tail};

fn resolve(candidates: &[BlobCandidate], log: &mut Log) -> Vec<BlobReference> {
    let resolved = candidates.iter().map(|candidate| {
        let Ok(resolved) = candidate.resolve(log);
        resolved
    });
    resolved.flatten().collect()
}

/// Scans a log in pieces of these lengths, which are repeated.
fn references(log: &mut Log, piece_lens: &[usize]) -> Vec<BlobReference> {
    let mut collector = BlobCollector::default();
    let mut scanner = Scanner::new(log.position());
    let mut found = Vec::new();
    for &len in piece_lens.iter().cycle() {
        let offset = scanner.offset();
        let len = len.min(scanner.left() as usize);
        if len == 0 {
            break;
        }
        let piece = log.bytes[offset as usize..][..len].to_vec();
        scanner.feed(&piece, &mut |event| collector.event(event));
        collector.bytes(offset, &piece);
        found.extend(resolve(&collector.take(), log));
    }
    assert_eq!(scanner.tail(), Tail::Clean);
    found
}

proptest! {
    #[test]
    fn the_blobs_of_a_log_are_found_in_pieces_of_any_size(
        mut history in history(),
        piece_lens in vec(1_usize..200, 1..5),
    ) {
        let expected = history.references.clone();
        prop_assert_eq!(&references(&mut history.log, &piece_lens), &expected);
        prop_assert_eq!(&references(&mut history.log, &[usize::MAX]), &expected);
    }

    #[test]
    fn a_scan_may_go_back(
        history in history(),
        steps in vec((1_usize..300, any::<bool>()), 1..80),
    ) {
        let mut log = history.log;
        let mut collector = BlobCollector::default();
        let mut scanner = Scanner::new(log.position());
        let mut found = Vec::new();
        let rest = (usize::MAX, false);
        for (len, goes_back) in steps.into_iter().chain([rest]) {
            let offset = scanner.offset();
            let len = len.min(scanner.left() as usize);
            let piece = log.bytes[offset as usize..][..len].to_vec();
            scanner.feed(&piece, &mut |event| collector.event(event));
            collector.bytes(offset, &piece);
            if goes_back {
                scanner.go_back();
            }
            found.extend(resolve(&collector.take(), &mut log));
        }
        prop_assert_eq!(found, history.references);
    }
}

fn stored(oid: u64, pickle: &[u8]) -> Record {
    let data = Data::Pickle(pickle.to_vec());
    Record { oid, prev: 0, data }
}

#[test]
fn the_last_record_of_an_object_in_a_transaction_decides() {
    let mut log = Log::new();
    let records = [
        stored(1, BLOB),
        stored(2, BLOB),
        stored(1, OTHER),
        stored(3, OTHER),
        stored(3, BLOB),
        stored(2, BLOB),
    ];
    let positions = log.append(9, b' ', &records);
    // In the next transaction, the object is not a blob; its file of the first one remains.
    log.append(10, b' ', &[stored(2, OTHER)]);
    let mut collector = BlobCollector::default();
    let mut scanner = Scanner::new(log.position());
    scanner.feed(&log.bytes[4..], &mut |event| collector.event(event));
    collector.bytes(4, &log.bytes[4..]);
    let found = collector.take();
    let found: Vec<_> = found.iter().map(|it| (it.key.oid, it.position)).collect();
    assert_eq!(found, [(3, positions[4]), (2, positions[5])]);
}

#[test]
fn an_incomplete_transaction_has_no_candidates() {
    let mut log = Log::new();
    log.append(9, b' ', &[stored(1, BLOB)]);
    let mut collector = BlobCollector::default();
    let mut scanner = Scanner::new(log.position());
    let bytes = &log.bytes[4..log.bytes.len() - 1];
    scanner.feed(bytes, &mut |event| collector.event(event));
    collector.bytes(4, bytes);
    assert_eq!(collector.take(), []);
    let (tid, oid) = (Tid(9), 1);
    scanner.feed(&log.bytes[log.bytes.len() - 1..], &mut |event| {
        collector.event(event);
    });
    // It is complete, but only once its bytes have arrived.
    assert_eq!(collector.take(), []);
    collector.bytes(log.position() - 1, &log.bytes[log.bytes.len() - 1..]);
    let keys: Vec<_> = collector.take().iter().map(|it| it.key).collect();
    assert_eq!(keys, [BlobKey { tid, oid }]);
}
