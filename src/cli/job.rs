//! What was typed, made into a job for the library.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fssync::apply::Tuning;
use fssync::plan::Policy;
use fssync::source::path::MountedPath;
use fssync::source::ssh::{Process, Ssh};
use fssync::source::{Master, Patience, Pulse, Source};
use fssync::stop::Stop;
use fssync::sync::Job;

use super::args::Args;
use super::location::{self, Location};

/// For how long a watch that has nothing to do need not note that again.
const NOTE_EVERY: Duration = Duration::from_secs(60);

/// Makes the job. A program that connects is kept in `process`; `alive` is called
/// some times a second while an answer is waited for.
pub(crate) fn job(
    args: &Args,
    interrupted: Arc<AtomicBool>,
    process: &Process,
    alive: impl Fn() + Send + Sync + 'static,
) -> Result<Job, Stop> {
    let (master, slave) = (args.master.as_deref(), args.slave.as_deref());
    let name = args.master_name();
    let slave = super::slave(
        slave.unwrap_or(Path::new("")),
        args.common.status_file.as_ref(),
        Arc::clone(&interrupted),
    )?;
    let pulse = Pulse::default();
    let switches = slave.switches.clone();
    let patience = Patience::new(args.timeout, pulse.clone(), move || {
        alive();
        interrupted.load(Ordering::Relaxed) || switches.check().is_err()
    });
    let (open, patience): (Box<dyn Fn() -> Box<dyn Source> + Send>, _) =
        match location::parse(master.unwrap_or_default())? {
            Location::Path(path) => (
                Box::new(move || Box::new(MountedPath::new(path.clone()))),
                patience,
            ),
            Location::Remote(remote) => {
                let target = remote.target(args)?;
                let (name, ours) = (name.clone(), process.clone());
                let open = move || -> Box<dyn Source> {
                    let (target, process) = (target.clone(), ours.clone());
                    Box::new(Ssh::new(name.clone(), target, pulse.clone(), process))
                };
                let process = process.clone();
                (Box::new(open), patience.or_else(move || process.end()))
            }
        };
    Ok(Job {
        master: Master::new(name, patience, open),
        slave,
        policy: Policy { full: args.full },
        tuning: Tuning::default(),
        dry_run: args.dry_run,
        note_every: if args.watch {
            NOTE_EVERY
        } else {
            Duration::ZERO
        },
    })
}
