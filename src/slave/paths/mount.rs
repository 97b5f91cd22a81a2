//! The file system of the slave, and how it is recognised when it is mounted again.
//!
//! A watch must not mistake an empty mount point for the slave's directory, so it remembers
//! the device number of the file system. That number can change when a disk is unmounted and
//! mounted again. Therefore the fingerprint that the last pass left is remembered as well: if
//! the slave in the directory still matches it, the new device number is accepted.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{OpenMode, SlavePaths, open};
use crate::slave::sidecar::Fingerprint;

/// The file system of the slave.
#[derive(Debug)]
pub(super) struct Mount {
    device: AtomicU64,
    /// The slave as the last pass left it; `None` before the first pass.
    slave: Mutex<Option<Fingerprint>>,
}

impl Mount {
    /// The file system with this device number.
    pub(super) fn new(device: u64) -> Self {
        Self {
            device: AtomicU64::new(device),
            slave: Mutex::default(),
        }
    }

    /// The device number.
    pub(super) fn device(&self) -> u64 {
        self.device.load(Ordering::Relaxed)
    }

    /// Remembers the slave as a pass left it.
    pub(super) fn remember(&self, slave: Option<Fingerprint>) {
        *self.slave.lock().unwrap_or_else(PoisonError::into_inner) = slave;
    }

    /// Whether the directory contains the slave as the last pass left it. If so, the device
    /// number that it has now is remembered.
    pub(super) fn recognise(&self, paths: &SlavePaths) -> bool {
        let slave = *self.slave.lock().unwrap_or_else(PoisonError::into_inner);
        let found = slave.and_then(|slave| device_with(paths, slave));
        if let Some(device) = found {
            self.device.store(device, Ordering::Relaxed);
        }
        found.is_some()
    }
}

/// The device number of the slave's directory if the slave has this fingerprint; `None` if
/// it has another one or cannot be read.
fn device_with(paths: &SlavePaths, expected: Fingerprint) -> Option<u64> {
    let file = open(paths.data(), OpenMode::Read).ok()?;
    let fingerprint = Fingerprint::of(&file, expected.position, expected.last_tid).ok()?;
    let device = file.metadata().ok()?.dev();
    let directory = fs::metadata(paths.directory()).ok()?;
    (fingerprint == expected && directory.dev() == device).then_some(device)
}
