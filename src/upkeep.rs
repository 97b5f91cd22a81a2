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
//! An index that is not as it was left here is removed at once, before the slave is read
//! for a new one: it may be a former slave's, saved by a ZODB that had let its
//! lock go, and ZODB would believe it.
//!
//! While a pass works on the index, no other is made. So it stores one of a position in
//! between when that takes too long, which spares ZODB a part of its scan, and the next
//! pass goes on from there.
//!
//! A try that fails once much of the slave was read for it is not repeated at the
//! next pass, but after a while ([`Failure`]).

mod end;
pub mod ledger;
mod rests;

use std::cell::Cell;
use std::fs::File;
use std::time::{Duration, Instant};

use jiff::Timestamp;

pub use self::end::at_end;
pub use self::rests::Rests;

use crate::filestorage::index::Index;
use crate::filestorage::index::builder::Builder;
use crate::monitor::Monitor;
use crate::reluctance::Own;
use crate::slave::index::coverage::{Coverage, exists};
use crate::slave::index::failure::Failure;
use crate::slave::index::{Growing, remove, store};
use crate::slave::lock::{self, Lock};
use crate::slave::place::{self, Access, Beside, Place};
use crate::slave::sidecar::{Mark, Sidecar};
use crate::slave::step::{Seen, Slave};
use crate::source::LocalFile;
use crate::stop::Stop;
use crate::survey::own;

/// For how long a pass reads the slave for an index.
pub const IN_A_PASS: Duration = Duration::from_secs(20);

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
        Wanted::Newest => known.may_be_renewed_at(position),
    };
    Ok(match (is_wanted, known.stored()) {
        (false, _) => Task::Nothing,
        (true, Some(_)) => Task::Extend(*known),
        (true, None) => Task::Build,
    })
}

/// Whether the index needs work after a pass that left the slave at `position`, and
/// is to have it now. One that is not what was left does not wait for that.
pub fn is_due(slave: &Slave, sidecar: &Sidecar, position: u64) -> Result<bool, Stop> {
    let known = sidecar.index.as_ref();
    let task = task(&slave.place, known, position, Wanted::Near)?;
    if task == Task::Nothing || is_in_use(slave) {
        return Ok(false);
    }
    if task == Task::Build
        && let Err(stop) = remove_foreign(slave)
    {
        // The work meets it, too, and tells.
        tracing::debug!("{}", stop.in_one_line());
    }
    let failure = sidecar.index_failure;
    let is_let_be = failure.is_some_and(|it| it.is_fresh(Timestamp::now()));
    if is_let_be {
        tracing::debug!("the index is not worked on: that has failed not long ago");
    }
    Ok(!is_let_be)
}

/// Removes what lies there and is not what was left.
fn remove_foreign(slave: &Slave) -> Result<(), Stop> {
    if exists(&slave.place)? {
        tracing::debug!("the index that lies there is not what was left: it is made anew");
        remove(slave)?;
    }
    Ok(())
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
            let put = put(slave, (&file, seen), (&index, position), sidecar);
            note_failure(put, position, sidecar)
        }
        None => make(slave, (seen, position), IN_A_PASS, sidecar, monitor),
    }
}

/// Does what is due after a pass that left the slave at `position` and has stored
/// the sidecar, as far as it comes in about `patience`; stores the sidecar again.
pub fn after_pass(
    slave: &Slave,
    position: u64,
    patience: Duration,
    sidecar: &mut Sidecar,
    monitor: &dyn Monitor,
) -> Result<(), Stop> {
    let Some(seen) = slave.seen()? else {
        return Ok(());
    };
    let made = make(slave, (seen, position), patience, sidecar, monitor);
    store_sidecar(slave, made, sidecar)
}

/// Stores the sidecar after work that was done, or that failed and said so there.
fn store_sidecar(slave: &Slave, done: Result<(), Stop>, sidecar: &Sidecar) -> Result<(), Stop> {
    if done.as_ref().err().is_none_or(is_failure) {
        sidecar.store(&slave.place)?;
    }
    done
}

/// Says in the sidecar that work failed for which `len` bytes were read.
fn note_failure(done: Result<(), Stop>, len: u64, sidecar: &mut Sidecar) -> Result<(), Stop> {
    if done.as_ref().is_err_and(is_failure) {
        sidecar.index_failure = Some(Failure::new(Timestamp::now(), len));
    }
    done
}

/// Makes the index of `position`, or, once `patience` has run out, of one on the way
/// there, and stores it.
fn make(
    slave: &Slave,
    (seen, position): (Seen, u64),
    patience: Duration,
    sidecar: &mut Sidecar,
    monitor: &dyn Monitor,
) -> Result<(), Stop> {
    let task = task(
        &slave.place,
        sidecar.index.as_ref(),
        position,
        Wanted::Newest,
    )?;
    let mut work = Work::begin(slave, seen, task, position)?;
    let read = work.read(slave, patience, monitor);
    let len = work.growing.distance();
    let made = read.and_then(|()| work.store(slave, seen, sidecar));
    note_failure(made, len, sidecar)
}

/// An index that is being made.
#[derive(Debug)]
struct Work {
    file: File,
    /// Which file it is.
    of: LocalFile,
    /// What it has at the position that the index grows to.
    mark: Mark,
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
        if loaded.is_none() {
            remove_foreign(slave)?;
        }
        Ok(Self {
            mark: mark(slave, &file, position)?,
            file,
            of: seen.file,
            growing: Growing::new(loaded.unwrap_or_default(), position),
        })
    }

    /// Reads to the end, or, once `patience` has run out, to that of the transaction
    /// that is being read then; some is read always.
    fn read(
        &mut self,
        slave: &Slave,
        patience: Duration,
        monitor: &dyn Monitor,
    ) -> Result<(), Stop> {
        let Self { file, growing, .. } = self;
        let started = Instant::now();
        let (has_begun, is_late) = (Cell::new(false), Cell::new(false));
        let in_time = || {
            slave.check_may_go_on()?;
            is_late.set(has_begun.replace(true) && started.elapsed() >= patience);
            if is_late.get() {
                return Err(Stop::Interrupted);
            }
            Ok(())
        };
        match growing.read(file, &slave.place, &in_time, monitor) {
            Err(Stop::Interrupted) if is_late.get() => {}
            read => return read,
        }
        growing.end_with_transaction();
        let may_go_on = || slave.check_may_go_on();
        growing.read(file, &slave.place, &may_go_on, monitor)
    }

    /// Whether it is of the file that was seen, and nobody has written over that
    /// since: what was read would be that of another.
    fn is_of(&self, seen: Seen) -> bool {
        let found = Mark::of(&self.file, self.mark.position, None);
        self.of == seen.file && found.is_ok_and(|found| found == self.mark)
    }

    /// Has it go on to another position behind, where it was read to the end.
    fn go_on_to(&mut self, slave: &Slave, position: u64) -> Result<(), Stop> {
        self.growing.go_on_to(position);
        self.mark = mark(slave, &self.file, self.growing.to())?;
        Ok(())
    }

    /// Whether all was read up to this position, or in vain.
    fn is_at(&self, position: u64) -> bool {
        self.growing.to() == position || !self.growing.is_whole()
    }

    /// Stores it, once all was read, beside the slave as it was last seen.
    fn store(self, slave: &Slave, seen: Seen, sidecar: &mut Sidecar) -> Result<(), Stop> {
        let position = self.growing.to();
        let index = self.growing.finish(&slave.place)?;
        put(slave, (&self.file, seen), (&index, position), sidecar)
    }
}

/// Stores an index, and says so in the sidecar. Where ZODB would use none of this
/// position, an older one that was stored stays, and no other.
fn put(
    slave: &Slave,
    (file, seen): (&File, Seen),
    (index, position): (&Index, u64),
    sidecar: &mut Sidecar,
) -> Result<(), Stop> {
    let stored = store(slave, (file, seen), (index, position))?;
    sidecar.index_failure = None;
    if stored.is_none()
        && let Some(known) = &mut sidecar.index
        && known.stored().is_some()
        && known.position() < position
        && known.lies_there(&slave.place)?
    {
        known.pass_over(position);
        return Ok(());
    }
    if stored.is_none() {
        remove_foreign(slave)?;
    }
    sidecar.index = Some(Coverage::of(stored, position));
    Ok(())
}

/// What the slave, which is `file`, has at a position.
fn mark(slave: &Slave, file: &File, position: u64) -> Result<Mark, Stop> {
    Mark::of(file, position, None).map_err(Stop::io("read", slave.place.data()))
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
    if is_failure(stop) {
        return Some(format!("{what}: {why}"));
    }
    tracing::debug!("{what} for now: {why}");
    None
}

/// Whether work went wrong, and was not only hindered.
fn is_failure(stop: &Stop) -> bool {
    !matches!(
        stop,
        Stop::Off(_)
            | Stop::Interrupted
            | Stop::InUse { .. }
            | Stop::Busy { .. }
            | Stop::SlaveChanged { .. }
            | Stop::Unreachable(_)
            | Stop::MasterChanged { .. }
    )
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

/// The same, with the pass lock: nobody else works on the slave then.
fn lock_as_left(slave: &Slave) -> Result<Option<(Lock, Seen, u64, Sidecar)>, Stop> {
    // Where its file system is gone, no lock file is made on the bare mount point.
    if as_left(slave)?.is_none() {
        return Ok(None);
    }
    let lock = lock::take_pass(&slave.place)?;
    Ok(as_left(slave)?.map(|(seen, position, sidecar)| (lock, seen, position, sidecar)))
}
