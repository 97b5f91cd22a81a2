//! Random sound files, and single flipped bits.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use fssync::verify::IndexState;
use fssync::verify::finding::Kind;
use serde_json::json;

use super::{Txn, both, number, quick, scene_of, sound, txns};
use crate::support::{Scene, Zodb, sparse_master};

#[test]
fn random_histories_are_sound() {
    let mut zodb = Zodb::start();
    for seed in 21..24 {
        let scene = Scene::new();
        let path = &scene.slave;
        zodb.call(
            &json!({"cmd": "open", "name": "m", "path": path, "create": true, "seed": seed,
                          "pack_gc": seed != 22}),
        );
        for _ in 0..5 {
            zodb.call(&json!({"cmd": "random", "name": "m", "count": 30, "pack": true}));
            let (verified, findings) = both(path);
            let severe = findings.iter().any(|it| it.kind != Kind::PreviousPointer);
            assert!(
                !severe && verified.damages == 0,
                "seed {seed}: {findings:?}"
            );
            let check = zodb.check(path);
            assert_eq!(verified.position, check["position"], "seed {seed}");
            assert_eq!(verified.objects, check["objects"], "seed {seed}");
            // ZODB warns about exactly the blemishes.
            let warned = check["warnings"].as_array().unwrap().len() as u64;
            assert_eq!(
                verified.blemishes, warned,
                "seed {seed}: {findings:?} {check}"
            );
        }
        zodb.call(&json!({"cmd": "close", "name": "m"}));
        let (verified, _) = both(path);
        assert!(
            matches!(verified.index, IndexState::Sound(_)),
            "{verified:?}"
        );
        zodb.call(&json!({"cmd": "read_all", "path": path}));
    }
}

/// Whether the structure alone may miss a changed bit at `at`. This is so in the tid of an
/// empty transaction, as long as the tids still rise, and in the oid of an object's first
/// record, if no later record points back to it, or if the new oid has no record either.
fn may_be_missed(txn: &Txn, at: usize, bytes: &[u8]) -> bool {
    let is_tid = at < txn.start() + 8;
    let is_empty = txn.stored.is_empty() && txn.back.is_empty();
    let is_first_oid = |record: u64| {
        let record = record as usize;
        (record..record + 8).contains(&at) && number(bytes, record + 16) == 0
    };
    // A back pointer is as long as a pickle of 8 bytes.
    let mut records = txn.stored.iter().chain(&txn.back);
    let is_length_8 = records.any(|&record| at == record as usize + 41 && bytes[at] == 0);
    is_tid && is_empty || is_length_8 || txn.stored.iter().any(|&record| is_first_oid(record))
}

/// The ranges of a transaction's headers, back pointers and lengths.
fn headers(txn: &Txn) -> Vec<Range<usize>> {
    let mut ranges = vec![txn.start()..txn.start() + 23, txn.end() - 8..txn.end()];
    let stored = txn.stored.iter().map(|&at| at as usize..at as usize + 42);
    let back = txn.back.iter().map(|&at| at as usize..at as usize + 50);
    ranges.extend(stored.chain(back));
    ranges
}

#[test]
fn the_structure_alone_shows_flipped_bits_of_headers() {
    let bytes = sound();
    let scene = scene_of(bytes);
    let file = File::options().write(true).open(&scene.slave).unwrap();
    let (mut flipped, mut missed) = (0, Vec::new());
    for txn in txns(bytes) {
        for at in headers(&txn).into_iter().flatten() {
            // One bit of each byte, in turn.
            let bit = 1 << ((at * 5 + at / 8) % 8);
            file.write_all_at(&[bytes[at] ^ bit], at as u64).unwrap();
            let (_, findings) = quick(&scene.slave);
            if findings.is_empty() {
                assert!(
                    may_be_missed(&txn, at, bytes),
                    "bit {bit} at {at} of {txn:?}"
                );
                missed.push(at);
            }
            file.write_all_at(&bytes[at..=at], at as u64).unwrap();
            flipped += 1;
        }
    }
    assert!(flipped > 1000 && missed.len() < flipped / 20, "{missed:?}");
    assert_eq!(quick(&scene.slave).1, []);
}

#[test]
fn a_quick_verify_skips_long_pickles() {
    let scene = Scene::new();
    sparse_master(&scene.slave, 64 << 20);
    let (verified, findings) = quick(&scene.slave);
    assert_eq!((findings, verified.records), (vec![], 1));
    assert!(verified.bytes < 100_000, "{verified:?}");
}

#[test]
fn the_structure_does_not_show_flipped_bits_of_pickles() {
    let mut bytes = sound().to_vec();
    bytes[txns(sound())[2].record() + 300] ^= 1;
    assert_eq!(quick(&scene_of(&bytes).slave).1, []);
}
