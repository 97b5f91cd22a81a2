//! Runs another program and fssync in turn, and measures both.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::command::{Argv, has, must, text};
use super::times::{Times, show};

/// Restores the state before a run; not timed.
pub(crate) type Prepare<'a> = Box<dyn Fn() -> io::Result<()> + 'a>;

/// A program that takes part in a comparison.
pub(crate) struct Contender<'a> {
    /// Its name in the table.
    pub(crate) name: &'static str,
    pub(crate) prepare: Prepare<'a>,
    /// The commands, which run one after the other.
    pub(crate) commands: Vec<Argv>,
}

/// A comparison: the work, and the programs that do it.
pub(crate) struct Contest<'a> {
    pub(crate) work: String,
    /// `None` if it is not installed.
    pub(crate) peer: Option<Contender<'a>>,
    pub(crate) fssync: Contender<'a>,
    pub(crate) rounds: usize,
    pub(crate) target: Target,
}

/// The target for fssync.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// A maximum time.
    Within(Duration),
    /// A maximum multiple of the other program's time.
    Times(f64),
    /// No target.
    Open,
}

/// The result of a comparison.
pub(crate) struct Row {
    pub(crate) work: String,
    pub(crate) peer: Option<(&'static str, Times)>,
    pub(crate) fssync: Times,
    pub(crate) target: Target,
    /// fssync's peak memory, in kilobytes.
    pub(crate) peak_kb: Option<u64>,
}

impl Row {
    /// fssync's time as a multiple of the peer's.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let (_, peer) = self.peer?;
        Some(self.fssync.median.as_secs_f64() / peer.median.as_secs_f64())
    }

    /// Whether the target was reached, if there is one.
    pub(crate) fn is_reached(&self) -> Option<bool> {
        match self.target {
            Target::Within(limit) => Some(self.fssync.median <= limit),
            Target::Times(limit) => self.ratio().map(|ratio| ratio <= limit),
            Target::Open => None,
        }
    }
}

impl Contest<'_> {
    /// Runs both programs, fssync second in each round.
    pub(crate) fn run(&self, directory: &Path) -> io::Result<Row> {
        println!("\n{}", self.work);
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for round in 1..=self.rounds {
            print!("  {round:>3}.");
            if let Some(peer) = &self.peer {
                let time = peer.run()?;
                print!("  {} {}", peer.name, show(time));
                theirs.push(time);
            }
            let time = self.fssync.run()?;
            print!("  fssync {}", show(time));
            if let Some(peer) = theirs.last() {
                print!("  ratio {:.2}", time.as_secs_f64() / peer.as_secs_f64());
            }
            println!();
            ours.push(time);
        }
        Ok(Row {
            work: self.work.clone(),
            peer: self
                .peer
                .as_ref()
                .map(|peer| (peer.name, Times::of(theirs))),
            fssync: Times::of(ours),
            target: self.target,
            peak_kb: self.fssync.peak_kb(directory)?,
        })
    }
}

impl Contender<'_> {
    fn run(&self) -> io::Result<Duration> {
        (self.prepare)()?;
        let started = Instant::now();
        for argv in &self.commands {
            must(argv)?;
        }
        Ok(started.elapsed())
    }

    /// The peak memory of one more run, in kilobytes, if /usr/bin/time is installed.
    fn peak_kb(&self, directory: &Path) -> io::Result<Option<u64>> {
        let output = directory.join("peak");
        let mut argv: Argv = ["/usr/bin/time", "-f", "%M", "-o"].map(String::from).into();
        if !Path::new(&argv[0]).exists() {
            return Ok(None);
        }
        argv.push(text(&output));
        argv.extend(self.commands.iter().flatten().cloned());
        (self.prepare)()?;
        must(&argv)?;
        Ok(std::fs::read_to_string(&output)?.trim().parse().ok())
    }
}

/// Prints how often fssync syncs which file in one run.
pub(crate) fn print_syncs(directory: &Path, fssync: &Argv) -> io::Result<()> {
    if !has("strace") {
        println!("  strace is not installed: syncs are not counted");
        return Ok(());
    }
    let output = directory.join("strace");
    let calls = "trace=fsync,fdatasync,sync,syncfs,sync_file_range,msync";
    let mut argv: Argv = ["strace", "-f", "-y", "-e", calls, "-o"]
        .map(String::from)
        .into();
    argv.push(text(&output));
    argv.extend(fssync.iter().cloned());
    must(&argv)?;
    let mut counts = std::collections::BTreeMap::new();
    for line in std::fs::read_to_string(&output)?.lines() {
        // 1234 fdatasync(5</path/to/Data.fs>) = 0
        let Some((call, rest)) = line.split_once('(') else {
            continue;
        };
        let call = call.split_whitespace().last().unwrap_or_default();
        if !calls.contains(call) {
            continue;
        }
        let file = rest.split(['<', '>']).nth(1).unwrap_or_default();
        let file = Path::new(file)
            .strip_prefix(directory)
            .unwrap_or(Path::new(file));
        *counts
            .entry((call.to_owned(), file.to_owned()))
            .or_insert(0) += 1;
    }
    for ((call, file), count) in counts {
        println!("  {count} × {call} of {}", file.display());
    }
    Ok(())
}
