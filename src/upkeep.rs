//! Keeping ready what lies beside the slave: ZODB's index, and the digests.
//!
//! | when | what |
//! | --- | --- |
//! | a full copy | the index is built from what streams by, and stored once the copy is in its place ([`store_built`]) |
//! | the end of a pass | stored again if it is due, built anew if it is not what was left there ([`after_pass`]); digests that lack are asked for ([`ledger`]) |
//! | a watch rests | the index again, in pieces, which make way for a pass ([`Rests`]) |
//! | the end of a watch | stored again if there is anything new, and time for it ([`at_end`]) |
//!
//! Caches: what goes wrong here is told, and costs no pass its outcome. They are
//! worked on only when all that was copied is durable, visible and noted.
//!
//! An index that is not as it was left here is removed first, before the slave is read
//! for a new one: it may be a former slave's, saved by a ZODB that had let its
//! lock go, and ZODB would believe it.

mod end;
pub mod ledger;
mod rests;

use std::fs::File;

pub use self::end::at_end;
pub use self::rests::Rests;

use crate::filestorage::index::Index;
use crate::filestorage::index::builder::Builder;
use crate::monitor::Monitor;
use crate::reluctance::Own;
use crate::slave::index::coverage::{Coverage, exists};
use crate::slave::index::{Growing, remove, store};
use crate::slave::lock;
use crate::slave::place::{self, Access, Beside, Place};
use crate::slave::sidecar::Sidecar;
use crate::slave::step::{Seen, Slave};
use crate::source::LocalFile;
use crate::stop::Stop;
use crate::survey::own;

/// How new the index is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// So that ZODB has not much to scan.
    Near,
    /// Of the slave's position.
    Newest,
}

/// What there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// Nothing.
    Nothing,
    /// The index that lies there is to be extended.
    Extend(Coverage),
    /// There is none that could be.
    Build,
}

/// What is to be done for a slave that ends at `position`. Reads nothing.
fn task(
    place: &Place,
    known: Option<&Coverage>,
    position: u64,
    wanted: Wanted,
) -> Result<Task, Stop> {
    let Some(known) = known.filter(|known| known.position() <= position) else {
        return Ok(Task::Build);
    };
    if !known.lies_there(place)? {
        return Ok(Task::Build);
    }
    let is_wanted = match wanted {
        Wanted::Near => known.is_due(position),
        Wanted::Newest => known.position() < position,
    };
    Ok(match (is_wanted, known.stored()) {
        (false, _) => Task::Nothing,
        (true, Some(_)) => Task::Extend(*known),
        (true, None) => Task::Build,
    })
}

/// Whether the index needs work after a pass that left the slave at `position`.
pub fn is_due(slave: &Slave, sidecar: &Sidecar, position: u64) -> Result<bool, Stop> {
    let known = sidecar.index.as_ref();
    let task = task(&slave.place, known, position, Wanted::Near)?;
    Ok(task != Task::Nothing && !is_in_use(slave))
}

/// Whether ZODB has the slave: then its index is ZODB's affair.
fn is_in_use(slave: &Slave) -> bool {
    lock::holder(&slave.place.beside(Beside::ZodbLock)).is_some()
}

/// Stores the index that a full copy has built, or one of `position`, which is
/// the slave's.
pub fn store_built(
    slave: &Slave,
    (index, position): (Option<Index>, u64),
    sidecar: &mut Sidecar,
    monitor: &dyn Monitor,
) -> Result<(), Stop> {
    let Some(seen) = slave.seen()? else {
        return Ok(());
    };
    match index {
        Some(index) => {
            let file = open(slave, seen)?;
            put(slave, (&file, seen), (&index, position), sidecar)
        }
        None => make(slave, seen, position, sidecar, monitor),
    }
}

/// Does what is due after a pass that left the slave at `position`: before, the
/// sidecar was stored; after, it is to be stored again.
pub fn after_pass(
    slave: &Slave,
    position: u64,
    sidecar: &mut Sidecar,
    monitor: &dyn Monitor,
) -> Result<(), Stop> {
    match slave.seen()? {
        Some(seen) => make(slave, seen, position, sidecar, monitor),
        None => Ok(()),
    }
}

/// Makes the index of `position` and stores it.
fn make(
    slave: &Slave,
    seen: Seen,
    position: u64,
    sidecar: &mut Sidecar,
    monitor: &dyn Monitor,
) -> Result<(), Stop> {
    let may_go_on = || slave.check_may_go_on();
    let task = task(
        &slave.place,
        sidecar.index.as_ref(),
        position,
        Wanted::Newest,
    )?;
    let mut work = Work::begin(slave, seen, task, position)?;
    work.growing
        .read(&work.file, &slave.place, &may_go_on, monitor)?;
    work.store(slave, seen, sidecar)
}

/// An index that is being made.
#[derive(Debug)]
struct Work {
    file: File,
    /// Which file it is.
    of: LocalFile,
    growing: Growing,
}

impl Work {
    /// Begins with what lies there, or from the start.
    fn begin(slave: &Slave, seen: Seen, task: Task, position: u64) -> Result<Self, Stop> {
        let file = open(slave, seen)?;
        let loaded = match task {
            Task::Extend(known) => known.stored().and_then(|stored| {
                let index = stored.load(&slave.place)?;
                Some(Builder::resume(index, stored.position))
            }),
            Task::Nothing | Task::Build => None,
        };
        if loaded.is_none() && exists(&slave.place)? {
            tracing::debug!("the index that lies there is not what was left: it is made anew");
            remove(slave)?;
        }
        Ok(Self {
            file,
            of: seen.file,
            growing: Growing::new(loaded.unwrap_or_default(), position),
        })
    }

    /// Whether all was read up to this position, or in vain.
    fn is_at(&self, position: u64) -> bool {
        self.growing.to() == position || !self.growing.is_whole()
    }

    /// Stores it, once all was read, beside the slave as it was last seen.
    fn store(self, slave: &Slave, seen: Seen, sidecar: &mut Sidecar) -> Result<(), Stop> {
        let position = self.growing.to();
        let index = self.growing.finish().ok_or_else(|| Stop::SlaveChanged {
            slave: slave.place.data().to_owned(),
            what: format!("no transaction ends at {position} any more"),
        })?;
        put(slave, (&self.file, seen), (&index, position), sidecar)
    }
}

/// Stores an index, and says so in the sidecar. Where ZODB would use none, none
/// stays.
fn put(
    slave: &Slave,
    (file, seen): (&File, Seen),
    (index, position): (&Index, u64),
    sidecar: &mut Sidecar,
) -> Result<(), Stop> {
    let stored = store(slave, (file, seen), (index, position))?;
    if stored.is_none() && exists(&slave.place)? {
        remove(slave)?;
    }
    sidecar.index = Some(Coverage::of(stored, position));
    Ok(())
}

/// Opens the slave, which must be the file that was seen.
fn open(slave: &Slave, seen: Seen) -> Result<File, Stop> {
    let path = slave.place.data();
    let file = place::open(path, Access::Read).map_err(Stop::io("open", path))?;
    let found = file.metadata().map_err(Stop::io("look at", path))?;
    if Seen::of(&found).file == seen.file {
        return Ok(file);
    }
    Err(Stop::SlaveChanged {
        slave: path.to_owned(),
        what: "another file was put in its place".to_owned(),
    })
}

/// Why the index could not be kept ready, if that is worth telling: what others
/// do to the slave or the switch is for the next pass to say.
#[must_use]
pub fn complaint(stop: &Stop) -> Option<String> {
    complain("the index is not kept ready", stop)
}

fn complain(what: &str, stop: &Stop) -> Option<String> {
    let why = stop.in_one_line();
    match stop {
        Stop::Off(_)
        | Stop::Interrupted
        | Stop::InUse { .. }
        | Stop::Busy { .. }
        | Stop::SlaveChanged { .. }
        | Stop::Unreachable(_)
        | Stop::MasterChanged { .. } => {
            tracing::debug!("{what} for now: {why}");
            None
        }
        _ => Some(format!("{what}: {why}")),
    }
}

/// The slave as the last pass left it, if it is that still: what was seen, its
/// position, and the sidecar that says so.
fn as_left(slave: &Slave) -> Result<Option<(Seen, u64, Sidecar)>, Stop> {
    let sidecar = Sidecar::load(&slave.place)?;
    let (Some(seen), Some(left)) = (slave.seen()?, &sidecar.left) else {
        return Ok(None);
    };
    let position = left.slave.position;
    Ok(match own(&slave.place, &sidecar)? {
        Own::Beyond { run: None, .. } => Some((seen, position, sidecar)),
        _ => None,
    })
}
