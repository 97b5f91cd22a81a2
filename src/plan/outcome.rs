//! The outcome of a pass: its action, the reason, and the exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::filestorage::Tid;

/// The action of a pass, or the reason for doing nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Nothing: the slave has all committed transactions.
    UpToDate,
    /// New transactions were appended.
    Append,
    /// An unfinished tail was truncated, then new transactions were appended.
    TrimAppend,
    /// The whole master was copied.
    FullCopy,
    /// The slave's own transactions were set aside, it was truncated before them, and the master's
    /// were appended.
    Rewind,
    /// Nothing: a person must decide.
    Refuse,
    /// Nothing: syncing is switched off.
    Off,
    /// Nothing: another pass is running.
    Busy,
    /// Nothing: the master is unreachable.
    Unreachable,
    /// Something else failed.
    Error,
}

impl Action {
    /// The name in JSON and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UpToDate => "up-to-date",
            Self::Append => "append",
            Self::TrimAppend => "trim-append",
            Self::FullCopy => "full-copy",
            Self::Rewind => "rewind",
            Self::Refuse => "refuse",
            Self::Off => "off",
            Self::Busy => "busy",
            Self::Unreachable => "unreachable",
            Self::Error => "error",
        }
    }
}

/// The exit codes, which are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The slave is in sync.
    Success = 0,
    /// Any other failure, for example of I/O on the slave, or a full disk.
    Failure = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// Syncing is off.
    Off = 10,
    /// Another pass is running.
    Busy = 11,
    /// The master is unreachable, which is taken for a transient error.
    Unreachable = 12,
    /// Another program has opened the slave.
    InUse = 13,
    /// `fssync status --max-age`: the slave was last in sync too long ago.
    Stale = 14,
    /// Slave and master diverged: a person must decide.
    Diverged = 20,
    /// The master is damaged. An append has copied the transactions before the damage.
    MasterDamaged = 30,
    /// The slave is damaged.
    SlaveDamaged = 31,
}

/// All exit codes, the most severe one first.
const SEVERITY: [Exit; 11] = [
    Exit::Usage,
    Exit::SlaveDamaged,
    Exit::MasterDamaged,
    Exit::Diverged,
    Exit::InUse,
    Exit::Failure,
    Exit::Stale,
    Exit::Unreachable,
    Exit::Busy,
    Exit::Off,
    Exit::Success,
];

impl Exit {
    /// The exit code of a command that works on several storages: the most severe one, and
    /// [`Self::Success`] if there is none. A wrong configuration comes first, then damage and
    /// divergence, then failures that may pass, then a switch that is off.
    #[must_use]
    pub fn most_severe(exits: impl IntoIterator<Item = Self>) -> Self {
        let rank = |exit: &Self| SEVERITY.iter().position(|it| it == exit);
        let worst = exits.into_iter().min_by_key(|exit| rank(exit));
        worst.unwrap_or(Self::Success)
    }

    /// Whether a pass of cron with this exit code prints nothing: 0, 10 and 11.
    #[must_use]
    pub fn is_quiet(self) -> bool {
        matches!(self, Self::Success | Self::Off | Self::Busy)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        (exit as u8).into()
    }
}

impl Copied {
    /// Adds the numbers of a later attempt, and takes over its position.
    pub fn add(&mut self, later: Self) {
        self.transactions += later.transactions;
        self.bytes += later.bytes;
        self.blobs += later.blobs;
        self.blob_bytes += later.blob_bytes;
        self.blobs_absent += later.blobs_absent;
        self.own_transactions += later.own_transactions;
        if later.set_aside.is_some() {
            self.set_aside = later.set_aside;
        }
        if later.position.is_some() {
            self.position = later.position;
            self.last_tid = later.last_tid;
        }
    }
}

/// The outcome of a pass.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The action.
    pub action: Action,
    /// The exit code.
    pub exit: Exit,
    /// The reason, for a person.
    pub reason: String,
    /// Advice to a person, if there is any.
    pub hint: Option<String>,
    /// The transactions that were copied.
    pub copied: Copied,
    /// Warnings, in the order in which they came up. A person should read them, whatever the
    /// exit code.
    pub warnings: Vec<String>,
}

/// The transactions that a pass copied, those that it has set aside, and the slave's position after
/// it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// The slave's position in bytes, if it is known.
    pub position: Option<u64>,
    /// The tid of the slave's last transaction, if it has one.
    pub last_tid: Option<Tid>,
    /// Number of transactions that were copied.
    pub transactions: u64,
    /// Number of bytes that were copied.
    pub bytes: u64,
    /// Number of blob files that were copied.
    pub blobs: u64,
    /// Their size in bytes.
    pub blob_bytes: u64,
    /// Number of blobs that the copied transactions refer to and that the master lacks.
    pub blobs_absent: u64,
    /// Number of the slave's own transactions that a rewind has set aside.
    pub own_transactions: u64,
    /// The file that contains them, or the old slave if a full copy has replaced it.
    pub set_aside: Option<PathBuf>,
}

#[cfg(test)]
mod tests;
