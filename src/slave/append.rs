//! Appending: batches of transactions, each visible at once.
//!
//! A batch is written in this order:
//!
//! 1. the header of its first transaction, with status `c` (voted); sync;
//! 2. the rest, ascending; sync;
//! 3. the true status over the `c`; sync.
//!
//! What a crash leaves, killed process and power cut alike:
//!
//! - *in or before 1*: nothing, or a part of the header, or the header with its
//!   `c`. ZODB cuts each of them on opening; so does the next pass.
//! - *in 2*: the `c` is durable before any byte behind it is written. Whatever
//!   of the rest came to the disk, in whatever order, or a size extended over
//!   zeros, lies behind a `c` and is cut with it. (Were the mark written along
//!   with its data, a power cut could leave a true status, a plausible length,
//!   and zeros between, on which ZODB panics.)
//! - *in 3*: all is durable but one byte, and a byte is not torn: it is `c`,
//!   and the batch is cut, or the true status, and the batch is there.
//!
//! Either way ZODB sees a whole number of the master's transactions (Law 1).
//!
//! A tail is cut in two steps: to less than a header; sync; to nothing. A file system may
//! zero what is cut before it makes the new size durable. Were a whole tail cut at once, or
//! a `c` written over the start of another before, a power cut could leave a
//! header of zeros, or one that is half of each, with plausible transactions behind it,
//! which makes ZODB panic. As it is, the header is as it was, up to its last byte, until
//! less than a header is left, which ZODB cuts whatever it is.
//!
//! Nothing committed is ever cut: trimming starts at the slave's position,
//! found by walking forwards, and bytes that are not ours are first kept as
//! `Data.fs.trN`, as ZODB does (Law 2). An index of a position beyond the slave's,
//! as it may lie beside one that was cut by hand, is removed before a batch begins:
//! ZODB would believe it once the slave has grown past it. So is one that no pass has
//! stored.
//!
//! A batch whose last sync fails gets its `c` back, and is cut: what the page cache shows
//! of it would never come to the disk.
//!
//! What is behind a `c` is cut back at once when a pass fails, through a fresh
//! handle, since ZODB needs free disk to open a file with an unfinished tail.
//! The sidecar says before a batch begins what its header will be: so a tail is
//! known as ours after a kill, when the master may be out of reach. After a
//! power cut it may not say so; then our own tail is kept as a `.trN`.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::index::coverage::remove_stale;
use super::ledger::{LedgerEntry, SegmentHasher};
use super::owner::Owner;
use super::paths::{self, OpenMode};
use super::sidecar::{Batch, Sidecar};
use super::step::{DataFile, Slave, Step};
use crate::error::Error;
use crate::filestorage::TxnStatus;
use crate::filestorage::backward::{Backward, Preceding};
use crate::filestorage::record::{STATUS_OFFSET, TXN_HEADER_LEN};
use crate::human::bytes;
use crate::human::count;
use crate::io::file_stat::FileStat;
use crate::io::flush::Flusher;
use crate::io::read::read_fully;
use crate::plan::SlaveTail;

/// What a tail is cut to first, in bytes: less than a header.
const STUB_LEN: u64 = TXN_HEADER_LEN as u64 - 1;

/// How much of a tail that is kept is copied at once, in bytes.
const COPY_LEN: usize = 64 * 1024;

/// An append to the slave.
#[derive(Debug)]
pub struct Append<'a> {
    slave: &'a Slave,
    data: DataFile<'a>,
    /// Just past the last finished batch.
    position: u64,
    trim: SlaveTail,
    batch: Option<OpenBatch>,
    /// Whether a batch was begun.
    has_written: bool,
    /// The digests of what was appended.
    segment_hasher: SegmentHasher,
    flusher: Flusher,
}

/// A batch that is not finished.
#[derive(Debug)]
struct OpenBatch {
    begun: Batch,
    status: TxnStatus,
    /// Whether it has its true status, which may not be durable.
    is_visible: bool,
}

impl<'a> Append<'a> {
    /// Opens the slave, as it was seen, to append at its position, behind which
    /// lies `trim`.
    pub fn open(
        slave: &'a Slave,
        seen: FileStat,
        position: u64,
        trim: SlaveTail,
    ) -> Result<Self, Error> {
        Ok(Self {
            slave,
            data: DataFile::open(slave, seen)?,
            position,
            trim,
            batch: None,
            has_written: false,
            segment_hasher: SegmentHasher::new(position),
            flusher: Flusher::default(),
        })
    }

    /// Just past the last finished batch, in bytes.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// A warning, if the slave was written, and has other names: a snapshot that is a hard
    /// link of it has changed with it.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let others = self.data.links().saturating_sub(1);
        if !self.has_written || others == 0 {
            return None;
        }
        Some(format!(
            "{} was written in paths, and has {} (hard links), which show the same bytes: a \
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

    /// The length of the unfinished batch, in bytes.
    #[must_use]
    pub fn batch_len(&self) -> u64 {
        match self.batch {
            Some(_) => self.data.stat().size - self.position,
            None => 0,
        }
    }

    /// Appends the next bytes; those that start a batch start with a whole
    /// transaction header.
    pub fn write(&mut self, bytes: &[u8], sidecar: &mut Sidecar) -> Result<(), Error> {
        let mut rest = bytes;
        if self.batch.is_none()
            && let Some((header, behind)) = bytes.split_first_chunk::<TXN_HEADER_LEN>()
        {
            self.begin(*header, sidecar)?;
            rest = behind;
        }
        let Some(batch) = &self.batch else {
            return Ok(());
        };
        let (from, header) = (batch.begun.from, batch.begun.header());
        let step = self.data.step(from, &header)?;
        self.data.write(&step, rest, self.data.stat().size)?;
        drop(step);
        self.segment_hasher.take(rest);
        self.flusher
            .written(self.data.file(), rest.len() as u64)
            .map_err(Error::io("sync", self.data.path()))
    }

    /// Step 1 of a batch; cuts first what lies behind the position.
    fn begin(&mut self, header: [u8; TXN_HEADER_LEN], sidecar: &mut Sidecar) -> Result<(), Error> {
        remove_stale(self.slave, sidecar.index.as_ref(), self.position)?;
        let kept = match self.trim {
            SlaveTail::Foreign(_) => save_tail(self.slave, &self.data, self.position)?,
            SlaveTail::Ours(_) | SlaveTail::None => None,
        };
        let begun = Batch::new(self.position, header);
        let mut step = match self.announce(&begun, sidecar) {
            Ok(step) => step,
            Err(error) => {
                // It is still where it was: a copy at every try would fill the disk.
                if let Some(Err(error)) = kept.map(fs::remove_file) {
                    tracing::warn!("a copy of the slave's tail stays: {error}");
                }
                return Err(error);
            }
        };
        if self.trim != SlaveTail::None {
            let position = self.position;
            step = truncate_tail(&mut self.data, step, position, |data| {
                data.step(position, &[])
            })?;
            self.trim = SlaveTail::None;
        }
        self.has_written = true;
        let status = TxnStatus(header[STATUS_OFFSET as usize]);
        let batch = self.batch.insert(OpenBatch {
            begun,
            status,
            is_visible: false,
        });
        self.data
            .write(&step, &batch.begun.header(), self.position)?;
        drop(step);
        self.segment_hasher.take(&header);
        self.data.sync()
    }

    /// Says in the sidecar what is about to be written, and takes the step for
    /// it.
    fn announce(&self, begun: &Batch, sidecar: &mut Sidecar) -> Result<Step<'a>, Error> {
        sidecar.batch = Some(begun.clone());
        sidecar.store(&self.slave.paths)?;
        self.data.step(self.position, &[])
    }

    /// Forgets what was written of the unfinished batch from `end` on. Returns
    /// whether anything is left of it.
    pub fn truncate_batch(&mut self, end: u64) -> Result<bool, Error> {
        let Some(batch) = &self.batch else {
            return Ok(false);
        };
        let (from, header) = (batch.begun.from, batch.begun.header());
        if self.data.stat().size > end {
            let step = self.data.step(from, &header)?;
            if end == self.position {
                let stub = &header[..STUB_LEN as usize];
                drop(truncate_tail(&mut self.data, step, end, |data| {
                    data.step(from, stub)
                })?);
                self.batch = None;
            } else {
                self.data.truncate(&step, end)?;
            }
        }
        Ok(self.batch.is_some())
    }

    /// Starts to make durable what was written of the unfinished batch;
    /// [`sync`](Self::sync) waits for it.
    pub fn start_sync(&mut self) {
        self.flusher.start_to_finish();
    }

    /// Makes durable what was written of the unfinished batch (the end of 2).
    pub fn sync(&mut self) -> Result<(), Error> {
        self.flusher
            .finish(self.data.file())
            .map_err(Error::io("sync", self.data.path()))
    }

    /// Step 3 of a batch, which must be [settled](Self::sync).
    pub fn commit(&mut self) -> Result<(), Error> {
        let Some(batch) = &mut self.batch else {
            return Ok(());
        };
        let from = batch.begun.from;
        let step = self.data.step(from, &batch.begun.header())?;
        batch.is_visible = true;
        self.data
            .write(&step, &[batch.status.0], from + STATUS_OFFSET)?;
        drop(step);
        self.data.sync()?;
        self.batch = None;
        self.position = self.data.stat().size;
        Ok(())
    }

    /// The digests of the batches that were finished since the last call.
    pub fn take_digests(&mut self) -> Result<Vec<LedgerEntry>, Error> {
        self.segment_hasher
            .end_at(self.data.file(), self.position)
            .map_err(Error::io("read back", self.data.path()))
    }

    /// Cuts what an append that failed has left behind its last finished batch.
    pub fn roll_back(self) {
        let Some(batch) = self.batch else {
            return;
        };
        let take_step = || self.slave.step_despite_signal();
        let cut = take_step().and_then(|step| {
            let step = if batch.is_visible {
                mark_unfinished(self.slave, step, self.data.stat(), batch.begun.from)?
            } else {
                step
            };
            truncate_batch(self.slave, step, &batch.begun, take_step)
        });
        match cut {
            // Whoever switched off or opened the slave cuts it.
            Ok(_) | Err(Error::Off(_) | Error::InUse { .. }) => {}
            Err(error) => tracing::warn!(
                "an unfinished tail stays in {} from {} on, where ZODB and the next pass cut it: \
                 {}",
                self.data.path().display(),
                batch.begun.from,
                error.display_chain()
            ),
        }
    }
}

/// Marks a batch as unfinished again whose last sync has failed, durably. Its true status may
/// never come to the disk, and no later sync would tell: the page counts as written. Takes
/// another step for what follows.
fn mark_unfinished<'a>(
    slave: &'a Slave,
    step: Step<'a>,
    seen: FileStat,
    from: u64,
) -> Result<Step<'a>, Error> {
    step.check_unchanged(Some(seen))?;
    let mut data = DataFile::open(slave, seen)?;
    data.write(&step, &[TxnStatus::VOTED.0], from + STATUS_OFFSET)?;
    drop(step);
    data.sync()?;
    slave.step_despite_signal()
}

/// Cuts what an unfinished batch has left of itself in the slave, if anything,
/// through a fresh handle, in this step and another one. Returns how many bytes.
pub fn truncate_batch<'a>(
    slave: &'a Slave,
    step: Step<'a>,
    batch: &Batch,
    take_step: impl FnOnce() -> Result<Step<'a>, Error>,
) -> Result<u64, Error> {
    let Some(seen) = slave.stat()? else {
        return Ok(0);
    };
    let mut data = DataFile::open(slave, seen)?;
    if !ends_with(data.file(), seen.size, batch).map_err(Error::io("read", data.path()))? {
        return Ok(0);
    }
    let step = truncate_tail(&mut data, step, batch.from, |data| {
        let step = take_step()?;
        step.check_unchanged(Some(data.stat()))?;
        Ok(step)
    })?;
    drop(step);
    data.sync()?;
    Ok(seen.size - batch.from)
}

/// Cuts what lies behind `position`, where no transaction is finished: in a step what is
/// behind the start of a header, durably; in the next one, which is returned, the rest.
fn truncate_tail<'a>(
    data: &mut DataFile<'a>,
    mut step: Step<'a>,
    position: u64,
    take_step: impl FnOnce(&DataFile<'a>) -> Result<Step<'a>, Error>,
) -> Result<Step<'a>, Error> {
    let stub_end = position + STUB_LEN;
    if data.stat().size > stub_end {
        data.truncate(&step, stub_end)?;
        drop(step);
        data.sync()?;
        step = take_step(data)?;
    }
    data.truncate(&step, position)?;
    Ok(step)
}

/// Whether the slave ends in what an unfinished batch has left of itself.
pub fn has_unfinished(slave: &Slave, batch: &Batch) -> Result<bool, Error> {
    let path = slave.paths.data();
    let file = match paths::open(path, OpenMode::Read) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        opened => opened.map_err(Error::io("open", path))?,
    };
    file.metadata()
        .and_then(|found| ends_with(&file, found.len(), batch))
        .map_err(Error::io("read", path))
}

/// Whether a file of `size` bytes ends in what a batch has left: the start of
/// its header, behind a whole transaction.
fn ends_with(file: &File, size: u64, batch: &Batch) -> io::Result<bool> {
    let len = size.saturating_sub(batch.from);
    let mut found = vec![0; len.min(TXN_HEADER_LEN as u64) as usize];
    read_fully(file, &mut found, batch.from)?;
    Ok(batch.left(batch.from, &found)
        && match Backward::new(file, batch.from).step()? {
            Preceding::Transaction(_) | Preceding::Start => true,
            Preceding::Incoherent => false,
        })
}

/// Keeps what lies behind `position` as a `Data.fs.trN`, durably; returns its name if it is
/// a new one. What a try that could not cut it has kept is not kept again: each would fill
/// the disk a bit more.
fn save_tail(slave: &Slave, data: &DataFile<'_>, position: u64) -> Result<Option<PathBuf>, Error> {
    // Nothing is copied where nothing may be cut.
    drop(data.step(position, &[])?);
    let kept_before = find_saved(slave, data, position)?;
    let is_new = kept_before.is_none();
    let path = kept_before.map_or_else(|| save_to_new_file(slave, data, position), Ok)?;
    tracing::warn!(
        "{}: the unfinished tail of {} at {position} is cut, and kept in {}",
        data.path().display(),
        bytes(data.stat().size - position),
        path.display()
    );
    Ok(is_new.then_some(path))
}

/// The last `Data.fs.trN`, made durable, if it holds just what lies behind `position`. Its
/// bytes are written again for that: a sync of them may have failed before.
fn find_saved(
    slave: &Slave,
    data: &DataFile<'_>,
    position: u64,
) -> Result<Option<PathBuf>, Error> {
    let names = (0..).map(|n| slave.paths.cut(n));
    let Some(path) = names.take_while(|it| it.symlink_metadata().is_ok()).last() else {
        return Ok(None);
    };
    let opened =
        paths::open(&path, OpenMode::ReadWrite).and_then(|file| Ok((file.metadata()?, file)));
    let Ok((found, file)) = opened else {
        return Ok(None);
    };
    // Under another name, too, it may be anything.
    let is_ours_alone = found.is_file() && found.nlink() == 1;
    let mut is_same = is_ours_alone && found.len() == data.stat().size - position;
    if !is_same {
        return Ok(None);
    }
    let mut found = vec![0; COPY_LEN];
    read_tail(data, position, |piece, offset| {
        let found = &mut found[..piece.len()];
        is_same = is_same
            && file.read_exact_at(found, offset).is_ok()
            && found == piece
            && file.write_all_at(found, offset).is_ok();
        Ok(())
    })?;
    if !is_same {
        return Ok(None);
    }
    file.sync_all().map_err(Error::io("sync", &path))?;
    slave.paths.sync_directory()?;
    Ok(Some(path))
}

/// Copies what lies behind `position` to the first free `Data.fs.trN`, durably; returns its
/// name.
fn save_to_new_file(slave: &Slave, data: &DataFile<'_>, position: u64) -> Result<PathBuf, Error> {
    let (kept, path) = create_tail_file(slave)?;
    let copied =
        copy_tail(data, position, (&kept, &path)).and_then(|()| slave.paths.sync_directory());
    if let Err(error) = copied {
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        return Err(error);
    }
    Ok(path)
}

/// Copies by reads and writes, each checked: where one of them is short, what the kernel
/// copies by itself may end early, and silently.
fn copy_tail(data: &DataFile<'_>, position: u64, (to, path): (&File, &Path)) -> Result<(), Error> {
    read_tail(data, position, |piece, offset| {
        to.write_all_at(piece, offset)
            .map_err(Error::io("save the cut tail in", path))
    })?;
    to.sync_all().map_err(Error::io("sync", path))
}

/// Hands out what lies behind `position`, piece by piece, each with its offset from there.
fn read_tail(
    data: &DataFile<'_>,
    position: u64,
    mut take: impl FnMut(&[u8], u64) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut buffer = vec![0; COPY_LEN];
    let size = data.stat().size;
    for at in (position..size).step_by(COPY_LEN) {
        let piece = &mut buffer[..(size - at).min(COPY_LEN as u64) as usize];
        data.read(piece, at)?;
        take(piece, at - position)?;
    }
    Ok(())
}

fn create_tail_file(slave: &Slave) -> Result<(File, PathBuf), Error> {
    let owner = Owner::of(&slave.paths)?;
    let mut n = 0;
    loop {
        let path = slave.paths.cut(n);
        match owner.create_new(&path) {
            Ok(file) => return Ok((file, path)),
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => n += 1,
            Err(error) => return Err(error),
        }
    }
}
