//! The actors: the processes that the harnesses run on a master and a slave.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fssync::pass::apply::Tuning;
use fssync::pass::blobs::{BlobMode, BlobOptions};
use fssync::source::path::MountedPath;
use serde_json::{Value, json};

use crate::support::{Call, Hooked, Scene, blobs_beside, fssync, pass_here, python, run_in_a_pass};

/// A process that works on a master and a slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A pass with these options.
    Pass(&'static [&'static str]),
    /// A pass with small batches.
    PassInBatches(Batches),
    /// A pass with small batches that first removes the file of the pass lock, which
    /// fssync never does.
    PassWithoutLock,
    /// A pass with small batches, during which `fssync off` runs: before the first batch is
    /// compared with the master again.
    PassSwitchedOff,
    /// A watch, until it is idle.
    Watch,
    /// `fssync off`, with `--force` if there is no slave yet.
    Off,
    /// `fssync on`.
    On,
    /// `echo SYNCING=0`, as scripts of heartbeat do it.
    Echo,
    /// `fssync verify`.
    Verify,
    /// `fssync verify --against` the master.
    VerifyAgainst,
    /// `fssync status`.
    Status,
    /// `fssync status --against` the master.
    StatusAgainst,
    /// ZODB, which opens the slave.
    Zodb(Session),
    /// A faulty program in the place of another actor: Python, with the paths of master and
    /// slave in `sys.argv`.
    Faulty(&'static str, &'static Actor),
}

/// The sizes with which a pass reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batches {
    /// Bytes that are read at once.
    pub chunk_len: usize,
    /// Bytes after which a batch ends, at the next transaction.
    pub batch_len: u64,
    /// Blobs that are placed at once.
    pub blobs: usize,
}

impl Batches {
    /// A few hundred bytes: nearly each transaction is a batch.
    pub const TINY: Self = Self {
        chunk_len: 700,
        batch_len: 1500,
        blobs: 1,
    };

    /// A few kilobytes: several transactions in a batch, several batches in a pass.
    pub const SMALL: Self = Self {
        chunk_len: 4096,
        batch_len: 5000,
        blobs: 2,
    };
}

/// What ZODB does with the slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// It opens and closes the slave.
    OpenAndClose,
    /// It opens the slave and keeps it open.
    StayOpen,
    /// It opens the slave, commits a transaction and keeps the slave open.
    CommitAndStay,
    /// It opens the slave, commits a transaction and closes the slave.
    CommitAndClose,
}

impl Session {
    pub fn commits(self) -> bool {
        matches!(self, Self::CommitAndStay | Self::CommitAndClose)
    }

    pub fn stays(self) -> bool {
        matches!(self, Self::StayOpen | Self::CommitAndStay)
    }

    /// The commands for the process that drives ZODB. If blobs are replicated, ZODB uses the
    /// blob directory, and commits a blob.
    pub fn commands(self, scene: &Scene) -> Vec<Value> {
        let open = opening(scene);
        let blobs = u32::from(scene.has_blobs);
        let commit = json!({"cmd": "commit", "name": "s", "description": "only here",
            "blobs": blobs});
        let close = json!({"cmd": "close", "name": "s"});
        let commit = self.commits().then_some(commit);
        let close = (!self.stays()).then_some(close);
        [Some(open), commit, close].into_iter().flatten().collect()
    }
}

/// The command that opens the slave as "s".
pub fn opening(scene: &Scene) -> Value {
    let mut open = json!({"cmd": "open", "name": "s", "path": scene.slave});
    if scene.has_blobs {
        open["blobs"] = json!(blobs_beside(&scene.slave));
        open["journal"] = json!(journal_of_session(scene));
    }
    open
}

/// The file for the digests of the blobs that ZODB commits to the slave.
pub fn journal_of_session(scene: &Scene) -> PathBuf {
    scene.directory.path().join("journal-of-session")
}

impl Actor {
    /// Whether it makes passes, which may copy.
    pub fn is_pass(self) -> bool {
        matches!(
            self,
            Self::Pass(_)
                | Self::PassInBatches(_)
                | Self::PassWithoutLock
                | Self::PassSwitchedOff
                | Self::Watch
        )
    }

    /// Whether it switches syncing on.
    pub fn is_on(self) -> bool {
        self == Self::On
    }

    /// Whether it switches syncing off.
    pub fn is_off(self) -> bool {
        matches!(self, Self::Off | Self::Echo)
    }

    /// Whether it is fssync.
    pub fn is_fssync(self) -> bool {
        !matches!(self, Self::Echo | Self::Zodb(_) | Self::Faulty(..))
    }

    /// The actor whose promises it must keep.
    pub fn stands_for(self) -> Self {
        match self {
            Self::Faulty(_, actor) => *actor,
            actor => actor,
        }
    }

    /// The command that runs it.
    pub fn command(self, scene: &Scene) -> Command {
        match self {
            Self::PassInBatches(batches) => pass_in_batches(scene, batches),
            Self::PassWithoutLock => pass_without_lock(scene),
            Self::PassSwitchedOff => {
                let mut command = pass_in_batches(scene, Batches::TINY);
                command.env(SWITCH_OFF, "1");
                command
            }
            Self::Watch => scene.command(&["--watch", "--interval", "60"]),
            Self::Echo => {
                let mut shell = Command::new("sh");
                shell.args(["-c", "echo SYNCING=0 >\"$1\"", "sh"]);
                shell.arg(scene.beside(".fssync-switch"));
                shell
            }
            Self::Faulty(script, _) => {
                let mut command = Command::new(python());
                command.args(["-c", script]);
                command.args([&scene.master, &scene.slave]);
                command
            }
            _ => {
                let mut command = fssync();
                command.args(self.arguments(scene, &scene.master));
                command
            }
        }
    }

    /// The arguments of an actor that is the program itself, if this is typed for the master.
    pub fn arguments(self, scene: &Scene, master: &Path) -> Vec<OsString> {
        let slave = scene.slave.as_path();
        let (options, paths): (&[&str], _) = match self {
            Self::Pass(options) => (options, vec![master, slave]),
            Self::Off if slave.exists() => (&["off"], vec![slave]),
            Self::Off => (&["off", "--force"], vec![slave]),
            Self::On => (&["on"], vec![slave]),
            Self::Verify => (&["verify"], vec![slave]),
            Self::Status => (&["status"], vec![slave]),
            Self::VerifyAgainst => (&["verify", "--against"], vec![master, slave]),
            Self::StatusAgainst => (&["status", "--against"], vec![master, slave]),
            _ => panic!("{self:?} is another program"),
        };
        let blobs: &[&str] = match self {
            Self::Pass(_) => scene.blob_options(),
            _ => &[],
        };
        let options = options.iter().chain(blobs).map(OsString::from);
        options.chain(paths.into_iter().map(Into::into)).collect()
    }
}

/// Environment variables for [`passes_in_batches`]: both paths, the sizes, whether the
/// pass replicates blobs, and whether syncing is switched off during the pass.
const MASTER: &str = "FSSYNC_TEST_MASTER";
const SLAVE: &str = "FSSYNC_TEST_SLAVE";
const SIZES: &str = "FSSYNC_TEST_SIZES";
const BLOBS: &str = "FSSYNC_TEST_BLOBS";
const SWITCH_OFF: &str = "FSSYNC_TEST_SWITCH_OFF";

/// This program, which makes a pass in [`passes_in_batches`].
fn pass_in_batches(scene: &Scene, batches: Batches) -> Command {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(["--exact", "crash::actor::passes_in_batches"]);
    command.args(["--ignored", "--nocapture", "--test-threads=1"]);
    command.env(MASTER, &scene.master).env(SLAVE, &scene.slave);
    let Batches {
        chunk_len,
        batch_len,
        blobs,
    } = batches;
    command.env(SIZES, format!("{chunk_len} {batch_len} {blobs}"));
    if scene.has_blobs {
        command.env(BLOBS, "1");
    }
    command
}

fn pass_without_lock(scene: &Scene) -> Command {
    let pass = pass_in_batches(scene, Batches::SMALL);
    let mut python = Command::new(python());
    let script = "import os, sys; os.remove(sys.argv[1]); os.execv(sys.argv[2], sys.argv[2:])";
    python.args(["-c", script]);
    python.arg(scene.beside(".fssync-pass"));
    python.arg(pass.get_program()).args(pass.get_args());
    let variables = pass.get_envs();
    python.envs(variables.filter_map(|(name, value)| Some((name, value?))));
    python
}

/// Not a test, but a process of its own for a pass: the real program makes batches of 128 MB.
#[test]
#[ignore = "other tests run it as a process of its own"]
fn passes_in_batches() {
    let variable = |name| env::var_os(name).expect("only other tests run it");
    let mut scene = Scene::new();
    scene.master = PathBuf::from(variable(MASTER));
    scene.slave = PathBuf::from(variable(SLAVE));
    let sizes = variable(SIZES).into_string().expect("UTF-8");
    let sizes: Vec<&str> = sizes.split(' ').collect();
    let [chunk_len, batch_len, blobs] = sizes[..] else {
        panic!("three sizes: {sizes:?}");
    };
    let tuning = Tuning {
        chunk_len: chunk_len.parse().expect("a size"),
        batch_len: batch_len.parse().expect("a size"),
        blob_batch_len: blobs.parse().expect("a size"),
    };
    let path = MountedPath::new(scene.master.clone());
    let slave = scene.slave.clone();
    let mut is_due = env::var_os(SWITCH_OFF).is_some();
    let hook = move |call: Call| {
        if is_due && matches!(call, Call::Confirm(_)) {
            is_due = false;
            run_in_a_pass(fssync().arg("off").arg(&slave)).expect(0);
        }
        Ok(())
    };
    let mut job = scene.job(Hooked { path, hook }, tuning);
    if env::var_os(BLOBS).is_some() {
        job.blobs = BlobMode::On(BlobOptions {
            master: None,
            slave: None,
            recheck: false,
            keep_packed: Duration::MAX,
        });
    }
    let outcome = pass_here(&job);
    drop(scene);
    eprintln!("{outcome:?}");
    std::process::exit(outcome.exit as i32);
}
