//! The command line: one file a verb, and what they share.

pub(crate) mod args;
mod lines;
mod log;
mod pass;
mod progress;
mod report;
mod serve;
mod signals;
mod status;
mod storage;
mod switch;
mod systemd;
mod terminal;
mod verify;
mod watch;

use std::process::ExitCode;

use fssync::config::Mode;
use fssync::error::Error;
use fssync::plan::outcome::Exit;

use self::args::{Args, Verb};
use self::storage::Output;

/// Runs what was asked for.
pub(crate) fn run(args: &Args) -> ExitCode {
    let common = &args.common;
    log::set_up(common);
    signals::survive_file_size_limit();
    let exit = match &args.verb {
        None => {
            let output = Output::new(&args.output, common);
            match args.mode() {
                Mode::Watch => watch::run(&args.storage(), output),
                mode @ Mode::Once { .. } => ended(pass::run(&args.storage(), mode, output)),
            }
        }
        Some(Verb::Off { target, force }) => {
            switch::off(&target.storage(common), *force, common.quiet)
        }
        Some(Verb::On { target, force }) => {
            switch::on(&target.storage(common), *force, common.quiet)
        }
        Some(Verb::Status(asked)) => {
            let output = Output::new(&asked.output, common);
            ended(status::run(&asked.storage(common), asked.max_age, output))
        }
        Some(Verb::Verify(asked)) => {
            let output = Output::new(&asked.output, common);
            ended(verify::run(&asked.storage(common), asked.quick, output))
        }
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
