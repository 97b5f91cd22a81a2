//! The locks, and the processes that hold them.
//!
//! | lock | file | duration | holder |
//! | --- | --- | --- | --- |
//! | pass lock | `Data.fs.fssync-pass` | a whole pass | the pass |
//! | step lock | `Data.fs.fssync-step` | some milliseconds | a process that changes the slave, or `fssync off` |
//! | ZODB's lock | `Data.fs.lock` | some milliseconds | ZODB, or fssync in a step |
//!
//! All three are `flock(LOCK_EX | LOCK_NB)`, as `zc.lockfile` takes ZODB's lock. Lock files
//! are opened only for locking and are never removed. To find the holder of a lock, nobody
//! takes the lock: see [`io::flock`](crate::io::flock).

use std::fs::File;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, retry_on_intr};

use super::owner::Owner;
use super::paths::{Sibling, SlavePaths};
use crate::error::Error;
use crate::io::flock::holder;

/// How long to wait for the step lock. Its holders keep it for milliseconds.
const STEP_LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// A lock that is held until this value is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Drop for Lock {
    /// Unlocks explicitly. Closing the file would not release the lock while a child process,
    /// started by another thread, has an inherited copy of the handle.
    fn drop(&mut self) {
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Tries to take the pass lock; `None` if another pass has it.
pub fn take_pass(paths: &SlavePaths) -> Result<Option<Lock>, Error> {
    take_pass_after(paths, || Ok(()))
}

/// The same. If the lock file does not exist because no pass was made yet, `check_first` is
/// called before it is created.
pub fn take_pass_after(
    paths: &SlavePaths,
    check_first: impl FnOnce() -> Result<(), Error>,
) -> Result<Option<Lock>, Error> {
    let path = paths.sibling(Sibling::PassLock);
    let file = if let Some(file) = Owner::open_for(paths, &path)? {
        file
    } else {
        check_first()?;
        Owner::open_or_create_for(paths, &path)?
    };
    try_lock(file, &path)
}

/// Tries to take ZODB's lock. Fails with [`Error::InUse`] if another process has it.
pub fn take_zodb(paths: &SlavePaths) -> Result<Lock, Error> {
    let path = paths.sibling(Sibling::ZodbLock);
    try_take(&path, paths)?.ok_or_else(|| Error::InUse {
        slave: paths.data().to_owned(),
        pid: holder(&path),
    })
}

/// Takes the step lock. Waits for its holder, up to the timeout.
pub fn take_step(paths: &SlavePaths) -> Result<Lock, Error> {
    let path = paths.sibling(Sibling::StepLock);
    let started = Instant::now();
    loop {
        if let Some(lock) = try_take(&path, paths)? {
            return Ok(lock);
        }
        if started.elapsed() > STEP_LOCK_TIMEOUT {
            let by = holder(&path).map_or_else(String::new, |pid| format!(" by process {pid}"));
            let secs = STEP_LOCK_TIMEOUT.as_secs();
            let error = io::Error::other(format!("held{by} for more than {secs} s"));
            return Err(Error::io("lock", &path)(error));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn try_take(path: &Path, paths: &SlavePaths) -> Result<Option<Lock>, Error> {
    try_lock(Owner::open_or_create_for(paths, path)?, path)
}

fn try_lock(file: File, path: &Path) -> Result<Option<Lock>, Error> {
    match retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => Ok(Some(Lock { file })),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(Error::io("lock", path)(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::flock::holders;

    #[test]
    fn a_lock_is_found_while_it_is_held() {
        let directory = tempfile::tempdir().unwrap();
        let paths = SlavePaths::new(&directory.path().join("Data.fs")).unwrap();
        let path = paths.sibling(Sibling::PassLock);
        let lock = take_pass(&paths).unwrap().unwrap();
        let step = paths.sibling(Sibling::StepLock);
        assert_eq!(holder(&path), Some(std::process::id()));
        assert_eq!(holders([&step, &path]), [None, Some(std::process::id())]);
        assert!(take_pass(&paths).unwrap().is_none());
        drop(lock);
        assert_eq!(holder(&path), None);
    }

    #[test]
    fn a_lock_is_released_although_its_handle_was_inherited() {
        let directory = tempfile::tempdir().unwrap();
        let paths = SlavePaths::new(&directory.path().join("Data.fs")).unwrap();
        let lock = take_pass(&paths).unwrap().unwrap();
        // A child process has such a copy between fork and exec.
        let inherited = lock.file.try_clone().unwrap();
        drop(lock);
        assert!(take_pass(&paths).unwrap().is_some());
        drop(inherited);
    }
}
