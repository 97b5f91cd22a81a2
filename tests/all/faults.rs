//! Faults in the environment of a pass: a full disk, a master that is read-only or does not
//! answer, foreign owners, a transaction larger than memory, signals.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fssync::io::flock;
use fssync::pass::apply::Tuning;
use fssync::plan::outcome::{Exit, Outcome};
use fssync::source::path::MountedPath;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support::{
    History, Hooked, Run, Scene, Zodb, append_sparse, as_nobody, fssync, measured, must, names,
    pass_here, replace, require_root, rewrite_end, run, run_in_a_pass, sparse_master, spawn,
    strace,
};

/// Several reads per batch, several batches per pass.
const SMALL: Tuning = Tuning {
    chunk_len: 4096,
    batch_len: 8192,
    blob_batch_len: 2,
};

/// A file system that is mounted until this is dropped.
pub struct Mount(PathBuf);

impl Mount {
    pub fn new(arguments: &[&str], directory: &Path) -> Self {
        require_root();
        must(Command::new("mount").args(arguments).arg(directory));
        Self(directory.to_owned())
    }

    /// An empty file system, mounted from the hook of a pass in this process.
    pub fn empty_in_a_pass(directory: &Path) -> Self {
        require_root();
        let mut mount = Command::new("mount");
        run_in_a_pass(mount.args(["-t", "tmpfs", "tmpfs"]).arg(directory)).expect(0);
        Self(directory.to_owned())
    }

    /// A file system of this size in memory.
    fn tmpfs(size: &str, directory: &Path) -> Self {
        Self::new(
            &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"],
            directory,
        )
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A slave in sync with `before`, on a file system of this size. The mount is the last element
/// and must be dropped first: a directory with a mount point in it cannot be removed.
fn on_a_small_disk(size: &str) -> (Scene, Mount) {
    let scene = Scene::new();
    let disk = Mount::tmpfs(size, scene.slave.parent().unwrap());
    fs::write(&scene.master, &History::get().before).unwrap();
    scene.expect("full-copy");
    (scene, disk)
}

/// Fails unless ZODB opens the slave and finds this position.
fn assert_opens(scene: &Scene, position: usize) {
    let mut zodb = Zodb::start();
    let opened = zodb.call(&json!({"cmd": "open", "name": "s", "path": scene.slave}));
    assert_eq!(opened["position"], position);
    zodb.call(&json!({"cmd": "close", "name": "s"}));
}

#[test]
fn a_full_copy_that_does_not_fit_is_not_started() {
    let (scene, _disk) = on_a_small_disk("1m");
    let before = scene.beside_slave();
    sparse_master(&scene.master, 2 << 20);
    let run = scene.pass(&["--full"]).expect(1);
    assert!(
        run.stderr.contains("KiB free, a full copy needs"),
        "{run:?}"
    );
    assert!(run.stderr.contains("free some space"), "{run:?}");
    let rehearsed = scene.pass(&["-n", "--full"]).expect(1);
    assert!(
        rehearsed.stderr.contains("a full copy needs"),
        "{rehearsed:?}"
    );
    assert_eq!(scene.beside_slave(), before);
    assert!(fs::read(&scene.slave).unwrap() == History::get().before);
}

#[test]
fn a_lack_of_space_is_predicted() {
    let history = History::get();
    for (master, needs) in [
        (&history.packed, "free, a full copy needs"),
        (&history.before, "free, an append needs"),
    ] {
        let (scene, _disk) = on_a_small_disk("1m");
        let in_sync = scene.status_against().expect(0);
        replace(&scene.master, master);
        append_sparse(&scene.master, 2 << 20, 0x0500_0000_0000_0000);
        let status = scene.status_against().expect(1).report();
        let reason = status["next_reason"].to_string();
        assert!(reason.contains(needs), "{status}, {in_sync:?}");
        let rehearsed = scene.pass(&["-n"]).expect(1);
        assert!(rehearsed.stderr.contains(needs), "{rehearsed:?}");
        scene.pass(&[]).expect(1);
    }
}

#[test]
fn a_full_copy_that_fills_the_disk_leaves_the_old_slave_or_the_new_one() {
    for spared in [0, 200, 5_000, 20_000] {
        let (scene, _disk) = on_a_small_disk("1m");
        let found = rustix::fs::statvfs(scene.slave.parent().unwrap()).unwrap();
        let free = found.f_bavail * found.f_frsize;
        sparse_master(&scene.master, free - spared - 81);
        let run = scene.pass(&["--full"]);
        let slave = fs::read(&scene.slave).unwrap();
        let is_new = slave == fs::read(&scene.master).unwrap();
        assert!(is_new || slave == History::get().before, "{run:?}");
        if !is_new || run.code != 0 {
            let run = run.expect(1);
            assert!(run.stderr.contains("No space left on device"), "{run:?}");
        }
        assert!(!scene.beside(".fssync-tmp").exists());
        scene.assert_documented_names();
    }
}

#[test]
fn an_append_that_fills_the_disk_leaves_the_slave_unchanged() {
    let (scene, _disk) = on_a_small_disk("1m");
    append_sparse(&scene.master, 8 << 20, u64::MAX >> 1);
    for _ in 0..2 {
        let run = scene.pass(&[]).expect(1);
        assert!(run.stderr.contains("No space left on device"), "{run:?}");
        assert!(
            run.stderr.contains(scene.slave.to_str().unwrap()),
            "{run:?}"
        );
        assert!(fs::read(&scene.slave).unwrap() == History::get().before);
    }
    scene.assert_documented_names();
    assert_opens(&scene, History::get().before.len());
}

#[test]
fn batches_that_fit_stay_when_the_disk_is_full() {
    let (scene, _disk) = on_a_small_disk("1m");
    let source = MountedPath::new(scene.master.clone());
    rewrite_end(&scene.master, &History::get().after);
    append_sparse(&scene.master, 8 << 20, u64::MAX >> 1);
    let outcome = pass_here(&scene.job(source, SMALL));
    assert_eq!(outcome.exit, Exit::Failure, "{outcome:?}");
    assert!(outcome.copied.transactions > 0, "{outcome:?}");
    let slave = fs::read(&scene.slave).unwrap();
    assert_eq!(outcome.copied.position, Some(slave.len() as u64));
    assert!(slave.len() > History::get().before.len());
    assert!(History::get().after.starts_with(&slave));
    assert_opens(&scene, slave.len());
}

/// Everything that changes in a directory if something is written there.
fn listing(directory: &Path) -> Vec<(String, u64, u64, [i64; 4])> {
    let look = |name: String| {
        let found = fs::metadata(directory.join(&name)).unwrap();
        let times = [
            found.mtime(),
            found.mtime_nsec(),
            found.ctime(),
            found.ctime_nsec(),
        ];
        (name, found.ino(), found.len(), times)
    };
    let mut all = names(directory);
    all.push(".".to_owned());
    all.into_iter().map(look).collect()
}

/// Fails if a first copy, an append, a pass without anything new, or a copy after a pack
/// changes the master's directory. `change` writes the master.
fn assert_master_untouched(
    scene: &Scene,
    mut change: impl FnMut(&[u8]),
    mut pass: impl FnMut() -> Run,
) {
    let directory = scene.master.parent().unwrap();
    let history = History::get();
    for (bytes, action) in [
        (&history.before, "full-copy"),
        (&history.after, "append"),
        (&history.after, "up-to-date"),
        (&history.packed_away, "full-copy"),
    ] {
        if fs::read(&scene.master).unwrap() != *bytes {
            change(bytes);
        }
        let before = listing(directory);
        let report = pass().expect(0).report();
        assert_eq!(report["action"], action, "{report}");
        assert_eq!(listing(directory), before);
        assert!(fs::read(&scene.master).unwrap() == *bytes);
    }
}

/// Writes the master, in place if the bytes start with its content.
fn put(master: &Path, bytes: &[u8]) {
    if bytes.starts_with(&fs::read(master).unwrap_or_default()) {
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(master)
            .unwrap();
        let had = file.metadata().unwrap().len() as usize;
        std::io::Write::write_all(&mut file, &bytes[had..]).unwrap();
    } else {
        replace(master, bytes);
    }
}

#[test]
fn the_master_may_be_on_a_read_only_file_system() {
    let mut scene = Scene::new();
    let writable = scene.master.clone();
    fs::write(&writable, &History::get().before).unwrap();
    let seen = scene.directory.path().join("seen");
    fs::create_dir(&seen).unwrap();
    let from = writable.parent().unwrap().to_str().unwrap().to_owned();
    let _bound = Mount::new(&["--bind", &from], &seen);
    must(
        Command::new("mount")
            .args(["-o", "remount,ro,bind"])
            .arg(&seen),
    );
    assert!(fs::write(seen.join("x"), "").is_err(), "it is read-only");
    scene.master = seen.join("Data.fs");
    assert_master_untouched(&scene, |bytes| put(&writable, bytes), || scene.pass(&[]));
}

#[test]
fn the_master_may_be_read_only_for_the_user() {
    let scene = Scene::new();
    fs::write(&scene.master, &History::get().before).unwrap();
    let directory = scene.master.parent().unwrap();
    let mut command = as_nobody(&scene);
    command.arg("--json").args([&scene.master, &scene.slave]);
    for path in [directory, &scene.master] {
        chown(path, Some(0), Some(0)).unwrap();
    }
    let change = |bytes: &[u8]| {
        put(&scene.master, bytes);
        fs::set_permissions(&scene.master, Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(directory, Permissions::from_mode(0o555)).unwrap();
    };
    change(&History::get().before);
    assert_master_untouched(&scene, change, || run(&mut command));
}

#[test]
fn the_master_is_opened_read_only_and_no_file_beside_it_is_opened() {
    let scene = Scene::new();
    fs::write(&scene.master, &History::get().after).unwrap();
    let log = scene.directory.path().join("log");
    let options = ["-o", log.to_str().unwrap(), "-e", "trace=%file"];
    run(strace(&options, &[]).args([&scene.master, &scene.slave])).expect(0);
    let log = fs::read_to_string(log).unwrap();
    let master = scene.master.parent().unwrap().to_str().unwrap();
    let touched: Vec<&str> = log.lines().filter(|line| line.contains(master)).collect();
    assert!(!touched.is_empty());
    for line in touched.into_iter().filter(|line| !line.contains("execve(")) {
        let reads = ["O_RDONLY", "statx(", "readlink(", "stat("];
        assert!(reads.iter().any(|call| line.contains(call)), "{line}");
        assert!(!line.contains("O_CREAT"), "{line}");
        // A pass may stat ZODB's lock file, to find out who holds the lock.
        let opens_lock = line.contains(".lock") && !line.contains("statx(");
        assert!(!opens_lock, "{line}");
    }
}

/// A pass with small batches whose source hangs in its `nth` call; `None` if it makes fewer
/// calls.
fn pass_that_hangs(scene: &Scene, nth: u32) -> Option<Outcome> {
    let hangs = Arc::new(AtomicBool::new(false));
    let mut calls = 0;
    let source = Hooked {
        path: MountedPath::new(scene.master.clone()),
        hook: {
            let hangs = Arc::clone(&hangs);
            move |_| {
                if calls == nth {
                    hangs.store(true, Ordering::SeqCst);
                    thread::sleep(Duration::from_secs(60));
                }
                calls += 1;
                Ok(())
            }
        },
    };
    let mut job = scene.job(MountedPath::new(scene.master.clone()), SMALL);
    let interrupted = Arc::clone(&job.slave.interrupted);
    let timeout = Duration::from_millis(500);
    job.master = scene.master_of(source, timeout, &interrupted);
    let outcome = pass_here(&job);
    hangs.load(Ordering::SeqCst).then_some(outcome)
}

#[test]
fn a_master_that_hangs_is_unreachable_and_no_lock_is_left() {
    for nth in 0.. {
        let scene = Scene::synced(History::get());
        rewrite_end(&scene.master, &History::get().after);
        let started = Instant::now();
        let Some(outcome) = pass_that_hangs(&scene, nth) else {
            assert!(nth > 5);
            return;
        };
        assert!(started.elapsed() < Duration::from_secs(4), "{nth}");
        assert_eq!(outcome.exit, Exit::Unreachable, "{nth}: {outcome:?}");
        let message = format!("no answer from {} within 0.5 s", scene.master.display());
        assert!(outcome.reason.contains(&message), "{outcome:?}");
        for suffix in [".fssync-pass", ".fssync-step", ".lock"] {
            assert_eq!(flock::holder(&scene.beside(suffix)), None, "{suffix}");
        }
        let slave = fs::read(&scene.slave).unwrap();
        assert!(History::get().after.starts_with(&slave), "a prefix");
        assert_opens(&scene, slave.len());
        scene.pass(&[]).expect(0);
        Zodb::start().assert_in_sync(&scene.master, &scene.slave);
    }
}

#[test]
fn a_read_that_hangs_makes_the_master_unreachable() {
    let scene = Scene::synced(History::get());
    rewrite_end(&scene.master, &History::get().after);
    let master = fs::canonicalize(&scene.master).unwrap();
    // `strace` keeps the process alive for longer, so the time is taken from the report.
    let hang = ["-e", "inject=pread64:delay_enter=5000000:when=4"];
    let mut command = strace(&hang, &[master]);
    command.args(["--json", "--timeout", "0.5"]);
    let run = run(command.args([&scene.master, &scene.slave])).expect(12);
    assert!(run.stderr.contains("no answer from"), "{run:?}");
    let elapsed = run.report()["elapsed_seconds"].as_f64().unwrap();
    assert!((0.5..2.0).contains(&elapsed), "{elapsed} s");
    assert_eq!(flock::holder(&scene.beside(".fssync-pass")), None);
    scene.expect("append");
}

#[test]
fn a_fifo_or_a_device_is_not_accepted_as_master() {
    let scene = Scene::new();
    let fifo = scene.master.with_file_name("fifo");
    must(Command::new("mkfifo").arg(&fifo));
    for master in [&fifo, Path::new("/dev/zero"), Path::new("/dev/null")] {
        let started = Instant::now();
        let run = run(fssync().args([master, &scene.slave])).expect(12);
        assert!(run.stderr.contains("is not a regular file"), "{run:?}");
        assert!(started.elapsed() < Duration::from_secs(4));
        assert!(!scene.slave.exists());
    }
}

#[test]
fn messages_name_the_data_fs_in_a_directory() {
    let scene = Scene::new();
    let directory = scene.master.parent().unwrap();
    let master = scene.master.display();
    let pass = || run(fssync().arg(directory).arg(scene.slave.parent().unwrap()));
    fs::write(&scene.master, "").unwrap();
    let empty = pass().expect(12).stderr;
    assert!(empty.contains(&format!("{master} is empty")), "{empty}");

    let file = scene.directory.path().join("file.fs");
    fs::write(&file, &History::get().before).unwrap();
    let _mount = Mount::new(&["--bind", file.to_str().unwrap()], &scene.master);
    let mounted = pass().expect(2).stderr;
    let message = format!("{master} is mounted as a single file");
    assert!(mounted.contains(&message), "{mounted}");
}

const UID: u32 = 12_345;
const GID: u32 = 23_456;

/// The owner, group and permission bits of a file.
fn owner(path: &Path) -> (u32, u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), found.gid(), found.mode() & 0o7777)
}

/// A pass in a shell with this umask.
fn pass_under_umask(scene: &Scene, umask: &str, options: &[&str]) -> Run {
    let script = format!("umask {umask} && exec \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_fssync"), "--json"]);
    run(command.args(options).args([&scene.master, &scene.slave]))
}

#[test]
fn files_beside_a_new_slave_get_the_owner_of_its_directory() {
    require_root();
    for (umask, mode) in [("077", 0o640), ("000", 0o600), ("022", 0o664)] {
        let scene = Scene::new();
        chown(scene.slave.parent().unwrap(), Some(UID), Some(GID)).unwrap();
        fs::write(&scene.master, &History::get().before).unwrap();
        fs::set_permissions(&scene.master, Permissions::from_mode(mode)).unwrap();
        pass_under_umask(&scene, umask, &[]).expect(0);
        assert!(
            scene.beside_slave().len() >= 4,
            "{:?}",
            scene.beside_slave()
        );
        for name in scene.beside_slave() {
            let (uid, gid, _) = owner(&scene.slave.with_file_name(&name));
            assert_eq!((uid, gid), (UID, GID), "{name}");
        }
        assert_eq!(owner(&scene.slave).2, mode, "the master's mode");
        assert_eq!(
            owner(&scene.beside(".fssync")).2,
            mode,
            "and the sidecar has it too"
        );
    }
}

#[test]
fn files_beside_the_slave_get_its_owner_and_mode() {
    require_root();
    for (umask, mode) in [("077", 0o640), ("000", 0o600), ("022", 0o664)] {
        let history = History::get();
        let scene = Scene::new();
        fs::write(&scene.master, &history.after).unwrap();
        let tail = &history.voted[history.after.len()..][..300];
        fs::write(&scene.slave, [&history.before, tail].concat()).unwrap();
        chown(&scene.slave, Some(UID), Some(GID)).unwrap();
        fs::set_permissions(&scene.slave, Permissions::from_mode(mode)).unwrap();
        pass_under_umask(&scene, umask, &[]).expect(0);
        replace(&scene.master, &history.packed_away);
        pass_under_umask(&scene, umask, &["--full"]).expect(0);
        run(fssync().arg("off").arg(&scene.slave)).expect(0);
        let names = scene.beside_slave();
        for suffix in [".tr0", ".fssync", ".fssync-switch", ".fssync-pass", ".lock"] {
            assert!(
                names.contains(&format!("Data.fs{suffix}")),
                "{suffix}: {names:?}"
            );
        }
        for name in names {
            let found = owner(&scene.slave.with_file_name(&name));
            assert_eq!(found, (UID, GID, mode), "{name}");
        }
    }
}

/// Each pass tries to truncate the tail; it is saved only if it is about to be truncated, and
/// only once.
#[test]
fn a_foreign_tail_that_cannot_be_truncated_is_saved_only_once() {
    let history = History::get();
    let scene = Scene::synced(history);
    rewrite_end(&scene.master, &history.after);
    let tail = &history.voted[history.after.len()..][..300];
    let old = [&history.before, tail].concat();
    fs::write(&scene.slave, &old).unwrap();
    fs::write(scene.beside(".index"), "of who knows what").unwrap();
    let index = fs::canonicalize(scene.beside(".index")).unwrap();
    let slave = fs::canonicalize(&scene.slave).unwrap();
    for (file, fails, message, copies) in [
        (&index, "?unlink,?unlinkat", "cannot remove", 0),
        (&slave, "ftruncate", "cannot truncate", 1),
    ] {
        for is_kept_before in [false, true] {
            let log = scene.directory.path().join("log");
            let log = log.to_str().unwrap();
            let fails = format!("inject={fails}:error=EPERM");
            let files = [file.clone(), slave.with_extension("fs.tr0")];
            let mut pass = strace(&["-y", "-o", log, "-e", &fails], &files);
            let failed = run(pass.args([&scene.master, &scene.slave])).expect(1);
            assert!(failed.stderr.contains(message), "{failed:?}");
            let log = fs::read_to_string(log).unwrap();
            let mut calls = log.lines().filter(|line| line.contains("Data.fs.tr0>"));
            let is_written = calls.any(|line| line.contains("pwrite64("));
            let is_synced = calls.any(|line| line.contains("fsync("));
            let is_durable = is_written && is_synced;
            assert_eq!(is_durable, copies == 1, "{is_kept_before}: {log}");
            let names = scene.beside_slave();
            let kept = names.iter().filter(|name| name.contains(".tr"));
            assert_eq!(kept.count(), copies, "{names:?}");
            assert!(fs::read(&slave).unwrap() == old, "the tail is still there");
        }
    }
    scene.expect("trim-append");
    assert!(!scene.beside(".tr1").exists());
    assert!(fs::read(scene.beside(".tr0")).unwrap() == tail);
}

/// A file with a second name may belong to anybody, so it is not written.
#[test]
fn a_saved_tail_with_a_second_name_is_not_written() {
    let history = History::get();
    let scene = Scene::synced(history);
    rewrite_end(&scene.master, &history.after);
    let tail = &history.voted[history.after.len()..][..300];
    fs::write(&scene.slave, [&history.before, tail].concat()).unwrap();
    let other = scene.directory.path().join("other");
    fs::write(&other, tail).unwrap();
    let written = fs::metadata(&other).unwrap().modified().unwrap();
    fs::hard_link(&other, scene.beside(".tr0")).unwrap();
    scene.expect("trim-append");
    assert_eq!(fs::metadata(&other).unwrap().modified().unwrap(), written);
    assert!(fs::read(scene.beside(".tr1")).unwrap() == tail);
}

#[test]
fn a_user_who_cannot_chown_to_the_slaves_owner_writes_nothing() {
    let scene = Scene::with_master("commits");
    let directory = scene.slave.parent().unwrap();
    let mut command = as_nobody(&scene);
    command.args([&scene.master, &scene.slave]);
    chown(directory, Some(UID), Some(GID)).unwrap();
    fs::set_permissions(directory, Permissions::from_mode(0o777)).unwrap();
    fs::copy(&scene.master, &scene.slave).unwrap();
    chown(&scene.slave, Some(UID), Some(GID)).unwrap();
    fs::set_permissions(&scene.slave, Permissions::from_mode(0o666)).unwrap();
    let refused = run(&mut command).expect(1);
    let message = format!("to uid {UID}, gid {GID}");
    assert!(refused.stderr.contains(&message), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("run fssync as root, or as the user"),
        "{refused:?}"
    );
    assert_eq!(scene.beside_slave(), ["Data.fs"]);
}

#[test]
fn failing_to_set_a_group_matters_only_if_it_has_more_access_than_others() {
    for (mode, code) in [(0o644, 0), (0o600, 0), (0o664, 1), (0o660, 1), (0o640, 1)] {
        let scene = Scene::with_master("commits");
        let mut command = as_nobody(&scene);
        command.args([&scene.master, &scene.slave]);
        chown(scene.slave.parent().unwrap(), None, Some(GID)).unwrap();
        run(&mut command).expect(0);
        chown(&scene.slave, None, Some(GID)).unwrap();
        fs::set_permissions(&scene.slave, Permissions::from_mode(mode)).unwrap();
        fs::remove_file(scene.beside(".fssync")).unwrap();
        let ended = run(&mut command);
        assert_eq!(ended.code, code, "{mode:o}: {ended:?}");
        assert_eq!(scene.beside(".fssync").exists(), code == 0, "{mode:o}");
    }
}

const GIB: u64 = 1 << 30;

/// Makes a pass; returns its peak memory in bytes.
fn peak_memory(scene: &Scene) -> u64 {
    let (run, taken) = measured(&scene.command(&[]));
    run.expect(0);
    taken.memory
}

#[test]
fn a_huge_transaction_takes_little_memory() {
    let scene = Scene::new();
    let master_size = |path: &Path| fs::metadata(path).unwrap().len();
    sparse_master(&scene.master, 3 * GIB);
    let copying = peak_memory(&scene);
    assert_eq!(master_size(&scene.slave), master_size(&scene.master));
    fs::remove_file(&scene.slave).unwrap();
    fs::remove_file(scene.beside(".fssync")).unwrap();

    sparse_master(&scene.master, 1000);
    scene.expect("full-copy");
    append_sparse(&scene.master, 3 * GIB, u64::MAX >> 1);
    let appending = peak_memory(&scene);
    assert_eq!(master_size(&scene.slave), master_size(&scene.master));
    assert!(copying <= 32 << 20, "{copying} bytes to copy");
    assert!(appending <= 32 << 20, "{appending} bytes to append");
    let found = Zodb::start().check(&scene.slave);
    assert_eq!(found["position"], master_size(&scene.master));
}

/// Starts a pass, and waits until a file has this size.
fn start_and_wait(scene: &Scene, file: &Path, size: u64) -> Child {
    let mut command = fssync();
    command
        .args([&scene.master, &scene.slave])
        .stderr(Stdio::piped());
    let child = spawn(&mut command);
    let started = Instant::now();
    while fs::metadata(file).map_or(0, |found| found.len()) < size {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "nothing is written"
        );
        thread::sleep(Duration::from_millis(1));
    }
    child
}

/// Sends a signal. The pass must end with exit code 1 within seconds.
fn interrupt(child: Child, signal: Signal) {
    let pid = Pid::from_child(&child);
    let started = Instant::now();
    kill_process(pid, signal).unwrap();
    let output = child.wait_with_output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("interrupted by a signal"), "{log}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_copy_that_a_signal_interrupts_is_resumed_by_the_next_pass() {
    for signal in [Signal::TERM, Signal::INT] {
        let scene = Scene::new();
        let tids = 0x7000_0000_0000_0000..;
        sparse_master(&scene.master, 1 << 20);
        for tid in tids.take(32) {
            append_sparse(&scene.master, 32 << 20, tid);
        }
        let tmp = scene.beside(".fssync-tmp");
        interrupt(start_and_wait(&scene, &tmp, 64 << 20), signal);
        assert!(tmp.exists());
        assert!(!scene.slave.exists());
        scene.assert_documented_names();
        let next = scene.pass(&[]).expect(0);
        assert!(next.stderr.contains("resuming the copy"), "{next:?}");
        let copied = next.report()["bytes"].as_u64().expect("bytes");
        assert!(copied < (1 << 30) - (16 << 20), "{next:?}");
        assert_eq!(
            fs::metadata(&scene.slave).unwrap().len(),
            fs::metadata(&scene.master).unwrap().len()
        );
    }
}

#[test]
fn a_signal_during_a_full_copy_leaves_the_old_slave() {
    for signal in [Signal::TERM, Signal::INT] {
        let scene = Scene::synced(History::get());
        replace(&scene.master, &History::get().before);
        append_sparse(&scene.master, 4 * GIB, u64::MAX >> 1);
        let tmp = scene.beside(".fssync-tmp");
        let mut bytes = fs::read(&scene.slave).unwrap();
        bytes.truncate(2);
        fs::write(&scene.slave, &bytes).unwrap();
        interrupt(start_and_wait(&scene, &tmp, 10 << 20), signal);
        assert!(tmp.exists(), "the next pass resumes it");
        assert!(fs::read(&scene.slave).unwrap() == bytes);
        scene.assert_documented_names();
    }
}

#[test]
fn a_signal_during_an_append_leaves_the_slave_unchanged() {
    for signal in [Signal::TERM, Signal::INT] {
        let scene = Scene::synced(History::get());
        append_sparse(&scene.master, 4 * GIB, u64::MAX >> 1);
        interrupt(start_and_wait(&scene, &scene.slave, 10 << 20), signal);
        assert!(fs::read(&scene.slave).unwrap() == History::get().before);
        assert_opens(&scene, History::get().before.len());
        scene.assert_documented_names();
    }
}

#[test]
fn a_test_that_mounts_leaves_no_directory() {
    let directory = tempfile::tempdir().unwrap();
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.args([
        "--exact",
        "faults::an_append_that_fills_the_disk_leaves_the_slave_unchanged",
    ]);
    let output = must(test.env("TMPDIR", directory.path()));
    let message = String::from_utf8_lossy(&output.stdout);
    assert!(message.contains("1 passed"), "{message}");
    assert_eq!(names(directory.path()), [""; 0]);
}
