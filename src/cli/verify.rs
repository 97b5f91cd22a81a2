//! `fssync verify SLAVE`: whether a slave is sound.

mod against;
mod lines;
mod report;

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

use self::against::Against;
use self::report::{Findings, Report};
use super::log::End;
use super::progress;
use super::signals::{self, ExitSignals};
use super::storage::Output;

pub(crate) fn run(storage: &StorageConfig, quick: bool, output: Output) -> Result<Exit, End> {
    let process = Process::default();
    let ended = Ends::open(storage, &process)
        .map_err(End::from)
        .and_then(|ends| verify_and_print(&ends, quick, output));
    process.close();
    ended
}

fn verify_and_print(ends: &Ends, quick: bool, output: Output) -> Result<Exit, End> {
    let started = Instant::now();
    let Ends { slave, master } = ends;
    let monitor = progress::monitor(output);
    let mut findings = Findings::of(&slave.paths);
    let verified = verify::verify(slave, quick, monitor.as_ref(), &mut |finding| {
        findings.add(finding);
    })
    .map_err(|error| stopped(error, &findings))?;
    let against = Against::compare(slave, &verified, master.as_ref(), monitor.as_ref());
    drop(monitor);
    let exit = against.exit(&verified);
    let verdict = lines::verdict(&verified, &against);
    let unnoted = verified.record(&slave.paths, quick, exit, &verdict);
    let unnoted = unnoted.err().map(|error| error.display_chain());
    if let Some(why) = &unnoted {
        tracing::warn!("cannot record the result: {why}");
    }
    if output.json {
        let report = Report::of(&verified, &findings, &against, started.elapsed());
        print_json(&report).context("cannot print the report")?;
    } else if !output.quiet {
        lines::of(&verified, &findings, &against)
            .print()
            .context("cannot print the findings")?;
    }
    if output.quiet && exit != Exit::Success {
        let slave = verified.slave.display();
        let unnoted = unnoted.map(|why| format!("; cannot record this result: {why}"));
        let line = format!("{slave}: {verdict}{}", unnoted.unwrap_or_default());
        return Err(End::failed(exit, line));
    }
    Ok(exit)
}

/// The slave, and the master that it is compared with.
struct Ends {
    slave: Slave,
    master: Option<Master>,
}

impl Ends {
    /// Fails if the master cannot be read, before the slave is read in vain.
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
