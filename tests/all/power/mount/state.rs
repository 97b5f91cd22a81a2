//! The disk, the log of its operations, and the fault that is to come.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileHandle, FileType, Generation, INodeNo, Request};
use rustix::process::{Pid, Signal, kill_process};

use super::super::disk::{Disk, Kind, Node, Op, Place, ROOT};
use crate::rng::Rng;

#[derive(Default)]
pub struct State {
    pub disk: Disk,
    pub log: Vec<Op>,
    pub open: HashMap<u64, Node>,
    pub handles: u64,
    pub fault: Option<DiskFault>,
    pub parts: Option<Rng>,
    pub failed: BTreeSet<u64>,
    pub reused_failed: bool,
}

/// A fault that is to come.
pub enum DiskFault {
    /// The process is killed after this number of operations.
    Kill(usize),
    /// A sync fails after this number of syncs.
    FailSync(usize),
    /// The files have no more than this number of bytes.
    Full(usize),
}

impl State {
    /// Applies and records an operation of a process, unless the process is killed.
    pub fn apply(&mut self, request: &Request, op: Op) -> Result<(), Errno> {
        match &mut self.fault {
            Some(DiskFault::Kill(0)) => {
                if let Some(pid) = Pid::from_raw(request.pid().cast_signed()) {
                    let _ = kill_process(pid, Signal::KILL);
                }
                return Err(Errno::EIO);
            }
            Some(DiskFault::Kill(after)) => *after -= 1,
            _ => {}
        }
        self.record(op);
        Ok(())
    }

    pub fn record(&mut self, op: Op) {
        self.disk.apply(&op);
        self.log.push(op);
    }

    /// Whether the next sync fails.
    pub fn sync_fails(&mut self) -> bool {
        match &mut self.fault {
            Some(DiskFault::FailSync(0)) => {
                self.fault = None;
                true
            }
            Some(DiskFault::FailSync(after)) => {
                *after -= 1;
                false
            }
            _ => false,
        }
    }

    /// How many of `len` bytes are read or written.
    pub fn part(&mut self, len: usize) -> usize {
        match &mut self.parts {
            Some(rng) if len > 1 => 1 + rng.below(len),
            _ => len,
        }
    }

    /// How many of `len` bytes fit at an offset.
    pub fn fitting(&self, node: Node, offset: usize, len: usize) -> Result<usize, Errno> {
        let Some(DiskFault::Full(allowed)) = self.fault else {
            return Ok(len);
        };
        let used = self.disk.used(self.open.values().copied());
        let free = allowed.saturating_sub(used);
        let had = self.disk.file(node).map_or(0, |file| file.bytes().len());
        match (had + free).saturating_sub(offset) {
            0 if len > 0 => Err(Errno::EDQUOT),
            fits => Ok(fits.min(len)),
        }
    }

    pub fn open(&mut self, node: Node) -> FileHandle {
        self.handles += 1;
        self.open.insert(self.handles, node);
        FileHandle(self.handles)
    }

    pub fn is_open(&self, node: Node) -> bool {
        self.open.values().any(|&it| it == node)
    }

    /// The file with this number of an inode. If several files had it, the last one.
    pub fn node(&self, inode: INodeNo) -> Result<Node, Errno> {
        if inode == INodeNo::ROOT {
            return Ok(ROOT);
        }
        let named = self.disk.tree().paths().into_iter().map(|(_, node)| node);
        named
            .chain(self.open.values().copied())
            .filter(|&node| self.disk.file(node).is_some_and(|it| it.inode == inode.0))
            .max()
            .ok_or(Errno::ESTALE)
    }

    pub fn of_handle(&mut self, handle: FileHandle) -> Result<Node, Errno> {
        self.reused_failed |= self.failed.contains(&handle.0);
        self.open.get(&handle.0).copied().ok_or(Errno::EBADF)
    }

    /// The name in a directory.
    pub fn place(&self, parent: INodeNo, name: &OsStr) -> Result<Place, Errno> {
        let name = name.to_str().ok_or(Errno::EINVAL)?.to_owned();
        let directory = self.node(parent)?;
        Ok(Place { directory, name })
    }

    /// The file or directory with this name.
    pub fn at(&self, place: &Place) -> Result<Node, Errno> {
        self.disk.tree().at(place).ok_or(Errno::ENOENT)
    }

    /// Fails if there is a file or directory with this name.
    pub fn require_free(&self, place: &Place) -> Result<(), Errno> {
        match self.at(place) {
            Ok(_) => Err(Errno::EEXIST),
            Err(_) => Ok(()),
        }
    }

    pub fn attributes(&self, node: Node) -> Result<FileAttr, Errno> {
        let file = self.disk.file(node).ok_or(Errno::ESTALE)?;
        let size = file.bytes().len() as u64;
        let links = match file.kind {
            Kind::File => self.disk.tree().links(node),
            Kind::Directory => 2,
        };
        let meta = file.meta();
        let modified = UNIX_EPOCH + Duration::from_nanos(meta.modified);
        Ok(FileAttr {
            ino: INodeNo(file.inode),
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: modified,
            ctime: modified,
            crtime: UNIX_EPOCH,
            kind: file_type(file.kind),
            perm: meta.mode as u16,
            nlink: links as u32,
            uid: meta.uid,
            gid: meta.gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    pub fn entry(&self, node: Node) -> Result<(FileAttr, Generation), Errno> {
        Ok((self.attributes(node)?, Generation(node as u64)))
    }
}

pub fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
    }
}
