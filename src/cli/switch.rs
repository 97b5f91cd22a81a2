//! `fssync off SLAVE` and `fssync on SLAVE`.

use std::io::{self, Write};

use fssync::config::StorageConfig;
use fssync::human::{ago, bytes};
use fssync::plan::outcome::Exit;
use fssync::plan::switch_on::Known;
use fssync::slave::presence::Presence;
use fssync::slave::since_last_pass::SlaveEnd;
use fssync::switch::{self, SwitchedOff};
use jiff::Timestamp;

use super::log::End;

pub(crate) fn off(storage: &StorageConfig, force: bool, quiet: bool) -> Result<Exit, End> {
    let done = switch::off(&storage.slave()?, force)?;
    if !quiet {
        say(&describe(&done, storage));
    }
    Ok(Exit::Success)
}

pub(crate) fn on(storage: &StorageConfig, force: bool, quiet: bool) -> Result<Exit, End> {
    let done = switch::on(&storage.slave()?, force)?;
    if quiet {
        return Ok(Exit::Success);
    }
    say(&format!("syncing is on ({})", done.switch.display()));
    if done.presence == Presence::Nothing {
        say(&never_synced(storage));
    }
    if done.known == Some(Known::Nothing) {
        say(&format!(
            "no pass has recorded the contents of {}: the next pass compares it with the \
             master from its start",
            storage.slave.display()
        ));
    }
    Ok(Exit::Success)
}

/// Prints a line. fssync does not fail if nobody reads it.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// The warning that a path may be mistyped.
fn never_synced(storage: &StorageConfig) -> String {
    let slave = storage.slave.display();
    format!("no pass was ever made for {slave}: check that this is the slave's path")
}

/// The state of the slave, for the administrator who is about to serve it.
fn describe(done: &SwitchedOff, storage: &StorageConfig) -> String {
    let slave = done.slave.display();
    let mut lines = vec![format!("syncing is off ({})", done.switch.display())];
    if done.cut_len > 0 {
        let len = bytes(done.cut_len);
        lines.push(format!(
            "an unfinished append of {len} was truncated from {slave}"
        ));
    }
    if done.presence != Presence::Synced {
        lines.push(never_synced(storage));
    }
    lines.push(match done.ending {
        SlaveEnd::NoSlave => format!("there is no {slave} yet"),
        SlaveEnd::Empty => format!("{slave} holds no transaction"),
        SlaveEnd::Unknown => format!(
            "the last transaction of {slave} is unknown: no pass has recorded it, and a scan \
             would take too long"
        ),
        SlaveEnd::Transaction(tid) => {
            let age = tid.time().map_or_else(String::new, |time| {
                format!(", {}", ago(time, Timestamp::now()))
            });
            format!("{slave} ends with transaction {}{age}", tid.with_time())
        }
    });
    lines.join("\n")
}
