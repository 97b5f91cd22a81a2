//! The command line: one file for each subcommand, and the code that they share.

pub(crate) mod args;
mod lines;
mod log;
mod pass;
mod progress;
mod remind;
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

use self::args::{Args, Verb};
use self::storage::Output;

/// Runs the command. A command that fails returns its [`End`](log::End), which is logged
/// here.
pub(crate) fn run(args: &Args) -> ExitCode {
    let common = &args.common;
    log::set_up(common);
    signals::survive_file_size_limit();
    let ended = match &args.verb {
        None => {
            let output = Output {
                remind: args.remind,
                ..Output::new(&args.output, common)
            };
            match args.mode() {
                Mode::Watch => Ok(watch::run(&args.storage(), output)),
                mode @ Mode::Once { .. } => Ok(pass::run(&args.storage(), mode, output)),
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
            status::run(&asked.storage(common), asked, output)
        }
        Some(Verb::Verify(asked)) => {
            let output = Output::new(&asked.output, common);
            let storage = asked.storage(common);
            verify::run(&storage, asked.quick, &asked.blobs(), output)
        }
        Some(Verb::Serve { blobs, paths }) => serve::run(paths, *blobs),
    };
    let exit = ended.unwrap_or_else(|end| end.log(common.quiet));
    exit.into()
}
