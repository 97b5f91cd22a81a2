//! `fssync off SLAVE` and `fssync on SLAVE`.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fssync::outcome::Exit;
use fssync::stop::Stop;
use fssync::switch::{self, SwitchedOff};
use jiff::Timestamp;

use super::args::{Common, Target};

pub(crate) fn off(target: &Target, common: &Common) -> Exit {
    match slave(target, common).and_then(|slave| switch::off(&slave)) {
        Err(stop) => super::log_stop(&stop),
        Ok(done) => {
            say(&describe(&done, target));
            Exit::Success
        }
    }
}

pub(crate) fn on(target: &Target, common: &Common) -> Exit {
    match slave(target, common).and_then(|slave| switch::on(&slave)) {
        Err(stop) => super::log_stop(&stop),
        Ok(switch) => {
            say(&format!("syncing is on ({})", switch.display()));
            Exit::Success
        }
    }
}

fn slave(target: &Target, common: &Common) -> Result<fssync::slave::step::Slave, Stop> {
    let interrupted = Arc::new(AtomicBool::new(false));
    super::slave(&target.slave, common.status_file.as_ref(), interrupted)
}

/// Prints a line; nothing depends on whether anybody reads it.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// What the slave holds, for the person who is about to serve it.
fn describe(done: &SwitchedOff, target: &Target) -> String {
    let slave = target.slave.display();
    let mut lines = vec![format!("syncing is off ({})", done.switch.display())];
    if done.cut_len > 0 {
        let len = done.cut_len;
        lines.push(format!(
            "an unfinished append of {len} bytes was cut from {slave}"
        ));
    }
    lines.push(match done.last_tid {
        None => format!("no pass has noted what {slave} ends with"),
        Some(tid) => {
            let age = tid.time().map_or_else(String::new, |time| {
                let age = Timestamp::now().duration_since(time).as_secs_f64();
                format!(", {age:.1} s ago")
            });
            format!("{slave} ends with transaction {}{age}", tid.with_time())
        }
    });
    lines.join("\n")
}
