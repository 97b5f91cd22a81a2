//! Any events at a master and a slave, with passes in between. After each pass the laws must
//! hold.
//!
//! An input is a list of [events](Event), each a byte with its parameters. ZODB commits, packs,
//! votes and aborts transactions; the bytes of either file are overwritten, extended or replaced.
//! A transaction counts as the master's if a pass has ever read it there.
//!
//! | after a pass | |
//! | --- | --- |
//! | always | the master is unchanged; there are only documented names; transactions that only the slave had still exist, in the slave or beside it. If the master has the slave's last transaction, it may have packed away transactions that it once had |
//! | 0 | the slave has all committed bytes of the master; if it has no tail, another pass does nothing, and the files beside the slave are right |
//! | 30 | the slave ends before the damage, or is unchanged |
//! | 12, 20, 31, and a dry run | the slave is unchanged |

mod laws;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;

use fssync::filestorage::{MAGIC_LEN, Magic, Tid, TxnStatus};

use super::input::{Input, section};
use super::scene::{How, Scene, bytes, fixtures};
use super::storage::{Scanned, Txn, file};

/// The most events.
const MAX_EVENTS: usize = 24;

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// A pass.
    Pass,
    /// A pass with `--full`.
    Full,
    /// A pass with `--dry-run`.
    DryRun,
    /// The master commits several transactions.
    Commit,
    /// The master votes, and does not finish.
    Vote,
    /// The master is packed: some transactions are dropped, the others get another status.
    Pack,
    /// The master is restored to an earlier state.
    Restore,
    /// Another file replaces the master.
    Replace,
    /// Bytes are appended to the master.
    Extend,
    /// The slave commits its own transactions.
    Serve,
    /// The slave is seeded by hand with the start of the master.
    Seed,
    /// The slave is truncated.
    Truncate,
    /// Bytes of the slave are overwritten.
    Overwrite,
    /// Bytes are appended to the slave.
    Append,
    /// Files that a pass has left beside the slave are removed.
    RemoveFiles,
    /// The slave is compared with the master.
    Compare,
}

const EVENTS: [Event; 16] = [
    Event::Pass,
    Event::Full,
    Event::DryRun,
    Event::Commit,
    Event::Vote,
    Event::Pack,
    Event::Restore,
    Event::Replace,
    Event::Extend,
    Event::Serve,
    Event::Seed,
    Event::Truncate,
    Event::Overwrite,
    Event::Append,
    Event::RemoveFiles,
    Event::Compare,
];

/// The two files and their history.
struct World {
    scene: Scene,
    /// The master's transactions, as ZODB wrote them; the file may differ.
    txns: Vec<Txn>,
    /// Earlier lists of transactions, before packs.
    former: Vec<Vec<Txn>>,
    /// All transactions that passes have read from the master.
    seen: BTreeSet<Tid>,
    /// The clock of both machines.
    now: u64,
}

/// Executes the events of an input.
///
/// # Panics
///
/// If a law is violated.
pub fn run(input: &[u8]) {
    let mut world = World {
        scene: Scene::new(),
        txns: Vec::new(),
        former: Vec::new(),
        seen: BTreeSet::new(),
        now: 0x03f0_0000_0000_0000,
    };
    let mut input = Input(input);
    for _ in 0..MAX_EVENTS {
        let Some(event) = input.byte() else {
            return;
        };
        let event = EVENTS[usize::from(event) % EVENTS.len()];
        if world.execute(event, &mut input).is_none() {
            return;
        }
    }
}

impl World {
    /// Executes an event; `None` if the input ends within it.
    fn execute(&mut self, event: Event, input: &mut Input<'_>) -> Option<()> {
        match event {
            Event::Pass => self.pass(How::default()),
            Event::Full => self.pass(How {
                full: true,
                dry_run: false,
            }),
            Event::DryRun => self.pass(How {
                full: input.byte()? & 1 == 1,
                dry_run: true,
            }),
            Event::Commit => {
                let more = self.transactions(input, TxnStatus::COMMITTED)?;
                self.txns.extend(more);
                self.write_in_place(&file(&self.txns));
            }
            Event::Vote => {
                let more = self.transactions(input, TxnStatus::VOTED)?;
                let mut voted = self.txns.clone();
                voted.extend(more.into_iter().take(1));
                self.write_in_place(&file(&voted));
            }
            Event::Pack => self.pack(input.byte()?),
            Event::Restore => {
                let n = usize::from(input.byte()?);
                let former = self.former.get(n % self.former.len().max(1))?.clone();
                self.txns = former;
                replace(&self.scene, &file(&self.txns));
            }
            Event::Replace => replace(&self.scene, input.section()?),
            Event::Extend => append(&self.scene.master, input.section()?),
            Event::Serve => self.serve(input)?,
            Event::Seed => {
                let len = input.number()?;
                let master = bytes(&self.scene.master);
                write(&self.scene.slave, &master[..len.min(master.len())]);
            }
            Event::Truncate => {
                let slave = bytes(&self.scene.slave);
                let len = input.number()?.min(slave.len());
                write(&self.scene.slave, &slave[..len]);
            }
            Event::Overwrite => {
                let (at, with) = (input.number()?, input.section()?);
                let len = bytes(&self.scene.slave).len();
                let fits = with.len().min(len.saturating_sub(at));
                if let Ok(slave) = OpenOptions::new().write(true).open(&self.scene.slave) {
                    slave
                        .write_all_at(&with[..fits], at as u64)
                        .expect("a write");
                }
            }
            Event::Append => append(&self.scene.slave, input.section()?),
            Event::RemoveFiles => self.remove_files(input.byte()?),
            Event::Compare => self.compare(),
        }
        Some(())
    }

    /// Transactions of two bytes each: the number of records, and their length.
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

    /// Writes the master's file in place; bytes that it already has are not written.
    fn write_in_place(&self, with: &[u8]) {
        let had = bytes(&self.scene.master);
        if had.is_empty() {
            return write(&self.scene.master, with);
        }
        let same = had.iter().zip(with).take_while(|(a, b)| a == b).count();
        let master = OpenOptions::new().write(true).open(&self.scene.master);
        let master = master.expect("the master");
        master.set_len(same as u64).expect("a truncation");
        master
            .write_all_at(&with[same..], same as u64)
            .expect("a write");
    }

    /// Packs: some of the older transactions are dropped, the others get another status.
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

    /// Appends transactions to the slave, if ZODB would.
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

    fn remove_files(&self, which: u8) {
        let directory = self.scene.slave.with_file_name("Data.fs");
        let directory = directory.display();
        for (bit, suffix) in [".fssync", ".index", ".fssync-ledger", ""]
            .iter()
            .enumerate()
        {
            if which >> bit & 1 == 1 {
                // It may not exist.
                let _ = fs::remove_file(format!("{directory}{suffix}"));
            }
        }
    }
}

/// Replaces the master by another file.
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

/// The cases of the decision table, and each fixture as either file.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let code = |event: Event| EVENTS.iter().position(|it| *it == event).unwrap_or(0) as u8;
    let event = |event, with: &[u8]| [&[code(event)], with].concat();
    let pass = || event(Event::Pass, &[]);
    let full = || event(Event::Full, &[]);
    let compare = || event(Event::Compare, &[]);
    let dry_run = || event(Event::DryRun, &[0]);
    let commit = || event(Event::Commit, &[3, 0x15, 50, 0x2a, 0, 0x1c, 200]);
    let vote = || event(Event::Vote, &[1, 0x15, 90]);
    let serve = || event(Event::Serve, &[2, 0x15, 70, 0x06, 9]);
    let pack = |how| event(Event::Pack, &[how]);
    let start = || [commit(), pass(), commit(), pass()].concat();
    let cases = [
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
            event(Event::Restore, &[0]),
            pass(),
            full(),
        ],
        vec![
            start(),
            event(Event::RemoveFiles, &[7]),
            pass(),
            commit(),
            pass(),
        ],
        vec![
            start(),
            event(Event::RemoveFiles, &[1]),
            serve(),
            pass(),
            pack(0x21),
            pass(),
        ],
        vec![
            start(),
            event(Event::Truncate, &[1, 0]),
            commit(),
            pass(),
            compare(),
        ],
        vec![
            start(),
            event(Event::Overwrite, &[0, 90, 0, 3, 1, 2, 3]),
            pass(),
            compare(),
            full(),
        ],
        vec![
            start(),
            event(Event::Append, &section(b"torn")),
            commit(),
            pass(),
        ],
        vec![
            start(),
            event(Event::Extend, &section(&[0; 60])),
            compare(),
            pass(),
            commit(),
            pass(),
        ],
        vec![
            commit(),
            event(Event::Seed, &[1, 0]),
            pass(),
            commit(),
            pass(),
        ],
        vec![
            commit(),
            event(Event::Seed, &[0, 30]),
            pass(),
            event(Event::Replace, &section(b"FS30")),
        ],
    ];
    let mut seeds: Vec<_> = cases.iter().map(|case| case.concat()).collect();
    for (_, bytes) in fixtures() {
        let all = event(Event::Replace, &section(&bytes));
        let half = event(Event::Seed, &((bytes.len() / 2) as u16).to_be_bytes());
        seeds.push([all.clone(), pass(), compare(), full()].concat());
        seeds.push([all, half, pass(), serve(), pass(), full()].concat());
    }
    seeds
}
