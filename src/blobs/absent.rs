//! Asks the master again for blobs that it did not have.
//!
//! A blob can come back: from a backup, or because its file system was not mounted. The blob
//! ledger lists the absent ones. It is read for this once an hour, and only if there are any.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::{BlobEnds, BlobFetcher, Fetched, GROUP_LEN};
use crate::error::Error;
use crate::filestorage::blob::{BlobKey, BlobReference};
use crate::io::progress::Monitor;
use crate::slave::blobs::{BlobLedger, BlobState};
use crate::slave::paths::OpenMode;
use crate::slave::sidecar::Sidecar;

/// How long the master is not asked again.
const INTERVAL: Duration = Duration::from_secs(60 * 60);

/// The maximum number of blobs to ask for: the first ones.
const MAX_ASKED: usize = 100_000;

/// Asks the master for the absent blobs, if that was not done within an hour, and fetches those
/// that it has now. Stores the result in the sidecar.
pub fn ask_again(
    ends: BlobEnds<'_>,
    sidecar: &mut Sidecar,
    monitor: &dyn Monitor,
) -> Result<Fetched, Error> {
    let now = Timestamp::now();
    let Some(state) = sidecar.blobs.as_mut().filter(|state| state.absent > 0) else {
        return Ok(Fetched::default());
    };
    let is_recent = state
        .absent_asked
        .is_some_and(|asked| now.duration_since(asked).unsigned_abs() < INTERVAL);
    if is_recent {
        return Ok(Fetched::default());
    }
    let is_first = state.absent_asked.replace(now).is_none();
    let paths = &ends.slave.paths;
    // The pass that found the first one absent has just asked for it.
    if !is_first {
        let mut fetcher = BlobFetcher::new(ends, GROUP_LEN, monitor);
        for key in absent_blobs(ends)? {
            // Whether the blob is still absent is known, so this is not reported again.
            let is_optional = true;
            fetcher.want(BlobReference { key, is_optional })?;
        }
        fetcher.fetch()?;
        let numbers = fetcher.take_fetched();
        state.absent = state.absent.saturating_sub(numbers.files);
        state.add(numbers.files, numbers.bytes, 0);
        sidecar.store(paths)?;
        return Ok(numbers);
    }
    sidecar.store(paths)?;
    Ok(Fetched::default())
}

/// The blobs that the ledger lists as absent, and that the slave does not have.
fn absent_blobs(ends: BlobEnds<'_>) -> Result<Vec<BlobKey>, Error> {
    let (paths, id) = (&ends.slave.paths, ends.directory.id());
    let Some(ledger) = BlobLedger::open(paths, id, OpenMode::Read)? else {
        return Ok(Vec::new());
    };
    let mut absent = BTreeSet::new();
    for entry in ledger.entries() {
        let entry = entry?;
        match entry.state {
            BlobState::Absent if absent.len() < MAX_ASKED => {
                absent.insert(entry.key);
            }
            BlobState::Absent => {}
            BlobState::Present { .. } => {
                absent.remove(&entry.key);
            }
        }
    }
    ends.missing(absent)
}
