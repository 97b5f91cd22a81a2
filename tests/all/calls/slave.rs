//! Faults at the calls that a pass makes on the slave's files.

use super::fault::CallFault;
use super::trace::{Subject, TracedCase};
use super::{check_slave, disturb, disturb_for_good, interrupt, is_silent};
use crate::crash::scenario::{self, Scenario};
use crate::support::{Run, Zodb};

/// Kills the process.
fn survives_being_killed(scenario: &'static Scenario) {
    disturb(
        Subject::slave(scenario),
        CallFault::Kill,
        |traced, run, zodb| {
            assert!([-1, 0].contains(&run.code), "{run:?}");
            check_slave(traced, run, zodb);
        },
    );
}

/// Makes a call fail, once.
fn survives_an_error(scenario: &'static Scenario, error: &'static str) {
    disturb(
        Subject::slave(scenario),
        CallFault::Error(error),
        check_failed,
    );
}

/// Makes a call fail, and all later ones of its name.
fn survives_a_dying_disk(scenario: &'static Scenario) {
    disturb_for_good(
        Subject::slave(scenario),
        CallFault::Error("EIO"),
        check_failed,
    );
}

fn check_failed(traced: &TracedCase, run: &Run, zodb: &mut Zodb) {
    assert_documented(traced, run);
    if !run.stderr.contains("cannot remove") {
        traced.case.assert_tidy();
        // A pass that cannot truncate the tail has saved it, and leaves an unknown part of it.
        if !run.stderr.contains("cannot truncate at") {
            traced.case.assert_tail_saved_once();
        }
    }
    check_slave(traced, run, zodb);
}

/// The exit code is one that a failed call on the slave's files may have, and the message
/// contains the file and the cause. A failure without consequences is reported, too.
fn assert_documented(traced: &TracedCase, run: &Run) {
    // A switch that cannot be read is off.
    let is_off = run.stderr.contains("Data.fs.fssync-switch cannot be read");
    match run.code {
        0 => {
            let is_reported = run.stderr.contains("os error");
            assert!(is_reported || is_silent(traced), "{run:?} {}", traced.log());
        }
        10 if is_off => {}
        1 => {
            let directory = traced.case.scene.slave.parent().unwrap();
            assert!(run.stderr.contains(directory.to_str().unwrap()), "{run:?}");
            let line = run.stderr.lines().last().unwrap();
            assert!(line.contains("NOT SYNCING FROM MASTER"), "{run:?}");
            assert!(line.contains("os error"), "the cause: {run:?}");
        }
        _ => panic!("{run:?}"),
    }
}

macro_rules! disturbed {
    ($($name:ident: $scenario:ident;)*) => {
        /// The scenarios of these tests.
        pub const SCENARIOS: &[&Scenario] = &[$(&scenario::$scenario),*];

        $(
            mod $name {
                use super::*;

                #[test]
                fn survives_being_killed() {
                    super::survives_being_killed(&scenario::$scenario);
                }

                #[test]
                fn survives_an_io_error() {
                    survives_an_error(&scenario::$scenario, "EIO");
                }

                #[test]
                fn survives_a_dying_disk() {
                    super::survives_a_dying_disk(&scenario::$scenario);
                }

                #[test]
                fn survives_a_full_disk() {
                    survives_an_error(&scenario::$scenario, "ENOSPC");
                }

                #[test]
                fn survives_a_quota() {
                    survives_an_error(&scenario::$scenario, "EDQUOT");
                }

                #[test]
                fn survives_interruptions() {
                    interrupt(Subject::slave(&scenario::$scenario), check_slave);
                }
            }
        )*
    };
}

disturbed! {
    a_first_copy: FIRST_COPY;
    an_append: APPEND;
    an_append_to_a_seed: APPEND_TO_A_SEED;
    an_append_after_a_foreign_tail: APPEND_AFTER_A_FOREIGN_TAIL;
    an_append_after_our_own_tail: APPEND_AFTER_OUR_OWN_TAIL;
    an_append_without_an_index: APPEND_WITHOUT_AN_INDEX;
    a_full_copy: FULL_COPY;
    a_full_copy_that_sets_the_old_slave_aside: FULL_COPY_AND_SET_ASIDE;
    a_forced_full_copy_of_a_divergence: FORCED_FULL_COPY_OF_A_DIVERGENCE;
    a_rewind: REWIND;
    a_rewind_of_a_slave: REWIND_OF_A_SLAVE;
    a_rewind_with_blobs: REWIND_WITH_BLOBS;
    an_index_rebuild: INDEX_REBUILD;
    an_index_update: INDEX_UPDATE;
    a_slave_seeded_by_hand: SEED;
    a_first_copy_with_blobs: FIRST_COPY_WITH_BLOBS;
    an_append_with_blobs: APPEND_WITH_BLOBS;
    a_full_copy_with_blobs_that_sets_aside: FULL_COPY_WITH_BLOBS_AND_SET_ASIDE;
    a_removal_of_blobs: REMOVAL_OF_BLOBS;
}
