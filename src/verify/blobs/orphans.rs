//! Searches for blob files to which the log does not refer. This is the only walk through the
//! whole blob directory.
//!
//! 1. Walk through the directory, until there are `WINDOW_LEN` files. Sort their keys.
//! 2. Read the log to its end, and strike out the keys to which it refers.
//! 3. Strike out the keys in the gone list: these files are removed later.
//! 4. The other ones are orphans. Continue the walk.
//!
//! # Why windows of files
//!
//! A file is an orphan if *no* transaction refers to it. A window of the log's keys could not
//! decide that, and would need a walk for each window. A window of files is decided by one
//! sequential read of the log. Up to two million files, the log is read once. Sorting on disk
//! would read it once in any case, but a verification writes nothing, and also works on a full
//! disk or on one that is mounted read-only.
//!
//! # While others write
//!
//! The log is read after the files, so it contains the transactions of all files that were placed
//! before and are visible. A file whose tid is higher than the log's last one belongs to a
//! transaction that is not visible yet, and is not an orphan. A pass that was killed leaves such
//! files; the next pass uses them.

use std::mem;
use std::path::PathBuf;

use super::BlobsToVerify;
use crate::error::Error;
use crate::filestorage::blob::{BlobKey, Layout};
use crate::filestorage::{MAGIC_LEN, Tid};
use crate::io::progress::Monitor;
use crate::slave::blobs::{BlobVisitor, GoneList};
use crate::slave::scan::blobs::BlobScan;
use crate::slave::snapshot::file;
use crate::slave::step::Slave;
use crate::verify::changed;

/// The largest number of files that are decided together. They take 17 bytes of memory each.
const WINDOW_LEN: usize = 2_000_000;

/// Number of orphans that are listed; the others are only counted.
pub const MAX_LISTED: usize = 100_000;

/// How many entries of the gone list are read at once.
const GONE_LEN: usize = 4096;

/// Blob files to which the log does not refer.
#[derive(Clone, Debug)]
pub struct Orphans {
    /// Number of files.
    pub count: u64,
    /// Their sizes together, in bytes.
    pub bytes: u64,
    /// Number of directories that could not be read.
    pub unreadable_directories: u64,
    layout: Layout,
    listed: Vec<BlobKey>,
}

impl Orphans {
    /// The paths of the first [`MAX_LISTED`] of them, relative to the blob directory.
    #[must_use]
    pub fn listed(&self) -> impl ExactSizeIterator<Item = PathBuf> {
        self.listed.iter().map(|key| self.layout.path(*key))
    }
}

impl BlobsToVerify {
    /// Searches for orphans. The log is known to be whole up to `position`.
    pub(super) fn search_orphans(
        &self,
        slave: &Slave,
        position: u64,
        monitor: &dyn Monitor,
    ) -> Result<Orphans, Error> {
        let mut search = Search {
            blobs: self,
            slave,
            position,
            monitor,
            window: Vec::new(),
            orphans: Orphans {
                count: 0,
                bytes: 0,
                unreadable_directories: 0,
                layout: self.directory.layout(),
                listed: Vec::new(),
            },
        };
        self.directory.walk(&mut search)?;
        search.decide()?;
        Ok(search.orphans)
    }
}

struct Search<'a> {
    blobs: &'a BlobsToVerify,
    slave: &'a Slave,
    position: u64,
    monitor: &'a dyn Monitor,
    /// Files that are not decided yet.
    window: Vec<BlobKey>,
    orphans: Orphans,
}

impl BlobVisitor for Search<'_> {
    fn blob(&mut self, key: BlobKey) -> Result<(), Error> {
        self.slave.check_interrupted()?;
        self.window.push(key);
        if self.window.len() >= WINDOW_LEN {
            self.decide()?;
        }
        Ok(())
    }

    fn unreadable(&mut self, error: Error) {
        // One warning is enough for a disk that fails.
        if self.orphans.unreadable_directories == 0 {
            let why = error.display_chain();
            self.monitor
                .warn(format!("{why}; its files are not verified"));
        }
        self.orphans.unreadable_directories += 1;
    }
}

impl Search<'_> {
    /// Decides about the files of the window.
    fn decide(&mut self) -> Result<(), Error> {
        if self.window.is_empty() {
            return Ok(());
        }
        let mut keys = mem::take(&mut self.window);
        keys.sort_unstable();
        let mut known = Known {
            is_known: vec![false; keys.len()],
            keys: &keys,
        };
        let last_tid = self.strike_out_references(&mut known)?;
        self.strike_out_gone(&mut known)?;
        for (key, is_known) in keys.iter().zip(known.is_known) {
            if !is_known && Some(key.tid) <= last_tid {
                self.add(*key)?;
            }
        }
        keys.clear();
        self.window = keys;
        Ok(())
    }

    /// Returns the tid of the log's last transaction.
    fn strike_out_references(&self, known: &mut Known<'_>) -> Result<Option<Tid>, Error> {
        let slave = self.slave;
        let Some((log, _)) = file::open(&slave.paths)? else {
            return Err(changed(slave, "it was removed"));
        };
        let mut scan = BlobScan::new(&log.file, slave.paths.data(), MAGIC_LEN, log.size);
        while let Some(references) = scan.next_slice()? {
            slave.check_interrupted()?;
            let done = scan.position();
            self.monitor
                .progress("searching for orphans", done, log.size);
            for reference in references {
                known.strike_out(reference.key);
            }
        }
        // The log was whole before.
        if scan.position() < self.position {
            return Err(changed(slave, "it was truncated or replaced"));
        }
        Ok(scan.last_tid())
    }

    fn strike_out_gone(&self, known: &mut Known<'_>) -> Result<(), Error> {
        let Some(mut gone) = GoneList::open(&self.slave.paths)? else {
            return Ok(());
        };
        loop {
            let keys = gone.take(GONE_LEN)?;
            if keys.is_empty() {
                return Ok(());
            }
            for key in keys {
                known.strike_out(key);
            }
        }
    }

    fn add(&mut self, key: BlobKey) -> Result<(), Error> {
        self.slave.check_interrupted()?;
        let directory = &self.blobs.directory;
        let Some(found) = directory.stat(key)? else {
            // It was removed meanwhile.
            return Ok(());
        };
        tracing::debug!(
            "the log does not refer to {}",
            directory.blob_path(key).display()
        );
        self.orphans.count += 1;
        self.orphans.bytes += found.size;
        if self.orphans.listed.len() < MAX_LISTED {
            self.orphans.listed.push(key);
        }
        Ok(())
    }
}

/// Files of which some are known not to be orphans.
struct Known<'k> {
    /// Sorted.
    keys: &'k [BlobKey],
    is_known: Vec<bool>,
}

impl Known<'_> {
    fn strike_out(&mut self, key: BlobKey) {
        if let Ok(at) = self.keys.binary_search(&key) {
            self.is_known[at] = true;
        }
    }
}
