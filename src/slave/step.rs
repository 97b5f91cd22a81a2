//! Steps: every change of `Data.fs` is made in one.
//!
//! A step has six stages:
//!
//! 1. check that the slave's file system is mounted;
//! 2. take the step lock;
//! 3. read the switches;
//! 4. try to take ZODB's lock;
//! 5. check that the slave is unchanged;
//! 6. write, then release both locks.
//!
//! A step lasts some milliseconds. It never waits for the master or for a sync, because a ZEO that
//! starts while we hold ZODB's lock fails at once.
//!
//! # Assumptions
//!
//! - *Steps are ordered.* The step lock is a `flock(LOCK_EX)` on a file that is never unlinked, so
//!   at most one process holds it. The kernel releases it when the holder dies. We release it with
//!   `LOCK_UN`, which works even if a child process has just inherited the handle.
//! - *A switch that was written is visible.* Reader and writer use the page cache of one machine.
//!   `off` makes the switch durable before it takes the step lock, so no power cut can undo a
//!   switch that somebody relies on.
//! - *A step does not block.* The bytes to be written are in memory before it begins, and it
//!   writes no log. Only a signal or a disk that hangs can stop it.
//! - *`Data.fs` is changed only in steps,* by [`DataFile::write`], [`DataFile::truncate`] and the
//!   rename in [`Replacement`](super::replace::Replacement). ZODB's lock is taken only in steps.
//! - *All processes read the same switches.* The switch beside the slave applies to every pass. A
//!   switch that `off` writes because of `--status-file` applies only to passes with the same
//!   option.
//!
//! # Why nothing is written after `fssync off` has returned (Law 4)
//!
//! `off` does the following:
//!
//! 1. write the switch, durably;
//! 2. take the step lock: this moment is called S;
//! 3. read the switch, and write it again if it says on;
//! 4. truncate our unfinished tail, if there is one, with ZODB's lock held;
//! 5. release the locks and return.
//!
//! All cases of concurrent work follow from one rule: *a step reads the switches after it has
//! taken the step lock.* Case 1 shows what it means for a step; the others go back to case 1.
//!
//! 1. **A step.** If it has the step lock before S, it ends before S. If it takes the lock after
//!    S, it reads the switch that was written before, and ends before it tries ZODB's lock or
//!    writes. After S, therefore, nothing is written to the slave. Only `off` itself can hold
//!    ZODB's lock, and it releases the lock before it returns.
//! 2. **A pass between two steps,** in a sync, in the survey, or waiting forever for a master that
//!    hangs. It holds only the pass lock, which neither `off` nor ZODB needs. Its next step comes
//!    after S: case 1. A running sync writes data back that was written before S.
//! 3. **A pass that starts.** It may have read the switch before `off` wrote it. It still writes
//!    only in steps: case 1.
//! 4. **The rename of a full copy.** It is in a step. Before S: `off` works on the new slave. After
//!    S: it does not happen. The steps before it leave the old slave, perhaps without an index,
//!    which costs ZODB a scan, and perhaps with a second name, which the pass removes when it
//!    finds syncing off.
//! 5. **The index.** It is removed and renamed in steps. Before S, or not at all: ZODB finds the
//!    index of the moment S.
//! 6. **[`Append::roll_back`](super::append::Append::roll_back).** It takes a step. Before S: `off`
//!    finds nothing to truncate. After S: it reads the switch and leaves the tail to `off`, which
//!    truncates it. `off` recognises the tail by the batch in the sidecar, which is stored before
//!    the first byte of the batch is written. A tail that starts differently, or already has its
//!    true status, is not truncated. After a power cut, the sidecar may not contain the batch;
//!    then the tail is left to ZODB.
//!    The own transactions of an interrupted [`rewind`](super::rewind) are such a tail, too: their
//!    batch is durable in the sidecar before the first of them gets its `c`, in a step.
//! 7. **A ZODB that has the slave open.** `off` does not wait for it and truncates nothing. ZODB
//!    truncates an unfinished tail when it opens the file; if it dies before, the next one does.
//! 8. **A second `off`.** There are two moments S. The `off` that truncates second finds
//!    nothing to truncate and does not try ZODB's lock. So a ZEO that starts after either has
//!    returned does not meet the lock. The same holds if the other one comes between the two stages
//!    of a truncation.
//! 9. **`on`.** It holds the step lock while it writes its switch. Before S: `off` finds the switch
//!    on in 3 and writes it again. After S: `on` came later than `off`, and that is what its user
//!    wanted.
//! 10. **`off`, then `on`, while a pass slept through both.** The next step of the pass compares
//!     the slave. If a tail was truncated or ZODB has written, the slave has changed, and the
//!     survey starts again. Otherwise nothing has happened.
//! 11. **`off` is killed.** Before 1 is complete: the switch may be on, off or empty, which is off,
//!     as after a bare `echo` (below). During 4, which is two system calls: the tail is complete,
//!     shorter than a header, or gone. The locks end with the process. `off` can be repeated.
//! 12. **A full disk.** The switch is overwritten in place; an empty switch is off.
//! 13. **A pass that is stopped in a step,** by SIGSTOP or a disk that hangs. `off` gives up after
//!     ten seconds, with an error that names the process. The switch remains off: the pass can
//!     finish that step when it continues, but no other.
//!
//! A pass may still do the following after S, to files beside the slave. No name that ZODB opens
//! is among them.
//!
//! - It may write one more piece of a copy or an index to `Data.fs.fssync-tmp`, or create that
//!   file, and then remove it when it finds syncing off.
//! - It may create a file in `.fssync/tmp` of the blob directory, write one more piece of each blob
//!   that it is receiving, and remove these files when it finds syncing off.
//! - It may remove the ledger, and the file of transactions that were set aside and not truncated
//!   after all.
//! - It may finish or remove a `.trN` of a tail that was not truncated after all, and the second
//!   name of a slave that was not replaced. A `.trN` of an earlier pass remains unchanged.
//! - It may store the sidecar. Its statements about the slave were true when they were made, and
//!   concern bytes before a position, which ZODB never changes; after a pack, the digests show
//!   that it is another file. A batch that was announced but not begun is recognised by its
//!   header, whose tid no other transaction has. The pass lock is still held, so no other pass stores a
//!   sidecar. The next pass therefore finds correctly that the slave has grown or changed.
//!
//! # Other cases
//!
//! 1. **A bare `echo SYNCING=0` during a step.** The step finishes. The next one finds the switch
//!    off or empty, which is off. The tail that the pass leaves starts with `c`, and ZODB truncates
//!    it. There is no moment S to wait for: a ZODB that opens the slave at once may meet our lock
//!    in that last step.
//! 2. **ZODB opens the slave between two steps.** It holds `Data.fs.lock`, so the next step fails
//!    with [`Error::InUse`]. It truncates our unfinished tail, so it sees only committed batches
//!    (Law 1).
//! 3. **ZODB opens the slave, commits and closes it between two steps.** The next step gets the
//!    lock, but the size or the header of our batch has changed. It fails with
//!    [`Error::SlaveChanged`] and writes nothing. The survey starts again and finds that the slave
//!    has grown (Law 2).
//! 4. **ZODB opens the slave during a step.** The lock is held, so it fails as it would with a
//!    second ZODB. A supervisor starts it again. `fssync off` beforehand avoids this.
//! 5. **Two passes.** The pass lock keeps the second one out. Without it, each would find the
//!    changes of the other as in case 3.
//! 6. **A pass is killed in a step** while a read hangs on a mount that no signal interrupts (FUSE,
//!    not NFS). The process and its locks remain until the mount answers or is aborted. `off`
//!    fails as in its case 13.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::blobs::SyncedDirectories;
use super::lock::{self, Lock};
use super::paths::{self, OpenMode, SlavePaths};
use super::presence::Presence;
use super::small_file::stat_if_exists;
use super::switch::Switches;
use crate::error::Error;
use crate::io::file_stat::FileStat;

/// The slave: its paths, and the conditions under which it may be written.
#[derive(Debug)]
pub struct Slave {
    /// Paths of the slave and the files beside it.
    pub paths: SlavePaths,
    /// The switches that say whether syncing is on.
    pub switches: Switches,
    /// Set when a signal asks the process to end.
    pub interrupted: Arc<AtomicBool>,
    /// Directories of the blob directory that this process has synced.
    pub synced_directories: SyncedDirectories,
}

/// A step. Both locks are released when it is dropped.
#[derive(Debug)]
pub struct Step<'a> {
    slave: &'a Slave,
    // Fields are dropped in this order: ZODB's lock is released first, so nobody who gets the
    // step lock can still meet it.
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
            synced_directories: SyncedDirectories::default(),
        }
    }

    /// Whether a signal asked to stop.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Takes a step: stages 1 to 4. Fails if syncing is off, a signal was received, or another
    /// program has the slave open.
    pub fn step(&self) -> Result<Step<'_>, Error> {
        self.check_cancelled()?;
        self.step_despite_signal()
    }

    /// Takes a step even after a signal, to clean up before the process ends.
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

    /// Waits for the end of a step of another process, and blocks further steps until the lock
    /// that this returns is dropped.
    pub fn block_steps(&self) -> Result<Lock, Error> {
        lock::take_step(&self.paths)
    }

    /// Takes a step although syncing is off, to clean up after a pass. `step_lock` comes from
    /// [`block_steps`](Self::block_steps). Fails with [`Error::InUse`] if another program has the
    /// slave open; that program cleans up itself.
    pub fn step_while_off(&self, step_lock: Lock) -> Result<Step<'_>, Error> {
        Ok(Step {
            slave: self,
            _zodb_lock: lock::take_zodb(&self.paths)?,
            _step_lock: step_lock,
        })
    }

    /// Blocks steps for a small file that is written outside of passes. Fails if the slave's file
    /// system is not mounted, or if no pass was made for this path, so that nothing is created
    /// beside a name that was mistyped.
    pub(super) fn block_steps_of_synced(&self) -> Result<Lock, Error> {
        let paths = &self.paths;
        if Presence::of(paths) != Presence::Synced {
            let slave = paths.data().display();
            return Err(Error::Usage(format!("no pass was made for {slave} yet")));
        }
        paths.check_is_mounted()?;
        self.block_steps()
    }

    /// Fails if a switch is off or a signal was received.
    pub fn check_cancelled(&self) -> Result<(), Error> {
        self.check_interrupted()?;
        self.switches.check()
    }

    /// Fails if a signal was received.
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

    /// The current state of the slave; `None` if there is no file of that name.
    pub fn stat(&self) -> Result<Option<FileStat>, Error> {
        let found = stat_if_exists(self.paths.data())?;
        Ok(found.map(|found| FileStat::of(&found)))
    }
}

impl Step<'_> {
    /// Fails if the slave's state differs from `expected`: stage 5.
    pub fn check_unchanged(&self, expected: Option<FileStat>) -> Result<(), Error> {
        let found = self.slave.stat()?;
        if found == expected {
            return Ok(());
        }
        let describe = |stat: Option<FileStat>| match stat {
            Some(FileStat {
                inode,
                size,
                modified: (secs, nanos),
                ..
            }) => {
                format!("{size} bytes in inode {inode}, modified at {secs}.{nanos:09}")
            }
            None => "no file".to_owned(),
        };
        Err(self.slave.changed(format!(
            "expected {}, found {}",
            describe(expected),
            describe(found)
        )))
    }
}

/// `Data.fs`, open for writing in steps. It keeps the state of the file after our last write, so
/// that each step can check that nobody else has written it since.
#[derive(Debug)]
pub struct DataFile<'a> {
    slave: &'a Slave,
    file: File,
    /// The state of the file after our last write.
    stat: FileStat,
    /// Number of hard links at that moment.
    links: u64,
}

impl<'a> DataFile<'a> {
    /// Opens the slave, which must be in the state of `stat`.
    pub fn open(slave: &'a Slave, stat: FileStat) -> Result<Self, Error> {
        let path = slave.paths.data();
        let file = match paths::open(path, OpenMode::ReadWrite) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(slave.changed("the file was removed".to_owned()));
            }
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        let mut data = Self {
            slave,
            file,
            stat,
            links: 1,
        };
        // The name may lead to another file by now, so check the file that was opened.
        data.refresh_stat()?;
        if data.stat != stat {
            return Err(slave.changed("the file was written or replaced".to_owned()));
        }
        Ok(data)
    }

    /// The open file, for reading and syncing.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The state of the file after our last write.
    #[must_use]
    pub fn stat(&self) -> FileStat {
        self.stat
    }

    /// Number of names (hard links) that the file had then.
    #[must_use]
    pub fn links(&self) -> u64 {
        self.links
    }

    /// The slave's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.slave.paths.data()
    }

    /// Takes a step. Fails if the slave has changed since our last write, or does not have `bytes`
    /// at `offset`. The bytes are compared because a ZODB may truncate our batch and append one
    /// of the same size within the resolution of the file's time.
    pub fn step(&self, offset: u64, bytes: &[u8]) -> Result<Step<'a>, Error> {
        let step = self.slave.step()?;
        step.check_unchanged(Some(self.stat))?;
        let mut found = vec![0; bytes.len()];
        let read = self.file.read_exact_at(&mut found, offset);
        read.map_err(self.fail("read", offset))?;
        if found != bytes {
            return Err(step.slave.changed(format!(
                "bytes at {offset} were modified by another program"
            )));
        }
        Ok(step)
    }

    /// Fills a buffer from the file. Needs no step.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), Error> {
        match self.file.read_exact_at(buffer, offset) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(self
                .slave
                .changed("it was truncated while it was read".to_owned())),
            read => read.map_err(self.fail("read", offset)),
        }
    }

    /// Writes bytes at an offset, in a step. Not durable before [`sync`](Self::sync).
    pub fn write(&mut self, _: &Step<'_>, bytes: &[u8], offset: u64) -> Result<(), Error> {
        let written = self.file.write_all_at(bytes, offset);
        written.map_err(self.fail("write", offset))?;
        self.refresh_stat()
    }

    /// Truncates the file to `size` bytes, in a step.
    pub fn truncate(&mut self, _: &Step<'_>, size: u64) -> Result<(), Error> {
        self.file
            .set_len(size)
            .map_err(self.fail("truncate", size))?;
        self.refresh_stat()
    }

    /// Reads the state of the file in the same step as the write, before anybody else can write.
    fn refresh_stat(&mut self) -> Result<(), Error> {
        let found = self.file.metadata();
        let found = found.map_err(Error::io("stat", self.path()))?;
        self.stat = FileStat::of(&found);
        self.links = found.nlink();
        Ok(())
    }

    /// Makes the writes so far durable. Needs no step.
    pub fn sync(&self) -> Result<(), Error> {
        self.file
            .sync_data()
            .map_err(Error::io("sync", self.path()))
    }

    fn fail(&self, action: &str, offset: u64) -> impl FnOnce(io::Error) -> Error + use<> {
        Error::io(format!("{action} at {offset} in"), self.path())
    }
}
