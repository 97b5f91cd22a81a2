//! Reads blob files.
//!
//! The directories of a blob are opened one by one, since an NFS client revalidates a directory
//! only when it is opened. They stay open for the next blob of the same request: all blobs of a
//! request were committed before it, so a directory that was opened during the request shows
//! them. Only a blob that is not found this way is looked up again from the root, which is
//! opened by its name: so a directory that was replaced meanwhile, or a file system that was
//! unmounted, does not make a blob absent.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::io::{Errno, pread};

use super::directory::{BlobDirectory, BlobsFailure, failure_of_file};
use super::{
    BlobDigest, BlobDigestAnswer, BlobEventKind, BlobFailure, BlobStat, BlobWant, MAX_PIECE_LEN,
    ReceivedPrefix,
};
use crate::filestorage::blob::{BlobKey, Layout};
use crate::io::beneath::open_beneath;
use crate::io::digest::Digest;
use crate::io::read::read_fully;
use crate::source::open::{DIRECTORY, FILE, Name};

/// Reads blobs of one directory, one after the other.
#[derive(Debug)]
pub(in crate::source) struct BlobReader {
    name: Name,
    directory: Arc<BlobDirectory>,
    /// The open directories of the last blob, from the root downwards.
    opened: Vec<OpenedDirectory>,
}

/// A directory on the way to a blob.
#[derive(Debug)]
struct OpenedDirectory {
    name: OsString,
    directory: OwnedFd,
}

/// Why the bytes of a blob were not sent to the end.
enum Stop {
    /// The receiver wants no more events.
    Cut,
    /// The file cannot be read.
    Io(io::Error),
    /// It changed while it was read.
    Changed,
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Receives the events of one blob.
type Sink<'a> = &'a mut dyn FnMut(BlobEventKind) -> ControlFlow<()>;

impl BlobReader {
    /// Opens a blob directory that had this layout earlier.
    pub(in crate::source) fn open(name: Name, layout: Layout) -> Result<Self, BlobsFailure> {
        let directory = Arc::new(BlobDirectory::open_again(&name, layout)?);
        Ok(Self {
            name,
            directory,
            opened: Vec::new(),
        })
    }

    /// Another reader of the same directory.
    pub(super) fn another(&self) -> Self {
        Self {
            name: self.name.clone(),
            directory: Arc::clone(&self.directory),
            opened: Vec::new(),
        }
    }

    /// Sends the events of one blob to `sink`, which breaks to get no more of them. Fails if
    /// the directory or this machine is the problem, and not the blob.
    pub(in crate::source) fn read(
        &mut self,
        want: &BlobWant,
        sink: Sink<'_>,
    ) -> Result<ControlFlow<()>, BlobsFailure> {
        let result = match self.find(want.key)? {
            Ok(None) => Ok(BlobEventKind::Absent),
            Ok(Some(file)) => send(&file, want, sink),
            Err(error) => Err(Stop::Io(error.into())),
        };
        let last = match result {
            Ok(last) => last,
            Err(Stop::Cut) => return Ok(ControlFlow::Break(())),
            Err(stop) => {
                let (kind, why) = self.failure(want.key, stop)?;
                BlobEventKind::Failed { kind, why }
            }
        };
        Ok(sink(last))
    }

    /// Digests a blob. Calls `alive` again and again meanwhile. Fails if the directory or this
    /// machine is the problem, and not the blob.
    pub(in crate::source) fn digest(
        &mut self,
        key: BlobKey,
        mut alive: impl FnMut(),
    ) -> Result<BlobDigestAnswer, BlobsFailure> {
        let mut sink = |_| {
            alive();
            ControlFlow::Continue(())
        };
        let result = match self.find(key)? {
            Ok(None) => return Ok(BlobDigestAnswer::Absent),
            Ok(Some(file)) => digest_whole(&file, &mut sink),
            Err(error) => Err(Stop::Io(error.into())),
        };
        match result {
            Ok(digest) => Ok(BlobDigestAnswer::Digested(digest)),
            Err(stop) => {
                let (kind, why) = self.failure(key, stop)?;
                Ok(BlobDigestAnswer::Failed { kind, why })
            }
        }
    }

    fn path(&self, key: BlobKey) -> PathBuf {
        self.directory.path.join(self.directory.layout.path(key))
    }

    fn failure(&self, key: BlobKey, stop: Stop) -> Result<(BlobFailure, String), BlobsFailure> {
        let path = self.path(key);
        match stop {
            Stop::Io(error) => failure_of_file(&path, error),
            Stop::Changed | Stop::Cut => {
                let why = format!("{} changed while it was read", path.display());
                Ok((BlobFailure::Changed, why))
            }
        }
    }

    /// Opens a blob; `None` if it is absent.
    fn find(&mut self, key: BlobKey) -> Result<Result<Option<File>, Errno>, BlobsFailure> {
        match self.open_blob(key) {
            Err(Errno::NOENT | Errno::STALE) => {}
            opened => return Ok(opened.map(Some)),
        }
        // Look again, from the root. It must still be the blob directory.
        let layout = self.directory.layout;
        self.opened.clear();
        self.directory = Arc::new(BlobDirectory::open_again(&self.name, layout)?);
        Ok(match self.open_blob(key) {
            Err(Errno::NOENT) => Ok(None),
            opened => opened.map(Some),
        })
    }

    /// Opens a blob below the directories that are open already.
    fn open_blob(&mut self, key: BlobKey) -> Result<File, Errno> {
        let path = self.directory.layout.path(key);
        let names: Vec<&OsStr> = path.iter().collect();
        let Some((file, directories)) = names.split_last() else {
            return Err(Errno::NOENT);
        };
        let common = self.opened.iter().zip(directories);
        let common = common.take_while(|(opened, name)| opened.name == **name);
        let common = common.count();
        self.opened.truncate(common);
        for name in &directories[common..] {
            let directory = open_beneath(self.deepest(), Path::new(name), DIRECTORY)?;
            self.opened.push(OpenedDirectory {
                name: (*name).to_owned(),
                directory,
            });
        }
        // Without NONBLOCK, which is in FILE, opening a FIFO would wait for a writer.
        open_beneath(self.deepest(), Path::new(file), FILE).map(File::from)
    }

    fn deepest(&self) -> &OwnedFd {
        let last = self.opened.last();
        last.map_or(&self.directory.root, |opened| &opened.directory)
    }
}

/// Sends the events of a blob except for the last one, which is returned.
fn send(file: &File, want: &BlobWant, sink: Sink<'_>) -> Result<BlobEventKind, Stop> {
    let stat = stat_of(file)?;
    if let Some(have) = want.have
        && have.size == stat.size
    {
        if have.modified == Some(stat.modified) {
            return Ok(BlobEventKind::Same(stat));
        }
        let digest = digest_prefix(file, stat.size, sink)?;
        check_unchanged(file, stat)?;
        return Ok(BlobEventKind::SameSize { stat, digest });
    }
    let from = match want.resume {
        Some(ReceivedPrefix { len, digest }) if 0 < len && len <= stat.size => {
            let is_prefix = digest_prefix(file, len, sink)? == digest;
            if is_prefix { len } else { 0 }
        }
        _ => 0,
    };
    emit(sink, BlobEventKind::File { stat, from })?;
    let mut at = from;
    while at < stat.size {
        let piece = read_piece(file, at, stat.size - at)?;
        if piece.is_empty() {
            return Err(Stop::Changed);
        }
        at += piece.len() as u64;
        emit(sink, BlobEventKind::Data(piece))?;
    }
    check_unchanged(file, stat)?;
    Ok(BlobEventKind::Complete)
}

fn emit(sink: Sink<'_>, event: BlobEventKind) -> Result<(), Stop> {
    match sink(event) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Stop::Cut),
    }
}

/// The state of an open file, which must be a regular one.
fn stat_of(file: &File) -> Result<BlobStat, Stop> {
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(Stop::Io(io::Error::other("it is not a regular file")));
    }
    Ok(BlobStat {
        size: found.len(),
        modified: (
            found.mtime(),
            u32::try_from(found.mtime_nsec()).unwrap_or(0),
        ),
        mode: found.mode() & 0o7777,
    })
}

/// ZODB never changes a blob that it has committed. A file that changes while it is read is
/// being restored by another program, for example.
fn check_unchanged(file: &File, stat: BlobStat) -> Result<(), Stop> {
    if stat_of(file)? == stat {
        Ok(())
    } else {
        Err(Stop::Changed)
    }
}

fn digest_whole(file: &File, sink: Sink<'_>) -> Result<BlobDigest, Stop> {
    let stat = stat_of(file)?;
    let digest = digest_prefix(file, stat.size, sink)?;
    check_unchanged(file, stat)?;
    Ok(BlobDigest {
        size: stat.size,
        digest,
    })
}

/// Digests the first `len` bytes.
fn digest_prefix(file: &File, len: u64, sink: Sink<'_>) -> Result<Digest, Stop> {
    let digest = Digest::of_range(0..len, |buffer, offset| {
        emit(sink, BlobEventKind::Digesting)?;
        Ok::<_, Stop>(read_fully(file, buffer, offset)?)
    });
    digest?.ok_or(Stop::Changed)
}

/// Reads up to `left` bytes, but not more than one piece. Returns fewer only at the end of
/// the file.
fn read_piece(file: &File, offset: u64, left: u64) -> Result<Vec<u8>, Stop> {
    let len = left.min(MAX_PIECE_LEN as u64) as usize;
    let mut piece = Vec::with_capacity(len);
    while piece.len() < len {
        let at = offset + piece.len() as u64;
        match pread(file, spare_capacity(&mut piece), at) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Stop::Io(error.into())),
        }
    }
    Ok(piece)
}
