//! Power cuts: the slave lies on a disk that loses what was not synced.
//!
//! What fssync does there is recorded once, by a file system that sees every call
//! ([`mount`]). Then the power is cut after each of them: a model of the disk ([`disk`])
//! says what may be left, and each of that is checked, by ZODB, by `fssync verify` and by
//! the next pass ([`checks`]). In some, the power is cut once more while that pass heals.
//!
//! Each test makes a share of the power cuts, the same at each run. More of them, for
//! each of the scenarios:
//!
//! ```sh
//! FSSYNC_POWER_CUTS=2000 cargo test --test all -- power:: --nocapture
//! ```
//!
//! `FSSYNC_POWER_SEED` has others chosen.

mod checks;
mod cuts;
mod disk;
mod failures;
mod mistakes;
mod mount;
mod partial;
mod scenarios;

use self::cuts::record_and_cut;
use crate::support::number;

/// How many power cuts each scenario has, unless it is said.
const SHARE: usize = 25;

fn share() -> usize {
    number("FSSYNC_POWER_CUTS").unwrap_or(SHARE)
}

fn seed() -> u64 {
    number("FSSYNC_POWER_SEED").unwrap_or(1) as u64
}

macro_rules! survives_power_cuts {
    ($($name:ident: $scenario:ident;)*) => { $(
        #[test]
        fn $name() {
            let count = record_and_cut(scenarios::$scenario, share(), seed());
            println!("{}: {count} states", stringify!($name));
        }
    )* };
}

survives_power_cuts! {
    a_first_copy: FIRST_COPY;
    an_append: APPEND;
    an_append_in_batches: APPEND_IN_BATCHES;
    an_append_behind_a_foreign_tail: APPEND_BEHIND_A_FOREIGN_TAIL;
    an_append_behind_a_foreign_tail_at_the_end_of_a_page: APPEND_AT_THE_END_OF_A_PAGE;
    an_append_behind_our_own_tail: APPEND_BEHIND_OUR_OWN_TAIL;
    an_append_before_a_pack: APPEND_BEFORE_A_PACK;
    an_append_with_another_index: APPEND_WITH_ANOTHER_INDEX;
    an_append_beside_an_index_that_is_ahead: APPEND_BESIDE_AN_INDEX_AHEAD;
    a_full_copy: FULL_COPY;
    a_full_copy_that_sets_the_old_slave_aside: FULL_COPY_AND_SET_ASIDE;
    a_forced_full_copy: FORCED_FULL_COPY;
    a_forced_full_copy_of_a_divergence: FORCED_FULL_COPY_OF_A_DIVERGENCE;
    an_index_made_anew: INDEX_ANEW;
    a_slave_seeded_by_hand: SEEDED;
    a_slave_seeded_by_hand_and_not_synced: SEEDED_UNSYNCED;
    switching_off: OFF;
    switching_off_what_was_on: OFF_AFTER_ON;
    switching_off_in_the_middle: OFF_IN_THE_MIDDLE;
}
