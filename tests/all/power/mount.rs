//! A [`Disk`] as a FUSE file system, which keeps a log of what is done to it.
//!
//! It has one directory with regular files. Nothing is cached in the kernel: each write,
//! sync and rename comes here, in its order, and one thread takes them. A process can be
//! killed in the midst of them, a sync can fail, and the disk can be full; what is read and
//! written can be so in part.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::process::{Pid, Signal, kill_process};

use super::disk::{Disk, Meta, Node, Op};
use crate::dice::Dice;
use crate::support::{must, require_root, tool};

const TTL: Duration = Duration::ZERO;

/// Whom the directory belongs to.
pub const OWNER: u32 = 65534;

/// What was done to a disk, from when on it was recorded.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    pub start: Disk,
    pub ops: Vec<Op>,
}

/// A disk, mounted until this is dropped.
pub struct Powered {
    directory: PathBuf,
    state: Arc<Mutex<State>>,
    session: Option<BackgroundSession>,
}

impl Powered {
    /// Mounts an empty disk.
    pub fn mount(directory: &Path) -> Self {
        require_root();
        let state = Arc::new(Mutex::new(State::default()));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("powered".to_owned())];
        let files = Files(Arc::clone(&state));
        let session = fuser::spawn_mount(files, directory, &config).expect("a mount of FUSE");
        Self {
            directory: directory.to_owned(),
            state,
            session: Some(session),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is on it, durable or not.
    pub fn disk(&self) -> Disk {
        self.lock().disk.clone()
    }

    /// Puts another disk there.
    pub fn load(&self, disk: Disk) {
        let mut state = self.lock();
        state.disk = disk;
        state.trouble = None;
        state.parts = None;
        state.log.clear();
        state.open.clear();
    }

    /// Makes all durable.
    pub fn settle(&self) {
        self.load(self.disk().settled());
    }

    /// What was done to it since the last call, or since it was loaded.
    pub fn take_log(&self) -> Vec<Op> {
        std::mem::take(&mut self.lock().log)
    }

    /// Kills the process that is about to make the operation after so many.
    pub fn kill_after(&self, ops: usize) {
        self.lock().trouble = Some(Trouble::Kill(ops));
    }

    /// Fails the sync after so many.
    pub fn fail_sync_after(&self, syncs: usize) {
        self.lock().trouble = Some(Trouble::FailSync(syncs));
    }

    /// Reads and writes less than is asked for, from now on, as dice say.
    pub fn answer_in_part(&self, dice: Dice) {
        self.lock().parts = Some(dice);
    }

    /// Lets its files have so many bytes, and no more. What there is does not show it, as
    /// with a quota.
    pub fn allow(&self, bytes: usize) {
        self.lock().trouble = Some(Trouble::Full(bytes));
    }

    /// Lets all that follows succeed.
    pub fn end_trouble(&self) {
        self.lock().trouble = None;
    }

    /// Whether anything was written, or synced, with a handle on which a sync had failed.
    pub fn reused_a_failed_handle(&self) -> bool {
        self.lock().reused_failed
    }
}

impl Drop for Powered {
    fn drop(&mut self) {
        must(tool("umount", "mount").arg("-l").arg(&self.directory));
        drop(self.session.take());
    }
}

#[derive(Default)]
struct State {
    disk: Disk,
    log: Vec<Op>,
    open: HashMap<u64, Node>,
    handles: u64,
    trouble: Option<Trouble>,
    parts: Option<Dice>,
    failed: BTreeSet<u64>,
    reused_failed: bool,
}

/// What is about to happen.
enum Trouble {
    /// After so many operations more.
    Kill(usize),
    /// After so many syncs more.
    FailSync(usize),
    /// No more than so many bytes fit.
    Full(usize),
}

impl State {
    /// Carries out an operation of a process's, and notes it.
    fn apply(&mut self, request: &Request, op: Op) -> Result<(), Errno> {
        match &mut self.trouble {
            Some(Trouble::Kill(0)) => {
                if let Some(pid) = Pid::from_raw(request.pid().cast_signed()) {
                    let _ = kill_process(pid, Signal::KILL);
                }
                return Err(Errno::EIO);
            }
            Some(Trouble::Kill(after)) => *after -= 1,
            _ => {}
        }
        self.note(op);
        Ok(())
    }

    fn note(&mut self, op: Op) {
        self.disk.apply(&op);
        self.log.push(op);
    }

    /// Whether this sync fails.
    fn fails(&mut self) -> bool {
        match &mut self.trouble {
            Some(Trouble::FailSync(0)) => {
                self.trouble = None;
                true
            }
            Some(Trouble::FailSync(after)) => {
                *after -= 1;
                false
            }
            _ => false,
        }
    }

    /// How many of so many bytes are read or written at once.
    fn part(&mut self, len: usize) -> usize {
        match &mut self.parts {
            Some(dice) if len > 1 => 1 + dice.below(len),
            _ => len,
        }
    }

    /// How many of the bytes that are to be written at an offset fit.
    fn room(&self, node: Node, offset: usize, len: usize) -> Result<usize, Errno> {
        let Some(Trouble::Full(allowed)) = self.trouble else {
            return Ok(len);
        };
        let named = self.disk.names().map(|(_, node)| node);
        let nodes: BTreeSet<Node> = named.chain(self.open.values().copied()).collect();
        let len_of = |node| self.disk.file(node).map_or(0, |file| file.bytes().len());
        let free = allowed.saturating_sub(nodes.into_iter().map(len_of).sum());
        match (len_of(node) + free).saturating_sub(offset) {
            0 if len > 0 => Err(Errno::EDQUOT),
            fits => Ok(fits.min(len)),
        }
    }

    fn open(&mut self, node: Node) -> FileHandle {
        self.handles += 1;
        self.open.insert(self.handles, node);
        FileHandle(self.handles)
    }

    fn is_open(&self, node: Node) -> bool {
        self.open.values().any(|&it| it == node)
    }

    /// The file that has an inode's number: of several that had it, the last one.
    fn node(&self, inode: INodeNo) -> Result<Node, Errno> {
        let named = self.disk.names().map(|(_, node)| node);
        named
            .chain(self.open.values().copied())
            .filter(|&node| self.disk.file(node).is_some_and(|it| it.inode == inode.0))
            .max()
            .ok_or(Errno::ESTALE)
    }

    fn of_handle(&mut self, handle: FileHandle) -> Result<Node, Errno> {
        self.reused_failed |= self.failed.contains(&handle.0);
        self.open.get(&handle.0).copied().ok_or(Errno::EBADF)
    }

    fn of_name(&self, name: &OsStr) -> Result<Node, Errno> {
        let name = name.to_str().ok_or(Errno::EINVAL)?;
        self.disk.named(name).ok_or(Errno::ENOENT)
    }

    fn attributes(&self, node: Node) -> Result<FileAttr, Errno> {
        let file = self.disk.file(node).ok_or(Errno::ESTALE)?;
        let size = file.bytes().len() as u64;
        let links = self.disk.links(node);
        Ok(attributes(
            file.inode,
            file.meta(),
            (size, links),
            FileType::RegularFile,
        ))
    }

    fn entry(&self, node: Node) -> Result<(FileAttr, Generation), Errno> {
        Ok((self.attributes(node)?, Generation(node as u64)))
    }
}

fn time(modified: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000) + Duration::from_millis(modified)
}

fn attributes(inode: u64, meta: Meta, (size, links): (u64, usize), kind: FileType) -> FileAttr {
    FileAttr {
        ino: INodeNo(inode),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: time(meta.modified),
        ctime: time(meta.modified),
        crtime: UNIX_EPOCH,
        kind,
        perm: meta.mode as u16,
        nlink: links as u32,
        uid: meta.uid,
        gid: meta.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// The file system.
struct Files(Arc<Mutex<State>>);

impl Files {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attributes(&self, inode: INodeNo, handle: Option<FileHandle>) -> Result<FileAttr, Errno> {
        let state = self.lock();
        if inode == INodeNo::ROOT {
            let meta = Meta {
                mode: 0o755,
                uid: OWNER,
                gid: OWNER,
                modified: state.disk.clock(),
            };
            return Ok(attributes(inode.0, meta, (0, 2), FileType::Directory));
        }
        let open = handle.and_then(|handle| state.open.get(&handle.0).copied());
        let node = open.map_or_else(|| state.node(inode), Ok)?;
        state.attributes(node)
    }

    fn change(
        &self,
        request: &Request,
        (inode, handle): (INodeNo, Option<FileHandle>),
        (mode, uid, gid): (Option<u32>, Option<u32>, Option<u32>),
        len: Option<u64>,
    ) -> Result<FileAttr, Errno> {
        let mut state = self.lock();
        let node = match handle {
            Some(handle) => state.of_handle(handle)?,
            None => state.node(inode)?,
        };
        if let Some(len) = len {
            let len = len as usize;
            state.apply(request, Op::SetLen { node, len })?;
        }
        let was = state.disk.file(node).ok_or(Errno::ESTALE)?.meta();
        let meta = Meta {
            mode: mode.map_or(was.mode, |mode| mode & 0o7777),
            uid: uid.unwrap_or(was.uid),
            gid: gid.unwrap_or(was.gid),
            ..was
        };
        if meta != was {
            state.apply(request, Op::SetMeta { node, meta })?;
        }
        state.attributes(node)
    }

    fn make(
        &self,
        request: &Request,
        name: &OsStr,
        mode: u32,
    ) -> Result<(FileAttr, Generation, FileHandle), Errno> {
        let mut state = self.lock();
        let name = name.to_str().ok_or(Errno::EINVAL)?.to_owned();
        if state.disk.named(&name).is_some() {
            return Err(Errno::EEXIST);
        }
        let (node, inode) = state.disk.next_numbers(|node| state.is_open(node));
        let meta = Meta {
            mode: mode & 0o7777,
            uid: request.uid(),
            gid: request.gid(),
            modified: state.disk.clock(),
        };
        let create = Op::Create {
            name,
            node,
            inode,
            meta,
        };
        state.apply(request, create)?;
        let (attributes, generation) = state.entry(node)?;
        Ok((attributes, generation, state.open(node)))
    }

    fn read_file(&self, handle: FileHandle, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let mut state = self.lock();
        let part = state.part(size as usize);
        let node = state.open.get(&handle.0).ok_or(Errno::EBADF)?;
        let bytes = state.disk.file(*node).ok_or(Errno::ESTALE)?.bytes();
        let start = (offset as usize).min(bytes.len());
        let end = (start + part).min(bytes.len());
        Ok(bytes[start..end].to_vec())
    }

    fn write_file(
        &self,
        request: &Request,
        handle: FileHandle,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u32, Errno> {
        let mut state = self.lock();
        let node = state.of_handle(handle)?;
        let offset = offset as usize;
        let part = state.part(bytes.len());
        let len = state.room(node, offset, part)?;
        let write = Op::Write {
            node,
            offset,
            bytes: bytes[..len].to_vec(),
        };
        state.apply(request, write)?;
        Ok(len as u32)
    }

    fn sync(&self, request: &Request, handle: FileHandle, metadata: bool) -> Result<(), Errno> {
        let mut state = self.lock();
        let node = state.of_handle(handle)?;
        if state.fails() {
            state.failed.insert(handle.0);
            state.note(Op::FailedSync { node });
            return Err(Errno::EIO);
        }
        state.apply(request, Op::Sync { node, metadata })
    }

    fn sync_directory(&self, request: &Request) -> Result<(), Errno> {
        let mut state = self.lock();
        if state.fails() {
            return Err(Errno::EIO);
        }
        state.apply(request, Op::SyncDirectory)
    }

    fn name(&self, request: &Request, inode: INodeNo, name: &OsStr) -> Result<Node, Errno> {
        let mut state = self.lock();
        let node = state.node(inode)?;
        let name = name.to_str().ok_or(Errno::EINVAL)?.to_owned();
        if state.disk.named(&name).is_some() {
            return Err(Errno::EEXIST);
        }
        state.apply(request, Op::Link { node, name })?;
        Ok(node)
    }

    fn remove(&self, request: &Request, name: &OsStr) -> Result<(), Errno> {
        let mut state = self.lock();
        state.of_name(name)?;
        let name = name.to_str().ok_or(Errno::EINVAL)?.to_owned();
        state.apply(request, Op::Unlink { name })
    }

    fn move_to(&self, request: &Request, from: &OsStr, to: &OsStr) -> Result<(), Errno> {
        let mut state = self.lock();
        state.of_name(from)?;
        let [from, to] = [from, to].map(|name| name.to_str().map(str::to_owned));
        let (Some(from), Some(to)) = (from, to) else {
            return Err(Errno::EINVAL);
        };
        state.apply(request, Op::Rename { from, to })
    }
}

fn answer(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.lock();
        match state.of_name(name).and_then(|node| state.entry(node)) {
            Ok((attributes, generation)) => reply.entry(&TTL, &attributes, generation),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode, handle) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.change(request, (inode, handle), (mode, uid, gid), size) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn create(
        &self,
        request: &Request,
        _: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.make(request, name, mode) {
            Ok((attributes, generation, handle)) => {
                reply.created(
                    &TTL,
                    &attributes,
                    generation,
                    handle,
                    FopenFlags::FOPEN_DIRECT_IO,
                );
            }
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let mut state = self.lock();
        match state.node(inode) {
            Ok(node) => reply.opened(state.open(node), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(error),
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
        match self.read_file(handle, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.write_file(request, handle, offset, bytes) {
            Ok(len) => reply.written(len),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
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
        self.lock().open.remove(&handle.0);
        reply.ok();
    }

    fn fsync(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        answer(reply, self.sync(request, handle, !data_only));
    }

    fn fsyncdir(&self, request: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(reply, self.sync_directory(request));
    }

    fn link(&self, request: &Request, inode: INodeNo, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let linked = self.name(request, inode, name);
        match linked.and_then(|node| self.lock().entry(node)) {
            Ok((attributes, generation)) => reply.entry(&TTL, &attributes, generation),
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, request: &Request, _: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.remove(request, name));
    }

    fn rename(
        &self,
        request: &Request,
        _: INodeNo,
        from: &OsStr,
        _: INodeNo,
        to: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = if flags.is_empty() {
            self.move_to(request, from, to)
        } else {
            Err(Errno::EINVAL)
        };
        answer(reply, renamed);
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let state = self.lock();
        for (nth, (name, node)) in state.disk.names().enumerate().skip(offset as usize) {
            let inode = state.disk.file(node).map_or(0, |file| file.inode);
            if reply.add(INodeNo(inode), nth as u64 + 1, FileType::RegularFile, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 30, 1 << 30, 1 << 30, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}
