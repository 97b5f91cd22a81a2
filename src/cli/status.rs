//! `fssync status SLAVE`: how a slave stands.

mod lines;
mod report;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use fssync::error::Error;
use fssync::plan::outcome::Exit;
use fssync::slave::paths::SlavePaths;
use fssync::source::ssh::Process;
use fssync::status::{self, Status};

use self::report::Report;
use super::args::{Common, StatusArgs};
use super::signals::{self, Ending};
use super::{job, progress};

pub(crate) fn run(args: &StatusArgs, common: &Common) -> anyhow::Result<Exit> {
    let process = Process::default();
    let interrupted = match &args.against {
        Some(master) => signals::listen(&process, Ending::over(Some(master)), &[], None),
        None => Ok(Arc::default()),
    };
    let looked = interrupted.and_then(|it| look(args, common, it, &process));
    process.close();
    let mut status = match looked {
        Ok(status) => status,
        Err(error) => return Ok(super::log_stop(&error)),
    };
    status.max_age = args.max_age;
    let exit = status.exit();
    if args.telling.json || !common.quiet {
        print(&status, args.telling.json).context("cannot print the status")?;
    }
    if common.quiet && exit != Exit::Success {
        tracing::error!("{}: {}", status.slave.display(), lines::trouble(&status));
    }
    Ok(exit)
}

fn look(
    args: &StatusArgs,
    common: &Common,
    interrupted: Arc<AtomicBool>,
    process: &Process,
) -> Result<Status, Error> {
    let halted = Arc::clone(&interrupted);
    let halt = move || halted.load(Ordering::Relaxed);
    let paths = SlavePaths::new(&args.slave)?;
    let slave = super::slave(paths, common.status_file.as_ref(), interrupted);
    let master = match &args.against {
        Some(given) => Some(job::master(given, &args.reach, process, halt)?),
        None => None,
    };
    let monitor = progress::monitor(&args.telling, common);
    status::look(&slave, master.as_ref(), monitor.as_ref())
}

fn print(status: &Status, json: bool) -> io::Result<()> {
    if json {
        let mut stdout = io::stdout().lock();
        serde_json::to_writer(&mut stdout, &Report::of(status))?;
        return writeln!(stdout);
    }
    lines::of(status).print()
}
