//! `fssync off [SLAVE]` and `fssync on [SLAVE]`.
//!
//! Several storages are switched side by side, each in a thread of its own. So a storage whose
//! disk hangs, or with a pass that is suspended in a step, does not delay the others: all
//! switches are written within the first milliseconds.

use std::io::{self, Write};

use fssync::config::StorageConfig;
use fssync::human::{ago, bytes};
use fssync::plan::outcome::Exit;
use fssync::plan::switch_on::Known;
use fssync::slave::presence::Presence;
use fssync::slave::since_last_pass::SlaveEnd;
use fssync::switch::{self, SwitchedOff, SwitchedOn};
use jiff::Timestamp;

use super::log::End;
use super::parallel;
use super::storage::{Selected, Selection};

/// Switches storages off. A path on the command line may be mistyped, and needs `force` if no
/// pass was ever made for it; one in a configuration file is also the one that passes use.
pub(crate) fn off(selected: &Selected, force: bool, quiet: bool) -> Exit {
    let force = force || matches!(selected, Selected::Site(_));
    each(selected, quiet, |storage| {
        let done = switch::off(&storage.slave()?, force)?;
        Ok(describe(&done, storage))
    })
}

/// Switches storages on.
pub(crate) fn on(selected: &Selected, force: bool, quiet: bool) -> Exit {
    each(selected, quiet, |storage| {
        let done = switch::on(&storage.slave()?, force)?;
        Ok(describe_on(&done, storage))
    })
}

/// Switches all storages side by side. Prints the lines of each as soon as it is done.
fn each(
    selected: &Selected,
    quiet: bool,
    switch: impl Fn(&StorageConfig) -> Result<String, End> + Sync,
) -> Exit {
    let run = |&storage: &Selection<'_>| {
        let _span = storage.span().entered();
        match switch(storage.config) {
            Ok(lines) => {
                if !quiet {
                    say(storage, &lines);
                }
                Exit::Success
            }
            Err(end) => end.log(quiet),
        }
    };
    let storages = selected.storages();
    Exit::most_severe(parallel::map(&storages, storages.len(), run))
}

/// Prints lines, each with the name of the storage if it has one. fssync does not fail if nobody
/// reads them.
fn say(storage: Selection<'_>, lines: &str) {
    let prefix = storage.name.map(|name| format!("{name}: "));
    let prefix = prefix.unwrap_or_default();
    let mut stdout = io::stdout().lock();
    for line in lines.lines() {
        let _ = writeln!(stdout, "{prefix}{line}");
    }
}

/// The lines about a slave that was switched on.
fn describe_on(done: &SwitchedOn, storage: &StorageConfig) -> String {
    let mut lines = vec![format!("syncing is on ({})", done.switch.display())];
    if done.presence == Presence::Nothing {
        lines.push(never_synced(storage));
    }
    if done.known == Some(Known::Nothing) {
        lines.push(format!(
            "no pass has recorded the contents of {}: the next pass compares it with the \
             master from its start",
            storage.slave.display()
        ));
    }
    lines.join("\n")
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
