//! `fssync verify [SLAVE]`: verifies slaves, compares each with its master if that is requested,
//! and prints the results.

mod against;
mod blobs;
mod lines;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context;
use fssync::config::{MasterConfig, StorageConfig};
use fssync::error::Error;
use fssync::human::count;
use fssync::plan::outcome::Exit;
use fssync::slave::step::Slave;
use fssync::source::Master;
use fssync::source::ssh::Process;
use fssync::verify;
use fssync::verify::against::Attempt;
use fssync::verify::blobs::{BlobSelection, BlobVerification, BlobsToVerify};
use fssync::verify::report::{Findings, Report};

use super::args::VerifyArgs;
use super::lines::{Emphasis, Lines};
use super::log::End;
use super::progress;
use super::signals::Connections;
use super::storage::{Output, Selected, Selection};

/// Verifies the storages one after the other. A signal ends the current verification; no other
/// one is made then.
pub(crate) fn run(selected: &Selected, args: &VerifyArgs, output: Output) -> Result<Exit, End> {
    let connections = Connections::default();
    let storages = selected.storages();
    let interrupted = selected.listen(&connections)?;
    let mut exits = Vec::new();
    for (n, storage) in storages.into_iter().enumerate() {
        let _span = storage.span().entered();
        if let Some(name) = storage.name.filter(|_| !output.json && !output.quiet) {
            let mut lines = Lines::for_stdout();
            if n > 0 {
                lines.gap();
            }
            lines.add("storage", Emphasis::Plain, name.as_str());
            lines.print().context("cannot print the findings")?;
        }
        let process = Process::default();
        connections.add(&process);
        let blobs = args.blobs(storage.config);
        let ended = Target::open(storage.config, &blobs, &process, &interrupted)
            .map_err(End::from)
            .and_then(|target| verify_and_print(&target, storage, args.quick, output));
        process.close();
        exits.push(ended.unwrap_or_else(|end| end.log(output.quiet)));
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(Exit::most_severe(exits))
}

fn verify_and_print(
    target: &Target,
    storage: Selection<'_>,
    quick: bool,
    output: Output,
) -> Result<Exit, End> {
    let started = Instant::now();
    let Target {
        slave,
        master,
        blobs,
    } = target;
    let monitor = progress::monitor(output);
    let mut findings = Findings::new(&slave.paths);
    let mut verified = verify::verify(slave, quick, monitor.as_ref(), &mut |finding| {
        findings.add(finding);
    })
    .map_err(|error| stopped(error, &findings))?;
    let master = master.as_ref();
    let attempt = master.map(|master| Attempt::make(slave, &verified, master, monitor.as_ref()));
    let attempt = attempt.as_ref();
    if let Some(blobs) = blobs {
        // A master that could not be compared is not asked again.
        let master = master.filter(|_| attempt.is_some_and(|it| it.result.is_ok()));
        let verification = BlobVerification {
            slave,
            quick,
            master,
            monitor: monitor.as_ref(),
        };
        verification
            .run(blobs, &mut verified, &mut |finding| findings.add(finding))
            .map_err(|error| stopped(error, &findings))?;
    }
    drop(monitor);
    let exit = verified.exit_with(attempt);
    let verdict = lines::verdict(&verified, attempt);
    let unrecorded = verified.record(&slave.paths, quick, exit, &verdict);
    let unrecorded = unrecorded.err().map(|error| error.display_chain());
    if let Some(why) = &unrecorded {
        tracing::warn!("cannot record the result: {why}");
    }
    if output.json {
        let mut report = Report::new(&verified, &findings, attempt, started.elapsed());
        if let Some(name) = storage.name {
            report = report.of_storage(name.as_str());
        }
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

/// The slave, its blobs if they are verified, and the master with which it is compared.
struct Target {
    slave: Slave,
    master: Option<Master>,
    blobs: Option<BlobsToVerify>,
}

impl Target {
    /// Fails if the master or a blob directory cannot be read, before the slave is read for
    /// nothing.
    fn open(
        storage: &StorageConfig,
        options: &BlobSelection,
        process: &Process,
        interrupted: &Arc<AtomicBool>,
    ) -> Result<Self, Error> {
        let slave = Slave {
            interrupted: Arc::clone(interrupted),
            ..storage.slave()?
        };
        let mut blobs = BlobsToVerify::open(&slave, options)?;
        let Some(master) = &storage.master else {
            let master = None;
            return Ok(Self {
                slave,
                master,
                blobs,
            });
        };
        let master = MasterConfig {
            reads_blobs: blobs.is_some(),
            blob_directory: options.master.clone(),
            ..master.clone()
        };
        let interrupted = Arc::clone(interrupted);
        let master = master.open(process, move || interrupted.load(Ordering::Relaxed))?;
        verify::against::check(&slave, &master)?;
        if let Some(blobs) = &mut blobs {
            blobs.find_master(&master, options)?;
        }
        Ok(Self {
            slave,
            master: Some(master),
            blobs,
        })
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
