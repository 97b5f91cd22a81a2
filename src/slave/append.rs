//! Appends transactions to the slave in batches. A batch becomes visible as a whole.
//!
//! # Order of writes
//!
//! A batch is written in three phases. Each phase ends with a sync, and the next one starts only
//! when that sync has succeeded.
//!
//! 1. *Begin:* write the header of the first transaction (23 bytes) with status `c` (voted); sync.
//! 2. *Write:* write all following bytes in ascending order; sync.
//! 3. *Commit:* overwrite the `c` with the true status; sync.
//!
//! # State after a crash
//!
//! A killed process and a power cut leave the same states. A process that is killed between the
//! last write and its sync leaves a committed batch that a later power cut can still undo; the next
//! pass syncs the slave before it reports that it is in sync. P is the slave's position, where the
//! batch begins.
//!
//! | crash | the slave after P | ZODB and the next pass |
//! | --- | --- | --- |
//! | before or in phase 1 | nothing, a part of the header, or the header with `c` | truncate at P |
//! | in phase 2 | the header with `c`, then any part of the rest: written in any order, or zeros up to an extended size | truncate at P |
//! | in phase 3, `c` on disk | the complete batch with `c` | truncate at P |
//! | in phase 3, true status on disk | the complete batch, durable | accept it |
//!
//! In every case ZODB sees a whole number of the master's transactions (Law 1). Two facts make
//! that so:
//!
//! - The `c` is durable before any byte after it is written. If the header was written together
//!   with its data, a power cut could leave a true status, a plausible length, and zeros in
//!   between: ZODB panics on that.
//! - The commit changes one byte, and a write of one byte is never torn. Everything else is
//!   durable by then.
//!
//! # Truncating a tail
//!
//! An unfinished tail is truncated in two stages: first to 22 bytes, one less than a header; sync;
//! then to nothing. Some file systems zero the truncated bytes before the new size is durable.
//!
//! 1. *Crash in the first truncation:* the first 22 bytes of the header are unchanged, with tid,
//!    length and status. Whatever remains after them, ZODB truncates the tail as before.
//! 2. *Crash in the second truncation:* less than a header is left. ZODB truncates that, whatever
//!    its bytes are.
//!
//! If the whole tail was truncated at once, or a new `c` written over the start of an old tail, a
//! power cut could leave a header of zeros, or a mixture of two headers, with plausible
//! transactions after it. ZODB panics on that.
//!
//! # What is never lost (Law 2)
//!
//! 1. Committed transactions are not truncated: truncation starts at the slave's position, which
//!    a forward scan found.
//! 2. A tail that is not ours is first saved as `Data.fs.trN`, as ZODB does, and made durable.
//! 3. An index that could become wrong is removed before a batch begins
//!    ([`remove_stale`]): one of a position beyond the slave's, after somebody truncated the
//!    slave, or one that fssync did not store.
//!
//! # Failures
//!
//! 1. *The pass fails before the commit:* [`Append::roll_back`] truncates the batch at once. ZODB
//!    saves an unfinished tail when it opens the file, and fails if the disk is full. A new handle is used, because
//!    a handle is finished after a failed write or sync.
//! 2. *The sync of the commit fails:* the page cache shows the true status, but it may never
//!    reach the disk, and a later sync would not report that. The `c` is written back durably,
//!    then the batch is truncated as in 1.
//! 3. *The pass is killed:* the sidecar contains the header of the batch. It is stored before the
//!    first byte is written, so the next pass and `fssync off` recognise the tail as ours, even
//!    if the master is unreachable.
//! 4. *Power cut:* the sidecar is not synced and may be older. Then the tail is saved as
//!    `Data.fs.trN` like one that is not ours.

use std::fs::{self, File};
use std::io;

use super::index::coverage::remove_stale;
use super::ledger::{LedgerEntry, SegmentHasher};
use super::paths::OpenMode;
use super::sidecar::{Batch, Sidecar};
use super::small_file::open_if_exists;
use super::step::{DataFile, Slave, Step};
use super::tail::{STUB_LEN, mark_again, save_tail, truncate_tail};
use crate::error::Error;
use crate::filestorage::TxnStatus;
use crate::filestorage::backward::{Backward, Preceding};
use crate::filestorage::record::{STATUS_OFFSET, TXN_HEADER_LEN};
use crate::human::count;
use crate::io::file_stat::FileStat;
use crate::io::flush::Flusher;
use crate::io::read::read_fully;
use crate::plan::SlaveTail;

/// An append to the slave.
#[derive(Debug)]
pub struct Append<'a> {
    slave: &'a Slave,
    data: DataFile<'a>,
    /// The end of the last committed batch.
    position: u64,
    /// The bytes after the position before the first batch: they are truncated.
    tail: SlaveTail,
    batch: Option<OpenBatch>,
    /// Whether a batch was begun.
    has_written: bool,
    /// Computes the digests of the appended bytes.
    segment_hasher: SegmentHasher,
    flusher: Flusher,
}

/// A batch that was begun and is not committed.
#[derive(Debug)]
struct OpenBatch {
    begun: Batch,
    /// The true status of its first transaction.
    status: TxnStatus,
    /// Whether the true status was written. It may not be durable.
    is_visible: bool,
}

impl<'a> Append<'a> {
    /// Opens the slave, which must be in the state of `stat`, to append at its position. `tail`
    /// describes the bytes after the position.
    pub fn open(
        slave: &'a Slave,
        stat: FileStat,
        position: u64,
        tail: SlaveTail,
    ) -> Result<Self, Error> {
        Ok(Self {
            slave,
            data: DataFile::open(slave, stat)?,
            position,
            tail,
            batch: None,
            has_written: false,
            segment_hasher: SegmentHasher::new(position),
            flusher: Flusher::default(),
        })
    }

    /// The end of the last committed batch, in bytes.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// A warning if the slave was written and has other names. A snapshot that is a hard link
    /// to the slave has changed with it.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let others = self.data.links().saturating_sub(1);
        if !self.has_written || others == 0 {
            return None;
        }
        Some(format!(
            "{} was written in place, and has {} (hard links), which show the same bytes: a \
             snapshot must be a copy (cp --reflink=auto), not a link",
            self.data.path().display(),
            count(others, "other name")
        ))
    }

    /// The slave, for reading.
    #[must_use]
    pub fn file(&self) -> &File {
        self.data.file()
    }

    /// The length of the open batch, in bytes; 0 if there is none.
    #[must_use]
    pub fn batch_len(&self) -> u64 {
        match self.batch {
            Some(_) => self.data.stat().size - self.position,
            None => 0,
        }
    }

    /// Appends the next bytes. If no batch is open, they must start with a complete transaction
    /// header, and begin a batch.
    pub fn write(&mut self, bytes: &[u8], sidecar: &mut Sidecar) -> Result<(), Error> {
        let mut rest = bytes;
        if self.batch.is_none()
            && let Some((header, after)) = bytes.split_first_chunk::<TXN_HEADER_LEN>()
        {
            self.begin(*header, sidecar)?;
            rest = after;
        }
        let Some(batch) = &self.batch else {
            return Ok(());
        };
        // The step fails if the slave no longer contains our header: then ZODB has opened it and
        // truncated the batch.
        let (from, header) = (batch.begun.from, batch.begun.header());
        let step = self.data.step(from, &header)?;
        self.data.write(&step, rest, self.data.stat().size)?;
        drop(step);
        // The hash and the sync need no step: they take long and write nothing.
        self.segment_hasher.take(rest);
        self.flusher
            .written(self.data.file(), rest.len() as u64)
            .map_err(Error::io("sync", self.data.path()))
    }

    /// Phase 1 of a batch, after the tail was truncated.
    fn begin(&mut self, header: [u8; TXN_HEADER_LEN], sidecar: &mut Sidecar) -> Result<(), Error> {
        remove_stale(self.slave, sidecar.index.as_ref(), self.position)?;
        if let (SlaveTail::Ours(_), Some(batch)) = (self.tail, &sidecar.batch)
            && batch.is_rewind()
        {
            // Before the sidecar describes another batch: it shows that this must be done.
            let position = self.position;
            let step = self.data.step(position, &[])?;
            let take_step = |data: &DataFile<'a>| data.step(position, &[]);
            drop(mark_again(&mut self.data, step, position, take_step)?);
        }
        // A tail that is not ours may be somebody's data. Save it before anything changes.
        let saved = match self.tail {
            SlaveTail::Foreign(_) => save_tail(self.slave, &self.data, self.position)?,
            SlaveTail::Ours(_) | SlaveTail::None => None,
        };
        let begun = Batch::new(self.position, header);
        let mut step = match self.announce(&begun, sidecar) {
            Ok(step) => step,
            Err(error) => {
                // The tail was not truncated. A saved copy at each attempt would fill the disk.
                if let Some(Err(error)) = saved.map(fs::remove_file) {
                    tracing::warn!("cannot remove an unneeded copy of the slave's tail: {error}");
                }
                return Err(error);
            }
        };
        if self.tail != SlaveTail::None {
            let position = self.position;
            step = truncate_tail(&mut self.data, step, position, |data| {
                data.step(position, &[])
            })?;
            self.tail = SlaveTail::None;
        }
        self.has_written = true;
        let status = TxnStatus(header[STATUS_OFFSET as usize]);
        // From here on a failure must be rolled back, even if nothing was written yet.
        let batch = self.batch.insert(OpenBatch {
            begun,
            status,
            is_visible: false,
        });
        // In the same step as the end of the truncation: no ZODB can append in between.
        self.data
            .write(&step, &batch.begun.header(), self.position)?;
        drop(step);
        self.segment_hasher.take(&header);
        self.data.sync()
    }

    /// Stores the header of the batch in the sidecar, then takes the step in which it is
    /// written.
    fn announce(&self, begun: &Batch, sidecar: &mut Sidecar) -> Result<Step<'a>, Error> {
        sidecar.batch = Some(begun.clone());
        sidecar.store(&self.slave.paths)?;
        self.data.step(self.position, &[])
    }

    /// Truncates the open batch at `end`, which is a transaction boundary. Returns whether any
    /// of the batch remains.
    pub fn truncate_batch(&mut self, end: u64) -> Result<bool, Error> {
        let Some(batch) = &self.batch else {
            return Ok(false);
        };
        let (from, header) = (batch.begun.from, batch.begun.header());
        if self.data.stat().size > end {
            let step = self.data.step(from, &header)?;
            if end == self.position {
                // Nothing remains, so the header goes too, in two steps.
                let stub = &header[..STUB_LEN as usize];
                drop(truncate_tail(&mut self.data, step, end, |data| {
                    data.step(from, stub)
                })?);
                self.batch = None;
            } else {
                // The header keeps its `c`, and covers whatever a crash leaves after it.
                self.data.truncate(&step, end)?;
            }
        }
        Ok(self.batch.is_some())
    }

    /// Starts to sync the open batch; [`sync`](Self::sync) waits for the end.
    pub fn start_sync(&mut self) {
        self.flusher.start_to_finish();
    }

    /// Makes the open batch durable: the end of phase 2.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.flusher
            .finish(self.data.file())
            .map_err(Error::io("sync", self.data.path()))
    }

    /// Phase 3 of a batch, which must be [durable](Self::sync).
    pub fn commit(&mut self) -> Result<(), Error> {
        let Some(batch) = &mut self.batch else {
            return Ok(());
        };
        let from = batch.begun.from;
        let step = self.data.step(from, &batch.begun.header())?;
        // Set before the write: even a write that fails may have changed the byte.
        batch.is_visible = true;
        self.data
            .write(&step, &[batch.status.0], from + STATUS_OFFSET)?;
        drop(step);
        self.data.sync()?;
        self.batch = None;
        self.position = self.data.stat().size;
        Ok(())
    }

    /// The digests of the batches that were committed since the last call.
    pub fn take_digests(&mut self) -> Result<Vec<LedgerEntry>, Error> {
        self.segment_hasher
            .end_at(self.data.file(), self.position)
            .map_err(Error::io("read back", self.data.path()))
    }

    /// Truncates the open batch after a failure. Logs a warning if that fails too.
    pub fn roll_back(self) {
        let Some(batch) = self.batch else {
            return;
        };
        let take_step = || self.slave.step_despite_signal();
        let truncated = take_step().and_then(|step| {
            let step = if batch.is_visible {
                mark_unfinished(self.slave, step, self.data.stat(), batch.begun.from)?
            } else {
                step
            };
            truncate_batch(self.slave, step, &batch.begun, take_step)
        });
        match truncated {
            // `fssync off`, or the program that has opened the slave, truncates the batch.
            Ok(_) | Err(Error::Off(_) | Error::InUse { .. }) => {}
            Err(error) => tracing::warn!(
                "{}: an unfinished transaction remains at {}; ZODB or the next pass truncates \
                 it: {}",
                self.data.path().display(),
                batch.begun.from,
                error.display_chain()
            ),
        }
    }
}

/// Writes the `c` back, durably, to a batch whose commit could not be synced: case 2 of the
/// failures above. Returns another step, for the truncation.
fn mark_unfinished<'a>(
    slave: &'a Slave,
    step: Step<'a>,
    stat: FileStat,
    from: u64,
) -> Result<Step<'a>, Error> {
    step.check_unchanged(Some(stat))?;
    let mut data = DataFile::open(slave, stat)?;
    data.write(&step, &[TxnStatus::VOTED.0], from + STATUS_OFFSET)?;
    drop(step);
    // A header with its true status must not be truncated: a crash could leave zeros after it.
    data.sync()?;
    slave.step_despite_signal()
}

/// Truncates the remains of an unfinished batch, if the slave ends with them, through a new
/// handle. Uses `step` and one more. Returns the number of bytes that were truncated.
pub fn truncate_batch<'a>(
    slave: &'a Slave,
    step: Step<'a>,
    batch: &Batch,
    take_step: impl Fn() -> Result<Step<'a>, Error>,
) -> Result<u64, Error> {
    let Some(stat) = slave.stat()? else {
        return Ok(0);
    };
    let mut data = DataFile::open(slave, stat)?;
    let is_there = ends_with(data.file(), stat.size, batch);
    if !is_there.map_err(Error::io("read", data.path()))? {
        return Ok(0);
    }
    let take_step = |data: &DataFile<'a>| {
        let step = take_step()?;
        step.check_unchanged(Some(data.stat()))?;
        Ok(step)
    };
    let step = if batch.is_rewind() {
        mark_again(&mut data, step, batch.from, take_step)?
    } else {
        step
    };
    let step = truncate_tail(&mut data, step, batch.from, take_step)?;
    drop(step);
    data.sync()?;
    Ok(stat.size - batch.from)
}

/// Whether the slave ends with the remains of an unfinished batch.
pub fn has_unfinished(slave: &Slave, batch: &Batch) -> Result<bool, Error> {
    let path = slave.paths.data();
    let Some(file) = open_if_exists(path, OpenMode::Read)? else {
        return Ok(false);
    };
    file.metadata()
        .and_then(|found| ends_with(&file, found.len(), batch))
        .map_err(Error::io("read", path))
}

/// Whether a file of `size` bytes ends with the remains of a batch: the start of its header,
/// after a complete transaction.
fn ends_with(file: &File, size: u64, batch: &Batch) -> io::Result<bool> {
    let len = size.saturating_sub(batch.from);
    let mut found = vec![0; len.min(TXN_HEADER_LEN as u64) as usize];
    read_fully(file, &mut found, batch.from)?;
    Ok(batch.has_written(batch.from, &found)
        && match Backward::new(file, batch.from).step()? {
            Preceding::Transaction(_) | Preceding::Start => true,
            Preceding::Incoherent => false,
        })
}
