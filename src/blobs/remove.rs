//! Removes blobs that a pack of the master has removed, and their digests.
//!
//! A full copy lists the blobs to which only the old slave refers
//! ([`GoneList`](crate::slave::blobs::GoneList)). They stay for some days, since the old log may
//! be wanted back. Before a blob is removed, the slave's log is read: a blob to which it refers
//! stays, whatever the list contains. The log may refer to it if the full copy was not installed
//! after all, or if the master got the blob back from a backup.
//!
//! The ledger of blobs is compacted after that, if most of its entries are outdated. So it has at
//! most two entries for each blob, and 10,000 more, and those of the blobs that arrived since the
//! last removal.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::error::Error;
use crate::filestorage::MAGIC_LEN;
use crate::filestorage::blob::BlobKey;
use crate::human::{bytes, count};
use crate::slave::blobs::{BlobDirectory, BlobLedger, RemovalLimits, Removed};
use crate::slave::paths::{self, OpenMode};
use crate::slave::scan::blobs::BlobScan;
use crate::slave::step::Slave;

/// How long a pass removes blobs, after it has read the log.
pub const PASS_BUDGET: Duration = Duration::from_secs(10);

/// How long a pass of a watch removes blobs; the next commit waits meanwhile.
pub const WATCH_BUDGET: Duration = Duration::from_millis(250);

/// The ledger is not compacted for fewer outdated entries, which take 64 bytes each.
const MIN_OUTDATED: u64 = 10_000;

/// Removes blobs that have been gone for longer than `keep`, from a slave that ends at
/// `position`.
pub fn remove_gone(
    slave: &Slave,
    directory: &BlobDirectory,
    position: u64,
    keep: Duration,
    budget: Duration,
) -> Result<Removed, Error> {
    let limits = RemovalLimits {
        now: Timestamp::now(),
        keep,
        budget,
    };
    let removed = directory.remove_gone(slave, limits, |keys| referenced(slave, position, keys))?;
    if removed.files > 0 {
        tracing::info!(
            "{}: removed {}, {}, that a pack of the master has removed",
            directory.path().display(),
            count(removed.files, "blob"),
            bytes(removed.bytes)
        );
    }
    Ok(removed)
}

/// Compacts the ledger of blobs if most of its entries are outdated. The slave ends at `position`,
/// and its log refers to some `blobs` blobs. Reads the log, so this is done only after blobs were
/// removed, which reads the log too.
pub fn compact_ledger(
    slave: &Slave,
    directory: &BlobDirectory,
    position: u64,
    blobs: u64,
) -> Result<(), Error> {
    let ledger = BlobLedger::open(&slave.paths, directory.id(), OpenMode::Read)?;
    let Some(ledger) = ledger.filter(|ledger| is_mostly_outdated(ledger.len(), blobs)) else {
        return Ok(());
    };
    let before = ledger.len();
    let after = ledger.compact(slave, |keys| referenced(slave, position, keys))?;
    tracing::debug!("compacted the ledger of blobs from {before} entries to {after}");
    Ok(())
}

fn is_mostly_outdated(entries: u64, blobs: u64) -> bool {
    entries > blobs.saturating_mul(2).saturating_add(MIN_OUTDATED)
}

/// Those of these blobs, which are in order, to which the log up to `position` refers.
fn referenced(slave: &Slave, position: u64, keys: &[BlobKey]) -> Result<HashSet<BlobKey>, Error> {
    let path = slave.paths.data();
    let file = paths::open(path, OpenMode::Read).map_err(Error::io("open", path))?;
    let mut scan = BlobScan::new(&file, path, MAGIC_LEN, position);
    let mut found = HashSet::new();
    loop {
        slave.check_cancelled()?;
        let Some(references) = scan.next_slice()? else {
            break;
        };
        let slice = references.iter().map(|reference| reference.key);
        found.extend(slice.filter(|key| keys.binary_search(key).is_ok()));
    }
    if scan.position() == position {
        return Ok(found);
    }
    // Without the rest of the log, nothing may be removed.
    Err(Error::SlaveChanged {
        slave: path.to_owned(),
        what: format!(
            "its transactions end at {}, not at {position}",
            scan.position()
        ),
    })
}
