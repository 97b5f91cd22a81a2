//! Power cuts at every operation of a recording.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::checks::{DATA, Scenario, Stage};
use super::disk::{Bytes, Disk, Names, Op, PAGE_LEN, SECTOR_LEN};
use super::mount::Recording;
use crate::rng::Rng;
use crate::support::said_by;

/// A power cut, by which it can be had again.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// After how many operations.
    pub after: usize,
    pub names: Names,
    pub bytes: Bytes,
    pub seed: u64,
}

/// What the power cuts leave that leave most or least.
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

/// Different states that power cuts leave, without an end: extremes in some order, and
/// others, by turns.
struct States {
    disks: Vec<Disk>,
    /// After how many operations something is synced: when most is not.
    syncs: Vec<usize>,
    extremes: Vec<Cut>,
    rng: Rng,
    known: HashSet<u64>,
    turns: usize,
}

impl States {
    /// Those of cuts after `first` operations or more.
    fn new(recording: &Recording, first: usize, seed: u64, known: HashSet<u64>) -> Self {
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
        // The last one taken first: what must be there when all was done.
        let last = extremes.iter().position(|cut| {
            (cut.after, cut.names, cut.bytes) == (disks.len() - 1, Names::Lost, Bytes::Lost)
        });
        if let Some(last) = last {
            let last = extremes.remove(last);
            extremes.push(last);
        }
        let is_sync = |op: &Op| matches!(op, Op::Sync { .. } | Op::SyncDirectory);
        let syncs = (first..recording.ops.len()).filter(|&nth| is_sync(&recording.ops[nth]));
        Self {
            syncs: syncs.collect(),
            disks,
            extremes,
            rng,
            known,
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

    /// The next one that was not there before; `None` if hardly any is left.
    fn next(&mut self, first: usize) -> Option<(Cut, Disk)> {
        for _ in 0..500 {
            self.turns += 1;
            let extreme = (self.turns % 2 == 1).then(|| self.extremes.pop()).flatten();
            let cut = extreme.unwrap_or_else(|| self.draw(first));
            let mut rng = Rng::new(cut.seed);
            let left = self.disks[cut.after].cut(cut.names, cut.bytes, &mut rng);
            let is_done = cut.after == self.disks.len() - 1;
            if self.known.insert(left.fingerprint() ^ u64::from(is_done)) {
                return Some((cut, left));
            }
        }
        None
    }
}

/// Cuts the power in a recording, so many times. Returns how many different states that
/// has left; each is checked.
pub fn cut(
    stage: &mut Stage,
    (recording, ended_well): (&Recording, bool),
    count: usize,
    seed: u64,
) -> usize {
    let first = stage.judges_from(recording.ops.len());
    let mut states = States::new(recording, first, seed, HashSet::new());
    for nth in 0..count {
        let Some((cut, left)) = states.next(first) else {
            return nth;
        };
        let is_done = ended_well && cut.after == recording.ops.len();
        eprintln!("{cut:?} of {}", recording.ops.len());
        let healing = stage.check(&left, &recording.start, is_done);
        if nth % 3 == 0 && stage.may_be_cut_again() {
            let mut rng = Rng::new(cut.seed ^ seed);
            let first = rng.below(healing.ops.len() + 1);
            let mut again = States::new(&healing, first, seed, HashSet::new());
            if let Some((cut, left)) = again.next(first) {
                eprintln!("and again {cut:?} of {}", healing.ops.len());
                stage.check(&left, &healing.start, cut.after == healing.ops.len());
            }
        }
    }
    count
}

/// Plays, and cuts the power so many times.
pub fn record_and_cut(scenario: Scenario, count: usize, seed: u64) -> usize {
    let mut stage = Stage::set(scenario);
    let (ended_well, recording) = stage.act();
    assert!(recording.ops.len() > 5, "{:?}", recording.ops);
    cut(&mut stage, (&recording, ended_well), count, seed)
}

/// Whether the power cuts in a recording that has a mistake, which is made by its
/// operation `from`, are found out; if so, by what. States that `sound` leaves, too, are
/// passed over.
pub fn complaint(
    stage: &mut Stage,
    (sound, mistaken, from): (&Recording, &Recording, usize),
    count: usize,
) -> Option<String> {
    let from = from.max(stage.judges_from(sound.ops.len()));
    let mut states = States::new(mistaken, from, 1, HashSet::new());
    let mut sound_ones = States::new(sound, from, 1, HashSet::new());
    for _ in 0..count {
        if sound_ones.next(from).is_none() {
            break;
        }
    }
    let ends = sound.ops.len();
    for _ in 0..count {
        let Some((cut, left)) = states.next(from) else {
            break;
        };
        let is_done = cut.after == ends;
        if sound_ones
            .known
            .contains(&(left.fingerprint() ^ u64::from(is_done)))
        {
            continue;
        }
        let checked = catch_unwind(AssertUnwindSafe(|| {
            stage.check(&left, &mistaken.start, is_done);
        }));
        if let Err(panic) = checked {
            return Some(format!("{cut:?}: {}", said_by(&*panic)));
        }
    }
    None
}

/// The syncs of a recording: the operation's number, and what is synced for the how
/// manieth time, such as `Data.fs 2` or `directory 1`.
pub fn syncs(recording: &Recording) -> Vec<(usize, String)> {
    let mut names: Vec<String> = Vec::new();
    let mut found = Vec::new();
    let disks = disks(recording);
    for (nth, op) in recording.ops.iter().enumerate() {
        let name = match op {
            Op::Sync { node, .. } => {
                let mut all = disks[nth].names();
                let name = all
                    .find(|&(_, it)| it == *node)
                    .map(|(name, _)| name.clone());
                name.unwrap_or_else(|| "nothing".to_owned())
            }
            Op::SyncDirectory => "directory".to_owned(),
            _ => continue,
        };
        names.push(name.clone());
        let times = names.iter().filter(|&it| *it == name).count();
        let short = name.strip_prefix(DATA).filter(|it| !it.is_empty());
        found.push((nth, format!("{} {times}", short.unwrap_or(&name))));
    }
    found
}

/// The recording without one of its operations.
pub fn without(recording: &Recording, nth: usize) -> Recording {
    let mut mistaken = recording.clone();
    mistaken.ops[nth] = Op::Nothing;
    mistaken
}
