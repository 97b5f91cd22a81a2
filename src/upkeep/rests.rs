//! Work on the index while a watch rests: in pieces, so that no pass waits for it
//! long.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use super::index::{complaint, note_failure, store_made, store_sidecar};
use super::task::{Task, Wanted, task};
use super::work::Work;
use super::{as_left, is_failure, lock_as_left};
use crate::error::Error;
use crate::io::progress::Monitor;
use crate::slave::index::failure::Failure;
use crate::slave::step::Slave;

/// For how long an index that is due waits for a watch to rest.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much of the slave is read between two passes where a watch does not rest,
/// in pieces of a megabyte.
const PIECES_IN_HASTE: u32 = 16;

/// After how long a watch tries again what failed, at the earliest.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// The work on the index in the rests of a watch.
#[derive(Debug, Default)]
pub struct IdleWork {
    work: Option<Work>,
    due_since: Option<Instant>,
    retry_at: Option<Instant>,
    told: Option<String>,
}

impl IdleWork {
    /// Takes note of whether the last pass left work; what was begun is dropped
    /// where it did not end in sync.
    pub fn note(&mut self, is_due: bool) {
        if is_due {
            self.due_since.get_or_insert_with(Instant::now);
        } else {
            self.due_since = None;
            self.work = None;
        }
    }

    /// Whether there is work that has waited for a rest for too long.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.due_since
            .is_some_and(|since| since.elapsed() > PATIENCE)
    }

    /// Works until the index is stored, or until `is_called`, which is asked
    /// often, says so; `in_haste`, it is not asked at once.
    pub fn work(
        &mut self,
        slave: &Slave,
        in_haste: bool,
        is_called: &mut dyn FnMut() -> bool,
        monitor: &dyn Monitor,
    ) {
        let is_waiting = self.retry_at.is_some_and(|at| Instant::now() < at);
        if self.due_since.is_none() || is_waiting {
            return;
        }
        let mut pieces = if in_haste { PIECES_IN_HASTE } else { 0 };
        let mut is_called = || {
            let is_free = pieces > 0;
            pieces = pieces.saturating_sub(1);
            !is_free && is_called()
        };
        let result = self.try_to_work(slave, &mut is_called, monitor);
        if let Ok(Progress::Left) | Err(Error::Busy { .. }) = result {
            return;
        }
        let failed = result.err();
        // What was only hindered goes on with the next pass that finds it due.
        self.retry_at = failed.as_ref().filter(|error| is_failure(error)).map(|_| {
            let in_vain = self.work.as_ref().map_or(0, |work| work.growing.distance());
            Instant::now() + Failure::pause(in_vain).max(RETRY_AFTER)
        });
        self.note(false);
        let complaint = failed.as_ref().and_then(complaint);
        if let Some(why) = complaint.as_ref().filter(|_| self.told != complaint) {
            tracing::warn!("{why}");
        }
        self.told = complaint;
    }

    fn try_to_work(
        &mut self,
        slave: &Slave,
        is_called: &mut dyn FnMut() -> bool,
        monitor: &dyn Monitor,
    ) -> Result<Progress, Error> {
        let is_called = RefCell::new(is_called);
        let was_called = Cell::new(false);
        let check_cancelled = || {
            slave.check_cancelled()?;
            was_called.set((is_called.borrow_mut())());
            if was_called.get() {
                return Err(Error::Interrupted);
            }
            Ok(())
        };
        loop {
            let Some(work) = self.take_up(slave)? else {
                return Ok(Progress::Done);
            };
            let Work { file, growing, .. } = self.work.insert(work);
            match growing.read(file, &slave.paths, &check_cancelled, monitor) {
                Err(Error::Interrupted) if was_called.get() => return Ok(Progress::Left),
                read => read?,
            }
            if let Some(progress) = self.store(slave)? {
                return Ok(progress);
            }
        }
    }

    /// The work that was begun, if it is of the slave still, or else what is due.
    fn take_up(&mut self, slave: &Slave) -> Result<Option<Work>, Error> {
        if let Some(mut work) = self.work.take() {
            let Some((seen, position, _)) = as_left(slave)? else {
                return Ok(None);
            };
            if work.is_of(seen) && work.growing.to() <= position {
                work.go_on_to(slave, position)?;
                return Ok(Some(work));
            }
        }
        let Some((_lock, seen, position, sidecar)) = lock_as_left(slave)? else {
            return Ok(None);
        };
        let known = sidecar.index.as_ref();
        match task(&slave.paths, known, position, Wanted::Near)? {
            Task::Nothing => Ok(None),
            task => Work::begin(slave, seen, task, position).map(Some),
        }
    }

    /// Stores what was read to the end; `None` if the slave has grown since.
    fn store(&mut self, slave: &Slave) -> Result<Option<Progress>, Error> {
        let Some((_lock, seen, position, mut sidecar)) = lock_as_left(slave)? else {
            return Ok(Some(Progress::Done));
        };
        let Some(work) = self.work.take_if(|work| work.is_at(position)) else {
            return Ok(None);
        };
        if work.is_of(seen) {
            let len = work.growing.distance();
            let stored = store_made(work, slave, seen, &mut sidecar);
            let stored = note_failure(stored, len, &mut sidecar);
            store_sidecar(slave, stored, &sidecar)?;
        }
        Ok(Some(Progress::Done))
    }
}

/// How far the work came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// To its end.
    Done,
    /// There is more to do, once there is time again.
    Left,
}
