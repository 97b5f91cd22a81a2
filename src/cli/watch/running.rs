//! A watch of a storage in a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fssync::config::NamedStorage;
use fssync::plan::outcome::Exit;
use fssync::watch::{WakeReason, Waker};

use crate::cli::systemd::Member;

/// Interval between two checks whether a thread has ended.
const END_CHECK: Duration = Duration::from_millis(5);

/// A watch that was started.
pub(super) struct Running {
    pub(super) storage: NamedStorage,
    pub(super) interrupted: Arc<AtomicBool>,
    pub(super) waker: Waker,
    pub(super) member: Arc<Member>,
    pub(super) thread: JoinHandle<Exit>,
    /// The delay before it is started again if it ends by itself.
    pub(super) delay: Duration,
}

impl Running {
    /// Asks it to end. systemd no longer expects heartbeats of its thread.
    pub(super) fn stop(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
        self.waker.wake(WakeReason::Signal);
        self.member.leave();
    }

    /// Whether its thread has not ended.
    pub(super) fn is_alive(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Waits until its thread has ended, and returns the exit code. A thread that has not ended by
    /// `until` hangs in the kernel: this is logged, and counts as a failure.
    pub(super) fn wait(self, until: Instant) -> Exit {
        while self.is_alive() {
            if Instant::now() >= until {
                let name = &self.storage.name;
                tracing::error!("storage {name} does not stop: a file system does not respond");
                return Exit::Failure;
            }
            thread::sleep(END_CHECK);
        }
        // A panic was printed already.
        self.thread.join().unwrap_or(Exit::Failure)
    }
}
