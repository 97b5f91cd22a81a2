//! The programs that fssync has started, if fssync is process 1 of a container.
//!
//! Such a process must reap the children that it inherits. It must not reap its own programs: the
//! threads that have started them need their exit status, and a process id must not be given to
//! another process while somebody may still send a signal to it.
//!
//! 1. While a program is being started, its process id is not known yet. Nothing is reaped then.
//! 2. The kernel reports children that have ended in the order of their start. An inherited one is
//!    reaped only once no program of ours before it waits to be reaped, which happens soon.

use std::collections::BTreeSet;
use std::io;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use rustix::process::{Pid, Signal, kill_process_group};

static CHILDREN: Mutex<Children> = Mutex::new(Children {
    starting: 0,
    own: BTreeSet::new(),
});

struct Children {
    /// Number of programs that are being started.
    starting: usize,
    /// The process ids of the programs.
    own: BTreeSet<i32>,
}

fn lock() -> MutexGuard<'static, Children> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The process id of a program that only its owner reaps, until this is dropped.
#[derive(Debug)]
pub(crate) struct OwnPid(Pid);

impl OwnPid {
    /// The process id, which is that of another process once the program was reaped.
    pub(crate) fn get(&self) -> Pid {
        self.0
    }
}

impl Drop for OwnPid {
    fn drop(&mut self) {
        lock().own.remove(&self.0.as_raw_pid());
    }
}

/// Starts a program.
pub(crate) fn spawn(command: &mut Command) -> io::Result<(Child, OwnPid)> {
    lock().starting += 1;
    // This can take long, for example from a slow file system.
    let spawned = command.spawn();
    let mut children = lock();
    children.starting -= 1;
    let child = spawned?;
    let pid = Pid::from_child(&child);
    children.own.insert(pid.as_raw_pid());
    drop(children);
    Ok((child, OwnPid(pid)))
}

/// Reaps the children that have ended and were not started with [`spawn`], as far as they are not
/// preceded by one that was.
pub(crate) fn reap_others() {
    let children = lock();
    if children.starting > 0 {
        return;
    }
    loop {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let Ok(WaitStatus::Exited(ended, _) | WaitStatus::Signaled(ended, _, _)) =
            waitid(Id::All, look)
        else {
            // None has ended, or there are no children.
            return;
        };
        if children.own.contains(&ended.as_raw()) || waitpid(ended, None).is_err() {
            return;
        }
    }
}

/// A program that runs in a process group of its own.
#[derive(Debug)]
pub(super) struct Program {
    child: Child,
    _pid: OwnPid,
}

impl Program {
    /// Starts a program.
    pub(super) fn start(command: &mut Command) -> io::Result<Self> {
        let (child, pid) = spawn(command)?;
        Ok(Self { child, _pid: pid })
    }

    /// How it ended; `None` if it still runs.
    pub(super) fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Kills its process group, if it still runs.
    pub(super) fn kill(&mut self) {
        if self.status().is_none() {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
    }
}
