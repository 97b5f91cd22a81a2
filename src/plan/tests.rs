//! The decision table, row by row.

use super::*;
use crate::filestorage::scan::{Cause, Damage, Record};
use crate::plan::outcome::Exit;
use crate::plan::switch_on::TransactionRun;

const T1: Tid = Tid(0x1000);
const T2: Tid = Tid(0x2000);
const T3: Tid = Tid(0x3000);

pub(super) const PLAIN: Policy = Policy {
    full: false,
    whole: false,
};
pub(super) const FULL: Policy = Policy {
    full: true,
    whole: false,
};
const WHOLE: Policy = Policy {
    full: true,
    whole: true,
};

/// T1 is the last common transaction, T2 is the slave's own.
const FORK: Fork = Fork {
    position: 400,
    last_tid: Some(T1),
    own: TransactionRun {
        count: 1,
        first: T2,
        last: T2,
    },
    own_len: 100,
    set_aside_len: 104,
};

/// A slave of 500 bytes that ends with T2, unchanged since the last pass. The master has more.
const SLAVE: Storage = Storage {
    position: 500,
    last_tid: Some(T2),
    tail: SlaveTail::None,
    continuity: Continuity::UpTo(500),
};

const MASTER: MasterState = MasterState {
    same_file: true,
    matches: Some(true),
    next: Next::Finished,
    was_damaged: false,
    was_refused: false,
};

fn observation(slave: SlaveState, master: MasterState) -> Observation {
    Observation {
        slave,
        master,
        prefix_equal: None,
        comparison: None,
        common: None,
    }
}

fn storage(slave: Storage, master: MasterState) -> Observation {
    observation(SlaveState::Storage(slave), master)
}

/// The answer to the question for the fork point.
fn with_common(mut observation: Observation, common: CommonBytes) -> Observation {
    observation.common = Some(common);
    observation
}

fn compared(mut observation: Observation, comparison: ForkComparison) -> Observation {
    observation.comparison = Some(comparison);
    observation
}

/// The master ends with T3, and lacks this number of the slave's transactions.
fn lacks(count: u64) -> ForkComparison {
    let summary = TransactionSummary {
        tid: T2,
        user: "editor".to_owned(),
        description: "front page".to_owned(),
    };
    ForkComparison {
        master_last: Some(T3),
        missing: MissingFromMaster {
            count,
            first: (count > 0).then_some(T2),
            last: if count > 0 { vec![summary] } else { Vec::new() },
        },
        is_kin: true,
        is_packed: false,
    }
}

/// The master was packed, and lacks this number of the slave's last transactions.
fn packed_away(count: u64) -> ForkComparison {
    ForkComparison {
        is_packed: true,
        ..lacks(count)
    }
}

fn damage() -> Damage {
    Damage {
        record: Record::Transaction,
        position: 4,
        cause: Cause::Status(0xff),
    }
}

fn differs() -> MasterState {
    MasterState {
        matches: Some(false),
        next: Next::End,
        ..MASTER
    }
}

#[track_caller]
fn assert_copy(
    observation: &Observation,
    policy: Policy,
    old: OldSlave,
    required_tid: Option<Tid>,
) {
    match decide(observation, policy) {
        Decision::Do(Plan {
            action: PlannedAction::FullCopy(copy),
            ..
        }) => assert_eq!(copy, CopyPlan { old, required_tid }),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_append(observation: &Observation, trim: SlaveTail) {
    let expected = PlannedAction::Append(AppendPlan {
        from: 500,
        last_tid: Some(T2),
        trim,
    });
    let policies = match observation.common {
        None => &[PLAIN][..],
        Some(_) => &[PLAIN, FULL],
    };
    for &policy in policies {
        match decide(observation, policy) {
            Decision::Do(Plan { action, .. }) => assert_eq!(action, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[track_caller]
fn assert_nothing(observation: &Observation, reason: Reason) {
    let plan = Plan {
        action: PlannedAction::Nothing,
        reason,
    };
    assert_eq!(decide(observation, PLAIN), Decision::Do(plan));
}

#[track_caller]
fn assert_asks(observation: &Observation, policy: Policy, question: Question) {
    assert_eq!(decide(observation, policy), Decision::Ask(question));
}

#[track_caller]
fn refusal(observation: &Observation) -> Refusal {
    match decide(observation, PLAIN) {
        Decision::Refuse(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_missing_slave_is_copied() {
    assert_copy(
        &observation(SlaveState::Missing, MASTER),
        PLAIN,
        OldSlave::None,
        None,
    );
}

#[test]
fn a_slave_that_is_too_short_for_a_transaction_is_copied() {
    for (size, magic) in [(2, false), (4, true), (30, true)] {
        let short = SlaveState::Short { size, magic };
        assert_copy(
            &observation(short, MASTER),
            PLAIN,
            OldSlave::Superseded,
            None,
        );
    }
}

#[test]
fn nothing_is_done_if_the_master_has_no_transactions() {
    let short = SlaveState::Short {
        size: 4,
        magic: true,
    };
    for (next, reason) in [
        (Next::End, Reason::NothingNew),
        (Next::Unfinished, Reason::NextUnfinished),
    ] {
        assert_nothing(
            &observation(short.clone(), MasterState { next, ..MASTER }),
            reason,
        );
    }
}

#[test]
fn a_file_that_is_not_a_filestorage_is_refused() {
    let short = SlaveState::Short {
        size: 9,
        magic: false,
    };
    assert_eq!(
        refusal(&observation(short, differs())),
        Refusal::SlaveForeign
    );
    assert_eq!(
        refusal(&observation(SlaveState::Foreign, MASTER)),
        Refusal::SlaveForeign
    );
}

#[test]
fn a_damaged_slave_is_refused() {
    let refusal = refusal(&observation(SlaveState::Damaged(damage()), MASTER));
    assert_eq!(refusal.exit(), Exit::SlaveDamaged);
}

#[test]
fn an_unchanged_slave_is_appended_to_without_a_question() {
    assert_append(&storage(SLAVE, MASTER), SlaveTail::None);
}

#[test]
fn a_slave_is_up_to_date_if_no_finished_transaction_follows() {
    for (next, reason) in [
        (Next::End, Reason::NothingNew),
        (Next::Unfinished, Reason::NextUnfinished),
    ] {
        assert_nothing(&storage(SLAVE, MasterState { next, ..MASTER }), reason);
    }
}

#[test]
fn a_tail_is_truncated_only_before_an_append() {
    for tail in [SlaveTail::Ours(10), SlaveTail::Foreign(10)] {
        let slave = Storage { tail, ..SLAVE };
        assert_append(&storage(slave, MASTER), tail);
        let next = Next::End;
        assert_nothing(
            &storage(slave, MasterState { next, ..MASTER }),
            Reason::NothingNew,
        );
    }
}

#[test]
fn all_bytes_are_compared_if_the_sidecar_does_not_vouch_for_them() {
    let other = MasterState {
        same_file: false,
        ..MASTER
    };
    let unknown = |continuity| Storage {
        continuity,
        ..SLAVE
    };
    for observation in [
        storage(SLAVE, other),
        storage(unknown(Continuity::Unknown), MASTER),
        storage(unknown(Continuity::Changed), MASTER),
    ] {
        assert_asks(&observation, PLAIN, Question::Prefix { from: 0 });
        let mut proven = observation.clone();
        proven.prefix_equal = Some(true);
        assert_append(&proven, SlaveTail::None);
    }
}

#[test]
fn bytes_after_the_recorded_position_are_compared() {
    let slave = Storage {
        continuity: Continuity::UpTo(300),
        ..SLAVE
    };
    assert_asks(
        &storage(slave, MASTER),
        PLAIN,
        Question::Prefix { from: 300 },
    );
}

#[test]
fn the_last_transactions_are_compared_if_the_prefix_differs() {
    let mut observation = storage(SLAVE, MASTER);
    observation.master.same_file = false;
    observation.prefix_equal = Some(false);
    assert_asks(&observation, PLAIN, Question::Compare { from: 500 });
}

#[test]
fn a_slave_that_grew_is_refused_and_its_transactions_are_listed() {
    let slave = Storage {
        continuity: Continuity::UpTo(300),
        ..SLAVE
    };
    let observation = storage(slave, differs());
    assert_asks(&observation, PLAIN, Question::Compare { from: 300 });
    let refusal = refusal(&compared(observation, lacks(1)));
    assert_eq!(refusal, Refusal::Grown(lacks(1).missing));
    assert_eq!(refusal.exit(), Exit::Diverged);
    let said = refusal.to_string();
    for part in [
        "has grown since last syncing",
        "1 transaction ",
        "editor",
        "front page",
    ] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_changed_slave_is_refused() {
    let slave = Storage {
        continuity: Continuity::Changed,
        ..SLAVE
    };
    let observation = compared(storage(slave, differs()), lacks(0));
    assert!(matches!(refusal(&observation), Refusal::Changed(_)));
}

#[test]
fn an_older_or_shorter_master_is_refused() {
    for matches in [None, Some(false)] {
        let master = MasterState {
            matches,
            ..differs()
        };
        for master_last in [None, Some(T1)] {
            let comparison = ForkComparison {
                master_last,
                ..lacks(1)
            };
            let refusal = refusal(&compared(storage(SLAVE, master), comparison));
            assert!(matches!(refusal, Refusal::FallenBehind { .. }), "{refusal}");
        }
    }
}

#[test]
fn a_rewritten_master_is_copied_and_must_contain_the_last_tid() {
    let observation = compared(storage(SLAVE, differs()), lacks(0));
    assert_copy(&observation, PLAIN, OldSlave::Superseded, Some(T2));
}

#[test]
fn a_rewritten_master_replaces_a_slave_that_grew() {
    let slave = Storage {
        continuity: Continuity::UpTo(300),
        ..SLAVE
    };
    let observation = compared(storage(slave, differs()), lacks(0));
    assert_copy(&observation, PLAIN, OldSlave::Superseded, Some(T2));
}

#[test]
fn a_pack_may_have_dropped_the_slaves_last_transactions() {
    for master_last in [None, Some(T1), Some(T3)] {
        let comparison = ForkComparison {
            master_last,
            ..packed_away(1)
        };
        let observation = compared(storage(SLAVE, differs()), comparison);
        assert_copy(&observation, PLAIN, OldSlave::PackedAway, None);
    }
}

#[test]
fn a_pack_of_another_database_is_refused() {
    let others = ForkComparison {
        is_kin: false,
        ..packed_away(1)
    };
    let refused_before = MasterState {
        was_refused: true,
        ..differs()
    };
    for observation in [
        compared(storage(SLAVE, differs()), others.clone()),
        compared(storage(SLAVE, refused_before), packed_away(1)),
    ] {
        assert!(matches!(refusal(&observation), Refusal::Diverged(_)));
    }
    let older = ForkComparison {
        master_last: Some(T1),
        ..others
    };
    let observation = compared(storage(SLAVE, differs()), older);
    assert!(matches!(
        refusal(&observation),
        Refusal::FallenBehind { .. }
    ));
}

#[test]
fn a_slave_that_grew_or_changed_is_refused_although_the_master_was_packed() {
    for continuity in [
        Continuity::UpTo(300),
        Continuity::Changed,
        Continuity::Unknown,
    ] {
        let slave = Storage {
            continuity,
            ..SLAVE
        };
        let observation = compared(storage(slave, differs()), packed_away(1));
        assert_eq!(
            refusal(&observation).exit(),
            Exit::Diverged,
            "{continuity:?}"
        );
    }
}

#[test]
fn the_slave_is_kept_if_the_master_was_damaged_before() {
    let repaired = MasterState {
        was_damaged: true,
        ..differs()
    };
    let observation = compared(storage(SLAVE, repaired), lacks(0));
    assert_copy(&observation, PLAIN, OldSlave::SetAside, Some(T2));
    assert_copy(&observation, WHOLE, OldSlave::SetAside, Some(T2));
    // The bytes are the same, so nothing is lost.
    let prefix = MasterState {
        was_damaged: true,
        ..MASTER
    };
    assert_copy(
        &storage(SLAVE, prefix),
        WHOLE,
        OldSlave::Superseded,
        Some(T2),
    );
}

#[test]
fn anything_else_is_refused_as_diverged() {
    let unknown = Storage {
        continuity: Continuity::Unknown,
        ..SLAVE
    };
    for observation in [
        compared(storage(SLAVE, differs()), lacks(1)),
        compared(storage(unknown, differs()), lacks(0)),
        compared(storage(unknown, differs()), lacks(1)),
    ] {
        assert!(matches!(refusal(&observation), Refusal::Diverged(_)));
    }
}

#[test]
fn a_slave_without_transactions_is_replaced() {
    let empty = Storage {
        position: 4,
        last_tid: None,
        tail: SlaveTail::Foreign(100),
        continuity: Continuity::Unknown,
    };
    assert_copy(
        &storage(empty, differs()),
        PLAIN,
        OldSlave::Superseded,
        None,
    );
}

#[test]
fn full_asks_for_the_fork_point_first() {
    for continuity in [
        Continuity::UpTo(500),
        Continuity::Unknown,
        Continuity::Changed,
    ] {
        let slave = Storage {
            continuity,
            ..SLAVE
        };
        for master in [MASTER, differs()] {
            assert_asks(&storage(slave, master), FULL, Question::Fork);
        }
    }
}

#[test]
fn full_appends_to_a_prefix_of_the_master() {
    assert_append(
        &with_common(storage(SLAVE, MASTER), CommonBytes::All),
        SlaveTail::None,
    );
    let next = Next::End;
    let in_sync = with_common(
        storage(SLAVE, MasterState { next, ..MASTER }),
        CommonBytes::All,
    );
    let Decision::Do(plan) = decide(&in_sync, FULL) else {
        panic!("a plan")
    };
    assert_eq!(plan.action, PlannedAction::Nothing);
}

#[test]
fn full_rewinds_a_slave_with_a_fork_point() {
    for (continuity, tail) in [
        (Continuity::UpTo(300), SlaveTail::None),
        (Continuity::UpTo(500), SlaveTail::Ours(9)),
        (Continuity::Unknown, SlaveTail::Foreign(9)),
        (Continuity::Changed, SlaveTail::None),
    ] {
        let slave = Storage {
            tail,
            continuity,
            ..SLAVE
        };
        for master in [MASTER, differs()] {
            let forked = with_common(storage(slave, master), CommonBytes::UpTo(FORK));
            let rewind = Decision::Do(Plan {
                action: PlannedAction::Rewind(RewindPlan {
                    fork: FORK,
                    position: 500,
                    tail,
                }),
                reason: Reason::Forked,
            });
            assert_eq!(decide(&forked, FULL), rewind);
            // Otherwise the fork point has no influence.
            let plain = storage(slave, master);
            for policy in [PLAIN, WHOLE] {
                assert_eq!(decide(&forked, policy), decide(&plain, policy));
            }
        }
    }
}

#[test]
fn full_copies_a_slave_without_a_fork_point() {
    for why in [
        NoFork::ShortPrefix,
        NoFork::SharedTransactions,
        NoFork::Incoherent,
    ] {
        let common = CommonBytes::NoFork(why);
        let forked = with_common(storage(SLAVE, differs()), common);
        assert_asks(&forked, FULL, Question::Compare { from: 500 });
        assert_copy(
            &compared(forked.clone(), lacks(1)),
            FULL,
            OldSlave::SetAside,
            None,
        );
        let rewritten = compared(forked, lacks(0));
        assert_copy(&rewritten, FULL, OldSlave::Superseded, Some(T2));
    }
}

#[test]
fn full_keeps_a_slave_that_may_have_data_of_its_own() {
    let changed = |continuity| Storage {
        continuity,
        ..SLAVE
    };
    for observation in [
        observation(SlaveState::Foreign, MASTER),
        observation(SlaveState::Damaged(damage()), MASTER),
        storage(changed(Continuity::Unknown), differs()),
        storage(changed(Continuity::Changed), differs()),
        compared(storage(SLAVE, differs()), lacks(1)),
    ] {
        assert_copy(&observation, WHOLE, OldSlave::SetAside, None);
    }
    for slave in [SlaveState::Foreign, SlaveState::Damaged(damage())] {
        assert_copy(&observation(slave, MASTER), FULL, OldSlave::SetAside, None);
    }
}

#[test]
fn a_whole_copy_removes_a_slave_whose_transactions_the_master_has() {
    assert_copy(
        &observation(SlaveState::Missing, MASTER),
        WHOLE,
        OldSlave::None,
        None,
    );
    assert_copy(
        &storage(SLAVE, MASTER),
        WHOLE,
        OldSlave::Superseded,
        Some(T2),
    );
    let observation = compared(storage(SLAVE, differs()), lacks(0));
    assert_copy(&observation, WHOLE, OldSlave::Superseded, Some(T2));
    let mut proven = storage(SLAVE, MASTER);
    proven.master.same_file = false;
    assert_asks(&proven, WHOLE, Question::Prefix { from: 0 });
    proven.prefix_equal = Some(true);
    assert_copy(&proven, WHOLE, OldSlave::Superseded, Some(T2));
}
