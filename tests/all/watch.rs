//! `fssync --watch`: what it replicates, how long it waits, and how it ends.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::sshd::Sshd;
use crate::support::{
    History, Holder, NotifySocket, Scene, Transport, Zodb, append_sparse, fssync, must, names,
    replace, require_root, rewrite_end, run, sparse_master, spawn, tool, wait_for, write_program,
};
use crate::watcher::Watcher;

/// Logged if a pass succeeded, and if it failed.
const FINISHED: &str = "Finished syncing";
const NOT_SYNCING: &str = "NOT SYNCING FROM MASTER";

/// A watch of a master that ZODB has open as `m`, in sync.
fn followed(transport: Transport) -> (Scene, Zodb, Watcher) {
    let scene = Scene::new().over(transport);
    let mut zodb = Zodb::start();
    let open = json!({"cmd": "open", "name": "m", "path": scene.master, "create": true, "seed": 1});
    zodb.call(&open);
    zodb.call(&json!({"cmd": "commit", "name": "m", "objects": 3}));
    let mut watcher = Watcher::start(&scene, &["--interval", "0.5"]);
    watcher.expect(FINISHED);
    (scene, zodb, watcher)
}

/// The result of the last pass, from the sidecar.
fn noted(scene: &Scene) -> Value {
    let text = fs::read(scene.beside(".fssync")).unwrap();
    serde_json::from_slice::<Value>(&text).unwrap()["pass"].clone()
}

fn count(log: &str, what: &str) -> usize {
    log.matches(what).count()
}

#[test]
fn a_watch_replicates_each_operation_of_zodb() {
    for transport in Transport::BOTH {
        let (scene, mut zodb, mut watcher) = followed(transport);
        for command in [
            json!({"cmd": "commit", "name": "m", "objects": 4, "size": 900}),
            json!({"cmd": "undo", "name": "m"}),
            json!({"cmd": "commit", "name": "m", "objects": 0}),
            json!({"cmd": "commit", "name": "m", "objects": 9, "size": 300_000}),
            json!({"cmd": "pack", "name": "m", "keep": 2}),
            json!({"cmd": "commit", "name": "m"}),
            json!({"cmd": "pack", "name": "m", "keep": 1}),
            json!({"cmd": "commit", "name": "m", "objects": 2}),
        ] {
            zodb.call(&command);
            watcher.expect_in_sync(&scene);
        }
        let committed = fs::read(&scene.master).unwrap();
        zodb.call(&json!({"cmd": "vote", "name": "m", "objects": 2}));
        zodb.call(&json!({"cmd": "abort", "name": "m"}));
        zodb.call(&json!({"cmd": "vote", "name": "m", "objects": 3}));
        assert_eq!(
            fs::read(&scene.slave).unwrap(),
            committed,
            "a vote is not copied"
        );
        zodb.call(&json!({"cmd": "finish", "name": "m"}));
        watcher.expect_in_sync(&scene);
        zodb.assert_in_sync(&scene.master, &scene.slave);
        let log = watcher.log();
        assert_eq!(count(&log, NOT_SYNCING), 0, "{log}");
        assert_eq!(watcher.end().0, 0);
        scene.assert_documented_names();
    }
}

#[test]
fn an_idle_watch_only_polls() {
    for transport in Transport::BOTH {
        let scene = Scene::synced(History::get()).over(transport);
        let mut watcher = Watcher::start(&scene, &["-v", "--interval", "0.5"]);
        watcher.expect(FINISHED);
        std::thread::sleep(Duration::from_secs(8));
        let log = watcher.log();
        let passes = count(&log, "a pass of");
        // One more after the notifications are set up, one at the end of the interval, and one after
        // ten polls.
        assert!((2..=7).contains(&passes), "{passes} passes: {log}");
    }
}

#[test]
fn an_idle_watch_notices_at_the_next_poll_that_its_slave_was_removed() {
    let scene = Scene::synced(History::get());
    let mut watcher = Watcher::start(&scene, &["--interval", "1"]);
    watcher.expect(FINISHED);
    let mut quickest = Duration::MAX;
    for _ in 0..3 {
        // From now on, most polls make no pass.
        std::thread::sleep(Duration::from_secs(4));
        fs::remove_file(&scene.slave).unwrap();
        let removed = Instant::now();
        watcher.expect_in_sync(&scene);
        quickest = quickest.min(removed.elapsed());
    }
    assert!(quickest < Duration::from_secs(4), "{quickest:?}");
}

#[test]
fn a_watch_logs_how_it_detects_changes() {
    for transport in Transport::BOTH {
        let (_scene, _zodb, mut watcher) = followed(transport);
        watcher.expect("is on a local file system (statfs type 0x");
        watcher.expect("every 0.5 s");
    }
}

#[test]
fn polling_suffices_without_notifications() {
    let scene = Scene::with_master("commits");
    let script = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$@\"";
    let program = scene.command(&["--watch", "--interval", "0.2"]);
    let mut command = tool("unshare", "util-linux");
    command.args(["-Ur", "sh", "-c", script, "sh"]);
    command.arg(program.get_program()).args(program.get_args());
    let mut watcher = Watcher::of(&scene, &mut command);
    watcher.expect("cannot watch");
    let mut zodb = Zodb::start();
    zodb.call(&json!({"cmd": "open", "name": "m", "path": scene.master}));
    for _ in 0..3 {
        zodb.call(&json!({"cmd": "commit", "name": "m"}));
        watcher.expect_in_sync(&scene);
    }
    flip("off", &scene);
    watcher.expect("syncing is off");
    flip("on", &scene);
    watcher.expect(FINISHED);
}

fn flip(verb: &str, scene: &Scene) {
    run(fssync().arg(verb).arg(&scene.slave)).expect(0);
}

#[test]
fn a_missing_master_is_reported_once_and_followed_when_it_comes_back() {
    let (scene, mut zodb, mut watcher) = followed(Transport::Path);
    let away = scene.master.with_extension("away");
    fs::rename(&scene.master, &away).unwrap();
    watcher.expect(NOT_SYNCING);
    let slave = fs::read(&scene.slave).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(noted(&scene)["exit_code"], 12);
    fs::rename(&away, &scene.master).unwrap();
    watcher.expect(FINISHED);
    assert_eq!(fs::read(&scene.slave).unwrap(), slave);
    zodb.call(&json!({"cmd": "commit", "name": "m"}));
    watcher.expect_in_sync(&scene);
    let log = watcher.log();
    assert_eq!(count(&log, NOT_SYNCING), 1, "{log}");
}

#[test]
fn a_watch_waits_for_a_master_that_does_not_exist_yet() {
    let scene = Scene::new();
    let mut watcher = Watcher::start(&scene, &[]);
    watcher.expect(NOT_SYNCING);
    fs::write(&scene.master, &History::get().before).unwrap();
    watcher.expect(FINISHED);
    watcher.expect_in_sync(&scene);
}

#[test]
fn sighup_starts_a_pass_at_once() {
    let scene = Scene::new();
    let mut watcher = Watcher::start(&scene, &["-v"]);
    // After the fourth failure, the next attempt starts in 2 to 4 s, and itself waits for 1.2
    // s.
    for _ in 0..4 {
        watcher.expect("a pass of");
    }
    fs::write(&scene.master, &History::get().before).unwrap();
    let started = Instant::now();
    watcher.signal(Signal::HUP);
    watcher.expect(FINISHED);
    let elapsed = started.elapsed();
    assert!(elapsed < Duration::from_millis(1900), "{elapsed:?}");
}

#[test]
fn a_connection_that_breaks_is_reopened() {
    let scene = Scene::synced(History::get()).over(Transport::Ssh);
    let down = scene.directory.path().join("down");
    let rsh = Sshd::get().quick_rsh();
    let script = scene.directory.path().join("rsh");
    let text = format!(
        "#!/bin/sh\ntest -e {} && exit 255\nexec {rsh} \"$@\"\n",
        down.display()
    );
    write_program(&script, text);
    let mut command = fssync();
    command.arg("--watch").arg("-e").arg(&script);
    command.args(["--remote-fssync", env!("CARGO_BIN_EXE_fssync")]);
    command
        .arg(Sshd::get().url(&scene.master))
        .arg(&scene.slave);
    let mut watcher = Watcher::of(&scene, &mut command);
    watcher.expect(FINISHED);
    fs::write(&down, "").unwrap();
    kill_children(watcher.pid());
    watcher.expect(NOT_SYNCING);
    rewrite_end(&scene.master, &History::get().after);
    std::thread::sleep(Duration::from_secs(2));
    fs::remove_file(&down).unwrap();
    watcher.expect(FINISHED);
    watcher.expect_in_sync(&scene);
    // If a connection breaks and is reopened at once, nothing is logged.
    kill_children(watcher.pid());
    replace(&scene.master, &History::get().packed);
    watcher.expect_in_sync(&scene);
    flip("off", &scene);
    watcher.expect("syncing is off");
    kill_children(watcher.pid());
    flip("on", &scene);
    watcher.expect(FINISHED);
    let log = watcher.log();
    assert_eq!(count(&log, "unreachable"), 1, "{log}");
    let connecting = children(watcher.pid());
    assert_eq!(connecting.len(), 1);
    assert_eq!(watcher.end().0, 0);
    let program = fs::read_to_string(format!("/proc/{}/comm", connecting[0]));
    assert!(
        program.is_err(),
        "no program that connects is left: {program:?}"
    );
}

/// The children of a process.
fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|line| {
            line.split_whitespace()
                .map(|pid| pid.parse().unwrap())
                .collect::<Vec<_>>()
        })
        .collect()
}

fn kill_children(pid: u32) {
    for child in children(pid) {
        let child = rustix::process::Pid::from_raw(child.cast_signed()).unwrap();
        let _ = rustix::process::kill_process(child, Signal::KILL);
    }
}

#[test]
fn a_slave_that_diverged_suspends_the_watch_until_it_is_repaired() {
    let (scene, mut zodb, mut watcher) = followed(Transport::Path);
    // First ZODB holds it, then it has changed.
    zodb.call(&json!({"cmd": "open", "name": "s", "path": scene.slave}));
    zodb.call(&json!({"cmd": "commit", "name": "s", "objects": 1}));
    zodb.call(&json!({"cmd": "commit", "name": "m", "objects": 1}));
    watcher.expect(NOT_SYNCING);
    zodb.call(&json!({"cmd": "close", "name": "s"}));
    watcher.expect("has grown since last syncing");
    let own = fs::read(&scene.slave).unwrap();
    for _ in 0..5 {
        zodb.call(&json!({"cmd": "commit", "name": "m"}));
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(noted(&scene)["exit_code"], 20);
    assert!(
        fs::read(&scene.slave).unwrap() == own,
        "the slave is not touched"
    );
    let log = watcher.log();
    assert_eq!(count(&log, "has grown since last syncing"), 1, "{log}");
    // By hand, while the watch is running.
    scene.pass(&["--full"]).expect(0);
    watcher.expect(FINISHED);
    zodb.call(&json!({"cmd": "commit", "name": "m"}));
    watcher.expect_in_sync(&scene);
    assert_eq!(watcher.end().0, 0);
}

#[test]
fn the_exit_code_shows_that_a_watch_was_suspended() {
    let history = History::get();
    for (master, slave, code) in [
        (history.before.clone(), history.after.clone(), 20),
        (damaged(), history.before.clone(), 30),
        (history.after.clone(), damaged(), 31),
    ] {
        let scene = Scene::new();
        fs::write(&scene.master, master).unwrap();
        fs::write(&scene.slave, slave).unwrap();
        let mut watcher = Watcher::start(&scene, &[]);
        watcher.expect(NOT_SYNCING);
        let (ended, elapsed) = watcher.end();
        assert_eq!(ended, code);
        assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
    }
}

/// A history with a transaction whose trailing length is wrong.
fn damaged() -> Vec<u8> {
    let mut bytes = History::get().after.clone();
    let start = History::get().before.len();
    let len = u64::from_be_bytes(bytes[start + 8..start + 16].try_into().unwrap());
    let trailer = start + len as usize;
    bytes[trailer..trailer + 8].fill(0);
    bytes
}

#[test]
fn a_damaged_master_that_is_repaired_is_followed_again() {
    let history = History::get();
    // By another file, and in place.
    for mend in [replace, rewrite_end] {
        let scene = Scene::synced(history);
        fs::write(&scene.master, damaged()).unwrap();
        let mut watcher = Watcher::start(&scene, &["--interval", "0.2"]);
        watcher.expect("is damaged");
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(noted(&scene)["exit_code"], 30);
        mend(&scene.master, &history.after);
        watcher.expect(FINISHED);
        watcher.expect_in_sync(&scene);
        let log = watcher.log();
        assert_eq!(count(&log, NOT_SYNCING), 1, "{log}");
    }
}

#[test]
fn a_bare_echo_is_seen_within_100_ms_and_nothing_is_written_while_syncing_is_off() {
    let (scene, mut zodb, mut watcher) = followed(Transport::Path);
    let switch = scene.beside(".fssync-switch");
    let mut quickest = Duration::MAX;
    for _ in 0..5 {
        let flipped = Instant::now();
        fs::write(&switch, "SYNCING=0\n").unwrap();
        watcher.expect("syncing is off");
        quickest = quickest.min(flipped.elapsed());
        let slave = fs::read(&scene.slave).unwrap();
        zodb.call(&json!({"cmd": "commit", "name": "m"}));
        std::thread::sleep(Duration::from_millis(700));
        assert!(fs::read(&scene.slave).unwrap() == slave);
        fs::write(&switch, "SYNCING=1\n").unwrap();
        watcher.expect(FINISHED);
        watcher.expect_in_sync(&scene);
    }
    assert!(quickest < Duration::from_millis(100), "{quickest:?}");
}

#[test]
fn a_watch_that_is_off_does_not_take_zodbs_lock() {
    let scene = Scene::synced(History::get());
    fs::write(scene.beside(".fssync-switch"), "SYNCING=0\n").unwrap();
    let trace = scene.directory.path().join("trace");
    let mut command = tool("strace", "strace");
    command
        .args(["-f", "-qq", "-e", "trace=flock,openat", "-o"])
        .arg(&trace);
    let program = scene.command(&["--watch", "--interval", "0.1"]);
    command.arg(program.get_program()).args(program.get_args());
    let mut watcher = Watcher::of(&scene, &mut command);
    watcher.expect("syncing is off");
    rewrite_end(&scene.master, &History::get().after);
    std::thread::sleep(Duration::from_secs(2));
    let traced = fs::read_to_string(&trace).unwrap();
    assert!(count(&traced, ".fssync-switch") > 5, "{traced}");
    assert_eq!(count(&traced, "flock("), 0, "{traced}");
    assert_eq!(count(&traced, "Data.fs.lock"), 0, "{traced}");
    kill_children(watcher.pid());
}

#[test]
fn another_pass_is_reported_by_a_watch_only_if_it_lasts() {
    let (scene, mut zodb, mut watcher) = followed(Transport::Path);
    let lock = Holder::of(&scene.beside(".fssync-pass"));
    std::thread::sleep(Duration::from_secs(3));
    drop(lock);
    watcher.expect(FINISHED);
    let log = watcher.log();
    assert_eq!(count(&log, "another pass is at work"), 1, "{log}");
    for _ in 0..10 {
        let lock = Holder::of(&scene.beside(".fssync-pass"));
        std::thread::sleep(Duration::from_millis(200));
        drop(lock);
        std::thread::sleep(Duration::from_millis(600));
    }
    // Notifications still work: no requests have piled up.
    let mut quickest = Duration::MAX;
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(120));
        let committed = Instant::now();
        zodb.call(&json!({"cmd": "commit", "name": "m"}));
        watcher.expect_in_sync(&scene);
        quickest = quickest.min(committed.elapsed());
    }
    assert!(quickest < Duration::from_millis(300), "{quickest:?}");
    let log = watcher.log();
    assert_eq!(count(&log, "another pass is at work"), 1, "{log}");
}

#[test]
fn a_watch_waits_for_a_slave_that_is_unmounted() {
    require_root();
    let scene = Scene::new();
    fs::write(&scene.master, &History::get().before).unwrap();
    let directory = scene.slave.parent().unwrap().to_owned();
    let elsewhere = scene.directory.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    must(
        tool("mount", "mount")
            .args(["-t", "tmpfs", "tmpfs"])
            .arg(&elsewhere),
    );
    let bind = || {
        must(
            tool("mount", "mount")
                .arg("--bind")
                .arg(&elsewhere)
                .arg(&directory),
        )
    };
    let unmount = |path: &Path| must(tool("umount", "mount").arg("-l").arg(path));
    bind();
    let mut watcher = Watcher::start(&scene, &["--interval", "0.2"]);
    watcher.expect(FINISHED);
    unmount(&directory);
    watcher.expect("on a different file system");
    assert_eq!(scene.beside_slave(), [""; 0], "no file is created there");
    bind();
    rewrite_end(&scene.master, &History::get().after);
    watcher.expect(FINISHED);
    watcher.expect_in_sync(&scene);
    drop(watcher);
    unmount(&directory);
    unmount(&elsewhere);
}

/// Creates a directory and mounts `from` on it, or a new file system.
fn mount(from: Option<&Path>, on: &Path) {
    fs::create_dir_all(on).unwrap();
    let mut command = tool("mount", "mount");
    match from {
        None => command.args(["-t", "tmpfs", "tmpfs"]),
        Some(from) => command.arg("--bind").arg(from),
    };
    must(command.arg(on));
}

/// Unmounts a directory when this is dropped, if it is mounted.
struct Unmounted<'a>(&'a Path);

impl Drop for Unmounted<'_> {
    fn drop(&mut self) {
        let _ = tool("umount", "mount")
            .args(["-q", "-l"])
            .arg(self.0)
            .status();
    }
}

/// Unmounts the slave's file system during a watch, and mounts another one with the same files
/// and another device number. `change` changes these files first.
fn remounted(scene: &Scene, change: impl FnOnce(&Path)) -> Watcher {
    let directory = scene.slave.parent().unwrap();
    let (first, second) = (
        scene.directory.path().join("first"),
        scene.directory.path().join("second"),
    );
    mount(Some(&first), directory);
    let mut watcher = Watcher::start(scene, &["--interval", "0.2"]);
    watcher.expect(FINISHED);
    drop(Unmounted(directory));
    watcher.expect("on a different file system");
    for name in names(&first) {
        fs::copy(first.join(&name), second.join(&name)).unwrap();
    }
    change(&second);
    mount(Some(&second), directory);
    watcher
}

#[test]
fn a_slave_mounted_again_with_another_device_number_is_followed() {
    require_root();
    let scene = Scene::new();
    let [first, second] = ["first", "second"].map(|name| scene.directory.path().join(name));
    mount(None, &first);
    let _first = Unmounted(&first);
    mount(None, &second);
    let _second = Unmounted(&second);
    let _slave = Unmounted(scene.slave.parent().unwrap());
    fs::write(&scene.master, &History::get().before).unwrap();
    let mut watcher = remounted(&scene, |_| {});
    rewrite_end(&scene.master, &History::get().after);
    watcher.expect("is mounted again");
    watcher.expect(FINISHED);
    watcher.expect_in_sync(&scene);
    assert_eq!(watcher.end().0, 0);
}

/// A change in a directory.
type Change = fn(&Path);

#[test]
fn a_different_slave_in_the_place_of_the_unmounted_one_is_not_written() {
    require_root();
    let changes: [(&str, Change); 4] = [
        ("nothing there", |directory| {
            for name in names(directory) {
                fs::remove_file(directory.join(name)).unwrap();
            }
        }),
        ("an older state", |directory| {
            let bytes = &History::get().before;
            fs::write(directory.join("Data.fs"), &bytes[..bytes.len() - 200]).unwrap();
        }),
        ("another database", |directory| {
            fs::write(directory.join("Data.fs"), &History::get().packed).unwrap();
        }),
        ("other bytes at the end", |directory| {
            let mut bytes = History::get().before.clone();
            let at = bytes.len() - 20;
            bytes[at] ^= 1;
            fs::write(directory.join("Data.fs"), bytes).unwrap();
        }),
    ];
    for (what, change) in changes {
        let scene = Scene::new();
        let [first, second] = ["first", "second"].map(|name| scene.directory.path().join(name));
        mount(None, &first);
        let _first = Unmounted(&first);
        mount(None, &second);
        let _second = Unmounted(&second);
        let _slave = Unmounted(scene.slave.parent().unwrap());
        fs::write(&scene.master, &History::get().before).unwrap();
        let watcher = remounted(&scene, change);
        let state = || -> Vec<_> {
            let read = |name: String| (fs::read(second.join(&name)).unwrap(), name);
            names(&second).into_iter().map(read).collect()
        };
        let before = state();
        rewrite_end(&scene.master, &History::get().after);
        // Passes are made within a second or two, several times.
        std::thread::sleep(Duration::from_secs(4));
        assert!(state() == before, "{what}: {}", watcher.log());
        assert_eq!(count(&watcher.log(), FINISHED), 1, "{what}");
        watcher.end();
        assert!(state() == before, "{what}");
    }
}

#[test]
fn a_watch_continues_if_its_log_cannot_be_written() {
    let scene = Scene::new();
    let mut command =
        scene.command(&["--watch", "-v", "--interval", "0.1", "--progress", "always"]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut process = spawn(command.stdin(Stdio::null()).stderr(full));
    fs::write(&scene.master, &History::get().before).unwrap();
    let copied = || fs::read(&scene.slave).is_ok_and(|slave| slave == History::get().before);
    wait_for("the copy", copied);
    assert_eq!(process.try_wait().unwrap(), None);
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn a_watch_that_is_off_closes_its_master() {
    for transport in Transport::BOTH {
        let scene = Scene::synced(History::get()).over(transport);
        let mut watcher = Watcher::start(&scene, &["--interval", "0.2"]);
        watcher.expect(FINISHED);
        flip("off", &scene);
        watcher.expect("syncing is off");
        let pid = watcher.pid();
        wait_for("end of the connection", || children(pid).is_empty());
        let holds = || {
            let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
            open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
                .any(|path| path == scene.master)
        };
        wait_for("file that is closed", || !holds());
    }
}

#[test]
fn an_idle_watch_writes_nothing() {
    let (scene, _zodb, watcher) = followed(Transport::Path);
    std::thread::sleep(Duration::from_secs(1));
    let state = || {
        let directory = scene.slave.parent().unwrap();
        let modified = |name: &String| {
            fs::metadata(directory.join(name))
                .unwrap()
                .modified()
                .unwrap()
        };
        let names = names(directory);
        let times: Vec<_> = names.iter().map(modified).collect();
        (names, times)
    };
    let before = state();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(state(), before);
    drop(watcher);
}

#[test]
fn a_full_disk_is_reported_once_and_recovered_from() {
    require_root();
    let scene = Scene::new();
    let directory = scene.slave.parent().unwrap();
    must(
        tool("mount", "mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
            .arg(directory),
    );
    let unmount = || {
        tool("umount", "mount")
            .arg("-l")
            .arg(directory)
            .status()
            .unwrap()
    };
    let result = std::panic::catch_unwind(|| {
        let history = History::get();
        fs::write(&scene.master, &history.before).unwrap();
        let mut watcher = Watcher::start(&scene, &["--interval", "0.2"]);
        watcher.expect(FINISHED);
        let ballast = directory.join("ballast");
        let free = rustix::fs::statvfs(directory).unwrap();
        fs::write(&ballast, vec![1; (free.f_bavail * free.f_frsize) as usize]).unwrap();
        rewrite_end(&scene.master, &history.after);
        watcher.expect(NOT_SYNCING);
        std::thread::sleep(Duration::from_secs(2));
        assert!(
            fs::read(&scene.slave).unwrap() == history.before,
            "the append was truncated"
        );
        fs::remove_file(&ballast).unwrap();
        watcher.expect(FINISHED);
        watcher.expect_in_sync(&scene);
        let log = watcher.log();
        assert_eq!(count(&log, NOT_SYNCING), 1, "{log}");
        assert!(count(&log, "cannot record the outcome") <= 1, "{log}");
    });
    unmount();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_signal_ends_a_watch_at_a_transaction_boundary() {
    // During a full copy, during an append, and while idle.
    for nth in 0..3 {
        let scene = Scene::new();
        let mut zodb = Zodb::start();
        let big = 6 << 30;
        if nth == 0 {
            sparse_master(&scene.master, big);
        } else {
            fs::write(&scene.master, &History::get().before).unwrap();
            scene.expect("full-copy");
        }
        let before = fs::read(&scene.slave).unwrap_or_default();
        if nth == 1 {
            append_sparse(&scene.master, big, 0x7000_0000_0000_0000);
        }
        let mut watcher = Watcher::start(&scene, &["--progress", "always"]);
        match nth {
            0 => watcher.expect("copying: "),
            1 => watcher.expect("appending: "),
            _ => watcher.expect(FINISHED),
        }
        let (code, elapsed) = watcher.end();
        assert_eq!(code, 0);
        assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
        let has_kept_a_copy = scene.beside(".fssync-tmp").exists();
        assert_eq!(has_kept_a_copy, nth == 0);
        if nth == 0 {
            assert!(!scene.slave.exists());
        } else {
            assert!(fs::read(&scene.slave).unwrap() == before);
            zodb.assert_prefix_of(&before, &scene.slave);
        }
    }
}

#[test]
fn systemd_receives_the_status_of_a_watch() {
    let (scene, mut zodb, watcher) = followed(Transport::Path);
    drop(watcher);
    let mut systemd = NotifySocket::in_directory(scene.directory.path());
    let mut command = scene.command(&["--watch"]);
    systemd.serve(&mut command, Duration::from_secs(4));
    let watcher = Watcher::of(&scene, &mut command);
    systemd.expect("READY=1\n");
    let position = fs::metadata(&scene.slave).unwrap().len();
    systemd.expect(&format!(
        "STATUS=in sync: position {position}, lag 0 s, last transaction "
    ));
    for _ in 0..3 {
        let started = Instant::now();
        systemd.expect("WATCHDOG=1\n");
        assert!(
            started.elapsed() < Duration::from_secs(4),
            "systemd would kill the watch"
        );
    }
    zodb.call(&json!({"cmd": "commit", "name": "m"}));
    let position = fs::metadata(&scene.master).unwrap().len();
    systemd.expect(&format!("STATUS=in sync: position {position}, "));
    // systemd waits for both if the service is of Type=notify-reload.
    watcher.signal(Signal::HUP);
    systemd.expect("RELOADING=1\nMONOTONIC_USEC=");
    systemd.expect("READY=1\n");
    fs::write(scene.beside(".fssync-switch"), "SYNCING=0\n").unwrap();
    systemd.expect(&format!(
        "STATUS=NOT SYNCING: position {position}, lag since "
    ));
    assert_eq!(watcher.end().0, 0);
    systemd.expect("STOPPING=1\n");
}

#[test]
fn invalid_arguments_end_a_watch_at_once() {
    let scene = Scene::with_master("commits");
    for options in [
        &["--watch", "--full"][..],
        &["--watch", "--dry-run"],
        &["--interval", "2"],
        &["--watch", "--interval", "0"],
        &["--watch", "--interval", "0.000001"],
        &["--watch", "--interval", "1e19"],
    ] {
        run(&mut scene.command(options)).expect(2);
    }
    let nowhere = scene.directory.path().join("no/Data.fs");
    run(fssync().arg("--watch").arg(&scene.master).arg(nowhere)).expect(2);
    run(fssync()
        .arg("--watch")
        .arg(&scene.master)
        .arg(&scene.master))
    .expect(2);
}
