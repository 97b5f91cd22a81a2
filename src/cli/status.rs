//! `fssync status SLAVE`: how a slave stands.

mod lines;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use fssync::config::StorageConfig;
use fssync::error::Error;
use fssync::plan::outcome::Exit;
use fssync::slave::step::Slave;
use fssync::source::ssh::Process;
use fssync::status::{self, JsonReport, Status};

use super::log::End;
use super::progress;
use super::signals::{self, ExitSignals};
use super::storage::Output;

pub(crate) fn run(
    storage: &StorageConfig,
    max_age: Option<Duration>,
    output: Output,
) -> Result<Exit, End> {
    let process = Process::default();
    let looked = look(storage, output, &process);
    process.close();
    let mut status = looked?;
    status.max_age = max_age;
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

fn look(storage: &StorageConfig, output: Output, process: &Process) -> Result<Status, Error> {
    let monitor = progress::monitor(output);
    let Some(master) = &storage.master else {
        return status::look(&storage.slave()?, None, monitor.as_ref());
    };
    let interrupted = signals::listen(process, ExitSignals::for_master(Some(master)), &[], None)?;
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
