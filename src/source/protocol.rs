//! The protocol between a slave and `fssync serve`: its messages and frames, without I/O of
//! its own.
//!
//! # Versions
//!
//! The two machines are not upgraded at the same moment, so each end speaks [`VERSION`] and the
//! version before it.
//!
//! 1. The slave sends a [`hello`] with the highest version that it speaks. At once it sends its
//!    first request, which both versions have.
//! 2. The master waits for that hello. It answers with the lower of this version and its own
//!    highest one. Both speak that version from now on. If one end does not, it fails.
//! 3. Programs of [`STRICT_VERSION`] do not negotiate: they send their hello first, and end if
//!    the other hello contains another version. The slave then connects once more and offers that
//!    version.
//!
//! A request that the master does not know gets [`Reply::Refused`], and the connection remains
//! usable. A new field of a message has a default, and unknown fields are ignored, so a new field
//! needs no new version.
//!
//! # Messages
//!
//! The slave sends requests, and the master answers them in order, each with one reply. These are
//! the exceptions:
//!
//! - Any number of [`Reply::Heartbeat`] may precede a reply, except the one to a
//!   [`Request::Wait`].
//! - A [`Request::Read`] gets several [`Reply::Data`], each followed by a frame of data, until
//!   all requested bytes were sent or a reply announces 0 bytes. A read of 0 bytes gets no
//!   reply.
//! - A [`Reply::Transactions`] is followed by its list in a frame of data, unless the list is
//!   empty.
//! - A [`Request::Blobs`] gets one or more [`Reply::Blob`] for each wanted blob, in the order of
//!   the request; the last of them is [final](BlobEventKind::is_final). After a
//!   [`BlobEventKind::File`], the bytes follow in frames of data, and then the final reply.
//! - A [`Request::BlobDigests`] gets one [`Reply::BlobDigest`] for each key, in the order of the
//!   request.
//! - A [`Reply::Refused`] or [`Reply::Blobs`] ends the answer to any request.
//!
//! # Frames
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 1 | kind: `J` for a message in JSON, `D` for data |
//! | 1 | 4 | length of the rest, big-endian, at most [`Kind::max_len`] |
//! | 5 | … | the message or the data |
//!
//! A reader trusts nothing in a frame: it checks a length before it allocates memory.

use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::filestorage::blob::{BlobKey, Layout};
use crate::io::digest::Digest;
use crate::source::blobs::{
    BlobDigestAnswer, BlobEventKind, BlobRoot, BlobWant, BlobsProblem, MAX_PIECE_LEN,
};
use crate::source::{FileId, FileSystem, MAX_LIST_LEN, Named, Reached, Surroundings};

/// The highest version that this program speaks. It increases with every change that is not only a
/// new field.
pub const VERSION: u16 = 5;

/// The lowest version that this program speaks.
pub const MIN_VERSION: u16 = VERSION - 1;

/// The first version with requests about blobs.
pub const BLOBS_VERSION: u16 = 5;

/// The last version whose programs accept only a hello with their own version.
pub const STRICT_VERSION: u16 = 4;

// Once this version is not spoken any more, nobody needs to connect a second time.
const _: () = assert!(STRICT_VERSION >= MIN_VERSION);

/// The start of a hello. A version follows, in 2 bytes, big-endian.
const NAME: [u8; 6] = *b"fssync";

/// The length of a hello, in bytes.
pub const HELLO_LEN: usize = NAME.len() + 2;

/// The maximum length of the data in a frame, in bytes.
pub const MAX_DATA_LEN: usize = 256 * 1024;

// A list of transactions, or a piece of a blob, fits into one frame.
const _: () = assert!(MAX_LIST_LEN <= MAX_DATA_LEN && MAX_PIECE_LEN <= MAX_DATA_LEN);

/// The maximum length of the message in a frame, in bytes. The longest is a request for
/// [`MAX_WANTS`](crate::source::blobs::MAX_WANTS) blobs, with less than 400 bytes for each.
const MAX_MESSAGE_LEN: usize = 1024 * 1024;

/// The length of the header of a frame, in bytes.
const HEADER_LEN: usize = 5;

/// A request of the slave.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Request {
    /// [`Source::stat`](crate::source::Source::stat).
    #[serde(rename = "Look")]
    Stat {
        /// Path of the master.
        path: String,
        /// Ranges to digest.
        ranges: Vec<Range<u64>>,
    },
    /// [`Source::surroundings`](crate::source::Source::surroundings).
    Surroundings,
    /// [`Source::read`](crate::source::Source::read).
    Read {
        /// Offset of the first byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// [`Source::digest`](crate::source::Source::digest).
    Digest(Range<u64>),
    /// [`Source::confirm`](crate::source::Source::confirm).
    Confirm(Range<u64>),
    /// [`Source::transactions`](crate::source::Source::transactions).
    Transactions {
        /// Position of the first transaction.
        from: u64,
        /// Size of the file in bytes.
        size: u64,
    },
    /// [`Source::blob_root`](crate::source::Source::blob_root).
    BlobRoot {
        /// Path of the directory, if it is known.
        given: Option<String>,
    },
    /// [`Source::blobs`](crate::source::Source::blobs).
    Blobs {
        /// Path of the blob directory.
        directory: String,
        /// Its layout.
        layout: Layout,
        /// The blobs, at most [`MAX_WANTS`](crate::source::blobs::MAX_WANTS).
        wants: Vec<BlobWant>,
    },
    /// [`Source::blob_digests`](crate::source::Source::blob_digests).
    BlobDigests {
        /// Path of the blob directory.
        directory: String,
        /// Its layout.
        layout: Layout,
        /// The blobs, at most [`MAX_WANTS`](crate::source::blobs::MAX_WANTS).
        keys: Vec<BlobKey>,
    },
    /// [`Source::wait`](crate::source::Source::wait).
    Wait {
        /// Maximum time in milliseconds.
        #[serde(rename = "patience_ms")]
        timeout_ms: u64,
    },
}

impl Request {
    /// The first version that has this request, or an earlier one.
    #[must_use]
    pub fn since(&self) -> u16 {
        match self {
            Self::BlobRoot { .. } | Self::Blobs { .. } | Self::BlobDigests { .. } => BLOBS_VERSION,
            _ => MIN_VERSION,
        }
    }
}

/// A reply of the master.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Reply {
    /// To [`Request::Stat`].
    #[serde(rename = "Sight")]
    Stat {
        /// Identity of the file.
        identity: FileId,
        /// Size in bytes.
        size: u64,
        /// Time of the last modification, in seconds and nanoseconds.
        modified: (i64, u32),
        /// Permission bits.
        mode: u32,
        /// File system on the master's machine.
        file_system: FileSystem,
        /// How the path leads to it.
        named: Named,
        /// Digests of the requested ranges.
        digests: Vec<Option<Digest>>,
    },
    /// To [`Request::Surroundings`].
    Surroundings(Surroundings),
    /// To [`Request::Read`]: the number of bytes in the following frame of data. 0 means the
    /// end of the file, and no frame follows.
    Data(u64),
    /// To [`Request::Digest`] and [`Request::Confirm`].
    Digest(Option<Digest>),
    /// To [`Request::Transactions`].
    Transactions {
        /// Length of the list in the following frame of data, in bytes. Its format is that of
        /// [`Transactions::encode`](crate::source::Transactions::encode).
        len: u64,
        /// The end of the scan.
        reached: Reached,
    },
    /// To [`Request::BlobRoot`].
    BlobRoot(BlobRoot),
    /// To [`Request::Blobs`]: an event of the next wanted blob.
    Blob(BlobEventKind),
    /// To [`Request::BlobDigests`]: the answer to the next key.
    BlobDigest(BlobDigestAnswer),
    /// To any request about blobs: their directory cannot be used.
    #[serde(rename = "NoBlobs")]
    Blobs(BlobsProblem),
    /// To [`Request::Wait`]: whether the file may have changed.
    Changed(bool),
    /// To any request: it was refused.
    Refused {
        /// The reason.
        why: String,
        /// Whether a retry may succeed.
        #[serde(rename = "passing")]
        is_transient: bool,
    },
    /// Before a reply that takes long: the master is still working on it.
    #[serde(rename = "Alive")]
    Heartbeat,
}

/// The connection failed, or the received data violates the protocol.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other end has closed the connection.
    #[error("the connection ended")]
    Ended,
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[source] io::Error),
    /// The first bytes are not a hello. Contains them, escaped.
    #[error("received {0}")]
    NoHello(String),
    /// The other end does not speak a version that this end speaks.
    #[error(
        "protocol mismatch: the other end speaks version {0}, this end versions {MIN_VERSION} and \
         {VERSION}"
    )]
    Version(u16),
    /// The other end accepts only this version, [`STRICT_VERSION`], and was offered another one.
    #[error("the other end speaks only version {0}")]
    OnlyVersion(u16),
    /// An invalid frame, or a frame that is not allowed at this point.
    #[error("received no valid frame: {0}")]
    Frame(&'static str),
    /// An invalid message.
    #[error("received no valid message")]
    Message(#[source] serde_json::Error),
    /// A message in valid JSON that this version does not know.
    #[error("received an unknown message")]
    UnknownMessage(#[source] serde_json::Error),
}

/// The kinds of frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A message in JSON.
    Message,
    /// Data: bytes of the master's file or of a blob, or a list of transactions.
    Data,
}

impl Kind {
    /// The maximum length of such a frame without its header, in bytes.
    #[must_use]
    pub fn max_len(self) -> usize {
        match self {
            Self::Message => MAX_MESSAGE_LEN,
            Self::Data => MAX_DATA_LEN,
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Message => b'J',
            Self::Data => b'D',
        }
    }
}

/// The bytes that an end sends first.
#[must_use]
pub fn hello(version: u16) -> [u8; HELLO_LEN] {
    let mut hello = [0; HELLO_LEN];
    hello[..NAME.len()].copy_from_slice(&NAME);
    hello[NAME.len()..].copy_from_slice(&version.to_be_bytes());
    hello
}

/// The version in which a master answers a slave that offers `theirs`.
pub fn answer(theirs: u16) -> Result<u16, Error> {
    if theirs < MIN_VERSION {
        return Err(Error::Version(theirs));
    }
    Ok(theirs.min(VERSION))
}

/// The version to speak with a master that answered with `theirs`, after the slave has offered
/// `offered`.
pub fn accept(offered: u16, theirs: u16) -> Result<u16, Error> {
    match theirs {
        STRICT_VERSION if offered != theirs => Err(Error::OnlyVersion(theirs)),
        _ if (MIN_VERSION..=offered).contains(&theirs) => Ok(theirs),
        _ => Err(Error::Version(theirs)),
    }
}

/// Reads the hello of the other end, and returns its version. If it sends something else, such as the greeting of a
/// shell, the error contains the start of it.
pub fn read_hello(from: &mut impl Read) -> Result<u16, Error> {
    /// The maximum length of an invalid hello in a message, in bytes.
    const MAX_SHOWN_LEN: usize = 200;
    let mut received = Vec::new();
    let mut buffer = [0; MAX_SHOWN_LEN];
    while received.len() < HELLO_LEN {
        // Stop at the first wrong byte. A shell that waits for input would never send the rest
        // of a hello.
        let room = if NAME.starts_with(&received) || received.starts_with(&NAME) {
            HELLO_LEN - received.len()
        } else {
            break;
        };
        match from.read(&mut buffer[..room]) {
            Ok(0) => break,
            Ok(len) => received.extend(&buffer[..len]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::Io(error)),
        }
    }
    if received.is_empty() {
        return Err(Error::Ended);
    }
    if received.len() == HELLO_LEN && received.starts_with(&NAME) {
        let version = [received[HELLO_LEN - 2], received[HELLO_LEN - 1]];
        return Ok(u16::from_be_bytes(version));
    }
    // Whatever arrives next belongs to the same greeting, most likely.
    if let Ok(len) = from.read(&mut buffer) {
        received.extend(&buffer[..len]);
    }
    Err(Error::NoHello(format!("\"{}\"", received.escape_ascii())))
}

/// Writes a message.
pub fn write_message(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    write_frame(to, Kind::Message, &serde_json::to_vec(message)?)
}

/// Writes a frame of data, of at most [`MAX_DATA_LEN`] bytes.
pub fn write_data(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    write_frame(to, Kind::Data, bytes)
}

fn write_frame(to: &mut impl Write, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    if bytes.len() > kind.max_len() {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "the frame is too long",
        ));
    }
    let [a, b, c, d] = (bytes.len() as u32).to_be_bytes();
    to.write_all(&[kind.code(), a, b, c, d])?;
    to.write_all(bytes)
}

/// Reads a message. Returns `None` if the other end has closed the connection before it.
pub fn read_message<T: DeserializeOwned>(from: &mut impl Read) -> Result<Option<T>, Error> {
    match read_header(from)? {
        None => Ok(None),
        Some((Kind::Message, len)) => read_content(from, len).map(Some),
        Some((Kind::Data, _)) => Err(UNEXPECTED_KIND),
    }
}

/// A frame.
#[derive(Debug)]
pub enum Frame<T> {
    /// A message.
    Message(T),
    /// Data, at least one byte.
    Data(Vec<u8>),
}

/// Reads a message, or data of at most `max_data_len` bytes.
pub fn read_frame<T: DeserializeOwned>(
    from: &mut impl Read,
    max_data_len: u64,
) -> Result<Frame<T>, Error> {
    match read_header(from)?.ok_or(Error::Ended)? {
        (Kind::Message, len) => read_content(from, len).map(Frame::Message),
        (Kind::Data, len) => {
            check_data_len(len, max_data_len)?;
            let mut bytes = vec![0; len];
            read_exact(from, &mut bytes)?;
            Ok(Frame::Data(bytes))
        }
    }
}

/// Reads a frame of data to the start of `buffer`. Returns its length in bytes.
pub fn read_data(from: &mut impl Read, buffer: &mut [u8]) -> Result<usize, Error> {
    let (Kind::Data, len) = read_header(from)?.ok_or(Error::Ended)? else {
        return Err(UNEXPECTED_KIND);
    };
    check_data_len(len, buffer.len() as u64)?;
    read_exact(from, &mut buffer[..len])?;
    Ok(len)
}

const UNEXPECTED_KIND: Error = Error::Frame("it is of an unexpected kind");

fn check_data_len(len: usize, max: u64) -> Result<(), Error> {
    if len == 0 {
        return Err(Error::Frame("it is empty"));
    }
    if len as u64 > max {
        return Err(Error::Frame("it has more data than requested"));
    }
    Ok(())
}

fn read_content<T: DeserializeOwned>(from: &mut impl Read, len: usize) -> Result<T, Error> {
    let mut bytes = vec![0; len];
    read_exact(from, &mut bytes)?;
    serde_json::from_slice(&bytes).map_err(|error| {
        if error.is_data() {
            Error::UnknownMessage(error)
        } else {
            Error::Message(error)
        }
    })
}

/// Reads the header of a frame. Returns its kind and its length in bytes, which is at most
/// [`Kind::max_len`], or `None` if the other end has closed the connection before it.
fn read_header(from: &mut impl Read) -> Result<Option<(Kind, usize)>, Error> {
    let mut header = [0; HEADER_LEN];
    let first = loop {
        match from.read(&mut header[..1]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => break result.map_err(Error::Io)?,
        }
    };
    if first == 0 {
        return Ok(None);
    }
    read_exact(from, &mut header[1..])?;
    let [code, len @ ..] = header;
    let kind = match code {
        b'J' => Kind::Message,
        b'D' => Kind::Data,
        _ => return Err(UNEXPECTED_KIND),
    };
    let len = u32::from_be_bytes(len) as usize;
    if len > kind.max_len() {
        return Err(Error::Frame("it is too long"));
    }
    Ok(Some((kind, len)))
}

fn read_exact(from: &mut impl Read, buffer: &mut [u8]) -> Result<(), Error> {
    from.read_exact(buffer).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => Error::Ended,
        _ => Error::Io(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_frames_are_read_back() {
        let request = Request::Stat {
            path: "/data/it's \"here\"".to_owned(),
            ranges: vec![0..4, 10..20],
        };
        let mut bytes = Vec::new();
        write_message(&mut bytes, &request).unwrap();
        write_data(&mut bytes, b"FS30").unwrap();
        let mut from = bytes.as_slice();
        assert_eq!(read_message(&mut from).unwrap(), Some(request));
        let mut buffer = [0; 10];
        assert_eq!(read_data(&mut from, &mut buffer).unwrap(), 4);
        assert_eq!(&buffer[..4], b"FS30");
        assert!(read_message::<Request>(&mut from).unwrap().is_none());
    }

    #[test]
    fn a_length_over_the_limit_is_refused() {
        for bytes in [
            *b"J\xff\xff\xff\xff",
            *b"D\x00\x04\x00\x01",
            *b"X\x00\x00\x00\x01",
        ] {
            assert!(matches!(
                read_message::<Reply>(&mut bytes.as_slice()),
                Err(Error::Frame(_))
            ));
            assert!(matches!(
                read_data(&mut bytes.as_slice(), &mut [0; 16]),
                Err(Error::Frame(_))
            ));
        }
    }

    #[test]
    fn both_ends_agree_on_the_lower_version_or_fail() {
        for (theirs, expected) in [(3, None), (4, Some(4)), (5, Some(5)), (6, Some(5))] {
            assert_eq!(answer(theirs).ok(), expected, "{theirs}");
        }
        for (offered, theirs, expected) in [
            (5, 5, Some(5)),
            (4, 4, Some(4)),
            // Programs of these versions have nothing in common with this one.
            (5, 3, None),
            (5, 6, None),
            (4, 5, None),
        ] {
            let accepted = accept(offered, theirs);
            assert_eq!(
                accepted.as_ref().ok(),
                expected.as_ref(),
                "{offered} {theirs}"
            );
            assert!(
                expected.is_some() || matches!(accepted, Err(Error::Version(it)) if it == theirs)
            );
        }
        assert!(matches!(accept(5, 4), Err(Error::OnlyVersion(4))));
    }

    #[test]
    fn an_unknown_message_is_told_from_an_invalid_one() {
        let read = |text: &str| {
            let mut frame = Vec::new();
            write_frame(&mut frame, Kind::Message, text.as_bytes()).unwrap();
            read_message::<Request>(&mut frame.as_slice())
        };
        for text in ["{\"Later\":{\"a\":1}}", "\"Later\"", "{\"Digest\":1}"] {
            assert!(
                matches!(read(text), Err(Error::UnknownMessage(_))),
                "{text}"
            );
        }
        for text in ["{", "\"Sur"] {
            assert!(matches!(read(text), Err(Error::Message(_))), "{text}");
        }
        let wait = read("{\"Wait\":{\"patience_ms\":5,\"later\":true}}").unwrap();
        assert_eq!(wait, Some(Request::Wait { timeout_ms: 5 }));
    }

    #[test]
    fn a_hello_contains_its_version() {
        assert_eq!(read_hello(&mut hello(300).as_slice()).unwrap(), 300);
        for text in ["Welcome to plone1!\n", "fssh: no", "f"] {
            let Err(Error::NoHello(shown)) = read_hello(&mut text.as_bytes()) else {
                panic!("{text}");
            };
            assert!(shown.contains(text.trim_end()), "{shown}");
        }
        assert!(matches!(read_hello(&mut [].as_slice()), Err(Error::Ended)));
    }
}
