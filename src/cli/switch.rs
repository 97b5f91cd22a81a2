//! `fssync off SLAVE` and `fssync on SLAVE`.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fssync::outcome::Exit;
use fssync::reluctance::Known;
use fssync::stop::Stop;
use fssync::survey::Ending;
use fssync::switch::{self, SwitchedOff, SwitchedOn};
use jiff::{SignedDuration, Timestamp};

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

pub(crate) fn on(target: &Target, force: bool, common: &Common) -> Exit {
    match slave(target, common).and_then(|slave| switch::on(&slave, force)) {
        Err(stop) => super::log_stop(&stop),
        Ok(SwitchedOn { switch, known }) => {
            say(&format!("syncing is on ({})", switch.display()));
            if known == Some(Known::Nothing) {
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
    lines.push(match done.ending {
        Ending::NoSlave => format!("there is no {slave} yet"),
        Ending::Nothing => format!("{slave} holds no transaction"),
        Ending::Unknown => format!(
            "what {slave} ends with is not known: no pass has noted it, and to find out takes \
             longer than whoever waits for this may have"
        ),
        Ending::Transaction(tid) => {
            let age = tid.time().map_or_else(String::new, |time| {
                format!(", {}", age(Timestamp::now().duration_since(time)))
            });
            format!("{slave} ends with transaction {}{age}", tid.with_time())
        }
    });
    lines.join("\n")
}

/// How long ago something was, in its two largest units.
fn age(elapsed: SignedDuration) -> String {
    let secs = elapsed.as_secs();
    if elapsed.is_negative() {
        return format!(
            "{} ahead of this machine's clock",
            age_of(secs.unsigned_abs())
        );
    }
    format!("{} ago", age_of(secs.unsigned_abs()))
}

fn age_of(secs: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let Some(largest) = UNITS.iter().position(|(len, _)| secs >= *len) else {
        return "less than 1 s".to_owned();
    };
    let mut left = secs;
    let parts = UNITS[largest..].iter().take(2).map(|(len, unit)| {
        let count = left / len;
        left %= len;
        format!("{count} {unit}")
    });
    parts.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_two_units() {
        for (millis, said) in [
            (0, "less than 1 s ago"),
            (999, "less than 1 s ago"),
            (1_000, "1 s ago"),
            (59_999, "59 s ago"),
            (60_000, "1 min 0 s ago"),
            (192_400, "3 min 12 s ago"),
            (3_599_000, "59 min 59 s ago"),
            (7_500_000, "2 h 5 min ago"),
            (86_400_000, "1 d 0 h ago"),
            (34_567_890_000, "400 d 2 h ago"),
            (-1, "less than 1 s ahead of this machine's clock"),
            (-61_000, "1 min 1 s ahead of this machine's clock"),
        ] {
            assert_eq!(age(SignedDuration::from_millis(millis)), said);
        }
    }
}
