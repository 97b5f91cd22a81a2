//! The command line: one file for each subcommand, and the code that they share.

pub(crate) mod args;
mod config;
mod doctor;
mod lines;
mod log;
mod notify;
mod parallel;
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
use fssync::plan::outcome::Exit;

use self::args::{Args, Verb};
use self::log::End;
use self::storage::Output;

/// Runs the command. A command that fails returns its [`End`](log::End), which is logged
/// here.
pub(crate) fn run(args: &Args) -> ExitCode {
    let common = &args.common;
    log::set_up(common);
    signals::survive_file_size_limit();
    if let Some(Verb::Status(asked)) = &args.verb
        && asked.nagios.nagios
    {
        return match asked.storages(common) {
            Ok(selected) => status::nagios::run(&selected, &asked.nagios),
            Err(error) => status::nagios::usage(&error.display_chain()),
        };
    }
    let ended = dispatch(args);
    let exit = ended.unwrap_or_else(|end| end.log(common.quiet));
    exit.into()
}

fn dispatch(args: &Args) -> Result<Exit, End> {
    let common = &args.common;
    match &args.verb {
        None => {
            let output = Output {
                remind: args.remind,
                ..Output::new(&args.output, common)
            };
            let textfile = args.textfile.as_deref();
            match args.mode() {
                Mode::Watch => watch::run(&|| args.storages(), output, textfile),
                mode @ Mode::Once { dry_run, .. } => {
                    let selected = args.storages()?;
                    let exit = pass::run(&selected, mode, output);
                    if let Some(textfile) = selected.textfile(textfile).filter(|_| !dry_run) {
                        textfile.write_at_end();
                    }
                    Ok(exit)
                }
            }
        }
        Some(Verb::Off { target, force }) => Ok(switch::off(
            &target.storages_to_switch_off(common)?,
            *force,
            common.quiet,
        )),
        Some(Verb::On { target, force }) => {
            Ok(switch::on(&target.storages(common)?, *force, common.quiet))
        }
        Some(Verb::Status(asked)) => {
            let output = Output::new(&asked.output, common);
            status::run(&asked.storages(common)?, asked, output)
        }
        Some(Verb::Verify(asked)) => {
            let output = Output::new(&asked.output, common);
            verify::run(&asked.storages(common)?, asked, output)
        }
        Some(Verb::Doctor(asked)) => {
            let output = Output::new(&asked.output, common);
            doctor::run(&asked.storages(common)?, asked.zeo_conf.as_deref(), output)
        }
        Some(Verb::Config(verb)) => config::run(verb, common.quiet),
        Some(Verb::Serve { blobs, paths }) => serve::run(paths, *blobs),
    }
}
