//! Directories that this process has synced, and that nobody has changed since.
//!
//! The directories near the root of a blob directory rarely change. A watch that places one blob
//! would otherwise sync nine of them each time, and each sync makes the disk flush its cache.
//!
//! A directory need not be synced again under these conditions:
//!
//! 1. This process synced it successfully.
//! 2. It has the same inode number and time of change (`ctime`) as just before that sync. Each new
//!    name in a directory sets the time to the present, and no program can set it otherwise.
//! 3. That time was at least two seconds before the sync. A name that was added after the sync
//!    would therefore have another time, even on a file system that only stores full seconds.
//!
//! A process that was killed takes its knowledge with it, so the next one syncs everything.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::Stat;

/// How long before the sync the last change must have been, in seconds.
const MIN_AGE: i64 = 2;

/// How many directories are remembered.
const MAX_LEN: usize = 4096;

/// The directories of a blob directory that this process has synced.
#[derive(Debug, Default)]
pub struct SyncedDirectories(Mutex<HashMap<Identity, Time>>);

/// Device and inode number.
type Identity = (u64, u64);

/// Seconds since 1970, and nanoseconds.
type Time = (i64, i64);

impl SyncedDirectories {
    /// Whether a directory in this state was synced.
    pub(super) fn contains(&self, found: &Stat) -> bool {
        self.lock().get(&identity(found)) == Some(&changed(found))
    }

    /// Remembers a directory that was synced successfully. `before` is its state before the sync,
    /// which began at `began`, in seconds since 1970.
    pub(super) fn insert(&self, before: &Stat, began: i64) {
        let changed = changed(before);
        if changed.0.saturating_add(MIN_AGE) > began {
            return;
        }
        let mut synced = self.lock();
        if synced.len() >= MAX_LEN {
            synced.clear();
        }
        synced.insert(identity(before), changed);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identity, Time>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The current time, in seconds since 1970.
pub(super) fn seconds_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs().cast_signed())
}

fn identity(found: &Stat) -> Identity {
    (found.st_dev, found.st_ino)
}

fn changed(found: &Stat) -> Time {
    (found.st_ctime, found.st_ctime_nsec.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::thread;
    use std::time::Duration;

    use rustix::fs::fstat;

    #[test]
    fn a_directory_is_synced_again_after_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let handle = File::open(directory.path()).unwrap();
        let synced = SyncedDirectories::default();
        let before = fstat(&handle).unwrap();
        // A change within the same seconds could leave the same time.
        synced.insert(&before, before.st_ctime);
        synced.insert(&before, before.st_ctime + 1);
        assert!(!synced.contains(&before));
        synced.insert(&before, before.st_ctime + 2);
        assert!(synced.contains(&before));
        // A tick of the clock of most file systems takes up to 10 ms.
        thread::sleep(Duration::from_millis(50));
        fs::write(directory.path().join("new"), "").unwrap();
        assert!(!synced.contains(&fstat(&handle).unwrap()));
    }

    #[test]
    fn the_number_of_remembered_directories_is_limited() {
        let directory = tempfile::tempdir().unwrap();
        let mut stat = fstat(File::open(directory.path()).unwrap()).unwrap();
        let synced = SyncedDirectories::default();
        for inode in 0..=MAX_LEN as u64 {
            stat.st_ino = inode;
            synced.insert(&stat, i64::MAX);
        }
        assert_eq!(synced.lock().len(), 1);
    }
}
