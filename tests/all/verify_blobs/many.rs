//! More blobs than are verified together.

use std::fs;
use std::path::Path;

use fssync::filestorage::Tid;
use fssync::filestorage::blob::{BlobKey, Layout};
use fssync::slave::blobs::{BlobDirectory, BlobEntry, BlobLedger};
use fssync::slave::paths::SlavePaths;
use fssync::slave::step::Slave;
use serde_json::json;

use super::present;
use crate::support::{Scene, measured};

/// More than a window has.
const COUNT: u64 = 260_000;

/// More memory than a verification needs, in bytes.
const MOST_MEMORY: u64 = 96 << 20;

fn key(number: u64) -> BlobKey {
    BlobKey {
        tid: Tid(0x0400_0000_0000_0000 + number),
        oid: number,
    }
}

/// Writes a log with `COUNT` transactions, each with a new blob.
fn write_log(path: &Path) {
    const PICKLE: &[u8] = b"\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N.";
    let tlen = 23 + 42 + PICKLE.len() as u64;
    let mut bytes = b"FS30".to_vec();
    for number in 1..=COUNT {
        let position = bytes.len() as u64;
        let BlobKey { tid, oid } = key(number);
        bytes.extend(tid.0.to_be_bytes());
        bytes.extend(tlen.to_be_bytes());
        bytes.extend(b" \0\0\0\0\0\0");
        for field in [oid, tid.0, 0, position] {
            bytes.extend(field.to_be_bytes());
        }
        bytes.extend([0, 0]);
        bytes.extend((PICKLE.len() as u64).to_be_bytes());
        bytes.extend(PICKLE);
        bytes.extend(tlen.to_be_bytes());
    }
    fs::write(path, bytes).expect("the log");
}

#[test]
fn the_memory_does_not_depend_on_the_number_of_blobs() {
    let scene = Scene::new();
    write_log(&scene.slave);
    let blobs = scene.directory.path().join("blobs");
    fs::create_dir_all(blobs.join(".fssync")).expect("a directory");
    fs::write(blobs.join(".layout"), "lawn").expect("a layout");
    fs::write(blobs.join(".fssync/id"), "0123456789abcdef".repeat(2)).expect("an id");
    // The first blob and the last one are there, and one of them is damaged.
    for (number, content) in [(1, "one"), (COUNT, "two")] {
        let path = blobs.join(Layout::Lawn.path(key(number)));
        fs::create_dir(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, content).expect("a blob");
    }
    let slave = Slave::new(SlavePaths::new(&scene.slave).expect("paths"), None);
    let directory = BlobDirectory::open_any(&blobs).expect("a blob directory");
    let mut ledger = BlobLedger::open_or_create(&slave, &directory).expect("a ledger");
    let entry = |number| BlobEntry {
        key: key(number),
        state: present(b"one"),
    };
    let entries = [entry(COUNT), entry(1)];
    ledger.append(&slave, &entries).expect("an append");

    let blobs = blobs.to_str().expect("UTF-8");
    let options = ["--json", "--orphans", "--slave-blobs", blobs];
    let (run, taken) = measured(&scene.verify(&options));
    let report = run.expect(31).report();
    assert_eq!(
        (&report["blobs"], &report["blobs_unchecked"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(report["counts"]["blob-missing"], COUNT - 2);
    assert_eq!(report["counts"]["blob-different"], 1);
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(101));
    assert_eq!(report["orphans"], 0);
    assert!(taken.memory < MOST_MEMORY, "{taken:?}");
}
