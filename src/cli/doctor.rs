//! `fssync doctor [MASTER SLAVE]`: examines the set-up of storages, and prints the checks.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use fssync::config::StorageName;
use fssync::doctor::{self, Check, Level, Report};
use fssync::plan::outcome::Exit;
use fssync::source::ssh::Process;
use serde::Serialize;

use super::lines::{Emphasis, Lines};
use super::log::End;
use super::progress;
use super::signals::Connections;
use super::storage::{Output, Selected, Selection};

/// The object that `--json` prints for a storage. Its keys are a stable interface.
#[derive(Serialize)]
struct JsonReport<'a> {
    storage: Option<&'a str>,
    master: String,
    slave: String,
    exit_code: u8,
    checks: &'a [Check],
}

/// Examines the storages one after the other.
pub(crate) fn run(
    selected: &Selected,
    zeo_conf: Option<&Path>,
    output: Output,
) -> Result<Exit, End> {
    let connections = Connections::default();
    let storages = selected.storages();
    let interrupted = selected.listen(&connections)?;
    let mut exits = Vec::new();
    for storage in storages {
        let _span = storage.span().entered();
        let process = Process::default();
        connections.add(&process);
        let monitor = progress::monitor(output);
        let (config, monitor) = (storage.config, monitor.as_ref());
        let report = doctor::examine(config, zeo_conf, &process, &interrupted, monitor);
        process.close();
        print(storage, &report, output).context("cannot print the checks")?;
        exits.push(report.exit());
    }
    Ok(Exit::most_severe(exits))
}

fn print(storage: Selection<'_>, report: &Report, output: Output) -> io::Result<()> {
    if output.json {
        let report = JsonReport {
            storage: storage.name.map(StorageName::as_str),
            master: storage.config.master_name(),
            slave: storage.config.slave_name(),
            exit_code: report.exit() as u8,
            checks: &report.checks,
        };
        let mut stdout = io::stdout().lock();
        serde_json::to_writer(&mut stdout, &report)?;
        return writeln!(stdout);
    }
    let mut lines = Lines::for_stdout();
    if let Some(name) = storage.name {
        lines.add("storage", Emphasis::Plain, name.as_str());
    }
    for check in &report.checks {
        let (label, emphasis) = match check.level {
            Level::Ok if output.quiet => continue,
            Level::Ok => ("ok", Emphasis::Good),
            Level::Warn => ("warn", Emphasis::Warning),
            Level::Fail => ("FAIL", Emphasis::Bad),
        };
        lines.add(label, emphasis, &format!("{}: {}", check.check, check.seen));
        if !check.advice.is_empty() {
            lines.add("", Emphasis::Plain, &format!("to do: {}", check.advice));
        }
    }
    lines.print()
}
