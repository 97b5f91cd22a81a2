//! A connection: the program that makes it, and what is said through it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Target;
use crate::pipe;
use crate::source::{MAX_LIST_LEN, Pulse, Transactions};
use crate::wire::{self, Reply, Request};

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

/// Why something could not be had through a connection.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection is of no use any more.
    Broken(wire::Error),
    /// The other end refused.
    Refused {
        /// Why.
        why: String,
        /// Whether it may not do so a moment later.
        passing: bool,
    },
}

impl From<wire::Error> for Failure {
    fn from(error: wire::Error) -> Self {
        Self::Broken(error)
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    /// The program's process id.
    pub(super) pid: u32,
    to: ChildStdin,
    from: BufReader<Alive<ChildStdout>>,
    /// Whether this end has said hello.
    has_greeted: bool,
    /// A read that was asked for ahead: its offset and length.
    ahead: Option<(u64, u64)>,
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
        Ok(Self {
            pid,
            to,
            // Headers come through the buffer; data, for the most part, past it.
            from: BufReader::with_capacity(BUFFER_LEN, Alive { from, pulse }),
            has_greeted: false,
            ahead: None,
            complaints: Complaints::listen(complaints),
        })
    }

    /// Asks, and waits for the reply.
    pub(super) fn ask(&mut self, request: &Request) -> Result<Reply, Failure> {
        self.drain()?;
        self.send(request)?;
        match request {
            // It has a time of its own.
            Request::Wait { .. } => self.next_reply(),
            _ => self.reply(),
        }
    }

    /// Reads `buffer.len()` bytes from `offset` on, fewer at the end of the file,
    /// and asks for those at `ahead`, which are likely to be wanted next: so the
    /// other end need not wait to be asked.
    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        offset: u64,
        ahead: Option<(u64, u64)>,
    ) -> Result<usize, Failure> {
        let len = buffer.len() as u64;
        if self.ahead != Some((offset, len)) {
            self.drain()?;
            self.send(&Request::Read { offset, len })?;
        }
        self.ahead = None;
        if let Some((offset, len)) = ahead {
            self.send(&Request::Read { offset, len })?;
            self.ahead = ahead;
        }
        self.data(buffer)
    }

    /// Asks for a list of transactions, and waits for it.
    pub(super) fn transactions(&mut self, from: u64, size: u64) -> Result<Transactions, Failure> {
        let Reply::Transactions { len, reached } =
            self.ask(&Request::Transactions { from, size })?
        else {
            return Err(wire::Error::Frame("not the reply that is due").into());
        };
        let mut list = vec![0; MAX_LIST_LEN];
        let got = match len {
            0 => 0,
            _ => wire::read_data(&mut self.from, &mut list)?,
        };
        if got as u64 != len {
            return Err(wire::Error::Frame("not as long as announced").into());
        }
        Transactions::decode(&list[..got], reached, from, size)
            .ok_or(wire::Error::Frame("no list of transactions").into())
    }

    /// The last lines that the program said on its standard error.
    pub(super) fn complaints(&self) -> Vec<String> {
        self.complaints.last_lines()
    }

    /// Passes over the answer to a read that nobody wants any more.
    fn drain(&mut self) -> Result<(), Failure> {
        let Some((_, len)) = self.ahead.take() else {
            return Ok(());
        };
        match self.data(&mut vec![0; len as usize]) {
            Err(Failure::Broken(error)) => Err(error.into()),
            Ok(_) | Err(Failure::Refused { .. }) => Ok(()),
        }
    }

    fn send(&mut self, request: &Request) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        if !self.has_greeted {
            bytes.extend(wire::hello());
            self.has_greeted = true;
        }
        let sent =
            wire::write_message(&mut bytes, request).and_then(|()| self.to.write_all(&bytes));
        match sent {
            Ok(()) => Ok(()),
            // Why nobody listens is better told by what was received.
            Err(error) => self.reply().and(Err(wire::Error::Io(error).into())),
        }
    }

    /// The next reply that is more than a sign of life.
    fn reply(&mut self) -> Result<Reply, Failure> {
        loop {
            match self.next_reply()? {
                Reply::Alive => {}
                reply => return Ok(reply),
            }
        }
    }

    /// The next reply.
    fn next_reply(&mut self) -> Result<Reply, Failure> {
        if !self.complaints.is_greeted.load(Ordering::Relaxed) {
            wire::read_hello(&mut self.from)?;
            self.complaints.is_greeted.store(true, Ordering::Relaxed);
        }
        match wire::read_message(&mut self.from)? {
            None => Err(wire::Error::Ended.into()),
            Some(Reply::Refused { why, passing }) => Err(Failure::Refused { why, passing }),
            Some(reply) => Ok(reply),
        }
    }

    /// The answer to a read.
    fn data(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.reply()? {
                Reply::Data(0) => break,
                Reply::Data(announced) => {
                    let got = wire::read_data(&mut self.from, &mut buffer[filled..])?;
                    if got as u64 != announced {
                        return Err(wire::Error::Frame("not as long as announced").into());
                    }
                    filled += got;
                }
                _ => return Err(wire::Error::Frame("not the reply that is due").into()),
            }
        }
        Ok(filled)
    }
}

/// What the program says on its standard error.
#[derive(Debug)]
struct Complaints {
    last_lines: Arc<Mutex<VecDeque<String>>>,
    /// Whether the other end has said hello. What is said before is told along
    /// with the failure to connect, if it comes to that; a watch that tries again
    /// and again need not say it each time.
    is_greeted: Arc<AtomicBool>,
    /// Disconnected once it has said all.
    ended: mpsc::Receiver<()>,
}

impl Complaints {
    /// Logs what comes, in a thread of its own.
    fn listen(from: ChildStderr) -> Self {
        let last_lines = Arc::default();
        let heard = Arc::clone(&last_lines);
        let is_greeted = Arc::<AtomicBool>::default();
        let greeted = Arc::clone(&is_greeted);
        let (at_end, ended) = mpsc::channel();
        thread::spawn(move || {
            log_complaints(from, &heard, &greeted);
            drop(at_end);
        });
        Self {
            last_lines,
            is_greeted,
            ended,
        }
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
struct Alive<R> {
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
