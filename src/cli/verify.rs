//! `fssync verify SLAVE`: verifies a slave, compares it with its master if that is requested, and
//! prints the result.

mod against;
mod lines;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::Context;
use fssync::config::StorageConfig;
use fssync::error::Error;
use fssync::human::count;
use fssync::plan::outcome::Exit;
use fssync::slave::step::Slave;
use fssync::source::Master;
use fssync::source::ssh::Process;
use fssync::verify;
use fssync::verify::against::Attempt;
use fssync::verify::report::{Findings, Report};

use super::log::End;
use super::progress;
use super::signals::{self, ExitSignals};
use super::storage::Output;

pub(crate) fn run(storage: &StorageConfig, quick: bool, output: Output) -> Result<Exit, End> {
    let process = Process::default();
    let ended = Target::open(storage, &process)
        .map_err(End::from)
        .and_then(|target| verify_and_print(&target, quick, output));
    process.close();
    ended
}

fn verify_and_print(target: &Target, quick: bool, output: Output) -> Result<Exit, End> {
    let started = Instant::now();
    let Target { slave, master } = target;
    let monitor = progress::monitor(output);
    let mut findings = Findings::new(&slave.paths);
    let verified = verify::verify(slave, quick, monitor.as_ref(), &mut |finding| {
        findings.add(finding);
    })
    .map_err(|error| stopped(error, &findings))?;
    let attempt = master
        .as_ref()
        .map(|master| Attempt::make(slave, &verified, master, monitor.as_ref()));
    let attempt = attempt.as_ref();
    drop(monitor);
    let exit = verified.exit_with(attempt);
    let verdict = lines::verdict(&verified, attempt);
    let unrecorded = verified.record(&slave.paths, quick, exit, &verdict);
    let unrecorded = unrecorded.err().map(|error| error.display_chain());
    if let Some(why) = &unrecorded {
        tracing::warn!("cannot record the result: {why}");
    }
    if output.json {
        let report = Report::new(&verified, &findings, attempt, started.elapsed());
        print_json(&report).context("cannot print the report")?;
    } else if !output.quiet {
        lines::of(&verified, &findings, attempt)
            .print()
            .context("cannot print the findings")?;
    }
    if output.quiet && exit != Exit::Success {
        let slave = verified.slave.display();
        let unrecorded = unrecorded.map(|why| format!("; cannot record the result: {why}"));
        let line = format!("{slave}: {verdict}{}", unrecorded.unwrap_or_default());
        return Err(End::failed(exit, line));
    }
    Ok(exit)
}

/// The slave, and the master with which it is compared.
struct Target {
    slave: Slave,
    master: Option<Master>,
}

impl Target {
    /// Fails if the master cannot be read, before the slave is read for nothing.
    fn open(storage: &StorageConfig, process: &Process) -> Result<Self, Error> {
        let exit_signals = ExitSignals::for_master(storage.master.as_ref());
        let interrupted = signals::listen(process, exit_signals, &[], None)?;
        let slave = Slave {
            interrupted: Arc::clone(&interrupted),
            ..storage.slave()?
        };
        let Some(master) = &storage.master else {
            let master = None;
            return Ok(Self { slave, master });
        };
        let master = master.open(process, move || interrupted.load(Ordering::Relaxed))?;
        verify::against::check(&slave, &master)?;
        let master = Some(master);
        Ok(Self { slave, master })
    }
}

/// A verification that was abandoned. Of its findings only the number is logged.
fn stopped(error: Error, findings: &Findings) -> End {
    if !findings.is_empty() {
        let found = count(findings.len(), "finding");
        tracing::warn!("{found} before the verification was abandoned");
    }
    if let Error::SlaveChanged { .. } = error {
        let why = error.display_chain();
        let line = format!("{why} (it was packed, or copied again: verify it again)");
        return End::failed(error.exit(), line);
    }
    error.into()
}

fn print_json(report: &Report<'_>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, report)?;
    writeln!(stdout)
}
