//! What is done about a master's [`Surroundings`]: swapped arguments are refused, and what a
//! pass does not copy is reported.
//!
//! MASTER and SLAVE are taken for swapped if all of this is so:
//!
//! 1. SLAVE exists, and no pass has ever ended well there: it has no sidecar that says what
//!    was left. A chain of copies and a slave that changes its master have one.
//! 2. The sidecar beside MASTER names this very file, SLAVE, as its master. A slave that
//!    somebody seeded with a copy is another file.
//! 3. MASTER has no more bytes than SLAVE. One that was served after a failover has more,
//!    and to fail back from it is right.
//! 4. Nobody serves MASTER, as far as its kernel shows.
//! 5. `--full` was not given.
//!
//! The first pass finds that before it creates anything beside SLAVE. Passes that follow look
//! again until one has ended well: a lock or a sidecar may be what a refused pass has left.

use crate::error::Error;
use crate::io::flock;
use crate::io::progress::Monitor;
use crate::plan::Policy;
use crate::slave::paths::{self, OpenMode, Sibling, SlavePaths};
use crate::slave::sidecar::{Reported, Sidecar};
use crate::slave::step::Slave;
use crate::source::{self, FileId, Master, MasterStat, Stray, Surroundings};

/// How many storages a warning names.
const MAX_NAMED: usize = 5;

/// Where no pass has ended well yet, fails if the slave is the master itself, if the arguments
/// look swapped, or if the slave is in use. What cannot be read is left for the pass to report.
pub(crate) fn check_first_pass(
    slave: &Slave,
    master: &Master,
    policy: Policy,
    sidecar: &Sidecar,
) -> Result<(), Error> {
    if sidecar.last_sync.is_some() {
        return Ok(());
    }
    let paths = &slave.paths;
    let Some(seen) = slave.stat()? else {
        return Ok(());
    };
    let Some((master_stat, around)) = look(master)? else {
        return Ok(());
    };
    paths.check_is_not(master_stat.local)?;
    if policy.full || seen.size == 0 {
        return Ok(());
    }
    if let pid @ Some(_) = flock::holder(&paths.sibling(Sibling::ZodbLock)) {
        return Err(Error::InUse {
            slave: paths.data().to_owned(),
            pid,
        });
    }
    let is_copy = around.copied_from.is_some() && around.copied_from == identity(paths);
    if is_copy && around.served_by.is_none() && master_stat.size <= seen.size {
        return Err(Error::Swapped {
            master: master.name().to_owned(),
            slave: paths.data().to_owned(),
        });
    }
    Ok(())
}

/// Looks at the master and around it; `None` if the pass may see more a moment later, or
/// reports what is in the way.
fn look(master: &Master) -> Result<Option<(MasterStat, Surroundings)>, Error> {
    let look = || Ok((master.stat(Vec::new())?, master.surroundings()?));
    match look() {
        Ok(found) => Ok(Some(found)),
        Err(source::Error::Remote { .. }) => Ok(None),
        Err(error) if source::Error::is_transient(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Which file the slave is, as a pass notes it of a master.
fn identity(paths: &SlavePaths) -> Option<FileId> {
    let file = paths::open(paths.data(), OpenMode::Read).ok()?;
    FileId::of(&file).ok()
}

/// Warns of what is around a master that is another file than before. Storages are reported
/// once, processes that write to an old file each time.
pub(crate) fn report(
    slave: &Slave,
    master: &Master,
    reported: &mut Reported,
    monitor: &dyn Monitor,
) {
    let around = match master.surroundings() {
        Ok(around) => around,
        Err(error) => {
            tracing::debug!("cannot look around {}: {error}", master.name());
            return;
        }
    };
    for stray in &around.strays {
        monitor.warn(describe(stray, master.name()));
    }
    let others = not_copied(&around, &slave.paths);
    let new: Vec<_> = others
        .into_iter()
        .filter(|name| !reported.storages.contains(name))
        .collect();
    if !new.is_empty() {
        monitor.warn(describe_storages(&new, master.name()));
        reported.storages.extend(new);
    }
}

/// All that a person should know of a master's surroundings.
pub(crate) fn warnings(around: &Surroundings, slave: &Slave, master: &str) -> Vec<String> {
    let strays = around.strays.iter().map(|stray| describe(stray, master));
    let others = not_copied(around, &slave.paths);
    let others = (!others.is_empty()).then(|| describe_storages(&others, master));
    strays.chain(others).collect()
}

/// What to say of a process that writes to a file which is no longer the master.
fn describe(stray: &Stray, master: &str) -> String {
    let Stray { pid, handle, file } = stray;
    format!(
        "{master}: process {pid} writes to {file:?}, which is no longer this file: what it \
         commits is not copied, and is lost when it ends; error its clients, copy \
         /proc/{pid}/fd/{handle} on that machine to a safe paths, then restart it"
    )
}

/// What to say of storages that are not copied.
fn describe_storages(names: &[String], master: &str) -> String {
    let first = names.iter().take(MAX_NAMED);
    let quoted: Vec<_> = first.map(|name| format!("{name:?}")).collect();
    let more = match names.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "{master}: other storages in the same directory are not copied: {}{more}; each needs \
         passes of its own",
        quoted.join(", ")
    )
}

/// The storages beside the master that have no slave of the same name beside this one.
fn not_copied(around: &Surroundings, paths: &SlavePaths) -> Vec<String> {
    let has_slave = |name: &String| {
        // A name from another machine must not lead elsewhere.
        let is_plain = !name.contains('/');
        is_plain && paths.directory().join(format!("{name}.fssync")).exists()
    };
    let names = around.storages.iter();
    names.filter(|name| !has_slave(name)).cloned().collect()
}
