//! `fssync MASTER SLAVE`: one pass; or one for each storage of a configuration file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use fssync::config::Mode;
use fssync::error::Error;
use fssync::pass;
use fssync::plan::outcome::{Exit, Outcome};
use fssync::source::ssh::Process;

use super::notify::Notify;
use super::report::Reporter;
use super::signals::Connections;
use super::storage::{Output, Selected, Selection};
use super::{progress, remind};

/// Makes the passes one after the other. A signal ends the current pass; no other one is made
/// then.
pub(crate) fn run(selected: &Selected, mode: Mode, output: Output) -> Exit {
    let connections = Connections::default();
    let storages = selected.storages();
    let interrupted = selected.listen(&connections);
    let flag = interrupted.as_ref().map(Arc::clone).unwrap_or_default();
    let notify = Notify::once(selected, mode, flag);
    let mut exits = Vec::new();
    for storage in storages {
        let _span = storage.span().entered();
        let process = Process::default();
        connections.add(&process);
        exits.push(run_one(
            storage,
            mode,
            output,
            &process,
            &interrupted,
            &notify,
        ));
        if let Ok(interrupted) = &interrupted
            && interrupted.load(Ordering::Relaxed)
        {
            break;
        }
    }
    notify.finish();
    Exit::most_severe(exits)
}

fn run_one(
    storage: Selection<'_>,
    mode: Mode,
    output: Output,
    process: &Process,
    interrupted: &Result<Arc<AtomicBool>, Error>,
    notify: &Notify,
) -> Exit {
    let started = Instant::now();
    let reporter = Reporter::start(storage, mode, output);
    let job = match interrupted {
        Ok(it) => storage.job(mode, Arc::clone(it), process, || {}),
        Err(error) => return reporter.log(&Outcome::from(error).into(), started.elapsed()),
    };
    let (report, slave) = match job {
        Ok(job) => {
            let report = pass::run(&job, progress::monitor(output).as_ref());
            (report, Some(job.slave))
        }
        Err(error) => (Outcome::from(&error).into(), None),
    };
    process.close();
    let elapsed = started.elapsed();
    notify.passed(storage.name, &report.outcome, elapsed);
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
