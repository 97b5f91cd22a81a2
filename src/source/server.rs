//! `fssync serve`: the master's end of a connection, on standard input and
//! output.
//!
//! Dumb and read-only. It opens the files that it was told to serve and nothing
//! else, whatever it is asked; it writes to its output only, and ends when its
//! input ends.

use std::io::{Read, Write};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use crate::io::digest::Digest;
use crate::source::open::Name;
use crate::source::path::MountedPath;
use crate::source::protocol::{self, MAX_DATA_LEN, Reply, Request};
use crate::source::{self, Source};

/// The most ranges that a look digests.
const MAX_RANGES: usize = 16;

/// How long an answer may take before a sign of life is given.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Why the agent ended before its input did.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was received makes no sense.
    #[error(transparent)]
    Wire(#[from] protocol::Error),
    /// The other end does not listen any more.
    #[error("cannot answer")]
    Pending(#[from] std::io::Error),
}

/// Answers requests for what lies at or below `paths`, until the input ends.
pub fn serve(paths: &[PathBuf], input: impl Read, output: impl Write) -> Result<(), Error> {
    let mut server = Server {
        paths,
        input,
        output,
        file: None,
        serves_beside: false,
        buffer: Vec::new(),
    };
    server.output.write_all(&protocol::hello())?;
    server.output.flush()?;
    protocol::read_hello(&mut server.input)?;
    while let Some(request) = protocol::read_message(&mut server.input)? {
        server.answer(request)?;
        server.output.flush()?;
    }
    Ok(())
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
            Request::List {
                relative_path,
                after,
            } => match self.beside() {
                Ok(file) => file
                    .list(&relative_path, after.as_deref())
                    .map_or_else(|error| refused(&error), Reply::Entries),
                Err(refused) => refused,
            },
            Request::Open { relative_path } => match self.beside() {
                Ok(file) => file
                    .open_beside(&relative_path)
                    .map_or_else(|error| refused(&error), Reply::Opened),
                Err(refused) => refused,
            },
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
        // Of a path that is a file, what lies beside it is not served.
        self.serves_beside = name.path().is_dir() || matches!(name, Name::Beneath { .. });
        // The same file again: the kernel may be telling of its changes already.
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

    /// The file that was looked at, if what lies beside it is served too.
    fn beside(&mut self) -> Result<&mut MountedPath, Reply> {
        match &mut self.file {
            None => Err(nothing_opened()),
            Some(file) if self.serves_beside => Ok(file),
            Some(_) => Err(Reply::Refused {
                why: "a file is served, and not what lies beside it".to_owned(),
                is_transient: false,
            }),
        }
    }

    /// Answers with as many bytes as there are, in pieces as they are read.
    fn read(&mut self, offset: u64, len: u64) -> Result<(), Error> {
        if len == 0 {
            // Whoever asks for nothing waits for no answer.
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

    /// Digests a range, with signs of life while it takes.
    fn digest(&mut self, range: Range<u64>) -> Result<Reply, Error> {
        let Some(file) = &mut self.file else {
            return Ok(nothing_opened());
        };
        let output = &mut self.output;
        let mut quiet_since = Instant::now();
        let mut unheard = Ok(());
        let digest = Digest::of_range(range, |buffer, offset| {
            if quiet_since.elapsed() > HEARTBEAT_INTERVAL && unheard.is_ok() {
                quiet_since = Instant::now();
                unheard = protocol::write_message(output, &Reply::Heartbeat)
                    .and_then(|()| output.flush());
            }
            file.read(buffer, offset)
        });
        unheard?;
        Ok(match digest {
            Ok(digest) => Reply::Digest(digest),
            Err(error) => refused(&error),
        })
    }
}

fn nothing_opened() -> Reply {
    Reply::Refused {
        why: "nothing was looked at yet".to_owned(),
        is_transient: false,
    }
}

fn refused(error: &source::Error) -> Reply {
    Reply::Refused {
        why: source::display_chain(error),
        is_transient: error.is_transient(),
    }
}

/// The name to open for a path that was asked for, if it is at or below one of
/// the paths that are served.
fn confine(paths: &[PathBuf], asked: &Path) -> Option<Name> {
    let is_plain = asked.is_absolute()
        && asked
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !is_plain {
        return None;
    }
    paths.iter().find_map(|served| {
        let relative_path = asked.strip_prefix(served).ok()?;
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
    fn only_what_lies_at_or_below_a_served_path_is_opened() {
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
