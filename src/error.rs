//! Why a pass stops before its end: one type, mapped to exit codes in one
//! place.

pub mod off;
pub(crate) mod retry;
pub mod running;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use self::off::OffReason;
use self::running::RunningPass;

use crate::filestorage::scan::Damage;
use crate::human::bytes;
use crate::plan::Refusal;
use crate::plan::outcome::{Action, Copied, Exit, Outcome};
use crate::plan::switch_on::SwitchOnRefusal;
use crate::source::{self, location};

/// The error of what is not permitted to anybody.
const EPERM: i32 = rustix::io::Errno::PERM.raw_os_error();

/// Why a pass stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A switch is off.
    #[error("syncing is off: {0}")]
    Off(OffReason),
    /// Another pass holds the slave.
    #[error("another pass is at work on {}{}", .slave.display(), .pass.in_words())]
    Busy {
        /// The slave.
        slave: PathBuf,
        /// The other pass.
        pass: RunningPass,
    },
    /// The slave is the file that the master was copied from.
    #[error("MASTER {master} is a copy of SLAVE {}, and has nothing that it lacks", .slave.display())]
    Swapped {
        /// The master's name.
        master: String,
        /// The slave.
        slave: PathBuf,
    },
    /// The master does not answer.
    #[error("the master is unreachable")]
    Unreachable(#[source] source::Error),
    /// ZODB, or another program with its lock, holds the slave.
    #[error("{slave} is in use{}", by(*.pid))]
    InUse {
        /// The slave.
        slave: PathBuf,
        /// The program's process, if the kernel tells.
        pid: Option<u32>,
    },
    /// The facts say no.
    #[error("{0}")]
    Refused(Refusal),
    /// Syncing is not switched on.
    #[error("the switches stay as they are: {slave} {why}")]
    NotSwitchedOn {
        /// The slave.
        slave: PathBuf,
        /// Why.
        why: SwitchOnRefusal,
    },
    /// The master is damaged.
    #[error("{master} is damaged: {damage}")]
    MasterDamaged {
        /// The master's name.
        master: String,
        /// Where and how.
        damage: MasterDamage,
    },
    /// A file could not be read or written, because of this machine.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried, with the position where there is one.
        action: String,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file beside the slave cannot be given to the slave's owner.
    #[error("cannot give {} to uid {uid}, gid {gid}, as the slave's files are", .path.display())]
    Owner {
        /// The file that was to be made.
        path: PathBuf,
        /// The owner it must have.
        uid: u32,
        /// The group it must have.
        gid: u32,
        /// Why it failed.
        source: io::Error,
    },
    /// An attribute of the slave or of its directory forbids every change.
    #[error("{} has the attribute {attribute}, and cannot be replaced", .path.display())]
    Protected {
        /// The file or directory.
        path: PathBuf,
        /// The attribute.
        attribute: &'static str,
        /// The option of `chattr` that removes it.
        option: &'static str,
    },
    /// There is too little room for what the pass writes.
    #[error("{} has {} free, {what} needs {}", .directory.display(), bytes(*.free), bytes(*.needed))]
    NoSpace {
        /// The slave's directory.
        directory: PathBuf,
        /// What needs it.
        what: &'static str,
        /// What there is, in bytes.
        free: u64,
        /// What is needed, in bytes.
        needed: u64,
    },
    /// The slave's directory is on another file system than it was.
    #[error(
        "{} is on another file system than when fssync started, or missing, and does not \
         contain the slave as the last pass left it",
        .directory.display()
    )]
    Moved {
        /// The slave's directory.
        directory: PathBuf,
    },
    /// The slave is not what was surveyed: look again.
    #[error("{slave} changed meanwhile: {what}")]
    SlaveChanged {
        /// The slave.
        slave: PathBuf,
        /// What was found.
        what: String,
    },
    /// The master is not what was surveyed: look again.
    #[error("{master} changed while it was copied: {what}")]
    MasterChanged {
        /// The master's name.
        master: String,
        /// What was found.
        what: &'static str,
    },
    /// This machine lets the process start no more threads or programs.
    #[error("cannot start {what}")]
    Start {
        /// What was to be started.
        what: String,
        /// Why it could not be.
        source: io::Error,
    },
    /// A signal asked for the end.
    #[error("interrupted by a signal")]
    Interrupted,
}

/// What is wrong with the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MasterDamage {
    /// A record that makes ZODB panic.
    #[error("{0}")]
    Record(#[from] Damage),
    /// A transaction that reaches past the end, and is not a vote under way.
    #[error(
        "transaction record at {0}: reaches past the end of the file \
         and is not marked as unfinished"
    )]
    Torn(u64),
}

/// What to do if a process may open no more files.
pub(crate) const RAISE_OPEN_FILES: &str = "raise the limit on open files (ulimit -n, LimitNOFILE=)";

/// Whether this process or this machine may open no more files.
pub(crate) fn is_out_of_files(error: &io::Error) -> bool {
    let limits = [Errno::MFILE, Errno::NFILE];
    Errno::from_io_error(error).is_some_and(|it| limits.contains(&it))
}

fn by(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" by process {pid}"))
}

impl Error {
    /// A failed operation on a file of the slave's.
    pub(crate) fn io<A: Into<String>>(
        action: A,
        path: &Path,
    ) -> impl FnOnce(io::Error) -> Self + use<A> {
        let (action, path) = (action.into(), path.to_owned());
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::Swapped { .. } => Exit::Usage,
            Self::Off(_) => Exit::Off,
            Self::Busy { .. } => Exit::Busy,
            Self::Unreachable(_) | Self::MasterChanged { .. } => Exit::Unreachable,
            Self::InUse { .. } => Exit::InUse,
            Self::Refused(refusal) => refusal.exit(),
            Self::NotSwitchedOn { why, .. } => why.exit(),
            Self::MasterDamaged { .. } => Exit::MasterDamaged,
            Self::Io { .. }
            | Self::Owner { .. }
            | Self::Protected { .. }
            | Self::NoSpace { .. }
            | Self::Moved { .. }
            | Self::SlaveChanged { .. }
            | Self::Start { .. }
            | Self::Interrupted => Exit::Failure,
        }
    }

    /// What a pass that stops so has done.
    #[must_use]
    pub fn action(&self) -> Action {
        match self {
            Self::Off(_) => Action::Off,
            Self::Busy { .. } => Action::Busy,
            Self::Unreachable(_) | Self::MasterChanged { .. } => Action::Unreachable,
            Self::InUse { .. } | Self::Refused(_) | Self::NotSwitchedOn { .. } => Action::Refuse,
            _ => Action::Error,
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Swapped { .. } => {
                "swap the two arguments; if SLAVE is to be replaced by its copy, as in a \
                 failback, run `fssync --full`"
            }
            Self::InUse { .. } => {
                "the slave is being served: switch syncing off with `fssync off` \
                 before ZEO is started there, or are MASTER and SLAVE swapped?"
            }
            Self::Refused(refusal) => return Some(refusal.hint()),
            Self::NotSwitchedOn { why, .. } => why.hint(),
            Self::Unreachable(error) => error.hint()?,
            Self::MasterDamaged { .. } => {
                "the slave may hold what is damaged in the master: compare the two with \
                 `fssync verify SLAVE --against MASTER` before anybody repairs the master with \
                 fsrecover, which drops what is damaged"
            }
            Self::Io { source, .. } if source.kind() == ErrorKind::FileTooLarge => {
                "raise the limit on the size of files (ulimit -f, LimitFSIZE=), or use a file \
                 system that holds larger ones"
            }
            Self::Start { source, .. } | Self::Io { source, .. } if is_out_of_files(source) => {
                RAISE_OPEN_FILES
            }
            Self::Start { .. } => {
                "raise the limit on threads and processes (ulimit -u, TasksMax=, a container's \
                 pids limit)"
            }
            Self::Io { source, .. } if source.kind() == ErrorKind::ReadOnlyFilesystem => {
                "the file system is mounted read-only: mount it for writing"
            }
            Self::Io { source, .. } if source.raw_os_error() == Some(EPERM) => {
                "an attribute may forbid it: look with lsattr at the file and its directory"
            }
            Self::Protected { path, option, .. } => {
                return Some(format!("chattr {option} {}", path.display()));
            }
            Self::Owner { .. } => "run fssync as root, or as the user that owns the slave's files",
            Self::NoSpace { .. } => "make room, or put the slave on a larger file system",
            Self::Moved { .. } => {
                "mount the slave's file system again; if it is right as it is, restart fssync"
            }
            Self::SlaveChanged { .. } => {
                "something else writes to the slave without ZODB's lock: find it and stop it"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// What is worth a person's attention although the exit code is not.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        match self {
            Self::Off(off) => off.warning().into_iter().collect(),
            Self::Busy { pass, .. } => pass.warning().into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// Whether another look may find another case.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(error) => error.is_transient(),
            Self::MasterChanged { .. } | Self::SlaveChanged { .. } => true,
            _ => false,
        }
    }

    /// Whether it is for want of the master that the pass ends: what was copied
    /// by then is worth keeping.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    /// The message with its causes, in one line.
    #[must_use]
    pub fn display_chain(&self) -> String {
        source::display_chain(self)
    }
}

impl From<&Error> for Outcome {
    /// A pass that stopped before it did anything.
    fn from(error: &Error) -> Self {
        Self {
            action: error.action(),
            exit: error.exit(),
            reason: error.display_chain(),
            hint: error.hint(),
            copied: Copied::default(),
            warnings: error.warnings(),
        }
    }
}

impl From<location::Error> for Error {
    fn from(error: location::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<source::Error> for Error {
    fn from(error: source::Error) -> Self {
        match error {
            source::Error::Interrupted => Self::Interrupted,
            error @ source::Error::Mounted { .. } => Self::Usage(error.to_string()),
            source::Error::Start { what, source } => Self::Start { what, source },
            source::Error::Io {
                action,
                name,
                source,
            } if is_out_of_files(&source) => Self::Io {
                action,
                path: name.into(),
                source,
            },
            error => Self::Unreachable(error),
        }
    }
}
