//! Hooks and pings: programs that fssync runs to report how passes ended.
//!
//! A *hook* is a command that runs on events of a storage, such as `diverged`. A *ping* is a
//! request to a monitoring service that is sent regularly while all storages are in sync. Both
//! are child processes: this module reads no master, and it writes only its own
//! [record](crate::slave::hook_record) beside the slave.
//!
//! [`Notifier`] connects the parts: [`history`] decides without I/O which hooks are due, [`ping`]
//! does the same for pings, and [`process`](crate::io::process) runs a command with a time limit.
//!
//! # Why a hook delays neither replication nor `fssync off`
//!
//! 1. *It hangs.* It has a thread of its own. A pass only hands its outcome over, after it has
//!    released the pass lock. At the end of `timeout`, the whole process group is killed.
//! 2. *It does not read its standard input.* The input is a file in memory, not a pipe.
//! 3. *It floods its output.* The output is read in small pieces with pauses, and only the end
//!    of it is kept.
//! 4. *It starts a daemon that keeps its output open.* fssync waits for the process that it has
//!    started, and not for the end of the output.
//! 5. *It inherits a lock.* All files are closed when a program starts. Even before that, locks
//!    are released explicitly: see [`slave::lock`](crate::slave::lock).
//! 6. *It fails or cannot be started.* That is logged. The exit code of a pass does not change.
//! 7. *Syncing is switched off.* The record is written under the step lock and only while syncing
//!    is on, so nothing is written after `fssync off` has returned. Hooks that are still due do
//!    not run.

pub mod command;
pub mod history;
pub mod ping;

mod hook_thread;
mod notifier;
mod ping_thread;
mod site;
mod storage;

pub use self::notifier::{Notifier, Run};
