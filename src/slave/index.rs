//! Stores ZODB's index, `Data.fs.index`, beside the slave. With it, ZODB does not have to scan
//! the whole file when it opens the slave.
//!
//! The index is a cache, but ZODB trusts it: it checks five objects and no more. Therefore:
//!
//! - An index is stored only if it is the index of this very file, and ZODB can use it
//!   ([`sanity`](crate::filestorage::index::sanity)).
//! - An index that fssync did not store, or that was changed since, is never extended or kept
//!   ([`StoredIndex`]).
//! - Before the slave is replaced, or written below the index's position, the index is removed
//!   durably, and a new one is stored afterwards. An index that fssync did not store is removed
//!   before any write ([`coverage::remove_stale`]).
//!
//! [`coverage`] decides when the index is stored again, [`failure`] when a failed attempt is
//! retried.
//!
//! # Order of writes, and the state after a crash
//!
//! 1. The slave is durable up to the index's position. The caller of [`store`] guarantees that.
//! 2. The index is written to `Data.fs.fssync-tmp` and synced. *Crash:* the old index, and a
//!    temporary file that the next pass removes. Without the sync, a power cut after step 3
//!    could leave an index with zeros in the middle, and ZODB would use it.
//! 3. In a step, in which the slave is unchanged, the file is renamed to `Data.fs.index`. The
//!    directory is not synced. *Crash:* the old index or the new one. Both are of this file,
//!    and of a position that it has reached.
//!
//! # A ZODB that closes at the same time
//!
//! ZODB releases its lock before it saves its index, so it may save one at any time. It writes
//! to `Data.fs.index.index_tmp`. Our temporary file has another name: otherwise both programs
//! could write the same file, and ZODB would install the mixture. As it is, the index that ZODB
//! installs over ours is complete, but it may be the index of a slave that a full copy has
//! replaced. The next pass therefore checks whether the index is still the one that it stored.

pub mod coverage;
pub mod failure;

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::owner::Owner;
use super::paths::{self, OpenMode, Sibling, SlavePaths};
use super::small_file::{remove_if_exists, stat_if_exists};
use super::step::Slave;
use crate::error::Error;
use crate::filestorage::index::Index;
use crate::filestorage::index::sanity::{checked_records, is_accepted};
use crate::io::digest::Digest;
use crate::io::file_stat::FileStat;
use crate::source::display_chain;

/// An index that fssync stored, with the means to recognise it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct StoredIndex {
    /// The position of the slave up to which it has all objects, in bytes.
    pub position: u64,
    digest: Digest,
    /// The file, without its device number.
    #[serde(rename = "stamp")]
    stat: FileStat,
}

impl StoredIndex {
    /// Its length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an index is never empty")]
    pub fn len(&self) -> u64 {
        self.stat.size
    }

    /// Whether the file beside the slave is still this one, and nobody has written it since.
    /// Makes one `stat` call.
    pub fn is_unchanged(&self, paths: &SlavePaths) -> Result<bool, Error> {
        let path = paths.sibling(Sibling::ZodbIndex);
        Ok(stat_if_exists(&path)?
            .is_some_and(|found| FileStat::of(&found).without_device() == self.stat))
    }

    /// Reads it. `None`, with a warning in the log, if the file or its bytes have changed.
    #[must_use]
    pub fn load(&self, paths: &SlavePaths) -> Option<Index> {
        let path = paths.sibling(Sibling::ZodbIndex);
        match self.read(&path) {
            Ok(index) => Some(index),
            Err(error) => {
                let why = display_chain(&error);
                tracing::warn!("ignoring {}: {why}", path.display());
                None
            }
        }
    }

    fn read(&self, path: &Path) -> io::Result<Index> {
        let file = paths::open(path, OpenMode::Read)?;
        if FileStat::of(&file.metadata()?).without_device() != self.stat {
            return Err(io::Error::other("another file was put in its place"));
        }
        let mut from = DigestStream::new(file);
        let (index, position) = Index::read(&mut from, self.position).map_err(io::Error::other)?;
        if (position, from.digest()) != (self.position, self.digest) {
            return Err(io::Error::other(
                "its bytes have changed since it was stored",
            ));
        }
        Ok(index)
    }
}

/// Stores the index of the slave at `position`, up to which the slave is durable. `data` is the
/// open slave, and `stat` its current state. Returns `None`, and keeps the old index, if ZODB
/// would not use this one: it ignores the index of an almost empty file, and
/// [fails](crate::filestorage::index::sanity) with some others.
pub fn store(
    slave: &Slave,
    data: &File,
    stat: FileStat,
    index: &Index,
    position: u64,
) -> Result<Option<StoredIndex>, Error> {
    let records = checked_records(data, stat.size, position);
    let records = records.map_err(Error::io("read", slave.paths.data()))?;
    if !is_accepted(index, &records) {
        return Ok(None);
    }
    slave.check_cancelled()?;
    let path = slave.paths.sibling(Sibling::Tmp);
    remove_if_exists(&path)?;
    let file = Owner::of(&slave.paths)?.create_new(&path)?;
    let stored = write(slave, file, &path, index, position).and_then(|stored| {
        let step = slave.step()?;
        // If the slave was replaced meanwhile, this index belongs to the old file.
        step.check_unchanged(Some(stat))?;
        let renamed = fs::rename(&path, slave.paths.sibling(Sibling::ZodbIndex));
        drop(step);
        renamed.map_err(Error::io("rename", &path))?;
        Ok(stored)
    });
    if stored.is_err()
        && let Err(error) = remove_if_exists(&path)
    {
        tracing::warn!("{}", error.display_chain());
    }
    stored.map(Some)
}

/// Removes the index durably, in a step.
pub fn remove(slave: &Slave) -> Result<(), Error> {
    let paths = &slave.paths;
    let step = slave.step()?;
    let removed = remove_if_exists(&paths.sibling(Sibling::ZodbIndex));
    drop(step);
    if removed? {
        paths.sync_directory()?;
    }
    Ok(())
}

/// Writes an index to `file`, durably.
fn write(
    slave: &Slave,
    file: File,
    path: &Path,
    index: &Index,
    position: u64,
) -> Result<StoredIndex, Error> {
    const BUFFER_LEN: usize = 1024 * 1024;
    let to = DigestStream::new(CancellableFile { slave, file });
    let mut to = BufWriter::with_capacity(BUFFER_LEN, to);
    let written = index
        .write(position, &mut to)
        .and_then(|()| Ok(to.into_inner()?))
        .and_then(|to| {
            to.inner.file.sync_all()?;
            Ok(StoredIndex {
                position,
                digest: to.digest(),
                stat: FileStat::of(&to.inner.file.metadata()?).without_device(),
            })
        });
    // A cancellation passes through the writers as an `io::Error`; unwrap it.
    written.map_err(|error| match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::io("write", path)(error),
    })
}

/// A file to which writes fail once syncing is switched off or a signal was received.
pub(super) struct CancellableFile<'a> {
    pub(super) slave: &'a Slave,
    pub(super) file: File,
}

impl Write for CancellableFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.slave.check_cancelled().map_err(io::Error::other)?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Computes the digest of the bytes that are read or written through it.
struct DigestStream<T> {
    inner: T,
    hasher: blake3::Hasher,
}

impl<T> DigestStream<T> {
    fn new(inner: T) -> Self {
        Self {
            inner,
            hasher: blake3::Hasher::new(),
        }
    }

    fn digest(&self) -> Digest {
        self.hasher.finalize().into()
    }
}

impl<T: Read> Read for DigestStream<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(bytes)?;
        self.hasher.update(&bytes[..len]);
        Ok(len)
    }
}

impl<T: Write> Write for DigestStream<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
