//! A master on a mounted path, local or NFS.
//!
//! All reads are positional. A memory map is not an option: access to a truncated file
//! raises SIGBUS. On a network file system, the cached pages are dropped before a digest that
//! a pass relies on. The kernel reports changes only on local file systems; on the others,
//! callers poll.

mod watch;

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{Advice, AtFlags, FileType, Statx, StatxAttributes, StatxFlags};

use self::watch::Watch;
use super::blobs::{self, BlobDigestAnswer, BlobEvent, BlobRoot, BlobWant};
use super::open::{self, Name};
use super::{
    Error, FileId, FileSystem, MAX_WAIT, MasterStat, Named, Source, Surroundings, Transactions,
};
use crate::filestorage::blob::BlobKey;
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
    /// Identity of the file at the last stat.
    identity: Option<FileId>,
    /// Its state at that moment.
    stat: Option<FileStat>,
    watch: Watch,
}

/// The open file.
#[derive(Debug)]
struct MasterFile {
    file: File,
    file_system: FileSystem,
    is_in_directory: bool,
    /// The scanner at the end of the last list of transactions, to continue from there.
    scanner: Option<Scanner>,
}

impl MountedPath {
    /// Describes the master with this name. Opens nothing.
    #[must_use]
    pub fn new(name: impl Into<Name>) -> Self {
        Self {
            name: name.into(),
            opened: None,
            identity: None,
            stat: None,
            watch: Watch::NotStarted,
        }
    }

    /// The name of the master.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Lets the next reads return the bytes that are on the master's disk now. A local file
    /// is synced, also on behalf of its writer, so bytes that are read later are durable. On
    /// a network file system, the cached pages are dropped.
    pub fn sync(&self) -> Result<(), Error> {
        let opened = self.opened()?;
        if opened.file_system.is_network() {
            opened.drop_cached();
            return Ok(());
        }
        opened.file.sync_data().map_err(|e| self.error("sync", e))
    }

    /// Describes the surroundings of the file; with `beside`, also the files in its directory.
    pub fn find_surroundings(&self, beside: bool) -> Result<Surroundings, Error> {
        Surroundings::of(&self.name, beside).map_err(|e| self.error("find what surrounds", e))
    }

    fn error(&self, action: impl Into<String>, source: impl Into<io::Error>) -> Error {
        Error::Io {
            action: action.into(),
            name: self.display_name(),
            source: source.into(),
        }
    }

    fn not_file_storage(&self, problem: &'static str) -> Error {
        let name = self.display_name();
        Error::NotFileStorage { name, problem }
    }

    /// The name of the file in errors. For a directory, this is the `Data.fs` in it.
    fn display_name(&self) -> String {
        let mut path = self.name.path();
        if path.is_dir() {
            path.push(DATA_FS);
        }
        path.display().to_string()
    }

    fn open(&self) -> Result<(MasterFile, Statx), Error> {
        let open::OpenedFile {
            file,
            is_in_directory,
        } = self.name.open().map_err(|error| {
            let (file, source) = self.name.explain(error);
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
        let file_system = FileSystem::of(&file).map_err(|e| self.error("stat", e))?;
        let opened = MasterFile {
            file,
            file_system,
            is_in_directory,
            scanner: None,
        };
        Ok((opened, stat))
    }

    /// Starts change notifications, if the file system has them.
    fn start_watch(&self) -> Watch {
        match (&self.opened, self.name.resolve()) {
            (Some(opened), Ok(file)) if !opened.file_system.is_network() => Watch::start(&file),
            (Some(_), Ok(_)) => Watch::Unsupported,
            // The next stat reports why the file cannot be found.
            _ => Watch::NotStarted,
        }
    }

    /// Whether the name leads to another file than at the last stat, or to none, or whether the
    /// file was written.
    fn has_changed(&self) -> bool {
        let now = self.name.open().and_then(|opened| opened.file.metadata());
        let now = now.ok().map(|found| FileStat::of(&found));
        now.is_none() || now != self.stat
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
                Err(self
                    .not_file_storage("is not a FileStorage: bad magic (expected FS21 or FS30)"))
            }
            Ok(_) => Ok(()),
        }
    }
}

impl Source for MountedPath {
    fn stat(&mut self, ranges: &[Range<u64>]) -> Result<MasterStat, Error> {
        // Close the old file first. If the new one is not a FileStorage, no file stays open
        // and nothing can be read by mistake.
        self.opened = None;
        self.stat = None;
        self.watch.discard_events();
        let (opened, stat) = self.open()?;
        let is_mount = stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        // Without a link, a rename has replaced the file between its lookup and now, or it is
        // a deleted file that stays mounted. Neither is the current master.
        if stat.stx_nlink == 0 && !is_mount {
            return Err(self.not_file_storage(
                "was deleted or replaced while it was opened; if it is mounted as a single \
                 file, mount the directory that it is in",
            ));
        }
        let identity = identity(&stat);
        if self.identity.as_ref() != Some(&identity) {
            // The new file may be in another directory, if the name is a symbolic link.
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
        self.stat = Some(FileStat::of_statx(&stat));
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

    fn surroundings(&mut self) -> Result<Surroundings, Error> {
        self.find_surroundings(true)
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
        // A caller usually asks for one list after the other. The kept scanner then spares
        // the header of a transaction that the last list ended in.
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

    fn blob_root(&mut self, given: Option<&str>) -> Result<BlobRoot, Error> {
        let trusted = |path: &Path| Name::Trusted(path.to_owned());
        let found = match given {
            Some(directory) => blobs::describe(&trusted(Path::new(directory))),
            None => blobs::find(&self.name, |path| Some(trusted(path))),
        };
        found.map_err(|failure| failure.of_master(&self.display_name()))
    }

    fn blobs(
        &mut self,
        root: &BlobRoot,
        wants: &[BlobWant],
        sink: &(dyn Fn(BlobEvent) -> ControlFlow<()> + Sync),
    ) -> Result<(), Error> {
        blobs::read_all(root, wants, sink)
            .map_err(|failure| failure.of_master(&self.display_name()))
    }

    fn blob_digests(
        &mut self,
        root: &BlobRoot,
        keys: &[BlobKey],
        alive: &(dyn Fn() + Sync),
    ) -> Result<Vec<BlobDigestAnswer>, Error> {
        blobs::digest_all(root, keys, alive)
            .map_err(|failure| failure.of_master(&self.display_name()))
    }

    fn wait(&mut self, timeout: Duration) -> Result<bool, Error> {
        let timeout = timeout.min(MAX_WAIT);
        match &self.watch {
            Watch::NotStarted => {
                self.watch = self.start_watch();
                // Changes between the last stat and now were not noticed, so assume one.
                Ok(true)
            }
            // Notifications may get lost, and a symbolic link may lead to another file.
            watch => Ok(watch.wait(timeout) || self.has_changed()),
        }
    }

    fn close(&mut self) {
        self.opened = None;
        self.watch = Watch::NotStarted;
    }
}

impl MasterFile {
    /// Lets the next reads go to the server. Drops all pages of the file, because for a range
    /// the kernel keeps the pages that it covers only in part. This is best effort: the
    /// kernel may ignore the advice.
    fn drop_cached(&self) {
        if self.file_system.is_network() {
            let _ = rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed);
        }
    }
}

impl FileId {
    /// The identity of an open file.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_change_that_causes_no_notification_is_found_at_the_timeout() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["first", "second"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("Data.fs"), "FS30").unwrap();
        }
        symlink("first", at("link")).unwrap();
        let mut source = MountedPath::new(at("link/Data.fs"));
        let wait = |source: &mut MountedPath| source.wait(Duration::from_millis(20)).unwrap();
        source.stat(&[]).unwrap();
        assert!(wait(&mut source), "the notifications begin");
        assert!(!wait(&mut source));
        fs::remove_file(at("link")).unwrap();
        symlink("second", at("link")).unwrap();
        assert!(wait(&mut source), "it is another file");
        source.stat(&[]).unwrap();
        assert!(wait(&mut source), "the notifications begin");
        assert!(!wait(&mut source));
        fs::remove_file(at("link")).unwrap();
        assert!(wait(&mut source), "it is missing");
    }
}
