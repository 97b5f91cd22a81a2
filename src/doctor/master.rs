//! Checks the master: that it can be read, and how it is mounted.

use std::fs;

use jiff::{SignedDuration, Timestamp};

use super::check::{Check, Report};
use super::mounts::Mount;
use crate::config::StorageConfig;
use crate::error::Error;
use crate::filestorage::MAGIC_LEN;
use crate::human::{bytes, span};
use crate::source::location::{self, Location};
use crate::source::{Master, MasterStat};

/// How far in the future a file may have been modified before its clock counts as wrong.
const MAX_SKEW: SignedDuration = SignedDuration::from_secs(5);

/// Checks the master. Returns its state if it can be read.
pub(super) fn check(
    storage: &StorageConfig,
    master: &Master,
    report: &mut Report,
) -> Option<MasterStat> {
    let name = master.name();
    let found = match master.stat(Vec::new()).map_err(Error::from) {
        Ok(found) => found,
        Err(error) => {
            report.add(unreadable(&error));
            return None;
        }
    };
    let size = bytes(found.size);
    report.add(if found.size == MAGIC_LEN {
        let seen = format!("{name} is a FileStorage without transactions");
        Check::warn("master", seen, "is it the file that ZEO serves?")
    } else {
        Check::ok("master", format!("{name} is a FileStorage of {size}"))
    });
    if let Some(location) = storage
        .master
        .as_ref()
        .map(|it| location::parse(&it.location))
        && let Ok(Location::Path(path)) = location
    {
        // It has just been read, so its mount does not hang.
        let path = fs::canonicalize(&path).unwrap_or(path);
        report.add(match Mount::of(&path) {
            Some(mount) => mounted(&mount),
            None => Check::ok("master-mount", "the mount is not known"),
        });
    }
    clock(&found, report);
    Some(found)
}

/// A master that cannot be read. Mistakes in the set-up of ssh do not go away by themselves.
fn unreadable(error: &Error) -> Check {
    let check = Check::of_error("master", error);
    let advice = if check.seen.contains("Host key verification failed") {
        "connect once by hand as this user, with the same ssh command, and compare the \
         fingerprint: ssh then keeps the key of the host in known_hosts"
    } else if check.seen.contains("Permission denied (") {
        "add this user's public key to ~/.ssh/authorized_keys on the master; under cron and \
         systemd, ssh needs a key without a passphrase"
    } else {
        return check;
    };
    Check::fail("master", check.seen, advice)
}

/// Checks how the master is mounted.
fn mounted(mount: &Mount) -> Check {
    let name = "master-mount";
    let (kind, point) = (&mount.kind, mount.point.display());
    let seen = format!("{point} is mounted as {kind}");
    if kind == "fuse.sshfs" {
        let advice = "read the master through ssh, as host:/path: sshfs changes the inode number \
                      with each mount, and a pass then compares the whole file";
        return Check::warn(name, seen, advice);
    }
    if !kind.starts_with("nfs") {
        return Check::ok(name, seen);
    }
    if mount.has("soft") || mount.has("softerr") {
        let seen = format!("{seen} with the option soft");
        let advice = "mount it with ro,hard: a soft mount can end a read with an error while the \
                      server is only slow";
        return Check::warn(name, seen, advice);
    }
    if mount.is_writable() {
        let seen = format!("{seen}, writable");
        return Check::warn(
            name,
            seen,
            "mount it with ro,hard: nothing here may write the master",
        );
    }
    Check::ok(name, format!("{seen}, read-only and hard"))
}

/// Checks that the master was not modified in the future.
fn clock(found: &MasterStat, report: &mut Report) {
    let (seconds, nanoseconds) = found.modified;
    let Ok(modified) = Timestamp::new(seconds, nanoseconds.cast_signed()) else {
        return;
    };
    let ahead = modified.duration_since(Timestamp::now());
    if ahead > MAX_SKEW {
        let seen = format!("the master was modified {} in the future", span(ahead));
        report.add(Check::warn("clock", seen, SYNCHRONISE));
    }
}

/// The advice if two clocks differ.
pub(super) const SYNCHRONISE: &str = "synchronise the clocks of both machines, for example with \
     chrony: times in reports, and the tids of a failover, depend on them";

#[cfg(test)]
mod tests;
