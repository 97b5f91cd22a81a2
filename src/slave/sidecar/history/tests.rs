//! The last outcome over several passes, and sums of counters.

use super::*;
use crate::plan::outcome::{Copied, Exit};

fn outcome(action: Action, exit: Exit, bytes: u64) -> Outcome {
    Outcome {
        action,
        exit,
        reason: String::new(),
        hint: None,
        copied: Copied {
            transactions: bytes / 100,
            bytes,
            ..Copied::default()
        },
        warnings: Vec::new(),
    }
}

#[test]
fn an_outcome_lasts_since_the_first_pass_with_its_exit_code() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let unreachable = outcome(Action::Unreachable, Exit::Unreachable, 0);
    let first = Pass::new(&unreachable, at(100), at(130), None);
    assert_eq!(
        (first.since, first.elapsed_ms),
        (Some(at(130)), Some(30_000))
    );
    let other_reason = Outcome {
        reason: "refused".to_owned(),
        ..unreachable
    };
    let second = Pass::new(&other_reason, at(160), at(161), Some(&first));
    assert_eq!(second.since, Some(at(130)));
    let in_sync = outcome(Action::UpToDate, Exit::Success, 0);
    let third = Pass::new(&in_sync, at(220), at(221), Some(&second));
    assert_eq!(third.since, Some(at(221)));
    // A version that did not record it stored the last pass; and the clock was set back.
    let old = Pass {
        since: None,
        ..third
    };
    let fourth = Pass::new(&in_sync, at(300), at(280), Some(&old));
    assert_eq!((fourth.since, fourth.elapsed_ms), (Some(at(221)), Some(0)));
}

#[test]
fn counters_add_up() {
    let unrecorded = Unrecorded::default();
    unrecorded.count(&outcome(Action::Append, Exit::Success, 300));
    unrecorded.count(&outcome(Action::UpToDate, Exit::Success, 0));
    unrecorded.count(&outcome(Action::Append, Exit::MasterDamaged, 100));
    let mut total = unrecorded.counters();
    total.add(&unrecorded.counters());
    unrecorded.clear();
    assert_eq!(unrecorded.counters(), Counters::default());
    assert_eq!(total.passes, BTreeMap::from([(0, 4), (30, 2)]));
    assert_eq!(total.copied_bytes, BTreeMap::from([(Action::Append, 800)]));
    assert_eq!(total.copied_transactions, 8);
    total.copied_blobs = u64::MAX;
    total.add(&total.clone());
    assert_eq!(total.copied_blobs, u64::MAX);
}
