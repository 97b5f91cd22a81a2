//! Completes the ledger of digests.
//!
//! A pass adds the digests of the bytes that it copies. Digests are missing if a pass was
//! killed, the disk was full, the ledger was lost, or the slave was copied by other means. The
//! master is asked for those: it computes the digests that the bytes should have, whatever the
//! slave has. The work is limited to a moment in each pass, and continues until the ledger is
//! complete.

use std::mem;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::io::progress::Monitor;
use crate::slave::ledger::{Ledger, LedgerEntry, note, segment_end};
use crate::slave::paths::{self, OpenMode};
use crate::slave::step::Slave;
use crate::source::Master;

/// How long a pass fetches digests.
pub const PASS_BUDGET: Duration = Duration::from_secs(1);

/// How long a pass of a watch fetches digests; the next commit waits meanwhile.
pub const WATCH_BUDGET: Duration = Duration::from_millis(50);

/// How many entries are collected before they are written.
const MAX_COLLECTED: usize = 16;

/// Fetches the digests that the ledger of a slave that ends at `position` lacks from the
/// master, which the pass has opened: for as long as `budget`, but of one segment at least.
pub fn catch_up(
    slave: &Slave,
    master: &Master,
    position: u64,
    budget: Duration,
    monitor: &dyn Monitor,
) -> Result<(), Error> {
    let path = slave.paths.data();
    let data = paths::open(path, OpenMode::Read).map_err(Error::io("open", path))?;
    let known = Ledger::open(&slave.paths, &data, OpenMode::Read)?;
    if let Some(ledger) = &known
        && ledger.ends_at(position)?
    {
        return Ok(());
    }
    let from = match known {
        // If the ledger reaches beyond the position, because the slave was truncated, its last
        // entry before the position is fetched again: that write removes the entries beyond.
        Some(ledger) => ledger.end(position.saturating_sub(1))?,
        None => 0,
    };
    let started = Instant::now();
    let mut at = from;
    let mut entries = Vec::new();
    while at < position && (at == from || started.elapsed() < budget) {
        slave.check_cancelled()?;
        let range = at..position.min(segment_end(at));
        // No digest means that the master has become shorter; the next pass finds out why.
        let Some(digest) = master.digest(range.clone()).wait()? else {
            break;
        };
        at = range.end;
        entries.push(LedgerEntry { range, digest });
        monitor.progress("asking for digests", at - from, position - from);
        if entries.len() >= MAX_COLLECTED {
            note(slave, &data, mem::take(&mut entries))?;
        }
    }
    note(slave, &data, entries)
}

/// Logs a warning if the ledger could not be completed.
pub fn report(result: Result<(), Error>) {
    super::report("cannot update the ledger of digests", result);
}
