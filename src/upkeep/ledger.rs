//! Keeping the ledger up with the slave.
//!
//! What passes copy is noted as it is copied. What a pass that was killed, a full disk, a
//! lost file or a former slave has left out is asked of the master: the digests that
//! the bytes should have, whatever the slave's are. So its cost is the master's reading,
//! and it goes on, a while in each pass, until nothing lacks.

use std::time::{Duration, Instant};

use super::complain;
use crate::error::Error;
use crate::io::progress::Monitor;
use crate::slave::ledger::{Ledger, LedgerEntry, note, segment_end};
use crate::slave::paths::{self, OpenMode};
use crate::slave::step::Slave;
use crate::source::Master;

/// For how long a pass goes on.
pub const IN_A_PASS: Duration = Duration::from_secs(1);

/// For how long a pass of a watch goes on, in which the next commit waits.
pub const IN_A_WATCH: Duration = Duration::from_millis(50);

/// After how many entries they are noted.
const NOTED_AFTER: usize = 16;

/// Asks the master, which was looked at, for the digests that lack in the ledger of a slave
/// that ends at `position`, for as long as `patience`, and those of one segment at least.
pub fn catch_up(
    slave: &Slave,
    master: &Master,
    position: u64,
    patience: Duration,
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
        // One that goes on behind the position, as that of a slave that was cut, is written
        // again from its last entry before it.
        Some(ledger) => ledger.end(position.saturating_sub(1))?,
        None => 0,
    };
    let started = Instant::now();
    let mut at = from;
    let mut entries = Vec::new();
    while at < position && (at == from || started.elapsed() < patience) {
        slave.check_cancelled()?;
        let range = at..position.min(segment_end(at));
        let Some(digest) = master.digest(range.clone()).wait()? else {
            break;
        };
        at = range.end;
        entries.push(LedgerEntry { range, digest });
        monitor.progress("asking for digests", at - from, position - from);
        if entries.len() >= NOTED_AFTER {
            note(slave, &data, std::mem::take(&mut entries))?;
        }
    }
    note(slave, &data, entries)
}

/// Why the ledger is not kept up, if that is worth telling.
#[must_use]
pub fn complaint(error: &Error) -> Option<String> {
    complain("the ledger of digests is not kept", error)
}
