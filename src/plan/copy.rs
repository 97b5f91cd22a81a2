//! Decides about a finished full copy, and about the slave that it is to replace.
//!
//! The plan of a full copy is made before the master is read. Only the whole copy shows if it is
//! the file that was planned for, and which data would be lost with the old slave; see
//! [`Evidence`].
//! [`judge`] then decides by the first row that fits:
//!
//! | | the copy | the old slave | decision |
//! | --- | --- | --- | --- |
//! | 1 | ends at damage in the master | exists, and `--full` was not given | stays: the master is damaged |
//! | 2 | ends at damage in the master | exists, and `--full` was given | is kept under another name |
//! | 3 | lacks the transaction that the plan requires | | survey again: the master changed |
//! | 4 | | does not exist | install the copy |
//! | 5 | explains all that it lacks | [`OldSlave::Superseded`] | is removed |
//! | 6 | lacks transactions, and no pack explains that | [`OldSlave::PackedAway`] | stays: the files diverged |
//! | 7 | | any other | is kept under another name |
//!
//! Row 2 ignores the evidence: the transactions beyond the damage might explain the missing ones,
//! or might not.

use std::fmt;

use super::{CopyPlan, Evidence, Loss, Observation, OldSlave, Policy, Reason, Refusal};

/// The facts about a copy, once the whole master was read.
#[derive(Clone, Copy, Debug)]
pub struct CopyFindings {
    /// Whether the copy ends at damage in the master.
    pub is_damaged: bool,
    /// Whether it contains [`CopyPlan::required_tid`]; true if there is none.
    pub has_required_tid: bool,
    /// How it compares with the old slave; `None` if that is missing or not a FileStorage.
    pub evidence: Option<Evidence>,
}

/// The decision about a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyDecision {
    /// Put it in the place of the slave.
    Install {
        /// Why the old slave is kept under another name; `None` if it is removed, or missing.
        keep: Option<KeepReason>,
    },
    /// Discard it: the slave is not replaced by a part of a damaged master.
    MasterDamaged,
    /// Discard it, and survey again: the master is not the file that was planned for.
    MasterChanged,
    /// Discard it: a person must decide.
    Refuse(Refusal),
}

/// Why an old slave is kept under another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepReason {
    /// The data that would be lost with it, if that is known.
    pub loss: Option<Loss>,
    /// Why the full copy was made.
    pub reason: Reason,
}

/// Decides by the table above.
#[must_use]
pub fn judge(
    observation: &Observation,
    plan: CopyPlan,
    reason: Reason,
    policy: Policy,
    findings: &CopyFindings,
) -> CopyDecision {
    let loss = findings.evidence.as_ref().and_then(Evidence::loss);
    let keep = CopyDecision::Install {
        keep: Some(KeepReason { loss, reason }),
    };
    if findings.is_damaged && plan.old != OldSlave::None {
        return if policy.full {
            keep
        } else {
            CopyDecision::MasterDamaged
        };
    }
    if !findings.has_required_tid {
        return CopyDecision::MasterChanged;
    }
    match (plan.old, loss) {
        (OldSlave::None, _) | (OldSlave::Superseded, None) => CopyDecision::Install { keep: None },
        (OldSlave::PackedAway, Some(Loss::Transactions(_))) => {
            let comparison = observation.comparison.clone().unwrap_or_default();
            CopyDecision::Refuse(Refusal::Diverged(comparison.missing))
        }
        _ => keep,
    }
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.loss, self.reason) {
            (Some(Loss::Transactions(run)), _) => write!(
                f,
                "the master lacks {run}, or parts of them, and no pack explains it; \
                 `fssync verify` compares it with the master"
            ),
            (Some(Loss::Altered(run)), _) => write!(
                f,
                "the master has other data in {run}, which only a repair or an editor changes; \
                 `fssync verify` compares it with the master"
            ),
            (Some(Loss::Doubtful(run)), _) => {
                write!(f, "the master lacks {run}, which its last pack may have dropped")
            }
            (Some(Loss::Unknown), _) => {
                f.write_str("it could not be read to its end, so it may have data that the master lacks")
            }
            (None, Reason::PackedAway) => {
                f.write_str("a pack of the master dropped its last transactions")
            }
            (None, Reason::Rewritten) => f.write_str(
                "a pass found the master damaged before, and a repair may have dropped transactions",
            ),
            (None, _) => f.write_str("it may have data that the master lacks"),
        }
    }
}

#[cfg(test)]
mod tests;
