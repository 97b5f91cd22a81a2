//! Removals of blobs after a full copy whose name is not durable yet: the pass that installed it
//! was killed before it synced the slave's directory.
//!
//! If the next pass removed a blob first, a power cut could bring back the old log without it.

use super::case::{DATA, DiskCase};
use super::cuts::{Mistake, cut, is_blob};
use super::disk::{Op, Place, ROOT};
use super::failures::next_pass;
use super::mount::Recording;
use super::{sample, seed};
use crate::crash::scenario;

/// How many states of a mistake are tried.
const TRIES: usize = 500;

/// A slave after such a kill, and the recording of the pass that removes the blobs.
struct Removal {
    on_disk: DiskCase,
    recording: Recording,
}

impl Removal {
    fn record() -> Self {
        let mut on_disk = DiskCase::prepare(&scenario::FULL_COPY_AND_REMOVAL_OF_BLOBS);
        let start = on_disk.disk.disk();
        let full_copy = on_disk.record();
        let installed = position(&full_copy, 0, |op| match op {
            Op::Rename { to, .. } => is_log(to),
            _ => false,
        });
        let synced = position(&full_copy, installed, is_sync_of_root);
        on_disk.disk.load(start);
        on_disk.disk.kill_after(synced);
        assert_eq!(on_disk.run_actor().code, -1, "it is killed");
        let recording = next_pass(&on_disk);
        Self { on_disk, recording }
    }

    /// The number of the first operation that removes a blob.
    fn first_unlink(&self) -> usize {
        let is_removal = |op: &Op| match op {
            Op::Unlink { place } => is_blob(&place.name),
            _ => false,
        };
        position(&self.recording, 0, is_removal)
    }
}

/// The number of the first operation of this kind, from the given one on.
fn position(recording: &Recording, from: usize, is_wanted: impl Fn(&Op) -> bool) -> usize {
    let found = recording.ops[from..].iter().position(is_wanted);
    from + found.unwrap_or_else(|| panic!("not in {:?}", recording.ops))
}

fn is_log(place: &Place) -> bool {
    (place.directory, place.name.as_str()) == (ROOT, DATA)
}

fn is_sync_of_root(op: &Op) -> bool {
    *op == Op::SyncDirectory { node: ROOT }
}

#[test]
fn survives_power_cuts() {
    let Removal {
        mut on_disk,
        recording,
    } = Removal::record();
    let count = cut(&mut on_disk, &recording, sample(), seed());
    println!("{count} states");
}

/// The slave's directory is not synced before the first blob is removed: neither after the survey
/// nor before the removal itself.
#[test]
fn before_the_log_has_a_durable_name_is_found() {
    let mut removal = Removal::record();
    let first = removal.first_unlink();
    let mut faulty = removal.recording.clone();
    for op in &mut faulty.ops[..first] {
        if is_sync_of_root(op) {
            *op = Op::Nothing;
        }
    }
    let sound = &removal.recording;
    let mistake = Mistake {
        sound,
        faulty: &faulty,
    };
    // The old log with the new ledger is found, too, but here it is about the blobs.
    let found = mistake.find_as(&mut removal.on_disk, TRIES, "missing: {\"blobs\"");
    found.expect("a removal before a sync is not found");
}
