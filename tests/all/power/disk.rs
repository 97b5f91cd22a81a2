//! A model of a disk with one directory: which data is durable, and which other data a power cut
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
//!    the first few changes; a disk without a journal keeps any of them.
//! 4. A sector is not torn.
//! 5. After a failed sync, the pages that it should have written count as written, as on Linux: a
//!    later sync does not write them.

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

pub use self::file::{Bytes, File, Meta, PAGE_LEN, SECTOR_LEN};
use crate::rng::Rng;

/// The number of a file. Unlike the number of an inode, it is never used again.
pub type Node = usize;

/// An operation: a call that changes a file or a name, or makes it durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Create {
        name: String,
        node: Node,
        inode: u64,
        meta: Meta,
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
        name: String,
    },
    Unlink {
        name: String,
    },
    Rename {
        from: String,
        to: String,
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
    SyncDirectory,
    /// An operation that a mistake leaves out.
    Nothing,
}

/// Which changes of names a power cut leaves, if they are not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    Lost,
    Kept,
    /// Any number of changes, the first ones.
    Journal,
    /// Any changes.
    Any,
}

type Directory = BTreeMap<String, Node>;

/// A disk with one directory.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    files: BTreeMap<Node, File>,
    names: Directory,
    durable_names: Directory,
    /// The changes of names that are not durable, in their order. Each is kept or lost as a
    /// whole.
    renames: Vec<Vec<(String, Option<Node>)>>,
    clock: u64,
}

impl Disk {
    /// The file with this name, for readers.
    pub fn named(&self, name: &str) -> Option<Node> {
        self.names.get(name).copied()
    }

    pub fn names(&self) -> impl Iterator<Item = (&String, Node)> {
        self.names.iter().map(|(name, &node)| (name, node))
    }

    pub fn file(&self, node: Node) -> Option<&File> {
        self.files.get(&node)
    }

    /// The bytes of the file with this name, for readers.
    pub fn read(&self, name: &str) -> Option<&[u8]> {
        Some(self.file(self.named(name)?)?.bytes())
    }

    /// The number of names of a file.
    pub fn links(&self, node: Node) -> usize {
        self.names.values().filter(|&&it| it == node).count()
    }

    /// The time, in operations.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// The numbers of the next file and of its inode. The number of an inode is used again once
    /// its file is durably removed and not `open`.
    pub fn next_numbers(&self, open: impl Fn(Node) -> bool) -> (Node, u64) {
        let node = self.files.keys().next_back().map_or(1, |last| last + 1);
        let is_used = |it: Node| open(it) || self.is_reachable(it);
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

    /// Whether a file has a name, or may have one after a power cut.
    fn is_reachable(&self, node: Node) -> bool {
        let mut changed = self.renames.iter().flatten().map(|(_, node)| *node);
        self.names
            .values()
            .chain(self.durable_names.values())
            .any(|&it| it == node)
            || changed.any(|it| it == Some(node))
    }

    /// Applies an operation.
    pub fn apply(&mut self, op: &Op) {
        self.clock += 1;
        let clock = self.clock;
        match op {
            Op::Create {
                name,
                node,
                inode,
                meta,
            } => {
                self.files.insert(*node, File::empty(*inode, *meta));
                self.rename(vec![(name.clone(), Some(*node))]);
            }
            Op::Write {
                node,
                offset,
                bytes,
            } => self.of(*node).change(clock, |content| {
                let end = offset + bytes.len();
                content.resize(content.len().max(end), 0);
                content[*offset..end].copy_from_slice(bytes);
            }),
            Op::SetLen { node, len } => self
                .of(*node)
                .change(clock, |content| content.resize(*len, 0)),
            Op::SetMeta { node, meta } => self.of(*node).set_meta(*meta),
            Op::Link { node, name } => self.rename(vec![(name.clone(), Some(*node))]),
            Op::Unlink { name } => self.rename(vec![(name.clone(), None)]),
            Op::Rename { from, to } => {
                let node = self.named(from);
                self.rename(vec![(from.clone(), None), (to.clone(), node)]);
            }
            Op::Sync { node, metadata } => self.of(*node).sync(*metadata),
            Op::FailedSync { node } => self.of(*node).fail_to_sync(),
            Op::SyncDirectory => {
                self.durable_names = self.names.clone();
                self.renames.clear();
            }
            Op::Nothing => {}
        }
    }

    fn of(&mut self, node: Node) -> &mut File {
        self.files.get_mut(&node).expect("a file")
    }

    fn rename(&mut self, change: Vec<(String, Option<Node>)>) {
        carry_out(&change, &mut self.names);
        self.renames.push(change);
    }

    /// The disk after a power cut; all of it is durable.
    pub fn cut(&self, names: Names, bytes: Bytes, rng: &mut Rng) -> Self {
        let mut left = self.durable_names.clone();
        let first = rng.below(self.renames.len() + 1);
        for (nth, change) in self.renames.iter().enumerate() {
            let is_kept = match names {
                Names::Lost => false,
                Names::Kept => true,
                Names::Journal => nth < first,
                Names::Any => rng.flip(),
            };
            if is_kept {
                carry_out(change, &mut left);
            }
        }
        let nodes: BTreeSet<Node> = left.values().copied().collect();
        let mut cut = |node: Node| (node, self.files[&node].cut(bytes, rng));
        Self {
            files: nodes.into_iter().map(&mut cut).collect(),
            names: left.clone(),
            durable_names: left,
            renames: Vec::new(),
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
        for (name, node) in &self.names {
            let file = &self.files[node];
            let Meta { mode, uid, gid, .. } = file.meta();
            (name, file.inode, mode, uid, gid).hash(&mut hasher);
            file.bytes().hash(&mut hasher);
        }
        hasher.finish()
    }
}

fn carry_out(change: &[(String, Option<Node>)], names: &mut Directory) {
    for (name, node) in change {
        match node {
            Some(node) => names.insert(name.clone(), *node),
            None => names.remove(name),
        };
    }
}

#[cfg(test)]
mod tests;
