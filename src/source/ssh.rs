//! A master on another machine, through the user's own `ssh` program and
//! `fssync serve` over there.
//!
//! The program brings its configuration, agent and known hosts; what it says
//! goes to the log. It is started when the master is first looked at, and ended
//! through a [`Process`], also while an answer is waited for.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::ops::Range;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::master::Pulse;
use super::{Error, Sight, Source};
use crate::digest::Digest;
use crate::wire::{self, Reply, Request};

/// How many of its last lines a program that fails is quoted with.
const QUOTED_LINES: usize = 3;

/// How long a program that has closed its output may take to end.
const END_PATIENCE: Duration = Duration::from_millis(500);

/// How to reach a master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The program and its arguments, all but the command for the other end.
    pub program: Vec<String>,
    /// The command for the other end's shell, quoted.
    pub command: String,
    /// The master's path over there.
    pub path: String,
}

/// The program that connects, to be ended from outside.
#[derive(Clone, Debug, Default)]
pub struct Process(Arc<Mutex<Option<Child>>>);

impl Process {
    /// Ends it, if it runs, and waits for it.
    pub fn end(&self) {
        if let Some(mut child) = self.lock().take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Its exit code, if it has ended or does so in a moment.
    fn exit_code(&self) -> Option<i32> {
        let started = Instant::now();
        while started.elapsed() < END_PATIENCE {
            let status = self.lock().as_mut()?.try_wait().ok()?;
            if let Some(status) = status {
                return status.code();
            }
            thread::sleep(Duration::from_millis(10));
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A master on another machine.
#[derive(Debug)]
pub struct Ssh {
    name: String,
    target: Target,
    pulse: Pulse,
    process: Process,
    link: Option<Link>,
    round_trips: u64,
}

/// A connection.
#[derive(Debug)]
struct Link {
    to: ChildStdin,
    from: BufReader<Alive<ChildStdout>>,
    greeted: bool,
    complaints: Complaints,
}

/// What the program says on its standard error.
#[derive(Debug)]
struct Complaints {
    last_lines: Arc<Mutex<VecDeque<String>>>,
    /// Disconnected once it has said all.
    ended: mpsc::Receiver<()>,
}

impl Complaints {
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

impl Ssh {
    /// The master at `target`; nothing is started yet. `name` is what messages
    /// call it, `pulse` is told whenever something comes from it, and `process`
    /// is where the program that connects can be ended.
    #[must_use]
    pub fn new(name: String, target: Target, pulse: Pulse, process: Process) -> Self {
        Self {
            name,
            target,
            pulse,
            process,
            link: None,
            round_trips: 0,
        }
    }

    /// Asks, and waits for the reply.
    fn ask(&mut self, request: &Request) -> Result<Reply, Error> {
        self.round_trips += 1;
        tracing::debug!("round trip {}: {request:?}", self.round_trips);
        if self.link.is_none() {
            self.link = Some(self.connect()?);
        }
        let Some(link) = &mut self.link else {
            return Err(self.broken(&wire::Error::Ended));
        };
        let mut bytes = Vec::new();
        if !link.greeted {
            bytes.extend(wire::hello());
        }
        let sent =
            wire::write_message(&mut bytes, request).and_then(|()| link.to.write_all(&bytes));
        let reply = match sent {
            // Why nobody listens is better told by what was received.
            Ok(()) => link.reply(),
            Err(error) => link.reply().and(Err(wire::Error::Io(error))),
        };
        match reply {
            Ok(Reply::Refused { why, passing }) => Err(Error::Remote {
                name: self.name.clone(),
                why,
                passing,
            }),
            Ok(reply) => Ok(reply),
            Err(error) => Err(self.broken(&error)),
        }
    }

    fn connect(&self) -> Result<Link, Error> {
        let link = |what: String| Error::Link {
            name: self.name.clone(),
            what,
            hint: "name a program that connects with --rsh",
        };
        let (program, arguments) = self
            .target
            .program
            .split_first()
            .ok_or_else(|| link("no program is named".to_owned()))?;
        let mut child = Command::new(program)
            .args(arguments)
            .arg(&self.target.command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| link(format!("{program} cannot be started: {error}")))?;
        let ends = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        *self.process.lock() = Some(child);
        let (Some(to), Some(from), Some(complaints)) = ends else {
            return Err(link(format!("{program} has no input or output")));
        };
        let pulse = self.pulse.clone();
        let last_lines = Arc::default();
        let heard = Arc::clone(&last_lines);
        let (at_end, ended) = mpsc::channel();
        thread::spawn(move || {
            log_complaints(complaints, &heard);
            drop(at_end);
        });
        Ok(Link {
            to,
            from: BufReader::with_capacity(wire::MAX_DATA_LEN, Alive { from, pulse }),
            greeted: false,
            complaints: Complaints { last_lines, ended },
        })
    }

    /// What to say of a connection that broke; it is given up.
    fn broken(&mut self, error: &wire::Error) -> Error {
        let code = self.process.exit_code();
        self.process.end();
        let mut said = vec![super::in_one_line(error)];
        if let Some(code) = code {
            said.push(format!(
                "the program that connects ended with exit code {code}"
            ));
        }
        if let Some(link) = self.link.take() {
            said.extend(link.complaints.last_lines());
        }
        let hint = match (error, code) {
            (wire::Error::Version(_), _) => "install the same version of fssync on both machines",
            (_, Some(127)) => {
                "fssync: command not found on the master: install it there, or name it with \
                 --remote-fssync"
            }
            (_, Some(255)) => "ssh could not connect: try it by hand, as the same user",
            (wire::Error::NoHello(_), _) => {
                "the other end is no fssync serve: silence what its shell prints for \
                 non-interactive logins, or name fssync with --remote-fssync"
            }
            _ => "the connection broke: the next pass tries again",
        };
        Error::Link {
            name: self.name.clone(),
            what: said.join("; "),
            hint,
        }
    }

    fn unexpected(&mut self) -> Error {
        self.broken(&wire::Error::Frame("not the reply that is due"))
    }

    fn digested(&mut self, request: &Request) -> Result<Option<Digest>, Error> {
        match self.ask(request)? {
            Reply::Digest(digest) => Ok(digest),
            _ => Err(self.unexpected()),
        }
    }
}

impl Link {
    /// The next reply that is more than a sign of life.
    fn reply(&mut self) -> Result<Reply, wire::Error> {
        if !self.greeted {
            wire::read_hello(&mut self.from)?;
            self.greeted = true;
        }
        loop {
            match wire::read_message(&mut self.from)? {
                None => return Err(wire::Error::Ended),
                Some(Reply::Alive) => {}
                Some(reply) => return Ok(reply),
            }
        }
    }

    /// The bytes that follow a reply of data, to the start of `buffer`.
    fn data(&mut self, announced: u64, buffer: &mut [u8]) -> Result<usize, wire::Error> {
        let len = wire::read_data(&mut self.from, buffer)?;
        if len as u64 != announced {
            return Err(wire::Error::Frame("not as long as announced"));
        }
        Ok(len)
    }
}

impl Source for Ssh {
    fn look(&mut self, ranges: &[Range<u64>]) -> Result<Sight, Error> {
        let request = Request::Look {
            path: self.target.path.clone(),
            ranges: ranges.to_vec(),
        };
        match self.ask(&request)? {
            Reply::Sight {
                identity,
                size,
                mode,
                digests,
            } if digests.len() == ranges.len() => Ok(Sight {
                identity,
                local: None,
                size,
                mode: mode & 0o777,
                digests,
            }),
            _ => Err(self.unexpected()),
        }
    }

    fn read(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize, Error> {
        let len = buffer.len() as u64;
        let mut reply = self.ask(&Request::Read { offset, len })?;
        let mut filled = 0;
        loop {
            let announced = match reply {
                Reply::Data(0) => return Ok(filled),
                Reply::Data(announced) => announced,
                _ => return Err(self.unexpected()),
            };
            let Some(link) = &mut self.link else {
                return Err(self.unexpected());
            };
            let next = link.data(announced, &mut buffer[filled..]).and_then(|got| {
                filled += got;
                if filled < buffer.len() {
                    link.reply()
                } else {
                    Ok(Reply::Data(0))
                }
            });
            reply = match next {
                Ok(Reply::Refused { why, passing }) => {
                    return Err(Error::Remote {
                        name: self.name.clone(),
                        why,
                        passing,
                    });
                }
                Ok(reply) => reply,
                Err(error) => return Err(self.broken(&error)),
            };
        }
    }

    fn digest(&mut self, range: Range<u64>) -> Result<Option<Digest>, Error> {
        self.digested(&Request::Digest(range))
    }

    fn confirm(&mut self, range: Range<u64>) -> Result<Option<Digest>, Error> {
        self.digested(&Request::Confirm(range))
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        self.process.end();
    }
}

/// Logs what a program says on its standard error, until it ends, and keeps the
/// last lines. Long lines are cut.
fn log_complaints(from: ChildStderr, last: &Mutex<VecDeque<String>>) {
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
        tracing::warn!("from the connection: {line}");
        let mut lines = last.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push_back(line);
        if lines.len() > QUOTED_LINES {
            lines.pop_front();
        }
    }
}
