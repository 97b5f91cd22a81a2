//! What `fssync off` promises (Law 4), whatever a pass is in the midst of: a
//! master that hangs, a full write load, any step; and a crash of its own.

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

/// The contract says that `off` returns within a second; the machine may be busy.
const AT_ONCE: Duration = Duration::from_secs(2);

/// How far into the big transaction of [`Work::scene`] the master answers.
const ANSWERED_LEN: u64 = 5 * 1024 * 1024;

/// What a pass is in the midst of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Append,
    FullCopy,
}

impl Work {
    const BOTH: [Self; 2] = [Self::Append, Self::FullCopy];

    /// A slave in sync with what the master was; the master went on, and ends in
    /// a big transaction.
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

    /// What a pass writes to.
    fn written(self, scene: &Scene) -> PathBuf {
        match self {
            Self::Append => scene.slave.clone(),
            Self::FullCopy => scene.beside(".fssync-tmp"),
        }
    }
}

/// A process of the test's, killed when it is dropped.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null());
        Self(spawn(command.stdout(Stdio::null()).stderr(Stdio::null())))
    }

    /// Waits for the end of a pass that was switched off; a watch is given some
    /// time to do harm, and is ended.
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

    /// Waits for its end; returns the exit code.
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

/// A pass that is in the midst of something, and gets no answer any more.
struct Hanging {
    work: Work,
    /// Whether a watch makes it.
    stays: bool,
    /// Dropped first: it lets go of the pass.
    served: Served,
    pass: Running,
    scene: Scene,
}

impl Hanging {
    /// Starts a pass and waits until it hangs. `arguments` says how the master is
    /// reached, from where it is served.
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

    /// Switches off; ZODB opens the slave at once and commits. Then the pass is
    /// woken up, where it needs it to end, and what it does is harmless.
    fn assert_is_harmless(mut self, wake: impl FnOnce(&Self)) {
        let before = &History::get().before;
        let scene = &self.scene;
        let started = Instant::now();
        let off = flip("off", &scene.slave).expect(0);
        assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
        let was_cut = off.stdout.contains("an unfinished append of");
        assert_eq!(was_cut, self.work == Work::Append, "{off:?}");
        assert!(fs::read(&scene.slave).unwrap() == *before);
        let mut zodb = Zodb::start();
        let serving = commit(&mut zodb, scene, before.len());
        let left = fs::read(scene.beside(".fssync")).unwrap();

        wake(&self);
        self.pass.expect_off(self.stays);
        let scene = &self.scene;
        assert!(fs::read(&scene.slave).unwrap() == serving, "written to");
        assert!(
            fs::read(scene.beside(".fssync")).unwrap() == left,
            "it notes nothing any more"
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

/// ZODB opens the slave at the first try and finds it to end there; it commits,
/// and has it open still. Returns the slave's bytes.
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

/// Switching on is refused, as is a pass once it is forced; the slave stays.
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
fn off_makes_way_while_a_mounted_master_never_answers() {
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

/// The processes that bring a master here: `ssh`, or what it started over there.
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

/// Processes that are stopped, until this is dropped.
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

/// A pass is in the midst of something; then one end of its connection stops.
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
fn off_makes_way_while_ssh_is_stopped() {
    assert_harmless_while_stopped(true);
}

#[test]
fn off_makes_way_while_the_other_end_is_stopped() {
    assert_harmless_while_stopped(false);
}

#[test]
fn off_leaves_zodbs_lock_alone_where_there_is_nothing_to_cut() {
    let scene = Scene::synced(History::get());
    let lock = scene.beside(".lock");
    fs::remove_file(&lock).unwrap();
    flip("off", &scene.slave).expect(0);
    assert!(
        !lock.exists(),
        "a ZEO that is just starting would have met it"
    );
}

/// What is left of a tail between the two cuts is still there, however it is touched.
#[test]
fn off_says_so_where_somebody_writes_between_its_cuts() {
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
fn off_wins_over_an_on_that_comes_between() {
    let scene = Scene::synced(History::get());
    let step = Holder::of(&scene.beside(".fssync-step"));
    let mut off = Running::start(fssync().arg("off").arg(&scene.slave));
    let switch = scene.beside(".fssync-switch");
    wait_for("switch", || {
        fs::read(&switch).is_ok_and(|said| said == b"SYNCING=0\n")
    });
    fs::write(&switch, "SYNCING=1\n").unwrap();
    drop(step);
    assert_eq!(off.code(), 0);
    scene.pass(&[]).expect(10);
}

#[test]
fn an_on_that_comes_while_off_is_at_work_waits_for_it() {
    let scene = Scene::synced(History::get());
    let step = Holder::of(&scene.beside(".fssync-step"));
    let mut off = Running::start(fssync().arg("off").arg(&scene.slave));
    let switch = scene.beside(".fssync-switch");
    let says = |line: &str| fs::read_to_string(&switch).is_ok_and(|said| said == line);
    wait_for("switch", || says("SYNCING=0\n"));
    let mut on = Running::start(fssync().arg("on").arg(&scene.slave));
    thread::sleep(Duration::from_millis(100));
    assert!(says("SYNCING=0\n"), "off is not done");
    drop(step);
    assert_eq!((off.code(), on.code()), (0, 0));
}

#[test]
fn off_needs_no_room_on_the_disk() {
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
fn off_needs_no_room_in_its_owners_quota() {
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
fn off_does_without_what_it_cannot_read() {
    let scene = append_killed_at_sync(2);
    let sidecar = scene.beside(".fssync");
    fs::remove_file(&sidecar).unwrap();
    fs::create_dir(&sidecar).unwrap();
    let off = flip("off", &scene.slave).expect(0);
    assert!(off.stderr.contains("Data.fs.fssync"), "{off:?}");
    commit(&mut Zodb::start(), &scene, History::get().before.len());
}

#[test]
fn off_says_so_where_the_last_transaction_is_not_known_at_once() {
    let scene = Scene::new();
    sparse_master(&scene.slave, 1 << 33);
    let started = Instant::now();
    let off = flip("off", &scene.slave).expect(0);
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    assert!(off.stdout.contains("is not known"), "{off:?}");
}

/// The calls with which `off` does what it does.
const CALLS: [&str; 6] = [
    "openat",
    "pwrite64",
    "ftruncate",
    "fsync",
    "fdatasync",
    "flock",
];

#[test]
fn an_off_that_is_killed_at_any_point_leaves_a_slave_that_zodb_opens() {
    let before = &History::get().before;
    let mut zodb = Zodb::start();
    for call in CALLS {
        for nth in 1.. {
            let scene = append_killed_at_sync(2);
            let kill = format!("inject={call}:signal=SIGKILL:when={nth}");
            let mut off = strace(&["-e", &kill], &near(&scene));
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
                "{call} {nth}: what is ours is cut"
            );
        }
    }
}

/// The files that `off` has to do with.
fn near(scene: &Scene) -> Vec<PathBuf> {
    let directory = fs::canonicalize(scene.slave.parent().unwrap()).unwrap();
    let suffixes = ["", ".fssync", ".fssync-switch", ".fssync-step", ".lock"];
    let files = suffixes.map(|suffix| directory.join(format!("Data.fs{suffix}")));
    [files.to_vec(), vec![directory]].concat()
}
