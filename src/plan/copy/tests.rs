//! The decision table for a finished copy, row by row.

use super::*;
use crate::filestorage::Tid;
use crate::plan::observation::{ForkComparison, MasterState, MissingFromMaster, Next, SlaveState};
use crate::plan::switch_on::TransactionRun;
use crate::plan::tests::{FULL, PLAIN};

const TID: Tid = Tid(0x2000);

const RUN: TransactionRun = TransactionRun {
    count: 1,
    first: TID,
    last: TID,
};

/// The copy lacks a transaction of the old slave's, and no pack explains that.
const LOST: Evidence = Evidence {
    missing: Some(RUN),
    unexplained: Some(RUN),
    doubtful: None,
    altered: None,
    is_packed: true,
    has_others: false,
    failure: None,
};

/// The copy lacks one that the last pack may have dropped.
const DOUBTFUL: Evidence = Evidence {
    unexplained: None,
    doubtful: Some(RUN),
    ..LOST
};

/// The old slave could not be read.
const UNREADABLE: Evidence = Evidence {
    failure: Some(crate::plan::ComparisonFailure::Unreadable),
    ..LOST
};

/// A pack explains all that the copy lacks.
const EXPLAINED: Evidence = Evidence {
    unexplained: None,
    ..LOST
};

fn observation() -> Observation {
    Observation {
        slave: SlaveState::Missing,
        master: MasterState {
            same_file: false,
            matches: None,
            next: Next::End,
            was_damaged: false,
            was_refused: false,
        },
        prefix_equal: None,
        common: None,
        comparison: Some(ForkComparison {
            missing: missing(),
            ..ForkComparison::default()
        }),
    }
}

fn missing() -> MissingFromMaster {
    MissingFromMaster {
        count: 1,
        first: Some(TID),
        last: Vec::new(),
    }
}

fn decision(old: OldSlave, policy: Policy, findings: CopyFindings) -> CopyDecision {
    let plan = CopyPlan {
        old,
        required_tid: Some(TID),
    };
    judge(&observation(), plan, Reason::Rewritten, policy, &findings)
}

fn findings(evidence: Evidence) -> CopyFindings {
    CopyFindings {
        is_damaged: false,
        has_required_tid: true,
        evidence: Some(evidence),
    }
}

fn keep(loss: Option<Loss>) -> CopyDecision {
    let reason = Reason::Rewritten;
    CopyDecision::Install {
        keep: Some(KeepReason { loss, reason }),
    }
}

const REMOVE: CopyDecision = CopyDecision::Install { keep: None };

#[test]
fn rows_4_to_7_decide_by_what_would_be_lost_with_the_old_slave() {
    let lost = Some(Loss::Transactions(RUN));
    let doubtful = Some(Loss::Doubtful(RUN));
    for (old, evidence, expected) in [
        (OldSlave::None, EXPLAINED, REMOVE),
        (OldSlave::None, LOST, REMOVE),
        (OldSlave::Superseded, EXPLAINED, REMOVE),
        (OldSlave::Superseded, LOST, keep(lost)),
        (OldSlave::Superseded, DOUBTFUL, keep(doubtful)),
        (OldSlave::SetAside, EXPLAINED, keep(None)),
        (OldSlave::SetAside, LOST, keep(lost)),
        (OldSlave::PackedAway, EXPLAINED, keep(None)),
        (OldSlave::PackedAway, DOUBTFUL, keep(doubtful)),
        (OldSlave::PackedAway, UNREADABLE, keep(Some(Loss::Unknown))),
        (
            OldSlave::PackedAway,
            LOST,
            CopyDecision::Refuse(Refusal::Diverged(missing())),
        ),
    ] {
        for policy in [PLAIN, FULL] {
            let found = findings(evidence);
            assert_eq!(
                decision(old, policy, found),
                expected,
                "{old:?} {evidence:?}"
            );
        }
    }
}

#[test]
fn rows_1_and_2_keep_the_old_slave_if_the_master_is_damaged() {
    for old in [
        OldSlave::Superseded,
        OldSlave::SetAside,
        OldSlave::PackedAway,
    ] {
        // What the damaged master lacks does not matter.
        for (evidence, loss) in [(EXPLAINED, None), (LOST, Some(Loss::Transactions(RUN)))] {
            for has_required_tid in [true, false] {
                let damaged = CopyFindings {
                    is_damaged: true,
                    has_required_tid,
                    evidence: Some(evidence),
                };
                assert_eq!(decision(old, PLAIN, damaged), CopyDecision::MasterDamaged);
                assert_eq!(decision(old, FULL, damaged), keep(loss));
            }
        }
    }
}

#[test]
fn a_damaged_master_is_copied_if_there_is_no_slave() {
    let damaged = CopyFindings {
        is_damaged: true,
        has_required_tid: true,
        evidence: None,
    };
    assert_eq!(decision(OldSlave::None, PLAIN, damaged), REMOVE);
}

#[test]
fn row_3_surveys_again_if_the_required_transaction_is_missing() {
    for old in [OldSlave::Superseded, OldSlave::SetAside] {
        for policy in [PLAIN, FULL] {
            let other = CopyFindings {
                has_required_tid: false,
                ..findings(EXPLAINED)
            };
            assert_eq!(decision(old, policy, other), CopyDecision::MasterChanged);
        }
    }
}
