//! Power cuts at every operation of a recording.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::case::{DATA, DiskCase};
use super::disk::{Bytes, Disk, Names, Op, PAGE_LEN, ROOT, SECTOR_LEN};
use super::mount::Recording;
use super::{sample, seed};
use crate::crash::scenario::Scenario;
use crate::rng::Rng;
use crate::support::said_by;

/// A power cut; the same values cut the power in the same way again.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// The number of operations before it.
    pub after: usize,
    pub names: Names,
    pub bytes: Bytes,
    pub seed: u64,
}

/// The power cuts that leave most or least.
const EXTREMES: [(Names, Bytes); 5] = [
    (Names::Lost, Bytes::Lost),
    (Names::Kept, Bytes::Kept),
    (Names::Kept, Bytes::Lost),
    (Names::Kept, Bytes::Size),
    (Names::Lost, Bytes::Kept),
];

/// The disk after each operation of a recording.
fn disks(recording: &Recording) -> Vec<Disk> {
    let mut disk = recording.start.clone();
    let mut disks = vec![disk.clone()];
    for op in &recording.ops {
        disk.apply(op);
        disks.push(disk.clone());
    }
    disks
}

/// An endless sequence of different states that power cuts leave: alternately extreme and
/// random ones.
struct States {
    disks: Vec<Disk>,
    /// The numbers of operations before each sync, when most data is not durable.
    syncs: Vec<usize>,
    extremes: Vec<Cut>,
    rng: Rng,
    known: HashSet<u64>,
    turns: usize,
}

impl States {
    /// The states after `first` operations or more.
    fn new(recording: &Recording, first: usize, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let disks = disks(recording);
        let mut extremes = Vec::new();
        for after in first..disks.len() {
            for (names, bytes) in EXTREMES {
                let cut = Cut {
                    after,
                    names,
                    bytes,
                    seed: 0,
                };
                extremes.insert(rng.below(extremes.len() + 1), cut);
            }
        }
        // This one is taken first: all that must be there after the last operation.
        let last = extremes.iter().position(|cut| {
            (cut.after, cut.names, cut.bytes) == (disks.len() - 1, Names::Lost, Bytes::Lost)
        });
        if let Some(last) = last {
            let last = extremes.remove(last);
            extremes.push(last);
        }
        let is_sync = |op: &Op| matches!(op, Op::Sync { .. } | Op::SyncDirectory { .. });
        let syncs = (first..recording.ops.len()).filter(|&nth| is_sync(&recording.ops[nth]));
        Self {
            syncs: syncs.collect(),
            disks,
            extremes,
            rng,
            known: HashSet::new(),
            turns: 0,
        }
    }

    fn draw(&mut self, first: usize) -> Cut {
        let rng = &mut self.rng;
        let after = if self.syncs.is_empty() || rng.flip() {
            first + rng.below(self.disks.len() - first)
        } else {
            rng.one_of(&self.syncs)
        };
        Cut {
            after,
            names: rng.one_of(&[Names::Journal, Names::Any, Names::Any, Names::Kept]),
            bytes: rng.one_of(&[Bytes::Any, Bytes::Torn(SECTOR_LEN), Bytes::Torn(PAGE_LEN)]),
            seed: rng.below(usize::MAX) as u64,
        }
    }

    /// The next state that differs from all before; `None` if there is hardly any.
    fn next(&mut self, first: usize) -> Option<(Cut, Disk)> {
        for _ in 0..500 {
            self.turns += 1;
            let extreme = (self.turns % 2 == 1).then(|| self.extremes.pop()).flatten();
            let cut = extreme.unwrap_or_else(|| self.draw(first));
            let mut rng = Rng::new(cut.seed);
            let left = self.disks[cut.after].cut(cut.names, cut.bytes, &mut rng);
            let is_done = cut.after == self.disks.len() - 1;
            if self.known.insert(key(&left, is_done)) {
                return Some((cut, left));
            }
        }
        None
    }
}

/// Equal for states that are checked in the same way.
fn key(left: &Disk, is_done: bool) -> u64 {
    left.fingerprint() ^ u64::from(is_done)
}

/// Cuts the power `count` times during a recording, and checks each state. Returns the number
/// of different states.
pub fn cut(on_disk: &mut DiskCase, recording: &Recording, count: usize, seed: u64) -> usize {
    let ops = recording.ops.len();
    let first = on_disk.first_checked(ops);
    let mut states = States::new(recording, first, seed);
    for nth in 0..count {
        let Some((cut, left)) = states.next(first) else {
            return nth;
        };
        let is_done = recording.is_success && cut.after == ops;
        eprintln!("{cut:?} of {ops}");
        let next = on_disk.check(&left, &recording.start, is_done);
        if nth % 3 == 0 && on_disk.may_be_cut_again() {
            let ops = next.ops.len();
            let first = Rng::new(cut.seed ^ seed).below(ops + 1);
            if let Some((cut, left)) = States::new(&next, first, seed).next(first) {
                eprintln!("and again {cut:?} of {ops}");
                on_disk.check(&left, &next.start, cut.after == ops);
            }
        }
    }
    count
}

/// Records a scenario that has at least `min_ops` operations, and cuts the power during it.
pub fn record_and_cut(scenario: &'static Scenario, min_ops: usize) {
    let mut on_disk = DiskCase::prepare(scenario);
    let recording = on_disk.record();
    assert!(recording.ops.len() >= min_ops, "{:?}", recording.ops);
    let count = cut(&mut on_disk, &recording, sample(), seed());
    println!("{count} states");
}

/// A recording, and the same with a mistake.
pub struct Mistake<'a> {
    pub sound: &'a Recording,
    pub faulty: &'a Recording,
}

impl Mistake<'_> {
    /// Cuts the power in at most `count` states that only the mistake makes possible, until a
    /// check fails. Returns the failure.
    pub fn find(&self, on_disk: &mut DiskCase, count: usize) -> Option<String> {
        self.find_as(on_disk, count, "")
    }

    /// The same, but only a failure whose message contains this text counts.
    pub fn find_as(&self, on_disk: &mut DiskCase, count: usize, text: &str) -> Option<String> {
        let ops = self.sound.ops.len();
        let differs = |nth: &usize| self.sound.ops[*nth] != self.faulty.ops[*nth];
        let from = (0..ops).find(differs).expect("a mistake");
        let from = from.max(on_disk.first_checked(ops));
        let mut sound = States::new(self.sound, from, 1);
        while sound.known.len() < count && sound.next(from).is_some() {}
        let mut states = States::new(self.faulty, from, 1);
        for _ in 0..count {
            let (cut, left) = states.next(from)?;
            let is_done = cut.after == ops;
            if sound.known.contains(&key(&left, is_done)) {
                continue;
            }
            let checked = catch_unwind(AssertUnwindSafe(|| {
                on_disk.check(&left, &self.faulty.start, is_done);
            }));
            if let Err(panic) = checked {
                let found = said_by(&*panic);
                if found.contains(text) {
                    return Some(format!("{cut:?}: {found}"));
                }
            }
        }
        None
    }
}

/// The syncs of a recording: the number of the operation, and the path of the file or directory
/// with the number of its syncs so far, such as `Data.fs 2`. The root is called `directory`.
pub fn syncs(recording: &Recording) -> Vec<(usize, String)> {
    let mut names: Vec<String> = Vec::new();
    let mut found = Vec::new();
    let disks = disks(recording);
    for (nth, op) in recording.ops.iter().enumerate() {
        let name = match op {
            Op::SyncDirectory { node: ROOT } => "directory".to_owned(),
            Op::Sync { node, .. } | Op::SyncDirectory { node } => {
                let mut all = disks[nth].tree().paths().into_iter();
                let found = all.find(|&(_, it)| it == *node);
                found.map_or_else(|| "nothing".to_owned(), |(path, _)| stable(&path))
            }
            _ => continue,
        };
        names.push(name.clone());
        let times = names.iter().filter(|&it| *it == name).count();
        let short = name.strip_prefix(DATA).filter(|it| !it.is_empty());
        found.push((nth, format!("{} {times}", short.unwrap_or(&name))));
    }
    found
}

/// Whether a path is one of a blob file.
pub fn is_blob(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|it| it == "blob")
}

/// A path without the tid of a blob, which differs from run to run. A blob that is being received
/// is called `received` and its oid.
fn stable(path: &str) -> String {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    match (directory.rsplit_once('/'), name.split_once('-')) {
        (Some((_, "tmp")), Some((oid, _))) => format!("received {}", oid.trim_start_matches('0')),
        _ if is_blob(name) => format!("{directory}/*.blob"),
        _ => path.to_owned(),
    }
}

/// The recording without one of its operations.
pub fn without(recording: &Recording, nth: usize) -> Recording {
    let mut faulty = recording.clone();
    faulty.ops[nth] = Op::Nothing;
    faulty
}
