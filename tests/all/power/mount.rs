//! A [`Disk`] as a FUSE file system, which keeps a log of what is done to it.
//!
//! It has one directory with regular files. Nothing is cached in the kernel: each write,
//! sync and rename comes here, in its order, and one thread takes them. A process can be
//! killed in the midst of them, a sync can fail, and the disk can be full; what is read and
//! written can be so in part.

mod files;
mod state;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::{BackgroundSession, Config, MountOption};

use self::files::Files;
use self::state::{Fault, State};
use super::disk::{Disk, Op};
use crate::rng::Rng;
use crate::support::{must, require_root, tool};

/// Whom the directory belongs to.
pub const OWNER: u32 = 65534;

/// What was done to a disk, from when on it was recorded.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    pub start: Disk,
    pub ops: Vec<Op>,
    /// Whether the process has reported success.
    pub is_success: bool,
}

/// A disk, mounted until this is dropped.
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

    /// What is on it, durable or not.
    pub fn disk(&self) -> Disk {
        self.lock().disk.clone()
    }

    /// Puts another disk there.
    pub fn load(&self, disk: Disk) {
        let mut state = self.lock();
        state.disk = disk;
        state.fault = None;
        state.parts = None;
        state.log.clear();
        state.open.clear();
    }

    /// Makes all durable.
    pub fn make_durable(&self) {
        self.load(self.disk().settled());
    }

    /// What was done to it since the last call, or since it was loaded.
    pub fn take_log(&self) -> Vec<Op> {
        std::mem::take(&mut self.lock().log)
    }

    /// Kills the process that is about to make the operation after so many.
    pub fn kill_after(&self, ops: usize) {
        self.lock().fault = Some(Fault::Kill(ops));
    }

    /// Fails the sync after so many.
    pub fn fail_sync_after(&self, syncs: usize) {
        self.lock().fault = Some(Fault::FailSync(syncs));
    }

    /// Reads and writes less than is asked for, from now on, as rng say.
    pub fn answer_partially(&self, rng: Rng) {
        self.lock().parts = Some(rng);
    }

    /// Lets its files have so many bytes, and no more. What there is does not show it, as
    /// with a quota.
    pub fn allow(&self, bytes: usize) {
        self.lock().fault = Some(Fault::Full(bytes));
    }

    /// Lets all that follows succeed.
    pub fn stop_faults(&self) {
        self.lock().fault = None;
    }

    /// Whether anything was written, or synced, with a handle on which a sync had failed.
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
