//! Does the harness find mistakes? A recording is changed as a faulty build would have made it.
//! A check must fail for at least one of the states that only the mistake makes possible.

use super::case::DiskCase;
use super::cuts::{Mistake, is_blob, syncs, without};
use super::disk::Op;
use super::mount::Recording;
use super::number;
use crate::crash::scenario::{self, Scenario};

/// How many states of a mistake are tried.
const TRIES: usize = 500;

/// A scenario, prepared and recorded.
struct Recorded {
    on_disk: DiskCase,
    recording: Recording,
}

impl Recorded {
    fn of(scenario: &'static Scenario) -> Self {
        let mut on_disk = DiskCase::prepare(scenario);
        let recording = on_disk.record();
        Self { on_disk, recording }
    }

    /// The failure that a faulty recording leads to, in so many states.
    fn find(&mut self, faulty: &Recording, tries: usize) -> Option<String> {
        let sound = &self.recording;
        Mistake { sound, faulty }.find(&mut self.on_disk, tries)
    }

    fn assert_found(&mut self, faulty: &Recording, mistake: &str) {
        let found = self.find(faulty, TRIES);
        assert!(found.is_some(), "{mistake}: not found");
    }

    /// The recording without its first link.
    fn without_link(&self) -> Recording {
        let mut ops = self.recording.ops.iter();
        let link = ops.position(|op| matches!(op, Op::Link { .. }));
        without(&self.recording, link.expect("a link"))
    }

    /// Leaves out each of these syncs, one at a time. This must be found.
    fn assert_each_is_needed<'s>(&mut self, syncs: impl Iterator<Item = &'s (usize, String)>) {
        for (nth, label) in syncs {
            eprintln!("without {label}");
            let faulty = without(&self.recording, *nth);
            self.assert_found(&faulty, label);
        }
    }

    /// The number of the operation that writes the first header of an append.
    fn marker(&self) -> usize {
        let is_marker = |op: &Op| matches!(op, Op::Write { bytes, .. } if bytes.len() == 23);
        let mut ops = self.recording.ops.iter();
        ops.position(is_marker).expect("a marker")
    }
}

/// Leaves out each sync of a scenario, one at a time. This must be found, except for the
/// `needless` ones. Those are tried only if more power cuts are wanted: they must not be found.
fn assert_syncs_are_needed(scenario: &'static Scenario, needless: &[&str]) {
    let mut recorded = Recorded::of(scenario);
    let all = syncs(&recorded.recording);
    let is_one = |it: &&str| all.iter().any(|(_, label)| label == it);
    assert!(needless.iter().all(is_one), "{needless:?} of {all:?}");
    for (nth, label) in &all {
        let faulty = without(&recorded.recording, *nth);
        if !needless.contains(&label.as_str()) {
            eprintln!("without {label}");
            recorded.assert_found(&faulty, label);
        } else if let Some(tries) = number("FSSYNC_POWER_CUTS") {
            let found = recorded.find(&faulty, tries);
            assert_eq!(found, None, "{label} is needed");
        }
    }
}

macro_rules! syncs_are_needed {
    ($($name:ident: $scenario:ident but $needless:expr;)*) => { $(
        #[test]
        fn $name() {
            assert_syncs_are_needed(&scenario::$scenario, &$needless);
        }
    )* };
}

syncs_are_needed! {
    // A copy is synced twice: once for its data, and once for owner and mode. There is no old
    // index to remove, and no old slave to link.
    each_sync_of_a_first_copy: FIRST_COPY but [".fssync-tmp 1", "directory 1"];
    each_sync_of_an_append: APPEND but [];
    // The part of the tail that is left for a while starts with a `c` and contains nothing whole.
    each_sync_of_an_append_after_a_foreign_tail: APPEND_AFTER_A_FOREIGN_TAIL but ["Data.fs 1"];
    each_sync_of_an_append_after_a_tail_at_a_page_end: APPEND_AFTER_A_TAIL_AT_A_PAGE_END but [];
    each_sync_of_an_append_after_our_own_tail: APPEND_AFTER_OUR_OWN_TAIL but [];
    each_sync_of_an_append_without_an_index: APPEND_WITHOUT_AN_INDEX but [];
    each_sync_of_an_append_with_an_index_ahead: APPEND_WITH_AN_INDEX_AHEAD but [];
    each_sync_of_a_full_copy: FULL_COPY but [".fssync-tmp 1"];
    each_sync_of_a_full_copy_that_sets_aside: FULL_COPY_AND_SET_ASIDE but [".fssync-tmp 1"];
    each_sync_of_a_rewind: REWIND but [];
    // The old index is still correct.
    each_sync_of_an_index_rebuild: INDEX_REBUILD but ["directory 1"];
    // A pass before this one has created these directories.
    each_sync_of_an_append_with_blobs: APPEND_WITH_BLOBS but [
        "blobstorage 1",
        "blobstorage/0x00 1",
        "blobstorage/0x00/0x00 1",
        "blobstorage/0x00/0x00/0x00 1",
        "blobstorage/0x00/0x00/0x00/0x00 1",
        "blobstorage/0x00/0x00/0x00/0x00/0x00 1",
        "blobstorage/0x00/0x00/0x00/0x00/0x00/0x00 1",
    ];
    // One for the ledger, and one for the sidecar.
    each_sync_of_a_seed: SEED_THAT_IS_NOT_DURABLE but ["Data.fs 1", "Data.fs 2"];
    // An empty switch is off. Less than a header is left, which ZODB truncates.
    each_sync_of_switching_off: OFF but [".fssync-switch 1", "Data.fs 2"];
    each_sync_of_switching_off_after_on: OFF_AFTER_ON but ["directory 1", "Data.fs 2"];
}

/// Somebody copied blobs and did not sync them. The power is cut after the pass.
#[test]
fn each_sync_of_found_blobs() {
    let mut recorded = Recorded::of(&scenario::APPEND_THAT_FINDS_BLOBS);
    let all = syncs(&recorded.recording);
    let of_blobs = all
        .iter()
        .filter(|(_, label)| is_blob(label.trim_end_matches(" 1")));
    let of_directories = all.iter().filter(|(_, label)| {
        let directory = label.trim_end_matches(" 1");
        directory.starts_with("blobstorage/0x") && !is_blob(directory)
    });
    assert!(of_blobs.clone().count() > 1, "{all:?}");
    // The others were durable before.
    let new = of_directories.filter(|(_, label)| label.split('/').count() > 8);
    recorded.assert_each_is_needed(of_blobs.chain(new));
}

/// Blobs of a first copy are placed by another thread, in batches.
#[test]
fn each_sync_of_batches_of_blobs() {
    let mut recorded = Recorded::of(&scenario::FIRST_COPY_WITH_BATCHES_OF_BLOBS);
    let all = syncs(&recorded.recording);
    let is_of_blob = |label: &str| label.starts_with("received");
    let of_blobs = all.iter().filter(|(_, label)| is_of_blob(label));
    assert!(of_blobs.clone().count() > 4, "{all:?}");
    recorded.assert_each_is_needed(of_blobs);
}

/// The blobs of a batch are received and placed once the batch is visible.
#[test]
fn blobs_after_their_batch_are_found() {
    let mut recorded = Recorded::of(&scenario::APPEND_WITH_BLOBS);
    let mut faulty = recorded.recording.clone();
    let data = recorded.marker() + 2;
    let is_status = |op: &Op| matches!(op, Op::Write { bytes, .. } if bytes.len() == 1);
    let after_data = faulty.ops[data..].iter().position(is_status);
    let status = data + after_data.expect("the true status");
    let is_place = |op: &Op| match op {
        Op::Rename { to, .. } => is_blob(&to.name),
        _ => false,
    };
    let placed = faulty.ops.iter().position(is_place).expect("a blob");
    // The batch: the rest of its bytes, its sync, its true status and the sync of that.
    let batch: Vec<Op> = faulty.ops.drain(data..=status + 1).collect();
    assert!((data..status).contains(&placed), "blobs come first");
    let is_of_log = |op: &Op| match (op, &recorded.recording.ops[data - 1]) {
        (Op::Write { node, .. } | Op::Sync { node, .. }, Op::Sync { node: log, .. }) => node == log,
        _ => false,
    };
    let (log, blobs): (Vec<Op>, Vec<Op>) = batch.into_iter().partition(is_of_log);
    faulty.ops.splice(data..data, log.into_iter().chain(blobs));
    recorded.assert_found(&faulty, "blobs after their batch");
}

/// A blob gets its name before its data is durable.
#[test]
fn a_blob_that_is_placed_before_its_sync_is_found() {
    let mut recorded = Recorded::of(&scenario::APPEND_WITH_BLOBS);
    let mut faulty = recorded.recording.clone();
    let is_place = |op: &Op| match op {
        Op::Rename { to, .. } => is_blob(&to.name),
        _ => false,
    };
    let ops = &recorded.recording.ops;
    let last = ops.iter().rposition(is_place).expect("a blob");
    let names: Vec<(usize, String)> = syncs(&recorded.recording);
    let of_blobs = names
        .iter()
        .filter(|(_, label)| label.starts_with("received"));
    let moved: Vec<usize> = of_blobs.map(|(nth, _)| *nth).collect();
    // All of these syncs come after the last rename. The directories are not synced at all
    // before, so a power cut in between loses or keeps each name.
    for &nth in moved.iter().rev() {
        let sync = faulty.ops.remove(nth);
        faulty.ops.insert(last, sync);
    }
    recorded.assert_found(&faulty, "names before data");
}

#[test]
fn a_batch_without_its_marker_is_found() {
    for scenario in [&scenario::APPEND, &scenario::APPEND_IN_BATCHES] {
        let mut recorded = Recorded::of(scenario);
        let mut faulty = recorded.recording.clone();
        let Op::Write { bytes, .. } = &mut faulty.ops[recorded.marker()] else {
            panic!("a marker")
        };
        assert_eq!(bytes[16], b'c');
        bytes[16] = b' ';
        recorded.assert_found(&faulty, "no marker");
    }
}

#[test]
fn a_marker_that_is_written_together_with_its_data_is_found() {
    let mut recorded = Recorded::of(&scenario::APPEND);
    let at = recorded.marker();
    let mut faulty = recorded.recording.clone();
    let Op::Write { bytes: data, .. } = &recorded.recording.ops[at + 2] else {
        panic!("no data after its marker: {:?}", faulty.ops[at + 2])
    };
    assert!(matches!(faulty.ops[at + 1], Op::Sync { .. }));
    let Op::Write { bytes, .. } = &mut faulty.ops[at] else {
        panic!("a marker")
    };
    bytes.extend(data);
    faulty.ops[at + 1] = Op::Nothing;
    faulty.ops[at + 2] = Op::Nothing;
    recorded.assert_found(&faulty, "one write");
}

#[test]
fn a_true_status_before_its_data_is_durable_is_found() {
    let mut recorded = Recorded::of(&scenario::APPEND);
    let mut faulty = recorded.recording.clone();
    let data = recorded.marker() + 2;
    let is_status = |op: &Op| matches!(op, Op::Write { bytes, .. } if bytes.len() == 1);
    let after_data = faulty.ops[data..].iter().position(is_status);
    let status = data + after_data.expect("the true status");
    assert!(matches!(faulty.ops[status - 1], Op::Sync { .. }));
    faulty.ops.swap(status - 1, status);
    recorded.assert_found(&faulty, "the true status too early");
}

#[test]
fn a_copy_that_is_not_synced_is_found() {
    for (scenario, left_out) in [
        (&scenario::FULL_COPY, [".fssync-tmp 1", ".fssync-tmp 2"]),
        (
            &scenario::SEED_THAT_IS_NOT_DURABLE,
            ["Data.fs 1", "Data.fs 2"],
        ),
    ] {
        let mut recorded = Recorded::of(scenario);
        let mut faulty = recorded.recording.clone();
        for (nth, label) in syncs(&recorded.recording) {
            if left_out.contains(&label.as_str()) {
                faulty.ops[nth] = Op::Nothing;
            }
        }
        recorded.assert_found(&faulty, "no sync");
    }
}

/// The position of the `nth` operation of a rewind that changes `Data.fs`: it writes the `c`, and
/// truncates twice.
fn rewinding(recording: &Recording, nth: usize) -> usize {
    let data = recording.start.named("Data.fs");
    let changes = |op: &Op| match op {
        Op::Write { node, .. } | Op::SetLen { node, .. } => Some(*node) == data,
        _ => false,
    };
    let mut ops = recording.ops.iter().enumerate();
    let found = ops.by_ref().filter(|(_, op)| changes(op)).nth(nth);
    found.expect("a change").0
}

#[test]
fn a_rewind_without_its_mark_is_found() {
    let mut recorded = Recorded::of(&scenario::REWIND);
    let mut faulty = recorded.recording.clone();
    let mark = rewinding(&faulty, 0);
    assert!(matches!(&faulty.ops[mark], Op::Write { bytes, .. } if bytes[..] == *b"c"));
    faulty.ops[mark] = Op::Nothing;
    recorded.assert_found(&faulty, "no mark");
}

#[test]
fn a_rewind_that_truncates_before_its_mark_is_durable_is_found() {
    let mut recorded = Recorded::of(&scenario::REWIND);
    let mut faulty = recorded.recording.clone();
    let cut = rewinding(&faulty, 1);
    assert!(matches!(faulty.ops[cut], Op::SetLen { .. }));
    assert!(matches!(faulty.ops[cut - 1], Op::Sync { .. }));
    faulty.ops.swap(cut - 1, cut);
    recorded.assert_found(&faulty, "truncated too early");
}

#[test]
fn own_transactions_that_are_not_set_aside_are_found() {
    let mut recorded = Recorded::of(&scenario::REWIND);
    let faulty = recorded.without_link();
    recorded.assert_found(&faulty, "no set-aside");
}

/// The index, which is of a position after the fork point, is removed only after the mark.
#[test]
fn an_index_that_is_removed_too_late_is_found() {
    let mut recorded = Recorded::of(&scenario::REWIND);
    let mut faulty = recorded.recording.clone();
    let is_index = |op: &Op| match op {
        Op::Unlink { place } => place.name == "Data.fs.index",
        _ => false,
    };
    let removed = faulty.ops.iter().position(is_index).expect("the index");
    faulty.ops[removed] = Op::Nothing;
    recorded.assert_found(&faulty, "an index of own transactions");
}

#[test]
fn an_old_slave_that_is_replaced_without_a_second_name_is_found() {
    let mut recorded = Recorded::of(&scenario::FULL_COPY_AND_SET_ASIDE);
    let faulty = recorded.without_link();
    recorded.assert_found(&faulty, "no second name");
}
