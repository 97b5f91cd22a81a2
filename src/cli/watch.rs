//! `fssync --watch MASTER SLAVE`: keep the slave in sync.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fssync::config::Mode;
use fssync::error::Error;
use fssync::filestorage::Tid;
use fssync::human::bytes;
use fssync::io::progress::Monitor;
use fssync::pass::PassReport;
use fssync::plan::outcome::{Action, Exit, Outcome};
use fssync::source::ssh::Process;
use fssync::watch::{self, Observer, WakeReason, Wakeups};
use jiff::Timestamp;
use signal_hook::consts::SIGHUP;

use super::log::End;
use super::report::Reporter;
use super::signals::{self, Connections, ExitSignals};
use super::storage::{Output, Selected, Selection};
use super::systemd::Service;
use super::{progress, systemd};

pub(crate) fn run(selected: &Selected, output: Output) -> Result<Exit, End> {
    let [storage] = selected.storages()[..] else {
        let why = "--watch follows one storage: choose it with --storage NAME";
        return Err(Error::Usage(why.to_owned()).into());
    };
    let _span = storage.span().entered();
    Ok(follow(storage, output))
}

fn follow(storage: Selection<'_>, output: Output) -> Exit {
    let process = Process::default();
    let wakeups = Wakeups::default();
    let waker = wakeups.waker();
    let wake = Box::new(move || waker.wake(WakeReason::Signal));
    let reporter = Reporter::start(storage, Mode::Watch, output);
    let service = Arc::new(Service::default());
    let heart = Arc::clone(&service);
    let prepare = || -> Result<_, Error> {
        let exit_signals = ExitSignals::default();
        let interrupted = signals::listen(
            &Connections::of(&process),
            exit_signals,
            &[SIGHUP],
            Some(wake),
        )?;
        let job =
            storage
                .config
                .job(Mode::Watch, Arc::clone(&interrupted), &process, move || {
                    heart.alive();
                })?;
        Ok((job, interrupted))
    };
    let (job, interrupted) = match prepare() {
        Ok(prepared) => prepared,
        Err(error) => {
            reporter.log(&Outcome::from(&error).into(), Duration::ZERO);
            return error.exit();
        }
    };
    systemd::ready();
    let observer = WatchReporter {
        output,
        reporter,
        service: &service,
        process: &process,
        in_sync: Cell::new(None),
        is_read: Cell::new(true),
    };
    let exit = watch::watch(&job, storage.config.interval, &wakeups, &observer);
    process.close();
    systemd::stopping();
    if interrupted.load(Ordering::Relaxed) {
        tracing::info!("Stopped syncing on a signal");
    }
    exit
}

/// Reports to the log, to standard output and to systemd.
struct WatchReporter<'a> {
    output: Output,
    reporter: Reporter,
    service: &'a Service,
    /// The program that connects to the other host.
    process: &'a Process,
    /// The last time in sync, and the position at that time.
    in_sync: Cell<Option<(Timestamp, Option<u64>)>>,
    /// Whether reports can be printed, as far as is known.
    is_read: Cell<bool>,
}

impl Observer for WatchReporter<'_> {
    fn passed(&self, report: &PassReport, elapsed: Duration, is_news: bool) {
        let outcome = &report.outcome;
        if is_news || outcome.action == Action::FullCopy {
            self.reporter.log(report, elapsed);
        } else {
            tracing::debug!("a pass of {elapsed:?}: {outcome:?}");
        }
        if self.is_read.get()
            && (is_news || outcome.copied.transactions > 0)
            && let Err(error) = self.reporter.print(outcome, elapsed)
        {
            tracing::warn!("{error:#}; not printing further reports");
            self.is_read.set(false);
        }
        if outcome.exit == Exit::Success {
            let position = outcome.copied.position;
            self.in_sync.set(Some((Timestamp::now(), position)));
        }
        self.service
            .status(is_news, || status(report, self.in_sync.get()));
    }

    fn monitor(&self) -> Box<dyn Monitor + '_> {
        Box::new(ServiceMonitor {
            service: self.service,
            shown: progress::monitor(self.output),
        })
    }

    fn alive(&self) {
        self.process.supervise();
        self.service.alive();
    }
}

/// The status line for systemd: position, lag and missing blobs.
fn status(report: &PassReport, in_sync: Option<(Timestamp, Option<u64>)>) -> String {
    let outcome = &report.outcome;
    if outcome.exit == Exit::Success {
        let position = outcome.copied.position.unwrap_or(0);
        let last = outcome
            .copied
            .last_tid
            .map_or_else(String::new, Tid::with_time);
        let blobs = if report.blobs_are_due {
            ", fetching blobs of older transactions"
        } else {
            ""
        };
        return format!("in sync: position {position}, lag 0 s, last transaction {last}{blobs}");
    }
    let reason = &outcome.reason;
    match in_sync {
        None => format!("NOT SYNCING, not in sync yet: {reason}"),
        Some((time, position)) => {
            let position = position.unwrap_or(0);
            format!("NOT SYNCING: position {position}, lag since {time:.0}: {reason}")
        }
    }
}

/// Shows progress, and sends it to systemd with heartbeats.
struct ServiceMonitor<'a> {
    service: &'a Service,
    shown: Box<dyn Monitor>,
}

impl Monitor for ServiceMonitor<'_> {
    fn progress(&self, activity: &'static str, done: u64, total: u64) {
        self.shown.progress(activity, done, total);
        self.service.alive();
        self.service.status(false, || {
            let (done, total) = (bytes(done), bytes(total));
            format!("{activity}: {done} of {total}")
        });
    }
}

#[cfg(test)]
mod tests {
    use fssync::plan::outcome::Copied;

    use super::*;

    #[test]
    fn the_status_for_systemd_mentions_blobs_that_are_still_fetched() {
        let outcome = Outcome {
            action: Action::UpToDate,
            exit: Exit::Success,
            reason: "the master has nothing new".to_owned(),
            hint: None,
            copied: Copied {
                position: Some(500),
                ..Copied::default()
            },
            warnings: Vec::new(),
        };
        let mut report = PassReport::from(outcome);
        let expected = "in sync: position 500, lag 0 s, last transaction ";
        assert_eq!(status(&report, None), expected);
        report.blobs_are_due = true;
        let expected = format!("{expected}, fetching blobs of older transactions");
        assert_eq!(status(&report, None), expected);
    }
}
