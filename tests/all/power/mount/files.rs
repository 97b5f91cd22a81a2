//! The requests of the kernel: operations on the disk, and reads.

use std::ffi::OsStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::super::disk::{Meta, Node, Op};
use super::OWNER;
use super::state::{State, attributes};

/// The kernel must not cache names and sizes, which change.
const TTL: Duration = Duration::ZERO;

/// A change of a file's attributes.
#[derive(Clone, Copy)]
struct Change {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    len: Option<u64>,
}

/// The file system.
pub struct Files(pub Arc<Mutex<State>>);

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
            return Ok(attributes(inode.0, meta, 0, 2, FileType::Directory));
        }
        let open = handle.and_then(|handle| state.open.get(&handle.0).copied());
        let node = open.map_or_else(|| state.node(inode), Ok)?;
        state.attributes(node)
    }

    fn change(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: Option<FileHandle>,
        change: Change,
    ) -> Result<FileAttr, Errno> {
        let mut state = self.lock();
        let node = match handle {
            Some(handle) => state.of_handle(handle)?,
            None => state.node(inode)?,
        };
        if let Some(len) = change.len {
            let len = len as usize;
            state.apply(request, Op::SetLen { node, len })?;
        }
        let was = state.disk.file(node).ok_or(Errno::ESTALE)?.meta();
        let meta = Meta {
            mode: change.mode.map_or(was.mode, |mode| mode & 0o7777),
            uid: change.uid.unwrap_or(was.uid),
            gid: change.gid.unwrap_or(was.gid),
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
        let len = state.fitting(node, offset, part)?;
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
        if state.sync_fails() {
            state.failed.insert(handle.0);
            state.record(Op::FailedSync { node });
            return Err(Errno::EIO);
        }
        state.apply(request, Op::Sync { node, metadata })
    }

    fn sync_directory(&self, request: &Request) -> Result<(), Errno> {
        let mut state = self.lock();
        if state.sync_fails() {
            return Err(Errno::EIO);
        }
        state.apply(request, Op::SyncDirectory)
    }

    fn link_file(&self, request: &Request, inode: INodeNo, name: &OsStr) -> Result<Node, Errno> {
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
        len: Option<u64>,
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
        let change = Change {
            mode,
            uid,
            gid,
            len,
        };
        match self.change(request, inode, handle, change) {
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
        let linked = self.link_file(request, inode, name);
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
