//! `fssync off` and `fssync on`.
//!
//! Why nothing is written once [`off`] has returned is argued in
//! [`slave::step`](crate::slave::step). [`on`] looks at the slave first, no
//! master asked: one that is served, or has grown something of its own, was
//! probably switched off for good reason.

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

/// How long [`off`] looks for the slave's last transaction: whoever waits for it
/// wants to serve.
const ENDING_PATIENCE: Duration = Duration::from_millis(300);

/// How long [`on`] gives a pass to note what it did.
const NOTING_PATIENCE: Duration = Duration::from_secs(2);

/// How often it looks in that time.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What a slave holds when syncing is switched off.
#[derive(Clone, Debug)]
pub struct SwitchedOff {
    /// The slave's `Data.fs`.
    pub slave: PathBuf,
    /// The switch that was written.
    pub switch: PathBuf,
    /// How many bytes of an unfinished append were cut.
    pub cut_len: u64,
    /// What the slave ends with.
    pub ending: SlaveEnd,
    /// Whether a pass was ever made for it.
    pub presence: Presence,
}

/// Switches syncing off: when this returns, nothing is written to the slave any
/// more, and it ends with its last whole transaction. No master is waited for.
///
/// It fails only where the first cannot be promised. What cannot be tidied up is
/// left to ZODB, which cuts it when it opens the slave.
///
/// Without `force` it fails if there is no slave, nor any trace of a pass: whoever
/// mistypes the path would switch off nothing, and serve what passes go on writing.
pub fn off(slave: &Slave, force: bool) -> Result<SwitchedOff, Error> {
    let presence = Presence::of(&slave.paths);
    if presence == Presence::Nothing && !force {
        return Err(no_slave(slave));
    }
    let switch = slave.switches.set(false, &slave.paths)?.to_owned();
    let between_steps = slave.block_steps()?;
    if !slave.switches.own_is_off() {
        // An `on` came in between; from here on it waits.
        slave.switches.set(false, &slave.paths)?;
    }
    let sidecar = Sidecar::load(&slave.paths).unwrap_or_else(|error| {
        tracing::warn!(
            "an unfinished append, if there is one, is left to ZODB: {}",
            error.display_chain()
        );
        Sidecar::default()
    });
    let cut_len = tidy_up(slave, between_steps, &sidecar).unwrap_or_else(|error| {
        tracing::warn!(
            "an unfinished append is left to ZODB: {}",
            error.display_chain()
        );
        0
    });
    let ending = slave_end(&slave.paths, &sidecar, ENDING_PATIENCE).unwrap_or_else(|error| {
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

/// Refuses a path at which there is nothing to switch off.
fn no_slave(slave: &Slave) -> Error {
    let data = slave.paths.data();
    let is_there = data.symlink_metadata().is_ok();
    let what = if is_there {
        "is not a FileStorage"
    } else {
        "does not exist"
    };
    Error::Usage(format!(
        "{} {what}, and no pass was ever made for it, so nothing is switched off: check \
         the path, or add --force",
        data.display()
    ))
}

/// Cuts what a pass has left of an unfinished batch, in two steps. Where there is none, or
/// none any more, ZODB's lock is not touched: a ZEO that another `off` made way for may be
/// starting.
fn tidy_up(slave: &Slave, between_steps: Lock, sidecar: &Sidecar) -> Result<u64, Error> {
    let Some(batch) = &sidecar.batch else {
        return Ok(0);
    };
    let take_step = |between_steps| {
        if has_unfinished(slave, batch)? {
            return slave.step_while_off(between_steps);
        }
        Err(Error::SlaveChanged {
            slave: slave.paths.data().to_owned(),
            what: "nothing is left of the batch".to_owned(),
        })
    };
    let cut = take_step(between_steps)
        .and_then(|step| truncate_batch(slave, step, batch, || take_step(slave.block_steps()?)));
    match cut {
        Err(Error::InUse { .. }) => Ok(0),
        // There was nothing to do, or whoever came in between has done it.
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

/// What came of switching on.
#[derive(Clone, Debug)]
pub struct SwitchedOn {
    /// The switch that was written.
    pub switch: PathBuf,
    /// What is known of the slave; `None` where nobody looked.
    pub known: Option<Known>,
    /// Whether a pass was ever made for it.
    pub presence: Presence,
}

/// Switches syncing on, unless the slave is in use or holds something of its own:
/// then no switch is touched. With `force` it is not looked at. Fails with
/// [`Error::Off`] where another switch still says off.
///
/// It waits for a step that is under way, so as not to take a pass for another
/// program, and for an [`off`].
pub fn on(slave: &Slave, force: bool) -> Result<SwitchedOn, Error> {
    let (_between_steps, known) = if force {
        (slave.block_steps()?, None)
    } else {
        let (between_steps, known) = look(slave)?;
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

/// Looks at the slave between two steps. A pass that has finished a batch notes so
/// a moment later; as long as one is under way, another look may find it noted.
fn look(slave: &Slave) -> Result<(Lock, Known), Error> {
    let started = Instant::now();
    loop {
        let between_steps = slave.block_steps()?;
        match look_once(slave)? {
            Ok(known) => return Ok((between_steps, known)),
            Err(SwitchOnRefusal::Grown { .. } | SwitchOnRefusal::Changed { .. })
                if holder(&slave.paths.sibling(Sibling::PassLock)).is_some()
                    && started.elapsed() < NOTING_PATIENCE =>
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

fn look_once(slave: &Slave) -> Result<Result<Known, SwitchOnRefusal>, Error> {
    let paths = &slave.paths;
    Ok(match holder(&paths.sibling(Sibling::ZodbLock)) {
        Some(pid) => Err(SwitchOnRefusal::InUse { pid }),
        None => judge(since_last_pass(paths, &Sidecar::load(paths)?)?),
    })
}
