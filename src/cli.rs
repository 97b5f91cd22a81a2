//! The command line: one file a verb, and what they share.

pub(crate) mod args;
mod job;
mod lines;
mod log;
mod pass;
mod progress;
mod report;
mod serve;
mod signals;
mod status;
mod switch;
mod systemd;
mod terminal;
mod verify;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fssync::error::Error;
use fssync::plan::outcome::Exit;
use fssync::slave::paths::SlavePaths;
use fssync::slave::step::Slave;
use fssync::slave::switch::Switches;

use self::args::{Args, Verb};

/// Runs what was asked for.
pub(crate) fn run(args: &Args) -> ExitCode {
    log::set_up(&args.common);
    signals::survive_file_size_limit();
    let exit = match &args.verb {
        None if args.watch => watch::run(args),
        None => ended(pass::run(args)),
        Some(Verb::Off { target, force }) => switch::off(target, *force, &args.common),
        Some(Verb::On { target, force }) => switch::on(target, *force, &args.common),
        Some(Verb::Status(asked)) => ended(status::run(asked, &args.common)),
        Some(Verb::Verify(asked)) => ended(verify::run(asked, &args.common)),
        Some(Verb::Serve { paths }) => serve::run(paths),
    };
    exit.into()
}

/// The exit code of what may have failed on its own account.
fn ended(result: anyhow::Result<Exit>) -> Exit {
    result.unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        Exit::Failure
    })
}

/// The slave at a place.
fn slave(paths: SlavePaths, status_file: Option<&PathBuf>, interrupted: Arc<AtomicBool>) -> Slave {
    Slave {
        switches: Switches::new(&paths, status_file.cloned()),
        paths,
        interrupted,
    }
}

/// Logs what stopped a verb, with what to do about it, in one line. `--quiet` suppresses
/// it for the exit codes that are no news.
fn log_stop(error: &Error) -> Exit {
    let exit = error.exit();
    let hint = error.hint().map(|hint| format!(" ({hint})"));
    let warnings = error.warnings();
    let mut line = error.display_chain() + &hint.unwrap_or_default();
    for warning in &warnings {
        line += "; ";
        line += warning;
    }
    log::end(exit, &line, !warnings.is_empty());
    exit
}
