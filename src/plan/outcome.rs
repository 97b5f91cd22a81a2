//! How a pass ends: what was done, why, and the exit code that says so.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::filestorage::Tid;

/// What a pass did, or would not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Nothing: the slave holds all that is committed.
    UpToDate,
    /// New transactions were appended.
    Append,
    /// An unfinished tail was cut, then new transactions were appended.
    TrimAppend,
    /// The whole master was copied.
    FullCopy,
    /// Nothing: a person must decide.
    Refuse,
    /// Nothing: syncing is switched off.
    Off,
    /// Nothing: another pass is at work.
    Busy,
    /// Nothing: the master does not answer.
    Unreachable,
    /// Something else failed.
    Error,
}

/// The exit codes. They are API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// In sync, or made so.
    Success = 0,
    /// Any other failure, the slave's I/O or space included.
    Failure = 1,
    /// Usage or configuration.
    Usage = 2,
    /// Syncing is off.
    Off = 10,
    /// Another pass is running.
    Busy = 11,
    /// The master is unreachable, for now.
    Unreachable = 12,
    /// The slave is opened by another program.
    InUse = 13,
    /// `fssync status --max-age`: the slave was last in sync too long ago.
    Stale = 14,
    /// The slave diverged: a person must decide.
    Diverged = 20,
    /// The master is damaged; all before the damage is replicated.
    MasterDamaged = 30,
    /// The slave is damaged.
    SlaveDamaged = 31,
}

impl Exit {
    /// Whether cron has nothing to say about it: 0, 10 and 11.
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
    /// Counts in what another attempt copied, and stands where it stands.
    pub fn add(&mut self, later: Self) {
        self.transactions += later.transactions;
        self.bytes += later.bytes;
        if later.position.is_some() {
            self.position = later.position;
            self.last_tid = later.last_tid;
        }
    }
}

/// How a pass ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was done.
    pub action: Action,
    /// The exit code.
    pub exit: Exit,
    /// Why, in words.
    pub reason: String,
    /// What a person can do about it.
    pub hint: Option<String>,
    /// What was copied.
    pub copied: Copied,
    /// Warnings, in the order in which they came up: each is worth a person's attention,
    /// whatever the exit code.
    pub warnings: Vec<String>,
}

/// What a pass copied, and where the slave stands after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// The slave's position in bytes, if it is known.
    pub position: Option<u64>,
    /// The tid of the slave's last transaction, if it has one.
    pub last_tid: Option<Tid>,
    /// How many transactions were copied.
    pub transactions: u64,
    /// How many bytes were copied.
    pub bytes: u64,
}
