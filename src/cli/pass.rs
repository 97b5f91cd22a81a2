//! `fssync MASTER SLAVE`: one pass.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Context;
use fssync::apply::Tuning;
use fssync::filestorage::Tid;
use fssync::outcome::{Action, Copied, Exit, Outcome};
use fssync::plan::Policy;
use fssync::source::path::MountedPath;
use fssync::source::ssh::{Process, Ssh};
use fssync::source::{Master, Pulse, Source};
use fssync::stop::Stop;
use fssync::sync::{self, Job};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::args::Args;
use super::location::{self, Location};
use super::progress;

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
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let (Some(master), Some(slave)) = (&args.master, &args.slave) else {
        unreachable!("clap asks for both");
    };
    let started = Instant::now();
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&interrupted))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&interrupted)))
            .context("cannot handle signals")?;
    }
    let names = (master.display().to_string(), slave.display().to_string());
    tracing::info!("Start syncing {} to {}", names.0, names.1);
    let process = Process::default();
    let outcome = match job(args, &names.0, interrupted, &process) {
        Ok(job) => sync::pass(&job, progress::monitor(args).as_ref()),
        Err(stop) => not_begun(&stop),
    };
    process.end();
    log(&outcome, args, &names, started.elapsed());
    if args.json {
        let report = report(&outcome, names, started.elapsed());
        let mut stdout = io::stdout().lock();
        serde_json::to_writer(&mut stdout, &report)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(stdout))
            .context("cannot print the report")?;
    }
    Ok(outcome.exit)
}

fn job(
    args: &Args,
    master_name: &str,
    interrupted: Arc<AtomicBool>,
    process: &Process,
) -> Result<Job, Stop> {
    let (master, slave) = (args.master.as_deref(), args.slave.as_deref());
    let location = location::parse(master.unwrap_or_default())?;
    let slave = super::slave(
        slave.unwrap_or(Path::new("")),
        args.common.status_file.as_ref(),
        Arc::clone(&interrupted),
    )?;
    let pulse = Pulse::default();
    let source: Box<dyn Source> = match location {
        Location::Path(path) => Box::new(MountedPath::new(path)),
        Location::Remote(remote) => {
            let target = remote.target(args)?;
            let name = master_name.to_owned();
            Box::new(Ssh::new(name, target, pulse.clone(), process.clone()))
        }
    };
    let name = master_name.to_owned();
    Ok(Job {
        master: Master::new(name, args.timeout, interrupted, pulse, source),
        slave,
        policy: Policy { full: args.full },
        tuning: Tuning::default(),
        dry_run: args.dry_run,
    })
}

fn not_begun(stop: &Stop) -> Outcome {
    Outcome {
        action: stop.action(),
        exit: stop.exit(),
        reason: stop.in_one_line(),
        hint: stop.hint(),
        copied: Copied::default(),
    }
}

/// One line that says how it ended, in syncPozo's phrases.
fn log(outcome: &Outcome, args: &Args, names: &(String, String), elapsed: Duration) {
    let Outcome { reason, copied, .. } = outcome;
    let (master, slave) = names;
    let hint = match &outcome.hint {
        Some(hint) => format!(" ({hint})"),
        None => String::new(),
    };
    match outcome.exit {
        Exit::Success => {
            let what = describe(outcome.action, *copied, args.dry_run);
            let seconds = elapsed.as_secs_f64();
            tracing::info!(
                "Finished syncing {master} to {slave}: {what} in {seconds:.3} s ({reason})"
            );
        }
        exit if exit.is_quiet() => {
            tracing::warn!("NOT SYNCING FROM MASTER {master} to {slave}: {reason}{hint}");
        }
        _ => tracing::error!("NOT SYNCING FROM MASTER {master} to {slave}: {reason}{hint}"),
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
        "{would}{verb} {} transactions, {} bytes",
        copied.transactions, copied.bytes
    )
}

fn report(outcome: &Outcome, (master, slave): (String, String), elapsed: Duration) -> Report {
    Report {
        storage: None,
        master,
        slave,
        action: outcome.action,
        reason: outcome.reason.clone(),
        exit_code: outcome.exit as u8,
        position: outcome.copied.position,
        last_tid: outcome.copied.last_tid,
        transactions: outcome.copied.transactions,
        bytes: outcome.copied.bytes,
        elapsed_seconds: elapsed.as_secs_f64(),
    }
}
