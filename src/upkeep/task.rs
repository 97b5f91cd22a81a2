//! What there is to do to the index.

use crate::error::Error;
use crate::io::flock;
use crate::slave::index::coverage::Coverage;
use crate::slave::paths::{Sibling, SlavePaths};
use crate::slave::step::Slave;

/// How new the index is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// So that ZODB has not much to scan.
    Near,
    /// Of the slave's position.
    Newest,
}

/// What there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Nothing.
    Nothing,
    /// The index that lies there is to be extended.
    Extend(Coverage),
    /// There is none that could be.
    Build,
}

/// What is to be done for a slave that ends at `position`. Reads nothing.
pub(super) fn task(
    paths: &SlavePaths,
    known: Option<&Coverage>,
    position: u64,
    wanted: Wanted,
) -> Result<Task, Error> {
    let Some(known) = known.filter(|known| known.position() <= position) else {
        return Ok(Task::Build);
    };
    if !known.lies_there(paths)? {
        return Ok(Task::Build);
    }
    let is_wanted = match wanted {
        Wanted::Near => known.is_due(position),
        Wanted::Newest => known.may_be_renewed_at(position),
    };
    Ok(match (is_wanted, known.stored()) {
        (false, _) => Task::Nothing,
        (true, Some(_)) => Task::Extend(*known),
        (true, None) => Task::Build,
    })
}

/// Whether ZODB has the slave: then its index is ZODB's affair.
pub(super) fn is_in_use(slave: &Slave) -> bool {
    flock::holder(&slave.paths.sibling(Sibling::ZodbLock)).is_some()
}
