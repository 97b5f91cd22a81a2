//! A connection: the program that connects, its streams and its standard error.

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

/// The number of last lines of standard error that a message quotes.
const MAX_QUOTED_LINES: usize = 3;

/// The size of the read buffer, in bytes.
const BUFFER_LEN: usize = 4 * 1024;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// Process id of the program.
    pub(super) pid: u32,
    /// The protocol over its standard input and output.
    pub(super) client: Client<BufReader<HeartbeatReader<ChildStdout>>, ChildStdin>,
    stderr: StderrLog,
}

/// Why no connection could be started.
#[derive(Debug)]
pub(super) enum StartError {
    /// The program cannot be run. Contains a description.
    Program(String),
    /// A limit of this machine does not allow to start the described thread or program.
    Resources(String, io::Error),
}

impl Connection {
    /// Starts the program, and registers it in `process`. The connection will offer this version of
    /// the protocol.
    pub(super) fn start(
        target: &Target,
        version: u16,
        heartbeat: Heartbeat,
        process: &Process,
    ) -> Result<Self, StartError> {
        let Some((program, arguments)) = target.program.split_first() else {
            return Err(StartError::Program("the command is empty".to_owned()));
        };
        let flags = ProcessFlags::default();
        let mut command = Command::new(program);
        command.args(arguments).arg(&target.command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::piped());
        let mut child = process
            .start(&mut command, flags.clone())
            .map_err(|error| StartError::of_program(program, error))?;
        // Take the streams. The child itself is waited for by its process id, in `process`.
        let ends = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let pid = child.id();
        let (Some(to), Some(from), Some(stderr)) = ends else {
            let why = format!("{program} has no input or output");
            return Err(StartError::Program(why));
        };
        pipe::widen(&from);
        // Only headers go through the buffer. Large reads of data bypass it.
        let from = BufReader::with_capacity(BUFFER_LEN, HeartbeatReader { from, heartbeat });
        let client = Client::new(from, to, version);
        let listening = StderrLog::listen(stderr, client.is_greeted(), flags);
        Ok(Self {
            pid,
            client,
            stderr: listening.map_err(|error| {
                process.abandon(pid);
                StartError::Resources(
                    format!("a thread that reads the messages of {program}"),
                    error,
                )
            })?,
        })
    }

    /// The last lines of the program's standard error. Call this after the end of the program,
    /// when no more lines can come, except from a process that left its group.
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

/// The log of the program's standard error.
#[derive(Debug)]
struct StderrLog {
    last_lines: Arc<Mutex<VecDeque<String>>>,
}

impl StderrLog {
    /// Starts a thread that logs the lines. Lines before the hello of the other end, when
    /// `is_greeted` becomes true, are not warnings: if the connection fails, its error quotes
    /// them, and a watch that retries need not log them each time.
    fn listen(
        from: ChildStderr,
        is_greeted: Arc<AtomicBool>,
        flags: ProcessFlags,
    ) -> io::Result<Self> {
        let last_lines = Arc::default();
        let lines = Arc::clone(&last_lines);
        let span = tracing::Span::current();
        thread::Builder::new()
            .name("complaints".to_owned())
            .spawn(move || {
                let _span = span.entered();
                let is_worth_a_warning = || {
                    is_greeted.load(Ordering::Relaxed)
                        && !flags.is_ended_by_us.load(Ordering::Relaxed)
                };
                log_stderr(from, &lines, &is_worth_a_warning);
                flags.is_stderr_closed.store(true, Ordering::Relaxed);
            })?;
        Ok(Self { last_lines })
    }
}

/// Records a heartbeat for each read.
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

/// Logs a program's standard error until it is closed, and keeps the last lines. Splits long
/// lines.
fn log_stderr(
    from: ChildStderr,
    last: &Mutex<VecDeque<String>>,
    is_worth_a_warning: &impl Fn() -> bool,
) {
    /// The maximum length of a line, in bytes.
    const MAX_LINE_LEN: u64 = 500;
    let mut from = BufReader::new(from);
    loop {
        let mut line = Vec::new();
        match from
            .by_ref()
            .take(MAX_LINE_LEN)
            .read_until(b'\n', &mut line)
        {
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
