//! The file with the transactions that were set aside, as ZODB sees it.

use std::fs::{self, File};
use std::path::Path;

use fssync::filestorage::extract::extract;
use serde_json::{Value, json};

use crate::support::{Scene, Zodb, project};

/// The positions of all transactions in a file, and its end.
fn boundaries(zodb: &mut Zodb, path: &Path) -> Vec<u64> {
    let answer = zodb.call(&json!({"cmd": "transactions", "path": path}));
    let all = answer["transactions"].as_array().expect("transactions");
    let starts = all
        .iter()
        .map(|one| one["pos"].as_u64().expect("a position"));
    starts
        .chain([zodb.check(path)["position"].as_u64().expect("a position")])
        .collect()
}

/// Sets the transactions from `start` on aside, and lets ZODB compare them. `old` minus these
/// transactions is written to `base`.
fn assert_set_aside(zodb: &mut Zodb, old: &Path, start: u64, end: u64) -> Value {
    let [path, base] = ["set-aside.fs", "base.fs"].map(|name| old.with_file_name(name));
    let mut copy = File::create(&path).expect("a file");
    let len = extract(&mut &File::open(old).unwrap(), start..end, &mut copy).expect("a copy");
    assert_eq!(len, fs::metadata(&path).unwrap().len());
    let bytes = fs::read(old).unwrap();
    fs::write(&base, &bytes[..start as usize]).unwrap();
    let has_base = start > 4;
    let base = has_base.then_some(base);
    let command = json!({"cmd": "compare_set_aside", "path": path, "old": old, "start": start,
        "base": base});
    zodb.call(&command)
}

#[test]
fn zodb_opens_the_last_transactions_of_each_fixture() {
    let scene = Scene::new();
    let mut zodb = Zodb::start();
    // ZODB cannot iterate over a transaction with status `u`; the unit tests have some.
    for name in [
        "commits",
        "undo",
        "undo-creation",
        "unpacked",
        "packed-gc",
        "packed-regrown",
        "extensions",
        "long-strings",
        "unicode",
        "empty-transaction",
        "big-record",
        "blobs-undo",
    ] {
        fs::copy(project(&format!("fixtures/{name}.fs")), &scene.master).unwrap();
        let boundaries = boundaries(&mut zodb, &scene.master);
        let (&end, starts) = boundaries.split_last().expect("an end");
        for &start in starts {
            assert_set_aside(&mut zodb, &scene.master, start, end);
        }
    }
}

#[test]
fn zodb_opens_the_last_transactions_of_random_histories() {
    let mut zodb = Zodb::start();
    for seed in 1..4 {
        let scene = Scene::new();
        let path = &scene.master;
        let open = json!({"cmd": "open", "name": "m", "path": path, "create": true, "seed": seed});
        zodb.call(&open);
        zodb.call(&json!({"cmd": "random", "name": "m", "count": 120, "pack": seed == 3}));
        zodb.call(&json!({"cmd": "close", "name": "m"}));
        let boundaries = boundaries(&mut zodb, path);
        let (&end, starts) = boundaries.split_last().expect("an end");
        for &start in starts.iter().rev().step_by(5).take(12) {
            let found = assert_set_aside(&mut zodb, path, start, end);
            assert!(found["transactions"].as_u64() > Some(0), "{found}");
        }
    }
}
