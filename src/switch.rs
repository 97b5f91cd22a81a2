//! `fssync off` and `fssync on`.
//!
//! Why nothing is written once [`off`] has returned is argued in
//! [`slave::step`](crate::slave::step).

use std::path::PathBuf;

use crate::filestorage::Tid;
use crate::slave::append::cut;
use crate::slave::sidecar::Sidecar;
use crate::slave::step::Slave;
use crate::stop::Stop;
use crate::survey;

/// What a slave holds when syncing is switched off.
#[derive(Clone, Debug)]
pub struct SwitchedOff {
    /// The switch that was written.
    pub switch: PathBuf,
    /// How many bytes of an unfinished append were cut.
    pub cut_len: u64,
    /// The last transaction that the slave holds, where a pass has noted enough
    /// to tell it at once.
    pub last_tid: Option<Tid>,
}

/// Switches syncing off: when this returns, nothing is written to the slave any
/// more, and it ends with its last whole transaction. No master is waited for.
pub fn off(slave: &Slave) -> Result<SwitchedOff, Stop> {
    let switch = slave.switches.set(false, &slave.place)?.to_owned();
    let step = slave.closing_step()?;
    let sidecar = Sidecar::load(&slave.place)?;
    let cut_len = match (step, &sidecar.batch) {
        (Some(step), Some(batch)) => cut(slave, step, batch)?,
        _ => 0,
    };
    let last_tid = survey::last_tid(&slave.place, &sidecar).unwrap_or_else(|stop| {
        tracing::warn!("what the slave holds is not known: {}", stop.in_one_line());
        None
    });
    Ok(SwitchedOff {
        switch,
        cut_len,
        last_tid,
    })
}

/// Switches syncing on; returns the switch that was written. Fails with
/// [`Stop::Off`] where another switch still says off.
pub fn on(slave: &Slave) -> Result<PathBuf, Stop> {
    let switch = slave.switches.set(true, &slave.place)?.to_owned();
    slave.switches.check()?;
    Ok(switch)
}
