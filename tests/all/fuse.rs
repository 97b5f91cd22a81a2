//! A FUSE file system that serves a directory read-only, and stops answering when
//! it is told to: a server that died, as its clients see it. Or it fails to read a
//! range: a disk that dies. Or it gives less than is asked for.
//!
//! It serves the regular files of one directory, none below. Nothing is cached in
//! the kernel: each call of a client comes here. One thread answers, so a call that
//! is not answered holds up all that follow.
//!
//! A process that is stuck here cannot be killed: drop what is [`Served`], or have
//! it answer, before its end is waited for.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, Request,
};
use tempfile::TempDir;

use crate::rng::Rng;
use crate::support::{must, require_root, tool};

/// How long a client is waited for that is to get stuck.
const PATIENCE: Duration = Duration::from_secs(20);

/// Kernels must ask again: names and sizes change.
const TTL: Duration = Duration::ZERO;

/// The name of a file that is said to have no link.
pub const DELETED: &str = "deleted.fs";

/// A directory, served at a mount point of its own until this is dropped.
pub struct Served {
    mount: TempDir,
    gate: Arc<Gate>,
    session: Option<BackgroundSession>,
}

impl Served {
    /// Serves `directory`.
    pub fn directory(directory: &Path) -> Self {
        require_root();
        let mount = tempfile::tempdir().expect("a mount point");
        let gate = Arc::new(Gate::default());
        let files = Files {
            directory: directory.to_owned(),
            gate: Arc::clone(&gate),
            state: Mutex::default(),
        };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::RO, MountOption::FSName("served".to_owned())];
        let session = fuser::spawn_mount(files, mount.path(), &config).expect("a mount of FUSE");
        Self {
            mount,
            gate,
            session: Some(session),
        }
    }

    /// Where a file of the directory is served.
    pub fn file(&self, name: &str) -> PathBuf {
        self.mount.path().join(name)
    }

    /// From now on, no read of the byte at an offset is answered, nor any call
    /// behind it.
    pub fn stop_answering_at(&self, offset: u64) {
        self.gate.lock().closed_at = Some(offset);
    }

    /// From now on, a read that touches this range fails, as of a disk's sector that
    /// cannot be read.
    pub fn fail_at(&self, range: Range<u64>) {
        self.gate.lock().fails_at = Some(range);
    }

    /// The same, until what this returns is dropped: before a process is waited for
    /// that may be stuck, since such a one cannot be killed.
    pub fn silence_at(&self, offset: u64) -> Silence<'_> {
        self.stop_answering_at(offset);
        Silence(self)
    }

    /// From now on, a read gives less than is asked for, as rng say.
    pub fn answer_partially(&self, rng: Rng) {
        self.gate.lock().parts = Some(rng);
    }

    /// Waits until a client is stuck.
    pub fn wait_until_stuck(&self) {
        let started = Instant::now();
        let mut state = self.gate.lock();
        while !state.is_stuck {
            assert!(started.elapsed() < PATIENCE, "nobody reads as far as that");
            let waited = self.gate.changed.wait_timeout(state, PATIENCE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Answers what was not answered, and all that follows.
    pub fn answer(&self) {
        self.gate.lock().closed_at = None;
        self.gate.changed.notify_all();
    }
}

/// A time without answers.
#[must_use]
pub struct Silence<'a>(&'a Served);

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        self.0.answer();
    }
}

impl Drop for Served {
    /// No client stays stuck, nor the mount, be it in use.
    fn drop(&mut self) {
        self.answer();
        must(tool("umount", "mount").arg("-l").arg(self.mount.path()));
        drop(self.session.take());
    }
}

/// Where reads are held up.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    closed_at: Option<u64>,
    fails_at: Option<Range<u64>>,
    parts: Option<Rng>,
    is_stuck: bool,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once a read of a range may be answered; says whether it fails.
    fn pass(&self, range: &Range<u64>) -> bool {
        let mut state = self.lock();
        while state.closed_at.is_some_and(|at| range.contains(&at)) {
            state.is_stuck = true;
            self.changed.notify_all();
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.is_stuck = false;
        let touches = |bad: &Range<u64>| bad.start < range.end && range.start < bad.end;
        state.fails_at.as_ref().is_some_and(touches)
    }

    /// How many of so many bytes are read at once.
    fn part(&self, len: u32) -> u32 {
        match &mut self.lock().parts {
            Some(rng) if len > 1 => 1 + rng.below(len as usize) as u32,
            _ => len,
        }
    }
}

/// The file system.
struct Files {
    directory: PathBuf,
    gate: Arc<Gate>,
    state: Mutex<Known>,
}

/// What clients were told of.
#[derive(Default)]
struct Known {
    /// The path of each inode that was looked up.
    paths: HashMap<u64, PathBuf>,
    open: HashMap<u64, Arc<File>>,
    handles: u64,
}

impl Files {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_up(&self, name: &OsStr) -> io::Result<FileAttr> {
        let path = self.directory.join(name);
        let found = fs::symlink_metadata(&path)?;
        if !found.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let attributes = attributes(&path, &found, found.ino());
        self.known().paths.insert(found.ino(), path);
        Ok(attributes)
    }

    /// The path of an inode, as long as that is what lies there.
    fn path(&self, inode: u64) -> io::Result<(PathBuf, Metadata)> {
        if inode == INodeNo::ROOT.0 {
            return Ok((self.directory.clone(), fs::metadata(&self.directory)?));
        }
        let path = self.known().paths.get(&inode).cloned();
        let path = path.ok_or(io::ErrorKind::NotFound)?;
        let found = fs::symlink_metadata(&path)?;
        if found.ino() != inode {
            return Err(io::ErrorKind::StaleNetworkFileHandle.into());
        }
        Ok((path, found))
    }

    fn open_file(&self, inode: u64) -> io::Result<FileHandle> {
        let file = File::open(self.path(inode)?.0)?;
        let mut known = self.known();
        known.handles += 1;
        let handle = known.handles;
        known.open.insert(handle, Arc::new(file));
        Ok(FileHandle(handle))
    }

    fn read_file(&self, handle: u64, offset: u64, size: u32) -> io::Result<Vec<u8>> {
        let file = self.known().open.get(&handle).cloned();
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = vec![0; size as usize];
        let mut len = 0;
        while len < bytes.len() {
            match file.read_at(&mut bytes[len..], offset + len as u64)? {
                0 => break,
                got => len += got,
            }
        }
        bytes.truncate(len);
        Ok(bytes)
    }
}

/// What is said of a file; [`DELETED`] has no name, as one that is deleted once it is open.
fn attributes(path: &Path, found: &Metadata, inode: u64) -> FileAttr {
    let is_deleted = path.file_name() == Some(OsStr::new(DELETED));
    let time = |secs: i64, nanos: i64| {
        UNIX_EPOCH + Duration::new(secs.cast_unsigned(), nanos.cast_unsigned() as u32)
    };
    FileAttr {
        ino: INodeNo(inode),
        size: found.size(),
        blocks: found.blocks(),
        atime: time(found.atime(), found.atime_nsec()),
        mtime: time(found.mtime(), found.mtime_nsec()),
        ctime: time(found.ctime(), found.ctime_nsec()),
        crtime: UNIX_EPOCH,
        kind: if found.is_dir() {
            FileType::Directory
        } else {
            FileType::RegularFile
        },
        perm: (found.mode() & 0o7777) as u16,
        nlink: if is_deleted { 0 } else { found.nlink() as u32 },
        uid: found.uid(),
        gid: found.gid(),
        rdev: 0,
        blksize: found.blksize() as u32,
        flags: 0,
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.look_up(name) {
            Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            Err(error) => reply.error(error.into()),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.path(inode.0) {
            Ok((path, found)) => reply.attr(&TTL, &attributes(&path, &found, inode.0)),
            Err(error) => reply.error(error.into()),
        }
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.open_file(inode.0) {
            Ok(handle) => reply.opened(handle, FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(error.into()),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if self.gate.pass(&(offset..offset + u64::from(size))) {
            return reply.error(Errno::EIO);
        }
        match self.read_file(handle.0, offset, self.gate.part(size)) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.known().open.remove(&handle.0);
        reply.ok();
    }
}
