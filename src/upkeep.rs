//! Keeping ready what lies beside the slave: ZODB's index, and the digests.
//!
//! | when | what |
//! | --- | --- |
//! | a full copy | the index is built from what streams by, and stored once the copy is in its place ([`index::store_built`]) |
//! | the end of a pass | stored again if it is due, built anew if it is not what was left there ([`index::after_pass`]); digests that lack are asked for ([`ledger`]) |
//! | a watch rests | the index again, in pieces, which make way for a pass ([`IdleWork`]) |
//! | the end of a watch | stored again if there is anything new, and time for it ([`at_end`]) |
//!
//! Caches: what goes wrong here is told, and costs no pass its outcome. They are
//! worked on only when all that was copied is durable, visible and noted.
//!
//! An index that is not as it was left here is removed at once, before the slave is read
//! for a new one: it may be a former slave's, saved by a ZODB that had let its
//! lock go, and ZODB would believe it.
//!
//! While a pass works on the index, no other is made. So it stores one of a position in
//! between when that takes too long, which spares ZODB a part of its scan, and the next
//! pass goes on from there.
//!
//! A try that fails once much of the slave was read for it is not repeated at the
//! next pass, but after a while ([`failure`](crate::slave::index::failure)).

mod end;
pub mod index;
pub mod ledger;
mod rests;
mod task;
mod work;

pub use self::end::at_end;
pub use self::rests::IdleWork;

use crate::error::Error;
use crate::io::file_stat::FileStat;
use crate::plan::switch_on::SinceLastPass;
use crate::slave::lock::{self, Lock};
use crate::slave::running::busy;
use crate::slave::sidecar::Sidecar;
use crate::slave::since_last_pass::since_last_pass;
use crate::slave::step::Slave;

/// Why work was not done, if that is worth telling: what others do to the slave or
/// the switch is for the next pass to say.
fn complain(what: &str, error: &Error) -> Option<String> {
    let why = error.display_chain();
    if is_failure(error) {
        return Some(format!("{what}: {why}"));
    }
    tracing::debug!("{what} for now: {why}");
    None
}

/// Whether work went wrong, and was not only hindered.
fn is_failure(error: &Error) -> bool {
    !matches!(
        error,
        Error::Off(_)
            | Error::Interrupted
            | Error::InUse { .. }
            | Error::Busy { .. }
            | Error::SlaveChanged { .. }
            | Error::Unreachable(_)
            | Error::MasterChanged { .. }
    )
}

/// The slave as the last pass left it, if it is that still: what was seen, its
/// position, and the sidecar that says so.
fn as_left(slave: &Slave) -> Result<Option<(FileStat, u64, Sidecar)>, Error> {
    let sidecar = Sidecar::load(&slave.paths)?;
    let (Some(seen), Some(left)) = (slave.seen()?, &sidecar.last_sync) else {
        return Ok(None);
    };
    let position = left.slave.position;
    Ok(match since_last_pass(&slave.paths, &sidecar)? {
        SinceLastPass::Beyond { run: None, .. } => Some((seen, position, sidecar)),
        _ => None,
    })
}

/// The same, with the pass lock: nobody else works on the slave then.
fn lock_as_left(slave: &Slave) -> Result<Option<(Lock, FileStat, u64, Sidecar)>, Error> {
    // Where its file system is gone, no lock file is made on the bare mount point.
    if as_left(slave)?.is_none() {
        return Ok(None);
    }
    let lock = lock::take_pass(&slave.paths)?.ok_or_else(|| busy(slave))?;
    Ok(as_left(slave)?.map(|(seen, position, sidecar)| (lock, seen, position, sidecar)))
}
