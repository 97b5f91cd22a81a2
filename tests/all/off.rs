//! The promise of `fssync off` (Law 4), whatever a pass is doing: a master that hangs, a full
//! write load, any step; and an `off` that is killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::fuse::Served;
use crate::sshd::Sshd;
use crate::support::{
    History, Holder, Run, Scene, Zodb, append_killed_at_sync, append_sparse, fssync, must, replace,
    require_root, rewrite_end, run, sparse_master, spawn, strace, tool, wait_for,
};

/// `off` must return within a second; the test machine may be busy.
const AT_ONCE: Duration = Duration::from_secs(2);

/// The master answers reads up to this offset in the big transaction of [`Work::scene`].
const ANSWERED_LEN: u64 = 5 * 1024 * 1024;

/// The work of a pass that is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Append,
    FullCopy,
}

impl Work {
    const BOTH: [Self; 2] = [Self::Append, Self::FullCopy];

    /// A slave that was in sync. The master has new transactions, and ends with a big one.
    fn scene(self) -> Scene {
        let history = History::get();
        let scene = Scene::synced(history);
        match self {
            Self::Append => rewrite_end(&scene.master, &history.after),
            Self::FullCopy => replace(&scene.master, &history.packed),
        }
        append_sparse(&scene.master, 2 * ANSWERED_LEN, 0x0500_0000_0000_0000);
        scene
    }

    /// The file that a pass writes.
    fn written(self, scene: &Scene) -> PathBuf {
        match self {
            Self::Append => scene.slave.clone(),
            Self::FullCopy => scene.beside(".fssync-tmp"),
        }
    }
}

/// A process that is killed when this is dropped.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null());
        Self(spawn(command.stdout(Stdio::null()).stderr(Stdio::null())))
    }

    /// Waits for the end of a pass that was switched off. A watch gets some time in which it
    /// could do harm, and is ended.
    fn expect_off(&mut self, stays: bool) {
        if stays {
            thread::sleep(Duration::from_millis(500));
            let pid = Pid::from_child(&self.0);
            kill_process(pid, Signal::TERM).expect("it runs");
            self.0.wait().expect("its status");
        } else {
            assert_eq!(self.code(), 10);
        }
    }

    /// Waits for the end; returns the exit code.
    fn code(&mut self) -> i32 {
        let status = self.0.wait().expect("its status");
        status.code().expect("an exit code")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A pass in the middle of its work whose master no longer answers.
struct Hanging {
    work: Work,
    /// Whether a watch makes the pass.
    stays: bool,
    /// Dropped first, so that the pass can end.
    served: Served,
    pass: Running,
    scene: Scene,
}

impl Hanging {
    /// Starts a pass and waits until it hangs. `arguments` returns the options and the master
    /// for the directory of the FUSE mount.
    fn start(work: Work, stays: bool, arguments: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let scene = work.scene();
        let served = Served::directory(scene.master.parent().expect("a directory"));
        let start = fs::metadata(&scene.master).unwrap().len() - 2 * ANSWERED_LEN;
        served.stop_answering_at(start + ANSWERED_LEN);
        let mut command = fssync();
        command.args(stays.then_some("--watch"));
        command.args(arguments(&served.file("Data.fs")));
        let hanging = Self {
            work,
            stays,
            served,
            pass: Running::start(command.arg(&scene.slave)),
            scene,
        };
        hanging.served.wait_until_stuck();
        wait_for("pass that writes what it reads", || {
            let written = fs::metadata(work.written(&hanging.scene));
            written.is_ok_and(|found| found.len() > start + ANSWERED_LEN / 2)
        });
        hanging
    }

    /// Switches syncing off. ZODB must open the slave at once, and commits. Then `wake` lets
    /// the pass continue, which must not do any harm.
    fn assert_is_harmless(mut self, wake: impl FnOnce(&Self)) {
        let before = &History::get().before;
        let scene = &self.scene;
        let started = Instant::now();
        let off = flip("off", &scene.slave).expect(0);
        assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
        let was_truncated = off.stdout.contains("an unfinished append of");
        assert_eq!(was_truncated, self.work == Work::Append, "{off:?}");
        assert!(fs::read(&scene.slave).unwrap() == *before);
        let mut zodb = Zodb::start();
        let serving = commit(&mut zodb, scene, before.len());
        let left = fs::read(scene.beside(".fssync")).unwrap();

        wake(&self);
        self.pass.expect_off(self.stays);
        let scene = &self.scene;
        assert!(
            fs::read(&scene.slave).unwrap() == serving,
            "the slave was written"
        );
        assert!(
            fs::read(scene.beside(".fssync")).unwrap() == left,
            "the sidecar was written"
        );
        assert!(!scene.beside(".fssync-tmp").exists());
        close(&mut zodb);
        assert_refused(scene, &serving);
    }
}

/// `fssync off` or `fssync on`.
fn flip(verb: &str, slave: &Path) -> Run {
    run(fssync().arg(verb).arg(slave))
}

/// ZODB opens the slave at the first attempt, at this position, and commits. The slave stays
/// open. Returns its bytes.
fn commit(zodb: &mut Zodb, scene: &Scene, position: usize) -> Vec<u8> {
    let open = json!({"cmd": "open", "name": "s", "path": scene.slave});
    assert_eq!(zodb.call(&open)["position"], position);
    zodb.call(&json!({"cmd": "commit", "name": "s", "description": "only here"}));
    fs::read(&scene.slave).unwrap()
}

fn close(zodb: &mut Zodb) {
    let closed = zodb.call(&json!({"cmd": "close", "name": "s"}));
    assert_eq!(closed["warnings"], Value::from([0; 0]));
}

/// Fails unless `on` is refused, and a pass after `on --force` too. The slave must not change.
fn assert_refused(scene: &Scene, serving: &[u8]) {
    scene.pass(&[]).expect(10);
    flip("on", &scene.slave).expect(20);
    scene.pass(&[]).expect(10);
    run(fssync().args(["on", "--force"]).arg(&scene.slave)).expect(0);
    scene.pass(&[]).expect(20);
    assert!(
        fs::read(&scene.slave).unwrap() == serving,
        "nothing is lost"
    );
}

fn on_a_path(master: &Path) -> Vec<String> {
    vec!["--timeout=60".to_owned(), master.display().to_string()]
}

#[test]
fn off_works_while_a_mounted_master_never_answers() {
    for work in Work::BOTH {
        for stays in [false, true] {
            let hanging = Hanging::start(work, stays, on_a_path);
            hanging.assert_is_harmless(|hanging| hanging.served.answer());
        }
    }
}

fn through_ssh(master: &Path) -> Vec<String> {
    let binary = env!("CARGO_BIN_EXE_fssync");
    let sshd = Sshd::get();
    [
        "--timeout",
        "60",
        "--remote-fssync",
        binary,
        "-e",
        &sshd.rsh(""),
    ]
    .into_iter()
    .map(str::to_owned)
    .chain([sshd.url(master)])
    .collect()
}

/// The processes of a connection: `ssh`, or the program that it started at the other end.
fn connecting(master: &Path, is_ssh: bool) -> Vec<Pid> {
    let command = format!("serve -- {}", master.display());
    let found = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let is_it = line.contains(&command) && line.starts_with("ssh ") == is_ssh;
        is_it.then(|| Pid::from_raw(pid))?
    });
    found.collect()
}

/// Processes that are stopped until this is dropped.
struct Stopped(Vec<Pid>);

impl Stopped {
    fn new(pids: Vec<Pid>) -> Self {
        assert!(!pids.is_empty());
        let stopped = Self(pids);
        stopped.signal(Signal::STOP);
        stopped
    }

    fn signal(&self, signal: Signal) {
        for pid in &self.0 {
            // It may have ended.
            let _ = kill_process(*pid, signal);
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
    }
}

/// Stops one end of the connection of a pass that is in the middle of its work.
fn assert_harmless_while_stopped(is_ssh: bool) {
    for work in Work::BOTH {
        for stays in [false, true] {
            let hanging = Hanging::start(work, stays, through_ssh);
            let master = hanging.served.file("Data.fs");
            let _stopped = Stopped::new(connecting(&master, is_ssh));
            hanging.served.answer();
            hanging.assert_is_harmless(|_| ());
        }
    }
}

#[test]
fn off_works_while_ssh_is_stopped() {
    assert_harmless_while_stopped(true);
}

#[test]
fn off_works_while_the_other_end_is_stopped() {
    assert_harmless_while_stopped(false);
}

#[test]
fn off_does_not_take_zodbs_lock_if_there_is_no_tail() {
    let scene = Scene::synced(History::get());
    let lock = scene.beside(".lock");
    fs::remove_file(&lock).unwrap();
    flip("off", &scene.slave).expect(0);
    assert!(!lock.exists(), "a ZEO that is starting could have failed");
}

/// Another process writes to the slave between the two truncations. `off` then leaves the rest
/// of the tail.
#[test]
fn off_reports_a_write_between_its_truncations() {
    let scene = append_killed_at_sync(2);
    let slave = fs::canonicalize(&scene.slave).unwrap();
    let left = || fs::metadata(&slave).unwrap().len() - History::get().before.len() as u64;
    let slowly = "inject=fdatasync:delay_enter=2000000:when=1";
    let mut off = strace(&["-e", slowly], std::slice::from_ref(&slave));
    off.arg("off").arg(&scene.slave);
    let off = thread::scope(|scope| {
        let off = scope.spawn(|| run(&mut off));
        wait_for("first cut", || left() == 22);
        while !off.is_finished() {
            let file = fs::File::options().write(true).open(&slave).unwrap();
            file.set_modified(SystemTime::now()).unwrap();
            thread::sleep(Duration::from_millis(10));
        }
        off.join().unwrap()
    });
    let off = off.expect(0);
    assert_eq!(left(), 22, "less than a header");
    assert!(off.stderr.contains("left to ZODB"), "{off:?}");
}

#[test]
fn off_overrides_an_on_that_is_written_meanwhile() {
    let scene = Scene::synced(History::get());
    let step = Holder::of(&scene.beside(".fssync-step"));
    let mut off = Running::start(fssync().arg("off").arg(&scene.slave));
    let switch = scene.beside(".fssync-switch");
    wait_for("switch", || {
        fs::read(&switch).is_ok_and(|content| content == b"SYNCING=0\n")
    });
    fs::write(&switch, "SYNCING=1\n").unwrap();
    drop(step);
    assert_eq!(off.code(), 0);
    scene.pass(&[]).expect(10);
}

/// No pass was made for such a slave, so the pass asks the master before it takes the pass lock.
#[test]
fn off_ends_a_first_pass_that_waits_for_the_master() {
    let scene = Scene::with_master("site");
    fs::copy(&scene.master, &scene.slave).unwrap();
    let asked = scene.directory.path().join("asked");
    let rsh = format!("sh -c 'touch {}; exec sleep 60'", asked.display());
    let mut command = fssync();
    command.args(["-e", &rsh, "nowhere:/Data.fs"]);
    let mut pass = Running::start(command.arg(&scene.slave));
    wait_for("question", || asked.exists());
    run(fssync().arg("off").arg(&scene.slave)).expect(0);
    assert_eq!(pass.code(), 10);
    assert!(!scene.beside(".fssync-pass").exists());
}

#[test]
fn an_on_waits_for_an_off_in_progress() {
    let scene = Scene::synced(History::get());
    let step = Holder::of(&scene.beside(".fssync-step"));
    let mut off = Running::start(fssync().arg("off").arg(&scene.slave));
    let switch = scene.beside(".fssync-switch");
    let says = |line: &str| fs::read_to_string(&switch).is_ok_and(|content| content == line);
    wait_for("switch", || says("SYNCING=0\n"));
    let mut on = Running::start(fssync().arg("on").arg(&scene.slave));
    thread::sleep(Duration::from_millis(100));
    assert!(says("SYNCING=0\n"), "off is not done");
    drop(step);
    assert_eq!((off.code(), on.code()), (0, 0));
}

#[test]
fn off_needs_no_free_space() {
    require_root();
    let scene = Scene::synced(History::get());
    let directory = scene.directory.path().join("full");
    fs::create_dir(&directory).unwrap();
    must(
        tool("mount", "mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
            .arg(&directory),
    );
    let slave = directory.join("Data.fs");
    fs::copy(&scene.slave, &slave).unwrap();
    let filled = fs::write(directory.join("filler"), vec![1; 1 << 20]);
    let switch = fs::write(directory.join("Data.fs.fssync-switch"), "SYNCING=1\n");
    let off = flip("off", &slave);
    let pass = run(fssync().arg(&scene.master).arg(&slave));
    must(Command::new("umount").arg("-l").arg(&directory));
    assert!(filled.is_err() && switch.is_err(), "the disk is full");
    off.expect(0);
    pass.expect(10);
}

#[test]
fn off_needs_no_space_in_the_quota() {
    for error in ["ENOSPC", "EDQUOT"] {
        let scene = Scene::synced(History::get());
        let switch = fs::canonicalize(scene.slave.parent().unwrap())
            .unwrap()
            .join("Data.fs.fssync-switch");
        let full = format!("inject=pwrite64:error={error}");
        let mut off = strace(&["-e", &full], &[switch]);
        run(off.arg("off").arg(&scene.slave)).expect(0);
        scene.pass(&[]).expect(10);
    }
}

#[test]
fn off_works_with_an_unreadable_sidecar() {
    let scene = append_killed_at_sync(2);
    let sidecar = scene.beside(".fssync");
    fs::remove_file(&sidecar).unwrap();
    fs::create_dir(&sidecar).unwrap();
    let off = flip("off", &scene.slave).expect(0);
    assert!(off.stderr.contains("Data.fs.fssync"), "{off:?}");
    commit(&mut Zodb::start(), &scene, History::get().before.len());
}

#[test]
fn off_reports_if_finding_the_last_transaction_takes_too_long() {
    let scene = Scene::new();
    sparse_master(&scene.slave, 1 << 33);
    let started = Instant::now();
    let off = flip("off", &scene.slave).expect(0);
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    assert!(off.stdout.contains("is unknown"), "{off:?}");
}

/// The system calls that `off` makes.
const CALLS: [&str; 6] = [
    "openat",
    "pwrite64",
    "ftruncate",
    "fsync",
    "fdatasync",
    "flock",
];

#[test]
fn an_off_killed_at_any_call_leaves_a_slave_that_zodb_opens() {
    let before = &History::get().before;
    let mut zodb = Zodb::start();
    for call in CALLS {
        for nth in 1.. {
            let scene = append_killed_at_sync(2);
            let kill = format!("inject={call}:signal=SIGKILL:when={nth}");
            let mut off = strace(&["-e", &kill], &files_of_off(&scene));
            let ended = run(off.arg("off").arg(&scene.slave)).code;
            zodb.assert_prefix_of(before, &scene.slave);
            let pass = scene.pass(&[]).code;
            assert!([0, 10].contains(&pass), "{call} {nth}: {pass}");
            if ended == 0 {
                assert_eq!(pass, 10, "{call} {nth}");
                assert!(nth > 1, "off makes no call of {call}");
                break;
            }
            flip("off", &scene.slave).expect(0);
            scene.pass(&[]).expect(10);
            let bytes = fs::read(&scene.slave).unwrap();
            assert!(
                bytes == *before || pass == 0,
                "{call} {nth}: fssync's own tail is truncated"
            );
        }
    }
}

/// The files that `off` uses.
fn files_of_off(scene: &Scene) -> Vec<PathBuf> {
    let directory = fs::canonicalize(scene.slave.parent().unwrap()).unwrap();
    let suffixes = ["", ".fssync", ".fssync-switch", ".fssync-step", ".lock"];
    let files = suffixes.map(|suffix| directory.join(format!("Data.fs{suffix}")));
    [files.to_vec(), vec![directory]].concat()
}
