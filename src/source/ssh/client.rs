//! The slave's end of the protocol.
//!
//! The other end may send anything. Every reply is checked before it is used, and never needs
//! more memory than the request allows.

mod blobs;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::source::blobs::BlobsProblem;
use crate::source::protocol::{self, Reply, Request};
use crate::source::{MAX_LIST_LEN, Transactions};

/// Why a request failed.
#[derive(Debug)]
pub enum RequestError {
    /// The connection broke, or the other end violated the protocol. The connection must be
    /// closed.
    Broken(protocol::Error),
    /// The other end refused the request. The connection can be used for others.
    Refused {
        /// The reason that it gave.
        why: String,
        /// Whether a retry may succeed, according to the other end.
        is_transient: bool,
    },
    /// The blob directory at the other end cannot be used. The connection can be used for
    /// other requests.
    Blobs(BlobsProblem),
    /// The version that both ends speak does not have the request. It was not sent, and the
    /// connection can be used for others.
    Unsupported {
        /// That version.
        version: u16,
    },
}

impl From<protocol::Error> for RequestError {
    fn from(error: protocol::Error) -> Self {
        Self::Broken(error)
    }
}

/// Bytes to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRange {
    /// Offset of the first byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

impl ReadRange {
    fn request(self) -> Request {
        let Self { offset, len } = self;
        Request::Read { offset, len }
    }
}

/// A connection to the master's end: a pair of streams and the state of the protocol.
#[derive(Debug)]
pub struct Client<R, W> {
    from: R,
    to: W,
    /// The version that this end offers; then the one that both ends speak.
    version: u16,
    /// Whether this end has sent its hello.
    has_greeted: bool,
    /// Whether the hello of the other end was received.
    is_greeted: Arc<AtomicBool>,
    /// A read that was requested ahead of time, and whose data was not taken yet.
    ahead: Option<ReadRange>,
    /// The data of such a read, which arrived before the answer to a request for blobs.
    kept: Option<KeptRead>,
}

/// Data that was read ahead and not taken yet.
#[derive(Debug)]
struct KeptRead {
    range: ReadRange,
    bytes: Vec<u8>,
}

impl<R: Read, W: Write> Client<R, W> {
    /// Creates a client for a new connection, which will offer this version of the protocol. Sends
    /// nothing.
    #[must_use]
    pub fn new(from: R, to: W, version: u16) -> Self {
        Self {
            from,
            to,
            version,
            has_greeted: false,
            is_greeted: Arc::default(),
            ahead: None,
            kept: None,
        }
    }

    /// A flag that becomes true when the hello of the other end is received.
    #[must_use]
    pub fn is_greeted(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_greeted)
    }

    /// Sends a request and waits for the reply.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, RequestError> {
        self.drain()?;
        self.send(request)?;
        match request {
            // It has its own timeout and no heartbeats, so a heartbeat is an error here.
            Request::Wait { .. } => self.next_reply(),
            _ => self.reply(),
        }
    }

    /// Reads `buffer.len()` bytes from `offset` on, or fewer at the end of the file. Requests
    /// the bytes at `ahead` too, which the caller will probably read next, so that the other
    /// end can send them without delay.
    pub fn read(
        &mut self,
        buffer: &mut [u8],
        offset: u64,
        ahead: Option<ReadRange>,
    ) -> Result<usize, RequestError> {
        let len = buffer.len() as u64;
        let wanted = ReadRange { offset, len };
        let kept = self.kept.take().filter(|kept| kept.range == wanted);
        if kept.is_none() && self.ahead != Some(wanted) {
            self.drain()?;
            self.send(&wanted.request())?;
        }
        // Send the next request before the reply is read, so that the other end never idles.
        self.ahead = None;
        if let Some(next) = ahead {
            self.send(&next.request())?;
            self.ahead = ahead;
        }
        match kept {
            Some(kept) => {
                buffer[..kept.bytes.len()].copy_from_slice(&kept.bytes);
                Ok(kept.bytes.len())
            }
            None => self.data(buffer),
        }
    }

    /// Requests a list of transactions and waits for it.
    pub fn transactions(&mut self, from: u64, size: u64) -> Result<Transactions, RequestError> {
        let Reply::Transactions { len, reached } =
            self.ask(&Request::Transactions { from, size })?
        else {
            return Err(protocol::Error::Frame("unexpected reply").into());
        };
        let mut list = vec![0; MAX_LIST_LEN];
        let got = match len {
            0 => 0,
            _ => protocol::read_data(&mut self.from, &mut list)?,
        };
        if got as u64 != len {
            return Err(protocol::Error::Frame("length differs from the announced one").into());
        }
        Transactions::decode(&list[..got], reached, from, size)
            .ok_or(protocol::Error::Frame("invalid list of transactions").into())
    }

    /// Discards the answer to a read ahead that turned out not to be needed.
    fn drain(&mut self) -> Result<(), RequestError> {
        self.keep_ahead()?;
        self.kept = None;
        Ok(())
    }

    /// Receives the answer to a read ahead, and keeps it for that read.
    fn keep_ahead(&mut self) -> Result<(), RequestError> {
        let Some(range) = self.ahead.take() else {
            return Ok(());
        };
        let mut bytes = vec![0; range.len as usize];
        match self.data(&mut bytes) {
            Err(RequestError::Broken(error)) => return Err(error.into()),
            // The read itself will report it.
            Err(_) => {}
            Ok(len) => {
                bytes.truncate(len);
                self.kept = Some(KeptRead { range, bytes });
            }
        }
        Ok(())
    }

    fn send(&mut self, request: &Request) -> Result<(), RequestError> {
        let version = self.version;
        if request.since() > version {
            return Err(RequestError::Unsupported { version });
        }
        let mut bytes = Vec::new();
        if !self.has_greeted {
            bytes.extend(protocol::hello(version));
            self.has_greeted = true;
        }
        let sent =
            protocol::write_message(&mut bytes, request).and_then(|()| self.to.write_all(&bytes));
        match sent {
            Ok(()) => Ok(()),
            // The other end has closed its input. Its last reply explains why better than our
            // own error does.
            Err(error) => self.reply().and(Err(protocol::Error::Io(error).into())),
        }
    }

    /// The next reply that is not a heartbeat.
    fn reply(&mut self) -> Result<Reply, RequestError> {
        loop {
            match self.next_reply()? {
                Reply::Heartbeat => {}
                reply => return Ok(reply),
            }
        }
    }

    /// The next reply, which may be a heartbeat.
    fn next_reply(&mut self) -> Result<Reply, RequestError> {
        self.receive_hello()?;
        accepted(protocol::read_message(&mut self.from)?.ok_or(protocol::Error::Ended)?)
    }

    /// Receives the hello of the other end, before its first reply.
    fn receive_hello(&mut self) -> Result<(), RequestError> {
        if !self.is_greeted.load(Ordering::Relaxed) {
            let theirs = protocol::read_hello(&mut self.from)?;
            self.version = protocol::accept(self.version, theirs)?;
            self.is_greeted.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Receives the answer to a read. Returns its length in bytes.
    fn data(&mut self, buffer: &mut [u8]) -> Result<usize, RequestError> {
        let mut filled = 0;
        // The other end decides how it splits the bytes, but may not send more than requested.
        while filled < buffer.len() {
            match self.reply()? {
                Reply::Data(0) => break,
                Reply::Data(announced) => {
                    let got = protocol::read_data(&mut self.from, &mut buffer[filled..])?;
                    if got as u64 != announced {
                        return Err(protocol::Error::Frame(
                            "length differs from the announced one",
                        )
                        .into());
                    }
                    filled += got;
                }
                _ => return Err(protocol::Error::Frame("unexpected reply").into()),
            }
        }
        Ok(filled)
    }
}

/// The reply, unless it refuses the request.
fn accepted(reply: Reply) -> Result<Reply, RequestError> {
    match reply {
        Reply::Refused { why, is_transient } => Err(RequestError::Refused { why, is_transient }),
        Reply::Blobs(problem) => Err(RequestError::Blobs(problem)),
        reply => Ok(reply),
    }
}
