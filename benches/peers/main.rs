//! fssync and other programs, in turn on the same files:
//!
//! ```text
//! cargo bench --bench peers [-- [MB] [rounds=N] ["ssh=PROGRAM... HOST"] [NAME...]]
//! ```
//!
//! `MB` is the size of the master (1000). A `NAME` is a part of the name of a comparison:
//! `nothing`, `append`, `full`, `sparse`. With a program that connects to this machine, such
//! as `ssh=ssh -p 2222 root@127.0.0.1`, the full copy is also made through it. The files are
//! below `target/tmp`; they take about 2.5 times the size of the master (for `sparse` ten
//! times, almost only holes). Everything is in the page cache. Compare only the ratio of two
//! medians of the same run, never a single time.

#![allow(clippy::disallowed_methods, reason = "a measurement may panic")]

#[path = "../shared/mod.rs"]
mod shared;

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use shared::arguments::Arguments;
use shared::command::{Argv, Remote, argv, calm, has, must, text};
use shared::contest::{self, Contender, Contest, Prepare, Row, Target};
use shared::generate::{Generator, MB, copy_from, sparse};
use shared::place::{Place, temporary};
use shared::table;
use shared::times::show;

/// The target for a pass that finds nothing new.
const MAX_NOTHING_NEW: Duration = Duration::from_millis(5);

struct Options {
    megabytes: u64,
    arguments: Arguments,
}

impl Options {
    fn parse() -> Self {
        let mut megabytes = 1000;
        let arguments = Arguments::parse("MB", |name, number| match name {
            "MB" => megabytes = number,
            _ => panic!("unknown option {name}"),
        });
        Self {
            megabytes,
            arguments,
        }
    }
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    if !has("rsync") {
        println!("rsync is not installed: its comparisons are skipped");
    }
    let directory = temporary("peers-")?;
    let mut rows = Vec::new();
    if ["nothing new", "append", "full copy"]
        .iter()
        .any(|work| options.arguments.wants(work))
    {
        dense(&options, directory.path(), &mut rows)?;
    }
    if options.arguments.wants("sparse nothing new") {
        let place = Place::create(&directory.path().join("sparse"))?;
        rows.push(nothing_new_in_holes(&options, &place)?);
    }
    table::print(&rows);
    Ok(())
}

/// Comparisons with a file without holes.
fn dense(options: &Options, directory: &Path, rows: &mut Vec<Row>) -> io::Result<()> {
    let place = Place::create(&directory.join("dense"))?;
    let started = Instant::now();
    let mut generator = Generator::create(&place.master)?;
    generator.append(options.megabytes * MB)?;
    println!(
        "{} MB, {} transactions, {} objects, made in {}",
        generator.position() / MB,
        generator.transactions(),
        generator.objects(),
        show(started.elapsed())
    );
    if options.arguments.wants("full copy") {
        rows.push(full_copy(options, &place, "cp && sync")?);
        if has("rsync") {
            rows.push(full_copy(options, &place, "rsync && sync")?);
        }
        if let Some(remote) = &options.arguments.ssh {
            rows.push(full_copy_through(options, &place, remote)?);
        }
    }
    if !place.slave.exists() {
        must(&fssync(&place, &["--whole"]))?;
    }
    if options.arguments.wants("nothing new") {
        let work = format!("nothing new, {} MB", options.megabytes);
        rows.push(nothing_new(options, &place, work)?);
    }
    if options.arguments.wants("append") {
        rows.push(append(options, &place, &mut generator)?);
        generator.append(1)?;
        println!("\nsyncs of an append of one transaction");
        contest::print_syncs(&place.directory, &fssync(&place, &[]))?;
    }
    Ok(())
}

/// rsync compares size and time, so both files get the same time.
fn nothing_new(options: &Options, place: &Place, work: String) -> io::Result<Row> {
    let modified = fs::metadata(&place.master)?.modified()?;
    OpenOptions::new()
        .write(true)
        .open(&place.slave)?
        .set_modified(modified)?;
    let contest = Contest {
        work,
        peer: has("rsync").then(|| Contender {
            name: "rsync",
            prepare: Box::new(|| Ok(())),
            commands: vec![argv("rsync -a", &[&place.master, &place.slave])],
        }),
        fssync: Contender {
            name: "fssync",
            prepare: Box::new(|| Ok(())),
            commands: vec![fssync(place, &[])],
        },
        rounds: options.arguments.rounds(25),
        target: Target::Within(MAX_NOTHING_NEW),
    };
    calm(&place.directory)?;
    contest.run(&place.directory)
}

/// A file of ten times the size, almost only holes: the apparent size counts.
fn nothing_new_in_holes(options: &Options, place: &Place) -> io::Result<Row> {
    for path in [&place.master, &place.slave] {
        sparse(path, 10 * options.megabytes * MB)?;
    }
    // There is no sidecar, so the pass proves that the files are equal.
    must(&fssync(place, &[]))?;
    let work = format!("sparse nothing new, {} MB of holes", 10 * options.megabytes);
    nothing_new(options, place, work)
}

fn append(options: &Options, place: &Place, generator: &mut Generator) -> io::Result<Row> {
    let left = Left::take(place, generator.position())?;
    let position = left.position;
    generator.append(options.megabytes * MB / 10)?;
    let (bytes, new) = (place.directory.join("bytes"), place.directory.join("new"));
    copy_from(&place.master, position, &bytes)?;
    let mut dd = argv("dd bs=1M conv=fsync status=none", &[]);
    dd.extend([format!("if={}", text(&bytes)), format!("of={}", text(&new))]);
    let contest = Contest {
        work: format!("append of {} MB", options.megabytes / 10),
        peer: Some(Contender {
            name: "dd conv=fsync",
            prepare: without(place, &new),
            commands: vec![dd],
        }),
        fssync: Contender {
            name: "fssync",
            prepare: Box::new(|| {
                left.put_back(place)?;
                calm(&place.directory)
            }),
            commands: vec![fssync(place, &[])],
        },
        rounds: options.arguments.rounds(9),
        target: Target::Times(1.2),
    };
    let row = contest.run(&place.directory)?;
    place.assert_equal()?;
    Ok(row)
}

fn full_copy(options: &Options, place: &Place, peer: &'static str) -> io::Result<Row> {
    let copy = match peer {
        "cp && sync" => "cp --reflink=never",
        _ => "rsync -a",
    };
    let contest = Contest {
        work: format!("full copy of {} MB", options.megabytes),
        peer: Some(Contender {
            name: peer,
            prepare: without_slave(place),
            commands: vec![
                argv(copy, &[&place.master, &place.slave]),
                argv("sync", &[&place.slave]),
            ],
        }),
        fssync: Contender {
            name: "fssync",
            prepare: without_slave(place),
            commands: vec![fssync(place, &["--whole"])],
        },
        rounds: options.arguments.rounds(5),
        target: match peer {
            "cp && sync" => Target::Times(1.1),
            _ => Target::Open,
        },
    };
    let row = contest.run(&place.directory)?;
    place.assert_equal()?;
    Ok(row)
}

fn full_copy_through(options: &Options, place: &Place, remote: &Remote) -> io::Result<Row> {
    let (master, slave) = (text(&place.master), text(&place.slave));
    let Remote { program, host } = remote;
    let cat = format!("{program} {host} cat '{master}' > '{slave}'");
    let mut fssync: Argv = [env!("CARGO_BIN_EXE_fssync"), "-q", "--whole"]
        .map(String::from)
        .into();
    fssync.extend(remote.arguments(&place.master));
    fssync.push(slave);
    let contest = Contest {
        work: format!("full copy of {} MB through ssh", options.megabytes),
        peer: Some(Contender {
            name: "ssh cat && sync",
            prepare: without_slave(place),
            commands: vec![
                Argv::from(["sh".to_owned(), "-c".to_owned(), cat]),
                argv("sync", &[&place.slave]),
            ],
        }),
        fssync: Contender {
            name: "fssync",
            prepare: without_slave(place),
            commands: vec![fssync],
        },
        rounds: options.arguments.rounds(5),
        target: Target::Times(1.25),
    };
    let row = contest.run(&place.directory)?;
    place.assert_equal()?;
    Ok(row)
}

/// The slave and the files beside it, as a pass has left them.
struct Left {
    position: u64,
    /// Files that are overwritten in place, with their content.
    files: [(PathBuf, Vec<u8>); 2],
    /// The index is replaced, and identified by its inode number: a second name keeps it.
    index: PathBuf,
    kept_index: PathBuf,
}

impl Left {
    fn take(place: &Place, position: u64) -> io::Result<Self> {
        let beside = |suffix| place.directory.join(format!("slave/Data.fs{suffix}"));
        let read = |path: PathBuf| fs::read(&path).map(|bytes| (path, bytes));
        let (index, kept_index) = (beside(".index"), place.directory.join("index"));
        fs::hard_link(&index, &kept_index)?;
        Ok(Self {
            position,
            files: [read(beside(".fssync"))?, read(beside(".fssync-ledger"))?],
            index,
            kept_index,
        })
    }

    fn put_back(&self, place: &Place) -> io::Result<()> {
        let slave = OpenOptions::new().write(true).open(&place.slave)?;
        slave.set_len(self.position)?;
        for (path, bytes) in &self.files {
            fs::write(path, bytes)?;
        }
        fs::remove_file(&self.index)?;
        fs::hard_link(&self.kept_index, &self.index)
    }
}

/// Empties the slave's directory.
fn without_slave(place: &Place) -> Prepare<'_> {
    Box::new(|| {
        let directory = place.directory.join("slave");
        fs::remove_dir_all(&directory)?;
        fs::create_dir(&directory)?;
        calm(&place.directory)
    })
}

/// Removes a file.
fn without<'a>(place: &'a Place, path: &'a Path) -> Prepare<'a> {
    Box::new(move || {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        calm(&place.directory)
    })
}

/// A pass, as cron would run it.
fn fssync(place: &Place, options: &[&str]) -> Argv {
    let mut argv: Argv = [env!("CARGO_BIN_EXE_fssync"), "-q"]
        .map(String::from)
        .into();
    argv.extend(options.iter().map(|&option| option.to_owned()));
    argv.extend([&place.master, &place.slave].map(|path| text(path)));
    argv
}
