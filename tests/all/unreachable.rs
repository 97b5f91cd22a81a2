//! The slave's last transactions wrote only objects to which nothing in the file refers, and the
//! master lacks them. A pack has dropped them, or the master was restored from a backup.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Run, Scene, Transport, Zodb, must, project, python, replace, run};

/// A step of the driver on the database in `path`.
fn step(name: &str, path: &Path) -> Command {
    let mut driver = Command::new(python());
    driver
        .arg(project("tests/zodb/unreachable.py"))
        .args([Path::new(name), path]);
    driver
}

/// ZODB executes these steps on the master.
fn change(scene: &Scene, steps: &[&str]) {
    for name in steps {
        must(&mut step(name, &scene.master));
    }
}

/// The slaves that passes have kept under other names.
fn kept(scene: &Scene) -> Vec<PathBuf> {
    let names = scene.beside_slave().into_iter();
    names
        .filter(|name| name.contains(".diverged-"))
        .map(|name| scene.slave.with_file_name(name))
        .collect()
}

/// Reads the object that only the other database refers to, if `file` serves its storage.
fn read_reference(scene: &Scene, file: &Path) -> Run {
    let served = scene.directory.path().join("served.fs");
    let main = |path: &Path| PathBuf::from(format!("{}.main", path.display()));
    fs::copy(file, &served).unwrap();
    fs::copy(main(&scene.master), main(&served)).unwrap();
    let _ = fs::remove_file(format!("{}.index", served.display()));
    run(&mut step("read", &served))
}

/// Somebody changes an object and deletes it, and then undoes the change. The undo writes only the
/// deleted object, so that a pack drops the master's last transaction. The deletion is in both
/// files, unpacked in the slave and packed in the master, which proves that there was a pack.
#[test]
fn an_undo_of_a_change_to_a_deleted_object_may_be_packed_away() {
    for transport in Transport::BOTH {
        for before in [&["create"][..], &["create", "pack"]] {
            let scene = Scene::new().over(transport);
            change(&scene, before);
            scene.expect("full-copy");
            change(&scene, &["change", "undo"]);
            scene.expect("append");
            let old = fs::read(&scene.slave).unwrap();
            change(&scene, &["pack"]);
            let report = scene.expect("full-copy");
            let reason = report["reason"].as_str().unwrap();
            assert!(reason.contains("no longer has"), "{report}");
            Zodb::start().assert_in_sync(&scene.master, &scene.slave);
            let kept = kept(&scene);
            assert_eq!(kept.len(), 1, "{report}");
            assert!(fs::read(&kept[0]).unwrap() == old, "the slave as it was");
        }
    }
}

/// A pack drops an object that only another database refers to. It leaves the same bytes as a
/// backup that was made after the pack before. If the backup was restored, only the slave has the
/// object. So the pass must refuse both.
#[test]
fn a_pack_that_leaves_the_bytes_of_a_backup_is_refused_like_the_backup() {
    for is_restored in [false, true] {
        let scene = Scene::new();
        change(&scene, &["create", "pack"]);
        scene.expect("full-copy");
        let backup = fs::read(&scene.master).unwrap();
        change(&scene, &["refer"]);
        scene.expect("append");
        let slave = fs::read(&scene.slave).unwrap();
        if is_restored {
            replace(&scene.master, &backup);
        } else {
            change(&scene, &["pack"]);
            let packed = fs::read(&scene.master).unwrap();
            assert!(packed == backup, "the pack leaves the bytes of the backup");
        }
        assert_refused(&scene, &slave);

        read_reference(&scene, &scene.slave).expect(0);
        let lost = read_reference(&scene, &scene.master);
        assert!(lost.stderr.contains("POSKeyError"), "{lost:?}");
        // A person who knows that it was a pack can accept it.
        scene.pass(&["--whole"]).expect(0);
        assert!(fs::read(&scene.slave).unwrap() == backup, "a copy");
        assert!(fs::read(&kept(&scene)[0]).unwrap() == slave, "as it was");
    }
}

/// A backup that was made right after a pack lacks a change to an object that it has, or the
/// creation of one to which its root does not refer yet.
#[test]
fn a_restored_backup_that_ends_with_a_pack_is_refused() {
    for (transport, lacking) in Transport::BOTH.into_iter().zip(["edit", "add"]) {
        let scene = Scene::new().over(transport);
        change(&scene, &["create", "pack"]);
        scene.expect("full-copy");
        let backup = fs::read(&scene.master).unwrap();
        change(&scene, &[lacking]);
        scene.expect("append");
        let slave = fs::read(&scene.slave).unwrap();
        replace(&scene.master, &backup);
        assert_refused(&scene, &slave);
    }
}

/// A pass refuses the master, with and without `--dry-run`, and leaves the slave as it is.
#[track_caller]
fn assert_refused(scene: &Scene, slave: &[u8]) {
    for options in [&["--dry-run"][..], &[]] {
        let refused = scene.pass(options).expect(20);
        assert!(refused.stderr.contains("has fallen behind"), "{refused:?}");
        assert!(fs::read(&scene.slave).unwrap() == slave, "untouched");
        assert!(kept(scene).is_empty(), "{refused:?}");
    }
}
