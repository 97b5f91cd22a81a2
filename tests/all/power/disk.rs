//! A model of a disk with one directory: what is durable, what is only written,
//! and what a power cut may leave of that. No I/O.
//!
//! It assumes of the media no more than fssync does:
//!
//! - What `fsync` and `fdatasync` return for is durable: the bytes and the size;
//!   owner and mode only with `fsync`. The name of a file is not made durable with the
//!   file, but with its directory.
//! - Of what is not synced, each sector of 512 bytes (or each page of 4096) is on the
//!   disk as it was at any moment since the last sync, whatever the others are: so
//!   writes are lost, kept, torn and reordered. The size is one that the file had since,
//!   independently of the bytes; where it was extended over bytes that are lost, they
//!   are zeros.
//! - A change of names is kept or lost as a whole, a rename too. A journal keeps the
//!   first few; a disk without one keeps any.
//! - A sector is not torn.
//! - After a sync that failed, the pages that were to be written count as written, as
//!   Linux has it: a later sync passes over them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::rng::Rng;

pub const SECTOR_LEN: usize = 512;
pub const PAGE_LEN: usize = 4096;

/// A file, by a number that no other one ever gets; unlike its inode's.
pub type Node = usize;

/// Owner, mode and time of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// After how many changes of the disk it was last written.
    pub modified: u64,
}

/// A call that changes something, or makes it durable.
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
    /// `fsync`, or `fdatasync`.
    Sync {
        node: Node,
        metadata: bool,
    },
    /// Either of them, which failed.
    FailedSync {
        node: Node,
    },
    SyncDirectory,
    /// A call that is left out.
    Nothing,
}

/// What a power cut leaves of names that are not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    Lost,
    Kept,
    /// The first changes.
    Journal,
    /// Any changes.
    Any,
}

/// What a power cut leaves of a file that is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bytes {
    Lost,
    Kept,
    /// The size, over zeros.
    Size,
    /// The first changes.
    InOrder,
    /// Each block of this length for itself, and the size.
    Torn(usize),
    /// For each file one of the others.
    Any,
}

type Content = Arc<Vec<u8>>;
type Directory = BTreeMap<String, Node>;

/// A file.
#[derive(Clone, Debug)]
pub struct File {
    pub inode: u64,
    meta: Meta,
    durable_meta: Meta,
    /// What it was since it was last synced; the first is durable, the last is what a
    /// reader sees.
    contents: Vec<Content>,
    /// Pages that differ from what is durable, and no sync will write.
    forgotten: BTreeSet<usize>,
}

impl File {
    /// What a reader sees.
    pub fn bytes(&self) -> &[u8] {
        self.contents.last().expect("a content")
    }

    pub fn meta(&self) -> Meta {
        self.meta
    }

    fn change(&mut self, clock: u64, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.bytes().to_vec();
        change(&mut bytes);
        let before = self.contents.last().expect("a content");
        let differ = differing_pages(before, &bytes);
        self.forgotten.retain(|page| !differ.contains(page));
        self.contents.push(Arc::new(bytes));
        self.meta.modified = clock;
    }

    fn sync(&mut self, metadata: bool) {
        let now = self.contents.last().expect("a content").clone();
        if self.forgotten.is_empty() {
            self.contents = vec![now];
        } else {
            let mut durable = now.to_vec();
            for &page in &self.forgotten {
                copy_block(&mut durable, &self.contents[0], page, PAGE_LEN);
            }
            self.contents = vec![Arc::new(durable), now];
        }
        if metadata {
            self.durable_meta = self.meta;
        }
    }

    fn fail_to_sync(&mut self) {
        let now = self.contents.last().expect("a content").clone();
        self.forgotten
            .extend(differing_pages(&self.contents[0], &now));
    }

    /// What a power cut leaves of it.
    fn cut(&self, bytes: Bytes, rng: &mut Rng) -> Content {
        let last = self.contents.len() - 1;
        let some = |rng: &mut Rng| rng.below(last + 1);
        match bytes {
            Bytes::Lost => self.contents[0].clone(),
            Bytes::Kept => self.contents[last].clone(),
            Bytes::InOrder => self.contents[some(rng)].clone(),
            Bytes::Size => self.of_versions(last, PAGE_LEN, || 0),
            Bytes::Torn(len) => {
                // What came between two others is rarely what matters.
                let ends = rng.flip();
                let mut some = || {
                    if ends { last * rng.below(2) } else { some(rng) }
                };
                let size = some();
                self.of_versions(size, len, some)
            }
            Bytes::Any => {
                let choices = [
                    Bytes::Lost,
                    Bytes::Kept,
                    Bytes::Size,
                    Bytes::InOrder,
                    Bytes::Torn(SECTOR_LEN),
                    Bytes::Torn(PAGE_LEN),
                ];
                let choice = rng.one_of(&choices);
                self.cut(choice, rng)
            }
        }
    }

    /// The size that it had at one time, and each block as it was at another.
    fn of_versions(
        &self,
        size: usize,
        block_len: usize,
        mut pick: impl FnMut() -> usize,
    ) -> Content {
        let mut bytes = vec![0; self.contents[size].len()];
        for block in 0..bytes.len().div_ceil(block_len) {
            copy_block(&mut bytes, &self.contents[pick()], block, block_len);
        }
        Arc::new(bytes)
    }
}

/// The pages in which two contents differ.
fn differing_pages(a: &[u8], b: &[u8]) -> BTreeSet<usize> {
    let page = |bytes: &[u8], nth: usize| {
        let mut page = vec![0; PAGE_LEN];
        copy_block(
            &mut page,
            bytes.get(nth * PAGE_LEN..).unwrap_or(&[]),
            0,
            PAGE_LEN,
        );
        page
    };
    let count = a.len().max(b.len()).div_ceil(PAGE_LEN);
    (0..count)
        .filter(|&nth| page(a, nth) != page(b, nth))
        .collect()
}

/// Copies a block, as far as there is room; what lacks is zeros.
fn copy_block(to: &mut [u8], from: &[u8], block: usize, len: usize) {
    let start = (block * len).min(to.len());
    let end = (start + len).min(to.len());
    let from = from.get(start..end.min(from.len())).unwrap_or(&[]);
    let (copied, zeros) = to[start..end].split_at_mut(from.len());
    copied.copy_from_slice(from);
    zeros.fill(0);
}

/// A disk with one directory.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    files: BTreeMap<Node, File>,
    names: Directory,
    durable_names: Directory,
    /// Changes of the durable names, in their order; each is kept or lost as a whole.
    renames: Vec<Vec<(String, Option<Node>)>>,
    clock: u64,
}

impl Disk {
    /// The file of a name, as a reader sees it.
    pub fn named(&self, name: &str) -> Option<Node> {
        self.names.get(name).copied()
    }

    pub fn names(&self) -> impl Iterator<Item = (&String, Node)> {
        self.names.iter().map(|(name, &node)| (name, node))
    }

    pub fn file(&self, node: Node) -> Option<&File> {
        self.files.get(&node)
    }

    /// The bytes under a name.
    pub fn read(&self, name: &str) -> Option<&[u8]> {
        Some(self.file(self.named(name)?)?.bytes())
    }

    /// How many names a file has.
    pub fn links(&self, node: Node) -> usize {
        self.names.values().filter(|&&it| it == node).count()
    }

    /// The time, in changes.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// The numbers for the next file: that of its own, and its inode's, which comes back
    /// once the file that had it is durably gone, and is not `open`.
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

    /// Whether a power cut may leave a file.
    fn is_reachable(&self, node: Node) -> bool {
        let mut changed = self.renames.iter().flatten().map(|(_, node)| *node);
        self.names
            .values()
            .chain(self.durable_names.values())
            .any(|&it| it == node)
            || changed.any(|it| it == Some(node))
    }

    /// Carries an operation out.
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
                let file = File {
                    inode: *inode,
                    meta: *meta,
                    durable_meta: *meta,
                    contents: vec![Content::default()],
                    forgotten: BTreeSet::new(),
                };
                self.files.insert(*node, file);
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
            Op::SetMeta { node, meta } => self.of(*node).meta = *meta,
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

    /// What a power cut leaves; all of it is durable.
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
        let mut cut = |node: Node| {
            let file = &self.files[&node];
            let keeps_meta = match bytes {
                Bytes::Lost => false,
                Bytes::Kept => true,
                _ => rng.flip(),
            };
            let meta = if keeps_meta {
                file.meta
            } else {
                file.durable_meta
            };
            let file = File {
                inode: file.inode,
                meta,
                durable_meta: meta,
                contents: vec![file.cut(bytes, rng)],
                forgotten: BTreeSet::new(),
            };
            (node, file)
        };
        Self {
            files: nodes.into_iter().map(&mut cut).collect(),
            names: left.clone(),
            durable_names: left,
            renames: Vec::new(),
            clock: self.clock,
        }
    }

    /// All that is written, durable.
    pub fn settled(&self) -> Self {
        self.cut(Names::Kept, Bytes::Kept, &mut Rng::new(0))
    }

    /// The same for disks that differ in times at most.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (name, node) in &self.names {
            let File { inode, meta, .. } = &self.files[node];
            (name, inode, meta.mode, meta.uid, meta.gid).hash(&mut hasher);
            self.files[node].bytes().hash(&mut hasher);
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
