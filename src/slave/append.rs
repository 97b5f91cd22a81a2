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
//! Nothing committed is ever cut: trimming starts at the slave's position,
//! found by walking forwards, and bytes that are not ours are first kept as
//! `Data.fs.trN`, as ZODB does (Law 2).
//!
//! What is behind a `c` is cut back at once when a pass fails, through a fresh
//! handle, since ZODB needs free disk to open a file with an unfinished tail.
//! The sidecar says before a batch begins what its header will be: so a tail is
//! known as ours after a kill, when the master may be out of reach. After a
//! power cut it may not say so; then our own tail is kept as a `.trN`.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;

use super::place::Place;
use super::sidecar::{Batch, Sidecar};
use super::step::{DataFile, Seen, Slave, Step};
use crate::filestorage::Status;
use crate::filestorage::record::{STATUS_OFFSET, TXN_HEADER_LEN};
use crate::flush::Flusher;
use crate::plan::Tail;
use crate::read::read_fully;
use crate::stop::Stop;

/// An append to the slave.
#[derive(Debug)]
pub struct Append<'a> {
    slave: &'a Slave,
    data: DataFile<'a>,
    /// Just past the last finished batch.
    position: u64,
    trim: Tail,
    batch: Option<Open>,
    flusher: Flusher,
}

/// A batch that is not finished.
#[derive(Debug)]
struct Open {
    begun: Batch,
    status: Status,
}

impl<'a> Append<'a> {
    /// Opens the slave, as it was seen, to append at its position, behind which
    /// lies `trim`.
    pub fn open(slave: &'a Slave, seen: Seen, position: u64, trim: Tail) -> Result<Self, Stop> {
        Ok(Self {
            slave,
            data: DataFile::open(slave, seen)?,
            position,
            trim,
            batch: None,
            flusher: Flusher::default(),
        })
    }

    /// Just past the last finished batch, in bytes.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
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
            Some(_) => self.data.seen().size - self.position,
            None => 0,
        }
    }

    /// Appends the next bytes; those that start a batch start with a whole
    /// transaction header.
    pub fn write(&mut self, bytes: &[u8], sidecar: &mut Sidecar) -> Result<(), Stop> {
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
        let (from, header) = (batch.begun.from, batch.begun.header().to_owned());
        let step = self.data.step(from, &header)?;
        self.data.write(&step, rest, self.data.seen().size)?;
        drop(step);
        self.flusher
            .written(self.data.file(), rest.len() as u64)
            .map_err(Stop::io("sync", self.data.path()))
    }

    /// Step 1 of a batch; cuts first what lies behind the position.
    fn begin(&mut self, header: [u8; TXN_HEADER_LEN], sidecar: &mut Sidecar) -> Result<(), Stop> {
        if let Tail::Foreign(_) = self.trim {
            keep_cut(self.slave, &self.data, self.position)?;
        }
        let begun = Batch::new(self.position, header);
        sidecar.batch = Some(begun.clone());
        sidecar.store(&self.slave.place, &self.slave.owner)?;
        let step = self.data.step(self.position, &[])?;
        if self.trim != Tail::None {
            self.data.truncate(&step, self.position)?;
            self.trim = Tail::None;
        }
        let status = Status(header[STATUS_OFFSET as usize]);
        let batch = self.batch.insert(Open { begun, status });
        self.data
            .write(&step, batch.begun.header(), self.position)?;
        drop(step);
        self.data.sync()
    }

    /// Forgets what was written of the unfinished batch from `end` on. Returns
    /// whether anything is left of it.
    pub fn shorten(&mut self, end: u64) -> Result<bool, Stop> {
        let Some(batch) = &self.batch else {
            return Ok(false);
        };
        if self.data.seen().size > end {
            let step = self.data.step(batch.begun.from, batch.begun.header())?;
            self.data.truncate(&step, end)?;
            if end == self.position {
                self.batch = None;
            }
        }
        Ok(self.batch.is_some())
    }

    /// Makes durable what was written of the unfinished batch (the end of 2).
    pub fn settle(&mut self) -> Result<(), Stop> {
        self.flusher
            .finish(self.data.file())
            .map_err(Stop::io("sync", self.data.path()))
    }

    /// Step 3 of a batch, which must be [settled](Self::settle).
    pub fn finish(&mut self) -> Result<(), Stop> {
        let Some(batch) = &self.batch else {
            return Ok(());
        };
        let (from, status) = (batch.begun.from, batch.status);
        let step = self.data.step(from, batch.begun.header())?;
        self.data.write(&step, &[status.0], from + STATUS_OFFSET)?;
        drop(step);
        self.batch = None;
        self.position = self.data.seen().size;
        self.data.sync()
    }

    /// Cuts what an append that failed has left behind its last finished batch.
    pub fn cut_back(self) {
        let Some(batch) = self.batch else {
            return;
        };
        let cut = self
            .slave
            .step()
            .and_then(|step| cut(self.slave, step, &batch.begun));
        match cut {
            // Whoever switched off or opened the slave cuts it.
            Ok(_) | Err(Stop::Off(_) | Stop::InUse { .. }) => {}
            Err(stop) => tracing::warn!(
                "an unfinished tail stays in {} from {} on, where ZODB and the next pass cut it: \
                 {}",
                self.data.path().display(),
                batch.begun.from,
                stop.in_one_line()
            ),
        }
    }
}

/// Cuts what an unfinished batch has left of itself in the slave, if anything,
/// through a fresh handle. Returns how many bytes.
pub fn cut(slave: &Slave, step: Step<'_>, batch: &Batch) -> Result<u64, Stop> {
    let Some(seen) = slave.seen()? else {
        return Ok(0);
    };
    let mut data = DataFile::open(slave, seen)?;
    let len = seen.size.saturating_sub(batch.from);
    let mut found = vec![0; len.min(TXN_HEADER_LEN as u64) as usize];
    read_fully(data.file(), &mut found, batch.from).map_err(Stop::io("read", data.path()))?;
    if !batch.left(batch.from, &found) {
        return Ok(0);
    }
    data.truncate(&step, batch.from)?;
    drop(step);
    data.sync()?;
    Ok(len)
}

/// Copies what lies behind `position` to the first free `Data.fs.trN`.
fn keep_cut(slave: &Slave, data: &DataFile<'_>, position: u64) -> Result<(), Stop> {
    let (mut kept, path) = create_first_free(slave, Place::cut)?;
    let fail = |error| Stop::io("save the cut tail in", &path)(error);
    let mut tail = data.file();
    tail.seek(SeekFrom::Start(position)).map_err(fail)?;
    io::copy(&mut tail.take(data.seen().size - position), &mut kept)
        .and_then(|_| kept.sync_all())
        .map_err(fail)?;
    tracing::warn!(
        "{} ends in {} bytes that are no finished transaction: cut, and kept in {}",
        data.path().display(),
        data.seen().size - position,
        path.display()
    );
    Ok(())
}

fn create_first_free(
    slave: &Slave,
    name: impl Fn(&Place, u32) -> PathBuf,
) -> Result<(File, PathBuf), Stop> {
    let mut n = 0;
    loop {
        let path = name(&slave.place, n);
        match slave.owner.create_new(&path) {
            Ok(file) => return Ok((file, path)),
            Err(Stop::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => n += 1,
            Err(stop) => return Err(stop),
        }
    }
}
