//! Checks the connection to a master on another host: that ssh works without a terminal, what
//! the key may do there, and the version and the clock of the other end.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

use super::check::{Check, Report};
use super::master::SYNCHRONISE;
use crate::config::{MasterConfig, StorageConfig};
use crate::human::span;
use crate::io::process::{self, Program};
use crate::source::location::{self, Location, ServedBlobs};
use crate::source::ssh::Target;

/// The first line of the answer of a shell at the other end.
const MARK: &str = "fssync-doctor";

/// The difference between two clocks that is not worth a warning.
const MAX_SKEW: SignedDuration = SignedDuration::from_secs(5);

/// The version of this program, as `fssync --version` prints it.
const VERSION: &str = concat!("fssync ", env!("CARGO_PKG_VERSION"));

/// The same storage, whose ssh asks no questions, as under cron.
pub(super) fn in_batch_mode(storage: &StorageConfig) -> StorageConfig {
    let mut storage = storage.clone();
    if let Some(master) = &mut storage.master
        && master.is_remote()
        && is_ssh(&master.rsh)
    {
        master.rsh += " -o BatchMode=yes";
    }
    storage
}

/// Whether a command line runs ssh itself.
fn is_ssh(rsh: &str) -> bool {
    let words = shlex::split(rsh).unwrap_or_default();
    words
        .first()
        .is_some_and(|word| Path::new(word).file_name().is_some_and(|it| it == "ssh"))
}

/// Checks the other end of a connection that works. Does nothing for a master on a path.
pub(super) fn check(storage: &StorageConfig, interrupted: &Arc<AtomicBool>, report: &mut Report) {
    let Some(master) = &storage.master else {
        return;
    };
    let Some(target) = target(master) else {
        return;
    };
    let how = if is_ssh(&master.rsh) {
        "connected in batch mode, without questions"
    } else {
        "connected"
    };
    report.add(Check::ok("connection", how));
    let fssync = &master.remote_fssync;
    let question = format!("echo {MARK}; {fssync} --version; date +%s");
    let mut command = target.program.clone();
    command.push(question);
    let program = Program {
        command,
        variables: Vec::new(),
        input: Vec::new(),
        timeout: master.timeout,
    };
    let started = Instant::now();
    // A forced command answers in the protocol, or with an error.
    let answer = process::run(&program, &|| interrupted.load(Ordering::Relaxed));
    let answer = Answer::parse(&answer.unwrap_or_default());
    report.add(forced_command(&answer, &target));
    if let Some(version) = &answer.version {
        report.add(versions(version));
    }
    if let Some(clock) = answer.clock {
        let slack = SignedDuration::try_from(started.elapsed()).unwrap_or(SignedDuration::MAX);
        report.add(clocks(clock, Timestamp::now(), slack));
    }
}

fn target(master: &MasterConfig) -> Option<Target> {
    match location::parse(&master.location) {
        Ok(Location::Remote(remote)) => remote
            .target(&master.rsh, &master.remote_fssync, ServedBlobs::None)
            .ok(),
        _ => None,
    }
}

/// The answer of the other end to a command that a forced command would replace.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    /// Whether a shell ran the command.
    has_shell: bool,
    version: Option<String>,
    clock: Option<Timestamp>,
}

impl Answer {
    /// Parses the lines of an answer, which are separated by `; `.
    fn parse(output: &str) -> Self {
        let mut lines = output.split("; ").skip_while(|line| *line != MARK);
        let has_shell = lines.next().is_some();
        let rest: Vec<_> = lines.collect();
        Self {
            has_shell,
            version: rest
                .iter()
                .find(|line| line.starts_with("fssync "))
                .map(|line| (*line).to_owned()),
            clock: rest
                .last()
                .and_then(|line| line.parse().ok())
                .and_then(|seconds| Timestamp::from_second(seconds).ok()),
        }
    }
}

fn forced_command(answer: &Answer, target: &Target) -> Check {
    let name = "forced-command";
    if !answer.has_shell {
        return Check::ok(name, "the key runs only its forced command");
    }
    let command = &target.command;
    let advice = format!(
        "in ~/.ssh/authorized_keys on the master, put this before the key: \
         command=\"{command}\",restrict"
    );
    Check::warn(name, "the key can run any command on the master", advice)
}

/// Compares the programs at the two ends. The master has answered before, so the two have a
/// version of the protocol in common, and need not be the same.
fn versions(theirs: &str) -> Check {
    let name = "versions";
    if theirs == VERSION {
        return Check::ok(name, format!("{VERSION} at both ends"));
    }
    let seen = format!("{theirs} on the master, {VERSION} here: they can work together");
    Check::ok(name, seen)
}

/// Compares the clocks. `slack` is the time that the answer took.
fn clocks(theirs: Timestamp, ours: Timestamp, slack: SignedDuration) -> Check {
    let name = "clock";
    let difference = theirs.duration_since(ours).abs();
    if difference <= MAX_SKEW.saturating_add(slack) {
        return Check::ok(name, "the clocks of both machines agree");
    }
    let seen = format!(
        "the clocks of the two machines differ by {}",
        span(difference)
    );
    Check::warn(name, seen, SYNCHRONISE)
}

#[cfg(test)]
mod tests;
