//! The watch of one storage.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fssync::config::Mode;
use fssync::error::Error;
use fssync::metrics::TextfileThread;
use fssync::plan::outcome::{Exit, Outcome};
use fssync::source::ssh::Process;
use fssync::watch::{Wakeups, watch};

use super::reporter::{Reports, WatchReporter};
use crate::cli::notify::Notify;
use crate::cli::report::Reporter;
use crate::cli::storage::{Output, Selection};
use crate::cli::systemd::Member;

/// A storage, and what its watch shares with the rest of the program.
pub(super) struct Watched<'a> {
    pub(super) storage: Selection<'a>,
    pub(super) output: Output,
    pub(super) member: Arc<Member>,
    pub(super) notify: &'a Notify,
    /// The program that connects to the other host.
    pub(super) process: &'a Process,
    pub(super) wakeups: &'a Wakeups,
    /// Writes metrics after each pass.
    pub(super) metrics: Option<TextfileThread>,
}

impl Watched<'_> {
    /// Makes passes until the flag in `interrupted` is set, and returns the exit code. `ready` is
    /// called before the first pass. If there is no flag, or the configuration is wrong, it logs
    /// the error and makes no pass.
    pub(super) fn run(self, interrupted: Result<Arc<AtomicBool>, Error>, ready: fn()) -> Exit {
        let Self {
            storage,
            output,
            member,
            notify,
            process,
            wakeups,
            metrics,
        } = self;
        let reporter = Reporter::start(storage, Mode::Watch, output);
        let heart = Arc::clone(&member);
        let job = interrupted.and_then(|interrupted| {
            let heart = move || heart.alive();
            storage.job(Mode::Watch, interrupted, process, heart)
        });
        let exit = match job {
            Ok(job) => {
                ready();
                let reports = Reports {
                    reporter,
                    notify,
                    name: storage.name,
                    metrics,
                };
                let observer = WatchReporter::new(output, reports, Arc::clone(&member), process);
                watch(&job, storage.config.interval, wakeups, &observer)
            }
            Err(error) => {
                let outcome = Outcome::from(&error);
                notify.passed(storage.name, &outcome, Duration::ZERO);
                reporter.log(&outcome.into(), Duration::ZERO);
                error.exit()
            }
        };
        process.close();
        member.leave();
        exit
    }
}
