//! The index, compared with ZODB's: its bytes for the same file, and whether ZODB uses it.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use fssync::error::Error;
use fssync::filestorage::index::Index;
use fssync::filestorage::index::builder::Builder;
use fssync::io::progress::Silent;
use fssync::slave::index::{self, StoredIndex};
use fssync::slave::paths::SlavePaths;
use fssync::slave::step::Slave;
use fssync::upkeep::{IndexBuild, Progress};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::support::{
    History, Holder, Scene, Zodb, append_sparse, must, names, project, require_root, sparse_master,
    without_forks,
};

/// The slave of a scene, as a pass opens it.
fn slave(scene: &Scene) -> Slave {
    let paths = SlavePaths::new(&scene.slave).expect("a place for the slave");
    Slave::new(paths, None)
}

/// Continues `builder` up to a position of the file, and returns the index.
fn extended(slave: &Slave, file: &Path, builder: Builder, position: u64) -> Option<Index> {
    let data = File::open(file).expect("the file");
    let mut build = IndexBuild::new(slave, data, builder, position).expect("a build");
    let progress = build.read(slave, &mut || false, &Silent);
    assert_eq!(progress.expect("it is read"), Progress::Complete);
    build.finish(slave).ok()
}

fn written(index: &Index, position: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    index.write(position, &mut bytes).expect("its bytes");
    bytes
}

/// Builds the slave's index and stores it.
fn store(slave: &Slave) -> Result<Option<StoredIndex>, Error> {
    let _quiet = without_forks();
    let seen = slave.stat()?.expect("a slave");
    let index = extended(slave, slave.paths.data(), Builder::default(), seen.size);
    let data = File::open(slave.paths.data()).expect("the slave");
    let index = index.expect("an index");
    index::store(slave, &data, seen, &index, seen.size)
}

/// A slave with an index that was stored.
fn stored() -> (Scene, Slave, StoredIndex) {
    let scene = Scene::synced(History::get());
    let slave = slave(&scene);
    let stored = store(&slave).expect("it is stored").expect("ZODB uses it");
    (scene, slave, stored)
}

/// Whether ZODB uses the index beside the slave when it opens the slave. An error counts as
/// no.
fn is_used(zodb: &mut Zodb, slave: &Path) -> bool {
    let opened = zodb.attempt(&json!({"cmd": "check_open", "path": slave}));
    opened["ok"] == true && opened["used_index"] == true
}

#[test]
fn the_index_of_each_fixture_equals_zodbs() {
    let expected = fs::read_to_string(project("fixtures/expected.json")).expect("expected.json");
    let expected: Value = serde_json::from_str(&expected).expect("JSON");
    let mut zodb = Zodb::start();
    let mut used = 0;
    for (name, facts) in expected["files"].as_object().expect("the fixtures") {
        let Some(position) = facts["position"].as_u64() else {
            continue;
        };
        let scene = Scene::with_master(name);
        let bytes = fs::read(&scene.master).unwrap();
        fs::write(&scene.slave, &bytes[..position as usize]).unwrap();
        let (theirs, of) = zodb.index_of(&scene.slave);
        assert_eq!(of, position, "{name}");
        let slave = slave(&scene);
        let ours = extended(&slave, &scene.slave, Builder::default(), position);
        let ours = ours.unwrap_or_else(|| panic!("{name} has no index"));
        assert!(written(&ours, position) == theirs, "{name}");
        let stored = store(&slave).expect("a try").is_some();
        assert_eq!(scene.beside(".index").exists(), stored, "{name}");
        fs::write(scene.beside(".index"), theirs).unwrap();
        assert_eq!(is_used(&mut zodb, &scene.slave), stored, "{name}");
        used += u32::from(stored);
    }
    assert!(used > 20, "{used}");
}

#[test]
fn the_index_of_a_random_history_equals_zodbs_at_every_step() {
    let mut zodb = Zodb::start();
    for seed in 1..4 {
        let scene = Scene::new();
        let path = &scene.slave;
        zodb.call(&json!({"cmd": "open", "name": "m", "path": path, "create": true, "seed": seed}));
        let slave = slave(&scene);
        let mut last = Builder::default();
        let mut used = 0;
        for _ in 0..12 {
            let random = json!({"cmd": "random", "name": "m", "count": 25, "pack": true});
            // A pack writes a new file.
            if zodb.call(&random)["operations"].get("pack").is_some() {
                last = Builder::default();
            }
            zodb.call(&json!({"cmd": "vote", "name": "m", "objects": 2}));
            let (theirs, position) = zodb.index_of(path);
            let ours = extended(&slave, path, last, position).expect("an index");
            assert!(
                written(&ours, position) == theirs,
                "seed {seed} at {position}"
            );
            last = Builder::resume(ours, position);
            zodb.call(&json!({"cmd": "abort", "name": "m"}));
            zodb.call(&json!({"cmd": "abandon", "name": "m"}));
            let _ = fs::remove_file(scene.beside(".index"));
            let stored = store(&slave).expect("a try").is_some();
            assert_eq!(
                is_used(&mut zodb, path),
                stored,
                "seed {seed} at {position}"
            );
            used += u32::from(stored);
            zodb.call(&json!({"cmd": "open", "name": "m", "path": path}));
        }
        zodb.call(&json!({"cmd": "close", "name": "m"}));
        assert!(used > 0, "seed {seed}");
    }
}

#[test]
fn any_index_content_is_written_as_by_zodb() {
    let oid = prop_oneof![
        0_u64..3000,
        any::<u64>(),
        any::<u16>().prop_map(|n| u64::from(n) << 16 | 0xffff),
        any::<u8>().prop_map(|n| u64::MAX - u64::from(n)),
    ];
    let at = prop_oneof![27_u64..1000, 27_u64..1 << 48];
    let objects = proptest::collection::btree_map(oid, at, 0..3000);
    let position = prop_oneof![
        0_u64..1 << 17,
        (0_u32..63).prop_map(|bits| 1_u64 << bits),
        (0_u32..63).prop_map(|bits| (1_u64 << bits) - 1),
        0_u64..1 << 62,
    ];
    let mut runner = TestRunner::deterministic();
    let mut zodb = Zodb::start();
    let scene = Scene::new();
    let to = scene.directory.path().join("index");
    for _ in 0..40 {
        let content = (&objects, &position).new_tree(&mut runner).unwrap();
        let (objects, position): (BTreeMap<u64, u64>, u64) = content.current();
        let mut index = Index::default();
        for (&oid, &at) in &objects {
            index.insert(oid, at);
        }
        let pairs: Vec<_> = objects.iter().collect();
        let command = json!({"cmd": "save_index_of", "objects": pairs, "position": position,
                             "to": to});
        assert_eq!(zodb.call(&command)["objects"], objects.len());
        assert!(
            written(&index, position) == fs::read(&to).unwrap(),
            "{position} {objects:?}"
        );
    }
}

#[test]
fn positions_beyond_4_gigabytes_equal_zodbs() {
    let scene = Scene::new();
    let path = &scene.slave;
    sparse_master(path, (1 << 32) + 1000);
    append_sparse(path, 900, 0x03f0_0000_0000_0001);
    append_sparse(path, 800, 0x03f0_0000_0000_0002);
    let mut zodb = Zodb::start();
    let slave = slave(&scene);
    assert!(store(&slave).expect("it is stored").is_some());
    let (theirs, _) = zodb.index_of(path);
    assert!(fs::read(scene.beside(".index")).unwrap() == theirs);
    let opened =
        zodb.attempt(&json!({"cmd": "open", "name": "r", "path": path, "read_only": true}));
    assert_eq!(opened["used_index"], true, "{opened}");
}

#[test]
fn a_file_of_empty_transactions_gets_no_index() {
    let scene = Scene::new();
    let mut zodb = Zodb::start();
    zodb.call(&json!({"cmd": "open", "name": "m", "path": scene.slave, "create": true}));
    for _ in 0..9 {
        zodb.call(&json!({"cmd": "commit", "name": "m", "objects": 0}));
    }
    zodb.call(&json!({"cmd": "close", "name": "m"}));
    let opened = zodb.attempt(&json!({"cmd": "check_open", "path": scene.slave}));
    assert_eq!(opened["ok"], false, "ZODB fails on its own index: {opened}");
    let slave = slave(&scene);
    index::remove(&slave).expect("it is removed");
    assert!(store(&slave).expect("a try").is_none());
    assert!(!scene.beside(".index").exists());
    zodb.call(&json!({"cmd": "check_open", "path": scene.slave}));
}

#[test]
fn an_unchanged_index_is_loaded_and_extended() {
    let (scene, slave, stored) = stored();
    assert!(stored.is_unchanged(&slave.paths).unwrap());
    let text = serde_json::to_string(&stored).unwrap();
    let stored: StoredIndex = serde_json::from_str(&text).unwrap();
    let index = stored.load(&slave.paths).expect("the index");
    let after = &History::get().after;
    fs::write(&scene.slave, after).unwrap();
    let position = after.len() as u64;
    let builder = Builder::resume(index, stored.position);
    let index = extended(&slave, &scene.slave, builder, position).expect("an index");
    let mut zodb = Zodb::start();
    let (theirs, of) = zodb.index_of(&scene.slave);
    assert_eq!(of, position);
    assert!(written(&index, position) == theirs);
    // The old index is still valid for the longer file.
    assert!(stored.is_unchanged(&slave.paths).unwrap());
    assert!(is_used(&mut zodb, &scene.slave));
    assert_eq!(
        zodb.call(&json!({"cmd": "check_open", "path": scene.slave}))["position"],
        of
    );
}

#[test]
fn a_position_inside_a_transaction_has_no_index() {
    let scene = Scene::synced(History::get());
    let slave = slave(&scene);
    let position = History::get().before.len() as u64;
    assert!(extended(&slave, &scene.slave, Builder::default(), position).is_some());
    assert!(extended(&slave, &scene.slave, Builder::default(), position - 1).is_none());
}

#[test]
fn a_modified_index_is_not_trusted() {
    type Touch = fn(&Path);
    let touches: [(&str, Touch); 5] = [
        ("removed", |path| fs::remove_file(path).unwrap()),
        ("cut", |path| {
            let file = File::options().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        }),
        ("copied", |path| {
            let copy = path.with_extension("copy");
            fs::copy(path, &copy).unwrap();
            fs::rename(copy, path).unwrap();
        }),
        ("a symbolic link", |path| {
            let other = path.with_extension("other");
            fs::rename(path, &other).unwrap();
            std::os::unix::fs::symlink(other, path).unwrap();
        }),
        ("a directory", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
    ];
    for (name, touch) in touches {
        let (scene, slave, stored) = stored();
        touch(&scene.beside(".index"));
        assert!(!stored.is_unchanged(&slave.paths).unwrap(), "{name}");
        assert!(stored.load(&slave.paths).is_none(), "{name}");
    }
}

#[test]
fn an_index_that_zodb_saved_is_not_trusted() {
    let (scene, slave, stored) = stored();
    let mut zodb = Zodb::start();
    zodb.call(&json!({"cmd": "open", "name": "s", "path": scene.slave}));
    zodb.call(&json!({"cmd": "close", "name": "s"}));
    assert!(!stored.is_unchanged(&slave.paths).unwrap());
    assert!(stored.load(&slave.paths).is_none());
}

#[test]
fn a_flipped_bit_in_the_index_is_detected() {
    let (scene, slave, stored) = stored();
    let path = scene.beside(".index");
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let found = file.metadata().unwrap();
    let mut byte = [0];
    // The last byte of the last position.
    let at = found.len() - 7;
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    file.set_times(FileTimes::new().set_modified(found.modified().unwrap()))
        .unwrap();
    assert!(stored.is_unchanged(&slave.paths).unwrap());
    assert!(stored.load(&slave.paths).is_none());
}

#[test]
fn no_index_is_stored_if_the_slave_may_not_be_written() {
    type Hinder = fn(&Scene, &Slave) -> Option<Holder>;
    let hindrances: [(&str, Hinder); 4] = [
        ("off", |scene, _| {
            fs::write(scene.beside(".fssync-switch"), "SYNCING=0\n").unwrap();
            None
        }),
        ("in use", |scene, _| {
            Some(Holder::of(&scene.beside(".lock")))
        }),
        ("interrupted", |_, slave| {
            slave.interrupted.store(true, Ordering::Relaxed);
            None
        }),
        ("grown", |_, _| None),
    ];
    for (name, hinder) in hindrances {
        let (scene, slave, stored) = stored();
        let index = stored.load(&slave.paths).expect("the index");
        let before = scene.beside_slave();
        let mut seen = slave.stat().unwrap().expect("a slave");
        seen.size += u64::from(name == "grown");
        let holder = hinder(&scene, &slave);
        let data = File::open(&scene.slave).unwrap();
        let quiet = without_forks();
        let result = index::store(&slave, &data, seen, &index, stored.position);
        drop(quiet);
        let is_expected = match (name, &result) {
            ("off", Err(Error::Off(_)))
            | ("interrupted", Err(Error::Interrupted))
            | ("grown", Err(Error::SlaveChanged { .. })) => true,
            ("in use", Err(Error::InUse { pid, .. })) => *pid == holder.as_ref().map(Holder::pid),
            _ => false,
        };
        assert!(is_expected, "{name}: {result:?}");
        assert!(stored.is_unchanged(&slave.paths).unwrap(), "{name}");
        let mut left = scene.beside_slave();
        left.retain(|it| it != "Data.fs.fssync-switch" && it != "Data.fs.lock");
        let mut before = before;
        before.retain(|it| it != "Data.fs.lock");
        assert_eq!(left, before, "{name}");
    }
}

#[test]
fn the_index_gets_the_slaves_owner_and_mode() {
    require_root();
    let scene = Scene::synced(History::get());
    fs::set_permissions(&scene.slave, fs::Permissions::from_mode(0o640)).unwrap();
    must(
        std::process::Command::new("chown")
            .arg("65534:65533")
            .arg(&scene.slave),
    );
    // A partial copy that a killed pass left must not prevent this.
    fs::write(scene.beside(".fssync-tmp"), "a part of an index").unwrap();
    store(&slave(&scene))
        .expect("it is stored")
        .expect("ZODB uses it");
    let found = fs::metadata(scene.beside(".index")).unwrap();
    assert_eq!((found.uid(), found.gid()), (65534, 65533));
    assert_eq!(found.permissions().mode() & 0o7777, 0o640);
    scene.assert_documented_names();
    assert!(!names(scene.slave.parent().unwrap()).contains(&"Data.fs.fssync-tmp".to_owned()));
}

#[test]
fn removing_the_index_twice_succeeds() {
    let (scene, slave, _) = stored();
    let path: PathBuf = scene.beside(".index");
    assert!(path.exists());
    index::remove(&slave).expect("it is removed");
    assert!(!path.exists());
    index::remove(&slave).expect("there is none");
}
