//! The index beside the slave after passes and watches: it equals ZODB's index, and it is
//! updated only when it is due.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use fssync::filestorage::TxnHeader;
use fssync::io::progress::{Monitor, Silent};
use fssync::pass::apply::Tuning;
use fssync::pass::{self, Job};
use fssync::plan::outcome::Exit;
use fssync::slave::sidecar::Sidecar;
use fssync::source::path::MountedPath;
use fssync::upkeep::{self, IdleWork};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Call, History, Holder, Hooked, Scene, Transport, Zodb, append_sparse, fssync, pass_here,
    replace, report_here, rewrite_end, run, sparse_master, strace, tool, wait_for, without_forks,
};
use crate::watcher::Watcher;

/// A transaction of the first length makes an index due, one of the second does not.
const DUE_LEN: u64 = 65 << 20;
const NOT_DUE_LEN: u64 = 60 << 20;

const TID: u64 = 0x0500_0000_0000_0000;

fn index_of(scene: &Scene) -> PathBuf {
    scene.beside(".index")
}

fn len(path: &Path) -> u64 {
    fs::metadata(path).expect("the file").len()
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).expect("the file").ino()
}

/// Fails unless the index equals ZODB's index of the slave's end.
#[track_caller]
fn assert_newest(zodb: &mut Zodb, scene: &Scene) {
    let position = zodb.assert_index(&scene.slave).expect("an index");
    assert_eq!(position, len(&scene.slave));
}

/// Whether fssync stored the index, for the slave's end.
fn is_stored_by_fssync_and_newest(scene: &Scene) -> bool {
    let noted = fs::read(scene.beside(".fssync")).unwrap();
    let noted: Value = serde_json::from_slice(&noted).unwrap();
    let stored = &noted["index"]["stored"];
    fs::metadata(index_of(scene)).is_ok_and(|found| stored["stamp"]["inode"] == found.ino())
        && stored["position"] == len(&scene.slave)
}

/// ZODB opens the slave and closes it, which saves its own index.
fn open_and_close(zodb: &mut Zodb, slave: &Path) {
    zodb.call(&json!({"cmd": "open", "name": "s", "path": slave}));
    zodb.call(&json!({"cmd": "close", "name": "s"}));
}

#[test]
fn the_index_equals_zodbs_after_each_pass_over_a_random_history() {
    let mut zodb = Zodb::start();
    for (seed, transport) in [1, 2].into_iter().zip(Transport::BOTH) {
        let scene = Scene::new().over(transport);
        let open =
            json!({"cmd": "open", "name": "m", "path": scene.master, "create": true, "seed": seed});
        zodb.call(&open);
        zodb.call(&json!({"cmd": "commit", "name": "m", "objects": 3}));
        scene.expect("full-copy");
        assert_newest(&mut zodb, &scene);
        let (mut packed, mut kept) = (0, 0);
        for round in 0..24 {
            let random = json!({"cmd": "random", "name": "m", "count": 6, "pack": true});
            let operations = zodb.call(&random)["operations"].clone();
            if operations["undo"].is_null() {
                let _ = zodb.attempt(&json!({"cmd": "undo", "name": "m"}));
            }
            zodb.call(&json!({"cmd": "vote", "name": "m", "objects": 2}));
            match round % 4 {
                0 => drop(fs::remove_file(index_of(&scene))),
                1 => open_and_close(&mut zodb, &scene.slave),
                _ => {}
            }
            let before = fs::read(index_of(&scene)).ok();
            let report = scene.pass(&[]).expect(0).report();
            zodb.call(&json!({"cmd": "abort", "name": "m"}));
            let position = zodb.assert_index(&scene.slave).expect("an index");
            let is_full = report["action"] == "full-copy";
            packed += u32::from(is_full);
            if is_full || round % 4 < 2 {
                assert_eq!(position, len(&scene.slave), "round {round}: {report}");
            } else {
                assert!(fs::read(index_of(&scene)).ok() == before, "not due");
                kept += 1;
            }
        }
        zodb.call(&json!({"cmd": "close", "name": "m"}));
        zodb.assert_in_sync(&scene.master, &scene.slave);
        scene.assert_documented_names();
        assert!(packed > 1 && kept > 4, "{packed} packs, {kept} times kept");
    }
}

#[test]
fn an_index_that_fssync_did_not_store_is_rebuilt() {
    type Spoil = fn(&Scene, &mut Zodb);
    let spoilt: [(&str, Spoil); 7] = [
        ("missing", |scene, _| {
            fs::remove_file(index_of(scene)).unwrap();
        }),
        ("empty", |scene, _| fs::write(index_of(scene), "").unwrap()),
        ("noise", |scene, _| {
            fs::write(index_of(scene), [7; 999]).unwrap();
        }),
        ("ZODB's", |scene, zodb| open_and_close(zodb, &scene.slave)),
        ("of a longer file", |scene, zodb| {
            let (theirs, _) = zodb.index_of(&scene.master);
            fs::write(index_of(scene), theirs).unwrap();
        }),
        ("a link", |scene, _| {
            let path = index_of(scene);
            let other = scene.directory.path().join("elsewhere");
            fs::rename(&path, &other).unwrap();
            std::os::unix::fs::symlink(other, path).unwrap();
        }),
        ("without a sidecar", |scene, _| {
            fs::remove_file(scene.beside(".fssync")).unwrap();
        }),
    ];
    let mut zodb = Zodb::start();
    for (name, spoil) in spoilt {
        for appends in [false, true] {
            let scene = Scene::synced(History::get());
            rewrite_end(&scene.master, &History::get().after);
            spoil(&scene, &mut zodb);
            if !appends {
                rewrite_end(&scene.master, &History::get().before);
            }
            scene.expect(if appends { "append" } else { "up-to-date" });
            assert_newest(&mut zodb, &scene);
            let found = fs::symlink_metadata(index_of(&scene)).unwrap();
            assert!(found.is_file(), "{name}");
            let made = inode(&index_of(&scene));
            assert!(is_stored_by_fssync_and_newest(&scene), "{name}");
            // It is built only once.
            scene.expect("up-to-date");
            assert_eq!(inode(&index_of(&scene)), made, "{name}");
        }
    }
}

#[test]
fn the_index_of_a_replaced_slave_is_rebuilt() {
    let history = History::get();
    let mut zodb = Zodb::start();
    // In place, and with another file.
    let ways: [fn(&Path, &[u8]); 2] = [rewrite_end, replace];
    for put in ways {
        let scene = Scene::synced(history);
        replace(&scene.master, &history.packed);
        put(&scene.slave, &history.packed);
        scene.expect("up-to-date");
        assert_newest(&mut zodb, &scene);
        assert!(is_stored_by_fssync_and_newest(&scene));
    }
}

#[test]
fn a_pass_with_nothing_new_does_not_open_the_index() {
    let scene = Scene::synced(History::get());
    let trace = scene.directory.path().join("trace");
    let mut command = tool("strace", "strace");
    command
        .args(["-f", "-qq", "-e", "trace=%file", "-o"])
        .arg(&trace);
    let program = scene.command(&[]);
    command.arg(program.get_program()).args(program.get_args());
    run(&mut command).expect(0);
    let traced = fs::read_to_string(&trace).unwrap();
    let calls: Vec<_> = traced
        .lines()
        .filter(|line| line.contains("Data.fs.index"))
        .collect();
    assert_eq!(calls.len(), 1, "one call: {calls:?}");
    assert!(calls[0].contains("stat"), "{calls:?}");
}

#[test]
fn an_index_is_stored_again_if_zodb_would_have_to_scan_much() {
    let mut zodb = Zodb::start();
    let scene = Scene::synced(History::get());
    let before = inode(&index_of(&scene));
    append_sparse(&scene.master, NOT_DUE_LEN, TID);
    scene.expect("append");
    assert_eq!(inode(&index_of(&scene)), before);
    let covered = zodb.assert_index(&scene.slave);
    assert_eq!(covered, Some(History::get().before.len() as u64));
    append_sparse(&scene.master, DUE_LEN - NOT_DUE_LEN, TID + 1);
    scene.expect("append");
    assert_newest(&mut zodb, &scene);
}

#[test]
fn many_small_records_make_an_index_due() {
    let mut zodb = Zodb::start();
    let scene = Scene::synced(History::get());
    let before = inode(&index_of(&scene));
    zodb.call(&json!({"cmd": "open", "name": "m", "path": scene.master}));
    for n in 0..3 {
        assert_eq!(inode(&index_of(&scene)), before, "{n}");
        zodb.call(&json!({"cmd": "commit", "name": "m", "objects": 40_000, "size": 1}));
        scene.expect("append");
    }
    assert!(len(&scene.slave) < NOT_DUE_LEN);
    assert_newest(&mut zodb, &scene);
}

/// Records the activities that a pass reports.
#[derive(Default)]
struct Activities(Mutex<Vec<&'static str>>);

impl Monitor for Activities {
    fn progress(&self, activity: &'static str, _: u64, _: u64) {
        let mut recorded = self.0.lock().unwrap();
        if recorded.last() != Some(&activity) {
            recorded.push(activity);
        }
    }
}

#[test]
fn a_full_copy_builds_its_index_without_reading_the_slave_again() {
    let mut zodb = Zodb::start();
    for (name, part) in [("from the start", 0), ("taken up", 9000)] {
        let scene = Scene::new();
        fs::write(&scene.master, &History::get().voted).unwrap();
        if part > 0 {
            fs::write(scene.beside(".fssync-tmp"), &History::get().voted[..part]).unwrap();
        }
        let tuning = Tuning {
            chunk_len: 1000,
            ..Tuning::default()
        };
        let job = scene.job(MountedPath::new(scene.master.clone()), tuning);
        let activities = Activities::default();
        let quiet = without_forks();
        let outcome = pass::run(&job, &activities).outcome;
        drop(quiet);
        assert_eq!(outcome.exit, Exit::Success, "{name}: {outcome:?}");
        assert_newest(&mut zodb, &scene);
        let recorded = activities.0.into_inner().unwrap();
        assert!(recorded.contains(&"copying"), "{name}: {recorded:?}");
        assert!(!recorded.contains(&"indexing"), "{name}: {recorded:?}");
    }
}

#[test]
fn the_copy_of_a_damaged_master_has_an_index_too() {
    let mut zodb = Zodb::start();
    for damage in ["damage-records-sum", "damage-length", "damage-tloc"] {
        let scene = Scene::with_master(damage);
        scene.pass(&[]).expect(30);
        assert_newest(&mut zodb, &scene);
    }
}

#[test]
fn an_index_beyond_a_truncation_is_removed_first() {
    let history = History::get();
    let mut zodb = Zodb::start();
    let scene = Scene::synced(history);
    rewrite_end(&scene.master, &history.after);
    scene.expect("append");
    open_and_close(&mut zodb, &scene.slave);
    // Somebody truncated the slave in the middle of a transaction.
    let cut = [&history.before, &[9; 40][..]].concat();
    fs::write(&scene.slave, &cut).unwrap();
    let index = index_of(&scene);
    assert!(index.exists());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (record, slave, path) = (Arc::clone(&seen), scene.slave.clone(), index.clone());
    let source = Hooked {
        path: MountedPath::new(scene.master.clone()),
        hook: move |call| {
            if matches!(call, Call::Confirm(_)) {
                let is_cut = fs::read(&slave).unwrap()[..cut.len()] != cut;
                record.lock().unwrap().push((is_cut, path.exists()));
            }
            Ok(())
        },
    };
    let outcome = pass_here(&scene.job(source, Tuning::default()));
    assert_eq!(outcome.exit, Exit::Success, "{outcome:?}");
    assert_eq!(seen.lock().unwrap().first(), Some(&(true, false)));
    assert_newest(&mut zodb, &scene);
}

#[test]
fn a_slave_of_empty_transactions_has_no_index_until_there_is_an_object() {
    let scene = Scene::new();
    let mut zodb = Zodb::start();
    zodb.call(&json!({"cmd": "open", "name": "m", "path": scene.master, "create": true}));
    for _ in 0..5 {
        zodb.call(&json!({"cmd": "commit", "name": "m", "objects": 0}));
    }
    scene.expect("full-copy");
    assert!(!index_of(&scene).exists());
    zodb.call(&json!({"cmd": "check_open", "path": scene.slave}));
    // ZODB itself saves an index here, and fails on it.
    let (theirs, _) = zodb.index_of(&scene.slave);
    fs::write(index_of(&scene), theirs).unwrap();
    scene.expect("up-to-date");
    assert!(!index_of(&scene).exists());
    let noted = fs::read(scene.beside(".fssync")).unwrap();
    let noted: Value = serde_json::from_slice(&noted).unwrap();
    assert!(noted["index"].is_object(), "it is not tried again: {noted}");
    zodb.call(&json!({"cmd": "commit", "name": "m", "objects": 0}));
    scene.expect("append");
    assert!(!index_of(&scene).exists());
    zodb.call(&json!({"cmd": "commit", "name": "m", "objects": 1}));
    scene.expect("append");
    assert_newest(&mut zodb, &scene);
}

#[test]
fn the_index_of_a_slave_that_is_served_is_left_to_zodb() {
    let scene = Scene::synced(History::get());
    fs::write(index_of(&scene), "ZODB's").unwrap();
    let holder = Holder::of(&scene.beside(".lock"));
    let run = scene.pass(&[]).expect(0);
    assert!(!run.stderr.contains("index"), "{run:?}");
    assert_eq!(fs::read(index_of(&scene)).unwrap(), b"ZODB's");
    drop(holder);
    scene.expect("up-to-date");
    assert_newest(&mut Zodb::start(), &scene);
}

#[test]
fn failing_to_store_an_index_is_only_a_warning() {
    let scene = Scene::synced(History::get());
    let index = index_of(&scene);
    fs::remove_file(&index).unwrap();
    rewrite_end(&scene.master, &History::get().after);
    let tmp = fs::canonicalize(scene.slave.parent().unwrap()).unwrap();
    let tmp = tmp.join("Data.fs.fssync-tmp");
    let fail = ["-e", "inject=write:error=ENOSPC"];
    let mut command = strace(&fail, &[tmp]);
    let made = run(command.args([&scene.master, &scene.slave])).expect(0);
    assert!(made.stderr.contains("cannot update the index"), "{made:?}");
    assert!(made.stderr.contains("appended"), "{made:?}");
    assert!(!index.exists());
    let mut zodb = Zodb::start();
    zodb.assert_in_sync(&scene.master, &scene.slave);
    scene.expect("up-to-date");
    assert_newest(&mut zodb, &scene);
}

#[test]
fn a_watch_updates_the_index_at_its_end() {
    for transport in Transport::BOTH {
        let scene = Scene::synced(History::get()).over(transport);
        let mut watcher = Watcher::start(&scene, &[]);
        watcher.expect("Finished syncing");
        let before = inode(&index_of(&scene));
        rewrite_end(&scene.master, &History::get().after);
        watcher.expect_in_sync(&scene);
        thread::sleep(Duration::from_millis(300));
        assert_eq!(inode(&index_of(&scene)), before, "it is not due");
        let (code, elapsed) = watcher.end();
        assert_eq!(code, 0);
        assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
        assert_newest(&mut Zodb::start(), &scene);
        scene.assert_documented_names();
    }
}

#[test]
fn a_watch_stores_a_due_index_when_idle() {
    let scene = Scene::synced(History::get());
    let mut zodb = Zodb::start();
    let mut watcher = Watcher::start(&scene, &["--interval", "0.3"]);
    watcher.expect("Finished syncing");
    append_sparse(&scene.master, DUE_LEN, TID);
    watcher.expect_in_sync(&scene);
    wait_for("index", || is_stored_by_fssync_and_newest(&scene));
    assert_newest(&mut zodb, &scene);
    // ZODB opens and closes the slave.
    open_and_close(&mut zodb, &scene.slave);
    wait_for("index from fssync", || {
        is_stored_by_fssync_and_newest(&scene)
    });
    assert_newest(&mut zodb, &scene);
    // A full copy.
    fs::remove_file(&scene.slave).unwrap();
    watcher.expect_in_sync(&scene);
    wait_for("index of the new slave", || {
        is_stored_by_fssync_and_newest(&scene)
    });
    assert_newest(&mut zodb, &scene);
    let log = watcher.log();
    assert!(!log.contains("WARN"), "{log}");
    assert_eq!(watcher.end().0, 0);
}

#[test]
fn a_watch_resumes_an_index_build_after_each_pass() {
    let scene = Scene::new();
    let mut zodb = Zodb::start();
    zodb.call(&json!({"cmd": "open", "name": "m", "path": scene.master, "create": true}));
    zodb.call(&json!({"cmd": "commit", "name": "m", "objects": 4}));
    zodb.call(&json!({"cmd": "abandon", "name": "m"}));
    append_sparse(&scene.master, 300 << 20, TID);
    scene.expect("full-copy");
    fs::remove_file(index_of(&scene)).unwrap();
    let mut watcher = Watcher::start(&scene, &["--interval", "0.2"]);
    watcher.expect("Finished syncing");
    for n in 1..=20 {
        append_sparse(&scene.master, 50, TID + n);
        wait_for("growing slave", || len(&scene.slave) == len(&scene.master));
        thread::sleep(Duration::from_millis(70));
    }
    wait_for("index", || index_of(&scene).exists());
    watcher.signal(Signal::HUP);
    zodb.assert_index(&scene.slave).expect("an index");
    assert_eq!(watcher.end().0, 0);
    assert_newest(&mut zodb, &scene);
}

#[test]
fn a_watch_that_is_never_idle_still_builds_an_index() {
    let scene = Scene::synced(History::get());
    append_sparse(&scene.master, 40 << 20, TID);
    scene.expect("append");
    fs::remove_file(index_of(&scene)).unwrap();
    let job = scene.job(MountedPath::new(scene.master.clone()), Tuning::default());
    let mut idle_work = IdleWork::default();
    let quiet = without_forks();
    let mut work = |is_urgent| {
        idle_work.note(true);
        idle_work.work(&job.slave, is_urgent, &mut || true, &Silent);
        index_of(&scene).exists()
    };
    for _ in 0..9 {
        assert!(!work(false), "without urgency, the master comes first");
    }
    let times = (1..9).find(|_| work(true));
    // 16 MB at a time.
    assert_eq!(times, Some(3));
    drop(quiet);
    assert_newest(&mut Zodb::start(), &scene);
}

#[test]
fn an_index_is_built_after_syncing_is_switched_on_again() {
    let scene = Scene::synced(History::get());
    fs::remove_file(index_of(&scene)).unwrap();
    let job = scene.job(MountedPath::new(scene.master.clone()), Tuning::default());
    let mut idle_work = IdleWork::default();
    for (switch, is_made) in [("off", false), ("on", true)] {
        run(fssync().arg(switch).arg(&scene.slave)).expect(0);
        let _quiet = without_forks();
        idle_work.note(true);
        idle_work.work(&job.slave, false, &mut || false, &Silent);
        assert_eq!(index_of(&scene).exists(), is_made, "{switch}");
    }
    assert_newest(&mut Zodb::start(), &scene);
}

#[test]
fn a_watch_that_cannot_store_an_index_reports_it_once() {
    let scene = Scene::synced(History::get());
    fs::remove_file(index_of(&scene)).unwrap();
    // A directory that contains a file cannot be replaced by a file.
    fs::create_dir(index_of(&scene)).unwrap();
    File::create(index_of(&scene).join("full")).unwrap();
    let mut watcher = Watcher::start(&scene, &["--interval", "0.1"]);
    watcher.expect("cannot update the index");
    rewrite_end(&scene.master, &History::get().after);
    watcher.expect_in_sync(&scene);
    thread::sleep(Duration::from_secs(2));
    let log = watcher.log();
    assert_eq!(log.matches("cannot update the index").count(), 1, "{log}");
    assert!(!log.contains("NOT SYNCING"), "{log}");
}

/// A transaction that stores an object twice, like one that undoes two transactions.
fn append_twice(path: &Path, tid: u64) {
    let file = File::options().write(true).open(path).expect("the master");
    let start = file.metadata().expect("its size").len();
    let record_len: u64 = 42 + 1;
    let txn_len = 23 + 2 * record_len;
    let mut bytes = Vec::new();
    bytes.extend(tid.to_be_bytes());
    bytes.extend(txn_len.to_be_bytes());
    bytes.extend([b' ', 0, 0, 0, 0, 0, 0]);
    for _ in 0..2 {
        bytes.extend(1u64.to_be_bytes());
        bytes.extend(tid.to_be_bytes());
        bytes.extend(0u64.to_be_bytes());
        bytes.extend(start.to_be_bytes());
        bytes.extend(0u16.to_be_bytes());
        bytes.extend(1u64.to_be_bytes());
        bytes.push(b'.');
    }
    bytes.extend(txn_len.to_be_bytes());
    file.write_all_at(&bytes, start).expect("a transaction");
}

#[test]
fn an_index_is_not_replaced_if_zodb_would_not_use_the_newer_one() {
    let mut zodb = Zodb::start();
    let scene = Scene::synced(History::get());
    let before = inode(&index_of(&scene));
    append_twice(&scene.master, TID);
    scene.expect("append");
    let job = scene.job(MountedPath::new(scene.master.clone()), Tuning::default());
    let quiet = without_forks();
    upkeep::index::update_at_end(&job.slave);
    drop(quiet);
    assert_eq!(inode(&index_of(&scene)), before, "at the end of a watch");
    scene.make_index_due();
    scene.expect("up-to-date");
    assert_eq!(inode(&index_of(&scene)), before, "after a pass");
    zodb.assert_index(&scene.slave).expect("an index");
    append_sparse(&scene.master, 50, TID + 1);
    scene.expect("append");
    assert_newest(&mut zodb, &scene);
}

#[test]
fn the_end_of_a_watch_keeps_a_partial_copy() {
    let scene = Scene::synced(History::get());
    rewrite_end(&scene.master, &History::get().after);
    scene.expect("append");
    let part = scene.beside(".fssync-tmp");
    fs::write(&part, &History::get().packed[..1000]).unwrap();
    let job = scene.job(MountedPath::new(scene.master.clone()), Tuning::default());
    let quiet = without_forks();
    upkeep::index::update_at_end(&job.slave);
    assert_eq!(len(&part), 1000);
    fs::remove_file(&part).unwrap();
    upkeep::index::update_at_end(&job.slave);
    drop(quiet);
    assert_newest(&mut Zodb::start(), &scene);
}

#[test]
fn a_slave_that_zodb_could_not_scan_is_reported() {
    let scene = Scene::synced(History::get());
    // The sidecar has digests of the head and the tail of the file; this byte is in between.
    append_sparse(&scene.master, 200_000, TID);
    scene.expect("append");
    fs::remove_file(index_of(&scene)).unwrap();
    let slave = File::options().write(true).open(&scene.slave).unwrap();
    let last = History::get().before.len() as u64 - 1;
    slave.write_all_at(&[0xff], last).unwrap();
    let run = scene.pass(&[]).expect(0);
    assert!(run.stderr.contains("cannot update the index"), "{run:?}");
    assert!(run.stderr.contains("redundant length"), "{run:?}");
    assert!(!index_of(&scene).exists());
}

/// Changes the oid of the first data record in both files, in place.
fn overwrite_both(scene: &Scene) {
    let header = TxnHeader::decode(History::get().before[4..27].try_into().unwrap());
    let oid_at = 4 + header.header_len();
    for path in [&scene.master, &scene.slave] {
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(&0x0123_0000u64.to_be_bytes(), oid_at)
            .unwrap();
    }
}

#[test]
fn a_slave_overwritten_in_place_like_its_master_is_compared_once() {
    let scene = Scene::synced(History::get());
    overwrite_both(&scene);
    let first = scene.pass(&[]).expect(0);
    assert!(first.stderr.contains("comparing the slave"), "{first:?}");
    assert_newest(&mut Zodb::start(), &scene);
    let made = inode(&index_of(&scene));
    let second = scene.pass(&[]).expect(0);
    assert!(!second.stderr.contains("comparing the slave"), "{second:?}");
    assert_eq!(inode(&index_of(&scene)), made);
}

#[test]
fn an_index_build_is_dropped_if_the_slave_is_overwritten() {
    let scene = Scene::synced(History::get());
    append_sparse(&scene.master, 20 << 20, TID);
    scene.expect("append");
    fs::remove_file(index_of(&scene)).unwrap();
    let job = scene.job(MountedPath::new(scene.master.clone()), Tuning::default());
    let mut idle_work = IdleWork::default();
    let mut work = || {
        let _quiet = without_forks();
        idle_work.note(true);
        idle_work.work(&job.slave, true, &mut || true, &Silent);
        index_of(&scene).exists()
    };
    assert!(!work(), "16 MB at a time");
    overwrite_both(&scene);
    scene.expect("up-to-date");
    for _ in 0..9 {
        work();
    }
    assert_newest(&mut Zodb::start(), &scene);
}

#[test]
fn a_failed_index_build_is_not_repeated_in_each_pass() {
    let mut zodb = Zodb::start();
    let scene = Scene::synced(History::get());
    let index = index_of(&scene);
    fs::remove_file(&index).unwrap();
    let tmp = fs::canonicalize(scene.slave.parent().unwrap()).unwrap();
    let tmp = tmp.join("Data.fs.fssync-tmp");
    let mut command = strace(&["-e", "inject=write:error=ENOSPC"], &[tmp]);
    run(command.args([&scene.master, &scene.slave])).expect(0);
    // As if the attempt had read a lot.
    scene.edit_sidecar(|sidecar| sidecar["index_failure"]["len"] = json!(1_u64 << 50));
    scene.expect("up-to-date");
    assert!(!index.exists());
    // A foreign index is still removed.
    fs::write(&index, "a former slave's").unwrap();
    scene.expect("up-to-date");
    assert!(!index.exists());
    // As if the attempt had been long ago.
    scene.edit_sidecar(|sidecar| sidecar["index_failure"]["time"] = json!("1990-01-01T00:00:00Z"));
    scene.expect("up-to-date");
    assert_newest(&mut zodb, &scene);
    scene.edit_sidecar(|sidecar| assert!(sidecar["index_failure"].is_null(), "{sidecar}"));
}

#[test]
fn a_full_copy_whose_index_cannot_be_stored_is_not_read_again() {
    let scene = Scene::new();
    sparse_master(&scene.master, 100 << 20);
    let tmp = fs::canonicalize(scene.slave.parent().unwrap()).unwrap();
    let tmp = tmp.join("Data.fs.fssync-tmp");
    let mut command = strace(&["-e", "inject=write:error=ENOSPC"], &[tmp]);
    let made = run(command.args([&scene.master, &scene.slave])).expect(0);
    let times = made.stderr.matches("cannot update the index").count();
    assert_eq!(times, 1, "{made:?}");
}

#[test]
fn a_foreign_index_is_removed_before_an_append() {
    let mut zodb = Zodb::start();
    let scene = Scene::synced(History::get());
    open_and_close(&mut zodb, &scene.slave);
    rewrite_end(&scene.master, &History::get().after);
    let index = index_of(&scene);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (record, path) = (Arc::clone(&seen), index.clone());
    let source = Hooked {
        path: MountedPath::new(scene.master.clone()),
        hook: move |call| {
            if matches!(call, Call::Confirm(_)) {
                record.lock().unwrap().push(path.exists());
            }
            Ok(())
        },
    };
    let outcome = pass_here(&scene.job(source, Tuning::default()));
    assert_eq!(outcome.exit, Exit::Success, "{outcome:?}");
    assert_eq!(seen.lock().unwrap().first(), Some(&false));
    assert_newest(&mut zodb, &scene);
}

#[test]
fn a_pass_of_a_watch_removes_a_foreign_index() {
    let scene = Scene::synced(History::get());
    open_and_close(&mut Zodb::start(), &scene.slave);
    let job = Job {
        index_waits: true,
        ..scene.job(MountedPath::new(scene.master.clone()), Tuning::default())
    };
    let report = report_here(&job);
    assert_eq!(report.outcome.exit, Exit::Success, "{report:?}");
    assert!(report.index_is_due && !index_of(&scene).exists());
}

#[test]
fn a_watch_of_a_damaged_master_builds_an_index() {
    let scene = Scene::with_master("damage-length");
    scene.pass(&[]).expect(30);
    fs::remove_file(index_of(&scene)).unwrap();
    let mut watcher = Watcher::start(&scene, &["--interval", "0.2"]);
    watcher.expect("NOT SYNCING");
    wait_for("index", || is_stored_by_fssync_and_newest(&scene));
    assert_newest(&mut Zodb::start(), &scene);
}

#[test]
fn an_index_is_built_in_parts_over_several_passes() {
    let mut zodb = Zodb::start();
    let scene = Scene::synced(History::get());
    zodb.call(&json!({"cmd": "open", "name": "m", "path": scene.master}));
    for _ in 0..3 {
        zodb.call(&json!({"cmd": "commit", "name": "m", "objects": 300, "size": 5000}));
        zodb.call(&json!({"cmd": "commit", "name": "m", "objects": 5}));
    }
    scene.expect("append");
    fs::remove_file(index_of(&scene)).unwrap();
    let job = scene.job(MountedPath::new(scene.master.clone()), Tuning::default());
    let end = len(&scene.slave);
    let mut covered = vec![0];
    while covered.last() != Some(&end) {
        let mut sidecar = Sidecar::load(&job.slave.paths).unwrap();
        let quiet = without_forks();
        upkeep::index::update(&job.slave, end, Duration::ZERO, &mut sidecar, &Silent).unwrap();
        drop(quiet);
        covered.push(zodb.assert_index(&scene.slave).expect("an index"));
    }
    assert!(covered.is_sorted() && covered.len() > 3, "{covered:?}");
    assert!(is_stored_by_fssync_and_newest(&scene));
}
