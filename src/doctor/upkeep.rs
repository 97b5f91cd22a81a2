//! Checks that a failover will be quick, and that changes are noticed: ZODB's index, the limits
//! of inotify, and the age of the last verification.

use jiff::{SignedDuration, Timestamp};
use rustix::fs::inotify::{self, CreateFlags};

use super::check::{Check, Report};
use crate::human::{ago, bytes};
use crate::io::progress::Silent;
use crate::slave::step::Slave;
use crate::slave::verification::Record;
use crate::status;

/// The longest scan by ZODB that does not delay a failover noticeably, in bytes.
const MAX_SCAN: u64 = 1024 * 1024 * 1024;

/// The age of a verification from which on it should be repeated.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(31 * 24);

/// Checks the index and the last verification of a slave, and inotify.
pub(super) fn check(slave: &Slave, report: &mut Report) {
    match status::look(slave, None, &Silent) {
        Ok(found) => {
            if let Some(position) = found.position() {
                report.add(index(found.index.scan_bytes(position)));
                report.add(verification(found.verified.as_ref(), Timestamp::now()));
            }
        }
        Err(error) => report.add(Check::of_error("index", &error)),
    }
    report.add(match inotify::init(CreateFlags::CLOEXEC) {
        Ok(_) => Check::ok("inotify", "changes can be noticed at once"),
        Err(error) => {
            let seen = format!("changes cannot be noticed at once: {error}");
            let advice = "a watch polls instead: raise fs.inotify.max_user_instances with sysctl";
            Check::warn("inotify", seen, advice)
        }
    });
}

fn index(scan_bytes: u64) -> Check {
    let name = "index";
    if scan_bytes <= MAX_SCAN {
        let seen = format!("ZODB reads {} when it opens the slave", bytes(scan_bytes));
        return Check::ok(name, seen);
    }
    let seen = format!(
        "ZODB must read {} before it opens the slave",
        bytes(scan_bytes)
    );
    let advice = "let passes complete the index: each works on it for up to 20 s";
    Check::warn(name, seen, advice)
}

fn verification(last: Option<&Record>, now: Timestamp) -> Check {
    let name = "verification";
    let advice = "run `fssync verify` regularly, for example each Sunday from cron";
    let Some(last) = last else {
        return Check::warn(name, "the slave was never verified", advice);
    };
    let when = ago(last.time, now);
    if last.is_damaged() {
        let seen = format!(
            "the last verification, {when}, found damage: {}",
            last.verdict
        );
        return Check::fail(name, seen, last.remedy()).of_state();
    }
    let seen = format!("the last verification was {when}");
    if now.duration_since(last.time) > MAX_AGE {
        return Check::warn(name, seen, advice);
    }
    Check::ok(name, seen)
}

#[cfg(test)]
mod tests;
