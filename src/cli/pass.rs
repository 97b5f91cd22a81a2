//! `fssync MASTER SLAVE`: one pass.

use std::time::Instant;

use fssync::config::{Mode, StorageConfig};
use fssync::pass;
use fssync::plan::outcome::{Exit, Outcome};
use fssync::source::ssh::Process;

use super::report::Reporter;
use super::signals::{self, ExitSignals};
use super::storage::Output;
use super::{progress, remind};

pub(crate) fn run(storage: &StorageConfig, mode: Mode, output: Output) -> Exit {
    let started = Instant::now();
    let process = Process::default();
    let exit_signals = ExitSignals::for_master(storage.master.as_ref());
    let interrupted = signals::listen(&process, exit_signals, &[], None);
    let reporter = Reporter::start(storage, mode, output);
    let (report, slave) = match interrupted.and_then(|it| storage.job(mode, it, &process, || {})) {
        Ok(job) => {
            let report = pass::run(&job, progress::monitor(output).as_ref());
            (report, Some(job.slave))
        }
        Err(error) => (Outcome::from(&error).into(), None),
    };
    process.close();
    let elapsed = started.elapsed();
    let mut end = reporter.end(&report, elapsed);
    if let Err(error) = reporter.print(&report.outcome, elapsed) {
        // The log still has to say how the pass ended.
        end.exit = Exit::Failure;
        end.line = format!("{}; {error:#}", end.line);
    }
    match (output.remind, slave) {
        (Some(every), Some(slave)) => remind::log(end, &report.outcome, &slave, every),
        // Without a slave there is no place to remember what was reported.
        _ => end.log(output.quiet),
    }
}
