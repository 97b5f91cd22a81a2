//! The reasons to do nothing until a person has decided.

use std::fmt;

use super::observation::MissingFromMaster;
use crate::filestorage::Tid;
use crate::filestorage::scan::Damage;
use crate::plan::outcome::Exit;

/// Why a pass refuses to touch the slave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The slave is not a FileStorage.
    SlaveForeign,
    /// The slave is damaged: ZODB would refuse to open it.
    SlaveDamaged(Damage),
    /// Since the last pass, the slave has got transactions that the master lacks.
    Grown(MissingFromMaster),
    /// The slave changed since the last pass, other than by growth.
    Changed(MissingFromMaster),
    /// The master's last transaction is older than the slave's.
    FallenBehind {
        /// The tid of the master's last transaction.
        master_last: Option<Tid>,
        /// The slave's transactions that the master lacks.
        missing: MissingFromMaster,
    },
    /// The slave and the master have diverged.
    Diverged(MissingFromMaster),
}

impl Refusal {
    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::SlaveForeign | Self::SlaveDamaged(_) => Exit::SlaveDamaged,
            _ => Exit::Diverged,
        }
    }

    /// What a person can do about it. A slave that has data which the master lacks may be the
    /// live database, named in the place of the other. `--full` would then replace it, so the
    /// hint asks first.
    #[must_use]
    pub fn hint(&self) -> String {
        let advice = match self {
            Self::SlaveForeign | Self::SlaveDamaged(_) => {
                return "find out what happened to the slave; `fssync --full` keeps it under another \
                        name, and copies the master again"
                    .to_owned();
            }
            Self::Grown(_) | Self::Changed(_) => {
                "the slave was probably served after a failover: to keep its transactions, fail \
                 back (copy it to the master) first; to give them up, run `fssync --full`, which \
                 keeps the slave under another name and copies the master again"
            }
            Self::FallenBehind { .. } => {
                "the master was probably restored from a backup, or its file system is not \
                 mounted: put the right file in its place, or, if the master is the right \
                 file, run `fssync --full`, which keeps the slave under another name"
            }
            Self::Diverged(_) => {
                "find out which of the two is right; if it is the master, run `fssync --full`, \
                 which keeps the slave under another name"
            }
        };
        format!("are MASTER and SLAVE swapped on the command line? If not: {advice}")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SlaveForeign => {
                f.write_str("the slave is not a FileStorage: bad magic (expected FS21 or FS30)")
            }
            Self::SlaveDamaged(damage) => write!(f, "the slave is damaged: {damage}"),
            Self::Grown(missing) => {
                write!(f, "the slave has grown since last syncing: {missing}")
            }
            Self::Changed(missing) => write!(
                f,
                "the slave was changed since the last pass, and is not a prefix of the master: \
                 {missing}"
            ),
            Self::FallenBehind {
                master_last,
                missing,
            } => {
                f.write_str("the master has fallen behind the slave: its last transaction is ")?;
                match master_last {
                    Some(tid) => f.write_str(&tid.with_time())?,
                    None => f.write_str("none")?,
                }
                write!(f, "; {missing}")
            }
            Self::Diverged(missing) => {
                write!(f, "the slave and the master have diverged: {missing}")
            }
        }
    }
}
