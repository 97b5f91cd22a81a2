//! The frames that pass between a slave and `fssync serve`; pure.
//!
//! Each end begins with a [`hello`]. Then the slave sends requests and the
//! master answers each of them, in their order, with one reply. Before it there may
//! be any number of [`Reply::Heartbeat`], but for that to a [`Request::Wait`]. A [`Request::Read`] is answered
//! with several replies of [`Reply::Data`], each followed by its bytes, until
//! there are as many as were asked for, or one announces none. A
//! [`Reply::Transactions`] is followed by its list in a frame of data, unless that
//! is empty.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 1 | kind: `J` a message in JSON, `D` bytes of the master's file |
//! | 1 | 4 | length of what follows, big-endian, at most [`Kind::max_len`] |
//! | 5 | … | the message, or the bytes |
//!
//! Whoever reads a frame trusts nothing in it: a length over the cap is an
//! error before anything is allocated.

use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::io::digest::Digest;
use crate::source::{
    DirectoryEntry, FileId, FileSystem, MAX_LIST_LEN, Named, Reached, Surroundings,
};

/// The version of this protocol; it grows with every change.
pub const VERSION: u16 = 4;

/// What each end says first: a name and a version.
const NAME: [u8; 6] = *b"fssync";

/// The length of a hello, in bytes.
pub const HELLO_LEN: usize = NAME.len() + 2;

/// The most bytes that a frame of data carries.
pub const MAX_DATA_LEN: usize = 256 * 1024;

// A list of transactions fits into one.
const _: () = assert!(MAX_LIST_LEN <= MAX_DATA_LEN);

/// The most bytes that a frame with a message carries.
const MAX_MESSAGE_LEN: usize = 256 * 1024;

const HEADER_LEN: usize = 5;

/// What the slave asks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Request {
    /// [`Source::stat`](crate::source::Source::stat).
    #[serde(rename = "Look")]
    Stat {
        /// The master's path.
        path: String,
        /// The ranges to digest.
        ranges: Vec<Range<u64>>,
    },
    /// [`Source::list`](crate::source::Source::list).
    List {
        /// The directory, relative to that of the master's file.
        #[serde(rename = "below")]
        relative_path: String,
        /// The last name that is known already.
        after: Option<String>,
    },
    /// [`Source::open_beside`](crate::source::Source::open_beside).
    Open {
        /// The file, relative to the directory of the master's.
        #[serde(rename = "below")]
        relative_path: String,
    },
    /// [`Source::surroundings`](crate::source::Source::surroundings).
    Surroundings,
    /// [`Source::read`](crate::source::Source::read).
    Read {
        /// Where to start.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// [`Source::digest`](crate::source::Source::digest).
    Digest(Range<u64>),
    /// [`Source::confirm`](crate::source::Source::confirm).
    Confirm(Range<u64>),
    /// [`Source::transactions`](crate::source::Source::transactions).
    Transactions {
        /// Where to start.
        from: u64,
        /// The size of the file, in bytes.
        size: u64,
    },
    /// [`Source::wait`](crate::source::Source::wait).
    Wait {
        /// How long, in milliseconds.
        #[serde(rename = "patience_ms")]
        timeout_ms: u64,
    },
}

/// What the master answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Reply {
    /// To [`Request::Stat`].
    #[serde(rename = "Sight")]
    Stat {
        /// Which file it is.
        identity: FileId,
        /// Its size in bytes.
        size: u64,
        /// When it was last written, in seconds and nanoseconds.
        modified: (i64, u32),
        /// Its permission bits.
        mode: u32,
        /// What it lies on.
        file_system: FileSystem,
        /// How the path leads to it.
        named: Named,
        /// The digests of the ranges.
        digests: Vec<Option<Digest>>,
    },
    /// To [`Request::List`].
    Entries(Vec<DirectoryEntry>),
    /// To [`Request::Open`]: the file's size in bytes.
    Opened(u64),
    /// To [`Request::Surroundings`].
    Surroundings(Surroundings),
    /// To [`Request::Read`]: so many bytes follow, in a frame of data; 0 at the
    /// end of the file.
    Data(u64),
    /// To [`Request::Digest`] and [`Request::Confirm`].
    Digest(Option<Digest>),
    /// To [`Request::Transactions`].
    Transactions {
        /// So many bytes follow, in a frame of data: the list, as
        /// [`Transactions::encode`](crate::source::Transactions::encode) gives it.
        len: u64,
        /// How far the scan came.
        reached: Reached,
    },
    /// To [`Request::Wait`]: whether the file may have changed.
    Changed(bool),
    /// To any request: it was not done.
    Refused {
        /// Why.
        why: String,
        /// Whether it may be done a moment later.
        #[serde(rename = "passing")]
        is_transient: bool,
    },
    /// The answer takes its time.
    #[serde(rename = "Alive")]
    Heartbeat,
}

/// What is wrong with what was received.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other end is gone.
    #[error("the connection ended")]
    Ended,
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[source] io::Error),
    /// What came first is no hello.
    #[error("received {0}")]
    NoHello(String),
    /// The other end is of another version.
    #[error("the other end speaks version {0} of the protocol, this one {VERSION}")]
    Version(u16),
    /// No frame, or not the one that is due.
    #[error("received no valid frame: {0}")]
    Frame(&'static str),
    /// No message.
    #[error("received no valid message")]
    Message(#[source] serde_json::Error),
}

/// The kinds of frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A message in JSON.
    Message,
    /// Bytes of the master's file.
    Data,
}

impl Kind {
    /// The most bytes that a frame of this kind carries.
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

/// What this end says first.
#[must_use]
pub fn hello() -> [u8; HELLO_LEN] {
    let mut hello = [0; HELLO_LEN];
    hello[..NAME.len()].copy_from_slice(&NAME);
    hello[NAME.len()..].copy_from_slice(&VERSION.to_be_bytes());
    hello
}

/// Reads what the other end says first. Of something else, as much is kept as
/// comes at once, to be shown.
pub fn read_hello(from: &mut impl Read) -> Result<(), Error> {
    /// How much of something else is shown, in bytes.
    const SHOWN: usize = 200;
    let mut received = Vec::new();
    let mut buffer = [0; SHOWN];
    while received.len() < HELLO_LEN {
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
        let version = u16::from_be_bytes([received[HELLO_LEN - 2], received[HELLO_LEN - 1]]);
        return if version == VERSION {
            Ok(())
        } else {
            Err(Error::Version(version))
        };
    }
    if let Ok(len) = from.read(&mut buffer) {
        received.extend(&buffer[..len]);
    }
    Err(Error::NoHello(format!("\"{}\"", received.escape_ascii())))
}

/// Writes a message.
pub fn write_message(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    write_frame(to, Kind::Message, &serde_json::to_vec(message)?)
}

/// Writes bytes of the master's file: at most [`MAX_DATA_LEN`].
pub fn write_data(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    write_frame(to, Kind::Data, bytes)
}

fn write_frame(to: &mut impl Write, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    if bytes.len() > kind.max_len() {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "a frame too long to be sent",
        ));
    }
    let [a, b, c, d] = (bytes.len() as u32).to_be_bytes();
    to.write_all(&[kind.code(), a, b, c, d])?;
    to.write_all(bytes)
}

/// Reads a message; `None` where the other end has ended before it.
pub fn read_message<T: DeserializeOwned>(from: &mut impl Read) -> Result<Option<T>, Error> {
    let Some(len) = read_header(from, Kind::Message)? else {
        return Ok(None);
    };
    let mut bytes = vec![0; len];
    read_exact(from, &mut bytes)?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(Error::Message)
}

/// Reads bytes of the master's file to the start of `buffer`; returns how many
/// of it they fill.
pub fn read_data(from: &mut impl Read, buffer: &mut [u8]) -> Result<usize, Error> {
    let len = read_header(from, Kind::Data)?.ok_or(Error::Ended)?;
    if len == 0 {
        return Err(Error::Frame("no data in it"));
    }
    let room = buffer
        .get_mut(..len)
        .ok_or(Error::Frame("more data than was asked for"))?;
    read_exact(from, room)?;
    Ok(len)
}

/// The length of the frame that comes, which must be of this kind; `None` where
/// the other end has ended.
fn read_header(from: &mut impl Read, kind: Kind) -> Result<Option<usize>, Error> {
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
    if code != kind.code() {
        return Err(Error::Frame("of another kind than is due"));
    }
    let len = u32::from_be_bytes(len) as usize;
    if len > kind.max_len() {
        return Err(Error::Frame("longer than any is"));
    }
    Ok(Some(len))
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
    fn what_is_written_is_read() {
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
    fn a_length_over_the_cap_is_refused_before_it_is_believed() {
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
    fn a_hello_is_told_from_anything_else() {
        assert!(read_hello(&mut hello().as_slice()).is_ok());
        let mut newer = hello();
        newer[HELLO_LEN - 1] = 9;
        assert!(matches!(
            read_hello(&mut newer.as_slice()),
            Err(Error::Version(9))
        ));
        for text in ["Welcome to plone1!\n", "fssh: no", "f"] {
            let Err(Error::NoHello(shown)) = read_hello(&mut text.as_bytes()) else {
                panic!("{text}");
            };
            assert!(shown.contains(text.trim_end()), "{shown}");
        }
        assert!(matches!(read_hello(&mut [].as_slice()), Err(Error::Ended)));
    }
}
