//! A master on another machine, reached through the user's `ssh` program and `fssync serve`
//! on that machine.
//!
//! ssh uses its own configuration, agent and known hosts. Its standard error goes to the log.
//! The first request starts it, and a [`Process`] can end it at any time, even while a thread
//! waits for an answer.

pub mod client;
mod connection;
mod process;
mod terminal;

use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::Ordering;
use std::time::Duration;

pub use self::process::Process;

use self::client::{ReadRange, RequestError};
use self::connection::{Connection, StartError};
use self::process::ProcessExit;
use super::blobs::{BlobDigestAnswer, BlobEvent, BlobRoot, BlobWant, MAX_WANTS};
use super::{Error, Heartbeat, MAX_WAIT, MasterStat, Source, Surroundings, Transactions};
use crate::filestorage::blob::BlobKey;
use crate::io::digest::Digest;
use crate::source::protocol::{self, Reply, Request};

/// The length of a read from which on the next one is requested ahead of time, in bytes. Such
/// a read is probably one of many.
const MIN_AHEAD_LEN: u64 = 256 * 1024;

/// The maximum length of a reason from the other end in a message, in characters.
const MAX_WHY_LEN: usize = 500;

/// The advice if the other end has too old a version.
const UPGRADE_MASTER: &str = "upgrade fssync on the master";

/// The command that connects to a master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The program and its arguments, without the command for the other end.
    pub program: Vec<String>,
    /// The command for the other end's shell, quoted.
    pub command: String,
    /// The path of the master on the other machine.
    pub path: String,
}

/// A master on another machine.
#[derive(Debug)]
pub struct Ssh {
    name: String,
    target: Target,
    heartbeat: Heartbeat,
    process: Process,
    connection: Option<Connection>,
    /// Size of the master in bytes, at the last stat.
    size: u64,
    round_trips: u64,
}

impl Ssh {
    /// Describes the master at `target`. Starts nothing. `name` is its name in messages,
    /// `heartbeat` is updated when data arrives, and `process` is the handle by which another
    /// thread can end the program that connects.
    #[must_use]
    pub fn new(name: String, target: Target, heartbeat: Heartbeat, process: Process) -> Self {
        Self {
            name,
            target,
            heartbeat,
            process,
            connection: None,
            size: 0,
            round_trips: 0,
        }
    }

    /// Runs `work` with the connection, which is established first if there is none. A program
    /// that does not negotiate the version of the protocol gets a second connection.
    /// `request` describes the work for the log.
    fn with_connection<T>(
        &mut self,
        request: &dyn fmt::Debug,
        mut work: impl FnMut(&mut Connection) -> Result<T, RequestError>,
    ) -> Result<T, Error> {
        self.round_trips += 1;
        // Each MiB of a copy needs one: too many for `-v`.
        tracing::trace!("round trip {}: {request:?}", self.round_trips);
        let (mut connection, is_new) = match self.connection.take() {
            Some(connection) => (connection, false),
            None => (self.connect(protocol::VERSION)?, true),
        };
        let mut result = work(&mut connection);
        if let Err(RequestError::Broken(protocol::Error::OnlyVersion(version))) = result {
            tracing::debug!("connecting again with version {version} of the protocol");
            self.process.abandon(connection.pid);
            connection = self.connect(version)?;
            result = work(&mut connection);
        }
        self.connection = Some(connection);
        // An answer proves that ssh has logged in, so it will not ask for a password again.
        if is_new && result.is_ok() {
            self.process.take_terminal_back();
        }
        result.map_err(|failure| match failure {
            RequestError::Broken(error) => self.broken(&error),
            RequestError::Refused { why, is_transient } => Error::Remote {
                name: self.name.clone(),
                why: why.chars().take(MAX_WHY_LEN).collect(),
                is_transient,
            },
            RequestError::Blobs(problem) => Error::Blobs {
                name: self.name.clone(),
                problem: problem.bounded(),
            },
            RequestError::Unsupported { version } => Error::Connection {
                name: self.name.clone(),
                what: format!(
                    "fssync there speaks version {version} of the protocol, which has no blobs"
                ),
                hint: UPGRADE_MASTER,
            },
        })
    }

    fn ask(&mut self, request: &Request) -> Result<Reply, Error> {
        self.with_connection(request, |connection| connection.client.ask(request))
    }

    /// Starts a connection that will offer this version of the protocol.
    fn connect(&self, version: u16) -> Result<Connection, Error> {
        let heartbeat = self.heartbeat.clone();
        let connection = Connection::start(&self.target, version, heartbeat, &self.process);
        connection.map_err(|failure| match failure {
            StartError::Program(what) => Error::Connection {
                name: self.name.clone(),
                what,
                hint: "name a program that connects with --rsh",
            },
            StartError::Resources(what, source) => Error::Start { what, source },
        })
    }

    /// Closes a broken connection, and describes the failure with a hint.
    fn broken(&mut self, error: &protocol::Error) -> Error {
        let mut reasons = vec![super::display_chain(error)];
        let mut exit = ProcessExit::default();
        let mut is_unanswered = false;
        if let Some(connection) = self.connection.take() {
            let has_ended = matches!(error, protocol::Error::Ended | protocol::Error::Io(_));
            is_unanswered = has_ended && !connection.client.is_greeted().load(Ordering::Relaxed);
            // The hello has not arrived, so the end of the data only means that something on
            // the way failed. A better message replaces "the connection ended".
            if is_unanswered {
                reasons = vec!["the connection ended before fssync answered".to_owned()];
            }
            exit = self.process.finish(connection.pid);
            if let Some(code) = exit.code {
                reasons.push(format!(
                    "the program that connects ended with exit code {code}"
                ));
            }
            reasons.extend(connection.last_stderr_lines());
        }
        // The most specific cause comes first. 127 and 126 are the exit codes of a shell that
        // cannot run fssync, and 255 is that of ssh itself.
        let hint = match (error, exit.code) {
            _ if exit.lacked_terminal => {
                "the program that connects wants to ask a question: run fssync once in the \
                 foreground of a terminal, or use a key without a password"
            }
            (&protocol::Error::Version(theirs), _) if theirs < protocol::VERSION => UPGRADE_MASTER,
            (protocol::Error::Version(_), _) => {
                "upgrade fssync on this machine: the master has a newer version"
            }
            // An older version does not know an option of `fssync serve`.
            (_, Some(2)) if is_unanswered => {
                "fssync on the master does not accept the command: if it is older than this one, \
                 upgrade it there"
            }
            (_, Some(127)) => {
                "fssync: command not found on the master: install it there, or name it with \
                 --remote-fssync"
            }
            (_, Some(126)) => {
                "fssync cannot be executed on the master: check its permissions and its \
                 architecture there"
            }
            (_, Some(255)) => {
                "ssh could not connect: try the same command by hand, as the same user"
            }
            (protocol::Error::NoHello(_), _) => {
                "the other end is not fssync serve: if its account is limited to another \
                 command, such as internal-sftp, allow `fssync serve`; otherwise silence the \
                 output of its shell in non-interactive logins, or name fssync with \
                 --remote-fssync"
            }
            _ if is_unanswered => {
                "no fssync answered there: the login shell may be /bin/false or nologin, or sshd \
                 may run another command, such as internal-sftp; run `fssync --version` through \
                 the same connection by hand"
            }
            _ => "the connection broke: the next pass will try again",
        };
        Error::Connection {
            name: self.name.clone(),
            what: reasons.join("; "),
            hint,
        }
    }

    fn unexpected(&mut self) -> Error {
        self.broken(&protocol::Error::Frame("unexpected reply"))
    }

    fn digested(&mut self, request: &Request) -> Result<Option<Digest>, Error> {
        match self.ask(request)? {
            Reply::Digest(digest) => Ok(digest),
            _ => Err(self.unexpected()),
        }
    }

    fn stat_once(&mut self, ranges: &[Range<u64>]) -> Result<MasterStat, Error> {
        let request = Request::Stat {
            path: self.target.path.clone(),
            ranges: ranges.to_vec(),
        };
        match self.ask(&request)? {
            Reply::Stat {
                identity,
                size,
                modified,
                mode,
                file_system,
                named,
                digests,
            } if digests.len() == ranges.len() => {
                self.size = size;
                Ok(MasterStat {
                    identity,
                    local: None,
                    size,
                    modified,
                    mode: mode & 0o777,
                    file_system,
                    named,
                    digests,
                })
            }
            _ => Err(self.unexpected()),
        }
    }
}

impl Source for Ssh {
    fn stat(&mut self, ranges: &[Range<u64>]) -> Result<MasterStat, Error> {
        let is_old = self.connection.is_some();
        match self.stat_once(ranges) {
            // An idle connection may have broken long ago, so retry once with a new one.
            Err(Error::Connection { .. }) if is_old => self.stat_once(ranges),
            result => result,
        }
    }

    fn surroundings(&mut self) -> Result<Surroundings, Error> {
        match self.ask(&Request::Surroundings)? {
            Reply::Surroundings(found) => Ok(found.bounded()),
            _ => Err(self.unexpected()),
        }
    }

    fn read(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize, Error> {
        let len = buffer.len() as u64;
        let next = offset.saturating_add(len);
        let left = self.size.saturating_sub(next);
        let ahead = (left > 0 && len >= MIN_AHEAD_LEN).then_some(ReadRange {
            offset: next,
            len: left.min(len),
        });
        let request = Request::Read { offset, len };
        self.with_connection(&request, |connection| {
            connection.client.read(buffer, offset, ahead)
        })
    }

    fn digest(&mut self, range: Range<u64>) -> Result<Option<Digest>, Error> {
        self.digested(&Request::Digest(range))
    }

    fn confirm(&mut self, range: Range<u64>) -> Result<Option<Digest>, Error> {
        self.digested(&Request::Confirm(range))
    }

    fn transactions(&mut self, from: u64, size: u64) -> Result<Transactions, Error> {
        let request = Request::Transactions { from, size };
        self.with_connection(&request, |connection| {
            connection.client.transactions(from, size)
        })
    }

    fn blob_root(&mut self, given: Option<&str>) -> Result<BlobRoot, Error> {
        let given = given.map(str::to_owned);
        match self.ask(&Request::BlobRoot { given })? {
            Reply::BlobRoot(root) if root.is_bounded() => Ok(root),
            _ => Err(self.unexpected()),
        }
    }

    fn blobs(
        &mut self,
        root: &BlobRoot,
        wants: &[BlobWant],
        sink: &(dyn Fn(BlobEvent) -> ControlFlow<()> + Sync),
    ) -> Result<(), Error> {
        for (nth, wants) in wants.chunks(MAX_WANTS).enumerate() {
            let first = nth * MAX_WANTS;
            let sink = |BlobEvent { index, kind }| {
                let index = first + index;
                sink(BlobEvent { index, kind })
            };
            let request = format_args!("{} blobs in {}", wants.len(), root.directory);
            let flow = self.with_connection(&request, |connection| {
                connection.client.blobs(root, wants, &sink)
            })?;
            if flow.is_break() {
                // The rest of the answer may be long. A new connection costs less.
                self.close();
                break;
            }
        }
        Ok(())
    }

    fn blob_digests(
        &mut self,
        root: &BlobRoot,
        keys: &[BlobKey],
        _alive: &(dyn Fn() + Sync),
    ) -> Result<Vec<BlobDigestAnswer>, Error> {
        let mut digests = Vec::with_capacity(keys.len());
        for keys in keys.chunks(MAX_WANTS) {
            let request = format_args!("{} digests of blobs in {}", keys.len(), root.directory);
            digests.extend(self.with_connection(&request, |connection| {
                connection.client.blob_digests(root, keys)
            })?);
        }
        Ok(digests)
    }

    fn wait(&mut self, timeout: Duration) -> Result<bool, Error> {
        let request = Request::Wait {
            timeout_ms: timeout.min(MAX_WAIT).as_millis() as u64,
        };
        match self.ask(&request)? {
            Reply::Changed(changed) => Ok(changed),
            _ => Err(self.unexpected()),
        }
    }

    fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.process.abandon(connection.pid);
        }
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        self.close();
    }
}
