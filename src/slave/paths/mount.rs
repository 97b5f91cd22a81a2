//! The file system that the slave is on, and how it is recognised.
//!
//! A watch must not take an empty mount point for the slave's directory, so it keeps the
//! device number of the file system. That number is not the file system's own: a disk that
//! is unmounted may come back under another one. What the last pass left is kept for that
//! reason, and the file is compared with it: its position, and the digests of its head and
//! of the bytes in front of its position.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{OpenMode, SlavePaths, open};
use crate::slave::sidecar::Fingerprint;

/// The file system that the slave is on.
#[derive(Debug)]
pub(super) struct Mount {
    device: AtomicU64,
    /// The slave as the last pass left it, if a pass has left one.
    left: Mutex<Option<Fingerprint>>,
}

impl Mount {
    /// The file system with this device number.
    pub(super) fn new(device: u64) -> Self {
        Self {
            device: AtomicU64::new(device),
            left: Mutex::default(),
        }
    }

    /// Its device number.
    pub(super) fn device(&self) -> u64 {
        self.device.load(Ordering::Relaxed)
    }

    pub(super) fn note_left(&self, left: Option<Fingerprint>) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = left;
    }

    /// Whether the slave is found as it was left, so that this is its file system; then the
    /// device number is the one that this has now.
    pub(super) fn recognise(&self, paths: &SlavePaths) -> bool {
        let left = *self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let found = left.and_then(|left| device_with(paths, left));
        if let Some(device) = found {
            self.device.store(device, Ordering::Relaxed);
        }
        found.is_some()
    }
}

/// The device number of the slave's directory, if the slave has this mark. What cannot be
/// read is not recognised.
fn device_with(paths: &SlavePaths, left: Fingerprint) -> Option<u64> {
    let file = open(paths.data(), OpenMode::Read).ok()?;
    let fingerprint = Fingerprint::of(&file, left.position, left.last_tid).ok()?;
    let device = file.metadata().ok()?.dev();
    let directory = fs::metadata(paths.directory()).ok()?;
    (fingerprint == left && directory.dev() == device).then_some(device)
}
