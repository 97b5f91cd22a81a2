//! The programs that [`process::run`](super::process::run) has started, if fssync is process 1 of a
//! container.
//!
//! Such a process must reap all children that have ended, also those that it has inherited. A
//! thread that does this may reap a program before the thread that waits for it, so it keeps the
//! status here.
//!
//! 1. While a program is being started, its process id is not known yet. Nothing is reaped then.
//! 2. A program is killed while the list is locked, and thus not reaped at the same time. Its
//!    process id cannot belong to another process.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process_group, wait};

static CHILDREN: Mutex<Children> = Mutex::new(Children {
    starting: 0,
    statuses: BTreeMap::new(),
});

struct Children {
    /// Number of programs that are being started.
    starting: usize,
    /// The programs, with the status of those that another thread has reaped.
    statuses: BTreeMap<i32, Option<ExitStatus>>,
}

fn lock() -> MutexGuard<'static, Children> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A program that was started, until this is dropped.
#[derive(Debug)]
pub(super) struct Program(Child);

impl Program {
    /// Starts a program.
    pub(super) fn start(command: &mut Command) -> io::Result<Self> {
        lock().starting += 1;
        // This can take long, for example from a slow file system.
        let spawned = command.spawn();
        let mut children = lock();
        children.starting -= 1;
        let program = Self(spawned?);
        children.statuses.insert(program.id(), None);
        Ok(program)
    }

    fn id(&self) -> i32 {
        self.0.id().cast_signed()
    }

    /// How it ended; `None` if it still runs.
    pub(super) fn status(&mut self) -> Option<ExitStatus> {
        let children = lock();
        let kept = children.statuses.get(&self.id()).copied().flatten();
        kept.or_else(|| self.0.try_wait().ok().flatten())
    }

    /// Kills its process group, if it still runs.
    pub(super) fn kill(&mut self) {
        let children = lock();
        let kept = children.statuses.get(&self.id()).copied().flatten();
        if kept.is_none() && matches!(self.0.try_wait(), Ok(None)) {
            let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        lock().statuses.remove(&self.id());
    }
}

/// Reaps a child that has ended and that is not one of these programs. Returns `None` if there is
/// none now.
pub(crate) fn reap_another() -> Option<(Pid, WaitStatus)> {
    let mut children = lock();
    while children.starting == 0 {
        let (pid, status) = wait(WaitOptions::NOHANG).ok()??;
        match children.statuses.get_mut(&pid.as_raw_pid()) {
            Some(kept) => *kept = Some(ExitStatus::from_raw(status.as_raw())),
            None => return Some((pid, status)),
        }
    }
    None
}
