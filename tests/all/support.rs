//! What the tests share: a virtual environment with ZODB, a process that drives
//! it, and the program under test.

use std::any::Any;
use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fssync::filestorage::index::pickle::read_position;
use fssync::io::digest::Digest;
use fssync::io::progress::Silent;
use fssync::pass::apply::Tuning;
use fssync::pass::{self, Job};
use fssync::plan::Policy;
use fssync::plan::outcome::Outcome;
use fssync::slave::paths::SlavePaths;
use fssync::slave::step::Slave;
use fssync::slave::switch::Switches;
use fssync::source::path::MountedPath;
use fssync::source::{
    Deadline, DirectoryEntry, Error, Heartbeat, Master, MasterStat, Source, Surroundings,
    Transactions,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::environment;
use crate::sshd::Sshd;

/// A file of the project's.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The Python of the virtual environment; see [`environment::python`].
pub fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        environment::python(|command| {
            must(command);
        })
    })
}

/// Held while a process is started, and while a pass is made in this one: a lock
/// that a pass lets go stays taken by a process that is just being started from
/// another thread, until that has closed what it inherits.
static FORKS: Mutex<()> = Mutex::new(());

/// No process is started through this module until what this returns is
/// dropped, but with [`run_in_a_pass`].
pub fn without_forks() -> MutexGuard<'static, ()> {
    FORKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a pass in this process.
pub fn pass_here(job: &Job) -> Outcome {
    let _quiet = without_forks();
    pass::pass(job, &Silent)
}

/// Starts a process.
pub fn spawn(command: &mut Command) -> Child {
    let _quiet = without_forks();
    command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"))
}

/// Runs a command to its end.
fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null());
    let child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    child.wait_with_output().expect("its output")
}

/// A command for a program that the tests drive. Where it is missing, and this is
/// root on a Debian, its package is installed; elsewhere the test fails and says
/// what to install.
pub fn tool(program: &str, package: &str) -> Command {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let is_there = || {
        let paths = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&paths)
            .chain([PathBuf::from("/usr/sbin")])
            .any(|path| path.join(program).exists())
    };
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if !is_there() {
        let script = format!(
            "apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
             apt-get install -y -qq --no-install-recommends {package}"
        );
        let installed = Command::new("sh").args(["-c", &script]).output();
        assert!(
            installed.is_ok_and(|output| output.status.success()) && is_there(),
            "{program} is missing and could not be installed: install {package}"
        );
    }
    Command::new(program)
}

/// Runs a command that must succeed.
pub fn must(command: &mut Command) -> Output {
    let output = output(command);
    assert!(
        output.status.success(),
        "{command:?} failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// A process that does to FileStorages what it is told; see
/// `tests/zodb/agent.py`.
pub struct Zodb {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Zodb {
    pub fn start() -> Self {
        let mut command = Command::new(python());
        command.arg(project("tests/zodb/agent.py"));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        let mut process = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        Self {
            commands: process.stdin.take().expect("its standard input"),
            answers: BufReader::new(process.stdout.take().expect("its standard output")),
            process,
        }
    }

    /// The process that has ZODB's locks.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Gives a command, such as `json!({"cmd": "commit", "name": "m"})`;
    /// returns the answer, be it a failure.
    pub fn attempt(&mut self, command: &Value) -> Value {
        writeln!(self.commands, "{command}").expect("the agent listens");
        let mut answer = String::new();
        self.answers
            .read_line(&mut answer)
            .expect("the agent answers");
        serde_json::from_str(&answer)
            .unwrap_or_else(|error| panic!("{command}: {answer:?}: {error}"))
    }

    /// Gives a command that must succeed.
    pub fn call(&mut self, command: &Value) -> Value {
        let answer = self.attempt(command);
        assert_eq!(answer["ok"], true, "{command}: {answer}");
        answer
    }

    /// Opens the slave as "s", again and again as a supervisor would where ZODB
    /// meets our lock; returns the answer.
    pub fn open_as_supervised(&mut self, slave: &Path) -> Value {
        let open = json!({"cmd": "open", "name": "s", "path": slave});
        let mut answer = Value::Null;
        wait_for("slave that ZODB can open", || {
            answer = self.attempt(&open);
            answer["ok"] == true || {
                let error = answer["error"].as_str().expect("an error");
                assert!(error.contains("LockError"), "{error}");
                false
            }
        });
        answer
    }

    /// What ZODB finds in a file, read from its start: `position`, `last_tid`,
    /// `objects`, `warnings`.
    pub fn check(&mut self, path: &Path) -> Value {
        self.call(&json!({"cmd": "check", "path": path}))
    }

    /// The index that ZODB's scan of a file gives, as ZODB saves it, and its
    /// position.
    pub fn index_of(&mut self, path: &Path) -> (Vec<u8>, u64) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let to = directory.path().join("by-zodb.index");
        let answer = self.call(&json!({"cmd": "save_index", "path": path, "to": to}));
        (fs::read(to).unwrap(), answer["position"].as_u64().unwrap())
    }

    /// Fails unless the index beside a slave, if there is one, is ZODB's own of
    /// some position of the slave's, and ZODB uses it. Returns the position.
    #[track_caller]
    pub fn assert_index(&mut self, slave: &Path) -> Option<u64> {
        let index = fs::read(format!("{}.index", slave.display())).ok()?;
        let position = read_position(&index[..]).expect("a position");
        let bytes = fs::read(slave).unwrap();
        assert!(
            position <= bytes.len() as u64,
            "it is not ahead of the file"
        );
        let directory = tempfile::tempdir().expect("a temporary directory");
        let start = directory.path().join("Data.fs");
        fs::write(&start, &bytes[..position as usize]).unwrap();
        let (theirs, of) = self.index_of(&start);
        assert_eq!(of, position, "a transaction ends there");
        assert!(theirs == index, "it is ZODB's of {position}");
        let opened = self.call(&json!({"cmd": "check_open", "path": slave}));
        assert_eq!(opened["used_index"], true, "{opened}");
        Some(position)
    }

    /// Fails unless ZODB opens the slave and finds in it, byte by byte, what it
    /// finds committed in the master. The master may have a vote under way.
    pub fn assert_in_sync(&mut self, master: &Path, slave: &Path) {
        let (theirs, ours) = (self.check(master), self.check(slave));
        assert_eq!(ours["position"], theirs["position"], "{ours} {theirs}");
        let position = theirs["position"].as_u64().expect("a position") as usize;
        let (master, slave) = (fs::read(master).unwrap(), fs::read(slave).unwrap());
        assert_eq!(
            slave.len(),
            position,
            "the slave ends with its last transaction"
        );
        assert!(
            slave == master[..position],
            "the slave's bytes are the master's"
        );
    }

    /// Fails unless ZODB opens the slave and finds a prefix of the master's
    /// committed history in it.
    pub fn assert_prefix(&mut self, master: &Path, slave: &Path) {
        let committed = self.check(master)["position"].as_u64().unwrap() as usize;
        self.assert_prefix_of(&fs::read(master).unwrap()[..committed], slave);
    }

    /// Fails unless ZODB opens the slave and finds a prefix of this history in
    /// it.
    pub fn assert_prefix_of(&mut self, history: &[u8], slave: &Path) {
        let position = self.check(slave)["position"].as_u64().unwrap() as usize;
        let slave = fs::read(slave).unwrap();
        assert!(history.starts_with(&slave[..position]), "a prefix");
    }
}

impl Drop for Zodb {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The program under test.
pub fn fssync() -> Command {
    Command::new(env!("CARGO_BIN_EXE_fssync"))
}

/// How a run of the program ended.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// The object that `--json` printed.
    pub fn report(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Fails unless the run ended with this code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Run {
    Run::of(output(command))
}

/// What a run of the program took.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// The time of processors, in seconds, its own and the kernel's for it.
    pub cpu_secs: f64,
    /// The most memory that it ever had, in bytes.
    pub memory: u64,
}

/// Runs a command to its end, and says what that took. One that takes a minute of
/// processor time is killed.
pub fn measured(command: &Command) -> (Run, Taken) {
    let measure = "import json, resource, subprocess, sys\n\
                   resource.setrlimit(resource.RLIMIT_CPU, (60, 60))\n\
                   code = subprocess.call(sys.argv[2:])\n\
                   used = resource.getrusage(resource.RUSAGE_CHILDREN)\n\
                   taken = [used.ru_utime + used.ru_stime, used.ru_maxrss]\n\
                   json.dump(taken, open(sys.argv[1], 'w'))\n\
                   sys.exit(code % 256)";
    let directory = tempfile::tempdir().expect("a temporary directory");
    let to = directory.path().join("taken");
    let mut measuring = Command::new(python());
    measuring.args(["-c", measure]).arg(&to);
    measuring
        .arg(command.get_program())
        .args(command.get_args());
    let run = run(&mut measuring);
    let taken = fs::read(to).unwrap_or_else(|error| panic!("{error}: {run:?}"));
    let (cpu_secs, kilobytes): (f64, u64) = serde_json::from_slice(&taken).expect("JSON");
    let memory = kilobytes * 1024;
    (run, Taken { cpu_secs, memory })
}

/// The same from the hook of a pass in this process.
pub fn run_in_a_pass(command: &mut Command) -> Run {
    Run::of(command.stdin(Stdio::null()).output().expect("it runs"))
}

/// How a pass reads its master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// On a mounted path.
    Path,
    /// Through a real sshd on loopback.
    Ssh,
}

impl Transport {
    /// Every decision is the same over each of them.
    pub const BOTH: [Self; 2] = [Self::Path, Self::Ssh];
}

/// A master and a slave in directories of their own.
pub struct Scene {
    pub directory: TempDir,
    pub master: PathBuf,
    pub slave: PathBuf,
    transport: Transport,
}

impl Scene {
    /// Neither file is there yet.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for side in ["master", "slave"] {
            fs::create_dir(directory.path().join(side)).expect("a directory");
        }
        Self {
            master: directory.path().join("master/Data.fs"),
            slave: directory.path().join("slave/Data.fs"),
            directory,
            transport: Transport::Path,
        }
    }

    /// Passes read the master so.
    pub fn over(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }

    /// The master is a copy of a fixture.
    pub fn with_master(fixture: &str) -> Self {
        let scene = Self::new();
        fs::copy(project(&format!("fixtures/{fixture}.fs")), &scene.master).expect("the fixture");
        scene
    }

    /// One pass, with more options, that prints its report.
    pub fn pass(&self, options: &[&str]) -> Run {
        run(self.command(options).arg("--json"))
    }

    /// The program with these options, its master and its slave.
    pub fn command(&self, options: &[&str]) -> Command {
        let mut command = fssync();
        command.args(options).args(self.reach());
        command.args([self.typed_master(), self.slave.clone()]);
        command
    }

    /// `fssync status` of the slave, with these options.
    pub fn status(&self, options: &[&str]) -> Command {
        let mut command = fssync();
        command.arg("status").args(options).arg(&self.slave);
        command
    }

    /// `fssync verify` of the slave, with these options.
    pub fn verify(&self, options: &[&str]) -> Command {
        let mut command = fssync();
        command.arg("verify").args(options).arg(&self.slave);
        command
    }

    /// A status against its master, with the object that it prints.
    pub fn status_against(&self) -> Run {
        let mut command = self.status(&["--json"]);
        command.args(self.reach());
        run(command.arg("--against").arg(self.typed_master()))
    }

    /// `fssync verify` of the slave against its master, with these options, and the
    /// object that it prints.
    pub fn verify_against(&self, options: &[&str]) -> Run {
        let mut command = fssync();
        command.args(["verify", "--json"]).args(options);
        command.args(self.reach()).arg(&self.slave);
        run(command.arg("--against").arg(self.typed_master()))
    }

    /// The options with which the master is reached.
    fn reach(&self) -> &'static [&'static str] {
        static SSH: OnceLock<[&str; 4]> = OnceLock::new();
        match self.transport {
            Transport::Path => &[],
            Transport::Ssh => SSH.get_or_init(|| {
                let program = env!("CARGO_BIN_EXE_fssync");
                ["-e", Sshd::get().quick_rsh(), "--remote-fssync", program]
            }),
        }
    }

    /// What is typed for the master.
    fn typed_master(&self) -> PathBuf {
        self.typed(&self.master)
    }

    /// What is typed for a master with this path.
    pub fn typed(&self, master: &Path) -> PathBuf {
        match self.transport {
            Transport::Path => master.to_owned(),
            Transport::Ssh => Sshd::get().url(master).into(),
        }
    }

    /// One pass that must succeed with this action.
    #[track_caller]
    pub fn expect(&self, action: &str) -> Value {
        let report = self.pass(&[]).expect(0).report();
        assert_eq!(report["action"], action, "{report}");
        report
    }

    /// The slave is what a pass left when the master was `before`.
    pub fn synced(history: &History) -> Self {
        let scene = Self::new();
        fs::write(&scene.master, &history.before).expect("the master");
        scene.expect("full-copy");
        scene
    }

    /// Changes what the sidecar says.
    pub fn edit_sidecar(&self, edit: impl FnOnce(&mut Value)) {
        let path = self.beside(".fssync");
        let text = fs::read(&path).expect("the sidecar");
        let mut said = serde_json::from_slice(&text).expect("JSON");
        edit(&mut said);
        fs::write(&path, said.to_string()).expect("the sidecar");
    }

    /// Whether the sidecar contains the slave as a pass left it.
    pub fn was_left(&self) -> bool {
        let text = fs::read(self.beside(".fssync")).unwrap_or_default();
        let said: Value = serde_json::from_slice(&text).unwrap_or_default();
        said["left"].is_object()
    }

    /// Has ZODB scan for long behind the index, as the sidecar says.
    pub fn make_index_due(&self) {
        self.edit_sidecar(|said| said["index"]["records"]["data"] = json!(200_000));
    }

    /// A file beside the slave.
    pub fn beside(&self, suffix: &str) -> PathBuf {
        PathBuf::from(format!("{}{suffix}", self.slave.display()))
    }

    /// Fails if a name lies in the slave's directory that is not documented.
    pub fn assert_documented_names(&self) {
        for name in self.beside_slave() {
            let suffix = name
                .strip_prefix("Data.fs")
                .unwrap_or_else(|| panic!("{name}"));
            let known = [
                "",
                ".fssync",
                ".fssync-new",
                ".fssync-switch",
                ".fssync-ledger",
                ".fssync-verified",
                ".fssync-tmp",
                ".fssync-pass",
                ".fssync-step",
                ".lock",
                ".index",
                ".index.index_tmp",
                // ZODB's own, too: where it collects a transaction.
                ".tmp",
            ];
            assert!(
                known.contains(&suffix)
                    || suffix.starts_with(".diverged-")
                    || suffix.starts_with(".tr"),
                "{name} is no documented name"
            );
        }
    }

    /// The names in the slave's directory, sorted.
    pub fn beside_slave(&self) -> Vec<String> {
        names(self.slave.parent().expect("a directory"))
    }

    /// A pass to be made in this process, with a source of the test's.
    pub fn job(&self, source: impl Source + 'static, tuning: Tuning) -> Job {
        let interrupted = Arc::new(AtomicBool::new(false));
        let paths = SlavePaths::new(&self.slave).expect("a place for the slave");
        Job {
            master: self.master_of(source, Duration::from_secs(10), &interrupted),
            slave: Slave {
                switches: Switches::new(&paths, None),
                paths,
                interrupted,
            },
            policy: Policy::default(),
            tuning,
            dry_run: false,
            note_every: Duration::ZERO,
            index_waits: false,
        }
    }

    /// A master with a source of the test's, which is good for one worker.
    pub fn master_of(
        &self,
        source: impl Source + 'static,
        timeout: Duration,
        interrupted: &Arc<AtomicBool>,
    ) -> Master {
        let interrupted = Arc::clone(interrupted);
        let patience = Deadline::new(timeout, Heartbeat::default(), move || {
            interrupted.load(Ordering::Relaxed)
        });
        let source = Mutex::new(Some(Box::new(source) as Box<dyn Source>));
        let open = move || source.lock().unwrap().take().expect("one worker");
        Master::new(self.master.display().to_string(), patience, Box::new(open))
    }
}

/// A master's file at several times; see the fields.
pub struct History {
    /// What a first pass copies.
    pub before: Vec<u8>,
    /// The same with more transactions.
    pub after: Vec<u8>,
    /// `after` with one more that is voted.
    pub voted: Vec<u8>,
    /// `after`, packed; it still has the last transaction of `before`.
    pub packed: Vec<u8>,
    /// `after`, packed; it has that one no longer.
    pub packed_away: Vec<u8>,
}

impl History {
    /// The one that all tests share, made by ZODB.
    pub fn get() -> &'static Self {
        static HISTORY: OnceLock<History> = OnceLock::new();
        HISTORY.get_or_init(Self::make)
    }

    fn make() -> Self {
        let scene = Scene::new();
        let mut zodb = Zodb::start();
        let path = &scene.master;
        let mut then = |command: Value| {
            zodb.call(&command);
            fs::read(path).expect("the master")
        };
        let commit = |objects: u32, size: u32| {
            json!({"cmd": "commit", "name": "m", "objects": objects, "size": size,
                   "user": "editor", "description": "a page"})
        };
        then(json!({"cmd": "open", "name": "m", "path": path, "create": true, "seed": 1}));
        then(commit(4, 1000));
        then(commit(3, 2000));
        then(commit(1, 300));
        let before = then(commit(1, 500));
        then(commit(9, 100));
        then(commit(12, 100));
        then(commit(1, 12_000));
        then(commit(0, 0));
        let after = then(commit(3, 1500));
        let voted = then(json!({"cmd": "vote", "name": "m", "objects": 2, "size": 900}));
        then(json!({"cmd": "abort", "name": "m"}));
        let packed = then(json!({"cmd": "pack", "name": "m", "keep": 6}));
        let packed_away = then(json!({"cmd": "pack", "name": "m", "keep": 0}));
        Self {
            before,
            after,
            voted,
            packed,
            packed_away,
        }
    }
}

/// Fails where the test does not run as root.
#[track_caller]
pub fn require_root() {
    let uid = rustix::process::getuid();
    assert!(
        uid.is_root(),
        "this test must run as root: it mounts, or changes owners"
    );
}

/// The program, run as user and group 65534; the scene, which it is given, is
/// made theirs.
pub fn as_nobody(scene: &Scene) -> Command {
    let program = own(scene, 65534);
    let mut command = tool("setpriv", "util-linux");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(program);
    command
}

/// Gives the scene to this user, and the group of the same number. Returns a copy of the
/// program that they may run.
pub fn own(scene: &Scene, uid: u32) -> PathBuf {
    require_root();
    let program = scene.directory.path().join("fssync");
    fs::copy(env!("CARGO_BIN_EXE_fssync"), &program).expect("a copy of the program");
    let owner = format!("{uid}:{uid}");
    must(
        Command::new("chown")
            .args(["-R", &owner])
            .arg(scene.directory.path()),
    );
    program
}

/// A command to be run under `strace`, which does as its options say to all
/// calls of the program's and its threads' that concern the files.
pub fn strace(options: &[&str], files: &[PathBuf]) -> Command {
    let mut command = tracer(&[&["-qq", "-o", "/dev/null"], options].concat(), files);
    command.arg(env!("CARGO_BIN_EXE_fssync"));
    command
}

/// The same, for a program that is still to be named.
pub fn tracer(options: &[&str], files: &[PathBuf]) -> Command {
    let mut command = tool("strace", "strace");
    command.arg("-f").args(options);
    for file in files {
        command.arg("-P").arg(file);
    }
    command
}

/// A slave, in sync with the master as it was, to which an append was killed
/// before its `nth` sync.
pub fn append_killed_at_sync(nth: u32) -> Scene {
    let history = History::get();
    let scene = Scene::synced(history);
    rewrite_end(&scene.master, &history.after);
    let kill = format!("inject=fdatasync:signal=SIGKILL:when={nth}");
    let slave = fs::canonicalize(&scene.slave).expect("the slave");
    let killed = run(strace(&["-e", &kill], &[slave]).args([&scene.master, &scene.slave]));
    assert_ne!(killed.code, 0, "{killed:?}");
    scene
}

/// Writes a master of one transaction with one object of `len` zeros, which
/// takes hardly any room.
pub fn sparse_master(path: &Path, len: u64) {
    fs::write(path, b"FS30").expect("the master");
    append_sparse(path, len, 0x03f0_0000_0000_0000);
}

/// Appends such a transaction.
pub fn append_sparse(path: &Path, len: u64, tid: u64) {
    let file = File::options().write(true).open(path).expect("the master");
    let start = file.metadata().expect("its size").len();
    let txn_len: u64 = 23 + 42 + len;
    let mut head = Vec::new();
    head.extend(tid.to_be_bytes());
    head.extend(txn_len.to_be_bytes());
    head.extend([b' ', 0, 0, 0, 0, 0, 0]);
    head.extend(0u64.to_be_bytes());
    head.extend(tid.to_be_bytes());
    head.extend(0u64.to_be_bytes());
    head.extend(start.to_be_bytes());
    head.extend(0u16.to_be_bytes());
    head.extend(len.to_be_bytes());
    file.write_all_at(&head, start).expect("the headers");
    file.write_all_at(&txn_len.to_be_bytes(), start + txn_len)
        .expect("the trailer");
}

/// A process that holds a lock as ZODB does, until it is dropped.
pub struct Holder(Child);

impl Holder {
    /// The lock is taken when this returns.
    pub fn of(path: &Path) -> Self {
        let mut command = tool("flock", "util-linux");
        command.arg("--no-fork").arg(path);
        command.args(["sh", "-c", "echo held; exec sleep 600"]);
        let mut process = spawn(command.stdout(Stdio::piped()));
        let mut said = String::new();
        let stdout = process.stdout.take().expect("its standard output");
        BufReader::new(stdout).read_line(&mut said).expect("a line");
        assert_eq!(said, "held\n", "the lock is taken");
        Self(process)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Holder {
    /// Kills the process.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Puts a file of these bytes under a name as a pack does: another inode.
pub fn replace(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("pack");
    fs::write(&new, bytes).expect("a new file");
    fs::rename(&new, path).expect("a rename");
}

/// Gives a file these bytes in place, as a commit or an abort does: those that
/// it has already are not touched.
pub fn rewrite_end(path: &Path, bytes: &[u8]) {
    let had = fs::read(path).expect("the file");
    let same = had.iter().zip(bytes).take_while(|(a, b)| a == b).count();
    let file = File::options().write(true).open(path).expect("the file");
    file.set_len(same as u64).expect("a cut");
    file.write_all_at(&bytes[same..], same as u64)
        .expect("a write");
}

/// A number from the environment.
pub fn number(variable: &str) -> Option<usize> {
    let said = env::var(variable).ok()?;
    let number = said.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is no number: {said}")))
}

/// What a test has failed with.
pub fn said_by(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<String>().cloned();
    let said = said.or_else(|| panic.downcast_ref::<&str>().map(|&it| it.to_owned()));
    said.unwrap_or_default()
}

/// Waits until something is there.
pub fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_there() {
        assert!(started.elapsed() < Duration::from_secs(10), "no {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The names in a directory, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A mounted path that runs a hook before it answers: so a test does something
/// between two steps of a pass, at a place that it can name.
pub struct Hooked<H> {
    pub path: MountedPath,
    pub hook: H,
}

/// What the source is about to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Look,
    Read(u64),
    Digest(Range<u64>),
    Confirm(Range<u64>),
    Transactions(u64),
}

impl<H: FnMut(Call) -> Result<(), Error> + Send> Source for Hooked<H> {
    fn look(&mut self, ranges: &[Range<u64>]) -> Result<MasterStat, Error> {
        (self.hook)(Call::Look)?;
        self.path.look(ranges)
    }

    fn list(&mut self, below: &str, after: Option<&str>) -> Result<Vec<DirectoryEntry>, Error> {
        self.path.list(below, after)
    }

    fn surroundings(&mut self) -> Result<Surroundings, Error> {
        self.path.surroundings()
    }

    fn open_beside(&mut self, below: &str) -> Result<u64, Error> {
        self.path.open_beside(below)
    }

    fn read(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize, Error> {
        (self.hook)(Call::Read(offset))?;
        self.path.read(buffer, offset)
    }

    fn digest(&mut self, range: Range<u64>) -> Result<Option<Digest>, Error> {
        (self.hook)(Call::Digest(range.clone()))?;
        self.path.digest(range)
    }

    fn confirm(&mut self, range: Range<u64>) -> Result<Option<Digest>, Error> {
        (self.hook)(Call::Confirm(range.clone()))?;
        self.path.confirm(range)
    }

    fn transactions(&mut self, from: u64, size: u64) -> Result<Transactions, Error> {
        (self.hook)(Call::Transactions(from))?;
        self.path.transactions(from, size)
    }

    fn wait(&mut self, patience: Duration) -> Result<bool, Error> {
        self.path.wait(patience)
    }

    fn let_go(&mut self) {
        self.path.let_go();
    }
}
