//! A file of the model: the bytes that readers see, and those that a power cut leaves.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::rng::Rng;

pub const SECTOR_LEN: usize = 512;
pub const PAGE_LEN: usize = 4096;

/// Owner, mode and time of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// The time of the last write, in nanoseconds since 1970.
    pub modified: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
}

/// Which bytes of a file a power cut leaves, if they are not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bytes {
    Lost,
    Kept,
    /// The last size, with zeros instead of the bytes.
    Size,
    /// Any number of changes, the first ones.
    InOrder,
    /// Each block of this length independently, and any size.
    Torn(usize),
    /// For each file, one of the others.
    Any,
}

type Content = Arc<Vec<u8>>;

/// A file, or a directory without its names.
#[derive(Clone, Debug)]
pub struct File {
    pub inode: u64,
    pub kind: Kind,
    meta: Meta,
    durable_meta: Meta,
    /// Its contents since the last sync: the first one is durable, and readers see the last
    /// one.
    contents: Vec<Content>,
    /// Pages that are not durable and that no sync will write.
    forgotten: BTreeSet<usize>,
}

impl File {
    pub fn empty(inode: u64, meta: Meta, kind: Kind) -> Self {
        Self::durable(inode, meta, kind, Content::default())
    }

    fn durable(inode: u64, meta: Meta, kind: Kind, content: Content) -> Self {
        Self {
            inode,
            kind,
            meta,
            durable_meta: meta,
            contents: vec![content],
            forgotten: BTreeSet::new(),
        }
    }

    /// The bytes that readers see.
    pub fn bytes(&self) -> &[u8] {
        self.contents.last().expect("a content")
    }

    pub fn meta(&self) -> Meta {
        self.meta
    }

    pub fn set_meta(&mut self, meta: Meta) {
        self.meta = meta;
    }

    pub fn change(&mut self, now: u64, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.bytes().to_vec();
        change(&mut bytes);
        let before = self.contents.last().expect("a content");
        let differ = differing_pages(before, &bytes);
        self.forgotten.retain(|page| !differ.contains(page));
        self.contents.push(Arc::new(bytes));
        self.meta.modified = now;
    }

    pub fn sync(&mut self, metadata: bool) {
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

    pub fn fail_to_sync(&mut self) {
        let now = self.contents.last().expect("a content").clone();
        self.forgotten
            .extend(differing_pages(&self.contents[0], &now));
    }

    /// The file after a power cut; all of it is durable.
    pub fn cut(&self, bytes: Bytes, rng: &mut Rng) -> Self {
        let keeps_meta = match bytes {
            Bytes::Lost => false,
            Bytes::Kept => true,
            _ => rng.flip(),
        };
        let meta = if keeps_meta {
            self.meta
        } else {
            self.durable_meta
        };
        Self::durable(self.inode, meta, self.kind, self.cut_content(bytes, rng))
    }

    /// The bytes that a power cut leaves.
    fn cut_content(&self, bytes: Bytes, rng: &mut Rng) -> Content {
        let last = self.contents.len() - 1;
        let some = |rng: &mut Rng| rng.below(last + 1);
        match bytes {
            Bytes::Lost => self.contents[0].clone(),
            Bytes::Kept => self.contents[last].clone(),
            Bytes::InOrder => self.contents[some(rng)].clone(),
            Bytes::Size => self.of_versions(last, PAGE_LEN, || 0),
            Bytes::Torn(len) => {
                // The contents in between rarely matter.
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
                self.cut_content(choice, rng)
            }
        }
    }

    /// The size of one content, and each block of a content that `pick` selects.
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

/// Copies a block, or the part of it that fits. Missing bytes are zeros.
fn copy_block(to: &mut [u8], from: &[u8], block: usize, len: usize) {
    let start = (block * len).min(to.len());
    let end = (start + len).min(to.len());
    let from = from.get(start..end.min(from.len())).unwrap_or(&[]);
    let (copied, zeros) = to[start..end].split_at_mut(from.len());
    copied.copy_from_slice(from);
    zeros.fill(0);
}
