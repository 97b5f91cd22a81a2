//! Reports the passes of one storage of a watch: to the log, to standard output and to systemd.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use fssync::config::StorageName;
use fssync::filestorage::Tid;
use fssync::human::bytes;
use fssync::io::progress::Monitor;
use fssync::metrics::TextfileThread;
use fssync::pass::PassReport;
use fssync::plan::outcome::{Action, Exit};
use fssync::source::ssh::Process;
use fssync::status::State;
use fssync::watch::Observer;
use jiff::Timestamp;

use crate::cli::notify::Notify;
use crate::cli::progress;
use crate::cli::report::Reporter;
use crate::cli::storage::Output;
use crate::cli::systemd::{Member, Status};

/// Where the passes of a storage are reported, besides systemd.
pub(super) struct Reports<'a> {
    pub(super) reporter: Reporter,
    /// The hooks and pings.
    pub(super) notify: &'a Notify,
    /// The name of the storage in the configuration file.
    pub(super) name: Option<&'a StorageName>,
    /// Writes metrics.
    pub(super) metrics: Option<TextfileThread>,
}

/// Receives the passes of one storage.
pub(super) struct WatchReporter<'a> {
    output: Output,
    reports: Reports<'a>,
    member: Arc<Member>,
    /// The program that connects to the other host.
    process: &'a Process,
    /// The last time in sync, and the position at that time.
    in_sync: Cell<Option<(Timestamp, Option<u64>)>>,
    /// Whether reports can be printed, as far as is known.
    is_read: Cell<bool>,
}

impl<'a> WatchReporter<'a> {
    pub(super) fn new(
        output: Output,
        reports: Reports<'a>,
        member: Arc<Member>,
        process: &'a Process,
    ) -> Self {
        Self {
            output,
            reports,
            member,
            process,
            in_sync: Cell::new(None),
            is_read: Cell::new(true),
        }
    }
}

impl Observer for WatchReporter<'_> {
    fn passed(&self, report: &PassReport, elapsed: Duration, is_news: bool) {
        let outcome = &report.outcome;
        let Reports {
            reporter,
            notify,
            name,
            metrics,
        } = &self.reports;
        notify.passed(*name, outcome, elapsed);
        if let Some(metrics) = metrics {
            metrics.passed();
        }
        if is_news || outcome.action == Action::FullCopy {
            reporter.log(report, elapsed);
        } else {
            tracing::debug!("a pass of {elapsed:?}: {outcome:?}");
        }
        if self.is_read.get()
            && (is_news || outcome.copied.transactions > 0)
            && let Err(error) = reporter.print(outcome, elapsed)
        {
            tracing::warn!("{error:#}; not printing further reports");
            self.is_read.set(false);
        }
        if outcome.exit == Exit::Success {
            let position = outcome.copied.position;
            self.in_sync.set(Some((Timestamp::now(), position)));
        }
        self.member
            .passed(is_news, || status(report, self.in_sync.get()));
    }

    fn monitor(&self) -> Box<dyn Monitor + '_> {
        Box::new(ServiceMonitor {
            member: &self.member,
            shown: progress::monitor(self.output),
        })
    }

    fn alive(&self) {
        self.process.supervise();
        self.member.alive();
    }
}

/// The state of the storage for systemd.
fn status(report: &PassReport, in_sync: Option<(Timestamp, Option<u64>)>) -> Status {
    Status {
        state: State::of_exit_code(report.outcome.exit as u8),
        line: line(report, in_sync),
    }
}

/// The position, the lag and missing blobs.
fn line(report: &PassReport, in_sync: Option<(Timestamp, Option<u64>)>) -> String {
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
    member: &'a Member,
    shown: Box<dyn Monitor>,
}

impl Monitor for ServiceMonitor<'_> {
    fn progress(&self, activity: &'static str, done: u64, total: u64) {
        self.shown.progress(activity, done, total);
        self.member.alive();
        self.member
            .works(|| format!("{activity} {} of {}", bytes(done), bytes(total)));
    }
}

#[cfg(test)]
mod tests {
    use fssync::plan::outcome::{Copied, Outcome};

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
        assert_eq!(line(&report, None), expected);
        report.blobs_are_due = true;
        let expected = format!("{expected}, fetching blobs of older transactions");
        assert_eq!(line(&report, None), expected);
    }
}
