//! `fssync status` of the storages of a configuration file: a table and one verdict, the lines of
//! a single storage, or one JSON document.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use fssync::config::{MasterConfig, NamedStorage, Site};
use fssync::error::Error;
use fssync::io::progress::Silent;
use fssync::plan::outcome::Exit;
use fssync::slave::step::Slave;
use fssync::source::ssh::Process;
use fssync::status::{self, JsonReport, State, Status, StorageState, summary};
use jiff::Timestamp;
use serde::Serialize;

use super::{lines, table};
use crate::cli::args::StatusArgs;
use crate::cli::log::End;
use crate::cli::parallel;
use crate::cli::signals::{self, Connections, ExitSignals};
use crate::cli::storage::{self, Output};

/// The largest number of storages that are examined at the same time.
const MAX_THREADS: usize = 32;

/// One storage of the site.
pub(super) struct Row<'a> {
    pub(super) name: &'a str,
    pub(super) slave: String,
    /// Its status, or why that cannot be read.
    pub(super) status: Result<Status, Error>,
}

impl Row<'_> {
    pub(super) fn exit(&self) -> Exit {
        match &self.status {
            Ok(status) => status.exit(),
            Err(error) => error.exit(),
        }
    }

    /// Why the exit code is not 0; `None` if it is 0.
    pub(super) fn trouble(&self) -> Option<String> {
        match &self.status {
            Ok(status) if status.exit() == Exit::Success => None,
            Ok(status) => Some(lines::trouble(status)),
            Err(error) => Some(error.display_chain()),
        }
    }

    fn state(&self) -> StorageState<'_> {
        let status = self.status.as_ref().ok();
        let state = status.map(State::of);
        let last = status.and_then(|it| it.last_pass.as_ref());
        // The history of passes explains the state only if the last pass ended with it.
        let last = last.filter(|pass| state == Some(State::of_exit_code(pass.exit_code)));
        StorageState {
            name: self.name,
            state,
            since: last.and_then(|pass| pass.since),
            activity: None,
        }
    }
}

pub(super) fn run(site: &Site, args: &StatusArgs, output: Output) -> Result<Exit, End> {
    let rows = look(site, args)?;
    let exit = Exit::most_severe(rows.iter().map(Row::exit));
    if output.json {
        print_json(site, &rows, exit).context("cannot print the status")?;
    } else if !output.quiet {
        let lines = match &rows[..] {
            [
                Row {
                    status: Ok(status), ..
                },
            ] => lines::of(status),
            rows => table::of(rows),
        };
        lines.print().context("cannot print the status")?;
    } else if exit != Exit::Success {
        let troubles: Vec<_> = rows
            .iter()
            .filter_map(|row| Some(format!("{}: {}", row.name, row.trouble()?)))
            .collect();
        return Err(End::failed(exit, troubles.join("; ")));
    }
    Ok(exit)
}

/// Examines all storages side by side, so that masters which do not respond delay the report
/// only once.
fn look<'a>(site: &'a Site, args: &StatusArgs) -> Result<Vec<Row<'a>>, Error> {
    let connections = Connections::default();
    let processes: Vec<_> = site.storages.iter().map(|_| Process::default()).collect();
    for process in &processes {
        connections.add(process);
    }
    let masters = site
        .storages
        .iter()
        .filter_map(|it| it.storage.master.as_ref());
    let exit_signals = ExitSignals::for_masters(masters);
    let interrupted = signals::listen(&connections, exit_signals, &[], None)?;
    let storages: Vec<_> = site.storages.iter().zip(&processes).collect();
    let rows = parallel::map(&storages, MAX_THREADS, |(named, process)| {
        let status = look_at(named, args, process, &interrupted);
        process.close();
        let max_age = args.max_age;
        let status = status.map(|status| Status { max_age, ..status });
        Row {
            name: named.name.as_str(),
            slave: named.storage.slave_name(),
            status,
        }
    });
    let is_interrupted = |row: &Row<'_>| matches!(row.status, Err(Error::Interrupted));
    if rows.iter().any(is_interrupted) {
        return Err(Error::Interrupted);
    }
    Ok(rows)
}

fn look_at(
    named: &NamedStorage,
    args: &StatusArgs,
    process: &Process,
    interrupted: &Arc<AtomicBool>,
) -> Result<Status, Error> {
    let slave = Slave {
        interrupted: Arc::clone(interrupted),
        ..named.storage.slave()?
    };
    let Some(master) = named.storage.master.clone().filter(|_| !args.local) else {
        return status::look(&slave, None, &Silent);
    };
    let interrupted = Arc::clone(interrupted);
    let master = MasterConfig {
        reads_blobs: false,
        blob_directory: None,
        ..storage::briefly(master)
    };
    let master = master.open(process, move || interrupted.load(Ordering::Relaxed))?;
    let master = master.beside(named.covered.clone());
    status::look(&slave, Some(&master), &Silent)
}

/// The document that `--json` prints. Its keys are a stable interface.
#[derive(Serialize)]
struct Document<'a> {
    config: String,
    time: Timestamp,
    exit_code: u8,
    summary: String,
    in_sync: usize,
    storages: Vec<Entry<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Status(Box<JsonReport>),
    Failed {
        storage: &'a str,
        slave: &'a str,
        exit_code: u8,
        error: String,
    },
}

impl<'a> Entry<'a> {
    fn of(row: &'a Row<'_>) -> Self {
        match &row.status {
            Ok(status) => Self::Status(Box::new(JsonReport::of(status).of_storage(row.name))),
            Err(error) => Self::Failed {
                storage: row.name,
                slave: &row.slave,
                exit_code: error.exit() as u8,
                error: error.display_chain(),
            },
        }
    }
}

fn print_json(site: &Site, rows: &[Row<'_>], exit: Exit) -> io::Result<()> {
    let states: Vec<_> = rows.iter().map(Row::state).collect();
    let in_sync = states.iter().filter(|it| it.state == Some(State::InSync));
    let time = Timestamp::now();
    let document = Document {
        config: site.path.display().to_string(),
        time,
        exit_code: exit as u8,
        summary: summary(&states, time),
        in_sync: in_sync.count(),
        storages: rows.iter().map(Entry::of).collect(),
    };
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, &document)?;
    writeln!(stdout)
}
