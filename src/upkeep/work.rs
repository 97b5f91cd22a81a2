//! An index that is being made: it can be left and gone on with.

use std::cell::Cell;
use std::fs::File;
use std::time::{Duration, Instant};

use super::task::Task;
use crate::error::Error;
use crate::filestorage::index::builder::Builder;
use crate::io::file_stat::FileStat;
use crate::io::progress::Monitor;
use crate::slave::index::coverage::exists;
use crate::slave::index::{Growing, remove};
use crate::slave::paths::{self, OpenMode};
use crate::slave::sidecar::Fingerprint;
use crate::slave::step::Slave;

/// An index that is being made.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) file: File,
    /// Which file it is.
    of: FileStat,
    /// What it has at the position that the index grows to.
    fingerprint: Fingerprint,
    pub(super) growing: Growing,
}

impl Work {
    /// Begins with what lies there, or from the start.
    pub(super) fn begin(
        slave: &Slave,
        seen: FileStat,
        task: Task,
        position: u64,
    ) -> Result<Self, Error> {
        let file = open(slave, seen)?;
        let loaded = match task {
            Task::Extend(known) => known.stored().and_then(|stored| {
                let index = stored.load(&slave.paths)?;
                Some(Builder::resume(index, stored.position))
            }),
            Task::Nothing | Task::Build => None,
        };
        if loaded.is_none() {
            remove_foreign(slave)?;
        }
        Ok(Self {
            fingerprint: fingerprint(slave, &file, position)?,
            file,
            of: seen,
            growing: Growing::new(loaded.unwrap_or_default(), position),
        })
    }

    /// Reads to the end, or, once `patience` has run out, to that of the transaction
    /// that is being read then; some is read always.
    pub(super) fn read(
        &mut self,
        slave: &Slave,
        patience: Duration,
        monitor: &dyn Monitor,
    ) -> Result<(), Error> {
        let Self { file, growing, .. } = self;
        let started = Instant::now();
        let (has_begun, is_late) = (Cell::new(false), Cell::new(false));
        let in_time = || {
            slave.check_cancelled()?;
            is_late.set(has_begun.replace(true) && started.elapsed() >= patience);
            if is_late.get() {
                return Err(Error::Interrupted);
            }
            Ok(())
        };
        match growing.read(file, &slave.paths, &in_time, monitor) {
            Err(Error::Interrupted) if is_late.get() => {}
            read => return read,
        }
        growing.end_with_transaction();
        let check_cancelled = || slave.check_cancelled();
        growing.read(file, &slave.paths, &check_cancelled, monitor)
    }

    /// Whether it is of the file that was seen, and nobody has written over that
    /// since: what was read would be that of another.
    pub(super) fn is_of(&self, seen: FileStat) -> bool {
        let found = Fingerprint::of(&self.file, self.fingerprint.position, None);
        self.of.is_same_file(&seen) && found.is_ok_and(|found| found == self.fingerprint)
    }

    /// Has it go on to another position behind, where it was read to the end.
    pub(super) fn go_on_to(&mut self, slave: &Slave, position: u64) -> Result<(), Error> {
        self.growing.go_on_to(position);
        self.fingerprint = fingerprint(slave, &self.file, self.growing.to())?;
        Ok(())
    }

    /// Whether all was read up to this position, or in vain.
    pub(super) fn is_at(&self, position: u64) -> bool {
        self.growing.to() == position || !self.growing.is_whole()
    }
}

/// Removes what lies there and is not what was left.
pub(super) fn remove_foreign(slave: &Slave) -> Result<(), Error> {
    if exists(&slave.paths)? {
        tracing::debug!("the index that lies there is not what was left: it is made anew");
        remove(slave)?;
    }
    Ok(())
}

/// What the slave, which is `file`, has at a position.
fn fingerprint(slave: &Slave, file: &File, position: u64) -> Result<Fingerprint, Error> {
    Fingerprint::of(file, position, None).map_err(Error::io("read", slave.paths.data()))
}

/// Opens the slave, which must be the file that was seen.
pub(super) fn open(slave: &Slave, seen: FileStat) -> Result<File, Error> {
    let path = slave.paths.data();
    let file = paths::open(path, OpenMode::Read).map_err(Error::io("open", path))?;
    let found = file.metadata().map_err(Error::io("look at", path))?;
    if FileStat::of(&found).is_same_file(&seen) {
        return Ok(file);
    }
    Err(Error::SlaveChanged {
        slave: path.to_owned(),
        what: "another file was put in its place".to_owned(),
    })
}
