//! `fssync serve`: the master's end of the protocol, on standard input and output.
//!
//! It is read-only and makes no decisions. It opens only files at or below the served paths,
//! whatever the requests contain. It writes only to its output, and ends when its input ends.

mod blobs;

use std::io::{Read, Write};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use crate::io::digest::Digest;
use crate::source::open::Name;
use crate::source::path::MountedPath;
use crate::source::protocol::{self, MAX_DATA_LEN, Reply, Request, VERSION};
use crate::source::{self, Source};

/// The maximum number of ranges that one stat digests.
const MAX_RANGES: usize = 16;

/// The time without output after which a heartbeat is sent.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Why the server ended before its input did.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input violates the protocol.
    #[error(transparent)]
    Protocol(#[from] protocol::Error),
    /// The output cannot be written.
    #[error("cannot answer")]
    Output(#[from] std::io::Error),
}

/// Answers requests for files at or below `paths`, until the input ends.
pub fn serve(paths: &[PathBuf], input: impl Read, output: impl Write) -> Result<(), Error> {
    let mut server = Server {
        paths,
        input,
        output,
        file: None,
        serves_beside: false,
        buffer: Vec::new(),
    };
    let offered = protocol::read_hello(&mut server.input);
    let version = offered.and_then(protocol::answer);
    // If no version is common, the slave learns which end must be upgraded.
    let hello = protocol::hello(*version.as_ref().unwrap_or(&VERSION));
    server.output.write_all(&hello)?;
    server.output.flush()?;
    version?;
    loop {
        match protocol::read_message(&mut server.input) {
            Ok(Some(request)) => server.answer(request)?,
            Ok(None) => return Ok(()),
            Err(protocol::Error::UnknownMessage(_)) => {
                protocol::write_message(&mut server.output, &unknown_request())?;
            }
            Err(error) => return Err(error.into()),
        }
        server.output.flush()?;
    }
}

struct Server<'a, I, O> {
    paths: &'a [PathBuf],
    input: I,
    output: O,
    file: Option<MountedPath>,
    serves_beside: bool,
    buffer: Vec<u8>,
}

impl<I: Read, O: Write> Server<'_, I, O> {
    fn answer(&mut self, request: Request) -> Result<(), Error> {
        let reply = match request {
            Request::Stat { path, ranges } => self.look(&path, &ranges),
            Request::Surroundings => match &self.file {
                None => nothing_opened(),
                Some(file) => file
                    .find_surroundings(self.serves_beside)
                    .map_or_else(|error| refused(&error), Reply::Surroundings),
            },
            Request::Read { offset, len } => return self.read(offset, len),
            Request::Digest(range) => self.digest(range)?,
            Request::Confirm(range) => match self.sync() {
                Ok(()) => self.digest(range)?,
                Err(refused) => refused,
            },
            Request::Transactions { from, size } => return self.transactions(from, size),
            Request::BlobRoot { given } => self.blob_root(given.as_deref()),
            Request::Blobs {
                directory,
                layout,
                wants,
            } => return self.blobs(&directory, layout, &wants),
            Request::BlobDigests {
                directory,
                layout,
                keys,
            } => return self.blob_digests(&directory, layout, &keys),
            Request::Wait { timeout_ms } => self.wait(Duration::from_millis(timeout_ms)),
        };
        Ok(protocol::write_message(&mut self.output, &reply)?)
    }

    fn look(&mut self, path: &str, ranges: &[Range<u64>]) -> Reply {
        let Some(name) = confine(self.paths, Path::new(path)) else {
            return Reply::Refused {
                why: format!("{path} is not served here"),
                is_transient: false,
            };
        };
        if ranges.len() > MAX_RANGES {
            return Reply::Refused {
                why: "too many ranges".to_owned(),
                is_transient: false,
            };
        }
        // If the served path is a file, only that file is served, not its directory.
        self.serves_beside = name.path().is_dir() || matches!(name, Name::Beneath { .. });
        // For the same name, keep the object: its change notifications may be active.
        if self.file.as_ref().is_none_or(|file| *file.name() != name) {
            self.file = Some(MountedPath::new(name));
        }
        let Some(file) = &mut self.file else {
            return nothing_opened();
        };
        match file.stat(ranges) {
            Err(error) => refused(&error),
            Ok(stat) => Reply::Stat {
                identity: stat.identity,
                size: stat.size,
                modified: stat.modified,
                mode: stat.mode,
                file_system: stat.file_system,
                named: stat.named,
                digests: stat.digests,
            },
        }
    }

    /// Answers a read, in frames that are sent while the rest is read.
    fn read(&mut self, offset: u64, len: u64) -> Result<(), Error> {
        if len == 0 {
            // The client expects no reply, because it needs no bytes.
            return Ok(());
        }
        let Some(file) = &mut self.file else {
            return Ok(protocol::write_message(
                &mut self.output,
                &nothing_opened(),
            )?);
        };
        self.buffer.resize(MAX_DATA_LEN, 0);
        let mut left = len;
        while left > 0 {
            let wanted = left.min(MAX_DATA_LEN as u64) as usize;
            let at = offset.saturating_add(len - left);
            let reply = match file.read(&mut self.buffer[..wanted], at) {
                Ok(got) => Reply::Data(got as u64),
                Err(error) => refused(&error),
            };
            protocol::write_message(&mut self.output, &reply)?;
            // At the end of the file, or after an error, no data follows.
            let Reply::Data(got @ 1..) = reply else {
                return Ok(());
            };
            protocol::write_data(&mut self.output, &self.buffer[..got as usize])?;
            left -= got;
        }
        Ok(())
    }

    /// Answers with a list of transactions.
    fn transactions(&mut self, from: u64, size: u64) -> Result<(), Error> {
        let listed = match &mut self.file {
            None => Err(nothing_opened()),
            Some(file) => file
                .transactions(from, size)
                .map_err(|error| refused(&error)),
        };
        let list = match listed {
            Ok(list) => list,
            Err(refused) => return Ok(protocol::write_message(&mut self.output, &refused)?),
        };
        let bytes = list.encode();
        let reply = Reply::Transactions {
            len: bytes.len() as u64,
            reached: list.reached,
        };
        protocol::write_message(&mut self.output, &reply)?;
        if !bytes.is_empty() {
            protocol::write_data(&mut self.output, &bytes)?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), Reply> {
        match &self.file {
            None => Err(nothing_opened()),
            Some(file) => file.sync().map_err(|error| refused(&error)),
        }
    }

    fn wait(&mut self, timeout: Duration) -> Reply {
        match &mut self.file {
            None => nothing_opened(),
            Some(file) => file
                .wait(timeout)
                .map_or_else(|error| refused(&error), Reply::Changed),
        }
    }

    /// Digests a range, and sends heartbeats meanwhile.
    fn digest(&mut self, range: Range<u64>) -> Result<Reply, Error> {
        let Some(file) = &mut self.file else {
            return Ok(nothing_opened());
        };
        let output = &mut self.output;
        let mut quiet_since = Instant::now();
        let mut sent = Ok(());
        let digest = Digest::of_range(range, |buffer, offset| {
            if quiet_since.elapsed() > HEARTBEAT_INTERVAL && sent.is_ok() {
                quiet_since = Instant::now();
                sent = protocol::write_message(output, &Reply::Heartbeat)
                    .and_then(|()| output.flush());
            }
            file.read(buffer, offset)
        });
        sent?;
        Ok(match digest {
            Ok(digest) => Reply::Digest(digest),
            Err(error) => refused(&error),
        })
    }
}

fn nothing_opened() -> Reply {
    Reply::Refused {
        why: "no file was opened yet".to_owned(),
        is_transient: false,
    }
}

fn unknown_request() -> Reply {
    Reply::Refused {
        why: "this version of fssync does not know the request".to_owned(),
        is_transient: false,
    }
}

fn refused(error: &source::Error) -> Reply {
    Reply::Refused {
        why: source::display_chain(error),
        is_transient: error.is_transient(),
    }
}

/// The name to open for a requested path, if it is at or below a served path.
fn confine(paths: &[PathBuf], requested: &Path) -> Option<Name> {
    let is_plain = requested.is_absolute()
        && requested
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !is_plain {
        return None;
    }
    paths.iter().find_map(|served| {
        let relative_path = requested.strip_prefix(served).ok()?;
        Some(if relative_path.as_os_str().is_empty() {
            Name::Trusted(served.clone())
        } else {
            Name::Beneath {
                root: served.clone(),
                relative_path: relative_path.to_owned(),
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_at_or_below_a_served_path_are_opened() {
        let paths = [PathBuf::from("/data0"), PathBuf::from("/srv/Data.fs")];
        for asked in ["/data0", "/data0/Data.fs", "/data0/a/b", "/srv/Data.fs"] {
            assert!(confine(&paths, Path::new(asked)).is_some(), "{asked}");
        }
        for asked in [
            "/data",
            "/data00",
            "/srv",
            "/srv/Data.fs.old",
            "/data0/../etc/passwd",
            "data0",
            "",
            "/",
        ] {
            assert!(confine(&paths, Path::new(asked)).is_none(), "{asked}");
        }
    }
}
