//! Does the harness find what is wrong? A recording is changed as a build with a mistake
//! would have made it; of the states that only the mistake leaves, one must be told of.

use super::checks::{Scenario, Stage};
use super::cuts::{complaint, syncs, without};
use super::disk::Op;
use super::mount::Recording;
use super::number;
use super::scenarios;

/// How many states are tried of a mistake.
const TRIES: usize = 500;

/// A scenario that was recorded, and can be checked.
fn recorded(scenario: Scenario) -> (Stage, Recording) {
    let mut stage = Stage::set(scenario);
    let (ended_well, recording) = stage.act();
    assert!(ended_well);
    (stage, recording)
}

fn assert_found(stage: &mut Stage, sound: &Recording, mistaken: &Recording, what: &str) {
    let is_other = |nth: &usize| sound.ops[*nth] != mistaken.ops[*nth];
    let from = (0..sound.ops.len()).find(is_other).expect("a mistake");
    let said = complaint(stage, (sound, mistaken, from), TRIES);
    assert!(said.is_some(), "{what}: nothing is found");
}

/// Leaves each sync of a scenario out, one at a time. That is found, but for those that are
/// said to be `needless` there; of these, only where more power cuts are asked for, it
/// is tried whether they are.
fn assert_syncs_are_needed(scenario: Scenario, needless: &[&str]) {
    let (mut stage, recording) = recorded(scenario);
    let all = syncs(&recording);
    let is_one = |it: &&str| all.iter().any(|(_, label)| label == it);
    assert!(needless.iter().all(is_one), "{needless:?} of {all:?}");
    for (nth, label) in &all {
        let mistaken = without(&recording, *nth);
        if !needless.contains(&label.as_str()) {
            eprintln!("without {label}");
            assert_found(&mut stage, &recording, &mistaken, label);
        } else if let Some(count) = number("FSSYNC_POWER_CUTS") {
            let said = complaint(&mut stage, (&recording, &mistaken, *nth), count);
            assert_eq!(said, None, "{label} is needed");
        }
    }
}

macro_rules! syncs_are_needed {
    ($($name:ident: $scenario:ident but $needless:expr;)*) => { $(
        #[test]
        fn $name() {
            assert_syncs_are_needed(scenarios::$scenario, &$needless);
        }
    )* };
}

syncs_are_needed! {
    // The two of a copy are one for the data, and one for owner and mode with it. No old
    // index had to be removed, nor an old slave be linked.
    each_sync_of_a_first_copy: FIRST_COPY but [".fssync-tmp 1", "directory 1"];
    each_sync_of_an_append: APPEND but [];
    // What is kept of the tail for a while is a `c`, behind which nothing is whole.
    each_sync_of_an_append_behind_a_foreign_tail: APPEND_BEHIND_A_FOREIGN_TAIL but ["Data.fs 1"];
    each_sync_of_an_append_at_the_end_of_a_page: APPEND_AT_THE_END_OF_A_PAGE but [];
    each_sync_of_an_append_behind_our_own_tail: APPEND_BEHIND_OUR_OWN_TAIL but [];
    each_sync_of_an_append_with_another_index: APPEND_WITH_ANOTHER_INDEX but [];
    each_sync_of_an_append_beside_an_index_that_is_ahead: APPEND_BESIDE_AN_INDEX_AHEAD but [];
    each_sync_of_a_full_copy: FULL_COPY but [".fssync-tmp 1"];
    each_sync_of_a_full_copy_that_sets_aside: FULL_COPY_AND_SET_ASIDE but [".fssync-tmp 1"];
    // The old index is as good as it was before.
    each_sync_of_an_index_made_anew: INDEX_ANEW but ["directory 1"];
    // One for the ledger, and one for the sidecar.
    each_sync_of_vouching_for_a_copy: SEEDED_UNSYNCED but ["Data.fs 1", "Data.fs 2"];
    // A switch that is empty is off. Less than a header is left, which ZODB cuts.
    each_sync_of_switching_off: OFF but [".fssync-switch 1", "Data.fs 2"];
    each_sync_of_switching_off_what_was_on: OFF_AFTER_ON but ["directory 1", "Data.fs 2"];
}

/// The first header that a pass appends, by the number of its operation.
fn marker(recording: &Recording) -> usize {
    let is_marker = |op: &Op| matches!(op, Op::Write { bytes, .. } if bytes.len() == 23);
    recording.ops.iter().position(is_marker).expect("a marker")
}

#[test]
fn a_batch_without_its_marker_is_found() {
    for scenario in [scenarios::APPEND, scenarios::APPEND_IN_BATCHES] {
        let (mut stage, recording) = recorded(scenario);
        let mut mistaken = recording.clone();
        let Op::Write { bytes, .. } = &mut mistaken.ops[marker(&recording)] else {
            panic!("a marker")
        };
        assert_eq!(bytes[16], b'c');
        bytes[16] = b' ';
        assert_found(&mut stage, &recording, &mistaken, "no marker");
    }
}

#[test]
fn a_marker_that_is_written_together_with_its_data_is_found() {
    let (mut stage, recording) = recorded(scenarios::APPEND);
    let at = marker(&recording);
    let mut mistaken = recording.clone();
    let Op::Write { bytes: data, .. } = &recording.ops[at + 2] else {
        panic!("the data behind its marker: {:?}", recording.ops[at + 2])
    };
    assert!(matches!(recording.ops[at + 1], Op::Sync { .. }));
    let Op::Write { bytes, .. } = &mut mistaken.ops[at] else {
        panic!("a marker")
    };
    bytes.extend(data);
    mistaken.ops[at + 1] = Op::Nothing;
    mistaken.ops[at + 2] = Op::Nothing;
    assert_found(&mut stage, &recording, &mistaken, "one write");
}

#[test]
fn a_true_status_before_its_data_is_durable_is_found() {
    let (mut stage, recording) = recorded(scenarios::APPEND);
    let at = marker(&recording);
    let mut mistaken = recording.clone();
    let data = at + 2;
    let flip = (data..recording.ops.len())
        .find(|&nth| matches!(&recording.ops[nth], Op::Write { bytes, .. } if bytes.len() == 1));
    let flip = flip.expect("the true status");
    mistaken.ops.swap(flip - 1, flip);
    assert!(matches!(recording.ops[flip - 1], Op::Sync { .. }));
    assert_found(
        &mut stage,
        &recording,
        &mistaken,
        "the true status too early",
    );
}

#[test]
fn a_copy_that_is_not_synced_at_all_is_found() {
    for (scenario, left_out) in [
        (scenarios::FULL_COPY, [".fssync-tmp 1", ".fssync-tmp 2"]),
        (scenarios::SEEDED_UNSYNCED, ["Data.fs 1", "Data.fs 2"]),
    ] {
        let (mut stage, recording) = recorded(scenario);
        let mut mistaken = recording.clone();
        for (nth, label) in syncs(&recording) {
            if left_out.contains(&label.as_str()) {
                mistaken.ops[nth] = Op::Nothing;
            }
        }
        assert_found(&mut stage, &recording, &mistaken, "no sync");
    }
}

#[test]
fn an_old_slave_that_is_replaced_and_not_kept_is_found() {
    let (mut stage, recording) = recorded(scenarios::FULL_COPY_AND_SET_ASIDE);
    let mut mistaken = recording.clone();
    let mut ops = mistaken.ops.iter_mut();
    *ops.find(|op| matches!(op, Op::Link { .. }))
        .expect("a link") = Op::Nothing;
    assert_found(&mut stage, &recording, &mistaken, "no second name");
}
