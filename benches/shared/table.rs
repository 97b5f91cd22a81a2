//! The results as a table of plain text.

use super::contest::{Row, Target};
use super::times::{show, verdict};

/// The target for fssync's peak memory, in kilobytes.
const MAX_PEAK_KB: u64 = 32 * 1024;

/// Prints a row for each comparison.
pub(crate) fn print(rows: &[Row]) {
    println!("\ntimes in ms: min / median / max; peak memory in kB, target <= {MAX_PEAK_KB}");
    println!(
        "{:<38} {:<14} {:>24} {:>22} {:>6}  {:<18} peak memory",
        "work", "peer", "peer's time", "fssync's time", "ratio", "target"
    );
    for row in rows {
        let (name, peer) = row.peer.map_or(("none", "-".to_owned()), |(name, times)| {
            (name, times.in_short())
        });
        let ratio = row
            .ratio()
            .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let target = match row.target {
            Target::Within(limit) => format!("<= {}", show(limit)),
            Target::Times(limit) => format!("<= {limit} x"),
            Target::Open => "-".to_owned(),
        };
        let peak = match row.peak_kb {
            Some(peak) => format!("{peak} {}", verdict(Some(peak <= MAX_PEAK_KB))),
            None => "/usr/bin/time is not installed".to_owned(),
        };
        println!(
            "{:<38} {name:<14} {peer:>24} {:>22} {ratio:>6}  {:<18} {peak}",
            row.work,
            row.fssync.in_short(),
            format!("{target} {}", verdict(row.is_reached())),
        );
    }
}
