//! Why nothing is done, in words.

use std::fmt;

use super::observation::MissingFromMaster;
use crate::filestorage::Tid;
use crate::filestorage::scan::Damage;
use crate::plan::outcome::Exit;

/// Why nothing is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The slave is no FileStorage.
    SlaveForeign,
    /// ZODB would not open the slave.
    SlaveDamaged(Damage),
    /// The slave has transactions that the master lacks, made since the last
    /// pass.
    Grown(MissingFromMaster),
    /// The slave is not what the last pass left.
    Changed(MissingFromMaster),
    /// The master's last transaction is older than the slave's.
    FallenBehind {
        /// The master's last transaction.
        master_last: Option<Tid>,
        /// What the slave has beyond.
        missing: MissingFromMaster,
    },
    /// The slave and the master have gone different ways.
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

    /// What a person can do about it. If the slave has something that the master lacks, it
    /// may be the live database, named in the wrong place: `--full` would then replace it.
    #[must_use]
    pub fn hint(&self) -> String {
        let advice = match self {
            Self::SlaveForeign | Self::SlaveDamaged(_) => {
                return "look at the slave; `fssync --full` sets it aside and copies the master \
                        again"
                    .to_owned();
            }
            Self::Grown(_) | Self::Changed(_) => {
                "the slave was probably served after a failover: to keep what it has, fail back \
                 (copy it to the master) first; to give it up, run `fssync --full`, which sets \
                 it aside and copies the master again"
            }
            Self::FallenBehind { .. } => {
                "the master was probably restored from a backup, or its file system is not \
                 mounted: put the right file in its paths, or, if the master is right as it \
                 is, run `fssync --full`, which sets the slave aside"
            }
            Self::Diverged(_) => {
                "find out which of the two is right; if it is the master, run `fssync --full`, \
                 which sets the slave aside"
            }
        };
        format!("are MASTER and SLAVE swapped on the command line? If not: {advice}")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SlaveForeign => {
                f.write_str("the slave is no FileStorage: it does not start with FS21 or FS30")
            }
            Self::SlaveDamaged(damage) => write!(f, "the slave is damaged: {damage}"),
            Self::Grown(missing) => {
                write!(f, "the slave has grown since last syncing: {missing}")
            }
            Self::Changed(missing) => write!(
                f,
                "the slave is not what the last pass left, and not a prefix of the master: \
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
                write!(
                    f,
                    "the slave and the master have gone different ways: {missing}"
                )
            }
        }
    }
}
