//! `fssync MASTER SLAVE`: one pass.

use std::time::Instant;

use fssync::config::{Mode, StorageConfig};
use fssync::pass;
use fssync::plan::outcome::{Exit, Outcome};
use fssync::source::ssh::Process;

use super::progress;
use super::report::Reporter;
use super::signals::{self, Ending};
use super::storage::Output;

pub(crate) fn run(storage: &StorageConfig, mode: Mode, output: Output) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let process = Process::default();
    let ending = Ending::over(storage.master.as_ref());
    let interrupted = signals::listen(&process, ending, &[], None);
    let reporter = Reporter::start(storage, mode, output);
    let report = match interrupted.and_then(|it| storage.job(mode, it, &process, || {})) {
        Ok(job) => pass::run(&job, progress::monitor(output).as_ref()),
        Err(error) => Outcome::from(&error).into(),
    };
    process.close();
    reporter.log(&report, started.elapsed());
    reporter.print(&report.outcome, started.elapsed())?;
    Ok(report.outcome.exit)
}
