//! A resumable build of the slave's index.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::mem;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::filestorage::index::Index;
use crate::filestorage::index::builder::Builder;
use crate::filestorage::scan::{Scanner, Tail};
use crate::io::file_stat::FileStat;
use crate::io::progress::Monitor;
use crate::slave::index::coverage::{IndexCoverage, exists};
use crate::slave::index::{StoredIndex, remove};
use crate::slave::paths::{self, OpenMode, SlavePaths};
use crate::slave::scan::scan_file;
use crate::slave::sidecar::Fingerprint;
use crate::slave::step::Slave;

/// Where a build starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// With the stored index, which is extended from its position.
    Stored(StoredIndex),
    /// At the beginning of the slave: there is no index that could be extended.
    Beginning,
}

/// Where to start if the index of a slave that ends at `position` needs work; `None` if it
/// needs none. `is_wanted` decides that for an index that fssync stored and nobody has changed;
/// any other index must be replaced. Reads no file.
pub(super) fn find_origin(
    paths: &SlavePaths,
    known: Option<&IndexCoverage>,
    position: u64,
    is_wanted: fn(&IndexCoverage, u64) -> bool,
) -> Result<Option<Origin>, Error> {
    let Some(known) = known.filter(|known| known.position() <= position) else {
        return Ok(Some(Origin::Beginning));
    };
    if !known.is_unchanged(paths)? {
        return Ok(Some(Origin::Beginning));
    }
    let origin = known.stored().map_or(Origin::Beginning, Origin::Stored);
    Ok(is_wanted(known, position).then_some(origin))
}

/// How far a build has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// To its end.
    Complete,
    /// Not to its end: reading can resume where it paused.
    Paused,
}

/// An index that grows as the slave is read. Reading can pause at any byte and resume.
#[derive(Debug)]
pub struct IndexBuild {
    file: File,
    /// The file when it was opened, to recognise it later.
    opened: FileStat,
    /// The file's first bytes and the last ones before `to`, to notice an overwrite.
    fingerprint: Fingerprint,
    /// The position at which the build started.
    from: u64,
    /// The position of the index to be built.
    to: u64,
    builder: Builder,
    scanner: Scanner,
}

impl IndexBuild {
    /// Continues the index in `builder` up to position `to` of `file`, which is the slave.
    pub fn new(slave: &Slave, file: File, builder: Builder, to: u64) -> Result<Self, Error> {
        let found = file.metadata();
        let from = builder.position();
        Ok(Self {
            opened: FileStat::of(&found.map_err(Error::io("stat", slave.paths.data()))?),
            fingerprint: fingerprint(slave, &file, to)?,
            file,
            from,
            to,
            builder,
            scanner: Scanner::resume(from, None, to),
        })
    }

    /// Opens the slave, which must still be the file of `stat`, and prepares a build. If it
    /// starts at the beginning, any index that is there is removed first.
    pub(super) fn open(
        slave: &Slave,
        stat: FileStat,
        origin: Origin,
        position: u64,
    ) -> Result<Self, Error> {
        let file = open(slave, stat)?;
        let loaded = match origin {
            Origin::Stored(stored) => {
                let index = stored.load(&slave.paths);
                index.map(|index| Builder::resume(index, stored.position))
            }
            Origin::Beginning => None,
        };
        if loaded.is_none() {
            remove_foreign(slave)?;
        }
        Self::new(slave, file, loaded.unwrap_or_default(), position)
    }

    /// Reads until the build is complete, or until `pause`, which is asked before each
    /// megabyte, returns true.
    pub fn read(
        &mut self,
        slave: &Slave,
        pause: &mut dyn FnMut() -> bool,
        monitor: &dyn Monitor,
    ) -> Result<Progress, Error> {
        let (pause, is_paused) = (RefCell::new(pause), Cell::new(false));
        let Self {
            file,
            from,
            to,
            builder,
            scanner,
            ..
        } = self;
        let check = |offset: u64| {
            monitor.progress("indexing", offset - *from, *to - *from);
            slave.check_cancelled()?;
            is_paused.set((pause.borrow_mut())());
            // A scan ends early only with an error; this one is caught below.
            if is_paused.get() {
                return Err(Error::Interrupted);
            }
            Ok(())
        };
        let read = scan_file(file, slave.paths.data(), scanner, &check, &mut |event| {
            builder.take(event);
        });
        match read {
            Err(Error::Interrupted) if is_paused.get() => Ok(Progress::Paused),
            read => read.map(|()| Progress::Complete),
        }
    }

    /// Reads for as long as `budget`, one megabyte at least, then to the end of the transaction
    /// that it has reached, which becomes the end of the build.
    pub(super) fn read_for(
        &mut self,
        slave: &Slave,
        budget: Duration,
        monitor: &dyn Monitor,
    ) -> Result<(), Error> {
        let started = Instant::now();
        let mut has_read = false;
        let mut is_over = || mem::replace(&mut has_read, true) && started.elapsed() >= budget;
        if self.read(slave, &mut is_over, monitor)? == Progress::Paused {
            self.to = self.scanner.end_with_transaction();
            self.read(slave, &mut || false, monitor)?;
        }
        Ok(())
    }

    /// The index, once the build is complete. Fails if no transaction ends at its position:
    /// ZODB would stumble there too when it scans the file.
    pub fn finish(&mut self, slave: &Slave) -> Result<Index, Error> {
        let (to, last) = (self.to, self.builder.position());
        let what = match self.scanner.tail() {
            Tail::Damaged(damage) => damage.to_string(),
            _ => format!("the transaction record at {last} does not end before it"),
        };
        let index = if self.is_whole() {
            mem::take(&mut self.builder).finish()
        } else {
            None
        };
        index.ok_or_else(|| {
            let action = format!("follow the transactions up to {to} in");
            Error::io(action, slave.paths.data())(io::Error::new(ErrorKind::InvalidData, what))
        })
    }

    /// The open slave.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// The position of the index to be built.
    pub(super) fn to(&self) -> u64 {
        self.to
    }

    /// How many bytes the whole build reads.
    pub(super) fn bytes_to_read(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }

    /// Whether everything was read, and a transaction ends at the end.
    fn is_whole(&self) -> bool {
        self.builder.position() == self.to
    }

    /// Whether the build has nothing more to read for a slave that ends at `position`: it is
    /// there, or it met damage on the way.
    pub(super) fn is_done_at(&self, position: u64) -> bool {
        self.to == position || !self.is_whole()
    }

    /// Whether the build is of the file of `stat`, and nobody has overwritten that file since:
    /// the data that was read would then be outdated.
    pub(super) fn is_of(&self, stat: FileStat) -> bool {
        let found = Fingerprint::of(&self.file, self.fingerprint.position, None);
        self.opened.is_same_file(&stat) && found.is_ok_and(|found| found == self.fingerprint)
    }

    /// Moves the end of a complete build to a later position, after the slave has grown.
    pub(super) fn extend_to(&mut self, slave: &Slave, position: u64) -> Result<(), Error> {
        if self.is_whole() {
            self.to = position;
            self.scanner = Scanner::resume(self.builder.position(), None, position);
        }
        self.fingerprint = fingerprint(slave, &self.file, self.to)?;
        Ok(())
    }
}

/// Removes an index that cannot be extended.
pub(super) fn remove_foreign(slave: &Slave) -> Result<(), Error> {
    if exists(&slave.paths)? {
        tracing::debug!("removing an index that fssync did not store; building a new one");
        remove(slave)?;
    }
    Ok(())
}

/// The fingerprint of `file`, which is the slave, at a position.
fn fingerprint(slave: &Slave, file: &File, position: u64) -> Result<Fingerprint, Error> {
    Fingerprint::of(file, position, None).map_err(Error::io("read", slave.paths.data()))
}

/// Opens the slave, which must still be the file of `stat`.
pub(super) fn open(slave: &Slave, stat: FileStat) -> Result<File, Error> {
    let path = slave.paths.data();
    let file = paths::open(path, OpenMode::Read).map_err(Error::io("open", path))?;
    let found = file.metadata().map_err(Error::io("stat", path))?;
    if FileStat::of(&found).is_same_file(&stat) {
        return Ok(file);
    }
    Err(Error::SlaveChanged {
        slave: path.to_owned(),
        what: "another file was put in its place".to_owned(),
    })
}
