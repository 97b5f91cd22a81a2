//! `fssync off SLAVE` and `fssync on SLAVE`.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fssync::error::Error;
use fssync::human::{ago, bytes};
use fssync::plan::outcome::Exit;
use fssync::plan::switch_on::Known;
use fssync::slave::paths::SlavePaths;
use fssync::slave::since_last_pass::Ending;
use fssync::slave::traces::Traces;
use fssync::switch::{self, SwitchedOff, SwitchedOn};
use jiff::Timestamp;

use super::args::{Common, Target};

pub(crate) fn off(target: &Target, force: bool, common: &Common) -> Exit {
    match slave(target, common).and_then(|slave| switch::off(&slave, force)) {
        Err(error) => super::log_stop(&error),
        Ok(done) => {
            if !common.quiet {
                say(&describe(&done, target));
            }
            Exit::Success
        }
    }
}

pub(crate) fn on(target: &Target, force: bool, common: &Common) -> Exit {
    match slave(target, common).and_then(|slave| switch::on(&slave, force)) {
        Err(error) => super::log_stop(&error),
        Ok(SwitchedOn {
            switch,
            known,
            traces,
        }) => {
            if !common.quiet {
                say(&format!("syncing is on ({})", switch.display()));
            }
            if traces == Traces::Nothing && !common.quiet {
                say(&never_synced(target));
            }
            if known == Some(Known::Nothing) && !common.quiet {
                say(&format!(
                    "no pass has noted what {} holds: the next one compares it with the master \
                     from its start",
                    target.slave.display()
                ));
            }
            Exit::Success
        }
    }
}

fn slave(target: &Target, common: &Common) -> Result<fssync::slave::step::Slave, Error> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let paths = SlavePaths::new(&target.slave)?;
    Ok(super::slave(
        paths,
        common.status_file.as_ref(),
        interrupted,
    ))
}

/// Prints a line; nothing depends on whether anybody reads it.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Says that a path may be mistyped.
fn never_synced(target: &Target) -> String {
    let slave = target.slave.display();
    format!("no pass was ever made for {slave}: check that this is the slave's path")
}

/// What the slave holds, for the person who is about to serve it.
fn describe(done: &SwitchedOff, target: &Target) -> String {
    let slave = done.slave.display();
    let mut lines = vec![format!("syncing is off ({})", done.switch.display())];
    if done.cut_len > 0 {
        let len = bytes(done.cut_len);
        lines.push(format!(
            "an unfinished append of {len} was cut from {slave}"
        ));
    }
    if done.traces != Traces::OfPasses {
        lines.push(never_synced(target));
    }
    lines.push(match done.ending {
        Ending::NoSlave => format!("there is no {slave} yet"),
        Ending::Nothing => format!("{slave} holds no transaction"),
        Ending::Unknown => format!(
            "what {slave} ends with is not known: no pass has noted it, and to find out takes \
             longer than whoever waits for this may have"
        ),
        Ending::Transaction(tid) => {
            let age = tid.time().map_or_else(String::new, |time| {
                format!(", {}", ago(time, Timestamp::now()))
            });
            format!("{slave} ends with transaction {}{age}", tid.with_time())
        }
    });
    lines.join("\n")
}
