//! `fssync verify SLAVE`: whether a slave is sound.

mod lines;
mod report;

use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use anyhow::Context;
use fssync::outcome::Exit;
use fssync::stop::Stop;
use fssync::verify::{self, Asked, Verified};

use self::lines::Lines;
use self::report::{Findings, Report};
use super::args::{Common, VerifyArgs};
use super::{pass, progress};

pub(crate) fn run(args: &VerifyArgs, common: &Common) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let interrupted = pass::end_on_signal()?;
    let slave = match super::slave(&args.slave, common.status_file.as_ref(), interrupted) {
        Ok(slave) => slave,
        Err(stop) => return Ok(super::log_stop(&stop)),
    };
    let monitor = progress::monitor(&args.telling, common);
    let mut findings = Findings::of(&slave.place);
    let asked = Asked {
        quick: args.quick,
        tap: None,
    };
    let verified = verify::verify(&slave, asked, monitor.as_ref(), &mut |finding| {
        findings.add(finding);
    });
    drop(monitor);
    let verified = match verified {
        Ok(verified) => verified,
        Err(stop) => return Ok(stopped(&stop, &findings)),
    };
    let exit = verified.exit();
    if args.telling.json {
        let report = Report::of(&verified, &findings, started.elapsed());
        print_json(&report).context("cannot print the report")?;
    } else if !common.quiet {
        print_lines(&verified, &findings).context("cannot print what was found")?;
    }
    if common.quiet && exit != Exit::Success {
        tracing::error!(
            "{}: {}",
            verified.slave.display(),
            lines::verdict(&verified)
        );
    }
    Ok(exit)
}

/// A verification that does not count; what it found by then is lost but for its
/// number.
fn stopped(stop: &Stop, findings: &Findings) -> Exit {
    if !findings.is_empty() {
        tracing::warn!("{} findings by then do not count", findings.len());
    }
    super::log_stop(stop)
}

fn print_json(report: &Report<'_>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, report)?;
    writeln!(stdout)
}

fn print_lines(verified: &Verified, findings: &Findings) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let coloured = stdout.is_terminal() && !no_color;
    stdout.write_all(Lines::of(verified, findings, coloured).as_bytes())
}
