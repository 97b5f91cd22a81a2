//! A running `fssync --watch`, and its reports.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::clock::Moment;
use crate::python::Commit;
use crate::shared::command::{Remote, text};
use crate::shared::place::Place;

/// How long to wait for a report.
const PATIENCE: Duration = Duration::from_secs(300);

/// At this time the slave had everything before `position`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    pub(crate) at: Moment,
    pub(crate) position: u64,
}

/// The delay from each commit to the first report that covers it, in nanoseconds.
pub(crate) fn lags(
    commits: &[Commit],
    reports: &[Report],
    since: impl Fn(&Commit) -> Moment,
) -> Vec<i64> {
    let covers = |commit: &Commit| {
        let at = reports.partition_point(|report| report.position < commit.position);
        reports.get(at).map(|report| report.at.after(since(commit)))
    };
    commits.iter().filter_map(covers).collect()
}

/// A watch, which is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Follower {
    process: Child,
    reports: Receiver<Report>,
}

impl Follower {
    /// Starts a watch of the master with these options, through `remote` if it is given.
    pub(crate) fn start(
        place: &Place,
        remote: Option<&Remote>,
        options: &[String],
    ) -> io::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fssync"));
        command.args(["--watch", "--json", "-q"]).args(options);
        match remote {
            Some(remote) => command.args(remote.arguments(&place.master)),
            None => command.arg(text(&place.master)),
        };
        command.arg(&place.slave);
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = process.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (sender, reports) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                let at = Moment::now();
                let report: Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(position) = report["position"].as_u64() {
                    // At the end nobody receives this.
                    let _ = sender.send(Report { at, position });
                }
            }
        });
        Ok(Self { process, reports })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits until the slave reaches `position`; returns all reports until then.
    pub(crate) fn wait_for(&self, position: u64) -> io::Result<Vec<Report>> {
        let mut reports = Vec::new();
        loop {
            let report = self.reports.recv_timeout(PATIENCE).map_err(|error| {
                io::Error::other(match error {
                    RecvTimeoutError::Timeout => "the watch does not get there",
                    RecvTimeoutError::Disconnected => "the watch has ended",
                })
            })?;
            reports.push(report);
            if report.position >= position {
                return Ok(reports);
            }
        }
    }

    /// Stops the process.
    pub(crate) fn pause(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Continues the process.
    pub(crate) fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = Pid::from_raw(self.pid().cast_signed()).ok_or(io::ErrorKind::NotFound)?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
