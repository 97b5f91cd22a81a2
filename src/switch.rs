//! `fssync off` and `fssync on`.
//!
//! [`slave::step`](crate::slave::step) argues why nothing is written to the slave after
//! [`off`] has returned. [`on`] first checks the slave, without the master. It refuses if the
//! slave is being served or has transactions of its own: syncing was then probably switched
//! off for a failover.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::io::flock::holder;
use crate::plan::switch_on::{Known, SwitchOnRefusal, judge};
use crate::slave::append::{has_unfinished, truncate_batch};
use crate::slave::lock::Lock;
use crate::slave::paths::Sibling;
use crate::slave::presence::Presence;
use crate::slave::sidecar::Sidecar;
use crate::slave::since_last_pass::{SlaveEnd, since_last_pass, slave_end};
use crate::slave::step::Slave;

/// How long [`off`] may search for the slave's last transaction. The administrator waits
/// for it during a failover.
const LAST_TID_TIMEOUT: Duration = Duration::from_millis(300);

/// How long [`on`] waits until a running pass has recorded its work. On a slow disk, a sync
/// takes seconds.
const RECORD_TIMEOUT: Duration = Duration::from_secs(60);

/// How often [`on`] checks for that.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The state of a slave after syncing was switched off.
#[derive(Clone, Debug)]
pub struct SwitchedOff {
    /// The slave's `Data.fs`.
    pub slave: PathBuf,
    /// The switch that was written.
    pub switch: PathBuf,
    /// How many bytes of an unfinished append were truncated.
    pub cut_len: u64,
    /// What the slave ends with.
    pub ending: SlaveEnd,
    /// Whether a pass was ever made for it.
    pub presence: Presence,
}

/// Switches syncing off. When this returns, nothing is written to the slave any more, and
/// the slave ends with its last whole transaction. It does not wait for the master.
///
/// It fails only if writes cannot be ruled out. If an unfinished append cannot be
/// truncated, that is only a warning: ZODB truncates it when it opens the slave.
///
/// Without `force` it fails if there is neither a slave nor a trace of a pass. The path is
/// then probably mistyped, and passes would go on writing to the real slave.
pub fn off(slave: &Slave, force: bool) -> Result<SwitchedOff, Error> {
    let presence = Presence::of(&slave.paths);
    if presence == Presence::Nothing && !force {
        return Err(no_slave(slave));
    }
    let switch = slave.switches.set(false, &slave.paths)?.to_owned();
    let between_steps = slave.block_steps()?;
    if !slave.switches.own_is_off() {
        // A concurrent `fssync on` wrote the switch before we had the step lock. From now
        // on it waits for us.
        slave.switches.set(false, &slave.paths)?;
    }
    let sidecar = Sidecar::load(&slave.paths).unwrap_or_else(|error| {
        tracing::warn!(
            "an unfinished append, if any, is left to ZODB, which truncates it: {}",
            error.display_chain()
        );
        Sidecar::default()
    });
    let cut_len = truncate_unfinished(slave, between_steps, &sidecar).unwrap_or_else(|error| {
        tracing::warn!(
            "an unfinished append is left to ZODB, which truncates it: {}",
            error.display_chain()
        );
        0
    });
    let ending = slave_end(&slave.paths, &sidecar, LAST_TID_TIMEOUT).unwrap_or_else(|error| {
        tracing::warn!("{}", error.display_chain());
        SlaveEnd::Unknown
    });
    Ok(SwitchedOff {
        slave: slave.paths.data().to_owned(),
        switch,
        cut_len,
        ending,
        presence,
    })
}

/// The error for a path that is probably mistyped.
fn no_slave(slave: &Slave) -> Error {
    let data = slave.paths.data();
    let is_there = data.symlink_metadata().is_ok();
    let what = if is_there {
        "is not a FileStorage"
    } else {
        "does not exist"
    };
    Error::Usage(format!(
        "{} {what}, and no pass was ever made for it: nothing is switched off; check the \
         path, or add --force",
        data.display()
    ))
}

/// Truncates the unfinished batch of a pass, in two steps. If there is none, ZODB's lock is
/// not taken: a ZEO may be starting after another `fssync off`, and would fail if it met the
/// lock.
fn truncate_unfinished(
    slave: &Slave,
    between_steps: Lock,
    sidecar: &Sidecar,
) -> Result<u64, Error> {
    let Some(batch) = &sidecar.batch else {
        return Ok(0);
    };
    let take_step = |between_steps| {
        if has_unfinished(slave, batch)? {
            return slave.step_while_off(between_steps);
        }
        Err(Error::SlaveChanged {
            slave: slave.paths.data().to_owned(),
            what: "the unfinished batch is gone".to_owned(),
        })
    };
    let cut = take_step(between_steps)
        .and_then(|step| truncate_batch(slave, step, batch, || take_step(slave.block_steps()?)));
    match cut {
        Err(Error::InUse { .. }) => Ok(0),
        // Either there was nothing to truncate, or another `fssync off` or ZODB has done it.
        Err(error @ Error::SlaveChanged { .. }) => {
            if has_unfinished(slave, batch)? {
                Err(error)
            } else {
                Ok(0)
            }
        }
        cut => cut,
    }
}

/// The result of [`on`].
#[derive(Clone, Debug)]
pub struct SwitchedOn {
    /// The switch that was written.
    pub switch: PathBuf,
    /// The recorded state of the slave; `None` if it was not checked.
    pub known: Option<Known>,
    /// Whether a pass was ever made for it.
    pub presence: Presence,
}

/// Switches syncing on, unless the slave is in use or has transactions of its own; then it
/// leaves the switches unchanged. `force` skips the check of the slave. Fails with
/// [`Error::Off`] if another switch is still off.
///
/// It waits for the current step, so that a pass does not look like another program that
/// uses the slave, and for a concurrent [`off`].
pub fn on(slave: &Slave, force: bool) -> Result<SwitchedOn, Error> {
    let (_between_steps, known) = if force {
        (slave.block_steps()?, None)
    } else {
        let (between_steps, known) = check(slave)?;
        (between_steps, Some(known))
    };
    let switch = slave.switches.set(true, &slave.paths)?.to_owned();
    slave.switches.check()?;
    Ok(SwitchedOn {
        switch,
        known,
        presence: Presence::of(&slave.paths),
    })
}

/// Checks the slave between two steps. A pass records a batch shortly after it has finished
/// it. So as long as a pass is running, a refusal may be premature, and the check is
/// repeated.
fn check(slave: &Slave) -> Result<(Lock, Known), Error> {
    let started = Instant::now();
    loop {
        // Looked at before the check: a pass that ends during the check has recorded its batch,
        // but the check may have read the sidecar before that.
        let is_passing = holder(&slave.paths.sibling(Sibling::PassLock)).is_some();
        let between_steps = slave.block_steps()?;
        match check_once(slave)? {
            Ok(known) => return Ok((between_steps, known)),
            Err(SwitchOnRefusal::Grown { .. } | SwitchOnRefusal::Changed { .. })
                if is_passing && started.elapsed() < RECORD_TIMEOUT =>
            {
                drop(between_steps);
                thread::sleep(POLL_INTERVAL);
            }
            Err(why) => {
                let slave = slave.paths.data().to_owned();
                return Err(Error::NotSwitchedOn { slave, why });
            }
        }
    }
}

fn check_once(slave: &Slave) -> Result<Result<Known, SwitchOnRefusal>, Error> {
    let paths = &slave.paths;
    Ok(match holder(&paths.sibling(Sibling::ZodbLock)) {
        Some(pid) => Err(SwitchOnRefusal::InUse { pid }),
        None => judge(since_last_pass(paths, &Sidecar::load(paths)?)?),
    })
}
