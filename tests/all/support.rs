//! Shared by the tests: the program under test, ZODB, masters, slaves and their files.

use std::any::Any;
use std::env;
use std::thread;
use std::time::{Duration, Instant};

mod blob_history;
mod files;
mod masters;
mod notify_socket;
mod package;
mod process;
mod scene;
mod source;
mod users;
mod zodb;

pub use blob_history::BlobHistory;
pub use files::{names, project, replace, rewrite_end, snapshot, snapshot_of};
pub use masters::{
    History, append_killed_at_sync, append_sparse, kill_append_at_sync, kill_at_sync, sparse_master,
};
pub use notify_socket::NotifySocket;
pub use package::packaged;
pub use process::{
    Holder, Run, Taken, fssync, measured, must, pass_here, report_here, run, run_in_a_pass, spawn,
    strace, tool, tracer, without_forks, write_program,
};
pub use scene::{Scene, Transport};
pub use source::{Call, Hooked};
pub use users::{as_nobody, own, require_root};
pub use zodb::{Blobs, Setup, Zodb, blobs_beside, python};

/// A number from an environment variable.
pub fn number(variable: &str) -> Option<usize> {
    let value = env::var(variable).ok()?;
    let number = value.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is not a number: {value}")))
}

/// The message of a panic.
pub fn said_by(panic: &(dyn Any + Send)) -> String {
    let message = panic.downcast_ref::<String>().cloned();
    let message = message.or_else(|| panic.downcast_ref::<&str>().map(|&it| it.to_owned()));
    message.unwrap_or_default()
}

/// Waits until a condition holds, for ten seconds at most.
pub fn wait_for(what: &str, is_there: impl FnMut() -> bool) {
    wait_up_to(Duration::from_secs(10), what, is_there);
}

/// Waits until a condition holds, for some minutes at most: cron works once a minute.
pub fn wait_for_minutes(minutes: u64, what: &str, is_there: impl FnMut() -> bool) {
    wait_up_to(Duration::from_secs(60 * minutes), what, is_there);
}

fn wait_up_to(limit: Duration, what: &str, mut is_there: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_there() {
        assert!(started.elapsed() < limit, "no {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
