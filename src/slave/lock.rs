//! The locks, and who holds them.
//!
//! Three, never confused:
//!
//! | lock | file | held | by |
//! | --- | --- | --- | --- |
//! | pass lock | `Data.fs.fssync-pass` | a whole pass | one pass |
//! | step lock | `Data.fs.fssync-step` | some milliseconds | whoever changes the slave, or `fssync off` |
//! | ZODB's lock | `Data.fs.lock` | some milliseconds | ZODB, or we in a step |
//!
//! All are `flock(LOCK_EX | LOCK_NB)`, as `zc.lockfile` takes its own. Lock
//! files are opened for that only and never unlinked. To ask who holds a lock,
//! /proc/locks is read: even a shared lock taken for a glance kills a ZEO that
//! starts in that moment.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FlockOperation, StatxFlags, flock, statx};
use rustix::io::{Errno, retry_on_intr};

use super::owner::Owner;
use super::paths::{Beside, Place};
use crate::error::Stop;

/// How long is waited for the step lock. Its holders keep it for milliseconds.
const STEP_LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// A lock that is held; released when dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Drop for Lock {
    /// To close the file would not do where a process that is just being started
    /// from another thread has a copy of the handle.
    fn drop(&mut self) {
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Tries to take the lock of the pass; `None` if another pass has it.
pub fn take_pass(place: &Place) -> Result<Option<Lock>, Stop> {
    take_pass_after(place, || Ok(()))
}

/// The same, with a check before the lock file is created: where no pass was made yet.
pub fn take_pass_after(
    place: &Place,
    check_first: impl FnOnce() -> Result<(), Stop>,
) -> Result<Option<Lock>, Stop> {
    let path = place.beside(Beside::PassLock);
    let file = if let Some(file) = Owner::open_for(place, &path)? {
        file
    } else {
        check_first()?;
        Owner::open_or_create_for(place, &path)?
    };
    try_lock(file, &path)
}

/// Tries to take ZODB's lock.
pub fn take_zodb(place: &Place) -> Result<Lock, Stop> {
    let path = place.beside(Beside::ZodbLock);
    try_take(&path, place)?.ok_or_else(|| Stop::InUse {
        slave: place.data().to_owned(),
        pid: holder(&path),
    })
}

/// Takes the step lock, waiting for its holder.
pub fn take_step(place: &Place) -> Result<Lock, Stop> {
    let path = place.beside(Beside::StepLock);
    let started = Instant::now();
    loop {
        if let Some(lock) = try_take(&path, place)? {
            return Ok(lock);
        }
        if started.elapsed() > STEP_LOCK_PATIENCE {
            let by = holder(&path).map_or_else(String::new, |pid| format!(" by process {pid}"));
            let secs = STEP_LOCK_PATIENCE.as_secs();
            let error = io::Error::other(format!("held{by} for more than {secs} s"));
            return Err(Stop::io("lock", &path)(error));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn try_take(path: &Path, place: &Place) -> Result<Option<Lock>, Stop> {
    try_lock(Owner::open_or_create_for(place, path)?, path)
}

fn try_lock(file: File, path: &Path) -> Result<Option<Lock>, Stop> {
    match retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => Ok(Some(Lock { file })),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(Stop::io("lock", path)(error.into())),
    }
}

/// The process that holds a `flock` on the file, if there is one and the kernel
/// tells.
#[must_use]
pub fn holder(path: &Path) -> Option<u32> {
    let [holder] = holders([path]);
    holder
}

/// The same for several files, at one moment.
#[must_use]
pub fn holders<const N: usize>(paths: [&Path; N]) -> [Option<u32>; N] {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let files = paths.map(|path| name_of(path, &mounts));
    let locks = if files.iter().any(Option::is_some) {
        fs::read_to_string("/proc/locks").unwrap_or_default()
    } else {
        String::new()
    };
    files.map(|file| {
        locks
            .lines()
            .find_map(|line| holder_in(line, file.as_ref()?))
    })
}

/// What /proc/locks calls a file: by the device of its mounted file system, which
/// on btrfs is not the one that `stat` gives.
fn name_of(path: &Path, mounts: &str) -> Option<String> {
    let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
    let found = statx(CWD, path, AtFlags::empty(), wanted).ok()?;
    let has_mount = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID);
    let mounted = has_mount.then(|| {
        mounts
            .lines()
            .find_map(|line| device_in(line, found.stx_mnt_id))
    });
    let (major, minor) = mounted
        .flatten()
        .unwrap_or((found.stx_dev_major, found.stx_dev_minor));
    Some(format!("{major:02x}:{minor:02x}:{}", found.stx_ino))
}

/// The device in a line of /proc/self/mountinfo, such as
/// `277 27 0:63 / /srv rw,relatime - btrfs /dev/sda1 rw`, if it is about the mount
/// with this number.
fn device_in(line: &str, mount: u64) -> Option<(u32, u32)> {
    let mut fields = line.split(' ');
    if fields.next()?.parse() != Ok(mount) {
        return None;
    }
    let (major, minor) = fields.nth(1)?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The process in a line of /proc/locks, such as
/// `1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`, if it is about `file`.
/// Who waits for a lock stands in a line with an arrow.
fn holder_in(line: &str, file: &str) -> Option<u32> {
    let mut fields = line.split_whitespace().skip(1);
    if fields.next()? != "FLOCK" {
        return None;
    }
    let pid = fields.nth(2)?;
    (fields.next()? == file).then(|| pid.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_locks_names_the_holder_and_not_who_waits() {
        let file = "fe:00:5678";
        let line = "12: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF";
        assert_eq!(holder_in(line, file), Some(1234));
        assert_eq!(holder_in(line, "fe:00:567"), None);
        for other in [
            "12: -> FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF",
            "12: POSIX  ADVISORY  WRITE 1234 fe:00:5678 0 EOF",
            "12: FLOCK",
            "",
        ] {
            assert_eq!(holder_in(other, file), None, "{other}");
        }
    }

    #[test]
    fn a_mounts_device_is_found_by_its_number() {
        let line = "277 27 0:63 / /srv/a\\040b rw,relatime - btrfs /dev/sda1 rw,subvol=/";
        assert_eq!(device_in(line, 277), Some((0, 63)));
        for other in [line, "", "27", "27 27", "27 27 0", "27 27 x:0 / / rw"] {
            assert_eq!(device_in(other, 27), None, "{other}");
        }
    }

    #[test]
    fn a_lock_is_found_while_it_is_held() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::new(&directory.path().join("Data.fs")).unwrap();
        let path = place.beside(Beside::PassLock);
        let lock = take_pass(&place).unwrap().unwrap();
        let step = place.beside(Beside::StepLock);
        assert_eq!(holder(&path), Some(std::process::id()));
        assert_eq!(holders([&step, &path]), [None, Some(std::process::id())]);
        assert!(take_pass(&place).unwrap().is_none());
        drop(lock);
        assert_eq!(holder(&path), None);
    }

    #[test]
    fn a_lock_is_let_go_although_its_handle_was_inherited() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::new(&directory.path().join("Data.fs")).unwrap();
        let lock = take_pass(&place).unwrap().unwrap();
        // What a process has between fork and exec.
        let inherited = lock.file.try_clone().unwrap();
        drop(lock);
        assert!(take_pass(&place).unwrap().is_some());
        drop(inherited);
    }
}
