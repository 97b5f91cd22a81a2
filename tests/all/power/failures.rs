//! A pass that is killed, or whose sync fails, and a power cut in the one behind it: what
//! the page cache shows it need not be on the disk.

use super::checks::{Scenario, Stage};
use super::cuts::cut;
use super::disk::Op;
use super::mount::Recording;
use super::scenarios;
use super::{seed, share};

/// What a pass does behind one that was disturbed.
fn next_pass(stage: &Stage) -> Recording {
    stage.disk.end_fault();
    let start = stage.disk.disk();
    stage.disk.take_log();
    stage.pass().expect(0);
    Recording {
        start,
        ops: stage.disk.take_log(),
    }
}

/// Has passes killed before an operation, and cuts the power in the next one.
fn kill_and_cut(scenario: Scenario) {
    let mut stage = Stage::set(scenario);
    let start = stage.disk.disk();
    let (_, recording) = stage.act();
    // Where the one that is killed has changed what matters.
    let is_worth = |op: &Op| !matches!(op, Op::SetMeta { .. } | Op::Create { .. });
    let count = share().div_ceil(8);
    for (nth, op) in recording.ops.iter().enumerate() {
        if !is_worth(op) {
            continue;
        }
        eprintln!("killed before {nth} of {}", recording.ops.len());
        stage.disk.load(start.clone());
        stage.disk.kill_after(nth);
        assert_eq!(stage.pass().code, -1, "it is killed");
        let next = next_pass(&stage);
        cut(&mut stage, (&next, true), count, seed() + nth as u64);
    }
}

/// Has each sync fail, and cuts the power in that pass and the next one.
fn fail_and_cut(scenario: Scenario) {
    let mut stage = Stage::set(scenario);
    let start = stage.disk.disk();
    let (_, recording) = stage.act();
    let is_sync = |op: &&Op| matches!(op, Op::Sync { .. } | Op::SyncDirectory);
    let syncs = recording.ops.iter().filter(is_sync).count();
    let count = share().div_ceil(4);
    for nth in 0..syncs {
        eprintln!("sync {nth} of {syncs} fails");
        stage.disk.load(start.clone());
        stage.disk.fail_sync_after(nth);
        let run = stage.pass();
        assert!([0, 1].contains(&run.code), "{run:?}");
        assert!(
            !stage.disk.reused_a_failed_handle(),
            "the handle is finished"
        );
        let failed = Recording {
            start: start.clone(),
            ops: stage.disk.take_log(),
        };
        let next = next_pass(&stage);
        cut(&mut stage, (&failed, false), count, seed());
        cut(&mut stage, (&next, true), count, seed());
    }
}

macro_rules! disturbed {
    ($($name:ident: $scenario:ident;)*) => { $(
        mod $name {
            use super::*;

            #[test]
            fn survives_a_power_cut_behind_a_kill() {
                kill_and_cut(scenarios::$scenario);
            }

            #[test]
            fn survives_a_power_cut_behind_a_sync_that_failed() {
                fail_and_cut(scenarios::$scenario);
            }
        }
    )* };
}

disturbed! {
    a_first_copy: FIRST_COPY;
    an_append: APPEND;
    an_append_behind_a_foreign_tail: APPEND_BEHIND_A_FOREIGN_TAIL;
    an_append_with_another_index: APPEND_WITH_ANOTHER_INDEX;
    a_full_copy_that_sets_the_old_slave_aside: FULL_COPY_AND_SET_ASIDE;
    an_index_made_anew: INDEX_ANEW;
}
