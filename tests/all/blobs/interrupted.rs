//! Passes that are interrupted while they fetch blobs: the master hangs, a second pass starts,
//! syncing is switched off, the pass is killed, or the slave's disk is full.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::statvfs;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::derived::on_disk;
use crate::faults::Mount;
use crate::fuse::Served;
use crate::support::{
    Blobs, Scene, Setup, Zodb, blobs_beside, fssync, must, run, snapshot_of, spawn,
};

/// The size of the blob in which the master hangs, and the offset at which it does.
const BIG: u64 = 8 << 20;
const HANGS_AT: u64 = 5 << 20;

/// Syncing must be switched off within a second; the test machine may be busy.
const AT_ONCE: Duration = Duration::from_secs(2);

/// A master with a slave in sync, and with a newer transaction of several blobs.
struct Site {
    scene: Scene,
    zodb: Zodb,
}

impl Site {
    fn new() -> Self {
        Self::in_scene(Scene::new())
    }

    fn in_scene(scene: Scene) -> Self {
        let mut zodb = Zodb::start();
        let options = json!({"create": true, "layout": "bushy"});
        zodb.open_with_blobs(&scene.master, Setup::FileStorage, &options);
        let mut site = Self { scene, zodb };
        site.commit(&json!({"blobs": 3, "blob_size": 1000}));
        site.scene.pass(&["--blobs"]).expect(0);
        site.commit(&json!({"blobs": 2, "blob_size": 500}));
        site.commit(&json!({"blobs": 1, "changes": 2, "blob_size": BIG}));
        site
    }

    fn commit(&mut self, what: &Value) {
        let mut command = json!({"cmd": "commit", "name": "m"});
        let what = what.as_object().expect("what").clone();
        command.as_object_mut().expect("a command").extend(what);
        self.zodb.call(&command);
    }

    /// Fails unless the slave is at `position`, and ZODB can load all blobs of it.
    #[track_caller]
    fn assert_slave(&mut self, position: u64) {
        let Self { scene, zodb } = self;
        assert_eq!(zodb.check(&scene.slave)["position"], position);
        zodb.assert_prefix(&scene.master, &scene.slave);
        self.assert_blobs();
    }

    #[track_caller]
    fn assert_blobs(&mut self) {
        let of = Blobs {
            file: &self.scene.slave,
            directory: &slave_blobs(&self.scene),
            expected: Some(&blobs_beside(&self.scene.master)),
            journal: None,
        };
        assert!(self.zodb.assert_blobs(&of, Setup::FileStorage) >= 3);
    }

    /// A pass that must succeed. The slave has all blobs afterwards.
    #[track_caller]
    fn assert_completed_by_a_pass(&mut self) {
        self.scene.pass(&["--blobs"]).expect(0);
        self.zodb
            .assert_in_sync(&self.scene.master, &self.scene.slave);
        self.assert_blobs();
        let tmp = slave_blobs(&self.scene).join(".fssync/tmp");
        assert_eq!(fs::read_dir(tmp).expect(".fssync/tmp").count(), 0);
    }

    fn slave_len(&self) -> u64 {
        fs::metadata(&self.scene.slave).expect("the slave").len()
    }
}

fn slave_blobs(scene: &Scene) -> PathBuf {
    scene.slave.with_file_name("blobstorage")
}

/// A pass whose master hangs while it sends a blob.
struct HangingFetch {
    /// Dropped first, so that the pass can end.
    served: Served,
    pass: Child,
    site: Site,
    /// The position of the slave before the pass.
    position: u64,
}

impl HangingFetch {
    fn start(options: &[&str]) -> Self {
        let site = Site::new();
        let position = site.slave_len();
        let served = Served::directory(site.scene.master.parent().expect("a directory"));
        served.stop_answering_at(HANGS_AT);
        let mut command = fssync();
        command.args(["--blobs", "--timeout", "60"]).args(options);
        command.args([&served.file("Data.fs"), &site.scene.slave]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let hanging = Self {
            pass: spawn(command.stderr(Stdio::piped())),
            served,
            site,
            position,
        };
        hanging.served.wait_until_stuck();
        hanging
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.pass), signal).expect("it runs");
    }

    /// Lets the master answer, and waits for the end of the pass. Returns its exit code, the
    /// lines that it has logged, and the site.
    fn end(self) -> (Option<i32>, String, Site) {
        self.served.answer();
        let Self { pass, site, .. } = self;
        let output = pass.wait_with_output().expect("its end");
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), log, site)
    }
}

/// The slave, the files beside it, and its blobs with the directories above them. Temporary
/// files do not count, except for those beside the slave.
fn state(scene: &Scene) -> Vec<impl PartialEq + use<>> {
    let slave = scene.slave.parent().expect("a directory");
    let mut found: Vec<PathBuf> = Vec::new();
    let mut waiting = vec![slave.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.ends_with(".fssync/tmp") {
                continue;
            }
            if path.is_dir() {
                waiting.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found.iter().map(|path| snapshot_of(path)).collect()
}

#[test]
fn nothing_is_placed_after_off_has_returned() {
    for options in [&[][..], &["--watch"]] {
        let mut hanging = HangingFetch::start(options);
        let slave = hanging.site.scene.slave.clone();
        let started = Instant::now();
        run(fssync().arg("off").arg(&slave)).expect(0);
        assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
        let position = hanging.position;
        hanging.site.assert_slave(position);
        // ZODB serves the slave, and commits a blob of its own.
        let blobs = slave_blobs(&hanging.site.scene);
        let mut serving = Zodb::start();
        serving.call(&json!({"cmd": "open", "name": "s", "path": slave, "blobs": blobs}));
        serving.call(&json!({"cmd": "commit", "name": "s", "blobs": 1}));
        let (before, keys) = (state(&hanging.site.scene), on_disk(&blobs));

        if !options.is_empty() {
            // The watch gets some time in which it could do harm.
            hanging.served.answer();
            thread::sleep(Duration::from_millis(500));
            hanging.signal(Signal::TERM);
        }
        let (code, log, site) = hanging.end();
        assert_eq!(code, Some(if options.is_empty() { 10 } else { 0 }), "{log}");
        assert_eq!(on_disk(&blobs), keys);
        assert!(state(&site.scene) == before, "{options:?}");
        serving.call(&json!({"cmd": "close", "name": "s"}));
    }
}

#[test]
fn a_second_pass_does_not_disturb_a_fetch() {
    let hanging = HangingFetch::start(&[]);
    let before = state(&hanging.site.scene);
    let second = hanging.site.scene.pass(&["--blobs"]).expect(11);
    assert!(second.stderr.contains("another"), "{second:?}");
    assert!(state(&hanging.site.scene) == before);
    let (code, log, mut site) = hanging.end();
    assert_eq!(code, Some(0), "{log}");
    site.assert_completed_by_a_pass();
}

#[test]
fn a_fetch_that_is_killed_is_repeated() {
    for (signal, expected) in [(Signal::TERM, Some(1)), (Signal::KILL, None)] {
        let hanging = HangingFetch::start(&[]);
        let position = hanging.position;
        hanging.signal(signal);
        let (code, log, mut site) = hanging.end();
        assert_eq!(code, expected, "{log}");
        let is_clean = signal == Signal::TERM;
        if is_clean {
            assert_eq!(site.slave_len(), position, "the tail is truncated");
        }
        site.assert_slave(position);
        site.assert_completed_by_a_pass();
    }
}

/// The blob directory is a file system of its own, which is full after a part of the new blobs.
#[test]
fn a_full_disk_of_blobs_is_an_error_and_loses_nothing() {
    let scene = Scene::new();
    let blobs = slave_blobs(&scene);
    fs::create_dir(&blobs).expect("a mount point");
    let disk = Mount::new(&["-t", "tmpfs", "-o", "size=64m", "tmpfs"], &blobs);
    let limit = |option: &str| {
        let option = format!("remount,{option}");
        must(Command::new("mount").args(["-o", &option]).arg(&blobs));
    };
    let mut site = Site::in_scene(scene);
    let (position, before) = (site.slave_len(), on_disk(&blobs));
    let found = statvfs(&blobs).expect("a file system");
    let inodes = found.f_files - found.f_ffree;
    // There are five new blobs. The last limit leaves room for their temporary files, but not for
    // their directories.
    for small in [
        "size=6m".to_owned(),
        format!("size=64m,nr_inodes={}", inodes + 3),
        format!("size=64m,nr_inodes={}", inodes + 6),
    ] {
        limit(&small);
        let pass = site.scene.pass(&["--blobs"]).expect(1);
        assert!(pass.stderr.contains("No space left on device"), "{pass:?}");
        let blobs_path = blobs.to_str().expect("UTF-8");
        assert!(pass.stderr.contains(blobs_path), "{pass:?}");
        assert!(on_disk(&blobs).is_superset(&before), "{small}");
        site.assert_slave(position);
    }
    limit("size=64m,nr_inodes=10000");
    site.assert_completed_by_a_pass();
    drop(disk);
}
