//! Examines the set-up of a storage: one [`Check`] for each thing that an administrator can get
//! wrong, with what was seen and what to do.
//!
//! The master is only read. At the slave, the only write is the [probe](crate::slave::probe) of
//! its file system, which leaves nothing behind and is omitted while syncing is off. The last
//! check is a dry run of a pass, so the report ends with what a pass would do.

mod check;
mod connection;
mod master;
mod mounts;
mod slave;
mod switches;
mod systemd;
mod upkeep;
mod zeo_conf;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use self::check::{Check, Level, Report};

use crate::config::{Mode, StorageConfig};
use crate::error::Error;
use crate::io::progress::Monitor;
use crate::pass::{self, Job};
use crate::plan::outcome::Exit;
use crate::source::ssh::Process;

/// Examines a storage. `zeo_conf` is the configuration of ZEO on this machine. The program that connects to another host is registered in `process`.
/// It ends early once `interrupted` is set.
#[must_use]
pub fn examine(
    storage: &StorageConfig,
    zeo_conf: Option<&Path>,
    process: &Process,
    interrupted: &Arc<AtomicBool>,
    monitor: &dyn Monitor,
) -> Report {
    let mut report = Report::default();
    let storage = connection::in_batch_mode(storage);
    let mode = Mode::Once {
        full: false,
        whole: false,
        dry_run: true,
    };
    let job = match storage.job(mode, Arc::clone(interrupted), process, || {}) {
        Ok(job) => job,
        Err(error) => {
            report.add(Check::of_error("paths", &error));
            return report;
        }
    };
    let found = master::check(&storage, &job.master, &mut report);
    if found.is_some() {
        connection::check(&storage, interrupted, &mut report);
    }
    slave::check(&job.slave, found.as_ref().map(|it| it.size), &mut report);
    if let Some(zeo_conf) = zeo_conf {
        zeo_conf::check(zeo_conf, &job.slave, &mut report);
    }
    switches::check(&job.slave, &mut report);
    upkeep::check(&job.slave, &mut report);
    systemd::check(Path::new("/"), &job.slave, &mut report);
    next_pass(&job, monitor, &mut report);
    report
}

/// Makes a dry run of a pass.
fn next_pass(job: &Job, monitor: &dyn Monitor, report: &mut Report) {
    let outcome = pass::run(job, monitor).outcome;
    let seen = format!(
        "a pass would exit with {}: {}",
        outcome.exit as u8, outcome.reason
    );
    let check = match outcome.hint.clone() {
        _ if outcome.exit.is_quiet() => Check::ok("next-pass", seen),
        hint => {
            let advice = hint.unwrap_or_else(|| "see the checks above".to_owned());
            Check::fail("next-pass", seen, advice).of_state()
        }
    };
    report.add(check);
    report.next_pass = Some(outcome);
}

impl Check {
    /// A check that failed with an error. An unreachable master is a state; other errors are about
    /// the set-up.
    fn of_error(name: &'static str, error: &Error) -> Self {
        let advice = error.hint().unwrap_or_else(|| match error.exit() {
            Exit::Usage => {
                "correct the arguments on the command line, or the configuration file".to_owned()
            }
            _ => "check the path, the mounts and the permissions".to_owned(),
        });
        let check = Self::fail(name, error.display_chain(), advice);
        if error.is_unreachable() {
            check.of_state()
        } else {
            check
        }
    }
}
