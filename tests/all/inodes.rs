//! A master whose inode number changes although its bytes do not.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::fuse::Served;
use crate::support::{History, Scene, fssync, replace, run};

#[test]
fn a_master_in_another_file_is_compared_and_the_log_contains_both_inode_numbers() {
    let scene = Scene::synced(History::get());
    let inode = || fs::metadata(&scene.master).unwrap().ino();
    let before = inode();
    replace(&scene.master, &History::get().after);
    let run = scene.pass(&[]).expect(0);
    assert_eq!(run.report()["action"], "append");
    let message = format!(
        "the master is another file than at the last pass, as its inode number changed from \
         {before} to {}",
        inode()
    );
    assert!(run.stderr.contains(&message), "{run:?}");
    assert!(!run.stderr.contains("sshfs"), "{run:?}");
    let next = scene.pass(&[]).expect(0);
    assert!(!next.stderr.contains("comparing"), "{next:?}");
}

#[test]
fn on_fuse_the_log_contains_why_the_inode_number_may_have_changed() {
    let scene = Scene::synced(History::get());
    let served = Served::directory(scene.master.parent().unwrap());
    let pass = || {
        let mut command = fssync();
        command
            .arg("--json")
            .arg(served.file("Data.fs"))
            .arg(&scene.slave);
        run(&mut command).expect(0)
    };
    pass();
    assert!(!pass().stderr.contains("comparing"));
    // The number from an earlier mount.
    scene.edit_sidecar(|sidecar| sidecar["left"]["master"]["inode"] = json!(4242));
    let remounted = pass();
    assert_eq!(remounted.report()["action"], "up-to-date");
    for part in [
        "inode number changed from 4242 to",
        "such as sshfs",
        "host:/path",
    ] {
        assert!(remounted.stderr.contains(part), "{remounted:?}");
    }
}

#[test]
fn a_missing_sidecar_is_not_reported_as_a_changed_inode() {
    let scene = Scene::synced(History::get());
    fs::remove_file(scene.beside(".fssync")).unwrap();
    let run = scene.pass(&[]).expect(0);
    assert!(
        run.stderr.contains("no pass has recorded the slave"),
        "{run:?}"
    );
    assert!(!run.stderr.contains("inode"), "{run:?}");
}
