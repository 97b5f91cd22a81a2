//! The door: every change of `Data.fs` is made in a step.
//!
//! A step is: look whether the slave's file system is there → take the step lock → read
//! the switches → try ZODB's lock → look at the slave again → write → release. It lasts
//! some milliseconds, since a ZEO that meets our hold on ZODB's lock dies at once; so
//! neither the master nor a sync is waited for inside.
//!
//! # What the argument rests on
//!
//! - *One order.* The step lock is a `flock(LOCK_EX)` on one file that is never
//!   unlinked: at most one process has it, so all that is done with it in hand
//!   has an order. The kernel lets it go when its holder dies; we let it go with
//!   `LOCK_UN`, which counts even where a process that is just being started has
//!   inherited the handle.
//! - *A switch that was written is read.* Both go through the page cache of one
//!   machine. `off` makes the switch durable before it asks for the step lock, so
//!   that no power cut takes it back once something relies on it.
//! - *A step does not wait* for the master, a sync, or a log that nobody reads:
//!   what it writes lies in memory when it begins. Only a signal can stop it.
//! - *`Data.fs` is changed in steps only*, by [`DataFile::write`],
//!   [`DataFile::truncate`] and the rename of
//!   [`Replacement`](super::replace::Replacement), and ZODB's lock is taken in
//!   steps only.
//! - *All look at the same switch.* A file that is named to `off` with
//!   `--status-file` binds only passes to which it is named, too; the one beside
//!   the slave binds all.
//!
//! # `fssync off`: why nothing is written once it has returned (Law 4)
//!
//! `off` writes the switch → takes the step lock → writes the switch again
//! should it say on → cuts our unfinished tail, with ZODB's lock, if there is one
//! → lets go. Let S be the moment at which it has the step lock.
//!
//! - **Off and a step.** A step that had the lock before S is over at S. One that
//!   gets it later reads the switch after it was written, and ends before it
//!   tries ZODB's lock or writes. So after S nothing is written to the slave,
//!   and ZODB's lock is held by nobody of ours but `off` itself, which lets go
//!   of it before it returns.
//! - **Off and a pass between steps**, in a sync, in its survey, in a wait for a
//!   master that hangs for ever: it holds no lock but the pass lock, which `off`
//!   and ZODB do not ask for. Its next step is one after S. A sync that goes on
//!   writes back what was written before S.
//! - **Off and a pass that begins.** It may have read the switch before it was
//!   written; it writes in steps like any other.
//! - **Off and the rename of a full copy.** The rename is in a step: before S,
//!   then `off` speaks of the new slave, or never. The steps before it leave the
//!   old slave, at worst without its index, which costs ZODB a scan, and under
//!   a second name, which the pass takes away again when it finds itself
//!   switched off.
//! - **Off and the index.** It is removed, and another one renamed to its name, in
//!   steps: before S, or never. ZODB finds what lay there at S.
//! - **Off and [`roll_back`](super::append::Append::roll_back).** It takes a step:
//!   before S, then `off` finds nothing to cut, or it reads the switch and leaves
//!   the tail to `off`, which cuts it after S. `off` knows the tail by the
//!   batch in the sidecar, stored before the batch's first byte is written.
//!   What starts otherwise, or has its true status already, is not cut. A tail that
//!   the sidecar does not know, after a power cut, is left to ZODB.
//! - **Off and ZODB that has the slave.** `off` does not wait for it and cuts
//!   nothing: ZODB cuts what is behind a `c` when it opens. Should it die before,
//!   the next one does.
//! - **Off and a second off.** S comes twice. Whoever comes to its step finds nothing to
//!   cut once the other one has cut it, so it does not try ZODB's lock: a ZEO that starts
//!   when either has returned does not meet it. So too where the other one came between
//!   the two steps of a cut.
//! - **Off and on.** `on` has the step lock while it writes its switch. Before S,
//!   `off` finds the switch on and writes it again, with the lock in hand; after
//!   that, `on` comes later than `off`, and somebody wanted it so.
//! - **Off, on, and a pass that slept through both.** Its next step looks at the
//!   slave: where a tail was cut, or ZODB was there, it is not what the pass
//!   left, and the survey starts again. Where it is, nothing happened.
//! - **Off is killed.** Before the switch says off: nothing was done. Once it says
//!   so, durable or not: as after a bare `echo`, below. In the cut, which is two
//!   calls: the tail is there, or less than a header of it, or none. The locks go with
//!   the process. Every off can be repeated.
//! - **Off on a full disk.** The switch is written over in place, and an empty
//!   one is off.
//! - **A pass is stopped in a step** (SIGSTOP, or a disk that hangs): `off` gives
//!   up after ten seconds, with an error and the process. The switch stays off:
//!   let go, the pass ends its step, and does no other.
//!
//! What a pass may still do after S, beside the slave:
//!
//! - It writes up to one piece more, of a copy or of an index, to
//!   `Data.fs.fssync-tmp`, or creates it, and removes it when it finds itself
//!   switched off; so too a `.trN` of a tail that
//!   was not cut after all, and the second name of a slave that was not replaced. A `.trN`
//!   that an earlier pass has left of this tail stays, as it is.
//!   No name that ZODB opens is among them.
//! - It may store the sidecar. What that says of the slave was so when it was
//!   seen, and is about bytes in front of a position, which ZODB never changes;
//!   after a pack the digests tell that it is another file. A batch that was
//!   announced and not begun is known by a tid that no other transaction has.
//!   Nobody else stores a sidecar meanwhile, since the pass lock is held. So a
//!   later pass finds the slave grown or changed, as it is.
//!
//! # Others
//!
//! - **A bare `echo SYNCING=0` and a step.** The step under way finishes; the
//!   next one reads the switch, or finds it empty, which is off. What the pass
//!   leaves starts with a `c`, which ZODB cuts. There is no S to wait for: a ZODB
//!   that opens at once may meet our lock in that last step.
//! - **ZODB opens between two steps.** It holds `Data.fs.lock`: the next step
//!   fails with [`Error::InUse`]. It has cut our unfinished tail, as it does any
//!   `c`, so it sees the batches that were finished and nothing else (Law 1).
//! - **ZODB opens, commits and closes between two steps.** The next step gets
//!   the lock, but the size or the header of our batch is not what we left:
//!   [`Error::SlaveChanged`], nothing is written, the survey starts again and
//!   finds the slave grown (Law 2).
//! - **ZODB opens in a step.** It meets its lock held and fails, as it would
//!   with a second ZODB. A supervisor starts it again; `off` before it is the
//!   way not to meet.
//! - **Two passes.** The pass lock keeps the second one out. Were it not there,
//!   each would find the other's tail by the same look as ZODB's.
//! - **A pass is killed in a step** while its reader hangs on a mount in a way that
//!   no signal ends (FUSE, not NFS): the process stays, and its locks with it, until
//!   the mount answers or is aborted. `off` then fails as with one that is
//!   stopped.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::lock::{self, Lock};
use super::paths::{self, OpenMode, SlavePaths};
use super::switch::Switches;
use crate::error::Error;
use crate::io::file_stat::FileStat;

/// The slave, as a pass holds it.
#[derive(Debug)]
pub struct Slave {
    /// Where it lies.
    pub paths: SlavePaths,
    /// Whether it may be written.
    pub switches: Switches,
    /// Set by a signal.
    pub interrupted: Arc<AtomicBool>,
}

/// A step under way; it ends when this is dropped.
#[derive(Debug)]
pub struct Step<'a> {
    slave: &'a Slave,
    /// Released before the step lock: fields are dropped in their order.
    _zodb_lock: Lock,
    _step_lock: Lock,
}

impl Slave {
    /// A slave that no signal handler interrupts. `status_file` is the switch that
    /// `--status-file` names.
    #[must_use]
    pub fn new(paths: SlavePaths, status_file: Option<PathBuf>) -> Self {
        Self {
            switches: Switches::new(&paths, status_file),
            paths,
            interrupted: Arc::default(),
        }
    }

    /// Whether a signal asked to stop.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Takes a step; see the module's description.
    pub fn step(&self) -> Result<Step<'_>, Error> {
        self.check_cancelled()?;
        self.step_despite_signal()
    }

    /// Takes a step although a signal asks for the end, to tidy up.
    pub fn step_despite_signal(&self) -> Result<Step<'_>, Error> {
        self.paths.check_is_mounted()?;
        let step_lock = lock::take_step(&self.paths)?;
        self.switches.check()?;
        let zodb_lock = lock::take_zodb(&self.paths)?;
        Ok(Step {
            slave: self,
            _zodb_lock: zodb_lock,
            _step_lock: step_lock,
        })
    }

    /// Waits until whoever takes a step has left it, and keeps everybody else from
    /// theirs until what this returns is dropped.
    pub fn block_steps(&self) -> Result<Lock, Error> {
        lock::take_step(&self.paths)
    }

    /// Takes a step although syncing is off, to tidy up behind the last one; fails with
    /// [`Error::InUse`] if another program has the slave, and tidies up itself.
    pub fn step_while_off(&self, between_steps: Lock) -> Result<Step<'_>, Error> {
        Ok(Step {
            slave: self,
            _zodb_lock: lock::take_zodb(&self.paths)?,
            _step_lock: between_steps,
        })
    }

    /// Fails once a switch says off or a signal came.
    pub fn check_cancelled(&self) -> Result<(), Error> {
        self.check_interrupted()?;
        self.switches.check()
    }

    /// Fails once a signal came.
    pub fn check_interrupted(&self) -> Result<(), Error> {
        if self.is_interrupted() {
            return Err(Error::Interrupted);
        }
        Ok(())
    }

    fn changed(&self, what: String) -> Error {
        Error::SlaveChanged {
            slave: self.paths.data().to_owned(),
            what,
        }
    }

    /// What lies under the slave's name now.
    pub fn stat(&self) -> Result<Option<FileStat>, Error> {
        let path = self.paths.data();
        match fs::symlink_metadata(path) {
            Ok(found) => Ok(Some(FileStat::of(&found))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("look at", path)(error)),
        }
    }
}

impl Step<'_> {
    /// Fails unless the slave is still what was seen.
    pub fn check_unchanged(&self, expected: Option<FileStat>) -> Result<(), Error> {
        let found = self.slave.stat()?;
        if found == expected {
            return Ok(());
        }
        let said = |seen: Option<FileStat>| match seen {
            Some(FileStat {
                inode,
                size,
                modified: (secs, nanos),
                ..
            }) => {
                format!("{size} bytes in inode {inode}, written at {secs}.{nanos:09}")
            }
            None => "no file".to_owned(),
        };
        Err(self.slave.changed(format!(
            "expected {}, found {}",
            said(expected),
            said(found)
        )))
    }
}

/// `Data.fs`, open for writing in steps.
#[derive(Debug)]
pub struct DataFile<'a> {
    slave: &'a Slave,
    file: File,
    seen: FileStat,
    /// How many names it has.
    links: u64,
}

impl<'a> DataFile<'a> {
    /// Opens the slave, which must be what was seen.
    pub fn open(slave: &'a Slave, seen: FileStat) -> Result<Self, Error> {
        let path = slave.paths.data();
        let file = match paths::open(path, OpenMode::ReadWrite) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(slave.changed("there is no file any more".to_owned()));
            }
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        let mut data = Self {
            slave,
            file,
            seen,
            links: 1,
        };
        data.refresh_stat()?;
        if data.seen != seen {
            return Err(slave.changed("written since it was looked at".to_owned()));
        }
        Ok(data)
    }

    /// The open file, for reading and syncing.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What the slave was when we last touched it.
    #[must_use]
    pub fn stat(&self) -> FileStat {
        self.seen
    }

    /// How many names it had then.
    #[must_use]
    pub fn links(&self) -> u64 {
        self.links
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.slave.paths.data()
    }

    /// Takes a step in which the slave is still what we left, and has `bytes`
    /// at `offset`.
    pub fn step(&self, offset: u64, bytes: &[u8]) -> Result<Step<'a>, Error> {
        let step = self.slave.step()?;
        step.check_unchanged(Some(self.seen))?;
        let mut found = vec![0; bytes.len()];
        let read = self.file.read_exact_at(&mut found, offset);
        read.map_err(self.fail("read", offset))?;
        if found != bytes {
            return Err(step
                .slave
                .changed(format!("other bytes at {offset} than we wrote")));
        }
        Ok(step)
    }

    /// Fills a buffer with what was there when we last looked; no step is needed.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), Error> {
        match self.file.read_exact_at(buffer, offset) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(self
                .slave
                .changed("it was cut while it was read".to_owned())),
            read => read.map_err(self.fail("read", offset)),
        }
    }

    /// Writes in a step.
    pub fn write(&mut self, _: &Step<'_>, bytes: &[u8], offset: u64) -> Result<(), Error> {
        let written = self.file.write_all_at(bytes, offset);
        written.map_err(self.fail("write", offset))?;
        self.refresh_stat()
    }

    /// Cuts in a step.
    pub fn truncate(&mut self, _: &Step<'_>, size: u64) -> Result<(), Error> {
        self.file.set_len(size).map_err(self.fail("cut", size))?;
        self.refresh_stat()
    }

    /// Takes note of what the file is now, in the step that made it so.
    fn refresh_stat(&mut self) -> Result<(), Error> {
        let found = self.file.metadata();
        let found = found.map_err(Error::io("look at", self.path()))?;
        self.seen = FileStat::of(&found);
        self.links = found.nlink();
        Ok(())
    }

    /// Makes what was written durable.
    pub fn sync(&self) -> Result<(), Error> {
        self.file
            .sync_data()
            .map_err(Error::io("sync", self.path()))
    }

    fn fail(&self, action: &str, offset: u64) -> impl FnOnce(io::Error) -> Error + use<> {
        Error::io(format!("{action} at {offset} in"), self.path())
    }
}
