//! A switch beside the slave that is a symbolic link.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::PathBuf;

use crate::support::{Run, Scene, fssync, require_root, run};

const ON: &str = "SYNCING=1\n";
const OFF: &str = "SYNCING=0\n";

/// A scene whose switch is a link to this file, which does not exist yet.
fn linked() -> (Scene, PathBuf, PathBuf) {
    let scene = Scene::with_master("commits");
    scene.expect("full-copy");
    let target = scene.directory.path().join("shared");
    let link = scene.beside(".fssync-switch");
    symlink(&target, &link).unwrap();
    (scene, link, target)
}

fn flip(verb: &str, scene: &Scene) -> Run {
    run(fssync().args([verb, "-q"]).arg(&scene.slave))
}

#[test]
fn a_link_to_a_file_that_does_not_exist_is_off_and_reported() {
    let (scene, link, _) = linked();
    for options in [&["-q"][..], &["-q", "-n"]] {
        let off = scene.pass(options).expect(10);
        assert_eq!(off.stderr.lines().count(), 1, "{off:?}");
        let link = link.display().to_string();
        for part in [&link, "symbolic link to a file that does not exist"] {
            assert!(off.stderr.contains(part), "{off:?}");
        }
    }
    // A loop cannot be read either.
    fs::remove_file(&link).unwrap();
    symlink(&link, &link).unwrap();
    let off = scene.pass(&["-q"]).expect(10);
    assert!(off.stderr.contains("symbolic links"), "{off:?}");
}

#[test]
fn a_switch_is_written_through_a_link() {
    let (scene, link, target) = linked();
    fs::write(&target, ON).unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o664)).unwrap();
    let before = fs::metadata(&target).unwrap();
    scene.expect("up-to-date");
    for (verb, says, code) in [("off", OFF, 10), ("off", OFF, 10), ("on", ON, 0)] {
        let flipped = flip(verb, &scene).expect(0);
        assert_eq!(flipped.stderr, "");
        assert_eq!(fs::read_to_string(&target).unwrap(), says);
        assert!(link.is_symlink());
        scene.pass(&[]).expect(code);
    }
    let after = fs::metadata(&target).unwrap();
    assert_eq!((after.uid(), after.mode()), (before.uid(), before.mode()));
}

#[test]
fn off_replaces_a_link_to_a_file_that_is_not_a_switch() {
    for content in [
        None,
        Some(""),
        Some("root:x:0:0\n"),
        Some("SYNCING=maybe\n"),
    ] {
        let (scene, link, target) = linked();
        if let Some(content) = content {
            fs::write(&target, content).unwrap();
        }
        let on = flip("on", &scene).expect(1);
        assert!(on.stderr.contains("symbolic link to"), "{on:?}");
        assert!(link.is_symlink());
        let off = run(fssync().arg("off").arg(&scene.slave)).expect(0);
        assert!(off.stderr.contains("a file replaces it"), "{off:?}");
        assert!(!link.is_symlink());
        assert_eq!(fs::read_to_string(&link).unwrap(), OFF);
        assert_eq!(fs::read_to_string(&target).ok().as_deref(), content);
        scene.pass(&[]).expect(10);
        flip("on", &scene).expect(0);
        scene.expect("up-to-date");
    }
}

/// The slave's directory belongs to another user, who could let the link point to any switch.
#[test]
fn root_does_not_write_through_another_users_link() {
    require_root();
    let (scene, link, target) = linked();
    fs::write(&target, OFF).unwrap();
    lchown(&link, Some(65534), Some(65534)).unwrap();
    flip("on", &scene).expect(1);
    assert_eq!(fs::read_to_string(&target).unwrap(), OFF);
    fs::write(&target, ON).unwrap();
    flip("off", &scene).expect(0);
    assert_eq!(fs::read_to_string(&target).unwrap(), ON);
    scene.pass(&[]).expect(10);
}
