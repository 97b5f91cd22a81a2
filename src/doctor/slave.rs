//! Checks the slave: its file, its directory, its file system, its owner and the free space.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;

use rustix::io::retry_on_intr;
use rustix::process::geteuid;

use super::check::{Check, Report};
use crate::error::Error;
use crate::human::bytes;
use crate::slave::paths::{OpenMode, SlavePaths};
use crate::slave::probe::probe;
use crate::slave::protection;
use crate::slave::small_file::{open_if_exists, stat_if_exists};
use crate::slave::step::Slave;
use crate::source::FileSystem;

/// The free space for the first copy, in tenths of the master's size: it grows meanwhile.
const FIRST_COPY_TENTHS: u64 = 11;

/// Checks the slave. `master` is the size of the master in bytes, if it can be read.
pub(super) fn check(slave: &Slave, master: Option<u64>, report: &mut Report) {
    let paths = &slave.paths;
    let found = match stat_if_exists(paths.data()) {
        Ok(found) => found,
        Err(error) => {
            report.add(Check::of_error("slave", &error));
            return;
        }
    };
    report.add(file(paths, found.as_ref()));
    report.add(directory(paths));
    report.add(owner(paths, found.as_ref(), geteuid().as_raw()));
    report.add(file_system(slave));
    if let Some(master) = master {
        report.add(space(paths, found.is_some(), master));
    }
}

/// Checks that the file can be opened, written and replaced.
fn file(paths: &SlavePaths, found: Option<&Metadata>) -> Check {
    let (name, path) = ("slave", paths.data().display());
    let Some(found) = found else {
        return Check::ok(
            name,
            format!("{path} does not exist yet: a pass creates it"),
        );
    };
    let opened = open_if_exists(paths.data(), OpenMode::ReadWrite).and_then(|file| match file {
        Some(file) => protection::stat(&file)
            .map_err(Error::io("stat", paths.data()))?
            .1
            .check(paths),
        None => Ok(()),
    });
    match opened {
        Ok(()) => Check::ok(name, format!("{path} has {}", bytes(found.len()))),
        Err(error) => advised(name, &error),
    }
}

/// Checks that files can be created and replaced in the directory.
fn directory(paths: &SlavePaths) -> Check {
    let name = "slave-directory";
    let checked = paths
        .check_is_writable()
        .and_then(|()| protection::check_directory(paths));
    match checked {
        Ok(()) => Check::ok(name, format!("{} is writable", paths.directory().display())),
        Err(error) => advised(name, &error),
    }
}

/// A failed check. If permission was denied, another user may have it.
fn advised(name: &'static str, error: &Error) -> Check {
    let check = Check::of_error(name, error);
    match error {
        Error::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            let advice = "run fssync as the user that owns the slave's files, which is the user of \
                          ZEO, and check the permissions";
            Check::fail(name, check.seen, advice)
        }
        _ => check,
    }
}

/// Checks that new files get an owner that ZEO's user can be. `user` is the one of this process.
fn owner(paths: &SlavePaths, found: Option<&Metadata>, user: u32) -> Check {
    let name = "slave-owner";
    let of_directory = || fs::metadata(paths.directory()).ok();
    let (what, owner) = match found {
        Some(found) => ("the slave", Some(found.uid())),
        None => ("the slave's directory", of_directory().map(|it| it.uid())),
    };
    let Some(owner) = owner else {
        return Check::ok(name, "the owner is not known");
    };
    let seen = format!("{what} belongs to uid {owner}, and this is uid {user}");
    if user == owner {
        return Check::ok(name, seen);
    }
    if user == 0 {
        let seen = format!("{seen}, which gives new files to that user");
        return Check::ok(name, seen);
    }
    let advice = "run fssync as the user of ZEO, who must own the slave and its directory";
    Check::fail(name, seen, advice)
}

/// Checks the file system of the slave.
fn file_system(slave: &Slave) -> Check {
    let name = "slave-file-system";
    let directory = slave.paths.directory();
    let found = match retry_on_intr(|| rustix::fs::statfs(directory)) {
        Ok(found) => FileSystem(found.f_type.cast_unsigned()),
        Err(error) => {
            let error = Error::io("stat", directory)(error.into());
            return Check::of_error(name, &error);
        }
    };
    match probe(slave) {
        Err(Error::Off(_)) => Check::ok(name, format!("{found}; not tried while syncing is off")),
        Err(error) => {
            let advice = "use a local file system with flock, hard links and atomic renames, such \
                          as ext4 or XFS";
            Check::fail(name, format!("{found}: {}", error.display_chain()), advice)
        }
        Ok(()) if found.is_network() => {
            let advice = "use a local disk: on a network file system nobody knows whether data is \
                          durable, and ZODB's lock may not keep other machines out";
            Check::warn(name, found.to_string(), advice)
        }
        Ok(()) => {
            let seen = format!("{found}: flock, hard links and renames work");
            Check::ok(name, seen)
        }
    }
}

/// Checks that there is space for a copy of the whole master.
fn space(paths: &SlavePaths, has_slave: bool, master: u64) -> Check {
    let name = "slave-space";
    let directory = paths.directory();
    let found = match retry_on_intr(|| rustix::fs::statvfs(directory)) {
        Ok(found) => found,
        Err(error) => {
            let error = Error::io("stat", directory)(error.into());
            return Check::of_error(name, &error);
        }
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    judge_space(&directory.display().to_string(), free, has_slave, master)
}

fn judge_space(directory: &str, free: u64, has_slave: bool, master: u64) -> Check {
    let name = "slave-space";
    let [has, size] = [free, master].map(bytes);
    let seen = format!("{directory} has {has} free, and the master has {size}");
    if has_slave {
        // A full copy is complete before it replaces the slave.
        if free >= master {
            return Check::ok(name, seen);
        }
        let advice = "free some space: `fssync --full`, as after a failback, and the pass after a \
                      pack need space for a second copy";
        return Check::warn(name, seen, advice);
    }
    if free < master {
        return Check::fail(name, seen, "free some space, or use a larger disk");
    }
    if u128::from(free) * 10 < u128::from(master) * u128::from(FIRST_COPY_TENTHS) {
        let advice = "free some space: the master grows, and its first pack needs a second copy";
        return Check::warn(name, seen, advice);
    }
    Check::ok(name, seen)
}

#[cfg(test)]
mod tests;
