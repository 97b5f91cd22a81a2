//! `fssync verify` in turn with what a person would use instead, on the same files:
//!
//! ```text
//! cargo bench --bench verify [-- [MB] [rounds=N]]
//! ```
//!
//! - `--quick` and ZODB's own `fstest`, which both pass over the objects' data;
//! - a verification as a whole, each byte compared with the ledger's digests, and
//!   `sha256sum`, which both read all of it.
//!
//! Both files are slaves that a pass has made. One is like that of `peers.md`, the other one has small data records; `MB`
//! is the size of each, 300 if not given. Both lie in the page cache. Python is that
//! of the virtual environment that the tests make. A ratio of two medians of one
//! run is worth something; a time alone is not.

#[allow(dead_code, reason = "not all of it is used here")]
#[path = "../index/generate.rs"]
mod generate;
#[path = "../shared/mod.rs"]
mod shared;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use fssync::io::progress::Silent;
use fssync::slave::paths::SlavePaths;
use fssync::slave::step::Slave;
use fssync::slave::switch::Switches;
use fssync::verify::{DigestState, IndexState, verify};
use generate::{Oids, small_records};
use shared::command::{Argv, must, text};
use shared::generate::{Generator, MB};
use shared::place::temporary;
use shared::times::{Times, show, verdict};

/// How many times as fast as `fstest` the structure is to be checked.
const MIN_QUICK: f64 = 5.0;

/// How long the whole may take, as a multiple of `sha256sum`.
const MAX_WHOLE: f64 = 0.4;

/// What an object may cost, in bytes.
const MAX_OBJECT_LEN: u64 = 24;

fn main() -> io::Result<()> {
    // cargo adds --bench.
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let megabytes = arguments.iter().find_map(|it| it.parse().ok());
    let rounds = arguments
        .iter()
        .find_map(|it| it.strip_prefix("rounds=")?.parse().ok());
    let (len, rounds) = (
        megabytes.unwrap_or(300) * MB,
        rounds.unwrap_or(5_usize).max(1),
    );
    let directory = temporary("verify-")?;
    let python = python(Path::new(env!("CARGO_TARGET_TMPDIR")))?;

    let usual = directory.path().join("usual.fs");
    let mut generator = Generator::create(&usual)?;
    generator.append(len)?;
    println!("{} MB, {} transactions", len / MB, generator.transactions());
    compare(&slave_of(&usual)?, &python, rounds)?;

    let small = directory.path().join("small.fs");
    let made = small_records(&small, len, Oids::Usual)?;
    println!("{} MB, {} small data records", len / MB, made.records);
    let small = slave_of(&small)?;
    let quick = compare(&small, &python, rounds)?;
    let each = u128::from(made.records) * 1000 / quick.as_micros().max(1);
    println!("  {each} thousand data records a second");
    memory(&small)
}

/// The copy that a pass makes, with its ledger and its index.
fn slave_of(master: &Path) -> io::Result<PathBuf> {
    let slave = master.with_extension("slave");
    must(&vec![
        env!("CARGO_BIN_EXE_fssync").to_owned(),
        "-q".to_owned(),
        text(master),
        text(&slave),
    ])?;
    fs::remove_file(master)?;
    Ok(slave)
}

/// The Python that has ZODB.
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

/// Compares both pairs; returns the time that the structure takes.
fn compare(path: &Path, python: &Path, rounds: usize) -> io::Result<Duration> {
    let fssync = || {
        vec![
            env!("CARGO_BIN_EXE_fssync").to_owned(),
            "verify".to_owned(),
            "-q".to_owned(),
        ]
    };
    let on = |mut argv: Argv, more: &[&str]| {
        argv.extend(more.iter().map(|it| (*it).to_owned()));
        argv.push(text(path));
        argv
    };
    let quick = on(fssync(), &["--quick"]);
    let whole = on(fssync(), &[]);
    let fstest = on(vec![text(python)], &["-m", "ZODB.scripts.fstest"]);
    let (theirs, quick) = pair(&fstest, &quick, rounds)?;
    let ratio = theirs.as_secs_f64() / quick.as_secs_f64();
    println!(
        "  --quick {}, fstest {}: {ratio:.1} times as fast, target >= {MIN_QUICK} {}",
        show(quick),
        show(theirs),
        verdict(Some(ratio >= MIN_QUICK))
    );
    let (theirs, whole) = pair(&on(vec!["sha256sum".to_owned()], &[]), &whole, rounds)?;
    let ratio = whole.as_secs_f64() / theirs.as_secs_f64();
    println!(
        "  whole {}, sha256sum {}: {ratio:.2} of its time, target <= {MAX_WHOLE} {}",
        show(whole),
        show(theirs),
        verdict(Some(ratio <= MAX_WHOLE))
    );
    Ok(quick)
}

/// The median times of two commands, run in turn.
fn pair(theirs: &Argv, ours: &Argv, rounds: usize) -> io::Result<(Duration, Duration)> {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (argv, times) in [theirs, ours].into_iter().zip(&mut times) {
            let started = Instant::now();
            must(argv)?;
            times.push(started.elapsed());
        }
    }
    let [theirs, ours] = times.map(|times| Times::of(times).median);
    Ok((theirs, ours))
}

/// What an object costs, where the index and all bytes are compared.
fn memory(path: &Path) -> io::Result<()> {
    let paths = SlavePaths::new(path).map_err(io::Error::other)?;
    let slave = Slave {
        switches: Switches::new(&paths, None),
        paths,
        interrupted: Arc::new(AtomicBool::new(false)),
    };
    let before = resident("VmRSS:")?;
    let verified = verify(&slave, false, &Silent, &mut |_| {});
    let verified = verified.map_err(io::Error::other)?;
    let peak = resident("VmHWM:")?.saturating_sub(before);
    let each = peak.div_ceil(verified.objects.max(1));
    let is_compared = verified.digests == DigestState::Compared(verified.position);
    let is_sound = matches!(verified.index, IndexState::Sound(_));
    if !is_compared || !is_sound {
        return Err(io::Error::other("what was measured is not the whole work"));
    }
    println!(
        "  {} objects, peak memory {} MB: {each} bytes an object, \
         buffers included {}",
        verified.objects,
        peak / MB,
        verdict(Some(each <= MAX_OBJECT_LEN))
    );
    Ok(())
}

/// A figure of this process's, in bytes.
fn resident(name: &str) -> io::Result<u64> {
    fs::read_to_string("/proc/self/status")?
        .lines()
        .find_map(|line| {
            let kilobytes = line.strip_prefix(name)?.trim().strip_suffix(" kB")?;
            kilobytes.parse::<u64>().ok()
        })
        .map(|kilobytes| kilobytes * 1024)
        .ok_or_else(|| io::Error::other(format!("/proc/self/status has no {name}")))
}
