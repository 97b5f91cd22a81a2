//! The index: maps each object to the position of its current data record. ZODB keeps it in
//! memory, and in `Data.fs.index` for the next start.
//!
//! An [`Index`] is a sorted list of leaves of limited length. An object needs 14 bytes: 8 for
//! its oid, and 6 for its position, as in ZODB. A leaf grows by an eighth. When a full leaf in
//! the middle is split, neither half has spare capacity. An object therefore never needs more
//! than 17 bytes, for any oids in any order. In addition, the last leaf may have about 7 kB of
//! spare capacity, for oids that rise. ZODB's format is only produced when the index is
//! [written](Index::write).
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`builder`] | builds an index from the events of a scan |
//! | [`pickle`] | reads and writes ZODB's file format |
//! | [`sanity`] | predicts whether ZODB accepts an index for a file |
//!
//! The facts come from ZODB 6.4 (`fsIndex.py`, `FileStorage/FileStorage.py`) and BTrees 6.5
//! (`_fsBTree.c`).

pub mod builder;
mod leaf;
pub mod pickle;
pub mod sanity;

use leaf::Leaf;

/// The position of the current data record of each object.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// For each leaf, the least oid that belongs in it; 0 for the first one.
    firsts: Vec<u64>,
    /// The leaves, of which none is empty.
    leaves: Vec<Leaf>,
    /// The leaf of the last insertion. The next oid often belongs there too.
    recent: usize,
    len: usize,
}

impl Index {
    /// Number of objects.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no objects.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The position of the object's current data record.
    #[must_use]
    pub fn get(&self, oid: u64) -> Option<u64> {
        self.leaves.get(self.leaf_of(oid))?.get(oid)
    }

    /// Sets the position of the object's current data record, and returns the previous one.
    /// Keeps only the lower 6 bytes of it, as ZODB does.
    pub fn insert(&mut self, oid: u64, position: u64) -> Option<u64> {
        let at = self.leaf_of(oid);
        self.recent = at;
        let is_last = at + 1 >= self.leaves.len();
        let Some(leaf) = self.leaves.get_mut(at) else {
            self.start_leaf(0, oid, position);
            return None;
        };
        match leaf.find(oid) {
            Ok(slot) => return Some(leaf.set(slot, position)),
            Err(slot) if !leaf.is_full() => leaf.insert(slot, oid, position),
            // Rising oids start a new leaf, rather than split a full one in two half-empty ones.
            Err(slot) if is_last && slot == leaf.len() => {
                self.start_leaf(oid, oid, position);
                return None;
            }
            Err(_) => {
                let right = leaf.split();
                self.firsts.insert(at + 1, right.first());
                self.leaves.insert(at + 1, right);
                return self.insert(oid, position);
            }
        }
        self.len += 1;
        None
    }

    /// The objects and their positions, sorted by oid.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.leaves.iter().flat_map(Leaf::iter)
    }

    /// Number of the leaf that `oid` belongs in.
    fn leaf_of(&self, oid: u64) -> usize {
        let recent = self.firsts.get(self.recent..).unwrap_or_default();
        match *recent {
            [first] if first <= oid => self.recent,
            [first, next, ..] if (first..next).contains(&oid) => self.recent,
            _ => self
                .firsts
                .partition_point(|&first| first <= oid)
                .saturating_sub(1),
        }
    }

    /// Appends a leaf with one object.
    fn start_leaf(&mut self, first: u64, oid: u64, position: u64) {
        self.recent = self.leaves.len();
        self.firsts.push(first);
        self.leaves.push(Leaf::start(oid, position));
        self.len += 1;
    }
}

#[cfg(test)]
mod tests;
