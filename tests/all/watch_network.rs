//! `fssync --watch` of a master on a network file system, which sends no notifications and may
//! hang forever. FUSE takes its part.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::fuse::Served;
use crate::support::{History, Scene, Zodb, fssync, must, rewrite_end, run, tool};
use crate::watcher::Watcher;

const FINISHED: &str = "Finished syncing";
const NO_ANSWER: &str = "no answer from";

/// A watch of the scene's master by a path on FUSE.
fn watch(scene: &Scene, master: &Path, timeout: &str) -> Watcher {
    let mut command = fssync();
    command.args(["--watch", "--interval", "0.2", "--timeout", timeout]);
    Watcher::of(scene, command.arg(master).arg(&scene.slave))
}

#[test]
fn a_network_file_system_is_recognised_and_polled() {
    let scene = Scene::new();
    let mut zodb = Zodb::start();
    zodb.call(&json!({"cmd": "open", "name": "m", "path": scene.master, "create": true}));
    zodb.call(&json!({"cmd": "commit", "name": "m", "objects": 3}));
    let served = Served::directory(scene.master.parent().unwrap());
    let mut watcher = watch(&scene, &served.file("Data.fs"), "30");
    watcher
        .expect("is on FUSE (statfs type 0x65735546), which does not support change notifications");
    watcher.expect("every 0.2 s");
    for command in [
        json!({"cmd": "commit", "name": "m", "objects": 4, "size": 900}),
        json!({"cmd": "undo", "name": "m"}),
        json!({"cmd": "pack", "name": "m", "keep": 1}),
        json!({"cmd": "commit", "name": "m"}),
    ] {
        zodb.call(&command);
        watcher.expect_in_sync(&scene);
    }
    let log = watcher.log();
    assert!(!log.contains("NOT SYNCING"), "{log}");
    assert_eq!(watcher.end().0, 0);
}

#[test]
fn a_master_that_hangs_is_reported_once_and_does_not_delay_off() {
    let history = History::get();
    let scene = Scene::synced(history);
    let served = Served::directory(scene.master.parent().unwrap());
    let mut watcher = watch(&scene, &served.file("Data.fs"), "1");
    watcher.expect(FINISHED);
    let silence = served.silence_at(0);
    served.wait_until_stuck();
    watcher.expect(NO_ANSWER);
    thread::sleep(Duration::from_secs(4));
    let started = Instant::now();
    run(fssync().arg("off").arg(&scene.slave)).expect(0);
    assert!(started.elapsed() < Duration::from_secs(2), "off waits");
    watcher.expect("syncing is off");
    run(fssync().arg("on").arg(&scene.slave)).expect(0);
    watcher.expect(NO_ANSWER);
    rewrite_end(&scene.master, &history.after);
    drop(silence);
    watcher.expect(FINISHED);
    watcher.expect_in_sync(&scene);
    let log = watcher.log();
    assert_eq!(log.matches(NO_ANSWER).count(), 2, "{log}");
}

/// A mount point, which is unmounted when this is dropped.
struct MountPoint<'a>(&'a Path);

impl MountPoint<'_> {
    fn bind(&self, directory: &Path) {
        must(
            tool("mount", "mount")
                .arg("--bind")
                .arg(directory)
                .arg(self.0),
        );
    }

    fn detach(&self) {
        must(tool("umount", "mount").arg("-l").arg(self.0));
    }
}

impl Drop for MountPoint<'_> {
    fn drop(&mut self) {
        self.detach();
    }
}

#[test]
fn a_new_mount_is_found_though_the_old_one_hangs() {
    let history = History::get();
    let scene = Scene::synced(history);
    let directory = scene.master.parent().unwrap();
    let (hanging, sound) = (Served::directory(directory), Served::directory(directory));
    let path = scene.directory.path().join("mnt");
    fs::create_dir(&path).unwrap();
    let mount = MountPoint(&path);
    mount.bind(hanging.file("").as_path());
    let mut watcher = watch(&scene, &path.join("Data.fs"), "1");
    watcher.expect(FINISHED);
    let _silence = hanging.silence_at(0);
    hanging.wait_until_stuck();
    watcher.expect(NO_ANSWER);
    rewrite_end(&scene.master, &history.after);
    mount.detach();
    mount.bind(sound.file("").as_path());
    watcher.expect(FINISHED);
    watcher.expect_in_sync(&scene);
}
