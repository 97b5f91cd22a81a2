//! Why `fssync on` leaves the switches as they are: a pure decision.

use std::fmt;

use crate::filestorage::Tid;
use crate::human::count;
use crate::plan::outcome::Exit;

/// What a slave holds beyond what the last pass left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinceLastPass {
    /// There is no slave, or one too short for a transaction.
    NoSlave,
    /// No sidecar says what a pass left.
    NotRecorded,
    /// It is what was left, with these whole transactions behind it.
    Beyond {
        /// They.
        run: Option<TransactionRun>,
        /// Whether the first of them was appended by a pass that could not note
        /// it any more; how many of the others were, cannot be told.
        begun: bool,
    },
    /// It is not what was left.
    Changed {
        /// Its transactions that are newer than the last one that was left.
        newer: Newer,
    },
}

/// The transactions at the end of a slave that are newer than the last one that a
/// pass left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newer {
    /// These.
    TransactionRun(Option<TransactionRun>),
    /// Its end is torn, and to read it all takes too long.
    Unknown,
}

/// Some transactions in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionRun {
    /// How many.
    pub count: u64,
    /// The first one.
    pub first: Tid,
    /// The last one.
    pub last: Tid,
}

/// What is known of a slave that may be synced again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is what the last pass left, or there is none.
    Unchanged,
    /// Nothing: the next pass compares it with the master from its start.
    Nothing,
}

/// Why syncing is not switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchOnRefusal {
    /// Another program has the slave open.
    InUse {
        /// Its process.
        pid: u32,
    },
    /// The slave has transactions behind what the last pass left.
    Grown {
        /// They.
        run: TransactionRun,
        /// Whether they may be the master's, appended by a pass that was ended
        /// before it could note it.
        begun: bool,
    },
    /// The slave is not what the last pass left.
    Changed {
        /// What it has that is newer.
        newer: Newer,
    },
}

/// Whether a slave may be synced again without a thought.
///
/// A batch that a pass finished, and was killed before it noted so, looks like
/// something of the slave's own: only the header of its first transaction is
/// known, not how far it reached. If that transaction is all there is, it is
/// nothing of its own. Otherwise a person is asked once too often; nothing is
/// at stake either way, since a pass compares the slave with the master.
pub fn judge(own: SinceLastPass) -> Result<Known, SwitchOnRefusal> {
    match own {
        SinceLastPass::NoSlave
        | SinceLastPass::Beyond { run: None, .. }
        | SinceLastPass::Beyond {
            run: Some(TransactionRun { count: 1, .. }),
            begun: true,
        } => Ok(Known::Unchanged),
        SinceLastPass::NotRecorded => Ok(Known::Nothing),
        SinceLastPass::Beyond {
            run: Some(run),
            begun,
        } => Err(SwitchOnRefusal::Grown { run, begun }),
        SinceLastPass::Changed { newer } => Err(SwitchOnRefusal::Changed { newer }),
    }
}

impl SwitchOnRefusal {
    /// The exit code.
    #[must_use]
    pub fn exit(self) -> Exit {
        match self {
            Self::InUse { .. } => Exit::InUse,
            Self::Grown { .. } | Self::Changed { .. } => Exit::Diverged,
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::InUse { .. } => {
                "stop what serves the slave first; `fssync on --force` switches on all the same"
            }
            Self::Grown { .. } | Self::Changed { .. } => {
                "the slave was probably served after a failover: to keep what it has, fail back \
                 (copy it to the master) first; after that, `fssync on --force`; to give it up, \
                 `fssync on --force` and then `fssync --full`, which sets it aside"
            }
        }
    }
}

impl fmt::Display for SwitchOnRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { pid } => write!(f, "is in use by process {pid}"),
            Self::Grown { run, begun } => {
                write!(f, "has grown since last syncing: {run}")?;
                if *begun {
                    f.write_str(
                        "; the first was appended by a pass that was ended before it noted so, \
                         and the others may be the master's too",
                    )?;
                }
                Ok(())
            }
            Self::Changed { newer } => {
                f.write_str(
                    "is not what the last pass left (it was packed or replaced, or a pass was \
                     ended before it noted what it did); newer than what was left: ",
                )?;
                match newer {
                    Newer::TransactionRun(Some(run)) => run.fmt(f),
                    Newer::TransactionRun(None) => f.write_str("no transaction"),
                    Newer::Unknown => {
                        f.write_str("how much cannot be told, since the end of the file is torn")
                    }
                }
            }
        }
    }
}

impl fmt::Display for TransactionRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, first {}, last {}",
            count(self.count, "transaction"),
            self.first.with_time(),
            self.last.with_time(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filestorage::Tid;

    fn run(count: u64) -> TransactionRun {
        TransactionRun {
            count,
            first: Tid(1),
            last: Tid(count),
        }
    }

    fn beyond(count: u64, begun: bool) -> SinceLastPass {
        let run = (count > 0).then(|| run(count));
        SinceLastPass::Beyond { run, begun }
    }

    #[test]
    fn only_what_no_pass_can_have_left_is_the_slaves_own() {
        for (own, known) in [
            (SinceLastPass::NoSlave, Known::Unchanged),
            (SinceLastPass::NotRecorded, Known::Nothing),
            (beyond(0, false), Known::Unchanged),
            (beyond(0, true), Known::Unchanged),
            (beyond(1, true), Known::Unchanged),
        ] {
            assert_eq!(judge(own), Ok(known), "{own:?}");
        }
        for (own, count, begun) in [
            (beyond(1, false), 1, false),
            (beyond(2, false), 2, false),
            (beyond(2, true), 2, true),
        ] {
            let run = run(count);
            assert_eq!(judge(own), Err(SwitchOnRefusal::Grown { run, begun }));
        }
        for newer in [
            Newer::Unknown,
            Newer::TransactionRun(None),
            Newer::TransactionRun(Some(run(3))),
        ] {
            let changed = SinceLastPass::Changed { newer };
            assert_eq!(judge(changed), Err(SwitchOnRefusal::Changed { newer }));
        }
    }

    #[test]
    fn transactions_are_told_by_number_first_and_last() {
        let grown = SwitchOnRefusal::Grown {
            run: TransactionRun {
                count: 2,
                first: "04060072f24cbb52".parse().unwrap(),
                last: "04060072f24cbb53".parse().unwrap(),
            },
            begun: false,
        };
        assert_eq!(
            grown.to_string(),
            "has grown since last syncing: 2 transactions, first 04060072f24cbb52 \
             (2026-01-05T12:34:56.789Z), last 04060072f24cbb53 (2026-01-05T12:34:56.789Z)"
        );
    }
}
