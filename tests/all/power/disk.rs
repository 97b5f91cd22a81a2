//! A model of a disk: which data is durable, and which other data a power cut
//! may leave. No I/O.
//!
//! It makes the same assumptions about the disk as fssync:
//!
//! 1. After `fsync` and `fdatasync`, the bytes and the size of the file are durable. Only `fsync`
//!    makes owner and mode durable, and only a sync of the directory makes the name durable.
//! 2. If a file is not synced, each sector of 512 bytes, or each page of 4096, has the content of
//!    any moment since the last sync, independently of the others: writes may be lost, kept, torn
//!    or reordered. The size is any size since the last sync, independently of the bytes. If the
//!    file was extended and the bytes are lost, they read as zeros.
//! 3. A single change of names, including a rename, is kept or lost as a whole. A journal keeps
//!    the first few changes; a disk without a journal keeps any of them. A sync of a directory
//!    makes the new names in it durable, but not its own name. After a rename from one directory
//!    to another, only a sync of the new directory counts.
//! 4. A sector is not torn.
//! 5. After a failed sync, the pages that it should have written count as written, as on Linux: a
//!    later sync does not write them.

mod file;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

pub use self::file::{Bytes, File, Kind, Meta, PAGE_LEN, SECTOR_LEN};
pub use self::tree::{Names, Place, ROOT, Tree};
use super::mount::OWNER;
use crate::rng::Rng;

/// The number of a file or directory. Unlike the number of an inode, it is never used again.
pub type Node = usize;

/// An operation: a call that changes a file or a name, or makes it durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Create {
        place: Place,
        node: Node,
        inode: u64,
        meta: Meta,
        kind: Kind,
    },
    Write {
        node: Node,
        offset: usize,
        bytes: Vec<u8>,
    },
    SetLen {
        node: Node,
        len: usize,
    },
    SetMeta {
        node: Node,
        meta: Meta,
    },
    Link {
        node: Node,
        place: Place,
    },
    /// Removes a file or an empty directory.
    Unlink {
        place: Place,
    },
    Rename {
        from: Place,
        to: Place,
    },
    /// `fsync` (with metadata) or `fdatasync`.
    Sync {
        node: Node,
        metadata: bool,
    },
    /// A failed `fsync` or `fdatasync`.
    FailedSync {
        node: Node,
    },
    SyncDirectory {
        node: Node,
    },
    /// An operation that a mistake leaves out.
    Nothing,
}

/// A disk.
#[derive(Clone, Debug)]
pub struct Disk {
    files: BTreeMap<Node, File>,
    tree: Tree,
    clock: u64,
}

impl Default for Disk {
    /// A disk whose root directory is empty and durable.
    fn default() -> Self {
        const ROOT_INODE: u64 = 1;
        let meta = Meta {
            mode: 0o755,
            uid: OWNER,
            gid: OWNER,
            modified: 0,
        };
        let root = File::empty(ROOT_INODE, meta, Kind::Directory);
        Self {
            files: BTreeMap::from([(ROOT, root)]),
            tree: Tree::default(),
            clock: 0,
        }
    }
}

impl Disk {
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The file or directory with this path, for readers.
    pub fn named(&self, path: &str) -> Option<Node> {
        self.tree.named(path)
    }

    pub fn file(&self, node: Node) -> Option<&File> {
        self.files.get(&node)
    }

    /// The bytes of the file with this path, for readers.
    pub fn read(&self, path: &str) -> Option<&[u8]> {
        Some(self.file(self.named(path)?)?.bytes())
    }

    /// The number of bytes of all files that have a name or are among the `open` ones.
    pub fn used(&self, open: impl Iterator<Item = Node>) -> usize {
        let named = self.tree.paths().into_iter().map(|(_, node)| node);
        let nodes: BTreeSet<Node> = named.chain(open).collect();
        let len = |node| self.file(node).map_or(0, |file| file.bytes().len());
        nodes.into_iter().map(len).sum()
    }

    /// The time in nanoseconds since 1970. It advances with each operation.
    pub fn now(&self) -> u64 {
        const START_SECS: u64 = 1_700_000_000;
        START_SECS * 1_000_000_000 + self.clock * 1_000_000
    }

    /// The numbers of the next file and of its inode. The number of an inode is used again once
    /// its file is durably removed and not `open`.
    pub fn next_numbers(&self, open: impl Fn(Node) -> bool) -> (Node, u64) {
        let node = self.files.keys().next_back().map_or(1, |last| last + 1);
        let is_used = |it: Node| open(it) || self.tree.may_be_named(it);
        let used: BTreeSet<u64> = self
            .files
            .iter()
            .filter(|&(&it, _)| is_used(it))
            .map(|(_, file)| file.inode)
            .collect();
        let most = used.last().map_or(2, |last| last + 1);
        let inode = (2..most)
            .find(|inode| !used.contains(inode))
            .unwrap_or(most.max(2));
        (node, inode)
    }

    /// Applies an operation.
    pub fn apply(&mut self, op: &Op) {
        self.clock += 1;
        let now = self.now();
        match op {
            Op::Create {
                place,
                node,
                inode,
                meta,
                kind,
            } => {
                self.files.insert(*node, File::empty(*inode, *meta, *kind));
                self.tree.add(place.clone(), *node);
                self.touch(place.directory);
            }
            Op::Write {
                node,
                offset,
                bytes,
            } => self.of(*node).change(now, |content| {
                let end = offset + bytes.len();
                content.resize(content.len().max(end), 0);
                content[*offset..end].copy_from_slice(bytes);
            }),
            Op::SetLen { node, len } => self
                .of(*node)
                .change(now, |content| content.resize(*len, 0)),
            Op::SetMeta { node, meta } => self.of(*node).set_meta(*meta),
            Op::Link { node, place } => {
                self.tree.add(place.clone(), *node);
                self.touch(place.directory);
            }
            Op::Unlink { place } => {
                self.tree.remove(place);
                self.touch(place.directory);
            }
            Op::Rename { from, to } => {
                self.tree.rename(from, to);
                self.touch(from.directory);
                self.touch(to.directory);
            }
            Op::Sync { node, metadata } => self.of(*node).sync(*metadata),
            Op::FailedSync { node } => self.of(*node).fail_to_sync(),
            Op::SyncDirectory { node } => {
                self.tree.sync(*node);
                self.of(*node).sync(true);
            }
            Op::Nothing => {}
        }
    }

    fn of(&mut self, node: Node) -> &mut File {
        self.files.get_mut(&node).expect("a file")
    }

    /// The names in a directory have changed.
    fn touch(&mut self, directory: Node) {
        let modified = self.now();
        let directory = self.of(directory);
        directory.set_meta(Meta {
            modified,
            ..directory.meta()
        });
    }

    /// The disk after a power cut; all of it is durable.
    pub fn cut(&self, names: Names, bytes: Bytes, rng: &mut Rng) -> Self {
        let tree = self.tree.cut(names, rng);
        let mut nodes: BTreeSet<Node> = tree.paths().into_iter().map(|(_, node)| node).collect();
        nodes.insert(ROOT);
        let mut cut = |node: Node| (node, self.files[&node].cut(bytes, rng));
        Self {
            files: nodes.into_iter().map(&mut cut).collect(),
            tree,
            clock: self.clock,
        }
    }

    /// The same disk, with all data durable.
    pub fn settled(&self) -> Self {
        self.cut(Names::Kept, Bytes::Kept, &mut Rng::new(0))
    }

    /// Equal for disks that differ only in times.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (path, node) in self.tree.paths() {
            let file = &self.files[&node];
            let Meta { mode, uid, gid, .. } = file.meta();
            (path, file.inode, mode, uid, gid).hash(&mut hasher);
            file.bytes().hash(&mut hasher);
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests;
