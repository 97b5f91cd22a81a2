//! `fssync MASTER SLAVE`: one pass.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::Context;
use fssync::outcome::{Exit, Outcome};
use fssync::source::ssh::Process;
use fssync::sync;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::args::Args;
use super::job::job;
use super::progress;
use super::report::Reporter;

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let interrupted = end_on_signal()?;
    let reporter = Reporter::start(args);
    let process = Process::default();
    let outcome = match job(args, interrupted, &process, || {}) {
        Ok(job) => sync::pass(
            &job,
            progress::monitor(&args.telling, &args.common).as_ref(),
        ),
        Err(stop) => Outcome::from(&stop),
    };
    process.close();
    reporter.log(&outcome, started.elapsed());
    reporter.print(&outcome, started.elapsed())?;
    Ok(outcome.exit)
}

/// What is set by the first SIGINT or SIGTERM; the second one ends the process.
pub(crate) fn end_on_signal() -> anyhow::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&interrupted))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&interrupted)))
            .context("cannot handle signals")?;
    }
    Ok(interrupted)
}
