//! The owners and modes of blobs, for passes of root and of other users.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Run, Scene, as_nobody, fssync, must, project, require_root, run};

const NOBODY: u32 = 65534;

/// A copy of the small site of the fixtures, and an empty directory for its slave.
fn site() -> Scene {
    require_root();
    let scene = Scene::new();
    let (master, var) = (
        scene.master.parent().unwrap(),
        project("fixtures/plone/var"),
    );
    for part in ["filestorage/Data.fs", "blobstorage"] {
        must(Command::new("cp").arg("-a").arg(var.join(part)).arg(master));
    }
    scene
}

fn blobs_of(data: &Path) -> PathBuf {
    data.with_file_name("blobstorage")
}

/// All files and directories below a directory, relative to it.
fn below(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    let mut next = 0;
    while let Some(relative) = found.get(next).cloned() {
        next += 1;
        let path = directory.join(&relative);
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory");
            found.extend(entries.map(|it| relative.join(it.expect("an entry").file_name())));
        }
    }
    found
}

fn pass(command: &mut Command, scene: &Scene) -> Run {
    run(command
        .args(["--blobs", "--json"])
        .args([&scene.master, &scene.slave]))
}

/// Fails unless the slave has all blobs of the master, with their bytes, times and modes.
fn assert_same_blobs(scene: &Scene) {
    let (master, slave) = (blobs_of(&scene.master), blobs_of(&scene.slave));
    let mut count = 0;
    for relative in below(&master) {
        let (theirs, ours) = (master.join(&relative), slave.join(&relative));
        if theirs.extension().is_some_and(|it| it == "blob") {
            count += 1;
            assert!(fs::read(&ours).unwrap() == fs::read(&theirs).unwrap());
            let (found, expected) = (ours.metadata().unwrap(), theirs.metadata().unwrap());
            let times = |it: &fs::Metadata| (it.mtime(), it.mtime_nsec());
            assert_eq!(times(&found), times(&expected), "{}", ours.display());
            assert_eq!(found.mode() & 0o222, 0, "{}", ours.display());
        }
    }
    assert!(count > 3, "only {count} blobs");
}

#[test]
fn blobs_belong_to_the_user_of_the_slave() {
    let scene = site();
    let directory = scene.slave.parent().unwrap();
    chown(directory, Some(4242), Some(4343)).unwrap();
    fs::set_permissions(directory, Permissions::from_mode(0o2750)).unwrap();
    pass(&mut fssync(), &scene).expect(0);
    assert_same_blobs(&scene);
    let blobs = blobs_of(&scene.slave);
    for relative in below(&blobs) {
        let found = fs::symlink_metadata(blobs.join(&relative)).unwrap();
        assert_eq!((found.uid(), found.gid()), (4242, 4343), "{relative:?}");
        let is_ours = relative.starts_with(".fssync");
        if found.is_dir() && !is_ours {
            assert_eq!(found.mode() & 0o7777, 0o2750, "{relative:?}");
        } else if !is_ours {
            assert_eq!(found.mode() & 0o440, 0o440, "{relative:?}");
        }
    }
    assert_eq!(
        fs::metadata(blobs.join(".fssync")).unwrap().mode() & 0o777,
        0o700
    );
}

#[test]
fn a_user_who_is_not_root_copies_blobs_into_an_own_directory() {
    let scene = site();
    let mut command = as_nobody(&scene);
    pass(&mut command, &scene).expect(0);
    assert_same_blobs(&scene);
    let blobs = blobs_of(&scene.slave);
    for relative in below(&blobs) {
        let found = fs::symlink_metadata(blobs.join(&relative)).unwrap();
        assert_eq!((found.uid(), found.gid()), (NOBODY, NOBODY), "{relative:?}");
    }
}

#[test]
fn a_user_who_is_not_root_needs_the_group_of_another_users_blob_directory() {
    for (owner, mode, exit) in [
        (0, 0o2775, 0),
        (4242, 0o2775, 0),
        (0, 0o707, 0),
        (4242, 0o707, 1),
    ] {
        let scene = site();
        let mut command = as_nobody(&scene);
        let blobs = blobs_of(&scene.slave);
        fs::create_dir(&blobs).unwrap();
        chown(
            &blobs,
            Some(owner),
            Some(if mode & 0o2000 == 0 { 4242 } else { NOBODY }),
        )
        .unwrap();
        fs::set_permissions(&blobs, Permissions::from_mode(mode)).unwrap();
        let run = pass(&mut command, &scene).expect(exit);
        if exit == 0 {
            assert_same_blobs(&scene);
        } else {
            assert!(run.stderr.contains("cannot set the owner of"), "{run:?}");
            assert!(run.stderr.contains("uid 4242"), "{run:?}");
            assert!(!blobs.join(".layout").exists(), "{run:?}");
        }
    }
}
