//! What was typed, made into a job for the library.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fssync::error::Error;
use fssync::pass::Job;
use fssync::pass::apply::Tuning;
use fssync::plan::Policy;
use fssync::slave::paths::SlavePaths;
use fssync::source::location::{self, Location};
use fssync::source::path::MountedPath;
use fssync::source::ssh::{Process, Ssh};
use fssync::source::{Deadline, Heartbeat, Master, Source};

use super::args::{Args, Reach};

/// For how long a watch that has nothing to do need not note that again.
const NOTE_EVERY: Duration = Duration::from_secs(60);

/// Makes the job. A program that connects is kept in `process`; `alive` is called
/// some times a second while an answer is waited for.
pub(crate) fn job(
    args: &Args,
    interrupted: Arc<AtomicBool>,
    process: &Process,
    alive: impl Fn() + Send + Sync + 'static,
) -> Result<Job, Error> {
    let given = args.master.as_deref().unwrap_or_default();
    let slave = args.slave.as_deref().unwrap_or(Path::new(""));
    let location = location::parse(given)?;
    let paths = SlavePaths::of_pass(slave, location.file_name())?;
    if let Location::Path(master) = &location {
        paths.check_is_not_named(master)?;
    }
    let slave = super::slave(
        paths,
        args.common.status_file.as_ref(),
        Arc::clone(&interrupted),
    );
    let switches = slave.switches.clone();
    let halt = move || {
        alive();
        interrupted.load(Ordering::Relaxed) || switches.end_a_wait()
    };
    let master = master(given, &args.reach, process, halt)?;
    Ok(Job {
        master,
        slave,
        policy: Policy { full: args.full },
        tuning: Tuning::default(),
        dry_run: args.dry_run,
        note_every: if args.watch {
            NOTE_EVERY
        } else {
            Duration::ZERO
        },
        index_waits: args.watch,
    })
}

/// Makes a master of what was typed, whose answers are waited for until `halt`
/// says that they are no longer wanted. A program that connects is kept in
/// `process`.
pub(crate) fn master(
    given: &OsStr,
    reach: &Reach,
    process: &Process,
    halt: impl Fn() -> bool + Send + Sync + 'static,
) -> Result<Master, Error> {
    let name = given.display().to_string();
    let heartbeat = Heartbeat::default();
    let supervised = process.clone();
    let halt = move || {
        supervised.supervise();
        halt()
    };
    let patience = Deadline::new(reach.timeout, heartbeat.clone(), halt);
    let (open, patience): (Box<dyn Fn() -> Box<dyn Source> + Send>, _) =
        match location::parse(given)? {
            Location::Path(path) => (
                Box::new(move || Box::new(MountedPath::new(path.clone()))),
                patience,
            ),
            Location::Remote(remote) => {
                let target = remote.target(&reach.rsh, &reach.remote_fssync)?;
                let (name, ours) = (name.clone(), process.clone());
                let open = move || -> Box<dyn Source> {
                    let (target, process) = (target.clone(), ours.clone());
                    Box::new(Ssh::new(name.clone(), target, heartbeat.clone(), process))
                };
                let process = process.clone();
                (Box::new(open), patience.or_else(move || process.end()))
            }
        };
    Ok(Master::new(name, patience, open))
}
