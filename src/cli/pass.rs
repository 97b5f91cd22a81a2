//! `fssync MASTER SLAVE`: one pass.

use std::time::Instant;

use fssync::config::{Mode, StorageConfig};
use fssync::pass;
use fssync::plan::outcome::{Exit, Outcome};
use fssync::source::ssh::Process;

use super::progress;
use super::report::Reporter;
use super::signals::{self, ExitSignals};
use super::storage::Output;

pub(crate) fn run(storage: &StorageConfig, mode: Mode, output: Output) -> Exit {
    let started = Instant::now();
    let process = Process::default();
    let exit_signals = ExitSignals::for_master(storage.master.as_ref());
    let interrupted = signals::listen(&process, exit_signals, &[], None);
    let reporter = Reporter::start(storage, mode, output);
    let report = match interrupted.and_then(|it| storage.job(mode, it, &process, || {})) {
        Ok(job) => pass::run(&job, progress::monitor(output).as_ref()),
        Err(error) => Outcome::from(&error).into(),
    };
    process.close();
    let elapsed = started.elapsed();
    let mut end = reporter.end(&report, elapsed);
    if let Err(error) = reporter.print(&report.outcome, elapsed) {
        // The log still has to say how the pass ended.
        end.exit = Exit::Failure;
        end.line = format!("{}; {error:#}", end.line);
    }
    end.log(output.quiet)
}
