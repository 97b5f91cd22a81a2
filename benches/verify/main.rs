//! `fssync verify`, in turn with the tools that a person would use instead, on the same files:
//!
//! ```text
//! cargo bench --bench verify [-- [MB] [rounds=N]]
//! ```
//!
//! - `--quick` and ZODB's `fstest`, which both skip the objects' data;
//! - a complete verification, with all bytes compared to the ledger's digests, and
//!   `sha256sum`, which both read everything.
//!
//! Both files are slaves that a pass has copied. One resembles a typical site, the other has
//! small data records. `MB` is the size of each (300). Both are in the page cache. Python is
//! that of the tests' virtual environment. Compare only the ratio of two medians of the same
//! run, never a single time.

#[allow(dead_code, reason = "not all of it is used here")]
#[path = "../index/generate.rs"]
mod generate;
#[path = "../shared/mod.rs"]
mod shared;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fssync::io::progress::Silent;
use fssync::slave::paths::SlavePaths;
use fssync::slave::step::Slave;
use fssync::verify::{DigestState, IndexState, verify};
use generate::{Oids, small_records};
use shared::command::{Argv, must, text};
use shared::generate::{Generator, MB};
use shared::place::temporary;
use shared::times::{Times, show, verdict};

/// The target for the structure: how many times as fast as `fstest`.
const MIN_QUICK: f64 = 5.0;

/// The target for a complete verification: its time divided by that of `sha256sum`.
const MAX_WHOLE: f64 = 0.4;

/// The target for memory, in bytes per object.
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
    println!("  {each} thousand data records per second");
    memory(&small)
}

/// The copy that a pass makes, with its ledger and index.
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

/// Compares both pairs; returns the time of the quick verification.
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

/// Measures the memory per object when the index and all bytes are compared.
fn memory(path: &Path) -> io::Result<()> {
    let paths = SlavePaths::new(path).map_err(io::Error::other)?;
    let slave = Slave::new(paths, None);
    let before = resident("VmRSS:")?;
    let verified = verify(&slave, false, &Silent, &mut |_| {});
    let verified = verified.map_err(io::Error::other)?;
    let peak = resident("VmHWM:")?.saturating_sub(before);
    let each = peak.div_ceil(verified.objects.max(1));
    let is_compared = verified.digests == DigestState::Compared(verified.position);
    let is_sound = matches!(verified.index, IndexState::Sound(_));
    if !is_compared || !is_sound {
        return Err(io::Error::other("the verification was not complete"));
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

/// A memory figure of this process, in bytes.
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
