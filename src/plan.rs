//! Decides what a pass does.
//!
//! [`decide`] is a pure function of an [`Observation`] and a [`Policy`]: it opens no file and
//! reads no clock. Some facts are expensive to read. [`decide`] asks for them with a
//! [`Question`], and only if the answer matters: the survey reads the fact, adds it to the
//! observation, and calls [`decide`] again. So this module contains all decisions, and also how
//! much each of them may read. [`judge_copy`] decides about a full copy once it is finished.
//!
//! # The decision table
//!
//! The first row that fits decides.
//!
//! | | slave | further condition | decision |
//! | --- | --- | --- | --- |
//! | 1 | missing or empty | | full copy |
//! | 2 | the master's magic and nothing else | the master has no finished transaction | nothing |
//! | 3 | too short for a transaction | it starts with a magic, or is a prefix of the master | full copy |
//! | 4 | not a FileStorage | | refuse |
//! | 5 | damaged | | refuse |
//! | 6 | a prefix of the master | the master has more finished transactions | append |
//! | 7 | a prefix of the master | it has none | nothing |
//! | 8 | has no transactions | | full copy |
//! | 9 | changed since the last pass | | refuse |
//! | 10 | grew since the last pass | the master lacks one of its last transactions | refuse |
//! | 11 | unchanged or grew | the master has its last transactions | full copy |
//! | 12 | unchanged | the master was packed, and seems to have dropped its last transactions | full copy |
//! | 13 | any other | the master's last transaction is older | refuse |
//! | 14 | any other | | refuse |
//!
//! With `--full`, a pass makes the slave the master's, whatever it contains, and never refuses
//! because of the slave. It does not believe the sidecar: digests prove which bytes both have. With
//! `--whole`, it copies every byte, and rows F5 and F6 do not fit. The table decides the action,
//! and if the old slave is kept under another name:
//!
//! | | slave | action | old slave |
//! | --- | --- | --- | --- |
//! | F1 | missing or empty | full copy | does not exist |
//! | F2 | too short for a transaction, and a prefix of the master | full copy | removed |
//! | F3 | not a FileStorage, or damaged | full copy | kept |
//! | F4 | has no transactions | full copy | removed |
//! | F5 | a prefix of the master | append, or nothing, as in rows 6 and 7 | grows |
//! | F6 | has a [fork point](Fork) | rewind | its transactions after that are kept |
//! | F7 | `--whole`: a prefix of the master | full copy | removed, unless the copy turns out to lack something |
//! | F8 | unchanged or grew, and the master has its last transactions | full copy | as in row 11 |
//! | F9 | any other | full copy | kept |
//!
//! *Row F6* applies after a failover: the slave is the old master, and has transactions that the
//! new one lacks. They are set aside in a file of their own, and the slave is truncated at the fork
//! point. This needs the space of these transactions only. The reasons for its conditions
//! ([`NoFork`]):
//!
//! 1. All bytes before the fork point are proven equal, because they stay.
//! 2. The master has none of the transactions after it. Otherwise the master was packed, or the
//!    slave is damaged, and the file that is set aside would not be what its name says.
//! 3. The prefix is at least as long as the rest. Otherwise the two files have little in common,
//!    and the old slave is more useful as a whole.
//!
//! After a rewind, the pass surveys again, and the first table decides. The sidecar then describes
//! the slave up to the fork point, so the prefix is not compared again.
//!
//! Three terms need a definition:
//!
//! - *A prefix of the master*: the first and the last bytes of the slave are compared in every
//!   pass. The sidecar vouches for the others up to the position that the last pass recorded,
//!   if the master is still the same file. The rest is compared by [`Question::Prefix`].
//! - *Changed, unchanged, grew*: the sidecar describes the slave as the last pass left it; see
//!   [`Continuity`]. Without a sidecar, nothing is known, and rows 9 to 12 and F8 do not fit.
//! - *The last transactions*: those after the newest one that both files have, and all that the
//!   slave has got since the last pass. [`Question::Compare`] compares them by their tids.
//!
//! A full copy of rows 11 and 12 is judged once it is finished, by [`judge_copy`]:
//!
//! - *Row 11*: the old slave is removed if a pack explains every transaction that the copy lacks.
//!   It is kept if a pass has found the master damaged before: a repair may have dropped
//!   transactions since, and a pack can hide that.
//! - *Row 12* fits if [`ForkComparison::is_kin`] and [`ForkComparison::is_packed`] are true. The
//!   old slave is kept, or the pass refuses after all. Once a pass has refused a master, row 12
//!   does not fit any more: a pack of that master must not turn the refusal into an acceptance.
//!
//! # A pack that cannot be distinguished from a restored backup
//!
//! Row 12 needs proof of a pack: a transaction of status `p` that the slave has with another
//! status, or that is newer than the slave. An example is the undo of a change to an object that
//! was deleted after that change. The next pack drops the undo, because nothing refers to the
//! object, and keeps the deletion or a newer change of the same parent. This transaction is the
//! proof. The slave has it with another status, because it is newer than the change, and ZODB
//! undoes only transactions that are not packed.
//!
//! There is no proof if all transactions since an earlier pack wrote only objects to which nothing
//! in the file refers. The next pack drops them all, and row 13 refuses the master. To accept it
//! if the packed part has none of these objects would be wrong:
//!
//! 1. The pack leaves the same bytes as a backup that was made after the earlier pack. So nothing
//!    in the master shows if it was packed, or restored from that backup.
//! 2. Assume that it was restored. The packed part refers to none of the objects, if it was packed
//!    with garbage collection. But another database may refer to them, and packs do not follow
//!    such references. After a pack without garbage collection, the packed part itself may refer
//!    to an object that was missing, and that somebody has created again since.
//! 3. The files beside the master do not decide either. A pack renames the old file to
//!    `Data.fs.old`, but so may a person who restores a backup.
//!
//! So only a person can decide, with `--full`.

mod copy;
mod evidence;
mod observation;
pub mod outcome;
mod refusal;
pub mod remind;
pub mod switch_on;

use std::fmt;

pub use self::copy::{CopyDecision, CopyFindings, KeepReason, judge as judge_copy};
pub use self::evidence::{ComparisonFailure, Evidence, Loss, extended};
pub use self::observation::{
    CommonBytes, Continuity, Fork, ForkComparison, MasterState, MissingFromMaster, Next, NoFork,
    Observation, SlaveState, SlaveTail, Storage, TransactionSummary,
};
pub use self::refusal::Refusal;

use crate::filestorage::{MAGIC_LEN, Tid};

/// The options of a pass that affect its decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Make the slave the master's, whatever it contains.
    pub full: bool,
    /// With `full`: copy every byte.
    pub whole: bool,
}

/// The result of [`decide`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Carry out this plan.
    Do(Plan),
    /// Do nothing: a person must decide.
    Refuse(Refusal),
    /// Answer this question, and call [`decide`] again.
    Ask(Question),
}

/// A fact that is expensive to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Does the master have the same bytes as the slave, from this offset to the slave's
    /// position?
    Prefix {
        /// The offset in bytes.
        from: u64,
    },
    /// Which of the slave's last transactions does the master lack?
    Compare {
        /// All transactions of the slave that end beyond this offset are compared, in bytes.
        from: u64,
    },
    /// Up to which transaction boundary does the master have the same bytes as the slave, and which
    /// transactions of the slave are after it?
    Fork,
}

/// The action of a pass, and the reason for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The action.
    pub action: PlannedAction,
    /// Why it is taken.
    pub reason: Reason,
}

/// What a pass does to the slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlannedAction {
    /// Nothing.
    Nothing,
    /// Append the transactions that the master has committed after the slave's last one.
    Append(AppendPlan),
    /// Set the slave's transactions after a fork point aside, and truncate it there. Then survey
    /// again.
    Rewind(RewindPlan),
    /// Copy the whole master, and put the copy in the place of the slave.
    FullCopy(CopyPlan),
}

/// A planned rewind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RewindPlan {
    /// The fork point, and the transactions after it.
    pub fork: Fork,
    /// The slave's position, in bytes: the end of these transactions.
    pub position: u64,
    /// The slave's tail, which is truncated too.
    pub tail: SlaveTail,
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

/// The slave that a full copy replaces, as far as it is known before the copy is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldSlave {
    /// There is none.
    None,
    /// The master has its last transactions. It is removed, unless the copy lacks some of its
    /// data and no pack explains that.
    Superseded,
    /// It has, or may have, data that the master lacks. It is kept under another name.
    SetAside,
    /// A pack of the master seems to have dropped its last transactions. It is kept under
    /// another name, or stays the slave if the copy proves that no pack dropped them.
    PackedAway,
}

/// The reason for a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The master has nothing after the slave's position.
    NothingNew,
    /// The master's next transaction is not finished.
    NextUnfinished,
    /// The master has more transactions.
    MoreInMaster,
    /// There is no slave, or it has no transactions.
    NoSlave,
    /// The master was packed or otherwise rewritten, and has the slave's last transactions.
    Rewritten,
    /// The master was packed, and the slave's last transactions were dropped.
    PackedAway,
    /// `--full` was given.
    Forced,
    /// `--full` was given, and the slave has transactions of its own after a fork point.
    Forked,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NothingNew => "the master has nothing new",
            Self::NextUnfinished => "the master's next transaction is not finished yet",
            Self::MoreInMaster => "the master has more transactions than the slave",
            Self::NoSlave => "the slave has no transactions yet",
            Self::Rewritten => {
                "the master was packed or rewritten, and has the slave's last transaction"
            }
            Self::PackedAway => {
                "the master was packed, and no longer has the slave's last transaction"
            }
            Self::Forced => "--full was given",
            Self::Forked => {
                "--full was given, and the slave had transactions of its own, which are set aside"
            }
        })
    }
}

/// Decides by the table above.
#[must_use]
pub fn decide(observation: &Observation, policy: Policy) -> Decision {
    if policy.full {
        return full(observation, policy);
    }
    match &observation.slave {
        // Row 1.
        SlaveState::Missing => copy(OldSlave::None, Reason::NoSlave),
        // Rows 2 and 3.
        SlaveState::Short { size, magic } if *magic || is_fragment(observation) => {
            short(observation, *size)
        }
        // Row 4.
        SlaveState::Short { .. } | SlaveState::Foreign => Decision::Refuse(Refusal::SlaveForeign),
        // Row 5.
        SlaveState::Damaged(damage) => Decision::Refuse(Refusal::SlaveDamaged(*damage)),
        SlaveState::Storage(slave) => storage(observation, slave),
    }
}

/// Whether the slave is a prefix of the master that is too short for a transaction.
fn is_fragment(observation: &Observation) -> bool {
    matches!(observation.slave, SlaveState::Short { .. })
        && observation.master.matches == Some(true)
}

/// Rows 2 and 3: nothing is lost with a slave that is too short for a transaction.
fn short(observation: &Observation, size: u64) -> Decision {
    if is_fragment(observation) && size == MAGIC_LEN && observation.master.next != Next::Finished {
        return nothing(observation);
    }
    copy(OldSlave::Superseded, Reason::NoSlave)
}

/// Rows 6 to 14.
fn storage(observation: &Observation, slave: &Storage) -> Decision {
    if observation.master.matches == Some(true) {
        match is_prefix(observation, slave) {
            Err(question) => return Decision::Ask(question),
            // Rows 6 and 7.
            Ok(true) => return append(observation, slave),
            Ok(false) => {}
        }
    }
    // Row 8.
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
        // Row 9: a changed slave is refused even if the master has its last transactions, since
        // its older ones may differ.
        Continuity::Changed => return Decision::Refuse(Refusal::Changed(missing())),
        // Row 10.
        Continuity::UpTo(position) if position < slave.position && !in_master => {
            return Decision::Refuse(Refusal::Grown(missing()));
        }
        _ => {}
    }
    let has_continuity = matches!(slave.continuity, Continuity::UpTo(_));
    // Row 11.
    if has_continuity && in_master {
        return copy_rewritten(observation, slave.last_tid, Reason::Rewritten);
    }
    // Row 12: only a pack of this very database explains the loss, hence `is_kin`.
    if has_continuity
        && comparison.is_kin
        && comparison.is_packed
        && !observation.master.was_refused
    {
        return copy(OldSlave::PackedAway, Reason::PackedAway);
    }
    // Row 13.
    if comparison.master_last < slave.last_tid {
        return Decision::Refuse(Refusal::FallenBehind {
            master_last: comparison.master_last,
            missing: missing(),
        });
    }
    // Row 14.
    Decision::Refuse(Refusal::Diverged(missing()))
}

/// Rows F1 to F9.
fn full(observation: &Observation, policy: Policy) -> Decision {
    let slave = match &observation.slave {
        // Row F1.
        SlaveState::Missing => return copy(OldSlave::None, Reason::Forced),
        // Row F2.
        SlaveState::Short { .. } if is_fragment(observation) => {
            return copy(OldSlave::Superseded, Reason::Forced);
        }
        // Row F3.
        SlaveState::Short { .. } | SlaveState::Foreign | SlaveState::Damaged(_) => {
            return copy(OldSlave::SetAside, Reason::Forced);
        }
        // Row F4.
        SlaveState::Storage(slave) if slave.position == MAGIC_LEN => {
            return copy(OldSlave::Superseded, Reason::Forced);
        }
        SlaveState::Storage(slave) => slave,
    };
    if policy.whole {
        return whole(observation, slave);
    }
    match observation.common {
        None => Decision::Ask(Question::Fork),
        // Row F5. The first and last bytes may have been read before the master changed.
        Some(CommonBytes::All) if observation.master.matches == Some(true) => {
            append(observation, slave)
        }
        // Row F6.
        Some(CommonBytes::UpTo(fork)) => rewind(slave, fork),
        // Rows F8 and F9.
        Some(CommonBytes::All | CommonBytes::NoFork(_)) => replace(observation, slave),
    }
}

/// Rows F7 to F9, with `--whole`.
fn whole(observation: &Observation, slave: &Storage) -> Decision {
    if observation.master.matches == Some(true) {
        match is_prefix(observation, slave) {
            Err(question) => return Decision::Ask(question),
            // Row F7: byte for byte the same, so damage in the past does not matter.
            Ok(true) => {
                return copy_containing(slave.last_tid, OldSlave::Superseded, Reason::Forced);
            }
            Ok(false) => {}
        }
    }
    replace(observation, slave)
}

/// Rows F8 and F9.
fn replace(observation: &Observation, slave: &Storage) -> Decision {
    if !matches!(slave.continuity, Continuity::UpTo(_)) {
        return copy(OldSlave::SetAside, Reason::Forced);
    }
    match compare(observation, slave) {
        Err(question) => Decision::Ask(question),
        // Row F8.
        Ok(comparison) if comparison.missing.count == 0 => {
            copy_rewritten(observation, slave.last_tid, Reason::Forced)
        }
        // Row F9.
        Ok(_) => copy(OldSlave::SetAside, Reason::Forced),
    }
}

/// Row F6.
fn rewind(slave: &Storage, fork: Fork) -> Decision {
    Decision::Do(Plan {
        action: PlannedAction::Rewind(RewindPlan {
            fork,
            position: slave.position,
            tail: slave.tail,
        }),
        reason: Reason::Forked,
    })
}

/// Whether the whole slave is a prefix of the master, if its first and last bytes are. The
/// sidecar vouches for the bytes in between, or they must be compared.
fn is_prefix(observation: &Observation, slave: &Storage) -> Result<bool, Question> {
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

/// Which of the slave's last transactions the master lacks.
fn compare<'a>(
    observation: &'a Observation,
    slave: &Storage,
) -> Result<&'a ForkComparison, Question> {
    let from = match slave.continuity {
        Continuity::UpTo(position) => position,
        Continuity::Unknown | Continuity::Changed => slave.position,
    };
    observation
        .comparison
        .as_ref()
        .ok_or(Question::Compare { from })
}

/// Rows 6 and 7.
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
