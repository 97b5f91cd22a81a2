//! The index, compared with ZODB's own on the same file of small data records:
//!
//! ```text
//! cargo bench --bench index [-- [MB] [rounds=N] [random]]
//! ```
//!
//! - *building*: a scan of the whole file, with the index written beside it, by Python's
//!   `FileStorage()` and by fssync. fssync also syncs the index.
//! - *opening*: Python's `FileStorage()` with its own fresh index, and with fssync's.
//!
//! `MB` is the size of the file (300). With `random`, oids are random 64-bit numbers. Python
//! is that of the tests' virtual environment. Compare only the ratio of two medians of the
//! same run, never a single time.

mod generate;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fssync::error::Error;
use fssync::filestorage::index::builder::Builder;
use fssync::filestorage::scan::Scanner;
use fssync::io::progress::Silent;
use fssync::io::read::AlignedBuf;
use fssync::slave::index::{self, StoredIndex};
use fssync::slave::paths::SlavePaths;
use fssync::slave::step::Slave;
use fssync::upkeep::IndexBuild;
use generate::{Oids, small_records};

/// The target for building: how many times as fast as Python.
const MIN_BUILDING: f64 = 10.0;

/// The target for opening: ZODB's time with fssync's index, divided by its time with its own.
const MAX_OPENING: f64 = 1.2;

/// The target for memory, in bytes per object.
const MAX_OBJECT_LEN: u64 = 24;

fn main() -> io::Result<()> {
    // cargo adds --bench.
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let megabytes = arguments.iter().find_map(|it| it.parse().ok());
    let rounds = arguments
        .iter()
        .find_map(|it| it.strip_prefix("rounds=")?.parse().ok());
    let oids = if arguments.iter().any(|it| it == "random") {
        Oids::Random
    } else {
        Oids::Usual
    };
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let python = python(temporary)?;
    let directory = tempfile::Builder::new()
        .prefix("index-")
        .tempdir_in(temporary)?;
    let path = directory.path().join("Data.fs");
    let made = small_records(&path, megabytes.unwrap_or(300) * 1_000_000, oids)?;
    println!(
        "{} MB, {} transactions, {} data records, {oids:?} oids",
        made.len / 1_000_000,
        made.transactions,
        made.records
    );
    let bench = Bench {
        python,
        index: directory.path().join("Data.fs.index"),
        path,
        rounds: rounds.unwrap_or(5).max(1),
    };
    bench.memory()?;
    bench.building()?;
    bench.opening()
}

/// A Python with ZODB.
fn python(temporary: &Path) -> io::Result<PathBuf> {
    for entry in fs::read_dir(temporary)? {
        let python = entry?.path().join("bin/python");
        if python.exists() {
            return Ok(python);
        }
    }
    Err(io::Error::other(
        "there is no virtual environment with ZODB: cargo test --test all fixtures makes it",
    ))
}

struct Bench {
    python: PathBuf,
    path: PathBuf,
    index: PathBuf,
    rounds: usize,
}

impl Bench {
    /// Measures the memory of the first build.
    fn memory(&self) -> io::Result<()> {
        self.scan()?;
        let before = memory("VmRSS:")?;
        let slave = slave(&self.path);
        let (stored, _) = self.build(&slave)?;
        let started = Instant::now();
        let objects = stored.load(&slave.paths).map_or(0, |index| index.len()) as u64;
        let loading = started.elapsed();
        let peak = memory("VmHWM:")?.saturating_sub(before);
        let each = peak.div_ceil(objects.max(1));
        println!(
            "{objects} objects, an index of {} MB, read again in {loading:?}; peak memory {} MB: {each} bytes an object, \
             buffers included {}",
            fs::metadata(&self.index)?.len() / 1_000_000,
            peak / 1_000_000,
            verdict(each <= MAX_OBJECT_LEN)
        );
        Ok(())
    }

    fn building(&self) -> io::Result<()> {
        println!("building: Python / fssync (of that, the scan alone)");
        let slave = slave(&self.path);
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            fs::remove_file(&self.index)?;
            theirs.push(self.open()?);
            fs::remove_file(&self.index)?;
            let scan = self.scan()?;
            let (_, time) = self.build(&slave)?;
            println!("  {:?} / {time:?} ({scan:?})", theirs[theirs.len() - 1]);
            ours.push(time);
        }
        let ratio = median(theirs) / median(ours);
        println!(
            "fssync builds it {ratio:.1} times as fast, target >= {MIN_BUILDING} {}",
            verdict(ratio >= MIN_BUILDING)
        );
        Ok(())
    }

    fn opening(&self) -> io::Result<()> {
        const ROUNDS: usize = 21;
        let (theirs, ours) = (self.path.with_extension("0"), self.path.with_extension("1"));
        fs::copy(&self.index, &ours)?;
        fs::remove_file(&self.index)?;
        self.open()?;
        fs::copy(&self.index, &theirs)?;
        let mut times = [Vec::new(), Vec::new()];
        // An opening takes only milliseconds, and the times vary.
        for round in 0..ROUNDS {
            for which in [round % 2, (round + 1) % 2] {
                fs::copy([&theirs, &ours][which], &self.index)?;
                times[which].push(self.open()?);
            }
        }
        let is_equal = fs::read(theirs)? == fs::read(ours)?;
        let [theirs, ours] = times.map(median);
        let ratio = ours / theirs;
        println!(
            "opening: {:.1} ms with ZODB's index, {:.1} ms with fssync's (equal bytes: {is_equal}); \
             ZODB takes {ratio:.2} times as long, target <= {MAX_OPENING} {}",
            theirs * 1000.0,
            ours * 1000.0,
            verdict(ratio <= MAX_OPENING)
        );
        Ok(())
    }

    /// The time of `FileStorage()`, which leaves its index beside the file.
    fn open(&self) -> io::Result<Duration> {
        const SCRIPT: &str = "\
import sys, time
from ZODB.FileStorage import FileStorage
started = time.perf_counter()
storage = FileStorage(sys.argv[1])
print(time.perf_counter() - started)
storage.close()
";
        let mut command = Command::new(&self.python);
        let output = command.args(["-c", SCRIPT]).arg(&self.path).output()?;
        String::from_utf8_lossy(&output.stdout)
            .trim()
            .parse()
            .map(Duration::from_secs_f64)
            .map_err(|_| io::Error::other(format!("{output:?}")))
    }

    /// Builds the index and stores it.
    fn build(&self, slave: &Slave) -> io::Result<(StoredIndex, Duration)> {
        let started = Instant::now();
        let (file, data) = (File::open(&self.path)?, File::open(&self.path)?);
        let stored = || {
            let Some(seen) = slave.stat()? else {
                return Ok(None);
            };
            let mut build = IndexBuild::new(slave, data, Builder::default(), seen.size)?;
            build.read(slave, &mut || false, &Silent)?;
            let index = build.finish(slave)?;
            index::store(slave, &file, seen, &index, seen.size)
        };
        let stored = stored().map_err(|error: Error| io::Error::other(error))?;
        let stored = stored.ok_or_else(|| io::Error::other("no index was stored"))?;
        Ok((stored, started.elapsed()))
    }

    /// The time of a scan that discards its results.
    fn scan(&self) -> io::Result<Duration> {
        let started = Instant::now();
        let file = File::open(&self.path)?;
        let mut scanner = Scanner::new(file.metadata()?.len());
        let mut piece = AlignedBuf::default();
        let mut transactions = 0_u64;
        while scanner.left() > 0 {
            let len = scanner.left().min(1024 * 1024) as usize;
            let offset = scanner.offset();
            std::os::unix::fs::FileExt::read_exact_at(&file, piece.room(len, offset), offset)?;
            scanner.feed(&piece, &mut |_| transactions += 1);
        }
        std::hint::black_box(transactions);
        Ok(started.elapsed())
    }
}

fn slave(path: &Path) -> Slave {
    let paths = SlavePaths::new(path).expect("a place for the slave");
    Slave::new(paths, None)
}

/// A memory figure of this process, in bytes.
fn memory(name: &str) -> io::Result<u64> {
    fs::read_to_string("/proc/self/status")?
        .lines()
        .find_map(|line| {
            let kilobytes = line.strip_prefix(name)?.trim().strip_suffix(" kB")?;
            kilobytes.parse::<u64>().ok()
        })
        .map(|kilobytes| kilobytes * 1024)
        .ok_or_else(|| io::Error::other(format!("/proc/self/status has no {name}")))
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

fn verdict(is_reached: bool) -> &'static str {
    if is_reached { "reached" } else { "MISSED" }
}
