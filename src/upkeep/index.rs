//! Updates of the index beside the slave: after a full copy, at the end of a pass, and at the
//! end of a watch.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

use super::build::{IndexBuild, Origin, find_origin, open, remove_foreign};
use super::{SyncedSlave, is_failure};
use crate::error::Error;
use crate::filestorage::index::Index;
use crate::io::file_stat::FileStat;
use crate::io::flock;
use crate::io::progress::{Monitor, Silent};
use crate::slave::index::coverage::{IndexCoverage, is_short_scan};
use crate::slave::index::failure::FailedBuild;
use crate::slave::index::store;
use crate::slave::paths::Sibling;
use crate::slave::sidecar::Sidecar;
use crate::slave::step::Slave;

/// How long a pass reads the slave for an index.
pub const PASS_BUDGET: Duration = Duration::from_secs(20);

/// How long the index may delay the end of a watch.
const END_BUDGET: Duration = Duration::from_millis(400);

/// The largest index that is stored again at the end of a watch, in bytes: to read, write and
/// sync a larger one takes longer than [`END_BUDGET`].
const MAX_LEN_AT_END: u64 = 16 * 1024 * 1024;

/// The start of a warning about the index.
pub(super) const CANNOT: &str = "cannot update the index";

/// Whether a pass that left the slave at `position` should update the index. An index that
/// fssync did not store is removed here already, even if the update has to wait.
pub fn is_due(slave: &Slave, sidecar: &Sidecar, position: u64) -> Result<bool, Error> {
    let known = sidecar.index.as_ref();
    let origin = find_origin(&slave.paths, known, position, IndexCoverage::is_due)?;
    if origin.is_none() || is_in_use(slave) {
        return Ok(false);
    }
    if origin == Some(Origin::Beginning)
        && let Err(error) = remove_foreign(slave)
    {
        // The update fails in the same way and reports it.
        tracing::debug!("{}", error.display_chain());
    }
    let failure = sidecar.index_failure;
    let must_wait = failure.is_some_and(|failure| failure.must_wait(Timestamp::now()));
    if must_wait {
        tracing::debug!("not updating the index: the last attempt failed recently");
    }
    Ok(!must_wait)
}

/// Stores the index that a full copy has built for `position`, or builds one if the copy has
/// none. The caller stores the sidecar.
pub fn store_built(
    slave: &Slave,
    index: Option<Index>,
    position: u64,
    sidecar: &mut Sidecar,
    monitor: &dyn Monitor,
) -> Result<(), Error> {
    let Some(stat) = slave.stat()? else {
        return Ok(());
    };
    match index {
        Some(index) => {
            let file = open(slave, stat)?;
            let stored = store_and_note(slave, &file, stat, &index, position, sidecar);
            note_failure(stored, position, sidecar)
        }
        None => build(slave, stat, position, PASS_BUDGET, sidecar, monitor),
    }
}

/// Updates the index of a slave that ends at `position`, after the pass has stored the sidecar;
/// stores the sidecar again. If the slave cannot be read to `position` within about `budget`,
/// the index is that of an earlier position.
pub fn update(
    slave: &Slave,
    position: u64,
    budget: Duration,
    sidecar: &mut Sidecar,
    monitor: &dyn Monitor,
) -> Result<(), Error> {
    let Some(stat) = slave.stat()? else {
        return Ok(());
    };
    let built = build(slave, stat, position, budget, sidecar, monitor);
    store_sidecar(slave, built, sidecar)
}

/// Updates the index at the end of a watch, if that takes no noticeable time. Otherwise the
/// older one remains, and ZODB scans the rest.
pub fn update_at_end(slave: &Slave) {
    let interrupted = Arc::new(AtomicBool::new(false));
    let slave = Slave {
        switches: slave.switches.clone(),
        interrupted: Arc::clone(&interrupted),
        ..Slave::new(slave.paths.clone(), None)
    };
    let timer = thread::Builder::new().spawn(move || {
        thread::sleep(END_BUDGET);
        interrupted.store(true, Ordering::Relaxed);
    });
    if timer.is_err() {
        // Without the timer, a slow disk could delay the end for longer than the budget.
        return;
    }
    report(try_to_update_at_end(&slave));
}

fn try_to_update_at_end(slave: &Slave) -> Result<(), Error> {
    slave.check_cancelled()?;
    let Some((_lock, synced)) = SyncedSlave::lock(slave)? else {
        return Ok(());
    };
    let SyncedSlave {
        stat,
        position,
        mut sidecar,
    } = synced;
    // A partial full copy has the temporary name that the index would need. It waits for the
    // master, and is worth more than an index.
    if slave.paths.sibling(Sibling::Tmp).exists() {
        return Ok(());
    }
    let known = sidecar.index.as_ref();
    let is_quick = match find_origin(&slave.paths, known, position, IndexCoverage::can_advance_to)?
    {
        None => return Ok(()),
        Some(Origin::Beginning) => is_short_scan(position),
        Some(Origin::Stored(stored)) => {
            is_short_scan(position - stored.position) && stored.len() <= MAX_LEN_AT_END
        }
    };
    if !is_quick || is_in_use(slave) {
        return Ok(());
    }
    let built = build(slave, stat, position, Duration::MAX, &mut sidecar, &Silent);
    store_sidecar(slave, built, &sidecar)
}

/// Builds the index of `position`, or of an earlier one if `budget` runs out, and stores it.
fn build(
    slave: &Slave,
    stat: FileStat,
    position: u64,
    budget: Duration,
    sidecar: &mut Sidecar,
    monitor: &dyn Monitor,
) -> Result<(), Error> {
    let known = sidecar.index.as_ref();
    let origin = find_origin(&slave.paths, known, position, IndexCoverage::can_advance_to)?;
    let Some(origin) = origin else {
        return Ok(());
    };
    let mut build = IndexBuild::open(slave, stat, origin, position)?;
    let read = build.read_for(slave, budget, monitor);
    let bytes = build.bytes_to_read();
    let stored = read.and_then(|()| store_build(build, slave, stat, sidecar));
    note_failure(stored, bytes, sidecar)
}

/// Stores the index of a complete build beside the slave, which must still be in the state of
/// `stat`, and notes it in the sidecar.
pub(super) fn store_build(
    mut build: IndexBuild,
    slave: &Slave,
    stat: FileStat,
    sidecar: &mut Sidecar,
) -> Result<(), Error> {
    let index = build.finish(slave)?;
    store_and_note(slave, build.file(), stat, &index, build.to(), sidecar)
}

/// Stores an index and notes it in the sidecar. If ZODB would not use the index of this
/// position, an older one that fssync stored remains, and any other is removed.
fn store_and_note(
    slave: &Slave,
    file: &File,
    stat: FileStat,
    index: &Index,
    position: u64,
    sidecar: &mut Sidecar,
) -> Result<(), Error> {
    let stored = store(slave, file, stat, index, position)?;
    sidecar.index_failure = None;
    if stored.is_none()
        && let Some(known) = &mut sidecar.index
        && known.stored().is_some()
        && known.position() < position
        && known.is_unchanged(&slave.paths)?
    {
        known.mark_unusable_at(position);
        return Ok(());
    }
    if stored.is_none() {
        remove_foreign(slave)?;
    }
    sidecar.index = Some(IndexCoverage::of(stored, position));
    Ok(())
}

/// Notes in the sidecar that an attempt failed for which `bytes` of the slave were read.
pub(super) fn note_failure(
    result: Result<(), Error>,
    bytes: u64,
    sidecar: &mut Sidecar,
) -> Result<(), Error> {
    if result.as_ref().is_err_and(is_failure) {
        sidecar.index_failure = Some(FailedBuild::new(Timestamp::now(), bytes));
    }
    result
}

/// Stores the sidecar after an attempt that succeeded or failed. One that was only stopped has
/// changed nothing in it.
pub(super) fn store_sidecar(
    slave: &Slave,
    result: Result<(), Error>,
    sidecar: &Sidecar,
) -> Result<(), Error> {
    if result.as_ref().err().is_none_or(is_failure) {
        sidecar.store(&slave.paths)?;
    }
    result
}

/// Whether a ZODB has opened the slave: it maintains the index itself then.
fn is_in_use(slave: &Slave) -> bool {
    flock::holder(&slave.paths.sibling(Sibling::ZodbLock)).is_some()
}

/// Logs a warning if the index could not be updated.
pub fn report(result: Result<(), Error>) {
    super::report(CANNOT, result);
}
