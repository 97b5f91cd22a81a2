//! The decision table, row by row.

use super::*;
use crate::filestorage::scan::{Cause, Damage, Record};
use crate::plan::outcome::Exit;

const T1: Tid = Tid(0x1000);
const T2: Tid = Tid(0x2000);
const T3: Tid = Tid(0x3000);

const PLAIN: Policy = Policy { full: false };
const FULL: Policy = Policy { full: true };

/// A slave of 500 bytes that ends with T2, as the last pass left it, beside a
/// master that has more.
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
    }
}

fn storage(slave: Storage, master: MasterState) -> Observation {
    observation(SlaveState::Storage(slave), master)
}

fn compared(mut observation: Observation, comparison: TailComparison) -> Observation {
    observation.comparison = Some(comparison);
    observation
}

/// The master's last is T3, and it lacks so many of the slave's.
fn lacks(count: u64) -> TailComparison {
    let summary = TransactionSummary {
        tid: T2,
        user: "editor".to_owned(),
        description: "front page".to_owned(),
    };
    TailComparison {
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

/// The master was packed, and lacks so many of the slave's last transactions.
fn packed_away(count: u64) -> TailComparison {
    TailComparison {
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
    match decide(observation, PLAIN) {
        Decision::Do(Plan { action, .. }) => assert_eq!(action, expected),
        other => panic!("{other:?}"),
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
fn no_slave_is_a_full_copy() {
    assert_copy(
        &observation(SlaveState::Missing, MASTER),
        PLAIN,
        OldSlave::None,
        None,
    );
}

#[test]
fn a_fragment_of_the_master_is_a_full_copy() {
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
fn a_bare_magic_is_all_of_a_master_without_transactions() {
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
fn short_garbage_is_no_file_storage() {
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
fn what_is_vouched_for_is_appended_to_without_reading_more() {
    assert_append(&storage(SLAVE, MASTER), SlaveTail::None);
}

#[test]
fn nothing_finished_beyond_is_up_to_date() {
    for (next, reason) in [
        (Next::End, Reason::NothingNew),
        (Next::Unfinished, Reason::NextUnfinished),
    ] {
        assert_nothing(&storage(SLAVE, MasterState { next, ..MASTER }), reason);
    }
}

#[test]
fn a_tail_is_trimmed_as_part_of_an_append_only() {
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
fn another_master_or_no_sidecar_must_prove_the_whole_prefix() {
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
fn an_append_that_the_sidecar_does_not_know_is_proven_from_there_on() {
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
fn a_prefix_that_differs_goes_on_to_the_comparison() {
    let mut observation = storage(SLAVE, MASTER);
    observation.master.same_file = false;
    observation.prefix_equal = Some(false);
    assert_asks(&observation, PLAIN, Question::Compare { from: 500 });
}

#[test]
fn a_slave_that_grew_is_refused_and_says_by_what() {
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
fn a_slave_that_is_not_as_it_was_left_is_refused() {
    let slave = Storage {
        continuity: Continuity::Changed,
        ..SLAVE
    };
    let observation = compared(storage(slave, differs()), lacks(0));
    assert!(matches!(refusal(&observation), Refusal::Changed(_)));
}

#[test]
fn a_master_that_is_behind_or_shorter_is_refused() {
    for matches in [None, Some(false)] {
        let master = MasterState {
            matches,
            ..differs()
        };
        for master_last in [None, Some(T1)] {
            let comparison = TailComparison {
                master_last,
                ..lacks(1)
            };
            let refusal = refusal(&compared(storage(SLAVE, master), comparison));
            assert!(matches!(refusal, Refusal::FallenBehind { .. }), "{refusal}");
        }
    }
}

#[test]
fn a_pack_or_another_head_is_a_full_copy_that_must_hold_the_last_tid() {
    let observation = compared(storage(SLAVE, differs()), lacks(0));
    assert_copy(&observation, PLAIN, OldSlave::Superseded, Some(T2));
}

#[test]
fn a_pack_after_an_append_that_the_sidecar_does_not_know_is_a_full_copy() {
    let slave = Storage {
        continuity: Continuity::UpTo(300),
        ..SLAVE
    };
    let observation = compared(storage(slave, differs()), lacks(0));
    assert_copy(&observation, PLAIN, OldSlave::Superseded, Some(T2));
}

#[test]
fn a_slave_whose_last_transactions_were_packed_away_is_set_aside() {
    for master_last in [None, Some(T1), Some(T3)] {
        let comparison = TailComparison {
            master_last,
            ..packed_away(1)
        };
        let observation = compared(storage(SLAVE, differs()), comparison);
        assert_copy(&observation, PLAIN, OldSlave::PackedAway, None);
    }
}

#[test]
fn a_pack_of_another_database_makes_no_refusal_an_acceptance() {
    let others = TailComparison {
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
    let older = TailComparison {
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
fn a_master_that_was_damaged_may_have_been_repaired_so_the_slave_is_kept() {
    let repaired = MasterState {
        was_damaged: true,
        ..differs()
    };
    let observation = compared(storage(SLAVE, repaired), lacks(0));
    assert_copy(&observation, PLAIN, OldSlave::SetAside, Some(T2));
    assert_copy(&observation, FULL, OldSlave::SetAside, Some(T2));
    // Byte by byte, nothing can be lacking.
    let prefix = MasterState {
        was_damaged: true,
        ..MASTER
    };
    assert_copy(
        &storage(SLAVE, prefix),
        FULL,
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
fn a_slave_without_transactions_has_nothing_to_lose() {
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
fn full_keeps_whatever_may_be_the_slaves_own() {
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
        assert_copy(&observation, FULL, OldSlave::SetAside, None);
    }
}

#[test]
fn full_drops_a_slave_that_the_master_holds() {
    assert_copy(
        &observation(SlaveState::Missing, MASTER),
        FULL,
        OldSlave::None,
        None,
    );
    assert_copy(
        &storage(SLAVE, MASTER),
        FULL,
        OldSlave::Superseded,
        Some(T2),
    );
    let observation = compared(storage(SLAVE, differs()), lacks(0));
    assert_copy(&observation, FULL, OldSlave::Superseded, Some(T2));
    let mut proven = storage(SLAVE, MASTER);
    proven.master.same_file = false;
    assert_asks(&proven, FULL, Question::Prefix { from: 0 });
    proven.prefix_equal = Some(true);
    assert_copy(&proven, FULL, OldSlave::Superseded, Some(T2));
}
