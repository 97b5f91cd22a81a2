//! The pass that is running on a slave: its process and its age. Only reads.
//!
//! A pass writes nothing when it starts, because an idle pass must cost nothing. The start of
//! a pass is therefore inferred. A process that makes a single pass starts it when the process
//! starts. For a watch, or a process that cannot be identified, the latest of these times is
//! taken; all of them are earlier than the start of the pass:
//!
//! 1. the start of the process that has the pass lock, if the kernel lists it
//! 2. the end of the last recorded pass; a watch records a pass that found nothing new once a
//!    minute
//! 3. the last change of a switch, because no pass starts while syncing is off
//! 4. the last change of the lock file, which the first pass creates
//!
//! The result is never later than the true start, so a pass may be reported as older than it
//! is: in a watch, by up to a minute.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};

use super::paths::Sibling;
use super::sidecar::Sidecar;
use super::step::Slave;
use crate::error::Error;
use crate::error::running::RunningPass;
use crate::io::flock::holder;

/// Returns the age of the pass that has the pass lock now.
#[must_use]
pub fn running_pass(
    slave: &Slave,
    sidecar: &Sidecar,
    pid: Option<u32>,
    now: Timestamp,
) -> RunningPass {
    // Ignore times in the future: the clock was set back.
    let is_past = |time: &Timestamp| *time <= now;
    let changed = |path: &Path| -> Option<Timestamp> {
        let modified = fs::metadata(path).ok()?.modified().ok()?;
        Timestamp::try_from(modified).ok().filter(is_past)
    };
    let switched = slave.switches.files().filter_map(changed).max();
    let passed = sidecar.pass.as_ref().map(|pass| pass.time);
    let started = pid.and_then(|pid| started(pid, now));
    let single = started.filter(|_| pid.is_some_and(makes_a_single_pass));
    let began = single.or_else(|| {
        let lock = changed(&slave.paths.sibling(Sibling::PassLock));
        let earlier = [started, passed.filter(is_past), switched, lock];
        earlier.into_iter().flatten().max()
    });
    // A switch that changed during a pass was on before, or it would have ended the pass.
    let switched = match (switched, single) {
        (Some(switched), Some(began)) => Some(switched.min(began)),
        (switched, _) => switched,
    };
    let in_sync = sidecar.in_sync.filter(is_past);
    let age = |time: Timestamp| now.duration_since(time);
    RunningPass {
        pid,
        age: began.map(age),
        in_sync_age: in_sync.map(age),
        lagging: in_sync.map(|time| age(time.max(switched.unwrap_or(time)))),
    }
}

/// The error for a pass that cannot take the pass lock because another pass has it.
#[must_use]
pub fn busy(slave: &Slave) -> Error {
    let pid = holder(&slave.paths.sibling(Sibling::PassLock));
    let sidecar = Sidecar::load(&slave.paths).unwrap_or_default();
    Error::Busy {
        slave: slave.paths.data().to_owned(),
        pass: running_pass(slave, &sidecar, pid, Timestamp::now()),
    }
}

/// Whether a process is known to make a single pass: it is fssync, and its command line does
/// not contain `--watch`.
fn makes_a_single_pass(pid: u32) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let mut words = line.split(|&byte| byte == 0);
    let program = words.next().map(|word| Path::new(OsStr::from_bytes(word)));
    let is_ours = program.and_then(Path::file_name) == Some(OsStr::new(env!("CARGO_PKG_NAME")));
    is_ours && !words.any(|word| word == b"--watch")
}

/// The time at which a process was started, from field 22 of `/proc/PID/stat`: clock ticks
/// since boot.
fn started(pid: u32, now: Timestamp) -> Option<Timestamp> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name, in parentheses, and may contain anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: i64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    let millis = i128::from(ticks) * 1000 / i128::from(clock_ticks_per_second().max(1));
    let since_boot = clock_gettime(ClockId::Boottime);
    let since_boot = SignedDuration::new(since_boot.tv_sec, since_boot.tv_nsec as i32);
    let age = since_boot - SignedDuration::from_millis(i64::try_from(millis).ok()?);
    now.checked_sub(age).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_process_is_known() {
        let before = Timestamp::now();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let asked = Timestamp::now();
        let started = started(child.id(), asked).unwrap();
        // The clock ticks a hundred times a second, and this process may have to wait
        // for a processor between its looks at the two clocks.
        let precision = SignedDuration::from_millis(20) + Timestamp::now().duration_since(asked);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(started >= before - precision, "{before} {started}");
        assert!(started <= Timestamp::now() + precision, "{started}");
        assert_eq!(super::started(u32::MAX, before), None);
    }
}
