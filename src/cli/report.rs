//! Reports the outcome of passes: a log line in syncPozo's phrases, and with `--json` an
//! object on standard output.

use std::io::{self, Write};
use std::time::Duration;

use super::log::End;
use super::storage::{Output, Selection};
use anyhow::Context;
use fssync::config::{Mode, StorageName};
use fssync::human::{bytes, count};
use fssync::pass::{JsonReport, PassReport};
use fssync::plan::outcome::{Action, Copied, Exit, Outcome};

/// Reports the passes between two files.
pub(crate) struct Reporter {
    name: Option<StorageName>,
    master: String,
    slave: String,
    is_dry_run: bool,
    output: Output,
}

impl Reporter {
    /// Logs that syncing starts.
    pub(crate) fn start(storage: Selection<'_>, mode: Mode, output: Output) -> Self {
        let Selection { name, config, .. } = storage;
        let (master, slave) = (config.master_name(), config.slave_name());
        tracing::info!("Start syncing {master} to {slave}");
        Self {
            name: name.cloned(),
            master,
            slave,
            is_dry_run: matches!(mode, Mode::Once { dry_run: true, .. }),
            output,
        }
    }

    /// Logs how a pass ended, and returns the exit code.
    pub(crate) fn log(&self, report: &PassReport, elapsed: Duration) -> Exit {
        self.end(report, elapsed).log(self.output.quiet)
    }

    /// How a pass ended, for the log.
    pub(crate) fn end(&self, report: &PassReport, elapsed: Duration) -> End {
        let PassReport { outcome, .. } = report;
        let Outcome { reason, copied, .. } = outcome;
        let Self { master, slave, .. } = self;
        if let Some(why) = &report.record_error {
            tracing::warn!("cannot record the outcome of this pass: {why}");
        }
        let line = if outcome.exit == Exit::Success {
            let done = describe(outcome.action, copied, self.is_dry_run);
            let seconds = elapsed.as_secs_f64();
            format!("Finished syncing {master} to {slave}: {done} in {seconds:.3} s ({reason})")
        } else {
            let hint = outcome.hint.as_ref().map(|hint| format!(" ({hint})"));
            let hint = hint.unwrap_or_default();
            format!("NOT SYNCING FROM MASTER {master} to {slave}: {reason}{hint}")
        };
        End {
            exit: outcome.exit,
            line,
            warnings: outcome.warnings.clone(),
        }
    }

    /// Prints an object on standard output with `--json`.
    pub(crate) fn print(&self, outcome: &Outcome, elapsed: Duration) -> anyhow::Result<()> {
        if !self.output.json {
            return Ok(());
        }
        let mut report = JsonReport::of(outcome, &self.master, &self.slave, elapsed);
        if let Some(name) = &self.name {
            report = report.of_storage(name.as_str());
        }
        let mut stdout = io::stdout().lock();
        serde_json::to_writer(&mut stdout, &report)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(stdout))
            .context("cannot print the report")
    }
}

fn describe(action: Action, copied: &Copied, dry_run: bool) -> String {
    let own = count(copied.own_transactions, "transaction");
    let verb = match action {
        Action::Append => "appended",
        Action::TrimAppend => "cut an unfinished tail and appended",
        Action::FullCopy => "copied",
        Action::Rewind => &format!("set {own} aside and appended"),
        Action::UpToDate if copied.blobs > 0 => {
            let (number, size) = (count(copied.blobs, "blob"), bytes(copied.blob_bytes));
            return format!("copied {number} of older transactions, {size}");
        }
        _ => return "nothing to do".to_owned(),
    };
    let would = if dry_run { "would have " } else { "" };
    let blobs = match copied.blobs {
        0 => String::new(),
        // A dry run does not ask for the size.
        number if dry_run => format!(" and {}", count(number, "blob")),
        number => format!(
            " and {}, {}",
            count(number, "blob"),
            bytes(copied.blob_bytes)
        ),
    };
    format!(
        "{would}{verb} {}, {}{blobs}",
        count(copied.transactions, "transaction"),
        bytes(copied.bytes)
    )
}
