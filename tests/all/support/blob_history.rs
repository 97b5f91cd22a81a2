//! A master with blobs at several times.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::zodb::blobs_beside;
use super::{Scene, Setup, Zodb, must, replace, rewrite_end};

/// One master at several times, written by ZODB with `blob-dir`.
pub struct BlobHistory {
    /// Where the stages are.
    scene: Scene,
    /// The master before the first pass. It has two revisions of one blob.
    pub before: Stage,
    /// `before` with more transactions: a blob that was changed and restored by an undo, new
    /// blobs, one of them empty, a blob whose creation was undone, and a deleted blob.
    pub after: Stage,
    /// `before` with the first transactions of `after`.
    pub grown: Stage,
    /// `before` with other transactions, as the new master has them after a failover.
    pub forked: Stage,
    /// `after`, packed. It has the last transaction of `before`, and not the oldest revision of
    /// its blob.
    pub packed: Stage,
    /// `after`, packed. It does not have the last transaction of `before`.
    pub packed_away: Stage,
}

/// The log of a master, and a copy of its blob directory.
pub struct Stage {
    pub log: Vec<u8>,
    pub blobs: PathBuf,
}

impl Stage {
    /// Brings the master of a scene to this stage. The file stays the same, as with commits.
    pub fn write(&self, scene: &Scene) {
        self.copy_blobs(&blobs_beside(&scene.master));
        if scene.master.exists() {
            rewrite_end(&scene.master, &self.log);
        } else {
            fs::write(&scene.master, &self.log).expect("the master");
        }
    }

    /// The same with another file, as after a pack.
    pub fn replace(&self, scene: &Scene) {
        replace(&scene.master, &self.log);
        self.copy_blobs(&blobs_beside(&scene.master));
    }

    /// Copies the blob directory to a path, and replaces the one that is there.
    pub fn copy_blobs(&self, to: &Path) {
        if to.exists() {
            fs::remove_dir_all(to).expect("the old blob directory");
        }
        must(Command::new("cp").arg("-a").arg(&self.blobs).arg(to));
    }
}

impl BlobHistory {
    /// The history that all tests share.
    pub fn get() -> &'static Self {
        static HISTORY: OnceLock<BlobHistory> = OnceLock::new();
        HISTORY.get_or_init(Self::make)
    }

    /// The digests of all blobs.
    pub fn journal(&self) -> PathBuf {
        journal(&self.scene)
    }

    fn make() -> Self {
        let scene = Scene::new();
        let mut zodb = Zodb::start();
        let options = json!({"create": true, "seed": 1, "journal": journal(&scene)});
        zodb.open_with_blobs(&scene.master, Setup::FileStorage, &options);
        let mut then = |what: Value| {
            let mut command = json!({"cmd": "commit", "name": "m"});
            let what = what.as_object().expect("what").clone();
            command.as_object_mut().expect("a command").extend(what);
            zodb.call(&command);
        };
        let undo = || json!({"cmd": "undo"});
        let blobs = |count: u32, len: u32| json!({"objects": 0, "blobs": count, "blob_size": len});
        let change = |len: u32| json!({"objects": 0, "changes": 1, "blob_size": len});
        let stage = |name: &str| {
            let blobs = scene.directory.path().join(name);
            let from = blobs_beside(&scene.master);
            must(Command::new("cp").arg("-a").arg(from).arg(&blobs));
            let log = fs::read(&scene.master).expect("the master");
            Stage { log, blobs }
        };
        // A part of this transaction stays in all stages.
        then(json!({"objects": 12}));
        then(blobs(1, 5000));
        then(change(700));
        let before = stage("before");
        then(change(300));
        then(undo());
        then(blobs(2, 20_000));
        let grown = stage("grown");
        then(change(0));
        then(blobs(1, 40));
        then(undo());
        then(json!({"objects": 3}));
        then(json!({"objects": 0, "deletions": 1}));
        let after = stage("after");
        then(json!({"cmd": "pack", "keep": 8}));
        let packed = stage("packed");
        then(json!({"cmd": "pack", "keep": 0}));
        let packed_away = stage("packed-away");
        zodb.call(&json!({"cmd": "close", "name": "m"}));
        let forked = fork(&scene, &before, &mut zodb);
        Self {
            scene,
            before,
            after,
            grown,
            forked,
            packed,
            packed_away,
        }
    }
}

/// Commits to a copy of a stage.
fn fork(scene: &Scene, from: &Stage, zodb: &mut Zodb) -> Stage {
    let file = scene.directory.path().join("fork/Data.fs");
    fs::create_dir(file.parent().expect("a directory")).expect("a directory");
    fs::write(&file, &from.log).expect("the log");
    let blobs = blobs_beside(&file);
    from.copy_blobs(&blobs);
    let options = json!({"seed": 2, "journal": journal(scene)});
    zodb.open_with_blobs(&file, Setup::FileStorage, &options);
    for size in [900, 12_000] {
        let commit = json!({"cmd": "commit", "name": "m", "blobs": 1, "blob_size": size});
        zodb.call(&commit);
    }
    zodb.call(&json!({"cmd": "close", "name": "m"}));
    let log = fs::read(&file).expect("the log");
    Stage { log, blobs }
}

fn journal(scene: &Scene) -> PathBuf {
    scene.directory.path().join("journal")
}
