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
use super::progress;
use super::signals::{self, Ending};
use super::storage::Output;

pub(crate) fn run(storage: &StorageConfig, quick: bool, output: Output) -> anyhow::Result<Exit> {
    let process = Process::default();
    let exit = match Ends::open(storage, &process) {
        Ok(ends) => verify_and_tell(&ends, quick, output),
        Err(error) => Ok(super::log_stop(&error)),
    };
    process.close();
    exit
}

fn verify_and_tell(ends: &Ends, quick: bool, output: Output) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let Ends { slave, master } = ends;
    let monitor = progress::monitor(output);
    let mut findings = Findings::of(&slave.paths);
    let verified = verify::verify(slave, quick, monitor.as_ref(), &mut |finding| {
        findings.add(finding);
    });
    let verified = match verified {
        Ok(verified) => verified,
        Err(error) => return Ok(stopped(&error, &findings)),
    };
    let against = Against::compare(slave, &verified, master.as_ref(), monitor.as_ref());
    drop(monitor);
    let exit = against.exit(&verified);
    let verdict = lines::verdict(&verified, &against);
    let unnoted = verified.note(&slave.paths, quick, exit, &verdict).err();
    if let Some(error) = &unnoted {
        tracing::warn!(
            "the result is not noted for later: {}",
            error.display_chain()
        );
    }
    if output.json {
        let report = Report::of(&verified, &findings, &against, started.elapsed());
        print_json(&report).context("cannot print the report")?;
    } else if !output.quiet {
        lines::of(&verified, &findings, &against)
            .print()
            .context("cannot print what was found")?;
    }
    if output.quiet && exit != Exit::Success {
        let unnoted = unnoted.map_or_else(String::new, |error| {
            format!("; this is not noted for later: {}", error.display_chain())
        });
        tracing::error!("{}: {verdict}{unnoted}", verified.slave.display());
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
        let ending = Ending::over(storage.master.as_ref());
        let interrupted = signals::listen(process, ending, &[], None)?;
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

/// A verification that does not count; what it found by then is lost but for its
/// number.
fn stopped(error: &Error, findings: &Findings) -> Exit {
    if !findings.is_empty() {
        let found = count(findings.len(), "finding");
        tracing::warn!("{found} until then, which no longer counts");
    }
    if let Error::SlaveChanged { .. } = error {
        let what = error.display_chain();
        tracing::error!("{what}; it was packed, or copied anew: verify it again");
        return error.exit();
    }
    super::log_stop(error)
}

fn print_json(report: &Report<'_>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, report)?;
    writeln!(stdout)
}
