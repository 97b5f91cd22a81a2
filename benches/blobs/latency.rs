//! The delay between a commit with a blob and the slave.

use std::io;
use std::time::Duration;

use crate::Options;
use crate::clock::Spread;
use crate::floor;
use crate::follower::{Follower, lags};
use crate::python::Python;
use crate::shared::command::calm;
use crate::shared::times::verdict;
use crate::site::Site;

/// The time between two commits.
const PACE: Duration = Duration::from_millis(20);

/// The commits are divided into this many turns.
const TURNS: u32 = 4;

/// The target for the median, in milliseconds.
const MAX_MEDIAN_MS: f64 = 5.0;

/// The target for the 99th percentile, in milliseconds.
const MAX_P99_MS: f64 = 15.0;

/// Commits small transactions, each with a small new blob, while a watch runs. Prints its delays
/// and its peak memory.
pub(crate) fn measure(options: &Options, site: &Site) -> io::Result<()> {
    let python = Python::get();
    site.commit(1)?;
    let follower = Follower::start(&site.place, None, &["--blobs".to_owned()])?;
    follower.wait_for(site.position())?;
    let blobs = site.master_blobs();
    let count = options.commits.div_ceil(TURNS);
    let [mut floor, mut from_return, mut from_visible] = [(); 3].map(|()| Spread::default());
    for _ in 0..TURNS {
        calm(&site.place.directory)?;
        let file = site.place.directory.join("floor");
        floor.add(floor::write(&file, count, PACE)?);
        let commits = python.commit(&site.place.master, Some(&blobs), count, PACE)?;
        let position = commits.last().map_or(0, |last| last.position);
        let reports = follower.wait_for(position)?;
        from_return.add(lags(&commits, &reports, |it| it.returned));
        from_visible.add(lags(&commits, &reports, |it| it.visible));
    }
    println!(
        "\nwatch: a commit with a small blob every {} ms, times in ms",
        PACE.as_millis()
    );
    println!(
        "  {:<44} {:>6} {:>8} {:>8} {:>8} {:>8}",
        "", "n", "p50", "p90", "p99", "max"
    );
    for (name, spread) in [
        ("floor: 3 × (pwrite, fdatasync)", &floor),
        ("visible in master → durable in slave", &from_visible),
        ("tpc_finish returned → durable in slave", &from_return),
    ] {
        let [p50, p90, p99, max] = [50, 90, 99, 100].map(|percent| spread.percentile(percent));
        println!(
            "  {name:<44} {:>6} {p50:>8.2} {p90:>8.2} {p99:>8.2} {max:>8.2}",
            spread.len()
        );
    }
    let [p50, p99] = [50, 99].map(|percent| from_return.percentile(percent));
    println!(
        "  targets: p50 <= {MAX_MEDIAN_MS} ms {}, p99 <= {MAX_P99_MS} ms {}",
        verdict(Some(p50 <= MAX_MEDIAN_MS)),
        verdict(Some(p99 <= MAX_P99_MS)),
    );
    let status = std::fs::read_to_string(format!("/proc/{}/status", follower.pid()))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    println!("  peak memory {}", peak.unwrap_or_default().trim());
    site.assert_equal()
}
