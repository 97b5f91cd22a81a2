//! A connection: the program that makes it, and what that complains of.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Target;
use super::talk::Talk;
use crate::pipe;
use crate::source::Pulse;

/// How many of its last lines a program that fails is quoted with.
const QUOTED_LINES: usize = 3;

/// How much of what comes is read at once, in bytes.
const BUFFER_LEN: usize = 4 * 1024;

/// How long a program that has closed its output may take to end.
const END_PATIENCE: Duration = Duration::from_millis(500);

/// The program that connects, to be ended from outside.
#[derive(Clone, Debug, Default)]
pub struct Process(Arc<Mutex<Slot>>);

#[derive(Debug, Default)]
struct Slot {
    child: Option<Child>,
    /// Whether no other is to be started.
    is_closed: bool,
}

impl Process {
    /// Ends it, if it runs, and waits for it.
    pub fn end(&self) {
        if let Some(child) = self.lock().child.take() {
            end(child);
        }
    }

    /// Ends it, for good.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.end();
    }

    /// Ends the one with this process id, if it is not followed by another yet;
    /// its exit code, if it ended by itself or did so in a moment.
    pub(super) fn finish(&self, pid: u32) -> Option<i32> {
        let mut child = self.lock().child.take_if(|child| child.id() == pid)?;
        let started = Instant::now();
        while started.elapsed() < END_PATIENCE {
            if let Some(status) = child.try_wait().ok()? {
                return status.code();
            }
            thread::sleep(Duration::from_millis(10));
        }
        end(child);
        None
    }

    /// Ends the one with this process id at once, if it still runs.
    pub(super) fn abandon(&self, pid: u32) {
        let child = self.lock().child.take_if(|child| child.id() == pid);
        if let Some(child) = child {
            end(child);
        }
    }

    /// The program runs now; one before it is ended.
    fn begin(&self, child: Child) {
        let mut slot = self.lock();
        let before = if slot.is_closed {
            Some(child)
        } else {
            slot.child.replace(child)
        };
        if let Some(before) = before {
            end(before);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn end(mut child: Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    /// The program's process id.
    pub(super) pid: u32,
    /// What is said through it.
    pub(super) talk: Talk<BufReader<Alive<ChildStdout>>, ChildStdin>,
    complaints: Complaints,
}

impl Link {
    /// Starts the program, and keeps it in `process`.
    pub(super) fn start(target: &Target, pulse: Pulse, process: &Process) -> Result<Self, String> {
        let (program, arguments) = target.program.split_first().ok_or("no program is named")?;
        let mut child = Command::new(program)
            .args(arguments)
            .arg(&target.command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{program} cannot be started: {error}"))?;
        let ends = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let pid = child.id();
        process.begin(child);
        let (Some(to), Some(from), Some(complaints)) = ends else {
            return Err(format!("{program} has no input or output"));
        };
        pipe::widen(&from);
        // Headers come through the buffer; data, for the most part, past it.
        let from = BufReader::with_capacity(BUFFER_LEN, Alive { from, pulse });
        let talk = Talk::new(from, to);
        Ok(Self {
            pid,
            complaints: Complaints::listen(complaints, talk.is_greeted()),
            talk,
        })
    }

    /// The last lines that the program said on its standard error.
    pub(super) fn complaints(&self) -> Vec<String> {
        self.complaints.last_lines()
    }
}

/// What the program says on its standard error.
#[derive(Debug)]
struct Complaints {
    last_lines: Arc<Mutex<VecDeque<String>>>,
    /// Disconnected once it has said all.
    ended: mpsc::Receiver<()>,
}

impl Complaints {
    /// Logs what comes, in a thread of its own. What is said before the other end
    /// `is_greeted` is told along with the failure to connect, if it comes to that; a
    /// watch that tries again and again need not say it each time.
    fn listen(from: ChildStderr, is_greeted: Arc<AtomicBool>) -> Self {
        let last_lines = Arc::default();
        let heard = Arc::clone(&last_lines);
        let (at_end, ended) = mpsc::channel();
        thread::spawn(move || {
            log_complaints(from, &heard, &is_greeted);
            drop(at_end);
        });
        Self { last_lines, ended }
    }

    /// The last lines. The end of them is waited for, but not for long: a child
    /// of the program's may hold the pipe.
    fn last_lines(&self) -> Vec<String> {
        // Disconnected or not: what there is by then is taken.
        let _ = self.ended.recv_timeout(END_PATIENCE);
        let lines = self.last_lines.lock();
        Vec::from_iter(lines.unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Tells that something came.
#[derive(Debug)]
pub(super) struct Alive<R> {
    from: R,
    pulse: Pulse,
}

impl<R: Read> Read for Alive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = self.from.read(buffer)?;
        self.pulse.beat();
        Ok(len)
    }
}

/// Logs what a program says on its standard error, until it ends, and keeps the
/// last lines. Long lines are cut.
fn log_complaints(from: ChildStderr, last: &Mutex<VecDeque<String>>, is_greeted: &AtomicBool) {
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
        if is_greeted.load(Ordering::Relaxed) {
            tracing::warn!("from the connection: {line}");
        } else {
            tracing::debug!("from the connection: {line}");
        }
        let mut lines = last.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push_back(line);
        if lines.len() > QUOTED_LINES {
            lines.pop_front();
        }
    }
}
