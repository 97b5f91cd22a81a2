//! Sampling a slave that others may be changing.

use crate::error::Error;
use crate::error::retry::{self, MAX_ATTEMPTS, RETRY_DELAY};
use crate::io::flock;
use crate::io::progress::Monitor;
use crate::plan::{Continuity, SlaveState, SlaveTail, Storage};
use crate::slave::paths::Sibling;
use crate::slave::sidecar::{Fingerprint, Sidecar};
use crate::slave::snapshot::{OpenedSlave, SlaveSnapshot};
use crate::slave::step::Slave;

/// Looks at the slave, as often as it takes to see it at one moment.
pub(super) struct SlaveReader<'a> {
    pub(super) slave: &'a Slave,
    pub(super) monitor: &'a dyn Monitor,
    /// Where another look may start to read.
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

    /// The sidecar, and the slave as it was at about that time. What looks wrong
    /// is looked at again while it changes: it is then a write under way.
    pub(super) fn sample(&mut self) -> Result<(Sidecar, SlaveSnapshot), Error> {
        let mut looks = 0;
        loop {
            looks += 1;
            let (sidecar, result) = self.once(looks < MAX_ATTEMPTS)?;
            match result {
                Ok(Some(sample)) => {
                    self.coherent_up_to = sample.coherent_up_to.or(self.coherent_up_to);
                    if looks == MAX_ATTEMPTS || self.is_settled(&sidecar, &sample)? {
                        return Ok((sidecar, sample));
                    }
                }
                Err(error) if looks == MAX_ATTEMPTS || !error.is_transient() => return Err(error),
                Ok(None) | Err(_) => {}
            }
            retry::wait(RETRY_DELAY);
        }
    }

    /// One look, which reads the whole slave only if nobody is about to vouch for
    /// it, unless it `may_wait` no longer.
    fn once(
        &self,
        may_wait: bool,
    ) -> Result<(Sidecar, Result<Option<SlaveSnapshot>, Error>), Error> {
        let paths = &self.slave.paths;
        let mut sidecar = Sidecar::load(paths)?;
        if self.coherent_up_to.is_some() {
            sidecar.coherent_up_to = self.coherent_up_to;
        }
        let look = || {
            let opened = OpenedSlave::open(paths, &sidecar)?;
            if may_wait && opened.must_be_read() && self.is_held(Sibling::PassLock) {
                return Ok(None);
            }
            let sample = opened.scan(&sidecar, &|| self.check_cancelled(), self.monitor)?;
            Ok(Some(sample))
        };
        let result = look();
        Ok((sidecar, result))
    }

    fn is_settled(&self, sidecar: &Sidecar, sample: &SlaveSnapshot) -> Result<bool, Error> {
        let Storage {
            tail, continuity, ..
        } = match &sample.slave {
            SlaveState::Storage(storage) => *storage,
            // Where ZODB packs what it serves, there is none for an instant.
            SlaveState::Missing if self.is_held(Sibling::ZodbLock) => return Ok(false),
            _ => return Ok(self.slave.stat()? == sample.seen),
        };
        Ok(match (tail, continuity) {
            (SlaveTail::None | SlaveTail::Ours(_), Continuity::Unknown | Continuity::UpTo(_)) => {
                true
            }
            _ => self.slave.stat()? == sample.seen && self.is_current(sidecar)?,
        })
    }

    fn is_held(&self, lock: Sibling) -> bool {
        flock::holder(&self.slave.paths.sibling(lock)).is_some()
    }

    /// Whether the sidecar still says the same of the slave.
    fn is_current(&self, sidecar: &Sidecar) -> Result<bool, Error> {
        let now = Sidecar::load(&self.slave.paths)?;
        Ok((now.last_sync, now.batch) == (sidecar.last_sync.clone(), sidecar.batch.clone()))
    }

    /// Switched off or not, a status can be asked.
    fn check_cancelled(&self) -> Result<(), Error> {
        self.slave.check_interrupted()
    }
}
