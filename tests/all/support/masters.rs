//! Masters in several states, and slaves that a killed pass left.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::{Scene, Zodb, rewrite_end, run, strace};

/// The bytes of one master at several times.
pub struct History {
    /// The master before the first pass.
    pub before: Vec<u8>,
    /// `before` with more transactions.
    pub after: Vec<u8>,
    /// `after` with another transaction that is voted, not finished.
    pub voted: Vec<u8>,
    /// `after`, packed. It has the last transaction of `before`.
    pub packed: Vec<u8>,
    /// `after`, packed. It does not have the last transaction of `before`.
    pub packed_away: Vec<u8>,
}

impl History {
    /// The history that all tests share, written by ZODB.
    pub fn get() -> &'static Self {
        static HISTORY: OnceLock<History> = OnceLock::new();
        HISTORY.get_or_init(Self::make)
    }

    fn make() -> Self {
        let scene = Scene::new();
        let mut zodb = Zodb::start();
        let path = &scene.master;
        let mut then = |command: Value| {
            zodb.call(&command);
            fs::read(path).expect("the master")
        };
        let commit = |objects: u32, size: u32| {
            json!({"cmd": "commit", "name": "m", "objects": objects, "size": size,
                   "user": "editor", "description": "a page"})
        };
        then(json!({"cmd": "open", "name": "m", "path": path, "create": true, "seed": 1}));
        then(commit(4, 1000));
        then(commit(3, 2000));
        then(commit(1, 300));
        let before = then(commit(1, 500));
        then(commit(9, 100));
        then(commit(12, 100));
        then(commit(1, 12_000));
        then(commit(0, 0));
        let after = then(commit(3, 1500));
        let voted = then(json!({"cmd": "vote", "name": "m", "objects": 2, "size": 900}));
        then(json!({"cmd": "abort", "name": "m"}));
        let packed = then(json!({"cmd": "pack", "name": "m", "keep": 6}));
        let packed_away = then(json!({"cmd": "pack", "name": "m", "keep": 0}));
        Self {
            before,
            after,
            voted,
            packed,
            packed_away,
        }
    }
}

/// A slave that was in sync, and an append to it that was killed before its `nth` sync.
pub fn append_killed_at_sync(nth: u32) -> Scene {
    let history = History::get();
    let scene = Scene::synced(history);
    rewrite_end(&scene.master, &history.after);
    kill_append_at_sync(&scene, nth);
    scene
}

/// Kills an append before the `nth` sync of the slave.
pub fn kill_append_at_sync(scene: &Scene, nth: u32) {
    kill_at_sync(scene, &[], nth);
}

/// Kills a pass with these options before the `nth` sync of the slave.
pub fn kill_at_sync(scene: &Scene, options: &[&str], nth: u32) {
    let kill = format!("inject=fdatasync:signal=SIGKILL:when={nth}");
    let slave = fs::canonicalize(&scene.slave).expect("the slave");
    let mut pass = strace(&["-e", &kill], &[slave]);
    let killed = run(pass.args(options).args([&scene.master, &scene.slave]));
    assert_ne!(killed.code, 0, "{killed:?}");
}

/// Writes a sparse master with one transaction, of one object of `len` zeros.
pub fn sparse_master(path: &Path, len: u64) {
    fs::write(path, b"FS30").expect("the master");
    append_sparse(path, len, 0x03f0_0000_0000_0000);
}

/// Appends such a transaction.
pub fn append_sparse(path: &Path, len: u64, tid: u64) {
    let file = File::options().write(true).open(path).expect("the master");
    let start = file.metadata().expect("its size").len();
    let txn_len: u64 = 23 + 42 + len;
    let mut head = Vec::new();
    head.extend(tid.to_be_bytes());
    head.extend(txn_len.to_be_bytes());
    head.extend([b' ', 0, 0, 0, 0, 0, 0]);
    head.extend(0u64.to_be_bytes());
    head.extend(tid.to_be_bytes());
    head.extend(0u64.to_be_bytes());
    head.extend(start.to_be_bytes());
    head.extend(0u16.to_be_bytes());
    head.extend(len.to_be_bytes());
    file.write_all_at(&head, start).expect("the headers");
    file.write_all_at(&txn_len.to_be_bytes(), start + txn_len)
        .expect("the trailer");
}
