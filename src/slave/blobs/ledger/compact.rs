//! Drops outdated entries from the blob ledger.
//!
//! Each blob that arrives adds an entry, and so does each comparison of a blob by its digest. An
//! entry is outdated if the log no longer refers to its blob, or if the blob has a later entry.
//!
//! # Order of writes, and the state after a crash
//!
//! 1. Write the other entries to a new file, and sync it. *Crash:* the old ledger. The next
//!    compaction removes the new file.
//! 2. Rename it over the ledger. *Crash:* the old ledger or the new one. Both are valid.

use std::collections::{BTreeMap, HashSet};
use std::fs;

use super::{BlobEntry, BlobLedger};
use crate::error::Error;
use crate::filestorage::blob::BlobKey;
use crate::slave::owner::Owner;
use crate::slave::paths::Sibling;
use crate::slave::small_file::remove_if_exists;
use crate::slave::step::Slave;

/// For how many entries the log is searched at once. They take some 80 bytes of memory each.
const WINDOW_LEN: usize = if cfg!(test) { 100 } else { 250_000 };

/// How many entries are written at once.
const BLOCK_LEN: usize = 1024;

impl BlobLedger {
    /// Replaces the ledger with one that lacks the outdated entries. Returns the number of entries
    /// that remain.
    ///
    /// `referenced` searches the slave's log: it returns those of the given keys, which are
    /// sorted, to which the log refers.
    pub fn compact(
        self,
        slave: &Slave,
        referenced: impl FnMut(&[BlobKey]) -> Result<HashSet<BlobKey>, Error>,
    ) -> Result<u64, Error> {
        slave.check_cancelled()?;
        let old = self.path.clone();
        let path = slave.paths.sibling(Sibling::BlobsNew);
        remove_if_exists(&path)?;
        let new = Self {
            file: Owner::of(&slave.paths)?.create_new(&path)?,
            path: path.clone(),
            records: 0,
        };
        let replaced = self.copy_to(new, slave, referenced).and_then(|new| {
            new.file.sync_all().map_err(Error::io("sync", &path))?;
            slave.check_cancelled()?;
            fs::rename(&path, &old).map_err(Error::io("rename", &path))?;
            Ok(new.len())
        });
        if replaced.is_err() {
            // A failure to remove the file would hide the first error.
            let _ = fs::remove_file(&path);
        }
        replaced
    }

    /// Copies the head and the entries that are not outdated.
    fn copy_to(
        self,
        mut new: Self,
        slave: &Slave,
        mut referenced: impl FnMut(&[BlobKey]) -> Result<HashSet<BlobKey>, Error>,
    ) -> Result<Self, Error> {
        new.write(&self.read(0, 1)?.concat(), 1)?;
        let mut entries = self.entries().peekable();
        while entries.peek().is_some() {
            // The last entry of a blob is valid. One in a later window remains after this one.
            let mut window = BTreeMap::new();
            for entry in entries.by_ref().take(WINDOW_LEN) {
                let entry = entry?;
                window.insert(entry.key, entry.state);
            }
            let keys: Vec<BlobKey> = window.keys().copied().collect();
            let needed = referenced(&keys)?;
            window.retain(|key, _| needed.contains(key));
            let window: Vec<BlobEntry> = window
                .into_iter()
                .map(|(key, state)| BlobEntry { key, state })
                .collect();
            for some in window.chunks(BLOCK_LEN) {
                new.append(slave, some)?;
            }
        }
        Ok(new)
    }
}
