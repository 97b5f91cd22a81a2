//! `fssync MASTER SLAVE`: one pass.

use std::time::Instant;

use fssync::pass;
use fssync::plan::outcome::{Exit, Outcome};
use fssync::source::ssh::Process;

use super::args::Args;
use super::job::job;
use super::progress;
use super::report::Reporter;
use super::signals::{self, Ending};

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let process = Process::default();
    let ending = Ending::over(args.master.as_deref());
    let interrupted = signals::listen(&process, ending, &[], None);
    let reporter = Reporter::start(args);
    let report = match interrupted.and_then(|it| job(args, it, &process, || {})) {
        Ok(job) => pass::run(
            &job,
            progress::monitor(&args.telling, &args.common).as_ref(),
        ),
        Err(stop) => Outcome::from(&stop).into(),
    };
    process.close();
    reporter.log(&report, started.elapsed());
    reporter.print(&report.outcome, started.elapsed())?;
    Ok(report.outcome.exit)
}
