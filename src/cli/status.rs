//! `fssync status [SLAVE]`: the state of a slave, or of all slaves of a configuration file.

mod lines;
pub(crate) mod nagios;
mod site;
mod table;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context;
use fssync::config::{MasterConfig, StorageConfig};
use fssync::error::Error;
use fssync::metrics::{Storage, exposition};
use fssync::plan::outcome::Exit;
use fssync::slave::step::Slave;
use fssync::source::ssh::Process;
use fssync::status::{self, JsonReport, Status};

use super::args::StatusArgs;
use super::log::End;
use super::progress;
use super::signals::{self, Connections, ExitSignals};
use super::storage::{Output, Selected};

pub(crate) fn run(selected: &Selected, args: &StatusArgs, output: Output) -> Result<Exit, End> {
    if args.prometheus {
        return print_metrics(selected);
    }
    match selected {
        Selected::Paths(storage) => run_one(storage, args, output),
        Selected::Site(site) => site::run(site, args, output),
    }
}

/// Prints metrics. The exit code is 0 whatever they are, so that a script can replace a file with
/// them.
fn print_metrics(selected: &Selected) -> Result<Exit, End> {
    let samples: Vec<_> = selected
        .storages()
        .into_iter()
        .map(|storage| match storage.name {
            Some(name) => Storage::new(name, storage.config).sample(),
            None => Storage::of_slave(storage.config).sample(),
        })
        .collect();
    exposition::text(&samples, true)
        .map_err(io::Error::other)
        .and_then(|text| io::stdout().write_all(text.as_bytes()))
        .context("cannot print the metrics")?;
    Ok(Exit::Success)
}

fn run_one(storage: &StorageConfig, args: &StatusArgs, output: Output) -> Result<Exit, End> {
    let process = Process::default();
    let looked = look(storage, args, output, &process);
    process.close();
    let mut status = looked?;
    status.max_age = args.max_age;
    let exit = status.exit();
    if output.json || !output.quiet {
        print(&status, output.json).context("cannot print the status")?;
    }
    if output.quiet && exit != Exit::Success {
        let slave = status.slave.display();
        return Err(End::failed(
            exit,
            format!("{slave}: {}", lines::trouble(&status)),
        ));
    }
    Ok(exit)
}

/// Reads the status, and compares the slave with its master: the one that was named, or else the
/// recorded one.
fn look(
    storage: &StorageConfig,
    args: &StatusArgs,
    output: Output,
    process: &Process,
) -> Result<Status, Error> {
    if let Some(master) = &storage.master {
        return look_at_both(storage, master, output, process);
    }
    let slave = storage.slave()?;
    // The exit code does not depend on the recorded master, and with -q only that matters.
    let is_asked = output.json || !output.quiet;
    if let Some(master) = args.recorded_master(&slave.paths).filter(|_| is_asked) {
        match look_at_both(storage, &master, output, process) {
            Ok(mut status) => {
                if let Some(comparison) = &mut status.comparison {
                    comparison.is_named = false;
                }
                return Ok(status);
            }
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => tracing::warn!(
                "cannot compare the slave with {}, the recorded master: {}",
                master.name(),
                error.display_chain()
            ),
        }
    }
    status::look(&slave, None, progress::monitor(output).as_ref())
}

fn look_at_both(
    storage: &StorageConfig,
    master: &MasterConfig,
    output: Output,
    process: &Process,
) -> Result<Status, Error> {
    let monitor = progress::monitor(output);
    let interrupted = signals::listen(
        &Connections::of(process),
        ExitSignals::for_master(Some(master)),
        &[],
        None,
    )?;
    let slave = Slave {
        interrupted: Arc::clone(&interrupted),
        ..storage.slave()?
    };
    let master = master.open(process, move || interrupted.load(Ordering::Relaxed))?;
    status::look(&slave, Some(&master), monitor.as_ref())
}

fn print(status: &Status, json: bool) -> io::Result<()> {
    if json {
        let mut stdout = io::stdout().lock();
        serde_json::to_writer(&mut stdout, &JsonReport::of(status))?;
        return writeln!(stdout);
    }
    lines::of(status).print()
}
