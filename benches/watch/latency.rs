//! The delay between a commit and the slave.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::clock::{Moment, Spread};
use crate::floor;
use crate::follower::{Follower, Report, lags};
use crate::python::{Commit, Python};
use crate::shared::command::{Argv, has, must, text};
use crate::shared::place::Place;
use crate::shared::times::verdict;

/// The commits are divided into this many turns of all programs.
const TURNS: u32 = 4;

/// The target for the median, in milliseconds.
const MAX_MEDIAN_MS: f64 = 2.0;

/// The target for the 99th percentile, in milliseconds.
const MAX_P99_MS: f64 = 10.0;

/// The results at one pace.
#[derive(Debug, Default)]
struct Spreads {
    floor: Spread,
    sync_of_master: Spread,
    from_return: Spread,
    from_visible: Spread,
    rsync: Spread,
    reports: usize,
}

/// Commits `count` transactions at this pace, and prints the delays of the watch and, with a
/// local master, of a loop of rsync.
pub(crate) fn measure(
    place: &Place,
    follower: &Follower,
    python: &Python,
    (count, every): (u32, Duration),
    is_local: bool,
) -> io::Result<()> {
    let mut spreads = Spreads::default();
    let count = count.div_ceil(TURNS);
    for _ in 0..TURNS {
        let file = place.directory.join("floor");
        spreads.floor.add(floor::write(&file, count, every)?);
        let commits = python.commit(&place.master, None, count, every)?;
        let reports = follower.wait_for(end_of(&commits))?;
        spreads.reports += reports.len();
        let sync = |it: &Commit| it.returned.after(it.visible);
        spreads.sync_of_master.add(commits.iter().map(sync));
        let from_return = lags(&commits, &reports, |it| it.returned);
        spreads.from_return.add(from_return);
        let from_visible = lags(&commits, &reports, |it| it.visible);
        spreads.from_visible.add(from_visible);
        if is_local && has("rsync") {
            follower.pause()?;
            let (commits, reports) =
                with_rsync(place, || python.commit(&place.master, None, count, every))?;
            let from_return = lags(&commits, &reports, |it| it.returned);
            spreads.rsync.add(from_return);
            follower.resume()?;
            follower.wait_for(end_of(&commits))?;
        }
    }
    print(every, &spreads);
    Ok(())
}

fn end_of(commits: &[Commit]) -> u64 {
    commits.last().map_or(0, |last| last.position)
}

/// Runs `work` during a loop of rsync, until rsync has copied everything.
fn with_rsync(
    place: &Place,
    work: impl FnOnce() -> io::Result<Vec<Commit>>,
) -> io::Result<(Vec<Commit>, Vec<Report>)> {
    let copy = place.directory.join("rsync");
    let mut argv: Argv = ["rsync", "-a", "--append", "--fsync"]
        .map(String::from)
        .to_vec();
    argv.extend([text(&place.master), text(&copy)]);
    let pass = || -> io::Result<Report> {
        must(&argv)?;
        let position = copy.metadata()?.len();
        let at = Moment::now();
        Ok(Report { at, position })
    };
    pass()?;
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reports = scope.spawn(|| -> io::Result<Vec<Report>> {
            let mut reports = Vec::new();
            while !is_done.load(Ordering::Relaxed) {
                reports.push(pass()?);
            }
            reports.push(pass()?);
            Ok(reports)
        });
        let commits = work();
        is_done.store(true, Ordering::Relaxed);
        let reports = reports
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the loop of rsync died")));
        Ok((commits?, reports?))
    })
}

fn print(every: Duration, spreads: &Spreads) {
    let Spreads { floor, reports, .. } = spreads;
    println!(
        "\n  a commit every {} ms ({} reports), times in ms",
        every.as_millis(),
        reports
    );
    println!(
        "  {:<44} {:>6} {:>8} {:>8} {:>8} {:>8}   p50, p99 ÷ floor's",
        "", "n", "p50", "p90", "p99", "max"
    );
    for (name, spread) in [
        ("floor: 3 × (pwrite, fdatasync)", floor),
        ("the master's own fsync", &spreads.sync_of_master),
        (
            "visible in master → durable in slave",
            &spreads.from_visible,
        ),
        (
            "tpc_finish returned → durable in slave",
            &spreads.from_return,
        ),
        ("the same, a loop of rsync --append --fsync", &spreads.rsync),
    ] {
        if spread.len() == 0 {
            continue;
        }
        let [p50, p90, p99, max] = [50, 90, 99, 100].map(|percent| spread.percentile(percent));
        println!(
            "  {name:<44} {:>6} {p50:>8.2} {p90:>8.2} {p99:>8.2} {max:>8.2}   {:>6.1} {:>6.1}",
            spread.len(),
            p50 / floor.percentile(50),
            p99 / floor.percentile(99),
        );
    }
    let [p50, p99] = [50, 99].map(|percent| spreads.from_return.percentile(percent));
    println!(
        "  targets: p50 <= {MAX_MEDIAN_MS} ms {}, p99 <= {MAX_P99_MS} ms {}",
        verdict(Some(p50 <= MAX_MEDIAN_MS)),
        verdict(Some(p99 <= MAX_P99_MS)),
    );
}
