//! A master on a mounted path, local or NFS.
//!
//! Positional reads only, never mmap: a truncated file under a map is a
//! SIGBUS. Before bytes of a network file system are digested for good, its
//! cached pages are dropped. Of watcher the kernel tells on local file systems only.

mod watch;

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{Advice, AtFlags, FileType, Statx, StatxAttributes, StatxFlags};
use rustix::io::retry_on_intr;

use self::watch::Watch;
use super::open::{self, Name};
use super::{
    DirectoryEntry, Error, FileId, FileSystem, MAX_WAIT, MasterStat, Named, Source, Surroundings,
    Transactions,
};
use crate::filestorage::scan::Scanner;
use crate::filestorage::{DATA_FS, MAGIC_LEN, Magic};
use crate::io::digest::Digest;
use crate::io::file_stat::FileStat;
use crate::io::read::read_fully;

/// A master on a mounted path.
#[derive(Debug)]
pub struct MountedPath {
    name: Name,
    opened: Option<MasterFile>,
    /// The file that was last looked at.
    identity: Option<FileId>,
    watch: Watch,
}

#[derive(Debug)]
struct MasterFile {
    file: File,
    file_system: FileSystem,
    is_in_directory: bool,
    /// Where the last list of transactions ended.
    scanner: Option<Scanner>,
}

impl MountedPath {
    /// The file of this name; nothing is opened yet.
    #[must_use]
    pub fn new(name: impl Into<Name>) -> Self {
        Self {
            name: name.into(),
            opened: None,
            identity: None,
            watch: Watch::NotStarted,
        }
    }

    /// The name that it was made for.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Makes the next reads see what is on the master's disk now.
    /// What a local file's writer has not synced is synced for it: what is read
    /// after this is durable.
    pub fn sync(&self) -> Result<(), Error> {
        let opened = self.opened()?;
        if opened.file_system.is_network() {
            opened.drop_cached();
            return Ok(());
        }
        opened.file.sync_data().map_err(|e| self.error("sync", e))
    }

    /// What is around the file; with `beside`, the files in its directory too.
    pub fn find_surroundings(&self, beside: bool) -> Result<Surroundings, Error> {
        Surroundings::of(&self.name, beside).map_err(|e| self.error("look around", e))
    }

    fn error(&self, action: impl Into<String>, source: impl Into<io::Error>) -> Error {
        Error::Io {
            action: action.into(),
            name: self.display_name(),
            source: source.into(),
        }
    }

    fn not_file_storage(&self, what: &'static str) -> Error {
        let name = self.display_name();
        Error::NotFileStorage { name, what }
    }

    /// What errors call the file: the `Data.fs` in a directory, by its own name.
    fn display_name(&self) -> String {
        let mut path = self.name.path();
        if path.is_dir() {
            path.push(DATA_FS);
        }
        path.display().to_string()
    }

    fn open(&self, name: &Name) -> Result<(MasterFile, Statx), Error> {
        let open::OpenedFile {
            file,
            is_in_directory,
        } = name.open().map_err(|error| {
            let (file, source) = name.explain(error);
            Error::Io {
                action: "open".to_owned(),
                name: file.display().to_string(),
                source,
            }
        })?;
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let stat = rustix::fs::statx(&file, c"", AtFlags::EMPTY_PATH, wanted)
            .map_err(|e| self.error("stat", e))?;
        if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::RegularFile {
            return Err(self.not_file_storage("is not a regular file"));
        }
        let found =
            retry_on_intr(|| rustix::fs::fstatfs(&file)).map_err(|e| self.error("stat", e))?;
        let file_system = FileSystem(found.f_type.cast_unsigned());
        let opened = MasterFile {
            file,
            file_system,
            is_in_directory,
            scanner: None,
        };
        Ok((opened, stat))
    }

    /// Has the kernel tell of changes from now on, if it can.
    fn start_watch(&self) -> Watch {
        match (&self.opened, self.name.resolve()) {
            (Some(opened), Ok(file)) if !opened.file_system.is_network() => Watch::of(&file),
            (Some(_), Ok(_)) => Watch::Unsupported,
            // The next look says why.
            _ => Watch::NotStarted,
        }
    }

    fn beside(&self, relative_path: &str) -> Result<Name, Error> {
        self.name
            .beside(relative_path.as_ref())
            .map_err(|e| self.error(format!("find {relative_path:?} beside"), e))
    }

    fn opened(&self) -> Result<&MasterFile, Error> {
        self.opened
            .as_ref()
            .ok_or_else(|| self.error("read", ErrorKind::NotFound))
    }

    fn check_magic(&self, file: &File) -> Result<(), Error> {
        let mut magic = [0; MAGIC_LEN as usize];
        match read_fully(file, &mut magic, 0) {
            Err(error) => Err(self.error("read the head of", error)),
            Ok(0) => Err(self.not_file_storage("is empty")),
            Ok(_) if Magic::decode(&magic).is_none() => {
                Err(self.not_file_storage("does not start like a FileStorage (FS21 or FS30)"))
            }
            Ok(_) => Ok(()),
        }
    }
}

impl Source for MountedPath {
    fn stat(&mut self, ranges: &[Range<u64>]) -> Result<MasterStat, Error> {
        // What is no FileStorage is not kept open: nothing reads it.
        self.opened = None;
        self.watch.discard_events();
        let (opened, stat) = self.open(&self.name)?;
        let is_mount = stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        if stat.stx_nlink == 0 && !is_mount {
            return Err(self.not_file_storage(
                "was deleted or replaced while it was opened; if it is mounted as a single \
                 file, mount the directory that it is in",
            ));
        }
        let identity = identity(&stat);
        if self.identity.as_ref() != Some(&identity) {
            // It may lie in another directory than the one before.
            self.watch = Watch::NotStarted;
            self.identity = Some(identity.clone());
        }
        opened.drop_cached();
        self.check_magic(&opened.file)?;
        let file_system = opened.file_system;
        let named = Named {
            is_directory: opened.is_in_directory,
            is_mount,
        };
        self.opened = Some(opened);
        let digests = ranges
            .iter()
            .map(|range| self.digest(range.clone()))
            .collect::<Result<_, _>>()?;
        Ok(MasterStat {
            identity,
            local: Some(FileStat::of_statx(&stat)),
            size: stat.stx_size,
            modified: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            mode: u32::from(stat.stx_mode) & 0o7777,
            file_system,
            named,
            digests,
        })
    }

    fn list(
        &mut self,
        relative_path: &str,
        after: Option<&str>,
    ) -> Result<Vec<DirectoryEntry>, Error> {
        let name = self.beside(relative_path)?;
        name.list(after)
            .map_err(|e| self.error(format!("list {relative_path:?} beside"), e))
    }

    fn surroundings(&mut self) -> Result<Surroundings, Error> {
        self.find_surroundings(true)
    }

    fn open_beside(&mut self, relative_path: &str) -> Result<u64, Error> {
        let name = self.beside(relative_path)?;
        let (opened, stat) = self.open(&name)?;
        self.opened = Some(opened);
        Ok(stat.stx_size)
    }

    fn read(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize, Error> {
        read_fully(&self.opened()?.file, buffer, offset)
            .map_err(|e| self.error(format!("read at {offset} in"), e))
    }

    fn digest(&mut self, range: Range<u64>) -> Result<Option<Digest>, Error> {
        let action = format!("digest {} to {} in", range.start, range.end);
        Digest::of_file(&self.opened()?.file, range).map_err(|e| self.error(action, e))
    }

    fn confirm(&mut self, range: Range<u64>) -> Result<Option<Digest>, Error> {
        self.sync()?;
        self.digest(range)
    }

    fn transactions(&mut self, from: u64, size: u64) -> Result<Transactions, Error> {
        let is_continuation = |scanner: &Scanner| {
            (scanner.position(), scanner.offset() + scanner.left()) == (from, size)
        };
        let previous = self.opened.as_mut().and_then(|file| file.scanner.take());
        let mut scanner = previous
            .filter(is_continuation)
            .unwrap_or_else(|| Scanner::resume(from, None, size));
        let list = Transactions::scan(&mut scanner, |buffer, at| self.read(buffer, at))?;
        if let Some(opened) = &mut self.opened {
            opened.scanner = Some(scanner);
        }
        Ok(list)
    }

    fn wait(&mut self, timeout: Duration) -> Result<bool, Error> {
        let timeout = timeout.min(MAX_WAIT);
        match &self.watch {
            Watch::NotStarted => {
                self.watch = self.start_watch();
                // What happened since the last look was not reported.
                Ok(true)
            }
            watch => Ok(watch.wait(timeout)),
        }
    }

    fn close(&mut self) {
        self.opened = None;
        self.watch = Watch::NotStarted;
    }
}

impl MasterFile {
    /// Makes the next reads go to the server. All of the file's pages are
    /// dropped: the kernel keeps those that a range covers in part. Best effort,
    /// as its advice is.
    fn drop_cached(&self) {
        if self.file_system.is_network() {
            let _ = rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed);
        }
    }
}

impl FileId {
    /// Which file an open one is.
    pub fn of(file: &File) -> io::Result<Self> {
        let wanted = StatxFlags::INO | StatxFlags::BTIME;
        let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, wanted)?;
        Ok(identity(&stat))
    }
}

fn identity(stat: &Statx) -> FileId {
    let birth = StatxFlags::from_bits_retain(stat.stx_mask)
        .contains(StatxFlags::BTIME)
        .then(|| Timestamp::new(stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec.cast_signed()).ok())
        .flatten();
    FileId {
        inode: stat.stx_ino,
        birth,
    }
}
