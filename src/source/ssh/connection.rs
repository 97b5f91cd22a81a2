//! A connection: the program that makes it, and what that complains of.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::io::Errno;

use super::Target;
use super::client::Client;
use super::process::{Process, ProcessFlags};
use crate::io::pipe;
use crate::source::Heartbeat;

/// How many of its last lines a program that fails is quoted with.
const MAX_QUOTED_LINES: usize = 3;

/// How much of what comes is read at once, in bytes.
const BUFFER_LEN: usize = 4 * 1024;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// The program's process id.
    pub(super) pid: u32,
    /// What is said through it.
    pub(super) client: Client<BufReader<HeartbeatReader<ChildStdout>>, ChildStdin>,
    stderr: StderrLog,
}

/// Why no connection could be begun.
#[derive(Debug)]
pub(super) enum StartError {
    /// The program that connects cannot be run, and why.
    Program(String),
    /// This machine lets nothing more be started: what was to be.
    Resources(String, io::Error),
}

impl Connection {
    /// Starts the program, and keeps it in `process`.
    pub(super) fn start(
        target: &Target,
        heartbeat: Heartbeat,
        process: &Process,
    ) -> Result<Self, StartError> {
        let Some((program, arguments)) = target.program.split_first() else {
            return Err(StartError::Program("no program is named".to_owned()));
        };
        let flags = ProcessFlags::default();
        let mut command = Command::new(program);
        command.args(arguments).arg(&target.command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::piped());
        let mut child = process
            .start(&mut command, flags.clone())
            .map_err(|error| StartError::of_program(program, error))?;
        let ends = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let pid = child.id();
        let (Some(to), Some(from), Some(stderr)) = ends else {
            let why = format!("{program} has no input or output");
            return Err(StartError::Program(why));
        };
        pipe::widen(&from);
        // Headers come through the buffer; data, for the most part, past it.
        let from = BufReader::with_capacity(BUFFER_LEN, HeartbeatReader { from, heartbeat });
        let client = Client::new(from, to);
        let listening = StderrLog::listen(stderr, client.is_greeted(), flags);
        Ok(Self {
            pid,
            client,
            stderr: listening.map_err(|error| {
                process.abandon(pid);
                StartError::Resources(format!("a thread that listens to {program}"), error)
            })?,
        })
    }

    /// The last lines that the program said on its standard error. It is ended by now:
    /// only what left its process group could say more.
    pub(super) fn last_stderr_lines(&self) -> Vec<String> {
        let lines = self.stderr.last_lines.lock();
        Vec::from_iter(lines.unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl StartError {
    fn of_program(program: &str, error: io::Error) -> Self {
        let limits = [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE];
        if Errno::from_io_error(&error).is_some_and(|it| limits.contains(&it)) {
            return Self::Resources(program.to_owned(), error);
        }
        Self::Program(format!("{program} cannot be started: {error}"))
    }
}

/// What the program says on its standard error.
#[derive(Debug)]
struct StderrLog {
    last_lines: Arc<Mutex<VecDeque<String>>>,
}

impl StderrLog {
    /// Logs what comes, in a thread of its own. What is said before the other end
    /// `is_greeted` is told along with the failure to connect, if it comes to that; a
    /// watch that tries again and again need not say it each time.
    fn listen(
        from: ChildStderr,
        is_greeted: Arc<AtomicBool>,
        flags: ProcessFlags,
    ) -> io::Result<Self> {
        let last_lines = Arc::default();
        let heard = Arc::clone(&last_lines);
        thread::Builder::new()
            .name("complaints".to_owned())
            .spawn(move || {
                let is_worth_a_warning = || {
                    is_greeted.load(Ordering::Relaxed)
                        && !flags.is_ended_by_us.load(Ordering::Relaxed)
                };
                log_stderr(from, &heard, &is_worth_a_warning);
                flags.is_stderr_closed.store(true, Ordering::Relaxed);
            })?;
        Ok(Self { last_lines })
    }
}

/// Tells that something came.
#[derive(Debug)]
pub(super) struct HeartbeatReader<R> {
    from: R,
    heartbeat: Heartbeat,
}

impl<R: Read> Read for HeartbeatReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = self.from.read(buffer)?;
        self.heartbeat.beat();
        Ok(len)
    }
}

/// Logs what a program says on its standard error, until it ends, and keeps the
/// last lines. Long lines are cut.
fn log_stderr(
    from: ChildStderr,
    last: &Mutex<VecDeque<String>>,
    is_worth_a_warning: &impl Fn() -> bool,
) {
    /// How much of a line is kept, in bytes.
    const LINE_LEN: u64 = 500;
    let mut from = BufReader::new(from);
    loop {
        let mut line = Vec::new();
        match from.by_ref().take(LINE_LEN).read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        }
        let line = String::from_utf8_lossy(line.trim_ascii()).into_owned();
        if line.is_empty() {
            continue;
        }
        if is_worth_a_warning() {
            tracing::warn!("from the connection: {line}");
        } else {
            tracing::debug!("from the connection: {line}");
        }
        let mut lines = last.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push_back(line);
        if lines.len() > MAX_QUOTED_LINES {
            lines.pop_front();
        }
    }
}
