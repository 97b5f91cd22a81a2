//! What the tests share: a virtual environment with ZODB, a process that drives
//! it, and the program under test.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fssync::apply::Tuning;
use fssync::digest::Digest;
use fssync::plan::Policy;
use fssync::slave::owner::Owner;
use fssync::slave::place::Place;
use fssync::slave::step::Slave;
use fssync::slave::switch::Switches;
use fssync::source::path::MountedPath;
use fssync::source::{Error, Master, Pulse, Sight, Source};
use fssync::sync::Job;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A file of the project's.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The Python of a virtual environment with the pinned requirements; made at
/// the first call, and kept below the target directory.
pub fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let requirements = project("tests/zodb/requirements.txt");
        let text = fs::read(&requirements).expect("requirements.txt");
        let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(temporary).expect("the directory for temporary files");
        // Test processes that start together make it one after the other.
        let lock = File::create(temporary.join("venv.lock")).expect("venv.lock");
        lock.lock().expect("the lock of the virtual environment");
        let venv = temporary.join(format!("venv-{}", &blake3::hash(&text).to_hex()[..16]));
        let python = venv.join("bin/python");
        let complete = venv.join("complete");
        if !complete.exists() {
            let venv = venv.to_str().expect("a path in UTF-8");
            must(Command::new("python3").args(["-m", "venv", "--clear", venv]));
            let pip = [
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "-r",
            ];
            must(Command::new(&python).args(pip).arg(&requirements));
            File::create(&complete).expect("the mark of a complete environment");
        }
        python
    })
}

/// Runs a command that must succeed.
pub fn must(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
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
        let mut process = Command::new(python())
            .arg(project("tests/zodb/agent.py"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the ZODB agent");
        Self {
            commands: process.stdin.take().expect("its standard input"),
            answers: BufReader::new(process.stdout.take().expect("its standard output")),
            process,
        }
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

    /// What ZODB finds in a file, read from its start: `position`, `last_tid`,
    /// `objects`, `warnings`.
    pub fn check(&mut self, path: &Path) -> Value {
        self.call(&json!({"cmd": "check", "path": path}))
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
        let (theirs, ours) = (self.check(master), self.check(slave));
        let position = ours["position"].as_u64().expect("a position") as usize;
        assert!(position <= theirs["position"].as_u64().unwrap() as usize);
        let (master, slave) = (fs::read(master).unwrap(), fs::read(slave).unwrap());
        assert!(
            slave[..position] == master[..position],
            "a prefix of the master"
        );
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
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    Run {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// A master and a slave in directories of their own.
pub struct Scene {
    pub directory: TempDir,
    pub master: PathBuf,
    pub slave: PathBuf,
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
        }
    }

    /// The master is a copy of a fixture.
    pub fn with_master(fixture: &str) -> Self {
        let scene = Self::new();
        fs::copy(project(&format!("fixtures/{fixture}.fs")), &scene.master).expect("the fixture");
        scene
    }

    /// One pass, with more options, that prints its report.
    pub fn pass(&self, options: &[&str]) -> Run {
        run(fssync()
            .arg("--json")
            .args(options)
            .args([&self.master, &self.slave]))
    }

    /// One pass that must succeed with this action.
    #[track_caller]
    pub fn expect(&self, action: &str) -> Value {
        let report = self.pass(&[]).expect(0).report();
        assert_eq!(report["action"], action, "{report}");
        report
    }

    /// The names in the slave's directory, sorted.
    pub fn beside_slave(&self) -> Vec<String> {
        names(self.slave.parent().expect("a directory"))
    }

    /// A pass to be made in this process, with a source of the test's.
    pub fn job(&self, source: impl Source + 'static, tuning: Tuning) -> Job {
        let interrupted = Arc::new(AtomicBool::new(false));
        let place = Place::new(&self.slave).expect("a place for the slave");
        Job {
            master: Master::new(
                self.master.display().to_string(),
                Duration::from_secs(10),
                Arc::clone(&interrupted),
                Pulse::default(),
                Box::new(source),
            ),
            slave: Slave {
                owner: Owner::of(&place).expect("its owner"),
                switches: Switches::new(&place, None),
                place,
                interrupted,
            },
            policy: Policy::default(),
            tuning,
            dry_run: false,
        }
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
}

impl<H: FnMut(Call) -> Result<(), Error> + Send> Source for Hooked<H> {
    fn look(&mut self, ranges: &[Range<u64>]) -> Result<Sight, Error> {
        (self.hook)(Call::Look)?;
        self.path.look(ranges)
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
}
