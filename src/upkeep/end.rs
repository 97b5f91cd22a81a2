//! The index at the end of a watch, which must not wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::index::{complaint, make, store_sidecar};
use super::lock_as_left;
use super::task::{Task, Wanted, is_in_use, task};
use crate::error::Error;
use crate::io::progress::Silent;
use crate::slave::index::coverage::Coverage;
use crate::slave::paths::Sibling;
use crate::slave::step::Slave;

/// For how long the end of a watch may be put off for the index.
const AT_END: Duration = Duration::from_millis(400);

/// The largest index that is stored again at the end of a watch, in bytes: a
/// greater one takes longer to read, to write and to sync.
const MAX_LEN_AT_END: u64 = 16 * 1024 * 1024;

/// Brings the index up to the slave's position at the end of a watch, if that
/// takes no time to speak of: where it would, the one that lies there serves.
pub fn at_end(slave: &Slave) {
    let interrupted = Arc::new(AtomicBool::new(false));
    let slave = Slave {
        paths: slave.paths.clone(),
        switches: slave.switches.clone(),
        interrupted: Arc::clone(&interrupted),
    };
    let timer = thread::Builder::new().spawn(move || {
        thread::sleep(AT_END);
        interrupted.store(true, Ordering::Relaxed);
    });
    if timer.is_err() {
        // Nothing would end the work in time.
        return;
    }
    if let Some(why) = try_at_end(&slave).err().as_ref().and_then(complaint) {
        tracing::warn!("{why}");
    }
}

fn try_at_end(slave: &Slave) -> Result<(), Error> {
    slave.check_cancelled()?;
    let Some((_lock, seen, position, mut sidecar)) = lock_as_left(slave)? else {
        return Ok(());
    };
    // A part of a full copy, which waits there for the master, is worth more.
    if slave.paths.sibling(Sibling::Tmp).exists() {
        return Ok(());
    }
    let known = sidecar.index.as_ref();
    let is_quick = match task(&slave.paths, known, position, Wanted::Newest)? {
        Task::Nothing => return Ok(()),
        Task::Build => Coverage::is_little(position),
        Task::Extend(known) => {
            Coverage::is_little(position - known.position())
                && known.stored().is_some_and(|it| it.len() <= MAX_LEN_AT_END)
        }
    };
    if !is_quick || is_in_use(slave) {
        return Ok(());
    }
    let made = make(
        slave,
        (seen, position),
        Duration::MAX,
        &mut sidecar,
        &Silent,
    );
    store_sidecar(slave, made, &sidecar)
}
