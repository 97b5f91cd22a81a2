//! What is said about a pass: a log line in syncPozo's phrases, and the object
//! that `--json` prints.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context;
use fssync::config::{Mode, StorageConfig};
use fssync::filestorage::Tid;
use fssync::human::{bytes, count};
use fssync::pass::PassReport;
use fssync::plan::outcome::{Action, Copied, Exit, Outcome};
use serde::Serialize;

use super::log;
use super::storage::Output;

/// The object that `--json` prints.
#[derive(Serialize)]
struct Report {
    /// The storage's name, once a configuration file gives it one.
    storage: Option<String>,
    master: String,
    slave: String,
    action: Action,
    reason: String,
    exit_code: u8,
    position: Option<u64>,
    last_tid: Option<Tid>,
    transactions: u64,
    bytes: u64,
    elapsed_seconds: f64,
    warnings: Vec<String>,
}

/// Says how passes end.
pub(crate) struct Reporter {
    master: String,
    slave: String,
    is_dry_run: bool,
    output: Output,
}

impl Reporter {
    /// Says that syncing starts.
    pub(crate) fn start(storage: &StorageConfig, mode: Mode, output: Output) -> Self {
        let (master, slave) = (storage.master_name(), storage.slave_name());
        tracing::info!("Start syncing {master} to {slave}");
        Self {
            master,
            slave,
            is_dry_run: matches!(mode, Mode::Once { dry_run: true, .. }),
            output,
        }
    }

    /// One line that says how a pass ended, and one for each warning before it; with
    /// `--quiet`, where a warning is news, all of it in one line.
    pub(crate) fn log(&self, report: &PassReport, elapsed: Duration) {
        let PassReport { outcome, .. } = report;
        let Outcome { reason, copied, .. } = outcome;
        let Self { master, slave, .. } = self;
        if let Some(why) = &report.record_error {
            tracing::warn!("the outcome of this pass is not kept: {why}");
        }
        let hint = match &outcome.hint {
            Some(hint) => format!(" ({hint})"),
            None => String::new(),
        };
        let warnings = self.warnings(outcome);
        let line = match outcome.exit {
            Exit::Success => {
                let what = describe(outcome.action, *copied, self.is_dry_run);
                let seconds = elapsed.as_secs_f64();
                format!(
                    "Finished syncing {master} to {slave}: {what} in {seconds:.3} s \
                     ({reason}){warnings}"
                )
            }
            _ => format!("NOT SYNCING FROM MASTER {master} to {slave}: {reason}{hint}{warnings}"),
        };
        log::end(outcome.exit, &line, !warnings.is_empty());
    }

    /// The warnings that go into the line that ends a pass; the others have lines of
    /// their own.
    fn warnings(&self, outcome: &Outcome) -> String {
        if self.output.quiet {
            let joined = outcome.warnings.iter().map(|it| format!("; {it}"));
            return joined.collect();
        }
        for warning in &outcome.warnings {
            tracing::warn!("{warning}");
        }
        String::new()
    }

    /// One object on standard output, if it is asked for.
    pub(crate) fn print(&self, outcome: &Outcome, elapsed: Duration) -> anyhow::Result<()> {
        if !self.output.json {
            return Ok(());
        }
        let report = Report {
            storage: None,
            master: self.master.clone(),
            slave: self.slave.clone(),
            action: outcome.action,
            reason: outcome.reason.clone(),
            exit_code: outcome.exit as u8,
            position: outcome.copied.position,
            last_tid: outcome.copied.last_tid,
            transactions: outcome.copied.transactions,
            bytes: outcome.copied.bytes,
            elapsed_seconds: elapsed.as_secs_f64(),
            warnings: outcome.warnings.clone(),
        };
        let mut stdout = io::stdout().lock();
        serde_json::to_writer(&mut stdout, &report)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(stdout))
            .context("cannot print the report")
    }
}

fn describe(action: Action, copied: Copied, dry_run: bool) -> String {
    let verb = match action {
        Action::Append => "appended",
        Action::TrimAppend => "cut an unfinished tail and appended",
        Action::FullCopy => "copied",
        _ => return "nothing to do".to_owned(),
    };
    let would = if dry_run { "would have " } else { "" };
    format!(
        "{would}{verb} {}, {}",
        count(copied.transactions, "transaction"),
        bytes(copied.bytes)
    )
}
