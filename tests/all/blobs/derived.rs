//! The blobs that the log refers to, compared with the files on disk, over random histories of
//! several versions of ZODB.
//!
//! They differ in these cases only:
//!
//! 1. If the creation of a blob is undone, a `<blobstorage>` has a file and a `<filestorage>`
//!    with a `blob-dir` has none. Such a reference is optional.
//! 2. A transaction that was aborted before its vote leaves its files in a `<filestorage>`. The
//!    log has no transaction with their tids.
//! 3. A pack of a `<filestorage>` with garbage collection removes all files of an object that
//!    was garbage at the time of the pack, even if a later transaction has restored the object
//!    by an undo (ZODB 6.4: `_remove_blob_files_tagged_for_removal_during_pack`).
//! 4. A pack of a `<blobstorage>` removes the files of records that ZODB can no longer load,
//!    and that are kept for back pointers only.
//! 5. If a transaction undoes the creation of a blob and the undo of that creation, a
//!    `<blobstorage>` does not copy the file (`BlobStorage.undo`).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use fssync::filestorage::Tid;
use fssync::filestorage::blob::{BlobKey, LAYOUT_FILE, Layout};
use fssync::slave::scan::blobs::BlobScan;
use serde_json::json;

use crate::environment;
use crate::support::{Blobs, Scene, Setup, Zodb, blobs_beside, must, number, python};

/// How often a history continues, and with how many operations.
const ROUNDS: usize = 4;
const OPERATIONS: usize = 60;

/// The blobs to which a log refers.
#[derive(Debug, Default)]
pub struct Derived {
    pub needed: BTreeSet<BlobKey>,
    pub optional: BTreeSet<BlobKey>,
}

impl Derived {
    /// The blobs of the transactions up to this position.
    pub fn of(log: &Path, position: u64) -> Self {
        const FIRST_TRANSACTION: u64 = 4;
        let file = File::open(log).expect("the log");
        let mut scan = BlobScan::new(&file, log, FIRST_TRANSACTION, position);
        let mut derived = Self::default();
        while let Some(references) = scan.next_slice().expect("the log can be read") {
            for it in references {
                let keys = if it.is_optional {
                    &mut derived.optional
                } else {
                    &mut derived.needed
                };
                assert!(keys.insert(it.key), "{it:?} is reported once");
            }
        }
        assert_eq!(scan.position(), position, "all transactions are read");
        derived
    }
}

/// The blob files below a directory.
pub fn on_disk(blobs: &Path) -> BTreeSet<BlobKey> {
    let layout = fs::read(blobs.join(LAYOUT_FILE)).expect(".layout");
    let layout = Layout::parse(&layout).expect("a layout");
    let mut keys = BTreeSet::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(blobs.join(&directory)).expect("a directory") {
            let entry = entry.expect("an entry");
            let path = directory.join(entry.file_name());
            if entry.file_type().expect("its type").is_dir() {
                // fssync's own directory may contain the blobs of a slave that was set aside.
                if path != Path::new(".fssync") {
                    waiting.push(path);
                }
            } else if path.extension().is_some_and(|it| it == "blob") {
                let key = layout.key(&path);
                keys.insert(key.unwrap_or_else(|| panic!("{} is a blob", path.display())));
            }
        }
    }
    keys
}

/// The blob files that were there when their transaction was finished.
fn written(journal: &Path) -> BTreeSet<BlobKey> {
    let text = fs::read_to_string(journal).expect("the journal");
    text.lines().map(key).collect()
}

/// The key in a text that starts with oid and tid, such as `000000000000000a 0405ff6737777777`.
pub fn key(text: &str) -> BlobKey {
    let mut fields = text.split(' ').map(|it| u64::from_str_radix(it, 16));
    let mut next = || fields.next().expect("a field").expect("hexadecimal digits");
    let oid = next();
    BlobKey {
        tid: Tid(next()),
        oid,
    }
}

/// What differs between log and disk, in numbers of blobs.
#[derive(Debug, Default)]
struct Differences {
    derived: usize,
    undone: usize,
    orphans: usize,
    packed: usize,
    never_written: usize,
}

/// Compares the log of a master with its blob directory.
fn compare(zodb: &mut Zodb, scene: &Scene, setup: Setup, is_gc: bool, all: &mut Differences) {
    let len = fs::metadata(&scene.master).expect("the log").len();
    let derived = Derived::of(&scene.master, len);
    let files = on_disk(&blobs_beside(&scene.master));
    let answer = zodb.call(&json!({"cmd": "transactions", "path": scene.master}));
    let tids: BTreeSet<String> = answer["transactions"]
        .as_array()
        .expect("transactions")
        .iter()
        .map(|it| it["tid"].as_str().expect("a tid").to_owned())
        .collect();

    all.derived += derived.needed.len();
    for key in files.difference(&derived.needed) {
        let is_in_log = tids.contains(&format!("{:016x}", key.tid.0));
        match setup {
            Setup::FileStorage => {
                assert!(!is_in_log, "{key:?} is not derived");
                all.orphans += 1;
            }
            Setup::Proxy => {
                assert!(derived.optional.contains(key), "{key:?} is not derived");
                all.undone += 1;
            }
        }
    }
    let written = written(&scene.directory.path().join("journal"));
    let blobs = Blobs {
        file: &scene.master,
        directory: &blobs_beside(&scene.master),
        expected: None,
        journal: None,
    };
    let found = zodb.check_blobs(&blobs, setup);
    let missing = found["missing"].as_array().expect("a list").iter();
    let missing: BTreeSet<BlobKey> = missing.map(|it| key(it.as_str().expect("a key"))).collect();
    for key in derived.needed.difference(&files) {
        let was_there = written.contains(key);
        let is_explained = match setup {
            Setup::FileStorage => was_there && is_gc,
            Setup::Proxy => !(was_there && missing.contains(key)),
        };
        assert!(is_explained, "{key:?} has no file");
        if was_there {
            all.packed += 1;
        } else {
            all.never_written += 1;
        }
    }
}

/// Compares random histories, in both set-ups, with garbage collection and without.
fn derived_blobs_are_those_on_disk(python: &Path, first_seed: usize) {
    let seeds = number("FSSYNC_BLOB_SEEDS").unwrap_or(3);
    let mut zodb = Zodb::with(python);
    for setup in Setup::BOTH {
        for is_gc in [true, false] {
            let mut differences = Differences::default();
            for seed in first_seed..first_seed + seeds {
                let scene = Scene::new();
                let layout = ["bushy", "lawn"][seed % 2];
                let journal = scene.directory.path().join("journal");
                let options = json!({"create": true, "layout": layout, "pack_gc": is_gc,
                    "pack_keep_old": seed % 3 == 0, "seed": seed, "journal": journal});
                zodb.open_with_blobs(&scene.master, setup, &options);
                for round in 0..ROUNDS {
                    eprintln!("{setup:?}, gc {is_gc}, seed {seed}, round {round}");
                    zodb.call(
                        &json!({"cmd": "random", "name": "m", "count": OPERATIONS, "pack": true}),
                    );
                    compare(&mut zodb, &scene, setup, is_gc, &mut differences);
                }
                zodb.call(&json!({"cmd": "close", "name": "m"}));
            }
            println!("{setup:?}, gc {is_gc}: {differences:?}");
            assert!(differences.derived > 20 * seeds, "{differences:?}");
        }
    }
}

/// The Python of an older ZODB.
fn older(version: &str) -> PathBuf {
    let requirements = format!("tests/zodb/requirements-{version}.txt");
    environment::python(&requirements, |command| {
        must(command);
    })
}

#[test]
fn of_the_newest_zodb() {
    derived_blobs_are_those_on_disk(python(), 10);
}

#[test]
fn of_zodb_5_8_1() {
    derived_blobs_are_those_on_disk(&older("5.8.1"), 20);
}

#[test]
fn of_zodb_5_1_1() {
    derived_blobs_are_those_on_disk(&older("5.1.1"), 30);
}
