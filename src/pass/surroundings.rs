//! Checks the [`Surroundings`] of the master: refuses swapped arguments, and warns of files that
//! a pass does not copy.
//!
//! MASTER and SLAVE count as swapped if all of these conditions are met:
//!
//! 1. SLAVE exists, and no pass has succeeded there: it has no sidecar that describes it. The
//!    middle of a chain of copies has one, and so has a slave that gets another master.
//! 2. The sidecar beside MASTER names SLAVE as its master, by its inode and birth time. A slave
//!    that somebody has seeded with a copy is another file.
//! 3. MASTER is not longer than SLAVE. A slave that was served after a failover is longer, and
//!    is a legitimate master of a failback.
//! 4. Nobody serves MASTER, as far as its kernel shows.
//! 5. `--full` was not given.
//!
//! The first pass checks this before it creates any file beside SLAVE. Later passes check it
//! again until one has succeeded, since a refused pass may have created a lock or a sidecar.

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

/// Fails if the slave is the master itself, if the arguments look swapped, or if the slave is in
/// use; does nothing once a pass has succeeded. Read errors are left to the pass to report.
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
    let Some((master_stat, around)) = read_both(master)? else {
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

/// Reads the master and its surroundings; `None` after a transient error, which the pass will
/// retry or report.
fn read_both(master: &Master) -> Result<Option<(MasterStat, Surroundings)>, Error> {
    let read = || Ok((master.stat(Vec::new())?, master.surroundings()?));
    match read() {
        Ok(found) => Ok(Some(found)),
        Err(source::Error::Remote { .. }) => Ok(None),
        Err(error) if source::Error::is_transient(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The identity of the slave's file, in the form in which a sidecar records a master.
fn identity(paths: &SlavePaths) -> Option<FileId> {
    let file = paths::open(paths.data(), OpenMode::Read).ok()?;
    FileId::of(&file).ok()
}

/// Warns of problems around a master that is another file than before: of each storage once, and
/// of processes that write to an old file each time.
pub(crate) fn report(
    slave: &Slave,
    master: &Master,
    reported: &mut Reported,
    monitor: &dyn Monitor,
) {
    let around = match master.surroundings() {
        Ok(around) => around,
        Err(error) => {
            tracing::debug!("cannot read the surroundings of {}: {error}", master.name());
            return;
        }
    };
    for stray in &around.strays {
        monitor.warn(describe(stray, master.name()));
    }
    let others = not_copied(&around, &slave.paths, master);
    let new: Vec<_> = others
        .into_iter()
        .filter(|name| !reported.storages.contains(name))
        .collect();
    if !new.is_empty() {
        monitor.warn(describe_storages(&new, master.name()));
        reported.storages.extend(new);
    }
}

/// All warnings about a master's surroundings.
pub(crate) fn warnings(around: &Surroundings, slave: &Slave, master: &Master) -> Vec<String> {
    let name = master.name();
    let strays = around.strays.iter().map(|stray| describe(stray, name));
    let others = not_copied(around, &slave.paths, master);
    let others = (!others.is_empty()).then(|| describe_storages(&others, name));
    strays.chain(others).collect()
}

/// The warning about a process that writes to a file which is no longer the master.
fn describe(stray: &Stray, master: &str) -> String {
    let Stray { pid, handle, file } = stray;
    format!(
        "{master}: process {pid} writes to {file:?}, which is no longer this file: its commits \
         are not copied, and are lost when it ends; stop its clients, copy \
         /proc/{pid}/fd/{handle} on that machine to a safe place, then restart it"
    )
}

/// The warning about storages that are not copied.
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

/// The storages beside the master that have no slave of the same name beside this slave, nor passes
/// of their own according to the configuration.
fn not_copied(around: &Surroundings, paths: &SlavePaths, master: &Master) -> Vec<String> {
    let has_slave = |name: &String| {
        // The name comes from another machine: it must not lead to another directory.
        let is_plain = !name.contains('/');
        is_plain && paths.directory().join(format!("{name}.fssync")).exists()
    };
    let names = around.storages.iter();
    let is_copied = |name: &String| master.is_covered(name) || has_slave(name);
    names.filter(|name| !is_copied(name)).cloned().collect()
}
