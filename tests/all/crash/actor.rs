//! Who plays together.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use fssync::pass::apply::Tuning;
use fssync::source::path::MountedPath;
use serde_json::{Value, json};

use crate::calls::trace::Stage;
use crate::crash::scenario::Scenario;
use crate::interleavings::process::Task;
use crate::support::{Scene, Zodb, fssync, pass_here, python};

/// What is at work on one slave at the same time.
pub struct Race<'a> {
    /// What it finds.
    pub scenario: &'a Scenario,
    pub actors: &'a [Actor],
}

/// One of a cast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A pass with these options.
    Pass(&'static [&'static str]),
    /// A pass with batches of a few kilobytes.
    PassInBatches,
    /// The same, which first removes the file of the pass lock, as nobody should.
    PassWithoutLock,
    /// A watch, until it rests.
    Watch,
    /// `fssync off`.
    Off,
    /// `fssync on`, which begins when the other one of this number has ended.
    On(Option<usize>),
    /// `echo SYNCING=0`, as heartbeat scripts have it.
    Echo,
    /// `fssync verify`.
    Verify,
    /// `fssync status`.
    Status,
    /// ZODB, which begins so, too.
    Zodb(Session, Option<usize>),
    /// A program that does something wrong in the place of another: Python that finds the
    /// paths of master and slave in `sys.argv`.
    Faulty(&'static str, &'static Actor),
}

/// What ZODB does to the slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// It opens and closes it.
    OpenAndClose,
    /// It opens it, and has it open still.
    StayOpen,
    /// The same, with a transaction of its own.
    CommitAndStay,
    /// It opens it, commits a transaction and closes it.
    CommitAndClose,
}

impl Session {
    pub fn commits(self) -> bool {
        matches!(self, Self::CommitAndStay | Self::CommitAndClose)
    }

    pub fn stays(self) -> bool {
        matches!(self, Self::StayOpen | Self::CommitAndStay)
    }

    fn commands(self, slave: &PathBuf) -> Vec<Value> {
        let open = json!({"cmd": "open", "name": "s", "path": slave});
        let commit = json!({"cmd": "commit", "name": "s", "description": "only here"});
        let close = json!({"cmd": "close", "name": "s"});
        let commit = self.commits().then_some(commit);
        let close = (!self.stays()).then_some(close);
        [Some(open), commit, close].into_iter().flatten().collect()
    }
}

impl Actor {
    /// Whether it makes passes, which may copy.
    pub fn is_pass(self) -> bool {
        matches!(
            self,
            Self::Pass(_) | Self::PassInBatches | Self::PassWithoutLock | Self::Watch
        )
    }

    /// Whether it switches on.
    pub fn is_on(self) -> bool {
        matches!(self, Self::On(_))
    }

    /// Who must have ended before it begins.
    pub fn behind(self) -> Option<usize> {
        match self {
            Self::On(behind) | Self::Zodb(_, behind) => behind,
            _ => None,
        }
    }

    /// The one whose promises it must keep.
    pub fn stands_for(self) -> Self {
        match self {
            Self::Faulty(_, actor) => *actor,
            actor => actor,
        }
    }

    /// Whether it is fssync.
    pub fn is_ours(self) -> bool {
        !matches!(self, Self::Echo | Self::Zodb(..) | Self::Faulty(..))
    }

    /// Whether it switches off.
    pub fn is_off(self) -> bool {
        matches!(self, Self::Off | Self::Echo)
    }

    /// What it is to do on a stage; `zodb` is for this task only.
    pub fn task(self, stage: &Stage<'_>, zodb: &Arc<Mutex<Zodb>>) -> Task {
        let Scene { master, slave, .. } = &stage.scene;
        let verb = |verb: &str| {
            let mut command = fssync();
            command.arg(verb).arg(slave);
            Task::Program(command)
        };
        match self {
            Self::Pass(options) => Task::Program(stage.scene.command(options)),
            Self::PassInBatches => Task::Program(pass_in_batches(&stage.scene)),
            Self::PassWithoutLock => {
                let pass = pass_in_batches(&stage.scene);
                let mut python = Command::new(python());
                let script = "import os, sys; os.remove(sys.argv[1]); \
                              os.execv(sys.argv[2], sys.argv[2:])";
                python.args(["-c", script]);
                python.arg(stage.scene.beside(".fssync-pass"));
                python.arg(pass.get_program()).args(pass.get_args());
                python.envs(
                    pass.get_envs()
                        .filter_map(|(name, value)| Some((name, value?))),
                );
                Task::Program(python)
            }
            Self::Watch => Task::Watch(stage.scene.command(&["--watch", "--interval", "60"])),
            // Before a first copy, there is no slave yet.
            Self::Off => {
                let mut command = fssync();
                command.args(["off", "--force"]).arg(slave);
                Task::Program(command)
            }
            Self::On(_) => verb("on"),
            Self::Verify => verb("verify"),
            Self::Status => verb("status"),
            Self::Echo => {
                let mut shell = Command::new("sh");
                shell.args(["-c", "echo SYNCING=0 >\"$1\"", "sh"]);
                shell.arg(stage.scene.beside(".fssync-switch"));
                Task::Program(shell)
            }
            Self::Zodb(session, _) => Task::Zodb(Arc::clone(zodb), session.commands(slave)),
            Self::Faulty(script, _) => {
                let mut command = Command::new(python());
                command.args(["-c", script]).args([master, slave]);
                Task::Program(command)
            }
        }
    }
}

/// The paths that [`passes_in_batches`] works on.
const MASTER: &str = "FSSYNC_TEST_MASTER";
const SLAVE: &str = "FSSYNC_TEST_SLAVE";

/// This program, for a pass as [`passes_in_batches`] makes it.
fn pass_in_batches(scene: &Scene) -> Command {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(["--exact", "crash::actor::passes_in_batches"]);
    command.args(["--ignored", "--nocapture", "--test-threads=1"]);
    command.env(MASTER, &scene.master).env(SLAVE, &scene.slave);
    command
}

/// Several pieces a batch, several batches a pass.
const SMALL: Tuning = Tuning {
    chunk_len: 4096,
    batch_len: 5000,
};

/// No test, but a process of one: the real program makes batches of 128 MB.
#[test]
#[ignore = "what the others have done in a process of its own"]
fn passes_in_batches() {
    let path = |name| PathBuf::from(env::var_os(name).expect("it is run by the others only"));
    let mut scene = Scene::new();
    (scene.master, scene.slave) = (path(MASTER), path(SLAVE));
    let source = MountedPath::new(scene.master.clone());
    let outcome = pass_here(&scene.job(source, SMALL));
    drop(scene);
    println!("{outcome:?}");
    std::process::exit(outcome.exit as i32);
}
