//! Files that are mounted by themselves, as containers do it, and slaves that cannot be
//! written. Each is refused before anything is copied.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::faults::Mount;
use crate::fuse::{DELETED, Served};
use crate::support::{
    History, Run, Scene, Transport, fssync, must, replace, require_root, rewrite_end, run, tool,
};

/// Mounts a file over another one.
fn bind(file: &Path, over: &Path) -> Mount {
    Mount::new(&["--bind", file.to_str().unwrap()], over)
}

/// Fails unless a pass with these options is refused and copies nothing.
#[track_caller]
fn assert_refused(scene: &Scene, options: &[&str], code: i32, says: &str) -> Run {
    let before = fs::read(&scene.slave).unwrap();
    let refused = scene.pass(options).expect(code);
    assert!(refused.stderr.contains(says), "{refused:?}");
    assert!(!refused.stderr.contains("full backup"), "{refused:?}");
    assert!(fs::read(&scene.slave).unwrap() == before);
    assert!(!scene.beside(".fssync-tmp").exists());
    refused
}

const MOUNT_ITS_DIRECTORY: &str = "Mount its directory";

#[test]
fn a_slave_that_is_mounted_by_itself_is_refused() {
    let history = History::get();
    for held in [&history.before[..], &history.after, b""] {
        let scene = Scene::new();
        fs::write(&scene.master, &history.after).unwrap();
        let on_host = scene.directory.path().join("Data.fs");
        fs::write(&on_host, held).unwrap();
        fs::write(&scene.slave, "").unwrap();
        let _mounted = bind(&on_host, &scene.slave);
        for options in [&[][..], &["--full"], &["-n"]] {
            assert_refused(&scene, options, 2, MOUNT_ITS_DIRECTORY);
        }
        let watch = run(&mut scene.command(&["--watch", "-q"])).expect(2);
        assert!(watch.stderr.contains(MOUNT_ITS_DIRECTORY), "{watch:?}");
        scene.status_against().expect(2);
        // The slave may be in use, and `off` and `status` must work.
        run(fssync().arg("off").arg(&scene.slave)).expect(0);
        scene.status(&[]);
    }
}

#[test]
fn a_slave_whose_directory_is_mounted_is_accepted() {
    let scene = Scene::with_master("commits");
    let on_host = scene.directory.path().join("host");
    fs::create_dir(&on_host).unwrap();
    let _mounted = bind(&on_host, scene.slave.parent().unwrap());
    scene.expect("full-copy");
    scene.pass(&["--full"]).expect(0);
    assert!(on_host.join("Data.fs").exists());
}

#[test]
fn a_master_that_is_mounted_by_itself_is_refused() {
    for transport in Transport::BOTH {
        let mut scene = Scene::synced(History::get()).over(transport);
        let on_host = scene.directory.path().join("Data.fs");
        fs::write(&on_host, &History::get().after).unwrap();
        let mounted = bind(&on_host, &scene.master);
        // A pack replaces the file on the host, and the mount still shows the old one.
        for is_packed in [false, true] {
            if is_packed {
                replace(&on_host, &History::get().packed);
            }
            for options in [&[][..], &["--full"], &["-n"]] {
                let says = "mount the directory that it is in";
                assert_refused(&scene, options, 2, says);
            }
            scene.status_against().expect(2);
            scene.verify_against(&[]).expect(2);
        }
        let named = scene.master.clone();
        let link = scene.directory.path().join("link");
        symlink(&named, &link).unwrap();
        for name in [link, named.parent().unwrap().to_owned()] {
            scene.master = name;
            assert_refused(&scene, &[], 2, "mount the directory that it is in");
        }
        drop(mounted);
        scene.master = named;
        scene.expect("up-to-date");
    }
}

#[test]
fn a_master_that_is_deleted_while_it_is_opened_is_not_read() {
    let mut scene = Scene::synced(History::get());
    let directory = scene.master.parent().unwrap().to_owned();
    fs::write(directory.join(DELETED), &History::get().after).unwrap();
    let served = Served::directory(&directory);
    scene.master = served.file(DELETED);
    assert_refused(&scene, &[], 12, "was deleted or replaced");
}

/// A file or directory with an attribute of `chattr`, until this is dropped.
struct Protected<'a>(&'a Path, &'a str);

impl<'a> Protected<'a> {
    fn new(path: &'a Path, attribute: &'a str) -> Self {
        require_root();
        let mut chattr = tool("chattr", "e2fsprogs");
        must(chattr.arg(format!("+{attribute}")).arg(path));
        Self(path, attribute)
    }
}

impl Drop for Protected<'_> {
    fn drop(&mut self) {
        let Self(path, attribute) = self;
        let mut chattr = Command::new("chattr");
        let _ = chattr.arg(format!("-{attribute}")).arg(path).status();
    }
}

#[test]
fn a_slave_with_an_attribute_that_forbids_writing_is_refused() {
    let scene = Scene::synced(History::get());
    rewrite_end(&scene.master, &History::get().after);
    let directory = scene.slave.parent().unwrap();
    for (attribute, name) in [("i", "immutable"), ("a", "append-only")] {
        let protected = Protected::new(&scene.slave, attribute);
        for options in [&[][..], &["--full"], &["-n"]] {
            let refused = assert_refused(&scene, options, 1, name);
            let hint = format!("chattr -{attribute} {}", scene.slave.display());
            assert!(refused.stderr.contains(&hint), "{refused:?}");
        }
        drop(protected);
        let _protected = Protected::new(directory, attribute);
        let hint = format!("chattr -{attribute} {}", directory.display());
        assert_refused(&scene, &["--whole"], 1, &hint);
        assert_refused(&scene, &[], 1, "lsattr");
    }
    scene.expect("append");
}

#[test]
fn a_slave_that_is_mounted_read_only_is_refused() {
    let scene = Scene::synced(History::get());
    rewrite_end(&scene.master, &History::get().after);
    let directory = scene.slave.parent().unwrap().to_str().unwrap();
    let mount = Mount::new(&["--bind", directory], scene.slave.parent().unwrap());
    must(Command::new("mount").args(["-o", "remount,bind,ro", directory]));
    for options in [&[][..], &["--full"], &["-n"]] {
        assert_refused(&scene, options, 1, "mount it for writing");
    }
    drop(mount);
    scene.expect("append");
}
