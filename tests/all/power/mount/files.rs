//! The requests of the kernel: operations on the disk, and reads.

use std::ffi::OsStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, Filesystem, FopenFlags, INodeNo, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::super::disk::{Kind, Meta, Node, Op, Place};
use super::state::{State, file_type};

/// The kernel must not cache names and sizes, which change.
const TTL: Duration = Duration::ZERO;

/// A change of a file's attributes.
#[derive(Clone, Copy)]
struct Change {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    len: Option<u64>,
    modified: Option<TimeOrNow>,
}

/// The file system.
pub struct Files(pub Arc<Mutex<State>>);

impl Files {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, parent: INodeNo, name: &OsStr) -> Result<Place, Errno> {
        self.lock().place(parent, name)
    }

    fn attributes(&self, inode: INodeNo, handle: Option<FileHandle>) -> Result<FileAttr, Errno> {
        let state = self.lock();
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
            modified: match change.modified {
                None => was.modified,
                Some(TimeOrNow::Now) => state.disk.now(),
                Some(TimeOrNow::SpecificTime(time)) => {
                    let since = time.duration_since(UNIX_EPOCH);
                    since.map_err(|_| Errno::EINVAL)?.as_nanos() as u64
                }
            },
        };
        if meta != was {
            state.apply(request, Op::SetMeta { node, meta })?;
        }
        state.attributes(node)
    }

    fn make(&self, request: &Request, place: Place, mode: u32, kind: Kind) -> Result<Node, Errno> {
        let mut state = self.lock();
        state.require_free(&place)?;
        let (node, inode) = state.disk.next_numbers(|node| state.is_open(node));
        let meta = Meta {
            mode: mode & 0o7777,
            uid: request.uid(),
            gid: request.gid(),
            modified: state.disk.now(),
        };
        let create = Op::Create {
            place,
            node,
            inode,
            meta,
            kind,
        };
        state.apply(request, create)?;
        Ok(node)
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

    fn sync_directory(&self, request: &Request, inode: INodeNo) -> Result<(), Errno> {
        let mut state = self.lock();
        if state.sync_fails() {
            return Err(Errno::EIO);
        }
        let node = state.node(inode)?;
        state.apply(request, Op::SyncDirectory { node })
    }

    fn link_file(&self, request: &Request, inode: INodeNo, place: Place) -> Result<Node, Errno> {
        let mut state = self.lock();
        let node = state.node(inode)?;
        state.require_free(&place)?;
        state.apply(request, Op::Link { node, place })?;
        Ok(node)
    }

    fn remove(&self, request: &Request, place: Place) -> Result<(), Errno> {
        let mut state = self.lock();
        let node = state.at(&place)?;
        if state.disk.tree().entries(node).next().is_some() {
            return Err(Errno::ENOTEMPTY);
        }
        state.apply(request, Op::Unlink { place })
    }

    fn move_to(
        &self,
        request: &Request,
        from: Place,
        to: Place,
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let mut state = self.lock();
        state.at(&from)?;
        if flags == RenameFlags::RENAME_NOREPLACE {
            state.require_free(&to)?;
        } else if !flags.is_empty() {
            return Err(Errno::EINVAL);
        }
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
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.lock();
        let place = state.place(parent, name);
        let node = place.and_then(|place| state.at(&place));
        match node.and_then(|node| state.entry(node)) {
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
        modified: Option<TimeOrNow>,
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
            modified,
        };
        match self.change(request, inode, handle, change) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let place = self.place(parent, name);
        let created = place.and_then(|place| self.make(request, place, mode, Kind::File));
        let mut state = self.lock();
        match created.and_then(|node| Ok((state.entry(node)?, state.open(node)))) {
            Ok(((attributes, generation), handle)) => {
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

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let place = self.place(parent, name);
        let created = place.and_then(|place| self.make(request, place, mode, Kind::Directory));
        match created.and_then(|node| self.lock().entry(node)) {
            Ok((attributes, generation)) => reply.entry(&TTL, &attributes, generation),
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

    fn fsyncdir(
        &self,
        request: &Request,
        inode: INodeNo,
        _: FileHandle,
        _: bool,
        reply: ReplyEmpty,
    ) {
        answer(reply, self.sync_directory(request, inode));
    }

    fn link(
        &self,
        request: &Request,
        inode: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        let place = self.place(parent, name);
        let linked = place.and_then(|place| self.link_file(request, inode, place));
        match linked.and_then(|node| self.lock().entry(node)) {
            Ok((attributes, generation)) => reply.entry(&TTL, &attributes, generation),
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let place = self.place(parent, name);
        answer(reply, place.and_then(|place| self.remove(request, place)));
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let place = self.place(parent, name);
        answer(reply, place.and_then(|place| self.remove(request, place)));
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = (|| {
            let from = self.place(parent, name)?;
            let to = self.place(new_parent, new_name)?;
            self.move_to(request, from, to, flags)
        })();
        answer(reply, renamed);
    }

    fn readdir(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let state = self.lock();
        let directory = match state.node(inode) {
            Ok(directory) => directory,
            Err(error) => return reply.error(error),
        };
        let entries = state.disk.tree().entries(directory).enumerate();
        for (nth, (name, node)) in entries.skip(offset as usize) {
            let Some(file) = state.disk.file(node) else {
                continue;
            };
            let kind = file_type(file.kind);
            if reply.add(INodeNo(file.inode), nth as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 30, 1 << 30, 1 << 30, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}
