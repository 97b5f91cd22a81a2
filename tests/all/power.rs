//! Power cuts: the slave is on a disk that loses all data that was not synced.
//!
//! A FUSE file system records every operation that the actor of a
//! [scenario](crate::crash::scenario) makes on the disk ([`mount`]). Then the power is cut after
//! each of them: a model of the disk ([`disk`]) computes the possible states. The
//! [oracle](crate::crash::oracle) checks each of these states, and that the next pass repairs
//! it ([`case`]). In some of them the power is cut again, during that pass.
//!
//! Each test makes a fixed sample of the power cuts, the same in each run. More of them, for
//! each scenario:
//!
//! ```sh
//! FSSYNC_POWER_CUTS=2000 cargo test --test all -- power:: --nocapture
//! ```
//!
//! `FSSYNC_POWER_SEED` selects others.

mod case;
mod cuts;
mod disk;
mod failures;
mod mistakes;
mod mount;
mod partial;
mod removal;

use self::cuts::record_and_cut;
use crate::crash::scenario;
use crate::support::number;

/// How many power cuts each test makes, unless `FSSYNC_POWER_CUTS` is set.
const SAMPLE: usize = 25;

fn sample() -> usize {
    number("FSSYNC_POWER_CUTS").unwrap_or(SAMPLE)
}

fn seed() -> u64 {
    number("FSSYNC_POWER_SEED").unwrap_or(1) as u64
}

macro_rules! survives_power_cuts {
    ($($name:ident: $scenario:ident;)*) => { $(
        #[test]
        fn $name() {
            record_and_cut(&scenario::$scenario, 6);
        }
    )* };
}

survives_power_cuts! {
    a_first_copy: FIRST_COPY;
    an_append: APPEND;
    an_append_in_batches: APPEND_IN_BATCHES;
    an_append_to_a_seed: APPEND_TO_A_SEED;
    an_append_after_a_foreign_tail: APPEND_AFTER_A_FOREIGN_TAIL;
    an_append_after_a_tail_at_a_page_end: APPEND_AFTER_A_TAIL_AT_A_PAGE_END;
    an_append_after_our_own_tail: APPEND_AFTER_OUR_OWN_TAIL;
    an_append_before_a_pack: APPEND_BEFORE_A_PACK;
    an_append_without_an_index: APPEND_WITHOUT_AN_INDEX;
    an_append_with_an_index_ahead: APPEND_WITH_AN_INDEX_AHEAD;
    a_full_copy: FULL_COPY;
    a_full_copy_that_sets_the_old_slave_aside: FULL_COPY_AND_SET_ASIDE;
    a_forced_full_copy: FORCED_FULL_COPY;
    a_forced_full_copy_of_a_divergence: FORCED_FULL_COPY_OF_A_DIVERGENCE;
    a_rewind: REWIND;
    a_rewind_of_a_slave: REWIND_OF_A_SLAVE;
    a_rewind_of_copied_transactions: REWIND_OF_COPIED_TRANSACTIONS;
    a_rewind_with_blobs: REWIND_WITH_BLOBS;
    an_index_rebuild: INDEX_REBUILD;
    an_index_update: INDEX_UPDATE;
    a_slave_seeded_by_hand: SEED;
    a_slave_seeded_by_hand_and_not_synced: SEED_THAT_IS_NOT_DURABLE;
    a_first_copy_with_blobs: FIRST_COPY_WITH_BLOBS;
    a_first_copy_with_batches_of_blobs: FIRST_COPY_WITH_BATCHES_OF_BLOBS;
    an_append_with_blobs: APPEND_WITH_BLOBS;
    an_append_that_finds_blobs: APPEND_THAT_FINDS_BLOBS;
    a_full_copy_with_blobs: FULL_COPY_WITH_BLOBS;
    a_full_copy_with_blobs_that_sets_aside: FULL_COPY_WITH_BLOBS_AND_SET_ASIDE;
    a_full_copy_that_removes_blobs: FULL_COPY_AND_REMOVAL_OF_BLOBS;
    a_removal_of_blobs: REMOVAL_OF_BLOBS;
    switching_off: OFF;
    switching_off_after_on: OFF_AFTER_ON;
    switching_off_during_an_append: OFF_DURING_AN_APPEND;
}

/// `fssync on` only writes and syncs the switch.
#[test]
fn switching_on() {
    record_and_cut(&scenario::ON, 4);
}
