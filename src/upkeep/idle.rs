//! Updates of the index while a watch is idle, in parts, so that no pass has to wait.

use std::time::{Duration, Instant};

use super::build::{IndexBuild, Progress, find_origin};
use super::index::{CANNOT, note_failure, store_build, store_sidecar};
use super::{SyncedSlave, is_failure, warning};
use crate::error::Error;
use crate::io::progress::Monitor;
use crate::slave::index::coverage::IndexCoverage;
use crate::slave::index::failure::FailedBuild;
use crate::slave::step::Slave;

/// How long an index that is due waits for the watch to become idle.
const URGENT_AFTER: Duration = Duration::from_secs(60);

/// How many megabytes of the slave an urgent build reads between two passes.
const URGENT_PIECES: u32 = 16;

/// The shortest delay before a watch retries a build that failed.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(60);

/// The index build of a watch, which continues between passes.
#[derive(Debug, Default)]
pub struct IdleWork {
    build: Option<IndexBuild>,
    due_since: Option<Instant>,
    retry_at: Option<Instant>,
    /// The warning that was logged last, which is not repeated.
    warned: Option<String>,
}

impl IdleWork {
    /// Records whether the index is due after the last pass. If it is not, an unfinished build
    /// is dropped.
    pub fn note(&mut self, is_due: bool) {
        if is_due {
            self.due_since.get_or_insert_with(Instant::now);
        } else {
            self.due_since = None;
            self.build = None;
        }
    }

    /// Whether an index that is due has waited too long for the watch to become idle.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.due_since
            .is_some_and(|since| since.elapsed() > URGENT_AFTER)
    }

    /// Works until the index is stored, or until `must_pause`, which is asked before each
    /// megabyte that is read, returns true. If `is_urgent`, it is not asked for the first 16.
    pub fn work(
        &mut self,
        slave: &Slave,
        is_urgent: bool,
        must_pause: &mut dyn FnMut() -> bool,
        monitor: &dyn Monitor,
    ) {
        let is_waiting = self.retry_at.is_some_and(|at| Instant::now() < at);
        if self.due_since.is_none() || is_waiting {
            return;
        }
        let mut pieces = if is_urgent { URGENT_PIECES } else { 0 };
        let mut pause = || {
            let is_free = pieces > 0;
            pieces = pieces.saturating_sub(1);
            !is_free && must_pause()
        };
        let result = self.try_to_work(slave, &mut pause, monitor);
        // The build is kept and continues at the next opportunity.
        if let Ok(Progress::Paused) | Err(Error::Busy { .. }) = result {
            return;
        }
        let error = result.err();
        // Only a failure is retried with a delay. Work that was stopped or locked out starts
        // again as soon as a pass finds the index due.
        self.retry_at = error.as_ref().filter(|error| is_failure(error)).map(|_| {
            let wasted = self.build.as_ref().map_or(0, IndexBuild::bytes_to_read);
            Instant::now() + FailedBuild::retry_delay(wasted).max(MIN_RETRY_DELAY)
        });
        self.note(false);
        let warning = error.as_ref().and_then(|error| warning(CANNOT, error));
        if let Some(why) = warning.as_ref().filter(|_| self.warned != warning) {
            tracing::warn!("{why}");
        }
        self.warned = warning;
    }

    fn try_to_work(
        &mut self,
        slave: &Slave,
        pause: &mut dyn FnMut() -> bool,
        monitor: &dyn Monitor,
    ) -> Result<Progress, Error> {
        // The slave may have grown when a build is complete; then it continues.
        loop {
            let Some(build) = self.resume_or_open(slave)? else {
                return Ok(Progress::Complete);
            };
            let build = self.build.insert(build);
            if build.read(slave, pause, monitor)? == Progress::Paused {
                return Ok(Progress::Paused);
            }
            if self.store(slave)? {
                return Ok(Progress::Complete);
            }
        }
    }

    /// The unfinished build, extended to the slave's position, if it still fits the slave;
    /// otherwise a new one, if the index is due.
    fn resume_or_open(&mut self, slave: &Slave) -> Result<Option<IndexBuild>, Error> {
        if let Some(mut build) = self.build.take() {
            let Some(SyncedSlave { stat, position, .. }) = SyncedSlave::load(slave)? else {
                return Ok(None);
            };
            if build.is_of(stat) && build.to() <= position {
                build.extend_to(slave, position)?;
                return Ok(Some(build));
            }
        }
        let Some((_lock, synced)) = SyncedSlave::lock(slave)? else {
            return Ok(None);
        };
        let position = synced.position;
        let known = synced.sidecar.index.as_ref();
        find_origin(&slave.paths, known, position, IndexCoverage::is_due)?
            .map(|origin| IndexBuild::open(slave, synced.stat, origin, position))
            .transpose()
    }

    /// Stores the index of a build that was read to its end. Returns false if the slave has
    /// grown since, so that there is more to read.
    fn store(&mut self, slave: &Slave) -> Result<bool, Error> {
        // From here on, no pass can change the slave.
        let Some((_lock, synced)) = SyncedSlave::lock(slave)? else {
            return Ok(true);
        };
        let SyncedSlave {
            stat,
            position,
            mut sidecar,
        } = synced;
        let build = self.build.take_if(|build| build.is_done_at(position));
        let Some(build) = build else {
            return Ok(false);
        };
        if build.is_of(stat) {
            let bytes = build.bytes_to_read();
            let stored = store_build(build, slave, stat, &mut sidecar);
            let stored = note_failure(stored, bytes, &mut sidecar);
            store_sidecar(slave, stored, &sidecar)?;
        }
        Ok(true)
    }
}
