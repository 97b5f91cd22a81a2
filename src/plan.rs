//! What to do about what was seen.
//!
//! [`decide`] is a pure function of [`Observation`] and [`Policy`]: no path, no
//! clock, no handle. Facts that cost reading are gathered only where they
//! decide: until then [`decide`] answers with a [`Question`], the survey
//! answers it, and the decision is asked for again. So the whole decision
//! table stands here, and so does what each row may cost.

mod copy;
mod evidence;
mod observation;
pub mod outcome;
mod refusal;
pub mod switch_on;

use std::fmt;

pub use self::copy::{CopyDecision, CopyFindings, KeepReason, judge as judge_copy};
pub use self::evidence::{ComparisonFailure, Evidence, Loss, extended};
pub use self::observation::{
    Continuity, MasterState, MissingFromMaster, Next, Observation, SlaveState, SlaveTail, Storage,
    TailComparison, TransactionSummary,
};
pub use self::refusal::Refusal;

use crate::filestorage::{MAGIC_LEN, Tid};

/// What the person who started the pass wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Copy the whole master, whatever the slave holds.
    pub full: bool,
}

/// What [`decide`] comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Do this.
    Do(Plan),
    /// Do nothing: a person must decide.
    Refuse(Refusal),
    /// Answer this first.
    Ask(Question),
}

/// A fact that costs reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Are the slave's bytes from this offset to its position the master's?
    Prefix {
        /// Where to start.
        from: u64,
    },
    /// Which of the slave's transactions, from this position on, does the
    /// master lack?
    Compare {
        /// Where the slave's transactions in question start.
        from: u64,
    },
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The action.
    pub action: PlannedAction,
    /// Why.
    pub reason: Reason,
}

/// What to do to the slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlannedAction {
    /// Nothing.
    Nothing,
    /// Append the transactions that the master has committed after the slave's last one.
    Append(AppendPlan),
    /// Copy the whole master, and put the copy in the place of the slave.
    FullCopy(CopyPlan),
}

/// A planned append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendPlan {
    /// The slave's position, in bytes.
    pub from: u64,
    /// The tid of the slave's last transaction.
    pub last_tid: Option<Tid>,
    /// The slave's tail, which is truncated first.
    pub trim: SlaveTail,
}

/// A planned full copy. What becomes of the old slave also depends on the finished copy; see
/// [`judge_copy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyPlan {
    /// The slave that the copy is to replace.
    pub old: OldSlave,
    /// A transaction that the copy must contain; otherwise the master is not the file that was
    /// surveyed.
    pub required_tid: Option<Tid>,
}

/// What becomes of the slave that a full copy replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldSlave {
    /// There is none.
    None,
    /// The master has its last transactions: it goes, unless something is lost with it.
    Superseded,
    /// It has, or may have, something of its own: it is kept under another
    /// name.
    SetAside,
    /// A pack of the master seems to have dropped its last transactions: it is kept under
    /// another name, unless something else explains what the master lacks.
    PackedAway,
}

/// Why a plan is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The master has nothing beyond the slave's position.
    NothingNew,
    /// The master's next transaction is not finished.
    NextUnfinished,
    /// The master has more.
    MoreInMaster,
    /// There is no slave, or one without a single transaction.
    NoSlave,
    /// The master was packed or its head rewritten; it has all the slave has.
    Rewritten,
    /// The master was packed, and the slave's last transactions were dropped.
    PackedAway,
    /// `--full` was given.
    Forced,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NothingNew => "the master has nothing new",
            Self::NextUnfinished => "the master's next transaction is not finished yet",
            Self::MoreInMaster => "the master has more transactions than the slave",
            Self::NoSlave => "the slave holds no transaction yet",
            Self::Rewritten => {
                "the master was packed or rewritten, and has the slave's last transaction"
            }
            Self::PackedAway => {
                "the master was packed, and no longer has the slave's last transaction"
            }
            Self::Forced => "--full was given",
        })
    }
}

/// Decides by the table, read top-down: the first row that fits.
#[must_use]
pub fn decide(observation: &Observation, policy: Policy) -> Decision {
    if policy.full {
        return full(observation);
    }
    match &observation.slave {
        SlaveState::Missing => copy(OldSlave::None, Reason::NoSlave),
        SlaveState::Short { size, magic } if *magic || is_fragment(observation) => {
            short(observation, *size)
        }
        SlaveState::Short { .. } | SlaveState::Foreign => Decision::Refuse(Refusal::SlaveForeign),
        SlaveState::Damaged(damage) => Decision::Refuse(Refusal::SlaveDamaged(*damage)),
        SlaveState::Storage(slave) => storage(observation, slave),
    }
}

/// A start of the master that is too short for a transaction.
fn is_fragment(observation: &Observation) -> bool {
    matches!(observation.slave, SlaveState::Short { .. })
        && observation.master.matches == Some(true)
}

/// Nothing is lost with a slave that is too short for a transaction; only a
/// bare magic is all there is of a master without transactions.
fn short(observation: &Observation, size: u64) -> Decision {
    if is_fragment(observation) && size == MAGIC_LEN && observation.master.next != Next::Finished {
        return nothing(observation);
    }
    copy(OldSlave::Superseded, Reason::NoSlave)
}

fn storage(observation: &Observation, slave: &Storage) -> Decision {
    if observation.master.matches == Some(true) {
        match prefix(observation, slave) {
            Err(question) => return Decision::Ask(question),
            Ok(true) => return append(observation, slave),
            Ok(false) => {}
        }
    }
    if slave.position == MAGIC_LEN {
        return copy(OldSlave::Superseded, Reason::NoSlave);
    }
    let comparison = match compare(observation, slave) {
        Err(question) => return Decision::Ask(question),
        Ok(comparison) => comparison,
    };
    let missing = || comparison.missing.clone();
    let in_master = comparison.missing.count == 0;
    match slave.continuity {
        Continuity::Changed => return Decision::Refuse(Refusal::Changed(missing())),
        Continuity::UpTo(position) if position < slave.position && !in_master => {
            return Decision::Refuse(Refusal::Grown(missing()));
        }
        _ => {}
    }
    let is_as_left = matches!(slave.continuity, Continuity::UpTo(_));
    if is_as_left && in_master {
        return copy_rewritten(observation, slave.last_tid, Reason::Rewritten);
    }
    if is_as_left && comparison.is_kin && comparison.is_packed && !observation.master.was_refused {
        return copy(OldSlave::PackedAway, Reason::PackedAway);
    }
    if comparison.master_last < slave.last_tid {
        return Decision::Refuse(Refusal::FallenBehind {
            master_last: comparison.master_last,
            missing: missing(),
        });
    }
    Decision::Refuse(Refusal::Diverged(missing()))
}

fn full(observation: &Observation) -> Decision {
    let slave = match &observation.slave {
        SlaveState::Missing => return copy(OldSlave::None, Reason::Forced),
        SlaveState::Short { .. } if is_fragment(observation) => {
            return copy(OldSlave::Superseded, Reason::Forced);
        }
        SlaveState::Short { .. } | SlaveState::Foreign | SlaveState::Damaged(_) => {
            return copy(OldSlave::SetAside, Reason::Forced);
        }
        SlaveState::Storage(slave) if slave.position == MAGIC_LEN => {
            return copy(OldSlave::Superseded, Reason::Forced);
        }
        SlaveState::Storage(slave) => slave,
    };
    if observation.master.matches == Some(true) {
        match prefix(observation, slave) {
            Err(question) => return Decision::Ask(question),
            Ok(true) => {
                return copy_containing(slave.last_tid, OldSlave::Superseded, Reason::Forced);
            }
            Ok(false) => {}
        }
    }
    if !matches!(slave.continuity, Continuity::UpTo(_)) {
        return copy(OldSlave::SetAside, Reason::Forced);
    }
    match compare(observation, slave) {
        Err(question) => Decision::Ask(question),
        Ok(comparison) if comparison.missing.count == 0 => {
            copy_rewritten(observation, slave.last_tid, Reason::Forced)
        }
        Ok(_) => copy(OldSlave::SetAside, Reason::Forced),
    }
}

/// Whether the whole slave is the start of the master. Head and tail are; what
/// lies between is vouched for by the sidecar, or read.
fn prefix(observation: &Observation, slave: &Storage) -> Result<bool, Question> {
    let vouched = match slave.continuity {
        Continuity::UpTo(position) if observation.master.same_file => position,
        _ => 0,
    };
    if vouched >= slave.position {
        return Ok(true);
    }
    observation
        .prefix_equal
        .ok_or(Question::Prefix { from: vouched })
}

/// What of the slave's the master lacks; all beyond what was left is asked for.
fn compare<'a>(
    observation: &'a Observation,
    slave: &Storage,
) -> Result<&'a TailComparison, Question> {
    let from = match slave.continuity {
        Continuity::UpTo(position) => position,
        Continuity::Unknown | Continuity::Changed => slave.position,
    };
    observation
        .comparison
        .as_ref()
        .ok_or(Question::Compare { from })
}

fn append(observation: &Observation, slave: &Storage) -> Decision {
    if observation.master.next != Next::Finished {
        return nothing(observation);
    }
    Decision::Do(Plan {
        action: PlannedAction::Append(AppendPlan {
            from: slave.position,
            last_tid: slave.last_tid,
            trim: slave.tail,
        }),
        reason: Reason::MoreInMaster,
    })
}

fn nothing(observation: &Observation) -> Decision {
    Decision::Do(Plan {
        action: PlannedAction::Nothing,
        reason: match observation.master.next {
            Next::Unfinished => Reason::NextUnfinished,
            Next::End | Next::Finished => Reason::NothingNew,
        },
    })
}

/// A full copy of a master that need not contain any of the slave's transactions.
fn copy(old: OldSlave, reason: Reason) -> Decision {
    copy_containing(None, old, reason)
}

/// A full copy of a master that contains the slave's last transaction. If the master was damaged
/// before, it may have been repaired since, and a pack can hide a repair: so the slave is kept.
fn copy_rewritten(observation: &Observation, last_tid: Option<Tid>, reason: Reason) -> Decision {
    let old = if observation.master.was_damaged {
        OldSlave::SetAside
    } else {
        OldSlave::Superseded
    };
    copy_containing(last_tid, old, reason)
}

fn copy_containing(required_tid: Option<Tid>, old: OldSlave, reason: Reason) -> Decision {
    Decision::Do(Plan {
        action: PlannedAction::FullCopy(CopyPlan { old, required_tid }),
        reason,
    })
}

#[cfg(test)]
mod tests;
