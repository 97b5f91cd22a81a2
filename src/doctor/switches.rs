//! Checks the switches: which exist, what they contain, and who can read them.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::check::{Check, Report};
use crate::error::Error;
use crate::slave::owner::Owner;
use crate::slave::step::Slave;

/// The permission bit for reading.
const READ: u32 = 0o4;

/// Checks the switches of a slave.
pub(super) fn check(slave: &Slave, report: &mut Report) {
    let name = "switches";
    let unreadable = slave
        .switches
        .files()
        .find(|path| !is_readable(slave, path));
    let seen: Vec<_> = slave.switches.files().filter_map(describe).collect();
    let seen = match seen.join("; ") {
        none if none.is_empty() => "there is none: syncing is on".to_owned(),
        some => some,
    };
    report.add(match slave.switches.why_off() {
        Some(why) => {
            let advice = why.warning().unwrap_or_else(|| {
                "syncing is off: if that is not intended, switch it on with `fssync on`".to_owned()
            });
            Check::warn(name, format!("{why}; {seen}"), advice)
        }
        None => match unreadable {
            None => Check::ok(name, seen),
            Some(path) => {
                let path = path.display();
                let seen = format!("{path} cannot be read by the user that owns the slave; {seen}");
                let advice = format!(
                    "for passes of that user, syncing is off: give it the permission to read {path}"
                );
                Check::fail(name, seen, advice)
            }
        },
    });
}

/// A switch and its content; `None` if it does not exist.
fn describe(path: &Path) -> Option<String> {
    let path_name = path.display();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => return Some(format!("{path_name}: {error}")),
        Ok(found) if !found.is_file() => return Some(format!("{path_name} is not a plain file")),
        Ok(found) if found.len() > 64 => return Some(format!("{path_name} is too long")),
        Ok(_) => {}
    }
    let content = fs::read(path).unwrap_or_default();
    let content = content.trim_ascii_end().escape_ascii();
    Some(format!("{path_name} contains {content}"))
}

/// Whether the slave's owner may read a switch, according to the permission bits.
fn is_readable(slave: &Slave, path: &Path) -> bool {
    let owner: Result<Owner, Error> = Owner::of(&slave.paths);
    match (owner, fs::metadata(path)) {
        (Ok(owner), Ok(found)) => owner.is_this_user() || owner.can(READ, &found),
        _ => true,
    }
}
