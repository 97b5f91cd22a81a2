//! Reads the state of a slave that other processes may be changing.

use crate::error::Error;
use crate::error::retry::{self, MAX_ATTEMPTS, RETRY_DELAY};
use crate::io::flock;
use crate::io::progress::Monitor;
use crate::plan::{Continuity, SlaveState, SlaveTail, Storage};
use crate::slave::paths::Sibling;
use crate::slave::sidecar::{Fingerprint, Sidecar};
use crate::slave::snapshot::{OpenedSlave, SlaveSnapshot};
use crate::slave::step::Slave;

/// Reads the slave repeatedly until the result is consistent.
pub(super) struct SlaveReader<'a> {
    pub(super) slave: &'a Slave,
    pub(super) monitor: &'a dyn Monitor,
    /// The position from which the next attempt may start to scan.
    coherent_up_to: Option<Fingerprint>,
}

impl<'a> SlaveReader<'a> {
    pub(super) fn new(slave: &'a Slave, monitor: &'a dyn Monitor) -> Self {
        Self {
            slave,
            monitor,
            coherent_up_to: None,
        }
    }

    /// The sidecar, and the slave at about the same time. If the slave looks damaged or
    /// changed, it is read again while it keeps changing, since that is a write in progress.
    pub(super) fn read(&mut self) -> Result<(Sidecar, SlaveSnapshot), Error> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let (sidecar, result) = self.once(attempts < MAX_ATTEMPTS)?;
            match result {
                Ok(Some(snapshot)) => {
                    self.coherent_up_to = snapshot.coherent_up_to.or(self.coherent_up_to);
                    if attempts == MAX_ATTEMPTS || self.is_settled(&sidecar, &snapshot)? {
                        return Ok((sidecar, snapshot));
                    }
                }
                Err(error) if attempts == MAX_ATTEMPTS || !error.is_transient() => {
                    return Err(error);
                }
                Ok(None) | Err(_) => {}
            }
            retry::wait(RETRY_DELAY);
        }
    }

    /// One attempt. If `may_wait`, it returns `None` instead of scanning the whole slave while a
    /// pass is running, since that pass will soon record the position.
    fn once(
        &self,
        may_wait: bool,
    ) -> Result<(Sidecar, Result<Option<SlaveSnapshot>, Error>), Error> {
        let paths = &self.slave.paths;
        let mut sidecar = Sidecar::load(paths)?;
        if self.coherent_up_to.is_some() {
            sidecar.coherent_up_to = self.coherent_up_to;
        }
        let read = || {
            let opened = OpenedSlave::open(paths, &sidecar)?;
            if may_wait && opened.must_be_read() && self.is_held(Sibling::PassLock) {
                return Ok(None);
            }
            let snapshot = opened.scan(&sidecar, &|| self.check_cancelled(), self.monitor)?;
            Ok(Some(snapshot))
        };
        let result = read();
        Ok((sidecar, result))
    }

    fn is_settled(&self, sidecar: &Sidecar, snapshot: &SlaveSnapshot) -> Result<bool, Error> {
        let Storage {
            tail, continuity, ..
        } = match &snapshot.slave {
            SlaveState::Storage(storage) => *storage,
            // During a pack by ZODB, there is no `Data.fs` for a moment.
            SlaveState::Missing if self.is_held(Sibling::ZodbLock) => return Ok(false),
            _ => return Ok(self.slave.stat()? == snapshot.seen),
        };
        Ok(match (tail, continuity) {
            (SlaveTail::None | SlaveTail::Ours(_), Continuity::Unknown | Continuity::UpTo(_)) => {
                true
            }
            _ => self.slave.stat()? == snapshot.seen && self.is_current(sidecar)?,
        })
    }

    fn is_held(&self, lock: Sibling) -> bool {
        flock::holder(&self.slave.paths.sibling(lock)).is_some()
    }

    /// Whether the sidecar still records the same state.
    fn is_current(&self, sidecar: &Sidecar) -> Result<bool, Error> {
        let now = Sidecar::load(&self.slave.paths)?;
        Ok((now.last_sync, now.batch) == (sidecar.last_sync.clone(), sidecar.batch.clone()))
    }

    /// A status does not depend on the switches; only a signal cancels it.
    fn check_cancelled(&self) -> Result<(), Error> {
        self.slave.check_interrupted()
    }
}
