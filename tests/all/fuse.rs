//! A FUSE file system that serves a directory read-only and injects faults: it stops answering,
//! like a server that died; it fails to read a range, like a dying disk; or its reads are
//! partial.
//!
//! It serves the regular files and directories below one directory, and lists none of them. The
//! kernel caches nothing: it passes each request on. One thread answers, so a request that is
//! not answered blocks all later ones.
//!
//! A process that is stuck in such a request cannot be killed. Drop [`Served`] or let it answer
//! before you wait for the process.

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

/// How long to wait until a client is stuck.
const PATIENCE: Duration = Duration::from_secs(20);

/// The kernel must not cache names and sizes, which change.
const TTL: Duration = Duration::ZERO;

/// The name of a file that is reported to have no link.
pub const DELETED: &str = "deleted.fs";

/// A directory that is served at a mount point of its own until this is dropped.
pub struct Served {
    mount: TempDir,
    gate: Arc<Gate>,
    session: Option<BackgroundSession>,
}

impl Served {
    /// Serves `directory`.
    pub fn directory(directory: &Path) -> Self {
        Self::with(directory, MountOption::RO)
    }

    /// The same, and the kernel passes requests to create, change and remove files on. They fail,
    /// because the file system does not implement them.
    pub fn directory_for_writing(directory: &Path) -> Self {
        Self::with(directory, MountOption::RW)
    }

    fn with(directory: &Path, option: MountOption) -> Self {
        require_root();
        let mount = tempfile::tempdir().expect("a mount point");
        let gate = Arc::new(Gate::default());
        let files = Files {
            directory: directory.to_owned(),
            gate: Arc::clone(&gate),
            state: Mutex::default(),
        };
        let mut config = Config::default();
        config.mount_options = vec![option, MountOption::FSName("served".to_owned())];
        let session = fuser::spawn_mount(files, mount.path(), &config).expect("a mount of FUSE");
        Self {
            mount,
            gate,
            session: Some(session),
        }
    }

    /// The path at which a file of the directory is served.
    pub fn file(&self, name: &str) -> PathBuf {
        self.mount.path().join(name)
    }

    /// From now on, does not answer a read of the byte at an offset, or any later request.
    pub fn stop_answering_at(&self, offset: u64) {
        self.gate.lock().closed_at = Some(offset);
    }

    /// From now on, a read that overlaps this range fails, as if a sector of the disk were bad.
    pub fn fail_at(&self, range: Range<u64>) {
        self.gate.lock().fails_at = Some(range);
    }

    /// The same as [`Self::stop_answering_at`], until the result is dropped. Drop it before you
    /// wait for a process that may be stuck, which cannot be killed.
    pub fn silence_at(&self, offset: u64) -> Silence<'_> {
        self.stop_answering_at(offset);
        Silence(self)
    }

    /// From now on, makes reads partial, at random.
    pub fn answer_partially(&self, rng: Rng) {
        self.gate.lock().parts = Some(rng);
    }

    /// Waits until a client is stuck.
    pub fn wait_until_stuck(&self) {
        let started = Instant::now();
        let mut state = self.gate.lock();
        while !state.is_stuck {
            assert!(started.elapsed() < PATIENCE, "no client reads this byte");
            let waited = self.gate.changed.wait_timeout(state, PATIENCE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Answers the pending requests, and all later ones.
    pub fn answer(&self) {
        self.gate.lock().closed_at = None;
        self.gate.changed.notify_all();
    }
}

/// No requests are answered until this is dropped.
#[must_use]
pub struct Silence<'a>(&'a Served);

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        self.0.answer();
    }
}

impl Drop for Served {
    /// Releases the clients that are stuck, and removes the mount even if it is in use.
    fn drop(&mut self) {
        self.answer();
        must(tool("umount", "mount").arg("-l").arg(self.mount.path()));
        drop(self.session.take());
    }
}

/// The faults that are injected into reads.
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

    /// Waits until a read of a range may be answered. Returns whether it fails.
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

    /// How many of `len` bytes are read.
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

/// The inodes and handles that clients know.
#[derive(Default)]
struct Known {
    /// The path of each inode that a client has looked up.
    paths: HashMap<u64, PathBuf>,
    open: HashMap<u64, Arc<File>>,
    handles: u64,
}

impl Files {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_up(&self, parent: u64, name: &OsStr) -> io::Result<FileAttr> {
        let path = self.path(parent)?.0.join(name);
        let found = fs::symlink_metadata(&path)?;
        if !found.is_file() && !found.is_dir() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let attributes = attributes(&path, &found, found.ino());
        self.known().paths.insert(found.ino(), path);
        Ok(attributes)
    }

    /// The path of an inode, as long as the file there has this inode.
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

/// The attributes of a file. [`DELETED`] has no link, like a file that was deleted after it was
/// opened.
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
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.look_up(parent.0, name) {
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
