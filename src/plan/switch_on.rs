//! Decides if `fssync on` may switch syncing on. A pure function, like [`plan`](super).

use std::fmt;

use crate::filestorage::Tid;
use crate::human::count;
use crate::plan::outcome::Exit;

/// How a slave has changed since the last pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinceLastPass {
    /// There is no slave, or it is too short for a transaction.
    NoSlave,
    /// The sidecar has no description of the slave.
    NotRecorded,
    /// It is unchanged, except for complete transactions that were appended.
    Beyond {
        /// The transactions that were appended.
        run: Option<TransactionRun>,
        /// Whether a pass has appended the first one, and ended before it recorded that. How
        /// many of the others the pass has appended is unknown.
        begun: bool,
    },
    /// It was changed.
    Changed {
        /// Its transactions that are newer than the last one of the last pass.
        newer: Newer,
    },
}

/// The transactions at the end of a changed slave that are newer than the last one of the last
/// pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newer {
    /// These transactions; `None` if there are none.
    Run(Option<TransactionRun>),
    /// Unknown: the end of the file is torn, and to scan all of it would take too long.
    Unknown,
}

/// Consecutive transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionRun {
    /// Number of transactions.
    pub count: u64,
    /// The tid of the first one.
    pub first: Tid,
    /// The tid of the last one.
    pub last: Tid,
}

/// How much is known about a slave that may be synced again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is unchanged since the last pass, or there is none.
    Unchanged,
    /// Nothing, so the next pass compares all of it with the master.
    Nothing,
}

/// Why syncing must not be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchOnRefusal {
    /// Another program has the slave open.
    InUse {
        /// The process of that program.
        pid: u32,
    },
    /// Transactions were appended to the slave since the last pass.
    Grown {
        /// The transactions.
        run: TransactionRun,
        /// Whether they may be the master's: a pass has appended the first one, and ended before
        /// it recorded that.
        begun: bool,
    },
    /// The slave was changed since the last pass.
    Changed {
        /// Its transactions that are newer than the last pass.
        newer: Newer,
    },
}

/// Decides if a slave may be synced again without asking a person.
///
/// A pass may finish a batch, and be killed before it records that in the sidecar. The batch then
/// looks like transactions that only the slave has: the sidecar contains the header of its first
/// transaction, but not its length.
///
/// 1. If the slave has grown by that one transaction only, the slave is unchanged.
/// 2. If it has grown by more, a person is asked, perhaps without need.
///
/// Both are safe, since the next pass compares the new transactions with the master.
pub fn judge(since: SinceLastPass) -> Result<Known, SwitchOnRefusal> {
    match since {
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
                "stop what serves the slave first; `fssync on --force` overrides this check"
            }
            Self::Grown { .. } | Self::Changed { .. } => {
                "the slave was probably served after a failover: to keep its transactions, fail \
                 back (copy it to the master) first; after that, `fssync on --force`; to give \
                 them up, `fssync on --force` and then `fssync --full`, which keeps the slave \
                 under another name"
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
                        "; a pass appended the first one and ended before it could record that, \
                         so the others may be the master's too",
                    )?;
                }
                Ok(())
            }
            Self::Changed { newer } => {
                f.write_str(
                    "was changed since the last pass (it was packed or replaced, or a pass ended \
                     before it could record its work); newer than the last pass: ",
                )?;
                match newer {
                    Newer::Run(Some(run)) => run.fmt(f),
                    Newer::Run(None) => f.write_str("no transaction"),
                    Newer::Unknown => f.write_str("unknown, since the end of the file is torn"),
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
    fn transactions_that_no_pass_has_appended_are_refused() {
        for (since, known) in [
            (SinceLastPass::NoSlave, Known::Unchanged),
            (SinceLastPass::NotRecorded, Known::Nothing),
            (beyond(0, false), Known::Unchanged),
            (beyond(0, true), Known::Unchanged),
            (beyond(1, true), Known::Unchanged),
        ] {
            assert_eq!(judge(since), Ok(known), "{since:?}");
        }
        for (since, count, begun) in [
            (beyond(1, false), 1, false),
            (beyond(2, false), 2, false),
            (beyond(2, true), 2, true),
        ] {
            let run = run(count);
            assert_eq!(judge(since), Err(SwitchOnRefusal::Grown { run, begun }));
        }
        for newer in [Newer::Unknown, Newer::Run(None), Newer::Run(Some(run(3)))] {
            let changed = SinceLastPass::Changed { newer };
            assert_eq!(judge(changed), Err(SwitchOnRefusal::Changed { newer }));
        }
    }

    #[test]
    fn a_refusal_lists_the_number_and_the_first_and_last_transaction() {
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
