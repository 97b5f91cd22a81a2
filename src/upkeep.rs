//! Keeps ZODB's index and the ledger of digests up to date, after the data of a pass is safe.
//!
//! | when | work |
//! | --- | --- |
//! | after a full copy | the index was built from the bytes as they were copied; it is stored once the copy has replaced the slave ([`index::store_built`]) |
//! | at the end of a pass | the index is brought up to date if that is due ([`index::update`]); digests that the ledger lacks are fetched ([`ledger`]) |
//! | while a watch is idle | the same for the index, in parts between two passes ([`IdleWork`]) |
//! | at the end of a watch | the same for the index, if it takes less than half a second ([`index::update_at_end`]) |
//!
//! All of them read the slave with an [`IndexBuild`], which can pause and resume. This module
//! decides when the index is worked on and for how long. [`slave::index`](crate::slave::index)
//! has the rules for storing one.
//!
//! # Rules
//!
//! 1. Both files are caches. A failure here is logged and does not change the outcome of the
//!    pass. Work starts only when everything that was copied is durable, visible and noted in
//!    the sidecar.
//! 2. An index that fssync did not store is removed at once, before the slave is read for a new
//!    one. A ZODB that closes saves its index after it has released its lock, so it may be the
//!    index of a slave that was replaced since, and the next ZODB would trust it.
//! 3. No other pass runs while a pass works on the index. A build that takes too long therefore
//!    stores an index of an earlier position, which still saves ZODB a part of its scan. The
//!    next pass continues from that index.
//! 4. A failed build that has read much of the slave is retried with a delay
//!    ([`FailedBuild`](crate::slave::index::failure::FailedBuild)), not in the next pass.

mod build;
mod idle;
pub mod index;
pub mod ledger;

pub use self::build::{IndexBuild, Progress};
pub use self::idle::IdleWork;

use crate::error::Error;
use crate::io::file_stat::FileStat;
use crate::plan::switch_on::SinceLastPass;
use crate::slave::lock::{self, Lock};
use crate::slave::running::busy;
use crate::slave::sidecar::Sidecar;
use crate::slave::since_last_pass::since_last_pass;
use crate::slave::step::Slave;

/// The warning for an error, if it is a failure of the work itself. If another program was
/// only in the way, the next pass reports that.
fn warning(what: &str, error: &Error) -> Option<String> {
    let why = error.display_chain();
    if is_failure(error) {
        return Some(format!("{what}: {why}"));
    }
    tracing::debug!("{what} for now: {why}");
    None
}

/// Logs the [`warning`] for a result, if there is one.
fn report(what: &str, result: Result<(), Error>) {
    if let Some(why) = result.err().and_then(|error| warning(what, &error)) {
        tracing::warn!("{why}");
    }
}

/// Logs a warning if blobs could not be removed.
pub fn report_blobs(result: Result<(), Error>) {
    report(
        "cannot remove blobs that a pack of the master has removed",
        result,
    );
}

/// Logs a warning if the blob ledger could not be completed.
pub fn report_blob_digests(result: Result<(), Error>) {
    report("cannot complete the ledger of blobs", result);
}

/// Logs a warning if the blob ledger could not be compacted.
pub fn report_compacted_ledger(result: Result<(), Error>) {
    report("cannot compact the ledger of blobs", result);
}

/// Whether the work failed, as opposed to being stopped, locked out, or overtaken by a change
/// of the slave or the master.
fn is_failure(error: &Error) -> bool {
    !matches!(
        error,
        Error::Off(_)
            | Error::Interrupted
            | Error::InUse { .. }
            | Error::Busy { .. }
            | Error::SlaveChanged { .. }
            | Error::Unreachable(_)
            | Error::MasterChanged { .. }
    )
}

/// A slave that nobody has changed since the last pass.
struct SyncedSlave {
    stat: FileStat,
    /// The position that the last pass left.
    position: u64,
    sidecar: Sidecar,
}

impl SyncedSlave {
    /// Reads the sidecar and compares the slave with it. `None` if the slave is missing or
    /// differs from the state that the last pass left.
    fn load(slave: &Slave) -> Result<Option<Self>, Error> {
        let sidecar = Sidecar::load(&slave.paths)?;
        let (Some(stat), Some(last_sync)) = (slave.stat()?, &sidecar.last_sync) else {
            return Ok(None);
        };
        let position = last_sync.slave.position;
        Ok(match since_last_pass(&slave.paths, &sidecar)? {
            SinceLastPass::Beyond { run: None, .. } => Some(Self {
                stat,
                position,
                sidecar,
            }),
            _ => None,
        })
    }

    /// The same with the pass lock held, so that no pass changes the slave meanwhile.
    fn lock(slave: &Slave) -> Result<Option<(Lock, Self)>, Error> {
        // Without this check, a lock file would be created on the bare mount point if the
        // slave's file system is not mounted.
        if Self::load(slave)?.is_none() {
            return Ok(None);
        }
        let lock = lock::take_pass(&slave.paths)?.ok_or_else(|| busy(slave))?;
        // Compare again: a pass may have run before the lock was taken.
        Ok(Self::load(slave)?.map(|synced| (lock, synced)))
    }
}
