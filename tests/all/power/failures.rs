//! A pass that is killed or whose sync fails, and a power cut during the next one: the data
//! that the next pass finds in the page cache may not be on the disk.

use super::case::DiskCase;
use super::cuts::cut;
use super::disk::Op;
use super::mount::Recording;
use super::{sample, seed};
use crate::crash::scenario::{self, Scenario};
use crate::rng::Rng;
use crate::support::number;

/// How many operations of a scenario with blobs are disturbed, unless `FSSYNC_POWER_CUTS` is set:
/// there are many, and ZODB loads each blob after each power cut.
const SAMPLE_WITH_BLOBS: usize = 2;

fn is_sampled(scenario: &Scenario) -> bool {
    scenario.has_blobs && number("FSSYNC_POWER_CUTS").is_none()
}

/// The operations that are disturbed, of these: all, or a sample that is the same in each run.
fn disturbed(scenario: &Scenario, mut ops: Vec<usize>) -> Vec<usize> {
    if !is_sampled(scenario) {
        return ops;
    }
    let mut rng = Rng::new(seed());
    let count = SAMPLE_WITH_BLOBS.min(ops.len());
    (0..count)
        .map(|_| ops.swap_remove(rng.below(ops.len())))
        .collect()
}

/// Records the pass after one that was disturbed.
pub fn next_pass(on_disk: &DiskCase) -> Recording {
    on_disk.disk.stop_faults();
    let start = on_disk.disk.disk();
    on_disk.disk.take_log();
    on_disk.run_actor().expect(0);
    Recording {
        start,
        ops: on_disk.disk.take_log(),
        is_success: true,
    }
}

/// Kills the pass before each of its operations, and cuts the power during the next one.
fn kill_and_cut(scenario: &'static Scenario) {
    let mut on_disk = DiskCase::prepare(scenario);
    let start = on_disk.disk.disk();
    let recording = on_disk.record();
    // These change nothing that the next pass relies on.
    let is_worth = |op: &Op| !matches!(op, Op::SetMeta { .. } | Op::Create { .. });
    let ops = 0..recording.ops.len();
    let ops = ops.filter(|&nth| is_worth(&recording.ops[nth])).collect();
    let count = sample().div_ceil(8);
    for nth in disturbed(scenario, ops) {
        eprintln!("killed before {nth} of {}", recording.ops.len());
        on_disk.disk.load(start.clone());
        on_disk.disk.kill_after(nth);
        assert_eq!(on_disk.run_actor().code, -1, "it is killed");
        let next = next_pass(&on_disk);
        cut(&mut on_disk, &next, count, seed() + nth as u64);
    }
}

/// Makes each sync fail, and cuts the power during this pass and during the next one.
fn fail_and_cut(scenario: &'static Scenario) {
    let mut on_disk = DiskCase::prepare(scenario);
    let start = on_disk.disk.disk();
    let recording = on_disk.record();
    let is_sync = |op: &&Op| matches!(op, Op::Sync { .. } | Op::SyncDirectory { .. });
    let syncs = recording.ops.iter().filter(is_sync).count();
    let count = sample().div_ceil(if is_sampled(scenario) { 8 } else { 4 });
    for nth in disturbed(scenario, (0..syncs).collect()) {
        eprintln!("sync {nth} of {syncs} fails");
        on_disk.disk.load(start.clone());
        on_disk.disk.fail_sync_after(nth);
        let run = on_disk.run_actor();
        assert!([0, 1].contains(&run.code), "{run:?}");
        assert!(
            !on_disk.disk.reused_a_failed_handle(),
            "a handle is not used after its sync failed"
        );
        let failed = Recording {
            start: start.clone(),
            ops: on_disk.disk.take_log(),
            is_success: false,
        };
        let next = next_pass(&on_disk);
        cut(&mut on_disk, &failed, count, seed());
        cut(&mut on_disk, &next, count, seed());
    }
}

macro_rules! disturbed {
    ($($name:ident: $scenario:ident;)*) => { $(
        mod $name {
            use super::*;

            #[test]
            fn survives_a_power_cut_after_a_kill() {
                kill_and_cut(&scenario::$scenario);
            }

            #[test]
            fn survives_a_power_cut_after_a_failed_sync() {
                fail_and_cut(&scenario::$scenario);
            }
        }
    )* };
}

disturbed! {
    a_first_copy: FIRST_COPY;
    an_append: APPEND;
    an_append_after_a_foreign_tail: APPEND_AFTER_A_FOREIGN_TAIL;
    an_append_without_an_index: APPEND_WITHOUT_AN_INDEX;
    a_full_copy_that_sets_the_old_slave_aside: FULL_COPY_AND_SET_ASIDE;
    an_index_rebuild: INDEX_REBUILD;
    a_first_copy_with_blobs: FIRST_COPY_WITH_BLOBS;
    a_first_copy_with_batches_of_blobs: FIRST_COPY_WITH_BATCHES_OF_BLOBS;
    an_append_with_blobs: APPEND_WITH_BLOBS;
    a_full_copy_with_blobs_that_sets_aside: FULL_COPY_WITH_BLOBS_AND_SET_ASIDE;
    a_removal_of_blobs: REMOVAL_OF_BLOBS;
}
