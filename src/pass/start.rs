//! The start of a pass: its lock, the last sidecar, and the checks that come first.

use super::{Job, surroundings};
use crate::error::Error;
use crate::io::flock;
use crate::slave::lock;
use crate::slave::paths::Sibling;
use crate::slave::running::busy;
use crate::slave::sidecar::Sidecar;
use crate::slave::step::Slave;

/// The result of the start of a pass.
pub(super) struct PassStart {
    /// The pass lock; `None` in a dry run.
    pub(super) lock: Option<lock::Lock>,
    /// The sidecar that the last pass stored.
    pub(super) sidecar: Sidecar,
    /// Whether the checks of a first pass were made, or are not due.
    pub(super) is_checked: bool,
}

/// Takes the pass lock, if syncing is on, and loads the sidecar. A dry run only checks that nobody
/// has the lock.
pub(super) fn start_pass(job: &Job) -> Result<PassStart, Error> {
    start(job).or_else(|error| match error {
        Error::Interrupted => Err(interruption(&job.slave)?),
        error => Err(error),
    })
}

/// Why a wait for the master was interrupted, although nothing cancels the pass any more: a switch
/// was off for a moment, or a signal arrived. Fails if the pass is cancelled.
pub(super) fn interruption(slave: &Slave) -> Result<Error, Error> {
    slave.check_cancelled()?;
    let cause = slave.switches.cause_of_ended_wait();
    Ok(cause.map_or(Error::Interrupted, Error::Off))
}

fn start(job: &Job) -> Result<PassStart, Error> {
    let paths = &job.slave.paths;
    job.slave.check_cancelled()?;
    paths.find_mounted()?;
    check_kind(job)?;
    let mut is_checked = false;
    let mut check = || {
        is_checked = true;
        check_first_pass(job, &Sidecar::load(paths)?)
    };
    let lock = if job.dry_run {
        let pass_lock = paths.sibling(Sibling::PassLock);
        if !pass_lock.exists() {
            check()?;
        } else if flock::holder(&pass_lock).is_some() {
            return Err(busy(&job.slave));
        }
        None
    } else {
        Some(lock::take_pass_after(paths, check)?.ok_or_else(|| busy(&job.slave))?)
    };
    let sidecar = Sidecar::load(paths)?;
    Ok(PassStart {
        lock,
        is_checked: is_checked || sidecar.last_sync.is_some(),
        sidecar,
    })
}

pub(super) fn check_first_pass(job: &Job, sidecar: &Sidecar) -> Result<(), Error> {
    surroundings::check_first_pass(&job.slave, &job.master, job.policy, sidecar)
}

/// Refuses a slave whose name may be a mistake, before anything is created beside it. Even a lock
/// there would make `fssync off` accept the name.
fn check_kind(job: &Job) -> Result<(), Error> {
    let paths = &job.slave.paths;
    if !paths.may_be_mistaken()? {
        return Ok(());
    }
    match job.master.stat(Vec::new()) {
        Ok(master_stat) => paths.check_kind(master_stat.named.is_directory),
        Err(error) if paths.is_named_like_the_master() => Err(error.into()),
        // The survey tries again, and longer.
        Err(_) => Ok(()),
    }
}
