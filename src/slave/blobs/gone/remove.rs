//! Removes the blobs of the gone list that are due.
//!
//! # Order of writes, and the state after a crash
//!
//! 1. Sync the slave's directory: the name of the new log must be durable before a blob of the old
//!    log is removed. A pass that was killed after the rename may not have synced it.
//! 2. Read the next entries, and search the log for them. Blobs that it refers to remain.
//! 3. Remove the other blobs, and the directories that become empty, in steps. Each step checks
//!    that the log is still the one that was searched.
//! 4. Sync the file system, so that no power cut brings back a file that the list no longer names.
//! 5. Replace the list with one that lacks the entries that are done: write it, sync it, rename it,
//!    sync the directory.
//!
//! *Crash or failure before 5:* the list still has all entries. They are done again; files that do
//! not exist are skipped.
//!
//! *Crash in 5:* the old list or the new one.
//!
//! # Why no blob is removed that the log refers to (Law 7)
//!
//! 1. *The log that was searched* does not refer to the blob (2), and is the log at the time of
//!    the removal (3). Its name is durable (1), so no power cut brings back an older log.
//! 2. *A later transaction* has a higher tid than all blobs of the list. A full copy of a log with
//!    other transactions looks at each of its blobs before it is installed, and receives missing
//!    ones again.
//! 3. *A blob that was placed for a batch or a full copy* that is not visible yet: blobs are not
//!    removed meanwhile. If the pass was killed, the next one finds the blob, or receives it
//!    again.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::fs::{AtFlags, syncfs, unlinkat};
use rustix::io::Errno;

use super::{BLOCK_LEN, GoneList};
use crate::error::Error;
use crate::filestorage::blob::BlobKey;
use crate::io::read::read_fully;
use crate::slave::blobs::directory::BlobDirectory;
use crate::slave::blobs::steps::change_in_steps;
use crate::slave::owner::Owner;
use crate::slave::paths::Sibling;
use crate::slave::small_file::remove_if_exists;
use crate::slave::step::Slave;

/// For how many entries the log is searched at once. They take 16 bytes of memory each, twice.
const MAX_SEARCHED: usize = 250_000;

/// After how many blobs the budget is checked.
const MAX_IN_A_ROW: usize = 256;

/// The result of a removal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Number of files that were removed.
    pub files: u64,
    /// Their sizes together, in bytes.
    pub bytes: u64,
    /// Number of entries that remain in the list.
    pub left: u64,
}

/// Which blobs are removed, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct RemovalLimits {
    /// The current time.
    pub now: Timestamp,
    /// How long a blob is kept after it was added to the list.
    pub keep: Duration,
    /// How long blobs are removed after the log was searched. At least 256 entries are done in any
    /// case.
    pub budget: Duration,
}

impl BlobDirectory {
    /// Removes the blobs of the gone list that are due. Reads one block of the list if none is.
    ///
    /// `is_referenced` searches the slave's log, from its start to its position: it returns those
    /// of the given keys to which the log refers. It gets at most 250,000 keys, sorted by tid. It
    /// must not be called while the log is being written.
    pub fn remove_gone(
        &self,
        slave: &Slave,
        limits: RemovalLimits,
        mut is_referenced: impl FnMut(&[BlobKey]) -> Result<HashSet<BlobKey>, Error>,
    ) -> Result<Removed, Error> {
        let mut removed = Removed::default();
        let Some(mut list) = GoneList::open(&slave.paths)? else {
            return Ok(removed);
        };
        let entries = list.len();
        let mut keys = list.take_due(limits.now, limits.keep, MAX_SEARCHED)?;
        if entries == list.len() {
            // The oldest entry is not due yet.
            removed.left = entries;
            return Ok(removed);
        }
        slave.paths.sync_directory()?;
        let mut removal = Removal {
            directory: self,
            slave,
            limits,
            deadline: None,
            removed,
        };
        let mut start = 0;
        while !keys.is_empty() {
            let count = removal.search_and_remove(&keys, &mut is_referenced)?;
            if count < keys.len() {
                // Go back to the first entry that is not done.
                list.offset = start;
                list.take_due(limits.now, limits.keep, count)?;
                break;
            }
            start = list.offset;
            if removal.is_over() {
                break;
            }
            keys = list.take_due(limits.now, limits.keep, MAX_SEARCHED)?;
        }
        let mut removed = removal.removed;
        removed.left = list.len();
        if removed.files > 0 {
            syncfs(self.tree.root())
                .map_err(|error| Error::io("sync the file system of", self.path())(error.into()))?;
        }
        keep_rest(slave, &list)?;
        Ok(removed)
    }
}

/// A removal under way.
struct Removal<'a> {
    directory: &'a BlobDirectory,
    slave: &'a Slave,
    limits: RemovalLimits,
    /// The end of the budget, once the log was searched.
    deadline: Option<Instant>,
    removed: Removed,
}

impl Removal<'_> {
    fn is_over(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Searches the log for these blobs and removes the others, until the budget is spent. Returns
    /// how many of them are done: the first ones.
    fn search_and_remove(
        &mut self,
        keys: &[BlobKey],
        is_referenced: &mut impl FnMut(&[BlobKey]) -> Result<HashSet<BlobKey>, Error>,
    ) -> Result<usize, Error> {
        let Some(searched) = self.slave.stat()? else {
            // Without a log, nothing shows that a blob is not needed.
            return Ok(0);
        };
        let mut sorted = keys.to_owned();
        sorted.sort_unstable();
        sorted.dedup();
        let referenced = is_referenced(&sorted)?;
        drop(sorted);
        let budget = self.limits.budget;
        self.deadline.get_or_insert_with(|| Instant::now() + budget);
        let mut count = 0;
        let (slave, tree) = (self.slave, &self.directory.tree);
        for some in keys.chunks(MAX_IN_A_ROW) {
            change_in_steps(
                slave,
                tree,
                some,
                |step| step.check_unchanged(Some(searched)),
                |&key| {
                    if !referenced.contains(&key)
                        && let Some(size) = self.directory.remove_blob(key)?
                    {
                        self.removed.files += 1;
                        self.removed.bytes += size;
                    }
                    count += 1;
                    Ok(())
                },
            )?;
            if self.is_over() {
                break;
            }
        }
        Ok(count)
    }
}

impl BlobDirectory {
    /// Removes the file of a blob, and the directories that become empty, in a step. Returns the
    /// size of the file in bytes; `None` if there is none.
    pub(super) fn remove_blob(&self, key: BlobKey) -> Result<Option<u64>, Error> {
        let relative = self.layout.path(key);
        let found = self.stat(key)?;
        if found.is_some() {
            self.unlink(&relative, AtFlags::empty())?;
        }
        for above in relative.ancestors().skip(1) {
            // The blob directory itself remains. A directory that is not empty ends the loop.
            if above.as_os_str().is_empty() || !self.unlink(above, AtFlags::REMOVEDIR)? {
                break;
            }
        }
        Ok(found.map(|found| found.size))
    }

    /// Removes a file, or a directory if it is empty. Returns whether it is gone.
    fn unlink(&self, relative: &Path, flags: AtFlags) -> Result<bool, Error> {
        let name = relative.file_name().unwrap_or_default();
        let parent = relative.parent().unwrap_or(Path::new(""));
        let Some(parent) = self.tree.directory(parent)? else {
            return Ok(true);
        };
        match unlinkat(parent, name, flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) if flags == AtFlags::REMOVEDIR => Ok(false),
            Err(error) => Err(self.tree.fail("remove", relative)(error)),
        }
    }
}

/// Replaces the list with its entries from the offset of `list` on.
fn keep_rest(slave: &Slave, list: &GoneList) -> Result<(), Error> {
    if list.offset == 0 {
        return Ok(());
    }
    slave.check_cancelled()?;
    let paths = &slave.paths;
    if list.is_empty() {
        remove_if_exists(&list.path)?;
        return paths.sync_directory();
    }
    let new = paths.sibling(Sibling::BlobsGoneNew);
    remove_if_exists(&new)?;
    let file = Owner::of(paths)?.create_new(&new)?;
    let replaced = copy_rest(slave, list, &file, &new)
        .and_then(|()| file.sync_all().map_err(Error::io("sync", &new)))
        .and_then(|()| fs::rename(&new, &list.path).map_err(Error::io("rename", &new)));
    if let Err(error) = replaced {
        // A failure to remove the file would hide the first error.
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    paths.sync_directory()
}

/// Copies the entries from the offset of `list` on to the start of a new file.
fn copy_rest(slave: &Slave, list: &GoneList, to: &File, path: &Path) -> Result<(), Error> {
    let mut block = vec![0; BLOCK_LEN];
    for at in (list.offset..list.end).step_by(BLOCK_LEN) {
        slave.check_cancelled()?;
        let len = (list.end - at).min(BLOCK_LEN as u64) as usize;
        let got =
            read_fully(&list.file, &mut block[..len], at).map_err(Error::io("read", &list.path))?;
        to.write_all_at(&block[..got], at - list.offset)
            .map_err(Error::io("write", path))?;
    }
    Ok(())
}
