//! `Data.fs.index` beside the slave: what spares ZODB the scan of the whole
//! file when it opens it.
//!
//! A cache, and one that ZODB believes: it looks up five objects and no more.
//! So an index is stored only where it is that of the file, and what was not
//! stored here, or not left alone since, is not trusted ([`Stored`]). When it is
//! stored again is said in [`coverage`].
//!
//! The order, and what a crash leaves:
//!
//! 1. The slave is durable up to the index's position: whoever calls
//!    [`store`] has seen to that.
//! 2. The index is written to `Data.fs.fssync-tmp` and synced. A crash leaves the
//!    old index, and a file that the next pass removes. Unsynced, a power cut
//!    could leave zeros in the middle of an index, which ZODB would believe.
//! 3. In a step, in which the slave is what was seen, it is renamed. The directory
//!    is not synced: a crash leaves the old index or the new one, and either is
//!    of this file, at a position that it has reached.
//!
//! Where the slave is replaced, or written from below the index's position, the index
//! is durably gone before ([`coverage::make_way`]), and a new one stored after; and so
//! is one that was not stored here, whatever is written.
//!
//! Where it cannot be stored, that is not tried again at once ([`failure`]).
//!
//! The file that is written has a name of ours. ZODB's, `Data.fs.index.index_tmp`,
//! would not do: a ZODB that closes saves its index when it has let its lock go,
//! so it may open that very file while we write it, and put in place what both
//! have written. As it is, its index may come to lie over ours at any time, and
//! then is whole, but perhaps that of a file that a full copy has replaced
//! since. So the next pass looks whether the index is still the one that was
//! stored.

pub mod coverage;
pub mod failure;

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::owner::Owner;
use super::paths::{self, OpenMode, Sibling, SlavePaths};
use super::step::Slave;
use crate::error::Error;
use crate::filestorage::index::Index;
use crate::filestorage::index::builder::Builder;
use crate::filestorage::index::sanity::{is_sane, witnesses};
use crate::filestorage::scan::{Scanner, Tail};
use crate::io::digest::Digest;
use crate::io::file_stat::FileStat;
use crate::io::progress::Monitor;
use crate::slave::scan::scan_file;
use crate::source::display_chain;

/// An index that was stored, by which it is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Stored {
    /// The position that it is of.
    pub position: u64,
    digest: Digest,
    /// The file, without its device number.
    #[serde(rename = "stamp")]
    stat: FileStat,
}

impl Stored {
    /// Its length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "none is empty")]
    pub fn len(&self) -> u64 {
        self.stat.size
    }

    /// Whether it lies beside the slave still, and was left alone. Reads nothing.
    pub fn lies_there(&self, paths: &SlavePaths) -> Result<bool, Error> {
        let path = paths.sibling(Sibling::ZodbIndex);
        match fs::symlink_metadata(&path) {
            Ok(found) => Ok(FileStat::of(&found).without_device() == self.stat),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("look at", &path)(error)),
        }
    }

    /// Reads it; `None`, with a warning, if it is not what was stored.
    #[must_use]
    pub fn load(&self, paths: &SlavePaths) -> Option<Index> {
        let path = paths.sibling(Sibling::ZodbIndex);
        match self.read(&path) {
            Ok(index) => Some(index),
            Err(error) => {
                let why = display_chain(&error);
                tracing::warn!("{} is passed over: {why}", path.display());
                None
            }
        }
    }

    fn read(&self, path: &Path) -> io::Result<Index> {
        let file = paths::open(path, OpenMode::Read)?;
        if FileStat::of(&file.metadata()?).without_device() != self.stat {
            return Err(io::Error::other("another was put in its place"));
        }
        let mut from = Digesting::new(file);
        let (index, position) = Index::read(&mut from, self.position).map_err(io::Error::other)?;
        if (position, from.digest()) != (self.position, self.digest) {
            return Err(io::Error::other("its bytes are not those that were stored"));
        }
        Ok(index)
    }
}

/// An index that grows as the slave is read, which can be left and gone on with.
#[derive(Debug)]
pub struct Growing {
    from: u64,
    to: u64,
    builder: Builder,
    scanner: Scanner,
}

impl Growing {
    /// From where `builder` stands to a position of the slave's.
    #[must_use]
    pub fn new(builder: Builder, to: u64) -> Self {
        let from = builder.position();
        Self {
            from,
            to,
            builder,
            scanner: Scanner::resume(from, None, to),
        }
    }

    /// The position that it grows to.
    #[must_use]
    pub fn to(&self) -> u64 {
        self.to
    }

    /// Has it grow to another position behind, where it was read to the end.
    pub fn go_on_to(&mut self, position: u64) {
        if self.is_whole() {
            self.to = position;
            self.scanner = Scanner::resume(self.builder.position(), None, position);
        }
    }

    /// Has it grow no further than to the end of the transaction that is being read.
    pub fn end_with_transaction(&mut self) {
        self.to = self.scanner.end_with_transaction();
    }

    /// Whether all was read, and a transaction ends where it should.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.builder.position() == self.to
    }

    /// Reads on, to the end or as long as `may_go_on` says so.
    pub fn read(
        &mut self,
        data: &File,
        paths: &SlavePaths,
        check_cancelled: &dyn Fn() -> Result<(), Error>,
        monitor: &dyn Monitor,
    ) -> Result<(), Error> {
        let Self {
            from,
            to,
            builder,
            scanner,
        } = self;
        let go_on = |offset: u64| {
            monitor.progress("indexing", offset - *from, *to - *from);
            check_cancelled()
        };
        scan_file(data, paths.data(), scanner, &go_on, &mut |event| {
            builder.take(event);
        })
    }

    /// How many bytes of the slave it takes, from the start of the work.
    #[must_use]
    pub fn distance(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }

    /// The index, once all was read. Where no transaction ends where it should, an
    /// error says what does not fit: ZODB stumbles over it, too, when it scans the
    /// file.
    pub fn finish(self, paths: &SlavePaths) -> Result<Index, Error> {
        let (to, last) = (self.to, self.builder.position());
        let what = match self.scanner.tail() {
            Tail::Damaged(damage) => damage.to_string(),
            _ => format!("the transaction record at {last} does not end before it"),
        };
        let index = if self.is_whole() {
            self.builder.finish()
        } else {
            None
        };
        index.ok_or_else(|| {
            let action = format!("follow the transactions up to {to} in");
            Error::io(action, paths.data())(io::Error::new(ErrorKind::InvalidData, what))
        })
    }
}

/// Stores the index that the slave, which is `data` and was last `seen`, has at
/// `position`, up to which it is durable. `None`, and the old index stays, if
/// ZODB would not use it: of a file that has hardly anything, or one on which
/// it would [fail](crate::filestorage::index::sanity).
pub fn store(
    slave: &Slave,
    (data, seen): (&File, FileStat),
    (index, position): (&Index, u64),
) -> Result<Option<Stored>, Error> {
    let found =
        witnesses(data, seen.size, position).map_err(Error::io("read", slave.paths.data()))?;
    if !is_sane(index, &found) {
        return Ok(None);
    }
    slave.check_cancelled()?;
    let path = slave.paths.sibling(Sibling::Tmp);
    remove_file(&path)?;
    let file = Owner::of(&slave.paths)?.create_new(&path)?;
    let stored = write(slave, file, &path, (index, position)).and_then(|stored| {
        let step = slave.step()?;
        step.check_unchanged(Some(seen))?;
        let renamed = fs::rename(&path, slave.paths.sibling(Sibling::ZodbIndex));
        drop(step);
        renamed.map_err(Error::io("rename", &path))?;
        Ok(stored)
    });
    if stored.is_err()
        && let Err(error) = remove_file(&path)
    {
        tracing::warn!("{}", error.display_chain());
    }
    stored.map(Some)
}

/// Removes the index, in a step, durably.
pub fn remove(slave: &Slave) -> Result<(), Error> {
    let paths = &slave.paths;
    let step = slave.step()?;
    let removed = remove_file(&paths.sibling(Sibling::ZodbIndex));
    drop(step);
    if removed? {
        paths.sync_directory()?;
    }
    Ok(())
}

/// Writes an index, durably.
fn write(
    slave: &Slave,
    file: File,
    path: &Path,
    (index, position): (&Index, u64),
) -> Result<Stored, Error> {
    const BUFFER_LEN: usize = 1024 * 1024;
    let to = Digesting::new(Guarded { slave, file });
    let mut to = BufWriter::with_capacity(BUFFER_LEN, to);
    let written = index
        .write(position, &mut to)
        .and_then(|()| Ok(to.into_inner()?))
        .and_then(|to| {
            to.inner.file.sync_all()?;
            Ok(Stored {
                position,
                digest: to.digest(),
                stat: FileStat::of(&to.inner.file.metadata()?).without_device(),
            })
        });
    written.map_err(|error| match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::io("write", path)(error),
    })
}

/// Removes a file; says whether there was one.
fn remove_file(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("remove", path)(error)),
    }
}

/// A file that is written no further once syncing was switched off.
struct Guarded<'a> {
    slave: &'a Slave,
    file: File,
}

impl Write for Guarded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.slave.check_cancelled().map_err(io::Error::other)?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Takes the digest of what passes through.
struct Digesting<T> {
    inner: T,
    hasher: blake3::Hasher,
}

impl<T> Digesting<T> {
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

impl<T: Read> Read for Digesting<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(bytes)?;
        self.hasher.update(&bytes[..len]);
        Ok(len)
    }
}

impl<T: Write> Write for Digesting<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
