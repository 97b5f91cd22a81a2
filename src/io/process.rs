//! Runs a program with a time limit, and without relying on its cooperation.

use std::fs::File;
use std::io::{self, PipeReader, Read, Seek, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};

use super::children;

/// The end of the output that is kept for the log, in bytes.
const MAX_OUTPUT_LEN: usize = 1024;

/// The largest piece of the output that is read at once, in bytes.
const PIECE_LEN: usize = 16 * 1024;

/// The longest pause between two looks at the process. After each piece of output there is one,
/// too, so a program that floods its output costs little.
const MAX_PAUSE: Duration = Duration::from_millis(20);

/// How long a killed process may take to disappear.
const KILL_TIMEOUT: Duration = Duration::from_millis(500);

/// Variables by which systemd identifies fssync. A child must not use them.
const VARIABLES_OF_SYSTEMD: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The program and its arguments. No shell is involved.
    pub command: Vec<String>,
    /// Environment variables, besides those of fssync.
    pub variables: Vec<(&'static str, String)>,
    /// Its standard input.
    pub input: Vec<u8>,
    /// It is killed after this time.
    pub timeout: Duration,
}

/// Why a program did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It could not be started.
    #[error("cannot be started: {0}")]
    Start(io::Error),
    /// It failed, with this status and the end of its output.
    #[error("{}{}", describe(*.status), after_colon(.output))]
    Status {
        /// How it ended.
        status: ExitStatus,
        /// The end of its output on standard output and standard error.
        output: String,
    },
    /// It was killed after its time limit.
    #[error("was killed after {:.0} s{}", .after.as_secs_f64(), after_colon(.output))]
    TimedOut {
        /// The time for which it ran.
        after: Duration,
        /// The end of its output.
        output: String,
    },
    /// It was killed because fssync is about to end.
    #[error("was killed because fssync ends")]
    Halted,
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

fn after_colon(output: &str) -> String {
    if output.is_empty() {
        return String::new();
    }
    format!(": {output}")
}

/// Runs a program to its end. It is killed, with all processes in its process group, at the end
/// of its time or once `halt` returns true; `halt` is called many times a second. A process that
/// it leaves running in the background is not waited for.
///
/// Returns the end of its output, at most a kilobyte: one line after the other, separated by
/// `; `.
pub fn run(program: &Program, halt: &dyn Fn() -> bool) -> Result<String, Failure> {
    let started = Instant::now();
    let (mut child, reader) = start(program).map_err(Failure::Start)?;
    let mut output = Output::new(reader);
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.status() {
            output.read_rest();
            let output = output.into_text();
            if status.success() {
                return Ok(output);
            }
            return Err(Failure::Status { status, output });
        }
        let elapsed = started.elapsed();
        let is_halted = halt();
        if is_halted || elapsed >= program.timeout {
            kill(&mut child);
            if is_halted {
                return Err(Failure::Halted);
            }
            output.read_rest();
            return Err(Failure::TimedOut {
                after: elapsed,
                output: output.into_text(),
            });
        }
        output.read_piece();
        thread::sleep(pause);
        pause = MAX_PAUSE.min(pause * 2);
    }
}

fn start(program: &Program) -> io::Result<(children::Program, PipeReader)> {
    let [name, arguments @ ..] = &program.command[..] else {
        return Err(io::Error::other("the command is empty"));
    };
    // A program that does not read a pipe would block the writer once the pipe is full.
    let mut input = File::from(memfd_create("fssync-input", MemfdFlags::CLOEXEC)?);
    input.write_all(&program.input)?;
    input.rewind()?;
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(name);
    command
        .args(arguments)
        .process_group(0)
        .stdin(input)
        .stdout(writer.try_clone()?)
        .stderr(writer);
    for variable in VARIABLES_OF_SYSTEMD {
        command.env_remove(variable);
    }
    for (name, value) in &program.variables {
        command.env(name, value.replace('\0', "?"));
    }
    Ok((children::Program::start(&mut command)?, reader))
}

/// Kills a program with its process group, and reaps it, unless it hangs in the kernel.
fn kill(child: &mut children::Program) {
    child.kill();
    let until = Instant::now() + KILL_TIMEOUT;
    while child.status().is_none() && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
}

/// The output of a program, of which only the end is kept.
struct Output {
    /// `None` once all processes have closed it.
    reader: Option<PipeReader>,
    end: Vec<u8>,
}

impl Output {
    fn new(reader: PipeReader) -> Self {
        Self {
            reader: Some(reader),
            end: Vec::new(),
        }
    }

    /// Reads a piece if there is one now. Returns whether there was.
    fn read_piece(&mut self) -> bool {
        let Some(reader) = &mut self.reader else {
            return false;
        };
        let mut ready = [PollFd::new(reader, PollFlags::IN)];
        let now = Timespec::default();
        if !matches!(poll(&mut ready, Some(&now)), Ok(1..)) {
            return false;
        }
        let mut piece = [0; PIECE_LEN];
        match reader.read(&mut piece) {
            Ok(0) | Err(_) => {
                self.reader = None;
                return false;
            }
            Ok(len) => self.end.extend_from_slice(&piece[..len]),
        }
        let excess = self.end.len().saturating_sub(MAX_OUTPUT_LEN);
        self.end.drain(..excess);
        true
    }

    /// Reads the output of a process that has ended, as far as a pipe can contain it. A process
    /// that it has left running may write more, which is ignored.
    fn read_rest(&mut self) {
        const PIPE_PIECES: usize = 64 * 1024 / PIECE_LEN;
        for _ in 0..PIPE_PIECES {
            if !self.read_piece() {
                break;
            }
        }
    }

    /// The end of the output, on one line.
    fn into_text(self) -> String {
        let text = String::from_utf8_lossy(&self.end);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests;
