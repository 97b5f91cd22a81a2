//! A [`Disk`] as a FUSE file system that records all operations and injects faults.
//!
//! It has directories and regular files. The kernel caches nothing: it passes each write, sync
//! and rename on in its order, and one thread carries them out. A process can be killed before an
//! operation, a sync can fail, the disk can be full, and reads and writes can be partial.

mod files;
mod state;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::{BackgroundSession, Config, MountOption};

use self::files::Files;
use self::state::{DiskFault, State};
use super::disk::{Disk, Op};
use crate::rng::Rng;
use crate::support::{must, require_root, tool};

/// The owner of the directory.
pub const OWNER: u32 = 65534;

/// The operations on a disk, and the disk before them.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    pub start: Disk,
    pub ops: Vec<Op>,
    /// Whether the process has reported success.
    pub is_success: bool,
}

/// A disk that is mounted until this is dropped.
pub struct MountedDisk {
    directory: PathBuf,
    state: Arc<Mutex<State>>,
    session: Option<BackgroundSession>,
}

impl MountedDisk {
    /// Mounts an empty disk.
    pub fn mount(directory: &Path) -> Self {
        require_root();
        let state = Arc::new(Mutex::new(State::default()));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("powered".to_owned())];
        let files = Files(Arc::clone(&state));
        let session = fuser::spawn_mount(files, directory, &config).expect("a mount of FUSE");
        Self {
            directory: directory.to_owned(),
            state,
            session: Some(session),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk as it is now.
    pub fn disk(&self) -> Disk {
        self.lock().disk.clone()
    }

    /// Replaces the disk, and ends all faults.
    pub fn load(&self, disk: Disk) {
        let mut state = self.lock();
        state.disk = disk;
        state.fault = None;
        state.parts = None;
        state.log.clear();
        state.open.clear();
    }

    /// Makes all data durable.
    pub fn make_durable(&self) {
        self.load(self.disk().settled());
    }

    /// The operations since the last call, or since the disk was loaded.
    pub fn take_log(&self) -> Vec<Op> {
        std::mem::take(&mut self.lock().log)
    }

    /// After this number of operations, kills the process before the next one.
    pub fn kill_after(&self, ops: usize) {
        self.lock().fault = Some(DiskFault::Kill(ops));
    }

    /// After this number of syncs, the next one fails.
    pub fn fail_sync_after(&self, syncs: usize) {
        self.lock().fault = Some(DiskFault::FailSync(syncs));
    }

    /// From now on, makes reads and writes partial, at random.
    pub fn answer_partially(&self, rng: Rng) {
        self.lock().parts = Some(rng);
    }

    /// Limits the bytes of all files, like a quota: the free space does not show it.
    pub fn allow(&self, bytes: usize) {
        self.lock().fault = Some(DiskFault::Full(bytes));
    }

    /// Ends all faults.
    pub fn stop_faults(&self) {
        self.lock().fault = None;
    }

    /// Whether a handle was used for writing or syncing after a sync of it had failed.
    pub fn reused_a_failed_handle(&self) -> bool {
        self.lock().reused_failed
    }
}

impl Drop for MountedDisk {
    fn drop(&mut self) {
        must(tool("umount", "mount").arg("-l").arg(&self.directory));
        drop(self.session.take());
    }
}
