//! Why a command stopped: one error type, and the one place that maps it to an exit code,
//! a hint and warnings.

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
use crate::source::blobs::{BlobFailure, BlobsProblem};
use crate::source::{self, location};

/// The error of an operation that not even root may perform.
const EPERM: i32 = rustix::io::Errno::PERM.raw_os_error();

/// Why a pass, or another command, stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments are invalid.
    #[error("{0}")]
    Usage(String),
    /// Syncing is switched off.
    #[error("syncing is off: {0}")]
    Off(OffReason),
    /// Another pass holds the pass lock.
    #[error("another pass is at work on {}{}", .slave.display(), .pass.in_words())]
    Busy {
        /// The slave.
        slave: PathBuf,
        /// The other pass.
        pass: RunningPass,
    },
    /// The master is a copy of the slave that has no newer transactions: the arguments are
    /// probably swapped.
    #[error("MASTER {master} is a copy of SLAVE {}, without newer transactions", .slave.display())]
    Swapped {
        /// The master's name.
        master: String,
        /// The slave.
        slave: PathBuf,
    },
    /// The master does not respond.
    #[error("the master is unreachable")]
    Unreachable(#[source] source::Error),
    /// The master's blob directory cannot be used until the configuration changes.
    #[error(transparent)]
    MasterBlobs(source::Error),
    /// ZODB, or another program, holds ZODB's lock on the slave.
    #[error("{slave} is in use{}", by(*.pid))]
    InUse {
        /// The slave.
        slave: PathBuf,
        /// Its process, if the kernel reports it.
        pid: Option<u32>,
    },
    /// The plan refuses to change the slave.
    #[error("{0}")]
    Refused(Refusal),
    /// `fssync on` refuses to switch syncing on.
    #[error("not switching syncing on: {slave} {why}")]
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
        /// The position and the kind of damage.
        damage: MasterDamage,
    },
    /// A blob of the master cannot be read.
    #[error("{master} has a blob that cannot be read: {why}")]
    BlobUnreadable {
        /// The master's name.
        master: String,
        /// The file and the cause.
        why: String,
    },
    /// An operation on a local file failed.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// The operation, with the position if there is one.
        action: String,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The owner of a file beside the slave could not be set to the slave's owner.
    #[error("cannot set the owner of {} to uid {uid}, gid {gid}, as of the slave", .path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// The required user.
        uid: u32,
        /// The required group.
        gid: u32,
        /// The cause.
        source: io::Error,
    },
    /// A file attribute of the slave or of its directory forbids changes.
    #[error("{} has the attribute {attribute}, and cannot be replaced", .path.display())]
    Protected {
        /// The file or directory.
        path: PathBuf,
        /// The attribute.
        attribute: &'static str,
        /// The option of `chattr` that removes the attribute.
        option: &'static str,
    },
    /// There is not enough free space.
    #[error("{} has {} free, {what} needs {}", .directory.display(), bytes(*.free), bytes(*.needed))]
    NoSpace {
        /// The slave's directory.
        directory: PathBuf,
        /// The operation that needs the space.
        what: &'static str,
        /// The free space in bytes.
        free: u64,
        /// The required space in bytes.
        needed: u64,
    },
    /// The slave's directory is on a different file system than before.
    #[error(
        "{} is missing or on a different file system than when fssync started (unmounted?), \
         and does not contain the slave of the last pass",
        .directory.display()
    )]
    Moved {
        /// The slave's directory.
        directory: PathBuf,
    },
    /// The slave's blob directory is missing, or is not the one that earlier passes wrote.
    #[error("{} is not the slave's blob directory: {why}", .directory.display())]
    BlobsMoved {
        /// The path of the blob directory.
        directory: PathBuf,
        /// The reason.
        why: &'static str,
    },
    /// The slave changed after it was surveyed. A new survey may succeed.
    #[error("{slave} was changed by another program: {what}")]
    SlaveChanged {
        /// The slave.
        slave: PathBuf,
        /// The observed change.
        what: String,
    },
    /// The master changed after it was surveyed. A new survey may succeed.
    #[error("{master} changed while it was being copied: {what}")]
    MasterChanged {
        /// The master's name.
        master: String,
        /// The observed change.
        what: &'static str,
    },
    /// A thread or a program could not be started.
    #[error("cannot start {what}")]
    Start {
        /// The thread or program.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// A signal asked fssync to stop.
    #[error("interrupted by a signal")]
    Interrupted,
}

/// Damage in the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MasterDamage {
    /// A record that ZODB cannot read.
    #[error("{0}")]
    Record(#[from] Damage),
    /// A transaction that extends past the end of the file and is not marked as unfinished.
    #[error(
        "transaction record at {0}: reaches past the end of the file \
         and is not marked as unfinished"
    )]
    Torn(u64),
}

/// The hint if a process has reached its limit on open files.
pub(crate) const RAISE_OPEN_FILES: &str = "raise the limit on open files (ulimit -n, LimitNOFILE=)";

/// Whether the limit on open files of the process or of the machine is reached.
pub(crate) fn is_out_of_files(error: &io::Error) -> bool {
    let limits = [Errno::MFILE, Errno::NFILE];
    Errno::from_io_error(error).is_some_and(|it| limits.contains(&it))
}

fn by(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" by process {pid}"))
}

impl Error {
    /// A failed operation on a local file.
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

    /// A blob of this master that could not be read. `why` is the file and the cause; only the
    /// file, if permission is denied.
    pub(crate) fn of_blob(master: &str, failure: BlobFailure, why: String) -> Self {
        let master = master.to_owned();
        match failure {
            BlobFailure::Denied => Self::from(source::Error::Blobs {
                name: master,
                problem: BlobsProblem::Denied { path: why },
            }),
            BlobFailure::Unreadable => Self::BlobUnreadable { master, why },
            BlobFailure::Changed => Self::MasterChanged {
                master,
                what: "a blob was written while it was read",
            },
        }
    }

    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::Swapped { .. } | Self::MasterBlobs(_) => Exit::Usage,
            Self::Off(_) => Exit::Off,
            Self::Busy { .. } => Exit::Busy,
            Self::Unreachable(_) | Self::MasterChanged { .. } => Exit::Unreachable,
            Self::InUse { .. } => Exit::InUse,
            Self::Refused(refusal) => refusal.exit(),
            Self::NotSwitchedOn { why, .. } => why.exit(),
            Self::MasterDamaged { .. } | Self::BlobUnreadable { .. } => Exit::MasterDamaged,
            Self::Io { .. }
            | Self::Owner { .. }
            | Self::Protected { .. }
            | Self::NoSpace { .. }
            | Self::Moved { .. }
            | Self::BlobsMoved { .. }
            | Self::SlaveChanged { .. }
            | Self::Start { .. }
            | Self::Interrupted => Exit::Failure,
        }
    }

    /// The action that a report names for a pass that stopped with this error.
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

    /// What the administrator can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Swapped { .. } => {
                "swap the two arguments; to replace SLAVE with MASTER, as in a failback, run \
                 `fssync --full`"
            }
            Self::InUse { .. } => {
                "if ZEO serves the slave, switch syncing off with `fssync off` before ZEO is \
                 started; or are MASTER and SLAVE swapped?"
            }
            Self::Refused(refusal) => return Some(refusal.hint()),
            Self::NotSwitchedOn { why, .. } => why.hint(),
            Self::Unreachable(error) | Self::MasterBlobs(error) => error.hint()?,
            Self::MasterDamaged { .. } => {
                "the slave may have an intact copy of the damaged data: compare the two with \
                 `fssync verify SLAVE --against MASTER` before you repair the master with \
                 fsrecover, which drops damaged data"
            }
            Self::BlobUnreadable { .. } => {
                "no transaction that refers to it becomes visible in the slave: check the \
                 master's disk, and restore the blob from a backup"
            }
            Self::Io { source, .. } if source.kind() == ErrorKind::FileTooLarge => {
                "raise the limit on the size of files (ulimit -f, LimitFSIZE=), or use a file \
                 system that supports larger files"
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
                "a file attribute may forbid it: run lsattr on the file and on its directory"
            }
            Self::Protected { path, option, .. } => {
                return Some(format!("chattr {option} {}", path.display()));
            }
            Self::Owner { .. } => "run fssync as root, or as the user that owns the slave's files",
            Self::NoSpace { .. } => "free some space, or move the slave to a larger file system",
            Self::Moved { .. } => {
                "mount the slave's file system again; if the change is intended, restart fssync"
            }
            Self::BlobsMoved { .. } => {
                "is its disk mounted? If the directory was replaced on purpose, run a pass with \
                 --recheck-blobs"
            }
            Self::SlaveChanged { .. } => {
                "another program writes to the slave without ZODB's lock: find and stop it"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// Warnings that deserve attention even if the exit code does not.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        match self {
            Self::Off(off) => off.warning().into_iter().collect(),
            Self::Busy { pass, .. } => pass.warning().into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// Whether a new attempt may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(error) => error.is_transient(),
            Self::MasterChanged { .. } | Self::SlaveChanged { .. } => true,
            _ => false,
        }
    }

    /// Whether the master is unreachable. Data that was copied before is then kept.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    /// The message and its causes, on one line.
    #[must_use]
    pub fn display_chain(&self) -> String {
        source::display_chain(self)
    }
}

impl From<&Error> for Outcome {
    /// The outcome of a pass that stopped before it copied anything.
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
            source::Error::Blobs { ref problem, .. } if problem.is_configuration() => {
                Self::MasterBlobs(error)
            }
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
