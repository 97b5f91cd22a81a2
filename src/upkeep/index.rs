//! The index after a pass: whether there is work, and doing it.

use std::fs::File;
use std::time::Duration;

use jiff::Timestamp;

use super::task::{Task, Wanted, is_in_use, task};
use super::work::{Work, open, remove_foreign};
use super::{complain, is_failure};
use crate::error::Error;
use crate::filestorage::index::Index;
use crate::io::file_stat::FileStat;
use crate::io::progress::Monitor;
use crate::slave::index::coverage::Coverage;
use crate::slave::index::failure::Failure;
use crate::slave::index::store;
use crate::slave::sidecar::Sidecar;
use crate::slave::step::Slave;

/// For how long a pass reads the slave for an index.
pub const IN_A_PASS: Duration = Duration::from_secs(20);

/// Whether the index needs work after a pass that left the slave at `position`, and
/// is to have it now. One that is not what was left does not wait for that.
pub fn is_due(slave: &Slave, sidecar: &Sidecar, position: u64) -> Result<bool, Error> {
    let known = sidecar.index.as_ref();
    let task = task(&slave.paths, known, position, Wanted::Near)?;
    if task == Task::Nothing || is_in_use(slave) {
        return Ok(false);
    }
    if task == Task::Build
        && let Err(error) = remove_foreign(slave)
    {
        // The work meets it, too, and tells.
        tracing::debug!("{}", error.display_chain());
    }
    let failure = sidecar.index_failure;
    let is_let_be = failure.is_some_and(|it| it.is_fresh(Timestamp::now()));
    if is_let_be {
        tracing::debug!("the index is not worked on: that has failed not long ago");
    }
    Ok(!is_let_be)
}

/// Stores the index that a full copy has built, or one of `position`, which is
/// the slave's.
pub fn store_built(
    slave: &Slave,
    (index, position): (Option<Index>, u64),
    sidecar: &mut Sidecar,
    monitor: &dyn Monitor,
) -> Result<(), Error> {
    let Some(seen) = slave.seen()? else {
        return Ok(());
    };
    match index {
        Some(index) => {
            let file = open(slave, seen)?;
            let put = put(slave, (&file, seen), (&index, position), sidecar);
            note_failure(put, position, sidecar)
        }
        None => make(slave, (seen, position), IN_A_PASS, sidecar, monitor),
    }
}

/// Does what is due after a pass that left the slave at `position` and has stored
/// the sidecar, as far as it comes in about `patience`; stores the sidecar again.
pub fn after_pass(
    slave: &Slave,
    position: u64,
    patience: Duration,
    sidecar: &mut Sidecar,
    monitor: &dyn Monitor,
) -> Result<(), Error> {
    let Some(seen) = slave.seen()? else {
        return Ok(());
    };
    let made = make(slave, (seen, position), patience, sidecar, monitor);
    store_sidecar(slave, made, sidecar)
}

/// Stores the sidecar after work that was done, or that failed and said so there.
pub(super) fn store_sidecar(
    slave: &Slave,
    done: Result<(), Error>,
    sidecar: &Sidecar,
) -> Result<(), Error> {
    if done.as_ref().err().is_none_or(is_failure) {
        sidecar.store(&slave.paths)?;
    }
    done
}

/// Says in the sidecar that work failed for which `len` bytes were read.
pub(super) fn note_failure(
    done: Result<(), Error>,
    len: u64,
    sidecar: &mut Sidecar,
) -> Result<(), Error> {
    if done.as_ref().is_err_and(is_failure) {
        sidecar.index_failure = Some(Failure::new(Timestamp::now(), len));
    }
    done
}

/// Makes the index of `position`, or, once `patience` has run out, of one on the way
/// there, and stores it.
pub(super) fn make(
    slave: &Slave,
    (seen, position): (FileStat, u64),
    patience: Duration,
    sidecar: &mut Sidecar,
    monitor: &dyn Monitor,
) -> Result<(), Error> {
    let task = task(
        &slave.paths,
        sidecar.index.as_ref(),
        position,
        Wanted::Newest,
    )?;
    let mut work = Work::begin(slave, seen, task, position)?;
    let read = work.read(slave, patience, monitor);
    let len = work.growing.distance();
    let made = read.and_then(|()| store_made(work, slave, seen, sidecar));
    note_failure(made, len, sidecar)
}

/// Stores an index that was read to its end, beside the slave as it was last seen.
pub(super) fn store_made(
    work: Work,
    slave: &Slave,
    seen: FileStat,
    sidecar: &mut Sidecar,
) -> Result<(), Error> {
    let position = work.growing.to();
    let index = work.growing.finish(&slave.paths)?;
    put(slave, (&work.file, seen), (&index, position), sidecar)
}

/// Stores an index, and says so in the sidecar. Where ZODB would use none of this
/// position, an older one that was stored stays, and no other.
fn put(
    slave: &Slave,
    (file, seen): (&File, FileStat),
    (index, position): (&Index, u64),
    sidecar: &mut Sidecar,
) -> Result<(), Error> {
    let stored = store(slave, (file, seen), (index, position))?;
    sidecar.index_failure = None;
    if stored.is_none()
        && let Some(known) = &mut sidecar.index
        && known.stored().is_some()
        && known.position() < position
        && known.lies_there(&slave.paths)?
    {
        known.pass_over(position);
        return Ok(());
    }
    if stored.is_none() {
        remove_foreign(slave)?;
    }
    sidecar.index = Some(Coverage::of(stored, position));
    Ok(())
}

/// Why the index could not be kept ready, if that is worth telling: what others
/// do to the slave or the switch is for the next pass to say.
#[must_use]
pub fn complaint(error: &Error) -> Option<String> {
    complain("the index is not kept ready", error)
}
