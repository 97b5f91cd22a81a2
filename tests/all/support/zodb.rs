//! ZODB, in a process of its own.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use fssync::filestorage::index::pickle::read_position;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};

use super::{must, project, spawn, wait_for};
use crate::environment;

/// The Python of the virtual environment; see [`environment::python`].
pub fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        environment::python(environment::REQUIREMENTS, |command| {
            must(command);
        })
    })
}

/// The lowest position of an index that ZODB uses (ZODB 6.4: `FileStorage._check_sanity`).
const MIN_INDEXED: u64 = 100;

/// ZODB's two set-ups with blobs, which write different files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// `<filestorage>` with `blob-dir`.
    FileStorage,
    /// `<blobstorage>` around a `<filestorage>`.
    Proxy,
}

impl Setup {
    pub const BOTH: [Self; 2] = [Self::FileStorage, Self::Proxy];

    /// Its name in the commands of the agent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FileStorage => "fs",
            Self::Proxy => "proxy",
        }
    }
}

/// A process that executes commands on FileStorages; see `tests/zodb/agent.py`.
pub struct Zodb {
    pid: Pid,
    /// The same process. It does not become another one when the number is used again.
    process: OwnedFd,
    commands: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Zodb {
    pub fn start() -> Self {
        static AGENTS: OnceLock<Agents> = OnceLock::new();
        AGENTS.get_or_init(|| Agents::new(python())).fork()
    }

    /// The same with another ZODB.
    pub fn with(python: &Path) -> Self {
        Agents::new(python).fork()
    }

    /// The process that holds ZODB's locks.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Sends a command, such as `json!({"cmd": "commit", "name": "m"})`; returns the answer,
    /// even if it is an error.
    pub fn attempt(&mut self, command: &Value) -> Value {
        writeln!(self.commands, "{command}").expect("the agent listens");
        let mut answer = String::new();
        self.answers
            .read_line(&mut answer)
            .expect("the agent answers");
        serde_json::from_str(&answer)
            .unwrap_or_else(|error| panic!("{command}: {answer:?}: {error}"))
    }

    /// Sends a command that must succeed.
    pub fn call(&mut self, command: &Value) -> Value {
        let answer = self.attempt(command);
        assert_eq!(answer["ok"], true, "{command}: {answer}");
        answer
    }

    /// Opens the slave as "s". If fssync holds ZODB's lock, this is repeated, as a supervisor
    /// would. Returns the answer.
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

    /// Opens a master with blobs as "m". `options` are those of the command `open`.
    pub fn open_with_blobs(&mut self, master: &Path, setup: Setup, options: &Value) {
        let mut open = json!({"cmd": "open", "name": "m", "path": master,
            "blobs": blobs_beside(master), "setup": setup.as_str()});
        let options = options.as_object().expect("options").clone();
        open.as_object_mut().expect("a command").extend(options);
        self.call(&open);
    }

    /// Loads every blob that ZODB can load from a file with this blob directory, and compares
    /// it with the file below `expected` or with the digest in `journal`. See
    /// `tests/zodb/blobs.py`.
    pub fn check_blobs(&mut self, of: &Blobs<'_>, setup: Setup) -> Value {
        self.call(
            &json!({"cmd": "check_blobs", "path": of.file, "blobs": of.directory,
            "setup": setup.as_str(), "expected": of.expected, "journal": of.journal}),
        )
    }

    /// Fails unless ZODB can load all blobs, as in [`Self::check_blobs`], and each one has the
    /// expected bytes. Returns their number.
    #[track_caller]
    pub fn assert_blobs(&mut self, of: &Blobs<'_>, setup: Setup) -> u64 {
        let found = self.check_blobs(of, setup);
        for list in ["missing", "different", "unknown"] {
            assert_eq!(found[list], json!([]), "{list}: {found}");
        }
        found["blobs"].as_u64().expect("a number")
    }

    /// The result of ZODB's scan of a file from its start: `position`, `last_tid`, `objects`,
    /// `warnings`.
    pub fn check(&mut self, path: &Path) -> Value {
        self.call(&json!({"cmd": "check", "path": path}))
    }

    /// The index that ZODB saves after a scan of a file, and its position.
    pub fn index_of(&mut self, path: &Path) -> (Vec<u8>, u64) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let to = directory.path().join("by-zodb.index");
        let answer = self.call(&json!({"cmd": "save_index", "path": path, "to": to}));
        (fs::read(to).unwrap(), answer["position"].as_u64().unwrap())
    }

    /// Fails unless the index beside a slave, if there is one, equals ZODB's index of some
    /// position, and ZODB uses it unless the file is nearly empty. Returns the position.
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
        // ZODB saves an index for an empty file, too, and then ignores it.
        let is_used = position >= MIN_INDEXED;
        assert_eq!(opened["used_index"], is_used, "{opened}");
        Some(position)
    }

    /// Fails unless ZODB opens the slave, and the slave has exactly the committed bytes of the
    /// master. The master may have a vote in progress.
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

    /// Fails unless ZODB opens the slave and finds a prefix of the master's committed history.
    pub fn assert_prefix(&mut self, master: &Path, slave: &Path) {
        let committed = self.check(master)["position"].as_u64().unwrap() as usize;
        self.assert_prefix_of(&fs::read(master).unwrap()[..committed], slave);
    }

    /// Fails unless ZODB opens the slave and finds a prefix of this history.
    pub fn assert_prefix_of(&mut self, history: &[u8], slave: &Path) {
        let position = self.check(slave)["position"].as_u64().unwrap() as usize;
        let slave = fs::read(slave).unwrap();
        assert!(history.starts_with(&slave[..position]), "a prefix");
    }
}

/// A file with blobs, and the bytes that its blobs must have.
#[derive(Clone, Copy, Debug)]
pub struct Blobs<'a> {
    pub file: &'a Path,
    pub directory: &'a Path,
    /// Another blob directory.
    pub expected: Option<&'a Path>,
    /// The file in which a store has recorded the digests of its blobs.
    pub journal: Option<&'a Path>,
}

/// The blob directory of a file, which `--blobs` detects: beside the file, or beside its
/// directory `filestorage`.
pub fn blobs_beside(file: &Path) -> PathBuf {
    match file.parent() {
        Some(directory) if directory.ends_with("filestorage") => {
            directory.with_file_name("blobstorage")
        }
        _ => file.with_file_name("blobstorage"),
    }
}

impl Drop for Zodb {
    /// Kills the process, and waits for its end.
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
        let _ = poll(&mut [PollFd::new(&self.process, PollFlags::IN)], None);
    }
}

/// A process that has loaded the modules of ZODB, which takes a quarter of a second, and forks
/// agents. It ends when its standard input is closed, at the latest with this process.
struct Agents {
    _process: Child,
    address: SocketAddr,
}

impl Agents {
    fn new(python: &Path) -> Self {
        let mut command = Command::new(python);
        command.arg(project("tests/zodb/agent.py")).arg("fork");
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        let mut process = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let mut name = String::new();
        let output = process.stdout.take().expect("its standard output");
        BufReader::new(output)
            .read_line(&mut name)
            .expect("the name of a socket");
        Self {
            _process: process,
            address: SocketAddr::from_abstract_name(name.trim()).expect("an address"),
        }
    }

    fn fork(&self) -> Zodb {
        let commands = UnixStream::connect_addr(&self.address).expect("a connection");
        let mut answers = BufReader::new(commands.try_clone().expect("the same connection"));
        let mut pid = String::new();
        answers.read_line(&mut pid).expect("a process ID");
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.expect("a process ID");
        Zodb {
            pid,
            process: pidfd_open(pid, PidfdFlags::empty()).expect("the process"),
            commands,
            answers,
        }
    }
}
