//! Anything that may happen to a master and to a slave, and passes between: after each
//! one, the laws hold.
//!
//! An input is a list of [deeds](PlannedAction), a byte each, and behind it what the action takes.
//! Transactions are committed as ZODB does, packed, voted and aborted; bytes are put
//! over those of either file, behind them, or in their place. What a pass has read
//! counts as what the master once had.
//!
//! | after a pass | |
//! | --- | --- |
//! | always | the master is as it was; there are documented names only; what the slave had and the master has not is there still, in the slave or beside it; where the master has the slave's last transaction, it may have packed away what it once had |
//! | 0 | the slave has all that the master has committed, byte by byte; if no tail is left behind, another pass does nothing, and what lies beside the slave is right |
//! | 30 | the slave is what precedes the damage, or as it was |
//! | 12, 20, 31, and a dry run | the slave is as it was |

mod laws;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;

use fssync::filestorage::{MAGIC_LEN, Magic, Tid, TxnStatus};

use super::input::{Input, section};
use super::scene::{How, Scene, bytes, fixtures};
use super::storage::{Scanned, Txn, file};

/// The most deeds.
const MAX_DEEDS: usize = 24;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlannedAction {
    /// A pass.
    Pass,
    /// One with `--full`.
    Full,
    /// One with `--dry-run`.
    Rehearse,
    /// The master commits so many transactions.
    Commit,
    /// The master votes, and does not finish.
    Vote,
    /// The master is packed: what precedes a transaction goes, or is marked.
    Pack,
    /// The master is put back to what it once was.
    Restore,
    /// Another file is put in the master's place.
    Replace,
    /// Bytes are appended to the master.
    Extend,
    /// The slave commits so many transactions of its own.
    Serve,
    /// The slave is a start of the master, seeded by hand.
    Seed,
    /// The slave is cut.
    Cut,
    /// Bytes are put over the slave's.
    Overwrite,
    /// Bytes are appended to the slave.
    Append,
    /// What a pass has left beside the slave is removed.
    Forget,
    /// The slave is compared with the master.
    Compare,
}

const DEEDS: [PlannedAction; 16] = [
    PlannedAction::Pass,
    PlannedAction::Full,
    PlannedAction::Rehearse,
    PlannedAction::Commit,
    PlannedAction::Vote,
    PlannedAction::Pack,
    PlannedAction::Restore,
    PlannedAction::Replace,
    PlannedAction::Extend,
    PlannedAction::Serve,
    PlannedAction::Seed,
    PlannedAction::Cut,
    PlannedAction::Overwrite,
    PlannedAction::Append,
    PlannedAction::Forget,
    PlannedAction::Compare,
];

/// The two files, and what became of them.
struct World {
    scene: Scene,
    /// The master's transactions, as ZODB has them, unless its bytes are others.
    txns: Vec<Txn>,
    /// What they were before packs and the like.
    former: Vec<Vec<Txn>>,
    /// What masters had when a pass read them.
    seen: BTreeSet<Tid>,
    /// The clock of both machines.
    now: u64,
}

/// Has all this happen.
///
/// # Panics
///
/// Where a law does not hold.
pub fn run(input: &[u8]) {
    let mut world = World {
        scene: Scene::new(),
        txns: Vec::new(),
        former: Vec::new(),
        seen: BTreeSet::new(),
        now: 0x03f0_0000_0000_0000,
    };
    let mut input = Input(input);
    for _ in 0..MAX_DEEDS {
        let Some(action) = input.byte() else {
            return;
        };
        let action = DEEDS[usize::from(action) % DEEDS.len()];
        if world.happens(action, &mut input).is_none() {
            return;
        }
    }
}

impl World {
    /// Has something happen; `None` where the input ends before it is said what.
    fn happens(&mut self, action: PlannedAction, input: &mut Input<'_>) -> Option<()> {
        match action {
            PlannedAction::Pass => self.pass(How::default()),
            PlannedAction::Full => self.pass(How {
                full: true,
                dry_run: false,
            }),
            PlannedAction::Rehearse => self.pass(How {
                full: input.byte()? & 1 == 1,
                dry_run: true,
            }),
            PlannedAction::Commit => {
                let more = self.transactions(input, TxnStatus::COMMITTED)?;
                self.txns.extend(more);
                self.write_in_place(&file(&self.txns));
            }
            PlannedAction::Vote => {
                let more = self.transactions(input, TxnStatus::VOTED)?;
                let mut voted = self.txns.clone();
                voted.extend(more.into_iter().take(1));
                self.write_in_place(&file(&voted));
            }
            PlannedAction::Pack => self.pack(input.byte()?),
            PlannedAction::Restore => {
                let n = usize::from(input.byte()?);
                let former = self.former.get(n % self.former.len().max(1))?.clone();
                self.txns = former;
                replace(&self.scene, &file(&self.txns));
            }
            PlannedAction::Replace => replace(&self.scene, input.section()?),
            PlannedAction::Extend => append(&self.scene.master, input.section()?),
            PlannedAction::Serve => self.serve(input)?,
            PlannedAction::Seed => {
                let len = input.number()?;
                let master = bytes(&self.scene.master);
                write(&self.scene.slave, &master[..len.min(master.len())]);
            }
            PlannedAction::Cut => {
                let slave = bytes(&self.scene.slave);
                let len = input.number()?.min(slave.len());
                write(&self.scene.slave, &slave[..len]);
            }
            PlannedAction::Overwrite => {
                let (at, with) = (input.number()?, input.section()?);
                let len = bytes(&self.scene.slave).len();
                let fits = with.len().min(len.saturating_sub(at));
                if let Ok(slave) = OpenOptions::new().write(true).open(&self.scene.slave) {
                    slave
                        .write_all_at(&with[..fits], at as u64)
                        .expect("a write");
                }
            }
            PlannedAction::Append => append(&self.scene.slave, input.section()?),
            PlannedAction::Forget => self.forget(input.byte()?),
            PlannedAction::Compare => self.compare(),
        }
        Some(())
    }

    /// Transactions, of two bytes each: how many records, and how long they are.
    fn transactions(&mut self, input: &mut Input<'_>, status: TxnStatus) -> Option<Vec<Txn>> {
        let count = input.byte()? % 8;
        let mut txns = Vec::new();
        for _ in 0..count {
            let (shape, len) = (input.byte()?, input.byte()?);
            self.now += u64::from(shape >> 4) + 1;
            let record = |n: u8| (u64::from(n), vec![b'.'; usize::from(len)]);
            txns.push(Txn {
                tid: self.now,
                status,
                user: vec![b'u'; usize::from(shape & 3)],
                records: (0..shape >> 2 & 3).map(record).collect(),
            });
        }
        Some(txns)
    }

    /// The master's file gets these bytes; those that it has already stay.
    fn write_in_place(&self, with: &[u8]) {
        let had = bytes(&self.scene.master);
        if had.is_empty() {
            return write(&self.scene.master, with);
        }
        let same = had.iter().zip(with).take_while(|(a, b)| a == b).count();
        let master = OpenOptions::new().write(true).open(&self.scene.master);
        let master = master.expect("the master");
        master.set_len(same as u64).expect("a cut");
        master
            .write_all_at(&with[same..], same as u64)
            .expect("a write");
    }

    /// Packs: some of what precedes a transaction goes, the rest gets another status.
    fn pack(&mut self, how: u8) {
        self.former.push(self.txns.clone());
        let kept = usize::from(how >> 4);
        let packed = self.txns.len().saturating_sub(kept);
        let mut n = 0;
        self.txns.retain(|_| {
            n += 1;
            n > packed || (usize::from(how) + n) % 3 > 0
        });
        let still = self.txns.len().saturating_sub(kept);
        for txn in &mut self.txns[..still] {
            txn.status = TxnStatus::PACKED;
        }
        replace(&self.scene, &file(&self.txns));
    }

    /// The slave gets transactions of its own, where ZODB would append them.
    fn serve(&mut self, input: &mut Input<'_>) -> Option<()> {
        let more = self.transactions(input, TxnStatus::COMMITTED)?;
        let mut slave = bytes(&self.scene.slave);
        let scanned = Scanned::of(&slave, usize::MAX);
        if Magic::decode(&slave).is_some() && scanned.can_be_cut() {
            slave.truncate(scanned.position as usize);
            for txn in more {
                slave.extend(txn.at(slave.len() as u64));
            }
            write(&self.scene.slave, &slave);
        }
        Some(())
    }

    fn forget(&self, which: u8) {
        let directory = self.scene.slave.with_file_name("Data.fs");
        let directory = directory.display();
        for (bit, suffix) in [".fssync", ".index", ".fssync-ledger", ""]
            .iter()
            .enumerate()
        {
            if which >> bit & 1 == 1 {
                // It may not be there.
                let _ = fs::remove_file(format!("{directory}{suffix}"));
            }
        }
    }
}

/// Puts another file in the master's place.
fn replace(scene: &Scene, with: &[u8]) {
    let new = scene.master.with_extension("pack");
    fs::write(&new, with).expect("a file");
    fs::rename(new, &scene.master).expect("a rename");
}

fn append(to: &std::path::Path, with: &[u8]) {
    let file = OpenOptions::new().write(true).open(to);
    if let Ok(file) = file {
        let end = len(&file);
        file.write_all_at(with, end).expect("a write");
    }
}

fn len(file: &File) -> u64 {
    file.metadata().map_or(MAGIC_LEN, |found| found.len())
}

fn write(to: &std::path::Path, with: &[u8]) {
    fs::write(to, with).expect("a file");
}

/// Stories: the ones of the decision table, and each fixture as either file.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let code = |action: PlannedAction| DEEDS.iter().position(|it| *it == action).unwrap_or(0) as u8;
    let action = |action, with: &[u8]| [&[code(action)], with].concat();
    let pass = || action(PlannedAction::Pass, &[]);
    let full = || action(PlannedAction::Full, &[]);
    let compare = || action(PlannedAction::Compare, &[]);
    let dry_run = || action(PlannedAction::Rehearse, &[0]);
    let commit = || action(PlannedAction::Commit, &[3, 0x15, 50, 0x2a, 0, 0x1c, 200]);
    let vote = || action(PlannedAction::Vote, &[1, 0x15, 90]);
    let serve = || action(PlannedAction::Serve, &[2, 0x15, 70, 0x06, 9]);
    let pack = |how| action(PlannedAction::Pack, &[how]);
    let start = || [commit(), pass(), commit(), pass()].concat();
    let stories = [
        vec![start(), vote(), pass(), commit(), dry_run(), pass()],
        vec![start(), pack(0x31), pass(), commit(), compare(), pass()],
        vec![start(), commit(), pack(0x02), compare(), pass()],
        vec![start(), serve(), compare(), pass(), full(), pass()],
        vec![
            start(),
            serve(),
            commit(),
            pass(),
            pack(0x12),
            pass(),
            full(),
        ],
        vec![
            start(),
            pack(0x21),
            action(PlannedAction::Restore, &[0]),
            pass(),
            full(),
        ],
        vec![
            start(),
            action(PlannedAction::Forget, &[7]),
            pass(),
            commit(),
            pass(),
        ],
        vec![
            start(),
            action(PlannedAction::Forget, &[1]),
            serve(),
            pass(),
            pack(0x21),
            pass(),
        ],
        vec![
            start(),
            action(PlannedAction::Cut, &[1, 0]),
            commit(),
            pass(),
            compare(),
        ],
        vec![
            start(),
            action(PlannedAction::Overwrite, &[0, 90, 0, 3, 1, 2, 3]),
            pass(),
            compare(),
            full(),
        ],
        vec![
            start(),
            action(PlannedAction::Append, &section(b"torn")),
            commit(),
            pass(),
        ],
        vec![
            start(),
            action(PlannedAction::Extend, &section(&[0; 60])),
            compare(),
            pass(),
            commit(),
            pass(),
        ],
        vec![
            commit(),
            action(PlannedAction::Seed, &[1, 0]),
            pass(),
            commit(),
            pass(),
        ],
        vec![
            commit(),
            action(PlannedAction::Seed, &[0, 30]),
            pass(),
            action(PlannedAction::Replace, &section(b"FS30")),
        ],
    ];
    let mut seeds: Vec<_> = stories.iter().map(|story| story.concat()).collect();
    for (_, bytes) in fixtures() {
        let all = action(PlannedAction::Replace, &section(&bytes));
        let half = action(
            PlannedAction::Seed,
            &((bytes.len() / 2) as u16).to_be_bytes(),
        );
        seeds.push([all.clone(), pass(), compare(), full()].concat());
        seeds.push([all, half, pass(), serve(), pass(), full()].concat());
    }
    seeds
}
