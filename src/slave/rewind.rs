//! Truncates the slave at a fork point, once the transactions after it are set aside.
//!
//! After a failover, the slave is the old master. It shares a prefix with the new one, up to the
//! fork point F, and then has transactions of its own. They are set aside, and the slave is
//! truncated at F in place. The next append adds the master's transactions. No second copy of the
//! slave is made.
//!
//! # Order of writes
//!
//! Each phase starts only when the one before has succeeded.
//!
//! 1. *Set aside:* write the own transactions to a file of their own, durably
//!    ([`set_aside`](super::set_aside)). The caller has done the same with their blobs. Save a tail
//!    that is not ours as `Data.fs.trN`.
//! 2. *Prepare:* in a step, remove the index. Remove the ledger. Store the sidecar, durably: it
//!    describes the slave up to F, and announces the header of the first own transaction with
//!    status `c`. Sync the directory, which makes all names of 1 and 2 durable.
//! 3. *Mark:* in a step, write `c` over the status of the first own transaction; sync.
//! 4. *Truncate* in two stages, as [`append`](super::append) does: in a step, to 22 bytes of the
//!    header; sync; in a step, to nothing; sync.
//! 5. *Record:* store the sidecar without the announcement.
//!
//! # State after a crash
//!
//! A killed process and a power cut leave the same states, except that after a kill the writes of
//! the current phase are visible and perhaps not durable.
//!
//! | crash | the slave | ZODB sees | the next pass |
//! | --- | --- | --- | --- |
//! | in phase 1 or 2 | unchanged; perhaps without an index or a ledger | its own history | refuses, or rewinds with `--full`; it finds the same set-aside |
//! | in phase 3, true status on disk | unchanged | its own history | the same |
//! | in phase 3, `c` on disk | the own transactions are an unfinished tail | the prefix up to F | truncates at F and appends |
//! | in phase 4, first stage | 22 bytes of the header, or the tail with any part of it zeroed after these 22 bytes | the prefix up to F | the same |
//! | in phase 4, second stage | less than a header, or nothing | the prefix up to F | the same |
//! | in phase 5 | ends at F | the prefix up to F | appends |
//!
//! # Why ZODB sees its own history or the prefix, and nothing else (Law 1)
//!
//! 1. Phase 3 changes one byte, which is never torn. ZODB truncates at a transaction with status
//!    `c`, whatever follows it.
//! 2. The `c` is durable before the truncation. Without it, a power cut between the truncation and
//!    the new size could leave a header with its true status, and zeros after it: ZODB panics.
//! 3. A pass that was killed in phase 3 has not synced the `c`. The announcement in the sidecar is
//!    durable by then, so the next pass, or `fssync off`, writes and syncs the `c` again before it
//!    truncates (`tail`).
//! 4. The sidecar never describes more than the slave contains: before phase 3, it describes the
//!    slave up to F only. If it still described a later position, a survey would start there, and
//!    not find the `c`.
//! 5. An index of a position after F would make ZODB start there, too. It is durably removed before
//!    phase 3. A ZODB that has opened the slave since may have saved another one: then phase 3
//!    fails, and the survey starts again. ZODB releases its lock before it saves its index, so an
//!    index may also appear just after phase 3: it is removed in the step of the truncation.
//!
//! # Why no transaction is lost (Law 2)
//!
//! The own transactions have durable copies under a durable name before phase 3. The transactions
//! before F stay. The caller has proven that they are the master's.
//!
//! # Failures
//!
//! 1. *Before phase 3:* the slave is unchanged. The files that this pass has created are removed,
//!    because the slave still has the same bytes.
//! 2. *In or after phase 3:* the pass only goes forward. If it fails, the slave ends at F for ZODB and
//!    for the next pass, which finishes the truncation.

use std::fs;
use std::path::PathBuf;

use super::paths::Sibling;
use super::protection;
use super::set_aside::{self, SetAside};
use super::sidecar::{Batch, Sidecar};
use super::small_file::{remove_if_exists, stat_if_exists};
use super::space;
use super::step::{DataFile, Slave};
use super::tail::{STUB_LEN, save_tail, truncate_tail};
use crate::error::Error;
use crate::filestorage::TxnStatus;
use crate::filestorage::record::{STATUS_OFFSET, TXN_HEADER_LEN};
use crate::io::file_stat::FileStat;
use crate::plan::{RewindPlan, SlaveTail};

/// A rewind of the slave.
#[derive(Debug)]
pub struct Rewind<'a> {
    slave: &'a Slave,
    data: DataFile<'a>,
    /// The state of the slave before the rewind.
    before: FileStat,
    plan: RewindPlan,
    /// The header of the first own transaction.
    header: [u8; TXN_HEADER_LEN],
    /// The files that this pass has created in phase 1.
    created: Vec<PathBuf>,
    /// Whether the status in the header may have been overwritten.
    is_marked: bool,
}

impl<'a> Rewind<'a> {
    /// Opens the slave, which must be in the state of `stat`. Fails if the disk has no room for the
    /// transactions that are set aside.
    pub fn open(slave: &'a Slave, stat: FileStat, plan: RewindPlan) -> Result<Self, Error> {
        // A step can fail because syncing is off or ZODB has the slave. Find out before anything is
        // written.
        drop(slave.step()?);
        protection::check_directory(&slave.paths)?;
        space::check_set_aside(&slave.paths, plan.fork.set_aside_len)?;
        let data = DataFile::open(slave, stat)?;
        let mut header = [0; TXN_HEADER_LEN];
        data.read(&mut header, plan.fork.position)?;
        Ok(Self {
            slave,
            data,
            before: stat,
            plan,
            header,
            created: Vec::new(),
            is_marked: false,
        })
    }

    /// The slave, for reading.
    #[must_use]
    pub fn file(&self) -> &fs::File {
        self.data.file()
    }

    /// Phase 1: sets the own transactions aside, and saves a tail that is not ours. Returns the file
    /// with these transactions.
    pub fn set_aside(&mut self) -> Result<PathBuf, Error> {
        let set_aside = self.write_copies();
        self.discard_if_failed(set_aside)
    }

    fn write_copies(&mut self) -> Result<PathBuf, Error> {
        let (slave, data) = (self.slave, &self.data);
        let SetAside { path, is_new } =
            set_aside::set_aside(slave, data.file(), self.before, &self.plan)?;
        self.created.extend(is_new.then(|| path.clone()));
        if let SlaveTail::Foreign(_) = self.plan.tail {
            self.created
                .extend(save_tail(slave, data, self.plan.position)?);
        }
        Ok(path)
    }

    /// Phases 2 to 5. The sidecar must describe the slave up to the fork point.
    pub fn truncate(&mut self, sidecar: &mut Sidecar) -> Result<(), Error> {
        let truncated = self.prepare(sidecar).and_then(|()| self.mark_and_cut());
        self.discard_if_failed(truncated)?;
        sidecar.batch = None;
        sidecar.store(&self.slave.paths)
    }

    /// Phase 2.
    fn prepare(&self, sidecar: &mut Sidecar) -> Result<(), Error> {
        let paths = &self.slave.paths;
        let fork = self.plan.fork.position;
        let step = self.data.step(fork, &self.header)?;
        remove_if_exists(&paths.sibling(Sibling::ZodbIndex))?;
        drop(step);
        // Its digests of bytes after the fork point would be wrong.
        remove_if_exists(&paths.sibling(Sibling::Ledger))?;
        sidecar.index = None;
        sidecar.batch = Some(Batch::of_rewind(fork, self.header));
        sidecar.store_durably(paths)
    }

    /// Phases 3 and 4.
    fn mark_and_cut(&mut self) -> Result<(), Error> {
        let index = self.slave.paths.sibling(Sibling::ZodbIndex);
        let fork = self.plan.fork.position;
        let step = self.data.step(fork, &self.header)?;
        if stat_if_exists(&index)?.is_some_and(|found| !found.is_dir()) {
            return Err(Error::SlaveChanged {
                slave: self.slave.paths.data().to_owned(),
                what: "another program has saved its index".to_owned(),
            });
        }
        // Set before the write: even a write that fails may have changed the byte.
        self.is_marked = true;
        self.data
            .write(&step, &[TxnStatus::VOTED.0], fork + STATUS_OFFSET)?;
        drop(step);
        self.data.sync()?;
        let marked = Batch::of_rewind(fork, self.header).header();
        let step = self.data.step(fork, &marked)?;
        remove_if_exists(&index)?;
        let stub = &marked[..STUB_LEN as usize];
        drop(truncate_tail(&mut self.data, step, fork, |data| {
            data.step(fork, stub)
        })?);
        self.data.sync()
    }

    /// After a failure, removes the files that this pass has created, if the slave still has all its
    /// bytes. If that fails, it is only logged: the next pass finds the files and uses them.
    fn discard_if_failed<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        if result.is_ok() || self.is_marked {
            return result;
        }
        let discarded = self.slave.stat().and_then(|found| {
            let is_intact = found.is_some_and(|found| found.is_same_file(&self.before));
            let mut created = self.created.drain(..).filter(|_| is_intact);
            created.try_for_each(|path| remove_if_exists(&path).map(drop))
        });
        if let Err(error) = discarded {
            tracing::warn!(
                "cannot remove unneeded copies of the slave's own transactions: {}",
                error.display_chain()
            );
        }
        result
    }
}
